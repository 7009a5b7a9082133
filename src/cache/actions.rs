//! A shared cache in the cache that GitHub keeps for a repository's workflows.
//!
//! Documents and blobs are entries of that cache. What the service makes of names, and how something is written over where nothing can be, is
//! the business of [`ActionsCache`](crate::registry::ActionsCache). Blobs are not believed when they are read; their digests are checked.

use std::io::Read;

use super::CacheError;
use super::directory::MOST_ENTRY;
use super::place::Answer;
use super::written::Documents;
use crate::registry::{Client, OpenAt, RegistryError};
use crate::vocab::{ActionsPlace, Descriptor};

pub(super) fn document(
    client: &Client,
    place: &ActionsPlace,
    name: &str,
) -> Result<Option<Vec<u8>>, CacheError> {
    Ok(client.actions_cache(place)?.document(name, MOST_ENTRY)?)
}

/// Asks about several names at the same time.
pub(super) fn documents_under(
    client: &Client,
    place: &ActionsPlace,
    names: &[String],
) -> Result<Vec<Answer>, CacheError> {
    let found = client
        .actions_cache(place)?
        .document_each(names, MOST_ENTRY)?;
    Ok(found
        .into_iter()
        .map(|found| found.map_err(CacheError::from))
        .collect())
}

pub(super) fn put_document(
    client: &Client,
    place: &ActionsPlace,
    name: &str,
    documents: &Documents,
) -> Result<(), CacheError> {
    let service = client.actions_cache(place)?;
    documents.need(|layer| Ok(service.has(layer)?))?;
    Ok(service.put_document(name, documents.manifest.clone())?)
}

/// Nobody looks after this cache but GitHub.
pub(super) fn not_kept() -> CacheError {
    CacheError::Registry(RegistryError::Option {
        what: "what is in GitHub's cache is listed and removed by `gh cache`".to_owned(),
    })
}

pub(super) fn blob(
    client: &Client,
    place: &ActionsPlace,
    blob: &Descriptor,
) -> Result<Box<dyn Read + Send>, CacheError> {
    let reader = client.actions_cache(place)?.blob(blob)?;
    Ok(Box::new(reader.ok_or(CacheError::Gone(blob.digest))?))
}

pub(super) fn put_blob(
    client: &Client,
    place: &ActionsPlace,
    blob: &Descriptor,
    open: OpenAt<'_>,
) -> Result<(), CacheError> {
    Ok(client.actions_cache(place)?.put_blob(blob, open)?)
}
