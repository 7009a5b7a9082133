//! What the surroundings say about themselves, for whoever wants to know why a rung is refused. Nothing is decided by it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::process::{getgid, getuid};
use rustix::thread::{CapabilitySet, capabilities, capability_is_in_bounding_set};

use super::subordinate::{GIDS, Ids, UIDS};

/// What is known about the surroundings.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Release, such as `6.1.0-18-amd64`.
    pub kernel: String,
    pub machine: &'static str,
    pub uid: u32,
    pub gid: u32,
    /// As /etc/passwd names the user.
    pub user: Option<String>,
    /// How many user ids this process sees; all there are, outside of any user namespace.
    pub ids: u64,
    /// Names without `CAP_`.
    pub capabilities: Vec<String>,
    /// What a set-user-ID program could gain.
    pub bounding: Vec<String>,
    /// Filters that every call passes: 0 for none.
    pub seccomp_filters: u32,
    pub no_new_privileges: bool,
    /// In the order of the kernel; empty if it does not tell.
    pub security_modules: Vec<String>,
    /// The AppArmor profile or SELinux context of this process.
    pub security_label: Option<String>,
    pub max_user_namespaces: Option<u64>,
    /// Debian's switch.
    pub unprivileged_userns_clone: Option<bool>,
    /// Ubuntu's switch.
    pub apparmor_restricts_userns: Option<bool>,
    /// Yama: who may trace whom.
    pub ptrace_scope: Option<u32>,
    /// Subordinate ids of this user: users, groups.
    pub subordinate: (u64, u64),
    pub map_programs: Vec<MapProgram>,
    pub surroundings: Surroundings,
}

/// `newuidmap` or `newgidmap`.
#[derive(Clone, Debug)]
pub struct MapProgram {
    pub name: &'static str,
    pub found: Option<(PathBuf, MapPower)>,
}

/// Where a map program has its power from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapPower {
    SetUserId,
    FileCapability,
    None,
}

/// What is around this process, as far as it shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Surroundings {
    /// No container that could be recognised.
    Host,
    Docker,
    Podman,
    Kubernetes,
    /// A container of another kind.
    Container,
}

impl Facts {
    /// Looks around.
    pub fn gather() -> Facts {
        let status = read("/proc/self/status");
        let (uid, gid) = (getuid().as_raw(), getgid().as_raw());
        let ids = Ids::of(uid, gid);
        let subordinate = ids.as_ref().map_or((0, 0), |ids| {
            let sum = |ranges: &[super::subordinate::Range]| {
                ranges.iter().map(|range| u64::from(range.count)).sum()
            };
            (sum(&ids.uids), sum(&ids.gids))
        });
        Facts {
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            machine: std::env::consts::ARCH,
            uid,
            gid,
            user: super::subordinate::user_name(&read("/etc/passwd"), uid),
            ids: mapped(&read("/proc/self/uid_map")),
            capabilities: capabilities(None)
                .map(|sets| names(sets.effective))
                .unwrap_or_default(),
            bounding: names(bounding()),
            seccomp_filters: filters(&status),
            no_new_privileges: field(&status, "NoNewPrivs").is_some_and(|value| value == "1"),
            security_modules: read("/sys/kernel/security/lsm")
                .split(',')
                .map(str::trim)
                .filter(|name| !name.is_empty())
                .map(str::to_owned)
                .collect(),
            security_label: label(&read("/proc/self/attr/current")),
            max_user_namespaces: number("/proc/sys/user/max_user_namespaces"),
            unprivileged_userns_clone: number("/proc/sys/kernel/unprivileged_userns_clone")
                .map(|value| value != 0),
            apparmor_restricts_userns: number(
                "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
            )
            .map(|value| value != 0),
            ptrace_scope: number("/proc/sys/kernel/yama/ptrace_scope")
                .and_then(|value| u32::try_from(value).ok()),
            subordinate,
            map_programs: [UIDS, GIDS]
                .map(|name| MapProgram {
                    name,
                    found: find(name),
                })
                .to_vec(),
            surroundings: Surroundings::guess(&|path| Path::new(path).exists(), &|name| {
                std::env::var(name).ok()
            }),
        }
    }

    /// Tells whether this process is user 0.
    pub fn is_root(&self) -> bool {
        self.uid == 0
    }
}

impl Surroundings {
    fn guess(
        exists: &dyn Fn(&str) -> bool,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Surroundings {
        if variable("KUBERNETES_SERVICE_HOST").is_some() || exists("/var/run/secrets/kubernetes.io")
        {
            return Surroundings::Kubernetes;
        }
        if exists("/run/.containerenv") {
            return Surroundings::Podman;
        }
        if exists("/.dockerenv") {
            return Surroundings::Docker;
        }
        match variable("container").as_deref() {
            None | Some("") => Surroundings::Host,
            Some("podman") => Surroundings::Podman,
            Some("docker") => Surroundings::Docker,
            Some(_) => Surroundings::Container,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Surroundings::Host => "host",
            Surroundings::Docker => "docker",
            Surroundings::Podman => "podman",
            Surroundings::Kubernetes => "kubernetes",
            Surroundings::Container => "container",
        }
    }
}

/// What cannot be read says nothing.
fn read(path: &str) -> String {
    fs::read(path)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default()
}

fn number(path: &str) -> Option<u64> {
    read(path).trim().parse().ok()
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .map(str::trim)
}

/// Returns the number of filters; kernels before 5.9 tell only whether there are some.
fn filters(status: &str) -> u32 {
    let parsed = |name| field(status, name).and_then(|value| value.parse().ok());
    match parsed("Seccomp_filters") {
        Some(count) => count,
        None => u32::from(parsed("Seccomp") == Some(2)),
    }
}

/// Returns how many ids a map has.
fn mapped(map: &str) -> u64 {
    map.lines()
        .filter_map(|line| line.split_whitespace().nth(2)?.parse::<u64>().ok())
        .sum()
}

fn label(text: &str) -> Option<String> {
    let text = text.trim_matches(['\0', '\n', ' ']);
    (!text.is_empty()).then(|| text.to_owned())
}

fn bounding() -> CapabilitySet {
    (0..u64::BITS)
        .map(|number| CapabilitySet::from_bits_retain(1 << number))
        .filter(|capability| capability_is_in_bounding_set(*capability).unwrap_or(false))
        .collect()
}

fn names(set: CapabilitySet) -> Vec<String> {
    set.iter_names().map(|(name, _)| name.to_owned()).collect()
}

/// Finds a map program as [`enter`](super::enter()) does.
fn find(name: &'static str) -> Option<(PathBuf, MapPower)> {
    let path = std::env::split_paths(&super::helper::search_path())
        .map(|directory| directory.join(name))
        .find(|path| path.is_file())?;
    let mode = fs::metadata(&path).ok()?.permissions().mode();
    let power = if mode & 0o4000 != 0 {
        MapPower::SetUserId
    } else if rustix::fs::getxattr(&path, "security.capability", &mut [0_u8; 64][..]).is_ok() {
        MapPower::FileCapability
    } else {
        MapPower::None
    };
    Some((path, power))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn surroundings_are_told_by_what_they_leave() {
        for (files, variables, expected) in [
            (&[][..], &[][..], Surroundings::Host),
            (&["/.dockerenv"], &[], Surroundings::Docker),
            (&["/run/.containerenv"], &[], Surroundings::Podman),
            (
                &["/.dockerenv"],
                &["KUBERNETES_SERVICE_HOST"],
                Surroundings::Kubernetes,
            ),
            (
                &["/var/run/secrets/kubernetes.io"],
                &[],
                Surroundings::Kubernetes,
            ),
            (&[], &["container"], Surroundings::Container),
        ] {
            let guessed = Surroundings::guess(&|path| files.contains(&path), &|name| {
                variables.contains(&name).then(|| "x".to_owned())
            });
            assert_eq!(guessed, expected, "{files:?} {variables:?}");
        }
    }

    #[test]
    fn fields_of_the_kernel_are_read() {
        let status = "Name:\tx\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t3\n";
        assert_eq!(field(status, "NoNewPrivs"), Some("1"));
        assert_eq!(filters(status), 3);
        assert_eq!(filters("Seccomp:\t2\n"), 1);
        assert_eq!(filters("Seccomp:\t0\n"), 0);
        assert_eq!(mapped("0 1000 1\n1 100000 65536\n"), 65537);
        assert_eq!(mapped(""), 0);
        assert_eq!(label("unconfined\n\0").as_deref(), Some("unconfined"));
        assert_eq!(label("\n"), None);
    }
}
