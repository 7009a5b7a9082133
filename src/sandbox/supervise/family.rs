//! The processes of one command: which threads there are, which process each is of, and what that executes.
//!
//! The tracer writes it; each of its events is of a thread that stands still. Who is not in here is no business of the
//! command's: it neither sees nor signals it.

use std::collections::HashMap;
use std::rc::Rc;

#[derive(Debug, Default)]
pub(in crate::sandbox) struct Family {
    /// By thread.
    processes: HashMap<i32, i32>,
    /// By process: what it executes, as it is called in the root.
    executables: HashMap<i32, Executable>,
}

/// What a process executes.
#[derive(Clone, Debug, Default)]
pub(in crate::sandbox) struct Executable {
    /// As it is called in the root.
    pub(in crate::sandbox) path: Rc<[u8]>,
    /// How many of the arguments that the kernel knows are the loader's.
    pub(in crate::sandbox) loaders_arguments: usize,
}

impl Family {
    /// Adds the first process.
    pub(in crate::sandbox) fn begin(&mut self, process: i32) {
        self.processes.insert(process, process);
        self.executables.insert(process, Executable::default());
    }

    /// Adds a thread: one more of the process that `parent` is of, or a process of its own that executes the same.
    pub(in crate::sandbox) fn add(&mut self, parent: i32, thread: i32, is_process: bool) {
        let of_parent = self.process_of(parent).unwrap_or(parent);
        if is_process {
            let executable = self.executable(of_parent);
            self.processes.insert(thread, thread);
            self.executables.insert(thread, executable);
        } else {
            self.processes.insert(thread, of_parent);
        }
    }

    /// Removes a thread, and its process if it was the first of it.
    pub(in crate::sandbox) fn remove(&mut self, thread: i32) {
        self.processes.remove(&thread);
        self.executables.remove(&thread);
    }

    /// Sets what a process executes from now on. Its other threads are gone.
    pub(in crate::sandbox) fn executes(&mut self, process: i32, executable: Executable) {
        self.processes
            .retain(|thread, of| *of != process || *thread == process);
        self.executables.insert(process, executable);
    }

    pub(in crate::sandbox) fn has_one_thread(&self, process: i32) -> bool {
        self.processes.values().filter(|of| **of == process).count() == 1
    }

    pub(in crate::sandbox) fn process_of(&self, thread: i32) -> Option<i32> {
        self.processes.get(&thread).copied()
    }

    pub(in crate::sandbox) fn executable(&self, process: i32) -> Executable {
        self.executables.get(&process).cloned().unwrap_or_default()
    }

    /// Tells whether a thread or process is one of the command's.
    pub(in crate::sandbox) fn has(&self, pid: i32) -> bool {
        self.processes.contains_key(&pid)
    }

    pub(in crate::sandbox) fn processes(&self) -> impl Iterator<Item = i32> {
        self.executables.keys().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(path: &str) -> Executable {
        Executable {
            path: Rc::from(path.as_bytes()),
            loaders_arguments: 0,
        }
    }

    #[test]
    fn children_execute_what_their_parents_do_until_they_execute_something() {
        let mut family = Family::default();
        family.begin(10);
        family.executes(10, named("/bin/sh"));
        family.add(10, 11, true);
        family.add(11, 12, false);
        family.executes(11, named("/bin/ls"));
        assert_eq!(&*family.executable(10).path, b"/bin/sh");
        assert_eq!(&*family.executable(11).path, b"/bin/ls");
        assert!(
            !family.has(12),
            "threads end when their process executes something"
        );
        family.add(11, 13, false);
        assert_eq!(family.process_of(13), Some(11));
        family.remove(13);
        assert!(family.has(11) && !family.has(13));
        assert_eq!(family.processes().count(), 2);
    }
}
