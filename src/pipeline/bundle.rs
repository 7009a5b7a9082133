//! A failed step as a file, and back: `--on-error=save:FILE`, `builder debug FILE`.
//!
//! The file is an OCI layout as a tar, which other tools can read too: an image of the root as the failed command left it. Its
//! config has the step's variables, user and directory, and under [`KEY`] what else is known of it. All layers are inside, so that
//! no registry is needed where it is opened.
//!
//! Secrets, agents and proxies are not in it: mounts are described and not copied, and in every text the values that the step
//! had as secrets are replaced. What the command itself has written into its root is there, as it would be in an image.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde_json::{Value, json};

use crate::export::{self, Blobs, Export, ExportedImage};
use crate::image::{
    ContainerConfig, History, ImageConfig, Manifest, MediaTypes, assemble, complete, parse_manifest,
};
use crate::layer::{EntryKind, TarReader, decompress};
use crate::plan::{Graph, Mount, Op, Run, Script};
use crate::solve::ChainLayer;
use crate::store::Store;
use crate::vocab::{
    Cancel, Descriptor, Diagnostic, DiffId, Digest, ExitCode, LayerForm, NetworkMode, Platform,
};
use crate::worker::{FailedStep, Machine, now};

use super::inputs::Inputs;
use super::{Failure, deliver, failure};

/// Where the config of the image keeps what is known of the failure.
const KEY: &str = "builder.failed-step";
const VERSION: u64 = 1;
/// Bytes of `index.json` at most.
const INDEX: u64 = 1 << 20;
const SHELL: &str = "/bin/sh";

/// Writes a failed step to a file, which appears whole or not at all.
pub(super) fn save(
    inputs: &Inputs,
    graph: &Graph,
    machine: &Machine<'_>,
    failed: &FailedStep,
    why: &Failure,
    path: &Path,
    cancel: &Cancel,
) -> Result<(), Failure> {
    let form = machine.forms().first().copied().unwrap_or_default();
    let step_failed = |error| failure::step(graph, failed.step, error, cancel);
    machine
        .pack_failed(graph, failed, form, cancel)
        .map_err(step_failed)?;
    let (layers, diff_ids) = layers(graph, machine, failed, form)?;
    let Op::Run(run) = &graph.steps[failed.step.0].op else {
        unreachable!("only a RUN is kept when it fails")
    };
    let time = now();
    let history = diff_ids.iter().map(|_| History {
        created: Some(time.to_string()),
        created_by: Some("a layer of a failed build".to_owned()),
        ..History::default()
    });
    let description = description(inputs, graph, failed, run, why);
    let config = complete(
        config(run, failed, description),
        &diff_ids,
        history.collect(),
        Some(time),
    );
    let assembled = assemble(config, &layers, &Default::default(), MediaTypes::Oci);
    let export = Export {
        images: vec![ExportedImage {
            platform: platform(run),
            manifest: assembled.manifest,
            manifest_bytes: assembled.manifest_bytes,
            config: assembled.config,
            config_bytes: assembled.config_bytes,
            layers,
        }],
        index: None,
        names: &[],
    };
    let fetch = |descriptor: &Descriptor| deliver::fetch(graph, machine, descriptor, cancel);
    let blobs = Blobs {
        store: machine.store(),
        fetch: &fetch,
        cancel,
    };
    export::oci_archive(&export, &blobs, path).map_err(|error| {
        let mut diagnostic = Diagnostic::error("cannot save the failed step").caused_by(&error);
        diagnostic.hints.extend(error.hint());
        Failure::new(error.class(), diagnostic)
    })
}

/// Returns the layers of the root as blobs.
fn layers(
    graph: &Graph,
    machine: &Machine<'_>,
    failed: &FailedStep,
    form: LayerForm,
) -> Result<(Vec<Descriptor>, Vec<DiffId>), Failure> {
    let (mut layers, mut diff_ids) = (Vec::new(), Vec::new());
    for layer in &failed.inputs[0] {
        match layer {
            ChainLayer::Base { base, index, .. } => {
                let Op::Base(base) = &graph.steps[base.0].op else {
                    unreachable!("base layers come from base steps")
                };
                let (descriptor, diff_id) = base.layers[*index].clone();
                layers.push(descriptor);
                diff_ids.push(diff_id);
            }
            ChainLayer::Built { id, .. } => {
                let packed = super::images::packed(*id, form, machine)?;
                layers.push(packed.blob);
                diff_ids.push(packed.diff_id);
            }
        }
    }
    Ok((layers, diff_ids))
}

fn platform(run: &Run) -> Platform {
    run.foreign.clone().unwrap_or_else(Platform::host)
}

fn config(run: &Run, failed: &FailedStep, description: Value) -> ImageConfig {
    let platform = platform(run);
    let env = run.env.iter();
    let env = env.map(|(name, value)| format!("{name}={}", failed.redacted(value)));
    ImageConfig {
        architecture: platform.architecture,
        os: platform.os,
        variant: platform.variant,
        config: ContainerConfig {
            user: run.user.clone(),
            env: env.collect(),
            working_dir: run.cwd.clone(),
            cmd: Some(vec![SHELL.to_owned()]),
            ..ContainerConfig::default()
        },
        other: [(KEY.to_owned(), description)].into(),
        ..ImageConfig::default()
    }
}

fn description(
    inputs: &Inputs,
    graph: &Graph,
    failed: &FailedStep,
    run: &Run,
    why: &Failure,
) -> Value {
    let plain = |text: &str| failed.redacted(text);
    let origin = &graph.origins[failed.step.0];
    let dockerfile = origin.span.map(|span| {
        let (name, line) = inputs.place(span);
        json!({ "name": name, "line": line, "text": plain(inputs.written(span)) })
    });
    let error = &why.diagnostics[0];
    json!({
        "version": VERSION,
        "builder": env!("CARGO_PKG_VERSION"),
        "step": plain(&origin.name),
        "stage": origin.stage,
        "dockerfile": dockerfile,
        "command": run.argv.iter().map(|word| plain(word)).collect::<Vec<_>>(),
        "scripts": run.scripts.iter().map(|script| {
            json!({ "path": script.path, "content": plain(&script.content) })
        }).collect::<Vec<_>>(),
        "network": match run.network {
            NetworkMode::Default => "default",
            NetworkMode::Host => "host",
            NetworkMode::None => "none",
        },
        "mounts": run.mounts.iter().map(mount).collect::<Vec<_>>(),
        "error": plain(&error.message),
        "causes": error.causes.iter().map(|cause| plain(cause)).collect::<Vec<_>>(),
        "output": failed.output.iter().map(|line| plain(line)).collect::<Vec<_>>(),
    })
}

/// Describes a mount; what it shows is left out.
fn mount(mount: &Mount) -> Value {
    match mount {
        Mount::Bind {
            target,
            from,
            writable,
        } => {
            json!({ "type": "bind", "target": target, "source": from.path, "writable": writable })
        }
        Mount::Cache(cache) => json!({ "type": "cache", "target": cache.target, "id": cache.id }),
        Mount::Tmpfs { target, .. } => json!({ "type": "tmpfs", "target": target }),
        Mount::Secret(secret) => json!({
            "type": "secret", "target": secret.target, "env": secret.env, "id": secret.id,
        }),
        Mount::Ssh(ssh) => json!({ "type": "ssh", "target": ssh.target, "id": ssh.id }),
    }
}

/// Brings the blobs of a saved step into the store. Returns its image, which has no name there: a later prune removes it.
pub(super) fn open(store: &Store, path: &Path) -> Result<Descriptor, Failure> {
    let failed = |error: &(dyn std::error::Error + 'static)| {
        Failure::new(
            ExitCode::Source,
            Diagnostic::error(format!("cannot read `{}`", path.display())).caused_by(error),
        )
    };
    let file = File::open(path).map_err(|error| failed(&error))?;
    let bytes = decompress(file).map_err(|error| failed(&error))?;
    let mut tar = TarReader::new(bytes);
    let mut index = None;
    while let Some(entry) = tar.next().map_err(|error| failed(&error))? {
        let EntryKind::File { size } = entry.kind else {
            continue;
        };
        if entry.path == b"index.json" {
            let mut text = Vec::new();
            let read = tar.content().take(INDEX).read_to_end(&mut text);
            read.map_err(|error| failed(&error))?;
            index = Some(text);
            continue;
        }
        let digest = std::str::from_utf8(&entry.path).ok();
        let digest = digest.and_then(|path| path.strip_prefix("blobs/sha256/"));
        let digest = digest.and_then(|hex| format!("sha256:{hex}").parse::<Digest>().ok());
        let Some(digest) = digest else { continue };
        if store.blob_size(&digest) == Some(size) {
            continue;
        }
        let blob = store
            .blob_writer()
            .map_err(|error| failure::store(&error))?;
        let mut blob = blob.hashing();
        if let Err(error) = io::copy(&mut tar.content(), &mut blob) {
            return Err(failed(&error));
        }
        blob.commit_checked(&digest)
            .map_err(|error| failed(&error))?;
    }
    let top = index.and_then(|text| match parse_manifest(&text, None) {
        Ok(Manifest::Index(entries)) => match entries.as_slice() {
            [only] => Some(only.descriptor.clone()),
            _ => None,
        },
        _ => None,
    });
    top.ok_or_else(|| none(path))
}

/// Says that a file is something else.
pub(super) fn none(path: &Path) -> Failure {
    Failure::new(
        ExitCode::Source,
        Diagnostic::error(format!("`{}` is no saved step", path.display()))
            .hint("`builder build --on-error=save:FILE` makes one when a RUN fails"),
    )
}

/// What a saved step says of itself. All of it was written by whoever made the file.
pub(super) struct Saved {
    /// To be shown.
    pub(super) diagnostic: Diagnostic,
    /// Mounts that begin empty.
    pub(super) mounts: Vec<Mount>,
    pub(super) scripts: Vec<Script>,
    pub(super) has_network: bool,
}

/// Reads what the config of a saved step's image says; `None` if it is another image.
pub(super) fn saved(config: &ImageConfig) -> Option<Saved> {
    let step = config.other.get(KEY)?;
    if step["version"].as_u64() != Some(VERSION) {
        return None;
    }
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let texts = |value: &Value| -> Vec<String> {
        let list = value.as_array().into_iter().flatten();
        list.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let mut diagnostic = Diagnostic::warning(format!("this step failed: {}", text(&step["error"])));
    let place = &step["dockerfile"];
    if let (Some(name), Some(line)) = (place["name"].as_str(), place["line"].as_u64()) {
        diagnostic = diagnostic.cause(format!("{name}:{line}: {}", text(&place["text"])));
    }
    for cause in texts(&step["causes"]) {
        diagnostic = diagnostic.cause(cause);
    }
    diagnostic.output = texts(&step["output"]);
    let command: Vec<String> = texts(&step["command"])
        .iter()
        .map(|word| quoted(word))
        .collect();
    diagnostic = diagnostic.hint(format!("its command was: {}", command.join(" ")));
    let mut mounts = Vec::new();
    for mount in step["mounts"].as_array().into_iter().flatten() {
        let target = text(&mount["target"]);
        let kind = text(&mount["type"]);
        match kind.as_str() {
            "cache" | "tmpfs" if target.starts_with('/') => {
                if kind == "cache" {
                    let id = text(&mount["id"]);
                    diagnostic =
                        diagnostic.hint(format!("the cache `{id}` is empty at `{target}`"));
                }
                mounts.push(Mount::Tmpfs { target, size: None });
            }
            "bind" => {
                diagnostic = diagnostic.hint(format!(
                    "what was mounted at `{target}` is not in the file: `-v HOST:{target}` shows it"
                ));
            }
            "secret" => {
                let id = text(&mount["id"]);
                diagnostic = diagnostic.hint(format!("the secret `{id}` is not in the file"));
            }
            _ => {}
        }
    }
    let scripts = step["scripts"].as_array().into_iter().flatten();
    let scripts = scripts.map(|script| Script {
        path: text(&script["path"]),
        content: text(&script["content"]),
    });
    Some(Saved {
        diagnostic,
        mounts,
        scripts: scripts
            .filter(|script| script.path.starts_with("/dev/pipes/"))
            .collect(),
        has_network: step["network"] != "none",
    })
}

/// Returns a word as it would be typed in a shell.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@%+".contains(c);
    match !word.is_empty() && word.chars().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_where_a_shell_would_cut_them() {
        for (word, expected) in [
            ("make", "make"),
            ("-j4", "-j4"),
            ("a b", "'a b'"),
            ("it's", r"'it'\''s'"),
            ("", "''"),
            ("$x", "'$x'"),
        ] {
            assert_eq!(quoted(word), expected);
        }
    }

    #[test]
    fn what_a_file_says_is_not_trusted() {
        let with = |value: Value| ImageConfig {
            other: [(KEY.to_owned(), value)].into(),
            ..ImageConfig::default()
        };
        assert!(saved(&ImageConfig::default()).is_none());
        assert!(saved(&with(json!({ "version": 2 }))).is_none());
        assert!(saved(&with(json!("x"))).is_none());
        let odd = json!({
            "version": 1,
            "mounts": [{ "type": "cache", "target": "x" }, { "type": 3 }, 4, { "type": "tmpfs", "target": "/t" }],
            "scripts": [{ "path": "/etc/passwd", "content": "x" }, { "path": "/dev/pipes/EOF", "content": "y" }],
            "output": "x",
            "command": [1, "a b"],
        });
        let saved = saved(&with(odd)).unwrap();
        assert_eq!(saved.mounts.len(), 1);
        assert_eq!(saved.scripts.len(), 1);
        assert!(saved.has_network && saved.diagnostic.output.is_empty());
        assert_eq!(saved.diagnostic.hints[0], "its command was: 'a b'");
    }
}
