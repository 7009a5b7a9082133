//! /proc as a command may see it: its own processes, and of the machine what every container shows.
//!
//! The host's /proc is where the answers are from, but it has the host's processes in it, and links that lead out of the root:
//! so every name is looked up here. `self` is the asker. The numbers of other processes are not there. What a link of a process
//! says is said as it is in the root; where it leads is opened by the supervisor. Files with paths of the host in them (`maps`,
//! `mountinfo`) and with its ids (`status`) are written anew.
//!
//! In: a directory below /proc and a name. Out: an [`Entry`]. What an entry is made of is read when it is opened.

use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, openat, readlinkat, statat};
use rustix::io::Errno;

use super::guest::{Asker, Guest, number, strip_prefix};

/// Files of the kernel that tell about the host, as Docker hides them.
const HIDDEN: [&[u8]; 10] = [
    b"acpi",
    b"asound",
    b"interrupts",
    b"kcore",
    b"keys",
    b"latency_stats",
    b"timer_list",
    b"timer_stats",
    b"sched_debug",
    b"scsi",
];

/// Something in /proc. Paths are below it, without a slash at their start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::sandbox) enum Entry {
    Directory {
        path: Vec<u8>,
    },
    File {
        path: Vec<u8>,
    },
    /// A file whose content is written here.
    Written {
        path: Vec<u8>,
        content: Content,
    },
    /// A link that is its text.
    Link {
        path: Vec<u8>,
        text: Vec<u8>,
    },
    /// A link that leads to a thing, whatever its text says.
    Object {
        path: Vec<u8>,
        text: Vec<u8>,
    },
}

/// What is written here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sandbox) enum Content {
    /// Lines with paths of the host at their ends.
    Paths,
    Mounts,
    MountInfo,
    Status,
    Arguments,
}

impl Entry {
    pub(in crate::sandbox) fn path(&self) -> &[u8] {
        match self {
            Entry::Directory { path }
            | Entry::File { path }
            | Entry::Written { path, .. }
            | Entry::Link { path, .. }
            | Entry::Object { path, .. } => path,
        }
    }
}

/// Returns what follows `/proc` in a canonical path that lies there.
pub(in crate::sandbox) fn below(guest: &[u8]) -> &[u8] {
    strip_prefix(guest, b"/proc").unwrap_or_default()
}

/// Returns the process that a path below /proc is of; `None` if it is of none.
pub(in crate::sandbox) fn process_of(path: &[u8]) -> Option<i32> {
    number(path.split(|byte| *byte == b'/').next()?)
}

/// Refuses what is of a stranger.
pub(in crate::sandbox) fn check(asker: &Asker<'_>, path: &[u8]) -> Result<(), Errno> {
    match process_of(path) {
        Some(pid) if !asker.family.has(pid) => Err(Errno::NOENT),
        _ => Ok(()),
    }
}

/// Finds a name in a directory.
pub(in crate::sandbox) fn step(
    guest: &Guest,
    asker: &Asker<'_>,
    directory: &[u8],
    name: &[u8],
) -> Result<Entry, Errno> {
    let path = match directory {
        b"" => name.to_vec(),
        _ => [directory, b"/", name].concat(),
    };
    let link = |text: Vec<u8>| {
        Ok(Entry::Link {
            path: path.clone(),
            text,
        })
    };
    if directory.is_empty() {
        match name {
            b"self" => return link(asker.process.to_string().into_bytes()),
            b"thread-self" => {
                let text = format!("{}/task/{}", asker.process, asker.thread);
                return link(text.into_bytes());
            }
            b"mounts" => return link(b"self/mounts".to_vec()),
            b"net" => return link(b"self/net".to_vec()),
            name if HIDDEN.contains(&name) => return Err(Errno::NOENT),
            _ => {}
        }
    }
    check(asker, &path)?;
    let Some(pid) = process_of(&path) else {
        return plain(guest, path);
    };
    match within(&path)[..] {
        [b"exe"] => {
            let process = asker.family.process_of(pid).unwrap_or(pid);
            return link(asker.family.executable(process).path.to_vec());
        }
        [b"root"] => return link(b"/".to_vec()),
        [b"cwd"] => return link(shown(guest, &path)?),
        [b"fd" | b"ns", _] => {
            return Ok(Entry::Object {
                text: shown(guest, &path)?,
                path,
            });
        }
        [b"map_files", _] => return Err(Errno::PERM),
        _ => {}
    }
    let content = match within(&path)[..] {
        [b"maps" | b"smaps" | b"numa_maps"] => Content::Paths,
        [b"mounts" | b"mountstats"] => Content::Mounts,
        [b"mountinfo"] => Content::MountInfo,
        [b"status"] => Content::Status,
        [b"cmdline"] => Content::Arguments,
        _ => return plain(guest, path),
    };
    statat(&**guest.proc(), path.as_slice(), AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(Entry::Written { path, content })
}

/// Returns the names below a process's directory, or below that of one of its threads.
fn within(path: &[u8]) -> Vec<&[u8]> {
    let names: Vec<&[u8]> = path.split(|byte| *byte == b'/').skip(1).collect();
    match names[..] {
        [b"task", thread, ref rest @ ..] if number(thread).is_some() => rest.to_vec(),
        _ => names,
    }
}

fn plain(guest: &Guest, path: Vec<u8>) -> Result<Entry, Errno> {
    let stat = statat(&**guest.proc(), path.as_slice(), AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Entry::Directory { path },
        FileType::Symlink => Entry::Link {
            text: shown(guest, &path)?,
            path,
        },
        _ => Entry::File { path },
    })
}

/// Returns what a link says, in the root's words.
fn shown(guest: &Guest, path: &[u8]) -> Result<Vec<u8>, Errno> {
    let text = readlinkat(&**guest.proc(), path, Vec::new())?.into_bytes();
    Ok(in_the_root(guest, text))
}

/// Says a path of the host as it is in the root.
pub(in crate::sandbox) fn in_the_root(guest: &Guest, text: Vec<u8>) -> Vec<u8> {
    const DELETED: &[u8] = b" (deleted)";
    if !text.starts_with(b"/") {
        return text;
    }
    let (path, suffix) = match text.strip_suffix(DELETED) {
        Some(path) => (path, DELETED),
        None => (&text[..], &b""[..]),
    };
    match guest.guest_of(path) {
        Some((_, path)) if path.is_empty() => [b"/", suffix].concat(),
        Some((_, path)) => [&path[..], suffix].concat(),
        None => text,
    }
}

/// Opens (`O_PATH`) a directory as one that processes may have: /proc itself is a listing of what may be seen.
pub(in crate::sandbox) fn open_directory(guest: &Guest, entry: &Entry) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match entry.path() {
        b"" => {
            let (listing, _) = guest.tree_of(b"/proc");
            let fd = &guest.tree(listing).fd;
            fd.try_clone()
                .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::MFILE))
        }
        path => openat(&**guest.proc(), path, flags, Mode::empty()),
    }
}

/// Tells whether a name in /proc itself is not shown.
pub(in crate::sandbox) fn is_hidden(name: &[u8]) -> bool {
    HIDDEN.contains(&name)
}
