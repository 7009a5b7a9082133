//! An OCI layout as a directory.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use serde_json::{Value, json};

use crate::vocab::{Digest, ImageRef};

use super::{Blobs, Export, ExportError};

/// Content of the file `oci-layout`.
pub(super) const LAYOUT_FILE: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;

/// Writes the result into the OCI layout at `path`, which is made if it does not exist. Images that it holds under other names
/// stay; `index.json` is replaced last.
pub fn oci_layout(export: &Export<'_>, blobs: &Blobs<'_>, path: &Path) -> Result<(), ExportError> {
    let marker = path.join("oci-layout");
    let is_empty = match fs::read_dir(path) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => true,
        Err(error) => return Err(ExportError::io("read", path)(error)),
    };
    if !is_empty && !marker.exists() {
        return Err(ExportError::NotALayout(path.to_owned()));
    }
    let directory = path.join("blobs/sha256");
    fs::create_dir_all(&directory).map_err(ExportError::io("create", &directory))?;
    for (descriptor, bytes) in export.documents() {
        put(&directory, &descriptor.digest, &mut &bytes[..])?;
    }
    for layer in export.layers() {
        put(&directory, &layer.digest, &mut blobs.reader(layer)?)?;
    }
    replace(&marker, LAYOUT_FILE.as_bytes())?;
    let index_path = path.join("index.json");
    let existing = match fs::read(&index_path) {
        Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or(Value::Null),
        Err(_) => Value::Null,
    };
    replace(&index_path, &index_json(export, &existing))
}

/// Returns the layout's `index.json`: what `existing` lists under other names, then the result, once per name.
pub(super) fn index_json(export: &Export<'_>, existing: &Value) -> Vec<u8> {
    let (top, _) = export.top();
    let names: Vec<Option<&ImageRef>> = match export.names {
        [] => vec![None],
        names => names.iter().map(Some).collect(),
    };
    let name_of = |entry: &Value| {
        entry["annotations"]["org.opencontainers.image.ref.name"]
            .as_str()
            .map(str::to_owned)
    };
    let image_of = |entry: &Value| {
        entry["annotations"]["io.containerd.image.name"]
            .as_str()
            .map(str::to_owned)
    };
    let mut manifests: Vec<Value> = existing["manifests"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    manifests.retain(|entry| {
        let digest = entry["digest"].as_str();
        let unnamed_twin = digest == Some(&top.digest.to_string()) && name_of(entry).is_none();
        let replaced = names
            .iter()
            .flatten()
            .any(|name| image_of(entry).as_deref() == Some(&name.to_string()));
        !unnamed_twin && !replaced
    });
    for name in names {
        let mut entry = json!({
            "mediaType": top.media_type,
            "digest": top.digest.to_string(),
            "size": top.size,
        });
        if export.index.is_none()
            && let [image] = export.images.as_slice()
        {
            let mut platform =
                json!({ "architecture": image.platform.architecture, "os": image.platform.os });
            if let Some(variant) = &image.platform.variant {
                platform["variant"] = json!(variant);
            }
            entry["platform"] = platform;
        }
        if let Some(name) = name {
            entry["annotations"] = json!({
                "io.containerd.image.name": name.to_string(),
                "org.opencontainers.image.ref.name": name.tag.as_deref().unwrap_or("latest"),
            });
        }
        manifests.push(entry);
    }
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": manifests,
    });
    serde_json::to_vec(&index).expect("a JSON value can be written")
}

fn put(directory: &Path, digest: &Digest, content: &mut dyn io::Read) -> Result<(), ExportError> {
    let path = directory.join(digest.hex());
    if path.exists() {
        return Ok(());
    }
    let beside = directory.join(format!(".{}.{}", digest.hex(), std::process::id()));
    let written = File::create(&beside).and_then(|mut file| {
        io::copy(content, &mut file)?;
        fs::rename(&beside, &path)
    });
    written.map_err(|error| {
        drop(fs::remove_file(&beside));
        ExportError::io("write", &path)(error)
    })
}

fn replace(path: &Path, bytes: &[u8]) -> Result<(), ExportError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", std::process::id()));
    let beside = path.with_file_name(name);
    let written = File::create(&beside).and_then(|mut file| {
        file.write_all(bytes)?;
        fs::rename(&beside, path)
    });
    written.map_err(|error| {
        drop(fs::remove_file(&beside));
        ExportError::io("write", path)(error)
    })
}
