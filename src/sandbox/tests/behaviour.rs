//! What a command finds and what comes back of it.

use super::*;

subjects![
    output_and_exit_code_come_back,
    a_signal_is_no_exit_code,
    the_command_is_pid_1_of_its_own_world,
    the_environment_is_exactly_what_was_given,
    users_and_groups_are_those_asked_for,
    files_that_root_makes_belong_to_root,
    set_user_id_programs_work,
    failures_to_execute_are_told_apart,
    devices_are_the_usual_ones,
    shared_memory_has_its_size,
    etc_hosts_and_resolv_conf_are_the_commands_own,
    mount_points_that_were_missing_leave_no_trace,
    mounted_files_are_read_only_and_executable,
    no_network_is_a_loopback_interface,
    limits_are_set_and_clamped,
    ignored_signals_are_not_inherited,
    a_detached_overlay_is_a_root,
];

#[test]
fn output_and_exit_code_come_back() {
    as_subject!(output_and_exit_code_come_back);
    sandbox();
    let root = Root::new();
    let (exit, out, err) = outcome(root.shell("echo out; echo err >&2; exit 7")).unwrap();
    assert_eq!(
        (exit, out.as_str(), err.as_str()),
        (Exit::Code(7), "out\n", "err\n")
    );
    let mut length = 0;
    run(
        root.shell("dd if=/dev/zero bs=65536 count=160 2>/dev/null"),
        &mut |_, bytes| length += bytes.len(),
        &Cancel::new(),
    )
    .unwrap();
    assert_eq!(length, 160 * 65536);
}

#[test]
fn a_signal_is_no_exit_code() {
    as_subject!(a_signal_is_no_exit_code);
    sandbox();
    let root = Root::new();
    // Pid 1 is deaf to its own signals; the limit's SIGKILL comes from the kernel.
    let mut spec = root.shell("while :; do :; done");
    spec.ulimits = vec![Ulimit {
        name: "cpu".into(),
        soft: 1,
        hard: 1,
    }];
    assert_eq!(outcome(spec).unwrap().0, Exit::Signal(9));
}

#[test]
fn the_command_is_pid_1_of_its_own_world() {
    as_subject!(the_command_is_pid_1_of_its_own_world);
    sandbox();
    check("echo $$; set -- /proc/[0-9]*; echo $#", "1\n1");
    check(
        "case $(readlink /proc/self/exe) in /bin/readlink | /bin/busybox) ls /proc/1/fd;; esac; true",
        "0\n1\n2",
    );
    check("hostname", "buildbox");
    check(
        "cat /proc/1/stat | { read a b c d e f g; echo $d $e $f; }",
        "0 1 1",
    );
}

#[test]
fn the_environment_is_exactly_what_was_given() {
    as_subject!(the_environment_is_exactly_what_was_given);
    // SAFETY: the subject has one thread.
    unsafe { std::env::set_var("BUILDER_SECRET", "s3cret") };
    sandbox();
    let root = Root::new();
    let mut spec = root.spec(&["env"]);
    spec.env.push(("A".into(), "1=2".into()));
    spec.env.push(("EMPTY".into(), String::new()));
    assert_eq!(output(spec), "PATH=/bin\nA=1=2\nEMPTY=\n");
    check("cat /proc/*/environ | grep -c s3cret; true", "0");
}

#[test]
fn users_and_groups_are_those_asked_for() {
    as_subject!(users_and_groups_are_those_asked_for);
    sandbox();
    let root = Root::new();
    let script = "grep -E '^(Uid|Gid|Groups):' /proc/self/status | { while read line; do echo $line; done; }; echo x > /dev/stdout";
    let mut spec = root.shell(script);
    (spec.uid, spec.gid, spec.groups) = (1000, 100, vec![27, 4]);
    assert_eq!(
        output(spec),
        "Uid: 1000 1000 1000 1000\nGid: 100 100 100 100\nGroups: 4 27\nx\n"
    );
    assert_eq!(
        output(root.shell(script)),
        "Uid: 0 0 0 0\nGid: 0 0 0 0\nGroups:\nx\n"
    );
    for uid in [u32::MAX, u32::MAX - 1] {
        let mut spec = root.spec(&["true"]);
        spec.uid = uid;
        match (uid, outcome(spec)) {
            (u32::MAX, Err(RunError::Spec(_))) => {}
            // A user like any other for real root, not mapped for others.
            (_, Ok((Exit::Code(0), ..)) | Err(RunError::Identity { .. })) if uid != u32::MAX => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn files_that_root_makes_belong_to_root() {
    as_subject!(files_that_root_makes_belong_to_root);
    sandbox();
    let root = Root::new();
    output(root.shell("umask; touch /yard/a; chown 33:34 /yard/a; touch /yard/b; mkdir /yard/d"));
    let owner = |name: &str| {
        let m = fs::metadata(root.path().join("yard").join(name)).unwrap();
        (m.uid(), m.gid(), m.mode() & 0o7777)
    };
    assert_eq!(owner("a"), (33, 34, 0o644));
    assert_eq!(owner("b"), (0, 0, 0o644));
    assert_eq!(owner("d"), (0, 0, 0o755));
}

#[test]
fn set_user_id_programs_work() {
    as_subject!(set_user_id_programs_work);
    sandbox();
    let root = Root::new();
    // Not busybox's: that gives the power away.
    let Some(cat) = ["/bin/cat", "/usr/bin/cat"]
        .iter()
        .map(Path::new)
        .find(|path| path.exists() && !path.is_symlink())
    else {
        skip("no cat of its own");
    };
    fs::remove_file(root.path().join("bin/cat")).unwrap();
    copy_program(root.path(), cat, "cat");
    fs::set_permissions(
        root.path().join("bin/cat"),
        fs::Permissions::from_mode(0o4755),
    )
    .unwrap();
    let mut spec = root.spec(&["cat", "/proc/self/status"]);
    (spec.uid, spec.gid) = (1000, 1000);
    let status = output(spec);
    assert!(status.contains("Uid:\t1000\t0\t0\t0"), "{status}");
    assert!(
        status.contains(&format!("CapEff:\t{}", root_capabilities(&status))),
        "{status}"
    );
}

#[test]
fn failures_to_execute_are_told_apart() {
    as_subject!(failures_to_execute_are_told_apart);
    sandbox();
    let root = Root::new();
    let file = |name: &str, content: &[u8], mode| {
        let path = root.path().join("yard").join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    };
    file("plain", b"#!/bin/sh\n", 0o644);
    file("noise", b"\x7fELF not really", 0o755);
    file("orphan", b"#!/none/perl\n", 0o755);
    let failure = |argv: &[&str]| outcome(root.spec(argv)).unwrap_err().to_string();
    assert_eq!(failure(&["none"]), "command not found: `none`");
    assert_eq!(failure(&["/none"]), "command not found: `/none`");
    assert_eq!(
        failure(&["/yard/orphan"]),
        "the interpreter of `/yard/orphan` is not in the image"
    );
    for (program, errno) in [
        ("/yard/plain", libc::EACCES),
        ("/yard/noise", libc::ENOEXEC),
        ("/yard", libc::EACCES),
    ] {
        match outcome(root.spec(&[program])) {
            Err(RunError::Exec {
                program: named,
                source,
            }) => assert_eq!(
                (named.as_str(), source.raw_os_error()),
                (program, Some(errno))
            ),
            other => panic!("{other:?}"),
        }
    }
    assert!(matches!(outcome(root.spec(&[])), Err(RunError::Spec(_))));
    assert!(matches!(
        outcome(root.spec(&["a\0b"])),
        Err(RunError::Spec(_))
    ));
}

#[test]
fn devices_are_the_usual_ones() {
    as_subject!(devices_are_the_usual_ones);
    sandbox();
    check(
        "ls /dev",
        "fd\nfull\nmqueue\nnull\nptmx\npts\nrandom\nshm\nstderr\nstdin\nstdout\ntty\nurandom\nzero",
    );
    check(
        "dd if=/dev/urandom bs=100 count=1 2>/dev/null | wc -c; cat /dev/stdin; cat < /dev/null; echo a > /dev/null; echo b | cat /dev/fd/0",
        "100\nb",
    );
    check("echo x > /dev/full 2>/dev/null || echo full", "full");
    check("ls /dev/pts", "ptmx");
    let host = fs::metadata("/dev/null").unwrap();
    check(
        "for d in null zero full random urandom tty; do stat -c '%a %t:%T' /dev/$d; done; chmod 600 /dev/null 2>/dev/null; true",
        "666 1:3\n666 1:5\n666 1:7\n666 1:8\n666 1:9\n666 5:0",
    );
    assert_eq!(fs::metadata("/dev/null").unwrap().mode(), host.mode());
    check("echo x > /dev/tty 2>/dev/null || echo none", "none");
}

#[test]
fn shared_memory_has_its_size() {
    as_subject!(shared_memory_has_its_size);
    sandbox();
    check(
        "dd if=/dev/zero of=/dev/shm/a bs=1024 count=1024 2>/dev/null && echo fits; dd if=/dev/zero of=/dev/shm/b bs=1024 count=1 2>/dev/null || echo full",
        "fits\nfull",
    );
    check("stat -c %a /dev/shm", "1777");
}

#[test]
fn etc_hosts_and_resolv_conf_are_the_commands_own() {
    as_subject!(etc_hosts_and_resolv_conf_are_the_commands_own);
    sandbox();
    let root = Root::new();
    fs::write(root.path().join("etc/hosts"), "image's\n").unwrap();
    let text = output(root.shell("cat /etc/resolv.conf /etc/hosts; echo '1.2.3.4 x' >> /etc/hosts; echo y > /etc/resolv.conf; cat /etc/resolv.conf; stat -c '%u %g %a' /etc/hosts"));
    assert_eq!(
        text,
        "nameserver 192.0.2.1\n127.0.0.1\tlocalhost buildbox\n::1\tlocalhost ip6-localhost ip6-loopback\ny\n0 0 644\n"
    );
    assert_eq!(
        fs::read_to_string(root.path().join("etc/hosts")).unwrap(),
        "image's\n"
    );
    assert_eq!(
        fs::read_to_string(root.path().join("etc/resolv.conf")).unwrap(),
        ""
    );
}

#[test]
fn mount_points_that_were_missing_leave_no_trace() {
    as_subject!(mount_points_that_were_missing_leave_no_trace);
    sandbox();
    let root = Root::new();
    for name in ["etc/hosts", "etc/resolv.conf"] {
        fs::remove_file(root.path().join(name)).unwrap();
    }
    symlink(
        "../run/systemd/resolve/stub.conf",
        root.path().join("etc/resolv.conf"),
    )
    .unwrap();
    for name in ["proc", "sys", "dev"] {
        fs::remove_dir(root.path().join(name)).unwrap();
    }
    let before = fs::metadata(root.path().join("etc")).unwrap().mtime_nsec();
    let mut spec =
        root.shell("cat /etc/resolv.conf /run/systemd/resolve/stub.conf /opt/x/y; exit 3");
    spec.mounts = vec![file("/opt/x/y", 0o600, "file\n")];
    let (exit, out, err) = outcome(spec).unwrap();
    assert_eq!(
        (exit, out.as_str(), err.as_str()),
        (
            Exit::Code(3),
            "nameserver 192.0.2.1\nnameserver 192.0.2.1\nfile\n",
            ""
        )
    );
    let left: Vec<_> = root.listing().into_iter().collect();
    // The three stay, as empty directories.
    assert_eq!(
        left,
        [
            "dev 0",
            "etc 0",
            "etc/resolv.conf 0",
            "proc 0",
            "sys 0",
            "tmp 0",
            "yard 0"
        ]
    );
    assert_eq!(
        fs::metadata(root.path().join("etc")).unwrap().mtime_nsec(),
        before
    );
    // The same when the command never ran.
    let mut spec = root.spec(&["none"]);
    spec.mounts = vec![file("/opt/x/y", 0o600, "")];
    outcome(spec).unwrap_err();
    assert_eq!(root.listing().len(), 7);
}

#[test]
fn mounted_files_are_read_only_and_executable() {
    as_subject!(mounted_files_are_read_only_and_executable);
    sandbox();
    let root = Root::new();
    let mut spec = root.shell("/dev/pipes/EOF; /dev/pipes/EOF2; echo x >> /dev/pipes/EOF; rm /dev/pipes/EOF; ls /dev/pipes; stat -c '%u %a' /dev/pipes/EOF; cat /yard/big | wc -c");
    spec.mounts = vec![
        file("/dev/pipes/EOF", 0o755, "#!/bin/sh\necho one\n"),
        file("/dev/pipes/EOF2", 0o755, "#!/bin/sh\necho two\n"),
        file("/yard/big", 0o755, &"x".repeat(80 << 20)),
    ];
    let (exit, out, err) = outcome(spec).unwrap();
    assert_eq!(
        (exit, out.as_str()),
        (Exit::Code(0), "one\ntwo\nEOF\nEOF2\n0 755\n83886080\n")
    );
    assert_eq!(err.lines().count(), 2, "{err}");
    assert!(!root.path().join("yard/big").exists());
}

#[test]
fn no_network_is_a_loopback_interface() {
    as_subject!(no_network_is_a_loopback_interface);
    if sandbox() == Rung::Ns
        && !rustix::thread::capabilities(None)
            .unwrap()
            .effective
            .contains(rustix::thread::CapabilitySet::NET_ADMIN)
    {
        skip("root without CAP_NET_ADMIN");
    }
    let root = Root::new();
    let mut spec = root.shell(
        "ls /sys/class/net; grep -c : /proc/net/dev; cat /proc/net/fib_trie | grep -c 127.0.0.1",
    );
    spec.network = NetworkMode::None;
    let text = output(spec);
    assert!(
        text.starts_with("lo\n1\n") && !text.ends_with("\n0\n"),
        "{text}"
    );
    let here = fs::read_link("/proc/self/ns/net").unwrap();
    for network in [NetworkMode::Default, NetworkMode::Host] {
        let mut spec = root.spec(&["readlink", "/proc/self/ns/net"]);
        spec.network = network;
        assert_eq!(Path::new(output(spec).trim_end()), here);
    }
}

#[test]
fn limits_are_set_and_clamped() {
    as_subject!(limits_are_set_and_clamped);
    sandbox();
    let root = Root::new();
    let limits = |soft, hard| {
        let mut spec = root.shell("ulimit -S -n; ulimit -H -n; ulimit -c");
        spec.ulimits = vec![
            Ulimit {
                name: "nofile".into(),
                soft,
                hard,
            },
            Ulimit {
                name: "core".into(),
                soft: 0,
                hard: 0,
            },
        ];
        output(spec)
    };
    assert_eq!(limits(100, 200), "100\n200\n0\n");
    // More than anyone may have.
    let most = limits(u64::MAX, u64::MAX);
    assert_eq!(most.lines().count(), 3, "{most}");
    assert!(!most.contains("unlimited"), "{most}");
    let mut spec = root.spec(&["true"]);
    spec.ulimits = vec![Ulimit {
        name: "none".into(),
        soft: 0,
        hard: 0,
    }];
    assert!(matches!(outcome(spec), Err(RunError::Spec(_))));
}

#[test]
fn ignored_signals_are_not_inherited() {
    as_subject!(ignored_signals_are_not_inherited);
    // SAFETY: installs no code.
    unsafe { libc::signal(libc::SIGHUP, libc::SIG_IGN) };
    sandbox();
    check(
        "grep -E '^Sig(Blk|Ign)' /proc/self/status | { while read name value; do echo $name $value; done; }",
        "SigBlk: 0000000000000000\nSigIgn: 0000000000000000",
    );
}

#[test]
fn a_detached_overlay_is_a_root() {
    as_subject!(a_detached_overlay_is_a_root);
    sandbox();
    let root = Root::new();
    fs::write(root.path().join("tmp/gone"), "").unwrap();
    let upper = TempDir::new().unwrap();
    for name in ["u", "w"] {
        fs::create_dir(upper.path().join(name)).unwrap();
    }
    let path = |name: &str| upper.path().join(name).to_str().unwrap().to_owned();
    let options = [
        ("lowerdir", root.path().to_str().unwrap()),
        ("upperdir", &path("u")),
        ("workdir", &path("w")),
    ];
    let Ok(mount) = Mount::create("overlay", &options, Attributes::empty()) else {
        skip("no overlay on this file system")
    };
    let mut spec = root.shell(
        "mkdir /yard/d; echo x > /yard/d/f; rm /tmp/gone; while read id parent device root point options rest; do \
         case $point in /) echo $point $rest;; esac; done < /proc/self/mountinfo",
    );
    spec.root = mount.into_fd();
    let text = output(spec);
    assert!(text.starts_with("/ - overlay "), "{text}");
    let upper = upper.path().join("u");
    assert_eq!(fs::read_to_string(upper.join("yard/d/f")).unwrap(), "x\n");
    // A whiteout, and nothing of what was mounted.
    assert!(!fs::metadata(upper.join("tmp/gone")).unwrap().is_file());
    assert!(!upper.join("etc").exists() && !upper.join("dev").exists());
}
