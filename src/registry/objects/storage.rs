//! The storage that a cache service points to: Azure's, by URLs that are permissions.
//!
//! The URLs are in no message, and of what the storage says no more than the code.

use bytes::Bytes;
use reqwest::header::{ACCEPT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RANGE};
use reqwest::{Method, Url};

use super::super::cloud::code_of;
use super::super::error::{Action, Cause, RegistryError, Said};
use super::super::retry::Tries;
use super::super::transport::{Answer, Outgoing, authority};
use super::service::{Found, Service};
use crate::vocab::Secret;

const MOST_REFUSAL: u64 = 64 * 1024;

/// Adds to a query, which keeps its text as it is signed.
pub(super) fn url_with(url: &Secret<Url>, pairs: &[(&str, &str)]) -> Secret<Url> {
    let mut url = url.reveal().clone();
    url.query_pairs_mut().extend_pairs(pairs);
    Secret::new(url)
}

impl Service {
    pub(super) async fn put_whole(
        &self,
        key: &str,
        url: &Secret<Url>,
        bytes: &Bytes,
    ) -> Result<(), RegistryError> {
        self.put(key, url, &[("x-ms-blob-type", "BlockBlob")], bytes)
            .await
    }

    /// Writes to the storage until it is done, or fails for good.
    pub(super) async fn put(
        &self,
        key: &str,
        url: &Secret<Url>,
        headers: &[(&'static str, &'static str)],
        bytes: &Bytes,
    ) -> Result<(), RegistryError> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            );
        }
        map.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/octet-stream"),
        );
        let mut tries = Tries::new(self.exchange.tuning());
        loop {
            let outgoing = Outgoing {
                method: Method::PUT,
                headers: &map,
                authorization: None,
                body: Some(bytes.clone()),
                patience: self.exchange.tuning().commit,
                stays: true,
            };
            let transport = self.exchange.transport();
            let url = url.reveal().clone();
            let answer = transport.send(&self.rules, outgoing, url, false).await;
            let error = match answer {
                Ok(answer) if answer.status().is_success() => return Ok(()),
                Ok(answer) => self.storage_refusal(answer, Action::Push, key).await,
                Err(error) => error,
            };
            tries.after(error).await?;
        }
    }

    async fn storage_refusal(&self, answer: Answer, action: Action, key: &str) -> RegistryError {
        let host = authority(answer.response.url());
        let status = answer.status().as_u16();
        let retry_after = self.exchange.retry_after(&answer);
        let transport = self.exchange.transport();
        let body = transport.read(answer, "refusal", MOST_REFUSAL).await;
        let code = code_of(&body.unwrap_or_default()).unwrap_or_default();
        let said = Said::from_body(code.as_bytes());
        match (status, action) {
            (404 | 410, _) => RegistryError::NotFound {
                image: key.to_owned(),
                said,
            },
            // The permission of a URL ends; the service will give another one.
            (401 | 403, Action::Pull) => RegistryError::Broken {
                host,
                source: Cause::new(format!("status {status} from the storage{said}")),
            },
            (401 | 403, _) => RegistryError::Refused {
                host,
                action,
                what: key.to_owned(),
                status,
                said,
                hint: "what the service allowed has ended, or is not for this storage: try again"
                    .to_owned(),
            },
            _ => RegistryError::Status {
                registry: host,
                action,
                what: key.to_owned(),
                status,
                retry_after,
                said,
            },
        }
    }

    /// Asks the storage once for the bytes from an offset on.
    pub(super) async fn get(
        &self,
        found: &Found,
        offset: u64,
        key: &str,
    ) -> Result<Answer, RegistryError> {
        let mut headers = HeaderMap::new();
        // Bytes as they are.
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if offset > 0 {
            let range = HeaderValue::from_str(&format!("bytes={offset}-"));
            headers.insert(RANGE, range.expect("digits are plain text"));
        }
        let outgoing = Outgoing {
            method: Method::GET,
            headers: &headers,
            authorization: None,
            body: None,
            patience: self.exchange.tuning().idle,
            stays: false,
        };
        let url = found.url.reveal().clone();
        let transport = self.exchange.transport();
        let answer = transport.send(&self.rules, outgoing, url, false).await?;
        match answer.status().as_u16() {
            200 | 206 => Ok(answer),
            _ => Err(self.storage_refusal(answer, Action::Pull, key).await),
        }
    }

    pub(super) async fn whole(
        &self,
        found: &Found,
        name: &str,
        limit: u64,
    ) -> Result<Vec<u8>, RegistryError> {
        let answer = self.get(found, 0, name).await?;
        let length = answer.length();
        let host = authority(answer.response.url());
        let bytes = self.exchange.transport().read(answer, name, limit).await?;
        match length {
            // A connection that ends in good order may still have ended early.
            Some(length) if length != bytes.len() as u64 => Err(RegistryError::Broken {
                host,
                source: Cause::new(format!("{} of {length} bytes came", bytes.len())),
            }),
            _ => Ok(bytes),
        }
    }
}
