//! The files of a commit, written from a mirror: what is executable or not, links, one time for all; with or without history.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};

use super::git::{Call, Git, GitError, authority, bare_url};
use super::git_remote::GitCommit;
use crate::vocab::is_commit;

/// A repository inside a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submodule {
    /// Where it belongs, relative to the files of the outer one.
    pub path: PathBuf,
    pub url: String,
    pub commit: String,
}

impl Git {
    /// Writes the files of a commit into `directory`, which is empty. `scratch` is a directory for files that go again.
    pub fn write_files(
        &self,
        mirror: &Path,
        commit: &str,
        directory: &Path,
        scratch: &Path,
    ) -> Result<(), GitError> {
        let index = scratch.join(format!("index-{commit}"));
        let call = |args: &[&str]| {
            Call::new(args)
                .at(mirror)
                .with("GIT_INDEX_FILE", &index)
                .with("GIT_WORK_TREE", directory)
        };
        let written = self
            .run(call(&["read-tree", commit]))
            .and_then(|_| self.run(call(&["checkout-index", "--all", "--force", "--quiet"])));
        fs::remove_file(&index).ok();
        written.map(drop)
    }

    /// Writes the files of a commit into `directory` with a `.git` that holds the commit, its tag if `commit` was found by one, and
    /// the URL without password.
    pub fn write_clone(
        &self,
        mirror: &Path,
        url: &str,
        commit: &GitCommit,
        directory: &Path,
    ) -> Result<(), GitError> {
        let mut init = Call::new(["init", "--quiet", "--template=", "--"]);
        init.args.push(directory.into());
        self.run(init)?;
        let git_dir = directory.join(".git");
        let keep = format!("refs/builder/{}", commit.id);
        self.run(Call::new(["update-ref", &keep, &commit.id]).at(mirror))?;
        let mut wanted = vec![OsString::from(&keep)];
        // A tag may be an object of its own; one that has moved meanwhile is made to point at the commit.
        if let Some(tag) = commit.tag() {
            let from = match self.is_at(mirror, tag, commit) {
                true => tag,
                false => &keep,
            };
            wanted.push(OsString::from(format!("{from}:{tag}")));
        }
        let mut fetch = Call::new([
            "fetch",
            "--quiet",
            "--no-tags",
            "--no-write-fetch-head",
            "--depth=1",
            "--",
        ])
        .at(&git_dir);
        fetch.allow_files = true;
        fetch.args.push(mirror.into());
        fetch.args.extend(wanted);
        self.run(fetch)?;
        let call = |args: &[&str]| {
            Call::new(args)
                .at(&git_dir)
                .with("GIT_WORK_TREE", directory)
        };
        self.run(call(&["checkout", "--quiet", "--detach", &commit.id]))?;
        self.run(call(&["remote", "add", "origin", &bare_url(url)]))?;
        Ok(())
    }

    /// Returns the time of a commit in seconds since 1970.
    pub fn commit_time(&self, mirror: &Path, commit: &str) -> Result<i64, GitError> {
        let call = Call::new(["show", "--no-patch", "--format=%ct", commit]).at(mirror);
        let printed = self.run(call)?;
        String::from_utf8_lossy(&printed)
            .trim()
            .parse()
            .map_err(|_| GitError::Odd { command: "show" })
    }

    /// Lists the submodules of a commit, with what `.gitmodules` says of them.
    pub fn submodules(
        &self,
        mirror: &Path,
        url: &str,
        commit: &str,
    ) -> Result<Vec<Submodule>, GitError> {
        let tree = self.run(Call::new(["ls-tree", "-r", "-z", commit]).at(mirror))?;
        let links = gitlinks(&tree)?;
        if links.is_empty() {
            return Ok(Vec::new());
        }
        let file = format!("{commit}:.gitmodules");
        let said = self
            .run(Call::new(["config", "--blob", &file, "-z", "--list"]).at(mirror))
            .unwrap_or_default();
        let said = Said::parse(&said);
        let mut submodules = Vec::new();
        for (path, commit) in links {
            let refuse = |problem: &str| GitError::Submodule {
                path: String::from_utf8_lossy(&path).into_owned(),
                problem: problem.to_owned(),
            };
            let name = said
                .name_of(&path)
                .ok_or_else(|| refuse("`.gitmodules` does not say where it is"))?;
            if said.value(name, b"update") == Some(b"none") {
                continue;
            }
            let written = said
                .value(name, b"url")
                .and_then(|url| std::str::from_utf8(url).ok())
                .ok_or_else(|| refuse("`.gitmodules` gives it no URL"))?;
            submodules.push(Submodule {
                url: submodule_url(url, written).map_err(|problem| refuse(&problem))?,
                path: PathBuf::from(OsString::from_vec(path)),
                commit,
            });
        }
        Ok(submodules)
    }
}

/// Gives everything below `directory`, and itself, one time (`None` leaves times alone), files 0644 or 0755, directories 0755.
pub fn level(directory: &Path, time: Option<i64>) -> Result<(), GitError> {
    let fail = |verb: &'static str, path: &Path, source: io::Error| GitError::Io {
        verb,
        path: path.to_owned(),
        source,
    };
    let mut directories = vec![directory.to_owned()];
    let mut at = 0;
    while at < directories.len() {
        let current = directories[at].clone();
        at += 1;
        let entries = fs::read_dir(&current).map_err(|error| fail("list", &current, error))?;
        for entry in entries {
            let entry = entry.map_err(|error| fail("list", &current, error))?;
            let path = entry.path();
            let kind = entry
                .file_type()
                .map_err(|error| fail("stat", &path, error))?;
            if kind.is_dir() {
                directories.push(path);
                continue;
            }
            if kind.is_file() {
                let mode = entry
                    .metadata()
                    .map_err(|error| fail("stat", &path, error))?
                    .permissions()
                    .mode();
                let mode = if mode & 0o100 != 0 { 0o755 } else { 0o644 };
                fs::set_permissions(&path, fs::Permissions::from_mode(mode))
                    .map_err(|error| fail("set the mode of", &path, error))?;
            }
            set_time(&path, time).map_err(|error| fail("set the time of", &path, error))?;
        }
    }
    // Last, since what was done in them has changed their times.
    for path in directories.iter().rev() {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755))
            .map_err(|error| fail("set the mode of", path, error))?;
        set_time(path, time).map_err(|error| fail("set the time of", path, error))?;
    }
    Ok(())
}

fn set_time(path: &Path, time: Option<i64>) -> io::Result<()> {
    let Some(seconds) = time else {
        return Ok(());
    };
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: 0,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    Ok(utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Reads `MODE TYPE ID\tPATH` records and returns the paths and commits of submodules.
fn gitlinks(tree: &[u8]) -> Result<Vec<(Vec<u8>, String)>, GitError> {
    let odd = || GitError::Odd { command: "ls-tree" };
    let mut links = Vec::new();
    for record in tree
        .split(|&byte| byte == 0)
        .filter(|record| !record.is_empty())
    {
        if !record.starts_with(b"160000 ") {
            continue;
        }
        let tab = record
            .iter()
            .position(|&byte| byte == b'\t')
            .ok_or_else(odd)?;
        let (head, path) = (&record[..tab], &record[tab + 1..]);
        let head = std::str::from_utf8(head).map_err(|_| odd())?;
        let id = head.rsplit(' ').next().unwrap_or_default();
        let is_beneath = path
            .split(|&byte| byte == b'/')
            .all(|part| !matches!(part, b"" | b"." | b".."));
        if !is_commit(id) || !is_beneath {
            return Err(odd());
        }
        links.push((path.to_vec(), id.to_owned()));
    }
    Ok(links)
}

/// What `.gitmodules` says: name, key, value.
struct Said<'a>(Vec<(&'a [u8], &'a [u8], &'a [u8])>);

impl<'a> Said<'a> {
    /// Reads `submodule.NAME.KEY\nVALUE\0`; NAME may have dots.
    fn parse(printed: &'a [u8]) -> Said<'a> {
        let entries = printed.split(|&byte| byte == 0).filter_map(|record| {
            let end = record.iter().position(|&byte| byte == b'\n')?;
            let (key, value) = (&record[..end], &record[end + 1..]);
            let rest = key.strip_prefix(b"submodule.")?;
            let dot = rest.iter().rposition(|&byte| byte == b'.')?;
            Some((&rest[..dot], &rest[dot + 1..], value))
        });
        Said(entries.collect())
    }

    fn name_of(&self, path: &[u8]) -> Option<&'a [u8]> {
        let is_path = |(_, key, value): &&(&[u8], &[u8], &[u8])| *key == b"path" && *value == path;
        self.0.iter().find(is_path).map(|(name, _, _)| *name)
    }

    /// Returns the last value, which counts.
    fn value(&self, name: &[u8], key: &[u8]) -> Option<&'a [u8]> {
        let is_it = |(of, is, _): &&(&[u8], &[u8], &[u8])| *of == name && *is == key;
        self.0.iter().rfind(is_it).map(|(_, _, value)| *value)
    }
}

/// Returns where a submodule is. `./` and `../` count from the outer repository.
fn submodule_url(outer: &str, written: &str) -> Result<String, String> {
    let mut url = written.to_owned();
    if written.starts_with("./") || written.starts_with("../") {
        let mut base = outer.trim_end_matches('/').to_owned();
        let mut rest = written;
        loop {
            if let Some(after) = rest.strip_prefix("./") {
                rest = after;
            } else if let Some(after) = rest.strip_prefix("../") {
                rest = after;
                // A colon ends a host without a scheme; with one it is before a port or a password.
                let (floor, ends): (_, &[char]) = match base.find("://") {
                    Some(at) => (at + 3, &['/']),
                    None => (0, &['/', ':']),
                };
                let cut = base[floor..]
                    .rfind(ends)
                    .filter(|&at| at > 0)
                    .ok_or_else(|| format!("`{written}` leads out of the server"))?;
                let cut = floor + cut;
                let separator = base.as_bytes()[cut];
                base.truncate(cut);
                if separator == b':' && !base[..floor].contains("://") {
                    // `git@host:a` without `a`.
                    base.push(':');
                }
            } else {
                break;
            }
        }
        let joint = if base.ends_with(':') { "" } else { "/" };
        url = format!("{base}{joint}{}", rest.trim_end_matches('/'));
    }
    let scheme = url.split_once("://").map(|(scheme, _)| scheme);
    // ssh would take such a host for an option.
    let is_odd = url.starts_with('-')
        || authority(&url).starts_with('-')
        || url.contains("::")
        || url.contains(|c: char| c.is_control() || c.is_whitespace());
    let is_allowed = match scheme {
        Some(scheme) => ["http", "https", "ssh", "git"].contains(&scheme),
        None => {
            url.split_once(':').is_some_and(|(host, path)| {
                host.contains('@') && !host.contains('/') && !path.is_empty()
            }) && !url.contains("@-")
        }
    };
    match is_allowed && !is_odd {
        true => Ok(url),
        false => Err(format!(
            "`{}` is no http, https, ssh or git URL",
            crate::vocab::shown_url(&url)
        )),
    }
}

/// Opens nothing: tells whether `path` below `root` is a directory that no link leads to.
pub fn is_plain_directory(root: &Path, path: &Path) -> bool {
    let Ok(root) = super::trail::open_directory(CWD, root.as_os_str().as_bytes()) else {
        return false;
    };
    super::trail::descend(&root, path.as_os_str().as_bytes()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn submodules_are_found_beside_their_outer_repository() {
        let outer = "https://h:8/a/b.git";
        for (outer, written, wanted) in [
            (outer, "https://x/y", Ok("https://x/y")),
            (outer, "../c.git", Ok("https://h:8/a/c.git")),
            (outer, "../../c.git", Ok("https://h:8/c.git")),
            (outer, "./c.git", Ok("https://h:8/a/b.git/c.git")),
            (outer, "../.././c/", Ok("https://h:8/c")),
            (outer, "git@h:c", Ok("git@h:c")),
            ("git@h:a/b.git", "../c.git", Ok("git@h:a/c.git")),
            ("git@h:b.git", "../c.git", Ok("git@h:c.git")),
            ("https://h/b.git", "../../../c", Err("out of the server")),
            (outer, "../../../c", Err("out of the server")),
            ("https://u:p@h/b", "../../c", Err("out of the server")),
            ("https://u:p@h/b", "../c", Ok("https://u:p@h/c")),
            (outer, "/etc", Err("no http")),
            (outer, "file:///etc", Err("no http")),
            (outer, "ext::sh -c x", Err("no http")),
            (outer, "-oProxyCommand=x", Err("no http")),
            (outer, "u@-oProxyCommand=x:y", Err("no http")),
            (outer, "ssh://-oProxyCommand=x/y", Err("no http")),
            (outer, "ssh://u@-oProxyCommand=x/y", Err("no http")),
            (outer, "c", Err("no http")),
            ("file:///a/b.git", "../c.git", Err("no http")),
        ] {
            let found = submodule_url(outer, written);
            match (found, wanted) {
                (Ok(found), Ok(wanted)) => assert_eq!(found, wanted, "{written}"),
                (Err(found), Err(wanted)) => assert!(found.contains(wanted), "{found}"),
                (found, _) => panic!("{written}: {found:?}"),
            }
        }
    }

    #[test]
    fn trees_and_modules_are_read_as_git_prints_them() {
        let id = "0123456789012345678901234567890123456789";
        let tree = format!("100644 blob {id}\ta\0160000 commit {id}\tlib/x y\0");
        assert_eq!(
            gitlinks(tree.as_bytes()).unwrap(),
            [(b"lib/x y".to_vec(), id.to_owned())]
        );
        for path in ["../x", "a//b", "/a", "."] {
            let tree = format!("160000 commit {id}\t{path}\0");
            assert!(gitlinks(tree.as_bytes()).is_err(), "{path}");
        }
        let said =
            b"submodule.a.b.path\nlib\0submodule.a.b.url\nu\0submodule.a.b.url\nv\0core.x\ny\0";
        let said = Said::parse(said);
        let name = said.name_of(b"lib").unwrap();
        assert_eq!(name, b"a.b");
        assert_eq!(said.value(name, b"url"), Some(&b"v"[..]));
        assert_eq!(said.value(name, b"update"), None);
        assert_eq!(said.name_of(b"other"), None);
    }

    #[test]
    fn modes_and_times_are_levelled_and_links_are_not_followed() {
        let temp = tempfile::tempdir().unwrap();
        let outside = temp.path().join("outside");
        fs::write(&outside, "").unwrap();
        fs::set_permissions(&outside, fs::Permissions::from_mode(0o600)).unwrap();
        let root = temp.path().join("root");
        fs::create_dir_all(root.join("d")).unwrap();
        fs::write(root.join("d/f"), "").unwrap();
        fs::set_permissions(root.join("d/f"), fs::Permissions::from_mode(0o700)).unwrap();
        std::os::unix::fs::symlink(&outside, root.join("link")).unwrap();
        level(&root, Some(1000)).unwrap();
        let stat = |path: &Path| {
            let metadata = fs::symlink_metadata(path).unwrap();
            let seconds = metadata
                .modified()
                .unwrap()
                .duration_since(std::time::UNIX_EPOCH)
                .unwrap()
                .as_secs();
            (metadata.permissions().mode() & 0o7777, seconds)
        };
        assert_eq!(stat(&root), (0o755, 1000));
        assert_eq!(stat(&root.join("d/f")), (0o755, 1000));
        assert_eq!(stat(&root.join("link")).1, 1000);
        assert_ne!(stat(&outside).1, 1000);
        assert_eq!(stat(&outside).0, 0o600);
        assert!(is_plain_directory(&root, Path::new("d")));
        assert!(!is_plain_directory(&root, Path::new("link")));
        assert!(!is_plain_directory(&root, Path::new("d/f")));
        assert!(!is_plain_directory(&root, Path::new("none")));
    }
}
