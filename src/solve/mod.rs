//! The graph becomes results: keys, look-ups, order, parallelism and cancellation, through one trait.
//!
//! In: a [`Graph`](crate::plan::Graph) and a [`Worker`]. Out: a [`Solution`], one [`StepResult`] per step. This room decides
//! *whether* and *when* a step runs; what running means is the worker's business. No I/O of its own.
//!
//! # What names a result, and what a key is made of
//!
//! A step's *result ID* names what it made. A step's *definition key* is made of its op and the result IDs of its inputs; a step
//! that reads another tree (the sources of a copy, what a run's mounts show) also has a *content key*, made of the digests of the
//! files that it really reads instead of the tree's result ID. A copy or workdir has a third, the *facts key*: in it stands what the
//! step reads of its root (the directories on the way to the destination, and that the names put there are free) instead of the
//! root's result ID, so that its layer is kept on another root where it would come out the same. A record found under any key is a
//! hit. The facts cost a mount of the root, which performing the step costs too, and are asked for last.
//!
//! | op | definition key | result ID |
//! |---|---|---|
//! | scratch | – | constant |
//! | base | – | digest of the platform's manifest |
//! | git | – | commit, reference, subdirectory, submodules, times, whether `.git` is kept |
//! | http | – | digest, name, the server's time, whether it is unpacked |
//! | run | root, argv, env, cwd, user, network, security, hosts, host name, shm size, ulimits, scripts, mounts, devices | key + a random number per execution |
//! | workdir | root, path, user, epoch | the key; with facts: root + the facts key |
//! | copy | root, sources, destination, chown, chmod, parents, exclude, unpack, epoch; local sources by content digest | the content key; with facts: root + the facts key |
//! | copy --link | the same without the root | root + the content key |
//!
//! Because a copy's result ID is made of its content and its root, a compile stage that was rebuilt and made the same files leaves
//! every later key as it was. Because a run's result ID is new at each execution, a record that was lost and remade never meets records that
//! were made from its former self. A secret is in a key by its ID, a cache by its ID. In no key: values of secrets, times of
//! files, host paths, parallelism, spans, the program's version.

mod forecast;
mod keys;
mod misses;
mod probe;
mod readings;
mod result;
mod schedule;
mod signature;
mod worker;

pub use forecast::{Forecast, forecast};
pub use misses::{Difference, Miss, differences, ingredients};
pub use probe::probe;
pub use readings::{Reading, readings};
pub use result::{ChainLayer, Solution, StepError, StepResult, chain};
pub use schedule::{Packing, Schedule, run};
pub use signature::{keys_to_ask, signatures};
pub use worker::{Held, Job, Worker};

#[cfg(test)]
mod tests;
