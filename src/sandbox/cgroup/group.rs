//! One command's groups: a directory in each tree that limits it, made before the command starts and removed after its end.
//!
//! Init is put into them before it is told what to run, so that everything that it starts is born inside.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::error::GroupError;
use super::hierarchy::Version;
use super::own::{self, counted, text};
use super::setting::Setting;

/// How long the kernel may take to forget processes that were killed.
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(2);

/// The groups of one command. Dropping it kills whatever is still in them and removes them.
#[derive(Debug)]
pub struct StepGroup {
    directories: Vec<PathBuf>,
    /// The directory that limits memory, and the limit.
    pub(super) memory: Option<(Version, PathBuf, u64)>,
}

/// Whose memory ran out when a process of a group was killed for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutOfMemory {
    /// The group reached its limit, in bytes.
    Own { limit: u64 },
    /// What is around the group: another group, or the machine.
    Around,
}

impl StepGroup {
    pub(super) fn new() -> StepGroup {
        StepGroup {
            directories: Vec::new(),
            memory: None,
        }
    }

    /// Makes a directory of the group.
    pub(super) fn make(&mut self, version: Version, directory: PathBuf) -> Result<(), GroupError> {
        fs::create_dir(&directory).map_err(|source| GroupError::Denied {
            path: directory.parent().unwrap_or(&directory).to_owned(),
            source,
        })?;
        self.directories.push(directory);
        let directory = &self.directories[self.directories.len() - 1];
        inherit_sets(version, directory)
    }

    /// Tells whether its memory is limited, and so watched.
    pub fn limits_memory(&self) -> bool {
        self.memory.is_some()
    }

    /// Tells whether the kernel has killed one of its processes because memory ran out. `None` for a group without a limit.
    pub fn out_of_memory(&self) -> Option<OutOfMemory> {
        let (version, directory, limit) = self.memory.as_ref()?;
        if counted(&own::oom_counter(directory, *version)) == Some(0) {
            return None;
        }
        Some(match own::reached_limit(directory, *version) {
            true => OutOfMemory::Own { limit: *limit },
            false => OutOfMemory::Around,
        })
    }

    /// Puts a process with all its threads into the groups.
    pub(in crate::sandbox) fn admit(&self, pid: u32) -> Result<(), GroupError> {
        for directory in &self.directories {
            let path = directory.join("cgroup.procs");
            write(&path, &pid.to_string()).map_err(|source| GroupError::Write { path, source })?;
        }
        Ok(())
    }
}

impl Drop for StepGroup {
    fn drop(&mut self) {
        for directory in &self.directories {
            // What is left is in the register.
            remove(directory);
        }
    }
}

/// Sets one limit of the group in `directory`.
pub(super) fn set(directory: &Path, setting: &Setting) -> Result<(), GroupError> {
    let what = setting.what.name();
    for (name, value) in &setting.files {
        write(&directory.join(name), value).map_err(|source| match source.raw_os_error() {
            Some(libc::EINVAL | libc::ERANGE | libc::EBUSY | libc::ENODEV | libc::ENOSPC) => {
                GroupError::Refused {
                    what,
                    value: value.clone(),
                    source,
                }
            }
            _ => GroupError::NoSetting { what, source },
        })?;
    }
    Ok(())
}

/// In version 1 a group takes nobody before it has processors and memory nodes.
pub(super) fn inherit_sets(version: Version, directory: &Path) -> Result<(), GroupError> {
    if version == Version::Two {
        return Ok(());
    }
    for name in ["cpuset.cpus", "cpuset.mems"] {
        let parent = directory.parent().and_then(|parent| text(parent, name));
        if let Some(set) =
            parent.filter(|_| text(directory, name).is_some_and(|set| set.is_empty()))
        {
            let path = directory.join(name);
            write(&path, &set).map_err(|source| GroupError::Write { path, source })?;
        }
    }
    Ok(())
}

/// Writes to a file that the kernel has made, in one piece.
pub(super) fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).open(path)?;
    file.write_all(text.as_bytes())
}

/// Kills everything in a group and removes it, with all groups below. Returns whether it is gone.
pub(super) fn remove(group: &Path) -> bool {
    let deadline = Instant::now() + PATIENCE;
    loop {
        // Commands that may make groups of their own are few; mostly this is the one call.
        let gone = match fs::remove_dir(group) {
            Ok(()) => true,
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        };
        if gone || Instant::now() > deadline {
            return gone;
        }
        kill(group);
        for below in groups_below(group) {
            remove(&below);
        }
        sleep(PAUSE);
    }
}

fn groups_below(group: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(group).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

fn kill(group: &Path) {
    // Linux 5.14, version 2; takes the groups below along.
    if write(&group.join("cgroup.kill"), "1").is_ok() {
        return;
    }
    let members = || text(group, "cgroup.procs").unwrap_or_default();
    for member in members().lines() {
        let pid = member.parse().ok().and_then(Pid::from_raw);
        let Some(Ok(process)) = pid.map(|pid| pidfd_open(pid, PidfdFlags::empty())) else {
            continue;
        };
        // The number may have gone to somebody else in between, who then is no member.
        if members().lines().any(|other| other == member) {
            // Fails if it has ended.
            pidfd_send_signal(&process, Signal::KILL).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::super::setting::What;
    use super::*;

    #[test]
    fn a_value_at_fault_is_told_from_a_machine_at_fault() {
        let directory = TempDir::new().unwrap();
        let setting = Setting {
            what: What::Memory,
            is_implied: false,
            files: vec![("memory.max", "5".to_owned())],
        };
        let error = set(directory.path(), &setting).unwrap_err();
        assert!(matches!(error, GroupError::NoSetting { .. }), "{error:?}");
        fs::write(directory.path().join("memory.max"), "max").unwrap();
        set(directory.path(), &setting).unwrap();
        assert_eq!(text(directory.path(), "memory.max").unwrap(), "5ax");
    }

    #[test]
    fn a_version_1_group_gets_the_sets_of_its_parent() {
        let parent = TempDir::new().unwrap();
        let child = parent.path().join("child");
        fs::create_dir(&child).unwrap();
        fs::write(parent.path().join("cpuset.cpus"), "0-3\n").unwrap();
        fs::write(parent.path().join("cpuset.mems"), "0\n").unwrap();
        fs::write(child.join("cpuset.cpus"), "\n").unwrap();
        fs::write(child.join("cpuset.mems"), "1\n").unwrap();
        inherit_sets(Version::One, &child).unwrap();
        assert_eq!(text(&child, "cpuset.cpus").unwrap(), "0-3");
        assert_eq!(text(&child, "cpuset.mems").unwrap(), "1");
        inherit_sets(Version::One, parent.path()).unwrap();
    }

    #[test]
    fn a_group_that_is_gone_needs_no_removal() {
        let directory = TempDir::new().unwrap();
        assert!(remove(&directory.path().join("gone")));
        let group = directory.path().join("group");
        fs::create_dir_all(group.join("below/lower")).unwrap();
        assert!(remove(&group));
        assert!(!group.exists());
    }
}
