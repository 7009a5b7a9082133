//! A small root file system of the machine's own programs: a shell, core utilities, and the libraries that they need.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::power::program;

const PROGRAMS: &[&str] = &[
    "sh", "cat", "chmod", "chown", "cp", "cut", "date", "dd", "env", "false", "grep", "head", "id",
    "ln", "ls", "mkdir", "mkfifo", "mknod", "mktemp", "mount", "mv", "printf", "readlink", "rm",
    "rmdir", "sed", "seq", "sleep", "sort", "stat", "tail", "test", "touch", "tr", "true", "uname",
    "wc", "kill", "ps", "setpriv", "unshare", "hostname", "perl", "setsid", "yes",
];

/// Returns a name that changes with the list of programs.
pub fn identity() -> String {
    builder::vocab::Digest::of(PROGRAMS.join(" ").as_bytes()).hex()[..16].to_owned()
}

/// Fills `directory`. Programs that the machine lacks are left out.
pub fn make(directory: &Path) {
    for path in ["bin", "etc", "tmp", "root", "home/app", "usr", "var"] {
        fs::create_dir_all(directory.join(path)).unwrap();
    }
    fs::set_permissions(directory.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    fs::write(
        directory.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n",
    )
    .unwrap();
    fs::write(
        directory.join("etc/group"),
        "root:x:0:\napp:x:1000:\nstaff:x:50:app\n",
    )
    .unwrap();
    let mut libraries = BTreeSet::new();
    for name in PROGRAMS {
        let Some(found) = program(name) else { continue };
        let real = fs::canonicalize(&found).unwrap();
        fs::copy(&real, directory.join("bin").join(name)).unwrap();
        libraries.extend(libraries_of(&real));
    }
    for library in libraries {
        let target = directory.join(library.strip_prefix("/").unwrap());
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(&library, target).unwrap();
    }
}

fn libraries_of(program: &Path) -> Vec<PathBuf> {
    let listed = Command::new("ldd")
        .arg(program)
        .output()
        .expect("ldd is part of the C library");
    String::from_utf8_lossy(&listed.stdout)
        .lines()
        .filter_map(|line| {
            line.split_whitespace()
                .find(|word| word.starts_with('/'))
                .map(PathBuf::from)
        })
        .collect()
}
