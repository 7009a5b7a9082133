//! `builder run`: an image is tried out, in a root that is thrown away.
//!
//! It is a build of one step on the image, whose command speaks with the user and whose layer nobody keeps.

use std::path::PathBuf;

use crate::plan::{
    Base, BaseKey, BaseLocation, BaseWanted, Graph, Mount, Op, Origin, Run, Step, StepId,
};
use crate::registry::{Client, Threads};
use crate::sandbox;
use crate::solve::ChainLayer;
use crate::store::Store;
use crate::vocab::{
    BuildRequest, Cancel, Descriptor, Diagnostic, Event, EventSink, ExitCode, ImageRef, LayerId,
    NetworkMode, Platform, StorageDriver, VertexId,
};
use crate::worker::{HostMount, Machine, Setup, Status, Trial};

use super::bases::{self, Resolver, TaskIds};
use super::console::Console;
use super::container::{self, Overrides};
use super::{
    Failure, bundle, entering, failure, foreign, inputs, lending, limits, lower, transfer,
};

/// One `builder run`.
pub struct TryImage {
    /// The state directory, how registries are reached, and what surrounds the command.
    pub conditions: BuildRequest,
    pub image: Subject,
    pub platform: Platform,
    pub wanted: Overrides,
    pub host_mounts: Vec<HostMount>,
    pub console: Console,
}

/// Which image it is.
pub enum Subject {
    /// Asked for at its registry if the state directory does not have it.
    Named(ImageRef),
    /// In the state directory.
    Stored {
        manifest: Descriptor,
        name: Option<ImageRef>,
    },
    /// A failed step that was saved: a shell in it, where nothing else is asked for.
    Saved(PathBuf),
}

/// The base is the first step, the command the second.
const BASE: StepId = StepId(0);
const COMMAND: StepId = StepId(1);

/// Runs an image. Returns how its command ended.
pub fn try_image(
    request: &TryImage,
    events: &dyn EventSink,
    cancel: &Cancel,
) -> Result<Status, Failure> {
    let conditions = &request.conditions;
    let store = lower::open(conditions, events)?;
    let _in_use = store.use_shared().map_err(|error| failure::store(&error))?;
    lending::check(conditions)?;
    let client = bases::client(conditions)?;
    let tasks = TaskIds::default();
    let base = find(request, &store, &client, events, &tasks)?;
    let run = step(request, &base, events)?;
    let graph = graph(base, run);
    let Op::Base(base) = &graph.steps[BASE.0].op else {
        unreachable!("the graph was made a line above")
    };
    let Op::Run(run) = &graph.steps[COMMAND.0].op else {
        unreachable!("the graph was made a line above")
    };
    let setup = Setup {
        dockerfile: String::new(),
        locals: Default::default(),
        registry: conditions.registry.clone(),
        forms: Vec::new(),
        means: inputs::means(&[]),
        caches: super::caches::of(conditions),
        destinations: Vec::new(),
        epoch: None,
        keeps_failed: false,
    };
    let machine = Machine::new(&store, setup, client.clone(), events, cancel);
    enter(conditions, &graph, &machine, events, cancel)?;
    events.emit(Event::Declared {
        vertex: VertexId(BASE.0 as u32),
        name: graph.origins[BASE.0].name.clone(),
    });
    let step_failed = |error| failure::nowhere(error, cancel);
    if let Subject::Named(name) = &request.image {
        keep(conditions, name, base, &machine, events, &tasks)?;
    }
    let layers = base.layers.iter().enumerate();
    let root = layers.map(|(index, (_, diff_id))| ChainLayer::Base {
        base: BASE,
        index,
        id: LayerId::from(*diff_id),
    });
    let trial = Trial {
        step: COMMAND,
        inputs: vec![root.collect()],
        run,
        host_mounts: &request.host_mounts,
    };
    let root = &trial.inputs[0];
    // Before the terminal is the command's.
    machine.unpack(&graph, root, cancel).map_err(step_failed)?;
    events.pause();
    let (tried, unheard) = request.console.attend(cancel, |streams| {
        machine.try_out(&graph, &trial, streams, events, cancel)
    })?;
    if let Some(status) = unheard {
        return Ok(status);
    }
    let tried = tried.map_err(step_failed)?;
    if let (Status::NotFound | Status::NotExecutable, Err(error)) = (tried.status, tried.verdict) {
        let failure = step_failed(error);
        for diagnostic in failure.diagnostics {
            events.emit(Event::Diagnostic(diagnostic));
        }
    }
    Ok(tried.status)
}

/// Returns the step that runs the image, and says what a saved step was.
fn step(request: &TryImage, base: &Base, events: &dyn EventSink) -> Result<Run, Failure> {
    let config = &base.config.config;
    let (conditions, mut wanted) = (&request.conditions, request.wanted.clone());
    let Subject::Saved(path) = &request.image else {
        let run = container::step(config, &base.platform, conditions, &wanted);
        return run.ok_or_else(no_command);
    };
    let saved = bundle::saved(&base.config).ok_or_else(|| bundle::none(path))?;
    events.emit(Event::Diagnostic(saved.diagnostic));
    // What the user shows in its place goes before it.
    let is_given = |mount: &Mount| match mount {
        Mount::Tmpfs { target, .. } => request
            .host_mounts
            .iter()
            .any(|given| given.target == *target),
        _ => false,
    };
    let empty = saved.mounts.into_iter().filter(|mount| !is_given(mount));
    wanted.mounts.extend(empty);
    let run = container::step(config, &base.platform, conditions, &wanted);
    let mut run = run.ok_or_else(no_command)?;
    run.scripts = saved.scripts;
    if !saved.has_network {
        run.network = NetworkMode::None;
    }
    Ok(run)
}

/// Finds the image and what it consists of; its layers need not be here yet.
fn find(
    request: &TryImage,
    store: &Store,
    client: &Client,
    events: &dyn EventSink,
    tasks: &TaskIds,
) -> Result<Base, Failure> {
    let resolver = Resolver {
        store,
        client,
        pull: request.conditions.pull,
    };
    let key = |location| BaseKey {
        location,
        platform: request.platform.clone(),
    };
    let location = match &request.image {
        Subject::Named(name) => BaseLocation::Image(name.clone()),
        Subject::Saved(path) => {
            let manifest = bundle::open(store, path)?;
            let key = key(BaseLocation::Image(nameless(&manifest)));
            return resolver.of_stored(&key, manifest);
        }
        Subject::Stored { manifest, name } => {
            let name = name.clone().unwrap_or_else(|| nameless(manifest));
            return resolver.of_stored(&key(BaseLocation::Image(name)), manifest.clone());
        }
    };
    let wanted = BaseWanted {
        key: key(location),
        span: None,
    };
    resolver.resolve(&wanted, events, tasks)
}

/// Returns a name for an image without one. Every part of it is here: nobody is asked for one by that name.
fn nameless(manifest: &Descriptor) -> ImageRef {
    let name: Result<ImageRef, _> = "localhost/image".parse();
    name.expect("is a name").with_digest(manifest.digest)
}

/// Keeps an image that was not here, with all its layers, as `pull` does.
fn keep(
    conditions: &BuildRequest,
    name: &ImageRef,
    base: &Base,
    machine: &Machine<'_>,
    events: &dyn EventSink,
    tasks: &TaskIds,
) -> Result<(), Failure> {
    let store = machine.store();
    let stored = store.image(name).map_err(|error| failure::store(&error))?;
    if stored.is_some() && !conditions.pull {
        return Ok(());
    }
    let client = Client::new(&conditions.registry, Threads::Some)
        .map_err(|error| transfer::cannot("pull", name, &error))?;
    transfer::keep(store, &client, name, base, events, tasks).map(drop)
}

/// Moves the process to where commands can be run.
fn enter(
    conditions: &BuildRequest,
    graph: &Graph,
    machine: &Machine<'_>,
    events: &dyn EventSink,
    cancel: &Cancel,
) -> Result<(), Failure> {
    let store = machine.store();
    machine.lend(lending::read(conditions, events)?);
    let choice = entering::choose(conditions)?;
    store.set_ownership(choice.ownership());
    entering::enter(&choice)?;
    sandbox::protect_self();
    sandbox::raise_on_signals(cancel).map_err(|error| failure::signals(&error))?;
    sandbox::raise_file_limit();
    // Said by nobody: the command's output is what was asked for.
    let driver = match entering::entered(conditions, &choice, store)? {
        Event::Entered { driver, .. } => driver,
        _ => StorageDriver::Tree,
    };
    machine.put_roots_together_by(driver);
    if let Some(warning) = entering::ineffective(conditions, &choice) {
        events.emit(warning);
    }
    foreign::check(conditions, graph, &[None, None], cancel)?;
    store.sweep().map_err(|error| failure::store(&error))?;
    lower::settle(machine)?;
    if let Some(groups) = limits::settle(conditions, store, events)? {
        machine.limit_steps(groups);
    }
    Ok(())
}

fn graph(base: Base, run: Run) -> Graph {
    let origin = |name: String| Origin {
        span: None,
        stage: String::new(),
        name,
        ignore_cache: false,
    };
    let name = match &base.key.location {
        BaseLocation::Image(image) => image.familiar(),
        BaseLocation::OciLayout { path, .. } => path.display().to_string(),
    };
    Graph {
        origins: vec![origin(format!("unpack {name}")), origin(run.argv.join(" "))],
        steps: vec![
            Step {
                op: Op::Base(base),
                inputs: Vec::new(),
            },
            Step {
                op: Op::Run(run),
                inputs: vec![BASE],
            },
        ],
        outputs: Vec::new(),
        beside: Vec::new(),
        is_index: false,
        epoch: None,
        cache_version: None,
    }
}

fn no_command() -> Failure {
    Failure::new(
        ExitCode::Usage,
        Diagnostic::error("there is no command to run")
            .cause("the image has neither ENTRYPOINT nor CMD")
            .hint("give one behind the image's name"),
    )
}
