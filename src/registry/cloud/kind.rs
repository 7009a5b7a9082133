//! Which cloud a registry's host is of, and who logs in there.
//!
//! A host counts as a cloud's only where every part of its name says so: a name that merely ends in the same letters, goes on after
//! them, or has a port is somebody else's.

use std::time::Duration;

use super::super::auth_file::Credential;
use super::super::environment::Environment;
use super::azure::Acr;
use super::call::Caller;
use super::ecr::Ecr;
use super::error::LoginError;
use super::google;

/// A registry that the program can log in to by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) enum Cloud {
    Ecr(Ecr),
    Google,
    Acr(Acr),
}

/// A credential that ends by itself.
pub(in super::super) struct Pass {
    pub(in super::super) credential: Credential,
    pub(in super::super) lifetime: Duration,
}

impl Cloud {
    /// Recognizes a registry by its host.
    pub(in super::super) fn of_registry(registry: &str) -> Option<Cloud> {
        if let Some(ecr) = Ecr::of_registry(registry) {
            return Some(Cloud::Ecr(ecr));
        }
        if google::is_registry(registry) {
            return Some(Cloud::Google);
        }
        Acr::of_registry(registry).map(Cloud::Acr)
    }

    /// Returns the name in messages.
    pub(in super::super) fn name(&self) -> &'static str {
        match self {
            Cloud::Ecr(_) => "AWS",
            Cloud::Google => "Google Cloud",
            Cloud::Acr(_) => "Azure",
        }
    }

    /// Returns what would have given an identity.
    pub(in super::super) fn hint(&self) -> &'static str {
        match self {
            Cloud::Ecr(_) => "an AWS identity (AWS_ACCESS_KEY_ID, AWS_PROFILE, a role)",
            Cloud::Google => {
                "a Google identity (GOOGLE_APPLICATION_CREDENTIALS, a service account)"
            }
            Cloud::Acr(_) => "an Azure identity (AZURE_CLIENT_ID, a managed identity)",
        }
    }

    /// Tells whether variables name an identity for this cloud.
    pub(in super::super) fn is_named(&self, environment: &Environment) -> bool {
        let variables: &[&str] = match self {
            Cloud::Ecr(_) => &[
                "AWS_ACCESS_KEY_ID",
                "AWS_CONTAINER_CREDENTIALS_FULL_URI",
                "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
                "AWS_DEFAULT_PROFILE",
                "AWS_PROFILE",
                "AWS_SHARED_CREDENTIALS_FILE",
                "AWS_WEB_IDENTITY_TOKEN_FILE",
            ],
            Cloud::Google => &["GOOGLE_APPLICATION_CREDENTIALS"],
            Cloud::Acr(_) => &[
                "AZURE_CLIENT_SECRET",
                "AZURE_FEDERATED_TOKEN_FILE",
                "IDENTITY_ENDPOINT",
            ],
        };
        variables
            .iter()
            .any(|name| environment.text(name).is_some())
    }

    /// Logs in. `None`: there is no identity on this machine.
    pub(in super::super) async fn log_in(
        &self,
        caller: &Caller<'_>,
    ) -> Result<Option<Pass>, LoginError> {
        match self {
            Cloud::Ecr(ecr) => ecr.log_in(caller).await,
            Cloud::Google => google::log_in(caller).await,
            Cloud::Acr(acr) => acr.log_in(caller).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_are_known_by_their_whole_names() {
        let check = |registry: &str, name: &str| {
            let cloud = Cloud::of_registry(registry);
            let found = cloud.as_ref().map_or("-", Cloud::name);
            assert_eq!(found, name, "{registry}");
        };
        for registry in [
            "123456789012.dkr.ecr.eu-central-1.amazonaws.com",
            "123456789012.dkr.ecr-fips.us-gov-west-1.amazonaws.com",
            "123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn",
            "123456789012.dkr.ecr.eusc-de-east-1.amazonaws.eu",
            "123456789012.dkr-ecr.eu-west-1.on.aws",
            "public.ecr.aws",
        ] {
            check(registry, "AWS");
        }
        for registry in ["gcr.io", "eu.gcr.io", "europe-west3-docker.pkg.dev"] {
            check(registry, "Google Cloud");
        }
        for registry in ["mine.azurecr.io", "mine.azurecr.cn", "mine.azurecr.us"] {
            check(registry, "Azure");
        }
        for registry in [
            "123456789012.dkr.ecr.eu-central-1.amazonaws.com.evil.com",
            "123456789012.dkr.ecr.eu-central-1.amazonaws.com.cn.evil.cn",
            "123456789012.dkr.ecr.eu-central-1.evilamazonaws.com",
            "123456789012.dkr.ecr.eu-central-1.evil.com",
            "123456789012.dkr.ecr.eu_central.amazonaws.com",
            "123456789012.dkr.ecr.cn-north-1.amazonaws.com:5000",
            "123456789012.dkr.ecr..amazonaws.com",
            "123456789012.dkr.ecr.us-east-1.amazonaws.com.",
            "x.123456789012.dkr.ecr.us-east-1.amazonaws.com",
            "12345678901.dkr.ecr.us-east-1.amazonaws.com",
            "bucket.s3.us-east-1.amazonaws.com",
            "ecr.aws",
            "public.ecr.aws.evil.com",
            "notpublic.ecr.aws",
            "public.ecr.aws:5000",
            "evilgcr.io",
            "gcr.io.evil.com",
            "gcr.io:5000",
            ".gcr.io",
            "a..gcr.io",
            "evil.com/x.gcr.io",
            "user@evil.com#.gcr.io",
            "evilpkg.dev",
            "pkg.dev",
            "a.pkg.dev.evil.com",
            "azurecr.io",
            "evilazurecr.io",
            "mine.azurecr.io.evil.com",
            "mine.azurecr.io:8443",
            "mine.azurecr.de",
            "docker.io",
            "localhost:5000",
            "",
        ] {
            check(registry, "-");
        }
    }
}
