//! ARG in both scopes, predefined and platform arguments, expansion.

use super::*;

fn check(case: Case, env: &str) {
    assert_eq!(case.env(), env, "{}", case.text);
}

fn stage(lines: &str) -> String {
    format!("FROM a\n{lines}\nRUN x\n")
}

#[test]
fn values_come_from_the_command_line_then_the_stage_then_the_global_scope() {
    let global = "ARG A=global\n";
    for (lines, plain, given) in [
        ("ARG A=own", "A=own", "A=given"),
        ("ARG A", "A=global", "A=given"),
        ("ARG A=", "A=", "A=given"),
        ("ARG B", "", ""),
        ("", "", ""),
        ("ARG A=own\nARG A", "A=global", "A=given"),
    ] {
        let text = format!("{global}{}", stage(lines));
        check(case(&text), plain);
        check(case(&text).arg("A", "given"), given);
    }
}

#[test]
fn a_bare_argument_without_a_value_is_not_set_and_an_empty_one_is() {
    check(case(&stage("ARG A\nARG B=")), "B=");
    check(case(&stage("ARG A")).arg("A", ""), "A=");
}

#[test]
fn arguments_of_one_line_see_those_before_them_and_env_does_not() {
    check(case(&stage("ARG A=1 B=$A C")), "A=1 B=1");
    check(case(&stage("ENV A=1\nENV A=2 B=$A")), "A=2 B=1");
    check(case("ARG A=1 B=${A}2\nFROM a\nARG B\nRUN x"), "B=12");
}

#[test]
fn of_an_env_and_an_arg_of_one_name_the_later_counts() {
    check(
        case(&stage("ARG A=arg\nENV A=env")).arg("A", "given"),
        "A=env",
    );
    check(case(&stage("ENV A=env\nARG A=arg")), "A=arg");
    // An argument without a value takes nothing away.
    check(case(&stage("ENV A=env\nARG A")), "A=env");
    check(
        case(&stage("ENV A=env\nARG A")).arg("A", "given"),
        "A=given",
    );
    let inherited = case("FROM a\nARG A\nRUN x").image("a", |config| {
        config.env = vec!["A=base".into()];
    });
    check(inherited.arg("A", "given"), "A=given");
}

#[test]
fn a_stage_on_a_stage_has_its_arguments_and_its_siblings_do_not() {
    let text = "FROM a AS one\nARG A=1\nFROM one\nRUN echo $A\n";
    check(case(text), "A=1");
    assert!(
        case(text)
            .history()
            .contains("RUN |1 A=1 /bin/sh -c echo $A # buildkit")
    );
    check(
        case("FROM a AS one\nARG A=1\nFROM a\nCOPY --from=one / /\nRUN x"),
        "",
    );
    // The image's ENV has its names again at the start of a stage.
    check(
        case("FROM a AS one\nENV A=env\nARG A=arg\nFROM one\nRUN x"),
        "A=env",
    );
}

#[test]
fn platform_arguments_are_global_and_need_a_declaration_in_a_stage() {
    check(case(&stage("")), "");
    check(
        case(&stage(
            "ARG TARGETPLATFORM\nARG TARGETARCH TARGETVARIANT BUILDOS TARGETSTAGE",
        )),
        "TARGETPLATFORM=linux/amd64 TARGETARCH=amd64 TARGETVARIANT= BUILDOS=linux TARGETSTAGE=default",
    );
    check(case(&stage("ARG TARGETARCH=x")), "TARGETARCH=x");
    check(
        case(&stage("ARG TARGETARCH=x")).arg("TARGETARCH", "y"),
        "TARGETARCH=y",
    );
    check(
        case(&stage("ARG TARGETARCH")).arg("TARGETARCH", "y"),
        "TARGETARCH=y",
    );
    let arm =
        "FROM --platform=$BUILDPLATFORM a\nARG TARGETPLATFORM TARGETVARIANT BUILDPLATFORM\nRUN x";
    check(
        case(arm).platforms(&["linux/arm/v6"]),
        "TARGETPLATFORM=linux/arm/v6 TARGETVARIANT=v6 BUILDPLATFORM=linux/amd64",
    );
}

#[test]
fn the_target_stage_has_a_name_for_arguments() {
    let text = "FROM a AS one\nARG TARGETSTAGE\nRUN x\nFROM one AS two\n";
    check(case(text), "TARGETSTAGE=two");
    check(case(text).target("ONE"), "TARGETSTAGE=ONE");
}

#[test]
fn proxies_are_ambient_in_both_cases_and_ordinary_when_declared() {
    let text = stage("");
    let run = case(&text)
        .arg("HTTP_PROXY", "old")
        .arg("http_proxy", "p")
        .runs()
        .remove(0);
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(
        run.ambient_env,
        [pair("HTTP_PROXY", "p"), pair("http_proxy", "p")]
    );
    let text = stage("ARG HTTP_PROXY");
    let declared = case(&text).arg("HTTP_PROXY", "p").arg("no_proxy", "");
    let run = declared.runs().remove(0);
    assert_eq!(run.ambient_env, [pair("http_proxy", "p")]);
    check(declared, "HTTP_PROXY=p");
    assert!(
        case(&text)
            .arg("HTTP_PROXY", "p")
            .history()
            .contains("RUN |1 HTTP_PROXY=p /bin/sh")
    );
}

#[test]
fn the_epoch_is_an_argument() {
    let text = stage("ARG SOURCE_DATE_EPOCH");
    let mut with = case(&text);
    with.epoch = Some("7");
    check(with, "SOURCE_DATE_EPOCH=7");
    let mut both = case(&text).arg("SOURCE_DATE_EPOCH", "8");
    both.epoch = Some("7");
    check(both, "SOURCE_DATE_EPOCH=8");
    check(case(&text), "");
    check(case(&text).arg("SOURCE_DATE_EPOCH", ""), "");
    assert_eq!(
        case(&text).arg("SOURCE_DATE_EPOCH", "today").errors(),
        [
            "`SOURCE_DATE_EPOCH` is neither a number of seconds nor `context` nor the name of a context or stage: `today`; seconds since 1970: `date +%s`, or `git log -1 --format=%ct`"
        ]
    );
}

#[test]
fn the_epoch_of_a_plan_comes_from_an_argument_a_default_or_the_context() {
    let global = |value: &str| {
        format!("ARG SOURCE_DATE_EPOCH={value}\nFROM a\nARG SOURCE_DATE_EPOCH\nRUN x\n")
    };
    let epoch = |text: &str, given: Option<&str>, context_time: Option<i64>| {
        let mut case = case(text);
        case.context_time = context_time;
        if let Some(given) = given {
            case = case.arg("SOURCE_DATE_EPOCH", given);
        }
        case.ready().graph.epoch
    };
    for (text, given, context_time, expected) in [
        (stage(""), None, Some(9), None),
        (stage(""), Some("5"), None, Some(5)),
        (stage(""), Some("-5"), None, Some(-5)),
        (stage(""), Some("context"), Some(9), Some(9)),
        (stage(""), Some("context"), None, None),
        (global("7"), None, None, Some(7)),
        (global("7"), Some("5"), None, Some(5)),
        (global("7"), Some(""), None, None),
        (global("context"), None, Some(9), Some(9)),
        // A default of a stage is the stage's own business.
        (stage("ARG SOURCE_DATE_EPOCH=7"), None, None, None),
    ] {
        assert_eq!(
            epoch(&text, given, context_time),
            expected,
            "{text} {given:?}"
        );
    }
    // The argument's value is the number, not the word.
    let text = global("context");
    let mut with_time = case(&text);
    with_time.context_time = Some(9);
    check(with_time, "SOURCE_DATE_EPOCH=9");
}

#[test]
fn the_host_name_is_a_switch() {
    let text = stage("");
    assert_eq!(case(&text).runs()[0].hostname, "buildkitsandbox");
    let given = case(&text).arg("BUILDKIT_SANDBOX_HOSTNAME", "h");
    assert_eq!(given.runs()[0].hostname, "h");
    assert_eq!(given.warnings(), [""; 0]);
}

#[test]
fn undeclared_build_arguments_are_told() {
    let text = "ARG GLOBAL\nFROM a AS one\nARG VERSION\nFROM a\nARG OTHER\n";
    let all = case(text)
        .arg("GLOBAL", "1")
        .arg("VERSION", "1")
        .arg("OTHER", "1")
        .arg("TARGETARCH", "amd64")
        .arg("https_proxy", "1")
        .arg("SOURCE_DATE_EPOCH", "1");
    assert_eq!(all.warnings(), [""; 0]);
    assert_eq!(
        case(text)
            .arg("VERSOIN", "1")
            .arg("BUILDKIT_BUILD_NAME", "1")
            .arg("BUILDKIT_INLINE_CACHE", "1")
            .arg("ZZ", "")
            .warnings(),
        [
            "build argument `BUILDKIT_BUILD_NAME` has no effect on this builder",
            "build argument `VERSOIN` is not used: no ARG declares it; did you mean `VERSION`?",
            "build argument `ZZ` is not used: no ARG declares it",
        ]
    );
}

#[test]
fn undefined_variables_are_told_once_and_expand_to_nothing() {
    let text = "FROM a\nENV NAME=n\nWORKDIR /$NMAE\nWORKDIR /x$unset\nARG known\nLABEL l=$known\n";
    assert_eq!(
        case(text).warnings(),
        [
            "3: (/$NMAE) [UndefinedVar] variable `NMAE` is used but not defined; did you mean `NAME`?",
            "4: (/x$unset) [UndefinedVar] variable `unset` is used but not defined",
        ]
    );
    assert_eq!(case(text).config().config.working_dir, "/x");
}

#[test]
fn expansion_mistakes_are_told_with_their_place() {
    let errors = case("FROM a\nWORKDIR /a/${x\nENV B=${:x}\n").errors();
    assert_eq!(errors.len(), 2, "{errors:?}");
    assert!(errors[0].starts_with("2: ("), "{errors:?}");
    assert!(errors[1].starts_with("3: ("), "{errors:?}");
}

#[test]
fn secrets_in_arguments_are_told() {
    let text = "FROM a\nARG API_TOKEN\nENV DB_PASSWORD=x PUBLIC_KEY=y\n";
    let warnings = case(text).warnings();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(
        warnings[0].starts_with("2: (API_TOKEN) [SecretsUsedInArgOrEnv] ARG"),
        "{warnings:?}"
    );
    assert!(
        warnings[1].starts_with("3: (DB_PASSWORD) [SecretsUsedInArgOrEnv] ENV"),
        "{warnings:?}"
    );
}

#[test]
fn variables_that_grow_without_end_are_refused() {
    let text = format!("FROM a\nENV A=0123456789\n{}", "ENV A=$A$A\n".repeat(40));
    let errors = case(&text).errors();
    assert!(
        errors[0].contains("variables make this longer than"),
        "{}",
        errors[0]
    );
}
