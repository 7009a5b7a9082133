//! kaniko's executor and warmer.
//!
//! Paths are taken as kaniko takes them: a Dockerfile is looked for in the working directory and then in the context. Exit codes are
//! ours, not kaniko's 1 for everything.

use std::path::Path;

use crate::pipeline::Failure;
use crate::vocab::ImageRef;

use super::super::request::image;
use super::super::usage;
use super::own::{Draft, refuse, spec};
use super::parse::Typed;

/// Where the context is if nobody says.
const WORKSPACE: &str = "/workspace/";
const HOME: &str = "/kaniko";
/// Attempts after the first that are made anyway.
const USUAL_RETRIES: u32 = 4;

/// Writes the words of `builder build` for those of the executor.
pub(super) fn executor(typed: &Typed, draft: &mut Draft<'_>) -> Result<(), Failure> {
    if let Some(word) = typed.words.first() {
        return Err(refuse(
            format!("`executor` takes flags only, and `{word}` is none"),
            "the context is `--context DIR`",
        ));
    }
    let destinations = typed
        .all("destination")
        .into_iter()
        .map(|text| image(text).map(|image| (text, image)))
        .collect::<Result<Vec<_>, _>>()?;
    let pushes = !typed.is_on("no-push");
    if pushes && destinations.is_empty() {
        return Err(refuse(
            "`executor` has no `--destination`",
            "`--destination REGISTRY/NAME:TAG`, or `--no-push`",
        ));
    }
    context(typed, draft)?;
    for (text, _) in &destinations {
        draft.own.flag("tag", text);
    }
    outputs(typed, draft, pushes)?;
    let repository = cache(typed, draft, &destinations)?;
    for text in typed.all("annotation") {
        // A key with a colon is no level.
        draft.own.flag("annotation", &format!("manifest:{text}"));
    }
    if typed.is_on("reproducible") {
        draft.own.flag("source-date-epoch", "0");
        draft.own.switch("rewrite-timestamp");
    }
    match typed.last("log-format") {
        None | Some("color") => {}
        Some("json") => draft.own.flag("progress", "rawjson"),
        Some("text") => draft.own.flag("progress", "plain"),
        Some(other) => {
            return Err(usage(format!(
                "`--log-format {other}` is none of text, color, json"
            )));
        }
    }
    if typed.is_on("insecure") || typed.is_on("skip-tls-verify") {
        let images = destinations.iter().map(|(_, image)| image);
        insecure(images.chain(&repository), draft);
    }
    registries(typed, draft)?;
    credentials(typed, draft);
    Ok(())
}

/// Writes the words of `builder pull` for those of the warmer.
pub(super) fn warmer(typed: &Typed, draft: &mut Draft<'_>) -> Result<(), Failure> {
    if let Some(word) = typed.words.first() {
        return Err(refuse(
            format!("`warmer` takes flags only, and `{word}` is none"),
            "an image is `--image REF`",
        ));
    }
    let images = typed.all("image");
    let file = typed.last("dockerfile").filter(|file| !file.is_empty());
    if images.is_empty() && file.is_none() {
        return Err(refuse(
            "`warmer` has nothing to fetch",
            "`--image REF`, or `--dockerfile FILE`",
        ));
    }
    if typed.is_on("insecure-pull") || typed.is_on("skip-tls-verify-pull") {
        if file.is_some() {
            return Err(refuse(
                "`--insecure-pull` and `--skip-tls-verify-pull` do not go with `--dockerfile`",
                "`--insecure-registry HOST` says which registry is meant",
            ));
        }
        let parsed = images
            .iter()
            .map(|text| image(text))
            .collect::<Result<Vec<_>, _>>()?;
        insecure(&parsed, draft);
    }
    let args = typed.all("build-arg");
    if let Some(file) = file {
        draft.own.flag("file", file);
        for text in args {
            draft.own.flag("build-arg", text);
        }
    } else if !args.is_empty() {
        draft.note("--build-arg", "there is no `--dockerfile`");
    }
    for image in images {
        draft.own.word(image);
    }
    registries(typed, draft)?;
    credentials(typed, draft);
    Ok(())
}

fn outputs(typed: &Typed, draft: &mut Draft<'_>, pushes: bool) -> Result<(), Failure> {
    let mut writing: Vec<(&str, &str)> = Vec::new();
    if let Some(format) = typed.last("compression").filter(|text| !text.is_empty()) {
        writing.push(("compression", format));
    }
    // Kaniko's default.
    if let Some(level) = typed.last("compression-level").filter(|text| *text != "-1") {
        writing.push(("compression-level", level));
    }
    let layers = writing.clone();
    match typed.last("image-format") {
        None | Some("" | "oci") => {}
        Some("docker") => writing.push(("oci-mediatypes", "false")),
        Some(other) => {
            return Err(usage(format!(
                "`--image-format {other}` is neither oci nor docker"
            )));
        }
    }
    let files = [
        ("tar-path", "docker", None),
        ("oci-layout-path", "oci", Some(("tar", "false"))),
    ];
    let named = |flag| typed.last(flag).filter(|path| !path.is_empty());
    // The digest that is told is that of the first output.
    if pushes && writing.is_empty() {
        draft.own.switch("push");
    } else if pushes {
        draft.own.flag("output", &spec("registry", &writing));
    } else if !writing.is_empty() && files.iter().all(|(flag, _, _)| named(flag).is_none()) {
        draft.own.flag("output", &spec("image", &writing));
    }
    for (flag, kind, more) in files {
        if let Some(path) = named(flag) {
            let mut fields = vec![("dest", path)];
            fields.extend(more);
            fields.extend(&layers);
            draft.own.flag("output", &spec(kind, &fields));
        }
    }
    Ok(())
}

/// Returns the repository of the cache, if there is one at a registry.
fn cache(
    typed: &Typed,
    draft: &mut Draft<'_>,
    destinations: &[(&str, ImageRef)],
) -> Result<Option<ImageRef>, Failure> {
    let named = typed.last("cache-repo").filter(|repo| !repo.is_empty());
    if !typed.is_on("cache") {
        if named.is_some() {
            draft.note("--cache-repo", "there is no `--cache=true`");
        }
        if typed.is_on("no-push-cache") {
            draft.note("--no-push-cache", "there is no `--cache=true`");
        }
        return Ok(None);
    }
    let keeps = !typed.is_on("no-push-cache");
    if let Some(directory) = named.and_then(|repo| repo.strip_prefix("oci:")) {
        draft
            .own
            .flag("cache-from", &spec("local", &[("src", directory)]));
        if keeps {
            let fields = [("dest", directory), ("mode", "max")];
            draft.own.flag("cache-to", &spec("local", &fields));
        }
        return Ok(None);
    }
    let repository = match (named, destinations.first()) {
        (Some(repo), _) => image(repo)?,
        (None, Some((_, first))) => image(&format!("{}/cache", first.name()))?,
        (None, None) => {
            return Err(refuse(
                "`--cache` does not know where: there is no destination",
                "`--cache-repo REPOSITORY`",
            ));
        }
    };
    match keeps {
        true => draft.own.flag("cache", &repository.name()),
        false => {
            let fields = [("ref", &*repository.name())];
            draft.own.flag("cache-from", &spec("registry", &fields));
        }
    }
    Ok(Some(repository))
}

/// Has the hosts of images be reached without a check.
fn insecure<'i>(images: impl IntoIterator<Item = &'i ImageRef>, draft: &mut Draft<'_>) {
    let mut hosts: Vec<&str> = Vec::new();
    for image in images {
        if !hosts.contains(&image.registry.as_str()) {
            hosts.push(&image.registry);
            draft.own.flag("insecure-registry", &image.registry);
        }
    }
}

/// Says what the flags say that executor and warmer share.
fn registries(typed: &Typed, draft: &mut Draft<'_>) -> Result<(), Failure> {
    let mut retries = USUAL_RETRIES;
    for flag in ["push-retry", "image-download-retry"] {
        if let Some(text) = typed.last(flag) {
            let number = text.parse::<u32>();
            let number = number.map_err(|_| usage(format!("`--{flag} {text}` is no number")))?;
            retries = retries.max(number);
        }
    }
    if retries > USUAL_RETRIES {
        draft.own.flag("retry", &retries.to_string());
    }
    for text in typed.all("registry-map") {
        for pair in text.split(';').filter(|pair| !pair.is_empty()) {
            draft.own.flag("registry-mirror", pair);
        }
    }
    for url in typed.all("registry-mirror") {
        draft
            .own
            .flag("registry-mirror", &format!("docker.io={url}"));
    }
    Ok(())
}

/// Looks for credentials where pipelines write them for kaniko, unless something says where they are.
fn credentials(typed: &Typed, draft: &mut Draft<'_>) {
    let says_where = ["DOCKER_CONFIG", "REGISTRY_AUTH_FILE"];
    if draft.around.has_authfile || says_where.iter().any(|name| draft.variable(name).is_some()) {
        return;
    }
    let home = typed.last("kaniko-dir").map(str::to_owned);
    let home = home.or_else(|| draft.variable("KANIKO_DIR"));
    let file = format!("{}/.docker/config.json", home.as_deref().unwrap_or(HOME));
    if (draft.around.is_there)(&file) {
        draft.own.flag("authfile", &file);
    }
}

/// Where a context is, as far as the Dockerfile is concerned.
enum Place {
    Directory(String),
    Elsewhere,
}

fn context(typed: &Typed, draft: &mut Draft<'_>) -> Result<(), Failure> {
    let text = typed.last("context").filter(|text| !text.is_empty());
    let text = text.unwrap_or(WORKSPACE);
    let below = typed.last("context-sub-path").unwrap_or_default();
    let (scheme, rest) = text.split_once("://").unwrap_or(("dir", text));
    if scheme != "git" && !typed.all("git").is_empty() {
        draft.note("--git", "the context is no repository");
    }
    if ["tar", "https"].contains(&scheme) && !below.is_empty() {
        return Err(refuse(
            "`--context-sub-path` does not go with an archive",
            "pack the directory itself: `tar -C DIR -cz . | executor --context tar://stdin …`",
        ));
    }
    let place = match scheme {
        "dir" => {
            let directory = match below {
                "" => rest.to_owned(),
                below => joined(rest, below),
            };
            draft.own.word(&directory);
            Place::Directory(directory)
        }
        "tar" if rest == "stdin" => {
            draft.own.word("-");
            Place::Elsewhere
        }
        "tar" => {
            draft.own.word(rest);
            Place::Elsewhere
        }
        "git" => {
            let repository = repository(rest, below, typed, draft)?;
            draft.own.word(&repository);
            Place::Elsewhere
        }
        "https" => {
            if draft.variable("AZURE_STORAGE_ACCESS_KEY").is_some() {
                draft.note(
                    "AZURE_STORAGE_ACCESS_KEY",
                    "an archive is downloaded as it is: a URL with a shared access signature needs no key",
                );
            }
            draft.own.word(text);
            Place::Elsewhere
        }
        "s3" | "gs" => {
            let tool = match scheme {
                "s3" => "aws s3 cp",
                _ => "gcloud storage cp",
            };
            return Err(refuse(
                format!("`executor --context {scheme}://…` is not supported"),
                format!("`{tool} {text} - | executor --context tar://stdin …`"),
            ));
        }
        other => {
            return Err(refuse(
                format!("`--context {other}://…`: there are no contexts of that kind"),
                "a directory, dir://, tar://FILE, tar://stdin, git:// and https:// are contexts",
            ));
        }
    };
    dockerfile(typed, draft, &place);
    Ok(())
}

fn dockerfile(typed: &Typed, draft: &mut Draft<'_>, place: &Place) {
    let given = typed.last("dockerfile").filter(|file| !file.is_empty());
    let file = given.unwrap_or("Dockerfile");
    if file.starts_with("http://") || file.starts_with("https://") {
        draft.own.flag("file", file);
        return;
    }
    let is_here = (draft.around.is_there)(file);
    match place {
        // One of the working directory goes before that of the context, also where nobody names one.
        Place::Directory(_) if is_here => draft.own.flag("file", file),
        Place::Directory(directory) => {
            if given.is_some() {
                draft.own.flag("file", &joined(directory, file));
            }
        }
        Place::Elsewhere if is_here => {
            let whole = std::path::absolute(file);
            let whole = whole.map_or_else(|_| file.to_owned(), |path| path.display().to_string());
            draft.own.flag("file", &whole);
        }
        Place::Elsewhere => {
            if given.is_some() {
                draft.own.flag("file", file);
            }
        }
    }
}

fn joined(directory: &str, below: &str) -> String {
    Path::new(directory).join(below).display().to_string()
}

/// Names a repository as `builder` does. Submodules are left alone unless they are asked for, as in kaniko.
fn repository(
    rest: &str,
    below: &str,
    typed: &Typed,
    draft: &mut Draft<'_>,
) -> Result<String, Failure> {
    let mut parts = rest.split('#');
    let url = parts.next().unwrap_or_default();
    let (mut reference, commit) = (parts.next(), parts.next());
    let mut submodules = false;
    for option in typed
        .all("git")
        .into_iter()
        .flat_map(|text| text.split(','))
    {
        let (key, value) = option.split_once('=').unwrap_or((option, "true"));
        match (key, value) {
            ("branch", branch) => reference = reference.or(Some(branch)),
            ("recurse-submodules", "true" | "1") => submodules = true,
            ("recurse-submodules" | "insecure-skip-tls", "false" | "0") | ("single-branch", _) => {}
            ("insecure-skip-tls", _) => {
                return Err(refuse(
                    "`--git insecure-skip-tls` is not supported",
                    "SSL_CERT_FILE names the authority of the server",
                ));
            }
            _ => {
                return Err(usage(format!(
                    "`--git {option}`: options are branch=, single-branch=, recurse-submodules="
                )));
            }
        }
    }
    let scheme = match draft.variable("GIT_PULL_METHOD").as_deref() {
        Some("http") => "http",
        _ => "https",
    };
    let mut text = format!("{scheme}://{url}");
    if !submodules {
        text.push_str("?submodules=false");
    }
    // A branch may have moved on; the commit is what is wanted of it.
    let reference = commit.or(reference).unwrap_or_default();
    if !reference.is_empty() || !below.is_empty() {
        text.push('#');
        text.push_str(reference);
    }
    if !below.is_empty() {
        text.push(':');
        text.push_str(below);
    }
    let host = url.rsplit_once('@').map_or(url, |(_, rest)| rest);
    let host = host.split('/').next().unwrap_or_default();
    for name in ["GIT_TOKEN", "GIT_PASSWORD"] {
        if draft.variable(name).is_some() {
            // For that host, and no other.
            let secret = format!("id=GIT_AUTH_TOKEN.{host},env={name}");
            draft.own.flag("secret", &secret);
            break;
        }
    }
    Ok(text)
}
