//! Running a process confined.
