//! The flags of `buildah bud`, which `podman build` has as well, and those in front of a subcommand.

use super::flag::Does::{As, Honoured, Noted, Refused, Unless};
use super::flag::Takes::{List, Optional, Switch, SwitchOn, Value};
use super::flag::{Tool, flag, same};

const CONFINED: &str =
    "steps are confined as well as this machine allows; `builder doctor` says how";
const NAMES: &str = "steps use the names of this machine: what /etc/resolv.conf and /etc/hosts say";
const SBOM: &str = "no image is scanned while it is built: scan the result";
const MACHINE_STORE: &str =
    "the state directory is the store; `--root` of `builder` or BUILDER_ROOT says where";
const FRESH: &str = "what a step leaves behind is in its layer or nowhere";

pub(super) static BUD: Tool = Tool {
    name: "bud",
    title: "`buildah bud`, `buildah build`, `podman build`",
    variables: None,
    flags: &[
        same("add-host", List("HOST:IP")),
        flag(
            "all-platforms",
            Switch,
            Refused("`--platform A,B` names those that are wanted"),
        ),
        same("annotation", Value("KEY=VALUE")),
        flag(
            "arch",
            Value("ARCH"),
            Honoured("`--platform OS/ARCH/VARIANT`, put together"),
        ),
        flag(
            "os",
            Value("OS"),
            Honoured("`--platform OS/ARCH/VARIANT`, put together"),
        ),
        flag(
            "variant",
            Value("VARIANT"),
            Honoured("`--platform OS/ARCH/VARIANT`, put together"),
        ),
        same("platform", List("PLATFORM")),
        same("authfile", Value("FILE")),
        same("build-arg", Value("NAME[=VALUE]")),
        same("build-arg-file", Value("FILE")),
        flag(
            "build-context",
            Value("NAME=VALUE"),
            Honoured(
                "`--build-context`; `container-image://` and `docker://` are `docker-image://`",
            ),
        ),
        flag(
            "cache-from",
            Value("REPOSITORY"),
            Honoured("`--cache-from type=registry,ref=REPOSITORY`"),
        ),
        flag(
            "cache-to",
            Value("REPOSITORY"),
            Honoured("`--cache-to type=registry,ref=REPOSITORY,mode=max`"),
        ),
        flag(
            "cache-ttl",
            Value("DURATION"),
            Honoured(
                "0: `--no-cache`; otherwise noted: entries do not age by themselves, `builder cache prune --older-than DURATION` removes them",
            ),
        ),
        flag(
            "cap-add",
            List("CAPABILITY"),
            Refused("`RUN --security=insecure` with `--allow security.insecure`"),
        ),
        flag(
            "cap-drop",
            List("CAPABILITY"),
            Refused("`--require-isolation strict` keeps steps from more"),
        ),
        same("cert-dir", Value("DIR")),
        same("cgroup-parent", Value("GROUP")),
        flag("cgroupns", Value("HOW"), Noted(CONFINED)),
        flag(
            "compat-volumes",
            Switch,
            Refused("what RUN writes below a VOLUME is kept: put it elsewhere if it should not be"),
        ),
        flag("compress", Switch, Noted("the context is sent nowhere")),
        flag(
            "compression-format",
            Value("FORMAT"),
            Honoured("`compression=` of the output; `zstd:chunked` is refused"),
        ),
        flag(
            "compression-level",
            Value("N"),
            Honoured("`compression-level=` of the output"),
        ),
        flag(
            "force-compression",
            Switch,
            Noted("layers that this build makes always have the compression that is asked for"),
        ),
        flag(
            "disable-compression",
            SwitchOn,
            Noted("layers are compressed once, while steps go on"),
        )
        .short('D'),
        flag(
            "cpp-flag",
            Value("FLAG"),
            Refused("`cpp -E FILE.in | builder build -f - …`"),
        ),
        same("cpu-period", Value("MICROSECONDS")),
        same("cpu-quota", Value("MICROSECONDS")),
        same("cpu-shares", Value("N")).short('c'),
        same("cpuset-cpus", Value("LIST")),
        same("cpuset-mems", Value("LIST")),
        flag(
            "created-annotation",
            SwitchOn,
            Noted("no annotation says when; the config of the image does"),
        ),
        flag(
            "creds",
            Value("USER:PASSWORD"),
            Refused(
                "`login` before it, or BUILDER_REGISTRY, BUILDER_REGISTRY_USER and BUILDER_REGISTRY_PASSWORD: an account is for the one registry that is named",
            ),
        ),
        flag(
            "cw",
            Value("OPTIONS"),
            Refused("there are no confidential workloads"),
        ),
        flag(
            "decryption-key",
            List("KEY"),
            Refused("layers that are encrypted cannot be read"),
        ),
        flag(
            "device",
            Value("DEVICE"),
            Refused("`RUN --device=NAME` with `--allow device=NAME`"),
        ),
        flag(
            "disable-content-trust",
            Switch,
            Noted("there is no content trust of Docker's kind"),
        ),
        flag("dns", List("ADDRESS"), Refused(NAMES)),
        flag("dns-option", List("OPTION"), Refused(NAMES)),
        flag("dns-search", List("DOMAIN"), Refused(NAMES)),
        flag(
            "env",
            Value("NAME[=VALUE]"),
            Refused("`ENV` in the Dockerfile, or `ARG` and `--build-arg`"),
        ),
        flag(
            "file",
            List("FILE"),
            Honoured("`--file`; a second one and `*.in` are refused"),
        )
        .short('f'),
        flag("force-rm", Switch, Noted(FRESH)),
        flag("rm", SwitchOn, Noted(FRESH)),
        flag(
            "format",
            Value("FORMAT"),
            Honoured(
                "`docker`: `oci-mediatypes=false` of the output; `oci` is what is made anyway",
            ),
        ),
        flag(
            "from",
            Value("IMAGE"),
            Refused("`--build-context NAME=docker-image://IMAGE`, where NAME is what FROM says"),
        ),
        flag(
            "group-add",
            List("GROUP"),
            Refused("`USER` in the Dockerfile, and `usermod -aG` before it"),
        ),
        flag(
            "hooks-dir",
            Value("DIR"),
            Refused("no runtime is started, so nothing has hooks"),
        ),
        flag(
            "http-proxy",
            SwitchOn,
            Noted(
                "proxies of the environment are for the builder itself; steps get those that `--build-arg HTTP_PROXY` names",
            ),
        ),
        flag(
            "identity-label",
            SwitchOn,
            Noted("no label says what built the image"),
        ),
        same("ignorefile", Value("FILE")),
        same("iidfile", Value("FILE")),
        flag(
            "iidfile-raw",
            Value("FILE"),
            Refused("`--iidfile FILE`, and `sed -i s/^sha256:// FILE`"),
        ),
        flag(
            "inherit-annotations",
            SwitchOn,
            Noted("an image has the annotations that it is given, and none of its base"),
        ),
        flag(
            "inherit-labels",
            SwitchOn,
            Refused("`LABEL NAME=` empties one"),
        ),
        flag("ipc", Value("HOW"), Noted(CONFINED)),
        flag("isolation", Value("KIND"), Noted(CONFINED)),
        flag(
            "jobs",
            Value("N"),
            Honoured("`--jobs N`; 0 is as many as the machine can take"),
        ),
        same("label", Value("KEY=VALUE")),
        flag(
            "layer-label",
            Value("KEY=VALUE"),
            Noted("there are no intermediate images"),
        ),
        flag(
            "layers",
            SwitchOn,
            Noted("each step is a layer and is cached: `--no-cache` does not use what is there"),
        ),
        flag(
            "log-rusage",
            Switch,
            Noted("each step says how long it took"),
        ),
        flag(
            "rusage-logfile",
            Value("FILE"),
            Noted("each step says how long it took"),
        ),
        flag(
            "logfile",
            Value("FILE"),
            Honoured("what goes to standard error goes to FILE"),
        ),
        flag(
            "loglevel",
            Value("N"),
            Noted("`--progress` of `builder build` says how much is shown"),
        ),
        flag(
            "logsplit",
            Switch,
            Refused("lines of several platforms name them; `--logfile` has them all"),
        ),
        same("manifest", Value("REF")),
        same("memory", Value("BYTES")).short('m'),
        same("memory-swap", Value("BYTES")),
        same("metadata-file", Value("FILE")),
        flag(
            "mount",
            Value("SPEC"),
            Refused("`RUN --mount=SPEC` in the Dockerfile"),
        ),
        flag(
            "network",
            Value("MODE"),
            Honoured("`--network`; `private`, `bridge`, `slirp4netns` and `pasta` are the default"),
        )
        .aliases(&["net"]),
        same("no-cache", Switch),
        flag(
            "no-hostname",
            Switch,
            Noted("/etc/hostname and /etc/hosts of a step are in no layer"),
        ),
        flag(
            "no-hosts",
            Switch,
            Noted("/etc/hostname and /etc/hosts of a step are in no layer"),
        ),
        flag(
            "omit-history",
            Switch,
            Refused(
                "the history says what made each layer, and is part of what the cache is made of",
            ),
        ),
        flag(
            "os-feature",
            Value("FEATURE"),
            Refused("only Linux images are made"),
        ),
        flag(
            "os-version",
            Value("VERSION"),
            Refused("only Linux images are made"),
        ),
        same("output", Value("SPEC")).short('o'),
        flag("pid", Value("HOW"), Noted(CONFINED)),
        flag("uts", Value("HOW"), Noted(CONFINED)),
        flag(
            "pull",
            Optional("POLICY", "always"),
            Honoured(
                "always, newer: `--pull`; missing: as it is here; never is refused: name what must not be asked in registries.conf (`blocked`)",
            ),
        ),
        flag("pull-always", Switch, As("pull")),
        flag(
            "pull-never",
            Switch,
            Refused(
                "`blocked = true` in registries.conf for the registries that must not be asked",
            ),
        ),
        same("quiet", Switch).short('q'),
        same("retry", Value("N")),
        same("retry-delay", Value("DURATION")),
        same("rewrite-timestamp", Switch),
        flag(
            "runtime",
            Value("PATH"),
            Noted("no runtime is started: the builder confines steps by itself"),
        ),
        flag(
            "runtime-flag",
            List("FLAG"),
            Noted("no runtime is started: the builder confines steps by itself"),
        ),
        flag(
            "save-stages",
            Switch,
            Refused("`--target STAGE -t NAME` keeps a stage"),
        ),
        flag(
            "stage-labels",
            Switch,
            Refused("`--target STAGE -t NAME --label …` keeps a stage"),
        ),
        flag("sbom", Value("PRESET"), Refused(SBOM)),
        flag("sbom-image-output", Value("PATH"), Refused(SBOM)),
        flag("sbom-image-purl-output", Value("PATH"), Refused(SBOM)),
        flag("sbom-merge-strategy", Value("STRATEGY"), Refused(SBOM)),
        flag("sbom-output", Value("FILE"), Refused(SBOM)),
        flag("sbom-purl-output", Value("FILE"), Refused(SBOM)),
        flag("sbom-scanner-command", Value("COMMAND"), Refused(SBOM)),
        flag("sbom-scanner-image", Value("IMAGE"), Refused(SBOM)),
        same("secret", Value("SPEC")),
        flag("security-opt", Value("OPTION"), Noted(CONFINED)),
        same("shm-size", Value("BYTES")),
        flag(
            "sign-by",
            Value("KEY"),
            Refused("sign what was pushed, by the digest of `--digest-file`"),
        ),
        flag(
            "signature-policy",
            Value("FILE"),
            Refused("signatures of bases are not checked: `FROM NAME@sha256:…` pins one"),
        ),
        flag(
            "skip-unused-stages",
            SwitchOn,
            Noted("stages that the target does not need are never built"),
        ),
        same("source-date-epoch", Value("SECONDS")),
        flag(
            "source-policy-file",
            Value("FILE"),
            Refused("`FROM NAME@sha256:…` pins a base, `ADD --checksum=…` a download"),
        ),
        flag(
            "squash",
            Switch,
            Refused("a last stage of `FROM BASE` and `COPY --from=STAGE / /` is one layer"),
        ),
        same("ssh", Value("SPEC")),
        flag(
            "stdin",
            Switch,
            Refused("steps read nothing from outside: `RUN --mount=type=secret` gives them a file"),
        ),
        same("tag", Value("REF")).short('t'),
        same("target", Value("STAGE")),
        flag(
            "timestamp",
            Value("SECONDS"),
            Honoured("`--source-date-epoch SECONDS --rewrite-timestamp`"),
        ),
        flag(
            "tls-verify",
            SwitchOn,
            Honoured("`--insecure-registry '*'`"),
        ),
        same("ulimit", Value("NAME=SOFT[:HARD]")),
        flag(
            "unsetannotation",
            List("KEY"),
            Noted("an image has the annotations that it is given, and none of its base"),
        ),
        flag(
            "unsetenv",
            List("NAME"),
            Refused("`ENV NAME=` empties one; a stage `FROM scratch` has none of its base"),
        ),
        flag(
            "unsetlabel",
            List("KEY"),
            Refused("`LABEL KEY=` empties one"),
        ),
        flag("userns", Value("HOW"), Noted(CONFINED)),
        flag("userns-gid-map", List("MAP"), Noted(CONFINED)),
        flag("userns-gid-map-group", Value("NAME"), Noted(CONFINED)),
        flag("userns-uid-map", List("MAP"), Noted(CONFINED)),
        flag("userns-uid-map-user", Value("NAME"), Noted(CONFINED)),
        flag(
            "volume",
            Value("HOST:PATH[:OPTIONS]"),
            Refused(
                "`--build-context NAME=HOST` and `RUN --mount=type=bind,from=NAME,target=PATH`",
            ),
        )
        .short('v'),
    ],
};

pub(super) static GLOBAL: Tool = Tool {
    name: "buildah",
    title: "`buildah` and `podman`, in front of a subcommand",
    variables: None,
    flags: &[
        flag(
            "cgroup-manager",
            Value("MANAGER"),
            Noted("`--cgroup-parent` of `build` says where steps are limited"),
        ),
        flag(
            "conmon",
            Value("PATH"),
            Noted("nothing runs beside the build"),
        ),
        flag(
            "default-mounts-file",
            Value("FILE"),
            Refused("`RUN --mount` gives a step what it needs"),
        ),
        flag(
            "events-backend",
            Value("BACKEND"),
            Noted("there are no events but those of `--progress rawjson`"),
        ),
        flag("imagestore", Value("DIR"), Noted(MACHINE_STORE)),
        flag(
            "log-level",
            Value("LEVEL"),
            Noted("`--progress` of `build` says how much is shown"),
        ),
        flag(
            "debug",
            Switch,
            Noted("`--progress` of `build` says how much is shown"),
        ),
        flag(
            "module",
            Value("FILE"),
            Refused("containers.conf is not read"),
        ),
        flag(
            "registries-conf",
            Value("FILE"),
            Refused("the variable CONTAINERS_REGISTRIES_CONF names it"),
        ),
        flag(
            "registries-conf-dir",
            Value("DIR"),
            Refused("the variable CONTAINERS_REGISTRIES_CONF_DIR names it"),
        ),
        flag("remote", Switch, Refused("nothing is built elsewhere")).short('r'),
        flag("url", Value("URL"), Refused("nothing is built elsewhere")),
        flag(
            "connection",
            Value("NAME"),
            Refused("nothing is built elsewhere"),
        )
        .short('c'),
        flag("root", Value("DIR"), Noted(MACHINE_STORE)),
        flag("runroot", Value("DIR"), Noted(MACHINE_STORE)),
        flag(
            "runtime",
            Value("PATH"),
            Noted("no runtime is started: the builder confines steps by itself"),
        ),
        flag(
            "runtime-flag",
            List("FLAG"),
            Noted("no runtime is started: the builder confines steps by itself"),
        ),
        flag(
            "short-name-alias-conf",
            Value("FILE"),
            Refused("`[aliases]` of registries.conf"),
        ),
        flag(
            "storage-driver",
            Value("DRIVER"),
            Unless(
                &["overlay"],
                &Noted(
                    "overlay is taken where it works, else directories; `--storage-driver` of `builder build` says which",
                ),
            ),
        ),
        flag(
            "storage-opt",
            Value("OPTION"),
            Noted(
                "overlay is taken where it works, else directories; `--storage-driver` of `builder build` says which",
            ),
        ),
        flag("tmpdir", Value("DIR"), Noted(MACHINE_STORE)),
        flag("transient-store", Switch, Noted(MACHINE_STORE)),
        flag(
            "syslog",
            Switch,
            Noted("what there is to say goes to standard error"),
        ),
        flag("userns-gid-map", List("MAP"), Noted(CONFINED)),
        flag("userns-uid-map", List("MAP"), Noted(CONFINED)),
        flag("volumepath", Value("DIR"), Noted(MACHINE_STORE)),
        flag("version", Switch, Honoured("`builder version`")).short('v'),
    ],
};
