//! What comes of a build's result and of its failure: `--smoke`, `--on-error`.

use std::io::IsTerminal as _;
use std::path::PathBuf;

use clap::Args as ClapArgs;

use crate::pipeline::Failure;
use crate::vocab::OnFailure;

use super::words::{OpenQuote, words};
use super::{hinted, usage};

/// What runs when no other shell is named.
const SHELL: &str = "/bin/sh";

#[derive(Debug, ClapArgs)]
pub(super) struct After {
    /// Run this command in the finished image, with its variables, user and directory; if it fails nothing is delivered
    #[arg(long, value_name = "COMMAND")]
    smoke: Vec<String>,
    /// When a RUN fails: end; give a shell in its root, on this terminal; or save its root with what is known of it, for
    /// `builder debug FILE`
    #[arg(
        long,
        value_name = "end|shell|save:FILE",
        default_value = "end",
        hide_default_value = true
    )]
    on_error: String,
    /// Command that `--on-error=shell` runs [default: /bin/sh]
    #[arg(long, value_name = "COMMAND")]
    on_error_shell: Option<String>,
}

impl After {
    /// Returns the commands that must succeed in the image.
    pub(super) fn smoke(&self) -> Result<Vec<Vec<String>>, Failure> {
        let commands = self.smoke.iter().filter(|text| !text.is_empty());
        commands.map(|text| command("--smoke", text)).collect()
    }

    /// Returns what is done when a step fails.
    pub(super) fn on_failure(&self) -> Result<OnFailure, Failure> {
        let is_terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
        on_failure(&self.on_error, self.on_error_shell.as_deref(), is_terminal)
    }
}

fn on_failure(text: &str, shell: Option<&str>, is_terminal: bool) -> Result<OnFailure, Failure> {
    if shell.is_some() && text != "shell" {
        return Err(usage("`--on-error-shell` needs `--on-error=shell`"));
    }
    match text.split_once(':').unwrap_or((text, "")) {
        ("" | "end", "") => Ok(OnFailure::End),
        ("shell", "") if is_terminal => Ok(OnFailure::Shell(match shell {
            Some(shell) => command("--on-error-shell", shell)?,
            None => vec![SHELL.to_owned()],
        })),
        ("shell", "") => Err(hinted(
            "`--on-error=shell` needs a terminal, and standard input and output are none",
            "`--on-error=save:FILE` keeps the failed step for `builder debug FILE`",
        )),
        ("save", file) if !file.is_empty() => Ok(OnFailure::Save(PathBuf::from(file))),
        ("save", _) => Err(usage("`--on-error=save:FILE` names no file")),
        _ => Err(hinted(
            format!("`--on-error={text}`: there is nothing of that name"),
            "there are end, shell and save:FILE",
        )),
    }
}

/// Reads a command.
pub(super) fn command(flag: &str, text: &str) -> Result<Vec<String>, Failure> {
    match words(text) {
        Ok(words) if words.first().is_none_or(String::is_empty) => {
            Err(usage(format!("`{flag}` has no command")))
        }
        Ok(words) => Ok(words),
        Err(OpenQuote(quote)) => Err(usage(format!(
            "`{flag} {text}`: the quote {quote} is not closed"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_on_failure() {
        let check = |text: &str, shell: Option<&str>, is_terminal, wanted: Option<OnFailure>| {
            let found = on_failure(text, shell, is_terminal).ok();
            assert_eq!(found, wanted, "{text}");
        };
        let shell = |words: &[&str]| {
            let words = words.iter().map(|word| (*word).to_owned());
            Some(OnFailure::Shell(words.collect()))
        };
        check("end", None, false, Some(OnFailure::End));
        check("", None, false, Some(OnFailure::End));
        check("shell", None, true, shell(&["/bin/sh"]));
        check("shell", Some("bash -l"), true, shell(&["bash", "-l"]));
        check("shell", None, false, None);
        check("save:a:b", None, false, Some(OnFailure::Save("a:b".into())));
        check("save:", None, false, None);
        check("save", None, false, None);
        check("end", Some("bash"), true, None);
        check("stop", None, true, None);
    }
}
