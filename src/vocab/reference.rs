//! Image references: `[HOST[:PORT]/]PATH[:TAG][@DIGEST]`, with Docker's short forms.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use super::Digest;

/// A reference in its full form: `alpine` is `docker.io/library/alpine:latest`. How it was typed is no part of its identity.
#[derive(Clone, Debug)]
pub struct ImageRef {
    /// Host with optional port: `docker.io`, `localhost:5000`, `[::1]:5000`.
    pub registry: String,
    /// Path below the host: `library/alpine`.
    pub repository: String,
    /// `None` only where a digest is given and no tag was.
    pub tag: Option<String>,
    pub digest: Option<Digest>,
    /// No host was typed: settings of the machine may know a better one than docker.io.
    pub is_short: bool,
}

/// Why a text is no image reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an image reference: {reason}")]
pub struct ReferenceError {
    pub text: String,
    pub reason: String,
}

impl ImageRef {
    /// Returns the same repository with another tag and no digest.
    pub fn with_tag(&self, tag: &str) -> ImageRef {
        ImageRef {
            tag: Some(tag.to_owned()),
            digest: None,
            ..self.clone()
        }
    }

    /// Returns the same repository pinned to a digest, without a tag.
    pub fn with_digest(&self, digest: Digest) -> ImageRef {
        ImageRef {
            tag: None,
            digest: Some(digest),
            ..self.clone()
        }
    }

    fn identity(&self) -> (&str, &str, Option<&str>, Option<&Digest>) {
        (
            &self.registry,
            &self.repository,
            self.tag.as_deref(),
            self.digest.as_ref(),
        )
    }

    /// Returns `registry/repository`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// Returns the name as a user would type it: `docker.io/library/` is left out.
    pub fn familiar(&self) -> String {
        let full = self.to_string();
        match full.strip_prefix("docker.io/") {
            Some(rest) => rest
                .strip_prefix("library/")
                .filter(|_| self.repository.matches('/').count() == 1)
                .unwrap_or(rest)
                .to_owned(),
            None => full,
        }
    }
}

impl PartialEq for ImageRef {
    fn eq(&self, other: &ImageRef) -> bool {
        self.identity() == other.identity()
    }
}

impl Eq for ImageRef {}

impl PartialOrd for ImageRef {
    fn partial_cmp(&self, other: &ImageRef) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ImageRef {
    fn cmp(&self, other: &ImageRef) -> Ordering {
        self.identity().cmp(&other.identity())
    }
}

impl Hash for ImageRef {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.identity().hash(state);
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl FromStr for ImageRef {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<ImageRef, ReferenceError> {
        let refuse = |reason: &str| ReferenceError {
            text: text.to_owned(),
            reason: reason.to_owned(),
        };
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (
                rest,
                Some(
                    digest
                        .parse::<Digest>()
                        .map_err(|error| refuse(&error.to_string()))?,
                ),
            ),
            None => (text, None),
        };
        let (first, path, is_short) = match rest.split_once('/') {
            Some((first, path))
                if first.contains(['.', ':'])
                    || first == "localhost"
                    || first.to_lowercase() != first =>
            {
                (first, path, false)
            }
            _ => ("docker.io", rest, true),
        };
        let registry = match first {
            "index.docker.io" | "registry-1.docker.io" => "docker.io",
            other => other,
        };
        if !is_host(registry) {
            return Err(refuse(&format!(
                "`{registry}` is not a host name with an optional port"
            )));
        }
        let (path, tag) = match path.rsplit_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (path, None),
        };
        if let Some(tag) = tag
            && !is_tag(tag)
        {
            let wrong = tag
                .chars()
                .find(|c| !(c.is_ascii_alphanumeric() || "_.-".contains(*c)));
            let found = wrong.map_or_else(String::new, |c| format!(", not {}", quoted(c)));
            return Err(refuse(&format!(
                "`{tag}` is not a tag: at most 128 letters, digits, `_`, `.` and `-`, not first `.` or `-`{found}"
            )));
        }
        if path.is_empty() {
            return Err(refuse("the repository's name is empty"));
        }
        if let Some(upper) = path.chars().find(char::is_ascii_uppercase) {
            return Err(refuse(&format!(
                "the repository's name must be lower case, found `{upper}`"
            )));
        }
        if !path.split('/').all(is_path_component) {
            let wrong = path
                .chars()
                .find(|c| !(c.is_ascii_alphanumeric() || "/_.-".contains(*c)));
            return Err(refuse(&match wrong {
                Some(c) => format!("the repository's name must not hold {}", quoted(c)),
                None => "the repository's name holds a separator where none is allowed".to_owned(),
            }));
        }
        let repository = match registry {
            "docker.io" if !path.contains('/') => format!("library/{path}"),
            _ => path.to_owned(),
        };
        if repository.len() > 255 {
            return Err(refuse(
                "the repository's name is longer than 255 characters",
            ));
        }
        let tag = match (tag, digest) {
            (None, None) => Some("latest".to_owned()),
            (tag, _) => tag.map(str::to_owned),
        };
        Ok(ImageRef {
            registry: registry.to_owned(),
            repository,
            tag,
            digest,
            is_short,
        })
    }
}

/// Names a character, also one that cannot be seen.
fn quoted(c: char) -> String {
    match c {
        ' ' => "a blank".to_owned(),
        c if c.is_control() || c.is_whitespace() => format!("`{}`", c.escape_default()),
        c => format!("`{c}`"),
    }
}

fn is_host(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, rest)) => {
            if address.parse::<std::net::Ipv6Addr>().is_err() {
                return false;
            }
            match rest.strip_prefix(':') {
                Some(port) => return port.parse::<u16>().is_ok(),
                None => return rest.is_empty(),
            }
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    port.is_none_or(|port| port.parse::<u16>().is_ok())
        && host.split('.').all(|label| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        })
}

fn is_tag(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 128
        && !text.starts_with(['.', '-'])
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

/// Lower-case letters and digits, separated by one `.`, one or two `_`, or any number of `-`.
fn is_path_component(text: &str) -> bool {
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    if bytes.is_empty() || !alphanumeric(bytes[0]) || !alphanumeric(bytes[bytes.len() - 1]) {
        return false;
    }
    bytes.split(|&byte| alphanumeric(byte)).all(|separator| {
        matches!(separator, [] | b"." | b"_" | b"__") || separator.iter().all(|&byte| byte == b'-')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(typed: &str, meant: &str) {
        assert_eq!(
            typed.parse::<ImageRef>().map(|image| image.to_string()),
            Ok(meant.to_owned()),
            "{typed}"
        );
    }

    #[test]
    fn short_forms() {
        check("alpine", "docker.io/library/alpine:latest");
        check("alpine:3.20", "docker.io/library/alpine:3.20");
        check("me/app", "docker.io/me/app:latest");
        check("localhost/app", "localhost/app:latest");
        check("localhost:5000/a/b:c", "localhost:5000/a/b:c");
        check("[::1]:5000/x", "[::1]:5000/x:latest");
        check("ghcr.io/a/b", "ghcr.io/a/b:latest");
        check("index.docker.io/a", "docker.io/library/a:latest");
        let digest = Digest::of(b"");
        check(
            &format!("a@{digest}"),
            &format!("docker.io/library/a@{digest}"),
        );
        check(
            &format!("a:1@{digest}"),
            &format!("docker.io/library/a:1@{digest}"),
        );
    }

    #[test]
    fn a_name_without_a_host_is_short_and_the_same_name() {
        let image = |text: &str| text.parse::<ImageRef>().unwrap();
        for (typed, is_short) in [
            ("alpine", true),
            ("me/app:1", true),
            ("docker.io/library/alpine", false),
            ("localhost/app", false),
            ("[::1]:5000/x", false),
        ] {
            assert_eq!(image(typed).is_short, is_short, "{typed}");
        }
        assert_eq!(image("alpine"), image("docker.io/library/alpine:latest"));
        let digest = Digest::of(b"");
        assert!(image("alpine").with_digest(digest).is_short);
    }

    #[test]
    fn odd_names_are_refused() {
        for text in [
            "",
            "A",
            "a b",
            "a:",
            "a:b:c",
            "-a",
            "a//b",
            "a/",
            "x.io/",
            "a..b",
            "a___b",
            "x.io:99999/a",
            "a@sha256:1",
            "[::1/x",
        ] {
            assert!(text.parse::<ImageRef>().is_err(), "{text}");
        }
    }

    #[test]
    fn familiar_names() {
        for (full, short) in [
            ("alpine", "alpine:latest"),
            ("me/app", "me/app:latest"),
            ("ghcr.io/a", "ghcr.io/a:latest"),
        ] {
            assert_eq!(full.parse::<ImageRef>().unwrap().familiar(), short);
        }
    }
}
