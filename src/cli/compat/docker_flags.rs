//! The flags of `docker build`, classic and of buildx, and those in front of a subcommand.

use super::flag::Does::{Honoured, Noted, Refused, Unless};
use super::flag::Takes::{List, Optional, Switch, SwitchOn, Value};
use super::flag::{Tool, flag, same};

const ATTESTATIONS: &str = "no attestations are made: leave it out";
const CONFINED: &str =
    "steps are confined as well as this machine allows; `builder doctor` says how";
const NO_DAEMON: &str = "nothing is asked of a daemon";
const FRESH: &str = "what a step leaves behind is in its layer or nowhere";

pub(super) static BUILD: Tool = Tool {
    name: "docker build",
    title: "`docker build`, `docker buildx build`",
    variables: None,
    flags: &[
        same("add-host", List("HOST:IP")),
        same("allow", List("WHAT")),
        same("annotation", Value("KEY=VALUE")),
        flag("attest", Value("SPEC"), Refused(ATTESTATIONS)),
        same("build-arg", Value("NAME[=VALUE]")),
        same("build-context", Value("NAME=VALUE")),
        flag(
            "builder",
            Value("NAME"),
            Noted("there is no builder to choose"),
        ),
        same("cache-from", Value("SPEC")),
        same("cache-to", Value("SPEC")),
        same("call", Value("METHOD")),
        same("cgroup-parent", Value("GROUP")),
        same("check", Switch),
        flag("compress", Switch, Noted("the context is sent nowhere")),
        same("cpu-period", Value("MICROSECONDS")),
        same("cpu-quota", Value("MICROSECONDS")),
        same("cpu-shares", Value("N")).short('c'),
        same("cpuset-cpus", Value("LIST")),
        same("cpuset-mems", Value("LIST")),
        flag(
            "debug",
            Switch,
            Noted("`--progress plain` shows every line"),
        )
        .short('D'),
        flag("detach", Switch, Refused("a build ends with its process")),
        flag(
            "disable-content-trust",
            SwitchOn,
            Refused("there is no content trust of Docker's kind: `FROM NAME@sha256:…` pins a base"),
        ),
        same("file", Value("FILE")).short('f'),
        flag("force-rm", Switch, Noted(FRESH)),
        same("iidfile", Value("FILE")),
        flag(
            "isolation",
            Value("KIND"),
            Unless(&["", "default"], &Noted(CONFINED)),
        ),
        same("label", Value("KEY=VALUE")),
        same("load", Switch),
        same("memory", Value("BYTES")).short('m'),
        same("memory-swap", Value("BYTES")),
        same("metadata-file", Value("FILE")),
        flag(
            "network",
            Value("MODE"),
            Honoured("`--network`; `bridge` is the default"),
        ),
        same("no-cache", Switch),
        same("no-cache-filter", List("STAGE")),
        same("output", Value("SPEC")).short('o'),
        same("platform", List("PLATFORM")),
        flag(
            "policy",
            Value("SPEC"),
            Refused("`FROM NAME@sha256:…` pins a base, `ADD --checksum=…` a download"),
        ),
        flag(
            "print",
            Optional("METHOD", "build"),
            Honoured("`--call METHOD`"),
        ),
        same("progress", Value("MODE")),
        flag(
            "provenance",
            Optional("SPEC", "true"),
            Unless(
                &["false", "0", "disabled=true", "mode=disabled"],
                &Refused(ATTESTATIONS),
            ),
        ),
        same("pull", Switch),
        same("push", Switch),
        same("quiet", Switch).short('q'),
        flag("rm", SwitchOn, Noted(FRESH)),
        flag(
            "sbom",
            Optional("SPEC", "true"),
            Unless(&["false", "0", "disabled=true"], &Refused(ATTESTATIONS)),
        ),
        same("secret", Value("SPEC")),
        flag("security-opt", Value("OPTION"), Noted(CONFINED)),
        same("shm-size", Value("BYTES")),
        flag(
            "squash",
            Switch,
            Refused("a last stage of `FROM BASE` and `COPY --from=STAGE / /` is one layer"),
        ),
        same("ssh", Value("SPEC")),
        flag("stream", Switch, Noted("the context is sent nowhere")),
        same("tag", Value("REF")).short('t'),
        same("target", Value("STAGE")),
        same("ulimit", Value("NAME=SOFT[:HARD]")),
    ],
};

pub(super) static GLOBAL: Tool = Tool {
    name: "docker",
    title: "`docker` and `docker buildx`, in front of a subcommand",
    variables: None,
    flags: &[
        flag(
            "builder",
            Value("NAME"),
            Noted("there is no builder to choose"),
        ),
        flag(
            "config",
            Value("DIR"),
            Honoured("`--authfile DIR/config.json`"),
        ),
        flag("context", Value("NAME"), Noted(NO_DAEMON)).short('c'),
        flag(
            "debug",
            Switch,
            Noted("`--progress plain` of `build` shows every line"),
        )
        .short('D'),
        flag("host", Value("URL"), Noted(NO_DAEMON)).short('H'),
        flag(
            "log-level",
            Value("LEVEL"),
            Noted("`--progress` of `build` says how much is shown"),
        )
        .short('l'),
        flag("tls", Switch, Noted(NO_DAEMON)),
        flag("tlscacert", Value("FILE"), Noted(NO_DAEMON)),
        flag("tlscert", Value("FILE"), Noted(NO_DAEMON)),
        flag("tlskey", Value("FILE"), Noted(NO_DAEMON)),
        flag("tlsverify", Switch, Noted(NO_DAEMON)),
        flag("version", Switch, Honoured("`builder version`")).short('v'),
    ],
};
