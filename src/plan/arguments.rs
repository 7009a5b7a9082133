//! Build arguments as given, and the global scope: what FROM lines see, and what a bare `ARG NAME` takes its value from.

use std::collections::{BTreeMap, BTreeSet};

use super::environment::Environment;
use super::epoch::EPOCH;
use super::report::{Mistake, Report, Reported};
use super::words::Words;
use super::{MainContext, PlanInputs};
use crate::dockerfile::{
    ArgDeclaration, Dockerfile, Instruction, InstructionKind, unknown_frontend,
};
use crate::vocab::{Diagnostic, Platform, Spanned, nearest};

const HOSTNAME: &str = "BUILDKIT_SANDBOX_HOSTNAME";
const INLINE_CACHE: &str = "BUILDKIT_INLINE_CACHE";
const MULTI_PLATFORM: &str = "BUILDKIT_MULTI_PLATFORM";
const SYNTAX: &str = "BUILDKIT_SYNTAX";
/// Stands in for the `check` directive; the caller reads it.
const CHECK: &str = "BUILDKIT_DOCKERFILE_CHECK";
const CACHE_NAMESPACE: &str = "BUILDKIT_CACHE_MOUNT_NS";
const KEEP_GIT_DIR: &str = "BUILDKIT_CONTEXT_KEEP_GIT_DIR";
const PROXIES: [&str; 5] = [
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "FTP_PROXY",
    "NO_PROXY",
    "ALL_PROXY",
];
/// Switches of BuildKit that change nothing here.
const WITHOUT_EFFECT: [&str; 5] = [
    "BUILDKIT_BUILD_NAME",
    KEEP_GIT_DIR,
    "BUILDKIT_GIT_ADVICE",
    "BUILDKIT_SBOM_SCAN_CONTEXT",
    "BUILDKIT_SBOM_SCAN_STAGE",
];

/// Names whose declaration sets no variable.
const NO_VARIABLES: [&str; 2] = ["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"];

/// Tells whether `ARG name` sets a variable.
pub(super) fn is_variable(name: &str) -> bool {
    !NO_VARIABLES.contains(&name)
}

/// The values of `--build-arg`, the last one of a name.
pub(super) struct BuildArgs(BTreeMap<String, String>);

impl BuildArgs {
    pub(super) fn new(inputs: &PlanInputs) -> BuildArgs {
        let mut values: BTreeMap<String, String> = inputs.build_args.iter().cloned().collect();
        if let Some(epoch) = inputs.source_date_epoch {
            values
                .entry(EPOCH.to_owned())
                .or_insert_with(|| epoch.to_owned());
        }
        BuildArgs(values)
    }

    /// Puts the seconds in the place of the word that stood for them. Without any, the argument has no value.
    pub(super) fn resolve_epoch(&mut self, epoch: Option<i64>) {
        match epoch {
            Some(seconds) => self.0.insert(EPOCH.to_owned(), seconds.to_string()),
            None => self.0.remove(EPOCH),
        };
    }

    /// Returns what was given for `name`.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Returns the name of the host that RUN sees.
    pub(super) fn hostname(&self) -> String {
        let given = self.get(HOSTNAME).filter(|name| !name.is_empty());
        given.unwrap_or("buildkitsandbox").to_owned()
    }

    /// Tells whether an index is wanted even for one platform.
    pub(super) fn multi_platform(&self) -> Result<bool, Mistake> {
        match self.get(MULTI_PLATFORM).unwrap_or_default() {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
            "" | "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
            other => Err(Box::new(Diagnostic::error(format!(
                "build argument `{MULTI_PLATFORM}` is neither true nor false: `{other}`"
            )))),
        }
    }

    /// Warns of a frontend that is asked for in the place of the file's own.
    pub(super) fn warn_of_frontend(&self, report: &mut Report) {
        if let Some(warning) = self.get(SYNTAX).and_then(unknown_frontend) {
            report.add(warning.hint(format!("leave `--build-arg {SYNTAX}` out")));
        }
    }

    /// Returns what keeps cache mounts of this build apart from equally named ones.
    pub(super) fn cache_namespace(&self) -> &str {
        self.get(CACHE_NAMESPACE).unwrap_or_default()
    }

    /// Returns the proxy variables of RUN, each in both cases. Of two spellings of one name the one in lower case counts.
    pub(super) fn proxies(&self) -> Vec<(String, String)> {
        let mut proxies = Vec::new();
        for name in PROXIES {
            let given = self
                .0
                .iter()
                .rfind(|(given, _)| given.eq_ignore_ascii_case(name));
            if let Some((_, value)) = given
                && !value.is_empty()
            {
                proxies.push((name.to_owned(), value.clone()));
                proxies.push((name.to_lowercase(), value.clone()));
            }
        }
        proxies
    }

    /// Warns of the arguments that nothing in the Dockerfile, nor in a trigger, declares.
    pub(super) fn warn_of_unused<'a>(
        &self,
        dockerfile: &'a Dockerfile,
        triggers: impl Iterator<Item = &'a Instruction>,
        context: MainContext,
        report: &mut Report,
    ) {
        let stages = dockerfile.stages.iter();
        let instructions = stages.flat_map(|stage| &stage.instructions).chain(triggers);
        let in_stages = instructions.filter_map(|instruction| match &instruction.kind {
            InstructionKind::Arg(list) => Some(list),
            _ => None,
        });
        let global = dockerfile.global_args.iter().map(|list| &list.value);
        let declared: BTreeSet<&str> = in_stages
            .chain(global)
            .flatten()
            .map(|argument| argument.name.value.as_str())
            .collect();
        for name in self.0.keys() {
            let is_proxy = PROXIES.iter().any(|proxy| proxy.eq_ignore_ascii_case(name));
            let known = [
                EPOCH,
                HOSTNAME,
                CACHE_NAMESPACE,
                CHECK,
                INLINE_CACHE,
                MULTI_PLATFORM,
                SYNTAX,
            ]
            .contains(&name.as_str())
                || is_proxy
                || PLATFORM_ARGS.contains(&name.as_str());
            let is_for_context = name == KEEP_GIT_DIR && matches!(context, MainContext::Git(_));
            if known || is_for_context || declared.contains(name.as_str()) {
                continue;
            }
            if WITHOUT_EFFECT.contains(&name.as_str()) {
                report.add(Diagnostic::warning(format!(
                    "build argument `{name}` has no effect on this builder"
                )));
                continue;
            }
            let warning = Diagnostic::warning(format!(
                "build argument `{name}` is not used: no ARG declares it"
            ));
            report.add(match nearest(name, declared.iter().copied()) {
                Some(known) => warning.hint(format!("did you mean `{known}`?")),
                None => warning,
            });
        }
    }
}

const PLATFORM_ARGS: [&str; 11] = [
    "BUILDPLATFORM",
    "BUILDOS",
    "BUILDOSVERSION",
    "BUILDARCH",
    "BUILDVARIANT",
    "TARGETPLATFORM",
    "TARGETOS",
    "TARGETOSVERSION",
    "TARGETARCH",
    "TARGETVARIANT",
    "TARGETSTAGE",
];

/// The variables before the first FROM.
#[derive(Clone, Default)]
pub(super) struct Globals {
    pub(super) values: Environment,
    declared: BTreeSet<String>,
}

impl Globals {
    /// Evaluates the global ARGs. Without `build_args`: with their defaults alone, as a lint wants it.
    pub(super) fn new(
        dockerfile: &Dockerfile,
        build_args: Option<&BuildArgs>,
        host: &Platform,
        target: &Platform,
        target_stage: &str,
        report: &mut Report,
    ) -> Globals {
        let given = |name: &str| build_args.and_then(|arguments| arguments.get(name));
        let mut globals = Globals::default();
        let automatic = platform_values(host)
            .into_iter()
            .chain(platform_values(target))
            .chain([target_stage.to_owned()]);
        for (name, value) in PLATFORM_ARGS.iter().zip(automatic) {
            globals.values.set(name, given(name).unwrap_or(&value));
        }
        for Spanned { value: list, .. } in &dockerfile.global_args {
            for argument in list {
                // A mistake in one must not hide those in the others.
                let value =
                    globals.evaluate(argument, given(&argument.name.value), dockerfile, report);
                if let Ok(Some(value)) = value {
                    globals.values.set(&argument.name.value, &value);
                }
                globals.declared.insert(argument.name.value.clone());
            }
        }
        globals
    }

    /// Tells whether FROM may use the name: it has a value, or an ARG declares it.
    pub(super) fn knows(&self, name: &str) -> bool {
        self.values.get(name).is_some() || self.declared.contains(name)
    }

    /// Returns every name that FROM may use.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        let declared = self.declared.iter().map(String::as_str);
        self.values.names().chain(declared)
    }

    fn evaluate(
        &self,
        argument: &ArgDeclaration,
        given: Option<&str>,
        dockerfile: &Dockerfile,
        report: &mut Report,
    ) -> Result<Option<String>, Reported> {
        if let Some(given) = given {
            return Ok(Some(given.to_owned()));
        }
        let Some(default) = &argument.default else {
            return Ok(None);
        };
        let words = Words {
            escape: dockerfile.escape,
            values: &self.values,
            declared: &|_| true,
            at: None,
        };
        words.one(default, report).map(Some)
    }
}

fn platform_values(platform: &Platform) -> [String; 5] {
    [
        platform.to_string(),
        platform.os.clone(),
        platform.os_version.clone().unwrap_or_default(),
        platform.architecture.clone(),
        platform.variant.clone().unwrap_or_default(),
    ]
}
