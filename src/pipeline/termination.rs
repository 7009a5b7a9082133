//! The termination message of a Kubernetes container: how the build ended, as JSON of at most 4096 bytes.
//!
//! It is written first as `unfinished`, which is what whoever kills the process leaves behind (no memory, `--timeout` before the
//! first step), and replaced when the build ends.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::vocab::{ExitCode, Summary};

use super::{Failure, write_result};

/// What the kubelet takes.
const LIMIT: usize = 4096;

/// A termination message in the making.
#[derive(Debug)]
pub struct Termination(Option<PathBuf>);

impl Termination {
    /// Says that the build has begun.
    pub fn begin(path: Option<&Path>) -> Result<Termination, Failure> {
        let termination = Termination(path.map(Path::to_owned));
        termination.write(&json!({ "outcome": "unfinished" }))?;
        Ok(termination)
    }

    /// Says that the build has succeeded.
    pub fn succeeded(&self, summary: &Summary) -> Result<(), Failure> {
        self.write(&success(summary))
    }

    /// Says why the build has failed.
    pub fn failed(&self, failure: &Failure) {
        // The failure is what counts, and it is told elsewhere too.
        self.write(&failed(failure)).ok();
    }

    fn write(&self, message: &Value) -> Result<(), Failure> {
        match &self.0 {
            Some(path) => write_result(path, message.to_string().as_bytes()),
            None => Ok(()),
        }
    }
}

fn success(summary: &Summary) -> Value {
    let mut message = json!({
        "outcome": "success",
        "exit_code": 0,
        "seconds": summary.elapsed.as_secs(),
    });
    if let Some(id) = summary.id {
        // An image has the ID of its config, and an index its own digest.
        let image = summary.images.iter().find(|image| image.id == Some(id));
        let manifest = image.and_then(|image| image.manifest.as_ref());
        message["digest"] = json!(manifest.map_or(id, |manifest| manifest.digest).to_string());
        message["image_id"] = json!(id.to_string());
    }
    let names = summary.images.first().map(|image| image.names.as_slice());
    let names = names.unwrap_or_default();
    for count in (1..=names.len()).rev() {
        message["tags"] = json!(names[..count]);
        if message.to_string().len() <= LIMIT {
            return message;
        }
    }
    if let Some(object) = message.as_object_mut() {
        object.remove("tags");
    }
    message
}

fn failed(failure: &Failure) -> Value {
    let first = failure.diagnostics.iter().find(|found| found.is_error());
    let mut texts: Vec<&str> = Vec::new();
    if let Some(diagnostic) = first {
        texts.push(&diagnostic.message);
        texts.extend(diagnostic.causes.iter().map(String::as_str));
    }
    let error = texts.join(": ");
    let hint = first.and_then(|diagnostic| diagnostic.hints.first());
    let mut most = LIMIT;
    loop {
        let message = json!({
            "outcome": "failure",
            "exit_code": failure.class as u8,
            "class": class(failure.class),
            "error": cut(&error, most),
            "hint": hint.map(|hint| cut(hint, most / 2)),
        });
        // Escapes make it longer than it is.
        if message.to_string().len() <= LIMIT {
            return message;
        }
        most /= 2;
    }
}

/// Returns at most so many bytes of a text.
fn cut(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}

/// As `docs/exit-codes.md` has it.
fn class(code: ExitCode) -> &'static str {
    match code {
        ExitCode::Success => "success",
        ExitCode::Internal => "internal",
        ExitCode::Usage => "usage",
        ExitCode::Dockerfile => "dockerfile",
        ExitCode::Source => "source",
        ExitCode::Step => "step",
        ExitCode::Export => "export",
        ExitCode::Timeout => "timeout",
        ExitCode::Sandbox => "sandbox",
        ExitCode::Store => "store",
        ExitCode::Interrupted => "interrupted",
        ExitCode::Terminated => "terminated",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vocab::{Diagnostic, SummaryImage};

    fn read(path: &Path) -> Value {
        let bytes = std::fs::read(path).unwrap();
        assert!(bytes.len() <= LIMIT, "{}", bytes.len());
        serde_json::from_slice(&bytes).unwrap()
    }

    #[test]
    fn the_end_takes_the_place_of_the_beginning() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let termination = Termination::begin(Some(&path)).unwrap();
        assert_eq!(read(&path), json!({ "outcome": "unfinished" }));
        termination.succeeded(&Summary::default()).unwrap();
        assert_eq!(read(&path)["outcome"], "success");
        let diagnostic = Diagnostic::error("RUN failed")
            .cause("exit code 1")
            .hint("x");
        let failure = Failure::new(ExitCode::Step, diagnostic);
        termination.failed(&failure);
        let expected = json!({ "outcome": "failure", "exit_code": 5, "class": "step", "error": "RUN failed: exit code 1", "hint": "x" });
        assert_eq!(read(&path), expected);
        Termination::begin(None).unwrap().failed(&failure);
    }

    #[test]
    fn a_message_is_never_longer_than_the_kubelet_takes() {
        for text in ["\u{1}", "é", "\"", "x"] {
            let diagnostic = Diagnostic::error(text.repeat(9000)).hint(text.repeat(9000));
            let message = failed(&Failure::new(ExitCode::Usage, diagnostic));
            assert!(message.to_string().len() <= LIMIT, "{text}");
            assert!(message["error"].as_str().unwrap().len() > 100, "{text}");
        }
        let names = vec![format!("r.io/{}", "a".repeat(200)); 50];
        let image = SummaryImage {
            platform: crate::vocab::Platform::host(),
            manifest: None,
            id: None,
            names,
            unpacked_size: None,
            blob_size: None,
            stages: Vec::new(),
            layers: Vec::new(),
            contents: None,
        };
        let summary = Summary {
            images: vec![image],
            ..Summary::default()
        };
        let message = success(&summary);
        assert!(message.to_string().len() <= LIMIT);
        assert!(message["tags"].as_array().unwrap().len() > 10);
    }
}
