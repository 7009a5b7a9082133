//! RUN.

use super::*;

fn check(line: &str, argv: &[&str], history: &str) {
    let text = format!("FROM a\n{line}\n");
    let case = case(&text);
    assert_eq!(case.runs()[0].argv, argv, "{line}");
    assert_eq!(
        case.history(),
        format!("base: made a\n1: {history} # buildkit\n"),
        "{line}"
    );
}

#[test]
fn both_forms() {
    check(
        "RUN  echo  $A ",
        &["/bin/sh", "-c", "echo  $A"],
        "RUN /bin/sh -c echo  $A",
    );
    check(
        "run [\"/x\", \"a b\", \"$A\"]",
        &["/x", "a b", "$A"],
        "RUN /x a b $A",
    );
}

#[test]
fn the_shell_is_the_images() {
    let text = "FROM a\nRUN x\nSHELL [\"/bin/bash\", \"-ec\"]\nRUN y\n";
    let case = case(text).image("a", |config| config.shell = Some(vec!["/s".into()]));
    let runs = case.runs();
    assert_eq!(runs[0].argv, ["/s", "x"]);
    assert_eq!(runs[1].argv, ["/bin/bash", "-ec", "y"]);
}

#[test]
fn arguments_are_told_in_the_history_with_the_values_they_have() {
    let text = "FROM a\nARG B=1\nARG A\nARG B=2\nENV C=c\nARG C=d\nENV C=e\nRUN x\n";
    let history = case(text).history();
    let last = history.lines().last().unwrap();
    assert_eq!(last, "1: RUN |3 B=2 A= C=e /bin/sh -c x # buildkit");
}

#[test]
fn user_and_directory_are_those_of_the_moment() {
    let text = "FROM a\nRUN x\nUSER me:us\nWORKDIR /w\nRUN y\n";
    let case = case(text).image("a", |config| config.user = "base".into());
    assert_eq!(
        case.steps(),
        "0 base a:latest linux/amd64\n1 run [\"/bin/sh\", \"-c\", \"x\"] in / as base on 0\n2 workdir /w as me:us on 1\n\
         3 run [\"/bin/sh\", \"-c\", \"y\"] in /w as me:us on 2\n"
    );
}

#[test]
fn a_lone_heredoc_is_the_shells_script() {
    check(
        "RUN <<EOF\necho $A\necho b\nEOF",
        &["/bin/sh", "-c", "echo $A\necho b\n"],
        "RUN /bin/sh -c echo $A\necho b\n",
    );
    check(
        "RUN <<-\"E\"\n\techo\n\tE",
        &["/bin/sh", "-c", "echo\n"],
        "RUN /bin/sh -c echo\n",
    );
}

#[test]
fn a_heredoc_with_a_hash_bang_is_a_file() {
    let text = "FROM a\nRUN <<EOF\n#!/usr/bin/python3\nprint(1)\nEOF\n";
    let run = case(text).runs().remove(0);
    assert_eq!(run.argv, ["/bin/sh", "-c", "/dev/pipes/EOF"]);
    let content = "#!/usr/bin/python3\nprint(1)\n".to_owned();
    assert_eq!(
        run.scripts,
        [Script {
            path: "/dev/pipes/EOF".into(),
            content
        }]
    );
    assert!(
        case(text)
            .history()
            .contains("RUN /bin/sh -c /dev/pipes/EOF # buildkit")
    );
    assert!(
        case(text)
            .names()
            .contains("RUN <<EOF (#!/usr/bin/python3...)"),
        "{}",
        case(text).names()
    );
}

#[test]
fn other_heredocs_are_read_by_the_shell() {
    check(
        "RUN cat <<A && cat <<-B\na\nA\n\tb\n\tB",
        &["/bin/sh", "-c", "cat <<A && cat <<-B\na\nA\nb\nB"],
        "RUN /bin/sh -c cat <<A && cat <<-B\na\nA\nb\nB",
    );
}

#[test]
fn networks() {
    let network = |flag: &str, asked: NetworkMode| {
        let text = format!("FROM a\nRUN {flag} x\n");
        let mut case = case(&text);
        case.network = asked;
        case.plan()
            .map(|_| case.runs()[0].network)
            .map_err(|_| case.errors())
    };
    use NetworkMode::{Default, Host, None};
    for (flag, asked, wanted) in [
        ("", Default, Default),
        ("", None, None),
        ("", Host, Host),
        ("--network=default", Host, Host),
        ("--network=none", Default, None),
        ("--network=none", Host, None),
        ("--network=host", Host, Host),
    ] {
        assert_eq!(network(flag, asked), Ok(wanted), "{flag}");
    }
    assert_eq!(
        network("--network=host", Default),
        Err(vec![
            "2: (host) `RUN --network=host` needs leave to use the host's network; give it by building with `--allow network.host` or `--network=host`"
                .to_owned()
        ])
    );
}

#[test]
fn what_needs_leave_is_refused_without_it() {
    for (flag, wanted) in [
        (
            "--security=insecure",
            "`RUN --security=insecure` needs leave to run without confinement; give it by building with `--allow security.insecure`",
        ),
        (
            "--device=vendor.com/d=x",
            "RUN needs leave to use the device `vendor.com/d=x`; give it by building with `--allow device=vendor.com/d=x`",
        ),
    ] {
        let text = format!("FROM a\nRUN {flag} x\n");
        let errors = case(&text).errors();
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(errors[0].starts_with("2: ("), "{errors:?}");
        assert!(errors[0].contains(wanted), "{errors:?}");
    }
    assert_eq!(case("FROM a\nRUN --security=sandbox x\n").runs().len(), 1);
    // What is not built is not refused.
    assert_eq!(
        case("FROM a AS one\nRUN --security=insecure x\nFROM a\nRUN y\n")
            .runs()
            .len(),
        1
    );
}

#[test]
fn leave_is_given_by_name() {
    let mut free = case("FROM a\nRUN --security=insecure --network=host x\n");
    free.allowed.security_insecure = true;
    free.allowed.network_host = true;
    let run = free.runs().remove(0);
    assert_eq!(run.security, Security::Insecure);
    assert_eq!(run.network, NetworkMode::Host);
    for (flag, allowed, wanted) in [
        ("/dev//fuse", "/dev/fuse", Some(("/dev/fuse", false))),
        ("/dev/fuse", "/dev/kvm", None),
        ("/etc/passwd", "/etc/passwd", None),
        ("/dev/../etc/passwd", "/etc/passwd", None),
        (
            "v.com/gpu=0,required",
            "v.com/gpu",
            Some(("v.com/gpu=0", true)),
        ),
        (
            "name=v.com/gpu=0,required=0",
            "v.com/gpu=0",
            Some(("v.com/gpu=0", false)),
        ),
        ("v.com/gpu", "v.com/gpu", Some(("v.com/gpu", false))),
        ("v.com/gpu=*", "v.com/gpu", Some(("v.com/gpu=*", false))),
        ("v.com/gpu=0", "v.com/gpu=1", None),
        ("gpu", "gpu", None),
    ] {
        let text = format!("FROM a\nRUN --device={flag} x\n");
        let mut case = case(&text);
        case.allowed.devices = vec![allowed.to_owned()];
        let found = case
            .plan()
            .ok()
            .map(|_| case.runs().remove(0).devices.remove(0));
        let found = found.as_ref().map(|one| (one.name.as_str(), one.required));
        assert_eq!(found, wanted, "{flag}");
    }
}

#[test]
fn programs_of_another_machine_are_marked() {
    let run = |text: &str| {
        case(text)
            .runs()
            .remove(0)
            .foreign
            .map(|one| one.to_string())
    };
    assert_eq!(run("FROM a\nRUN x\n"), None);
    assert_eq!(
        run("FROM --platform=linux/arm64 a\nRUN x\n").as_deref(),
        Some("linux/arm64")
    );
    // An image that is not what was asked for runs as what it is.
    let mut wrong = case("FROM --platform=linux/arm64 a\nRUN x\n");
    wrong
        .fixed
        .insert("a".to_owned(), Platform::new("linux", "amd64", None));
    assert_eq!(wrong.runs()[0].foreign, None);
}

#[test]
fn equal_runs_on_equal_roots_are_one_step() {
    let text = "FROM a AS one\nRUN x\nRUN y\nFROM a AS two\nRUN x\nLABEL l=1\nRUN z\nFROM a\nCOPY --from=one / /\nCOPY --from=two / /\n";
    assert_eq!(case(text).runs().len(), 3);
    let different = "FROM a AS one\nRUN x\nFROM a\nENV A=1\nRUN x\nCOPY --from=one / /\n";
    assert_eq!(case(different).runs().len(), 2);
}

#[test]
fn the_cache_is_not_read_where_told() {
    let text = "FROM a AS One\nRUN x\nFROM a\nRUN x\nRUN y\nCOPY --from=one / /\n";
    let ignoring = |case: Case| -> Vec<String> {
        let graph = case.ready().graph;
        let origins = graph
            .origins
            .into_iter()
            .filter(|origin| origin.ignore_cache);
        origins
            .map(|origin| origin.name.rsplit(' ').next().unwrap().to_owned())
            .collect()
    };
    assert!(ignoring(case(text)).is_empty());
    let mut filtered = case(text);
    filtered.no_cache_filter = vec!["ONE".into()];
    // Its base and the RUN that it shares with another stage.
    assert_eq!(ignoring(filtered).len(), 2);
    let mut mistyped = case(text);
    mistyped.no_cache_filter = vec!["one".into(), "Onee".into()];
    assert_eq!(
        mistyped.warnings(),
        ["`--no-cache-filter`: the Dockerfile has no stage `Onee`; did you mean `one`?"]
    );
    let mut all = case(text);
    all.no_cache = true;
    assert_eq!(ignoring(all).len(), 4);
}
