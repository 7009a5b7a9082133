//! What a command sees of the machine: /proc, /sys, /dev and a few files, mounted into its root.
//!
//! One private tmpfs holds everything that is made here; its parts are bound where they belong:
//!
//! ```text
//! dev/      -> /dev        links, mount points for devices, pts, shm, mqueue
//! nodes/X   -> /dev/X      devices, where they can be made
//! files/N   -> the files   0 is resolv.conf, 1 is hosts
//! empty/    -> over directories that are to be hidden
//! ```
//!
//! All mounts but the device files and the terminals are `nodev`, the command's root included: as real root a command may make
//! device nodes, and they get into the layer, but it cannot open one and so reach the host's disks.
//!
//! Targets inside the root come as descriptors that were opened before anything was mounted; inside /proc and /sys only file
//! systems that were made or copied here are walked. So no link of a hostile root decides where something is mounted.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    CWD, FileType, Mode, OFlags, StatFs, fchmod, fstat, makedev, mkdirat, mknodat, openat, statfs,
    symlinkat,
};
use rustix::io::Errno;

use super::mount::{Attributes, Mount};
use super::report::{At, Failure, Stage};
use super::spec::Instructions;
use super::walk::{Kind, Stubs};

/// Character devices that a command has, with their numbers.
const DEVICES: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

const LINKS: [(&str, &str); 5] = [
    ("/proc/self/fd", "dev/fd"),
    ("/proc/self/fd/0", "dev/stdin"),
    ("/proc/self/fd/1", "dev/stdout"),
    ("/proc/self/fd/2", "dev/stderr"),
    ("pts/ptmx", "dev/ptmx"),
];

/// Files and directories of the kernel that tell about the host, as Docker hides them.
const HIDDEN_IN_PROC: [&str; 10] = [
    "acpi",
    "asound",
    "interrupts",
    "kcore",
    "keys",
    "latency_stats",
    "timer_list",
    "timer_stats",
    "sched_debug",
    "scsi",
];
const HIDDEN_IN_SYS: [&str; 2] = ["firmware", "devices/virtual/powercap"];
const READ_ONLY_IN_PROC: [&str; 5] = ["bus", "fs", "irq", "sys", "sysrq-trigger"];

/// Bytes that a command may write to /dev, /etc/hosts and /etc/resolv.conf together, as much as Docker's /dev holds.
const PRIVATE_SIZE: u64 = 64 << 20;

const CGROUP2_MAGIC: u64 = 0x6367_7270;

/// How the machine offers control groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cgroups {
    /// Version 2 alone.
    Unified,
    /// Version 1, with or without version 2 beside it.
    Legacy,
}

impl Cgroups {
    pub(super) fn of_this_machine() -> Cgroups {
        match statfs("/sys/fs/cgroup") {
            Ok(StatFs { f_type, .. }) if f_type as u64 == CGROUP2_MAGIC => Cgroups::Unified,
            _ => Cgroups::Legacy,
        }
    }
}

/// Where things are mounted in the root.
#[derive(Debug)]
pub(super) struct Targets {
    proc: OwnedFd,
    sys: OwnedFd,
    dev: OwnedFd,
    resolv_conf: OwnedFd,
    hosts: OwnedFd,
    /// One for each mounted file; `None` where it is below /dev and has its place in the private tmpfs.
    files: Vec<Option<OwnedFd>>,
}

impl Targets {
    /// Finds or makes the mount points. /proc, /sys and /dev stay where they were missing; the others go with `stubs`.
    pub(super) fn find(
        root: BorrowedFd<'_>,
        instructions: &Instructions,
        stubs: &mut Stubs,
    ) -> Result<Targets, Failure> {
        let mut directory = |path| {
            stubs
                .find_or_make(root, path, Kind::Directory)
                .at(Stage::MountPoints, path)
        };
        let (proc, sys, dev) = (directory("/proc")?, directory("/sys")?, directory("/dev")?);
        stubs.keep();
        let mut file = |path| {
            stubs
                .find_or_make(root, path, Kind::File)
                .at(Stage::MountPoints, path)
        };
        Ok(Targets {
            proc,
            sys,
            dev,
            resolv_conf: file("/etc/resolv.conf")?,
            hosts: file("/etc/hosts")?,
            files: instructions
                .files
                .iter()
                .map(|mounted| match below_dev(&mounted.path) {
                    Some(_) => Ok(None),
                    None => file(&mounted.path).map(Some),
                })
                .collect::<Result<_, _>>()?,
        })
    }
}

/// Mounts everything into `root`, and `root` over the root directory of this mount namespace, which must be private.
pub(super) fn build(
    root: &Mount,
    targets: &Targets,
    instructions: &Instructions,
    cgroups: Cgroups,
) -> Result<(), Failure> {
    let private = private(instructions)?;
    let devices = devices(&private)?;

    root.attach_over("/").at(Stage::Root, "")?;
    root.restrict_tree(Attributes::MOUNT_ATTR_NODEV)
        .at(Stage::Root, "")?;

    let proc = Mount::create("proc", &[], closed()).at(Stage::Proc, "")?;
    proc.attach(&targets.proc).at(Stage::Proc, "")?;
    let sys = sys(targets, cgroups)?;
    let (dev, null) = dev(&private, targets, devices, instructions.shm_size)?;
    files(&private, &dev, targets, instructions)?;

    for name in HIDDEN_IN_PROC {
        hide(&proc, name, &null, &private)?;
    }
    for name in HIDDEN_IN_SYS {
        hide(&sys, name, &null, &private)?;
    }
    for name in READ_ONLY_IN_PROC {
        make_read_only(&proc, name)?;
    }
    Ok(())
}

/// No set-user-ID programs, no devices, no programs at all.
fn closed() -> Attributes {
    Attributes::MOUNT_ATTR_NOSUID | Attributes::MOUNT_ATTR_NODEV | Attributes::MOUNT_ATTR_NOEXEC
}

/// Makes and fills the private tmpfs. Kernels before 6.15 copy only from attached mounts, so it is attached to a place that
/// always exists and goes away with the host's tree: not over the root, where it would stand between the old root and the new.
fn private(instructions: &Instructions) -> Result<Mount, Failure> {
    let stage = Stage::Private;
    let content = [&instructions.resolv_conf, &instructions.hosts]
        .into_iter()
        .chain(instructions.files.iter().map(|file| &file.content))
        // Whole pages.
        .map(|content| content.len() as u64 + 4096)
        .sum::<u64>();
    let size = (PRIVATE_SIZE + content).to_string();
    let private = Mount::create(
        "tmpfs",
        &[("mode", "0755"), ("size", &size)],
        Attributes::MOUNT_ATTR_NOSUID | Attributes::MOUNT_ATTR_NODEV,
    )
    .at(stage, "")?;
    private.attach_over("/proc").at(stage, "/proc")?;

    for name in [
        "dev",
        "dev/pts",
        "dev/shm",
        "dev/mqueue",
        "nodes",
        "files",
        "empty",
    ] {
        let mode = Mode::from_raw_mode(if name == "empty" { 0o555 } else { 0o755 });
        mkdirat(&private, name, mode).at(stage, name)?;
    }
    for (target, name) in LINKS {
        symlinkat(target, &private, name).at(stage, name)?;
    }
    write(&private, 0, &instructions.resolv_conf, 0o644)?;
    write(&private, 1, &instructions.hosts, 0o644)?;
    for (at, file) in instructions.files.iter().enumerate() {
        write(&private, at + 2, &file.content, file.mode)?;
        if let Some(path) = below_dev(&file.path) {
            mount_point_in_dev(&private, path).at(stage, &file.path)?;
        }
    }
    Ok(private)
}

fn write(private: &Mount, number: usize, content: &[u8], mode: u32) -> Result<(), Failure> {
    let name = private_name(number);
    let create = || {
        let file = openat(
            private,
            &name,
            OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC,
            Mode::from_raw_mode(0o600),
        )?;
        let mut file = File::from(file);
        file.write_all(content)?;
        fchmod(&file, Mode::from_raw_mode(mode & 0o7777))?;
        std::io::Result::Ok(())
    };
    create().at(Stage::Private, &name)
}

fn private_name(number: usize) -> String {
    format!("files/{number}")
}

/// Returns the path relative to /dev.
fn below_dev(path: &str) -> Option<&str> {
    path.strip_prefix("/dev/")
}

/// Nothing but this program has put anything there, so paths are safe.
fn mount_point_in_dev(private: &Mount, path: &str) -> Result<(), Errno> {
    let path = format!("dev/{path}");
    for (slash, _) in path.match_indices('/').skip(1) {
        match mkdirat(private, &path[..slash], Mode::from_raw_mode(0o755)) {
            Err(Errno::EXIST) => {}
            other => other?,
        }
    }
    match mknodat(
        private,
        &path,
        FileType::RegularFile,
        Mode::from_raw_mode(0o444),
        0,
    ) {
        Err(Errno::EXIST) => Ok(()),
        other => other,
    }
}

/// Makes the devices, or takes the host's where that is not allowed (a user namespace, whose root cannot change them). Real
/// root gets nodes of its own: a `chmod` of one must not be the host's. A machine may lack some, but not `null`.
fn devices(private: &Mount) -> Result<Vec<(&'static str, Mount)>, Failure> {
    let mut devices = Vec::with_capacity(DEVICES.len());
    let mut can_make = true;
    for (name, major, minor) in DEVICES {
        if can_make {
            match make_device(private, name, major, minor) {
                Ok(device) => {
                    devices.push((name, device));
                    continue;
                }
                Err(Errno::PERM | Errno::ACCESS) => can_make = false,
                Err(errno) => return Err(errno).at(Stage::Dev, name),
            }
        }
        let path = format!("/dev/{name}");
        match take_device(&path, major, minor) {
            Ok(device) => devices.push((name, device)),
            Err(Errno::NOENT | Errno::NODEV) if name != "null" => {}
            Err(errno) => return Err(errno).at(Stage::Dev, &path),
        }
    }
    Ok(devices)
}

fn make_device(private: &Mount, name: &str, major: u32, minor: u32) -> Result<Mount, Errno> {
    let path = format!("nodes/{name}");
    let mode = Mode::from_raw_mode(0o666);
    let number = makedev(major, minor);
    mknodat(private, &path, FileType::CharacterDevice, mode, number)?;
    let device = Mount::copy(private, Path::new(&path))?;
    // A mount of one file: nothing else can be made on it.
    device.permit(Attributes::MOUNT_ATTR_NODEV)?;
    Ok(device)
}

fn take_device(path: &str, major: u32, minor: u32) -> Result<Mount, Errno> {
    let device = Mount::copy(CWD, Path::new(path))?;
    let stat = fstat(&device)?;
    let is_it = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
        && stat.st_rdev == makedev(major, minor);
    if !is_it {
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

/// Mounts /dev; returns it and its `null`.
fn dev(
    private: &Mount,
    targets: &Targets,
    devices: Vec<(&'static str, Mount)>,
    shm_size: u64,
) -> Result<(Mount, Mount), Failure> {
    let stage = Stage::Dev;
    for (name, _) in &devices {
        mount_point_in_dev(private, name).at(stage, name)?;
    }
    let dev = Mount::copy(private, Path::new("dev")).at(stage, "")?;
    dev.attach(&targets.dev).at(stage, "")?;

    let terminals = Attributes::MOUNT_ATTR_NOSUID | Attributes::MOUNT_ATTR_NOEXEC;
    let options = [("ptmxmode", "0666"), ("mode", "0620"), ("gid", "5")];
    // Group 5, `tty`, may not be mapped.
    Mount::create("devpts", &options, terminals)
        .or_else(|_| Mount::create("devpts", &options[..2], terminals))
        .and_then(|pts| pts.attach(child(&dev, "pts")?))
        .at(stage, "pts")?;
    let size = shm_size.to_string();
    Mount::create("tmpfs", &[("mode", "1777"), ("size", &size)], closed())
        .and_then(|shm| shm.attach(child(&dev, "shm")?))
        .at(stage, "shm")?;
    match Mount::create("mqueue", &[], closed()) {
        // The kernel was built without message queues.
        Err(Errno::NODEV) => {}
        other => other
            .and_then(|mqueue| mqueue.attach(child(&dev, "mqueue")?))
            .at(stage, "mqueue")?,
    }

    let mut null = None;
    for (name, device) in devices {
        child(&dev, name)
            .and_then(|target| device.attach(target))
            .at(stage, name)?;
        if name == "null" {
            null = Some(device);
        }
    }
    let null = null.ok_or(Errno::NODEV).at(stage, "null")?;
    Ok((dev, null))
}

/// Mounts /sys and the control groups, read-only.
fn sys(targets: &Targets, cgroups: Cgroups) -> Result<Mount, Failure> {
    let stage = Stage::Sys;
    let attributes = closed() | Attributes::MOUNT_ATTR_RDONLY;
    // A user namespace may have a sysfs of its own only for a network namespace of its own; else it copies what is there.
    let (sys, is_own) = match Mount::create("sysfs", &[], attributes) {
        Ok(sys) => (sys, true),
        Err(_) => {
            let sys = Mount::copy_tree(CWD, Path::new("/sys")).at(stage, "")?;
            sys.restrict_tree(attributes).at(stage, "")?;
            (sys, false)
        }
    };
    sys.attach(&targets.sys).at(stage, "")?;

    // No control groups is no reason not to run.
    let Ok(target) = child(&sys, "fs/cgroup") else {
        return Ok(sys);
    };
    let own = match cgroups {
        Cgroups::Unified => Mount::create("cgroup2", &[], attributes).ok(),
        Cgroups::Legacy => None,
    };
    let copied = || {
        let copy = Mount::copy_tree(CWD, Path::new("/sys/fs/cgroup"))?;
        copy.restrict_tree(attributes)?;
        Ok::<_, Errno>(copy)
    };
    let mount = match own {
        Some(own) => Some(own),
        None if is_own => copied().ok(),
        // The copy of /sys has them already.
        None => None,
    };
    if let Some(mount) = mount {
        mount.attach(target).at(stage, "fs/cgroup")?;
    }
    Ok(sys)
}

fn files(
    private: &Mount,
    dev: &Mount,
    targets: &Targets,
    instructions: &Instructions,
) -> Result<(), Failure> {
    let bind = |number: usize, target: BorrowedFd<'_>, attributes: Attributes| {
        let copy = Mount::copy(private, Path::new(&private_name(number)))?;
        copy.restrict(attributes)?;
        copy.attach(target)
    };
    bind(0, targets.resolv_conf.as_fd(), closed()).at(Stage::Files, "/etc/resolv.conf")?;
    bind(1, targets.hosts.as_fd(), closed()).at(Stage::Files, "/etc/hosts")?;
    for (at, (file, target)) in instructions.files.iter().zip(&targets.files).enumerate() {
        let attach = |target: BorrowedFd<'_>| bind(at + 2, target, Attributes::MOUNT_ATTR_RDONLY);
        match (target, below_dev(&file.path)) {
            (Some(target), _) => attach(target.as_fd()),
            (None, path) => {
                child(dev, path.unwrap_or_default()).and_then(|target| attach(target.as_fd()))
            }
        }
        .at(Stage::Files, &file.path)?;
    }
    Ok(())
}

/// Covers a file with `null`, a directory with an empty one. What the kernel does not have needs no cover.
fn hide(file_system: &Mount, name: &str, null: &Mount, private: &Mount) -> Result<(), Failure> {
    let stage = Stage::Hide;
    let target = match child(file_system, name) {
        Err(Errno::NOENT) => return Ok(()),
        other => other.at(stage, name)?,
    };
    let stat = fstat(&target).at(stage, name)?;
    let cover = if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        Mount::copy(private, Path::new("empty")).and_then(|cover| {
            cover.restrict(closed() | Attributes::MOUNT_ATTR_RDONLY)?;
            Ok(cover)
        })
    } else {
        Mount::copy(null, Path::new(""))
    };
    cover.and_then(|cover| cover.attach(target)).at(stage, name)
}

fn make_read_only(file_system: &Mount, name: &str) -> Result<(), Failure> {
    let target = match child(file_system, name) {
        Err(Errno::NOENT) => return Ok(()),
        other => other.at(Stage::Hide, name)?,
    };
    let cover = || {
        let copy = Mount::copy_tree(&target, Path::new(""))?;
        copy.restrict_tree(closed() | Attributes::MOUNT_ATTR_RDONLY)?;
        copy.attach(&target)
    };
    cover().at(Stage::Hide, name)
}

/// Opens a name in a file system that no stranger has written to.
fn child(directory: impl AsFd, name: &str) -> Result<OwnedFd, Errno> {
    openat(
        directory,
        name,
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )
}
