//! How commands are confined, and how the files of a root are kept: two choices, each made by what a machine allows.

use std::fmt;
use std::str::FromStr;

use super::Ownership;

/// A way to confine commands. Each needs less than the one before and gives less, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rung {
    /// Root with CAP_SYS_ADMIN, in namespaces of its own. Ids are those of the machine, or of the surrounding container.
    Ns,
    /// Root without it, in a user namespace that has all ids which this process sees.
    NsFull,
    /// An ordinary user in a user namespace, whose ids are the user's own as 0 and the subordinate ones from 1 on.
    NsSub,
    /// A user namespace with one id. What files are in the image is kept in a ledger.
    NsOne,
    /// Root without namespaces: a change of the root directory, and a supervisor for what cannot be mounted.
    Chroot,
    /// Nothing at all: a supervisor performs what names a path.
    Paths,
}

impl Rung {
    /// In the order in which they are tried.
    pub const ALL: [Rung; 6] = [
        Rung::Ns,
        Rung::NsFull,
        Rung::NsSub,
        Rung::NsOne,
        Rung::Chroot,
        Rung::Paths,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Rung::Ns => "ns",
            Rung::NsFull => "ns-full",
            Rung::NsSub => "ns-sub",
            Rung::NsOne => "ns-one",
            Rung::Chroot => "chroot",
            Rung::Paths => "paths",
        }
    }

    /// Returns where the truth about files is.
    pub fn ownership(self) -> Ownership {
        match self {
            Rung::Ns => Ownership::OnDisk,
            Rung::NsFull | Rung::NsSub => Ownership::DevicesInLedger,
            Rung::NsOne | Rung::Chroot | Rung::Paths => Ownership::InLedger,
        }
    }

    /// Tells whether commands have namespaces of their own, mounts above all.
    pub fn has_namespaces(self) -> bool {
        match self {
            Rung::Ns | Rung::NsFull | Rung::NsSub | Rung::NsOne => true,
            Rung::Chroot | Rung::Paths => false,
        }
    }
}

impl fmt::Display for Rung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Rung {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Rung, UnknownName> {
        Rung::ALL
            .into_iter()
            .find(|rung| rung.name() == text)
            .ok_or_else(|| UnknownName(text.to_owned()))
    }
}

/// How the root of a step is put together from layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StorageDriver {
    /// Layer directories stacked by overlayfs.
    Overlay,
    /// One plain directory, changed in place.
    Tree,
}

impl StorageDriver {
    pub const ALL: [StorageDriver; 2] = [StorageDriver::Overlay, StorageDriver::Tree];

    pub fn name(self) -> &'static str {
        match self {
            StorageDriver::Overlay => "overlay",
            StorageDriver::Tree => "tree",
        }
    }
}

impl fmt::Display for StorageDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for StorageDriver {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<StorageDriver, UnknownName> {
        StorageDriver::ALL
            .into_iter()
            .find(|driver| driver.name() == text)
            .ok_or_else(|| UnknownName(text.to_owned()))
    }
}

/// What commands must be kept from (`--require-isolation`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RequiredIsolation {
    /// Whatever the machine can give.
    #[default]
    Any,
    /// Everything: namespaces, system call filter, other people's sockets.
    Strict,
}

/// A name that means nothing here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown name `{0}`")]
pub struct UnknownName(pub String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for rung in Rung::ALL {
            assert_eq!(rung.to_string().parse(), Ok(rung));
        }
        for driver in StorageDriver::ALL {
            assert_eq!(driver.to_string().parse(), Ok(driver));
        }
        for name in ["", "NS", "auto", "ns_one"] {
            assert_eq!(name.parse::<Rung>(), Err(UnknownName(name.to_owned())));
        }
    }

    #[test]
    fn one_id_needs_a_ledger() {
        let in_ledger: Vec<_> = Rung::ALL
            .into_iter()
            .filter(|rung| rung.ownership() == Ownership::InLedger)
            .collect();
        assert_eq!(in_ledger, [Rung::NsOne, Rung::Chroot, Rung::Paths]);
        let of_devices = Rung::ALL
            .into_iter()
            .filter(|rung| rung.ownership() == Ownership::DevicesInLedger);
        assert!(of_devices.eq([Rung::NsFull, Rung::NsSub]));
    }
}
