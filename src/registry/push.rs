//! Writing blobs: not at all if the registry has them, by mounting if a neighbour has them, else as one stream that goes on where
//! it was cut.
//!
//! ```text
//! HEAD ─ there ─────────────────────────────────────────────▶ existed
//!   └─ POST ?mount= ─ 201 ──────────────────────────────────▶ mounted
//!         └─ 202 ─┐
//! POST ───────────┴─ PATCH (all that is left) ─ PUT ?digest= ▶ uploaded
//!         ▲             │ cut                     │ cut
//!         └─ gone ── GET (how far?) ◀─────────────┘
//! POST ─ PUT ?digest= with all bytes, for small blobs and where PATCH is refused
//! ```
//!
//! A request whose body is refused as too large (413: a proxy's limit) is sent in smaller pieces, and so is what a registry keeps of
//! whole requests only. Several threads that push one blob to one registry take turns, so that its bytes go there once.
//!
//! Not every registry can go on: the widespread `distribution` daemon cancels an upload whose PATCH was cut. Then it begins anew.
//!
//! Bytes are read on the caller's thread and cross a bounded channel to the request, so that a source may be anything that reads.

use std::cell::Cell;
use std::io::{self, Read};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use reqwest::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderValue};
use reqwest::{Body, Method, Url};
use tokio::sync::mpsc;

use super::endpoint::Endpoint;
use super::error::{Cause, RegistryError};
use super::exchange::{Ask, Exchange, Target};
use super::reactor::Reactor;
use super::scope::Scopes;
use super::transport::{Answer, failure};
use crate::vocab::{Descriptor, ImageRef};

const PIECE: usize = 128 * 1024;
const PIECES: usize = 4;
/// Neighbours that are asked for a mount.
const MOST_MOUNTS: usize = 3;
/// Uploads from the first byte after the registry took all bytes and found them wrong.
const MOST_REFUSED_WHOLES: u32 = 2;

/// How a blob came to be in the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    Existed,
    Mounted,
    Uploaded,
}

/// Opens the bytes of a blob at an offset.
pub type OpenAt<'a> = &'a (dyn Fn(u64) -> io::Result<Box<dyn Read + Send>> + Sync);

/// One blob on its way.
pub(super) struct Push<'a> {
    pub(super) exchange: &'a Arc<Exchange>,
    pub(super) reactor: &'a Reactor,
    pub(super) image: &'a ImageRef,
    pub(super) descriptor: &'a Descriptor,
    pub(super) open: OpenAt<'a>,
    pub(super) progress: &'a (dyn Fn(u64) + Sync),
    /// Where the bytes that were handed to the last request end.
    pub(super) handed: Cell<u64>,
}

/// What is to be done next.
#[derive(Debug)]
enum Stage {
    Begin,
    /// Bytes up to `offset` are there.
    Send {
        session: Url,
        offset: u64,
    },
    SendWhole {
        session: Url,
    },
    Commit {
        session: Url,
    },
    Done,
}

/// How the bytes travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Pieces,
    /// In one request, because that is one less.
    WholeSinceSmall,
    /// In one request, because the registry refused pieces.
    WholeSinceRefused,
}

/// What came of asking for a mount.
enum Mount {
    Mounted,
    /// The registry would rather have the bytes, and opened this session for them.
    Session(Url),
    Refused,
}

impl Push<'_> {
    pub(super) fn run(&self, mount_from: &[String]) -> Result<Pushed, RegistryError> {
        let endpoint = self.exchange.origin(self.image);
        let digest = self.descriptor.digest;
        let _turn = self.exchange.turns.take(endpoint.host.registry(), digest);
        if self.exchange.holds(&endpoint, digest) {
            return Ok(Pushed::Existed);
        }
        let begun = self.reactor.block_on(async {
            if self.exists(&endpoint).await? {
                return Ok::<_, RegistryError>(None);
            }
            Ok(Some(self.mount(&endpoint, mount_from).await))
        })??;
        let pushed = match begun {
            None => Pushed::Existed,
            Some(Mount::Mounted) => Pushed::Mounted,
            Some(Mount::Session(session)) => {
                self.upload(&endpoint, Stage::Send { session, offset: 0 })?;
                Pushed::Uploaded
            }
            Some(Mount::Refused) => {
                self.upload(&endpoint, Stage::Begin)?;
                Pushed::Uploaded
            }
        };
        self.exchange.set_holds(&endpoint, digest);
        Ok(pushed)
    }

    fn what(&self) -> String {
        self.image.with_digest(self.descriptor.digest).to_string()
    }

    async fn exists(&self, endpoint: &Endpoint) -> Result<bool, RegistryError> {
        let tail = endpoint.tail(&format!("blobs/{}", self.descriptor.digest));
        let ask = Ask::write(Method::HEAD, endpoint, Target::Tail(tail), &self.what());
        // Whatever else it says: the upload will show.
        let answer = self
            .exchange
            .ask(endpoint, &ask, &[400, 403, 404, 405, 501])
            .await?;
        Ok(answer.status().is_success())
    }

    /// Asks neighbours for the blob. No failure here matters: the bytes can be sent.
    async fn mount(&self, endpoint: &Endpoint, mount_from: &[String]) -> Mount {
        let digest = self.descriptor.digest;
        let mut sources: Vec<String> = self.exchange.holder(endpoint, digest).into_iter().collect();
        for source in mount_from {
            if *source != endpoint.repository && !sources.contains(source) {
                sources.push(source.clone());
            }
        }
        sources.truncate(MOST_MOUNTS);
        let mut session = None;
        for source in sources {
            let tail = endpoint.tail(&format!("blobs/uploads/?mount={digest}&from={source}"));
            let mut ask = Ask::write(Method::POST, endpoint, Target::Tail(tail), &self.what());
            ask.scopes = Scopes::push(&endpoint.repository).and(&source, &["pull"]);
            ask.body = Some(Bytes::new());
            let Ok(answer) = self.exchange.ask_once(endpoint, &ask, &[]).await else {
                continue;
            };
            if let Some(unused) = session.take() {
                self.give_up(endpoint, unused).await;
            }
            if answer.status().as_u16() == 201 {
                return Mount::Mounted;
            }
            session = self.session_of(endpoint, &answer).ok();
        }
        match session {
            Some(session) => Mount::Session(session),
            None => Mount::Refused,
        }
    }

    /// Tells the registry that a session will not be used. It would time out anyway.
    async fn give_up(&self, endpoint: &Endpoint, session: Url) {
        let ask = Ask::write(Method::DELETE, endpoint, Target::Url(session), &self.what());
        drop(self.exchange.ask_once(endpoint, &ask, &[]).await);
    }

    fn upload(&self, endpoint: &Endpoint, first: Stage) -> Result<(), RegistryError> {
        let mut tries = self.exchange.tries(endpoint);
        let mut stage = first;
        let mut furthest = 0;
        let mut refused_wholes = 0;
        let mut most = self.exchange.largest_body(endpoint);
        let mut way = if endpoint.host.wants_whole_uploads() {
            Way::WholeSinceRefused
        } else if self.descriptor.size <= self.exchange.tuning().small_blob {
            Way::WholeSinceSmall
        } else {
            Way::Pieces
        };
        loop {
            let error = match self.step(endpoint, &stage, way, most) {
                Ok(Stage::Done) => break,
                Ok(next) => {
                    if let Stage::Send { offset, .. } = next
                        && offset >= furthest + self.exchange.tuning().progress
                    {
                        furthest = offset;
                        tries.reset();
                    }
                    stage = next;
                    continue;
                }
                Err(error) => error,
            };
            let status = status_of(&error);
            if let (Stage::Send { offset, .. }, Some(413), Way::Pieces) = (&stage, status, way)
                && let Some(smaller) = self.smaller(most, *offset)
            {
                self.exchange.set_largest_body(endpoint, smaller);
                most = Some(smaller);
                stage = self.reactor.block_on(self.recover(endpoint, stage))?;
                continue;
            }
            let is_refusal = matches!(status, Some(400 | 404 | 405 | 415 | 416 | 501));
            let next = match (&stage, is_refusal) {
                // A registry or a proxy that does not know uploads in pieces.
                (Stage::Send { offset: 0, .. }, true) if way == Way::Pieces => {
                    way = Way::WholeSinceRefused;
                    stage = Stage::Begin;
                    continue;
                }
                // Or the other way round.
                (Stage::SendWhole { .. }, true) if way == Way::WholeSinceSmall => {
                    way = Way::Pieces;
                    stage = Stage::Begin;
                    continue;
                }
                // All bytes came, and they were not the right ones: something between us changed them.
                (Stage::Commit { .. } | Stage::SendWhole { .. }, true)
                    if refused_wholes < MOST_REFUSED_WHOLES =>
                {
                    refused_wholes += 1;
                    self.reactor.block_on(tries.after_any(error))??;
                    Some(Stage::Begin)
                }
                // The session is not where we thought it is.
                (Stage::Send { .. }, true) => {
                    self.reactor.block_on(tries.after_any(error))??;
                    None
                }
                _ => {
                    self.reactor.block_on(tries.after(error))??;
                    None
                }
            };
            stage = match next {
                Some(next) => next,
                None => self.reactor.block_on(self.recover(endpoint, stage))?,
            };
            // The session stands, and what the broken request brought is not in it: the next one risks less.
            if let Stage::Send { offset, .. } = stage
                && way == Way::Pieces
                && self.handed.get() > offset + self.exchange.tuning().piece
            {
                most = Some(self.exchange.tuning().piece.min(most.unwrap_or(u64::MAX)));
            }
        }
        if way == Way::WholeSinceRefused {
            endpoint.host.set_wants_whole_uploads();
        }
        Ok(())
    }

    /// Returns how much to send in one request after a request was too large; nothing if it cannot be that.
    fn smaller(&self, most: Option<u64>, offset: u64) -> Option<u64> {
        let tuning = self.exchange.tuning();
        let tried = (self.descriptor.size - offset).min(most.unwrap_or(u64::MAX));
        let smaller = (tried / 2).min(tuning.largest_piece);
        (smaller >= tuning.smallest_piece).then_some(smaller)
    }

    fn step(
        &self,
        endpoint: &Endpoint,
        stage: &Stage,
        way: Way,
        most: Option<u64>,
    ) -> Result<Stage, RegistryError> {
        let size = self.descriptor.size;
        match stage {
            Stage::Begin => {
                let session = self.reactor.block_on(self.begin(endpoint))??;
                Ok(Stage::Send { session, offset: 0 })
            }
            Stage::Send { session, offset } if *offset >= size => Ok(Stage::Commit {
                session: session.clone(),
            }),
            Stage::Send { session, .. } if way != Way::Pieces => Ok(Stage::SendWhole {
                session: session.clone(),
            }),
            Stage::Send { session, offset } => {
                let end = offset.saturating_add(most.unwrap_or(u64::MAX)).min(size);
                let answer = self.stream(endpoint, Method::PATCH, session, *offset, end)?;
                let session = self.session_of(endpoint, &answer)?;
                // One that does not say how far it came has taken everything.
                let taken = match answer.header("range").and_then(bytes_taken) {
                    Some(taken) => taken,
                    None => end,
                };
                if taken > end || taken <= *offset {
                    return Err(RegistryError::Broken {
                        host: endpoint.host.registry().to_owned(),
                        source: Cause::new(format!(
                            "the upload stands at {taken} bytes after {end} were sent"
                        )),
                    });
                }
                Ok(Stage::Send {
                    session,
                    offset: taken,
                })
            }
            Stage::SendWhole { session } => {
                let session = self.with_digest(session);
                self.stream(endpoint, Method::PUT, &session, 0, size)?;
                Ok(Stage::Done)
            }
            Stage::Commit { session } => {
                self.reactor.block_on(self.commit(endpoint, session))??;
                Ok(Stage::Done)
            }
            Stage::Done => Ok(Stage::Done),
        }
    }

    async fn begin(&self, endpoint: &Endpoint) -> Result<Url, RegistryError> {
        let tail = endpoint.tail("blobs/uploads/");
        let mut ask = Ask::write(Method::POST, endpoint, Target::Tail(tail), &self.what());
        ask.body = Some(Bytes::new());
        let answer = self.exchange.ask_once(endpoint, &ask, &[]).await?;
        self.session_of(endpoint, &answer)
    }

    async fn commit(&self, endpoint: &Endpoint, session: &Url) -> Result<(), RegistryError> {
        let target = Target::Url(self.with_digest(session));
        let mut ask = Ask::write(Method::PUT, endpoint, target, &self.what());
        ask.headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/octet-stream"),
        );
        ask.body = Some(Bytes::new());
        ask.patience = Some(self.exchange.tuning().commit);
        self.exchange.ask_once(endpoint, &ask, &[]).await?;
        Ok(())
    }

    /// Finds out where an upload stands after a failure.
    async fn recover(&self, endpoint: &Endpoint, stage: Stage) -> Stage {
        let session = match stage {
            Stage::Send { session, .. } => session,
            Stage::Commit { session } => {
                // Only the answer may have been lost.
                if matches!(self.exists(endpoint).await, Ok(true)) {
                    return Stage::Done;
                }
                session
            }
            Stage::SendWhole { .. } => {
                return match self.exists(endpoint).await {
                    Ok(true) => Stage::Done,
                    _ => Stage::Begin,
                };
            }
            Stage::Begin | Stage::Done => return Stage::Begin,
        };
        let ask = Ask::write(
            Method::GET,
            endpoint,
            Target::Url(session.clone()),
            &self.what(),
        );
        let Ok(answer) = self.exchange.ask(endpoint, &ask, &[]).await else {
            return Stage::Begin;
        };
        let session = self.session_of(endpoint, &answer).unwrap_or(session);
        match answer.header("range").and_then(bytes_taken) {
            Some(offset) if offset <= self.descriptor.size => Stage::Send { session, offset },
            _ => Stage::Begin,
        }
    }

    /// Reads where the next request of an upload goes.
    fn session_of(&self, endpoint: &Endpoint, answer: &Answer) -> Result<Url, RegistryError> {
        let location = answer
            .header("location")
            .ok_or_else(|| RegistryError::Protocol {
                host: endpoint.host.registry().to_owned(),
                what: "an upload has no `Location`".to_owned(),
            })?;
        endpoint.host.location(answer.response.url(), location)
    }

    fn with_digest(&self, session: &Url) -> Url {
        let mut url = session.clone();
        url.query_pairs_mut()
            .append_pair("digest", &self.descriptor.digest.to_string());
        url
    }

    /// Sends the bytes from `offset` to `end`.
    fn stream(
        &self,
        endpoint: &Endpoint,
        method: Method,
        url: &Url,
        offset: u64,
        end: u64,
    ) -> Result<Answer, RegistryError> {
        self.handed.set(offset);
        let ask = Ask::write(method, endpoint, Target::Url(url.clone()), &self.what());
        let length = end - offset;
        let source = (self.open)(offset).map_err(|source| RegistryError::Local {
            what: self.what(),
            source,
        })?;
        let is_own = endpoint.host.is_origin_of(url);
        let grant = if is_own {
            self.reactor
                .block_on(self.exchange.authorization(endpoint, &ask.scopes))??
        } else {
            None
        };
        let mut request = self
            .exchange
            .transport()
            .client(endpoint.host.rules(), url)?
            .request(ask.method.clone(), url.clone())
            .header(CONTENT_TYPE, "application/octet-stream")
            // Of a known length: some registries and proxies take no chunked body.
            .header(CONTENT_LENGTH, length);
        // A body that is all there is has no range: some registries take one for a wish that they do not grant.
        if offset > 0 || end < self.descriptor.size {
            request = request.header(CONTENT_RANGE, format!("{offset}-{}", end - 1));
        }
        if is_own {
            request = request.headers(
                endpoint
                    .host
                    .rules()
                    .headers(&super::transport::authority(url)),
            );
        }
        if let Some(grant) = &grant {
            let own = [(AUTHORIZATION, grant.header.clone())];
            // In the place of what a file may have said.
            request = request.headers(own.into_iter().collect());
        }
        let response = self.pour(request, source, url, offset, end)?;
        let answer = Answer {
            response,
            is_foreign: !is_own,
        };
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        if status.as_u16() == 401 && is_own {
            let headers = answer.response.headers().clone();
            let renewed = self.reactor.block_on(self.exchange.renew(
                endpoint,
                &ask.scopes,
                grant.as_ref(),
                &headers,
            ))??;
            if renewed.is_some() {
                return Err(RegistryError::Broken {
                    host: endpoint.host.registry().to_owned(),
                    source: Cause::new("a token ended while bytes were sent"),
                });
            }
        }
        let refusal = self
            .exchange
            .refusal(endpoint, &ask, answer, grant.as_ref());
        Err(self.reactor.block_on(refusal)?)
    }

    /// Reads the source on this thread and hands its bytes to the request, until either ends.
    fn pour(
        &self,
        request: reqwest::RequestBuilder,
        mut source: Box<dyn Read + Send>,
        url: &Url,
        offset: u64,
        end: u64,
    ) -> Result<reqwest::Response, RegistryError> {
        let tuning = self.exchange.tuning();
        let timeout = |doing, after| RegistryError::Timeout {
            host: super::transport::authority(url),
            doing,
            after,
        };
        let (sender, receiver) = mpsc::channel::<io::Result<Bytes>>(PIECES);
        let body = Body::wrap_stream(stream::unfold(receiver, |mut receiver| async {
            let piece = receiver.recv().await?;
            Some((piece, receiver))
        }));
        let mut task = self
            .reactor
            .block_on(async { AbortOnDrop(tokio::spawn(request.body(body).send())) })?;
        let mut early = None;
        let mut at = offset;
        while at < end {
            let piece = self.piece(&mut source, at, end)?;
            let length = piece.len() as u64;
            let fate = self.reactor.block_on(async {
                tokio::select! {
                    biased;
                    answer = &mut task.0 => Fate::Answered(answer),
                    sent = tokio::time::timeout(tuning.idle, sender.send(Ok(piece))) => match sent {
                        Ok(Ok(())) => Fate::Taken,
                        Ok(Err(_)) => Fate::Unwanted,
                        Err(_) => Fate::Stuck,
                    },
                }
            })?;
            match fate {
                Fate::Taken => {
                    at += length;
                    self.handed.set(at);
                    (self.progress)(at);
                }
                Fate::Answered(answer) => {
                    early = Some(answer);
                    break;
                }
                Fate::Unwanted => break,
                Fate::Stuck => return Err(timeout("bytes were sent", tuning.idle)),
            }
        }
        drop(sender);
        let answer = match early {
            Some(answer) => answer,
            None => self
                .reactor
                .block_on(async { tokio::time::timeout(tuning.commit, &mut task.0).await })?
                .map_err(|_| timeout("the end of an upload was awaited", tuning.commit))?,
        };
        match answer {
            Ok(answer) => answer.map_err(|error| failure(url, error, tuning.connect)),
            Err(error) => Err(RegistryError::Broken {
                host: super::transport::authority(url),
                source: Cause::of(&error),
            }),
        }
    }

    /// Reads the next piece of what goes up to `end`; the last one of all only if nothing follows it.
    fn piece(&self, source: &mut dyn Read, at: u64, end: u64) -> Result<Bytes, RegistryError> {
        let local = |source| RegistryError::Local {
            what: self.what(),
            source,
        };
        let wrong_size = |found| RegistryError::SizeMismatch {
            what: format!("the local copy of {}", self.what()),
            expected: self.descriptor.size,
            found,
        };
        let left = end - at;
        let wanted = usize::try_from(left).map_or(PIECE, |left| left.min(PIECE));
        let mut piece = vec![0; wanted];
        let mut filled = 0;
        while filled < wanted {
            match source.read(&mut piece[filled..]) {
                Ok(0) => return Err(wrong_size(at + filled as u64)),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(local(error)),
            }
        }
        if at + wanted as u64 == self.descriptor.size {
            let mut beyond = [0];
            loop {
                match source.read(&mut beyond) {
                    Ok(0) => break,
                    Ok(_) => return Err(wrong_size(self.descriptor.size + 1)),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(local(error)),
                }
            }
        }
        Ok(piece.into())
    }
}

type Joined = Result<reqwest::Result<reqwest::Response>, tokio::task::JoinError>;

/// What became of one piece.
enum Fate {
    Taken,
    /// The request ended before its body.
    Answered(Joined),
    /// The request has let go of its body; its answer comes next.
    Unwanted,
    Stuck,
}

/// A request that does not outlive the interest in it.
struct AbortOnDrop(tokio::task::JoinHandle<reqwest::Result<reqwest::Response>>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn status_of(error: &RegistryError) -> Option<u16> {
    match error {
        RegistryError::Status { status, .. } => Some(*status),
        RegistryError::NotFound { .. } => Some(404),
        _ => None,
    }
}

/// Reads the `Range` of an upload, `0-END` with END included. `0-0` is what registries say of an empty one.
fn bytes_taken(text: &str) -> Option<u64> {
    let text = text.trim();
    let (start, end) = text
        .strip_prefix("bytes=")
        .unwrap_or(text)
        .split_once('-')?;
    if start.trim() != "0" {
        return None;
    }
    match end.trim().parse::<u64>().ok()? {
        0 => Some(0),
        end => end.checked_add(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_range_of_an_upload_is_its_length() {
        for (text, taken) in [
            ("0-0", Some(0)),
            ("0-1023", Some(1024)),
            ("bytes=0-9", Some(10)),
            ("5-9", None),
            ("0-18446744073709551615", None),
            ("", None),
            ("x-y", None),
        ] {
            assert_eq!(bytes_taken(text), taken, "{text}");
        }
    }
}
