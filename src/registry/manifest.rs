//! Manifests and indexes: what is small enough to be held in memory.
//!
//! Invariant: bytes that leave here have the digest that is said of them, and a media type that their own text does not contradict.

use bytes::Bytes;
use reqwest::Method;
use reqwest::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use serde::Deserialize;

use super::endpoint::Endpoint;
use super::error::RegistryError;
use super::exchange::{Ask, Exchange, Target, Trail};
use super::transport::Answer;
use crate::vocab::{Descriptor, Digest, ImageRef};

/// No manifest that is meant well is larger.
const MOST_MANIFEST: u64 = 8 * 1024 * 1024;

const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const KNOWN: [&str; 4] = [OCI_INDEX, OCI_MANIFEST, DOCKER_INDEX, DOCKER_MANIFEST];

/// What a name stands for at the moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    pub descriptor: Descriptor,
}

/// A manifest or index, its digest checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    pub descriptor: Descriptor,
    pub bytes: Vec<u8>,
}

/// What came of writing a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) digest: Digest,
    /// The manifest that the registry lists it under (`OCI-Subject`).
    pub(super) subject: Option<Digest>,
}

impl Exchange {
    /// Finds out what an image's name stands for.
    pub(super) async fn resolve(&self, image: &ImageRef) -> Result<Resolved, RegistryError> {
        let mut trail = Trail::default();
        for endpoint in self.sources(image) {
            match self.resolve_at(&endpoint, image).await {
                Ok(resolved) => return Ok(resolved),
                Err(error) => trail.add(&endpoint, error),
            }
        }
        Err(trail.into_error())
    }

    /// The same, once for each name: who builds for several platforms means one image by it, also where the tag moves meanwhile.
    pub(super) async fn resolve_once(&self, image: &ImageRef) -> Result<Resolved, RegistryError> {
        if let Some(resolved) = self.resolved().get(image) {
            return Ok(resolved.clone());
        }
        let resolved = self.resolve(image).await?;
        self.resolved().insert(image.clone(), resolved.clone());
        Ok(resolved)
    }

    /// Reads the manifest or index that an image's name stands for.
    pub(super) async fn manifest(&self, image: &ImageRef) -> Result<Fetched, RegistryError> {
        let mut trail = Trail::default();
        for endpoint in self.sources(image) {
            match self.fetch(&endpoint, image).await {
                Ok(fetched) => {
                    if image.digest.is_none() {
                        let descriptor = fetched.descriptor.clone();
                        self.resolved()
                            .entry(image.clone())
                            .or_insert(Resolved { descriptor });
                    }
                    return Ok(fetched);
                }
                Err(error) => trail.add(&endpoint, error),
            }
        }
        Err(trail.into_error())
    }

    /// The same at one place.
    pub(super) async fn resolve_at(
        &self,
        endpoint: &Endpoint,
        image: &ImageRef,
    ) -> Result<Resolved, RegistryError> {
        let ask = read_manifest(Method::HEAD, endpoint, image);
        // A HEAD has no body, so the reason of a refusal is found with a GET as well.
        let refusals = [400, 403, 405, 406, 415, 422, 501];
        match self.ask(endpoint, &ask, &refusals).await {
            Ok(answer) if answer.status().is_success() => {
                if let Some(descriptor) = described(&answer, image)? {
                    return Ok(Resolved { descriptor });
                }
            }
            Ok(_) | Err(RegistryError::Status { .. }) => {}
            Err(error) => return Err(error),
        }
        let fetched = self.fetch(endpoint, image).await?;
        Ok(Resolved {
            descriptor: fetched.descriptor,
        })
    }

    /// Reads what a name stands for at the registry itself at this moment: no mirror, no cache on the way. `None` if nothing is there.
    pub(super) async fn standing(
        &self,
        endpoint: &Endpoint,
        image: &ImageRef,
    ) -> Result<Option<Fetched>, RegistryError> {
        match self.fetch(endpoint, image).await {
            Ok(fetched) => Ok(Some(fetched)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads a manifest at one place.
    async fn fetch(&self, endpoint: &Endpoint, image: &ImageRef) -> Result<Fetched, RegistryError> {
        let mut ask = read_manifest(Method::GET, endpoint, image);
        if !endpoint.is_mirror && image.digest.is_none() {
            ask.headers
                .insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        }
        let mut tries = self.tries(endpoint);
        loop {
            match self.fetch_once(endpoint, &ask, image).await {
                Ok(fetched) => return Ok(fetched),
                // A proxy may have cut it, or mixed it up.
                Err(error @ RegistryError::DigestMismatch { .. }) => {
                    tries.after_any(error).await?;
                }
                Err(error) => tries.after(error).await?,
            }
        }
    }

    async fn fetch_once(
        &self,
        endpoint: &Endpoint,
        ask: &Ask,
        image: &ImageRef,
    ) -> Result<Fetched, RegistryError> {
        let answer = self.ask_once(endpoint, ask, &[]).await?;
        let said = answer
            .header("docker-content-digest")
            .and_then(|text| text.trim().parse::<Digest>().ok());
        let content_type = media_type(answer.header("content-type"));
        let bytes = self
            .transport()
            .read(answer, &ask.what, MOST_MANIFEST)
            .await?;
        let found = Digest::of(&bytes);
        for expected in [image.digest, said].into_iter().flatten() {
            if expected != found {
                return Err(RegistryError::DigestMismatch {
                    what: ask.what.clone(),
                    expected,
                    found,
                });
            }
        }
        let media_type =
            kind_of(&bytes, content_type.as_deref()).map_err(|what| RegistryError::Protocol {
                host: endpoint.host.registry().to_owned(),
                what: format!("the manifest of `{}` {what}", ask.what),
            })?;
        Ok(Fetched {
            descriptor: Descriptor {
                media_type,
                digest: found,
                size: bytes.len() as u64,
            },
            bytes,
        })
    }

    /// Writes a manifest or index under the image's tag, or under its digest if there is no tag.
    pub(super) async fn push_manifest(
        &self,
        image: &ImageRef,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<Written, RegistryError> {
        let digest = Digest::of(bytes);
        if let Some(expected) = image.digest
            && expected != digest
        {
            return Err(mismatch(image, expected, digest));
        }
        let endpoint = self.origin(image);
        let reference = image.tag.clone().unwrap_or_else(|| digest.to_string());
        let target = Target::Tail(endpoint.tail(&format!("manifests/{reference}")));
        let mut ask = Ask::write(Method::PUT, &endpoint, target, &image.to_string());
        let content_type =
            HeaderValue::from_str(media_type).map_err(|_| RegistryError::Option {
                what: format!("`{}` is no media type", super::error::clean(media_type)),
            })?;
        ask.headers.insert(CONTENT_TYPE, content_type);
        ask.body = Some(Bytes::copy_from_slice(bytes));
        ask.patience = Some(self.tuning().commit);
        self.resolved().retain(|known, _| {
            (&known.registry, &known.repository) != (&image.registry, &image.repository)
        });
        let answer = match self.ask(&endpoint, &ask, &[]).await {
            Ok(answer) => answer,
            Err(error) => return self.stands_anyway(&endpoint, image, digest, error).await,
        };
        let said = |header: &str| {
            let text = answer.header(header)?;
            text.trim().parse::<Digest>().ok()
        };
        match said("docker-content-digest") {
            Some(found) if found != digest => Err(mismatch(image, digest, found)),
            _ => Ok(Written {
                digest,
                subject: said("oci-subject"),
            }),
        }
    }

    /// Looks after a refusal whether the tag has this very manifest already: where tags cannot be moved, pushing again is no mistake.
    async fn stands_anyway(
        &self,
        endpoint: &Endpoint,
        image: &ImageRef,
        digest: Digest,
        error: RegistryError,
    ) -> Result<Written, RegistryError> {
        if image.tag.is_none() || !error.may_mean_immutable_tag() {
            return Err(error);
        }
        let tagged = ImageRef {
            digest: None,
            ..image.clone()
        };
        match self.standing(endpoint, &tagged).await {
            Ok(Some(found)) if found.descriptor.digest == digest => Ok(Written {
                digest,
                subject: None,
            }),
            Ok(Some(found)) if error.says_immutable_tag() => Err(RegistryError::ImmutableTag {
                image: tagged.to_string(),
                stands: found.descriptor.digest,
                source: Box::new(error),
            }),
            _ => Err(error),
        }
    }
}

fn mismatch(image: &ImageRef, expected: Digest, found: Digest) -> RegistryError {
    RegistryError::DigestMismatch {
        what: image.to_string(),
        expected,
        found,
    }
}

fn read_manifest(method: Method, endpoint: &Endpoint, image: &ImageRef) -> Ask {
    let reference = match (&image.digest, &image.tag) {
        (Some(digest), _) => digest.to_string(),
        (None, Some(tag)) => tag.clone(),
        (None, None) => "latest".to_owned(),
    };
    let rest = format!("manifests/{reference}");
    let mut ask = Ask::read(method, endpoint, &rest, &image.to_string());
    ask.headers.insert(
        ACCEPT,
        HeaderValue::from_str(&KNOWN.join(", ")).expect("media types are plain text"),
    );
    ask
}

/// Reads a HEAD's headers; `None` if they do not say everything.
fn described(answer: &Answer, image: &ImageRef) -> Result<Option<Descriptor>, RegistryError> {
    let said = answer
        .header("docker-content-digest")
        .and_then(|text| text.trim().parse::<Digest>().ok());
    if let (Some(expected), Some(found)) = (image.digest, said)
        && expected != found
    {
        return Err(RegistryError::DigestMismatch {
            what: image.to_string(),
            expected,
            found,
        });
    }
    let media_type = media_type(answer.header("content-type"))
        .filter(|media_type| KNOWN.contains(&media_type.as_str()));
    let size = answer.length().filter(|size| *size > 0);
    Ok(match (media_type, said.or(image.digest), size) {
        (Some(media_type), Some(digest), Some(size)) => Some(Descriptor {
            media_type,
            digest,
            size,
        }),
        _ => None,
    })
}

/// Returns a media type without its parameters, in lower case.
fn media_type(header: Option<&str>) -> Option<String> {
    let text = header?.split(';').next()?.trim();
    (!text.is_empty()).then(|| text.to_ascii_lowercase())
}

/// Finds out what a document is. Its own word goes before the header's, which no digest covers; a document that could be read in two
/// ways is refused, because two programs would take it for two images.
fn kind_of(bytes: &[u8], content_type: Option<&str>) -> Result<String, String> {
    #[derive(Deserialize)]
    struct Probe {
        #[serde(rename = "mediaType")]
        media_type: Option<String>,
        #[serde(rename = "schemaVersion")]
        schema: Option<u64>,
        manifests: Option<serde::de::IgnoredAny>,
        config: Option<serde::de::IgnoredAny>,
        layers: Option<serde::de::IgnoredAny>,
    }
    let probe: Probe =
        serde_json::from_slice(bytes).map_err(|_| "is not the JSON of one".to_owned())?;
    let is_index = probe.manifests.is_some();
    let is_manifest = probe.config.is_some() || probe.layers.is_some();
    if is_index && is_manifest {
        return Err("is both a manifest and an index".to_owned());
    }
    if probe.schema == Some(1) {
        return Err("is of Docker's schema 1, which no registry should serve any more".to_owned());
    }
    let own = probe.media_type.filter(|text| !text.is_empty());
    let known = |text: &&str| KNOWN.contains(text);
    let kind = own
        .as_deref()
        .or(content_type.filter(known))
        .or(match (is_index, is_manifest) {
            (true, _) => Some(OCI_INDEX),
            (_, true) => Some(OCI_MANIFEST),
            _ => content_type,
        })
        .unwrap_or_default();
    let contradicts = match kind {
        OCI_INDEX | DOCKER_INDEX => is_manifest,
        OCI_MANIFEST | DOCKER_MANIFEST => is_index,
        other => {
            return Err(format!(
                "has the media type `{}`",
                super::error::clean(other)
            ));
        }
    };
    if contradicts {
        return Err(format!(
            "has the media type `{kind}` and the parts of another"
        ));
    }
    Ok(kind.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_say_what_they_are() {
        let check = |text: &str, header: Option<&str>, kind: Result<&str, &str>| {
            let found = kind_of(text.as_bytes(), header);
            match kind {
                Ok(kind) => assert_eq!(found.as_deref(), Ok(kind), "{text}"),
                Err(word) => assert!(found.unwrap_err().contains(word), "{text}"),
            }
        };
        let manifest = r#"{"schemaVersion":2,"config":{},"layers":[]}"#;
        let index = r#"{"schemaVersion":2,"manifests":[]}"#;
        check(manifest, None, Ok(OCI_MANIFEST));
        check(manifest, Some("application/json"), Ok(OCI_MANIFEST));
        check(manifest, Some(DOCKER_MANIFEST), Ok(DOCKER_MANIFEST));
        check(manifest, Some(OCI_INDEX), Err("parts of another"));
        check(index, Some("text/plain"), Ok(OCI_INDEX));
        check(index, Some(DOCKER_INDEX), Ok(DOCKER_INDEX));
        let own = format!(r#"{{"mediaType":"{DOCKER_MANIFEST}","config":{{}}}}"#);
        check(&own, Some(OCI_MANIFEST), Ok(DOCKER_MANIFEST));
        let liar = format!(r#"{{"mediaType":"{OCI_INDEX}","layers":[]}}"#);
        check(&liar, None, Err("parts of another"));
        check(r#"{"manifests":[],"layers":[]}"#, None, Err("both"));
        check(
            r#"{"schemaVersion":1,"fsLayers":[]}"#,
            None,
            Err("schema 1"),
        );
        check(r#"{"mediaType":"text/x\u001b"}"#, None, Err("`text/x`"));
        check("{}", Some("text/html"), Err("`text/html`"));
        check("<html>", Some(OCI_INDEX), Err("JSON"));
    }
}
