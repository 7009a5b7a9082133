//! What a command cannot do or see.

use super::*;

subjects![
    capabilities_are_dockers,
    the_host_is_out_of_sight,
    inherited_descriptors_do_not_reach_the_command,
    a_working_directory_cannot_leave_the_root,
    the_program_itself_cannot_be_overwritten,
    overwrite_self,
    a_device_node_can_be_made_by_real_root_and_opened_by_nobody,
    the_kernels_interfaces_are_read_only_or_hidden,
    what_the_profile_forbids_fails,
    links_of_the_root_do_not_lead_mounts_outside,
];

#[test]
fn capabilities_are_dockers() {
    as_subject!(capabilities_are_dockers);
    sandbox();
    let root = Root::new();
    let script = "grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status | { while read name value; do echo $name $value; done; }";
    let none = "0000000000000000";
    for uid in [0, 1000] {
        let mut spec = root.shell(script);
        (spec.uid, spec.gid, spec.groups) = (uid, 100, vec![27, 4]);
        let text = output(spec);
        let root = root_capabilities(&text);
        let own = if uid == 0 { root } else { none };
        assert_eq!(
            text,
            format!(
                "CapInh: {none}\nCapPrm: {own}\nCapEff: {own}\nCapBnd: {root}\nCapAmb: {none}\nNoNewPrivs: 0\nSeccomp: 2\n"
            )
        );
    }
}

#[test]
fn the_host_is_out_of_sight() {
    as_subject!(the_host_is_out_of_sight);
    sandbox();
    let secret = TempDir::new().unwrap();
    fs::write(secret.path().join("token"), "s3cret").unwrap();
    let path = secret.path().display();
    check(
        &format!("ls {path} 2>/dev/null; ls /proc/1/root/{path} 2>/dev/null; ls / | grep -v ^lib"),
        "bin\ndev\netc\nproc\nsys\ntmp\nyard",
    );
    check(
        "while read id parent device root point rest; do case $point in /|/proc*|/sys*|/dev*|/etc/*) ;; *) echo $point;; esac; done < /proc/self/mountinfo",
        "",
    );
    check("readlink /proc/self/fd/0", "/dev/null");
    // A second root directory, and a way up from it, if there were one.
    check(
        "{ ls /..; ls /../..; cd /; cd ..; ls; } | grep -v ^lib",
        "bin\ndev\netc\nproc\nsys\ntmp\nyard\n".repeat(3).trim_end(),
    );
    check(
        "mkdir /yard/j; chroot /yard/j /bin/true 2>/dev/null; cd /..; ls | grep -vc ^lib",
        "7",
    );
}

#[test]
fn inherited_descriptors_do_not_reach_the_command() {
    as_subject!(inherited_descriptors_do_not_reach_the_command);
    // Not close-on-exec, as a careless parent leaves them.
    let leaked = rustix::fs::open("/", OFlags::PATH, Mode::empty()).unwrap();
    sandbox();
    check("ls -l /proc/self/fd | grep -c -- ' /$'; true", "0");
    check("ls /proc/1/fd; true", "0\n1\n2");
    drop(leaked);
}

#[test]
fn a_working_directory_cannot_leave_the_root() {
    as_subject!(a_working_directory_cannot_leave_the_root);
    // CVE-2024-21626: a descriptor of the host, reached through the working directory.
    sandbox();
    let root = Root::new();
    let host = TempDir::new().unwrap();
    fs::write(host.path().join("marker"), "").unwrap();
    let _leak: Vec<File> = (0..20).map(|_| File::open(host.path()).unwrap()).collect();
    for number in 0..32 {
        let mut spec = root.shell("ls; ls ..; ls /..");
        spec.cwd = format!("/proc/self/fd/{number}");
        match outcome(spec) {
            // A link's text is a path like any other: it may happen to exist, inside.
            Ok((_, out, _)) => assert!(!out.contains("marker"), "{number}: {out}"),
            Err(RunError::WorkingDirectory { .. }) => {}
            Err(error) => panic!("{number}: {error}"),
        }
    }
    symlink("/../../../..", root.path().join("up")).unwrap();
    for (cwd, expected) in [
        ("/up", "/"),
        ("/yard", "/yard"),
        ("/yard/../up/yard", "/yard"),
    ] {
        let mut spec = root.shell("pwd");
        spec.cwd = cwd.into();
        assert_eq!(output(spec).trim_end(), expected);
    }
    let mut spec = root.shell("pwd");
    spec.cwd = "/none".into();
    match outcome(spec) {
        Err(RunError::WorkingDirectory { path, source }) => assert_eq!(
            (path.as_str(), source.raw_os_error()),
            ("/none", Some(libc::ENOENT))
        ),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_program_itself_cannot_be_overwritten() {
    as_subject!(the_program_itself_cannot_be_overwritten);
    // CVE-2019-5736: /proc/self/exe as the command is this program.
    sandbox();
    let root = Root::new();
    let before = fs::metadata("/proc/self/exe").unwrap();
    fs::write(root.path().join("yard/run"), "#!/proc/self/exe\n").unwrap();
    fs::set_permissions(
        root.path().join("yard/run"),
        fs::Permissions::from_mode(0o755),
    )
    .unwrap();
    let mut spec = root.spec(&["/yard/run"]);
    spec.env.push((SUBJECT.into(), "overwrite_self".into()));
    let (exit, out, err) = outcome(spec).unwrap();
    assert_eq!(exit, Exit::Code(0), "{out}{err}");
    assert!(err.contains("refused"), "{out}{err}");
    let after = fs::metadata("/proc/self/exe").unwrap();
    assert_eq!((before.len(), before.mtime()), (after.len(), after.mtime()));
}

fn overwrite_self() {
    // That the program is running (ETXTBSY) would only protect it as long as it runs; a read-only mount is for good.
    File::options()
        .write(true)
        .open("/proc/self/exe")
        .unwrap_err();
    let flags = rustix::fs::statvfs("/proc/self/exe").unwrap().f_flag;
    assert!(
        flags.contains(rustix::fs::StatVfsMountFlags::RDONLY),
        "{flags:?}"
    );
    eprintln!("refused");
}

#[test]
fn a_device_node_can_be_made_by_real_root_and_opened_by_nobody() {
    as_subject!(a_device_node_can_be_made_by_real_root_and_opened_by_nobody);
    let rung = sandbox();
    let root = Root::new();
    let is_real = rung == Rung::Ns
        && fs::read_to_string("/proc/self/uid_map")
            .unwrap()
            .contains("4294967295");
    // 1:3 is /dev/null, harmless if it could be opened.
    let (exit, ..) = outcome(root.shell("mknod /yard/null c 1 3")).unwrap();
    assert_eq!(exit == Exit::Code(0), is_real);
    if is_real {
        check(
            "for d in /yard /dev /tmp /dev/shm; do mknod $d/n c 1 3 2>/dev/null && { echo x > $d/n || echo refused; } 2>/dev/null; done",
            "refused\nrefused\nrefused\nrefused",
        );
    }
    output(root.shell("mknod /yard/fifo p"));
}

#[test]
fn the_kernels_interfaces_are_read_only_or_hidden() {
    as_subject!(the_kernels_interfaces_are_read_only_or_hidden);
    sandbox();
    check(
        "for f in /proc/sys/kernel/hostname /proc/sysrq-trigger /proc/irq/default_smp_affinity; do { echo x > $f; } 2>/dev/null && echo $f; done; true",
        "",
    );
    check(
        "cat /proc/kcore /proc/keys /proc/timer_list /proc/interrupts /proc/sched_debug 2>/dev/null | wc -c",
        "0",
    );
    check(
        "ls /proc/acpi /proc/scsi /sys/firmware 2>/dev/null | grep -v : | grep -c .; true",
        "0",
    );
    check(
        "touch /sys/x 2>&1 | grep -c -i 'read-only\\|permitted\\|denied'",
        "1",
    );
    check(
        "grep ' /sys' /proc/self/mountinfo | grep -c -v ' ro,'; true",
        "0",
    );
    check(
        "for d in $(ls -d /sys/fs/cgroup /sys/fs/cgroup/* 2>/dev/null); do mkdir $d/x 2>/dev/null && echo $d; done; true",
        "",
    );
}

#[test]
fn what_the_profile_forbids_fails() {
    as_subject!(what_the_profile_forbids_fails);
    sandbox();
    check("mount -t tmpfs none /yard 2>/dev/null || echo no", "no");
    check("mount --bind /bin /yard 2>/dev/null || echo no", "no");
    check(
        "unshare -m true 2>/dev/null || echo no; unshare -U true 2>/dev/null || echo no",
        "no\nno",
    );
}

#[test]
fn links_of_the_root_do_not_lead_mounts_outside() {
    as_subject!(links_of_the_root_do_not_lead_mounts_outside);
    sandbox();
    let root = Root::new();
    let outside = TempDir::new().unwrap();
    fs::write(outside.path().join("victim"), "safe").unwrap();
    for name in ["proc", "sys", "dev"] {
        fs::remove_dir(root.path().join(name)).unwrap();
        symlink(
            outside
                .path()
                .join("..")
                .join(outside.path().file_name().unwrap()),
            root.path().join(name),
        )
        .unwrap();
    }
    fs::remove_file(root.path().join("etc/hosts")).unwrap();
    symlink(outside.path().join("victim"), root.path().join("etc/hosts")).unwrap();
    // Whether that can run is not the point.
    let result = outcome(root.shell("echo changed > /etc/hosts"));
    assert_eq!(
        fs::read_to_string(outside.path().join("victim")).unwrap(),
        "safe",
        "{result:?}"
    );
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
}
