//! The table of lint rules: the one home of their names and of what is said about them.
//!
//! `docs/lint.md` shows this table; a test compares the two. Whoever makes a warning names a rule of it as its code.

/// A lint rule. The names are those of BuildKit's build checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    pub name: &'static str,
    /// What the rule asks for.
    pub summary: &'static str,
    /// When it warns.
    pub when: &'static str,
    /// Lines of a Dockerfile that it warns of, ` ⏎ ` between them.
    pub example: &'static str,
    /// Only on by `experimental=…`; not turned off by `skip`.
    pub experimental: bool,
}

/// Returns the rule of that name.
pub fn rule(name: &str) -> Option<&'static Rule> {
    RULES.iter().find(|rule| rule.name == name)
}

const fn rule_of(
    name: &'static str,
    summary: &'static str,
    when: &'static str,
    example: &'static str,
) -> Rule {
    Rule {
        name,
        summary,
        when,
        example,
        experimental: false,
    }
}

/// All rules, by name.
pub const RULES: [Rule; 22] = [
    rule_of(
        "ConsistentInstructionCasing",
        "all instructions of a file are in the same letter case",
        "an instruction is not in the case that most are in (upper, where it is a tie)",
        "FROM scratch ⏎ copy a b",
    ),
    rule_of(
        "CopyIgnoredFile",
        "COPY and ADD name no file that the ignore file leaves out",
        "a source of the main context is excluded; not told where the ignore file has `!` lines",
        "COPY secret.txt /",
    ),
    rule_of(
        "DuplicateStageName",
        "names of stages are given once",
        "an earlier stage has the same name",
        "FROM a AS x ⏎ FROM b AS x",
    ),
    rule_of(
        "ExposeInvalidFormat",
        "EXPOSE names ports of the container alone",
        "a word of EXPOSE has an address or a port of the host",
        "EXPOSE 127.0.0.1:8080:80",
    ),
    rule_of(
        "ExposeProtoCasing",
        "protocols of EXPOSE are in lower case",
        "a protocol has a capital letter",
        "EXPOSE 80/TCP",
    ),
    rule_of(
        "FromAsCasing",
        "AS is in the letter case of its FROM",
        "the two differ; not told of a FROM in mixed case",
        "FROM a as x",
    ),
    rule_of(
        "FromPlatformFlagConstDisallowed",
        "`FROM --platform` is no constant",
        "the flag has no variable, and the stage's name has neither the system nor the architecture in it",
        "FROM --platform=linux/amd64 a",
    ),
    rule_of(
        "InvalidBaseImagePlatform",
        "a base image is for the platform that is built",
        "system or architecture of the image differ from what was asked for",
        "FROM image-of-another-platform",
    ),
    rule_of(
        "InvalidDefaultArgInFrom",
        "FROM works without build arguments",
        "with the defaults alone the base is empty or no image name",
        "ARG IMAGE ⏎ FROM $IMAGE",
    ),
    Rule {
        experimental: true,
        ..rule_of(
            "InvalidDefinitionDescription",
            "the comment right above a named FROM or an ARG describes it: `# NAME text`",
            "the last line of that comment does not begin with the name",
            "# the first version ⏎ ARG VERSION=1",
        )
    },
    rule_of(
        "JSONArgsRecommended",
        "CMD and ENTRYPOINT are in the JSON form, so that signals reach the program",
        "one is in the shell form and no SHELL is set, by the file or by the base image",
        "CMD node index.js",
    ),
    rule_of(
        "LegacyKeyValueFormat",
        "ENV and LABEL have `=` between name and value",
        "there is a blank in its place",
        "ENV NAME value",
    ),
    rule_of(
        "MaintainerDeprecated",
        "a label takes the place of MAINTAINER",
        "MAINTAINER is used",
        "MAINTAINER me@example.org",
    ),
    rule_of(
        "MultipleInstructionsDisallowed",
        "CMD, ENTRYPOINT and HEALTHCHECK stand once in a stage",
        "a later one overrules it",
        "CMD [\"a\"] ⏎ CMD [\"b\"]",
    ),
    rule_of(
        "NoEmptyContinuation",
        "a continued instruction has no empty lines in it",
        "a blank line follows a continuation",
        "RUN a \\ ⏎  ⏎ b",
    ),
    rule_of(
        "RedundantTargetPlatform",
        "`FROM --platform=$TARGETPLATFORM` is left out",
        "the flag is that variable and nothing else: the default",
        "FROM --platform=$TARGETPLATFORM a",
    ),
    rule_of(
        "ReservedStageName",
        "no stage is called `scratch` or `context`",
        "one is",
        "FROM a AS scratch",
    ),
    rule_of(
        "SecretsUsedInArgOrEnv",
        "secrets come in by `RUN --mount=type=secret`",
        "a name in ARG or ENV has a word such as `token`, `key` or `password` in it, and none of `public`, `file`, `version`",
        "ENV API_TOKEN=x",
    ),
    rule_of(
        "StageNameCasing",
        "names of stages are in lower case",
        "a name has a capital letter",
        "FROM a AS Build",
    ),
    rule_of(
        "UndefinedArgInFrom",
        "FROM uses declared arguments only",
        "no ARG before the first FROM declares a variable of FROM, and it is no predefined one",
        "FROM a:$VERSION",
    ),
    rule_of(
        "UndefinedVar",
        "variables are defined before they are used",
        "neither ARG, ENV nor the base image defines a variable; not told where the base image cannot be looked at",
        "COPY $SOURCE /",
    ),
    rule_of(
        "WorkdirRelativePath",
        "the first WORKDIR of a stage is absolute",
        "it is relative, and no stage below has a WORKDIR of its own",
        "FROM a ⏎ WORKDIR app",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_every_row_is_complete() {
        assert!(RULES.is_sorted_by_key(|rule| rule.name));
        for rule in RULES {
            assert!(!rule.summary.is_empty() && !rule.when.is_empty() && !rule.example.is_empty());
        }
        assert_eq!(
            rule("InvalidDefinitionDescription").map(|rule| rule.experimental),
            Some(true)
        );
        assert_eq!(rule("StageNamecasing"), None);
    }
}
