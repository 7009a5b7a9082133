//! The lint rules, and the directive that turns them off.

use expect_test::{Expect, expect};

use super::*;

fn check(text: &str, expected: Expect) {
    let (dockerfile, diagnostics) = parse(text);
    let diagnostics = apply_check(&dockerfile.directives, diagnostics);
    expected.assert_eq(&tell(text, &diagnostics));
}

#[test]
fn clean_files_have_none() {
    check(
        "FROM a AS b\nSHELL [\"/bin/bash\", \"-c\"]\nWORKDIR /x\nWORKDIR y\nCMD a\nEXPOSE 80/tcp $P\nENV A=b\nRUN a \\\n# comment\n  b\nFROM b\nWORKDIR z\nENTRYPOINT c\n",
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
        "FROM a\nMAINTAINER me\nCMD a\nCMD [\"b\"]\nENTRYPOINT c\nHEALTHCHECK NONE\nHEALTHCHECK CMD x\nENV A b\nLABEL c d\nEXPOSE 80/TCP 81/${P}\nWORKDIR x\nWORKDIR y\nRUN a \\\n\n  \n  b\n",
        expect![[r#"
            warning[MaintainerDeprecated] "MAINTAINER": MAINTAINER is deprecated (use `LABEL org.opencontainers.image.authors=…`)
            warning[JSONArgsRecommended] "CMD": CMD in shell form keeps signals from the program (write `CMD ["program", "argument"]`)
            warning[MultipleInstructionsDisallowed] "CMD": CMD is given more than once in the stage: only the last one counts
            warning[JSONArgsRecommended] "ENTRYPOINT": ENTRYPOINT in shell form keeps signals from the program (write `ENTRYPOINT ["program", "argument"]`)
            warning[MultipleInstructionsDisallowed] "HEALTHCHECK": HEALTHCHECK is given more than once in the stage: only the last one counts
            warning[LegacyKeyValueFormat] "A b": `ENV key=value` should be used instead of `ENV key value`
            warning[LegacyKeyValueFormat] "c d": `LABEL key=value` should be used instead of `LABEL key value`
            warning[ExposeProtoCasing] "80/TCP": protocol of `80/TCP` is not in lower case
            warning[WorkdirRelativePath] "x": relative WORKDIR `x` depends on the base image
            warning[NoEmptyContinuation] "": empty line inside a continued instruction (remove the line, or make it a comment)
        "#]],
    );
    check(
        "FROM a\nWORKDIR $X\nFROM b\nWORKDIR \"/x y\"\nFROM b\nWORKDIR \"x y\"\n",
        expect![[r#"
            warning[WorkdirRelativePath] "\"x y\"": relative WORKDIR `"x y"` depends on the base image
        "#]],
    );
}

#[test]
fn rules_are_skipped_and_made_errors() {
    check(
        "# check=skip=MaintainerDeprecated, WorkdirRelativePath\nFROM a\nMAINTAINER x\nWORKDIR x\nCMD x\n",
        expect![[r#"
            warning[JSONArgsRecommended] "CMD": CMD in shell form keeps signals from the program (write `CMD ["program", "argument"]`)
        "#]],
    );
    check(
        "# check=skip=all\nFROM a\nMAINTAINER x\nWORKDIR x\nHEALTHCHECK --retries=1 NONE\n",
        expect![[r#"
            warning "--retries=1": flags of HEALTHCHECK NONE have no effect
        "#]],
    );
    check(
        "# check=skip=WorkdirRelativePath;error=true\nFROM a\nMAINTAINER x\nWORKDIR x\nHEALTHCHECK --retries=1 NONE\n",
        expect![[r#"
            error[MaintainerDeprecated] "MAINTAINER": MAINTAINER is deprecated (use `LABEL org.opencontainers.image.authors=…`)
            warning "--retries=1": flags of HEALTHCHECK NONE have no effect
        "#]],
    );
    check(
        "# check=error=false;experimental=all\nFROM a\nMAINTAINER x\n",
        expect![[r#"
            warning[MaintainerDeprecated] "MAINTAINER": MAINTAINER is deprecated (use `LABEL org.opencontainers.image.authors=…`)
        "#]],
    );
}
