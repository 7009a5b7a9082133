//! Supervision: a process outside the command answers some of its system calls, so that a command with one real id, or with no
//! rights at all, has owners, modes, devices and other users as the image must have them.
//!
//! ```text
//! inner half                                        outer half
//!  installs the filter of `traps` ── listener, root ─►  a Supervision: table of credentials, ledger, root
//!  becomes the command
//!  a held call ──────── notification ──────────────►  Caller: decode, look at memory, resolve paths in the root
//!              ◄─────── answer ─────────────────────  Answer: continue in the kernel, a value, an error, a descriptor
//! ```
//!
//! In: a ledger of what the files are, who the command starts as, and in which [`Mode`]. Out: the ledger as it is at the end.
//! The supervisor is the outer half's single thread and serves held calls between its other duties; so nothing here may wait
//! for the command: what could block (a FIFO, a device, a lease) is left to the kernel, in the caller's own context.
//!
//! Invariants. What is read from a caller's memory is read once, may be anything, and is believed only while the call is still
//! held; whatever is done is done to descriptors that were resolved inside the command's root, so the worst that a caller can
//! bring about by changing its memory or its tree meanwhile is the same call on another file of its own. "Continue" is never a
//! decision that something is allowed. Emulated ids are no boundary between processes of one command: they all have one
//! real id.

mod calls;
mod change;
pub(super) mod credentials;
mod devices;
mod elf;
mod exec;
mod family;
mod guest;
mod identity;
mod ids;
mod interrupt;
mod light;
pub(super) mod listener;
mod look;
mod make;
pub(super) mod memory;
mod names;
mod ownership;
pub(super) mod passing;
mod permission;
mod place;
mod procfs;
mod program;
mod ptrace;
mod service;
mod status;
mod supervision;
pub(super) mod traps;
mod uname;
mod xattrs;

pub(super) use calls::program as paths_program;
pub(super) use family::Family;
pub(super) use guest::{Asker, Found, Guest, Last, Node, look};
pub(super) use interrupt::Interrupts;
pub(super) use permission::{Truth, file_id};
pub(super) use service::{Followed, HARMLESS, Service, fill_listing};
#[cfg(test)]
pub(super) use status::Status;
pub(super) use supervision::{Plan, Supervision};
pub(super) use traps::Mode;
