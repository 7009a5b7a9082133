//! Where each controller is mounted, and where the builder is in its tree.
//!
//! In: the texts of `/proc/self/cgroup` and `/proc/self/mountinfo`. Out: paths. A group above the mount's own root, or outside the
//! namespace of control groups, cannot be named; what is bound into a container with another root can.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

/// The controllers that limits need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Controller {
    Memory,
    Cpu,
    Cpuset,
    Pids,
}

impl Controller {
    pub(super) fn name(self) -> &'static str {
        match self {
            Controller::Memory => "memory",
            Controller::Cpu => "cpu",
            Controller::Cpuset => "cpuset",
            Controller::Pids => "pids",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    One,
    Two,
}

/// One mounted tree of groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hierarchy {
    pub(super) version: Version,
    /// The highest group that can be seen.
    pub(super) top: PathBuf,
    /// The builder's group; `None` where it is not below `top`.
    pub(super) own: Option<PathBuf>,
}

impl Hierarchy {
    /// Returns the builder's group and all above it that can be seen, from below.
    pub(super) fn levels(&self) -> impl Iterator<Item = &Path> {
        // Where the own group is invisible, the top is at least one of those that bind it: containers mount no other.
        let lowest = self.own.as_deref().unwrap_or(&self.top);
        lowest
            .ancestors()
            .take_while(|level| level.starts_with(&self.top))
    }
}

/// All trees of this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Hierarchies {
    /// With the controllers of each.
    legacy: Vec<(Vec<String>, Hierarchy)>,
    unified: Option<Hierarchy>,
}

impl Hierarchies {
    /// Reads what the kernel says of this process. A machine without control groups has no trees.
    pub(super) fn of_this_process() -> Hierarchies {
        let read = |path| fs::read(path).unwrap_or_default();
        Hierarchies::parse(&read("/proc/self/cgroup"), &read("/proc/self/mountinfo"))
    }

    pub(super) fn parse(groups: &[u8], mounts: &[u8]) -> Hierarchies {
        let mounts: Vec<MountLine> = lines(mounts).filter_map(MountLine::parse).collect();
        let mut found = Hierarchies::default();
        for line in lines(groups) {
            let mut parts = line.splitn(3, |byte| *byte == b':');
            let (Some(number), Some(controllers), Some(path)) =
                (parts.next(), parts.next(), parts.next())
            else {
                continue;
            };
            let controllers: Vec<String> = String::from_utf8_lossy(controllers)
                .split(',')
                .filter(|name| !name.is_empty())
                .map(str::to_owned)
                .collect();
            let path = PathBuf::from(OsString::from_vec(path.to_vec()));
            if number == b"0" {
                let of_two = |mount: &&MountLine| mount.kind == "cgroup2";
                found.unified = hierarchy(Version::Two, mounts.iter().filter(of_two), &path);
            } else {
                let of_these = |mount: &&MountLine| {
                    mount.kind == "cgroup"
                        && controllers
                            .iter()
                            .all(|name| mount.options.split(',').any(|option| option == name))
                };
                let mounted = mounts.iter().filter(of_these);
                if let Some(hierarchy) = hierarchy(Version::One, mounted, &path) {
                    found.legacy.push((controllers, hierarchy));
                }
            }
        }
        found
    }

    /// Returns the tree that a controller is in. Version 2 may still lack it: its groups say so.
    pub(super) fn of(&self, controller: Controller) -> Option<&Hierarchy> {
        let name = controller.name();
        self.legacy
            .iter()
            .find(|(controllers, _)| controllers.iter().any(|other| other == name))
            .map(|(_, hierarchy)| hierarchy)
            .or(self.unified.as_ref())
    }

    pub(super) fn unified(&self) -> Option<&Hierarchy> {
        self.unified.as_ref()
    }
}

/// Picks the mount in which `own` can be seen, else the first.
fn hierarchy<'a>(
    version: Version,
    mounts: impl Iterator<Item = &'a MountLine>,
    own: &Path,
) -> Option<Hierarchy> {
    let mut found: Option<Hierarchy> = None;
    for mount in mounts {
        let below = below(own, &mount.root);
        if below.is_some() || found.is_none() {
            let is_visible = below.is_some();
            found = Some(Hierarchy {
                version,
                top: mount.point.clone(),
                own: below.map(|below| join(&mount.point, below)),
            });
            if is_visible {
                break;
            }
        }
    }
    found
}

/// Returns `own` relative to the root of a mount. A path out of the namespace begins with `/..`.
fn below<'a>(own: &'a Path, root: &Path) -> Option<&'a Path> {
    let rest = own.strip_prefix(root).ok()?;
    rest.components()
        .all(|component| matches!(component, Component::Normal(_)))
        .then_some(rest)
}

/// Joins without a slash at the end.
fn join(top: &Path, below: &Path) -> PathBuf {
    match below.as_os_str().is_empty() {
        true => top.to_owned(),
        false => top.join(below),
    }
}

struct MountLine {
    root: PathBuf,
    point: PathBuf,
    kind: String,
    /// Of the file system, which has its controllers among them.
    options: String,
}

impl MountLine {
    /// Reads one line of mountinfo (proc_pid_mountinfo(5)).
    fn parse(line: &[u8]) -> Option<MountLine> {
        let mut fields = line.split(|byte| *byte == b' ');
        let root = unescape(fields.nth(3)?);
        let point = unescape(fields.next()?);
        let mut behind = fields.skip_while(|field| *field != b"-").skip(1);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let kind = text(behind.next()?);
        let options = text(behind.nth(1)?);
        kind.starts_with("cgroup").then_some(MountLine {
            root,
            point,
            kind,
            options,
        })
    }
}

fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
}

/// Blanks and backslashes are three octal digits.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        let digits = after.get(..3).filter(|_| byte == b'\\');
        let value = digits
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        bytes.push(value.unwrap_or(byte));
        rest = if value.is_some() { &after[3..] } else { after };
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where memory and cpu are: version, top, own group.
    fn check(groups: &str, mounts: &str, expected: [Option<(Version, &str, Option<&str>)>; 2]) {
        let found = Hierarchies::parse(groups.as_bytes(), mounts.as_bytes());
        for (controller, expected) in [Controller::Memory, Controller::Cpu]
            .into_iter()
            .zip(expected)
        {
            let expected = expected.map(|(version, top, own)| Hierarchy {
                version,
                top: top.into(),
                own: own.map(PathBuf::from),
            });
            assert_eq!(
                found.of(controller),
                expected.as_ref(),
                "{controller:?} in {groups}"
            );
        }
    }

    const TWO: &str =
        "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";

    #[test]
    fn version_2_alone_has_all_controllers() {
        let both = |own| {
            let place = Some((Version::Two, "/sys/fs/cgroup", own));
            [place, place]
        };
        check("0::/\n", TWO, both(Some("/sys/fs/cgroup")));
        check(
            "0::/user.slice/a.scope\n",
            TWO,
            both(Some("/sys/fs/cgroup/user.slice/a.scope")),
        );
        // Outside the namespace.
        check("0::/../other\n", TWO, both(None));
    }

    #[test]
    fn version_1_has_each_controller_where_it_is_mounted() {
        let mounts = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                      32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                      33 31 0:30 / /a\\040b/memory rw - cgroup cgroup rw,memory\n\
                      41 31 0:38 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n";
        check(
            "9:name=systemd:/x\n4:memory:/m/1\n1:cpu,cpuacct:/\n",
            mounts,
            [
                Some((Version::One, "/a b/memory", Some("/a b/memory/m/1"))),
                Some((
                    Version::One,
                    "/sys/fs/cgroup/cpu,cpuacct",
                    Some("/sys/fs/cgroup/cpu,cpuacct"),
                )),
            ],
        );
    }

    #[test]
    fn of_a_mixture_each_controller_is_where_it_was_put() {
        let mounts = format!(
            "33 31 0:30 / /cg/memory rw - cgroup cgroup rw,memory\n{}",
            TWO.replace("/sys/fs/cgroup", "/cg/unified")
        );
        check(
            "4:memory:/a\n0::/b\n",
            &mounts,
            [
                Some((Version::One, "/cg/memory", Some("/cg/memory/a"))),
                Some((Version::Two, "/cg/unified", Some("/cg/unified/b"))),
            ],
        );
    }

    #[test]
    fn a_container_sees_its_group_as_the_mounts_root() {
        let mounts =
            "33 31 0:30 /docker/1f /sys/fs/cgroup/memory ro master:9 - cgroup cgroup rw,memory\n";
        let memory = |own| [Some((Version::One, "/sys/fs/cgroup/memory", own)), None];
        let top = "/sys/fs/cgroup/memory";
        check("4:memory:/docker/1f\n", mounts, memory(Some(top)));
        check(
            "4:memory:/docker/1f/x\n",
            mounts,
            memory(Some("/sys/fs/cgroup/memory/x")),
        );
        check("4:memory:/docker/1f2\n", mounts, memory(None));
        check("4:memory:/\n", mounts, memory(None));
    }

    #[test]
    fn of_several_mounts_the_one_that_shows_the_group_counts() {
        let mounts = "33 31 0:30 /other /one rw - cgroup cgroup rw,memory\n\
                      34 31 0:30 / /two rw - cgroup cgroup rw,memory\n";
        check(
            "4:memory:/mine\n",
            mounts,
            [Some((Version::One, "/two", Some("/two/mine"))), None],
        );
    }

    #[test]
    fn a_machine_without_control_groups_has_none() {
        for (groups, mounts) in [
            ("", ""),
            ("0::/\n", ""),
            ("", TWO),
            ("nonsense\n1:2\n", "x - y\n1 2 3\n"),
            (
                "4:memory:/\n",
                "33 31 0:30 / /x rw - cgroup cgroup rw,cpu\n",
            ),
        ] {
            check(groups, mounts, [None, None]);
        }
    }

    #[test]
    fn levels_end_at_the_top() {
        let hierarchy = Hierarchy {
            version: Version::Two,
            top: "/cg".into(),
            own: Some("/cg/a/b".into()),
        };
        let levels: Vec<_> = hierarchy.levels().collect();
        assert_eq!(levels, ["/cg/a/b", "/cg/a", "/cg"].map(Path::new));
    }
}
