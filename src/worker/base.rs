//! Base layers, fetched and unpacked when a step first needs their files; and layers of steps that are here as blobs alone, since
//! the trees that this process can use are of another kind than those it found.
//!
//! Each layer is read once: registry → (kept as a blob, hashed) → decompressed → hashed → unpacked. A layer appears in the store
//! under its diff ID only after both digests were checked.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{Mode, OFlags};

use crate::cache::PackedForm;
use crate::layer::{DigestingReader, ReadAhead, decompress_within};
use crate::plan::{Base, BaseLocation, Graph, Op};
use crate::rootfs::{apply_layer, tree_size};
use crate::solve::{ChainLayer, StepError};
use crate::store::{BlobWriter, Packed};
use crate::vocab::{
    CacheKey, Cancel, CancelReason, Descriptor, DiffId, Digest, Event, ExitCode, KeyBuilder,
    LayerId, Sha256, VertexId,
};

use super::Machine;

/// Layers of one base that are fetched and unpacked at the same time.
const LAYERS_AT_ONCE: usize = 4;

/// A layer without a tree.
enum Missing<'a> {
    Base(&'a Base, &'a Descriptor, DiffId),
    Built(LayerId, Packed),
    /// In a cache that machines share.
    Shared(LayerId, PackedForm),
}

impl Machine<'_> {
    /// Unpacks every layer of `root` that is not in the store and can be had.
    pub(super) fn unpack_bases(
        &self,
        graph: &Graph,
        root: &[ChainLayer],
        cancel: &Cancel,
    ) -> Result<(), StepError> {
        let mut missing = Vec::new();
        let mut shown = Vec::new();
        for layer in root {
            if self.layer_files(&layer.id())?.is_some() {
                continue;
            }
            if let ChainLayer::Built { id, .. } = *layer {
                let packed = self.store.packed_in_any_form(&id);
                let packed = packed.map_err(|error| Machine::store_failed(&error))?;
                if let Some(packed) = packed {
                    missing.push(Missing::Built(id, packed));
                } else if let Some(form) = self.shared.packed_in_any_form(&id) {
                    missing.push(Missing::Shared(id, form));
                } else if self.shared.is_promised(&id) {
                    self.shared.lose(id);
                    return Err(StepError::new(
                        ExitCode::Source,
                        format!("the cache knows layer {id}, and nobody published its files"),
                    ));
                }
            }
            if let ChainLayer::Base { base, index, .. } = *layer {
                let vertex = VertexId(base.0 as u32);
                let Op::Base(base) = &graph.steps[base.0].op else {
                    unreachable!("base layers come from base steps")
                };
                let (descriptor, diff_id) = &base.layers[index];
                missing.push(Missing::Base(base, descriptor, *diff_id));
                // Several steps may want the same base at once; it is shown where it is asked for first.
                if self
                    .unpacking
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .insert(vertex)
                {
                    self.events.emit(Event::Started { vertex });
                    shown.push(vertex);
                }
            }
        }
        let failure = Mutex::new(None);
        let queue = Mutex::new(missing.iter());
        std::thread::scope(|scope| {
            for _ in 0..missing.len().min(LAYERS_AT_ONCE) {
                scope.spawn(|| {
                    loop {
                        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
                        let Some(layer) = next else {
                            return;
                        };
                        if failure
                            .lock()
                            .unwrap_or_else(PoisonError::into_inner)
                            .is_some()
                        {
                            return;
                        }
                        if let Err(error) = self.unpack_layer(layer, cancel) {
                            failure
                                .lock()
                                .unwrap_or_else(PoisonError::into_inner)
                                .get_or_insert(error);
                        }
                    }
                });
            }
        });
        let failure = failure.into_inner().unwrap_or_else(PoisonError::into_inner);
        for vertex in shown {
            self.events.emit(match &failure {
                None => Event::Finished { vertex },
                Some(error) => Event::Failed {
                    vertex,
                    message: error.message.clone(),
                },
            });
        }
        failure.map_or(Ok(()), Err)
    }

    /// Unpacks a layer. A base's whose blob in a lower store is damaged is fetched; the build begins again without another's.
    fn unpack_layer(&self, layer: &Missing<'_>, cancel: &Cancel) -> Result<(), StepError> {
        let unpacked = self.unpack_layer_once(layer, cancel);
        let Err(error) = unpacked else {
            return Ok(());
        };
        let blob = match layer {
            Missing::Base(_, descriptor, _) => &descriptor.digest,
            Missing::Built(_, packed) => &packed.blob.digest,
            Missing::Shared(..) => return Err(error),
        };
        if cancel.is_cancelled() || !self.store.pass_over_blob(blob) {
            return Err(error);
        }
        if let Missing::Base(..) = layer {
            return self.unpack_layer_once(layer, cancel);
        }
        self.has_lost_a_result();
        Err(error)
    }

    fn unpack_layer_once(&self, layer: &Missing<'_>, cancel: &Cancel) -> Result<(), StepError> {
        let (id, diff_id) = match layer {
            Missing::Base(_, _, diff_id) => (LayerId::from(*diff_id), *diff_id),
            Missing::Built(id, packed) => (*id, packed.diff_id),
            Missing::Shared(id, form) => (*id, form.diff_id),
        };
        let key = unpack_key(&id);
        let store_failed = |error| Machine::store_failed(&error);
        let Some(_lock) = self
            .store
            .lock_wait(&key, &|| cancel.is_cancelled())
            .map_err(store_failed)?
        else {
            return Err(StepError::new(ExitCode::Source, "cancelled"));
        };
        if self.store.layer(&id).map_err(store_failed)?.is_some() {
            return Ok(());
        }
        // After the lock: whoever has a slot waits for nobody.
        let _slot = self.unpacks.take();
        let failed = |error: &(dyn std::error::Error + 'static)| {
            let (class, what) = match layer {
                Missing::Base(base, descriptor, _) => {
                    let of = format!("layer {} of {}", descriptor.digest, base_name(base));
                    (ExitCode::Source, of)
                }
                Missing::Built(id, _) => (ExitCode::Store, format!("layer {id} of the cache")),
                Missing::Shared(id, _) => {
                    // Whatever is wrong with it, it can be made anew.
                    self.shared.lose(*id);
                    (ExitCode::Source, format!("layer {id} of the shared cache"))
                }
            };
            StepError::new(class, format!("cannot unpack {what}")).caused_by(error)
        };
        let pending = self.store.new_layer().map_err(store_failed)?;
        let blob = match layer {
            Missing::Base(base, descriptor, _) => self.open_blob(base, descriptor)?,
            Missing::Built(_, packed) => {
                let file = self.store.blob(&packed.blob.digest).map_err(store_failed)?;
                let file = file.ok_or_else(|| failed(&io::Error::from(io::ErrorKind::NotFound)))?;
                Blob::new(Box::new(file), None, false, &packed.blob)
            }
            Missing::Shared(_, form) => self.open_shared(form)?,
        };
        let guarded = Guarded::new(blob.clone(), cancel);
        let tar =
            decompress_within(guarded, self.setup.means.window).map_err(|error| failed(&error))?;
        // Decompressing is about as much work as all the rest.
        let tar = ReadAhead::new(tar).map_err(|error| failed(&error))?;
        let mut tar = DigestingReader::new(tar);
        let applied = apply_layer(&mut tar, &pending.fs(), self.store.ownership())
            .map_err(|error| failed(&error))?;
        // What follows the end of the archive belongs to the digests too.
        io::copy(&mut tar, &mut io::sink()).map_err(|error| failed(&error))?;
        let (found, _) = tar.finish();
        if found != diff_id.0 {
            let says = match layer {
                Missing::Base(..) => "the image's config",
                Missing::Built(..) | Missing::Shared(..) => "the cache",
            };
            let error = io::Error::other(format!(
                "its content has digest {found}, {says} says {diff_id}"
            ));
            return Err(failed(&error));
        }
        blob.finish().map_err(|error| failed(&error))?;
        let size = match applied.has_replaced {
            true => tree_size(&pending.fs()).map_err(|error| failed(&error))?,
            false => applied.bytes,
        };
        pending.commit(&id, size).map_err(store_failed)?;
        match layer {
            Missing::Shared(id, form) => self.remember_shared(id, form),
            Missing::Base(..) | Missing::Built(..) => Ok(()),
        }
    }

    /// Makes sure that a base's blob is in the store, without unpacking it.
    pub fn fetch_blob(
        &self,
        base: &Base,
        descriptor: &Descriptor,
        cancel: &Cancel,
    ) -> Result<(), StepError> {
        if self.store.blob_size(&descriptor.digest) == Some(descriptor.size) {
            return Ok(());
        }
        let blob = self.open_blob(base, descriptor)?;
        let copied = io::copy(&mut Guarded::new(blob.clone(), cancel), &mut io::sink());
        copied.and_then(|_| blob.finish()).map_err(|error| {
            StepError::new(
                ExitCode::Source,
                format!(
                    "cannot fetch blob {} of {}",
                    descriptor.digest,
                    base_name(base)
                ),
            )
            .caused_by(&error)
        })
    }

    /// Opens a blob of a base where it is: in the store, in an OCI layout, or in a registry. From elsewhere it is kept in the
    /// store while it is read.
    fn open_blob(&self, base: &Base, descriptor: &Descriptor) -> Result<Blob, StepError> {
        let store_failed = |error| Machine::store_failed(&error);
        if let Some(file) = self.store.blob(&descriptor.digest).map_err(store_failed)? {
            return Ok(Blob::new(Box::new(file), None, false, descriptor));
        }
        let keep = self.store.blob_writer().map_err(store_failed)?;
        // The registry client checks the digest of what it hands out; a layout's file is anybody's.
        let check = matches!(base.key.location, BaseLocation::OciLayout { .. });
        let reader: Box<dyn Read + Send> = match &base.key.location {
            BaseLocation::Image(image) => {
                let fetched = self
                    .client()
                    .and_then(|client| client.blob(image, descriptor))
                    .map_err(|error| {
                        let mut failure = StepError::new(
                            ExitCode::Source,
                            format!("cannot pull {}", image.familiar()),
                        )
                        .caused_by(&error);
                        failure.hints.extend(error.hint());
                        failure
                    })?;
                Box::new(fetched)
            }
            BaseLocation::OciLayout { path, .. } => {
                Box::new(open_layout_blob(path, &descriptor.digest).map_err(|error| {
                    StepError::new(
                        ExitCode::Source,
                        format!(
                            "cannot read blob {} of OCI layout `{}`",
                            descriptor.digest,
                            path.display()
                        ),
                    )
                    .caused_by(&error)
                })?)
            }
        };
        Ok(Blob::new(reader, Some(keep), check, descriptor))
    }
}

fn open_layout_blob(layout: &Path, digest: &Digest) -> io::Result<File> {
    open_layout_file(&layout.join("blobs/sha256").join(digest.hex()))
}

/// Opens a file of an OCI layout; nothing but a regular one is opened to be read, since a FIFO has no end and a device may act.
pub fn open_layout_file(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("it is no regular file")),
    }
}

fn unpack_key(id: &LayerId) -> CacheKey {
    KeyBuilder::new("unpack")
        .add("layer", &id.to_string())
        .finish()
        .0
}

fn base_name(base: &Base) -> String {
    match &base.key.location {
        BaseLocation::Image(image) => image.familiar(),
        BaseLocation::OciLayout { path, .. } => format!("OCI layout `{}`", path.display()),
    }
}

/// A blob being read, by a decompressor that keeps its end to itself: shared, so that the rest can be read and kept afterwards.
#[derive(Clone)]
pub(super) struct Blob(Arc<Mutex<BlobState>>);

struct BlobState {
    reader: Box<dyn Read + Send>,
    keep: Option<BlobWriter>,
    /// For sources that do not check what they give. Blobs of the store were checked on their way in, and the diff ID covers
    /// what they unpack to.
    hash: Option<Sha256>,
    read: u64,
    expected: Descriptor,
}

impl Blob {
    pub(super) fn new(
        reader: Box<dyn Read + Send>,
        keep: Option<BlobWriter>,
        check: bool,
        expected: &Descriptor,
    ) -> Blob {
        let hash = check.then(Sha256::new);
        Blob(Arc::new(Mutex::new(BlobState {
            reader,
            keep,
            hash,
            read: 0,
            expected: expected.clone(),
        })))
    }

    /// Reads what is left, checks size and digest, and puts the blob into the store.
    pub(super) fn finish(mut self) -> io::Result<()> {
        io::copy(&mut self, &mut io::sink())?;
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = state
            .hash
            .take()
            .map_or(state.expected.digest, Sha256::finish);
        if found != state.expected.digest || state.read != state.expected.size {
            let (read, expected) = (state.read, &state.expected);
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "the blob has {read} bytes and digest {found}, wanted {} bytes and {}",
                    expected.size, expected.digest
                ),
            ));
        }
        match state.keep.take() {
            Some(keep) => keep.commit(&found).map_err(io::Error::other),
            None => Ok(()),
        }
    }
}

impl Read for Blob {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let state = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = state.reader.read(buffer)?;
        state.read += count as u64;
        if state.read > state.expected.size {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the blob is longer than its manifest says",
            ));
        }
        if let Some(hash) = &mut state.hash {
            hash.update(&buffer[..count]);
        }
        if let Some(keep) = &mut state.keep {
            keep.write_all(&buffer[..count])?;
        }
        Ok(count)
    }
}

/// Ends reading when the build is cancelled.
pub(super) struct Guarded<R> {
    inner: R,
    cancel: Cancel,
}

impl<R> Guarded<R> {
    pub(super) fn new(inner: R, cancel: &Cancel) -> Guarded<R> {
        Guarded {
            inner,
            cancel: cancel.clone(),
        }
    }
}

impl<R: Read> Read for Guarded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.cancel.reason() {
            Some(CancelReason::Timeout) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the build's time is up",
            )),
            // Not `ErrorKind::Interrupted`: readers would try again.
            Some(_) => Err(io::Error::other("cancelled")),
            None => self.inner.read(buffer),
        }
    }
}
