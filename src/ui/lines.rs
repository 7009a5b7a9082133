//! What commands print, as lines that can do no harm: nothing moves the cursor, nothing looks like another line.
//!
//! Kept are text and, where it is wanted, colours. Carriage returns mean what they mean on a terminal: what follows takes the place
//! of what was there, so that a progress bar is one line.

/// A line that does not end is shown in pieces of this many bytes.
pub(super) const LINE_LIMIT: usize = 64 << 10;
const TAB: usize = 8;

/// Cuts output into lines.
#[derive(Debug, Default)]
pub(super) struct Lines {
    open: Vec<u8>,
    /// The last byte was a carriage return: a line feed may follow, or what takes the line's place.
    returned: bool,
}

/// One line of output, without its end.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) bytes: Vec<u8>,
    /// Something takes its place: it was a state of progress.
    pub(super) is_replaced: bool,
}

impl Lines {
    /// Takes a piece of output; gives the lines that ended with it.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Vec<Line> {
        let mut lines = Vec::new();
        for &byte in bytes {
            match byte {
                b'\n' => {
                    self.returned = false;
                    lines.push(self.take(false));
                }
                b'\r' => self.returned = true,
                _ => {
                    if std::mem::take(&mut self.returned) && !self.open.is_empty() {
                        lines.push(self.take(true));
                    }
                    self.open.push(byte);
                    if self.open.len() >= LINE_LIMIT {
                        lines.push(self.take(false));
                    }
                }
            }
        }
        lines
    }

    /// Gives what has no end.
    pub(super) fn finish(&mut self) -> Option<Line> {
        self.returned = false;
        (!self.open.is_empty()).then(|| self.take(false))
    }

    /// Returns what stands on the open line.
    pub(super) fn open(&self) -> &[u8] {
        &self.open
    }

    fn take(&mut self, is_replaced: bool) -> Line {
        Line {
            bytes: std::mem::take(&mut self.open),
            is_replaced,
        }
    }
}

/// Returns a line without control characters and without sequences other than colours; these only with `colours`.
pub(super) fn clean_line(bytes: &[u8], colours: bool) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut line = String::with_capacity(text.len());
    let mut is_coloured = false;
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match c {
            '\x1b' => match rest.next() {
                Some('[') => sequence(&mut rest, colours, &mut line, &mut is_coloured),
                // Strings for the terminal: titles, links, pictures.
                Some(']' | 'P' | 'X' | '^' | '_') => skip_string(&mut rest),
                Some(' '..='/') => {
                    for c in rest.by_ref() {
                        if !(' '..='/').contains(&c) {
                            break;
                        }
                    }
                }
                _ => {}
            },
            '\u{9b}' => sequence(&mut rest, colours, &mut line, &mut is_coloured),
            '\u{90}' | '\u{98}' | '\u{9d}'..='\u{9f}' => skip_string(&mut rest),
            '\x08' => {
                // The character before it is going to be overwritten.
                if !is_coloured {
                    line.pop();
                }
            }
            c if c != '\t' && c.is_control() || reorders(c) => {}
            c => line.push(c),
        }
    }
    if is_coloured {
        line.push_str("\x1b[0m");
    }
    line
}

/// Returns a clean line as it stands on a terminal: with blanks for tabs.
pub(super) fn without_tabs(line: &str) -> String {
    let mut text = String::with_capacity(line.len());
    let mut column = 0;
    let mut in_colour = false;
    for c in line.chars() {
        if c == '\x1b' || in_colour {
            in_colour = c != 'm';
            text.push(c);
            continue;
        }
        let blanks = match c {
            '\t' => TAB - column % TAB,
            _ => 0,
        };
        text.extend(std::iter::repeat_n(' ', blanks));
        column += blanks.max(1);
        if c != '\t' {
            text.push(c);
        }
    }
    text
}

/// Reads what follows `ESC [`.
fn sequence(
    rest: &mut std::str::Chars<'_>,
    colours: bool,
    line: &mut String,
    is_coloured: &mut bool,
) {
    let mut parameters = String::new();
    for c in rest.by_ref() {
        match c {
            '0'..='9' | ';' | ':' if parameters.len() < 64 => parameters.push(c),
            'm' if colours && !parameters.contains('\0') => {
                line.push_str(&format!("\x1b[{parameters}m"));
                *is_coloured = true;
                return;
            }
            '@'..='~' => return,
            // Something private, which is no colour.
            _ => parameters.push('\0'),
        }
    }
}

fn skip_string(rest: &mut std::str::Chars<'_>) {
    let mut is_escaped = false;
    for c in rest.by_ref() {
        if c == '\x07' || c == '\u{9c}' || (is_escaped && c == '\\') {
            return;
        }
        is_escaped = c == '\x1b';
    }
}

/// Tells characters that change the direction or the order in which others are shown, or that end a line for some.
pub(super) fn reorders(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_text_and_colours_gets_through() {
        for (bytes, plain, coloured) in [
            (&b"text"[..], "text", "text"),
            (
                b"\x1b[31mred\x1b[0m\x07 end",
                "red end",
                "\x1b[31mred\x1b[0m end\x1b[0m",
            ),
            (b"\x1b[2J\x1b[1;1Hforged", "forged", "forged"),
            (b"\x1b[?25lx\x1b[38;5;1my", "xy", "x\x1b[38;5;1my\x1b[0m"),
            (b"\x1b[?1mx", "x", "x"),
            (b"\x1b]0;title\x07a\x1b]8;;http://x\x1b\\b", "ab", "ab"),
            (b"\x1bPq#0\x1b\\a\x1b(Bb\x1bMc", "abc", "abc"),
            ("\u{9b}2Ka\u{9d}t\u{9c}b\u{85}c".as_bytes(), "abc", "abc"),
            (b"a\tb\tc", "a\tb\tc", "a\tb\tc"),
            (b"ab\x08c\0", "ac", "ac"),
            ("a\u{202e}b\u{2028}c".as_bytes(), "abc", "abc"),
            (b"\xff\x1b[31", "\u{fffd}", "\u{fffd}"),
            (b"\x1b]never ends", "", ""),
        ] {
            assert_eq!(clean_line(bytes, false), plain, "{bytes:?}");
            assert_eq!(clean_line(bytes, true), coloured, "{bytes:?}");
        }
    }

    #[test]
    fn tabs_are_blanks_up_to_the_next_eighth_column() {
        assert_eq!(without_tabs("a\tb\t\tc"), "a       b               c");
        assert_eq!(without_tabs("12345678\tx"), "12345678        x");
        assert_eq!(
            without_tabs("\x1b[31ma\tb\x1b[0m"),
            "\x1b[31ma       b\x1b[0m"
        );
    }

    #[test]
    fn a_carriage_return_replaces_the_line() {
        let mut lines = Lines::default();
        let line = |text: &str, is_replaced| Line {
            bytes: text.as_bytes().to_vec(),
            is_replaced,
        };
        assert_eq!(lines.push(b"one\r\ntw"), [line("one", false)]);
        assert_eq!(lines.push(b"o\n10%\r"), [line("two", false)]);
        assert_eq!(
            lines.push(b"20%\r\r100%"),
            [line("10%", true), line("20%", true)]
        );
        assert_eq!(lines.push(b"\n\n"), [line("100%", false), line("", false)]);
        lines.push(b"end");
        assert_eq!(lines.finish(), Some(line("end", false)));
        assert_eq!(lines.finish(), None);
    }

    #[test]
    fn a_line_without_an_end_comes_in_pieces() {
        let mut lines = Lines::default();
        assert_eq!(lines.push(&vec![b'x'; LINE_LIMIT + 1]).len(), 1);
        assert_eq!(lines.open(), b"x");
    }
}
