//! Commands without namespaces, as an ordinary user.

use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use crate::vocab::{Ledger, Rung};

use super::super::survey::Choice;
use super::*;

subjects!(drive, scripts);

/// A user who owns nothing.
const NOBODY: u32 = 65534;

/// Becomes an ordinary user without a way back, and enters.
fn ordinary_user() {
    if rustix::process::geteuid().is_root() {
        let (uid, gid) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
        set_thread_groups(&[]).unwrap();
        set_thread_res_gid(gid, gid, gid).unwrap();
        set_thread_res_uid(uid, uid, uid).unwrap();
    }
    rustix::thread::set_no_new_privs(true).unwrap();
    let choice = Choice {
        rung: Rung::Paths,
        lacks: Vec::new(),
        refused: Vec::new(),
    };
    enter(&choice).unwrap();
}

/// A directory for one command.
fn scratch() -> (TempDir, OwnedFd) {
    let directory = TempDir::new().unwrap();
    let fd = rustix::fs::open(
        directory.path(),
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .unwrap();
    (directory, fd)
}

/// Runs whatever the environment says, for measuring: ROOT, COMMAND, and SCRATCH.
fn drive() {
    let variable = |name: &str| std::env::var(name).unwrap();
    ordinary_user();
    let root = variable("ROOT");
    let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open = |path: &str| rustix::fs::open(path, directory, Mode::empty()).unwrap();
    let (_held, scratch) = scratch();
    let uid = std::env::var("RUN_UID").map_or(0, |uid| uid.parse().unwrap());
    let spec = RunSpec {
        root: open(&root),
        argv: vec!["/bin/sh".into(), "-c".into(), variable("COMMAND")],
        env: vec![
            (
                "PATH".into(),
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into(),
            ),
            ("DEBIAN_FRONTEND".into(), "noninteractive".into()),
            ("HOME".into(), "/root".into()),
        ],
        cwd: "/".into(),
        uid,
        gid: uid,
        groups: Vec::new(),
        hostname: "buildbox".into(),
        network: NetworkMode::Default,
        resolv_conf: fs::read("/etc/resolv.conf").unwrap(),
        hosts: hosts_file("buildbox", &[]),
        shm_size: 1 << 20,
        ulimits: Vec::new(),
        mounts: Vec::new(),
        security: Security::Sandbox,
        devices: Vec::new(),
        emulators: Vec::new(),
        ledger: Some(Ledger::default()),
        scratch: Some(scratch),
        group: None,
    };
    let start = Instant::now();
    let ended = run(
        spec,
        &mut |stream, bytes| match stream {
            Stream::Stdout => std::io::stdout().write_all(bytes).unwrap(),
            Stream::Stderr => std::io::stderr().write_all(bytes).unwrap(),
        },
        &Cancel::new(),
    );
    eprintln!(
        "{:?} {:?} after {:?}, {} files in the ledger",
        ended.as_ref().map(|ended| ended.exit),
        ended.as_ref().err(),
        start.elapsed(),
        ended
            .iter()
            .filter_map(|ended| ended.ledger.as_ref())
            .map(Ledger::len)
            .sum::<usize>()
    );
}

fn check_script(script: &str, expected: &str) {
    let root = Root::new();
    let (_held, scratch) = scratch();
    let spec = RunSpec {
        ledger: Some(Ledger::default()),
        scratch: Some(scratch),
        ..root.shell(script)
    };
    assert_eq!(output(spec).trim_end(), expected, "{script}");
}

#[test]
fn scripts_run_as_they_would_with_a_root_of_their_own() {
    as_subject!(scripts);
}

fn scripts() {
    ordinary_user();
    for (script, expected) in [("echo hello", "hello"), ("id -u", "0")] {
        check_script(script, expected);
    }
}
