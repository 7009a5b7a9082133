//! What docker, podman and buildah do with images that are there: push, pull, login, lists of platforms.

use crate::pipeline::Failure;

use super::super::request::image;
use super::super::usage;
use super::own::{Draft, Own, refuse};
use super::parse::Typed;

/// Has the registry of a name be reached without a check, if the flags say so.
fn reach(typed: &Typed, draft: &mut Draft<'_>, name: &str) -> Result<(), Failure> {
    if typed.last("tls-verify") == Some("false") || typed.is_on("insecure") {
        let host = image(name)?.registry;
        draft.own.flag("insecure-registry", &host);
    }
    Ok(())
}

/// Takes every word as it is.
pub(super) fn plain(typed: &Typed, draft: &mut Draft<'_>) -> Result<(), Failure> {
    for word in &typed.words {
        draft.own.word(word);
    }
    Ok(())
}

/// Pushes to a registry, or writes an archive where the destination is one.
pub(super) fn push(typed: &Typed, draft: &mut Draft<'_>) -> Result<(), Failure> {
    let (name, destination) = match typed.words.as_slice() {
        [name] => (name, None),
        [name, destination] => (name, Some(destination.as_str())),
        _ => {
            return Err(refuse(
                "`push` takes an image and a destination",
                "`push NAME [docker://REGISTRY/NAME:TAG]`",
            ));
        }
    };
    draft.own.word(name);
    let Some(destination) = destination else {
        return reach(typed, draft, name);
    };
    if let Some(reference) = destination.strip_prefix("docker://") {
        draft.own.word(reference);
        return reach(typed, draft, reference);
    }
    for (transport, format) in [
        ("oci-archive:", "oci"),
        ("docker-archive:", "docker"),
        ("oci:", "oci-dir"),
    ] {
        let Some(path) = destination.strip_prefix(transport) else {
            continue;
        };
        if path.contains(':') {
            return Err(refuse(
                format!("`{destination}` gives the image another name in the archive"),
                "`tag` it first, and leave the name out",
            ));
        }
        draft.own = Own::new(&["save"]);
        draft.own.flag("format", format);
        draft.own.flag("output", path);
        draft.own.word(name);
        return Ok(());
    }
    for transport in [
        "dir:",
        "docker-daemon:",
        "containers-storage:",
        "ostree:",
        "sif:",
    ] {
        if destination.starts_with(transport) {
            return Err(refuse(
                format!("`push` to `{transport}` is not supported"),
                "docker://, oci-archive:, docker-archive: and oci: are destinations",
            ));
        }
    }
    draft.own.word(destination);
    reach(typed, draft, destination)
}

pub(super) fn pull(typed: &Typed, draft: &mut Draft<'_>) -> Result<(), Failure> {
    for word in &typed.words {
        let name = word.strip_prefix("docker://").unwrap_or(word);
        draft.own.word(name);
        reach(typed, draft, name)?;
    }
    Ok(())
}

pub(super) fn login(typed: &Typed, draft: &mut Draft<'_>) -> Result<(), Failure> {
    if typed.last("tls-verify") == Some("false") {
        let host = typed.words.first().map_or("docker.io", String::as_str);
        draft.own.flag("insecure-registry", host);
    }
    plain(typed, draft)
}

pub(super) fn save(typed: &Typed, draft: &mut Draft<'_>) -> Result<(), Failure> {
    match typed.last("format") {
        None | Some("docker-archive") => {}
        Some("oci-archive") => draft.own.flag("format", "oci"),
        Some("oci-dir") => draft.own.flag("format", "oci-dir"),
        Some(other) => {
            return Err(refuse(
                format!("`save --format {other}` is not supported"),
                "formats are docker-archive, oci-archive and oci-dir",
            ));
        }
    }
    plain(typed, draft)
}

pub(super) fn manifest(typed: &Typed, draft: &mut Draft<'_>) -> Result<(), Failure> {
    for word in &typed.words {
        draft
            .own
            .word(word.strip_prefix("docker://").unwrap_or(word));
    }
    match typed.words.first() {
        Some(name) => reach(typed, draft, name.strip_prefix("docker://").unwrap_or(name)),
        None => Err(usage("`manifest` needs the name of an index")),
    }
}

pub(super) fn prune(typed: &Typed, draft: &mut Draft<'_>) -> Result<(), Failure> {
    for filter in typed.all("filter") {
        match filter.strip_prefix("until=") {
            Some(duration) => draft.own.flag("older-than", duration),
            None => {
                return Err(refuse(
                    format!("`prune --filter {filter}` is not supported"),
                    "`until=DURATION` is",
                ));
            }
        }
    }
    Ok(())
}

/// Returns a command line for each name that is given to an index at a registry.
pub(super) fn imagetools(typed: &Typed, draft: &Draft<'_>) -> Result<Vec<Own>, Failure> {
    let tags = typed.all("tag");
    if tags.is_empty() || typed.words.is_empty() {
        return Err(refuse(
            "`imagetools create` needs a name and images",
            "`imagetools create -t NAME IMAGE…`",
        ));
    }
    let mut all = Vec::new();
    for tag in tags {
        let mut own = match typed.is_on("append") {
            true => Own::new(&["manifest", "append"]),
            false => {
                let mut own = Own::new(&["manifest", "create"]);
                own.switch("push");
                // What the registries have at this moment.
                own.switch("pull");
                own
            }
        };
        own.take_flags(&draft.own);
        own.word(tag);
        for word in &typed.words {
            own.word(word);
        }
        all.push(own);
    }
    Ok(all)
}
