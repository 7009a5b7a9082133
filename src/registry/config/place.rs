//! One place where a repository can be found, and what may be asked of it.

use std::path::PathBuf;

use super::super::site::Site;
use super::mistake::Mistake;
use crate::vocab::ImageRef;

/// A repository on a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::registry) struct Place {
    pub(in crate::registry) site: Site,
    /// Its name there.
    pub(in crate::registry) repository: String,
    /// Another place is asked after it.
    pub(in crate::registry) is_mirror: bool,
    /// The registry whose images are wanted, for mirrors of many registries that must be told.
    pub(in crate::registry) namespace: Option<String>,
    pub(in crate::registry) uses: Uses,
    /// Asking is forbidden, or not possible.
    pub(in crate::registry) bar: Option<Bar>,
}

/// What a place may be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::registry) struct Uses {
    /// What a tag stands for.
    pub(in crate::registry) tags: bool,
    /// Things by their digest.
    pub(in crate::registry) digests: bool,
    pub(in crate::registry) pushes: bool,
}

impl Uses {
    pub(in crate::registry) const ALL: Uses = Uses {
        tags: true,
        digests: true,
        pushes: true,
    };
    pub(in crate::registry) const PULL: Uses = Uses {
        pushes: false,
        ..Uses::ALL
    };
}

/// Why a place is not asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::registry) enum Bar {
    /// A file says so.
    Blocked { name: String, by: PathBuf },
    /// A file cannot be understood.
    Mistake(Mistake),
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::registry) enum Wanted {
    /// Look up a tag.
    Tag,
    /// Read a manifest by its digest.
    Digest,
    /// Read a blob of an image that was named by its tag, or by its digest.
    Blob { of_tag: bool },
    /// Change the repository, or look at what a push would find.
    Push,
}

impl Wanted {
    /// Returns what it is to read the manifest of an image.
    pub(in crate::registry) fn manifest_of(image: &ImageRef) -> Wanted {
        match image.digest {
            Some(_) => Wanted::Digest,
            None => Wanted::Tag,
        }
    }

    /// Returns what it is to read a blob of an image.
    pub(in crate::registry) fn blob_of(image: &ImageRef) -> Wanted {
        Wanted::Blob {
            of_tag: image.digest.is_none(),
        }
    }
}

impl Place {
    /// Returns the repository that a name names, without any rule.
    pub(in crate::registry) fn plain(image: &ImageRef) -> Place {
        Place {
            site: Site::of_registry(&image.registry),
            repository: image.repository.clone(),
            is_mirror: false,
            namespace: None,
            uses: Uses::ALL,
            bar: None,
        }
    }

    /// Returns a mirror of it; `prefix` goes before the repository's name.
    pub(in crate::registry) fn mirror(site: Site, prefix: &str, image: &ImageRef) -> Place {
        Place {
            site,
            repository: match prefix {
                "" => image.repository.clone(),
                prefix => format!("{prefix}/{}", image.repository),
            },
            is_mirror: true,
            uses: Uses::PULL,
            ..Place::plain(image)
        }
    }

    pub(in crate::registry) fn barred(self, bar: Bar) -> Place {
        Place {
            bar: Some(bar),
            ..self
        }
    }

    pub(in crate::registry) fn serves(&self, wanted: Wanted) -> bool {
        let Uses {
            tags,
            digests,
            pushes,
        } = self.uses;
        match wanted {
            Wanted::Tag => tags,
            Wanted::Digest => digests,
            Wanted::Blob { of_tag } => digests || (of_tag && tags),
            Wanted::Push => pushes,
        }
    }
}
