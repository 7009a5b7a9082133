//! `registries.conf` of the containers tools (podman, buildah, skopeo): mirrors, other locations, blocked registries, short names.
//!
//! In: the texts of a file and its drop-ins, in order. Out: [`Place`]s of a repository. Short names are [`ShortNames`]' own. Version 2
//! of the format; version 1 is refused. Keys that say nothing about places (`credential-helpers`) are left to others.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;

use super::super::site::{Site, Terms};
use super::mistake::{Mistake, Source};
use super::place::{Bar, Place, Uses, Wanted};
use super::short::ShortNames;
use crate::vocab::ImageRef;

/// What the files say together.
#[derive(Clone, Debug, Default)]
pub(in crate::registry) struct Containers {
    /// By prefix.
    registries: BTreeMap<String, Registry>,
    short: ShortNames,
}

/// One `[[registry]]`.
#[derive(Clone, Debug)]
struct Registry {
    /// Takes the place of the prefix; `None`: nothing does.
    location: Option<String>,
    insecure: bool,
    blocked: bool,
    mirrors: Vec<Mirror>,
    path: PathBuf,
}

#[derive(Clone, Debug)]
struct Mirror {
    location: String,
    insecure: bool,
    uses: Uses,
}

impl Containers {
    /// Takes in one more file; what it says goes before what was said.
    pub(in crate::registry) fn add(&mut self, source: Source<'_>) -> Result<(), Mistake> {
        let file: File = source.toml()?;
        if let Some(old) = &file.registries
            && old.get_ref().says_something()
        {
            let mut mistake = source.at(
                old.span(),
                "`[registries.…]` is version 1 of the format, which is not read",
            );
            mistake.hint = "write `[[registry]]` with `location`, `insecure` and `blocked`, and `unqualified-search-registries`, or name another file in CONTAINERS_REGISTRIES_CONF".to_owned();
            return Err(mistake);
        }
        for entry in &file.registry {
            let (prefix, registry) = Registry::read(source, entry)?;
            self.registries.insert(prefix, registry);
        }
        self.short.add(source)?;
        Ok(())
    }

    /// Returns the full names that a name stands for, in the order in which they are tried.
    pub(in crate::registry) fn names(&self, image: &ImageRef) -> Result<Vec<ImageRef>, Mistake> {
        self.short.names(image)
    }

    /// Returns where a repository is, if an entry is about it.
    pub(in crate::registry) fn places(
        &self,
        image: &ImageRef,
        wanted: Wanted,
    ) -> Result<Option<Vec<Place>>, Mistake> {
        let Some((registry, end)) = self.entry(image) else {
            return Ok(None);
        };
        let name = logical(image);
        let mut places = Vec::new();
        if wanted == Wanted::Push {
            // Writing goes where the name says, as it does with these tools.
            let place = self.origin(image, registry.insecure);
            places.push(match registry.blocked {
                true => place.barred(registry.bar(&name)),
                false => place,
            });
            return Ok(Some(places));
        }
        let rest = name.get(end..).unwrap_or_default();
        for mirror in &registry.mirrors {
            let there = rewritten(image, &registry.path, &format!("{}{rest}", mirror.location))?;
            places.push(Place {
                is_mirror: true,
                uses: mirror.uses,
                ..self.origin(&there, mirror.insecure)
            });
        }
        let there = match &registry.location {
            Some(location) => rewritten(image, &registry.path, &format!("{location}{rest}"))?,
            None => image.clone(),
        };
        let mut place = Place {
            uses: Uses::PULL,
            ..self.origin(&there, registry.insecure)
        };
        if registry.blocked {
            // Its mirrors may be asked: that is how clusters say "never the source".
            place = place.barred(registry.bar(&name));
        }
        places.push(place);
        Ok(Some(places))
    }

    /// Returns the terms of a host of which an entry speaks as a whole.
    pub(in crate::registry) fn terms(&self, host: &str) -> Option<Terms> {
        let entry = self.registries.get(host)?;
        let is_at_home = entry
            .location
            .as_ref()
            .is_none_or(|location| location == host);
        is_at_home.then(|| terms(entry.insecure))
    }

    /// Returns the entry with the longest prefix, and how much of the name it covers.
    fn entry(&self, image: &ImageRef) -> Option<(&Registry, usize)> {
        let name = logical(image);
        self.registries
            .iter()
            .filter_map(|(prefix, registry)| {
                Some((prefix.len(), registry, covered(&name, prefix)?))
            })
            .max_by_key(|(length, ..)| *length)
            .map(|(_, registry, end)| (registry, end))
    }

    /// Returns a repository where it is by its name: what the entry of that very name says about it counts as well.
    fn origin(&self, there: &ImageRef, insecure: bool) -> Place {
        let own = self.entry(there).map(|(registry, _)| registry);
        let place = Place::plain(there);
        let insecure = insecure || own.is_some_and(|own| own.insecure);
        let place = Place {
            site: place.site.on(terms(insecure)),
            ..place
        };
        match own {
            Some(own) if own.blocked => place.barred(own.bar(&logical(there))),
            _ => place,
        }
    }
}

impl Registry {
    /// Reads an entry; returns it with its prefix.
    fn read(
        source: Source<'_>,
        entry: &Spanned<RegistryTable>,
    ) -> Result<(String, Registry), Mistake> {
        let table = entry.get_ref();
        let text = |value: &Option<Spanned<String>>| match value {
            Some(value) if !value.get_ref().is_empty() => location(source, value).map(Some),
            _ => Ok(None),
        };
        let (prefix, location) = (text(&table.prefix)?, text(&table.location)?);
        let Some(prefix) = prefix.or_else(|| location.clone()) else {
            return Err(source.at(
                entry.span(),
                "a `[[registry]]` has neither `prefix` nor `location`",
            ));
        };
        if prefix.get(1..).is_some_and(|rest| rest.contains('*'))
            || (prefix.starts_with('*') && !prefix.starts_with("*."))
        {
            return Err(source.at(
                entry.span(),
                format!("`{prefix}` has a `*` that is not at its beginning, before a dot"),
            ));
        }
        if let Some(misplaced) = &table.pull_from_mirror {
            return Err(source.at(
                misplaced.span(),
                "`pull-from-mirror` belongs into a `[[registry.mirror]]`",
            ));
        }
        let mirrors = table
            .mirror
            .iter()
            .map(|mirror| Mirror::read(source, mirror, table.by_digest_only))
            .collect::<Result<Vec<_>, _>>()?;
        let location = location.filter(|location| *location != prefix);
        if is_of_one_image(&prefix) && (location.is_some() || !mirrors.is_empty()) {
            return Err(source.at(
                entry.span(),
                format!("`{prefix}` has a tag or digest, which cannot be put elsewhere"),
            ));
        }
        let registry = Registry {
            location,
            insecure: table.insecure,
            blocked: table.blocked,
            mirrors,
            path: source.path.to_owned(),
        };
        Ok((prefix, registry))
    }

    fn bar(&self, name: &str) -> Bar {
        Bar::Blocked {
            name: name.to_owned(),
            by: self.path.clone(),
        }
    }
}

impl Mirror {
    fn read(
        source: Source<'_>,
        mirror: &Spanned<MirrorTable>,
        by_digest_only: bool,
    ) -> Result<Mirror, Mistake> {
        let table = mirror.get_ref();
        let Some(place) = &table.location else {
            return Err(source.at(mirror.span(), "a `[[registry.mirror]]` has no `location`"));
        };
        let uses = |tags, digests| Uses {
            tags,
            digests,
            pushes: false,
        };
        let uses = match &table.pull_from_mirror {
            None => uses(!by_digest_only, true),
            Some(value) if by_digest_only => {
                return Err(source.at(
                    value.span(),
                    "`pull-from-mirror` and `mirror-by-digest-only` exclude each other",
                ));
            }
            Some(value) => match value.get_ref().as_str() {
                "all" | "" => uses(true, true),
                "digest-only" => uses(false, true),
                "tag-only" => uses(true, false),
                _ => {
                    return Err(source.at(
                        value.span(),
                        "`pull-from-mirror` is `all`, `digest-only` or `tag-only`",
                    ));
                }
            },
        };
        Ok(Mirror {
            location: location(source, place)?,
            insecure: table.insecure,
            uses,
        })
    }
}

fn terms(insecure: bool) -> Terms {
    match insecure {
        true => Terms::insecure(),
        false => Terms::default(),
    }
}

/// Returns a name as prefixes are compared with it. Hosts are the same in any letter case, or a block would be easy to get around.
fn logical(image: &ImageRef) -> String {
    let site = Site::of_registry(&image.registry);
    ImageRef {
        registry: site.registry,
        ..image.clone()
    }
    .to_string()
}

/// Returns how many bytes of a name a prefix covers. `*.` stands for any hosts below a domain.
fn covered(name: &str, prefix: &str) -> Option<usize> {
    let ends_well =
        |end: &usize| matches!(name.as_bytes().get(*end), None | Some(b':' | b'/' | b'@'));
    match prefix.strip_prefix('*') {
        None => Some(prefix.len())
            .filter(|_| name.starts_with(prefix))
            .filter(ends_well),
        Some(suffix) => name
            .match_indices(suffix)
            .take_while(|(at, _)| !name[..*at].contains('/'))
            .map(|(at, _)| at + suffix.len())
            .find(ends_well),
    }
}

/// Reads a name that was put together from a location and the rest of another name.
fn rewritten(image: &ImageRef, path: &Path, text: &str) -> Result<ImageRef, Mistake> {
    let there = text
        .parse::<ImageRef>()
        .ok()
        .filter(|there| !there.is_short);
    let there = there.ok_or_else(|| Mistake {
        path: path.to_owned(),
        line: None,
        what: format!("`{image}` is put at `{text}`, which names no repository of a host"),
        hint: "a `location` begins with HOST[:PORT]".to_owned(),
    })?;
    Ok(ImageRef {
        registry: there.registry,
        repository: there.repository,
        ..image.clone()
    })
}

/// Reads HOST[:PORT][/PATH] without a scheme; the host in lower case.
pub(super) fn location(source: Source<'_>, value: &Spanned<String>) -> Result<String, Mistake> {
    let text = value.get_ref().trim_end_matches('/');
    if text.is_empty() {
        return Err(source.at(value.span(), "a location is empty"));
    }
    if text.contains("://") {
        return Err(source.at(
            value.span(),
            format!("`{text}` has a scheme; `insecure = true` allows plain HTTP"),
        ));
    }
    Ok(match text.split_once('/') {
        Some((host, path)) => format!("{}/{path}", host.to_ascii_lowercase()),
        None => text.to_ascii_lowercase(),
    })
}

/// Tells whether a prefix ends in a tag or a digest.
pub(super) fn is_of_one_image(prefix: &str) -> bool {
    let last = prefix.rsplit_once('/');
    prefix.contains('@') || last.is_some_and(|(_, name)| name.contains(':'))
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    registry: Vec<Spanned<RegistryTable>>,
    registries: Option<Spanned<Version1>>,
}

#[derive(Deserialize)]
struct RegistryTable {
    prefix: Option<Spanned<String>>,
    location: Option<Spanned<String>>,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    blocked: bool,
    #[serde(default, rename = "mirror-by-digest-only")]
    by_digest_only: bool,
    #[serde(rename = "pull-from-mirror")]
    pull_from_mirror: Option<Spanned<String>>,
    #[serde(default)]
    mirror: Vec<Spanned<MirrorTable>>,
}

#[derive(Deserialize)]
struct MirrorTable {
    location: Option<Spanned<String>>,
    #[serde(default)]
    insecure: bool,
    #[serde(rename = "pull-from-mirror")]
    pull_from_mirror: Option<Spanned<String>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Version1 {
    search: Version1List,
    insecure: Version1List,
    block: Version1List,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Version1List {
    registries: Vec<String>,
}

impl Version1 {
    fn says_something(&self) -> bool {
        [&self.search, &self.insecure, &self.block]
            .iter()
            .any(|list| !list.registries.is_empty())
    }
}

#[cfg(test)]
mod tests;
