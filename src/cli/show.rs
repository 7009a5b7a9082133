//! How a build is shown: flags and environment become [`Showing`].

use std::path::{Path, PathBuf};

use clap::{Args as ClapArgs, ValueEnum};

use super::args::Progress;
use super::usage;
use crate::pipeline::Failure;
use crate::ui::{Ci, Showing, SummaryLength};
use crate::vocab::ProgressMode;

/// What a build says, and how much of it.
#[derive(Debug, ClapArgs)]
pub(super) struct Show {
    /// Say in full why steps are not in the cache: every file and value that changed, and under which keys the others were found
    #[arg(long)]
    pub(super) explain: bool,
    /// Put the time of day in front of every line of plain text
    #[arg(long)]
    pub(super) timestamps: bool,
    /// Fold steps and mark errors as this CI system shows them: auto (by GITLAB_CI or GITHUB_ACTIONS), none, gitlab,
    /// github; and tell it of the result, which tekton is for alone
    #[arg(long, value_name = "SYSTEM", default_value = "auto")]
    pub(super) ci: CiName,
    /// How much is said of the result: short, full, none
    #[arg(long, value_name = "LENGTH", default_value = "short")]
    pub(super) summary: Length,
    /// Write a page about the build, whether it succeeds or fails: timeline, stages, sizes, cache, logs; one HTML file
    #[arg(long, value_name = "FILE")]
    pub(super) report: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum CiName {
    Auto,
    None,
    Gitlab,
    Github,
    Tekton,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Length {
    Short,
    Full,
    None,
}

impl Show {
    /// Returns the CI system that this is a job of; never `Auto`.
    pub(super) fn system(&self, variables: &dyn Fn(&str) -> Option<String>) -> CiName {
        let is_set =
            |name| variables(name).is_some_and(|value| !value.is_empty() && value != "false");
        match self.ci {
            CiName::Auto if is_set("GITLAB_CI") => CiName::Gitlab,
            CiName::Auto if is_set("GITHUB_ACTIONS") => CiName::Github,
            CiName::Auto => CiName::None,
            named => named,
        }
    }

    /// Returns where the page about the build goes, if one is wanted.
    pub(super) fn report(&self) -> Result<Option<PathBuf>, Failure> {
        match &self.report {
            Some(path) if path.as_os_str() == "-" => Err(usage(
                "`--report -`: the page goes to a file, standard output is for results",
            )),
            Some(path) if path.as_os_str().is_empty() => Ok(None),
            path => Ok(path.clone()),
        }
    }

    /// Tells whether the result's files are counted by directory.
    pub(super) fn counts_files(&self) -> bool {
        self.summary == Length::Full || matches!(self.report(), Ok(Some(_)))
    }

    /// Returns what the flags mean where the environment is what `variables` says.
    pub(super) fn showing(
        &self,
        progress: Progress,
        quiet: bool,
        (context, is_in_context): (&str, bool),
        variables: &dyn Fn(&str) -> Option<String>,
    ) -> Showing {
        let mode = match progress {
            _ if quiet => ProgressMode::Quiet,
            Progress::Auto => ProgressMode::Auto,
            Progress::Tty => ProgressMode::Tty,
            Progress::Plain => ProgressMode::Plain,
            Progress::Rawjson => ProgressMode::RawJson,
            Progress::Quiet => ProgressMode::Quiet,
        };
        let workspace = || {
            variables("GITHUB_WORKSPACE")
                .filter(|path| !path.is_empty())
                .map(PathBuf::from)
        };
        // A Dockerfile that is not named lies in the context.
        let directory = || {
            let directory = match is_in_context {
                true => Path::new(context),
                false => Path::new("."),
            };
            std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned())
        };
        let ci = match self.system(variables) {
            CiName::Gitlab => Ci::GitLab,
            CiName::Github => Ci::GitHub {
                workspace: workspace(),
                directory: directory(),
            },
            CiName::Auto | CiName::None | CiName::Tekton => Ci::None,
        };
        Showing {
            mode,
            explain: self.explain,
            timestamps: self.timestamps,
            ci,
            summary: match self.summary {
                Length::Short => SummaryLength::Short,
                Length::Full => SummaryLength::Full,
                Length::None => SummaryLength::None,
            },
            log_lines: variables("BUILDKIT_TTY_LOG_LINES")
                .and_then(|text| text.trim().parse().ok()),
            colours: variables("BUILDKIT_COLORS").unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ci_system_is_known_by_its_variables_unless_it_is_named() {
        let github = |workspace: Option<&str>| Ci::GitHub {
            workspace: workspace.map(PathBuf::from),
            directory: "/c".into(),
        };
        for (name, variables, expected) in [
            (CiName::Auto, &[][..], Ci::None),
            (CiName::Auto, &[("CI", "true")], Ci::None),
            (CiName::Auto, &[("GITLAB_CI", "true")], Ci::GitLab),
            (CiName::Auto, &[("GITLAB_CI", "")], Ci::None),
            (CiName::None, &[("GITLAB_CI", "true")], Ci::None),
            (
                CiName::Auto,
                &[("GITHUB_ACTIONS", "true"), ("GITHUB_WORKSPACE", "/w")],
                github(Some("/w")),
            ),
            (CiName::Github, &[("GITLAB_CI", "true")], github(None)),
            (CiName::Tekton, &[("GITLAB_CI", "true")], Ci::None),
        ] {
            let show = Show {
                explain: false,
                timestamps: false,
                ci: name,
                summary: Length::Short,
                report: None,
            };
            let lookup = |name: &str| {
                let found = variables.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| (*value).to_owned())
            };
            let showing = show.showing(Progress::Auto, false, ("/c", true), &lookup);
            assert_eq!(showing.ci, expected, "{variables:?}");
        }
    }
}
