//! Where finished images go.
