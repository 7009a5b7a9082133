#![allow(unsafe_code, reason = "this is the room for it")]
//! Running a process confined.
