//! `ls`, `cat`, `diff`: the files of images.

use clap::Args as ClapArgs;
use serde_json::{Value, json};

use crate::pipeline::{self, Failure, Sight, Subject, View};
use crate::rootfs::{Aspect, Change, Difference, Digests, Listed, ListedKind, aspects, compare};
use crate::store::Store;
use crate::ui;
use crate::vocab::{Digest, Platform, ProgressMode, Timestamp, size};

use super::args::{Account, Format, Global, Images};
use super::{images, print, run, usage};

/// Which variant of an image, and how its registry is asked.
#[derive(Debug, ClapArgs)]
pub(super) struct Variant {
    /// Platform [default: this machine's]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
    #[command(flatten)]
    account: Account,
}

/// `builder ls`
#[derive(Debug, ClapArgs)]
pub(super) struct Ls {
    /// Show type, mode, owner, size, time and where links lead
    #[arg(short, long, requires = "image")]
    long: bool,
    /// Show what is in directories below too
    #[arg(short = 'R', long, requires = "image")]
    recursive: bool,
    #[command(flatten)]
    variant: Variant,
    #[command(flatten)]
    images: Images,
    /// Image: a name, or at least four digits of a digest; or the whole digest of a layer
    #[arg(value_name = "IMAGE", conflicts_with_all = ["no_trunc", "quiet", "json"])]
    image: Option<String>,
    /// Directory or file [default: /]
    #[arg(value_name = "PATH", default_value = "/", hide_default_value = true)]
    path: String,
}

/// `builder cat`
#[derive(Debug, ClapArgs)]
pub(super) struct Cat {
    #[command(flatten)]
    variant: Variant,
    /// Image: a name, or at least four digits of a digest; or the whole digest of a layer
    #[arg(value_name = "IMAGE")]
    image: String,
    /// File; links are followed inside the image
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<String>,
}

/// `builder diff`
#[derive(Debug, ClapArgs)]
pub(super) struct Diff {
    #[command(flatten)]
    variant: Variant,
    /// Format
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: Format,
    /// Image: a name, or at least four digits of a digest; or the whole digest of a layer
    #[arg(value_name = "IMAGE")]
    before: String,
    /// The other
    #[arg(value_name = "OTHER")]
    after: String,
    /// Compare this file, or what is in this directory [default: /]
    #[arg(value_name = "PATH", default_value = "/", hide_default_value = true)]
    path: String,
}

pub(super) fn list(global: &Global, args: &Ls) -> Result<(), Failure> {
    let Some(image) = &args.image else {
        return images::list(global, &args.images);
    };
    let store = global.store()?;
    let view = view(global, &store, image, &args.variant, Digests::Left)?;
    let at = view.resolve(args.path.as_bytes())?;
    let listing = view.listing();
    let itself = listing.get(&at).map(|listed| (at.as_slice(), listed));
    let (shown, itself): (Box<dyn Iterator<Item = _>>, _) = match itself {
        Some((_, listed)) if listed.is_directory() && args.recursive => {
            (Box::new(listing.below(&at)), false)
        }
        Some((_, listed)) if listed.is_directory() => (Box::new(listing.children(&at)), false),
        itself => (Box::new(itself.into_iter()), true),
    };
    // Names in a directory are shown without it, and everything else as it is found again.
    let skipped = match (itself || args.recursive, at.len()) {
        (true, _) | (false, 0) => 0,
        (false, length) => length + 1,
    };
    let slash = match itself || args.recursive {
        true => "/",
        false => "",
    };
    let name = |path: &[u8]| format!("{slash}{}", printable(&path[skipped..]));
    let mut text = String::new();
    if args.long {
        let rows: Vec<Vec<String>> = shown
            .map(|(path, listed)| row(&name(path), listed))
            .collect();
        text = ui::table(&rows);
    } else {
        for (path, _) in shown {
            text.push_str(&name(path));
            text.push('\n');
        }
    }
    print(&text);
    Ok(())
}

pub(super) fn cat(global: &Global, args: &Cat) -> Result<(), Failure> {
    let store = global.store()?;
    let view = view(global, &store, &args.image, &args.variant, Digests::Left)?;
    let mut out = std::io::stdout().lock();
    for path in &args.paths {
        view.write(path.as_bytes(), &mut out)?;
    }
    // A reader that went away has enough.
    drop(std::io::Write::flush(&mut out));
    Ok(())
}

pub(super) fn diff(global: &Global, args: &Diff) -> Result<(), Failure> {
    let store = global.store()?;
    let one = |text: &str| view(global, &store, text, &args.variant, Digests::Taken);
    let (before, after) = (one(&args.before)?, one(&args.after)?);
    // It may be in one of them alone, and there behind a link.
    let path = before
        .listing()
        .resolve(args.path.as_bytes())
        .or_else(|_| after.resolve(args.path.as_bytes()))?;
    let differences = compare(before.listing(), after.listing(), &path);
    let total = |view: &View<'_>| -> u64 {
        let itself = view.listing().get(&path).into_iter();
        let below = view.listing().below(&path).map(|(_, listed)| listed);
        itself.chain(below).map(bytes).sum()
    };
    let (old, new) = (total(&before), total(&after));
    print(&match args.format {
        Format::Text => text_of(&differences, old, new),
        Format::Json => format!("{}\n", json_of(&differences, old, new)),
    });
    Ok(())
}

/// Reads an image's names.
fn view<'a>(
    global: &Global,
    store: &'a Store,
    text: &str,
    variant: &Variant,
    digests: Digests,
) -> Result<View<'a>, Failure> {
    let platform = match &variant.platform {
        Some(text) => text
            .parse()
            .map_err(|error: crate::vocab::PlatformError| usage(error.to_string()))?,
        None => Platform::host(),
    };
    let sight = sight(store, text)?;
    let mut options = global.registry_options()?;
    if let Sight::Image(Subject::Named(name)) = &sight {
        options.accounts = variant.account.of(std::slice::from_ref(name))?;
    }
    let display = ui::display(ProgressMode::Quiet);
    pipeline::look(
        store,
        &options,
        &sight,
        &platform,
        digests,
        display.as_ref(),
    )
}

/// Finds an image, or a layer by its whole digest.
fn sight(store: &Store, text: &str) -> Result<Sight, Failure> {
    let found = run::subject(store, text, false);
    if let Ok(digest) = text.parse::<Digest>()
        && !matches!(found, Ok(Subject::Stored { .. }))
        && store.blob_size(&digest).is_some()
    {
        return Ok(Sight::Layer(digest));
    }
    found.map(Sight::Image)
}

/// Returns the columns of a long listing.
fn row(name: &str, listed: &Listed) -> Vec<String> {
    let extent = match &listed.kind {
        ListedKind::File { size: bytes, .. } => size(*bytes),
        ListedKind::CharDevice { major, minor } | ListedKind::BlockDevice { major, minor } => {
            format!("{major},{minor}")
        }
        _ => "-".to_owned(),
    };
    let time = Timestamp::from_seconds(listed.mtime.seconds).to_string();
    let time: String = time.chars().take(16).collect();
    let name = match &listed.kind {
        ListedKind::Symlink { target } => format!("{name} -> {}", printable(target)),
        _ => name.to_owned(),
    };
    vec![
        format!("{}{}", letter(listed), permissions(listed.mode)),
        format!("{}:{}", listed.uid, listed.gid),
        extent,
        time.replace('T', " "),
        name,
    ]
}

fn letter(listed: &Listed) -> char {
    match listed.kind {
        ListedKind::File { .. } => '-',
        ListedKind::Directory => 'd',
        ListedKind::Symlink { .. } => 'l',
        ListedKind::CharDevice { .. } => 'c',
        ListedKind::BlockDevice { .. } => 'b',
        ListedKind::Fifo => 'p',
    }
}

/// Shows a mode as `ls` does.
fn permissions(mode: u32) -> String {
    let mut text = String::new();
    for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (mode & special != 0, bits & 1 != 0) {
            (true, true) => letter,
            (true, false) => letter.to_ascii_uppercase(),
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    text
}

/// Returns a name that does nothing to a terminal.
fn printable(name: &[u8]) -> String {
    let mut text = String::new();
    for chunk in name.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c.is_control() || c == '\\' {
                true => text.extend(c.escape_default()),
                false => text.push(c),
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

fn bytes(listed: &Listed) -> u64 {
    match listed.kind {
        ListedKind::File { size, .. } => size,
        _ => 0,
    }
}

fn text_of(differences: &[Difference<'_>], old: u64, new: u64) -> String {
    let mut text = String::new();
    let (mut added, mut deleted, mut changed) = ((0, 0), (0, 0), 0);
    for difference in differences {
        let path = printable(difference.path);
        let extent = |listed: &Listed| match listed.kind {
            ListedKind::File { size: bytes, .. } => format!(" ({})", size(bytes)),
            ListedKind::Directory => "/".to_owned(),
            _ => String::new(),
        };
        match difference.change {
            Change::Added(listed) => {
                added = (added.0 + 1, added.1 + bytes(listed));
                text.push_str(&format!("A /{path}{}\n", extent(listed)));
            }
            Change::Deleted(listed) => {
                deleted = (deleted.0 + 1, deleted.1 + bytes(listed));
                text.push_str(&format!("D /{path}{}\n", extent(listed)));
            }
            Change::Changed { before, after } => {
                changed += 1;
                let what: Vec<String> = aspects(before, after)
                    .into_iter()
                    .map(|aspect| told(aspect, before, after))
                    .collect();
                text.push_str(&format!("C /{path}: {}\n", what.join(", ")));
            }
        }
    }
    text.push_str(&format!(
        "{} added ({}), {} deleted ({}), {changed} changed; {} -> {}\n",
        added.0,
        size(added.1),
        deleted.0,
        size(deleted.1),
        size(old),
        size(new)
    ));
    text
}

/// Says one thing that has changed.
fn told(aspect: Aspect, before: &Listed, after: &Listed) -> String {
    let target = |listed: &Listed| match &listed.kind {
        ListedKind::Symlink { target } => printable(target),
        _ => String::new(),
    };
    let device = |listed: &Listed| match listed.kind {
        ListedKind::CharDevice { major, minor } | ListedKind::BlockDevice { major, minor } => {
            format!("{major},{minor}")
        }
        _ => String::new(),
    };
    match aspect {
        Aspect::Type => format!("type {} -> {}", kind(before), kind(after)),
        Aspect::Content if bytes(before) == bytes(after) => {
            format!("content ({})", size(bytes(after)))
        }
        Aspect::Content => format!(
            "content ({} -> {})",
            size(bytes(before)),
            size(bytes(after))
        ),
        Aspect::Target => format!("target {} -> {}", target(before), target(after)),
        Aspect::Device => format!("device {} -> {}", device(before), device(after)),
        Aspect::Mode => format!("mode {:04o} -> {:04o}", before.mode, after.mode),
        Aspect::Owner => format!(
            "owner {}:{} -> {}:{}",
            before.uid, before.gid, after.uid, after.gid
        ),
        Aspect::Attributes => "attributes".to_owned(),
    }
}

fn kind(listed: &Listed) -> &'static str {
    match listed.kind {
        ListedKind::File { .. } => "file",
        ListedKind::Directory => "directory",
        ListedKind::Symlink { .. } => "link",
        ListedKind::CharDevice { .. } => "character device",
        ListedKind::BlockDevice { .. } => "block device",
        ListedKind::Fifo => "fifo",
    }
}

fn json_of(differences: &[Difference<'_>], old: u64, new: u64) -> Value {
    let described = |listed: &Listed| {
        let mut value = json!({
            "type": kind(listed),
            "mode": format!("{:04o}", listed.mode),
            "uid": listed.uid,
            "gid": listed.gid,
        });
        match &listed.kind {
            ListedKind::File { size, .. } => value["size"] = json!(size),
            ListedKind::Symlink { target } => {
                value["target"] = json!(String::from_utf8_lossy(target));
            }
            _ => {}
        }
        value
    };
    let changes: Vec<Value> = differences
        .iter()
        .map(|difference| {
            let path = format!("/{}", String::from_utf8_lossy(difference.path));
            match difference.change {
                Change::Added(listed) => {
                    json!({ "path": path, "change": "added", "after": described(listed) })
                }
                Change::Deleted(listed) => {
                    json!({ "path": path, "change": "deleted", "before": described(listed) })
                }
                Change::Changed { before, after } => {
                    let what = aspects(before, after)
                        .into_iter()
                        .map(|aspect| match aspect {
                            Aspect::Type => "type",
                            Aspect::Content => "content",
                            Aspect::Target => "target",
                            Aspect::Device => "device",
                            Aspect::Mode => "mode",
                            Aspect::Owner => "owner",
                            Aspect::Attributes => "attributes",
                        });
                    json!({
                        "path": path,
                        "change": "changed",
                        "what": what.collect::<Vec<_>>(),
                        "before": described(before),
                        "after": described(after),
                    })
                }
            }
        })
        .collect();
    json!({ "changes": changes, "bytes": { "before": old, "after": new } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_shown_as_ls_does() {
        for (mode, text) in [
            (0o755, "rwxr-xr-x"),
            (0o640, "rw-r-----"),
            (0o4755, "rwsr-xr-x"),
            (0o2644, "rw-r-Sr--"),
            (0o1777, "rwxrwxrwt"),
            (0o1776, "rwxrwxrwT"),
        ] {
            assert_eq!(permissions(mode), text);
        }
    }

    #[test]
    fn names_do_nothing_to_a_terminal() {
        assert_eq!(printable("ä\x1b[31m\n".as_bytes()), "ä\\u{1b}[31m\\n");
        assert_eq!(printable(b"a\xffb\\"), "a\\xffb\\\\");
    }
}
