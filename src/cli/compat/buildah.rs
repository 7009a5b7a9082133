//! `buildah bud` and `podman build`.

use crate::pipeline::Failure;

use super::super::usage;
use super::own::{Draft, refuse, spec};
use super::parse::Typed;

/// Variables of buildah that say what happens here by other means, or not at all.
const NOTED: [(&str, &str); 3] = [
    (
        "BUILDAH_ISOLATION",
        "steps are confined as well as this machine allows; BUILDER_ISOLATION forces one way",
    ),
    (
        "STORAGE_DRIVER",
        "overlay is taken where it works, else directories; BUILDER_STORAGE_DRIVER says which",
    ),
    (
        "BUILDAH_HISTORY",
        "the history always says what made each layer",
    ),
];

/// Writes the words of `builder build`. Returns the file that the log goes to.
pub(super) fn bud(typed: &Typed, draft: &mut Draft<'_>) -> Result<Option<String>, Failure> {
    match typed.words.as_slice() {
        [] => draft.own.word("."),
        [context] => draft.own.word(context),
        [_, second, ..] => {
            return Err(usage(format!(
                "there is one context, and `{second}` is a second one"
            )));
        }
    }
    file(typed, draft)?;
    platform(typed, draft)?;
    for text in typed.all("build-context") {
        let text = text
            .split_once('=')
            .map_or(text.to_owned(), |(name, value)| {
                let image = ["container-image://", "docker://"]
                    .iter()
                    .find_map(|scheme| value.strip_prefix(scheme));
                match image {
                    Some(image) => format!("{name}=docker-image://{image}"),
                    None => text.to_owned(),
                }
            });
        draft.own.flag("build-context", &text);
    }
    for repository in typed.all("cache-from") {
        let fields = [("ref", repository)];
        draft.own.flag("cache-from", &spec("registry", &fields));
    }
    for repository in typed.all("cache-to") {
        let fields = [("ref", repository), ("mode", "max")];
        draft.own.flag("cache-to", &spec("registry", &fields));
    }
    match typed.last("cache-ttl") {
        None => {}
        Some("0" | "0s") => draft.own.switch("no-cache"),
        Some(_) => draft.note(
            "--cache-ttl",
            "entries do not age by themselves: `builder cache prune --remote REPOSITORY --older-than DURATION`",
        ),
    }
    match typed.last("jobs") {
        None | Some("0") => {}
        Some(jobs) => draft.own.flag("jobs", jobs),
    }
    match typed.last("pull") {
        None | Some("missing" | "ifnotpresent" | "false" | "0") => {}
        Some("always" | "newer" | "ifnewer" | "true" | "1") => draft.own.switch("pull"),
        Some("never") => {
            return Err(refuse(
                "`bud --pull=never` is not supported",
                "`blocked = true` in registries.conf for the registries that must not be asked",
            ));
        }
        Some(other) => {
            return Err(usage(format!(
                "`--pull={other}` is none of always, missing, newer, never"
            )));
        }
    }
    if let Some(mode) = typed.last("network") {
        let name = mode.split(':').next().unwrap_or_default();
        match name {
            "" | "default" | "private" | "bridge" | "slirp4netns" | "pasta" => {}
            "host" | "none" => draft.own.flag("network", name),
            _ => {
                return Err(refuse(
                    format!("`bud --network {mode}` is not supported"),
                    "networks are the default, `host` and `none`",
                ));
            }
        }
    }
    if let Some(seconds) = typed.last("timestamp") {
        draft.own.flag("source-date-epoch", seconds);
        draft.own.switch("rewrite-timestamp");
    }
    if typed.last("tls-verify") == Some("false") {
        draft.own.flag("insecure-registry", "*");
    }
    writing(typed, draft)?;
    for (name, why) in NOTED {
        if draft.variable(name).is_some() {
            draft.note(name, why);
        }
    }
    if draft.variable("BUILDAH_LAYERS").as_deref() == Some("false") {
        draft.note("BUILDAH_LAYERS", "each step is a layer and is cached");
    }
    Ok(typed.last("logfile").map(str::to_owned))
}

fn file(typed: &Typed, draft: &mut Draft<'_>) -> Result<(), Failure> {
    match typed.all("file").as_slice() {
        [] => Ok(()),
        [file] if file.ends_with(".in") => Err(refuse(
            format!("`{file}` goes through the C preprocessor first, which is not done here"),
            format!("`cpp -E {file} | builder build -f - …`"),
        )),
        [file] => {
            draft.own.flag("file", file);
            Ok(())
        }
        _ => Err(refuse(
            "there is one Dockerfile, and several are named",
            "`cat A B | builder build -f - …`",
        )),
    }
}

fn platform(typed: &Typed, draft: &mut Draft<'_>) -> Result<(), Failure> {
    let part = |name| typed.last(name).filter(|part| !part.is_empty());
    let (os, arch, variant) = (part("os"), part("arch"), part("variant"));
    if os.is_none() && arch.is_none() && variant.is_none() {
        return Ok(());
    }
    if typed.last("platform").is_some() {
        return Err(usage(
            "`--platform` does not go with `--os`, `--arch` and `--variant`",
        ));
    }
    let host = crate::vocab::Platform::host();
    let mut platform = format!(
        "{}/{}",
        os.unwrap_or("linux"),
        arch.unwrap_or(&host.architecture)
    );
    if let Some(variant) = variant {
        platform.push('/');
        platform.push_str(variant);
    }
    draft.own.flag("platform", &platform);
    Ok(())
}

/// Says how the image is written: to the state directory, if nothing says where.
fn writing(typed: &Typed, draft: &mut Draft<'_>) -> Result<(), Failure> {
    let mut fields: Vec<(&str, &str)> = Vec::new();
    match typed.last("compression-format") {
        None => {}
        Some("zstd:chunked") => {
            return Err(refuse(
                "`bud --compression-format zstd:chunked` is not supported",
                "`zstd` is",
            ));
        }
        Some(format) => fields.push(("compression", format)),
    }
    if let Some(level) = typed.last("compression-level").filter(|text| *text != "0") {
        fields.push(("compression-level", level));
    }
    let variable = draft.variable("BUILDAH_FORMAT");
    let format = typed.last("format").map(|text| ("--format", text));
    let format = format.or(variable.as_deref().map(|text| ("BUILDAH_FORMAT", text)));
    match format {
        None | Some((_, "oci")) => {}
        Some((_, "docker")) => fields.push(("oci-mediatypes", "false")),
        Some((place, other)) => {
            return Err(usage(format!(
                "`{place}={other}` is neither oci nor docker"
            )));
        }
    }
    if fields.is_empty() {
        return Ok(());
    }
    if !typed.all("output").is_empty() {
        return Err(refuse(
            "`--output` does not go with `--format`, `--compression-format` and `--compression-level`",
            "they are fields of it: `--output type=image,oci-mediatypes=false,compression=zstd`",
        ));
    }
    draft.own.flag("output", &spec("image", &fields));
    Ok(())
}
