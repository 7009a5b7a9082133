//! Another process's memory: whatever it holds at the moment of the look, and nobody's promise.
//!
//! Every read is one copy, made once: a text that is read twice may be two texts. Addresses and lengths come from the other
//! process; a wrong one is EFAULT, as it is for the kernel.

use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;

/// Longest path with its NUL.
const PATH_MAX: usize = 4096;
/// Memory is there or not there by pages of at least this size.
const PAGE: u64 = 4096;

/// The memory of the process that a thread belongs to.
#[derive(Clone, Copy, Debug)]
pub(in crate::sandbox) struct Memory {
    thread: i32,
    /// The memory as a file, which [`Memories`] keep open for longer than this is used.
    file: Option<RawFd>,
}

/// Memories that are read again and again, as open files: to find a process and ask whether one may look into it is half of
/// what a read costs. Each is the memory of a thread until that executes something or ends.
#[derive(Debug, Default)]
pub(in crate::sandbox) struct Memories(Vec<(i32, OwnedFd)>);

/// More than the processes that take turns.
const MOST: usize = 16;

impl Memories {
    /// Returns the memory of a thread that is traced. Valid until the next call of any of these functions.
    pub(in crate::sandbox) fn of(&mut self, proc: &OwnedFd, thread: i32) -> Memory {
        let at = match self.0.iter().position(|(known, _)| *known == thread) {
            Some(at) => at,
            None => {
                let flags = OFlags::RDONLY | OFlags::CLOEXEC;
                let Ok(file) = openat(proc, format!("{thread}/mem"), flags, Mode::empty()) else {
                    return Memory::of(thread);
                };
                self.0.truncate(MOST - 1);
                self.0.push((thread, file));
                self.0.len() - 1
            }
        };
        // The last ones to be used come first.
        self.0[..=at].rotate_right(1);
        Memory {
            thread,
            file: Some(self.0[0].1.as_raw_fd()),
        }
    }

    /// To be called when a thread gets other memory, or none.
    pub(in crate::sandbox) fn forget(&mut self, thread: i32) {
        self.0.retain(|(known, _)| *known != thread);
    }
}

impl Memory {
    pub(in crate::sandbox) fn of(thread: i32) -> Memory {
        Memory { thread, file: None }
    }

    /// Fills all of `bytes`.
    pub(in crate::sandbox) fn read(self, address: u64, bytes: &mut [u8]) -> Result<(), Errno> {
        match self.read_some(address, bytes) {
            Ok(count) if count == bytes.len() => Ok(()),
            Ok(_) => Err(Errno::FAULT),
            Err(errno) => Err(errno),
        }
    }

    /// Reads what is there of so many bytes, page by page.
    fn read_some(self, address: u64, bytes: &mut [u8]) -> Result<usize, Errno> {
        if bytes.is_empty() {
            return Ok(0);
        }
        if let Some(file) = self.file {
            let at = i64::try_from(address).map_err(|_| Errno::FAULT)?;
            // SAFETY: the kernel writes at most as many bytes as there are in a slice that is borrowed for writing.
            let count = unsafe { libc::pread64(file, bytes.as_mut_ptr().cast(), bytes.len(), at) };
            return usize::try_from(count).map_err(|_| Errno::FAULT);
        }
        let local = libc::iovec {
            iov_base: bytes.as_mut_ptr().cast(),
            iov_len: bytes.len(),
        };
        let remote = remote(address, bytes.len())?;
        // SAFETY: the kernel writes at most `local.iov_len` bytes at `local.iov_base`, which is all of a slice that is
        // borrowed for writing; the remote range is in the other process, and the kernel checks it.
        let count = unsafe {
            libc::process_vm_readv(self.thread, &raw const local, 1, &raw const remote, 1, 0)
        };
        usize::try_from(count).map_err(|_| refusal())
    }

    /// Writes all of `bytes`.
    pub(in crate::sandbox) fn write(self, address: u64, bytes: &[u8]) -> Result<(), Errno> {
        if bytes.is_empty() {
            return Ok(());
        }
        let local = libc::iovec {
            iov_base: bytes.as_ptr().cast_mut().cast(),
            iov_len: bytes.len(),
        };
        let remote = remote(address, bytes.len())?;
        // SAFETY: the kernel only reads from `local`, all of a borrowed slice; the remote range is in the other process, and
        // the kernel checks it.
        let count = unsafe {
            libc::process_vm_writev(self.thread, &raw const local, 1, &raw const remote, 1, 0)
        };
        match usize::try_from(count) {
            Ok(count) if count == bytes.len() => Ok(()),
            Ok(_) => Err(Errno::FAULT),
            Err(_) => Err(refusal()),
        }
    }

    /// Reads a path.
    pub(in crate::sandbox) fn path(self, address: u64) -> Result<CString, Errno> {
        self.text(address, PATH_MAX)?.ok_or(Errno::NAMETOOLONG)
    }

    /// Reads a text of less than `limit` bytes; `None` if there is no NUL among so many.
    pub(in crate::sandbox) fn text(
        self,
        mut address: u64,
        limit: usize,
    ) -> Result<Option<CString>, Errno> {
        /// Most texts are shorter, and a copy costs by the byte.
        const FIRST: usize = 256;
        let mut text = Vec::new();
        while text.len() < limit {
            // Not over the end of a page, after which there may be nothing.
            let in_page = usize::try_from(PAGE - address % PAGE).expect("a page is small");
            let wanted = in_page.min(limit - text.len()).min(FIRST.max(text.len()));
            let start = text.len();
            text.resize(start + wanted, 0);
            let count = self.read_some(address, &mut text[start..])?;
            text.truncate(start + count);
            if let Some(end) = text[start..].iter().position(|byte| *byte == 0) {
                text.truncate(start + end);
                return Ok(Some(CString::new(text).expect("ends before the first NUL")));
            }
            if count < wanted {
                return Err(Errno::FAULT);
            }
            address = address.checked_add(count as u64).ok_or(Errno::FAULT)?;
        }
        Ok(None)
    }

    /// Reads numbers of 32 bits.
    pub(in crate::sandbox) fn numbers(self, address: u64, count: usize) -> Result<Vec<u32>, Errno> {
        let mut bytes = vec![0; 4 * count];
        self.read(address, &mut bytes)?;
        Ok(bytes
            .as_chunks()
            .0
            .iter()
            .map(|number| u32::from_ne_bytes(*number))
            .collect())
    }

    /// Writes numbers of 32 bits.
    pub(in crate::sandbox) fn write_numbers(
        self,
        address: u64,
        numbers: &[u32],
    ) -> Result<(), Errno> {
        let bytes: Vec<u8> = numbers
            .iter()
            .flat_map(|number| number.to_ne_bytes())
            .collect();
        self.write(address, &bytes)
    }
}

fn remote(address: u64, length: usize) -> Result<libc::iovec, Errno> {
    let address = usize::try_from(address).map_err(|_| Errno::FAULT)?;
    Ok(libc::iovec {
        iov_base: std::ptr::with_exposed_provenance_mut(address),
        iov_len: length,
    })
}

/// The callers' own word for memory that cannot be had.
fn refusal() -> Errno {
    match Errno::from_io_error(&std::io::Error::last_os_error()) {
        Some(errno @ (Errno::SRCH | Errno::NOMEM)) => errno,
        _ => Errno::FAULT,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> Memory {
        Memory::of(rustix::process::getpid().as_raw_pid())
    }

    #[test]
    fn memory_that_is_kept_open_reads_alike() {
        let proc = rustix::fs::open("/proc", OFlags::PATH, Mode::empty()).unwrap();
        let mut memories = Memories::default();
        let thread = rustix::process::getpid().as_raw_pid();
        for _ in 0..2 {
            let memory = memories.of(&proc, thread);
            assert!(memory.file.is_some());
            for length in [0, 255, 257, 4095] {
                let text = CString::new(vec![b'x'; length]).unwrap();
                let read = memory.path(text.as_ptr() as u64);
                assert_eq!(read, Ok(text), "{length}");
            }
            assert_eq!(memory.path(0), Err(Errno::FAULT));
            assert_eq!(memory.path(u64::MAX - 3), Err(Errno::FAULT));
        }
        assert_eq!(memories.0.len(), 1);
        memories.forget(thread);
        assert!(memories.0.is_empty());
    }

    #[test]
    fn texts_end_where_they_end() {
        for length in [0, 1, 255, 256, 257, 4095] {
            let text = CString::new(vec![b'x'; length]).unwrap();
            let read = own().path(text.as_ptr() as u64);
            assert_eq!(read, Ok(text), "{length}");
        }
        let long = CString::new(vec![b'x'; 4096]).unwrap();
        assert_eq!(own().path(long.as_ptr() as u64), Err(Errno::NAMETOOLONG));
        assert_eq!(own().path(0), Err(Errno::FAULT));
        assert_eq!(own().path(u64::MAX - 3), Err(Errno::FAULT));
    }

    #[test]
    fn numbers_are_read_and_written() {
        let numbers = [1_u32, u32::MAX, 3];
        let address = numbers.as_ptr() as u64;
        assert_eq!(own().numbers(address, 3), Ok(numbers.to_vec()));
        assert_eq!(own().numbers(0, 1), Err(Errno::FAULT));
        let mut room = [0_u32; 2];
        own()
            .write_numbers(room.as_mut_ptr() as u64, &[7, 8])
            .unwrap();
        assert_eq!(std::hint::black_box(room), [7, 8]);
        assert_eq!(own().write_numbers(8, &[1]), Err(Errno::FAULT));
    }
}
