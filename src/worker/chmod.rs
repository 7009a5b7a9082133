//! The value of `--chmod`: an octal mode, or symbolic changes as `chmod(1)` has them, with a umask of 0.
//!
//! ```text
//! octal    = 1 to 5 octal digits, at most 07777
//! symbolic = clause { "," clause }
//! clause   = { "u" | "g" | "o" | "a" } ( op ( { "r" | "w" | "x" | "X" | "s" | "t" } | "u" | "g" | "o" ) )+
//! op       = "+" | "-" | "="
//! ```

use thiserror::Error;

const SETUID: u32 = 0o4000;
const SETGID: u32 = 0o2000;
const STICKY: u32 = 0o1000;

/// A parsed `--chmod`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chmod(Change);

/// The value is no mode.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{0}` is not a mode: wanted octal digits up to 7777 or changes such as `u=rwX,go=rX`")]
pub struct ChmodError(String);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Change {
    Octal(u32),
    Symbolic(Vec<Action>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Action {
    /// The bits that the classes before the operator cover, special ones included.
    who: u32,
    operator: Operator,
    what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Add,
    Remove,
    Set,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum What {
    /// Bits for all classes, and whether `X` is among the letters.
    Bits { bits: u32, execute_if_any: bool },
    /// The bits that this class has, as a shift.
    CopyOf(u32),
}

impl Chmod {
    /// Reads a value.
    pub fn parse(text: &str) -> Result<Chmod, ChmodError> {
        let refuse = || ChmodError(text.to_owned());
        if text.starts_with(|first: char| first.is_ascii_digit()) {
            let is_octal =
                text.len() <= 5 && text.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
            let mode = u32::from_str_radix(text, 8)
                .ok()
                .filter(|&mode| is_octal && mode <= 0o7777);
            return Ok(Chmod(Change::Octal(mode.ok_or_else(refuse)?)));
        }
        let mut actions = Vec::new();
        for clause in text.split(',') {
            parse_clause(clause, &mut actions).ok_or_else(refuse)?;
        }
        Ok(Chmod(Change::Symbolic(actions)))
    }

    /// Returns what a mode of twelve bits becomes.
    pub fn apply(&self, mode: u32, is_directory: bool) -> u32 {
        match &self.0 {
            Change::Octal(mode) => *mode,
            Change::Symbolic(actions) => actions
                .iter()
                .fold(mode, |mode, action| action.apply(mode, is_directory)),
        }
    }

    /// Returns the mode if it does not depend on the one before.
    pub fn octal(&self) -> Option<u32> {
        match self.0 {
            Change::Octal(mode) => Some(mode),
            Change::Symbolic(_) => None,
        }
    }
}

impl Action {
    fn apply(&self, mode: u32, is_directory: bool) -> u32 {
        let bits = match self.what {
            What::Bits {
                bits,
                execute_if_any,
            } => {
                let executable = execute_if_any && (is_directory || mode & 0o111 != 0);
                bits | if executable { 0o111 } else { 0 }
            }
            What::CopyOf(shift) => ((mode >> shift) & 7) * 0o111,
        } & self.who;
        match self.operator {
            Operator::Add => mode | bits,
            Operator::Remove => mode & !bits,
            // `=` leaves a directory its setuid and setgid bits, which mean something else there.
            Operator::Set if is_directory => (mode & !(self.who & !(SETUID | SETGID))) | bits,
            Operator::Set => (mode & !self.who) | bits,
        }
    }
}

fn parse_clause(clause: &str, actions: &mut Vec<Action>) -> Option<()> {
    let start = clause.find(['+', '-', '='])?;
    let mut who = 0;
    for class in clause[..start].bytes() {
        who |= match class {
            b'u' => 0o700 | SETUID,
            b'g' => 0o070 | SETGID,
            b'o' => 0o007 | STICKY,
            b'a' => 0o7777,
            _ => return None,
        };
    }
    if who == 0 {
        who = 0o7777;
    }
    let mut rest = &clause[start..];
    while let Some(operator) = rest.bytes().next() {
        let operator = match operator {
            b'+' => Operator::Add,
            b'-' => Operator::Remove,
            _ => Operator::Set,
        };
        let end = rest[1..]
            .find(['+', '-', '='])
            .map_or(rest.len(), |at| at + 1);
        actions.push(Action {
            who,
            operator,
            what: parse_what(&rest[1..end])?,
        });
        rest = &rest[end..];
    }
    Some(())
}

fn parse_what(letters: &str) -> Option<What> {
    match letters {
        "u" => return Some(What::CopyOf(6)),
        "g" => return Some(What::CopyOf(3)),
        "o" => return Some(What::CopyOf(0)),
        _ => {}
    }
    let (mut bits, mut execute_if_any) = (0, false);
    for letter in letters.bytes() {
        bits |= match letter {
            b'r' => 0o444,
            b'w' => 0o222,
            b'x' => 0o111,
            b's' => SETUID | SETGID,
            b't' => STICKY,
            b'X' => {
                execute_if_any = true;
                0
            }
            _ => return None,
        };
    }
    Some(What::Bits {
        bits,
        execute_if_any,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, file: (u32, u32), directory: (u32, u32)) {
        let chmod = Chmod::parse(text).unwrap();
        assert_eq!(chmod.apply(file.0, false), file.1, "{text} on a file");
        assert_eq!(
            chmod.apply(directory.0, true),
            directory.1,
            "{text} on a directory"
        );
    }

    #[test]
    fn octal_modes_replace_everything() {
        check("0", (0o644, 0), (0o755, 0));
        check("644", (0o4755, 0o644), (0o1777, 0o644));
        check("0755", (0, 0o755), (0, 0o755));
        check("7777", (0, 0o7777), (0, 0o7777));
        check("01777", (0, 0o1777), (0, 0o1777));
    }

    #[test]
    fn symbolic_modes_change_what_is_there() {
        check("u=rwX,go=rX", (0o600, 0o644), (0o700, 0o755));
        check("u=rwX,go=rX", (0o711, 0o755), (0, 0o755));
        check("+x", (0o644, 0o755), (0o600, 0o711));
        check("a-w", (0o666, 0o444), (0o777, 0o555));
        check("-w", (0o666, 0o444), (0o777, 0o555));
        check("a=", (0o777, 0), (0o777, 0));
        check("o-rwx", (0o777, 0o770), (0o777, 0o770));
        check("ug+rw", (0, 0o660), (0, 0o660));
        check("go=u", (0o740, 0o777), (0o750, 0o777));
        check("g=o", (0o604, 0o644), (0o604, 0o644));
        check("u+s", (0o755, 0o4755), (0o755, 0o4755));
        check("g+s", (0o755, 0o2755), (0o755, 0o2755));
        check("+s", (0o755, 0o6755), (0o755, 0o6755));
        check("o+s", (0o755, 0o755), (0o755, 0o755));
        check("+t", (0o755, 0o1755), (0o755, 0o1755));
        check("u+t", (0o755, 0o755), (0o755, 0o755));
        check("u=rwx", (0o4600, 0o700), (0o4600, 0o4700));
        check("u+r-w", (0o200, 0o400), (0o200, 0o400));
        check("u-x+X", (0o711, 0o711), (0o100, 0o100));
        check("u-x+X", (0o100, 0), (0o711, 0o711));
        check("+X", (0o644, 0o644), (0o644, 0o755));
        check("+", (0o644, 0o644), (0o644, 0o644));
    }

    #[test]
    fn what_is_no_mode_is_refused() {
        for text in [
            "", "8", "10000", "0o644", "00644 ", "777777", "644x", "u", "rwx", "u=q", "x+r",
            "u=r,", ",u=r", "u=ug", "u = r", "-1+", "+-8",
        ] {
            assert!(Chmod::parse(text).is_err(), "{text}");
        }
        for text in ["+", "u=", "-", "00644"] {
            assert!(Chmod::parse(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn only_octal_modes_stand_by_themselves() {
        assert_eq!(Chmod::parse("1777").unwrap().octal(), Some(0o1777));
        assert_eq!(Chmod::parse("a=rx").unwrap().octal(), None);
    }
}
