//! Where steps that were performed elsewhere are looked up, and where those performed here are published.

use std::fmt;
use std::path::PathBuf;

use std::time::Duration;

use super::{Compression, ImageRef, Secret};

/// A place that several machines share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CachePlace {
    /// `type=registry,ref=REPOSITORY[:SCOPE]`: one small image for each step, and cache records inside an image of that name.
    Registry { image: ImageRef },
    /// `type=local,src=DIRECTORY`, `type=local,dest=DIRECTORY`
    Directory { path: PathBuf },
    /// `type=s3,bucket=BUCKET`
    Bucket(Box<BucketPlace>),
    /// `type=gha`
    Actions(ActionsPlace),
}

/// A part of a bucket of an object store that speaks S3's dialect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketPlace {
    pub bucket: String,
    /// `None`: what AWS's own settings say, or what stores that are not AWS's mostly call it.
    pub region: Option<String>,
    /// An `http` or `https` URL; AWS's own store where there is none.
    pub endpoint: Option<String>,
    /// The bucket is a part of the path, and not of the host's name; `None`: as the host allows.
    pub path_style: Option<bool>,
    /// `None`: those that AWS's own tools would find.
    pub keys: Option<BucketKeys>,
    /// Begins all names; with its slash, if it is to have one.
    pub prefix: String,
    /// Goes between the prefix and the digests of blobs.
    pub blobs: String,
    /// Goes between the prefix and the names of documents.
    pub documents: String,
    /// Layers that travel there at the same time.
    pub layers_at_once: usize,
}

/// Who signs requests to a bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketKeys {
    pub id: String,
    pub secret: Secret<String>,
    /// Of keys that end by themselves.
    pub session: Option<Secret<String>>,
}

/// The cache that GitHub keeps for a repository's workflows, or a service that stands in for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActionsPlace {
    /// Where the service is; `/twirp/…` goes behind it.
    pub service: String,
    pub token: Secret<String>,
    /// How long one document or blob may be on its way.
    pub timeout: Duration,
}

impl fmt::Display for CachePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CachePlace::Registry { image } => f.write_str(&image.familiar()),
            CachePlace::Directory { path } => write!(f, "`{}`", path.display()),
            CachePlace::Bucket(place) => {
                write!(f, "`s3://{}/{}`", place.bucket, place.prefix)?;
                match &place.endpoint {
                    Some(endpoint) => write!(f, " at `{endpoint}`"),
                    None => Ok(()),
                }
            }
            CachePlace::Actions(_) => f.write_str("`gha`"),
        }
    }
}

/// `--cache-from`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheFrom {
    pub place: CachePlace,
    /// Keeps the entries of several uses of one place apart.
    pub scope: CacheScope,
    /// Asked, in order, for what the scope does not have.
    pub fallbacks: Vec<CacheScope>,
    /// Cache mounts that are restored.
    pub mounts: MountChoice,
    /// Larger ones are not.
    pub mounts_max_size: u64,
}

/// `--cache-to`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CacheTo {
    Place {
        place: CachePlace,
        scope: CacheScope,
        mode: CacheMode,
        /// Of layers that no output wants; those of outputs are published as they are.
        compression: Compression,
        /// A place that takes nothing fails no build.
        ignore_error: bool,
        /// Cache mounts that are saved.
        mounts: MountChoice,
        /// Larger ones are not.
        mounts_max_size: u64,
    },
    /// `type=inline`: records inside the image itself.
    Inline,
}

/// Which layers are published. Records of all steps are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CacheMode {
    /// Those of the result.
    #[default]
    Min,
    /// Those of every step.
    Max,
}

/// Bytes of a cache mount that travels, where the user says nothing else.
pub const MOUNTS_MAX_SIZE: u64 = 2 << 30;

/// Which cache mounts travel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountChoice {
    None,
    All,
    /// Those with these ids.
    Of(Vec<String>),
}

impl MountChoice {
    /// Tells whether a mount travels, by its id behind a namespace and a `/`. A namespace that is not empty is part of what is
    /// chosen by.
    pub fn has(&self, id: &str) -> bool {
        match self {
            MountChoice::None => false,
            MountChoice::All => true,
            MountChoice::Of(ids) => {
                let own = id.strip_prefix('/');
                ids.iter()
                    .any(|chosen| chosen == id || Some(chosen.as_str()) == own)
            }
        }
    }
}

/// The first part of the names of entries: valid in a tag, and short enough to leave room for a key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CacheScope(String);

impl CacheScope {
    /// What a scope is called where nobody named it.
    pub const DEFAULT: &str = "cache";
    /// Tags have 128 characters, a key and what is around it need 72.
    const MOST: usize = 56;

    /// Makes a scope of any text, such as the name of a branch: what a tag cannot hold is written otherwise. Two texts give two scopes.
    pub fn new(text: &str) -> CacheScope {
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let fits = text.len() <= CacheScope::MOST
            && text.starts_with(is_word)
            && text.chars().all(|c| is_word(c) || matches!(c, '.' | '-'));
        if fits {
            return CacheScope(text.to_owned());
        }
        let digest = super::Digest::of(text.as_bytes()).hex();
        let readable: String = text
            .chars()
            .map(|c| if is_word(c) { c } else { '_' })
            .take(CacheScope::MOST - 17)
            .collect();
        let readable = match readable.is_empty() {
            true => "_".to_owned(),
            false => readable,
        };
        CacheScope(format!("{readable}.{}", &digest[..16]))
    }

    /// Returns its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for CacheScope {
    fn default() -> CacheScope {
        CacheScope(CacheScope::DEFAULT.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_chosen_by_their_ids() {
        let check = |chosen: &[&str], id: &str, expected: bool| {
            let chosen = chosen.iter().map(|id| (*id).to_owned()).collect();
            let choice = MountChoice::Of(chosen);
            assert_eq!(choice.has(id), expected, "{choice:?} {id}");
        };
        check(&["pip"], "/pip", true);
        check(&["apt", "/root/.cache"], "//root/.cache", true);
        check(&["pip"], "/other/pip", false);
        check(&["pip"], "space/pip", false);
        check(&["space/pip"], "space/pip", true);
        check(&[], "/pip", false);
        assert!(MountChoice::All.has("/pip") && !MountChoice::None.has("/pip"));
    }

    #[test]
    fn scopes_fit_into_tags_and_stay_apart() {
        let check = |text: &str, expected: &str| {
            let scope = CacheScope::new(text);
            assert_eq!(scope.as_str(), expected, "{text}");
            let tag = format!("example.com/a:{}-mount-{}", scope.as_str(), "0".repeat(64));
            tag.parse::<ImageRef>().unwrap();
        };
        check("main", "main");
        check("v1.2-rc_3", "v1.2-rc_3");
        check("feature/x", "feature_x.217d2bf51f16e9dc");
        check("feature:x", "feature_x.75eec165521e8ecf");
        check(".hidden", "_hidden.1692419006a88aab");
        check("", "_.e3b0c44298fc1c14");
        check(&"x".repeat(56), &"x".repeat(56));
        check(
            &"x".repeat(57),
            &format!("{}.ae14a2563ccf969d", "x".repeat(39)),
        );
    }
}
