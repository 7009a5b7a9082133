//! Looking: stat, access, readlink, getcwd, statfs.

use std::os::fd::{AsFd, AsRawFd};

use rustix::fs::{AtFlags, Statx, StatxFlags, readlinkat, statx};
use rustix::io::Errno;

use super::super::guest::{Near, Node, look, place_of};
use super::super::listener::Answer;
use super::super::permission::{EXECUTE, READ, WRITE};
use super::super::procfs::{self, Entry};
use super::super::supervision::{Caller, Supervision};
use super::{EMPTY, Path};

/// What the ledger goes by, and `stat` shows.
const NEEDED: StatxFlags = StatxFlags::BASIC_STATS.union(StatxFlags::BTIME);

impl Supervision {
    pub(super) fn stat(
        &mut self,
        caller: &Caller,
        path: Path,
        flags: u32,
        out: u64,
    ) -> Result<Answer, Errno> {
        let known = libc::AT_SYMLINK_NOFOLLOW | libc::AT_EMPTY_PATH | libc::AT_NO_AUTOMOUNT;
        if flags & !known.cast_unsigned() != 0 {
            return Err(Errno::INVAL);
        }
        let stat = self.stat_at(caller, path, flags, None)?;
        caller.memory().write(out, &old_form(&self.told(stat)))?;
        Ok(Answer::Value(0))
    }

    /// The hot one: every file that is opened is asked so.
    pub(super) fn stat_descriptor(
        &mut self,
        caller: &Caller,
        descriptor: i32,
        out: u64,
    ) -> Result<Answer, Errno> {
        let stat = self.look_behind(caller, descriptor)?;
        caller.memory().write(out, &old_form(&self.told(stat)))?;
        Ok(Answer::Value(0))
    }

    fn look_behind(&mut self, caller: &Caller, descriptor: i32) -> Result<Statx, Errno> {
        let place = match descriptor {
            0.. | libc::AT_FDCWD => place_of(caller.thread, descriptor)?,
            _ => return Err(Errno::BADF),
        };
        let guest = &self.service().guest;
        let flags = AtFlags::empty();
        let stat =
            statx(&**guest.proc(), place.as_slice(), flags, NEEDED).map_err(
                |errno| match errno {
                    Errno::NOENT => Errno::BADF,
                    errno => errno,
                },
            )?;
        match guest.token(&stat) {
            Some((file, _)) => look(file.as_fd()),
            None => Ok(self.service().devices.file_of(&stat).unwrap_or(stat)),
        }
    }

    pub(super) fn statx(
        &mut self,
        caller: &Caller,
        path: Path,
        flags: u32,
        mask: u32,
        out: u64,
    ) -> Result<Answer, Errno> {
        const SYNC: u32 = 0x6000;
        const RESERVED: u32 = 0x8000_0000;
        let known = libc::AT_SYMLINK_NOFOLLOW | libc::AT_EMPTY_PATH | libc::AT_NO_AUTOMOUNT;
        if flags & !(known.cast_unsigned() | SYNC) != 0
            || flags & SYNC == SYNC
            || mask & RESERVED != 0
        {
            return Err(Errno::INVAL);
        }
        let mask = StatxFlags::from_bits_retain(mask);
        let stat = self.stat_at(caller, path, flags, Some(mask))?;
        let stat = self.told(stat);
        // SAFETY: the structure has no padding (its gaps are named fields), the kernel has filled all of it, and any of its
        // bytes is a valid u8; the slice ends with this function's local.
        let bytes = unsafe {
            std::slice::from_raw_parts((&raw const stat).cast::<u8>(), size_of::<Statx>())
        };
        caller.memory().write(out, bytes)?;
        Ok(Answer::Value(0))
    }

    /// Returns what the kernel shows of what a path leads to.
    fn stat_at(
        &mut self,
        caller: &Caller,
        path: Path,
        flags: u32,
        mask: Option<StatxFlags>,
    ) -> Result<Statx, Errno> {
        let may_be_empty = flags & libc::AT_EMPTY_PATH.cast_unsigned() != 0;
        let text = match path.address {
            0 if may_be_empty => Default::default(),
            address => caller.memory().path(address)?,
        };
        if text.is_empty() && may_be_empty && mask.is_none_or(|mask| NEEDED.contains(mask)) {
            return self.look_behind(caller, path.at);
        }
        let (guest, asker) = self.scene(caller)?;
        if !text.is_empty()
            && let Some(Near { directory, name }) = guest.near(&asker, path.at, text.to_bytes())?
        {
            let mask = mask.unwrap_or(NEEDED) | NEEDED;
            let stat = statx(&*directory.fd, name, AtFlags::SYMLINK_NOFOLLOW, mask)?;
            let is_link = u32::from(stat.stx_mode) & libc::S_IFMT == libc::S_IFLNK;
            if !is_link || flags & libc::AT_SYMLINK_NOFOLLOW.cast_unsigned() != 0 {
                return Ok(stat);
            }
        }
        let node = self.find_text(caller, path.at, &text, flags)?;
        self.stat_of(&node, mask)
    }

    /// Returns what the kernel shows; more than was seen already only if `mask` wants it.
    fn stat_of(&mut self, node: &Node, mask: Option<StatxFlags>) -> Result<Statx, Errno> {
        let guest = &self.service().guest;
        match node {
            Node::Opened(opened) => match mask {
                Some(mask) if !NEEDED.contains(mask) => {
                    statx(&*opened.fd, EMPTY, AtFlags::EMPTY_PATH, mask | NEEDED)
                }
                _ => Ok(opened.stat),
            },
            Node::Proc(entry) => {
                let flags = match entry {
                    Entry::Object { .. } | Entry::Link { .. } => AtFlags::SYMLINK_NOFOLLOW,
                    _ => AtFlags::empty(),
                };
                let path = match entry.path() {
                    b"" => b".",
                    path => path,
                };
                let mask = mask.unwrap_or(NEEDED) | NEEDED;
                statx(&**guest.proc(), path, flags, mask)
            }
        }
    }

    /// Returns what the caller is told.
    fn told(&self, mut stat: Statx) -> Statx {
        let seen = self.truth().of(&stat);
        stat.stx_uid = seen.uid;
        stat.stx_gid = seen.gid;
        // The kind and twelve bits.
        stat.stx_mode = (seen.mode & 0xffff) as u16;
        if let Some(device) = seen.device {
            stat.stx_rdev_major = device.major;
            stat.stx_rdev_minor = device.minor;
        }
        stat
    }

    pub(super) fn access(
        &mut self,
        caller: &Caller,
        path: Path,
        mode: u32,
        flags: u32,
    ) -> Result<Answer, Errno> {
        let known = libc::AT_SYMLINK_NOFOLLOW | libc::AT_EMPTY_PATH | libc::AT_EACCESS;
        if mode & !7 != 0 || flags & !known.cast_unsigned() != 0 {
            return Err(Errno::INVAL);
        }
        let lookup = flags & !libc::AT_EACCESS.cast_unsigned();
        let stat = self.stat_at(caller, path, lookup, None)?;
        let seen = self.truth().of(&stat);
        let who = self.credentials(caller)?;
        let wants = mode & (READ | WRITE | EXECUTE);
        if flags & libc::AT_EACCESS.cast_unsigned() != 0 || who.user.real == who.user.file {
            who.check(&seen, wants)?;
        } else {
            // With the real ids, and what they would be able to do.
            let mut real = (*who).clone();
            real.user.file = who.user.real;
            real.group.file = who.group.real;
            real.capabilities.effective = match who.user.real {
                0 => who.capabilities.permitted,
                _ => 0,
            };
            real.check(&seen, wants)?;
        }
        let is_file = matches!(seen.mode & libc::S_IFMT, libc::S_IFREG | libc::S_IFDIR);
        if wants & WRITE != 0
            && is_file
            && let Node::Opened(opened) = self.find(caller, path, lookup)?
        {
            self.check_writable(opened.tree)?;
        }
        Ok(Answer::Value(0))
    }

    pub(super) fn readlink(
        &mut self,
        caller: &Caller,
        path: Path,
        out: u64,
        size: u32,
    ) -> Result<Answer, Errno> {
        if size.cast_signed() <= 0 {
            return Err(Errno::INVAL);
        }
        let flags = libc::AT_SYMLINK_NOFOLLOW | libc::AT_EMPTY_PATH;
        let text = caller.memory().path(path.address)?;
        if !text.is_empty() {
            let (guest, asker) = self.scene(caller)?;
            let words = text.to_bytes();
            if guest.is_no_link(&asker, words) {
                return Err(Errno::INVAL);
            }
            if let Some(near) = guest.near(&asker, path.at, words)? {
                let text = readlinkat(&*near.directory.fd, near.name, Vec::new());
                if text == Err(Errno::INVAL) {
                    guest.keep_no_link(&asker, &near, words);
                }
                return give_text(caller, text?.into_bytes(), out, size);
            }
        }
        let node = self.find_text(caller, path.at, &text, flags.cast_unsigned())?;
        let text = match node {
            Node::Opened(opened) if opened.is_link() => {
                readlinkat(&*opened.fd, EMPTY, Vec::new())?.into_bytes()
            }
            Node::Proc(Entry::Link { text, .. } | Entry::Object { text, .. }) => text,
            _ => return Err(Errno::INVAL),
        };
        give_text(caller, text, out, size)
    }

    pub(super) fn getcwd(&mut self, caller: &Caller, out: u64, size: u64) -> Result<Answer, Errno> {
        let proc = self.service().guest.proc().clone();
        let place = place_of(caller.thread, libc::AT_FDCWD)?;
        let text = readlinkat(&*proc, place.as_slice(), Vec::new())?.into_bytes();
        if text.ends_with(b" (deleted)") {
            return Err(Errno::NOENT);
        }
        let mut path = procfs::in_the_root(&self.service().guest, text);
        path.push(0);
        if (path.len() as u64) > size {
            return Err(Errno::RANGE);
        }
        caller.memory().write(out, &path)?;
        Ok(Answer::Value(path.len() as i64))
    }

    pub(super) fn statfs(
        &mut self,
        caller: &Caller,
        path: Path,
        out: u64,
    ) -> Result<Answer, Errno> {
        let node = self.find(caller, path, 0)?;
        let proc = self.service().guest.proc().clone();
        let fd = match &node {
            Node::Opened(opened) => opened.fd.as_fd(),
            Node::Proc(_) => proc.as_fd(),
        };
        let mut room = [0_u64; size_of::<libc::statfs>().div_ceil(8)];
        // SAFETY: the kernel writes one `struct statfs` into the local, which is aligned for it and as large.
        let result = unsafe { libc::syscall(libc::SYS_fstatfs, fd.as_raw_fd(), room.as_mut_ptr()) };
        if result < 0 {
            let error = std::io::Error::last_os_error();
            return Err(Errno::from_io_error(&error).unwrap_or(Errno::IO));
        }
        let mut bytes: Vec<u8> = room.iter().flat_map(|word| word.to_ne_bytes()).collect();
        bytes.truncate(size_of::<libc::statfs>());
        caller.memory().write(out, &bytes)?;
        Ok(Answer::Value(0))
    }
}

/// Writes the text of a link, or as much of it as there is room for.
fn give_text(caller: &Caller, mut text: Vec<u8>, out: u64, size: u32) -> Result<Answer, Errno> {
    text.truncate(size as usize);
    caller.memory().write(out, &text)?;
    Ok(Answer::Value(text.len() as i64))
}

/// Returns a device's number as `struct stat` has it.
fn device(major: u32, minor: u32) -> u64 {
    u64::from((minor & 0xff) | (major << 8) | ((minor & !0xff) << 12))
}

/// Writes `struct stat` of this architecture.
fn old_form(stat: &Statx) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(144);
    let long = |bytes: &mut Vec<u8>, value: u64| bytes.extend(value.to_ne_bytes());
    let word = |bytes: &mut Vec<u8>, value: u32| bytes.extend(value.to_ne_bytes());
    let mode = u32::from(stat.stx_mode);
    long(&mut bytes, device(stat.stx_dev_major, stat.stx_dev_minor));
    long(&mut bytes, stat.stx_ino);
    if cfg!(target_arch = "x86_64") {
        long(&mut bytes, u64::from(stat.stx_nlink));
        word(&mut bytes, mode);
    } else {
        word(&mut bytes, mode);
        word(&mut bytes, stat.stx_nlink);
    }
    word(&mut bytes, stat.stx_uid);
    word(&mut bytes, stat.stx_gid);
    if cfg!(target_arch = "x86_64") {
        word(&mut bytes, 0);
    }
    long(&mut bytes, device(stat.stx_rdev_major, stat.stx_rdev_minor));
    if !cfg!(target_arch = "x86_64") {
        long(&mut bytes, 0);
    }
    long(&mut bytes, stat.stx_size);
    if cfg!(target_arch = "x86_64") {
        long(&mut bytes, u64::from(stat.stx_blksize));
    } else {
        word(&mut bytes, stat.stx_blksize);
        word(&mut bytes, 0);
    }
    long(&mut bytes, stat.stx_blocks);
    for time in [&stat.stx_atime, &stat.stx_mtime, &stat.stx_ctime] {
        long(&mut bytes, time.tv_sec.cast_unsigned());
        long(&mut bytes, u64::from(time.tv_nsec));
    }
    let rest = if cfg!(target_arch = "x86_64") { 3 } else { 1 };
    for _ in 0..rest {
        long(&mut bytes, 0);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::super::super::guest::look;
    use super::*;

    #[test]
    fn the_old_form_is_the_kernels() {
        for path in ["/proc/self/exe", "/dev/null", "/"] {
            let file = std::fs::File::open(path).unwrap();
            let bytes = old_form(&look(file.as_fd()).unwrap());
            let mut room = [0_u64; size_of::<libc::stat>() / 8];
            // SAFETY: the kernel writes one `struct stat` into the local, which is aligned for it and as large.
            let result =
                unsafe { libc::syscall(libc::SYS_fstat, file.as_raw_fd(), room.as_mut_ptr()) };
            assert_eq!(result, 0);
            let kernels: Vec<u8> = room.iter().flat_map(|word| word.to_ne_bytes()).collect();
            assert_eq!(bytes, kernels, "{path}");
        }
    }
}
