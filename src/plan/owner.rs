//! The values of `--chown` and `--chmod`.

use super::{Chown, Owner};

/// The highest mode: all permissions, set-user-ID, set-group-ID and sticky.
const MODE_LIMIT: u32 = 0o7777;

/// Splits `USER[:GROUP]`. Names stay names: they are looked up in the root that is written. No user is user 0.
pub(super) fn parse_chown(text: &str) -> Result<Chown, String> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    if group.is_some_and(str::is_empty) {
        return Err(format!("`{text}` names no group behind the `:`"));
    }
    Ok(Chown {
        user: if user.is_empty() {
            Owner::Id(0)
        } else {
            owner(user)
        },
        group: group.map(owner),
    })
}

/// `root` needs no passwd to be 0: images without one are written too.
fn owner(text: &str) -> Owner {
    if text == "root" {
        return Owner::Id(0);
    }
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(id) if digits => Owner::Id(id),
        _ => Owner::Name(text.to_owned()),
    }
}

/// Checks a mode: octal up to 7777, or symbolic such as `u=rwX,go=rX`.
pub(super) fn check_chmod(text: &str) -> Result<(), String> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return match u32::from_str_radix(text, 8) {
            Ok(0..=MODE_LIMIT) => Ok(()),
            _ => Err(format!("`{text}` is not an octal mode from 0 to 07777")),
        };
    }
    match !text.is_empty() && text.split(',').all(is_symbolic) {
        true => Ok(()),
        false => Err(format!(
            "`{text}` is not a mode: wanted octal such as `0755`, or symbolic such as `u=rwX,go=rX`"
        )),
    }
}

/// `[ugoa]*` and then, once or more, an operator with permissions or with one class to copy them from.
fn is_symbolic(clause: &str) -> bool {
    let actions = clause.trim_start_matches(['u', 'g', 'o', 'a']);
    if !actions.starts_with(['+', '-', '=']) {
        return false;
    }
    actions.split(['+', '-', '=']).all(|permissions| {
        matches!(permissions, "u" | "g" | "o")
            || permissions
                .chars()
                .all(|permission| "rwxXst".contains(permission))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners() {
        let name = |text: &str| Owner::Name(text.to_owned());
        for (text, user, group) in [
            ("www-data", name("www-data"), None),
            ("12", Owner::Id(12), None),
            ("root", Owner::Id(0), None),
            (":8", Owner::Id(0), Some(Owner::Id(8))),
            ("7:users", Owner::Id(7), Some(name("users"))),
            ("a:root", name("a"), Some(Owner::Id(0))),
            ("+1", name("+1"), None),
            ("4294967295", Owner::Id(u32::MAX), None),
            ("4294967296", name("4294967296"), None),
            ("a:b:c", name("a"), Some(name("b:c"))),
        ] {
            assert_eq!(parse_chown(text), Ok(Chown { user, group }), "{text}");
        }
        assert!(parse_chown("12:").is_err());
        assert!(parse_chown(":").is_err());
    }

    #[test]
    fn modes() {
        for text in [
            "0",
            "755",
            "0755",
            "07777",
            "000000644",
            "u=rwX,go=rX",
            "+x",
            "a-w",
            "u+s",
            "+t",
            "ug+rw-x",
            "u=",
            "g=u",
            "=",
            "o=g",
        ] {
            assert_eq!(check_chmod(text), Ok(()), "{text}");
        }
        for text in [
            "",
            "8",
            "788",
            "10000",
            "0o755",
            "755x",
            "u",
            "u+rwz",
            "x",
            ",",
            "u+x,",
            "+ug",
            "-1+",
            "99999999999999",
        ] {
            assert!(check_chmod(text).is_err(), "{text}");
        }
    }
}
