//! Threads that pack members while the caller goes on filling the next one. Order is kept, memory is bounded, and the
//! threads end with the [`Crew`].
//!
//! The caller submits sealed members and takes packed ones in the order of submission. Workers start one by one as there is work
//! for them. At most `threads + 2` members wait or are worked on, and what is under way at all stays below about
//! `threads + 1` MiB beside the workers' own output.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use super::chunk::Chunk;
use super::cuts::STEP;
use super::member::{KnownMembers, Packed, Packer};
use crate::vocab::Compression;

/// Chunks that can be filled again. Allocating a new one costs a page fault every 4 KiB.
#[derive(Clone, Default)]
pub(super) struct Pool(Arc<Mutex<Vec<Chunk>>>);

impl Pool {
    /// Returns an empty chunk with room for a member.
    pub(super) fn take(&self) -> Chunk {
        let chunk = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        // Room for the headers of a file that is just below a step.
        chunk.unwrap_or_else(|| Chunk::new(STEP + 4096))
    }

    fn give(&self, mut chunk: Chunk) {
        chunk.clear();
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(chunk);
    }
}

/// A chunk that several threads read; the last one gives it back to the pool.
pub(super) struct Sealed {
    chunk: Option<Chunk>,
    pool: Pool,
}

impl Sealed {
    pub(super) fn new(chunk: Chunk, pool: &Pool) -> Arc<Sealed> {
        Arc::new(Sealed {
            chunk: Some(chunk),
            pool: pool.clone(),
        })
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.chunk.as_ref().map_or(&[], Chunk::filled)
    }
}

impl Drop for Sealed {
    fn drop(&mut self) {
        if let Some(chunk) = self.chunk.take() {
            self.pool.give(chunk);
        }
    }
}

struct Job {
    number: u64,
    sealed: Arc<Sealed>,
}

struct Done {
    number: u64,
    packed: io::Result<Packed>,
}

/// What the caller knows of a member under way.
struct Slot {
    length: usize,
    packed: Option<io::Result<Packed>>,
}

pub(super) struct Crew {
    compression: Compression,
    known: Option<KnownMembers>,
    /// `None` once the crew is dismissed.
    jobs: Option<Sender<Job>>,
    queue: Arc<Mutex<Receiver<Job>>>,
    done: Receiver<Done>,
    report: Sender<Done>,
    workers: Vec<JoinHandle<()>>,
    /// How many workers there may be.
    threads: usize,
    /// Packs where no worker could be started.
    caller: Option<Packer>,
    /// From the number of the first on.
    slots: VecDeque<Slot>,
    first: u64,
    /// Slots without a result.
    unpacked: usize,
    /// Uncompressed bytes of all slots.
    length: usize,
}

impl Crew {
    /// Returns a crew of up to `threads` workers; none has started.
    pub(super) fn new(
        compression: Compression,
        known: Option<KnownMembers>,
        threads: usize,
    ) -> Crew {
        let (jobs, queue) = channel();
        let (report, done) = channel();
        Crew {
            compression,
            known,
            jobs: Some(jobs),
            queue: Arc::new(Mutex::new(queue)),
            done,
            report,
            workers: Vec::new(),
            threads,
            caller: None,
            slots: VecDeque::new(),
            first: 0,
            unpacked: 0,
            length: 0,
        }
    }

    /// Says whether a member of `length` bytes has to wait until another one is taken.
    pub(super) fn is_full(&self, length: usize) -> bool {
        !self.slots.is_empty()
            && (self.unpacked >= self.threads + 2
                || self.length + length > (self.threads + 1) * STEP)
    }

    pub(super) fn submit(&mut self, sealed: Arc<Sealed>) -> io::Result<()> {
        if self.caller.is_none() && self.workers.len() < self.threads.min(self.unpacked + 1) {
            self.start_worker()?;
        }
        let length = sealed.bytes().len();
        let packed = self
            .caller
            .as_mut()
            .map(|packer| packer.pack(sealed.bytes()));
        let number = self.first + self.slots.len() as u64;
        self.length += length;
        self.unpacked += usize::from(packed.is_none());
        let waits = packed.is_none();
        self.slots.push_back(Slot { length, packed });
        if waits {
            let jobs = self.jobs.as_ref().expect("only drop dismisses the crew");
            jobs.send(Job { number, sealed })
                .map_err(|_| io::Error::other("the threads that compress are gone"))?;
        }
        Ok(())
    }

    /// Returns the next member in order if it is packed.
    pub(super) fn take_ready(&mut self) -> Option<io::Result<Packed>> {
        while let Ok(done) = self.done.try_recv() {
            self.note(done);
        }
        self.pop()
    }

    /// Returns the next member in order, waiting for it; `None` if none is under way.
    pub(super) fn take(&mut self) -> Option<io::Result<Packed>> {
        while !self.slots.is_empty() {
            if let Some(packed) = self.pop() {
                return Some(packed);
            }
            // Each job is answered, also where its worker panics, and the crew itself holds the other end.
            let done = self.done.recv().expect("the crew holds a sender");
            self.note(done);
        }
        None
    }

    fn pop(&mut self) -> Option<io::Result<Packed>> {
        let slot = self.slots.pop_front_if(|slot| slot.packed.is_some())?;
        self.first += 1;
        self.length -= slot.length;
        slot.packed
    }

    fn note(&mut self, done: Done) {
        self.unpacked -= 1;
        let slot = (done.number - self.first) as usize;
        self.slots[slot].packed = Some(done.packed);
    }

    /// Starts one more worker. Where the system gives no thread, those that run must do, or else the caller.
    fn start_worker(&mut self) -> io::Result<()> {
        let packer = Packer::new(self.compression, self.known.clone())?;
        let queue = Arc::clone(&self.queue);
        let report = self.report.clone();
        let started = thread::Builder::new()
            .name("layer-pack".to_owned())
            .spawn(move || work(packer, &queue, &report));
        match started {
            Ok(worker) => self.workers.push(worker),
            Err(_) if self.workers.is_empty() => {
                self.caller = Some(Packer::new(self.compression, self.known.clone())?);
            }
            Err(_) => self.threads = self.workers.len(),
        }
        Ok(())
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.jobs = None;
        // Jobs that nobody waits for any more.
        if let Ok(queue) = self.queue.try_lock() {
            while queue.try_recv().is_ok() {}
        }
        for worker in self.workers.drain(..) {
            // Its panics are caught and reported as errors.
            drop(worker.join());
        }
    }
}

fn work(mut packer: Packer, queue: &Mutex<Receiver<Job>>, report: &Sender<Done>) {
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Job { number, sealed }) = job else {
            return;
        };
        let packed = catch_unwind(AssertUnwindSafe(|| packer.pack(sealed.bytes())))
            .unwrap_or_else(|_| Err(io::Error::other("a thread that compresses panicked")));
        drop(sealed);
        if report.send(Done { number, packed }).is_err() {
            return;
        }
    }
}
