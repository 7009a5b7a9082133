//! Looking at the files of an image without unpacking it: `ls`, `cat`, `diff`.
//!
//! In: an image of the state directory, one of a registry, or one layer by its digest. Out: a [`Listing`], and contents as
//! streams. Layers that are not in the state directory are read on their way and not kept; each is checked against its diff ID.

use std::io::{self, Read, Write};

use crate::layer::{DigestingReader, TarReader, decompress_within};
use crate::plan::{BaseKey, BaseLocation, BaseWanted};
use crate::registry::{Client, Threads};
use crate::rootfs::{Digests, ListedKind, Listing, Unresolved};
use crate::store::Store;
use crate::vocab::{
    Descriptor, Diagnostic, DiffId, Digest, EventSink, ExitCode, ImageRef, Platform,
    RegistryOptions,
};

use super::bases::{Resolver, TaskIds};
use super::{Failure, Subject, failure, inputs};

/// What is looked at.
pub enum Sight {
    Image(Subject),
    /// A blob of the state directory.
    Layer(Digest),
}

/// An image whose files are known by name.
pub struct View<'a> {
    store: &'a Store,
    client: Client,
    image: Option<ImageRef>,
    layers: Vec<(Descriptor, Option<DiffId>)>,
    listing: Listing,
}

/// Reads the names of all files, and with [`Digests::Taken`] their contents too.
pub fn look<'a>(
    store: &'a Store,
    options: &RegistryOptions,
    sight: &Sight,
    platform: &Platform,
    digests: Digests,
    events: &dyn EventSink,
) -> Result<View<'a>, Failure> {
    let client = Client::new(options, Threads::Some).map_err(|error| {
        Failure::new(
            ExitCode::Usage,
            Diagnostic::error("the registry settings cannot be used").caused_by(&error),
        )
    })?;
    let (image, layers) = layers(store, &client, sight, platform, events)?;
    let mut view = View {
        store,
        client,
        image,
        layers,
        listing: Listing::new(digests),
    };
    for at in 0..view.layers.len() {
        let mut listing = std::mem::replace(&mut view.listing, Listing::new(digests));
        view.read(at, &mut |tar| {
            listing.add(tar).map_err(|error| unreadable(&error))
        })?;
        view.listing = listing;
    }
    Ok(view)
}

type Layers = Vec<(Descriptor, Option<DiffId>)>;

/// Finds what the image consists of.
fn layers(
    store: &Store,
    client: &Client,
    sight: &Sight,
    platform: &Platform,
    events: &dyn EventSink,
) -> Result<(Option<ImageRef>, Layers), Failure> {
    let resolver = Resolver {
        store,
        client,
        pull: false,
    };
    let key = |location| BaseKey {
        location,
        platform: platform.clone(),
    };
    let (image, base) = match sight {
        Sight::Layer(digest) => {
            let layer = Descriptor {
                media_type: String::new(),
                digest: *digest,
                size: store.blob_size(digest).unwrap_or(0),
            };
            return Ok((None, vec![(layer, None)]));
        }
        Sight::Image(Subject::Stored { manifest, name }) => {
            let nameless: ImageRef = "localhost/image".parse().expect("is a name");
            let key = key(BaseLocation::Image(name.clone().unwrap_or(nameless)));
            (name.clone(), resolver.of_stored(&key, manifest.clone())?)
        }
        Sight::Image(Subject::Named(name)) => {
            let wanted = BaseWanted {
                key: key(BaseLocation::Image(name.clone())),
                span: None,
            };
            let tasks = TaskIds::default();
            (
                Some(name.clone()),
                resolver.resolve(&wanted, events, &tasks)?,
            )
        }
        Sight::Image(Subject::Saved(path)) => {
            let diagnostic = Diagnostic::error(format!("`{}` is no image", path.display()));
            return Err(Failure::new(ExitCode::Usage, diagnostic));
        }
    };
    let layers = base.layers.into_iter();
    Ok((
        image,
        layers
            .map(|(layer, diff_id)| (layer, Some(diff_id)))
            .collect(),
    ))
}

type Archive = TarReader<DigestingReader<Box<dyn Read + Send>>>;

impl View<'_> {
    /// Returns the files.
    pub fn listing(&self) -> &Listing {
        &self.listing
    }

    /// Finds a file through links.
    pub fn resolve(&self, path: &[u8]) -> Result<Vec<u8>, Failure> {
        self.listing.resolve(path).map_err(|error| {
            let mut diagnostic = Diagnostic::error(format!("there is no such file: {error}"));
            if let Some(similar) = self.similar(&error) {
                diagnostic = diagnostic.hint(format!("there is `{similar}`"));
            }
            Failure::new(ExitCode::Source, diagnostic)
        })
    }

    /// Returns a name that differs from a missing one by its case or its ending.
    fn similar(&self, error: &Unresolved) -> Option<String> {
        let Unresolved::Missing(path) = error else {
            return None;
        };
        let (parent, name) = path
            .trim_start_matches('/')
            .rsplit_once('/')
            .unwrap_or(("", path.trim_start_matches('/')));
        let names: Vec<String> = self
            .listing
            .children(parent.as_bytes())
            .map(|(path, _)| {
                let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
                String::from_utf8_lossy(name).into_owned()
            })
            .collect();
        let found = crate::vocab::nearest(name, names.iter().map(String::as_str))?;
        Some(match parent {
            "" => format!("/{found}"),
            parent => format!("/{parent}/{found}"),
        })
    }

    /// Writes the content of a file, which links may lead to.
    pub fn write(&self, path: &[u8], out: &mut dyn Write) -> Result<(), Failure> {
        let path = self.resolve(path)?;
        let shown = format!("/{}", String::from_utf8_lossy(&path));
        let wrong = |what: &str| {
            Failure::new(
                ExitCode::Source,
                Diagnostic::error(format!("`{shown}` is {what}, and has no content")),
            )
        };
        let listed = self.listing.get(&path).expect("was resolved");
        match listed.kind {
            ListedKind::File { .. } => {}
            ListedKind::Directory => return Err(wrong("a directory")),
            _ => return Err(wrong("no regular file")),
        }
        let mut is_written = Ok(());
        let mut has_seen = false;
        self.read(listed.origin.layer, &mut |tar| {
            let mut number = 0;
            while tar.next().map_err(|error| unreadable(&error))?.is_some() {
                if number == listed.origin.entry {
                    has_seen = true;
                    is_written = tar.copy_content(out).map(drop);
                }
                number += 1;
            }
            Ok(())
        })?;
        match is_written {
            Ok(()) if has_seen => Ok(()),
            // Whoever reads has enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            Err(error) => Err(Failure::new(
                ExitCode::Export,
                Diagnostic::error(format!("cannot write `{shown}`")).caused_by(&error),
            )),
            Ok(()) => Err(Failure::new(
                ExitCode::Source,
                Diagnostic::error(format!("the layer with `{shown}` has changed meanwhile")),
            )),
        }
    }

    /// Reads a layer to its end, and checks it.
    fn read(
        &self,
        at: usize,
        work: &mut dyn FnMut(&mut Archive) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let (layer, diff_id) = &self.layers[at];
        let blob = self.open(layer)?;
        let window = inputs::means(&[]).window;
        let bytes = decompress_within(blob, window).map_err(|error| unreadable(&error))?;
        let mut tar = TarReader::new(DigestingReader::new(bytes));
        work(&mut tar)?;
        let reader = tar.finish().map_err(|error| unreadable(&error))?;
        let (found, _) = reader.finish();
        match diff_id {
            Some(DiffId(wanted)) if *wanted != found => Err(Failure::new(
                ExitCode::Source,
                Diagnostic::error(format!("layer {} is damaged", layer.digest))
                    .cause(format!("its content is {found}, not {wanted}")),
            )),
            _ => Ok(()),
        }
    }

    fn open(&self, layer: &Descriptor) -> Result<Box<dyn Read + Send>, Failure> {
        let file = self.store.blob(&layer.digest);
        if let Some(file) = file.map_err(|error| failure::store(&error))? {
            return Ok(Box::new(file));
        }
        let Some(image) = &self.image else {
            return Err(Failure::new(
                ExitCode::Source,
                Diagnostic::error(format!(
                    "layer {} is not in the state directory",
                    layer.digest
                )),
            ));
        };
        match self.client.blob(image, layer) {
            Ok(blob) => Ok(Box::new(blob)),
            Err(error) => Err(super::transfer::cannot("read", image, &error)),
        }
    }
}

fn unreadable(error: &(dyn std::error::Error + 'static)) -> Failure {
    Failure::new(
        ExitCode::Source,
        Diagnostic::error("a layer of the image cannot be read").caused_by(error),
    )
}
