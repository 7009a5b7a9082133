//! Whole command lines: what they come to, what is said of them, and who is meant.

use std::ffi::OsString;

use super::super::{Routed, route};
use super::{BASES, THERE, come, fails, is, words};

#[test]
fn other_spellings_are_the_same_rows() {
    for base in &BASES {
        let mut seen = Vec::new();
        for flag in base.tool.flags {
            for alias in flag.aliases.iter().chain([&flag.name]) {
                assert!(
                    !seen.contains(&(*alias).to_owned()),
                    "{} --{alias} twice",
                    base.tool.name
                );
                seen.push((*alias).to_owned());
            }
            if let Some(short) = flag.short {
                let short = format!("-{short}");
                assert!(!seen.contains(&short), "{} {short} twice", base.tool.name);
                seen.push(short);
            }
        }
    }
    for (text, expected) in [
        (
            "executor --customPlatform=linux/arm64 --tarPath t -d r.io/a --no-push -c .",
            "build --platform linux/arm64 -t r.io/a -o type=docker,dest=t .",
        ),
        ("executor -d=r.io/a -c=.", "build -t r.io/a --push ."),
        ("executor -dr.io/a -c.", "build -t r.io/a --push ."),
        ("docker build -qtx .", "build -q -t x ."),
        ("docker build --target a --target b .", "build --target b ."),
        ("docker buildx --builder x build .", "build ."),
        ("docker --debug buildx b -t x .", "build -t x ."),
        ("docker image build .", "build ."),
        ("podman --log-level=debug bud", "build ."),
        ("buildah build-using-dockerfile x", "build x"),
        ("--root /r executor --no-push -c .", "--root /r build ."),
        ("--root=/r docker images", "--root=/r images"),
        ("docker manifest push -p r.io/l:1 ", "push r.io/l:1"),
        (
            "buildah manifest push --all l docker://r.io/l:1",
            "push l r.io/l:1",
        ),
        ("buildah manifest add l a", "manifest add l a"),
        (
            "buildah push a oci-archive:/x.tar",
            "save --format oci --output /x.tar a",
        ),
        (
            "podman push a oci:/d",
            "save --format oci-dir --output /d a",
        ),
        (
            "docker buildx imagetools inspect r.io/a",
            "manifest inspect r.io/a",
        ),
        ("executor version", "version"),
        ("executor warmer --image a", "pull a"),
        ("executor login -u me -p pw r.io", "login -u me -p pw r.io"),
    ] {
        is(text, &[], &[], expected);
    }
}

#[test]
fn contexts_of_kaniko() {
    let to = "build -t r.io/a --push";
    for (context, more, variables, expected) in [
        ("dir:///w", "", &[][..], "/w"),
        ("tar:///x.tgz", "", &[], "/x.tgz"),
        ("tar://stdin", "", &[], "-"),
        ("https://h/c.tgz", "", &[], "https://h/c.tgz"),
        (
            "git://h/o/r.git",
            "",
            &[],
            "https://h/o/r.git?submodules=false",
        ),
        (
            "git://h/o/r.git#refs/heads/b",
            "",
            &[],
            "https://h/o/r.git?submodules=false#refs/heads/b",
        ),
        (
            "git://h/o/r.git#refs/heads/b#0123456789012345678901234567890123456789",
            "",
            &[],
            "https://h/o/r.git?submodules=false#0123456789012345678901234567890123456789",
        ),
        (
            "git://h/o/r.git",
            "--context-sub-path=d --git=branch=b,recurse-submodules=true",
            &[],
            "https://h/o/r.git#b:d",
        ),
        (
            "git://h/o/r.git",
            "",
            &[("GIT_PULL_METHOD", "http")],
            "http://h/o/r.git?submodules=false",
        ),
        (
            "git://h/o/r.git",
            "",
            &[("GIT_TOKEN", "t")],
            "--secret id=GIT_AUTH_TOKEN.h,env=GIT_TOKEN -- https://h/o/r.git?submodules=false",
        ),
        ("", "", &[], "/workspace/"),
    ] {
        let flag = match context {
            "" => String::new(),
            context => format!("--context={context}"),
        };
        let text = format!("executor -d r.io/a {flag} {more}");
        // A secret has to be there when the request is made.
        if variables.iter().any(|(name, _)| *name == "GIT_TOKEN") {
            let Ok(Routed::Commands { commands, .. }) = route(
                &[vec!["builder".into()], words(&text)].concat(),
                &|name| (name == "GIT_TOKEN").then(|| "t".to_owned()),
                &|_| false,
            )
            .unwrap() else {
                panic!("{text}")
            };
            assert!(commands[0].contains(&"--secret=id=GIT_AUTH_TOKEN.h,env=GIT_TOKEN".into()));
            continue;
        }
        is(&text, variables, &[], &format!("{to} {expected}"));
    }
    for (text, part) in [
        (
            "s3://b/c.tgz",
            "aws s3 cp s3://b/c.tgz - | executor --context tar://stdin",
        ),
        ("gs://b/c.tgz", "gcloud storage cp"),
        ("ftp://b", "no contexts of that kind"),
        ("tar:///x --context-sub-path y", "--context-sub-path"),
        (
            "git://h/r --git insecure-skip-tls=true",
            "insecure-skip-tls",
        ),
        ("git://h/r --git depth=1", "depth=1"),
    ] {
        fails(&format!("executor -d r.io/a --context {text}"), &[part]);
    }
}

#[test]
fn the_dockerfile_of_kaniko_is_looked_for_here_first() {
    let to = "build -t r.io/a --push";
    for (flags, there, expected) in [
        ("-c /w", &[][..], "/w"),
        ("-c /w", &["Dockerfile"], "-f Dockerfile /w"),
        ("-c /w -f d/F", &[], "-f /w/d/F /w"),
        ("-c /w -f d/F", &["d/F"], "-f d/F /w"),
        ("-c /w -f /abs", &[], "-f /abs /w"),
        ("-c tar:///t -f d/F", &[], "-f d/F /t"),
        ("-c tar:///t -f /abs", &["/abs"], "-f /abs /t"),
    ] {
        is(
            &format!("executor -d r.io/a {flags}"),
            &[],
            there,
            &format!("{to} {expected}"),
        );
    }
}

#[test]
fn variables_of_the_tools() {
    let kaniko = "executor -c . -d r.io/a";
    for (text, variables, expected) in [
        (
            kaniko,
            &[("KANIKO_NO_PUSH", "true")][..],
            "build -t r.io/a .",
        ),
        (
            kaniko,
            &[("KANIKO_REGISTRY_MIRROR", "m.io")],
            "build -t r.io/a --push --registry-mirror docker.io=m.io .",
        ),
        (
            kaniko,
            &[("KANIKO_REGISTRY_MAP", "a=b")],
            "build -t r.io/a --push --registry-mirror a=b .",
        ),
        (
            kaniko,
            &[("KANIKO_DESTINATION", "r.io/other")],
            "build -t r.io/a --push .",
        ),
        (
            "executor -c .",
            &[("KANIKO_DESTINATION", "r.io/a")],
            "build -t r.io/a --push .",
        ),
        (
            kaniko,
            &[("KANIKO_DIR", "/k2")],
            "build -t r.io/a --push --authfile /k2/.docker/config.json .",
        ),
        (
            kaniko,
            &[("KANIKO_DIR", "/k2"), ("DOCKER_CONFIG", "/d")],
            "build -t r.io/a --push .",
        ),
        (
            "bud .",
            &[("BUILDAH_FORMAT", "docker")],
            "build --output type=image,oci-mediatypes=false .",
        ),
        (
            "bud --format oci .",
            &[("BUILDAH_FORMAT", "docker")],
            "build .",
        ),
        (
            "docker build .",
            &[("DOCKER_DEFAULT_PLATFORM", "linux/arm64")],
            "build --platform linux/arm64 .",
        ),
    ] {
        is(text, variables, THERE, expected);
    }
    let notes =
        |text: &str, variables: &[(&str, &str)]| come(text, variables, &[]).ok().unwrap().notes;
    for (text, name) in [
        ("bud .", "BUILDAH_ISOLATION"),
        ("bud .", "STORAGE_DRIVER"),
        ("docker build .", "DOCKER_HOST"),
    ] {
        let notes = notes(text, &[(name, "x")]);
        assert!(notes.len() == 1 && notes[0].contains(name), "{notes:?}");
    }
    let notes = notes("executor -c . -d r.io/a --cache-repo r.io/c", &[]);
    assert!(notes[0].contains("--cache-repo"), "{notes:?}");
    let bad = come(kaniko, &[("KANIKO_NO_PUSH", "maybe")], &[])
        .err()
        .unwrap();
    assert!(bad.diagnostics[0].message.contains("KANIKO_NO_PUSH=maybe"));
    // Credentials of kaniko are not looked for where something else says where they are.
    is(
        "--authfile /a executor -c . -d r.io/a",
        &[],
        &["/kaniko/.docker/config.json"],
        "--authfile /a build -t r.io/a --push .",
    );
}

#[test]
fn what_cannot_be_done_is_refused_with_what_to_do() {
    for (text, parts) in [
        ("executor -c .", &["no `--destination`", "--no-push"][..]),
        (
            "executor -c . --no-push --cache",
            &["--cache-repo REPOSITORY"],
        ),
        ("executor -c . -d r.io/a word", &["`word` is none"]),
        (
            "executor -c . -d r.io/a --image-format x",
            &["neither oci nor docker"],
        ),
        (
            "executor -c . -d r.io/a --log-format x",
            &["none of text, color, json"],
        ),
        ("executor -c . -d r.io/a --push-retry x", &["is no number"]),
        (
            "executor -c . -d r.io/a --no-pusg",
            &["has no flag `--no-pusg`", "did you mean `--no-push`?"],
        ),
        (
            "executor -c . -d r.io/a --dryrun --skip-tls-verify-pull",
            &["builder plan", "--insecure-registry HOST"],
        ),
        ("warmer", &["--image REF"]),
        ("warmer --dockerfile D --insecure-pull", &["do not go with"]),
        ("bud a b", &["a second one"]),
        ("bud -f a -f b .", &["cat A B"]),
        ("bud -f C.in .", &["cpp -E C.in"]),
        ("bud --pull=never .", &["registries.conf"]),
        ("bud --pull=x .", &["none of always"]),
        ("bud --network ns:/x .", &["is not supported"]),
        ("bud --compression-format zstd:chunked .", &["`zstd` is"]),
        ("bud --format docker -o x .", &["fields of it"]),
        (
            "bud --platform linux/arm64 --arch arm64 .",
            &["does not go with"],
        ),
        ("docker build", &["no context", "often `.`"]),
        ("docker build a b", &["a second one"]),
        (
            "docker run x",
            &["no `docker run` here", "builder run IMAGE"],
        ),
        ("docker", &["needs a subcommand"]),
        ("docker buildx bake", &["no `docker buildx bake` here"]),
        ("podman run x", &["no `buildah run` here"]),
        ("podman ps", &["no `buildah ps` here", "build, push"]),
        (
            "buildah push a dir:/x",
            &["is not supported", "oci-archive:"],
        ),
        ("buildah push a oci-archive:/x:name", &["another name"]),
        ("podman save --format docker-dir a", &["oci-dir"]),
        ("docker builder prune --filter id=x", &["until=DURATION"]),
        ("docker buildx imagetools create r.io/a", &["-t NAME IMAGE"]),
    ] {
        fails(text, parts);
    }
}

#[test]
fn what_there_is_no_need_for_is_nothing_to_do() {
    for text in [
        "docker buildx create --use --name x",
        "docker buildx inspect --bootstrap",
        "buildah manifest create l",
    ] {
        let come = come(text, &[], &[]).ok().unwrap();
        assert!(come.commands.is_empty() && come.notes.len() == 1, "{text}");
    }
}

#[test]
fn a_log_file_takes_standard_error() {
    let come = come("bud --logfile l .", &[], &[]).ok().unwrap();
    assert_eq!(come.log.as_deref(), Some("l"));
}

#[test]
fn the_name_of_the_program_says_which_tool_it_is() {
    let to = |name: &str, text: &str| {
        let mut all = vec![OsString::from(name)];
        all.extend(words(text));
        route(&all, &|_| None, &|_| false)
    };
    for (name, text) in [
        ("/kaniko/executor", "-c . -d r.io/a"),
        ("/usr/bin/docker", "build ."),
        ("podman", "build ."),
        ("buildah", "bud ."),
        ("/kaniko/warmer", "--image a"),
        ("builder", "bud ."),
        (
            "/usr/bin/builder",
            "--insecure-registry h executor --no-push -c .",
        ),
    ] {
        assert!(
            matches!(to(name, text), Some(Ok(Routed::Commands { .. }))),
            "{name} {text}"
        );
    }
    for (name, text) in [
        ("builder", "build ."),
        ("bud", "build ."),
        ("builder", "--root docker images"),
        ("x", ""),
    ] {
        assert!(to(name, text).is_none(), "{name} {text}");
    }
    for (name, text) in [
        ("executor", "--help"),
        ("docker", "build --help"),
        ("docker", "-h"),
        ("builder", "bud -h"),
    ] {
        assert!(
            matches!(to(name, text), Some(Ok(Routed::Text(_)))),
            "{name} {text}"
        );
    }
}

#[test]
fn no_message_shows_a_password() {
    for text in [
        "bud --creds me:hunter2 .",
        "buildah push --creds me:hunter2 --sign-by=hunter2 a r.io/a",
        "docker login -u me -p hunter2 --get-login r.io",
        "docker login -u me -phunter2 --tokn=hunter2 r.io",
    ] {
        let failure = come(text, &[], &[]).err().expect("it is refused");
        assert!(
            !format!("{:?}", failure.diagnostics).contains("hunter2"),
            "{text}"
        );
    }
}
