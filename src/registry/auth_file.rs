//! The text of `config.json` and `auth.json`: who one is at which registry.
//!
//! In: JSON. Out: entries with the registry's name made canonical, the path that podman allows after it, and a [`Credential`]. No
//! message quotes the text: a parser's complaint would show a password that stands in the wrong place.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use serde::Deserialize;

use super::endpoint::{DOCKER_HUB, canonical_registry};
use super::error::RegistryError;
use crate::vocab::Secret;

/// How one shows who one is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Credential {
    Password {
        user: String,
        password: Secret<String>,
    },
    /// An OAuth2 refresh token, which buys access tokens.
    Identity { user: String, token: Secret<String> },
    /// An access token, used as it is.
    Access(Secret<String>),
}

impl Credential {
    /// Returns what must never be shown.
    pub(super) fn secret(&self) -> &str {
        match self {
            Credential::Password { password, .. } => password.reveal(),
            Credential::Identity { token, .. } | Credential::Access(token) => token.reveal(),
        }
    }

    /// Returns the text after `Basic `, where there is one.
    pub(super) fn basic(&self) -> Option<Secret<String>> {
        let (user, password) = match self {
            Credential::Password { user, password } => (user, password),
            Credential::Identity { user, token } => (user, token),
            Credential::Access(_) => return None,
        };
        let plain = format!("{user}:{}", password.reveal());
        Some(Secret::new(STANDARD.encode(plain)))
    }
}

/// A file's meaning.
#[derive(Default)]
pub(super) struct AuthFile {
    entries: Vec<(Key, Credential)>,
    helpers: BTreeMap<String, String>,
    store: Option<String>,
}

/// A registry, perhaps with a path below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Key {
    registry: String,
    path: String,
}

#[derive(Deserialize)]
struct RawFile {
    auths: Option<BTreeMap<String, Option<RawEntry>>>,
    #[serde(rename = "credHelpers")]
    helpers: Option<BTreeMap<String, String>>,
    #[serde(rename = "credsStore")]
    store: Option<String>,
}

#[derive(Deserialize)]
struct RawEntry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

impl AuthFile {
    /// Reads the text of the file or variable called `place`.
    pub(super) fn parse(place: &str, text: &str) -> Result<AuthFile, RegistryError> {
        if text.trim().is_empty() {
            return Ok(AuthFile::default());
        }
        let raw: RawFile = serde_json::from_str(text).map_err(|error| malformed(place, &error))?;
        let mut entries = Vec::new();
        for (key, entry) in raw.auths.unwrap_or_default() {
            let Some(entry) = entry else { continue };
            let credential = entry
                .credential()
                .map_err(|what| RegistryError::Credentials {
                    place: place.to_owned(),
                    what: format!("the entry of `{key}` {what}"),
                })?;
            if let Some(credential) = credential {
                entries.push((Key::parse(&key), credential));
            }
        }
        let helpers = raw
            .helpers
            .unwrap_or_default()
            .into_iter()
            .map(|(registry, helper)| (canonical_registry(&registry), helper))
            .collect();
        Ok(AuthFile {
            entries,
            helpers,
            store: raw.store.filter(|store| !store.is_empty()),
        })
    }

    /// Returns the entry whose path is the longest that leads to `repository` (empty: the registry as a whole).
    pub(super) fn find(&self, registry: &str, repository: &str) -> Option<&Credential> {
        longest(&self.entries, registry, repository)
    }

    /// Returns the helper that was named for this very registry.
    pub(super) fn helper(&self, registry: &str) -> Option<&str> {
        self.helpers
            .get(registry)
            .map(String::as_str)
            .filter(|helper| !helper.is_empty())
    }

    /// Returns the helper for all other registries.
    pub(super) fn store(&self) -> Option<&str> {
        self.store.as_deref()
    }
}

/// Says where JSON is wrong, and nothing of what it is.
pub(super) fn malformed(place: &str, error: &serde_json::Error) -> RegistryError {
    RegistryError::Credentials {
        place: place.to_owned(),
        what: format!(
            "its JSON is not understood at line {}, column {}",
            error.line(),
            error.column()
        ),
    }
}

impl Key {
    /// Reads `https://index.docker.io/v1/`, `registry.io` or podman's `registry.io/team/app`.
    pub(super) fn parse(text: &str) -> Key {
        let registry = canonical_registry(text);
        let path = match text.split_once("://") {
            // Docker's keys with a scheme mean the host, whatever follows.
            Some(_) => "",
            None => text.split_once('/').map_or("", |(_, path)| path),
        };
        let path = path.trim_matches('/');
        Key {
            registry,
            path: if matches!(path, "v1" | "v2") {
                ""
            } else {
                path
            }
            .to_owned(),
        }
    }

    fn covers(&self, registry: &str, repository: &str) -> bool {
        self.registry == registry && self.covers_path(repository)
    }

    fn covers_path(&self, repository: &str) -> bool {
        self.path.is_empty()
            || repository == self.path
            || repository
                .strip_prefix(self.path.as_str())
                .is_some_and(|rest| rest.starts_with('/'))
    }
}

/// Returns what stands under the key with the longest path that leads to `repository` (empty: the registry as a whole).
pub(super) fn longest<'a, T>(
    entries: &'a [(Key, T)],
    registry: &str,
    repository: &str,
) -> Option<&'a T> {
    entries
        .iter()
        .filter(|(key, _)| key.covers(registry, repository))
        .max_by_key(|(key, _)| key.path.len())
        .map(|(_, value)| value)
}

/// Returns the key under which `builder login` writes: Docker reads its hub under an old URL only.
pub(super) fn key_to_write(registry: &str, for_docker: bool) -> String {
    match registry {
        DOCKER_HUB if for_docker => "https://index.docker.io/v1/".to_owned(),
        other => other.to_owned(),
    }
}

/// Tells whether a file's key stands for the whole of `registry`.
pub(super) fn is_key_of(key: &str, registry: &str) -> bool {
    Key::parse(key)
        == Key {
            registry: registry.to_owned(),
            path: String::new(),
        }
}

impl RawEntry {
    /// Returns the credential; `None` for an empty entry, which says that a helper has it. The error fits after "the entry".
    fn credential(self) -> Result<Option<Credential>, &'static str> {
        let filled = |text: Option<String>| text.filter(|text| !text.is_empty());
        if let Some(token) = filled(self.registrytoken) {
            return Ok(Some(Credential::Access(Secret::new(token))));
        }
        let (user, password) = match filled(self.auth) {
            Some(auth) => decode(&auth)?,
            None => (
                self.username.unwrap_or_default(),
                self.password.unwrap_or_default(),
            ),
        };
        if let Some(token) = filled(self.identitytoken) {
            return Ok(Some(Credential::Identity {
                user,
                token: Secret::new(token),
            }));
        }
        Ok(user_and_password(user, password))
    }
}

/// Makes a credential of what a file or helper calls a user; the name `<token>` marks an identity token.
pub(super) fn user_and_password(user: String, password: String) -> Option<Credential> {
    if user.is_empty() && password.is_empty() {
        return None;
    }
    Some(if user == "<token>" {
        Credential::Identity {
            user,
            token: Secret::new(password),
        }
    } else {
        Credential::Password {
            user,
            password: Secret::new(password),
        }
    })
}

fn decode(auth: &str) -> Result<(String, String), &'static str> {
    const WRONG: &str = "has an `auth` that is no base64 of `user:password`";
    let auth = auth.trim();
    let bytes = STANDARD
        .decode(auth)
        .or_else(|_| STANDARD_NO_PAD.decode(auth.trim_end_matches('=')))
        .map_err(|_| WRONG)?;
    let text = String::from_utf8(bytes).map_err(|_| WRONG)?;
    let (user, password) = text.split_once(':').ok_or(WRONG)?;
    // Some writers pad the plain text with zeros.
    Ok((user.to_owned(), password.trim_end_matches('\0').to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password(user: &str, password: &str) -> Credential {
        Credential::Password {
            user: user.into(),
            password: Secret::new(password.into()),
        }
    }

    #[test]
    fn the_longest_path_wins() {
        let encode = |text: &str| STANDARD.encode(text);
        let file = AuthFile::parse(
            "auth.json",
            &format!(
                r#"{{"auths": {{
                    "reg.io": {{"auth": "{}"}},
                    "reg.io/team": {{"auth": "{}"}},
                    "reg.io/team/app": {{"auth": "{}"}},
                    "https://index.docker.io/v1/": {{"auth": "{}"}},
                    "docker.io/me": {{"username": "me", "password": "p"}},
                    "https://url.io/some/path": {{"username": "u", "password": "p:q"}},
                    "v2.io/v2/": {{"username": "v", "password": "p"}},
                    "reg.io:5000": {{"username": "port", "password": "p"}},
                    "stored.io": {{}}, "null.io": null
                }}}}"#,
                encode("host:1"),
                encode("team:2"),
                encode("app:3"),
                encode("hub:4\0\0"),
            ),
        )
        .unwrap();
        let check = |registry: &str, repository: &str, expected: Option<&Credential>| {
            assert_eq!(
                file.find(registry, repository),
                expected,
                "{registry} {repository}"
            );
        };
        check("reg.io", "", Some(&password("host", "1")));
        check("reg.io", "other", Some(&password("host", "1")));
        check("reg.io", "teams/x", Some(&password("host", "1")));
        check("reg.io", "team", Some(&password("team", "2")));
        check("reg.io", "team/x", Some(&password("team", "2")));
        check("reg.io", "team/app", Some(&password("app", "3")));
        check("reg.io", "team/app/sub", Some(&password("app", "3")));
        check("reg.io", "team/apps", Some(&password("team", "2")));
        check("reg.io:5000", "team/app", Some(&password("port", "p")));
        check("docker.io", "library/alpine", Some(&password("hub", "4")));
        check("docker.io", "me/app", Some(&password("me", "p")));
        check("url.io", "x", Some(&password("u", "p:q")));
        check("v2.io", "x", Some(&password("v", "p")));
        check("stored.io", "x", None);
        check("null.io", "x", None);
        check("reg.io.evil.com", "x", None);
        check("evil-reg.io", "x", None);
    }

    #[test]
    fn tokens_have_their_kinds() {
        let file = AuthFile::parse(
            "f",
            &format!(
                r#"{{"auths": {{
                    "a": {{"auth": "{}", "identitytoken": "refresh"}},
                    "b": {{"registrytoken": "access"}},
                    "c": {{"username": "<token>", "password": "refresh2"}}
                }}, "credHelpers": {{"https://index.docker.io/v1/": "pass", "gcr.io": "gcloud"}}, "credsStore": "desktop"}}"#,
                STANDARD.encode("000:")
            ),
        )
        .unwrap();
        assert_eq!(
            file.find("a", ""),
            Some(&Credential::Identity {
                user: "000".into(),
                token: Secret::new("refresh".into())
            })
        );
        assert_eq!(
            file.find("b", ""),
            Some(&Credential::Access(Secret::new("access".into())))
        );
        assert!(matches!(
            file.find("c", ""),
            Some(Credential::Identity { .. })
        ));
        assert_eq!(file.helper("docker.io"), Some("pass"));
        assert_eq!(file.helper("gcr.io"), Some("gcloud"));
        assert_eq!(file.helper("quay.io"), None);
        assert_eq!(file.store(), Some("desktop"));
    }

    #[test]
    fn mistakes_are_told_without_the_text() {
        for text in [
            r#"{"auths": "hunter2"}"#,
            r#"{"auths": {"a": "hunter2"}}"#,
            r#"{"auths": {"a": {"auth": "hunter2"}}}"#,
            r#"{"auths": {"a": {"auth": "aHVudGVyMg=="}}}"#,
            r#"["hunter2"]"#,
            "hunter2",
        ] {
            let error = AuthFile::parse("/x/config.json", text)
                .err()
                .unwrap_or_else(|| panic!("{text}"));
            assert!(error.to_string().contains("/x/config.json"), "{error}");
            for told in [error.to_string(), format!("{error:?}")] {
                assert!(!told.contains("hunter2"), "{told}");
            }
        }
        for text in ["", " \n", "{}", r#"{"auths": null, "HttpHeaders": {}}"#] {
            assert!(AuthFile::parse("f", text).is_ok(), "{text}");
        }
    }
}
