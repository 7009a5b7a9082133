//! Performs one step on this machine.
