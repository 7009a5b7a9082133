//! How init tells the builder what came of it: one report per run, or silence if it was killed.
//!
//! ```text
//! u8 kind | u8 stage | i32 number, little-endian | detail: text to the end
//!   1 failed   stage, errno, what the stage was busy with
//!   2 command  stage = kind of failure, errno
//!   3 exited   number = exit code
//!   4 signal   number = signal
//! ```

use std::io;

use rustix::io::Errno;

use super::error::RunError;
use super::spec::{Exit, RunSpec};

/// What init does, in the words that follow "cannot".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Stage {
    Instructions,
    Namespaces,
    MountPoints,
    Fork,
    Private,
    Root,
    Proc,
    Sys,
    Dev,
    Device,
    Files,
    Mounts,
    ReadOnlyMount,
    MountInProc,
    MountOnRoot,
    Hide,
    Pivot,
    Loopback,
    Streams,
    Limits,
    Capabilities,
    Filter,
    Identity,
    WorkingDirectory,
    Parent,
    UserNamespace,
    Instance,
    Emulator,
    Errand,
    Supervision,
    Landlock,
    Ledger,
}

impl Stage {
    const ALL: [Stage; 32] = [
        Stage::Instructions,
        Stage::Namespaces,
        Stage::MountPoints,
        Stage::Fork,
        Stage::Private,
        Stage::Root,
        Stage::Proc,
        Stage::Sys,
        Stage::Dev,
        Stage::Device,
        Stage::Files,
        Stage::Mounts,
        Stage::ReadOnlyMount,
        Stage::MountInProc,
        Stage::MountOnRoot,
        Stage::Hide,
        Stage::Pivot,
        Stage::Loopback,
        Stage::Streams,
        Stage::Limits,
        Stage::Capabilities,
        Stage::Filter,
        Stage::Identity,
        Stage::WorkingDirectory,
        Stage::Parent,
        Stage::UserNamespace,
        Stage::Instance,
        Stage::Emulator,
        Stage::Errand,
        Stage::Supervision,
        Stage::Landlock,
        Stage::Ledger,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Stage::Instructions => "receive the instructions",
            Stage::Namespaces => "create namespaces",
            Stage::MountPoints => "make a mount point",
            Stage::Fork => "fork",
            Stage::Private => "prepare the private file system",
            Stage::Root => "attach the root file system",
            Stage::Proc => "mount /proc",
            Stage::Sys => "mount /sys",
            Stage::Dev => "mount /dev",
            Stage::Device => "give the command a device",
            Stage::Files => "mount a file",
            Stage::Mounts => "mount",
            Stage::ReadOnlyMount => "make a mount point in a read-only mount",
            Stage::MountInProc => "mount in /proc",
            Stage::MountOnRoot => "mount on the root",
            Stage::Hide => "hide a kernel interface",
            Stage::Pivot => "change the root directory",
            Stage::Loopback => "bring up the loopback interface",
            Stage::Streams => "connect the standard streams",
            Stage::Limits => "set a resource limit",
            Stage::Capabilities => "drop capabilities",
            Stage::Filter => "install the system call filter",
            Stage::Identity => "change user and group",
            Stage::WorkingDirectory => "change to the working directory",
            Stage::Parent => "tie the command to its parent",
            Stage::UserNamespace => "create a user namespace for emulation",
            Stage::Instance => "mount a binfmt_misc of its own for emulation",
            Stage::Emulator => "register an emulator",
            Stage::Errand => "reach the other half of init",
            Stage::Landlock => "confine the command with Landlock",
            Stage::Supervision => "supervise the command",
            Stage::Ledger => "pass on what the files are",
        }
    }
}

/// One failed stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) stage: Stage,
    pub(super) detail: String,
    pub(super) errno: i32,
}

impl Failure {
    /// Says it without a command.
    pub(super) fn into_setup(self) -> RunError {
        RunError::Setup {
            stage: self.stage.name(),
            detail: self.detail,
            source: io::Error::from_raw_os_error(self.errno),
        }
    }
}

/// Names the stage in which a call failed.
pub(super) trait At<T> {
    fn at(self, stage: Stage, detail: &str) -> Result<T, Failure>;
}

impl<T> At<T> for Result<T, Errno> {
    fn at(self, stage: Stage, detail: &str) -> Result<T, Failure> {
        self.map_err(|errno| Failure {
            stage,
            detail: detail.to_owned(),
            errno: errno.raw_os_error(),
        })
    }
}

impl<T> At<T> for io::Result<T> {
    fn at(self, stage: Stage, detail: &str) -> Result<T, Failure> {
        self.map_err(|error| Failure {
            stage,
            detail: detail.to_owned(),
            errno: error.raw_os_error().unwrap_or(libc::EIO),
        })
    }
}

/// Why `execve` was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum NoCommand {
    NotFound,
    NoInterpreter,
    Refused,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Report {
    Failed(Failure),
    NoCommand { kind: NoCommand, errno: i32 },
    Exited(i32),
    Signalled(i32),
}

impl Report {
    /// Bytes of text that one report carries at most; a pipe takes the whole of it in one write.
    const DETAIL: usize = 2048;

    pub(super) fn encode(&self) -> Vec<u8> {
        let (kind, stage, number, detail) = match self {
            Report::Failed(failure) => (
                1,
                failure.stage as u8,
                failure.errno,
                failure.detail.as_bytes(),
            ),
            Report::NoCommand { kind, errno } => (2, *kind as u8, *errno, &[][..]),
            Report::Exited(code) => (3, 0, *code, &[][..]),
            Report::Signalled(signal) => (4, 0, *signal, &[][..]),
        };
        let mut bytes = vec![kind, stage];
        bytes.extend_from_slice(&number.to_le_bytes());
        bytes.extend_from_slice(&detail[..detail.len().min(Report::DETAIL)]);
        bytes
    }

    /// Returns `None` for anything that [`Report::encode`] does not make.
    pub(super) fn decode(bytes: &[u8]) -> Option<Report> {
        let (&[kind, stage], rest) = bytes.split_first_chunk()?;
        let (number, detail) = rest.split_first_chunk()?;
        let number = i32::from_le_bytes(*number);
        Some(match kind {
            1 => Report::Failed(Failure {
                stage: *Stage::ALL.get(usize::from(stage))?,
                detail: String::from_utf8_lossy(detail).into_owned(),
                errno: number,
            }),
            2 => Report::NoCommand {
                kind: match stage {
                    0 => NoCommand::NotFound,
                    1 => NoCommand::NoInterpreter,
                    2 => NoCommand::Refused,
                    _ => return None,
                },
                errno: number,
            },
            3 => Report::Exited(number),
            4 => Report::Signalled(number),
            _ => return None,
        })
    }

    /// Says it in the words of [`run`](super::run).
    pub(super) fn into_result(self, spec: &RunSpec) -> Result<Exit, RunError> {
        match self {
            Report::Exited(code) => Ok(Exit::Code(code)),
            Report::Signalled(signal) => Ok(Exit::Signal(signal)),
            Report::Failed(failure) => {
                let source = io::Error::from_raw_os_error(failure.errno);
                let target = |why: &str| RunError::MountTarget {
                    target: failure.detail.clone(),
                    why: why.to_owned(),
                };
                Err(match failure.stage {
                    Stage::Mounts => RunError::Mount {
                        target: failure.detail,
                        source,
                    },
                    Stage::ReadOnlyMount => {
                        let (target, mount) = failure.detail.split_once('\0').unwrap_or_default();
                        RunError::MountTarget {
                            target: target.to_owned(),
                            why: format!(
                                "it does not exist and cannot be made, since it is in `{mount}`, which is mounted read-only"
                            ),
                        }
                    }
                    Stage::MountInProc => target("it is in /proc"),
                    Stage::MountOnRoot => target("it is the root"),
                    Stage::WorkingDirectory => RunError::WorkingDirectory {
                        path: spec.cwd.clone(),
                        source,
                    },
                    Stage::Identity => RunError::Identity {
                        uid: spec.uid,
                        gid: spec.gid,
                        source,
                    },
                    _ => failure.into_setup(),
                })
            }
            Report::NoCommand { kind, errno } => {
                let program = spec.argv[0].clone();
                Err(match kind {
                    NoCommand::NotFound => RunError::NotFound { program },
                    NoCommand::NoInterpreter => RunError::NoInterpreter { program },
                    NoCommand::Refused => RunError::Exec {
                        program,
                        source: io::Error::from_raw_os_error(errno),
                    },
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_report_survives_the_wire() {
        for stage in Stage::ALL {
            let report = Report::Failed(Failure {
                stage,
                detail: "/dev/null".to_owned(),
                errno: 13,
            });
            assert_eq!(Report::decode(&report.encode()), Some(report));
            assert!(!stage.name().is_empty());
        }
        for report in [
            Report::NoCommand {
                kind: NoCommand::NotFound,
                errno: 2,
            },
            Report::NoCommand {
                kind: NoCommand::NoInterpreter,
                errno: 2,
            },
            Report::NoCommand {
                kind: NoCommand::Refused,
                errno: 8,
            },
            Report::Exited(255),
            Report::Signalled(9),
        ] {
            assert_eq!(Report::decode(&report.encode()), Some(report));
        }
    }

    #[test]
    fn a_torn_or_strange_report_is_none() {
        for bytes in [
            &b""[..],
            &[1],
            &[1, 0, 0, 0, 0],
            &[9, 0, 0, 0, 0, 0],
            &[1, 200, 0, 0, 0, 0],
            &[2, 3, 0, 0, 0, 0],
        ] {
            assert_eq!(Report::decode(bytes), None, "{bytes:?}");
        }
    }
}
