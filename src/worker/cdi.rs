//! Specs of the Container Device Interface: what the machine's administrator or a driver says of devices.
//!
//! In: folders with `.json` and `.yaml` files. Out: devices by name, and what each adds to a command. A spec in a later folder goes
//! before one in an earlier. What a spec asks for and cannot be given (hooks, which are programs of the host) is refused, never
//! left out.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use serde::Deserialize;
use serde_json::Value;
use yaml_rust2::{Yaml, YamlLoader};

use crate::sandbox::{DeviceNode, DevicePermissions, MountSource, RunMount};

use super::devices::DeviceError;
use super::mounts::Given;

/// A spec is a text of some pages.
const SPEC: u64 = 4 << 20;
/// A name of a group of a spec's devices.
const CLASS: &str = "org.mobyproject.buildkit.device.class";

/// All specs of the machine.
pub(super) struct Specs {
    pub(super) list: Vec<FoundSpec>,
    /// Why others are not among them.
    damaged: Vec<String>,
    folders: String,
}

pub(super) struct FoundSpec {
    path: PathBuf,
    /// The number of its folder.
    priority: usize,
    pub(super) spec: Spec,
}

/// One file (CDI specification, 0.3 and newer).
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Spec {
    kind: String,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) container_edits: Edits,
    devices: Vec<SpecDevice>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SpecDevice {
    name: String,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) container_edits: Edits,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Edits {
    #[serde(default)]
    env: Vec<String>,
    #[serde(default)]
    device_nodes: Vec<SpecNode>,
    #[serde(default)]
    mounts: Vec<SpecMount>,
    #[serde(default)]
    hooks: Vec<Hook>,
    #[serde(default, rename = "additionalGids")]
    additional_gids: Vec<u32>,
    /// What nobody here knows must not be left out in silence.
    #[serde(flatten)]
    others: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SpecNode {
    path: String,
    host_path: Option<PathBuf>,
    #[serde(default, rename = "type")]
    kind: String,
    file_mode: Option<u32>,
    permissions: Option<String>,
    uid: Option<u32>,
    gid: Option<u32>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SpecMount {
    host_path: PathBuf,
    container_path: String,
    #[serde(default)]
    options: Vec<String>,
    #[serde(default, rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Hook {
    hook_name: String,
    path: String,
}

impl Specs {
    /// Reads what is in the folders, the least important first.
    pub(super) fn read(folders: &[PathBuf]) -> Specs {
        let mut specs = Specs {
            list: Vec::new(),
            damaged: Vec::new(),
            folders: folders
                .iter()
                .map(|folder| format!("`{}`", folder.display()))
                .collect::<Vec<_>>()
                .join(" and "),
        };
        for (priority, folder) in folders.iter().enumerate() {
            let entries = fs::read_dir(folder).into_iter().flatten().flatten();
            let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
            paths.sort();
            for path in paths {
                let extension = path.extension().and_then(|extension| extension.to_str());
                if !matches!(extension, Some("json" | "yaml" | "yml")) {
                    continue;
                }
                match read_spec(&path) {
                    Ok(spec) => specs.list.push(FoundSpec {
                        path,
                        priority,
                        spec,
                    }),
                    Err(why) => specs
                        .damaged
                        .push(format!("`{}` cannot be read: {why}", path.display())),
                }
            }
        }
        specs
    }

    /// Returns what a name means: one device, the first of a kind (no `=`), all of a kind (`=*`), or those of a class. With the
    /// number of their spec.
    pub(super) fn find(&self, name: &str) -> Result<Vec<(usize, &SpecDevice)>, DeviceError> {
        let (kind, wanted) = name.split_once('=').unwrap_or((name, ""));
        let mut known: BTreeMap<&str, (usize, &SpecDevice)> = BTreeMap::new();
        for (at, found) in self.list.iter().enumerate() {
            if found.spec.kind != kind {
                continue;
            }
            for device in &found.spec.devices {
                if let Some((other, _)) = known.get(device.name.as_str()) {
                    let other = &self.list[*other];
                    if other.priority == found.priority {
                        return Err(DeviceError::Twice {
                            name: format!("{kind}={}", device.name),
                            one: other.path.display().to_string(),
                            other: found.path.display().to_string(),
                        });
                    }
                }
                known.insert(&device.name, (at, device));
            }
        }
        let all = known.values().copied();
        let found: Vec<_> = match wanted {
            "" => all.take(1).collect(),
            "*" => all.collect(),
            wanted => match known.get(wanted) {
                Some(device) => vec![*device],
                None => all
                    .filter(|(spec, device)| {
                        let annotations = &device.annotations;
                        let class = annotations
                            .get(CLASS)
                            .or_else(|| self.list[*spec].spec.annotations.get(CLASS));
                        class.is_some_and(|class| class == wanted)
                    })
                    .collect(),
            },
        };
        if found.is_empty() {
            return Err(DeviceError::NotFound {
                name: name.to_owned(),
                folders: self.folders.clone(),
                damaged: self.damaged.clone(),
            });
        }
        Ok(found)
    }
}

impl Edits {
    /// Adds what the edits ask for.
    pub(super) fn apply(&self, name: &str, given: &mut Given) -> Result<(), DeviceError> {
        if !self.hooks.is_empty() {
            let hooks = self.hooks.iter();
            let hooks = hooks.map(|hook| format!("{} `{}`", hook.hook_name, hook.path));
            return Err(DeviceError::Hooks {
                name: name.to_owned(),
                hooks: hooks.collect::<Vec<_>>().join(", "),
            });
        }
        let unsupported = |what: String| {
            Err(DeviceError::Unsupported {
                name: name.to_owned(),
                what,
            })
        };
        if let Some((other, _)) = self.others.iter().find(|(_, value)| !is_nothing(value)) {
            return unsupported(format!("`{other}`"));
        }
        for pair in &self.env {
            match pair.split_once('=') {
                Some((variable, value)) if !variable.is_empty() => {
                    given.env.retain(|(known, _)| known != variable);
                    given.env.push((variable.to_owned(), value.to_owned()));
                }
                _ => return unsupported(format!("the variable `{pair}`")),
            }
        }
        for node in &self.device_nodes {
            if !matches!(node.kind.as_str(), "" | "b" | "c" | "u") {
                return unsupported(format!("a device node of type `{}`", node.kind));
            }
            let permissions = node.permissions.as_deref().unwrap_or("rwm");
            let has = |letter| permissions.contains(letter);
            given.devices.push(DeviceNode {
                source: node
                    .host_path
                    .clone()
                    .unwrap_or_else(|| PathBuf::from(&node.path)),
                path: node.path.clone(),
                permissions: DevicePermissions {
                    read: has('r'),
                    write: has('w'),
                    mknod: has('m'),
                },
                uid: node.uid,
                gid: node.gid,
                mode: node.file_mode,
            });
        }
        for mount in &self.mounts {
            if !matches!(mount.kind.as_str(), "" | "bind" | "none") {
                return unsupported(format!("a mount of type `{}`", mount.kind));
            }
            let flags = OFlags::PATH | OFlags::CLOEXEC;
            let fd = rustix::fs::open(&mount.host_path, flags, Mode::empty()).map_err(|error| {
                DeviceError::Mount {
                    name: name.to_owned(),
                    path: mount.host_path.display().to_string(),
                    source: error.into(),
                }
            })?;
            given.mounts.push(RunMount {
                target: mount.container_path.clone(),
                source: MountSource::Tree {
                    fd,
                    read_only: mount.options.iter().any(|option| option == "ro"),
                },
            });
        }
        given.groups.extend(&self.additional_gids);
        Ok(())
    }
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(object) => object.is_empty(),
        _ => false,
    }
}

fn read_spec(path: &Path) -> Result<Spec, String> {
    use std::io::Read as _;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::openat(CWD, path, flags, Mode::empty())
        .map_err(|error| io::Error::from(error).to_string())?;
    let mut text = String::new();
    fs::File::from(file)
        .take(SPEC)
        .read_to_string(&mut text)
        .map_err(|error| error.to_string())?;
    let value = match path
        .extension()
        .is_some_and(|extension| extension == "json")
    {
        true => serde_json::from_str(&text).map_err(|error| error.to_string())?,
        false => {
            let documents = YamlLoader::load_from_str(&text).map_err(|error| error.to_string())?;
            json(documents.first().unwrap_or(&Yaml::Null))?
        }
    };
    serde_json::from_value(value).map_err(|error| error.to_string())
}

/// Returns a YAML value as the JSON that says the same.
fn json(yaml: &Yaml) -> Result<Value, String> {
    Ok(match yaml {
        Yaml::Null => Value::Null,
        Yaml::Boolean(truth) => Value::Bool(*truth),
        Yaml::Integer(number) => Value::from(*number),
        Yaml::Real(number) => number
            .parse::<f64>()
            .map(Value::from)
            .map_err(|error| error.to_string())?,
        Yaml::String(text) => Value::from(text.as_str()),
        Yaml::Array(list) => Value::Array(list.iter().map(json).collect::<Result<_, _>>()?),
        Yaml::Hash(hash) => {
            let pairs = hash.iter().map(|(key, value)| match key {
                Yaml::String(key) => Ok((key.clone(), json(value)?)),
                other => Err(format!("a key that is no text: {other:?}")),
            });
            Value::Object(pairs.collect::<Result<_, String>>()?)
        }
        Yaml::Alias(_) | Yaml::BadValue => return Err("a value that means nothing".to_owned()),
    })
}
