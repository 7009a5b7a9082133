//! A file as the first pass of BuildKit's parser cuts it: a node per instruction, its arguments in a flat list.
//!
//! In: text. Out: [`Node`]s, or the mistakes that this pass can see; what arguments mean, and whether an instruction exists, is not
//! looked at. Made of the same pieces as the syntax itself (`lines`, `words`, `json`, `heredoc`), for who compares parsers, and
//! for the lines that an instruction stands on.

use super::directives;
use super::json::{self, Json};
use super::lines::{Lines, Logical, Part};
use super::parse::Line;
use super::words::{self, Header};
use super::work;
use crate::vocab::{Diagnostic, Span};

/// One instruction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// The keyword in lower case.
    pub value: String,
    /// Flags with their `--`, quotes and backslashes removed.
    pub flags: Vec<String>,
    /// Whether the arguments were a JSON array of strings.
    pub json: bool,
    /// What follows the flags. ENV and LABEL have three items per pair: key, value, and what stood between them (`=` or nothing).
    pub args: Vec<String>,
    /// The first and the last line, from 1; a nested node has none.
    pub lines: (usize, usize),
    /// The instruction inside ONBUILD.
    pub nested: Option<Box<Node>>,
    pub heredocs: Vec<NodeHeredoc>,
}

/// A heredoc whose body is as it stands in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeHeredoc {
    pub name: String,
    pub content: String,
    pub expand: bool,
    pub chomp: bool,
}

/// ONBUILD inside ONBUILD beyond this is refused: nodes hold each other.
const MAX_DEPTH: usize = 100;

/// Returns the nodes of a file and its escape character, or every mistake.
pub fn nodes(text: &str) -> Result<(Vec<Node>, char), Vec<Diagnostic>> {
    let top = directives::read(text);
    let mut diagnostics = top.diagnostics;
    let mut nodes = Vec::new();
    let mut counter = LineCounter::new(text);
    let mut lines = Lines::new(text, top.escape, top.end);
    while let Some(logical) = lines.next_logical() {
        let mut node = whole(&logical, &mut lines, top.escape, &mut diagnostics);
        let first = counter.line(logical.extent.start);
        let end = logical.extent.end.max(lines.line_end());
        node.lines = (first, counter.line(end));
        nodes.push(node);
    }
    if nodes.is_empty() {
        diagnostics.push(Diagnostic::error("the file has no instructions").at(Span::default()));
    }
    diagnostics.retain(Diagnostic::is_error);
    match diagnostics.is_empty() {
        true => Ok((nodes, top.escape)),
        false => Err(diagnostics),
    }
}

fn whole(
    logical: &Logical,
    lines: &mut Lines<'_>,
    escape: char,
    diagnostics: &mut Vec<Diagnostic>,
) -> Node {
    let Some(line) = Line::read(logical, lines, diagnostics) else {
        return Node {
            args: vec![String::new()],
            ..Node::default()
        };
    };
    // ONBUILD's instructions from the outside in.
    let mut headers = vec![line.header.clone()];
    while let Some(last) = headers.last()
        && last.keyword.as_str().eq_ignore_ascii_case("ONBUILD")
        && !last.arguments.is_empty()
    {
        if headers.len() > MAX_DEPTH {
            diagnostics
                .push(Diagnostic::error("ONBUILD is nested too deeply").at(last.keyword.span()));
            break;
        }
        headers.push(Header::new(last.arguments));
    }
    let mut inner: Option<Box<Node>> = None;
    for header in headers.iter().rev() {
        let mut node = one(header, escape, diagnostics);
        node.nested = inner.take();
        inner = Some(Box::new(node));
    }
    let mut node = *inner.expect("the line's own header is among them");
    node.heredocs = line
        .bodies
        .iter()
        .map(|body| NodeHeredoc {
            name: body.heredoc.name.clone(),
            content: body.raw.clone(),
            expand: body.heredoc.expand,
            chomp: body.heredoc.chomp,
        })
        .collect();
    node
}

fn one(header: &Header<'_>, escape: char, diagnostics: &mut Vec<Diagnostic>) -> Node {
    let value = header.keyword.as_str().to_lowercase();
    let flags = header.flags.iter().map(|flag| match &flag.value {
        Some((value, _)) => format!("--{}={value}", flag.name),
        None => format!("--{}", flag.name),
    });
    let mut node = Node {
        flags: flags.collect(),
        ..Node::default()
    };
    let arguments = header.arguments;
    match value.as_str() {
        "add" | "copy" | "volume" => node.json_or(arguments, diagnostics, split),
        "cmd" | "entrypoint" | "run" | "shell" => node.json_or(arguments, diagnostics, text),
        "expose" | "from" => node.args = split(arguments),
        "arg" => {
            let words = words::split_quoted(arguments, escape);
            node.args = words.iter().map(|word| word.as_str().to_owned()).collect();
        }
        "env" | "label" => node.pairs(arguments, escape, diagnostics),
        "healthcheck" => {
            let written = arguments.as_str();
            let kind_end = written.find(char::is_whitespace).unwrap_or(written.len());
            let command = arguments.after(kind_end);
            let blanks = command.as_str().len() - command.as_str().trim_start().len();
            node.json_or(command.after(blanks), diagnostics, text);
            if kind_end > 0 {
                node.args.insert(0, written[..kind_end].to_owned());
            }
        }
        "maintainer" | "stopsignal" | "user" | "workdir" => node.args = text(arguments),
        "onbuild" => {}
        // What is no instruction has an argument that says nothing.
        _ => node.args = vec![String::new()],
    }
    node.value = value;
    node
}

impl Node {
    fn json_or(
        &mut self,
        arguments: Part<'_>,
        diagnostics: &mut Vec<Diagnostic>,
        plain: fn(Part<'_>) -> Vec<String>,
    ) {
        match json::read(arguments.as_str()) {
            Json::Strings(strings) => {
                self.json = true;
                self.args = strings.into_iter().map(|(string, _)| string).collect();
            }
            Json::OtherArray => diagnostics
                .push(Diagnostic::error("the JSON form holds strings only").at(arguments.span())),
            Json::No => self.args = plain(arguments),
        }
    }

    fn pairs(&mut self, arguments: Part<'_>, escape: char, diagnostics: &mut Vec<Diagnostic>) {
        let words = words::split_quoted(arguments, escape);
        let Some(first) = words.first() else {
            return;
        };
        let mut push = |key: &str, value: &str, between: &str| {
            self.args.extend([key, value, between].map(str::to_owned));
        };
        if !first.as_str().contains('=') {
            match words::split_legacy(arguments) {
                Some((key, value)) => push(key.as_str(), value.as_str(), ""),
                None => diagnostics
                    .push(Diagnostic::error("a name without a value").at(arguments.span())),
            }
            return;
        }
        for word in words {
            match words::split_equals(word) {
                Some((key, value)) => push(key.as_str(), value.as_str(), "="),
                None => diagnostics.push(
                    Diagnostic::error(format!("`{}` has no `=`", word.as_str())).at(word.span()),
                ),
            }
        }
    }
}

fn split(arguments: Part<'_>) -> Vec<String> {
    let parts = words::split_blanks(arguments, &[]);
    parts.iter().map(|part| part.as_str().to_owned()).collect()
}

fn text(arguments: Part<'_>) -> Vec<String> {
    match arguments.as_str() {
        "" => Vec::new(),
        text => vec![text.to_owned()],
    }
}

/// Counts lines up to places that ascend.
struct LineCounter<'a> {
    bytes: &'a [u8],
    at: usize,
    line: usize,
}

impl<'a> LineCounter<'a> {
    fn new(text: &'a str) -> LineCounter<'a> {
        LineCounter {
            bytes: text.as_bytes(),
            at: 0,
            line: 1,
        }
    }

    fn line(&mut self, place: usize) -> usize {
        work::note(place.saturating_sub(self.at));
        let passed = &self.bytes[self.at..place.max(self.at)];
        self.line += passed.iter().filter(|&&byte| byte == b'\n').count();
        self.at += passed.len();
        self.line
    }
}
