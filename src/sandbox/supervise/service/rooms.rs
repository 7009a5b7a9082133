//! Room in a caller's memory for other arguments than it gave.
//!
//! A thread that stands at a call gets other paths than it named. They have to lie in its memory. A process with one thread and
//! memory of its own has room below its stack, which nobody uses while it stands. Below the stack of one that shares its
//! memory there may be anything: a `vfork`ed child runs on its parent's, and some languages' stacks are small pieces of
//! their heaps. Those get pages of their own, which the thread itself is made to ask for, and which are used again by all who
//! share the memory.

use std::collections::HashMap;

/// Pages that were asked for.
#[derive(Clone, Copy, Debug)]
struct Room {
    address: u64,
    length: u64,
    /// The thread whose arguments lie there.
    user: Option<i32>,
}

#[derive(Debug, Default)]
pub(super) struct Rooms {
    /// By process that uses another's memory.
    guests: HashMap<i32, i32>,
    /// By process whose memory it is.
    rooms: HashMap<i32, Vec<Room>>,
}

/// The least that is asked for.
const LEAST: u64 = 16384;

impl Rooms {
    fn host(&self, process: i32) -> i32 {
        let mut process = process;
        while let Some(host) = self.guests.get(&process) {
            process = *host;
        }
        process
    }

    /// A process has been made, with the memory of its parent or a copy of it.
    pub(super) fn forked(&mut self, parent: i32, child: i32, shares: bool) {
        let host = self.host(parent);
        if shares {
            self.guests.insert(child, host);
        } else if let Some(rooms) = self.rooms.get(&host) {
            let mut rooms = rooms.clone();
            for room in &mut rooms {
                room.user = None;
            }
            self.rooms.insert(child, rooms);
        }
    }

    /// A process has new memory, or none.
    pub(super) fn left(&mut self, process: i32, thread: i32) {
        self.leave(process, thread);
        if self.guests.remove(&process).is_none() {
            self.rooms.remove(&process);
        }
    }

    /// A thread needs its room no longer.
    pub(super) fn leave(&mut self, process: i32, thread: i32) {
        let host = self.host(process);
        for room in self.rooms.get_mut(&host).into_iter().flatten() {
            if room.user == Some(thread) {
                room.user = None;
            }
        }
    }

    /// Tells whether a process shares its memory with another one.
    pub(super) fn is_shared(&self, process: i32) -> bool {
        self.guests.contains_key(&process) || self.guests.values().any(|host| *host == process)
    }

    /// Gives a thread room that is there already.
    pub(super) fn take(&mut self, process: i32, thread: i32, length: u64) -> Option<u64> {
        self.leave(process, thread);
        let host = self.host(process);
        let room = self
            .rooms
            .get_mut(&host)?
            .iter_mut()
            .find(|room| room.user.is_none() && room.length >= length)?;
        room.user = Some(thread);
        Some(room.address)
    }

    /// What was thought to be room is none.
    pub(super) fn forget(&mut self, process: i32, address: u64) {
        let host = self.host(process);
        if let Some(rooms) = self.rooms.get_mut(&host) {
            rooms.retain(|room| room.address != address);
        }
    }

    /// Returns how much to ask for.
    pub(super) fn wanted(length: u64) -> u64 {
        length.next_multiple_of(LEAST)
    }

    /// A process has got what was asked for.
    pub(super) fn add(&mut self, process: i32, address: u64, length: u64) {
        let host = self.host(process);
        self.rooms.entry(host).or_default().push(Room {
            address,
            length,
            user: None,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_share_memory_share_its_rooms() {
        let mut rooms = Rooms::default();
        rooms.forked(1, 2, true);
        assert!(rooms.is_shared(1) && rooms.is_shared(2));
        assert_eq!(rooms.take(2, 2, 10), None);
        rooms.add(2, 4096, LEAST);
        assert_eq!(rooms.take(2, 2, 10), Some(4096));
        rooms.forked(1, 3, true);
        assert_eq!(rooms.take(3, 3, 10), None, "in use");
        rooms.left(2, 2);
        assert_eq!(rooms.take(3, 3, 10), Some(4096));
        rooms.forked(1, 4, false);
        assert!(!rooms.is_shared(4));
        assert_eq!(rooms.take(4, 4, LEAST + 1), None, "too small");
        assert_eq!(rooms.take(4, 4, 10), Some(4096), "its own copy");
        rooms.left(4, 4);
        assert_eq!(rooms.take(4, 4, 10), None);
    }
}
