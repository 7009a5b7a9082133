//! What a step depends on in its root, told before it runs.
//!
//! In: a job whose keys were not found. Out: a digest that stands for the root in one more key, so that a layer made on another
//! root is found again where it is the same. Nothing is written. Where something is wrong there is no answer: performing the
//! step says what.

use crate::plan::{Copy, Op, Workdir};
use crate::rootfs::{Tree, lookup_user};
use crate::solve::{Job, StepError};
use crate::vocab::{Digest, KeyBuilder};

use super::Machine;
use super::add::Opened;
use super::copy::{Item, destination_facts, directory_facts};
use super::root::Root;
use super::steps::owner_of;

impl Machine<'_> {
    /// Returns the digest of what a step reads of its root, where it is not all of it. Mounts the root.
    pub(super) fn facts(&self, job: &Job<'_>) -> Result<Option<Digest>, StepError> {
        // The empty root is the same root always.
        if job.inputs[0].is_empty() {
            return Ok(None);
        }
        let op = &job.graph.steps[job.step.0].op;
        if !matches!(op, Op::Copy(_) | Op::Workdir(_)) {
            return Ok(None);
        }
        let root = Root::read_only(self, job.graph, &job.inputs[0], job.cancel)?.tree()?;
        match op {
            Op::Copy(copy) => self.copy_facts(job, copy, &root),
            Op::Workdir(workdir) => Ok(workdir_facts(workdir, &root)),
            _ => Ok(None),
        }
    }

    fn copy_facts(
        &self,
        job: &Job<'_>,
        copy: &Copy,
        root: &Tree,
    ) -> Result<Option<Digest>, StepError> {
        let owner = match &copy.chown {
            None => String::new(),
            Some(chown) => match owner_of(root, &chown.user, chown.group.as_ref()) {
                Ok((uid, gid)) => format!("{uid}:{gid}"),
                Err(_) => return Ok(None),
            },
        };
        let facts = KeyBuilder::new("copy-facts").add("owner", &owner);
        // A linked copy reads nothing of its root but names of owners.
        if copy.link {
            return Ok(Some(facts.finish().0.0));
        }
        let opened = self.open_sources(job, copy)?;
        let items: Option<Vec<Item<'_>>> = opened.iter().map(Opened::item).collect();
        let Some(items) = items else {
            return Ok(None);
        };
        let destination = destination_facts(root, &items, &copy.destination, copy.parents);
        Ok(destination.ok().flatten().map(|destination| {
            let facts = facts.add("destination", &destination.to_string());
            facts.finish().0.0
        }))
    }
}

fn workdir_facts(workdir: &Workdir, root: &Tree) -> Option<Digest> {
    let user = lookup_user(root, &workdir.user).ok()?;
    let directory = directory_facts(root, &workdir.path).ok()??;
    let facts = KeyBuilder::new("workdir-facts")
        .add("owner", &format!("{}:{}", user.uid, user.gid))
        .add("directory", &directory.to_string());
    Some(facts.finish().0.0)
}
