//! An image of the store as something to deliver.

use crate::export::{Export, ExportedImage, ExportedIndex};
use crate::image::{Manifest, parse_config, parse_manifest};
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
                let bytes = document(store, &entry.descriptor)?;
                if let Manifest::Image { config, layers } = parse(&bytes, &entry.descriptor)? {
                    images.push(image(store, &entry.descriptor, bytes, config, layers)?);
                }
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
    let media_type = Some(descriptor.media_type.as_str()).filter(|text| !text.is_empty());
    parse_manifest(bytes, media_type).map_err(|error| {
        Failure::new(
            ExitCode::Store,
            Diagnostic::error("the image's manifest cannot be read").caused_by(&error),
        )
    })
}
