//! Reads an OCI layout to the last byte: digests, sizes, diff IDs, media types, order, and what the layers amount to.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use builder::layer::{Entry, EntryKind, TarReader, decompress};
use builder::vocab::{Digest, Sha256};
use serde_json::Value;

/// What a file of an image is, as the merged layers say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileInfo {
    pub entry: Entry,
    pub content: Vec<u8>,
}

/// All files of an image by path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files(pub BTreeMap<String, FileInfo>);

#[derive(Clone, Debug)]
pub struct Image {
    pub manifest: Value,
    pub config: Value,
    pub digest: String,
    /// Entries of each layer, lowest first.
    pub layers: Vec<Vec<FileInfo>>,
}

impl Image {
    /// Reads the only image of a layout.
    pub fn read(layout: &Path) -> Image {
        let mut images = Image::read_all(layout);
        assert_eq!(images.len(), 1, "one image");
        images.remove(0)
    }

    /// Reads the images of the only index of a layout, or its only image.
    pub fn read_all(layout: &Path) -> Vec<Image> {
        let marker: Value = json(&fs::read(layout.join("oci-layout")).unwrap());
        assert_eq!(marker["imageLayoutVersion"], "1.0.0");
        let index: Value = json(&fs::read(layout.join("index.json")).unwrap());
        assert_eq!(index["schemaVersion"], 2);
        let manifests = index["manifests"].as_array().unwrap();
        let first = &manifests[0];
        assert!(
            manifests
                .iter()
                .all(|entry| entry["digest"] == first["digest"]),
            "one image: {index}"
        );
        let media_type = first["mediaType"].as_str().unwrap();
        if !media_type.contains("index") && !media_type.contains("list") {
            return vec![Image::of(layout, first)];
        }
        let inner: Value = json(&blob(layout, first));
        assert_eq!(inner["mediaType"], media_type);
        let descriptors = inner["manifests"].as_array().unwrap();
        let images = descriptors.iter().map(|descriptor| {
            let image = Image::of(layout, descriptor);
            let platform = &descriptor["platform"];
            for key in ["os", "architecture", "variant"] {
                assert_eq!(platform[key], image.config[key], "{key} of {descriptor}");
            }
            image
        });
        images.collect()
    }

    /// Returns `os/architecture[/variant]` as the config has it.
    pub fn platform(&self) -> String {
        let parts = ["os", "architecture", "variant"].map(|key| self.config[key].as_str());
        parts.into_iter().flatten().collect::<Vec<_>>().join("/")
    }

    fn of(layout: &Path, descriptor: &Value) -> Image {
        let manifest: Value = json(&blob(layout, descriptor));
        assert_eq!(manifest["schemaVersion"], 2);
        let media_type = manifest["mediaType"].as_str().unwrap();
        assert_eq!(descriptor["mediaType"], media_type);
        let docker = media_type.contains("docker");
        let config: Value = json(&blob(layout, &manifest["config"]));
        let expected_config = if docker {
            "application/vnd.docker.container.image.v1+json"
        } else {
            "application/vnd.oci.image.config.v1+json"
        };
        assert_eq!(manifest["config"]["mediaType"], expected_config);
        let descriptors = manifest["layers"].as_array().unwrap();
        let diff_ids = config["rootfs"]["diff_ids"].as_array().unwrap();
        assert_eq!(descriptors.len(), diff_ids.len(), "a diff ID per layer");
        let with_layer = config["history"].as_array().map_or(0, |history| {
            history
                .iter()
                .filter(|entry| entry["empty_layer"] != true)
                .count()
        });
        assert_eq!(
            with_layer,
            diff_ids.len(),
            "a history entry per layer: {config}"
        );
        let layers = descriptors.iter().zip(diff_ids).map(|(layer, diff_id)| {
            let bytes = blob(layout, layer);
            let media_type = layer["mediaType"].as_str().unwrap();
            assert!(
                media_type.contains(if docker { "docker" } else { "oci" }),
                "{media_type}"
            );
            let magic = if bytes.starts_with(&[0x1f, 0x8b]) {
                "gzip"
            } else if bytes.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
                "zstd"
            } else {
                "tar"
            };
            assert!(media_type.contains(magic), "{media_type} holds {magic}");
            read_layer(bytes, diff_id.as_str().unwrap())
        });
        Image {
            layers: layers.collect(),
            digest: descriptor["digest"].as_str().unwrap().to_owned(),
            manifest: manifest.clone(),
            config: config.clone(),
        }
    }

    /// Returns what the layers amount to.
    pub fn files(&self) -> Files {
        let mut files: BTreeMap<String, FileInfo> = BTreeMap::new();
        for layer in &self.layers {
            // Whiteouts of a layer speak of the layers below it, wherever they stand in it.
            for file in layer {
                let path = text(&file.entry.path);
                let (parent, name) = path.rsplit_once('/').unwrap_or(("", &path));
                if name == ".wh..wh..opq" {
                    let below = if parent.is_empty() {
                        String::new()
                    } else {
                        format!("{parent}/")
                    };
                    files.retain(|path, _| !path.starts_with(&below) || path == parent);
                } else if let Some(hidden) = name.strip_prefix(".wh.") {
                    let hidden = if parent.is_empty() {
                        hidden.to_owned()
                    } else {
                        format!("{parent}/{hidden}")
                    };
                    let below = format!("{hidden}/");
                    files.retain(|path, _| *path != hidden && !path.starts_with(&below));
                }
            }
            for file in layer {
                let path = text(&file.entry.path);
                if path
                    .rsplit('/')
                    .next()
                    .is_some_and(|name| name.starts_with(".wh."))
                {
                    continue;
                }
                let mut file = file.clone();
                if let EntryKind::HardLink { target } = &file.entry.kind {
                    let target = files
                        .get(&text(target))
                        .unwrap_or_else(|| panic!("{path} links to nothing"))
                        .clone();
                    file = FileInfo {
                        entry: Entry {
                            path: file.entry.path,
                            ..target.entry
                        },
                        content: target.content,
                    };
                } else if file.entry.kind != EntryKind::Directory {
                    let below = format!("{path}/");
                    files.retain(|other, _| !other.starts_with(&below));
                }
                files.insert(path, file);
            }
        }
        Files(files)
    }

    /// Returns a list of texts of the config, such as `config.Env`.
    pub fn list(&self, pointer: &str) -> Vec<String> {
        let value = self.config.pointer(pointer).cloned().unwrap_or(Value::Null);
        value.as_array().map_or(Vec::new(), |list| {
            list.iter()
                .map(|text| text.as_str().unwrap().to_owned())
                .collect()
        })
    }
}

impl Files {
    #[track_caller]
    pub fn get(&self, path: &str) -> &FileInfo {
        self.0.get(path).unwrap_or_else(|| {
            panic!(
                "no `{path}` among {:?}",
                self.0.keys().take(200).collect::<Vec<_>>()
            )
        })
    }

    pub fn has(&self, path: &str) -> bool {
        self.0.contains_key(path)
    }

    #[track_caller]
    pub fn text(&self, path: &str) -> String {
        String::from_utf8(self.get(path).content.clone()).unwrap()
    }

    /// Returns mode and owner, as `0755 0:0`.
    #[track_caller]
    pub fn owner(&self, path: &str) -> String {
        let entry = &self.get(path).entry;
        format!("{:04o} {}:{}", entry.mode, entry.uid, entry.gid)
    }
}

fn read_layer(bytes: Vec<u8>, diff_id: &str) -> Vec<FileInfo> {
    let mut tar = Vec::new();
    decompress(std::io::Cursor::new(bytes))
        .unwrap()
        .read_to_end(&mut tar)
        .unwrap();
    let mut hash = Sha256::new();
    hash.update(&tar);
    assert_eq!(
        hash.finish().to_string(),
        diff_id,
        "the diff ID is the digest of the uncompressed layer"
    );
    let mut reader = TarReader::new(tar.as_slice());
    let mut files = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    while let Some(entry) = reader.next().unwrap() {
        let mut content = Vec::new();
        reader.content().read_to_end(&mut content).unwrap();
        if let EntryKind::HardLink { target } = &entry.kind {
            assert!(seen.contains(target), "a hard link comes after its target");
        }
        assert!(
            seen.insert(entry.path.clone()),
            "{} stands twice in a layer",
            text(&entry.path)
        );
        files.push(FileInfo { entry, content });
    }
    files
}

/// Reads a blob and checks it against its descriptor.
fn blob(layout: &Path, descriptor: &Value) -> Vec<u8> {
    let digest: Digest = descriptor["digest"].as_str().unwrap().parse().unwrap();
    let path: PathBuf = layout.join("blobs/sha256").join(digest.hex());
    let mut bytes = Vec::new();
    File::open(&path).unwrap().read_to_end(&mut bytes).unwrap();
    assert_eq!(Digest::of(&bytes), digest, "{}", path.display());
    assert_eq!(descriptor["size"], bytes.len());
    bytes
}

fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

fn text(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}
