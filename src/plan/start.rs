//! What a stage stands on: the root, config, history and variables that its first instruction finds.

use super::environment::{Environment, split_pair};
use super::naming::Naming;
use super::planner::Planning;
use super::report::Report;
use super::stages::{ResolvedStage, Source};
use super::steps::Steps;
use super::{Base, BaseKey, BaseLocation, Copy, CopyFrom, HistoryItem, Op, StepId, paths};
use crate::image::ImageConfig;
use crate::vocab::{Diagnostic, Platform};

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Keys of Docker's configs that tell how the base itself was made; nothing made from it may carry them on.
const STALE: [&str; 9] = [
    "Size",
    "container",
    "container_config",
    "docker_version",
    "id",
    "moby.buildkit.buildinfo.v0",
    "moby.buildkit.cache.v0",
    "parent",
    "throwaway",
];

/// A stage's state, after any number of instructions: what it hands to the stages and outputs made from it.
#[derive(Clone, Debug)]
pub(super) struct State {
    pub(super) config: ImageConfig,
    pub(super) history: Vec<HistoryItem>,
    pub(super) root: StepId,
    /// ENV and ARG together, as RUN and expansion see them: whichever instruction set a name last has it. A stage begins with ENV's.
    pub(super) environment: Environment,
    /// Declared arguments, in order; RUN's history names them.
    pub(super) arguments: Vec<(String, Option<String>)>,
    /// Whether this Dockerfile had a WORKDIR, for a lint.
    pub(super) workdir_is_set: bool,
    /// Whether the base's variables are known, for a lint.
    pub(super) base_is_known: bool,
}

impl State {
    /// Takes over what the stage `at` stands on.
    pub(super) fn new(
        planning: &Planning,
        at: usize,
        naming: &mut Naming,
        steps: &mut Steps,
        report: &mut Report,
    ) -> State {
        let stage = &planning.stages.list[at];
        let mut state = match &stage.source {
            Source::Scratch => State {
                config: empty_config(&stage.platform),
                ..State::on(steps.scratch(&naming.stage))
            },
            Source::Stage(base) => {
                let mut state = planning.finished[base].clone();
                state.config.config.on_build.clear();
                state
            }
            Source::Image(key) => {
                let base = planning.base(key);
                warn_of_platform(stage, &key.platform, &base.platform, report);
                State {
                    base_is_known: !planning.inputs.linting.unknown.contains(key),
                    ..State::on_image(stage, base, naming, steps)
                }
            }
            Source::Directory(name) => {
                State::on_directory(stage, name, planning.epoch, naming, steps)
            }
        };
        if !stage.replaced {
            state.settle();
        }
        state
    }

    fn on(root: StepId) -> State {
        State {
            config: ImageConfig::default(),
            history: Vec::new(),
            root,
            environment: Environment::default(),
            arguments: Vec::new(),
            workdir_is_set: false,
            base_is_known: true,
        }
    }

    fn on_image(
        stage: &ResolvedStage,
        base: &Base,
        naming: &mut Naming,
        steps: &mut Steps,
    ) -> State {
        let origin = naming.next(&format!("FROM {}", pinned(base)), stage.span());
        let mut config = base.config.clone();
        let inherited = std::mem::take(&mut config.history);
        config.created = None;
        config.rootfs.diff_ids.clear();
        config.other.retain(|key, _| !STALE.contains(&key.as_str()));
        // They have fired in this stage, or not at all where the image only takes a stage's place.
        config.config.on_build.clear();
        if config.platform().is_none() {
            set_platform(&mut config, &base.platform);
        }
        State {
            config,
            history: inherited.into_iter().map(HistoryItem::Inherited).collect(),
            ..State::on(steps.base(base, origin))
        }
    }

    /// A named context's files become the root; their layer has an entry as every layer has one.
    fn on_directory(
        stage: &ResolvedStage,
        name: &str,
        epoch: Option<i64>,
        naming: &mut Naming,
        steps: &mut Steps,
    ) -> State {
        let scratch = steps.scratch(&naming.stage);
        let local = steps.local(Some(name), Some(stage.span()), &naming.stage);
        let op = Op::Copy(Copy {
            sources: vec![CopyFrom::Tree {
                input: 1,
                pattern: "/".to_owned(),
            }],
            destination: "/".to_owned(),
            chown: None,
            chmod: None,
            link: false,
            parents: false,
            exclude: Vec::new(),
            unpack: false,
            epoch,
            is_shown_only: false,
        });
        let origin = naming.next(&format!("FROM {name}"), stage.span());
        let step = steps.add(op, vec![scratch, local], origin);
        let mut state = State::on(step);
        state.history.push(HistoryItem::Layer {
            created_by: format!("FROM {name} # context"),
            step,
        });
        if stage.replaced {
            set_platform(&mut state.config, &stage.platform);
        } else {
            state.config = empty_config(&stage.platform);
        }
        state
    }

    /// Makes sure of PATH, lets the image's ENV have its names, and cleans the working directory.
    fn settle(&mut self) {
        let config = &mut self.config.config;
        if !config.env.iter().any(|pair| split_pair(pair).0 == "PATH") {
            config.env.push(format!("PATH={DEFAULT_PATH}"));
        }
        for pair in &config.env {
            let (name, value) = split_pair(pair);
            self.environment.set(name, value);
        }
        if !config.working_dir.is_empty() {
            config.working_dir = paths::resolve("/", &config.working_dir);
        }
    }
}

impl<'a> Planning<'a> {
    /// Returns a base that planning has waited for.
    pub(super) fn base(&self, key: &BaseKey) -> &'a Base {
        let base = self.bases.get(key);
        base.expect("no stage is planned before every base it needs is known")
    }
}

/// Returns how to call a base: its name and its manifest.
pub(super) fn pinned(base: &Base) -> String {
    match &base.key.location {
        BaseLocation::Image(image) if image.digest.is_some() => image.to_string(),
        BaseLocation::Image(image) => format!("{image}@{}", base.manifest),
        BaseLocation::OciLayout { path, .. } => {
            format!("oci-layout://{}@{}", path.display(), base.manifest)
        }
    }
}

fn warn_of_platform(stage: &ResolvedStage, wanted: &Platform, had: &Platform, report: &mut Report) {
    if wanted.os == had.os && wanted.architecture == had.architecture {
        return;
    }
    let warning = Diagnostic::warning(format!(
        "base image `{}` is for {had}, and {wanted} is wanted",
        stage.image
    ));
    let span = stage.stage.from.value.image.span;
    report.add(warning.code("InvalidBaseImagePlatform").at(span));
}

fn empty_config(platform: &Platform) -> ImageConfig {
    let mut config = ImageConfig::default();
    set_platform(&mut config, platform);
    config.config.working_dir = "/".to_owned();
    config.config.env = vec![format!("PATH={DEFAULT_PATH}")];
    config
}

fn set_platform(config: &mut ImageConfig, platform: &Platform) {
    config.os.clone_from(&platform.os);
    config.architecture.clone_from(&platform.architecture);
    config.variant.clone_from(&platform.variant);
    config.os_version.clone_from(&platform.os_version);
}
