//! How steps are run: what is chosen, what is said about it, and what `doctor` knows.

use serde_json::Value;

use crate::support::lab::Lab;
use crate::support::power;

/// What `doctor` says of this environment, whatever the suite runs under.
fn examine(lab: &Lab) -> Value {
    let ran = lab.builder(&["doctor", "--json", "--isolation=auto"]);
    assert!(matches!(ran.code, Some(0 | 8)), "{}", ran.stderr);
    let object: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(object["taken"].is_string(), ran.code == Some(0));
    object
}

fn rung<'a>(examined: &'a Value, name: &str) -> &'a Value {
    let rungs = examined["rungs"].as_array().unwrap();
    rungs.iter().find(|rung| rung["name"] == name).unwrap()
}

#[test]
fn doctor_agrees_with_what_builds_do() {
    let Some(lab) = Lab::with_base() else {
        return;
    };
    let examined = examine(&lab);
    let taken = examined["taken"].as_str().unwrap();
    let driver = examined["store"]["driver"].as_str().unwrap();
    let built = lab.build(&["--no-cache", "--isolation=auto", "--storage-driver=auto"]);
    built.succeeds();
    let line = format!("sandbox: {taken}, store: {driver}");
    assert!(
        built.stderr.lines().any(|found| found.starts_with(&line)),
        "{line}\n{}",
        built.stderr
    );
    // Nothing is executed: nothing is entered.
    let again = lab.build(&["--isolation=auto"]);
    assert!(!again.succeeds().stderr.contains("sandbox:"));

    let context = lab.context();
    let json = lab.builder(&[
        "build",
        "--no-cache",
        "--isolation=auto",
        "--progress=rawjson",
        context.to_str().unwrap(),
    ]);
    let entered: Vec<Value> = json
        .succeeds()
        .stderr
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|object: &Value| object["event"] == "entered")
        .collect();
    assert_eq!(entered.len(), 1);
    assert_eq!(entered[0]["sandbox"], taken);
    assert_eq!(entered[0]["store"], driver);
    lab.is_sound();
}

#[test]
fn doctor_changes_nothing_and_shows_every_rung() {
    let lab = Lab::new();
    let ran = lab.builder(&["doctor", "--isolation=auto"]);
    assert!(matches!(ran.code, Some(0 | 8)), "{}", ran.stderr);
    assert!(!lab.state().exists());
    for text in [
        "environment",
        "ns-full",
        "ns-sub",
        "ns-one",
        "chroot",
        "paths",
        "store",
        "file system",
        "result",
    ] {
        assert!(ran.stdout.contains(text), "{text}: {}", ran.stdout);
    }
    let examined = examine(&lab);
    assert_eq!(examined["v"], 1);
    for rung in examined["rungs"].as_array().unwrap() {
        let is_refused = rung["state"] == "refused";
        assert_eq!(rung["reason"].is_string(), is_refused, "{rung}");
    }
    assert!(!lab.state().exists());
}

#[test]
fn a_step_comes_out_the_same_on_every_rung() {
    let Some(lab) = Lab::with_base() else {
        return;
    };
    let examined = examine(&lab);
    lab.dockerfile(
        "FROM base\nRUN mkdir -p /d/e && touch /d/f && chown 1:2 /d/f && chmod 4755 /d/f && ln /d/f /d/g && mv /d/e /d/h && \
         ln -s /proc/self/fd/1 /d/out && echo a > /d/out && cat /etc/hosts /proc/self/status > /dev/null && cd /proc && cd /dev && cd /d\n",
    );
    let mut digests = Vec::new();
    for name in ["ns", "ns-full", "ns-sub", "ns-one", "chroot", "paths"] {
        let isolation = format!("--isolation={name}");
        if rung(&examined, name)["state"] == "refused" {
            let reason = rung(&examined, name)["reason"].as_str().unwrap();
            lab.build(&["--no-cache", &isolation]).fails(
                8,
                &["steps cannot be run", reason.split(": ").next().unwrap()],
            );
            continue;
        }
        let out = lab.path(&format!("out-{name}"));
        let output = format!(
            "type=oci,tar=false,rewrite-timestamp=true,dest={}",
            out.display()
        );
        lab.build(&[
            "--no-cache",
            &isolation,
            "--build-arg=SOURCE_DATE_EPOCH=1000000000",
            "--output",
            &output,
        ])
        .succeeds();
        digests.push((
            name,
            std::fs::read_to_string(out.join("index.json")).unwrap(),
        ));
    }
    if digests.len() < 2 {
        return power::not_run("there is one such rung here");
    }
    let (_, first) = &digests[0];
    for (name, digest) in &digests {
        assert_eq!(digest, first, "{name}");
    }
}

#[test]
fn devices_come_out_the_same_on_every_rung() {
    let Some(lab) = Lab::with_base() else {
        return;
    };
    let examined = examine(&lab);
    // A base with devices, made on whatever rung is taken.
    lab.dockerfile(
        "FROM base\nRUN mknod -m 0660 /below c 4 64 && chown 0:5 /below && ln /below /beside\n",
    );
    lab.build(&["-t", "devices"]).succeeds();
    let stat = "stat -c '%F %t:%T %a %u:%g'";
    lab.dockerfile(&format!(
        "FROM devices AS made\n\
         RUN test \"$({stat} /below)\" = 'character special file 4:40 660 0:5'\n\
         RUN mknod /null c 1 3 && mknod -m 0620 /block b 7 0 && chown 1:2 /block && test -c /null && ln /null /twin && mv /block /moved\n\
         RUN test -b /moved && test \"$({stat} /twin)\" = 'character special file 1:3 644 0:0' && rm /null && touch /null && chmod 604 /beside\n\
         FROM base AS late\n\
         RUN /bin/mk?od /late c 1 5\n\
         FROM base\n\
         COPY --from=made /moved /twin /beside /d/\n\
         COPY --from=late /late /d/\n\
         RUN test -b /d/moved && test -c /d/late && rm /d/twin && cp -a /d/beside /copied && test -c /copied\n"
    ));
    let mut digests = Vec::new();
    for name in ["ns", "ns-full", "ns-sub", "ns-one", "paths"] {
        if rung(&examined, name)["state"] == "refused" {
            continue;
        }
        for driver in ["overlay", "tree"] {
            if driver == "overlay" && name == "paths" {
                continue;
            }
            let out = lab.path(&format!("out-{name}-{driver}"));
            let output = format!(
                "type=oci,tar=false,rewrite-timestamp=true,dest={}",
                out.display()
            );
            lab.build(&[
                "--no-cache",
                &format!("--isolation={name}"),
                &format!("--storage-driver={driver}"),
                "--build-arg=SOURCE_DATE_EPOCH=1000000000",
                "--output",
                &output,
            ])
            .succeeds();
            let index = std::fs::read_to_string(out.join("index.json")).unwrap();
            digests.push((format!("{name}, {driver}"), index));
        }
    }
    if digests.len() < 3 {
        return power::not_run("there is one such rung here");
    }
    let (_, first) = &digests[0];
    for (name, digest) in &digests {
        assert_eq!(digest, first, "{name}");
    }
    lab.is_sound();
}

#[test]
fn strict_refuses_what_has_no_namespaces() {
    let Some(lab) = Lab::with_base() else {
        return;
    };
    let examined = examine(&lab);
    let taken = rung(&examined, examined["taken"].as_str().unwrap());
    let has_hole = taken["lacks"].as_array().unwrap().iter().any(|lack| {
        ["landlock", "socket-scope", "pid-namespace"].contains(&lack["name"].as_str().unwrap())
    });
    let strict = "--require-isolation=strict";
    let built = lab.build(&["--no-cache", "--isolation=auto", strict]);
    match has_hole {
        true => built.fails(8, &["is not strict"]),
        false => built.succeeds(),
    };
    if rung(&examined, "paths")["state"] == "works" {
        lab.build(&["--no-cache", "--isolation=paths", strict])
            .fails(8, &["`paths` is not strict", "no namespaces", "hint:"]);
    }
}

#[test]
fn names_of_other_builders_are_understood_or_refused_with_a_hint() {
    let lab = Lab::new();
    lab.dockerfile("FROM scratch\n");
    for (args, texts) in [
        (["--isolation=hyperv"], ["Windows", "builder doctor"]),
        (["--isolation=nothing"], ["no such isolation", "ns-one"]),
        (
            ["--storage-driver=vfs"],
            ["no such storage driver", "`tree`"],
        ),
        (
            ["--require-isolation=much"],
            ["--require-isolation", "strict"],
        ),
    ] {
        lab.build(&args).fails(2, &texts);
    }
    for isolation in ["default", "oci", "rootless"] {
        lab.build(&[&format!("--isolation={isolation}")]).succeeds();
    }
    let mut command = lab.command();
    command
        .env("BUILDER_ISOLATION", "hyperv")
        .args(["build", "."]);
    let ran = crate::support::lab::Ran::of(command.output().unwrap());
    ran.fails(2, &["`--isolation hyperv`"]);
}
