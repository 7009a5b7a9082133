//! The room's face: calls that block, from as many threads as one likes.

use std::cell::Cell;
use std::io::{self, Cursor, Read};
use std::sync::{Arc, Mutex, PoisonError};

use reqwest::Method;

use super::append::{Addition, Appended};
use super::credentials::Credentials;
use super::endpoint::Rules;
use super::environment::Environment;
use super::error::{Action, RegistryError};
use super::exchange::{Ask, Exchange, Target};
use super::manifest::{Fetched, Resolved};
use super::objects::{ActionsCache, Bucket};
use super::pull::BlobReader;
use super::push::{OpenAt, Push, Pushed};
use super::reactor::{Reactor, Threads};
use super::referrers::{Attachment, Referrer};
use super::retry::Tuning;
use super::scope::Scopes;
use crate::image::{EMPTY_CONFIG, artifact};
use crate::vocab::{
    ActionsPlace, BucketPlace, Cancel, Descriptor, Digest, ImageRef, RegistryOptions, Secret,
};

/// A client of all registries. Clones share connections, tokens and what was learned about hosts.
#[derive(Clone)]
pub struct Client {
    exchange: Arc<Exchange>,
    reactor: Arc<Reactor>,
    environment: Environment,
    rules: Rules,
    tuning: Tuning,
    /// Those that were asked for.
    buckets: Known<BucketPlace, Bucket>,
    services: Known<ActionsPlace, ActionsCache>,
}

/// What was made for places.
type Known<P, T> = Arc<Mutex<Vec<(P, T)>>>;

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Client")
    }
}

impl Client {
    /// Makes a client. Reads a few variables; files, certificates and the network wait for the first call that needs them.
    pub fn new(options: &RegistryOptions, threads: Threads) -> Result<Client, RegistryError> {
        Client::with(
            options,
            threads,
            Environment::of_process(),
            Tuning::default(),
        )
    }

    pub(super) fn with(
        options: &RegistryOptions,
        threads: Threads,
        environment: Environment,
        tuning: Tuning,
    ) -> Result<Client, RegistryError> {
        let credentials =
            Credentials::new(environment.clone(), tuning.helper).with_options(options);
        Client::assemble(options, threads, credentials, environment, tuning)
    }

    /// The same with credentials of the caller's choice.
    pub fn with_credentials(
        options: &RegistryOptions,
        threads: Threads,
        credentials: Credentials,
    ) -> Result<Client, RegistryError> {
        let environment = Environment::of_process();
        Client::assemble(
            options,
            threads,
            credentials,
            environment,
            Tuning::default(),
        )
    }

    fn assemble(
        options: &RegistryOptions,
        threads: Threads,
        credentials: Credentials,
        environment: Environment,
        tuning: Tuning,
    ) -> Result<Client, RegistryError> {
        let rules = Rules::new(options)?;
        let tuning = tuning.asked(options);
        Ok(Client {
            exchange: Arc::new(Exchange::new(
                rules.clone(),
                credentials,
                &environment,
                tuning,
            )),
            reactor: Arc::new(Reactor::new(threads)),
            environment,
            rules,
            tuning,
            buckets: Arc::default(),
            services: Arc::default(),
        })
    }

    /// Has every wait of this client and its clones end soon after `cancel` is raised. Only the first flag counts.
    pub fn end_with(&self, cancel: &Cancel) {
        self.reactor.end_with(cancel);
    }

    /// Returns what the image's name stands for, without reading it where the registry allows that.
    pub fn resolve(&self, image: &ImageRef) -> Result<Resolved, RegistryError> {
        self.reactor.block_on(self.exchange.resolve(image))?
    }

    /// The same, but a name that was asked about before stands for what it stood for then.
    pub fn resolve_once(&self, image: &ImageRef) -> Result<Resolved, RegistryError> {
        self.reactor.block_on(self.exchange.resolve_once(image))?
    }

    /// Reads the manifest or index under the image's digest, else under its tag. Its digest is checked; more than 8 MiB are refused.
    pub fn manifest(&self, image: &ImageRef) -> Result<Fetched, RegistryError> {
        self.reactor.block_on(self.exchange.manifest(image))?
    }

    /// Opens a blob of the image's repository for reading. Returns when the registry has begun to answer.
    pub fn blob(
        &self,
        image: &ImageRef,
        descriptor: &Descriptor,
    ) -> Result<BlobReader, RegistryError> {
        let sources = self.exchange.blob_sources(image);
        BlobReader::open(&self.exchange, &self.reactor, sources, image, descriptor)
    }

    /// The same from where pushes go: what was put there by a push, and may be nowhere else.
    pub fn own_blob(
        &self,
        image: &ImageRef,
        descriptor: &Descriptor,
    ) -> Result<BlobReader, RegistryError> {
        let sources = vec![self.exchange.origin(image)];
        BlobReader::open(&self.exchange, &self.reactor, sources, image, descriptor)
    }

    /// Tells whether the registry itself (no mirror) has a blob in the image's repository.
    pub fn has_blob(&self, image: &ImageRef, digest: &Digest) -> Result<bool, RegistryError> {
        let endpoint = self.exchange.origin(image);
        if self.exchange.holds(&endpoint, *digest) {
            return Ok(true);
        }
        let what = image.with_digest(*digest).to_string();
        let ask = Ask::read(Method::HEAD, &endpoint, &format!("blobs/{digest}"), &what);
        let answer = self
            .reactor
            .block_on(self.exchange.ask(&endpoint, &ask, &[404]))??;
        let has = answer.status().is_success();
        if has {
            self.exchange.set_holds(&endpoint, *digest);
        }
        Ok(has)
    }

    /// Brings a blob into the image's repository: finds it there, mounts it from one of `mount_from` (repositories of the same
    /// registry), or uploads it. `open` gives the bytes from an offset on and may be called several times; `progress` hears how many
    /// bytes of the blob were handed to the network so far, and may hear a smaller number after a failure.
    pub fn push_blob(
        &self,
        image: &ImageRef,
        descriptor: &Descriptor,
        open: OpenAt<'_>,
        mount_from: &[String],
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<Pushed, RegistryError> {
        let push = Push {
            exchange: &self.exchange,
            reactor: &self.reactor,
            image,
            descriptor,
            open,
            progress,
            handed: Cell::new(0),
        };
        push.run(mount_from)
    }

    /// Writes a manifest or index under the image's tag, else under its digest. What it names must be there already.
    pub fn push_manifest(
        &self,
        image: &ImageRef,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<Digest, RegistryError> {
        let written = self
            .reactor
            .block_on(self.exchange.push_manifest(image, media_type, bytes))?;
        written.map(|written| written.digest)
    }

    /// Reads what stands under the image's name at the registry itself, past every mirror; `None` if nothing does.
    pub fn standing(&self, image: &ImageRef) -> Result<Option<Fetched>, RegistryError> {
        let endpoint = self.exchange.origin(image);
        self.reactor
            .block_on(self.exchange.standing(&endpoint, image))?
    }

    /// The same for several names at the same time, by this thread alone.
    pub fn standing_each(
        &self,
        images: &[ImageRef],
    ) -> Result<Vec<Result<Option<Fetched>, RegistryError>>, RegistryError> {
        self.reactor.block_on_each(images.iter().map(async |image| {
            let endpoint = self.exchange.origin(image);
            self.exchange.standing(&endpoint, image).await
        }))
    }

    /// Adds entries to the index under the image's tag. Any number of jobs may do that at the same time: none loses its entries.
    pub fn append(
        &self,
        to: &ImageRef,
        addition: &Addition<'_>,
    ) -> Result<Appended, RegistryError> {
        self.reactor.block_on(self.exchange.append(to, addition))?
    }

    /// Lists what is attached to a manifest of the image's repository: everything, or what is of one type.
    pub fn referrers(
        &self,
        image: &ImageRef,
        subject: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Vec<Referrer>, RegistryError> {
        self.reactor
            .block_on(self.exchange.referrers(image, subject, artifact_type))?
    }

    /// Attaches something to a manifest of the image's repository and returns the manifest that was made for it. The subject stays
    /// as it is. Attaching the same thing again changes nothing.
    pub fn attach(
        &self,
        image: &ImageRef,
        subject: &Descriptor,
        attachment: &Attachment<'_>,
    ) -> Result<Descriptor, RegistryError> {
        let mut blobs = Vec::new();
        for (media_type, bytes) in attachment.blobs {
            let blob = Descriptor {
                media_type: (*media_type).to_owned(),
                digest: Digest::of(bytes),
                size: bytes.len() as u64,
            };
            self.push_bytes(image, &blob, bytes)?;
            blobs.push(blob);
        }
        let empty = Descriptor {
            media_type: String::new(),
            digest: Digest::of(EMPTY_CONFIG),
            size: EMPTY_CONFIG.len() as u64,
        };
        self.push_bytes(image, &empty, EMPTY_CONFIG)?;
        let (manifest, bytes) = artifact(
            attachment.artifact_type,
            &blobs,
            subject,
            attachment.annotations,
        );
        self.attach_manifest(image, &manifest.media_type, &bytes)
    }

    /// Writes a manifest that names a subject, and sees to it that it is listed as attached to that. Its blobs are there already.
    pub fn attach_manifest(
        &self,
        image: &ImageRef,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<Descriptor, RegistryError> {
        let attached = self.exchange.attach_manifest(image, media_type, bytes);
        self.reactor.block_on(attached)?
    }

    /// Brings a small blob into the image's repository.
    pub fn push_bytes(
        &self,
        image: &ImageRef,
        blob: &Descriptor,
        bytes: &[u8],
    ) -> Result<Pushed, RegistryError> {
        let open = |offset: u64| -> io::Result<Box<dyn Read + Send>> {
            let rest = usize::try_from(offset).ok().and_then(|at| bytes.get(at..));
            Ok(Box::new(Cursor::new(rest.unwrap_or_default().to_vec())))
        };
        self.push_blob(image, blob, &open, &[], &|_| ())
    }

    /// Removes a manifest from the registry itself: the one with the image's digest, with all its tags, or else the image's tag alone,
    /// where the registry can do that. `false` if there is none.
    pub fn remove_manifest(&self, image: &ImageRef) -> Result<bool, RegistryError> {
        self.reactor
            .block_on(self.exchange.remove_manifest(image))?
    }

    /// Returns the digest of what stands under the image's name at the registry itself, past every mirror; `None` if nothing does.
    pub fn standing_digest(&self, image: &ImageRef) -> Result<Option<Digest>, RegistryError> {
        let endpoint = self.exchange.origin(image);
        let found = self.exchange.resolve_at(&endpoint, image);
        match self.reactor.block_on(found)? {
            Ok(resolved) => Ok(Some(resolved.descriptor.digest)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Lists the tags that the image's repository has at the registry itself, past every mirror.
    pub fn own_tags(&self, image: &ImageRef) -> Result<Vec<String>, RegistryError> {
        let endpoint = self.exchange.origin(image);
        self.reactor.block_on(self.exchange.tags_at(&endpoint))?
    }

    /// Lists the tags of the image's repository.
    pub fn tags(&self, image: &ImageRef) -> Result<Vec<String>, RegistryError> {
        self.reactor.block_on(self.exchange.tags(image))?
    }

    /// Tries a user name and a password at a registry.
    pub fn check_login(
        &self,
        registry: &str,
        user: &str,
        password: &Secret<String>,
    ) -> Result<(), RegistryError> {
        let credentials = Credentials::new(self.environment.clone(), self.tuning.helper).with(
            registry,
            user,
            password.clone(),
        );
        let exchange = Exchange::new(
            self.rules.clone(),
            credentials,
            &self.environment,
            self.tuning,
        );
        let endpoint = exchange.registry(registry);
        let mut ask = Ask::read(Method::GET, &endpoint, "", registry);
        ask.target = Target::Tail("/".to_owned());
        ask.scopes = Scopes::default();
        ask.action = Action::Login;
        match self.reactor.block_on(exchange.ask(&endpoint, &ask, &[]))? {
            Ok(_) => Ok(()),
            Err(RegistryError::NotFound { .. }) => Err(RegistryError::Protocol {
                host: registry.to_owned(),
                what: "it has no registry's API under `/v2/`".to_owned(),
            }),
            Err(error) => Err(error),
        }
    }

    /// Returns a bucket of an object store. Nothing is asked yet.
    pub fn bucket(&self, place: &BucketPlace) -> Result<Bucket, RegistryError> {
        known(&self.buckets, place, || Bucket::new(self, place))
    }

    /// Returns a cache service of GitHub's kind. Nothing is asked yet.
    pub fn actions_cache(&self, place: &ActionsPlace) -> Result<ActionsCache, RegistryError> {
        known(&self.services, place, || ActionsCache::new(self, place))
    }

    pub(super) fn shared_exchange(&self) -> Arc<Exchange> {
        self.exchange.clone()
    }

    pub(super) fn shared_reactor(&self) -> Arc<Reactor> {
        self.reactor.clone()
    }

    pub(super) fn exchange(&self) -> &Exchange {
        &self.exchange
    }

    pub(super) fn block_on<F: Future>(&self, future: F) -> Result<F::Output, RegistryError> {
        self.reactor.block_on(future)
    }

    /// Tells whether certificate roots were loaded.
    #[cfg(test)]
    pub(super) fn has_loaded_roots(&self) -> bool {
        self.exchange.transport().trust().has_loaded_roots()
    }
}

/// Returns what was made for a place, or makes it.
fn known<P: Clone + PartialEq, T: Clone>(
    all: &Known<P, T>,
    place: &P,
    make: impl FnOnce() -> Result<T, RegistryError>,
) -> Result<T, RegistryError> {
    let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, made)) = all.iter().find(|(known, _)| known == place) {
        return Ok(made.clone());
    }
    let made = make()?;
    all.push((place.clone(), made.clone()));
    Ok(made)
}
