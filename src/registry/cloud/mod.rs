//! Built-in logins at the registries of clouds: what their helper programs do, without the programs.
//!
//! ```text
//! kind ── which cloud a registry's host is of
//!  ├─ ecr     AWS keys buy a password            ◀── aws_keys ◀── profile, sts    ◀── sigv4
//!  ├─ google  an access token is the password    ◀── jwt
//!  └─ azure   an access token buys a refresh token
//!  ▼
//! call ─ one request to a fixed address, again where it fails in passing
//! ```
//!
//! In: the registry's host and the environment. Out: a credential with its lifetime, or nothing where there is no identity. Nothing is
//! asked before a registry of that very cloud has refused strangers; metadata services are asked last, and no one waits for them
//! where they are not. Secrets go to addresses that are fixed here, or that a file of the user names and that are the cloud's own.

mod aws_keys;
mod azure;
mod call;
mod ecr;
mod error;
mod google;
mod jwt;
mod kind;
mod profile;
pub(super) mod sigv4;
mod sts;

pub(super) use aws_keys::{find as find_aws_keys, region_of_profile};
pub(super) use call::{Caller, code_of, said};
pub use error::LoginError;
#[cfg(test)]
pub(super) use jwt::tests::KEY as TEST_KEY;
pub(super) use kind::Cloud;
pub(super) use sts::domain as aws_domain;
