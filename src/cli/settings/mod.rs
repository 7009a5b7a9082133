//! Flags that were not typed: each has a variable of its own, and a project can have a file of them.
//!
//! In: the words of a command line, the `BUILDER_*` variables, `builder.toml` of the context or a file that `--config` names. Out:
//! what clap reads when all of that is put into words. A flag goes before a variable, and a variable before the file; of two that
//! exclude each other the same. `twin` has the rule of the names and reads variables, `file` reads files and says what a project's
//! own may set, `apply` puts them together, `show` prints them.
//!
//! A build without such a variable and without a file costs one attempt to open it.

mod apply;
mod file;
mod flag;
mod show;
mod twin;

#[cfg(test)]
mod tests;

pub(super) use apply::{Around, Misread, Origins, read};
#[cfg(test)]
pub(super) use flag::variable_of;
pub(super) use twin::variables;
