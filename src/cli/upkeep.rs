//! `prune` and `du`.

use serde_json::json;

use crate::pipeline::Failure;
use crate::sandbox::{self, Rung, SandboxError, Wanted};
use crate::store::PruneOptions;
use crate::ui;
use crate::vocab::{Diagnostic, ExitCode};

use super::args::{Du, Global, Prune};
use super::print;
use super::request::{bytes, duration};
use super::root::store_failed;

pub(super) fn prune(global: &Global, args: &Prune) -> Result<(), Failure> {
    let options = PruneOptions {
        all: args.all,
        older_than: args
            .older_than
            .as_deref()
            .map(|text| duration("--older-than", text))
            .transpose()?,
        keep_bytes: args
            .keep
            .as_deref()
            .map(|text| bytes("--keep", text))
            .transpose()?,
        keep_last: args.keep_last,
        trees: args.trees,
        dry_run: args.dry_run,
    };
    let store = global.store()?;
    // Files of layers belong to subordinate ids: they are removed from inside the namespace that made them.
    enter().map_err(|error| {
        let mut diagnostic =
            Diagnostic::error("layers cannot be removed in this environment").caused_by(&error);
        diagnostic.hints.extend(error.hint());
        Failure::new(ExitCode::Sandbox, diagnostic)
    })?;
    let pruned = store
        .prune(&options)
        .map_err(|error| store_failed(&error))?;
    let verb = if args.dry_run {
        "would remove"
    } else {
        "removed"
    };
    print(&format!(
        "{verb} {} images, {} layers, {} blobs, {} records, {} cache mounts, {} downloads: {}\n",
        pruned.images.count,
        pruned.layers.count,
        pruned.blobs.count,
        pruned.records.count,
        pruned.mounts.count,
        pruned.remotes.count,
        ui::size(pruned.bytes())
    ));
    if let Some(error) = pruned.failures.first() {
        return Err(store_failed(error));
    }
    Ok(())
}

pub(super) fn disk_usage(global: &Global, args: &Du) -> Result<(), Failure> {
    let store = global.store()?;
    // Sizes of other users' files can be read only from inside; without a namespace what is readable is counted.
    let _inside = enter();
    let usage = store.disk_usage().map_err(|error| store_failed(&error))?;
    let kinds = [
        ("images", usage.images),
        ("layers", usage.layers),
        ("cached blobs", usage.blobs),
        ("records", usage.records),
        ("contexts", usage.contexts),
        ("cache mounts", usage.mounts),
        ("downloads", usage.remotes),
        ("temporary", usage.tmp),
        ("total", usage.total()),
    ];
    if args.json {
        let kinds: Vec<_> = kinds
            .iter()
            .map(|(name, kind)| {
                json!({ "kind": name, "count": kind.count, "bytes": kind.bytes, "reclaimable": kind.reclaimable })
            })
            .collect();
        print(&format!("{}\n", json!({ "kinds": kinds })));
    } else {
        let mut rows = vec![
            ["KIND", "COUNT", "SIZE", "RECLAIMABLE"]
                .map(str::to_owned)
                .to_vec(),
        ];
        for (name, kind) in kinds {
            let cells = [
                name.to_owned(),
                kind.count.to_string(),
                ui::size(kind.bytes),
                ui::size(kind.reclaimable),
            ];
            rows.push(cells.to_vec());
        }
        print(&ui::table(&rows));
    }
    if args.verify {
        let problems = store.verify().map_err(|error| store_failed(&error))?;
        for problem in &problems {
            print(&format!("damaged: {problem}\n"));
        }
        if !problems.is_empty() {
            let diagnostic = Diagnostic::error(format!(
                "{} things in the state directory are damaged",
                problems.len()
            ))
            .hint("`builder prune` removes what is damaged");
            return Err(Failure::new(ExitCode::Store, diagnostic));
        }
        print("everything in the state directory is sound\n");
    }
    Ok(())
}

/// Enters whatever sandbox there can be.
fn enter() -> Result<Rung, SandboxError> {
    sandbox::enter(&sandbox::choose(&Wanted::default())?)
}
