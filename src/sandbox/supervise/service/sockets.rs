//! Sockets with names in the tree.
//!
//! A socket of the local family is made here and passed; a twin stays, since nobody may take one from the command later
//! (`pidfd_getfd` is forbidden in containers). When the command binds or connects its socket, that is done to the twin, which is
//! the same socket. Its use is over then and it is closed: one that stayed open would keep a connection up that the command
//! has closed. How the command named it is remembered, to be told again.

use std::collections::HashMap;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};

use rustix::fs::{AtFlags, OFlags, StatxFlags, fcntl_getfl, fcntl_setfl, statx};
use rustix::io::Errno;
use rustix::net::{SocketAddrUnix, bind, connect, sendto};

use crate::vocab::mode_on_disk;

use super::super::guest::{Node, place_of};
use super::super::listener::Answer;
use super::super::permission::WRITE;
use super::super::supervision::{Caller, Supervision};

/// Twins that are kept; the oldest goes first. Most sockets are connected at once.
const MOST: usize = 256;
/// Names that are remembered.
const MOST_NAMES: usize = 4096;
/// `struct sockaddr_un`: family, path.
const ADDRESS: usize = 110;
const PATH_AT: usize = 2;
/// The longest message that is sent for the command; more than a socket takes by default.
const LONGEST: u64 = 1 << 20;

#[derive(Debug, Default)]
pub(super) struct Sockets {
    /// By inode, with the order in which they came.
    twins: HashMap<u64, (u64, OwnedFd)>,
    names: HashMap<u64, Vec<u8>>,
    count: u64,
}

impl Sockets {
    fn keep(&mut self, inode: u64, twin: OwnedFd) {
        self.count += 1;
        self.twins.insert(inode, (self.count, twin));
        if self.twins.len() > MOST {
            let oldest = self.twins.iter().min_by_key(|(_, (age, _))| *age);
            if let Some(oldest) = oldest.map(|(inode, _)| *inode) {
                self.twins.remove(&oldest);
            }
        }
    }
}

/// Where a socket is to be bound or connected.
enum Address {
    /// A path in the root.
    Path(Vec<u8>),
    /// Nothing of the tree's: another family, an abstract name, none.
    Other,
}

impl Supervision {
    pub(super) fn socket(&mut self, caller: &Caller) -> Result<Answer, Errno> {
        // Others are held only where there is to be no network. Netlink tells of interfaces, which are no secret; the audit
        // system's is not for a container.
        match caller.number(0).cast_signed() {
            libc::AF_UNIX => {}
            libc::AF_NETLINK if caller.number(2).cast_signed() == libc::NETLINK_AUDIT => {
                return Err(Errno::PROTONOSUPPORT);
            }
            libc::AF_NETLINK => return Ok(Answer::Continue),
            _ => return Err(Errno::AFNOSUPPORT),
        }
        let kind = caller.number(1).cast_signed();
        let flags = kind & libc::SOCK_CLOEXEC;
        // SAFETY: takes three numbers.
        let made = unsafe {
            libc::socket(
                libc::AF_UNIX,
                kind | libc::SOCK_CLOEXEC,
                caller.number(2).cast_signed(),
            )
        };
        if made < 0 {
            let error = std::io::Error::last_os_error();
            return Err(Errno::from_io_error(&error).unwrap_or(Errno::IO));
        }
        // SAFETY: the call has just returned this descriptor, which nobody else knows.
        let fd = unsafe { OwnedFd::from_raw_fd(made) };
        let inode = statx(&fd, c"", AtFlags::EMPTY_PATH, StatxFlags::INO)?.stx_ino;
        if let Ok(twin) = fd.try_clone() {
            let sockets = &mut self.service().sockets;
            // The number is a new socket's.
            sockets.names.remove(&inode);
            sockets.keep(inode, twin);
        }
        Ok(Answer::Descriptor {
            fd,
            close_on_exec: flags != 0,
        })
    }

    /// Returns the inode of a descriptor, if that is a socket.
    fn socket_inode(&mut self, caller: &Caller, descriptor: i32) -> Result<Option<u64>, Errno> {
        let place = match descriptor {
            0.. => place_of(caller.thread, descriptor)?,
            _ => return Err(Errno::BADF),
        };
        let proc = self.service().guest.proc().clone();
        let wanted = StatxFlags::INO | StatxFlags::TYPE;
        let stat =
            statx(&*proc, place.as_slice(), AtFlags::empty(), wanted).map_err(
                |errno| match errno {
                    Errno::NOENT => Errno::BADF,
                    errno => errno,
                },
            )?;
        let is_socket = u32::from(stat.stx_mode) & libc::S_IFMT == libc::S_IFSOCK;
        Ok(is_socket.then_some(stat.stx_ino))
    }

    /// Returns the twin of the socket in the first argument.
    fn twin(&mut self, caller: &Caller) -> Result<(u64, OwnedFd), Errno> {
        let descriptor = caller.number(0).cast_signed();
        let inode = self
            .socket_inode(caller, descriptor)?
            .ok_or(Errno::NOTSOCK)?;
        let (_, twin) = self
            .service()
            .sockets
            .twins
            .get(&inode)
            .ok_or(Errno::ACCESS)?;
        let twin = twin
            .try_clone()
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::MFILE))?;
        Ok((inode, twin))
    }

    pub(super) fn bind(&mut self, caller: &Caller) -> Result<Answer, Errno> {
        let Address::Path(path) = address(caller, caller.arguments[1], caller.number(2))? else {
            return Ok(Answer::Continue);
        };
        let (inode, twin) = self.twin(caller)?;
        let (guest, asker) = self.scene(caller)?;
        let slot = guest.slot(&asker, libc::AT_FDCWD, &path)?;
        let who = self.credentials(caller)?;
        let (mode, gid) = match self.prepare_to_make(caller, &slot, 0o777, false) {
            Err(Errno::EXIST) => return Err(Errno::ADDRINUSE),
            other => other?,
        };
        let directory = super::super::guest::own(slot.directory.as_fd());
        let host = [b"/proc/", directory.as_slice(), b"/", &slot.name].concat();
        bind(&twin, &SocketAddrUnix::new(host)?)?;
        let made = rustix::fs::openat(
            &*slot.directory,
            slot.name.as_slice(),
            OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        )?;
        let on_disk = mode_on_disk(mode, false);
        let proc = self.service().guest.proc().clone();
        let place = super::super::guest::own(made.as_fd());
        let raw = rustix::fs::Mode::from_raw_mode(on_disk);
        rustix::fs::chmodat(&*proc, place.as_slice(), raw, AtFlags::empty())?;
        self.record_new(made.as_fd(), (who.user.file, gid), mode, on_disk)?;
        let sockets = &mut self.service().sockets;
        if sockets.names.len() >= MOST_NAMES {
            sockets.names.clear();
        }
        sockets.names.insert(inode, path);
        // One that receives datagrams has no connection to keep up, and may yet be connected.
        if rustix::net::sockopt::socket_type(&twin)? != rustix::net::SocketType::DGRAM {
            sockets.twins.remove(&inode);
        }
        Ok(Answer::Value(0))
    }

    pub(super) fn connect(&mut self, caller: &Caller) -> Result<Answer, Errno> {
        let Address::Path(path) = address(caller, caller.arguments[1], caller.number(2))? else {
            return Ok(Answer::Continue);
        };
        let host = self.socket_at(caller, &path)?;
        let (inode, twin) = self.twin(caller)?;
        let flags = fcntl_getfl(&twin)?;
        fcntl_setfl(&twin, flags | OFlags::NONBLOCK)?;
        let done = connect(&twin, &SocketAddrUnix::new(host.1)?);
        fcntl_setfl(&twin, flags)?;
        match done {
            Ok(()) => {}
            // The queue of the other side is full. The caller tries again, as if it had been interrupted.
            Err(Errno::AGAIN) if !flags.contains(OFlags::NONBLOCK) => return Err(Errno::INTR),
            Err(errno) => return Err(errno),
        }
        self.service().sockets.twins.remove(&inode);
        Ok(Answer::Value(0))
    }

    /// Finds a socket by its path; returns what keeps it open and a path of this process that leads to it.
    fn socket_at(
        &mut self,
        caller: &Caller,
        path: &[u8],
    ) -> Result<(super::Opened, Vec<u8>), Errno> {
        let (guest, asker) = self.scene(caller)?;
        let node = guest.find(&asker, libc::AT_FDCWD, path, super::Last::Follow)?;
        let Node::Opened(opened) = node else {
            return Err(Errno::CONNREFUSED);
        };
        let seen = self.truth().of(&opened.stat);
        self.credentials(caller)?.check(&seen, WRITE)?;
        let host = [
            b"/proc/",
            super::super::guest::own(opened.fd.as_fd()).as_slice(),
        ]
        .concat();
        Ok((opened, host))
    }

    pub(super) fn getsockname(&mut self, caller: &Caller) -> Result<Answer, Errno> {
        let descriptor = caller.number(0).cast_signed();
        let Some(inode) = self.socket_inode(caller, descriptor)? else {
            return Err(Errno::NOTSOCK);
        };
        let Some(path) = self.service().sockets.names.get(&inode) else {
            return Ok(Answer::Continue);
        };
        let mut address = (libc::AF_UNIX as u16).to_ne_bytes().to_vec();
        address.extend_from_slice(path);
        address.push(0);
        let memory = caller.memory();
        let [room] = memory.numbers(caller.arguments[2], 1)?[..] else {
            return Err(Errno::FAULT);
        };
        if room.cast_signed() < 0 {
            return Err(Errno::INVAL);
        }
        let length = u32::try_from(address.len()).expect("a name is short");
        let fits = address.len().min(room as usize);
        memory.write(caller.arguments[1], &address[..fits])?;
        memory.write_numbers(caller.arguments[2], &[length])?;
        Ok(Answer::Value(0))
    }

    pub(super) fn sendto(&mut self, caller: &Caller) -> Result<Answer, Errno> {
        let Address::Path(path) = address(caller, caller.arguments[4], caller.number(5))? else {
            return Ok(Answer::Continue);
        };
        let (_opened, host) = self.socket_at(caller, &path)?;
        let (_, twin) = self.twin(caller)?;
        let length = caller.arguments[2];
        if length > LONGEST {
            return Err(Errno::MSGSIZE);
        }
        let mut bytes = vec![0; usize::try_from(length).map_err(|_| Errno::MSGSIZE)?];
        caller.memory().read(caller.arguments[1], &mut bytes)?;
        let flags = rustix::net::SendFlags::DONTWAIT | rustix::net::SendFlags::NOSIGNAL;
        let sent = sendto(&twin, &bytes, flags, &SocketAddrUnix::new(host)?)?;
        Ok(Answer::Value(sent as i64))
    }

    /// Messages to a name in the tree are refused here: what comes with them (descriptors) cannot be sent for another.
    pub(super) fn sendmsg(&mut self, caller: &Caller, count: u32) -> Result<Answer, Errno> {
        /// `struct mmsghdr`: a header and a length. The kernel takes no more of them.
        const STEP: u64 = 64;
        const MOST: u32 = 1024;
        for at in 0..u64::from(count.min(MOST)) {
            let mut header = [0; 16];
            let message = caller.arguments[1].wrapping_add(at * STEP);
            caller.memory().read(message, &mut header)?;
            let name = u64::from_ne_bytes(header[..8].try_into().expect("eight bytes"));
            let length = u32::from_ne_bytes(header[8..12].try_into().expect("four bytes"));
            if name != 0
                && length != 0
                && let Address::Path(_) = address(caller, name, length)?
            {
                return Err(Errno::ACCESS);
            }
        }
        Ok(Answer::Continue)
    }
}

/// Reads an address.
fn address(caller: &Caller, at: u64, length: u32) -> Result<Address, Errno> {
    let length = length as usize;
    if length <= PATH_AT || length > 128 {
        return Ok(Address::Other);
    }
    let mut bytes = vec![0; length];
    caller.memory().read(at, &mut bytes)?;
    let family = u16::from_ne_bytes([bytes[0], bytes[1]]);
    if i32::from(family) != libc::AF_UNIX || bytes[PATH_AT] == 0 {
        return Ok(Address::Other);
    }
    if length > ADDRESS {
        return Err(Errno::INVAL);
    }
    let path = &bytes[PATH_AT..];
    let end = path.iter().position(|byte| *byte == 0);
    Ok(Address::Path(path[..end.unwrap_or(path.len())].to_vec()))
}
