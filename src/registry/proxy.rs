//! Which requests go through a proxy: `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY`, in capitals or not.
//!
//! In: the variables, and a URL. Out: a [`Way`]. Invariant: a proxy whose URL cannot be understood is an error of the requests that
//! would go through it, never a reason to go past it; its user name and password are in no message.

use std::fmt;

use reqwest::Url;

use super::environment::Environment;
use super::error::{Cause, RegistryError};
use super::site::{Network, is_loopback};
use crate::vocab::Secret;

/// The variables that are read.
pub(super) const VARIABLES: [&str; 9] = [
    "ALL_PROXY",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "NO_PROXY",
    "REQUEST_METHOD",
    "all_proxy",
    "http_proxy",
    "https_proxy",
    "no_proxy",
];

/// How a request reaches its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Way {
    Direct,
    /// By the proxy that this variable names.
    Through(&'static str),
}

pub(super) struct Proxies {
    http: Option<Proxy>,
    https: Option<Proxy>,
    exempt: Vec<Exempt>,
}

#[derive(Clone)]
struct Proxy {
    variable: &'static str,
    /// A secret: it may hold a password.
    url: Result<Secret<String>, String>,
}

/// One entry of NO_PROXY.
#[derive(Debug, PartialEq, Eq)]
enum Exempt {
    All,
    Network(Network, Option<u16>),
    /// A host and, unless a dot was in front, what is below it too; with a port, only there.
    Name {
        name: String,
        below_only: bool,
        port: Option<u16>,
    },
}

impl Proxies {
    pub(super) fn new(environment: &Environment) -> Proxies {
        let find = |names: &[&'static str]| {
            names
                .iter()
                .find_map(|name| Some((*name, environment.get(name)?)))
        };
        // Under CGI a visitor's header `Proxy` becomes HTTP_PROXY.
        let is_cgi = environment.get("REQUEST_METHOD").is_some();
        let http = match is_cgi {
            true => find(&["http_proxy", "ALL_PROXY", "all_proxy"]),
            false => find(&["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"]),
        };
        let https = find(&["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"]);
        let proxy = |(variable, value): (&'static str, &std::ffi::OsStr)| Proxy {
            variable,
            url: read(&value.to_string_lossy()),
        };
        let exempt = find(&["NO_PROXY", "no_proxy"]).map(|(_, value)| value.to_string_lossy());
        Proxies {
            http: http.map(proxy),
            https: https.map(proxy),
            exempt: exempt
                .unwrap_or_default()
                .split(|character: char| character == ',' || character.is_whitespace())
                .filter_map(Exempt::read)
                .collect(),
        }
    }

    /// Returns how a request to `url` goes. This machine is always reached directly.
    pub(super) fn way(&self, url: &Url) -> Way {
        let Some(host) = url.host_str() else {
            return Way::Direct;
        };
        let port = url.port_or_known_default();
        if is_loopback(host) || self.exempt.iter().any(|exempt| exempt.holds(host, port)) {
            return Way::Direct;
        }
        match self.of_scheme(url.scheme()) {
            Some(proxy) => Way::Through(proxy.variable),
            None => Way::Direct,
        }
    }

    /// Returns what the HTTP client needs to go this way.
    pub(super) fn client(&self, way: Way) -> Result<Option<reqwest::Proxy>, RegistryError> {
        let Way::Through(variable) = way else {
            return Ok(None);
        };
        let proxy = [&self.http, &self.https]
            .into_iter()
            .flatten()
            .find(|proxy| proxy.variable == variable)
            .expect("ways are made from these proxies");
        let refuse = |why: &str| RegistryError::Option {
            what: format!("the value of {variable} is no URL of a proxy: {why}"),
        };
        let url = proxy.url.as_ref().map_err(|why| refuse(why))?;
        reqwest::Proxy::all(url.reveal().as_str())
            .map(Some)
            .map_err(|error| refuse(&Cause::of(&error.without_url()).to_string()))
    }

    fn of_scheme(&self, scheme: &str) -> Option<&Proxy> {
        match scheme {
            "https" => self.https.as_ref(),
            _ => self.http.as_ref(),
        }
    }
}

impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Proxies")
    }
}

/// Reads a proxy's URL; without a scheme it is HTTP's.
fn read(value: &str) -> Result<Secret<String>, String> {
    let value = value.trim();
    let text = match value.contains("://") {
        true => value.to_owned(),
        false => format!("http://{value}"),
    };
    let url = Url::parse(&text).map_err(|error| error.to_string().to_lowercase())?;
    let known = ["http", "https", "socks4", "socks4a", "socks5", "socks5h"];
    if !known.contains(&url.scheme()) {
        return Err("its scheme is not http, https or one of socks".to_owned());
    }
    if !url.has_host() {
        return Err("it names no host".to_owned());
    }
    Ok(Secret::new(url.into()))
}

impl Exempt {
    fn read(text: &str) -> Option<Exempt> {
        let text = text.trim().to_ascii_lowercase();
        if text == "*" {
            return Some(Exempt::All);
        }
        if let Some(network) = Network::parse(&text) {
            return Some(Exempt::Network(network, None));
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) => (host, Some(port.parse::<u16>().ok()?)),
            None => (text.as_str(), None),
        };
        if let Some(network) = Network::parse(host) {
            return Some(Exempt::Network(network, port));
        }
        let host = host.strip_prefix('*').unwrap_or(host);
        let name = host.trim_matches('.');
        (!name.is_empty()).then(|| Exempt::Name {
            name: name.to_owned(),
            below_only: host.starts_with('.'),
            port,
        })
    }

    fn holds(&self, host: &str, port: Option<u16>) -> bool {
        let is_port = |wanted: &Option<u16>| wanted.is_none() || *wanted == port;
        match self {
            Exempt::All => true,
            Exempt::Network(network, wanted) => network.holds(host) && is_port(wanted),
            Exempt::Name {
                name,
                below_only,
                port: wanted,
            } => {
                let host = host.trim_end_matches('.').to_ascii_lowercase();
                let is_below = host
                    .strip_suffix(name.as_str())
                    .is_some_and(|rest| rest.ends_with('.'));
                (is_below || (!below_only && host == *name)) && is_port(wanted)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::path::Path;

    use super::*;

    fn proxies(variables: &[(&'static str, &str)]) -> Proxies {
        let variables: Vec<(&'static str, &OsStr)> = variables
            .iter()
            .map(|(name, value)| (*name, OsStr::new(*value)))
            .collect();
        Proxies::new(&Environment::of(Path::new("/nonexistent"), &variables))
    }

    #[test]
    fn each_scheme_has_its_variable() {
        let check = |variables: &[(&'static str, &str)], http: Way, https: Way| {
            let proxies = proxies(variables);
            let way = |url: &str| proxies.way(&Url::parse(url).unwrap());
            assert_eq!(way("http://a.io/"), http, "{variables:?}");
            assert_eq!(way("https://a.io/"), https, "{variables:?}");
        };
        let through = Way::Through;
        check(&[], Way::Direct, Way::Direct);
        check(&[("http_proxy", "p:1")], through("http_proxy"), Way::Direct);
        check(
            &[("HTTP_PROXY", "p:1"), ("http_proxy", "q:1")],
            through("HTTP_PROXY"),
            Way::Direct,
        );
        // An empty one is none.
        check(
            &[("HTTPS_PROXY", ""), ("https_proxy", "q:1")],
            Way::Direct,
            through("https_proxy"),
        );
        check(
            &[("ALL_PROXY", "socks5h://p:1"), ("HTTPS_PROXY", "q:1")],
            through("ALL_PROXY"),
            through("HTTPS_PROXY"),
        );
        check(
            &[("REQUEST_METHOD", "GET"), ("HTTP_PROXY", "evil:1")],
            Way::Direct,
            Way::Direct,
        );
    }

    #[test]
    fn what_is_exempt_goes_directly() {
        let check = |no: &str, url: &str, direct: bool| {
            let proxies = proxies(&[("ALL_PROXY", "p:1"), ("NO_PROXY", no)]);
            let way = proxies.way(&Url::parse(url).unwrap());
            assert_eq!(way == Way::Direct, direct, "{no} {url}");
        };
        check("", "https://reg.corp/", false);
        check("", "https://localhost:5000/", true);
        check("", "http://[::1]:5000/", true);
        check("", "http://127.9.9.9/", true);
        check("*", "https://reg.corp/", true);
        check("reg.corp", "https://reg.corp:5000/", true);
        check("reg.corp", "https://a.reg.corp/", true);
        check("REG.corp.", "https://reg.CORP/", true);
        check("reg.corp", "https://xreg.corp/", false);
        check("reg.corp", "https://reg.corp.evil/", false);
        check(".reg.corp", "https://a.reg.corp/", true);
        check(".reg.corp", "https://reg.corp/", false);
        check("*.reg.corp", "https://a.reg.corp/", true);
        check("a.io, reg.corp b.io", "https://b.io/", true);
        check("reg.corp:5000", "https://reg.corp:5000/", true);
        check("reg.corp:5000", "https://reg.corp/", false);
        check("reg.corp:443", "https://reg.corp/", true);
        check("10.0.0.0/8", "https://10.1.2.3:5000/", true);
        check("10.0.0.0/8", "https://11.1.2.3/", false);
        check("10.0.0.0/8", "https://10.0.0.1.evil.com/", false);
        check("10.1.2.3:5000", "http://10.1.2.3:5000/", true);
        check("10.1.2.3:5000", "http://10.1.2.3:5001/", false);
        check("fd00::/8", "http://[fd00::1]:5000/", true);
        check("fd00::1", "http://[fd00::1]:5000/", true);
        check("[fd00::1]", "http://[fd00::1]/", true);
        check("[fd00::1]:5000", "http://[fd00::1]:5000/", true);
        check("[fd00::1]:5000", "http://[fd00::1]:5001/", false);
        check("fd00::1", "http://[fd00::2]/", false);
    }

    #[test]
    fn a_proxy_that_is_not_understood_is_told_without_its_password() {
        for value in [
            "ftp://me:hunter2@p:1",
            "http://me:hunter2@",
            "http://me:hunter2@p:port",
            "http://me:hunter2@p p",
        ] {
            let proxies = proxies(&[("HTTPS_PROXY", value)]);
            let way = proxies.way(&Url::parse("https://a.io").unwrap());
            let error = proxies.client(way).unwrap_err().to_string();
            assert!(error.contains("HTTPS_PROXY"), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
        for value in ["p:1", "https://me:x@p", "socks5h://p:1080", "[::1]:3128"] {
            let proxies = proxies(&[("HTTPS_PROXY", value)]);
            let way = proxies.way(&Url::parse("https://a.io").unwrap());
            assert!(proxies.client(way).unwrap().is_some(), "{value}");
        }
    }
}
