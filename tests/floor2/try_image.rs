//! `builder run`: streams, status, config, signals, a terminal, and nothing left behind.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::lab::{Lab, Ran};
use crate::support::registry::FakeRegistry;
use crate::support::terminal::Session;

impl Lab {
    fn run(&self, args: &[&str]) -> Ran {
        let mut all = vec!["run"];
        all.extend_from_slice(args);
        self.builder(&all)
    }

    /// Builds `image`.
    fn make(&self, dockerfile: &str) {
        self.dockerfile(dockerfile);
        self.build(&["-t", "image"]).succeeds();
    }

    fn running(&self, args: &[&str]) -> Command {
        let mut command = self.command();
        command.arg("run").args(args);
        command
    }
}

#[test]
fn streams_and_status_are_the_commands_own() {
    let Some(lab) = Lab::with_base() else { return };
    let ran = lab.run(&["base", "sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(7), "out\n"));
    assert!(ran.stderr.ends_with("err\n"), "{}", ran.stderr);
    let again = lab.run(&["base", "sh", "-c", "echo err >&2"]);
    assert_eq!(
        again.succeeds().stderr,
        "err\n",
        "nothing but the command's"
    );

    for (args, code) in [
        (&["base", "no-such-program"][..], 127),
        (&["base", "/etc/passwd"], 126),
        (&["base", "/no/such/file"], 127),
        (&["base"], 125),
        (&["-u", "nobody-at-all", "base", "true"], 125),
        (&["-v", "/no/such/file:/x", "base", "true"], 125),
        (&["--isolation", "x", "base", "true"], 125),
    ] {
        assert_eq!(lab.run(args).code, Some(code), "{args:?}");
    }
    assert_eq!(lab.run(&["--no-such-flag", "base"]).code, Some(2));
    lab.is_sound();
}

#[test]
fn bytes_pass_as_they_are_in_both_directions() {
    let Some(lab) = Lab::with_base() else { return };
    let bytes: Vec<u8> = (0..=255).cycle().take(3 << 20).collect();
    let mut child = lab
        .running(&["-i", "base", "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let sent = bytes.clone();
    let writer = std::thread::spawn(move || std::io::Write::write_all(&mut input, &sent));
    let mut received = Vec::new();
    let mut output = child.stdout.take().unwrap();
    output.read_to_end(&mut received).unwrap();
    writer.join().unwrap().unwrap();
    assert!(child.wait().unwrap().success());
    assert!(received == bytes, "{} bytes", received.len());

    // Without -i there is nothing to read.
    let ran = lab.builder_with_input(&["run", "base", "cat"], b"not passed on");
    assert_eq!(ran.succeeds().stdout, "");
    // A command that reads nothing ends all the same.
    lab.builder_with_input(&["run", "-i", "base", "true"], b"nobody reads this")
        .succeeds();
}

#[test]
fn nobody_reads_what_it_prints_so_it_ends() {
    let Some(lab) = Lab::with_base() else { return };
    let mut child = lab
        .running(&["base", "yes"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert_eq!(line, "y\n");
    assert_eq!(child.wait().unwrap().code(), Some(128 + 13));
}

#[test]
fn what_the_image_says_holds_and_what_is_typed_goes_before_it() {
    let Some(lab) = Lab::with_base() else { return };
    lab.make(
        "FROM base\nENV A=image B=image\nUSER app\nWORKDIR /srv\nENTRYPOINT [\"printf\", \"%s,\"]\nCMD [\"of\", \"image\"]\n",
    );
    let out = |args: &[&str]| lab.run(args).succeeds().stdout.clone();
    assert_eq!(out(&["image"]), "of,image,");
    assert_eq!(out(&["image", "typed", "-x"]), "typed,-x,");
    let shell = "echo $A $B $C $HOME; pwd; id -u; id -G";
    let sh = ["--entrypoint", "sh", "image", "-c", shell];
    assert_eq!(out(&sh), "image image /home/app\n/srv\n1000\n1000 50\n");
    let changed = [
        &[
            "-e", "A=typed", "-e", "C=new", "-e", "B", "-u", "0", "-w", "x/y",
        ],
        &sh[..],
    ];
    assert_eq!(out(&changed.concat()), "typed new /root\n/srv/x/y\n0\n0\n");
    assert_eq!(
        out(&["--entrypoint", "", "image", "printf", "bare"]),
        "bare"
    );
    assert_eq!(lab.run(&["--entrypoint", "", "image"]).code, Some(125));
    lab.make("FROM base\nENTRYPOINT echo shell form\nCMD [\"left\", \"out\"]\n");
    assert_eq!(out(&["image"]), "shell form\n");
    lab.make("FROM base\nCMD echo command $0\n");
    assert_eq!(out(&["image"]), "command /bin/sh\n");
    let digest = lab.inspect("image")[0]["digest"].as_str().unwrap()[7..19].to_owned();
    assert_eq!(out(&[&digest]), "command /bin/sh\n");
}

#[test]
fn what_is_written_is_thrown_away_but_for_what_is_the_hosts() {
    let Some(lab) = Lab::with_base() else { return };
    let data = lab.path("data");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("in"), "given").unwrap();
    let volume = format!("{}:/data", data.display());
    let script = "cat /data/in; echo x > /data/out; echo x > /made; ls -d /made";
    let ran = lab.run(&["-v", &volume, "base", "sh", "-c", script]);
    assert_eq!(ran.succeeds().stdout, "given/made\n");
    assert_eq!(fs::read_to_string(data.join("out")).unwrap(), "x\n");
    lab.run(&["base", "sh", "-c", "! test -e /made"]).succeeds();
    let read_only = format!("type=bind,src={},dst=/data,ro", data.display());
    let refused = "! echo y 2>/dev/null > /data/out";
    lab.run(&["--mount", &read_only, "base", "sh", "-c", refused])
        .succeeds();
    let memory = ["--mount", "type=tmpfs,dst=/mem", "base"];
    lab.run(&[&memory[..], &["sh", "-c", "echo x > /mem/x"]].concat())
        .succeeds();
    lab.is_sound();
}

#[test]
fn a_secret_is_a_file_for_the_command_alone() {
    let Some(lab) = Lab::with_base() else { return };
    let file = lab.path("token");
    fs::write(&file, "hunter2-hunter2").unwrap();
    let spec = format!("id=token,src={}", file.display());
    let ran = lab.run(&["--secret", &spec, "base", "cat", "/run/secrets/token"]);
    assert_eq!(ran.succeeds().stdout, "hunter2-hunter2");
}

#[test]
fn an_image_that_is_not_here_is_pulled_once_and_kept() {
    let registry = FakeRegistry::start();
    let Some(lab) = Lab::with_base() else { return };
    let name = format!("{}/tool:v1", registry.host());
    lab.dockerfile("FROM base\nCMD echo from afar\n");
    lab.build(&["-t", &name, "--push"]).succeeds();
    let other = Lab::new();
    let ran = other.run(&[&name]);
    assert_eq!(ran.succeeds().stdout, "from afar\n");
    assert!(other.builder(&["images"]).stdout.contains("tool"));
    registry.take_log();
    other.run(&["-q", &name]).succeeds();
    assert!(registry.take_lines().is_empty());
    other.run(&["--pull", &name]).succeeds();
    assert!(!registry.take_lines().is_empty());
    other.saved(&name);
    other.is_sound();
}

/// Starts a script, and waits until it says that it is there.
fn begun(lab: &Lab, script: &str) -> (std::process::Child, BufReader<std::process::ChildStdout>) {
    let mut child = lab
        .running(&["base", "sh", "-c", script])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    assert_eq!(line, "begun\n");
    (child, output)
}

#[test]
fn signals_are_passed_on_and_end_what_does_not_handle_them() {
    let Some(lab) = Lab::with_base() else { return };
    let send = |child: &std::process::Child, signal| {
        kill(Pid::from_raw(child.id() as i32), signal).unwrap();
    };
    let handles =
        "trap 'echo caught; exit 9' TERM; echo begun; while :; do sleep 1 & wait $!; done";
    let (mut child, mut output) = begun(&lab, handles);
    send(&child, Signal::SIGTERM);
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    assert_eq!(
        (child.wait().unwrap().code(), rest.as_str()),
        (Some(9), "caught\n")
    );
    for (signal, code) in [(Signal::SIGTERM, 143), (Signal::SIGHUP, 129)] {
        let (mut child, _output) = begun(&lab, "echo begun; exec sleep 1000");
        send(&child, signal);
        assert_eq!(child.wait().unwrap().code(), Some(code));
    }
    // One that will not end.
    let (mut child, _output) = begun(
        &lab,
        "trap '' TERM; echo begun; while :; do sleep 1000; done",
    );
    for _ in 0..3 {
        send(&child, Signal::SIGTERM);
        // Signals that come together count once.
        std::thread::yield_now();
    }
    while child.try_wait().unwrap().is_none() {
        send(&child, Signal::SIGTERM);
        std::thread::yield_now();
    }
    assert_eq!(child.wait().unwrap().code(), Some(143));
    lab.is_sound();
}

#[test]
fn the_death_of_the_builder_is_that_of_the_command() {
    let Some(lab) = Lab::with_base() else { return };
    let (mut child, mut output) = begun(&lab, "echo begun; exec sleep 1000");
    child.kill().unwrap();
    child.wait().unwrap();
    // Its end of the pipe is closed when the command is gone.
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
}

#[test]
fn a_terminal_is_the_commands_own_and_as_large_as_the_users() {
    let Some(lab) = Lab::with_base() else { return };
    lab.run(&["base", "true"]).succeeds();
    let mut session = Session::start(lab.running(&["base", "sh"]));
    session.types("test -t 0 && test -t 1 && test -t 2 && echo is-$((40+2))-terminal $TERM\r");
    session.shows("is-42-terminal xterm");
    // Job control: what runs in front gets Ctrl-C, and the shell goes on.
    session.types("sh -c 'echo begun-$((5+5)); exec sleep 1000'\r");
    session.shows("begun-10");
    session.types("\x03");
    session.types("echo still-$((1+2))\r");
    session.shows("still-3");
    session.types("echo tty-$((2+2)) > /dev/tty\r");
    session.shows("tty-4");
    session.types("exit 5\r");
    assert_eq!(session.ends().0, Some(5));
    lab.is_sound();
}

#[test]
fn the_size_of_the_terminal_is_followed() {
    let Some(lab) = Lab::with_base() else { return };
    let script = "trap 'perl -e \"ioctl(STDIN, 0x5413, \\$s = q(x) x 8); print join(q(x), unpack(q(SS), \\$s)), qq(-size\\n)\"' WINCH; \
                  kill -WINCH $$; echo begun; while :; do sleep 0.1; done";
    let mut session = Session::start(lab.running(&["-it", "base", "sh", "-c", script]));
    session.shows("begun");
    session.resize(33, 111);
    session.signal(Signal::SIGWINCH);
    session.shows("33x111-size");
    session.signal(Signal::SIGQUIT);
    assert_eq!(session.ends().0, Some(131));
}

#[test]
fn a_terminal_can_be_asked_for_and_left_out() {
    let Some(lab) = Lab::with_base() else { return };
    let script = "test -t 1 && echo is-one || echo is-none";
    let shell = ["base", "sh", "-c", script];
    let ran = lab.run(&[&["-t"], &shell[..]].concat());
    assert_eq!(ran.succeeds().stdout, "is-one\r\n");
    assert_eq!(lab.run(&shell).succeeds().stdout, "is-none\n");
    lab.run(&[&["-it"], &shell[..]].concat())
        .fails(125, &["needs a terminal"]);
    let without = [&["-t=false"], &shell[..]].concat();
    let (code, seen) = Session::start(lab.running(&without)).ends();
    assert!(code == Some(0) && seen.contains("is-none"), "{seen}");
}
