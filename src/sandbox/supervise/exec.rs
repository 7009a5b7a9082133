//! How a program of a root that is nobody's root directory is executed: what `execve` is asked to do in place of what the
//! program asked for.
//!
//! The kernel finds the loader that a dynamic program names below its own root directory, so a program is run *by* its loader:
//!
//! ```text
//! asked for:  execve("/usr/bin/awk", ["awk", "x"])
//! static:     execve("HOST/usr/bin/awk", ["awk", "x"])
//! dynamic:    execve("HOST/lib/ld.so", ["HOST/lib/ld.so", "--argv0", "awk", "/usr/bin/awk", "x"])
//! or:         execve("SCRATCH/copy of awk that names HOST/lib/ld.so", ["awk", "x"])
//! script:     the same for its interpreter, with ["/bin/sh", "-e", "/the/script", "x"]
//! ```
//!
//! The loader opens `/usr/bin/awk` by a call that is served like any other. The option is known to glibc from 2.33 on and to
//! musl; other loaders get a copy of the program, since a program that sees another name of itself behaves otherwise.
//!
//! [`plan`] is pure: whoever calls it looks files up.

use rustix::fs::Statx;
use rustix::io::Errno;

use super::elf::Program;
use super::guest::TreeId;
use super::identity::Executable;

/// The option that gives a program its name.
pub(super) const NAME_OPTION: &[u8] = b"--argv0";
/// Scripts whose interpreters are scripts, as the kernel counts them.
const MOST_SCRIPTS: usize = 5;

/// A file that may be executed.
#[derive(Clone, Debug)]
pub(super) struct File {
    /// As it is called inside the root, with all links followed.
    pub(super) guest: Vec<u8>,
    /// As the kernel finds it.
    pub(super) host: Vec<u8>,
    pub(super) program: Program,
    /// What of the file matters for who the process is afterwards.
    pub(super) rights: Executable,
    /// Which file it is, and the tree that it is in.
    pub(super) id: (Option<TreeId>, Statx),
}

/// How a dynamic program gets to its loader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// By the loader at this path of the host, which knows [`NAME_OPTION`].
    Loader(Vec<u8>),
    /// By itself: this file of the host names the loader by its path on the host.
    Copy(Vec<u8>),
}

/// What to ask the kernel for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// The file, on the host.
    pub(super) host: Vec<u8>,
    /// What takes the place of the first argument; `None` leaves all arguments as they are.
    pub(super) arguments: Option<Vec<Vec<u8>>>,
    /// What `/proc/self/exe` says.
    pub(super) guest: Vec<u8>,
    pub(super) rights: Executable,
    /// The program is run by its loader.
    pub(super) by_loader: bool,
}

/// Where files are looked up.
pub(super) trait Files {
    /// Finds a file that the caller may execute.
    fn find(&mut self, path: &[u8]) -> Result<File, Errno>;
    /// Decides how a dynamic program gets to its loader.
    fn way(&mut self, file: &File) -> Result<Way, Errno>;
}

/// Plans the execution of `file`, which was called `called` and is to see `name` as its own name.
pub(super) fn plan(
    called: &[u8],
    name: &[u8],
    file: File,
    files: &mut dyn Files,
) -> Result<Plan, Errno> {
    let (mut file, mut called) = (file, called.to_vec());
    // Arguments in place of the first one, once there was a script.
    let mut arguments: Option<Vec<Vec<u8>>> = None;
    let mut scripts = 0;
    while let Program::Script {
        interpreter,
        argument,
    } = &file.program
    {
        scripts += 1;
        if scripts > MOST_SCRIPTS {
            return Err(Errno::LOOP);
        }
        let rest = arguments.take().map_or_else(Vec::new, |mut arguments| {
            arguments.remove(0);
            arguments
        });
        let mut of_script = vec![interpreter.clone()];
        of_script.extend(argument.clone());
        of_script.push(called);
        of_script.extend(rest);
        arguments = Some(of_script);
        called = interpreter.clone();
        file = files.find(&called)?;
    }
    let rights = file.rights.clone();
    let mut by_loader = false;
    let guest = file.guest.clone();
    let host = match &file.program {
        Program::Script { .. } => unreachable!("the loop ends at what is none"),
        Program::Foreign => return Err(Errno::NOEXEC),
        Program::Static => file.host,
        Program::Dynamic(_) => match files.way(&file)? {
            Way::Copy(host) => host,
            Way::Loader(host) => {
                let mut of_program = arguments.unwrap_or_else(|| vec![name.to_vec()]);
                let name = of_program.remove(0);
                let mut all = vec![host.clone(), NAME_OPTION.to_vec(), name, file.guest];
                all.append(&mut of_program);
                arguments = Some(all);
                by_loader = true;
                host
            }
        },
    };
    Ok(Plan {
        host,
        arguments,
        guest,
        rights,
        by_loader,
    })
}

#[cfg(test)]
mod tests {
    use super::super::elf::Loader;
    use super::*;

    /// Files by their paths; what is in `/old` has an old loader.
    struct Tree(Vec<(&'static str, Program)>);

    impl Files for Tree {
        fn find(&mut self, path: &[u8]) -> Result<File, Errno> {
            let (name, program) = self
                .0
                .iter()
                .find(|(name, _)| name.as_bytes() == path)
                .ok_or(Errno::NOENT)?;
            Ok(File {
                guest: name.as_bytes().to_vec(),
                host: format!("/R{name}").into_bytes(),
                program: program.clone(),
                rights: Executable::default(),
                id: (None, any_stat()),
            })
        }

        fn way(&mut self, file: &File) -> Result<Way, Errno> {
            Ok(match file.guest.starts_with(b"/old/") {
                true => Way::Copy(b"/S/copy".to_vec()),
                false => Way::Loader(b"/R/ld.so".to_vec()),
            })
        }
    }

    fn any_stat() -> Statx {
        let root = std::fs::File::open("/").unwrap();
        super::super::guest::look(std::os::fd::AsFd::as_fd(&root)).unwrap()
    }

    fn script(interpreter: &str, argument: Option<&str>) -> Program {
        Program::Script {
            interpreter: interpreter.into(),
            argument: argument.map(Into::into),
        }
    }

    fn dynamic() -> Program {
        Program::Dynamic(Loader {
            path: b"/ld.so".to_vec(),
            header_at: 64,
        })
    }

    fn check(called: &str, expected: Result<(&str, Option<&str>, &str), Errno>) {
        let mut tree = Tree(vec![
            ("/bin/sh", dynamic()),
            ("/bin/busybox", Program::Static),
            ("/old/sh", dynamic()),
            ("/script", script("/bin/sh", Some("-e x"))),
            ("/static-script", script("/bin/busybox", None)),
            ("/old-script", script("/old/sh", None)),
            ("/twice", script("/script", Some("a"))),
            ("/loop", script("/loop", None)),
            ("/nothing", script("/none", None)),
            ("/foreign", Program::Foreign),
        ]);
        let planned = tree
            .find(called.as_bytes())
            .and_then(|file| plan(called.as_bytes(), b"NAME", file, &mut tree));
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let planned = planned.map(|plan| {
            let arguments = plan.arguments.map(|all| {
                all.iter()
                    .map(|one| text(one))
                    .collect::<Vec<_>>()
                    .join("|")
            });
            (text(&plan.host), arguments, text(&plan.guest))
        });
        let expected = expected.map(|(host, arguments, guest)| {
            (
                host.to_owned(),
                arguments.map(str::to_owned),
                guest.to_owned(),
            )
        });
        assert_eq!(planned, expected, "{called}");
    }

    #[test]
    fn programs_run_by_their_loader_and_scripts_by_their_interpreter() {
        check("/bin/busybox", Ok(("/R/bin/busybox", None, "/bin/busybox")));
        check(
            "/bin/sh",
            Ok(("/R/ld.so", Some("/R/ld.so|--argv0|NAME|/bin/sh"), "/bin/sh")),
        );
        check("/old/sh", Ok(("/S/copy", None, "/old/sh")));
        check(
            "/script",
            Ok((
                "/R/ld.so",
                Some("/R/ld.so|--argv0|/bin/sh|/bin/sh|-e x|/script"),
                "/bin/sh",
            )),
        );
        check(
            "/static-script",
            Ok((
                "/R/bin/busybox",
                Some("/bin/busybox|/static-script"),
                "/bin/busybox",
            )),
        );
        check(
            "/old-script",
            Ok(("/S/copy", Some("/old/sh|/old-script"), "/old/sh")),
        );
        check(
            "/twice",
            Ok((
                "/R/ld.so",
                Some("/R/ld.so|--argv0|/bin/sh|/bin/sh|-e x|/script|a|/twice"),
                "/bin/sh",
            )),
        );
    }

    #[test]
    fn what_the_kernel_refuses_is_refused_alike() {
        check("/loop", Err(Errno::LOOP));
        check("/nothing", Err(Errno::NOENT));
        check("/foreign", Err(Errno::NOEXEC));
    }
}
