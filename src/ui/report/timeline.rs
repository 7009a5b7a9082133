//! When what happened: a bar for each step, and one line for each thread.

use crate::vocab::VertexId;

use super::super::text::elapsed;
use super::html::Html;
use super::page::Told;
use super::story::{Row, State, brief, is_task};

/// Marks of the time axis at most.
const TICKS: f64 = 6.0;
/// Of the chain that the time depended on, so many are named.
const LONGEST: usize = 5;
/// Something that begins within this many seconds after another thing's end has waited for it.
const AT_ONCE: f64 = 0.05;
/// A wait that is shorter is not drawn, as a part of the whole.
const SEEN: f64 = 0.004;

pub(super) fn section(told: &Told<'_>) -> Html {
    let mut html = Html::new();
    let mut rows: Vec<(VertexId, &Row)> = told
        .story
        .shown()
        .filter(|(_, row)| row.started.is_some() && row.state != State::Cached)
        .collect();
    rows.sort_by(|(_, a), (_, b)| {
        a.started
            .unwrap_or(0.0)
            .total_cmp(&b.started.unwrap_or(0.0))
    });
    html.raw("<section id=\"timeline\"><h2>Timeline</h2>");
    if rows.is_empty() {
        html.raw("<p class=\"empty\">Nothing had to be executed.</p></section>");
        return html;
    }
    let end = rows
        .iter()
        .flat_map(|(_, row)| [row.ended, row.packing.map(|(_, end)| end)])
        .flatten()
        .fold(told.elapsed, f64::max)
        .max(0.001);
    let scale = Scale::new(end);
    let critical = critical(told, &rows);
    lead(&mut html, told, &critical);
    html.raw("<div class=\"rows\"><div class=\"row axis\" aria-hidden=\"true\"><span class=\"label\"></span>");
    scale.axis(&mut html);
    html.raw("<span class=\"took\"></span></div><ol>");
    for (vertex, row) in &rows {
        // A mark that all have says nothing.
        let is_critical = critical.len() < rows.len() && critical.contains(vertex);
        html.raw("<li class=\"row");
        html.raw(if is_critical { " critical" } else { "" });
        html.raw(class(*vertex, row));
        html.raw("\"><a class=\"label\" href=\"#s")
            .count(vertex.0 as usize);
        html.raw("\" title=\"").text(&row.name).raw("\">");
        html.text(&brief(&row.name)).raw("</a>");
        bar(&mut html, told, *vertex, row, &scale);
        html.raw("<span class=\"took\">");
        html.text(&seconds(row.took(told.elapsed).unwrap_or(0.0)));
        html.raw("</span></li>");
    }
    html.raw("</ol></div>");
    legend(&mut html);
    threads(&mut html, told, &rows, &scale);
    html.raw("</section>");
    html
}

fn lead(html: &mut Html, told: &Told<'_>, critical: &[VertexId]) {
    if critical.len() < 2 {
        return;
    }
    let rows = critical
        .iter()
        .filter_map(|vertex| told.story.rows.get(vertex));
    let took: f64 = rows.clone().filter_map(|row| row.took(told.elapsed)).sum();
    html.raw("<p class=\"lead\">What the time depended on, ")
        .text(&seconds(took))
        .raw(" of ");
    html.text(&seconds(told.elapsed)).raw(": ");
    // Of a long chain, what took longest.
    let mut longest: Vec<(f64, &VertexId)> = critical
        .iter()
        .filter_map(|vertex| Some((told.story.rows.get(vertex)?.took(told.elapsed)?, vertex)))
        .collect();
    longest.sort_by(|a, b| b.0.total_cmp(&a.0));
    longest.truncate(LONGEST);
    longest.retain(|(took, _)| *took > told.elapsed / 100.0);
    let mut first = true;
    for vertex in critical {
        let Some((took, _)) = longest.iter().find(|(_, known)| *known == vertex) else {
            continue;
        };
        html.raw(if first { "" } else { " → " });
        first = false;
        html.raw("<a href=\"#s").count(vertex.0 as usize).raw("\">");
        html.text(told.story.rows[vertex].short())
            .raw("</a> <span class=\"muted\">");
        html.text(&seconds(*took)).raw("</span>");
    }
    html.raw(".</p>");
}

/// Draws when a step waited, ran, and was packed.
fn bar(html: &mut Html, told: &Told<'_>, vertex: VertexId, row: &Row, scale: &Scale) {
    let started = row.started.unwrap_or(0.0);
    let ended = row.ended.unwrap_or(told.elapsed).max(started);
    html.raw("<svg class=\"track\" width=\"100%\" height=\"26\" role=\"img\"><title>");
    html.text(&row.name)
        .raw(": ")
        .text(&seconds(started))
        .raw(" to ")
        .text(&seconds(ended));
    let ready = told.story.ready(vertex);
    if let Some((need, at)) = ready {
        html.raw(", ready at ").text(&seconds(at)).raw(" after ");
        html.text(told.story.rows[&need].short());
    }
    if let Some((from, to)) = row.packing {
        html.raw(", layer packed from ")
            .text(&seconds(from))
            .raw(" to ")
            .text(&seconds(to));
    }
    html.raw("</title>");
    scale.grid(html, "100%");
    if let Some((_, ready)) = ready
        && (started - ready) / scale.end > SEEN
    {
        html.raw("<line class=\"wait\" x1=\"")
            .percent(ready / scale.end);
        html.raw("\" x2=\"")
            .percent(started / scale.end)
            .raw("\" y1=\"13\" y2=\"13\"/>");
    }
    rect(html, "bar", started, ended, (6.0, 14.0), scale);
    if let Some((waited, _)) = row.waited {
        rect(html, "held", waited, ended, (6.0, 14.0), scale);
    }
    if let Some((from, to)) = row.packing {
        rect(html, "pack", from, to, (10.0, 6.0), scale);
    }
    html.raw("</svg>");
}

fn rect(html: &mut Html, class: &'static str, from: f64, to: f64, y: (f64, f64), scale: &Scale) {
    let width = ((to - from) / scale.end).max(0.003);
    let x = (from / scale.end).min(1.0 - width);
    html.raw("<rect class=\"")
        .raw(class)
        .raw("\" x=\"")
        .percent(x);
    html.raw("\" y=\"")
        .number(y.0)
        .raw("\" width=\"")
        .percent(width);
    html.raw("\" height=\"").number(y.1).raw("\" rx=\"2\"/>");
}

/// Returns the class of a row's colour.
fn class(vertex: VertexId, row: &Row) -> &'static str {
    match row.state {
        State::Failed => " failed",
        State::Started => " open",
        _ if is_task(vertex) => " task",
        _ => "",
    }
}

fn legend(html: &mut Html) {
    html.raw("<ul class=\"legend\" aria-label=\"Legend\">");
    for (class, name) in [
        ("bar", "step"),
        ("bar task", "around the steps"),
        ("bar failed", "failed"),
        ("bar open", "ended with the build"),
        ("pack", "its layer packed"),
        ("wait", "ready, waiting for a thread"),
    ] {
        html.raw("<li><svg width=\"22\" height=\"12\" aria-hidden=\"true\">");
        match class {
            "wait" => {
                html.raw("<line class=\"wait\" x1=\"0\" x2=\"22\" y1=\"6\" y2=\"6\"/>");
            }
            "pack" => {
                html.raw("<rect class=\"pack\" y=\"3\" width=\"22\" height=\"6\" rx=\"2\"/>");
            }
            _ => {
                html.raw("<rect class=\"").raw(class);
                html.raw("\" width=\"22\" height=\"12\" rx=\"2\"/>");
            }
        }
        html.raw("</svg> ").text(name).raw("</li>");
    }
    html.raw(
        "<li><span class=\"mark\" aria-hidden=\"true\"></span> the time depended on it</li></ul>",
    );
}

/// Draws what each thread did.
fn threads(html: &mut Html, told: &Told<'_>, rows: &[(VertexId, &Row)], scale: &Scale) {
    let lanes: Vec<usize> = (0..told.story.threads.len())
        .filter(|&lane| {
            let is_here = |row: &Row| row.thread == Some(lane) || row.packing_thread == Some(lane);
            rows.iter().any(|(_, row)| is_here(row))
        })
        .collect();
    if lanes.len() < 2 {
        return;
    }
    html.raw("<h3>Threads</h3><div class=\"rows lanes\">");
    for (number, lane) in lanes.iter().enumerate() {
        let mut spans: Vec<(VertexId, &Row, f64, f64, bool)> = Vec::new();
        for &(vertex, row) in rows {
            if row.thread == Some(*lane)
                && let Some(started) = row.started
            {
                let ended = row.ended.unwrap_or(told.elapsed).max(started);
                spans.push((vertex, row, started, ended, false));
            }
            if let (Some((from, to)), true) = (row.packing, row.packing_thread == Some(*lane)) {
                spans.push((vertex, row, from, to, true));
            }
        }
        let busy: f64 = spans.iter().map(|(_, _, from, to, _)| to - from).sum();
        html.raw("<div class=\"row\"><span class=\"label\">thread ")
            .count(number + 1);
        html.raw(
            "</span><svg class=\"track\" width=\"100%\" height=\"26\" role=\"img\"><title>thread ",
        );
        html.count(number + 1).raw("</title>");
        scale.grid(html, "100%");
        for (vertex, row, from, to, is_packing) in spans {
            let width = ((to - from) / scale.end).max(0.002);
            html.raw("<svg class=\"cell").raw(class(vertex, row));
            html.raw("\" x=\"")
                .percent((from / scale.end).min(1.0 - width));
            html.raw("\" y=\"2\" width=\"")
                .percent(width)
                .raw("\" height=\"22\"><title>");
            html.text(&row.name)
                .raw(if is_packing { ": layer packed, " } else { ": " });
            html.text(&seconds(to - from)).raw("</title><rect class=\"");
            html.raw(if is_packing { "pack" } else { "bar" });
            html.raw("\" width=\"100%\" height=\"22\" rx=\"2\"/>");
            if width > 0.05 {
                html.raw("<text x=\"5\" y=\"15\"");
                html.raw(if is_packing {
                    " class=\"onpack\">"
                } else {
                    ">"
                });
                html.text(row.short()).raw("</text>");
            }
            html.raw("</svg>");
        }
        html.raw("</svg><span class=\"took\">");
        let share = (100.0 * busy / scale.end).min(100.0).round();
        html.number(share).raw(" %</span></div>");
    }
    html.raw("</div>");
}

/// Returns the chain of work that the end of the build waited for, first to last.
fn critical(told: &Told<'_>, rows: &[(VertexId, &Row)]) -> Vec<VertexId> {
    let end_of = |row: &Row| row.ended.unwrap_or(told.elapsed);
    let failed = rows.iter().find(|(_, row)| row.state == State::Failed);
    let last = rows
        .iter()
        .max_by(|(_, a), (_, b)| end_of(a).total_cmp(&end_of(b)));
    let Some(&(mut at, _)) = failed.or(last) else {
        return Vec::new();
    };
    let mut chain = vec![at];
    loop {
        let row = &told.story.rows[&at];
        let started = row.started.unwrap_or(0.0);
        let before = |(vertex, other): &(VertexId, &Row)| {
            let ended = end_of(other);
            (!chain.contains(vertex) && ended <= started + 0.001).then_some((*vertex, ended))
        };
        // What it needs; else what its thread was busy with, or what was over just before.
        let needed = told.story.ready(at).filter(|(vertex, ended)| {
            started - ended < AT_ONCE
                && rows.iter().any(|(known, _)| known == vertex)
                && !chain.contains(vertex)
        });
        let found = needed.or_else(|| {
            let ended = rows.iter().filter_map(before);
            ended.max_by(|a, b| a.1.total_cmp(&b.1))
        });
        match found {
            Some((vertex, _)) => {
                chain.push(vertex);
                at = vertex;
            }
            None => break,
        }
    }
    chain.reverse();
    chain
}

/// The time axis.
struct Scale {
    end: f64,
    step: f64,
}

impl Scale {
    fn new(end: f64) -> Scale {
        let rough = end / TICKS;
        let power = 10_f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0]
            .into_iter()
            .map(|factor| factor * power)
            .find(|step| *step >= rough)
            .unwrap_or(rough);
        // Minutes are not counted in tens of seconds.
        let step = match step {
            step if step > 500.0 => (rough / 600.0).ceil() * 600.0,
            step if step > 50.0 => (rough / 60.0).ceil() * 60.0,
            step if step > 10.0 => (rough / 30.0).ceil() * 30.0,
            step => step,
        };
        Scale { end, step }
    }

    fn ticks(&self) -> impl Iterator<Item = f64> {
        let (end, step) = (self.end, self.step);
        (0_u32..)
            .map(move |number| f64::from(number) * step)
            .take_while(move |at| *at <= end)
    }

    fn axis(&self, html: &mut Html) {
        html.raw("<svg class=\"track\" width=\"100%\" height=\"18\">");
        for at in self.ticks() {
            let is_at_end = at / self.end > 0.93;
            html.raw("<text x=\"")
                .percent(at / self.end)
                .raw("\" y=\"13\" class=\"");
            html.raw(match at {
                0.0 => "start",
                _ if is_at_end => "end",
                _ => "middle",
            });
            html.raw("\">").text(&tick(at, self.step)).raw("</text>");
        }
        html.raw("</svg>");
    }

    fn grid(&self, html: &mut Html, height: &'static str) {
        for at in self.ticks() {
            html.raw("<line class=\"grid\" x1=\"")
                .percent(at / self.end);
            html.raw("\" x2=\"").percent(at / self.end);
            html.raw("\" y1=\"0\" y2=\"").raw(height).raw("\"/>");
        }
    }
}

fn tick(at: f64, step: f64) -> String {
    match at {
        at if at >= 60.0 => format!("{}m{:02}s", (at / 60.0) as u64, (at % 60.0).round() as u64),
        at if step >= 1.0 => format!("{at:.0} s"),
        at if step >= 0.1 => format!("{at:.1} s"),
        at => format!("{:.0} ms", at * 1000.0),
    }
}

/// Returns a time as the other displays have it, but for what is too short for that.
pub(super) fn seconds(seconds: f64) -> String {
    match seconds.max(0.0) {
        seconds if seconds < 0.0995 => format!("{:.0}ms", seconds * 1000.0),
        seconds => elapsed(std::time::Duration::from_secs_f64(seconds)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_axis_has_round_marks() {
        for (end, marks) in [
            (0.09, &["0 ms", "20 ms", "40 ms", "60 ms", "80 ms"][..]),
            (1.0, &["0.0 s", "0.2 s", "0.4 s", "0.6 s", "0.8 s", "1.0 s"]),
            (42.0, &["0 s", "10 s", "20 s", "30 s", "40 s"]),
            (200.0, &["0 s", "60 s"]),
        ] {
            let scale = Scale::new(end);
            let found: Vec<String> = scale.ticks().map(|at| tick(at, scale.step)).collect();
            if end < 100.0 {
                assert_eq!(found, marks, "{end}");
            } else {
                assert!(found.len() <= 8 && found.len() >= 3, "{found:?}");
            }
        }
        assert_eq!(seconds(0.0123), "12ms");
        assert_eq!(seconds(75.0), "1m15s");
    }
}
