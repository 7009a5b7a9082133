//! Into a registry: blobs first, several at once, then manifests, then the name.

use std::io::{Read, Seek, SeekFrom};
use std::sync::{Mutex, PoisonError};

use crate::registry::{Client, RegistryError};
use crate::vocab::{Cancel, Descriptor, ImageRef};

use super::{Blobs, Export, ExportError};

/// Blobs that travel at the same time.
const BLOBS_AT_ONCE: usize = 4;

/// Pushes the result under every name. `mount_from` gives, for a layer, names of repositories that are known to have it;
/// `progress` is told of bytes sent: layer, bytes so far.
///
/// Where a name is a tag that cannot be moved, `goes_on` decides: with the names that follow, or not at all.
///
/// A layer that the registry has, or can mount, is never opened, and so never fetched from elsewhere.
pub fn push(
    client: &Client,
    export: &Export<'_>,
    blobs: &Blobs<'_>,
    mount_from: &(dyn Fn(&Descriptor, &ImageRef) -> Vec<String> + Sync),
    progress: &(dyn Fn(&Descriptor, u64) + Sync),
    goes_on: &dyn Fn(&RegistryError) -> bool,
    cancel: &Cancel,
) -> Result<(), ExportError> {
    let mut done: Vec<(String, String)> = Vec::new();
    for name in export.names {
        let repository = (name.registry.clone(), name.repository.clone());
        if !done.contains(&repository) {
            push_blobs(client, export, blobs, name, mount_from, progress, cancel)?;
            if export.index.is_some() {
                for image in &export.images {
                    let by_digest = name.with_digest(image.manifest.digest);
                    client.push_manifest(
                        &by_digest,
                        &image.manifest.media_type,
                        &image.manifest_bytes,
                    )?;
                }
            }
            done.push(repository);
        }
        if cancel.is_cancelled() {
            return Err(ExportError::Cancelled);
        }
        let (top, bytes) = export.top();
        match client.push_manifest(name, &top.media_type, bytes) {
            Err(error @ RegistryError::ImmutableTag { .. }) if goes_on(&error) => {}
            pushed => {
                pushed?;
            }
        }
    }
    Ok(())
}

fn push_blobs(
    client: &Client,
    export: &Export<'_>,
    blobs: &Blobs<'_>,
    name: &ImageRef,
    mount_from: &(dyn Fn(&Descriptor, &ImageRef) -> Vec<String> + Sync),
    progress: &(dyn Fn(&Descriptor, u64) + Sync),
    cancel: &Cancel,
) -> Result<(), ExportError> {
    enum Work<'a> {
        Layer(&'a Descriptor),
        Config(&'a Descriptor, &'a [u8]),
    }
    let mut work: Vec<Work<'_>> = export.layers().into_iter().map(Work::Layer).collect();
    work.extend(
        export
            .images
            .iter()
            .map(|image| Work::Config(&image.config, &image.config_bytes)),
    );
    let failure = Mutex::new(None);
    let queue = Mutex::new(work.iter());
    std::thread::scope(|scope| {
        for _ in 0..work.len().min(BLOBS_AT_ONCE) {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
                    let Some(next) = next else { return };
                    if failure
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .is_some()
                    {
                        return;
                    }
                    let pushed = if cancel.is_cancelled() {
                        Err(ExportError::Cancelled)
                    } else {
                        match next {
                            Work::Layer(layer) => {
                                push_layer(client, blobs, name, layer, mount_from, progress)
                            }
                            Work::Config(config, bytes) => push_bytes(client, name, config, bytes),
                        }
                    };
                    if let Err(error) = pushed {
                        failure
                            .lock()
                            .unwrap_or_else(PoisonError::into_inner)
                            .get_or_insert(error);
                    }
                }
            });
        }
    });
    failure
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner)
        .map_or(Ok(()), Err)
}

fn push_layer(
    client: &Client,
    blobs: &Blobs<'_>,
    name: &ImageRef,
    layer: &Descriptor,
    mount_from: &(dyn Fn(&Descriptor, &ImageRef) -> Vec<String> + Sync),
    progress: &(dyn Fn(&Descriptor, u64) + Sync),
) -> Result<(), ExportError> {
    // The client knows only I/O errors; the real reason waits here.
    let opening = Mutex::new(None);
    let open = |offset: u64| -> std::io::Result<Box<dyn Read + Send>> {
        match blobs.open(layer) {
            Ok(mut file) => {
                file.seek(SeekFrom::Start(offset))?;
                Ok(Box::new(file))
            }
            Err(error) => {
                let text = error.to_string();
                opening
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .get_or_insert(error);
                Err(std::io::Error::other(text))
            }
        }
    };
    let pushed = client.push_blob(name, layer, &open, &mount_from(layer, name), &|sent| {
        progress(layer, sent)
    });
    match (
        pushed,
        opening.into_inner().unwrap_or_else(PoisonError::into_inner),
    ) {
        (Ok(_), _) => Ok(()),
        (Err(_), Some(error)) => Err(error),
        (Err(error), None) => Err(ExportError::Registry(error)),
    }
}

fn push_bytes(
    client: &Client,
    name: &ImageRef,
    config: &Descriptor,
    bytes: &[u8],
) -> Result<(), ExportError> {
    let open = |offset: u64| -> std::io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(std::io::Cursor::new(
            bytes.get(offset as usize..).unwrap_or_default().to_vec(),
        )))
    };
    client
        .push_blob(name, config, &open, &[], &|_| ())
        .map(drop)
        .map_err(|error: RegistryError| ExportError::Registry(error))
}
