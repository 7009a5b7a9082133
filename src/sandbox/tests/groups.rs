//! Commands in control groups of their own. Needs groups that can be written: root on a host, or a delegated tree.

use std::path::{Path, PathBuf};

use crate::vocab::StepLimits;

use super::*;

subjects![
    a_command_is_in_groups_with_its_limits,
    a_command_that_needs_more_memory_is_counted,
    memory_that_ran_out_around_a_group_is_not_its_own,
    confined_builder,
    more_processes_than_the_limit_cannot_be_started,
    a_command_cannot_change_its_limits,
    whatever_is_left_in_a_group_is_killed_with_it,
    groups_below_a_named_one_are_made_there,
    a_value_that_the_machine_lacks_is_refused,
    the_groups_of_a_killed_builder_are_swept,
    limited_victim,
];

const ALL: fn() -> StepLimits = || StepLimits {
    memory: Some(64 << 20),
    cpu_quota: Some(50_000),
    cpu_shares: Some(512),
    processes: Some(20),
    cpus: Some("0".into()),
    ..StepLimits::default()
};

/// Settles limits, or ends the subject where they cannot be had.
fn groups(limits: &StepLimits, register: &Path) -> StepGroups {
    match StepGroups::prepare(limits, register).unwrap() {
        (Some(groups), missing) if missing.is_empty() => groups,
        (_, missing) => skip(&format!("control groups cannot be written: {missing:?}")),
    }
}

/// All directories of groups whose names begin like those in the register.
fn found(register: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(register).into_iter().flatten().flatten() {
        let name = format!("builder-{}", entry.file_name().to_str().unwrap());
        let parents = fs::read_to_string(entry.path()).unwrap();
        for parent in parents.split('\0').filter(|parent| !parent.is_empty()) {
            let below = fs::read_dir(parent).unwrap().flatten();
            found.extend(
                below
                    .filter(|group| group.file_name().to_str().unwrap().starts_with(&name))
                    .map(|group| group.path()),
            );
        }
    }
    found
}

#[test]
fn a_command_is_in_groups_with_its_limits() {
    as_subject!(a_command_is_in_groups_with_its_limits);
    sandbox();
    let root = Root::new();
    let register = TempDir::new().unwrap();
    let groups = groups(&ALL(), register.path());
    assert!(found(register.path()).is_empty());
    let group = Arc::new(groups.step().unwrap());
    assert!(group.limits_memory());
    let read = |names: [&str; 2]| {
        found(register.path())
            .iter()
            .flat_map(|group| names.map(|name| fs::read_to_string(group.join(name))))
            .find_map(Result::ok)
            .unwrap()
    };
    assert_eq!(read(["memory.max", "memory.limit_in_bytes"]), "67108864\n");
    assert!(["50000 100000\n", "50000\n"].contains(&&*read(["cpu.max", "cpu.cfs_quota_us"])));
    assert!(["20\n", "512\n"].contains(&&*read(["cpu.weight", "cpu.shares"])));
    assert_eq!(read(["cpuset.cpus", "cpuset.cpus"]), "0\n");
    assert_eq!(read(["pids.max", "pids.max"]), "21\n");

    let mut spec = root.shell("cat /proc/self/cgroup; grep Cpus_allowed_list /proc/self/status");
    spec.group = Some(group.clone());
    let said = output(spec);
    // In a namespace of control groups its own one is the root.
    assert!(
        said.contains("builder-") || said.contains("0::/\n"),
        "{said}"
    );
    assert!(said.contains("Cpus_allowed_list:\t0\n"), "{said}");
    assert_eq!(group.out_of_memory(), None);

    drop(group);
    assert_eq!(found(register.path()), Vec::<PathBuf>::new());
    drop(groups);
    assert_eq!(fs::read_dir(register.path()).unwrap().count(), 0);
}

#[test]
fn a_command_that_needs_more_memory_is_counted() {
    as_subject!(a_command_that_needs_more_memory_is_counted);
    sandbox();
    let root = Root::new();
    let register = TempDir::new().unwrap();
    let limits = StepLimits {
        memory: Some(32 << 20),
        memory_and_swap: Some(32 << 20),
        ..StepLimits::default()
    };
    let groups = groups(&limits, register.path());
    for (megabytes, is_killed) in [(1, false), (100, true)] {
        let group = Arc::new(groups.step().unwrap());
        let mut spec = root.shell(&format!(
            "dd if=/dev/zero of=/dev/null bs={megabytes}M count=1"
        ));
        spec.group = Some(group.clone());
        let exit = outcome(spec).unwrap().0;
        assert_eq!(exit != Exit::Code(0), is_killed, "{megabytes}: {exit:?}");
        let limit = 32 << 20;
        let expected = is_killed.then_some(OutOfMemory::Own { limit });
        assert_eq!(group.out_of_memory(), expected, "{megabytes}");
    }
}

#[test]
fn memory_that_ran_out_around_a_group_is_not_its_own() {
    as_subject!(memory_that_ran_out_around_a_group_is_not_its_own);
    let register = TempDir::new().unwrap();
    let limits = StepLimits {
        memory: Some(64 << 20),
        memory_and_swap: Some(64 << 20),
        ..StepLimits::default()
    };
    let groups = groups(&limits, register.path());
    let around = groups.step().unwrap();
    let mut builder = Command::new(std::env::current_exe().unwrap())
        .env(SUBJECT, "confined_builder")
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    around.admit(builder.id()).unwrap();
    // It waits for that.
    drop(builder.stdin.take());
    assert!(builder.wait().unwrap().success());
}

fn confined_builder() {
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    sandbox();
    assert_eq!(own_limits().memory, Some(64 << 20));
    assert_eq!(usable_memory(), 64 << 20);
    let root = Root::new();
    let register = TempDir::new().unwrap();
    let limits = StepLimits {
        memory: Some(1 << 30),
        ..StepLimits::default()
    };
    let groups = groups(&limits, register.path());
    let group = Arc::new(groups.step().unwrap());
    let mut spec = root.shell("dd if=/dev/zero of=/dev/null bs=200M count=1");
    spec.group = Some(group.clone());
    assert_ne!(outcome(spec).unwrap().0, Exit::Code(0));
    assert_eq!(group.out_of_memory(), Some(OutOfMemory::Around));

    // A command without a group of its own is in the builder's.
    let before = oom_kills().unwrap();
    let spec = root.shell("dd if=/dev/zero of=/dev/null bs=200M count=1");
    assert_ne!(outcome(spec).unwrap().0, Exit::Code(0));
    assert!(oom_kills().unwrap() > before);
}

#[test]
fn more_processes_than_the_limit_cannot_be_started() {
    as_subject!(more_processes_than_the_limit_cannot_be_started);
    sandbox();
    let root = Root::new();
    let register = TempDir::new().unwrap();
    let limits = StepLimits {
        processes: Some(5),
        ..StepLimits::default()
    };
    let groups = groups(&limits, register.path());
    // The shell and four others.
    for (others, fits) in [(4, true), (5, false)] {
        let mut spec = root.shell(&format!(
            "n=0; while [ $n -lt {others} ]; do sleep 4721 & n=$((n+1)); done; exit 0"
        ));
        spec.group = Some(Arc::new(groups.step().unwrap()));
        let (exit, _, said) = outcome(spec).unwrap();
        assert_eq!(
            exit == Exit::Code(0) && said.is_empty(),
            fits,
            "{others}: {said}"
        );
    }
    assert_eq!(processes("sleep 4721"), 0);
}

#[test]
fn a_command_cannot_change_its_limits() {
    as_subject!(a_command_cannot_change_its_limits);
    sandbox();
    let root = Root::new();
    let register = TempDir::new().unwrap();
    let groups = groups(&ALL(), register.path());
    let group = Arc::new(groups.step().unwrap());
    let files: Vec<PathBuf> = found(register.path())
        .iter()
        .flat_map(|group| {
            ["cgroup.procs", "memory.max", "memory.limit_in_bytes"].map(|name| group.join(name))
        })
        .collect();
    let mut script = String::from("for f in /sys/fs/cgroup/memory.max /sys/fs/cgroup/cgroup.procs");
    for file in files {
        script.push_str(&format!(" {}", file.display()));
    }
    script.push_str("; do [ -e $f ] && (echo 0 > $f) 2>/dev/null && echo wrote $f; done; exit 0");
    let mut spec = root.shell(&script);
    spec.group = Some(group);
    assert_eq!(output(spec), "");
}

#[test]
fn whatever_is_left_in_a_group_is_killed_with_it() {
    as_subject!(whatever_is_left_in_a_group_is_killed_with_it);
    let register = TempDir::new().unwrap();
    let groups = groups(&ALL(), register.path());
    let group = groups.step().unwrap();
    let mut left = Command::new("sleep").arg("4722").spawn().unwrap();
    group.admit(left.id()).unwrap();
    let reaper = std::thread::spawn(move || left.wait().unwrap());
    drop(group);
    assert!(!reaper.join().unwrap().success());
    assert_eq!(found(register.path()), Vec::<PathBuf>::new());
}

#[test]
fn groups_below_a_named_one_are_made_there() {
    as_subject!(groups_below_a_named_one_are_made_there);
    let register = TempDir::new().unwrap();
    let named = format!("builder-test-{}/inner", std::process::id());
    let limits = StepLimits {
        memory: Some(64 << 20),
        parent: Some(named.clone()),
        ..StepLimits::default()
    };
    let groups = groups(&limits, register.path());
    let group = groups.step().unwrap();
    let made = found(register.path());
    let below: Vec<_> = made
        .iter()
        .filter(|group| group.parent().unwrap().ends_with(&named))
        .collect();
    assert_eq!(below.len(), 1, "{made:?}");
    let parent = below[0].parent().unwrap().to_owned();
    drop((group, groups));
    // What was named stays.
    fs::remove_dir(&parent).unwrap();
    fs::remove_dir(parent.parent().unwrap()).unwrap();
}

#[test]
fn a_value_that_the_machine_lacks_is_refused() {
    as_subject!(a_value_that_the_machine_lacks_is_refused);
    let register = TempDir::new().unwrap();
    drop(groups(&ALL(), register.path()));
    let limits = StepLimits {
        cpus: Some("4095".into()),
        ..StepLimits::default()
    };
    let error = StepGroups::prepare(&limits, register.path()).unwrap_err();
    assert!(
        matches!(&error, GroupError::Refused { value, .. } if value == "4095"),
        "{error:?}"
    );
    assert_eq!(fs::read_dir(register.path()).unwrap().count(), 0);
}

#[test]
fn the_groups_of_a_killed_builder_are_swept() {
    as_subject!(the_groups_of_a_killed_builder_are_swept);
    let register = TempDir::new().unwrap();
    drop(groups(&ALL(), register.path()));
    let mut builder = Command::new(std::env::current_exe().unwrap())
        .env(SUBJECT, "limited_victim")
        .env("BUILDER_SANDBOX_REGISTER", register.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = [0; 8];
    let mut stdout = builder.stdout.take().unwrap();
    if stdout.read_exact(&mut said).is_err() {
        skip("the builder did not start");
    }
    let made = found(register.path());
    assert!(!made.is_empty());
    // It lives: nothing of its is touched.
    sweep_groups(register.path());
    assert_eq!(found(register.path()), made);
    builder.kill().unwrap();
    builder.wait().unwrap();
    wait_until("nobody", || processes("sleep 4723") == 0);
    assert!(made.iter().all(|group| group.exists()));
    sweep_groups(register.path());
    assert!(!made.iter().any(|group| group.exists()));
    assert_eq!(fs::read_dir(register.path()).unwrap().count(), 0);
}

fn limited_victim() {
    sandbox();
    let root = Root::new();
    let register = std::env::var_os("BUILDER_SANDBOX_REGISTER").unwrap();
    let groups = groups(&ALL(), Path::new(&register));
    let mut spec = root.shell("echo started; sleep 4723");
    spec.group = Some(Arc::new(groups.step().unwrap()));
    let result = run(
        spec,
        &mut |_, bytes| std::io::stdout().write_all(bytes).unwrap(),
        &Cancel::new(),
    );
    println!("{result:?}");
}
