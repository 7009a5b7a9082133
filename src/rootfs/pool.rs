//! Roots without overlayfs: plain directories, each of which stands for a chain of layers.
//!
//! A step changes its root in place. When its layer is sealed, the tree stands for the chain with that layer on top, and the
//! next step of the stage takes it as it is: a stage costs one composition, whatever the number of its steps. A chain is
//! looked for
//!
//! 1. among the trees that stand for exactly it; readers share one, a writer wants it alone;
//! 2. among idle trees that stand for its beginning: the longest is taken, and the layers that are missing are added;
//! 3. else a tree is composed from the layer directories.
//!
//! ```text
//! idle ── write ──> busy ── sealed ──> idle, for one layer more        a writer that gives up takes the tree along
//!  │ └─── read ───> read by n ── last reader gone ──> idle
//! ```
//!
//! Trees lie in a directory of the caller's that goes with the build; nothing of them is kept beyond it. When the disk is
//! full, or too many are idle, the one that was used longest ago goes.

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::fs::Mode;

use crate::vocab::{Cancel, Ledger, Ownership};

use super::compose::add_layer;
use super::error::{During, RootfsError};
use super::index::Index;
use super::owners::Owners;
use super::remove::remove_tree;
use super::resolve::READ_DIRECTORY;
use super::scan::{self, Before, ScanStats};
use super::tree::Tree;
use super::twins::{self, Change, Twins};

/// So many trees may lie idle: as many stages as usual builds have.
const IDLE: usize = 8;

/// The trees of one build. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Trees(Arc<Pool>);

/// A tree that one step changes. Dropped before it stands for something again, it goes.
#[derive(Debug)]
pub struct TreeWriter {
    taken: Taken,
    /// What was written down when the step began.
    ledger: Option<Ledger>,
}

#[derive(Debug)]
struct Pool {
    directory: PathBuf,
    ownership: Ownership,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    slots: Vec<Slot>,
    /// Counts trees, and uses.
    next: u64,
}

/// A tree, as the pool sees it.
#[derive(Debug)]
struct Slot {
    id: u64,
    chain: Vec<PathBuf>,
    used: u64,
    holder: Holder,
}

#[derive(Debug)]
enum Holder {
    Idle(Box<Standing>),
    /// Being made what the chain says, for readers.
    Making,
    /// Whatever it becomes, it will not be what the chain says.
    Writing,
    Readers(usize, Box<Standing>),
}

/// A tree that stands for a chain.
struct Standing {
    /// Holds `root/`, and `scratch/` for what is not yet in place.
    path: PathBuf,
    root: OwnedFd,
    scratch: OwnedFd,
    /// The tree as it is; `None` where nobody has asked yet.
    index: Option<Index>,
    twins: Vec<Twins>,
    owners: Owners,
}

impl Trees {
    /// Returns a pool whose trees are made in `directory`, which need not exist.
    pub fn new(directory: PathBuf, ownership: Ownership) -> Trees {
        Trees(Arc::new(Pool {
            directory,
            ownership,
            state: Mutex::default(),
            changed: Condvar::new(),
        }))
    }

    /// Returns the root that a chain of layer directories, lowest first, makes. Nobody changes it while the [`Tree`] or a clone
    /// of it lives.
    pub fn read(&self, chain: &[PathBuf], cancel: &Cancel) -> Result<Tree, RootfsError> {
        let mut taken = match self.0.find_for_reading(chain, cancel)? {
            ForReading::Shared(tree) => return Ok(tree),
            ForReading::Mine(taken) => taken,
        };
        taken.compose(chain, cancel)?;
        let standing = taken.standing();
        standing.join(cancel)?;
        let root = standing.root.try_clone().during("clone", "/")?;
        let owners = standing.owners.clone();
        let (pool, id) = (Arc::clone(&taken.pool), taken.id);
        taken.give_back(|standing| Holder::Readers(1, standing));
        let reading = Some(Arc::new(Reading { pool, id }));
        Ok(Tree::composed(root, owners, reading))
    }

    /// Returns the root that a chain makes, for a step that changes it.
    pub fn write(&self, chain: &[PathBuf], cancel: &Cancel) -> Result<TreeWriter, RootfsError> {
        let mut taken = self.0.take(chain, Holder::Writing);
        taken.compose(chain, cancel)?;
        let standing = taken.standing();
        standing.index(cancel)?;
        standing.part(cancel)?;
        let index = standing.index.as_ref().expect("made above");
        scan::await_tick(standing.scratch.as_fd(), index)
            .during("read the clock of", standing.path.as_os_str().as_bytes())?;
        let ledger = standing.owners.ledger();
        Ok(TreeWriter { taken, ledger })
    }

    /// Returns a root of its own that a chain makes, whose changes are nobody's: it goes with what is returned.
    pub fn copy(&self, chain: &[PathBuf], cancel: &Cancel) -> Result<TreeWriter, RootfsError> {
        let mut taken = self.0.add(chain, Holder::Writing);
        taken.compose(chain, cancel)?;
        Ok(TreeWriter {
            taken,
            ledger: None,
        })
    }
}

impl TreeWriter {
    /// Opens the root.
    pub fn tree(&self) -> Result<Tree, RootfsError> {
        let root = self.standing().root.try_clone().during("clone", "/")?;
        Ok(Tree::composed(root, self.owners().clone(), None))
    }

    /// Returns where the truth about the root's files is.
    pub fn owners(&self) -> &Owners {
        &self.standing().owners
    }

    fn standing(&self) -> &Standing {
        let standing = self.taken.standing.as_ref();
        standing.expect("there until it is given back")
    }

    /// Puts everything that has changed since [`Trees::write`] into the empty directory `upper`, in the form of a layer. Nothing
    /// may write to the tree any more.
    pub fn fill(&mut self, upper: &Path, cancel: &Cancel) -> Result<ScanStats, RootfsError> {
        let ledger = self.ledger.take();
        let standing = self.taken.standing();
        let index = standing.index.take().expect("made before the step");
        let before = Before {
            index: &index,
            owners: &standing.owners,
            rewritten: match (&ledger, standing.owners.ledger()) {
                (Some(before), Some(after)) => scan::rewritten(before, &after),
                _ => HashSet::new(),
            },
        };
        let filled = scan::fill(standing.root.as_fd(), &before, upper, cancel)?;
        twins::forget_changed(&mut standing.twins, &index, &filled.index);
        standing.twins.extend(filled.twins);
        standing.index = Some(filled.index);
        Ok(filled.stats)
    }

    /// Gives the tree back as what the chain with `layer` on top makes: the directory that [`TreeWriter::fill`] has filled, at
    /// its final place.
    pub fn seal(mut self, layer: PathBuf) {
        self.taken.chain.push(layer);
        self.taken.give_back(Holder::Idle);
    }
}

/// A reader's share of a tree.
#[derive(Debug)]
pub(super) struct Reading {
    pool: Arc<Pool>,
    id: u64,
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.pool.end_reading(self.id);
    }
}

enum ForReading {
    Shared(Tree),
    Mine(Taken),
}

impl Pool {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find_for_reading(
        self: &Arc<Pool>,
        chain: &[PathBuf],
        cancel: &Cancel,
    ) -> Result<ForReading, RootfsError> {
        /// How soon a cancelled build is seen.
        const PAUSE: Duration = Duration::from_millis(100);
        let mut state = self.lock();
        loop {
            let used = state.count();
            let mut being_made = false;
            for slot in state.slots.iter_mut().filter(|slot| slot.chain == chain) {
                match &mut slot.holder {
                    Holder::Readers(count, standing) => {
                        let root = standing.root.try_clone().during("clone", "/")?;
                        let owners = standing.owners.clone();
                        *count += 1;
                        slot.used = used;
                        let (pool, id) = (Arc::clone(self), slot.id);
                        drop(state);
                        let reading = Some(Arc::new(Reading { pool, id }));
                        return Ok(ForReading::Shared(Tree::composed(root, owners, reading)));
                    }
                    Holder::Making => being_made = true,
                    Holder::Idle(_) | Holder::Writing => {}
                }
            }
            if !being_made {
                return Ok(ForReading::Mine(self.take_from(
                    state,
                    chain,
                    Holder::Making,
                )));
            }
            if cancel.is_cancelled() {
                return Err(RootfsError::Cancelled);
            }
            let waited = self.changed.wait_timeout(state, PAUSE);
            (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn take(self: &Arc<Pool>, chain: &[PathBuf], holder: Holder) -> Taken {
        self.take_from(self.lock(), chain, holder)
    }

    /// Takes the idle tree that is nearest to `chain`, or a place for one.
    fn take_from(
        self: &Arc<Pool>,
        mut state: MutexGuard<'_, State>,
        chain: &[PathBuf],
        holder: Holder,
    ) -> Taken {
        let used = state.count();
        let idle = |slot: &&mut Slot| {
            matches!(slot.holder, Holder::Idle(_)) && chain.starts_with(&slot.chain)
        };
        let nearest = state.slots.iter_mut().filter(idle);
        let Some(slot) = nearest.max_by_key(|slot| slot.chain.len()) else {
            drop(state);
            return self.add(chain, holder);
        };
        slot.used = used;
        let has = std::mem::replace(&mut slot.chain, chain.to_vec());
        let Holder::Idle(standing) = std::mem::replace(&mut slot.holder, holder) else {
            unreachable!("only idle ones were looked at")
        };
        Taken {
            pool: Arc::clone(self),
            id: slot.id,
            chain: has,
            standing: Some(standing),
        }
    }

    fn add(self: &Arc<Pool>, chain: &[PathBuf], holder: Holder) -> Taken {
        let mut state = self.lock();
        let id = state.count();
        state.slots.push(Slot {
            id,
            chain: chain.to_vec(),
            used: id,
            holder,
        });
        Taken {
            pool: Arc::clone(self),
            id,
            chain: Vec::new(),
            standing: None,
        }
    }

    fn end_reading(&self, id: u64) {
        let mut state = self.lock();
        if let Some(slot) = state.slots.iter_mut().find(|slot| slot.id == id)
            && let Holder::Readers(count, _) = &mut slot.holder
        {
            *count -= 1;
            if *count == 0 {
                let holder = std::mem::replace(&mut slot.holder, Holder::Making);
                let Holder::Readers(_, standing) = holder else {
                    unreachable!("matched above")
                };
                slot.holder = Holder::Idle(standing);
            }
        }
        drop(state);
        self.remove_idle(IDLE);
        self.changed.notify_all();
    }

    /// Removes the idle trees that were used longest ago until `kept` are left. Tells whether there was one.
    fn remove_idle(&self, kept: usize) -> bool {
        let mut removed = Vec::new();
        let mut state = self.lock();
        loop {
            let is_idle = |slot: &&Slot| matches!(slot.holder, Holder::Idle(_));
            let idle = state.slots.iter().filter(is_idle);
            let oldest = idle.clone().min_by_key(|slot| slot.used);
            let (count, oldest) = (idle.count(), oldest.map(|slot| slot.id));
            let Some(oldest) = oldest.filter(|_| count > kept) else {
                break;
            };
            state.slots.retain_mut(|slot| {
                if slot.id != oldest {
                    return true;
                }
                if let Holder::Idle(standing) = std::mem::replace(&mut slot.holder, Holder::Making)
                {
                    removed.push(standing);
                }
                false
            });
        }
        drop(state);
        for standing in &removed {
            standing.remove();
        }
        !removed.is_empty()
    }
}

impl State {
    fn count(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

/// A tree that was taken out of the pool, or a place for one. Dropped before it is given back, it goes.
struct Taken {
    pool: Arc<Pool>,
    id: u64,
    /// What `standing` stands for.
    chain: Vec<PathBuf>,
    standing: Option<Box<Standing>>,
}

impl Taken {
    fn standing(&mut self) -> &mut Standing {
        self.standing.as_mut().expect("composed before it is used")
    }

    /// Makes the tree what `chain` says, which begins with what it stands for.
    fn compose(&mut self, chain: &[PathBuf], cancel: &Cancel) -> Result<(), RootfsError> {
        match self.add_layers(chain, cancel) {
            Err(error) if is_full(&error) && self.pool.remove_idle(0) => {
                if let Some(half_made) = self.standing.take() {
                    half_made.remove();
                }
                self.chain.clear();
                self.add_layers(chain, cancel)
            }
            composed => composed,
        }
    }

    fn add_layers(&mut self, chain: &[PathBuf], cancel: &Cancel) -> Result<(), RootfsError> {
        if self.standing.is_none() {
            let path = self.pool.directory.join(self.id.to_string());
            self.standing = Some(Box::new(Standing::make(path, self.pool.ownership)?));
        }
        let layers = &chain[self.chain.len()..];
        if layers.is_empty() {
            return Ok(());
        }
        let standing = self.standing();
        standing.index = None;
        for layer in layers {
            let root = standing.root.as_fd();
            add_layer(root, layer, &standing.owners, &mut standing.twins, cancel)?;
        }
        if !standing.twins.is_empty() {
            let index = standing.index(cancel)?;
            let index = std::mem::take(index);
            twins::forget_replaced(&mut standing.twins, &index);
            standing.index = Some(index);
        }
        self.chain = chain.to_vec();
        Ok(())
    }

    fn give_back(mut self, holder: impl FnOnce(Box<Standing>) -> Holder) {
        let standing = self.standing.take().expect("composed before it is used");
        let mut state = self.pool.lock();
        let used = state.count();
        if let Some(slot) = state.slots.iter_mut().find(|slot| slot.id == self.id) {
            slot.chain = std::mem::take(&mut self.chain);
            slot.used = used;
            slot.holder = holder(standing);
        }
        drop(state);
        self.pool.remove_idle(IDLE);
        self.pool.changed.notify_all();
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        // Given back.
        let is_mine = |slot: &Slot| {
            slot.id == self.id && matches!(slot.holder, Holder::Making | Holder::Writing)
        };
        let mut state = self.pool.lock();
        let count = state.slots.len();
        state.slots.retain(|slot| !is_mine(slot));
        let is_lost = state.slots.len() < count;
        drop(state);
        if is_lost {
            self.pool.changed.notify_all();
        }
        if let Some(standing) = self.standing.take() {
            standing.remove();
        }
    }
}

impl fmt::Debug for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Taken").field(&self.standing).finish()
    }
}

impl Standing {
    /// Makes an empty tree, as the root of no layers is.
    fn make(path: PathBuf, ownership: Ownership) -> Result<Standing, RootfsError> {
        let shown = path.as_os_str().as_bytes();
        let make = || -> io::Result<(OwnedFd, OwnedFd)> {
            remove_tree(&path)?;
            std::fs::create_dir_all(&path)?;
            let directory = rustix::fs::open(&path, READ_DIRECTORY, Mode::empty())?;
            let open = |name: &str| {
                rustix::fs::mkdirat(&directory, name, Mode::RWXU)?;
                rustix::fs::openat(&directory, name, READ_DIRECTORY, Mode::empty())
            };
            let (root, scratch) = (open("root")?, open("scratch")?);
            // Nobody but the builder comes to it by its path.
            rustix::fs::fchmod(&directory, Mode::RWXU)?;
            rustix::fs::fchmod(&root, Mode::from_raw_mode(0o755))?;
            Ok((root, scratch))
        };
        let (root, scratch) = make().during("make a tree at", shown)?;
        Ok(Standing {
            path,
            root,
            scratch,
            index: None,
            twins: Vec::new(),
            owners: Owners::new(ownership),
        })
    }

    fn index(&mut self, cancel: &Cancel) -> Result<&mut Index, RootfsError> {
        if self.index.is_none() {
            self.index = Some(scan::index(self.root.as_fd(), cancel)?);
        }
        Ok(self.index.as_mut().expect("set above"))
    }

    fn part(&mut self, cancel: &Cancel) -> Result<(), RootfsError> {
        let (mut change, twins) = self.change(cancel);
        change.part(twins)
    }

    fn join(&mut self, cancel: &Cancel) -> Result<(), RootfsError> {
        let (mut change, twins) = self.change(cancel);
        change.join(twins)
    }

    fn change<'a>(&'a mut self, cancel: &'a Cancel) -> (Change<'a>, &'a mut [Twins]) {
        let change = Change {
            root: self.root.as_fd(),
            scratch: self.scratch.as_fd(),
            owners: &self.owners,
            index: self.index.as_mut(),
            cancel,
        };
        (change, &mut self.twins)
    }

    fn remove(&self) {
        // What cannot be removed goes with the directory of all trees.
        remove_tree(&self.path).ok();
    }
}

impl fmt::Debug for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Standing").field(&self.path).finish()
    }
}

fn is_full(error: &RootfsError) -> bool {
    matches!(error, RootfsError::Io { source, .. }
        if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
}
