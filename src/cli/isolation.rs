//! `--isolation` and `--storage-driver`: our own names, and those that other builders use.

use crate::pipeline::Failure;
use crate::vocab::{Rung, StorageDriver};

use super::usage;

const RUNGS: &str = "`auto` takes the best of `ns`, `ns-full`, `ns-sub`, `ns-one`, `chroot` and `paths` that works here; \
                     `builder doctor` says which";

/// Reads how commands are to be confined; `None` is "as well as possible".
pub(super) fn rung(text: &str) -> Result<Option<Rung>, Failure> {
    let refuse = |why: &str, hint: &str| {
        let mut failure = usage(format!("`--isolation {text}`: {why}"));
        failure.diagnostics[0].hints.push(hint.to_owned());
        failure
    };
    match text {
        // A variable that is set to nothing says nothing, and `docker build` takes both words for its own choice.
        "" | "auto" | "default" => Ok(None),
        // buildah's: a container made by a runtime, with or without root. Both are the namespaces that are taken by default.
        "oci" | "rootless" => Ok(None),
        "process" | "hyperv" => Err(refuse("only containers of Windows have it", RUNGS)),
        name => name
            .parse()
            .map(Some)
            .map_err(|_| refuse("there is no such isolation", RUNGS)),
    }
}

/// Reads how roots are to be put together; `None` is "by overlayfs where it works".
pub(super) fn driver(text: &str) -> Result<Option<StorageDriver>, Failure> {
    match text {
        "" | "auto" => Ok(None),
        name => name.parse().map(Some).map_err(|_| {
            let mut failure = usage(format!(
                "`--storage-driver {text}`: there is no such storage driver"
            ));
            let hint = match text {
                "overlay2" | "fuse-overlayfs" => {
                    "`overlay` stacks layers by the kernel's overlayfs"
                }
                "vfs" => "`tree` needs no overlayfs: one plain directory",
                _ => "storage drivers are `auto`, `overlay` and `tree`",
            };
            failure.diagnostics[0].hints.push(hint.to_owned());
            failure
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_other_builders_mean_what_fits() {
        for (text, expected) in [
            ("auto", None),
            ("", None),
            ("default", None),
            ("oci", None),
            ("rootless", None),
            ("chroot", Some(Rung::Chroot)),
            ("ns-one", Some(Rung::NsOne)),
        ] {
            assert_eq!(rung(text).unwrap(), expected, "{text}");
        }
        for text in ["process", "hyperv", "NS", "none"] {
            let failure = rung(text).unwrap_err();
            assert!(!failure.diagnostics[0].hints.is_empty(), "{text}");
        }
    }

    #[test]
    fn storage_drivers_have_our_names() {
        assert_eq!(driver("auto").unwrap(), None);
        assert_eq!(driver("tree").unwrap(), Some(StorageDriver::Tree));
        for text in ["vfs", "overlay2", "x"] {
            let failure = driver(text).unwrap_err();
            assert!(!failure.diagnostics[0].hints.is_empty(), "{text}");
        }
    }
}
