//! Markup that can only come from this program, and text that can only be text.

use super::super::lines::reorders;

/// A piece of a page.
#[derive(Clone, Debug, Default)]
pub(super) struct Html(String);

impl Html {
    pub(super) fn new() -> Html {
        Html::default()
    }

    /// Adds markup: a literal of this program, never anything from outside.
    pub(super) fn raw(&mut self, markup: &'static str) -> &mut Html {
        self.0.push_str(markup);
        self
    }

    /// Adds text, in an element or in a quoted attribute.
    pub(super) fn text(&mut self, text: &str) -> &mut Html {
        for c in text.chars() {
            match c {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                '\n' | '\t' => self.0.push(c),
                c if c.is_control() || reorders(c) => {}
                c => self.0.push(c),
            }
        }
        self
    }

    /// Adds a number with at most three digits behind the point.
    pub(super) fn number(&mut self, number: f64) -> &mut Html {
        let text = format!("{number:.3}");
        let text = match text.contains('.') {
            true => text.trim_end_matches('0').trim_end_matches('.'),
            false => text.as_str(),
        };
        self.0.push_str(if text == "-0" { "0" } else { text });
        self
    }

    /// Adds a part of the whole as a percentage.
    pub(super) fn percent(&mut self, part: f64) -> &mut Html {
        self.number(100.0 * part).raw("%")
    }

    pub(super) fn count(&mut self, count: usize) -> &mut Html {
        self.0.push_str(&count.to_string());
        self
    }

    /// Adds another piece.
    pub(super) fn add(&mut self, piece: &Html) -> &mut Html {
        self.0.push_str(&piece.0);
        self
    }

    /// Adds JSON for a script element: nothing in it can end the element.
    pub(super) fn json(&mut self, value: &serde_json::Value) -> &mut Html {
        for c in value.to_string().chars() {
            match c {
                c if matches!(c, '<' | '>' | '&') || reorders(c) => {
                    self.0.push_str(&format!("\\u{:04x}", u32::from(c)));
                }
                c => self.0.push(c),
            }
        }
        self
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn into_string(self) -> String {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_text() {
        let mut html = Html::new();
        html.text("<script>\"a\" & 'b'</script>\x1b[0m\u{202e}\n\tx");
        assert_eq!(
            html.into_string(),
            "&lt;script&gt;&quot;a&quot; &amp; &#39;b&#39;&lt;/script&gt;[0m\n\tx"
        );
    }

    #[test]
    fn json_ends_no_element() {
        let mut html = Html::new();
        let value = serde_json::json!({ "a": "</script><!--&\u{2028}" });
        html.json(&value);
        let text = html.into_string();
        assert!(!text.contains(['<', '>', '&', '\u{2028}']), "{text}");
        let back: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(back, value);
    }

    #[test]
    fn numbers_are_short() {
        for (number, text) in [
            (0.0, "0"),
            (100.0, "100"),
            (1.5, "1.5"),
            (0.12345, "0.123"),
            (-0.0001, "0"),
        ] {
            let mut html = Html::new();
            html.number(number);
            assert_eq!(html.into_string(), text);
        }
    }
}
