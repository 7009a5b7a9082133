//! The name of the machine.
//!
//! A command has a host name of its own. Where none can be set (no namespace for it, or `sethostname` is filtered, as it is in
//! podman's containers), it is told here.

use rustix::io::Errno;

use super::listener::Answer;
use super::supervision::{Caller, Supervision};

/// Length of each of the six names.
const ROOM: usize = 65;

impl Supervision {
    pub(super) fn uname(&self, caller: &Caller) -> Result<Answer, Errno> {
        let uname = rustix::system::uname();
        let names = [
            uname.sysname().to_bytes(),
            self.hostname.as_bytes(),
            uname.release().to_bytes(),
            uname.version().to_bytes(),
            uname.machine().to_bytes(),
            uname.domainname().to_bytes(),
        ];
        let mut bytes = Vec::with_capacity(ROOM * names.len());
        for name in names {
            let end = bytes.len() + ROOM;
            bytes.extend_from_slice(&name[..name.len().min(ROOM - 1)]);
            bytes.resize(end, 0);
        }
        caller.memory().write(caller.arguments[0], &bytes)?;
        Ok(Answer::Value(0))
    }
}
