//! The examination for people.

use crate::sandbox::{Facts, MapPower, Surroundings};
use crate::ui;
use crate::vocab::{Ownership, Rung};

use super::advice::{advice, indent};
use super::examination::{Examination, LowerState, with_sources};

pub(super) fn show(examination: &Examination) -> String {
    let mut text = String::new();
    section(
        &mut text,
        "environment",
        &ui::table(&environment(examination)),
    );
    section(
        &mut text,
        "ways to run steps, best first",
        &ui::table(&rungs(examination)),
    );
    section(&mut text, "store", &ui::table(&storage(examination)));
    section(&mut text, "result", &result(examination));
    let advice = advice(examination);
    let mut rung = None;
    let mut settings = String::new();
    for one in &advice {
        if rung != Some(one.rung) {
            settings.push_str(&format!("{}:\n", one.rung));
            rung = Some(one.rung);
        }
        settings.push_str(&format!("  {}:\n{}", one.place, indent(&one.text, 4)));
    }
    if !settings.is_empty() {
        section(&mut text, "what a better way needs", &settings);
    }
    text
}

fn section(text: &mut String, title: &str, body: &str) {
    if !text.is_empty() {
        text.push('\n');
    }
    text.push_str(&format!("{title}\n{}", indent(body, 2)));
}

fn row(cells: &[&str]) -> Vec<String> {
    cells.iter().map(|cell| (*cell).to_owned()).collect()
}

fn environment(examination: &Examination) -> Vec<Vec<String>> {
    let facts = &examination.facts;
    let list = |names: &[String]| match names {
        [] => "none".to_owned(),
        names => names.join(" "),
    };
    let mut rows = vec![
        row(&["kernel", &format!("{} {}", facts.kernel, facts.machine)]),
        row(&["surroundings", surroundings(facts.surroundings)]),
        row(&["user", &user(facts)]),
        row(&["capabilities", &list(&facts.capabilities)]),
    ];
    if facts.bounding != facts.capabilities {
        rows.push(row(&["could be gained", &list(&facts.bounding)]));
    }
    rows.extend([
        row(&[
            "seccomp",
            &match facts.seccomp_filters {
                0 => "no filter".to_owned(),
                1 => "1 filter".to_owned(),
                count => format!("{count} filters"),
            },
        ]),
        row(&["no_new_privs", yes(facts.no_new_privileges)]),
        row(&["security modules", &modules(facts)]),
        row(&[
            "landlock",
            &match examination.landlock {
                0 => "none".to_owned(),
                version => format!("version {version}"),
            },
        ]),
        row(&["user namespaces", &user_namespaces(facts)]),
        row(&["subordinate ids", &subordinate_ids(facts)]),
    ]);
    rows.extend(facts.map_programs.iter().map(|program| {
        let found = match &program.found {
            None => "not installed".to_owned(),
            Some((path, power)) => format!(
                "{}, {}",
                path.display(),
                match power {
                    MapPower::SetUserId => "set-user-ID",
                    MapPower::FileCapability => "file capability",
                    MapPower::None => "without power: neither set-user-ID nor a file capability",
                }
            ),
        };
        row(&[program.name, &found])
    }));
    rows.push(row(&["processors", &examination.cpus.to_string()]));
    let memory = examination
        .memory
        .map_or_else(|| "no limit".to_owned(), ui::size);
    rows.push(row(&["memory", &memory]));
    rows
}

fn yes(is_so: bool) -> &'static str {
    if is_so { "yes" } else { "no" }
}

fn surroundings(surroundings: Surroundings) -> &'static str {
    match surroundings {
        Surroundings::Host => "no container that says so",
        Surroundings::Docker => "a Docker container",
        Surroundings::Podman => "a podman container",
        Surroundings::Kubernetes => "a Kubernetes pod",
        Surroundings::Container => "a container",
    }
}

fn user(facts: &Facts) -> String {
    let name = facts.user.as_deref().unwrap_or("no name");
    let ids = match facts.ids {
        4_294_967_295 => String::new(),
        1 => ", in a user namespace with one id".to_owned(),
        count => format!(", in a user namespace with {count} ids"),
    };
    format!("{name}, {}:{}{ids}", facts.uid, facts.gid)
}

fn modules(facts: &Facts) -> String {
    let mut text = match facts.security_modules.as_slice() {
        [] => "not told".to_owned(),
        modules => modules.join(" "),
    };
    if let Some(label) = &facts.security_label {
        text.push_str(&format!(", this process: {label}"));
    }
    text
}

fn user_namespaces(facts: &Facts) -> String {
    let mut words = match facts.max_user_namespaces {
        None => vec!["not in this kernel".to_owned()],
        Some(0) => vec!["user.max_user_namespaces=0: none".to_owned()],
        Some(most) => vec![format!("at most {most}")],
    };
    if facts.unprivileged_userns_clone == Some(false) {
        words.push("kernel.unprivileged_userns_clone=0: for root only".to_owned());
    }
    if facts.apparmor_restricts_userns == Some(true) {
        words.push(
            "kernel.apparmor_restrict_unprivileged_userns=1: for programs with a profile only"
                .to_owned(),
        );
    }
    if let Some(scope @ 1..) = facts.ptrace_scope {
        words.push(format!("kernel.yama.ptrace_scope={scope}"));
    }
    words.join(", ")
}

fn subordinate_ids(facts: &Facts) -> String {
    match facts.subordinate {
        (0, _) | (_, 0) => "none".to_owned(),
        (users, groups) => format!("{users} users, {groups} groups"),
    }
}

fn rungs(examination: &Examination) -> Vec<Vec<String>> {
    let mut rows = vec![row(&["RUNG", "STATE", "REASON"])];
    for finding in &examination.findings {
        let is_taken = examination.taken == Some(finding.rung);
        let (state, reason) = match &finding.outcome {
            Err(error) => ("refused", with_sources(error)),
            Ok(_) if is_taken && examination.asked.is_some() => {
                ("taken", "as asked for".to_owned())
            }
            Ok(_) if is_taken => ("taken", String::new()),
            Ok(_) => ("works", String::new()),
        };
        rows.push(row(&[finding.rung.name(), state, &reason]));
    }
    rows
}

fn storage(examination: &Examination) -> Vec<Vec<String>> {
    let storage = &examination.storage;
    let mut place = storage.directory.display().to_string();
    if storage.probed != storage.directory {
        place.push_str(&format!(
            " (not there yet; looked at {})",
            storage.probed.display()
        ));
    }
    let driver = match &storage.reason {
        None => storage.driver.to_string(),
        Some(reason) => format!("{}: {reason}", storage.driver),
    };
    let mut rows = vec![
        row(&["directory", &place]),
        row(&[
            "file system",
            &format!("{}, {} free", storage.file_system, ui::size(storage.free)),
        ]),
    ];
    if examination.taken.is_some() {
        rows.push(row(&["driver", &driver]));
    }
    for lower in &storage.lowers {
        let state = match &lower.state {
            LowerState::Unusable(problem) => format!("not used: {problem}"),
            LowerState::Blobs(why) => format!("unpacked layers are not used: {why}"),
            LowerState::All => "used where it is".to_owned(),
        };
        let place = format!("{}: {state}", lower.root.display());
        rows.push(row(&["lower store", &place]));
    }
    if storage.file_system == "overlay" && examination.taken.is_some_and(Rung::has_namespaces) {
        rows.push(row(&[
            "",
            "put the state directory on a volume or a tmpfs (`--root`, BUILDER_ROOT): overlayfs cannot be stacked on itself",
        ]));
    }
    rows
}

fn result(examination: &Examination) -> String {
    let Some(taken) = examination.taken else {
        return "steps cannot be run here\n".to_owned();
    };
    let owners = match taken.ownership() {
        Ownership::OnDisk => "owners are on disk",
        Ownership::DevicesInLedger => "owners are on disk, devices in a ledger",
        Ownership::InLedger => "owners are in a ledger",
    };
    let mut text = format!(
        "steps run by `{taken}`, on `{}`; {owners}\n",
        examination.storage.driver
    );
    let lacks = examination
        .findings
        .iter()
        .find(|finding| finding.rung == taken)
        .and_then(|finding| finding.outcome.as_ref().ok());
    for lack in lacks.into_iter().flatten() {
        text.push_str(&format!("without: {lack}\n"));
        if let Some(hint) = lack.hint() {
            text.push_str(&format!("  needs: {hint}\n"));
        }
    }
    text
}
