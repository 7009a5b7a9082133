//! Trying rungs out, and entering those that are not the first choice here.

use rustix::process::{WaitOptions, wait};

use crate::sandbox::lack::{Lack, Lacks};
use crate::sandbox::notification::{held_calls, traced_calls};
use crate::sandbox::trial::attempt;
use crate::sandbox::trouble::{Call, Trouble};

use super::*;

subjects![
    trials_leave_nothing_behind,
    a_trial_that_dies_is_a_refusal,
    a_supervisor_can_do_its_work,
    ns_full_has_the_ids_that_this_process_has,
    ns_one_has_one_id,
    rungs_without_namespaces_change_nothing,
    where_proc_is_covered_the_surroundings_is_shown_and_others_stay_hidden,
];

const NAMESPACES: [&str; 6] = ["user", "mnt", "pid", "net", "ipc", "uts"];

fn namespaces() -> Vec<PathBuf> {
    NAMESPACES
        .iter()
        .map(|name| fs::read_link(format!("/proc/self/ns/{name}")).unwrap())
        .collect()
}

/// Enters a rung, or ends the subject where it is refused.
fn enter_rung(rung: Rung) -> Choice {
    let wanted = Wanted {
        rung: Some(rung),
        ..Wanted::default()
    };
    let choice = match choose(&wanted) {
        Ok(choice) => choice,
        Err(error) => skip(&format!("{rung}: {error}")),
    };
    assert_eq!(enter(&choice).unwrap(), rung);
    assert_eq!(entered_rung(), Some(rung));
    choice
}

#[test]
fn trials_leave_nothing_behind() {
    as_subject!(trials_leave_nothing_behind);
    let before = namespaces();
    let fds = || fs::read_dir("/proc/self/fd").unwrap().count();
    let fds_before = fds();
    let findings = survey().unwrap();
    assert_eq!(findings.len(), Rung::ALL.len());
    assert_eq!(namespaces(), before);
    assert_eq!(fds(), fds_before);
    assert!(matches!(
        wait(WaitOptions::NOHANG),
        Err(rustix::io::Errno::CHILD)
    ));
    assert!(!entered());
    // What works can be found again.
    for finding in findings {
        let wanted = Wanted {
            rung: Some(finding.rung),
            ..Wanted::default()
        };
        assert_eq!(
            choose(&wanted).is_ok(),
            finding.outcome.is_ok(),
            "{}",
            finding.rung
        );
    }
}

#[test]
fn a_trial_that_dies_is_a_refusal() {
    as_subject!(a_trial_that_dies_is_a_refusal);
    let died = attempt(|| {
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL)
            .ok();
        Ok(Lacks::default())
    });
    let Err(Trouble::Call {
        call: Call::End, ..
    }) = died
    else {
        panic!("{died:?}");
    };
    assert_eq!(attempt(|| Ok(Lacks::default())), Ok(Lacks::default()));
}

#[test]
fn a_supervisor_can_do_its_work() {
    as_subject!(a_supervisor_can_do_its_work);
    for outcome in [attempt(|| held_calls(false)), attempt(traced_calls)] {
        match outcome.map_err(Trouble::explain) {
            Ok(_) => {}
            Err(error @ (SandboxError::Kernel { .. } | SandboxError::NestedListener)) => {
                skip(&error.to_string())
            }
            Err(error) => panic!("{error}: {error:?}"),
        }
    }
}

#[test]
fn ns_full_has_the_ids_that_this_process_has() {
    as_subject!(ns_full_has_the_ids_that_this_process_has);
    let inner = |map: String| -> Vec<(String, String)> {
        map.lines()
            .map(|line| {
                let mut words = line.split_whitespace().map(str::to_owned);
                (words.next().unwrap(), words.nth(1).unwrap())
            })
            .collect()
    };
    let map = || inner(fs::read_to_string("/proc/self/uid_map").unwrap());
    let before = map();
    let user = fs::read_link("/proc/self/ns/user").unwrap();
    enter_rung(Rung::NsFull);
    assert_eq!(map(), before);
    assert_ne!(fs::read_link("/proc/self/ns/user").unwrap(), user);
    check(
        "id -u; touch /yard/x && chown 1:1 /yard/x && stat -c %u:%g /yard/x",
        "0\n1:1",
    );
}

#[test]
fn ns_one_has_one_id() {
    as_subject!(ns_one_has_one_id);
    let uid = rustix::process::geteuid().as_raw();
    enter_rung(Rung::NsOne);
    let words = |path: &str| -> Vec<String> {
        let text = fs::read_to_string(path).unwrap();
        text.split_whitespace().map(str::to_owned).collect()
    };
    assert_eq!(
        words("/proc/self/uid_map"),
        ["0".to_owned(), uid.to_string(), "1".to_owned()]
    );
    assert_eq!(words("/proc/self/setgroups"), ["deny"]);
}

#[test]
fn rungs_without_namespaces_change_nothing() {
    as_subject!(rungs_without_namespaces_change_nothing);
    let before = namespaces();
    let choice = enter_rung(Rung::Paths);
    assert_eq!(namespaces(), before);
    assert!(choice.lacks.contains(&Lack::PidNamespace));
}

#[test]
fn where_proc_is_covered_the_surroundings_is_shown_and_others_stay_hidden() {
    as_subject!(where_proc_is_covered_the_surroundings_is_shown_and_others_stay_hidden);
    // As containers do it.
    let cover = || {
        enter::unshare(rustix::thread::UnshareFlags::NEWNS)?;
        let null = Mount::copy(rustix::fs::CWD, Path::new("/dev/null"))?;
        null.attach_over("/proc/timer_list")?;
        std::io::Result::Ok(())
    };
    if let Err(error) = cover() {
        skip(&format!("a file of /proc cannot be covered: {error}"));
    }
    // A neighbour of the same user, outside.
    let neighbour = Command::new("sleep")
        .arg("1000")
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("TOKEN", "hidden")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map(Neighbour)
        .unwrap();
    let choice = enter_rung(Rung::NsFull);
    assert!(choice.lacks.contains(&Lack::Proc), "{:?}", choice.lacks);
    let id = neighbour.0.id();
    check(
        &format!(
            "readlink /proc/self/fd/0; test -d /proc/{id} && echo there; cat /proc/{id}/environ /proc/1/environ 2>/dev/null; \
             ls /proc/{id}/root/ 2>/dev/null; readlink /proc/{id}/fd/0 /proc/{id}/exe /proc/{id}/cwd; cat /proc/{id}/fd/0 2>/dev/null; {{ echo 5 > /proc/{id}/oom_score_adj; }} 2>/dev/null && echo written; \
             cat /proc/timer_list /proc/keys | wc -c; kill -0 {id} 2>/dev/null && echo killed; true"
        ),
        "/dev/null\nthere\n0",
    );
    // What a command leaves behind ends with it, as ever.
    let root = Root::new();
    let marked = "sleep 1234567";
    output(root.shell(&format!("{marked} > /dev/null 2>&1 & true")));
    for process in fs::read_dir("/proc").unwrap().flatten() {
        let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        assert_ne!(line.trim(), marked);
    }
}

/// Ends with its test.
struct Neighbour(std::process::Child);

impl Drop for Neighbour {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}
