//! Amazon's registries: signed keys buy a password for half a day.
//!
//! In: a registry's host, of which account, partition and region are parts. Out: the user `AWS` and a password. The public gallery has
//! its one service in one region.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::Deserialize;

use super::super::auth_file::Credential;
use super::aws_keys::{self, is_region};
use super::call::Caller;
use super::error::LoginError;
use super::kind::Pass;
use super::sigv4::Scope;
use super::sts::signed_post;
use crate::vocab::Secret;

const PUBLIC: &str = "public.ecr.aws";
const PUBLIC_REGION: &str = "us-east-1";
const ASKED: &str = "a registry's password";
/// What the service says of every password, should it say nothing.
const LIFETIME: Duration = Duration::from_secs(12 * 3600);

/// One of Amazon's registries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Ecr {
    region: String,
    /// Host of the service that sells passwords.
    service: String,
    is_public: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bought {
    authorization_token: String,
    expires_at: Option<f64>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(Bought),
    Many(Vec<Bought>),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    authorization_data: OneOrMany,
}

impl Ecr {
    /// Recognizes a registry: `ACCOUNT.dkr.ecr.REGION.amazonaws.com` and its kin.
    pub(super) fn of_registry(registry: &str) -> Option<Ecr> {
        if registry == PUBLIC {
            return Some(Ecr {
                region: PUBLIC_REGION.to_owned(),
                service: format!("api.ecr-public.{PUBLIC_REGION}.amazonaws.com"),
                is_public: true,
            });
        }
        let parts: Vec<&str> = registry.split('.').collect();
        let (account, region, service) = match parts.as_slice() {
            [
                account,
                "dkr",
                kind @ ("ecr" | "ecr-fips"),
                region,
                domain @ ..,
            ] if matches!(
                domain,
                ["amazonaws", "com" | "eu"] | ["amazonaws", "com", "cn"]
            ) =>
            {
                let domain = domain.join(".");
                let service = match *kind {
                    "ecr" => format!("api.ecr.{region}.{domain}"),
                    _ => format!("ecr-fips.{region}.{domain}"),
                };
                (account, region, service)
            }
            [
                account,
                kind @ ("dkr-ecr" | "dkr-ecr-fips"),
                region,
                "on",
                "aws",
            ] => {
                let kind = kind.trim_start_matches("dkr-");
                let service = format!("{kind}.{region}.api.aws");
                (account, region, service)
            }
            _ => return None,
        };
        let is_account = account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit());
        (is_account && is_region(region)).then(|| Ecr {
            region: (*region).to_owned(),
            service,
            is_public: false,
        })
    }

    /// Buys a password; `None` if there are no keys.
    pub(super) async fn log_in(&self, caller: &Caller<'_>) -> Result<Option<Pass>, LoginError> {
        let Some(keys) = aws_keys::find(caller, &self.region).await? else {
            return Ok(None);
        };
        let (service, target) = match self.is_public {
            true => ("ecr-public", "SpencerFrontendService.GetAuthorizationToken"),
            false => (
                "ecr",
                "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken",
            ),
        };
        let call = signed_post(
            &keys,
            Scope {
                region: &self.region,
                service,
            },
            &format!("https://{}/", self.service),
            Secret::new("{}".to_owned()),
            &[
                ("content-type", "application/x-amz-json-1.1"),
                ("x-amz-target", target),
            ],
            ASKED,
        )?;
        let reply = caller.call(&call).await?;
        if !reply.is_success() {
            return Err(reply.refusal());
        }
        let nonsense = reply.nonsense();
        let answer: Answer = reply.json()?;
        let bought = match answer.authorization_data {
            OneOrMany::One(bought) => Some(bought),
            OneOrMany::Many(many) => many.into_iter().next(),
        };
        bought.and_then(Bought::into_pass).map(Some).ok_or(nonsense)
    }
}

impl Bought {
    fn into_pass(self) -> Option<Pass> {
        let plain = STANDARD.decode(self.authorization_token).ok()?;
        let plain = String::from_utf8(plain).ok()?;
        let (user, password) = plain.split_once(':')?;
        let now = Timestamp::now().as_second() as f64;
        let lifetime = match self.expires_at {
            Some(at) if at.is_finite() => {
                Duration::from_secs((at - now).clamp(0.0, LIFETIME.as_secs_f64()) as u64)
            }
            _ => LIFETIME,
        };
        Some(Pass {
            credential: Credential::Password {
                user: user.to_owned(),
                password: Secret::new(password.to_owned()),
            },
            lifetime,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_lie_beside_their_registries() {
        let check = |registry: &str, region: &str, service: &str| {
            let ecr = Ecr::of_registry(registry).unwrap_or_else(|| panic!("{registry}"));
            assert_eq!(
                (ecr.region.as_str(), ecr.service.as_str()),
                (region, service)
            );
        };
        check(
            "123456789012.dkr.ecr.eu-central-1.amazonaws.com",
            "eu-central-1",
            "api.ecr.eu-central-1.amazonaws.com",
        );
        check(
            "123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn",
            "cn-north-1",
            "api.ecr.cn-north-1.amazonaws.com.cn",
        );
        check(
            "123456789012.dkr.ecr-fips.us-east-1.amazonaws.com",
            "us-east-1",
            "ecr-fips.us-east-1.amazonaws.com",
        );
        check(
            "123456789012.dkr-ecr.eu-west-1.on.aws",
            "eu-west-1",
            "ecr.eu-west-1.api.aws",
        );
        check(
            "public.ecr.aws",
            "us-east-1",
            "api.ecr-public.us-east-1.amazonaws.com",
        );
    }
}
