//! Whole images between a registry and the store.

use std::sync::{Mutex, PoisonError};

use crate::export::{self, Blobs, ExportError};
use crate::plan::{Base, BaseKey, BaseLocation, BaseWanted};
use crate::registry::{Client, RegistryError, Threads};
use crate::store::Store;
use crate::vocab::{
    Cancel, Descriptor, Diagnostic, Digest, Event, EventSink, ExitCode, ImageRef, Platform,
    RegistryOptions,
};

use super::bases::{Resolver, TaskIds};
use super::{Failure, failure};

/// Layers that travel at the same time.
const LAYERS_AT_ONCE: usize = 4;

/// Brings one platform of an image into the store, under its name. Layers are kept packed; a build unpacks what it needs.
pub fn pull(
    store: &Store,
    options: &RegistryOptions,
    name: &ImageRef,
    platform: &Platform,
    events: &dyn EventSink,
) -> Result<Descriptor, Failure> {
    let _in_use = store.use_shared().map_err(|error| failure::store(&error))?;
    let client =
        Client::new(options, Threads::Some).map_err(|error| cannot("pull", name, &error))?;
    let tasks = TaskIds::default();
    let resolver = Resolver {
        store,
        client: &client,
        pull: true,
    };
    let key = BaseKey {
        location: BaseLocation::Image(name.clone()),
        platform: platform.clone(),
    };
    let base = resolver.resolve(&BaseWanted { key, span: None }, events, &tasks)?;
    keep(store, &client, name, &base, events, &tasks)
}

/// Brings the layers of an image into the store, and gives it its name.
pub(super) fn keep(
    store: &Store,
    client: &Client,
    name: &ImageRef,
    base: &Base,
    events: &dyn EventSink,
    tasks: &TaskIds,
) -> Result<Descriptor, Failure> {
    let vertex = tasks.start(format!("pull {}", name.familiar()), events);
    let queue = Mutex::new(base.layers.iter());
    let failed = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..base.layers.len().min(LAYERS_AT_ONCE) {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
                    let Some((layer, _)) = next else { return };
                    let progress = |done| {
                        let what = layer.digest.to_string();
                        events.emit(Event::Progress {
                            vertex,
                            what,
                            done,
                            total: layer.size,
                        });
                    };
                    if let Err(error) = pull_blob(store, client, name, layer, &progress) {
                        failed
                            .lock()
                            .unwrap_or_else(PoisonError::into_inner)
                            .get_or_insert(error);
                        return;
                    }
                }
            });
        }
    });
    if let Some(error) = failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        events.emit(Event::Failed {
            vertex,
            message: error.diagnostics[0].message.clone(),
        });
        return Err(error);
    }
    events.emit(Event::Finished { vertex });
    let bytes = store
        .read_blob(&base.manifest, u64::MAX)
        .map_err(|error| failure::store(&error))?
        .unwrap_or_default();
    let manifest = Descriptor {
        media_type: media_type(&bytes),
        digest: base.manifest,
        size: bytes.len() as u64,
    };
    store
        .put_image(Some(name), &manifest, Some(&base.platform))
        .map_err(|error| failure::store(&error))?;
    Ok(manifest)
}

/// Returns what a manifest says that it is; Docker's older ones and OCI's may leave it out.
fn media_type(manifest: &[u8]) -> String {
    let parsed: serde_json::Value = serde_json::from_slice(manifest).unwrap_or_default();
    parsed["mediaType"]
        .as_str()
        .unwrap_or("application/vnd.oci.image.manifest.v1+json")
        .to_owned()
}

pub(super) fn pull_blob(
    store: &Store,
    client: &Client,
    name: &ImageRef,
    layer: &Descriptor,
    progress: &dyn Fn(u64),
) -> Result<(), Failure> {
    use std::io::{Read as _, Write as _};
    if store.blob_size(&layer.digest) == Some(layer.size) {
        return Ok(());
    }
    let io_failed = |error: std::io::Error| {
        Failure::new(
            ExitCode::Source,
            Diagnostic::error(format!(
                "cannot pull layer {} of {}",
                layer.digest,
                name.familiar()
            ))
            .caused_by(&error),
        )
    };
    let mut keep = store
        .blob_writer()
        .map_err(|error| failure::store(&error))?;
    let mut blob = client
        .blob(name, layer)
        .map_err(|error| cannot("pull", name, &error))?;
    let mut buffer = vec![0; 256 << 10];
    let mut done = 0;
    loop {
        let count = blob.read(&mut buffer).map_err(io_failed)?;
        if count == 0 {
            break;
        }
        keep.write_all(&buffer[..count])
            .map_err(|error| failure::store(&keep.error(error)))?;
        done += count as u64;
        progress(done);
    }
    keep.commit(&layer.digest)
        .map_err(|error| failure::store(&error))
}

/// Sends an image of the store to a registry.
pub fn push(
    store: &Store,
    options: &RegistryOptions,
    image: &Descriptor,
    destination: &ImageRef,
    ignore_immutable_tags: bool,
    events: &dyn EventSink,
) -> Result<Digest, Failure> {
    let client =
        Client::new(options, Threads::Some).map_err(|error| cannot("push", destination, &error))?;
    let names = [destination.clone()];
    let exported = super::export_of(store, image, &names)?;
    let cancel = Cancel::new();
    let blobs = Blobs {
        store,
        fetch: &|layer| Err(ExportError::MissingBlob(layer.digest)),
        cancel: &cancel,
    };
    let tasks = TaskIds::default();
    let vertex = tasks.start(format!("push {}", destination.familiar()), events);
    let progress = |layer: &Descriptor, sent: u64| {
        events.emit(Event::Progress {
            vertex,
            what: layer.digest.to_string(),
            done: sent,
            total: layer.size,
        });
    };
    let stands = Mutex::new(image.digest);
    let fixed = |error: &RegistryError| {
        if ignore_immutable_tags && let RegistryError::ImmutableTag { stands: found, .. } = error {
            *stands.lock().unwrap_or_else(PoisonError::into_inner) = *found;
            events.emit(Event::Diagnostic(left_alone(error)));
            return true;
        }
        false
    };
    let pushed = export::push(
        &client,
        &exported,
        &blobs,
        &|_, _| Vec::new(),
        &progress,
        &fixed,
        &cancel,
    );
    match pushed {
        Ok(()) => {
            events.emit(Event::Finished { vertex });
            Ok(stands.into_inner().unwrap_or_else(PoisonError::into_inner))
        }
        Err(error) => {
            events.emit(Event::Failed {
                vertex,
                message: error.to_string(),
            });
            let mut diagnostic =
                Diagnostic::error(format!("cannot push {}", destination.familiar()))
                    .caused_by(&error);
            diagnostic.hints.extend(error.hint());
            Err(Failure::new(ExitCode::Export, diagnostic))
        }
    }
}

/// Returns the warning about a tag that was to be pushed and stays what it was.
pub(super) fn left_alone(error: &RegistryError) -> Diagnostic {
    Diagnostic::warning("the tag was left as it is").caused_by(error)
}

pub(super) fn cannot(verb: &str, name: &ImageRef, error: &RegistryError) -> Failure {
    let mut diagnostic =
        Diagnostic::error(format!("cannot {verb} {}", name.familiar())).caused_by(error);
    diagnostic.hints.extend(error.hint());
    Failure::new(ExitCode::Source, diagnostic)
}
