//! Files of /proc that are written anew: with the root's paths for the host's, and the ids that the command believes in.
//!
//! Each is a file of memory, filled when it is opened and sealed.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{
    AtFlags, MemfdFlags, Mode, OFlags, SealFlags, fcntl_add_seals, memfd_create, openat, unlinkat,
};
use rustix::io::Errno;

use super::super::credentials::Credentials;
use super::super::guest::{Content as TreeContent, Guest, number};
use super::super::procfs::{self, Content};
use super::super::supervision::{Caller, Supervision};
use super::devices::make_directory;

impl Supervision {
    /// Returns a descriptor of what a file of /proc says.
    pub(super) fn write_entry(
        &mut self,
        caller: &Caller,
        path: &[u8],
        content: Content,
    ) -> Result<OwnedFd, Errno> {
        let who = match procfs::process_of(path) {
            Some(process) => self.table.of(process)?,
            None => self.credentials(caller)?,
        };
        let service = self.service();
        let guest = &service.guest;
        let text = match content {
            Content::Mounts => mounts(guest),
            Content::MountInfo => mount_info(guest),
            Content::Paths => in_lines(&read(guest, path)?, |line| {
                // The path is the last of what is set apart by blanks, and may have some itself.
                match line.iter().position(|byte| *byte == b'/') {
                    Some(at) => {
                        let path = procfs::in_the_root(guest, line[at..].to_vec());
                        [&line[..at], &path].concat()
                    }
                    None => line.to_vec(),
                }
            }),
            Content::Status => in_lines(&read(guest, path)?, |line| status(line, &who)),
            Content::Arguments => {
                let process = procfs::process_of(path).unwrap_or(caller.thread);
                let process = service.family.process_of(process).unwrap_or(process);
                let loaders = service.family.executable(process).loaders_arguments;
                arguments(&read(guest, path)?, loaders)
            }
        };
        seal(&text)
    }

    /// Returns a descriptor of a directory that shows the processes of the command, and what else /proc has.
    pub(super) fn list_processes(&mut self) -> Result<OwnedFd, Errno> {
        let service = self.service();
        let guest = &service.guest;
        let (tree, _) = guest.tree_of(b"/proc");
        let listing = guest.reopen(guest.tree(tree).fd.as_fd(), OFlags::RDONLY)?;
        let mut wanted: Vec<i32> = service.family.processes().collect();
        wanted.sort_unstable();
        let mut shown = Vec::new();
        for entry in rustix::fs::Dir::read_from(&listing)? {
            let entry = entry?;
            if let Some(process) = number(entry.file_name().to_bytes()) {
                match wanted.binary_search(&process) {
                    Ok(_) => shown.push(process),
                    Err(_) => unlinkat(&listing, entry.file_name(), AtFlags::REMOVEDIR)?,
                }
            }
        }
        for process in wanted {
            if !shown.contains(&process) {
                make_directory(&listing, &process.to_string(), 0o755)?;
            }
        }
        Ok(listing)
    }
}

/// Fills a directory with what /proc has besides processes.
pub(in crate::sandbox) fn fill_listing(guest: &Guest, listing: &OwnedFd) -> Result<(), Errno> {
    let proc = guest.reopen(guest.proc().as_fd(), OFlags::RDONLY | OFlags::DIRECTORY)?;
    for entry in rustix::fs::Dir::read_from(&proc)? {
        let entry = entry?;
        let name = entry.file_name();
        let bytes = name.to_bytes();
        if bytes.starts_with(b".") || number(bytes).is_some() || procfs::is_hidden(bytes) {
            continue;
        }
        match entry.file_type() {
            rustix::fs::FileType::Directory => {
                rustix::fs::mkdirat(listing, name, Mode::from_raw_mode(0o755))?;
            }
            rustix::fs::FileType::Symlink => {
                // Only its name is ever seen here.
                rustix::fs::symlinkat(c"self", listing, name)?;
            }
            _ => {
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                openat(listing, name, flags, Mode::from_raw_mode(0o644))?;
            }
        }
    }
    Ok(())
}

fn read(guest: &Guest, path: &[u8]) -> Result<Vec<u8>, Errno> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let mut file = File::from(openat(&**guest.proc(), path, flags, Mode::empty())?);
    let mut text = Vec::new();
    file.read_to_end(&mut text)
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    Ok(text)
}

fn seal(text: &[u8]) -> Result<OwnedFd, Errno> {
    let io = |error: std::io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
    let fd = memfd_create(c"proc", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut file = File::from(fd);
    file.write_all(text).map_err(io)?;
    file.rewind().map_err(io)?;
    let fd = OwnedFd::from(file);
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    fcntl_add_seals(&fd, seals)?;
    Ok(fd)
}

fn in_lines(text: &[u8], change: impl Fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
    let mut changed = Vec::with_capacity(text.len());
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        let (line, end) = match line.strip_suffix(b"\n") {
            Some(line) => (line, &b"\n"[..]),
            None => (line, &b""[..]),
        };
        changed.extend(change(line));
        changed.extend_from_slice(end);
    }
    changed
}

/// Returns a line of `status` with the ids of the process.
fn status(line: &[u8], who: &Credentials) -> Vec<u8> {
    let four = |name: &str, ids: super::super::credentials::Ids| {
        format!(
            "{name}:\t{}\t{}\t{}\t{}",
            ids.real, ids.effective, ids.saved, ids.file
        )
    };
    let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
    let capabilities = &who.capabilities;
    match name {
        b"Uid" => four("Uid", who.user),
        b"Gid" => four("Gid", who.group),
        b"Groups" => {
            let groups: Vec<String> = who.groups.iter().map(|group| format!("{group} ")).collect();
            format!("Groups:\t{}", groups.concat())
        }
        b"Umask" => format!("Umask:\t{:04o}", who.umask),
        b"TracerPid" => "TracerPid:\t0".to_owned(),
        b"NoNewPrivs" => format!("NoNewPrivs:\t{}", u8::from(who.no_new_privileges)),
        b"CapInh" => format!("CapInh:\t{:016x}", capabilities.inheritable),
        b"CapPrm" => format!("CapPrm:\t{:016x}", capabilities.permitted),
        b"CapEff" => format!("CapEff:\t{:016x}", capabilities.effective),
        b"CapBnd" => format!("CapBnd:\t{:016x}", capabilities.bounding),
        b"CapAmb" => format!("CapAmb:\t{:016x}", capabilities.ambient),
        _ => return line.to_vec(),
    }
    .into_bytes()
}

/// Returns a command line without what its loader was told: itself, the option, and the program after the program's name.
fn arguments(text: &[u8], loaders: usize) -> Vec<u8> {
    if loaders == 0 {
        return text.to_vec();
    }
    let words: Vec<&[u8]> = text.split_inclusive(|byte| *byte == 0).collect();
    let kept = words
        .iter()
        .enumerate()
        .filter(|(at, _)| ![0, 1, 3].contains(at));
    kept.flat_map(|(_, word)| word.iter().copied()).collect()
}

/// Returns a path as the tables of mounts have it.
fn escaped(path: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(path.len());
    for byte in path {
        match byte {
            b' ' | b'\t' | b'\n' | b'\\' => text.extend(format!("\\{byte:03o}").into_bytes()),
            byte => text.push(*byte),
        }
    }
    text
}

fn mounts(guest: &Guest) -> Vec<u8> {
    let mut table = Vec::new();
    for (kind, path, options) in mounted(guest) {
        table.extend_from_slice(kind.as_bytes());
        table.push(b' ');
        table.extend(escaped(&path));
        table.extend(format!(" {kind} {options},relatime 0 0\n").into_bytes());
    }
    table
}

fn mount_info(guest: &Guest) -> Vec<u8> {
    let mut table = Vec::new();
    for (at, (kind, path, options)) in mounted(guest).into_iter().enumerate() {
        let (id, parent) = (at + 2, if at == 0 { 1 } else { 2 });
        table.extend(format!("{id} {parent} 0:{id} / ").into_bytes());
        table.extend(escaped(&path));
        table.extend(format!(" {options},relatime - {kind} {kind} {options}\n").into_bytes());
    }
    table
}

/// Returns what is mounted: kind, path, options.
fn mounted(guest: &Guest) -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let mut all: Vec<_> = guest
        .trees()
        .iter()
        .map(|tree| {
            let kind = match (tree.content, tree.guest.as_slice()) {
                (TreeContent::Proc, _) => "proc",
                (_, b"/sys") => "sysfs",
                (_, b"/dev") => "tmpfs",
                (_, b"") => "overlay",
                _ => "bind",
            };
            let path = match tree.guest.as_slice() {
                b"" => b"/".to_vec(),
                path => path.to_vec(),
            };
            (kind, path, if tree.read_only { "ro" } else { "rw" })
        })
        .collect();
    all.sort_by_key(|(_, path, _)| path.len());
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loaders_words_are_left_out_of_a_command_line() {
        let text = b"/R/ld.so\0--argv0\0ls\0/usr/bin/ls\0-l\0/\0";
        assert_eq!(arguments(text, 3), b"ls\0-l\0/\0");
        assert_eq!(arguments(b"ls\0-l\0", 0), b"ls\0-l\0");
    }

    #[test]
    fn paths_in_tables_of_mounts_have_no_blanks() {
        assert_eq!(escaped(b"/a b\\c"), b"/a\\040b\\134c");
    }

    #[test]
    fn status_tells_the_ids_that_the_command_believes_in() {
        let who = Credentials::new(7, 8, &[9, 10], 3);
        for (line, expected) in [
            ("Uid:\t1000\t1000\t1000\t1000", "Uid:\t7\t7\t7\t7"),
            ("Groups:\t1000 ", "Groups:\t9 10 "),
            ("TracerPid:\t44", "TracerPid:\t0"),
            ("Name:\tsh", "Name:\tsh"),
        ] {
            assert_eq!(status(line.as_bytes(), &who), expected.as_bytes());
        }
    }
}
