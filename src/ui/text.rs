//! Numbers and tables for people.

use std::time::Duration;

use super::Showing;
use super::render::clean;
use super::width::{fit, width};
pub use crate::vocab::size;
use crate::vocab::{CacheKey, Reason, Rung, StorageDriver, Timestamp, reasons_text};

/// Returns seconds with one digit, and minutes where there are some: `0.3s`, `2m04s`.
pub(super) fn elapsed(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds < 59.95 {
        format!("{seconds:.1}s")
    } else {
        let whole = seconds.round() as u64;
        format!("{}m{:02}s", whole / 60, whole % 60)
    }
}

/// Returns the line that says how steps are executed, and why so.
pub(super) fn entered(rung: Rung, driver: StorageDriver, reasons: &[String]) -> String {
    let mut line = format!("sandbox: {rung}, store: {driver}");
    if !reasons.is_empty() {
        line.push_str(&format!(" ({}; see `builder doctor`)", reasons.join("; ")));
    }
    line.push('\n');
    line
}

/// Returns the line that says why a step is performed.
pub(super) fn missed(reasons: &[Reason], showing: &Showing) -> String {
    one_line(&format!(
        "not cached: {}",
        reasons_text(reasons, showing.files())
    ))
}

/// Returns the line that says under which key a result was found.
pub(super) fn found(key: &CacheKey, created: Timestamp) -> String {
    format!("found under key {key}, made {created}")
}

/// Returns text without anything that would end the line or move the cursor.
pub(super) fn one_line(text: &str) -> String {
    clean(text).replace(['\n', '\t'], " ")
}

/// Returns rows in columns that are as wide as their widest cell, three blanks apart.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            rows.iter()
                .filter_map(|row| row.get(column))
                .map(|cell| width(cell))
                .max()
                .unwrap_or_default()
        })
        .collect();
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, &width)| fit(cell, width))
            .collect();
        text.push_str(cells.join("   ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_digits() {
        for (bytes, text) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1.00kB"),
            (12_345, "12.3kB"),
            (999_600, "1.00MB"),
            (123_456_789, "123MB"),
            (u64::MAX, "18447PB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn durations() {
        assert_eq!(elapsed(Duration::from_millis(340)), "0.3s");
        assert_eq!(elapsed(Duration::from_secs(124)), "2m04s");
        assert_eq!(elapsed(Duration::from_millis(59_990)), "1m00s");
    }

    #[test]
    fn columns_line_up() {
        let row = |cells: [&str; 2]| cells.map(str::to_owned).to_vec();
        assert_eq!(
            table(&[row(["A", "B"]), row(["long", ""])]),
            "A      B\nlong\n"
        );
    }
}
