//! A Dockerfile, arguments and base configs become a plain graph of steps. Nothing after this room sees Dockerfile text.
//!
//! Pure. Planning is asked again with more bases until it has all it needs (see [`plan`]).

mod graph;

pub use graph::{
    Base, BaseKey, BaseLocation, BaseWanted, Chown, Copy, CopyFrom, Graph, HistoryItem, Local, Op,
    Origin, Output, Owner, Run, Script, Step, StepId, Workdir,
};
