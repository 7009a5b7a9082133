//! GitHub's cache service, version 2, or one that stands in for it: requests for entries, and the storage that the answers point to.
//!
//! ```text
//! CreateCacheEntry ─ URL to write to ─ PUT (in a whole, or blocks and their list) ─ FinalizeCacheEntryUpload
//!         └─ taken: what is there stays, and a name with a suffix is tried
//! GetCacheEntryDownloadURL ─ URL to read from ─ GET (ranges after a cut)
//! ```
//!
//! **Entries cannot be written over.** So a document goes under its name and the moment, and is found by the beginning of its name: of
//! several the service gives the newest. A blob goes under its own name. If that is taken and cannot be read (a job that
//! was killed in the middle has it for ever), it goes under one with the moment, too, and is found in the same way.
//!
//! The token goes to the service and nowhere else. URLs that the service gives are secrets: they are in no message, and of what the storage
//! says no more than the code.

use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream;
use reqwest::Url;
use tokio::time::Instant;

use super::super::client::Client;
use super::super::error::{RegistryError, Said};
use super::super::pull::{BlobReader, content_range};
use super::super::push::OpenAt;
use super::super::reactor::Reactor;
use super::super::retry::Tries;
use super::super::transport::authority;
use super::Answer;
use super::parts::{Pieces, piece_size, send_all};
use super::reader::{self, Opened, Source};
use super::service::{Found, Service};
use super::storage::url_with;
use crate::vocab::{ActionsPlace, Descriptor, Digest, Secret};

/// What the storage allows for one blob.
const MOST_BLOCKS: u64 = 50_000;

/// A cache service. Clones share what is known of it.
#[derive(Clone)]
pub struct ActionsCache {
    service: Arc<Service>,
    reactor: Arc<Reactor>,
}

impl std::fmt::Debug for ActionsCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ActionsCache")
    }
}

impl ActionsCache {
    pub(in super::super) fn new(
        client: &Client,
        place: &ActionsPlace,
    ) -> Result<ActionsCache, RegistryError> {
        Ok(ActionsCache {
            service: Arc::new(Service::new(client.shared_exchange(), place)?),
            reactor: client.shared_reactor(),
        })
    }

    /// Reads the newest document under a name, if it is no longer than `limit`; `None` if there is none.
    pub fn document(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>, RegistryError> {
        self.reactor.block_on(self.newest(name, limit))?
    }

    /// The same for several names at the same time, by this thread alone.
    pub fn document_each(
        &self,
        names: &[String],
        limit: u64,
    ) -> Result<Vec<Answer>, RegistryError> {
        self.reactor
            .block_on_each(names.iter().map(|name| self.newest(name, limit)))
    }

    async fn newest(&self, name: &str, limit: u64) -> Answer {
        let service = &self.service;
        let end = service.end();
        let prefix = format!("{name}.");
        let read = service.limited(name, end, async {
            let mut tries = Tries::new(service.exchange.tuning());
            loop {
                // Looked for again with each attempt: a URL ends by itself.
                let Some(found) = service.find(&prefix).await? else {
                    return Ok(None);
                };
                match service.whole(&found, name, limit).await {
                    Ok(bytes) => return Ok(Some(bytes)),
                    Err(RegistryError::NotFound { .. }) => return Ok(None),
                    Err(error) => tries.after(error).await?,
                }
            }
        });
        read.await
    }

    /// Writes a document under a name, so that it is the one that is found.
    pub fn put_document(&self, name: &str, bytes: Vec<u8>) -> Result<(), RegistryError> {
        let service = &self.service;
        let end = service.end();
        let bytes = Bytes::from(bytes);
        let written = service.limited(name, end, async {
            let (key, url) = service.reserve_a_moment(name).await?;
            service.put_whole(&key, &url, &bytes).await?;
            service.finalize(&key, bytes.len() as u64).await
        });
        self.reactor.block_on(written)?
    }

    /// Opens a blob; `None` if it is not there.
    pub fn blob(&self, blob: &Descriptor) -> Result<Option<BlobReader>, RegistryError> {
        let service = &self.service;
        let source = Reading {
            service: service.clone(),
            key: blob_key(&blob.digest),
            size: blob.size,
            known: tokio::sync::Mutex::default(),
        };
        let limit = Some(service.timeout);
        reader::read(&service.exchange, &self.reactor, source, blob, limit)
    }

    /// Tells whether a blob is there.
    pub fn has(&self, blob: &Descriptor) -> Result<bool, RegistryError> {
        let service = &self.service;
        if service.held().contains(&blob.digest) {
            return Ok(true);
        }
        let key = blob_key(&blob.digest);
        let found = service.limited(&key, service.end(), service.find(&key));
        let has = self.reactor.block_on(found)??.is_some();
        if has {
            service.held().insert(blob.digest);
        }
        Ok(has)
    }

    /// Brings a blob there, unless it is there.
    pub fn put_blob(&self, blob: &Descriptor, open: OpenAt<'_>) -> Result<(), RegistryError> {
        let service = &self.service;
        let host = service.host();
        let _turn = service.exchange.turns.take(&host, blob.digest);
        if self.has(blob)? {
            return Ok(());
        }
        let end = service.end();
        let name = blob_key(&blob.digest);
        let (key, url) = self.reactor.block_on(service.limited(&name, end, async {
            match service.reserve(&name).await? {
                Some(url) => Ok((name.clone(), url)),
                None => service.reserve_a_moment(&name).await,
            }
        }))??;
        self.upload(&key, url, blob.size, open, end)?;
        let finalized = service.limited(&key, end, service.finalize(&key, blob.size));
        self.reactor.block_on(finalized)??;
        service.held().insert(blob.digest);
        Ok(())
    }

    fn upload(
        &self,
        key: &str,
        url: Secret<Url>,
        size: u64,
        open: OpenAt<'_>,
        end: Instant,
    ) -> Result<(), RegistryError> {
        let service = &self.service;
        let piece_size = piece_size(size, service.exchange.tuning().object_piece, MOST_BLOCKS);
        let mut pieces = Pieces::open(open, key, size)?;
        if size <= piece_size {
            let bytes = pieces.next(piece_size)?.unwrap_or_default();
            if !bytes.is_empty() {
                // The end has to be where it should.
                pieces.next(1)?;
            }
            let put = service.limited(key, end, service.put_whole(key, &url, &bytes));
            return self.reactor.block_on(put)?;
        }
        let url = Arc::new(url);
        let ids = send_all(&self.reactor, pieces, piece_size, |number, bytes| {
            let (service, key, url) = (service.clone(), key.to_owned(), url.clone());
            async move {
                // All are of one length, as the storage wants them.
                let id = STANDARD.encode(format!("{number:08}"));
                let block = url_with(&url, &[("comp", "block"), ("blockid", &id)]);
                let put = service.put(&key, &block, &[], &bytes);
                service.limited(&key, end, put).await?;
                Ok(id)
            }
        })?;
        let ids: String = ids
            .iter()
            .map(|id| format!("<Latest>{id}</Latest>"))
            .collect();
        let list =
            format!("<?xml version=\"1.0\" encoding=\"utf-8\"?><BlockList>{ids}</BlockList>");
        let list = Bytes::from(list);
        let all = url_with(&url, &[("comp", "blocklist")]);
        let put = service.limited(key, end, service.put(key, &all, &[], &list));
        self.reactor.block_on(put)?
    }
}

/// Returns the name of a blob.
fn blob_key(digest: &Digest) -> String {
    format!("builder-blob-{}", digest.hex())
}

/// A blob that is read.
struct Reading {
    service: Arc<Service>,
    key: String,
    size: u64,
    /// Where it is, until that is no longer true.
    known: tokio::sync::Mutex<Option<Found>>,
}

#[async_trait]
impl Source for Reading {
    async fn open(&self, offset: u64) -> Result<Opened, RegistryError> {
        let mut known = self.known.lock().await;
        let found = match known.take() {
            Some(found) => found,
            None => {
                let found = self.service.find(&self.key).await?;
                found.ok_or_else(|| RegistryError::NotFound {
                    image: self.key.clone(),
                    said: Said::default(),
                })?
            }
        };
        let answer = self.service.get(&found, offset, &self.key).await?;
        let host = authority(answer.response.url());
        let range = answer.header("content-range").and_then(content_range);
        let skip = match (answer.status().as_u16(), range) {
            (206, Some((start, total)))
                if start == offset && total.is_none_or(|total| total == self.size) =>
            {
                0
            }
            (206, _) => {
                return Err(RegistryError::Protocol {
                    host,
                    what: "it sent another range than was asked for".to_owned(),
                });
            }
            _ => offset,
        };
        *known = Some(found);
        let exchange = self.service.exchange.clone();
        let bytes = stream::unfold(Some(answer.response), move |response| {
            let exchange = exchange.clone();
            async move {
                let mut response = response?;
                match exchange.transport().chunk(&mut response).await {
                    Ok(Some(bytes)) => Some((Ok(bytes), Some(response))),
                    Ok(None) => None,
                    Err(error) => Some((Err(error), None)),
                }
            }
        });
        Ok(Opened {
            bytes: bytes.boxed(),
            skip,
        })
    }

    fn what(&self) -> String {
        self.key.clone()
    }

    fn host(&self) -> String {
        self.service.host()
    }
}
