//! `--cache`, `--cache-from` and `--cache-to` as what they mean together.

use std::path::{Path, PathBuf};

use crate::pipeline::Failure;
use crate::vocab::{CacheFrom, CacheMode, CachePlace, CacheScope, CacheTo, Compression, ImageRef};

use super::args::Caches;
use super::fields::Fields;
use super::request::image;

const TYPES: &str = "types are registry, local and (for `--cache-to`) inline";

/// Returns the caches that are read and those that are written.
pub(super) fn caches(args: &Caches) -> Result<(Vec<CacheFrom>, Vec<CacheTo>), Failure> {
    let (mut from, mut to) = (Vec::new(), Vec::new());
    for text in args.cache.iter().filter(|text| !text.is_empty()) {
        let (place, scope) = short(text)?;
        from.push(CacheFrom {
            place: place.clone(),
            scope: scope.clone(),
        });
        to.push(CacheTo::Place {
            place,
            scope,
            mode: CacheMode::Max,
            compression: Compression::default(),
            ignore_error: false,
        });
    }
    for text in args.cache_from.iter().filter(|text| !text.is_empty()) {
        from.push(cache_from(text)?);
    }
    for text in args.cache_to.iter().filter(|text| !text.is_empty()) {
        to.push(cache_to(text)?);
    }
    Ok((from, to))
}

/// Reads `REPOSITORY[:SCOPE]` or a directory: what looks like a path, or is one.
fn short(text: &str) -> Result<(CachePlace, CacheScope), Failure> {
    let is_path = text.starts_with(['/', '.', '~']) || Path::new(text).is_dir();
    if let Some(path) = text.strip_prefix("dir:") {
        return Ok((directory(path), CacheScope::default()));
    }
    if is_path {
        return Ok((directory(text), CacheScope::default()));
    }
    registry(text.strip_prefix("registry:").unwrap_or(text))
}

fn directory(path: &str) -> CachePlace {
    CachePlace::Directory {
        path: PathBuf::from(path),
    }
}

/// The tag is the scope: whoever names none gets the one that all share.
fn registry(text: &str) -> Result<(CachePlace, CacheScope), Failure> {
    let image: ImageRef = image(text)?;
    let scope = match image.tag.as_deref() {
        None | Some("latest") => CacheScope::default(),
        Some(tag) => CacheScope::new(tag),
    };
    Ok((CachePlace::Registry { image }, scope))
}

fn cache_from(text: &str) -> Result<CacheFrom, Failure> {
    if !text.contains('=') {
        let (place, scope) = short(text)?;
        return Ok(CacheFrom { place, scope });
    }
    let mut fields = Fields::parse("--cache-from", text)?;
    let (place, scope) = match fields.kind()?.as_str() {
        "registry" => registry(&fields.need("ref")?)?,
        "local" => (directory(&fields.need("src")?), CacheScope::default()),
        "inline" => {
            return Err(fields.refuse_with(
                "records inside images are read by the image's name",
                "`--cache-from type=registry,ref=IMAGE`",
            ));
        }
        other => return Err(unknown(&fields, other)),
    };
    let scope = named_scope(&mut fields, scope);
    fields.done()?;
    Ok(CacheFrom { place, scope })
}

fn cache_to(text: &str) -> Result<CacheTo, Failure> {
    if !text.contains('=') {
        let (place, scope) = short(text)?;
        return Ok(CacheTo::Place {
            place,
            scope,
            mode: CacheMode::Min,
            compression: Compression::default(),
            ignore_error: false,
        });
    }
    let mut fields = Fields::parse("--cache-to", text)?;
    let (place, scope) = match fields.kind()?.as_str() {
        "registry" => registry(&fields.need("ref")?)?,
        "local" => (directory(&fields.need("dest")?), CacheScope::default()),
        "inline" => {
            if fields.take("mode").is_some_and(|mode| mode == "max") {
                return Err(fields.refuse_with(
                    "an image holds the layers of its own steps only",
                    "for those of all steps: `--cache-to type=registry,ref=REPOSITORY,mode=max`",
                ));
            }
            fields.done()?;
            return Ok(CacheTo::Inline);
        }
        other => return Err(unknown(&fields, other)),
    };
    let scope = named_scope(&mut fields, scope);
    let mode = match fields.take("mode").as_deref() {
        None | Some("min") => CacheMode::Min,
        Some("max") => CacheMode::Max,
        Some(other) => {
            return Err(fields.refuse_with(
                &format!("there is no mode `{other}`"),
                "modes are min (layers of the result) and max (layers of all steps)",
            ));
        }
    };
    let compression = fields.compression()?;
    let ignore_error = fields.flag("ignore-error", false)?;
    for (name, only) in [
        ("oci-mediatypes", true),
        ("image-manifest", true),
        ("force-compression", false),
    ] {
        if fields.flag(name, only)? != only {
            return Err(fields.refuse_with(
                &format!("{name}={} is not supported", !only),
                "entries are OCI image manifests, with layers as outputs have them",
            ));
        }
    }
    fields.done()?;
    Ok(CacheTo::Place {
        place,
        scope,
        mode,
        compression,
        ignore_error,
    })
}

fn named_scope(fields: &mut Fields<'_>, scope: CacheScope) -> CacheScope {
    let named = fields.take("scope").filter(|name| !name.is_empty());
    named.map_or(scope, |name| CacheScope::new(&name))
}

fn unknown(fields: &Fields<'_>, kind: &str) -> Failure {
    fields.refuse_with(&format!("there is no type `{kind}`"), TYPES)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(cache: &[&str], from: &[&str], to: &[&str]) -> Caches {
        let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        Caches {
            cache: owned(cache),
            cache_from: owned(from),
            cache_to: owned(to),
        }
    }

    #[test]
    fn places_and_scopes() {
        let place = |text: &str| match short(text).unwrap() {
            (CachePlace::Registry { image }, scope) => {
                format!("registry {} {}", image.name(), scope.as_str())
            }
            (CachePlace::Directory { path }, scope) => {
                format!("directory {} {}", path.display(), scope.as_str())
            }
        };
        let check = |text: &str, expected: &str| assert_eq!(place(text), expected, "{text}");
        check("reg.io/a/cache", "registry reg.io/a/cache cache");
        check("reg.io/a/cache:main", "registry reg.io/a/cache main");
        check("registry:reg.io/a:x", "registry reg.io/a x");
        check("/var/cache/b", "directory /var/cache/b cache");
        check("./b", "directory ./b cache");
        check("dir:b", "directory b cache");
        check("app", "registry docker.io/library/app cache");
    }

    #[test]
    fn the_short_form_reads_and_writes_everything() {
        let (from, to) = caches(&args(&["reg.io/c:x", ""], &[], &[])).unwrap();
        assert_eq!(from.len(), 1);
        let [CacheTo::Place { mode, scope, .. }] = to.as_slice() else {
            panic!("{to:?}");
        };
        assert_eq!((*mode, scope), (CacheMode::Max, &from[0].scope));
    }

    #[test]
    fn long_forms() {
        let (from, to) = caches(&args(
            &[],
            &["reg.io/a", "type=registry,ref=reg.io/a:b", "type=local,src=/c,scope=feature/x"],
            &[
                "type=registry,ref=reg.io/a:b,mode=max,compression=zstd,ignore-error=true,image-manifest=true,oci-mediatypes=true",
                "type=local,dest=/c",
                "type=inline",
            ],
        ))
        .unwrap();
        let scopes: Vec<&str> = from.iter().map(|from| from.scope.as_str()).collect();
        assert_eq!(scopes[..2], ["cache", "b"]);
        assert!(scopes[2].starts_with("feature_x."), "{scopes:?}");
        assert_eq!(
            to[0],
            CacheTo::Place {
                place: from[1].place.clone(),
                scope: CacheScope::new("b"),
                mode: CacheMode::Max,
                compression: Compression::Zstd { level: 3 },
                ignore_error: true,
            }
        );
        assert_eq!(to[2], CacheTo::Inline);
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let check = |from: &[&str], to: &[&str], expected: &str| {
            let failure = caches(&args(&[], from, to)).unwrap_err();
            let text = format!("{:?}", failure.diagnostics[0]);
            assert!(text.contains(expected), "{text}");
        };
        check(&["type=registry"], &[], "ref=… is missing");
        check(&["type=azblob,name=x"], &[], "there is no type `azblob`");
        check(&["type=inline"], &[], "by the image's name");
        check(&["type=local,src=/c,digest=sha256:1"], &[], "not supported");
        check(&[], &["type=local,src=/c"], "dest=… is missing");
        check(&[], &["type=local,dest=/c,mode=all"], "no mode `all`");
        check(&[], &["type=inline,mode=max"], "its own steps");
        check(
            &[],
            &["type=registry,ref=a,image-manifest=false"],
            "not supported",
        );
        check(&["Bad/Ref"], &[], "lower case");
    }
}
