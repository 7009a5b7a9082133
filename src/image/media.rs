//! Media types of the two families, OCI's and Docker's, and the way from one to the other.
//!
//! A type that belongs to neither family is no concern of this module: it stays as it is.

use crate::vocab::Compression;

/// An OCI image manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// An OCI image index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// An OCI image config.
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// An OCI layer that is not compressed.
pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// An OCI layer compressed with gzip.
pub const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// An OCI layer compressed with Zstandard.
pub const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
/// A Docker manifest, schema 2.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// A Docker manifest list.
pub const DOCKER_MANIFEST_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// A Docker image config.
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// A Docker layer that is not compressed.
pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
/// A Docker layer compressed with gzip.
pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
/// A Docker layer compressed with Zstandard, as containerd names it.
pub const DOCKER_LAYER_ZSTD: &str = "application/vnd.docker.image.rootfs.diff.tar.zstd";

/// The types that a manifest or index may have, for an `Accept` header.
pub const MANIFEST_TYPES: [&str; 4] = [
    OCI_INDEX,
    OCI_MANIFEST,
    DOCKER_MANIFEST_LIST,
    DOCKER_MANIFEST,
];

/// OCI's name of each layer type beside Docker's.
const LAYERS: [(&str, &str); 6] = [
    (OCI_LAYER, DOCKER_LAYER),
    (OCI_LAYER_GZIP, DOCKER_LAYER_GZIP),
    (OCI_LAYER_ZSTD, DOCKER_LAYER_ZSTD),
    (
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "application/vnd.docker.image.rootfs.foreign.diff.tar",
    ),
    (
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    ),
    (
        "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.zstd",
    ),
];

/// Which family of media types a document is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MediaTypes {
    Oci,
    Docker,
}

impl MediaTypes {
    /// Returns the type of a manifest.
    pub fn manifest(self) -> &'static str {
        match self {
            MediaTypes::Oci => OCI_MANIFEST,
            MediaTypes::Docker => DOCKER_MANIFEST,
        }
    }

    /// Returns the type of an index.
    pub fn index(self) -> &'static str {
        match self {
            MediaTypes::Oci => OCI_INDEX,
            MediaTypes::Docker => DOCKER_MANIFEST_LIST,
        }
    }

    /// Returns the type of an image config.
    pub fn config(self) -> &'static str {
        match self {
            MediaTypes::Oci => OCI_CONFIG,
            MediaTypes::Docker => DOCKER_CONFIG,
        }
    }

    /// Returns this family's name of a layer type; one of neither family stays.
    pub fn layer(self, media_type: &str) -> &str {
        let row = LAYERS
            .iter()
            .find(|(oci, docker)| [*oci, *docker].contains(&media_type));
        match (row, self) {
            (Some((oci, _)), MediaTypes::Oci) => oci,
            (Some((_, docker)), MediaTypes::Docker) => docker,
            (None, _) => media_type,
        }
    }
}

/// Returns the type of a layer that is compressed so.
pub fn layer_media_type(compression: Compression, media_types: MediaTypes) -> &'static str {
    let (oci, docker) = match compression {
        Compression::Uncompressed => LAYERS[0],
        Compression::Gzip { .. } => LAYERS[1],
        Compression::Zstd { .. } => LAYERS[2],
    };
    match media_types {
        MediaTypes::Oci => oci,
        MediaTypes::Docker => docker,
    }
}

/// Tells whether a blob of this type is a file-system layer.
pub(super) fn is_layer(media_type: &str) -> bool {
    LAYERS
        .iter()
        .any(|(oci, docker)| [*oci, *docker].contains(&media_type))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layer_types_go_to_the_other_family_and_back() {
        for (oci, docker) in LAYERS {
            assert_eq!(MediaTypes::Docker.layer(oci), docker);
            assert_eq!(MediaTypes::Docker.layer(docker), docker);
            assert_eq!(MediaTypes::Oci.layer(docker), oci);
            assert!(is_layer(oci) && is_layer(docker));
        }
        assert_eq!(MediaTypes::Oci.layer("text/plain"), "text/plain");
        assert!(!is_layer("application/vnd.in-toto+json"));
    }

    #[test]
    fn compressions_have_their_types() {
        for (compression, oci, docker) in [
            (Compression::Uncompressed, OCI_LAYER, DOCKER_LAYER),
            (
                Compression::Gzip { level: 9 },
                OCI_LAYER_GZIP,
                DOCKER_LAYER_GZIP,
            ),
            (
                Compression::Zstd { level: 3 },
                OCI_LAYER_ZSTD,
                DOCKER_LAYER_ZSTD,
            ),
        ] {
            assert_eq!(layer_media_type(compression, MediaTypes::Oci), oci);
            assert_eq!(layer_media_type(compression, MediaTypes::Docker), docker);
        }
    }
}
