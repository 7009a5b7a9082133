//! `--cache`, `--cache-from` and `--cache-to` as what they mean together.

use std::path::{Path, PathBuf};

use crate::pipeline::Failure;
use crate::vocab::{
    CacheFrom, CacheMode, CachePlace, CacheScope, CacheTo, Compression, ImageRef, MOUNTS_MAX_SIZE,
    MountChoice,
};

use super::args::Caches;
use super::fields::Fields;
use super::objects::{self, Variables};
use super::request::{bytes, image};
use super::scope::JobScope;
use super::{hinted, usage};

const TYPES: &str = "types are registry, local, s3, gha and (for `--cache-to`) inline";

/// What the options depend on besides their texts.
pub(super) struct Around<'a> {
    /// The scope where none is named.
    pub(super) job: &'a JobScope,
    pub(super) variables: Variables<'a>,
}

/// Returns the caches that are read and those that are written.
pub(super) fn caches(
    args: &Caches,
    around: &Around<'_>,
) -> Result<(Vec<CacheFrom>, Vec<CacheTo>), Failure> {
    let (mut from, mut to) = (Vec::new(), Vec::new());
    if is_off(args)? {
        return Ok((from, to));
    }
    for text in args
        .cache
        .iter()
        .flat_map(|text| several(text))
        .filter(|text| *text != "on")
    {
        let named = own("--cache", text, around)?;
        from.push(read(named.clone(), around.job));
        to.push(written(named, around.job, CacheMode::Max));
    }
    for text in args.cache_from.iter().flat_map(|text| several(text)) {
        from.push(cache_from(text, around)?);
    }
    for text in args.cache_to.iter().flat_map(|text| several(text)) {
        to.extend(cache_to(text, around)?);
    }
    Ok((from, to))
}

/// Tells whether `--cache` says that a build is to have none: then it reads no result of an earlier one, here or elsewhere, and gives
/// none to others. `on` is how it is without the flag.
pub(super) fn is_off(args: &Caches) -> Result<bool, Failure> {
    let all = || args.cache.iter().flat_map(|text| several(text));
    match (
        all().any(|text| text == "off"),
        all().all(|text| text == "off"),
    ) {
        (false, _) => Ok(false),
        (true, true) => Ok(true),
        (true, false) => Err(usage(
            "`--cache off` and another `--cache` contradict each other",
        )),
    }
}

/// Splits several values at `;`. Between the names of one S3 cache there may be some, too: what follows is no value of its own where it
/// is a plain word, as it can be no type, path or repository of a registry.
pub(super) fn several(text: &str) -> Vec<&str> {
    let mut values = Vec::new();
    let (mut begin, mut from) = (0, 0);
    while let Some(at) = text[from..].find(';').map(|at| from + at) {
        let before = &text[begin..at];
        let next = text[at + 1..].split([',', ';']).next().unwrap_or_default();
        let is_name = before.contains("type=s3")
            && before
                .rsplit(',')
                .next()
                .is_some_and(|field| field.trim_start_matches('"').starts_with("name="))
            && !next.is_empty()
            && !next.contains(['=', '/', ':', '.']);
        if !is_name {
            values.push(before);
            begin = at + 1;
        }
        from = at + 1;
    }
    values.push(&text[begin..]);
    values.retain(|value| !value.is_empty());
    values
}

/// A place, and the scopes that its name or fields name: the own one and those that are read besides.
#[derive(Clone)]
struct Named {
    place: CachePlace,
    scopes: Vec<CacheScope>,
}

/// Returns what is meant by a place alone.
fn read(named: Named, job: &JobScope) -> CacheFrom {
    let JobScope { own, fallbacks } = scope(&named.scopes, job);
    CacheFrom {
        place: named.place,
        scope: own,
        fallbacks,
        mounts: MountChoice::All,
        mounts_max_size: MOUNTS_MAX_SIZE,
    }
}

fn written(named: Named, job: &JobScope, mode: CacheMode) -> CacheTo {
    CacheTo::Place {
        place: named.place,
        scope: scope(&named.scopes, job).own,
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

/// Returns the scopes that are named, else the job's.
fn scope(named: &[CacheScope], job: &JobScope) -> JobScope {
    match named {
        [] => job.clone(),
        [own, fallbacks @ ..] => JobScope {
            own: own.clone(),
            fallbacks: fallbacks.to_vec(),
        },
    }
}

/// Reads `s3://BUCKET/PREFIX`, `gha`, `REPOSITORY[:SCOPE]`, or a directory: what looks like a path, or is one.
fn short(flag: &str, text: &str, around: &Around<'_>) -> Result<Named, Failure> {
    if text.starts_with("s3://") {
        return Ok(Named {
            place: objects::short_bucket(flag, text, around.variables)?,
            scopes: Vec::new(),
        });
    }
    if text == "gha" {
        return actions(&mut Fields::of(flag, text, &[]), around);
    }
    let is_path = text.starts_with(['/', '.', '~']) || Path::new(text).is_dir();
    if let Some(path) = text.strip_prefix("dir:") {
        return Ok(directory(path));
    }
    if is_path {
        return Ok(directory(text));
    }
    registry(text.strip_prefix("registry:").unwrap_or(text))
}

/// Returns a place that is written to: a bare word is a mistake there, since to Docker Hub's own images nobody adds a cache.
fn own(flag: &str, text: &str, around: &Around<'_>) -> Result<Named, Failure> {
    let named = short(flag, text, around)?;
    match &named.place {
        CachePlace::Registry { .. } if !text.contains('/') => {
            let hint = match text {
                "true" | "yes" | "1" => "`on` is how it is without the flag",
                _ => {
                    "`off` reads and gives no results; a place is REGISTRY/NAME, a path (`./NAME`), s3://BUCKET or gha"
                }
            };
            let message = format!("`{flag} {text}` is no place for a cache");
            Err(hinted(message, hint))
        }
        _ => Ok(named),
    }
}

fn directory(path: &str) -> Named {
    Named {
        place: CachePlace::Directory {
            path: PathBuf::from(path),
        },
        scopes: Vec::new(),
    }
}

/// The tag is the scope.
fn registry(text: &str) -> Result<Named, Failure> {
    let image: ImageRef = image(text)?;
    let scopes = match image.tag.as_deref() {
        None | Some("latest") => Vec::new(),
        Some(tag) => vec![CacheScope::new(tag)],
    };
    Ok(Named {
        place: CachePlace::Registry { image },
        scopes,
    })
}

/// A place to look after, and the scope of it that is meant; all of them where none is named.
pub(super) struct Kept {
    pub(super) place: CachePlace,
    pub(super) scope: Option<CacheScope>,
}

/// Reads a place as `--cache`, `--cache-from` or `--cache-to` name it, once for each scope that it names; nothing for one that lies in images
/// alone. `flag` is where it stands.
pub(super) fn kept(flag: &str, text: &str, around: &Around<'_>) -> Result<Vec<Kept>, Failure> {
    if text == "gha" || text.split(',').any(|field| field == "type=gha") {
        let mut failure = usage(format!(
            "`{flag}`: what is in GitHub's cache is not listed or pruned here"
        ));
        failure.diagnostics[0].hints.push(
            "`gh cache list` and `gh cache delete` do that; what nobody has read for 7 days goes by itself"
                .to_owned(),
        );
        return Err(failure);
    }
    if !text.contains('=') {
        let Named { place, scopes } = short(flag, text, around)?;
        let scope = scopes.into_iter().next();
        return Ok(vec![Kept { place, scope }]);
    }
    // No user's text makes this scope, so it is there only where none was named.
    let unnamed = JobScope {
        own: CacheScope::new("\0"),
        fallbacks: Vec::new(),
    };
    let is_auto = text.split(',').any(|field| field == "scope=auto");
    let around = Around {
        job: if is_auto { around.job } else { &unnamed },
        variables: around.variables,
    };
    let found = match (cache_to(text, &around), cache_from(text, &around)) {
        (Ok(to), _) => {
            let places = to.into_iter().filter_map(|to| match to {
                CacheTo::Inline => None,
                CacheTo::Place { place, scope, .. } => Some((place, scope)),
            });
            places.collect()
        }
        (Err(_), Ok(CacheFrom { place, scope, .. })) => vec![(place, scope)],
        (Err(_), Err(mut failure)) => {
            for diagnostic in &mut failure.diagnostics {
                diagnostic.message = diagnostic.message.replacen("--cache-from", flag, 1);
            }
            return Err(failure);
        }
    };
    let kept = found.into_iter().map(|(place, scope)| Kept {
        place,
        scope: (scope != unnamed.own).then_some(scope),
    });
    Ok(kept.collect())
}

fn bucket(fields: &mut Fields<'_>, around: &Around<'_>) -> Result<Named, Failure> {
    let scopes = objects::names(fields)?;
    let place = CachePlace::Bucket(Box::new(objects::bucket(fields, around.variables)?));
    Ok(Named { place, scopes })
}

/// GitHub keeps apart what branches write, and shows a job what the branches that it may believe have written: one scope does.
fn actions(fields: &mut Fields<'_>, around: &Around<'_>) -> Result<Named, Failure> {
    let place = CachePlace::Actions(objects::actions(fields, around.variables)?);
    let scopes = vec![CacheScope::default()];
    Ok(Named { place, scopes })
}

fn cache_from(text: &str, around: &Around<'_>) -> Result<CacheFrom, Failure> {
    let job = around.job;
    if !text.contains('=') {
        return Ok(read(short("--cache-from", text, around)?, job));
    }
    let mut fields = Fields::parse("--cache-from", text)?;
    let Named { place, scopes } = match fields.kind()?.as_str() {
        "registry" => registry(&fields.need("ref")?)?,
        "local" => directory(&fields.need("src")?),
        "s3" => bucket(&mut fields, around)?,
        "gha" => actions(&mut fields, around)?,
        "inline" => {
            return Err(fields.refuse_with(
                "records inside images are read by the image's name",
                "`--cache-from type=registry,ref=IMAGE`",
            ));
        }
        other => return Err(unknown(&fields, other)),
    };
    let JobScope { own, mut fallbacks } = named_scope(&mut fields, &scopes, job);
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

/// Returns one cache for each name that it is given.
fn cache_to(text: &str, around: &Around<'_>) -> Result<Vec<CacheTo>, Failure> {
    let job = around.job;
    if !text.contains('=') {
        let named = own("--cache-to", text, around)?;
        return Ok(vec![written(named, job, CacheMode::Min)]);
    }
    let mut fields = Fields::parse("--cache-to", text)?;
    let Named { place, scopes } = match fields.kind()?.as_str() {
        "registry" => registry(&fields.need("ref")?)?,
        "local" => directory(&fields.need("dest")?),
        "s3" => bucket(&mut fields, around)?,
        "gha" => actions(&mut fields, around)?,
        "inline" => {
            if fields.take("mode").is_some_and(|mode| mode == "max") {
                return Err(fields.refuse_with(
                    "an image holds the layers of its own steps only",
                    "for those of all steps: `--cache-to type=registry,ref=REPOSITORY,mode=max`",
                ));
            }
            fields.done()?;
            return Ok(vec![CacheTo::Inline]);
        }
        other => return Err(unknown(&fields, other)),
    };
    let named = named_scope(&mut fields, &scopes, job).own;
    let scopes = match scopes.len() {
        0 | 1 => vec![named],
        _ => scopes,
    };
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
    let to = scopes.into_iter().map(|scope| CacheTo::Place {
        place: place.clone(),
        scope,
        mode,
        compression,
        ignore_error,
        mounts: mounts.clone(),
        mounts_max_size,
    });
    Ok(to.collect())
}

fn named_scope(fields: &mut Fields<'_>, scopes: &[CacheScope], job: &JobScope) -> JobScope {
    let named = fields.take("scope").filter(|name| !name.is_empty());
    match named.as_deref() {
        Some("auto") => job.clone(),
        Some(name) => scope(&[CacheScope::new(name)], job),
        None => scope(scopes, job),
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
    if kind == "azblob" {
        return fields.refuse_with(
            "type azblob is not supported: Azure's blob storage does not speak S3's dialect",
            "a cache in Azure's registry does the same: `--cache NAME.azurecr.io/REPOSITORY`",
        );
    }
    fields.refuse_with(&format!("there is no type `{kind}`"), TYPES)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No variables are set.
    fn around(job: &JobScope) -> Around<'_> {
        Around {
            job,
            variables: &|_| None,
        }
    }

    fn to(text: &str, job: &JobScope) -> CacheTo {
        let mut to = cache_to(text, &around(job)).unwrap();
        assert_eq!(to.len(), 1, "{text}");
        to.remove(0)
    }

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
            let from = cache_from(text, &around(&JobScope::default())).unwrap();
            let scope = from.scope.as_str();
            match from.place {
                CachePlace::Registry { image } => format!("registry {} {scope}", image.name()),
                CachePlace::Directory { path } => format!("directory {} {scope}", path.display()),
                other => format!("{other} {scope}"),
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
        check("s3://b", "`s3://b/` cache");
        check("s3://b/a/c/", "`s3://b/a/c/` cache");
        check("type=s3,bucket=b,prefix=a,name=x", "`s3://b/a` x");
    }

    #[test]
    fn places_to_look_after_are_named_in_every_way() {
        let check = |text: &str, expected: &str| {
            let job = JobScope {
                own: CacheScope::new("branch"),
                fallbacks: Vec::new(),
            };
            let shown: Vec<String> = kept("--remote", text, &around(&job))
                .unwrap()
                .iter()
                .map(|kept| {
                    let scope = kept.scope.as_ref().map_or("*", CacheScope::as_str);
                    format!("{} {scope}", kept.place)
                })
                .collect();
            assert_eq!(shown.join(", "), expected, "{text}");
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
        check("type=inline", "");
        check("s3://b/c", "`s3://b/c/` *");
        check("type=s3,bucket=b,mode=max", "`s3://b/` *");
        check("type=s3,bucket=b,name=x;y", "`s3://b/` x, `s3://b/` y");
        for (text, expected) in [
            ("type=nfs,src=/c", "`--remote type=nfs"),
            ("gha", "what is in GitHub's cache"),
            ("type=gha,mode=max", "what is in GitHub's cache"),
        ] {
            let refused = kept("--remote", text, &around(&JobScope::default()));
            let message = &refused.err().unwrap().diagnostics[0].message;
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn the_short_form_reads_and_writes_everything() {
        let job = JobScope::default();
        let (from, to) = caches(&args(&["reg.io/c:x", ""], &[], &[]), &around(&job)).unwrap();
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
    fn a_mistyped_word_is_no_repository_of_docker_hub() {
        let job = JobScope::default();
        let refused = |args: Caches| caches(&args, &around(&job)).err();
        for text in ["offf", "true", "cache:main", "registry:cache"] {
            let failure = refused(args(&[text], &[], &[])).unwrap();
            let message = &failure.diagnostics[0].message;
            assert_eq!(
                message,
                &format!("`--cache {text}` is no place for a cache")
            );
            assert!(refused(args(&[], &[], &[text])).is_some());
        }
        // An image by its short name may hold records.
        assert!(refused(args(&[], &["app"], &[])).is_none());
    }

    #[test]
    fn where_no_scope_is_named_it_is_the_jobs() {
        let job = JobScope {
            own: CacheScope::new("branch"),
            fallbacks: vec![CacheScope::default()],
        };
        let check = |text: &str, expected: &str| {
            let from = cache_from(text, &around(&job)).unwrap();
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
            let CacheTo::Place { scope, .. } = to(text, &job) else {
                panic!("{text}");
            };
            assert_eq!(scope, job.own, "{text}");
        }
    }

    #[test]
    fn several_values_and_several_names() {
        let check = |text: &str, expected: &[&str]| assert_eq!(several(text), expected, "{text}");
        check("a;b", &["a", "b"]);
        check(";a;;b;", &["a", "b"]);
        check("", &[]);
        check(
            "type=s3,bucket=b,name=a;c,mode=max;/d",
            &["type=s3,bucket=b,name=a;c,mode=max", "/d"],
        );
        check(
            "type=s3,name=a;b;c;reg.io/d;e",
            &["type=s3,name=a;b;c", "reg.io/d", "e"],
        );
        check(
            "type=s3,name=a;type=local,src=/c",
            &["type=s3,name=a", "type=local,src=/c"],
        );
        check("type=s3,bucket=a;b", &["type=s3,bucket=a", "b"]);
        let job = JobScope::default();
        let text = "type=s3,bucket=b,name=a;c,name=d".to_owned();
        let args = args(&[], &[&text], &[&text]);
        let (from, to) = caches(&args, &around(&job)).unwrap();
        let fallbacks: Vec<&str> = from[0].fallbacks.iter().map(CacheScope::as_str).collect();
        assert_eq!((from[0].scope.as_str(), fallbacks), ("a", vec!["c", "d"]));
        let written = to.iter().map(|to| match to {
            CacheTo::Place { scope, .. } => scope.as_str(),
            CacheTo::Inline => "-",
        });
        assert_eq!(written.collect::<Vec<_>>(), ["a", "c", "d"]);
    }

    #[test]
    fn a_cache_of_github_has_one_scope_unless_another_is_named() {
        let job = JobScope {
            own: CacheScope::new("branch"),
            fallbacks: vec![CacheScope::default()],
        };
        let around = Around {
            job: &job,
            variables: &|name| match name {
                "ACTIONS_RESULTS_URL" => Some("https://results.example.com/".to_owned()),
                "ACTIONS_RUNTIME_TOKEN" => Some("hunter2".to_owned()),
                _ => None,
            },
        };
        let check = |text: &str, expected: &str| {
            let from = cache_from(text, &around).unwrap();
            assert!(matches!(from.place, CachePlace::Actions(_)));
            let scopes = std::iter::once(&from.scope).chain(&from.fallbacks);
            let scopes: Vec<&str> = scopes.map(CacheScope::as_str).collect();
            assert_eq!(scopes.join(" "), expected, "{text}");
            assert!(!format!("{from:?}").contains("hunter2"));
        };
        check("gha", "cache");
        check("type=gha", "cache");
        check("type=gha,scope=x", "x");
        check("type=gha,scope=auto", "branch cache");
        check("type=gha,scope-fallback=y", "cache y");
    }

    #[test]
    fn mounts_that_travel() {
        let job = JobScope::default();
        let check = |text: &str, expected: &str| {
            let CacheTo::Place {
                mounts,
                mounts_max_size,
                ..
            } = to(&format!("type=local,dest=/c{text}"), &job)
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
        let from = cache_from("type=local,src=/c,mounts=false", &around(&job)).unwrap();
        assert_eq!(from.mounts, MountChoice::None);
        for text in ["mounts=a,mounts=true", "mounts-max-size=big"] {
            assert!(cache_to(&format!("type=local,dest=/c,{text}"), &around(&job)).is_err());
        }
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
        ), &around(&JobScope::default()))
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
            let failure = caches(&args(&[], from, to), &around(&JobScope::default())).unwrap_err();
            let text = format!("{:?}", failure.diagnostics[0]);
            assert!(text.contains(expected), "{text}");
        };
        check(&["type=registry"], &[], "ref=… is missing");
        check(&["type=azblob,name=x"], &[], "azurecr.io/REPOSITORY");
        check(&["type=ftp"], &[], "there is no type `ftp`");
        check(&["s3://"], &[], "bucket=… is missing");
        check(&["gha"], &[], "ACTIONS_RESULTS_URL is not set");
        check(&["type=s3,bucket=b,name=a,scope=b"], &[], "say the same");
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
