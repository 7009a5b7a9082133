//! The socket between the builder and init: bytes with descriptors, and the end of either side as a signal.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// Descriptors in one message at most; the kernel takes no more.
pub(super) const DESCRIPTORS: usize = 253;
/// Instructions longer than this are refused: nothing a build has comes near.
const LONGEST: u64 = 1 << 30;

/// Sends `bytes` with their length before them, and the descriptors with the length.
pub(super) fn send(socket: &UnixStream, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let length = bytes.len() as u64;
    if length > LONGEST {
        return Err(io::Error::from_raw_os_error(libc::E2BIG));
    }
    pass(socket, &length.to_le_bytes(), fds)?;
    let mut socket = socket;
    socket.write_all(bytes)
}

/// Receives what [`send`] sent.
pub(super) fn receive(socket: &UnixStream) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut length = [0; 8];
    let (count, fds) = take(socket, &mut length)?;
    let mut reader = socket;
    reader.read_exact(&mut length[count..])?;
    let length = u64::from_le_bytes(length);
    if length > LONGEST {
        return Err(io::Error::from_raw_os_error(libc::E2BIG));
    }
    let mut bytes = Vec::new();
    reader.take(length).read_to_end(&mut bytes)?;
    if bytes.len() as u64 != length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok((bytes, fds))
}

/// Sends a few bytes with descriptors, in one message.
pub(super) fn pass(socket: &UnixStream, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::from_raw_os_error(libc::E2BIG));
    }
    let sent = sendmsg(
        socket.as_fd(),
        &[IoSlice::new(bytes)],
        &mut ancillary,
        SendFlags::NOSIGNAL,
    )?;
    if sent != bytes.len() {
        return Err(io::ErrorKind::WriteZero.into());
    }
    Ok(())
}

/// Receives some bytes and the descriptors that came with them; 0 bytes are the end.
pub(super) fn take(socket: &UnixStream, bytes: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        match recvmsg(
            socket.as_fd(),
            &mut [IoSliceMut::new(bytes)],
            &mut ancillary,
            RecvFlags::CMSG_CLOEXEC,
        ) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other?,
        }
    };
    let mut fds = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            fds.extend(descriptors);
        }
    }
    Ok((received.bytes, fds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_descriptors_arrive_together() {
        let (here, there) = UnixStream::pair().unwrap();
        let bytes: Vec<u8> = (0..1_000_000_u32).map(|n| n as u8).collect();
        let sent = bytes.clone();
        let sender = std::thread::spawn(move || {
            let (reader, writer) = io::pipe().unwrap();
            send(&here, &sent, &[reader.as_fd(), writer.as_fd()]).unwrap();
        });
        let (received, fds) = receive(&there).unwrap();
        sender.join().unwrap();
        assert_eq!(received, bytes);
        assert_eq!(fds.len(), 2);
    }

    #[test]
    fn an_early_end_is_an_error() {
        let (here, there) = UnixStream::pair().unwrap();
        pass(&here, &100_u64.to_le_bytes(), &[]).unwrap();
        drop(here);
        assert!(receive(&there).is_err());
    }
}
