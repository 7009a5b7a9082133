//! What RUN needs leave for: devices, `--security=insecure`, the host's network.
//!
//! A Dockerfile is somebody's program; whoever builds it decides with `--allow` what it may ask for.

use super::build::StageBuilder;
use super::report::Reported;
use super::{Device, paths};
use crate::dockerfile::{Run, Word};
use crate::vocab::{Diagnostic, NetworkMode, Security};

impl StageBuilder<'_> {
    /// Returns the devices of a RUN. All mistakes are told.
    pub(super) fn devices(&mut self, run: &Run) -> Result<Vec<Device>, Reported> {
        let mut devices = Vec::with_capacity(run.devices.len());
        let mut failed = false;
        for word in &run.devices {
            match self.device(word) {
                Ok(device) => devices.push(device),
                Err(Reported) => failed = true,
            }
        }
        if failed { Err(Reported) } else { Ok(devices) }
    }

    fn device(&mut self, word: &Word) -> Result<Device, Reported> {
        let mut device = Device {
            name: String::new(),
            required: false,
        };
        // The parser has seen to it that there is one name and nothing unknown.
        for field in word.value.split(',') {
            let (key, value) = field.split_once('=').unwrap_or((field, "true"));
            match key.to_ascii_lowercase().as_str() {
                "required" => {
                    device.required =
                        !matches!(value, "0" | "f" | "F" | "false" | "FALSE" | "False")
                }
                "name" if field.contains('=') => value.clone_into(&mut device.name),
                _ => field.clone_into(&mut device.name),
            }
        }
        let is_path = device.name.starts_with('/');
        if is_path {
            device.name = paths::resolve("/", &device.name);
        }
        if !is_path && !is_qualified(&device.name) {
            let error = Diagnostic::error(format!("`{}` names no device", device.name)).hint(
                "write a path such as `/dev/fuse`, or a name of the Container Device Interface: `vendor.com/class=name`",
            );
            return Err(self.refuse(error.at(word.span)));
        }
        if is_path && !device.name.starts_with("/dev/") {
            let error = Diagnostic::error(format!("`{}` is not below `/dev`", device.name));
            return Err(self.refuse(error.at(word.span)));
        }
        if !self.planning.inputs.allowed.device(&device.name) {
            let error = Diagnostic::error(format!(
                "RUN needs leave to use the device `{}`",
                device.name
            ));
            let error = error.hint(format!(
                "give it by building with `--allow device={}`, or `--allow device` for every one",
                device.name
            ));
            return Err(self.refuse(error.at(word.span)));
        }
        Ok(device)
    }

    /// Returns how far the command is confined.
    pub(super) fn security(&mut self, run: &Run) -> Result<Security, Reported> {
        let Some(word) = &run.security else {
            return Ok(Security::Sandbox);
        };
        let error = match word.value.as_str() {
            "sandbox" => return Ok(Security::Sandbox),
            "insecure" if self.planning.inputs.allowed.security_insecure => {
                return Ok(Security::Insecure);
            }
            "insecure" => Diagnostic::error(
                "`RUN --security=insecure` needs leave to run without confinement",
            )
            .hint("give it by building with `--allow security.insecure`"),
            other => Diagnostic::error(format!("`{other}` is not a security mode of RUN"))
                .hint("wanted `sandbox` or `insecure`"),
        };
        Err(self.refuse(error.at(word.span)))
    }

    /// Returns the network of the command.
    pub(super) fn network(&mut self, run: &Run) -> Result<NetworkMode, Reported> {
        let inputs = self.planning.inputs;
        let asked = inputs.network;
        let Some(word) = &run.network else {
            return Ok(asked);
        };
        let may_host = asked == NetworkMode::Host || inputs.allowed.network_host;
        let error = match word.value.as_str() {
            "default" => return Ok(asked),
            "none" => return Ok(NetworkMode::None),
            "host" if may_host => return Ok(NetworkMode::Host),
            "host" => {
                Diagnostic::error("`RUN --network=host` needs leave to use the host's network")
                    .hint("give it by building with `--allow network.host` or `--network=host`")
            }
            other => Diagnostic::error(format!("`{other}` is not a network of RUN"))
                .hint("wanted `default`, `none` or `host`"),
        };
        Err(self.refuse(error.at(word.span)))
    }
}

/// `vendor.com/class`, with or without `=name`.
fn is_qualified(name: &str) -> bool {
    let (kind, device) = name.split_once('=').unwrap_or((name, "*"));
    let Some((vendor, class)) = kind.split_once('/') else {
        return false;
    };
    let word = |text: &str, more: &[u8]| {
        !text.is_empty()
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || more.contains(&byte))
    };
    word(vendor, b".-_") && word(class, b"-_") && (device == "*" || word(device, b".-_:"))
}
