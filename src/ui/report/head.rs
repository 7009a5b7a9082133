//! The first thing that is read: how it ended, what came of it, what went wrong, what could be better.

use crate::vocab::{Diagnostic, ExitCode};

use super::super::render::{Style, render};
use super::super::text::size;
use super::html::Html;
use super::page::Told;
use super::story::{State, is_task};
use super::timeline::seconds;

/// Lines of a failed step's output that are shown with the error.
const LAST: usize = 20;

pub(super) fn head(told: &Told<'_>) -> Html {
    let mut html = Html::new();
    let is_done = told.ended == ExitCode::Success;
    html.raw("<header class=\"")
        .raw(if is_done { "good" } else { "bad" })
        .raw("\"><p class=\"outcome\">");
    html.raw(match told.ended {
        ExitCode::Success => "✓ Built",
        ExitCode::Timeout => "✕ Out of time",
        ExitCode::Interrupted | ExitCode::Terminated => "✕ Interrupted",
        _ => "✕ Failed",
    });
    html.raw("</p><h1>")
        .text(&told.title())
        .raw("</h1><dl class=\"facts\">");
    facts(&mut html, told);
    html.raw("</dl>");
    identity(&mut html, told);
    html.raw("</header>");
    errors(&mut html, told);
    hints(&mut html, told);
    html
}

fn facts(html: &mut Html, told: &Told<'_>) {
    let mut fact = |name: &'static str, value: &str| {
        html.raw("<div><dt>")
            .raw(name)
            .raw("</dt><dd>")
            .text(value)
            .raw("</dd></div>");
    };
    fact("time", &seconds(told.elapsed));
    let (steps, cached) = told.steps();
    fact("steps", &steps.to_string());
    fact("from the cache", &cached.to_string());
    if told.ended != ExitCode::Success {
        let failed = told
            .story
            .shown()
            .filter(|(_, row)| row.state == State::Failed);
        fact("failed", &failed.count().to_string());
        fact("exit code", &(told.ended as u8).to_string());
    }
    let images = told
        .story
        .summary
        .iter()
        .flat_map(|summary| &summary.images);
    for image in images.take(1) {
        if let Some(bytes) = image.unpacked_size {
            fact("files", &size(bytes));
        }
        if let Some(bytes) = image.blob_size {
            fact("as layers", &size(bytes));
        }
    }
}

/// Names and digests, which are long.
fn identity(html: &mut Html, told: &Told<'_>) {
    html.raw("<dl class=\"identity\">");
    let mut line = |name: &'static str, value: &str| {
        html.raw("<div><dt>")
            .raw(name)
            .raw("</dt><dd><code>")
            .text(value)
            .raw("</code></dd></div>");
    };
    if let Some(summary) = &told.story.summary {
        for image in &summary.images {
            let name = match summary.images.len() {
                1 => "digest".to_owned(),
                _ => image.platform.to_string(),
            };
            if let Some(manifest) = &image.manifest {
                match summary.images.len() {
                    1 => line("digest", &manifest.digest.to_string()),
                    _ => line("digest", &format!("{} {name}", manifest.digest)),
                }
            }
        }
        if let Some(id) = summary.id {
            line("image ID", &id.to_string());
        }
        if let [image] = summary.images.as_slice() {
            line("platform", &image.platform.to_string());
        }
    }
    if let Some(source) = &told.story.source {
        line("Dockerfile", &source.name);
    }
    if let Some((rung, driver, _)) = &told.story.entered {
        line("sandbox", &format!("{rung}, store: {driver}"));
    }
    line("begun", &told.date.to_string());
    html.raw("</dl>");
}

fn errors(html: &mut Html, told: &Told<'_>) {
    let errors = told.story.errors();
    if told.ended == ExitCode::Success {
        return;
    }
    html.raw("<section id=\"error\" class=\"error\"><h2>What went wrong</h2>");
    for error in errors {
        html.raw("<p class=\"message\">")
            .text(&error.message)
            .raw("</p>");
        // What the command printed comes below, in full.
        let place = Diagnostic {
            output: Vec::new(),
            causes: Vec::new(),
            hints: Vec::new(),
            ..error.clone()
        };
        let text = render(&place, told.story.source.as_ref(), Style::Plain);
        let mut lines = text.lines();
        if lines.any(|line| line.trim_start().starts_with("--> ")) {
            let label = error.labels[0].span.start;
            let source = told.story.source.as_ref();
            html.raw("<pre class=\"diagnostic\" tabindex=\"0\">");
            if let Some(source) = source {
                html.text(&source.name)
                    .raw(":")
                    .count(source.line(label))
                    .raw("\n");
            }
            html.text(&lines.collect::<Vec<_>>().join("\n"))
                .raw("</pre>");
        }
        for (word, texts) in [("cause", &error.causes), ("hint", &error.hints)] {
            for text in texts {
                html.raw("<p class=\"aside\"><b>").raw(word).raw("</b> ");
                html.text(text).raw("</p>");
            }
        }
    }
    let failed = told
        .story
        .shown()
        .filter(|(_, row)| row.state == State::Failed);
    for (vertex, row) in failed.filter(|(vertex, row)| !is_task(*vertex) && !row.log.is_empty()) {
        html.raw("<h3>The last lines of ")
            .text(row.short())
            .raw("</h3><pre class=\"log\" tabindex=\"0\">");
        for line in row.log.last(LAST) {
            html.text(line).raw("\n");
        }
        html.raw("</pre><p><a href=\"#s").count(vertex.0 as usize);
        html.raw("\">All that it printed</a></p>");
    }
    html.raw("</section>");
}

fn hints(html: &mut Html, told: &Told<'_>) {
    let summary = told.story.summary.iter();
    let hints: Vec<&String> = summary.flat_map(|summary| &summary.hints).collect();
    let warnings = told.story.diagnostics.iter();
    let warnings: Vec<&Diagnostic> = warnings.filter(|found| !found.is_error()).collect();
    if hints.is_empty() && warnings.is_empty() {
        return;
    }
    html.raw("<section id=\"hints\"><h2>What could be better</h2><ul>");
    for hint in hints {
        html.raw("<li>").text(hint).raw("</li>");
    }
    for warning in warnings {
        html.raw("<li>").text(&warning.message);
        if let (Some(source), Some(label)) = (&told.story.source, warning.labels.first()) {
            html.raw(" <span class=\"muted\">")
                .text(&source.name)
                .raw(":");
            html.count(source.line(label.span.start)).raw("</span>");
        }
        for hint in warning.hints.iter().chain(&warning.causes) {
            html.raw(" <span class=\"muted\">")
                .text(hint)
                .raw("</span>");
        }
        html.raw("</li>");
    }
    html.raw("</ul></section>");
}
