//! The mounts of RUN: their options become what the step is given.
//!
//! In: options as parsed. Out: [`Mount`]s with absolute targets, and the steps whose files they show. Defaults are BuildKit's.
//! Files of a directory context are copied to a layer of their own first, which is in no image: so a command cannot change the
//! context, sees it as `.dockerignore` has it, and sees the same files from its begin to its end.

use super::build::StageBuilder;
use super::report::Reported;
use super::stages::Source;
use super::start::pinned;
use super::{
    CacheMount, Copy, CopyFrom, Mount, Op, Origin, SecretMount, Sharing, SshMount, StepId, Tree,
    paths,
};
use crate::dockerfile::{MountFlag, Run, Word, check_mount};
use crate::vocab::{Diagnostic, Span};

/// Where files of a context lie in the layer that is made of them.
const SHOWN: &str = "/mount";
/// The variable by which programs find an agent.
const AGENT: &str = "SSH_AUTH_SOCK";

/// What the mounts of one RUN come to.
#[derive(Default)]
pub(super) struct Mounts {
    pub(super) list: Vec<Mount>,
    /// The steps whose files are shown; the first is input 1 of the RUN.
    pub(super) sources: Vec<StepId>,
    /// Where the first agent's socket is.
    agent: Option<String>,
    agents: usize,
}

/// One mount's options with their variables replaced.
struct Options {
    given: MountFlag,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Bind,
    Cache,
    Tmpfs,
    Secret,
    Ssh,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Bind => "bind",
            Kind::Cache => "cache",
            Kind::Tmpfs => "tmpfs",
            Kind::Secret => "secret",
            Kind::Ssh => "ssh",
        }
    }

    /// Options that BuildKit takes for every type and that say nothing of this one.
    fn without_effect(self) -> &'static [&'static str] {
        match self {
            Kind::Bind => &["id"],
            Kind::Cache => &[],
            Kind::Tmpfs => &["id", "from", "source"],
            Kind::Secret => &["readonly", "readwrite"],
            Kind::Ssh => &["from", "readonly", "readwrite"],
        }
    }
}

impl Mounts {
    /// Adds the variable that names the agent, unless the Dockerfile has set it.
    pub(super) fn name_agent(&mut self, env: &mut Vec<(String, String)>) {
        if let Some(path) = self.agent.take()
            && !env.iter().any(|(name, _)| name == AGENT)
        {
            env.push((AGENT.to_owned(), path));
        }
    }

    /// Returns the number of the input that `step` is.
    fn input(&mut self, step: StepId) -> usize {
        let known = self.sources.iter().position(|source| *source == step);
        1 + known.unwrap_or_else(|| {
            self.sources.push(step);
            self.sources.len() - 1
        })
    }
}

impl StageBuilder<'_> {
    /// Plans the mounts of a RUN. All mistakes are told.
    pub(super) fn mounts(&mut self, run: &Run) -> Result<Mounts, Reported> {
        let mut mounts = Mounts::default();
        let mut failed = false;
        for flag in &run.mounts {
            let planned = self
                .options(flag)
                .and_then(|options| self.mount(&options, &mut mounts));
            match planned {
                Ok(mount) => mounts.list.push(mount),
                Err(Reported) => failed = true,
            }
        }
        if failed { Err(Reported) } else { Ok(mounts) }
    }

    fn options(&mut self, flag: &MountFlag) -> Result<Options, Reported> {
        let mut given = flag.clone();
        for (key, value) in &mut given.options {
            // `from` decides which stages are built, and that is decided before variables have values.
            if let Some(word) = value
                && key.value != "from"
            {
                word.value = self.expand(word)?;
            }
        }
        let mut failed = None;
        for problem in check_mount(&given) {
            failed = Some(self.refuse(problem));
        }
        if let Some(reported) = failed {
            return Err(reported);
        }
        let mut options = Options {
            given,
            kind: Kind::Bind,
        };
        options.kind = match options.text("type").to_ascii_lowercase().as_str() {
            "cache" => Kind::Cache,
            "tmpfs" => Kind::Tmpfs,
            "secret" => Kind::Secret,
            "ssh" => Kind::Ssh,
            _ => Kind::Bind,
        };
        for (key, _) in &options.given.options {
            if options.kind.without_effect().contains(&key.value.as_str()) {
                let warning = Diagnostic::warning(format!(
                    "option `{}` does nothing for a mount of type `{}`",
                    key.value,
                    options.kind.name()
                ));
                self.report
                    .add(super::reach::moved(warning.at(key.span), self.fired_by));
            }
        }
        Ok(options)
    }

    fn mount(&mut self, options: &Options, mounts: &mut Mounts) -> Result<Mount, Reported> {
        match options.kind {
            Kind::Bind => {
                let target = self.target(options, options.text("target"))?;
                Ok(Mount::Bind {
                    target,
                    from: self.shown(options, mounts)?,
                    writable: options.is_writable(),
                })
            }
            Kind::Cache => self.cache_mount(options, mounts),
            Kind::Tmpfs => {
                let target = self.target(options, options.text("target"))?;
                if options.is_writable() {
                    let size = options.value("size").map(|size| bytes(&size.value));
                    // No size, or none at all: half of the memory, as the kernel has it.
                    let size = size.filter(|size| *size > 0);
                    return Ok(Mount::Tmpfs { target, size });
                }
                // It is empty and stays so.
                let scratch = self.steps.scratch(&self.naming.stage);
                Ok(Mount::Bind {
                    target,
                    from: Tree {
                        input: mounts.input(scratch),
                        path: "/".to_owned(),
                    },
                    writable: false,
                })
            }
            Kind::Secret => self.secret_mount(options),
            Kind::Ssh => self.ssh_mount(options, mounts),
        }
    }

    fn cache_mount(&mut self, options: &Options, mounts: &mut Mounts) -> Result<Mount, Reported> {
        let written = options.text("target");
        let target = self.target(options, written)?;
        let id = match options.text("id") {
            "" => paths::clean(written),
            id => id.to_owned(),
        };
        let seed = match options.value("from").filter(|from| !from.value.is_empty()) {
            Some(_) => Some(self.shown(options, mounts)?),
            None => match options.value("source") {
                Some(source) if paths::resolve("/", &source.value) != "/" => {
                    let error = Diagnostic::error("`source` of a cache mount needs `from`")
                        .hint("a cache begins empty, or with files of the stage or image that `from` names");
                    return Err(self.refuse(error.at(source.span)));
                }
                _ => None,
            },
        };
        let namespace = self.planning.build_args.cache_namespace();
        Ok(Mount::Cache(CacheMount {
            target,
            id: format!("{namespace}/{id}"),
            sharing: match options.text("sharing").to_ascii_lowercase().as_str() {
                "private" => Sharing::Private,
                "locked" => Sharing::Locked,
                _ => Sharing::Shared,
            },
            seed,
            read_only: !options.is_writable(),
            uid: self.number(options, "uid", 10)?,
            gid: self.number(options, "gid", 10)?,
            mode: self.number(options, "mode", 8)?,
        }))
    }

    fn secret_mount(&mut self, options: &Options) -> Result<Mount, Reported> {
        let written = options.text("target");
        let id = [options.text("source"), options.text("id")]
            .into_iter()
            .find(|id| !id.is_empty())
            .unwrap_or_else(|| base_name(written))
            .to_owned();
        let env = options.value("env").map(|name| name.value.clone());
        if let (Some(name), Some(word)) = (&env, options.value("env"))
            && (name.is_empty() || name.contains(['=', '\0']))
        {
            let error = Diagnostic::error(format!("`{name}` cannot name a variable"));
            return Err(self.refuse(error.at(word.span)));
        }
        let target = match (written, &env) {
            ("", Some(_)) => None,
            ("", None) => Some(format!("/run/secrets/{}", base_name(&id))),
            (written, _) => Some(self.target(options, written)?),
        };
        Ok(Mount::Secret(SecretMount {
            id,
            target,
            env,
            required: options.is_set("required"),
            uid: self.number(options, "uid", 10)?.unwrap_or(0),
            gid: self.number(options, "gid", 10)?.unwrap_or(0),
            mode: self.number(options, "mode", 8)?.unwrap_or(0o400),
        }))
    }

    fn ssh_mount(&mut self, options: &Options, mounts: &mut Mounts) -> Result<Mount, Reported> {
        if let Some(source) = options
            .value("source")
            .filter(|word| !word.value.is_empty())
        {
            let error = Diagnostic::error("an ssh mount has no `source`")
                .hint("`id` names the agent that `--ssh ID=PATH` gives");
            return Err(self.refuse(error.at(source.span)));
        }
        let target = match options.text("target") {
            "" => format!("/run/buildkit/ssh_agent.{}", mounts.agents),
            written => self.target(options, written)?,
        };
        mounts.agents += 1;
        mounts.agent.get_or_insert_with(|| target.clone());
        Ok(Mount::Ssh(SshMount {
            id: match options.text("id") {
                "" => "default".to_owned(),
                id => id.to_owned(),
            },
            target,
            required: options.is_set("required"),
            uid: self.number(options, "uid", 10)?.unwrap_or(0),
            gid: self.number(options, "gid", 10)?.unwrap_or(0),
            mode: self.number(options, "mode", 8)?.unwrap_or(0o600),
        }))
    }

    /// Returns the files that `from` and `source` name.
    fn shown(&mut self, options: &Options, mounts: &mut Mounts) -> Result<Tree, Reported> {
        let source = paths::resolve("/", options.text("source"));
        let label = self.naming.stage.clone();
        let from = options.value("from").filter(|from| !from.value.is_empty());
        let Some(from) = from else {
            let step = self.copied(None, &source, options.given.span);
            return Ok(Tree {
                input: mounts.input(step),
                path: SHOWN.to_owned(),
            });
        };
        let step = match self.planning.stages.reference(from, self.at) {
            Ok(Source::Stage(stage)) => {
                let stage = self.planning.finished.get(&stage);
                stage
                    .expect("a stage that a mount shows is needed and comes earlier")
                    .root
            }
            Ok(Source::Scratch) => self.steps.scratch(&label),
            Ok(Source::Directory(name)) => {
                let step = self.copied(Some(&name), &source, options.given.span);
                return Ok(Tree {
                    input: mounts.input(step),
                    path: SHOWN.to_owned(),
                });
            }
            Ok(Source::Image(key)) => {
                let base = self.planning.base(&key);
                let origin = Origin {
                    span: self.fired_by.is_none().then_some(from.span),
                    stage: label,
                    name: format!("FROM {}", pinned(base)),
                    ignore_cache: false,
                };
                self.steps.base(base, origin)
            }
            Err(error) => return Err(self.refuse(*error)),
        };
        Ok(Tree {
            input: mounts.input(step),
            path: source,
        })
    }

    /// Returns the step that copies `source` of a directory context to [`SHOWN`].
    fn copied(&mut self, context: Option<&str>, source: &str, span: Span) -> StepId {
        let label = self.naming.stage.clone();
        let own = self.fired_by.is_none().then_some(span);
        let scratch = self.steps.scratch(&label);
        let local = self.steps.local(context, own, &label);
        let op = Op::Copy(Copy {
            sources: vec![CopyFrom::Tree {
                input: 1,
                pattern: paths::literal(source),
            }],
            destination: SHOWN.to_owned(),
            chown: None,
            chmod: None,
            link: false,
            parents: false,
            exclude: Vec::new(),
            unpack: false,
            epoch: None,
            is_shown_only: true,
        });
        let whose = match context {
            Some(name) => format!("context {name}"),
            None => "context".to_owned(),
        };
        let origin = Origin {
            span: own,
            name: format!("[{label}] mount {source} of the {whose}"),
            stage: label,
            ignore_cache: false,
        };
        self.steps.add(op, vec![scratch, local], origin)
    }

    /// Returns where a mount goes.
    fn target(&mut self, options: &Options, written: &str) -> Result<String, Reported> {
        let target = paths::resolve(&self.cwd(), written);
        if target != "/" {
            return Ok(target);
        }
        let place = options
            .value("target")
            .map_or(options.given.span, |target| target.span);
        let error = Diagnostic::error("a mount cannot cover `/`");
        Err(self.refuse(error.at(place)))
    }

    fn number(
        &mut self,
        options: &Options,
        key: &str,
        radix: u32,
    ) -> Result<Option<u32>, Reported> {
        let Some(word) = options.value(key) else {
            return Ok(None);
        };
        let number = u32::from_str_radix(&word.value, radix).ok();
        // -1 is no user and no group for the kernel, and modes have twelve bits.
        match number.filter(|number| *number <= if radix == 8 { 0o7777 } else { u32::MAX - 1 }) {
            Some(number) => Ok(Some(number)),
            None => {
                let error = Diagnostic::error(format!("`{}` is no {key}", word.value));
                Err(self.refuse(error.at(word.span)))
            }
        }
    }
}

impl Options {
    /// Returns an option's value; the last one counts.
    fn value(&self, key: &str) -> Option<&Word> {
        let mut options = self.given.options.iter();
        let found = options.rfind(|(given, _)| given.value == key);
        found.and_then(|(_, value)| value.as_ref())
    }

    fn text(&self, key: &str) -> &str {
        self.value(key).map_or("", |word| word.value.as_str())
    }

    /// Tells whether an option of its own or with `true` was given.
    fn is_set(&self, key: &str) -> bool {
        let mut options = self.given.options.iter();
        let found = options.rfind(|(given, _)| given.value == key);
        found.is_some_and(|(_, value)| value.as_ref().is_none_or(|word| is_true(&word.value)))
    }

    /// `readonly` and `readwrite` are two words for one thing, and the last of them counts.
    fn is_writable(&self) -> bool {
        let options = self.given.options.iter().rev();
        let said = options.filter_map(|(key, value)| {
            let yes = value.as_ref().is_none_or(|word| is_true(&word.value));
            match key.value.as_str() {
                "readonly" => Some(!yes),
                "readwrite" => Some(yes),
                _ => None,
            }
        });
        said.into_iter()
            .next()
            .unwrap_or(matches!(self.kind, Kind::Cache | Kind::Tmpfs))
    }
}

/// Of the words that [`check_mount`] lets pass.
fn is_true(word: &str) -> bool {
    matches!(word, "1" | "t" | "T" | "true" | "TRUE" | "True")
}

/// Returns what follows the last `/`, not counting slashes at the end.
fn base_name(path: &str) -> &str {
    let path = path.trim_end_matches('/');
    path.rsplit('/').next().unwrap_or(path)
}

/// Reads a size that [`check_mount`] let pass: a number, possibly with a fraction, and a unit of powers of 1024.
fn bytes(text: &str) -> u64 {
    let lower = text.to_ascii_lowercase();
    let end = lower.find(|c: char| !c.is_ascii_digit() && c != '.');
    let (number, unit) = lower.split_at(end.unwrap_or(lower.len()));
    let power = match unit.trim_start().chars().next() {
        Some('k') => 1,
        Some('m') => 2,
        Some('g') => 3,
        Some('t') => 4,
        Some('p') => 5,
        _ => 0,
    };
    let unit = 1024_u64.pow(power);
    match number.parse::<u64>() {
        Ok(whole) => whole.saturating_mul(unit),
        Err(_) => (number.parse::<f64>().unwrap_or(0.0) * unit as f64) as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units_of_1024() {
        for (text, wanted) in [
            ("10", 10),
            ("1k", 1 << 10),
            ("64m", 64 << 20),
            ("1.5g", 3 << 29),
            ("2 GiB", 2 << 30),
            ("3b", 3),
            ("99999999p", u64::MAX),
        ] {
            assert_eq!(bytes(text), wanted, "{text}");
        }
    }

    #[test]
    fn base_names() {
        for (path, wanted) in [("a", "a"), ("/a/b", "b"), ("a/b/", "b"), ("/", "")] {
            assert_eq!(base_name(path), wanted, "{path}");
        }
    }
}
