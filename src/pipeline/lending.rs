//! What the command line lends to steps, looked at when the build begins and read when the first step is about to be executed.
//!
//! In: the request. Out: [`Credentials`]. Everything is found before anything is built; values are read only by builds that
//! execute something, so a build whose every step is known touches no secret.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt as _, FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Failure;
use crate::vocab::{
    AgentSource, BuildRequest, Diagnostic, Event, EventSink, ExitCode, Secret, SecretSource,
};
use crate::worker::{AgentAccess, Credentials, PrivateKey};

/// BuildKit's limit.
const SECRET: u64 = 500 << 10;
const KEY: u64 = 100 << 10;

/// Sees to it that everything is there.
pub(super) fn check(request: &BuildRequest) -> Result<(), Failure> {
    for (id, source) in &request.secrets {
        if let SecretSource::File(path) = source {
            let wrong = |why: &str| {
                Err(usage(format!(
                    "the secret `{id}` cannot be `{}`: {why}",
                    path.display()
                )))
            };
            match fs::metadata(path) {
                Err(error) => {
                    let failure = usage(format!("cannot find the secret `{id}`"));
                    return Err(add(failure, |it| {
                        it.cause(format!("`{}`: {error}", path.display())).hint(
                            "`--secret id=ID,src=FILE` names a file, `--secret id=ID,env=NAME` a variable",
                        )
                    }));
                }
                Ok(metadata) if metadata.is_dir() => return wrong("it is a directory"),
                Ok(metadata) if metadata.len() > SECRET => {
                    return wrong("it is larger than 500 KiB");
                }
                Ok(_) => {}
            }
        }
    }
    for (id, source) in &request.agents {
        match source {
            AgentSource::Environment => drop(socket_of_environment(id)?),
            AgentSource::Paths(paths) => {
                let mut sockets = 0;
                for path in paths {
                    let metadata =
                        fs::metadata(path).map_err(|error| not_found(id, path, &error))?;
                    sockets += usize::from(metadata.file_type().is_socket());
                }
                if sockets > 0 && paths.len() > 1 {
                    return Err(usage(format!(
                        "the SSH agent `{id}` is either one socket, or keys"
                    )));
                }
            }
        }
    }
    emulators(request).map(drop)
}

/// Reads the secrets that are for repositories, by ID: they are needed before anything is known to be missing.
pub(super) fn for_repositories(
    request: &BuildRequest,
) -> Result<BTreeMap<String, Secret<String>>, Failure> {
    let mut secrets = BTreeMap::new();
    for (id, source) in &request.secrets {
        if !is_for_repositories(id) {
            continue;
        }
        let value = secret(id, source)?.unwrap_or_default();
        let value = String::from_utf8(value).map_err(|_| {
            usage(format!(
                "the secret `{id}` is no text, as a token or header has to be"
            ))
        })?;
        secrets.insert(id.clone(), Secret::new(value));
    }
    Ok(secrets)
}

/// Tells whether a secret is a login by its ID: `GIT_AUTH_TOKEN[.HOST]`, `HTTP_AUTH_TOKEN_HOST`, and both with HEADER.
fn is_for_repositories(id: &str) -> bool {
    const BEGINNINGS: [&str; 4] = [
        "GIT_AUTH_TOKEN",
        "GIT_AUTH_HEADER",
        "HTTP_AUTH_TOKEN_",
        "HTTP_AUTH_HEADER_",
    ];
    BEGINNINGS.iter().any(|beginning| id.starts_with(beginning))
}

/// Reads everything.
pub(super) fn read(request: &BuildRequest, events: &dyn EventSink) -> Result<Credentials, Failure> {
    let mut credentials = Credentials {
        emulators: emulators(request)?,
        ..Credentials::default()
    };
    for (id, source) in &request.secrets {
        let value = match (secret(id, source)?, source) {
            (None, SecretSource::Variable(name)) => {
                // As in BuildKit: scripts count on it.
                let warning =
                    format!("the secret `{id}` is empty: the variable `{name}` is not set");
                events.emit(Event::Diagnostic(Diagnostic::warning(warning)));
                Vec::new()
            }
            (value, _) => value.unwrap_or_default(),
        };
        credentials.secrets.insert(id.clone(), Secret::new(value));
    }
    for (id, source) in &request.agents {
        let access = match source {
            AgentSource::Environment => AgentAccess::Socket(socket_of_environment(id)?),
            AgentSource::Paths(paths) => agent(id, paths)?,
        };
        credentials.agents.insert(id.clone(), Arc::new(access));
    }
    Ok(credentials)
}

/// Returns a secret's value; `None` for a variable that is not set.
fn secret(id: &str, source: &SecretSource) -> Result<Option<Vec<u8>>, Failure> {
    use std::os::unix::ffi::OsStringExt;
    match source {
        SecretSource::File(path) => read_limited(path, SECRET).map(Some).map_err(|error| {
            add(usage(format!("cannot read the secret `{id}`")), |it| {
                it.cause(format!("`{}`: {error}", path.display()))
            })
        }),
        SecretSource::Variable(name) => {
            let value = std::env::var_os(name).map(OsStringExt::into_vec);
            if value
                .as_ref()
                .is_some_and(|value| value.len() as u64 > SECRET)
            {
                return Err(usage(format!("the secret `{id}` is larger than 500 KiB")));
            }
            Ok(value)
        }
    }
}

fn agent(id: &str, paths: &[PathBuf]) -> Result<AgentAccess, Failure> {
    let mut keys = Vec::with_capacity(paths.len());
    for path in paths {
        let metadata = fs::metadata(path).map_err(|error| not_found(id, path, &error))?;
        if metadata.file_type().is_socket() {
            return Ok(AgentAccess::Socket(absolute(path)));
        }
        let refuse = |why: String, hint: Option<&str>| {
            let failure = usage(format!(
                "`{}` cannot be a key of the SSH agent `{id}`",
                path.display()
            ));
            add(failure, |it| match hint {
                Some(hint) => it.cause(why).hint(hint),
                None => it.cause(why),
            })
        };
        let text = read_limited(path, KEY).map_err(|error| refuse(error.to_string(), None))?;
        let text = Secret::new(text);
        keys.push(PrivateKey::parse(text.reveal()).map_err(|error| {
            let hint = match error {
                crate::worker::KeyError::Encrypted => Some(
                    "add it to an agent (`ssh-add`), and give the agent: `--ssh ID` or `--ssh ID=SOCKET`",
                ),
                crate::worker::KeyError::NotAKey => {
                    Some("wanted a socket of an agent, or a private key (not the `.pub` file)")
                }
                crate::worker::KeyError::Unsupported(_) => {
                    Some("add it to an agent (`ssh-add`), which can have any key")
                }
                _ => None,
            };
            refuse(error.to_string(), hint)
        })?);
    }
    Ok(AgentAccess::Keys(keys))
}

fn socket_of_environment(id: &str) -> Result<PathBuf, Failure> {
    const VARIABLE: &str = "SSH_AUTH_SOCK";
    let hint = "start an agent (`eval $(ssh-agent)`, `ssh-add`), or name a socket or a key: `--ssh ID=PATH`";
    let path = std::env::var_os(VARIABLE).filter(|path| !path.is_empty());
    let Some(path) = path.map(PathBuf::from) else {
        let failure = usage(format!(
            "there is no SSH agent to give as `{id}`: {VARIABLE} is not set"
        ));
        return Err(add(failure, |it| it.hint(hint)));
    };
    let is_socket = fs::metadata(&path).map(|metadata| metadata.file_type().is_socket());
    let why = match is_socket {
        Ok(true) => return Ok(absolute(&path)),
        Ok(false) => "it is no socket".to_owned(),
        Err(error) => error.to_string(),
    };
    let failure = usage(format!("there is no SSH agent to give as `{id}`"));
    Err(add(failure, |it| {
        it.cause(format!("`{}` of {VARIABLE}: {why}", path.display()))
            .hint(hint)
    }))
}

/// Opens the emulators.
fn emulators(request: &BuildRequest) -> Result<BTreeMap<String, File>, Failure> {
    let mut opened = BTreeMap::new();
    for emulator in &request.emulators {
        let refuse = |why: String| {
            let failure = usage(format!(
                "`{}` cannot be the emulator of {}",
                emulator.path.display(),
                emulator.architecture
            ));
            add(failure, |it| {
                it.cause(why).hint(
                    "wanted a static qemu-user of this machine: package `qemu-user-static` (Debian, Ubuntu, Fedora)",
                )
            })
        };
        let open = || -> io::Result<File> {
            let file = File::open(&emulator.path)?;
            let metadata = file.metadata()?;
            if !metadata.is_file() || metadata.permissions().mode() & 0o111 == 0 {
                return Err(io::Error::other("it is no program"));
            }
            if is_dynamic(&file)? {
                return Err(io::Error::other(
                    "it needs libraries, which are not in the images that it is to run",
                ));
            }
            Ok(file)
        };
        let file = open().map_err(|error| refuse(error.to_string()))?;
        opened.insert(emulator.architecture.clone(), file);
    }
    Ok(opened)
}

/// Tells whether an ELF file of 64 bits names an interpreter, that is, the loader of its libraries.
fn is_dynamic(file: &File) -> io::Result<bool> {
    const INTERPRETER: u32 = 3;
    let mut header = [0; 64];
    if file.read_exact_at(&mut header, 0).is_err() || !header.starts_with(b"\x7fELF\x02\x01") {
        // Of another kind, or none: the kernel will tell.
        return Ok(false);
    }
    let short = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
    let table = u64::from_le_bytes(header[32..40].try_into().expect("eight bytes"));
    let (size, count) = (u64::from(short(54)), u64::from(short(56)));
    for number in 0..count {
        let mut kind = [0; 4];
        let at = table.saturating_add(number * size);
        if file.read_exact_at(&mut kind, at).is_ok() && u32::from_le_bytes(kind) == INTERPRETER {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Reads a file or pipe that is not longer than `limit`.
fn read_limited(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::other(format!(
            "it is larger than {} KiB",
            limit >> 10
        )));
    }
    Ok(bytes)
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn not_found(id: &str, path: &Path, error: &io::Error) -> Failure {
    let failure = usage(format!("cannot find what answers for the SSH agent `{id}`"));
    add(failure, |it| {
        it.cause(format!("`{}`: {error}", path.display()))
    })
}

fn usage(message: String) -> Failure {
    Failure::new(ExitCode::Usage, Diagnostic::error(message))
}

/// Adds to the only diagnostic of a failure.
fn add(mut failure: Failure, more: impl FnOnce(Diagnostic) -> Diagnostic) -> Failure {
    let diagnostic = failure.diagnostics.pop();
    failure.diagnostics.extend(diagnostic.map(more));
    failure
}
