//! Resource limits (`--ulimit`).

use rustix::io::Errno;

use crate::vocab::Ulimit;

use super::error::RunError;
use super::report::{At, Failure, Stage};

/// One limit by the kernel's number. `u64::MAX` is "unlimited", as it is for the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limit {
    pub(super) resource: u32,
    pub(super) soft: u64,
    pub(super) hard: u64,
}

/// The names that Docker takes, and `as`, with the numbers of the kernel's generic table.
const NAMES: [(&str, u32); 16] = [
    ("as", 9),
    ("core", 4),
    ("cpu", 0),
    ("data", 2),
    ("fsize", 1),
    ("locks", 10),
    ("memlock", 8),
    ("msgqueue", 12),
    ("nice", 13),
    ("nofile", 7),
    ("nproc", 6),
    ("rss", 5),
    ("rtprio", 14),
    ("rttime", 15),
    ("sigpending", 11),
    ("stack", 3),
];

/// Looks up the names.
pub(super) fn resolve(ulimits: &[Ulimit]) -> Result<Vec<Limit>, RunError> {
    ulimits
        .iter()
        .map(|ulimit| {
            let (_, resource) = NAMES
                .iter()
                .find(|(name, _)| *name == ulimit.name)
                .ok_or_else(|| {
                    RunError::Spec(format!("no such resource limit: `{}`", ulimit.name))
                })?;
            Ok(Limit {
                resource: *resource,
                soft: ulimit.soft,
                hard: ulimit.hard,
            })
        })
        .collect()
}

/// The limit that carries a supervised process's credentials.
pub(super) const LOCKS: u32 = libc::RLIMIT_LOCKS;

/// Sets the limits of this process. What may not be raised stays at the present hard limit.
pub(super) fn apply(limits: &[Limit]) -> Result<(), Failure> {
    for limit in limits {
        let result = match set(limit) {
            Err(Errno::PERM) => get(limit.resource).and_then(|(_, hard)| {
                set(&Limit {
                    hard: limit.hard.min(hard),
                    soft: limit.soft.min(limit.hard).min(hard),
                    ..*limit
                })
            }),
            other => other,
        };
        let name = NAMES
            .iter()
            .find(|(_, resource)| *resource == limit.resource)
            .map_or("", |(name, _)| name);
        result.at(Stage::Limits, name)?;
    }
    Ok(())
}

fn set(limit: &Limit) -> Result<(), Errno> {
    let new = libc::rlimit64 {
        rlim_cur: limit.soft,
        rlim_max: limit.hard,
    };
    prlimit(limit.resource, &raw const new, std::ptr::null_mut())
}

fn get(resource: u32) -> Result<(u64, u64), Errno> {
    let mut old = libc::rlimit64 {
        rlim_cur: 0,
        rlim_max: 0,
    };
    prlimit(resource, std::ptr::null(), &raw mut old)?;
    Ok((old.rlim_cur, old.rlim_max))
}

/// The system call itself, on this process: the C library's wrapper would turn `u64::MAX` of other resources about.
fn prlimit(
    resource: u32,
    new: *const libc::rlimit64,
    old: *mut libc::rlimit64,
) -> Result<(), Errno> {
    // SAFETY: `set` and `get`, the only callers, pass null or a pointer to a live, initialised local of the very type that
    // the kernel reads or writes (two u64).
    let result = unsafe { libc::syscall(libc::SYS_prlimit64, 0, resource, new, old) };
    if result < 0 {
        let error = std::io::Error::last_os_error();
        return Err(Errno::from_io_error(&error).unwrap_or(Errno::IO));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_looked_up() {
        let ulimit = |name: &str| Ulimit {
            name: name.into(),
            soft: 1,
            hard: 2,
        };
        let limits = resolve(&[ulimit("nofile"), ulimit("core")]).unwrap();
        assert_eq!(
            limits
                .iter()
                .map(|limit| limit.resource)
                .collect::<Vec<_>>(),
            [7, 4]
        );
        assert!(resolve(&[ulimit("files")]).is_err());
    }
}
