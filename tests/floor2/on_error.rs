//! `--smoke` and `--on-error`: what keeps a bad image from being delivered, and what is left of a failed step.

use std::fs;

use crate::support::lab::{Lab, Ran};
use crate::support::registry::FakeRegistry;
use crate::support::terminal::Session;

const SECRET: &str = "hunter2-hunter2-hunter2";

#[test]
fn an_image_that_fails_its_smoke_test_goes_nowhere() {
    let registry = FakeRegistry::start();
    let Some(lab) = Lab::with_base() else { return };
    lab.dockerfile("FROM base\nENV A=b\nWORKDIR /srv\nENTRYPOINT [\"false\"]\nRUN echo x > /x\n");
    let name = format!("{}/app:v1", registry.host());
    let archive = lab.path("image.tar");
    let output = format!("type=oci,dest={}", archive.display());
    let build =
        |smoke: &str| lab.build(&["-t", &name, "--push", "--output", &output, "--smoke", smoke]);
    for round in 0..2 {
        let ran = build("sh -c 'echo seen $A; pwd; exit 3'");
        ran.fails(
            5,
            &[
                "failed with exit code 3",
                "seen b",
                "/srv",
                "in the smoke test of linux/",
            ],
        );
        assert!(!archive.exists(), "round {round}");
        let lines = registry.take_lines();
        let puts = lines
            .iter()
            .filter(|line| line.starts_with("PUT") && line.contains("/manifests/"));
        assert_eq!(puts.count(), 0, "{lines:#?}");
        assert!(!lab.builder(&["images"]).stdout.contains("app"));
    }
    build("no-such-program").fails(5, &["command not found"]);
    // What it writes is thrown away; and it runs although everything is known.
    let ran = build("sh -c 'test -e /x && echo y > /made && echo it-ran'");
    assert!(ran.succeeds().stderr.contains("it-ran"));
    assert_eq!(ran.executed(), 0);
    assert!(
        build("sh -c 'echo it-ran-again; test ! -e /made'")
            .succeeds()
            .stderr
            .contains("it-ran-again")
    );
    assert!(archive.exists() && lab.builder(&["ls", &name, "/x"]).code == Some(0));
    lab.build(&["--smoke", "sh -c 'open"])
        .fails(2, &["quote ' is not closed"]);
    lab.build(&["--smoke", " "]).fails(2, &["no command"]);
}

#[test]
fn a_smoke_test_of_several_platforms_runs_where_it_can() {
    let Some(lab) = Lab::with_base() else { return };
    lab.file("f", "x");
    let foreign = match cfg!(target_arch = "x86_64") {
        true => "linux/s390x",
        false => "linux/amd64",
    };
    lab.dockerfile("FROM scratch\nCOPY f /f\n");
    let ran = lab.build(&["--platform", foreign, "--smoke", "/f"]);
    match ran.code {
        // The machine has an emulator for everything.
        Some(5) => {}
        _ => assert!(
            ran.succeeds()
                .stderr
                .contains("the smoke test was left out"),
            "{}",
            ran.stderr
        ),
    }
}

/// A build with a cache, a bind, a secret and a script, which fails.
fn failing(lab: &Lab, more: &[&str]) -> Ran {
    let secret = lab.path("secret");
    fs::write(&secret, SECRET).unwrap();
    lab.file("src/in", "from the context\n");
    lab.dockerfile(
        "FROM base\nENV A=b\nUSER app\nWORKDIR /home/app/work\nRUN echo lower > /tmp/lower\n\
         RUN --mount=type=cache,target=/cache,uid=1000 --mount=type=bind,source=src,target=/src \
         --mount=type=secret,id=token,uid=1000 --mount=type=secret,id=token,env=TOKEN \
         cat /src/in && echo half > /tmp/half && echo kept > /cache/kept && echo told $TOKEN && cat /run/secrets/token && exit 3\n",
    );
    let spec = format!("id=token,src={}", secret.display());
    let mut args = vec!["--secret", &spec];
    args.extend_from_slice(more);
    lab.build(&args)
}

#[test]
fn a_failed_step_is_saved_and_opened_elsewhere() {
    let Some(lab) = Lab::with_base() else { return };
    let file = lab.path("failed.tar");
    let save = format!("--on-error=save:{}", file.display());
    failing(&lab, &[&save]).fails(5, &["failed with exit code 3", "builder debug"]);
    lab.is_sound();

    let other = Lab::new();
    let debug = |words: &[&str]| {
        let mut all = vec!["debug", file.to_str().unwrap(), "--"];
        all.extend_from_slice(words);
        other.builder(&all)
    };
    let script = "cat /tmp/lower /tmp/half; pwd; id -u; echo $A; ls /cache; test ! -e /run/secrets/token; exit 6";
    let ran = debug(&["sh", "-c", script]);
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (Some(6), "lower\nhalf\n/home/app/work\n1000\nb\n")
    );
    for text in [
        "failed with exit code 3",
        "from the context",
        "Dockerfile:6",
        "the secret `token`",
        "-v HOST:/src",
    ] {
        assert!(
            ran.stderr.contains(text),
            "`{text}` is not in {}",
            ran.stderr
        );
    }
    assert!(!ran.stderr.contains(SECRET));
    let volume = format!("{}:/src", lab.context().join("src").display());
    let shown = other.builder(&[
        "debug",
        "-v",
        &volume,
        file.to_str().unwrap(),
        "--",
        "cat",
        "/src/in",
    ]);
    assert_eq!(shown.succeeds().stdout, "from the context\n");
    other
        .builder(&["debug", other.path("missing").to_str().unwrap()])
        .fails(125, &["cannot read"]);
    let not_one = other.path("not-one");
    fs::write(&not_one, "x").unwrap();
    other
        .builder(&["debug", not_one.to_str().unwrap()])
        .fails(125, &[]);
    assert_eq!(other.builder(&["images", "-q"]).succeeds().stdout, "");
    other.is_sound();
}

#[test]
fn a_saved_step_has_no_secret_in_it() {
    let Some(lab) = Lab::with_base() else { return };
    let file = lab.path("failed.tar");
    let save = format!("--on-error=save:{}", file.display());
    failing(&lab, &[&save]).fails(5, &[]);
    let mut tar = builder::layer::TarReader::new(fs::File::open(&file).unwrap());
    let (mut blobs, mut has_description) = (0, false);
    while let Some(_entry) = tar.next().unwrap() {
        let mut bytes = Vec::new();
        tar.copy_content(&mut bytes).unwrap();
        has_description |= find(&bytes, b"builder.failed-step");
        for bytes in [bytes.clone(), plain(bytes)] {
            assert!(!find(&bytes, SECRET.as_bytes()));
            blobs += usize::from(!bytes.is_empty());
        }
    }
    assert!(blobs > 4 && has_description);
    // What is left beside it is nothing.
    let names: Vec<_> = fs::read_dir(file.parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert!(
        !names
            .iter()
            .any(|name| name.to_string_lossy().starts_with(".failed")),
        "{names:?}"
    );
}

fn find(bytes: &[u8], text: &[u8]) -> bool {
    bytes.windows(text.len()).any(|window| window == text)
}

/// Takes the compression off.
fn plain(bytes: Vec<u8>) -> Vec<u8> {
    let mut out = Vec::new();
    let mut reader = builder::layer::decompress(std::io::Cursor::new(bytes)).unwrap();
    std::io::Read::read_to_end(&mut reader, &mut out).unwrap();
    out
}

#[test]
fn nothing_is_cached_of_a_step_that_was_kept() {
    let Some(lab) = Lab::with_base() else { return };
    lab.dockerfile("FROM base\nRUN echo ran >&2; test -e /no-such-file\n");
    let file = lab.path("failed.tar");
    let save = format!("--on-error=save:{}", file.display());
    for _ in 0..2 {
        lab.build(&[&save]).fails(5, &["ran"]);
    }
    lab.dockerfile("FROM base\nCOPY missing /\n");
    fs::remove_file(&file).unwrap();
    let ran = lab.build(&[&save]);
    assert_eq!(ran.code, Some(5));
    assert!(
        !file.exists() && !ran.stderr.contains("builder debug"),
        "{}",
        ran.stderr
    );
    lab.build(&["--on-error=save:/no/such/directory/x"])
        .fails(5, &[]);
    lab.is_sound();
}

#[test]
fn a_shell_needs_a_terminal() {
    let lab = Lab::new();
    lab.dockerfile("FROM scratch\nLABEL a=b\n");
    lab.build(&["--on-error=shell"])
        .fails(2, &["needs a terminal", "--on-error=save:FILE"]);
    lab.build(&["--on-error=nothing"]).fails(2, &["save:FILE"]);
}

#[test]
fn a_shell_in_the_failed_step_has_what_the_step_had() {
    let Some(lab) = Lab::with_base() else { return };
    failing(&lab, &[]).fails(5, &[]);
    let secret = format!("id=token,src={}", lab.path("secret").display());
    for mode in ["--progress=auto", "--progress=plain"] {
        let mut command = lab.command();
        command.args(["build", mode, "--on-error=shell", "--secret", &secret]);
        command.arg(lab.context());
        let mut session = Session::start(command);
        let above = session.shows("leaving it ends the build");
        assert!(above.contains("failed with exit code 3"), "{above}");
        session.types("cat /tmp/half /cache/kept /src/in; id -u; pwd; echo $A-$((40+2)) $TERM\r");
        let seen = session.shows("b-42 xterm");
        for text in ["half", "kept", "from the context", "1000", "/home/app/work"] {
            assert!(seen.contains(text), "`{text}` is not in {seen}");
        }
        session.types("test \"$TOKEN\" = \"$(cat /run/secrets/token)\" && echo same-$((1+1))\r");
        session.shows("same-2");
        session.types("exit 0\r");
        let (code, rest) = session.ends();
        assert_eq!(code, Some(5), "{rest}");
    }
    failing(&lab, &[]).fails(5, &["failed with exit code 3"]);
    lab.is_sound();
}
