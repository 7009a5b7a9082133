//! What RUN's mounts come to on this machine.
//!
//! In: the mounts of the plan. Out: [`Given`], which the sandbox mounts and which is dropped when the command has ended. Trees
//! are roots of layers that are there, shown read-only or as copies that are dropped; caches are directories
//! of the store; secrets are files in memory; agents are sockets with a thread behind.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};

use crate::cache::mounts::MountName;
use crate::plan::{self, CacheMount, Mount, Run, SecretMount, Sharing, SshMount, literal};
use crate::rootfs::{Owners, RootfsError, SharedOwners, Tree, note_owners};
use crate::sandbox::{DeviceNode, MountSource, RunMount};
use crate::solve::{Job, Reading, StepError};
use crate::store::{CacheDirectory, MountClaim, NewCacheDirectory, Share};
use crate::vocab::{Digest, Event, ExitCode, KeyBuilder, Ownership, Platform, Secret, VertexId};

use super::Machine;
use super::agent::{Agent, SocketOwner};
use super::copy::{CopyOptions, Item, copy};
use super::machine::select_for;
use super::root::Root;
use super::steps::now;

/// What a command is given besides its root.
#[derive(Default)]
pub(super) struct Given {
    /// In the order in which they are to be mounted.
    pub(super) mounts: Vec<RunMount>,
    /// Variables; they take the place of others with their names.
    pub(super) env: Vec<(String, String)>,
    pub(super) devices: Vec<DeviceNode>,
    /// More groups of the user.
    pub(super) groups: Vec<u32>,
    /// Kept for as long as the command runs.
    agents: Vec<Agent>,
    /// What files of the mounts are in the image, where the disk does not say it.
    owners: Vec<Owners>,
    caches: Vec<UsedCache>,
    roots: Vec<Root>,
}

/// A cache that a command gets.
struct UsedCache {
    directory: Arc<CacheDirectory>,
    /// Where the disk does not say what its files are.
    owners: Option<SharedOwners>,
}

impl Given {
    /// Adds what is known of the files of the mounts to what is known of the root's.
    pub(super) fn tell_owners(&self, owners: &Owners) {
        for others in &self.owners {
            owners.extend(others);
        }
    }

    /// Writes down what files of the caches are to the next step that gets them.
    pub(super) fn keep_owners(&self, owners: &Owners) -> Result<(), RootfsError> {
        for cache in &self.caches {
            if let Some(shared) = &cache.owners {
                shared.note(cache.directory.path(), owners)?;
            }
        }
        Ok(())
    }
}

/// Has what lies inside another mount come after it, whatever the order in the file; equal targets keep theirs.
pub(super) fn in_order(mounts: &mut [RunMount]) {
    mounts.sort_by(|a, b| a.target.split('/').cmp(b.target.split('/')));
}

impl Machine<'_> {
    /// Prepares everything that a RUN asks for. Waits for caches that it may not share.
    pub(super) fn given(&self, job: &Job<'_>, run: &Run) -> Result<Given, StepError> {
        let mut given = Given::default();
        for script in &run.scripts {
            given.mounts.push(RunMount {
                target: script.path.clone(),
                source: MountSource::File {
                    content: Secret::new(script.content.clone().into_bytes()),
                    mode: 0o755,
                    uid: 0,
                    gid: 0,
                },
            });
        }
        let caches = self.claim_caches(job, run)?;
        for mount in &run.mounts {
            match mount {
                Mount::Bind {
                    target,
                    from,
                    writable,
                } => {
                    let fd = self.shown(job, from, *writable, &mut given)?;
                    given.mounts.push(RunMount {
                        target: target.clone(),
                        source: MountSource::Tree {
                            fd,
                            read_only: !writable,
                        },
                    });
                }
                Mount::Cache(cache) => {
                    let key = self.cache_key(job, cache);
                    let directory = &caches[&key];
                    if !cache.read_only {
                        let used = (self.mount_name(job, cache), share_of(cache));
                        self.travel.note_use(key, directory, used);
                    }
                    given.mounts.push(RunMount {
                        target: cache.target.clone(),
                        source: MountSource::Tree {
                            fd: open_directory(directory)?,
                            read_only: cache.read_only,
                        },
                    });
                    self.use_cache(directory, cache.read_only, &mut given)?;
                }
                Mount::Tmpfs { target, size } => given.mounts.push(RunMount {
                    target: target.clone(),
                    source: MountSource::Tmpfs { size: *size },
                }),
                Mount::Secret(secret) => self.give_secret(secret, &mut given)?,
                Mount::Ssh(ssh) => self.give_agent(job, ssh, &mut given)?,
            }
        }
        super::devices::give(&run.devices, &mut given)?;
        in_order(&mut given.mounts);
        Ok(given)
    }

    /// Returns a mount of the files that a bind mount shows.
    fn shown(
        &self,
        job: &Job<'_>,
        from: &plan::Tree,
        writable: bool,
        given: &mut Given,
    ) -> Result<OwnedFd, StepError> {
        let layers = &job.inputs[from.input];
        let root = match writable {
            true => Root::throwaway(self, job.graph, layers, job.cancel)?,
            false => Root::read_only(self, job.graph, layers, job.cancel)?,
        };
        given.owners.push(root.owners().clone());
        let part = root.part(&from.path).map_err(|error| match &error {
            RootfsError::Io { source, .. } if is_missing(source) => missing(&from.path),
            _ => StepError::new(ExitCode::Sandbox, format!("cannot mount `{}`", from.path))
                .caused_by(&error),
        })?;
        given.roots.push(root);
        Ok(part)
    }

    fn give_secret(&self, mount: &SecretMount, given: &mut Given) -> Result<(), StepError> {
        let credentials = self.credentials.get();
        let Some(value) = credentials.and_then(|given| given.secrets.get(&mount.id)) else {
            if !mount.required {
                return Ok(());
            }
            let error = format!(
                "the step requires the secret `{}`, which was not given",
                mount.id
            );
            return Err(StepError::new(ExitCode::Step, error).hint(format!(
                "give it by building with `--secret id={0},src=FILE` or `--secret id={0},env=NAME`",
                mount.id
            )));
        };
        if let Some(target) = &mount.target {
            given.mounts.push(RunMount {
                target: target.clone(),
                source: MountSource::File {
                    content: value.clone(),
                    mode: mount.mode,
                    uid: mount.uid,
                    gid: mount.gid,
                },
            });
        }
        if let Some(name) = &mount.env {
            let text = std::str::from_utf8(value.reveal()).ok();
            let Some(text) = text.filter(|text| !text.contains('\0')) else {
                let error = format!(
                    "the secret `{}` cannot be a variable: it is no text",
                    mount.id
                );
                return Err(StepError::new(ExitCode::Step, error)
                    .hint("mount it as a file: leave `env` out of the mount"));
            };
            given.env.push((name.clone(), text.to_owned()));
        }
        Ok(())
    }

    fn give_agent(
        &self,
        job: &Job<'_>,
        mount: &SshMount,
        given: &mut Given,
    ) -> Result<(), StepError> {
        let credentials = self.credentials.get();
        let Some(access) = credentials.and_then(|given| given.agents.get(&mount.id)) else {
            if !mount.required {
                return Ok(());
            }
            let error = format!(
                "the step requires the SSH agent `{}`, which was not given",
                mount.id
            );
            return Err(StepError::new(ExitCode::Step, error).hint(format!(
                "give it by building with `--ssh {0}`, which is the agent of SSH_AUTH_SOCK, or `--ssh {0}=KEY`",
                mount.id
            )));
        };
        let failed = |error: &io::Error| {
            StepError::new(ExitCode::Store, "cannot make a socket for the SSH agent")
                .caused_by(error)
        };
        let directory = self
            .store
            .work_dir()
            .map_err(|error| Machine::store_failed(&error))?
            .join("agents");
        match std::fs::create_dir(&directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(failed(&error));
            }
            _ => {}
        }
        let name = format!("{}-{}", job.step.0, given.agents.len());
        let owner = SocketOwner {
            uid: mount.uid,
            gid: mount.gid,
            mode: mount.mode,
        };
        let owners = Owners::new(self.store.ownership());
        let agent = Agent::start(access.clone(), &directory.join(name), owner, &owners)
            .map_err(|error| failed(&error))?;
        let fd = agent.socket().map_err(|error| failed(&error))?;
        given.mounts.push(RunMount {
            target: mount.target.clone(),
            source: MountSource::Tree {
                fd,
                read_only: false,
            },
        });
        given.agents.push(agent);
        given.owners.push(owners);
        Ok(())
    }

    /// Takes the caches of a RUN, each once. In the order of their keys: two steps that want the same ones cannot wait for each
    /// other.
    fn claim_caches(
        &self,
        job: &Job<'_>,
        run: &Run,
    ) -> Result<BTreeMap<Digest, Arc<CacheDirectory>>, StepError> {
        let mut wanted: BTreeMap<Digest, (Share, &CacheMount)> = BTreeMap::new();
        for mount in &run.mounts {
            let Mount::Cache(cache) = mount else { continue };
            let share = share_of(cache);
            let known = wanted
                .entry(self.cache_key(job, cache))
                .or_insert((share, cache));
            // Mounted twice it is one cache, shared as the stricter of the two says.
            known.0 = stricter(known.0, share);
        }
        let mut claimed = BTreeMap::new();
        for (key, (share, cache)) in wanted {
            self.restore_mount(job, &key, cache)?;
            claimed.insert(key, Arc::new(self.claim(job, &key, share, cache)?));
        }
        Ok(claimed)
    }

    fn claim(
        &self,
        job: &Job<'_>,
        key: &Digest,
        share: Share,
        cache: &CacheMount,
    ) -> Result<CacheDirectory, StepError> {
        let mut pause = Duration::from_millis(1);
        let mut has_waited = false;
        loop {
            if job.cancel.is_cancelled() {
                return Err(StepError::new(ExitCode::Step, "stopped"));
            }
            let claim = self.store.claim_mount(key, share);
            match claim.map_err(|error| Machine::store_failed(&error))? {
                MountClaim::Ready(directory) => return Ok(directory),
                MountClaim::Missing(new) => self.make_cache(job, cache, new)?,
                MountClaim::Held { pid } => {
                    if !std::mem::replace(&mut has_waited, true) {
                        let vertex = VertexId(job.step.0 as u32);
                        job.events.emit(Event::Waiting { vertex, pid });
                    }
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(Duration::from_millis(50));
                }
            }
        }
    }

    /// Keeps a cache for as long as the command runs, and tells what its files are.
    fn use_cache(
        &self,
        directory: &Arc<CacheDirectory>,
        read_only: bool,
        given: &mut Given,
    ) -> Result<(), StepError> {
        let mut owners = None;
        let is_new = given
            .caches
            .iter()
            .all(|used| used.owners.is_none() || !Arc::ptr_eq(&used.directory, directory));
        if is_new && self.store.ownership() == Ownership::InLedger {
            let (known, shared) = SharedOwners::seed(directory.path(), Ownership::InLedger)
                .map_err(|error| {
                    StepError::new(ExitCode::Store, "cannot read a cache").caused_by(&error)
                })?;
            given.owners.push(known);
            owners = (!read_only).then_some(shared);
        }
        given.caches.push(UsedCache {
            directory: directory.clone(),
            owners,
        });
        Ok(())
    }

    /// Makes a copy of a cache as it begins.
    fn make_cache(
        &self,
        job: &Job<'_>,
        cache: &CacheMount,
        new: NewCacheDirectory,
    ) -> Result<(), StepError> {
        let failed = |error: &(dyn std::error::Error + 'static)| {
            StepError::new(
                ExitCode::Store,
                format!("cannot make the cache for `{}`", cache.target),
            )
            .caused_by(error)
        };
        let path = new.path();
        let owners = Owners::new(self.store.ownership());
        let (mut uid, mut gid, mut mode) = (0, 0, 0o755);
        if let Some(seed) = &cache.seed {
            (uid, gid, mode) = self.seed_cache(job, seed, &path, &owners)?;
        }
        (uid, gid) = (cache.uid.unwrap_or(uid), cache.gid.unwrap_or(gid));
        let mode = cache.mode.unwrap_or(mode);
        let directory = std::fs::File::open(&path).map_err(|error| failed(&error))?;
        owners
            .describe(directory.as_fd(), (uid, gid), mode)
            .map_err(|error| {
                let (_, errno) = error.parts();
                let failure = failed(&io::Error::from(errno));
                match errno == rustix::io::Errno::INVAL {
                    true => failure.hint(format!("there is no user or group {uid}:{gid} in this user namespace: the ranges in /etc/subuid and /etc/subgid are too small")),
                    false => failure,
                }
            })?;
        // What the disk cannot say stands beside the directory, and is placed with it.
        let tree = Tree::open(&path).map_err(|error| failed(&error))?;
        note_owners(&path, &tree.with_owners(owners), &[]).map_err(|error| failed(&error))?;
        new.place().map_err(|error| Machine::store_failed(&error))
    }

    /// Copies what a cache begins with; returns the owner and mode of its directory.
    fn seed_cache(
        &self,
        job: &Job<'_>,
        seed: &plan::Tree,
        to: &std::path::Path,
        owners: &Owners,
    ) -> Result<(u32, u32, u32), StepError> {
        let root = Root::read_only(self, job.graph, &job.inputs[seed.input], job.cancel)?;
        let failed = |error: &RootfsError| {
            StepError::new(ExitCode::Step, format!("cannot read `{}`", seed.path)).caused_by(error)
        };
        let stat = root
            .tree()?
            .stat(seed.path.as_bytes(), true)
            .map_err(|error| failed(&error))?;
        let stat = stat.ok_or_else(|| missing(&seed.path))?;
        if !stat.is_directory() {
            let error = format!("`{}` is no directory, and a cache is one", seed.path);
            return Err(StepError::new(ExitCode::Step, error));
        }
        let source = root.into_source()?;
        let reading = Reading {
            tree: job.graph.steps[job.step.0].inputs[seed.input],
            pattern: literal(&seed.path).into(),
            parents: false,
            exclude: &[],
        };
        let selection = select_for(&source, &reading)?;
        let tree = Tree::open(to)
            .map_err(|error| failed(&error))?
            .with_owners(owners.clone());
        let options = CopyOptions {
            destination: "/",
            owner: None,
            chmod: None,
            link: false,
            parents: false,
            epoch: None,
            now: now(),
        };
        let item = Item::Selected {
            source: &source,
            selection: &selection,
        };
        copy(&tree, &[item], &options, job.cancel).map_err(|error| {
            StepError::new(
                ExitCode::Step,
                format!("cannot copy `{}` to a cache", seed.path),
            )
            .caused_by(&error)
        })?;
        Ok((stat.uid, stat.gid, stat.mode))
    }

    /// Names a cache: by its id, and by all that it is made of when it is new. So a cache that another user owns, or that begins
    /// with other files, is another cache; so is one whose owners are on the disk.
    fn cache_key(&self, job: &Job<'_>, cache: &CacheMount) -> Digest {
        match self.store.ownership() {
            Ownership::InLedger => key_of(job, cache, Some(("owners", "ledger"))),
            Ownership::OnDisk | Ownership::DevicesInLedger => key_of(job, cache, None),
        }
    }

    /// Names a cache for other machines: those of the same kind, which run the same programs.
    pub(super) fn mount_name(&self, job: &Job<'_>, cache: &CacheMount) -> MountName {
        let machine = Platform::host().architecture;
        MountName {
            key: key_of(job, cache, Some(("machine", &machine))),
            id: cache.id.clone(),
        }
    }
}

fn key_of(job: &Job<'_>, cache: &CacheMount, whose: Option<(&str, &str)>) -> Digest {
    let number = |number: Option<u32>| number.map_or_else(String::new, |number| number.to_string());
    let mut key = KeyBuilder::new("cache-mount")
        .add("id", &cache.id)
        .add("uid", &number(cache.uid))
        .add("gid", &number(cache.gid))
        .add("mode", &number(cache.mode));
    if let Some((name, value)) = whose {
        key = key.add(name, value);
    }
    if let Some(seed) = &cache.seed {
        let layers = &job.inputs[seed.input];
        key = key.add("seed", &seed.path).list(
            "layer",
            layers
                .iter()
                .map(|layer| layer.id().to_string())
                .collect::<Vec<_>>(),
        );
    }
    key.finish().0.0
}

fn share_of(cache: &CacheMount) -> Share {
    match cache.sharing {
        Sharing::Shared => Share::Together,
        Sharing::Private => Share::Apart,
        Sharing::Locked => Share::InTurn,
    }
}

pub(super) fn stricter(one: Share, other: Share) -> Share {
    match (one, other) {
        (Share::InTurn, _) | (_, Share::InTurn) => Share::InTurn,
        (Share::Apart, _) | (_, Share::Apart) => Share::Apart,
        _ => Share::Together,
    }
}

fn open_directory(directory: &CacheDirectory) -> Result<OwnedFd, StepError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(directory.path(), flags, Mode::empty()).map_err(|error| {
        StepError::new(
            ExitCode::Store,
            format!("cannot open `{}`", directory.path().display()),
        )
        .caused_by(&io::Error::from(error))
    })
}

fn is_missing(error: &io::Error) -> bool {
    use rustix::io::Errno;
    [Errno::NOENT, Errno::NOTDIR]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

fn missing(path: &str) -> StepError {
    StepError::new(
        ExitCode::Step,
        format!("the source `{path}` of the mount does not exist"),
    )
    .hint("paths are relative to the build context, or to the root of what `from` names")
}
