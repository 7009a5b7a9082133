//! CI environments, emulated: what a process may do in them, with runc and podman for containers and plain users otherwise.
//!
//! In: the name of an environment, where the state directory lies, a command line of the program. Out: what the run came to. Each
//! run has a container of its own over a shared root, which stays as it was.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

use crate::profile;
use crate::support::lab::Ran;

/// One kind of place that CI runs jobs in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Environment {
    pub(crate) name: &'static str,
    /// For the reader of the table.
    pub(crate) what: &'static str,
    kind: Kind,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    /// The machine's root.
    Root,
    /// An ordinary user with subordinate ids.
    Subordinate,
    /// An ordinary user of the machine who has nothing.
    Plain,
    Container(Container),
    /// Root in a container of an ordinary user's podman.
    Podman,
}

#[derive(Clone, Copy, Debug)]
struct Container {
    uid: u32,
    capabilities: Capabilities,
    has_profile: bool,
    no_new_privileges: bool,
    user_namespace: bool,
    masked: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Capabilities {
    None,
    /// None in effect, Docker's in the bounding set.
    Bounding,
    Docker,
    DockerAndAdmin,
    All,
}

/// Where the state directory lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In the container's own root, which is an overlay.
    Overlay,
    /// On a disk of its own.
    Volume,
    Tmpfs,
}

const fn container(
    name: &'static str,
    what: &'static str,
    uid: u32,
    capabilities: Capabilities,
    [has_profile, no_new_privileges, user_namespace, masked]: [bool; 4],
) -> Environment {
    Environment {
        name,
        what,
        kind: Kind::Container(Container {
            uid,
            capabilities,
            has_profile,
            no_new_privileges,
            user_namespace,
            masked,
        }),
    }
}

/// All of them. The four claims of a container: Docker's system call profile, no_new_privs, a user namespace of its own, parts
/// of /proc hidden.
#[rustfmt::skip]
pub(crate) const ALL: [Environment; 17] = [
    Environment { name: "E1", what: "root on the host", kind: Kind::Root },
    Environment { name: "E2", what: "user with subordinate ids", kind: Kind::Subordinate },
    Environment { name: "E3", what: "user without subordinate ids", kind: Kind::Plain },
    container("E4", "default Docker container, root", 0, Capabilities::Docker, [true, false, false, true]),
    container("E5", "Kubernetes restricted: uid 1000, no capabilities, no_new_privs", 1000, Capabilities::None, [true, true, false, true]),
    container("E5b", "uid 1000, escalation permitted", 1000, Capabilities::Bounding, [true, false, false, true]),
    container("E5c", "uid 0, all capabilities dropped", 0, Capabilities::None, [true, true, false, true]),
    container("E6a", "Docker with CAP_SYS_ADMIN", 0, Capabilities::DockerAndAdmin, [true, false, false, true]),
    container("E6b", "Docker without seccomp, root", 0, Capabilities::Docker, [false, false, false, true]),
    container("E6c", "privileged", 0, Capabilities::All, [false, false, false, false]),
    container("E6d", "Docker without seccomp, uid 1000", 1000, Capabilities::Bounding, [false, false, false, true]),
    container("E6e", "Docker without seccomp, uid 1000, /proc whole", 1000, Capabilities::Bounding, [false, false, false, false]),
    container("E7a", "Kubernetes hostUsers: false", 0, Capabilities::Docker, [true, false, true, true]),
    container("E7b", "hostUsers: false, CAP_SYS_ADMIN", 0, Capabilities::DockerAndAdmin, [true, false, true, true]),
    container("E7c", "hostUsers: false, CAP_SYS_ADMIN, procMount: Unmasked", 0, Capabilities::DockerAndAdmin, [true, false, true, false]),
    container("E7d", "hostUsers: false, seccomp Unconfined, procMount: Unmasked", 0, Capabilities::Docker, [false, false, true, false]),
    Environment { name: "E8", what: "root in a rootless podman container", kind: Kind::Podman },
];

/// An ordinary user of whom no file of the machine knows anything.
const NOBODY_KNOWN: u32 = 61234;
/// Where the ids of a container with a user namespace begin on the machine.
const SHIFT: u32 = 500_000;

const DOCKER: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];
const OTHERS: [&str; 22] = [
    "DAC_READ_SEARCH",
    "LINUX_IMMUTABLE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "LEASE",
    "AUDIT_CONTROL",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
];
const MASKED: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

impl Capabilities {
    fn names(self) -> Vec<String> {
        let mut names: Vec<&str> = match self {
            Capabilities::None => Vec::new(),
            Capabilities::Bounding | Capabilities::Docker => DOCKER.to_vec(),
            Capabilities::DockerAndAdmin | Capabilities::All => {
                let mut names = DOCKER.to_vec();
                names.push("SYS_ADMIN");
                names
            }
        };
        if self == Capabilities::All {
            names.extend(OTHERS);
        }
        // What this machine's root lacks it cannot give.
        let own = own_bounding_set();
        names
            .into_iter()
            .filter(|name| {
                profile::capability_number(name).is_none_or(|number| own & (1 << number) != 0)
            })
            .map(|name| format!("CAP_{name}"))
            .collect()
    }
}

fn own_bounding_set() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("CapBnd:"))
        .unwrap();
    u64::from_str_radix(line.trim(), 16).unwrap()
}

/// What all environments share: roots to run in, the program, inputs and a place for results.
pub(crate) struct Site {
    /// A Debian root, and the same with shifted owners.
    pub(crate) root: PathBuf,
    pub(crate) shifted_root: PathBuf,
    /// The program.
    pub(crate) builder: PathBuf,
    /// Read-only in every environment, at the same path as on the machine.
    pub(crate) inputs: PathBuf,
    /// Where everything that a test makes goes.
    pub(crate) work: PathBuf,
    /// The user with subordinate ids.
    pub(crate) user: Option<String>,
}

/// One run's own directories, which go with it.
pub(crate) struct Bench<'a> {
    site: &'a Site,
    pub(crate) environment: Environment,
    pub(crate) place: Place,
    directory: PathBuf,
    engine: Engine,
}

/// What commands of a bench are started with.
enum Engine {
    /// As this user of the machine.
    Plain(Option<(u32, u32)>),
    Runc {
        id: String,
        _root: Overlay,
    },
    Podman {
        storage: PathBuf,
    },
}

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

static NUMBER: AtomicU32 = AtomicU32::new(0);

impl Environment {
    pub(crate) fn named(name: &str) -> Environment {
        *ALL.iter()
            .find(|environment| environment.name == name)
            .unwrap()
    }

    /// Tells whether a state directory can lie there.
    pub(crate) fn has(&self, place: Place) -> bool {
        matches!(self.kind, Kind::Container(_) | Kind::Podman) || place != Place::Overlay
    }

    fn uid(&self, site: &Site) -> (u32, u32) {
        match self.kind {
            Kind::Root => (0, 0),
            Kind::Plain => (NOBODY_KNOWN, NOBODY_KNOWN),
            Kind::Subordinate | Kind::Podman => {
                user_ids(site.user.as_deref().expect("checked before"))
            }
            Kind::Container(container) => {
                let shift = if container.user_namespace { SHIFT } else { 0 };
                (container.uid + shift, container.uid + shift)
            }
        }
    }
}

fn user_ids(name: &str) -> (u32, u32) {
    let id = |flag: &str| {
        let out = Command::new("id").args([flag, name]).output().unwrap();
        String::from_utf8(out.stdout)
            .unwrap()
            .trim()
            .parse()
            .unwrap()
    };
    (id("-u"), id("-g"))
}

impl<'a> Bench<'a> {
    pub(crate) fn new(site: &'a Site, environment: Environment, place: Place) -> Bench<'a> {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let directory = site
            .work
            .join(format!("{}-{place:?}-{number}", environment.name));
        let mut bench = Bench {
            site,
            environment,
            place,
            directory,
            engine: Engine::Plain(None),
        };
        let (uid, gid) = environment.uid(site);
        for name in ["", "volume", "out", "tmpfs"] {
            let path = bench.directory.join(name);
            fs::create_dir_all(&path).unwrap();
            chown(&path, Some(uid), Some(gid)).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        if place == Place::Tmpfs && !matches!(environment.kind, Kind::Container(_) | Kind::Podman) {
            let owner = format!("uid={uid},gid={gid},mode=755");
            run(Command::new("mount")
                .args(["-t", "tmpfs", "-o", &owner, "tmpfs"])
                .arg(bench.directory.join("tmpfs")));
        }
        bench.engine = match environment.kind {
            Kind::Root => Engine::Plain(None),
            Kind::Plain | Kind::Subordinate => Engine::Plain(Some((uid, gid))),
            Kind::Container(container) => bench.start_runc(container),
            Kind::Podman => bench.start_podman(),
        };
        bench
    }

    /// A directory that the environment sees at the same path, for results.
    pub(crate) fn out(&self) -> PathBuf {
        self.directory.join("out")
    }

    /// Makes a file the environment's user's.
    pub(crate) fn give_away(&self, path: &Path) {
        let (uid, gid) = self.environment.uid(self.site);
        chown(path, Some(uid), Some(gid)).unwrap();
    }

    /// The state directory, as the environment sees it.
    pub(crate) fn state(&self) -> PathBuf {
        match self.place {
            Place::Overlay => PathBuf::from("/var/tmp/state"),
            Place::Volume => self.directory.join("volume/state"),
            Place::Tmpfs if self.is_container() => PathBuf::from("/tmpfs/state"),
            Place::Tmpfs => self.directory.join("tmpfs/state"),
        }
    }

    fn is_container(&self) -> bool {
        matches!(self.environment.kind, Kind::Container(_) | Kind::Podman)
    }

    /// Runs the program in the environment.
    pub(crate) fn builder(&self, args: &[&str], env: &[(&str, &str)]) -> Ran {
        let mut line = vec![self.site.builder.to_str().unwrap()];
        line.extend(args);
        self.run(&line, env)
    }

    /// Runs any command in the environment.
    pub(crate) fn run(&self, line: &[&str], env: &[(&str, &str)]) -> Ran {
        Ran::of(self.command(line, env).output().unwrap())
    }

    /// Returns a command that runs in the environment.
    pub(crate) fn command(&self, line: &[&str], env: &[(&str, &str)]) -> Command {
        let mut env: Vec<(&str, &str)> = env.to_vec();
        let state = self.state();
        let home = self.out();
        env.extend([
            ("BUILDER_ROOT", state.to_str().unwrap()),
            ("HOME", home.to_str().unwrap()),
            ("PATH", PATH),
            ("NO_COLOR", "1"),
        ]);
        let variables = || {
            env.iter()
                .map(|(name, value)| format!("--env={name}={value}"))
        };
        let mut command = match &self.engine {
            Engine::Plain(ids) => {
                let mut command = match ids {
                    None => Command::new(line[0]),
                    Some(ids) => {
                        let mut command = as_user(*ids);
                        command.arg(line[0]);
                        command
                    }
                };
                command
                    .args(&line[1..])
                    .env_clear()
                    .envs(env.iter().copied())
                    .current_dir(&home);
                command
            }
            Engine::Runc { id, .. } => {
                let mut command = Command::new("runc");
                command
                    .arg("exec")
                    .args(variables())
                    .args(["--cwd", home.to_str().unwrap(), id])
                    .args(line);
                command
            }
            Engine::Podman { storage } => {
                let mut command = self.podman(storage);
                command
                    .arg("exec")
                    .args(variables())
                    .args(["--workdir", home.to_str().unwrap(), "ci"])
                    .args(line);
                command
            }
        };
        command.stdin(Stdio::null());
        command
    }

    /// Starts a container that waits for commands.
    fn start_runc(&self, container: Container) -> Engine {
        let root = Overlay::mount(
            if container.user_namespace {
                &self.site.shifted_root
            } else {
                &self.site.root
            },
            &self.directory.join("layer"),
        );
        let bundle = self.directory.join("bundle");
        fs::create_dir(&bundle).unwrap();
        let config = self.config(
            container,
            &root.merged,
            &["sleep", "infinity"],
            &[("PATH", PATH)],
        );
        fs::write(
            bundle.join("config.json"),
            serde_json::to_vec_pretty(&config).unwrap(),
        )
        .unwrap();
        let id = format!(
            "builder-matrix-{}-{}",
            std::process::id(),
            NUMBER.fetch_add(1, Ordering::Relaxed)
        );
        // Its output is the container's, and would be waited for.
        let log = fs::File::create(self.directory.join("runc.log")).unwrap();
        let status = Command::new("runc")
            .args(["run", "--detach", "--bundle"])
            .args([bundle.to_str().unwrap(), &id])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .status()
            .unwrap();
        assert!(
            status.success(),
            "{}: {}",
            self.environment.name,
            fs::read_to_string(self.directory.join("runc.log")).unwrap()
        );
        Engine::Runc { id, _root: root }
    }

    fn config(
        &self,
        container: Container,
        root: &Path,
        line: &[&str],
        env: &[(&str, &str)],
    ) -> Value {
        let names = container.capabilities.names();
        let in_effect = match container.capabilities {
            Capabilities::None | Capabilities::Bounding => Vec::new(),
            _ => names.clone(),
        };
        let bind = |path: &Path, extra: &str| json!({"destination": path, "type": "bind", "source": path, "options": ["rbind", extra]});
        let mut mounts = vec![
            json!({"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]}),
            json!({"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]}),
            json!({"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]}),
            json!({"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]}),
            json!({"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]}),
            // The container has the machine's network: a user namespace cannot mount a sysfs for it.
            match container.user_namespace {
                true => {
                    json!({"destination": "/sys", "type": "none", "source": "/sys", "options": ["rbind", "nosuid", "noexec", "nodev", "ro"]})
                }
                false => {
                    json!({"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]})
                }
            },
            json!({"destination": "/etc/resolv.conf", "type": "bind", "source": "/etc/resolv.conf", "options": ["rbind", "ro"]}),
            json!({"destination": "/etc/hosts", "type": "bind", "source": "/etc/hosts", "options": ["rbind", "ro"]}),
            bind(&self.site.builder, "ro"),
            bind(&self.site.inputs, "ro"),
            bind(&self.out(), "rw"),
            bind(&self.directory.join("volume"), "rw"),
        ];
        if self.place == Place::Tmpfs {
            // A directory that is not there: runc would give the mount the mode of one that is.
            mounts.push(json!({"destination": "/tmpfs", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=1777"]}));
        }
        let mut namespaces: Vec<Value> = ["mount", "pid", "ipc", "uts"]
            .into_iter()
            .map(|kind| json!({"type": kind}))
            .collect();
        let mut linux = json!({
            "maskedPaths": if container.masked { MASKED.to_vec() } else { Vec::new() },
            "readonlyPaths": if container.masked { READ_ONLY.to_vec() } else { Vec::new() },
            "resources": {"devices": [{"allow": true, "access": "rwm"}]},
        });
        if container.user_namespace {
            namespaces.push(json!({"type": "user"}));
            let ids = json!([{"containerID": 0, "hostID": SHIFT, "size": 65536}]);
            linux["uidMappings"] = ids.clone();
            linux["gidMappings"] = ids;
        }
        linux["namespaces"] = Value::Array(namespaces);
        if container.has_profile {
            linux["seccomp"] = profile::docker(&names);
        }
        json!({
            "ociVersion": "1.0.2",
            "process": {
                "terminal": false,
                "user": {"uid": container.uid, "gid": container.uid, "umask": 0o22},
                "args": line,
                "cwd": self.out(),
                "noNewPrivileges": container.no_new_privileges,
                "env": env.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>(),
                "capabilities": {"bounding": names, "effective": in_effect, "permitted": in_effect, "inheritable": []},
            },
            "root": {"path": root, "readonly": false},
            "hostname": "ci",
            "mounts": mounts,
            "linux": linux,
        })
    }

    /// Starts root's default container of an ordinary user's podman.
    fn start_podman(&self) -> Engine {
        let (uid, gid) = self.environment.uid(self.site);
        // podman takes no run directory with a long name.
        let storage = PathBuf::from(format!(
            "/var/tmp/bm-{}-{}",
            std::process::id(),
            NUMBER.fetch_add(1, Ordering::Relaxed)
        ));
        for name in ["", "root", "run", "tmp"] {
            let path = storage.join(name);
            fs::create_dir_all(&path).unwrap();
            chown(&path, Some(uid), Some(gid)).unwrap();
        }
        let tar = self.site.inputs.join("root.tar");
        run(self.podman(&storage).args([
            "import",
            "-q",
            tar.to_str().unwrap(),
            "localhost/ci:latest",
        ]));
        let volume = |path: &Path, mode: &str| format!("--volume={0}:{0}:{mode}", path.display());
        let mut command = self.podman(&storage);
        command.args([
            "run",
            "--detach",
            "--name=ci",
            "--network=host",
            "--ulimit=nofile=1024:1024",
            "--ulimit=nproc=4096:4096",
            &volume(&self.site.builder, "ro"),
            &volume(&self.site.inputs, "ro"),
            &volume(&self.out(), "rw"),
            &volume(&self.directory.join("volume"), "rw"),
        ]);
        if self.place == Place::Tmpfs {
            command.arg("--tmpfs=/tmpfs:rw,mode=1777,exec");
        }
        run(command.args(["localhost/ci:latest", "sleep", "infinity"]));
        Engine::Podman { storage }
    }

    fn podman(&self, storage: &Path) -> Command {
        let mut command = as_user(self.environment.uid(self.site));
        command
            .arg("podman")
            .arg(format!("--root={}", storage.join("root").display()))
            .arg(format!("--runroot={}", storage.join("run").display()))
            .args([
                "--storage-driver=overlay",
                "--cgroup-manager=cgroupfs",
                "--runtime=runc",
            ])
            .env_clear()
            .env("HOME", storage)
            .env("XDG_RUNTIME_DIR", storage.join("run"))
            .env("TMPDIR", storage.join("tmp"))
            .env("PATH", PATH)
            .current_dir(storage)
            .stdin(Stdio::null());
        command
    }
}

fn as_user((uid, gid): (u32, u32)) -> Command {
    let mut command = Command::new("setpriv");
    command.args([
        &format!("--reuid={uid}"),
        &format!("--regid={gid}"),
        "--clear-groups",
        "--",
    ]);
    command
}

impl Drop for Bench<'_> {
    fn drop(&mut self) {
        // What is gone already need not be ended.
        match &self.engine {
            Engine::Plain(_) => {}
            Engine::Runc { id, .. } => {
                Command::new("runc")
                    .args(["delete", "--force", id])
                    .output()
                    .ok();
            }
            Engine::Podman { storage } => {
                let root = storage.join("root");
                let end = format!("umount -l {0}/overlay; rm -rf {0}", root.display());
                self.podman(storage)
                    .args(["rm", "--force", "--time=0", "ci"])
                    .output()
                    .ok();
                self.podman(storage)
                    .args(["unshare", "sh", "-c", &end])
                    .output()
                    .ok();
                // Ends the process that holds its namespaces.
                self.podman(storage)
                    .args(["system", "migrate"])
                    .output()
                    .ok();
                Command::new("rm").arg("-rf").arg(storage).output().ok();
            }
        }
        if self.place == Place::Tmpfs && !self.is_container() {
            Command::new("umount")
                .arg("-l")
                .arg(self.directory.join("tmpfs"))
                .output()
                .ok();
        }
        if std::env::var_os("BUILDER_TEST_KEEP").is_none() {
            Command::new("rm")
                .arg("-rf")
                .arg(&self.directory)
                .output()
                .ok();
        }
    }
}

/// A root of its own over a shared one.
struct Overlay {
    merged: PathBuf,
}

impl Overlay {
    fn mount(lower: &Path, directory: &Path) -> Overlay {
        let [upper, work, merged] = ["upper", "work", "merged"].map(|name| directory.join(name));
        for path in [&upper, &work, &merged] {
            fs::create_dir_all(path).unwrap();
        }
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            lower.display(),
            upper.display(),
            work.display()
        );
        // The root of a container is its lower directory's root, whoever made the upper one.
        let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(lower).unwrap());
        chown(&upper, Some(owner), Some(owner)).unwrap();
        run(Command::new("mount")
            .args(["-t", "overlay", "overlay", "-o", &options])
            .arg(&merged));
        Overlay { merged }
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        Command::new("umount")
            .arg("-l")
            .arg(&self.merged)
            .output()
            .ok();
    }
}

/// Gives every file of a root other owners, as a container's engine does for a user namespace.
pub(crate) fn shift_owners(root: &Path) {
    use std::os::unix::fs::{MetadataExt, lchown};
    let mut waiting = vec![root.to_owned()];
    while let Some(path) = waiting.pop() {
        let metadata = fs::symlink_metadata(&path).unwrap();
        lchown(
            &path,
            Some(metadata.uid() + SHIFT),
            Some(metadata.gid() + SHIFT),
        )
        .unwrap();
        if metadata.is_dir() {
            waiting.extend(
                fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        } else if !metadata.is_symlink() {
            // A change of owner takes set-id bits away.
            fs::set_permissions(&path, metadata.permissions()).unwrap();
        }
    }
}

/// Runs a command that must succeed.
#[track_caller]
pub(crate) fn run(command: &mut Command) {
    let out = command.output().unwrap();
    assert!(
        out.status.success(),
        "{command:?}\n{}{}",
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    );
}
