//! COPY and ADD.
//!
//! In: a cut line with its heredocs. Out: sources, destination and flags, all unexpanded. What a source names (a path, a URL, a
//! repository) is the plan's to tell.

use super::Word;
use super::ast::{AddFlags, Copy, CopySource, InstructionKind};
use super::flags::{FlagKind, Flags, KnownFlag};
use super::instructions::Reader;
use super::lines::Part;
use super::words;
use crate::vocab::Diagnostic;

const COPY_FLAGS: [KnownFlag; 6] = [
    ("from", FlagKind::Value),
    ("chown", FlagKind::Value),
    ("chmod", FlagKind::Value),
    ("link", FlagKind::Bool),
    ("parents", FlagKind::Bool),
    ("exclude", FlagKind::List),
];
const ADD_FLAGS: [KnownFlag; 7] = [
    ("chown", FlagKind::Value),
    ("chmod", FlagKind::Value),
    ("link", FlagKind::Bool),
    ("exclude", FlagKind::List),
    ("checksum", FlagKind::Value),
    ("unpack", FlagKind::Bool),
    ("keep-git-dir", FlagKind::Bool),
];

impl Reader<'_, '_> {
    pub(super) fn copy(&mut self) -> Option<InstructionKind> {
        let flags = self.flags(&COPY_FLAGS);
        let from = flags.value("from");
        if let Some(from) = &from
            && from.value.contains('$')
        {
            self.diagnostics.push(
                Diagnostic::error("variables are not expanded in `--from`")
                    .at(from.span)
                    .hint("define a stage with `FROM … AS name`, where global arguments are, and name it"),
            );
        }
        Some(InstructionKind::Copy(self.copy_parts(&flags, from)?))
    }

    pub(super) fn add(&mut self) -> Option<InstructionKind> {
        let flags = self.flags(&ADD_FLAGS);
        let copy = self.copy_parts(&flags, None)?;
        Some(InstructionKind::Add(
            copy,
            AddFlags {
                checksum: flags.value("checksum"),
                unpack: flags.boolean("unpack"),
                keep_git_dir: flags.boolean("keep-git-dir"),
            },
        ))
    }

    fn copy_parts(&mut self, flags: &Flags, from: Option<Word>) -> Option<Copy> {
        let mut sources = self.copy_words()?;
        let destination = match sources.pop() {
            Some(CopySource::Path(destination)) if !sources.is_empty() => destination,
            Some(CopySource::Heredoc(_)) if !sources.is_empty() => {
                self.error_at_arguments(&format!(
                    "a heredoc cannot be the destination of {}",
                    self.name
                ));
                return None;
            }
            _ => {
                self.error_at_arguments(&format!("{} needs a source and a destination", self.name));
                return None;
            }
        };
        let is_set = |name: &str| flags.boolean(name).is_some_and(|flag| flag.value);
        Some(Copy {
            sources,
            destination,
            from,
            chown: flags.value("chown"),
            chmod: flags.value("chmod"),
            link: is_set("link"),
            parents: is_set("parents"),
            exclude: flags
                .list("exclude")
                .map(|(pattern, _)| pattern)
                .filter(|pattern| !pattern.value.is_empty())
                .collect(),
        })
    }

    /// Returns the sources and the destination.
    fn copy_words(&mut self) -> Option<Vec<CopySource>> {
        if let Some(strings) = self.json_words()? {
            return Some(strings.into_iter().map(CopySource::Path).collect());
        }
        let marks: Vec<_> = self
            .bodies
            .iter()
            .map(|body| body.mark.range.clone())
            .collect();
        let parts = words::split_blanks(self.header.arguments, &marks);
        let source = |part: Part<'_>| {
            let range = part.range();
            // Marks stand in the order of the line.
            let found = self
                .bodies
                .binary_search_by_key(&range.start, |body| body.mark.range.start);
            match found.map(|index| &self.bodies[index]) {
                Ok(body) if body.mark.range == range => CopySource::Heredoc(body.heredoc.clone()),
                _ => CopySource::Path(part.word()),
            }
        };
        Some(parts.into_iter().map(source).collect())
    }
}
