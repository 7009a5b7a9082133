//! RUN: its environment, its confinement, its end.

use std::time::{Duration, Instant};

use crate::support::lab::Lab;

#[test]
fn a_run_changes_the_image_and_sees_its_environment() {
    let Some(lab) = Lab::with_base() else { return };
    let image = lab.image(
        "FROM base\nENV A=1\nARG B=2\nWORKDIR /work\nRUN env | sort > env && pwd > where && id -u > uid && umask > umask\n",
    );
    let files = image.files();
    let env = files.text("work/env");
    for line in [
        "A=1",
        "B=2",
        "HOME=/root",
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    ] {
        assert!(env.lines().any(|found| found == line), "{line} in {env}");
    }
    assert!(
        !env.contains("BUILDER_ROOT") && !env.contains("DOCKER_CONFIG"),
        "the builder's environment stays outside: {env}"
    );
    assert_eq!(files.text("work/where"), "/work\n");
    assert_eq!(files.text("work/uid"), "0\n");
    assert_eq!(files.text("work/umask"), "0022\n");
    assert_eq!(
        image
            .list("/config/Env")
            .iter()
            .filter(|line| line.starts_with("B="))
            .count(),
        0,
        "ARG is not in the image"
    );
    let created_by = image.config["history"].as_array().unwrap().last().unwrap()["created_by"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(
        created_by.starts_with("RUN |1 B=2 /bin/sh -c env | sort"),
        "{created_by}"
    );
    assert!(created_by.ends_with("# buildkit"), "{created_by}");
}

#[test]
fn the_command_is_process_one_and_leaves_nothing_running() {
    let Some(lab) = Lab::with_base() else { return };
    let files = lab.files("FROM base\nRUN echo $$ > /pid; sleep 1000 & true\n");
    assert_eq!(files.text("pid"), "1\n");
}

#[test]
fn hosts_and_resolv_conf_are_provided_and_not_in_the_image() {
    let Some(lab) = Lab::with_base() else { return };
    lab.dockerfile(
        "FROM base\nRUN cat /etc/hosts > /hosts && test -e /etc/resolv.conf && echo 1.2.3.4 x >> /etc/hosts && hostname > /name\n",
    );
    lab.build(&["-t", "image", "--add-host", "other:10.1.2.3"])
        .succeeds();
    let files = lab.saved("image").files();
    let hosts = files.text("hosts");
    assert!(
        hosts
            .lines()
            .any(|line| line.starts_with("127.0.0.1") && line.contains("localhost")),
        "{hosts}"
    );
    assert!(
        hosts
            .lines()
            .any(|line| line.starts_with("127.0.0.1") && line.contains("buildkitsandbox")),
        "{hosts}"
    );
    assert!(
        hosts
            .lines()
            .any(|line| line.starts_with("10.1.2.3") && line.contains("other")),
        "{hosts}"
    );
    assert!(
        !files.has("etc/hosts") && !files.has("etc/resolv.conf"),
        "no stub is left"
    );
    assert_eq!(files.text("name"), "buildkitsandbox\n");
}

#[test]
fn mounts_and_devices_are_those_of_a_container() {
    let Some(lab) = Lab::with_base() else { return };
    let files = lab.files(
        "FROM base\nRUN ls /dev > /dev.txt; cat /proc/self/status > /status; (echo x > /proc/sysrq-trigger) 2>/dev/null && echo open > /leak; \
         cat /proc/keys > /keys 2>/dev/null; ls /proc/acpi > /acpi 2>/dev/null; touch /sys/x 2>/dev/null && echo writable > /leak2; \
         test -c /dev/null && test -d /dev/shm && test -c /dev/ptmx && echo fine > /fine\n",
    );
    let devices = files.text("dev.txt");
    for device in [
        "null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts", "shm", "fd", "stdin",
        "stdout", "stderr",
    ] {
        assert!(
            devices.lines().any(|found| found == device),
            "{device} in {devices}"
        );
    }
    assert_eq!(files.text("fine"), "fine\n");
    assert!(!files.has("leak") && !files.has("leak2"));
    assert!(files.text("keys").is_empty(), "/proc/keys is masked");
    let status = files.text("status");
    let value = |name: &str| {
        status
            .lines()
            .find(|line| line.starts_with(name))
            .unwrap()
            .split_whitespace()
            .nth(1)
            .unwrap()
            .to_owned()
    };
    assert_eq!(
        value("CapBnd:"),
        "00000000a80425fb",
        "the default capabilities of Docker"
    );
    assert_eq!(value("Seccomp:"), "2");
    assert_eq!(value("NoNewPrivs:"), "0");
    assert!(
        files.has("proc") && files.has("sys") && files.has("dev"),
        "mount points stay where the base lacked them"
    );
}

#[test]
fn users_and_groups_are_looked_up_in_the_image() {
    let Some(lab) = Lab::with_base() else { return };
    let files = lab.files(
        "FROM base\nRUN mkdir -m 777 /out\nUSER app\nRUN id -u > /out/u; id -g > /out/g; id -G > /out/groups; echo $HOME > /out/home; grep CapEff /proc/self/status > /out/caps\n\
         USER 1000:0\nRUN id -G > /out/explicit\nUSER 4711\nRUN echo $(id -u):$(id -g) $HOME > /out/unknown\nUSER app:staff\nWORKDIR /made/by/app\n",
    );
    assert_eq!(files.text("out/u"), "1000\n");
    assert_eq!(files.text("out/g"), "1000\n");
    assert_eq!(files.text("out/groups"), "1000 50\n");
    assert_eq!(files.text("out/home"), "/home/app\n");
    assert_eq!(files.text("out/explicit"), "0\n");
    assert_eq!(files.text("out/unknown"), "4711:0 /\n");
    assert!(
        files.text("out/caps").contains("0000000000000000"),
        "a user has no effective capability"
    );
    assert_eq!(files.owner("out/u"), "0644 1000:1000");
    assert_eq!(files.owner("made"), "0755 1000:50");
    assert_eq!(files.owner("made/by/app"), "0755 1000:50");
    lab.dockerfile("FROM base\nUSER nobody-here\nRUN true\n");
    lab.build(&[])
        .fails(5, &["nobody-here", "Dockerfile:3", "hint:"]);
}

#[test]
fn metadata_that_run_makes_is_in_the_layer() {
    let Some(lab) = Lab::with_base() else { return };
    let image = lab.image(
        "FROM base\nRUN mkdir /d && echo x > /d/f && ln /d/f /d/hard && ln -s f /d/soft && mkfifo /d/fifo && chown 5:6 /d/f && chmod 4755 /d/f && chmod 1777 /d && touch -d 2001-02-03T04:05:06.123456789Z /d/soft /d/fifo\nRUN rm /d/fifo && rm /etc/group\nRUN rm -r /d && mkdir /d && echo y > /d/g\n",
    );
    let layer = &image.layers[1];
    let entry = |name: &str| {
        layer
            .iter()
            .find(|file| file.entry.path == name.as_bytes())
            .unwrap()
            .entry
            .clone()
    };
    assert_eq!(
        (entry("d/f").mode, entry("d/f").uid, entry("d/f").gid),
        (0o4755, 5, 6)
    );
    assert_eq!(entry("d").mode, 0o1777);
    assert!(matches!(
        entry("d/hard").kind,
        builder::layer::EntryKind::HardLink { .. }
    ));
    assert!(matches!(
        entry("d/fifo").kind,
        builder::layer::EntryKind::Fifo
    ));
    assert_eq!(
        (
            entry("d/fifo").mtime.seconds,
            entry("d/fifo").mtime.nanoseconds
        ),
        (981173106, 123456789)
    );
    let names = |at: usize| {
        image.layers[at]
            .iter()
            .map(|file| String::from_utf8_lossy(&file.entry.path).into_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(names(2), ["d", "d/.wh.fifo", "etc", "etc/.wh.group"]);
    assert_eq!(names(3), ["d", "d/.wh..wh..opq", "d/g"]);
    let files = image.files();
    assert!(
        files.has("d/g") && !files.has("d/f") && !files.has("etc/group") && files.has("etc/passwd")
    );
}

#[test]
fn what_is_only_opened_for_writing_is_not_in_the_layer() {
    let Some(lab) = Lab::with_base() else { return };
    let image = lab.image("FROM base\nRUN : >> /etc/passwd && chmod 755 /etc\n");
    assert!(
        image.layers[1]
            .iter()
            .all(|file| file.entry.path != b"etc/passwd"),
        "{:?}",
        image.layers[1]
    );
}

#[test]
fn network_none_has_a_loopback_and_nothing_else() {
    let Some(lab) = Lab::with_base() else { return };
    let files = lab.files("FROM base\nRUN --network=none ls /sys/class/net > /net; cat /proc/net/dev > /dev.txt\nRUN cat /proc/net/dev > /host.txt\n");
    let interfaces = files
        .text("dev.txt")
        .lines()
        .filter(|line| line.contains(':'))
        .count();
    assert_eq!(interfaces, 1, "{}", files.text("dev.txt"));
}

#[test]
fn a_failing_run_tells_its_line_its_output_and_its_code() {
    let Some(lab) = Lab::with_base() else { return };
    let before = lab.builder(&["images"]).stdout;
    lab.dockerfile("FROM base\nRUN echo good\nRUN echo before the end && \\\n    exit 42\n");
    lab.build(&["-t", "x"]).fails(
        5,
        &[
            "exit code 42",
            "Dockerfile:3:1",
            "| RUN echo before the end",
            "| before the end",
        ],
    );
    lab.is_sound();
    lab.dockerfile("FROM base\nRUN [\"/no/such/program\"]\n");
    lab.build(&[])
        .fails(5, &["/no/such/program", "Dockerfile:2:1"]);
    lab.dockerfile("FROM base\nRUN sh -c 'kill -9 $$'; exit $?\n");
    lab.build(&[]).fails(5, &["exit code 137"]);
    let after = lab.builder(&["images"]).stdout;
    assert_eq!(after, before, "no partial image");
}

#[test]
fn timeout_ends_everything_with_its_own_code() {
    let Some(lab) = Lab::with_base() else { return };
    lab.dockerfile("FROM base\nRUN echo kept > /kept\nRUN sleep 4321\n");
    let before = Instant::now();
    lab.build(&["--timeout", "2s"]).fails(7, &["timeout"]);
    assert!(
        before.elapsed() < Duration::from_secs(1000),
        "it did not wait for the step"
    );
    assert!(!running("4321"), "the step's process is gone");
    lab.is_sound();
    lab.dockerfile("FROM base\nRUN echo kept > /kept\n");
    assert_eq!(
        lab.build(&[]).succeeds().executed(),
        0,
        "finished steps are kept"
    );
}

#[test]
fn a_signal_ends_everything() {
    let Some(lab) = Lab::with_base() else { return };
    for (signal, code) in [
        (nix::sys::signal::Signal::SIGINT, 130),
        (nix::sys::signal::Signal::SIGTERM, 143),
    ] {
        let sleep = format!("98{code}");
        lab.dockerfile(&format!("FROM base\nRUN sleep {sleep}\n"));
        let context = lab.context();
        let child = lab
            .command()
            .args(["build", "--progress=plain", context.to_str().unwrap()])
            .stderr(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        wait_until(|| running(&sleep));
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id() as i32), signal).unwrap();
        let ran = crate::support::lab::Ran::of(child.wait_with_output().unwrap());
        ran.fails(code, &[]);
        wait_until(|| !running(&sleep));
        lab.is_sound();
    }
}

#[test]
fn kill_9_of_the_builder_ends_its_steps() {
    let Some(lab) = Lab::with_base() else { return };
    lab.dockerfile("FROM base\nRUN sleep 7654\n");
    let mut child = lab
        .command()
        .args(["build", "--progress=quiet"])
        .arg(lab.context())
        .spawn()
        .unwrap();
    wait_until(|| running("7654"));
    child.kill().unwrap();
    child.wait().unwrap();
    wait_until(|| !running("7654"));
    lab.dockerfile("FROM base\nRUN echo something else\n");
    lab.build(&[]).succeeds();
    lab.is_sound();
}

/// Waits for something that must happen; a test that hangs is a test that failed.
fn wait_until(happened: impl Fn() -> bool) {
    while !happened() {
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Tells whether a process has `argument` among its arguments.
fn running(argument: &str) -> bool {
    std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .any(|process| {
            let command = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
            command
                .split(|&byte| byte == 0)
                .any(|word| word == argument.as_bytes())
                && command
                    .split(|&byte| byte == 0)
                    .next()
                    .is_some_and(|program| program.ends_with(b"sleep"))
        })
}

#[test]
fn heredocs_run_as_scripts() {
    let Some(lab) = Lab::with_base() else { return };
    let files = lab.files(
        "FROM base\nRUN <<EOF\necho one > /one\nfalse\necho two > /two\nEOF\nRUN <<EOF\n#!/bin/sh -e\necho three > /three\nEOF\nRUN cat <<A <<B > /four\na\nA\nb $HOME\nB\n",
    );
    assert!(files.has("one") && files.has("two"), "no implicit set -e");
    assert_eq!(files.text("three"), "three\n");
    assert_eq!(files.text("four"), "b /root\n");
    assert!(!files.has("dev/pipes"));
}

#[test]
fn independent_stages_run_at_the_same_time() {
    let Some(lab) = Lab::with_base() else { return };
    // Each waits for what the other says over a loopback-free channel: the host's abstract time. Two sleeps of a second in two
    // stages overlap, so their starts are less than a second apart.
    let files = lab.files(
        "FROM base AS a\nRUN date +%s%N > /a && sleep 1\nFROM base AS b\nRUN date +%s%N > /b && sleep 1\nFROM scratch\nCOPY --from=a /a /a\nCOPY --from=b /b /b\n",
    );
    let at = |name: &str| files.text(name).trim().parse::<i128>().unwrap();
    assert!(
        (at("a") - at("b")).abs() < 1_000_000_000,
        "{} {}",
        at("a"),
        at("b")
    );
}
