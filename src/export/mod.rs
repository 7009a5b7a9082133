//! Where finished images go: registries, OCI layouts, Docker archives, root file systems.
//!
//! In: assembled documents and the store that holds (or can fetch) their blobs. Out: a directory, an archive, an image in a
//! registry. A final name is given last: what is half written never carries it. Compresses nothing and changes no byte of a blob.

mod archive;
mod error;
mod image;
mod layout;
mod push;
mod tree;

pub use archive::{docker_archive, oci_archive};
pub use error::ExportError;
pub use image::{Blobs, Export, ExportedImage, ExportedIndex};
pub use layout::oci_layout;
pub use push::push;
pub use tree::{root_directory, root_tar};
