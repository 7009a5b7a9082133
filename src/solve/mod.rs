//! The graph becomes results.
