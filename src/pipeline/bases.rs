//! Planning until everything is known: manifests and configs are fetched, layers are not; downloads and references are `remotes`'.

use std::io::Read as _;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::image::{ImageConfig, Manifest, parse_config, parse_manifest, select};
use crate::plan::{
    Base, BaseKey, BaseLocation, BaseWanted, Graph, Linting, PlanInputs, Planned, Wanted,
    plan as plan_graph,
};
use crate::registry::{Client, Threads};
use crate::store::{Record, Store};
use crate::vocab::{
    BuildRequest, Descriptor, Diagnostic, DiffId, Digest, Event, EventSink, ExitCode, ImageRef,
    KeyBuilder, Platform, ResultId, VertexId, likeness, nearest,
};
use crate::worker::{now, open_layout_file};

use super::Failure;
use super::failure;
use super::inputs::{Inputs, report};
use super::remotes::Remotes;

/// Documents larger than this are no manifests or configs.
const DOCUMENT_LIMIT: u64 = 8 << 20;

/// Gives vertices to work around the steps, far above the steps' own.
pub struct TaskIds(AtomicU32);

impl Default for TaskIds {
    fn default() -> TaskIds {
        TaskIds(AtomicU32::new(1 << 24))
    }
}

impl TaskIds {
    /// Declares and starts a task that is shown as `name`.
    pub fn start(&self, name: String, events: &dyn EventSink) -> VertexId {
        let vertex = VertexId(self.0.fetch_add(1, Ordering::Relaxed));
        events.emit(Event::Declared { vertex, name });
        events.emit(Event::Started { vertex });
        vertex
    }
}

/// Returns the client for what happens before the process enters a namespace: it starts no thread.
pub(super) fn client(request: &BuildRequest) -> Result<Client, Failure> {
    Client::new(&request.registry, Threads::None).map_err(|error| {
        Failure::new(
            ExitCode::Usage,
            Diagnostic::error("the registry settings cannot be used").caused_by(&error),
        )
    })
}

/// Returns what a plan depends on besides the Dockerfile.
pub(super) fn plan_inputs<'a>(
    request: &'a BuildRequest,
    inputs: &'a Inputs,
    linting: Linting<'a>,
) -> PlanInputs<'a> {
    PlanInputs {
        target: request.target.as_deref(),
        beside: &request.stages_beside,
        build_args: &request.build_args,
        labels: &request.labels,
        platforms: &request.platforms,
        host: Platform::host(),
        context: inputs.main_context(),
        named_contexts: &request.named_contexts,
        add_hosts: &request.add_hosts,
        network: request.network,
        allowed: &request.allowed,
        shm_size: request.shm_size,
        ulimits: &request.ulimits,
        no_cache: request.no_cache,
        no_cache_filter: &request.no_cache_filter,
        cache_version: request.cache_version.as_deref(),
        source_date_epoch: request.source_date_epoch.as_deref(),
        context_time: inputs.context_time(),
        linting,
    }
}

/// Plans, fetches what planning asks for, and plans again.
pub(super) fn plan(
    request: &BuildRequest,
    inputs: &Inputs,
    store: &Store,
    client: &Client,
    remotes: &Remotes<'_>,
    events: &dyn EventSink,
    tasks: &TaskIds,
) -> Result<Graph, Failure> {
    let plan_inputs = plan_inputs(
        request,
        inputs,
        Linting {
            ignore: inputs.ignore(),
            ..Linting::default()
        },
    );
    let resolver = Resolver {
        store,
        client,
        pull: request.pull,
    };
    let mut known = inputs.known();
    loop {
        let (planned, diagnostics) =
            plan_graph(&inputs.dockerfile, &plan_inputs, &known).map_err(|diagnostics| {
                Failure {
                    class: ExitCode::Dockerfile,
                    diagnostics: inputs.checks.wanted(diagnostics),
                }
            })?;
        let wanted = match planned {
            Planned::Ready(graph) => {
                let warned = report(inputs.checks.wanted(diagnostics), events)?;
                let warned = inputs.warned.iter().chain(&warned);
                return match inputs.checks.verdict(warned) {
                    Some(verdict) => Err(Failure::new(ExitCode::Dockerfile, verdict)),
                    None => Ok(graph),
                };
            }
            Planned::Wanted(wanted) => wanted,
        };
        for wanted in wanted {
            match wanted {
                Wanted::Base(base) => {
                    let found = resolver.resolve(&base, events, tasks).map_err(|failure| {
                        let written = base.span.map(|span| inputs.written(span));
                        let stages = inputs.dockerfile.stages.iter();
                        let stages = stages.filter_map(|stage| stage.from.value.name.as_ref());
                        let stages = stages.map(|name| &*name.value);
                        no_stage(failure, &base.key, written, stages)
                    })?;
                    known.bases.insert(base.key, found);
                }
                remote => remotes.answer(&remote, &mut known)?,
            }
        }
    }
}

/// Says of a bare name in the Dockerfile that it may have been meant for a stage.
fn no_stage<'a>(
    mut failure: Failure,
    key: &BaseKey,
    written: Option<&str>,
    stages: impl IntoIterator<Item = &'a str>,
) -> Failure {
    let Some(name) = written.filter(|name| !name.is_empty()) else {
        return failure;
    };
    if let BaseLocation::Image(image) = &key.location
        && image.registry == "docker.io"
        && image.repository.strip_prefix("library/") == Some(name)
        && let Some(first) = failure.diagnostics.first_mut()
    {
        let meant = nearest(name, stages).map(|stage| format!("; did you mean `{stage}`?"));
        let meant = meant.unwrap_or_default();
        let hint = format!("no stage is called `{name}`, so it was taken for an image{meant}");
        // What is wrong at the registry matters less where a stage is nearly called so.
        match meant.is_empty() {
            true => first.hints.push(hint),
            false => first.hints.insert(0, hint),
        }
    }
    failure
}

/// Finds an image's manifest and config: in the store, an OCI layout or a registry.
pub struct Resolver<'a> {
    pub store: &'a Store,
    pub client: &'a Client,
    /// Ask the registry even where the store has an image of the name.
    pub pull: bool,
}

impl Resolver<'_> {
    /// Returns the base, or a failure that points at where it is named.
    pub fn resolve(
        &self,
        wanted: &BaseWanted,
        events: &dyn EventSink,
        tasks: &TaskIds,
    ) -> Result<Base, Failure> {
        let found = match &wanted.key.location {
            BaseLocation::Image(image) => self.image(image, &wanted.key, events, tasks),
            BaseLocation::OciLayout { path, reference } => layout_top(path, reference.as_deref())
                .and_then(|top| {
                    self.base(&wanted.key, top, &mut |descriptor| {
                        layout_document(path, descriptor)
                    })
                }),
        };
        found.map_err(|failure| Failure {
            diagnostics: failure
                .diagnostics
                .into_iter()
                .map(|diagnostic| match wanted.span {
                    Some(span) => diagnostic.at(span),
                    None => diagnostic,
                })
                .collect(),
            ..failure
        })
    }

    /// Returns the base if it is at hand without asking anybody.
    pub fn stored(&self, wanted: &BaseWanted) -> Result<Option<Base>, Failure> {
        let BaseLocation::Image(image) = &wanted.key.location else {
            return Ok(None);
        };
        let stored = self.store.image(image);
        let Some(stored) = stored.map_err(|error| failure::store(&error))? else {
            return Ok(None);
        };
        Ok(self.of_stored(&wanted.key, stored.manifest).ok())
    }

    /// Returns the base that a manifest or index of the state directory stands for, without asking anybody.
    pub fn of_stored(&self, key: &BaseKey, top: Descriptor) -> Result<Base, Failure> {
        self.base(key, top, &mut |_: &Descriptor| {
            Err(Failure::new(
                ExitCode::Source,
                Diagnostic::error("a part of the image is not at hand")
                    .hint("`builder pull` brings a whole image; a platform that was never pulled is not there"),
            ))
        })
    }

    fn image(
        &self,
        image: &ImageRef,
        key: &BaseKey,
        events: &dyn EventSink,
        tasks: &TaskIds,
    ) -> Result<Base, Failure> {
        if !self.pull
            && let Some(stored) = self
                .store
                .image(image)
                .map_err(|error| failure::store(&error))?
        {
            let (top, client) = (stored.manifest, self.client);
            return self.base(key, top, &mut |descriptor| fetch(client, image, descriptor));
        }
        if let Some(digest) = image.digest
            && let Some(bytes) = self.document(&digest)?
        {
            let top = Descriptor {
                media_type: String::new(),
                digest,
                size: bytes.len() as u64,
            };
            return self.base(key, top, &mut |descriptor| {
                fetch(self.client, image, descriptor)
            });
        }
        let vertex = tasks.start(format!("resolve {}", image.familiar()), events);
        let found = self.ask(image).and_then(|top| {
            self.base(key, top, &mut |descriptor| {
                fetch(self.client, image, descriptor)
            })
        });
        match &found {
            Ok(_) => events.emit(Event::Finished { vertex }),
            Err(failure) => events.emit(Event::Failed {
                vertex,
                message: failure.diagnostics[0].message.clone(),
            }),
        }
        found
    }

    /// Names tags that the repository has, where the one that is asked for is not among them.
    fn tags_hint(&self, image: &ImageRef) -> Option<String> {
        const SHOWN: usize = 5;
        if image.digest.is_some() {
            return None;
        }
        // Whoever does not let tags be listed has told already that there is no such image.
        let tags = self.client.tags(image).ok()?;
        let wanted = image.tag.as_deref().unwrap_or("latest");
        let mut shown: Vec<&str> = tags.iter().map(String::as_str).collect();
        shown.sort_by(|a, b| likeness(wanted, a, b));
        let nearest = nearest(wanted, shown.iter().copied());
        shown.truncate(SHOWN);
        // A slip at the beginning.
        if let Some(nearest) = nearest.filter(|nearest| !shown.contains(nearest)) {
            shown.insert(0, nearest);
            shown.truncate(SHOWN);
        }
        let more = match tags.len().saturating_sub(shown.len()) {
            _ if shown.is_empty() => return None,
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        Some(format!(
            "the repository has no tag `{wanted}`, but these: {}{more}",
            shown.join(", ")
        ))
    }

    /// Asks the registry what a name stands for. What it stood for last time is most likely at hand, and a HEAD enough; of a name
    /// that was never asked for the manifest is wanted in any case.
    fn ask(&self, image: &ImageRef) -> Result<Descriptor, Failure> {
        let not_found = |error: crate::registry::RegistryError| {
            let what = format!("cannot find the image {}", image.familiar());
            let hint = match error.is_not_found() {
                true => self.tags_hint(image).or_else(|| error.hint()),
                false => error.hint(),
            };
            source(what, &error, hint)
        };
        let key = KeyBuilder::new("resolved")
            .add("image", &image.to_string())
            .finish();
        // Whatever goes wrong with a hint, there is none.
        let last = self.store.record(&key.0).ok().flatten();
        let last = last.map(|record| record.result.0);
        let top = match last {
            Some(_) => {
                let resolved = self.client.resolve_once(image);
                resolved.map_err(not_found)?.descriptor
            }
            None => {
                let fetched = self.client.manifest(image).map_err(not_found)?;
                self.store
                    .put_blob(&fetched.bytes)
                    .map_err(|error| failure::store(&error))?;
                fetched.descriptor
            }
        };
        if last != Some(top.digest) {
            let record = Record {
                result: ResultId(top.digest),
                layer: None,
                created: now(),
                size: 0,
                duration_ms: 0,
                description: format!("resolved: {}", image.familiar()),
                components: key.1,
                alias_of: None,
            };
            self.store
                .put_record(&key.0, &record)
                .map_err(|error| failure::store(&error))?;
        }
        Ok(top)
    }

    /// Goes from the descriptor that a name stands for to the platform's manifest and config.
    fn base(
        &self,
        key: &BaseKey,
        top: Descriptor,
        fetch: &mut dyn FnMut(&Descriptor) -> Result<Vec<u8>, Failure>,
    ) -> Result<Base, Failure> {
        let mut descriptor = top;
        let (config, layers) = loop {
            let bytes = self.document_or(&descriptor, fetch)?;
            let media_type = Some(descriptor.media_type.as_str()).filter(|text| !text.is_empty());
            match parse_manifest(&bytes, media_type)
                .map_err(|error| source("cannot use the image", &error, None))?
            {
                Manifest::Image { config, layers } => break (config, layers),
                Manifest::Index(entries) => {
                    let Some(entry) = select(&entries, &key.platform) else {
                        let offered: Vec<String> = entries
                            .iter()
                            .filter_map(|entry| entry.platform.as_ref())
                            .filter(|platform| platform.os != "unknown")
                            .map(Platform::to_string)
                            .collect();
                        return Err(Failure::new(
                            ExitCode::Source,
                            Diagnostic::error(format!(
                                "the image {} has no variant for {}",
                                name(key),
                                key.platform
                            ))
                            .hint(format!("it is made for {}", offered.join(", "))),
                        ));
                    };
                    descriptor = entry.descriptor.clone();
                }
            }
        };
        let bytes = self.document_or(&config, fetch)?;
        let config: ImageConfig =
            parse_config(&bytes).map_err(|error| source("cannot use the image", &error, None))?;
        let diff_ids = diff_ids(&config)
            .filter(|diff_ids| diff_ids.len() == layers.len())
            .ok_or_else(|| {
                Failure::new(
                    ExitCode::Source,
                    Diagnostic::error(format!(
                        "the config of image {} does not match its manifest",
                        name(key)
                    ))
                    .cause(format!(
                        "{} layers, {} diff IDs",
                        layers.len(),
                        config.rootfs.diff_ids.len()
                    )),
                )
            })?;
        let platform = Platform {
            os_version: config.os_version.clone(),
            ..Platform::new(&config.os, &config.architecture, config.variant.as_deref())
        };
        Ok(Base {
            key: key.clone(),
            manifest: descriptor.digest,
            layers: layers.into_iter().zip(diff_ids).collect(),
            config,
            platform,
        })
    }

    fn document(&self, digest: &Digest) -> Result<Option<Vec<u8>>, Failure> {
        self.store
            .read_blob(digest, DOCUMENT_LIMIT)
            .map_err(|error| failure::store(&error))
    }

    fn document_or(
        &self,
        descriptor: &Descriptor,
        fetch: &mut dyn FnMut(&Descriptor) -> Result<Vec<u8>, Failure>,
    ) -> Result<Vec<u8>, Failure> {
        if let Some(bytes) = self.document(&descriptor.digest)? {
            return Ok(bytes);
        }
        let bytes = fetch(descriptor)?;
        if Digest::of(&bytes) != descriptor.digest {
            return Err(Failure::new(
                ExitCode::Source,
                Diagnostic::error(format!(
                    "a document of the image has another digest than {}",
                    descriptor.digest
                )),
            ));
        }
        self.store
            .put_blob(&bytes)
            .map_err(|error| failure::store(&error))?;
        Ok(bytes)
    }
}

/// Gets a manifest or config from the registry.
fn fetch(client: &Client, image: &ImageRef, descriptor: &Descriptor) -> Result<Vec<u8>, Failure> {
    let failed = |error: crate::registry::RegistryError| {
        let hint = error.hint();
        source(format!("cannot pull {}", image.familiar()), &error, hint)
    };
    let is_manifest =
        descriptor.media_type.contains("manifest") || descriptor.media_type.contains("index");
    if is_manifest {
        return Ok(client
            .manifest(&image.with_digest(descriptor.digest))
            .map_err(failed)?
            .bytes);
    }
    if descriptor.size > DOCUMENT_LIMIT {
        return Err(Failure::new(
            ExitCode::Source,
            Diagnostic::error(format!(
                "the config of {} says that it has {} bytes",
                image.familiar(),
                descriptor.size
            )),
        ));
    }
    let mut bytes = Vec::new();
    let mut blob = client.blob(image, descriptor).map_err(failed)?;
    blob.read_to_end(&mut bytes)
        .map_err(|error| source(format!("cannot pull {}", image.familiar()), &error, None))?;
    Ok(bytes)
}

/// Finds what a reference stands for in an OCI layout; without one, the only image in it.
fn layout_top(path: &Path, reference: Option<&str>) -> Result<Descriptor, Failure> {
    let index_path = path.join("index.json");
    let bytes = read_document(&index_path).map_err(|error| {
        source(
            format!("cannot read the OCI layout `{}`", path.display()),
            &error,
            None,
        )
    })?;
    let wrong = |what: String| {
        Failure::new(
            ExitCode::Source,
            Diagnostic::error(format!("the OCI layout `{}` {what}", path.display())),
        )
    };
    let Manifest::Index(entries) = parse_manifest(&bytes, None)
        .map_err(|error| source("cannot read the OCI layout's index", &error, None))?
    else {
        return Err(wrong("has an index.json that is no index".to_owned()));
    };
    let named = |wanted: &str| {
        entries.iter().find(|entry| {
            let annotation = |key: &str| entry.annotations.get(key).map(String::as_str);
            entry.descriptor.digest.to_string() == wanted
                || annotation("org.opencontainers.image.ref.name") == Some(wanted)
                || annotation("io.containerd.image.name") == Some(wanted)
        })
    };
    match (reference, entries.as_slice()) {
        (Some(wanted), _) => match named(wanted) {
            Some(entry) => Ok(entry.descriptor.clone()),
            // A digest may name a manifest below the index.
            None if wanted.parse::<Digest>().is_ok() => {
                let digest = wanted.parse::<Digest>().expect("parsed a line above");
                let blob = path.join("blobs/sha256").join(digest.hex());
                let size = blob
                    .metadata()
                    .map_err(|error| source(format!("cannot find {wanted}"), &error, None))?
                    .len();
                Ok(Descriptor {
                    media_type: String::new(),
                    digest,
                    size,
                })
            }
            None => Err(wrong(format!("has no image `{wanted}`"))),
        },
        (None, [only]) => Ok(only.descriptor.clone()),
        (None, entries) => match named("latest") {
            Some(entry) => Ok(entry.descriptor.clone()),
            None => Err(wrong(format!(
                "has {} images: name one with `:TAG` or `@DIGEST`",
                entries.len()
            ))),
        },
    }
}

fn layout_document(path: &Path, descriptor: &Descriptor) -> Result<Vec<u8>, Failure> {
    let blob = path.join("blobs/sha256").join(descriptor.digest.hex());
    read_document(&blob)
        .map_err(|error| source(format!("cannot read `{}`", blob.display()), &error, None))
}

/// Reads a file of a layout. Whoever made the layout may have put a FIFO or a link to a device in its place.
fn read_document(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_layout_file(path)?
        .take(DOCUMENT_LIMIT + 1)
        .read_to_end(&mut bytes)?;
    match bytes.len() as u64 > DOCUMENT_LIMIT {
        true => Err(std::io::Error::other(
            "it is larger than a manifest or config can be",
        )),
        false => Ok(bytes),
    }
}

fn diff_ids(config: &ImageConfig) -> Option<Vec<DiffId>> {
    config
        .rootfs
        .diff_ids
        .iter()
        .map(|text| text.parse().ok().map(DiffId))
        .collect()
}

fn name(key: &BaseKey) -> String {
    match &key.location {
        BaseLocation::Image(image) => image.familiar(),
        BaseLocation::OciLayout { path, .. } => path.display().to_string(),
    }
}

fn source(
    message: impl Into<String>,
    error: &(dyn std::error::Error + 'static),
    hint: Option<String>,
) -> Failure {
    let mut diagnostic = Diagnostic::error(message).caused_by(error);
    diagnostic.hints.extend(hint);
    Failure::new(ExitCode::Source, diagnostic)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_is_thought_of_only_where_a_bare_name_was_written() {
        for (image, written, told) in [
            ("biuld", Some("biuld"), true),
            ("biuld:latest", Some("biuld:latest"), false),
            (
                "docker.io/library/biuld",
                Some("docker.io/library/biuld"),
                false,
            ),
            ("ghcr.io/biuld", Some("ghcr.io/biuld"), false),
            // `builder pull`, a variable, the FROM of a trigger.
            ("biuld", None, false),
            ("biuld", Some("$BASE"), false),
            ("biuld", Some("FROM biuld AS x"), false),
        ] {
            let key = BaseKey {
                location: BaseLocation::Image(image.parse().unwrap()),
                platform: Platform::host(),
            };
            let failure = Failure::new(ExitCode::Source, Diagnostic::error("x"));
            let hints = &no_stage(failure, &key, written, ["build"]).diagnostics[0].hints;
            assert_eq!(!hints.is_empty(), told, "{image} {written:?}");
            let names = hints.iter().any(|hint| hint.contains("mean `build`"));
            assert_eq!(names, told && image == "biuld", "{hints:?}");
        }
    }
}
