//! Secrets and SSH agents: what steps get of them, and that nobody else gets anything.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::support::lab::{Lab, Ran};
use crate::support::power;

/// A value that no other file has.
const VALUE: &str = "pl4nted-s3cret-value-7d1f";

#[test]
fn secrets_are_files_and_variables() {
    let Some(lab) = Lab::with_base() else { return };
    fs::write(lab.path("token"), "from a file\n").unwrap();
    lab.dockerfile(
        "FROM base\nRUN mkdir -m 777 /out\n\
         RUN --mount=type=secret,id=f cat /run/secrets/f | tr a-z A-Z > /out/file && stat -c '%a %u:%g' /run/secrets/f > /out/stat && ! (echo x > /run/secrets/f) 2>/dev/null\n\
         RUN --mount=type=secret,id=v,env=TOKEN printf %s \"$TOKEN\" | tr a-z A-Z > /out/variable && ! test -e /run\n\
         RUN --mount=type=secret,id=v,env=TOKEN,target=/both test \"$TOKEN\" = \"$(cat /both)\"\n\
         RUN --mount=type=secret,id=f,target=rel/t,mode=0440,uid=1000,gid=50 stat -c '%a %u:%g' /rel/t > /out/owned\n\
         RUN --mount=type=secret,target=/x/f grep -q file /x/f\n\
         RUN --mount=type=secret,id=none --mount=type=secret,id=none2,env=NONE ! test -e /run/secrets && test -z \"${NONE+set}\"\n\
         ENV TOKEN=image\nRUN --mount=type=secret,id=v,env=TOKEN printf %s \"$TOKEN\" | tr a-z A-Z > /out/override\n\
         RUN --mount=type=secret,id=BY_NAME cat /run/secrets/BY_NAME | tr a-z A-Z > /out/by-name\n\
         USER app\nRUN --mount=type=secret,id=f ! cat /run/secrets/f 2>/dev/null\nRUN --mount=type=secret,id=f,uid=1000 cat /run/secrets/f\n",
    );
    let ran = lab
        .command()
        .env("MY_TOKEN", "from a variable")
        .env("BY_NAME", "by its name")
        .args(["build", "--progress=plain", "-t", "image"])
        .args([
            "--secret",
            "id=f,src=token",
            "--secret",
            "id=v,env=MY_TOKEN",
        ])
        .args(["--secret", "id=BY_NAME"])
        .arg(lab.context())
        .output()
        .unwrap();
    Ran::of(ran).succeeds();
    let image = lab.saved("image");
    let files = image.files();
    for (name, wanted) in [
        ("file", "FROM A FILE\n"),
        ("stat", "400 0:0\n"),
        ("variable", "FROM A VARIABLE"),
        ("owned", "440 1000:50\n"),
        ("override", "FROM A VARIABLE"),
        ("by-name", "BY ITS NAME"),
    ] {
        assert_eq!(files.text(&format!("out/{name}")), wanted, "{name}");
    }
    assert!(!files.has("run") && !files.has("both") && !files.has("rel"));
    let config = image.config.to_string();
    assert!(!config.contains("from a"), "{config}");
    lab.is_sound();
}

#[test]
fn what_is_required_and_missing_is_told_with_its_flag() {
    let Some(lab) = Lab::with_base() else { return };
    lab.dockerfile("FROM base\nRUN --mount=type=secret,id=x,required true\n");
    lab.build(&[]).fails(
        5,
        &[
            "requires the secret `x`",
            "Dockerfile:2",
            "--secret id=x,src=FILE",
        ],
    );
    lab.dockerfile("FROM base\nRUN --mount=type=ssh,id=x,required=true true\n");
    lab.build(&[]).fails(
        5,
        &["requires the SSH agent `x`", "Dockerfile:2", "--ssh x"],
    );
    lab.dockerfile("FROM base\nRUN --mount=type=ssh test \"$SSH_AUTH_SOCK\" = /run/buildkit/ssh_agent.0 && ! test -e $SSH_AUTH_SOCK\n");
    lab.build(&[]).succeeds();
    fs::write(lab.path("big"), vec![b'x'; (500 << 10) + 1]).unwrap();
    for (args, wanted) in [
        (&["--secret", "id=x,src=no-such-file"][..], "no-such-file"),
        (&["--secret", "id=x"], "`x`"),
        (&["--secret", "id=x,src=big"], "larger than 500 KiB"),
        (&["--secret", "id=x,src=context"], "it is a directory"),
        (&["--secret", "src=big"], "has no id"),
        (&["--ssh", "default"], "SSH_AUTH_SOCK is not set"),
        (&["--ssh", "default=no-such-file"], "no-such-file"),
        (&["--ssh", "default=big"], "cannot be a key"),
        (&["--ssh", "default", "--ssh", "default=big"], "twice"),
        (&["--allow", "everything"], "no such leave"),
        (&["--emulator", "arm64"], "is not ARCH=PATH"),
    ] {
        let ran = lab
            .command()
            .env_remove("SSH_AUTH_SOCK")
            .args(["build", "--no-cache"])
            .args(args)
            .arg(lab.context())
            .output()
            .unwrap();
        Ran::of(ran).fails(2, &[wanted]);
    }
    // As in BuildKit a variable that is not set is an empty secret.
    lab.dockerfile(
        "FROM base\nRUN --mount=type=secret,id=x,env=X test \"${X+set}\" = set && test -z \"$X\"\n",
    );
    lab.build(&["--secret", "id=x,env=BUILDER_TEST_NOT_SET"])
        .succeeds_and_says(&["warning", "BUILDER_TEST_NOT_SET"]);
    // A secret that is no text can be a file.
    fs::write(lab.path("binary"), b"\xff\0\xfe").unwrap();
    lab.dockerfile("FROM base\nRUN --mount=type=secret,id=x test $(stat -c %s /run/secrets/x) = 3\nRUN --mount=type=secret,id=x,env=X true\n");
    lab.build(&["--secret", "id=x,src=binary"])
        .fails(5, &["Dockerfile:3", "it is no text"]);
}

impl Ran {
    /// Asserts success, and that standard error holds each text.
    #[track_caller]
    fn succeeds_and_says(&self, texts: &[&str]) {
        self.succeeds();
        for text in texts {
            assert!(
                self.stderr.contains(text),
                "`{text}` is not in:\n{}",
                self.stderr
            );
        }
    }
}

#[test]
fn another_value_is_no_reason_to_run_again() {
    let Some(lab) = Lab::with_base() else { return };
    let secret = lab.path("s");
    let spec = format!("id=s,src={}", secret.display());
    fs::write(&secret, "one").unwrap();
    lab.dockerfile("FROM base\nRUN --mount=type=secret,id=s wc -c /run/secrets/s\n");
    assert_eq!(lab.build(&["--secret", &spec]).succeeds().executed(), 1);
    fs::write(&secret, "another").unwrap();
    assert_eq!(lab.build(&["--secret", &spec]).succeeds().executed(), 0);
    assert_eq!(lab.build(&[]).succeeds().executed(), 0);
    lab.dockerfile(
        "FROM base\nRUN --mount=type=secret,id=s,target=/other wc -c /other 2>&1 || true\n",
    );
    assert_eq!(lab.build(&[]).succeeds().executed(), 1);
}

/// Tells whether a file below `path`, or a name, holds the value.
fn holders(path: &Path, needle: &[u8], found: &mut Vec<PathBuf>) {
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return;
    };
    let holds = |bytes: &[u8]| bytes.windows(needle.len()).any(|window| window == needle);
    if holds(path.as_os_str().as_encoded_bytes()) {
        found.push(path.to_owned());
    }
    if metadata.is_dir() {
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            holders(&entry.path(), needle, found);
        }
    } else if metadata.is_file() && fs::read(path).is_ok_and(|bytes| holds(&bytes)) {
        found.push(path.to_owned());
    }
}

#[test]
fn a_planted_secret_is_found_nowhere() {
    let Some(lab) = Lab::with_base() else { return };
    // Outside of what is searched.
    let outside = tempfile::tempdir().unwrap();
    let path = outside.path().join("planted");
    let lines = format!("-----BEGIN-----\n{VALUE}\nother-line-of-it\n-----END-----\n");
    fs::write(&path, &lines).unwrap();
    let spec = format!("id=s,src={}", path.display());
    lab.file("d/f", "x");
    lab.dockerfile(
        "FROM base AS first\n\
         RUN --mount=type=secret,id=s --mount=type=secret,id=s,env=S --mount=type=secret,id=v,env=V --mount=type=cache,target=/c --mount=type=tmpfs,target=/t \
         cp /run/secrets/s /t/s && cat /run/secrets/s && env && echo \"$S\" >&2 && printf '%s' \"${V%????}\" && sleep 0.1 && printf '%s\\n' \"${V#${V%????}}\" && cat /t/s && touch /c/held; \
         while ! test -e /c/looked; do sleep 0.01; done; echo done > /first\n\
         FROM base\nCOPY --from=first /first /first\n\
         RUN --mount=type=secret,id=s,target=/root/.key sha256sum /root/.key 2>/dev/null; cat /root/.key; false || true\n",
    );
    let metadata = lab.path("metadata.json");
    let child = lab
        .command()
        .env("PLANTED", VALUE)
        .args(["build", "--progress=rawjson", "-t", "image"])
        .args(["--secret", &spec, "--secret", "id=v,env=PLANTED"])
        .arg("--metadata-file")
        .arg(&metadata)
        .arg(lab.context())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let output = std::thread::spawn(move || child.wait_with_output().unwrap());
    // While the step runs: arguments of all processes, and the state directory with its temporary folders.
    let mut looking = Lab::in_place_of(&lab);
    looking.dockerfile = "FROM base\nRUN --mount=type=cache,target=/c while ! test -e /c/held; do sleep 0.01; done\n";
    looking.build().succeeds();
    for process in fs::read_dir("/proc").unwrap().flatten() {
        let arguments = fs::read(process.path().join("cmdline")).unwrap_or_default();
        let text = String::from_utf8_lossy(&arguments);
        assert!(!text.contains(VALUE), "{text}");
    }
    let mut found = Vec::new();
    holders(&lab.path(""), VALUE.as_bytes(), &mut found);
    holders(&lab.path(""), b"other-line-of-it", &mut found);
    assert!(found.is_empty(), "while it runs: {found:?}");
    looking.dockerfile = "FROM base\nRUN --mount=type=cache,target=/c touch /c/looked\n";
    looking.build().succeeds();
    let ran = Ran::of(output.join().unwrap());
    ran.succeeds();
    for (what, text) in [("stdout", &ran.stdout), ("stderr", &ran.stderr)] {
        assert!(!text.contains(VALUE), "{what}: {text}");
        assert!(!text.contains("other-line-of-it"), "{what}: {text}");
    }
    // Output is encoded in JSON lines.
    let told = raw_output(&ran.stdout) + &raw_output(&ran.stderr);
    assert!(
        !told.contains(VALUE) && !told.contains("other-line-of-it"),
        "{told}"
    );
    assert!(told.contains("S=***"), "the step did print it: {told}");
    let image = lab.saved("image");
    let all = format!("{:?} {}", image, image.config);
    assert!(!all.contains(VALUE));
    let mut found = Vec::new();
    holders(&lab.path(""), VALUE.as_bytes(), &mut found);
    holders(&lab.path(""), b"other-line-of-it", &mut found);
    assert!(found.is_empty(), "afterwards: {found:?}");
    // A failing step tells its last lines again.
    lab.dockerfile("FROM base\nRUN --mount=type=secret,id=s,env=S echo \"it was $S\"; false\n");
    let failed = lab.build(&["--secret", &spec]);
    failed.fails(5, &["it was ***"]);
    assert!(!failed.stderr.contains(VALUE) && !failed.stderr.contains("other-line-of-it"));
}

#[test]
fn what_a_step_has_left_is_hidden_in_later_ones() {
    let Some(lab) = Lab::with_base() else { return };
    lab.dockerfile(
        "FROM base\n\
         RUN --mount=type=secret,id=s cp /run/secrets/s /kept\n\
         RUN echo \"found $(cat /kept)\"\n\
         RUN echo \"lost $(cat /kept)\"; false\n",
    );
    let build = || {
        let mut command = lab.command();
        command
            .args(["build", "--secret", "id=s,env=PLANTED", "--progress=plain"])
            .arg(lab.context())
            .env("PLANTED", VALUE);
        Ran::of(command.output().unwrap())
    };
    let failed = build();
    failed.fails(5, &["found ***", "lost ***"]);
    assert!(!failed.stderr.contains(VALUE), "{}", failed.stderr);
    // The step that was given it is known now, and is not executed.
    let failed = build();
    failed.fails(5, &["lost ***"]);
    assert!(!failed.stderr.contains(VALUE), "{}", failed.stderr);
}

/// Joins what steps printed, as the JSON lines have it.
fn raw_output(lines: &str) -> String {
    let values = lines
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    values
        .filter(|value| value["event"] == "output")
        .map(|value| value["text"].as_str().unwrap_or_default().to_owned())
        .collect()
}

/// Another build with the state directory of a lab.
struct Beside<'a> {
    lab: &'a Lab,
    dockerfile: &'static str,
}

impl Lab {
    fn in_place_of(lab: &Lab) -> Beside<'_> {
        Beside {
            lab,
            dockerfile: "",
        }
    }
}

impl Beside<'_> {
    fn build(&self) -> Ran {
        self.lab.builder_with_input(
            &[
                "build",
                "--progress=plain",
                "-f",
                "-",
                self.lab.context().to_str().unwrap(),
            ],
            self.dockerfile.as_bytes(),
        )
    }
}

/// Puts a program of the machine with its libraries into the context; `None` if the machine lacks it.
fn lend(lab: &Lab, name: &str) -> Option<()> {
    let found = power::program(name)?;
    let listed = Command::new("ldd").arg(&found).output().ok()?;
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let libraries = listed
        .lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    for library in libraries.filter(|library| !library.contains("ld-linux")) {
        let file = Path::new(library).file_name()?.to_str()?;
        lab.file(&format!("tools/lib/{file}"), fs::read(library).ok()?);
    }
    let copy = lab.file(&format!("tools/{name}"), fs::read(found).ok()?);
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(copy, fs::Permissions::from_mode(0o755)).ok()
}

/// An agent that ends with the test.
struct RealAgent(Child);

impl Drop for RealAgent {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn key(lab: &Lab, name: &str, arguments: &[&str]) -> PathBuf {
    let path = lab.path(name);
    let made = Command::new("ssh-keygen")
        .args(["-q", "-N", "", "-C", name, "-f"])
        .arg(&path)
        .args(arguments)
        .status();
    assert!(made.is_ok_and(|status| status.success()));
    path
}

const TOOLS: &str = "--mount=source=tools,target=/tools";
const ADD: &str = "LD_LIBRARY_PATH=/tools/lib /tools/ssh-add";

#[test]
fn a_real_agent_lists_and_signs_and_nothing_else() {
    let Some(lab) = Lab::with_base() else { return };
    if lend(&lab, "ssh-add").is_none() || lend(&lab, "ssh-keygen").is_none() {
        power::not_run("there is no OpenSSH");
        return;
    }
    let socket = lab.path("agent");
    let agent = Command::new("ssh-agent")
        .args(["-D", "-a"])
        .arg(&socket)
        .stdout(Stdio::null())
        .spawn();
    let Ok(agent) = agent.map(RealAgent) else {
        power::not_run("there is no ssh-agent");
        return;
    };
    while UnixStream::connect(&socket).is_err() {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let path = key(&lab, "agents-key", &["-t", "ed25519"]);
    let added = Command::new("ssh-add")
        .arg("-q")
        .arg(&path)
        .env("SSH_AUTH_SOCK", &socket)
        .status();
    assert!(added.unwrap().success());
    fs::copy(
        path.with_extension("pub"),
        lab.context().join("tools/key.pub"),
    )
    .unwrap();
    lab.dockerfile(&format!(
        "FROM base\nRUN mkdir -m 777 /out\n\
         RUN {TOOLS} --mount=type=ssh {ADD} -l > /out/listed && stat -c '%a %u:%g %F' $SSH_AUTH_SOCK > /out/stat\n\
         RUN {TOOLS} --mount=type=ssh echo text > /out/text && LD_LIBRARY_PATH=/tools/lib /tools/ssh-keygen -q -Y sign -n file -f /tools/key.pub /out/text\n\
         RUN {TOOLS} --mount=type=ssh ! {ADD} -D 2>/dev/null && ! {ADD} -x </dev/null 2>/dev/null; {ADD} -l\n\
         RUN {TOOLS} --mount=type=ssh,id=other,target=/s,mode=0666 test ! -e /s\n\
         USER app\nRUN {TOOLS} --mount=type=ssh ! {ADD} -l 2>/dev/null\n\
         RUN {TOOLS} --mount=type=ssh,uid=1000,target=/agent {ADD} -l > /out/app && echo $SSH_AUTH_SOCK > /out/where\n"
    ));
    let spec = format!("default={}", socket.display());
    lab.build(&["-t", "image", "--ssh", &spec]).succeeds();
    let image = lab.saved("image");
    let files = image.files();
    for name in ["out/listed", "out/app"] {
        assert!(
            files.text(name).contains("agents-key (ED25519)"),
            "{}",
            files.text(name)
        );
    }
    assert_eq!(files.text("out/stat"), "600 0:0 socket\n");
    assert_eq!(files.text("out/where"), "/agent\n");
    assert!(files.text("out/text.sig").contains("SSH SIGNATURE"));
    assert!(!files.has("run") && !files.has("agent"));
    // Another socket, and none: neither is a reason to run again.
    assert_eq!(lab.build(&["-t", "image"]).succeeds().executed(), 0);
    // By the environment.
    let ran = lab
        .command()
        .env("SSH_AUTH_SOCK", &socket)
        .args(["build", "--no-cache", "--ssh", "default"])
        .arg(lab.context())
        .output()
        .unwrap();
    Ran::of(ran).succeeds();
    lab.is_sound();
    drop(agent);
}

#[test]
fn key_files_make_an_agent() {
    let Some(lab) = Lab::with_base() else { return };
    if lend(&lab, "ssh-add").is_none() || lend(&lab, "ssh-keygen").is_none() {
        power::not_run("there is no OpenSSH");
        return;
    }
    let one = key(&lab, "first-key", &["-t", "ed25519"]);
    let two = key(&lab, "second-key", &["-t", "rsa", "-b", "2048"]);
    fs::copy(
        two.with_extension("pub"),
        lab.context().join("tools/key.pub"),
    )
    .unwrap();
    lab.dockerfile(&format!(
        "FROM base\nRUN {TOOLS} --mount=type=ssh,id=k {ADD} -l > /listed\n\
         RUN {TOOLS} --mount=type=ssh,id=k echo text > /text && LD_LIBRARY_PATH=/tools/lib /tools/ssh-keygen -q -Y sign -n file -f /tools/key.pub /text\n"
    ));
    let spec = format!("k={},{}", one.display(), two.display());
    lab.build(&["-t", "image", "--ssh", &spec]).succeeds();
    let files = lab.saved("image").files();
    let listed = files.text("listed");
    assert!(
        listed.contains("first-key (ED25519)") && listed.contains("second-key (RSA)"),
        "{listed}"
    );
    fs::write(lab.path("text.sig"), files.text("text.sig")).unwrap();
    let check = Command::new("ssh-keygen")
        .args(["-Y", "check-novalidate", "-n", "file", "-s"])
        .arg(lab.path("text.sig"))
        .stdin({
            fs::write(lab.path("text"), "text\n").unwrap();
            fs::File::open(lab.path("text")).unwrap()
        })
        .output()
        .unwrap();
    assert!(check.status.success(), "{check:?}");
    let mut found = Vec::new();
    let private = fs::read_to_string(&one).unwrap();
    let line = private.lines().nth(2).unwrap();
    holders(&lab.state(), line.as_bytes(), &mut found);
    assert!(found.is_empty(), "{found:?}");
}

/// An agent of the test's own shows what reaches it, whatever the step sends.
#[test]
fn nothing_but_listing_and_signing_reaches_the_users_agent() {
    let Some(lab) = Lab::with_base() else { return };
    let socket = lab.path("fake");
    let listener = UnixListener::bind(&socket).unwrap();
    let seen = std::thread::spawn(move || {
        let mut seen = Vec::new();
        // The step's one connection.
        let (mut stream, _) = listener.accept().unwrap();
        let mut length = [0; 4];
        while stream.read_exact(&mut length).is_ok() {
            let mut request = vec![0; u32::from_be_bytes(length) as usize];
            stream.read_exact(&mut request).unwrap();
            seen.push(request[0]);
            // No identities.
            stream.write_all(&[0, 0, 0, 5, 12, 0, 0, 0, 0]).unwrap();
        }
        seen
    });
    // The small root's perl has no modules: 1 and 1 are AF_UNIX and SOCK_STREAM.
    let script = "socket(my $s, 1, 1, 0) or die $!; connect($s, pack('Sa*', 1, qq{$ENV{SSH_AUTH_SOCK}\\0})) or die $!; \
                  for my $kind (17, 18, 19, 22, 27, 11) { syswrite $s, pack('NC', 1, $kind); sysread $s, my $length, 4; \
                  sysread $s, my $answer, unpack('N', $length); print unpack('C', $answer), qq{\\n}; }";
    lab.file("agent.pl", script);
    lab.dockerfile("FROM base\nRUN --mount=source=agent.pl,target=/agent.pl --mount=type=ssh perl /agent.pl > /answers\n");
    let spec = format!("default={}", socket.display());
    lab.build(&["-t", "image", "--ssh", &spec]).succeeds();
    assert_eq!(
        lab.saved("image").files().text("answers"),
        "5\n5\n5\n5\n5\n12\n"
    );
    assert_eq!(seen.join().unwrap(), [11]);
}
