//! What was fetched for steps and contexts: downloads, mirrors of repositories, and the files of commits.
//!
//! ```text
//! remotes/urls/HASH.json     what a URL gave: digest, length, and the server's marks; its time is the last use, to the day
//! remotes/files/HEX          those bytes, named by their digest
//! remotes/git/HASH/          a bare repository that git keeps; the time of `builder-used` inside is the last use
//! remotes/commits/ID/        commit.json {"size", "boot"} and fs/: the files of one commit
//! ```
//!
//! HASH is of the whole URL; the URL itself is kept without password and query, which may be secrets.
//!
//! All of it can be fetched again. Nothing waits for the disk, so after a crash of the machine a download is compared with its
//! length and a commit's files are added up once more; what is torn is not there. Files here belong to the user, so all but the
//! tree of a commit can be removed from outside of a namespace too.

use std::fs::{File, FileTimes, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::disk::Placed;
use super::inventory::{FoundFile, contents, found_file};
use super::lock::{Lock, TryLock};
use super::session::Session;
use super::unsynced::boot_id;
use super::{Store, StoreError, blobs, disk, fault, records, tree};
use crate::vocab::{CacheKey, Digest, KeyBuilder, Sha256, shown_url};

/// What a URL gave the last time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptDownload {
    pub digest: Digest,
    pub size: u64,
    /// What the server calls this state of the file.
    pub etag: Option<String>,
    /// As the server wrote it.
    pub last_modified: Option<String>,
}

/// `urls/HASH.json`
#[derive(Serialize, Deserialize)]
struct StoredDownload {
    url: String,
    digest: String,
    size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    etag: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_modified: Option<String>,
}

/// `commits/ID/commit.json`
#[derive(Serialize, Deserialize)]
struct StoredCommit {
    size: u64,
    /// The boot during which the files were written, or last compared with `size`.
    boot: String,
}

/// Takes the bytes of a download. Dropped without a commit, it leaves nothing.
pub struct DownloadWriter {
    store: Store,
    session: Arc<Session>,
    path: PathBuf,
    file: File,
    written: u64,
    hash: Sha256,
}

/// The mirror of a repository, held against every other process.
#[derive(Debug)]
pub struct Repository {
    /// May not exist yet, and may hold anything that a killed git left.
    pub path: PathBuf,
    _lock: Lock,
}

/// Files of a commit that are being written. Dropped without a commit, it leaves nothing.
#[derive(Debug)]
pub struct PendingCheckout {
    store: Store,
    dir: PathBuf,
    session: Arc<Session>,
}

/// One thing that can be removed.
#[derive(Debug)]
pub(super) struct FoundRemote {
    /// In the order in which they go.
    pub(super) paths: Vec<PathBuf>,
    pub(super) bytes: u64,
    pub(super) used: SystemTime,
}

impl Store {
    /// Returns what a URL gave, if the bytes are still here.
    pub fn download(&self, url: &str) -> Result<Option<KeptDownload>, StoreError> {
        let path = self.url_path(url);
        let Some(file) = disk::open(&path)? else {
            return Ok(self.download_below(url));
        };
        let bytes = disk::read_open(&file, 64 << 10).unwrap_or_default();
        let Some(kept) = decode(&bytes) else {
            return Ok(None);
        };
        if self.file_size(&kept.digest) != Some(kept.size) {
            return Ok(None);
        }
        records::note_use(&file);
        Ok(Some(kept))
    }

    /// Returns what a URL gave to a lower store, if it has the bytes.
    fn download_below(&self, url: &str) -> Option<KeptDownload> {
        self.lower_stores().find_map(|lower| {
            let kept = decode(&lower.bytes(&url_path_in(lower.home(), url), 64 << 10)?)?;
            let file = download_path_in(lower.home(), &kept.digest);
            (lower.size(&file) == Some(kept.size)).then_some(kept)
        })
    }

    /// Opens the bytes of a download without checking them.
    pub fn downloaded(&self, digest: &Digest) -> Result<Option<File>, StoreError> {
        if let Some(file) = disk::open(&self.download_path(digest))? {
            return Ok(Some(file));
        }
        let mut lowers = self.lower_stores();
        Ok(lowers.find_map(|lower| lower.file(&download_path_in(lower.home(), digest))))
    }

    /// Starts a download.
    pub fn download_writer(&self) -> Result<DownloadWriter, StoreError> {
        let session = self.session()?;
        let path = session.unique();
        let file = fault::growth()
            .and_then(|()| {
                OpenOptions::new()
                    .read(true)
                    .write(true)
                    .create_new(true)
                    .open(&path)
            })
            .map_err(|error| StoreError::from_io(&path, "write", error))?;
        Ok(DownloadWriter {
            store: self.clone(),
            session,
            path,
            file,
            written: 0,
            hash: Sha256::new(),
        })
    }

    /// Takes the mirror of a repository; waits while another process has it.
    pub fn repository(&self, url: &str) -> Result<Repository, StoreError> {
        let key = KeyBuilder::new("repository").add("url", url).finish().0;
        let lock = match self.try_lock(&key)? {
            TryLock::Acquired(lock) => lock,
            TryLock::Held { .. } => self.lock(&key)?,
        };
        let place = self.path("remotes/git");
        disk::make_dirs(&place)?;
        let path = place.join(key.to_string());
        // Noted where it can be; git makes the directory.
        if path.is_dir() {
            drop(touch(&path.join("builder-used")));
        }
        Ok(Repository { path, _lock: lock })
    }

    /// Removes a mirror that git cannot use.
    pub fn forget_repository(&self, repository: &Repository) -> Result<(), StoreError> {
        tree::remove(&repository.path)
    }

    /// Returns the files of a commit, if they are here whole.
    pub fn checkout(&self, id: &Digest) -> Result<Option<PathBuf>, StoreError> {
        let dir = self.checkout_dir(id);
        let path = dir.join("commit.json");
        let Some(file) = disk::open(&path)? else {
            return Ok(None);
        };
        let bytes = disk::read_open(&file, 4096).unwrap_or_default();
        let Ok(stored) = serde_json::from_slice::<StoredCommit>(&bytes) else {
            return Ok(None);
        };
        let fs = dir.join("fs");
        if stored.boot != boot_id() {
            if !fs.is_dir() || tree::size(&fs)? != stored.size {
                return Ok(None);
            }
            // If it cannot be written, the files are added up again the next time.
            drop(
                self.session()
                    .and_then(|session| session.put(&path, &encode_commit(stored.size))),
            );
        }
        records::note_use(&file);
        Ok(Some(fs))
    }

    /// Takes the right to write the files of a commit; waits while another process does so.
    pub fn lock_checkout(&self, id: &Digest) -> Result<Lock, StoreError> {
        self.lock(&CacheKey(*id))
    }

    /// Starts the files of a commit.
    pub fn new_checkout(&self) -> Result<PendingCheckout, StoreError> {
        let session = self.session()?;
        let pending = PendingCheckout {
            store: self.clone(),
            dir: session.unique(),
            session,
        };
        disk::make_dir(&pending.dir, 0o700)?;
        disk::make_dir(&pending.fs(), 0o755)?;
        Ok(pending)
    }

    fn url_path(&self, url: &str) -> PathBuf {
        url_path_in(self.root(), url)
    }

    fn download_path(&self, digest: &Digest) -> PathBuf {
        download_path_in(self.root(), digest)
    }

    fn checkout_dir(&self, id: &Digest) -> PathBuf {
        self.path("remotes/commits").join(id.hex())
    }

    fn file_size(&self, digest: &Digest) -> Option<u64> {
        let metadata = std::fs::symlink_metadata(self.download_path(digest)).ok()?;
        metadata.is_file().then_some(metadata.len())
    }

    /// Finds everything that was fetched; what is torn goes to `junk`.
    pub(super) fn found_remotes(
        &self,
        junk: &mut Vec<PathBuf>,
    ) -> Result<Vec<FoundRemote>, StoreError> {
        let mut found: Vec<FoundRemote> = Vec::new();
        let mut files = std::collections::BTreeMap::new();
        for (name, path) in disk::entries(&self.path("remotes/files"))? {
            match (Digest::from_hex(&name), found_file(&path)) {
                (Some(digest), Some(file)) => {
                    files.insert(digest, file);
                }
                _ => junk.push(path),
            }
        }
        let mut urls: std::collections::BTreeMap<Digest, Vec<FoundFile>> = Default::default();
        for (_, path) in disk::entries(&self.path("remotes/urls"))? {
            let kept = contents(&path).and_then(|bytes| decode(&bytes));
            match (kept, found_file(&path)) {
                (Some(kept), Some(file))
                    if files
                        .get(&kept.digest)
                        .is_some_and(|found| found.bytes == kept.size) =>
                {
                    urls.entry(kept.digest).or_default().push(file);
                }
                _ => junk.push(path),
            }
        }
        for (digest, file) in files {
            match urls.remove(&digest) {
                None => junk.push(file.path),
                Some(named) => found.push(FoundRemote {
                    bytes: file.bytes + named.iter().map(|url| url.bytes).sum::<u64>(),
                    used: named
                        .iter()
                        .map(|url| url.used)
                        .max()
                        .unwrap_or(SystemTime::UNIX_EPOCH),
                    paths: named
                        .into_iter()
                        .map(|url| url.path)
                        .chain([file.path])
                        .collect(),
                }),
            }
        }
        for (name, mark) in [("git", "builder-used"), ("commits", "commit.json")] {
            for (_, path) in disk::entries(&self.path("remotes").join(name))? {
                match found_file(&path.join(mark)) {
                    None => junk.push(path),
                    Some(mark) => found.push(FoundRemote {
                        // Outside of the namespace some of it may not be readable: then it counts for what is.
                        bytes: tree::size(&path).unwrap_or(mark.bytes),
                        used: mark.used,
                        paths: vec![mark.path, path],
                    }),
                }
            }
        }
        Ok(found)
    }

    /// Tells what is wrong with things that were fetched: the path, and whether its bytes are damaged.
    pub(super) fn remote_problems(&self) -> Result<Vec<(PathBuf, &'static str)>, StoreError> {
        let mut problems = Vec::new();
        for (_, path) in disk::entries(&self.path("remotes/files"))? {
            if let Some(what) = self.remote_problem(&path) {
                problems.push((path, what));
            }
        }
        for (_, path) in disk::entries(&self.path("remotes/commits"))? {
            if let Some(what) = self.remote_problem(&path) {
                problems.push((path, what));
            }
        }
        Ok(problems)
    }

    /// Tells what is wrong with a download or with the files of a commit; `None` also where the path is neither.
    pub(super) fn remote_problem(&self, path: &Path) -> Option<&'static str> {
        let folder = path.parent()?;
        if folder == self.path("remotes/files") {
            let digest = path
                .file_name()
                .and_then(|name| name.to_str())
                .and_then(Digest::from_hex);
            return match digest {
                None => Some("not a download"),
                Some(digest) => match blobs::hash_file(path) {
                    Ok(found) if found == digest => None,
                    Err(error) if disk::is_absent(&error) => None,
                    _ => Some("a download has other bytes than its name says"),
                },
            };
        }
        if folder == self.path("remotes/commits") && path.exists() {
            let stored = contents(&path.join("commit.json"))
                .and_then(|bytes| serde_json::from_slice::<StoredCommit>(&bytes).ok());
            let size = tree::size(&path.join("fs")).ok();
            return match stored {
                Some(stored) if size == Some(stored.size) => None,
                Some(_) => Some("the files of a commit are not whole"),
                None => Some("the files of a commit are incomplete"),
            };
        }
        None
    }
}

impl DownloadWriter {
    /// Forgets what was written.
    pub fn restart(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.written = 0;
        self.hash = Sha256::new();
        Ok(())
    }

    /// Returns the digest of what was written.
    pub fn digest(&self) -> Digest {
        self.hash.clone().finish()
    }

    /// Returns how many bytes were written.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Keeps the bytes as what `url` gave. An earlier download of it stays for whoever else named it.
    pub fn commit(
        self,
        url: &str,
        etag: Option<String>,
        last_modified: Option<String>,
    ) -> Result<KeptDownload, StoreError> {
        let kept = KeptDownload {
            digest: self.digest(),
            size: self.written,
            etag,
            last_modified,
        };
        let to = self.store.download_path(&kept.digest);
        if self.store.file_size(&kept.digest) != Some(kept.size) {
            disk::rename_over(&self.path, &to)?;
        }
        let stored = StoredDownload {
            url: shown_url(url),
            digest: kept.digest.hex(),
            size: kept.size,
            etag: kept.etag.clone(),
            last_modified: kept.last_modified.clone(),
        };
        let bytes = serde_json::to_vec(&stored).expect("texts and numbers are always JSON");
        self.session.put(&self.store.url_path(url), &bytes)?;
        Ok(kept)
    }

    /// Turns an error of writing into the store's own, which knows what to do about a full disk.
    pub fn error(&self, error: io::Error) -> StoreError {
        StoreError::from_io(self.session.dir(), "write a download", error)
    }
}

impl Write for DownloadWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        fault::growth()?;
        let count = self.file.write_at(bytes, self.written)?;
        self.written += count as u64;
        self.hash.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for DownloadWriter {
    fn drop(&mut self) {
        // After a commit that moved it there is nothing to remove.
        drop(disk::remove_file(&self.path));
    }
}

impl PendingCheckout {
    /// Returns the directory to fill.
    pub fn fs(&self) -> PathBuf {
        self.dir.join("fs")
    }

    /// Makes the files the commit's, in one step; returns where they are. The caller holds [`Store::lock_checkout`].
    pub fn commit(self, id: &Digest) -> Result<PathBuf, StoreError> {
        let size = tree::size(&self.fs())?;
        disk::write_private(&self.dir.join("commit.json"), &encode_commit(size))?;
        let to = self.store.checkout_dir(id);
        while disk::place_dir(&self.dir, &to)? == Placed::Occupied {
            // Torn, or nobody would write it again.
            disk::remove_file(&to.join("commit.json"))?;
            tree::remove(&to)?;
        }
        Ok(to.join("fs"))
    }
}

impl Drop for PendingCheckout {
    fn drop(&mut self) {
        // After a commit there is nothing; otherwise the session's end would remove it too.
        drop(tree::remove(&self.dir));
        let _session = &self.session;
    }
}

fn url_path_in(home: &Path, url: &str) -> PathBuf {
    let key = KeyBuilder::new("url").add("url", url).finish().0;
    home.join("remotes/urls").join(format!("{key}.json"))
}

fn download_path_in(home: &Path, digest: &Digest) -> PathBuf {
    home.join("remotes/files").join(digest.hex())
}

fn encode_commit(size: u64) -> Vec<u8> {
    let stored = StoredCommit {
        size,
        boot: boot_id().to_owned(),
    };
    serde_json::to_vec(&stored).expect("texts and numbers are always JSON")
}

fn decode(bytes: &[u8]) -> Option<KeptDownload> {
    let stored: StoredDownload = serde_json::from_slice(bytes).ok()?;
    Some(KeptDownload {
        digest: Digest::from_hex(&stored.digest)?,
        size: stored.size,
        etag: stored.etag,
        last_modified: stored.last_modified,
    })
}

fn touch(path: &Path) -> io::Result<()> {
    fault::growth()?;
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)?;
    file.set_times(FileTimes::new().set_modified(SystemTime::now()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::store;
    use crate::store::{ProblemKind, PruneOptions};
    use std::fs;
    use std::time::Duration;

    fn download(store: &Store, url: &str, bytes: &[u8]) -> KeptDownload {
        let mut writer = store.download_writer().unwrap();
        writer.write_all(b"cut").unwrap();
        writer.restart().unwrap();
        writer.write_all(bytes).unwrap();
        writer.commit(url, Some("\"e\"".to_owned()), None).unwrap()
    }

    fn checkout(store: &Store, id: &Digest, content: &str) -> PathBuf {
        let _lock = store.lock_checkout(id).unwrap();
        let pending = store.new_checkout().unwrap();
        fs::write(pending.fs().join("f"), content).unwrap();
        pending.commit(id).unwrap()
    }

    #[test]
    fn a_download_is_found_by_its_url_and_keeps_no_secret() {
        let (_dir, store) = store();
        let url = "https://user:hunter2@host/a?token=hunter2";
        let kept = download(&store, url, b"hello");
        assert_eq!(kept.digest, Digest::of(b"hello"));
        assert_eq!(store.download(url).unwrap(), Some(kept.clone()));
        assert_eq!(store.download("https://host/a").unwrap(), None);
        let text = fs::read_to_string(store.url_path(url)).unwrap();
        assert!(!text.contains("hunter2"), "{text}");
        // Bytes that a crash has cut are not there, and can come again.
        fs::write(store.download_path(&kept.digest), "hel").unwrap();
        assert_eq!(store.download(url).unwrap(), None);
        download(&store, url, b"hello");
        assert!(store.download(url).unwrap().is_some());
        // A newer state takes the place of the older.
        download(&store, url, b"other");
        let other = store.download(url).unwrap().unwrap();
        assert_eq!(other.digest, Digest::of(b"other"));
        assert!(
            disk::names(store.session().unwrap().dir())
                .unwrap()
                .is_empty()
        );
    }

    #[test]
    fn a_torn_commit_is_not_there_and_is_written_again() {
        let (_dir, store) = store();
        let id = Digest::of(b"commit");
        assert_eq!(store.checkout(&id).unwrap(), None);
        let fs_path = checkout(&store, &id, "content");
        assert_eq!(store.checkout(&id).unwrap(), Some(fs_path.clone()));
        let mark = store.checkout_dir(&id).join("commit.json");
        let other_boot = r#"{"size":7,"boot":"another"}"#;
        fs::write(&mark, other_boot).unwrap();
        assert!(store.checkout(&id).unwrap().is_some());
        assert!(!fs::read_to_string(&mark).unwrap().contains("another"));
        fs::write(&mark, other_boot).unwrap();
        fs::write(fs_path.join("f"), "").unwrap();
        assert_eq!(store.checkout(&id).unwrap(), None);
        let problems = store.verify().unwrap();
        assert_eq!(problems.len(), 1, "{problems:?}");
        checkout(&store, &id, "content");
        assert!(store.checkout(&id).unwrap().is_some());
        assert_eq!(store.verify().unwrap(), []);
    }

    #[test]
    fn what_was_fetched_goes_with_all_or_by_age() {
        let (_dir, store) = store();
        let fill = || {
            download(&store, "https://x/new", b"new");
            download(&store, "https://x/old", b"old");
            checkout(&store, &Digest::of(b"commit"), "content");
            let repository = store.repository("https://x/a.git").unwrap();
            fs::create_dir(&repository.path).unwrap();
            fs::write(repository.path.join("HEAD"), "x").unwrap();
            drop(repository);
            drop(store.repository("https://x/a.git").unwrap());
            let old = File::options()
                .write(true)
                .open(store.url_path("https://x/old"))
                .unwrap();
            old.set_modified(SystemTime::now() - Duration::from_secs(10 * 86400))
                .unwrap();
        };
        fill();
        let pruned = store.prune(&PruneOptions::default()).unwrap();
        assert_eq!(pruned.remotes.count, 0);
        assert_eq!(store.disk_usage().unwrap().remotes.count, 4);
        let pruned = store
            .prune(&PruneOptions {
                older_than: Some(Duration::from_secs(5 * 86400)),
                ..PruneOptions::default()
            })
            .unwrap();
        assert_eq!(pruned.remotes.count, 1);
        assert!(store.download("https://x/old").unwrap().is_none());
        assert!(store.download("https://x/new").unwrap().is_some());
        let reclaimable = store.disk_usage().unwrap().remotes.reclaimable;
        let pruned = store
            .prune(&PruneOptions {
                all: true,
                ..PruneOptions::default()
            })
            .unwrap();
        assert_eq!(pruned.remotes.count, 3);
        assert_eq!(pruned.remotes.bytes, reclaimable);
        assert!(pruned.failures.is_empty());
        assert_eq!(store.disk_usage().unwrap().remotes.count, 0);
        fill();
        let pruned = store
            .prune(&PruneOptions {
                keep_bytes: Some(0),
                ..PruneOptions::default()
            })
            .unwrap();
        assert_eq!(pruned.remotes.count, 4);
    }

    #[test]
    fn damaged_downloads_are_found_and_repaired() {
        let (_dir, store) = store();
        let kept = download(&store, "https://x/a", b"good");
        fs::write(store.download_path(&kept.digest), "evil").unwrap();
        let problems = store.verify().unwrap();
        assert_eq!(problems.len(), 1);
        assert_eq!(problems[0].kind, ProblemKind::DamagedBlob);
        assert_eq!(store.repair(&problems).unwrap(), 1);
        assert_eq!(store.verify().unwrap(), []);
        assert_eq!(store.download("https://x/a").unwrap(), None);
    }
}
