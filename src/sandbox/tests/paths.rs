//! Commands without namespaces, as an ordinary user; and the same as root in a root directory of their own.
//!
//! The subjects of `paths` become nobody first, so that nothing here needs a right; all the same their commands are user 0, have
//! what mounts would give them, and see nothing of the machine. Those of `chroot` keep user 0.

use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use crate::vocab::{Attributes, Ledger, Rung};

use super::super::survey::Choice;
use super::*;

subjects!(
    attacks,
    chroot_attacks,
    chroot_drive,
    chroot_endings,
    chroot_lookups,
    chroot_mounted_programs,
    chroot_mounts,
    chroot_descriptors,
    chroot_ownership,
    chroot_programs,
    descriptors,
    drive,
    endings,
    lookups,
    mounted_programs,
    mounts,
    ownership,
    programs
);

/// Makes a subject of the same on the rung `chroot`.
macro_rules! in_chroot {
    ($($name:ident $of:ident),* $(,)?) => {$(
        fn $name() {
            RUNG.set(Rung::Chroot).unwrap();
            $of();
        }
    )*};
}

in_chroot!(
    chroot_attacks attacks,
    chroot_descriptors descriptors,
    chroot_drive drive,
    chroot_endings endings,
    chroot_lookups lookups,
    chroot_mounted_programs mounted_programs,
    chroot_mounts mounts,
    chroot_ownership ownership,
    chroot_programs programs,
);

/// Where it is not `paths`.
static RUNG: std::sync::OnceLock<Rung> = std::sync::OnceLock::new();

/// Has a subject performed on both rungs.
macro_rules! as_subjects {
    ($of:ident, $name:ident) => {
        perform(stringify!($of));
        perform(stringify!($name));
    };
}

/// A user who owns nothing.
const NOBODY: u32 = 65534;

/// Becomes an ordinary user without a way back, unless user 0 is what the rung needs, and enters.
fn enter_bare() {
    let rung = *RUNG.get_or_init(|| Rung::Paths);
    if rung == Rung::Chroot {
        let wanted = Wanted {
            rung: Some(rung),
            ..Wanted::default()
        };
        match choose(&wanted).and_then(|choice| enter(&choice)) {
            Ok(_) => return,
            Err(error) => skip(&error.to_string()),
        }
    }
    if rustix::process::geteuid().is_root() && set_thread_groups(&[]).is_ok() {
        let (uid, gid) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
        set_thread_res_gid(gid, gid, gid).unwrap();
        set_thread_res_uid(uid, uid, uid).unwrap();
    }
    rustix::thread::set_no_new_privs(true).unwrap();
    let choice = Choice {
        rung,
        lacks: Vec::new(),
        refused: Vec::new(),
    };
    enter(&choice).unwrap();
}

/// A directory for one command.
fn scratch() -> (TempDir, OwnedFd) {
    let directory = TempDir::new().unwrap();
    let fd = open(directory.path());
    (directory, fd)
}

fn open(path: &Path) -> OwnedFd {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).unwrap()
}

/// Runs a script in a root; returns what it printed and the ledger at its end.
#[track_caller]
fn run_in(root: &Root, script: &str, change: impl FnOnce(&mut RunSpec)) -> (String, Ledger) {
    let (_held, scratch) = scratch();
    let mut spec = RunSpec {
        ledger: Some(Ledger::default()),
        scratch: Some(scratch),
        // One stream, so that lines come in the order in which they were written.
        ..root.shell(&format!("exec 2>&1; {script}"))
    };
    change(&mut spec);
    let mut printed = Vec::new();
    let ended = run(
        spec,
        &mut |_, bytes| printed.extend_from_slice(bytes),
        &Cancel::new(),
    );
    let printed = String::from_utf8_lossy(&printed).trim_end().to_owned();
    match ended {
        Ok(ended) => (printed, ended.ledger.expect("one was given")),
        Err(error) => panic!("{script}: {error}\n{printed}"),
    }
}

#[track_caller]
fn check_in(root: &Root, script: &str, expected: &str) -> Ledger {
    let (printed, ledger) = run_in(root, script, |_| ());
    assert_eq!(printed, expected, "{script}");
    ledger
}

#[test]
fn a_file_is_opened_whoever_else_stops_meanwhile() {
    as_subjects!(descriptors, chroot_descriptors);
}

/// The kernel gives a descriptor in a wait of its own: interrupted by the stop of another process, it gave none and said 0.
fn descriptors() {
    enter_bare();
    let script = "echo x > /yard/x; (while :; do (:); done) & n=0; \
        while [ $n -lt 5000 ]; do read a < /yard/x || echo gone; n=$((n+1)); done; kill $!; echo read";
    check_in(&Root::new(), script, "read");
}

#[test]
fn paths_mean_what_they_mean_in_a_root_of_their_own() {
    as_subjects!(lookups, chroot_lookups);
}

fn lookups() {
    enter_bare();
    let root = Root::new();
    for (script, expected) in [
        ("pwd; cd /yard; pwd; cd ..; pwd", "/\n/yard\n/"),
        (
            "mkdir -p /yard/a/b; cd /yard/a/b; echo x > ../f; cat /yard/a/f",
            "x",
        ),
        (
            "ln -s /yard/a /yard/l; cat /yard/l/f /yard/l/../a/f",
            "x\nx",
        ),
        ("ln -s ../../../../yard/a/f /yard/up; cat /yard/up", "x"),
        (
            "ln -s /yard/new /yard/dangling; echo y > /yard/dangling; cat /yard/new",
            "y",
        ),
        (
            "ln -s loop /yard/loop; cat /yard/loop 2>&1 | grep -c 'symbolic links'",
            "1",
        ),
        ("cat /yard/a/f/ 2>&1 | grep -c 'Not a directory'", "1"),
        ("cat /yard/none/../a/f 2>&1 | grep -c 'No such file'", "1"),
        (
            "mv /yard/a /yard/c; cat /yard/c/f; cat /yard/a/f 2>/dev/null || echo gone",
            "x\ngone",
        ),
        (
            "cd /yard/c; mv /yard/c /yard/d; cat f; pwd -P",
            "x\n/yard/d",
        ),
        ("rm -r /yard/d; ls /yard/d 2>/dev/null || echo gone", "gone"),
        (
            "readlink /yard/l; readlink /proc/self/cwd; readlink /proc/self/root",
            "/yard/a\n/\n/",
        ),
        ("readlink /proc/self/exe | grep -c ^/bin/", "1"),
        (
            "echo piped | cat /dev/stdin; echo z > /dev/stdout; echo n > /dev/null",
            "piped\nz",
        ),
        (
            "cat <&0; cd /dev; cat null; wc -c < /dev/zero & kill $!; echo fine",
            "fine",
        ),
        (
            "cd /proc/self; grep -c ^Pid: status; cd /proc; ls -d self",
            "1\nself",
        ),
        (
            "grep -E '^(Uid|TracerPid)' /proc/self/status",
            "TracerPid:\t0\nUid:\t0\t0\t0\t0",
        ),
        ("cat /proc/mounts | grep -c ' /proc proc '", "1"),
        (
            "cd /dev/fd/; cd ..; pwd; cd /proc/self/../self/fd && ls 0",
            "/dev\n0",
        ),
        (
            "ln -s ../proc/self/mounts /etc/mtab; grep -c ' /proc proc ' /etc/mtab; ln -s /proc/self/fd/1 /yard/out; echo out > /yard/out",
            "1\nout",
        ),
        (
            "cd /yard; ln -s /proc p; grep -c ^Name: p/self/status p/../proc/self/status",
            "p/self/status:1\np/../proc/self/status:1",
        ),
        (
            "cd /yard; ln -s nowhere/../../etc/hosts h; cat h 2>/dev/null || echo gone",
            "gone",
        ),
        (
            "cd /yard; ln -s ../etc/resolv.conf r; ln -s r s; cat r s; cat /etc/../etc//resolv.conf",
            "nameserver 192.0.2.1\nnameserver 192.0.2.1\nnameserver 192.0.2.1",
        ),
        (
            "cd /yard; mkdir real; echo on disk > real/f; ln -s real via; cat via/f; rm via; ln -s /dev via; ls via/null; mv real etc; cat etc/f",
            "on disk\nvia/null\non disk",
        ),
        (
            "cat /dev/full | head -c 3 | wc -c; { echo x > /dev/full; } 2>/dev/null || echo full",
            "3\nfull",
        ),
        ("hostname", "buildbox"),
        ("cat /etc/resolv.conf", "nameserver 192.0.2.1"),
    ] {
        check_in(&root, script, expected);
    }
}

#[test]
fn programs_of_every_kind_are_executed() {
    as_subjects!(programs, chroot_programs);
}

fn programs() {
    enter_bare();
    let root = Root::new();
    let script = |name: &str, text: &str| {
        let path = root.path().join("yard").join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    script("shell", "#!/bin/sh\necho $0 $1\n");
    script("option", "#! /bin/sh -e \nfalse; echo not here\n");
    script("twice", "#!/yard/shell more\n");
    script("loop", "#!/yard/loop\n");
    script("lost", "#!/none\n");
    script("text", "echo by the shell\n");
    script("narrow", &format!("\x7fELF\x01\x01\x01{}", "\0".repeat(57)));
    fs::write(root.path().join("yard/plain"), "#!/bin/sh\n").unwrap();
    for (command, expected) in [
        ("/yard/shell a", "/yard/shell a"),
        ("cd /yard; ./shell a", "./shell a"),
        ("/yard/option || echo failed", "failed"),
        ("/yard/twice", "/yard/shell more"),
        ("/yard/text", "by the shell"),
        ("/yard/loop 2>/dev/null; echo $?", "127"),
        ("/yard/lost 2>/dev/null; echo $?", "127"),
        ("/yard/plain 2>/dev/null; echo $?", "126"),
        ("/yard/none 2>/dev/null; echo $?", "127"),
        ("/yard/narrow 2>&1 | grep -c 'another architecture'", "1"),
        (
            "i=0; while [ $i -lt 50 ]; do true & i=$((i+1)); done; wait; echo all",
            "all",
        ),
        ("(exit 7); echo $?; sh -c 'kill -9 $$'; echo $?", "7\n137"),
    ] {
        let (printed, _) = run_in(&root, command, |_| ());
        let last: Vec<&str> = printed.lines().filter(|line| *line != "Killed").collect();
        assert_eq!(last.join("\n"), expected, "{command}");
    }
}

#[test]
fn programs_are_executed_wherever_they_are() {
    as_subjects!(mounted_programs, chroot_mounted_programs);
}

fn mounted_programs() {
    enter_bare();
    let root = Root::new();
    let tools = TempDir::new().unwrap();
    fs::set_permissions(tools.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let put = |name: &str, content: &[u8]| {
        let path = tools.path().join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    let echo = fs::read(root.path().join("bin/echo")).unwrap();
    put("echo", &echo);
    put("script", b"#!/bin/sh\necho $0 $(pwd)\n");
    put("by-tool", b"#!/tools/echo of\n");
    for (command, expected) in [
        ("/tools/echo a b", "a b"),
        (
            "cd /tools; ./echo c; ./script; pwd",
            "c\n./script /tools\n/tools",
        ),
        ("/tools/by-tool x", "of /tools/by-tool x"),
        ("/dev/pipes/EOF y", "/dev/pipes/EOF y"),
        (
            "PATH=/tools:/bin; echo d; command echo e; env echo f",
            "d\ne\nf",
        ),
        (
            "ln -sf /proc/self/exe /yard/sh; /yard/sh -c 'echo by itself'",
            "by itself",
        ),
        (
            "exec 9< /tools/echo; cd /yard; ln -sf /proc/self/fd/9 echo; ./echo by number; ln -sf /dev/fd/9 echo; ./echo again",
            "by number\nagain",
        ),
        (
            "cp /tools/echo /yard/e; exec 9< /yard/e; rm /yard/e; ln -sf /proc/self/fd/9 /yard/echo; /yard/echo deleted",
            "deleted",
        ),
        (
            "cd /tools; /proc/self/cwd/echo in proc; /proc/self/root/bin/echo in root",
            "in proc\nin root",
        ),
        (
            "i=0; while [ $i -lt 40 ]; do /tools/echo $i > /dev/null & (cd /tools; cd /proc) & i=$((i+1)); done; wait; ls /proc/self/fd | wc -l",
            "4",
        ),
    ] {
        let (printed, _) = run_in(&root, command, |spec| {
            spec.mounts = vec![
                RunMount {
                    target: "/tools".into(),
                    source: MountSource::Tree {
                        fd: open(tools.path()),
                        read_only: true,
                    },
                },
                file("/dev/pipes/EOF", 0o755, "#!/bin/sh -e\necho $0 $1\n"),
            ];
        });
        assert_eq!(printed, expected, "{command}");
    }
}

#[test]
fn owners_modes_and_devices_are_kept_in_the_ledger() {
    as_subjects!(ownership, chroot_ownership);
}

fn ownership() {
    enter_bare();
    let root = Root::new();
    let own = rustix::process::geteuid().as_raw();
    let script = "cd /yard; touch a b; mkdir d; chown 7:8 a; chmod 4755 b; chmod 0 d; ln -s a l; chown -h 9 l; mknod n c 1 3; \
                  stat -c '%n %u %g %a %F' a b d l n; echo x > n; cat n; touch d/f; echo $?";
    let ledger = check_in(
        &root,
        script,
        "a 7 8 644 regular empty file\nb 0 0 4755 regular empty file\nd 0 0 0 directory\nl 9 0 777 symbolic link\n\
         n 0 0 644 character special file\n0",
    );
    let mut entries: Vec<&Attributes> = ledger.iter().map(|(_, entry)| entry).collect();
    entries.sort_by_key(|entry| (entry.uid, entry.mode));
    assert_eq!(entries.len(), 5, "{entries:?}");
    assert!(entries.iter().any(|entry| entry.device.is_some()));
    for name in ["a", "b", "d", "l", "n"] {
        let found = fs::symlink_metadata(root.path().join("yard").join(name)).unwrap();
        assert_eq!(found.uid(), own, "{name}");
        assert_eq!(found.mode() & 0o6000, 0, "{name}");
    }
    // Another user, with what the ledger says.
    let (printed, _) = run_in(
        &root,
        "id -u; cat a; echo x > a; echo y > b; ls d; chmod 777 a; chown 5 c; rm b; cd /tmp; echo mine > f; stat -c '%u %g %a' f; cat f",
        |spec| {
            spec.uid = 5;
            spec.gid = 6;
            spec.cwd = "/yard".into();
            spec.ledger = Some(ledger.clone());
        },
    );
    let denied =
        printed.matches("ermission denied").count() + printed.matches("not permitted").count();
    assert!(printed.ends_with("5 6 644\nmine"), "{printed}");
    assert_eq!(denied, 5, "{printed}");
}

#[test]
fn what_is_mounted_is_crossed_both_ways() {
    as_subjects!(mounts, chroot_mounts);
}

fn mounts() {
    enter_bare();
    let root = Root::new();
    fs::create_dir(root.path().join("yard/under")).unwrap();
    fs::write(root.path().join("yard/under/hidden"), "hidden").unwrap();
    let cache = TempDir::new().unwrap();
    fs::write(cache.path().join("kept"), "kept\n").unwrap();
    let context = TempDir::new().unwrap();
    fs::write(context.path().join("source"), "source\n").unwrap();
    symlink("/yard", context.path().join("out")).unwrap();
    let tree = |target: &str, directory: &TempDir, read_only| RunMount {
        target: target.into(),
        source: MountSource::Tree {
            fd: open(directory.path()),
            read_only,
        },
    };
    let script = "ls /yard/under; cat /yard/under/../under/kept; cat /deep/er/source; echo x > /deep/er/source; \
                  cd /deep/er; cat ../../yard/under/kept; cat out/under/kept; pwd; cd ..; pwd; \
                  mv /yard/under/kept /yard/x; rmdir /yard/under; mv /yard/under /yard/other; echo new > /yard/under/new; ln /yard/under/new /yard/y; cat /run/secrets/s; echo x > /run/secrets/s; rm /run/secrets/s; \
                  stat -c %a:%u /run/secrets/s; echo t > /mem/t; cat /mem/t";
    let (printed, _) = run_in(&root, script, |spec| {
        spec.mounts = vec![
            tree("/yard/under", &cache, false),
            tree("/deep/er", &context, true),
            file("/run/secrets/s", 0o400, "secret\n"),
            RunMount {
                target: "/mem".into(),
                source: MountSource::Tmpfs { size: None },
            },
        ];
    });
    let lines: Vec<&str> = printed
        .lines()
        .map(|line| line.rsplit(": ").next().unwrap_or(line))
        .collect();
    assert_eq!(
        lines,
        [
            "kept",
            "kept",
            "source",
            "Read-only file system",
            "kept",
            "kept",
            "/deep/er",
            "/deep",
            // The first mv has copied.
            "Device or resource busy",
            "Device or resource busy",
            "Invalid cross-device link",
            "secret",
            "Read-only file system",
            "Device or resource busy",
            "400:0",
            "t",
        ],
        "{printed}"
    );
    assert_eq!(
        fs::read_to_string(cache.path().join("new")).unwrap(),
        "new\n"
    );
    let left: Vec<String> = root
        .listing()
        .into_iter()
        .filter(|entry| {
            entry.starts_with("mem") || entry.starts_with("run") || entry.starts_with("deep")
        })
        .collect();
    assert!(left.is_empty(), "{left:?}");
    let hidden = fs::read_to_string(root.path().join("yard/under/hidden"));
    assert_eq!(hidden.unwrap(), "hidden");
}

#[test]
fn nothing_outside_of_the_root_is_reached() {
    as_subjects!(attacks, chroot_attacks);
}

fn attacks() {
    enter_bare();
    let root = Root::new();
    let outside = TempDir::new().unwrap();
    fs::write(outside.path().join("token"), "token").unwrap();
    let at = outside.path().display().to_string();
    let builder = std::process::id();
    for script in [
        format!("cat {at}/token"),
        format!("cat /proc/self/root{at}/token"),
        format!("cat /proc/self/cwd/../../../../../../../..{at}/token"),
        format!("cd /proc/self/fd; cat ../../../..{at}/token"),
        format!("ln -s /../../../../../..{at} /yard/out; cat /yard/out/token"),
        format!("ln -s /proc/self/root{at}/token /yard/token; cat /yard/token"),
        format!("for p in /proc/[0-9]*; do cat $p/root{at}/token; done"),
        format!("cat /proc/{builder}/environ /proc/{builder}/root{at}/token"),
        format!("cd /proc/{builder}/cwd; cat {at}/token"),
        format!("cat /proc/1/root{at}/token /proc/{builder}/fd/3"),
        "for f in 3 4 5 6 7 8 9; do cat <&$f; done".to_owned(),
        format!("chroot /proc/self/root cat {at}/token"),
        format!("mount --bind {at} /yard; cat /yard/token"),
        format!("unshare -r cat {at}/token"),
        format!(
            "echo x > {at}/token; mkdir {at}/d; rm {at}/token; mv {at}/token /yard; ln {at}/token /yard/t"
        ),
    ] {
        let (printed, _) = run_in(&root, &format!("{script}; echo ended"), |_| ());
        // The shell's complaints may stand in the middle of a line.
        assert!(printed.contains("ended"), "{script}: {printed}");
        let said = printed.replace(&format!("{at}/token"), "");
        assert!(
            !said.lines().any(|line| line == "token"),
            "{script}: {printed}"
        );
        assert_eq!(
            fs::read_to_string(outside.path().join("token")).unwrap(),
            "token"
        );
        assert!(!outside.path().join("d").exists(), "{script}");
    }
    let listed = check_printed(&root, "ls /proc");
    let strangers = listed
        .split_whitespace()
        .filter_map(|name| name.parse::<u32>().ok())
        .filter(|pid| *pid == 1 || *pid == builder);
    assert_eq!(strangers.count(), 0, "{listed}");
    if landlock::level().has_scopes() {
        let killed = format!("kill -0 {builder} || echo kept out");
        let printed = check_printed(&root, &killed);
        assert!(printed.contains("kept out"), "{printed}");
    }
}

#[track_caller]
fn check_printed(root: &Root, script: &str) -> String {
    run_in(root, script, |_| ()).0
}

#[test]
fn nothing_is_left_of_a_command_that_has_ended() {
    as_subjects!(endings, chroot_endings);
}

fn endings() {
    enter_bare();
    let root = Root::new();
    check_in(
        &root,
        "sleep 98765 & sh -c 'sleep 98765 & sleep 98765' & echo ended",
        "ended",
    );
    assert_eq!(processes("sleep 98765"), 0);
    let cancel = Cancel::new();
    let (_held, scratch) = scratch();
    let spec = RunSpec {
        ledger: Some(Ledger::default()),
        scratch: Some(scratch),
        ..root.shell("sleep 98764 & echo begun; sleep 98764")
    };
    let outcome = run(
        spec,
        &mut |_, _| cancel.cancel(CancelReason::Interrupted),
        &cancel,
    );
    assert!(matches!(outcome, Err(RunError::Cancelled)), "{outcome:?}");
    assert_eq!(processes("sleep 98764"), 0);
    let (_held, scratch) = self::scratch();
    let spec = RunSpec {
        ledger: Some(Ledger::default()),
        scratch: Some(scratch),
        ..root.spec(&["/bin/none"])
    };
    let outcome = run(spec, &mut |_, _| (), &Cancel::new());
    assert!(
        matches!(outcome, Err(RunError::NotFound { .. })),
        "{outcome:?}"
    );
}

/// Runs whatever the environment says, for measuring: ROOT and COMMAND.
fn drive() {
    let variable = |name: &str| std::env::var(name).unwrap();
    enter_bare();
    let (_held, scratch) = scratch();
    let root = Root {
        directory: TempDir::new().unwrap(),
    };
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let spec = RunSpec {
        root: open(Path::new(&variable("ROOT"))),
        argv: ["/bin/sh", "-c", &variable("COMMAND")]
            .map(Into::into)
            .into(),
        env: [
            ("PATH", path),
            ("DEBIAN_FRONTEND", "noninteractive"),
            ("HOME", "/root"),
        ]
        .map(|(name, value)| (name.into(), value.into()))
        .into(),
        resolv_conf: fs::read("/etc/resolv.conf").unwrap(),
        ledger: Some(Ledger::default()),
        scratch: Some(scratch),
        ..root.spec(&[])
    };
    let start = Instant::now();
    let ended = run(
        spec,
        &mut |_, bytes| std::io::stdout().write_all(bytes).unwrap(),
        &Cancel::new(),
    );
    let ended = ended.map(|ended| (ended.exit, ended.ledger.map(|ledger| ledger.len())));
    eprintln!("{ended:?} after {:?}", start.elapsed());
}
