//! What Docker's `daemon.json` says of registries: mirrors of Docker Hub, and hosts that are insecure.
//!
//! In: the file's text. Out: [`Place`]s and [`Terms`]. All other keys are about a daemon and are not looked at.

use serde::Deserialize;

use super::super::site::{DOCKER_HUB, Network, Site, Terms, canonical_registry, split_port};
use super::mistake::{Mistake, Source};
use super::place::{Place, Wanted};
use crate::vocab::ImageRef;

#[derive(Clone, Debug, Default)]
pub(in crate::registry) struct Docker {
    mirrors: Vec<(Site, String)>,
    hosts: Vec<String>,
    networks: Vec<Network>,
}

impl Docker {
    pub(in crate::registry) fn read(source: Source<'_>) -> Result<Docker, Mistake> {
        let file: File = source.json()?;
        let mut docker = Docker::default();
        for text in file.mirrors.unwrap_or_default() {
            let mirror = Site::of_mirror(text.trim_end_matches('/'));
            docker
                .mirrors
                .push(mirror.map_err(|why| source.near(&text, why))?);
        }
        for text in file.insecure.unwrap_or_default() {
            if let Some(network) = Network::parse(&text)
                && text.contains('/')
            {
                docker.networks.push(network);
                continue;
            }
            let host = text
                .split_once("://")
                .map_or(text.as_str(), |(_, rest)| rest);
            let host = host.trim_end_matches('/');
            if host.is_empty() || host.contains('/') {
                return Err(source.near(
                    &text,
                    format!("`{text}` in `insecure-registries` is no HOST[:PORT] and no network"),
                ));
            }
            docker.hosts.push(host.to_ascii_lowercase());
        }
        Ok(docker)
    }

    /// Returns where a repository of Docker Hub is, if there are mirrors. The terms of each place are for the caller to find.
    pub(in crate::registry) fn places(
        &self,
        image: &ImageRef,
        wanted: Wanted,
    ) -> Option<Vec<Place>> {
        if canonical_registry(&image.registry) != DOCKER_HUB || self.mirrors.is_empty() {
            return None;
        }
        let mut places = Vec::new();
        if wanted != Wanted::Push {
            for (site, prefix) in &self.mirrors {
                places.push(Place::mirror(site.clone(), prefix, image));
            }
        }
        places.push(Place::plain(image));
        Some(places)
    }

    /// Returns the terms of a host that is named, or whose address is in a network that is.
    pub(in crate::registry) fn terms(&self, host: &str) -> Option<Terms> {
        let host = host.to_ascii_lowercase();
        let (name, _) = split_port(&host);
        let is_insecure =
            self.hosts.contains(&host) || self.networks.iter().any(|network| network.holds(name));
        is_insecure.then(Terms::insecure)
    }
}

#[derive(Deserialize)]
struct File {
    #[serde(rename = "registry-mirrors")]
    mirrors: Option<Vec<String>>,
    #[serde(rename = "insecure-registries")]
    insecure: Option<Vec<String>>,
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn read(text: &str) -> Result<Docker, Mistake> {
        Docker::read(Source {
            path: Path::new("/etc/docker/daemon.json"),
            text,
        })
    }

    #[test]
    fn mirrors_are_of_docker_hub_alone() {
        let docker =
            read(r#"{"registry-mirrors": ["https://m.corp/", "http://n.corp:5000/hub"]}"#).unwrap();
        let places = |name: &str, wanted| docker.places(&name.parse().unwrap(), wanted);
        let found = places("alpine", Wanted::Tag).unwrap();
        let shown: Vec<String> = found
            .iter()
            .map(|place| format!("{}/{}", place.site.authority, place.repository))
            .collect();
        assert_eq!(
            shown,
            [
                "m.corp/library/alpine",
                "n.corp:5000/hub/library/alpine",
                "registry-1.docker.io/library/alpine"
            ]
        );
        assert_eq!(places("alpine", Wanted::Push).unwrap().len(), 1);
        assert_eq!(places("ghcr.io/a", Wanted::Tag), None);
        let without = read(r#"{"debug": true, "registry-mirrors": null}"#).unwrap();
        assert_eq!(
            without.places(&"alpine".parse().unwrap(), Wanted::Tag),
            None
        );
    }

    #[test]
    fn insecure_are_hosts_with_their_port_and_networks() {
        let docker = read(
            r#"{"insecure-registries": ["Reg.corp", "p.corp:5000", "http://u.corp/", "10.0.0.0/8", "fd00::/8"]}"#,
        )
        .unwrap();
        for (host, insecure) in [
            ("reg.corp", true),
            ("reg.corp:5000", false),
            ("REG.CORP", true),
            ("p.corp:5000", true),
            ("p.corp", false),
            ("u.corp", true),
            ("10.1.2.3:5000", true),
            ("11.1.2.3", false),
            ("[fd00::7]:5000", true),
            ("10.0.0.1.evil.com", false),
        ] {
            let expected = insecure.then(Terms::insecure);
            assert_eq!(docker.terms(host), expected, "{host}");
        }
    }

    #[test]
    fn mistakes_have_their_line() {
        let check = |text: &str, line: usize, part: &str| {
            let mistake = read(text).unwrap_err();
            assert_eq!(mistake.line, Some(line), "{mistake}");
            assert!(mistake.to_string().contains(part), "{mistake}");
        };
        check("{\n\"registry-mirrors\": \"https://m\"}", 2, "expected");
        check("{\"registry-mirrors\": [\n\"ftp://m\"]}", 2, "http");
        check("{\"insecure-registries\": [\n\n\"a/b\"]}", 3, "HOST");
        check("{", 1, "EOF");
    }
}
