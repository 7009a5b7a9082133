//! Caches in object stores and in the cache service of a CI system: what their fields and the usual variables say.
//!
//! In: fields with BuildKit's names, and the environment. Out: places of which everything is known that needs no file and no network.
//! What BuildKit has and this program has no use for is refused with the reason.

use std::time::Duration;

use crate::pipeline::Failure;
use crate::vocab::{
    ActionsPlace, BucketKeys, BucketPlace, CachePlace, CacheScope, Secret, shown_url,
};

use super::fields::Fields;

/// Reads one variable of the environment.
pub(super) type Variables<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Of layers that travel at the same time, where the user says nothing: BuildKit's number.
const LAYERS_AT_ONCE: usize = 4;
const MOST_LAYERS_AT_ONCE: usize = 64;
const TIMEOUT: Duration = Duration::from_secs(600);
const RUNTIME: &str = "GitHub gives ACTIONS_RESULTS_URL and ACTIONS_RUNTIME_TOKEN to actions and not to scripts: a step `uses: crazy-max/ghaction-github-runtime@v3` before this one passes them on";

/// Reads `s3://BUCKET[/PREFIX]`.
pub(super) fn short_bucket(
    flag: &str,
    text: &str,
    variables: Variables<'_>,
) -> Result<CachePlace, Failure> {
    let rest = text.strip_prefix("s3://").unwrap_or(text);
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let prefix = match prefix.trim_end_matches('/') {
        "" => String::new(),
        prefix => format!("{prefix}/"),
    };
    let mut fields = Fields::of(flag, text, &[("bucket", bucket), ("prefix", &prefix)]);
    let place = self::bucket(&mut fields, variables)?;
    Ok(CachePlace::Bucket(Box::new(place)))
}

/// Reads the fields of `type=s3` that say where and who.
pub(super) fn bucket(
    fields: &mut Fields<'_>,
    variables: Variables<'_>,
) -> Result<BucketPlace, Failure> {
    let set = |names: &[&str]| {
        let mut names = names.iter();
        names.find_map(|name| variables(name).filter(|value| !value.is_empty()))
    };
    let mut given = |name: &str| fields.take(name).filter(|value| !value.is_empty());
    let bucket = given("bucket").or_else(|| set(&["AWS_BUCKET"]));
    let region = given("region").or_else(|| set(&["AWS_REGION", "AWS_DEFAULT_REGION"]));
    let endpoint =
        given("endpoint_url").or_else(|| set(&["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"]));
    let keys = [
        given("access_key_id"),
        given("secret_access_key"),
        given("session_token"),
    ];
    let prefix = given("prefix").unwrap_or_default();
    let blobs = given("blobs_prefix").unwrap_or_else(|| "blobs/".to_owned());
    let documents = given("manifests_prefix").unwrap_or_else(|| "manifests/".to_owned());
    let path_style = match fields.has("use_path_style") {
        true => Some(fields.flag("use_path_style", false)?),
        false => None,
    };
    let layers_at_once = match fields.take("upload_parallelism") {
        None => LAYERS_AT_ONCE,
        Some(text) => {
            let number = text.parse().ok();
            let number = number.filter(|number| (1..=MOST_LAYERS_AT_ONCE).contains(number));
            number.ok_or_else(|| {
                fields.refuse(&format!(
                    "upload_parallelism must be from 1 to {MOST_LAYERS_AT_ONCE}"
                ))
            })?
        }
    };
    if fields.take("touch_refresh").is_some() {
        return Err(fields.refuse_with(
            "touch_refresh is not supported: what is in use is not touched",
            "a lifecycle rule counts from the day on which an object was written; what it removed too early is made and written again",
        ));
    }
    let Some(bucket) = bucket else {
        return Err(fields.refuse_with("bucket=… is missing", "AWS_BUCKET is read as well"));
    };
    if !is_bucket(&bucket) {
        return Err(fields.refuse(&format!("`{bucket}` can be no bucket's name")));
    }
    if let Some(region) = region.as_deref().filter(|region| !is_region(region)) {
        return Err(fields.refuse(&format!("`{region}` can be no region")));
    }
    if let Some(endpoint) = endpoint.as_deref().filter(|url| !is_endpoint(url)) {
        return Err(fields.refuse_with(
            &format!(
                "`{}` is no URL of an object store",
                shown_url(endpoint)
            ),
            "such as https://minio.example.com:9000; what logs in goes into access_key_id= and secret_access_key=",
        ));
    }
    for (name, text) in [
        ("prefix", format!("{prefix}x")),
        ("blobs_prefix", format!("{prefix}{blobs}x")),
        ("manifests_prefix", format!("{prefix}{documents}x")),
    ] {
        if !is_key(&text) {
            return Err(fields.refuse_with(
                &format!("{name}= makes names that not every store takes"),
                "letters, digits and `-_.+=:@,!/`, with no slash at the beginning and no two in a row, and no part that is `.` or `..`",
            ));
        }
    }
    let keys = match keys {
        [None, None, None] => None,
        [Some(id), Some(secret), session] => Some(BucketKeys {
            id,
            secret: Secret::new(secret),
            session: session.map(Secret::new),
        }),
        _ => {
            return Err(fields.refuse(
                "access_key_id= and secret_access_key= belong together, with session_token= where there is one",
            ));
        }
    };
    Ok(BucketPlace {
        bucket,
        region,
        endpoint,
        path_style,
        keys,
        prefix,
        blobs,
        documents,
        layers_at_once,
    })
}

/// Takes `name=`: the scopes that BuildKit's users give.
pub(super) fn names(fields: &mut Fields<'_>) -> Result<Vec<CacheScope>, Failure> {
    let given = std::iter::from_fn(|| fields.take("name"));
    let given: Vec<String> = given.collect();
    let names = given.iter().flat_map(|names| names.split(';'));
    let mut scopes: Vec<CacheScope> = Vec::new();
    for name in names.map(str::trim).filter(|name| !name.is_empty()) {
        let scope = CacheScope::new(name);
        if !scopes.contains(&scope) {
            scopes.push(scope);
        }
    }
    if !scopes.is_empty() && fields.has("scope") {
        return Err(fields.refuse("name= and scope= say the same thing: give one of them"));
    }
    Ok(scopes)
}

/// Reads the fields of `type=gha` that say where and who.
pub(super) fn actions(
    fields: &mut Fields<'_>,
    variables: Variables<'_>,
) -> Result<ActionsPlace, Failure> {
    let set = |name: &str| variables(name).filter(|value| !value.is_empty());
    for name in ["repository", "ghtoken"] {
        if fields.has(name) {
            return Err(fields.refuse_with(
                &format!("{name}= is not supported: it serves to list what is cached, which is not done here"),
                "the cache's own token is token=, or ACTIONS_RUNTIME_TOKEN",
            ));
        }
    }
    let old = fields.take("url").filter(|url| !url.is_empty());
    match fields.take("version").as_deref() {
        None | Some("" | "2") => {}
        Some("1") => return Err(refuse_old(fields)),
        Some(other) => return Err(fields.refuse(&format!("there is no version `{other}`"))),
    }
    let service = fields.take("url_v2").filter(|url| !url.is_empty());
    // Both addresses may be given, for clients of either version.
    let service = match service {
        Some(service) => service,
        None if old.is_some() => return Err(refuse_old(fields)),
        None => match set("ACTIONS_RESULTS_URL") {
            Some(service) => service,
            None if set("ACTIONS_CACHE_URL").is_some() => return Err(refuse_old(fields)),
            None => {
                return Err(fields.refuse_with("ACTIONS_RESULTS_URL is not set", RUNTIME));
            }
        },
    };
    if !is_endpoint(&service) {
        return Err(fields.refuse(&format!(
            "`{}` is no URL of a cache service",
            shown_url(&service)
        )));
    }
    let token = fields.take("token").filter(|token| !token.is_empty());
    let Some(token) = token.or_else(|| set("ACTIONS_RUNTIME_TOKEN")) else {
        return Err(fields.refuse_with("ACTIONS_RUNTIME_TOKEN is not set", RUNTIME));
    };
    let timeout = match fields.take("timeout") {
        None => TIMEOUT,
        Some(text) => duration(&text).ok_or_else(|| {
            fields.refuse_with(
                &format!("timeout={text} is no length of time"),
                "such as 10m or 1h30m",
            )
        })?,
    };
    Ok(ActionsPlace {
        service,
        token: Secret::new(token),
        timeout,
    })
}

fn refuse_old(fields: &Fields<'_>) -> Failure {
    fields.refuse_with(
        "version 1 of the cache service is not supported: GitHub has switched it off",
        "version 2 is at ACTIONS_RESULTS_URL or url_v2=",
    )
}

/// Reads a length of time as Go writes it: `10m`, `1h30m`, `90s`.
fn duration(text: &str) -> Option<Duration> {
    let mut seconds: u64 = 0;
    let mut number = String::new();
    for character in text.chars() {
        let unit = match character {
            '0'..='9' => {
                number.push(character);
                continue;
            }
            'h' => 3600,
            'm' => 60,
            's' => 1,
            _ => return None,
        };
        let many: u64 = number.parse().ok()?;
        seconds = seconds.checked_add(many.checked_mul(unit)?)?;
        number.clear();
    }
    (number.is_empty() && seconds > 0).then(|| Duration::from_secs(seconds))
}

fn is_bucket(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (1..=255).contains(&text.len())
        && text.bytes().all(is_word)
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && !text.contains("..")
}

fn is_region(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    text.len() <= 64 && text.bytes().all(is_word) && !text.starts_with('-')
}

fn is_endpoint(text: &str) -> bool {
    let rest = text
        .strip_prefix("http://")
        .or_else(|| text.strip_prefix("https://"));
    rest.is_some_and(|rest| {
        !rest.is_empty()
            && !rest.starts_with('/')
            && rest.bytes().all(|byte| byte.is_ascii_graphic())
            && !rest.contains(['@', '?', '#'])
    })
}

fn is_key(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.+=:@,!".contains(&byte);
    text.len() <= 512
        && text
            .split('/')
            .all(|part| !matches!(part, "" | "." | "..") && part.bytes().all(is_word))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRETS: [&str; 2] = ["hunter2-secret", "hunter2-session"];

    fn read(text: &str, variables: &[(&str, &str)]) -> Result<BucketPlace, String> {
        let mut fields = Fields::parse("--cache-to", text).unwrap();
        let read = bucket(&mut fields, &|name| {
            let found = variables.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| (*value).to_owned())
        });
        read.map_err(|failure| format!("{:?}", failure.diagnostics[0]))
    }

    #[test]
    fn buckets_and_where_they_are() {
        let check = |text: &str, variables: &[(&str, &str)], expected: &str| {
            let place = read(text, variables).unwrap();
            let found = format!(
                "{} {:?} {:?} {:?} {}+{} {}",
                place.bucket,
                place.region,
                place.endpoint,
                place.path_style,
                place.prefix,
                place.blobs,
                place.layers_at_once
            );
            assert_eq!(found, expected, "{text}");
            assert!(!format!("{place:?}").contains("hunter2"));
        };
        check("bucket=b", &[], "b None None None +blobs/ 4");
        check(
            "region=eu-west-1,prefix=a/b/,blobs_prefix=x-,upload_parallelism=9,use_path_style=true",
            &[("AWS_BUCKET", "b")],
            "b Some(\"eu-west-1\") None Some(true) a/b/+x- 9",
        );
        check(
            "bucket=c,endpoint_url=http://[::1]:9000/s3/,use_path_style=false",
            &[
                ("AWS_BUCKET", "b"),
                ("AWS_REGION", ""),
                ("AWS_DEFAULT_REGION", "here"),
            ],
            "c Some(\"here\") Some(\"http://[::1]:9000/s3/\") Some(false) +blobs/ 4",
        );
        check(
            "bucket=c",
            &[
                ("AWS_ENDPOINT_URL", "https://a"),
                ("AWS_ENDPOINT_URL_S3", "https://b"),
            ],
            "c None Some(\"https://b\") None +blobs/ 4",
        );
        let keys = read(
            "bucket=c,access_key_id=I,secret_access_key=hunter2-secret,session_token=hunter2-session",
            &[],
        );
        let keys = keys.unwrap().keys.unwrap();
        let revealed = [
            keys.secret.reveal(),
            keys.session.as_ref().unwrap().reveal(),
        ];
        assert_eq!(
            (keys.id.as_str(), revealed),
            ("I", [SECRETS[0], SECRETS[1]].map(str::to_owned).each_ref())
        );
    }

    #[test]
    fn what_cannot_be_a_bucket_is_refused_and_nothing_secret_is_shown() {
        let check = |text: &str, expected: &str| {
            let text = format!("{text},secret_access_key=hunter2-secret");
            let error = read(&text, &[]).unwrap_err();
            assert!(error.contains(expected), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        };
        check("region=x", "bucket=… is missing");
        check("bucket=b", "belong together");
        check("bucket=b/c", "can be no bucket's name");
        check("bucket=.b", "can be no bucket's name");
        check("bucket=b,region=a.evil.com/", "can be no region");
        check("bucket=b,endpoint_url=minio:9000", "is no URL of an object");
        check(
            "bucket=b,endpoint_url=http://a:hunter2@b/",
            "is no URL of an object",
        );
        check("bucket=b,endpoint_url=ftp://a", "is no URL of an object");
        check("bucket=b,prefix=/a/", "not every store takes");
        check("bucket=b,prefix=a//", "not every store takes");
        check("bucket=b,prefix=../", "not every store takes");
        check("bucket=b,manifests_prefix=é/", "not every store takes");
        check("bucket=b,upload_parallelism=0", "from 1 to 64");
        check(
            "bucket=b,touch_refresh=24h",
            "touch_refresh is not supported",
        );
        check("bucket=b,use_path_style=maybe", "neither true nor false");
    }

    #[test]
    fn services_of_github() {
        let read = |text: &str, variables: &[(&str, &str)]| {
            let mut fields = Fields::parse("--cache-to", text).unwrap();
            let read = actions(&mut fields, &|name| {
                let found = variables.iter().find(|(variable, _)| *variable == name);
                found.map(|(_, value)| (*value).to_owned())
            });
            let read = read.map(|place| {
                let seconds = place.timeout.as_secs();
                format!("{} {} {seconds}", place.service, place.token.reveal())
            });
            read.unwrap_or_else(|failure| {
                let text = format!("{:?}", failure.diagnostics[0]);
                assert!(!text.contains("hunter2"), "{text}");
                text
            })
        };
        let check = |text: &str, variables: &[(&str, &str)], expected: &str| {
            let found = read(text, variables);
            assert!(found.contains(expected), "{found}");
        };
        let results = ("ACTIONS_RESULTS_URL", "https://results.example.com/");
        let token = ("ACTIONS_RUNTIME_TOKEN", "hunter2");
        check(
            "x=y",
            &[results, token],
            "https://results.example.com/ hunter2 600",
        );
        check(
            "url_v2=http://127.0.0.1:1,url=http://old/,token=t,version=2,timeout=1h30m",
            &[results, token],
            "http://127.0.0.1:1 t 5400",
        );
        check("x=y", &[results], "ACTIONS_RUNTIME_TOKEN is not set");
        check("x=y", &[token], "crazy-max/ghaction-github-runtime");
        let old = ("ACTIONS_CACHE_URL", "https://old.example.com/");
        check("x=y", &[old, token], "version 1 of the cache service");
        check("version=1", &[results, token], "version 1 of the cache");
        check(
            "url=https://old/",
            &[results, token],
            "version 1 of the cache",
        );
        check("version=3", &[results, token], "no version `3`");
        check(
            "ghtoken=hunter2-x",
            &[results, token],
            "to list what is cached",
        );
        check(
            "repository=a/b",
            &[results, token],
            "to list what is cached",
        );
        check("url_v2=results", &[token], "is no URL of a cache service");
        for text in ["timeout=", "timeout=5", "timeout=0s", "timeout=1d"] {
            check(text, &[results, token], "is no length of time");
        }
    }
}
