//! Accounts that variables hold field by field: ours, and those that CI systems set.
//!
//! ```text
//! BUILDER_REGISTRY=HOST[/PATH]    BUILDER_REGISTRY_USER    BUILDER_REGISTRY_PASSWORD
//! BUILDER_REGISTRY_N=…            BUILDER_REGISTRY_USER_N  BUILDER_REGISTRY_PASSWORD_N    N: 1, 2, …
//! BUILDER_REGISTRY_AUTH           lines of HOST[/PATH]=USER:PASSWORD
//! CI_REGISTRY                     CI_REGISTRY_USER, CI_REGISTRY_PASSWORD, else CI_JOB_TOKEN
//! CI_DEPENDENCY_PROXY_SERVER      CI_DEPENDENCY_PROXY_USER, CI_DEPENDENCY_PROXY_PASSWORD
//! ghcr.io                         GITHUB_ACTOR, GITHUB_TOKEN
//! ```
//!
//! An account is for exactly the host that is named with it. A password in a variable of its own may hold anything but a NUL; one in
//! a line, anything but an end of line. A field that lacks its companion is told when that registry wants credentials, and not
//! before: pipelines of forks have empty secrets and still pull what is public.

use super::auth_file::{Credential, Key, longest, user_and_password};
use super::environment::{Environment, OWN};
use super::error::RegistryError;
use crate::vocab::Secret;

/// What GitLab calls the owner of a job's token.
const GITLAB_JOB_USER: &str = "gitlab-ci-token";
/// Whoever shows a token is its owner; GitHub's registry wants some name beside it.
const GITHUB_TOKEN_USER: &str = "x-access-token";
const GITHUB_REGISTRY: &str = "ghcr.io";

/// Accounts, and fields that are no account for want of another one.
#[derive(Default)]
pub(super) struct Variables(Vec<(Key, Result<Credential, Gap>)>);

/// The variable to blame, and what is wrong with it.
#[derive(Clone, Debug)]
struct Gap {
    place: String,
    what: String,
}

impl Gap {
    fn new(place: impl Into<String>, what: impl Into<String>) -> Gap {
        Gap {
            place: place.into(),
            what: what.into(),
        }
    }

    fn into_error(self) -> RegistryError {
        RegistryError::Credentials {
            place: self.place,
            what: self.what,
        }
    }
}

impl Variables {
    /// Reads the variables of our own.
    pub(super) fn own(environment: &Environment) -> Result<Variables, RegistryError> {
        let mut variables = Variables::default();
        let mut ends: Vec<&str> = environment
            .names_with(OWN)
            .filter_map(|name| {
                let rest = &name[OWN.len()..];
                let rest = rest.strip_prefix("_USER").unwrap_or(rest);
                let rest = rest.strip_prefix("_PASSWORD").unwrap_or(rest);
                is_end(rest).then_some(rest)
            })
            .collect();
        ends.sort_unstable();
        ends.dedup();
        for end in ends {
            variables.add_fields(environment, end)?;
        }
        variables.add_lines(environment)?;
        Ok(variables)
    }

    /// Reads what CI systems set.
    pub(super) fn of_ci(environment: &Environment) -> Variables {
        let mut variables = Variables::default();
        let text = |name: &str| environment.text(name);
        if let Some(host) = text("CI_REGISTRY") {
            let account = text("CI_REGISTRY_USER")
                .zip(text("CI_REGISTRY_PASSWORD"))
                .or_else(|| Some((GITLAB_JOB_USER.to_owned(), text("CI_JOB_TOKEN")?)));
            variables.add_ci(&host, account);
        }
        if let Some(host) = text("CI_DEPENDENCY_PROXY_SERVER") {
            let user = text("CI_DEPENDENCY_PROXY_USER");
            variables.add_ci(&host, user.zip(text("CI_DEPENDENCY_PROXY_PASSWORD")));
        }
        if let Some(token) = text("GITHUB_TOKEN") {
            let user = text("GITHUB_ACTOR").unwrap_or_else(|| GITHUB_TOKEN_USER.to_owned());
            variables.add_ci(GITHUB_REGISTRY, Some((user, token)));
        }
        variables
    }

    /// Finds the account for a repository: the one with the longest path. A default port may be said or not.
    pub(super) fn find(
        &self,
        registry: &str,
        repository: &str,
    ) -> Result<Option<Credential>, RegistryError> {
        match longest(&self.0, without_port(registry), repository) {
            None => Ok(None),
            Some(Ok(credential)) => Ok(Some(credential.clone())),
            Some(Err(gap)) => Err(gap.clone().into_error()),
        }
    }

    fn add_fields(&mut self, environment: &Environment, end: &str) -> Result<(), RegistryError> {
        let [host, user, password] =
            ["", "_USER", "_PASSWORD"].map(|field| format!("{OWN}{field}{end}"));
        let key = read(environment, &host).map_err(Gap::into_error)?;
        let fields = read(environment, &user)
            .and_then(|found| Ok((found, read(environment, &password)?)))
            .map_err(Gap::into_error)?;
        let credential = match (&key, fields) {
            (_, (None, None)) => return Ok(()),
            (None, _) => {
                let what = format!(
                    "it is not set, and without it nobody knows which registry {user} and {password} are for"
                );
                return Err(Gap::new(host, what).into_error());
            }
            (Some(_), (Some(user), Some(password))) => {
                user_and_password(user, password).ok_or_else(|| Gap::new(host, "it is empty"))
            }
            (Some(_), (Some(_), None)) => Err(Gap::new(
                password,
                format!("it is empty, and {user} is set"),
            )),
            (Some(_), (None, Some(_))) => Err(Gap::new(
                user,
                format!("it is empty, and {password} is set"),
            )),
        };
        self.0.extend(key.map(|key| (key_of(&key), credential)));
        Ok(())
    }

    fn add_lines(&mut self, environment: &Environment) -> Result<(), RegistryError> {
        let place = format!("{OWN}_AUTH");
        let Some(text) = read(environment, &place).map_err(Gap::into_error)? else {
            return Ok(());
        };
        for (number, line) in text.lines().enumerate() {
            if line.trim().is_empty() {
                continue;
            }
            let credential = line.split_once('=').and_then(|(host, account)| {
                let (user, password) = account.split_once(':')?;
                let is_whole = !host.trim().is_empty() && !user.is_empty() && !password.is_empty();
                let credential = user_and_password(user.to_owned(), password.to_owned())?;
                is_whole.then(|| (key_of(host), Ok(credential)))
            });
            let wrong = || {
                Gap::new(
                    &place,
                    format!("line {} is no HOST=USER:PASSWORD", number + 1),
                )
            };
            match credential {
                Some(entry) => self.0.push(entry),
                None => return Err(wrong().into_error()),
            }
        }
        Ok(())
    }

    fn add_ci(&mut self, host: &str, account: Option<(String, String)>) {
        if let Some((user, password)) = account {
            let password = Secret::new(password);
            let credential = Credential::Password { user, password };
            self.0.push((key_of(host), Ok(credential)));
        }
    }
}

/// Tells whether this is what a numbered variable has after its name.
fn is_end(text: &str) -> bool {
    match text.strip_prefix('_') {
        Some(number) => !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()),
        None => text.is_empty(),
    }
}

fn read(environment: &Environment, name: &str) -> Result<Option<String>, Gap> {
    let Some(value) = environment.get(name) else {
        return Ok(None);
    };
    match value.to_str() {
        Some(text) => Ok(Some(text.to_owned())),
        None => Err(Gap::new(name, "it is no UTF-8")),
    }
}

fn key_of(host: &str) -> Key {
    let host = host.trim();
    let host = host.split_once("://").map_or(host, |(_, rest)| rest);
    let (authority, path) = host.split_once('/').unwrap_or((host, ""));
    Key::parse(&format!("{}/{path}", without_port(authority)))
}

/// GitLab names its dependency proxy with the default port; names of images seldom have it.
fn without_port(authority: &str) -> &str {
    authority.strip_suffix(":443").unwrap_or(authority)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;
    use std::path::Path;

    use super::*;

    fn environment(variables: &[(&str, &str)]) -> Environment {
        let variables: Vec<(&str, &OsStr)> = variables
            .iter()
            .map(|(name, value)| (*name, OsStr::new(*value)))
            .collect();
        Environment::of(Path::new("/nonexistent"), &variables)
    }

    /// `user:password`, `-` for nothing, or the error.
    fn told(found: Result<Option<Credential>, RegistryError>) -> String {
        match found {
            Ok(Some(Credential::Password { user, password })) => {
                format!("{user}:{}", password.reveal())
            }
            Ok(Some(_)) => "token".to_owned(),
            Ok(None) => "-".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    fn check(variables: &[(&str, &str)], cases: &[(&str, &str)]) {
        let environment = environment(variables);
        for (name, expected) in cases {
            let (registry, repository) = name.split_once('/').unwrap_or((name, ""));
            let found = Variables::own(&environment)
                .and_then(|own| own.find(registry, repository))
                .and_then(|found| match found {
                    Some(found) => Ok(Some(found)),
                    None => Variables::of_ci(&environment).find(registry, repository),
                });
            let told = told(found);
            assert!(
                told == *expected || (expected.len() > 20 && told.contains(expected)),
                "{variables:?} {name}: {told}"
            );
        }
    }

    #[test]
    fn fields_make_accounts() {
        check(
            &[
                ("BUILDER_REGISTRY", "https://Reg.io"),
                ("BUILDER_REGISTRY_USER", "u"),
                ("BUILDER_REGISTRY_PASSWORD", " p=:,\n\"x "),
                ("BUILDER_REGISTRY_1", "docker.io"),
                ("BUILDER_REGISTRY_USER_1", "hub"),
                ("BUILDER_REGISTRY_PASSWORD_1", "1"),
                ("BUILDER_REGISTRY_22", "reg.io/team"),
                ("BUILDER_REGISTRY_USER_22", "<token>"),
                ("BUILDER_REGISTRY_PASSWORD_22", "2"),
                // Other things of ours.
                ("BUILDER_REGISTRY_MIRROR", "a=b"),
                ("BUILDER_REGISTRY_USERS", "x"),
            ],
            &[
                ("reg.io", "u: p=:,\n\"x "),
                ("reg.io/teams", "u: p=:,\n\"x "),
                ("reg.io/team/app", "token"),
                ("reg.io:443", "u: p=:,\n\"x "),
                ("reg.io:5000", "-"),
                ("docker.io", "hub:1"),
                ("reg.io.evil.com", "-"),
                ("evil-reg.io", "-"),
                ("sub.reg.io", "-"),
            ],
        );
    }

    #[test]
    fn lines_make_accounts() {
        check(
            &[(
                "BUILDER_REGISTRY_AUTH",
                "reg.io=u:p=a:b,c d \r\n\n  other.io:5000/team=me:2\n",
            )],
            &[
                ("reg.io", "u:p=a:b,c d "),
                ("other.io:5000/team/x", "me:2"),
                ("other.io:5000", "-"),
                ("other.io", "-"),
            ],
        );
    }

    #[test]
    fn fields_that_lack_another_are_told_without_values() {
        let user = ("BUILDER_REGISTRY_USER", "u");
        let password = ("BUILDER_REGISTRY_PASSWORD", "hunter2");
        let host = ("BUILDER_REGISTRY", "reg.io");
        check(
            &[host, user],
            &[
                (
                    "reg.io",
                    "`BUILDER_REGISTRY_PASSWORD` holds no usable credentials: it is empty, and BUILDER_REGISTRY_USER is set",
                ),
                ("other.io", "-"),
            ],
        );
        check(
            &[host, password],
            &[("reg.io", "BUILDER_REGISTRY_USER` holds no usable")],
        );
        check(&[host], &[("reg.io", "-")]);
        check(
            &[user, password],
            &[("x.io", "`BUILDER_REGISTRY` holds no usable credentials")],
        );
        for text in [
            "reg.io",
            "reg.io=hunter2",
            "=u:hunter2",
            "reg.io=:hunter2",
            "reg.io=u:",
        ] {
            let lines = format!("ok.io=a:b\n{text}");
            let environment = environment(&[("BUILDER_REGISTRY_AUTH", &lines)]);
            let error = Variables::own(&environment).err().unwrap().to_string();
            assert!(error.contains("line 2"), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
        let odd = OsStr::from_bytes(b"hunter2\xff");
        let environment = Environment::of(
            Path::new("/nonexistent"),
            &[
                ("BUILDER_REGISTRY", OsStr::new("reg.io")),
                ("BUILDER_REGISTRY_PASSWORD", odd),
            ],
        );
        let error = Variables::own(&environment).err().unwrap().to_string();
        assert!(
            error.contains("UTF-8") && !error.contains("hunter2"),
            "{error}"
        );
    }

    #[test]
    fn ci_systems_accounts_are_for_their_own_hosts() {
        let job = ("CI_JOB_TOKEN", "job");
        let host = ("CI_REGISTRY", "registry.gitlab.corp:5050");
        check(
            &[
                host,
                job,
                ("CI_REGISTRY_USER", "ci"),
                ("CI_REGISTRY_PASSWORD", "1"),
                ("CI_DEPENDENCY_PROXY_SERVER", "gitlab.corp:443"),
                ("CI_DEPENDENCY_PROXY_USER", "proxy"),
                ("CI_DEPENDENCY_PROXY_PASSWORD", "2"),
                ("GITHUB_TOKEN", "gh"),
                ("GITHUB_ACTOR", "octocat"),
            ],
            &[
                ("registry.gitlab.corp:5050/a/b", "ci:1"),
                ("registry.gitlab.corp/a/b", "-"),
                ("gitlab.corp:443/group/dependency_proxy", "proxy:2"),
                ("gitlab.corp/group/dependency_proxy", "proxy:2"),
                ("ghcr.io/a", "octocat:gh"),
                ("ghcr.io.evil.com/a", "-"),
                ("notghcr.io/a", "-"),
                ("ghcr.io:5000/a", "-"),
                ("docker.io/a", "-"),
            ],
        );
        check(
            &[host, job],
            &[("registry.gitlab.corp:5050/a", "gitlab-ci-token:job")],
        );
        check(&[job], &[("registry.gitlab.com/a", "-")]);
        check(
            &[("GITHUB_TOKEN", "gh")],
            &[("ghcr.io", "x-access-token:gh")],
        );
        check(&[("GITHUB_ACTOR", "octocat")], &[("ghcr.io", "-")]);
        // What was set by hand goes before what the system sets.
        check(
            &[
                ("GITHUB_TOKEN", "gh"),
                ("BUILDER_REGISTRY", "ghcr.io"),
                ("BUILDER_REGISTRY_USER", "me"),
                ("BUILDER_REGISTRY_PASSWORD", "mine"),
            ],
            &[("ghcr.io/a", "me:mine")],
        );
    }
}
