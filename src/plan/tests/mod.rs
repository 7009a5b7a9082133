//! Planning as data: a Dockerfile and its surroundings in, lines of text out.

mod arguments;
mod config;
mod copy;
mod lints;
mod mounts;
mod onbuild;
mod outline;
mod platforms;
mod properties;
mod remotes;
mod run;
mod stages;

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::*;
use crate::dockerfile::{IgnorePatterns, parse};
use crate::image::{ContainerConfig, History, ImageConfig};
use crate::vocab::{
    Allowed, Descriptor, Diagnostic, DiffId, Digest, GitPlace, GitRef, ImageRef, NamedContext,
    NetworkMode, Platform, Security,
};

/// A Dockerfile with all that its plan depends on. Every image exists, with one layer and PATH; some are given more.
struct Case<'a> {
    text: &'a str,
    target: Option<&'a str>,
    build_args: Vec<(String, String)>,
    labels: Vec<(String, String)>,
    platforms: Vec<Platform>,
    /// A repository, or a URL.
    main: Option<Result<GitRef, String>>,
    contexts: Vec<(String, NamedContext)>,
    network: NetworkMode,
    allowed: Allowed,
    no_cache: bool,
    no_cache_filter: Vec<String>,
    epoch: Option<&'static str>,
    context_time: Option<i64>,
    images: BTreeMap<String, ImageConfig>,
    /// Image name to the one platform that it has, whatever is asked for.
    fixed: BTreeMap<String, Platform>,
    ignore: Option<IgnorePatterns>,
    all_stages: bool,
    beside: Vec<String>,
    unknown: Vec<BaseKey>,
}

/// The outcome of a case that succeeded.
struct Plan {
    graph: Graph,
    warnings: Vec<Diagnostic>,
    /// What each round asked for.
    rounds: Vec<Vec<String>>,
}

fn case(text: &str) -> Case<'_> {
    Case {
        text,
        target: None,
        build_args: Vec::new(),
        labels: Vec::new(),
        platforms: Vec::new(),
        main: None,
        contexts: Vec::new(),
        network: NetworkMode::Default,
        allowed: Allowed::default(),
        no_cache: false,
        no_cache_filter: Vec::new(),
        epoch: None,
        context_time: None,
        images: BTreeMap::new(),
        fixed: BTreeMap::new(),
        ignore: None,
        all_stages: false,
        unknown: Vec::new(),
        beside: Vec::new(),
    }
}

impl<'a> Case<'a> {
    fn target(mut self, name: &'a str) -> Self {
        self.target = Some(name);
        self
    }

    fn arg(mut self, name: &str, value: &str) -> Self {
        self.build_args.push((name.to_owned(), value.to_owned()));
        self
    }

    fn platforms(mut self, platforms: &[&str]) -> Self {
        self.platforms = platforms.iter().map(|text| text.parse().unwrap()).collect();
        self
    }

    fn context(mut self, name: &str, context: NamedContext) -> Self {
        self.contexts.push((name.to_owned(), context));
        self
    }

    /// Says that the main context is a repository or a URL.
    fn main(mut self, url: &str) -> Self {
        let git = GitRef::parse(url, GitPlace::CommandLine);
        self.main = Some(git.map(Result::unwrap).ok_or_else(|| url.to_owned()));
        self
    }

    fn directory(self, name: &str) -> Self {
        self.context(name, NamedContext::Directory(PathBuf::from("/host")))
    }

    /// Says what the image `name` is like.
    fn image(mut self, name: &str, change: impl FnOnce(&mut ContainerConfig)) -> Self {
        let config = self.images.entry(name.to_owned()).or_default();
        change(&mut config.config);
        self
    }

    fn plan_with(&self, known: &Known) -> Result<(Planned, Vec<Diagnostic>), Vec<Diagnostic>> {
        let (dockerfile, mistakes) = parse(self.text);
        let mistakes: Vec<_> = mistakes.iter().filter(|one| one.is_error()).collect();
        assert!(mistakes.is_empty(), "{mistakes:?}");
        plan(&dockerfile, &self.inputs(), known)
    }

    fn inputs(&self) -> PlanInputs<'_> {
        PlanInputs {
            context: match &self.main {
                None => MainContext::Directory,
                Some(Ok(git)) => MainContext::Git(git),
                Some(Err(url)) => MainContext::Http(url),
            },
            target: self.target,
            beside: &self.beside,
            build_args: &self.build_args,
            labels: &self.labels,
            platforms: &self.platforms,
            host: Platform::new("linux", "amd64", None),
            named_contexts: &self.contexts,
            add_hosts: &[],
            network: self.network,
            allowed: &self.allowed,
            shm_size: 64 << 20,
            ulimits: &[],
            no_cache: self.no_cache,
            no_cache_filter: &self.no_cache_filter,
            cache_version: None,
            source_date_epoch: self.epoch,
            context_time: self.context_time,
            linting: Linting {
                ignore: self.ignore.as_ref(),
                all_stages: self.all_stages,
                unknown: &self.unknown,
            },
        }
    }

    fn base(&self, key: &BaseKey) -> Base {
        let (name, mark) = match &key.location {
            BaseLocation::Image(image) => {
                (image.familiar().replace(":latest", ""), image.to_string())
            }
            BaseLocation::OciLayout { path, reference } => {
                (String::new(), format!("{}{reference:?}", path.display()))
            }
        };
        let platform = self.fixed.get(&name).unwrap_or(&key.platform).clone();
        let layer = Digest::of(format!("{mark} {platform}").as_bytes());
        let mut config = self.images.get(&name).cloned().unwrap_or_default();
        config.os = platform.os.clone();
        config.architecture = platform.architecture.clone();
        config.variant = platform.variant.clone();
        if config.config.env.is_empty() {
            config.config.env.push("PATH=/bin".to_owned());
        }
        config.rootfs.diff_ids = vec![DiffId(layer).to_string()];
        config.created = Some("2001-01-01T00:00:00Z".to_owned());
        config.history = vec![History {
            created_by: Some(format!("made {name}")),
            ..History::default()
        }];
        Base {
            key: key.clone(),
            manifest: layer,
            layers: vec![(
                Descriptor {
                    media_type: crate::image::OCI_LAYER.to_owned(),
                    digest: layer,
                    size: 1,
                },
                DiffId(layer),
            )],
            config,
            platform,
        }
    }

    /// Tells planning what it wants to know; false if it knew. Commits and bytes are named after their URLs.
    fn answer(&self, wanted: Wanted, known: &mut Known) -> bool {
        match wanted {
            Wanted::Base(base) => known
                .bases
                .insert(base.key.clone(), self.base(&base.key))
                .is_none(),
            Wanted::Http { key, .. } => {
                let download = Download {
                    digest: Digest::of(key.url.as_bytes()),
                    modified: Some(7),
                };
                known.downloads.insert(key, download).is_none()
            }
            Wanted::Git { key, .. } => {
                let name = format!("{}#{:?}", key.url, key.reference);
                let commit = Commit {
                    id: Digest::of(name.as_bytes()).hex()[..40].to_owned(),
                    reference: key.reference.clone(),
                };
                known.commits.insert(key, commit).is_none()
            }
            Wanted::Time { timed, .. } => {
                let time = match timed {
                    Timed::Commit { .. } => 11,
                    Timed::Archive(_) => 12,
                };
                known.times.insert(timed, Some(time)).is_none()
            }
        }
    }

    fn plan(&self) -> Result<Plan, Vec<Diagnostic>> {
        let mut known = Known::default();
        let mut rounds = Vec::new();
        loop {
            let (planned, warnings) = self.plan_with(&known)?;
            match planned {
                Planned::Ready(graph) => {
                    if !self.all_stages {
                        check_graph(&graph);
                    }
                    return Ok(Plan {
                        graph,
                        warnings,
                        rounds,
                    });
                }
                Planned::Wanted(wanted) => {
                    assert!(
                        rounds.len() < 10 && !wanted.is_empty(),
                        "planning does not end"
                    );
                    rounds.push(wanted.iter().map(wanted_text).collect());
                    for wanted in wanted {
                        assert!(self.answer(wanted, &mut known), "it is asked for again");
                    }
                }
            }
        }
    }

    fn ready(&self) -> Plan {
        self.plan()
            .unwrap_or_else(|mistakes| panic!("{mistakes:#?}"))
    }

    fn steps(&self) -> String {
        let graph = self.ready().graph;
        let lines = graph.steps.iter().enumerate();
        lines
            .map(|(at, step)| format!("{at} {}\n", step_text(step)))
            .collect()
    }

    fn names(&self) -> String {
        let graph = self.ready().graph;
        graph
            .origins
            .iter()
            .map(|origin| format!("{}\n", origin.name))
            .collect()
    }

    fn config(&self) -> ImageConfig {
        self.ready().graph.outputs.remove(0).config
    }

    fn history(&self) -> String {
        let graph = self.ready().graph;
        graph.outputs[0]
            .history
            .iter()
            .map(|item| format!("{}\n", item_text(item)))
            .collect()
    }

    /// Returns the RUNs in order.
    fn runs(&self) -> Vec<Run> {
        let graph = self.ready().graph;
        let runs = graph.steps.into_iter().filter_map(|step| match step.op {
            Op::Run(run) => Some(run),
            _ => None,
        });
        runs.collect()
    }

    /// Returns `A=1 B=2` of the last RUN, PATH left out.
    fn env(&self) -> String {
        let run = self.runs().pop().expect("the case has a RUN");
        let pairs = run.env.iter().filter(|(name, _)| name != "PATH");
        let pairs: Vec<String> = pairs
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        pairs.join(" ")
    }

    fn warnings(&self) -> Vec<String> {
        self.ready()
            .warnings
            .iter()
            .map(|one| self.told(one))
            .collect()
    }

    fn errors(&self) -> Vec<String> {
        let Err(mistakes) = self.plan() else {
            panic!("the plan succeeded");
        };
        mistakes
            .iter()
            .filter(|one| one.is_error())
            .map(|one| self.told(one))
            .collect()
    }

    /// Writes `LINE: [CODE] MESSAGE; CAUSE; HINT`, and the text under the caret in parentheses.
    fn told(&self, diagnostic: &Diagnostic) -> String {
        let mut text = String::new();
        if let Some(label) = diagnostic.labels.first() {
            let line = self.text[..label.span.start].matches('\n').count() + 1;
            let under = &self.text[label.span.start..label.span.end];
            let under = under.lines().next().unwrap_or_default();
            text.push_str(&format!("{line}: ({under}) "));
        }
        if let Some(code) = diagnostic.code {
            text.push_str(&format!("[{code}] "));
        }
        text.push_str(&diagnostic.message);
        for more in diagnostic.causes.iter().chain(&diagnostic.hints) {
            text.push_str(&format!("; {more}"));
        }
        text
    }
}

/// Inputs come before their users, every step is needed, every output and item has its step.
fn check_graph(graph: &Graph) {
    assert_eq!(graph.steps.len(), graph.origins.len());
    let mut used = vec![false; graph.steps.len()];
    for (at, step) in graph.steps.iter().enumerate() {
        for input in &step.inputs {
            assert!(input.0 < at, "step {at} uses a later one");
            used[input.0] = true;
        }
        assert!(!graph.steps[..at].contains(step), "step {at} is made twice");
    }
    for output in &graph.outputs {
        used[output.root.0] = true;
        assert_eq!(output.config.created, None);
        assert!(output.config.rootfs.diff_ids.is_empty() && output.config.history.is_empty());
    }
    assert!(
        used.iter().all(|used| *used),
        "a step is not needed: {graph:#?}"
    );
}

fn wanted_text(wanted: &Wanted) -> String {
    match wanted {
        Wanted::Base(base) => key_text(&base.key),
        Wanted::Http { key, .. } => format!("http {}", key.url),
        Wanted::Git { key, .. } => {
            let reference = key.reference.as_deref().unwrap_or("-");
            format!("git {} {reference}", key.url)
        }
        Wanted::Time { timed, .. } => match timed {
            Timed::Commit { url, .. } => format!("time of {url}"),
            Timed::Archive(_) => "time of an archive".to_owned(),
        },
    }
}

fn key_text(key: &BaseKey) -> String {
    let name = match &key.location {
        BaseLocation::Image(image) => image.familiar(),
        BaseLocation::OciLayout { path, reference } => {
            format!("layout {} {reference:?}", path.display())
        }
    };
    format!("{name} {}", key.platform)
}

fn step_text(step: &Step) -> String {
    let mut words = Vec::new();
    match &step.op {
        Op::Scratch => words.push("scratch".to_owned()),
        Op::Base(base) => words.push(format!("base {}", key_text(&base.key))),
        Op::Local(Local { name: None }) => words.push("context".to_owned()),
        Op::Local(Local { name: Some(name) }) => words.push(format!("context {name}")),
        Op::Git(git) => {
            words.push(format!("git {}", git.url));
            words.extend(git.reference.clone());
            words.extend(git.subdirectory.as_ref().map(|path| format!("dir {path}")));
            for (flag, name) in [(git.keep_git_dir, "keep"), (!git.submodules, "alone")] {
                words.extend(flag.then(|| name.to_owned()));
            }
        }
        Op::Http(http) => {
            words.push(format!("http {} as {}", http.url, http.name));
            words.extend(http.unpack.then(|| "unpack".to_owned()));
        }
        Op::Run(run) => words.push(format!("run {:?} in {}", run.argv, run.cwd)),
        Op::Workdir(workdir) => words.push(format!("workdir {}", workdir.path)),
        Op::Copy(copy) => words.push(copy_text(copy)),
    }
    match &step.op {
        Op::Run(Run { user, .. }) | Op::Workdir(Workdir { user, .. }) if !user.is_empty() => {
            words.push(format!("as {user}"));
        }
        _ => {}
    }
    if !step.inputs.is_empty() {
        let inputs: Vec<String> = step
            .inputs
            .iter()
            .map(|input| input.0.to_string())
            .collect();
        words.push(format!("on {}", inputs.join(",")));
    }
    words.join(" ")
}

fn copy_text(copy: &Copy) -> String {
    let mut words = vec!["copy".to_owned()];
    for source in &copy.sources {
        words.push(match source {
            CopyFrom::Tree { input, pattern } => format!("{input}:{pattern}"),
            CopyFrom::Inline { name, content } => format!("<<{name} {content:?}"),
        });
    }
    words.push(format!("to {}", copy.destination));
    words.extend(
        copy.chown
            .as_ref()
            .map(|chown| format!("{:?}:{:?}", chown.user, chown.group)),
    );
    words.extend(copy.chmod.as_ref().map(|chmod| format!("chmod {chmod}")));
    words.extend(copy.exclude.iter().map(|pattern| format!("but {pattern}")));
    for (flag, name) in [
        (copy.link, "link"),
        (copy.parents, "parents"),
        (copy.unpack, "unpack"),
    ] {
        words.extend(flag.then(|| name.to_owned()));
    }
    words.join(" ")
}

fn item_text(item: &HistoryItem) -> String {
    match item {
        HistoryItem::Inherited(history) => {
            format!(
                "base: {}",
                history.created_by.as_deref().unwrap_or_default()
            )
        }
        HistoryItem::Empty { created_by } => format!("empty: {created_by}"),
        HistoryItem::Layer { created_by, step } => format!("{}: {created_by}", step.0),
    }
}
