//! What stands under a name at a place: an ordinary image, whose manifest says in an annotation what it is, and in another one when
//! a build last had a use for it.

use std::collections::BTreeMap;

use serde_json::Value;

use super::CacheError;
use super::place::AT_ONCE;
use crate::image::{ImageConfig, MediaTypes, assemble, complete};
use crate::vocab::{Descriptor, DiffId, Timestamp, each};

/// Registries refuse manifests beyond 4 MiB; what is longer (the inputs of a step, with a heredoc of megabytes) is not shared.
const MOST_BYTES: usize = 3 << 20;
/// What all annotations of the cache begin with.
const OURS: &str = "builder.cache.";
/// Where the time of the last use is among the annotations. The number is the format's.
const USED: &str = "builder.cache.used.v1";
/// A use is noted again after so many seconds.
const DAY: u64 = 24 * 60 * 60;

/// The two documents of an image, as bytes.
#[derive(Clone, Debug)]
pub(super) struct Documents {
    pub(super) manifest: Vec<u8>,
    pub(super) layers: Vec<Descriptor>,
    pub(super) config: Descriptor,
    pub(super) config_bytes: Vec<u8>,
}

impl Documents {
    /// Writes them, with `text` in the annotation; `None` if they are longer than registries take. There are as many diff IDs as
    /// layers, and at least one.
    pub(super) fn of(
        annotation: &str,
        text: String,
        layers: &[Descriptor],
        diff_ids: &[DiffId],
        used: Timestamp,
    ) -> Option<Documents> {
        // Some platform has to be named. Nobody runs it.
        let config = ImageConfig {
            architecture: "amd64".to_owned(),
            os: "linux".to_owned(),
            ..ImageConfig::default()
        };
        let config = complete(config, diff_ids, Vec::new(), None);
        let annotations = BTreeMap::from([
            (annotation.to_owned(), text),
            (USED.to_owned(), moment(used)),
        ]);
        let assembled = assemble(config, layers, &annotations, MediaTypes::Oci);
        (assembled.manifest_bytes.len() <= MOST_BYTES).then_some(Documents {
            manifest: assembled.manifest_bytes,
            layers: layers.to_vec(),
            config: assembled.config,
            config_bytes: assembled.config_bytes,
        })
    }
}

impl Documents {
    /// Fails if a blob that they name is not there: a place that does not look for itself would promise it.
    pub(super) fn need(
        &self,
        has: impl Fn(&Descriptor) -> Result<bool, CacheError> + Sync,
    ) -> Result<(), CacheError> {
        let (_, failure) = each(&self.layers, AT_ONCE, |layer| match has(layer)? {
            true => Ok(()),
            false => Err(CacheError::Gone(layer.digest)),
        });
        failure.map_or(Ok(()), Err)
    }
}

/// Returns when a document says that it was last of use; `None` if it does not.
pub(super) fn used(document: &Value) -> Option<Timestamp> {
    Timestamp::parse(document["annotations"][USED].as_str()?)
}

/// Returns a document with another time of its last use, and everything else as it was; `None` if it is none.
pub(super) fn used_at(document: &[u8], now: Timestamp) -> Option<Vec<u8>> {
    let mut document: Value = serde_json::from_slice(document).ok()?;
    let annotations = document.get_mut("annotations")?.as_object_mut()?;
    annotations.insert(USED.to_owned(), Value::String(moment(now)));
    serde_json::to_vec(&document).ok()
}

/// Tells whether a use has to be noted, after one that was noted at `used`. A time of tomorrow is a wrong one.
pub(super) fn is_stale(used: Timestamp, now: Timestamp) -> bool {
    now.seconds.abs_diff(used.seconds) >= DAY
}

/// Tells whether a document is a manifest that some version of this program wrote for a cache.
pub(super) fn is_ours(document: &[u8]) -> bool {
    let document: Value = serde_json::from_slice(document).unwrap_or_default();
    let annotations = document["annotations"].as_object();
    annotations.is_some_and(|annotations| annotations.keys().any(|name| name.starts_with(OURS)))
}

/// Whole seconds do.
fn moment(time: Timestamp) -> String {
    Timestamp::from_seconds(time.seconds).to_string()
}
