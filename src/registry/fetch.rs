//! Plain downloads: one URL to a sink, once more after a failure that may pass, or nothing where the caller's copy is still right.
//!
//! Not here: where the bytes go and what they must be. A body that was cut begins again from its first byte.

use std::io;

use reqwest::header::{
    ACCEPT_ENCODING, HeaderMap, HeaderValue, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED,
};
use reqwest::{Method, Url};

use super::client::Client;
use super::error::{Cause, RegistryError};
use super::exchange::Exchange;
use super::retry::Tries;
use super::transport::{Answer, Outgoing, authority};
use crate::vocab::{Secret, shown_url};

/// What to ask for.
#[derive(Clone, Debug, Default)]
pub struct Fetch<'a> {
    /// `http` or `https`. A user name and password in it are sent to its host, and to no other.
    pub url: &'a str,
    /// Of the copy at hand; if the server still calls its file so, nothing is sent.
    pub etag: Option<&'a str>,
    /// Of the copy at hand, as the server wrote it.
    pub last_modified: Option<&'a str>,
    /// The value of `Authorization`.
    pub authorization: Option<Secret<String>>,
}

/// Where bytes go.
pub trait Sink {
    /// Forgets what came: the body begins again.
    fn restart(&mut self) -> io::Result<()>;
    fn take(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Hears how much came, of how much.
    fn progress(&mut self, _done: u64, _total: Option<u64>) {}
}

/// What came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The copy at hand is right.
    Unchanged,
    /// The sink has the bytes.
    Whole {
        etag: Option<String>,
        last_modified: Option<String>,
    },
}

/// Why nothing came.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error(transparent)]
    Remote(#[from] RegistryError),
    /// The sink refused.
    #[error("cannot keep what came from the network")]
    Sink(#[source] io::Error),
}

/// What the room's retries are told of a sink that failed: nothing that may pass.
enum Failed {
    Remote(RegistryError),
    Sink(io::Error),
}

impl Client {
    /// Downloads a URL.
    pub fn download(&self, fetch: &Fetch<'_>, sink: &mut dyn Sink) -> Result<Outcome, FetchError> {
        self.block_on(self.exchange().download(fetch, sink))?
            .map_err(|failed| match failed {
                Failed::Remote(error) => FetchError::Remote(error),
                Failed::Sink(error) => FetchError::Sink(error),
            })
    }
}

impl Exchange {
    async fn download(&self, fetch: &Fetch<'_>, sink: &mut dyn Sink) -> Result<Outcome, Failed> {
        let url = Url::parse(fetch.url)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
            .ok_or_else(|| {
                Failed::Remote(RegistryError::Option {
                    what: format!("`{}` is no http or https URL", shown_url(fetch.url)),
                })
            })?;
        let mut headers = HeaderMap::new();
        // Bytes as they are: what is stored compressed stays so.
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let mut add = |name, value: Option<&str>| {
            // A mark that is no header text came from nobody.
            if let Some(value) = value.and_then(|value| HeaderValue::from_str(value).ok()) {
                headers.insert(name, value);
            }
        };
        add(IF_NONE_MATCH, fetch.etag);
        // Servers must prefer the tag; some get the two mixed up.
        add(
            IF_MODIFIED_SINCE,
            fetch.last_modified.filter(|_| fetch.etag.is_none()),
        );
        let authorization = match &fetch.authorization {
            None => None,
            Some(secret) => {
                let mut value = HeaderValue::from_str(secret.reveal()).map_err(|_| {
                    Failed::Remote(RegistryError::Option {
                        what: "a secret for HTTP is no header text".to_owned(),
                    })
                })?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        let mut tries = Tries::new(self.tuning());
        loop {
            let once = self
                .download_once(&url, &headers, authorization.as_ref(), sink)
                .await;
            match once {
                Err(Failed::Remote(error)) => tries.after(error).await.map_err(Failed::Remote)?,
                done => return done,
            }
        }
    }

    async fn download_once(
        &self,
        url: &Url,
        headers: &HeaderMap,
        authorization: Option<&HeaderValue>,
        sink: &mut dyn Sink,
    ) -> Result<Outcome, Failed> {
        let outgoing = Outgoing {
            method: Method::GET,
            headers,
            authorization,
            body: None,
            patience: self.tuning().idle,
            stays: false,
        };
        let answer = self
            .transport()
            .send(&self.rules().for_downloads(), outgoing, url.clone(), false)
            .await
            .map_err(Failed::Remote)?;
        let was_conditional =
            headers.contains_key(IF_NONE_MATCH) || headers.contains_key(IF_MODIFIED_SINCE);
        match answer.status().as_u16() {
            304 if was_conditional => return Ok(Outcome::Unchanged),
            200 | 203 => {}
            status => {
                return Err(Failed::Remote(RegistryError::Download {
                    url: shown_url(url.as_str()),
                    status,
                    retry_after: self.retry_after(&answer),
                }));
            }
        }
        let text = |name: &str| answer.header(name).map(str::to_owned);
        let (etag, last_modified) = (text("etag"), text(LAST_MODIFIED.as_str()));
        self.body(answer, sink).await?;
        Ok(Outcome::Whole {
            etag,
            last_modified,
        })
    }

    async fn body(&self, answer: Answer, sink: &mut dyn Sink) -> Result<(), Failed> {
        let total = answer.length();
        let mut response = answer.response;
        sink.restart().map_err(Failed::Sink)?;
        let mut done = 0;
        while let Some(chunk) = self
            .transport()
            .chunk(&mut response)
            .await
            .map_err(Failed::Remote)?
        {
            sink.take(&chunk).map_err(Failed::Sink)?;
            done += chunk.len() as u64;
            sink.progress(done, total);
        }
        match total {
            // A connection that ends in good order may still have ended early.
            Some(total) if total != done => Err(Failed::Remote(RegistryError::Broken {
                host: authority(response.url()),
                source: Cause::new(format!("{done} of {total} bytes came")),
            })),
            _ => Ok(()),
        }
    }
}

/// Reads a date of HTTP as seconds since 1970.
pub fn http_date(text: &str) -> Option<i64> {
    let moment = jiff::fmt::rfc2822::parse(text.trim()).ok()?.timestamp();
    Some(moment.as_second())
}

#[cfg(test)]
mod tests {
    use super::http_date;

    #[test]
    fn dates_of_servers() {
        assert_eq!(
            http_date("Sun, 06 Nov 1994 08:49:37 GMT"),
            Some(784_111_777)
        );
        assert_eq!(http_date("yesterday"), None);
    }
}
