//! Secrets taken out of what a command prints.
//!
//! In: the values that were given to the build, and the output of a step piece by piece. Out: the output with `***` for every place where one of them
//! stood, also where it came in several pieces. Only what may still become a value is held back, never more than the longest.
//!
//! A value is looked for as it is, without the line ends at its end, and, if it has several lines, each line of at least
//! [`LINE`] bytes by itself. Values of less than [`VALUE`] bytes would take half of any output along and are left alone. What a
//! command makes of a secret (its base64, its letters one by one) nobody can know.
//!
//! The search is that of Aho and Corasick: one walk through a tree of all values, whose depth is at any time the length of the
//! longest end of the output that begins a value. So the time does not depend on how many values there are.

use std::collections::VecDeque;

use crate::vocab::Secret;

/// Values shorter than this are not looked for.
const VALUE: usize = 4;
/// Lines of a value shorter than this are not looked for by themselves.
const LINE: usize = 8;
/// Stands for a value.
const STARS: &[u8] = b"***";

/// What to look for: shared by all commands of a build.
pub(super) struct Needles {
    nodes: Vec<Node>,
}

/// A place in the tree: the end of everything that begins like the way to it.
#[derive(Default)]
struct Node {
    /// Most nodes have one way on, so that one costs no allocation.
    first: Option<(u8, u32)>,
    more: Vec<(u8, u32)>,
    depth: u32,
    /// The longest proper end of the way here that is a way too.
    fallback: u32,
    /// The length of the longest value that ends here.
    ends: u32,
}

impl Node {
    fn ways(&self) -> impl Iterator<Item = (u8, u32)> {
        self.first.iter().chain(&self.more).copied()
    }

    fn next(&self, byte: u8) -> Option<u32> {
        let mut ways = self.ways();
        ways.find(|(key, _)| *key == byte).map(|(_, next)| next)
    }
}

/// One stream of one command.
pub(super) struct Redactor<'a> {
    needles: &'a Needles,
    at: u32,
    /// What may still become a value.
    held: VecDeque<u8>,
    /// How many bytes were passed on before.
    passed: u64,
    /// What belongs to a value, from here to there in the stream: in order, and apart. Bytes are not marked one by one: in `aaaa`
    /// a value may end at each.
    values: VecDeque<(u64, u64)>,
    /// The last byte that was passed on belonged to a value.
    in_value: bool,
}

impl Needles {
    /// Prepares the search.
    pub(super) fn new<'a>(values: impl IntoIterator<Item = &'a Secret<Vec<u8>>>) -> Needles {
        let mut needles = Needles {
            nodes: vec![Node::default()],
        };
        for value in values {
            let value = value.reveal();
            let whole = value.trim_ascii_end();
            if whole.len() >= VALUE {
                needles.add(whole);
            }
            for line in whole.split(|byte| *byte == b'\n') {
                let line = line.trim_ascii();
                if line.len() >= LINE {
                    needles.add(line);
                }
            }
        }
        needles.link();
        needles
    }

    /// Returns the search in one stream.
    pub(super) fn redactor(&self) -> Redactor<'_> {
        Redactor {
            needles: self,
            at: 0,
            held: VecDeque::new(),
            passed: 0,
            values: VecDeque::new(),
            in_value: false,
        }
    }

    fn add(&mut self, value: &[u8]) {
        let mut at = 0;
        for &byte in value {
            at = match self.nodes[at].next(byte) {
                Some(next) => next as usize,
                None => {
                    let new = self.nodes.len();
                    let node = &mut self.nodes[at];
                    let depth = node.depth + 1;
                    match &node.first {
                        None => node.first = Some((byte, new as u32)),
                        Some(_) => node.more.push((byte, new as u32)),
                    }
                    self.nodes.push(Node {
                        depth,
                        ..Node::default()
                    });
                    new
                }
            };
        }
        self.nodes[at].ends = self.nodes[at].depth;
    }

    /// Finds the fallbacks, the shallow ones first: each leans on a shallower one.
    fn link(&mut self) {
        let mut waiting: VecDeque<u32> = self.nodes[0].ways().map(|(_, child)| child).collect();
        while let Some(at) = waiting.pop_front() {
            let children: Vec<(u8, u32)> = self.nodes[at as usize].ways().collect();
            let fallback = self.nodes[at as usize].fallback;
            for (byte, child) in children {
                let found = self.step(fallback, byte);
                let ends = self.nodes[found as usize].ends;
                let node = &mut self.nodes[child as usize];
                node.fallback = found;
                node.ends = node.ends.max(ends);
                waiting.push_back(child);
            }
        }
    }

    /// Returns where `byte` leads to.
    fn step(&self, mut at: u32, byte: u8) -> u32 {
        loop {
            let node = &self.nodes[at as usize];
            match node.next(byte) {
                Some(next) => return next,
                None if at == 0 => return 0,
                None => at = node.fallback,
            }
        }
    }
}

impl Redactor<'_> {
    /// Takes a piece of output and returns what can be passed on.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        let nodes = &self.needles.nodes;
        let mut out = Vec::with_capacity(bytes.len());
        if nodes.len() == 1 {
            out.extend_from_slice(bytes);
            return out;
        }
        for &byte in bytes {
            self.at = self.needles.step(self.at, byte);
            self.held.push_back(byte);
            match nodes[self.at as usize].ends {
                0 => {}
                length => self.found(u64::from(length)),
            }
            if nodes[self.at as usize].first.is_none() {
                // Nothing longer can come of it.
                self.at = nodes[self.at as usize].fallback;
            }
            while self.held.len() > nodes[self.at as usize].depth as usize {
                self.pass_on(&mut out);
            }
        }
        out
    }

    /// Returns what was held back at the end of the stream.
    pub(super) fn finish(mut self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.held.len());
        while !self.held.is_empty() {
            self.pass_on(&mut out);
        }
        out
    }

    /// Takes note of a value that ends here.
    fn found(&mut self, length: u64) {
        let end = self.passed + self.held.len() as u64;
        let mut start = end - length;
        while let Some(&(before, until)) = self.values.back() {
            if until < start {
                break;
            }
            start = start.min(before);
            self.values.pop_back();
        }
        self.values.push_back((start, end));
    }

    fn pass_on(&mut self, out: &mut Vec<u8>) {
        let Some(byte) = self.held.pop_front() else {
            return;
        };
        let at = self.passed;
        self.passed += 1;
        let of_value = match self.values.front() {
            Some(&(start, end)) => {
                if end == self.passed {
                    self.values.pop_front();
                }
                start <= at
            }
            None => false,
        };
        match (of_value, self.in_value) {
            (true, false) => out.extend_from_slice(STARS),
            (true, true) => {}
            (false, _) => out.push(byte),
        }
        self.in_value = of_value;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn needles(values: &[&str]) -> Needles {
        let values: Vec<_> = values
            .iter()
            .map(|value| Secret::new(value.as_bytes().to_vec()))
            .collect();
        Needles::new(&values)
    }

    fn redacted(values: &[&str], pieces: &[&str]) -> String {
        let needles = needles(values);
        let mut redactor = needles.redactor();
        let mut out = Vec::new();
        for piece in pieces {
            out.extend(redactor.push(piece.as_bytes()));
        }
        out.extend(redactor.finish());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn values_are_found_whole_and_in_pieces() {
        for (values, pieces, wanted) in [
            (&["hunter2"][..], &["a hunter2 b\n"][..], "a *** b\n"),
            (&["hunter2"], &["a hun", "ter", "2 b"], "a *** b"),
            (&["hunter2"], &["a hun", "ger"], "a hunger"),
            (&["hunter2"], &["hunthunter2"], "hunt***"),
            (&["hunter2\n"], &["hunter2"], "***"),
            (&["hunter2"], &["hunter2hunter2"], "***"),
            (&["abab"], &["xababab", "y"], "x***y"),
            (&["abcd", "abcdefgh"], &["abcdef abcdefgh"], "***ef ***"),
            (&["abcdefgh", "cdef"], &["abcdefx"], "ab***x"),
            (&["abc"], &["abc"], "abc"),
            (&[""], &["abc"], "abc"),
            (&[], &["abc"], "abc"),
            (
                &["first line\nsecond line\nend\n"],
                &["is: second", " line, end\n"],
                "is: ***, end\n",
            ),
        ] {
            assert_eq!(redacted(values, pieces), wanted, "{values:?} {pieces:?}");
        }
    }

    #[test]
    fn only_what_may_become_a_value_is_held_back() {
        let needles = needles(&["hunter2"]);
        let mut redactor = needles.redactor();
        assert_eq!(redactor.push(b"password: "), b"password: ");
        assert_eq!(redactor.push(b"hun"), b"");
        assert_eq!(redactor.push(b"g"), b"hung");
        assert_eq!(
            redactor.push(b"hunter2"),
            b"***",
            "nothing longer begins so"
        );
    }

    #[test]
    fn a_value_that_ends_everywhere_costs_no_more_than_others() {
        let value = "a".repeat(400_000);
        let needles = needles(&[&value]);
        let mut redactor = needles.redactor();
        let mut out = redactor.push(value.as_bytes());
        out.extend(redactor.push(value.as_bytes()));
        out.extend(redactor.push(b"b"));
        out.extend(redactor.finish());
        assert_eq!(out, b"***b");
    }

    /// The same by looking at the whole text.
    fn model(values: &[Vec<u8>], text: &[u8]) -> Vec<u8> {
        let mut covered = vec![false; text.len()];
        for value in values.iter().filter(|value| value.len() >= VALUE) {
            for at in 0..text.len() {
                if text[at..].starts_with(value) {
                    covered[at..at + value.len()].fill(true);
                }
            }
        }
        let mut out = Vec::new();
        for (at, byte) in text.iter().enumerate() {
            match covered[at] {
                false => out.push(*byte),
                true if at > 0 && covered[at - 1] => {}
                true => out.extend_from_slice(STARS),
            }
        }
        out
    }

    proptest! {
        #[test]
        fn any_cut_gives_what_the_whole_text_gives(
            values in prop::collection::vec(prop::collection::vec(b'a'..b'c', 0..7), 0..4),
            text in prop::collection::vec(b'a'..b'd', 0..60),
            cuts in prop::collection::vec(0_usize..60, 0..6),
        ) {
            let secrets: Vec<_> = values.iter().cloned().map(Secret::new).collect();
            let needles = Needles::new(&secrets);
            let mut redactor = needles.redactor();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let mut out = Vec::new();
            for pair in cuts.windows(2) {
                out.extend(redactor.push(&text[pair[0]..pair[1]]));
            }
            out.extend(redactor.finish());
            prop_assert_eq!(out, model(&values, &text));
        }
    }
}
