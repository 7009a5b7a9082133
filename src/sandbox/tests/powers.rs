//! What an insecure command may do, and devices that were asked for.

use rustix::thread::capabilities;

use super::*;

subjects![
    an_insecure_command_has_all_that_the_builder_has,
    an_insecure_command_can_mount,
    nothing_of_the_kernel_is_hidden_from_an_insecure_command,
    an_insecure_command_has_more_devices,
    a_device_that_was_asked_for_is_there,
    a_device_that_cannot_be_given_is_named,
    a_device_has_the_mode_and_owner_that_were_asked_for,
];

fn insecure(root: &Root, script: &str) -> RunSpec {
    let mut spec = root.shell(script);
    spec.security = Security::Insecure;
    spec
}

fn device(source: &str, path: &str) -> DeviceNode {
    DeviceNode {
        source: source.into(),
        path: path.into(),
        permissions: DevicePermissions {
            read: true,
            write: true,
            mknod: true,
        },
        uid: None,
        gid: None,
        mode: None,
    }
}

/// Tells whether device nodes can be made here.
fn is_real_root(rung: Rung) -> bool {
    rung == Rung::Ns
        && fs::read_to_string("/proc/self/uid_map")
            .unwrap()
            .contains("4294967295")
}

#[test]
fn an_insecure_command_has_all_that_the_builder_has() {
    as_subject!(an_insecure_command_has_all_that_the_builder_has);
    sandbox();
    let root = Root::new();
    let script = "grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status | { while read name value; do echo $name $value; done; }";
    let all = format!("{:016x}", capabilities(None).unwrap().permitted.bits());
    let own = fs::read_to_string("/proc/self/status").unwrap();
    let field = |name: &str| {
        let line = own.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().to_owned()
    };
    let (bound, filters) = (field("CapBnd:"), field("Seccomp:"));
    for uid in [0, 1000] {
        let mut spec = insecure(&root, script);
        (spec.uid, spec.gid) = (uid, 100);
        assert_eq!(
            output(spec),
            format!(
                "CapInh: {all}\nCapPrm: {all}\nCapEff: {all}\nCapBnd: {bound}\nCapAmb: {all}\nNoNewPrivs: 0\nSeccomp: {filters}\n"
            )
        );
    }
}

#[test]
fn an_insecure_command_can_mount() {
    as_subject!(an_insecure_command_can_mount);
    sandbox();
    let root = Root::new();
    assert_eq!(
        output(insecure(
            &root,
            "mount -t tmpfs none /yard && touch /yard/x && ls /yard && unshare -m true && echo yes"
        )),
        "x\nyes\n"
    );
    // In its own mount namespace.
    assert_eq!(fs::read_dir(root.path().join("yard")).unwrap().count(), 0);
}

#[test]
fn nothing_of_the_kernel_is_hidden_from_an_insecure_command() {
    as_subject!(nothing_of_the_kernel_is_hidden_from_an_insecure_command);
    let rung = sandbox();
    let root = Root::new();
    let points = "while read id parent device root point options rest; do case $point in /proc*|/sys|/sys/f*) echo $point $options;; esac; done < /proc/self/mountinfo";
    let text = output(insecure(&root, points));
    assert!(!text.contains("/proc/"), "{text}");
    if rung == Rung::Ns {
        assert!(!text.contains(" ro"), "{text}");
        // In the command's own hostname namespace.
        assert_eq!(
            output(insecure(
                &root,
                "echo other > /proc/sys/kernel/hostname; hostname"
            )),
            "other\n"
        );
    }
    assert!(output(root.shell(points)).contains("/proc/"));
}

#[test]
fn an_insecure_command_has_more_devices() {
    as_subject!(an_insecure_command_has_more_devices);
    let rung = sandbox();
    let root = Root::new();
    let text = output(insecure(
        &root,
        "cd /dev; ls -d kmsg cuse fuse kvm net/tun loop-control loop[0-9]* 2>/dev/null; true",
    ));
    for name in ["kmsg", "cuse", "fuse", "kvm", "net/tun", "loop-control"] {
        let is_there = Path::new("/dev").join(name).exists();
        assert_eq!(text.lines().any(|line| line == name), is_there, "{name}");
    }
    if is_real_root(rung) {
        // More loop devices than the host shows, if it shows any.
        let count = |text: &str| {
            text.lines()
                .filter(|line| line.starts_with("loop") && *line != "loop-control")
                .count()
        };
        let host = Path::new("/dev/loop0").exists();
        assert_eq!(count(&text) > 8, host, "{text}");
        assert_eq!(
            output(insecure(
                &root,
                "mknod /yard/null c 1 3; echo x > /yard/null && mknod /dev/n c 1 3 && echo x > /dev/n && echo open"
            )),
            "open\n"
        );
    }
    let usual = output(root.shell("ls /dev | wc -l"));
    assert_eq!(usual, "14\n");
}

#[test]
fn a_device_that_was_asked_for_is_there() {
    as_subject!(a_device_that_was_asked_for_is_there);
    sandbox();
    let root = Root::new();
    let before = root.listing();
    let mut spec = root.shell(
        "for d in /dev/my/zero /opt/zero; do dd if=$d bs=7 count=1 2>/dev/null | wc -c; stat -c %t:%T $d; done; echo x > /opt/null",
    );
    spec.devices = vec![
        device("/dev/zero", "/dev/my/zero"),
        device("/dev/zero", "/opt/zero"),
        device("/dev/null", "/opt/null"),
    ];
    assert_eq!(output(spec), "7\n1:5\n7\n1:5\n");
    assert_eq!(root.listing(), before);
    // Not with every user's rights: those of the node count.
    let mut spec = root.shell("cat /opt/full | dd bs=1 count=1 2>/dev/null | wc -c");
    spec.devices = vec![device("/dev/full", "/opt/full")];
    spec.uid = 1000;
    assert_eq!(output(spec), "1\n");
}

#[test]
fn a_device_that_cannot_be_given_is_named() {
    as_subject!(a_device_that_cannot_be_given_is_named);
    sandbox();
    let root = Root::new();
    let scratch = TempDir::new().unwrap();
    let plain = scratch.path().join("plain");
    fs::write(&plain, "").unwrap();
    let plain = plain.to_str().unwrap();
    for (source, path, expected) in [
        (
            "/dev/none",
            "/dev/x",
            "cannot give the command a device: `/dev/none`".to_owned(),
        ),
        (
            plain,
            "/dev/x",
            format!("cannot give the command a device: `{plain}`"),
        ),
        (
            "dev/null",
            "/dev/x",
            "cannot run this: not the absolute path of a device: `dev/null`".to_owned(),
        ),
        (
            "/dev/null",
            "/",
            "cannot mount at `/`: it is the root".to_owned(),
        ),
        ("/dev/null", "/yard", "cannot mount at `/yard`".to_owned()),
    ] {
        let mut spec = root.spec(&["true"]);
        spec.devices = vec![device(source, path)];
        assert_eq!(outcome(spec).unwrap_err().to_string(), expected);
    }
}

#[test]
fn a_device_has_the_mode_and_owner_that_were_asked_for() {
    as_subject!(a_device_has_the_mode_and_owner_that_were_asked_for);
    let can_make = is_real_root(sandbox());
    let root = Root::new();
    let mut spec = root.shell("stat -c '%a %u:%g' /dev/a /dev/b; chmod 0 /dev/a 2>/dev/null; true");
    let read_only = DevicePermissions {
        read: true,
        write: false,
        mknod: false,
    };
    spec.devices = vec![
        DeviceNode {
            uid: Some(7),
            gid: Some(8),
            mode: Some(0o640),
            ..device("/dev/null", "/dev/a")
        },
        DeviceNode {
            permissions: read_only,
            ..device("/dev/zero", "/dev/b")
        },
    ];
    let host = fs::metadata("/dev/null").unwrap().mode();
    let text = output(spec);
    if can_make {
        let zero = fs::metadata("/dev/zero").unwrap().mode() & 0o7777 & !0o222;
        assert_eq!(text, format!("640 7:8\n{zero:o} 0:0\n"));
    } else {
        // The host's own, as it is.
        assert!(text.starts_with(&format!("{:o} ", host & 0o7777)), "{text}");
    }
    assert_eq!(fs::metadata("/dev/null").unwrap().mode(), host);
}
