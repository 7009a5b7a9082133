//! Reading a blob from wherever it can be opened at an offset: a stream that goes on after a cut, and ends well only if every byte was
//! right.
//!
//! As in [`pull`](super::super::pull), a task on the event loop receives; here there is one place to ask.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::super::error::RegistryError;
use super::super::exchange::Exchange;
use super::super::pull::{BlobReader, PIECES, is_short};
use super::super::reactor::Reactor;
use super::super::receipt::{Receipt, Stop};
use super::super::retry::Tries;
use crate::vocab::Descriptor;

/// Something that can be read from an offset on.
#[async_trait]
pub(super) trait Source: Send + Sync + 'static {
    async fn open(&self, offset: u64) -> Result<Opened, RegistryError>;

    /// In messages.
    fn what(&self) -> String;

    fn host(&self) -> String;
}

/// Bytes that begin at the offset, or `skip` bytes before it.
pub(super) struct Opened {
    pub(super) bytes: BoxStream<'static, Result<Bytes, RegistryError>>,
    pub(super) skip: u64,
}

/// Opens a blob; `None` if there is nothing under its name. `limit` is for all of it.
pub(super) fn read(
    exchange: &Arc<Exchange>,
    reactor: &Arc<Reactor>,
    source: impl Source,
    blob: &Descriptor,
    limit: Option<Duration>,
) -> Result<Option<BlobReader>, RegistryError> {
    let (sender, receiver) = mpsc::channel(PIECES);
    let mut transfer = Transfer {
        exchange: exchange.clone(),
        receipt: Receipt::new(blob, source.what(), sender),
        source: Box::new(source),
        limit,
        end: None,
    };
    let opened = reactor.block_on(async {
        transfer.end = limit.map(|limit| Instant::now() + limit);
        match transfer.open_first().await {
            Ok(first) => Ok(Some(tokio::spawn(transfer.run(first)).abort_handle())),
            Err(RegistryError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    })??;
    Ok(opened.map(|task| BlobReader::of(reactor, receiver, task)))
}

struct Transfer {
    exchange: Arc<Exchange>,
    source: Box<dyn Source>,
    receipt: Receipt,
    limit: Option<Duration>,
    end: Option<Instant>,
}

impl Transfer {
    async fn open_first(&self) -> Result<Opened, RegistryError> {
        let mut tries = Tries::new(self.exchange.tuning());
        loop {
            match self.open().await {
                Ok(opened) => return Ok(opened),
                Err(error) => tries.after(error).await?,
            }
        }
    }

    async fn run(mut self, first: Opened) {
        let transferred = self.transfer(first).await;
        self.receipt.conclude(transferred).await;
    }

    async fn transfer(&mut self, first: Opened) -> Result<(), Stop> {
        let mut tries = Tries::new(self.exchange.tuning());
        let mut opened = Some(first);
        let mut mark = 0;
        loop {
            let copied = match opened.take() {
                Some(opened) => self.copy(opened).await,
                None => match self.open().await {
                    Ok(opened) => self.copy(opened).await,
                    Err(error) => Err(Stop::Error(error)),
                },
            };
            let error = match copied {
                Ok(()) => break,
                Err(Stop::Unwanted) => return Err(Stop::Unwanted),
                Err(Stop::Error(error)) => error,
            };
            if self.receipt.done >= mark + self.exchange.tuning().progress {
                mark = self.receipt.done;
                tries.reset();
            }
            let waited = match is_short(&error) {
                true => tries.after_any(error).await,
                false => tries.after(error).await,
            };
            waited.map_err(Stop::Error)?;
        }
        self.receipt.verify().map_err(Stop::Error)
    }

    /// Asks for the bytes from `done` on.
    async fn open(&self) -> Result<Opened, RegistryError> {
        match self.end {
            None => self.source.open(self.receipt.done).await,
            Some(end) => {
                let opened = self.source.open(self.receipt.done);
                match tokio::time::timeout_at(end, opened).await {
                    Ok(opened) => opened,
                    Err(_) => Err(self.too_late()),
                }
            }
        }
    }

    async fn copy(&mut self, opened: Opened) -> Result<(), Stop> {
        let Opened {
            mut bytes,
            mut skip,
        } = opened;
        let idle = self.exchange.tuning().idle;
        loop {
            if self.end.is_some_and(|end| end <= Instant::now()) {
                return Err(Stop::Error(self.too_late()));
            }
            let next = tokio::time::timeout(idle, bytes.next()).await;
            let chunk = match next {
                Ok(Some(Ok(chunk))) => Some(chunk),
                Ok(None) => None,
                // Nothing was missing: what the connection did afterwards does not matter.
                _ if self.receipt.is_whole() && skip == 0 => None,
                Ok(Some(Err(error))) => return Err(Stop::Error(error)),
                Err(_) => {
                    return Err(Stop::Error(RegistryError::Timeout {
                        host: self.source.host(),
                        doing: "a body was read",
                        after: idle,
                    }));
                }
            };
            match chunk {
                Some(chunk) => self.receipt.take(chunk, &mut skip).await?,
                None => return self.receipt.end(),
            }
        }
    }

    /// More attempts would end in the same way; so it is no timeout of a request.
    fn too_late(&self) -> RegistryError {
        RegistryError::TookTooLong {
            host: self.source.host(),
            what: self.receipt.what.clone(),
            limit: self.limit.unwrap_or_default(),
        }
    }
}
