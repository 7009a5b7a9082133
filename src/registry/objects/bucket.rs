//! A bucket of an object store that speaks S3's dialect, by the object_store crate.
//!
//! The crate makes, signs and reads the requests. Connections, keys, limits of time and attempts are this room's. Names are what
//! [`BucketPlace`] allows: nothing in them is encoded.

use std::collections::HashSet;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt as _;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::list::{PaginatedListOptions, PaginatedListStore as _};
use object_store::multipart::MultipartStore as _;
use object_store::path::Path;
use object_store::{
    GetOptions, GetRange, GetResult, ObjectMeta, ObjectStore as _, ObjectStoreExt as _, PutPayload,
    RetryConfig,
};

use super::super::client::Client;
use super::super::cloud::{Caller, region_of_profile};
use super::super::error::RegistryError;
use super::super::exchange::Exchange;
use super::super::pull::BlobReader;
use super::super::push::OpenAt;
use super::super::reactor::Reactor;
use super::super::retry::Tries;
use super::Answer;
use super::address::Address;
use super::connector::{Connector, own_error};
use super::keys::Holder;
use super::parts::{Pieces, piece_size, send_all};
use super::reader::{self, Opened, Source};
use crate::vocab::{BucketPlace, Descriptor};

/// What S3 allows for a piece is 5 MiB to 5 GiB, and 10 000 of them.
const MOST_PIECES: u64 = 9_000;
/// Names that are listed; a list without an end is none.
const MOST_NAMES: usize = 5_000_000;

/// A bucket. Clones share keys and what is known of it.
#[derive(Clone)]
pub struct Bucket {
    inner: Arc<Inner>,
    reactor: Arc<Reactor>,
}

struct Inner {
    exchange: Arc<Exchange>,
    store: AmazonS3,
    bucket: String,
    host: String,
    /// Names under which something was seen.
    held: Mutex<HashSet<String>>,
}

/// What is under a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    pub name: String,
    pub size: u64,
    pub modified: SystemTime,
}

impl From<ObjectMeta> for Object {
    fn from(meta: ObjectMeta) -> Object {
        Object {
            name: meta.location.to_string(),
            size: meta.size,
            modified: meta.last_modified.into(),
        }
    }
}

impl std::fmt::Debug for Bucket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bucket({})", self.inner.bucket)
    }
}

impl Bucket {
    /// Nothing is asked yet; files of AWS's settings are read if the region has to be found.
    pub(in super::super) fn new(
        client: &Client,
        place: &BucketPlace,
    ) -> Result<Bucket, RegistryError> {
        let exchange = client.shared_exchange();
        let rules = exchange.rules().for_downloads();
        let caller = Caller {
            transport: exchange.transport(),
            rules: &rules,
            tuning: exchange.tuning(),
            environment: &exchange.credentials().environment,
        };
        let configured = match place.region {
            Some(_) => None,
            None => region_of_profile(&caller),
        };
        let address = Address::of(place, configured)?;
        let keys = Arc::new(Holder::new(
            &exchange,
            place,
            &address.host,
            &address.region,
        )?);
        let connector = Connector {
            exchange: exchange.clone(),
            rules,
            keys: keys.clone(),
            bucket: place.bucket.clone(),
            host: address.host.clone(),
            region: address.region.clone(),
            is_path_style: address.is_path_style,
        };
        let once = RetryConfig {
            max_retries: 0,
            ..RetryConfig::default()
        };
        let store = AmazonS3Builder::new()
            .with_bucket_name(&place.bucket)
            .with_region(&address.region)
            .with_endpoint(&address.endpoint)
            .with_virtual_hosted_style_request(!address.is_path_style)
            .with_allow_http(true)
            .with_credentials(keys)
            .with_http_connector(connector)
            .with_retry(once)
            // Not every store has the request for many at once.
            .with_disable_bulk_delete(true)
            .build()
            .map_err(|error| own_error(&address.host, &error))?;
        Ok(Bucket {
            inner: Arc::new(Inner {
                exchange,
                store,
                bucket: place.bucket.clone(),
                host: address.host,
                held: Mutex::default(),
            }),
            reactor: client.shared_reactor(),
        })
    }

    /// Reads what is under a name, if it is no longer than `limit`; `None` if there is nothing.
    pub fn get(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>, RegistryError> {
        let path = self.inner.path(name)?;
        let got = self
            .reactor
            .block_on(self.inner.attempts(|| self.inner.whole(&path, limit)))?;
        found(got)
    }

    /// The same for several names at the same time, by this thread alone.
    pub fn get_each(&self, names: &[String], limit: u64) -> Result<Vec<Answer>, RegistryError> {
        self.reactor.block_on_each(names.iter().map(async |name| {
            let path = self.inner.path(name)?;
            found(self.inner.attempts(|| self.inner.whole(&path, limit)).await)
        }))
    }

    /// Writes something short under a name, over what is there.
    pub fn put(&self, name: &str, bytes: Vec<u8>) -> Result<(), RegistryError> {
        let path = self.inner.path(name)?;
        let bytes = Bytes::from(bytes);
        let put = self.inner.attempts(|| self.inner.put(&path, bytes.clone()));
        self.reactor.block_on(put)?
    }

    /// Opens a blob under a name; `None` if there is nothing.
    pub fn blob(&self, name: &str, blob: &Descriptor) -> Result<Option<BlobReader>, RegistryError> {
        let source = Reading {
            path: self.inner.path(name)?,
            inner: self.inner.clone(),
        };
        reader::read(&self.inner.exchange, &self.reactor, source, blob, None)
    }

    /// Brings a blob there, unless something of its size is under the name and was written less than `young` ago.
    pub fn put_blob(
        &self,
        name: &str,
        blob: &Descriptor,
        open: OpenAt<'_>,
        young: Duration,
    ) -> Result<(), RegistryError> {
        let inner = &self.inner;
        let path = inner.path(name)?;
        let _turn = inner.exchange.turns.take(&inner.host, blob.digest);
        if inner.held().contains(name) {
            return Ok(());
        }
        let there = self.find(name)?;
        let is_young = |there: &Object| {
            // A time of tomorrow is another clock's.
            let age = SystemTime::now().duration_since(there.modified);
            age.is_ok_and(|age| age < young) || there.modified > SystemTime::now()
        };
        if !there.is_some_and(|there| there.size == blob.size && is_young(&there)) {
            self.upload(&path, blob.size, open)?;
        }
        inner.held().insert(name.to_owned());
        Ok(())
    }

    /// Tells whether something of this size is under a name.
    pub fn has(&self, name: &str, size: u64) -> Result<bool, RegistryError> {
        if self.inner.held().contains(name) {
            return Ok(true);
        }
        let has = self.find(name)?.is_some_and(|there| there.size == size);
        if has {
            self.inner.held().insert(name.to_owned());
        }
        Ok(has)
    }

    /// Returns what is under a name, without its bytes.
    pub fn find(&self, name: &str) -> Result<Option<Object>, RegistryError> {
        let path = self.inner.path(name)?;
        let there = self
            .reactor
            .block_on(self.inner.attempts(|| self.inner.head(&path)))?;
        found(there)
    }

    /// Lists what is under names that begin so.
    pub fn list(&self, prefix: &str) -> Result<Vec<Object>, RegistryError> {
        let mut objects = Vec::new();
        let mut token = None;
        loop {
            let page = self
                .reactor
                .block_on(self.inner.attempts(|| self.inner.page(prefix, &token)))??;
            objects.extend(page.result.objects.into_iter().map(Object::from));
            if objects.len() > MOST_NAMES {
                return Err(RegistryError::TooLarge {
                    what: format!("the list of s3://{}/{prefix}", self.inner.bucket),
                    limit: MOST_NAMES as u64,
                });
            }
            match page.page_token {
                Some(next) if Some(&next) != token.as_ref() => token = Some(next),
                _ => return Ok(objects),
            }
        }
    }

    /// Removes what is under a name, if there is anything.
    pub fn remove(&self, name: &str) -> Result<(), RegistryError> {
        let path = self.inner.path(name)?;
        self.inner.held().remove(name);
        let removed = self
            .reactor
            .block_on(self.inner.attempts(|| self.inner.delete(&path)))?;
        found(removed).map(|_| ())
    }

    fn upload(&self, path: &Path, size: u64, open: OpenAt<'_>) -> Result<(), RegistryError> {
        let inner = &self.inner;
        let what = inner.what(path);
        let piece_size = piece_size(size, inner.exchange.tuning().object_piece, MOST_PIECES);
        let mut pieces = Pieces::open(open, &what, size)?;
        if size <= piece_size {
            let bytes = pieces.next(piece_size)?.unwrap_or_default();
            if !bytes.is_empty() {
                // The end has to be where it should.
                pieces.next(1)?;
            }
            let put = inner.attempts(|| inner.put(path, bytes.clone()));
            return self.reactor.block_on(put)?;
        }
        let id = self
            .reactor
            .block_on(inner.attempts(|| inner.ask(inner.store.create_multipart(path))))??;
        let sent = send_all(&self.reactor, pieces, piece_size, |number, bytes| {
            let (inner, path, id) = (inner.clone(), path.clone(), id.clone());
            async move {
                let send = || {
                    let payload = PutPayload::from_bytes(bytes.clone());
                    inner.ask(inner.store.put_part(&path, &id, number, payload))
                };
                inner.attempts(send).await
            }
        });
        let done = sent.and_then(|parts| {
            let complete = || inner.ask(inner.store.complete_multipart(path, &id, parts.clone()));
            let completed = self.reactor.block_on(inner.attempts(complete))?;
            match completed {
                // An earlier attempt was heard, and only its answer was lost.
                Err(RegistryError::NotFound { .. }) => {
                    let there = inner.attempts(|| inner.head(path));
                    match self.reactor.block_on(there)??.size {
                        found if found == size => Ok(()),
                        found => Err(RegistryError::SizeMismatch {
                            what: inner.what(path),
                            expected: size,
                            found,
                        }),
                    }
                }
                completed => completed.map(|_| ()),
            }
        });
        if done.is_err() {
            // What is left over costs money until somebody removes it. A failure says no more than the first one.
            let abort = inner.store.abort_multipart(path, &id);
            drop(self.reactor.block_on(abort));
        }
        done
    }
}

impl Inner {
    fn path(&self, name: &str) -> Result<Path, RegistryError> {
        Path::parse(name).map_err(|_| RegistryError::Option {
            what: format!("`{name}` can be no name in the bucket `{}`", self.bucket),
        })
    }

    fn what(&self, path: &Path) -> String {
        format!("s3://{}/{path}", self.bucket)
    }

    fn held(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks once, and turns the crate's errors into this room's.
    async fn ask<T>(
        &self,
        request: impl Future<Output = object_store::Result<T>> + Send,
    ) -> Result<T, RegistryError> {
        request.await.map_err(|error| own_error(&self.host, &error))
    }

    /// Tries until there is a success, or a failure that stays.
    async fn attempts<T, F>(&self, once: impl Fn() -> F + Send) -> Result<T, RegistryError>
    where
        F: Future<Output = Result<T, RegistryError>> + Send,
    {
        let mut tries = Tries::new(self.exchange.tuning());
        let limit = self.exchange.tuning().commit;
        loop {
            let error = match tokio::time::timeout(limit, once()).await {
                Ok(Ok(done)) => return Ok(done),
                Ok(Err(error)) => error,
                Err(_) => RegistryError::Timeout {
                    host: self.host.clone(),
                    doing: "an answer was read",
                    after: limit,
                },
            };
            tries.after(error).await?;
        }
    }

    async fn whole(&self, path: &Path, limit: u64) -> Result<Vec<u8>, RegistryError> {
        let too_large = || RegistryError::TooLarge {
            what: self.what(path),
            limit,
        };
        let got = self.ask(self.store.get(path)).await?;
        if got.meta.size > limit {
            return Err(too_large());
        }
        let mut bytes = Vec::new();
        let mut stream = got.into_stream();
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(|error| own_error(&self.host, &error))?;
            if bytes.len() as u64 + chunk.len() as u64 > limit {
                return Err(too_large());
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    async fn put(&self, path: &Path, bytes: Bytes) -> Result<(), RegistryError> {
        let payload = PutPayload::from_bytes(bytes);
        self.ask(self.store.put(path, payload)).await?;
        Ok(())
    }

    async fn head(&self, path: &Path) -> Result<Object, RegistryError> {
        Ok(self.ask(self.store.head(path)).await?.into())
    }

    async fn delete(&self, path: &Path) -> Result<(), RegistryError> {
        self.ask(self.store.delete(path)).await
    }

    async fn page(
        &self,
        prefix: &str,
        token: &Option<String>,
    ) -> Result<object_store::list::PaginatedListResult, RegistryError> {
        let options = PaginatedListOptions {
            page_token: token.clone(),
            ..PaginatedListOptions::default()
        };
        self.ask(self.store.list_paginated(Some(prefix), options))
            .await
    }

    async fn range(&self, path: &Path, offset: u64) -> Result<GetResult, object_store::Error> {
        let range = (offset > 0).then_some(GetRange::Offset(offset));
        let options = GetOptions {
            range,
            ..GetOptions::default()
        };
        self.store.get_opts(path, options).await
    }
}

/// What is not there is nothing.
fn found<T>(found: Result<T, RegistryError>) -> Result<Option<T>, RegistryError> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(RegistryError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A blob that is read.
struct Reading {
    path: Path,
    inner: Arc<Inner>,
}

#[async_trait]
impl Source for Reading {
    async fn open(&self, offset: u64) -> Result<Opened, RegistryError> {
        let inner = &self.inner;
        let (got, skip) = match inner.range(&self.path, offset).await {
            Ok(got) => (got, 0),
            Err(error) => match own_error(&inner.host, &error) {
                // A store that does not know ranges gave the whole, which the crate does not take.
                RegistryError::Protocol { .. } if offset > 0 => {
                    let got = inner.ask(inner.range(&self.path, 0)).await?;
                    (got, offset)
                }
                error => return Err(error),
            },
        };
        let host = inner.host.clone();
        let bytes = got.into_stream();
        Ok(Opened {
            bytes: bytes
                .map(move |chunk| chunk.map_err(|error| own_error(&host, &error)))
                .boxed(),
            skip,
        })
    }

    fn what(&self) -> String {
        self.inner.what(&self.path)
    }

    fn host(&self) -> String {
        self.inner.host.clone()
    }
}
