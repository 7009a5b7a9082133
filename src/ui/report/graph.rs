//! The stages, and what each has of others.

use std::collections::BTreeMap;

use crate::vocab::{ChartStage, Need, VertexId};

use super::super::text::size;
use super::super::width::{cut, width};
use super::html::Html;
use super::page::Told;
use super::story::{State, short};
use super::timeline::seconds;

const NODE: (f64, f64) = (192.0, 76.0);
/// Between ranks, and between stages of one rank.
const GAP: (f64, f64) = (66.0, 20.0);
/// What a line that passes by takes of a rank.
const LANE: f64 = 14.0;
const MARGIN: f64 = 8.0;
/// Columns of text that fit into a node.
const TITLE: usize = 22;
const DETAIL: usize = 27;

/// An edge between stages: how many steps use it, and the first.
type Edges = BTreeMap<(usize, usize, Need), Vec<VertexId>>;

pub(super) fn section(told: &Told<'_>) -> Html {
    let mut html = Html::new();
    let stages = &told.story.chart.stages;
    if stages.is_empty() {
        return html;
    }
    let edges = edges(told);
    html.raw("<section id=\"stages\"><h2>Stages</h2><div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Graph of the stages\">");
    drawing(&mut html, told, &edges);
    html.raw("</div><ul class=\"legend\" aria-label=\"Legend\">");
    for (kind, name) in [
        (Need::Root, "starts from"),
        (Need::Copy, "copies from"),
        (Need::Mount, "mounts"),
    ] {
        html.raw("<li><svg width=\"28\" height=\"12\" aria-hidden=\"true\"><line class=\"");
        html.raw(edge_class(kind))
            .raw("\" x1=\"0\" x2=\"28\" y1=\"6\" y2=\"6\"/></svg> ");
        html.text(name).raw("</li>");
    }
    html.raw("<li><svg width=\"22\" height=\"12\" aria-hidden=\"true\"><rect class=\"swatch\" x=\"1\" y=\"1\" width=\"20\" height=\"10\" rx=\"3\"/></svg> in the image</li></ul>");
    table(&mut html, told, &edges);
    html.raw("</section>");
    html
}

fn edges(told: &Told<'_>) -> Edges {
    let chart = &told.story.chart;
    let mut edges = Edges::new();
    for step in &chart.steps {
        let Some(to) = step.stage else { continue };
        for (need, kind) in &step.needs {
            let from = chart.steps.get(need.0 as usize).and_then(|step| step.stage);
            if let Some(from) = from.filter(|from| *from != to) {
                edges
                    .entry((from, to, *kind))
                    .or_default()
                    .push(step.vertex);
            }
        }
    }
    edges
}

/// A stage, or a place where a line passes a rank.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Item {
    Stage(usize),
    Lane(usize),
}

/// Where everything is.
struct Layout {
    /// Top left corner of each stage.
    stages: Vec<(f64, f64)>,
    /// Points that each edge passes, in the order of the edges.
    bends: Vec<Vec<(f64, f64)>>,
    size: (f64, f64),
}

fn layout(count: usize, edges: &[(usize, usize)]) -> Layout {
    // Stages come after those that they use, so one pass finds the longest ways.
    let mut ranks = vec![0_usize; count];
    for to in 0..count {
        for (from, _) in edges.iter().filter(|(_, end)| *end == to) {
            ranks[to] = ranks[to].max(ranks[*from] + 1);
        }
    }
    let mut columns: Vec<Vec<Item>> =
        vec![Vec::new(); ranks.iter().max().map_or(0, |last| last + 1)];
    for (stage, rank) in ranks.iter().enumerate() {
        columns[*rank].push(Item::Stage(stage));
    }
    for (at, (from, to)) in edges.iter().enumerate() {
        for column in &mut columns[ranks[*from] + 1..ranks[*to]] {
            column.push(Item::Lane(at));
        }
    }
    // Each where the average of what leads to it is.
    for rank in 1..columns.len() {
        let place = |column: &[Item], item: Item| {
            let place = column.iter().position(|known| *known == item);
            place.map(|place| place as f64 / column.len().max(1) as f64)
        };
        let before = columns[rank - 1].clone();
        let weight = |item: &Item| {
            let places: Vec<f64> = match item {
                Item::Lane(edge) => place(&before, Item::Lane(*edge))
                    .or_else(|| place(&before, Item::Stage(edges[*edge].0)))
                    .into_iter()
                    .collect(),
                Item::Stage(stage) => edges
                    .iter()
                    .enumerate()
                    .filter(|(_, (_, to))| to == stage)
                    .filter_map(|(at, (from, _))| {
                        place(&before, Item::Stage(*from))
                            .or_else(|| place(&before, Item::Lane(at)))
                    })
                    .collect(),
            };
            match places.len() {
                0 => 0.5,
                count => places.iter().sum::<f64>() / count as f64,
            }
        };
        columns[rank].sort_by(|a, b| weight(a).total_cmp(&weight(b)));
    }
    let height_of = |item: &Item| match item {
        Item::Stage(_) => NODE.1,
        Item::Lane(_) => LANE,
    };
    let heights: Vec<f64> = columns
        .iter()
        .map(|column| {
            let all: f64 = column.iter().map(height_of).sum();
            all + GAP.1 * column.len().saturating_sub(1) as f64
        })
        .collect();
    let height = heights.iter().copied().fold(0.0, f64::max);
    let mut layout = Layout {
        stages: vec![(0.0, 0.0); count],
        bends: vec![Vec::new(); edges.len()],
        size: (
            columns.len() as f64 * (NODE.0 + GAP.0) - GAP.0 + 2.0 * MARGIN,
            height + 2.0 * MARGIN,
        ),
    };
    for (rank, column) in columns.iter().enumerate() {
        let x = MARGIN + rank as f64 * (NODE.0 + GAP.0);
        let mut y = MARGIN + (height - heights[rank]) / 2.0;
        for item in column {
            match item {
                Item::Stage(stage) => layout.stages[*stage] = (x, y),
                Item::Lane(edge) => {
                    let middle = y + LANE / 2.0;
                    layout.bends[*edge].extend([(x, middle), (x + NODE.0, middle)]);
                }
            }
            y += height_of(item) + GAP.1;
        }
    }
    layout
}

/// Returns where at its side an edge comes to its end, as a part of the height: no two come to one point.
fn port(layout: &Layout, ends: &[(usize, usize)], edge: usize) -> f64 {
    // Where each comes from: the last place that it passes.
    let from = |at: usize| match layout.bends[at].last() {
        Some((_, y)) => *y,
        None => layout.stages[ends[at].0].1,
    };
    let others = (0..ends.len()).filter(|&at| ends[at].1 == ends[edge].1);
    let mut others: Vec<usize> = others.collect();
    others.sort_by(|a, b| from(*a).total_cmp(&from(*b)));
    let place = others.iter().position(|at| *at == edge).unwrap_or(0);
    (place + 1) as f64 / (others.len() + 1) as f64
}

fn drawing(html: &mut Html, told: &Told<'_>, edges: &Edges) {
    let stages = &told.story.chart.stages;
    let ends: Vec<(usize, usize)> = edges.keys().map(|(from, to, _)| (*from, *to)).collect();
    let layout = layout(stages.len(), &ends);
    html.raw("<svg class=\"graph\" width=\"")
        .number(layout.size.0);
    html.raw("\" height=\"").number(layout.size.1);
    html.raw("\" role=\"img\" aria-labelledby=\"graph-title\"><title id=\"graph-title\">What each stage has of others; the list below says the same</title>");
    html.raw("<defs><marker id=\"arrow\" viewBox=\"0 0 8 8\" refX=\"7\" refY=\"4\" markerUnits=\"userSpaceOnUse\" markerWidth=\"10\" markerHeight=\"10\" orient=\"auto\"><path class=\"head\" d=\"M0 0 8 4 0 8Z\"/></marker></defs>");
    for (at, ((from, to, kind), steps)) in edges.iter().enumerate() {
        let (x, y) = layout.stages[*from];
        let start = (x + NODE.0, y + NODE.1 / 2.0);
        let (x, y) = layout.stages[*to];
        let end = (x - 2.0, y + NODE.1 * port(&layout, &ends, at));
        let is_final = stages[*to].is_final && stages[*from].is_final && *kind == Need::Root;
        html.raw("<path class=\"edge ").raw(edge_class(*kind));
        html.raw(if is_final { " final" } else { "" });
        html.raw("\" marker-end=\"url(#arrow)\" d=\"M");
        html.number(start.0).raw(" ").number(start.1);
        let mut last = start;
        for point in layout.bends[at].iter().copied().chain([end]) {
            let half = (point.0 - last.0) / 2.0;
            html.raw("C")
                .number(last.0 + half)
                .raw(" ")
                .number(last.1)
                .raw(" ");
            html.number(point.0 - half)
                .raw(" ")
                .number(point.1)
                .raw(" ");
            html.number(point.0).raw(" ").number(point.1);
            last = point;
        }
        html.raw("\"><title>");
        for (number, step) in steps.iter().take(8).enumerate() {
            html.raw(if number > 0 { "\n" } else { "" });
            html.text(&told.story.chart.steps[step.0 as usize].name);
        }
        html.raw("</title></path>");
    }
    for (at, stage) in stages.iter().enumerate() {
        let (x, y) = layout.stages[at];
        let facts = facts(told, at);
        html.raw("<g class=\"node")
            .raw(if stage.is_base { " base" } else { "" });
        html.raw(if stage.is_final { " final" } else { "" });
        html.raw(if facts.failed > 0 { " failed" } else { "" });
        html.raw("\"><title>")
            .text(&stage.name)
            .raw("\n")
            .text(&facts.text(stage));
        html.raw("</title><rect x=\"")
            .number(x)
            .raw("\" y=\"")
            .number(y);
        html.raw("\" width=\"")
            .number(NODE.0)
            .raw("\" height=\"")
            .number(NODE.1)
            .raw("\" rx=\"8\"/>");
        html.raw("<text class=\"title\" x=\"")
            .number(x + 12.0)
            .raw("\" y=\"")
            .number(y + 25.0);
        html.raw("\">")
            .text(&shortened(&stage.name, TITLE))
            .raw("</text>");
        for (number, line) in facts.lines(stage).iter().enumerate() {
            html.raw("<text class=\"detail\" x=\"")
                .number(x + 12.0)
                .raw("\" y=\"")
                .number(y + 44.0 + 17.0 * number as f64)
                .raw("\">");
            html.text(&cut(line, DETAIL)).raw("</text>");
        }
        html.raw("</g>");
    }
    html.raw("</svg>");
}

/// Cuts in the middle: the end of a reference tells as much as its beginning.
fn shortened(name: &str, columns: usize) -> String {
    let name: String = name.chars().filter(|c| !c.is_control()).collect();
    if width(&name) <= columns {
        return name;
    }
    let mut tail: String = name.chars().rev().take(columns / 2 - 1).collect();
    tail = tail.chars().rev().collect();
    let tail = cut(&tail, columns / 2);
    format!("{}{tail}", cut(&name, columns - width(&tail)))
}

/// What a stage came to.
#[derive(Default)]
struct Facts {
    steps: usize,
    cached: usize,
    failed: usize,
    seconds: f64,
    bytes: Option<u64>,
}

fn facts(told: &Told<'_>, stage: usize) -> Facts {
    let mut facts = Facts::default();
    let steps = told.story.chart.steps.iter();
    for step in steps.filter(|step| step.stage == Some(stage)) {
        let Some(row) = told.story.rows.get(&step.vertex) else {
            continue;
        };
        facts.steps += 1;
        facts.cached += usize::from(row.state == State::Cached);
        facts.failed += usize::from(row.state == State::Failed);
        facts.seconds += row.took(told.elapsed).unwrap_or(0.0);
    }
    let name = &told.story.chart.stages[stage].name;
    let summary = told.story.summary.iter();
    let mut stages = summary
        .flat_map(|summary| &summary.images)
        .flat_map(|image| &image.stages);
    facts.bytes = stages
        .find(|(known, _)| {
            name == known
                || name.ends_with(&format!(" {known}"))
                || *name == format!("stage-{known}")
        })
        .map(|(_, bytes)| *bytes);
    facts
}

impl Facts {
    fn text(&self, stage: &ChartStage) -> String {
        self.lines(stage).join(", ")
    }

    /// Returns how much there was to do, and what it took.
    fn lines(&self, stage: &ChartStage) -> Vec<String> {
        let mut count = match (stage.is_base, self.steps) {
            (true, _) => "base image".to_owned(),
            (false, 1) => "1 step".to_owned(),
            (false, steps) => format!("{steps} steps"),
        };
        match self.cached {
            0 => {}
            cached if cached == self.steps => count.push_str(", all cached"),
            cached => count.push_str(&format!(", {cached} cached")),
        }
        let mut measures = Vec::new();
        if self.seconds > 0.0 {
            measures.push(match stage.is_base {
                true => format!("unpacked in {}", seconds(self.seconds)),
                false => seconds(self.seconds),
            });
        }
        measures.extend(self.bytes.map(|bytes| format!("{} of files", size(bytes))));
        let measures = (!measures.is_empty()).then(|| measures.join(", "));
        std::iter::once(count).chain(measures).collect()
    }
}

/// Says the same in words.
fn table(html: &mut Html, told: &Told<'_>, edges: &Edges) {
    let stages = &told.story.chart.stages;
    html.raw("<details class=\"more\"><summary>The stages in words</summary><ul>");
    for (at, stage) in stages.iter().enumerate() {
        html.raw("<li><b>")
            .text(&stage.name)
            .raw("</b>: ")
            .text(&facts(told, at).text(stage));
        html.raw(if stage.is_final { "; in the image" } else { "" });
        for ((from, _, kind), steps) in edges.iter().filter(|((_, to, _), _)| *to == at) {
            html.raw(match kind {
                Need::Root => "; starts from ",
                Need::Copy => "; copies from ",
                Need::Mount => "; mounts ",
            });
            html.text(&stages[*from].name);
            if *kind != Need::Root {
                html.raw(" (");
                let names = steps
                    .iter()
                    .take(8)
                    .map(|step| short(&told.story.chart.steps[step.0 as usize].name));
                html.text(&names.collect::<Vec<_>>().join(", ")).raw(")");
            }
        }
        html.raw("</li>");
    }
    html.raw("</ul></details>");
}

fn edge_class(kind: Need) -> &'static str {
    match kind {
        Need::Root => "root",
        Need::Copy => "copy",
        Need::Mount => "mount",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_stand_behind_what_they_use_and_none_on_another() {
        let edges = [(0, 1), (0, 2), (1, 3), (2, 3), (0, 3)];
        let layout = layout(4, &edges);
        for (from, to) in edges {
            assert!(layout.stages[from].0 < layout.stages[to].0);
        }
        for a in 0..4 {
            for b in 0..a {
                let (a, b) = (layout.stages[a], layout.stages[b]);
                assert!((a.0 - b.0).abs() >= NODE.0 || (a.1 - b.1).abs() >= NODE.1);
            }
        }
        assert_eq!(layout.bends[4].len(), 2, "the long one passes a rank");
    }

    #[test]
    fn long_names_keep_both_ends() {
        let name = "registry.example.com/team/project/app-base-image:12.5-slim";
        let shown = shortened(name, TITLE);
        assert!(width(&shown) <= TITLE, "{shown}");
        assert!(
            shown.starts_with("registry") && shown.ends_with("12.5-slim"),
            "{shown}"
        );
        assert_eq!(shortened("build", TITLE), "build");
    }
}
