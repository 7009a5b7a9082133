//! What a command sees of the machine: /proc, /sys, /dev and a few files, mounted into its root.
//!
//! What is made here is in one [private](super::private) tmpfs; its parts are bound where they belong.
//!
//! All mounts but the device files and the terminals are `nodev`, the command's root included: as real root a command may make
//! device nodes, and they get into the layer, but it cannot open one and so reach the host's disks. An insecure command is
//! spared that, and all that hides or protects the kernel.
//!
//! Targets of what every command has come as descriptors that were opened before anything was mounted; inside /proc and /sys
//! only file systems that were made or copied here are walked. Targets that were asked for are looked for in what is mounted by
//! then (see [`ground`](super::ground)). So no link of a hostile root decides where something is mounted.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags, StatFs, fstat, openat, statfs};
use rustix::io::Errno;

use super::device::{Device, Maker};
use super::errand::{Errands, Owned};
use super::ground::{Ground, Place};
use super::inner::Handover;
use super::instructions::{Instructions, PlannedMount, PlannedSource};
use super::mount::{Attributes, Mount};
use super::private::{self, FIRST_MOUNT, HOSTS, RESOLV_CONF, mount_point_in_dev};
use super::report::{At, Failure, Stage};
use super::stub::Stubs;
use super::walk::Kind;

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

/// Where things are mounted in every root.
#[derive(Debug)]
pub(super) struct Targets {
    proc: OwnedFd,
    sys: OwnedFd,
    dev: OwnedFd,
    resolv_conf: OwnedFd,
    hosts: OwnedFd,
}

impl Targets {
    /// Finds or makes the mount points. /proc, /sys and /dev stay where they were missing; the others go with `stubs`.
    pub(super) fn find(root: BorrowedFd<'_>, stubs: &mut Stubs) -> Result<Targets, Failure> {
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
        })
    }
}

/// Mounts everything into the root, and the root over the root directory of this mount namespace, which must be private.
/// Returns the command's null device, open for reading.
pub(super) fn build(
    handover: &mut Handover<'_>,
    instructions: &Instructions,
) -> Result<OwnedFd, Failure> {
    let Handover {
        root,
        trees,
        targets,
        cgroups,
        errands,
        ..
    } = handover;
    let is_insecure = instructions.insecure;
    // Before anything covers the surroundings' own.
    let proc = proc(is_insecure)?;
    let private = private::make(instructions)?;
    if instructions.emulates_ids() {
        give_by_word(&private, instructions, errands)?;
    }
    let mut maker = Maker::new(&private);
    let mut devices = maker.of_every_command()?;
    if is_insecure {
        devices.extend(maker.of_insecure_ones());
    }
    let asked_for = maker.asked_for(&instructions.devices)?;

    root.attach_over("/").at(Stage::Root, "")?;
    if !is_insecure {
        root.restrict_tree(Attributes::MOUNT_ATTR_NODEV)
            .at(Stage::Root, "")?;
    }
    proc.attach(&targets.proc).at(Stage::Proc, "")?;
    let sys = sys(targets, *cgroups, is_insecure)?;
    let (dev, null) = dev(&private, targets, &devices, instructions)?;
    files(&private, targets)?;

    if !is_insecure {
        for name in HIDDEN_IN_PROC {
            hide(&proc, name, &null, &private)?;
        }
        for name in HIDDEN_IN_SYS {
            hide(&sys, name, &null, &private)?;
        }
        for name in READ_ONLY_IN_PROC {
            make_read_only(&proc, name)?;
        }
    }
    // Before something may cover it.
    let open_null = openat(
        &dev,
        "null",
        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .at(Stage::Streams, "/dev/null")?;

    if asked_for.is_empty() && instructions.mounts.is_empty() {
        return Ok(open_null);
    }
    let mut ground = Ground::new(root, errands).at(Stage::Root, "")?;
    ground.has(&sys, "/sys").at(Stage::Sys, "")?;
    for Device { path, mount } in &asked_for {
        let place = ground.place(path, Kind::File)?;
        ground.attach(mount, &place, path)?;
    }
    let mut trees = std::mem::take(trees).into_iter();
    for (number, PlannedMount { target, source }) in instructions.mounts.iter().enumerate() {
        let place = ground.place(target, source.kind())?;
        let tree = match source {
            PlannedSource::Tree { .. } => trees.next(),
            _ => None,
        };
        let mount = mount_of(source, tree, &place, &private, number, is_insecure)
            .at(Stage::Mounts, target)?;
        ground.attach(&mount, &place, target)?;
    }
    Ok(open_null)
}

/// Has the supervisor say whose the files are that are mounted.
fn give_by_word(
    private: &Mount,
    instructions: &Instructions,
    errands: &Errands,
) -> Result<(), Failure> {
    for (number, mount) in instructions.mounts.iter().enumerate() {
        if let PlannedSource::File { mode, uid, gid, .. } = mount.source
            && (uid, gid) != (0, 0)
        {
            let file = child(private, &private::name(FIRST_MOUNT + number))
                .at(Stage::Mounts, &mount.target)?;
            errands.own(&Owned {
                file,
                uid,
                gid,
                mode,
            })?;
        }
    }
    Ok(())
}

/// Makes what is to be mounted at `place`.
fn mount_of(
    source: &PlannedSource,
    tree: Option<Mount>,
    place: &Place,
    private: &Mount,
    number: usize,
    is_insecure: bool,
) -> Result<Mount, Errno> {
    match source {
        PlannedSource::Tree { read_only, .. } => {
            let mount = tree.ok_or(Errno::BADMSG)?;
            let mut attributes = Attributes::empty();
            if !is_insecure {
                attributes |= Attributes::MOUNT_ATTR_NODEV;
            }
            if *read_only {
                attributes |= Attributes::MOUNT_ATTR_RDONLY;
            }
            mount.restrict_tree(attributes)?;
            Ok(mount)
        }
        PlannedSource::Tmpfs { size } => {
            let mode = if place.is_new {
                0o1777
            } else {
                fstat(&place.target)?.st_mode & 0o7777
            };
            let mode = format!("{mode:o}");
            let size = size.map(|size| size.to_string());
            let mut options = vec![("mode", mode.as_str())];
            options.extend(size.as_deref().map(|size| ("size", size)));
            Mount::create(
                "tmpfs",
                &options,
                Attributes::MOUNT_ATTR_NOSUID | Attributes::MOUNT_ATTR_NODEV,
            )
        }
        PlannedSource::File { .. } => {
            let mount = Mount::copy(private, Path::new(&private::name(FIRST_MOUNT + number)))?;
            mount.restrict(Attributes::MOUNT_ATTR_RDONLY)?;
            Ok(mount)
        }
    }
}

/// No set-user-ID programs, no devices, no programs at all.
fn closed() -> Attributes {
    Attributes::MOUNT_ATTR_NOSUID | Attributes::MOUNT_ATTR_NODEV | Attributes::MOUNT_ATTR_NOEXEC
}

/// Mounts /dev; returns it and its `null`.
fn dev(
    private: &Mount,
    targets: &Targets,
    devices: &[Device],
    instructions: &Instructions,
) -> Result<(Mount, Mount), Failure> {
    let stage = Stage::Dev;
    for Device { path, .. } in devices {
        mount_point_in_dev(private, path).at(stage, path)?;
    }
    let dev = Mount::copy(private, Path::new("dev")).at(stage, "")?;
    if instructions.insecure {
        dev.permit(Attributes::MOUNT_ATTR_NODEV).at(stage, "")?;
    }
    dev.attach(&targets.dev).at(stage, "")?;

    let terminals = Attributes::MOUNT_ATTR_NOSUID | Attributes::MOUNT_ATTR_NOEXEC;
    let options = [("ptmxmode", "0666"), ("mode", "0620"), ("gid", "5")];
    // Group 5, `tty`, may not be mapped. A command can do without terminals, and without message queues.
    if let Ok(pts) = Mount::create("devpts", &options, terminals)
        .or_else(|_| Mount::create("devpts", &options[..2], terminals))
    {
        child(&dev, "pts")
            .and_then(|target| pts.attach(target))
            .at(stage, "pts")?;
    }
    let size = instructions.shm_size.to_string();
    Mount::create("tmpfs", &[("mode", "1777"), ("size", &size)], closed())
        .and_then(|shm| shm.attach(child(&dev, "shm")?))
        .at(stage, "shm")?;
    if let Ok(mqueue) = Mount::create("mqueue", &[], closed()) {
        child(&dev, "mqueue")
            .and_then(|target| mqueue.attach(target))
            .at(stage, "mqueue")?;
    }

    for Device { path, mount } in devices {
        child(&dev, path)
            .and_then(|target| mount.attach(target))
            .at(stage, path)?;
    }
    let null = child(&dev, "null").at(stage, "null")?;
    Ok((dev, Mount::from_fd(null)))
}

/// Makes /proc, for the command's own pid namespace.
///
/// In a user namespace the kernel makes none where the surroundings cover parts of theirs, as containers do, since a new one
/// would show them. Then theirs is taken, with its covers. It counts processes as they do: `/proc/self` is right, `/proc/$$`
/// is another process or none. The pid namespace is kept all the same, because its end is what ends all that a command leaves
/// behind. Of the surroundings' processes it shows names and arguments; memory, environment, root and descriptors are those of
/// another user namespace, which the kernel keeps to itself. It is read-only: what may be written there of a process
/// (`oom_score_adj`) asks for its user alone, and theirs may be the command's own.
fn proc(is_insecure: bool) -> Result<Mount, Failure> {
    Mount::create("proc", &[], closed())
        .or_else(|_| {
            let copy = Mount::copy_tree(CWD, Path::new("/proc"))?;
            let mut attributes = closed();
            attributes.set(Attributes::MOUNT_ATTR_RDONLY, !is_insecure);
            copy.restrict_tree(attributes)?;
            Ok::<_, Errno>(copy)
        })
        .at(Stage::Proc, "")
}

/// Mounts /sys and the control groups, read-only unless the command is an insecure one.
fn sys(targets: &Targets, cgroups: Cgroups, is_insecure: bool) -> Result<Mount, Failure> {
    let stage = Stage::Sys;
    let mut attributes = closed();
    if !is_insecure {
        attributes |= Attributes::MOUNT_ATTR_RDONLY;
    }
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
        // Nor is this one.
        mount.attach(target).ok();
    }
    Ok(sys)
}

fn files(private: &Mount, targets: &Targets) -> Result<(), Failure> {
    for (number, target, path) in [
        (RESOLV_CONF, &targets.resolv_conf, "/etc/resolv.conf"),
        (HOSTS, &targets.hosts, "/etc/hosts"),
    ] {
        let bind = || {
            let copy = Mount::copy(private, Path::new(&private::name(number)))?;
            copy.restrict(closed())?;
            copy.attach(target)
        };
        bind().at(Stage::Files, path)?;
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

/// Opens a path in a file system that no stranger has written to.
fn child(directory: impl AsFd, name: &str) -> Result<OwnedFd, Errno> {
    openat(
        directory,
        name,
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )
}
