//! Numbers and tables for people.

use std::time::Duration;

pub use crate::vocab::size;
use crate::vocab::{Rung, StorageDriver};

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

/// Returns rows in columns that are as wide as their widest cell, three blanks apart.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            rows.iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or_default()
        })
        .collect();
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, &width)| format!("{cell:width$}"))
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
