//! What a command sees of the machine, where nothing can be mounted: a tree for each mount.
//!
//! ```text
//! scratch/dev      /dev: files that stand for devices, links, pts, shm
//! scratch/proc     /proc as it is listed
//! scratch/files/N  /etc/resolv.conf, /etc/hosts
//! scratch/tmpfs/N  file systems of memory, which are on disk here
//! scratch/empty    over what is hidden
//! ```
//!
//! Files with secrets are in memory alone. What is made here is known to the ledger for as long as the command runs.

use std::ffi::CString;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{
    FileType, MemfdFlags, Mode, OFlags, SealFlags, fcntl_add_seals, memfd_create, mkdirat, open,
    openat, symlinkat,
};
use rustix::io::Errno;

use crate::vocab::{Attributes, DeviceNumber, FileId, Ledger};

use super::super::instructions::{Bare, Instructions, PlannedSource, may_be_covered};
use super::super::report::{At, Failure, Stage};
use super::super::stub::{Stub, Stubs};
use super::super::supervise::credentials::Credentials;
use super::super::supervise::{
    Asker, Family, Found, Guest, HARMLESS, Last, Node, Truth, file_id, fill_listing, look,
};
use super::super::walk::Kind;

const LINKS: [(&str, &str); 5] = [
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("pts/ptmx", "ptmx"),
];
const HIDDEN_IN_SYS: [&str; 2] = ["/sys/firmware", "/sys/devices/virtual/powercap"];
/// `shm` and new file systems of memory: everybody may write.
const OPEN_TO_ALL: u32 = 0o1777;

/// A root with everything in it.
pub(super) struct World {
    pub(super) guest: Guest,
    /// What is true of files that were made for the command.
    pub(super) ledger: Ledger,
    /// Where its terminals are shown.
    pub(super) terminals: OwnedFd,
    /// What holds programs besides the root.
    pub(super) programs: OwnedFd,
    pub(super) scratch: OwnedFd,
    pub(super) cwd: OwnedFd,
    /// Of those that the command does not need to know: the ledger's at its end.
    pub(super) made: Vec<FileId>,
}

impl World {
    /// Has `/dev/tty` lead to a terminal: who opens files for the command has none of its own.
    pub(super) fn show_own_terminal(&mut self, terminal: &OwnedFd) -> Result<(), Errno> {
        let path = format!("/proc/self/fd/{}", terminal.as_raw_fd());
        let fd = open(path.as_str(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        self.guest.mount(b"/dev/tty".to_vec(), fd, false).map(drop)
    }
}

struct Builder<'a> {
    world: World,
    stubs: &'a mut Stubs,
}

/// Makes the world of a command. `trees` are the mounts that came as descriptors.
pub(super) fn make(
    root: OwnedFd,
    trees: Vec<OwnedFd>,
    scratch: OwnedFd,
    instructions: &Instructions,
    ledger: Ledger,
    stubs: &mut Stubs,
) -> Result<World, Failure> {
    let stage = Stage::Private;
    let directory = |at: BorrowedFd<'_>, name: &str, mode: u32| {
        mkdirat(at, name, Mode::from_raw_mode(mode))?;
        open_directory(at, name)
    };
    let at = scratch.as_fd();
    let dev = directory(at, "dev", 0o755).at(stage, "dev")?;
    let terminals = directory(dev.as_fd(), "pts", 0o755).at(stage, "pts")?;
    let listing = directory(at, "proc", 0o755).at(stage, "proc")?;
    let programs = directory(at, "programs", 0o755).at(stage, "programs")?;
    for name in ["files", "tmpfs", "empty"] {
        mkdirat(at, name, Mode::from_raw_mode(0o755)).at(stage, name)?;
    }
    let proc = open_directory(rustix::fs::CWD, "/proc").at(Stage::Proc, "")?;
    let guest = Guest::new(root, proc).at(Stage::Root, "")?;
    let mut builder = Builder {
        world: World {
            cwd: open_directory(at, ".").at(stage, "")?,
            guest,
            ledger,
            terminals,
            programs,
            scratch,
            made: Vec::new(),
        },
        stubs,
    };
    builder.build(dev, listing, trees, instructions)?;
    if instructions.bare == Some(Bare::Inside) {
        builder.world.guest.becomes_root_directory();
    }
    Ok(builder.world)
}

impl Builder<'_> {
    fn build(
        &mut self,
        dev: OwnedFd,
        listing: OwnedFd,
        trees: Vec<OwnedFd>,
        instructions: &Instructions,
    ) -> Result<(), Failure> {
        // They stay where they were missing.
        for path in ["/proc", "/sys", "/dev"] {
            self.place(path, Kind::Directory)
                .at(Stage::MountPoints, path)?;
        }
        self.stubs.keep();
        for path in ["/etc/resolv.conf", "/etc/hosts"] {
            self.place(path, Kind::File).at(Stage::MountPoints, path)?;
        }
        self.fill_dev(&dev).at(Stage::Dev, "")?;
        fill_listing(&self.world.guest, &listing).at(Stage::Proc, "")?;
        let mount = |guest: &mut Guest, at: &str, fd, read_only| {
            guest.mount(at.as_bytes().to_vec(), fd, read_only)
        };
        mount(&mut self.world.guest, "/dev", dev, false).at(Stage::Dev, "")?;
        self.world.guest.mount_proc(listing).at(Stage::Proc, "")?;
        let sys = open_directory(rustix::fs::CWD, "/sys").at(Stage::Sys, "")?;
        mount(&mut self.world.guest, "/sys", sys, true).at(Stage::Sys, "")?;
        for hidden in HIDDEN_IN_SYS {
            let empty = open_directory(self.world.scratch.as_fd(), "empty").at(Stage::Hide, "")?;
            mount(&mut self.world.guest, hidden, empty, true).at(Stage::Hide, hidden)?;
        }
        for (number, (path, content)) in [
            ("/etc/resolv.conf", &instructions.resolv_conf),
            ("/etc/hosts", &instructions.hosts),
        ]
        .into_iter()
        .enumerate()
        {
            let at = self.place(path, Kind::File).at(Stage::Files, path)?.path;
            let file = self.private_file(number, content).at(Stage::Files, path)?;
            self.world
                .guest
                .mount(at, file, false)
                .at(Stage::Files, path)?;
        }
        self.devices(instructions)?;
        self.mounts(trees, instructions)?;
        self.world.cwd = self
            .working_directory(&instructions.cwd)
            .at(Stage::WorkingDirectory, &instructions.cwd)?;
        Ok(())
    }

    fn fill_dev(&mut self, dev: &OwnedFd) -> Result<(), Errno> {
        for (name, major, minor) in HARMLESS {
            let name = match name {
                "ptmx" => "pts/ptmx",
                name => name,
            };
            let file = make_file(dev.as_fd(), name)?;
            self.is(
                &file,
                Attributes {
                    mode: 0o666,
                    device: Some(DeviceNumber {
                        is_block: false,
                        major,
                        minor,
                    }),
                    ..Attributes::default()
                },
            )?;
        }
        for (target, name) in LINKS {
            symlinkat(target, dev, name)?;
        }
        for name in ["shm", "mqueue"] {
            mkdirat(dev, name, Mode::from_raw_mode(OPEN_TO_ALL))?;
        }
        Ok(())
    }

    /// Writes down what a file is that was made for the command.
    fn is(&mut self, file: &OwnedFd, attributes: Attributes) -> Result<(), Errno> {
        let stat = look(file.as_fd())?;
        if !attributes.is_plain(u32::from(stat.stx_mode) & 0o7777) {
            self.world.ledger.insert(file_id(&stat), attributes);
            self.world.made.push(file_id(&stat));
        }
        Ok(())
    }

    fn private_file(&mut self, number: usize, content: &[u8]) -> Result<OwnedFd, Errno> {
        let path = format!("files/{number}");
        let file = make_file(self.world.scratch.as_fd(), &path)?;
        let mut file = File::from(file);
        file.write_all(content)
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        openat(
            &self.world.scratch,
            path.as_str(),
            OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
        )
    }

    fn devices(&mut self, instructions: &Instructions) -> Result<(), Failure> {
        for device in &instructions.devices {
            let source = device.source.to_string_lossy();
            let stage = Stage::Device;
            let flags = OFlags::PATH | OFlags::CLOEXEC;
            let fd = open(&device.source, flags, Mode::empty()).at(stage, &source)?;
            let stat = rustix::fs::fstat(&fd).at(stage, &source)?;
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::CharacterDevice | FileType::BlockDevice => {}
                _ => return Err(Errno::NODEV).at(stage, &source),
            }
            let at = self
                .place(&device.path, Kind::File)
                .at(Stage::Mounts, &device.path)?
                .path;
            self.world
                .guest
                .mount(at, fd, false)
                .at(Stage::Mounts, &device.path)?;
        }
        Ok(())
    }

    fn mounts(&mut self, trees: Vec<OwnedFd>, instructions: &Instructions) -> Result<(), Failure> {
        let mut trees = trees.into_iter();
        for (number, mount) in instructions.mounts.iter().enumerate() {
            let target = &mount.target;
            let place = match self.place(target, mount.source.kind()) {
                Err(Errno::ROFS) => {
                    let over = self.read_only_above(target);
                    return Err(Errno::ROFS).at(Stage::ReadOnlyMount, &format!("{target}\0{over}"));
                }
                other => other.at(Stage::Mounts, target)?,
            };
            if place.path.is_empty() {
                return Err(Errno::PERM).at(Stage::MountOnRoot, target);
            }
            let is_in_proc = place.path.starts_with(b"/proc/") || place.path == b"/proc";
            if is_in_proc && !may_be_covered(&String::from_utf8_lossy(&place.path)) {
                return Err(Errno::PERM).at(Stage::MountInProc, target);
            }
            let (fd, read_only) = self
                .source(&mount.source, &mut trees, number, &place)
                .at(Stage::Mounts, target)?;
            self.world
                .guest
                .mount(place.path, fd, read_only)
                .at(Stage::Mounts, target)?;
        }
        Ok(())
    }

    /// Returns the mount that keeps a target from being made.
    fn read_only_above(&self, target: &str) -> String {
        let (tree, _) = self.world.guest.tree_of(target.as_bytes());
        let guest = &self.world.guest.tree(tree).guest;
        String::from_utf8_lossy(guest).into_owned()
    }

    fn source(
        &mut self,
        source: &PlannedSource,
        trees: &mut std::vec::IntoIter<OwnedFd>,
        number: usize,
        place: &Place,
    ) -> Result<(OwnedFd, bool), Errno> {
        match source {
            PlannedSource::Tree { read_only, .. } => {
                Ok((trees.next().ok_or(Errno::BADMSG)?, *read_only))
            }
            PlannedSource::Tmpfs { .. } => {
                let path = format!("tmpfs/{number}");
                let mode = if place.is_new {
                    OPEN_TO_ALL
                } else {
                    place.mode
                };
                let on_disk = crate::vocab::mode_on_disk(mode, true);
                let at = &self.world.scratch;
                mkdirat(at, path.as_str(), Mode::from_raw_mode(on_disk))?;
                let fd = open_directory(at.as_fd(), &path)?;
                self.is(
                    &fd,
                    Attributes {
                        mode,
                        ..Attributes::default()
                    },
                )?;
                Ok((fd, false))
            }
            PlannedSource::File {
                content,
                mode,
                uid,
                gid,
            } => {
                let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
                let fd = memfd_create(c"file", flags)?;
                let mut file = File::from(fd);
                file.write_all(content.reveal())
                    .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
                let fd = OwnedFd::from(file);
                let seals =
                    SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
                fcntl_add_seals(&fd, seals)?;
                self.is(
                    &fd,
                    Attributes {
                        uid: *uid,
                        gid: *gid,
                        mode: *mode & 0o7777,
                        ..Attributes::default()
                    },
                )?;
                Ok((fd, true))
            }
        }
    }

    /// Finds where something is to be mounted, with all that is mounted already, and makes what is missing.
    fn place(&mut self, path: &str, kind: Kind) -> Result<Place, Errno> {
        let mut is_new = false;
        let names: Vec<&str> = path.split('/').filter(|name| !name.is_empty()).collect();
        let mut so_far = String::new();
        let mut found = None;
        for (at, name) in names.iter().enumerate() {
            so_far.push('/');
            so_far.push_str(name);
            let is_last = at + 1 == names.len();
            let mut look_again = 0;
            found = Some(loop {
                let now = self.find(&so_far)?;
                match (&now.node, &now.slot) {
                    (Some(_), _) => break now,
                    (None, Some(slot)) if look_again == 0 => {
                        let is_directory = !is_last || kind == Kind::Directory;
                        if self.world.guest.tree(slot.tree).read_only {
                            return Err(Errno::ROFS);
                        }
                        let name = CString::new(slot.name.clone()).map_err(|_| Errno::INVAL)?;
                        let stub = Stub::make(slot.directory.as_fd(), &name, is_directory)?;
                        if slot.tree == 0 {
                            self.stubs.push(stub);
                        }
                        is_new |= is_last;
                        look_again += 1;
                    }
                    _ => return Err(Errno::NOENT),
                }
            });
        }
        let found = found.ok_or(Errno::PERM)?;
        let is_directory = found.node.as_ref().is_some_and(Node::is_directory);
        match (kind, is_directory) {
            (Kind::Directory, false) => return Err(Errno::NOTDIR),
            (Kind::File, true) => return Err(Errno::ISDIR),
            _ => {}
        }
        let mode = match &found.node {
            Some(Node::Opened(opened)) => self.truth().of(&opened.stat).mode & 0o7777,
            _ => 0o755,
        };
        let path = match (found.slot, found.node) {
            (Some(slot), _) => slot.path(),
            (None, Some(Node::Opened(opened))) => {
                let host = self.world.guest.path_of_descriptor(opened.fd.as_fd())?;
                let (_, path) = self.world.guest.guest_of(&host).ok_or(Errno::NOENT)?;
                path
            }
            _ => return Err(Errno::NOENT),
        };
        Ok(Place { path, mode, is_new })
    }

    fn truth(&self) -> Truth<'_> {
        Truth {
            ledger: &self.world.ledger,
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
        }
    }

    /// Finds what a path leads to, as user 0 of no process.
    fn find(&mut self, path: &str) -> Result<Found, Errno> {
        let family = Family::default();
        let world = &mut self.world;
        let asker = Asker {
            thread: 0,
            process: 0,
            family: &family,
            who: Arc::new(Credentials::new(0, 0, &[], u64::MAX)),
            truth: Truth {
                ledger: &world.ledger,
                uid: 0,
                gid: 0,
            },
        };
        let at = libc::AT_FDCWD;
        world
            .guest
            .find_with_slot(&asker, at, path.as_bytes(), Last::Follow)
    }

    /// Opens the working directory. What it lacks is made in a mount, but not in the root.
    fn working_directory(&mut self, path: &str) -> Result<OwnedFd, Errno> {
        let names: Vec<&str> = path.split('/').filter(|name| !name.is_empty()).collect();
        let mut so_far = String::from("/");
        for name in names {
            so_far.push_str(name);
            let found = self.find(&so_far)?;
            if found.node.is_none() {
                let slot = found.slot.ok_or(Errno::NOENT)?;
                let tree = self.world.guest.tree(slot.tree);
                if slot.tree == 0 || tree.read_only {
                    return Err(Errno::NOENT);
                }
                let mode = Mode::from_raw_mode(0o755);
                mkdirat(&*slot.directory, slot.name.as_slice(), mode)?;
            }
            so_far.push('/');
        }
        match self.find(&so_far)?.node {
            Some(Node::Opened(opened)) if opened.is_directory() => opened
                .fd
                .try_clone()
                .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::MFILE)),
            Some(Node::Proc(_)) => Err(Errno::ACCESS),
            Some(_) => Err(Errno::NOTDIR),
            None => Err(Errno::NOENT),
        }
    }
}

/// Where something is to be mounted.
struct Place {
    /// Canonical.
    path: Vec<u8>,
    mode: u32,
    is_new: bool,
}

fn open_directory(at: BorrowedFd<'_>, path: &str) -> Result<OwnedFd, Errno> {
    openat(
        at,
        path,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

fn make_file(at: BorrowedFd<'_>, path: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    openat(at, path, flags, Mode::from_raw_mode(0o644))
}
