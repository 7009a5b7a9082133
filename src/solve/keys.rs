//! Definition keys and content keys (the table is in the room's doc).

use crate::plan::{Copy, CopyFrom, Git, Http, Mount, Owner, Run, Sharing, Workdir};
use crate::vocab::{
    CacheKey, Digest, GitTimes, KeyBuilder, KeyComponent, NetworkMode, ResultId, Security,
};

use super::readings::shown;

/// A key and what it is made of.
pub(super) type Key = (CacheKey, Vec<KeyComponent>);

/// Turns a step's key into the one that it has in a version of the cache; without a version it stays as it is.
pub(super) fn of_version((key, mut components): Key, version: Option<&str>) -> Key {
    let Some(version) = version else {
        return (key, components);
    };
    let (key, own) = KeyBuilder::new("version")
        .add("cache version", version)
        .add("key", &key.to_string())
        .finish();
    components.extend(own.into_iter().take(1));
    (key, components)
}

/// Names the empty root.
pub(super) fn scratch_result() -> ResultId {
    ResultId(KeyBuilder::new("scratch").finish().0.0)
}

/// Names the root of a base image: its manifest's digest as it is, so that records speak of the image that they were made from.
pub(super) fn base_result(manifest: &Digest) -> ResultId {
    ResultId(*manifest)
}

/// Names the files of a commit.
pub(super) fn git_result(git: &Git) -> ResultId {
    let flag = |given: bool| if given { "yes" } else { "no" };
    let key = KeyBuilder::new("git")
        .add("commit", &git.commit)
        .add(
            "subdirectory",
            git.subdirectory.as_deref().unwrap_or_default(),
        )
        .add("keep-git-dir", flag(git.keep_git_dir))
        .add("submodules", flag(git.submodules))
        .add("reference", git.reference.as_deref().unwrap_or_default())
        .add(
            "times",
            match git.times {
                GitTimes::Commit => "commit",
                GitTimes::Checkout => "checkout",
            },
        );
    ResultId(key.finish().0.0)
}

/// Names a downloaded file.
pub(super) fn http_result(http: &Http) -> ResultId {
    let key = KeyBuilder::new("http")
        .add("digest", &http.digest.to_string())
        .add("name", &http.name)
        .add(
            "modified",
            &http.modified.map_or_else(String::new, |at| at.to_string()),
        )
        .add("unpack", if http.unpack { "yes" } else { "no" });
    ResultId(key.finish().0.0)
}

/// Returns the key of a run. `identities` stands for the trees that its mounts show, in order.
pub(super) fn run_key(run: &Run, root: ResultId, identities: &[SourceIdentity]) -> Key {
    let network = match run.network {
        NetworkMode::Default => "default",
        NetworkMode::Host => "host",
        NetworkMode::None => "none",
    };
    let mut key = KeyBuilder::new("run")
        .add("root", &root.to_string())
        .list("argv", &run.argv)
        .list("env", pairs(&run.env))
        .add("cwd", &run.cwd)
        .add("user", &run.user)
        .add("network", network)
        .list("host", pairs(&run.add_hosts))
        .add("hostname", &run.hostname)
        .add("shm-size", &run.shm_size.to_string())
        .list(
            "ulimit",
            run.ulimits
                .iter()
                .map(|limit| format!("{}={}:{}", limit.name, limit.soft, limit.hard))
                .collect::<Vec<_>>(),
        )
        .list(
            "script",
            run.scripts
                .iter()
                .map(|script| format!("{}\0{}", script.path, script.content))
                .collect::<Vec<_>>(),
        )
        .list("mount", run.mounts.iter().map(mount).collect::<Vec<_>>());
    let trees = run.mounts.iter().filter_map(shown);
    for (tree, identity) in trees.zip(identities) {
        key = match identity {
            SourceIdentity::Content(digest) => key.add("mounted-files", &digest.to_string()),
            SourceIdentity::Result(result) => key
                .add("mounted-from", &result.to_string())
                .add("mounted-path", &tree.path),
        };
    }
    if run.security == Security::Insecure {
        key = key.add("security", "insecure");
    }
    key.list(
        "device",
        run.devices
            .iter()
            .map(|device| format!("{:?}{}", device.name, required(device.required)))
            .collect::<Vec<_>>(),
    )
    .finish()
}

/// Describes a mount but for the files that it shows. Texts are quoted: no two mounts are described alike.
fn mount(mount: &Mount) -> String {
    match mount {
        Mount::Bind {
            target, writable, ..
        } => {
            let mode = if *writable { "rw" } else { "ro" };
            format!("bind {target:?} {mode}")
        }
        Mount::Cache(cache) => {
            let sharing = match cache.sharing {
                Sharing::Shared => "shared",
                Sharing::Private => "private",
                Sharing::Locked => "locked",
            };
            let access = if cache.read_only { "ro" } else { "rw" };
            format!(
                "cache {:?} id={:?} {sharing} {access} {:?}:{:?} {:?}",
                cache.target, cache.id, cache.uid, cache.gid, cache.mode
            )
        }
        Mount::Tmpfs { target, size } => match size {
            Some(size) => format!("tmpfs {target:?} {size}"),
            None => format!("tmpfs {target:?}"),
        },
        Mount::Secret(secret) => {
            let place = |name: &str, place: &Option<String>| {
                place
                    .as_ref()
                    .map_or_else(String::new, |place| format!(" {name}={place:?}"))
            };
            format!(
                "secret id={:?}{}{}{} {}:{} {:o}",
                secret.id,
                place("target", &secret.target),
                place("env", &secret.env),
                required(secret.required),
                secret.uid,
                secret.gid,
                secret.mode
            )
        }
        Mount::Ssh(ssh) => format!(
            "ssh id={:?} {:?}{} {}:{} {:o}",
            ssh.id,
            ssh.target,
            required(ssh.required),
            ssh.uid,
            ssh.gid,
            ssh.mode
        ),
    }
}

fn required(required: bool) -> &'static str {
    if required { " required" } else { "" }
}

/// How the root that a step works on enters a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RootIdentity {
    /// The result that made it.
    Result(ResultId),
    /// What the step reads of it.
    Facts(Digest),
}

impl RootIdentity {
    fn add_to(self, key: KeyBuilder) -> KeyBuilder {
        match self {
            RootIdentity::Result(root) => key.add("root", &root.to_string()),
            RootIdentity::Facts(facts) => key.add("root-facts", &facts.to_string()),
        }
    }
}

pub(super) fn workdir_key(workdir: &Workdir, root: RootIdentity) -> Key {
    root.add_to(KeyBuilder::new("workdir"))
        .add("path", &workdir.path)
        .add("user", &workdir.user)
        .list("epoch", workdir.epoch.map(|seconds| seconds.to_string()))
        .finish()
}

/// How a copy's source enters a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SourceIdentity {
    /// The digest of the selected files.
    Content(Digest),
    /// The result that they are selected from.
    Result(ResultId),
}

/// Returns the key of a copy. `identities` stands for the tree sources, in order. With every one of them by content it is the
/// content key.
pub(super) fn copy_key(copy: &Copy, root: RootIdentity, identities: &[SourceIdentity]) -> Key {
    let mut key = KeyBuilder::new("copy");
    if !stands_alone(copy) {
        key = root.add_to(key);
    }
    let mut identities = identities.iter();
    for source in &copy.sources {
        key = match source {
            CopyFrom::Inline { name, content } => {
                key.add("inline", name).add("inline-content", content)
            }
            CopyFrom::Tree { pattern, .. } => {
                match identities.next().expect("one identity per tree source") {
                    // The pattern is kept for explanations only where the files are known: two patterns that select the same
                    // files under the same names copy the same.
                    SourceIdentity::Content(digest) => key.add("files", &digest.to_string()),
                    SourceIdentity::Result(result) => {
                        key.add("from", &result.to_string()).add("pattern", pattern)
                    }
                }
            }
        };
    }
    let owner = |owner: &Owner| match owner {
        Owner::Id(id) => id.to_string(),
        Owner::Name(name) => format!("name {name}"),
    };
    let chown = copy.chown.as_ref().map(|chown| {
        format!(
            "{}:{}",
            owner(&chown.user),
            chown.group.as_ref().map(owner).unwrap_or_default()
        )
    });
    key.add("destination", &copy.destination)
        .add("chown", chown.as_deref().unwrap_or_default())
        .add("chmod", copy.chmod.as_deref().unwrap_or_default())
        .add("link", if copy.link { "yes" } else { "no" })
        .add("parents", if copy.parents { "yes" } else { "no" })
        .list("exclude", &copy.exclude)
        .add("unpack", if copy.unpack { "yes" } else { "no" })
        .list("epoch", copy.epoch.map(|seconds| seconds.to_string()))
        .finish()
}

/// Tells whether a copy's layer is the same on every root: `--link`, unless names must be looked up in the root.
pub(super) fn stands_alone(copy: &Copy) -> bool {
    let by_name = |owner: &Owner| matches!(owner, Owner::Name(_));
    copy.link
        && !copy
            .chown
            .as_ref()
            .is_some_and(|chown| by_name(&chown.user) || chown.group.as_ref().is_some_and(by_name))
}

/// Returns the result ID of a layer that was made without regard to `root` and is put on it.
pub(super) fn stacked(root: ResultId, layer: ResultId) -> ResultId {
    let stacked = KeyBuilder::new("link")
        .add("root", &root.to_string())
        .add("layer", &layer.to_string());
    ResultId(stacked.finish().0.0)
}

/// Returns the result ID of one execution of a run.
pub(super) fn run_result(key: CacheKey, nonce: &str) -> ResultId {
    ResultId(
        KeyBuilder::new("execution")
            .add("key", &key.to_string())
            .add("nonce", nonce)
            .finish()
            .0
            .0,
    )
}

fn pairs(pairs: &[(String, String)]) -> Vec<String> {
    pairs
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect()
}
