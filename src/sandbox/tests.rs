//! Commands in a real sandbox.
//!
//! A sandbox is entered by a process with one thread, which no test is. So each test starts this same program again, as a
//! *subject*: a hook that the loader runs before the test harness finds the subject's name in the environment, performs it
//! and ends the process. The same hook is what makes this program its own init here, as `main` does in the real one.
//!
//! Subjects work on a small root made from the machine's own busybox, or else of its shell and the programs they use with
//! their libraries.

use std::cell::RefCell;
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

use crate::vocab::{Cancel, CancelReason, NetworkMode, Stream, Ulimit};

use super::mount::{Attributes, Mount};
use super::*;

const SUBJECT: &str = "BUILDER_SANDBOX_SUBJECT";
const PROGRAMS: [&str; 24] = [
    "sh", "cat", "ls", "id", "true", "echo", "stat", "mknod", "mount", "sleep", "readlink", "env",
    "hostname", "grep", "rm", "touch", "mkdir", "dd", "chroot", "wc", "ps", "kill", "ln", "chown",
];

/// What is run in place of the harness.
type Subject = fn();

macro_rules! subjects {
    ($($(#[$meta:meta])* fn $name:ident() $body:block)*) => {
        const SUBJECTS: &[(&str, Subject)] = &[$((stringify!($name), subject::$name)),*];
        mod subject {
            use super::*;
            $(pub(super) fn $name() $body)*
        }
        $($(#[$meta])* #[test] fn $name() { perform(stringify!($name)); })*
    };
}

#[used]
#[unsafe(link_section = ".init_array")]
static HOOK: extern "C" fn() = {
    extern "C" fn hook() {
        run_internal_role();
        let Ok(name) = std::env::var(SUBJECT) else {
            return;
        };
        let subject = SUBJECTS.iter().find(|(other, _)| *other == name);
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
    match enter() {
        Ok(rung) => rung,
        Err(error) => skip(&format!(
            "{error} (hint: {})",
            error.hint().unwrap_or_default()
        )),
    }
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
        let root = Root {
            directory: TempDir::new().unwrap(),
        };
        let at = root.path();
        fs::set_permissions(at, fs::Permissions::from_mode(0o755)).unwrap();
        for name in ["bin", "etc", "tmp", "proc", "sys", "dev", "work"] {
            fs::create_dir(at.join(name)).unwrap();
        }
        fs::set_permissions(at.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
        if Path::new("/bin/busybox").exists() {
            fs::copy("/bin/busybox", at.join("bin/busybox")).unwrap();
            for program in PROGRAMS {
                symlink("busybox", at.join("bin").join(program)).unwrap();
            }
        } else {
            copy_programs(at);
        }
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
            files: Vec::new(),
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
                if name.starts_with("bin") || name.starts_with("lib") {
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

/// Copies the machine's programs and the libraries that they name.
fn copy_programs(root: &Path) {
    for program in PROGRAMS {
        let Some(source) = ["/bin", "/usr/bin", "/sbin", "/usr/sbin"]
            .iter()
            .map(|directory| PathBuf::from(directory).join(program))
            .find(|path| path.exists())
        else {
            continue;
        };
        fs::copy(&source, root.join("bin").join(program)).unwrap();
        let listed = Command::new("ldd").arg(&source).output().unwrap();
        for word in String::from_utf8_lossy(&listed.stdout).split_whitespace() {
            let to = root.join(word.trim_start_matches('/'));
            if word.starts_with('/') && !to.exists() {
                fs::create_dir_all(to.parent().unwrap()).unwrap();
                fs::copy(word, &to).unwrap();
            }
        }
    }
}

/// Runs to the end; returns the exit, standard output and standard error.
fn outcome(spec: RunSpec) -> Result<(Exit, String, String), RunError> {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let exit = run(
        spec,
        &mut |stream, bytes| match stream {
            Stream::Stdout => out.extend_from_slice(bytes),
            Stream::Stderr => err.extend_from_slice(bytes),
        },
        &Cancel::new(),
    )?;
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ok((exit, text(out), text(err)))
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

subjects! {
    fn output_and_exit_code_come_back() {
        sandbox();
        let root = Root::new();
        let (exit, out, err) = outcome(root.shell("echo out; echo err >&2; exit 7")).unwrap();
        assert_eq!((exit, out.as_str(), err.as_str()), (Exit::Code(7), "out\n", "err\n"));
        let mut length = 0;
        run(root.shell("dd if=/dev/zero bs=65536 count=160 2>/dev/null"), &mut |_, bytes| length += bytes.len(), &Cancel::new()).unwrap();
        assert_eq!(length, 160 * 65536);
    }

    fn a_signal_is_no_exit_code() {
        sandbox();
        let root = Root::new();
        // Pid 1 is deaf to its own signals; the limit's SIGKILL comes from the kernel.
        let mut spec = root.shell("while :; do :; done");
        spec.ulimits = vec![Ulimit { name: "cpu".into(), soft: 1, hard: 1 }];
        assert_eq!(outcome(spec).unwrap().0, Exit::Signal(9));
    }

    fn the_command_is_pid_1_of_its_own_world() {
        sandbox();
        check("echo $$; ls /proc | grep -c '^[0-9]'", "1\n3");
        check("readlink /proc/self/exe; ls /proc/1/fd; true", "/bin/busybox\n0\n1\n2");
        check("hostname", "buildbox");
        check("cat /proc/1/stat | { read a b c d e f g; echo $d $e $f; }", "0 1 1");
    }

    fn what_the_command_leaves_running_is_killed() {
        sandbox();
        let root = Root::new();
        let start = Instant::now();
        output(root.shell("sleep 4711 & sleep 4711 & (sleep 4711 &) ; exit 0"));
        assert!(start.elapsed() < Duration::from_secs(60));
        assert_eq!(processes("sleep 4711"), 0);
    }

    fn the_environment_is_exactly_what_was_given() {
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

    fn capabilities_are_dockers() {
        sandbox();
        let script = "grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status | { while read name value; do echo $name $value; done; }";
        check(script, "CapInh: 0000000000000000\nCapPrm: 00000000a80425fb\nCapEff: 00000000a80425fb\n\
                       CapBnd: 00000000a80425fb\nCapAmb: 0000000000000000\nNoNewPrivs: 0\nSeccomp: 2");
        let root = Root::new();
        let mut spec = root.shell(script);
        (spec.uid, spec.gid, spec.groups) = (1000, 100, vec![27, 4]);
        assert_eq!(output(spec).trim_end(), "CapInh: 0000000000000000\nCapPrm: 0000000000000000\nCapEff: 0000000000000000\n\
                       CapBnd: 00000000a80425fb\nCapAmb: 0000000000000000\nNoNewPrivs: 0\nSeccomp: 2");
    }

    fn users_and_groups_are_those_asked_for() {
        sandbox();
        let root = Root::new();
        let script = "grep -E '^(Uid|Gid|Groups):' /proc/self/status | { while read line; do echo $line; done; }; echo x > /dev/stdout";
        let mut spec = root.shell(script);
        (spec.uid, spec.gid, spec.groups) = (1000, 100, vec![27, 4]);
        assert_eq!(output(spec), "Uid: 1000 1000 1000 1000\nGid: 100 100 100 100\nGroups: 4 27\nx\n");
        assert_eq!(output(root.shell(script)), "Uid: 0 0 0 0\nGid: 0 0 0 0\nGroups:\nx\n");
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

    fn files_that_root_makes_belong_to_root() {
        sandbox();
        let root = Root::new();
        output(root.shell("umask; touch /work/a; chown 33:34 /work/a; touch /work/b; mkdir /work/d"));
        let owner = |name: &str| { let m = fs::metadata(root.path().join("work").join(name)).unwrap(); (m.uid(), m.gid(), m.mode() & 0o7777) };
        assert_eq!(owner("a"), (33, 34, 0o644));
        assert_eq!(owner("b"), (0, 0, 0o644));
        assert_eq!(owner("d"), (0, 0, 0o755));
    }

    fn set_user_id_programs_work() {
        sandbox();
        let root = Root::new();
        let program = root.path().join("bin/setid");
        // busybox drops the power for most of its programs; a copy under a name of its own does not run at all. `id` keeps it.
        if !root.path().join("bin/busybox").exists() { skip("no busybox"); }
        fs::remove_file(root.path().join("bin/id")).unwrap();
        fs::copy("/bin/busybox", root.path().join("bin/id")).unwrap();
        fs::set_permissions(root.path().join("bin/id"), fs::Permissions::from_mode(0o4755)).unwrap();
        drop(program);
        let mut spec = root.spec(&["cat", "/proc/self/status"]);
        fs::remove_file(root.path().join("bin/cat")).unwrap();
        fs::copy(cat(), root.path().join("bin/cat")).unwrap();
        fs::set_permissions(root.path().join("bin/cat"), fs::Permissions::from_mode(0o4755)).unwrap();
        for library in libraries(&cat()) {
            let to = root.path().join(library.strip_prefix("/").unwrap());
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(&library, to).unwrap();
        }
        (spec.uid, spec.gid) = (1000, 1000);
        let status = output(spec);
        assert!(status.contains("Uid:\t1000\t0\t0\t0"), "{status}");
        assert!(status.contains("CapEff:\t00000000a80425fb"), "{status}");
    }

    fn the_host_is_out_of_sight() {
        sandbox();
        let secret = TempDir::new().unwrap();
        fs::write(secret.path().join("token"), "s3cret").unwrap();
        let path = secret.path().display();
        check(&format!("ls {path} 2>/dev/null; ls /proc/1/root/{path} 2>/dev/null; ls /; true"), "bin\ndev\netc\nproc\nsys\ntmp\nwork");
        check("while read id parent device root point rest; do case $point in /|/proc*|/sys*|/dev*|/etc/*) ;; *) echo $point;; esac; done < /proc/self/mountinfo", "");
        check("readlink /proc/self/fd/0", "/dev/null");
        // A second root directory, and a way up from it, if there were one.
        check("ls /..; ls /../..; cd /; cd ..; ls", &"bin\ndev\netc\nproc\nsys\ntmp\nwork\n".repeat(3).trim_end());
        check("mkdir /work/j; chroot /work/j /bin/true 2>/dev/null; cd /..; ls | wc -l", "7");
    }

    fn inherited_descriptors_do_not_reach_the_command() {
        // Not close-on-exec, as a careless parent leaves them.
        let leaked = rustix::fs::open("/", OFlags::PATH, Mode::empty()).unwrap();
        sandbox();
        check("ls -l /proc/self/fd | grep -c -- ' /$'; true", "0");
        check("ls /proc/1/fd; true", "0\n1\n2");
        drop(leaked);
    }

    fn a_working_directory_cannot_leave_the_root() {
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
        for (cwd, expected) in [("/up", "/"), ("/work", "/work"), ("/work/../up/work", "/work")] {
            let mut spec = root.shell("pwd");
            spec.cwd = cwd.into();
            assert_eq!(output(spec).trim_end(), expected);
        }
        let mut spec = root.shell("pwd");
        spec.cwd = "/none".into();
        match outcome(spec) {
            Err(RunError::WorkingDirectory { path, source }) => assert_eq!((path.as_str(), source.raw_os_error()), ("/none", Some(libc::ENOENT))),
            other => panic!("{other:?}"),
        }
    }

    fn the_program_itself_cannot_be_overwritten() {
        // CVE-2019-5736: /proc/self/exe as the command is this program.
        sandbox();
        let root = Root::new();
        let before = fs::metadata("/proc/self/exe").unwrap();
        fs::write(root.path().join("work/run"), "#!/proc/self/exe\n").unwrap();
        fs::set_permissions(root.path().join("work/run"), fs::Permissions::from_mode(0o755)).unwrap();
        let mut spec = root.spec(&["/work/run"]);
        spec.env.push((SUBJECT.into(), "overwrite_self".into()));
        let (exit, out, err) = outcome(spec).unwrap();
        assert_eq!(exit, Exit::Code(0), "{out}{err}");
        assert!(err.contains("refused"), "{out}{err}");
        let after = fs::metadata("/proc/self/exe").unwrap();
        assert_eq!((before.len(), before.mtime()), (after.len(), after.mtime()));
    }

    #[ignore = "a part of the test before it"]
    fn overwrite_self() {
        // That the program is running (ETXTBSY) would only protect it as long as it runs; a read-only mount is for good.
        File::options().write(true).open("/proc/self/exe").unwrap_err();
        let flags = rustix::fs::statvfs("/proc/self/exe").unwrap().f_flag;
        assert!(flags.contains(rustix::fs::StatVfsMountFlags::RDONLY), "{flags:?}");
        eprintln!("refused");
    }

    fn failures_to_execute_are_told_apart() {
        sandbox();
        let root = Root::new();
        let file = |name: &str, content: &[u8], mode| {
            let path = root.path().join("work").join(name);
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        };
        file("plain", b"#!/bin/sh\n", 0o644);
        file("noise", b"\x7fELF not really", 0o755);
        file("orphan", b"#!/none/perl\n", 0o755);
        let failure = |argv: &[&str]| outcome(root.spec(argv)).unwrap_err().to_string();
        assert_eq!(failure(&["none"]), "command not found: `none`");
        assert_eq!(failure(&["/none"]), "command not found: `/none`");
        assert_eq!(failure(&["/work/orphan"]), "the interpreter of `/work/orphan` is not in the image");
        for (program, errno) in [("/work/plain", libc::EACCES), ("/work/noise", libc::ENOEXEC), ("/work", libc::EACCES)] {
            match outcome(root.spec(&[program])) {
                Err(RunError::Exec { program: named, source }) => assert_eq!((named.as_str(), source.raw_os_error()), (program, Some(errno))),
                other => panic!("{other:?}"),
            }
        }
        assert!(matches!(outcome(root.spec(&[])), Err(RunError::Spec(_))));
        assert!(matches!(outcome(root.spec(&["a\0b"])), Err(RunError::Spec(_))));
    }

    fn devices_are_the_usual_ones() {
        sandbox();
        check("ls /dev", "fd\nfull\nmqueue\nnull\nptmx\npts\nrandom\nshm\nstderr\nstdin\nstdout\ntty\nurandom\nzero");
        check("dd if=/dev/urandom bs=100 count=1 2>/dev/null | wc -c; cat /dev/stdin; cat < /dev/null; echo a > /dev/null; echo b | cat /dev/fd/0", "100\nb");
        check("echo x > /dev/full 2>/dev/null || echo full", "full");
        check("ls /dev/pts", "ptmx");
        check("echo x > /dev/tty 2>/dev/null || echo none", "none");
    }

    fn shared_memory_has_its_size() {
        sandbox();
        check("dd if=/dev/zero of=/dev/shm/a bs=1024 count=1024 2>/dev/null && echo fits; dd if=/dev/zero of=/dev/shm/b bs=1024 count=1 2>/dev/null || echo full", "fits\nfull");
        check("stat -c %a /dev/shm", "1777");
    }

    fn a_device_node_can_be_made_by_real_root_and_opened_by_nobody() {
        let rung = sandbox();
        let root = Root::new();
        // 1:3 is /dev/null, harmless if it could be opened.
        let (exit, ..) = outcome(root.shell("mknod /work/null c 1 3")).unwrap();
        assert_eq!(exit == Exit::Code(0), rung == Rung::Ns);
        if rung == Rung::Ns {
            check("for d in /work /dev /tmp /dev/shm; do mknod $d/n c 1 3 2>/dev/null && { echo x > $d/n || echo refused; } 2>/dev/null; done", "refused\nrefused\nrefused\nrefused");
        }
        output(root.shell("mknod /work/fifo p"));
    }

    fn the_kernels_interfaces_are_read_only_or_hidden() {
        sandbox();
        check("for f in /proc/sys/kernel/hostname /proc/sysrq-trigger /proc/irq/default_smp_affinity; do { echo x > $f; } 2>/dev/null && echo $f; done; true", "");
        check("cat /proc/kcore /proc/keys /proc/timer_list /proc/interrupts /proc/sched_debug 2>/dev/null | wc -c", "0");
        check("ls /proc/acpi /proc/scsi /sys/firmware 2>/dev/null | grep -v : | grep -c .; true", "0");
        check("touch /sys/x 2>&1 | grep -c -i 'read-only\\|permitted\\|denied'", "1");
        check("grep ' /sys' /proc/self/mountinfo | grep -c -v ' ro,'; true", "0");
        check("for d in $(ls -d /sys/fs/cgroup /sys/fs/cgroup/* 2>/dev/null); do mkdir $d/x 2>/dev/null && echo $d; done; true", "");
    }

    fn what_the_profile_forbids_fails() {
        sandbox();
        check("mount -t tmpfs none /work 2>/dev/null || echo no", "no");
        check("mount --bind /bin /work 2>/dev/null || echo no", "no");
        check("chroot / /bin/echo yes", "yes");
    }

    fn etc_hosts_and_resolv_conf_are_the_commands_own() {
        sandbox();
        let root = Root::new();
        fs::write(root.path().join("etc/hosts"), "image's\n").unwrap();
        let text = output(root.shell("cat /etc/resolv.conf /etc/hosts; echo '1.2.3.4 x' >> /etc/hosts; echo y > /etc/resolv.conf; cat /etc/resolv.conf; stat -c '%u %g %a' /etc/hosts"));
        assert_eq!(text, "nameserver 192.0.2.1\n127.0.0.1\tlocalhost buildbox\n::1\tlocalhost ip6-localhost ip6-loopback\ny\n0 0 644\n");
        assert_eq!(fs::read_to_string(root.path().join("etc/hosts")).unwrap(), "image's\n");
        assert_eq!(fs::read_to_string(root.path().join("etc/resolv.conf")).unwrap(), "");
    }

    fn mount_points_that_were_missing_leave_no_trace() {
        sandbox();
        let root = Root::new();
        for name in ["etc/hosts", "etc/resolv.conf"] { fs::remove_file(root.path().join(name)).unwrap(); }
        symlink("../run/systemd/resolve/stub.conf", root.path().join("etc/resolv.conf")).unwrap();
        for name in ["proc", "sys", "dev"] { fs::remove_dir(root.path().join(name)).unwrap(); }
        let before = fs::metadata(root.path().join("etc")).unwrap().mtime_nsec();
        let mut spec = root.shell("cat /etc/resolv.conf /run/systemd/resolve/stub.conf /opt/x/y; exit 3");
        spec.files = vec![MountedFile { path: "/opt/x/y".into(), mode: 0o600, content: b"file\n".to_vec() }];
        let (exit, out, err) = outcome(spec).unwrap();
        assert_eq!((exit, out.as_str(), err.as_str()), (Exit::Code(3), "nameserver 192.0.2.1\nnameserver 192.0.2.1\nfile\n", ""));
        let left: Vec<_> = root.listing().into_iter().collect();
        // The three stay, as empty directories.
        assert_eq!(left, ["dev 0", "etc 0", "etc/resolv.conf 0", "proc 0", "sys 0", "tmp 0", "work 0"]);
        assert_eq!(fs::metadata(root.path().join("etc")).unwrap().mtime_nsec(), before);
        // The same when the command never ran.
        let mut spec = root.spec(&["none"]);
        spec.files = vec![MountedFile { path: "/opt/x/y".into(), mode: 0o600, content: Vec::new() }];
        outcome(spec).unwrap_err();
        assert_eq!(root.listing().len(), 7);
    }

    fn mounted_files_are_read_only_and_executable() {
        sandbox();
        let root = Root::new();
        let file = |path: &str, content: &str| MountedFile { path: path.into(), mode: 0o755, content: content.into() };
        let mut spec = root.shell("/dev/pipes/EOF; /dev/pipes/EOF2; echo x >> /dev/pipes/EOF; rm /dev/pipes/EOF; ls /dev/pipes; stat -c '%u %a' /dev/pipes/EOF; cat /work/big | wc -c");
        spec.files = vec![file("/dev/pipes/EOF", "#!/bin/sh\necho one\n"), file("/dev/pipes/EOF2", "#!/bin/sh\necho two\n"), file("/work/big", &"x".repeat(80 << 20))];
        let (exit, out, err) = outcome(spec).unwrap();
        assert_eq!((exit, out.as_str()), (Exit::Code(0), "one\ntwo\nEOF\nEOF2\n0 755\n83886080\n"));
        assert_eq!(err.lines().count(), 2, "{err}");
        assert!(!root.path().join("work/big").exists());
    }

    fn links_of_the_root_do_not_lead_mounts_outside() {
        sandbox();
        let root = Root::new();
        let outside = TempDir::new().unwrap();
        fs::write(outside.path().join("victim"), "safe").unwrap();
        for name in ["proc", "sys", "dev"] {
            fs::remove_dir(root.path().join(name)).unwrap();
            symlink(outside.path().join("..").join(outside.path().file_name().unwrap()), root.path().join(name)).unwrap();
        }
        fs::remove_file(root.path().join("etc/hosts")).unwrap();
        symlink(outside.path().join("victim"), root.path().join("etc/hosts")).unwrap();
        // Whether that can run is not the point.
        let result = outcome(root.shell("echo changed > /etc/hosts"));
        assert_eq!(fs::read_to_string(outside.path().join("victim")).unwrap(), "safe", "{result:?}");
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
    }

    fn no_network_is_a_loopback_interface() {
        sandbox();
        let root = Root::new();
        let mut spec = root.shell("ls /sys/class/net; grep -c : /proc/net/dev; cat /proc/net/fib_trie | grep -c 127.0.0.1");
        spec.network = NetworkMode::None;
        let text = output(spec);
        assert!(text.starts_with("lo\n1\n") && !text.ends_with("\n0\n"), "{text}");
        let here = fs::read_link("/proc/self/ns/net").unwrap();
        for network in [NetworkMode::Default, NetworkMode::Host] {
            let mut spec = root.spec(&["readlink", "/proc/self/ns/net"]);
            spec.network = network;
            assert_eq!(Path::new(output(spec).trim_end()), here);
        }
    }

    fn limits_are_set_and_clamped() {
        sandbox();
        let root = Root::new();
        let limits = |soft, hard| {
            let mut spec = root.shell("ulimit -S -n; ulimit -H -n; ulimit -c");
            spec.ulimits = vec![Ulimit { name: "nofile".into(), soft, hard }, Ulimit { name: "core".into(), soft: 0, hard: 0 }];
            output(spec)
        };
        assert_eq!(limits(100, 200), "100\n200\n0\n");
        // More than anyone may have.
        let most = limits(u64::MAX, u64::MAX);
        assert_eq!(most.lines().count(), 3, "{most}");
        assert!(!most.contains("unlimited"), "{most}");
        let mut spec = root.spec(&["true"]);
        spec.ulimits = vec![Ulimit { name: "none".into(), soft: 0, hard: 0 }];
        assert!(matches!(outcome(spec), Err(RunError::Spec(_))));
    }

    fn ignored_signals_are_not_inherited() {
        // SAFETY: installs no code.
        unsafe { libc::signal(libc::SIGHUP, libc::SIG_IGN) };
        sandbox();
        check("grep -E '^Sig(Blk|Ign)' /proc/self/status | { while read name value; do echo $name $value; done; }", "SigBlk: 0000000000000000\nSigIgn: 0000000000000000");
    }

    fn cancelling_ends_everything_at_once() {
        sandbox();
        let root = Root::new();
        let cancel = Cancel::new();
        let mut heard = false;
        let start = Instant::now();
        let result = run(
            root.shell("sleep 4712 & echo started; sleep 4712"),
            &mut |_, _| { heard = true; cancel.cancel(CancelReason::Timeout); },
            &cancel,
        );
        assert!(matches!(result, Err(RunError::Cancelled)), "{result:?}");
        assert!(heard && start.elapsed() < Duration::from_secs(60));
        assert_eq!(processes("sleep 4712"), 0);
        assert!(matches!(run(root.spec(&["true"]), &mut |_, _| (), &cancel), Err(RunError::Cancelled)));
    }

    fn commands_of_several_threads_do_not_disturb_each_other() {
        sandbox();
        let threads: Vec<_> = (0..4)
            .map(|thread| std::thread::spawn(move || {
                let root = Root::new();
                for turn in 0..5 {
                    let text = format!("{thread}-{turn}");
                    assert_eq!(output(root.shell(&format!("echo {text} > /work/f; cat /work/f"))).trim_end(), text);
                }
            }))
            .collect();
        for thread in threads { thread.join().unwrap(); }
    }

    fn a_panic_in_the_output_ends_the_command() {
        sandbox();
        let root = Root::new();
        let spec = root.shell("echo x; sleep 4713");
        std::panic::set_hook(Box::new(|_| ()));
        let result = std::panic::catch_unwind(|| run(spec, &mut |_, _| panic!("display broke"), &Cancel::new()));
        assert!(result.is_err());
        assert_eq!(processes("sleep 4713"), 0);
    }

    fn killing_the_builder_ends_the_command() {
        kill_and_count("victim", "4714", |builder| vec![builder]);
    }

    fn killing_init_ends_the_command_and_is_reported() {
        kill_and_count("bereaved", "4715", children);
    }

    #[ignore = "a part of another test"]
    fn victim() { run_and_print("4714"); }

    #[ignore = "a part of another test"]
    fn bereaved() { run_and_print("4715"); }

    fn a_detached_overlay_is_a_root() {
        sandbox();
        let root = Root::new();
        let upper = TempDir::new().unwrap();
        for name in ["u", "w"] { fs::create_dir(upper.path().join(name)).unwrap(); }
        let path = |name: &str| upper.path().join(name).to_str().unwrap().to_owned();
        let overlay = || Mount::create("overlay", &[("lowerdir", root.path().to_str().unwrap()), ("upperdir", &path("u")), ("workdir", &path("w")), ("userxattr", "")], Attributes::empty())
            .or_else(|_| mount_overlay(root.path(), upper.path()));
        let Ok(mount) = overlay() else { skip("no overlay on this file system") };
        let mut spec = root.shell("mkdir /work/d; echo x > /work/d/f; rm /etc/hosts 2>/dev/null; rm /bin/cat; cat /proc/self/mountinfo >/dev/null; grep -c overlay /proc/self/mountinfo");
        spec.root = mount.into_fd();
        output_or_code(spec);
        let upper = upper.path().join("u");
        assert_eq!(fs::read_to_string(upper.join("work/d/f")).unwrap(), "x\n");
        assert!(!upper.join("etc").exists());
    }

    fn the_builder_protects_itself_and_still_runs_commands() {
        sandbox();
        protect_self();
        check("echo x", "x");
        let spawned = std::thread::spawn(|| check("echo y", "y"));
        spawned.join().unwrap();
        assert!(fs::read_dir("/proc/self/fd").unwrap().count() > 2);
    }

    fn entering_twice_is_once() {
        assert!(!entered());
        let rung = sandbox();
        assert!(entered());
        assert_eq!(enter().unwrap(), rung);
    }

    fn a_process_with_threads_cannot_enter() {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stop);
        let thread = std::thread::spawn(move || while !seen.load(Ordering::Relaxed) { std::thread::yield_now(); });
        assert!(matches!(enter(), Err(SandboxError::Threads { count: 2 })));
        assert!(matches!(run(Root::new().spec(&["true"]), &mut |_, _| (), &Cancel::new()), Err(RunError::NotEntered)));
        stop.store(true, Ordering::Relaxed);
        thread.join().unwrap();
    }

    fn signals_raise_the_flag_and_the_second_interrupt_ends() {
        let cancel = Cancel::new();
        raise_on_signals(&cancel).unwrap();
        assert!(matches!(raise_on_signals(&Cancel::new()), Err(SignalError::Taken)));
        let child = |second: Option<libc::c_int>| {
            // SAFETY: one thread; the child raises signals and exits.
            let pid = unsafe { libc::fork() };
            if pid == 0 {
                // SAFETY: raising signals that have handlers or end the process.
                unsafe {
                    libc::raise(libc::SIGINT);
                    if FLAGGED.with(|flag| flag.borrow().as_ref().is_none_or(|flag| flag.reason() != Some(CancelReason::Interrupted))) { libc::_exit(1); }
                    if let Some(second) = second { libc::raise(second); }
                    libc::_exit(0);
                }
            }
            let mut status = 0;
            // SAFETY: waits for the own child with a live integer.
            assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
            libc::WEXITSTATUS(status)
        };
        FLAGGED.with(|flag| flag.replace(Some(cancel.clone())));
        assert_eq!(child(None), 0);
        assert_eq!(child(Some(libc::SIGTERM)), 0);
        assert_eq!(child(Some(libc::SIGINT)), 130);
        assert!(!cancel.is_cancelled());
        // SAFETY: has a handler.
        unsafe { libc::raise(libc::SIGTERM) };
        assert_eq!(cancel.reason(), Some(CancelReason::Terminated));
    }

    #[ignore = "a measurement: BUILDER_SANDBOX_RUNS=200 cargo test --release -- --ignored --nocapture time_of_an_empty_command"]
    fn time_of_an_empty_command() {
        let rung = sandbox();
        let root = Root::new();
        let runs: u32 = std::env::var("BUILDER_SANDBOX_RUNS").map_or(20, |runs| runs.parse().unwrap());
        for network in [NetworkMode::Default, NetworkMode::None] {
            let start = Instant::now();
            for _ in 0..runs {
                let mut spec = root.spec(&["true"]);
                spec.network = network;
                assert_eq!(run(spec, &mut |_, _| (), &Cancel::new()).unwrap(), Exit::Code(0));
            }
            eprintln!("{rung}, {network:?}: {:.3} ms", start.elapsed().as_secs_f64() * 1e3 / f64::from(runs));
        }
    }
}

thread_local! {
    static FLAGGED: RefCell<Option<Cancel>> = const { RefCell::new(None) };
}

fn cat() -> PathBuf {
    ["/bin/cat", "/usr/bin/cat"]
        .iter()
        .map(PathBuf::from)
        .find(|path| path.exists())
        .unwrap()
}

fn libraries(program: &Path) -> Vec<PathBuf> {
    let listed = Command::new("ldd").arg(program).output().unwrap();
    String::from_utf8_lossy(&listed.stdout)
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
        .map(PathBuf::from)
        .collect()
}

fn mount_overlay(lower: &Path, upper: &Path) -> Result<Mount, rustix::io::Errno> {
    let path = |path: PathBuf| path.to_str().unwrap().to_owned();
    Mount::create(
        "overlay",
        &[
            ("lowerdir", &path(lower.to_owned())),
            ("upperdir", &path(upper.join("u"))),
            ("workdir", &path(upper.join("w"))),
        ],
        Attributes::empty(),
    )
}

/// The script's last command is what counts.
fn output_or_code(spec: RunSpec) {
    let (_, out, err) = outcome(spec).unwrap();
    assert!(!out.is_empty(), "{err}");
}

/// A builder that runs a long command and says when it has started and how it ended.
fn run_and_print(seconds: &str) {
    sandbox();
    let root = Root::new();
    let result = run(
        root.shell(&format!("sleep {seconds} & echo started; sleep {seconds}")),
        &mut |_, bytes| std::io::stdout().write_all(bytes).unwrap(),
        &Cancel::new(),
    );
    println!("{result:?}");
}

/// Starts a builder, kills what `choose` picks, and waits until nothing of the command is left.
fn kill_and_count(subject: &str, seconds: &str, choose: fn(u32) -> Vec<u32>) {
    // A killed builder does not clean up.
    let scratch = TempDir::new().unwrap();
    let mut builder = Command::new(std::env::current_exe().unwrap())
        .env(SUBJECT, subject)
        .env("TMPDIR", scratch.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut text = [0; 8];
    let mut stdout = builder.stdout.take().unwrap();
    if stdout.read_exact(&mut text).is_err() {
        skip("the builder did not start");
    }
    let sleep = format!("sleep {seconds}");
    wait_until("two of them", || processes(&sleep) >= 2);
    for pid in choose(builder.id()) {
        // SAFETY: a process that this test started.
        assert_eq!(unsafe { libc::kill(pid as libc::pid_t, libc::SIGKILL) }, 0);
    }
    wait_until("none of them", || processes(&sleep) == 0);
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    builder.wait().unwrap();
    if subject == "bereaved" {
        assert!(rest.contains("Lost"), "{rest}");
    }
}

fn children(pid: u32) -> Vec<u32> {
    let listed = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    listed
        .split_whitespace()
        .map(|pid| pid.parse().unwrap())
        .collect()
}
