//! Where a repository is asked for: the command line's word, then that of other tools' files, then the name itself.
//!
//! In: [`RegistryOptions`], the files of [`config`](super::config), and image names. Out: [`Place`]s in the order in which they are
//! tried, and the terms on which a host is met. The files are read with the first question that they can answer.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

use super::config::{Bar, Files, Mistake, Place, Wanted};
use super::environment::Environment;
use super::error::RegistryError;
use super::site::{Site, Terms, canonical_registry, split_port, without_default_port};
use crate::vocab::{ImageRef, RegistryOptions};

/// Everything that decides where requests go.
#[derive(Clone)]
pub(super) struct Rules {
    flags: Arc<Flags>,
    /// What other tools' files say; `None` where that does not matter.
    files: Option<Arc<Files>>,
    /// The server that requests are meant for, whose own terms hold for it.
    home: Option<Arc<Home>>,
}

/// Stands for every registry among the insecure ones.
const EVERY_REGISTRY: &str = "*";

/// The options, understood.
struct Flags {
    mirrors: Vec<(String, (Site, String))>,
    insecure: Vec<String>,
    cert_dir: Option<PathBuf>,
    authorities: Vec<(String, PathBuf)>,
    identities: Vec<(String, PathBuf, PathBuf)>,
}

/// A server and its terms.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Home {
    pub(super) authority: String,
    pub(super) terms: Terms,
}

impl Rules {
    /// Reads the options.
    pub(super) fn new(options: &RegistryOptions) -> Result<Rules, RegistryError> {
        let mut mirrors = Vec::new();
        for (registry, url) in &options.mirrors {
            let mirror = Site::of_mirror(url).map_err(|what| RegistryError::Option { what })?;
            mirrors.push((canonical_registry(registry), mirror));
        }
        let flags = Flags {
            mirrors,
            insecure: options
                .insecure
                .iter()
                .map(|entry| {
                    let entry = entry.trim().trim_end_matches('/');
                    let entry = entry.split_once("://").map_or(entry, |(_, rest)| rest);
                    entry.to_ascii_lowercase()
                })
                .collect(),
            cert_dir: options.cert_dir.clone(),
            authorities: options.authorities.clone(),
            identities: options.identities.clone(),
        };
        Ok(Rules {
            flags: Arc::new(flags),
            files: None,
            home: None,
        })
    }

    /// Has the files of other tools obeyed, too. They are read with the first question that they can answer.
    pub(super) fn with_files(self, environment: &Environment) -> Rules {
        Rules {
            files: Some(Arc::new(Files::new(environment.clone()))),
            ..self
        }
    }

    /// Returns the same for what is no registry: a plain download.
    pub(super) fn for_downloads(&self) -> Rules {
        Rules {
            flags: Arc::new(Flags {
                mirrors: Vec::new(),
                insecure: self
                    .flags
                    .insecure
                    .iter()
                    .filter(|entry| *entry != EVERY_REGISTRY)
                    .cloned()
                    .collect(),
                cert_dir: None,
                authorities: Vec::new(),
                identities: Vec::new(),
            }),
            files: None,
            home: None,
        }
    }

    /// Returns the same for requests that are meant for one server.
    pub(super) fn at(&self, site: &Site) -> Rules {
        Rules {
            home: Some(Arc::new(Home {
                authority: site.authority.clone(),
                terms: site.terms.clone(),
            })),
            ..self.clone()
        }
    }

    /// Tells whether an option says that a host, or a host with its port, may be reached without a checked TLS.
    pub(super) fn is_insecure(&self, authority: &str) -> bool {
        let authority = authority.to_ascii_lowercase();
        let (host, _) = split_port(&authority);
        self.flags
            .insecure
            .iter()
            .any(|entry| *entry == authority || *entry == host || entry == EVERY_REGISTRY)
    }

    /// Returns the directory whose certificates are for every registry.
    pub(super) fn cert_dir(&self) -> Option<&Path> {
        self.flags.cert_dir.as_deref()
    }

    /// Returns the server that requests are meant for, unless `authority` is that very server.
    pub(super) fn home_of_stranger(&self, authority: &str) -> Option<&Arc<Home>> {
        self.home.as_ref().filter(|home| !home.is(authority))
    }

    /// Returns the terms on which a host is met.
    pub(super) fn terms(&self, authority: &str) -> Result<Terms, RegistryError> {
        let mut terms = match (&self.home, &self.files) {
            (Some(home), _) if home.is(authority) => home.terms.clone(),
            (_, Some(files)) => files.terms(authority)?,
            (_, None) => Terms::default(),
        };
        if self.is_insecure(authority) {
            terms.plain = true;
            terms.unchecked = true;
        }
        let own = self.flags.authorities.iter();
        let own = own.filter(|(registry, _)| is_host_of(registry, authority));
        terms.authorities.extend(own.map(|(_, file)| file.clone()));
        let own = self.flags.identities.iter();
        let own = own.filter(|(registry, _, _)| is_host_of(registry, authority));
        terms
            .identities
            .extend(own.map(|(_, chain, key)| (chain.clone(), key.clone())));
        Ok(terms)
    }

    /// Returns the headers that the server itself is sent.
    pub(super) fn headers(&self, authority: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let Some(home) = self.home.as_ref().filter(|home| home.is(authority)) else {
            return headers;
        };
        for (name, value) in &home.terms.headers {
            // Both were looked at when the file was read.
            if let (Ok(name), Ok(mut value)) = (
                HeaderName::from_bytes(name.as_bytes()),
                HeaderValue::from_str(value.reveal()),
            ) {
                value.set_sensitive(true);
                headers.append(name, value);
            }
        }
        headers
    }

    /// Returns the places that may be asked, in order: at least one, of which the last is no mirror.
    pub(super) fn places(&self, image: &ImageRef, wanted: Wanted) -> Vec<Place> {
        self.find_places(image, wanted)
            .unwrap_or_else(|mistake| vec![Place::plain(image).barred(Bar::Mistake(mistake))])
    }

    /// Returns a registry itself, on the terms that hold for it.
    pub(super) fn registry(&self, name: &str) -> Place {
        let image = ImageRef {
            registry: canonical_registry(name),
            repository: String::new(),
            tag: None,
            digest: None,
            is_short: false,
        };
        let places = self.places(&image, Wanted::Push);
        let itself = places
            .into_iter()
            .find(|place| place.site.registry == image.registry);
        itself.unwrap_or_else(|| {
            let place = Place::plain(&image);
            match self.files.as_ref().map(|files| files.terms(name)) {
                None => place,
                Some(Ok(terms)) => Place {
                    site: place.site.on(terms),
                    ..place
                },
                Some(Err(mistake)) => place.barred(Bar::Mistake(mistake)),
            }
        })
    }

    fn find_places(&self, image: &ImageRef, wanted: Wanted) -> Result<Vec<Place>, Mistake> {
        let names = match &self.files {
            // A push goes where everybody takes the name to be.
            Some(files) if wanted != Wanted::Push => files.names(image)?,
            _ => vec![image.clone()],
        };
        let mut places = Vec::new();
        for name in names {
            let registry = canonical_registry(&name.registry);
            for (mirrored, (site, prefix)) in &self.flags.mirrors {
                if *mirrored == registry && wanted != Wanted::Push {
                    let mut place = Place::mirror(site.clone(), prefix, &name);
                    if let Some(files) = &self.files {
                        place.site.terms = files.terms(&place.site.registry)?;
                    }
                    places.push(place);
                }
            }
            let found = match &self.files {
                Some(files) => files.places(&name, wanted)?,
                None => None,
            };
            match found {
                Some(found) => {
                    places.extend(found.into_iter().filter(|place| place.serves(wanted)))
                }
                None => {
                    let mut place = Place::plain(&name);
                    if let Some(files) = &self.files {
                        place.site.terms = files.terms(&place.site.registry)?;
                    }
                    places.push(place);
                }
            }
        }
        Ok(places)
    }
}

impl Home {
    /// Tells whether an authority of a URL is this server.
    fn is(&self, authority: &str) -> bool {
        without_default_port(&self.authority).eq_ignore_ascii_case(without_default_port(authority))
    }
}

/// Tells whether a registry that an option names, with or without a port, has this host. Docker Hub goes by its names.
fn is_host_of(registry: &str, authority: &str) -> bool {
    let authority = canonical_registry(&authority.to_ascii_lowercase());
    let registry = canonical_registry(&registry.to_ascii_lowercase());
    registry == authority || registry == split_port(&authority).0
}

#[cfg(test)]
mod tests {
    use super::super::endpoint::{Endpoint, Host};
    use super::super::site::Scheme;
    use super::*;

    fn rules(mirrors: &[(&str, &str)], insecure: &[&str]) -> Result<Rules, RegistryError> {
        Rules::new(&RegistryOptions {
            mirrors: mirrors
                .iter()
                .map(|(host, url)| ((*host).to_owned(), (*url).to_owned()))
                .collect(),
            insecure: insecure.iter().map(|entry| (*entry).to_owned()).collect(),
            ..RegistryOptions::default()
        })
    }

    #[test]
    fn mirrors_place_the_repository_as_each_product_has_it() {
        let check = |url: &str, manifest: &str| {
            let rules = rules(&[("index.docker.io", url)], &[]).unwrap();
            let image: ImageRef = "a".parse().unwrap();
            let place = rules.places(&image, Wanted::Tag).remove(0);
            let host = Arc::new(Host::new(place.site, &rules));
            let endpoint = Endpoint {
                host: host.clone(),
                repository: place.repository,
                is_mirror: true,
                namespace: None,
                bar: None,
            };
            let scheme = host.scheme().unwrap_or(Scheme::Https);
            let url = host.url(scheme, &endpoint.tail("manifests/1")).unwrap();
            assert_eq!(url.as_str(), manifest);
        };
        check(
            "https://mirror.corp",
            "https://mirror.corp/v2/library/a/manifests/1",
        );
        check(
            "mirror.corp:5000/",
            "https://mirror.corp:5000/v2/library/a/manifests/1",
        );
        check(
            "http://mirror.corp:5000",
            "http://mirror.corp:5000/v2/library/a/manifests/1",
        );
        check(
            "https://harbor.corp/hub-proxy",
            "https://harbor.corp/v2/hub-proxy/library/a/manifests/1",
        );
        check(
            "https://harbor.corp/v2/hub-proxy/",
            "https://harbor.corp/v2/hub-proxy/library/a/manifests/1",
        );
        check(
            "https://art.corp/artifactory/api/docker/hub/v2/",
            "https://art.corp/artifactory/api/docker/hub/v2/library/a/manifests/1",
        );
        check("https://m/v2", "https://m/v2/library/a/manifests/1");
    }

    #[test]
    fn insecure_entries_match_a_host_with_or_without_its_port() {
        let rules = rules(
            &[],
            &["reg.corp", "10.0.0.1:5000", "http://url.corp/", "[::5]"],
        )
        .unwrap();
        for (authority, insecure) in [
            ("reg.corp", true),
            ("reg.corp:5000", true),
            ("REG.corp", true),
            ("xreg.corp", false),
            ("reg.corp.evil", false),
            ("10.0.0.1:5000", true),
            ("10.0.0.1", false),
            ("10.0.0.1:5001", false),
            ("url.corp", true),
            ("[::5]:5000", true),
        ] {
            assert_eq!(rules.is_insecure(authority), insecure, "{authority}");
        }
    }
}
