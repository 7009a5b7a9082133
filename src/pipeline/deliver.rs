//! Delivering what was built: every output of the request. The files that tell the next job about it are `results`'.

use std::time::Duration;

use crate::export::{self, Blobs, Export, ExportError, ExportedImage};
use crate::image::{Listing, ListingEntry, Slot};
use crate::plan::{BaseLocation, Graph, Op, StepId};
use crate::registry::{Appended, RegistryError};
use crate::rootfs::Times;
use crate::solve::{ChainLayer, Solution, StepError};
use crate::store::Store;
use crate::vocab::{
    AppendTo, BuildRequest, Cancel, Descriptor, Diagnostic, Digest, Event, EventSink, ExitCode,
    ImageRef, OutputSpec, Platform, Stream, Summary, SummaryImage, SummaryLayer, VertexId, each,
};
use crate::worker::Machine;

use super::content::Signature;
use super::images::{Form, Images};
use super::{Failure, TaskIds, failure, manifests, transfer};

/// Layers that are fetched at the same time.
const FETCHES_AT_ONCE: usize = 6;

/// Tells whether the files themselves are needed, by an output or to try the image out, not only records and blobs.
pub(super) fn needs_files(request: &BuildRequest) -> bool {
    let as_files =
        |output: &OutputSpec| matches!(output, OutputSpec::Tar { .. } | OutputSpec::Local { .. });
    !request.smoke.is_empty() || request.outputs.iter().any(as_files)
}

/// Tells whether an output needs the bytes of layers, and not only that a registry has them.
pub(super) fn needs_blobs(request: &BuildRequest) -> bool {
    request.outputs.iter().any(|output| match output {
        OutputSpec::Image { store, .. } => *store,
        OutputSpec::Oci { .. } | OutputSpec::Docker { .. } => true,
        OutputSpec::Tar { .. } | OutputSpec::Local { .. } => false,
    })
}

/// What was delivered.
pub(super) struct Delivered {
    /// In the form of the first output that is an image; none where only their index is known.
    pub(super) images: Vec<ExportedImage>,
    pub(super) top: Option<Descriptor>,
    pub(super) names: Vec<ImageRef>,
}

#[expect(
    clippy::too_many_arguments,
    reason = "the last station of a build sees all of it"
)]
pub(super) fn deliver(
    request: &BuildRequest,
    graph: &Graph,
    solution: &Solution,
    machine: &Machine<'_>,
    images: Vec<Images>,
    signature: Option<&Signature>,
    events: &dyn EventSink,
    tasks: &TaskIds,
    cancel: &Cancel,
) -> Result<Delivered, Failure> {
    let fetch = |descriptor: &Descriptor| fetch(graph, machine, descriptor, cancel);
    let blobs = Blobs {
        store: machine.store(),
        fetch: &fetch,
        cancel,
    };
    let mut delivered = Delivered {
        images: Vec::new(),
        top: None,
        names: Vec::new(),
    };
    if let Some(first) = images.first() {
        delivered.images = first.images.clone();
        delivered.top = Some(export(first, &[]).top().0.clone());
    }
    for output in &request.outputs {
        if let Some(ended) = failure::ended(cancel) {
            return Err(ended);
        }
        let task = Task {
            events,
            tasks,
            cancel,
        };
        match output {
            OutputSpec::Image {
                names,
                store: keep,
                push,
                ..
            } => {
                let export = export(form(&images, output), names);
                if *keep {
                    bring(&export, &blobs, &task)?;
                    keep_image(machine.store(), &export)?;
                }
                if *push {
                    let mut all = names.clone();
                    if let (Some(signature), Some(form)) = (signature, Form::of(output)) {
                        all.extend(signature.names(form, names));
                    }
                    let export = Export {
                        names: &all,
                        ..export
                    };
                    let leaves = request.ignore_immutable_tags;
                    push_image(
                        graph, solution, machine, &export, &blobs, &task, leaves, cancel,
                    )?;
                }
                delivered.names.extend(names.iter().cloned());
            }
            OutputSpec::Oci { dest, tar, .. } => {
                let export = export(form(&images, output), &request.tags);
                task.run(
                    format!("write OCI layout {}", dest.display()),
                    |_| match tar {
                        true => export::oci_archive(&export, &blobs, dest),
                        false => export::oci_layout(&export, &blobs, dest),
                    },
                )?;
            }
            OutputSpec::Docker { dest, .. } => {
                let export = export(form(&images, output), &request.tags);
                task.run(format!("write Docker archive {}", dest.display()), |_| {
                    export::docker_archive(&export, &blobs, dest)
                })?;
            }
            OutputSpec::Tar {
                dest,
                stage,
                epoch,
                split,
            }
            | OutputSpec::Local {
                dest,
                stage,
                epoch,
                split,
            } => {
                let split = split.unwrap_or(graph.is_index);
                if !split && graph.outputs.len() > 1 {
                    return Err(Failure::new(
                        ExitCode::Usage,
                        Diagnostic::error("several platforms cannot share one directory")
                            .hint("leave `platform-split=false` out, or build one platform"),
                    ));
                }
                let times = epoch.or(graph.epoch).map_or(Times::Kept, Times::All);
                let mut roots = Vec::with_capacity(graph.outputs.len());
                for (platform, built) in files_of(graph, stage.as_deref()) {
                    let directory = match split {
                        true => platform.to_string().replace('/', "_"),
                        false => String::new(),
                    };
                    let chain = solution.chain(graph, built);
                    let root = machine.open_root(graph, &chain, cancel);
                    let root = root.map_err(|error| failure::step(graph, built, error, cancel))?;
                    roots.push((directory, root));
                }
                task.run(format!("write files to {}", dest.display()), |_| {
                    if matches!(output, OutputSpec::Tar { .. }) {
                        return export::root_tar(&roots, dest, times, cancel);
                    }
                    for (directory, root) in &roots {
                        export::root_directory(root, &dest.join(directory), times, cancel)?;
                    }
                    Ok(())
                })?;
                if let Some(built) = graph.outputs.first() {
                    let whole = machine.layers_stay();
                    whole.map_err(|error| failure::step(graph, built.root, error, cancel))?;
                }
            }
        }
    }
    for to in &request.append_to {
        let task = Task {
            events,
            tasks,
            cancel,
        };
        append_image(
            request, graph, solution, machine, &images, &blobs, &task, to,
        )?;
    }
    for name in &request.local_indexes {
        let parts = parts(&export(form(&images, image_output(request)), &[]));
        manifests::add_to_stored(machine.store(), name, &parts, &request.index_annotations)?;
        delivered.names.push(name.clone());
    }
    Ok(delivered)
}

/// Pushes the result by its digest and adds it to the index of several jobs.
#[expect(
    clippy::too_many_arguments,
    reason = "the last station of a build sees all of it"
)]
fn append_image(
    request: &BuildRequest,
    graph: &Graph,
    solution: &Solution,
    machine: &Machine<'_>,
    images: &[Images],
    blobs: &Blobs<'_>,
    task: &Task<'_>,
    to: &AppendTo,
) -> Result<(), Failure> {
    let images = form(images, image_output(request));
    let name = to.image.with_digest(export(images, &[]).top().0.digest);
    let names = [name];
    let export = export(images, &names);
    push_image(
        graph,
        solution,
        machine,
        &export,
        blobs,
        task,
        false,
        task.cancel,
    )?;
    let parts = parts(&export);
    let vertex = task
        .tasks
        .start(format!("append to {}", to.image.familiar()), task.events);
    let appended = machine
        .client()
        .map_err(|error| {
            Failure::new(
                ExitCode::Export,
                Diagnostic::error("the registry settings cannot be used").caused_by(&error),
            )
        })
        .and_then(|client| manifests::append(client, to, &parts, &request.index_annotations));
    match appended {
        Ok(appended) => {
            for warning in manifests::appended_otherwise(&to.image, &appended) {
                task.events.emit(Event::Diagnostic(warning));
            }
            if let Appended::Waiting { missing } = &appended {
                let text = format!("waiting for {}\n", manifests::listed(missing));
                task.events.emit(Event::Output {
                    vertex,
                    stream: Stream::Stdout,
                    bytes: text.into_bytes(),
                });
            }
            task.events.emit(Event::Finished { vertex });
            Ok(())
        }
        Err(failure) => {
            task.events.emit(Event::Failed {
                vertex,
                message: failure.diagnostics[0].message.clone(),
            });
            Err(failure::ended(task.cancel).unwrap_or(failure))
        }
    }
}

/// Returns the roots of a stage, or of the target.
fn files_of<'a>(graph: &'a Graph, stage: Option<&str>) -> Vec<(&'a Platform, StepId)> {
    match stage {
        None => {
            let outputs = graph.outputs.iter();
            outputs.map(|built| (&built.platform, built.root)).collect()
        }
        Some(stage) => {
            let beside = graph.beside.iter().filter(|built| built.stage == stage);
            beside.map(|built| (&built.platform, built.root)).collect()
        }
    }
}

/// Returns the first output that is an image, which is what indexes get.
fn image_output(request: &BuildRequest) -> &OutputSpec {
    let mut outputs = request.outputs.iter();
    outputs
        .find(|output| matches!(output, OutputSpec::Image { .. }))
        .expect("the command line sees to it that there is one")
}

/// Returns what an index lists of a result.
fn parts(export: &Export<'_>) -> Vec<(Slot, Vec<ListingEntry>)> {
    let Some(index) = &export.index else {
        let images = export.images.iter().map(|image| {
            let entry = ListingEntry::image(&image.manifest, Some(&image.platform));
            (Slot::Platform(image.platform.clone()), vec![entry])
        });
        return images.collect();
    };
    Listing::parse(&index.bytes, Some(&index.descriptor.media_type))
        .ok()
        .flatten()
        .expect("the index was written a moment ago")
        .parts()
}

fn form<'a>(images: &'a [Images], output: &OutputSpec) -> &'a Images {
    let form = Form::of(output).expect("only image outputs ask");
    images
        .iter()
        .find(|images| images.form == form)
        .expect("every wanted form was assembled")
}

fn export<'a>(images: &Images, names: &'a [ImageRef]) -> Export<'a> {
    Export {
        images: images.images.clone(),
        index: images.index.clone(),
        names,
    }
}

/// Puts the documents into the store and gives the image its names.
fn keep_image(store: &Store, export: &Export<'_>) -> Result<(), Failure> {
    let keep = || {
        for (_, bytes) in export.documents() {
            store.put_blob(bytes)?;
        }
        let (top, _) = export.top();
        let platform = match (&export.index, export.images.as_slice()) {
            (None, [image]) => Some(&image.platform),
            _ => None,
        };
        if export.names.is_empty() {
            store.put_image(None, top, platform)?;
        }
        for name in export.names {
            store.put_image(Some(name), top, platform)?;
        }
        Ok(())
    };
    keep().map_err(|error| failure::store(&error))
}

#[expect(
    clippy::too_many_arguments,
    reason = "the last station of a build sees all of it"
)]
fn push_image(
    graph: &Graph,
    solution: &Solution,
    machine: &Machine<'_>,
    export: &Export<'_>,
    blobs: &Blobs<'_>,
    task: &Task<'_>,
    leaves_immutable_tags: bool,
    cancel: &Cancel,
) -> Result<(), Failure> {
    if export.names.is_empty() {
        return Err(Failure::new(
            ExitCode::Usage,
            Diagnostic::error("nothing says where to push to")
                .hint("name the image with `-t REGISTRY/NAME:TAG`"),
        ));
    }
    machine.stop_sending_ahead();
    let origins = base_repositories(graph, solution);
    let mount_from = |layer: &Descriptor, name: &ImageRef| {
        let known = origins
            .iter()
            .filter(|(digest, image)| *digest == layer.digest && image.registry == name.registry);
        let shared = machine.shared_repository(layer);
        let shared = shared.filter(|image| image.registry == name.registry);
        known
            .map(|(_, image)| image.repository.clone())
            .chain(shared.map(|image| image.repository))
            .filter(|repository| *repository != name.repository)
            .collect()
    };
    let names: Vec<String> = export.names.iter().map(ImageRef::familiar).collect();
    task.run(format!("push {}", names.join(", ")), |vertex| {
        let client = machine.client()?;
        let progress = |layer: &Descriptor, sent: u64| {
            task.events.emit(Event::Progress {
                vertex,
                what: layer.digest.to_string(),
                done: sent,
                total: layer.size,
            });
        };
        let goes_on = |error: &RegistryError| {
            if leaves_immutable_tags {
                let warning = transfer::left_alone(error);
                task.events.emit(Event::Diagnostic(warning));
            }
            leaves_immutable_tags
        };
        export::push(
            client,
            export,
            blobs,
            &mount_from,
            &progress,
            &goes_on,
            cancel,
        )
    })
}

/// Returns which repositories base layers came from.
fn base_repositories(graph: &Graph, solution: &Solution) -> Vec<(Digest, ImageRef)> {
    let mut found = Vec::new();
    for output in &graph.outputs {
        for layer in solution.chain(graph, output.root) {
            if let ChainLayer::Base { base, index, .. } = layer
                && let Op::Base(base) = &graph.steps[base.0].op
                && let BaseLocation::Image(image) = &base.key.location
            {
                found.push((base.layers[index].0.digest, image.clone()));
            }
        }
    }
    found
}

/// Brings the layers of an image that is kept into the store, several at the same time.
fn bring(export: &Export<'_>, blobs: &Blobs<'_>, task: &Task<'_>) -> Result<(), Failure> {
    let mut missing = export.layers();
    missing.retain(|layer| blobs.store.blob_size(&layer.digest).is_none());
    let (_, failure) = each(&missing, FETCHES_AT_ONCE, |layer| {
        task.run(format!("fetch {}", layer.digest), |_| (blobs.fetch)(layer))
    });
    failure.map_or(Ok(()), Err)
}

/// Brings a layer that no step needed, a base's or a shared cache's, into the store.
pub(super) fn fetch(
    graph: &Graph,
    machine: &Machine<'_>,
    descriptor: &Descriptor,
    cancel: &Cancel,
) -> Result<(), ExportError> {
    for step in &graph.steps {
        if let Op::Base(base) = &step.op
            && let Some((original, _)) = base
                .layers
                .iter()
                .find(|(layer, _)| layer.digest == descriptor.digest)
        {
            return machine
                .fetch_blob(base, original, cancel)
                .map_err(fetch_failed);
        }
    }
    match machine.fetch_shared(descriptor, cancel) {
        Ok(true) => Ok(()),
        Ok(false) => Err(ExportError::MissingBlob(descriptor.digest)),
        Err(error) => Err(fetch_failed(error)),
    }
}

fn fetch_failed(error: StepError) -> ExportError {
    ExportError::Fetch {
        class: error.class,
        hint: error.hints.into_iter().next(),
        message: std::iter::once(error.message)
            .chain(error.causes)
            .collect::<Vec<_>>()
            .join(": "),
    }
}

/// Shows one delivery and joins its error.
struct Task<'a> {
    events: &'a dyn EventSink,
    tasks: &'a TaskIds,
    cancel: &'a Cancel,
}

impl Task<'_> {
    fn run(
        &self,
        name: String,
        work: impl FnOnce(VertexId) -> Result<(), ExportError>,
    ) -> Result<(), Failure> {
        let vertex = self.tasks.start(name.clone(), self.events);
        match work(vertex) {
            Ok(()) => {
                self.events.emit(Event::Finished { vertex });
                Ok(())
            }
            Err(error) => {
                if let Some(ended) = failure::ended(self.cancel) {
                    return Err(ended);
                }
                self.events.emit(Event::Failed {
                    vertex,
                    message: error.to_string(),
                });
                let mut diagnostic = Diagnostic::error(format!("cannot {name}")).caused_by(&error);
                diagnostic.hints.extend(error.hint());
                Err(Failure::new(error.class(), diagnostic))
            }
        }
    }
}

impl Delivered {
    /// Returns the result's ID: of an image the digest of its config, as `docker build` has it, of an index its own.
    pub(super) fn id(&self) -> Option<Digest> {
        let top = self.top.as_ref()?.digest;
        match self.images.as_slice() {
            [image] if image.manifest.digest == top => Some(image.config.digest),
            _ => Some(top),
        }
    }

    /// Returns what is told at the end. Without a solution nothing had to be known of the steps.
    pub(super) fn summary(
        &self,
        graph: &Graph,
        solution: Option<&Solution>,
        store: &Store,
        elapsed: Duration,
    ) -> Summary {
        let counted = |op: &Op| matches!(op, Op::Run(_) | Op::Copy(_) | Op::Workdir(_));
        let steps = || {
            let steps = graph.steps.iter().enumerate();
            steps.filter(|(_, step)| counted(&step.op))
        };
        let is_cached = |at: usize| solution.is_none_or(|solution| solution.cached[at]);
        let cached = steps().filter(|(at, _)| is_cached(*at)).count();
        let size = |root| {
            let solution = solution?;
            solution
                .chain(graph, root)
                .iter()
                .map(|layer| match layer {
                    ChainLayer::Built { step, .. } => Some(solution.results[step.0].size),
                    // Unknown where the layer was never unpacked.
                    ChainLayer::Base { id, .. } => {
                        store.layer(id).ok().flatten().map(|layer| layer.size)
                    }
                })
                .sum::<Option<u64>>()
        };
        // Layers of one base are one line.
        let layers = |root| {
            let mut layers: Vec<SummaryLayer> = Vec::new();
            let mut last = None;
            let Some(solution) = solution else {
                return layers;
            };
            for layer in solution.chain(graph, root) {
                let (step, size) = match layer {
                    ChainLayer::Built { step, .. } => (step, Some(solution.results[step.0].size)),
                    ChainLayer::Base { base, id, .. } => {
                        let layer = store.layer(&id).ok().flatten();
                        (base, layer.map(|layer| layer.size))
                    }
                };
                let Some(size) = size else { continue };
                match layers.last_mut() {
                    Some(known) if last == Some(step) => known.size += size,
                    _ => layers.push(SummaryLayer {
                        made_by: graph.origins[step.0].name.clone(),
                        size,
                    }),
                }
                last = Some(step);
            }
            layers.retain(|layer| layer.size > 0);
            layers
        };
        let images = graph
            .outputs
            .iter()
            .enumerate()
            .map(|(at, output)| {
                let image = self.images.get(at);
                SummaryImage {
                    platform: output.platform.clone(),
                    manifest: image.map(|image| image.manifest.clone()),
                    id: image.map(|image| image.config.digest),
                    names: self.names.iter().map(ImageRef::familiar).collect(),
                    unpacked_size: size(output.root),
                    blob_size: image.map(|image| image.layers.iter().map(|layer| layer.size).sum()),
                    stages: output
                        .stages
                        .iter()
                        .filter_map(|(name, root)| Some((name.clone(), size(*root)?)))
                        .collect(),
                    layers: layers(output.root),
                    contents: None,
                }
            })
            .collect();
        Summary {
            id: self.id(),
            images,
            steps: steps().count(),
            cached,
            elapsed,
            slowest: Vec::new(),
            hints: Vec::new(),
        }
    }
}
