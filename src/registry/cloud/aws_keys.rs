//! Where AWS keys come from, in the order of AWS's own tools: variables, a web identity (IRSA), a profile, the container (ECS, EKS pod
//! identity), the machine (EC2).
//!
//! Profiles may hold keys, a web identity, or a role that is taken with another profile's keys. What asks a person or starts a program
//! (single sign-on, MFA, `credential_process`) is refused by name.

use std::path::PathBuf;

use reqwest::Method;
use serde::Deserialize;

use super::call::{Call, Caller, private_url, read_secret};
use super::error::LoginError;
use super::profile::Profile;
use super::sigv4::Keys;
use super::sts::{Role, assume_with_keys, assume_with_token};
use crate::vocab::Secret;

const CONTAINER: &str = "http://169.254.170.2";
const MACHINE: &str = "http://169.254.169.254/latest";
const OF_CONTAINER: &str = "keys of the container's role";
const OF_MACHINE: &str = "keys of the machine's role";
/// Profiles that lead to profiles.
const MOST_PROFILES: usize = 5;

/// Keys as the container's and the machine's services give them.
#[derive(Deserialize)]
struct Served {
    #[serde(rename = "AccessKeyId")]
    id: String,
    #[serde(rename = "SecretAccessKey")]
    secret: String,
    #[serde(rename = "Token")]
    token: Option<String>,
}

impl Served {
    fn into_keys(self) -> Keys {
        Keys {
            id: self.id,
            secret: Secret::new(self.secret),
            session: self
                .token
                .filter(|token| !token.is_empty())
                .map(Secret::new),
        }
    }
}

/// Finds keys; `None` if there are none on this machine. `region` is where roles are taken if no variable says another one.
pub(in super::super) async fn find(
    caller: &Caller<'_>,
    region: &str,
) -> Result<Option<Keys>, LoginError> {
    let region = region_for_roles(caller, region)?;
    if let Some(keys) = of_variables(caller)? {
        return Ok(Some(keys));
    }
    if let Some(keys) = of_web_identity(caller, &region).await? {
        return Ok(Some(keys));
    }
    if let Some(keys) = of_profile(caller, &region).await? {
        return Ok(Some(keys));
    }
    if let Some(keys) = of_container(caller).await? {
        return Ok(Some(keys));
    }
    of_machine(caller).await
}

fn region_for_roles(caller: &Caller<'_>, region: &str) -> Result<String, LoginError> {
    for name in ["AWS_REGION", "AWS_DEFAULT_REGION"] {
        if let Some(said) = caller.environment.text(name) {
            if !is_region(&said) {
                return Err(LoginError::setting(name, "it is no region"));
            }
            return Ok(said);
        }
    }
    Ok(region.to_owned())
}

/// Returns the region that the chosen profile names, if it can be read.
pub(in super::super) fn region_of_profile(caller: &Caller<'_>) -> Option<String> {
    let named = ["AWS_PROFILE", "AWS_DEFAULT_PROFILE"].into_iter();
    let mut named = named.filter_map(|name| caller.environment.text(name));
    let name = named.next().unwrap_or_else(|| "default".to_owned());
    let config = text_of(caller, "AWS_CONFIG_FILE", "config").ok()?;
    let profile = Profile::find("", config.reveal(), &name)?;
    let region = profile.get("region")?;
    is_region(region).then(|| region.to_owned())
}

/// Tells whether this can be a region: it becomes a part of host names.
pub(super) fn is_region(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with('-')
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

fn of_variables(caller: &Caller<'_>) -> Result<Option<Keys>, LoginError> {
    let text = |name: &str| caller.environment.text(name);
    let Some(id) = text("AWS_ACCESS_KEY_ID") else {
        return Ok(None);
    };
    let secret = text("AWS_SECRET_ACCESS_KEY").ok_or_else(|| {
        LoginError::setting(
            "AWS_SECRET_ACCESS_KEY",
            "it is not set, and AWS_ACCESS_KEY_ID is",
        )
    })?;
    Ok(Some(Keys {
        id,
        secret: Secret::new(secret),
        session: text("AWS_SESSION_TOKEN").map(Secret::new),
    }))
}

async fn of_web_identity(caller: &Caller<'_>, region: &str) -> Result<Option<Keys>, LoginError> {
    let Some(path) = caller.environment.path("AWS_WEB_IDENTITY_TOKEN_FILE") else {
        return Ok(None);
    };
    let arn = caller.environment.text("AWS_ROLE_ARN").ok_or_else(|| {
        LoginError::setting(
            "AWS_ROLE_ARN",
            "it is not set, and AWS_WEB_IDENTITY_TOKEN_FILE is",
        )
    })?;
    let role = Role {
        arn,
        session: caller.environment.text("AWS_ROLE_SESSION_NAME"),
        external_id: None,
    };
    let token = read_secret(&path)?;
    let keys = assume_with_token(caller, region, &role, &token).await?;
    Ok(Some(keys))
}

async fn of_profile(caller: &Caller<'_>, region: &str) -> Result<Option<Keys>, LoginError> {
    let environment = caller.environment;
    let named = ["AWS_PROFILE", "AWS_DEFAULT_PROFILE"]
        .into_iter()
        .find_map(|name| environment.text(name));
    let credentials = text_of(caller, "AWS_SHARED_CREDENTIALS_FILE", "credentials")?;
    let config = text_of(caller, "AWS_CONFIG_FILE", "config")?;
    let find = |name: &str| Profile::find(credentials.reveal(), config.reveal(), name);
    let missing =
        |name: &str| LoginError::setting("AWS_PROFILE", format!("there is no profile `{name}`"));
    let mut name = named.clone().unwrap_or_else(|| "default".to_owned());
    let mut profile = match (find(&name), named) {
        (Some(profile), _) => profile,
        (None, Some(named)) => return Err(missing(&named)),
        (None, None) => return Ok(None),
    };
    // The roles on the way, the first one last.
    let mut roles = Vec::new();
    let first = loop {
        let in_profile =
            |what: &str| LoginError::setting(format!("AWS profile {name}"), what.to_owned());
        let role = profile.get("role_arn").map(|arn| Role {
            arn: arn.to_owned(),
            session: profile.get("role_session_name").map(str::to_owned),
            external_id: profile.get("external_id").map(str::to_owned),
        });
        let Some(role) = role else {
            match keys_in(&profile).map_err(in_profile)? {
                Some(keys) => break keys,
                // A profile with nothing but a region is how most machines have it.
                None if roles.is_empty() => return Ok(None),
                None => return Err(in_profile("it has no keys")),
            }
        };
        if profile.get("mfa_serial").is_some() {
            return Err(in_profile(
                "its role wants an MFA code, which nobody is asked for",
            ));
        }
        if let Some(path) = profile.get("web_identity_token_file") {
            let token = read_secret(&PathBuf::from(path))?;
            break assume_with_token(caller, region, &role, &token).await?;
        }
        roles.push(role);
        if roles.len() > MOST_PROFILES {
            return Err(in_profile("its `source_profile` leads in a circle"));
        }
        if let Some(source) = profile.get("credential_source") {
            let keys = match source {
                "Environment" => of_variables(caller)?,
                "EcsContainer" => of_container(caller).await?,
                "Ec2InstanceMetadata" => of_machine(caller).await?,
                _ => return Err(in_profile("its `credential_source` is not known")),
            };
            match keys {
                Some(keys) => break keys,
                None => return Err(in_profile("its `credential_source` has no keys")),
            }
        }
        let Some(source) = profile.get("source_profile").map(str::to_owned) else {
            return Err(in_profile("its role has no source of keys"));
        };
        // A profile may name itself, for its own keys.
        if source == name {
            match keys_in(&profile).map_err(in_profile)? {
                Some(keys) => break keys,
                None => return Err(in_profile("it has no keys")),
            }
        }
        profile = find(&source).ok_or_else(|| missing(&source))?;
        name = source;
    };
    let mut keys = first;
    while let Some(role) = roles.pop() {
        keys = assume_with_keys(caller, region, &role, &keys).await?;
    }
    Ok(Some(keys))
}

/// Returns the keys that a profile holds itself.
fn keys_in(profile: &Profile) -> Result<Option<Keys>, &'static str> {
    match (
        profile.get("aws_access_key_id"),
        profile.get("aws_secret_access_key"),
    ) {
        (Some(id), Some(secret)) => Ok(Some(Keys {
            id: id.to_owned(),
            secret: Secret::new(secret.to_owned()),
            session: profile
                .get("aws_session_token")
                .map(|token| Secret::new(token.to_owned())),
        })),
        (Some(_), None) => Err("it has no `aws_secret_access_key`"),
        (None, _) if profile.get("credential_process").is_some() => Err(
            "its `credential_process` is not started; give its keys in variables, or log in with `builder login`",
        ),
        (None, _)
            if profile
                .get("sso_start_url")
                .or(profile.get("sso_session"))
                .is_some() =>
        {
            Err(
                "single sign-on is not done here; `aws configure export-credentials --format env` gives keys",
            )
        }
        (None, _) => Ok(None),
    }
}

/// Reads a file that a variable names, or that may lie in the home directory.
fn text_of(caller: &Caller<'_>, variable: &str, file: &str) -> Result<Secret<String>, LoginError> {
    if let Some(path) = caller.environment.path(variable) {
        return read_secret(&path);
    }
    let text = caller
        .environment
        .home(".aws")
        .and_then(|directory| std::fs::read_to_string(directory.join(file)).ok());
    // One that is missing, or another user's, says nothing.
    Ok(Secret::new(text.unwrap_or_default()))
}

async fn of_container(caller: &Caller<'_>) -> Result<Option<Keys>, LoginError> {
    const FULL: &str = "AWS_CONTAINER_CREDENTIALS_FULL_URI";
    let environment = caller.environment;
    let url = match environment.text("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI") {
        Some(path) if path.starts_with('/') => format!("{CONTAINER}{path}"),
        Some(_) => {
            return Err(LoginError::setting(
                "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
                "it does not begin with a slash",
            ));
        }
        None => match environment.text(FULL) {
            Some(url) => private_url(FULL, &url)?.to_string(),
            None => return Ok(None),
        },
    };
    let mut call = Call::get(url, OF_CONTAINER);
    let token = match environment.path("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE") {
        Some(path) => Some(read_secret(&path)?.reveal().trim().to_owned()),
        None => environment.text("AWS_CONTAINER_AUTHORIZATION_TOKEN"),
    };
    if let Some(token) = token {
        call = call.header("authorization", &token);
    }
    let served: Served = caller.call(&call).await?.json()?;
    Ok(Some(served.into_keys()))
}

async fn of_machine(caller: &Caller<'_>) -> Result<Option<Keys>, LoginError> {
    let disabled = caller.environment.text("AWS_EC2_METADATA_DISABLED");
    if disabled.is_some_and(|text| text.eq_ignore_ascii_case("true")) {
        return Ok(None);
    }
    if !caller.is_there(MACHINE).await {
        return Ok(None);
    }
    let mut call = Call::get(format!("{MACHINE}/api/token"), OF_MACHINE)
        .header("x-aws-ec2-metadata-token-ttl-seconds", "300");
    call.method = Method::PUT;
    let reply = caller.call(&call).await?;
    if reply.status == 404 {
        // Another cloud's service has the same address.
        return Ok(None);
    }
    if !reply.is_success() {
        return Err(reply.refusal());
    }
    let token = reply.text();
    let roles = format!("{MACHINE}/meta-data/iam/security-credentials/");
    let read = |url: &str| {
        Call::get(url, OF_MACHINE).header("x-aws-ec2-metadata-token", token.reveal().trim())
    };
    let reply = caller.call(&read(&roles)).await?;
    if reply.status == 404 {
        return Ok(None);
    }
    if !reply.is_success() {
        return Err(reply.refusal());
    }
    let text = reply.text();
    let role = text.reveal().lines().next().unwrap_or_default().trim();
    let is_role = !role.is_empty()
        && role
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"+=,.@_-".contains(&byte));
    if !is_role {
        return Err(reply.nonsense());
    }
    let served: Served = caller
        .call(&read(&format!("{roles}{role}")))
        .await?
        .json()?;
    Ok(Some(served.into_keys()))
}
