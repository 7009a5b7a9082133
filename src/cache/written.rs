//! What stands under a name at a place: an ordinary image, whose manifest says in an annotation what it is.

use std::collections::BTreeMap;

use crate::image::{ImageConfig, MediaTypes, assemble, complete};
use crate::vocab::{Descriptor, DiffId};

/// Registries refuse manifests beyond 4 MiB; what is longer (the inputs of a step, with a heredoc of megabytes) is not shared.
const MOST_BYTES: usize = 3 << 20;

/// The two documents of an image, as bytes.
#[derive(Clone, Debug)]
pub(super) struct Documents {
    pub(super) manifest: Vec<u8>,
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
    ) -> Option<Documents> {
        // Some platform has to be named. Nobody runs it.
        let config = ImageConfig {
            architecture: "amd64".to_owned(),
            os: "linux".to_owned(),
            ..ImageConfig::default()
        };
        let config = complete(config, diff_ids, Vec::new(), None);
        let annotations = BTreeMap::from([(annotation.to_owned(), text)]);
        let assembled = assemble(config, layers, &annotations, MediaTypes::Oci);
        (assembled.manifest_bytes.len() <= MOST_BYTES).then_some(Documents {
            manifest: assembled.manifest_bytes,
            config: assembled.config,
            config_bytes: assembled.config_bytes,
        })
    }
}
