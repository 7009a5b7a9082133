//! What the images are made of: layers, directories, what ships for nothing, what the other stages came to.

use crate::vocab::{Contents, SummaryImage};

use super::super::text::size;
use super::html::Html;
use super::map;
use super::page::Told;
use super::story::instruction;

/// Rows of a list; the rest is told by its number.
const MOST: usize = 30;

pub(super) fn section(told: &Told<'_>) -> Html {
    let mut html = Html::new();
    let Some(summary) = &told.story.summary else {
        return html;
    };
    let is_one_of_many = summary.images.len() > 1;
    let images = summary.images.iter().filter(|image| {
        image.unpacked_size.is_some() || image.contents.is_some() || !image.layers.is_empty()
    });
    let images: Vec<&SummaryImage> = images.collect();
    if images.is_empty() {
        return html;
    }
    html.raw("<section id=\"size\"><h2>Size</h2>");
    for image in images {
        if is_one_of_many {
            html.raw("<h3>")
                .text(&image.platform.to_string())
                .raw("</h3>");
        }
        lead(&mut html, image);
        if let Some(contents) = &image.contents {
            if contents.layers.is_empty() {
                html.raw("<p class=\"empty\">The image has no files that are known here.</p>");
            } else {
                map::maps(&mut html, contents);
            }
            html.raw("<div class=\"two\">");
            layers(&mut html, told, contents);
            directories(&mut html, contents);
            html.raw("</div>");
            covered(&mut html, contents);
            if contents.unread > 0 {
                html.raw("<p class=\"muted\">Without ")
                    .count(contents.unread);
                html.raw(
                    " layers whose files are not on this machine: nothing here needed them.</p>",
                );
            }
        }
        stages(&mut html, image);
    }
    html.raw("</section>");
    html
}

fn lead(html: &mut Html, image: &SummaryImage) {
    html.raw("<p class=\"lead\">");
    if let Some(bytes) = image.unpacked_size {
        html.raw("<b>").text(&size(bytes)).raw("</b> of files");
    }
    if let Some(bytes) = image.blob_size {
        html.raw(if image.unpacked_size.is_some() {
            ", "
        } else {
            ""
        });
        html.raw("<b>").text(&size(bytes)).raw("</b> as layers");
    }
    if let Some(contents) = &image.contents {
        html.raw(", ")
            .count(usize::try_from(contents.files).unwrap_or(usize::MAX));
        html.raw(" files in the image");
    }
    html.raw(".</p>");
}

fn layers(html: &mut Html, told: &Told<'_>, contents: &Contents) {
    if contents.layers.is_empty() {
        return;
    }
    let most = contents.layers.iter().map(|layer| layer.tree.bytes).max();
    let most = most.unwrap_or(0).max(1) as f64;
    html.raw("<div><h3>Layers</h3><table class=\"sizes\"><thead><tr><th>Step</th><th class=\"n\">Files</th></tr></thead><tbody>");
    for (at, layer) in contents.layers.iter().enumerate().take(MOST) {
        html.raw("<tr><td>");
        // A base that was there already is no step of the page.
        match told.story.shown().any(|(vertex, _)| vertex == layer.vertex) {
            true => html
                .raw("<a href=\"#s")
                .count(layer.vertex.0 as usize)
                .raw("\">"),
            false => html.raw("<a>"),
        };
        html.text(&instruction(&layer.made_by)).raw("</a>");
        share(html, map::colour(at), layer.tree.bytes as f64 / most);
        html.raw("</td><td class=\"n\">")
            .text(&size(layer.tree.bytes))
            .raw("</td></tr>");
    }
    html.raw("</tbody></table>");
    more(html, contents.layers.len(), "layers");
    html.raw("</div>");
}

fn directories(html: &mut Html, contents: &Contents) {
    let Some((_, most)) = contents.directories.first() else {
        return;
    };
    html.raw("<div><h3>Directories of the image</h3><table class=\"sizes\"><thead><tr><th>Directory</th><th class=\"n\">Files</th></tr></thead><tbody>");
    for (path, bytes) in &contents.directories {
        html.raw("<tr><td><code>").text(path).raw("</code>");
        share(html, "plain", *bytes as f64 / (*most).max(1) as f64);
        html.raw("</td><td class=\"n\">")
            .text(&size(*bytes))
            .raw("</td></tr>");
    }
    html.raw("</tbody></table></div>");
}

/// Draws a bar below a name.
fn share(html: &mut Html, class: &'static str, part: f64) {
    html.raw("<svg class=\"share ").raw(class);
    html.raw("\" width=\"100%\" height=\"6\" aria-hidden=\"true\"><rect width=\"");
    html.percent(part.max(0.004))
        .raw("\" height=\"6\" rx=\"2\"/></svg>");
}

fn covered(html: &mut Html, contents: &Contents) {
    let all: u64 = contents.covered.iter().map(|covered| covered.bytes).sum();
    if all == 0 {
        return;
    }
    html.raw("<h3>Ships for nothing: ")
        .text(&size(all))
        .raw("</h3>");
    html.raw("<p class=\"muted\">Files of a layer that a later one deletes or writes anew. They are in the image's blobs and not in its files.</p>");
    html.raw("<table class=\"sizes stacked\"><thead><tr><th>Files</th><th>Layer of</th><th>Hidden by</th><th class=\"n\">Bytes</th></tr></thead><tbody>");
    for covered in contents.covered.iter().take(MOST) {
        html.raw("<tr><td data-name=\"Files\"><code>")
            .text(&covered.path)
            .raw("</code>");
        if covered.files > 1 {
            html.raw(" <span class=\"muted\">")
                .count(usize::try_from(covered.files).unwrap_or(usize::MAX));
            html.raw(" files</span>");
        }
        html.raw("</td><td data-name=\"Layer of\">")
            .text(&instruction(&covered.made_by));
        html.raw("</td><td data-name=\"Hidden by\">");
        html.raw(if covered.is_deleted {
            "deleted: "
        } else {
            "written anew: "
        });
        html.text(&instruction(&covered.by))
            .raw("</td><td class=\"n\">");
        html.text(&size(covered.bytes)).raw("</td></tr>");
    }
    html.raw("</tbody></table>");
    more(html, contents.covered.len(), "pairs of steps");
}

fn stages(html: &mut Html, image: &SummaryImage) {
    if image.stages.is_empty() {
        return;
    }
    html.raw("<h3>Image and other stages</h3><table class=\"sizes\"><thead><tr><th>Stage</th><th class=\"n\">Files</th></tr></thead><tbody>");
    let own = image.unpacked_size.unwrap_or(0);
    let most = image.stages.iter().map(|(_, bytes)| *bytes).max();
    let most = most.unwrap_or(0).max(own).max(1) as f64;
    let mut row = |name: &str, bytes: u64| {
        html.raw("<tr><td>").text(name);
        share(html, "plain", bytes as f64 / most);
        html.raw("</td><td class=\"n\">")
            .text(&size(bytes))
            .raw("</td></tr>");
    };
    if image.unpacked_size.is_some() {
        row("the image", own);
    }
    for (name, bytes) in &image.stages {
        row(name, *bytes);
    }
    html.raw("</tbody></table>");
}

fn more(html: &mut Html, all: usize, what: &'static str) {
    if all > MOST {
        html.raw("<p class=\"muted\">and ")
            .count(all - MOST)
            .raw(" more ")
            .raw(what)
            .raw("</p>");
    }
}
