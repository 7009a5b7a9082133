//! `docs/dockerfile.md`: what the suite shows, as tables, and the files of cases written anew where they were blessed.

use std::fmt::Write as _;

use crate::case::Section;
use crate::perform::Blessed;

const INTRODUCTION: &str = include_str!("introduction.md");

/// Returns the page.
pub(crate) fn page(sections: &[&Section]) -> String {
    let cases: usize = sections.iter().map(|section| section.cases.len()).sum();
    let mut page = INTRODUCTION.replace("@CASES@", &cases.to_string());
    for section in sections {
        write!(
            page,
            "\n## {}\n\n| statement | case | supported |\n|---|---|---|\n",
            section.title
        )
        .expect("memory is written to");
        for case in &section.cases {
            let supported = match (&case.unsupported, &case.differs) {
                (Some(why), _) => format!("**no**: {why}"),
                (None, Some(why)) => format!("yes, **differs**: {why}"),
                (None, None) => "yes".to_owned(),
            };
            let row = format!("{} | `{}` | {supported}", cell(&case.statement), case.name);
            writeln!(page, "| {row} |").expect("memory is written to");
        }
    }
    page
}

/// A bar would end the cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

/// Puts new lines in place of old ones.
pub(crate) fn rewritten(text: &str, mut blessed: Blessed) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    // From the last to the first, so that the places of the others stay.
    blessed.sort_by_key(|(at, _)| std::cmp::Reverse(at.start));
    for (at, new) in blessed {
        // A blank line at the end of a case is not of the block.
        lines.splice(at, new);
    }
    lines.join("\n") + "\n"
}
