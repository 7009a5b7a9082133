//! Results become OCI documents: config, history and manifest of each output.

use std::collections::BTreeMap;

use crate::cache::PackedForm;
use crate::export::{ExportedImage, ExportedIndex};
use crate::image::{
    History, MediaTypes, assemble as assemble_image, complete as complete_config, index,
};
use crate::plan::{Graph, HistoryItem, Op, Output};
use crate::solve::{ChainLayer, Solution};
use crate::store::Packed;
use crate::vocab::{
    BuildRequest, Descriptor, Diagnostic, Event, EventSink, ExitCode, ImageWriting, LayerForm,
    LayerId, OutputSpec, Platform, Timestamp,
};
use crate::worker::Machine;

use super::Failure;
use super::failure;
use super::inputs::Inputs;

/// What BuildKit writes beside each entry; tools tell by it how to read `created_by`.
const HISTORY_COMMENT: &str = "buildkit.dockerfile.v0";

/// A form in which images are wanted: how they are written, and in which family of media types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Form {
    pub(super) writing: ImageWriting,
    pub(super) docker_media_types: bool,
}

impl Form {
    /// Returns the form that an output wants; `None` for outputs that are no images.
    pub(super) fn of(output: &OutputSpec) -> Option<Form> {
        match output {
            OutputSpec::Image {
                writing,
                oci_media_types,
                ..
            } => Some(Form {
                writing: *writing,
                docker_media_types: !oci_media_types,
            }),
            OutputSpec::Oci { writing, .. } => Some(Form {
                writing: *writing,
                docker_media_types: false,
            }),
            OutputSpec::Docker { writing, .. } => Some(Form {
                writing: *writing,
                docker_media_types: true,
            }),
            OutputSpec::Tar { .. } | OutputSpec::Local { .. } => None,
        }
    }

    /// Returns the form of its layers, given the build's epoch.
    pub(super) fn layers(&self, epoch: Option<i64>) -> LayerForm {
        let ImageWriting {
            compression,
            epoch: own,
            rewrite_timestamp,
        } = self.writing;
        LayerForm {
            compression,
            clamp: own.or(epoch).filter(|_| rewrite_timestamp),
        }
    }
}

/// The result in one form.
pub(super) struct Images {
    pub(super) form: Form,
    /// One per output of the graph.
    pub(super) images: Vec<ExportedImage>,
    pub(super) index: Option<ExportedIndex>,
}

/// Says that times are to be rewritten and nothing says to what.
pub(super) fn warn_of_times(request: &BuildRequest, graph: &Graph, events: &dyn EventSink) {
    let asks =
        |form: Form| form.writing.rewrite_timestamp && form.writing.epoch.or(graph.epoch).is_none();
    if request.outputs.iter().filter_map(Form::of).any(asks) {
        let warning = Diagnostic::warning(
            "`rewrite-timestamp=true` has no effect: there is no SOURCE_DATE_EPOCH",
        )
        .hint("set it in the environment, or with `--build-arg SOURCE_DATE_EPOCH=SECONDS`");
        events.emit(Event::Diagnostic(warning));
    }
}

/// Tells whether every layer that is to be packed is.
pub(super) fn all_packed(graph: &Graph, solution: &Solution, machine: &Machine<'_>) -> bool {
    let others = || {
        let steps = solution.results.iter().enumerate();
        steps.filter_map(|(step, result)| result.layer.filter(|_| graph.is_shared(step)))
    };
    (!machine.packs_layers()
        || exported_layers(graph, solution).all(|layer| machine.is_packed(&layer, true)))
        && (!machine.packs_all_layers() || others().all(|layer| machine.is_packed(&layer, false)))
}

/// Tells whether a layer that leaves the build is in a shared cache, and not here.
pub(super) fn any_is_elsewhere(graph: &Graph, solution: &Solution, machine: &Machine<'_>) -> bool {
    exported_layers(graph, solution).any(|layer| machine.is_elsewhere(&layer))
}

/// Returns the layers of steps that leave the build.
pub(super) fn exported_layers<'a>(
    graph: &'a Graph,
    solution: &'a Solution,
) -> impl Iterator<Item = LayerId> + 'a {
    graph
        .outputs
        .iter()
        .flat_map(|output| &output.history)
        .filter_map(|item| match item {
            HistoryItem::Layer { step, .. } => solution.results[step.0].layer,
            HistoryItem::Inherited(_) | HistoryItem::Empty { .. } => None,
        })
}

/// Makes the documents in every form that an output of the request wants.
pub(super) fn assemble(
    request: &BuildRequest,
    inputs: &Inputs,
    graph: &Graph,
    solution: &Solution,
    machine: &Machine<'_>,
) -> Result<Vec<Images>, Failure> {
    let mut forms: Vec<Form> = Vec::new();
    for form in request.outputs.iter().filter_map(Form::of) {
        if !forms.contains(&form) {
            forms.push(form);
        }
    }
    let annotations: BTreeMap<String, String> = request.annotations.iter().cloned().collect();
    let index_annotations: BTreeMap<String, String> =
        request.index_annotations.iter().cloned().collect();
    forms
        .into_iter()
        .map(|form| {
            let media_types = || {
                if form.docker_media_types {
                    MediaTypes::Docker
                } else {
                    MediaTypes::Oci
                }
            };
            let images: Vec<ExportedImage> = graph
                .outputs
                .iter()
                .map(|output| {
                    one(
                        output,
                        form,
                        media_types(),
                        &annotations,
                        inputs,
                        graph,
                        solution,
                        machine,
                    )
                })
                .collect::<Result<_, _>>()?;
            let index = graph.is_index.then(|| {
                let manifests: Vec<(Descriptor, Platform)> = images
                    .iter()
                    .map(|image| (image.manifest.clone(), image.platform.clone()))
                    .collect();
                let (descriptor, bytes) = index(&manifests, &index_annotations, media_types());
                ExportedIndex { descriptor, bytes }
            });
            Ok(Images {
                form,
                images,
                index,
            })
        })
        .collect()
}

#[expect(
    clippy::too_many_arguments,
    reason = "all of them are what the image is made of"
)]
fn one(
    output: &Output,
    form: Form,
    media_types: MediaTypes,
    annotations: &BTreeMap<String, String>,
    inputs: &Inputs,
    graph: &Graph,
    solution: &Solution,
    machine: &Machine<'_>,
) -> Result<ExportedImage, Failure> {
    let layer_form = form.layers(graph.epoch);
    let mut layers = Vec::new();
    let mut diff_ids = Vec::new();
    let mut own = Vec::new();
    for layer in solution.chain(graph, output.root) {
        match layer {
            ChainLayer::Base { base, index, .. } => {
                let Op::Base(base) = &graph.steps[base.0].op else {
                    unreachable!("base layers come from base steps")
                };
                let (descriptor, diff_id) = base.layers[index].clone();
                layers.push(descriptor);
                diff_ids.push(diff_id);
                own.push(None);
            }
            ChainLayer::Built { id, .. } => {
                let packed = packed(id, layer_form, machine)?;
                layers.push(packed.blob.clone());
                diff_ids.push(packed.diff_id);
                let packed = PackedForm {
                    form: layer_form,
                    diff_id: packed.diff_id,
                    blob: packed.blob,
                    uncompressed_size: packed.uncompressed_size,
                };
                own.push(Some((id, packed)));
            }
        }
    }
    let epoch = form.writing.epoch.or(graph.epoch);
    let epoch = epoch.map(Timestamp::from_seconds);
    let created = epoch.unwrap_or_else(|| created(output, solution, inputs.now));
    let history = history(output, solution, epoch, created);
    let mut config = complete_config(output.config.clone(), &diff_ids, history, Some(created));
    machine.put_records(&mut config, &own);
    let assembled = assemble_image(config, &layers, annotations, media_types);
    Ok(ExportedImage {
        platform: output.platform.clone(),
        manifest: assembled.manifest,
        manifest_bytes: assembled.manifest_bytes,
        config: assembled.config,
        config_bytes: assembled.config_bytes,
        layers,
    })
}

pub(super) fn packed(
    id: LayerId,
    form: LayerForm,
    machine: &Machine<'_>,
) -> Result<Packed, Failure> {
    let found = machine
        .packed(&id, form)
        .map_err(|error| failure::store(&error))?;
    found.ok_or_else(|| {
        Failure::new(
            ExitCode::Store,
            Diagnostic::error(format!(
                "the packed form of layer {id} is gone from the state directory"
            ))
            .hint("something removed it while the build ran: build again"),
        )
    })
}

/// Returns the time of the newest layer, so that an unchanged build makes an unchanged image.
fn created(output: &Output, solution: &Solution, now: Timestamp) -> Timestamp {
    let newest = output.history.iter().filter_map(|item| match item {
        HistoryItem::Layer { step, .. } => Some(solution.results[step.0].created),
        HistoryItem::Inherited(_) | HistoryItem::Empty { .. } => None,
    });
    let inherited = || output.config.created.as_deref().and_then(Timestamp::parse);
    newest.max().or_else(inherited).unwrap_or(now)
}

fn history(
    output: &Output,
    solution: &Solution,
    epoch: Option<Timestamp>,
    image: Timestamp,
) -> Vec<History> {
    // Entries without a layer carry the time of the layer before them.
    let mut last = None;
    let entry = |created: Timestamp, created_by: &str, empty_layer: bool| History {
        created: Some(created.to_string()),
        created_by: Some(created_by.to_owned()),
        comment: Some(HISTORY_COMMENT.to_owned()),
        empty_layer,
        ..History::default()
    };
    output
        .history
        .iter()
        .map(|item| match item {
            HistoryItem::Inherited(inherited) => {
                last = inherited
                    .created
                    .as_deref()
                    .and_then(Timestamp::parse)
                    .or(last);
                inherited.clone()
            }
            HistoryItem::Empty { created_by } => {
                entry(epoch.or(last).unwrap_or(image), created_by, true)
            }
            HistoryItem::Layer { created_by, step } => {
                let created = epoch.unwrap_or(solution.results[step.0].created);
                last = Some(created);
                entry(created, created_by, false)
            }
        })
        .collect()
}
