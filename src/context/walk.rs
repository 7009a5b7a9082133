//! Goes through a directory of a source in a fixed order: each directory's entries sorted by their bytes, a directory's
//! contents right after it.
//!
//! What the ignore file or `--exclude` takes out is not shown, and not even listed where nothing below can be in. A directory
//! that is itself excluded but holds something that is not is shown late, just before that thing, as *implied*: mode 0755,
//! owner 0:0, no attributes. Entries that vanish while the walk goes on are passed over.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::RawDir;
use rustix::io::Errno;

use super::error::{ContextError, shown};
use super::meta::Meta;
use super::overlay::{Side, Trails};
use super::source::Source;
use crate::dockerfile::{IgnorePatterns, ParentMatches};

/// A walk; call [`Walk::next`] until it returns `None`. The directory that it starts at is not shown itself.
pub struct Walk<'a> {
    source: &'a Source,
    exclude: Option<Exclude>,
    trail: Trails,
    frames: Vec<Frame>,
    /// How many of the frames have been shown; always the outermost ones.
    shown: usize,
    /// The path of the current entry in the source, without links.
    path: Vec<u8>,
    /// Where the part of `path` below the start begins.
    start: usize,
    current: Option<(Meta, Side)>,
    buffer: Vec<MaybeUninit<u8>>,
    pending: Pending,
    guide: Option<GuideFn<'a>>,
    /// From so many frames on the guide is not asked: a directory that is to be shown is searched for what it holds.
    unguided: Option<usize>,
}

/// Asked with a path below the walk's start.
type GuideFn<'a> = Box<dyn Fn(&[u8]) -> Guide + 'a>;

/// What a search makes of a directory before it is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Guide {
    /// Nothing in it matters.
    Pass,
    /// It is shown like a file, without its contents.
    Show,
    Open,
}

/// The patterns of `--exclude` and the path that they are matched against.
struct Exclude {
    patterns: IgnorePatterns,
    path: Vec<u8>,
    prefix: usize,
}

struct Frame {
    names: Names,
    next: usize,
    path_length: usize,
    /// `None` for the start.
    meta: Option<Meta>,
    implied: bool,
    /// What the patterns of the ignore file and of `--exclude` say of this directory.
    ignored: ParentMatches,
    excluded: ParentMatches,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Pending {
    Nothing,
    Leaf,
    Directory,
}

/// What comes next in a walk.
#[derive(Debug)]
pub enum Visit<'w> {
    /// A directory; its contents follow. `directory` is the directory itself, `None` if it is implied.
    Enter {
        node: Node<'w>,
        directory: Option<BorrowedFd<'w>>,
    },
    /// Anything else; also a directory, where a search does not go into it.
    Leaf(Node<'w>),
    /// The contents of the directory that was entered last are complete.
    Leave,
}

/// One entry.
#[derive(Debug)]
pub struct Node<'w> {
    /// Relative to the walk's start.
    pub path: &'w [u8],
    /// The last component of `path`.
    pub name: &'w [u8],
    /// The same file, relative to the source's root.
    pub source_path: &'w [u8],
    /// With the owner that the file will have.
    pub meta: Meta,
    /// The directory that holds it; for an implied directory possibly one further down.
    pub parent: BorrowedFd<'w>,
}

impl<'a> Walk<'a> {
    /// Starts at `path` of `source`. Patterns of `exclude` match against the path below the start, with `exclude_base` and `/`
    /// before it where that is not empty.
    pub(super) fn new(
        source: &'a Source,
        path: &[u8],
        exclude: &[String],
        exclude_base: &[u8],
    ) -> Result<Walk<'a>, ContextError> {
        let exclude = match exclude {
            [] => None,
            patterns => Some(Exclude::new(patterns, exclude_base)?),
        };
        let start = match path.len() {
            0 => 0,
            length => length + 1,
        };
        let mut walk = Walk {
            source,
            exclude,
            trail: Trails::new(source.open(path)?),
            frames: Vec::new(),
            shown: 1,
            path: path.to_vec(),
            start,
            current: None,
            buffer: vec![MaybeUninit::uninit(); 32 * 1024],
            pending: Pending::Nothing,
            guide: None,
            unguided: None,
        };
        walk.list(None, false)?;
        Ok(walk)
    }

    /// Asks `guide` about each directory, by its path below the start, before opening it. An excluded directory that is to be
    /// shown is opened all the same, since it is only there for what it holds.
    pub(super) fn guided(mut self, guide: impl Fn(&[u8]) -> Guide + 'a) -> Walk<'a> {
        self.guide = Some(Box::new(guide));
        self
    }

    /// Returns the directory that the walk started at.
    pub fn start_meta(&self) -> Result<Meta, ContextError> {
        // Only right before the first step, when the trail has nothing but the start.
        debug_assert_eq!(self.trail.depth(), 0, "asked after the first step");
        self.source
            .meta_of(self.trail.place().main())
            .map_err(|error| ContextError::io("stat", &self.path, error))
    }

    /// Returns the innermost directory; the start before the first step.
    pub fn directory(&self) -> BorrowedFd<'_> {
        self.trail.place().main()
    }

    /// Goes one step.
    #[expect(
        clippy::should_implement_trait,
        reason = "what it returns borrows from the walk, which Iterator cannot say"
    )]
    pub fn next(&mut self) -> Result<Option<Visit<'_>>, ContextError> {
        loop {
            if self.pending != Pending::Nothing {
                if self.shown < self.frames.len() {
                    self.shown += 1;
                    return Ok(Some(self.enter(self.shown - 1)));
                }
                let pending = std::mem::replace(&mut self.pending, Pending::Nothing);
                if pending == Pending::Leaf {
                    return Ok(Some(self.leaf()));
                }
            }
            let Some(frame) = self.frames.last_mut() else {
                return Ok(None);
            };
            self.path.truncate(frame.path_length);
            if frame.next == frame.names.len() {
                if self.leave()? {
                    return Ok(Some(Visit::Leave));
                }
                continue;
            }
            let name = frame.names.get(frame.next);
            frame.next += 1;
            if !self.path.is_empty() {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(name);
            self.look()?;
        }
    }

    /// Passes over the contents of the directory that was entered last.
    pub fn skip(&mut self) -> Result<(), ContextError> {
        while self.frames.len() > self.shown {
            self.up()?;
        }
        self.pending = Pending::Nothing;
        if let Some(frame) = self.frames.last_mut() {
            frame.next = frame.names.len();
        }
        Ok(())
    }

    /// Stats the entry at `path` and decides whether it is pending.
    fn look(&mut self) -> Result<(), ContextError> {
        let name = last_component(&self.path);
        let look = |directory, name: &[u8]| self.source.meta_at(directory, name);
        let (meta, side) = match self.trail.place().find(name, look) {
            Ok(found) => found,
            Err(Errno::NOENT) => return Ok(()),
            Err(error) => return Err(ContextError::io("stat", &self.path, error)),
        };
        let (excluded, may_hold) = self.decide();
        let name = last_component(&self.path);
        if !meta.is_directory() {
            if !excluded {
                self.current = Some((meta, side));
                self.pending = Pending::Leaf;
            }
            return Ok(());
        }
        if excluded && !may_hold {
            return Ok(());
        }
        let guide = match (&self.guide, self.unguided) {
            (Some(guide), None) => guide(&self.path[self.start..]),
            _ => Guide::Open,
        };
        match guide {
            Guide::Pass => return Ok(()),
            Guide::Show if !excluded => {
                self.current = Some((meta, side));
                self.pending = Pending::Leaf;
                return Ok(());
            }
            Guide::Show | Guide::Open => {}
        }
        let directory = match self.trail.place().open(name, side) {
            Ok(directory) => directory,
            Err(Errno::NOENT) => return Ok(()),
            Err(Errno::NOTDIR | Errno::LOOP) => {
                return Err(ContextError::Changed {
                    path: shown(&self.path),
                });
            }
            Err(error) => return Err(ContextError::io("open the directory", &self.path, error)),
        };
        self.trail
            .push(directory)
            .map_err(|error| ContextError::io("open the directory", &self.path, error))?;
        self.list(Some(meta), excluded)?;
        if guide == Guide::Show {
            self.unguided = Some(self.frames.len() - 1);
        }
        if !excluded {
            self.pending = Pending::Directory;
        }
        Ok(())
    }

    /// Reads the innermost directory into a new frame.
    fn list(&mut self, meta: Option<Meta>, implied: bool) -> Result<(), ContextError> {
        let names = self
            .trail
            .place()
            .names(&mut self.buffer)
            .map_err(|error| ContextError::io("list", &self.path, error))?;
        let (ignored, excluded) = self.matches_here();
        let meta = meta.map(|meta| match implied {
            true => meta.implied(),
            false => meta,
        });
        self.frames.push(Frame {
            names,
            next: 0,
            path_length: self.path.len(),
            meta,
            implied,
            ignored,
            excluded,
        });
        Ok(())
    }

    /// Returns what the patterns say of the directory at `path`, handed down from the one above.
    fn matches_here(&mut self) -> (ParentMatches, ParentMatches) {
        let Some(parent) = self.frames.last() else {
            let ignored = match &self.source.ignore {
                Some(ignore) => matches_of(ignore, &self.path),
                None => ParentMatches::default(),
            };
            let excluded = match &self.exclude {
                Some(exclude) => matches_of(&exclude.patterns, exclude.base()),
                None => ParentMatches::default(),
            };
            return (ignored, excluded);
        };
        let ignored = match &self.source.ignore {
            Some(ignore) => ignore.descend(&parent.ignored, &self.path),
            None => ParentMatches::default(),
        };
        let excluded = match &mut self.exclude {
            Some(exclude) => {
                exclude.set(&self.path[self.start..]);
                exclude.patterns.descend(&parent.excluded, &exclude.path)
            }
            None => ParentMatches::default(),
        };
        (ignored, excluded)
    }

    /// Returns whether the entry at `path` is excluded, and whether something below it may nevertheless be in.
    fn decide(&mut self) -> (bool, bool) {
        let (mut excluded, mut may_hold) = (false, true);
        let parent = self.frames.last().expect("the entry is in one");
        if let Some(ignore) = &self.source.ignore
            && ignore.decide_below(&parent.ignored, &self.path).excluded
        {
            excluded = true;
            may_hold &= ignore.may_include_below(&self.path);
        }
        if let Some(exclude) = &mut self.exclude {
            exclude.set(&self.path[self.start..]);
            let decision = exclude
                .patterns
                .decide_below(&parent.excluded, &exclude.path);
            if decision.excluded {
                excluded = true;
                may_hold &= exclude.patterns.may_include_below(&exclude.path);
            }
        }
        (excluded, may_hold)
    }

    fn enter(&self, at: usize) -> Visit<'_> {
        let frame = &self.frames[at];
        let source_path = &self.path[..frame.path_length];
        let meta = frame
            .meta
            .clone()
            .expect("only the start has none, and it is never shown");
        Visit::Enter {
            node: Node {
                path: &source_path[self.start..],
                name: last_component(source_path),
                source_path,
                meta,
                parent: self.trail.place().main(),
            },
            directory: (!frame.implied).then(|| self.trail.place().main()),
        }
    }

    fn leaf(&mut self) -> Visit<'_> {
        let (meta, side) = self
            .current
            .take()
            .expect("set by the look that made it pending");
        Visit::Leaf(Node {
            path: &self.path[self.start..],
            name: last_component(&self.path),
            source_path: &self.path,
            meta,
            parent: self.trail.place().holder(side),
        })
    }

    /// Goes up; tells whether the directory that is left had been shown.
    fn leave(&mut self) -> Result<bool, ContextError> {
        let was_shown = self.frames.len() == self.shown;
        self.up()?;
        if was_shown {
            self.shown -= 1;
        }
        Ok(was_shown && !self.frames.is_empty())
    }

    fn up(&mut self) -> Result<(), ContextError> {
        self.frames.pop();
        if self.unguided == Some(self.frames.len()) {
            self.unguided = None;
        }
        if !self.frames.is_empty() {
            self.trail
                .pop()
                .map_err(|error| ContextError::io("go back up from", &self.path, error))?;
        }
        Ok(())
    }
}

impl Exclude {
    fn new(patterns: &[String], base: &[u8]) -> Result<Exclude, ContextError> {
        let mut path = base.to_vec();
        if !path.is_empty() {
            path.push(b'/');
        }
        Ok(Exclude {
            patterns: IgnorePatterns::from_list(patterns)?,
            prefix: path.len(),
            path,
        })
    }

    /// Makes `path`, which is relative to the walk's start, the one that is matched.
    fn set(&mut self, path: &[u8]) {
        self.path.truncate(self.prefix);
        self.path.extend_from_slice(path);
    }

    fn base(&self) -> &[u8] {
        &self.path[..self.prefix.saturating_sub(1)]
    }
}

/// Goes down to `path` from the root.
fn matches_of(patterns: &IgnorePatterns, path: &[u8]) -> ParentMatches {
    let mut matches = ParentMatches::default();
    let ends = (0..=path.len()).filter(|&at| at == path.len() || path[at] == b'/');
    for end in ends.filter(|&end| end > 0) {
        matches = patterns.descend(&matches, &path[..end]);
    }
    matches
}

/// The names in a directory, sorted, in one allocation for all.
pub(super) struct Names {
    bytes: Vec<u8>,
    places: Vec<(u32, u32)>,
}

impl Names {
    /// Lists `directory` from its beginning; `buffer` is scratch space.
    pub(super) fn read(
        directory: BorrowedFd<'_>,
        buffer: &mut [MaybeUninit<u8>],
    ) -> rustix::io::Result<Names> {
        let (mut bytes, mut places) = (Vec::new(), Vec::new());
        let mut entries = RawDir::new(directory, buffer);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            // A directory with 4 GiB of names does not fit in memory twice over, either.
            let at = u32::try_from(bytes.len()).map_err(|_| Errno::FBIG)?;
            places.push((at, at + name.len() as u32));
            bytes.extend_from_slice(name);
        }
        places.sort_unstable_by(|a, b| {
            bytes[a.0 as usize..a.1 as usize].cmp(&bytes[b.0 as usize..b.1 as usize])
        });
        Ok(Names { bytes, places })
    }

    /// Returns these names and those of another list, each once.
    pub(super) fn and(&self, other: &Names) -> rustix::io::Result<Names> {
        let mut all: Vec<&[u8]> = self.iter().chain(other.iter()).collect();
        all.sort_unstable();
        all.dedup();
        let (mut bytes, mut places) = (Vec::new(), Vec::with_capacity(all.len()));
        for name in all {
            let at = u32::try_from(bytes.len()).map_err(|_| Errno::FBIG)?;
            places.push((at, at + name.len() as u32));
            bytes.extend_from_slice(name);
        }
        Ok(Names { bytes, places })
    }

    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    pub(super) fn get(&self, at: usize) -> &[u8] {
        let (from, to) = self.places[at];
        &self.bytes[from as usize..to as usize]
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len()).map(|at| self.get(at))
    }
}

/// Opens the file `name` of `parent` for reading, without following a link and without ever waiting. Whoever reads it asks the
/// descriptor first whether it is a regular file. `path` is for messages.
pub fn open_file(
    parent: BorrowedFd<'_>,
    name: &[u8],
    path: &[u8],
) -> Result<OwnedFd, ContextError> {
    use rustix::fs::{Mode, OFlags, openat};

    let flags =
        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    openat(parent.as_fd(), name, flags, Mode::empty()).map_err(|error| match error {
        Errno::LOOP | Errno::NXIO => ContextError::Changed { path: shown(path) },
        error => ContextError::io("open", path, error),
    })
}

fn last_component(path: &[u8]) -> &[u8] {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(at) => &path[at + 1..],
        None => path,
    }
}
