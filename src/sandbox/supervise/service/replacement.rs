//! Other arguments for a call, in the caller's memory: below its stack where nobody else uses that, else in
//! [`rooms`](super::rooms). If there is none yet, the thread makes another call first, which brings some, and then its own once more.

use std::ffi::CString;

use rustix::io::Errno;

use super::super::calls::{Traced, traced};
use super::super::memory::Memory;
use super::super::ptrace::{self, Registers};
use super::super::supervision::Supervision;
use super::detour::{Detour, Goal};
use super::follow::{Executing, Phase};
use super::rooms::Rooms;

/// Other arguments for a call.
pub(super) struct Replacement {
    /// What the path becomes, at which argument, and whether others are cleared.
    pub(super) path: CString,
    pub(super) path_at: usize,
    /// The pointers of the new first arguments come before the rest of the old ones.
    pub(super) arguments: Option<(Vec<Vec<u8>>, Vec<u64>)>,
    pub(super) then: Option<Executing>,
    /// The program, in place of the path, which is empty.
    pub(super) descriptor: Option<u64>,
}

impl Replacement {
    fn path_offset(&self) -> u64 {
        match &self.arguments {
            Some((first, rest)) => 8 * (first.len() + rest.len() + 1) as u64,
            None => 0,
        }
    }

    fn length(&self) -> u64 {
        let texts: usize = self
            .arguments
            .iter()
            .flat_map(|(first, _)| first)
            .map(|text| text.len() + 1)
            .sum();
        self.path_offset() + (self.path.as_bytes_with_nul().len() + texts) as u64
    }

    /// Writes pointers, path and texts for a place.
    fn bytes(&self, at: u64) -> Vec<u8> {
        let mut texts = self.path.as_bytes_with_nul().to_vec();
        let mut bytes = Vec::new();
        if let Some((first, rest)) = &self.arguments {
            for text in first {
                let address = at + self.path_offset() + texts.len() as u64;
                bytes.extend(address.to_ne_bytes());
                texts.extend_from_slice(text);
                texts.push(0);
            }
            for address in rest {
                bytes.extend(address.to_ne_bytes());
            }
            bytes.extend(0_u64.to_ne_bytes());
        }
        bytes.extend(texts);
        bytes
    }
}

impl Supervision {
    /// Lets the thread go on with other arguments, or to get room for them.
    pub(super) fn replace(
        &mut self,
        thread: i32,
        registers: &mut Registers,
        replacement: Replacement,
    ) -> Result<(), Errno> {
        let length = replacement.length();
        let service = self.service();
        let process = service.family.process_of(thread).unwrap_or(thread);
        let memory = Memory::of(thread);
        let is_alone = !service.rooms.is_shared(process) && service.family.has_one_thread(process);
        let mut waits = false;
        let mut address = None;
        if is_alone {
            let at = registers.stack().saturating_sub(length) & !15;
            if memory.write(at, &replacement.bytes(at)).is_ok() {
                address = Some(at);
            }
        }
        while address.is_none() {
            let Some(at) = service.rooms.take(process, thread, length) else {
                let then = replacement.descriptor.map(|descriptor| {
                    Phase::Detour(Box::new(Detour::Opened {
                        registers: *registers,
                        descriptor,
                        goal: Goal::Program(Box::new(replacement)),
                    }))
                });
                return self.get_room(thread, registers, length, then);
            };
            waits = true;
            match memory.write(at, &replacement.bytes(at)) {
                Ok(()) => address = Some(at),
                // The process has given it back.
                Err(_) => service.rooms.forget(process, at),
            }
        }
        let address = address.expect("the loop ends with one");
        if let Some(descriptor) = replacement.descriptor {
            return self.execute_descriptor(thread, registers, replacement, (descriptor, address));
        }
        registers.set_argument(replacement.path_at, address + replacement.path_offset());
        if replacement.arguments.is_some() {
            registers.set_argument(replacement.path_at + 1, address);
        }
        if replacement.path_at == 1 {
            // An absolute path needs no directory, and all links were followed.
            registers.set_argument(4, 0);
        }
        registers.write(thread)?;
        match replacement.then {
            Some(executing) => {
                let phase = Phase::Executing(executing);
                service.set_phase(thread, phase);
                ptrace::go_on(thread, 0)
            }
            None if waits => {
                service.set_phase(thread, Phase::Calling);
                ptrace::go_on_to_end_of_call(thread)
            }
            None => ptrace::go_on(thread, 0),
        }
    }

    /// Has the thread execute what a descriptor leads to. What replaces its arguments is at `address`.
    fn execute_descriptor(
        &mut self,
        thread: i32,
        registers: &Registers,
        replacement: Replacement,
        (descriptor, address): (u64, u64),
    ) -> Result<(), Errno> {
        let first = match traced(registers.number()) {
            Some(Traced::Execveat) => 2,
            _ => 1,
        };
        let path = address + replacement.path_offset();
        let arguments = match replacement.arguments {
            Some(_) => address,
            None => registers.argument(first),
        };
        let environment = registers.argument(first + 1);
        let flags = libc::AT_EMPTY_PATH as u64;
        let mut executing = *registers;
        for (at, value) in [descriptor, path, arguments, environment, flags]
            .into_iter()
            .enumerate()
        {
            executing.set_argument(at, value);
        }
        let detour = Detour::Executing {
            registers: *registers,
            descriptor,
            executing: replacement.then.ok_or(Errno::INVAL)?,
        };
        self.call_instead(thread, executing, libc::SYS_execveat, detour)
    }

    /// Has the thread ask for memory.
    fn get_room(
        &mut self,
        thread: i32,
        registers: &Registers,
        length: u64,
        then: Option<Phase>,
    ) -> Result<(), Errno> {
        let length = Rooms::wanted(length);
        let mut asking = *registers;
        let protection = (libc::PROT_READ | libc::PROT_WRITE) as u64;
        let flags = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64;
        for (at, value) in [0, length, protection, flags, u64::MAX, 0]
            .into_iter()
            .enumerate()
        {
            asking.set_argument(at, value);
        }
        asking.write(thread)?;
        asking.set_number(thread, libc::SYS_mmap)?;
        asking.write(thread)?;
        self.service().set_phase(
            thread,
            Phase::Mapping {
                registers: *registers,
                length,
                then: then.map(Box::new),
            },
        );
        ptrace::go_on_to_end_of_call(thread)
    }
}
