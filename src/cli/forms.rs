//! What forms of CI systems hand over: fields of text that become arguments, names, stages and files laid over the context.

use std::path::{Path, PathBuf};

use clap::Args as ClapArgs;

use crate::pipeline::Failure;
use crate::vocab::{ContextOverlay, OverlaySource, without_passwords};

use super::usage;
use super::words::{OpenQuote, words};

#[derive(Debug, ClapArgs)]
pub(super) struct Forms {
    /// Build arguments as one text, cut as a shell would cut it: NAME=VALUE or --build-arg NAME=VALUE, several with blanks between;
    /// `--build-arg` goes before them
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    args_string: Option<String>,
    /// Read names for the image from a file, one a line, besides those of `--tag`
    #[arg(long, value_name = "FILE")]
    tag_file: Vec<PathBuf>,
    /// Keep results of steps apart from those of other versions: with a new one every step is executed once
    #[arg(long, value_name = "TEXT")]
    cache_version: Option<String>,
    /// Build this stage too, and deliver the result only if it succeeds
    #[arg(long, value_name = "STAGE", value_delimiter = ',')]
    require_stage: Vec<String>,
    /// Lay a directory, an archive's content (tar, .zip) or another file over the context, at its root or at DEST; nothing is
    /// written there, and of several the later one wins
    #[arg(long, value_name = "PATH|URL[:DEST]")]
    context_overlay: Vec<String>,
}

impl Forms {
    /// Returns what `--args-string` holds, each as `--build-arg` takes it.
    pub(super) fn build_args(&self) -> Result<Vec<String>, Failure> {
        self.args_string
            .as_deref()
            .map_or(Ok(Vec::new()), arguments)
    }

    /// Returns the lines of the files of names.
    pub(super) fn tags(&self) -> Result<Vec<Line<'_>>, Failure> {
        let mut lines = Vec::new();
        for file in &self.tag_file {
            lines.extend(lines_of(file)?);
        }
        Ok(lines)
    }

    /// Returns what is laid over the context.
    pub(super) fn overlays(&self) -> Result<Vec<ContextOverlay>, Failure> {
        let given = self.context_overlay.iter().filter(|text| !text.is_empty());
        given
            .map(|text| overlay(text, &|path| path.exists()))
            .collect()
    }

    pub(super) fn cache_version(&self) -> Option<String> {
        self.cache_version.clone().filter(|text| !text.is_empty())
    }

    /// Returns the stages that must succeed.
    pub(super) fn required_stages(&self) -> impl Iterator<Item = &String> {
        self.require_stage.iter().filter(|name| !name.is_empty())
    }
}

/// Reads `PATH[:DEST]` or `URL[:DEST]`. A path that is there is meant as a whole, and a URL's port is no destination.
fn overlay(text: &str, is_there: &dyn Fn(&Path) -> bool) -> Result<ContextOverlay, Failure> {
    let scheme = ["http://", "https://"]
        .iter()
        .find(|scheme| text.starts_with(**scheme));
    let (source, dest) = match scheme {
        Some(scheme) => {
            let host = &text[scheme.len()..];
            let path = host.find('/').map_or(text.len(), |at| scheme.len() + at);
            let (before, path) = text.split_at(path);
            let (path, dest) = path.rsplit_once(':').unwrap_or((path, ""));
            (OverlaySource::Http(format!("{before}{path}")), dest)
        }
        None => {
            let (path, dest) = match text.rsplit_once(':') {
                Some(parts) if !is_there(Path::new(text)) => parts,
                _ => (text, ""),
            };
            if path.is_empty() || !is_there(Path::new(path)) {
                let mut failure = usage(format!(
                    "`--context-overlay {}`: there is no such file or directory",
                    without_passwords(text)
                ));
                failure.diagnostics[0].hints.push(
                    "a file, a directory, or an http or https URL, and after a `:` the place in the context"
                        .to_owned(),
                );
                return Err(failure);
            }
            (OverlaySource::Path(PathBuf::from(path)), dest)
        }
    };
    let mut clean: Vec<&str> = Vec::new();
    for part in dest.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                return Err(usage(format!(
                    "`--context-overlay`: `{dest}` leads out of the context"
                )));
            }
            part => clean.push(part),
        }
    }
    Ok(ContextOverlay {
        source,
        dest: clean.join("/"),
        is_into: dest.ends_with('/'),
    })
}

/// A line of a file that says something.
pub(super) struct Line<'a> {
    pub(super) text: String,
    file: &'a Path,
    /// Counted from 1.
    number: usize,
}

impl Line<'_> {
    /// Says where a mistake stands.
    pub(super) fn refuse(&self, mut failure: Failure) -> Failure {
        let place = format!("{}:{}", self.file.display(), self.number);
        for diagnostic in &mut failure.diagnostics {
            diagnostic.message = format!("{place}: {}", diagnostic.message);
        }
        failure
    }
}

/// Reads a file, without lines that are blank or begin with `#`.
pub(super) fn lines_of(file: &Path) -> Result<Vec<Line<'_>>, Failure> {
    let text = std::fs::read_to_string(file).map_err(|error| {
        let mut failure = usage(format!("cannot read `{}`", file.display()));
        failure.diagnostics[0].causes.push(error.to_string());
        failure
    })?;
    let lines = text.lines().enumerate();
    let lines = lines.filter(|(_, line)| !line.trim().is_empty() && !line.trim().starts_with('#'));
    Ok(lines
        .map(|(at, line)| Line {
            text: line.to_owned(),
            file,
            number: at + 1,
        })
        .collect())
}

/// Cuts a text of build arguments.
fn arguments(text: &str) -> Result<Vec<String>, Failure> {
    const FLAG: &str = "--build-arg";
    let words = words(text).map_err(|OpenQuote(quote)| {
        // The text is not shown: arguments may hold what nobody should read.
        usage(format!(
            "`--args-string` (BUILDER_ARGS): a quote {quote} is not closed"
        ))
    })?;
    let mut given = Vec::new();
    let mut words = words.into_iter().enumerate();
    while let Some((at, word)) = words.next() {
        if word == FLAG {
            let value = words.next().map(|(_, value)| value);
            let value = value.filter(|value| !value.starts_with('-'));
            given.push(value.ok_or_else(|| {
                usage("`--args-string` (BUILDER_ARGS): nothing follows a `--build-arg`")
            })?);
        } else if let Some(value) = word
            .strip_prefix(FLAG)
            .and_then(|rest| rest.strip_prefix('='))
        {
            given.push(value.to_owned());
        } else if !word.starts_with(['-', '=']) && word.contains('=') {
            given.push(word);
        } else {
            let mut failure = usage(format!(
                "`--args-string` (BUILDER_ARGS): word {} of it is no build argument",
                at + 1
            ));
            failure.diagnostics[0].hints.push(
                "NAME=VALUE and --build-arg NAME=VALUE are; a value with blanks is quoted, and other flags stand on the command line"
                    .to_owned(),
            );
            return Err(failure);
        }
    }
    Ok(given)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_of_arguments_is_cut_as_a_shell_cuts_it() {
        for (text, expected) in [
            ("", &[][..]),
            ("--build-arg a=1", &["a=1"]),
            ("--build-arg=a=1 b=2", &["a=1", "b=2"]),
            (
                "  --build-arg  a='x y'\n\tb=\"z\\\"\" ",
                &["a=x y", "b=z\""],
            ),
            (
                "--build-arg FROM_ENVIRONMENT c=",
                &["FROM_ENVIRONMENT", "c="],
            ),
            ("url=http://h/?a=b&c", &["url=http://h/?a=b&c"]),
        ] {
            assert_eq!(arguments(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn overlays_have_a_source_and_a_place() {
        let is_there = |path: &Path| ["a.tgz", "out", "odd:name"].map(Path::new).contains(&path);
        for (text, source, dest, is_into) in [
            ("a.tgz", "a.tgz", "", false),
            ("a.tgz:", "a.tgz", "", false),
            ("out:/lib/./x/", "out", "lib/x", true),
            ("odd:name", "odd:name", "", false),
            ("odd:name:d", "odd:name", "d", false),
            ("https://h:8080/a.zip", "https://h:8080/a.zip", "", false),
            (
                "https://h:8080/a.zip:d/e",
                "https://h:8080/a.zip",
                "d/e",
                false,
            ),
            ("http://h:8080", "http://h:8080", "", false),
        ] {
            let found = overlay(text, &is_there).unwrap();
            let expected = ContextOverlay {
                source: match source.starts_with("http") {
                    true => OverlaySource::Http(source.to_owned()),
                    false => OverlaySource::Path(source.into()),
                },
                dest: dest.to_owned(),
                is_into,
            };
            assert_eq!(found, expected, "{text}");
        }
        for text in [
            "",
            ":d",
            "missing",
            "missing:d",
            "out:../x",
            "out:a/../../x",
        ] {
            assert!(overlay(text, &is_there).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_no_argument_is_refused_and_not_shown() {
        for (text, shown) in [
            ("a=1 --no-cache", "word 2 of it"),
            ("--build-arg a=1 --label=x=y", "word 3 of it"),
            ("a=hunter1 hunter2", "word 2 of it"),
            ("=x", "word 1 of it"),
            ("a=1 --build-arg", "nothing follows"),
            ("--build-arg --build-arg a=1", "nothing follows"),
            ("a='1", "a quote ' is not closed"),
        ] {
            let failure = arguments(text).unwrap_err();
            let message = &failure.diagnostics[0].message;
            assert!(message.contains(shown), "{text}: {message}");
            assert!(!message.contains("hunter"), "{message}");
        }
    }
}
