//! The digest of what a selection holds: equal for equal images, whatever the host.
//!
//! In it are names, kinds, contents, mode bits, owners as they will be, link targets, device numbers, which files are hard
//! links of each other, and the attributes that a copy keeps. Not in it: times, files that are ignored or excluded, and where
//! the files lie on the host. Of a directory that is a source its own name and metadata are left out as well, since the copy does
//! not take them; with `--parents`, which does, they are in.
//!
//! ```text
//! "builder-selection-1\n"
//! for each root:      'R', kind byte, name, number of parents: u32, { target, mode, uid, gid: u32, attributes: 32 }…
//! for each entry:     kind byte, path, mode, uid, gid: u32, and by kind
//!     'f' file        size: u64, fingerprint: 32
//!     'd' directory   attributes: 32
//!     'l' link        target
//!     'h' hard link   number of the earlier entry of this root: u64
//!     'c' 'b' device  major, minor: u32
//!     'p' FIFO        nothing
//! ```
//!
//! Texts are preceded by their length as u32; numbers are little-endian. *attributes* is the hash of the extended attributes,
//! zeros where there are none; *fingerprint* is the BLAKE3 of a file's bytes, or a keyed hash of that and of its attributes
//! where it has some.

use std::collections::HashMap;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::error::{ContextError, shown};
use super::meta::{Kind, Meta};
use super::select::{SelectedRoot, Selection};
use super::source::Source;
use super::stat_cache::{Fingerprint, StatCache, StatKey, now};
use super::walk::{Node, Visit, open_file};
use super::xattrs::{Xattrs, read_xattrs};
use crate::layer::Mtime;
use crate::vocab::{Digest, Sha256};

pub(super) const FORMAT: &[u8] = b"builder-selection-1\n";
const ATTRIBUTES_CONTEXT: &str = "builder 2026 context attributes 1";
const FINGERPRINT_CONTEXT: &str = "builder 2026 context file with attributes 1";
const CHUNK: usize = 128 * 1024;
/// Limits of what waits to be hashed by several threads: files, and directories that stay open for them.
const BATCH_FILES: usize = 2048;
const BATCH_DIRECTORIES: usize = 64;
/// Longer lists are not kept.
const LISTING_LIMIT: usize = 16 << 20;
/// What other threads are started for.
const WORTH_FILES: usize = 64;
const WORTH_BYTES: u64 = 4 << 20;

impl Selection {
    /// Reads everything that is selected, or asks the stat cache, and returns the digest.
    pub fn digest(&self, source: &Source) -> Result<Digest, ContextError> {
        self.digest_and_listing(source).map(|(digest, _)| digest)
    }

    /// Returns the bytes that were hashed as well, unless these are very many: [`changes`](super::changes) compares two of them.
    pub fn digest_and_listing(
        &self,
        source: &Source,
    ) -> Result<(Digest, Option<Vec<u8>>), ContextError> {
        let mut encoder = Encoder::new(source);
        encoder.bytes.extend_from_slice(FORMAT);
        for root in &self.roots {
            encoder.root(self, root)?;
        }
        encoder.settle()?;
        let mut hash = encoder.hash;
        hash.update(&encoder.bytes[encoder.hashed..]);
        let is_whole = !encoder.is_cut && encoder.bytes.len() <= LISTING_LIMIT;
        Ok((hash.finish(), is_whole.then_some(encoder.bytes)))
    }
}

/// Encodes entries in order. Fingerprints that are not known yet are left open and filled in before the bytes are hashed.
struct Encoder<'a> {
    source: &'a Source,
    hash: Sha256,
    /// All of them, or what comes after those that were let go.
    bytes: Vec<u8>,
    /// How many of them are in the hash.
    hashed: usize,
    /// Some were let go.
    is_cut: bool,
    batch: Vec<Miss>,
    directories: Vec<SharedDirectory>,
    /// First entries of inodes with several names, in the current root.
    linked: HashMap<((u32, u32), u64), u64>,
    entries: u64,
    buffer: Vec<u8>,
}

/// An open directory that waiting files are in.
struct SharedDirectory {
    path: Vec<u8>,
    identity: Option<((u32, u32), u64)>,
    directory: Arc<OwnedFd>,
}

/// A file whose fingerprint the stat cache does not know.
struct Miss {
    directory: Arc<OwnedFd>,
    name: Vec<u8>,
    path: Vec<u8>,
    meta: Meta,
    key: StatKey,
    /// Where in the encoder's bytes the fingerprint goes.
    place: usize,
}

/// What reading a file gave.
struct Hashed {
    fingerprint: Fingerprint,
    /// When reading began, if nothing changed until it ended.
    unchanged_since: Option<Mtime>,
}

impl<'a> Encoder<'a> {
    fn new(source: &'a Source) -> Encoder<'a> {
        Encoder {
            source,
            hash: Sha256::new(),
            bytes: Vec::with_capacity(256 * 1024),
            hashed: 0,
            is_cut: false,
            batch: Vec::new(),
            directories: Vec::new(),
            linked: HashMap::new(),
            entries: 0,
            buffer: Vec::new(),
        }
    }

    fn root(&mut self, selection: &Selection, root: &SelectedRoot) -> Result<(), ContextError> {
        self.linked.clear();
        self.entries = 0;
        self.bytes.push(b'R');
        self.bytes.push(if root.is_directory { b'd' } else { b'e' });
        match root.is_directory {
            true => self.text(b""),
            false => self.text(&root.name),
        }
        self.number(root.parents.len() as u32);
        for parent in &root.parents {
            self.text(&parent.target);
            let (meta, xattrs) = self.source.parent_metadata(&parent.source)?;
            self.metadata(&meta);
            self.bytes.extend_from_slice(&attributes(&xattrs));
        }
        if !root.is_directory {
            let (parent, name) = split(&root.path);
            let directory = self.source.open_holder(parent, name)?;
            let meta = self
                .source
                .meta_at(&directory, name)
                .map_err(|error| ContextError::io("stat", &root.path, error))?;
            let node = Node {
                path: b"",
                name,
                source_path: &root.path,
                meta,
                parent: directory.as_fd(),
            };
            return self.leaf(&node);
        }
        let mut walk = selection.walk(self.source, root)?;
        while let Some(visit) = walk.next()? {
            match visit {
                Visit::Enter { node, directory } => {
                    self.entry(b'd', &node);
                    let hash = match directory {
                        Some(directory) => {
                            attributes(&read_xattrs(directory, &node.meta).map_err(|error| {
                                ContextError::io("read attributes of", node.source_path, error)
                            })?)
                        }
                        None => [0; 32],
                    };
                    self.bytes.extend_from_slice(&hash);
                }
                Visit::Leaf(node) => self.leaf(&node)?,
                Visit::Leave => {}
            }
        }
        Ok(())
    }

    fn leaf(&mut self, node: &Node<'_>) -> Result<(), ContextError> {
        match node.meta.kind {
            Kind::File => self.file(node)?,
            Kind::Socket => {
                self.entry(b'f', node);
                self.bytes.extend_from_slice(&0_u64.to_le_bytes());
                self.bytes.extend_from_slice(blake3::hash(b"").as_bytes());
            }
            Kind::Symlink => {
                let target = rustix::fs::readlinkat(node.parent, node.name, Vec::new())
                    .map_err(|error| ContextError::io("read the link", node.source_path, error))?;
                self.entry(b'l', node);
                self.text(target.as_bytes());
            }
            Kind::CharDevice | Kind::BlockDevice => {
                let kind = match node.meta.kind {
                    Kind::CharDevice => b'c',
                    _ => b'b',
                };
                self.entry(kind, node);
                self.number(node.meta.node.0);
                self.number(node.meta.node.1);
            }
            Kind::Fifo => self.entry(b'p', node),
            Kind::Directory => {
                return Err(ContextError::Changed {
                    path: shown(node.source_path),
                });
            }
        }
        if self.batch.is_empty() && self.bytes.len() - self.hashed >= CHUNK {
            self.hash.update(&self.bytes[self.hashed..]);
            self.hashed = self.bytes.len();
            if self.is_cut || self.bytes.len() > LISTING_LIMIT {
                self.is_cut = true;
                self.bytes.clear();
                self.hashed = 0;
            }
        }
        Ok(())
    }

    fn file(&mut self, node: &Node<'_>) -> Result<(), ContextError> {
        if node.meta.links > 1 {
            let inode = (node.meta.device, node.meta.inode);
            if let Some(&first) = self.linked.get(&inode) {
                self.entry(b'h', node);
                self.bytes.extend_from_slice(&first.to_le_bytes());
                return Ok(());
            }
            self.linked.insert(inode, self.entries);
        }
        self.entry(b'f', node);
        self.bytes.extend_from_slice(&node.meta.size.to_le_bytes());
        let key = StatCache::key(node.source_path, &node.meta);
        if let Some(cache) = &self.source.cache
            && let Some(fingerprint) = cache.lock().unwrap_or_else(|e| e.into_inner()).get(&key)
        {
            self.bytes.extend_from_slice(&fingerprint);
            return Ok(());
        }
        if self.source.threads == 1 {
            self.buffer.resize(CHUNK, 0);
            let hashed = hash_file(
                node.parent.as_fd(),
                node.name,
                node.source_path,
                &node.meta,
                &mut self.buffer,
            )?;
            self.remember(key, &node.meta, &hashed);
            self.bytes.extend_from_slice(&hashed.fingerprint);
            return Ok(());
        }
        let directory = self.shared_directory(node)?;
        self.batch.push(Miss {
            directory,
            name: node.name.to_vec(),
            path: node.source_path.to_vec(),
            meta: node.meta.clone(),
            key,
            place: self.bytes.len(),
        });
        self.bytes.extend_from_slice(&[0; 32]);
        if self.batch.len() >= BATCH_FILES || self.directories.len() >= BATCH_DIRECTORIES {
            self.settle()?;
        }
        Ok(())
    }

    /// Returns a descriptor of the file's directory that other threads can use, one for all of its files.
    fn shared_directory(&mut self, node: &Node<'_>) -> Result<Arc<OwnedFd>, ContextError> {
        let (path, _) = split(node.source_path);
        let failed = |error| ContextError::io("open the directory", path, error);
        // Where a tree lies over another one, two directories have the path.
        let identity = match self.source.has_overlay() {
            true => {
                let meta = Meta::of(node.parent).map_err(failed)?;
                Some((meta.device, meta.inode))
            }
            false => None,
        };
        if let Some(last) = self.directories.last()
            && last.path == path
            && last.identity == identity
        {
            return Ok(Arc::clone(&last.directory));
        }
        let directory = rustix::io::fcntl_dupfd_cloexec(node.parent, 0).map_err(failed)?;
        let directory = Arc::new(directory);
        self.directories.push(SharedDirectory {
            path: path.to_vec(),
            identity,
            directory: Arc::clone(&directory),
        });
        Ok(directory)
    }

    /// Hashes what waits, on all threads, and fills it in.
    fn settle(&mut self) -> Result<(), ContextError> {
        let batch = std::mem::take(&mut self.batch);
        self.directories.clear();
        if batch.is_empty() {
            return Ok(());
        }
        let sizes = batch.iter().map(|miss| miss.meta.size);
        // Holes are sizes that anybody can write.
        let bytes = sizes.fold(0, u64::saturating_add);
        let threads = match batch.len() >= WORTH_FILES || bytes >= WORTH_BYTES {
            true => self.source.threads.min(batch.len()),
            false => 1,
        };
        let next = AtomicUsize::new(0);
        let work = || {
            let mut buffer = vec![0; CHUNK];
            let mut done = Vec::new();
            while let Some((at, miss)) = {
                let at = next.fetch_add(1, Ordering::Relaxed);
                batch.get(at).map(|miss| (at, miss))
            } {
                let directory = miss.directory.as_fd();
                let hashed = hash_file(directory, &miss.name, &miss.path, &miss.meta, &mut buffer);
                let failed = hashed.is_err();
                done.push((at, hashed));
                if failed {
                    next.store(batch.len(), Ordering::Relaxed);
                }
            }
            done
        };
        let results: Vec<_> = std::thread::scope(|scope| {
            let helpers: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
            let mut results = work();
            for helper in helpers {
                results.extend(helper.join().expect("hashing does not panic"));
            }
            results
        });
        for (at, hashed) in results {
            let (hashed, miss) = (hashed?, &batch[at]);
            self.bytes[miss.place..miss.place + 32].copy_from_slice(&hashed.fingerprint);
            self.remember(miss.key, &miss.meta, &hashed);
        }
        Ok(())
    }

    fn remember(&self, key: StatKey, meta: &Meta, hashed: &Hashed) {
        if let (Some(cache), Some(since)) = (&self.source.cache, hashed.unchanged_since) {
            let mut cache = cache.lock().unwrap_or_else(|e| e.into_inner());
            cache.insert(key, meta, hashed.fingerprint, since);
        }
    }

    fn entry(&mut self, kind: u8, node: &Node<'_>) {
        self.entries += 1;
        self.bytes.push(kind);
        self.text(node.path);
        self.metadata(&node.meta);
    }

    fn metadata(&mut self, meta: &Meta) {
        // Links have no mode that anyone could set.
        let mode = if meta.kind == Kind::Symlink {
            0o777
        } else {
            meta.mode
        };
        for number in [mode, meta.uid, meta.gid] {
            self.number(number);
        }
    }

    fn text(&mut self, text: &[u8]) {
        self.number(text.len() as u32);
        self.bytes.extend_from_slice(text);
    }

    fn number(&mut self, number: u32) {
        self.bytes.extend_from_slice(&number.to_le_bytes());
    }
}

fn hash_file(
    directory: std::os::fd::BorrowedFd<'_>,
    name: &[u8],
    path: &[u8],
    meta: &Meta,
    buffer: &mut [u8],
) -> Result<Hashed, ContextError> {
    let began = now();
    let file = open_file(directory, name, path)?;
    let xattrs = read_xattrs(&file, meta)
        .map_err(|error| ContextError::io("read attributes of", path, error))?;
    let mut file = std::fs::File::from(file);
    let mut hasher = blake3::Hasher::new();
    // No more than it was said to have: a log may grow faster than it is read.
    let mut left = meta.size;
    while left > 0 {
        let want = usize::try_from(left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let got = match file.read(&mut buffer[..want]) {
            Ok(0) => break,
            Ok(got) => got,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(source) => {
                return Err(ContextError::Io {
                    verb: "read",
                    path: shown(path),
                    source,
                });
            }
        };
        hasher.update(&buffer[..got]);
        left -= got as u64;
    }
    let after = Meta::of(&file).map_err(|error| ContextError::io("stat", path, error))?;
    if after.kind != Kind::File {
        return Err(ContextError::Changed { path: shown(path) });
    }
    let content = *hasher.finalize().as_bytes();
    let fingerprint = match xattrs.is_empty() {
        true => content,
        false => *blake3::Hasher::new_derive_key(FINGERPRINT_CONTEXT)
            .update(&content)
            .update(&attributes(&xattrs))
            .finalize()
            .as_bytes(),
    };
    Ok(Hashed {
        fingerprint,
        unchanged_since: meta.is_unchanged(&after).then_some(began),
    })
}

fn attributes(xattrs: &Xattrs) -> [u8; 32] {
    if xattrs.is_empty() {
        return [0; 32];
    }
    let mut hasher = blake3::Hasher::new_derive_key(ATTRIBUTES_CONTEXT);
    for text in xattrs.iter().flat_map(|(name, value)| [name, value]) {
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text);
    }
    *hasher.finalize().as_bytes()
}

/// Splits a path into its directory and its last component.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

#[cfg(test)]
#[path = "digest_tests.rs"]
mod tests;
