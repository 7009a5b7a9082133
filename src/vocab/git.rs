//! How a git repository is named, with what to take of it: `https://host/a.git#ref:dir`, `git@host:a.git?tag=v1`.
//!
//! The grammar is BuildKit's. Nothing here runs git; what a name says is checked so that no part of it can be read as an option or
//! as a pattern of references later.

use super::Secret;

/// A repository, and what of it is meant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GitRef {
    /// Without fragment and query; with the user name and password that were written.
    pub url: String,
    /// A branch, a tag, `refs/…`, or a full commit ID; `None` is the default branch.
    pub reference: Option<String>,
    /// Clean and relative; `None` is all of it.
    pub subdirectory: Option<String>,
    /// The commit that the reference must stand for: its ID, or the first digits of it.
    pub checksum: Option<String>,
    pub keep_git_dir: Option<bool>,
    pub submodules: Option<bool>,
    pub times: Option<GitTimes>,
}

/// What time the files of a commit get.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GitTimes {
    /// That of the commit.
    #[default]
    Commit,
    /// That of writing them.
    Checkout,
}

/// Where a name is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GitPlace {
    /// A Dockerfile, which must not reach repositories of this machine.
    Dockerfile,
    /// The command line: `file://` and `github.com/…` are names too.
    CommandLine,
}

/// Why a text that names a repository cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GitRefError {
    #[error("the URL names no host")]
    NoHost,
    #[error("the part `{0}` of the query is unknown")]
    UnknownQuery(String),
    #[error("the query gives `{0}` twice")]
    TwiceInQuery(String),
    #[error("the query gives `{0}` no value")]
    NoValue(String),
    #[error("`{1}` is no value for `{0}` of the query: wanted {2}")]
    BadValue(String, String, &'static str),
    #[error("two references are named: `{0}` and `{1}`")]
    References(String, String),
    #[error("two directories are named: `{0}` and `{1}`")]
    Directories(String, String),
    #[error("a branch and a tag are named: `{0}` and `{1}`")]
    BranchAndTag(String, String),
    #[error("`{0}` cannot be the name of a branch, a tag or a commit")]
    BadReference(String),
    #[error("`{0}` is no commit ID: wanted 7 to 40 hex digits")]
    BadChecksum(String),
    #[error("`fetch-by-commit` needs the full ID of the commit, as `commit=ID`")]
    NoCommit,
    #[error("the text `{0}` is not well encoded")]
    Encoding(String),
}

impl GitRef {
    /// Reads a name of a repository; `None` where the text is something else: a path, or another URL.
    pub fn parse(text: &str, place: GitPlace) -> Option<Result<GitRef, GitRefError>> {
        let (rest, fragment) = cut(text, '#');
        let (remote, query) = cut(rest, '?');
        let url = repository_url(remote, place)?;
        Some(GitRef::new(url, fragment, query))
    }

    fn new(
        url: String,
        fragment: Option<&str>,
        query: Option<&str>,
    ) -> Result<GitRef, GitRefError> {
        if let Some((_, rest)) = url.split_once("://")
            && !url.starts_with("file://")
        {
            let authority = rest.split('/').next().unwrap_or_default();
            let host = authority.rsplit('@').next().unwrap_or_default();
            if host.is_empty() || host.starts_with('-') || host.starts_with(':') {
                return Err(GitRefError::NoHost);
            }
        }
        let mut git = GitRef {
            url,
            reference: None,
            subdirectory: None,
            checksum: None,
            keep_git_dir: None,
            submodules: None,
            times: None,
        };
        if let Some(fragment) = fragment {
            let fragment = decoded(fragment, false)?;
            let (reference, directory) = cut(&fragment, ':');
            git.reference = Some(reference.to_owned()).filter(|text| !text.is_empty());
            git.subdirectory = directory.filter(|text| !text.is_empty()).map(str::to_owned);
        }
        if let Some(query) = query {
            git.take_query(query)?;
        }
        if let Some(reference) = &git.reference {
            check_reference(reference)?;
        }
        if let Some(checksum) = &git.checksum {
            check_commit(checksum)?;
        }
        git.subdirectory = git.subdirectory.as_deref().and_then(clean);
        Ok(git)
    }

    fn take_query(&mut self, query: &str) -> Result<(), GitRefError> {
        let (mut tag, mut branch, mut by_commit) = (None, None, false);
        let mut seen: Vec<String> = Vec::new();
        for part in query.split('&').filter(|part| !part.is_empty()) {
            let (name, value) = cut(part, '=');
            let name = decoded(name, true)?;
            let value = decoded(value.unwrap_or_default(), true)?;
            if seen.contains(&name) {
                return Err(GitRefError::TwiceInQuery(name));
            }
            seen.push(name.clone());
            let flag = |value: &str| match value {
                "" | "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
                "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
                _ => Err(GitRefError::BadValue(
                    name.clone(),
                    value.to_owned(),
                    "true or false",
                )),
            };
            match name.as_str() {
                "keep-git-dir" => self.keep_git_dir = Some(flag(&value)?),
                "submodules" => self.submodules = Some(flag(&value)?),
                "fetch-by-commit" => by_commit = flag(&value)?,
                _ if value.is_empty() && QUERIES.contains(&name.as_str()) => {
                    return Err(GitRefError::NoValue(name));
                }
                "ref" => self.take_reference(value)?,
                "tag" => tag = Some(value),
                "branch" => branch = Some(value),
                "subdir" => match &self.subdirectory {
                    Some(known) if *known != value => {
                        return Err(GitRefError::Directories(known.clone(), value));
                    }
                    _ => self.subdirectory = Some(value),
                },
                "commit" | "checksum" => match &self.checksum {
                    Some(_) => return Err(GitRefError::TwiceInQuery(name)),
                    None => self.checksum = Some(value.to_ascii_lowercase()),
                },
                "mtime" => {
                    self.times = Some(match value.as_str() {
                        "commit" => GitTimes::Commit,
                        "checkout" => GitTimes::Checkout,
                        _ => {
                            return Err(GitRefError::BadValue(
                                name,
                                value,
                                "`commit` or `checkout`",
                            ));
                        }
                    });
                }
                _ => return Err(GitRefError::UnknownQuery(name)),
            }
        }
        match (tag, branch) {
            (Some(tag), Some(branch)) => return Err(GitRefError::BranchAndTag(branch, tag)),
            (Some(tag), None) => self.take_reference(full("refs/tags/", &tag))?,
            (None, Some(branch)) => self.take_reference(full("refs/heads/", &branch))?,
            (None, None) => {}
        }
        if by_commit {
            match &self.checksum {
                Some(commit) if is_commit(commit) => self.reference = Some(commit.clone()),
                _ => return Err(GitRefError::NoCommit),
            }
        }
        if self.reference.is_none() {
            self.reference.clone_from(&self.checksum);
        }
        Ok(())
    }

    fn take_reference(&mut self, reference: String) -> Result<(), GitRefError> {
        match &self.reference {
            Some(known) if *known != reference => {
                Err(GitRefError::References(known.clone(), reference))
            }
            _ => {
                self.reference = Some(reference);
                Ok(())
            }
        }
    }
}

/// What the query may hold, with a value.
const QUERIES: [&str; 7] = [
    "ref", "tag", "branch", "subdir", "commit", "checksum", "mtime",
];

/// Tells whether a text is a full commit ID.
pub fn is_commit(text: &str) -> bool {
    text.len() == 40
        && text
            .bytes()
            .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// Checks what is to be compared with a commit ID.
pub fn check_commit(text: &str) -> Result<(), GitRefError> {
    let is_hex = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    match is_hex && (7..=40).contains(&text.len()) {
        true => Ok(()),
        false => Err(GitRefError::BadChecksum(text.to_owned())),
    }
}

/// Splits a URL into what may be shown and stored, and the `USER:PASSWORD` that was in it. A user name alone stays.
pub fn split_credentials(url: &str) -> (String, Option<Secret<String>>) {
    let Some((scheme, rest)) = url.split_once("://") else {
        return (url.to_owned(), None);
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    match authority.rsplit_once('@') {
        Some((user, host)) if user.contains(':') => (
            format!("{scheme}://{host}{path}"),
            Some(Secret::new(user.to_owned())),
        ),
        _ => (url.to_owned(), None),
    }
}

/// Returns a URL without password, query and fragment, as messages show it.
pub fn shown_url(url: &str) -> String {
    let (url, _) = split_credentials(url);
    let end = url.find(['?', '#']).unwrap_or(url.len());
    url[..end].to_owned()
}

/// Returns a text in which the passwords of URLs are stars.
pub fn without_passwords(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        clean.push_str(before);
        let end = after
            .find(|c: char| c.is_whitespace() || "/?#\"'".contains(c))
            .unwrap_or(after.len());
        rest = after;
        if let Some(host) = after[..end].rfind('@')
            && let Some(colon) = after[..host].find(':')
        {
            clean.push_str(&after[..colon]);
            clean.push_str(":***");
            rest = &after[host..];
        }
    }
    clean.push_str(rest);
    clean
}

/// Decodes `%41`.
pub fn percent_decoded(text: &str) -> Option<Vec<u8>> {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] == b'%' {
            let digits = bytes.get(at + 1..at + 3)?;
            let digits = std::str::from_utf8(digits).ok()?;
            if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return None;
            }
            decoded.push(u8::from_str_radix(digits, 16).ok()?);
            at += 3;
        } else {
            decoded.push(bytes[at]);
            at += 1;
        }
    }
    Some(decoded)
}

/// Returns the URL that git is given, if the text (without fragment and query) names a repository.
fn repository_url(remote: &str, place: GitPlace) -> Option<String> {
    let odd = |c: char| c.is_control() || c.is_whitespace();
    if remote.starts_with('-') || remote.contains(odd) {
        return None;
    }
    if let Some((scheme, rest)) = remote.split_once("://") {
        let scheme = scheme.to_ascii_lowercase();
        let has_suffix = rest.ends_with(".git");
        let named = match scheme.as_str() {
            "http" | "https" => has_suffix && rest.contains('/'),
            "git" | "ssh" => true,
            "file" => place == GitPlace::CommandLine && has_suffix,
            _ => false,
        };
        return named.then(|| format!("{scheme}://{rest}"));
    }
    if place == GitPlace::CommandLine && remote.starts_with("github.com/") {
        return Some(format!("https://{remote}"));
    }
    is_scp(remote).then(|| remote.to_owned())
}

/// `USER@HOST:PATH`, as ssh and git take it.
fn is_scp(remote: &str) -> bool {
    let Some((user, rest)) = remote.split_once('@') else {
        return false;
    };
    let Some((host, path)) = rest.split_once(':') else {
        return false;
    };
    let word = |text: &str| {
        text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    word(user) && word(host) && !path.is_empty() && !path.starts_with('-')
}

fn full(prefix: &str, name: &str) -> String {
    match name.starts_with(prefix) {
        true => name.to_owned(),
        false => format!("{prefix}{name}"),
    }
}

/// The rules of `git check-ref-format`, as far as they keep a name from meaning something else.
fn check_reference(name: &str) -> Result<(), GitRefError> {
    let odd = |c: char| c.is_control() || c.is_whitespace() || "~^:?*[\\".contains(c);
    let is_odd = name.starts_with(['-', '/', '.'])
        || name.ends_with(['/', '.'])
        || name.ends_with(".lock")
        || name.contains("..")
        || name.contains("//")
        || name.contains("@{")
        || name == "@"
        || name.contains(odd);
    match is_odd {
        true => Err(GitRefError::BadReference(name.escape_debug().to_string())),
        false => Ok(()),
    }
}

/// Returns a directory without `.`, `..` and doubled slashes; `..` stops at the top.
fn clean(directory: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in directory.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    Some(parts.join("/")).filter(|clean| !clean.is_empty())
}

fn cut(text: &str, at: char) -> (&str, Option<&str>) {
    match text.split_once(at) {
        Some((before, after)) => (before, Some(after)),
        None => (text, None),
    }
}

fn decoded(text: &str, in_query: bool) -> Result<String, GitRefError> {
    let spaced = match in_query {
        true => text.replace('+', " "),
        false => text.to_owned(),
    };
    percent_decoded(&spaced)
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .filter(|text| !text.contains('\0'))
        .ok_or_else(|| GitRefError::Encoding(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes what a name says: `URL ref=… dir=… sum=…` and flags; `-` for what is no repository.
    fn told(text: &str, place: GitPlace) -> String {
        match GitRef::parse(text, place) {
            None => "-".to_owned(),
            Some(Err(error)) => format!("error: {error}"),
            Some(Ok(git)) => {
                let mut told = git.url;
                for (name, value) in [
                    ("ref", git.reference),
                    ("dir", git.subdirectory),
                    ("sum", git.checksum),
                    ("keep", git.keep_git_dir.map(|flag| flag.to_string())),
                    ("subs", git.submodules.map(|flag| flag.to_string())),
                    ("times", git.times.map(|times| format!("{times:?}"))),
                ] {
                    if let Some(value) = value {
                        told.push_str(&format!(" {name}={value}"));
                    }
                }
                told
            }
        }
    }

    #[test]
    fn repositories_are_told_from_paths_and_other_urls() {
        for (text, wanted) in [
            ("a", "-"),
            ("/a.git", "-"),
            ("./a.git", "-"),
            ("a@b", "-"),
            ("dir/a@b:c", "-"),
            ("https://x/a.tar", "-"),
            ("http://x", "-"),
            ("https://.git", "-"),
            ("https://x/a?f=b.git", "-"),
            ("https://x/a.git/", "-"),
            ("file:///a.git", "-"),
            ("github.com/a/b", "-"),
            ("ext::sh -c x.git", "-"),
            ("--upload-pack=x@h:y.git", "-"),
            ("u@-oProxyCommand=x:y", "-"),
            ("-u@h:y", "-"),
            ("https://x/a.git", "https://x/a.git"),
            ("HTTPS://x/a.git", "https://x/a.git"),
            ("https://x/a.git#", "https://x/a.git"),
            ("git://x/a", "git://x/a"),
            ("ssh://git@x:22/a", "ssh://git@x:22/a"),
            ("git@github.com:a/b.git", "git@github.com:a/b.git"),
            ("ssh://-oProxyCommand=x/y", "error: the URL names no host"),
            ("git:///x", "error: the URL names no host"),
        ] {
            assert_eq!(told(text, GitPlace::Dockerfile), wanted, "{text}");
        }
        for (text, wanted) in [
            ("file:///a/b.git#v1", "file:///a/b.git ref=v1"),
            ("file:///a/b", "-"),
            (
                "github.com/a/b#main:d",
                "https://github.com/a/b ref=main dir=d",
            ),
        ] {
            assert_eq!(told(text, GitPlace::CommandLine), wanted, "{text}");
        }
    }

    #[test]
    fn fragment_and_query_say_what_to_take() {
        for (rest, wanted) in [
            ("#main", " ref=main"),
            ("#main:a/b", " ref=main dir=a/b"),
            ("#:a/../../b/", " dir=b"),
            ("#:/", ""),
            ("#refs/pull/4/head", " ref=refs/pull/4/head"),
            ("?ref=main", " ref=main"),
            ("?ref=main#main", " ref=main"),
            ("?tag=v1", " ref=refs/tags/v1"),
            ("?tag=refs/tags/v1", " ref=refs/tags/v1"),
            ("?branch=a%2Fb&subdir=x+y", " ref=refs/heads/a/b dir=x y"),
            ("?commit=ABCDEF0", " ref=abcdef0 sum=abcdef0"),
            ("?tag=v1&checksum=abcdef0", " ref=refs/tags/v1 sum=abcdef0"),
            ("?keep-git-dir&submodules=0", " keep=true subs=false"),
            ("?mtime=checkout", " times=Checkout"),
            (
                "?branch=x&commit=0123456789012345678901234567890123456789&fetch-by-commit=1",
                " ref=0123456789012345678901234567890123456789 sum=0123456789012345678901234567890123456789",
            ),
        ] {
            for url in ["https://x/a.git", "git@x:a"] {
                let text = format!("{url}{rest}");
                assert_eq!(
                    told(&text, GitPlace::Dockerfile),
                    format!("{url}{wanted}"),
                    "{text}"
                );
            }
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (rest, wanted) in [
            ("?x=1", "unknown"),
            ("?ref=", "no value"),
            ("?ref=a&ref=a", "twice"),
            ("?commit=abcdef0&checksum=abcdef0", "twice"),
            ("?ref=a#b", "two references"),
            ("?subdir=a#:b", "two directories"),
            ("?branch=a&tag=b", "a branch and a tag"),
            ("?tag=a#a", "two references"),
            ("?keep-git-dir=maybe", "true or false"),
            ("?mtime=now", "`commit` or `checkout`"),
            ("?commit=xyz", "no commit ID"),
            ("?commit=abc", "no commit ID"),
            ("?fetch-by-commit=true&commit=abcdef0", "full ID"),
            ("#--upload-pack=x", "cannot be the name"),
            ("#a..b", "cannot be the name"),
            ("#a b", "cannot be the name"),
            ("#a*", "cannot be the name"),
            ("#%zz", "not well encoded"),
            ("#%ff", "not well encoded"),
        ] {
            let text = format!("https://x/a.git{rest}");
            let told = told(&text, GitPlace::Dockerfile);
            assert!(
                told.starts_with("error: ") && told.contains(wanted),
                "{text}: {told}"
            );
        }
    }

    #[test]
    fn passwords_leave_the_url() {
        for (url, clean, secret) in [
            (
                "https://u:p@h/a.git",
                "https://h/a.git",
                Some("u:p".to_owned()),
            ),
            ("https://u@h/a.git", "https://u@h/a.git", None),
            ("https://h/a@b:c.git", "https://h/a@b:c.git", None),
            ("git@h:a", "git@h:a", None),
        ] {
            let (found, credentials) = split_credentials(url);
            assert_eq!(found, clean);
            assert_eq!(
                credentials.map(|secret| secret.reveal().clone()),
                secret,
                "{url}"
            );
        }
        assert_eq!(shown_url("https://u:p@h/a?token=x#y"), "https://h/a");
        for (text, clean) in [
            (
                "ADD https://u:p@h/a b://c:d@e f",
                "ADD https://u:***@h/a b://c:***@e f",
            ),
            ("ADD [\"https://u:p:@q@h\"]", "ADD [\"https://u:***@h\"]"),
            (
                "ADD https://u@h/a:b@c git@h:x",
                "ADD https://u@h/a:b@c git@h:x",
            ),
        ] {
            assert_eq!(without_passwords(text), clean);
        }
    }
}
