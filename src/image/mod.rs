//! OCI documents: configs, manifests, indexes. Values in, bytes out, the same bytes in every run.
//!
//! Manifests, indexes and descriptors are read and written with `oci_spec` types through sorted maps; the config is our own
//! type, because a round trip through `oci_spec` loses keys that a base image may carry (health check, ONBUILD, shell, unknown
//! ones). Nothing here does I/O.

mod config;

pub use config::{ContainerConfig, HealthConfig, History, ImageConfig, RootFs};
