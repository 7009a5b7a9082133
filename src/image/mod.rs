//! OCI documents: configs, manifests, indexes. Values in, bytes out, the same bytes in every run; strangers' bytes in, values out.
//!
//! Manifests, indexes and descriptors are read and written with `oci_spec` types through sorted maps; the config is our own
//! type, because a round trip through `oci_spec` loses keys that a base image may carry (health check, ONBUILD, shell, unknown
//! ones). Nothing here does I/O.

mod assemble;
mod config;
mod error;
mod listing;
mod manifest;
mod media;
mod select;
#[cfg(test)]
mod tests;

pub use assemble::{Assembled, EMPTY_CONFIG, artifact, assemble, complete, index};
pub use config::{ContainerConfig, HealthConfig, History, ImageConfig, RootFs};
pub use error::ImageError;
pub use listing::{Listing, ListingEntry, Parts, Slot, parts_of};
pub use manifest::{IndexEntry, Manifest, parse_config, parse_manifest};
pub use media::{
    DOCKER_CONFIG, DOCKER_LAYER, DOCKER_LAYER_GZIP, DOCKER_LAYER_ZSTD, DOCKER_MANIFEST,
    DOCKER_MANIFEST_LIST, MANIFEST_TYPES, MediaTypes, OCI_CONFIG, OCI_INDEX, OCI_LAYER,
    OCI_LAYER_GZIP, OCI_LAYER_ZSTD, OCI_MANIFEST, layer_media_type,
};
pub use select::select;
