//! Syncing.
//!
//! Nothing of a step outlives a crash of the machine: what a step has made is written to the disk when it is kept. So to wait for
//! the disk in between is to wait for nothing, in the root's own tree; `ns` mounts its root `volatile` for the same reason. What is
//! elsewhere, in a cache that is kept whatever becomes of the step, is synced as it was asked for.

use rustix::fs::readlinkat;
use rustix::io::Errno;

use super::super::guest::place_of;
use super::super::listener::Answer;
use super::super::supervision::{Caller, Supervision};

impl Supervision {
    pub(super) fn sync(&mut self, caller: &Caller, descriptor: i32) -> Result<Answer, Errno> {
        let guest = &self.service().guest;
        let host = match descriptor {
            0.. => readlinkat(
                &**guest.proc(),
                place_of(caller.thread, descriptor)?.as_slice(),
                Vec::new(),
            ),
            _ => Err(Errno::BADF),
        };
        Ok(match host.map(|host| guest.guest_of(host.as_bytes())) {
            Ok(Some((0, _))) => Answer::Value(0),
            // The kernel knows what is wrong with it, too.
            _ => Answer::Continue,
        })
    }
}
