//! `manifest create`, `append`, `inspect`, `push`, `referrers`.

use clap::{Args as ClapArgs, Subcommand};
use serde_json::{Value, json};

use crate::image::Listing;
use crate::pipeline::{Failure, Indexing, ListSource, NewIndex, appended_otherwise, listed};
use crate::registry::{Appended, Client, Fetched, RegistryError, Threads};
use crate::store::Store;
use crate::ui;
use crate::vocab::{Diagnostic, ExitCode, ImageRef, Platform, ProgressMode, RegistryOptions};

use super::args::{Account, Global, Push};
use super::output::{append_to, tagged};
use super::request::image;
use super::root::store_failed;
use super::{print, print_bytes, registry, usage};

/// No index is larger.
const INDEX_LIMIT: u64 = 8 << 20;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make an index of images, in the state directory or at its registry
    Create(Create),
    /// Add images to an index of the state directory, which is made if it does not exist
    Add(Add),
    /// Add images to the index under a tag; any number of jobs may do so at the same time
    Append(Append),
    /// Show an index as its registry has it
    Inspect(Inspect),
    /// Send an index of the state directory to its registry
    Push(Push),
    /// List what is attached to an image: SBOMs, provenance, signatures
    Referrers(Referrers),
}

#[derive(Debug, ClapArgs)]
pub(super) struct Create {
    /// Name of the index
    #[arg(value_name = "REF")]
    name: String,
    /// Images or indexes to list: of the state directory, else of their registries
    #[arg(value_name = "SOURCE", required = true)]
    sources: Vec<String>,
    /// Write it straight to its registry and keep nothing here
    #[arg(long)]
    push: bool,
    #[command(flatten)]
    account: Account,
    /// Ask the registry for each source, even where it is in the state directory
    #[arg(long)]
    pull: bool,
    /// Add an annotation to the index
    #[arg(long, value_name = "KEY=VALUE")]
    annotation: Vec<String>,
    /// Print the digest only
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Debug, ClapArgs)]
pub(super) struct Add {
    /// Name of the index
    #[arg(value_name = "REF")]
    name: String,
    /// Images or indexes to add: of the state directory, else of their registries
    #[arg(value_name = "SOURCE", required = true)]
    sources: Vec<String>,
    #[command(flatten)]
    account: Account,
    /// Ask the registry for each source, even where it is in the state directory
    #[arg(long)]
    pull: bool,
    /// Add an annotation to the index
    #[arg(long, value_name = "KEY=VALUE")]
    annotation: Vec<String>,
    /// Print the digest only
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Debug, ClapArgs)]
pub(super) struct Append {
    /// The index's name at its registry; made if it does not exist
    #[arg(value_name = "REF")]
    name: String,
    /// Images or indexes to add: of the state directory, else of their registries
    #[arg(value_name = "SOURCE", required = true)]
    sources: Vec<String>,
    /// Leave out of the index what other runs have put there, such as $CI_PIPELINE_ID
    #[arg(long, value_name = "ID")]
    run: Option<String>,
    /// Write the index only when all of these platforms are there
    #[arg(long, value_name = "PLATFORM", value_delimiter = ',')]
    expect: Vec<String>,
    #[command(flatten)]
    account: Account,
    /// Ask the registry for each source, even where it is in the state directory
    #[arg(long)]
    pull: bool,
    /// Add an annotation to the index
    #[arg(long, value_name = "KEY=VALUE")]
    annotation: Vec<String>,
    /// Print the digest only
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Debug, ClapArgs)]
pub(super) struct Inspect {
    /// Name of an index or image
    #[arg(value_name = "REF")]
    name: String,
    /// Show the one of the state directory
    #[arg(long)]
    local: bool,
    #[command(flatten)]
    account: Account,
    /// Show a table instead of the document
    #[arg(long)]
    table: bool,
}

#[derive(Debug, ClapArgs)]
pub(super) struct Referrers {
    /// Name of an index or image
    #[arg(value_name = "REF")]
    name: String,
    #[command(flatten)]
    account: Account,
    /// Of an index, the image for this platform
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
    /// List what is of this type only
    #[arg(long, value_name = "TYPE")]
    artifact_type: Option<String>,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

pub(super) fn run(global: &Global, command: &Command) -> Result<(), Failure> {
    match command {
        Command::Create(args) => create(global, args),
        Command::Add(args) => add(global, args),
        Command::Append(args) => append(global, args),
        Command::Inspect(args) => inspect(global, args),
        Command::Push(args) => registry::push(global, args),
        Command::Referrers(args) => referrers(global, args),
    }
}

fn add(global: &Global, args: &Add) -> Result<(), Failure> {
    let store = global.store()?;
    let name = image(&args.name)?;
    tagged(&name)?;
    let sources = sources(&store, &args.sources, args.pull)?;
    let annotations = annotations(&args.annotation)?;
    let display = ui::display(progress(args.quiet));
    let used: Vec<ImageRef> = sources.iter().filter_map(of_registry).collect();
    let options = options(global, &args.account, &used)?;
    let indexing = Indexing::new(&store, &options, display.as_ref())?;
    let index = indexing.add(&name, &sources, &annotations)?;
    print(&match args.quiet {
        true => format!("{}\n", index.digest),
        false => format!("{}@{}\n", name.name(), index.digest),
    });
    Ok(())
}

fn create(global: &Global, args: &Create) -> Result<(), Failure> {
    let store = global.store()?;
    let name = image(&args.name)?;
    tagged(&name)?;
    let sources = sources(&store, &args.sources, args.pull)?;
    let annotations = annotations(&args.annotation)?;
    let display = ui::display(progress(args.quiet));
    // What is not pushed only reads what it lists.
    let used: Vec<ImageRef> = match args.push {
        true => vec![name.clone()],
        false => sources.iter().filter_map(of_registry).collect(),
    };
    let options = options(global, &args.account, &used)?;
    let indexing = Indexing::new(&store, &options, display.as_ref())?;
    let to = match args.push {
        true => NewIndex::Registry,
        false => NewIndex::Store,
    };
    let index = indexing.create(&name, &sources, &annotations, to)?;
    print(&match args.quiet {
        true => format!("{}\n", index.digest),
        false => format!("{}@{}\n", name.name(), index.digest),
    });
    Ok(())
}

fn append(global: &Global, args: &Append) -> Result<(), Failure> {
    let store = global.store()?;
    let mut to = append_to(&args.name)?;
    if let Some(run) = &args.run {
        if run.is_empty() {
            return Err(usage("`--run` must not be empty"));
        }
        to.run = Some(run.clone());
    }
    for text in &args.expect {
        to.expect.push(platform(text)?);
    }
    let sources = sources(&store, &args.sources, args.pull)?;
    let annotations = annotations(&args.annotation)?;
    let display = ui::display(progress(args.quiet));
    let options = options(global, &args.account, std::slice::from_ref(&to.image))?;
    let indexing = Indexing::new(&store, &options, display.as_ref())?;
    let appended = indexing.append(&to, &sources, &annotations)?;
    for warning in appended_otherwise(&to.image, &appended) {
        ui::report(&warning);
    }
    print(&match (&appended, args.quiet) {
        (Appended::Published { index, .. }, true) => format!("{}\n", index.digest),
        (Appended::Published { index, .. }, false) => {
            format!("{}@{}\n", to.image.name(), index.digest)
        }
        (Appended::Waiting { .. }, true) => String::new(),
        (Appended::Waiting { missing }, false) => format!("waiting for {}\n", listed(missing)),
    });
    Ok(())
}

fn inspect(global: &Global, args: &Inspect) -> Result<(), Failure> {
    let name = image(&args.name)?;
    let (media_type, bytes) = if args.local {
        let store = global.store()?;
        let stored = super::images::find(&store, &args.name)?;
        let bytes = store
            .read_blob(&stored.manifest.digest, INDEX_LIMIT)
            .map_err(|error| store_failed(&error))?
            .unwrap_or_default();
        (stored.manifest.media_type, bytes)
    } else {
        let fetched = standing(&client(global, &args.account, &name)?, &name)?;
        (fetched.descriptor.media_type, fetched.bytes)
    };
    if !args.table {
        print_bytes(&bytes);
        if !bytes.ends_with(b"\n") {
            print("\n");
        }
        return Ok(());
    }
    let header = ["PLATFORM", "DIGEST", "SIZE", "TYPE"];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    let listing = Listing::parse(&bytes, Some(&media_type)).map_err(|error| {
        Failure::new(
            ExitCode::Source,
            Diagnostic::error(format!("{} cannot be shown as a table", name.familiar()))
                .caused_by(&error)
                .hint("without `--table` the document itself is shown"),
        )
    })?;
    let Some(listing) = listing else {
        return Err(usage(format!("{} is no index", name.familiar())));
    };
    for entry in listing.entries() {
        let shown = match (entry.about(), entry.platform()) {
            (Some(about), _) => format!("about {}", &about.hex()[..12]),
            (None, Some(platform)) => match &platform.os_version {
                Some(version) => format!("{platform} {version}"),
                None => platform.to_string(),
            },
            (None, None) => "-".to_owned(),
        };
        rows.push(vec![
            clean(&shown),
            entry.descriptor().digest.to_string(),
            entry.descriptor().size.to_string(),
            clean(&entry.descriptor().media_type),
        ]);
    }
    print(&ui::table(&rows));
    Ok(())
}

fn referrers(global: &Global, args: &Referrers) -> Result<(), Failure> {
    let name = image(&args.name)?;
    let client = client(global, &args.account, &name)?;
    let digest = match (name.digest, &args.platform) {
        (Some(digest), None) => digest,
        (_, None) => standing(&client, &name)?.descriptor.digest,
        (_, Some(text)) => {
            let wanted = platform(text)?;
            let fetched = standing(&client, &name)?;
            let listing = Listing::parse(&fetched.bytes, Some(&fetched.descriptor.media_type));
            let entries = listing.ok().flatten();
            let entries = entries.iter().flat_map(Listing::entries);
            let found = entries
                .filter(|entry| entry.platform() == Some(&wanted))
                .map(|entry| entry.descriptor().digest)
                .next();
            found.ok_or_else(|| {
                Failure::new(
                    ExitCode::Source,
                    Diagnostic::error(format!("{} has no image for {wanted}", name.familiar())),
                )
            })?
        }
    };
    let found = client
        .referrers(&name, &digest, args.artifact_type.as_deref())
        .map_err(|error| cannot(&name, &error))?;
    if args.json {
        for referrer in found {
            let line: Value = json!({
                "digest": referrer.descriptor.digest.to_string(),
                "mediaType": referrer.descriptor.media_type,
                "size": referrer.descriptor.size,
                "artifactType": referrer.artifact_type,
                "annotations": referrer.annotations,
            });
            print(&format!("{line}\n"));
        }
        return Ok(());
    }
    let mut rows = vec![["DIGEST", "SIZE", "TYPE"].map(str::to_owned).to_vec()];
    for referrer in found {
        rows.push(vec![
            referrer.descriptor.digest.to_string(),
            referrer.descriptor.size.to_string(),
            clean(referrer.artifact_type.as_deref().unwrap_or("-")),
        ]);
    }
    print(&ui::table(&rows));
    Ok(())
}

/// Finds each source: in the state directory, else at its registry. A digest says exactly what is meant, so the registry's own copy
/// is as good and need not be sent.
fn sources(store: &Store, texts: &[String], pull: bool) -> Result<Vec<ListSource>, Failure> {
    let source = |text: &String| {
        let is_digest = text.starts_with("sha256:");
        if is_digest {
            return super::images::find(store, text).map(ListSource::Stored);
        }
        let name = image(text.strip_prefix("docker://").unwrap_or(text))?;
        if !pull && name.digest.is_none() {
            let stored = store.image(&name).map_err(|error| store_failed(&error))?;
            if let Some(stored) = stored {
                return Ok(ListSource::Stored(stored));
            }
        }
        Ok(ListSource::Registry(name))
    };
    texts.iter().map(source).collect()
}

/// Returns the name of a source that its registry has.
fn of_registry(source: &ListSource) -> Option<ImageRef> {
    match source {
        ListSource::Registry(name) => Some(name.clone()),
        ListSource::Stored(_) => None,
    }
}

fn annotations(texts: &[String]) -> Result<Vec<(String, String)>, Failure> {
    let pair = |text: &String| {
        let text = text.strip_prefix("index:").unwrap_or(text);
        match text.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
            _ => Err(usage(format!("`--annotation {text}` is not KEY=VALUE"))),
        }
    };
    texts.iter().map(pair).collect()
}

fn platform(text: &str) -> Result<Platform, Failure> {
    text.parse()
        .map_err(|error: crate::vocab::PlatformError| usage(error.to_string()))
}

fn progress(quiet: bool) -> ProgressMode {
    match quiet {
        true => ProgressMode::Quiet,
        false => ProgressMode::Auto,
    }
}

/// Returns the registry settings, with the account for the registry of `names`.
fn options(
    global: &Global,
    account: &Account,
    names: &[ImageRef],
) -> Result<RegistryOptions, Failure> {
    let mut options = global.registry_options()?;
    options.accounts = account.of(names)?;
    Ok(options)
}

fn client(global: &Global, account: &Account, name: &ImageRef) -> Result<Client, Failure> {
    let options = options(global, account, std::slice::from_ref(name))?;
    Client::new(&options, Threads::None).map_err(|error| {
        let diagnostic = Diagnostic::error("the registry settings cannot be used");
        Failure::new(ExitCode::Usage, diagnostic.caused_by(&error))
    })
}

/// Reads what a name stands for at its registry.
fn standing(client: &Client, name: &ImageRef) -> Result<Fetched, Failure> {
    let standing = client.standing(name);
    standing
        .map_err(|error| cannot(name, &error))?
        .ok_or_else(|| {
            let text = format!("the registry has no {}", name.familiar());
            Failure::new(ExitCode::Source, Diagnostic::error(text))
        })
}

fn cannot(name: &ImageRef, error: &RegistryError) -> Failure {
    let text = format!("cannot read {}", name.familiar());
    let mut diagnostic = Diagnostic::error(text).caused_by(error);
    diagnostic.hints.extend(error.hint());
    Failure::new(ExitCode::Source, diagnostic)
}

/// Makes a stranger's text fit for a terminal.
fn clean(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c.is_ascii_graphic() || c == ' ' {
                c
            } else {
                '?'
            }
        })
        .take(100)
        .collect()
}
