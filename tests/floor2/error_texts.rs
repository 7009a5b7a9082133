//! What users read when something goes wrong, to the letter: what, where, the last lines, the cause, the hint.
//!
//! `UPDATE_EXPECT=1 cargo test --test floor2 error_texts` writes the texts anew; read the difference.

use std::process::Command;

use expect_test::{Expect, expect};

use crate::support::lab::{Lab, Ran};
use crate::support::power;
use crate::support::registry::{Access, FakeRegistry};

/// Returns what a run says from its first error on, without what differs from run to run.
fn said(lab: &Lab, ran: &Ran, others: &[(&str, &str)]) -> String {
    let at = ran.stderr.find("error: ").or(ran.stderr.find("error["));
    let at = at.unwrap_or_else(|| panic!("no error: {}", ran.stderr));
    let context = lab.context();
    let mut text = ran.stderr[at..].replace(context.to_str().unwrap(), "CONTEXT");
    text = text.replace(lab.path("").to_str().unwrap(), "LAB/");
    for (one, other) in others {
        text = text.replace(one, other);
    }
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    format!("{}\n", lines.join("\n"))
}

/// Builds what must fail with a code, and compares what it says.
#[track_caller]
fn check(lab: &Lab, dockerfile: &str, args: &[&str], code: i32, expected: Expect) {
    lab.dockerfile(dockerfile);
    let ran = lab.build(args);
    ran.fails(code, &[]);
    expected.assert_eq(&said(lab, &ran, &[]));
}

#[test]
fn a_word_that_is_almost_right() {
    let lab = Lab::new();
    lab.file("src/main.c", "");
    let check = |dockerfile: &str, args: &[&str], code: i32, expected: Expect| {
        check(&lab, dockerfile, args, code, expected);
    };
    check(
        "FROM scratch\nCOYP src /\n",
        &[],
        3,
        expect![[r#"
        error: unknown instruction `COYP`
         --> Dockerfile:2:1
          |
        2 | COYP src /
          | ^^^^
          hint: did you mean `COPY`?
    "#]],
    );
    check(
        "FROM scratch\nCOPY --form=a src /\n",
        &[],
        3,
        expect![[r#"
        error: unknown flag `--form` for COPY
         --> Dockerfile:2:6
          |
        2 | COPY --form=a src /
          |      ^^^^^^^^
          hint: did you mean `--from`?
    "#]],
    );
    check(
        "FROM scratch AS compile\n",
        &["--target=complie"],
        3,
        expect![[r#"
            error: the Dockerfile has no stage `complie` to build
              hint: did you mean `compile`?
        "#]],
    );
    check(
        "FROM scratch\nCOPY src/man.c /\n",
        &[],
        5,
        expect![[r#"
        error: `src/man.c` not found
         --> Dockerfile:2:1
          |
        2 | COPY src/man.c /
          | ^^^^^^^^^^^^^^^^
          hint: there is `src/main.c`
    "#]],
    );
    check(
        "FROM scratch\n",
        &["--tga=x"],
        2,
        expect![[r#"
        error: unexpected argument '--tga' found

          tip: a similar argument exists: '--target'

        Usage: builder build --progress <MODE> --target <STAGE> <CONTEXT>

        For more information, try '--help'.
    "#]],
    );
    check(
        "FROM scratch\n",
        &["-t", "registry.example.com/Team/app"],
        2,
        expect![[r#"
            error: `registry.example.com/Team/app` is not an image reference: the repository's name must be lower case, found `T`
        "#]],
    );
    check(
        "FROM scratch\n",
        &["-o", "type=oic,dest=x"],
        2,
        expect![[r#"
            error: `--output type=oic,dest=x`: there is no type `oic`
              hint: types are image, registry, oci, docker, tar, local
        "#]],
    );
}

#[test]
fn a_stage_that_is_not_there() {
    let lab = Lab::new();
    lab.dockerfile("FROM scratch AS compile\nFROM scratch\nCOPY --from=complie / /\n");
    let nowhere = "docker.io=http://127.0.0.1:1";
    let ran = lab.build(&["--registry-mirror", nowhere, "--retry=0"]);
    ran.fails(4, &[]);
    let said = said(&lab, &ran, &[]);
    // What is wrong with the way to that registry is the machine's.
    let is_ours = |line: &&str| !line.contains("cause:") && !line.contains("registry-1");
    let ours: Vec<&str> = said.lines().filter(is_ours).collect();
    expect![[r#"
        error: cannot find the image complie:latest
         --> Dockerfile:3:13
          |
        3 | COPY --from=complie / /
          |             ^^^^^^^
          hint: no stage is called `complie`, so it was taken for an image; did you mean `compile`?"#]].assert_eq(&ours.join("\n"));
}

#[test]
fn a_file_that_is_not_where_the_dockerfile_says() {
    let lab = Lab::new();
    lab.file("Makefile", "");
    lab.file("secret.txt", "");
    lab.file(".dockerignore", "# not for images\nsecret*\n");
    check(
        &lab,
        "FROM scratch\nCOPY secret.txt /\n",
        &[],
        5,
        expect![[r#"
            error: `secret.txt` not found: excluded by line 2 of the ignore file: `secret*`
             --> Dockerfile:2:1
              |
            2 | COPY secret.txt /
              | ^^^^^^^^^^^^^^^^^
              hint: a later `!` line of the ignore file brings a path back
        "#]],
    );
    check(
        &lab,
        "FROM scratch\nCOPY makefile /\n",
        &[],
        5,
        expect![[r#"
            error: `makefile` not found
             --> Dockerfile:2:1
              |
            2 | COPY makefile /
              | ^^^^^^^^^^^^^^^
              hint: there is `Makefile`
        "#]],
    );
    check(
        &lab,
        "FROM scratch\nCOPY nothing-like-it /\n",
        &[],
        5,
        expect![[r#"
            error: `nothing-like-it` not found
             --> Dockerfile:2:1
              |
            2 | COPY nothing-like-it /
              | ^^^^^^^^^^^^^^^^^^^^^^
              hint: paths are relative to the build context (or to the root of what `--from` names)
        "#]],
    );
    let ran = lab.builder(&["build", "no-such-directory"]);
    ran.fails(4, &[]);
    expect![[r#"
        error: the build context `no-such-directory` does not exist
          hint: the last argument names the directory that COPY and ADD read from, often `.`
    "#]]
    .assert_eq(&said(&lab, &ran, &[]));
    let ran = lab.builder(&[
        "build",
        "-f",
        "no-such-file",
        lab.context().to_str().unwrap(),
    ]);
    ran.fails(3, &[]);
    expect![[r#"
        error: cannot read the Dockerfile `no-such-file`
          cause: `LAB/no-such-file` does not exist
          cause: `CONTEXT/no-such-file` does not exist
          hint: `-f FILE` is relative to the working directory, then to the build context
    "#]]
    .assert_eq(&said(&lab, &ran, &[]));
}

#[test]
fn an_image_that_cannot_be_had() {
    let lab = Lab::new();
    let registry = FakeRegistry::start();
    for tag in ["1.2.3", "1.2.4", "latest"] {
        let manifest = br#"{"schemaVersion":2}"#;
        registry.put_manifest(
            "app",
            tag,
            "application/vnd.oci.image.manifest.v1+json",
            manifest,
        );
    }
    let locked = FakeRegistry::start_with(Access::Basic {
        user: "u".into(),
        password: "p".into(),
    });
    let check = |registry: &FakeRegistry, image: &str, expected: Expect| {
        lab.dockerfile(&format!("FROM {}/{image}\n", registry.host()));
        let ran = lab.build(&["--retry=0"]);
        ran.fails(4, &[]);
        expected.assert_eq(&said(&lab, &ran, &[(&registry.host(), "HOST")]));
    };
    check(
        &registry,
        "app:1.2.5",
        expect![[r#"
        error: cannot find the image HOST/app:1.2.5
         --> Dockerfile:1:6
          |
        1 | FROM HOST/app:1.2.5
          |      ^^^^^^^^^^^^^^^^^^^^^^^^^
          cause: not found in the registry: `HOST/app:1.2.5`: MANIFEST_UNKNOWN: the fake says so
          hint: the repository has no tag `1.2.5`, but these: 1.2.4, 1.2.3, latest
    "#]],
    );
    check(
        &registry,
        "other",
        expect![[r#"
        error: cannot find the image HOST/other:latest
         --> Dockerfile:1:6
          |
        1 | FROM HOST/other
          |      ^^^^^^^^^^^^^^^^^^^^^
          cause: not found in the registry: `HOST/other:latest`: NAME_UNKNOWN: the fake says so
          hint: the registry has no such repository: check the name
    "#]],
    );
    check(
        &locked,
        "app",
        expect![[r#"
        error: cannot find the image HOST/app:latest
         --> Dockerfile:1:6
          |
        1 | FROM HOST/app
          |      ^^^^^^^^^^^^^^^^^^^
          cause: `HOST` denied pull for `app`: UNAUTHORIZED: the fake says so
          hint: no credentials were found: `builder login HOST`, or check that `app` exists
    "#]],
    );
    let gone = locked.host();
    drop(locked);
    lab.dockerfile(&format!("FROM {gone}/app\n"));
    let ran = lab.build(&["--retry=0"]);
    ran.fails(4, &[]);
    expect![[r#"
        error: cannot find the image HOST/app:latest
         --> Dockerfile:1:6
          |
        1 | FROM HOST/app
          |      ^^^^^^^^^^^^^^^^^^^
          cause: cannot connect to `HOST`
          cause: tcp connect error: Connection refused (os error 111)
          hint: check that the registry runs and that HTTPS_PROXY and NO_PROXY are right
    "#]]
    .assert_eq(&said(&lab, &ran, &[(&gone, "HOST")]));
}

#[test]
fn a_registry_that_does_not_take_the_image() {
    let lab = Lab::new();
    lab.file("f", "");
    lab.dockerfile("FROM scratch\nCOPY f /\n");
    let locked = FakeRegistry::start_with(Access::Basic {
        user: "u".into(),
        password: "p".into(),
    });
    let name = format!("{}/team/app:1", locked.host());
    let ran = lab.build(&["-t", &name, "--push", "--retry=0"]);
    ran.fails(6, &[]);
    expect![[r#"
        error: cannot push HOST/team/app:1
          cause: `HOST` denied push for `team/app`
          hint: no credentials were found: `builder login HOST`, or check that `team/app` exists
    "#]]
    .assert_eq(&said(&lab, &ran, &[(&locked.host(), "HOST")]));
}

#[test]
fn a_command_that_fails() {
    let Some(lab) = Lab::with_base() else { return };
    check(
        &lab,
        "FROM base AS compile\nRUN echo compiling; echo 'main.c:3: no such thing' >&2; exit 7\n",
        &[],
        5,
        expect![[r#"
            error: `/bin/sh -c echo compiling; echo 'main.c:3: no such thing' >&2; exit 7` failed with exit code 7
             --> Dockerfile:2:1
              |
            2 | RUN echo compiling; echo 'main.c:3: no such thing' >&2; exit 7
              | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
              last output:
              | compiling
              | main.c:3: no such thing
        "#]],
    );
    check(
        &lab,
        "FROM base\nRUN no-such-program --flag\n",
        &[],
        5,
        expect![[r#"
            error: `/bin/sh -c no-such-program --flag` failed with exit code 127
             --> Dockerfile:2:1
              |
            2 | RUN no-such-program --flag
              | ^^^^^^^^^^^^^^^^^^^^^^^^^^
              last output:
              | /bin/sh: 1: no-such-program: not found
              hint: 127 mostly means a command that this stage does not have, or has in no directory of PATH
        "#]],
    );
    check(
        &lab,
        "FROM base\nRUN [\"/no/such/program\"]\n",
        &[],
        5,
        expect![[r#"
            error: command not found: `/no/such/program`
             --> Dockerfile:2:1
              |
            2 | RUN ["/no/such/program"]
              | ^^^^^^^^^^^^^^^^^^^^^^^^
        "#]],
    );
    check(
        &lab,
        "FROM base\nRUN sleep 60 & kill -9 $!; wait $!\n",
        &[],
        5,
        expect![[r#"
        error: `/bin/sh -c sleep 60 & kill -9 $!; wait $!` failed with exit code 137
         --> Dockerfile:2:1
          |
        2 | RUN sleep 60 & kill -9 $!; wait $!
          | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
          last output:
          | Killed
    "#]],
    );
    check(
        &lab,
        "FROM base\nRUN echo waiting; sleep 60\n",
        &["--timeout=1s"],
        7,
        expect![[r#"
            error: the time that `--timeout` allows is up
             --> Dockerfile:2:1
              |
            2 | RUN echo waiting; sleep 60
              | ^^^^^^^^^^^^^^^^^^^^^^^^^^ this was running
              last output:
              | waiting
              hint: finished steps are kept: the next build goes on from there
        "#]],
    );
    check(
        &lab,
        "FROM base\nUSER nobody-here\nRUN true\n",
        &[],
        5,
        expect![[r#"
            error: no user `nobody-here` in the image's /etc/passwd
             --> Dockerfile:3:1
              |
            3 | RUN true
              | ^^^^^^^^
              hint: names are looked up in /etc/passwd and /etc/group of the image at this step; numbers always work
        "#]],
    );
    check(
        &lab,
        "FROM base\nRUN --mount=type=secret,id=token,required cat /run/secrets/token\n",
        &[],
        5,
        expect![[r#"
            error: the step requires the secret `token`, which was not given
             --> Dockerfile:2:1
              |
            2 | RUN --mount=type=secret,id=token,required cat /run/secrets/token
              | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
              hint: give it by building with `--secret id=token,src=FILE` or `--secret id=token,env=NAME`
        "#]],
    );
}

#[test]
fn no_space() {
    let Some(_) = Lab::with_base() else { return };
    if !nix::unistd::geteuid().is_root() {
        return power::not_run("a small file system needs root");
    }
    let lab = Lab::new();
    let state = lab.state();
    std::fs::create_dir(&state).unwrap();
    let mount = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=64m", "tmpfs"])
        .arg(&state)
        .status();
    assert!(mount.unwrap().success());
    let tar = crate::support::lab::base_tar();
    let imported = lab.builder(&["import", tar.to_str().unwrap(), "base"]);
    lab.dockerfile("FROM base\nRUN dd if=/dev/zero of=/big bs=1M count=100 2>/dev/null\n");
    let full = lab.build(&[]);
    assert!(
        Command::new("umount")
            .arg(&state)
            .status()
            .unwrap()
            .success()
    );
    imported.succeeds();
    full.fails(9, &[]);
    expect![[r#"
        error: `/bin/sh -c dd if=/dev/zero of=/big bs=1M count=100 2>/dev/null` failed with exit code 1, and the state directory's disk is full
         --> Dockerfile:2:1
          |
        2 | RUN dd if=/dev/zero of=/big bs=1M count=100 2>/dev/null
          | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
          hint: free space with `builder prune --all`, or give a state directory on another disk with `--root`
    "#]].assert_eq(&said(&lab, &full, &[]));
}

/// A user namespace of one's own has its own limit of further ones.
#[test]
fn user_namespaces_are_switched_off() {
    let Some(lab) = Lab::with_base() else { return };
    lab.dockerfile("FROM base\nRUN echo again\n");
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "sh", "-c"]);
    command.arg("echo 0 > /proc/sys/user/max_user_namespaces || exit 99; exec \"$@\"");
    command.args([
        "sh",
        env!("CARGO_BIN_EXE_builder"),
        "build",
        "--progress=plain",
        "--isolation=ns-one",
    ]);
    command.arg(lab.context());
    for (name, value) in lab.command().get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let Ok(output) = command.current_dir(lab.path("")).output() else {
        return power::not_run("needs `unshare` of util-linux");
    };
    let ran = Ran::of(output);
    if ran.code == Some(99) || ran.stderr.contains("unshare:") {
        return power::not_run(&format!("no user namespace to try in: {}", ran.stderr));
    }
    ran.fails(8, &[]);
    expect![[r#"
        error: steps cannot be run in this environment
          cause: no more user namespaces are allowed: `user.max_user_namespaces` is 0
          hint: run `sudo sysctl user.max_user_namespaces=15000`, or run as root
          hint: `builder doctor` shows what this environment allows, and what a better way would need
    "#]].assert_eq(&said(&lab, &ran, &[]));
}
