//! Reading blobs: a stream that survives cut connections and ends well only if every byte was right.
//!
//! A task on the event loop receives, counts and hashes; pieces cross a bounded channel to whoever reads. After a cut the transfer
//! goes on at the byte that it had reached, with the hash that it had, at the next place if the first one stays out of reach.

use std::io::{self, Read};
use std::sync::Arc;

use bytes::{Buf, Bytes};
use reqwest::header::{ACCEPT_ENCODING, HeaderValue, RANGE};
use reqwest::{Method, StatusCode};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::endpoint::Endpoint;
use super::error::RegistryError;
use super::exchange::{Ask, Exchange, Trail};
use super::reactor::Reactor;
use super::receipt::{Receipt, Stop};
use super::transport::Answer;
use crate::vocab::{Descriptor, ImageRef};

/// Pieces that wait for the reader; each is at most a few hundred KiB.
pub(super) const PIECES: usize = 8;

/// The bytes of a blob. A read that gives 0 means that length and digest were right; everything else ends with an error.
pub struct BlobReader {
    reactor: Arc<Reactor>,
    pieces: mpsc::Receiver<Piece>,
    piece: Bytes,
    end: Option<End>,
    task: AbortHandle,
}

/// What a transfer hands to the reader.
pub(super) enum Piece {
    Bytes(Bytes),
    Verified,
    Failed(RegistryError),
}

#[derive(Clone, Copy)]
enum End {
    Verified,
    Failed,
}

impl std::fmt::Debug for BlobReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BlobReader")
    }
}

impl BlobReader {
    /// Asks `sources` for a blob and waits until the first of them answers.
    pub(super) fn open(
        exchange: &Arc<Exchange>,
        reactor: &Arc<Reactor>,
        sources: Vec<Endpoint>,
        image: &ImageRef,
        descriptor: &Descriptor,
    ) -> Result<BlobReader, RegistryError> {
        let (sender, receiver) = mpsc::channel(PIECES);
        let transfer = Transfer {
            exchange: exchange.clone(),
            sources,
            at: 0,
            trail: Trail::default(),
            receipt: Receipt::new(
                descriptor,
                image.with_digest(descriptor.digest).to_string(),
                sender,
            ),
        };
        let task = reactor.block_on(async {
            let mut transfer = transfer;
            let first = transfer.open_first().await?;
            Ok::<_, RegistryError>(tokio::spawn(transfer.run(first)).abort_handle())
        })??;
        Ok(BlobReader::of(reactor, receiver, task))
    }

    /// Reads what a task on the event loop sends.
    pub(super) fn of(
        reactor: &Arc<Reactor>,
        pieces: mpsc::Receiver<Piece>,
        task: AbortHandle,
    ) -> BlobReader {
        BlobReader {
            reactor: reactor.clone(),
            pieces,
            piece: Bytes::new(),
            end: None,
            task,
        }
    }
}

impl Read for BlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        while self.piece.is_empty() {
            match self.end {
                Some(End::Verified) => return Ok(0),
                Some(End::Failed) => {
                    return Err(io::Error::other("the transfer of the blob has failed"));
                }
                None => {}
            }
            let piece = self
                .reactor
                .block_on(self.pieces.recv())
                .map_err(RegistryError::into_io)?;
            match piece {
                Some(Piece::Bytes(bytes)) => self.piece = bytes,
                Some(Piece::Verified) => self.end = Some(End::Verified),
                Some(Piece::Failed(error)) => {
                    self.end = Some(End::Failed);
                    return Err(error.into_io());
                }
                // The task is gone without a word: the event loop ended.
                None => self.end = Some(End::Failed),
            }
        }
        let count = buffer.len().min(self.piece.len());
        self.piece.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}

impl Drop for BlobReader {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The sending side.
struct Transfer {
    exchange: Arc<Exchange>,
    sources: Vec<Endpoint>,
    /// Which of the sources is asked.
    at: usize,
    trail: Trail,
    receipt: Receipt,
}

/// An answer, and how many bytes at its beginning are known already.
struct Opened {
    answer: Answer,
    skip: u64,
}

impl Transfer {
    async fn open_first(&mut self) -> Result<Opened, RegistryError> {
        loop {
            let endpoint = self.sources[self.at].clone();
            let mut tries = self.exchange.tries(&endpoint);
            let error = loop {
                match self.open(&endpoint).await {
                    Ok(opened) => return Ok(opened),
                    Err(error) => {
                        let waited = match is_short(&error) {
                            true => tries.after_any(error).await,
                            false => tries.after(error).await,
                        };
                        if let Err(error) = waited {
                            break error;
                        }
                    }
                }
            };
            self.go_on_elsewhere(error)?;
        }
    }

    async fn run(mut self, first: Opened) {
        let transferred = self.transfer(first).await;
        self.receipt.conclude(transferred).await;
    }

    async fn transfer(&mut self, first: Opened) -> Result<(), Stop> {
        let mut tries = self.exchange.tries(&self.sources[self.at]);
        let mut opened = Some(first);
        let mut mark = 0;
        loop {
            let endpoint = self.sources[self.at].clone();
            let copied = match opened.take() {
                Some(opened) => self.copy(opened).await,
                None => match self.open(&endpoint).await {
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
            let stays = if is_short(&error) {
                tries.after_any(error).await
            } else {
                tries.after(error).await
            };
            if let Err(error) = stays {
                self.go_on_elsewhere(error).map_err(Stop::Error)?;
                tries = self.exchange.tries(&self.sources[self.at]);
            }
        }
        let Err(error) = self.receipt.verify() else {
            return Ok(());
        };
        // The bytes are out; the next attempt should not meet the same mirror.
        for endpoint in &self.sources[..=self.at] {
            if endpoint.is_mirror {
                endpoint.host.set_down(&format!(
                    "`{}` sent wrong bytes of `{}`",
                    endpoint.host.registry(),
                    self.receipt.what
                ));
            }
        }
        Err(Stop::Error(error))
    }

    /// Turns to the next source, or ends with what went wrong at all of them.
    fn go_on_elsewhere(&mut self, error: RegistryError) -> Result<(), RegistryError> {
        self.trail.add(&self.sources[self.at], error);
        self.at += 1;
        if self.at < self.sources.len() {
            return Ok(());
        }
        Err(std::mem::take(&mut self.trail).into_error())
    }

    /// Asks for the bytes from `done` on.
    async fn open(&self, endpoint: &Endpoint) -> Result<Opened, RegistryError> {
        let receipt = &self.receipt;
        let (digest, size) = (receipt.blob.digest, receipt.blob.size);
        let tail = format!("blobs/{digest}");
        let mut ask = Ask::read(Method::GET, endpoint, &tail, &receipt.what);
        ask.headers
            .insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if receipt.done > 0 {
            let range = format!("bytes={}-", receipt.done);
            ask.headers.insert(
                RANGE,
                HeaderValue::from_str(&range).expect("digits are plain text"),
            );
        }
        let answer = self.exchange.ask_once(endpoint, &ask, &[416]).await?;
        match answer.status() {
            StatusCode::PARTIAL_CONTENT => {
                let range = answer.header("content-range").and_then(content_range);
                match range {
                    Some((_, Some(total))) if total != size => Err(receipt.wrong_size(total)),
                    Some((start, _)) if start == receipt.done => Ok(Opened { answer, skip: 0 }),
                    _ => Err(RegistryError::Protocol {
                        host: endpoint.host.registry().to_owned(),
                        what: "it sent another range than was asked for".to_owned(),
                    }),
                }
            }
            StatusCode::RANGE_NOT_SATISFIABLE => Err(receipt.wrong_size(receipt.done)),
            StatusCode::OK => match answer.length() {
                Some(length) if length != size => Err(receipt.wrong_size(length)),
                _ => Ok(Opened {
                    answer,
                    skip: receipt.done,
                }),
            },
            status => Err(RegistryError::Protocol {
                host: endpoint.host.registry().to_owned(),
                what: format!("it answered a blob's request with status {status}"),
            }),
        }
    }

    async fn copy(&mut self, opened: Opened) -> Result<(), Stop> {
        let Opened { answer, mut skip } = opened;
        let mut response = answer.response;
        loop {
            let chunk = match self.exchange.transport().chunk(&mut response).await {
                Ok(chunk) => chunk,
                // Nothing was missing: what the connection did afterwards does not matter.
                Err(_) if self.receipt.is_whole() && skip == 0 => None,
                Err(error) => return Err(Stop::Error(error)),
            };
            match chunk {
                Some(chunk) => self.receipt.take(chunk, &mut skip).await?,
                None => return self.receipt.end(),
            }
        }
    }
}

/// Tells whether a body ended early, or said that it would: it may have been cut where nothing shows it.
pub(super) fn is_short(error: &RegistryError) -> bool {
    matches!(error, RegistryError::SizeMismatch { expected, found, .. } if found < expected)
}

/// Reads `bytes START-END/TOTAL`, where TOTAL may be `*`.
pub(super) fn content_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = text.trim().strip_prefix("bytes")?.trim().split_once('/')?;
    let (start, _) = range.split_once('-')?;
    Some((start.trim().parse().ok()?, total.trim().parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges_are_read() {
        assert_eq!(content_range("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(content_range("bytes 5-9/*"), Some((5, None)));
        assert_eq!(content_range("bytes */10"), None);
        assert_eq!(content_range("5-9/10"), None);
    }
}
