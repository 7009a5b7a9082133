//! What the next job is told: `--outputs` and its names, Tekton's results, and what CI systems ask for by their variables.

use std::path::{Path, PathBuf};

use clap::Args as ClapArgs;

use crate::pipeline::Failure;
use crate::vocab::{self, Chosen, Field, OutputSpec, OutputsFile, Template, TemplateError};

use super::show::CiName;
use super::{hinted, usage};

/// Where Tekton looks for results.
const TEKTON_RESULTS: &str = "/tekton/results";

#[derive(Debug, ClapArgs)]
pub(super) struct Handover {
    /// Write what was built to a file for the next job: lines of KEY=VALUE, as GitLab's dotenv reports and shells take them
    #[arg(long, value_name = "FILE")]
    outputs: Option<PathBuf>,
    /// Add the lines to that file, and keep what is there
    #[arg(long)]
    outputs_append: bool,
    /// Write FIELD (image, name, tag, digest, image_id, tags, size, cache_hit, platforms) under this name; then only what is chosen
    /// so is written
    #[arg(long, value_name = "FIELD=NAME")]
    outputs_alias: Vec<String>,
    /// Write a line with fields in it, such as 'IMAGE={{.ref}}@{{.digest}}'; then only what is chosen so is written
    #[arg(long, value_name = "NAME=TEMPLATE")]
    outputs_line: Vec<String>,
    /// Write the files IMAGE_URL and IMAGE_DIGEST: Tekton's results [with `--ci tekton`: /tekton/results]
    #[arg(long, value_name = "DIR")]
    results_dir: Option<PathBuf>,
    /// Write how the build ended to a file as short JSON, also when it fails [without a value: /dev/termination-log]
    #[arg(
        long,
        value_name = "FILE",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "/dev/termination-log"
    )]
    termination_log: Option<PathBuf>,
}

/// What the names in the outputs can be of.
pub(super) struct Result<'a> {
    pub(super) outputs: &'a [OutputSpec],
    pub(super) has_name: bool,
}

impl Handover {
    /// Returns where the end of the build is told, whatever it is.
    pub(super) fn termination_log(&self) -> Option<&Path> {
        self.termination_log.as_deref()
    }

    /// Returns what is written when the build has succeeded.
    pub(super) fn handover(
        &self,
        result: &Result<'_>,
        system: CiName,
        variables: &dyn Fn(&str) -> Option<String>,
    ) -> std::result::Result<vocab::Handover, Failure> {
        let mut chosen = Vec::new();
        for text in &self.outputs_alias {
            chosen.push(alias(text)?);
        }
        for text in &self.outputs_line {
            chosen.push(line(text)?);
        }
        for (at, one) in chosen.iter().enumerate() {
            if chosen[..at].iter().any(|before| before.name == one.name) {
                return Err(usage(format!(
                    "`{}` is given two values by `--outputs-alias` and `--outputs-line`",
                    one.name
                )));
            }
        }
        let file = |name: &str| variables(name).filter(|path| !path.is_empty());
        let on_github = |name| match system {
            CiName::Github => file(name).map(PathBuf::from),
            _ => None,
        };
        let github_output = on_github("GITHUB_OUTPUT");
        if self.outputs.is_none() {
            if self.outputs_append {
                return Err(usage("`--outputs-append` needs `--outputs FILE`"));
            }
            if !chosen.is_empty() && github_output.is_none() {
                return Err(hinted(
                    "`--outputs-alias` and `--outputs-line` say how, and nothing says where to write",
                    "name a file with `--outputs FILE`",
                ));
            }
        }
        let results_directory = match (&self.results_dir, system) {
            (Some(directory), _) => Some(directory.clone()),
            (None, CiName::Tekton) => Some(tekton(Path::new(TEKTON_RESULTS))?),
            (None, _) => None,
        };
        for (flag, asks) in [
            ("--outputs", self.outputs.is_some()),
            ("--results-dir", results_directory.is_some()),
        ] {
            let is_file = |output: &OutputSpec| {
                matches!(output, OutputSpec::Tar { .. } | OutputSpec::Local { .. })
            };
            if asks && result.outputs.iter().all(is_file) {
                return Err(usage(format!("`{flag}` needs an output that is an image")));
            }
        }
        let needing = chosen
            .iter()
            .flat_map(|chosen| chosen.template.fields())
            .find(|field| field.needs_name());
        if let (Some(field), false) = (needing, result.has_name) {
            return Err(needs_a_name(&format!("the output `{}`", field.name())));
        }
        if results_directory.is_some() && !result.has_name {
            return Err(needs_a_name("Tekton's result IMAGE_URL"));
        }
        Ok(vocab::Handover {
            outputs: self.outputs.clone().map(|path| OutputsFile {
                path,
                appends: self.outputs_append,
            }),
            chosen,
            results_directory,
            github_output,
            github_summary: on_github("GITHUB_STEP_SUMMARY"),
        })
    }
}

fn tekton(directory: &Path) -> std::result::Result<PathBuf, Failure> {
    match directory.is_dir() {
        true => Ok(directory.to_owned()),
        false => Err(hinted(
            format!(
                "`--ci tekton`: there is no directory `{}`",
                directory.display()
            ),
            "a Tekton task has one where it declares results; `--results-dir DIR` names another",
        )),
    }
}

fn needs_a_name(what: &str) -> Failure {
    hinted(
        format!("{what} needs a name of the image"),
        "name the image with `-t REGISTRY/NAME:TAG`",
    )
}

fn alias(text: &str) -> std::result::Result<Chosen, Failure> {
    let Some((field, name)) = text.split_once('=') else {
        return Err(usage(format!("`--outputs-alias {text}` is not FIELD=NAME")));
    };
    let field = Field::named(field).map_err(|error| refused("--outputs-alias", text, &error))?;
    Ok(Chosen {
        name: key("--outputs-alias", name)?,
        template: field.into(),
    })
}

fn line(text: &str) -> std::result::Result<Chosen, Failure> {
    let Some((name, template)) = text.split_once('=') else {
        return Err(usage(format!(
            "`--outputs-line {}` is not NAME=TEMPLATE",
            text.escape_debug()
        )));
    };
    let template =
        Template::parse(template).map_err(|error| refused("--outputs-line", text, &error))?;
    Ok(Chosen {
        name: key("--outputs-line", name)?,
        template,
    })
}

/// Reads a name that every reader of such lines takes.
fn key(flag: &str, name: &str) -> std::result::Result<String, Failure> {
    let is_letter = |c: char| c.is_ascii_alphabetic() || c == '_';
    let is_name =
        name.starts_with(is_letter) && name.chars().all(|c| is_letter(c) || c.is_ascii_digit());
    match is_name {
        true => Ok(name.to_owned()),
        false => Err(hinted(
            format!("`{flag}`: `{}` cannot be a name", name.escape_debug()),
            "names are letters, digits and `_`, and do not begin with a digit",
        )),
    }
}

fn refused(flag: &str, text: &str, error: &TemplateError) -> Failure {
    let mut failure = usage(format!("`{flag} {}`: {error}", text.escape_debug()));
    let names = Field::ALL.map(Field::name).join(", ");
    failure.diagnostics[0].hints.push(match error {
        TemplateError::Unknown {
            nearest: Some(nearest),
            ..
        } => format!("did you mean `{nearest}`?"),
        TemplateError::Control => "a value is one line".to_owned(),
        _ => format!("fields are {names}; in a line `{{{{.digest}}}}` stands for one"),
    });
    failure
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Typed {
        #[command(flatten)]
        handover: Handover,
    }

    fn read(
        flags: &[&str],
        system: CiName,
        has_name: bool,
    ) -> std::result::Result<vocab::Handover, String> {
        let typed = Typed::try_parse_from([&["x"], flags].concat()).unwrap();
        let outputs = [OutputSpec::Oci {
            dest: "x".into(),
            tar: true,
            writing: Default::default(),
        }];
        let result = Result {
            outputs: &outputs,
            has_name,
        };
        let variables = |name: &str| match name {
            "GITHUB_OUTPUT" => Some("/g/output".to_owned()),
            "GITHUB_STEP_SUMMARY" => Some(String::new()),
            _ => None,
        };
        let handover = typed.handover.handover(&result, system, &variables);
        handover.map_err(|failure| failure.diagnostics[0].message.clone())
    }

    #[test]
    fn places_and_names_are_read() {
        let flags = [
            "--outputs=o.env",
            "--outputs-append",
            "--outputs-alias=image=APP1_IMAGE",
            "--outputs-line=REF={{.ref}}@{{.digest}}",
            "--results-dir=r",
        ];
        let handover = read(&flags, CiName::Github, true).unwrap();
        assert_eq!(
            handover,
            vocab::Handover {
                outputs: Some(OutputsFile {
                    path: "o.env".into(),
                    appends: true
                }),
                chosen: vec![
                    Chosen {
                        name: "APP1_IMAGE".into(),
                        template: Field::Image.into()
                    },
                    Chosen {
                        name: "REF".into(),
                        template: Template::parse("{{.image}}@{{.digest}}").unwrap()
                    },
                ],
                results_directory: Some("r".into()),
                github_output: Some("/g/output".into()),
                github_summary: None,
            }
        );
        for system in [CiName::None, CiName::Gitlab] {
            assert_eq!(read(&[], system, true), Ok(vocab::Handover::default()));
        }
    }

    #[test]
    fn what_cannot_be_written_is_refused_at_once() {
        let check = |flags: &[&str], has_name, expected: &str| {
            let told = read(flags, CiName::None, has_name).unwrap_err();
            assert!(told.contains(expected), "{flags:?}: {told}");
        };
        let file = "--outputs=o";
        check(&["--outputs-append"], true, "needs `--outputs FILE`");
        check(&["--outputs-alias=digest=D"], true, "where to write");
        check(&[file, "--outputs-alias=digest"], true, "is not FIELD=NAME");
        check(
            &[file, "--outputs-alias=digset=D"],
            true,
            "no field `digset`",
        );
        check(
            &[file, "--outputs-alias=digest=A-B"],
            true,
            "cannot be a name",
        );
        check(
            &[file, "--outputs-alias=digest=1A"],
            true,
            "cannot be a name",
        );
        check(
            &[file, "--outputs-alias=digest=A\nB"],
            true,
            "`A\\nB` cannot",
        );
        check(
            &[file, "--outputs-line=A={{.digest}}\nB=1"],
            true,
            "line break",
        );
        check(&[file, "--outputs-line=A"], true, "is not NAME=TEMPLATE");
        check(&[file, "--outputs-line=A={{.ref}}"], false, "needs a name");
        check(&["--results-dir=x"], false, "IMAGE_URL needs a name");
        let twice = ["--outputs-line=A=1", "--outputs-alias=digest=A"];
        check(&[file, twice[0], twice[1]], true, "two values");
    }

    #[test]
    fn the_termination_log_has_a_usual_place() {
        let place = |flags: &[&str]| {
            let typed = Typed::try_parse_from([&["x"], flags].concat()).unwrap();
            typed.handover.termination_log().map(Path::to_owned)
        };
        assert_eq!(place(&[]), None);
        let usual = Some("/dev/termination-log".into());
        assert_eq!(place(&["--termination-log"]), usual);
        assert_eq!(place(&["--termination-log=x"]), Some("x".into()));
    }
}
