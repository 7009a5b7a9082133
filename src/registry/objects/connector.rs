//! The requests of the object_store crate, on this room's connections: its trust, proxies, names and limits of time.
//!
//! The crate sees successes alone. What is none comes back as one of this room's errors, carried through the crate's; see [`own_error`].

use std::error::Error;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use http_body_util::BodyExt as _;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse,
    HttpResponseBody, HttpService,
};
use reqwest::{Method, Url};

use super::super::cloud::{code_of, said};
use super::super::endpoint::Rules;
use super::super::error::{Action, Cause, RegistryError, clean};
use super::super::exchange::Exchange;
use super::super::transport::{Answer, Outgoing, failure};
use super::keys::Holder;

/// Of the body of a refusal, this much is read.
const MOST_REFUSAL: u64 = 64 * 1024;

/// An error of this room on its way through the crate.
pub(super) struct Carried(Mutex<Option<RegistryError>>);

impl Carried {
    pub(super) fn new(error: RegistryError) -> Carried {
        Carried(Mutex::new(Some(error)))
    }
}

impl fmt::Debug for Carried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Carried")
    }
}

impl fmt::Display for Carried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the request failed")
    }
}

impl Error for Carried {}

/// Returns the error that the crate was given, or one about an answer that it did not understand.
pub(super) fn own_error(host: &str, error: &(dyn Error + 'static)) -> RegistryError {
    let mut next = Some(error);
    while let Some(cause) = next {
        if let Some(carried) = cause.downcast_ref::<Carried>()
            && let Some(error) = carried
                .0
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take()
        {
            return error;
        }
        next = cause.source();
    }
    let text = Cause::of(error).to_string();
    // What a store says after it has begun to answer with success.
    match ["SlowDown", "InternalError"]
        .iter()
        .any(|code| text.contains(code))
    {
        true => RegistryError::Broken {
            host: host.to_owned(),
            source: Cause::new("the store failed while it put the parts together"),
        },
        false => RegistryError::Protocol {
            host: host.to_owned(),
            what: format!("its answer makes no sense: {}", clean(&text)),
        },
    }
}

/// Sends requests to one bucket.
#[derive(Clone)]
pub(super) struct Connector {
    pub(super) exchange: Arc<Exchange>,
    pub(super) rules: Rules,
    pub(super) keys: Arc<Holder>,
    pub(super) bucket: String,
    pub(super) host: String,
    pub(super) region: String,
    pub(super) is_path_style: bool,
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connector")
    }
}

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

#[async_trait]
impl HttpService for Connector {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        self.send(request).await.map_err(carried)
    }
}

/// The crate is not told what may be tried again: that is decided outside.
fn carried(error: RegistryError) -> HttpError {
    HttpError::new(HttpErrorKind::Unknown, Carried::new(error))
}

impl Connector {
    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, RegistryError> {
        let (mut parts, body) = request.into_parts();
        let protocol = |what: &str| RegistryError::Protocol {
            host: self.host.clone(),
            what: what.to_owned(),
        };
        let url = Url::parse(&parts.uri.to_string()).map_err(|_| protocol("no URL was made"))?;
        // One piece, which is handed on and not copied.
        let body = body
            .collect()
            .await
            .map_err(|_| protocol("no body was made"))?;
        for name in ["authorization", "x-amz-security-token"] {
            if let Some(value) = parts.headers.get_mut(name) {
                value.set_sensitive(true);
            }
        }
        let is_reading = matches!(parts.method, Method::GET | Method::HEAD);
        let tuning = self.exchange.tuning();
        let outgoing = Outgoing {
            method: parts.method.clone(),
            headers: &parts.headers,
            // Signed, and among the headers: no redirect leads to where they are not for.
            authorization: None,
            body: (!is_reading).then(|| body.to_bytes()),
            patience: match is_reading {
                true => tuning.idle,
                // A body has to get there first.
                false => tuning.commit,
            },
            stays: true,
        };
        let transport = self.exchange.transport();
        let answer = transport
            .send(&self.rules, outgoing, url.clone(), false)
            .await?;
        if !answer.status().is_success() {
            return Err(self.refusal(&parts.method, &url, answer).await);
        }
        let response: http::Response<reqwest::Body> = answer.response.into();
        let limit = tuning.connect;
        let (parts, body) = response.into_parts();
        let body = body.map_err(move |error| carried(failure(&url, error, limit)));
        Ok(HttpResponse::from_parts(parts, HttpResponseBody::new(body)))
    }

    /// Makes the error of an answer that is no success.
    async fn refusal(&self, method: &Method, url: &Url, answer: Answer) -> RegistryError {
        let status = answer.status().as_u16();
        let retry_after = self.exchange.retry_after(&answer);
        let region = answer.header("x-amz-bucket-region").map(str::to_owned);
        let transport = self.exchange.transport();
        let body = transport.read(answer, "refusal", MOST_REFUSAL).await;
        // The status says the most important part.
        let body = body.unwrap_or_default();
        let code = code_of(&body).unwrap_or_default();
        let said = said(&body);
        let action = match *method {
            Method::GET | Method::HEAD => Action::Pull,
            _ => Action::Push,
        };
        let what = self.shown(url);
        let is_over = matches!(
            code.as_str(),
            "ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired"
        );
        if is_over && self.keys.forget().await {
            return RegistryError::Broken {
                host: self.host.clone(),
                source: Cause::new("the keys have expired"),
            };
        }
        let hint = match (status, code.as_str()) {
            (_, "NoSuchBucket") => "check the bucket's name, its region and the endpoint".to_owned(),
            (301 | 307 | 308, _)
            | (_, "AuthorizationHeaderMalformed" | "PermanentRedirect" | "IllegalLocationConstraintException") => {
                match region.filter(|region| *region != self.region) {
                    Some(region) => format!("the bucket is in another region: region={}", clean(&region)),
                    None => format!(
                        "check region= (it is `{}`) and endpoint_url=",
                        self.region
                    ),
                }
            }
            (_, "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "InvalidToken") => {
                "check the key's ID, its secret and its session token".to_owned()
            }
            (_, "RequestTimeTooSkewed") => "set this machine's clock".to_owned(),
            _ if is_over => "get new keys: these have expired".to_owned(),
            (401 | 403, _) => match action {
                Action::Push => "the keys need s3:GetObject, s3:PutObject and s3:AbortMultipartUpload for the bucket's objects, and s3:ListBucket for the bucket".to_owned(),
                // Who may not list is told of no object that is missing.
                _ => "the keys need s3:GetObject for the bucket's objects, and s3:ListBucket for the bucket: without that, what is missing looks forbidden".to_owned(),
            },
            (404, _) => return RegistryError::NotFound { image: what, said },
            _ => {
                return RegistryError::Status {
                    registry: self.host.clone(),
                    action,
                    what,
                    // A store that got tired of waiting says so with a status that means something else.
                    status: match code.as_str() {
                        "RequestTimeout" => 408,
                        "SlowDown" => 503,
                        _ => status,
                    },
                    retry_after,
                    said,
                };
            }
        };
        RegistryError::Refused {
            host: self.host.clone(),
            action,
            what,
            status,
            said,
            hint,
        }
    }

    /// Returns what a request is about, for people.
    fn shown(&self, url: &Url) -> String {
        let path = decoded(url.path().trim_start_matches('/'));
        match self.is_path_style {
            // The endpoint may have a path of its own before it.
            true => match path.find(&self.bucket) {
                Some(at) => format!("s3://{}", &path[at..]),
                None => format!("s3://{}", self.bucket),
            },
            false => format!("s3://{}/{path}", self.bucket),
        }
    }
}

/// Undoes the encoding of what names may hold. Everything else stays encoded.
fn decoded(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        let digits = after
            .get(..2)
            .and_then(|two| u8::from_str_radix(two, 16).ok());
        match digits.filter(u8::is_ascii_graphic) {
            Some(byte) => {
                out.push(char::from(byte));
                rest = &after[2..];
            }
            None => {
                out.push('%');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_shown_as_they_are() {
        let check = |path: &str, expected: &str| assert_eq!(decoded(path), expected, "{path}");
        check("a/sha256%3A01", "a/sha256:01");
        check("a%2Bb%2", "a+b%2");
        check("%0a%zz%", "%0a%zz%");
        check("", "");
    }
}
