//! A value that cannot be printed by accident.

use std::fmt;

/// Holds a password or token. `Debug` and `Display` hide it; [`Secret::reveal`] is the one way out.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret<T>(T);

impl<T> Secret<T> {
    /// Takes a value into hiding.
    pub fn new(value: T) -> Secret<T> {
        Secret(value)
    }

    /// Returns the hidden value. Search for this name to see where secrets leave.
    pub fn reveal(&self) -> &T {
        &self.0
    }
}

impl<T> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl<T> fmt::Display for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Tells whether one of the words of a name, between `_`, speaks of a secret, and none says that it is not one.
pub fn names_a_secret(name: &str) -> bool {
    const SECRET: [&str; 10] = [
        "apikey",
        "auth",
        "credential",
        "credentials",
        "key",
        "password",
        "pword",
        "passwd",
        "secret",
        "token",
    ];
    const NOT_SECRET: [&str; 3] = ["public", "file", "version"];
    let name = name.to_lowercase();
    let has = |words: &[&str]| name.split('_').any(|word| words.contains(&word));
    has(&SECRET) && !has(&NOT_SECRET)
}

#[cfg(test)]
mod tests {
    use super::names_a_secret;

    #[test]
    fn names_of_secrets() {
        for name in [
            "API_KEY",
            "auth",
            "GITHUB_TOKEN",
            "secret_message",
            "MY_PASSWORD_X",
            "_key_",
        ] {
            assert!(names_a_secret(name), "{name}");
        }
        for name in [
            "PUBLIC_KEY",
            "TOKEN_FILE",
            "KEY_VERSION",
            "MONKEY",
            "AUTHOR",
            "",
            "KEYS",
        ] {
            assert!(!names_a_secret(name), "{name}");
        }
    }
}
