//! Where things are mounted: in order, in the root, and without a trace.

use super::mounts::{mount, names, refused, source, tmpfs, tree, with};
use super::*;

subjects![
    a_target_that_is_missing_in_a_read_only_mount_is_refused_with_both_names,
    a_target_that_is_missing_in_a_writable_mount_is_made_and_stays,
    what_was_made_for_mounts_goes_whatever_the_command_did,
    a_command_that_replaces_its_mount_points_keeps_what_it_wrote,
    targets_below_dev_work,
    links_are_followed_inside_the_root_alone,
    root_and_proc_are_no_targets,
    files_of_proc_that_tell_of_the_machine_can_be_covered,
    a_mount_is_of_the_kind_of_its_target,
    a_working_directory_is_entered_after_mounting,
];

#[test]
fn a_target_that_is_missing_in_a_read_only_mount_is_refused_with_both_names() {
    as_subject!(a_target_that_is_missing_in_a_read_only_mount_is_refused_with_both_names);
    sandbox();
    let source = source();
    let root = Root::new();
    for (target, made) in [("/opt/ro/x/y", "directory"), ("/opt/ro/d/x", "file")] {
        let inner = match made {
            "directory" => tmpfs(target),
            _ => file(target, 0o444, "x"),
        };
        let mounts = vec![tree("/opt/ro", source.path(), true), inner];
        assert_eq!(
            refused(&root, mounts),
            format!(
                "cannot mount at `{target}`: it does not exist and cannot be made, since it is in `/opt/ro`, which is \
                 mounted read-only"
            )
        );
    }
    assert!(refused(&root, vec![tmpfs("/sys/none")]).contains("in `/sys`"));
    // What exists is no trouble.
    with(
        vec![
            tree("/opt/ro", source.path(), true),
            tmpfs("/opt/ro/d"),
            file("/opt/ro/f", 0o444, "x"),
        ],
        "touch /opt/ro/d/new",
    );
}

#[test]
fn a_target_that_is_missing_in_a_writable_mount_is_made_and_stays() {
    as_subject!(a_target_that_is_missing_in_a_writable_mount_is_made_and_stays);
    // Another command may have mounted something there meanwhile.
    sandbox();
    let source = source();
    with(
        vec![
            tree("/cache", source.path(), false),
            file("/cache/x/y", 0o444, "y"),
        ],
        "cat /cache/x/y; echo z > /cache/x/z; echo more >> /cache/f",
    );
    assert_eq!(names(&source.path().join("x")), ["y", "z"]);
    assert_eq!(fs::read(source.path().join("x/y")).unwrap(), b"");
    assert_eq!(
        fs::read_to_string(source.path().join("f")).unwrap(),
        "from outside\nmore\n"
    );
}

#[test]
fn what_was_made_for_mounts_goes_whatever_the_command_did() {
    as_subject!(what_was_made_for_mounts_goes_whatever_the_command_did);
    sandbox();
    let at = |root: &Root, path: &str| root.path().join(path);
    let run = |script: &str| {
        let root = Root::new();
        fs::write(root.path().join("yard/f"), "").unwrap();
        let mut spec = root.shell(script);
        spec.mounts = vec![
            file("/m/n/f", 0o444, "x"),
            tmpfs("/m/d"),
            tmpfs("/yard/new"),
        ];
        outcome(spec).unwrap();
        root
    };
    // Nothing, success or not.
    for script in ["true", "exit 1", "kill -9 $$"] {
        let root = run(script);
        assert!(!at(&root, "m").exists() && !at(&root, "yard/new").exists());
    }
    // Files beside.
    let root = run("echo own > /m/n/own");
    assert_eq!(names(&at(&root, "m")), ["n"]);
    assert_eq!(names(&at(&root, "m/n")), ["own"]);
    // A parent renamed, and something that is not ours in its place: a directory of the same names.
    let root = run("mv /m /moved && mkdir -p /m/n /m/d && : > /m/n/f");
    assert_eq!(names(&at(&root, "m/n")), ["f"]);
    assert!(at(&root, "m/d").is_dir());
    assert!(!at(&root, "moved/n").exists());
    // A link to a directory of the image with the same name in it.
    let root = run("mv /m/n /m/old && ln -s /yard /m/n");
    assert!(at(&root, "m/n").is_symlink());
    assert!(at(&root, "yard/f").exists());
    // A link that would lead out.
    let outside = TempDir::new().unwrap();
    fs::write(outside.path().join("f"), "").unwrap();
    let root = run(&format!(
        "mv /m/n /m/old && ln -s {} /m/n",
        outside.path().display()
    ));
    assert!(at(&root, "m/n").is_symlink());
    assert_eq!(names(outside.path()), ["f"]);
}

#[test]
fn a_command_that_replaces_its_mount_points_keeps_what_it_wrote() {
    as_subject!(a_command_that_replaces_its_mount_points_keeps_what_it_wrote);
    sandbox();
    let root = Root::new();
    // Only an insecure command can.
    let mut spec = root.shell(
        "umount /m/f && rm /m/f && : > /m/f && umount /m/g && echo x > /m/g && umount /m/h && ln /m/h /m/i",
    );
    spec.security = Security::Insecure;
    spec.mounts = ["/m/f", "/m/g", "/m/h", "/m/gone"]
        .map(|target| file(target, 0o444, "x"))
        .into();
    output(spec);
    assert_eq!(names(&root.path().join("m")), ["f", "g", "h", "i"]);
}

#[test]
fn targets_below_dev_work() {
    as_subject!(targets_below_dev_work);
    sandbox();
    let source = source();
    let text = with(
        vec![
            file("/dev/shm/secret", 0o400, "one\n"),
            file("/dev/a/b", 0o444, "two\n"),
            tree("/dev/tree", source.path(), true),
            tmpfs("/dev/empty"),
        ],
        "cat /dev/shm/secret /dev/a/b /dev/tree/f; touch /dev/empty/x /dev/shm/y; ls /dev/empty",
    );
    assert_eq!(text, "one\ntwo\nfrom outside\nx\n");
    let small = mount("/dev/shm", MountSource::Tmpfs { size: Some(8192) });
    assert_eq!(
        with(
            vec![small],
            "dd if=/dev/zero of=/dev/shm/a bs=1024 count=9 2>/dev/null || wc -c < /dev/shm/a"
        ),
        "8192\n"
    );
}

#[test]
fn links_are_followed_inside_the_root_alone() {
    as_subject!(links_are_followed_inside_the_root_alone);
    sandbox();
    let outside = TempDir::new().unwrap();
    let root = Root::new();
    symlink("/yard", root.path().join("in")).unwrap();
    symlink(outside.path(), root.path().join("out")).unwrap();
    symlink("../../../../../../yard/up", root.path().join("up")).unwrap();
    symlink("loop", root.path().join("loop")).unwrap();
    let before = root.listing();
    let inner = outside.path().display();
    let mut spec = root.shell(&format!(
        "cat /yard/one {inner}/two /yard/up /out/two; ls -d /in /out /up | wc -l"
    ));
    spec.mounts = vec![
        file("/in/one", 0o444, "1\n"),
        file("/out/two", 0o444, "2\n"),
        file("/up", 0o444, "3\n"),
    ];
    assert_eq!(output(spec), "1\n2\n3\n2\n3\n");
    assert_eq!(root.listing(), before);
    assert!(names(outside.path()).is_empty());
    assert!(refused(&root, vec![tmpfs("/loop/x")]).starts_with("cannot mount at `/loop/x`: "));
    // A link in an earlier mount: from the source, but the root's.
    let source = source();
    symlink("/yard/z", source.path().join("link")).unwrap();
    let mut spec = root.shell("cat /yard/z");
    spec.mounts = vec![
        tree("/m", source.path(), true),
        file("/m/link", 0o444, "z\n"),
    ];
    assert_eq!(output(spec), "z\n");
    assert_eq!(root.listing(), before);
}

#[test]
fn root_and_proc_are_no_targets() {
    as_subject!(root_and_proc_are_no_targets);
    sandbox();
    let root = Root::new();
    symlink("/", root.path().join("up")).unwrap();
    symlink("/proc/sys", root.path().join("kernel")).unwrap();
    symlink("/proc", root.path().join("processes")).unwrap();
    symlink("/proc/self/cwd", root.path().join("here")).unwrap();
    for (target, why) in [
        ("/", "it is the root"),
        ("//.", "it is the root"),
        ("/up", "it is the root"),
        ("/up/..", "it is the root"),
        ("/proc", "it is in /proc"),
        ("/proc/sys/kernel", "it is in /proc"),
        ("/kernel", "it is in /proc"),
        ("/processes", "it is in /proc"),
        ("/processes/1", "it is in /proc"),
        ("relative", "not an absolute path"),
    ] {
        assert_eq!(
            refused(&root, vec![tmpfs(target)]),
            format!("cannot mount at `{target}`: {why}")
        );
    }
    // The link's text, which is the host's path, is a path in the root.
    let text = refused(&root, vec![tmpfs("/proc/1/root/x")]);
    assert!(text.ends_with("it is in /proc"), "{text}");
    let mut spec = root.shell("cat /proc/1/cmdline | wc -c");
    spec.mounts = vec![tmpfs("/here/x")];
    assert!(outcome(spec).is_ok());
    // What cannot be made there.
    assert!(refused(&root, vec![tmpfs("/processes/none")]).starts_with("cannot mount at"));
}

#[test]
fn files_of_proc_that_tell_of_the_machine_can_be_covered() {
    as_subject!(files_of_proc_that_tell_of_the_machine_can_be_covered);
    sandbox();
    let cover = vec![file("/proc/cpuinfo", 0o444, "none\n")];
    assert_eq!(with(cover, "cat /proc/cpuinfo"), "none\n");
    assert_eq!(with(vec![tmpfs("/sys/fs/cgroup")], "ls /sys/fs/cgroup"), "");
}

#[test]
fn a_mount_is_of_the_kind_of_its_target() {
    as_subject!(a_mount_is_of_the_kind_of_its_target);
    sandbox();
    let root = Root::new();
    let source = source();
    fs::write(root.path().join("yard/f"), "").unwrap();
    for (mount, target, errno) in [
        (tmpfs("/yard/f"), "/yard/f", libc::ENOTDIR),
        (file("/yard", 0o444, "x"), "/yard", libc::EISDIR),
        (tmpfs("/yard/f/x"), "/yard/f/x", libc::ENOTDIR),
        (
            tree("/yard", &source.path().join("f"), true),
            "/yard",
            libc::EISDIR,
        ),
    ] {
        let cause = std::io::Error::from_raw_os_error(errno);
        assert_eq!(
            refused(&root, vec![mount]),
            format!("cannot mount at `{target}`: {cause}")
        );
    }
    symlink("f", source.path().join("link")).unwrap();
    let link = rustix::fs::open(
        source.path().join("link"),
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .unwrap();
    let source = MountSource::Tree {
        fd: link,
        read_only: true,
    };
    assert_eq!(
        refused(&root, vec![mount("/m", source)]),
        "cannot mount at `/m`: what is to be mounted is a symbolic link"
    );
}

#[test]
fn a_working_directory_is_entered_after_mounting() {
    as_subject!(a_working_directory_is_entered_after_mounting);
    sandbox();
    let source = source();
    let root = Root::new();
    let run = |cwd: &str, mounts: Vec<RunMount>| {
        let mut spec = root.shell("pwd; ls; stat -c '%a %u' .");
        spec.cwd = cwd.into();
        spec.mounts = mounts;
        outcome(spec).map(|(_, out, _)| out)
    };
    let over = |read_only| vec![tree("/yard", source.path(), read_only)];
    assert_eq!(run("/yard", over(true)).unwrap(), "/yard\nd\nf\n755 0\n");
    assert_eq!(run("/yard/d", over(true)).unwrap(), "/yard/d\n755 0\n");
    // Made where it can be made, in the mount.
    assert_eq!(
        run("/yard/x/y", vec![tmpfs("/yard")]).unwrap(),
        "/yard/x/y\n755 0\n"
    );
    let failure = |cwd: &str, mounts| match run(cwd, mounts) {
        Err(RunError::WorkingDirectory { path, source }) => (path, source.raw_os_error()),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        failure("/yard/x", over(true)),
        ("/yard/x".to_owned(), Some(libc::EROFS))
    );
    assert_eq!(
        failure("/none", over(true)),
        ("/none".to_owned(), Some(libc::ENOENT))
    );
    assert!(!root.path().join("yard/x").exists());
}
