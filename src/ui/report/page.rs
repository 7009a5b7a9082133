//! The page as a whole.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::vocab::{Digest, ExitCode, Timestamp};

use super::html::Html;
use super::story::{Row, State, Story, is_task};
use super::{data, graph, head, sizes, steps, timeline};

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

/// A build that is over.
pub(super) struct Told<'a> {
    pub(super) story: &'a Story,
    /// What the result was going to be called.
    pub(super) names: &'a [String],
    pub(super) date: Timestamp,
    pub(super) ended: ExitCode,
    /// Seconds.
    pub(super) elapsed: f64,
}

impl Told<'_> {
    pub(super) fn title(&self) -> String {
        let named = self
            .story
            .summary
            .iter()
            .flat_map(|summary| &summary.images);
        let named = named
            .flat_map(|image| &image.names)
            .chain(self.names)
            .next();
        match (named, &self.story.source) {
            (Some(name), _) => name.clone(),
            (None, Some(source)) => source.name.clone(),
            (None, None) => "build".to_owned(),
        }
    }

    /// Returns how many steps there are, and how many of them were in the cache.
    pub(super) fn steps(&self) -> (usize, usize) {
        if let Some(summary) = &self.story.summary {
            return (summary.steps, summary.cached);
        }
        let rows: Vec<&Row> = self
            .story
            .shown()
            .filter(|(vertex, _)| !is_task(*vertex))
            .map(|(_, row)| row)
            .collect();
        let cached = rows.iter().filter(|row| row.state == State::Cached);
        (rows.len(), cached.count())
    }
}

/// Returns the page of a build.
pub(super) fn page(told: &Told<'_>) -> String {
    let mut html = Html::new();
    html.raw("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src '");
    html.text(&allowed(STYLE))
        .raw("'; script-src '")
        .text(&allowed(SCRIPT));
    html.raw("'; base-uri 'none'; form-action 'none'\"><meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><meta name=\"color-scheme\" content=\"light dark\"><meta name=\"referrer\" content=\"no-referrer\"><title>");
    html.raw(match told.ended {
        ExitCode::Success => "✓ ",
        _ => "✕ ",
    });
    html.text(&told.title())
        .raw("</title><style>")
        .raw(STYLE)
        .raw("</style></head><body><main>");
    html.add(&head::head(told));
    let sections = [
        ("timeline", "Timeline", timeline::section(told)),
        ("stages", "Stages", graph::section(told)),
        ("size", "Size", sizes::section(told)),
        ("steps", "Steps", steps::section(told)),
    ];
    html.raw("<nav aria-label=\"Sections\"><ul>");
    for (id, name, section) in &sections {
        if !section.is_empty() {
            html.raw("<li><a href=\"#")
                .raw(id)
                .raw("\">")
                .raw(name)
                .raw("</a></li>");
        }
    }
    html.raw("</ul></nav>");
    for (_, _, section) in &sections {
        html.add(section);
    }
    html.raw("</main><footer><p>Made by builder ")
        .raw(env!("CARGO_PKG_VERSION"));
    html.raw(". Outputs are complete up to 1 MiB for a step and 8 MiB in all; of more, the middle is left out.</p></footer><script type=\"application/json\" id=\"build\">");
    html.json(&data::data(told))
        .raw("</script><script>")
        .raw(SCRIPT)
        .raw("</script></body></html>\n");
    html.into_string()
}

/// Returns how the policy names a text that is allowed.
fn allowed(text: &str) -> String {
    let digest = Digest::of(text.as_bytes());
    format!("sha256-{}", STANDARD.encode(digest.as_bytes()))
}
