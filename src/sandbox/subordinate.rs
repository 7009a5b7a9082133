//! A user's subordinate ids: /etc/passwd, /etc/subuid and /etc/subgid, read here and not through the C library, which would
//! load modules of the host.

use std::io;
use std::path::Path;

use super::error::SandboxError;

/// The programs that give a user's ranges to a user namespace.
pub(super) const UIDS: &str = "newuidmap";
pub(super) const GIDS: &str = "newgidmap";

pub(super) const SUBUID: &str = "/etc/subuid";
pub(super) const SUBGID: &str = "/etc/subgid";

/// Ranges that are given to the map programs at most; the kernel takes 340 lines.
const RANGES: usize = 100;

/// Ids outside, from `start` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) start: u32,
    pub(super) count: u32,
}

/// Both sides of what an ordinary user may map.
#[derive(Debug)]
pub(super) struct Ids {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) uids: Vec<Range>,
    pub(super) gids: Vec<Range>,
}

impl Ids {
    /// Reads the ranges of a user.
    pub(super) fn of(uid: u32, gid: u32) -> Result<Ids, SandboxError> {
        let name = user_name(&read(Path::new("/etc/passwd"))?, uid);
        let ranges = |file: &'static str, own: u32| {
            let ranges = ranges(&read(Path::new(file))?, name.as_deref(), uid, own);
            if ranges.is_empty() {
                return Err(SandboxError::NoSubordinateIds {
                    user: name.clone().unwrap_or_else(|| uid.to_string()),
                    file,
                });
            }
            Ok(ranges)
        };
        Ok(Ids {
            uid,
            gid,
            uids: ranges(SUBUID, uid)?,
            gids: ranges(SUBGID, gid)?,
        })
    }
}

/// Returns the arguments of newuidmap or newgidmap after the process: the own id becomes 0, the ranges follow from 1 on.
pub(super) fn map_arguments(own: u32, ranges: &[Range]) -> Vec<String> {
    let mut arguments = vec!["0".to_owned(), own.to_string(), "1".to_owned()];
    let mut inside = 1_u32;
    for range in ranges {
        // What would go past the last id cannot be mapped.
        let count = range.count.min(u32::MAX - inside);
        if count == 0 {
            break;
        }
        arguments.extend([inside, range.start, count].map(|number| number.to_string()));
        inside += count;
    }
    arguments
}

/// An absent file is an empty one.
fn read(path: &Path) -> Result<String, SandboxError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(source) => Err(SandboxError::Read {
            path: path.to_owned(),
            source,
        }),
    }
}

pub(super) fn user_name(passwd: &str, uid: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

/// Returns the ranges of the lines for `name` or `uid`, without those that overlap an earlier one or the own id.
fn ranges(text: &str, name: Option<&str>, uid: u32, own: u32) -> Vec<Range> {
    let mut ranges: Vec<Range> = Vec::new();
    for line in text.lines() {
        let mut fields = line.trim().split(':');
        let owner = fields.next().unwrap_or_default();
        let is_mine = Some(owner) == name || owner.parse() == Ok(uid);
        let (Some(start), Some(count), None) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let (Ok(start), Ok(count)) = (start.parse::<u32>(), count.parse::<u32>()) else {
            continue;
        };
        let Some(end) = start.checked_add(count).filter(|_| count > 0) else {
            continue;
        };
        let overlaps = (start..end).contains(&own)
            || ranges
                .iter()
                .any(|other| start < other.start + other.count && other.start < end);
        if is_mine && !overlaps && ranges.len() < RANGES {
            ranges.push(Range { start, count });
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_number() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\n\nbad line\n:x:7::\nalice:x:1000:1000::/home/alice:/bin/sh\n";
        for (uid, expected) in [
            (0, Some("root")),
            (1000, Some("alice")),
            (7, None),
            (5, None),
        ] {
            assert_eq!(user_name(passwd, uid).as_deref(), expected, "{uid}");
        }
    }

    #[test]
    fn ranges_are_those_of_the_name_and_of_the_number() {
        let check = |text: &str, expected: &[(u32, u32)]| {
            let found: Vec<_> = ranges(text, Some("alice"), 1000, 1000)
                .iter()
                .map(|range| (range.start, range.count))
                .collect();
            assert_eq!(found, expected, "{text}");
        };
        check("alice:100000:65536\n", &[(100_000, 65536)]);
        check("bob:1:2\n1000:100000:65536", &[(100_000, 65536)]);
        check(
            "alice:200000:10\nalice:100000:5\n",
            &[(200_000, 10), (100_000, 5)],
        );
        check("alice:100000:10\nalice:100005:10\n", &[(100_000, 10)]);
        check("alice:500:1000\n", &[]);
        check("alice:100000:0\nalice:4294967295:2\n", &[]);
        check(
            "# alice:1:2\nalice\nalice:x:y\nalice:1:2:3\nmalice:5:5",
            &[],
        );
    }

    #[test]
    fn ranges_follow_each_other_inside() {
        let ranges = [
            Range {
                start: 100_000,
                count: 10,
            },
            Range {
                start: 300_000,
                count: 20,
            },
        ];
        assert_eq!(
            map_arguments(1000, &ranges).join(" "),
            "0 1000 1 1 100000 10 11 300000 20"
        );
        let endless = [Range {
            start: 1,
            count: u32::MAX - 1,
        }; 2];
        assert_eq!(map_arguments(0, &endless).join(" "), "0 0 1 1 1 4294967294");
    }
}
