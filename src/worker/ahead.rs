//! Layers on their way to the registries that the image is pushed to, while the build goes on.
//!
//! Nothing depends on it: what has not arrived when the build is done, or could not, is pushed with the image, and what goes wrong
//! is told there. A build that fails leaves blobs behind that no manifest names, which registries collect.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::cache::Open;
use crate::plan::{BaseLocation, Graph, Op};
use crate::registry::Client;
use crate::solve::{ChainLayer, StepError};
use crate::store::Store;
use crate::vocab::{Cancel, Descriptor, Digest, ImageRef, LayerForm};

use super::Machine;

/// Layers that travel at the same time.
const LAYERS_AT_ONCE: usize = 2;

/// A repository that layers will be pushed to.
#[derive(Clone, Debug)]
pub struct Destination {
    pub image: ImageRef,
    pub form: LayerForm,
}

/// One blob, and where it goes.
struct Parcel {
    blob: Descriptor,
    to: ImageRef,
    mount_from: Vec<String>,
    open: Open,
}

pub(super) struct Ahead {
    /// One per registry: in other repositories of it, a blob is mounted.
    destinations: Vec<Destination>,
    inner: Arc<Inner>,
}

struct Inner {
    cancel: Cancel,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Parcel>,
    /// What was queued: registry, blob.
    seen: HashSet<(String, Digest)>,
    /// Registries that have refused something.
    failed: BTreeSet<String>,
    threads: usize,
    is_over: bool,
}

impl Ahead {
    pub(super) fn new(mut destinations: Vec<Destination>, cancel: &Cancel) -> Ahead {
        let mut registries = BTreeSet::new();
        destinations.retain(|to| registries.insert((to.image.registry.clone(), to.form)));
        Ahead {
            destinations,
            inner: Arc::new(Inner {
                cancel: cancel.clone(),
                state: Mutex::default(),
                changed: Condvar::new(),
            }),
        }
    }

    fn send(&self, client: &Client, parcel: Parcel) {
        let mut state = self.inner.state();
        let registry = &parcel.to.registry;
        if state.is_over
            || state.failed.contains(registry)
            || !state.seen.insert((registry.clone(), parcel.blob.digest))
        {
            return;
        }
        state.queue.push_back(parcel);
        if state.threads < LAYERS_AT_ONCE {
            let (inner, client) = (self.inner.clone(), client.clone());
            let started = std::thread::Builder::new()
                .name("push".to_owned())
                .spawn(move || inner.work(&client));
            state.threads += usize::from(started.is_ok());
        }
        drop(state);
        self.inner.changed.notify_one();
    }

    /// What is under way arrives; nothing else sets out.
    fn end(&self) {
        let mut state = self.inner.state();
        state.is_over = true;
        state.queue.clear();
        drop(state);
        self.inner.changed.notify_all();
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.end();
    }
}

impl Inner {
    /// One thread's life.
    fn work(&self, client: &Client) {
        while let Some(parcel) = self.next() {
            let Parcel {
                blob,
                to,
                mount_from,
                open,
            } = parcel;
            let sent = client.push_blob(&to, &blob, &*open, &mount_from, &|_| ());
            if sent.is_err() {
                self.state().failed.insert(to.registry);
            }
        }
    }

    fn next(&self) -> Option<Parcel> {
        let mut state = self.state();
        loop {
            if state.is_over || self.cancel.is_cancelled() {
                return None;
            }
            match state.queue.pop_front() {
                Some(parcel) if state.failed.contains(&parcel.to.registry) => {}
                Some(parcel) => return Some(parcel),
                None => {
                    state = self
                        .changed
                        .wait(state)
                        .unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Machine<'_> {
    /// Sends the topmost layer of a root that leaves the build on its way, and the base's below it where they are here.
    pub(super) fn send_ahead(&self, graph: &Graph, root: &[ChainLayer]) -> Result<(), StepError> {
        for Destination { image, form } in &self.ahead.destinations {
            for (at, layer) in root.iter().enumerate() {
                let (blob, origin) = match layer {
                    ChainLayer::Base { base, index, .. } => {
                        let Op::Base(base) = &graph.steps[base.0].op else {
                            unreachable!("base layers come from base steps")
                        };
                        let blob = base.layers[*index].0.clone();
                        match &base.key.location {
                            BaseLocation::Image(image) => (blob, Some(image.clone())),
                            BaseLocation::OciLayout { .. } => (blob, None),
                        }
                    }
                    ChainLayer::Built { id, .. } if at + 1 == root.len() => {
                        let packed = self.store.packed(id, *form);
                        match packed.map_err(|error| Machine::store_failed(&error))? {
                            Some(packed) => {
                                let shared = self.shared_repository(&packed.blob);
                                (packed.blob, shared)
                            }
                            None => continue,
                        }
                    }
                    ChainLayer::Built { .. } => continue,
                };
                if self.store.blob_size(&blob.digest) != Some(blob.size) {
                    continue;
                }
                // Without a client the push of the image fails, and says why.
                let Ok(client) = self.client() else {
                    return Ok(());
                };
                let origin = origin.filter(|origin| origin.registry == image.registry);
                let mount_from = origin.into_iter().map(|origin| origin.repository);
                let parcel = Parcel {
                    to: image.clone(),
                    mount_from: mount_from.collect(),
                    open: opens(self.store, blob.digest),
                    blob,
                };
                self.ahead.send(client, parcel);
            }
        }
        Ok(())
    }

    /// Leaves the rest to those who push the image. What is under way arrives first.
    pub fn stop_sending_ahead(&self) {
        self.ahead.end();
    }
}

/// Returns what opens a blob of the store, for another thread.
pub(super) fn opens(store: &Store, digest: Digest) -> Open {
    let store = store.clone();
    Arc::new(move |offset| {
        let file = store.blob(&digest).map_err(io::Error::other)?;
        let mut file = file.ok_or(io::ErrorKind::NotFound)?;
        file.seek(SeekFrom::Start(offset))?;
        Ok(Box::new(file) as Box<dyn Read + Send>)
    })
}
