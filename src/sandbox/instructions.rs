//! What init is told, checked, and how it crosses to it.
//!
//! ```text
//! order: u8 0, or 1 and the instructions                                                  (see `wire` for the pieces)
//! instructions: argv | env (name, value) | cwd | uid | gid | groups | hostname | private network | resolv.conf | hosts
//!               | u64 shm size | limits (u32 resource, u64 soft, u64 hard) | insecure | mounts | devices | emulators
//! mount:  target | u8 1, directory, read-only  or  u8 2, size or none  or  u8 3, content, mode, uid, gid
//! device: source | path | read | write | mknod | uid, gid, mode or none
//! emulator: architecture
//! descriptors, in this order: root, stdout, stderr, one for each tree among the mounts, one for each emulator
//! ```

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{FileType, fstat};

use crate::vocab::{NetworkMode, Secret, Security};

use super::control;
use super::error::RunError;
use super::foreign;
use super::limits::{self, Limit};
use super::spec::{DeviceNode, DevicePermissions, MountSource, RunSpec};
use super::walk::Kind;
use super::wire::{Reader, Writer};

/// What init is started for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// To find out whether emulators work.
    TryEmulation,
    Run(Box<Instructions>),
}

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

impl Order {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        match self {
            Order::TryEmulation => writer.0.push(0),
            Order::Run(instructions) => {
                writer.0.push(1);
                instructions.write(&mut writer);
            }
        }
        writer.0
    }

    /// Returns `None` for anything that [`Order::encode`] does not make.
    pub(super) fn decode(bytes: &[u8]) -> Option<Order> {
        let mut reader = Reader(bytes);
        let order = match reader.byte()? {
            0 => Order::TryEmulation,
            1 => Order::Run(Box::new(Instructions::read(&mut reader)?)),
            _ => return None,
        };
        reader.finish(order)
    }
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
        3 + self.trees() + self.emulators.len()
    }

    pub(super) fn trees(&self) -> usize {
        self.mounts
            .iter()
            .filter(|mount| matches!(mount.source, PlannedSource::Tree { .. }))
            .count()
    }

    fn write(&self, writer: &mut Writer) {
        writer.list(&self.argv, |writer, word| writer.bytes(word.as_bytes()));
        writer.list(self.env.reveal(), |writer, (name, value)| {
            writer.bytes(name.as_bytes());
            writer.bytes(value.as_bytes());
        });
        writer.bytes(self.cwd.as_bytes());
        writer.u32(self.uid);
        writer.u32(self.gid);
        writer.list(&self.groups, |writer, group| writer.u32(*group));
        writer.bytes(self.hostname.as_bytes());
        writer.claim(self.private_network);
        writer.bytes(&self.resolv_conf);
        writer.bytes(&self.hosts);
        writer.u64(self.shm_size);
        writer.list(&self.limits, |writer, limit| {
            writer.u32(limit.resource);
            writer.u64(limit.soft);
            writer.u64(limit.hard);
        });
        writer.claim(self.insecure);
        writer.list(&self.mounts, |writer, mount| {
            writer.bytes(mount.target.as_bytes());
            mount.source.write(writer);
        });
        writer.list(&self.devices, write_device);
        writer.list(&self.emulators, |writer, architecture| {
            writer.bytes(architecture.as_bytes());
        });
    }

    fn read(reader: &mut Reader<'_>) -> Option<Instructions> {
        Some(Instructions {
            argv: reader.list(Reader::string)?,
            env: Secret::new(reader.list(|reader| Some((reader.string()?, reader.string()?)))?),
            cwd: reader.string()?,
            uid: reader.u32()?,
            gid: reader.u32()?,
            groups: reader.list(Reader::u32)?,
            hostname: reader.string()?,
            private_network: reader.claim()?,
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
            insecure: reader.claim()?,
            mounts: reader.list(|reader| {
                Some(PlannedMount {
                    target: reader.string()?,
                    source: PlannedSource::read(reader)?,
                })
            })?,
            devices: reader.list(read_device)?,
            emulators: reader.list(Reader::string)?,
        })
    }
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

    fn write(&self, writer: &mut Writer) {
        match self {
            PlannedSource::Tree {
                is_directory,
                read_only,
            } => {
                writer.0.push(1);
                writer.claim(*is_directory);
                writer.claim(*read_only);
            }
            PlannedSource::Tmpfs { size } => {
                writer.0.push(2);
                writer.option(*size, Writer::u64);
            }
            PlannedSource::File {
                content,
                mode,
                uid,
                gid,
            } => {
                writer.0.push(3);
                writer.bytes(content.reveal());
                writer.u32(*mode);
                writer.u32(*uid);
                writer.u32(*gid);
            }
        }
    }

    fn read(reader: &mut Reader<'_>) -> Option<PlannedSource> {
        Some(match reader.byte()? {
            1 => PlannedSource::Tree {
                is_directory: reader.claim()?,
                read_only: reader.claim()?,
            },
            2 => PlannedSource::Tmpfs {
                size: reader.option(Reader::u64)?,
            },
            3 => PlannedSource::File {
                content: Secret::new(reader.bytes()?.to_vec()),
                mode: reader.u32()?,
                uid: reader.u32()?,
                gid: reader.u32()?,
            },
            _ => return None,
        })
    }
}

fn write_device(writer: &mut Writer, device: &DeviceNode) {
    writer.bytes(device.source.as_os_str().as_bytes());
    writer.bytes(device.path.as_bytes());
    writer.claim(device.permissions.read);
    writer.claim(device.permissions.write);
    writer.claim(device.permissions.mknod);
    for number in [device.uid, device.gid, device.mode] {
        writer.option(number, Writer::u32);
    }
}

fn read_device(reader: &mut Reader<'_>) -> Option<DeviceNode> {
    Some(DeviceNode {
        source: Path::new(OsStr::from_bytes(reader.bytes()?)).to_owned(),
        path: reader.string()?,
        permissions: DevicePermissions {
            read: reader.claim()?,
            write: reader.claim()?,
            mknod: reader.claim()?,
        },
        uid: reader.option(Reader::u32)?,
        gid: reader.option(Reader::u32)?,
        mode: reader.option(Reader::u32)?,
    })
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

    fn example() -> Instructions {
        Instructions {
            argv: vec!["sh".into(), "-c".into(), "echo ä".into()],
            env: Secret::new(vec![
                ("PATH".into(), "/bin".into()),
                ("EMPTY".into(), String::new()),
            ]),
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
            insecure: true,
            mounts: vec![
                PlannedMount {
                    target: "/dev/pipes/EOF".into(),
                    source: PlannedSource::File {
                        content: Secret::new(b"s3cret".to_vec()),
                        mode: 0o755,
                        uid: 1,
                        gid: 2,
                    },
                },
                PlannedMount {
                    target: "/t".into(),
                    source: PlannedSource::Tmpfs { size: Some(9) },
                },
                PlannedMount {
                    target: "/b".into(),
                    source: PlannedSource::Tree {
                        is_directory: true,
                        read_only: false,
                    },
                },
            ],
            devices: vec![DeviceNode {
                source: "/dev/fuse".into(),
                path: "/dev/fuse".into(),
                permissions: DevicePermissions {
                    read: true,
                    write: false,
                    mknod: true,
                },
                uid: Some(1),
                gid: None,
                mode: Some(0o600),
            }],
            emulators: vec!["arm64".into()],
        }
    }

    fn orders() -> [Order; 3] {
        [
            Order::TryEmulation,
            Order::Run(Box::new(example())),
            Order::Run(Box::default()),
        ]
    }

    #[test]
    fn orders_survive_the_wire() {
        for order in orders() {
            assert_eq!(Order::decode(&order.encode()), Some(order));
        }
    }

    #[test]
    fn torn_orders_are_none() {
        for order in orders() {
            let bytes = order.encode();
            for length in 0..bytes.len() {
                assert_eq!(Order::decode(&bytes[..length]), None, "{length}");
            }
            let mut longer = bytes;
            longer.push(0);
            assert_eq!(Order::decode(&longer), None);
        }
    }

    #[test]
    fn secrets_are_not_in_debug_output() {
        let printed = format!("{:?}", example());
        assert!(printed.contains("/dev/pipes/EOF"), "{printed}");
        assert!(
            !printed.contains("s3cret") && !printed.contains("115, 51"),
            "{printed}"
        );
        assert!(!printed.contains("EMPTY"), "{printed}");
    }

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
