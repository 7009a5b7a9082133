//! Layers, their directories and their large files as areas.
//!
//! Drawn twice, for wide windows and for narrow ones: an area that is good to look at in one is a stripe in the other.

use crate::vocab::{Contents, SizeNode};

use super::super::text::size;
use super::super::width::cut;
use super::html::Html;
use super::story::instruction;

/// Shapes: a class, the width that is drawn for, and the height.
const SHAPES: [(&str, f64, f64); 2] = [("map wide", 1060.0, 480.0), ("map narrow", 350.0, 560.0)];
/// Colours, which begin anew after the last.
const COLOURS: [&str; 8] = ["k0", "k1", "k2", "k3", "k4", "k5", "k6", "k7"];
/// Of an area's name.
const HEADER: f64 = 19.0;
const PADDING: f64 = 3.0;
/// Smaller areas have no parts of their own.
const PARTED: (f64, f64) = (56.0, 44.0);
/// Of a letter.
const LETTER: f64 = 7.3;
const DEPTH: usize = 4;

#[derive(Clone, Copy)]
struct Area {
    x: f64,
    y: f64,
    width: f64,
    height: f64,
}

pub(super) fn maps(html: &mut Html, contents: &Contents) {
    for (class, width, height) in SHAPES {
        html.raw("<svg class=\"")
            .raw(class)
            .raw("\" width=\"100%\" height=\"")
            .number(height);
        html.raw("\" role=\"img\" aria-label=\"Sizes of layers, directories and files; the lists below say the same\">");
        let whole = Area {
            x: 0.0,
            y: 0.0,
            width,
            height,
        };
        let sizes: Vec<u64> = contents
            .layers
            .iter()
            .map(|layer| layer.tree.bytes)
            .collect();
        let mut order: Vec<usize> = (0..sizes.len()).collect();
        order.sort_by_key(|at| std::cmp::Reverse(sizes[*at]));
        let sorted: Vec<u64> = order.iter().map(|at| sizes[*at]).collect();
        for (at, area) in order.into_iter().zip(squarified(&sorted, whole)) {
            let layer = &contents.layers[at];
            let mut map = Map {
                html,
                width,
                colour: COLOURS[at % COLOURS.len()],
                path: Vec::new(),
            };
            map.node(&layer.tree, &instruction(&layer.made_by), area, 0);
        }
        html.raw("</svg>");
    }
}

/// Returns the colour of a layer, as a class.
pub(super) fn colour(layer: usize) -> &'static str {
    COLOURS[layer % COLOURS.len()]
}

struct Map<'a> {
    html: &'a mut Html,
    width: f64,
    colour: &'static str,
    path: Vec<String>,
}

impl Map<'_> {
    fn node(&mut self, node: &SizeNode, name: &str, area: Area, depth: usize) {
        if area.width < 1.5 || area.height < 1.5 {
            return;
        }
        let has_parts = !node.children.is_empty()
            && depth < DEPTH
            && area.width > PARTED.0
            && area.height > PARTED.1;
        self.cell(node, name, area, depth, has_parts);
        if !has_parts {
            return;
        }
        let inner = Area {
            x: area.x + PADDING,
            y: area.y + HEADER,
            width: area.width - 2.0 * PADDING,
            height: area.height - HEADER - PADDING,
        };
        let sizes: Vec<u64> = node.children.iter().map(|child| child.bytes).collect();
        for (child, area) in node.children.iter().zip(squarified(&sizes, inner)) {
            let name = match child.name.as_str() {
                "" => "the rest",
                name => name,
            };
            self.path.push(name.to_owned());
            self.node(child, name, area, depth + 1);
            self.path.pop();
        }
    }

    fn cell(&mut self, node: &SizeNode, name: &str, area: Area, depth: usize, has_parts: bool) {
        let html = &mut *self.html;
        html.raw("<svg class=\"cell ").raw(self.colour);
        html.raw(match depth {
            0 => " d0",
            1 => " d1",
            2 => " d2",
            _ => " d3",
        });
        html.raw("\" x=\"")
            .percent(area.x / self.width)
            .raw("\" y=\"")
            .number(area.y);
        html.raw("\" width=\"")
            .percent((area.width - 1.0) / self.width);
        html.raw("\" height=\"")
            .number(area.height - 1.0)
            .raw("\"><title>");
        match self.path.is_empty() {
            true => html.text(name),
            false => html.raw("/").text(&self.path.join("/")),
        };
        html.raw("\n").text(&size(node.bytes));
        html.raw("</title><rect width=\"100%\" height=\"100%\" rx=\"3\"/>");
        let columns = ((area.width - 8.0) / LETTER).max(0.0) as usize;
        if columns >= 4 && area.height >= 17.0 {
            let sized = format!("{name} {}", size(node.bytes));
            let fits = sized.chars().count() <= columns;
            let label = match fits {
                true => sized,
                false => cut(name, columns),
            };
            html.raw("<text x=\"5\" y=\"14\"").raw(if has_parts {
                " class=\"parted\">"
            } else {
                ">"
            });
            html.text(&label).raw("</text>");
            if !has_parts && !fits && area.height >= 34.0 && columns >= 7 {
                html.raw("<text x=\"5\" y=\"29\" class=\"muted\">");
                html.text(&size(node.bytes)).raw("</text>");
            }
        }
        html.raw("</svg>");
    }
}

/// Divides an area by sizes, which begin with the largest, into parts that are as square as may be.
fn squarified(sizes: &[u64], area: Area) -> Vec<Area> {
    let total: f64 = sizes.iter().map(|size| *size as f64).sum();
    let mut areas = Vec::with_capacity(sizes.len());
    if total <= 0.0 || area.width <= 0.0 || area.height <= 0.0 {
        return vec![
            Area {
                width: 0.0,
                height: 0.0,
                ..area
            };
            sizes.len()
        ];
    }
    let scale = area.width * area.height / total;
    let wanted: Vec<f64> = sizes.iter().map(|size| *size as f64 * scale).collect();
    let mut rest = area;
    let mut at = 0;
    while at < wanted.len() {
        let side = rest.width.min(rest.height).max(0.001);
        let mut end = at + 1;
        let mut worst = worst_of(&wanted[at..end], side);
        while end < wanted.len() {
            let next = worst_of(&wanted[at..=end], side);
            if next > worst {
                break;
            }
            worst = next;
            end += 1;
        }
        let row: f64 = wanted[at..end].iter().sum();
        let thick = row / side;
        let mut along = 0.0;
        for part in &wanted[at..end] {
            let long = match thick {
                0.0 => 0.0,
                thick => part / thick,
            };
            areas.push(match rest.width >= rest.height {
                true => Area {
                    x: rest.x,
                    y: rest.y + along,
                    width: thick,
                    height: long,
                },
                false => Area {
                    x: rest.x + along,
                    y: rest.y,
                    width: long,
                    height: thick,
                },
            });
            along += long;
        }
        match rest.width >= rest.height {
            true => {
                rest.x += thick;
                rest.width = (rest.width - thick).max(0.0);
            }
            false => {
                rest.y += thick;
                rest.height = (rest.height - thick).max(0.0);
            }
        }
        at = end;
    }
    areas
}

/// Returns how far from a square the worst part of a row is.
fn worst_of(row: &[f64], side: f64) -> f64 {
    let sum: f64 = row.iter().sum();
    let (least, most) = row.iter().fold((f64::MAX, 0.0_f64), |(least, most), part| {
        (least.min(*part), most.max(*part))
    });
    match least > 0.0 {
        true => (side * side * most / (sum * sum)).max(sum * sum / (side * side * least)),
        false => f64::MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_fill_the_area_by_their_sizes() {
        let area = Area {
            x: 10.0,
            y: 20.0,
            width: 600.0,
            height: 400.0,
        };
        let sizes = [600, 600, 400, 300, 200, 200, 100, 0];
        let parts = squarified(&sizes, area);
        assert_eq!(parts.len(), sizes.len());
        for (part, size) in parts.iter().zip(sizes) {
            let wanted = 240_000.0 * size as f64 / 2400.0;
            assert!((part.width * part.height - wanted).abs() < 1.0, "{size}");
            assert!(part.x >= 9.99 && part.x + part.width <= 610.01);
            assert!(part.y >= 19.99 && part.y + part.height <= 420.01);
            if size > 0 {
                let ratio = (part.width / part.height).max(part.height / part.width);
                assert!(ratio < 3.0, "{size}: {ratio}");
            }
        }
        assert!(
            squarified(&[0, 0], area)
                .iter()
                .all(|part| part.width == 0.0)
        );
        assert!(squarified(&[], area).is_empty());
    }
}
