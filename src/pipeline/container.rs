//! What an image's config says of how it is run, as a RUN: entry point and command, environment, user, directory.
//!
//! In: the config and what the user wants otherwise. Out: the step. The rules are those of `docker run`.

use crate::image::ContainerConfig;
use crate::plan::{Mount, Run};
use crate::vocab::{BuildRequest, Platform, Security};

/// The search path of images that name none.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// What programs find in TERM where the command has a terminal.
const TERMINAL: &str = "xterm";
const HOSTNAME: &str = "builder";

/// What is wanted otherwise than the image says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// Takes the place of the entry point, and the image's command goes with that. An empty one is none.
    pub entrypoint: Option<Vec<String>>,
    /// Takes the place of the image's command where it is not empty.
    pub command: Vec<String>,
    /// Later ones win; a name without a value is taken away.
    pub env: Vec<(String, Option<String>)>,
    pub user: Option<String>,
    /// Relative to the image's.
    pub cwd: Option<String>,
    pub mounts: Vec<Mount>,
    pub has_terminal: bool,
}

/// Returns the step that runs an image; `None` if neither the image nor the user names a command.
pub(super) fn step(
    config: &ContainerConfig,
    platform: &Platform,
    request: &BuildRequest,
    wanted: &Overrides,
) -> Option<Run> {
    let argv = argv(config, wanted);
    if argv.is_empty() {
        return None;
    }
    let host = Platform::host();
    Some(Run {
        arguments: Vec::new(),
        argv,
        env: env(config, wanted),
        ambient_env: Vec::new(),
        cwd: cwd(config, wanted),
        user: wanted.user.clone().unwrap_or_else(|| config.user.clone()),
        network: request.network,
        add_hosts: request.add_hosts.clone(),
        hostname: HOSTNAME.to_owned(),
        shm_size: request.shm_size,
        ulimits: request.ulimits.clone(),
        scripts: Vec::new(),
        mounts: wanted.mounts.clone(),
        security: Security::Sandbox,
        devices: Vec::new(),
        foreign: (platform.architecture != host.architecture).then(|| platform.clone()),
    })
}

fn argv(config: &ContainerConfig, wanted: &Overrides) -> Vec<String> {
    let mut argv = match &wanted.entrypoint {
        Some(entrypoint) => entrypoint.clone(),
        None => config.entrypoint.clone().unwrap_or_default(),
    };
    match (wanted.command.is_empty(), &wanted.entrypoint) {
        (false, _) => argv.extend(wanted.command.iter().cloned()),
        // It was written for another entry point.
        (true, Some(_)) => {}
        (true, None) => argv.extend(config.cmd.iter().flatten().cloned()),
    }
    argv
}

fn env(config: &ContainerConfig, wanted: &Overrides) -> Vec<(String, String)> {
    let mut env: Vec<(String, String)> = Vec::new();
    let mut set = |name: &str, value: &str| {
        env.retain(|(known, _)| known != name);
        env.push((name.to_owned(), value.to_owned()));
    };
    set("PATH", PATH);
    set("HOSTNAME", HOSTNAME);
    if wanted.has_terminal {
        set("TERM", TERMINAL);
    }
    for pair in &config.env {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        // No command can be given a variable without a name; Docker's images have had them.
        if !name.is_empty() {
            set(name, value);
        }
    }
    for (name, value) in &wanted.env {
        match value {
            Some(value) => {
                env.retain(|(known, _)| known != name);
                env.push((name.clone(), value.clone()));
            }
            None => env.retain(|(known, _)| known != name),
        }
    }
    env
}

fn cwd(config: &ContainerConfig, wanted: &Overrides) -> String {
    let of_image = match config.working_dir.as_str() {
        "" => "/".to_owned(),
        absolute if absolute.starts_with('/') => absolute.to_owned(),
        relative => format!("/{relative}"),
    };
    match &wanted.cwd {
        None => of_image,
        Some(absolute) if absolute.starts_with('/') => absolute.clone(),
        Some(relative) => format!("{}/{relative}", of_image.trim_end_matches('/')),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn entry_points_and_commands() {
        let check = |image: (&[&str], &[&str]), user: (Option<&[&str]>, &[&str]), wanted: &str| {
            let some = |words: &[&str]| Some(list(words)).filter(|words| !words.is_empty());
            let config = ContainerConfig {
                entrypoint: some(image.0),
                cmd: some(image.1),
                ..ContainerConfig::default()
            };
            let overrides = Overrides {
                entrypoint: user.0.map(list),
                command: list(user.1),
                ..Overrides::default()
            };
            assert_eq!(argv(&config, &overrides).join(" "), wanted);
        };
        let shell = &["/bin/sh", "-c", "x"][..];
        check((&[], &["c", "d"]), (None, &[]), "c d");
        check((&["e"], &["c"]), (None, &[]), "e c");
        check((&["e"], shell), (None, &[]), "e /bin/sh -c x");
        check((shell, &["c"]), (None, &[]), "/bin/sh -c x c");
        check((&["e"], &["c"]), (None, &["u", "v"]), "e u v");
        check((&["e"], &["c"]), (Some(&["f"]), &[]), "f");
        check((&["e"], &["c"]), (Some(&["f"]), &["u"]), "f u");
        check((&["e"], &["c"]), (Some(&[]), &["u"]), "u");
        check((&["e"], &["c"]), (Some(&[]), &[]), "");
        check((&[], &[]), (None, &[]), "");
    }

    #[test]
    fn variables_of_the_user_go_before_those_of_the_image() {
        let config = ContainerConfig {
            env: list(&["A=1", "B=2", "PATH=/x", "=odd"]),
            ..ContainerConfig::default()
        };
        let overrides = Overrides {
            env: vec![("A".into(), Some("9".into())), ("B".into(), None)],
            ..Overrides::default()
        };
        let env = env(&config, &overrides);
        let text: Vec<String> = env.iter().map(|(n, v)| format!("{n}={v}")).collect();
        assert_eq!(text.join(" "), "HOSTNAME=builder PATH=/x A=9");
    }

    #[test]
    fn working_directories() {
        for (image, user, wanted) in [
            ("", None, "/"),
            ("/srv", None, "/srv"),
            ("srv", None, "/srv"),
            ("/srv", Some("/x"), "/x"),
            ("/srv", Some("x"), "/srv/x"),
            ("", Some("x"), "/x"),
        ] {
            let config = ContainerConfig {
                working_dir: image.to_owned(),
                ..ContainerConfig::default()
            };
            let overrides = Overrides {
                cwd: user.map(str::to_owned),
                ..Overrides::default()
            };
            assert_eq!(cwd(&config, &overrides), wanted);
        }
    }
}
