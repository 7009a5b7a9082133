//! Which files one source word of COPY or ADD selects.
//!
//! A word is cleaned as a path (`../x` means `x`). Up to the first component with a wildcard it is a plain path, and links on
//! it are followed; from there on components are matched against what directories hold, and of links only the match itself is
//! followed. A plain name that is missing is an error; a wildcard may match nothing.
//!
//! With `--parents` the part below the pivot `/./` (all of it, if there is none) is kept below the destination, and `**` stands
//! for any number of components.

use super::error::{ContextError, SelectError};
use super::meta::Kind;
use super::resolve::{Found, Missing, resolve};
use super::source::Source;
use super::walk::{Guide, Visit, Walk};
use crate::dockerfile::{Glob, IgnorePatterns};

/// One source word and the flags that change what it selects.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a> {
    /// As written, after expansion.
    pub pattern: &'a str,
    /// `--parents`
    pub parents: bool,
    /// `--exclude`, in order; relative to a selected directory, to the name of a selected file, or to the pivot.
    pub exclude: &'a [String],
}

/// What a source word selects: names, not contents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// One per match, in the order of a walk.
    pub roots: Vec<SelectedRoot>,
    pub(super) parents: bool,
    pub(super) exclude: Vec<String>,
}

/// One match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelectedRoot {
    /// Relative to the source's root, without links; empty for the root.
    pub path: Vec<u8>,
    /// The last component as it was asked for: of a link its own name, not its target's. Empty for the root.
    pub name: Vec<u8>,
    /// A directory, whose contents are copied, rather than a single entry.
    pub is_directory: bool,
    /// With `--parents`, the directories between the destination and the match, outermost first. A directory that matches is the
    /// last of them itself.
    pub parents: Vec<ParentDirectory>,
}

/// A directory that `--parents` makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParentDirectory {
    /// Relative to the destination.
    pub target: Vec<u8>,
    /// Where its metadata comes from, relative to the source's root.
    pub source: Vec<u8>,
}

/// Finds what `query` selects in `source`.
pub fn select(source: &Source, query: &Query<'_>) -> Result<Selection, SelectError> {
    // The patterns are parsed here once, so that a mistake in them is found even where nothing is walked.
    let exclude = IgnorePatterns::from_list(query.exclude)?;
    let mut roots = Vec::new();
    if query.parents {
        let (pivot, below) = match query.pattern.split_once("/./") {
            Some((pivot, below)) => (pivot, below),
            None => ("", query.pattern),
        };
        let pivot = clean(pivot);
        let is_plain = !pivot
            .iter()
            .chain(&clean(below))
            .any(|name| has_wildcard(name));
        for pivot in matches(source, query.pattern, &pivot, false)? {
            match pivot.kind {
                Kind::Directory => {
                    let pivot = &pivot.path;
                    parents_below(source, query, pivot, &clean(below), is_plain, &mut roots)?;
                }
                _ if is_plain => {
                    return Err(SelectError::NotFound {
                        path: query.pattern.to_owned(),
                        excluded_by: None,
                        similar: None,
                    });
                }
                _ => {}
            }
        }
    } else {
        for found in matches(source, query.pattern, &clean(query.pattern), true)? {
            let is_directory = found.kind == Kind::Directory;
            if !is_directory && exclude.decide(&found.name).excluded {
                continue;
            }
            roots.push(SelectedRoot {
                path: found.path,
                name: found.name,
                is_directory,
                parents: Vec::new(),
            });
        }
    }
    Ok(Selection {
        roots,
        parents: query.parents,
        exclude: query.exclude.to_vec(),
    })
}

impl Selection {
    /// Starts a walk through the contents of `root`, which must be a directory of this selection.
    pub fn walk<'a>(
        &self,
        source: &'a Source,
        root: &SelectedRoot,
    ) -> Result<Walk<'a>, ContextError> {
        let base = match root.parents.last() {
            Some(parent) => parent.target.as_slice(),
            None => b"",
        };
        Walk::new(source, &root.path, &self.exclude, base)
    }
}

/// Something that a pattern leads to, links followed.
struct Match {
    path: Vec<u8>,
    name: Vec<u8>,
    kind: Kind,
}

/// Expands a cleaned pattern without `**`. `written` is for messages.
fn matches(
    source: &Source,
    written: &str,
    components: &[&str],
    follow_matches: bool,
) -> Result<Vec<Match>, SelectError> {
    let plain = components
        .iter()
        .position(|component| has_wildcard(component))
        .unwrap_or(components.len());
    let globs = components[plain..]
        .iter()
        .map(|component| Glob::parse(component))
        .collect::<Result<Vec<Glob>, _>>()?;
    let (path, kind, name) = match plain_path(source, written, &components[..plain]) {
        // Where the wildcard's directory is missing, nothing matches.
        Err(SelectError::NotFound { .. }) if !globs.is_empty() => return Ok(Vec::new()),
        found => found?,
    };
    if globs.is_empty() {
        return Ok(vec![Match { path, name, kind }]);
    }
    if kind != Kind::Directory {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    let guide = |path: &[u8]| {
        let (depth, name) = depth_and_name(path);
        match globs.get(depth - 1) {
            Some(glob) if !glob.matches(name) => Guide::Pass,
            Some(_) if depth == globs.len() => Guide::Show,
            _ => Guide::Open,
        }
    };
    let mut walk = Walk::new(source, &path, &[], b"")?.guided(guide);
    while let Some(visit) = walk.next()? {
        let (Visit::Enter { node, .. } | Visit::Leaf(node)) = &visit else {
            continue;
        };
        if guide(node.path) != Guide::Show {
            continue;
        }
        found.push(Match {
            path: node.source_path.to_vec(),
            name: node.name.to_vec(),
            kind: node.meta.kind,
        });
        if matches!(visit, Visit::Enter { .. }) {
            walk.skip()?;
        }
    }
    if follow_matches {
        for found in &mut found {
            follow(source, found)?;
        }
    }
    Ok(found)
}

/// Expands the part below the pivot. What is missing is an error if the whole word `is_plain`.
fn parents_below(
    source: &Source,
    query: &Query<'_>,
    pivot: &[u8],
    components: &[&str],
    is_plain: bool,
    roots: &mut Vec<SelectedRoot>,
) -> Result<(), SelectError> {
    let plain = components
        .iter()
        .position(|component| has_wildcard(component))
        .unwrap_or(components.len());
    let deep = components[plain..]
        .iter()
        .any(|component| component.contains("**"));
    let glob = Glob::parse_deep(&components[plain..].join("/"))?;
    let levels = components[plain..]
        .iter()
        .map(|component| Glob::parse_deep(component))
        .collect::<Result<Vec<Glob>, _>>()?;
    let mut asked: Vec<Vec<u8>> = pivot
        .split(|&byte| byte == b'/')
        .filter(|name| !name.is_empty())
        .map(<[u8]>::to_vec)
        .collect();
    let pivot_depth = asked.len();
    asked.extend(
        components[..plain]
            .iter()
            .map(|component| unescaped(component).into_bytes()),
    );
    let (path, kind, ways) = match resolve(source, &asked)? {
        Found::Entry { path, kind, ways } => (path, kind, ways),
        Found::Missing(_) if !is_plain => return Ok(()),
        Found::Missing(missing) => return Err(not_found(source, query.pattern, missing)?),
        Found::Links => {
            return Err(SelectError::Links {
                path: query.pattern.to_owned(),
            });
        }
    };
    let mut parents: Vec<ParentDirectory> = Vec::new();
    let mut target = Vec::new();
    for (name, way) in asked[pivot_depth..].iter().zip(&ways[pivot_depth..]) {
        append(&mut target, name);
        parents.push(ParentDirectory {
            target: target.clone(),
            source: way.clone(),
        });
    }
    let exclude = IgnorePatterns::from_list(query.exclude)?;
    if plain == components.len() {
        if !target.is_empty()
            && exclude.decide(&target).excluded
            && (kind != Kind::Directory || !exclude.may_include_below(&target))
        {
            return Ok(());
        }
        roots.push(parents_root(path, kind, parents));
        return Ok(());
    }
    if kind != Kind::Directory {
        return Ok(());
    }
    // `**` stands for no component at all, too: the directory itself matches.
    if components[plain..]
        .iter()
        .all(|&component| component == "**")
    {
        roots.push(parents_root(path, kind, parents));
        return Ok(());
    }
    let mut found = Vec::new();
    let guide = |path: &[u8]| {
        let (depth, name) = depth_and_name(path);
        if glob.matches(path) {
            Guide::Show
        } else if deep || (depth < levels.len() && levels[depth - 1].matches(name)) {
            Guide::Open
        } else {
            Guide::Pass
        }
    };
    let mut walk = Walk::new(source, &path, query.exclude, &target)?.guided(guide);
    while let Some(visit) = walk.next()? {
        let (Visit::Enter { node, .. } | Visit::Leaf(node)) = &visit else {
            continue;
        };
        if !glob.matches(node.path) {
            continue;
        }
        let mut parents = parents.clone();
        let (mut below, mut canonical) = (target.clone(), path.clone());
        for name in node.path.split(|&byte| byte == b'/') {
            append(&mut below, name);
            append(&mut canonical, name);
            parents.push(ParentDirectory {
                target: below.clone(),
                source: canonical.clone(),
            });
        }
        let name = node.name.to_vec();
        let (path, kind) = (node.source_path.to_vec(), node.meta.kind);
        found.push((Match { path, name, kind }, parents));
        if matches!(visit, Visit::Enter { .. }) {
            walk.skip()?;
        }
    }
    for (mut found, mut parents) in found {
        follow(source, &mut found)?;
        if let Some(last) = parents.last_mut() {
            last.source.clone_from(&found.path);
        }
        roots.push(parents_root(found.path, found.kind, parents));
    }
    Ok(())
}

/// Returns how many components a path has and the last of them.
fn depth_and_name(path: &[u8]) -> (usize, &[u8]) {
    let mut components = path.split(|&byte| byte == b'/');
    let name = components.next_back().unwrap_or_default();
    (components.count() + 1, name)
}

/// Of a directory its own place is the last parent; of anything else it is the place's name.
fn parents_root(path: Vec<u8>, kind: Kind, mut parents: Vec<ParentDirectory>) -> SelectedRoot {
    let is_directory = kind == Kind::Directory;
    let own = match is_directory {
        true => parents.last().cloned(),
        false => parents.pop(),
    };
    let name = match &own {
        Some(own) => own
            .target
            .rsplit(|&byte| byte == b'/')
            .next()
            .unwrap_or_default()
            .to_vec(),
        None => Vec::new(),
    };
    SelectedRoot {
        path,
        name,
        is_directory,
        parents,
    }
}

/// Follows a match that is a link; one that leads nowhere is not found.
fn follow(source: &Source, found: &mut Match) -> Result<(), SelectError> {
    if found.kind != Kind::Symlink {
        return Ok(());
    }
    let components: Vec<&[u8]> = found.path.split(|&byte| byte == b'/').collect();
    let written = String::from_utf8_lossy(&found.path).into_owned();
    match resolve(source, &components)? {
        Found::Entry { path, kind, .. } => {
            (found.path, found.kind) = (path, kind);
            Ok(())
        }
        Found::Missing(missing) => Err(not_found(source, &written, missing)?),
        Found::Links => Err(SelectError::Links { path: written }),
    }
}

/// Follows a path without wildcards; returns where it leads, what that is, and the last name on it. A backslash is first taken
/// as a character of a name, then as an escape.
fn plain_path(
    source: &Source,
    written: &str,
    components: &[&str],
) -> Result<(Vec<u8>, Kind, Vec<u8>), SelectError> {
    let mut names: Vec<Vec<u8>> = components
        .iter()
        .map(|name| name.as_bytes().to_vec())
        .collect();
    let mut outcome = resolve(source, &names)?;
    if matches!(outcome, Found::Missing(_)) && components.iter().any(|name| name.contains('\\')) {
        names = components
            .iter()
            .map(|name| unescaped(name).into_bytes())
            .collect();
        outcome = resolve(source, &names)?;
    }
    match outcome {
        Found::Entry { path, kind, .. } => Ok((path, kind, names.pop().unwrap_or_default())),
        Found::Missing(missing) => Err(not_found(source, written, missing)?),
        Found::Links => Err(SelectError::Links {
            path: written.to_owned(),
        }),
    }
}

/// Says why `written` is not there and what may have been meant.
fn not_found(
    source: &Source,
    written: &str,
    missing: Missing,
) -> Result<SelectError, ContextError> {
    let path = missing.directory.path_of(&missing.name);
    let (excluded_by, similar) = match missing.excluded_by {
        Some(line) => (line.map(|line| (line, source.ignore_line(line))), None),
        None => {
            let io = |error| ContextError::io("list", &path, error);
            let mut buffer = vec![std::mem::MaybeUninit::uninit(); 32 * 1024];
            let names = missing.directory.list(source, &mut buffer).map_err(io)?;
            // A name that is there is in the way: a file where a directory should be.
            let is_there = names.iter().any(|name| name == missing.name);
            let similar = names
                .iter()
                .filter(|_| !is_there)
                .filter_map(|name| Some((distance(&missing.name, name)?, name)))
                .min()
                .map(|(_, name)| {
                    String::from_utf8_lossy(&missing.directory.path_of(name)).into_owned()
                });
            (None, similar)
        }
    };
    Ok(SelectError::NotFound {
        path: written.to_owned(),
        excluded_by,
        similar,
    })
}

/// Tells how many letters differ, up to a third of the name and no more than two; 0 where only the case does.
fn distance(wanted: &[u8], found: &[u8]) -> Option<usize> {
    if wanted.eq_ignore_ascii_case(found) {
        return Some(0);
    }
    let most = (wanted.len() / 3).min(2);
    if wanted.len().abs_diff(found.len()) > most {
        return None;
    }
    // Levenshtein's, one row at a time.
    let mut row: Vec<usize> = (0..=found.len()).collect();
    for (at, a) in wanted.iter().enumerate() {
        let mut corner = row[0];
        row[0] = at + 1;
        for (column, b) in found.iter().enumerate() {
            let changed = corner + usize::from(!a.eq_ignore_ascii_case(b));
            corner = row[column + 1];
            row[column + 1] = changed.min(row[column] + 1).min(corner + 1);
        }
    }
    Some(row[found.len()]).filter(|&distance| distance <= most)
}

/// Splits a path at its slashes, without empty and `.` components; `..` takes the one before it away and stops at the root.
fn clean(path: &str) -> Vec<&str> {
    let mut components = Vec::new();
    for component in path.split('/') {
        match component {
            "" | "." => {}
            ".." => drop(components.pop()),
            component => components.push(component),
        }
    }
    components
}

fn has_wildcard(component: &str) -> bool {
    let mut bytes = component.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => drop(bytes.next()),
            b'*' | b'?' | b'[' => return true,
            _ => {}
        }
    }
    false
}

fn unescaped(component: &str) -> String {
    let mut text = String::with_capacity(component.len());
    let mut characters = component.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => text.push(characters.next().unwrap_or('\\')),
            character => text.push(character),
        }
    }
    text
}

fn append(path: &mut Vec<u8>, name: &[u8]) {
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
}

#[cfg(test)]
#[path = "select_tests.rs"]
mod tests;
