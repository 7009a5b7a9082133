//! Azure's registries: an access token of the directory buys a refresh token of the registry, which the token flow then uses.
//!
//! Identities, in order: a client's secret, a workload identity (a cluster's or CI system's token in a file), a managed identity (of an
//! app service, else of the machine). The registry's domain says which of Azure's clouds it is in, and so which directory is asked.

use std::time::Duration;

use jiff::Timestamp;
use reqwest::Url;
use serde::Deserialize;

use super::super::auth_file::Credential;
use super::call::{Call, Caller, form, private_url, read_secret};
use super::error::LoginError;
use super::google::is_name;
use super::jwt;
use super::kind::Pass;
use crate::vocab::Secret;

/// The user that stands for a token.
const USER: &str = "00000000-0000-0000-0000-000000000000";
/// Whom tokens are for: all registries, in all of Azure's clouds.
const AUDIENCE: &str = "https://containerregistry.azure.net";
const MACHINE: &str = "http://169.254.169.254/metadata/identity/oauth2/token";
const ASKED: &str = "an access token";
const ENDPOINT: &str = "IDENTITY_ENDPOINT";
/// Of a token that does not say when it ends; real ones live three hours.
const LIFETIME: Duration = Duration::from_secs(3600);

/// Domains of registries, and the directories beside them.
const CLOUDS: [(&str, &[&str]); 3] = [
    ("azurecr.io", &["login.microsoftonline.com"]),
    (
        "azurecr.cn",
        &["login.chinacloudapi.cn", "login.partner.microsoftonline.cn"],
    ),
    ("azurecr.us", &["login.microsoftonline.us"]),
];

/// One of Azure's registries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Acr {
    registry: String,
    directories: &'static [&'static str],
}

#[derive(Deserialize)]
struct Access {
    access_token: String,
}

#[derive(Deserialize)]
struct Refresh {
    refresh_token: String,
}

impl Acr {
    /// Recognizes a registry: `NAME.azurecr.io` and its kin.
    pub(super) fn of_registry(registry: &str) -> Option<Acr> {
        CLOUDS.iter().find_map(|(domain, directories)| {
            let name = registry.strip_suffix(domain)?.strip_suffix('.')?;
            is_name(name).then(|| Acr {
                registry: registry.to_owned(),
                directories,
            })
        })
    }

    /// Logs in; `None` if there is no identity.
    pub(super) async fn log_in(&self, caller: &Caller<'_>) -> Result<Option<Pass>, LoginError> {
        let Some(access) = self.access(caller).await? else {
            return Ok(None);
        };
        let mut fields = vec![
            ("grant_type", "access_token"),
            ("service", self.registry.as_str()),
            ("access_token", access.reveal()),
        ];
        let tenant = caller.environment.text("AZURE_TENANT_ID");
        fields.extend(tenant.as_deref().map(|tenant| ("tenant", tenant)));
        let call = Call::form(
            format!("https://{}/oauth2/exchange", self.registry),
            &fields,
            "a refresh token",
        )
        .hiding(access.reveal());
        let refresh: Refresh = caller.call(&call).await?.json()?;
        let now = Timestamp::now().as_second();
        let lifetime = jwt::end(&refresh.refresh_token)
            .map(|end| Duration::from_secs((end - now).max(0).unsigned_abs()));
        Ok(Some(Pass {
            credential: Credential::Identity {
                user: USER.to_owned(),
                token: Secret::new(refresh.refresh_token),
            },
            lifetime: lifetime.unwrap_or(LIFETIME).min(LIFETIME * 3),
        }))
    }

    async fn access(&self, caller: &Caller<'_>) -> Result<Option<Secret<String>>, LoginError> {
        let text = |name: &str| caller.environment.text(name);
        let answer: Access = if let Some(secret) = text("AZURE_CLIENT_SECRET") {
            let fields = [("client_secret", secret.as_str())];
            self.of_directory(caller, &fields).await?
        } else if let Some(path) = caller.environment.path("AZURE_FEDERATED_TOKEN_FILE") {
            let token = read_secret(&path)?;
            let fields = [
                (
                    "client_assertion_type",
                    "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
                ),
                ("client_assertion", token.reveal().trim()),
            ];
            self.of_directory(caller, &fields).await?
        } else if let Some(endpoint) = text(ENDPOINT) {
            of_service(caller, &endpoint).await?
        } else if caller.is_there(MACHINE).await {
            match of_machine(caller).await? {
                Some(answer) => answer,
                None => return Ok(None),
            }
        } else {
            return Ok(None);
        };
        Ok(Some(Secret::new(answer.access_token)))
    }

    /// Buys a token at the directory; the last of `proof` is the secret.
    async fn of_directory(
        &self,
        caller: &Caller<'_>,
        proof: &[(&str, &str)],
    ) -> Result<Access, LoginError> {
        let needed = |name: &str| {
            caller.environment.text(name).ok_or_else(|| {
                let what = "it is not set; AZURE_CLIENT_ID and AZURE_TENANT_ID belong to a secret or token file";
                LoginError::setting(name, what)
            })
        };
        let (client, tenant) = (needed("AZURE_CLIENT_ID")?, needed("AZURE_TENANT_ID")?);
        if !is_name(&tenant) {
            return Err(LoginError::setting("AZURE_TENANT_ID", "it is no tenant"));
        }
        let url = format!(
            "https://{}/{tenant}/oauth2/v2.0/token",
            self.directory(caller)?
        );
        let scope = format!("{AUDIENCE}/.default");
        let mut fields = vec![
            ("grant_type", "client_credentials"),
            ("client_id", client.as_str()),
            ("scope", scope.as_str()),
        ];
        fields.extend(proof);
        let secret = proof.last().map_or("", |(_, secret)| *secret);
        let call = Call::form(url, &fields, ASKED).hiding(secret);
        caller.call(&call).await?.json()
    }

    /// Returns the directory's host. A variable may choose among those that belong to the registry's cloud.
    fn directory(&self, caller: &Caller<'_>) -> Result<&'static str, LoginError> {
        const VARIABLE: &str = "AZURE_AUTHORITY_HOST";
        let Some(said) = caller.environment.text(VARIABLE) else {
            return Ok(self.directories[0]);
        };
        let host = said.strip_prefix("https://").unwrap_or(&said);
        let host = host.trim_end_matches('/');
        self.directories
            .iter()
            .copied()
            .find(|directory| *directory == host)
            .ok_or_else(|| {
                let what = format!(
                    "registries of this domain belong to `{}`",
                    self.directories[0]
                );
                LoginError::setting(VARIABLE, what)
            })
    }
}

/// Asks the service that an app has beside it.
async fn of_service(caller: &Caller<'_>, endpoint: &str) -> Result<Access, LoginError> {
    let url = private_url(ENDPOINT, endpoint)?;
    let Some(header) = caller.environment.text("IDENTITY_HEADER") else {
        let what = match caller.environment.text("IMDS_ENDPOINT") {
            Some(_) => "identities of Azure Arc are not used here",
            None => "IDENTITY_HEADER is not set",
        };
        return Err(LoginError::setting(ENDPOINT, what));
    };
    let call = Call::get(
        with_query(caller, url, "2019-08-01"),
        "the app's access token",
    )
    .header("x-identity-header", &header);
    caller.call(&call).await?.json()
}

async fn of_machine(caller: &Caller<'_>) -> Result<Option<Access>, LoginError> {
    let url = Url::parse(MACHINE).expect("the constant is a URL");
    let call = Call::get(
        with_query(caller, url, "2018-02-01"),
        "the machine's access token",
    )
    .header("metadata", "true");
    let reply = caller.call(&call).await?;
    // Another cloud's service has the same address; 400 is what Azure's says where there is no identity.
    if reply.status == 404 || (reply.status == 400 && reply.text().reveal().contains("not found")) {
        return Ok(None);
    }
    reply.json().map(Some)
}

/// Adds what is asked for, and for which of several identities.
fn with_query(caller: &Caller<'_>, mut url: Url, version: &str) -> Url {
    let id = caller.environment.text("AZURE_CLIENT_ID");
    let mut fields = vec![("api-version", version), ("resource", AUDIENCE)];
    fields.extend(id.as_deref().map(|id| ("client_id", id)));
    let query = form(&fields);
    url.set_query(Some(query.reveal()));
    url
}
