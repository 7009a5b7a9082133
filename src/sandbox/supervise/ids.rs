//! The calls about the caller itself: ids, groups, capabilities, and the limit that carries them.
//!
//! The rules are in [`identity`](super::identity); here are arguments and results.

use rustix::io::Errno;

use super::credentials::Credentials;
use super::identity::MOST_GROUPS;
use super::listener::Answer;
use super::supervision::{Caller, Supervision};
use super::traps::{Abi, Call};

impl Supervision {
    /// Answers a call about identity; `None` for other calls.
    pub(super) fn identity(
        &mut self,
        call: Call,
        caller: &Caller,
    ) -> Option<Result<Answer, Errno>> {
        let [first, second, third] = [0, 1, 2].map(|argument| caller.number(argument));
        Some(match call {
            Call::Getuid => self.tell(caller, |who| who.user.real),
            Call::Geteuid => self.tell(caller, |who| who.user.effective),
            Call::Getgid => self.tell(caller, |who| who.group.real),
            Call::Getegid => self.tell(caller, |who| who.group.effective),
            Call::Getresuid => self.tell_three(caller, |who| who.user),
            Call::Getresgid => self.tell_three(caller, |who| who.group),
            Call::Getgroups => self.get_groups(caller),
            Call::Setuid => self.change(caller, |who| who.set_user(first)),
            Call::Setgid => self.change(caller, |who| who.set_group(first)),
            Call::Setreuid => {
                self.change(caller, |who| who.set_real_and_effective_user(first, second))
            }
            Call::Setregid => self.change(caller, |who| {
                who.set_real_and_effective_group(first, second)
            }),
            Call::Setresuid => self.change(caller, |who| who.set_all_users([first, second, third])),
            Call::Setresgid => {
                self.change(caller, |who| who.set_all_groups([first, second, third]))
            }
            Call::Setfsuid => {
                self.change_and_tell(caller, |who| (who.set_file_user(first), who.user.file))
            }
            Call::Setfsgid => {
                self.change_and_tell(caller, |who| (who.set_file_group(first), who.group.file))
            }
            Call::Setgroups => self.set_groups(caller),
            Call::Capget => self.get_capabilities(caller),
            Call::Capset => self.set_capabilities(caller),
            Call::Prctl => self.control(caller),
            Call::Prlimit64 => self.limit(caller, 2, 3),
            Call::Getrlimit => self.limit_of_long(caller),
            // Done to nobody's limit.
            Call::Setrlimit => Ok(Answer::Value(0)),
            _ => return None,
        })
    }

    fn tell(&self, caller: &Caller, what: impl Fn(&Credentials) -> u32) -> Result<Answer, Errno> {
        let who = self.credentials(caller)?;
        Ok(Answer::Value(i64::from(what(&who))))
    }

    fn tell_three(
        &self,
        caller: &Caller,
        what: impl Fn(&Credentials) -> super::credentials::Ids,
    ) -> Result<Answer, Errno> {
        let ids = what(&*self.credentials(caller)?);
        self.is_held(caller)?;
        for (argument, id) in [ids.real, ids.effective, ids.saved].into_iter().enumerate() {
            let address = caller.arguments[argument];
            caller.memory().write_numbers(address, &[id])?;
        }
        Ok(Answer::Value(0))
    }

    fn change(
        &mut self,
        caller: &Caller,
        change: impl Fn(&Credentials) -> Result<Credentials, Errno>,
    ) -> Result<Answer, Errno> {
        let new = change(&*self.credentials(caller)?)?;
        self.become_other(caller, new)?;
        Ok(Answer::Value(0))
    }

    fn change_and_tell(
        &mut self,
        caller: &Caller,
        change: impl Fn(&Credentials) -> (Credentials, u32),
    ) -> Result<Answer, Errno> {
        let (new, told) = change(&*self.credentials(caller)?);
        self.become_other(caller, new)?;
        Ok(Answer::Value(i64::from(told)))
    }

    fn get_groups(&self, caller: &Caller) -> Result<Answer, Errno> {
        let who = self.credentials(caller)?;
        let count = who.groups.len();
        let room = caller.number(0).cast_signed();
        if room < 0 {
            return Err(Errno::INVAL);
        }
        if room > 0 {
            if (room as usize) < count {
                return Err(Errno::INVAL);
            }
            self.is_held(caller)?;
            caller
                .memory()
                .write_numbers(caller.arguments[1], &who.groups)?;
        }
        Ok(Answer::Value(count as i64))
    }

    fn set_groups(&mut self, caller: &Caller) -> Result<Answer, Errno> {
        let who = self.credentials(caller)?;
        let count = caller.number(0) as usize;
        // The right is asked for first, as the kernel does.
        who.set_groups(Vec::new())?;
        if count > MOST_GROUPS {
            return Err(Errno::INVAL);
        }
        let groups = caller.memory().numbers(caller.arguments[1], count)?;
        self.become_other(caller, who.set_groups(groups)?)?;
        Ok(Answer::Value(0))
    }

    /// Of the caller, whichever process of its own it asks about.
    fn get_capabilities(&self, caller: &Caller) -> Result<Answer, Errno> {
        let who = self.credentials(caller)?;
        let words = capability_words(caller)?;
        let (Some(words), address @ 1..) = (words, caller.arguments[1]) else {
            // The question which version there is.
            return match (words, caller.arguments[1]) {
                (_, 0) => Ok(Answer::Value(0)),
                _ => Err(Errno::INVAL),
            };
        };
        let sets = &who.capabilities;
        let mut numbers = Vec::new();
        for word in 0..words {
            for set in [sets.effective, sets.permitted, sets.inheritable] {
                numbers.push((set >> (32 * word) & 0xffff_ffff) as u32);
            }
        }
        self.is_held(caller)?;
        caller.memory().write_numbers(address, &numbers)?;
        Ok(Answer::Value(0))
    }

    fn set_capabilities(&mut self, caller: &Caller) -> Result<Answer, Errno> {
        let words = capability_words(caller)?.ok_or(Errno::INVAL)?;
        let numbers = caller.memory().numbers(caller.arguments[1], 3 * words)?;
        let set = |which: usize| {
            (0..words).fold(0, |set, word| {
                set | u64::from(numbers[3 * word + which]) << (32 * word)
            })
        };
        let (effective, permitted, inheritable) = (set(0), set(1), set(2));
        self.change(caller, |who| {
            who.set_capabilities(permitted, effective, inheritable)
        })
    }

    fn control(&mut self, caller: &Caller) -> Result<Answer, Errno> {
        let who = self.credentials(caller)?;
        let [option, first, second, third, fourth, _] = caller.arguments;
        match who.control([option, first, second, third, fourth]) {
            None => Ok(Answer::Continue),
            Some(Err(errno)) => Err(errno),
            Some(Ok((value, None))) => Ok(Answer::Value(value)),
            Some(Ok((value, Some(new)))) => {
                self.become_other(caller, new)?;
                // The kernel's own switches are thrown too, where that takes nothing away that is needed to supervise.
                match i32::try_from(option) {
                    Ok(libc::PR_SET_NO_NEW_PRIVS) => Ok(Answer::Continue),
                    _ => Ok(Answer::Value(value)),
                }
            }
        }
    }

    /// Tells the limit that was asked for, and leaves it as it is.
    fn limit(&self, caller: &Caller, new: usize, old: usize) -> Result<Answer, Errno> {
        let memory = caller.memory();
        if caller.arguments[new] != 0 {
            memory.read(caller.arguments[new], &mut [0; 16])?;
        }
        if caller.arguments[old] != 0 {
            self.is_held(caller)?;
            let (soft, hard) = self.locks();
            let bytes = [soft.to_ne_bytes(), hard.to_ne_bytes()].concat();
            memory.write(caller.arguments[old], &bytes)?;
        }
        Ok(Answer::Value(0))
    }

    /// The old form, with numbers as long as the architecture's.
    fn limit_of_long(&self, caller: &Caller) -> Result<Answer, Errno> {
        self.is_held(caller)?;
        let (soft, hard) = self.locks();
        let address = caller.arguments[1];
        match caller.abi {
            Abi::X86_64 | Abi::Arm64 => {
                let bytes = [soft.to_ne_bytes(), hard.to_ne_bytes()].concat();
                caller.memory().write(address, &bytes)?;
            }
            Abi::I386 | Abi::Arm => {
                let short = |limit: u64| u32::try_from(limit).unwrap_or(u32::MAX);
                caller
                    .memory()
                    .write_numbers(address, &[short(soft), short(hard)])?;
            }
        }
        Ok(Answer::Value(0))
    }
}

/// Reads the header of `capget` and `capset`: returns how many words a set has, `None` for an unknown version, whose place
/// then has the newest.
fn capability_words(caller: &Caller) -> Result<Option<usize>, Errno> {
    const NEWEST: u32 = 0x2008_0522;
    let address = caller.arguments[0];
    let header = caller.memory().numbers(address, 2)?;
    Ok(match header[0] {
        0x1998_0330 => Some(1),
        0x2007_1026 | NEWEST => Some(2),
        _ => {
            caller.memory().write_numbers(address, &[NEWEST])?;
            None
        }
    })
}
