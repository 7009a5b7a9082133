//! What the command line gives to steps: secrets, agents, leave, emulators.
//!
//! In: values of `--secret`, `--ssh`, `--allow`, `--emulator` as typed. Out: where things are, never what is in them: files and
//! variables are read by the pipeline, and only if a step is executed.

use std::path::PathBuf;

use crate::pipeline::Failure;
use crate::vocab::{AgentSource, Allowed, EmulatorProgram, SecretSource, nearest};

use super::usage;

/// The names that platforms have for architectures that `--emulator` can serve.
const ARCHITECTURES: [&str; 9] = [
    "386", "amd64", "arm", "arm64", "loong64", "mips64le", "ppc64le", "riscv64", "s390x",
];

/// Reads one `--secret id=ID[,src=PATH|,env=NAME][,type=file|env]`. `is_set` tells of a variable of the environment.
pub(super) fn secret(
    text: &str,
    is_set: &dyn Fn(&str) -> bool,
) -> Result<(String, SecretSource), Failure> {
    let (mut id, mut path, mut variable, mut kind) = ("", "", "", "");
    for field in text.split(',') {
        let Some((key, value)) = field.split_once('=') else {
            return Err(hinted(
                format!("`--secret {text}`: `{field}` is not KEY=VALUE"),
                "write `--secret id=ID,src=PATH` or `--secret id=ID,env=NAME`",
            ));
        };
        match key.to_ascii_lowercase().as_str() {
            "id" => id = value,
            "source" | "src" => path = value,
            "env" => variable = value,
            "type" if ["file", "env"].contains(&value) => kind = value,
            "type" => {
                return Err(hinted(
                    format!("`--secret {text}`: there is no type `{value}`"),
                    "types are `file` and `env`",
                ));
            }
            _ => {
                let failure = format!("`--secret {text}`: there is no key `{key}`");
                let keys = ["id", "src", "source", "env", "type"];
                return Err(match nearest(key, keys) {
                    Some(near) => hinted(failure, &format!("did you mean `{near}`?")),
                    None => hinted(failure, "keys are id, src, env and type"),
                });
            }
        }
    }
    if id.is_empty() {
        return Err(hinted(
            format!("`--secret {text}` has no id"),
            "the id is what `RUN --mount=type=secret,id=ID` asks for",
        ));
    }
    if kind == "env" && variable.is_empty() {
        // `src` names the variable then.
        (variable, path) = (path, "");
    }
    let source = match (variable, path) {
        ("", "") if kind != "file" && (kind == "env" || is_set(id)) => {
            SecretSource::Variable(id.to_owned())
        }
        ("", "") => SecretSource::File(PathBuf::from(id)),
        ("", path) => SecretSource::File(PathBuf::from(path)),
        (variable, _) => SecretSource::Variable(variable.to_owned()),
    };
    Ok((id.to_owned(), source))
}

/// Reads one `--ssh ID[=SOCKET|KEY[,KEY]]`.
pub(super) fn agent(text: &str) -> Result<(String, AgentSource), Failure> {
    let (id, paths) = text.split_once('=').unwrap_or((text, ""));
    let id = if id.is_empty() { "default" } else { id };
    if paths.is_empty() {
        return Ok((id.to_owned(), AgentSource::Environment));
    }
    let mut found = Vec::new();
    for path in paths.split(',') {
        if path.is_empty() {
            return Err(usage(format!("`--ssh {text}` names an empty path")));
        }
        if let Some((option, _)) = path.split_once('=')
            && option == "raw"
        {
            return Err(hinted(
                format!("`--ssh {text}`: `raw` is not supported"),
                "steps get an agent that lists keys and signs, and nothing else",
            ));
        }
        found.push(PathBuf::from(path));
    }
    Ok((id.to_owned(), AgentSource::Paths(found)))
}

/// Reads the agents, of which each ID may have one.
pub(super) fn agents(typed: &[String]) -> Result<Vec<(String, AgentSource)>, Failure> {
    let mut agents: Vec<(String, AgentSource)> = Vec::with_capacity(typed.len());
    for text in typed {
        let (id, source) = agent(text)?;
        if agents.iter().any(|(known, _)| *known == id) {
            return Err(usage(format!("`--ssh` gives the agent `{id}` twice")));
        }
        agents.push((id, source));
    }
    Ok(agents)
}

/// Reads every `--allow`.
pub(super) fn allowed(typed: &[String]) -> Result<Allowed, Failure> {
    let mut allowed = Allowed::default();
    for text in typed {
        match text.split_once('=').unwrap_or((text, "")) {
            ("network.host", "") => allowed.network_host = true,
            ("security.insecure", "") => allowed.security_insecure = true,
            ("device", "") => allowed.every_device = true,
            ("device", name) => allowed.devices.push(name.to_owned()),
            (other, _) => {
                let failure = format!("`--allow {text}`: there is no such leave to give");
                let known = ["network.host", "security.insecure", "device"];
                return Err(match nearest(other, known) {
                    Some(near) => hinted(failure, &format!("did you mean `{near}`?")),
                    None => hinted(
                        failure,
                        "it is `network.host`, `security.insecure`, `device` or `device=NAME`",
                    ),
                });
            }
        }
    }
    Ok(allowed)
}

/// Reads one `--emulator ARCH=PATH`.
pub(super) fn emulator(text: &str) -> Result<EmulatorProgram, Failure> {
    let (architecture, path) = match text.split_once('=') {
        Some((architecture, path)) if !architecture.is_empty() && !path.is_empty() => {
            (architecture, path)
        }
        _ => {
            return Err(hinted(
                format!("`--emulator {text}` is not ARCH=PATH"),
                "such as `--emulator arm64=/usr/bin/qemu-aarch64-static`",
            ));
        }
    };
    let architecture = match architecture {
        "x86_64" | "x86-64" => "amd64",
        "aarch64" => "arm64",
        "i386" | "i686" => "386",
        other => other,
    };
    if !ARCHITECTURES.contains(&architecture) {
        let failure = format!("`--emulator {text}`: there is no architecture `{architecture}`");
        return Err(match nearest(architecture, ARCHITECTURES) {
            Some(near) => hinted(failure, &format!("did you mean `{near}`?")),
            None => hinted(failure, &format!("they are {}", ARCHITECTURES.join(", "))),
        });
    }
    Ok(EmulatorProgram {
        architecture: architecture.to_owned(),
        path: PathBuf::from(path),
    })
}

fn hinted(message: String, hint: &str) -> Failure {
    let mut failure = usage(message);
    failure.diagnostics[0].hints.push(hint.to_owned());
    failure
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_files_or_variables() {
        let file = |path: &str| Some(SecretSource::File(path.into()));
        let variable = |name: &str| Some(SecretSource::Variable(name.to_owned()));
        for (text, wanted) in [
            ("id=x,src=/f", file("/f")),
            ("ID=x,source=f", file("f")),
            ("id=x,env=E", variable("E")),
            ("id=x,env=E,src=/f", variable("E")),
            ("id=x,src=E,type=env", variable("E")),
            ("id=x,type=env", variable("x")),
            ("id=x", file("x")),
            ("id=SET", variable("SET")),
            ("id=SET,type=file", file("SET")),
            ("id=x,src=/f,type=file", file("/f")),
            ("src=/f", None),
            ("id=,src=/f", None),
            ("id", None),
            ("id=x,type=other", None),
            ("id=x,sorce=/f", None),
            ("", None),
        ] {
            let found = secret(text, &|name| name == "SET").ok();
            assert_eq!(found.map(|(_, source)| source), wanted, "{text}");
        }
    }

    #[test]
    fn agents_are_sockets_or_keys() {
        let paths = |paths: &[&str]| AgentSource::Paths(paths.iter().map(PathBuf::from).collect());
        for (text, id, wanted) in [
            ("default", "default", AgentSource::Environment),
            ("", "default", AgentSource::Environment),
            ("a=", "a", AgentSource::Environment),
            ("a=/s", "a", paths(&["/s"])),
            ("=/s", "default", paths(&["/s"])),
            ("a=/k1,k2", "a", paths(&["/k1", "k2"])),
        ] {
            assert_eq!(agent(text).ok(), Some((id.to_owned(), wanted)), "{text}");
        }
        assert!(agent("a=/s,,").is_err());
        assert!(agent("a=/s,raw=true").is_err());
        assert!(agents(&["a".to_owned(), "a=/s".to_owned()]).is_err());
    }

    #[test]
    fn leave_is_given_by_known_names() {
        let given = ["network.host", "device=/dev/fuse", "device=v.com/c"].map(str::to_owned);
        let allowed_now = allowed(&given).unwrap();
        assert!(allowed_now.network_host && !allowed_now.security_insecure);
        assert!(allowed_now.device("/dev/fuse") && allowed_now.device("v.com/c=0"));
        assert!(!allowed_now.device("/dev/kvm") && !allowed_now.device("v.com/other=0"));
        assert!(allowed(&["device".to_owned()]).unwrap().device("/dev/kvm"));
        for wrong in ["", "network.none", "security.insecure=1", "fs.read=/"] {
            assert!(allowed(&[wrong.to_owned()]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn emulators_have_an_architecture_and_a_path() {
        for (text, wanted) in [
            ("arm64=/q", Some("arm64")),
            ("aarch64=/q", Some("arm64")),
            ("x86_64=q", Some("amd64")),
            ("arm65=/q", None),
            ("arm64=", None),
            ("arm64", None),
            ("=/q", None),
        ] {
            let found = emulator(text).ok().map(|found| found.architecture);
            assert_eq!(found.as_deref(), wanted, "{text}");
        }
    }
}
