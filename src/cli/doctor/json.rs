//! The examination for programs: one object on one line, described in `docs/environments.md`.

use serde_json::{Value, json};

use crate::sandbox::{Finding, MapPower};

use super::advice::advice;
use super::examination::{Examination, Lower, LowerState, with_sources};

/// Version of the object's form.
const SCHEMA: u32 = 1;

pub(super) fn show(examination: &Examination) -> String {
    let facts = &examination.facts;
    let storage = &examination.storage;
    let programs: serde_json::Map<String, Value> = facts
        .map_programs
        .iter()
        .map(|program| {
            let found = program.found.as_ref().map(|(path, power)| {
                json!({
                    "path": path.display().to_string(),
                    "power": match power {
                        MapPower::SetUserId => "set-user-ID",
                        MapPower::FileCapability => "file capability",
                        MapPower::None => "none",
                    },
                })
            });
            (program.name.to_owned(), json!(found))
        })
        .collect();
    let settings: Vec<Value> = advice(examination)
        .iter()
        .map(|one| json!({ "rung": one.rung.name(), "place": one.place, "text": one.text }))
        .collect();
    let object = json!({
        "v": SCHEMA,
        "taken": examination.taken.map(|rung| rung.name()),
        "rungs": examination.findings.iter().map(|finding| rung(examination, finding)).collect::<Vec<_>>(),
        "store": {
            "directory": storage.directory.display().to_string(),
            "fileSystem": storage.file_system,
            "free": storage.free,
            "driver": storage.driver.name(),
            "reason": storage.reason,
            "lowers": storage.lowers.iter().map(lower).collect::<Vec<_>>(),
        },
        "environment": {
            "kernel": facts.kernel,
            "machine": facts.machine,
            "surroundings": facts.surroundings.name(),
            "user": facts.user,
            "uid": facts.uid,
            "gid": facts.gid,
            "ids": facts.ids,
            "capabilities": facts.capabilities,
            "bounding": facts.bounding,
            "seccompFilters": facts.seccomp_filters,
            "noNewPrivileges": facts.no_new_privileges,
            "securityModules": facts.security_modules,
            "securityLabel": facts.security_label,
            "landlock": examination.landlock,
            "maxUserNamespaces": facts.max_user_namespaces,
            "unprivilegedUsernsClone": facts.unprivileged_userns_clone,
            "apparmorRestrictsUserns": facts.apparmor_restricts_userns,
            "ptraceScope": facts.ptrace_scope,
            "subordinateUids": facts.subordinate.0,
            "subordinateGids": facts.subordinate.1,
            "mapPrograms": programs,
            "processors": examination.cpus,
            "memory": examination.memory,
        },
        "advice": settings,
    });
    format!("{object}\n")
}

fn lower(lower: &Lower) -> Value {
    let (state, reason) = match &lower.state {
        LowerState::Unusable(problem) => ("unusable", Some(problem)),
        LowerState::Blobs(why) => ("blobs", Some(why)),
        LowerState::All => ("all", None),
    };
    json!({ "directory": lower.root.display().to_string(), "state": state, "reason": reason })
}

fn rung(examination: &Examination, finding: &Finding) -> Value {
    let (state, reason, hint, lacks) = match &finding.outcome {
        Err(error) => (
            "refused",
            Some(with_sources(error)),
            error.hint(),
            Vec::new(),
        ),
        Ok(lacks) => {
            let state = match examination.taken == Some(finding.rung) {
                true => "taken",
                false => "works",
            };
            let lacks = lacks
                .iter()
                .map(|lack| json!({ "name": lack.name(), "text": lack.to_string(), "needs": lack.hint() }))
                .collect();
            (state, None, None, lacks)
        }
    };
    json!({
        "name": finding.rung.name(),
        "state": state,
        "reason": reason,
        "hint": hint,
        "lacks": lacks,
    })
}
