//! This machine as a [`Worker`]: records and locks go to the store, the rest to the modules beside.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::cache::{Publisher, Shared};
use crate::context::{IgnorePatterns, Query, SelectError, Selection, Source, select};
use crate::plan::{Graph, Local, Op};
use crate::registry::{Client, RegistryError, Threads};
use crate::rootfs::Trees;
use crate::sandbox::StepGroups;
use crate::solve::{ChainLayer, Held, Job, Miss, Reading, StepError, StepResult, Worker};
use crate::store::{Lock, Record, Store, StoreError, TryLock};
use crate::vocab::{
    CacheKey, Cancel, Digest, EventSink, ExitCode, KeyComponent, LayerForm, LayerId, Reason,
    RegistryOptions, StorageDriver, VertexId,
};

use super::ahead::{Ahead, Destination};
use super::below::Below;
use super::digests::Digests;
use super::failed::FailedStep;
use super::ingredients::Ingredients;
use super::redact::Needles;
use super::root::Root;
use super::shared::Caches;
use super::slots::Slots;
use super::steps::now;
use super::travel::Travel;
use super::{Credentials, Means};

/// What a machine is told once per build.
pub struct Setup {
    /// What the Dockerfile is called.
    pub dockerfile: String,
    /// Host directories by the name of their context (`None`: the main one), with what to leave out.
    pub locals: BTreeMap<Option<String>, LocalDirectory>,
    pub registry: RegistryOptions,
    /// The forms in which layers of outputs are wanted.
    pub forms: Vec<LayerForm>,
    pub means: Means,
    pub caches: Caches,
    /// Where layers of outputs will be pushed to.
    pub destinations: Vec<Destination>,
    /// The time of working directories that a RUN has to make; where the user set one.
    pub epoch: Option<i64>,
    /// The root of the first RUN that fails is kept for who looks into it.
    pub keeps_failed: bool,
}

/// A directory of the host that steps copy from.
#[derive(Clone, Debug)]
pub struct LocalDirectory {
    pub path: PathBuf,
    pub ignore: Option<IgnorePatterns>,
    /// What the patterns were read from, so that errors can quote it.
    pub ignore_text: String,
    /// It goes when the build ends: nothing is remembered of it.
    pub is_temporary: bool,
    /// A directory that is laid over it.
    pub overlay: Option<PathBuf>,
}

/// Performs steps with the store at hand.
pub struct Machine<'a> {
    pub(super) store: &'a Store,
    pub(super) setup: Setup,
    sources: Mutex<BTreeMap<Option<String>, Arc<Source>>>,
    digests: Digests,
    pub(super) ingredients: Ingredients,
    /// Trees that came from elsewhere and are open.
    pub(super) fetched: Mutex<Vec<(Op, Arc<Source>)>>,
    /// Where bases that are unpacked are shown.
    pub(super) events: &'a dyn EventSink,
    /// Bases that were shown as being unpacked.
    pub(super) unpacking: Mutex<BTreeSet<VertexId>>,
    /// Starts no thread; used until steps are executed.
    pub(super) early: Client,
    client: OnceLock<Client>,
    pub(super) shared: Shared<'a>,
    pub(super) publisher: Publisher,
    pub(super) ahead: Ahead,
    /// Cache mounts that other machines have, or get.
    pub(super) travel: Travel,
    /// What the user lends to steps.
    pub(super) credentials: OnceLock<Credentials>,
    /// The values among it that no step may tell.
    needles: OnceLock<Arc<Needles>>,
    /// What keeps commands within limits; unset where there are none.
    pub(super) groups: OnceLock<StepGroups>,
    /// For layers being unpacked.
    pub(super) unpacks: Slots,
    cancel: Cancel,
    /// Layers that were seen to be complete: while a build runs, none of them goes.
    pub(super) present: Mutex<HashMap<LayerId, PathBuf>>,
    pub(super) below: Below,
    /// Held while something that all steps share is made.
    pub(super) making: Mutex<()>,
    /// How roots are put together; empty for as long as nothing is executed.
    pub(super) driver: OnceLock<StorageDriver>,
    pub(super) trees: OnceLock<Trees>,
    /// The first step that failed; an error is why it could not be kept.
    pub(super) failed: Mutex<Option<Result<FailedStep, StepError>>>,
}

impl<'a> Machine<'a> {
    /// Returns a machine that has opened nothing yet. `early` is a client that starts no thread.
    pub fn new(
        store: &'a Store,
        mut setup: Setup,
        early: Client,
        events: &'a dyn EventSink,
        cancel: &Cancel,
    ) -> Machine<'a> {
        Machine {
            store,
            unpacks: Slots::new(setup.means.unpacks),
            shared: Shared::new(std::mem::take(&mut setup.caches.from), events, cancel),
            publisher: Publisher::new(
                std::mem::take(&mut setup.caches.to),
                setup.caches.inline,
                now(),
                cancel,
            ),
            ahead: Ahead::new(std::mem::take(&mut setup.destinations), cancel),
            travel: Travel::new(
                std::mem::take(&mut setup.caches.mounts_from),
                std::mem::take(&mut setup.caches.mounts_to),
            ),
            ingredients: Ingredients::new(&setup.dockerfile, &setup.locals),
            early,
            setup,
            sources: Mutex::default(),
            digests: Digests::default(),
            fetched: Mutex::default(),
            events,
            unpacking: Mutex::default(),
            client: OnceLock::new(),
            credentials: OnceLock::new(),
            needles: OnceLock::new(),
            groups: OnceLock::new(),
            cancel: cancel.clone(),
            present: Mutex::default(),
            below: Below::default(),
            making: Mutex::new(()),
            driver: OnceLock::new(),
            trees: OnceLock::new(),
            failed: Mutex::default(),
        }
    }

    /// Takes what the user lends to steps. Called once, before the first step is executed.
    pub fn lend(&self, credentials: Credentials) {
        let needles = Needles::new(credentials.secrets.values());
        self.needles.set(Arc::new(needles)).ok();
        let known = self.credentials.set(credentials);
        debug_assert!(known.is_ok(), "credentials are read once");
    }

    /// Returns the search for what no step may tell: a step can find a value that an earlier one was given.
    pub(super) fn needles(&self) -> &Arc<Needles> {
        self.needles
            .get_or_init(|| Arc::new(Needles::new(std::iter::empty())))
    }

    /// Takes what keeps commands within limits. Called at most once, before the first step is executed.
    pub fn limit_steps(&self, groups: StepGroups) {
        let known = self.groups.set(groups);
        debug_assert!(known.is_ok(), "limits are settled once");
    }

    /// Returns how much is done at once.
    pub fn means(&self) -> Means {
        self.setup.means
    }

    /// Tells whether layers of results that were found cannot be had as trees of this process' kind: then the cache has to be
    /// asked anew.
    pub fn lacks_layers(&self, known: &[Option<StepResult>]) -> bool {
        let mut layers = known.iter().flatten().filter_map(|result| result.layer);
        layers.any(|layer| !self.store.has_layer(&layer) && !self.shared.is_promised(&layer))
    }

    /// Returns the store that everything goes to.
    pub fn store(&self) -> &'a Store {
        self.store
    }

    /// Returns the forms in which layers of outputs are wanted.
    pub fn forms(&self) -> &[LayerForm] {
        &self.setup.forms
    }

    /// Returns the registry client for steps: it may use threads, and waits no longer than the build goes on.
    pub fn client(&self) -> Result<&Client, RegistryError> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let client = Client::new(&self.setup.registry, Threads::Some)?;
        client.end_with(&self.cancel);
        Ok(self.client.get_or_init(|| client))
    }

    /// Opens a host directory once.
    pub(super) fn source(&self, local: &Local) -> Result<Arc<Source>, StepError> {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(source) = sources.get(&local.name) {
            return Ok(source.clone());
        }
        let name = local.name.clone();
        let local = self
            .setup
            .locals
            .get(&name)
            .expect("the plan names only contexts that were given");
        let mut source = Source::directory(&local.path, local.ignore.clone())
            .map_err(|error| {
                StepError::new(ExitCode::Source, "cannot open the build context").caused_by(&error)
            })?
            .with_ignore_text(local.ignore_text.clone())
            .with_threads(self.setup.means.threads);
        if let Some(overlay) = &local.overlay {
            source = source.under(overlay).map_err(|error| {
                StepError::new(
                    ExitCode::Source,
                    "cannot open what is laid over the build context",
                )
                .caused_by(&error)
            })?;
        }
        if !local.is_temporary {
            source = source.with_stat_cache(self.store.stat_cache_path(&local.path));
        }
        let source = Arc::new(source);
        sources.insert(name, source.clone());
        Ok(source)
    }

    /// Makes what the store says speak as a step's failure.
    pub(super) fn store_failed(error: &StoreError) -> StepError {
        let mut failure =
            StepError::new(ExitCode::Store, "the state directory cannot be used").caused_by(error);
        failure.hints.push(error.hint());
        failure
    }
}

/// Finds in a source what a step reads of it.
pub(super) fn select_for(source: &Source, reading: &Reading<'_>) -> Result<Selection, StepError> {
    let query = Query {
        pattern: &reading.pattern,
        parents: reading.parents,
        exclude: reading.exclude,
    };
    select(source, &query).map_err(|error| select_failed(&error))
}

fn select_failed(error: &SelectError) -> StepError {
    let mut failure = StepError::new(ExitCode::Step, error.to_string());
    if let Some(source) = std::error::Error::source(error) {
        failure = failure.caused_by(source);
    }
    match error {
        SelectError::NotFound {
            excluded_by: Some(_),
            ..
        } => failure.hint("a later `!` line of the ignore file brings a path back"),
        SelectError::NotFound {
            similar: Some(similar),
            ..
        } => failure.hint(format!("there is `{similar}`")),
        SelectError::NotFound { .. } => failure.hint(
            "paths are relative to the build context (or to the root of what `--from` names)",
        ),
        _ => failure,
    }
}

impl Worker for Machine<'_> {
    type Lock = Lock;

    fn lookup(
        &self,
        key: &CacheKey,
        components: &[KeyComponent],
    ) -> Result<Option<StepResult>, StepError> {
        match self.lookup_here(key)? {
            None => Ok(self.shared_lookup(key, components, false)),
            found => Ok(found),
        }
    }

    fn lookup_here(&self, key: &CacheKey) -> Result<Option<StepResult>, StepError> {
        let record = self
            .store
            .record(key)
            .map_err(|error| Machine::store_failed(&error))?;
        let Some(record) = record else {
            return Ok(None);
        };
        self.note(key, &record);
        Ok(Some(StepResult {
            id: record.result,
            layer: record.layer,
            created: record.created,
            size: record.size,
        }))
    }

    fn adopt(
        &self,
        key: &CacheKey,
        components: &[KeyComponent],
    ) -> Result<Option<StepResult>, StepError> {
        Ok(self.shared_lookup(key, components, true))
    }

    fn supersede(&self, key: &CacheKey) {
        self.publisher.replace(&[*key]);
    }

    fn remember(
        &self,
        key: &CacheKey,
        components: &[KeyComponent],
        name: &str,
        result: &StepResult,
    ) -> Result<(), StepError> {
        let record = Record {
            result: result.id,
            layer: result.layer,
            created: result.created,
            size: result.size,
            description: name.to_owned(),
            components: components.to_vec(),
            duration_ms: 0,
            alias_of: None,
        };
        self.note(key, &record);
        self.ingredients.note_success(key);
        self.store
            .put_record(key, &record)
            .map_err(|error| Machine::store_failed(&error))
    }

    fn try_lock(&self, key: &CacheKey) -> Result<Held<Lock>, StepError> {
        match self
            .store
            .try_lock(key)
            .map_err(|error| Machine::store_failed(&error))?
        {
            TryLock::Acquired(lock) => Ok(Held::Mine(lock)),
            TryLock::Held { pid } => Ok(Held::Other { pid }),
        }
    }

    fn wait_lock(&self, key: &CacheKey, cancel: &Cancel) -> Result<Option<Lock>, StepError> {
        self.store
            .lock_wait(key, &|| cancel.is_cancelled())
            .map_err(|error| Machine::store_failed(&error))
    }

    fn local_digest(&self, local: &Local, reading: &Reading<'_>) -> Result<Digest, StepError> {
        match self.digests.get(local, reading) {
            Some(known) => Ok(known),
            None => self.local_digest_now(local, reading),
        }
    }

    fn local_digest_now(&self, local: &Local, reading: &Reading<'_>) -> Result<Digest, StepError> {
        let source = self.source(local)?;
        let selection = select_for(&source, reading)?;
        let (digest, listing) = selection.digest_and_listing(&source).map_err(|error| {
            StepError::new(
                ExitCode::Source,
                format!("cannot read `{}` of the build context", reading.pattern),
            )
            .caused_by(&error)
        })?;
        self.ingredients.note_listing(digest, listing);
        self.digests.insert(local, reading, digest);
        Ok(digest)
    }

    fn tree_digest(
        &self,
        graph: &Graph,
        root: &[ChainLayer],
        reading: &Reading<'_>,
        cancel: &Cancel,
    ) -> Result<Digest, StepError> {
        let source = match self.fetched(&graph.steps[reading.tree.0].op)? {
            Some(source) => source,
            None => {
                let root = Root::read_only(self, graph, root, cancel)?;
                Arc::new(root.into_source()?)
            }
        };
        let digest = select_for(&source, reading).and_then(|selection| {
            selection.digest_and_listing(&source).map_err(|error| {
                StepError::new(ExitCode::Step, format!("cannot read `{}`", reading.pattern))
                    .caused_by(&error)
            })
        });
        self.layers_stay()?;
        let (digest, listing) = digest?;
        self.ingredients.note_listing(digest, listing);
        Ok(digest)
    }

    fn root_facts(&self, job: &Job<'_>) -> Result<Option<Digest>, StepError> {
        self.facts(job)
    }

    fn explain(&self, miss: &Miss<'_>) -> Vec<Reason> {
        self.explain_miss(miss)
    }

    fn execute(&self, job: &Job<'_>) -> Result<StepResult, StepError> {
        let result = match &job.graph.steps[job.step.0].op {
            Op::Run(run) => self.run(job, run),
            Op::Copy(copy) => self.copy(job, copy),
            Op::Workdir(workdir) => self.workdir(job, workdir),
            Op::Scratch | Op::Base(_) | Op::Local(_) | Op::Git(_) | Op::Http(_) => {
                unreachable!("nothing is done for these")
            }
        };
        // Whatever failed may have failed for that.
        result.or_else(|error| self.layers_stay().and(Err(error)))
    }

    fn pack(
        &self,
        graph: &Graph,
        root: &[ChainLayer],
        leaves: bool,
        events: &dyn EventSink,
        cancel: &Cancel,
    ) -> Result<(), StepError> {
        let Some(top) = root.last() else {
            return Ok(());
        };
        if !self.is_packed(&top.id(), leaves) {
            for form in self.forms_of(leaves) {
                self.pack_layer(graph, root, form, events, cancel)?;
            }
        }
        if leaves {
            self.send_ahead(graph, root)?;
        }
        self.offer(&top.id(), leaves)
    }
}
