//! Registries over HTTP: pull, push, credentials; plain downloads; and object stores as places for caches. All `async` is here, behind calls that block.
//!
//! In: image names, descriptors, bytes to push. Out: manifests and blobs whose digests were checked, or a [`RegistryError`] that says
//! what to do. The room knows the distribution API (v2), its authentication and its dialects; of manifests it knows
//! how an index lists images, and no more; it unpacks nothing and writes nothing to disk but the credentials of [`login`].
//!
//! ```text
//! Client ── manifest   HEAD, GET, PUT of manifests        ◀── tags
//!        ├─ append     indexes that several jobs write to
//!        ├─ referrers  what is attached to a manifest
//!        ├─ remove     manifests and tags that are to go
//!        ├─ pull       blobs as readers that go on after a cut                      ◀── receipt
//!        ├─ push       blobs: there, mounted, or one stream that goes on after a cut      ◀── turns
//!        ├─ fetch      any other URL, for ADD and contexts
//!        ├─ objects    object stores and cache services, for caches       ◀── cloud, receipt
//!        ▼
//!     exchange         scheme, authorization, another attempt      ◀── endpoint  registries and mirrors ◀── rules ◀── config, site
//!        ├─ token      Basic and bearer tokens   ◀── challenge, purchase
//!        │    ▲
//!        │  account    in whose name   ◀── credentials ◀── variables, auth_file, helper ◀── login
//!        │                            ◀── cloud: built-in logins
//!        ├─ retry      limits and pauses
//!        ▼
//!     transport        one request to its answer                   ◀── tls ◀── identity; names, proxy
//! ```
//!
//! Rules that hold everywhere: no byte is handed on as good before its digest was checked; a secret goes to the host that it is for
//! and into no message; names are looked up without the C library, because a static program that calls `getaddrinfo` loads the
//! machine's own C library into itself; every wait has an end.

mod account;
mod append;
mod auth_file;
mod challenge;
mod client;
mod cloud;
mod config;
mod credentials;
mod endpoint;
mod environment;
mod error;
mod exchange;
mod fetch;
mod helper;
mod identity;
mod login;
mod manifest;
mod names;
mod objects;
mod proxy;
mod pull;
mod purchase;
mod push;
mod reactor;
mod receipt;
mod referrers;
mod remove;
mod retry;
mod rules;
mod scope;
mod site;
mod tags;
mod tls;
mod token;
mod trail;
mod transport;
mod turns;
mod variables;

#[cfg(test)]
#[path = "../../tests/support/registry.rs"]
mod fake;
#[cfg(test)]
#[path = "../../tests/support/objects.rs"]
mod fake_objects;
#[cfg(test)]
mod tests;

pub use append::{Addition, Appended};
pub use client::Client;
pub use cloud::LoginError;
pub use credentials::Credentials;
pub use error::{Action, Cause, RegistryError, Said};
pub use fetch::{Fetch, FetchError, Outcome, Sink, http_date};
pub use login::{login, logout};
pub use manifest::{Fetched, Resolved};
pub use objects::{ActionsCache, Bucket, Object};
pub use pull::BlobReader;
pub use push::{OpenAt, Pushed};
pub use reactor::Threads;
pub use referrers::{Attachment, Referrer};
