//! Zip archives as entries, as builders of Java and Node artifacts make them.
//!
//! In: bytes that can be sought in. Out: [`Entry`]s in the order of the archive's table, each with its content. Members that are stored
//! or deflated are known; encrypted ones are not. Names are clean when they come out: none is absolute, and none leads up.

use std::io::{self, Read, Seek};

use zip::ZipArchive;
use zip::read::ZipFile;
use zip::result::ZipError as ArchiveError;

use super::entry::{Entry, EntryKind, Mtime};

/// As long as the longest target of a link that kernels take.
const MOST_TARGET: u64 = 4096;

/// Why a zip archive was refused.
#[derive(Debug, thiserror::Error)]
pub enum ZipError {
    #[error("cannot read the zip archive")]
    Archive(#[from] ArchiveError),
    #[error("cannot read `{name}` in the zip archive")]
    Read { name: String, source: ArchiveError },
    #[error("`{name}` in the zip archive leaves its root")]
    Escapes { name: String },
    #[error("`{name}` in the zip archive {problem}")]
    Member { name: String, problem: &'static str },
}

/// Tells a zip archive by its first bytes: those of a member, or those of the end of an empty one.
pub fn is_zip(first: &[u8]) -> bool {
    first.starts_with(b"PK\x03\x04") || first.starts_with(b"PK\x05\x06")
}

/// A zip archive whose table was read.
pub struct ZipReader<R> {
    archive: ZipArchive<R>,
    at: usize,
}

/// A member of an archive.
pub struct ZipMember<'a> {
    pub entry: Entry,
    /// All of it is to be read: the last bytes come with an error if they are damaged.
    pub content: Box<dyn Read + 'a>,
}

impl<R: Read + Seek> ZipReader<R> {
    /// Reads the table.
    pub fn new(file: R) -> Result<ZipReader<R>, ZipError> {
        let archive = ZipArchive::new(file)?;
        Ok(ZipReader { archive, at: 0 })
    }

    /// Returns the next member; none that is the root itself.
    pub fn next_member(&mut self) -> Result<Option<ZipMember<'_>>, ZipError> {
        loop {
            if self.at == self.archive.len() {
                return Ok(None);
            }
            self.at += 1;
            let raw = self.archive.by_index_raw(self.at - 1)?.name_raw().to_vec();
            let path = clean(&raw)?;
            if !path.is_empty() {
                return self.member(&raw, path).map(Some);
            }
        }
    }

    /// Returns the member before the next one.
    fn member(&mut self, raw: &[u8], path: Vec<u8>) -> Result<ZipMember<'_>, ZipError> {
        let name = || String::from_utf8_lossy(raw).into_owned();
        let opened = self.archive.by_index(self.at - 1);
        let mut file = opened.map_err(|source| ZipError::Read {
            name: name(),
            source,
        })?;
        let refuse = |problem| ZipError::Member {
            name: name(),
            problem,
        };
        // Programs that know no modes leave this half empty.
        let mode = file.external_attributes() >> 16;
        const KIND: u32 = 0o170_000;
        let kind = match mode & KIND {
            _ if raw.ends_with(b"/") => EntryKind::Directory,
            0o040_000 => EntryKind::Directory,
            0o120_000 => EntryKind::Symlink {
                target: target(&mut file)
                    .map_err(|source| ZipError::Read {
                        name: name(),
                        source: source.into(),
                    })?
                    .ok_or_else(|| refuse("is a link to nothing, or to too long a name"))?,
            },
            0o100_000 | 0 => EntryKind::File { size: file.size() },
            _ => return Err(refuse("is no file, directory or link")),
        };
        let usual = match kind {
            EntryKind::Directory => 0o755,
            _ => 0o644,
        };
        let entry = Entry {
            path,
            mode: match mode & 0o777 {
                0 => usual,
                mode => mode,
            },
            uid: 0,
            gid: 0,
            mtime: time(&file),
            xattrs: Default::default(),
            kind,
        };
        let content: Box<dyn Read> = match entry.kind {
            EntryKind::File { .. } => Box::new(file),
            _ => Box::new(io::empty()),
        };
        Ok(ZipMember { entry, content })
    }
}

/// Reads where a link leads to; `None` where that cannot be a name.
fn target<R: Read>(file: &mut ZipFile<'_, R>) -> io::Result<Option<Vec<u8>>> {
    let mut target = Vec::new();
    file.take(MOST_TARGET + 1).read_to_end(&mut target)?;
    let is_name = !target.is_empty() && !target.contains(&0);
    Ok(Some(target).filter(|target| is_name && target.len() as u64 <= MOST_TARGET))
}

/// Returns the time of a member, which has no zone, as if it were UTC.
fn time<R: Read>(file: &ZipFile<'_, R>) -> Mtime {
    let time = file.last_modified();
    let time = time.and_then(|time| jiff::civil::DateTime::try_from(time).ok());
    let time = time.and_then(|time| time.to_zoned(jiff::tz::TimeZone::UTC).ok());
    Mtime {
        seconds: time.map_or(0, |time| time.timestamp().as_second()),
        nanoseconds: 0,
    }
}

/// Returns the path of a name: backslashes are separators, as some programs of Windows write them.
fn clean(name: &[u8]) -> Result<Vec<u8>, ZipError> {
    let shown = || String::from_utf8_lossy(name).into_owned();
    if name.contains(&0) {
        return Err(ZipError::Member {
            name: shown(),
            problem: "has a NUL byte in its name",
        });
    }
    let mut path: Vec<&[u8]> = Vec::new();
    for part in name.split(|byte| matches!(byte, b'/' | b'\\')) {
        match part {
            b"" | b"." => {}
            b".." => return Err(ZipError::Escapes { name: shown() }),
            part => path.push(part),
        }
    }
    Ok(path.join(&b'/'))
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write as _};

    use zip::write::SimpleFileOptions;
    use zip::{CompressionMethod, DateTime, ZipWriter};

    use super::*;

    struct Member<'a> {
        name: &'a [u8],
        mode: u32,
        content: &'a [u8],
        deflated: bool,
    }

    fn zip(members: &[Member<'_>]) -> Vec<u8> {
        let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
        let mut names = Vec::new();
        for (at, member) in members.iter().enumerate() {
            let method = match member.deflated {
                true => CompressionMethod::Deflated,
                false => CompressionMethod::Stored,
            };
            let time = DateTime::from_date_and_time(2000, 2, 29, 12, 34, 56).unwrap();
            let options = SimpleFileOptions::default()
                .compression_method(method)
                .last_modified_time(time)
                .unix_permissions(0o777);
            // The crate writes no name that leads out: one of the same length takes its place.
            let name = format!("{at}{}", "n".repeat(member.name.len() - 1));
            writer.start_file(&*name, options).unwrap();
            writer.write_all(member.content).unwrap();
            names.push(name);
        }
        let mut archive = writer.finish().unwrap().into_inner();
        for (member, name) in members.iter().zip(names) {
            let mut places = 0;
            for at in 0..archive.len() - name.len() {
                if archive[at..].starts_with(name.as_bytes()) {
                    archive[at..at + name.len()].copy_from_slice(member.name);
                    places += 1;
                    // In the table, the mode stands 8 bytes before the name's 46th.
                    if places == 2 {
                        archive[at - 8..at - 4].copy_from_slice(&(member.mode << 16).to_le_bytes());
                    }
                }
            }
            assert_eq!(places, 2, "a name stands at its member and in the table");
        }
        archive
    }

    fn read(archive: &[u8]) -> Result<Vec<String>, ZipError> {
        let mut reader = ZipReader::new(Cursor::new(archive))?;
        let mut found = Vec::new();
        while let Some(ZipMember { entry, mut content }) = reader.next_member()? {
            let mut text = String::new();
            content
                .read_to_string(&mut text)
                .map_err(ArchiveError::from)?;
            let kind = match &entry.kind {
                EntryKind::Symlink { target } => {
                    format!(" -> {}", String::from_utf8_lossy(target))
                }
                EntryKind::Directory => "/".to_owned(),
                _ => format!(" = {text}"),
            };
            let path = String::from_utf8_lossy(&entry.path).into_owned();
            // 2000-02-29 12:34:56.
            let time = match entry.mtime.seconds {
                951_827_696 => "",
                _ => " at another time",
            };
            found.push(format!("{path}{kind} {:o}{time}", entry.mode));
        }
        Ok(found)
    }

    fn file<'a>(name: &'a [u8], content: &'a [u8]) -> Member<'a> {
        Member {
            name,
            mode: 0o100_755,
            content,
            deflated: true,
        }
    }

    #[test]
    fn members_become_entries() {
        let archive = zip(&[
            Member {
                mode: 0o040_700,
                ..file(b"d/", b"")
            },
            file(b"/d/./run", b"one"),
            Member {
                deflated: false,
                mode: 0,
                ..file(b"d\\plain", b"two")
            },
            Member {
                mode: 0o120_777,
                ..file(b"link", b"d/run")
            },
            file(b"empty", b""),
        ]);
        assert_eq!(
            read(&archive).unwrap(),
            [
                "d/ 700",
                "d/run = one 755",
                "d/plain = two 644",
                "link -> d/run 777",
                "empty =  755"
            ]
        );
        assert!(is_zip(&archive));
    }

    #[test]
    fn names_that_lead_out_are_refused() {
        for name in [&b"../x"[..], b"a/../../x", b"a\\..\\x", b"a\0b"] {
            assert!(read(&zip(&[file(name, b"x")])).is_err(), "{name:?}");
        }
    }

    #[test]
    fn damage_is_an_error_and_never_a_panic() {
        let archive = zip(&[
            Member {
                deflated: false,
                ..file(b"first", b"some content")
            },
            file(b"second", b"more"),
        ]);
        let whole = read(&archive).unwrap();
        for at in 0..archive.len() {
            assert!(read(&archive[..at]).is_err(), "cut at {at}");
            let mut torn = archive.clone();
            torn[at] ^= 0xff;
            let _what_nobody_checks = read(&torn);
        }
        let mut torn = archive.clone();
        // A byte of the first member's content.
        let content = archive.windows(4).position(|window| window == b"some");
        torn[content.unwrap()] ^= 1;
        assert!(read(&torn).is_err());
        assert_eq!(whole.len(), 2);
    }
}
