//! Commands in a real sandbox.
//!
//! A sandbox is entered by a process with one thread, which no test is. So each test starts this same program again, as a
//! *subject*: a hook that the loader runs before the test harness finds the subject's name in the environment, performs it
//! and ends the process. The same hook is what makes this program its own init here, as `main` does in the real one.
//!
//! Subjects work on a small root made from the machine's own busybox, or else of its shell and the programs they use with
//! their libraries.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::exit,
    reason = "subjects are programs of their own"
)]

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use tempfile::TempDir;

use crate::vocab::{Cancel, CancelReason, NetworkMode, Secret, Security, Stream, Ulimit};

use super::mount::{Attributes, Mount};
use super::*;

const SUBJECT: &str = "BUILDER_SANDBOX_SUBJECT";
const PROGRAMS: [&str; 31] = [
    "sh", "cat", "ls", "id", "true", "echo", "stat", "mknod", "mount", "sleep", "readlink", "env",
    "hostname", "grep", "rm", "touch", "mkdir", "dd", "chroot", "wc", "ps", "kill", "ln", "chown",
    "chmod", "unshare", "mv", "umount", "cp", "head", "rmdir",
];

/// What is run in place of the harness.
type Subject = fn();

/// Lists what the hook can perform, at the top of each file of tests.
macro_rules! subjects {
    ($($name:ident),* $(,)?) => {
        pub(super) const SUBJECTS: &[(&str, Subject)] = &[$((stringify!($name), $name)),*];
    };
}

/// Begins a test: the harness's process has itself started again to perform it, and is done.
macro_rules! as_subject {
    ($name:ident) => {
        if std::env::var_os(SUBJECT).is_none() {
            return perform(stringify!($name));
        }
    };
}

mod behaviour;
mod confinement;
mod emulation;
mod groups;
mod lifetime;
mod mounts;
mod ownership;
mod paths;
mod powers;
mod rungs;
mod targets;

#[used]
#[unsafe(link_section = ".init_array")]
static HOOK: extern "C" fn() = {
    extern "C" fn hook() {
        run_internal_role();
        let Ok(name) = std::env::var(SUBJECT) else {
            return;
        };
        let subject = [
            behaviour::SUBJECTS,
            confinement::SUBJECTS,
            emulation::SUBJECTS,
            groups::SUBJECTS,
            lifetime::SUBJECTS,
            mounts::SUBJECTS,
            paths::SUBJECTS,
            ownership::SUBJECTS,
            powers::SUBJECTS,
            rungs::SUBJECTS,
            targets::SUBJECTS,
        ]
        .concat()
        .into_iter()
        .find(|(other, _)| *other == name);
        let passed = std::panic::catch_unwind(|| (subject.expect("a subject").1)()).is_ok();
        std::process::exit(if passed { 0 } else { 101 });
    }
    hook
};

/// Runs a subject in a process of its own.
fn perform(name: &str) {
    let output = Command::new(std::env::current_exe().unwrap())
        .env(SUBJECT, name)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.success(),
        "{name}: {}\n{printed}",
        output.status
    );
    // Why it was skipped.
    if !printed.is_empty() {
        std::io::stderr().write_all(printed.as_bytes()).unwrap();
    }
}

/// Enters the sandbox, or ends the subject where there can be none.
fn sandbox() -> Rung {
    match enter_any() {
        Ok(rung) => rung,
        Err(error) => skip(&format!(
            "{error} (hint: {})",
            error.hint().unwrap_or_default()
        )),
    }
}

fn enter_any() -> Result<Rung, SandboxError> {
    enter(&choose(&Wanted::default())?)
}

fn skip(why: &str) -> ! {
    assert!(
        std::env::var_os("BUILDER_TEST_REQUIRE_ALL").is_none(),
        "cannot run: {why}"
    );
    eprintln!("DID NOT RUN: {why}");
    std::process::exit(0)
}

/// A root on disk.
struct Root {
    directory: TempDir,
}

impl Root {
    fn new() -> Root {
        let root = Root::empty();
        let at = root.path();
        if Path::new("/bin/busybox").exists() {
            fs::copy("/bin/busybox", at.join("bin/busybox")).unwrap();
            for program in PROGRAMS {
                symlink("busybox", at.join("bin").join(program)).unwrap();
            }
        } else {
            copy_programs(at, &PROGRAMS);
        }
        root
    }

    /// One without programs.
    fn empty() -> Root {
        let root = Root {
            directory: TempDir::new().unwrap(),
        };
        let at = root.path();
        fs::set_permissions(at, fs::Permissions::from_mode(0o755)).unwrap();
        for name in ["bin", "etc", "tmp", "proc", "sys", "dev", "yard"] {
            fs::create_dir(at.join(name)).unwrap();
        }
        fs::set_permissions(at.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
        for name in ["resolv.conf", "hosts"] {
            fs::write(at.join("etc").join(name), "").unwrap();
        }
        root
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn fd(&self) -> OwnedFd {
        rustix::fs::open(
            self.path(),
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .unwrap()
    }

    fn spec(&self, argv: &[&str]) -> RunSpec {
        RunSpec {
            root: self.fd(),
            argv: argv.iter().map(|word| (*word).to_owned()).collect(),
            env: vec![("PATH".into(), "/bin".into())],
            cwd: "/".into(),
            uid: 0,
            gid: 0,
            groups: Vec::new(),
            hostname: "buildbox".into(),
            network: NetworkMode::Default,
            resolv_conf: b"nameserver 192.0.2.1\n".to_vec(),
            hosts: hosts_file("buildbox", &[]),
            shm_size: 1 << 20,
            ulimits: Vec::new(),
            mounts: Vec::new(),
            security: Security::Sandbox,
            devices: Vec::new(),
            emulators: Vec::new(),
            ledger: None,
            scratch: None,
            group: None,
        }
    }

    fn shell(&self, script: &str) -> RunSpec {
        self.spec(&["sh", "-c", script])
    }

    /// Every path below the root but the programs, with size.
    fn listing(&self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        let mut waiting = vec![self.path().to_owned()];
        while let Some(directory) = waiting.pop() {
            for entry in fs::read_dir(&directory).unwrap() {
                let entry = entry.unwrap();
                let name = entry.path().strip_prefix(self.path()).unwrap().to_owned();
                // `lib64` too.
                if name.starts_with("bin") || name.to_string_lossy().starts_with("lib") {
                    continue;
                }
                let metadata = entry.metadata().unwrap();
                if metadata.is_dir() {
                    waiting.push(entry.path());
                }
                found.insert(format!(
                    "{} {}",
                    name.display(),
                    if metadata.is_file() {
                        metadata.len()
                    } else {
                        0
                    }
                ));
            }
        }
        found
    }
}

/// Copies those of the machine's programs that it has, and the libraries that they name.
fn copy_programs(root: &Path, programs: &[&str]) {
    for program in programs {
        let source = ["/bin", "/usr/bin", "/sbin", "/usr/sbin"]
            .iter()
            .map(|directory| PathBuf::from(directory).join(program))
            .find(|path| path.exists());
        if let Some(source) = source {
            copy_program(root, &source, program);
        }
    }
}

fn copy_program(root: &Path, source: &Path, name: &str) {
    fs::copy(source, root.join("bin").join(name)).unwrap();
    let listed = Command::new("ldd").arg(source).output().unwrap();
    for word in String::from_utf8_lossy(&listed.stdout).split_whitespace() {
        let to = root.join(word.trim_start_matches('/'));
        if word.starts_with('/') && !to.exists() {
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(word, &to).unwrap();
        }
    }
}

/// A file of user 0.
fn file(target: &str, mode: u32, content: &str) -> RunMount {
    RunMount {
        target: target.into(),
        source: MountSource::File {
            content: Secret::new(content.into()),
            mode,
            uid: 0,
            gid: 0,
        },
    }
}

/// Runs to the end; returns the exit, standard output and standard error.
fn outcome(spec: RunSpec) -> Result<(Exit, String, String), RunError> {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let ended = run(
        spec,
        &mut |stream, bytes| match stream {
            Stream::Stdout => out.extend_from_slice(bytes),
            Stream::Stderr => err.extend_from_slice(bytes),
        },
        &Cancel::new(),
    )?;
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ok((ended.exit, text(out), text(err)))
}

/// Runs a script that must succeed; returns its standard output.
#[track_caller]
fn output(spec: RunSpec) -> String {
    let (exit, out, err) = outcome(spec).unwrap();
    assert_eq!(exit, Exit::Code(0), "{out}{err}");
    out
}

/// Runs a script in a fresh root and compares its output, line ends trimmed.
#[track_caller]
fn check(script: &str, expected: &str) {
    let root = Root::new();
    assert_eq!(output(root.shell(script)).trim_end(), expected, "{script}");
}

/// The host's processes whose command line contains `text`.
fn processes(text: &str) -> usize {
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| fs::read(entry.ok()?.path().join("cmdline")).ok())
        .filter(|line| {
            String::from_utf8_lossy(line)
                .replace('\0', " ")
                .contains(text)
        })
        .count()
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "waited for: {what}"
        );
        std::thread::yield_now();
    }
}

/// Docker's 14. Where the surrounding container's filter forbids `pivot_root`, `chroot` is missing.
fn root_capabilities(status: &str) -> &'static str {
    let is_filtered = fs::read_to_string("/proc/self/status")
        .unwrap()
        .contains("Seccomp:\t2");
    if is_filtered && status.contains("00000000a80025fb") {
        "00000000a80025fb"
    } else {
        "00000000a80425fb"
    }
}
