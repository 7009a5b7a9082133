//! Paths inside an archive, brought to the one form that [`Entry::path`](super::Entry::path) has.

/// A path that has a `..` component.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Escapes;

/// Drops leading, doubled and trailing slashes and `.` components.
pub(super) fn normalise(path: &[u8]) -> Result<Vec<u8>, Escapes> {
    let mut normal = Vec::with_capacity(path.len());
    for component in path.split(|&byte| byte == b'/') {
        match component {
            b"" | b"." => continue,
            b".." => return Err(Escapes),
            _ => {}
        }
        if !normal.is_empty() {
            normal.push(b'/');
        }
        normal.extend_from_slice(component);
    }
    Ok(normal)
}

/// Says whether `path` is as [`normalise`] would leave it.
pub(super) fn is_normal(path: &[u8]) -> bool {
    path.is_empty()
        || path
            .split(|&byte| byte == b'/')
            .all(|component| !matches!(component, b"" | b"." | b".."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_form_for_each_path() {
        let check = |path: &str, expected: Result<&str, Escapes>| {
            let normal = normalise(path.as_bytes());
            assert_eq!(
                normal.as_deref(),
                expected.as_ref().map(|text| text.as_bytes()),
                "{path}"
            );
            assert_eq!(
                is_normal(path.as_bytes()),
                expected.is_ok_and(|text| text == path),
                "{path}"
            );
        };
        check("a/b", Ok("a/b"));
        check("./a//b/./c/", Ok("a/b/c"));
        check("/etc/passwd", Ok("etc/passwd"));
        check("./", Ok(""));
        check("", Ok(""));
        check("...", Ok("..."));
        check("a..b/..c", Ok("a..b/..c"));
        check("../a", Err(Escapes));
        check("a/..", Err(Escapes));
        check("a/../b", Err(Escapes));
    }
}
