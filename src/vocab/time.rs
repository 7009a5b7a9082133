//! A moment, as image documents write it.

use std::fmt;

/// Seconds and nanoseconds since 1970-01-01T00:00:00Z. Displayed as RFC 3339 in UTC with as many digits as needed, as Go's
/// `RFC3339Nano` does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    pub seconds: i64,
    pub nanoseconds: u32,
}

impl Timestamp {
    /// Returns a whole second.
    pub fn from_seconds(seconds: i64) -> Timestamp {
        Timestamp {
            seconds,
            nanoseconds: 0,
        }
    }

    /// Reads RFC 3339; `None` if the text is something else.
    pub fn parse(text: &str) -> Option<Timestamp> {
        let moment: jiff::Timestamp = text.parse().ok()?;
        let (mut seconds, mut nanoseconds) = (moment.as_second(), moment.subsec_nanosecond());
        if nanoseconds < 0 {
            seconds -= 1;
            nanoseconds += 1_000_000_000;
        }
        Some(Timestamp {
            seconds,
            nanoseconds: nanoseconds as u32,
        })
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::new(self.seconds, self.nanoseconds as i32) {
            Ok(moment) => write!(f, "{moment}"),
            // Beyond year 9999: no document can hold it, so the last moment that one can.
            Err(_) => write!(f, "{}", jiff::Timestamp::MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        for text in [
            "1970-01-01T00:00:00Z",
            "2026-11-21T14:30:00.5Z",
            "1969-12-31T23:59:59.25Z",
        ] {
            assert_eq!(Timestamp::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(
            Timestamp::parse("2026-11-21T14:30:00+01:00")
                .unwrap()
                .to_string(),
            "2026-11-21T13:30:00Z"
        );
        assert_eq!(Timestamp::parse("yesterday"), None);
    }
}
