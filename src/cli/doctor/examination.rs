//! What is found out.

use std::path::{Path, PathBuf};

use crate::pipeline::Failure;
use crate::rootfs;
use crate::sandbox::{self, Choice, Facts, Finding, SandboxError};
use crate::store::{LowerStore, Store};
use crate::vocab::{Diagnostic, ExitCode, Rung, StorageDriver};

/// Everything that is shown.
pub(super) struct Examination {
    pub(super) facts: Facts,
    /// Version of Landlock's interface; 0: none.
    pub(super) landlock: u32,
    pub(super) cpus: usize,
    pub(super) memory: Option<u64>,
    pub(super) findings: Vec<Finding>,
    /// The rung of `--isolation`.
    pub(super) asked: Option<Rung>,
    /// The rung that a build takes; `None` if there is none.
    pub(super) taken: Option<Rung>,
    pub(super) storage: Storage,
}

/// Where and how roots are kept.
pub(super) struct Storage {
    pub(super) directory: PathBuf,
    /// The directory itself, or what there is of its path.
    pub(super) probed: PathBuf,
    pub(super) file_system: String,
    pub(super) free: u64,
    pub(super) driver: StorageDriver,
    /// Why it is not overlayfs, or why it is this one.
    pub(super) reason: Option<String>,
    pub(super) lowers: Vec<Lower>,
}

/// A state directory below it.
pub(super) struct Lower {
    pub(super) root: PathBuf,
    pub(super) state: LowerState,
}

/// What a build can use of it.
pub(super) enum LowerState {
    Unusable(String),
    /// Records, images and blobs, and layers once they are unpacked: why.
    Blobs(String),
    /// Unpacked layers as well.
    All,
}

impl Examination {
    /// Tries everything, and enters the rung that is taken: the process is of no other use afterwards.
    pub(super) fn perform(
        directory: PathBuf,
        lowers: &[PathBuf],
        asked: Option<Rung>,
        driver: Option<StorageDriver>,
    ) -> Result<Examination, Failure> {
        let facts = Facts::gather();
        let findings = sandbox::survey().map_err(|error| failed(&error))?;
        let works = |finding: &&Finding| {
            asked.is_none_or(|rung| finding.rung == rung) && finding.outcome.is_ok()
        };
        let taken = findings.iter().find(works).map(|finding| finding.rung);
        let lacks = findings.iter().find(works).map(|finding| {
            let lacks = finding.outcome.as_ref();
            lacks.map_or_else(|_| Vec::new(), Clone::clone)
        });
        let choice = taken.zip(lacks).map(|(rung, lacks)| Choice {
            rung,
            lacks,
            refused: Vec::new(),
        });
        let mut storage = Storage::find(directory, taken, driver);
        storage.lowers = storage.look_at(lowers, choice.as_ref());
        Ok(Examination {
            facts,
            landlock: sandbox::landlock_version(),
            cpus: sandbox::cpu_quota(),
            memory: sandbox::memory_limit(),
            findings,
            asked,
            taken,
            storage,
        })
    }

    /// Returns those that would be better than the one taken.
    pub(super) fn better(&self) -> impl Iterator<Item = (Rung, &SandboxError)> {
        self.findings
            .iter()
            .filter(|finding| self.taken.is_none_or(|taken| finding.rung < taken))
            .filter_map(|finding| Some((finding.rung, finding.outcome.as_ref().err()?)))
    }
}

impl Storage {
    fn find(directory: PathBuf, taken: Option<Rung>, asked: Option<StorageDriver>) -> Storage {
        let probed = directory
            .ancestors()
            .find(|path| path.is_dir())
            .unwrap_or(Path::new("/"))
            .to_owned();
        let (file_system, free) = match rustix::fs::statfs(&probed) {
            Ok(found) => (
                file_system_name(found.f_type as u64),
                found.f_bavail * found.f_bsize as u64,
            ),
            Err(errno) => (errno.to_string(), 0),
        };
        let overlay = || match taken {
            Some(rung) if rung.has_namespaces() => overlay_works(rung, &probed),
            Some(rung) => Err(format!("nothing can be mounted by `{rung}`")),
            None => Err("nothing can be mounted".to_owned()),
        };
        let (driver, reason) = match asked {
            Some(driver) => (driver, Some("as asked for".to_owned())),
            None => match overlay() {
                Ok(()) => (StorageDriver::Overlay, None),
                Err(why) => (StorageDriver::Tree, Some(why)),
            },
        };
        Storage {
            directory,
            probed,
            file_system,
            free,
            driver,
            reason,
            lowers: Vec::new(),
        }
    }

    /// Finds out what of lower stores can be used where steps are executed.
    fn look_at(&self, lowers: &[PathBuf], choice: Option<&Choice>) -> Vec<Lower> {
        let all = |problem: &str| {
            let state = || LowerState::Unusable(problem.to_owned());
            let lower = |root: &PathBuf| Lower {
                root: root.clone(),
                state: state(),
            };
            lowers.iter().map(lower).collect()
        };
        // Nothing is entered for nothing.
        if lowers.is_empty() {
            return Vec::new();
        }
        let store = match Store::open_over(&self.directory, lowers) {
            Ok(store) => store,
            Err(error) => return all(&with_sources(&error)),
        };
        let mut refused = Vec::new();
        if let Some(choice) = choice {
            let ownership = choice.ownership();
            store.set_ownership(ownership);
            // Where overlayfs was not tried, nothing was entered yet.
            let entered = match sandbox::entered() {
                true => Ok(choice.rung),
                false => sandbox::enter(choice),
            };
            refused = store.refuse_trees(&|witness| {
                if let Err(error) = &entered {
                    return Err(with_sources(error));
                }
                rootfs::check_witness(witness, ownership).map_err(|error| error.to_string())
            });
        }
        let state = |lower: &LowerStore| {
            let why = refused.iter().find(|(root, _)| *root == lower.root);
            match (&lower.problem, why) {
                (Some(problem), _) => LowerState::Unusable(problem.clone()),
                (None, Some((_, why))) => LowerState::Blobs(why.clone()),
                (None, None) if store.uses_trees_of(lower) => LowerState::All,
                (None, None) => LowerState::Blobs(
                    "it has none of the kind that this process uses, or copies of them".to_owned(),
                ),
            }
        };
        let lowers = store.lowers();
        let lowers = lowers.into_iter().map(|lower| Lower {
            state: state(&lower),
            root: lower.root,
        });
        lowers.collect()
    }
}

fn overlay_works(rung: Rung, directory: &Path) -> Result<(), String> {
    let choice = Choice {
        rung,
        lacks: Vec::new(),
        refused: Vec::new(),
    };
    sandbox::enter(&choice).map_err(|error| with_sources(&error))?;
    rootfs::overlay_works(directory).map_err(|error| with_sources(&error))
}

/// Returns an error and what is behind it on one line.
pub(super) fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(&format!(": {error}"));
        source = error.source();
    }
    text
}

fn failed(error: &SandboxError) -> Failure {
    let diagnostic = Diagnostic::error("this environment cannot be examined").caused_by(error);
    Failure::new(ExitCode::Sandbox, diagnostic)
}

/// Names a file system by the number in its superblock.
fn file_system_name(magic: u64) -> String {
    match magic {
        0xef53 => "ext4",
        0x0102_1994 => "tmpfs",
        0x794c_7630 => "overlay",
        0x5846_5342 => "xfs",
        0x9123_683e => "btrfs",
        0x6969 => "nfs",
        0x2fc1_2fc1 => "zfs",
        0x6573_5546 => "fuse",
        0xf2f5_2010 => "f2fs",
        0x5346_544e => "ntfs",
        0xff53_4d42 | 0xfe53_4d42 => "smb",
        0x0102_1997 => "9p",
        0x00c3_6400 => "ceph",
        0xca45_1a4e => "bcachefs",
        other => return format!("{other:#x}"),
    }
    .to_owned()
}
