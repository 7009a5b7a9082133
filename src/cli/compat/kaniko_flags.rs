//! The flags of kaniko's executor and warmer.

use super::flag::Does::{As, Honoured, Noted, Refused, Unless};
use super::flag::Takes::{Switch, SwitchOn, Value};
use super::flag::{Tool, flag, same};

const PULL_INSECURE: &str = "`--insecure-registry HOST` says which registry is meant: the others, and the ones that are pushed to, stay checked";
const OBJECT_STORES: &str =
    "s3:// and gs:// are refused: `aws s3 cp s3://… - | executor --context tar://stdin …`";

pub(super) static EXECUTOR: Tool = Tool {
    name: "executor",
    title: "kaniko: `executor`",
    variables: Some("KANIKO_"),
    flags: &[
        flag(
            "context",
            Value("CONTEXT"),
            Honoured(
                "the context. A directory (also `dir://`), `tar://FILE`, `tar://stdin`, `git://HOST/PATH[#REF[#COMMIT]]`, `https://…`; `/workspace/` where it is not given. s3:// and gs:// are refused: a pipe and `tar://stdin` do the same",
            ),
        )
        .short('c'),
        flag(
            "context-sub-path",
            Value("PATH"),
            Honoured("that directory of the context; not of archives"),
        ),
        flag(
            "dockerfile",
            Value("FILE"),
            Honoured("`--file`; looked for in the working directory, then in the context"),
        )
        .short('f'),
        flag("bucket", Value("NAME"), Refused(OBJECT_STORES)).short('b'),
        flag(
            "git",
            Value("OPTIONS"),
            Honoured("`branch=` and `recurse-submodules=` of a git context; `single-branch` is always so"),
        ),
        flag(
            "destination",
            Value("REF"),
            Honoured("`--tag REF`, and `--push` unless there is `--no-push`"),
        )
        .short('d'),
        flag(
            "no-push",
            Switch,
            Honoured("no `--push`; the image is kept in the state directory"),
        ),
        flag("no-push-cache", Switch, Honoured("`--cache-from` alone")),
        flag(
            "tar-path",
            Value("FILE"),
            Honoured("`--output type=docker,dest=FILE`"),
        )
        .aliases(&["tarPath"]),
        flag(
            "oci-layout-path",
            Value("DIR"),
            Honoured("`--output type=oci,dest=DIR,tar=false`"),
        ),
        flag(
            "image-format",
            Value("FORMAT"),
            Honoured("`docker`: `oci-mediatypes=false` of the output; `oci` is what is made anyway"),
        ),
        flag(
            "push-retry",
            Value("N"),
            Honoured("`--retry N`; never fewer than the usual four"),
        ),
        flag(
            "image-download-retry",
            Value("N"),
            Honoured("`--retry N`; never fewer than the usual four"),
        ),
        flag(
            "image-fs-extract-retry",
            Value("N"),
            Noted("unpacking does not fail for a moment; fetching is tried again, see `--retry`"),
        ),
        flag(
            "push-ignore-immutable-tag-errors",
            Switch,
            As("ignore-immutable-tags"),
        ),
        flag(
            "skip-push-permission-check",
            Switch,
            Noted("nothing is asked before the push itself"),
        ),
        same("build-arg", Value("NAME[=VALUE]")),
        same("target", Value("STAGE")),
        same("label", Value("KEY=VALUE")),
        flag("annotation", Value("KEY=VALUE"), Honoured("`--annotation`")),
        same("secret", Value("SPEC")),
        flag("custom-platform", Value("PLATFORM"), As("platform")).aliases(&["customPlatform"]),
        flag(
            "compression",
            Value("FORMAT"),
            Honoured("`compression=` of every output"),
        ),
        flag(
            "compression-level",
            Value("N"),
            Honoured("`compression-level=` of every output"),
        ),
        flag(
            "single-snapshot",
            Switch,
            Noted(
                "each step is a layer, and costs no scan; a file that a later step removes stays in the layer of an earlier one",
            ),
        ),
        flag(
            "reproducible",
            Switch,
            Honoured("`--source-date-epoch 0 --rewrite-timestamp`"),
        ),
        flag(
            "ignore-path",
            Value("PATH"),
            Noted("steps have a root of their own, and nothing of this machine is in it"),
        ),
        flag(
            "ignore-var-run",
            SwitchOn,
            Noted("steps have a root of their own, and what they write to /var/run is kept anyway"),
        )
        .aliases(&["whitelist-var-run"]),
        flag(
            "cache",
            Switch,
            Honoured("`--cache REPOSITORY`, the one of `--cache-repo`, else `cache` below the first destination"),
        ),
        flag(
            "cache-repo",
            Value("REPOSITORY"),
            Honoured("see `--cache`; `oci:DIR` is a directory"),
        ),
        flag(
            "cache-dir",
            Value("DIR"),
            Noted("bases are kept in the state directory: put that on the volume, with BUILDER_ROOT"),
        ),
        flag(
            "cache-ttl",
            Value("DURATION"),
            Noted("entries do not age by themselves: `builder cache prune --remote REPOSITORY --older-than DURATION`"),
        ),
        flag("cache-copy-layers", Switch, Noted("every step is cached")),
        flag("cache-run-layers", SwitchOn, Noted("every step is cached")),
        flag(
            "compressed-caching",
            SwitchOn,
            Noted("layers are compressed as streams, which takes no memory to speak of"),
        ),
        flag(
            "insecure",
            Switch,
            Honoured("`--insecure-registry` for the hosts of the destinations"),
        ),
        flag(
            "skip-tls-verify",
            Switch,
            Honoured("`--insecure-registry` for the hosts of the destinations"),
        ),
        flag("insecure-pull", Switch, Refused(PULL_INSECURE)),
        flag("skip-tls-verify-pull", Switch, Refused(PULL_INSECURE)),
        same("insecure-registry", Value("HOST")),
        flag(
            "skip-tls-verify-registry",
            Value("HOST"),
            As("insecure-registry"),
        ),
        same("registry-certificate", Value("HOST=FILE")),
        same("registry-client-cert", Value("HOST=CERT,KEY")),
        flag(
            "registry-map",
            Value("HOST=URL[;…]"),
            Honoured("`--registry-mirror HOST=URL`"),
        ),
        flag(
            "registry-mirror",
            Value("URL"),
            Honoured("`--registry-mirror docker.io=URL`"),
        ),
        flag(
            "skip-default-registry-fallback",
            Switch,
            Refused("`blocked = true` in registries.conf, whose mirrors are still asked (docs/registries.md)"),
        ),
        flag(
            "credential-helpers",
            Value("NAME"),
            Noted("the clouds' logins are looked for where their variables and files say so"),
        ),
        same("digest-file", Value("FILE")),
        same("image-name-with-digest-file", Value("FILE")),
        same("image-name-tag-with-digest-file", Value("FILE")),
        flag(
            "dryrun",
            Switch,
            Refused("`builder plan` says what a build would do"),
        ),
        flag(
            "verbosity",
            Value("LEVEL"),
            Noted("`--progress` of `builder build` says how much is shown"),
        )
        .short('v'),
        flag(
            "log-format",
            Value("FORMAT"),
            Honoured("`json`: `--progress rawjson`; `text`: `--progress plain`; `color`: the usual"),
        ),
        flag(
            "log-timestamp",
            Switch,
            Noted("each step says how long it took; CI systems put times before lines"),
        ),
        flag(
            "snapshot-mode",
            Value("MODE"),
            Noted("changes are known without comparing the whole file system"),
        )
        .aliases(&["snapshotMode"]),
        flag(
            "use-new-run",
            Switch,
            Noted("changes are known without comparing the whole file system"),
        ),
        flag("cleanup", Switch, Noted("the files of this container are not touched")),
        flag("pre-cleanup", Switch, Noted("the files of this container are not touched")),
        flag(
            "preserve-context",
            Switch,
            Noted("the files of this container are not touched"),
        ),
        flag(
            "materialize",
            Switch,
            Noted("the files of this container are not touched: `--output type=local,dest=DIR` gives those of the image"),
        ),
        flag("force", Switch, Noted("it is safe to build outside of a container")),
        flag("kaniko-dir", Value("DIR"), Honoured("credentials are looked for in DIR/.docker/config.json, where nothing else says where; nothing else is kept there")),
        flag("force-build-metadata", Switch, Noted("it is always so")),
        flag(
            "skip-unused-stages",
            SwitchOn,
            Noted("stages that the target does not need are never built"),
        ),
    ],
};

pub(super) static WARMER: Tool = Tool {
    name: "warmer",
    title: "kaniko: `warmer`",
    variables: None,
    flags: &[
        flag("image", Value("REF"), Honoured("`builder pull REF`")).short('i'),
        flag(
            "dockerfile",
            Value("FILE"),
            Honoured("`builder pull --file FILE`"),
        )
        .short('d'),
        flag(
            "build-arg",
            Value("NAME[=VALUE]"),
            Honoured("the same; noted where there is no `--dockerfile`"),
        ),
        flag("custom-platform", Value("PLATFORM"), As("platform")).aliases(&["customPlatform"]),
        flag(
            "cache-dir",
            Value("DIR"),
            Noted(
                "bases are kept in the state directory: put that on the volume, with BUILDER_ROOT",
            ),
        )
        .short('c'),
        flag("force", Switch, Noted("the registry is asked each time")).short('f'),
        flag(
            "cache-ttl",
            Value("DURATION"),
            Noted("the registry is asked each time"),
        ),
        flag(
            "insecure-pull",
            Switch,
            Honoured(
                "`--insecure-registry` for the hosts of the images; with `--dockerfile` refused",
            ),
        ),
        flag(
            "skip-tls-verify-pull",
            Switch,
            Honoured(
                "`--insecure-registry` for the hosts of the images; with `--dockerfile` refused",
            ),
        ),
        same("insecure-registry", Value("HOST")),
        flag(
            "skip-tls-verify-registry",
            Value("HOST"),
            As("insecure-registry"),
        ),
        same("registry-certificate", Value("HOST=FILE")),
        same("registry-client-cert", Value("HOST=CERT,KEY")),
        flag(
            "registry-map",
            Value("HOST=URL[;…]"),
            Honoured("`--registry-mirror HOST=URL`"),
        ),
        flag(
            "registry-mirror",
            Value("URL"),
            Honoured("`--registry-mirror docker.io=URL`"),
        ),
        flag(
            "skip-default-registry-fallback",
            Switch,
            Refused(
                "`blocked = true` in registries.conf, whose mirrors are still asked (docs/registries.md)",
            ),
        ),
        flag(
            "image-download-retry",
            Value("N"),
            Honoured("`--retry N`; never fewer than the usual four"),
        ),
        flag(
            "verbosity",
            Value("LEVEL"),
            Noted("progress is shown as everywhere"),
        )
        .short('v'),
        flag(
            "log-format",
            Value("FORMAT"),
            Unless(
                &["text", "color"],
                &Noted("progress is shown as everywhere"),
            ),
        ),
        flag(
            "log-timestamp",
            Switch,
            Noted("CI systems put times before lines"),
        ),
    ],
};
