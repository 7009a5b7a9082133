//! The flags of what docker, podman and buildah do with images that are there. Each table has those of all three.

use super::flag::Does::{As, Honoured, Noted, Refused, Unless};
use super::flag::Takes::{List, Switch, SwitchOn, Value};
use super::flag::{Flag, Tool, flag, same};

const TRUST: &str = "there is no content trust of Docker's kind: `NAME@sha256:…` pins an image";
const SIGNATURES: &str = "sign what was pushed, by the digest of `--digest-file`";
const ENCRYPTION: &str = "layers are not encrypted";
const AS_BUILT: &str =
    "an image is pushed as it was built: `builder build --output type=image,…` says how";
const INSECURE: &str = "`--insecure-registry` for the host of the image";
const ONE_TAG: &str = "name each image";

const AUTHFILE: Flag = same("authfile", Value("FILE"));
const CERT_DIR: Flag = same("cert-dir", Value("DIR"));
const CREDS: Flag = same("creds", Value("USER:PASSWORD"));
const TLS_VERIFY: Flag = flag("tls-verify", SwitchOn, Honoured(INSECURE));
const QUIET: Flag = same("quiet", Switch).short('q');
const RETRY: Flag = same("retry", Value("N"));
const RETRY_DELAY: Flag = same("retry-delay", Value("DURATION"));
const CONTENT_TRUST: Flag = flag("disable-content-trust", SwitchOn, Refused(TRUST));
const SIGNATURE_POLICY: Flag = flag(
    "signature-policy",
    Value("FILE"),
    Refused("signatures are not checked: `NAME@sha256:…` pins an image"),
);

pub(super) static PUSH: Tool = Tool {
    name: "push",
    title: "`push`",
    variables: None,
    flags: &[
        AUTHFILE,
        CERT_DIR,
        CREDS,
        TLS_VERIFY,
        QUIET,
        RETRY,
        RETRY_DELAY,
        CONTENT_TRUST,
        SIGNATURE_POLICY,
        flag(
            "all",
            Switch,
            Noted("an index is pushed with all that it lists"),
        ),
        flag("all-tags", Switch, Refused(ONE_TAG)).short('a'),
        flag("digestfile", Value("FILE"), As("digest-file")),
        flag(
            "platform",
            Value("PLATFORM"),
            Refused(
                "an index is pushed with all that it lists: `builder manifest create` makes another",
            ),
        ),
        flag("format", Value("FORMAT"), Refused(AS_BUILT)).short('f'),
        flag("compress", Switch, Refused(AS_BUILT)),
        flag("compression-format", Value("FORMAT"), Refused(AS_BUILT)),
        flag("compression-level", Value("N"), Refused(AS_BUILT)),
        flag("add-compression", Value("FORMAT"), Refused(AS_BUILT)),
        flag("force-compression", Switch, Refused(AS_BUILT)),
        flag("disable-compression", Switch, Refused(AS_BUILT)).short('D'),
        flag("encryption-key", Value("KEY"), Refused(ENCRYPTION)),
        flag("encrypt-layer", Value("N"), Refused(ENCRYPTION)),
        flag(
            "remove-signatures",
            Switch,
            Noted("signatures are not part of an image"),
        ),
        flag("sign-by", Value("KEY"), Refused(SIGNATURES)),
        flag("sign-by-sigstore", Value("FILE"), Refused(SIGNATURES)),
        flag(
            "sign-by-sigstore-private-key",
            Value("FILE"),
            Refused(SIGNATURES),
        ),
        flag("sign-passphrase-file", Value("FILE"), Refused(SIGNATURES)),
        flag("insecure", Switch, Honoured(INSECURE)),
        flag(
            "purge",
            Switch,
            Noted("the index stays in the state directory until `rmi`"),
        )
        .short('p'),
        flag(
            "rm",
            Switch,
            Noted("the index stays in the state directory until `rmi`"),
        ),
    ],
};

pub(super) static PULL: Tool = Tool {
    name: "pull",
    title: "`pull`",
    variables: None,
    flags: &[
        AUTHFILE,
        CERT_DIR,
        CREDS,
        TLS_VERIFY,
        QUIET,
        RETRY,
        RETRY_DELAY,
        CONTENT_TRUST,
        SIGNATURE_POLICY,
        flag("all-tags", Switch, Refused(ONE_TAG)).short('a'),
        same("platform", Value("PLATFORM")),
        flag("arch", Value("ARCH"), Refused("`--platform OS/ARCH`")),
        flag("os", Value("OS"), Refused("`--platform OS/ARCH`")),
        flag(
            "variant",
            Value("VARIANT"),
            Refused("`--platform OS/ARCH/VARIANT`"),
        ),
        flag(
            "policy",
            Value("POLICY"),
            Unless(
                &["always", "newer"],
                &Refused("`builder build` pulls what is missing"),
            ),
        ),
        flag(
            "decryption-key",
            List("KEY"),
            Refused("layers that are encrypted cannot be read"),
        ),
        flag(
            "remove-signatures",
            Switch,
            Noted("signatures are not part of an image"),
        ),
    ],
};

pub(super) static LOGIN: Tool = Tool {
    name: "login",
    title: "`login`",
    variables: None,
    flags: &[
        AUTHFILE,
        CERT_DIR,
        TLS_VERIFY,
        same("username", Value("NAME")).short('u'),
        same("password", Value("PASSWORD")).short('p'),
        same("password-stdin", Switch),
        flag("compat-auth-file", Value("FILE"), As("authfile")),
        flag(
            "get-login",
            Switch,
            Refused("the file of credentials says who is logged in"),
        ),
        flag(
            "secret",
            Value("NAME"),
            Refused("`--password-stdin` takes it from a pipe"),
        ),
        flag(
            "token",
            Value("TOKEN"),
            Refused("`--password-stdin` takes it from a pipe"),
        ),
        flag("verbose", Switch, Noted("what was done is said anyway")).short('v'),
    ],
};

pub(super) static LOGOUT: Tool = Tool {
    name: "logout",
    title: "`logout`",
    variables: None,
    flags: &[
        AUTHFILE,
        flag("compat-auth-file", Value("FILE"), As("authfile")),
        flag("all", Switch, Refused("name each registry")).short('a'),
    ],
};

pub(super) static IMAGES: Tool = Tool {
    name: "images",
    title: "`images`",
    variables: None,
    flags: &[
        QUIET,
        same("no-trunc", Switch),
        same("json", Switch),
        flag("all", Switch, Noted("there are no intermediate images")).short('a'),
        flag("digests", Switch, Noted("digests are shown anyway")),
        flag(
            "filter",
            Value("FILTER"),
            Refused("`builder images --json | jq …`"),
        )
        .short('f'),
        flag(
            "format",
            Value("TEMPLATE"),
            Refused("`builder images --json | jq …`"),
        ),
        flag(
            "noheading",
            Switch,
            Refused("`builder images --json | jq …`"),
        )
        .short('n'),
    ],
};

pub(super) static TAG: Tool = Tool {
    name: "tag",
    title: "`tag`",
    variables: None,
    flags: &[],
};

pub(super) static RMI: Tool = Tool {
    name: "rmi",
    title: "`rmi`",
    variables: None,
    flags: &[
        flag("force", Switch, Noted("nothing holds an image")).short('f'),
        flag(
            "no-prune",
            Switch,
            Noted("what nothing needs goes with `prune`, and not before"),
        ),
        flag(
            "all",
            Switch,
            Refused("`builder images -q | xargs builder rmi`"),
        )
        .short('a'),
        flag("prune", Switch, Refused("`builder prune`")).short('p'),
        flag("ignore", Switch, Refused("`builder rmi NAME || true`")).short('i'),
    ],
};

pub(super) static SAVE: Tool = Tool {
    name: "save",
    title: "`save`",
    variables: None,
    flags: &[
        same("output", Value("FILE")).short('o'),
        flag(
            "format",
            Value("FORMAT"),
            Honoured("docker-archive: `docker`; oci-archive: `oci`; oci-dir: `oci-dir`"),
        ),
        flag(
            "platform",
            Value("PLATFORM"),
            Refused("an image is saved with all its platforms"),
        ),
        flag("compress", Switch, Refused(AS_BUILT)),
        flag("uncompressed", Switch, Refused(AS_BUILT)),
        flag(
            "multi-image-archive",
            Switch,
            Refused("`--format oci-dir` takes several images"),
        )
        .short('m'),
        flag("quiet", Switch, Noted("nothing is shown anyway")).short('q'),
    ],
};

pub(super) static MANIFEST: Tool = Tool {
    name: "manifest",
    title: "`manifest create`, `add`, `inspect`",
    variables: None,
    flags: &[
        AUTHFILE,
        CERT_DIR,
        CREDS,
        TLS_VERIFY,
        same("annotation", Value("KEY=VALUE")),
        flag("insecure", Switch, Honoured(INSECURE)),
        flag("all", Switch, Noted("of an index everything is listed")),
        flag(
            "amend",
            Switch,
            Noted(
                "the index is made of the images that are named; `builder manifest add` adds to it",
            ),
        )
        .short('a'),
        flag(
            "arch",
            Value("ARCH"),
            Refused("an image says itself what it runs on"),
        ),
        flag(
            "os",
            Value("OS"),
            Refused("an image says itself what it runs on"),
        ),
        flag(
            "variant",
            Value("VARIANT"),
            Refused("an image says itself what it runs on"),
        ),
        flag(
            "os-version",
            Value("VERSION"),
            Refused("an image says itself what it runs on"),
        ),
        flag(
            "verbose",
            Switch,
            Refused("`builder inspect NAME` shows manifests and configs"),
        )
        .short('v'),
    ],
};

pub(super) static IMAGETOOLS: Tool = Tool {
    name: "docker buildx imagetools",
    title: "`docker buildx imagetools create`, `inspect`",
    variables: None,
    flags: &[
        flag("tag", Value("REF"), Honoured("`builder manifest create --push REF`, with `--append` `builder manifest append REF`")).short('t'),
        flag("append", Switch, Honoured("`builder manifest append REF`")),
        same("annotation", Value("KEY=VALUE")),
        flag("raw", Switch, Noted("the document is shown as it is anyway")),
        flag("dry-run", Switch, Refused("`builder manifest inspect` shows what there is")),
        flag("file", Value("FILE"), Refused("name the images")).short('f'),
        flag("format", Value("TEMPLATE"), Refused("`builder manifest inspect NAME | jq …`")),
        flag("platform", Value("PLATFORM"), Refused("name the images")),
        flag("prefer-index", SwitchOn, Refused("an index is made of what is named")),
        flag("progress", Value("MODE"), Noted("progress is shown as everywhere")),
        flag("builder", Value("NAME"), Noted("there is no builder to choose")),
    ],
};

pub(super) static PRUNE: Tool = Tool {
    name: "prune",
    title: "`prune` of `docker builder`, `docker buildx`, `docker image`",
    variables: None,
    flags: &[
        same("all", Switch).short('a'),
        same("force", Switch).short('f'),
        flag(
            "filter",
            Value("FILTER"),
            Honoured("`until=DURATION`: `--older-than DURATION`; others are refused"),
        ),
        flag("keep-storage", Value("BYTES"), As("keep")),
        flag("max-used-space", Value("BYTES"), As("keep")),
        flag("verbose", Switch, Noted("what went is said anyway")),
        flag(
            "builder",
            Value("NAME"),
            Noted("there is no builder to choose"),
        ),
    ],
};

/// Every table of this file.
#[cfg(test)]
pub(super) static ALL: [&Tool; 11] = [
    &PUSH,
    &PULL,
    &LOGIN,
    &LOGOUT,
    &IMAGES,
    &TAG,
    &RMI,
    &SAVE,
    &MANIFEST,
    &IMAGETOOLS,
    &PRUNE,
];
