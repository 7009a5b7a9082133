//! A shared cache in a repository of a registry.

use std::io::Read;

use super::CacheError;
use super::entry::Entry;
use super::written::Documents;
use crate::image::{Manifest, OCI_MANIFEST, parse_config, parse_manifest};
use crate::registry::{Client, OpenAt, RegistryError};
use crate::vocab::{Descriptor, ImageRef};

/// Images of one index whose records are read.
const MOST_PLATFORMS: usize = 8;

pub(super) fn document(
    client: &Client,
    image: &ImageRef,
    name: &str,
) -> Result<Option<Vec<u8>>, CacheError> {
    match client.standing(&image.with_tag(name)) {
        Ok(fetched) => Ok(fetched.map(|fetched| fetched.bytes)),
        // What the registry answers for a repository that does not exist yet, to those who may not list.
        Err(RegistryError::Denied {
            had_credentials: true,
            said,
            ..
        }) if said.has("NAME_UNKNOWN") => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Returns the records inside the image itself, of all its platforms; the error text says what the image is instead.
pub(super) fn records(
    client: &Client,
    image: &ImageRef,
) -> Result<Result<Vec<Entry>, &'static str>, CacheError> {
    let Some(fetched) = client.standing(image)? else {
        return Ok(Ok(Vec::new()));
    };
    let of_buildkit = |bytes: &[u8], mark: &str| String::from_utf8_lossy(bytes).contains(mark);
    if of_buildkit(&fetched.bytes, "application/vnd.buildkit.cacheconfig.v0") {
        return Ok(Err("holds a cache of BuildKit"));
    }
    let mut manifests = vec![(fetched.bytes, fetched.descriptor.media_type)];
    let mut entries = Vec::new();
    let mut is_foreign = false;
    let mut at = 0;
    while let Some((bytes, media_type)) = manifests.get(at).cloned() {
        at += 1;
        match parse_manifest(&bytes, Some(&media_type)) {
            Ok(Manifest::Index(lines)) if at == 1 => {
                for line in lines.iter().take(MOST_PLATFORMS) {
                    let digest = line.descriptor.digest;
                    let own = client.standing(&image.with_digest(digest))?;
                    let own = own.ok_or(CacheError::Gone(digest))?;
                    manifests.push((own.bytes, own.descriptor.media_type));
                }
            }
            Ok(Manifest::Image { config, layers }) => {
                let mut text = Vec::new();
                let read = client.own_blob(image, &config)?.read_to_end(&mut text);
                read.map_err(|_| CacheError::Gone(config.digest))?;
                is_foreign |= of_buildkit(&text, "moby.buildkit.cache.v0");
                if let Ok(config) = parse_config(&text) {
                    entries.extend(super::entry::records(&config, &layers));
                }
            }
            // An artifact, say: nothing that holds records.
            Ok(Manifest::Index(_)) | Err(_) => {}
        }
    }
    match entries.is_empty() && is_foreign {
        true => Ok(Err("holds an inline cache of BuildKit")),
        false => Ok(Ok(entries)),
    }
}

pub(super) fn put_document(
    client: &Client,
    image: &ImageRef,
    name: &str,
    documents: &Documents,
) -> Result<(), CacheError> {
    let open = |offset: u64| -> std::io::Result<Box<dyn Read + Send>> {
        let rest = documents.config_bytes.get(offset as usize..);
        Ok(Box::new(std::io::Cursor::new(
            rest.unwrap_or_default().to_vec(),
        )))
    };
    client.push_blob(image, &documents.config, &open, &[], &|_| ())?;
    put_manifest(client, image, name, &documents.manifest)
}

/// Writes a document whose blobs are all there.
pub(super) fn put_manifest(
    client: &Client,
    image: &ImageRef,
    name: &str,
    document: &[u8],
) -> Result<(), CacheError> {
    client.push_manifest(&image.with_tag(name), OCI_MANIFEST, document)?;
    Ok(())
}

pub(super) fn blob(
    client: &Client,
    image: &ImageRef,
    blob: &Descriptor,
) -> Result<Box<dyn Read + Send>, CacheError> {
    Ok(Box::new(client.own_blob(image, blob)?))
}

pub(super) fn put_blob(
    client: &Client,
    image: &ImageRef,
    blob: &Descriptor,
    open: OpenAt<'_>,
    mount_from: &[String],
) -> Result<(), CacheError> {
    client.push_blob(image, blob, open, mount_from, &|_| ())?;
    Ok(())
}
