//! Follows a path in a source the way a process chrooted there would: links are followed, absolute ones start at the root, and
//! `..` stops at the root. Each component is looked at on its parent's descriptor, so nothing outside can be reached, and
//! excluded files are not there.

use std::mem::MaybeUninit;

use rustix::fs::readlinkat;
use rustix::io::Errno;

use super::error::ContextError;
use super::meta::{Kind, Meta};
use super::overlay::{Opened, Place};
use super::source::Source;
use super::walk::{Names, Walk};

/// As many links as the kernel follows in one path.
const MOST_LINKS: usize = 40;

/// Where a path leads.
pub(super) enum Found {
    /// To an entry of the source.
    Entry {
        /// Without links; empty for the root.
        path: Vec<u8>,
        kind: Kind,
        /// For each component that was asked for, the path without links that it led to.
        ways: Vec<Vec<u8>>,
    },
    /// Nowhere.
    Missing(Missing),
    /// In circles.
    Links,
}

/// How far a path led.
pub(super) struct Missing {
    /// The last directory that exists.
    pub(super) directory: Position,
    /// What is not in it, or is no directory.
    pub(super) name: Vec<u8>,
    /// The line of the ignore file that took it away.
    pub(super) excluded_by: Option<Option<usize>>,
}

/// A directory of the source: the open directories from the root to it, each with its name.
pub(super) struct Position(Vec<(Vec<u8>, Opened)>);

impl Position {
    /// Returns the directory.
    pub(super) fn place<'a>(&'a self, source: &'a Source) -> Place<'a> {
        match self.0.last() {
            Some((_, directory)) => directory.place(),
            None => source.root(),
        }
    }

    /// Lists the directory. The descriptors are new ones: those of a source are not to be moved on.
    pub(super) fn list(
        &self,
        source: &Source,
        buffer: &mut [MaybeUninit<u8>],
    ) -> rustix::io::Result<Names> {
        self.place(source).descend(b"")?.place().names(buffer)
    }

    /// Returns the path of the entry `name` in this directory.
    pub(super) fn path_of(&self, name: &[u8]) -> Vec<u8> {
        let mut path = self.path();
        if !path.is_empty() && !name.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        path
    }

    fn path(&self) -> Vec<u8> {
        let names: Vec<&[u8]> = self.0.iter().map(|(name, _)| name.as_slice()).collect();
        names.join(&b'/')
    }
}

enum Step {
    Name(Vec<u8>),
    Up,
    Root,
    /// One of the components that were asked for is done.
    Done,
}

/// Follows `components` from the root. The last one is followed too if it is a link.
pub(super) fn resolve(
    source: &Source,
    components: &[impl AsRef<[u8]>],
) -> Result<Found, ContextError> {
    let mut position = Position(Vec::new());
    let mut ways = Vec::with_capacity(components.len());
    let mut links = 0;
    // What is still to go, the next step last.
    let mut steps: Vec<Step> = Vec::new();
    for component in components.iter().rev() {
        steps.push(Step::Done);
        steps.push(Step::Name(component.as_ref().to_vec()));
    }
    // Set once a step led to something that is no directory: only `Done` may follow.
    let mut leaf: Option<(Vec<u8>, Kind)> = None;
    while let Some(step) = steps.pop() {
        let name = match step {
            Step::Done => {
                let name = leaf.as_ref().map_or(&b""[..], |(name, _)| name);
                ways.push(position.path_of(name));
                continue;
            }
            Step::Root => {
                position.0.clear();
                continue;
            }
            Step::Name(_) | Step::Up if leaf.is_some() => {
                let (name, _) = leaf.take().expect("just seen");
                return Ok(Found::Missing(Missing {
                    directory: position,
                    name,
                    excluded_by: None,
                }));
            }
            Step::Up => {
                position.0.pop();
                continue;
            }
            Step::Name(name) => name,
        };
        let directory = position.place(source);
        let io = |verb, error| ContextError::io(verb, &position.path_of(&name), error);
        let found = directory.find(&name, |directory, name| Meta::at(directory, name));
        let (meta, side) = match found {
            Ok(found) => found,
            Err(Errno::NOENT | Errno::NAMETOOLONG | Errno::INVAL) => {
                return Ok(Found::Missing(Missing {
                    directory: position,
                    name,
                    excluded_by: None,
                }));
            }
            Err(error) => return Err(io("stat", error)),
        };
        match meta.kind {
            Kind::Directory => {
                let opened = directory
                    .open(&name, side)
                    .map_err(|error| io("open the directory", error))?;
                position.0.push((name, opened));
            }
            Kind::Symlink => {
                if let Some(missing) = excluded(source, &position, &name) {
                    return Ok(Found::Missing(Missing {
                        directory: position,
                        name,
                        excluded_by: Some(missing),
                    }));
                }
                links += 1;
                if links > MOST_LINKS {
                    return Ok(Found::Links);
                }
                let target = readlinkat(directory.holder(side), name.as_slice(), Vec::new())
                    .map_err(|error| io("read the link", error))?;
                follow(target.as_bytes(), &mut steps);
            }
            kind => leaf = Some((name, kind)),
        }
    }
    let (name, kind) = leaf.unwrap_or((Vec::new(), Kind::Directory));
    if let Some(line) = excluded(source, &position, &name) {
        let path = position.path_of(&name);
        if kind != Kind::Directory || !holds_anything(source, &path)? {
            return Ok(Found::Missing(Missing {
                directory: position,
                name,
                excluded_by: Some(line),
            }));
        }
    }
    Ok(Found::Entry {
        path: position.path_of(&name),
        kind,
        ways,
    })
}

/// Puts the steps of a link's target in front of what is still to go.
fn follow(target: &[u8], steps: &mut Vec<Step>) {
    for name in target.split(|&byte| byte == b'/').rev() {
        match name {
            b"" | b"." => {}
            b".." => steps.push(Step::Up),
            name => steps.push(Step::Name(name.to_vec())),
        }
    }
    if target.starts_with(b"/") {
        steps.push(Step::Root);
    }
}

/// Returns the line that excludes the entry `name` of `position`, if one does.
fn excluded(source: &Source, position: &Position, name: &[u8]) -> Option<Option<usize>> {
    let path = position.path_of(name);
    if path.is_empty() {
        return None;
    }
    let decision = source.ignore.as_ref()?.decide(&path);
    decision.excluded.then_some(decision.line)
}

/// Tells whether a directory that is excluded has something below it that is not.
fn holds_anything(source: &Source, path: &[u8]) -> Result<bool, ContextError> {
    Ok(match &source.ignore {
        Some(ignore) if !ignore.may_include_below(path) => false,
        _ => Walk::new(source, path, &[], b"")?.next()?.is_some(),
    })
}
