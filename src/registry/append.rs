//! Indexes that several jobs put together under one tag, at the same time and without knowing of each other.
//!
//! A registry has no "write if unchanged": of two jobs that read an index, add to it and write it back, one loses its entry, and
//! reading back only tells those whose entry was lost before they looked. So each job first leaves a *mark*: a tag of its own beside
//! the index's, which no other job writes.
//!
//! ```text
//! app:1.0                      the index
//! app:1.0.part-linux-amd64     mark: an index with one platform's entries and the run that it belongs to
//! app:1.0.part-linux-arm64     mark
//!
//! job:  write the mark ─▶ read the index ─▶ list the marks ─▶ all of them in the index? ─ yes ─▶ done
//!                              ▲                                        │ no
//!                              └────────── write the index with all ◀───┘
//! ```
//!
//! Why nothing is lost, if a registry shows what was written to whoever asks later: let job P write the index last of all. After that
//! P reads it, lists the marks, and ends because all of them are in. A job Q whose mark came before that list is therefore in. One
//! whose mark came after it reads the index later still, and so finds what P wrote; were Q's entry missing there, Q would write, and
//! P would not have been the last.
//!
//! Marks stay: a job that is still on its way may need them. A mark counts for its *run* alone, which is told by an annotation of the
//! index: the name that the caller gave, else what the index was before the first job added to it. So marks that were left by an
//! earlier index of the name say nothing about the present one.

use std::collections::BTreeMap;

use super::endpoint::Endpoint;
use super::error::{RegistryError, clean};
use super::exchange::{Ask, Exchange};
use super::manifest::Fetched;
use crate::image::{
    ImageError, Listing, ListingEntry, Manifest, MediaTypes, Slot, parse_config, parse_manifest,
};
use crate::vocab::{Descriptor, Digest, ImageRef, Platform};
use reqwest::Method;

/// The run that an index or a mark belongs to.
const RUN: &str = "dev.builder.append.run";
/// Between a tag and what its mark is for.
const MARK: &str = ".part-";
/// A tag has at most 128 characters: so many of the index's, so many for what the mark is for.
const MOST_TAG: usize = 74;
const MOST_MARK: usize = 48;
/// Readings of the index before it is given up.
const MOST_ROUNDS: u32 = 40;
const MOST_CONFIG: u64 = 8 * 1024 * 1024;

/// What registries without lists of tags are asked for: platforms that images are usually made for.
const USUAL: [&str; 12] = [
    "linux/amd64",
    "linux/arm64",
    "linux/arm/v7",
    "linux/arm/v6",
    "linux/arm/v5",
    "linux/386",
    "linux/ppc64le",
    "linux/s390x",
    "linux/riscv64",
    "linux/loong64",
    "linux/mips64le",
    "windows/amd64",
];

/// What is to be in an index besides what is there.
#[derive(Clone, Copy, Debug)]
pub struct Addition<'a> {
    /// Entries by what they are for; their manifests are in the repository already.
    pub parts: &'a [(Slot, Vec<ListingEntry>)],
    /// Entries of other runs are left out of the index. `None`: whatever is there belongs to it.
    pub run: Option<&'a str>,
    /// The index is not written before it has all of these.
    pub expect: &'a [Platform],
    /// Of the index. Where jobs disagree, the one whose platform comes last in the index decides.
    pub annotations: &'a [(String, String)],
}

/// What came of adding to an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Appended {
    Published {
        index: Descriptor,
        bytes: Vec<u8>,
        /// Another job added the same platform later: its image is in the index.
        replaced: Vec<Slot>,
    },
    /// The entries are marked; whoever brings the last of these platforms writes the index.
    Waiting { missing: Vec<Platform> },
}

/// An index as it was found.
struct Found {
    listing: Listing,
    run: String,
    /// Not an index before: it has to be written, whatever is added.
    is_image: bool,
}

impl Exchange {
    /// Adds entries to the index under the image's tag, which is made where it does not exist.
    pub(super) async fn append(
        &self,
        to: &ImageRef,
        addition: &Addition<'_>,
    ) -> Result<Appended, RegistryError> {
        let endpoint = self.origin(to);
        let tagged = ImageRef {
            digest: None,
            ..to.clone()
        };
        let tag = tagged.tag.as_deref().ok_or_else(|| RegistryError::Option {
            what: format!("an index is kept under a tag, and `{to}` has none"),
        })?;
        let own: Vec<String> = addition
            .parts
            .iter()
            .map(|(slot, _)| mark_of(tag, slot))
            .collect();
        let mut marked = None;
        if let Some(run) = addition.run.map(named_run) {
            self.mark(&tagged, &run, &own, addition).await?;
            marked = Some(run);
        }
        for round in 0..MOST_ROUNDS {
            if round > 2 {
                tokio::time::sleep(self.tuning().breath(round)).await;
            }
            let found = self.read_index(&endpoint, &tagged, addition.run).await?;
            if marked.as_ref() != Some(&found.run) {
                // The index must be read after the mark was written: it is read once more.
                self.mark(&tagged, &found.run, &own, addition).await?;
                marked = Some(found.run);
                continue;
            }
            let hints = found.listing.platforms();
            let hints = hints.iter().chain(addition.expect);
            let marks = self.marks(&endpoint, &tagged, tag, &own, hints).await?;
            let Some(marks) = marks else {
                marked = None;
                continue;
            };
            let merged = merge(&found, &marks);
            let has = merged.platforms();
            let missing: Vec<Platform> = addition
                .expect
                .iter()
                .filter(|platform| !has.contains(platform))
                .cloned()
                .collect();
            if !missing.is_empty() {
                return Ok(Appended::Waiting { missing });
            }
            let (index, bytes) = merged.to_bytes();
            if !found.is_image && merged == found.listing {
                let is_out = |entries: &[ListingEntry]| {
                    entries
                        .iter()
                        .any(|entry| !merged.has(&entry.descriptor().digest))
                };
                let replaced = addition.parts.iter().filter(|(_, part)| is_out(part));
                return Ok(Appended::Published {
                    index,
                    bytes,
                    replaced: replaced.map(|(slot, _)| slot.clone()).collect(),
                });
            }
            self.push_manifest(&tagged, &index.media_type, &bytes)
                .await?;
        }
        Err(RegistryError::Contended {
            image: tagged.to_string(),
            rounds: MOST_ROUNDS,
        })
    }

    /// Reads the index that is there, or makes one of the image that is there.
    async fn read_index(
        &self,
        endpoint: &Endpoint,
        tagged: &ImageRef,
        run: Option<&str>,
    ) -> Result<Found, RegistryError> {
        let empty = |run: String| Found {
            listing: Listing::new(MediaTypes::Oci),
            run,
            is_image: false,
        };
        let wanted = run.map(named_run);
        let Some(fetched) = self.standing(endpoint, tagged).await? else {
            return Ok(empty(wanted.unwrap_or_else(|| "new".to_owned())));
        };
        let unusable = |error: ImageError| unusable(endpoint, tagged, &error);
        let media_type = Some(fetched.descriptor.media_type.as_str());
        let listing = Listing::parse(&fetched.bytes, media_type).map_err(unusable)?;
        let told = listing
            .as_ref()
            .and_then(|listing| listing.annotation(RUN))
            .map(str::to_owned);
        let run = told.unwrap_or_else(|| fetched.descriptor.digest.to_string());
        if let Some(wanted) = wanted
            && wanted != run
        {
            return Ok(empty(wanted));
        }
        Ok(match listing {
            Some(listing) => Found {
                listing,
                run,
                is_image: false,
            },
            None => {
                let platform = self.platform_of(endpoint, tagged, &fetched).await?;
                let mut listing = Listing::new(MediaTypes::Oci);
                listing.put(&[ListingEntry::image(&fetched.descriptor, Some(&platform))]);
                Found {
                    listing,
                    run,
                    is_image: true,
                }
            }
        })
    }

    /// Reads what an image says that it runs on.
    async fn platform_of(
        &self,
        endpoint: &Endpoint,
        image: &ImageRef,
        manifest: &Fetched,
    ) -> Result<Platform, RegistryError> {
        let unusable = |error: ImageError| unusable(endpoint, image, &error);
        let media_type = Some(manifest.descriptor.media_type.as_str());
        let none = || RegistryError::Protocol {
            host: endpoint.host.registry().to_owned(),
            what: format!("the image `{image}` does not say what platform it is for"),
        };
        match parse_manifest(&manifest.bytes, media_type).map_err(unusable)? {
            Manifest::Image { config, .. } => {
                let bytes = self.small_blob(endpoint, image, &config).await?;
                let config = parse_config(&bytes).map_err(unusable)?;
                config.platform().ok_or_else(none)
            }
            Manifest::Index(_) => Err(none()),
        }
    }

    /// Reads a blob that is small, such as a config, into memory.
    async fn small_blob(
        &self,
        endpoint: &Endpoint,
        image: &ImageRef,
        blob: &Descriptor,
    ) -> Result<Vec<u8>, RegistryError> {
        let what = image.with_digest(blob.digest).to_string();
        let ask = Ask::read(
            Method::GET,
            endpoint,
            &format!("blobs/{}", blob.digest),
            &what,
        );
        let mut tries = self.tries(endpoint);
        loop {
            let read = async {
                let answer = self.ask_once(endpoint, &ask, &[]).await?;
                let bytes = self.transport().read(answer, &what, MOST_CONFIG).await?;
                match Digest::of(&bytes) {
                    found if found == blob.digest => Ok(bytes),
                    found => Err(RegistryError::DigestMismatch {
                        what: what.clone(),
                        expected: blob.digest,
                        found,
                    }),
                }
            };
            match read.await {
                Ok(bytes) => return Ok(bytes),
                Err(error @ RegistryError::DigestMismatch { .. }) => {
                    tries.after_any(error).await?;
                }
                Err(error) => tries.after(error).await?,
            }
        }
    }

    /// Writes the marks of all parts.
    async fn mark(
        &self,
        tagged: &ImageRef,
        run: &str,
        own: &[String],
        addition: &Addition<'_>,
    ) -> Result<(), RegistryError> {
        for (tag, (_, entries)) in own.iter().zip(addition.parts) {
            let mut mark = Listing::new(MediaTypes::Oci);
            mark.put(entries);
            mark.settle_media_type();
            for (key, text) in addition.annotations {
                mark.annotate(key, text);
            }
            mark.annotate(RUN, run);
            let (mark, bytes) = mark.to_bytes();
            self.push_manifest(&tagged.with_tag(tag), &mark.media_type, &bytes)
                .await?;
        }
        Ok(())
    }

    /// Reads the marks of every job, in order of their tags; `None` if one that was written is not there.
    async fn marks(
        &self,
        endpoint: &Endpoint,
        tagged: &ImageRef,
        tag: &str,
        own: &[String],
        hints: impl Iterator<Item = &Platform>,
    ) -> Result<Option<Vec<Listing>>, RegistryError> {
        let prefix = mark_prefix(tag);
        let mut tags = self.listed_marks(endpoint, &prefix, own).await?;
        if tags.is_empty() {
            let usual = USUAL.iter().filter_map(|text| text.parse().ok());
            tags = usual
                .chain(hints.cloned())
                .map(|platform: Platform| mark_of(tag, &Slot::Platform(platform)))
                .chain(own.iter().cloned())
                .collect();
        }
        tags.sort();
        tags.dedup();
        let mut marks = Vec::new();
        for tag in tags {
            let standing = self.standing(endpoint, &tagged.with_tag(&tag)).await;
            // A tag of this form that holds something else is none of ours.
            let fetched = match standing {
                Ok(Some(fetched)) => fetched,
                Ok(None) | Err(RegistryError::Protocol { .. }) if !own.contains(&tag) => continue,
                Ok(None) => return Ok(None),
                Err(error) => return Err(error),
            };
            let media_type = Some(fetched.descriptor.media_type.as_str());
            if let Ok(Some(mark)) = Listing::parse(&fetched.bytes, media_type) {
                marks.push(mark);
            }
        }
        Ok(Some(marks))
    }

    /// Lists the tags of marks; none where a registry does not list tags, or does not list what was just written.
    async fn listed_marks(
        &self,
        endpoint: &Endpoint,
        prefix: &str,
        own: &[String],
    ) -> Result<Vec<String>, RegistryError> {
        let is_whole = |tags: &[String]| own.iter().all(|own| tags.contains(own));
        let listed = match self.tags_in_order(endpoint, prefix).await {
            Ok(tags) if is_whole(&tags) => return Ok(tags),
            Ok(_) => self.tags_at(endpoint).await,
            Err(error) => Err(error),
        };
        match listed {
            Ok(tags) if is_whole(&tags) => Ok(tags
                .into_iter()
                .filter(|tag| tag.starts_with(prefix))
                .collect()),
            Ok(_) => Ok(Vec::new()),
            // Passing trouble must not be taken for a habit: it would cost somebody's entry.
            Err(error) if error.is_transient() => Err(error),
            Err(
                RegistryError::Denied { .. }
                | RegistryError::NotFound { .. }
                | RegistryError::Status { .. }
                | RegistryError::Protocol { .. },
            ) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }
}

/// Returns how a run that the caller named is told from those that no one named.
fn named_run(run: &str) -> String {
    format!("run:{run}")
}

/// Puts the marks of the index's run into it.
fn merge(found: &Found, marks: &[Listing]) -> Listing {
    let mut merged = found.listing.clone();
    let of_run = marks
        .iter()
        .filter(|mark| mark.annotation(RUN) == Some(&found.run));
    let mut annotations = BTreeMap::new();
    for mark in of_run {
        merged.put(mark.entries());
        annotations.extend(mark.annotations());
    }
    for (key, text) in annotations {
        merged.annotate(&key, &text);
    }
    merged.settle_media_type();
    merged.annotate(RUN, &found.run);
    merged
}

fn unusable(endpoint: &Endpoint, image: &ImageRef, error: &ImageError) -> RegistryError {
    RegistryError::Protocol {
        host: endpoint.host.registry().to_owned(),
        what: format!(
            "`{image}` cannot be added to: {}",
            clean(&error.to_string())
        ),
    }
}

/// Returns what the tags of all marks of a tag begin with.
fn mark_prefix(tag: &str) -> String {
    format!("{}{MARK}", shortened(tag, MOST_TAG))
}

fn mark_of(tag: &str, slot: &Slot) -> String {
    let text = match slot {
        Slot::Digest(digest) => digest.hex()[..32].to_owned(),
        Slot::Platform(platform) => {
            let parts = [
                Some(&platform.os),
                Some(&platform.architecture),
                platform.variant.as_ref(),
                platform.os_version.as_ref(),
            ];
            let parts: Vec<&str> = parts.into_iter().flatten().map(String::as_str).collect();
            parts.join("-")
        }
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let text = match text.chars().all(plain) {
        true => text,
        false => format!("x-{}", &Digest::of(text.as_bytes()).hex()[..32]),
    };
    format!("{}{}", mark_prefix(tag), shortened(&text, MOST_MARK))
}

/// Returns a text of at most `most` characters that stands for a longer one.
fn shortened(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let hash = Digest::of(text.as_bytes()).hex();
    // Both are plain ASCII: one is a tag, the other was looked through.
    format!("{}-{}", &text[..most - 17], &hash[..16])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_tags_that_no_two_platforms_share() {
        let image: ImageRef = "x/y:1".parse().unwrap();
        let platform = |text: &str| Slot::Platform(text.parse().unwrap());
        assert_eq!(
            mark_of("1.0", &platform("linux/arm64")),
            "1.0.part-linux-arm64"
        );
        assert_eq!(
            mark_of("1.0", &platform("linux/arm/v7")),
            "1.0.part-linux-arm-v7"
        );
        let windows = |version: &str| {
            Slot::Platform(Platform {
                os_version: Some(version.to_owned()),
                ..Platform::new("windows", "amd64", None)
            })
        };
        let odd = Platform::new("lin/ux é", "a b", None);
        let mut seen = Vec::new();
        for tag in ["1", &"t".repeat(128), &format!("{}x", "t".repeat(127))] {
            for slot in [
                platform("linux/amd64"),
                platform("linux/amd64/v2"),
                windows("10.0.1"),
                windows("10.0.2"),
                windows(&"9".repeat(80)),
                Slot::Platform(odd.clone()),
                Slot::Digest(Digest::of(b"x")),
            ] {
                let mark = mark_of(tag, &slot);
                assert!(mark.starts_with(&mark_prefix(tag)));
                let full = format!("{}/{}:{mark}", image.registry, image.repository);
                assert!(full.parse::<ImageRef>().is_ok(), "{mark}");
                assert!(!seen.contains(&mark), "{mark}");
                seen.push(mark);
            }
        }
    }
}
