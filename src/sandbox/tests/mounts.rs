//! What a command is given to see besides its root, and what is left of it.

use std::os::unix::net::UnixListener;

use super::*;

subjects![
    mounts_are_made_in_order_and_nest,
    the_later_of_two_mounts_on_one_target_wins,
    a_read_only_tree_is_read_only_to_its_last_mount,
    set_user_id_programs_of_a_tree_work_and_devices_do_not,
    a_detached_mount_is_mounted_as_it_is,
    files_and_sockets_are_bound,
    an_empty_directory_has_the_mode_of_what_it_covers_and_its_size,
    a_file_in_memory_has_its_owner_and_mode,
    nothing_of_a_source_stays_open,
    debug_output_hides_contents_and_variables,
    too_many_mounts_are_refused,
    a_mount_over_dev_leaves_standard_input_empty,
];

pub(super) fn mount(target: &str, source: MountSource) -> RunMount {
    RunMount {
        target: target.into(),
        source,
    }
}

pub(super) fn tmpfs(target: &str) -> RunMount {
    mount(target, MountSource::Tmpfs { size: None })
}

pub(super) fn tree(target: &str, path: &Path, read_only: bool) -> RunMount {
    let fd = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
    mount(target, MountSource::Tree { fd, read_only })
}

/// A directory for others to mount, with a directory `d` and a file `f` in it.
pub(super) fn source() -> TempDir {
    let source = TempDir::new().unwrap();
    fs::set_permissions(source.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(source.path().join("d")).unwrap();
    fs::write(source.path().join("f"), "from outside\n").unwrap();
    source
}

pub(super) fn names(path: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Runs a script with mounts in a fresh root; returns its output.
#[track_caller]
pub(super) fn with(mounts: Vec<RunMount>, script: &str) -> String {
    let root = Root::new();
    let before = root.listing();
    let mut spec = root.shell(script);
    spec.mounts = mounts;
    let text = output(spec);
    assert_eq!(root.listing(), before, "{script}");
    text
}

/// Runs a command with mounts that cannot be; returns the error and what caused it.
#[track_caller]
pub(super) fn refused(root: &Root, mounts: Vec<RunMount>) -> String {
    let before = root.listing();
    let mut spec = root.spec(&["true"]);
    spec.mounts = mounts;
    let error = outcome(spec).unwrap_err();
    assert_eq!(root.listing(), before, "{error}");
    match std::error::Error::source(&error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

#[test]
fn mounts_are_made_in_order_and_nest() {
    as_subject!(mounts_are_made_in_order_and_nest);
    sandbox();
    let source = source();
    let text = with(
        vec![
            tmpfs("/m/a"),
            file("/m/a/b/secret", 0o400, "one\n"),
            tree("/m/a/tree", source.path(), true),
            tmpfs("/m/a/tree/d"),
            file("/m/a/tree/d/deep", 0o444, "two\n"),
            file("/yard/here", 0o444, "three\n"),
        ],
        "cat /m/a/b/secret /m/a/tree/f /m/a/tree/d/deep /yard/here; echo x > /m/a/tree/d/new; \
         touch /m/a/tree/new 2>/dev/null || echo read-only; stat -c '%a %u:%g' /m /m/a/b",
    );
    assert_eq!(
        text,
        "one\nfrom outside\ntwo\nthree\nread-only\n755 0:0\n755 0:0\n"
    );
    assert_eq!(names(source.path()), ["d", "f"]);
    assert!(names(&source.path().join("d")).is_empty());
}

#[test]
fn the_later_of_two_mounts_on_one_target_wins() {
    as_subject!(the_later_of_two_mounts_on_one_target_wins);
    sandbox();
    let source = source();
    let files = || vec![file("/m", 0o444, "one\n"), file("/m", 0o444, "two\n")];
    assert_eq!(with(files(), "cat /m"), "two\n");
    let trees = || vec![tmpfs("/yard"), tree("/yard/.", source.path(), true)];
    assert_eq!(with(trees(), "cat /yard/f"), "from outside\n");
    let trees = || vec![tree("/yard", source.path(), true), tmpfs("/yard")];
    assert_eq!(with(trees(), "ls /yard"), "");
    // An earlier one inside is covered.
    let covered = vec![file("/m/f", 0o444, "one\n"), tmpfs("/m")];
    assert_eq!(with(covered, "ls /m"), "");
}

#[test]
fn a_read_only_tree_is_read_only_to_its_last_mount() {
    as_subject!(a_read_only_tree_is_read_only_to_its_last_mount);
    sandbox();
    let source = source();
    // In the builder's own mount namespace.
    let inner = Mount::create("tmpfs", &[], Attributes::empty()).unwrap();
    inner
        .attach_over(source.path().join("d").to_str().unwrap())
        .unwrap();
    fs::write(source.path().join("d/inner"), "inner\n").unwrap();
    let text = with(
        vec![
            tree("/ro", source.path(), true),
            tree("/rw", source.path(), false),
        ],
        "cat /ro/d/inner; for d in /ro /ro/d /rw /rw/d; do touch $d/x 2>/dev/null && echo $d; done; true",
    );
    assert_eq!(text, "inner\n/rw\n/rw/d\n");
    // The source itself is as it was.
    fs::write(source.path().join("d/y"), "").unwrap();
    assert_eq!(names(&source.path().join("d")), ["inner", "x", "y"]);
    drop(inner);
    rustix::mount::unmount(
        source.path().join("d"),
        rustix::mount::UnmountFlags::empty(),
    )
    .unwrap();
}

#[test]
fn set_user_id_programs_of_a_tree_work_and_devices_do_not() {
    as_subject!(set_user_id_programs_of_a_tree_work_and_devices_do_not);
    sandbox();
    let source = source();
    let text = with(
        vec![
            tree("/m/t", source.path(), false),
            tmpfs("/m/e"),
            file("/m/f", 0o444, ""),
        ],
        "while read id parent device root point options rest; do case $point in /m/*) echo $point $options;; esac; done \
         < /proc/self/mountinfo",
    );
    for line in text.lines() {
        let (point, options) = line.split_once(' ').unwrap();
        let has = |option: &str| options.split(',').any(|other| other == option);
        assert!(has("nodev"), "{line}");
        assert_eq!(has("nosuid"), point != "/m/t", "{line}");
        assert_eq!(has("ro"), point == "/m/f", "{line}");
        assert!(!has("noexec"), "{line}");
    }
    assert_eq!(text.lines().count(), 3, "{text}");
}

#[test]
fn a_detached_mount_is_mounted_as_it_is() {
    as_subject!(a_detached_mount_is_mounted_as_it_is);
    sandbox();
    let mounts = [true, false].map(|read_only| {
        let detached = Mount::create("tmpfs", &[("mode", "0711")], Attributes::empty()).unwrap();
        let fd = detached.into_fd();
        (
            format!("/m/{read_only}"),
            MountSource::Tree { fd, read_only },
        )
    });
    let text = with(
        mounts
            .into_iter()
            .map(|(target, source)| mount(&target, source))
            .collect(),
        "stat -c %a /m/true /m/false; touch /m/true/x 2>/dev/null || echo read-only; touch /m/false/x",
    );
    assert_eq!(text, "711\n711\nread-only\n");
}

#[test]
fn files_and_sockets_are_bound() {
    as_subject!(files_and_sockets_are_bound);
    sandbox();
    let source = source();
    let socket = source.path().join("socket");
    let _listener = UnixListener::bind(&socket).unwrap();
    let text = with(
        vec![
            tree("/opt/file", &source.path().join("f"), true),
            tree("/run/agent/0", &socket, false),
        ],
        "cat /opt/file; stat -c %F /run/agent/0",
    );
    assert_eq!(text, "from outside\nsocket\n");
}

#[test]
fn an_empty_directory_has_the_mode_of_what_it_covers_and_its_size() {
    as_subject!(an_empty_directory_has_the_mode_of_what_it_covers_and_its_size);
    sandbox();
    let root = Root::new();
    fs::set_permissions(root.path().join("yard"), fs::Permissions::from_mode(0o2750)).unwrap();
    let mut spec = root.shell(
        "stat -c '%a %u:%g' /yard /tmp /new; dd if=/dev/zero of=/new/a bs=1024 count=20 2>/dev/null || wc -c < /new/a",
    );
    spec.mounts = vec![
        tmpfs("/yard"),
        tmpfs("/tmp"),
        mount("/new", MountSource::Tmpfs { size: Some(16384) }),
    ];
    assert_eq!(output(spec), "2750 0:0\n1777 0:0\n1777 0:0\n16384\n");
}

#[test]
fn a_file_in_memory_has_its_owner_and_mode() {
    as_subject!(a_file_in_memory_has_its_owner_and_mode);
    sandbox();
    let root = Root::new();
    let secret = |target: &str, mode, uid, gid| {
        mount(
            target,
            MountSource::File {
                content: Secret::new(b"s3cret\n".to_vec()),
                mode,
                uid,
                gid,
            },
        )
    };
    let script = "stat -c '%a %u:%g' /run/secrets/*; for f in mine roots groups; do cat /run/secrets/$f 2>/dev/null; done; true";
    let mut spec = root.shell(script);
    (spec.uid, spec.gid) = (1000, 100);
    spec.mounts = vec![
        secret("/run/secrets/mine", 0o400, 1000, 0),
        secret("/run/secrets/roots", 0o400, 0, 0),
        secret("/run/secrets/groups", 0o4040, 7, 100),
    ];
    assert_eq!(
        output(spec),
        "4040 7:100\n400 1000:0\n400 0:0\ns3cret\ns3cret\n"
    );
    assert!(!root.path().join("run").exists());
    let mut spec = root.spec(&["true"]);
    spec.mounts = vec![secret("/m", 0o400, u32::MAX, 0)];
    assert!(matches!(outcome(spec), Err(RunError::Spec(_))));
}

#[test]
fn nothing_of_a_source_stays_open() {
    as_subject!(nothing_of_a_source_stays_open);
    sandbox();
    let scratch = TempDir::new().unwrap();
    let at = scratch.path().join("source");
    fs::create_dir(&at).unwrap();
    let root = Root::new();
    let mut spec = root.shell("ls /proc/1/fd; ls /proc/self/fd | wc -l");
    spec.mounts = vec![tree("/m", &at, true), tmpfs("/n"), file("/o", 0o444, "x")];
    // One for the listing of the directory itself, one for the pipe's place.
    let text = output(spec);
    assert!(text.starts_with("0\n1\n2\n"), "{text}");
    // A directory that is mounted anywhere in this namespace could not be removed.
    fs::remove_dir(&at).unwrap();
    let open: Vec<_> = fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|fd| fs::read_link(fd.unwrap().path()).ok())
        .filter(|path| path.starts_with(scratch.path()))
        .collect();
    assert!(open.is_empty(), "{open:?}");
}

#[test]
fn debug_output_hides_contents_and_variables() {
    as_subject!(debug_output_hides_contents_and_variables);
    let root = Root::new();
    let mut spec = root.spec(&["true"]);
    spec.env.push(("TOKEN".into(), "s3cret".into()));
    spec.mounts = vec![file("/run/secrets/token", 0o400, "s3cret")];
    let printed = format!("{spec:?} {spec:#?}");
    assert!(printed.contains("TOKEN") && printed.contains("/run/secrets/token"));
    // 115, 51 is how a list of bytes begins.
    for trace in ["s3cret", "115, 51", "115,\n"] {
        assert!(!printed.contains(trace), "{printed}");
    }
    // Nor in what goes wrong.
    sandbox();
    for value in ["s3cret\0", "s3cret"] {
        let mut spec = root.spec(&["none"]);
        spec.env.push(("TOKEN".into(), value.into()));
        spec.mounts = vec![file("/yard", 0o400, "s3cret")];
        let error = outcome(spec).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("s3cret"));
    }
}

#[test]
fn too_many_mounts_are_refused() {
    as_subject!(too_many_mounts_are_refused);
    sandbox();
    let source = source();
    let root = Root::new();
    let trees = |count: usize| -> Vec<_> {
        (0..count)
            .map(|at| tree(&format!("/m/{at}"), source.path(), true))
            .collect()
    };
    assert_eq!(with(trees(250), "ls /m | wc -l"), "250\n");
    assert!(refused(&root, trees(251)).contains("more than"));
    // Files are no descriptors.
    let files = (0..300)
        .map(|at| file(&format!("/m/{at}"), 0o444, "x"))
        .collect();
    assert_eq!(with(files, "cat /m/299; ls /m | wc -l"), "x300\n");
}

#[test]
fn a_mount_over_dev_leaves_standard_input_empty() {
    as_subject!(a_mount_over_dev_leaves_standard_input_empty);
    sandbox();
    let source = source();
    fs::write(source.path().join("null"), "not null").unwrap();
    assert_eq!(
        with(vec![tree("/dev", source.path(), true)], "cat; ls /dev"),
        "d\nf\nnull\n"
    );
}
