//! How many processors and how much memory this process may use.

use super::cgroup;

/// Returns the number of CPUs that affinity mask and control groups leave to this process, rounded down, at least 1.
/// Control groups are read once in a process.
pub fn cpu_quota() -> usize {
    // The mask contains the sets of control groups. Without it the quota would count for a machine of any size.
    let there = rustix::thread::sched_getaffinity(None).map_or(1, |mask| mask.count() as usize);
    within(there, cgroup::processor_quota())
}

/// Returns the bytes of memory that the machine has and control groups leave to this process. They are read once in a process.
pub fn usable_memory() -> u64 {
    let system = rustix::system::sysinfo();
    // The unit is that of 32-bit machines with more memory than a word counts.
    let there = system
        .totalram
        .saturating_mul(u64::from(system.mem_unit.max(1)));
    cgroup::memory_limit().map_or(there, |limit| limit.min(there))
}

fn within(there: usize, quota: Option<f64>) -> usize {
    // A quota of any size fits: the conversion ends at the largest number.
    let quota = quota.map_or(there, |quota| quota as usize);
    there.min(quota).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quota_is_within_the_affinity_mask() {
        let mask = rustix::thread::sched_getaffinity(None).unwrap();
        assert!((1..=mask.count() as usize).contains(&cpu_quota()));
    }

    #[test]
    fn a_part_of_a_processor_is_one_and_else_parts_do_not_count() {
        for (there, quota, expected) in [
            (4, None, 4),
            (4, Some(0.5), 1),
            (4, Some(1.9), 1),
            (4, Some(3.0), 3),
            (4, Some(64.0), 4),
            (0, None, 1),
            (4, Some(1e300), 4),
        ] {
            assert_eq!(within(there, quota), expected, "{there} {quota:?}");
        }
    }

    #[test]
    fn there_is_memory() {
        assert!(usable_memory() > 1 << 20);
    }
}
