//! What the tests of whole builds share: a laboratory to build in, a small root to build on, a validator of images.

#![allow(unreachable_pub, reason = "shared by several test programs")]

pub mod browser;
pub mod http;
pub mod image;
pub mod lab;
pub mod machine_root;
pub mod objects;
pub mod power;
pub mod registry;
pub mod repository;
pub mod terminal;
