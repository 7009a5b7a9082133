//! Finding the heredoc marks of a line: `<<NAME`, `<<-NAME`, `3<<'NAME'`.
//!
//! In: a joined line. Out: where each mark stands and what ends its body. Reading the bodies is `lines`' work.

use std::ops::Range;

use super::expand::{self, ExpandError};

/// A word that announces a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// Bytes of the line.
    pub(super) range: Range<usize>,
    /// The delimiter, quotes removed; the line that ends the body.
    pub(super) name: String,
    /// False if any part of the delimiter was quoted.
    pub(super) expand: bool,
    /// `<<-`: tabs at the start of lines go.
    pub(super) chomp: bool,
}

/// Returns the marks of a line, in order. A line that is no sequence of words (a quote is open, say) has none.
pub(super) fn marks(line: &str) -> Vec<Mark> {
    if !line.contains("<<") {
        return Vec::new();
    }
    let Ok(ranges) = expand::word_ranges(line) else {
        return Vec::new();
    };
    ranges
        .into_iter()
        .filter_map(|range| mark(&line[range.clone()], range.clone()).ok().flatten())
        .collect()
}

/// Reads a word that may be a mark.
fn mark(word: &str, range: Range<usize>) -> Result<Option<Mark>, ExpandError> {
    let Some(rest) = word
        .trim_start_matches(|c: char| c.is_ascii_digit())
        .strip_prefix("<<")
    else {
        return Ok(None);
    };
    let (chomp, rest) = match rest.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    let delimiter = rest.trim_start();
    if delimiter.is_empty() || delimiter.contains('<') {
        return Ok(None);
    }
    let Some(name) = expand::unquote(delimiter)? else {
        return Ok(None);
    };
    let quotes = |text: &str| text.matches(['\'', '"']).count();
    // A quote that is escaped is part of the name on both sides.
    let expand = quotes(delimiter) == quotes(&name);
    Ok(Some(Mark {
        range,
        expand,
        name,
        chomp,
    }))
}

/// Removes the tabs at the start of every line.
pub(super) fn chomp(body: &str) -> String {
    body.split_inclusive('\n')
        .map(|line| line.trim_start_matches('\t'))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(line: &str) -> Vec<String> {
        marks(line)
            .into_iter()
            .map(|mark| {
                let (chomp, quoted) = (
                    if mark.chomp { "-" } else { "" },
                    if mark.expand { "" } else { "'" },
                );
                format!("{chomp}{quoted}{}", mark.name)
            })
            .collect()
    }

    #[test]
    fn marks_are_words_of_their_own() {
        for (line, expected) in [
            ("RUN <<EOF", vec!["EOF"]),
            ("RUN <<-EOF", vec!["-EOF"]),
            ("RUN <<  EOF", vec!["EOF"]),
            ("RUN <<- EOF", vec!["-EOF"]),
            ("RUN << -EOF", vec!["-EOF"]),
            ("RUN 4<<EOF", vec!["EOF"]),
            ("RUN cat <<A && cat <<B", vec!["A", "B"]),
            ("RUN <<'EOF' | python", vec!["'EOF"]),
            ("RUN <<\"EOF\"", vec!["'EOF"]),
            ("RUN <<eo'f'", vec!["'eof"]),
            ("RUN <<eo\\'f", vec!["eo'f"]),
            ("RUN <<'e'o\\'f", vec!["'eo'f"]),
            ("RUN <<'one two'", vec!["'one two"]),
            ("RUN <<$EOF", vec!["$EOF"]),
            ("COPY <<file.txt /dest", vec!["file.txt"]),
            ("RUN '<<EOF'", vec![]),
            ("RUN \"<<EOF\"", vec![]),
            ("RUN <<<EOF", vec![]),
            ("RUN <<", vec![]),
            ("RUN <<-", vec![]),
            ("RUN <EOF", vec![]),
            ("RUN echo $((1<<2))", vec![]),
            ("RUN echo ${X:-a <<EOF}", vec![]),
            ("RUN echo x<<EOF", vec![]),
            ("RUN echo it's <<EOF", vec![]),
            ("RUN echo \\<<EOF", vec![]),
        ] {
            assert_eq!(names(line), expected, "{line}");
        }
    }

    #[test]
    fn chomp_takes_tabs_only() {
        assert_eq!(chomp("\t\ta\n\t b\n\n  c\t"), "a\n b\n\n  c\t");
    }
}
