//! How many processors this process may use.

use std::num::NonZero;

/// Returns the number of CPUs that affinity mask and cgroup quota leave to this process, at least 1.
///
/// The standard library reads the affinity mask and `cpu.max` (cgroup v2) or the CFS quota (v1) of the own cgroup and its
/// ancestors, and rounds down. Ask once: it reads files.
pub fn cpu_quota() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quota_is_within_the_affinity_mask() {
        let mask = rustix::thread::sched_getaffinity(None).unwrap();
        assert!((1..=mask.count() as usize).contains(&cpu_quota()));
    }
}
