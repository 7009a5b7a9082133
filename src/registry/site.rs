//! Servers by name: what must be known to reach one, and the words of which their names are made.
//!
//! In: what was typed, or written in a file of settings. Out: [`Site`]s. Nothing here does I/O.

use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use reqwest::Url;

use crate::vocab::Secret;

/// The name under which Docker Hub's images and credentials go.
pub(super) const DOCKER_HUB: &str = "docker.io";
/// The host that serves Docker Hub's API.
const DOCKER_HUB_API: &str = "registry-1.docker.io";

/// A server of the distribution API; equal sites share what is learned about them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Site {
    /// The name in messages and credentials.
    pub(super) registry: String,
    /// Host and port, as URLs have them.
    pub(super) authority: String,
    /// Where the API lies: `/v2`, mostly.
    pub(super) base: String,
    /// `None`: HTTPS, and what the terms allow where that fails.
    pub(super) scheme: Option<Scheme>,
    pub(super) terms: Terms,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Scheme {
    Https,
    Http,
}

/// On what terms a server is met. The default: a checked certificate, and nobody but the usual authorities.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Terms {
    /// Plain HTTP may be tried where HTTPS fails.
    pub(super) plain: bool,
    /// Any certificate will do.
    pub(super) unchecked: bool,
    /// Files of authorities that are believed besides the usual ones.
    pub(super) authorities: Vec<PathBuf>,
    /// Certificates by which we show who we are: files of the chain and of the key.
    pub(super) identities: Vec<(PathBuf, PathBuf)>,
    /// Sent with every request to the server itself. Values are secrets: many are tokens.
    pub(super) headers: Vec<(String, Secret<String>)>,
}

impl Hash for Terms {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.plain, self.unchecked).hash(state);
        (&self.authorities, &self.identities).hash(state);
        // Values stay hidden; sites that differ in nothing else are rare.
        for (name, _) in &self.headers {
            name.hash(state);
        }
    }
}

impl Terms {
    /// Returns those of a host of which it was said that it is insecure: anything goes.
    pub(super) fn insecure() -> Terms {
        Terms {
            plain: true,
            unchecked: true,
            ..Terms::default()
        }
    }
}

impl Site {
    /// Returns the registry of a name.
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
            terms: Terms::default(),
        }
    }

    /// Reads `[http[s]://]HOST[:PORT][/PATH]` and returns the server with what goes before the names of repositories. A path
    /// that ends in `/v2` is where the API lies; any other one goes before the names, with or without `/v2` in front of it.
    pub(super) fn of_mirror(text: &str) -> Result<(Site, String), String> {
        let (scheme, authority, path) = split_url(text)
            .map_err(|why| format!("`{}` is no URL of a mirror: {why}", without_password(text)))?;
        let path = path.trim_matches('/');
        let (base, prefix) = match path.strip_suffix("/v2") {
            _ if path == "v2" => ("/v2".to_owned(), String::new()),
            Some(above) => (format!("/{above}/v2"), String::new()),
            None => {
                let prefix = path.strip_prefix("v2/").unwrap_or(path);
                ("/v2".to_owned(), prefix.to_owned())
            }
        };
        let site = Site {
            registry: canonical_registry(&authority),
            authority,
            base,
            scheme,
            terms: Terms::default(),
        };
        Ok((site, prefix))
    }

    /// Returns the same on other terms.
    pub(super) fn on(self, terms: Terms) -> Site {
        Site { terms, ..self }
    }
}

impl Scheme {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Scheme::Https => "https",
            Scheme::Http => "http",
        }
    }
}

/// Splits `[http[s]://]HOST[:PORT][/PATH]`, or says what is wrong with it.
pub(super) fn split_url(text: &str) -> Result<(Option<Scheme>, String, String), String> {
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (Some(Scheme::Https), rest),
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (Some(Scheme::Http), rest),
        Some(_) => return Err("only http and https are known".to_owned()),
        None => (None, text),
    };
    let url =
        Url::parse(&format!("https://{rest}")).map_err(|error| error.to_string().to_lowercase())?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("credentials belong into a login: `builder login HOST`".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("it has a query".to_owned());
    }
    let (authority, _) = rest.split_once('/').unwrap_or((rest, ""));
    let path = match url.path() {
        "/" if !rest.contains('/') => "",
        path => path,
    };
    Ok((scheme, authority.to_ascii_lowercase(), path.to_owned()))
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

/// Returns an authority without a port that its scheme implies, as parsed URLs have it.
pub(super) fn without_default_port(authority: &str) -> &str {
    match split_port(authority) {
        (host, Some("443" | "80")) => host,
        _ => authority,
    }
}

/// Addresses that have their first bits in common: `10.0.0.0/8`, or one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Network {
    address: IpAddr,
    bits: u32,
}

impl Network {
    pub(super) fn parse(text: &str) -> Option<Network> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse::<u32>().ok()?)),
            None => (text, None),
        };
        let address: IpAddr = address.trim_matches(['[', ']']).parse().ok()?;
        let all = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(all);
        (bits <= all).then_some(Network { address, bits })
    }

    /// Tells whether an address, in brackets or not, is one of them. Names are not looked up.
    pub(super) fn holds(&self, host: &str) -> bool {
        let Ok(host) = host.trim_matches(['[', ']']).parse::<IpAddr>() else {
            return false;
        };
        let wide = |address: IpAddr| match address {
            IpAddr::V4(address) => (u128::from(address.to_bits()) << 96, true),
            IpAddr::V6(address) => (address.to_bits(), false),
        };
        let (mine, four) = wide(self.address);
        let (theirs, also) = wide(host.to_canonical());
        let shift = 128 - self.bits;
        four == also && (shift == 128 || mine >> shift == theirs >> shift)
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

    #[test]
    fn odd_mirrors_are_refused_without_showing_a_password() {
        for url in [
            "ftp://x",
            "https://",
            "https://user:hunter2@x",
            "https://x?y=z",
            "http://a b",
        ] {
            let error = Site::of_mirror(url).unwrap_err();
            assert!(!error.contains("hunter2"), "{error}");
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
    fn networks_hold_addresses_and_no_names() {
        for (network, host, holds) in [
            ("10.0.0.0/8", "10.1.2.3", true),
            ("10.0.0.0/8", "11.1.2.3", false),
            ("10.0.0.0/8", "10.0.0.1.evil.com", false),
            ("0.0.0.0/0", "1.2.3.4", true),
            ("0.0.0.0/0", "[::5]", false),
            ("192.168.1.7", "192.168.1.7", true),
            ("192.168.1.7", "192.168.1.8", false),
            ("fd00::/8", "[fd12::1]", true),
            ("fd00::/8", "[fe12::1]", false),
            ("::/0", "fe80::1", true),
            ("::1", "[::1]", true),
            ("10.0.0.0/8", "[::ffff:10.1.1.1]", true),
        ] {
            let parsed = Network::parse(network).unwrap();
            assert_eq!(parsed.holds(host), holds, "{network} {host}");
        }
        for text in [
            "",
            "10.0.0.0/33",
            "::/129",
            "reg.corp",
            "10.0.0.0/x",
            "10.0/8",
        ] {
            assert_eq!(Network::parse(text), None, "{text}");
        }
    }
}
