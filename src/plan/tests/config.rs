//! The config and the history of the result, instruction by instruction.

use expect_test::{Expect, expect};
use serde_json::json;

use super::*;

/// Plans `FROM scratch` with `lines` and compares the config's inner part and the history.
fn check(lines: &str, config: Expect, history: Expect) {
    let text = format!("FROM scratch\n{lines}");
    let case = case(&text);
    let value = serde_json::to_value(&case.config().config).unwrap();
    config.assert_eq(&value.to_string());
    history.assert_eq(&case.history());
}

#[test]
fn scratch_alone_has_path_and_root() {
    check(
        "",
        expect![[
            r#"{"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],"WorkingDir":"/"}"#
        ]],
        expect![""],
    );
    let config = case("FROM scratch").config();
    assert_eq!(
        (config.os.as_str(), config.architecture.as_str()),
        ("linux", "amd64")
    );
    assert_eq!(case("FROM scratch").steps(), "0 scratch\n");
}

#[test]
fn env_keeps_the_order_of_first_setting() {
    check(
        "ENV B=1 A='x y'\nENV B=\"3 $A\" C=\nENV D e f",
        expect![[
            r#"{"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin","B=3 x y","A=x y","C=","D=e f"],"WorkingDir":"/"}"#
        ]],
        expect![[r#"
        empty: ENV B=1 A=x y
        empty: ENV B=3 x y C=
        empty: ENV D=e f
    "#]],
    );
}

#[test]
fn env_takes_a_place_of_the_base() {
    let case = case("FROM a\nENV A=new NEW=1\n").image("a", |config| {
        config.env = vec!["A=old".into(), "EMPTY".into(), "Z=1".into()];
    });
    assert_eq!(
        case.config().config.env,
        [
            "A=new",
            "EMPTY",
            "Z=1",
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "NEW=1"
        ]
    );
}

#[test]
fn commands_in_both_forms() {
    check(
        "CMD echo \"a  b\"\nENTRYPOINT [\"/e\", \"x\\ty\"]",
        expect![[
            r#"{"ArgsEscaped":true,"Cmd":["/bin/sh","-c","echo \"a  b\""],"Entrypoint":["/e","x\ty"],"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],"WorkingDir":"/"}"#
        ]],
        expect![[r#"
            empty: CMD ["/bin/sh" "-c" "echo \"a  b\""]
            empty: ENTRYPOINT ["/e" "x\ty"]
        "#]],
    );
    check(
        "SHELL [\"/bin/bash\", \"-o\", \"pipefail\", \"-c\"]\nENTRYPOINT run $X",
        expect![[
            r#"{"Entrypoint":["/bin/bash","-o","pipefail","-c","run $X"],"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],"Shell":["/bin/bash","-o","pipefail","-c"],"WorkingDir":"/"}"#
        ]],
        expect![[r#"
        empty: SHELL [/bin/bash -o pipefail -c]
        empty: ENTRYPOINT ["/bin/bash" "-o" "pipefail" "-c" "run $X"]
    "#]],
    );
    check(
        "CMD [\"a\"]\nCMD []",
        expect![[
            r#"{"ArgsEscaped":true,"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],"WorkingDir":"/"}"#
        ]],
        expect![[r#"
        empty: CMD ["a"]
        empty: CMD []
    "#]],
    );
}

#[test]
fn entrypoint_takes_away_only_a_cmd_that_it_inherits() {
    let with = |lines: &str| {
        let text = format!("FROM a\n{lines}");
        let case = case(&text).image("a", |config| config.cmd = Some(vec!["base".into()]));
        case.config().config.cmd
    };
    let cmd = |word: &str| Some(vec![word.to_owned()]);
    assert_eq!(with(""), cmd("base"));
    assert_eq!(with("ENTRYPOINT [\"e\"]"), None);
    assert_eq!(with("CMD [\"c\"]\nENTRYPOINT [\"e\"]"), cmd("c"));
    assert_eq!(with("ENTRYPOINT [\"e\"]\nCMD [\"c\"]"), cmd("c"));
    // A stage is its own measure: what the stage before it set is inherited.
    let text = "FROM a AS one\nCMD [\"c\"]\nFROM one\nENTRYPOINT [\"e\"]\n";
    assert_eq!(case(text).config().config.cmd, None);
}

#[test]
fn expose_makes_ranges_and_protocols() {
    check(
        "ENV P='90 91/UDP'\nEXPOSE 80 443/tcp 8000-8002/udp $P 1:53/udp",
        expect![[
            r#"{"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin","P=90 91/UDP"],"ExposedPorts":{"443/tcp":{},"53/udp":{},"80/tcp":{},"8000/udp":{},"8001/udp":{},"8002/udp":{},"90/tcp":{},"91/udp":{}},"WorkingDir":"/"}"#
        ]],
        expect![[r#"
            empty: ENV P=90 91/UDP
            empty: EXPOSE [80/tcp 443/tcp 8000/udp 8001/udp 8002/udp 90/tcp 91/udp 53/udp]
        "#]],
    );
    let errors = case("FROM a\nEXPOSE 70000\nEXPOSE 80/x").errors();
    assert_eq!(
        errors,
        [
            "2: (70000) EXPOSE cannot take `70000`; `70000` is not a port or a range of ports: wanted 0 to 65535",
            "3: (80/x) EXPOSE cannot take `80/x`; `x` is not a protocol: wanted `tcp`, `udp` or `sctp`",
        ]
    );
}

#[test]
fn volumes_are_recorded_as_written() {
    check(
        "ENV V=/c/../d\nVOLUME a /b/ $V\nVOLUME [\"x y\"]",
        expect![[
            r#"{"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin","V=/c/../d"],"Volumes":{"/b/":{},"/c/../d":{},"a":{},"x y":{}},"WorkingDir":"/"}"#
        ]],
        expect![[r#"
        empty: ENV V=/c/../d
        empty: VOLUME [a /b/ /c/../d]
        empty: VOLUME [x y]
    "#]],
    );
    let errors = case("FROM a\nARG E=\nVOLUME \"$E\"").errors();
    assert_eq!(errors.len(), 1, "{errors:?}");
}

#[test]
fn health_checks_replace_the_base_whole() {
    check(
        "HEALTHCHECK --interval=30s --timeout=1m30s --retries=3 --start-period=500ms --start-interval=5s CMD curl \"x\"",
        expect![[
            r#"{"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],"Healthcheck":{"Interval":30000000000,"Retries":3,"StartInterval":5000000000,"StartPeriod":500000000,"Test":["CMD-SHELL","curl \"x\""],"Timeout":90000000000},"WorkingDir":"/"}"#
        ]],
        expect![[r#"
            empty: HEALTHCHECK &{["CMD-SHELL" "curl \"x\""] "30s" "1m30s" "500ms" "5s" '\x03'}
        "#]],
    );
    check(
        "HEALTHCHECK CMD [\"a\", \"b\"]",
        expect![[
            r#"{"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],"Healthcheck":{"Test":["CMD","a","b"]},"WorkingDir":"/"}"#
        ]],
        expect![[r#"
        empty: HEALTHCHECK &{["CMD" "a" "b"] "0s" "0s" "0s" "0s" '\x00'}
    "#]],
    );
    check(
        "HEALTHCHECK NONE",
        expect![[
            r#"{"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],"Healthcheck":{"Test":["NONE"]},"WorkingDir":"/"}"#
        ]],
        expect![[r#"
        empty: HEALTHCHECK &{["NONE"] "0s" "0s" "0s" "0s" '\x00'}
    "#]],
    );
}

#[test]
fn the_other_metadata() {
    check(
        "LABEL b=2 a=\"x y\" \"q k\"=$MISSING\nLABEL e f g\nMAINTAINER me <m@x> $A\nUSER 1:2\nSTOPSIGNAL SIGTERM\nSTOPSIGNAL 9\nONBUILD run x\nSHELL [\"/s\", \"-c\"]\nARG A=1 B\n",
        expect![[
            r#"{"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],"Labels":{"a":"x y","b":"2","e":"f g","q k":""},"OnBuild":["run x"],"Shell":["/s","-c"],"StopSignal":"9","User":"1:2","WorkingDir":"/"}"#
        ]],
        expect![[r#"
            empty: LABEL b=2 a=x y q k=
            empty: LABEL e=f g
            empty: MAINTAINER me <m@x> $A
            empty: USER 1:2
            empty: STOPSIGNAL SIGTERM
            empty: STOPSIGNAL 9
            empty: SHELL [/s -c]
            empty: ARG A=1 B
        "#]],
    );
    let text = "FROM scratch\nMAINTAINER me <m@x>\n";
    assert_eq!(case(text).config().author.as_deref(), Some("me <m@x>"));
    assert_eq!(
        case("FROM a\nSTOPSIGNAL SIGX").errors(),
        ["2: (SIGX) `SIGX` is not a signal; wanted a name such as `SIGTERM`, or a number"]
    );
}

#[test]
fn working_directories_add_up_and_the_root_is_no_layer() {
    let text = "FROM a\nWORKDIR x\nUSER u\nWORKDIR ../y/./z\nWORKDIR /\nENV D=/d\nWORKDIR $D\nWORKDIR \"\"\nRUN x\n";
    let case = case(text).image("a", |config| config.working_dir = "/base/".into());
    assert_eq!(
        case.steps(),
        "0 base a:latest linux/amd64\n1 workdir /base/x on 0\n2 workdir /base/y/z as u on 1\n3 workdir /d as u on 2\n\
         4 workdir /d as u on 3\n5 run [\"/bin/sh\", \"-c\", \"x\"] in /d as u on 4\n"
    );
    assert_eq!(
        case.history(),
        "base: made a\n1: WORKDIR /base/x\nempty: USER u\n2: WORKDIR /base/y/z\nempty: WORKDIR /\nempty: ENV D=/d\n\
         3: WORKDIR /d\n4: WORKDIR /d\n5: RUN /bin/sh -c x # buildkit\n"
    );
}

#[test]
fn a_bare_number_is_the_group_of_the_directories_too() {
    let check = |user: &str, shown: &str| {
        let text = format!("FROM a\nUSER {user}\nWORKDIR /x\nRUN x\n");
        let case = case(&text);
        let run = format!("2 run [\"/bin/sh\", \"-c\", \"x\"] in /x as {user} on 1\n");
        let workdir = format!("1 workdir /x as {shown} on 0\n");
        assert_eq!(
            case.steps(),
            format!("0 base a:latest linux/amd64\n{workdir}{run}")
        );
    };
    check("12", "12:12");
    check("12:7", "12:7");
    check(":7", ":7");
    check("u", "u");
    check("u:g", "u:g");
}

#[test]
fn a_base_is_inherited_but_for_what_describes_itself() {
    let mut with = case("FROM a\n").image("a", |config| {
        config.user = "u".into();
        config.on_build = vec!["ENV TRIGGERED=1".into()];
        config.labels = [("k".to_owned(), "v".to_owned())].into();
        config.shell = Some(vec!["/s".into()]);
        config.other.insert("StopTimeout".into(), json!(5));
    });
    let base = with.images.get_mut("a").unwrap();
    base.author = Some("someone".into());
    base.other.insert("docker_version".into(), json!("18"));
    base.other.insert("x.vendor".into(), json!(1));
    let config = with.config();
    assert_eq!(config.author.as_deref(), Some("someone"));
    assert_eq!(config.other, [("x.vendor".to_owned(), json!(1))].into());
    assert_eq!(config.config.user, "u");
    assert_eq!(config.config.other["StopTimeout"], 5);
    assert_eq!(config.config.env, ["PATH=/bin", "TRIGGERED=1"]);
    assert!(config.config.on_build.is_empty());
    assert_eq!(with.history(), "base: made a\nempty: ENV TRIGGERED=1\n");
}

#[test]
fn labels_of_the_command_line_go_over_those_of_the_target_alone() {
    let text = "FROM scratch AS one\nLABEL a=1 b=1\nFROM one\nLABEL c=1\n";
    let mut with = case(text);
    with.labels = vec![("a".into(), "2".into()), ("d".into(), "2".into())];
    let labels: Vec<String> = with
        .config()
        .config
        .labels
        .into_iter()
        .map(|(name, value)| name + &value)
        .collect();
    assert_eq!(labels, ["a2", "b1", "c1", "d2"]);
}
