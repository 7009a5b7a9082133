//! A place to build in: a state directory and a context of its own, and the program under test.

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use builder::vocab::ImageRef;
use serde_json::Value;
use tempfile::TempDir;

use super::image::{Files, Image};
use super::{machine_root, power};

/// What tells a job of a CI system, whose caches would have a scope of their own.
const CI_MARKS: [&str; 12] = [
    "CI",
    "GITHUB_ACTIONS",
    "GITLAB_CI",
    "JENKINS_URL",
    "TF_BUILD",
    "BITBUCKET_BUILD_NUMBER",
    "CIRCLECI",
    "BUILDKITE",
    "DRONE",
    "TRAVIS",
    "APPVEYOR",
    "SEMAPHORE",
];

pub struct Lab {
    directory: TempDir,
}

/// What a run of the program came to.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Lab {
    /// Returns an empty lab.
    pub fn new() -> Lab {
        let directory = tempfile::Builder::new()
            .prefix("builder-test-")
            .tempdir()
            .unwrap();
        fs::create_dir(directory.path().join("context")).unwrap();
        Lab { directory }
    }

    /// Returns a lab where steps can run, with the image `base` to build on; `None` if the machine lets nobody run steps.
    pub fn with_base() -> Option<Lab> {
        let lab = Lab::new();
        let tar = base_tar();
        lab.builder(&["import", tar.to_str().unwrap(), "base"])
            .succeeds();
        lab.dockerfile("FROM base\nRUN true\n");
        let tried = lab.build(&[]);
        if tried.code == Some(8) {
            power::not_run(&format!(
                "steps cannot run on this machine: {}",
                tried.stderr
            ));
            return None;
        }
        tried.succeeds();
        Some(lab)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn state(&self) -> PathBuf {
        self.path("state")
    }

    pub fn context(&self) -> PathBuf {
        self.path("context")
    }

    /// Writes a file of the context, with its directories.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.context().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    pub fn link(&self, name: &str, target: &str) {
        let path = self.context().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(target, path).unwrap();
    }

    pub fn dockerfile(&self, text: &str) {
        self.file("Dockerfile", text);
    }

    /// Returns a command of the program with this lab's state directory and a quiet environment.
    pub fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_builder"));
        command
            .env("BUILDER_ROOT", self.state())
            .env("NO_COLOR", "1")
            .env("DOCKER_CONFIG", self.path("docker-config"))
            .env("XDG_RUNTIME_DIR", self.path("runtime"))
            .env_remove("SOURCE_DATE_EPOCH")
            .env_remove("REGISTRY_AUTH_FILE")
            .env_remove("DOCKER_AUTH_CONFIG")
            .stdin(Stdio::null())
            .current_dir(self.directory.path());
        for mark in CI_MARKS {
            command.env_remove(mark);
        }
        command
    }

    pub fn builder(&self, args: &[&str]) -> Ran {
        Ran::of(self.command().args(args).output().unwrap())
    }

    /// Builds the context with plain progress.
    pub fn build(&self, args: &[&str]) -> Ran {
        let context = self.context();
        let mut all = vec!["build", "--progress=plain"];
        all.extend_from_slice(args);
        all.push(context.to_str().unwrap());
        self.builder(&all)
    }

    /// Builds the Dockerfile as `image`, which must succeed, and returns its files after every byte of it was checked.
    pub fn files(&self, dockerfile: &str) -> Files {
        self.image(dockerfile).files()
    }

    /// Builds the Dockerfile as `image`, which must succeed, and returns it after every byte of it was checked.
    pub fn image(&self, dockerfile: &str) -> Image {
        self.dockerfile(dockerfile);
        self.build(&["-t", "image"]).succeeds();
        self.saved("image")
    }

    /// Reads an image of the state directory.
    pub fn saved(&self, name: &str) -> Image {
        let mut images = self.saved_all(name);
        assert_eq!(images.len(), 1, "one image");
        images.remove(0)
    }

    /// Reads the images of an index, or the one that is there.
    pub fn saved_all(&self, name: &str) -> Vec<Image> {
        let out = tempfile::Builder::new()
            .prefix("layout-")
            .tempdir_in(self.directory.path())
            .unwrap();
        let layout = out.path().join("layout");
        self.builder(&[
            "save",
            "--format=oci-dir",
            "-o",
            layout.to_str().unwrap(),
            name,
        ])
        .succeeds();
        Image::read_all(&layout)
    }

    pub fn is_index(&self, name: &str) -> bool {
        let media_type = &self.inspect(name)[0]["mediaType"];
        media_type.as_str().unwrap().contains("index")
    }

    /// Runs with something on standard input.
    pub fn builder_with_input(&self, args: &[&str], input: &[u8]) -> Ran {
        let mut child = self
            .command()
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        Ran::of(child.wait_with_output().unwrap())
    }

    pub fn inspect(&self, name: &str) -> Value {
        let ran = self.builder(&["inspect", name]);
        ran.succeeds();
        serde_json::from_str(&ran.stdout).unwrap()
    }

    /// Asserts that nothing is damaged and nothing is left over.
    pub fn is_sound(&self) {
        self.builder(&["du", "--verify"]).succeeds();
        let left = sessions_left(&self.state());
        assert!(left.is_empty(), "temporary folders are left: {left:?}");
    }
}

fn sessions_left(state: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    if let Ok(versions) = fs::read_dir(state) {
        for version in versions.flatten() {
            if let Ok(sessions) = fs::read_dir(version.path().join("tmp")) {
                found.extend(sessions.flatten().map(|session| session.path()));
            }
        }
    }
    found
}

impl Ran {
    pub fn of(output: Output) -> Ran {
        Ran {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    #[track_caller]
    pub fn succeeds(&self) -> &Ran {
        assert_eq!(
            self.code,
            Some(0),
            "stdout:\n{}\nstderr:\n{}",
            self.stdout,
            self.stderr
        );
        self
    }

    /// Asserts the exit code, and that standard error holds each text.
    #[track_caller]
    pub fn fails(&self, code: i32, texts: &[&str]) -> &Ran {
        assert_eq!(
            self.code,
            Some(code),
            "stdout:\n{}\nstderr:\n{}",
            self.stdout,
            self.stderr
        );
        for text in texts {
            assert!(
                self.stderr.contains(text),
                "`{text}` is not in:\n{}",
                self.stderr
            );
        }
        self
    }

    /// Returns how many steps were executed, by the summary: steps, cached.
    #[track_caller]
    pub fn steps(&self) -> (usize, usize) {
        let line = self
            .stderr
            .lines()
            .rev()
            .find(|line| line.contains(" steps, "))
            .expect("a summary line");
        let mut numbers = line
            .split(|c: char| !c.is_ascii_digit())
            .filter_map(|word| word.parse().ok());
        (numbers.next().unwrap(), numbers.next().unwrap())
    }

    /// Returns how many steps were executed.
    #[track_caller]
    pub fn executed(&self) -> usize {
        let (steps, cached) = self.steps();
        steps - cached
    }
}

/// A tar of the machine's own small root. Made once, and kept with what cargo builds.
pub fn base_tar() -> &'static Path {
    static TAR: OnceLock<PathBuf> = OnceLock::new();
    TAR.get_or_init(|| {
        let kept = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let tar = kept.join(format!("base-{}.tar", machine_root::identity()));
        if !tar.exists() {
            let directory = tempfile::tempdir_in(kept).unwrap();
            let root = directory.path().join("root");
            machine_root::make(&root);
            let beside = directory.path().join("base.tar");
            let made = Command::new("tar")
                .args(["--numeric-owner", "--owner=0", "--group=0", "-cf"])
                .arg(&beside)
                .arg("-C")
                .arg(&root)
                .arg(".")
                .status()
                .expect("tar is there");
            assert!(made.success());
            fs::rename(beside, &tar).unwrap();
        }
        tar
    })
}

/// Puts a copy of the program where another user, or another root, finds it.
///
/// Another process writes it: while a thread of this one has it open for writing, a child that any test starts in that moment has it open
/// too until it executes, and a file that is open for writing cannot be executed (ETXTBSY).
pub fn install_program(to: &Path) {
    let program = env!("CARGO_BIN_EXE_builder");
    let installed = Command::new("install")
        .args(["-m", "755", program])
        .arg(to)
        .status()
        .expect("install is there");
    assert!(installed.success());
}

/// Returns the full name of a short one.
pub fn full(name: &str) -> ImageRef {
    name.parse().unwrap()
}
