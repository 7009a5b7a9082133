//! Google's registries: an access token is the password of the user `oauth2accesstoken`.
//!
//! Identities, in the order of Google's own libraries: the file of GOOGLE_APPLICATION_CREDENTIALS, the file that
//! `gcloud auth application-default login` writes, the machine's service account. Kinds of files: `service_account` (a signed claim
//! buys the token), `authorized_user` (a refresh token), `external_account` (another system's token, from a file or a URL, perhaps to
//! act for a service account), `impersonated_service_account`.
//!
//! A file decides which hosts are asked, and some of these files come from elsewhere: tokens and claims go to Google's own hosts only.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use jiff::Timestamp;
use reqwest::Url;
use serde::Deserialize;
use serde_json::json;

use super::super::auth_file::Credential;
use super::call::{Call, Caller, private_url, read_secret};
use super::error::LoginError;
use super::jwt;
use super::kind::Pass;
use crate::vocab::Secret;

const VARIABLE: &str = "GOOGLE_APPLICATION_CREDENTIALS";
const USER: &str = "oauth2accesstoken";
const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";
const TOKEN_SERVICE: &str = "https://oauth2.googleapis.com/token";
const EXCHANGE: &str = "https://sts.googleapis.com/v1/token";
const MACHINE: &str =
    "http://169.254.169.254/computeMetadata/v1/instance/service-accounts/default/token";
const ASKED: &str = "an access token";
/// Of a token that says nothing, and more than any has.
const LIFETIME: u64 = 3600;

/// Tells whether a host is Google's: `gcr.io`, `*.gcr.io`, `*.pkg.dev`.
pub(super) fn is_registry(registry: &str) -> bool {
    let is_below = |domain: &str| {
        registry
            .strip_suffix(domain)
            .and_then(|rest| rest.strip_suffix('.'))
            .is_some_and(is_name)
    };
    registry == "gcr.io" || is_below("gcr.io") || is_below("pkg.dev")
}

/// Tells whether this is one or more labels of a host name.
pub(super) fn is_name(text: &str) -> bool {
    text.split('.').all(|label| {
        !label.is_empty()
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    })
}

/// A token and the seconds that it lives.
struct Access {
    token: Secret<String>,
    seconds: u64,
}

impl Access {
    fn into_pass(self) -> Pass {
        Pass {
            credential: Credential::Password {
                user: USER.to_owned(),
                password: self.token,
            },
            lifetime: Duration::from_secs(self.seconds.min(LIFETIME)),
        }
    }
}

#[derive(Deserialize)]
struct Answer {
    access_token: String,
    expires_in: Option<u64>,
}

impl Answer {
    fn into_access(self) -> Access {
        Access {
            token: Secret::new(self.access_token),
            seconds: self.expires_in.unwrap_or(LIFETIME),
        }
    }
}

/// A file of credentials.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum File {
    ServiceAccount {
        client_email: String,
        private_key: String,
        private_key_id: Option<String>,
        token_uri: Option<String>,
    },
    AuthorizedUser {
        client_id: String,
        client_secret: String,
        refresh_token: String,
    },
    ExternalAccount {
        audience: String,
        subject_token_type: String,
        token_url: Option<String>,
        credential_source: Source,
        service_account_impersonation_url: Option<String>,
    },
    ImpersonatedServiceAccount {
        service_account_impersonation_url: String,
        source_credentials: Box<File>,
        delegates: Option<Vec<String>>,
    },
    #[serde(other)]
    Other,
}

/// Where another system's token is.
#[derive(Deserialize)]
struct Source {
    file: Option<PathBuf>,
    url: Option<String>,
    headers: Option<BTreeMap<String, String>>,
    format: Option<Format>,
}

#[derive(Deserialize)]
struct Format {
    #[serde(rename = "type")]
    kind: Option<String>,
    subject_token_field_name: Option<String>,
}

/// Logs in; `None` if there is no identity.
pub(super) async fn log_in(caller: &Caller<'_>) -> Result<Option<Pass>, LoginError> {
    let environment = caller.environment;
    let named = environment.path(VARIABLE);
    let usual = environment
        .path("CLOUDSDK_CONFIG")
        .or_else(|| environment.user_config("gcloud"))
        .map(|directory| directory.join("application_default_credentials.json"));
    let found = match (named, usual) {
        (Some(path), _) => Some((read_secret(&path)?, path)),
        // One that is missing, or another user's, says nothing.
        (None, Some(path)) => read_secret(&path).ok().map(|text| (text, path)),
        (None, None) => None,
    };
    let Some((text, path)) = found else {
        return of_machine(caller).await;
    };
    // The parser's own message might quote a key.
    let file: File = serde_json::from_str(text.reveal())
        .map_err(|_| wrong(&path, "it is no JSON of a known kind of credentials"))?;
    let access = of_file(caller, &path, file).await?;
    Ok(Some(access.into_pass()))
}

fn wrong(path: &Path, what: impl Into<String>) -> LoginError {
    LoginError::setting(path.display().to_string(), what)
}

/// A file may hold another one; each future that may hold itself lies on the heap.
fn of_file<'a>(
    caller: &'a Caller<'_>,
    path: &'a Path,
    file: File,
) -> Pin<Box<dyn Future<Output = Result<Access, LoginError>> + Send + 'a>> {
    Box::pin(async move {
        match file {
            File::ServiceAccount {
                client_email,
                private_key,
                private_key_id,
                token_uri,
            } => {
                let service = googles(path, "token_uri", token_uri.as_deref(), TOKEN_SERVICE)?;
                let now = Timestamp::now().as_second();
                let claims = json!({
                    "iss": client_email,
                    "scope": SCOPE,
                    "aud": service,
                    "iat": now,
                    "exp": now + 3600,
                });
                let key = Secret::new(private_key);
                let claim = jwt::sign(&key, private_key_id.as_deref(), &claims)
                    .map_err(|what| wrong(path, format!("its `private_key` {what}")))?;
                let fields = [
                    ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"),
                    ("assertion", claim.reveal()),
                ];
                let call = Call::form(service, &fields, ASKED).hiding(claim.reveal());
                let answer: Answer = caller.call(&call).await?.json()?;
                Ok(answer.into_access())
            }
            File::AuthorizedUser {
                client_id,
                client_secret,
                refresh_token,
            } => {
                let fields = [
                    ("grant_type", "refresh_token"),
                    ("client_id", &client_id),
                    ("client_secret", &client_secret),
                    ("refresh_token", &refresh_token),
                ];
                let call = Call::form(TOKEN_SERVICE, &fields, ASKED)
                    .hiding(&client_secret)
                    .hiding(&refresh_token);
                let answer: Answer = caller.call(&call).await?.json()?;
                Ok(answer.into_access())
            }
            File::ExternalAccount {
                audience,
                subject_token_type,
                token_url,
                credential_source,
                service_account_impersonation_url,
            } => {
                let service = googles(path, "token_url", token_url.as_deref(), EXCHANGE)?;
                let subject = subject(caller, path, &credential_source).await?;
                let fields = [
                    (
                        "grant_type",
                        "urn:ietf:params:oauth:grant-type:token-exchange",
                    ),
                    (
                        "requested_token_type",
                        "urn:ietf:params:oauth:token-type:access_token",
                    ),
                    ("audience", &audience),
                    ("scope", SCOPE),
                    ("subject_token_type", &subject_token_type),
                    ("subject_token", subject.reveal()),
                ];
                let call = Call::form(service, &fields, ASKED).hiding(subject.reveal());
                let answer: Answer = caller.call(&call).await?.json()?;
                let access = answer.into_access();
                match service_account_impersonation_url {
                    Some(url) => act_for(caller, path, &url, &access, &[]).await,
                    None => Ok(access),
                }
            }
            File::ImpersonatedServiceAccount {
                service_account_impersonation_url,
                source_credentials,
                delegates,
            } => {
                let access = of_file(caller, path, *source_credentials).await?;
                let delegates = delegates.unwrap_or_default();
                let url = service_account_impersonation_url;
                act_for(caller, path, &url, &access, &delegates).await
            }
            File::Other => Err(wrong(path, "its `type` is not known")),
        }
    })
}

/// Returns the URL that a file names, if it is a service of Google's.
fn googles(
    path: &Path,
    field: &str,
    said: Option<&str>,
    usual: &str,
) -> Result<String, LoginError> {
    let Some(said) = said else {
        return Ok(usual.to_owned());
    };
    let url = Url::parse(said).ok().filter(|url| {
        let host = url.host_str().unwrap_or_default();
        let name = host.strip_suffix(".googleapis.com");
        url.scheme() == "https"
            && url.port().is_none()
            && url.username().is_empty()
            && name.is_some_and(is_name)
    });
    let is_old_name = said == "https://accounts.google.com/o/oauth2/token";
    match url {
        Some(url) => Ok(url.to_string()),
        None if is_old_name => Ok(said.to_owned()),
        None => Err(wrong(
            path,
            format!("its `{field}` is no service of googleapis.com"),
        )),
    }
}

/// Reads the token of another system.
async fn subject(
    caller: &Caller<'_>,
    path: &Path,
    source: &Source,
) -> Result<Secret<String>, LoginError> {
    const ASKED: &str = "another system's token";
    let text = match (&source.file, &source.url) {
        (Some(file), _) => read_secret(file)?,
        (None, Some(url)) => {
            let place = format!("{}: credential_source.url", path.display());
            let mut call = Call::get(private_url(&place, url)?, ASKED);
            for (name, value) in source.headers.iter().flatten() {
                let name = match name.to_ascii_lowercase().as_str() {
                    "authorization" => "authorization",
                    "metadata" => "metadata",
                    "accept" => "accept",
                    "x-identity-header" => "x-identity-header",
                    _ => {
                        let what = format!("the header `{name}` of its URL is not sent here");
                        return Err(wrong(path, what));
                    }
                };
                call = call.header(name, value);
            }
            let reply = caller.call(&call).await?;
            if !reply.is_success() {
                return Err(reply.refusal());
            }
            reply.text()
        }
        (None, None) => {
            return Err(wrong(
                path,
                "its `credential_source` is neither a file nor a URL: programs, certificates and AWS's keys are not used for this",
            ));
        }
    };
    let is_json = source
        .format
        .as_ref()
        .is_some_and(|format| format.kind.as_deref() == Some("json"));
    if !is_json {
        return Ok(Secret::new(text.reveal().trim().to_owned()));
    }
    let field = source
        .format
        .as_ref()
        .and_then(|format| format.subject_token_field_name.as_deref())
        .unwrap_or("access_token");
    let value: Option<serde_json::Value> = serde_json::from_str(text.reveal()).ok();
    value
        .as_ref()
        .and_then(|value| value.get(field)?.as_str())
        .map(|token| Secret::new(token.to_owned()))
        .ok_or_else(|| {
            let what = format!("its `credential_source` leads to no JSON with a `{field}`");
            wrong(path, what)
        })
}

/// Buys the token of a service account that one may act for.
async fn act_for(
    caller: &Caller<'_>,
    path: &Path,
    url: &str,
    access: &Access,
    delegates: &[String],
) -> Result<Access, LoginError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Bought {
        access_token: String,
        expire_time: Option<String>,
    }
    let url = googles(path, "service_account_impersonation_url", Some(url), "")?;
    let mut body = json!({"scope": [SCOPE], "lifetime": "3600s"});
    if !delegates.is_empty() {
        body["delegates"] = json!(delegates);
    }
    let call = Call::post(
        url,
        Secret::new(body.to_string()),
        "a service account's token",
    )
    .header("content-type", "application/json")
    .header(
        "authorization",
        &format!("Bearer {}", access.token.reveal()),
    );
    let bought: Bought = caller.call(&call).await?.json()?;
    let now = Timestamp::now().as_second();
    let end = bought.expire_time.and_then(|end| end.parse().ok());
    let seconds = end.map_or(LIFETIME as i64, |end: Timestamp| end.as_second() - now);
    Ok(Access {
        token: Secret::new(bought.access_token),
        seconds: seconds.max(0).unsigned_abs(),
    })
}

async fn of_machine(caller: &Caller<'_>) -> Result<Option<Pass>, LoginError> {
    if !caller.is_there(MACHINE).await {
        return Ok(None);
    }
    let call = Call::get(MACHINE, "the machine's access token").header("metadata-flavor", "Google");
    let reply = caller.call(&call).await?;
    let is_googles = reply
        .headers
        .get("metadata-flavor")
        .is_some_and(|flavor| flavor == "Google");
    // Other clouds' services have the same address; a machine may be without a service account.
    if !is_googles || reply.status == 404 {
        return Ok(None);
    }
    let answer: Answer = reply.json()?;
    Ok(Some(answer.into_access().into_pass()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_go_to_google_only() {
        let check = |url: &str, is_fine: bool| {
            let found = googles(Path::new("f"), "token_uri", Some(url), TOKEN_SERVICE);
            assert_eq!(found.is_ok(), is_fine, "{url}");
        };
        check("https://oauth2.googleapis.com/token", true);
        check("https://sts.us-east1.rep.googleapis.com/v1/token", true);
        check("https://accounts.google.com/o/oauth2/token", true);
        check("http://oauth2.googleapis.com/token", false);
        check("https://oauth2.googleapis.com.evil.com/token", false);
        check("https://evilgoogleapis.com/token", false);
        check("https://oauth2.googleapis.com:8443/token", false);
        check("https://oauth2.googleapis.com@evil.com/token", false);
        check("https://user@oauth2.googleapis.com/token", false);
        check("https://169.254.169.254/token", false);
        check("nonsense", false);
        let usual = googles(Path::new("f"), "token_uri", None, TOKEN_SERVICE);
        assert_eq!(usual.unwrap(), TOKEN_SERVICE);
    }
}
