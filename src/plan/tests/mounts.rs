//! RUN --mount.

use super::*;

/// Writes a mount on one line.
fn text(mount: &Mount) -> String {
    let tree = |tree: &Tree| format!("{}:{}", tree.input, tree.path);
    let places = |target: &Option<String>, env: &Option<String>| {
        let target = target.iter().map(|target| format!(" at {target}"));
        let env = env.iter().map(|env| format!(" in ${env}"));
        target.chain(env).collect::<String>()
    };
    let required = |required| if required { " required" } else { "" };
    match mount {
        Mount::Bind {
            target,
            from,
            writable,
        } => {
            let mode = if *writable { "rw" } else { "ro" };
            format!("bind {} at {target} {mode}", tree(from))
        }
        Mount::Cache(cache) => format!(
            "cache {} at {} {:?}{}{} {:?} {:?} {:?}",
            cache.id,
            cache.target,
            cache.sharing,
            if cache.read_only { " ro" } else { "" },
            cache
                .seed
                .iter()
                .map(|seed| format!(" from {}", tree(seed)))
                .collect::<String>(),
            cache.uid,
            cache.gid,
            cache.mode,
        ),
        Mount::Tmpfs { target, size } => format!("tmpfs at {target} {size:?}"),
        Mount::Secret(secret) => format!(
            "secret {}{}{} {}:{} {:o}",
            secret.id,
            places(&secret.target, &secret.env),
            required(secret.required),
            secret.uid,
            secret.gid,
            secret.mode
        ),
        Mount::Ssh(ssh) => format!(
            "ssh {} at {}{} {}:{} {:o}",
            ssh.id,
            ssh.target,
            required(ssh.required),
            ssh.uid,
            ssh.gid,
            ssh.mode
        ),
    }
}

/// Returns the mounts of the last RUN.
fn mounts(case: &Case) -> Vec<String> {
    let run = case.runs().pop().expect("the case has a RUN");
    run.mounts.iter().map(text).collect()
}

#[test]
fn defaults_of_each_type() {
    for (flag, wanted) in [
        ("target=/m", "bind 1:/mount at /m ro"),
        ("dst=m/../n", "bind 1:/mount at /w/n ro"),
        ("target=/m,rw", "bind 1:/mount at /m rw"),
        ("target=/m,rw=false", "bind 1:/mount at /m ro"),
        ("target=/m,ro,rw", "bind 1:/mount at /m rw"),
        ("target=/m,from=scratch", "bind 1:/ at /m ro"),
        ("target=/m,from=other,src=x/../y", "bind 1:/y at /m ro"),
        (
            "type=cache,target=/c/",
            "cache //c at /c Shared None None None",
        ),
        (
            "type=cache,target=c/./d",
            "cache /c/d at /w/c/d Shared None None None",
        ),
        (
            "type=cache,target=/c,id=i,sharing=LOCKED,ro,uid=1,gid=2,mode=0700",
            "cache /i at /c Locked ro Some(1) Some(2) Some(448)",
        ),
        (
            "type=cache,target=/c,sharing=private,from=other,source=s",
            "cache //c at /c Private from 1:/s None None None",
        ),
        (
            "type=cache,target=/c,source=/",
            "cache //c at /c Shared None None None",
        ),
        ("type=tmpfs,target=/t", "tmpfs at /t None"),
        ("type=tmpfs,target=/t,size=1k", "tmpfs at /t Some(1024)"),
        ("type=tmpfs,target=/t,ro", "bind 1:/ at /t ro"),
        ("type=secret,id=a/b", "secret a/b at /run/secrets/b 0:0 400"),
        ("type=secret,target=/x/y", "secret y at /x/y 0:0 400"),
        ("type=secret,source=s", "secret s at /run/secrets/s 0:0 400"),
        ("type=secret,id=s,env=E", "secret s in $E 0:0 400"),
        (
            "type=secret,id=s,env=E,target=f,required,mode=0440,uid=7",
            "secret s at /w/f in $E required 7:0 440",
        ),
        (
            "type=ssh",
            "ssh default at /run/buildkit/ssh_agent.0 0:0 600",
        ),
        (
            "type=ssh,id=a,required=true,mode=666",
            "ssh a at /run/buildkit/ssh_agent.0 required 0:0 666",
        ),
    ] {
        let text = format!("FROM a AS other\nFROM b\nWORKDIR /w\nRUN --mount={flag} x\n");
        assert_eq!(mounts(&case(&text)), [wanted], "{flag}");
    }
}

#[test]
fn variables_are_replaced_in_all_but_from() {
    let text = "FROM a\nARG T=cache\nARG I=id\nENV D=/dir S=locked\nRUN --mount=type=$T,id=$I,target=$D/${I},sharing=$S,uid=${U:-5} x\n";
    assert_eq!(
        mounts(&case(text)),
        ["cache /id at /dir/id Locked Some(5) None None"]
    );
    for (flag, wanted) in [
        (
            "type=$T",
            "unknown type of a mount: `tmpf`; did you mean `tmpfs`?",
        ),
        ("target=/$NONE", "a mount cannot cover `/`"),
        ("target=$NONE", "a bind mount needs a `target`"),
        (
            "type=$C,target=/c,size=1",
            "option `size` is not for mounts of type `cache`",
        ),
        (
            "type=cache,target=/c,uid=$T",
            "invalid value of `uid`: wanted a number, found `tmpf`",
        ),
    ] {
        let text = format!("FROM a\nARG T=tmpf C=cache\nRUN --mount={flag} x\n");
        let errors = case(&text).errors();
        assert!(
            errors[0].starts_with("3: (") && errors[0].contains(wanted),
            "{flag}: {errors:?}"
        );
    }
}

#[test]
fn the_namespace_keeps_caches_apart() {
    let text = "FROM a\nRUN --mount=type=cache,target=/c x\n";
    let case = case(text).arg("BUILDKIT_CACHE_MOUNT_NS", "n");
    assert_eq!(mounts(&case), ["cache n//c at /c Shared None None None"]);
    assert!(case.warnings().is_empty(), "{:?}", case.warnings());
}

#[test]
fn the_context_is_shown_through_a_copy() {
    let text = "FROM a\nRUN --mount=target=/m,source=a*b --mount=target=/n x\nRUN --mount=target=/m,from=ctx y\n";
    let case = case(text).directory("ctx");
    assert_eq!(
        case.steps(),
        "0 base a:latest linux/amd64\n\
         1 scratch\n\
         2 context\n\
         3 copy 1:/a\\*b to /mount on 1,2\n\
         4 copy 1:/ to /mount on 1,2\n\
         5 run [\"/bin/sh\", \"-c\", \"x\"] in / on 0,3,4\n\
         6 context ctx\n\
         7 copy 1:/ to /mount on 1,6\n\
         8 run [\"/bin/sh\", \"-c\", \"y\"] in / on 5,7\n"
    );
    assert!(
        case.names().contains("[0] mount /a*b of the context\n"),
        "{}",
        case.names()
    );
    assert!(case.names().contains("[0] mount / of the context ctx\n"));
}

#[test]
fn stages_and_images_that_mounts_show_are_needed() {
    let text = "FROM a AS one\nRUN x\nFROM b AS two\nFROM scratch\nRUN --mount=from=one,target=/1 --mount=from=c,target=/c --mount=from=one,source=/y,target=/y z\n";
    assert_eq!(
        case(text).steps(),
        "0 base a:latest linux/amd64\n\
         1 run [\"/bin/sh\", \"-c\", \"x\"] in / on 0\n\
         2 scratch\n\
         3 base c:latest linux/amd64\n\
         4 run [\"/bin/sh\", \"-c\", \"z\"] in / on 2,1,3\n"
    );
    for (from, wanted) in [
        ("late", "stage `late` comes later"),
        ("own", "cannot copy from itself"),
        ("9", "there is no stage 9"),
    ] {
        let text = format!(
            "FROM a AS own\nRUN --mount=from={from},target=/1 x\nFROM b AS late\nFROM own\n"
        );
        let errors = case(&text).errors();
        assert!(errors[0].contains(wanted), "{errors:?}");
    }
}

#[test]
fn a_trigger_has_mounts_too() {
    let text = "FROM a AS tools\nFROM b\n";
    let case = case(text).image("b", |config| {
        config.on_build = vec!["RUN --mount=from=tools,target=/t --mount=target=/c x".to_owned()];
    });
    assert_eq!(
        mounts(&case),
        ["bind 1:/ at /t ro", "bind 2:/mount at /c ro"]
    );
}

#[test]
fn the_agent_is_named_unless_the_dockerfile_names_another() {
    let env = |dockerfile: &str| case(dockerfile).env();
    assert_eq!(
        env("FROM a\nRUN --mount=type=ssh,target=/s --mount=type=ssh,id=b x\n"),
        "SSH_AUTH_SOCK=/s"
    );
    assert_eq!(
        env("FROM a\nENV SSH_AUTH_SOCK=/own\nRUN --mount=type=ssh x\n"),
        "SSH_AUTH_SOCK=/own"
    );
    assert_eq!(
        mounts(&case(
            "FROM a\nRUN --mount=type=ssh,target=/s --mount=type=ssh,id=b x\n"
        )),
        [
            "ssh default at /s 0:0 600",
            "ssh b at /run/buildkit/ssh_agent.1 0:0 600"
        ]
    );
}

#[test]
fn mistakes_are_told_in_their_place() {
    for (flag, wanted) in [
        ("target=..", "3: (..) a mount cannot cover `/`"),
        (
            "type=cache,target=/c,source=/x",
            "3: (/x) `source` of a cache mount needs `from`",
        ),
        ("type=ssh,source=/x", "3: (/x) an ssh mount has no `source`"),
        (
            "type=secret,id=a,env=A=B",
            "3: (A=B) `A=B` cannot name a variable",
        ),
        (
            "type=secret,id=a,mode=77777",
            "3: (77777) `77777` is no mode",
        ),
        (
            "type=cache,target=/c,uid=4294967295",
            "3: (4294967295) `4294967295` is no uid",
        ),
    ] {
        let text = format!("FROM a\nWORKDIR /\nRUN --mount={flag} x\n");
        let errors = case(&text).errors();
        assert!(errors[0].starts_with(wanted), "{flag}: {errors:?}");
    }
    let warnings = case("FROM a\nRUN --mount=type=tmpfs,target=/t,from=no/such x\n").warnings();
    assert_eq!(
        warnings,
        ["2: (from) option `from` does nothing for a mount of type `tmpfs`"]
    );
}
