//! Paths inside the image, as text: joined and cleaned the way Go's `path` package does, without looking at any file.

/// Returns `path` made absolute from `from` (itself absolute), without `.`, `..`, doubled and trailing slashes; `..` stops at the
/// root.
pub(super) fn resolve(from: &str, path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    let start = if path.starts_with('/') { "" } else { from };
    for part in start.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            name => parts.push(name),
        }
    }
    format!("/{}", parts.join("/"))
}

/// Returns a COPY destination: resolved, but ending in `/` where what was written says that it is a directory.
pub(super) fn destination(from: &str, path: &str) -> String {
    let mut resolved = resolve(from, path);
    let directory = matches!(path, "" | ".") || path.ends_with('/') || path.ends_with("/.");
    if directory && resolved != "/" {
        resolved.push('/');
    }
    resolved
}

/// Returns `path` without `.`, `..`, doubled and trailing slashes where that needs no look at what it is relative to.
pub(super) fn clean(path: &str) -> String {
    if path.starts_with('/') {
        return resolve("/", path);
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => drop(parts.pop()),
            name => parts.push(name),
        }
    }
    match parts.is_empty() {
        true => ".".to_owned(),
        false => parts.join("/"),
    }
}

/// Returns the pattern that matches `path` and nothing else.
pub fn literal(path: &str) -> String {
    let mut pattern = String::with_capacity(path.len());
    for character in path.chars() {
        if matches!(character, '*' | '?' | '[' | '\\') {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_joined_and_cleaned() {
        for (from, path, wanted) in [
            ("/", "a", "/a"),
            ("/a", "b/c", "/a/b/c"),
            ("/a", "/b", "/b"),
            ("/a/b", "../c", "/a/c"),
            ("/", "../../c", "/c"),
            ("/a", "", "/a"),
            ("/a", "./b//c/.", "/a/b/c"),
            ("/a", "..", "/"),
            ("/", "/", "/"),
            ("a/../b", "c", "/b/c"),
        ] {
            assert_eq!(resolve(from, path), wanted, "{path} from {from}");
        }
    }

    #[test]
    fn destinations_keep_what_says_directory() {
        for (from, path, wanted) in [
            ("/w", "x", "/w/x"),
            ("/w", "x/", "/w/x/"),
            ("/w", "x/.", "/w/x/"),
            ("/w", ".", "/w/"),
            ("/w", "", "/w/"),
            ("/w", "./", "/w/"),
            ("/w", "..", "/"),
            ("/w", "/", "/"),
            ("/", ".", "/"),
            ("/w", "/a/../../b//", "/b/"),
        ] {
            assert_eq!(destination(from, path), wanted, "{path} from {from}");
        }
    }

    #[test]
    fn relative_paths_stay_relative() {
        for (path, wanted) in [
            ("a//b/./c", "a/b/c"),
            ("a/..", "."),
            ("../a/../b", "../b"),
            ("../..", "../.."),
            ("/a/../b/", "/b"),
        ] {
            assert_eq!(clean(path), wanted, "{path}");
        }
    }

    #[test]
    fn a_literal_path_is_no_pattern() {
        for (path, pattern) in [("/a/b", "/a/b"), ("/a*[b]?\\", "/a\\*\\[b]\\?\\\\")] {
            assert_eq!(literal(path), pattern);
        }
    }
}
