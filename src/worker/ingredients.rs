//! What the steps of this project were made of the last time, so that a build can say why a step was not in the cache.
//!
//! A *project* is a Dockerfile and the directories that it copies from. Of each of its steps one entry is kept: what its keys were
//! made of when it was performed last, or found. The lists of files behind the content digests in it are in the store, under these
//! digests. All of it is a hint: nothing is looked up by it, and where it is missing or damaged an explanation is shorter.
//!
//! Written at the end of a build that performed something, and where nothing is kept yet; never by a build whose every step hits.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use serde::{Deserialize, Serialize};

use super::Machine;
use super::machine::LocalDirectory;
use crate::context::changes;
use crate::plan::{CopyFrom, Graph, Mount, Op, Step, StepId};
use crate::solve::{self, Difference, Miss, Solution, readings};
use crate::store::Store;
use crate::vocab::{CacheKey, Digest, KeyBuilder, KeyComponent, Reason};

/// Entries that are kept of a project.
const MOST_STEPS: usize = 500;
/// Bytes of lists that one build holds on to.
const MOST_BYTES: usize = 64 << 20;
/// Longer files are not written.
const LONGEST: usize = 8 << 20;

/// What one build knows of the last one, and will tell the next one.
pub(super) struct Ingredients {
    project: Digest,
    last: OnceLock<Vec<Entry>>,
    /// Steps that were not found, by their number.
    missed: Mutex<BTreeMap<usize, Entry>>,
    listings: Mutex<Listings>,
}

#[derive(Default)]
struct Listings {
    kept: HashMap<Digest, Arc<Vec<u8>>>,
    bytes: usize,
}

/// One step as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    /// Stage and number: `build 2`.
    place: String,
    /// The instruction.
    text: String,
    /// The definition key.
    key: String,
    definition: Vec<(String, String)>,
    /// What the content key is made of, where that is another one and was computed.
    content: Option<Vec<(String, String)>>,
    /// The base under it all.
    base: Option<String>,
    has_failed: bool,
}

/// The file.
#[derive(Serialize, Deserialize)]
struct Kept {
    format: u32,
    steps: Vec<Entry>,
}

const FORMAT: u32 = 1;

impl Ingredients {
    pub(super) fn new(
        dockerfile: &str,
        locals: &BTreeMap<Option<String>, LocalDirectory>,
    ) -> Ingredients {
        let directories: Vec<String> = locals
            .iter()
            .map(|(name, local)| match local.is_temporary {
                // Its path is another one in each build.
                true => format!("{name:?}"),
                false => format!("{name:?} {}", local.path.display()),
            })
            .collect();
        let (project, _) = KeyBuilder::new("project")
            .add("dockerfile", dockerfile)
            .list("directories", &directories)
            .finish();
        Ingredients {
            project: project.0,
            last: OnceLock::new(),
            missed: Mutex::default(),
            listings: Mutex::default(),
        }
    }

    /// Holds on to a list until the end of the build.
    pub(super) fn note_listing(&self, digest: Digest, listing: Option<Vec<u8>>) {
        let Some(listing) = listing else { return };
        let mut listings = self.listings.lock().unwrap_or_else(PoisonError::into_inner);
        if listings.bytes + listing.len() > MOST_BYTES || listings.kept.contains_key(&digest) {
            return;
        }
        listings.bytes += listing.len();
        listings.kept.insert(digest, Arc::new(listing));
    }

    /// Notes that a step was performed.
    pub(super) fn note_success(&self, key: &CacheKey) {
        let key = key.to_string();
        let mut missed = self.missed.lock().unwrap_or_else(PoisonError::into_inner);
        for entry in missed.values_mut().filter(|entry| entry.key == key) {
            entry.has_failed = false;
        }
    }

    fn listing(&self, store: &Store, digest: &Digest) -> Option<Arc<Vec<u8>>> {
        let listings = self.listings.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = listings.kept.get(digest) {
            return Some(known.clone());
        }
        drop(listings);
        store.listing(digest).map(Arc::new)
    }

    fn last(&self, store: &Store) -> &[Entry] {
        self.last.get_or_init(|| {
            let kept = store.ingredients(&self.project);
            let kept = kept.and_then(|bytes| serde_json::from_slice::<Kept>(&bytes).ok());
            kept.filter(|kept| kept.format == FORMAT)
                .map_or_else(Vec::new, |kept| kept.steps)
        })
    }
}

impl Machine<'_> {
    /// Says why a step was not found, and notes what it is made of.
    pub(super) fn explain_miss(&self, miss: &Miss<'_>) -> Vec<Reason> {
        let entry = Entry::of(
            miss.graph,
            miss.step,
            miss.key,
            miss.definition,
            miss.content,
        );
        let reasons = match miss.is_forced() {
            true => vec![Reason::Forced],
            false => self.reasons(miss, &entry),
        };
        let mut missed = self
            .ingredients
            .missed
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        missed.insert(miss.step.0, entry);
        reasons
    }

    fn reasons(&self, miss: &Miss<'_>, entry: &Entry) -> Vec<Reason> {
        let last = self.ingredients.last(self.store);
        let Some(old) = alike(miss.graph, entry, last) else {
            return vec![Reason::New];
        };
        let step = &miss.graph.steps[miss.step.0];
        let arguments = match &step.op {
            Op::Run(run) => run.arguments.as_slice(),
            _ => &[],
        };
        // By content where that is known of both.
        let (new, former) = match (miss.content, &old.content) {
            (Some(content), Some(former)) => (content, former),
            (None, Some(former)) if reads_hosts_alone(miss.graph, step) => {
                (miss.definition, former)
            }
            _ => (miss.definition, &old.definition),
        };
        let mut reasons: Vec<Reason> = Vec::new();
        for difference in solve::differences(new, &components(former), arguments) {
            let reason = match difference {
                Difference::Plain(reason) => reason,
                Difference::Files { reading, old, new } => self.files(step, reading, old, new),
                Difference::Root => self.root(miss, old),
                Difference::Stage => match miss.after {
                    Some(after) => after_step(miss.graph, after),
                    None => Reason::Stage,
                },
            };
            if !reasons.contains(&reason) {
                reasons.push(reason);
            }
        }
        match reasons.is_empty() {
            true if old.has_failed => vec![Reason::FailedBefore],
            true => vec![Reason::Gone],
            false => reasons,
        }
    }

    fn files(&self, step: &Step, reading: usize, old: Option<Digest>, new: Digest) -> Reason {
        let source = sources(step).into_iter().nth(reading).unwrap_or_default();
        let listing = |digest: &Digest| self.ingredients.listing(self.store, digest);
        let changes = old.and_then(|old| changes(&listing(&old)?, &listing(&new)?, &source));
        Reason::Files { source, changes }
    }

    /// Says why a step starts from another root.
    fn root(&self, miss: &Miss<'_>, old: &Entry) -> Reason {
        if let Some(after) = miss.after {
            return after_step(miss.graph, after);
        }
        match base(miss.graph, miss.step) {
            Some((step, new)) if old.base.as_deref() != Some(&new.to_string()) => Reason::Base {
                step: text(&miss.graph.origins[step.0].name).to_owned(),
                old: old.base.as_ref().and_then(|digest| digest.parse().ok()),
                new,
            },
            _ => Reason::Root,
        }
    }

    /// Keeps for the next build what the steps of this one are made of; `solution` is there if all were resolved.
    pub fn keep_ingredients(&self, graph: &Graph, solution: Option<&Solution>) {
        let ingredients = &self.ingredients;
        let mut now = std::mem::take(
            &mut *ingredients
                .missed
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        );
        if now.is_empty()
            && (self.store.has_ingredients(&ingredients.project) || solution.is_none())
        {
            return;
        }
        let last = ingredients.last(self.store);
        if let Some(solution) = solution {
            let all = solve::ingredients(graph, self, &solution.results);
            for (at, found) in all.into_iter().enumerate() {
                if let Some((key, definition)) = found
                    && !now.contains_key(&at)
                {
                    let entry = Entry::of(graph, StepId(at), key, &definition, None);
                    // The former one may know more of the same.
                    let known = last.iter().find(|known| {
                        known.key == entry.key && known.text == entry.text && !known.has_failed
                    });
                    let content = known.and_then(|known| known.content.clone());
                    now.insert(at, Entry { content, ..entry });
                }
            }
        }
        let now: Vec<Entry> = now.into_values().collect();
        let is_over = |old: &Entry| {
            now.iter().any(|entry| {
                entry.stage() == old.stage() && (entry.place == old.place || entry.text == old.text)
            })
        };
        let left = last.iter().filter(|old| !is_over(old)).cloned();
        let mut steps: Vec<Entry> = now.iter().cloned().chain(left).collect();
        steps.truncate(MOST_STEPS);
        // A hint that cannot be written is none; whoever cannot write to the store hears of it elsewhere.
        drop(self.write(last, steps));
    }

    fn write(&self, last: &[Entry], steps: Vec<Entry>) -> Result<(), crate::store::StoreError> {
        let ingredients = &self.ingredients;
        let wanted: BTreeSet<Digest> = steps.iter().flat_map(Entry::listings).collect();
        let kept = Kept {
            format: FORMAT,
            steps,
        };
        let bytes = serde_json::to_vec(&kept).expect("texts are always JSON");
        if bytes.len() > LONGEST {
            return Ok(());
        }
        let listings = ingredients
            .listings
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for (digest, listing) in &listings.kept {
            if wanted.contains(digest) {
                self.store.put_listing(digest, listing)?;
            }
        }
        self.store.put_ingredients(&ingredients.project, &bytes)?;
        let former: BTreeSet<Digest> = last.iter().flat_map(Entry::listings).collect();
        for digest in former.difference(&wanted) {
            self.store.remove_listing(digest)?;
        }
        Ok(())
    }
}

impl Entry {
    /// Returns a step's entry, as one that has not succeeded yet.
    fn of(
        graph: &Graph,
        step: StepId,
        key: CacheKey,
        definition: &[KeyComponent],
        content: Option<&[KeyComponent]>,
    ) -> Entry {
        let pairs = |components: &[KeyComponent]| {
            let pairs = components
                .iter()
                .map(|component| (component.name.clone(), component.value.clone()));
            pairs.collect::<Vec<_>>()
        };
        let name = &graph.origins[step.0].name;
        Entry {
            place: place(name),
            text: text(name).to_owned(),
            key: key.to_string(),
            definition: pairs(definition),
            content: content.map(pairs),
            base: base(graph, step).map(|(_, digest)| digest.to_string()),
            has_failed: true,
        }
    }

    fn stage(&self) -> &str {
        self.place.rsplit_once(' ').map_or("", |(stage, _)| stage)
    }

    fn keyword(&self) -> &str {
        self.text.split(' ').next().unwrap_or_default()
    }

    /// Returns the content digests in it.
    fn listings(&self) -> impl Iterator<Item = Digest> {
        let content = self.content.iter().flatten();
        self.definition
            .iter()
            .chain(content)
            .filter(|(name, _)| matches!(name.as_str(), "files" | "mounted-files"))
            .filter_map(|(_, digest)| digest.parse().ok())
    }
}

/// Returns the former entry that a step has come from: the same instruction of its stage, else the one in its place, unless that
/// has only moved.
fn alike<'a>(graph: &Graph, entry: &Entry, last: &'a [Entry]) -> Option<&'a Entry> {
    let of_stage = || last.iter().filter(|old| old.stage() == entry.stage());
    let mut of_text = of_stage().filter(|old| old.text == entry.text);
    let first = of_text.next();
    let same = std::iter::once(first)
        .flatten()
        .chain(of_text)
        .find(|old| old.place == entry.place)
        .or(first);
    if same.is_some() {
        return same;
    }
    let here: BTreeSet<&str> = graph
        .origins
        .iter()
        .map(|origin| text(&origin.name))
        .collect();
    of_stage()
        .find(|old| old.place == entry.place)
        .filter(|old| old.keyword() == entry.keyword() && !here.contains(old.text.as_str()))
}

fn after_step(graph: &Graph, step: StepId) -> Reason {
    Reason::After {
        step: graph.origins[step.0].name.clone(),
    }
}

/// Returns the base under a step.
fn base(graph: &Graph, step: StepId) -> Option<(StepId, Digest)> {
    let mut at = step;
    loop {
        let step = &graph.steps[at.0];
        if let Op::Base(base) = &step.op {
            return Some((at, base.manifest));
        }
        at = *step.inputs.first()?;
    }
}

/// Tells whether a step reads no other trees than the host's: then its definition key says what it reads.
fn reads_hosts_alone(graph: &Graph, step: &Step) -> bool {
    readings(step)
        .iter()
        .all(|reading| matches!(graph.steps[reading.tree.0].op, Op::Local(_)))
}

/// Returns the sources that a step reads, as the Dockerfile has them.
fn sources(step: &Step) -> Vec<String> {
    match &step.op {
        Op::Copy(copy) => copy
            .sources
            .iter()
            .filter_map(|source| match source {
                CopyFrom::Tree { pattern, .. } => Some(pattern.clone()),
                CopyFrom::Inline { .. } => None,
            })
            .collect(),
        Op::Run(run) => run
            .mounts
            .iter()
            .filter_map(|mount| match mount {
                Mount::Bind { from, .. } => Some(from.path.clone()),
                Mount::Cache(cache) => cache.seed.as_ref().map(|seed| seed.path.clone()),
                Mount::Tmpfs { .. } | Mount::Secret(_) | Mount::Ssh(_) => None,
            })
            .collect(),
        _ => Vec::new(),
    }
}

fn components(pairs: &[(String, String)]) -> Vec<KeyComponent> {
    pairs
        .iter()
        .map(|(name, value)| KeyComponent {
            name: name.clone(),
            value: value.clone(),
        })
        .collect()
}

/// Returns stage and number of `[build 2/5] RUN make`.
fn place(name: &str) -> String {
    let inside = name.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    let inside = inside.map_or("", |(inside, _)| inside);
    let counted = inside.split('/').collect::<Vec<_>>();
    // The platform has a stroke of its own.
    let without_total = match counted.len() {
        0 | 1 => inside.to_owned(),
        count => counted[..count - 1].join("/"),
    };
    let words: Vec<&str> = without_total.split_whitespace().collect();
    words.join(" ")
}

/// Returns what comes after the bracket.
fn text(name: &str) -> &str {
    name.split_once("] ").map_or(name, |(_, text)| text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_stage_and_number_without_the_total() {
        for (name, expected) in [
            ("[2/5] RUN make", "2"),
            ("[build  2/15] RUN make", "build 2"),
            ("[linux/arm64 build 2/5] RUN a/b", "linux/arm64 build 2"),
            ("no place", ""),
        ] {
            assert_eq!(place(name), expected, "{name}");
        }
    }

    #[test]
    fn steps_are_found_again_by_their_text_or_else_by_their_place() {
        let entry = |place: &str, text: &str| Entry {
            place: place.to_owned(),
            text: text.to_owned(),
            key: String::new(),
            definition: Vec::new(),
            content: None,
            base: None,
            has_failed: false,
        };
        let last = [
            entry("2", "RUN a"),
            entry("3", "RUN b"),
            entry("build 2", "RUN c"),
        ];
        let graph = |names: &[&str]| Graph {
            steps: Vec::new(),
            origins: names
                .iter()
                .map(|name| crate::plan::Origin {
                    span: None,
                    stage: String::new(),
                    name: (*name).to_owned(),
                    ignore_cache: false,
                })
                .collect(),
            outputs: Vec::new(),
            beside: Vec::new(),
            is_index: false,
            epoch: None,
            cache_version: None,
        };
        let found = |names: &[&str], place: &str, text: &str| {
            alike(&graph(names), &entry(place, text), &last).map(|entry| entry.text.clone())
        };
        // Moved by a step that was put in.
        let moved = ["[2/4] RUN new", "[3/4] RUN a", "[4/4] RUN b"];
        assert_eq!(found(&moved, "3", "RUN a").as_deref(), Some("RUN a"));
        assert_eq!(found(&moved, "2", "RUN new"), None);
        // Edited.
        let edited = ["[2/3] RUN a2", "[3/3] RUN b"];
        assert_eq!(found(&edited, "2", "RUN a2").as_deref(), Some("RUN a"));
        // Another kind, another stage.
        assert_eq!(found(&["[2/3] COPY x y"], "2", "COPY x y"), None);
        assert_eq!(found(&["[x 2/3] RUN a"], "x 2", "RUN a"), None);
    }
}
