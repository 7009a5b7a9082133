//! Flags that limit each RUN: `docker build`'s and Buildah's, and two that `docker run` has.

use crate::pipeline::Failure;
use crate::vocab::StepLimits;

use super::args;
use super::request::bytes;
use super::usage;

/// Less is not enough for the process that starts the command.
const LEAST_MEMORY: u64 = 6 << 20;
/// What the kernel takes as a period, in microseconds.
const PERIODS: std::ops::RangeInclusive<u64> = 1000..=1_000_000;
const LEAST_QUOTA: i64 = 1000;
/// Of `--cpus`, in microseconds.
const PERIOD: u64 = 100_000;
const SHARES: std::ops::RangeInclusive<u64> = 2..=262_144;

/// Reads all of them.
pub(super) fn step_limits(typed: args::StepLimits) -> Result<StepLimits, Failure> {
    let memory = match typed.memory.as_deref() {
        None => None,
        Some(text) => Some(bytes("--memory", text)?).filter(|bytes| *bytes != 0),
    };
    if memory.is_some_and(|memory| memory < LEAST_MEMORY) {
        return Err(usage("`--memory` must be at least 6m"));
    }
    let memory_and_swap = match typed.memory_swap.as_deref() {
        None => None,
        Some("-1") => Some(u64::MAX),
        Some(text) => Some(bytes("--memory-swap", text)?).filter(|bytes| *bytes != 0),
    };
    match (memory, memory_and_swap) {
        (None, Some(_)) => return Err(usage("`--memory-swap` needs `--memory`")),
        (Some(memory), Some(both)) if both < memory => {
            return Err(usage(
                "`--memory-swap` is memory and swap together: it cannot be below `--memory`",
            ));
        }
        _ => {}
    }
    let (cpu_quota, cpu_period) = match typed.cpus.as_deref() {
        Some(text) => (processors(text)?, None),
        None => (quota(typed.cpu_quota)?, period(typed.cpu_period)?),
    };
    let cpu_shares = typed.cpu_shares.filter(|shares| *shares != 0);
    if cpu_shares.is_some_and(|shares| !SHARES.contains(&shares)) {
        return Err(usage("`--cpu-shares` must be between 2 and 262144"));
    }
    Ok(StepLimits {
        memory,
        memory_and_swap,
        cpu_quota,
        cpu_period,
        cpu_shares,
        cpus: list("--cpuset-cpus", typed.cpuset_cpus)?,
        memory_nodes: list("--cpuset-mems", typed.cpuset_mems)?,
        processes: processes(typed.pids_limit)?,
        parent: typed.cgroup_parent.filter(|name| !name.is_empty()),
    })
}

/// Reads `--cpus`; 0 is no limit.
fn processors(text: &str) -> Result<Option<u64>, Failure> {
    let refuse = || usage(format!("`--cpus {text}` is not a number such as 1.5"));
    let number: f64 = text.trim().parse().map_err(|_| refuse())?;
    if !(0.0..=100_000.0).contains(&number) {
        return Err(refuse());
    }
    let quota = (number * PERIOD as f64).round() as u64;
    if number != 0.0 && quota < LEAST_QUOTA as u64 {
        return Err(usage("`--cpus` must be at least 0.01"));
    }
    Ok(Some(quota).filter(|quota| *quota != 0))
}

fn quota(typed: Option<i64>) -> Result<Option<u64>, Failure> {
    match typed {
        None | Some(-1 | 0) => Ok(None),
        Some(quota) if quota < LEAST_QUOTA => Err(usage(
            "`--cpu-quota` must be at least 1000 microseconds (-1: no quota)",
        )),
        Some(quota) => Ok(Some(quota as u64)),
    }
}

fn period(typed: Option<u64>) -> Result<Option<u64>, Failure> {
    match typed {
        None | Some(0) => Ok(None),
        Some(period) if !PERIODS.contains(&period) => Err(usage(
            "`--cpu-period` must be between 1000 and 1000000 microseconds",
        )),
        Some(period) => Ok(Some(period)),
    }
}

fn processes(typed: Option<i64>) -> Result<Option<u64>, Failure> {
    match typed {
        None | Some(-1 | 0) => Ok(None),
        Some(number) => u64::try_from(number)
            .map(Some)
            .map_err(|_| usage("`--pids-limit` must be a number of processes (-1: any number)")),
    }
}

/// Reads numbers and ranges, as the kernel has them.
fn list(flag: &str, typed: Option<String>) -> Result<Option<String>, Failure> {
    let Some(text) = typed.filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let number = |text: &str| text.parse::<u32>().ok().filter(|_| !text.starts_with('+'));
    let is_range = |part: &str| match part.split_once('-') {
        Some((first, last)) => number(first)
            .zip(number(last))
            .is_some_and(|(first, last)| first <= last),
        None => number(part).is_some(),
    };
    match text.split(',').all(is_range) {
        true => Ok(Some(text)),
        false => Err(usage(format!(
            "`{flag} {text}` is not a list such as 0-3,5"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Typed {
        #[command(flatten)]
        limits: args::StepLimits,
    }

    fn read(flags: &[&str]) -> Result<StepLimits, String> {
        let typed =
            Typed::try_parse_from([&["x"], flags].concat()).map_err(|error| error.to_string())?;
        step_limits(typed.limits).map_err(|failure| failure.diagnostics[0].message.clone())
    }

    #[test]
    fn flags_become_limits() {
        let none = StepLimits::default;
        for (flags, expected) in [
            (&[][..], none()),
            (
                &["-m", "512m"],
                StepLimits {
                    memory: Some(512 << 20),
                    ..none()
                },
            ),
            (
                &["--memory=1g", "--memory-swap", "-1", "-c", "512"],
                StepLimits {
                    memory: Some(1 << 30),
                    memory_and_swap: Some(u64::MAX),
                    cpu_shares: Some(512),
                    ..none()
                },
            ),
            (
                &["--cpus", "1.5"],
                StepLimits {
                    cpu_quota: Some(150_000),
                    ..none()
                },
            ),
            (
                &[
                    "--cpu-quota=50000",
                    "--cpu-period=25000",
                    "--cpuset-cpus=0-1,3",
                ],
                StepLimits {
                    cpu_quota: Some(50_000),
                    cpu_period: Some(25_000),
                    cpus: Some("0-1,3".into()),
                    ..none()
                },
            ),
            (
                &[
                    "--pids-limit",
                    "100",
                    "--cpuset-mems=0",
                    "--cgroup-parent=/ci",
                ],
                StepLimits {
                    processes: Some(100),
                    memory_nodes: Some("0".into()),
                    parent: Some("/ci".into()),
                    ..none()
                },
            ),
            // What means no limit to Docker.
            (
                &[
                    "-m",
                    "0",
                    "--memory-swap=0",
                    "--cpu-quota",
                    "-1",
                    "--cpu-period=0",
                    "-c0",
                    "--pids-limit",
                    "-1",
                    "--cpuset-cpus=",
                ],
                none(),
            ),
        ] {
            assert_eq!(read(flags), Ok(expected), "{flags:?}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for flags in [
            &["--memory=5m"][..],
            &["--memory=much"],
            &["--memory-swap=1g"],
            &["--memory=2g", "--memory-swap=1g"],
            &["--cpus=x"],
            &["--cpus=-1"],
            &["--cpus=NaN"],
            &["--cpus=0.001"],
            &["--cpus=1", "--cpu-quota=50000"],
            &["--cpu-quota=999"],
            &["--cpu-quota", "-2"],
            &["--cpu-period=10"],
            &["--cpu-shares=1"],
            &["--cpuset-cpus=0,"],
            &["--cpuset-cpus=3-1"],
            &["--cpuset-mems=all"],
            &["--pids-limit", "-5"],
        ] {
            assert!(read(flags).is_err(), "{flags:?}");
        }
    }
}
