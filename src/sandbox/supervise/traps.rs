//! Which calls are held for the supervisor: data, and the filter made of it.
//!
//! The filter stands beside the one that confines (see [`filter`](super::super::filter)): of two verdicts the kernel takes the
//! graver, so that what is denied there is denied, and a call is held here only if it is allowed there.
//!
//! Numbers are the kernel's, from its system call tables; [`N`] where an architecture has no such call, or only an old form of
//! it that no program of this century uses (ids of 16 bits). Columns: x86-64, i386, arm64, arm. Calls of the x32 ABI are
//! answered "no such call", as on kernels without it.

use super::super::filter::{self, Instruction, Verdicts};

/// "Has no such call".
const N: u32 = u32::MAX;

/// How much is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sandbox) enum Mode {
    /// What makes devices, what takes their names away, and what tells the machine's: for a command with real owners and
    /// without the power to make devices.
    Devices,
    /// That, and what tells what a file is.
    DevicesShown,
    /// What is about ids, owners and modes: for a command that starts as root, in a root of its own.
    Light,
    /// All calls with paths too.
    Full,
}

impl Mode {
    /// Tells whether a command has one id for whatever user it is told to be.
    pub(in crate::sandbox) fn emulates_ids(self) -> bool {
        match self {
            Mode::Devices | Mode::DevicesShown => false,
            Mode::Light | Mode::Full => true,
        }
    }

    fn holds(self, call: Call) -> bool {
        let is_of_devices = matches!(
            call,
            Call::Mknod
                | Call::Mknodat
                | Call::Rename
                | Call::Renameat
                | Call::Renameat2
                | Call::Uname
                | Call::Unlink
                | Call::Unlinkat
        );
        let tells = matches!(
            call,
            Call::Fstat | Call::Lstat | Call::Newfstatat | Call::Stat | Call::Statx
        );
        match self {
            Mode::Devices => is_of_devices,
            Mode::DevicesShown => is_of_devices || tells,
            Mode::Light | Mode::Full => true,
        }
    }
}

/// A held call, by what it does and where its arguments are; old forms without directory have their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::sandbox) enum Call {
    Access,
    Capget,
    Capset,
    Chmod,
    Chown,
    Chroot,
    Creat,
    Execve,
    Execveat,
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
    Getegid,
    Geteuid,
    Getgid,
    Getgroups,
    Getresgid,
    Getresuid,
    Getrlimit,
    Getuid,
    Getxattr,
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
    Newfstatat,
    Open,
    Openat,
    Prctl,
    Prlimit64,
    Removexattr,
    Rename,
    Renameat,
    Renameat2,
    Rmdir,
    Setfsgid,
    Setfsuid,
    Setgid,
    Setgroups,
    Setregid,
    Setresgid,
    Setresuid,
    Setreuid,
    Setrlimit,
    Setuid,
    Setxattr,
    Stat,
    Statx,
    Symlink,
    Symlinkat,
    Uname,
    Unlink,
    Unlinkat,
}

/// For which arguments a call is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    Always,
    /// One argument, in its low 32 bits, is one of these.
    Is(u8, &'static [u32]),
    /// One argument has any of these bits; in the full mode always.
    Has(u8, u32),
}

/// An architecture's numbers and structures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sandbox) enum Abi {
    X86_64,
    I386,
    Arm64,
    Arm,
}

impl Abi {
    /// This program's own.
    #[cfg(target_arch = "x86_64")]
    pub(super) const NATIVE: Abi = Abi::X86_64;
    #[cfg(target_arch = "aarch64")]
    pub(super) const NATIVE: Abi = Abi::Arm64;
}

/// O_WRONLY, O_RDWR, O_CREAT, O_TRUNC and O_TMPFILE's own bit, which are the same on all of these.
const WRITES: u32 = 0o1 | 0o2 | 0o100 | 0o1000 | 0o20_000_000;
/// The resource that carries the number of a process's credentials.
const OWN_RESOURCE: &[u32] = &[super::credentials::RESOURCE];
/// Those options of prctl(2) that are about identity: KEEPCAPS, CAPBSET, SECUREBITS, NO_NEW_PRIVS, CAP_AMBIENT.
const IDENTITY: &[u32] = &[7, 8, 23, 24, 27, 28, 38, 39, 47];

#[rustfmt::skip]
const TRAPS: &[(Call, [u32; 4], When)] = &[
    (Call::Access,       [ 21,  33,   N,  33], When::Always),
    (Call::Capget,       [125, 184,  90, 184], When::Always),
    (Call::Capset,       [126, 185,  91, 185], When::Always),
    (Call::Chmod,        [ 90,  15,   N,  15], When::Always),
    (Call::Chown,        [ 92, 212,   N, 212], When::Always),
    (Call::Chroot,       [161,  61,  51,  61], When::Always),
    (Call::Creat,        [ 85,   8,   N,   8], When::Always),
    (Call::Execve,       [ 59,  11, 221,  11], When::Always),
    (Call::Execveat,     [322, 358, 281, 387], When::Always),
    (Call::Faccessat,    [269, 307,  48, 334], When::Always),
    (Call::Faccessat2,   [439, 439, 439, 439], When::Always),
    (Call::Fchmod,       [ 91,  94,  52,  94], When::Always),
    (Call::Fchmodat,     [268, 306,  53, 333], When::Always),
    (Call::Fchmodat2,    [452, 452, 452, 452], When::Always),
    (Call::Fchown,       [ 93, 207,  55, 207], When::Always),
    (Call::Fchownat,     [260, 298,  54, 325], When::Always),
    (Call::Fgetxattr,    [193, 231,  10, 231], When::Always),
    (Call::Flistxattr,   [196, 234,  13, 234], When::Always),
    (Call::Fremovexattr, [199, 237,  16, 237], When::Always),
    (Call::Fsetxattr,    [190, 228,   7, 228], When::Always),
    (Call::Fstat,        [  5, 197,  80, 197], When::Always),
    (Call::Getegid,      [108, 202, 177, 202], When::Always),
    (Call::Geteuid,      [107, 201, 175, 201], When::Always),
    (Call::Getgid,       [104, 200, 176, 200], When::Always),
    (Call::Getgroups,    [115, 205, 158, 205], When::Always),
    (Call::Getresgid,    [120, 211, 150, 211], When::Always),
    (Call::Getresuid,    [118, 209, 148, 209], When::Always),
    (Call::Getrlimit,    [ 97, 191, 163, 191], When::Is(0, OWN_RESOURCE)),
    (Call::Getuid,       [102, 199, 174, 199], When::Always),
    (Call::Getxattr,     [191, 229,   8, 229], When::Always),
    (Call::Lchown,       [ 94, 198,   N, 198], When::Always),
    (Call::Lgetxattr,    [192, 230,   9, 230], When::Always),
    (Call::Link,         [ 86,   9,   N,   9], When::Always),
    (Call::Linkat,       [265, 303,  37, 330], When::Always),
    (Call::Listxattr,    [194, 232,  11, 232], When::Always),
    (Call::Llistxattr,   [195, 233,  12, 233], When::Always),
    (Call::Lremovexattr, [198, 236,  15, 236], When::Always),
    (Call::Lsetxattr,    [189, 227,   6, 227], When::Always),
    (Call::Lstat,        [  6, 196,   N, 196], When::Always),
    (Call::Mkdir,        [ 83,  39,   N,  39], When::Always),
    (Call::Mkdirat,      [258, 296,  34, 323], When::Always),
    (Call::Mknod,        [133,  14,   N,  14], When::Always),
    (Call::Mknodat,      [259, 297,  33, 324], When::Always),
    (Call::Newfstatat,   [262, 300,  79, 327], When::Always),
    (Call::Open,         [  2,   5,   N,   5], When::Has(1, WRITES)),
    (Call::Openat,       [257, 295,  56, 322], When::Has(2, WRITES)),
    (Call::Prctl,        [157, 172, 167, 172], When::Is(0, IDENTITY)),
    (Call::Prlimit64,    [302, 340, 261, 369], When::Is(1, OWN_RESOURCE)),
    (Call::Removexattr,  [197, 235,  14, 235], When::Always),
    (Call::Rename,       [ 82,  38,   N,  38], When::Always),
    (Call::Renameat,     [264, 302,  38, 329], When::Always),
    (Call::Renameat2,    [316, 353, 276, 382], When::Always),
    (Call::Rmdir,        [ 84,  40,   N,  40], When::Always),
    (Call::Setfsgid,     [123, 216, 152, 216], When::Always),
    (Call::Setfsuid,     [122, 215, 151, 215], When::Always),
    (Call::Setgid,       [106, 214, 144, 214], When::Always),
    (Call::Setgroups,    [116, 206, 159, 206], When::Always),
    (Call::Setregid,     [114, 204, 143, 204], When::Always),
    (Call::Setresgid,    [119, 210, 149, 210], When::Always),
    (Call::Setresuid,    [117, 208, 147, 208], When::Always),
    (Call::Setreuid,     [113, 203, 145, 203], When::Always),
    (Call::Setrlimit,    [160,  75, 164,  75], When::Is(0, OWN_RESOURCE)),
    (Call::Setuid,       [105, 213, 146, 213], When::Always),
    (Call::Setxattr,     [188, 226,   5, 226], When::Always),
    (Call::Stat,         [  4, 195,   N, 195], When::Always),
    (Call::Statx,        [332, 383, 291, 397], When::Always),
    (Call::Symlink,      [ 88,  83,   N,  83], When::Always),
    (Call::Symlinkat,    [266, 304,  36, 331], When::Always),
    (Call::Uname,        [ 63, 122, 160, 122], When::Always),
    (Call::Unlink,       [ 87,  10,   N,  10], When::Always),
    (Call::Unlinkat,     [263, 301,  35, 328], When::Always),
];

/// Answered "no such call", so that programs take the older form: their arguments are structures that no filter can look
/// into (openat2), or they do what is held here without being held (io_uring).
/// openat2, io_uring_setup, setxattrat, getxattrat, listxattrat, removexattrat.
const MISSING: [u32; 6] = [437, 425, 463, 464, 465, 466];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Pass,
    Missing,
    Hold(When),
}

/// Returns the filter for this machine.
pub(in crate::sandbox) fn program(mode: Mode) -> Vec<Instruction> {
    filter::by_abi(&|abi| verdicts(abi, mode))
}

fn verdicts(abi: filter::Gate, mode: Mode) -> Verdicts {
    let column = match abi {
        filter::Gate::X86_64 => Abi::X86_64,
        filter::Gate::I386 => Abi::I386,
        filter::Gate::Arm64 => Abi::Arm64,
        filter::Gate::Arm => Abi::Arm,
        filter::Gate::X32 => return Verdicts::all(vec![filter::end(filter::MISSING)]),
    } as usize;
    let held = TRAPS
        .iter()
        .filter(|(call, ..)| mode.holds(*call))
        .map(|(_, row, when)| (row[column], Verdict::Hold(*when)));
    let missing: &[u32] = match mode.emulates_ids() {
        true => &MISSING,
        false => &[],
    };
    let missing = missing.iter().map(|number| (*number, Verdict::Missing));
    let mut numbers: Vec<_> = held
        .chain(missing)
        .filter(|(number, _)| *number != N)
        .collect();
    numbers.sort_unstable_by_key(|(number, _)| *number);

    let mut segments = vec![(0, Verdict::Pass)];
    let mut push = |first: u32, verdict: Verdict| {
        let last = segments.last_mut().expect("starts with one");
        if last.0 == first {
            last.1 = verdict;
        } else if last.1 != verdict {
            segments.push((first, verdict));
        }
    };
    for (number, verdict) in numbers {
        push(number, verdict);
        push(number + 1, Verdict::Pass);
    }
    segments.dedup_by_key(|segment| segment.1);
    Verdicts {
        segments: segments
            .into_iter()
            .map(|(first, verdict)| (first, leaf(verdict, mode)))
            .collect(),
    }
}

fn leaf(verdict: Verdict, mode: Mode) -> Vec<Instruction> {
    let hold = filter::end(libc::SECCOMP_RET_USER_NOTIF);
    let pass = filter::end(libc::SECCOMP_RET_ALLOW);
    match verdict {
        Verdict::Pass => vec![pass],
        Verdict::Missing => vec![filter::end(filter::MISSING)],
        Verdict::Hold(When::Has(argument, bits)) if mode == Mode::Light => vec![
            filter::load_argument(argument),
            filter::jump_if(filter::IF_ANY_BIT, bits, 1, 0),
            pass,
            hold,
        ],
        Verdict::Hold(When::Is(argument, values)) => {
            let mut code = vec![filter::load_argument(argument)];
            for (at, value) in values.iter().enumerate() {
                // Past the remaining comparisons and the pass.
                let past = u8::try_from(values.len() - at).expect("few of them");
                code.push(filter::jump_if(filter::IF_EQUAL, *value, past, 0));
            }
            code.extend([pass, hold]);
            code
        }
        Verdict::Hold(_) => vec![hold],
    }
}

/// Finds the call that a number stands for.
#[derive(Debug)]
pub(in crate::sandbox) struct Decoder([Vec<Option<Call>>; 2]);

impl Decoder {
    pub(in crate::sandbox) fn new() -> Decoder {
        let of = |abi: Abi| {
            let mut calls = Vec::new();
            for (call, row, _) in TRAPS {
                let number = row[abi as usize];
                if number == N {
                    continue;
                }
                let number = number as usize;
                if calls.len() <= number {
                    calls.resize(number + 1, None);
                }
                calls[number] = Some(*call);
            }
            calls
        };
        Decoder(NATIVE_AND_COMPAT.map(|(_, abi)| of(abi)))
    }

    /// Returns `None` for what is not held: the kernel may have it.
    pub(in crate::sandbox) fn decode(&self, arch: u32, number: u32) -> Option<(Call, Abi)> {
        let at = NATIVE_AND_COMPAT
            .iter()
            .position(|(known, _)| *known == arch)?;
        let call = *self.0[at].get(number as usize)?;
        Some((call?, NATIVE_AND_COMPAT[at].1))
    }
}

#[cfg(target_arch = "x86_64")]
const NATIVE_AND_COMPAT: [(u32, Abi); 2] = [
    (filter::ARCH_X86_64, Abi::X86_64),
    (filter::ARCH_I386, Abi::I386),
];
#[cfg(target_arch = "aarch64")]
const NATIVE_AND_COMPAT: [(u32, Abi); 2] = [
    (filter::ARCH_ARM64, Abi::Arm64),
    (filter::ARCH_ARM, Abi::Arm),
];

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::super::super::filter::tests::run;
    use super::*;

    const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
    const HOLD: u32 = libc::SECCOMP_RET_USER_NOTIF;

    #[test]
    fn every_listed_number_is_held_and_no_other() {
        for mode in [Mode::Devices, Mode::DevicesShown, Mode::Light, Mode::Full] {
            let program = program(mode);
            assert!(program.len() < 4096, "{}", program.len());
            for (arch, abi) in NATIVE_AND_COMPAT {
                for number in 0..600 {
                    let listed = TRAPS
                        .iter()
                        .find(|(call, row, _)| row[abi as usize] == number && mode.holds(*call));
                    let mut arguments = [0; 6];
                    let expected = match listed {
                        _ if MISSING.contains(&number) && mode.emulates_ids() => filter::MISSING,
                        None => ALLOW,
                        Some((.., When::Always)) => HOLD,
                        Some((.., When::Has(..))) if mode == Mode::Full => HOLD,
                        Some((.., When::Has(argument, bits))) => {
                            assert_eq!(run(&program, arch, number, arguments), ALLOW);
                            arguments[usize::from(*argument)] =
                                u64::from(bits & bits.wrapping_neg());
                            HOLD
                        }
                        Some((.., When::Is(argument, values))) => {
                            assert_eq!(run(&program, arch, number, arguments), ALLOW);
                            for value in *values {
                                // What is above 32 bits is not the kernel's either.
                                arguments[usize::from(*argument)] = u64::from(*value) | 1 << 40;
                                assert_eq!(run(&program, arch, number, arguments), HOLD);
                            }
                            HOLD
                        }
                    };
                    let verdict = run(&program, arch, number, arguments);
                    assert_eq!(verdict, expected, "{mode:?} {abi:?} {number}");
                }
            }
            let x32 = 0x4000_0000;
            assert_eq!(
                run(&program, filter::ARCH_X86_64, x32 | 1, [0; 6]),
                filter::MISSING
            );
        }
    }

    #[test]
    fn numbers_lead_back_to_their_calls() {
        let decoder = Decoder::new();
        for (arch, abi) in NATIVE_AND_COMPAT {
            for (call, row, _) in TRAPS {
                let number = row[abi as usize];
                if number != N {
                    assert_eq!(decoder.decode(arch, number), Some((*call, abi)));
                }
            }
            assert_eq!(decoder.decode(arch, 600), None);
        }
        assert_eq!(decoder.decode(filter::ARCH_X86_64, 39), None);
    }

    #[test]
    fn no_call_is_listed_twice() {
        for column in 0..4 {
            let mut numbers: Vec<_> = TRAPS
                .iter()
                .map(|(_, row, _)| row[column])
                .filter(|number| *number != N)
                .collect();
            let count = numbers.len();
            numbers.sort_unstable();
            numbers.dedup();
            assert_eq!(numbers.len(), count);
        }
    }
}
