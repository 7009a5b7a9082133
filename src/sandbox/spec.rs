//! What is to be run, and how it crosses to init.
//!
//! ```text
//! string, bytes: u32 length, then the bytes; numbers little-endian; lists: u32 count, then the items
//! instructions: argv | env (name, value) | cwd | uid | gid | groups | hostname | u8 private network | resolv.conf | hosts
//!               | u64 shm size | limits (u32 resource, u64 soft, u64 hard) | files (path, u32 mode, content)
//! ```
//!
//! Both ends are the same program, so there is no version; the reader checks lengths all the same.

use std::os::fd::OwnedFd;

use crate::vocab::{NetworkMode, Ulimit};

use super::error::RunError;
use super::limits::{self, Limit};

/// A command and all it is given.
#[derive(Debug)]
pub struct RunSpec {
    /// The root: a detached mount (from `fsmount` or `open_tree`), or a directory, which is bound with all that is mounted
    /// below it. Closed when the command has ended.
    pub root: OwnedFd,
    /// The program and its arguments. A program without a slash is looked for in `PATH` of `env`.
    pub argv: Vec<String>,
    /// The whole environment; nothing is added.
    pub env: Vec<(String, String)>,
    /// Must exist in the root.
    pub cwd: String,
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    pub hostname: String,
    pub network: NetworkMode,
    /// Content of /etc/resolv.conf and of /etc/hosts. The command may change them; nothing of it stays.
    pub resolv_conf: Vec<u8>,
    pub hosts: Vec<u8>,
    /// Bytes of /dev/shm.
    pub shm_size: u64,
    /// Clamped to what the builder itself may have.
    pub ulimits: Vec<Ulimit>,
    /// Exist while the command runs.
    pub files: Vec<MountedFile>,
}

/// A read-only file, owned by root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountedFile {
    /// Absolute; not below /proc or /sys.
    pub path: String,
    pub mode: u32,
    pub content: Vec<u8>,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Code(i32),
    Signal(i32),
}

/// [`RunSpec`] as init sees it: checked, without descriptors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Instructions {
    pub(super) argv: Vec<String>,
    pub(super) env: Vec<(String, String)>,
    pub(super) cwd: String,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) groups: Vec<u32>,
    pub(super) hostname: String,
    pub(super) private_network: bool,
    pub(super) resolv_conf: Vec<u8>,
    pub(super) hosts: Vec<u8>,
    pub(super) shm_size: u64,
    pub(super) limits: Vec<Limit>,
    pub(super) files: Vec<MountedFile>,
}

impl Instructions {
    /// Checks a request and takes over what init needs of it.
    pub(super) fn new(spec: &RunSpec) -> Result<Instructions, RunError> {
        let wrong = |message: String| Err(RunError::Spec(message));
        match spec.argv.first() {
            None => return wrong("there is no command".to_owned()),
            Some(program) if program.is_empty() => {
                return wrong("the command's name is empty".to_owned());
            }
            Some(_) => {}
        }
        if !spec.cwd.starts_with('/') {
            return wrong(format!(
                "the working directory is not absolute: `{}`",
                spec.cwd
            ));
        }
        for (name, _) in &spec.env {
            if name.is_empty() || name.contains('=') {
                return wrong(format!("not the name of a variable: `{name}`"));
            }
        }
        let texts = spec
            .argv
            .iter()
            .chain(spec.env.iter().flat_map(|(name, value)| [name, value]))
            .chain(spec.files.iter().map(|file| &file.path))
            .chain([&spec.cwd, &spec.hostname]);
        for text in texts {
            if text.contains('\0') {
                return wrong(format!("a NUL character in `{}`", text.escape_debug()));
            }
        }
        if [spec.uid, spec.gid]
            .iter()
            .chain(&spec.groups)
            .any(|id| *id == u32::MAX)
        {
            return wrong(format!("{} is no user or group", u32::MAX));
        }
        let mut files = Vec::with_capacity(spec.files.len());
        for file in &spec.files {
            files.push(MountedFile {
                path: clean(&file.path)?,
                ..file.clone()
            });
        }
        Ok(Instructions {
            argv: spec.argv.clone(),
            env: spec.env.clone(),
            cwd: spec.cwd.clone(),
            uid: spec.uid,
            gid: spec.gid,
            groups: spec.groups.clone(),
            hostname: spec.hostname.clone(),
            private_network: spec.network == NetworkMode::None,
            resolv_conf: spec.resolv_conf.clone(),
            hosts: spec.hosts.clone(),
            shm_size: spec.shm_size,
            limits: limits::resolve(&spec.ulimits)?,
            files,
        })
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.list(&self.argv, |writer, word| writer.bytes(word.as_bytes()));
        writer.list(&self.env, |writer, (name, value)| {
            writer.bytes(name.as_bytes());
            writer.bytes(value.as_bytes());
        });
        writer.bytes(self.cwd.as_bytes());
        writer.u32(self.uid);
        writer.u32(self.gid);
        writer.list(&self.groups, |writer, group| writer.u32(*group));
        writer.bytes(self.hostname.as_bytes());
        writer.0.push(u8::from(self.private_network));
        writer.bytes(&self.resolv_conf);
        writer.bytes(&self.hosts);
        writer.u64(self.shm_size);
        writer.list(&self.limits, |writer, limit| {
            writer.u32(limit.resource);
            writer.u64(limit.soft);
            writer.u64(limit.hard);
        });
        writer.list(&self.files, |writer, file| {
            writer.bytes(file.path.as_bytes());
            writer.u32(file.mode);
            writer.bytes(&file.content);
        });
        writer.0
    }

    /// Returns `None` for anything that [`Instructions::encode`] does not make.
    pub(super) fn decode(bytes: &[u8]) -> Option<Instructions> {
        let mut reader = Reader(bytes);
        let instructions = Instructions {
            argv: reader.list(Reader::string)?,
            env: reader.list(|reader| Some((reader.string()?, reader.string()?)))?,
            cwd: reader.string()?,
            uid: reader.u32()?,
            gid: reader.u32()?,
            groups: reader.list(Reader::u32)?,
            hostname: reader.string()?,
            private_network: reader.take(1)? == [1],
            resolv_conf: reader.bytes()?.to_vec(),
            hosts: reader.bytes()?.to_vec(),
            shm_size: reader.u64()?,
            limits: reader.list(|reader| {
                Some(Limit {
                    resource: reader.u32()?,
                    soft: reader.u64()?,
                    hard: reader.u64()?,
                })
            })?,
            files: reader.list(|reader| {
                Some(MountedFile {
                    path: reader.string()?,
                    mode: reader.u32()?,
                    content: reader.bytes()?.to_vec(),
                })
            })?,
        };
        reader.0.is_empty().then_some(instructions)
    }
}

/// Returns the path of a mounted file without needless slashes and dots.
fn clean(path: &str) -> Result<String, RunError> {
    let wrong = |why: &str| {
        Err(RunError::Spec(format!(
            "cannot mount a file at `{path}`: {why}"
        )))
    };
    if !path.starts_with('/') {
        return wrong("not an absolute path");
    }
    let parts: Vec<&str> = path
        .split('/')
        .filter(|part| !part.is_empty() && *part != ".")
        .collect();
    match parts.first() {
        None => return wrong("it is the root"),
        Some(&("proc" | "sys")) => return wrong("it belongs to the kernel"),
        Some(_) => {}
    }
    if parts.contains(&"..") {
        return wrong("`..` in the path");
    }
    if parts == ["dev"] {
        return wrong("it is a directory");
    }
    Ok(format!("/{}", parts.join("/")))
}

#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn u32(&mut self, number: u32) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn u64(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn length(&mut self, length: usize) {
        self.u32(
            u32::try_from(length).expect("instructions of 4 GiB were refused by memory first"),
        );
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.length(bytes.len());
        self.0.extend_from_slice(bytes);
    }

    fn list<T>(&mut self, items: &[T], mut write: impl FnMut(&mut Writer, &T)) {
        self.length(items.len());
        for item in items {
            write(self, item);
        }
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.u32()?;
        self.take(usize::try_from(length).ok()?)
    }

    fn string(&mut self) -> Option<String> {
        String::from_utf8(self.bytes()?.to_vec()).ok()
    }

    fn list<T>(&mut self, mut read: impl FnMut(&mut Reader<'a>) -> Option<T>) -> Option<Vec<T>> {
        let count = self.u32()?;
        (0..count).map(|_| read(self)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Instructions {
        Instructions {
            argv: vec!["sh".into(), "-c".into(), "echo ä".into()],
            env: vec![
                ("PATH".into(), "/bin".into()),
                ("EMPTY".into(), String::new()),
            ],
            cwd: "/src".into(),
            uid: 1000,
            gid: 100,
            groups: vec![4, 27],
            hostname: "box".into(),
            private_network: true,
            resolv_conf: b"nameserver 127.0.0.1\n".to_vec(),
            hosts: vec![0xff, 0],
            shm_size: 1 << 40,
            limits: vec![Limit {
                resource: 7,
                soft: 1,
                hard: u64::MAX,
            }],
            files: vec![MountedFile {
                path: "/dev/pipes/EOF".into(),
                mode: 0o755,
                content: b"#!/bin/sh\n".to_vec(),
            }],
        }
    }

    #[test]
    fn instructions_survive_the_wire() {
        for instructions in [example(), Instructions::default()] {
            assert_eq!(
                Instructions::decode(&instructions.encode()),
                Some(instructions)
            );
        }
    }

    #[test]
    fn torn_instructions_are_none() {
        let bytes = example().encode();
        for length in 0..bytes.len() {
            assert_eq!(Instructions::decode(&bytes[..length]), None, "{length}");
        }
        let mut longer = bytes;
        longer.push(0);
        assert_eq!(Instructions::decode(&longer), None);
    }

    #[test]
    fn paths_of_mounted_files_are_cleaned_or_refused() {
        for (path, expected) in [
            ("/dev/pipes/EOF", Some("/dev/pipes/EOF")),
            ("//run/./a//b", Some("/run/a/b")),
            ("/", None),
            ("", None),
            ("a", None),
            ("/a/../b", None),
            ("/proc/sys/kernel/core_pattern", None),
            ("/./sys/x", None),
            ("/dev/", None),
        ] {
            assert_eq!(clean(path).ok().as_deref(), expected, "{path}");
        }
    }
}
