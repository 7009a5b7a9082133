//! A whole tree leaves the build: as one archive, or as files in a directory of the host.
//!
//! Both take the merged root. A root that was mounted with the stub layer shows its mount points too; an export mounts the
//! image's own layers alone.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid, XattrFlags};
use rustix::io::Errno;

use crate::layer::{EntryKind, LayerWriter};
use crate::vocab::Cancel;

use super::diff::{EntrySink, entry, open_file};
use super::error::{During, RootfsError, rooted};
use super::remove::remove_at;
use super::resolve::{READ_DIRECTORY, open_directory_beneath};
use super::stat::{FileKind, Stat};
use super::times::Times;
use super::tree::{Tree, stat_at, times};
use super::walk::{Visit, Walk};
use super::xattr::Naming;

/// What an export came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExportStats {
    pub entries: u64,
    /// Of file content.
    pub bytes: u64,
    /// Devices that this process may not make.
    pub skipped_devices: u64,
    pub sockets: u64,
}

/// Writes every file of a root, in sorted order, below the directory `prefix` of the archive. The root itself has no entry, unless
/// it is that directory. The archive is not finished.
pub fn write_tree<W: Write>(
    root: &Tree,
    prefix: &str,
    times: Times,
    out: &mut LayerWriter<W>,
    cancel: &Cancel,
) -> Result<ExportStats, RootfsError> {
    let naming = root.naming().during("examine", "/")?;
    let mut sink = EntrySink {
        out,
        cancel,
        naming,
        prefix: prefix.as_bytes().to_vec(),
        times,
        linked: HashMap::new(),
        entries: 0,
        bytes: 0,
    };
    let mut walk = Walk::with_owners(root.as_fd(), root.owners()).during("list", "/")?;
    if !prefix.is_empty() {
        let stat = walk.stat().during("stat", "/")?;
        sink.put(entry(b"", &stat, EntryKind::Directory, Default::default()))?;
    }
    let mut sockets = 0;
    while let Some(visit) = walk.next().during("read", rooted(walk.path()))? {
        let Visit::Entry(stat) = visit else {
            continue;
        };
        sink.check_cancelled()?;
        match stat.kind {
            FileKind::Socket => sockets += 1,
            FileKind::Directory => {
                walk.enter().during("open", rooted(walk.path()))?;
                let path = walk.path();
                let xattrs = walk
                    .read_content(walk.directory(), naming)
                    .during("read the attributes of", rooted(path))?;
                sink.put(entry(path, &stat, EntryKind::Directory, xattrs))?;
            }
            _ => sink.put_file(&walk, &stat)?,
        }
    }
    Ok(ExportStats {
        entries: sink.entries,
        bytes: sink.bytes,
        skipped_devices: 0,
        sockets,
    })
}

/// Copies every file of a root into the directory `destination`, which is made where it is missing. Existing directories are
/// merged with, other names are replaced, and no link below `destination` is followed.
///
/// Owners are kept where the process is the machine's root. In a user namespace everything belongs to the user who builds:
/// files of other ids could not be deleted without the namespace.
pub fn export_tree(
    root: &Tree,
    destination: &Path,
    shown: Times,
    cancel: &Cancel,
) -> Result<ExportStats, RootfsError> {
    let name = destination.as_os_str().as_bytes();
    std::fs::create_dir_all(destination).during("make directory", name)?;
    let top = rustix::fs::open(
        destination,
        OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .during("open", name)?;
    let mut export = Export {
        directory: top.try_clone().during("open", name)?,
        top,
        naming: root.naming().during("examine", "/")?,
        keep_owners: is_machine_root(),
        times: shown,
        cancel,
        linked: HashMap::new(),
        entered: Vec::new(),
        stats: ExportStats::default(),
    };
    let mut walk = Walk::with_owners(root.as_fd(), root.owners()).during("list", "/")?;
    while let Some(visit) = walk.next().during("read", rooted(walk.path()))? {
        if cancel.is_cancelled() {
            return Err(RootfsError::Cancelled);
        }
        match visit {
            Visit::Entry(stat) => export.visit(&mut walk, stat)?,
            Visit::Leave => export.leave(&walk)?,
        }
    }
    Ok(export.stats)
}

struct Export<'a> {
    top: OwnedFd,
    /// Where the walk is, in the destination.
    directory: OwnedFd,
    naming: Naming,
    keep_owners: bool,
    times: Times,
    cancel: &'a Cancel,
    linked: HashMap<(u64, u64), Vec<u8>>,
    /// The directories above; they get their mode and time when they are full.
    entered: Vec<Stat>,
    stats: ExportStats,
}

impl Export<'_> {
    fn visit(&mut self, walk: &mut Walk, mut stat: Stat) -> Result<(), RootfsError> {
        stat.mtime = self.times.of(stat.mtime);
        let path = walk.path().to_vec();
        self.stats.entries += 1;
        let (major, minor) = stat.rdev;
        match stat.kind {
            FileKind::Directory => return self.enter(walk, stat),
            FileKind::Socket => {
                self.stats.sockets += 1;
                self.stats.entries -= 1;
                return Ok(());
            }
            _ => {}
        }
        self.clear(walk.name()).during("replace", rooted(&path))?;
        if stat.links > 1 {
            let identity = (stat.device, stat.inode);
            if let Some(first) = self.linked.get(&identity) {
                return self.link(first, walk.name()).during("link", rooted(&path));
            }
            self.linked.insert(identity, walk.path().to_vec());
        }
        match stat.kind {
            FileKind::File => return self.copy(walk, &stat),
            FileKind::Symlink => {
                let target = rustix::fs::readlinkat(walk.directory(), walk.name(), Vec::new())
                    .during("read the link", rooted(&path))?;
                rustix::fs::symlinkat(target, &self.directory, walk.name())
                    .during("make", rooted(&path))?;
            }
            FileKind::Fifo => self
                .node(walk.name(), FileType::Fifo, 0)
                .during("make", rooted(&path))?,
            kind => {
                let kind = match kind {
                    FileKind::BlockDevice => FileType::BlockDevice,
                    _ => FileType::CharacterDevice,
                };
                match self.node(walk.name(), kind, rustix::fs::makedev(major, minor)) {
                    Err(Errno::PERM) => {
                        self.linked.remove(&(stat.device, stat.inode));
                        self.stats.skipped_devices += 1;
                        return Ok(());
                    }
                    other => other.during("make", rooted(&path))?,
                }
            }
        }
        self.describe_node(walk.name(), &stat)
            .during("set the metadata of", rooted(&path))
    }

    fn enter(&mut self, walk: &mut Walk, stat: Stat) -> Result<(), RootfsError> {
        let path = walk.path().to_vec();
        let name = walk.name();
        let is_directory = stat_at(&self.directory, name)
            .during("stat", rooted(&path))?
            .map(|found| found.is_directory());
        if is_directory != Some(true) {
            self.clear(name).during("replace", rooted(&path))?;
            rustix::fs::mkdirat(&self.directory, name, Mode::RWXU)
                .during("make directory", rooted(&path))?;
        }
        self.directory = rustix::fs::openat(&self.directory, name, READ_DIRECTORY, Mode::empty())
            .during("open", rooted(&path))?;
        walk.enter().during("open", rooted(&path))?;
        let xattrs = walk
            .read_content(walk.directory(), self.naming)
            .during("read the attributes of", rooted(&path))?;
        set_xattrs(&self.directory, &xattrs);
        self.entered.push(stat);
        Ok(())
    }

    fn leave(&mut self, walk: &Walk) -> Result<(), RootfsError> {
        let path = walk.path();
        let stat = self.entered.pop().expect("each directory left was entered");
        let describe = || -> io::Result<()> {
            self.set_owner(&self.directory, &stat)?;
            rustix::fs::fchmod(&self.directory, Mode::from_raw_mode(stat.mode))?;
            Ok(rustix::fs::futimens(&self.directory, &times(stat.mtime))?)
        };
        describe().during("set the metadata of", rooted(path))?;
        let (parent, _) = super::resolve::split_last(path);
        self.directory = open_directory_beneath(self.top.as_fd(), parent, OFlags::empty())
            .during("open", rooted(parent))?;
        Ok(())
    }

    fn copy(&mut self, walk: &Walk, stat: &Stat) -> Result<(), RootfsError> {
        let path = walk.path().to_vec();
        let source = open_file(walk).during("open", rooted(&path))?;
        let xattrs = walk
            .read_content(source.as_fd(), self.naming)
            .during("read the attributes of", rooted(&path))?;
        let flags =
            OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::WRONLY | OFlags::CLOEXEC;
        let target =
            rustix::fs::openat(&self.directory, walk.name(), flags, Mode::RUSR | Mode::WUSR)
                .during("make", rooted(&path))?;
        let source = File::from(source);
        let mut target = File::from(target);
        // In pieces, so that a long copy ends when the build does.
        const PIECE: u64 = 64 << 20;
        loop {
            let copied =
                io::copy(&mut (&source).take(PIECE), &mut target).during("copy", rooted(&path))?;
            self.stats.bytes += copied;
            if self.cancel.is_cancelled() {
                return Err(RootfsError::Cancelled);
            }
            if copied < PIECE {
                break;
            }
        }
        let describe = || -> io::Result<()> {
            self.set_owner(&target, stat)?;
            rustix::fs::fchmod(&target, Mode::from_raw_mode(stat.mode))?;
            set_xattrs(&target, &xattrs);
            Ok(rustix::fs::futimens(&target, &times(stat.mtime))?)
        };
        describe().during("set the metadata of", rooted(&path))
    }

    fn link(&self, first: &[u8], name: &[u8]) -> io::Result<()> {
        let (parent, first) = super::resolve::split_last(first);
        let parent = open_directory_beneath(self.top.as_fd(), parent, OFlags::empty())?;
        Ok(rustix::fs::linkat(
            &parent,
            first,
            &self.directory,
            name,
            AtFlags::empty(),
        )?)
    }

    fn node(&self, name: &[u8], kind: FileType, number: u64) -> rustix::io::Result<()> {
        rustix::fs::mknodat(&self.directory, name, kind, Mode::RUSR, number)
    }

    fn clear(&self, name: &[u8]) -> io::Result<()> {
        remove_at(self.directory.as_fd(), name)
    }

    fn set_owner(&self, file: impl AsFd, stat: &Stat) -> rustix::io::Result<()> {
        if !self.keep_owners {
            return Ok(());
        }
        rustix::fs::fchown(
            file,
            Some(Uid::from_raw(stat.uid)),
            Some(Gid::from_raw(stat.gid)),
        )
    }

    fn describe_node(&self, name: &[u8], stat: &Stat) -> io::Result<()> {
        let directory = &self.directory;
        if self.keep_owners {
            let (uid, gid) = (Uid::from_raw(stat.uid), Gid::from_raw(stat.gid));
            rustix::fs::chownat(
                directory,
                name,
                Some(uid),
                Some(gid),
                AtFlags::SYMLINK_NOFOLLOW,
            )?;
        }
        if stat.kind != FileKind::Symlink {
            let mode = Mode::from_raw_mode(stat.mode);
            rustix::fs::chmodat(directory, name, mode, AtFlags::empty())?;
        }
        Ok(rustix::fs::utimensat(
            directory,
            name,
            &times(stat.mtime),
            AtFlags::SYMLINK_NOFOLLOW,
        )?)
    }
}

/// Sets what the destination's file system and this process' rights allow; a host directory is no image.
fn set_xattrs(file: impl AsFd, xattrs: &std::collections::BTreeMap<Vec<u8>, Vec<u8>>) {
    for (name, value) in xattrs {
        rustix::fs::fsetxattr(&file, name, value, XattrFlags::empty()).ok();
    }
}

/// Tells whether this process is root, and its ids are the machine's own.
fn is_machine_root() -> bool {
    let all_ids = |map: String| {
        let fields: Vec<&str> = map.split_ascii_whitespace().collect();
        fields == ["0", "0", "4294967295"]
    };
    rustix::process::geteuid().is_root()
        && std::fs::read_to_string("/proc/self/uid_map").is_ok_and(all_ids)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_tree_is_copied_over_what_is_there_and_links_there_are_not_followed() {
        let host = tempfile::tempdir().unwrap();
        let at = |path: &str| host.path().join(path);
        fs::create_dir_all(at("root/dir/sub")).unwrap();
        fs::create_dir_all(at("root/replaced")).unwrap();
        fs::write(at("root/dir/file"), "content").unwrap();
        fs::hard_link(at("root/dir/file"), at("root/dir/sub/twin")).unwrap();
        symlink("/etc/passwd", at("root/link")).unwrap();
        fs::write(at("root/target"), "new").unwrap();
        fs::set_permissions(at("root/dir/sub"), fs::Permissions::from_mode(0o555)).unwrap();
        let old = File::options().write(true).open(at("root/target")).unwrap();
        old.set_modified(std::time::UNIX_EPOCH + std::time::Duration::new(1000, 5))
            .unwrap();

        fs::create_dir_all(at("out/dir")).unwrap();
        fs::write(at("out/dir/kept"), "kept").unwrap();
        fs::write(at("secret"), "host").unwrap();
        symlink(at("secret"), at("out/target")).unwrap();
        symlink(at("secret"), at("out/replaced")).unwrap();
        fs::create_dir_all(at("out/link/full")).unwrap();

        let root = Tree::open(&at("root")).unwrap();
        let stats = export_tree(&root, &at("out"), Times::Kept, &Cancel::new()).unwrap();
        assert_eq!((stats.entries, stats.bytes), (7, 10));
        assert_eq!(fs::read(at("secret")).unwrap(), b"host");
        assert_eq!(fs::read(at("out/target")).unwrap(), b"new");
        assert_eq!(fs::metadata(at("out/target")).unwrap().mtime_nsec(), 5);
        assert_eq!(fs::read(at("out/dir/kept")).unwrap(), b"kept");
        assert!(fs::symlink_metadata(at("out/replaced")).unwrap().is_dir());
        assert_eq!(
            fs::read_link(at("out/link")).unwrap(),
            Path::new("/etc/passwd")
        );
        assert_eq!(
            fs::metadata(at("out/dir/sub/twin")).unwrap().ino(),
            fs::metadata(at("out/dir/file")).unwrap().ino()
        );
        assert_eq!(
            fs::metadata(at("out/dir/sub")).unwrap().mode() & 0o7777,
            0o555
        );
        // A user's temporary folder cannot be emptied of directories without the right to write.
        for path in ["root", "out"] {
            super::super::remove_tree(&at(path)).unwrap();
        }
    }

    #[test]
    fn a_cancelled_export_says_so() {
        let host = tempfile::tempdir().unwrap();
        fs::create_dir(host.path().join("root")).unwrap();
        fs::write(host.path().join("root/f"), "").unwrap();
        let cancel = Cancel::new();
        cancel.cancel(crate::vocab::CancelReason::Interrupted);
        let root = Tree::open(&host.path().join("root")).unwrap();
        let result = export_tree(&root, &host.path().join("out"), Times::Kept, &cancel);
        assert!(matches!(result, Err(RootfsError::Cancelled)));
    }
}
