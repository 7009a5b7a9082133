//! A Dockerfile, arguments and base configs become a plain graph of steps. Nothing after this room sees Dockerfile text.
//!
//! Pure. Planning is asked again with more bases, downloads and commits until it has all it needs (see [`plan`]). The order of
//! things: `planner`, `stages` (what FROM names), `reach` (what the target needs), `build` (one stage), and a file for each kind of
//! instruction.
//!
//! The rules are BuildKit's. Where this room differs, it does so on purpose, by an error in the place of a guess:
//! - several sources of COPY or ADD with a destination that does not end in `/` (there: the last file wins, or all go into a
//!   directory that happens to exist);
//! - `--chown=USER:` with nothing behind the colon (there: group 0, as for every name that is unknown);
//! - `source` of a cache mount without `from` (there: a directory that must be in the cache already);
//! - names of ENV and LABEL, and negative signals, that come out empty or useless after expansion.
//!
//! Names of stages are found in any letter case in FROM too.

mod arguments;
mod build;
mod copy;
mod devices;
mod environment;
mod epoch;
mod gotext;
mod graph;
mod lint;
mod metadata;
mod mounts;
mod naming;
mod outline;
mod owner;
mod paths;
mod planner;
mod ports;
mod reach;
mod remotes;
mod report;
mod run;
mod signal;
mod stages;
mod start;
mod steps;
#[cfg(test)]
mod tests;
mod wanted;
mod words;

pub use graph::{
    Base, BaseKey, BaseLocation, BaseWanted, Beside, CacheMount, Chown, Copy, CopyFrom, Device,
    Git, Graph, HistoryItem, Http, Local, Mount, Op, Origin, Output, Owner, Run, Script,
    SecretMount, Sharing, SshMount, Step, StepId, Tree, Workdir,
};
pub use lint::Linting;
pub use outline::{Outline, OutlineArg, OutlineMount, Outlined, outline};
pub use paths::literal;
pub use planner::{PlanInputs, Planned, plan};
pub use remotes::MainContext;
pub use wanted::{Commit, Download, GitKey, HttpKey, Known, Timed, Wanted};
