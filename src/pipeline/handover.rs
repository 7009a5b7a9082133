//! What the next job is told in the ways of its CI system: lines of `KEY=VALUE`, outputs and summary of a GitHub step, Tekton's
//! results.
//!
//! In: what was delivered, and the places that the request names. They are written when everything else has succeeded, and one line
//! of the build says so. A file of lines and Tekton's results are replaced as a whole; GitHub's files are the step's, others write to
//! them as well, and they are appended to by one write. No value holds a line break: names, digests and platforms have none, and
//! templates with one are refused when they are read.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use crate::vocab::{
    BuildRequest, Diagnostic, Event, EventSink, ExitCode, Field, ImageRef, Summary, size,
};

use super::deliver::Delivered;
use super::results::{cannot_write, check_result, put};
use super::{Failure, TaskIds, inputs};

/// What the results of one Tekton task may take, which pass through the termination message of its pod.
const TEKTON_LIMIT: usize = 4096;

impl Delivered {
    /// Writes every file that the request names.
    pub(super) fn hand_over(
        &self,
        request: &BuildRequest,
        summary: &Summary,
        events: &dyn EventSink,
        tasks: &TaskIds,
    ) -> Result<(), Failure> {
        let places = places(request);
        if places.is_empty() {
            return Ok(());
        }
        let vertex = tasks.start(format!("write results: {}", places.join(", ")), events);
        let facts = Facts {
            names: self.names_of(request),
            delivered: self,
            summary,
        };
        let written = self
            .write_files(request)
            .and_then(|()| facts.write(request, events));
        match &written {
            Ok(()) => events.emit(Event::Finished { vertex }),
            Err(failure) => events.emit(Event::Failed {
                vertex,
                message: failure.diagnostics[0].message.clone(),
            }),
        }
        written
    }

    /// Returns what the result is called: where it went, or what it was to be called.
    fn names_of(&self, request: &BuildRequest) -> Vec<ImageRef> {
        if !self.names.is_empty() {
            return self.names.clone();
        }
        if !request.tags.is_empty() || self.top.is_none() {
            return request.tags.clone();
        }
        let appended = request.append_to.iter().map(|to| to.image.clone());
        appended.collect()
    }
}

/// Sees to it, before anything is built, that every file can be written that the request names.
pub(super) fn check(request: &BuildRequest) -> Result<(), Failure> {
    files(request).try_for_each(check_result)?;
    match &request.handover.results_directory {
        Some(directory) => check_result(&directory.join("IMAGE_DIGEST")),
        None => Ok(()),
    }
}

fn files(request: &BuildRequest) -> impl Iterator<Item = &Path> {
    let files = &request.digest_files;
    let named = [
        &request.iidfile,
        &request.metadata_file,
        &files.digest,
        &files.name,
        &files.name_and_tag,
    ];
    let named = named.into_iter().filter_map(Option::as_deref);
    let lines = request.handover.outputs.as_ref();
    named.chain(lines.map(|file| file.path.as_path()))
}

/// Returns what is written to, as the user knows it.
fn places(request: &BuildRequest) -> Vec<String> {
    let handover = &request.handover;
    let mut places: Vec<String> = files(request)
        .chain(handover.results_directory.as_deref())
        .map(|path| path.display().to_string())
        .collect();
    // Their paths are the runner's and mean nothing to anybody.
    if handover.github_output.is_some() {
        places.push("GITHUB_OUTPUT".to_owned());
    }
    if handover.github_summary.is_some() {
        places.push("GITHUB_STEP_SUMMARY".to_owned());
    }
    places
}

struct Facts<'a> {
    delivered: &'a Delivered,
    names: Vec<ImageRef>,
    summary: &'a Summary,
}

impl Facts<'_> {
    fn write(&self, request: &BuildRequest, events: &dyn EventSink) -> Result<(), Failure> {
        let handover = &request.handover;
        if let Some(file) = &handover.outputs {
            let pairs = match handover.chosen.is_empty() {
                true => self.all(str::to_uppercase),
                false => self.chosen(request)?,
            };
            let text: String = pairs
                .iter()
                .map(|(name, value)| format!("{name}={value}\n"))
                .collect();
            let written = match file.appends {
                true => append(&file.path, &text),
                false => put(&file.path, text.as_bytes()),
            };
            written.map_err(|error| cannot_write(&file.path, &error))?;
        }
        if let Some(directory) = &handover.results_directory {
            self.write_results(directory)?;
        }
        // The job did not ask for these: without them the image is still what it is.
        if let Some(path) = &handover.github_output {
            let mut pairs = self.all(str::to_lowercase);
            let id = self.value(Field::ImageId);
            // As docker/build-push-action calls them.
            pairs.extend(id.map(|id| ("imageid".to_owned(), id)));
            let metadata = String::from_utf8_lossy(&self.delivered.metadata()).into_owned();
            pairs.push(("metadata".to_owned(), metadata));
            pairs.extend(self.chosen(request)?);
            let written = append(path, &github_lines(&pairs, &inputs::nonce()));
            warn("GITHUB_OUTPUT", written, events);
        }
        if let Some(path) = &handover.github_summary {
            warn(
                "GITHUB_STEP_SUMMARY",
                append(path, &self.markdown()),
                events,
            );
        }
        Ok(())
    }

    /// Returns one of the facts, if it is known.
    fn value(&self, field: Field) -> Option<String> {
        let first = self.names.first();
        match field {
            Field::Image => first.map(ImageRef::to_string),
            Field::Name => first.map(ImageRef::name),
            Field::Tag => first.and_then(|name| name.tag.clone()),
            Field::Digest => Some(self.delivered.top.as_ref()?.digest.to_string()),
            Field::ImageId => Some(self.delivered.id()?.to_string()),
            Field::Tags => {
                let names: Vec<String> = self.names.iter().map(ImageRef::to_string).collect();
                (!names.is_empty()).then(|| names.join(","))
            }
            Field::Size => self.size().map(|bytes| bytes.to_string()),
            Field::CacheHit => Some((self.summary.cached == self.summary.steps).to_string()),
            Field::Platforms => {
                let images = self.summary.images.iter();
                let platforms: Vec<String> =
                    images.map(|image| image.platform.to_string()).collect();
                (!platforms.is_empty()).then(|| platforms.join(","))
            }
        }
    }

    fn size(&self) -> Option<u64> {
        let images = &self.summary.images;
        (!images.is_empty())
            .then(|| images.iter().map(|image| image.blob_size).sum())
            .flatten()
    }

    /// Returns all that is known, under the names of the fields.
    fn all(&self, spelled: fn(&str) -> String) -> Vec<(String, String)> {
        let known = |field: Field| Some((spelled(field.name()), self.value(field)?));
        Field::ALL.into_iter().filter_map(known).collect()
    }

    fn chosen(&self, request: &BuildRequest) -> Result<Vec<(String, String)>, Failure> {
        let fill = |field| self.value(field);
        let chosen = request.handover.chosen.iter();
        chosen
            .map(|chosen| match chosen.template.fill(&fill) {
                Ok(value) => Ok((chosen.name.clone(), value)),
                Err(field) => Err(Failure::new(
                    ExitCode::Export,
                    Diagnostic::error(format!(
                        "`{}` cannot be written: the result has no {}",
                        chosen.name,
                        field.name()
                    )),
                )),
            })
            .collect()
    }

    fn write_results(&self, directory: &Path) -> Result<(), Failure> {
        let results: Vec<(&str, String)> =
            [("IMAGE_URL", Field::Image), ("IMAGE_DIGEST", Field::Digest)]
                .into_iter()
                .filter_map(|(name, field)| Some((name, self.value(field)?)))
                .collect();
        let length: usize = results.iter().map(|(_, value)| value.len()).sum();
        if length > TEKTON_LIMIT {
            return Err(Failure::new(
                ExitCode::Export,
                Diagnostic::error(format!(
                    "the results are too long for Tekton, which takes {TEKTON_LIMIT} bytes: {length}"
                )),
            ));
        }
        for (name, value) in results {
            let path = directory.join(name);
            // A line break would become a part of the value.
            put(&path, value.as_bytes()).map_err(|error| cannot_write(&path, &error))?;
        }
        Ok(())
    }

    /// Returns the table of a step summary. Every value is of few kinds of characters, so that nothing has to be escaped.
    fn markdown(&self) -> String {
        let code = |text: &str| format!("`{text}`");
        let names: Vec<String> = self
            .names
            .iter()
            .map(|name| code(&name.familiar()))
            .collect();
        let steps = match (self.summary.steps, self.summary.cached) {
            (steps, cached) if steps == cached => format!("{steps}, all from the cache"),
            (steps, cached) => format!("{steps}, {cached} of them from the cache"),
        };
        let rows = [
            ("Image", (!names.is_empty()).then(|| names.join("<br>"))),
            ("Digest", self.value(Field::Digest).map(|text| code(&text))),
            ("Platforms", self.value(Field::Platforms)),
            ("Size", self.size().map(size)),
            ("Steps", Some(steps)),
            (
                "Time",
                Some(format!("{:.1} s", self.summary.elapsed.as_secs_f64())),
            ),
        ];
        let mut text = "### Image build\n\n| | |\n|---|---|\n".to_owned();
        for (title, value) in rows {
            if let Some(value) = value {
                text.push_str(&format!("| {title} | {value} |\n"));
            }
        }
        text.push('\n');
        text
    }
}

/// Writes outputs in the form that GitHub has for values of any content: nobody can guess the line that ends them.
fn github_lines(pairs: &[(String, String)], nonce: &str) -> String {
    let end = format!(
        "builder_{}",
        crate::vocab::Digest::of(nonce.as_bytes()).hex()
    );
    let mut text = String::new();
    for (name, value) in pairs {
        text.push_str(&format!("{name}<<{end}\n{value}\n{end}\n"));
    }
    text
}

/// Adds whole lines to a file by one write.
fn append(path: &Path, text: &str) -> io::Result<()> {
    if let Some(parent) = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
    {
        std::fs::create_dir_all(parent)?;
    }
    let mut file = File::options()
        .read(true)
        .append(true)
        .create(true)
        .open(path)?;
    // The last line of whoever was here before may lack its end.
    let mut last = [b'\n'];
    if file.metadata()?.is_file() && file.metadata()?.len() > 0 {
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
    }
    match last {
        [b'\n'] => file.write_all(text.as_bytes()),
        _ => file.write_all(format!("\n{text}").as_bytes()),
    }
}

fn warn(place: &str, written: io::Result<()>, events: &dyn EventSink) {
    if let Err(error) = written {
        let warning = Diagnostic::warning(format!("cannot write {place}"))
            .caused_by(&error)
            .hint("`--ci none` leaves it alone");
        events.emit(Event::Diagnostic(warning));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_cannot_end_itself() {
        let pairs = [("a".to_owned(), "1\nbuilder_\nb=2".to_owned())];
        let text = github_lines(&pairs, "nonce");
        let lines: Vec<&str> = text.lines().collect();
        let end = lines[0].strip_prefix("a<<").unwrap();
        assert_eq!(lines, [lines[0], "1", "builder_", "b=2", end]);
        assert_ne!(text, github_lines(&pairs, "other"));
    }

    #[test]
    fn lines_are_added_behind_whole_lines() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("new/file");
        append(&path, "a=1\n").unwrap();
        append(&path, "b=2\n").unwrap();
        std::fs::write(&path, "a=1\nb=2").unwrap();
        append(&path, "c=3\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "a=1\nb=2\nc=3\n");
    }
}
