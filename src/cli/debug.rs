//! `builder debug`: a failed step that was saved; and how texts are understood. For these, the outputs are a contract for tools that compare builders (`docs/debug.md`).

use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::ExitCode as ProcessExitCode;

use serde_json::{Value, json};

use crate::context::{Source, ignore_file, list};
use crate::dockerfile::{IgnorePatterns, Node, expand, expand_words, nodes};
use crate::pipeline::{Failure, Subject};
use crate::ui;
use crate::vocab::{Diagnostic, ExitCode, Platform, ProgressMode, SourceText};

use super::args::{Debug, DebugArgs, Global};
use super::{print, usage};

pub(super) fn run(global: &Global, args: DebugArgs) -> Result<ProcessExitCode, Failure> {
    match (&args.text, &args.file) {
        (Some(text), _) => show(text).map(|()| ExitCode::Success.into()),
        (None, Some(file)) => {
            let image = Subject::Saved(file.clone());
            let request = args
                .surroundings
                .request(global, image, Platform::host())
                .map(|mut request| {
                    request.wanted.command = args.command;
                    request
                });
            super::run::status(request, ProgressMode::Auto)
        }
        (None, None) => unreachable!("the flags require one of them"),
    }
}

fn show(debug: &Debug) -> Result<(), Failure> {
    match debug {
        Debug::Parse { file } => parse(file),
        Debug::Expand {
            escape,
            env,
            words,
            word,
        } => expand_word(*escape, env, *words, word),
        Debug::Ignore { pattern, path } => ignore(pattern, path),
        Debug::Context { directory } => context(directory),
    }
}

fn parse(file: &Path) -> Result<(), Failure> {
    let mut bytes = Vec::new();
    let read = match file.as_os_str() == "-" {
        true => std::io::stdin().lock().read_to_end(&mut bytes).map(drop),
        false => fs::read(file).map(|read| bytes = read),
    };
    read.map_err(|error| {
        let message = format!("cannot read `{}`", file.display());
        Failure::new(
            ExitCode::Usage,
            Diagnostic::error(message).caused_by(&error),
        )
    })?;
    let source = SourceText {
        name: file.display().to_string(),
        text: String::from_utf8_lossy(&bytes).into_owned(),
    };
    match nodes(&source.text) {
        Ok((nodes, escape)) => {
            let nodes: Vec<Value> = nodes.iter().map(node).collect();
            let escape = escape.to_string();
            print(&format!(
                "{}\n",
                json!({ "nodes": nodes, "escape": escape })
            ));
            Ok(())
        }
        Err(mistakes) => {
            for mistake in &mistakes {
                ui::report_in(mistake, &source);
            }
            Err(failed(Vec::new()))
        }
    }
}

/// Nesting is bounded, so this is too.
fn node(node: &Node) -> Value {
    let heredocs: Vec<Value> = node
        .heredocs
        .iter()
        .map(|heredoc| {
            json!({
                "name": heredoc.name,
                "content": heredoc.content,
                "expand": heredoc.expand,
                "chomp": heredoc.chomp,
            })
        })
        .collect();
    let nested: Vec<Value> = node
        .nested
        .iter()
        .map(|nested| self::node(nested))
        .collect();
    json!({
        "value": node.value,
        "flags": node.flags,
        "json": node.json,
        "args": node.args,
        "start": node.lines.0,
        "end": node.lines.1,
        "nested": nested,
        "heredocs": heredocs,
    })
}

fn expand_word(escape: char, env: &[String], words: bool, word: &str) -> Result<(), Failure> {
    let mut pairs = Vec::with_capacity(env.len());
    for text in env {
        let pair = text.split_once('=');
        pairs.push(pair.ok_or_else(|| usage(format!("`--env {text}` is not K=V")))?);
    }
    let lookup = |name: &str| {
        let found = pairs.iter().rfind(|(known, _)| *known == name);
        found.map(|(_, value)| (*value).to_owned())
    };
    let wrong = |error: crate::dockerfile::ExpandError| {
        let error = Diagnostic::error(error.to_string())
            .cause(format!("at byte {} of the word", error.offset));
        failed(vec![error])
    };
    match words {
        true => {
            let (list, _) = expand_words(word, escape, &lookup).map_err(wrong)?;
            print(&format!("{}\n", json!(list)));
        }
        false => {
            let expanded = expand(word, escape, &lookup).map_err(wrong)?;
            print(&format!("{}\n", expanded.text));
        }
    }
    Ok(())
}

fn ignore(patterns: &[String], path: &Path) -> Result<(), Failure> {
    let patterns = IgnorePatterns::from_list(patterns)
        .map_err(|error| failed(vec![Diagnostic::error(error.to_string())]))?;
    let excluded = patterns.decide(path.as_os_str().as_bytes()).excluded;
    print(&format!("{excluded}\n"));
    Ok(())
}

fn context(directory: &Path) -> Result<(), Failure> {
    let source_failed = |error: &(dyn std::error::Error + 'static)| {
        Failure::new(
            ExitCode::Source,
            Diagnostic::error("cannot read the build context").caused_by(error),
        )
    };
    let dockerfile = directory.join("Dockerfile");
    let found = ignore_file(directory, Some(&dockerfile)).map_err(|error| source_failed(&error))?;
    let patterns = match found {
        Some((_, text)) => Some(
            IgnorePatterns::parse(&text)
                .map_err(|error| failed(vec![Diagnostic::error(error.to_string())]))?,
        ),
        None => None,
    };
    let source = Source::directory(directory, patterns).map_err(|error| source_failed(&error))?;
    let mut paths = Vec::new();
    for path in list(&source) {
        let path = path.map_err(|error| source_failed(&error))?;
        // Directories end in a slash; files tell of theirs.
        if !path.ends_with(b"/") {
            paths.push(path);
        }
    }
    paths.sort();
    let mut out = Vec::new();
    for path in paths {
        out.extend_from_slice(&path);
        out.push(b'\n');
    }
    super::print_bytes(&out);
    Ok(())
}

/// Tools are promised 1 for whatever is wrong with their text.
fn failed(diagnostics: Vec<Diagnostic>) -> Failure {
    Failure {
        class: ExitCode::Internal,
        diagnostics,
    }
}
