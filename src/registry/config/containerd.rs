//! containerd's `hosts.toml`: for one registry, the servers in order with what each may do.
//!
//! In: a file's text and the directory's registry. Out: [`Place`]s. `dial_timeout` is not used: the room has its own limits.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use reqwest::header::{HeaderName, HeaderValue};
use serde::Deserialize;
use toml::{Spanned, Value};

use super::super::site::{DOCKER_HUB, Scheme, Site, Terms, canonical_registry, split_url};
use super::mistake::{Mistake, Source};
use super::place::{Bar, Place, Uses, Wanted};
use crate::vocab::{ImageRef, Secret};

/// What one file says.
#[derive(Clone, Debug)]
pub(in crate::registry) struct Hosts {
    path: PathBuf,
    hosts: Vec<(Site, Uses)>,
    /// The last one to ask; `None`: the registry itself.
    server: Option<Site>,
    /// What is said of the last one.
    server_terms: Terms,
    server_uses: Uses,
}

impl Hosts {
    pub(in crate::registry) fn read(source: Source<'_>) -> Result<Hosts, Mistake> {
        let file: File = source.toml()?;
        let directory = source.path.parent().unwrap_or(Path::new("/"));
        let mut tables: Vec<_> = file.host.iter().collect();
        // The order is the file's.
        tables.sort_by_key(|(_, table)| table.span().start);
        let mut hosts = Vec::new();
        for (url, table) in tables {
            let Table {
                capabilities,
                ca,
                client,
                skip_verify,
                header,
                override_path,
            } = table.get_ref();
            let terms = terms(source, directory, ca, client, *skip_verify, header)?;
            let site = site(url, *override_path, terms)
                .map_err(|why| source.at(table.span(), format!("`[host]`: {why}")))?;
            hosts.push((site, uses(source, capabilities)?));
        }
        let server_terms = terms(
            source,
            directory,
            &file.ca,
            &file.client,
            file.skip_verify,
            &file.header,
        )?;
        let server = match &file.server {
            Some(server) if !server.get_ref().is_empty() => {
                let site = site(server.get_ref(), file.override_path, server_terms.clone());
                Some(site.map_err(|why| source.at(server.span(), format!("`server`: {why}")))?)
            }
            _ => None,
        };
        Ok(Hosts {
            path: source.path.to_owned(),
            hosts,
            server,
            server_terms,
            server_uses: uses(source, &file.capabilities)?,
        })
    }

    /// Returns where a repository is, in order; the last place is there even if nothing may be asked of it.
    pub(in crate::registry) fn places(&self, image: &ImageRef, wanted: Wanted) -> Vec<Place> {
        let registry = canonical_registry(&image.registry);
        let place = |site: &Site, uses, is_mirror| Place {
            namespace: Some(&registry)
                .filter(|registry| site.registry != **registry && wanted != Wanted::Push)
                .cloned(),
            site: site.clone(),
            is_mirror,
            uses,
            ..Place::plain(image)
        };
        let origin = match &self.server {
            Some(site) => site.clone(),
            None => Site::of_registry(&registry).on(self.server_terms.clone()),
        };
        let mut places: Vec<Place> = self
            .hosts
            .iter()
            .map(|(site, uses)| place(site, *uses, true))
            .chain([place(&origin, self.server_uses, false)])
            .filter(|place| place.serves(wanted))
            .collect();
        match places.last_mut() {
            // One that is asked last is asked as patiently as a registry.
            Some(last) => last.is_mirror = false,
            None => places.push(place(&origin, Uses::ALL, false).barred(Bar::Blocked {
                name: format!("{registry}/{}", image.repository),
                by: self.path.clone(),
            })),
        }
        if wanted == Wanted::Push {
            // Writing is done once; the others would not hear of it.
            places.truncate(1);
            places[0].is_mirror = false;
        }
        places
    }

    /// Returns the terms of the registry whose directory this is, if it is asked itself.
    pub(in crate::registry) fn terms(&self, host: &str) -> Option<Terms> {
        let is_asked = self
            .server
            .as_ref()
            .is_none_or(|server| server.registry == canonical_registry(host));
        is_asked.then(|| self.server_terms.clone())
    }
}

/// Reads a URL as containerd does: the API is below `/v2` of the path, unless the path ends so or is said to be all of it.
fn site(text: &str, is_whole_path: bool, terms: Terms) -> Result<Site, String> {
    let (scheme, authority, path) = split_url(text)?;
    if authority.is_empty() {
        return Err("it names no host".to_owned());
    }
    let path = path.trim_end_matches('/').to_owned();
    let base = match is_whole_path || path.ends_with("/v2") {
        true => path,
        false => format!("{path}/v2"),
    };
    let mut terms = terms;
    let mut scheme = Some(scheme.unwrap_or(Scheme::Https));
    let speaks_of_tls =
        terms.unchecked || !terms.authorities.is_empty() || !terms.identities.is_empty();
    if scheme == Some(Scheme::Http) && speaks_of_tls && !authority.ends_with(":80") {
        // `http` with settings of TLS: HTTPS first, then plain HTTP.
        scheme = None;
        terms.plain = true;
    }
    let registry = canonical_registry(&authority);
    let base = match registry == DOCKER_HUB && base.is_empty() {
        true => "/v2".to_owned(),
        false => base,
    };
    Ok(Site {
        registry,
        authority,
        base,
        scheme,
        terms,
    })
}

fn uses(source: Source<'_>, capabilities: &[Spanned<String>]) -> Result<Uses, Mistake> {
    if capabilities.is_empty() {
        return Ok(Uses::ALL);
    }
    let (mut pull, mut resolve, mut pushes) = (false, false, false);
    for capability in capabilities {
        match capability.get_ref().to_ascii_lowercase().as_str() {
            "pull" => pull = true,
            "resolve" => resolve = true,
            "push" => pushes = true,
            _ => {
                return Err(source.at(
                    capability.span(),
                    "a capability is `pull`, `resolve` or `push`",
                ));
            }
        }
    }
    Ok(Uses {
        tags: pull && resolve,
        digests: pull,
        pushes,
    })
}

fn terms(
    source: Source<'_>,
    directory: &Path,
    ca: &Option<Spanned<Value>>,
    client: &Option<Spanned<Value>>,
    skip_verify: Option<bool>,
    header: &BTreeMap<String, Spanned<Value>>,
) -> Result<Terms, Mistake> {
    let mut terms = Terms {
        unchecked: skip_verify.unwrap_or(false),
        ..Terms::default()
    };
    if let Some(ca) = ca {
        terms.authorities = strings(ca.get_ref())
            .ok_or_else(|| source.at(ca.span(), "`ca` is a file or a list of files"))?
            .into_iter()
            .map(|file| directory.join(file))
            .collect();
    }
    if let Some(client) = client {
        let pairs = pairs(client.get_ref()).ok_or_else(|| {
            source.at(
                client.span(),
                "`client` is a file, a list of files, or a list of pairs of files",
            )
        })?;
        terms.identities = pairs
            .into_iter()
            .map(|(chain, key)| (directory.join(chain), directory.join(key)))
            .collect();
    }
    for (name, value) in header {
        let refuse = |what: &str| source.at(value.span(), format!("the header `{name}` {what}"));
        let values = strings(value.get_ref())
            .ok_or_else(|| refuse("has a value that is neither a text nor a list of texts"))?;
        if HeaderName::from_bytes(name.as_bytes()).is_err() {
            return Err(refuse("has no name that HTTP allows"));
        }
        for text in values {
            if HeaderValue::from_str(text).is_err() {
                return Err(refuse("has a value that HTTP does not allow"));
            }
            terms
                .headers
                .push((name.to_ascii_lowercase(), Secret::new(text.to_owned())));
        }
    }
    Ok(terms)
}

/// Reads a text or a list of texts.
fn strings(value: &Value) -> Option<Vec<&str>> {
    match value {
        Value::String(text) => Some(vec![text]),
        Value::Array(texts) => texts.iter().map(Value::as_str).collect(),
        _ => None,
    }
}

/// Reads certificates with their keys; where one file is named it holds both.
fn pairs(value: &Value) -> Option<Vec<(&str, &str)>> {
    match value {
        Value::Array(values) => values.iter().map(pair).collect(),
        value => Some(vec![pair(value)?]),
    }
}

fn pair(value: &Value) -> Option<(&str, &str)> {
    match value {
        Value::String(both) => Some((both, both)),
        Value::Array(files) => match files.as_slice() {
            [chain, key] => Some((chain.as_str()?, key.as_str()?)),
            _ => None,
        },
        _ => None,
    }
}

#[derive(Deserialize)]
struct File {
    server: Option<Spanned<String>>,
    #[serde(default)]
    host: BTreeMap<String, Spanned<Table>>,
    #[serde(default)]
    capabilities: Vec<Spanned<String>>,
    ca: Option<Spanned<Value>>,
    client: Option<Spanned<Value>>,
    skip_verify: Option<bool>,
    #[serde(default)]
    header: BTreeMap<String, Spanned<Value>>,
    #[serde(default)]
    override_path: bool,
}

#[derive(Deserialize)]
struct Table {
    #[serde(default)]
    capabilities: Vec<Spanned<String>>,
    ca: Option<Spanned<Value>>,
    client: Option<Spanned<Value>>,
    skip_verify: Option<bool>,
    #[serde(default)]
    header: BTreeMap<String, Spanned<Value>>,
    #[serde(default)]
    override_path: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Hosts, Mistake> {
        Hosts::read(Source {
            path: Path::new("/etc/containerd/certs.d/reg.io/hosts.toml"),
            text,
        })
    }

    #[track_caller]
    fn check(text: &str, name: &str, wanted: Wanted, expected: &[&str]) {
        let places = read(text).unwrap().places(&name.parse().unwrap(), wanted);
        let shown: Vec<String> = places
            .iter()
            .map(|place| {
                format!(
                    "{}{}://{}{}/{}{}{}",
                    if place.is_mirror { "mirror " } else { "" },
                    place.site.scheme.map_or("any", Scheme::as_str),
                    place.site.authority,
                    place.site.base,
                    place.repository,
                    place
                        .namespace
                        .as_ref()
                        .map_or(String::new(), |namespace| format!("?ns={namespace}")),
                    if place.bar.is_some() { " blocked" } else { "" },
                )
            })
            .collect();
        assert_eq!(shown, expected, "{text}");
    }

    #[test]
    fn hosts_are_asked_in_the_file_s_order_and_the_server_last() {
        let text = r#"
            server = "https://reg.io"
            [host."https://z.corp"]
              capabilities = ["pull", "resolve"]
              [host."https://z.corp".header]
                x-from = "here"
            [host."http://a.corp:5000"]
              capabilities = ["pull"]
            [host."m.corp/path"]
              capabilities = ["pull", "resolve", "push"]
        "#;
        check(
            text,
            "reg.io/x/y:1",
            Wanted::Tag,
            &[
                "mirror https://z.corp/v2/x/y?ns=reg.io",
                "mirror https://m.corp/path/v2/x/y?ns=reg.io",
                "https://reg.io/v2/x/y",
            ],
        );
        check(
            text,
            "reg.io/x/y",
            Wanted::Blob { of_tag: false },
            &[
                "mirror https://z.corp/v2/x/y?ns=reg.io",
                "mirror http://a.corp:5000/v2/x/y?ns=reg.io",
                "mirror https://m.corp/path/v2/x/y?ns=reg.io",
                "https://reg.io/v2/x/y",
            ],
        );
        check(
            text,
            "reg.io/x/y",
            Wanted::Push,
            &["https://m.corp/path/v2/x/y"],
        );
    }

    #[test]
    fn without_a_server_the_registry_is_asked_last() {
        check("", "reg.io/x", Wanted::Tag, &["any://reg.io/v2/x"]);
        check(
            "[host.'https://m.io']\n",
            "alpine",
            Wanted::Tag,
            &[
                "mirror https://m.io/v2/library/alpine?ns=docker.io",
                "any://registry-1.docker.io/v2/library/alpine",
            ],
        );
        check(
            "server = 'https://registry-1.docker.io'\n",
            "alpine",
            Wanted::Push,
            &["https://registry-1.docker.io/v2/library/alpine"],
        );
    }

    #[test]
    fn what_no_host_may_do_is_blocked() {
        let text =
            "capabilities = ['pull', 'resolve']\n[host.'https://m.io']\ncapabilities = ['pull']\n";
        check(
            text,
            "reg.io/x",
            Wanted::Push,
            &["any://reg.io/v2/x blocked"],
        );
        let text = "server = 'https://s.io'\ncapabilities = ['push']\n[host.'https://m.io']\ncapabilities = ['pull', 'resolve']\n";
        check(
            text,
            "reg.io/x",
            Wanted::Tag,
            &["https://m.io/v2/x?ns=reg.io"],
        );
    }

    #[test]
    fn paths_are_the_api_s_only_where_they_say_so() {
        let base = |text: &str, whole| site(text, whole, Terms::default()).unwrap().base;
        assert_eq!(base("https://m.io", false), "/v2");
        assert_eq!(base("https://m.io/", false), "/v2");
        assert_eq!(base("https://m.io/v2", false), "/v2");
        assert_eq!(base("https://m.io/v2/proxy", false), "/v2/proxy/v2");
        assert_eq!(base("https://m.io/v2/proxy/", true), "/v2/proxy");
        assert_eq!(base("https://m.io", true), "");
    }

    #[test]
    fn terms_are_of_the_host_under_which_they_stand() {
        let text = r#"
            ca = "own.pem"
            [host."https://m.io"]
              ca = ["/abs/a.pem", "b.pem"]
              client = [["c.pem", "c.key"], "both.pem"]
              skip_verify = true
              [host."https://m.io".header]
                Authorization = "Bearer hunter2"
                x-many = ["1", "2"]
            [host."http://p.io:5000"]
              skip_verify = true
            [host."http://q.io:80"]
              skip_verify = true
        "#;
        let hosts = read(text).unwrap();
        let directory = Path::new("/etc/containerd/certs.d/reg.io");
        let terms = &hosts.hosts[0].0.terms;
        assert_eq!(
            terms.authorities,
            [PathBuf::from("/abs/a.pem"), directory.join("b.pem")]
        );
        assert_eq!(
            terms.identities,
            [
                (directory.join("c.pem"), directory.join("c.key")),
                (directory.join("both.pem"), directory.join("both.pem")),
            ]
        );
        assert!(terms.unchecked && !terms.plain);
        assert_eq!(terms.headers[0].0, "authorization");
        assert_eq!(terms.headers.len(), 3);
        assert!(!format!("{hosts:?}").contains("hunter2"));
        let other = &hosts.hosts[1].0;
        assert!(other.terms.plain && other.scheme.is_none());
        assert_eq!(hosts.hosts[2].0.scheme, Some(Scheme::Http));
        let own = hosts.terms("reg.io").unwrap();
        assert_eq!(own.authorities, [directory.join("own.pem")]);
        let elsewhere = read("server = 'https://s.io'\nskip_verify = true\n").unwrap();
        assert_eq!(elsewhere.terms("reg.io"), None);
    }

    #[test]
    fn mistakes_have_their_line_and_no_secret() {
        let check = |text: &str, line: usize, part: &str| {
            let mistake = read(text).unwrap_err();
            assert_eq!(mistake.line, Some(line), "{mistake}");
            let said = mistake.to_string();
            assert!(said.contains(part) && !said.contains("hunter2"), "{said}");
        };
        check("\ncapabilities = ['pul']\n", 2, "capability");
        check("server = 'ftp://x'\n", 1, "http");
        check("server = 'https://me:hunter2@x'\n", 1, "login");
        check("[host.'https://']\n", 1, "");
        check("ca = 1\n", 1, "`ca`");
        check("client = [['a']]\n", 1, "`client`");
        check("[header]\nx = 7\n", 2, "neither");
        check("[header]\n'a b' = 'hunter2'\n", 2, "name");
        check("[header]\na = \"hunter2\\n\"\n", 2, "value");
        check("header = 'hunter2'\n", 1, "");
    }
}
