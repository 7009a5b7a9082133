//! How much memory this process may use.

use std::fs;
use std::path::Path;

/// Returns the least memory limit of this process's control group and those above it; `None` if there is none.
///
/// Inside a container the own group is usually the root of what is visible, and the path that the kernel tells leads nowhere:
/// then the visible root counts.
pub fn memory_limit() -> Option<u64> {
    limit_in(
        Path::new("/sys/fs/cgroup"),
        &fs::read_to_string("/proc/self/cgroup").unwrap_or_default(),
    )
}

fn limit_in(root: &Path, own: &str) -> Option<u64> {
    own.lines()
        .filter_map(|line| {
            let mut fields = line.splitn(3, ':');
            let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
            let (hierarchy, file) = match controllers {
                "" => (root.to_owned(), "memory.max"),
                names if names.split(',').any(|name| name == "memory") => {
                    (root.join("memory"), "memory.limit_in_bytes")
                }
                _ => return None,
            };
            let own = hierarchy.join(path.trim_start_matches('/'));
            own.ancestors()
                .take_while(|group| group.starts_with(&hierarchy))
                .filter_map(|group| fs::read_to_string(group.join(file)).ok())
                // `max`; and version 1 says "none" with the largest number that it knows.
                .filter_map(|text| text.trim().parse::<u64>().ok())
                .filter(|limit| *limit < 1 << 60)
                .min()
        })
        .min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_limit_on_the_way_up_counts() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        let write = |path: &str, text: &str| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("a/b/memory.max", "max\n");
        write("a/memory.max", "1000000\n");
        write("memory/c/memory.limit_in_bytes", "2000000\n");
        write("memory/memory.limit_in_bytes", "9223372036854771712\n");
        for (own, expected) in [
            ("0::/a/b\n", Some(1_000_000)),
            ("0::/\n", None),
            ("0::/not/visible\n", None),
            ("5:cpu:/c\n4:memory:/c\n0::/\n", Some(2_000_000)),
            ("4:hugetlb,memory:/gone\n", None),
            ("", None),
        ] {
            assert_eq!(limit_in(root, own), expected, "{own}");
        }
    }
}
