//! `--cache`, `--cache-from` and `--cache-to` as what they mean together.

use std::path::{Path, PathBuf};

use crate::pipeline::Failure;
use crate::vocab::{
    CacheFrom, CacheMode, CachePlace, CacheScope, CacheTo, Compression, ImageRef, MOUNTS_MAX_SIZE,
    MountChoice,
};

use super::args::Caches;
use super::fields::Fields;
use super::request::{bytes, image};
use super::scope::JobScope;

const TYPES: &str = "types are registry, local and (for `--cache-to`) inline";

/// Returns the caches that are read and those that are written. `job` is the scope where none is named.
pub(super) fn caches(
    args: &Caches,
    job: &JobScope,
) -> Result<(Vec<CacheFrom>, Vec<CacheTo>), Failure> {
    let (mut from, mut to) = (Vec::new(), Vec::new());
    for text in args.cache.iter().filter(|text| !text.is_empty()) {
        from.push(read(short(text)?, job));
        to.push(written(short(text)?, job, CacheMode::Max));
    }
    for text in args.cache_from.iter().filter(|text| !text.is_empty()) {
        from.push(cache_from(text, job)?);
    }
    for text in args.cache_to.iter().filter(|text| !text.is_empty()) {
        to.push(cache_to(text, job)?);
    }
    Ok((from, to))
}

/// A place, and the scope that its name names.
type Named = (CachePlace, Option<CacheScope>);

/// Returns what is meant by a place alone.
fn read((place, scope): Named, job: &JobScope) -> CacheFrom {
    let JobScope { own, fallbacks } = scope.map_or_else(|| job.clone(), alone);
    CacheFrom {
        place,
        scope: own,
        fallbacks,
        mounts: MountChoice::All,
        mounts_max_size: MOUNTS_MAX_SIZE,
    }
}

fn written((place, scope): Named, job: &JobScope, mode: CacheMode) -> CacheTo {
    CacheTo::Place {
        place,
        scope: scope.unwrap_or_else(|| job.own.clone()),
        mode,
        compression: Compression::default(),
        ignore_error: false,
        mounts: mounts_of(mode),
        mounts_max_size: MOUNTS_MAX_SIZE,
    }
}

fn mounts_of(mode: CacheMode) -> MountChoice {
    match mode {
        CacheMode::Min => MountChoice::None,
        CacheMode::Max => MountChoice::All,
    }
}

fn alone(own: CacheScope) -> JobScope {
    JobScope {
        own,
        fallbacks: Vec::new(),
    }
}

/// Reads `REPOSITORY[:SCOPE]` or a directory: what looks like a path, or is one.
fn short(text: &str) -> Result<Named, Failure> {
    let is_path = text.starts_with(['/', '.', '~']) || Path::new(text).is_dir();
    if let Some(path) = text.strip_prefix("dir:") {
        return Ok((directory(path), None));
    }
    if is_path {
        return Ok((directory(text), None));
    }
    registry(text.strip_prefix("registry:").unwrap_or(text))
}

fn directory(path: &str) -> CachePlace {
    CachePlace::Directory {
        path: PathBuf::from(path),
    }
}

/// The tag is the scope.
fn registry(text: &str) -> Result<Named, Failure> {
    let image: ImageRef = image(text)?;
    let scope = match image.tag.as_deref() {
        None | Some("latest") => None,
        Some(tag) => Some(CacheScope::new(tag)),
    };
    Ok((CachePlace::Registry { image }, scope))
}

/// A place to look after, and the scope of it that is meant; all of them where none is named.
pub(super) struct Kept {
    pub(super) place: CachePlace,
    pub(super) scope: Option<CacheScope>,
}

/// Reads a place as `--cache`, `--cache-from` or `--cache-to` name it; `None` for one that lies in images alone. `flag` is where it stands.
pub(super) fn kept(flag: &str, text: &str, job: &JobScope) -> Result<Option<Kept>, Failure> {
    if !text.contains('=') {
        let (place, scope) = short(text)?;
        return Ok(Some(Kept { place, scope }));
    }
    // No user's text makes this scope, so it is there only where none was named.
    let unnamed = alone(CacheScope::new("\0"));
    let is_auto = text.split(',').any(|field| field == "scope=auto");
    let default = if is_auto { job } else { &unnamed };
    let (place, scope) = match (cache_to(text, default), cache_from(text, default)) {
        (Ok(CacheTo::Inline), _) => return Ok(None),
        (Ok(CacheTo::Place { place, scope, .. }), _) => (place, scope),
        (Err(_), Ok(CacheFrom { place, scope, .. })) => (place, scope),
        (Err(_), Err(mut failure)) => {
            for diagnostic in &mut failure.diagnostics {
                diagnostic.message = diagnostic.message.replacen("--cache-from", flag, 1);
            }
            return Err(failure);
        }
    };
    let scope = (scope != unnamed.own).then_some(scope);
    Ok(Some(Kept { place, scope }))
}

fn cache_from(text: &str, job: &JobScope) -> Result<CacheFrom, Failure> {
    if !text.contains('=') {
        return Ok(read(short(text)?, job));
    }
    let mut fields = Fields::parse("--cache-from", text)?;
    let (place, scope) = match fields.kind()?.as_str() {
        "registry" => registry(&fields.need("ref")?)?,
        "local" => (directory(&fields.need("src")?), None),
        "inline" => {
            return Err(fields.refuse_with(
                "records inside images are read by the image's name",
                "`--cache-from type=registry,ref=IMAGE`",
            ));
        }
        other => return Err(unknown(&fields, other)),
    };
    let JobScope { own, mut fallbacks } = named_scope(&mut fields, scope, job);
    let named = all(&mut fields, "scope-fallback");
    if !named.is_empty() {
        fallbacks = named.iter().map(|name| CacheScope::new(name)).collect();
        fallbacks.retain(|fallback| *fallback != own);
    }
    let (mounts, mounts_max_size) = mounts(&mut fields, MountChoice::All)?;
    fields.done()?;
    Ok(CacheFrom {
        place,
        scope: own,
        fallbacks,
        mounts,
        mounts_max_size,
    })
}

fn cache_to(text: &str, job: &JobScope) -> Result<CacheTo, Failure> {
    if !text.contains('=') {
        return Ok(written(short(text)?, job, CacheMode::Min));
    }
    let mut fields = Fields::parse("--cache-to", text)?;
    let (place, scope) = match fields.kind()?.as_str() {
        "registry" => registry(&fields.need("ref")?)?,
        "local" => (directory(&fields.need("dest")?), None),
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
    let scope = named_scope(&mut fields, scope, job).own;
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
    let (mounts, mounts_max_size) = mounts(&mut fields, mounts_of(mode))?;
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
        mounts,
        mounts_max_size,
    })
}

fn named_scope(fields: &mut Fields<'_>, scope: Option<CacheScope>, job: &JobScope) -> JobScope {
    let named = fields.take("scope").filter(|name| !name.is_empty());
    match named.as_deref() {
        Some("auto") => job.clone(),
        Some(name) => alone(CacheScope::new(name)),
        None => scope.map_or_else(|| job.clone(), alone),
    }
}

/// Reads which cache mounts travel, and how large they may be.
fn mounts(fields: &mut Fields<'_>, default: MountChoice) -> Result<(MountChoice, u64), Failure> {
    let named = all(fields, "mounts");
    let choice = match named.as_slice() {
        [] => default,
        [one] if one == "true" => MountChoice::All,
        [one] if one == "false" => MountChoice::None,
        ids if ids.iter().any(|id| id == "true" || id == "false") => {
            return Err(fields.refuse_with(
                "mounts= is true, false, or the id of a cache mount, which may come several times",
                "such as mounts=pip,mounts=/root/.cache",
            ));
        }
        ids => MountChoice::Of(ids.to_vec()),
    };
    let most = match fields.take("mounts-max-size") {
        None => MOUNTS_MAX_SIZE,
        Some(text) => bytes("mounts-max-size", &text)?,
    };
    Ok((choice, most))
}

/// Takes a field as often as it is there.
fn all(fields: &mut Fields<'_>, name: &str) -> Vec<String> {
    let values = std::iter::from_fn(|| fields.take(name));
    values.filter(|value| !value.is_empty()).collect()
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
        let place = |text: &str| {
            let from = cache_from(text, &JobScope::default()).unwrap();
            let scope = from.scope.as_str();
            match from.place {
                CachePlace::Registry { image } => format!("registry {} {scope}", image.name()),
                CachePlace::Directory { path } => format!("directory {} {scope}", path.display()),
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
    fn places_to_look_after_are_named_in_every_way() {
        let check = |text: &str, expected: &str| {
            let job = alone(CacheScope::new("branch"));
            let shown = kept("--remote", text, &job).unwrap().map(|kept| {
                let scope = kept.scope.as_ref().map_or("*", CacheScope::as_str);
                format!("{} {scope}", kept.place)
            });
            assert_eq!(shown.as_deref().unwrap_or("nothing"), expected, "{text}");
        };
        check("reg.io/c", "reg.io/c:latest *");
        check("reg.io/c:x", "reg.io/c:x x");
        check("/c", "`/c` *");
        check("type=registry,ref=reg.io/c,mode=max", "reg.io/c:latest *");
        check(
            "type=registry,ref=reg.io/c,scope=auto",
            "reg.io/c:latest branch",
        );
        check(
            "type=registry,ref=reg.io/c,scope-fallback=a,scope=x",
            "reg.io/c:latest x",
        );
        check("type=local,src=/c,scope=a/b", "`/c` a_b.c14cddc033f64b9d");
        check("type=local,dest=/c", "`/c` *");
        check("type=inline", "nothing");
        let refused = kept("--remote", "type=nfs,src=/c", &JobScope::default());
        let refused = refused.err().unwrap();
        let message = &refused.diagnostics[0].message;
        assert!(message.starts_with("`--remote type=nfs"), "{message}");
    }

    #[test]
    fn the_short_form_reads_and_writes_everything() {
        let job = JobScope::default();
        let (from, to) = caches(&args(&["reg.io/c:x", ""], &[], &[]), &job).unwrap();
        assert_eq!(from.len(), 1);
        let [
            CacheTo::Place {
                mode,
                scope,
                mounts,
                ..
            },
        ] = to.as_slice()
        else {
            panic!("{to:?}");
        };
        assert_eq!((*mode, scope), (CacheMode::Max, &from[0].scope));
        assert_eq!(
            (mounts, &from[0].mounts),
            (&MountChoice::All, &MountChoice::All)
        );
    }

    #[test]
    fn where_no_scope_is_named_it_is_the_jobs() {
        let job = JobScope {
            own: CacheScope::new("branch"),
            fallbacks: vec![CacheScope::default()],
        };
        let check = |text: &str, expected: &str| {
            let from = cache_from(text, &job).unwrap();
            let scopes = std::iter::once(&from.scope).chain(&from.fallbacks);
            let scopes: Vec<&str> = scopes.map(CacheScope::as_str).collect();
            assert_eq!(scopes.join(" "), expected, "{text}");
        };
        check("reg.io/c", "branch cache");
        check("reg.io/c:x", "x");
        check("type=local,src=/c", "branch cache");
        check("type=registry,ref=reg.io/c:x,scope=auto", "branch cache");
        check("type=local,src=/c,scope=y", "y");
        check(
            "type=local,src=/c,scope=y,scope-fallback=z,scope-fallback=y",
            "y z",
        );
        check("type=local,src=/c,scope-fallback=z", "branch z");
        for text in ["type=local,dest=/c", "type=local,dest=/c,scope=auto", "/c"] {
            let CacheTo::Place { scope, .. } = cache_to(text, &job).unwrap() else {
                panic!("{text}");
            };
            assert_eq!(scope, job.own, "{text}");
        }
    }

    #[test]
    fn mounts_that_travel() {
        let job = JobScope::default();
        let check = |text: &str, expected: &str| {
            let CacheTo::Place {
                mounts,
                mounts_max_size,
                ..
            } = cache_to(&format!("type=local,dest=/c{text}"), &job).unwrap()
            else {
                panic!("{text}");
            };
            assert_eq!(
                format!("{mounts:?} {}", mounts_max_size >> 20),
                expected,
                "{text}"
            );
        };
        check("", "None 2048");
        check(",mode=max", "All 2048");
        check(",mode=max,mounts=false", "None 2048");
        check(",mounts=true,mounts-max-size=10g", "All 10240");
        check(",mounts=a,mounts=/b", "Of([\"a\", \"/b\"]) 2048");
        let from = cache_from("type=local,src=/c,mounts=false", &job).unwrap();
        assert_eq!(from.mounts, MountChoice::None);
        assert!(cache_to("type=local,dest=/c,mounts=a,mounts=true", &job).is_err());
        assert!(cache_to("type=local,dest=/c,mounts-max-size=big", &job).is_err());
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
        ), &JobScope::default())
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
                mounts: MountChoice::All,
                mounts_max_size: MOUNTS_MAX_SIZE,
            }
        );
        assert_eq!(to[2], CacheTo::Inline);
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let check = |from: &[&str], to: &[&str], expected: &str| {
            let failure = caches(&args(&[], from, to), &JobScope::default()).unwrap_err();
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
