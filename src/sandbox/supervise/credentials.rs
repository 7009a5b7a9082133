//! Who a process is, as it is told: ids, groups and capabilities that the kernel does not know of.
//!
//! The real process has one id. What it would be as root's child in a container is a value, [`Credentials`], which system calls
//! and the execution of programs turn into other values (see [`identity`](super::identity)). Equal values are one, in a
//! [`Table`], and a process has the number of its own.
//!
//! The number rides in the process itself, as the soft limit of RLIMIT_LOCKS, which Linux keeps and does not use: so a child
//! has its parent's at the moment of the fork, no number outlives its process, and no other process gets it. The command
//! cannot change that limit, since the calls that could are answered here. A limit set after the process was gone could at worst
//! hit a stranger who has its number since, of the same user, and then it means nothing there.

use std::collections::HashMap;
use std::sync::Arc;

use rustix::io::Errno;

/// All that the kernel asks of a process before it lets it do something to a file or to itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::sandbox) struct Credentials {
    pub(in crate::sandbox) user: Ids,
    pub(in crate::sandbox) group: Ids,
    pub(in crate::sandbox) groups: Arc<[u32]>,
    pub(in crate::sandbox) capabilities: Capabilities,
    /// `SECBIT_*`, "keep capabilities" among them.
    pub(in crate::sandbox) secure_bits: u32,
    pub(in crate::sandbox) no_new_privileges: bool,
    /// Only where umask(2) is answered here; else the kernel has it.
    pub(in crate::sandbox) umask: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(in crate::sandbox) struct Ids {
    pub(in crate::sandbox) real: u32,
    pub(in crate::sandbox) effective: u32,
    pub(in crate::sandbox) saved: u32,
    /// What files are made and asked for with.
    pub(in crate::sandbox) file: u32,
}

/// Sets of capabilities, bit by number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(in crate::sandbox) struct Capabilities {
    pub(in crate::sandbox) permitted: u64,
    pub(in crate::sandbox) effective: u64,
    pub(in crate::sandbox) inheritable: u64,
    pub(in crate::sandbox) ambient: u64,
    pub(in crate::sandbox) bounding: u64,
}

/// Capabilities that are asked for here, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(in crate::sandbox) enum Capability {
    Chown = 0,
    DacOverride = 1,
    DacReadSearch = 2,
    Fowner = 3,
    Fsetid = 4,
    Setgid = 6,
    Setuid = 7,
    Setpcap = 8,
    SysChroot = 18,
    Mknod = 27,
    Setfcap = 31,
}

impl Ids {
    pub(in crate::sandbox) fn all(id: u32) -> Ids {
        Ids {
            real: id,
            effective: id,
            saved: id,
            file: id,
        }
    }
}

impl Credentials {
    /// Returns what a command starts as: user 0 has the capabilities, another one may only get at them.
    pub(in crate::sandbox) fn new(
        uid: u32,
        gid: u32,
        groups: &[u32],
        capabilities: u64,
    ) -> Credentials {
        let held = if uid == 0 { capabilities } else { 0 };
        Credentials {
            user: Ids::all(uid),
            group: Ids::all(gid),
            groups: groups.into(),
            capabilities: Capabilities {
                permitted: held,
                effective: held,
                bounding: capabilities,
                ..Capabilities::default()
            },
            secure_bits: 0,
            no_new_privileges: false,
            umask: 0o022,
        }
    }

    /// Returns the same with all its capabilities in every set, whoever it is.
    pub(in crate::sandbox) fn with_everything(mut self) -> Credentials {
        let all = self.capabilities.bounding;
        self.capabilities = Capabilities {
            permitted: all,
            effective: all,
            inheritable: all,
            ambient: all,
            bounding: all,
        };
        self
    }

    pub(in crate::sandbox) fn may(&self, capability: Capability) -> bool {
        self.capabilities.effective & (1 << capability as u8) != 0
    }

    /// Tells whether a file's group is one of the process's.
    pub(in crate::sandbox) fn is_in_group(&self, gid: u32) -> bool {
        self.group.file == gid || self.groups.contains(&gid)
    }

    /// Tells whether what it makes is user 0's and group 0's, like all that is not written down.
    pub(in crate::sandbox) fn makes_plain_files(&self) -> bool {
        self.user.file == 0 && self.group.file == 0
    }
}

/// All the credentials that processes of one command have or had. Numbers are given once and stay.
#[derive(Debug)]
pub(in crate::sandbox) struct Table {
    all: Vec<Arc<Credentials>>,
    numbers: HashMap<Arc<Credentials>, u32>,
    /// Group ids in all of them together.
    groups: usize,
    /// One more than the greatest number that the limit can hold.
    room: usize,
}

/// What a hostile command may make the supervisor remember.
const MOST: usize = 1 << 16;
const MOST_GROUPS: usize = 1 << 22;
/// The resource that carries the numbers.
pub(in crate::sandbox) const RESOURCE: u32 = super::super::limits::LOCKS;

impl Table {
    /// Makes the table for a command and gives its first process the first number.
    pub(in crate::sandbox) fn new(first: Credentials, process: i32) -> Result<Table, Errno> {
        let (_, hard) = limit(process)?;
        let first = Arc::new(first);
        set_limit(process, 0, hard)?;
        Ok(Table {
            groups: first.groups.len(),
            numbers: HashMap::from([(first.clone(), 0)]),
            all: vec![first],
            // Whoever started the builder may have lowered the hard limit, which cannot be raised again.
            room: usize::try_from(hard.saturating_add(1))
                .unwrap_or(usize::MAX)
                .min(MOST),
        })
    }

    /// Makes a table for a command whose processes have real credentials: none of them is asked for its number.
    pub(in crate::sandbox) fn unused(first: Credentials) -> Table {
        let first = Arc::new(first);
        Table {
            groups: first.groups.len(),
            numbers: HashMap::from([(first.clone(), 0)]),
            all: vec![first],
            room: 1,
        }
    }

    /// Returns the credentials of a thread's process.
    pub(in crate::sandbox) fn of(&self, thread: i32) -> Result<Arc<Credentials>, Errno> {
        // Most commands never are anybody else.
        if let [only] = &self.all[..] {
            return Ok(only.clone());
        }
        let (soft, _) = limit(thread)?;
        usize::try_from(soft)
            .ok()
            .and_then(|number| self.all.get(number))
            .cloned()
            .ok_or(Errno::SRCH)
    }

    /// Gives a thread's process other credentials.
    pub(in crate::sandbox) fn set(
        &mut self,
        thread: i32,
        credentials: Credentials,
    ) -> Result<(), Errno> {
        let number = self.number(credentials)?;
        let (soft, hard) = limit(thread)?;
        if soft == u64::from(number) {
            return Ok(());
        }
        set_limit(thread, u64::from(number), hard)
    }

    fn number(&mut self, credentials: Credentials) -> Result<u32, Errno> {
        if let Some(number) = self.numbers.get(&credentials) {
            return Ok(*number);
        }
        let groups = self.groups + credentials.groups.len();
        if self.all.len() >= self.room || groups > MOST_GROUPS {
            return Err(Errno::AGAIN);
        }
        let number = u32::try_from(self.all.len()).expect("there is room for few");
        let credentials = Arc::new(credentials);
        self.groups = groups;
        self.numbers.insert(credentials.clone(), number);
        self.all.push(credentials);
        Ok(number)
    }
}

fn limit(process: i32) -> Result<(u64, u64), Errno> {
    let mut old = libc::rlimit64 {
        rlim_cur: 0,
        rlim_max: 0,
    };
    prlimit(process, std::ptr::null(), &raw mut old)?;
    Ok((old.rlim_cur, old.rlim_max))
}

fn set_limit(process: i32, soft: u64, hard: u64) -> Result<(), Errno> {
    let new = libc::rlimit64 {
        rlim_cur: soft,
        rlim_max: hard,
    };
    prlimit(process, &raw const new, std::ptr::null_mut())
}

fn prlimit(
    process: i32,
    new: *const libc::rlimit64,
    old: *mut libc::rlimit64,
) -> Result<(), Errno> {
    // SAFETY: `limit` and `set_limit`, the only callers, pass null or a pointer to a live, initialised local of the very type
    // that the kernel reads or writes (two u64).
    let result = unsafe { libc::syscall(libc::SYS_prlimit64, process, RESOURCE, new, old) };
    if result < 0 {
        let error = std::io::Error::last_os_error();
        return Err(Errno::from_io_error(&error).unwrap_or(Errno::IO));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_child_has_its_parents_credentials_until_it_gets_its_own() {
        // A shell that waits, with a child that waits.
        let mut shell = Command::new("/bin/sh")
            .args(["-c", "read line; sleep 4717 & echo $!; wait"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let parent = i32::try_from(shell.id()).unwrap();
        let mut table = Table::new(Credentials::new(0, 0, &[], 3), parent).unwrap();
        let app = Credentials::new(1000, 1000, &[4], 3);
        table.set(parent, app.clone()).unwrap();
        std::io::Write::write_all(shell.stdin.as_mut().unwrap(), b"\n").unwrap();
        let mut line = String::new();
        let mut out = std::io::BufReader::new(shell.stdout.take().unwrap());
        std::io::BufRead::read_line(&mut out, &mut line).unwrap();
        let child = line.trim().parse().unwrap();
        assert_eq!(*table.of(child).unwrap(), app);
        table.set(child, Credentials::new(0, 0, &[], 3)).unwrap();
        assert_eq!(table.of(child).unwrap().user.real, 0);
        assert_eq!(*table.of(parent).unwrap(), app);
        assert_eq!(table.all.len(), 2);
        shell.kill().unwrap();
        shell.wait().unwrap();
        let child = rustix::process::Pid::from_raw(child).unwrap();
        rustix::process::kill_process(child, rustix::process::Signal::KILL).ok();
    }

    #[test]
    fn the_table_does_not_grow_for_ever() {
        let own = rustix::process::getpid().as_raw_pid();
        let (soft, hard) = limit(own).unwrap();
        let mut table = Table::new(Credentials::new(0, 0, &[], 0), own).unwrap();
        set_limit(own, soft, hard).unwrap();
        table.room = 3;
        for uid in 0..3 {
            assert_eq!(table.number(Credentials::new(uid, 0, &[], 0)), Ok(uid));
        }
        let one_more = Credentials::new(3, 0, &[], 0);
        assert_eq!(table.number(one_more), Err(Errno::AGAIN));
        assert_eq!(table.number(Credentials::new(1, 0, &[], 0)), Ok(1));
    }
}
