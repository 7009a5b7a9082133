//! The colours of the live view, and `BUILDKIT_COLORS`, which sets them: `run=green:error=255,0,0`.

/// SGR codes by what they say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Colours {
    pub(super) done: String,
    pub(super) cached: String,
    pub(super) error: String,
}

impl Default for Colours {
    fn default() -> Colours {
        Colours {
            done: "32".to_owned(),
            cached: "36".to_owned(),
            error: "31".to_owned(),
        }
    }
}

impl Colours {
    /// Reads what the user wants; what makes no sense is left as it is, as BuildKit does.
    pub(super) fn parse(text: &str) -> Colours {
        let mut colours = Colours::default();
        for (name, colour) in text.split(':').filter_map(|pair| pair.split_once('=')) {
            let Some(code) = code(colour.trim()) else {
                continue;
            };
            match name.trim().to_ascii_lowercase().as_str() {
                "run" => (colours.done, colours.cached) = (code.clone(), code),
                "error" => colours.error = code,
                // What these are for is in diagnostics, which have colours of their own.
                _ => {}
            }
        }
        colours
    }
}

fn code(colour: &str) -> Option<String> {
    let names = [
        "black", "red", "green", "yellow", "blue", "magenta", "cyan", "white",
    ];
    let name = colour.to_ascii_lowercase();
    let (base, plain) = match name.strip_prefix("light-") {
        Some(plain) => (90, plain.to_owned()),
        None => (30, name),
    };
    if let Some(at) = names.iter().position(|known| *known == plain) {
        return Some((base + at).to_string());
    }
    let parts: Option<Vec<u8>> = colour
        .split(',')
        .map(|part| part.trim().parse().ok())
        .collect();
    match parts?.as_slice() {
        [red, green, blue] => Some(format!("38;2;{red};{green};{blue}")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_have_names_or_parts() {
        let colours = Colours::parse("run=light-blue:error=255, 165,0:warning=red:cancel:x=y");
        assert_eq!(colours.done, "94");
        assert_eq!(colours.cached, "94");
        assert_eq!(colours.error, "38;2;255;165;0");
        for text in ["", "run=", "run=256,0,0", "run=1,2", "error=mauve", "=:="] {
            assert_eq!(Colours::parse(text), Colours::default(), "{text}");
        }
    }
}
