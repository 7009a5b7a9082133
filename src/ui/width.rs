//! How many columns text takes on a terminal.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Returns the columns of text without control characters.
pub(super) fn width(text: &str) -> usize {
    UnicodeWidthStr::width(text)
}

/// Returns as much of the beginning as fits, with `…` at the end of what was cut.
pub(super) fn cut(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let Some(room) = columns.checked_sub(1) else {
        return String::new();
    };
    let mut used = 0;
    let mut cut = String::new();
    for c in text.chars() {
        let width = c.width().unwrap_or_default();
        if used + width > room {
            break;
        }
        used += width;
        cut.push(c);
    }
    cut.push('…');
    cut
}

/// Cuts text, or fills it up with blanks, to exactly so many columns.
pub(super) fn fit(text: &str, columns: usize) -> String {
    let mut fitted = cut(text, columns);
    let blanks = columns.saturating_sub(width(&fitted));
    fitted.extend(std::iter::repeat_n(' ', blanks));
    fitted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_characters_and_marks_count_as_they_are_shown() {
        for (text, columns, expected) in [
            ("日本語", 6, "日本語"),
            ("日本語", 5, "日本…"),
            ("日本語", 4, "日…"),
            ("abc", 5, "abc"),
            ("abc", 2, "a…"),
            ("abc", 0, ""),
            ("e\u{301}\u{301}x", 2, "e\u{301}\u{301}x"),
        ] {
            assert_eq!(cut(text, columns), expected);
            assert!(width(&cut(text, columns)) <= columns);
        }
        assert_eq!(fit("日本語", 4), "日… ");
        assert_eq!(fit("a", 3), "a  ");
    }
}
