//! The calls of a command whose paths the kernel cannot resolve: data, and the filter made of it.
//!
//! Everything that takes a path is held, or traced where only other arguments can help. What is about identity is held as in
//! [`traps`](super::traps). What would reach beyond the command (other processes) is held where the kernel cannot keep it in.
//! There is one gate: calls of a 32-bit program, and those of the x32 ABI, are answered "no such call".
//!
//! Numbers are the kernel's, from its system call tables. Columns: x86-64, arm64; [`N`] where an architecture has no such call.

use super::super::filter::{self, Gate, Instruction, Verdicts};
use super::credentials;

/// "Has no such call".
const N: u32 = u32::MAX;

/// A call, by what it does and where its arguments are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Access,
    Bind,
    Chmod,
    Chown,
    Chroot,
    Connect,
    Creat,
    Faccessat,
    Faccessat2,
    Fchmod,
    Fchmodat,
    Fchmodat2,
    Fchown,
    Fchownat,
    Fgetxattr,
    Flistxattr,
    Fremovexattr,
    Fsetxattr,
    Fstat,
    Fsync,
    Futimesat,
    Getcwd,
    Getsockname,
    Getxattr,
    Identity,
    InotifyAddWatch,
    Kill,
    Lchown,
    Lgetxattr,
    Link,
    Linkat,
    Listxattr,
    Llistxattr,
    Lremovexattr,
    Lsetxattr,
    Lstat,
    Mkdir,
    Mkdirat,
    Mknod,
    Mknodat,
    NameToHandleAt,
    Newfstatat,
    Open,
    Openat,
    /// Concerns the process that an argument names.
    OfProcess(u8),
    Prctl,
    Ptrace,
    Readlink,
    Readlinkat,
    Removexattr,
    Rename,
    Renameat,
    Renameat2,
    Rmdir,
    Sendmmsg,
    Sendmsg,
    Sendto,
    Setxattr,
    Socket,
    Stat,
    Statfs,
    Statx,
    Symlink,
    Symlinkat,
    Truncate,
    Umask,
    Uname,
    Unlink,
    Unlinkat,
    Utime,
    Utimensat,
    Utimes,
}

/// For which arguments a call is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    Always,
    /// One argument, in its low 32 bits, is one of these.
    Is(u8, &'static [u32]),
    /// One argument, all of its 64 bits, is not 0.
    Given(u8),
}

use Operation as O;
use When::{Always, Given, Is};

const FAMILIES: &[u32] = &[libc::AF_UNIX as u32, libc::AF_NETLINK as u32];
const OWN_RESOURCE: &[u32] = &[credentials::RESOURCE];
/// DUMPABLE, KEEPCAPS, CAPBSET, SECUREBITS, PTRACER, NO_NEW_PRIVS, CAP_AMBIENT.
const OPTIONS: &[u32] = &[4, 7, 8, 23, 24, 27, 28, 0x5961_6d61, 38, 39, 47];

#[rustfmt::skip]
const HELD: &[(Operation, [u32; 2], When)] = &[
    (O::Access,           [ 21,   N], Always),
    (O::Bind,             [ 49, 200], Always),
    (O::Chmod,            [ 90,   N], Always),
    (O::Chown,            [ 92,   N], Always),
    (O::Chroot,           [161,  51], Always),
    (O::Connect,          [ 42, 203], Always),
    (O::Creat,            [ 85,   N], Always),
    (O::Faccessat,        [269,  48], Always),
    (O::Faccessat2,       [439, 439], Always),
    (O::Fchmod,           [ 91,  52], Always),
    (O::Fchmodat,         [268,  53], Always),
    (O::Fchmodat2,        [452, 452], Always),
    (O::Fchown,           [ 93,  55], Always),
    (O::Fchownat,         [260,  54], Always),
    (O::Fgetxattr,        [193,  10], Always),
    (O::Flistxattr,       [196,  13], Always),
    (O::Fremovexattr,     [199,  16], Always),
    (O::Fsetxattr,        [190,   7], Always),
    (O::Fstat,            [  5,  80], Always),
    (O::Fsync,            [ 74,  82], Always),
    (O::Fsync,            [ 75,  83], Always), // fdatasync
    (O::Fsync,            [306, 267], Always), // syncfs
    (O::Futimesat,        [261,   N], Always),
    (O::Getcwd,           [ 79,  17], Always),
    (O::Getsockname,      [ 51, 204], Always),
    (O::Getxattr,         [191,   8], Always),
    (O::InotifyAddWatch,  [254,  27], Always),
    (O::Lchown,           [ 94,   N], Always),
    (O::Lgetxattr,        [192,   9], Always),
    (O::Link,             [ 86,   N], Always),
    (O::Linkat,           [265,  37], Always),
    (O::Listxattr,        [194,  11], Always),
    (O::Llistxattr,       [195,  12], Always),
    (O::Lremovexattr,     [198,  15], Always),
    (O::Lsetxattr,        [189,   6], Always),
    (O::Lstat,            [  6,   N], Always),
    (O::Mkdir,            [ 83,   N], Always),
    (O::Mkdirat,          [258,  34], Always),
    (O::Mknod,            [133,   N], Always),
    (O::Mknodat,          [259,  33], Always),
    (O::NameToHandleAt,   [303, 264], Always),
    (O::Newfstatat,       [262,  79], Always),
    (O::Open,             [  2,   N], Always),
    (O::Openat,           [257,  56], Always),
    (O::Prctl,            [157, 167], Is(0, OPTIONS)),
    (O::Ptrace,           [101, 117], Always),
    (O::Readlink,         [ 89,   N], Always),
    (O::Readlinkat,       [267,  78], Always),
    (O::Removexattr,      [197,  14], Always),
    (O::Rename,           [ 82,   N], Always),
    (O::Renameat,         [264,  38], Always),
    (O::Renameat2,        [316, 276], Always),
    (O::Rmdir,            [ 84,   N], Always),
    (O::Sendmmsg,         [307, 269], Always),
    (O::Sendmsg,          [ 46, 211], Always),
    (O::Sendto,           [ 44, 206], Given(4)),
    (O::Setxattr,         [188,   5], Always),
    (O::Socket,           [ 41, 198], Is(0, FAMILIES)),
    (O::Stat,             [  4,   N], Always),
    (O::Statfs,           [137,  43], Always),
    (O::Statx,            [332, 291], Always),
    (O::Symlink,          [ 88,   N], Always),
    (O::Symlinkat,        [266,  36], Always),
    (O::Fsync,            [277,  84], Always), // sync_file_range
    (O::Truncate,         [ 76,  45], Always),
    (O::Umask,            [ 95, 166], Always),
    (O::Uname,            [ 63, 160], Always),
    (O::Unlink,           [ 87,   N], Always),
    (O::Unlinkat,         [263,  35], Always),
    (O::Utime,            [132,   N], Always),
    (O::Utimensat,        [280,  88], Given(1)),
    (O::Utimes,           [235,   N], Always),
    // Who the caller is.
    (O::Identity,         [125,  90], Always), // capget
    (O::Identity,         [126,  91], Always), // capset
    (O::Identity,         [108, 177], Always), // getegid
    (O::Identity,         [107, 175], Always), // geteuid
    (O::Identity,         [104, 176], Always), // getgid
    (O::Identity,         [115, 158], Always), // getgroups
    (O::Identity,         [120, 150], Always), // getresgid
    (O::Identity,         [118, 148], Always), // getresuid
    (O::Identity,         [ 97, 163], Is(0, OWN_RESOURCE)), // getrlimit
    (O::Identity,         [102, 174], Always), // getuid
    (O::Identity,         [123, 152], Always), // setfsgid
    (O::Identity,         [122, 151], Always), // setfsuid
    (O::Identity,         [106, 144], Always), // setgid
    (O::Identity,         [116, 159], Always), // setgroups
    (O::Identity,         [114, 143], Always), // setregid
    (O::Identity,         [119, 149], Always), // setresgid
    (O::Identity,         [117, 147], Always), // setresuid
    (O::Identity,         [113, 145], Always), // setreuid
    (O::Identity,         [160, 164], Is(0, OWN_RESOURCE)), // setrlimit
    (O::Identity,         [105, 146], Always), // setuid
    // Other processes, which the kernel would let one of the same user limit, slow down and look into.
    (O::OfProcess(0),     [302, 261], Given(0)), // prlimit64, and see below
    (O::OfProcess(0),     [203, 122], Given(0)), // sched_setaffinity
    (O::OfProcess(0),     [144, 119], Given(0)), // sched_setscheduler
    (O::OfProcess(0),     [142, 118], Given(0)), // sched_setparam
    (O::OfProcess(0),     [314, 274], Given(0)), // sched_setattr
    (O::OfProcess(1),     [141, 140], Given(1)), // setpriority
    (O::OfProcess(1),     [251,  30], Given(1)), // ioprio_set
    (O::OfProcess(0),     [434, 434], Always),   // pidfd_open
    (O::OfProcess(0),     [310, 270], Always),   // process_vm_readv
    (O::OfProcess(0),     [311, 271], Always),   // process_vm_writev
    (O::OfProcess(0),     [312, 272], Always),   // kcmp
    (O::OfProcess(0),     [279, 239], Given(0)), // move_pages
    (O::OfProcess(0),     [256, 238], Given(0)), // migrate_pages
];

/// Held where Landlock does not keep signals inside.
#[rustfmt::skip]
const SIGNALS: &[(Operation, [u32; 2], When)] = &[
    (O::Kill,             [ 62, 129], Always),
    (O::OfProcess(0),     [200, 130], Always), // tkill
    (O::OfProcess(0),     [234, 131], Always), // tgkill
    (O::OfProcess(0),     [129, 138], Always), // rt_sigqueueinfo
    (O::OfProcess(0),     [297, 240], Always), // rt_tgsigqueueinfo
];

/// The calls that a tracer alters: execve, execveat, chdir.
const TRACED: [[u32; 2]; 3] = [[59, 221], [322, 281], [80, 49]];

/// Answered "no such call", so that programs take the older form: their arguments are structures that no filter can look
/// into, or they do what is held here without being held. openat2, io_uring_setup, setxattrat, getxattrat, listxattrat,
/// removexattrat, open_tree_attr, file_getattr, file_setattr.
const MISSING: [[u32; 2]; 9] = [
    [437, 437],
    [425, 425],
    [463, 463],
    [464, 464],
    [465, 465],
    [466, 466],
    [467, 467],
    [468, 468],
    [469, 469],
];

/// The call whose second argument decides too: it carries the credentials.
const PRLIMIT: [u32; 2] = [302, 261];

#[cfg(target_arch = "x86_64")]
const COLUMN: usize = 0;
#[cfg(target_arch = "aarch64")]
const COLUMN: usize = 1;
#[cfg(target_arch = "x86_64")]
const NATIVE: (Gate, u32) = (Gate::X86_64, filter::ARCH_X86_64);
#[cfg(target_arch = "aarch64")]
const NATIVE: (Gate, u32) = (Gate::Arm64, filter::ARCH_ARM64);

/// What the tracer alters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Traced {
    Execve,
    Execveat,
    Chdir,
}

/// Returns the traced call that a number stands for.
pub(super) fn traced(number: u32) -> Option<Traced> {
    let at = TRACED.iter().position(|row| row[COLUMN] == number)?;
    Some([Traced::Execve, Traced::Execveat, Traced::Chdir][at])
}

/// Returns the filter for this machine. `signals` are held too, or left to the kernel; without network all sockets are held.
pub(in crate::sandbox) fn program(signals: bool, without_network: bool) -> Vec<Instruction> {
    filter::by_abi(&|gate| match gate == NATIVE.0 {
        true => verdicts(signals, without_network),
        false => Verdicts::all(vec![filter::end(filter::MISSING)]),
    })
}

fn verdicts(signals: bool, without_network: bool) -> Verdicts {
    let pass = filter::end(libc::SECCOMP_RET_ALLOW);
    let held =
        HELD.iter()
            .chain(SIGNALS.iter().filter(|_| signals))
            .map(|(operation, row, when)| match operation {
                O::Socket if without_network => (row[COLUMN], code(row, Always)),
                _ => (row[COLUMN], code(row, *when)),
            });
    let traced = TRACED.iter().map(|row| {
        let trace = filter::end(libc::SECCOMP_RET_TRACE);
        (row[COLUMN], vec![trace])
    });
    let missing = MISSING
        .iter()
        .map(|row| (row[COLUMN], vec![filter::end(filter::MISSING)]));
    let mut numbers: Vec<_> = held
        .chain(traced)
        .chain(missing)
        .filter(|(number, _)| *number != N)
        .collect();
    numbers.sort_by_key(|(number, _)| *number);

    let mut segments = vec![(0, vec![pass])];
    for (number, code) in numbers {
        if segments.last().is_some_and(|(first, _)| *first == number) {
            segments.pop();
        }
        segments.push((number, code));
        segments.push((number + 1, vec![pass]));
    }
    Verdicts { segments }
}

fn code(row: &[u32; 2], when: When) -> Vec<Instruction> {
    let hold = filter::end(libc::SECCOMP_RET_USER_NOTIF);
    let pass = filter::end(libc::SECCOMP_RET_ALLOW);
    let mut code = match when {
        Always => return vec![hold],
        Given(argument) => vec![
            filter::load_argument(argument),
            filter::jump_if(filter::IF_EQUAL, 0, 0, 3),
            filter::load_high_argument(argument),
            filter::jump_if(filter::IF_EQUAL, 0, 0, 1),
            pass,
            hold,
        ],
        Is(argument, values) => {
            let mut code = vec![filter::load_argument(argument)];
            for (at, value) in values.iter().enumerate() {
                // Past the remaining comparisons and the pass.
                let past = u8::try_from(values.len() - at).expect("few of them");
                code.push(filter::jump_if(filter::IF_EQUAL, *value, past, 0));
            }
            code.extend([pass, hold]);
            code
        }
    };
    if row == &PRLIMIT {
        let mut first = vec![
            filter::load_argument(1),
            filter::jump_if(filter::IF_EQUAL, credentials::RESOURCE, 0, 1),
            hold,
        ];
        first.append(&mut code);
        code = first;
    }
    code
}

/// Finds the operation that a number stands for.
#[derive(Debug)]
pub(super) struct Operations(Vec<Option<Operation>>);

impl Operations {
    pub(super) fn new() -> Operations {
        let mut all = Vec::new();
        for (operation, row, _) in HELD.iter().chain(SIGNALS) {
            let number = row[COLUMN];
            if number == N {
                continue;
            }
            let number = number as usize;
            if all.len() <= number {
                all.resize(number + 1, None);
            }
            all[number] = Some(*operation);
        }
        Operations(all)
    }

    pub(super) fn decode(&self, arch: u32, number: u32) -> Option<Operation> {
        match arch == NATIVE.1 {
            true => *self.0.get(number as usize)?,
            false => None,
        }
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::super::super::filter::tests::run;
    use super::*;

    const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
    const HOLD: u32 = libc::SECCOMP_RET_USER_NOTIF;
    const TRACE: u32 = libc::SECCOMP_RET_TRACE;

    fn verdict(number: libc::c_long, arguments: [u64; 6]) -> u32 {
        let number = u32::try_from(number).unwrap();
        run(
            &program(false, false),
            filter::ARCH_X86_64,
            number,
            arguments,
        )
    }

    #[test]
    fn calls_are_held_for_the_arguments_that_need_it() {
        for (number, arguments, expected) in [
            (libc::SYS_read, [0; 6], ALLOW),
            (libc::SYS_openat, [0; 6], HOLD),
            (libc::SYS_execve, [0; 6], TRACE),
            (libc::SYS_execveat, [0; 6], TRACE),
            (libc::SYS_chdir, [0; 6], TRACE),
            (libc::SYS_fchdir, [0; 6], ALLOW),
            (libc::SYS_openat2, [0; 6], filter::MISSING),
            (libc::SYS_sendto, [3, 4, 5, 0, 0, 0], ALLOW),
            (libc::SYS_sendto, [3, 4, 5, 0, 1 << 40, 16], HOLD),
            (libc::SYS_utimensat, [3, 0, 0, 0, 0, 0], ALLOW),
            (libc::SYS_utimensat, [0, 1 << 33, 0, 0, 0, 0], HOLD),
            (libc::SYS_socket, [2, 0, 0, 0, 0, 0], ALLOW),
            (libc::SYS_socket, [1, 0, 0, 0, 0, 0], HOLD),
            (libc::SYS_prlimit64, [0, 7, 0, 0, 0, 0], ALLOW),
            (libc::SYS_prlimit64, [0, 10, 0, 0, 0, 0], HOLD),
            (libc::SYS_prlimit64, [9, 7, 0, 0, 0, 0], HOLD),
            (libc::SYS_kill, [9, 9, 0, 0, 0, 0], ALLOW),
            (libc::SYS_prctl, [4, 0, 0, 0, 0, 0], HOLD),
            (libc::SYS_prctl, [15, 0, 0, 0, 0, 0], ALLOW),
        ] {
            assert_eq!(
                verdict(number, arguments),
                expected,
                "{number} {arguments:?}"
            );
        }
        let kill = u32::try_from(libc::SYS_kill).unwrap();
        assert_eq!(
            run(&program(true, false), filter::ARCH_X86_64, kill, [0; 6]),
            HOLD
        );
    }

    #[test]
    fn other_gates_are_closed() {
        let program = program(false, false);
        assert!(program.len() < 4096);
        for number in [0, 3, 5, 11, 173] {
            let missing = filter::MISSING;
            assert_eq!(run(&program, filter::ARCH_I386, number, [0; 6]), missing);
            let x32 = number | 0x4000_0000;
            assert_eq!(run(&program, filter::ARCH_X86_64, x32, [0; 6]), missing);
        }
    }

    #[test]
    fn no_number_is_listed_twice() {
        for column in 0..2 {
            let mut numbers: Vec<u32> = HELD
                .iter()
                .chain(SIGNALS)
                .map(|(_, row, _)| row[column])
                .chain(TRACED.iter().chain(&MISSING).map(|row| row[column]))
                .filter(|number| *number != N)
                .collect();
            let count = numbers.len();
            numbers.sort_unstable();
            numbers.dedup();
            assert_eq!(numbers.len(), count);
        }
    }
}
