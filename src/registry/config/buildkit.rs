//! The registry section of BuildKit's `buildkitd.toml`: mirrors, plain HTTP and certificates, by registry.
//!
//! In: the file's text. Out: [`Place`]s and [`Terms`]. All other sections are about a daemon and are not looked at.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;

use super::super::site::{Scheme, Site, Terms, canonical_registry};
use super::mistake::{Mistake, Source};
use super::place::{Place, Wanted};
use crate::vocab::ImageRef;

#[derive(Clone, Debug, Default)]
pub(in crate::registry) struct Buildkit {
    registries: BTreeMap<String, Registry>,
}

#[derive(Clone, Debug)]
struct Registry {
    mirrors: Vec<(Site, String)>,
    /// HTTPS is not tried.
    is_plain: bool,
    terms: Terms,
    /// Directories of `*.crt`, `*.cert` and `*.key`.
    directories: Vec<PathBuf>,
}

impl Buildkit {
    pub(in crate::registry) fn read(source: Source<'_>) -> Result<Buildkit, Mistake> {
        let file: File = source.toml()?;
        let directory = source.path.parent().unwrap_or(Path::new("/"));
        let mut registries = BTreeMap::new();
        for (name, table) in file.registry {
            let mirrors = table
                .mirrors
                .iter()
                .map(|text| {
                    Site::of_mirror(text.get_ref()).map_err(|why| source.at(text.span(), why))
                })
                .collect::<Result<_, _>>()?;
            let registry = Registry {
                mirrors,
                is_plain: table.http && !table.insecure,
                terms: Terms {
                    plain: table.http,
                    unchecked: table.insecure,
                    authorities: table.ca.iter().map(|file| directory.join(file)).collect(),
                    identities: table
                        .keypair
                        .iter()
                        .map(|pair| (directory.join(&pair.cert), directory.join(&pair.key)))
                        .collect(),
                    headers: Vec::new(),
                },
                directories: table
                    .tlsconfigdir
                    .iter()
                    .map(|path| directory.join(path))
                    .collect(),
            };
            registries.insert(canonical_registry(&name), registry);
        }
        Ok(Buildkit { registries })
    }

    /// Returns where a repository is, if a section is about its registry. The terms of each place are for the caller to find.
    pub(in crate::registry) fn places(
        &self,
        image: &ImageRef,
        wanted: Wanted,
    ) -> Option<Vec<Place>> {
        let name = canonical_registry(&image.registry);
        let registry = self.registries.get(&name)?;
        let mut places = Vec::new();
        if wanted != Wanted::Push {
            for (site, prefix) in &registry.mirrors {
                let mut mirror = Place::mirror(self.reached(site.clone()), prefix, image);
                mirror.namespace = (mirror.site.registry != name).then(|| name.clone());
                places.push(mirror);
            }
        }
        let mut origin = Place::plain(image);
        origin.site = self.reached(origin.site);
        places.push(origin);
        Some(places)
    }

    /// Returns the terms of a host that has a section.
    pub(in crate::registry) fn terms(&self, host: &str) -> Option<Terms> {
        let registry = self.registries.get(&canonical_registry(host))?;
        Some(registry.terms.clone())
    }

    /// Returns directories with certificates of a host.
    pub(in crate::registry) fn directories(&self, host: &str) -> &[PathBuf] {
        self.registries
            .get(&canonical_registry(host))
            .map_or(&[], |registry| &registry.directories)
    }

    fn reached(&self, mut site: Site) -> Site {
        let own = self.registries.get(&site.registry);
        if site.scheme.is_none() && own.is_some_and(|own| own.is_plain) {
            site.scheme = Some(Scheme::Http);
        }
        site
    }
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    registry: BTreeMap<String, Table>,
}

#[derive(Deserialize)]
struct Table {
    #[serde(default)]
    mirrors: Vec<Spanned<String>>,
    #[serde(default)]
    http: bool,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    ca: Vec<PathBuf>,
    #[serde(default)]
    keypair: Vec<Pair>,
    #[serde(default)]
    tlsconfigdir: Vec<PathBuf>,
}

#[derive(Deserialize)]
struct Pair {
    key: PathBuf,
    cert: PathBuf,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Buildkit, Mistake> {
        Buildkit::read(Source {
            path: Path::new("/etc/buildkit/buildkitd.toml"),
            text,
        })
    }

    #[test]
    fn sections_name_mirrors_and_terms() {
        let buildkit = read(
            r#"
            debug = true
            [worker.oci]
              enabled = true
            [registry."docker.io"]
              mirrors = ["m.corp:5000", "h.corp/proxy.docker.io", "https://e.corp/v2/x"]
            [registry."m.corp:5000"]
              http = true
            [registry."h.corp"]
              http = true
              insecure = true
              ca = ["/etc/ca.pem"]
              tlsconfigdir = ["/etc/config"]
              [[registry."h.corp".keypair]]
                key = "/etc/k.pem"
                cert = "c.pem"
        "#,
        )
        .unwrap();
        let shown = |name: &str, wanted| -> Option<Vec<String>> {
            let places = buildkit.places(&name.parse().unwrap(), wanted)?;
            let show = |place: &Place| {
                format!(
                    "{}{}://{}{}/{}{}",
                    if place.is_mirror { "mirror " } else { "" },
                    place.site.scheme.map_or("any", Scheme::as_str),
                    place.site.authority,
                    place.site.base,
                    place.repository,
                    place.namespace.as_deref().unwrap_or_default(),
                )
            };
            Some(places.iter().map(show).collect())
        };
        assert_eq!(
            shown("alpine", Wanted::Tag).unwrap(),
            [
                "mirror http://m.corp:5000/v2/library/alpinedocker.io",
                "mirror any://h.corp/v2/proxy.docker.io/library/alpinedocker.io",
                "mirror https://e.corp/v2/x/library/alpinedocker.io",
                "any://registry-1.docker.io/v2/library/alpine",
            ]
        );
        assert_eq!(
            shown("alpine", Wanted::Push).unwrap(),
            ["any://registry-1.docker.io/v2/library/alpine"]
        );
        assert_eq!(
            shown("m.corp:5000/a", Wanted::Tag).unwrap(),
            ["http://m.corp:5000/v2/a"]
        );
        assert_eq!(shown("other.io/a", Wanted::Tag), None);
        assert_eq!(buildkit.terms("other.io"), None);
        let terms = buildkit.terms("H.corp").unwrap();
        assert!(terms.plain && terms.unchecked);
        assert_eq!(terms.authorities, [PathBuf::from("/etc/ca.pem")]);
        assert_eq!(
            terms.identities,
            [("/etc/buildkit/c.pem".into(), "/etc/k.pem".into())]
        );
        assert_eq!(buildkit.directories("h.corp"), [Path::new("/etc/config")]);
    }

    #[test]
    fn mistakes_have_their_line() {
        let check = |text: &str, line: usize, part: &str| {
            let mistake = read(text).unwrap_err();
            assert_eq!(mistake.line, Some(line), "{mistake}");
            assert!(mistake.to_string().contains(part), "{mistake}");
        };
        check("[registry.'a.io']\nhttp = 'yes'\n", 2, "boolean");
        check("[registry.'a.io']\nmirrors = [\n'ftp://x']\n", 3, "http");
        check(
            "[registry.'a.io']\n[[registry.'a.io'.keypair]]\nkey = 'k'\n",
            2,
            "cert",
        );
    }
}
