//! Removing manifests and tags, where a registry lets that be done.
//!
//! By digest a manifest goes with every tag that stands for it; by tag the tag goes alone (distribution specification, "Content
//! Management"). Registries may know both, one or neither. Bytes of blobs are theirs to free.

use reqwest::Method;

use super::error::{Action, RegistryError, Said};
use super::exchange::{Ask, Exchange, Target};
use super::scope::Scopes;
use crate::vocab::ImageRef;

/// Statuses by which registries say that they do not do this.
const REFUSALS: [u16; 4] = [400, 405, 415, 501];

impl Exchange {
    /// Removes what the image's digest, else its tag, stands for; `false` if it is not there.
    pub(super) async fn remove_manifest(&self, image: &ImageRef) -> Result<bool, RegistryError> {
        let endpoint = self.origin(image);
        let reference = match (&image.digest, &image.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => "latest".to_owned(),
        };
        let target = Target::Tail(endpoint.tail(&format!("manifests/{reference}")));
        let ask = Ask {
            scopes: Scopes::delete(&endpoint.repository),
            action: Action::Delete,
            ..Ask::write(Method::DELETE, &endpoint, target, &image.to_string())
        };
        let refused = |status, said: Said| RegistryError::NoDeletion {
            registry: endpoint.host.registry().to_owned(),
            what: ask.what.clone(),
            status,
            said,
        };
        self.resolved().retain(|known, _| {
            (&known.registry, &known.repository) != (&image.registry, &image.repository)
        });
        match self.ask(&endpoint, &ask, &[]).await {
            Ok(_) => Ok(true),
            // Removed by somebody else, or by the attempt whose answer was lost; or a server that knows no such request.
            Err(RegistryError::NotFound { said, .. }) => {
                match self.standing(&endpoint, image).await? {
                    None => Ok(false),
                    Some(_) => Err(refused(404, said)),
                }
            }
            Err(RegistryError::Status { status, said, .. }) if REFUSALS.contains(&status) => {
                Err(refused(status, said))
            }
            Err(error) => Err(error),
        }
    }
}
