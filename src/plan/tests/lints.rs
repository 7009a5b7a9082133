//! Warnings of the rules that need values, bases or the target.

use super::*;

/// Returns `LINE RULE (what it points at)`, a line each.
fn told(case: &Case) -> Vec<String> {
    case.ready()
        .warnings
        .iter()
        .filter_map(|warning| {
            let code = warning.code?;
            let span = warning.labels.first()?.span;
            let line = case.text[..span.start].matches('\n').count() + 1;
            Some(format!(
                "{line} {code} ({})",
                case.text[span.start..span.end]
                    .lines()
                    .next()
                    .unwrap_or_default()
            ))
        })
        .collect()
}

#[track_caller]
fn check(text: &str, expected: &[&str]) {
    assert_eq!(told(&case(text)), expected, "{text}");
}

#[test]
fn single_instructions_and_forms() {
    check(
        "FROM a\nCMD a\nCMD [\"b\"]\nENTRYPOINT c\nHEALTHCHECK NONE\nHEALTHCHECK CMD x\nCMD\nENV A b\nLABEL c d\nENV e=f\n",
        &[
            "2 JSONArgsRecommended (CMD)",
            "2 MultipleInstructionsDisallowed (CMD)",
            "3 MultipleInstructionsDisallowed (CMD)",
            "4 JSONArgsRecommended (ENTRYPOINT)",
            "5 MultipleInstructionsDisallowed (HEALTHCHECK)",
            "7 JSONArgsRecommended (CMD)",
            "8 LegacyKeyValueFormat (A b)",
            "9 LegacyKeyValueFormat (c d)",
        ],
    );
    // What a stage inherits is not its own, but for SHELL.
    check(
        "FROM a AS x\nSHELL [\"/sh\"]\nCMD a\nENTRYPOINT [\"b\"]\nHEALTHCHECK NONE\nFROM x\nCMD a\nENTRYPOINT b\nHEALTHCHECK NONE\n",
        &[],
    );
    check("FROM a\nCMD []\n", &[]);
}

#[test]
fn the_shell_of_the_base_counts() {
    let shell = |config: &mut ContainerConfig| config.shell = Some(vec!["/bin/bash".to_owned()]);
    assert_eq!(
        told(&case("FROM a\nCMD a\n").image("a", shell)),
        [] as [&str; 0]
    );
}

#[test]
fn working_directories() {
    check(
        "FROM a\nWORKDIR x\nWORKDIR y\n",
        &["2 WorkdirRelativePath (x)"],
    );
    check("FROM a AS b\nWORKDIR /x\nFROM b\nWORKDIR y\n", &[]);
    check(
        "FROM a\nENV P=/x Q=y\nWORKDIR $P\nFROM a\nWORKDIR \"x y\"\n",
        &["5 WorkdirRelativePath (\"x y\")"],
    );
    // One in the base is no reason to rely on it.
    let base = |config: &mut ContainerConfig| config.working_dir = "/srv".to_owned();
    assert_eq!(
        told(&case("FROM a\nWORKDIR x\n").image("a", base)),
        ["2 WorkdirRelativePath (x)"]
    );
}

#[test]
fn ports() {
    check(
        "FROM a\nENV P=90/Udp\nEXPOSE 80/TCP 81/tcp $P $NONE\nEXPOSE 8080:80 127.0.0.1:1:2/SCTP :3\n",
        &[
            "3 ExposeProtoCasing (80/TCP)",
            "3 ExposeProtoCasing ($P)",
            "4 ExposeInvalidFormat (8080:80)",
            "4 ExposeProtoCasing (127.0.0.1:1:2/SCTP)",
            "4 ExposeInvalidFormat (127.0.0.1:1:2/SCTP)",
        ],
    );
}

#[test]
fn secrets() {
    check(
        "ARG GLOBAL_TOKEN\nFROM a\nARG SECRET_PASSPHRASE token_file\nENV SUPER_Secret=foo public_key=x\nENV git_key= KEYS=\n",
        &[
            "3 SecretsUsedInArgOrEnv (SECRET_PASSPHRASE)",
            "4 SecretsUsedInArgOrEnv (SUPER_Secret)",
            "5 SecretsUsedInArgOrEnv (git_key)",
        ],
    );
}

#[test]
fn sources_that_are_ignored() {
    let ignoring = |text, patterns: &str| {
        let mut case = case(text);
        case.ignore = Some(IgnorePatterns::parse(patterns).unwrap());
        told(&case)
    };
    let text = "FROM a AS b\nENV D=dir\nCOPY Dockerfile $D/../dir/x /d/\nADD /Dockerfile dirt /d/\nCOPY --from=c Dockerfile /\nCOPY <<Dockerfile /x\nDockerfile\n";
    assert_eq!(
        ignoring(text, "Dockerfile\ndir\n"),
        [
            "3 CopyIgnoredFile (Dockerfile)",
            "3 CopyIgnoredFile ($D/../dir/x)",
            "4 CopyIgnoredFile (/Dockerfile)"
        ]
    );
    // With exceptions it cannot be told without looking.
    assert_eq!(ignoring(text, "*\n!Dockerfile\n"), [] as [&str; 0]);
    assert_eq!(told(&case(text)), [] as [&str; 0]);
}

#[test]
fn stages_that_the_target_does_not_need_are_looked_at_on_demand() {
    let text = "FROM a AS first\nCOPY $foo /\nCMD x\nFROM b AS second\nCOPY $bar /\n";
    check(text, &["5 UndefinedVar ($bar)"]);
    let mut all = case(text);
    all.all_stages = true;
    assert_eq!(
        told(&all),
        [
            "2 UndefinedVar ($foo)",
            "3 JSONArgsRecommended (CMD)",
            "5 UndefinedVar ($bar)"
        ]
    );
}

#[test]
fn variables_are_not_undefined_on_a_base_that_nobody_knows() {
    let text = "FROM a AS x\nCOPY $foo /\nFROM x AS y\nCOPY $bar /\nFROM b\nCOPY $baz /\nCOPY --from=y / /\n";
    let mut case = case(text);
    case.unknown = vec![BaseKey {
        location: BaseLocation::Image("a".parse().unwrap()),
        platform: Platform::new("linux", "amd64", None),
    }];
    assert_eq!(told(&case), ["6 UndefinedVar ($baz)"]);
}

#[test]
fn what_triggers_of_the_base_do_is_told_of_its_from() {
    let base = |config: &mut ContainerConfig| {
        config.on_build = vec![
            "CMD a".to_owned(),
            "CMD [\"b\"]".to_owned(),
            "WORKDIR x".to_owned(),
            "COPY $nothing /".to_owned(),
        ];
    };
    let case = case("# é\nFROM a\nCMD [\"c\"]\n").image("a", base);
    assert_eq!(
        told(&case),
        [
            "2 JSONArgsRecommended (FROM a)",
            "2 MultipleInstructionsDisallowed (FROM a)",
            "2 WorkdirRelativePath (FROM a)",
            "2 UndefinedVar (FROM a)",
            "2 MultipleInstructionsDisallowed (FROM a)",
        ]
    );
}
