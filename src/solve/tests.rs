//! Solving with a fake worker that remembers in memory and counts what it executes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Barrier, Mutex};

use super::*;
use crate::plan::{
    Copy, CopyFrom, Graph, HistoryItem, Local, Op, Origin, Output, Run, Step, StepId, Workdir,
};
use crate::vocab::{
    CacheKey, Cancel, Digest, Event, EventSink, ExitCode, KeyComponent, LayerId, NetworkMode,
    Platform, Reason, Security, Timestamp,
};

#[derive(Default)]
struct Fake {
    records: Mutex<BTreeMap<CacheKey, StepResult>>,
    executed: Mutex<Vec<usize>>,
    packed: Mutex<Vec<usize>>,
    /// What a local source's files digest to; each call takes one away until the last stays.
    local: Mutex<Vec<&'static str>>,
    /// What a stage's files digest to.
    tree: Mutex<&'static str>,
    /// What copies and workdirs read of their root.
    facts: Mutex<Option<&'static str>>,
    fails: Option<usize>,
    barrier: Option<Barrier>,
    locks: Mutex<Vec<CacheKey>>,
    /// What others made meanwhile.
    elsewhere: Mutex<BTreeMap<CacheKey, StepResult>>,
    superseded: Mutex<Vec<CacheKey>>,
    /// Keys that others were asked about.
    asked: Mutex<Vec<CacheKey>>,
}

impl Worker for Fake {
    type Lock = ();

    fn lookup(&self, key: &CacheKey, _: &[KeyComponent]) -> Result<Option<StepResult>, StepError> {
        self.asked.lock().unwrap().push(*key);
        self.lookup_here(key)
    }

    fn lookup_here(&self, key: &CacheKey) -> Result<Option<StepResult>, StepError> {
        Ok(self.records.lock().unwrap().get(key).cloned())
    }

    fn remember(
        &self,
        key: &CacheKey,
        _: &[KeyComponent],
        _: &str,
        result: &StepResult,
    ) -> Result<(), StepError> {
        self.records.lock().unwrap().insert(*key, result.clone());
        Ok(())
    }

    fn try_lock(&self, key: &CacheKey) -> Result<Held<()>, StepError> {
        self.locks.lock().unwrap().push(*key);
        Ok(Held::Mine(()))
    }

    fn wait_lock(&self, _: &CacheKey, _: &Cancel) -> Result<Option<()>, StepError> {
        Ok(Some(()))
    }

    fn local_digest(&self, _: &Local, reading: &Reading<'_>) -> Result<Digest, StepError> {
        let mut contents = self.local.lock().unwrap();
        let content = if contents.len() > 1 {
            contents.remove(0)
        } else {
            contents[0]
        };
        Ok(Digest::of(
            format!("{} {content}", reading.pattern).as_bytes(),
        ))
    }

    fn local_digest_now(&self, local: &Local, reading: &Reading<'_>) -> Result<Digest, StepError> {
        self.local_digest(local, reading)
    }

    fn tree_digest(
        &self,
        _: &Graph,
        root: &[ChainLayer],
        _: &Reading<'_>,
        _: &Cancel,
    ) -> Result<Digest, StepError> {
        assert!(!root.is_empty());
        Ok(Digest::of(self.tree.lock().unwrap().as_bytes()))
    }

    fn root_facts(&self, _: &Job<'_>) -> Result<Option<Digest>, StepError> {
        let facts = *self.facts.lock().unwrap();
        Ok(facts.map(|facts| Digest::of(facts.as_bytes())))
    }

    fn explain(&self, miss: &Miss<'_>) -> Vec<Reason> {
        let after = miss
            .after
            .map_or_else(String::new, |step| step.0.to_string());
        vec![Reason::After { step: after }]
    }

    fn execute(&self, job: &Job<'_>) -> Result<StepResult, StepError> {
        if let Some(barrier) = &self.barrier {
            barrier.wait();
        }
        if self.fails == Some(job.step.0) {
            return Err(StepError::new(ExitCode::Step, "no"));
        }
        self.executed.lock().unwrap().push(job.step.0);
        Ok(StepResult {
            id: job.result,
            layer: Some(LayerId::from(job.result)),
            created: Timestamp::default(),
            size: 1,
        })
    }

    fn adopt(&self, key: &CacheKey, _: &[KeyComponent]) -> Result<Option<StepResult>, StepError> {
        Ok(self.elsewhere.lock().unwrap().get(key).cloned())
    }

    fn supersede(&self, key: &CacheKey) {
        self.superseded.lock().unwrap().push(*key);
    }

    fn pack(
        &self,
        _: &Graph,
        root: &[ChainLayer],
        _: bool,
        _: &dyn EventSink,
        _: &Cancel,
    ) -> Result<(), StepError> {
        match root.last() {
            Some(ChainLayer::Built { step, .. }) => self.packed.lock().unwrap().push(step.0),
            other => panic!("only built layers are packed: {other:?}"),
        }
        Ok(())
    }
}

struct Deaf;

impl EventSink for Deaf {
    fn emit(&self, _: Event) {}
}

/// Builds graphs step by step.
#[derive(Default)]
struct Builder(Vec<Step>);

impl Builder {
    fn add(&mut self, op: Op, inputs: &[StepId]) -> StepId {
        self.0.push(Step {
            op,
            inputs: inputs.to_vec(),
        });
        StepId(self.0.len() - 1)
    }

    fn scratch(&mut self) -> StepId {
        self.add(Op::Scratch, &[])
    }

    fn run(&mut self, root: StepId, command: &str) -> StepId {
        let run = Run {
            argv: vec![command.to_owned()],
            env: Vec::new(),
            arguments: Vec::new(),
            ambient_env: Vec::new(),
            cwd: "/".to_owned(),
            user: String::new(),
            network: NetworkMode::Default,
            add_hosts: Vec::new(),
            hostname: "h".to_owned(),
            shm_size: 0,
            ulimits: Vec::new(),
            scripts: Vec::new(),
            mounts: Vec::new(),
            security: Security::Sandbox,
            devices: Vec::new(),
            foreign: None,
        };
        self.add(Op::Run(run), &[root])
    }

    fn copy(&mut self, root: StepId, from: StepId, link: bool) -> StepId {
        let copy = Copy {
            sources: vec![CopyFrom::Tree {
                input: 1,
                pattern: "a".to_owned(),
            }],
            destination: "/a".to_owned(),
            chown: None,
            chmod: None,
            link,
            parents: false,
            exclude: Vec::new(),
            unpack: false,
            epoch: None,
            is_shown_only: false,
        };
        self.add(Op::Copy(copy), &[root, from])
    }

    fn local(&mut self) -> StepId {
        self.add(Op::Local(Local { name: None }), &[])
    }

    fn graph(self, root: StepId, layers: &[StepId]) -> Graph {
        let origins = self
            .0
            .iter()
            .enumerate()
            .map(|(at, _)| Origin {
                span: None,
                stage: "s".to_owned(),
                name: format!("step {at}"),
                ignore_cache: false,
            })
            .collect();
        let output = Output {
            platform: Platform::host(),
            stage: "s".to_owned(),
            root,
            config: crate::image::ImageConfig::default(),
            history: layers
                .iter()
                .map(|&step| HistoryItem::Layer {
                    created_by: String::new(),
                    step,
                })
                .collect(),
            stages: Vec::new(),
        };
        Graph {
            steps: self.0,
            origins,
            outputs: vec![output],
            beside: Vec::new(),
            is_index: false,
            epoch: None,
            cache_version: None,
        }
    }
}

fn solve(graph: &Graph, fake: &Fake) -> Result<Solution, (StepId, StepError)> {
    static NONCE: AtomicUsize = AtomicUsize::new(0);
    fake.executed.lock().unwrap().clear();
    fake.packed.lock().unwrap().clear();
    run(&Schedule {
        graph,
        worker: fake,
        jobs: 2,
        packs: 1,
        pack: Packing::Outputs,
        needs_files: false,
        known: probe(graph, fake),
        events: &Deaf,
        cancel: &Cancel::new(),
        nonce: &|| NONCE.fetch_add(1, Ordering::SeqCst).to_string(),
    })
}

fn executed(fake: &Fake) -> Vec<usize> {
    let mut executed = fake.executed.lock().unwrap().clone();
    executed.sort_unstable();
    executed
}

/// `FROM scratch AS compile; COPY a; RUN one` and `FROM scratch; COPY --from=compile; RUN two`.
fn two_stages(first: &str, link: bool) -> Graph {
    let mut builder = Builder::default();
    let scratch = builder.scratch();
    let context = builder.local();
    let source = builder.copy(scratch, context, false);
    let compiled = builder.run(source, first);
    let copied = builder.copy(scratch, compiled, link);
    let last = builder.run(copied, "two");
    builder.graph(last, &[copied, last])
}

fn fake() -> Fake {
    Fake {
        local: Mutex::new(vec!["v1"]),
        tree: Mutex::new("binary"),
        ..Fake::default()
    }
}

#[test]
fn the_second_run_executes_nothing_and_needs_no_lock() {
    let (fake, graph) = (fake(), two_stages("one", false));
    solve(&graph, &fake).unwrap();
    assert_eq!(executed(&fake), [2, 3, 4, 5]);
    assert_eq!(
        *fake.packed.lock().unwrap(),
        [4, 5],
        "only layers that leave the build are packed"
    );
    fake.locks.lock().unwrap().clear();
    let again = solve(&graph, &fake).unwrap();
    assert!(executed(&fake).is_empty());
    assert!(again.cached.iter().all(|&cached| cached));
    assert!(fake.locks.lock().unwrap().is_empty());
    assert!(probe(&graph, &fake).iter().all(Option::is_some));
}

#[test]
fn a_changed_source_reruns_only_what_follows() {
    let (fake, graph) = (fake(), two_stages("one", false));
    solve(&graph, &fake).unwrap();
    *fake.local.lock().unwrap() = vec!["v2"];
    *fake.tree.lock().unwrap() = "other binary";
    solve(&graph, &fake).unwrap();
    assert_eq!(executed(&fake), [2, 3, 4, 5]);
    solve(&two_stages("one, changed", false), &fake).unwrap();
    assert_eq!(
        executed(&fake),
        [3],
        "the source is as it was, and so is what the stage made"
    );
}

#[test]
fn a_changed_compile_stage_with_equal_output_does_not_rerun_what_copies_from_it() {
    for link in [false, true] {
        let (fake, graph) = (fake(), two_stages("one", link));
        solve(&graph, &fake).unwrap();
        *fake.local.lock().unwrap() = vec!["v2"];
        solve(&graph, &fake).unwrap();
        assert_eq!(executed(&fake), [2, 3], "link: {link}");
    }
}

#[test]
fn a_lost_run_is_not_joined_to_records_made_from_its_former_self() {
    let mut builder = Builder::default();
    let scratch = builder.scratch();
    let one = builder.run(scratch, "date");
    let two = builder.run(one, "two");
    let graph = builder.graph(two, &[one, two]);
    let fake = fake();
    let before = solve(&graph, &fake).unwrap();
    fake.records
        .lock()
        .unwrap()
        .retain(|_, result| *result != before.results[1]);
    solve(&graph, &fake).unwrap();
    assert_eq!(executed(&fake), [1, 2]);
}

#[test]
fn steps_of_a_stage_without_cache_run_again_with_what_follows_them() {
    let (fake, mut graph) = (fake(), two_stages("one", false));
    solve(&graph, &fake).unwrap();
    graph.origins[3].ignore_cache = true;
    solve(&graph, &fake).unwrap();
    assert_eq!(executed(&fake), [3], "equal output cuts off");
    *fake.tree.lock().unwrap() = "other";
    solve(&graph, &fake).unwrap();
    assert_eq!(executed(&fake), [3, 4, 5]);
}

#[test]
fn a_linked_copy_is_kept_on_another_root() {
    let graph = |base: &str| {
        let mut builder = Builder::default();
        let scratch = builder.scratch();
        let context = builder.local();
        let base = builder.run(scratch, base);
        let copied = builder.copy(base, context, true);
        let last = builder.run(copied, "last");
        builder.graph(last, &[last])
    };
    let fake = fake();
    let first = solve(&graph("base 1"), &fake).unwrap();
    let second = solve(&graph("base 2"), &fake).unwrap();
    assert_eq!(
        executed(&fake),
        [2, 4],
        "the copy is kept, the run on top of it is not"
    );
    assert_eq!(first.results[3].layer, second.results[3].layer);
    assert_ne!(first.results[3].id, second.results[3].id);
}

/// `RUN base; COPY a; WORKDIR; RUN last`
fn on_a_base(base: &str) -> Graph {
    let mut builder = Builder::default();
    let scratch = builder.scratch();
    let context = builder.local();
    let base = builder.run(scratch, base);
    let copied = builder.copy(base, context, false);
    let workdir = Workdir {
        path: "/w".to_owned(),
        user: String::new(),
        epoch: None,
    };
    let workdir = builder.add(Op::Workdir(workdir), &[copied]);
    let last = builder.run(workdir, "last");
    builder.graph(last, &[last])
}

#[test]
fn a_copy_is_kept_on_another_root_of_which_it_reads_the_same() {
    let fake = fake();
    *fake.facts.lock().unwrap() = Some("free");
    let first = solve(&on_a_base("base 1"), &fake).unwrap();
    assert_eq!(executed(&fake), [2, 3, 4, 5]);
    let second = solve(&on_a_base("base 2"), &fake).unwrap();
    assert_eq!(
        executed(&fake),
        [2, 5],
        "copy and workdir are kept, the run on top of them is not"
    );
    for step in [3, 4] {
        assert_eq!(first.results[step].layer, second.results[step].layer);
        assert_ne!(first.results[step].id, second.results[step].id);
    }
    // What was found by facts is found without them the next time.
    assert!(
        probe(&on_a_base("base 2"), &fake)
            .iter()
            .all(Option::is_some)
    );

    *fake.facts.lock().unwrap() = Some("taken by a directory");
    solve(&on_a_base("base 3"), &fake).unwrap();
    assert_eq!(executed(&fake), [2, 3, 4, 5], "another destination");
    *fake.facts.lock().unwrap() = None;
    solve(&on_a_base("base 4"), &fake).unwrap();
    assert_eq!(executed(&fake), [2, 3, 4, 5], "nothing can be told");
    let known = solve(&on_a_base("base 1"), &fake).unwrap();
    assert_eq!(known.results, first.results);
}

#[test]
fn facts_are_asked_for_only_where_nothing_else_is_known() {
    let fake = fake();
    *fake.facts.lock().unwrap() = Some("free");
    solve(&on_a_base("base"), &fake).unwrap();
    *fake.facts.lock().unwrap() = Some("other");
    solve(&on_a_base("base"), &fake).unwrap();
    assert!(executed(&fake).is_empty());
}

#[test]
fn others_are_not_asked_about_what_only_this_build_can_know() {
    let asked = |fake: &Fake| {
        solve(&on_a_base("base"), fake).unwrap();
        assert_eq!(executed(fake), [2, 3, 4, 5]);
        let keys = std::mem::take(&mut *fake.asked.lock().unwrap());
        keys.into_iter().collect::<BTreeSet<_>>().len()
    };
    let alone = fake();
    assert_eq!(asked(&alone), 1, "the first run");
    let with_facts = fake();
    *with_facts.facts.lock().unwrap() = Some("free");
    assert_eq!(asked(&with_facts), 3, "and what copy and workdir read");
    let first = alone.locks.lock().unwrap()[0];
    let result = alone.records.lock().unwrap()[&first].clone();
    let others = fake();
    others.elsewhere.lock().unwrap().insert(first, result);
    assert_eq!(asked(&others), 4, "what follows a step of theirs");
}

#[test]
fn independent_steps_run_at_the_same_time() {
    let mut builder = Builder::default();
    let scratch = builder.scratch();
    let one = builder.run(scratch, "one");
    let two = builder.run(scratch, "two");
    let graph = builder.graph(two, &[]);
    // Passes only if both are inside `execute` at once.
    let fake = Fake {
        barrier: Some(Barrier::new(2)),
        ..fake()
    };
    solve(&graph, &fake).unwrap();
    assert_eq!(executed(&fake), [one.0, two.0]);
}

#[test]
fn a_failure_stops_what_follows_and_names_its_step() {
    let graph = two_stages("one", false);
    let fake = Fake {
        fails: Some(3),
        ..fake()
    };
    let (step, error) = solve(&graph, &fake).unwrap_err();
    assert_eq!((step, error.message.as_str()), (StepId(3), "no"));
    assert_eq!(executed(&fake), [2]);
}

#[test]
fn files_that_change_while_they_are_copied_are_copied_again() {
    let graph = two_stages("one", false);
    let fake = fake();
    // Probe, first attempt, check; then it holds still.
    *fake.local.lock().unwrap() = vec!["a", "a", "b", "c"];
    solve(&graph, &fake).unwrap();
    assert_eq!(executed(&fake), [2, 2, 3, 4, 5]);
}

#[test]
fn workdir_user_enters_the_key() {
    let workdir = |user: &str| {
        keys::workdir_key(
            &Workdir {
                path: "/a".to_owned(),
                user: user.to_owned(),
                epoch: None,
            },
            keys::RootIdentity::Result(keys::scratch_result()),
        )
        .0
    };
    assert_ne!(workdir(""), workdir("app"));
}
