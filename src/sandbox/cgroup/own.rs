//! What the builder itself may use, by its control group and all above it that can be seen.
//!
//! Only quotas and limits: which processors there are at all is the affinity mask's to say, which contains the sets of control
//! groups.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::error::GroupError;
use super::hierarchy::{Controller, Hierarchies, Hierarchy, Version};
use super::place;

/// What the builder's control groups leave to it, and whether it can limit commands in turn.
#[derive(Debug)]
pub struct Limits {
    /// Processors' worth of time; `None` without a quota.
    pub cpus: Option<f64>,
    /// Bytes; `None` without a limit.
    pub memory: Option<u64>,
    /// Whether a command can have a memory and a CPU limit. Tells by looking; nothing is made.
    pub can_limit_steps: Result<(), GroupError>,
}

/// Reads what binds this process. Ask once: it reads files.
pub fn own_limits() -> Limits {
    let hierarchies = Hierarchies::of_this_process();
    Limits {
        cpus: quota(&hierarchies),
        memory: memory(&hierarchies),
        can_limit_steps: [Controller::Memory, Controller::Cpu]
            .into_iter()
            .try_for_each(|controller| place::look(&hierarchies, controller).map(drop)),
    }
}

pub(in crate::sandbox) fn processor_quota() -> Option<f64> {
    at_start().0
}

pub(in crate::sandbox) fn memory_limit() -> Option<u64> {
    at_start().1
}

/// Quota and limit as they were when they were first asked for.
fn at_start() -> (Option<f64>, Option<u64>) {
    static AT_START: OnceLock<(Option<f64>, Option<u64>)> = OnceLock::new();
    *AT_START.get_or_init(|| {
        let hierarchies = Hierarchies::of_this_process();
        (quota(&hierarchies), memory(&hierarchies))
    })
}

/// Returns how many processes of the builder's control group were killed because memory ran out; only the difference of two
/// answers means something. `None` where nobody counts.
pub fn oom_kills() -> Option<u64> {
    // Where it was at first: it may move itself into a group below, whose parent counts too.
    static COUNTER: OnceLock<Option<PathBuf>> = OnceLock::new();
    let counter = COUNTER.get_or_init(|| {
        let hierarchies = Hierarchies::of_this_process();
        let hierarchy = hierarchies.of(Controller::Memory)?;
        Some(oom_counter(hierarchy.levels().next()?, hierarchy.version))
    });
    counted(counter.as_deref()?)
}

/// The file that counts for a group.
pub(super) fn oom_counter(group: &Path, version: Version) -> PathBuf {
    group.join(match version {
        Version::One => "memory.oom_control",
        Version::Two => "memory.events",
    })
}

pub(super) fn counted(counter: &Path) -> Option<u64> {
    field(&fs::read_to_string(counter).ok()?, "oom_kill")
}

/// Memory is charged in batches, for each processor: a peak may stay that far below its limit.
const CHARGE: u64 = 1 << 20;

/// Tells whether a group came to its own memory limit.
pub(super) fn reached_limit(group: &Path, version: Version) -> bool {
    match version {
        // By the peaks of memory and of memory and swap: kernels of today do not count the failures.
        Version::One => ["memory", "memory.memsw"].into_iter().any(|kind| {
            let number = |name| text(group, &format!("{kind}.{name}"))?.parse::<u64>().ok();
            number("max_usage_in_bytes")
                .zip(number("limit_in_bytes"))
                .is_some_and(|(peak, limit)| peak.saturating_add(CHARGE) >= limit)
        }),
        Version::Two => {
            text(group, "memory.events").is_some_and(|text| field(&text, "oom") != Some(0))
        }
    }
}

/// The smallest quota on the way up.
fn quota(hierarchies: &Hierarchies) -> Option<f64> {
    let hierarchy = hierarchies.of(Controller::Cpu)?;
    hierarchy
        .levels()
        .filter_map(|group| quota_of(group, hierarchy.version))
        .min_by(f64::total_cmp)
}

fn quota_of(group: &Path, version: Version) -> Option<f64> {
    let (quota, period) = match version {
        Version::One => (
            text(group, "cpu.cfs_quota_us")?,
            text(group, "cpu.cfs_period_us")?,
        ),
        Version::Two => {
            let both = text(group, "cpu.max")?;
            let (quota, period) = both.split_once(' ')?;
            (quota.to_owned(), period.to_owned())
        }
    };
    // "max" and -1 are no numbers.
    let (quota, period): (u64, u64) = (quota.parse().ok()?, period.parse().ok()?);
    (quota > 0 && period > 0).then(|| quota as f64 / period as f64)
}

/// The smallest limit on the way up.
fn memory(hierarchies: &Hierarchies) -> Option<u64> {
    /// Version 1 says "unlimited" with the largest multiple of a page.
    const NO_LIMIT: u64 = 1 << 62;
    let hierarchy = hierarchies.of(Controller::Memory)?;
    let limit = |group: &Path, name: &str| text(group, name)?.parse().ok();
    hierarchy
        .levels()
        .flat_map(|group| match hierarchy.version {
            Version::One => [
                limit(group, "memory.limit_in_bytes"),
                // Counts what is above the mount's root, too.
                text(group, "memory.stat")
                    .and_then(|text| field(&text, "hierarchical_memory_limit")),
            ],
            // Above the second one the kernel slows processes down until nothing moves.
            Version::Two => [limit(group, "memory.max"), limit(group, "memory.high")],
        })
        .flatten()
        .filter(|limit| *limit < NO_LIMIT)
        .min()
}

/// Tells whether a group of version 2 binds its members in any way that a sibling would escape.
pub(super) fn binds(group: &Path) -> bool {
    let is_set = |name| text(group, name).is_some_and(|text| text != "max");
    ["memory.max", "memory.high", "memory.swap.max", "pids.max"]
        .into_iter()
        .any(is_set)
        || quota_of(group, Version::Two).is_some()
        || text(group, "cpuset.cpus").is_some_and(|text| !text.is_empty())
        || text(group, "cpuset.mems").is_some_and(|text| !text.is_empty())
        || text(group, "cgroup.freeze").is_some_and(|text| text != "0")
        || text(group, "io.max").is_some_and(|text| !text.is_empty())
}

/// Reads a small file of a group, trimmed; `None` if it is not there.
pub(super) fn text(group: &Path, name: &str) -> Option<String> {
    let text = fs::read_to_string(group.join(name)).ok()?;
    Some(text.trim().to_owned())
}

/// Finds `name NUMBER` in a text of such lines.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(found, _)| *found == name)
        .and_then(|(_, number)| number.trim().parse().ok())
}

/// The group that the builder is in.
pub(super) fn own_group(hierarchy: &Hierarchy) -> Result<&Path, GroupError> {
    hierarchy
        .own
        .as_deref()
        .ok_or_else(|| GroupError::Invisible {
            mount: hierarchy.top.clone(),
        })
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    /// Makes trees below a directory from `path: content` and asks for quota and limit. `@` stands for the directory.
    fn check(
        groups: &str,
        mounts: &str,
        files: &[(&str, &str)],
        cpus: Option<f64>,
        bytes: Option<u64>,
    ) {
        let directory = TempDir::new().unwrap();
        for (path, content) in files {
            let path = directory.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        let mounts = mounts.replace('@', directory.path().to_str().unwrap());
        let hierarchies = Hierarchies::parse(groups.as_bytes(), mounts.as_bytes());
        assert_eq!(quota(&hierarchies), cpus, "{files:?}");
        assert_eq!(memory(&hierarchies), bytes, "{files:?}");
    }

    const TWO: &str = "30 23 0:26 / @ rw - cgroup2 cgroup2 rw\n";
    const ONE: &str = "32 31 0:29 / @/cpu rw - cgroup cgroup rw,cpu,cpuacct\n\
                       33 31 0:30 /docker/1 @/memory rw - cgroup cgroup rw,memory\n";
    const GROUPS_ONE: &str = "4:memory:/docker/1\n1:cpu,cpuacct:/a/b\n";

    #[test]
    fn the_smallest_limit_from_the_own_group_upwards_counts() {
        check("0::/a/b\n", TWO, &[], None, None);
        check(
            "0::/a/b\n",
            TWO,
            &[
                ("a/b/cpu.max", "max 100000\n"),
                ("a/cpu.max", "150000 100000\n"),
                ("cpu.max", "400000 100000\n"),
                ("a/b/memory.max", "1000\n"),
                ("a/memory.max", "max\n"),
                ("memory.max", "900\n"),
            ],
            Some(1.5),
            Some(900),
        );
    }

    #[test]
    fn what_slows_down_is_a_limit() {
        let files = [("a/memory.max", "1000\n"), ("a/memory.high", "800\n")];
        check("0::/a\n", TWO, &files, None, Some(800));
    }

    #[test]
    fn siblings_do_not_count() {
        let files = [("a/x/memory.max", "1\n"), ("b/memory.max", "2\n")];
        check("0::/a\n", TWO, &files, None, None);
    }

    #[test]
    fn version_1_has_files_of_its_own() {
        check(
            GROUPS_ONE,
            ONE,
            &[
                ("cpu/a/b/cpu.cfs_quota_us", "-1\n"),
                ("cpu/a/b/cpu.cfs_period_us", "100000\n"),
                ("cpu/a/cpu.cfs_quota_us", "50000\n"),
                ("cpu/a/cpu.cfs_period_us", "100000\n"),
                ("memory/memory.limit_in_bytes", "9223372036854771712\n"),
                (
                    "memory/memory.stat",
                    "cache 5\nhierarchical_memory_limit 4096\n",
                ),
            ],
            Some(0.5),
            Some(4096),
        );
        let unlimited = [
            ("memory/memory.limit_in_bytes", "9223372036854771712\n"),
            (
                "memory/memory.stat",
                "hierarchical_memory_limit 9223372036854771712\n",
            ),
        ];
        check(GROUPS_ONE, ONE, &unlimited, None, None);
    }

    #[test]
    fn nonsense_is_no_limit() {
        for cpu in ["", "x y", "0 100000", "1 0", "100000", "-5 100000"] {
            let files = [("a/cpu.max", cpu), ("a/memory.max", "-1")];
            check("0::/a\n", TWO, &files, None, None);
        }
    }

    #[test]
    fn a_group_that_escaping_would_free_is_told() {
        let directory = TempDir::new().unwrap();
        let group = directory.path();
        for (name, free, bound) in [
            ("memory.max", "max\n", "1000\n"),
            ("cpu.max", "max 100000\n", "1000 100000\n"),
            ("cpuset.cpus", "\n", "0-1\n"),
            ("pids.max", "max\n", "7\n"),
        ] {
            fs::write(group.join(name), free).unwrap();
            assert!(!binds(group), "{name}");
            fs::write(group.join(name), bound).unwrap();
            assert!(binds(group), "{name}");
            fs::remove_file(group.join(name)).unwrap();
        }
    }
}
