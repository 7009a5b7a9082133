//! A shared cache in a repository of a registry.
//!
//! A manifest is removed by its digest, with all names that stand for it, where all of these may go: the cache's own, and those of
//! images, which share the repository. Else each name is removed by itself, which not every registry can do.

use std::collections::{BTreeMap, HashSet};
use std::io::Read;

use super::CacheError;
use super::entry::Entry;
use super::place::{AT_ONCE, Answer, Named, Removal};
use super::written::Documents;
use crate::image::{Manifest, OCI_MANIFEST, parse_config, parse_manifest};
use crate::registry::{Client, Fetched, OpenAt, RegistryError};
use crate::vocab::{Descriptor, Digest, ImageRef, each};

/// Images of one index whose records are read.
const MOST_PLATFORMS: usize = 8;

pub(super) fn document(
    client: &Client,
    image: &ImageRef,
    name: &str,
) -> Result<Option<Vec<u8>>, CacheError> {
    existing(client.standing(&image.with_tag(name)))
}

/// Asks about several names at the same time.
pub(super) fn documents_under(
    client: &Client,
    image: &ImageRef,
    names: &[String],
) -> Result<Vec<Answer>, CacheError> {
    let images: Vec<ImageRef> = names.iter().map(|name| image.with_tag(name)).collect();
    let found = client.standing_each(&images)?;
    Ok(found.into_iter().map(existing).collect())
}

fn existing(found: Result<Option<Fetched>, RegistryError>) -> Answer {
    match found {
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

/// Returns all tags of the repository.
pub(super) fn documents(client: &Client, image: &ImageRef) -> Result<Vec<Named>, CacheError> {
    let named = |name: String| Named {
        name,
        size: 0,
        changed: None,
    };
    match client.own_tags(image) {
        // What is no tag would make another request of what it is put into.
        Ok(tags) => Ok(tags
            .into_iter()
            .filter(|tag| is_tag(tag))
            .map(named)
            .collect()),
        // Nobody has written to it yet.
        Err(error) if error.is_not_found() => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

fn is_tag(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    text.bytes().next().is_some_and(is_word)
        && text
            .bytes()
            .all(|byte| is_word(byte) || matches!(byte, b'.' | b'-'))
}

/// Reads a document. The inner error is one that has nothing to do with other documents.
pub(super) fn look_at(
    client: &Client,
    image: &ImageRef,
    name: &str,
) -> Result<Result<Option<Vec<u8>>, String>, CacheError> {
    match client.standing(&image.with_tag(name)) {
        Ok(fetched) => Ok(Ok(fetched.map(|fetched| fetched.bytes))),
        Err(error) if is_of_one_manifest(&error) => Ok(Err(format!("cannot be read: {error}"))),
        Err(error) => Err(error.into()),
    }
}

/// Tells whether an error is about one manifest, and not about the registry, the repository or who asks.
fn is_of_one_manifest(error: &RegistryError) -> bool {
    matches!(
        error,
        RegistryError::Protocol { .. }
            | RegistryError::DigestMismatch { .. }
            | RegistryError::SizeMismatch { .. }
            | RegistryError::TooLarge { .. }
            | RegistryError::Status { .. }
    )
}

/// Removes documents. `staying` is everything else that has a name in the repository, as far as somebody has read it already.
pub(super) fn remove(
    client: &Client,
    image: &ImageRef,
    going: &[(&Named, Digest)],
    staying: &[(&Named, Digest)],
) -> Removal {
    let kept = match kept_digests(client, image, going, staying) {
        Ok(kept) => kept,
        Err(failure) => {
            return Removal {
                failure: Some(failure),
                ..Removal::default()
            };
        }
    };
    let mut groups: BTreeMap<Digest, Vec<&str>> = BTreeMap::new();
    for (named, digest) in going {
        groups.entry(*digest).or_default().push(&named.name);
    }
    let groups: Vec<(Digest, Vec<&str>)> = groups.into_iter().collect();
    let (removed, failure) = each(&groups, AT_ONCE, |(digest, names)| {
        match kept.contains(digest) {
            true => remove_names(client, image, names),
            false => remove_manifest(client, image, digest, names),
        }
    });
    let mut removal = Removal {
        failure,
        ..Removal::default()
    };
    for (gone, left) in removed {
        removal.gone.extend(gone);
        removal.left.extend(left);
    }
    removal
}

/// Names that are gone; names that stay, and why.
type Removed = (Vec<String>, Vec<(String, String)>);

/// Removes a manifest with all its names.
fn remove_manifest(
    client: &Client,
    image: &ImageRef,
    digest: &Digest,
    names: &[&str],
) -> Result<Removed, CacheError> {
    let whole = image.with_digest(*digest);
    let refusal = match client.remove_manifest(&whole) {
        Ok(_) => {
            let gone = names.iter().map(|name| (*name).to_owned());
            return Ok((gone.collect(), Vec::new()));
        }
        Err(refusal @ RegistryError::NoDeletion { .. }) => refusal,
        Err(error) => return Err(error.into()),
    };
    // Some want the names to go first.
    let (gone, left) = remove_names(client, image, names)?;
    if !left.is_empty() {
        return Err(refusal.into());
    }
    match client.remove_manifest(&whole) {
        // Its names are what was to go; a registry that keeps a manifest without names knows why.
        Ok(_) | Err(RegistryError::NoDeletion { .. }) => Ok((gone, left)),
        Err(error) => Err(error.into()),
    }
}

/// Removes names, and leaves what they stand for.
fn remove_names(client: &Client, image: &ImageRef, names: &[&str]) -> Result<Removed, CacheError> {
    let (mut gone, mut left) = (Vec::new(), Vec::new());
    for name in names {
        match client.remove_manifest(&image.with_tag(name)) {
            Ok(_) => gone.push((*name).to_owned()),
            Err(RegistryError::NoDeletion { .. }) => {
                let why = "another name stands for the same manifest, and the registry cannot remove one of them alone";
                left.push(((*name).to_owned(), why.to_owned()));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok((gone, left))
}

/// Returns what has a name that is to stay.
fn kept_digests(
    client: &Client,
    image: &ImageRef,
    going: &[(&Named, Digest)],
    staying: &[(&Named, Digest)],
) -> Result<HashSet<Digest>, CacheError> {
    let mut kept: HashSet<Digest> = staying.iter().map(|(_, digest)| *digest).collect();
    let read: HashSet<&str> = going
        .iter()
        .chain(staying)
        .map(|(named, _)| named.name.as_str())
        .collect();
    // Asked for once more: a name may have been given since.
    let mut others = documents(client, image)?;
    others.retain(|named| !read.contains(named.name.as_str()));
    let (found, failure) = each(&others, AT_ONCE, |named| {
        match client.standing_digest(&image.with_tag(&named.name)) {
            Ok(digest) => Ok(digest),
            // Nothing of the cache's is like that.
            Err(error) if is_of_one_manifest(&error) => Ok(None),
            Err(error) => Err(CacheError::from(error)),
        }
    });
    if let Some(failure) = failure {
        return Err(failure);
    }
    kept.extend(found.into_iter().flatten());
    Ok(kept)
}
