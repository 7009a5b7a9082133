//! The scope of a CI system's job: what its caches are called where the user does not say it.
//!
//! Jobs of the default branch, of tags, and whatever runs outside of CI share one scope. A job of another branch has its own, and takes
//! what it does not find there from the branch that it is to be merged into, then from the shared one. A pull request's is named
//! after its number: the branch's name is the choice of whoever opened it.

use std::fs::File;
use std::io::Read;

use crate::vocab::CacheScope;

/// Names of default branches where the CI system does not tell.
const USUAL_DEFAULTS: [&str; 2] = ["main", "master"];
/// A file that describes what a job was started for is not larger.
const MOST_EVENT: u64 = 16 << 20;

/// Where a job's cache entries go, and where they are looked for besides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct JobScope {
    pub(super) own: CacheScope,
    pub(super) fallbacks: Vec<CacheScope>,
}

/// A CI system by its variables. An empty value is none.
struct System {
    /// Set in each of its jobs, to this if it is to anything in particular.
    mark: (&'static str, Option<&'static str>),
    /// The number of a pull request, in jobs of one.
    request: &'static str,
    /// The branch that it is to be merged into.
    target: &'static str,
    branch: &'static str,
    tag: &'static str,
    default: &'static str,
}

const SYSTEMS: [System; 11] = [
    System {
        mark: ("GITLAB_CI", None),
        request: "CI_MERGE_REQUEST_IID",
        target: "CI_MERGE_REQUEST_TARGET_BRANCH_NAME",
        branch: "CI_COMMIT_BRANCH",
        tag: "CI_COMMIT_TAG",
        default: "CI_DEFAULT_BRANCH",
    },
    System {
        mark: ("JENKINS_URL", None),
        request: "CHANGE_ID",
        target: "CHANGE_TARGET",
        branch: "BRANCH_NAME",
        tag: "TAG_NAME",
        default: "",
    },
    System {
        mark: ("TF_BUILD", None),
        request: "SYSTEM_PULLREQUEST_PULLREQUESTID",
        target: "SYSTEM_PULLREQUEST_TARGETBRANCH",
        branch: "BUILD_SOURCEBRANCH",
        tag: "",
        default: "",
    },
    System {
        mark: ("BITBUCKET_BUILD_NUMBER", None),
        request: "BITBUCKET_PR_ID",
        target: "BITBUCKET_PR_DESTINATION_BRANCH",
        branch: "BITBUCKET_BRANCH",
        tag: "BITBUCKET_TAG",
        default: "",
    },
    System {
        mark: ("CIRCLECI", None),
        request: "CIRCLE_PR_NUMBER",
        target: "",
        branch: "CIRCLE_BRANCH",
        tag: "CIRCLE_TAG",
        default: "",
    },
    System {
        mark: ("BUILDKITE", None),
        request: "BUILDKITE_PULL_REQUEST",
        target: "BUILDKITE_PULL_REQUEST_BASE_BRANCH",
        branch: "BUILDKITE_BRANCH",
        tag: "BUILDKITE_TAG",
        default: "BUILDKITE_PIPELINE_DEFAULT_BRANCH",
    },
    System {
        mark: ("DRONE", None),
        request: "DRONE_PULL_REQUEST",
        target: "DRONE_TARGET_BRANCH",
        branch: "DRONE_BRANCH",
        tag: "DRONE_TAG",
        default: "DRONE_REPO_BRANCH",
    },
    System {
        mark: ("CI", Some("woodpecker")),
        request: "CI_COMMIT_PULL_REQUEST",
        target: "CI_COMMIT_TARGET_BRANCH",
        branch: "CI_COMMIT_BRANCH",
        tag: "CI_COMMIT_TAG",
        default: "CI_REPO_DEFAULT_BRANCH",
    },
    System {
        mark: ("TRAVIS", None),
        request: "TRAVIS_PULL_REQUEST",
        target: "TRAVIS_BRANCH",
        branch: "TRAVIS_BRANCH",
        tag: "TRAVIS_TAG",
        default: "",
    },
    System {
        mark: ("APPVEYOR", None),
        request: "APPVEYOR_PULL_REQUEST_NUMBER",
        target: "APPVEYOR_REPO_BRANCH",
        branch: "APPVEYOR_REPO_BRANCH",
        tag: "APPVEYOR_REPO_TAG_NAME",
        default: "",
    },
    System {
        mark: ("SEMAPHORE", None),
        request: "SEMAPHORE_GIT_PR_NUMBER",
        target: "SEMAPHORE_GIT_BRANCH",
        branch: "SEMAPHORE_GIT_BRANCH",
        tag: "SEMAPHORE_GIT_TAG_NAME",
        default: "",
    },
];

/// What a job was started for.
#[derive(Debug, Default)]
struct Job {
    request: Option<String>,
    target: Option<String>,
    branch: Option<String>,
    tag: Option<String>,
    default: Option<String>,
}

impl JobScope {
    /// Returns the scope of the job with this environment.
    pub(super) fn of(environment: &dyn Fn(&str) -> Option<String>) -> JobScope {
        let set = |name: &str| environment(name).filter(|value| !value.is_empty());
        // Gitea and Forgejo set the same variables.
        if set("GITHUB_ACTIONS").is_some() {
            return github(&set).scope();
        }
        let marked = SYSTEMS.iter().find(|system| {
            let (name, value) = system.mark;
            let found = set(name);
            value.map_or(found.is_some(), |value| found.as_deref() == Some(value))
        });
        let Some(system) = marked else {
            return JobScope::default();
        };
        // Some say `false` in jobs that are not of a pull request.
        let request = set(system.request).filter(|number| number != "false");
        Job {
            request,
            target: set(system.target),
            branch: set(system.branch),
            tag: set(system.tag),
            default: set(system.default),
        }
        .scope()
    }
}

impl Job {
    fn scope(&self) -> JobScope {
        let name = |text: &Option<String>| {
            let text = text.as_deref()?;
            Some(text.strip_prefix("refs/heads/").unwrap_or(text).to_owned())
        };
        let default = name(&self.default);
        let is_default = |branch: &String| match &default {
            Some(default) => branch == default,
            None => USUAL_DEFAULTS.contains(&branch.as_str()),
        };
        let shared = CacheScope::default();
        if let Some(number) = &self.request {
            let target = name(&self.target).filter(|target| !is_default(target));
            let mut fallbacks: Vec<CacheScope> =
                target.iter().map(|target| of_branch(target)).collect();
            fallbacks.push(shared);
            return JobScope {
                own: CacheScope::new(&format!("pull-request-{number}")),
                fallbacks,
            };
        }
        match name(&self.branch).filter(|branch| !is_default(branch)) {
            Some(branch) if self.tag.is_none() && !branch.starts_with("refs/tags/") => JobScope {
                own: of_branch(&branch),
                fallbacks: vec![shared],
            },
            _ => JobScope::default(),
        }
    }
}

/// No branch's scope is the shared one's, or a pull request's.
fn of_branch(branch: &str) -> CacheScope {
    match branch == CacheScope::DEFAULT || branch.starts_with("pull-request-") {
        true => CacheScope::new(&format!("refs/heads/{branch}")),
        false => CacheScope::new(branch),
    }
}

fn github(set: &dyn Fn(&str) -> Option<String>) -> Job {
    let reference = set("GITHUB_REF").unwrap_or_default();
    let request = reference.strip_prefix("refs/pull/");
    let number = request.and_then(|rest| rest.split('/').next());
    let is_tag = reference.starts_with("refs/tags/");
    // A pull request's head is known even where its job runs on the branch that it is for (`pull_request_target`): the job may
    // be about to build what somebody else wrote.
    let is_foreign = number.is_none() && set("GITHUB_HEAD_REF").is_some();
    let event = set("GITHUB_EVENT_PATH").and_then(|path| event(&path));
    let said = |path: &[&str]| {
        let mut value = event.as_ref()?;
        for name in path {
            value = value.get(name)?;
        }
        match value {
            serde_json::Value::String(text) => Some(text.clone()),
            serde_json::Value::Number(number) => Some(number.to_string()),
            _ => None,
        }
    };
    let request = match is_foreign {
        true => said(&["pull_request", "number"]).or_else(|| set("GITHUB_HEAD_REF")),
        false => number.map(str::to_owned),
    };
    let branch = reference.strip_prefix("refs/heads/").map(str::to_owned);
    Job {
        request,
        target: set("GITHUB_BASE_REF"),
        branch: branch.or_else(|| set("GITHUB_REF_NAME").filter(|_| !is_tag)),
        tag: is_tag.then_some(reference),
        default: said(&["repository", "default_branch"]),
    }
}

/// Reads what a job was started for; nothing if there is nothing that can be read.
fn event(path: &str) -> Option<serde_json::Value> {
    let file = File::open(path).ok()?;
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut bytes = Vec::new();
    file.take(MOST_EVENT).read_to_end(&mut bytes).ok()?;
    serde_json::from_slice(&bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(variables: &[(&str, &str)]) -> String {
        let scope = JobScope::of(&|name| {
            let found = variables.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| (*value).to_owned())
        });
        let all = std::iter::once(&scope.own).chain(&scope.fallbacks);
        let all: Vec<&str> = all.map(CacheScope::as_str).collect();
        all.join(" ")
    }

    #[test]
    fn jobs_and_their_scopes() {
        let check = |variables: &[(&str, &str)], expected: &str| {
            assert_eq!(scope(variables), expected, "{variables:?}");
        };
        check(&[], "cache");
        check(&[("CI", "true"), ("CI_COMMIT_BRANCH", "x")], "cache");
        let gitlab = ("GITLAB_CI", "true");
        let main = ("CI_DEFAULT_BRANCH", "trunk");
        check(&[gitlab, main, ("CI_COMMIT_BRANCH", "trunk")], "cache");
        check(&[gitlab, main, ("CI_COMMIT_BRANCH", "main")], "main cache");
        check(&[gitlab, ("CI_COMMIT_BRANCH", "main")], "cache");
        check(&[gitlab, main, ("CI_COMMIT_TAG", "v1")], "cache");
        let request = ("CI_MERGE_REQUEST_IID", "7");
        let into = |branch| ("CI_MERGE_REQUEST_TARGET_BRANCH_NAME", branch);
        check(
            &[gitlab, main, request, into("trunk")],
            "pull-request-7 cache",
        );
        check(
            &[gitlab, main, request, into("v1")],
            "pull-request-7 v1 cache",
        );
        check(
            &[gitlab, main, ("CI_COMMIT_BRANCH", "cache")],
            "refs_heads_cache.65119b1b3f6723a6 cache",
        );
        let buildkite = ("BUILDKITE", "true");
        let none = ("BUILDKITE_PULL_REQUEST", "false");
        check(&[buildkite, none, ("BUILDKITE_BRANCH", "x")], "x cache");
        let azure = ("TF_BUILD", "True");
        check(&[azure, ("BUILD_SOURCEBRANCH", "refs/heads/main")], "cache");
        check(&[azure, ("BUILD_SOURCEBRANCH", "refs/heads/x")], "x cache");
        check(&[azure, ("BUILD_SOURCEBRANCH", "refs/tags/v1")], "cache");
        check(
            &[("CI", "woodpecker"), ("CI_COMMIT_BRANCH", "x")],
            "x cache",
        );
    }

    #[test]
    fn jobs_of_github() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("event.json");
        let event = r#"{"repository":{"default_branch":"trunk"},"pull_request":{"number":9}}"#;
        std::fs::write(&path, event).unwrap();
        let check = |variables: &[(&str, &str)], expected: &str| {
            let mut all = vec![
                ("GITHUB_ACTIONS", "true"),
                ("GITHUB_EVENT_PATH", path.to_str().unwrap()),
            ];
            all.extend_from_slice(variables);
            assert_eq!(scope(&all), expected, "{variables:?}");
        };
        check(&[("GITHUB_REF", "refs/heads/trunk")], "cache");
        check(&[("GITHUB_REF", "refs/heads/main")], "main cache");
        check(
            &[("GITHUB_REF", "refs/tags/v1"), ("GITHUB_REF_NAME", "v1")],
            "cache",
        );
        let head = ("GITHUB_HEAD_REF", "trunk");
        let request = ("GITHUB_REF", "refs/pull/12/merge");
        let base = |branch| ("GITHUB_BASE_REF", branch);
        check(&[request, head, base("trunk")], "pull-request-12 cache");
        check(&[request, head, base("v1")], "pull-request-12 v1 cache");
        let on_base = ("GITHUB_REF", "refs/heads/trunk");
        check(&[on_base, head, base("trunk")], "pull-request-9 cache");
        let without = [("GITHUB_ACTIONS", "1"), ("GITHUB_REF", "refs/heads/master")];
        assert_eq!(scope(&without), "cache");
    }
}
