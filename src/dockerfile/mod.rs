//! Dockerfile text becomes syntax: an AST with spans, and diagnostics.
//!
//! In: bytes. Out: [`Dockerfile`] (unexpanded words, nothing resolved) and every mistake found in one run. Beside the parser
//! live the language's two small grammars: variable expansion of words and ignore patterns. Pure: no files, no environment.

mod ast;

pub use ast::{
    AddFlags, ArgDeclaration, Command, Copy, CopySource, Directives, Dockerfile, From, Healthcheck,
    HealthcheckTest, Heredoc, Instruction, InstructionKind, KeyValue, MountFlag, Onbuild, Run,
    Stage, Word,
};
