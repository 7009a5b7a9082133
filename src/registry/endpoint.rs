//! Where to ask for a repository: the registry's host, its mirrors, and what each of them may be trusted with.
//!
//! In: [`RegistryOptions`] and image names. Out: [`Endpoint`]s in the order in which they are tried. Nothing here does I/O.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use reqwest::Url;

use super::error::RegistryError;
use super::token::Auth;
use crate::vocab::RegistryOptions;

/// The name under which Docker Hub's images and credentials go.
pub(super) const DOCKER_HUB: &str = "docker.io";
/// The host that serves Docker Hub's API.
const DOCKER_HUB_API: &str = "registry-1.docker.io";

/// The options, understood.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    mirrors: Vec<(String, Mirror)>,
    insecure: Vec<String>,
}

/// The value of one `--registry-mirror`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mirror {
    authority: String,
    scheme: Option<Scheme>,
    base: String,
    prefix: String,
}

impl Rules {
    /// Reads the options.
    pub(super) fn new(options: &RegistryOptions) -> Result<Rules, RegistryError> {
        let mut mirrors = Vec::new();
        for (registry, url) in &options.mirrors {
            mirrors.push((canonical_registry(registry), Mirror::parse(url)?));
        }
        Ok(Rules {
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
        })
    }

    /// Tells whether the user said that a host, or a host with its port, may be reached without a checked TLS.
    pub(super) fn is_insecure(&self, authority: &str) -> bool {
        let authority = authority.to_ascii_lowercase();
        let (host, _) = split_port(&authority);
        self.insecure
            .iter()
            .any(|entry| *entry == authority || *entry == host)
    }

    /// Returns the hosts that mirror `registry`, each with the prefix of its repositories, in order.
    pub(super) fn mirrors(&self, registry: &str) -> Vec<(Site, String)> {
        self.mirrors
            .iter()
            .filter(|(mirrored, _)| mirrored == registry)
            .map(|(_, mirror)| {
                let site = Site {
                    registry: mirror.authority.clone(),
                    authority: mirror.authority.clone(),
                    base: mirror.base.clone(),
                    scheme: mirror.scheme,
                };
                (site, mirror.prefix.clone())
            })
            .collect()
    }
}

impl Mirror {
    /// Reads `[http[s]://]HOST[:PORT][/PATH]`. A path that ends in `/v2` is where the API lies; any other one goes before the
    /// names of repositories, with or without `/v2` in front of it.
    fn parse(text: &str) -> Result<Mirror, RegistryError> {
        let refuse = |why: &str| RegistryError::Option {
            what: format!("`{}` is no URL of a mirror: {why}", without_password(text)),
        };
        let (scheme, rest) = match text.split_once("://") {
            Some(("https", rest)) => (Some(Scheme::Https), rest),
            Some(("http", rest)) => (Some(Scheme::Http), rest),
            Some(_) => return Err(refuse("only http and https are known")),
            None => (None, text),
        };
        let url = Url::parse(&format!("https://{rest}"))
            .map_err(|error| refuse(&error.to_string().to_lowercase()))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(refuse(
                "credentials belong into a login: `builder login HOST`",
            ));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(refuse("it has a query"));
        }
        let (authority, _) = rest.split_once('/').unwrap_or((rest, ""));
        let path = url.path().trim_matches('/');
        let (base, prefix) = match path.strip_suffix("/v2") {
            _ if path == "v2" => ("/v2".to_owned(), String::new()),
            Some(above) => (format!("/{above}/v2"), String::new()),
            None => {
                let prefix = path.strip_prefix("v2/").unwrap_or(path);
                ("/v2".to_owned(), prefix.to_owned())
            }
        };
        Ok(Mirror {
            authority: authority.to_ascii_lowercase(),
            scheme,
            base,
            prefix,
        })
    }
}

/// What must be known to make a [`Host`]; equal sites share one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Site {
    /// The name in messages and credentials.
    pub(super) registry: String,
    authority: String,
    base: String,
    scheme: Option<Scheme>,
}

impl Site {
    /// Returns the registry itself.
    pub(super) fn of_registry(registry: &str) -> Site {
        let registry = canonical_registry(registry);
        Site {
            authority: match registry.as_str() {
                DOCKER_HUB => DOCKER_HUB_API.to_owned(),
                other => other.to_owned(),
            },
            registry,
            base: "/v2".to_owned(),
            scheme: None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Scheme {
    Https,
    Http,
}

impl Scheme {
    fn as_str(self) -> &'static str {
        match self {
            Scheme::Https => "https",
            Scheme::Http => "http",
        }
    }
}

/// One server, and what this process has learned about it.
pub(super) struct Host {
    site: Site,
    /// Plain HTTP may be tried where HTTPS fails.
    may_be_plain: bool,
    scheme: AtomicU8,
    is_down: AtomicBool,
    wants_whole_uploads: AtomicBool,
    pub(super) auth: Auth,
}

const UNKNOWN: u8 = 0;
const HTTPS: u8 = 1;
const HTTP: u8 = 2;

impl Host {
    /// Makes a host of which nothing is known yet.
    pub(super) fn new(site: Site, rules: &Rules) -> Host {
        let may_be_plain = is_loopback(&site.authority) || rules.is_insecure(&site.authority);
        Host {
            may_be_plain,
            scheme: AtomicU8::new(match site.scheme {
                None if may_be_plain => UNKNOWN,
                None | Some(Scheme::Https) => HTTPS,
                Some(Scheme::Http) => HTTP,
            }),
            is_down: AtomicBool::new(false),
            wants_whole_uploads: AtomicBool::new(false),
            auth: Auth::default(),
            site,
        }
    }

    /// Returns the name in messages and credentials.
    pub(super) fn registry(&self) -> &str {
        &self.site.registry
    }

    /// Returns where the host is: its name and perhaps a port.
    pub(super) fn authority(&self) -> &str {
        &self.site.authority
    }

    /// Returns the scheme, where it is no question any more.
    pub(super) fn scheme(&self) -> Option<Scheme> {
        match self.scheme.load(Ordering::Relaxed) {
            HTTPS => Some(Scheme::Https),
            HTTP => Some(Scheme::Http),
            _ => None,
        }
    }

    /// Remembers which scheme the host speaks.
    pub(super) fn settle(&self, scheme: Scheme) {
        let code = match scheme {
            Scheme::Https => HTTPS,
            Scheme::Http => HTTP,
        };
        self.scheme.store(code, Ordering::Relaxed);
    }

    /// Tells whether secrets may go to an `http` URL that this host names: it is reached by plain HTTP itself.
    pub(super) fn is_plain(&self) -> bool {
        self.scheme() == Some(Scheme::Http)
    }

    /// Tells whether the user has accepted plain HTTP for this host.
    pub(super) fn may_be_plain(&self) -> bool {
        self.may_be_plain || self.site.scheme == Some(Scheme::Http)
    }

    /// Returns the URL of something below the API's base; `tail` begins with `/`.
    pub(super) fn url(&self, scheme: Scheme, tail: &str) -> Result<Url, RegistryError> {
        let text = format!(
            "{}://{}{}{tail}",
            scheme.as_str(),
            self.site.authority,
            self.site.base
        );
        Url::parse(&text).map_err(|error| RegistryError::Option {
            what: format!(
                "`{}` is no host of a registry: {error}",
                self.site.authority
            ),
        })
    }

    /// Tells whether a URL leads to this very host: same scheme, name and port.
    pub(super) fn is_origin_of(&self, url: &Url) -> bool {
        let scheme = self.scheme().unwrap_or(Scheme::Https);
        self.url(scheme, "/")
            .is_ok_and(|own| own.origin() == url.origin())
    }

    /// Reads a `Location` for an upload: absolute or relative to `asked`. A registry behind a proxy that ends TLS often names
    /// itself with `http`; following that would send credentials in the clear or end in a redirect, so the scheme stays.
    pub(super) fn location(&self, asked: &Url, text: &str) -> Result<Url, RegistryError> {
        let protocol = |what: String| RegistryError::Protocol {
            host: self.registry().to_owned(),
            what,
        };
        let mut url = asked
            .join(text)
            .map_err(|error| protocol(format!("a `Location` is no URL: {error}")))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(protocol(format!(
                "a `Location` has the scheme `{}`",
                url.scheme()
            )));
        }
        if asked.scheme() == "https" && url.scheme() == "http" && !self.may_be_plain() {
            if url.host_str() != asked.host_str() {
                return Err(protocol(
                    "a `Location` leads from https to http on another host".to_owned(),
                ));
            }
            let port = url.port().or(asked.port());
            let sound = url.set_scheme("https").is_ok() && url.set_port(port).is_ok();
            debug_assert!(sound, "http and https URLs have the same parts");
        }
        Ok(url)
    }

    /// Tells whether the host failed as a host before.
    pub(super) fn is_down(&self) -> bool {
        self.is_down.load(Ordering::Relaxed)
    }

    /// Remembers that asking this host is lost time.
    pub(super) fn set_down(&self) {
        self.is_down.store(true, Ordering::Relaxed);
    }

    /// Tells whether the host refused an upload in pieces and took one in a whole.
    pub(super) fn wants_whole_uploads(&self) -> bool {
        self.wants_whole_uploads.load(Ordering::Relaxed)
    }

    /// Remembers that the host takes uploads in a whole only.
    pub(super) fn set_wants_whole_uploads(&self) {
        self.wants_whole_uploads.store(true, Ordering::Relaxed);
    }
}

/// A repository on a host.
#[derive(Clone)]
pub(super) struct Endpoint {
    pub(super) host: std::sync::Arc<Host>,
    /// Its name there: a mirror may put a prefix before it.
    pub(super) repository: String,
    pub(super) is_mirror: bool,
}

impl Endpoint {
    /// Returns the path of something in the repository, below the API's base.
    pub(super) fn tail(&self, rest: &str) -> String {
        format!("/{}/{rest}", self.repository)
    }

    /// Returns `registry/repository`, as messages say it.
    pub(super) fn name(&self) -> String {
        format!("{}/{}", self.host.registry(), self.repository)
    }
}

/// Returns the one name of a registry: Docker Hub has many, and some tools write URLs.
pub(super) fn canonical_registry(text: &str) -> String {
    let text = text.trim();
    let text = text.split_once("://").map_or(text, |(_, rest)| rest);
    let text = text.split_once('/').map_or(text, |(host, _)| host);
    let text = text.to_ascii_lowercase();
    match text.as_str() {
        "index.docker.io" | "registry-1.docker.io" | "registry.hub.docker.com" => {
            DOCKER_HUB.to_owned()
        }
        _ => text,
    }
}

/// Tells whether a host (its port may follow) is this machine by its very name.
pub(super) fn is_loopback(authority: &str) -> bool {
    let (host, _) = split_port(authority);
    let host = host.to_ascii_lowercase();
    if host == "localhost" || host.ends_with(".localhost") {
        return true;
    }
    if let Ok(address) = host.parse::<Ipv4Addr>() {
        return address.is_loopback();
    }
    host.trim_matches(['[', ']'])
        .parse::<Ipv6Addr>()
        .is_ok_and(|address| address.is_loopback())
}

/// Splits `HOST:PORT`, where HOST may be an IPv6 address in brackets.
pub(super) fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    }
}

fn without_password(url: &str) -> String {
    match url.rsplit_once('@') {
        Some((before, after)) => {
            let scheme = before.split_once("://").map_or("", |(scheme, _)| scheme);
            format!("{scheme}://***@{after}")
        }
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
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
            let (site, prefix) = rules.mirrors("docker.io").remove(0);
            let host = std::sync::Arc::new(Host::new(site, &rules));
            let repository = if prefix.is_empty() {
                "library/a".to_owned()
            } else {
                format!("{prefix}/library/a")
            };
            let endpoint = Endpoint {
                host: host.clone(),
                repository,
                is_mirror: true,
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
    fn odd_mirrors_are_refused_without_showing_a_password() {
        for url in [
            "ftp://x",
            "https://",
            "https://user:hunter2@x",
            "https://x?y=z",
            "http://a b",
        ] {
            let error = rules(&[("docker.io", url)], &[]).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
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

    #[test]
    fn loopback_is_known_by_name_or_address_only() {
        for (authority, loopback) in [
            ("localhost", true),
            ("LOCALHOST:5000", true),
            ("registry.localhost:1", true),
            ("127.0.0.1:5000", true),
            ("127.8.9.1", true),
            ("[::1]:5000", true),
            ("[::1]", true),
            ("128.0.0.1", false),
            ("localhost.evil.com", false),
            ("notlocalhost", false),
            ("127.0.0.1.evil.com", false),
            ("[::2]", false),
        ] {
            assert_eq!(is_loopback(authority), loopback, "{authority}");
        }
    }

    #[test]
    fn docker_hub_has_one_name_and_another_host() {
        for name in [
            "docker.io",
            "index.docker.io",
            "https://index.docker.io/v1/",
        ] {
            let site = Site::of_registry(name);
            assert_eq!(site.registry, "docker.io");
            assert_eq!(site.authority, "registry-1.docker.io");
        }
    }

    #[test]
    fn locations_keep_https_and_nothing_else() {
        let rules = rules(&[], &["plain.corp"]).unwrap();
        let check = |registry: &str, asked: &str, location: &str, url: Option<&str>| {
            let host = Host::new(Site::of_registry(registry), &rules);
            let asked = Url::parse(asked).unwrap();
            assert_eq!(
                host.location(&asked, location)
                    .ok()
                    .as_ref()
                    .map(Url::as_str),
                url,
                "{location}"
            );
        };
        let asked = "https://r.io/v2/a/blobs/uploads/";
        check(
            "r.io",
            asked,
            "/v2/a/x?y=1",
            Some("https://r.io/v2/a/x?y=1"),
        );
        check(
            "r.io",
            asked,
            "x",
            Some("https://r.io/v2/a/blobs/uploads/x"),
        );
        check("r.io", asked, "http://r.io/x", Some("https://r.io/x"));
        check("r.io", asked, "https://s3.io/x", Some("https://s3.io/x"));
        check("r.io", asked, "http://s3.io/x", None);
        check("r.io", asked, "file:///etc/passwd", None);
        check("r.io", asked, "https://[", None);
        let port = "https://r.io:5000/v2/a/";
        check(
            "r.io:5000",
            port,
            "http://r.io/x",
            Some("https://r.io:5000/x"),
        );
        check(
            "r.io:5000",
            port,
            "http://r.io:5000/x",
            Some("https://r.io:5000/x"),
        );
        let plain = "https://plain.corp/v2/a/";
        check("plain.corp", plain, "http://cdn/x", Some("http://cdn/x"));
    }
}
