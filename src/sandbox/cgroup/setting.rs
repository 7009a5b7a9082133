//! Limits as the files of control groups have them.

use crate::vocab::StepLimits;

use super::hierarchy::{Controller, Version};

/// What is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    Memory,
    /// Needs the memory limit to be set before.
    Swap,
    CpuQuota,
    CpuShares,
    Cpus,
    MemoryNodes,
    Processes,
}

impl What {
    pub(super) const ALL: [What; 7] = [
        What::Memory,
        What::Swap,
        What::CpuQuota,
        What::CpuShares,
        What::Cpus,
        What::MemoryNodes,
        What::Processes,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            What::Memory => "the memory limit",
            What::Swap => "the swap limit",
            What::CpuQuota => "the CPU quota",
            What::CpuShares => "the CPU shares",
            What::Cpus => "the set of CPUs",
            What::MemoryNodes => "the set of memory nodes",
            What::Processes => "the number of processes",
        }
    }

    pub(super) fn controller(self) -> Controller {
        match self {
            What::Memory | What::Swap => Controller::Memory,
            What::CpuQuota | What::CpuShares => Controller::Cpu,
            What::Cpus | What::MemoryNodes => Controller::Cpuset,
            What::Processes => Controller::Pids,
        }
    }
}

/// One limit of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) what: What,
    /// Nobody asked for it by name: where the kernel has no such limit, it is left out.
    pub(super) is_implied: bool,
    /// Files and what is written to them, in this order.
    pub(super) files: Vec<(&'static str, String)>,
}

/// The time in which a quota is used, where nobody says another.
const PERIOD: u64 = 100_000;
/// The process that starts the command and waits for it is in the group as well.
const OWN_PROCESSES: u64 = 1;

/// Returns how one limit is set; `None` if it was not asked for.
pub(super) fn setting(limits: &StepLimits, what: What, version: Version) -> Option<Setting> {
    let mut is_implied = false;
    let is_one = version == Version::One;
    let files = match what {
        What::Memory => {
            let name = if is_one {
                "memory.limit_in_bytes"
            } else {
                "memory.max"
            };
            vec![(name, limits.memory?.to_string())]
        }
        What::Swap => {
            let memory = limits.memory?;
            is_implied = limits.memory_and_swap.is_none();
            let both = limits
                .memory_and_swap
                .unwrap_or_else(|| memory.saturating_mul(2));
            vec![match (version, both) {
                (Version::One, u64::MAX) => ("memory.memsw.limit_in_bytes", "-1".to_owned()),
                (Version::One, both) => ("memory.memsw.limit_in_bytes", both.to_string()),
                (Version::Two, u64::MAX) => ("memory.swap.max", "max".to_owned()),
                (Version::Two, both) => {
                    ("memory.swap.max", both.saturating_sub(memory).to_string())
                }
            }]
        }
        What::CpuQuota => {
            let (quota, period) = (limits.cpu_quota, limits.cpu_period);
            quota.or(period)?;
            if is_one {
                let period = period.map(|period| ("cpu.cfs_period_us", period.to_string()));
                let quota = quota.map(|quota| ("cpu.cfs_quota_us", quota.to_string()));
                period.into_iter().chain(quota).collect()
            } else {
                let quota = quota.map_or("max".to_owned(), |quota| quota.to_string());
                vec![("cpu.max", format!("{quota} {}", period.unwrap_or(PERIOD)))]
            }
        }
        What::CpuShares => {
            let shares = limits.cpu_shares?;
            vec![if is_one {
                ("cpu.shares", shares.to_string())
            } else {
                ("cpu.weight", weight(shares).to_string())
            }]
        }
        What::Cpus => vec![("cpuset.cpus", limits.cpus.clone()?)],
        What::MemoryNodes => vec![("cpuset.mems", limits.memory_nodes.clone()?)],
        What::Processes => {
            let processes = limits.processes?.saturating_add(OWN_PROCESSES);
            vec![("pids.max", processes.to_string())]
        }
    };
    Some(Setting {
        what,
        is_implied,
        files,
    })
}

/// Maps 2 to 262144, of which 1024 is the usual, to 1 to 10000, as container runtimes and Kubernetes do it.
fn weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(limits: &StepLimits, version: Version, expected: &[(&str, &str)]) {
        let found: Vec<(&str, String)> = What::ALL
            .into_iter()
            .filter_map(|what| setting(limits, what, version))
            .flat_map(|setting| setting.files)
            .collect();
        let found: Vec<(&str, &str)> = found
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        assert_eq!(found, expected, "{limits:?}");
    }

    #[test]
    fn nothing_asked_for_is_nothing_set() {
        for version in [Version::One, Version::Two] {
            check(&StepLimits::default(), version, &[]);
        }
    }

    #[test]
    fn memory_comes_with_as_much_swap_unless_told_otherwise() {
        let limits = |both| StepLimits {
            memory: Some(100),
            memory_and_swap: both,
            ..StepLimits::default()
        };
        let (limit, both) = ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes");
        check(
            &limits(None),
            Version::One,
            &[(limit, "100"), (both, "200")],
        );
        check(
            &limits(Some(150)),
            Version::One,
            &[(limit, "100"), (both, "150")],
        );
        check(
            &limits(Some(u64::MAX)),
            Version::One,
            &[(limit, "100"), (both, "-1")],
        );
        let (limit, swap) = ("memory.max", "memory.swap.max");
        check(
            &limits(None),
            Version::Two,
            &[(limit, "100"), (swap, "100")],
        );
        check(
            &limits(Some(100)),
            Version::Two,
            &[(limit, "100"), (swap, "0")],
        );
        check(
            &limits(Some(u64::MAX)),
            Version::Two,
            &[(limit, "100"), (swap, "max")],
        );
    }

    #[test]
    fn a_quota_or_a_period_alone_is_enough() {
        let limits = |cpu_quota, cpu_period| StepLimits {
            cpu_quota,
            cpu_period,
            ..StepLimits::default()
        };
        let (period, quota) = ("cpu.cfs_period_us", "cpu.cfs_quota_us");
        check(&limits(Some(5), None), Version::One, &[(quota, "5")]);
        check(
            &limits(Some(5), Some(9)),
            Version::One,
            &[(period, "9"), (quota, "5")],
        );
        check(
            &limits(Some(5), None),
            Version::Two,
            &[("cpu.max", "5 100000")],
        );
        check(
            &limits(None, Some(9)),
            Version::Two,
            &[("cpu.max", "max 9")],
        );
    }

    #[test]
    fn the_others_are_one_file_each() {
        let limits = StepLimits {
            cpu_shares: Some(1024),
            cpus: Some("0-1".into()),
            memory_nodes: Some("0".into()),
            processes: Some(10),
            ..StepLimits::default()
        };
        let sets = [
            ("cpuset.cpus", "0-1"),
            ("cpuset.mems", "0"),
            ("pids.max", "11"),
        ];
        check(
            &limits,
            Version::One,
            &[&[("cpu.shares", "1024")], &sets[..]].concat(),
        );
        check(
            &limits,
            Version::Two,
            &[&[("cpu.weight", "39")], &sets[..]].concat(),
        );
    }

    #[test]
    fn shares_become_weights_over_the_whole_range() {
        for (shares, expected) in [
            (0, 1),
            (2, 1),
            (1024, 39),
            (262_144, 10_000),
            (u64::MAX, 10_000),
        ] {
            assert_eq!(weight(shares), expected, "{shares}");
        }
    }
}
