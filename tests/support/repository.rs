//! Git repositories for tests, made with the machine's own git.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A repository with a work tree; what was published lies beside it, bare, for `file://` and for web servers without wits.
pub struct Repository {
    work: PathBuf,
    /// `NAME.git`
    pub bare: PathBuf,
}

impl Repository {
    /// Makes an empty one below `folder`.
    pub fn new(folder: &Path, name: &str) -> Repository {
        let repository = Repository {
            work: folder.join(format!("{name}-work")),
            bare: folder.join(format!("{name}.git")),
        };
        fs::create_dir_all(&repository.work).unwrap();
        repository.git(&["init", "-q", "-b", "main"]);
        repository
    }

    /// Writes a file; nothing is committed.
    pub fn file(&self, path: &str, content: &str) -> &Repository {
        let path = self.work.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        self
    }

    pub fn work(&self) -> &Path {
        &self.work
    }

    /// Runs git in the work tree and returns what it prints.
    pub fn git(&self, args: &[&str]) -> String {
        let output = Command::new("git")
            .args(["-c", "user.name=test", "-c", "user.email=test@test"])
            .args(["-c", "protocol.file.allow=always"])
            .args(args)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_COMMITTER_DATE", "1000000000 +0000")
            .env("GIT_AUTHOR_DATE", "1000000000 +0000")
            .current_dir(&self.work)
            .output()
            .expect("git is there");
        assert!(
            output.status.success(),
            "git {args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Commits everything, publishes it, and returns the commit's ID.
    pub fn commit(&self) -> String {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "--allow-empty", "-m", "x"]);
        self.publish();
        self.git(&["rev-parse", "HEAD"])
    }

    /// Publishes every branch and tag.
    pub fn publish(&self) {
        let bare = self.bare.to_str().unwrap();
        if !self.bare.exists() {
            self.git(&["clone", "-q", "--bare", ".", bare]);
        }
        self.git(&["push", "-q", "--force", "--mirror", bare]);
        let served = Command::new("git")
            .args(["--git-dir", bare, "update-server-info"])
            .status()
            .unwrap();
        assert!(served.success());
    }

    pub fn file_url(&self) -> String {
        format!("file://{}", self.bare.display())
    }
}
