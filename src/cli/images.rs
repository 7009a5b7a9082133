//! `images`, `inspect`, `tag`, `rmi`, `import`, `save`.

use std::fs::File;
use std::io::Read;

use serde_json::{Value, json};

use crate::export;
use crate::pipeline::{self, Failure, Import as ImportRequest};
use crate::store::{Store, StoredImage};
use crate::ui;
use crate::vocab::{Diagnostic, ExitCode, ImageRef, Platform, Timestamp};

use super::args::{Global, Images, Import, Inspect, Remove, Save, SaveFormat, Tag};
use super::request::image;
use super::root::store_failed;
use super::{print, usage};

pub(super) fn list(global: &Global, args: &Images) -> Result<(), Failure> {
    let store = global.store()?;
    let stored = store.images().map_err(|error| store_failed(&error))?;
    let mut rows = vec![
        ["REPOSITORY", "TAG", "DIGEST", "IMAGE ID", "CREATED", "SIZE"]
            .map(str::to_owned)
            .to_vec(),
    ];
    let has_lower = stored.iter().any(|stored| stored.lower.is_some());
    if has_lower {
        rows[0].push("LOWER STORE".to_owned());
    }
    let mut text = String::new();
    for stored in stored {
        let described = match describe(&store, &stored) {
            // Somebody else's, who may be changing it.
            Err(_) if stored.lower.is_some() => continue,
            described => described?,
        };
        let short = |digest: &str| match args.no_trunc {
            true => digest.to_owned(),
            false => digest
                .trim_start_matches("sha256:")
                .chars()
                .take(12)
                .collect(),
        };
        if args.quiet {
            text.push_str(&short(&described.id));
            text.push('\n');
        } else if args.json {
            let line = json!({
                "names": stored.names.iter().map(ImageRef::to_string).collect::<Vec<_>>(),
                "digest": stored.manifest.digest.to_string(),
                "id": described.id,
                "created": described.created,
                "size": described.size,
                "platforms": described.platforms,
                "lower": stored.lower.as_ref().map(|root| root.display().to_string()),
            });
            text.push_str(&format!("{line}\n"));
        } else {
            let names: Vec<(String, String)> = match stored.names.as_slice() {
                [] => vec![("<none>".to_owned(), "<none>".to_owned())],
                names => names.iter().map(repository_and_tag).collect(),
            };
            for (repository, tag) in names {
                rows.push(vec![
                    repository,
                    tag,
                    short(&stored.manifest.digest.to_string()),
                    short(&described.id),
                    described
                        .created
                        .chars()
                        .take(19)
                        .collect::<String>()
                        .replace('T', " "),
                    ui::size(described.size),
                ]);
                if has_lower {
                    let root = stored.lower.as_ref();
                    let root = root.map(|root| root.display().to_string());
                    let row = rows.last_mut().expect("just added");
                    row.push(root.unwrap_or_default());
                }
            }
        }
    }
    if !args.quiet && !args.json {
        text = ui::table(&rows);
    }
    print(&text);
    Ok(())
}

pub(super) fn inspect(global: &Global, args: &Inspect) -> Result<(), Failure> {
    let store = global.store()?;
    let mut all = Vec::new();
    for text in &args.images {
        let stored = find(&store, text)?;
        let export = pipeline::export_of(&store, &stored.manifest, &[])?;
        let images: Vec<Value> = export
            .images
            .iter()
            .map(|image| {
                let parse =
                    |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap_or(Value::Null);
                json!({
                    "digest": image.manifest.digest.to_string(),
                    "platform": image.platform.to_string(),
                    "manifest": parse(&image.manifest_bytes),
                    "id": image.config.digest.to_string(),
                    "config": parse(&image.config_bytes),
                })
            })
            .collect();
        all.push(json!({
            "names": stored.names.iter().map(ImageRef::to_string).collect::<Vec<_>>(),
            "digest": stored.manifest.digest.to_string(),
            "mediaType": stored.manifest.media_type,
            "images": images,
        }));
    }
    let text = serde_json::to_string_pretty(&all).expect("a JSON value can be written");
    print(&format!("{text}\n"));
    Ok(())
}

pub(super) fn tag(global: &Global, args: &Tag) -> Result<(), Failure> {
    let store = global.store()?;
    let stored = find(&store, &args.image)?;
    for name in &args.names {
        let name = image(name)?;
        store
            .put_image(Some(&name), &stored.manifest, stored.platform.as_ref())
            .map_err(|error| store_failed(&error))?;
    }
    Ok(())
}

pub(super) fn remove(global: &Global, args: &Remove) -> Result<(), Failure> {
    let store = global.store()?;
    for text in &args.images {
        let stored = find(&store, text)?;
        let by_name = text
            .parse::<ImageRef>()
            .ok()
            .filter(|name| stored.names.contains(name));
        if let Some(root) = &stored.lower {
            let diagnostic = Diagnostic::error(format!(
                "`{text}` is in the lower store `{}`, which is only read",
                root.display()
            ))
            .hint("name it with `--root` to remove images from it");
            return Err(Failure::new(ExitCode::Usage, diagnostic));
        }
        match &by_name {
            Some(name) => store
                .untag_image(name)
                .map_err(|error| store_failed(&error))?,
            None => store
                .remove_image(&stored.manifest.digest)
                .map_err(|error| store_failed(&error))?,
        };
        print(&match by_name {
            Some(name) => format!("removed {}\n", name.familiar()),
            None => format!("removed {}\n", stored.manifest.digest),
        });
    }
    Ok(())
}

pub(super) fn import(global: &Global, args: &Import) -> Result<(), Failure> {
    let store = global.store()?;
    let input: Box<dyn Read + Send> = match args.file.as_os_str() == "-" {
        true => Box::new(std::io::stdin()),
        false => Box::new(File::open(&args.file).map_err(|error| {
            let diagnostic = Diagnostic::error(format!("cannot open `{}`", args.file.display()))
                .caused_by(&error);
            Failure::new(ExitCode::Source, diagnostic)
        })?),
    };
    let platform = match &args.platform {
        Some(text) => text
            .parse()
            .map_err(|error: crate::vocab::PlatformError| usage(error.to_string()))?,
        None => Platform::host(),
    };
    let name = args.name.as_deref().map(image).transpose()?;
    let request = ImportRequest {
        name: name.clone(),
        changes: args.change.clone(),
        message: args.message.clone(),
        platform,
    };
    let manifest = pipeline::import(&store, input, &request)?;
    print(&format!("{}\n", manifest.digest));
    Ok(())
}

pub(super) fn save(global: &Global, args: &Save) -> Result<(), Failure> {
    let store = global.store()?;
    if args.images.len() > 1 && args.format != SaveFormat::OciDir {
        let mut failure = usage("an archive holds one image");
        failure.diagnostics[0]
            .hints
            .push("`--format oci-dir` takes several".to_owned());
        return Err(failure);
    }
    for text in &args.images {
        let stored = find(&store, text)?;
        let names: Vec<ImageRef> = match text
            .parse::<ImageRef>()
            .ok()
            .filter(|name| stored.names.contains(name))
        {
            Some(name) => vec![name],
            None => stored.names.clone(),
        };
        let exported = pipeline::export_of(&store, &stored.manifest, &names)?;
        let blobs = export::Blobs {
            store: &store,
            fetch: &|layer| Err(export::ExportError::MissingBlob(layer.digest)),
            cancel: &crate::vocab::Cancel::new(),
        };
        let written = match args.format {
            SaveFormat::Docker => export::docker_archive(&exported, &blobs, &args.output),
            SaveFormat::Oci => export::oci_archive(&exported, &blobs, &args.output),
            SaveFormat::OciDir if args.output.as_os_str() == "-" => {
                return Err(usage("`--format oci-dir` needs `--output DIR`"));
            }
            SaveFormat::OciDir => export::oci_layout(&exported, &blobs, &args.output),
        };
        written.map_err(|error| {
            let mut diagnostic = Diagnostic::error(format!("cannot save {text}")).caused_by(&error);
            diagnostic.hints.extend(error.hint());
            Failure::new(ExitCode::Export, diagnostic)
        })?;
    }
    Ok(())
}

/// Finds an image by name, or by the first digits of its digest or ID.
pub(super) fn find(store: &Store, text: &str) -> Result<StoredImage, Failure> {
    if let Ok(name) = text.parse::<ImageRef>()
        && let Some(found) = store.image(&name).map_err(|error| store_failed(&error))?
    {
        return Ok(found);
    }
    let found = store
        .find_images(text)
        .map_err(|error| store_failed(&error))?;
    match found.as_slice() {
        [only] => return Ok(only.clone()),
        [] => {}
        several => {
            return Err(usage(format!(
                "`{text}` is the beginning of {} digests",
                several.len()
            )));
        }
    }
    let stored = store.images().map_err(|error| store_failed(&error))?;
    let mut diagnostic = Diagnostic::error(format!("no image `{text}` in the state directory"));
    let names: Vec<String> = stored
        .iter()
        .flat_map(|stored| &stored.names)
        .map(ImageRef::familiar)
        .take(5)
        .collect();
    if !names.is_empty() {
        diagnostic = diagnostic.hint(format!("there are {}", names.join(", ")));
    }
    Err(Failure::new(ExitCode::Source, diagnostic))
}

/// What a list shows of an image.
struct Described {
    /// Digest of the config, or of the index where there are several platforms.
    id: String,
    created: String,
    /// Bytes of all blobs.
    size: u64,
    platforms: Vec<String>,
}

fn describe(store: &Store, stored: &StoredImage) -> Result<Described, Failure> {
    let export = pipeline::export_of(store, &stored.manifest, &[])?;
    let id = match export.images.as_slice() {
        [image] => image.config.digest,
        _ => stored.manifest.digest,
    };
    let created = export
        .images
        .iter()
        .filter_map(|image| {
            serde_json::from_slice::<Value>(&image.config_bytes).ok()?["created"]
                .as_str()
                .map(str::to_owned)
        })
        .max();
    let size = export
        .images
        .iter()
        .map(|image| image.config.size + image.layers.iter().map(|layer| layer.size).sum::<u64>());
    Ok(Described {
        id: id.to_string(),
        created: created.unwrap_or_else(|| Timestamp::default().to_string()),
        size: size.sum(),
        platforms: export
            .images
            .iter()
            .map(|image| image.platform.to_string())
            .collect(),
    })
}

fn repository_and_tag(name: &ImageRef) -> (String, String) {
    let bare = ImageRef {
        tag: Some("latest".to_owned()),
        digest: None,
        ..name.clone()
    }
    .familiar();
    let repository = bare.trim_end_matches(":latest").to_owned();
    (
        repository,
        name.tag.clone().unwrap_or_else(|| "<none>".to_owned()),
    )
}
