//! Names without a host: what `registries.conf` has them stand for.
//!
//! Docker's rule holds (the name is Docker Hub's) unless an alias has the name, or registries are listed among which Docker Hub is not.
//! In: that part of the files, in order. Out: full names.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use toml::Spanned;

use super::super::site::{DOCKER_HUB, Site, split_port};
use super::containers::{is_of_one_image, location};
use super::mistake::{Mistake, Source};
use crate::vocab::ImageRef;

/// What the files say together.
#[derive(Clone, Debug, Default)]
pub(super) struct ShortNames {
    search: Option<Search>,
    aliases: BTreeMap<String, ImageRef>,
    is_enforcing: bool,
}

/// `unqualified-search-registries`, and who says so.
#[derive(Clone, Debug)]
struct Search {
    registries: Vec<String>,
    path: PathBuf,
}

impl ShortNames {
    /// Takes in what one more file says; it goes before what was said.
    pub(super) fn add(&mut self, source: Source<'_>) -> Result<(), Mistake> {
        let table: Table = source.toml()?;
        if let Some(search) = &table.search {
            let registries = search
                .iter()
                .map(|entry| search_registry(source, entry))
                .collect::<Result<_, _>>()?;
            self.search = Some(Search {
                registries,
                path: source.path.to_owned(),
            });
        }
        if let Some(mode) = &table.mode {
            self.is_enforcing = match mode.get_ref().as_str() {
                "enforcing" => true,
                "permissive" | "disabled" => false,
                _ => {
                    return Err(source.at(
                        mode.span(),
                        "`short-name-mode` is `enforcing`, `permissive` or `disabled`",
                    ));
                }
            };
        }
        for (name, alias) in &table.aliases {
            match alias.get_ref().as_str() {
                // How a later file takes an alias back.
                "" => self.aliases.remove(name),
                full => self
                    .aliases
                    .insert(name.clone(), full_name(source, alias, full)?),
            };
        }
        Ok(())
    }

    /// Returns the full names that a name stands for, in the order in which they are tried. A name with a host, and a short one of
    /// which the files say nothing, stand for themselves.
    pub(super) fn names(&self, image: &ImageRef) -> Result<Vec<ImageRef>, Mistake> {
        if !image.is_short {
            return Ok(vec![image.clone()]);
        }
        let typed = image
            .repository
            .strip_prefix("library/")
            .unwrap_or(&image.repository);
        let alias = self
            .aliases
            .get(typed)
            .or_else(|| self.aliases.get(&image.repository));
        if let Some(alias) = alias {
            return Ok(vec![ImageRef {
                registry: alias.registry.clone(),
                repository: alias.repository.clone(),
                is_short: false,
                ..image.clone()
            }]);
        }
        let Some(search) = &self.search else {
            return Ok(vec![image.clone()]);
        };
        let is_docker = |registry: &String| registry == DOCKER_HUB;
        if search.registries.is_empty() || search.registries.iter().any(is_docker) {
            return Ok(vec![image.clone()]);
        }
        if self.is_enforcing && search.registries.len() > 1 {
            return Err(Mistake {
                path: search.path.clone(),
                line: None,
                what: format!(
                    "`{typed}` may be of {}, and `short-name-mode` wants that somebody chooses",
                    search.registries.join(" or ")
                ),
                hint: format!(
                    "write the registry before the name: `{}/{typed}`",
                    search.registries[0]
                ),
            });
        }
        Ok(search
            .registries
            .iter()
            .map(|registry| ImageRef {
                registry: registry.clone(),
                repository: typed.to_owned(),
                is_short: false,
                ..image.clone()
            })
            .collect())
    }
}

fn search_registry(source: Source<'_>, entry: &Spanned<String>) -> Result<String, Mistake> {
    let text = location(source, entry)?;
    let (host, _) = split_port(&text);
    let is_host = format!("{text}/a")
        .parse::<ImageRef>()
        .is_ok_and(|image| !image.is_short);
    if text.contains('/') || host.is_empty() || !is_host {
        return Err(source.at(
            entry.span(),
            format!("`{text}` in `unqualified-search-registries` is no HOST[:PORT]"),
        ));
    }
    Ok(Site::of_registry(&text).registry)
}

fn full_name(source: Source<'_>, alias: &Spanned<String>, full: &str) -> Result<ImageRef, Mistake> {
    full.parse::<ImageRef>()
        .ok()
        .filter(|image| !image.is_short && !is_of_one_image(full))
        .ok_or_else(|| {
            source.at(
                alias.span(),
                format!("the alias `{full}` is no HOST/REPOSITORY without tag and digest"),
            )
        })
}

/// The keys of a file that are about short names.
#[derive(Deserialize)]
struct Table {
    #[serde(rename = "unqualified-search-registries")]
    search: Option<Vec<Spanned<String>>>,
    #[serde(rename = "short-name-mode")]
    mode: Option<Spanned<String>>,
    #[serde(default)]
    aliases: BTreeMap<String, Spanned<String>>,
}
