//! A shared cache in a bucket of an object store.
//!
//! ```text
//! s3://BUCKET/PREFIX manifests/ NAME            a manifest
//! s3://BUCKET/PREFIX blobs/ sha256:HEX          blobs, as BuildKit names them
//! ```
//!
//! An object appears whole or not at all, and the last writer's stays. Uses are noted in documents, and what nobody uses any more goes by
//! [`upkeep`](super::upkeep). Blobs are not believed when they are read; their digests are checked.

use std::io::Read;
use std::time::{Duration, UNIX_EPOCH};

use super::CacheError;
use super::directory::MOST_ENTRY;
use super::place::{Answer, Named};
use super::written::Documents;
use crate::registry::{Client, Object, OpenAt};
use crate::vocab::{BucketPlace, Descriptor, Digest, Timestamp};

/// A blob that has been there for longer is written again by whoever gives it: a blob that no document names goes some hours after it was
/// written.
const RENEWED: Duration = Duration::from_secs(2 * 60 * 60);

fn document_name(place: &BucketPlace, name: &str) -> String {
    format!("{}{}{name}", place.prefix, place.documents)
}

fn blob_name(place: &BucketPlace, digest: &Digest) -> String {
    format!("{}{}{digest}", place.prefix, place.blobs)
}

pub(super) fn document(
    client: &Client,
    place: &BucketPlace,
    name: &str,
) -> Result<Option<Vec<u8>>, CacheError> {
    let bucket = client.bucket(place)?;
    Ok(bucket.get(&document_name(place, name), MOST_ENTRY)?)
}

/// Asks about several names at the same time.
pub(super) fn documents_under(
    client: &Client,
    place: &BucketPlace,
    names: &[String],
) -> Result<Vec<Answer>, CacheError> {
    let names: Vec<String> = names
        .iter()
        .map(|name| document_name(place, name))
        .collect();
    let found = client.bucket(place)?.get_each(&names, MOST_ENTRY)?;
    Ok(found
        .into_iter()
        .map(|found| found.map_err(CacheError::from))
        .collect())
}

/// Writes a document; fails where a blob of it is not there.
pub(super) fn put_document(
    client: &Client,
    place: &BucketPlace,
    name: &str,
    documents: &Documents,
) -> Result<(), CacheError> {
    let bucket = client.bucket(place)?;
    documents.need(|layer| Ok(bucket.has(&blob_name(place, &layer.digest), layer.size)?))?;
    put_bytes(client, place, name, documents.manifest.clone())
}

pub(super) fn put_bytes(
    client: &Client,
    place: &BucketPlace,
    name: &str,
    bytes: Vec<u8>,
) -> Result<(), CacheError> {
    let bucket = client.bucket(place)?;
    Ok(bucket.put(&document_name(place, name), bytes)?)
}

pub(super) fn blob(
    client: &Client,
    place: &BucketPlace,
    blob: &Descriptor,
) -> Result<Box<dyn Read + Send>, CacheError> {
    let name = blob_name(place, &blob.digest);
    let reader = client.bucket(place)?.blob(&name, blob)?;
    Ok(Box::new(reader.ok_or(CacheError::Gone(blob.digest))?))
}

pub(super) fn put_blob(
    client: &Client,
    place: &BucketPlace,
    blob: &Descriptor,
    open: OpenAt<'_>,
) -> Result<(), CacheError> {
    let name = blob_name(place, &blob.digest);
    Ok(client.bucket(place)?.put_blob(&name, blob, open, RENEWED)?)
}

/// Returns all documents by their names.
pub(super) fn documents(client: &Client, place: &BucketPlace) -> Result<Vec<Named>, CacheError> {
    listed(client, place, &document_name(place, ""))
}

/// Removes a document; `false` if it stays because it has changed since it was seen.
pub(super) fn remove_document(
    client: &Client,
    place: &BucketPlace,
    seen: &Named,
) -> Result<bool, CacheError> {
    let bucket = client.bucket(place)?;
    let name = document_name(place, &seen.name);
    match bucket.find(&name)? {
        Some(there) if named(&there, "").changed != seen.changed => Ok(false),
        _ => {
            bucket.remove(&name)?;
            Ok(true)
        }
    }
}

/// Returns all blobs; the name of each is its digest in hex.
pub(super) fn blobs(client: &Client, place: &BucketPlace) -> Result<Vec<Named>, CacheError> {
    let mut found = listed(
        client,
        place,
        &format!("{}{}sha256:", place.prefix, place.blobs),
    )?;
    found.retain(|blob| Digest::from_hex(&blob.name).is_some());
    Ok(found)
}

/// Removes a blob that no document names, unless somebody has written it since `before`.
pub(super) fn remove_blob(
    client: &Client,
    place: &BucketPlace,
    hex: &str,
    before: Timestamp,
) -> Result<bool, CacheError> {
    let bucket = client.bucket(place)?;
    let Some(digest) = Digest::from_hex(hex) else {
        return Ok(false);
    };
    let name = blob_name(place, &digest);
    // Between this and the removal lie milliseconds; who gives a blob that is as old as this one writes it again.
    let there = bucket.find(&name)?;
    let is_old = there.is_some_and(|there| {
        named(&there, "")
            .changed
            .is_some_and(|changed| changed < before)
    });
    if is_old {
        bucket.remove(&name)?;
    }
    Ok(is_old)
}

fn listed(client: &Client, place: &BucketPlace, begin: &str) -> Result<Vec<Named>, CacheError> {
    let found = client.bucket(place)?.list(begin)?;
    let mut found: Vec<Named> = found.iter().map(|object| named(object, begin)).collect();
    // What lies deeper is of others, and so is what has no name behind the prefix.
    found.retain(|found| !found.name.is_empty() && !found.name.contains('/'));
    Ok(found)
}

/// Lists and single answers tell times with different parts of seconds.
fn named(object: &Object, begin: &str) -> Named {
    let since = object.modified.duration_since(UNIX_EPOCH);
    let seconds = since.map_or(0, |since| since.as_secs());
    Named {
        name: object.name[begin.len().min(object.name.len())..].to_owned(),
        size: object.size,
        changed: Some(Timestamp::from_seconds(
            i64::try_from(seconds).unwrap_or(i64::MAX),
        )),
    }
}
