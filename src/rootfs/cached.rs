//! A cache's directory as two streams: what its files are, and what they hold.
//!
//! In: a directory that steps wrote to, or two streams that came from anywhere. Out: the other. The first stream is the headers of
//! a tar in sorted order ([`HeaderWriter`]), the second the contents of its files in that order and nothing between them. Apart, a time
//! that was touched changes a few bytes of the first and none of the second: compilers' and package managers' caches touch files
//! that they use.
//!
//! Owners, modes, times, attributes, symbolic and hard links come back. Devices and sockets are not read and not made; both are
//! nothing that a cache is kept for. Streams are hostile: see [`Unpacker`].

use std::collections::HashMap;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::layer::{Entry, EntryKind, HeaderWriter, TarReader};
use crate::vocab::{Cancel, Ownership};

use super::diff::{entry, open_file};
use super::error::{During, RootfsError, rooted};
use super::ledgers::note_owners;
use super::owners::Owners;
use super::stat::{FileKind, Stat};
use super::tree::Tree;
use super::unpack::{Rules, Unpacked, Unpacker};
use super::walk::{Visit, Walk};
use super::xattr::Naming;

const BUFFER: usize = 256 << 10;

/// What the streams go on with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Of the first stream.
    Header(&'a [u8]),
    /// The second stream has come to the first byte of a file of this size, or behind its last.
    FileBegins(u64),
    FileEnds(u64),
    /// Of the second stream.
    Content(&'a [u8]),
}

/// Reads a directory in order. What changes meanwhile may be an error; what was added may be missing.
pub fn read_cache(
    directory: &Path,
    owners: &Owners,
    cancel: &Cancel,
    take: &mut dyn FnMut(Piece<'_>) -> io::Result<()>,
) -> Result<(), RootfsError> {
    let root = Tree::open(directory)?;
    let mut reader = Reader {
        cancel,
        take,
        headers: HeaderWriter::default(),
        linked: HashMap::new(),
        buffer: vec![0; BUFFER],
    };
    let mut walk = Walk::with_owners(root.as_fd(), owners).during("list", "/")?;
    let stat = walk.stat().during("stat", "/")?;
    let xattrs = walk
        .read_content(walk.directory(), Naming::Escaped)
        .during("read the attributes of", "/")?;
    reader.put(&entry(b"", &stat, EntryKind::Directory, xattrs))?;
    while let Some(visit) = walk.next().during("read", rooted(walk.path()))? {
        let Visit::Entry(stat) = visit else {
            continue;
        };
        if cancel.is_cancelled() {
            return Err(RootfsError::Cancelled);
        }
        match stat.kind {
            FileKind::Socket | FileKind::CharDevice | FileKind::BlockDevice => {}
            FileKind::Directory => {
                walk.enter().during("open", rooted(walk.path()))?;
                let path = walk.path();
                let xattrs = walk
                    .read_content(walk.directory(), Naming::Escaped)
                    .during("read the attributes of", rooted(path))?;
                reader.put(&entry(path, &stat, EntryKind::Directory, xattrs))?;
            }
            FileKind::File | FileKind::Symlink | FileKind::Fifo => reader.file(&walk, &stat)?,
        }
    }
    Ok(())
}

struct Reader<'a> {
    cancel: &'a Cancel,
    take: &'a mut dyn FnMut(Piece<'_>) -> io::Result<()>,
    headers: HeaderWriter,
    /// The first path of each file that has several.
    linked: HashMap<(u64, u64), Vec<u8>>,
    buffer: Vec<u8>,
}

impl Reader<'_> {
    fn put(&mut self, entry: &Entry) -> Result<(), RootfsError> {
        let header = self.headers.header(entry);
        header
            .and_then(|header| (self.take)(Piece::Header(header)))
            .during("take", rooted(&entry.path))
    }

    fn file(&mut self, walk: &Walk, stat: &Stat) -> Result<(), RootfsError> {
        let path = walk.path();
        if stat.links > 1 {
            let identity = (stat.device, stat.inode);
            if let Some(target) = self.linked.get(&identity) {
                let target = target.clone();
                let kind = EntryKind::HardLink { target };
                return self.put(&entry(path, stat, kind, Default::default()));
            }
            self.linked.insert(identity, path.to_vec());
        }
        match stat.kind {
            FileKind::Symlink => {
                let target = rustix::fs::readlinkat(walk.directory(), walk.name(), Vec::new())
                    .during("read the link", rooted(path))?
                    .into_bytes();
                let kind = EntryKind::Symlink { target };
                self.put(&entry(path, stat, kind, Default::default()))
            }
            FileKind::Fifo => self.put(&entry(path, stat, EntryKind::Fifo, Default::default())),
            _ => self.content(walk, stat),
        }
    }

    fn content(&mut self, walk: &Walk, stat: &Stat) -> Result<(), RootfsError> {
        let path = walk.path();
        let file = open_file(walk).during("open", rooted(path))?;
        let xattrs = walk
            .read_content(file.as_fd(), Naming::Escaped)
            .during("read the attributes of", rooted(path))?;
        let size = stat.size;
        self.put(&entry(path, stat, EntryKind::File { size }, xattrs))?;
        if size == 0 {
            return Ok(());
        }
        let failed = |error: io::Error| Err(error).during("read", rooted(path));
        (self.take)(Piece::FileBegins(size)).or_else(failed)?;
        // One byte more than there should be: a file that has grown is another one.
        let mut file = std::fs::File::from(file).take(size + 1);
        let mut rest = size;
        loop {
            if self.cancel.is_cancelled() {
                return Err(RootfsError::Cancelled);
            }
            let count = match file.read(&mut self.buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return failed(error),
            };
            rest = match rest.checked_sub(count as u64) {
                Some(rest) => rest,
                None => return failed(io::Error::other("it grew while it was read")),
            };
            (self.take)(Piece::Content(&self.buffer[..count])).or_else(failed)?;
        }
        if rest > 0 {
            return failed(io::Error::other("it shrank while it was read"));
        }
        (self.take)(Piece::FileEnds(size)).or_else(failed)
    }
}

/// Makes files in an empty directory, and what is beside it where owners are in a ledger. After an error the directory holds a part
/// of the cache and is to be deleted.
pub fn fill_cache(
    headers: &mut dyn Read,
    contents: &mut dyn Read,
    directory: &Path,
    ownership: Ownership,
    cancel: &Cancel,
) -> Result<Unpacked, RootfsError> {
    let root = Tree::open(directory)?.with_owners(Owners::new(ownership));
    let fd = root
        .as_fd()
        .try_clone_to_owned()
        .during("open", directory.as_os_str().as_bytes())?;
    let rules = Rules {
        layer: None,
        root: true,
        owner: None,
        naming: Naming::Escaped,
        time: None,
    };
    let mut unpacker = Unpacker::new(fd, rules, root.owners().clone());
    let mut headers = TarReader::of_headers(headers);
    let mut buffer = vec![0; BUFFER];
    while let Some(entry) = headers.next()? {
        if cancel.is_cancelled() {
            return Err(RootfsError::Cancelled);
        }
        let size = match entry.kind {
            EntryKind::CharDevice { .. } | EntryKind::BlockDevice { .. } => continue,
            EntryKind::File { size } => size,
            _ => 0,
        };
        let path = entry.path.clone();
        unpacker.entry(entry)?;
        let mut content = contents.take(size);
        loop {
            let count = content.read(&mut buffer).during("read", rooted(&path))?;
            if count == 0 {
                break;
            }
            unpacker.content(&buffer[..count])?;
        }
    }
    let unpacked = unpacker.finish()?;
    note_owners(directory, &root, &[])?;
    Ok(unpacked)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};
    use std::os::unix::net::UnixListener;

    use super::*;

    fn streams(directory: &Path) -> (Vec<u8>, Vec<u8>) {
        let (mut headers, mut contents) = (Vec::new(), Vec::new());
        read_cache(directory, &Owners::OnDisk, &Cancel::new(), &mut |piece| {
            match piece {
                Piece::Header(bytes) => headers.extend_from_slice(bytes),
                Piece::Content(bytes) => contents.extend_from_slice(bytes),
                Piece::FileBegins(_) | Piece::FileEnds(_) => {}
            }
            Ok(())
        })
        .unwrap();
        (headers, contents)
    }

    fn fill(headers: &[u8], contents: &[u8], directory: &Path) -> Result<Unpacked, RootfsError> {
        fs::create_dir(directory).unwrap();
        let (mut headers, mut contents) = (headers, contents);
        let cancel = Cancel::new();
        fill_cache(
            &mut headers,
            &mut contents,
            directory,
            Ownership::InLedger,
            &cancel,
        )
    }

    #[test]
    fn a_directory_that_was_filled_gives_the_same_streams() {
        let host = tempfile::tempdir().unwrap();
        let one = host.path().join("one");
        fs::create_dir_all(one.join("d/empty")).unwrap();
        fs::write(one.join("d/f"), "content").unwrap();
        fs::hard_link(one.join("d/f"), one.join("twin")).unwrap();
        symlink("/etc/passwd", one.join("link")).unwrap();
        fs::write(one.join(".wh.no-deletion"), "").unwrap();
        fs::write(one.join("large"), vec![7; 700_000]).unwrap();
        let socket = UnixListener::bind(one.join("socket")).unwrap();
        let (headers, contents) = streams(&one);
        assert_eq!(contents.len(), 7 + 700_000);
        let other = host.path().join("other");
        fill(&headers, &contents, &other).unwrap();
        assert!(!other.join("socket").exists());
        assert!(other.join(".wh.no-deletion").exists());
        assert_eq!(fs::metadata(other.join("twin")).unwrap().nlink(), 2);
        // Owners are in the ledger: as root's, unless who runs this is somebody else.
        let (owners, _) = super::super::SharedOwners::seed(&other, Ownership::InLedger).unwrap();
        let mut again = Vec::new();
        read_cache(&other, &owners, &Cancel::new(), &mut |piece| {
            if let Piece::Header(bytes) = piece {
                again.extend_from_slice(bytes);
            }
            Ok(())
        })
        .unwrap();
        assert!(again == headers, "the same files");
        drop(socket);
    }

    #[test]
    fn streams_that_end_early_fill_nothing_that_is_taken_for_whole() {
        let host = tempfile::tempdir().unwrap();
        let one = host.path().join("one");
        fs::create_dir(&one).unwrap();
        fs::write(one.join("f"), "content").unwrap();
        let (headers, contents) = streams(&one);
        let cases = [
            (&headers[..headers.len() - 1], &contents[..]),
            (&headers[..], &contents[..6]),
            (&headers[..], &[]),
        ];
        for (at, (headers, contents)) in cases.into_iter().enumerate() {
            let to = host.path().join(format!("to-{at}"));
            assert!(fill(headers, contents, &to).is_err(), "{at}");
        }
    }

    #[test]
    fn a_reading_that_is_cancelled_says_so() {
        let host = tempfile::tempdir().unwrap();
        fs::write(host.path().join("f"), "content").unwrap();
        let cancel = Cancel::new();
        cancel.cancel(crate::vocab::CancelReason::Interrupted);
        let read = read_cache(host.path(), &Owners::OnDisk, &cancel, &mut |_| Ok(()));
        assert!(matches!(read, Err(RootfsError::Cancelled)));
    }
}
