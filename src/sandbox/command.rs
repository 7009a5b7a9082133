//! Finding and executing the command, inside its root and with its own rights.

use std::ffi::{CString, c_char};
use std::os::unix::ffi::OsStrExt;
use std::ptr;

use rustix::fs::{Access, AtFlags, CWD, accessat};
use rustix::io::Errno;

use super::report::NoCommand;

/// Where a program without a slash is looked for if the environment has no `PATH`.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A command as `execve` wants it, made while there is still memory to be had.
#[derive(Debug)]
pub(super) struct Command {
    /// Files to try, in order.
    candidates: Vec<CString>,
    argv: CStrings,
    env: CStrings,
}

impl Command {
    /// The texts must be free of NUL; what is after one would be lost.
    pub(super) fn new(argv: &[String], env: &[(String, String)]) -> Command {
        Command {
            candidates: candidates(argv.first().map_or("", String::as_str), env),
            argv: CStrings::new(argv.iter().cloned()),
            env: CStrings::new(env.iter().map(|(name, value)| format!("{name}={value}"))),
        }
    }

    /// Executes the first candidate that can be; returns why none could.
    pub(super) fn execute(&self) -> (NoCommand, Errno) {
        let mut refused = None;
        for candidate in &self.candidates {
            match self.try_execute(candidate) {
                Errno::NOENT
                    if accessat(CWD, candidate, Access::EXISTS, AtFlags::empty()).is_ok() =>
                {
                    return (NoCommand::NoInterpreter, Errno::NOENT);
                }
                Errno::NOENT | Errno::NOTDIR => {}
                // One that may be executed may come later.
                Errno::ACCESS => refused = Some(Errno::ACCESS),
                errno => return (NoCommand::Refused, errno),
            }
        }
        match refused {
            Some(errno) => (NoCommand::Refused, errno),
            None => (NoCommand::NotFound, Errno::NOENT),
        }
    }

    fn try_execute(&self, file: &CString) -> Errno {
        // SAFETY: `file` is a C string; both arrays are null-terminated and point to C strings that `self` owns and that do
        // not move or end before the call does.
        unsafe {
            libc::execve(
                file.as_ptr(),
                self.argv.pointers.as_ptr(),
                self.env.pointers.as_ptr(),
            );
        }
        Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
    }
}

/// A null-terminated array of C strings and what it points to.
#[derive(Debug)]
struct CStrings {
    pointers: Vec<*const c_char>,
    /// Never changed, since `pointers` points into it.
    _strings: Vec<CString>,
}

impl CStrings {
    fn new(texts: impl Iterator<Item = String>) -> CStrings {
        let strings: Vec<CString> = texts.map(|text| c_string(&text)).collect();
        let pointers = strings
            .iter()
            .map(|string| string.as_ptr())
            .chain([ptr::null()])
            .collect();
        CStrings {
            pointers,
            _strings: strings,
        }
    }
}

fn candidates(program: &str, env: &[(String, String)]) -> Vec<CString> {
    if program.contains('/') {
        return vec![c_string(program)];
    }
    let path = env
        .iter()
        .rev()
        .find(|(name, _)| name == "PATH")
        .map_or(DEFAULT_PATH, |(_, value)| value);
    path.split(':')
        .map(|directory| match directory {
            "" => c_string(&format!("./{program}")),
            _ => c_string(&format!("{}/{program}", directory.trim_end_matches('/'))),
        })
        .collect()
}

fn c_string(text: &str) -> CString {
    let bytes = std::ffi::OsStr::new(text).as_bytes();
    let end = bytes.iter().position(|byte| *byte == 0);
    CString::new(&bytes[..end.unwrap_or(bytes.len())]).expect("ends before the first NUL")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_looked_for_in_the_commands_own_path() {
        let check = |program: &str, path: Option<&str>, expected: &str| {
            let env: Vec<_> = path
                .iter()
                .map(|path| ("PATH".to_owned(), (*path).to_owned()))
                .collect();
            let found: Vec<_> = candidates(program, &env)
                .into_iter()
                .map(|candidate| candidate.into_string().unwrap())
                .collect();
            assert_eq!(found.join(" "), expected);
        };
        check("/bin/sh", Some("/x"), "/bin/sh");
        check("./run", Some("/x"), "./run");
        check("make", Some("/x:/y/::/"), "/x/make /y/make ./make /make");
        check("ls", Some("/only"), "/only/ls");
        check(
            "ls",
            None,
            "/usr/local/sbin/ls /usr/local/bin/ls /usr/sbin/ls /usr/bin/ls /sbin/ls /bin/ls",
        );
    }
}
