//! An image of the store as something to deliver.

use crate::export::{Export, ExportedImage, ExportedIndex};
use crate::image::{ImageError, Manifest, parse_config, parse_manifest, parts_of};
use crate::store::Store;
use crate::vocab::{Descriptor, Diagnostic, ExitCode, ImageRef, Platform};

use super::{Failure, failure};

/// Documents larger than this are no manifests or configs.
const DOCUMENT_LIMIT: u64 = 8 << 20;

/// Looks up what an image of the store consists of, for commands that deliver it again (`push`, `save`).
pub fn export_of<'a>(
    store: &Store,
    top: &Descriptor,
    names: &'a [ImageRef],
) -> Result<Export<'a>, Failure> {
    let bytes = document(store, top)?;
    match parse(&bytes, top)? {
        Manifest::Image { config, layers } => Ok(Export {
            images: vec![image(store, top, bytes, config, layers)?],
            index: None,
            names,
        }),
        Manifest::Index(entries) => {
            let mut images = Vec::new();
            for entry in entries {
                let top = &entry.descriptor;
                let bytes = document(store, top)?;
                images.push(match parse_manifest(&bytes, typed(top)) {
                    Ok(Manifest::Image { config, layers }) => {
                        image(store, top, bytes, config, layers)?
                    }
                    Ok(Manifest::Index(_)) => {
                        return Err(Failure::new(
                            ExitCode::Store,
                            Diagnostic::error("an index within an index is not supported"),
                        ));
                    }
                    Err(ImageError::NotAnImage(_)) => attestation(store, top, bytes)?,
                    Err(error) => return Err(unreadable(&error)),
                });
            }
            Ok(Export {
                images,
                index: Some(ExportedIndex {
                    descriptor: top.clone(),
                    bytes,
                }),
                names,
            })
        }
    }
}

fn image(
    store: &Store,
    manifest: &Descriptor,
    manifest_bytes: Vec<u8>,
    config: Descriptor,
    layers: Vec<Descriptor>,
) -> Result<ExportedImage, Failure> {
    let config_bytes = document(store, &config)?;
    let parsed = parse_config(&config_bytes).map_err(|error| {
        Failure::new(
            ExitCode::Store,
            Diagnostic::error("the image's config cannot be read").caused_by(&error),
        )
    })?;
    Ok(ExportedImage {
        platform: Platform::new(&parsed.os, &parsed.architecture, parsed.variant.as_deref()),
        manifest: manifest.clone(),
        manifest_bytes,
        config,
        config_bytes,
        layers,
    })
}

/// Returns what speaks of an image (provenance, an SBOM) and goes where its index goes.
fn attestation(
    store: &Store,
    manifest: &Descriptor,
    manifest_bytes: Vec<u8>,
) -> Result<ExportedImage, Failure> {
    let parts = parts_of(&manifest_bytes).map_err(|error| unreadable(&error))?;
    let Some((config, layers)) = parts.blobs.split_first() else {
        return Err(Failure::new(
            ExitCode::Store,
            Diagnostic::error(format!("the manifest {} names nothing", manifest.digest)),
        ));
    };
    Ok(ExportedImage {
        platform: Platform::new("unknown", "unknown", None),
        manifest: manifest.clone(),
        manifest_bytes,
        config: config.clone(),
        config_bytes: document(store, config)?,
        layers: layers.to_vec(),
    })
}

fn document(store: &Store, descriptor: &Descriptor) -> Result<Vec<u8>, Failure> {
    store.read_blob(&descriptor.digest, DOCUMENT_LIMIT).map_err(|error| failure::store(&error))?.ok_or_else(|| {
        Failure::new(
            ExitCode::Source,
            Diagnostic::error(format!("{} is not in the state directory", descriptor.digest))
                .hint("`builder pull` brings a whole image; a platform that was never pulled is not there"),
        )
    })
}

fn parse(bytes: &[u8], descriptor: &Descriptor) -> Result<Manifest, Failure> {
    parse_manifest(bytes, typed(descriptor)).map_err(|error| unreadable(&error))
}

/// Returns the type that a descriptor says.
fn typed(descriptor: &Descriptor) -> Option<&str> {
    Some(descriptor.media_type.as_str()).filter(|text| !text.is_empty())
}

fn unreadable(error: &ImageError) -> Failure {
    Failure::new(
        ExitCode::Store,
        Diagnostic::error("the image's manifest cannot be read").caused_by(error),
    )
}
