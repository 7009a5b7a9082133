//! What would have to be set for a better rung, in the words of whoever sets it.

use std::collections::HashSet;

use crate::sandbox::{Facts, SandboxError, Surroundings};
use crate::vocab::Rung;

use super::examination::Examination;

/// A setting that can be copied.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Advice {
    pub(super) rung: Rung,
    /// Whose setting it is: `host`, `image` (of the build container), `docker`, `kubernetes`, `gitlab`.
    pub(super) place: &'static str,
    pub(super) text: String,
}

/// Returns the settings for each rung that is better than the one taken.
pub(super) fn advice(examination: &Examination) -> Vec<Advice> {
    let facts = &examination.facts;
    let state = examination.storage.directory.display().to_string();
    let mut all = Vec::new();
    for (rung, error) in examination.better() {
        let mut add = |place, text: String| {
            all.push(Advice { rung, place, text });
        };
        if !is_contained(facts) {
            if let Some(text) = on_host(rung, error, facts) {
                add("host", text);
            }
            continue;
        }
        let Some(settings) = Settings::of(rung, error, facts) else {
            continue;
        };
        let places = Places::of(facts.surroundings);
        if settings.needs_subordinate_ids {
            add("image", SUBORDINATE_IDS.to_owned());
        }
        if places.docker {
            add("docker", settings.docker(&state));
        }
        if places.kubernetes {
            add("kubernetes", settings.kubernetes(&state));
        }
        if places.gitlab {
            add("gitlab", settings.gitlab(&state));
        }
    }
    // What serves a better rung serves this one too.
    let mut seen = HashSet::new();
    all.retain(|advice| seen.insert(advice.text.clone()));
    all
}

/// What the image of the build container must have for `ns-sub`.
const SUBORDINATE_IDS: &str = "\
a line such as `USER:100000:65536` in /etc/subuid and in /etc/subgid, and the map programs with file capabilities in place of
the set-user-ID bit, which needs more than the container has:
  chmod 0755 /usr/bin/newuidmap /usr/bin/newgidmap
  setcap cap_setuid+ep /usr/bin/newuidmap
  setcap cap_setgid+ep /usr/bin/newgidmap";

/// Tells whether something around this process takes powers from it. Not every container says that it is one.
fn is_contained(facts: &Facts) -> bool {
    let may_administer = |names: &[String]| names.iter().any(|name| name == "SYS_ADMIN");
    facts.surroundings != Surroundings::Host
        || facts.seccomp_filters > 0
        || !may_administer(&facts.bounding)
}

/// What to do on a machine of one's own.
fn on_host(rung: Rung, error: &SandboxError, facts: &Facts) -> Option<String> {
    let hint = error.hint();
    match rung {
        Rung::Ns if !facts.is_root() => Some("run as root: `sudo builder build …`".to_owned()),
        // Only root gains by it.
        Rung::NsFull | Rung::Chroot if !facts.is_root() => None,
        _ if matches!(error, SandboxError::AppArmor { .. }) => Some(format!(
            "{}\nthe profile, as /etc/apparmor.d/builder, loaded with `sudo apparmor_parser -r /etc/apparmor.d/builder`:\n{}",
            hint.unwrap_or_default(),
            indent(&apparmor_profile(&program()), 2)
        )),
        _ => hint,
    }
}

/// Returns an AppArmor profile that lets a program have user namespaces and changes nothing else.
fn apparmor_profile(program: &str) -> String {
    format!(
        "abi <abi/4.0>,\ninclude <tunables/global>\n\nprofile builder {program} flags=(unconfined) {{\n  userns,\n}}\n"
    )
}

fn program() -> String {
    std::env::current_exe().map_or_else(
        |_| "/usr/local/bin/builder".to_owned(),
        |path| path.display().to_string(),
    )
}

/// Who may have set up a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Places {
    docker: bool,
    kubernetes: bool,
    gitlab: bool,
}

impl Places {
    fn of(surroundings: Surroundings) -> Places {
        let is_known = |which| surroundings == which;
        let is_docker = is_known(Surroundings::Docker) || is_known(Surroundings::Podman);
        let is_kubernetes = is_known(Surroundings::Kubernetes);
        Places {
            docker: !is_kubernetes,
            kubernetes: !is_docker,
            gitlab: !is_kubernetes && !is_known(Surroundings::Podman),
        }
    }
}

/// What a container is to be started with.
#[derive(Clone, Debug)]
struct Settings {
    /// Capabilities to be added, without `CAP_`.
    capabilities: Vec<String>,
    needs_root: bool,
    /// Default profiles of system calls forbid what is needed.
    no_seccomp_profile: bool,
    /// Security modules look at mounts and namespaces, too.
    needs_mounts: bool,
    /// The container's own image must have ids and map programs.
    needs_subordinate_ids: bool,
}

impl Settings {
    fn of(rung: Rung, error: &SandboxError, facts: &Facts) -> Option<Settings> {
        let missing: Vec<String> = match error {
            SandboxError::NoCapability { missing } => missing
                .split(", ")
                .map(|name| name.trim_start_matches("CAP_").to_owned())
                .collect(),
            _ => Vec::new(),
        };
        let needs_root = !facts.is_root();
        let namespaces = Settings {
            capabilities: Vec::new(),
            needs_root: false,
            no_seccomp_profile: true,
            needs_mounts: true,
            needs_subordinate_ids: false,
        };
        Some(match rung {
            // With this capability Docker's profile allows mounts.
            Rung::Ns => Settings {
                capabilities: match missing.is_empty() {
                    true => vec!["SYS_ADMIN".to_owned()],
                    false => missing,
                },
                needs_root,
                no_seccomp_profile: false,
                ..namespaces
            },
            Rung::NsFull => Settings {
                capabilities: missing,
                needs_root,
                ..namespaces
            },
            Rung::NsSub if needs_root => Settings {
                needs_subordinate_ids: true,
                ..namespaces
            },
            Rung::NsOne => namespaces,
            Rung::Chroot => Settings {
                capabilities: missing,
                needs_root,
                no_seccomp_profile: false,
                needs_mounts: false,
                ..namespaces
            },
            Rung::NsSub | Rung::Paths => return None,
        })
    }

    fn security_options(&self) -> Vec<&'static str> {
        let mut options = Vec::new();
        if self.no_seccomp_profile {
            options.push("seccomp=unconfined");
        }
        if self.needs_mounts {
            options.push("apparmor=unconfined");
        }
        if self.no_seccomp_profile {
            options.push("systempaths=unconfined");
        }
        options
    }

    fn docker(&self, state: &str) -> String {
        let mut command = "docker run".to_owned();
        if self.needs_root {
            command.push_str(" --user 0");
        }
        for capability in &self.capabilities {
            command.push_str(&format!(" --cap-add {capability}"));
        }
        for option in self.security_options() {
            command.push_str(&format!(" --security-opt {option}"));
        }
        command.push_str(&format!(" -v builder:{state} …"));
        command
    }

    fn kubernetes(&self, state: &str) -> String {
        let mut text = "spec:\n".to_owned();
        if self.needs_mounts {
            text.push_str("  hostUsers: false\n");
        }
        text.push_str("  containers:\n  - name: build\n");
        let mut context = Vec::new();
        if self.needs_root {
            context.extend(["runAsUser: 0", "runAsNonRoot: false"].map(str::to_owned));
        }
        if !self.capabilities.is_empty() || self.needs_subordinate_ids {
            context.push("allowPrivilegeEscalation: true".to_owned());
        }
        if !self.capabilities.is_empty() {
            context.push(format!(
                "capabilities: {{add: [{}]}}",
                self.capabilities.join(", ")
            ));
        }
        if self.no_seccomp_profile {
            context.push("seccompProfile: {type: Unconfined}".to_owned());
        }
        if self.needs_mounts {
            context.push("appArmorProfile: {type: Unconfined}".to_owned());
            context.push("procMount: Unmasked".to_owned());
        }
        if !context.is_empty() {
            text.push_str("    securityContext:\n");
        }
        for line in context {
            text.push_str(&format!("      {line}\n"));
        }
        text.push_str(&format!(
            "    volumeMounts:\n    - {{name: builder, mountPath: {state}}}\n  volumes:\n  - {{name: builder, emptyDir: {{}}}}"
        ));
        text
    }

    fn gitlab(&self, state: &str) -> String {
        let list = |words: &[&str]| {
            let quoted: Vec<_> = words.iter().map(|word| format!("\"{word}\"")).collect();
            quoted.join(", ")
        };
        let mut text = "[runners.docker]\n".to_owned();
        if self.needs_root {
            text.push_str("  user = \"0\"\n");
        }
        if !self.capabilities.is_empty() {
            let names: Vec<_> = self.capabilities.iter().map(String::as_str).collect();
            text.push_str(&format!("  cap_add = [{}]\n", list(&names)));
        }
        let options = self.security_options();
        if !options.is_empty() {
            text.push_str(&format!("  security_opt = [{}]\n", list(&options)));
        }
        text.push_str(&format!("  volumes = [{}]", list(&[state])));
        text
    }
}

/// Puts blanks before each line.
pub(super) fn indent(text: &str, blanks: usize) -> String {
    text.lines()
        .map(|line| match line {
            "" => "\n".to_owned(),
            line => format!("{:blanks$}{line}\n", ""),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn facts(uid: u32, surroundings: Surroundings) -> Facts {
        let mut facts = Facts::gather();
        facts.uid = uid;
        facts.surroundings = surroundings;
        facts
    }

    fn check(rung: Rung, place: fn(&Settings, &str) -> String, expected: Expect) {
        // Whoever runs the tests: the user is another one.
        let refused = SandboxError::NotRoot { uid: 1000 };
        let settings = Settings::of(rung, &refused, &facts(1000, Surroundings::Docker)).unwrap();
        expected.assert_eq(&place(&settings, "/state"));
    }

    #[test]
    fn settings_can_be_copied() {
        check(
            Rung::Ns,
            Settings::docker,
            expect![
                "docker run --user 0 --cap-add SYS_ADMIN --security-opt apparmor=unconfined -v builder:/state …"
            ],
        );
        check(
            Rung::NsOne,
            Settings::docker,
            expect![
                "docker run --security-opt seccomp=unconfined --security-opt apparmor=unconfined --security-opt systempaths=unconfined -v builder:/state …"
            ],
        );
        check(
            Rung::Ns,
            Settings::kubernetes,
            expect![[r#"
                spec:
                  hostUsers: false
                  containers:
                  - name: build
                    securityContext:
                      runAsUser: 0
                      runAsNonRoot: false
                      allowPrivilegeEscalation: true
                      capabilities: {add: [SYS_ADMIN]}
                      appArmorProfile: {type: Unconfined}
                      procMount: Unmasked
                    volumeMounts:
                    - {name: builder, mountPath: /state}
                  volumes:
                  - {name: builder, emptyDir: {}}"#]],
        );
        check(
            Rung::NsFull,
            Settings::gitlab,
            expect![[r#"
                [runners.docker]
                  user = "0"
                  security_opt = ["seccomp=unconfined", "apparmor=unconfined", "systempaths=unconfined"]
                  volumes = ["/state"]"#]],
        );
        check(
            Rung::Chroot,
            Settings::kubernetes,
            expect![[r#"
                spec:
                  containers:
                  - name: build
                    securityContext:
                      runAsUser: 0
                      runAsNonRoot: false
                    volumeMounts:
                    - {name: builder, mountPath: /state}
                  volumes:
                  - {name: builder, emptyDir: {}}"#]],
        );
    }

    #[test]
    fn capabilities_that_were_dropped_are_named() {
        let mut root = facts(0, Surroundings::Kubernetes);
        root.uid = 0;
        let dropped = SandboxError::NoCapability {
            missing: "CAP_CHOWN, CAP_SETUID".to_owned(),
        };
        let settings = Settings::of(Rung::Chroot, &dropped, &root).unwrap();
        assert_eq!(settings.capabilities, ["CHOWN", "SETUID"]);
        let text = settings.kubernetes("/state");
        assert!(
            text.contains("capabilities: {add: [CHOWN, SETUID]}"),
            "{text}"
        );
    }

    #[test]
    fn whoever_set_up_the_container_is_told() {
        for (surroundings, expected) in [
            (Surroundings::Docker, [true, false, true]),
            (Surroundings::Podman, [true, false, false]),
            (Surroundings::Kubernetes, [false, true, false]),
            (Surroundings::Container, [true, true, true]),
        ] {
            let places = Places::of(surroundings);
            assert_eq!(
                [places.docker, places.kubernetes, places.gitlab],
                expected,
                "{surroundings:?}"
            );
        }
    }

    #[test]
    fn the_host_advises_what_this_user_can_use() {
        let facts = facts(1000, Surroundings::Host);
        let refused = SandboxError::NotRoot { uid: 1000 };
        assert!(
            on_host(Rung::Ns, &refused, &facts)
                .unwrap()
                .contains("sudo")
        );
        assert_eq!(on_host(Rung::NsFull, &refused, &facts), None);
        assert_eq!(on_host(Rung::Chroot, &refused, &facts), None);
        let no_ids = SandboxError::NoSubordinateIds {
            user: "alice".to_owned(),
            file: "/etc/subuid",
        };
        let text = on_host(Rung::NsSub, &no_ids, &facts).unwrap();
        assert!(text.contains("alice:100000:65536"), "{text}");
        let apparmor = SandboxError::AppArmor {
            call: "write uid_map",
        };
        let text = on_host(Rung::NsOne, &apparmor, &facts).unwrap();
        assert!(text.contains("  userns,"), "{text}");
    }
}
