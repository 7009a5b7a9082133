//! What steps print, kept within bounds: of a long output the beginning and the end.

use std::collections::VecDeque;

use super::super::lines::{Lines, clean_line};

/// Bytes that are kept of one step's beginning.
const HEAD: usize = 256 << 10;
/// Bytes that are kept of one step's end.
const TAIL: usize = 768 << 10;
/// Bytes that are kept of all steps.
pub(super) const ALL: usize = 8 << 20;

/// One step's output, as lines that can do no harm.
#[derive(Debug, Default)]
pub(super) struct Log {
    lines: Lines,
    head: String,
    is_head_full: bool,
    tail: VecDeque<String>,
    tail_bytes: usize,
    /// Lines between head and tail that are not kept.
    pub(super) dropped: usize,
}

impl Log {
    /// Takes a piece of output. A line that another one takes the place of is not kept.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        for line in self.lines.push(bytes) {
            if !line.is_replaced {
                self.line(&line.bytes);
            }
        }
    }

    /// Takes what has no end as a line.
    pub(super) fn finish(&mut self) {
        if let Some(line) = self.lines.finish() {
            self.line(&line.bytes);
        }
    }

    fn line(&mut self, bytes: &[u8]) {
        let line = clean_line(bytes, false);
        self.is_head_full |= self.head.len() + line.len() > HEAD;
        if !self.is_head_full {
            self.head.push_str(&line);
            self.head.push('\n');
            return;
        }
        self.tail_bytes += line.len() + 1;
        self.tail.push_back(line);
        while self.tail_bytes > TAIL {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some(line) = self.tail.pop_front() {
            self.tail_bytes -= line.len() + 1;
            self.dropped += 1;
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.head.len() + self.tail_bytes
    }

    /// Gives half of what is kept away, from the middle.
    fn shed(&mut self) {
        let wanted = self.bytes() / 2;
        // What follows the beginning comes to the end from here on.
        self.is_head_full = true;
        while self.bytes() > wanted && self.tail_bytes > self.head.len() {
            self.drop_oldest();
        }
        while self.bytes() > wanted && !self.head.is_empty() {
            let before = self.head.trim_end_matches('\n');
            let keep = before.rfind('\n').map_or(0, |at| at + 1);
            self.head.truncate(keep);
            self.dropped += 1;
        }
    }

    pub(super) fn head(&self) -> &str {
        &self.head
    }

    pub(super) fn tail(&self) -> impl Iterator<Item = &str> {
        self.tail.iter().map(String::as_str)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes() == 0
    }

    /// Returns the last lines.
    pub(super) fn last(&self, count: usize) -> Vec<&str> {
        let mut lines: Vec<&str> = self
            .tail
            .iter()
            .rev()
            .take(count)
            .map(String::as_str)
            .collect();
        if self.dropped == 0 {
            lines.extend(self.head.lines().rev().take(count - lines.len()));
        }
        lines.reverse();
        lines
    }
}

/// Makes all logs together fit, at the cost of the largest.
pub(super) fn fit<'a>(logs: impl Fn(&mut dyn FnMut(&mut Log)) + 'a) {
    loop {
        let (mut all, mut largest) = (0, 0);
        logs(&mut |log| {
            all += log.bytes();
            largest = largest.max(log.bytes());
        });
        if all <= ALL || largest == 0 {
            return;
        }
        let mut is_done = false;
        logs(&mut |log| {
            if !is_done && log.bytes() == largest {
                log.shed();
                is_done = true;
            }
        });
    }
}
