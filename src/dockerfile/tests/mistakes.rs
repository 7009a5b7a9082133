//! What is said about wrong files. All mistakes of a file are told at once.

use expect_test::{Expect, expect};

use super::*;

fn check(text: &str, expected: Expect) {
    let (_, diagnostics) = parse(text);
    expected.assert_eq(&tell(text, &diagnostics));
}

#[test]
fn files_without_a_stage() {
    check(
        "",
        expect![[r#"
        error "": the file has no instructions
    "#]],
    );
    check(
        "# only a comment\n",
        expect![[r#"
        error "": the file has no instructions
    "#]],
    );
    check(
        "ARG A=1\n",
        expect![[r#"
        error "ARG A=1": the file has no FROM (a build starts from an image or from `scratch`)
    "#]],
    );
    check(
        "RUN a\nRUN b\nFROM x\n",
        expect![[r#"
        error "RUN": RUN stands before the first FROM (only ARG may stand there)
    "#]],
    );
    check(
        "FORM x\nRUN a\n",
        expect![[r#"
        error "FORM": unknown instruction `FORM` (did you mean `FROM`?)
    "#]],
    );
}

#[test]
fn keywords() {
    check(
        "FROM x\nRNU a\nCOPPY a b\ninstall c\n",
        expect![[r#"
        error "RNU": unknown instruction `RNU` (did you mean `RUN`?)
        error "COPPY": unknown instruction `COPPY` (did you mean `COPY`?)
        error "install": unknown instruction `install` (if this belongs to the instruction above, that line must end in a backslash)
    "#]],
    );
}

#[test]
fn every_mistake_is_told() {
    check(
        "FROM\nFROM a b\nFROM a AS 1x\nFROM a AS b c\nENV\nENV A\nENV A=b c\nENV =x\nARG =x\nARG\nLABEL\nUSER\nWORKDIR\nEXPOSE\nVOLUME\nVOLUME [\"\"]\nSTOPSIGNAL\nMAINTAINER\n",
        expect![[r#"
            error "FROM": FROM takes an image, or an image, `AS` and a name
            error "a b": FROM takes an image, or an image, `AS` and a name
            error "1x": invalid name of a stage: `1x` (a name starts with a letter; letters, digits, `-`, `_` and `.` follow)
            error "a AS b c": FROM takes an image, or an image, `AS` and a name
            error "ENV": ENV needs an argument
            error "A": `A` has no value (write `ENV A=…`)
            error "c": `c` has no `=` (ENV takes key=value pairs; a value with blanks stands in double quotes)
            error "=x": a name in ENV is empty
            error "=x": a name in ARG is empty
            error "ARG": ARG needs an argument
            error "LABEL": LABEL needs an argument
            error "USER": USER needs an argument
            error "WORKDIR": WORKDIR needs an argument
            error "EXPOSE": EXPOSE needs an argument
            error "VOLUME": VOLUME needs an argument
            error "\"\"": the path of a volume is empty
            error "STOPSIGNAL": STOPSIGNAL needs an argument
            error "MAINTAINER": MAINTAINER needs an argument
        "#]],
    );
}

#[test]
fn flags() {
    check(
        "FROM --plat=x a\nRUN --mont=type=cache,target=/x a\nRUN --network a\nRUN --network=none --network=none a\nCOPY --link=maybe a b\nCOPY --link= a b\nADD --from=x a b\nCMD --x\nCOPY --chown a b\nENV --x A=b\nRUN --network=nne a\nRUN --security=x a\nRUN --device= --device=a,b x\n",
        expect![[r#"
            error "--plat=x": unknown flag `--plat` for FROM (FROM has `--platform`)
            error "--mont=type=cache,target=/x": unknown flag `--mont` for RUN (did you mean `--mount`?)
            error "--network": flag `--network` has no value (write `--network=…`)
            error "--network=none": flag `--network` is given twice
            error "--link=maybe": flag `--link` is either `true` or `false`
            error "--link=": flag `--link` is either `true` or `false`
            error "--from=x": unknown flag `--from` for ADD (ADD has `--chown`, `--chmod`, `--link`, `--exclude`, `--checksum`, `--unpack`, `--keep-git-dir`)
            error "--x": unknown flag `--x` for CMD (CMD has no flags; write `--` before text that starts with `--`)
            error "--chown": flag `--chown` has no value (write `--chown=…`)
            error "--x": unknown flag `--x` for ENV (ENV has no flags; write `--` before text that starts with `--`)
            error "nne": unknown mode of `--network`: `nne` (did you mean `none`?)
            error "x": unknown mode of `--security`: `x` (it is one of sandbox, insecure)
            error "": unknown option `` of `--device`
            error "": flag `--device` names no device
            error "a,b": unknown option `b` of `--device`
        "#]],
    );
}

#[test]
fn copies() {
    check(
        "FROM x\nCOPY\nCOPY a\nCOPY [\"a\"]\nCOPY [\"a\", 1]\nCOPY a <<E\nE\nCOPY --from=$X a b\n",
        expect![[r#"
            error "COPY": COPY needs a source and a destination
            error "a": COPY needs a source and a destination
            error "[\"a\"]": COPY needs a source and a destination
            error "[\"a\", 1]": the JSON form of COPY holds strings only
            error "a <<E": a heredoc cannot be the destination of COPY
            error "$X": variables are not expanded in `--from` (define a stage with `FROM … AS name`, where global arguments are, and name it)
        "#]],
    );
}

#[test]
fn commands() {
    check(
        "FROM x\nRUN []\nSHELL sh\nSHELL []\nSHELL\nRUN [\"a\", 1]\n",
        expect![[r#"
            error "[]": RUN needs a command
            error "sh": SHELL takes the JSON form only (write `SHELL ["/bin/sh", "-c"]`)
            error "[]": SHELL needs an argument
            error "SHELL": SHELL takes the JSON form only (write `SHELL ["/bin/sh", "-c"]`)
            error "[\"a\", 1]": the JSON form of RUN holds strings only
        "#]],
    );
}

#[test]
fn healthchecks() {
    check(
        "FROM x\nHEALTHCHECK\nHEALTHCHECK CMD\nHEALTHCHECK CMD []\nHEALTHCHECK curl\nHEALTHCHECK NONE x\nHEALTHCHECK --interval=1us --timeout=x --retries=-1 CMD a\nHEALTHCHECK --retries=1 NONE\n",
        expect![[r#"
            error "HEALTHCHECK": HEALTHCHECK needs an argument
            error "CMD": HEALTHCHECK CMD needs a command
            error "CMD []": HEALTHCHECK CMD needs a command
            error "curl": unknown kind of HEALTHCHECK: `CURL` (write `HEALTHCHECK CMD …` or `HEALTHCHECK NONE`)
            error "x": HEALTHCHECK NONE takes no arguments
            error "1us": invalid value of `--interval`: `1us`: it is shorter than 1ms (durations are written like `30s`, `1m30s` or `500ms`)
            error "x": invalid value of `--timeout`: `x`: not a duration (durations are written like `30s`, `1m30s` or `500ms`)
            error "-1": invalid value of `--retries`: wanted a number that is not negative, found `-1`
            warning "--retries=1": flags of HEALTHCHECK NONE have no effect
        "#]],
    );
}

#[test]
fn triggers() {
    check(
        "FROM x\nONBUILD\nONBUILD ONBUILD RUN a\nONBUILD from x\nONBUILD MAINTAINER a\nONBUILD RNU a\nONBUILD COPY a\nONBUILD --x RUN a\n",
        expect![[r#"
            error "ONBUILD": ONBUILD needs an argument
            error "ONBUILD": ONBUILD cannot be a trigger of ONBUILD
            error "from": FROM cannot be a trigger of ONBUILD
            error "MAINTAINER": MAINTAINER cannot be a trigger of ONBUILD
            error "RNU": unknown instruction `RNU` (did you mean `RUN`?)
            error "a": COPY needs a source and a destination
            error "--x": unknown flag `--x` for ONBUILD (ONBUILD has no flags; write `--` before text that starts with `--`)
        "#]],
    );
}

#[test]
fn heredocs() {
    check(
        "FROM x\nRUN <<A <<B\n1\nA\n2\n B\nUSER x\n",
        expect![[r#"
        error "<<B": the heredoc is not terminated (its delimiter must stand alone on a line, with nothing before or behind it)
    "#]],
    );
    check(
        "FROM x\nONBUILD COPY <<A /x\n",
        expect![[r#"
        error "<<A": the heredoc is not terminated (its delimiter must stand alone on a line, with nothing before or behind it)
    "#]],
    );
}

#[test]
fn mounts() {
    check(
        "FROM x\nRUN --mount=tpye=cache,target=/x a\nRUN --mount=type=cahce,target=/x a\nRUN --mount=type=cache a\nRUN --mount= a\nRUN --mount=target=/ a\nRUN --mount=target=/x,id a\nRUN --mount=target=/x,from=$X a\nRUN --mount=type=cache,target=/x,sharing=all,mode=9,uid=x,readonly=maybe a\nRUN --mount=target=/x,size=1,required,sharing=locked,uid=1,env=A a\nRUN --mount=type=secret a\nRUN --mount=type=secret,from=a,id=b,source=c a\nRUN --mount=type=tmpfs,target=/x,size=big a\nRUN --mount=type=cache,\\\"target=/a,b\\\" a\n",
        expect![[r#"
            error "tpye=cache": unknown option `tpye` of `--mount` (did you mean `type`?)
            error "cahce": unknown type of a mount: `cahce` (did you mean `cache`?)
            error "--mount=type=cache": a cache mount needs a `target`
            error "--mount=": flag `--mount` has no value
            error "/": a mount cannot cover `/`
            error "id": option `id` has no value (write `id=…`)
            error "$X": variables are not expanded in `from` (define a stage with `FROM … AS name`, where global arguments are, and name it)
            error "all": unknown sharing of a mount: `all` (it is one of shared, private, locked)
            error "9": invalid value of `mode`: wanted an octal number, found `9`
            error "x": invalid value of `uid`: wanted a number, found `x`
            error "maybe": invalid value of `readonly`: wanted true or false, found `maybe`
            error "size": option `size` is not for mounts of type `bind`
            error "required": option `required` is not for mounts of type `bind`
            error "sharing": option `sharing` is not for mounts of type `bind`
            error "uid": option `uid` is not for mounts of type `bind`
            error "env": option `env` is not for mounts of type `bind`
            error "--mount=type=secret": a secret mount needs an `id` or a `target`
            error "from": a secret mount has no `from`
            error "source": a secret mount has either `id` or `source`, not both
            error "big": invalid value of `size`: wanted a size such as `64m`, found `big`
            error "--mount=type=cache,\\\"target=/a,b\\\"": quotes cannot stand in the value of `--mount`
        "#]],
    );
}

#[test]
fn directives() {
    check(
        "# escape=x\n# escape=`\n# syntax=a/b\n# check=skip\nFROM x\n",
        expect![[r#"
            error "x": invalid escape character `x` (it is either a backslash or a backtick)
            error "`": directive `escape` is given twice
            warning "a/b": frontends are not run: `a/b` is ignored and the file is read as a Dockerfile (remove the `syntax` directive if the file is an ordinary Dockerfile)
            error "skip": invalid option of the `check` directive: `skip`
        "#]],
    );
    check("# syntax=docker/dockerfile:1-labs\nFROM x\n", expect![[""]]);
    check(
        "# check=wrong=1\nFROM x\n",
        expect![[r#"
        error "wrong=1": unknown option of the `check` directive: `wrong`
    "#]],
    );
}
