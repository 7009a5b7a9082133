//! What can go wrong when the sandbox is entered and when a command is run in it.
//!
//! Each error that the user can do something about says what in `hint`: a command or a setting, never a lecture.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::vocab::Rung;

use super::cgroup::GroupError;
use super::lack::Lack;
use super::report::Stage;

/// Why this process cannot have a sandbox.
#[derive(Debug, Error)]
pub enum SandboxError {
    #[error("the sandbox must be entered before threads exist: found {count} threads")]
    Threads { count: usize },
    #[error("cannot read `{path}`")]
    Read { path: PathBuf, source: io::Error },
    #[error("needs user 0: this is user {uid}")]
    NotRoot { uid: u32 },
    #[error("root lacks {missing}")]
    NoCapability { missing: String },
    #[error("user `{user}` has no subordinate ids: no line for it in `{file}`")]
    NoSubordinateIds { user: String, file: &'static str },
    #[error(
        "program `{program}` is not installed: it gives the user's subordinate ids to a user namespace"
    )]
    NoMapProgram { program: &'static str },
    #[error("`{program}` failed: {message}")]
    MapProgram {
        program: &'static str,
        message: String,
        /// The process may not gain privileges, so a set-user-ID program cannot help it.
        no_new_privileges: bool,
    },
    #[error("no more user namespaces are allowed: `user.max_user_namespaces` is {limit}")]
    NamespaceLimit { limit: String },
    #[error(
        "user namespaces are switched off for ordinary users: `kernel.unprivileged_userns_clone` is 0"
    )]
    NamespacesOff,
    #[error("AppArmor refuses `{call}`: `kernel.apparmor_restrict_unprivileged_userns` is 1")]
    AppArmor { call: &'static str },
    #[error("the kernel has no `{call}`")]
    Kernel { call: &'static str },
    #[error("`{call}` is refused")]
    Refused {
        call: &'static str,
        source: io::Error,
    },
    #[error("another supervisor watches this process already: a build inside a build")]
    NestedListener,
    /// A trial took too long or was killed.
    #[error("the trial did not come to an end")]
    NoEnd,
    #[error("`{rung}` is not strict: {}", lost_by(*.rung, .lost))]
    NotStrict { rung: Rung, lost: Vec<Lack> },
    #[error("no way to confine commands works here")]
    NoRung { refused: Vec<(Rung, SandboxError)> },
}

/// Says what commands are not kept from.
fn lost_by(rung: Rung, lost: &[Lack]) -> String {
    let mut words = Vec::new();
    if !rung.has_namespaces() {
        words.push("no namespaces: the surrounding container is the boundary".to_owned());
    }
    words.extend(lost.iter().map(Lack::to_string));
    words.join("; ")
}

impl SandboxError {
    /// Returns what would make it work.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            SandboxError::Threads { .. }
            | SandboxError::Read { .. }
            | SandboxError::NoEnd
            | SandboxError::NestedListener => return None,
            SandboxError::NotRoot { .. } => "run as root, or as root of a container".to_owned(),
            SandboxError::NoCapability { missing } => {
                let names: Vec<_> = missing
                    .split(", ")
                    .map(|name| name.trim_start_matches("CAP_"))
                    .collect();
                format!(
                    "give the surrounding container {}: Docker `{}`, Kubernetes `securityContext: {{capabilities: {{add: [{}]}}}}`",
                    if names.len() == 1 { "it" } else { "them" },
                    names
                        .iter()
                        .map(|name| format!("--cap-add {name}"))
                        .collect::<Vec<_>>()
                        .join(" "),
                    names.join(", ")
                )
            }
            SandboxError::NotStrict { .. } => {
                "leave out `--require-isolation=strict`, or see what `builder doctor` advises".to_owned()
            }
            SandboxError::NoRung { refused } => return best_hint(refused),
            SandboxError::NoSubordinateIds { user, .. } => format!(
                "run `sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}`, or add the line \
                 `{user}:100000:65536` to both /etc/subuid and /etc/subgid"
            ),
            SandboxError::NoMapProgram { .. } => {
                "install the package `uidmap` (Debian, Ubuntu), `shadow-utils` (Fedora, Red Hat), `shadow` (Arch, SUSE) or \
                 `shadow-uidmap` (Alpine)"
                    .to_owned()
            }
            SandboxError::MapProgram {
                no_new_privileges: true,
                ..
            } => "this process runs with no_new_privs, under which set-user-ID programs have no power: allow it \
                  (Kubernetes: `allowPrivilegeEscalation: true`; Docker: drop `no-new-privileges`), or run as root"
                .to_owned(),
            SandboxError::MapProgram { program, .. } => format!(
                "see that `{program}` is set-user-ID root or has the file capability (`setcap cap_set{}id+ep`), that the \
                 ranges in /etc/subuid and /etc/subgid do not overlap, and that this is no container without CAP_SETUID \
                 and CAP_SETGID",
                if program.contains("uid") { 'u' } else { 'g' }
            ),
            SandboxError::NamespaceLimit { .. } => {
                "run `sudo sysctl user.max_user_namespaces=15000`, or run as root".to_owned()
            }
            SandboxError::NamespacesOff => {
                "run `sudo sysctl kernel.unprivileged_userns_clone=1`, or run as root".to_owned()
            }
            SandboxError::AppArmor { .. } => {
                "run `sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0`, load an AppArmor profile with `userns,` \
                 for this program, or run as root"
                    .to_owned()
            }
            SandboxError::Kernel { .. } => "Linux 5.12 or newer is needed".to_owned(),
            SandboxError::Refused { .. } => {
                "a container's seccomp or AppArmor profile probably forbids it: run the container with \
                 `--security-opt seccomp=unconfined --security-opt apparmor=unconfined` (Kubernetes: \
                 `seccompProfile: {type: Unconfined}`), or as root with CAP_SYS_ADMIN"
                    .to_owned()
            }
        })
    }
}

/// Returns the hint of the refusal that is the easiest to do something about: one about this user, not about being another.
fn best_hint(refused: &[(Rung, SandboxError)]) -> Option<String> {
    let is_telling = |error: &SandboxError| !matches!(error, SandboxError::NotRoot { .. });
    let hints = |is_wanted: &dyn Fn(&SandboxError) -> bool| {
        refused
            .iter()
            .rev()
            .filter(|(_, error)| is_wanted(error))
            .find_map(|(_, error)| error.hint())
    };
    hints(&is_telling).or_else(|| hints(&|_| true))
}

/// Why a command has no exit status.
#[derive(Debug, Error)]
pub enum RunError {
    #[error("the sandbox was not entered")]
    NotEntered,
    /// The caller's request makes no sense.
    #[error("cannot run this: {0}")]
    Spec(String),
    #[error("cannot start the sandbox's init process")]
    Spawn { source: io::Error },
    /// The machine could not give what the sandbox needs.
    #[error("cannot {stage}{}", of(.detail))]
    Setup {
        stage: &'static str,
        /// The file or call in question; may be empty.
        detail: String,
        source: io::Error,
    },
    #[error("cannot mount at `{target}`")]
    Mount { target: String, source: io::Error },
    #[error("cannot mount at `{target}`: {why}")]
    MountTarget { target: String, why: String },
    #[error("no emulation of architecture `{name}`")]
    Architecture { name: String },
    #[error("cannot change to the working directory `{path}`")]
    WorkingDirectory { path: String, source: io::Error },
    #[error("cannot become user {uid}, group {gid}")]
    Identity {
        uid: u32,
        gid: u32,
        source: io::Error,
    },
    #[error("command not found: `{program}`")]
    NotFound { program: String },
    /// The file is there; the program named in its first line, or its dynamic loader, is not.
    #[error("the interpreter of `{program}` is not in the image")]
    NoInterpreter { program: String },
    #[error("cannot execute `{program}`")]
    Exec { program: String, source: io::Error },
    #[error("cannot give the command a terminal")]
    Dialogue { source: io::Error },
    #[error("cannot put the command into its control groups")]
    Group { source: GroupError },
    #[error("cancelled")]
    Cancelled,
    /// Somebody killed it, or it is a bug.
    #[error("the sandbox's init process died: {how}")]
    Lost { how: String },
}

impl RunError {
    /// Returns what would make it work.
    pub fn hint(&self) -> Option<String> {
        match self {
            RunError::Setup { source, .. } if source.raw_os_error() == Some(libc::ENOSYS) => {
                Some("Linux 5.12 or newer is needed".to_owned())
            }
            RunError::Setup { stage, source, .. }
                if *stage == Stage::Proc.name()
                    && source.raw_os_error() == Some(libc::EPERM) =>
            {
                Some(
                    "the surrounding container hides parts of /proc: run it with `--security-opt systempaths=unconfined` \
                     (Kubernetes: `procMount: Unmasked`)"
                        .to_owned(),
                )
            }
            RunError::Setup { stage, source, .. }
                if *stage == Stage::Loopback.name()
                    && source.raw_os_error() == Some(libc::EPERM) =>
            {
                Some(
                    "without network needs CAP_NET_ADMIN here: run the surrounding container with `--cap-add NET_ADMIN`, or \
                     give the step the default network"
                        .to_owned(),
                )
            }
            RunError::Setup { stage, source, .. } if *stage == Stage::Instance.name() => {
                Some(match source.raw_os_error() {
                    Some(libc::ENODEV) => {
                        "the kernel has no binfmt_misc: run `sudo modprobe binfmt_misc`".to_owned()
                    }
                    _ => "Linux 6.7 or newer is needed; on older kernels register the emulator for the whole machine, with the \
                          flag `F` (package `qemu-user-static`)"
                        .to_owned(),
                })
            }
            RunError::Setup { stage, .. } if *stage == Stage::UserNamespace.name() => Some(
                "user namespaces must be allowed in here; a container's seccomp profile may forbid them, or `pivot_root`, \
                 without which they cannot be made: `--security-opt seccomp=unconfined`"
                    .to_owned(),
            ),
            RunError::Setup { stage, source, .. }
                if *stage == Stage::Emulator.name()
                    && source.raw_os_error() == Some(libc::EACCES) =>
            {
                Some("the emulator must be executable and on a file system that is not mounted `noexec`".to_owned())
            }
            RunError::Identity { source, .. } if source.raw_os_error() == Some(libc::EINVAL) => {
                Some("the ranges in /etc/subuid and /etc/subgid are too small for this id".to_owned())
            }
            RunError::Exec { source, .. } if source.raw_os_error() == Some(libc::ENOEXEC) => {
                Some("the file is for another kind of processor, or a script without a `#!` line".to_owned())
            }
            _ => None,
        }
    }
}

fn of(detail: &str) -> String {
    if detail.is_empty() {
        String::new()
    } else {
        format!(": `{detail}`")
    }
}

/// Why signals cannot raise the flag.
#[derive(Debug, Error)]
pub enum SignalError {
    #[error("signals already raise another flag")]
    Taken,
    #[error("cannot handle {signal}")]
    Install {
        signal: &'static str,
        source: io::Error,
    },
}
