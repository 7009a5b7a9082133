//! One request to a service of a cloud, and its answer: small, in a whole, tried again where it fails in passing.
//!
//! Invariants: neither headers nor body follow a redirect to another host; what a service says is cleaned of the secrets that it was
//! sent before anybody sees it; a service that is not there is found missing within [`NEAR`].

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Url};
use serde::de::DeserializeOwned;

use super::super::endpoint::Rules;
use super::super::environment::Environment;
use super::super::error::{RegistryError, Said};
use super::super::retry::{Tries, Tuning};
use super::super::transport::{Outgoing, Transport, authority};
use super::error::LoginError;
use crate::vocab::Secret;

/// How long a service on the machine's own link may take to accept a connection.
const NEAR: Duration = Duration::from_secs(1);
/// How long an answer may take to begin.
const PATIENCE: Duration = Duration::from_secs(20);
const MOST_ANSWER: u64 = 1024 * 1024;

/// What the logins need of the room.
pub(in super::super) struct Caller<'a> {
    pub(in super::super) transport: &'a Transport,
    pub(in super::super) rules: &'a Rules,
    pub(in super::super) tuning: Tuning,
    pub(in super::super) environment: &'a Environment,
}

/// One request.
pub(super) struct Call<'a> {
    pub(super) method: Method,
    pub(super) url: String,
    pub(super) headers: Vec<(&'static str, Secret<String>)>,
    pub(super) body: Option<Secret<String>>,
    /// What is asked for, in messages.
    pub(super) asked: &'static str,
    /// What besides header values must not be shown.
    pub(super) secrets: Vec<&'a str>,
}

impl<'a> Call<'a> {
    pub(super) fn get(url: impl Into<String>, asked: &'static str) -> Call<'a> {
        Call {
            method: Method::GET,
            url: url.into(),
            headers: Vec::new(),
            body: None,
            asked,
            secrets: Vec::new(),
        }
    }

    pub(super) fn post(
        url: impl Into<String>,
        body: Secret<String>,
        asked: &'static str,
    ) -> Call<'a> {
        Call {
            method: Method::POST,
            body: Some(body),
            ..Call::get(url, asked)
        }
    }

    /// Returns a request with a form.
    pub(super) fn form(
        url: impl Into<String>,
        fields: &[(&str, &str)],
        asked: &'static str,
    ) -> Call<'a> {
        Call::post(url, form(fields), asked)
            .header("content-type", "application/x-www-form-urlencoded")
    }

    /// Names a part of the body that must not be shown.
    pub(super) fn hiding(mut self, secret: &'a str) -> Call<'a> {
        self.secrets.push(secret);
        self
    }

    pub(super) fn header(mut self, name: &'static str, value: &str) -> Call<'a> {
        self.headers.push((name, Secret::new(value.to_owned())));
        self
    }
}

/// Returns fields as a form or a query.
pub(super) fn form(fields: &[(&str, &str)]) -> Secret<String> {
    let mut url = Url::parse("http://form").expect("the text is a URL");
    url.query_pairs_mut().extend_pairs(fields);
    Secret::new(url.query().unwrap_or_default().to_owned())
}

/// What came back, of any status that stays.
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    body: Secret<Vec<u8>>,
    host: String,
    asked: &'static str,
    secrets: Vec<String>,
}

impl Reply {
    pub(super) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    pub(super) fn text(&self) -> Secret<String> {
        let text = String::from_utf8_lossy(self.body.reveal());
        Secret::new(text.into_owned())
    }

    /// Reads the JSON of a success.
    pub(super) fn json<T: DeserializeOwned>(self) -> Result<T, LoginError> {
        if !self.is_success() {
            return Err(self.refusal());
        }
        // The parser's own message would quote the answer.
        serde_json::from_slice(self.body.reveal()).map_err(|_| self.nonsense())
    }

    /// Returns the error of an answer that cannot be understood.
    pub(super) fn nonsense(&self) -> LoginError {
        LoginError::Answer {
            host: self.host.clone(),
            asked: self.asked,
        }
    }

    /// Returns the error of an answer that is no success.
    pub(super) fn refusal(&self) -> LoginError {
        let said = said(self.body.reveal());
        let secrets: Vec<&str> = self.secrets.iter().map(String::as_str).collect();
        LoginError::Refused {
            host: self.host.clone(),
            asked: self.asked,
            status: self.status,
            said: said.without(&secrets),
        }
    }
}

impl Caller<'_> {
    /// Asks until there is an answer that stays.
    pub(super) async fn call(&self, call: &Call<'_>) -> Result<Reply, LoginError> {
        let unreachable = |source: RegistryError| LoginError::Unreachable {
            asked: call.asked,
            source: Box::new(source),
        };
        let url = self.url(&call.url, call.asked)?;
        let headers = header_map(call)?;
        let mut tries = Tries::new(self.tuning);
        loop {
            let outgoing = Outgoing {
                method: call.method.clone(),
                headers: &headers,
                authorization: None,
                body: call
                    .body
                    .as_ref()
                    .map(|body| Bytes::from(body.reveal().clone())),
                patience: PATIENCE.min(self.tuning.idle),
                stays: true,
            };
            let answer = self
                .transport
                .send(self.rules, outgoing, url.clone(), false)
                .await;
            let answer = match answer {
                Ok(answer) => answer,
                Err(error) => {
                    tries.after(error).await.map_err(unreachable)?;
                    continue;
                }
            };
            let status = answer.status().as_u16();
            let headers = answer.response.headers().clone();
            let body = match self.transport.read(answer, call.asked, MOST_ANSWER).await {
                Ok(body) => body,
                Err(error) => {
                    tries.after(error).await.map_err(unreachable)?;
                    continue;
                }
            };
            let reply = Reply {
                status,
                headers,
                body: Secret::new(body),
                host: host_of(&call.url),
                asked: call.asked,
                secrets: secrets(call),
            };
            // Whether it passes is all that is asked of this one; it is not shown.
            let passing = RegistryError::Download {
                url: reply.host.clone(),
                status,
                retry_after: None,
            };
            if !passing.is_transient() || tries.after(passing).await.is_err() {
                return Ok(reply);
            }
        }
    }

    /// Tells whether somebody listens at an address of this machine's own link. Names are not looked up: they are there.
    pub(super) async fn is_there(&self, url: &str) -> bool {
        let Ok(url) = Url::parse(&self.environment.place_of(url)) else {
            return false;
        };
        let host = url.host_str().unwrap_or_default();
        let Ok(address) = host.trim_matches(['[', ']']).parse::<IpAddr>() else {
            return true;
        };
        let address = SocketAddr::new(address, url.port_or_known_default().unwrap_or(80));
        let connected = tokio::time::timeout(NEAR, tokio::net::TcpStream::connect(address));
        matches!(connected.await, Ok(Ok(_)))
    }

    fn url(&self, text: &str, asked: &'static str) -> Result<Url, LoginError> {
        Url::parse(&self.environment.place_of(text))
            .map_err(|_| LoginError::setting(host_of(text), format!("no URL to ask for {asked}")))
    }
}

/// Returns the value of a variable or field that names a service to which secrets go: it must be https, or on this machine or its own
/// link, where there is nobody to listen.
pub(super) fn private_url(place: &str, text: &str) -> Result<Url, LoginError> {
    let wrong = |what: &str| LoginError::setting(place, what);
    let url = Url::parse(text).map_err(|_| wrong("it is no URL"))?;
    let host = url.host_str().unwrap_or_default();
    let is_near = match host.trim_matches(['[', ']']).parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) => address.is_loopback() || address.is_link_local(),
        // fd00:ec2::/32 is what AWS gives its machines for their services.
        Ok(IpAddr::V6(address)) => {
            address.is_loopback()
                || address.is_unicast_link_local()
                || address.segments()[..2] == [0xfd00, 0xec2]
        }
        Err(_) => host == "localhost",
    };
    match url.scheme() {
        "https" if !host.is_empty() => Ok(url),
        "http" if is_near => Ok(url),
        "http" => Err(wrong("a secret would go over plain HTTP")),
        _ => Err(wrong("it is no URL of https")),
    }
}

/// Reads a file that holds a secret or says where one is.
pub(super) fn read_secret(path: &std::path::Path) -> Result<Secret<String>, LoginError> {
    std::fs::read_to_string(path)
        .map(Secret::new)
        .map_err(|source| LoginError::File {
            path: path.to_owned(),
            source,
        })
}

fn header_map(call: &Call<'_>) -> Result<HeaderMap, LoginError> {
    let mut headers = HeaderMap::new();
    for (name, value) in &call.headers {
        let mut value = HeaderValue::from_str(value.reveal()).map_err(|_| {
            LoginError::setting(*name, "a value for this header holds what no header can")
        })?;
        value.set_sensitive(true);
        headers.insert(HeaderName::from_static(name), value);
    }
    Ok(headers)
}

/// Returns all of a request that must not be told.
fn secrets(call: &Call<'_>) -> Vec<String> {
    let headers = call
        .headers
        .iter()
        .map(|(_, value)| value.reveal().as_str());
    let words = headers
        .clone()
        .filter_map(|value| value.strip_prefix("Bearer "));
    headers
        .chain(words)
        .chain(call.secrets.iter().copied())
        .map(str::trim)
        // Short ones (`true`, a time) are no secrets, and would blot out half of the message.
        .filter(|secret| secret.len() >= 8)
        .map(str::to_owned)
        .collect()
}

/// Returns the code of a refusal in XML.
pub(in super::super) fn code_of(body: &[u8]) -> Option<String> {
    super::sts::element(&String::from_utf8_lossy(body), "Code")
}

/// Reads what a service of a cloud says of a refusal: JSON in three dialects, or XML.
pub(in super::super) fn said(body: &[u8]) -> Said {
    let text = String::from_utf8_lossy(body);
    if let Some(code) = super::sts::element(&text, "Code") {
        let message = super::sts::element(&text, "Message").unwrap_or_default();
        let said = match message.is_empty() {
            true => code,
            false => format!("{code}: {message}"),
        };
        return Said::from_body(said.as_bytes());
    }
    // Google puts the error into an object; AWS has its kind beside the message.
    let value: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let object = value.as_ref().map(|value| match value.get("error") {
        Some(inner @ serde_json::Value::Object(_)) => inner,
        _ => value,
    });
    let field = |name: &str| object?.get(name)?.as_str();
    let kind = field("__type").or_else(|| field("status"));
    match (kind, field("message").or_else(|| field("Message"))) {
        (Some(kind), message) => {
            let kind = kind.rsplit('#').next().unwrap_or_default();
            let message = message.unwrap_or_default();
            Said::from_body(format!("{kind}: {message}").as_bytes())
        }
        _ => Said::from_body(body),
    }
}

fn host_of(url: &str) -> String {
    Url::parse(url).map_or_else(|_| "an address".to_owned(), |url| authority(&url))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_go_to_services_that_nobody_overhears() {
        let check = |text: &str, is_fine: bool| {
            assert_eq!(private_url("X", text).is_ok(), is_fine, "{text}");
        };
        check("https://sts.example.com/v1/token", true);
        check("http://169.254.170.23/v1/credentials", true);
        check("http://169.254.170.2/x", true);
        check("http://[fd00:ec2::23]/v1/credentials", true);
        check("http://127.0.0.1:41234/msi/token", true);
        check("http://localhost:42356/msi/token", true);
        check("http://[::1]:80/", true);
        check("http://example.com/", false);
        check("http://10.0.0.1/", false);
        check("http://localhost.evil.com/", false);
        check("http://169.254.170.2.evil.com/", false);
        check("http://169.254.170.2@evil.com/", false);
        check("http://[fd00:ec3::23]/", false);
        check("ftp://127.0.0.1/", false);
        check("file:///etc/passwd", false);
        check("nonsense", false);
    }

    #[test]
    fn refusals_are_read_in_every_dialect() {
        let check = |body: &str, expected: &str| {
            assert_eq!(said(body.as_bytes()).to_string(), expected, "{body}");
        };
        check(
            r#"{"__type":"com.amazon#UnrecognizedClientException","message":"The security token is invalid."}"#,
            ": UnrecognizedClientException: The security token is invalid.",
        );
        check(
            r#"{"__type":"AccessDeniedException","Message":"not authorized"}"#,
            ": AccessDeniedException: not authorized",
        );
        check(
            r#"{"error":{"code":403,"message":"Permission denied","status":"PERMISSION_DENIED"}}"#,
            ": PERMISSION_DENIED: Permission denied",
        );
        check(
            r#"{"error":"invalid_grant","error_description":"expired"}"#,
            ": invalid_grant: expired",
        );
        check(
            "<ErrorResponse><Error><Type>Sender</Type><Code>ExpiredTokenException</Code><Message>Token &lt;old&gt;</Message></Error></ErrorResponse>",
            ": ExpiredTokenException: Token <old>",
        );
        check("<Error><Code>NoSuchKey</Code></Error>", ": NoSuchKey");
        check("<html>no</html>", "");
        check("", "");
    }
}
