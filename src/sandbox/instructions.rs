//! What is to be run, as init sees it: checked, and without descriptors.

use std::collections::HashSet;
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{
    AtFlags, Dir, FileType, Mode as FileMode, OFlags, StatxFlags, fstat, openat, statx,
};

use crate::vocab::{FileId, Ledger, NetworkMode, Rung, Secret, Security};

use super::control;
use super::dialogue::Input;
use super::enter;
use super::error::RunError;
use super::foreign;
use super::limits::{self, Limit};
use super::spec::{DeviceNode, MountSource, RunSpec};
use super::supervise::{Mode, Plan, file_id};
use super::walk::Kind;

/// [`RunSpec`] as init sees it: checked, without descriptors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Instructions {
    pub(super) argv: Vec<String>,
    pub(super) env: Secret<Vec<(String, String)>>,
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
    pub(super) insecure: bool,
    pub(super) mounts: Vec<PlannedMount>,
    pub(super) devices: Vec<DeviceNode>,
    /// Architectures.
    pub(super) emulators: Vec<String>,
    /// What the supervisor answers; its ledger comes as a descriptor.
    pub(super) supervised: Option<Mode>,
    /// Without namespaces and mounts; a directory for what is made in their place comes as a descriptor.
    pub(super) bare: Option<Bare>,
    /// Its descriptor, if there is one, comes after those of the output.
    pub(super) input: Input,
}

/// How a command without namespaces gets to its root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bare {
    /// It stays where it is: all that names a path is performed for it.
    Outside,
    /// The root becomes its root directory: what is on disk there the kernel finds for it.
    Inside,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PlannedMount {
    /// Absolute and clean.
    pub(super) target: String,
    pub(super) source: PlannedSource,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PlannedSource {
    /// The next one of the trees that came as descriptors.
    Tree {
        is_directory: bool,
        read_only: bool,
    },
    Tmpfs {
        size: Option<u64>,
    },
    File {
        content: Secret<Vec<u8>>,
        mode: u32,
        uid: u32,
        gid: u32,
    },
}

/// Files of /proc that may be covered, as container runtimes have them.
const IN_PROC: [&str; 11] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/net/dev",
    "/proc/slabinfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/sys/crypto/fips_enabled",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/uptime",
];

/// Tells whether something may be mounted at a clean path that leads into /proc.
pub(super) fn may_be_covered(path: &str) -> bool {
    IN_PROC.contains(&path)
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
        for (name, value) in &spec.env {
            if name.is_empty() || name.contains('=') {
                return wrong(format!("not the name of a variable: `{name}`"));
            }
            if name.contains('\0') || value.contains('\0') {
                // Not the value itself, which may be a secret.
                return wrong(format!(
                    "a NUL character in the variable `{}`",
                    name.escape_debug()
                ));
            }
        }
        for text in spec.argv.iter().chain([&spec.cwd, &spec.hostname]) {
            if text.contains('\0') {
                return wrong(format!("a NUL character in `{}`", text.escape_debug()));
            }
        }
        let ids = [spec.uid, spec.gid];
        let files = spec.mounts.iter().flat_map(|mount| match &mount.source {
            MountSource::File { uid, gid, .. } => vec![*uid, *gid],
            _ => Vec::new(),
        });
        let nodes = spec.devices.iter().flat_map(|node| [node.uid, node.gid]);
        if ids
            .into_iter()
            .chain(spec.groups.iter().copied())
            .chain(files)
            .chain(nodes.flatten())
            .any(|id| id == u32::MAX)
        {
            return wrong(format!("{} is no user or group", u32::MAX));
        }
        let mounts = spec
            .mounts
            .iter()
            .map(|mount| {
                Ok(PlannedMount {
                    target: clean(&mount.target)?,
                    source: plan(&mount.target, &mount.source)?,
                })
            })
            .collect::<Result<_, RunError>>()?;
        let devices = spec
            .devices
            .iter()
            .map(|device| {
                if !device.source.is_absolute() || device.source.as_os_str().as_bytes().contains(&0)
                {
                    return Err(RunError::Spec(format!(
                        "not the absolute path of a device: `{}`",
                        device.source.display()
                    )));
                }
                Ok(DeviceNode {
                    path: clean(&device.path)?,
                    ..device.clone()
                })
            })
            .collect::<Result<_, RunError>>()?;
        for emulator in &spec.emulators {
            if foreign::header(&emulator.architecture).is_none() {
                return Err(RunError::Architecture {
                    name: emulator.architecture.clone(),
                });
            }
        }
        if spec.scratch.is_some() {
            let wrong = match spec {
                RunSpec { ledger: None, .. } => Some("no ledger"),
                RunSpec {
                    security: Security::Insecure,
                    ..
                } => Some("an insecure command"),
                RunSpec { emulators, .. } if !emulators.is_empty() => Some("an emulator"),
                _ => None,
            };
            if let Some(wrong) = wrong {
                return Err(RunError::Spec(format!(
                    "{wrong} for a command without namespaces"
                )));
            }
        }
        let instructions = Instructions {
            argv: spec.argv.clone(),
            env: Secret::new(spec.env.clone()),
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
            insecure: spec.security == Security::Insecure,
            mounts,
            devices,
            emulators: spec
                .emulators
                .iter()
                .map(|emulator| emulator.architecture.clone())
                .collect(),
            supervised: spec.ledger.as_ref().map(|ledger| mode(spec, ledger)),
            bare: spec.scratch.as_ref().map(|_| match enter::entered_rung() {
                Some(Rung::Chroot) => Bare::Inside,
                _ => Bare::Outside,
            }),
            input: Input::Nothing,
        };
        if instructions.descriptors() > control::DESCRIPTORS {
            return wrong(format!(
                "more than {} mounts and emulators",
                control::DESCRIPTORS
            ));
        }
        Ok(instructions)
    }

    /// Returns how many descriptors come along.
    pub(super) fn descriptors(&self) -> usize {
        3 + usize::from(self.input != Input::Nothing)
            + self.trees()
            + self.emulators.len()
            + usize::from(self.supervised.is_some())
            + usize::from(self.bare.is_some())
    }

    /// Returns the limits that the command really has: one of them carries a supervised process's credentials, and is only told.
    pub(super) fn limits_to_set(&self) -> Vec<Limit> {
        let mut limits = self.limits.clone();
        limits.retain(|limit| !self.emulates_ids() || limit.resource != limits::LOCKS);
        limits
    }

    /// Tells whether the command has one id for whatever user it is told to be.
    pub(super) fn emulates_ids(&self) -> bool {
        self.supervised.is_some_and(Mode::emulates_ids)
    }

    /// Returns how the command is to be supervised, if at all.
    pub(super) fn supervision(&self, ledger: Ledger) -> Option<Plan> {
        let told = self
            .limits
            .iter()
            .rfind(|limit| limit.resource == limits::LOCKS);
        Some(Plan {
            mode: self.supervised?,
            uid: self.uid,
            gid: self.gid,
            groups: self.groups.clone(),
            insecure: self.insecure,
            locks: told.map_or((u64::MAX, u64::MAX), |limit| (limit.soft, limit.hard)),
            hostname: self.hostname.clone(),
            ledger,
        })
    }

    pub(super) fn trees(&self) -> usize {
        self.mounts
            .iter()
            .filter(|mount| matches!(mount.source, PlannedSource::Tree { .. }))
            .count()
    }
}

/// Returns how a command with a ledger is supervised.
///
/// Who has made a device wants to see it, but holding each call that tells what a file is costs several times the call. It is
/// done where the root has devices that the command can see, and for commands that speak of making them.
fn mode(spec: &RunSpec, ledger: &Ledger) -> Mode {
    const MAKES: [&str; 2] = ["mknod", "MAKEDEV"];
    if !ledger.ownership().gives_away() {
        return Mode::Light;
    }
    let speaks = |word: &String| MAKES.iter().any(|name| word.contains(name));
    match has_seen_devices(&spec.root, ledger) || spec.argv.iter().any(speaks) {
        true => Mode::DevicesShown,
        false => Mode::Devices,
    }
}

/// Tells whether a root has devices elsewhere than in `/dev`, which is covered. Many a root has some there.
fn has_seen_devices(root: &OwnedFd, ledger: &Ledger) -> bool {
    if ledger.is_empty() {
        return false;
    }
    let mut covered = HashSet::new();
    match listed_in(root.as_fd(), c"dev", ledger, &mut covered) {
        Ok(()) => covered.len() < ledger.len(),
        Err(_) => true,
    }
}

/// Finds the files in a directory that are in a ledger.
fn listed_in(
    parent: BorrowedFd<'_>,
    name: &CStr,
    ledger: &Ledger,
    found: &mut HashSet<FileId>,
) -> rustix::io::Result<()> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = openat(parent, name, flags, FileMode::empty())?;
    for entry in Dir::read_from(&directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let mask = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
        let stat = statx(&directory, name, AtFlags::SYMLINK_NOFOLLOW, mask)?;
        let id = file_id(&stat);
        if ledger.get(&id).is_some() {
            found.insert(id);
        }
    }
    Ok(())
}

impl PlannedSource {
    /// Returns what it is mounted on.
    pub(super) fn kind(&self) -> Kind {
        match self {
            PlannedSource::Tree { is_directory, .. } => match is_directory {
                true => Kind::Directory,
                false => Kind::File,
            },
            PlannedSource::Tmpfs { .. } => Kind::Directory,
            PlannedSource::File { .. } => Kind::File,
        }
    }
}

fn plan(target: &str, source: &MountSource) -> Result<PlannedSource, RunError> {
    Ok(match source {
        MountSource::Tree { fd, read_only } => PlannedSource::Tree {
            is_directory: is_directory(target, fd.as_fd())?,
            read_only: *read_only,
        },
        MountSource::Tmpfs { size } => PlannedSource::Tmpfs { size: *size },
        MountSource::File {
            content,
            mode,
            uid,
            gid,
        } => PlannedSource::File {
            content: content.clone(),
            mode: *mode,
            uid: *uid,
            gid: *gid,
        },
    })
}

fn is_directory(target: &str, fd: BorrowedFd<'_>) -> Result<bool, RunError> {
    let stat = fstat(fd).map_err(|errno| RunError::Mount {
        target: target.to_owned(),
        source: errno.into(),
    })?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Symlink => Err(RunError::MountTarget {
            target: target.to_owned(),
            why: "what is to be mounted is a symbolic link".to_owned(),
        }),
        file_type => Ok(file_type == FileType::Directory),
    }
}

/// Returns a target without needless slashes, dots and what `..` takes back, by its text alone.
fn clean(path: &str) -> Result<String, RunError> {
    let wrong = |why: &str| {
        Err(RunError::MountTarget {
            target: path.to_owned(),
            why: why.to_owned(),
        })
    };
    if !path.starts_with('/') {
        return wrong("not an absolute path");
    }
    if path.contains('\0') {
        return wrong("a NUL character in the path");
    }
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    let clean = format!("/{}", parts.join("/"));
    match parts.first() {
        None => wrong("it is the root"),
        Some(&"proc") if !may_be_covered(&clean) => wrong("it is in /proc"),
        Some(_) => Ok(clean),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_cleaned_or_refused() {
        for (path, expected) in [
            ("/dev/pipes/EOF", Some("/dev/pipes/EOF")),
            ("//run/./a//b/", Some("/run/a/b")),
            ("/a/../b", Some("/b")),
            ("/dev", Some("/dev")),
            ("/./sys/x", Some("/sys/x")),
            ("/proc/cpuinfo", Some("/proc/cpuinfo")),
            ("/", None),
            ("/a/..", None),
            ("", None),
            ("a", None),
            ("/proc", None),
            ("/x/../proc/self", None),
            ("/proc/sys/kernel/core_pattern", None),
            ("/a\0b", None),
        ] {
            assert_eq!(clean(path).ok().as_deref(), expected, "{path}");
        }
    }
}
