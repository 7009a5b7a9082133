//! Limits of each RUN, and a builder that is limited itself. Needs control groups that can be written.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use builder::sandbox::{StepGroup, StepGroups};
use builder::vocab::StepLimits;

use crate::support::lab::{Lab, Ran};
use crate::support::power;

/// A group made for one test; what runs in it is limited.
struct Limited {
    register: tempfile::TempDir,
    group: StepGroup,
    _groups: StepGroups,
}

impl Limited {
    /// Returns a group with so much memory; `None` where none can be made.
    fn to(mebibytes: u64) -> Option<Limited> {
        let register = tempfile::tempdir().unwrap();
        let limits = StepLimits {
            memory: Some(mebibytes << 20),
            memory_and_swap: Some(mebibytes << 20),
            ..StepLimits::default()
        };
        let (groups, missing) = StepGroups::prepare(&limits, register.path()).unwrap();
        let Some(groups) = groups else {
            power::not_run(&format!("control groups cannot be written: {missing:?}"));
            return None;
        };
        Some(Limited {
            register,
            group: groups.step().unwrap(),
            _groups: groups,
        })
    }

    fn directories(&self) -> Vec<PathBuf> {
        let entry = fs::read_dir(self.register.path()).unwrap().next();
        let entry = entry.unwrap().unwrap();
        let name = format!("builder-{}-0", entry.file_name().to_str().unwrap());
        let parents = fs::read_to_string(entry.path()).unwrap();
        parents
            .split_terminator('\0')
            .map(|parent| PathBuf::from(parent).join(&name))
            .collect()
    }

    /// Runs the program inside.
    fn run(&self, lab: &Lab, args: &[&str]) -> Ran {
        let mut script = String::new();
        for directory in self.directories() {
            script.push_str(&format!(
                "echo $$ > {}/cgroup.procs && ",
                directory.display()
            ));
        }
        script.push_str("exec \"$@\"");
        let builder = lab.command();
        let mut command = Command::new("sh");
        command
            .args(["-c", &script, "sh"])
            .arg(builder.get_program())
            .args(args);
        for (name, value) in builder.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        Ran::of(command.current_dir(lab.path("")).output().unwrap())
    }
}

/// No group is registered: all were removed.
fn no_group_is_left(lab: &Lab) {
    let left = fs::read_dir(lab.state().join("v1/groups"))
        .into_iter()
        .flatten()
        .count();
    assert_eq!(left, 0);
}

#[test]
fn a_step_that_needs_more_memory_than_its_limit_is_told_so() {
    let Some(lab) = Lab::with_base() else { return };
    if Limited::to(64).is_none() {
        return;
    }
    lab.dockerfile("FROM base\nRUN dd if=/dev/zero of=/dev/null bs=200M count=1\n");
    let ran = lab.build(&["-m", "32m", "--memory-swap=32m"]);
    ran.fails(
        5,
        &[
            "it needs more memory than its limit of 32 MiB",
            "raise `--memory`",
        ],
    );
    no_group_is_left(&lab);
    // Another failure is not blamed on memory.
    lab.dockerfile("FROM base\nRUN sh -c 'kill -9 $$'; exit $?\n");
    let ran = lab.build(&["-m", "32m"]);
    ran.fails(5, &["exit code 137"]);
    assert!(!ran.stderr.contains("memory"), "{}", ran.stderr);
    no_group_is_left(&lab);
}

#[test]
fn limits_are_no_reason_to_run_again() {
    let Some(lab) = Lab::with_base() else { return };
    if Limited::to(64).is_none() {
        return;
    }
    lab.dockerfile("FROM base\nRUN echo x > /x\n");
    let all = [
        "--memory=64m",
        "--cpus=0.5",
        "-c=512",
        "--cpuset-cpus=0",
        "--pids-limit=50",
    ];
    let ran = lab.build(&all);
    ran.succeeds();
    assert!(!ran.stderr.contains("no effect"), "{}", ran.stderr);
    assert_eq!(ran.executed(), 1);
    no_group_is_left(&lab);
    let ran = lab.build(&["--memory=128m"]);
    ran.succeeds();
    assert_eq!(ran.executed(), 0);
}

#[test]
fn a_limit_without_effect_is_told_and_the_build_goes_on() {
    let Some(lab) = Lab::with_base() else { return };
    lab.dockerfile("FROM base\nRUN echo x > /x\n");
    let context = lab.context();
    let builder = lab.command();
    let mut command = Command::new("unshare");
    command
        .args([
            "--mount",
            "sh",
            "-c",
            "mount -t tmpfs -o ro none /sys/fs/cgroup && exec \"$@\"",
            "sh",
        ])
        .arg(builder.get_program())
        .args([
            "build",
            "--progress=plain",
            "--memory=64m",
            "--cpu-quota=50000",
        ])
        .arg(&context);
    for (name, value) in builder.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let ran = Ran::of(command.output().unwrap());
    if ran.stderr.contains("unshare:") || ran.stderr.contains("mount:") {
        power::not_run(&format!("control groups cannot be hidden: {}", ran.stderr));
        return;
    }
    ran.succeeds();
    for text in [
        "warning: ",
        "the memory limit",
        "the CPU quota",
        "no effect here",
    ] {
        assert!(
            ran.stderr.contains(text),
            "`{text}` is not in:\n{}",
            ran.stderr
        );
    }
    assert_eq!(ran.executed(), 1);
}

#[test]
fn a_value_that_the_machine_lacks_is_an_error() {
    let Some(lab) = Lab::with_base() else { return };
    if Limited::to(64).is_none() {
        return;
    }
    lab.dockerfile("FROM base\nRUN echo x > /x\n");
    lab.build(&["--cpuset-cpus=4095"])
        .fails(2, &["the set of CPUs cannot be `4095` here"]);
    no_group_is_left(&lab);
}

#[test]
fn a_builder_with_little_memory_packs_and_unpacks_what_is_larger() {
    let Some(lab) = Lab::with_base() else { return };
    let Some(limited) = Limited::to(64) else {
        return;
    };
    // Not to be compressed away: each block differs.
    let mut state = 1_u64;
    let noise: Vec<u8> = (0..(24 << 20) / 8)
        .flat_map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        })
        .collect();
    for number in 0..4 {
        lab.file(&format!("noise{number}"), &noise);
    }
    lab.dockerfile(
        "FROM base AS a\nCOPY noise0 /0\nFROM base AS b\nCOPY noise1 /1\nFROM base\nCOPY --from=a /0 /0\nCOPY --from=b /1 /1\nCOPY noise2 noise3 /\n",
    );
    let layout = lab.path("out");
    let output = format!(
        "type=oci,tar=false,compression=zstd,compression-level=19,dest={}",
        layout.display()
    );
    let context = lab.context();
    let args = [
        "build",
        "--progress=plain",
        "--output",
        &output,
        context.to_str().unwrap(),
    ];
    limited.run(&lab, &args).succeeds();
    assert_eq!(limited.group.out_of_memory(), None);
    // Unpacked again from the layout, elsewhere, with a limit for the step below that of the builder.
    let other = Lab::new();
    other.dockerfile("FROM result\nRUN wc -c /noise3\n");
    let named = format!("result=oci-layout://{}", layout.display());
    let context = other.context();
    let args = [
        "build",
        "--progress=plain",
        "--memory=32m",
        "--build-context",
        &named,
        context.to_str().unwrap(),
    ];
    let ran = limited.run(&other, &args);
    ran.succeeds();
    assert!(ran.stderr.contains("25165824"), "{}", ran.stderr);
    assert_eq!(limited.group.out_of_memory(), None);
}
