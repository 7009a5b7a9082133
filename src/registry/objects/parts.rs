//! A large blob in pieces, several at the same time.
//!
//! Pieces are read on the caller's thread, one after the other, and sent by tasks on the event loop; each is tried again by itself, so
//! that nothing is read twice. As many are in memory as travel, and one more.

use std::future::Future;
use std::io::Read;

use bytes::Bytes;
use tokio::task::JoinSet;

use super::super::error::RegistryError;
use super::super::push::OpenAt;
use super::super::reactor::Reactor;

/// Pieces of one blob that travel at the same time.
const AT_ONCE: usize = 3;

/// The bytes of a blob, piece by piece.
pub(super) struct Pieces<'a> {
    reader: Box<dyn Read + Send + 'a>,
    what: &'a str,
    left: u64,
    size: u64,
}

impl<'a> Pieces<'a> {
    /// Opens a blob of `size` bytes.
    pub(super) fn open(
        open: OpenAt<'a>,
        what: &'a str,
        size: u64,
    ) -> Result<Pieces<'a>, RegistryError> {
        let reader = open(0).map_err(|source| local(what, source))?;
        Ok(Pieces {
            reader,
            what,
            left: size,
            size,
        })
    }

    /// Reads the next piece of at most `most` bytes; `None` at the end, which has to be where it should.
    pub(super) fn next(&mut self, most: u64) -> Result<Option<Bytes>, RegistryError> {
        let wrong_size = |found| RegistryError::SizeMismatch {
            what: self.what.to_owned(),
            expected: self.size,
            found,
        };
        let length = self.left.min(most);
        if length == 0 {
            let more = self.reader.read(&mut [0]);
            return match more.map_err(|source| local(self.what, source))? {
                0 => Ok(None),
                _ => Err(wrong_size(self.size + 1)),
            };
        }
        let mut piece = Vec::with_capacity(length as usize);
        (&mut self.reader)
            .take(length)
            .read_to_end(&mut piece)
            .map_err(|source| local(self.what, source))?;
        if piece.len() as u64 != length {
            return Err(wrong_size(self.size - self.left + piece.len() as u64));
        }
        self.left -= length;
        Ok(Some(piece.into()))
    }
}

fn local(what: &str, source: std::io::Error) -> RegistryError {
    RegistryError::Local {
        what: what.to_owned(),
        source,
    }
}

/// Returns how large the pieces of a blob are: no smaller than `least`, and no more than `most` of them.
pub(super) fn piece_size(size: u64, least: u64, most: u64) -> u64 {
    least.max(size.div_ceil(most))
}

/// Sends all pieces, and returns what came of them, in order.
pub(super) fn send_all<T, F>(
    reactor: &Reactor,
    mut pieces: Pieces<'_>,
    piece_size: u64,
    send: impl Fn(usize, Bytes) -> F,
) -> Result<Vec<T>, RegistryError>
where
    T: Send + 'static,
    F: Future<Output = Result<T, RegistryError>> + Send + 'static,
{
    let mut tasks = JoinSet::new();
    let mut sent: Vec<(usize, T)> = Vec::new();
    let mut number = 0;
    while let Some(piece) = pieces.next(piece_size)? {
        let future = send(number, piece);
        number += 1;
        reactor.block_on(async {
            let at = number - 1;
            tasks.spawn(async move { (at, future.await) });
            if tasks.len() >= AT_ONCE {
                take(&mut tasks, &mut sent).await?;
            }
            Ok::<_, RegistryError>(())
        })??;
    }
    reactor.block_on(async {
        while !tasks.is_empty() {
            take(&mut tasks, &mut sent).await?;
        }
        Ok::<_, RegistryError>(())
    })??;
    sent.sort_by_key(|(at, _)| *at);
    Ok(sent.into_iter().map(|(_, what)| what).collect())
}

/// Waits for one piece.
async fn take<T: 'static>(
    tasks: &mut JoinSet<(usize, Result<T, RegistryError>)>,
    sent: &mut Vec<(usize, T)>,
) -> Result<(), RegistryError> {
    match tasks.join_next().await {
        Some(Ok((at, came))) => sent.push((at, came?)),
        // Nobody aborts them but by dropping the set.
        Some(Err(_)) => return Err(RegistryError::Cancelled),
        None => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::registry::Threads;

    fn open_of(bytes: &[u8]) -> impl Fn(u64) -> io::Result<Box<dyn Read + Send>> + Sync {
        let bytes = bytes.to_vec();
        move |offset| Ok(Box::new(io::Cursor::new(bytes[offset as usize..].to_vec())) as _)
    }

    #[test]
    fn pieces_are_sent_in_whole_and_told_of_in_order() {
        let bytes: Vec<u8> = (0..=255).cycle().take(1001).collect();
        for threads in [Threads::None, Threads::Some] {
            let reactor = Reactor::new(threads);
            for size in [1, 100, 1000, 1001, 5000] {
                let open = open_of(&bytes);
                let pieces = Pieces::open(&open, "x", 1001).unwrap();
                let sent = send_all(&reactor, pieces, size, |at, piece| async move {
                    // The later ones are done first.
                    for _ in 0..1000_usize.saturating_sub(at) % 7 {
                        tokio::task::yield_now().await;
                    }
                    Ok(piece)
                });
                assert_eq!(sent.unwrap().concat(), bytes, "{size}");
            }
        }
    }

    #[test]
    fn a_blob_of_another_size_and_a_piece_that_fails_end_it() {
        let reactor = Reactor::new(Threads::None);
        let send = |size: u64, fails_at: usize| {
            let open = open_of(&[7; 100]);
            let pieces = Pieces::open(&open, "x", size).unwrap();
            let sent = send_all(&reactor, pieces, 10, |at, piece| async move {
                match at == fails_at {
                    true => Err(RegistryError::Cancelled),
                    false => Ok(piece.len()),
                }
            });
            sent.map_err(|error| error.to_string())
        };
        assert_eq!(send(100, 99).unwrap(), [10; 10]);
        assert!(send(100, 0).unwrap_err().contains("cancelled"));
        assert!(send(100, 9).unwrap_err().contains("cancelled"));
        assert!(send(99, 99).unwrap_err().contains("has another size"));
        assert!(send(101, 99).unwrap_err().contains("has another size"));
    }

    #[test]
    fn pieces_are_neither_too_small_nor_too_many() {
        assert_eq!(piece_size(1, 8, 100), 8);
        assert_eq!(piece_size(800, 8, 100), 8);
        assert_eq!(piece_size(801, 8, 100), 9);
    }
}
