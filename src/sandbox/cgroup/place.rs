//! Where groups of commands can be made.
//!
//! In version 1, below the builder's own group. In version 2 a group that hands controllers down has no processes of its own, so
//! there are three ways, of which the first that is open is taken:
//!
//! 1. the own group, if the builder is alone in it: it moves into a leaf of it, and back at its end;
//! 2. the nearest group above that has no processes, or is the root of all, as long as no group on the way limits anything: so
//!    nothing is escaped;
//! 3. with `--cgroup-parent`, the group of that name.
//!
//! Nobody else is moved. A controller that a group has but does not hand down is handed down from then on, as container runtimes do it.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Access, access};

use super::error::GroupError;
use super::group;
use super::hierarchy::{Controller, Hierarchies, Hierarchy, Version};
use super::own::{binds, own_group, text};
use super::register::Register;

const PROCESSES: &str = "cgroup.procs";
const HANDED_DOWN: &str = "cgroup.subtree_control";

/// Where groups can be made in one tree, found by looking.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place {
    version: Version,
    parent: PathBuf,
    needed: Vec<Controller>,
    /// What `parent` has and has to hand down.
    lacking: Vec<Controller>,
    /// The builder has to leave `parent` for that.
    is_in_the_way: bool,
    /// Groups to go down from `parent`. Those that are missing are made, and stay.
    below: PathBuf,
}

impl Place {
    /// Right in a group, which nobody has to leave.
    fn plain(version: Version, parent: &Path, needed: &[Controller]) -> Place {
        let lacking = match version {
            Version::One => Vec::new(),
            Version::Two => needed.to_vec(),
        };
        Place {
            version,
            parent: parent.to_owned(),
            needed: needed.to_vec(),
            lacking,
            is_in_the_way: false,
            below: PathBuf::new(),
        }
    }
}

/// A group that groups are made in.
#[derive(Debug)]
pub(super) struct Site {
    pub(super) version: Version,
    pub(super) parent: PathBuf,
    /// Undone when nothing more is made here.
    _moved: Option<Moved>,
}

/// Returns the tree in which a limit of one controller is possible.
pub(super) fn look(
    hierarchies: &Hierarchies,
    controller: Controller,
) -> Result<&Hierarchy, GroupError> {
    let hierarchy = hierarchies.of(controller).ok_or(GroupError::NotMounted {
        controller: controller.name(),
    })?;
    find(hierarchy, &[controller], None).map(|_| hierarchy)
}

/// Finds the place for groups with these controllers; with `parent` it is the group of that name, which may have to be made.
pub(super) fn find(
    hierarchy: &Hierarchy,
    needed: &[Controller],
    parent: Option<&str>,
) -> Result<Place, GroupError> {
    let Some(name) = parent else {
        return nearest(hierarchy, needed);
    };
    let (is_absolute, below) = named(name).ok_or_else(|| GroupError::Name {
        name: name.to_owned(),
    })?;
    let mut place = if is_absolute {
        if hierarchy.version == Version::Two {
            has(&hierarchy.top, needed)?;
        }
        Place::plain(hierarchy.version, &hierarchy.top, needed)
    } else {
        nearest(hierarchy, needed)?
    };
    place.below = below;
    Ok(place)
}

fn nearest(hierarchy: &Hierarchy, needed: &[Controller]) -> Result<Place, GroupError> {
    let own = own_group(hierarchy)?;
    if hierarchy.version == Version::One {
        may_make(own)?;
        return Ok(Place::plain(Version::One, own, needed));
    }
    let mut refused = None;
    for group in hierarchy.levels() {
        match unified_place(group, group == own, needed, std::process::id()) {
            Ok(place) => return Ok(place),
            Err(error) => refused = refused.or(Some(error)),
        }
        if binds(group) {
            break;
        }
    }
    Err(refused.unwrap_or_else(|| GroupError::Invisible {
        mount: hierarchy.top.clone(),
    }))
}

/// Judges one group of version 2.
fn unified_place(
    group: &Path,
    is_own: bool,
    needed: &[Controller],
    me: u32,
) -> Result<Place, GroupError> {
    has(group, needed)?;
    may_make(group)?;
    let handed_down = text(group, HANDED_DOWN).unwrap_or_default();
    let lacking: Vec<Controller> = needed
        .iter()
        .copied()
        .filter(|controller| !lists(&handed_down, *controller))
        .collect();
    // The root of all is the one group without a type, and the one that may have both processes and groups with controllers.
    let is_root = !group.join("cgroup.type").exists();
    let mut is_in_the_way = false;
    if !lacking.is_empty() && !is_root {
        let members = text(group, PROCESSES).unwrap_or_default();
        let mut others = members.lines().filter(|pid| *pid != me.to_string());
        if others.next().is_some() {
            return Err(GroupError::Occupied {
                path: group.to_owned(),
            });
        }
        is_in_the_way = is_own;
    }
    Ok(Place {
        lacking,
        is_in_the_way,
        ..Place::plain(Version::Two, group, needed)
    })
}

/// Tells whether a group of version 2 was given what is needed.
pub(super) fn has(group: &Path, needed: &[Controller]) -> Result<(), GroupError> {
    let given = text(group, "cgroup.controllers").unwrap_or_default();
    match needed
        .iter()
        .find(|controller| !lists(&given, **controller))
    {
        Some(missing) => Err(GroupError::NotGiven {
            controller: missing.name(),
            path: group.to_owned(),
        }),
        None => Ok(()),
    }
}

fn lists(names: &str, controller: Controller) -> bool {
    names
        .split_ascii_whitespace()
        .any(|name| name == controller.name())
}

fn may_make(group: &Path) -> Result<(), GroupError> {
    access(group, Access::WRITE_OK | Access::EXEC_OK)
        .and_then(|()| access(group.join(PROCESSES), Access::WRITE_OK))
        .map_err(|errno| GroupError::Denied {
            path: group.to_owned(),
            source: errno.into(),
        })
}

impl Place {
    /// Makes it ready; what it makes and does not keep is in the register.
    pub(super) fn prepare(self, register: &Register) -> Result<Site, GroupError> {
        note(register, &self.parent)?;
        let moved = match self.is_in_the_way {
            true => Some(Moved::away(&self.parent, register.name(), &self.lacking)?),
            false => {
                hand_down(&self.parent, &self.lacking)?;
                None
            }
        };
        let mut site = Site {
            version: self.version,
            parent: self.parent,
            _moved: moved,
        };
        for name in &self.below {
            site.parent.push(name);
            match fs::create_dir(&site.parent) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(source) => {
                    site.parent.pop();
                    return Err(GroupError::Denied {
                        path: site.parent,
                        source,
                    });
                }
                Ok(()) => group::inherit_sets(site.version, &site.parent)?,
            }
            if site.version == Version::Two {
                hand_down(&site.parent, &self.needed)?;
            }
        }
        if !self.below.as_os_str().is_empty() {
            may_make(&site.parent)?;
            note(register, &site.parent)?;
        }
        Ok(site)
    }
}

fn note(register: &Register, parent: &Path) -> Result<(), GroupError> {
    register.note(parent).map_err(|source| GroupError::Write {
        path: register.path().to_owned(),
        source,
    })
}

/// Reads the name of a group: the path below the top where it is absolute, else below the builder's own.
fn named(name: &str) -> Option<(bool, PathBuf)> {
    let path = match name.strip_suffix(".slice") {
        Some(slice) if !name.contains('/') => expand_slice(slice)?,
        _ => PathBuf::from(name),
    };
    let mut below = PathBuf::new();
    for component in path.components() {
        match component {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) => below.push(name),
            Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    Some((path.is_absolute(), below))
}

/// Returns the path of a systemd slice: `a-b` is within `a`.
fn expand_slice(name: &str) -> Option<PathBuf> {
    let mut path = PathBuf::from("/");
    // The slice that all others are in.
    if name == "-" {
        return Some(path);
    }
    let mut so_far = String::new();
    for part in name.split('-') {
        if part.is_empty() {
            return None;
        }
        if !so_far.is_empty() {
            so_far.push('-');
        }
        so_far.push_str(part);
        path.push(format!("{so_far}.slice"));
    }
    Some(path)
}

/// Has a group of version 2 give controllers to those below it.
fn hand_down(group: &Path, controllers: &[Controller]) -> Result<(), GroupError> {
    change_handed_down(group, controllers, '+').map_err(|source| {
        let path = group.to_owned();
        match source.raw_os_error() {
            Some(libc::EBUSY) => GroupError::Occupied { path },
            _ => GroupError::Write {
                path: path.join(HANDED_DOWN),
                source,
            },
        }
    })
}

fn change_handed_down(group: &Path, controllers: &[Controller], sign: char) -> io::Result<()> {
    let handed_down = text(group, HANDED_DOWN).unwrap_or_default();
    let words: Vec<String> = controllers
        .iter()
        .filter(|controller| lists(&handed_down, **controller) != (sign == '+'))
        .map(|controller| format!("{sign}{}", controller.name()))
        .collect();
    match words.is_empty() {
        true => Ok(()),
        false => group::write(&group.join(HANDED_DOWN), &words.join(" ")),
    }
}

/// The builder in a leaf of the group that it was started in. Dropping it moves the builder back.
#[derive(Debug)]
struct Moved {
    from: PathBuf,
    leaf: PathBuf,
    handed_down: Vec<Controller>,
}

impl Moved {
    fn away(from: &Path, name: &str, controllers: &[Controller]) -> Result<Moved, GroupError> {
        let leaf = from.join(name);
        fs::create_dir(&leaf).map_err(|source| GroupError::Denied {
            path: from.to_owned(),
            source,
        })?;
        let mut moved = Moved {
            from: from.to_owned(),
            leaf,
            handed_down: Vec::new(),
        };
        let processes = moved.leaf.join(PROCESSES);
        // 0 is whoever writes.
        group::write(&processes, "0").map_err(|source| GroupError::Write {
            path: processes,
            source,
        })?;
        hand_down(from, controllers)?;
        moved.handed_down = controllers.to_vec();
        Ok(moved)
    }
}

impl Drop for Moved {
    fn drop(&mut self) {
        // Where one of these fails, the group goes with whatever made it: a unit, a scope, a container.
        change_handed_down(&self.from, &self.handed_down, '-').ok();
        group::write(&self.from.join(PROCESSES), "0").ok();
        group::remove(&self.leaf);
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    const ME: u32 = 7;

    /// Judges a group that has these files.
    fn judged(files: &[(&str, &str)], is_own: bool, needed: &[Controller]) -> String {
        let group = TempDir::new().unwrap();
        fs::write(group.path().join(PROCESSES), "").unwrap();
        for (name, content) in files {
            fs::write(group.path().join(name), content).unwrap();
        }
        match unified_place(group.path(), is_own, needed, ME) {
            Ok(place) => format!(
                "lacks {}{}",
                place.lacking.len(),
                if place.is_in_the_way { ", move" } else { "" }
            ),
            Err(GroupError::Occupied { .. }) => "occupied".to_owned(),
            Err(GroupError::NotGiven { controller, .. }) => format!("no {controller}"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_group_with_processes_hands_nothing_down() {
        let both = [Controller::Memory, Controller::Cpu];
        let given = ("cgroup.controllers", "cpuset cpu io memory pids\n");
        let domain = ("cgroup.type", "domain\n");
        let handed = |text| (HANDED_DOWN, text);
        let with = |text| (PROCESSES, text);
        for (files, is_own, expected) in [
            // Nobody is in it.
            (vec![given, domain], false, "lacks 2"),
            (vec![given, domain, handed("memory\n")], false, "lacks 1"),
            (
                vec![given, domain, handed("memory cpu\n")],
                false,
                "lacks 0",
            ),
            // The builder alone.
            (vec![given, domain, with("7\n")], true, "lacks 2, move"),
            // With others, as in a shell's session; 0 is a process of another namespace.
            (vec![given, domain, with("7\n8\n")], true, "occupied"),
            (vec![given, domain, with("0\n7\n")], true, "occupied"),
            (vec![given, domain, with("8\n")], false, "occupied"),
            // The root of all.
            (vec![given, with("1\n2\n7\n")], true, "lacks 2"),
            // Not its to give.
            (
                vec![("cgroup.controllers", "memory pids\n"), domain],
                false,
                "no cpu",
            ),
            (vec![domain], false, "no memory"),
        ] {
            assert_eq!(judged(&files, is_own, &both), expected, "{files:?}");
        }
        // Without controllers processes are in nobody's way.
        assert_eq!(judged(&[domain, with("7\n8\n")], true, &[]), "lacks 0");
    }

    #[test]
    fn groups_are_made_no_higher_than_the_first_limit() {
        let top = TempDir::new().unwrap();
        let own = top.path().join("a/b");
        fs::create_dir_all(&own).unwrap();
        for level in ["", "a", "a/b"] {
            let level = top.path().join(level);
            fs::write(level.join("cgroup.controllers"), "memory").unwrap();
            fs::write(level.join("cgroup.type"), "domain").unwrap();
            fs::write(level.join(PROCESSES), "").unwrap();
        }
        let hierarchy = Hierarchy {
            version: Version::Two,
            top: top.path().to_owned(),
            own: Some(own.clone()),
        };
        let parent = || {
            find(&hierarchy, &[Controller::Memory], None)
                .map(|place| place.parent.strip_prefix(top.path()).unwrap().to_owned())
                .ok()
        };
        assert_eq!(parent(), Some("a/b".into()));
        fs::write(own.join(PROCESSES), "1\n2\n").unwrap();
        assert_eq!(parent(), Some("a".into()));
        fs::write(top.path().join("a").join(PROCESSES), "3\n").unwrap();
        assert_eq!(parent(), Some("".into()));
        fs::write(top.path().join("a/memory.max"), "1000").unwrap();
        assert_eq!(parent(), None);
        fs::write(own.join(PROCESSES), "").unwrap();
        assert_eq!(parent(), Some("a/b".into()));
    }

    #[test]
    fn slices_are_nested_by_their_names() {
        for (name, path) in [
            ("-", Some("/")),
            ("ci", Some("/ci.slice")),
            ("ci-big-1", Some("/ci.slice/ci-big.slice/ci-big-1.slice")),
            ("", None),
            ("ci-", None),
            ("a--b", None),
        ] {
            assert_eq!(expand_slice(name), path.map(PathBuf::from), "{name}");
        }
    }

    #[test]
    fn names_of_groups_are_paths_or_slices() {
        for (name, expected) in [
            ("/ci/a", Some((true, "ci/a"))),
            ("ci", Some((false, "ci"))),
            ("./a//b", Some((false, "a/b"))),
            ("/", Some((true, ""))),
            ("ci.slice", Some((true, "ci.slice"))),
            ("x/ci.slice", Some((false, "x/ci.slice"))),
            ("../up", None),
            ("/a/../b", None),
        ] {
            let expected = expected.map(|(is_absolute, below)| (is_absolute, below.into()));
            assert_eq!(named(name), expected, "{name}");
        }
    }
}
