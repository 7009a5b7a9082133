//! The store itself: where it is, what format it has, and the session of this process.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::lower::{Lower, LowerStore};
use super::session::Session;
use super::{StoreError, disk, unsynced};
use crate::vocab::{Digest, LayerId, Ownership};

/// The content of `format`.
pub(super) const FORMAT: &str = "builder-store 1";
/// The content of `oci/oci-layout`.
const OCI_LAYOUT: &[u8] = b"{\"imageLayoutVersion\":\"1.0.0\"}";

/// A state directory. Clones share one session; all methods may be called from any thread.
#[derive(Clone, Debug)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// `ROOT/v1`
    home: PathBuf,
    /// The directories are known to exist.
    prepared: AtomicBool,
    /// Made by the first writer; its folder goes with the last clone of the store and the last unfinished thing.
    session: Mutex<Option<Arc<Session>>>,
    /// Where the owners of unpacked layers are, once it is known.
    ownership: OnceLock<Ownership>,
    /// Layers that a crash of the machine may have torn.
    suspects: Mutex<HashSet<LayerId>>,
    /// Looked into in this order, after this one.
    lowers: Vec<Lower>,
    /// Those that nothing is used of, with the reasons.
    unused_lowers: Vec<LowerStore>,
    /// What is in a lower store and turned out to be of no use.
    passed_over: Mutex<PassedOver>,
}

/// Things of lower stores that are not there any more for this process.
#[derive(Debug, Default)]
struct PassedOver {
    layers: HashSet<LayerId>,
    blobs: HashSet<Digest>,
}

impl Store {
    /// Opens the state directory, which need not exist: it is made by the first write.
    ///
    /// Costs a handful of system calls and changes nothing.
    pub fn open(root: &Path) -> Result<Store, StoreError> {
        Store::open_over(root, &[])
    }

    /// Opens the state directory over others, which are looked into in that order where it does not have something, and which are
    /// never written to. One that cannot be used is left out (see [`Store::lowers`]).
    pub fn open_over(root: &Path, lowers: &[PathBuf]) -> Result<Store, StoreError> {
        let home = std::path::absolute(root)
            .map_err(|error| StoreError::from_io(root, "find", error))?
            .join("v1");
        let format_path = home.join("format");
        // An empty file is what a crash of the machine makes of one that was just written.
        let format = disk::read(&format_path, 4096)?.filter(|bytes| !bytes.is_empty());
        if let Some(found) = &format
            && found.trim_ascii() != FORMAT.as_bytes()
        {
            return Err(StoreError::Version {
                path: format_path,
                wanted: FORMAT,
                found: printable(found),
            });
        }
        let suspects = unsynced::suspects(&home.join("unsynced"))?;
        let (lowers, unused_lowers) = open_lowers(&home, lowers);
        Ok(Store {
            inner: Arc::new(Inner {
                home,
                prepared: AtomicBool::new(format.is_some()),
                session: Mutex::new(None),
                ownership: OnceLock::new(),
                suspects: Mutex::new(suspects),
                lowers,
                unused_lowers,
                passed_over: Mutex::default(),
            }),
        })
    }

    /// Returns the lower stores: those that are used, in the order in which they are asked, and then those that are not.
    pub fn lowers(&self) -> Vec<LowerStore> {
        let used = self.inner.lowers.iter().map(|lower| LowerStore {
            root: lower.root().to_owned(),
            problem: None,
        });
        used.chain(self.inner.unused_lowers.iter().cloned())
            .collect()
    }

    /// Lets `usable` look at the witness of each lower store that has trees of this process' kind, if it has a witness; returns the
    /// stores whose trees are not used from now on, with the reasons. Called from where steps are executed.
    pub fn refuse_trees(
        &self,
        usable: &dyn Fn(&Path) -> Result<(), String>,
    ) -> Vec<(PathBuf, String)> {
        let ownership = self.ownership();
        let mut refused = Vec::new();
        for lower in self
            .lower_stores()
            .filter(|lower| lower.has_trees(ownership))
        {
            if let Err(why) = usable(&witness_in(lower.home(), ownership)) {
                lower.refuse(ownership);
                refused.push((lower.root().to_owned(), why));
            }
        }
        refused
    }

    /// Tells whether a lower store has trees that this process can use where they are.
    pub fn uses_trees_of(&self, lower: &LowerStore) -> bool {
        let mut used = self.lower_stores();
        used.any(|used| used.root() == lower.root && used.has_usable_trees(self.ownership()))
    }

    /// Puts a witness beside the trees of this process' kind, unless there is one: a directory that `fill` fills.
    pub fn put_witness<E>(
        &self,
        fill: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<Result<(), E>, StoreError> {
        let place = witness_in(self.root(), self.ownership());
        if place.exists() {
            return Ok(Ok(()));
        }
        let dir = self.session()?.unique();
        disk::make_dir(&dir, 0o755)?;
        if let Err(error) = fill(&dir) {
            return Ok(Err(error));
        }
        disk::place_dir(&dir, &place)?;
        Ok(Ok(()))
    }

    /// Leaves out a layer's tree of the lower stores, which turned out to be gone or of no use. What is not in this store is not
    /// there then, unless it can be unpacked. Tells whether that is new, and there is a lower store.
    pub fn pass_over_layer(&self, id: &LayerId) -> bool {
        let mut passed_over = unpoisoned(self.inner.passed_over.lock());
        !self.inner.lowers.is_empty() && passed_over.layers.insert(*id)
    }

    /// Leaves out a blob of the lower stores, if it is one of theirs; tells whether it was.
    pub fn pass_over_blob(&self, digest: &Digest) -> bool {
        if self.own_blob_size(digest).is_some() || self.blob_size(digest).is_none() {
            return false;
        }
        let mut passed_over = unpoisoned(self.inner.passed_over.lock());
        passed_over.blobs.insert(*digest)
    }

    /// Tells whether a layer of the lower stores is to be left out.
    pub(super) fn passes_over_layer(&self, id: &LayerId) -> bool {
        unpoisoned(self.inner.passed_over.lock())
            .layers
            .contains(id)
    }

    /// Tells whether a blob of the lower stores is to be left out.
    pub(super) fn passes_over_blob(&self, digest: &Digest) -> bool {
        unpoisoned(self.inner.passed_over.lock())
            .blobs
            .contains(digest)
    }

    /// Returns the lower stores that are used.
    pub(super) fn lower_stores(&self) -> impl Iterator<Item = &Lower> {
        self.inner.lowers.iter()
    }

    /// Says where the owners of unpacked layers are, from now on: in this store, for this process and all clones. The first call
    /// counts. Before it layers of both kinds are taken for being there, afterwards those of this kind, and those that can be
    /// unpacked anew.
    pub fn set_ownership(&self, ownership: Ownership) {
        let known = *self.inner.ownership.get_or_init(|| ownership);
        debug_assert_eq!(known, ownership, "trees of two kinds do not mix");
    }

    /// Returns where the owners of the layers are that this process unpacks and makes.
    pub fn ownership(&self) -> Ownership {
        self.known_ownership().unwrap_or(Ownership::OnDisk)
    }

    /// Returns what was said by [`Store::set_ownership`].
    pub(super) fn known_ownership(&self) -> Option<Ownership> {
        self.inner.ownership.get().copied()
    }

    /// Returns `ROOT/v1`.
    pub fn root(&self) -> &Path {
        &self.inner.home
    }

    /// Returns the directory that is an OCI image layout.
    pub fn oci_layout(&self) -> PathBuf {
        self.path("oci")
    }

    /// Returns where the context room remembers what it knows of one directory, named by that directory's identity. The parent
    /// exists after the call, unless it cannot be made; then writing there fails and reading finds nothing.
    ///
    /// Readers must bear a torn file, and writers must rename a complete one into place.
    pub fn stat_cache_path(&self, context_identity: &Path) -> PathBuf {
        use std::os::unix::ffi::OsStrExt;
        let name = Digest::of(context_identity.as_os_str().as_bytes()).hex();
        let contexts = self.path("contexts");
        if !contexts.is_dir() {
            // The writer will meet the same error and may tell it.
            drop(self.prepare());
        }
        contexts.join(name)
    }

    /// Returns the directory in which builds register the control groups of their steps. It need not exist.
    pub fn groups_path(&self) -> PathBuf {
        self.path("groups")
    }

    /// Returns a directory of this session for any use; it and all inside go with the last clone of the store.
    pub fn work_dir(&self) -> Result<PathBuf, StoreError> {
        let path = self.session()?.dir().join("work");
        disk::make_dir(&path, 0o700)?;
        Ok(path)
    }

    /// Returns `ROOT/v1/name`.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.inner.home.join(name)
    }

    /// Makes the directories of a new store.
    pub(super) fn prepare(&self) -> Result<(), StoreError> {
        if self.inner.prepared.load(Ordering::Acquire) {
            return Ok(());
        }
        disk::make_dirs(self.root())?;
        for name in [
            "tmp",
            "locks",
            "layers",
            "records",
            "packed",
            "contexts",
            "ingredients",
            "listings",
            "unsynced",
            "oci",
            "oci/blobs",
            "oci/blobs/sha256",
        ] {
            disk::make_dir(&self.path(name), 0o700)?;
        }
        let session = self.session_of_prepared()?;
        session.put(&self.path("oci/oci-layout"), OCI_LAYOUT)?;
        // Last, so that it vouches for all the others.
        session.put(&self.path("format"), format!("{FORMAT}\n").as_bytes())?;
        self.inner.prepared.store(true, Ordering::Release);
        Ok(())
    }

    /// Returns this process's session, made by the first call.
    pub(super) fn session(&self) -> Result<Arc<Session>, StoreError> {
        self.prepare()?;
        self.session_of_prepared()
    }

    fn session_of_prepared(&self) -> Result<Arc<Session>, StoreError> {
        let mut session = unpoisoned(self.inner.session.lock());
        if session.is_none() {
            *session = Some(Arc::new(Session::start(&self.path("tmp"))?));
        }
        Ok(Arc::clone(session.as_ref().expect("it was just made")))
    }

    /// Returns the layers that are hidden because a crash of the machine may have torn them.
    pub(super) fn suspects(&self) -> MutexGuard<'_, HashSet<LayerId>> {
        unpoisoned(self.inner.suspects.lock())
    }
}

/// Opens what can be used, each store once; the upper one is none of its own lower ones.
fn open_lowers(home: &Path, roots: &[PathBuf]) -> (Vec<Lower>, Vec<LowerStore>) {
    let identity = |home: &Path| {
        use std::os::unix::fs::MetadataExt;
        let metadata = std::fs::metadata(home).ok()?;
        Some((metadata.dev(), metadata.ino()))
    };
    let mut seen: Vec<_> = identity(home).into_iter().collect();
    let (mut lowers, mut unused) = (Vec::new(), Vec::new());
    for root in roots {
        let opened = Lower::open(root).and_then(|lower| match identity(lower.home()) {
            Some(identity) if seen.contains(&identity) => {
                Err("it is the state directory itself, or was named before".to_owned())
            }
            identity => {
                seen.extend(identity);
                Ok(lower)
            }
        });
        match opened {
            Ok(lower) => lowers.push(lower),
            Err(problem) => unused.push(LowerStore {
                root: root.clone(),
                problem: Some(problem),
            }),
        }
    }
    (lowers, unused)
}

fn witness_in(home: &Path, ownership: Ownership) -> PathBuf {
    home.join("witness").join(match ownership {
        Ownership::OnDisk => "on-disk",
        Ownership::DevicesInLedger => "devices",
        Ownership::InLedger => "ledger",
    })
}

/// The values behind the locks are whole at every line, so a panic elsewhere does not spoil them.
fn unpoisoned<T>(result: Result<T, PoisonError<T>>) -> T {
    result.unwrap_or_else(PoisonError::into_inner)
}

fn printable(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes)
        .trim()
        .chars()
        .take(40)
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}
