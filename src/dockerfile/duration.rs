//! Durations as Go writes them: `1m30s`, `1.5h`, `250ms`.

use std::time::Duration;

/// A duration that cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum DurationError {
    #[error("not a duration")]
    Syntax,
    #[error("the duration is negative")]
    Negative,
    #[error("the duration is too long")]
    TooLong,
}

/// Reads numbers with units (`ns`, `us`, `ms`, `s`, `m`, `h`), or a bare `0`.
pub(super) fn parse(text: &str) -> Result<Duration, DurationError> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(DurationError::Syntax);
    }
    let mut nanoseconds: u64 = 0;
    while !rest.is_empty() {
        let (part, after) = component(rest)?;
        nanoseconds = nanoseconds
            .checked_add(part)
            .ok_or(DurationError::TooLong)?;
        rest = after;
    }
    // The image config holds a signed 64-bit number.
    if i64::try_from(nanoseconds).is_err() {
        return Err(DurationError::TooLong);
    }
    if negative && nanoseconds > 0 {
        return Err(DurationError::Negative);
    }
    Ok(Duration::from_nanos(nanoseconds))
}

/// Reads one number with its unit: nanoseconds, and what follows.
fn component(text: &str) -> Result<(u64, &str), DurationError> {
    let (whole, rest) = digits(text);
    let (fraction, rest) = match rest.strip_prefix('.') {
        Some(rest) => digits(rest),
        None => ("", rest),
    };
    if whole.is_empty() && fraction.is_empty() {
        return Err(DurationError::Syntax);
    }
    let unit_end = rest
        .find(|c: char| c == '.' || c.is_ascii_digit())
        .unwrap_or(rest.len());
    let unit: u64 = match &rest[..unit_end] {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return Err(DurationError::Syntax),
    };
    let whole: u64 = match whole {
        "" => 0,
        whole => whole.parse().map_err(|_| DurationError::TooLong)?,
    };
    let mut total = whole.checked_mul(unit).ok_or(DurationError::TooLong)?;
    let mut place = unit;
    for digit in fraction.bytes() {
        place /= 10;
        total = total
            .checked_add(place * u64::from(digit - b'0'))
            .ok_or(DurationError::TooLong)?;
    }
    Ok((total, &rest[unit_end..]))
}

fn digits(text: &str) -> (&str, &str) {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    text.split_at(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_durations_are_read() {
        for (text, expected) in [
            ("0", Ok(0)),
            ("30s", Ok(30_000_000_000)),
            ("1m30s", Ok(90_000_000_000)),
            ("1.5h", Ok(5_400_000_000_000)),
            (".5s", Ok(500_000_000)),
            ("1.s", Ok(1_000_000_000)),
            ("+1ms", Ok(1_000_000)),
            ("2us3ns", Ok(2_003)),
            ("-1s", Err(DurationError::Negative)),
            ("-0s", Ok(0)),
            ("", Err(DurationError::Syntax)),
            ("5", Err(DurationError::Syntax)),
            ("s", Err(DurationError::Syntax)),
            ("1d", Err(DurationError::Syntax)),
            ("1 s", Err(DurationError::Syntax)),
            (".s", Err(DurationError::Syntax)),
            ("9999999h", Err(DurationError::TooLong)),
            ("99999999999999999999s", Err(DurationError::TooLong)),
        ] {
            assert_eq!(parse(text), expected.map(Duration::from_nanos), "{text}");
        }
    }
}
