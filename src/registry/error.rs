//! What can go wrong between this machine and a registry, and what a user can do about it.
//!
//! Invariant: no value here holds a password, a token or a URL's query; what a registry said is capped, stripped of control
//! characters and cleaned of the secrets that were sent to it (see [`Said`]).

use std::error::Error;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::cloud::{Cloud, LoginError};
use super::config::Mistake;
use crate::vocab::Digest;

/// Why a call to a registry failed.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The registry answers and does not have it.
    #[error("not found in the registry: `{image}`{said}")]
    NotFound { image: String, said: Said },
    /// The registry knows who asks (or that nobody says) and refuses the action.
    #[error("`{registry}` denied {action} for `{repository}`{said}")]
    Denied {
        registry: String,
        repository: String,
        action: Action,
        had_credentials: bool,
        said: Said,
    },
    /// The user name, password or token was refused.
    #[error("`{registry}` refused the credentials{said}")]
    Unauthorized { registry: String, said: Said },
    /// HTTP 429 to the end.
    #[error("`{registry}` says that there are too many requests{}{said}", after(.retry_after))]
    TooManyRequests {
        registry: String,
        retry_after: Option<Duration>,
        had_credentials: bool,
        said: Said,
    },
    /// Another HTTP status that is no success.
    #[error("`{registry}` answered {action} of `{what}` with status {status}{said}")]
    Status {
        registry: String,
        action: Action,
        what: String,
        status: u16,
        retry_after: Option<Duration>,
        said: Said,
    },
    /// An object store or a cache service does not let it be done, and will not.
    #[error("`{host}` refused {action} of `{what}` with status {status}{said}")]
    Refused {
        host: String,
        action: Action,
        what: String,
        status: u16,
        said: Said,
        hint: String,
    },
    /// No keys for an object store.
    #[error("cannot find keys for `{place}`")]
    Keys {
        place: String,
        #[source]
        source: Box<LoginError>,
    },
    /// A URL that is no registry's.
    #[error("`{url}` answered with status {status}")]
    Download {
        url: String,
        status: u16,
        retry_after: Option<Duration>,
    },
    #[error("the bytes of `{what}` have another digest: wanted {expected}, found {found}")]
    DigestMismatch {
        what: String,
        expected: Digest,
        found: Digest,
    },
    #[error("`{what}` has another size: wanted {expected} bytes, found {found}")]
    SizeMismatch {
        what: String,
        expected: u64,
        found: u64,
    },
    #[error("`{what}` is larger than the limit of {limit} bytes")]
    TooLarge { what: String, limit: u64 },
    /// The certificate or the handshake.
    #[error("no secure connection to `{host}`")]
    Tls {
        host: String,
        #[source]
        source: Cause,
    },
    #[error("cannot connect to `{host}`")]
    Connect {
        host: String,
        /// The name does not exist: trying again will not help.
        unknown_name: bool,
        #[source]
        source: Cause,
    },
    /// The connection was there and broke.
    #[error("the connection to `{host}` broke")]
    Broken {
        host: String,
        #[source]
        source: Cause,
    },
    #[error("`{host}` did nothing for {after:?} while {doing}")]
    Timeout {
        host: String,
        doing: &'static str,
        after: Duration,
    },
    /// The user's limit for one transfer.
    #[error("`{what}` was on its way from or to `{host}` for more than {limit:?}")]
    TookTooLong {
        host: String,
        what: String,
        limit: Duration,
    },
    /// An answer that makes no sense.
    #[error("`{host}` broke the protocol: {what}")]
    Protocol { host: String, what: String },
    /// A mistake in an option.
    #[error("{what}")]
    Option { what: String },
    /// A file of credentials or certificates.
    #[error("cannot {verb} `{}`", path.display())]
    File {
        verb: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// A file of settings that says where images come from.
    #[error("the settings cannot be used: {mistake}")]
    Settings { mistake: String, hint: String },
    /// A file of settings forbids it.
    #[error("`{name}` is blocked by `{}`", by.display())]
    Blocked { name: String, by: PathBuf },
    /// A mirror that is not asked any more.
    #[error("`{host}` is left out because it failed before: {why}")]
    LeftOut { host: String, why: String },
    /// A file or variable of credentials whose text is wrong.
    #[error("`{place}` holds no usable credentials: {what}")]
    Credentials { place: String, what: String },
    /// A credential helper.
    #[error("credential helper `{helper}` failed: {what}")]
    Helper { helper: String, what: String },
    /// The built-in login of a cloud.
    #[error("cannot log in to `{registry}` as {cloud} has it")]
    Login {
        registry: String,
        cloud: &'static str,
        #[source]
        source: Box<LoginError>,
    },
    /// The bytes to push could not be read here.
    #[error("cannot read the bytes of `{what}` that are to be pushed")]
    Local {
        what: String,
        #[source]
        source: io::Error,
    },
    /// The registry failed, and other places beside it.
    #[error("neither `{registry}` nor its mirrors could help: {mirrors}")]
    AfterMirrors {
        registry: String,
        /// What went wrong at each.
        mirrors: String,
        source: Box<RegistryError>,
    },
    /// The tag stands for something else, and the registry does not let it be moved.
    #[error("`{image}` exists already as {stands}, and the registry does not let it be changed")]
    ImmutableTag {
        image: String,
        stands: Digest,
        #[source]
        source: Box<RegistryError>,
    },
    /// The registry removes nothing, or not in this way.
    #[error("`{registry}` does not let `{what}` be deleted (status {status}){said}")]
    NoDeletion {
        registry: String,
        what: String,
        status: u16,
        said: Said,
    },
    /// Others wrote between each reading and writing.
    #[error("`{image}` was changed by others again and again ({rounds} attempts)")]
    Contended { image: String, rounds: u32 },
    /// The flag of [`Client::end_with`](super::Client::end_with) was raised.
    #[error("cancelled")]
    Cancelled,
    /// No event loop could be made.
    #[error("cannot set up network input and output")]
    Runtime {
        #[source]
        source: io::Error,
    },
}

/// What was being done to a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Pull,
    Push,
    Delete,
    Login,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Action::Pull => "pull",
            Action::Push => "push",
            Action::Delete => "delete",
            Action::Login => "login",
        })
    }
}

impl RegistryError {
    /// Returns what the user can do, where something is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            RegistryError::NotFound { image, said } => Some(if said.has("NAME_UNKNOWN") {
                "the registry has no such repository: check the name".to_owned()
            } else if image.contains('@') {
                "the registry never had this digest, or has deleted it".to_owned()
            } else {
                "check the repository's name, and that the tag exists".to_owned()
            }),
            RegistryError::Denied {
                registry,
                action: Action::Delete,
                had_credentials: true,
                ..
            } => Some(format!(
                "to delete is a permission of its own (of a maintainer or owner, mostly): give it to the account, or take another one with `builder login {registry}`"
            )),
            RegistryError::Denied {
                registry,
                repository,
                action,
                had_credentials,
                ..
            } => Some(if *had_credentials {
                format!(
                    "`{repository}` does not exist, or the account may not {action}: `builder login {registry}` takes another one"
                )
            } else {
                let cloud = Cloud::of_registry(registry);
                let also = cloud.map_or(String::new(), |cloud| format!(" or {}", cloud.hint()));
                format!(
                    "no credentials were found: `builder login {registry}`{also}, or check that `{repository}` exists"
                )
            }),
            RegistryError::Login {
                registry, source, ..
            } => source.hint().or_else(|| {
                Some(format!(
                    "an account in BUILDER_REGISTRY_USER and BUILDER_REGISTRY_PASSWORD (for BUILDER_REGISTRY={registry}) or `builder login {registry}` is used instead"
                ))
            }),
            RegistryError::Unauthorized { registry, .. } => Some(format!(
                "log in again with `builder login {registry}`; a password may have expired"
            )),
            RegistryError::TooManyRequests {
                registry,
                had_credentials,
                ..
            } => Some(if *had_credentials {
                format!("wait, or use a mirror: `--registry-mirror {registry}=URL`")
            } else {
                format!(
                    "`builder login {registry}` usually raises the limit; so does a mirror: `--registry-mirror {registry}=URL`"
                )
            }),
            RegistryError::Tls { host, source } => {
                let text = source.to_string();
                if text.contains("InvalidContentType") {
                    Some(format!(
                        "`{host}` seems to speak plain HTTP: `--insecure-registry {host}`"
                    ))
                } else if text.contains("certificate") {
                    Some(format!(
                        "name the authority's certificate in SSL_CERT_FILE or in /etc/docker/certs.d/{host}/ca.crt, or trust anything with `--insecure-registry {host}`"
                    ))
                } else {
                    None
                }
            }
            RegistryError::Download { status, .. } => match status {
                404 | 410 => Some("check the URL".to_owned()),
                401 | 403 => Some(
                    "the server wants credentials: give them as the secret HTTP_AUTH_TOKEN_HOST or HTTP_AUTH_HEADER_HOST"
                        .to_owned(),
                ),
                _ => None,
            },
            RegistryError::Connect {
                host, unknown_name, ..
            } => Some(if *unknown_name {
                format!("check the name `{host}` and /etc/resolv.conf")
            } else {
                "check that the registry runs and that HTTPS_PROXY and NO_PROXY are right"
                    .to_owned()
            }),
            RegistryError::Refused { hint, .. } => Some(hint.clone()),
            RegistryError::Keys { source, .. } => source.hint(),
            RegistryError::DigestMismatch { .. } => {
                Some("a proxy or mirror may serve damaged data; try again without it".to_owned())
            }
            RegistryError::Settings { hint, .. } => Some(hint.clone()),
            RegistryError::Blocked { by, .. } => Some(format!(
                "use another image, or change what `{}` says of it",
                by.display()
            )),
            RegistryError::AfterMirrors { source, .. } => source.hint(),
            RegistryError::ImmutableTag { .. } => Some(
                "push under a tag that does not exist, or have `builder push --ignore-immutable-tags` leave it as it is".to_owned(),
            ),
            RegistryError::NoDeletion { .. } => Some(
                "Docker's registry deletes when it runs with REGISTRY_STORAGE_DELETE_ENABLED=true, and others where their settings allow it; some have rules for cleaning up in its place".to_owned(),
            ),
            RegistryError::Contended { .. } => Some("try again".to_owned()),
            _ => None,
        }
    }

    /// Returns the registry's own error where mirrors had failed before it, else itself.
    pub fn root(&self) -> &RegistryError {
        match self {
            RegistryError::AfterMirrors { source, .. } => source.root(),
            other => other,
        }
    }

    /// Tells whether the refusal of a manifest may mean that its tag exists and cannot be moved.
    pub(super) fn may_mean_immutable_tag(&self) -> bool {
        match self {
            RegistryError::Denied { .. } => true,
            RegistryError::Status { status, .. } => {
                matches!(*status, 400 | 405 | 409 | 412 | 422 | 423)
            }
            _ => false,
        }
    }

    /// Tells whether a refusal says so in one of the ways in which registries do: there is no code for it.
    pub(super) fn says_immutable_tag(&self) -> bool {
        let (said, status) = match self {
            RegistryError::Denied { said, .. } => (said, 403),
            RegistryError::Status { said, status, .. } => (said, *status),
            _ => return false,
        };
        let said = said.0.to_lowercase();
        let ways = [
            "immutable",
            "already exists",
            "alreadyexists",
            "overwrit",
            "locked",
            "does not allow updating",
            "tag_invalid",
        ];
        matches!(status, 409 | 412 | 423) || ways.iter().any(|way| said.contains(way))
    }

    /// Tells whether it is missing, rather than out of reach.
    pub fn is_not_found(&self) -> bool {
        matches!(self.root(), RegistryError::NotFound { .. })
    }

    /// Tells whether the same request may succeed a moment later.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            RegistryError::TooManyRequests { .. }
            | RegistryError::Broken { .. }
            | RegistryError::Timeout { .. } => true,
            RegistryError::Connect { unknown_name, .. } => !unknown_name,
            RegistryError::Status { status, .. } | RegistryError::Download { status, .. } => {
                *status == 408
                    || *status == 429
                    || (*status >= 500 && *status != 501 && *status != 505)
            }
            _ => false,
        }
    }

    /// Returns how long the registry wants to be left alone.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            RegistryError::TooManyRequests { retry_after, .. }
            | RegistryError::Status { retry_after, .. }
            | RegistryError::Download { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Tells whether the host itself, not the thing asked for, is the trouble.
    pub(super) fn blames_host(&self) -> bool {
        matches!(
            self,
            RegistryError::Connect { .. }
                | RegistryError::Tls { .. }
                | RegistryError::Timeout { .. }
                | RegistryError::DigestMismatch { .. }
                | RegistryError::SizeMismatch { .. }
        )
    }

    /// Tells whether the server is up and of no use at the moment.
    pub(super) fn is_server_s(&self) -> bool {
        matches!(self, RegistryError::Status { status, .. } if *status >= 500)
            || matches!(
                self,
                RegistryError::Broken { .. }
                    | RegistryError::Protocol { .. }
                    | RegistryError::TooManyRequests { .. }
            )
    }

    /// Wraps the error for a reader of bytes.
    pub(super) fn into_io(self) -> io::Error {
        let kind = match &self {
            RegistryError::DigestMismatch { .. } | RegistryError::SizeMismatch { .. } => {
                io::ErrorKind::InvalidData
            }
            RegistryError::Timeout { .. } => io::ErrorKind::TimedOut,
            RegistryError::Broken { .. } => io::ErrorKind::ConnectionReset,
            RegistryError::NotFound { .. } => io::ErrorKind::NotFound,
            RegistryError::Denied { .. } => io::ErrorKind::PermissionDenied,
            _ => io::ErrorKind::Other,
        };
        io::Error::new(kind, self)
    }
}

impl From<Mistake> for RegistryError {
    fn from(mistake: Mistake) -> RegistryError {
        RegistryError::Settings {
            mistake: clean(&mistake.to_string()),
            hint: mistake.hint,
        }
    }
}

fn after(wait: &Option<Duration>) -> String {
    match wait {
        Some(wait) => format!(", try again in {} s", wait.as_secs()),
        None => String::new(),
    }
}

/// What the registry said, as `: CODE: message`, or nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said(String);

impl Said {
    const LIMIT: usize = 2048;

    /// Reads the body of a refusal: the distribution API's error list, a token service's error, or a line of text.
    pub(super) fn from_body(body: &[u8]) -> Said {
        let text = match serde_json::from_slice::<serde_json::Value>(body) {
            Ok(value) => Said::from_json(&value),
            Err(_) => {
                let text = String::from_utf8_lossy(body);
                let line = text.trim().lines().next().unwrap_or_default().trim();
                // A proxy's page says nothing that the status does not.
                if line.starts_with('<') {
                    String::new()
                } else {
                    line.to_owned()
                }
            }
        };
        Said(clean(&text))
    }

    fn from_json(value: &serde_json::Value) -> String {
        let text = |value: &serde_json::Value, name: &str| {
            value
                .get(name)
                .and_then(serde_json::Value::as_str)
                .unwrap_or_default()
                .trim()
                .to_owned()
        };
        if let Some(errors) = value.get("errors").and_then(serde_json::Value::as_array) {
            let lines: Vec<String> = errors
                .iter()
                .take(3)
                .map(|error| {
                    let message = [text(error, "message"), text(error, "detail")]
                        .into_iter()
                        .find(|text| !text.is_empty())
                        .unwrap_or_default();
                    joined(&[text(error, "code"), message])
                })
                .filter(|line| !line.is_empty())
                .collect();
            return lines.join("; ");
        }
        let error = match text(value, "error") {
            error if error.is_empty() => text(value, "code"),
            error => error,
        };
        let message = ["error_description", "details", "message"]
            .into_iter()
            .map(|name| text(value, name))
            .find(|text| !text.is_empty())
            .unwrap_or_default();
        joined(&[error, message])
    }

    /// Blots out every one of `secrets`.
    pub(super) fn without(mut self, secrets: &[&str]) -> Said {
        for secret in secrets {
            if !secret.is_empty() {
                self.0 = self.0.replace(secret, "***");
            }
        }
        self
    }

    /// Tells whether an error code is among what was said.
    pub fn has(&self, code: &str) -> bool {
        self.0.contains(code)
    }
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return Ok(());
        }
        write!(f, ": {}", self.0)
    }
}

fn joined(parts: &[String]) -> String {
    let parts: Vec<&str> = parts
        .iter()
        .map(String::as_str)
        .filter(|part| !part.is_empty())
        .collect();
    parts.join(": ")
}

/// Makes a stranger's text fit for a terminal and a log: one line, no escapes, no text that runs backwards, not endless.
pub(super) fn clean(text: &str) -> String {
    let mut cleaned = String::new();
    for character in text.chars() {
        if cleaned.len() >= Said::LIMIT {
            cleaned.push('…');
            break;
        }
        match character {
            '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {}
            character if character.is_control() => cleaned.push(' '),
            character => cleaned.push(character),
        }
    }
    cleaned.trim().to_owned()
}

/// The texts of an error's chain, without the layers that say nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause(String);

impl Cause {
    pub(super) fn new(text: impl Into<String>) -> Cause {
        Cause(text.into())
    }

    /// Walks an error's sources.
    pub(super) fn of(error: &(dyn Error + 'static)) -> Cause {
        const EMPTY_LAYERS: [&str; 9] = [
            "error sending request",
            "client error (",
            "error trying to connect",
            "request or response body error",
            "error reading a body from connection",
            "error decoding response body",
            "connection error",
            "dns error",
            "error resolving DNS",
        ];
        let mut texts: Vec<String> = Vec::new();
        let mut next = Some(error);
        let mut last = String::new();
        while let Some(error) = next {
            last = clean(&error.to_string());
            let told = texts.iter().any(|text| text.contains(&last));
            if !told && !EMPTY_LAYERS.iter().any(|layer| last.starts_with(layer)) {
                texts.push(last.clone());
            }
            next = error.source();
        }
        if texts.is_empty() {
            texts.push(last);
        }
        Cause(texts.join(": "))
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Cause {}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: &str, said: &str) {
        assert_eq!(Said::from_body(body.as_bytes()).to_string(), said, "{body}");
    }

    #[test]
    fn what_registries_say_is_read_in_every_known_shape() {
        check("", "");
        check("{}", "");
        check(
            r#"{"errors":[{"code":"DENIED","message":"no access"}]}"#,
            ": DENIED: no access",
        );
        check(
            r#"{"errors":[{"code":"A","message":"","detail":"why"},{"code":"B"}]}"#,
            ": A: why; B",
        );
        check(r#"{"errors":[{"code":1,"message":null}]}"#, "");
        check(
            r#"{"details":"incorrect username or password"}"#,
            ": incorrect username or password",
        );
        check(
            r#"{"error":"invalid_grant","error_description":"expired"}"#,
            ": invalid_grant: expired",
        );
        check("<html><body>502 Bad Gateway</body></html>", "");
        check("upstream is down\nsecond line", ": upstream is down");
    }

    #[test]
    fn what_registries_say_cannot_paint_the_terminal() {
        check(
            "{\"errors\":[{\"code\":\"X\",\"message\":\"a\\u001b[31mb\\u0007\\u202ec\\nd\"}]}",
            ": X: a [31mb c d",
        );
        let long = Said::from_body("x".repeat(100_000).as_bytes()).to_string();
        assert!(long.len() < 3000, "{}", long.len());
    }

    #[test]
    fn secrets_are_blotted_out() {
        let said = Said::from_body(b"you sent hunter2, thanks").without(&["", "hunter2"]);
        assert_eq!(said.to_string(), ": you sent ***, thanks");
    }

    #[test]
    fn hints_name_the_command_that_helps() {
        let denied = |had_credentials| RegistryError::Denied {
            registry: "ghcr.io".into(),
            repository: "a/b".into(),
            action: Action::Push,
            had_credentials,
            said: Said::default(),
        };
        assert_eq!(denied(true).to_string(), "`ghcr.io` denied push for `a/b`");
        for had in [true, false] {
            assert!(
                denied(had)
                    .hint()
                    .unwrap()
                    .contains("`builder login ghcr.io")
            );
        }
        let plain = RegistryError::Tls {
            host: "x:5000".into(),
            source: Cause::new("received corrupt message of type InvalidContentType"),
        };
        assert!(plain.hint().unwrap().contains("--insecure-registry x:5000"));
    }
}
