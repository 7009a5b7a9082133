//! The lint rules, and the directive that turns them off.

use expect_test::{Expect, expect};

use super::*;

fn check(text: &str, expected: Expect) {
    check_given(text, None, expected);
}

/// `given` is what stands in for the directive.
fn check_given(text: &str, given: Option<&str>, expected: Expect) {
    let (dockerfile, diagnostics) = parse(text);
    let diagnostics = Checks::new(&dockerfile, given).unwrap().wanted(diagnostics);
    expected.assert_eq(&tell(text, &diagnostics));
}

#[test]
fn clean_files_have_none() {
    check(
        "FROM a AS b\nRUN a \\\n# comment\n  b\nFROM b\n",
        expect![[""]],
    );
    check("from a as b\nrun c\n", expect![[""]]);
}

#[test]
fn casing() {
    check(
        "FROM a as Build\nrun x\nRUN y\nUser z\n",
        expect![[r#"
        warning[FromAsCasing] "as": `as` and `FROM` are not in the same case
        warning[StageNameCasing] "Build": stage name `Build` is not in lower case
        warning[ConsistentInstructionCasing] "run": `run` is not in upper case as most instructions are
        warning[ConsistentInstructionCasing] "User": `User` is not in upper case as most instructions are
    "#]],
    );
    check(
        "from a AS b\nrun x\nCMD []\n",
        expect![[r#"
        warning[FromAsCasing] "AS": `AS` and `from` are not in the same case
        warning[ConsistentInstructionCasing] "CMD": `CMD` is not in lower case as most instructions are
    "#]],
    );
    check(
        "From a as b\n",
        expect![[r#"
        warning[ConsistentInstructionCasing] "From": `From` is not in upper case as most instructions are
    "#]],
    );
}

#[test]
fn stage_names() {
    check(
        "FROM a AS scratch\nFROM b AS x\nFROM c AS X\nFROM d AS context\n",
        expect![[r#"
            warning[ReservedStageName] "scratch": stage name `scratch` is reserved
            warning[StageNameCasing] "X": stage name `X` is not in lower case
            warning[DuplicateStageName] "X": stage name `x` is used twice
            warning[ReservedStageName] "context": stage name `context` is reserved
        "#]],
    );
}

#[test]
fn instructions() {
    check(
        "FROM a\nMAINTAINER me\nRUN a \\\n\n  \n  b\nCOPY \\\n\n<<E /\n1\nE\n",
        expect![[r#"
            warning[MaintainerDeprecated] "MAINTAINER": MAINTAINER is deprecated (use `LABEL org.opencontainers.image.authors=…`)
            warning[NoEmptyContinuation] "": empty line inside a continued instruction (remove the line, or make it a comment)
            warning[NoEmptyContinuation] "": empty line inside a continued instruction (remove the line, or make it a comment)
        "#]],
    );
}

#[test]
fn descriptions() {
    const FILE: &str = "# check=experimental=InvalidDefinitionDescription\n# foo this is the foo\nARG foo=bar\n# text\n\nFROM a AS base\n# text\n#\nARG version\n# one\n# bar two\nARG foo=1 bar=2\n# text\n# base\n\
        # check=skip=all\nFROM b\n# other\nCOPY a b\n";
    check(FILE, expect![[""]]);
    check(
        "# check=experimental=all\n# bar is it\nARG foo\n# Base is it\nFROM a AS base\n# bad\nARG version=latest\n# bad\nARG a b\n# check=experimental=all\nARG c\n# foo x\n# check=skip=all\nARG d\n",
        expect![[r#"
            warning[InvalidDefinitionDescription] "ARG foo": the comment above this ARG does not read `# foo description` (put an empty line between them if it is no description)
            warning[InvalidDefinitionDescription] "FROM a AS base": the comment above this FROM does not read `# base description` (put an empty line between them if it is no description)
            warning[InvalidDefinitionDescription] "ARG version=latest": the comment above this ARG does not read `# version description` (put an empty line between them if it is no description)
            warning[InvalidDefinitionDescription] "ARG a b": the comment above this ARG does not read `# NAME description` (put an empty line between them if it is no description)
            warning[InvalidDefinitionDescription] "ARG d": the comment above this ARG does not read `# d description` (put an empty line between them if it is no description)
        "#]],
    );
    // Experimental rules are off, and one that is on is not skipped.
    check("# bad\nFROM a AS b\n", expect![[""]]);
    check(
        "# check=skip=all;experimental=InvalidDefinitionDescription\n# bad\nFROM a AS b\n",
        expect![[r#"
            warning[InvalidDefinitionDescription] "FROM a AS b": the comment above this FROM does not read `# b description` (put an empty line between them if it is no description)
        "#]],
    );
    let (dockerfile, _) = parse(FILE);
    let argument = dockerfile.global_args[0].span;
    assert_eq!(
        dockerfile.description(argument, "foo"),
        Some("this is the foo")
    );
    assert_eq!(dockerfile.description(argument, "fo"), None);
    let stage = &dockerfile.stages[0];
    assert_eq!(dockerfile.description(stage.from.span, "base"), None);
    assert_eq!(
        dockerfile.description(stage.instructions[1].span, "bar"),
        Some("two")
    );
}

#[test]
fn rules_are_skipped() {
    check(
        "# check=skip=MaintainerDeprecated remark\nFROM a as b\nMAINTAINER x\n",
        expect![[r#"
            warning[FromAsCasing] "as": `as` and `FROM` are not in the same case
        "#]],
    );
    // Names are compared letter by letter, and other names mean nothing.
    check(
        "# check=skip=maintainerdeprecated,NoSuchRule\nFROM a\nMAINTAINER x\n",
        expect![[r#"
            warning[MaintainerDeprecated] "MAINTAINER": MAINTAINER is deprecated (use `LABEL org.opencontainers.image.authors=…`)
        "#]],
    );
    check(
        "# check=skip=all\nFROM a as b\nMAINTAINER x\nHEALTHCHECK --retries=1 NONE\n",
        expect![[r#"
            warning "--retries=1": flags of HEALTHCHECK NONE have no effect
        "#]],
    );
    check_given(
        "# check=skip=all\nFROM a\nMAINTAINER x\n",
        Some("skip=FromAsCasing"),
        expect![[r#"
            warning[MaintainerDeprecated] "MAINTAINER": MAINTAINER is deprecated (use `LABEL org.opencontainers.image.authors=…`)
        "#]],
    );
    check_given("FROM a\nMAINTAINER x\n", Some("skip=all"), expect![[""]]);
    check_given(
        "# check=skip=all\nFROM a\nMAINTAINER x\n",
        Some(""),
        expect![[r#"
            warning[MaintainerDeprecated] "MAINTAINER": MAINTAINER is deprecated (use `LABEL org.opencontainers.image.authors=…`)
        "#]],
    );
}

#[test]
fn a_comment_above_an_instruction_skips_its_rules() {
    check(
        "# check=skip=StageNameCasing\nFROM a as B\n# why\n# check=skip=MaintainerDeprecated // and why not\n# check=skip=all\nMAINTAINER x\nMAINTAINER y\n# check=nonsense\nMAINTAINER z\n# check=skip=all\n\nMAINTAINER w\n",
        expect![[r#"
            warning[FromAsCasing] "as": `as` and `FROM` are not in the same case
            warning[MaintainerDeprecated] "MAINTAINER": MAINTAINER is deprecated (use `LABEL org.opencontainers.image.authors=…`)
            warning[MaintainerDeprecated] "MAINTAINER": MAINTAINER is deprecated (use `LABEL org.opencontainers.image.authors=…`)
            warning[MaintainerDeprecated] "MAINTAINER": MAINTAINER is deprecated (use `LABEL org.opencontainers.image.authors=…`)
        "#]],
    );
    check(
        "FROM a\n# check=skip=NoEmptyContinuation\nRUN a \\\n\n b\nRUN c \\\n\n d\n",
        expect![[r#"
            warning[NoEmptyContinuation] "": empty line inside a continued instruction (remove the line, or make it a comment)
        "#]],
    );
}

#[test]
fn broken_rules_are_an_error_where_that_is_wanted() {
    let verdict = |text: &str, given: Option<&str>| {
        let (dockerfile, diagnostics) = parse(text);
        let checks = Checks::new(&dockerfile, given).unwrap();
        let told = checks.wanted(diagnostics);
        checks.verdict(&told).map(|verdict| verdict.message)
    };
    for (text, given, expected) in [
        (
            "# check=error=true\nFROM a as b\nMAINTAINER x\nMAINTAINER y\n",
            None,
            Some("lint rules are broken: FromAsCasing, MaintainerDeprecated"),
        ),
        ("# check=skip=all;error=true\nFROM a as b\n", None, None),
        ("# check=error=true\nFROM a as b\n", Some("skip=all"), None),
        (
            "FROM a as b\n",
            Some("error=true"),
            Some("lint rules are broken: FromAsCasing"),
        ),
        // What names no rule is no broken rule.
        (
            "# check=error=true\nFROM a\nHEALTHCHECK --retries=1 NONE\n",
            None,
            None,
        ),
        ("FROM a as b\n", None, None),
    ] {
        assert_eq!(verdict(text, given).as_deref(), expected, "{text}");
    }
    assert!(Checks::new(&parse("FROM a").0, Some("x")).is_err());
}
