//! What is attached to a manifest: SBOMs, provenance, signatures, as OCI 1.1 has it.
//!
//! An attachment is a manifest that names its *subject*. A registry that knows of this says so when the manifest is written, and lists
//! it; for one that does not, the client keeps the list itself, as an index under the tag `sha256-HEX` of the subject's digest. Jobs
//! that attach at the same time write that index as `append` does, so that none loses its entry.

use std::collections::BTreeMap;

use reqwest::Method;
use reqwest::header::{ACCEPT, HeaderValue};

use super::append::Addition;
use super::error::{RegistryError, clean};
use super::exchange::{Ask, Exchange};
use super::tags::More;
use crate::image::{Listing, ListingEntry, OCI_INDEX, Slot, parts_of};
use crate::vocab::{Descriptor, Digest, ImageRef};

/// Statuses by which registries say that they have no such list.
const NO_LIST: [u16; 6] = [400, 404, 405, 406, 410, 501];
/// No manifest has so many attachments; a list that goes on is not meant well.
const MOST_REFERRERS: usize = 10_000;

/// A manifest that is attached to another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Referrer {
    pub descriptor: Descriptor,
    pub artifact_type: Option<String>,
    pub annotations: BTreeMap<String, String>,
}

/// Something to attach: its bytes, and what they are.
#[derive(Clone, Copy, Debug)]
pub struct Attachment<'a> {
    pub artifact_type: &'a str,
    /// Media type, bytes.
    pub blobs: &'a [(&'a str, &'a [u8])],
    pub annotations: &'a BTreeMap<String, String>,
}

impl Exchange {
    /// Lists what is attached to a manifest of the image's repository, of one kind or of all.
    pub(super) async fn referrers(
        &self,
        image: &ImageRef,
        subject: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Vec<Referrer>, RegistryError> {
        let listed = match self.listed_referrers(image, subject, artifact_type).await? {
            Some(listed) => listed,
            None => self.tagged_referrers(image, subject).await?,
        };
        let is_wanted = |referrer: &Referrer| {
            artifact_type.is_none_or(|wanted| referrer.artifact_type.as_deref() == Some(wanted))
        };
        // A registry may leave the choice to us.
        Ok(listed.into_iter().filter(is_wanted).collect())
    }

    /// Asks for the registry's own list; `None` if it keeps none.
    async fn listed_referrers(
        &self,
        image: &ImageRef,
        subject: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Option<Vec<Referrer>>, RegistryError> {
        let endpoint = self.origin(image);
        let what = image.with_digest(*subject).to_string();
        let mut rest = format!("referrers/{subject}");
        if let Some(artifact_type) = artifact_type {
            let mut query = reqwest::Url::parse("http://x/").expect("it is a URL");
            query
                .query_pairs_mut()
                .append_pair("artifactType", artifact_type);
            rest = format!("{rest}?{}", query.query().unwrap_or_default());
        }
        let mut ask = Ask::read(Method::GET, &endpoint, &rest, &what);
        ask.headers
            .insert(ACCEPT, HeaderValue::from_static(OCI_INDEX));
        let mut found = Vec::new();
        let mut is_list = true;
        self.pages(&endpoint, ask, &NO_LIST, &mut |page| {
            let content_type = page.content_type.unwrap_or_default();
            // Pages of another kind are what a web server says to whatever it does not know.
            let kind = content_type.split(';').next().unwrap_or_default().trim();
            if page.status != 200 || kind != OCI_INDEX {
                is_list = false;
                return Ok(More::Enough);
            }
            let protocol = |what: String| RegistryError::Protocol {
                host: endpoint.host.registry().to_owned(),
                what,
            };
            let listing = Listing::parse(&page.body, Some(OCI_INDEX)).map_err(|error| {
                protocol(format!(
                    "its list of referrers is no index: {}",
                    clean(&error.to_string())
                ))
            })?;
            found.extend(listing.iter().flat_map(Listing::entries).map(referrer));
            if found.len() > MOST_REFERRERS {
                return Err(protocol("its list of referrers does not end".to_owned()));
            }
            Ok(More::Wanted)
        })
        .await?;
        Ok(is_list.then_some(found))
    }

    /// Reads the list that clients keep.
    async fn tagged_referrers(
        &self,
        image: &ImageRef,
        subject: &Digest,
    ) -> Result<Vec<Referrer>, RegistryError> {
        let endpoint = self.origin(image);
        let tagged = image.with_tag(&fallback_tag(subject));
        let Some(fetched) = self.standing(&endpoint, &tagged).await? else {
            return Ok(Vec::new());
        };
        let media_type = Some(fetched.descriptor.media_type.as_str());
        match Listing::parse(&fetched.bytes, media_type) {
            Ok(Some(listing)) => Ok(listing.entries().iter().map(referrer).collect()),
            // Other tools use tags of this form for other things.
            Ok(None) | Err(_) => Ok(Vec::new()),
        }
    }

    /// Writes a manifest that names a subject, and sees to it that it is listed. Its blobs are in the repository already.
    pub(super) async fn attach_manifest(
        &self,
        image: &ImageRef,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<Descriptor, RegistryError> {
        let not_one = |what: String| RegistryError::Option { what };
        let parts = parts_of(bytes)
            .map_err(|error| not_one(format!("the manifest cannot be attached: {error}")))?;
        let subject = parts.subject.ok_or_else(|| {
            not_one("the manifest cannot be attached: it names no subject".to_owned())
        })?;
        let manifest = Descriptor {
            media_type: media_type.to_owned(),
            digest: Digest::of(bytes),
            size: bytes.len() as u64,
        };
        let by_digest = image.with_digest(manifest.digest);
        let written = self.push_manifest(&by_digest, media_type, bytes).await?;
        if written.subject == Some(subject.digest) {
            return Ok(manifest);
        }
        let entry = ListingEntry::artifact(
            &manifest,
            parts.artifact_type.as_deref(),
            &parts.annotations,
        );
        let addition = Addition {
            parts: &[(Slot::Digest(manifest.digest), vec![entry])],
            run: None,
            expect: &[],
            annotations: &[],
        };
        let tagged = image.with_tag(&fallback_tag(&subject.digest));
        self.append(&tagged, &addition).await?;
        Ok(manifest)
    }
}

fn referrer(entry: &ListingEntry) -> Referrer {
    Referrer {
        descriptor: entry.descriptor().clone(),
        artifact_type: entry.artifact_type().map(str::to_owned),
        annotations: entry.annotations().clone(),
    }
}

/// Returns the tag under which clients keep the list (distribution specification 1.1, "Referrers Tag Schema").
fn fallback_tag(subject: &Digest) -> String {
    format!("sha256-{}", subject.hex())
}
