//! AWS's token service: keys for a role, in exchange for another cloud's or cluster's token, or for other keys.
//!
//! Its answers are XML of a fixed form, of which a few elements without attributes are read; see [`element`].

use jiff::Timestamp;
use reqwest::Url;

use super::call::{Call, Caller, Reply, form};
use super::error::LoginError;
use super::sigv4::{Keys, Request, Scope, hash, sign};
use crate::vocab::Secret;

const VERSION: &str = "2011-06-15";
const SESSION: &str = "builder";
const ASKED: &str = "keys for a role";

/// The role to take.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Role {
    pub(super) arn: String,
    pub(super) session: Option<String>,
    pub(super) external_id: Option<String>,
}

impl Role {
    fn fields<'a>(&'a self, action: &'a str) -> Vec<(&'a str, &'a str)> {
        let session = self.session.as_deref().unwrap_or(SESSION);
        let mut fields = vec![
            ("Action", action),
            ("Version", VERSION),
            ("RoleArn", self.arn.as_str()),
            ("RoleSessionName", session),
        ];
        fields.extend(self.external_id.as_deref().map(|id| ("ExternalId", id)));
        fields
    }
}

/// Takes a role with a token that somebody else has signed.
pub(super) async fn assume_with_token(
    caller: &Caller<'_>,
    region: &str,
    role: &Role,
    token: &Secret<String>,
) -> Result<Keys, LoginError> {
    let mut fields = role.fields("AssumeRoleWithWebIdentity");
    fields.push(("WebIdentityToken", token.reveal().trim()));
    let call = Call::form(url(region), &fields, ASKED).hiding(token.reveal().trim());
    keys_of(&caller.call(&call).await?)
}

/// Takes a role with the keys of another account or role.
pub(super) async fn assume_with_keys(
    caller: &Caller<'_>,
    region: &str,
    role: &Role,
    keys: &Keys,
) -> Result<Keys, LoginError> {
    let url = url(region);
    let body = form(&role.fields("AssumeRole"));
    let call = signed_post(
        keys,
        Scope {
            region,
            service: "sts",
        },
        &url,
        body,
        &[("content-type", "application/x-www-form-urlencoded")],
        ASKED,
    )?;
    keys_of(&caller.call(&call).await?)
}

/// Makes a signed request with a body.
pub(super) fn signed_post<'a>(
    keys: &'a Keys,
    scope: Scope<'_>,
    url: &str,
    body: Secret<String>,
    headers: &[(&'static str, &str)],
    asked: &'static str,
) -> Result<Call<'a>, LoginError> {
    let parsed = Url::parse(url).map_err(|_| LoginError::setting(url, "it is no URL"))?;
    let payload = hash(body.reveal().as_bytes());
    let request = Request {
        method: "POST",
        url: &parsed,
        headers,
        payload: &payload,
    };
    let mut call = Call::post(url, body, asked);
    for (name, value) in headers {
        call = call.header(name, value);
    }
    call.headers
        .extend(sign(keys, scope, &request, Timestamp::now()));
    let session = keys.session.as_ref();
    call.secrets
        .extend(session.map(|session| session.reveal().as_str()));
    Ok(call.hiding(keys.secret.reveal()))
}

/// Returns the domain of a region's services.
pub(in super::super) fn domain(region: &str) -> &'static str {
    if region.starts_with("cn-") {
        "amazonaws.com.cn"
    } else if region.starts_with("eusc-") {
        "amazonaws.eu"
    } else {
        "amazonaws.com"
    }
}

fn url(region: &str) -> String {
    format!("https://sts.{region}.{}/", domain(region))
}

fn keys_of(reply: &Reply) -> Result<Keys, LoginError> {
    if !reply.is_success() {
        return Err(reply.refusal());
    }
    let text = reply.text();
    let part = |name: &str| {
        element(text.reveal(), name)
            .filter(|text| !text.is_empty())
            .ok_or_else(|| reply.nonsense())
    };
    Ok(Keys {
        id: part("AccessKeyId")?,
        secret: Secret::new(part("SecretAccessKey")?),
        session: Some(Secret::new(part("SessionToken")?)),
    })
}

/// Returns the text of the first element of this name, if it has no attributes and no children.
pub(super) fn element(xml: &str, name: &str) -> Option<String> {
    let (_, after) = xml.split_once(&format!("<{name}>"))?;
    let (text, _) = after.split_once(&format!("</{name}>"))?;
    let text = text
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&quot;", "\"")
        .replace("&apos;", "'")
        .replace("&amp;", "&");
    Some(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_read() {
        let xml =
            "<A><Credentials>\n<SessionToken>a+/=&amp;lt;b</SessionToken>\n<X/></Credentials></A>";
        assert_eq!(element(xml, "SessionToken").as_deref(), Some("a+/=&lt;b"));
        assert_eq!(element(xml, "X"), None);
        assert_eq!(element("<Code>", "Code"), None);
        assert_eq!(element("", "Code"), None);
    }

    #[test]
    fn regions_have_their_domains() {
        for (region, expected) in [
            ("eu-west-1", "https://sts.eu-west-1.amazonaws.com/"),
            ("cn-north-1", "https://sts.cn-north-1.amazonaws.com.cn/"),
            ("eusc-de-east-1", "https://sts.eusc-de-east-1.amazonaws.eu/"),
        ] {
            assert_eq!(url(region), expected);
        }
    }
}
