//! Whom to ask: a server with what is learned about it, and a repository on it.
//!
//! In: [`Site`]s and places, from the [`Rules`]. Out: URLs, and what may be sent where. Nothing here does I/O.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};

use reqwest::Url;

use super::config::Bar;
use super::error::RegistryError;
use super::token::Auth;

pub(super) use super::rules::Rules;
pub(super) use super::site::{DOCKER_HUB, Scheme, Site, canonical_registry, is_loopback};

/// One server, and what this process has learned about it.
pub(super) struct Host {
    site: Site,
    rules: Rules,
    /// Plain HTTP may be tried where HTTPS fails.
    may_be_plain: bool,
    scheme: AtomicU8,
    /// Why asking is lost time.
    down: OnceLock<String>,
    /// Undertakings that ended with its own failure.
    failures: AtomicU8,
    wants_whole_uploads: AtomicBool,
    pub(super) auth: Auth,
}

/// A mirror whose own errors (status 5xx) ended so many undertakings is not asked again.
const MOST_FAILURES: u8 = 3;

const UNKNOWN: u8 = 0;
const HTTPS: u8 = 1;
const HTTP: u8 = 2;

impl Host {
    /// Makes a host of which nothing is known yet.
    pub(super) fn new(site: Site, rules: &Rules) -> Host {
        let may_be_plain = is_loopback(&site.authority)
            || site.terms.plain
            || [&site.authority, &site.registry]
                .iter()
                .any(|name| rules.is_insecure(name));
        Host {
            may_be_plain,
            scheme: AtomicU8::new(match site.scheme {
                None if may_be_plain => UNKNOWN,
                None | Some(Scheme::Https) => HTTPS,
                Some(Scheme::Http) => HTTP,
            }),
            down: OnceLock::new(),
            failures: AtomicU8::new(0),
            wants_whole_uploads: AtomicBool::new(false),
            auth: Auth::default(),
            rules: rules.at(&site),
            site,
        }
    }

    /// Returns the rules for requests that are meant for this host.
    pub(super) fn rules(&self) -> &Rules {
        &self.rules
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

    /// Returns why the host is not worth asking.
    pub(super) fn down(&self) -> Option<&str> {
        self.down.get().map(String::as_str)
    }

    /// Remembers that asking this host is lost time, and why. The first reason stays.
    pub(super) fn set_down(&self, why: &str) {
        self.down.get_or_init(|| why.to_owned());
    }

    /// Counts an undertaking that ended with the host's own failure, and tells whether there were enough.
    pub(super) fn has_failed_enough(&self) -> bool {
        self.failures.fetch_add(1, Ordering::Relaxed) + 1 >= MOST_FAILURES
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
    pub(super) host: Arc<Host>,
    /// Its name there: a mirror may put a prefix before it.
    pub(super) repository: String,
    pub(super) is_mirror: bool,
    /// The registry whose images are wanted, for mirrors of many.
    pub(super) namespace: Option<String>,
    /// Why it may not be asked.
    pub(super) bar: Option<Bar>,
}

impl Endpoint {
    /// Returns the path of something in the repository, below the API's base.
    pub(super) fn tail(&self, rest: &str) -> String {
        let tail = format!("/{}/{rest}", self.repository);
        match &self.namespace {
            None => tail,
            // A host with a port has a colon, which a query may hold.
            Some(namespace) if tail.contains('?') => format!("{tail}&ns={namespace}"),
            Some(namespace) => format!("{tail}?ns={namespace}"),
        }
    }

    /// Returns `registry/repository`, as messages say it.
    pub(super) fn name(&self) -> String {
        format!("{}/{}", self.host.registry(), self.repository)
    }

    /// Fails if the place is forbidden, or known to be out of order.
    pub(super) fn check(&self) -> Result<(), RegistryError> {
        match &self.bar {
            Some(Bar::Blocked { name, by }) => Err(RegistryError::Blocked {
                name: name.clone(),
                by: by.clone(),
            }),
            Some(Bar::Mistake(mistake)) => Err(mistake.clone().into()),
            None if self.is_mirror => match self.host.down() {
                Some(why) => Err(RegistryError::LeftOut {
                    host: self.host.registry().to_owned(),
                    why: why.to_owned(),
                }),
                None => Ok(()),
            },
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vocab::RegistryOptions;

    #[test]
    fn locations_keep_https_and_nothing_else() {
        let rules = Rules::new(&RegistryOptions {
            insecure: vec!["plain.corp".to_owned()],
            ..RegistryOptions::default()
        })
        .unwrap();
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
