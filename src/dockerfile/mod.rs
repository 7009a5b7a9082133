//! Dockerfile text becomes syntax: an AST with spans, and diagnostics.
//!
//! In: text. Out: [`Dockerfile`] (unexpanded words, nothing resolved) and every mistake found in one run. Beside the parser
//! live the language's two small grammars: variable expansion of words, and path patterns (COPY's wildcards and ignore
//! files). Pure: no files, no environment. No text makes it panic.
//!
//! ```text
//! text ─ directives ─ lines (continuations joined, heredocs) ─ words, flags ─ instructions ─ stages ─ lints
//! ```

mod ast;
mod checks;
mod commands;
mod copies;
mod directives;
mod duration;
mod expand;
mod flags;
mod glob;
mod heredoc;
mod ignore;
mod instructions;
mod json;
mod lines;
mod lint;
mod matcher;
mod mount;
mod nodes;
mod parse;
mod replace;
mod rules;
mod words;
mod work;

#[cfg(test)]
mod tests;

pub use ast::{
    AddFlags, ArgDeclaration, Command, Copy, CopySource, Directives, Dockerfile, From, Healthcheck,
    HealthcheckTest, Heredoc, Instruction, InstructionKind, KeyValue, MountFlag, Onbuild, Run,
    Stage, Word,
};
pub use checks::Checks;
pub use directives::unknown_frontend;
pub use expand::{ExpandError, Expanded, expand, expand_heredoc, expand_words};
pub use glob::{Glob, PatternError};
pub use ignore::{Decision, IgnorePatterns, ParentMatches};
pub use mount::check_mount;
pub use nodes::{Node, NodeHeredoc, nodes};
pub use parse::{parse, parse_trigger};
pub use rules::{RULES, Rule, rule};
