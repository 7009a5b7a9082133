//! Devices: those that every command has, those of an insecure one, and those that were asked for.
//!
//! Each is a node of its own in the private tmpfs, bound where it belongs: a `chmod` of one must not be the host's. Where no
//! node can be made (a user namespace, whose root could not change the host's either) the host's is bound.

use std::fs;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, Dev, FileType, Gid, Mode, Uid, chmodat, chownat, fstat, makedev, mknodat,
};
use rustix::io::Errno;

use super::mount::{Attributes, Mount};
use super::report::{At, Failure, Stage};
use super::spec::DeviceNode;

/// Character devices that every command has, with their numbers.
const USUAL: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

/// Character devices that an insecure command has besides, where the host has them: what BuildKit gives.
const INSECURE: [(&str, u32, u32); 6] = [
    ("kmsg", 1, 11),
    ("cuse", 10, 203),
    ("fuse", 10, 229),
    ("kvm", 10, 232),
    ("net/tun", 10, 200),
    ("loop-control", 10, 237),
];
/// The major number of loop devices; so many more than the host shows are made, since a loop device that a command adds does
/// not appear in its /dev by itself.
const LOOP: u32 = 7;
const MORE_LOOPS: u32 = 8;

const READ_BITS: u32 = 0o444;
const WRITE_BITS: u32 = 0o222;

/// A device under its path in /dev, or anywhere else.
#[derive(Debug)]
pub(super) struct Device {
    pub(super) path: String,
    pub(super) mount: Mount,
}

/// What a node is made of.
#[derive(Clone, Copy)]
struct Node {
    file_type: FileType,
    number: Dev,
    mode: u32,
    owner: Option<(u32, u32)>,
}

/// Makes devices in the private tmpfs.
pub(super) struct Maker<'a> {
    private: &'a Mount,
    can_make: bool,
    made: usize,
}

impl Maker<'_> {
    pub(super) fn new(private: &Mount) -> Maker<'_> {
        Maker {
            private,
            can_make: true,
            made: 0,
        }
    }

    /// Makes or takes the devices of /dev, with paths relative to it. A machine may lack some, but not `null`.
    pub(super) fn of_every_command(&mut self) -> Result<Vec<Device>, Failure> {
        let mut devices = Vec::with_capacity(USUAL.len());
        for (name, major, minor) in USUAL {
            let node = character(major, minor, 0o666);
            let host = format!("/dev/{name}");
            match self.make_or_take(node, Path::new(&host)) {
                Ok(mount) => devices.push(Device {
                    path: name.to_owned(),
                    mount,
                }),
                Err(Errno::NOENT | Errno::NODEV) if name != "null" => {}
                Err(errno) => return Err(errno).at(Stage::Dev, &host),
            }
        }
        Ok(devices)
    }

    /// Makes or takes what the host has and gives of the others, with paths relative to /dev. A command can do without any.
    pub(super) fn of_insecure_ones(&mut self) -> Vec<Device> {
        let mut nodes = Vec::new();
        for (name, major, minor) in INSECURE {
            if let Ok(host) = rustix::fs::stat(format!("/dev/{name}")) {
                let node = character(major, minor, host.st_mode & 0o7777);
                if is_node(&host, node) {
                    nodes.push((name.to_owned(), node));
                }
            }
        }
        if let Some(last) = last_loop_device() {
            nodes.extend((0..=last.saturating_add(MORE_LOOPS)).map(|minor| {
                let node = Node {
                    file_type: FileType::BlockDevice,
                    number: makedev(LOOP, minor),
                    mode: 0o660,
                    owner: None,
                };
                (format!("loop{minor}"), node)
            }));
        }
        nodes
            .into_iter()
            .filter_map(|(path, node)| {
                let host = format!("/dev/{path}");
                let mount = self.make_or_take(node, Path::new(&host)).ok()?;
                Some(Device { path, mount })
            })
            .collect()
    }

    /// Makes or takes the devices that were asked for, in that order.
    pub(super) fn asked_for(&mut self, nodes: &[DeviceNode]) -> Result<Vec<Device>, Failure> {
        nodes
            .iter()
            .map(|asked| {
                let mount = self
                    .asked(asked)
                    .at(Stage::Device, &asked.source.to_string_lossy())?;
                Ok(Device {
                    path: asked.path.clone(),
                    mount,
                })
            })
            .collect()
    }

    fn asked(&mut self, asked: &DeviceNode) -> Result<Mount, Errno> {
        let host = rustix::fs::stat(&asked.source)?;
        let file_type = FileType::from_raw_mode(host.st_mode);
        match file_type {
            FileType::CharacterDevice | FileType::BlockDevice => {}
            // One that is made would not be the host's.
            FileType::Fifo => return Mount::copy(CWD, &asked.source),
            _ => return Err(Errno::NODEV),
        }
        let mut mode = asked.mode.unwrap_or(host.st_mode) & 0o7777;
        if !asked.permissions.read {
            mode &= !READ_BITS;
        }
        if !asked.permissions.write {
            mode &= !WRITE_BITS;
        }
        let node = Node {
            file_type,
            number: host.st_rdev,
            mode,
            owner: Some((
                asked.uid.unwrap_or(host.st_uid),
                asked.gid.unwrap_or(host.st_gid),
            )),
        };
        self.make_or_take(node, &asked.source)
    }

    fn make_or_take(&mut self, node: Node, host: &Path) -> Result<Mount, Errno> {
        if self.can_make {
            match self.make(node) {
                Err(Errno::PERM | Errno::ACCESS) => self.can_make = false,
                other => return other,
            }
        }
        take(host, node)
    }

    fn make(&mut self, node: Node) -> Result<Mount, Errno> {
        let path = format!("nodes/{}", self.made);
        let mode = Mode::from_raw_mode(node.mode);
        mknodat(self.private, &path, node.file_type, mode, node.number)?;
        self.made += 1;
        if let Some((uid, gid)) = node.owner {
            let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
            chownat(self.private, &path, Some(uid), Some(gid), AtFlags::empty())?;
            // A change of owner may take bits away.
            chmodat(self.private, &path, mode, AtFlags::empty())?;
        }
        let device = Mount::copy(self.private, Path::new(&path))?;
        // A mount of one file: nothing else can be made on it.
        device.permit(Attributes::MOUNT_ATTR_NODEV)?;
        Ok(device)
    }
}

fn take(path: &Path, node: Node) -> Result<Mount, Errno> {
    let device = Mount::copy(CWD, path)?;
    if !is_node(&fstat(device.as_fd())?, node) {
        return Err(Errno::NODEV);
    }
    // A device can be written to all the same; its mode and owner, which are the host's, cannot be changed.
    device.restrict(
        Attributes::MOUNT_ATTR_RDONLY
            | Attributes::MOUNT_ATTR_NOSUID
            | Attributes::MOUNT_ATTR_NOEXEC,
    )?;
    Ok(device)
}

fn character(major: u32, minor: u32, mode: u32) -> Node {
    Node {
        file_type: FileType::CharacterDevice,
        number: makedev(major, minor),
        mode,
        owner: None,
    }
}

fn is_node(stat: &rustix::fs::Stat, node: Node) -> bool {
    FileType::from_raw_mode(stat.st_mode) == node.file_type && stat.st_rdev == node.number
}

/// Returns the highest number of a loop device that the host shows.
fn last_loop_device() -> Option<u32> {
    fs::read_dir("/dev")
        .ok()?
        .filter_map(|entry| {
            let name = entry.ok()?.file_name();
            name.to_str()?.strip_prefix("loop")?.parse().ok()
        })
        .max()
}
