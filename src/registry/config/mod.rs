//! Settings of other tools that say where images come from and on what terms hosts are met.
//!
//! | file | about |
//! |---|---|
//! | `registries.conf`, `registries.conf.d` | names to places: mirrors, other locations, blocks, short names |
//! | containerd's `certs.d/HOST/hosts.toml` | one registry's servers, in order |
//! | `buildkitd.toml` | mirrors, plain HTTP and certificates by registry |
//! | `daemon.json` | mirrors of Docker Hub, insecure hosts |
//!
//! In: an image's name, or a host. Out: [`Place`]s, or the [`Terms`](super::site::Terms) of a host. The first kind in the table that
//! speaks of a registry decides about it. Understanding texts is pure; reading files is [`Files`]' alone. Not here: what was said on
//! the command line, which goes before all of this, and credentials.

mod buildkit;
mod containerd;
mod containers;
mod docker;
mod files;
mod mistake;
mod place;
mod short;

pub(super) use files::{Files, add_directory, containerd_directories, is_directory_name};
pub(super) use mistake::Mistake;
pub(super) use place::{Bar, Place, Wanted};

/// The variables that say where the files are.
pub(super) const VARIABLES: [&str; 2] = [
    "CONTAINERS_REGISTRIES_CONF",
    "CONTAINERS_REGISTRIES_CONF_DIR",
];
