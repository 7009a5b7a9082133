//! Finds the destination in the root and makes what is missing of it.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::fs::{AtFlags, Dir, Mode, mkdirat, readlinkat, unlinkat};
use rustix::io::Errno;

use super::{Copier, CopyError, io};
use crate::context::{Kind, Meta, Trail, open_directory};

/// As many links as the kernel follows in one path.
const MOST_LINKS: usize = 40;

/// Where a path leads. `path` is the directory's, without links and relative to the root.
pub(super) enum Place {
    Directory {
        directory: OwnedFd,
        path: Vec<u8>,
    },
    /// A name in a directory that is free, or taken by something to be replaced.
    Entry {
        directory: OwnedFd,
        path: Vec<u8>,
        name: Vec<u8>,
    },
}

enum Step {
    Name(Vec<u8>),
    Up,
    Root,
}

/// The directories from the root to where a look-up stands.
struct Position<'a> {
    root: BorrowedFd<'a>,
    below: Vec<(Vec<u8>, OwnedFd)>,
}

impl<'a> Position<'a> {
    fn new(root: BorrowedFd<'a>) -> Position<'a> {
        Position {
            root,
            below: Vec::new(),
        }
    }

    fn directory(&self) -> BorrowedFd<'_> {
        match self.below.last() {
            Some((_, directory)) => directory.as_fd(),
            None => self.root,
        }
    }

    fn path(&self) -> Vec<u8> {
        let names: Vec<&[u8]> = self.below.iter().map(|(name, _)| &name[..]).collect();
        names.join(&b'/')
    }

    fn shown(&self, name: &[u8]) -> PathBuf {
        shown(&self.path(), name)
    }

    /// Ends the look-up here.
    fn into_directory(mut self) -> Result<(OwnedFd, Vec<u8>), CopyError> {
        let path = self.path();
        let directory = match self.below.pop() {
            Some((_, directory)) => directory,
            None => open_directory(self.root, ".")
                .map_err(|error| io("open the directory", shown(b"", b""), error))?,
        };
        Ok((directory, path))
    }
}

impl Copier<'_> {
    /// Tells whether the destination is a directory already; with `link` nothing is there that counts.
    pub(super) fn is_existing_directory(&self) -> Result<bool, CopyError> {
        let destination = self.options.destination.as_bytes();
        if self.options.link {
            return Ok(destination.iter().all(|&byte| byte == b'/'));
        }
        let survey = survey(self.root, destination, true)?;
        Ok(survey.is_some_and(|survey| survey.missing.is_empty()))
    }

    /// Goes to `path` and makes the directories that are missing on the way, and the last one too if `is_directory`.
    pub(super) fn locate(&self, path: &[u8], mut is_directory: bool) -> Result<Place, CopyError> {
        let mut position = Position::new(self.root);
        let (mut links, mut steps) = (0, Vec::new());
        push_steps(path, &mut steps);
        while let Some(step) = steps.pop() {
            let Some(name) = position.take(step) else {
                continue;
            };
            let is_last = steps.is_empty() && !is_directory;
            let kind = match Meta::at(position.directory(), &name[..]) {
                Ok(meta) => Some(meta.kind),
                Err(Errno::NOENT) => None,
                Err(error) => return Err(io("stat", position.shown(&name), error)),
            };
            match kind {
                // What is there counts for nothing: the layer is made as on an empty root.
                _ if is_last && self.options.link => return entry(position, name),
                Some(Kind::Directory) => {
                    position.go_into(name)?;
                    if self.options.link {
                        self.finish_implied(&position)?;
                        self.stamp(position.directory(), &position.path())?;
                    }
                }
                Some(Kind::Symlink) if !self.options.link => {
                    let target = position.follow(&name, &mut links, &mut steps);
                    is_directory |= target? && is_last;
                }
                None | Some(_) if is_last => return entry(position, name),
                None => self.make(&mut position, name)?,
                Some(_) if self.options.link => {
                    remove(position.directory(), &name)
                        .map_err(|error| io("remove", position.shown(&name), error))?;
                    self.make(&mut position, name)?;
                }
                Some(_) => {
                    return Err(CopyError::NotADirectory {
                        path: position.shown(&name),
                    });
                }
            }
        }
        let (directory, path) = position.into_directory()?;
        Ok(Place::Directory { directory, path })
    }

    /// Makes an implied directory and goes into it. The one that holds it has changed, too.
    fn make(&self, position: &mut Position<'_>, name: Vec<u8>) -> Result<(), CopyError> {
        mkdirat(position.directory(), &name[..], Mode::RWXU)
            .map_err(|error| io("make the directory", position.shown(&name), error))?;
        self.stamp(position.directory(), &position.path())?;
        position.go_into(name)?;
        self.finish_implied(position)?;
        self.stamp(position.directory(), &position.path())
    }

    /// Gives the innermost directory the mode and owner of one that is made for what it holds.
    fn finish_implied(&self, position: &Position<'_>) -> Result<(), CopyError> {
        let mode = self.options.mode_of_made();
        self.describe_directory(position.directory(), self.owner(), mode, &|| {
            position.shown(b"")
        })
    }
}

impl Position<'_> {
    /// Does a step that needs no look-up; returns the name of one that does.
    fn take(&mut self, step: Step) -> Option<Vec<u8>> {
        match step {
            Step::Up => drop(self.below.pop()),
            Step::Root => self.below.clear(),
            Step::Name(name) => return Some(name),
        }
        None
    }

    fn go_into(&mut self, name: Vec<u8>) -> Result<(), CopyError> {
        let directory = open_directory(self.directory(), &name[..])
            .map_err(|error| io("open the directory", self.shown(&name), error))?;
        self.below.push((name, directory));
        Ok(())
    }

    /// Puts a link's target in front of the steps to go; tells whether it insists on a directory.
    fn follow(
        &self,
        name: &[u8],
        links: &mut usize,
        steps: &mut Vec<Step>,
    ) -> Result<bool, CopyError> {
        *links += 1;
        if *links > MOST_LINKS {
            return Err(CopyError::Links {
                path: self.shown(name),
            });
        }
        let target = readlinkat(self.directory(), name, Vec::new())
            .map_err(|error| io("read the link", self.shown(name), error))?;
        push_steps(target.as_bytes(), steps);
        Ok(target.as_bytes().ends_with(b"/"))
    }
}

/// What a look-up finds, and what it would make.
pub(super) struct Survey {
    /// The directories that are there, outermost first, each with its name. The root, which all are in, is not among them.
    pub(super) found: Vec<(Vec<u8>, OwnedFd)>,
    /// The names of those that are missing below the last of them.
    pub(super) missing: Vec<Vec<u8>>,
    /// The name of a file that is to go into the last of all these, and whether something has it.
    pub(super) entry: Option<(Vec<u8>, bool)>,
}

/// Goes to `path` as [`Copier::locate`] does without `link`, and makes nothing. `None` where that would fail, or cannot be told
/// without making something: a path that goes up from a directory that is missing.
pub(super) fn survey(
    root: BorrowedFd<'_>,
    path: &[u8],
    mut is_directory: bool,
) -> Result<Option<Survey>, CopyError> {
    let mut position = Position::new(root);
    let mut missing: Vec<Vec<u8>> = Vec::new();
    let (mut links, mut steps) = (0, Vec::new());
    let mut entry = None;
    push_steps(path, &mut steps);
    while let Some(step) = steps.pop() {
        if !missing.is_empty() && !matches!(step, Step::Name(_)) {
            return Ok(None);
        }
        let Some(name) = position.take(step) else {
            continue;
        };
        let is_last = steps.is_empty() && !is_directory;
        let kind = match missing.is_empty() {
            true => match Meta::at(position.directory(), &name[..]) {
                Ok(meta) => Some(meta.kind),
                Err(Errno::NOENT) => None,
                Err(Errno::NAMETOOLONG) => return Ok(None),
                Err(error) => return Err(io("stat", position.shown(&name), error)),
            },
            false => None,
        };
        match kind {
            Some(Kind::Directory) => position.go_into(name)?,
            Some(Kind::Symlink) => {
                let target = position.follow(&name, &mut links, &mut steps);
                is_directory |= target? && is_last;
            }
            found if is_last => entry = Some((name, found.is_some())),
            None => missing.push(name),
            Some(_) => return Ok(None),
        }
    }
    Ok(Some(Survey {
        found: position.below,
        missing,
        entry,
    }))
}

fn entry(position: Position<'_>, name: Vec<u8>) -> Result<Place, CopyError> {
    let (directory, path) = position.into_directory()?;
    Ok(Place::Entry {
        directory,
        path,
        name,
    })
}

/// Puts the steps of `path` on top, the first one last.
fn push_steps(path: &[u8], steps: &mut Vec<Step>) {
    for name in path.split(|&byte| byte == b'/').rev() {
        match name {
            b"" | b"." => {}
            b".." => steps.push(Step::Up),
            name => steps.push(Step::Name(name.to_vec())),
        }
    }
    if path.starts_with(b"/") {
        steps.push(Step::Root);
    }
}

/// Removes whatever `name` of `directory` is, with all below it, following no link. No recursion: a tree may be deeper than the
/// stack.
pub(super) fn remove(directory: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<()> {
    match unlinkat(directory, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => {}
        done => return done,
    }
    let mut trail = Trail::new(open_directory(directory, ".")?);
    let mut frames: Vec<(Vec<u8>, Vec<Vec<u8>>)> = Vec::new();
    enter(&mut trail, &mut frames, name.to_vec())?;
    while let Some((_, names)) = frames.last_mut() {
        let Some(name) = names.pop() else {
            trail.pop()?;
            let (name, _) = frames.pop().expect("just seen");
            unlinkat(trail.directory(), &name[..], AtFlags::REMOVEDIR)?;
            continue;
        };
        match unlinkat(trail.directory(), &name[..], AtFlags::empty()) {
            Err(Errno::ISDIR) => enter(&mut trail, &mut frames, name)?,
            done => done?,
        }
    }
    Ok(())
}

fn enter(
    trail: &mut Trail,
    frames: &mut Vec<(Vec<u8>, Vec<Vec<u8>>)>,
    name: Vec<u8>,
) -> rustix::io::Result<()> {
    let directory = open_directory(trail.directory(), &name[..])?;
    let mut names = Vec::new();
    for entry in Dir::read_from(&directory)? {
        let entry = entry?;
        match entry.file_name().to_bytes() {
            b"." | b".." => {}
            name => names.push(name.to_vec()),
        }
    }
    trail.push(directory)?;
    frames.push((name, names));
    Ok(())
}

/// Returns a path for a message, absolute in the root.
pub(super) fn shown(directory: &[u8], name: &[u8]) -> PathBuf {
    let mut path = PathBuf::from("/");
    path.push(OsStr::from_bytes(directory));
    if !name.is_empty() {
        path.push(OsStr::from_bytes(name));
    }
    path
}
