//! Whom requests to a bucket are signed for: the keys that the user gave, else those that AWS's own tools would find.
//!
//! Keys that end by themselves are looked for again after a while, and when the store says that they have ended.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use object_store::CredentialProvider;
use object_store::aws::AwsCredential;
use tokio::sync::Mutex;

use super::super::cloud::sigv4::Keys;
use super::super::cloud::{Caller, LoginError, find_aws_keys};
use super::super::error::{Action, RegistryError, Said};
use super::super::exchange::Exchange;
use super::connector::Carried;
use crate::vocab::BucketPlace;

/// Keys with a session live for a quarter of an hour at least.
const FRESH: Duration = Duration::from_secs(600);

pub(super) struct Holder {
    exchange: Arc<Exchange>,
    /// In messages.
    place: String,
    host: String,
    region: String,
    /// Those that the user gave.
    given: Option<Arc<AwsCredential>>,
    found: Mutex<Option<Found>>,
}

struct Found {
    keys: Arc<AwsCredential>,
    until: Option<Instant>,
}

impl fmt::Debug for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Holder")
    }
}

impl Holder {
    pub(super) fn new(
        exchange: &Arc<Exchange>,
        place: &BucketPlace,
        host: &str,
        region: &str,
    ) -> Result<Holder, RegistryError> {
        let name = format!("s3://{}", place.bucket);
        let given = place.keys.clone().map(|keys| Keys {
            id: keys.id,
            secret: keys.secret,
            session: keys.session,
        });
        let given = given.map(|keys| signer(&keys));
        let given = given.transpose().map_err(|what| RegistryError::Option {
            what: format!("the keys for `{name}` cannot be used: {what}"),
        })?;
        Ok(Holder {
            exchange: exchange.clone(),
            place: name,
            host: host.to_owned(),
            region: region.to_owned(),
            given: given.map(Arc::new),
            found: Mutex::default(),
        })
    }

    /// Forgets keys that have ended. Tells whether there may be others.
    pub(super) async fn forget(&self) -> bool {
        *self.found.lock().await = None;
        self.given.is_none()
    }

    async fn find(&self) -> Result<Arc<AwsCredential>, RegistryError> {
        if let Some(given) = &self.given {
            return Ok(given.clone());
        }
        let mut found = self.found.lock().await;
        if let Some(found) = found.as_ref()
            && found.until.is_none_or(|until| Instant::now() < until)
        {
            return Ok(found.keys.clone());
        }
        let rules = self.exchange.rules().for_downloads();
        let caller = Caller {
            transport: self.exchange.transport(),
            rules: &rules,
            tuning: self.exchange.tuning(),
            environment: &self.exchange.credentials().environment,
        };
        let failed = |source: LoginError| RegistryError::Keys {
            place: self.place.clone(),
            source: Box::new(source),
        };
        let keys = find_aws_keys(&caller, &self.region).await.map_err(failed)?;
        let Some(keys) = keys else {
            return Err(RegistryError::Refused {
                host: self.host.clone(),
                action: Action::Login,
                what: self.place.clone(),
                status: 401,
                said: Said::from_body(b"no keys were found"),
                hint: "give access_key_id= and secret_access_key=, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or a role".to_owned(),
            });
        };
        let until = keys.session.as_ref().map(|_| Instant::now() + FRESH);
        let keys = Arc::new(signer(&keys).map_err(|what| RegistryError::Option {
            what: format!("the AWS keys that were found cannot be used: {what}"),
        })?);
        *found = Some(Found {
            keys: keys.clone(),
            until,
        });
        Ok(keys)
    }
}

#[async_trait]
impl CredentialProvider for Holder {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        self.find()
            .await
            .map_err(|error| object_store::Error::Generic {
                store: "S3",
                source: Box::new(Carried::new(error)),
            })
    }
}

/// Returns keys as the crate wants them. It puts them into headers without looking.
fn signer(keys: &Keys) -> Result<AwsCredential, &'static str> {
    let is_header =
        |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    let session = keys.session.as_ref().map(|session| session.reveal().trim());
    if !is_header(&keys.id) {
        return Err("the ID of the key holds what no header can");
    }
    if session.is_some_and(|session| !is_header(session)) {
        return Err("the session token holds what no header can");
    }
    Ok(AwsCredential {
        key_id: keys.id.clone(),
        secret_key: keys.secret.reveal().clone(),
        token: session.map(str::to_owned),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vocab::Secret;

    #[test]
    fn keys_that_no_header_can_hold_are_refused() {
        let check = |id: &str, session: Option<&str>, is_fine: bool| {
            let keys = Keys {
                id: id.to_owned(),
                secret: Secret::new("s".to_owned()),
                session: session.map(|session| Secret::new(session.to_owned())),
            };
            assert_eq!(signer(&keys).is_ok(), is_fine, "{id:?} {session:?}");
        };
        check("AKID", None, true);
        check("AKID", Some("token/+=\n"), true);
        check("AKID", Some("to\nken"), false);
        check("AKID", Some(""), false);
        check("", None, false);
        check("AK\r\nX: y", None, false);
        check("é", None, false);
    }
}
