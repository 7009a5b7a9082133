//! Running `git`: one command to its end, in an environment that neither the user's settings nor a repository can bend.
//!
//! No configuration of the machine or the user is read (so no credential helpers and no `insteadOf`), hooks and file-system
//! monitors are off, nothing is asked on a terminal, and only the protocols that a call names may be spoken. Credentials go to git
//! through its environment, never through arguments; they are sent to the host that they are for, and since git would take them
//! along wherever a redirect leads, redirects are followed without them only. Needs git 2.32, which can be told to leave the
//! user's configuration alone; an older one ignores that, so its version is looked at first.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use crate::vocab::{Secret, split_credentials};

/// Of what git prints on standard output, at most this much is taken: a tree of a million files.
const MOST_OUTPUT: usize = 256 << 20;
/// Of its complaints, the end.
const MOST_COMPLAINTS: usize = 16 << 10;
const OLDEST: (u32, u32) = (2, 32);

/// Variables of the user that git is told.
const PASSED: [&str; 20] = [
    "PATH",
    "HOME",
    "TMPDIR",
    "SSH_AUTH_SOCK",
    "GIT_SSH",
    "GIT_SSH_COMMAND",
    "GIT_SSL_CAINFO",
    "GIT_SSL_CAPATH",
    "GIT_SSL_NO_VERIFY",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "XDG_RUNTIME_DIR",
];

/// Configuration of every command.
const SETTINGS: [(&str, &str); 19] = [
    ("core.hooksPath", "/dev/null"),
    ("core.fsmonitor", "false"),
    ("core.logAllRefUpdates", "false"),
    ("core.autocrlf", "false"),
    ("core.symlinks", "true"),
    ("credential.helper", ""),
    ("advice.detachedHead", "false"),
    ("init.defaultBranch", "main"),
    ("gc.auto", "0"),
    ("maintenance.auto", "false"),
    ("fetch.recurseSubmodules", "false"),
    ("submodule.recurse", "false"),
    ("http.followRedirects", "initial"),
    // A server that sends nothing must not hold the build.
    ("http.lowSpeedLimit", "1"),
    ("http.lowSpeedTime", "60"),
    ("protocol.ext.allow", "never"),
    ("protocol.version", "2"),
    // Its directories are the builder's own.
    ("safe.directory", "*"),
    ("transfer.bundleURI", "false"),
];

/// What git says of a redirect that it is not to follow.
const REDIRECTED: &str = "The requested URL returned error: 30";

/// Without questions, and without waiting for ever.
const SSH: &str =
    "ssh -o BatchMode=yes -o ConnectTimeout=30 -o ServerAliveInterval=15 -o ServerAliveCountMax=4";

/// What speaks to repositories.
#[derive(Debug, Default)]
pub struct Git {
    secrets: BTreeMap<String, Secret<String>>,
    version: OnceLock<(u32, u32)>,
    spawn: Option<Spawn>,
}

/// How a program is started.
type Spawn = fn(&mut Command) -> io::Result<Child>;

/// Why something about a repository failed.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    #[error("the program `git` is not there")]
    Missing,
    #[error("`git` is too old: wanted {}.{}, found {}.{}", OLDEST.0, OLDEST.1, found.0, found.1)]
    Old { found: (u32, u32) },
    #[error("cannot run `git`")]
    Run(#[source] io::Error),
    #[error("`git {command}` failed: {said}")]
    Failed { command: String, said: String },
    #[error("`git {command}` printed more than the builder takes")]
    TooMuch { command: String },
    #[error("`git {command}` printed something that makes no sense")]
    Odd { command: &'static str },
    #[error("the repository has no branch, tag or reference `{0}`")]
    NoReference(String),
    #[error("the repository has no default branch")]
    NoDefault,
    #[error("the repository has no commit {0}")]
    NoCommit(String),
    /// `--checksum`, or `commit=` of the name.
    #[error("the commit is another: wanted {wanted}, found {found}")]
    Checksum { wanted: String, found: String },
    #[error("submodule `{path}` cannot be fetched: {problem}")]
    Submodule { path: String, problem: String },
    #[error("cannot {verb} `{}`", path.display())]
    Io {
        verb: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl GitError {
    /// Returns what the user can do, where something is known.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            GitError::Missing => {
                "repositories are fetched with git: install it, or clone before the build and name the directory"
            }
            GitError::Old { .. } => "install a newer git",
            GitError::NoReference(name)
                if name.len() >= 7 && name.bytes().all(|byte| byte.is_ascii_hexdigit()) =>
            {
                "a commit is named by all 40 digits of its ID"
            }
            GitError::NoReference(_) => "check the name of the branch or tag",
            GitError::Checksum { .. } => {
                "the reference has moved, or the checksum belongs to another one"
            }
            GitError::Submodule { .. } => "`?submodules=false` leaves submodules out",
            GitError::Failed { said, .. }
                if said.contains("could not read Username")
                    || said.contains("Authentication failed")
                    || said.contains("terminal prompts disabled") =>
            {
                "a private repository needs credentials: give a token as the secret GIT_AUTH_TOKEN, or use ssh with an agent"
            }
            GitError::Failed { said, .. } if said.contains(REDIRECTED) => {
                "the server sends elsewhere, and credentials are for the host that was named: name the repository where it is now"
            }
            GitError::Failed { said, .. } if said.contains("Host key verification failed") => {
                "add the server's key to ~/.ssh/known_hosts: `ssh-keyscan HOST`"
            }
            GitError::Failed { said, .. } if said.contains("Permission denied (publickey") => {
                "the ssh agent of SSH_AUTH_SOCK, or ~/.ssh, has no key that the server takes"
            }
            _ => return None,
        };
        Some(text.to_owned())
    }
}

/// One command.
pub(super) struct Call<'a> {
    pub(super) args: Vec<OsString>,
    pub(super) git_dir: Option<&'a Path>,
    /// The repository that is spoken to, for credentials; its protocol is allowed.
    pub(super) remote: Option<Remote<'a>>,
    pub(super) environment: Vec<(&'static str, OsString)>,
    /// Protocols besides that of `remote`.
    pub(super) allow_files: bool,
}

/// A repository that is spoken to.
#[derive(Clone, Copy)]
pub struct Remote<'a> {
    pub url: &'a str,
    /// The repository that the user named; a submodule's differs. Credentials for no particular host are for its host.
    pub named: &'a str,
}

impl<'a> Call<'a> {
    pub(super) fn new<I>(args: I) -> Call<'a>
    where
        I: IntoIterator,
        I::Item: AsRef<OsStr>,
    {
        Call {
            args: args
                .into_iter()
                .map(|arg| arg.as_ref().to_owned())
                .collect(),
            git_dir: None,
            remote: None,
            environment: Vec::new(),
            allow_files: false,
        }
    }

    pub(super) fn at(mut self, git_dir: &'a Path) -> Call<'a> {
        self.git_dir = Some(git_dir);
        self
    }

    pub(super) fn with(mut self, name: &'static str, value: impl AsRef<OsStr>) -> Call<'a> {
        self.environment.push((name, value.as_ref().to_owned()));
        self
    }

    fn name(&self) -> String {
        let first = self.args.first().map(|arg| arg.to_string_lossy());
        first.unwrap_or_default().into_owned()
    }
}

impl Git {
    /// Takes the secrets of the build, by id: `GIT_AUTH_TOKEN`, `GIT_AUTH_HEADER`, and both with `.HOST`.
    pub fn new(secrets: BTreeMap<String, Secret<String>>) -> Git {
        Git {
            secrets,
            version: OnceLock::new(),
            spawn: None,
        }
    }

    /// Has git started by `spawn`, so that it ends with the builder.
    pub fn spawned_by(mut self, spawn: Spawn) -> Git {
        self.spawn = Some(spawn);
        self
    }

    /// Runs a command and returns what it printed.
    pub(super) fn run(&self, call: Call<'_>) -> Result<Vec<u8>, GitError> {
        self.check_version()?;
        let name = call.name();
        let authorization = call.remote.and_then(|remote| self.authorization(remote));
        let output = self
            .spawn(self.command(&call, authorization.as_ref()))?
            .finish(&name)?;
        if output.success {
            return Ok(output.printed);
        }
        let mut said = complaint(&output.complaints);
        if authorization.is_some() && said.contains(REDIRECTED) {
            // What is public elsewhere needs no credentials.
            let output = self.spawn(self.command(&call, None))?.finish(&name)?;
            if output.success {
                return Ok(output.printed);
            }
        }
        for secret in self.secrets.values().chain(&authorization) {
            if !secret.reveal().is_empty() {
                said = said.replace(secret.reveal(), "***");
            }
        }
        Err(GitError::Failed {
            command: name,
            said,
        })
    }

    fn spawn(&self, mut command: Command) -> Result<Running, GitError> {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let spawned = match self.spawn {
            Some(spawn) => spawn(&mut command),
            None => command.spawn(),
        };
        match spawned {
            Ok(child) => Ok(Running(child)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(GitError::Missing),
            Err(error) => Err(GitError::Run(error)),
        }
    }

    /// Asks git for its version, once.
    fn check_version(&self) -> Result<(), GitError> {
        let found = match self.version.get() {
            Some(found) => *found,
            None => {
                let mut command = Command::new("git");
                command.arg("version").stdin(Stdio::null());
                let output = self.spawn(command)?.finish("version")?;
                let found = version(&String::from_utf8_lossy(&output.printed))
                    .ok_or(GitError::Odd { command: "version" })?;
                *self.version.get_or_init(|| found)
            }
        };
        match found < OLDEST {
            true => Err(GitError::Old { found }),
            false => Ok(()),
        }
    }

    fn command(&self, call: &Call<'_>, authorization: Option<&Secret<String>>) -> Command {
        let mut command = Command::new("git");
        command.env_clear().stdin(Stdio::null());
        for name in PASSED {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        // git knows certificates by another name than everybody else.
        for (from, to) in [
            ("SSL_CERT_FILE", "GIT_SSL_CAINFO"),
            ("SSL_CERT_DIR", "GIT_SSL_CAPATH"),
        ] {
            if let Some(value) = std::env::var_os(from)
                && std::env::var_os(to).is_none()
            {
                command.env(to, value);
            }
        }
        if std::env::var_os("GIT_SSH_COMMAND").is_none() && std::env::var_os("GIT_SSH").is_none() {
            command.env("GIT_SSH_COMMAND", SSH);
        }
        if call.remote.is_none_or(|remote| is_http(remote.url)) {
            // Only ssh has business there; curl would find passwords in ~/.netrc.
            command.env("HOME", "/dev/null");
        }
        let mut protocols = vec!["http", "https", "ssh", "git"];
        let is_file = |remote: Remote<'_>| remote.url.starts_with("file://");
        if call.allow_files || call.remote.is_some_and(is_file) {
            protocols.push("file");
        }
        command
            .env("LC_ALL", "C")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_ASKPASS", "")
            .env("SSH_ASKPASS", "")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_ATTR_NOSYSTEM", "1")
            .env("GIT_OPTIONAL_LOCKS", "0")
            .env("GIT_NO_LAZY_FETCH", "1")
            .env("GIT_ALLOW_PROTOCOL", protocols.join(":"));
        let mut settings: Vec<(String, &str)> = SETTINGS
            .iter()
            .map(|(name, value)| ((*name).to_owned(), *value))
            .collect();
        let header;
        if let (Some(remote), Some(value)) = (call.remote, authorization) {
            header = format!("Authorization: {}", value.reveal());
            let origin = origin(remote.url);
            settings.push((format!("http.{origin}/.extraHeader"), &header));
            // The request after a redirect goes to the new host, with the header.
            settings.push(("http.followRedirects".to_owned(), "false"));
        }
        command.env("GIT_CONFIG_COUNT", settings.len().to_string());
        for (at, (name, value)) in settings.iter().enumerate() {
            command
                .env(format!("GIT_CONFIG_KEY_{at}"), name)
                .env(format!("GIT_CONFIG_VALUE_{at}"), value);
        }
        if let Some(git_dir) = call.git_dir {
            command.env("GIT_DIR", git_dir);
        }
        for (name, value) in &call.environment {
            command.env(name, value);
        }
        // Not in whatever repository the builder was started in.
        command.current_dir("/").args(&call.args);
        command
    }

    /// Returns the value of `Authorization` for a repository.
    fn authorization(&self, remote: Remote<'_>) -> Option<Secret<String>> {
        let (_, written) = split_credentials(remote.url);
        if !is_http(remote.url) {
            return None;
        }
        let basic = |pair: &str| Secret::new(format!("Basic {}", STANDARD.encode(pair)));
        if let Some(written) = written {
            // As in every URL, what would not fit is written in hex.
            let pair = crate::vocab::percent_decoded(written.reveal())
                .and_then(|pair| String::from_utf8(pair).ok())
                .unwrap_or_else(|| written.reveal().clone());
            return Some(basic(&pair));
        }
        let host = authority(remote.url);
        let name = host.split(':').next().unwrap_or(host);
        let mut suffixes = vec![format!(".{host}"), format!(".{name}")];
        if origin(remote.url) == origin(remote.named) {
            suffixes.push(String::new());
        }
        for suffix in suffixes {
            if let Some(header) = self.secrets.get(&format!("GIT_AUTH_HEADER{suffix}")) {
                return Some(Secret::new(header.reveal().trim_end().to_owned()));
            }
            if let Some(token) = self.secrets.get(&format!("GIT_AUTH_TOKEN{suffix}")) {
                return Some(basic(&format!(
                    "x-access-token:{}",
                    token.reveal().trim_end()
                )));
            }
        }
        None
    }
}

fn is_http(url: &str) -> bool {
    url.starts_with("http://") || url.starts_with("https://")
}

/// Returns the URL as git is given it.
pub(super) fn bare_url(url: &str) -> String {
    split_credentials(url).0
}

/// Returns host and port of a URL.
pub(super) fn authority(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host)
}

/// Returns scheme, host and port of a URL.
fn origin(url: &str) -> String {
    let scheme = url.split_once("://").map_or("ssh", |(scheme, _)| scheme);
    format!("{scheme}://{}", authority(url).to_ascii_lowercase())
}

/// Reads `git version 2.47.3`.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.trim().strip_prefix("git version ")?.split('.');
    Some((
        numbers.next()?.parse().ok()?,
        numbers
            .next()?
            .split(|c: char| !c.is_ascii_digit())
            .next()?
            .parse()
            .ok()?,
    ))
}

/// Returns the lines that say what is wrong, as one.
fn complaint(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let lines: Vec<String> = text
        .split(['\n', '\r'])
        .map(|line| line.chars().filter(|c| !c.is_control()).collect::<String>())
        .map(|line| line.trim().to_owned())
        .filter(|line| !line.is_empty() && !line.starts_with("hint:"))
        .collect();
    let is_verdict = |line: &&String| {
        ["fatal:", "error:", "remote:", "ssh:"]
            .iter()
            .any(|word| line.starts_with(word))
            || line.contains("denied")
            || line.contains("verification failed")
    };
    let verdicts: Vec<&str> = lines
        .iter()
        .filter(is_verdict)
        .map(|line| line.strip_prefix("fatal: ").unwrap_or(line))
        .collect();
    let shown = match verdicts.is_empty() {
        true => lines.iter().map(String::as_str).collect(),
        false => verdicts,
    };
    let first = shown.len().saturating_sub(4);
    match shown[first..].join("; ") {
        text if text.is_empty() => "it did not say why".to_owned(),
        text => text.chars().take(1000).collect(),
    }
}

/// A git that runs.
struct Running(Child);

struct Output {
    success: bool,
    printed: Vec<u8>,
    complaints: Vec<u8>,
}

impl Running {
    /// Reads what it prints until it ends. In this thread alone: the process may have to enter a namespace later.
    fn finish(mut self, name: &str) -> Result<Output, GitError> {
        let stdout = OwnedFd::from(self.0.stdout.take().expect("it is piped"));
        let stderr = OwnedFd::from(self.0.stderr.take().expect("it is piped"));
        let mut streams = [(Some(stdout), Vec::new()), (Some(stderr), Vec::new())];
        let mut buffer = [0; 64 << 10];
        loop {
            let open: Vec<usize> = (0..streams.len())
                .filter(|&at| streams[at].0.is_some())
                .collect();
            if open.is_empty() {
                break;
            }
            let ready = ready(open.iter().filter_map(|&at| streams[at].0.as_ref()));
            for (&at, is_ready) in open.iter().zip(ready.map_err(GitError::Run)?) {
                let (stream, text) = &mut streams[at];
                let Some(fd) = stream.as_ref().filter(|_| is_ready) else {
                    continue;
                };
                match rustix::io::read(fd, &mut buffer) {
                    Ok(0) => *stream = None,
                    Ok(count) => text.extend_from_slice(&buffer[..count]),
                    Err(Errno::INTR) => {}
                    Err(error) => return Err(GitError::Run(error.into())),
                }
            }
            if streams[0].1.len() > MOST_OUTPUT {
                return Err(GitError::TooMuch {
                    command: name.to_owned(),
                });
            }
            let complaints = &mut streams[1].1;
            let extra = complaints.len().saturating_sub(MOST_COMPLAINTS);
            complaints.drain(..extra);
        }
        let status = self.0.wait().map_err(GitError::Run)?;
        let [(_, printed), (_, complaints)] = streams;
        Ok(Output {
            success: status.success(),
            printed,
            complaints,
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // One that has ended cannot be killed, and that is as good.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Waits until something can be read, and tells where.
fn ready<'a>(waiting: impl Iterator<Item = &'a OwnedFd>) -> io::Result<Vec<bool>> {
    let mut fds: Vec<PollFd<'_>> = waiting.map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
    loop {
        match poll(&mut fds, None) {
            Ok(_) => return Ok(fds.iter().map(|fd| !fd.revents().is_empty()).collect()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn git(secrets: &[(&str, &str)]) -> Git {
        let secrets = secrets
            .iter()
            .map(|(id, value)| ((*id).to_owned(), Secret::new((*value).to_owned())));
        Git::new(secrets.collect())
    }

    fn check(secrets: &[(&str, &str)], url: &str, named: &str, wanted: Option<&str>) {
        let found = git(secrets).authorization(Remote { url, named });
        let found = found.map(|secret| secret.reveal().clone());
        let shown = found.map(|value| match value.strip_prefix("Basic ") {
            Some(encoded) => String::from_utf8(STANDARD.decode(encoded).unwrap()).unwrap(),
            None => value,
        });
        assert_eq!(shown.as_deref(), wanted, "{url}");
    }

    #[test]
    fn credentials_go_to_the_host_that_they_are_for() {
        let (a, b) = ("https://a.test/x.git", "https://b.test/x.git");
        check(&[], a, a, None);
        let general = [("GIT_AUTH_TOKEN", "t\n")];
        check(&general, a, a, Some("x-access-token:t"));
        // A submodule elsewhere, or without encryption.
        check(&general, b, a, None);
        check(&general, "http://a.test/x.git", a, None);
        check(&general, "https://a.test.evil/x.git", a, None);
        check(&general, "ssh://a.test/x.git", a, None);
        let hosts = [
            ("GIT_AUTH_TOKEN.b.test", "b"),
            ("GIT_AUTH_HEADER", "Bearer h"),
        ];
        check(&hosts, a, a, Some("Bearer h"));
        check(&hosts, b, a, Some("x-access-token:b"));
        check(
            &hosts,
            "https://b.test:8443/x.git",
            a,
            Some("x-access-token:b"),
        );
        check(&general, "https://u:p%40q@a.test/x.git", a, Some("u:p@q"));
    }

    #[test]
    fn versions_and_complaints_are_read() {
        for (text, wanted) in [
            ("git version 2.47.3\n", Some((2, 47))),
            ("git version 2.39.5 (Apple Git-154)", Some((2, 39))),
            ("git version 2.32-rc1", Some((2, 32))),
            ("no git", None),
        ] {
            assert_eq!(version(text), wanted, "{text}");
        }
        assert_eq!(
            complaint(b"Cloning\nhint: x\nfatal: no \x1b[31mway\n"),
            "no [31mway"
        );
        assert_eq!(complaint(b"odd\n"), "odd");
        assert_eq!(complaint(b""), "it did not say why");
    }

    #[test]
    fn the_environment_of_the_user_stays_outside() {
        let git = git(&[("GIT_AUTH_TOKEN", "hunter2")]);
        let url = "https://a.test/x.git";
        let mut call = Call::new(["ls-remote", "--", url]);
        call.remote = Some(Remote { url, named: url });
        let authorization = git.authorization(call.remote.unwrap());
        let command = git.command(&call, authorization.as_ref());
        let args: Vec<_> = command.get_args().collect();
        assert_eq!(args, ["ls-remote", "--", url]);
        let variables: BTreeMap<_, _> = command.get_envs().collect();
        let value = |name: &str| variables.get(OsStr::new(name)).copied().flatten();
        assert_eq!(value("GIT_CONFIG_GLOBAL"), Some(OsStr::new("/dev/null")));
        assert_eq!(
            value("GIT_ALLOW_PROTOCOL"),
            Some(OsStr::new("http:https:ssh:git"))
        );
        assert_eq!(
            value(&format!("GIT_CONFIG_KEY_{}", SETTINGS.len())),
            Some(OsStr::new("http.https://a.test/.extraHeader"))
        );
    }
}
