//! One HTTP request to its answer: which connection, proxy and certificates, redirects, and limits of time.
//!
//! In: a request with its URL. Out: an answer of any status, or the reason why there is none. It tries nothing twice and knows no
//! passwords; the one thing it guards is that an `Authorization` header stays with the host that it was made for.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, LOCATION};
use reqwest::{Method, StatusCode, Url};

use super::endpoint::Rules;
use super::environment::Environment;
use super::error::{Cause, RegistryError};
use super::names::{Names, UnknownName};
use super::proxy::{Proxies, Way};
use super::retry::Tuning;
use super::rules::Home;
use super::site::{Terms, split_port};
use super::tls::{Check, Peer, Trust};

const MOST_REDIRECTS: usize = 10;

pub(super) struct Transport {
    tuning: Tuning,
    trust: Trust,
    names: Arc<Names>,
    proxies: Proxies,
    clients: Mutex<Clients>,
}

/// Connections that were made possible.
#[derive(Default)]
struct Clients {
    by_seat: HashMap<Seat, reqwest::Client>,
    by_lane: HashMap<Lane, reqwest::Client>,
}

/// Who is asked, and for whom.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Seat {
    is_secure: bool,
    authority: String,
    terms: Terms,
    home: Option<Arc<Home>>,
    cert_dir: Option<PathBuf>,
}

/// Connections that may be shared.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Lane {
    way: Way,
    check: Check,
    /// Those that these connections are for, where there are certificates of their own.
    own: Option<Seat>,
}

/// A request without its URL.
pub(super) struct Outgoing<'a> {
    pub(super) method: Method,
    pub(super) headers: &'a HeaderMap,
    pub(super) authorization: Option<&'a HeaderValue>,
    pub(super) body: Option<Bytes>,
    /// How long the answer may take to begin.
    pub(super) patience: Duration,
    /// Its headers or its body are secrets of one host: a redirect to another one is the answer.
    pub(super) stays: bool,
}

/// What came back.
pub(super) struct Answer {
    pub(super) response: reqwest::Response,
    /// A redirect led to another host, which gave this answer.
    pub(super) is_foreign: bool,
}

impl Answer {
    pub(super) fn status(&self) -> StatusCode {
        self.response.status()
    }

    /// Returns a header, if it is text.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }

    /// Returns the length that the body is said to have.
    pub(super) fn length(&self) -> Option<u64> {
        self.header("content-length")?.trim().parse().ok()
    }
}

impl Transport {
    pub(super) fn new(environment: &Environment, tuning: Tuning) -> Transport {
        Transport {
            tuning,
            trust: Trust::new(environment.clone()),
            names: Arc::new(Names::new(environment.etc())),
            proxies: Proxies::new(environment),
            clients: Mutex::default(),
        }
    }

    #[cfg(test)]
    pub(super) fn trust(&self) -> &Trust {
        &self.trust
    }

    /// Sends a request and follows redirects. `may_be_plain`: a redirect from https to http is acceptable.
    pub(super) async fn send(
        &self,
        rules: &Rules,
        outgoing: Outgoing<'_>,
        url: Url,
        may_be_plain: bool,
    ) -> Result<Answer, RegistryError> {
        let home = url.origin();
        let mut url = url;
        for _ in 0..=MOST_REDIRECTS {
            let is_foreign = url.origin() != home;
            let mut request = self
                .client(rules, &url)?
                .request(outgoing.method.clone(), url.clone())
                .headers(outgoing.headers.clone());
            if !is_foreign {
                // A file's `Authorization` is for where nothing better is known.
                let mut headers = rules.headers(&authority(&url));
                if outgoing.authorization.is_some() {
                    headers.remove(AUTHORIZATION);
                }
                request = request.headers(headers);
            }
            if let Some(authorization) = outgoing.authorization
                && !is_foreign
            {
                request = request.header(AUTHORIZATION, authorization.clone());
            }
            if let Some(body) = &outgoing.body {
                request = request.body(body.clone());
            }
            let response = tokio::time::timeout(outgoing.patience, request.send())
                .await
                .map_err(|_| RegistryError::Timeout {
                    host: authority(&url),
                    doing: "an answer was awaited",
                    after: outgoing.patience,
                })?
                .map_err(|error| failure(&url, error, self.tuning.connect))?;
            match next(&outgoing.method, &url, &response, may_be_plain)? {
                Some(next) if !outgoing.stays || next.origin() == home => url = next,
                _ => {
                    return Ok(Answer {
                        response,
                        is_foreign,
                    });
                }
            }
        }
        Err(RegistryError::Protocol {
            host: authority(&url),
            what: format!("more than {MOST_REDIRECTS} redirects"),
        })
    }

    /// Returns connections that may carry a request to `url`.
    pub(super) fn client(
        &self,
        rules: &Rules,
        url: &Url,
    ) -> Result<reqwest::Client, RegistryError> {
        let authority = authority(url);
        let terms = rules.terms(&authority)?;
        let check = match terms.unchecked {
            true => Check::Nothing,
            false => Check::Full,
        };
        let seat = Seat {
            is_secure: url.scheme() == "https",
            home: rules.home_of_stranger(&authority).cloned(),
            cert_dir: rules.cert_dir().map(Path::to_owned),
            authority: authority.clone(),
            terms,
        };
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.by_seat.get(&seat) {
            return Ok(client.clone());
        }
        let certificates = match seat.is_secure {
            true => self.trust.certificates(&Peer {
                authority: &seat.authority,
                terms: &seat.terms,
                home: seat.home.as_deref(),
                cert_dir: seat.cert_dir.as_deref(),
            })?,
            false => None,
        };
        let lane = Lane {
            // Metadata services are this machine's own.
            way: match is_link_local(&authority) {
                true => Way::Direct,
                false => self.proxies.way(url),
            },
            check,
            own: certificates.is_some().then(|| seat.clone()),
        };
        if let Some(client) = clients.by_lane.get(&lane).cloned() {
            clients.by_seat.insert(seat, client.clone());
            return Ok(client);
        }
        let tls = |error: rustls::Error| RegistryError::Tls {
            host: authority.clone(),
            source: Cause::of(&error),
        };
        let config = self.trust.config(check, certificates).map_err(tls)?;
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("builder/", env!("CARGO_PKG_VERSION")))
            .tls_backend_preconfigured(config)
            .dns_resolver(self.names.clone())
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .connect_timeout(self.tuning.connect)
            .pool_idle_timeout(Duration::from_secs(30))
            .tcp_keepalive(Duration::from_secs(30))
            // Each stream is bounded; the connection is not. Otherwise blobs that nobody reads at the moment would hold the
            // window of the one that is waited for.
            .http2_initial_stream_window_size(2 << 20)
            .http2_initial_connection_window_size(1 << 30);
        builder = match self.proxies.client(lane.way)? {
            Some(proxy) => builder.proxy(proxy),
            None => builder.no_proxy(),
        };
        let client = builder.build().map_err(|error| RegistryError::Connect {
            host: authority.clone(),
            unknown_name: false,
            source: Cause::of(&error),
        })?;
        clients.by_lane.insert(lane, client.clone());
        clients.by_seat.insert(seat, client.clone());
        Ok(client)
    }

    /// Reads a whole body of at most `limit` bytes.
    pub(super) async fn read(
        &self,
        answer: Answer,
        what: &str,
        limit: u64,
    ) -> Result<Vec<u8>, RegistryError> {
        let too_large = || RegistryError::TooLarge {
            what: what.to_owned(),
            limit,
        };
        if answer.length().is_some_and(|length| length > limit) {
            return Err(too_large());
        }
        let mut response = answer.response;
        let mut body = Vec::new();
        while let Some(chunk) = self.chunk(&mut response).await? {
            if body.len() as u64 + chunk.len() as u64 > limit {
                return Err(too_large());
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    /// Reads the next piece of a body.
    pub(super) async fn chunk(
        &self,
        response: &mut reqwest::Response,
    ) -> Result<Option<Bytes>, RegistryError> {
        let url = response.url().clone();
        match tokio::time::timeout(self.tuning.idle, response.chunk()).await {
            Ok(chunk) => chunk.map_err(|error| failure(&url, error, self.tuning.connect)),
            Err(_) => Err(RegistryError::Timeout {
                host: authority(&url),
                doing: "a body was read",
                after: self.tuning.idle,
            }),
        }
    }
}

/// Returns where a redirect leads; `None` if the answer is none.
fn next(
    method: &Method,
    url: &Url,
    response: &reqwest::Response,
    may_be_plain: bool,
) -> Result<Option<Url>, RegistryError> {
    let keeps_method = matches!(response.status().as_u16(), 307 | 308);
    let is_reading = matches!(*method, Method::GET | Method::HEAD);
    let is_redirect =
        keeps_method || (is_reading && matches!(response.status().as_u16(), 301..=303));
    let Some(location) = response.headers().get(LOCATION) else {
        return Ok(None);
    };
    if !is_redirect {
        return Ok(None);
    }
    let protocol = |what: &str| RegistryError::Protocol {
        host: authority(url),
        what: what.to_owned(),
    };
    let next = location
        .to_str()
        .ok()
        .and_then(|location| url.join(location).ok())
        .filter(|next| matches!(next.scheme(), "http" | "https") && next.has_host())
        .ok_or_else(|| protocol("a redirect leads to no URL"))?;
    if url.scheme() == "https" && next.scheme() == "http" && !may_be_plain {
        return Err(protocol("a redirect leads from https to http"));
    }
    Ok(Some(next))
}

/// Tells whether a host is an address on this machine's own link, where metadata services are; no proxy can reach it.
fn is_link_local(authority: &str) -> bool {
    let (host, _) = split_port(authority);
    match host.trim_matches(['[', ']']).parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) => address.is_link_local(),
        Ok(IpAddr::V6(address)) => address.is_unicast_link_local(),
        Err(_) => false,
    }
}

/// Returns a URL's host and port.
pub(super) fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

/// Sorts the HTTP client's errors. URLs are left out of the text: their queries are secrets on many storage services.
pub(super) fn failure(url: &Url, error: reqwest::Error, limit: Duration) -> RegistryError {
    let error = error.without_url();
    let host = authority(url);
    let mut unknown_name = false;
    let mut secure: Option<Cause> = None;
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(cause) = next {
        unknown_name |= cause.is::<UnknownName>();
        if cause.is::<rustls::Error>() {
            secure = Some(Cause::of(cause));
        }
        // The source of an `io::Error` is its inner error's source: the inner one would be passed over.
        next = match cause.downcast_ref::<std::io::Error>() {
            Some(io) => io
                .get_ref()
                .map(|inner| inner as &(dyn std::error::Error + 'static)),
            None => cause.source(),
        };
    }
    if let Some(source) = secure {
        return RegistryError::Tls { host, source };
    }
    if error.is_timeout() {
        return RegistryError::Timeout {
            host,
            doing: "a connection was made",
            after: limit,
        };
    }
    let source = Cause::of(&error);
    if error.is_connect() {
        RegistryError::Connect {
            host,
            unknown_name,
            source,
        }
    } else {
        RegistryError::Broken { host, source }
    }
}
