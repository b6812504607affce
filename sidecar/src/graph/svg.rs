//! The picture itself: a column for each layer, a box for each thing, in the order in which they are reached.

use super::{Graph, LAYERS, entities};

const TITLES: [&str; LAYERS] = ["listeners", "hosts", "routes", "clusters", "endpoints"];

/// Of a letter of the monospaced font at this size.
const LETTER: usize = 8;
const BOX_HEIGHT: usize = 24;
const ROW: usize = 34;
const GAP: usize = 90;
const MARGIN: usize = 20;
const TOP: usize = 50;

/// The whole document.
pub(super) fn draw(graph: &Graph) -> String {
    let (places, widths) = (places(graph), widths(graph));
    let width = MARGIN + widths.iter().filter(|width| **width > 0).map(|width| width + GAP).sum::<usize>();
    let height = TOP + ROW * rows(graph).into_iter().max().unwrap_or_default() + MARGIN;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"monospace\" font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    for (layer, title) in TITLES.iter().enumerate() {
        if let Some(at) = graph.nodes.iter().position(|node| node.layer == layer) {
            let x = places.get(at).map_or(0, |(x, _)| *x);
            svg.push_str(&format!("<text x=\"{x}\" y=\"28\" fill=\"#666\">{title}</text>\n"));
        }
    }
    for (from, to, share) in &graph.edges {
        svg.push_str(&edge(graph, &places, &widths, (*from, *to), share));
    }
    for (node, (x, y)) in graph.nodes.iter().zip(&places) {
        let width = widths.get(node.layer).copied().unwrap_or_default();
        svg.push_str(&format!(
            "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{BOX_HEIGHT}\" rx=\"4\" fill=\"#eef4fb\" stroke=\"#4a7ab0\"/>\n\
             <text x=\"{}\" y=\"{}\">{}</text>\n",
            x + LETTER,
            y + 16,
            entities(&node.label)
        ));
    }
    svg + "</svg>"
}

/// The upper left corner of each node.
pub(super) fn places(graph: &Graph) -> Vec<(usize, usize)> {
    let widths = widths(graph);
    let mut taken = [0_usize; LAYERS];
    let place = |node: &super::Node| {
        let before = widths.iter().take(node.layer).filter(|width| **width > 0);
        let x = MARGIN + before.map(|width| width + GAP).sum::<usize>();
        let row = taken.get_mut(node.layer).map_or(0, |row| std::mem::replace(row, *row + 1));
        (x, TOP + row * ROW)
    };
    graph.nodes.iter().map(place).collect()
}

fn widths(graph: &Graph) -> [usize; LAYERS] {
    let mut widths = [0; LAYERS];
    for node in &graph.nodes {
        if let Some(width) = widths.get_mut(node.layer) {
            *width = (node.label.chars().count() * LETTER + 2 * LETTER).max(*width);
        }
    }
    widths
}

fn rows(graph: &Graph) -> [usize; LAYERS] {
    let mut rows = [0; LAYERS];
    for node in &graph.nodes {
        if let Some(row) = rows.get_mut(node.layer) {
            *row += 1;
        }
    }
    rows
}

fn edge(
    graph: &Graph,
    places: &[(usize, usize)],
    widths: &[usize; LAYERS],
    (from, to): (usize, usize),
    share: &str,
) -> String {
    let (Some((x, y)), Some((to_x, to_y))) = (places.get(from), places.get(to)) else { return String::new() };
    let layer = graph.nodes.get(from).map_or(0, |node| node.layer);
    let (x, y) = (x + widths.get(layer).copied().unwrap_or_default(), y + BOX_HEIGHT / 2);
    let to_y = to_y + BOX_HEIGHT / 2;
    let middle = x.midpoint(*to_x);
    let label = if share.is_empty() {
        String::new()
    } else {
        let at = (middle, y.midpoint(to_y).saturating_sub(4));
        format!(
            "<text x=\"{}\" y=\"{}\" fill=\"#666\" text-anchor=\"middle\">{}</text>\n",
            at.0,
            at.1,
            entities(share)
        )
    };
    format!(
        "<path d=\"M{x} {y} C{middle} {y} {middle} {to_y} {to_x} {to_y}\" fill=\"none\" stroke=\"#999\"/>\n{label}"
    )
}
