//! What init is told, and how it crosses to it.
//!
//! ```text
//! order: u8 0, or 1 and the instructions                                                  (see `wire` for the pieces)
//! instructions: argv | env (name, value) | cwd | uid | gid | groups | hostname | private network | resolv.conf | hosts
//!               | u64 shm size | limits (u32 resource, u64 soft, u64 hard) | insecure | mounts | devices | emulators
//!               | u8 0 no input, 1 input, 2 a terminal
//!               | u8 0 not supervised, 1 light, 2 full, 3 devices, 4 devices shown | u8 0 not bare, 1 outside, 2 inside of its root
//! mount:  target | u8 1, directory, read-only  or  u8 2, size or none  or  u8 3, content, mode, uid, gid
//! device: source | path | read | write | mknod | uid, gid, mode or none
//! emulator: architecture
//! descriptors, in this order: root, stdout, stderr, stdin if there is one, one for each tree among the mounts, one for each emulator,
//! the ledger of a supervised command, the directory of a bare one
//! ```

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::vocab::Secret;

use super::dialogue::Input;
use super::instructions::{Bare, Instructions, PlannedMount, PlannedSource};
use super::limits::Limit;
use super::spec::{DeviceNode, DevicePermissions};
use super::supervise::Mode;
use super::wire::{Reader, Writer};

/// What init is started for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// To find out whether emulators work.
    TryEmulation,
    Run(Box<Instructions>),
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
        writer.0.push(match self.input {
            Input::Nothing => 0,
            Input::Given => 1,
            Input::Terminal => 2,
        });
        writer.0.push(match self.supervised {
            None => 0,
            Some(Mode::Light) => 1,
            Some(Mode::Full) => 2,
            Some(Mode::Devices) => 3,
            Some(Mode::DevicesShown) => 4,
        });
        writer.0.push(match self.bare {
            None => 0,
            Some(Bare::Outside) => 1,
            Some(Bare::Inside) => 2,
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
            input: match reader.byte()? {
                0 => Input::Nothing,
                1 => Input::Given,
                2 => Input::Terminal,
                _ => return None,
            },
            supervised: match reader.byte()? {
                0 => None,
                1 => Some(Mode::Light),
                2 => Some(Mode::Full),
                3 => Some(Mode::Devices),
                4 => Some(Mode::DevicesShown),
                _ => return None,
            },
            bare: match reader.byte()? {
                0 => None,
                1 => Some(Bare::Outside),
                2 => Some(Bare::Inside),
                _ => return None,
            },
        })
    }
}

impl PlannedSource {
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
            supervised: Some(Mode::Light),
            bare: Some(Bare::Inside),
            input: Input::Terminal,
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
}
