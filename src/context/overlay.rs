//! A directory of a source and what is laid over it: one directory to whoever looks.
//!
//! A source may have a second tree, the *overlay*. Where both have a name, the overlay's is taken, but for directories: those are
//! one, and what is to be known of it (mode, time, attributes) is the lower one's. Nothing is copied: the two are listed together
//! and opened side by side. A name of the overlay that is no directory hides all of a lower directory.
//!
//! Invariant: each side is opened on its own side's parent, never through a link; so neither leads out of its root.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::{Errno, Result};

use super::meta::Meta;
use super::trail::{Trail, descend, open_directory};
use super::walk::Names;

/// Where a name was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Lower,
    Over,
    /// A directory of both.
    Both,
}

impl Side {
    fn is_lower(self) -> bool {
        self != Side::Over
    }

    fn is_over(self) -> bool {
        self != Side::Lower
    }
}

/// One directory, open on each side that has it; there is at least one.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) lower: Option<BorrowedFd<'a>>,
    pub(super) over: Option<BorrowedFd<'a>>,
}

/// The same, owned.
pub(super) struct Opened {
    pub(super) lower: Option<OwnedFd>,
    pub(super) over: Option<OwnedFd>,
}

impl<'a> Place<'a> {
    /// Looks a name up; `look` stats it in one of the directories.
    pub(super) fn find(
        self,
        name: &[u8],
        look: impl Fn(BorrowedFd<'a>, &[u8]) -> Result<Meta>,
    ) -> Result<(Meta, Side)> {
        let over = match self.over {
            None => None,
            Some(over) => match look(over, name) {
                Ok(meta) => Some(meta),
                Err(Errno::NOENT) if self.lower.is_some() => None,
                Err(error) => return Err(error),
            },
        };
        let Some(lower) = self.lower else {
            return over.map(|meta| (meta, Side::Over)).ok_or(Errno::NOENT);
        };
        match over {
            None => Ok((look(lower, name)?, Side::Lower)),
            Some(meta) if !meta.is_directory() => Ok((meta, Side::Over)),
            Some(meta) => match look(lower, name) {
                Ok(lower) if lower.is_directory() => Ok((lower, Side::Both)),
                Ok(_) | Err(Errno::NOENT) => Ok((meta, Side::Over)),
                Err(error) => Err(error),
            },
        }
    }

    /// Opens a directory that was found.
    pub(super) fn open(self, name: &[u8], side: Side) -> Result<Opened> {
        let open = |directory: Option<BorrowedFd<'a>>, wanted: bool| {
            let directory = directory.filter(|_| wanted);
            directory
                .map(|directory| open_directory(directory, name))
                .transpose()
        };
        Ok(Opened {
            lower: open(self.lower, side.is_lower())?,
            over: open(self.over, side.is_over())?,
        })
    }

    /// Returns the directory that has what was found.
    pub(super) fn holder(self, side: Side) -> BorrowedFd<'a> {
        let found = match side {
            Side::Over => self.over,
            Side::Lower | Side::Both => self.lower,
        };
        found.unwrap_or_else(|| self.main())
    }

    /// Returns the directory that tells mode, time and attributes.
    pub(super) fn main(self) -> BorrowedFd<'a> {
        self.lower
            .or(self.over)
            .expect("a directory is open on one side at least")
    }

    /// Lists the names of both.
    pub(super) fn names(self, buffer: &mut [MaybeUninit<u8>]) -> Result<Names> {
        match (self.lower, self.over) {
            (Some(lower), Some(over)) => {
                let lower = Names::read(lower, buffer)?;
                lower.and(&Names::read(over, buffer)?)
            }
            _ => Names::read(self.main(), buffer),
        }
    }

    /// Goes down a path without links. The path may end on either side.
    pub(super) fn descend(self, path: &[u8]) -> Result<Opened> {
        let Some(over) = self.over else {
            return Ok(Opened {
                lower: Some(descend(self.main(), path)?),
                over: None,
            });
        };
        let mut opened = Opened {
            lower: self
                .lower
                .map(|lower| open_directory(lower, "."))
                .transpose()?,
            over: Some(open_directory(over, ".")?),
        };
        for name in path
            .split(|&byte| byte == b'/')
            .filter(|name| !name.is_empty())
        {
            let place = opened.place();
            let (meta, side) = place.find(name, |directory, name| Meta::at(directory, name))?;
            if !meta.is_directory() {
                return Err(Errno::NOTDIR);
            }
            opened = place.open(name, side)?;
        }
        Ok(opened)
    }
}

impl Opened {
    pub(super) fn place(&self) -> Place<'_> {
        Place {
            lower: self.lower.as_ref().map(AsFd::as_fd),
            over: self.over.as_ref().map(AsFd::as_fd),
        }
    }

    fn side(&self) -> Side {
        match (&self.lower, &self.over) {
            (Some(_), Some(_)) => Side::Both,
            (None, Some(_)) => Side::Over,
            (_, None) => Side::Lower,
        }
    }

    /// Returns the directory that tells mode, time and attributes.
    pub(super) fn into_main(self) -> OwnedFd {
        self.lower
            .or(self.over)
            .expect("a directory is open on one side at least")
    }
}

/// A way down on both sides at once.
pub(super) struct Trails {
    lower: Option<Trail>,
    over: Option<Trail>,
    /// Which sides each directory below the start is open on.
    sides: Vec<Side>,
    start: Side,
}

impl Trails {
    pub(super) fn new(start: Opened) -> Trails {
        Trails {
            start: start.side(),
            lower: start.lower.map(Trail::new),
            over: start.over.map(Trail::new),
            sides: Vec::new(),
        }
    }

    /// Returns the innermost directory.
    pub(super) fn place(&self) -> Place<'_> {
        let side = self.sides.last().copied().unwrap_or(self.start);
        Place {
            lower: self
                .lower
                .as_ref()
                .filter(|_| side.is_lower())
                .map(Trail::directory),
            over: self
                .over
                .as_ref()
                .filter(|_| side.is_over())
                .map(Trail::directory),
        }
    }

    /// Returns how many directories lie below the start.
    pub(super) fn depth(&self) -> usize {
        self.sides.len()
    }

    /// Goes into a directory that was opened in the innermost one.
    pub(super) fn push(&mut self, opened: Opened) -> Result<()> {
        let side = opened.side();
        for (trail, directory) in [
            (&mut self.lower, opened.lower),
            (&mut self.over, opened.over),
        ] {
            if let (Some(trail), Some(directory)) = (trail, directory) {
                trail.push(directory)?;
            }
        }
        self.sides.push(side);
        Ok(())
    }

    /// Goes back up; nothing happens at the start.
    pub(super) fn pop(&mut self) -> Result<()> {
        let Some(side) = self.sides.pop() else {
            return Ok(());
        };
        for (trail, was_open) in [
            (&mut self.lower, side.is_lower()),
            (&mut self.over, side.is_over()),
        ] {
            if let Some(trail) = trail.as_mut().filter(|_| was_open) {
                trail.pop()?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::context::testing::plant;
    use crate::context::{IgnorePatterns, Query, SelectError, Source, list, select};

    const LOWER: &str = "
        file a = lower
        file d/one = lower
        file d/two = lower
        file hidden/x = lower
        file plain = lower
        link way -> d
    ";
    const OVER: &str = "
        file b = over
        file d/two = over
        file d/three = over
        file e/deep/four = over
        file hidden = over
        file plain/y = over
    ";

    struct Trees {
        lower: tempfile::TempDir,
        over: tempfile::TempDir,
    }

    fn trees(lower: &str, over: &str) -> Trees {
        let trees = Trees {
            lower: tempfile::tempdir().unwrap(),
            over: tempfile::tempdir().unwrap(),
        };
        plant(trees.lower.path(), lower);
        plant(trees.over.path(), over);
        trees
    }

    fn source(trees: &Trees, ignore: &[&str]) -> Source {
        let ignore: Vec<String> = ignore.iter().map(|line| (*line).to_owned()).collect();
        let ignore = (!ignore.is_empty()).then(|| IgnorePatterns::from_list(&ignore).unwrap());
        let lower = Source::directory(trees.lower.path(), ignore).unwrap();
        lower.under(trees.over.path()).unwrap()
    }

    fn listed(source: &Source) -> Vec<String> {
        let paths = list(source).map(|path| String::from_utf8(path.unwrap()).unwrap());
        paths
            .map(|path| path.trim_end_matches('/').to_owned())
            .collect()
    }

    fn digest(source: &Source, pattern: &str) -> Result<String, SelectError> {
        let query = Query {
            pattern,
            parents: false,
            exclude: &[],
        };
        let selection = select(source, &query)?;
        Ok(selection.digest(source).unwrap().to_string())
    }

    #[test]
    fn both_trees_are_one_and_the_upper_one_wins() {
        let trees = trees(LOWER, OVER);
        let found = listed(&source(&trees, &[]));
        assert_eq!(
            found,
            [
                "a",
                "b",
                "d",
                "d/one",
                "d/three",
                "d/two",
                "e",
                "e/deep",
                "e/deep/four",
                "hidden",
                "plain",
                "plain/y",
                "way"
            ]
        );
    }

    #[test]
    fn a_source_with_another_over_it_has_the_content_of_the_two_in_one() {
        let trees = trees(LOWER, OVER);
        let merged = tempfile::tempdir().unwrap();
        plant(
            merged.path(),
            "
            file a = lower
            file b = over
            file d/one = lower
            file d/two = over
            file d/three = over
            file e/deep/four = over
            file hidden = over
            file plain/y = over
            link way -> d
            ",
        );
        let merged = Source::directory(merged.path(), None).unwrap();
        let both = source(&trees, &[]).with_threads(4);
        for pattern in [
            ".",
            "a",
            "b",
            "d",
            "d/two",
            "way/three",
            "way/one",
            "e",
            "e/*/four",
            "hidden",
            "*",
            "plain/y",
            "d/t*",
        ] {
            assert_eq!(
                digest(&both, pattern).unwrap(),
                digest(&merged, pattern).unwrap(),
                "{pattern}"
            );
        }
        for pattern in ["hidden/x", "d/four"] {
            assert!(digest(&both, pattern).is_err(), "{pattern}");
        }
    }

    #[test]
    fn the_ignore_file_is_about_both() {
        let trees = trees(LOWER, OVER);
        let found = listed(&source(&trees, &["d", "!d/three", "e", "hidden", "way"]));
        assert_eq!(found, ["a", "b", "d", "d/three", "plain", "plain/y"]);
    }

    #[test]
    fn links_of_the_upper_tree_lead_nowhere_else() {
        let trees = trees(
            "file etc/passwd = lower",
            "
            link out -> ../../../../etc/passwd
            link absolute -> /etc
            ",
        );
        let both = source(&trees, &[]);
        let inside = digest(&both, "etc/passwd").unwrap();
        let plain = |pattern| digest(&both, pattern).unwrap();
        // Content is the same; names are the links' own.
        assert_eq!(plain("absolute/passwd"), inside);
        assert_ne!(plain("out"), inside);
        assert_eq!(listed(&both), ["absolute", "etc", "etc/passwd", "out"]);
    }

    #[test]
    fn deep_trees_are_left_on_both_sides() {
        let deep: Vec<String> = (0..120).map(|at| format!("d{at}")).collect();
        let deep = deep.join("/");
        let trees = trees(
            &format!("file {deep}/lower = 1\nfile z = 1"),
            &format!("file {deep}/over = 1\nfile d0/d1/late = 1"),
        );
        let found = listed(&source(&trees, &[]));
        assert_eq!(found.len(), 120 + 4);
        assert_eq!(found[found.len() - 2..], ["d0/d1/late", "z"]);
    }
}
