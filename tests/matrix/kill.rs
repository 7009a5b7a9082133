//! SIGKILL at any moment, to the builder, to a supervisor or to a command: nothing of the build is left running, nobody waits
//! for ever, and the next build is right.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::environment::{Bench, Environment, Place};
use crate::site;

/// Kills on each rung; all together are more than 200.
const KILLS: u64 = 34;
/// What the steps leave behind.
const LEFT: &str = "98766";
/// Far more than anything here takes.
const FOR_EVER: Duration = Duration::from_secs(120);

fn check(name: &str) {
    let Some(site) = site() else { return };
    let bench = Bench::new(site, Environment::named(name), Place::Volume);
    let expected = build(&bench).finish(name).expect("nobody was killed");
    // As long as a build takes, so that all of its processes come up for it.
    let started = Instant::now();
    build(&bench).finish(name);
    let window = u64::try_from(started.elapsed().as_millis()).expect("not for ever");
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut killed = BTreeMap::<String, u64>::new();
    for round in 0..KILLS {
        let mut building = build(&bench);
        // Every other one when a step runs: on some rungs most of a build goes by before and after.
        let delay = match round % 2 {
            0 => window,
            _ => building.wait_for_a_step(window),
        };
        std::thread::sleep(Duration::from_millis(random.below(delay)));
        let victims = building.processes();
        if !victims.is_empty() {
            let (pid, what) = &victims[random.below(victims.len() as u64) as usize];
            // It may have ended by itself.
            if kill_process(*pid, Signal::KILL).is_ok() {
                *killed.entry(what.clone()).or_default() += 1;
            }
        }
        building.finish(name);
        let known: Vec<i32> = victims
            .iter()
            .map(|(pid, _)| pid.as_raw_nonzero().get())
            .collect();
        wait_for(
            || left_behind(LEFT, &known).is_empty(),
            || {
                format!(
                    "{name}, round {round}: processes are left: {:?}",
                    left_behind(LEFT, &known)
                )
            },
        );
        let next = build(&bench).finish(name);
        assert_eq!(
            next.as_ref(),
            Some(&expected),
            "{name}, round {round}: after {victims:?}"
        );
    }
    // Past the capture of the test harness: which processes were hit is chance, and worth knowing.
    drop(writeln!(
        std::io::stderr(),
        "{name}: killed {killed:?} within {window} ms of a start"
    ));
    assert!(
        killed.len() > 1,
        "{name}: only one kind of process was ever killed: {killed:?}"
    );
}

struct Building<'a> {
    bench: &'a Bench<'a>,
    child: Child,
}

fn build<'a>(bench: &'a Bench<'a>) -> Building<'a> {
    let inputs = &site().expect("looked at before").inputs;
    let metadata = bench.out().join("metadata.json");
    fs::remove_file(&metadata).ok();
    let line = [
        site().expect("looked at before").builder.to_str().unwrap(),
        "build",
        "-q",
        "--no-cache",
        &format!(
            "--build-context=debian=oci-layout://{}",
            inputs.join("debian").display()
        ),
        &format!("--metadata-file={}", metadata.display()),
        &format!(
            "--output=type=oci,dest={},rewrite-timestamp=true",
            bench.out().join("image.tar").display()
        ),
        inputs.join("context/kill").to_str().unwrap(),
    ]
    .map(str::to_owned);
    let line: Vec<&str> = line.iter().map(String::as_str).collect();
    let child = bench
        .command(&line, &[("SOURCE_DATE_EPOCH", "1700000000")])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    Building { bench, child }
}

impl Building<'_> {
    /// Returns the digest of what was built, if it was.
    fn finish(mut self, name: &str) -> Option<String> {
        let started = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(
                started.elapsed() < FOR_EVER,
                "{name}: the build does not end"
            );
            std::thread::sleep(Duration::from_millis(5));
        };
        if !status.success() {
            return None;
        }
        let metadata = fs::read(self.bench.out().join("metadata.json")).ok()?;
        let metadata: Value = serde_json::from_slice(&metadata).ok()?;
        Some(metadata["containerimage.digest"].as_str()?.to_owned())
    }

    /// Waits until a step runs. Returns within how many milliseconds from there to strike.
    fn wait_for_a_step(&mut self, window: u64) -> u64 {
        while self.processes().len() < 2 {
            if self.child.try_wait().unwrap().is_some() {
                break;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        (window / 8).max(1)
    }

    /// Returns the processes of the build, by what they are.
    fn processes(&self) -> Vec<(Pid, String)> {
        let program = site().expect("looked at before").builder.to_str().unwrap();
        let out = self.bench.out();
        let all = all_processes();
        let mut found = Vec::new();
        let mut known = BTreeSet::new();
        // The builder by its command line; everything below it.
        for process in &all {
            if process.line.starts_with(program) && process.line.contains(out.to_str().unwrap()) {
                known.insert(process.pid);
                found.push((process.pid, "builder".to_owned()));
            }
        }
        loop {
            let before = known.len();
            for process in &all {
                if known.contains(&process.parent) && known.insert(process.pid) {
                    let what = match process
                        .line
                        .split([' ', '/'])
                        .any(|word| word == "builder-init")
                    {
                        true => "init".to_owned(),
                        false => "command".to_owned(),
                    };
                    found.push((process.pid, what));
                }
            }
            if known.len() == before {
                break;
            }
        }
        found
            .into_iter()
            .filter_map(|(pid, what)| Some((Pid::from_raw(pid)?, what)))
            .collect()
    }
}

struct Process {
    pid: i32,
    parent: i32,
    line: String,
}

fn all_processes() -> Vec<Process> {
    let mut processes = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        // The name in parentheses may hold anything.
        let Some((_, rest)) = stat.rsplit_once(") ") else {
            continue;
        };
        let mut fields = rest.split(' ');
        // What has ended waits for the first process of a container, which may be one that looks after nobody.
        if matches!(fields.next(), Some("Z" | "X")) {
            continue;
        }
        if let Some(parent) = fields.next().and_then(|parent| parent.parse().ok()) {
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            processes.push(Process { pid, parent, line });
        }
    }
    processes
}

/// Returns the processes that sleep for so long, or have one of these numbers.
pub(crate) fn left_behind(seconds: &str, known: &[i32]) -> Vec<String> {
    all_processes()
        .into_iter()
        .filter(|process| {
            process.line.contains(&format!("sleep {seconds}")) || known.contains(&process.pid)
        })
        .map(|process| format!("{} {}", process.pid, process.line))
        .collect()
}

/// Polls: the kernel ends processes when it gets round to it.
pub(crate) fn wait_for(condition: impl Fn() -> bool, complaint: impl Fn() -> String) {
    let started = Instant::now();
    while !condition() {
        assert!(
            started.elapsed() < Duration::from_secs(30),
            "{}",
            complaint()
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The same choices each time.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// One after the other: each looks at what is left of all.
#[test]
#[ignore = "takes minutes: `cargo test --test matrix -- --ignored`"]
fn whoever_is_killed_nothing_is_left_and_the_next_build_is_right() {
    for name in ["E1", "E6b", "E2", "E3", "E4", "E5"] {
        check(name);
    }
}
