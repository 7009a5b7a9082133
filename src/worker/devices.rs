//! Devices of the machine for RUN: by path, or by a name of the Container Device Interface (CDI).
//!
//! In: the `--device` flags of a step, already allowed. Out: device nodes, variables, mounts and groups for its command. A device
//! that is not there is left out, unless it is required.

use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;

use crate::plan::Device;
use crate::sandbox::{DeviceNode, DevicePermissions};
use crate::solve::StepError;
use crate::vocab::ExitCode;

use super::cdi::Specs;
use super::mounts::Given;

/// Where specs are, the least important first.
const FOLDERS: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];
/// Directories of devices, such as /dev/snd, have few levels.
const DEPTH: usize = 4;

/// Why a step does not get a device.
#[derive(Debug, thiserror::Error)]
pub(super) enum DeviceError {
    #[error("the device `{name}` is not there: looked in {folders}")]
    NotFound {
        name: String,
        folders: String,
        /// Specs that could not be read.
        damaged: Vec<String>,
    },
    #[error("the device `{name}` is not there")]
    NoNode {
        name: String,
        #[source]
        source: io::Error,
    },
    #[error("`{name}` is no device")]
    NoDevice { name: String },
    #[error("`{name}` is described twice: in `{one}` and in `{other}`")]
    Twice {
        name: String,
        one: String,
        other: String,
    },
    #[error("the device `{name}` wants hooks, which are not run: {hooks}")]
    Hooks { name: String, hooks: String },
    #[error("the device `{name}` wants what steps cannot have: {what}")]
    Unsupported { name: String, what: String },
    #[error("the device `{name}` wants a mount of `{path}`")]
    Mount {
        name: String,
        path: String,
        #[source]
        source: io::Error,
    },
}

impl DeviceError {
    /// Tells whether a step that does not require the device goes on without it.
    fn is_absence(&self) -> bool {
        matches!(
            self,
            DeviceError::NotFound { .. } | DeviceError::NoNode { .. }
        )
    }
}

/// Adds the devices to what the command is given.
pub(super) fn give(devices: &[Device], given: &mut Given) -> Result<(), StepError> {
    if devices.is_empty() {
        return Ok(());
    }
    let folders: Vec<PathBuf> = FOLDERS.iter().map(PathBuf::from).collect();
    give_from(devices, &folders, given).map_err(|error| {
        let mut failure = StepError::new(ExitCode::Step, error.to_string());
        if let Some(source) = std::error::Error::source(&error) {
            failure = failure.caused_by(source);
        }
        match &error {
            DeviceError::NotFound { damaged, .. } => {
                failure.causes.extend(damaged.iter().cloned());
                failure
            }
            DeviceError::Hooks { .. } => failure.hint(
                "name the device nodes one by one: `--device=/dev/…`, and mount the files that go with them",
            ),
            _ => failure,
        }
    })
}

fn give_from(
    devices: &[Device],
    folders: &[PathBuf],
    given: &mut Given,
) -> Result<(), DeviceError> {
    let mut specs = None;
    // The edits of a spec are for all its devices together.
    let mut edited = Vec::new();
    for device in devices {
        let found = match device.name.starts_with('/') {
            true => nodes_at(&device.name).map(|nodes| given.devices.extend(nodes)),
            false => {
                let specs = specs.get_or_insert_with(|| Specs::read(folders));
                specs.find(&device.name).and_then(|found| {
                    for (spec, one) in found {
                        if !edited.contains(&spec) {
                            edited.push(spec);
                            specs.list[spec]
                                .spec
                                .container_edits
                                .apply(&device.name, given)?;
                        }
                        one.container_edits.apply(&device.name, given)?;
                    }
                    Ok(())
                })
            }
        };
        match found {
            Err(error) if error.is_absence() && !device.required => {}
            other => other?,
        }
    }
    Ok(())
}

/// Returns the device node at `path`, or all below it.
fn nodes_at(path: &str) -> Result<Vec<DeviceNode>, DeviceError> {
    let mut nodes = Vec::new();
    collect(path, DEPTH, &mut nodes).map_err(|source| DeviceError::NoNode {
        name: path.to_owned(),
        source,
    })?;
    if nodes.is_empty() {
        return Err(DeviceError::NoDevice {
            name: path.to_owned(),
        });
    }
    Ok(nodes)
}

fn collect(path: &str, depth: usize, nodes: &mut Vec<DeviceNode>) -> io::Result<()> {
    let kind = fs::metadata(path)?.file_type();
    if kind.is_char_device() || kind.is_block_device() {
        nodes.push(DeviceNode {
            source: PathBuf::from(path),
            path: path.to_owned(),
            permissions: DevicePermissions {
                read: true,
                write: true,
                mknod: true,
            },
            uid: None,
            gid: None,
            mode: None,
        });
    } else if kind.is_dir() && depth > 0 {
        let mut names: Vec<_> = fs::read_dir(path)?.collect::<io::Result<_>>()?;
        names.sort_by_key(fs::DirEntry::file_name);
        for entry in names {
            if let Ok(name) = entry.file_name().into_string() {
                collect(&format!("{path}/{name}"), depth - 1, nodes)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const JSON: &str = r#"{
        "cdiVersion": "0.6.0",
        "kind": "v.com/gpu",
        "containerEdits": { "env": ["ALL=1"] },
        "devices": [
            { "name": "0", "containerEdits": {
                "env": ["ONE=a=b"],
                "deviceNodes": [
                    { "path": "/dev/gpu0", "hostPath": "/dev/null", "type": "c", "major": 1, "minor": 3,
                      "permissions": "r", "fileMode": 384, "uid": 5 }
                ],
                "mounts": [ { "hostPath": "/", "containerPath": "/host", "options": ["ro", "rbind"] } ],
                "additionalGids": [44]
            } },
            { "name": "1", "annotations": { "org.mobyproject.buildkit.device.class": "fast" },
              "containerEdits": { "deviceNodes": [ { "path": "/dev/zero" } ], "intelRdt": {} } },
            { "name": "hooked", "containerEdits": {
                "hooks": [ { "hookName": "createContainer", "path": "/usr/bin/x", "args": ["x"] } ] } },
            { "name": "strange", "containerEdits": { "netDevices": [ { "hostInterfaceName": "eth0" } ] } }
        ]
    }"#;
    const YAML: &str = "cdiVersion: 0.5.0\nkind: v.com/gpu\ndevices:\n- name: \"1\"\n  containerEdits:\n    env:\n    - FROM=yaml\n";

    fn folders() -> (tempfile::TempDir, Vec<PathBuf>) {
        let directory = tempfile::tempdir().unwrap();
        let folders: Vec<PathBuf> = ["a", "b", "missing"]
            .iter()
            .map(|name| directory.path().join(name))
            .collect();
        fs::create_dir(&folders[0]).unwrap();
        fs::create_dir(&folders[1]).unwrap();
        fs::write(folders[0].join("gpu.json"), JSON).unwrap();
        fs::write(folders[0].join("notes.txt"), "not a spec").unwrap();
        (directory, folders)
    }

    fn given(names: &[&str], folders: &[PathBuf]) -> Result<Given, DeviceError> {
        let devices: Vec<Device> = names
            .iter()
            .map(|name| Device {
                name: (*name).trim_end_matches('!').to_owned(),
                required: name.ends_with('!'),
            })
            .collect();
        let mut given = Given::default();
        give_from(&devices, folders, &mut given).map(|()| given)
    }

    fn told(given: &Given) -> String {
        let mut words: Vec<String> = given
            .env
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        words.extend(
            given
                .devices
                .iter()
                .map(|node| format!("{}:{}", node.source.display(), node.path)),
        );
        words.extend(given.mounts.iter().map(|mount| mount.target.clone()));
        words.join(" ")
    }

    #[test]
    fn names_find_one_the_first_all_or_a_class() {
        let (_kept, folders) = folders();
        for (name, wanted) in [
            ("v.com/gpu=0", "ALL=1 ONE=a=b /dev/null:/dev/gpu0 /host"),
            ("v.com/gpu", "ALL=1 ONE=a=b /dev/null:/dev/gpu0 /host"),
            ("v.com/gpu=1", "ALL=1 /dev/zero:/dev/zero"),
            ("v.com/gpu=fast", "ALL=1 /dev/zero:/dev/zero"),
            ("v.com/other=0", ""),
            ("/dev/null", "/dev/null:/dev/null"),
            ("/dev/none", ""),
        ] {
            assert_eq!(told(&given(&[name], &folders).unwrap()), wanted, "{name}");
        }
        let zero = given(&["v.com/gpu=0", "v.com/gpu=1"], &folders).unwrap();
        assert_eq!(
            told(&zero),
            "ALL=1 ONE=a=b /dev/null:/dev/gpu0 /dev/zero:/dev/zero /host",
            "a spec's own edits are made once"
        );
        let node = &zero.devices[0];
        assert!(node.permissions.read && !node.permissions.write);
        assert_eq!(
            (node.mode, node.uid, node.gid),
            (Some(0o600), Some(5), None)
        );
        assert_eq!(zero.groups, [44]);
    }

    #[test]
    fn a_later_folder_goes_first_and_equal_names_in_one_are_refused() {
        let (_kept, folders) = folders();
        fs::write(folders[1].join("gpu.yaml"), YAML).unwrap();
        assert_eq!(
            told(&given(&["v.com/gpu=1"], &folders).unwrap()),
            "FROM=yaml"
        );
        fs::write(folders[1].join("more.yml"), YAML).unwrap();
        let error = given(&["v.com/gpu=0"], &folders).err().unwrap();
        assert!(
            error
                .to_string()
                .starts_with("`v.com/gpu=1` is described twice"),
            "{error}"
        );
    }

    #[test]
    fn what_cannot_be_given_is_refused() {
        let (_kept, folders) = folders();
        let error = |name: &str| given(&[name], &folders).err().unwrap().to_string();
        assert_eq!(
            error("v.com/gpu=hooked"),
            "the device `v.com/gpu=hooked` wants hooks, which are not run: createContainer `/usr/bin/x`"
        );
        assert_eq!(
            error("v.com/gpu=strange"),
            "the device `v.com/gpu=strange` wants what steps cannot have: `netDevices`"
        );
        assert!(error("v.com/gpu=2!").contains("is not there: looked in `"));
        assert_eq!(error("/dev/none!"), "the device `/dev/none` is not there");
        assert_eq!(error("/etc/passwd"), "`/etc/passwd` is no device");
        fs::write(folders[1].join("torn.json"), "{").unwrap();
        match given(&["v.com/x!"], &folders).err().unwrap() {
            DeviceError::NotFound { damaged, .. } => {
                assert!(
                    damaged[0].contains("torn.json` cannot be read"),
                    "{damaged:?}"
                );
            }
            other => panic!("{other}"),
        }
    }
}
