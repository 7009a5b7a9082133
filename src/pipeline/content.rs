//! Content tags: names of images made of what they are built from. If the registry has an image of that name, a build is done
//! before it begins.

use crate::export::ExportedImage;
use crate::image::{Manifest, parse_manifest};
use crate::plan::{Graph, HistoryItem};
use crate::registry::{Client, RegistryError};
use crate::solve::signatures;
use crate::vocab::{
    BuildRequest, CacheTo, Cancel, Descriptor, Diagnostic, Digest, Event, EventSink, ExitCode,
    ImageRef, KeyBuilder, OutputSpec, ResultId, VertexId,
};
use crate::worker::Machine;

use super::deliver::Delivered;
use super::images::Form;
use super::planned::planned;
use super::{Failure, TaskIds, caches, failure};

/// What the images of a build are built from, as digests.
pub(super) struct Signature {
    /// One per output of the graph.
    roots: Vec<ResultId>,
    /// Everything else that is in the result, or says how it is written, and is no output's own.
    rest: Digest,
}

impl Signature {
    /// Computes it: reads what is copied from the context, asks and executes nothing.
    pub(super) fn of(
        request: &BuildRequest,
        graph: &Graph,
        machine: &Machine<'_>,
        cancel: &Cancel,
    ) -> Result<Signature, Failure> {
        let ids = signatures(graph, machine)
            .map_err(|(step, error)| failure::step(graph, step, error, cancel))?;
        let mut key = KeyBuilder::new("images")
            .add("index", if graph.is_index { "yes" } else { "no" })
            .list("epoch", graph.epoch.map(|seconds| seconds.to_string()))
            .list("annotation", pairs(&request.annotations))
            .list("index-annotation", pairs(&request.index_annotations))
            .list(
                "records",
                caches::writes_records(request).then_some("inline"),
            );
        for output in &graph.outputs {
            let config = serde_json::to_string(&output.config).expect("a config is always JSON");
            let history = output.history.iter().map(|item| match item {
                HistoryItem::Inherited(entry) => {
                    serde_json::to_string(entry).expect("an entry is always JSON")
                }
                HistoryItem::Empty { created_by } => format!("empty {created_by}"),
                HistoryItem::Layer { created_by, .. } => format!("layer {created_by}"),
            });
            key = key
                .add("platform", &output.platform.to_string())
                .add("config", &config)
                .list("history", history.collect::<Vec<_>>());
        }
        Ok(Signature {
            roots: graph
                .outputs
                .iter()
                .map(|output| ids[output.root.0])
                .collect(),
            rest: key.finish().0.0,
        })
    }

    /// Returns the name of the result in one form.
    fn in_form(&self, form: Form) -> Digest {
        let writing = form.writing;
        let roots: Vec<String> = self.roots.iter().map(ResultId::to_string).collect();
        let key = KeyBuilder::new("content")
            .list("root", &roots)
            .add("rest", &self.rest.to_string())
            .add("compression", &format!("{:?}", writing.compression))
            .add("epoch", &format!("{:?}", writing.epoch))
            .add("rewrite-timestamp", &writing.rewrite_timestamp.to_string())
            .add("docker", &form.docker_media_types.to_string());
        key.finish().0.0
    }

    /// Returns the names that the result gets besides those asked for: one in each repository that it is pushed to.
    pub(super) fn names(&self, form: Form, names: &[ImageRef]) -> Vec<ImageRef> {
        let tag = tag(&self.in_form(form));
        let mut content: Vec<ImageRef> = names.iter().map(|name| name.with_tag(&tag)).collect();
        content.sort();
        content.dedup();
        content
    }
}

/// Returns the tag of a signature.
fn tag(signature: &Digest) -> String {
    format!("content-{}", signature.hex())
}

/// Returns what the build of a request would be called, without building: the tag that `--content-tag` gives it.
pub fn content_tag(request: &BuildRequest, events: &dyn EventSink) -> Result<String, Failure> {
    planned(request, events, |graph, machine, cancel| {
        let form = request.outputs.iter().find_map(Form::of);
        let form = form.ok_or_else(|| {
            Failure::new(
                ExitCode::Usage,
                Diagnostic::error("no output is an image").hint("leave `--output` out"),
            )
        })?;
        let signature = Signature::of(request, graph, machine, cancel)?;
        Ok(tag(&signature.in_form(form)))
    })
}

/// Gives the wanted names to what the registries have under content tags; `None` if one of them lacks it, or if the result is
/// wanted elsewhere too.
pub(super) fn retag(
    request: &BuildRequest,
    graph: &Graph,
    signature: &Signature,
    client: &Client,
    events: &dyn EventSink,
    tasks: &TaskIds,
) -> Result<Option<Delivered>, Failure> {
    let caches = !request.cache_to.iter().all(|to| *to == CacheTo::Inline);
    let reads_cache = !graph.origins.iter().any(|origin| origin.ignore_cache);
    if caches || !reads_cache || !request.append_to.is_empty() {
        return Ok(None);
    }
    let mut found = Vec::new();
    for output in &request.outputs {
        let (
            OutputSpec::Image {
                names,
                store: false,
                push: true,
                ..
            },
            Some(form),
        ) = (output, Form::of(output))
        else {
            return Ok(None);
        };
        for content in signature.names(form, names) {
            let same = |name: &&ImageRef| {
                name.registry == content.registry && name.repository == content.repository
            };
            // Whatever is wrong there shows when the image is pushed.
            let Ok(Some(fetched)) = client.standing(&content) else {
                return Ok(None);
            };
            found.push((fetched, names.iter().filter(same).collect::<Vec<_>>()));
        }
    }
    let Some((first, _)) = found.first() else {
        return Ok(None);
    };
    let Some(images) = images(graph, &first.descriptor, &first.bytes) else {
        return Ok(None);
    };
    let top = first.descriptor.clone();
    for (fetched, names) in &found {
        for name in names {
            let vertex = tasks.start(
                format!("tag {} as {}", fetched.descriptor.digest, name.familiar()),
                events,
            );
            let put = client.push_manifest(name, &fetched.descriptor.media_type, &fetched.bytes);
            match put {
                Err(error @ RegistryError::ImmutableTag { .. })
                    if request.ignore_immutable_tags =>
                {
                    events.emit(Event::Diagnostic(super::transfer::left_alone(&error)));
                }
                put => {
                    put.map_err(|error| cannot_tag(name, &error, vertex, events))?;
                }
            }
            events.emit(Event::Finished { vertex });
        }
    }
    let names = found.iter().flat_map(|(_, names)| names.iter().copied());
    Ok(Some(Delivered {
        images,
        top: Some(top),
        names: names.cloned().collect(),
    }))
}

/// Reads of a manifest what is told of an image. Of an index, the images themselves are not read.
fn images(graph: &Graph, top: &Descriptor, bytes: &[u8]) -> Option<Vec<ExportedImage>> {
    match parse_manifest(bytes, Some(&top.media_type)).ok()? {
        Manifest::Index(_) => Some(Vec::new()),
        Manifest::Image { config, layers } => Some(vec![ExportedImage {
            platform: graph.outputs.first()?.platform.clone(),
            manifest: top.clone(),
            manifest_bytes: bytes.to_vec(),
            config,
            config_bytes: Vec::new(),
            layers,
        }]),
    }
}

fn cannot_tag(
    name: &ImageRef,
    error: &RegistryError,
    vertex: VertexId,
    events: &dyn EventSink,
) -> Failure {
    events.emit(Event::Failed {
        vertex,
        message: error.to_string(),
    });
    let mut diagnostic =
        Diagnostic::error(format!("cannot push {}", name.familiar())).caused_by(error);
    diagnostic.hints.extend(error.hint());
    Failure::new(ExitCode::Export, diagnostic)
}

fn pairs(pairs: &[(String, String)]) -> Vec<String> {
    pairs
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect()
}
