//! Signing a request for AWS, and for whatever else speaks its dialect: Signature Version 4.
//!
//! In: keys, a request, the time. Out: the headers to add to it. Nothing is sent and no clock is read here. The rules are AWS's
//! "Create a signed AWS API request"; S3 differs in that its paths are encoded once and the body's hash is a header of its own.
//!
//! What is signed must be what is sent: the path of the URL as it stands, and its query with blanks as `%20` (see [`query`]).

use jiff::Timestamp;
use reqwest::Url;
use ring::digest::{SHA256, digest};
use ring::hmac;

use crate::vocab::Secret;

/// Who signs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Keys {
    pub(in super::super) id: String,
    pub(in super::super) secret: Secret<String>,
    /// Of keys that end by themselves.
    pub(in super::super) session: Option<Secret<String>>,
}

/// What the signature is good for.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Scope<'a> {
    pub(in super::super) region: &'a str,
    /// As the service calls itself: `ecr`, `sts`, `s3`.
    pub(in super::super) service: &'a str,
}

/// The request to sign.
pub(in super::super) struct Request<'a> {
    pub(in super::super) method: &'a str,
    pub(in super::super) url: &'a Url,
    /// Those that are to be signed, besides the ones that are added here. Names in lower case.
    pub(in super::super) headers: &'a [(&'a str, &'a str)],
    /// [`hash`] of the body, or `UNSIGNED-PAYLOAD`.
    pub(in super::super) payload: &'a str,
}

/// Returns the headers that make a request a signed one; `host` is signed and not among them.
pub(in super::super) fn sign(
    keys: &Keys,
    scope: Scope<'_>,
    request: &Request<'_>,
    now: Timestamp,
) -> Vec<(&'static str, Secret<String>)> {
    let time = now.strftime("%Y%m%dT%H%M%SZ").to_string();
    let date = &time[..8];
    let mut added = vec![("x-amz-date", Secret::new(time.clone()))];
    if scope.service == "s3" {
        let payload = Secret::new(request.payload.to_owned());
        added.push(("x-amz-content-sha256", payload));
    }
    if let Some(session) = &keys.session {
        added.push(("x-amz-security-token", session.clone()));
    }
    let host = host(request.url);
    let mut headers: Vec<(&str, String)> = request
        .headers
        .iter()
        .map(|(name, value)| (*name, words(value)))
        .chain([("host", host)])
        .chain(
            added
                .iter()
                .map(|(name, value)| (*name, value.reveal().clone())),
        )
        .collect();
    headers.sort();
    let names: Vec<&str> = headers.iter().map(|(name, _)| *name).collect();
    let names = names.join(";");
    let lines: String = headers
        .iter()
        .map(|(name, value)| format!("{name}:{value}\n"))
        .collect();
    let canonical = format!(
        "{}\n{}\n{}\n{lines}\n{names}\n{}",
        request.method,
        path(request.url, scope.service),
        query(request.url),
        request.payload
    );
    let within = format!("{date}/{}/{}/aws4_request", scope.region, scope.service);
    let text = format!(
        "AWS4-HMAC-SHA256\n{time}\n{within}\n{}",
        hash(canonical.as_bytes())
    );
    let first = format!("AWS4{}", keys.secret.reveal());
    let key = [date, scope.region, scope.service, "aws4_request"]
        .into_iter()
        .fold(first.into_bytes(), |key, part| mac(&key, part));
    let signature = hex(&mac(&key, &text));
    added.push((
        "authorization",
        Secret::new(format!(
            "AWS4-HMAC-SHA256 Credential={}/{within}, SignedHeaders={names}, Signature={signature}",
            keys.id
        )),
    ));
    added
}

/// Returns the SHA-256 of a body in hex digits.
pub(in super::super) fn hash(body: &[u8]) -> String {
    hex(digest(&SHA256, body).as_ref())
}

/// Returns a URL's query in order, with everything encoded that has to be: fit to be sent.
pub(in super::super) fn query(url: &Url) -> String {
    let mut pairs: Vec<(String, String)> = url
        .query_pairs()
        .map(|(name, value)| (encoded(&name, false), encoded(&value, false)))
        .collect();
    pairs.sort();
    let pairs: Vec<String> = pairs
        .into_iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    pairs.join("&")
}

fn path(url: &Url, service: &str) -> String {
    match url.path() {
        "" => "/".to_owned(),
        path if service == "s3" => path.to_owned(),
        path => encoded(path, true),
    }
}

fn host(url: &Url) -> String {
    super::super::transport::authority(url)
}

/// Trims a header's value, and makes one blank of several.
fn words(value: &str) -> String {
    let words: Vec<&str> = value.split_ascii_whitespace().collect();
    words.join(" ")
}

fn encoded(text: &str, keeps_slashes: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            b'/' if keeps_slashes => out.push('/'),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    hmac::sign(&key, text.as_bytes()).as_ref().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    struct Case<'a> {
        method: &'a str,
        url: &'a str,
        headers: &'a [(&'a str, &'a str)],
        body: &'a str,
        signed: &'a str,
        signature: &'a str,
    }

    fn check(keys: &Keys, scope: Scope<'_>, now: &str, case: &Case<'_>) {
        let payload = hash(case.body.as_bytes());
        let url = Url::parse(case.url).unwrap();
        let request = Request {
            method: case.method,
            url: &url,
            headers: case.headers,
            payload: &payload,
        };
        let added = sign(keys, scope, &request, now.parse().unwrap());
        let (name, authorization) = added.last().unwrap();
        assert_eq!(*name, "authorization");
        let expected = format!(
            "SignedHeaders={}, Signature={}",
            case.signed, case.signature
        );
        assert!(
            authorization.reveal().ends_with(&expected),
            "{} {}: {}",
            case.method,
            case.url,
            authorization.reveal()
        );
    }

    /// The examples of AWS's own test suite for signers.
    #[test]
    fn the_published_examples_come_out() {
        let keys = Keys {
            id: "AKIDEXAMPLE".to_owned(),
            secret: Secret::new("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".to_owned()),
            session: None,
        };
        let now = "2015-08-30T12:36:00Z";
        let scope = Scope {
            region: "us-east-1",
            service: "service",
        };
        let form = ("content-type", "application/x-www-form-urlencoded");
        for (method, rest, headers, body, signed, signature) in [
            (
                "GET",
                "/",
                &[][..],
                "",
                "host;x-amz-date",
                "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
            ),
            (
                "GET",
                "/?Param2=value2&Param1=value1",
                &[][..],
                "",
                "host;x-amz-date",
                "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
            ),
            (
                "POST",
                "/",
                &[form][..],
                "Param1=value1",
                "content-type;host;x-amz-date",
                "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
            ),
            (
                "GET",
                "/",
                &[("my-header1", " value1  "), ("my-header2", "\"a   b   c\"")][..],
                "",
                "host;my-header1;my-header2;x-amz-date",
                "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736",
            ),
        ] {
            let case = Case {
                method,
                url: &format!("https://example.amazonaws.com{rest}"),
                headers,
                body,
                signed,
                signature,
            };
            check(&keys, scope, now, &case);
        }
        // The worked example of the IAM documentation.
        let scope = Scope {
            service: "iam",
            ..scope
        };
        let case = Case {
            method: "GET",
            url: "https://iam.amazonaws.com/?Version=2010-05-08&Action=ListUsers",
            headers: &[(
                "content-type",
                "application/x-www-form-urlencoded;  charset=utf-8 ",
            )],
            body: "",
            signed: "content-type;host;x-amz-date",
            signature: "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7",
        };
        check(&keys, scope, now, &case);
    }

    /// The examples of S3's documentation.
    #[test]
    fn the_published_examples_of_s3_come_out() {
        let keys = Keys {
            id: "AKIAIOSFODNN7EXAMPLE".to_owned(),
            secret: Secret::new("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".to_owned()),
            session: None,
        };
        let scope = Scope {
            region: "us-east-1",
            service: "s3",
        };
        for (method, rest, headers, body, signed, signature) in [
            (
                "GET",
                "/test.txt",
                &[("range", "bytes=0-9")][..],
                "",
                "host;range;x-amz-content-sha256;x-amz-date",
                "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
            ),
            (
                "PUT",
                "/test%24file.text",
                &[
                    ("date", "Fri, 24 May 2013 00:00:00 GMT"),
                    ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
                ][..],
                "Welcome to Amazon S3.",
                "date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class",
                "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
            ),
            (
                "GET",
                "/?lifecycle",
                &[][..],
                "",
                "host;x-amz-content-sha256;x-amz-date",
                "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
            ),
            (
                "GET",
                "/?max-keys=2&prefix=J",
                &[][..],
                "",
                "host;x-amz-content-sha256;x-amz-date",
                "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
            ),
        ] {
            let case = Case {
                method,
                url: &format!("https://examplebucket.s3.amazonaws.com{rest}"),
                headers,
                body,
                signed,
                signature,
            };
            check(&keys, scope, "2013-05-24T00:00:00Z", &case);
        }
    }

    #[test]
    fn keys_that_end_sign_their_token_and_nothing_is_shown() {
        let keys = Keys {
            id: "AKID".to_owned(),
            secret: Secret::new("hunter2-secret".to_owned()),
            session: Some(Secret::new("hunter2-session".to_owned())),
        };
        let url = Url::parse("https://sts.eu-west-1.amazonaws.com:8443/").unwrap();
        let request = Request {
            method: "POST",
            url: &url,
            headers: &[],
            payload: EMPTY,
        };
        let scope = Scope {
            region: "eu-west-1",
            service: "sts",
        };
        let added = sign(&keys, scope, &request, Timestamp::UNIX_EPOCH);
        let names: Vec<&str> = added.iter().map(|(name, _)| *name).collect();
        assert_eq!(
            names,
            ["x-amz-date", "x-amz-security-token", "authorization"]
        );
        let authorization = added[2].1.reveal();
        assert!(
            authorization.contains("SignedHeaders=host;x-amz-date;x-amz-security-token,"),
            "{authorization}"
        );
        assert!(!authorization.contains("hunter2"));
        assert!(!format!("{keys:?} {added:?}").contains("hunter2"));
        assert_eq!(host(&url), "sts.eu-west-1.amazonaws.com:8443");
        let url = Url::parse("https://x/a%20b/c").unwrap();
        assert_eq!(path(&url, "s3"), "/a%20b/c");
        assert_eq!(path(&url, "ecr"), "/a%2520b/c");
        let url = Url::parse("https://x/?b=2&a=a%20b+c&a=%C3%A9/&c").unwrap();
        assert_eq!(query(&url), "a=%C3%A9%2F&a=a%20b%20c&b=2&c=");
    }
}
