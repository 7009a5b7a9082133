//! `cache ls` and `cache prune`: of the state directory, or of places that machines share.

use std::time::{Duration, SystemTime};

use clap::{ArgAction, Args as ClapArgs, Subcommand};
use serde_json::{Value, json};

use crate::cache::upkeep::{
    Contents, Criteria, Listed, Pruned, Pruning, Scopes, Sort, State, list, prune, size_of,
};
use crate::cache::{CacheError, Place};
use crate::pipeline::Failure;
use crate::registry::{Client, Threads};
use crate::ui;
use crate::vocab::{CachePlace, CacheScope, Diagnostic, ExitCode, ImageRef, Timestamp};

use super::args::{Account, Du, Format, Global, Prune as LocalPrune};
use super::caches::{Around, Kept, kept, several};
use super::request::{bytes, duration};
use super::scope::JobScope;
use super::{print, upkeep, usage};

const REMOTE_HINT: &str = "`--remote REPOSITORY[:SCOPE]`, `--remote DIRECTORY` or `--remote s3://BUCKET/PREFIX` names one";

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List what is in a cache: of the state directory, or with --remote of a place that machines share
    Ls(List),
    /// Remove what is of no use any more from the state directory, or with --remote from a place that machines share
    Prune(Prune),
}

/// Which places.
#[derive(Debug, ClapArgs)]
struct Places {
    /// A place that machines share, named as `--cache`, `--cache-from` or `--cache-to` do; without a value those of BUILDER_CACHE and
    /// BUILDER_CACHE_TO
    #[arg(long, value_name = "SPEC", num_args = 0..=1, default_missing_value = "")]
    remote: Vec<String>,
    /// Only this scope of the place; several may be named [default: the one that SPEC names, else all]
    #[arg(long, value_name = "NAME", requires = "remote")]
    scope: Vec<String>,
    #[command(flatten)]
    account: Account,
}

#[derive(Debug, ClapArgs)]
pub(super) struct List {
    #[command(flatten)]
    places: Places,
    /// Format
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: Format,
}

#[derive(Debug, ClapArgs)]
pub(super) struct Prune {
    #[command(flatten)]
    places: Places,
    /// Keep the N most recently used entries (a RUN and a cache mount are one, a COPY is up to three; of a place: N of each scope),
    /// whatever the other flags say; alone, all others go
    #[arg(long, value_name = "N")]
    keep_last: Option<usize>,
    /// Remove the least recently used until this much is left, such as 10g
    #[arg(long, value_name = "SIZE", visible_alias = "keep")]
    max_size: Option<String>,
    /// Remove what was not used for this time, such as 24h or 7d
    #[arg(long, value_name = "DURATION")]
    older_than: Option<String>,
    /// Say what would go, and keep it
    #[arg(long)]
    dry_run: bool,
    /// Do not ask (there is no question; for scripts of other tools)
    #[arg(short, long, action = ArgAction::SetTrue)]
    force: bool,
}

pub(super) fn run(global: &Global, command: &Command) -> Result<(), Failure> {
    match command {
        Command::Ls(args) => contents(global, args),
        Command::Prune(args) => remove(global, args),
    }
}

fn contents(global: &Global, args: &List) -> Result<(), Failure> {
    let is_json = args.format == Format::Json;
    let Some(remote) = args.places.remote(global)? else {
        let du = Du {
            verify: false,
            json: is_json,
        };
        return upkeep::disk_usage(global, &du);
    };
    let now = now();
    let mut all = Vec::new();
    for (place, scopes) in &remote.places {
        let place = whole(place);
        let contents = list(&remote.client, &place, scopes, now)
            .map_err(|error| cannot("read", &name(&place), &error, ExitCode::Source))?;
        if is_json {
            all.push(as_json(&place, &contents));
            continue;
        }
        print(&format!("{}:\n", name(&place)));
        print(&ui::table(&rows(contents.listed.iter(), now)));
        print(&format!("{}\n\n", total(&contents)));
    }
    if is_json {
        print(&format!("{}\n", json!({ "places": all })));
    }
    Ok(())
}

fn remove(global: &Global, args: &Prune) -> Result<(), Failure> {
    let Some(remote) = args.places.remote(global)? else {
        let local = LocalPrune {
            all: false,
            older_than: args.older_than.clone(),
            keep: args.max_size.clone(),
            keep_last: args.keep_last,
            trees: false,
            dry_run: args.dry_run,
            force: args.force,
        };
        return upkeep::prune(global, &local);
    };
    let older_than = args.older_than.as_deref();
    let max_size = args.max_size.as_deref();
    let criteria = Criteria {
        keep_last: args.keep_last,
        max_size: max_size.map(|text| bytes("--max-size", text)).transpose()?,
        older_than: older_than
            .map(|text| duration("--older-than", text))
            .transpose()?,
    };
    if criteria == Criteria::default() {
        let mut failure = usage("nothing says what may go");
        failure.diagnostics[0].hints.push(
            "`--older-than 30d`, `--max-size 10g` or `--keep-last 100`; with `--dry-run` nothing goes yet"
                .to_owned(),
        );
        return Err(failure);
    }
    for (place, scopes) in &remote.places {
        let place = whole(place);
        let pruning = Pruning {
            scopes: scopes.clone(),
            criteria: criteria.clone(),
            dry_run: args.dry_run,
            now: now(),
        };
        let pruned = prune(&remote.client, &place, &pruning)
            .map_err(|error| cannot("read", &name(&place), &error, ExitCode::Source))?;
        tell(&place, &pruning, &pruned);
        if let Some(error) = &pruned.failure {
            return Err(cannot("prune", &name(&place), error, ExitCode::Export));
        }
    }
    Ok(())
}

/// Places that machines share, and how to reach them.
struct Remote {
    places: Vec<(CachePlace, Scopes)>,
    client: Client,
}

impl Places {
    /// Returns what is meant; `None` is the state directory.
    fn remote(&self, global: &Global) -> Result<Option<Remote>, Failure> {
        if self.remote.is_empty() {
            return Ok(None);
        }
        let mut places: Vec<(CachePlace, Scopes)> = Vec::new();
        for Kept { place, scope } in self.named()? {
            let scopes = match (self.scope.as_slice(), scope) {
                ([], Some(scope)) => Scopes::These([scope].into()),
                ([], None) => Scopes::All,
                (named, _) => {
                    Scopes::These(named.iter().map(|name| CacheScope::new(name)).collect())
                }
            };
            match places
                .iter_mut()
                .find(|(known, _)| whole(known).has_blobs_of(&whole(&place)))
            {
                Some((_, known)) => *known = known.clone().and(scopes),
                None => places.push((place, scopes)),
            }
        }
        let names: Vec<ImageRef> = places
            .iter()
            .filter_map(|(place, _)| whole(place).repository().cloned())
            .collect();
        let mut options = global.registry_options()?;
        options.accounts = self.account.of(&names)?;
        let client = Client::new(&options, Threads::Some).map_err(|error| {
            let diagnostic = Diagnostic::error("the registry settings cannot be used");
            Failure::new(ExitCode::Usage, diagnostic.caused_by(&error))
        })?;
        Ok(Some(Remote { places, client }))
    }

    fn named(&self) -> Result<Vec<Kept>, Failure> {
        let variables = |name: &str| std::env::var(name).ok();
        let around = Around {
            job: &JobScope::of(&variables),
            variables: &variables,
        };
        let mut named = Vec::new();
        for text in self.remote.iter().filter(|text| !text.is_empty()) {
            named.extend(kept("--remote", text, &around)?);
        }
        if self.remote.iter().any(String::is_empty) {
            for variable in ["BUILDER_CACHE", "BUILDER_CACHE_TO"] {
                let value = std::env::var(variable).unwrap_or_default();
                for text in several(&value) {
                    named.extend(kept(variable, text, &around)?);
                }
            }
        }
        if named.is_empty() {
            let mut failure = usage(
                "`--remote` without a value stands for the places of BUILDER_CACHE and BUILDER_CACHE_TO, and these name none",
            );
            failure.diagnostics[0].hints.push(REMOTE_HINT.to_owned());
            return Err(failure);
        }
        Ok(named)
    }
}

/// Returns a place in its entirety.
fn whole(place: &CachePlace) -> Place {
    Place::new(place, &CacheScope::default())
}

/// Returns what a place is called. A scope that its name may name is none of it.
fn name(place: &Place) -> String {
    let repository = place.repository().map(ImageRef::name);
    repository.unwrap_or_else(|| place.name().trim_matches('`').to_owned())
}

/// One line for each, below a heading.
fn rows<'a>(listed: impl Iterator<Item = &'a Listed>, now: Timestamp) -> Vec<Vec<String>> {
    let header = ["KIND", "SCOPE", "SIZE", "AGE", "LAST USE", "DESCRIPTION"];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    for listed in listed {
        let scope = listed.scope.as_str().to_owned();
        let nothing = || "-".to_owned();
        rows.push(match &listed.state {
            State::Sound(about) => vec![
                kind(listed.sort).to_owned(),
                scope,
                ui::size(size_of([listed])),
                ago(about.created, now),
                ago(about.used, now),
                clean(shown(listed.sort, &about.description)),
            ],
            State::Damaged(why) => vec![
                "damaged".to_owned(),
                scope,
                nothing(),
                nothing(),
                nothing(),
                clean(&format!("{}: it {why}", listed.name)),
            ],
            State::Foreign => vec![
                "foreign".to_owned(),
                scope,
                nothing(),
                nothing(),
                nothing(),
                clean(&listed.name),
            ],
        });
    }
    rows
}

fn total(contents: &Contents) -> String {
    let count = |wanted: fn(&Listed) -> bool| {
        let listed = contents.listed.iter();
        listed.filter(|listed| wanted(listed)).count()
    };
    let steps = count(|listed| listed.about().is_some() && listed.sort == Sort::Step);
    let mounts = count(|listed| listed.about().is_some() && listed.sort == Sort::Mount);
    let mut text = format!(
        "total: {}, {}: {}",
        counted(steps, "step"),
        counted(mounts, "cache mount"),
        ui::size(size_of(&contents.listed))
    );
    let damaged = count(|listed| matches!(listed.state, State::Damaged(_)));
    let foreign = count(|listed| matches!(listed.state, State::Foreign));
    for (count, what) in [
        (damaged, "damaged"),
        (foreign, "of other programs"),
        (contents.others, "not of the cache"),
    ] {
        if count > 0 {
            text.push_str(&format!("; {count} {what}"));
        }
    }
    text
}

fn as_json(place: &Place, contents: &Contents) -> Value {
    let entries: Vec<Value> = contents
        .listed
        .iter()
        .map(|listed| {
            let mut line = json!({
                "name": listed.name,
                "kind": kind(listed.sort),
                "scope": listed.scope.as_str(),
            });
            let more = match &listed.state {
                State::Sound(about) => json!({
                    "state": "sound",
                    "description": shown(listed.sort, &about.description),
                    "bytes": size_of([listed]),
                    "created": about.created.to_string(),
                    "lastUsed": about.used.to_string(),
                }),
                State::Damaged(why) => json!({ "state": "damaged", "why": format!("it {why}") }),
                State::Foreign => json!({ "state": "foreign" }),
            };
            if let (Some(line), Value::Object(more)) = (line.as_object_mut(), more) {
                line.extend(more);
            }
            line
        })
        .collect();
    json!({
        "place": name(place),
        "entries": entries,
        "bytes": size_of(&contents.listed),
        "others": contents.others,
    })
}

/// Says what came of pruning.
fn tell(place: &Place, pruning: &Pruning, pruned: &Pruned) {
    if pruning.dry_run && !pruned.gone.is_empty() {
        print(&ui::table(&rows(pruned.gone.iter(), pruning.now)));
    }
    let verb = match pruning.dry_run {
        true => "would remove",
        false => "removed",
    };
    let steps = counted(pruned.count(Sort::Step), "step");
    let mounts = counted(pruned.count(Sort::Mount), "cache mount");
    let size = ui::size(pruned.bytes);
    let mut text = format!("{}: {verb} {steps}, {mounts}", name(place));
    text.push_str(&match pruned.frees_later {
        true if pruned.bytes == 0 => String::new(),
        true => format!("; up to {size} for the registry's garbage collection to free"),
        false => format!(", {}: {size}", counted(pruned.blobs, "blob")),
    });
    text.push_str(&format!("; {} stay", ui::size(pruned.kept_bytes)));
    print(&format!("{text}\n"));
    if pruned.young.0 > 0 {
        print(&format!(
            "{} ({}) without an entry too new to go: a build may be about to publish\n",
            counted(pruned.young.0, "blob"),
            ui::size(pruned.young.1)
        ));
    }
    for (name, why) in &pruned.left {
        print(&format!("{name} stays: {why}\n"));
    }
    let limit = pruning.criteria.max_size;
    if limit.is_some_and(|limit| pruned.kept_bytes > limit) && pruned.failure.is_none() {
        let warning = Diagnostic::warning(format!(
            "what stays at {} is larger than --max-size",
            name(place)
        ))
        .hint("`--keep-last` keeps entries whatever their size");
        ui::report(&warning);
    }
}

fn cannot(verb: &str, place: &str, error: &CacheError, code: ExitCode) -> Failure {
    let text = format!("cannot {verb} the cache `{place}`");
    let mut diagnostic = Diagnostic::error(text).caused_by(error);
    diagnostic.hints.extend(error.hint());
    Failure::new(code, diagnostic)
}

fn kind(sort: Sort) -> &'static str {
    match sort {
        Sort::Step => "step",
        Sort::Mount => "mount",
        Sort::Trail => "trail",
    }
}

/// Returns a description as the user knows it: a mount's id has its namespace in front.
fn shown(sort: Sort, description: &str) -> &str {
    match sort {
        Sort::Step | Sort::Trail => description,
        Sort::Mount => description.strip_prefix('/').unwrap_or(description),
    }
}

fn counted(count: usize, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    }
}

/// Returns how long ago something was, in its largest unit.
fn ago(time: Timestamp, now: Timestamp) -> String {
    let seconds = now.seconds.saturating_sub(time.seconds).max(0);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// Returns the present moment: to the nanosecond, because no use of an entry counts as later than it.
fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let since: Duration = since.unwrap_or_default();
    Timestamp {
        seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        nanoseconds: since.subsec_nanos(),
    }
}

/// Makes a stranger's text fit for a terminal.
fn clean(text: &str) -> String {
    let fits = |c: char| match c.is_control() || ('\u{200e}'..='\u{202e}').contains(&c) {
        true => '?',
        false => c,
    };
    text.chars().map(fits).take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_have_one_unit() {
        for (seconds, text) in [
            (-5, "0s"),
            (59, "59s"),
            (60, "1m"),
            (7199, "1h"),
            (86_400, "1d"),
            (864_000, "10d"),
        ] {
            let now = Timestamp::from_seconds(1_000_000);
            let then = Timestamp::from_seconds(1_000_000 - seconds);
            assert_eq!(ago(then, now), text);
        }
    }

    #[test]
    fn strangers_texts_cannot_paint_the_terminal() {
        assert_eq!(clean("a\u{1b}[31mb\u{202e}c\n"), "a?[31mb?c?");
        assert_eq!(clean(&"x".repeat(1000)).len(), 200);
    }
}
