//! Cache keys: digests of named, length-prefixed components.
//!
//! A key's bytes are: the format version, then for each component its name and its value, each preceded by its length as eight
//! little-endian bytes. The components are kept beside the record, so that a miss can be explained by comparing two lists.

use std::fmt;

use super::{Digest, Sha256};

/// Changes when the meaning of keys changes; the program's own version is in no key.
const KEY_FORMAT: &str = "builder-key-1";

/// Names a step and all that its result depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CacheKey(pub Digest);

impl fmt::Display for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.hex())
    }
}

/// One named ingredient of a key, as shown to a user who asks why a step ran again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyComponent {
    pub name: String,
    pub value: String,
}

/// Collects components in the order given; order matters.
pub struct KeyBuilder {
    hash: Sha256,
    components: Vec<KeyComponent>,
}

impl KeyBuilder {
    /// Starts a key of the given kind, such as `run`.
    pub fn new(kind: &str) -> KeyBuilder {
        let mut builder = KeyBuilder {
            hash: Sha256::new(),
            components: Vec::new(),
        };
        builder.part(KEY_FORMAT.as_bytes());
        builder.part(kind.as_bytes());
        builder
    }

    /// Adds a component.
    pub fn add(mut self, name: &str, value: &str) -> KeyBuilder {
        self.part(name.as_bytes());
        self.part(value.as_bytes());
        self.components.push(KeyComponent {
            name: name.to_owned(),
            value: value.to_owned(),
        });
        self
    }

    /// Adds a list as one component per item, after its length, so that two lists in a row cannot run into each other.
    pub fn list<I>(mut self, name: &str, items: I) -> KeyBuilder
    where
        I: IntoIterator,
        I::IntoIter: ExactSizeIterator,
        I::Item: AsRef<str>,
    {
        let items = items.into_iter();
        self.part(name.as_bytes());
        self.part(&(items.len() as u64).to_le_bytes());
        for item in items {
            self = self.add(name, item.as_ref());
        }
        self
    }

    /// Returns the key and what it is made of.
    pub fn finish(self) -> (CacheKey, Vec<KeyComponent>) {
        (CacheKey(self.hash.finish()), self.components)
    }

    fn part(&mut self, bytes: &[u8]) {
        self.hash.update(&(bytes.len() as u64).to_le_bytes());
        self.hash.update(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pinned_example() {
        let (key, components) = KeyBuilder::new("run")
            .add("parent", "p")
            .list("args", ["a", "b"])
            .finish();
        assert_eq!(key.to_string(), PINNED);
        assert_eq!(components.len(), 3);
    }

    /// If this changes, every cache of every user is lost: raise `KEY_FORMAT` and know why.
    const PINNED: &str = "c469888628a10daf3893b372a36e149bfba1c4c9a67ae1935b3e163fb6fd8ec9";

    proptest::proptest! {
        #[test]
        fn different_lists_have_different_keys(a: Vec<String>, b: Vec<String>, c: Vec<String>, d: Vec<String>) {
            let key = |x: &[String], y: &[String]| KeyBuilder::new("k").list("x", x).list("x", y).finish().0;
            proptest::prop_assert_eq!(key(&a, &b) == key(&c, &d), a == c && b == d);
        }
    }
}
