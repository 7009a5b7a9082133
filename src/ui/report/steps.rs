//! Every step: where its result is from, or why it was executed, and what it printed.

use crate::vocab::VertexId;

use super::html::Html;
use super::page::Told;
use super::story::{Row, State, brief, instruction, is_task, short};
use super::timeline::seconds;

/// Files of a reason that are named.
const FILES: usize = 200;
/// Of a reason in the headline.
const FIRST_FILES: usize = 2;

pub(super) fn section(told: &Told<'_>) -> Html {
    let mut html = Html::new();
    let (tasks, steps): (Vec<_>, Vec<_>) =
        told.story.shown().partition(|(vertex, _)| is_task(*vertex));
    html.raw("<section id=\"steps\"><h2>Steps</h2>");
    if steps.is_empty() {
        html.raw("<p class=\"empty\">The build has no steps");
        html.raw(if told.story.chart.steps.is_empty() {
            ": it ended before there was a plan.</p>"
        } else {
            ".</p>"
        });
    } else {
        // Shown by the script, without which it could do nothing.
        html.raw("<form class=\"tools\" hidden><label>Filter <input type=\"search\" id=\"filter\" placeholder=\"name, reason or output\"></label><button type=\"button\" id=\"unfold\">Unfold all</button></form>");
    }
    for (vertex, row) in &steps {
        step(&mut html, told, *vertex, row);
    }
    if !tasks.is_empty() {
        html.raw("<h3>Around the steps</h3>");
        for (vertex, row) in &tasks {
            step(&mut html, told, *vertex, row);
        }
    }
    html.raw("</section>");
    html
}

fn step(html: &mut Html, told: &Told<'_>, vertex: VertexId, row: &Row) {
    let is_ended_early = row.state == State::Started && told.story.summary.is_none();
    let (class, word) = match row.state {
        State::Cached => ("cached", "cached"),
        State::Done => ("done", "done"),
        State::Failed => ("failed", "failed"),
        State::Started if is_ended_early => ("failed", "ended"),
        State::Started => ("done", "done"),
        State::Declared => ("unreached", "not reached"),
    };
    html.raw("<details class=\"step ")
        .raw(class)
        .raw("\" id=\"s")
        .count(vertex.0 as usize);
    html.raw(if row.state == State::Failed {
        "\" open>"
    } else {
        "\">"
    });
    html.raw("<summary><span class=\"badge\">")
        .raw(word)
        .raw("</span><span class=\"what\"><span class=\"line\">");
    if !is_task(vertex) && row.name.starts_with('[') {
        html.raw("<span class=\"place\">")
            .text(short(&row.name))
            .raw("</span> ");
    }
    html.raw("<span class=\"name\">")
        .text(&match is_task(vertex) {
            true => brief(&row.name),
            false => instruction(&row.name),
        });
    html.raw("</span></span>");
    if let Some(first) = row.reasons.first() {
        html.raw("<span class=\"why\">")
            .text(&first.text(FIRST_FILES));
        match row.reasons.len() {
            1 => {}
            count => {
                html.raw(" and ").count(count - 1).raw(" more");
            }
        }
        html.raw("</span>");
    }
    html.raw("</span><span class=\"took\">");
    if let Some(took) = row.took(told.elapsed) {
        html.text(&seconds(took));
    }
    html.raw("</span></summary><div class=\"inside\">");
    cause(html, told, vertex, row);
    log(html, row);
    html.raw("</div></details>");
}

/// Says where the result is from.
fn cause(html: &mut Html, told: &Told<'_>, vertex: VertexId, row: &Row) {
    if let Some(message) = &row.message {
        html.raw("<p class=\"message\">").text(message).raw("</p>");
    }
    // What the headline cuts is here in full.
    if row.name.chars().count() > 90 || brief(&row.name) != row.name {
        html.raw("<p class=\"whole\"><code>")
            .text(&row.name)
            .raw("</code></p>");
    }
    match (&row.state, &row.found) {
        (State::Cached, Some((key, created))) => {
            html.raw("<p>From the cache: made ")
                .text(&created.to_string());
            html.raw(", found under key <code>")
                .text(&key.to_string())
                .raw("</code>.</p>");
        }
        (State::Cached, None) => {
            html.raw("<p>From the cache.</p>");
        }
        (State::Declared, _) => {
            html.raw("<p>The build ended before this step.</p>");
        }
        _ => {}
    }
    if !row.reasons.is_empty() {
        html.raw("<p>Not in the cache:</p><ul class=\"reasons\">");
        for reason in &row.reasons {
            html.raw("<li>").text(&reason.text(FILES));
            html.raw("</li>");
        }
        html.raw("</ul>");
    }
    if let Some((_, pid)) = row.waited {
        html.raw("<p>It waited for ");
        match pid {
            Some(pid) => html.raw("process ").count(pid as usize),
            None => html.raw("another build"),
        };
        html.raw(", which computed the same step.</p>");
    }
    if let (Some(started), Some((need, ready))) = (row.started, told.story.ready(vertex)) {
        html.raw("<p class=\"muted\">Ready at ")
            .text(&seconds(ready))
            .raw(", after <a href=\"#s");
        html.count(need.0 as usize)
            .raw("\">")
            .text(told.story.rows[&need].short());
        html.raw("</a>; begun at ")
            .text(&seconds(started))
            .raw(".</p>");
    }
}

fn log(html: &mut Html, row: &Row) {
    if row.log.is_empty() {
        if matches!(row.state, State::Done | State::Failed | State::Started) {
            html.raw("<p class=\"muted\">It printed nothing.</p>");
        }
        return;
    }
    html.raw("<pre class=\"log\" tabindex=\"0\">")
        .text(row.log.head());
    if row.log.dropped > 0 {
        html.raw("</pre><p class=\"cut\">").count(row.log.dropped);
        html.raw(" lines are left out here.</p><pre class=\"log\" tabindex=\"0\">");
    }
    for line in row.log.tail() {
        html.text(line).raw("\n");
    }
    html.raw("</pre>");
}
