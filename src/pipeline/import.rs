//! A root file system tar becomes an image of one layer.

use std::io::Read;

use crate::image::{History, MediaTypes, assemble, complete, layer_media_type};
use crate::layer::{LayerWriter, TarReader, decompress};
use crate::plan::{Linting, PlanInputs, Planned, plan};
use crate::store::Store;
use crate::vocab::{
    Allowed, Compression, Descriptor, Diagnostic, DiffId, ExitCode, ImageRef, NetworkMode,
    Platform, Timestamp,
};

use super::{Failure, failure, inputs};
use crate::worker::now;

/// One `builder import`.
pub struct Import {
    pub name: Option<ImageRef>,
    /// Dockerfile instructions that change the config.
    pub changes: Vec<String>,
    pub message: Option<String>,
    pub platform: Platform,
}

/// Reads a tar, compressed or not, and keeps it as an image. Every entry is read and written anew: what the builder could not
/// unpack later is refused here.
pub fn import(
    store: &Store,
    input: Box<dyn Read + Send>,
    request: &Import,
) -> Result<Descriptor, Failure> {
    let config = config(request)?;
    let failed = |error: &(dyn std::error::Error + 'static)| {
        Failure::new(
            ExitCode::Source,
            Diagnostic::error("cannot import the archive").caused_by(error),
        )
    };
    let store_failed = |error| failure::store(&error);
    let _in_use = store.use_shared().map_err(store_failed)?;
    let compression = Compression::default();
    let blob = store.blob_writer().map_err(store_failed)?;
    let mut writer = LayerWriter::new(
        blob,
        compression,
        inputs::means(&[compression.into()]).threads,
    );
    let mut tar = TarReader::new(decompress(input).map_err(|error| failed(&error))?);
    let mut entries = 0_u64;
    while let Some(entry) = tar.next().map_err(|error| failed(&error))? {
        if !entry.path.is_empty() {
            writer
                .entry(&entry, &mut tar.content())
                .map_err(|error| failed(&error))?;
            entries += 1;
        }
    }
    if entries == 0 {
        return Err(Failure::new(
            ExitCode::Source,
            Diagnostic::error("the archive is empty, or is no tar"),
        ));
    }
    let (blob, packed) = writer.finish().map_err(|error| failed(&error))?;
    blob.commit(&packed.digest).map_err(store_failed)?;

    let layer = Descriptor {
        media_type: layer_media_type(compression, MediaTypes::Oci).to_owned(),
        digest: packed.digest,
        size: packed.size,
    };
    let created = inputs::epoch_of_environment().map_or_else(now, Timestamp::from_seconds);
    let history = History {
        created: Some(created.to_string()),
        created_by: Some("builder import".to_owned()),
        comment: request.message.clone(),
        ..History::default()
    };
    let config = complete(
        config,
        &[DiffId(packed.diff_id.0)],
        vec![history],
        Some(created),
    );
    let assembled = assemble(
        config,
        std::slice::from_ref(&layer),
        &Default::default(),
        MediaTypes::Oci,
    );
    store
        .put_blob(&assembled.config_bytes)
        .map_err(store_failed)?;
    store
        .put_blob(&assembled.manifest_bytes)
        .map_err(store_failed)?;
    store
        .put_image(
            request.name.as_ref(),
            &assembled.manifest,
            Some(&request.platform),
        )
        .map_err(store_failed)?;
    Ok(assembled.manifest)
}

/// Lets the planner apply the changes to an empty image.
fn config(request: &Import) -> Result<crate::image::ImageConfig, Failure> {
    let text = std::iter::once("FROM scratch".to_owned())
        .chain(request.changes.iter().cloned())
        .collect::<Vec<_>>()
        .join("\n");
    let wrong = |diagnostics: Vec<Diagnostic>| {
        let diagnostics = diagnostics
            .into_iter()
            .filter(Diagnostic::is_error)
            .map(|diagnostic| {
                Diagnostic {
                    labels: Vec::new(),
                    ..diagnostic
                }
                .cause("in `--change`")
            })
            .collect();
        Failure {
            class: ExitCode::Usage,
            diagnostics,
        }
    };
    let (dockerfile, diagnostics) = crate::dockerfile::parse(&text);
    if diagnostics.iter().any(Diagnostic::is_error) {
        return Err(wrong(diagnostics));
    }
    let inputs = PlanInputs {
        target: None,
        beside: &[],
        build_args: &[],
        labels: &[],
        platforms: std::slice::from_ref(&request.platform),
        host: Platform::host(),
        context: Default::default(),
        named_contexts: &[],
        add_hosts: &[],
        network: NetworkMode::Default,
        allowed: &Allowed::default(),
        shm_size: 0,
        ulimits: &[],
        no_cache: false,
        no_cache_filter: &[],
        cache_version: None,
        source_date_epoch: None,
        context_time: None,
        linting: Linting::default(),
    };
    let (planned, _) = plan(&dockerfile, &inputs, &Default::default()).map_err(wrong)?;
    let Planned::Ready(graph) = planned else {
        return Err(wrong(vec![Diagnostic::error(
            "`--change` takes instructions that change the config, not FROM",
        )]));
    };
    let makes_files =
        |op: &crate::plan::Op| matches!(op, crate::plan::Op::Run(_) | crate::plan::Op::Copy(_));
    match graph.outputs.as_slice() {
        [output] if !graph.steps.iter().any(|step| makes_files(&step.op)) => {
            Ok(output.config.clone())
        }
        _ => Err(wrong(vec![Diagnostic::error(
            "`--change` takes instructions that change the config, not files",
        )])),
    }
}
