//! Why there is no group for a command.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Why commands cannot be limited, or not as was asked.
#[derive(Debug, Error)]
pub enum GroupError {
    #[error(
        "the controller `{controller}` is not there: it is not mounted, or the kernel is without it"
    )]
    NotMounted { controller: &'static str },
    #[error("the builder's own control group cannot be seen below `{mount}`")]
    Invisible { mount: PathBuf },
    #[error("control groups cannot be made in `{path}`")]
    Denied { path: PathBuf, source: io::Error },
    #[error("other processes are in the builder's control group `{path}`")]
    Occupied { path: PathBuf },
    #[error("control group `{path}` was not given the controller `{controller}`")]
    NotGiven {
        controller: &'static str,
        path: PathBuf,
    },
    #[error("not the name of a control group: `{name}`")]
    Name { name: String },
    /// The value is at fault, not the machine.
    #[error("{what} cannot be `{value}` here")]
    Refused {
        what: &'static str,
        value: String,
        source: io::Error,
    },
    #[error("cannot set {what}")]
    NoSetting {
        what: &'static str,
        source: io::Error,
    },
    #[error("cannot write `{path}`")]
    Write { path: PathBuf, source: io::Error },
}

impl GroupError {
    /// Returns what would make it work.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            GroupError::NotMounted { controller } if *controller == "memory" => {
                "some systems start without it: boot with `cgroup_enable=memory`; in a container it is the host's to give"
                    .to_owned()
            }
            GroupError::NotMounted { .. } | GroupError::Name { .. } => return None,
            GroupError::Occupied { .. } => {
                "start the builder in a group of its own: `systemd-run --user --scope -p Delegate=yes builder build …`, or in \
                 a container as its only process (`exec builder build …`)"
                    .to_owned()
            }
            GroupError::Denied { .. }
            | GroupError::Invisible { .. }
            | GroupError::NotGiven { .. }
            | GroupError::Write { .. } => {
                "limit the whole build instead: `systemd-run --user --scope -p MemoryMax=4G builder build …`, or the limits of \
                 the container that it runs in"
                    .to_owned()
            }
            GroupError::Refused { .. } => {
                "a limit must be within what the builder itself has".to_owned()
            }
            GroupError::NoSetting { .. } => return None,
        })
    }
}
