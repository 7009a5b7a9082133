//! The system call filter: from the tables of [`syscalls`](super::syscalls) to a BPF program, and into the kernel.
//!
//! Allowed calls pass, others fail with EPERM, and those newer than anything in the tables with ENOSYS, so that programs
//! which try a new call fall back to the old one. Numbers are found by binary search: some ten instructions a call, and on
//! kernels that cache verdicts none at all. Arguments are compared in their low 32 bits, which are what the kernel uses of
//! them. The program is for the architecture this program was built for and its 32-bit companions; a call through any other
//! gate kills the process.

use rustix::io::Errno;

use super::syscalls::{ALLOWED, Abi, CONDITIONAL, Conditional, N};

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("the system call tables have no column for this architecture");

/// One BPF instruction.
pub(super) type Instruction = libc::sock_filter;

/// The ways into the kernel that a program can be made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    not(test),
    expect(dead_code, reason = "a machine has the gates of its own family")
)]
pub(super) enum Gate {
    X86_64,
    X32,
    I386,
    Arm64,
    Arm,
}

/// The code for each range of numbers, by the first of them, ascending, the first at 0.
pub(super) struct Verdicts {
    pub(super) segments: Vec<(u32, Vec<Instruction>)>,
}

impl Verdicts {
    /// The same for every number.
    pub(super) fn all(code: Vec<Instruction>) -> Verdicts {
        Verdicts {
            segments: vec![(0, code)],
        }
    }
}

/// Marks calls of the x32 ABI, which share their architecture with x86-64.
const X32_BIT: u32 = 0x4000_0000;
/// Where arm's private calls begin.
const ARM_PRIVATE: u32 = 0x000f_0000;

#[cfg(any(test, target_arch = "x86_64"))]
pub(super) const ARCH_X86_64: u32 = 0xc000_003e;
#[cfg(any(test, target_arch = "x86_64"))]
pub(super) const ARCH_I386: u32 = 0x4000_0003;
#[cfg(any(test, target_arch = "aarch64"))]
pub(super) const ARCH_ARM64: u32 = 0xc000_00b7;
#[cfg(any(test, target_arch = "aarch64"))]
pub(super) const ARCH_ARM: u32 = 0x4000_0028;

/// Offsets in `struct seccomp_data`, the last one on little-endian machines.
const OFFSET_NUMBER: u32 = 0;
const OFFSET_ARCH: u32 = 4;
const OFFSET_ARGUMENT_0: u32 = 16;

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const JUMP: u16 = (libc::BPF_JMP | libc::BPF_JA) as u16;
pub(super) const IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const IF_AT_LEAST: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
pub(super) const IF_ANY_BIT: u16 = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const DENY: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
pub(super) const MISSING: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
const KILL: u32 = libc::SECCOMP_RET_KILL_PROCESS;

/// CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET.
const CLONE_NAMESPACES: u32 = 0x7e02_0000;
const AF_ALG: u32 = 38;
const AF_VSOCK: u32 = 40;
const PERSONALITIES: [u32; 5] = [0x0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Allow,
    Deny,
    Missing,
    Ask(Conditional),
}

/// Returns the filter for this machine.
pub(super) fn program() -> Vec<Instruction> {
    by_abi(&confinement)
}

/// Returns a program for this machine that finds the code for each number of each gate.
#[cfg(target_arch = "x86_64")]
pub(super) fn by_abi(of: &dyn Fn(Gate) -> Verdicts) -> Vec<Instruction> {
    x86_program(of)
}

/// Returns a program for this machine that finds the code for each number of each gate.
#[cfg(target_arch = "aarch64")]
pub(super) fn by_abi(of: &dyn Fn(Gate) -> Verdicts) -> Vec<Instruction> {
    arm_program(of)
}

/// Returns what a command may do.
fn confinement(gate: Gate) -> Verdicts {
    let (abi, marker) = match gate {
        Gate::X86_64 => (Abi::X86_64, 0),
        Gate::X32 => (Abi::X32, X32_BIT),
        Gate::I386 => (Abi::I386, 0),
        Gate::Arm64 => (Abi::Arm64, 0),
        Gate::Arm => (Abi::Arm, 0),
    };
    Verdicts {
        segments: segments(abi, marker)
            .into_iter()
            .map(|(first, verdict)| (first, leaf(verdict)))
            .collect(),
    }
}

#[cfg(any(test, target_arch = "x86_64"))]
fn x86_program(of: &dyn Fn(Gate) -> Verdicts) -> Vec<Instruction> {
    let mut native = vec![load(OFFSET_NUMBER)];
    native.extend(either(
        IF_AT_LEAST,
        X32_BIT,
        search(&of(Gate::X32).segments),
        search(&of(Gate::X86_64).segments),
    ));
    let mut compat = vec![load(OFFSET_NUMBER)];
    compat.extend(search(&of(Gate::I386).segments));
    by_architecture(ARCH_X86_64, native, ARCH_I386, compat)
}

#[cfg(any(test, target_arch = "aarch64"))]
fn arm_program(of: &dyn Fn(Gate) -> Verdicts) -> Vec<Instruction> {
    let mut native = vec![load(OFFSET_NUMBER)];
    native.extend(search(&of(Gate::Arm64).segments));
    let mut compat = vec![load(OFFSET_NUMBER)];
    compat.extend(search(&of(Gate::Arm).segments));
    by_architecture(ARCH_ARM64, native, ARCH_ARM, compat)
}

fn by_architecture(
    native: u32,
    native_code: Vec<Instruction>,
    compat: u32,
    compat_code: Vec<Instruction>,
) -> Vec<Instruction> {
    let mut code = vec![load(OFFSET_ARCH)];
    let other = either(IF_EQUAL, compat, compat_code, vec![end(KILL)]);
    code.extend(either(IF_EQUAL, native, native_code, other));
    code
}

/// Returns the verdicts of one ABI as (first number, verdict), ascending, the first at 0.
fn segments(abi: Abi, marker: u32) -> Vec<(u32, Verdict)> {
    let column = abi as usize;
    let allowed = ALLOWED.iter().map(|row| (row[column], Verdict::Allow));
    let conditional = CONDITIONAL.iter().map(|(conditional, row)| {
        let verdict = match conditional {
            Conditional::Clone3 => Verdict::Missing,
            asked => Verdict::Ask(*asked),
        };
        (row[column], verdict)
    });
    let mut verdicts: Vec<_> = allowed
        .chain(conditional)
        .filter(|(number, _)| *number != N)
        .collect();
    verdicts.sort_unstable_by_key(|(number, _)| *number);
    let newest = verdicts
        .iter()
        .map(|(number, _)| *number)
        .rfind(|number| *number < ARM_PRIVATE)
        .unwrap_or(0);

    let mut segments = vec![(0, Verdict::Deny)];
    let mut push = |first: u32, verdict: Verdict| {
        let last = segments.last_mut().expect("starts with one");
        if last.0 == first {
            last.1 = verdict;
        } else if last.1 != verdict {
            segments.push((first, verdict));
        }
    };
    for (number, verdict) in verdicts {
        push(number + marker, verdict);
        let after = if number == newest {
            Verdict::Missing
        } else {
            Verdict::Deny
        };
        push(number + marker + 1, after);
        if number == newest && abi == Abi::Arm {
            push(ARM_PRIVATE, Verdict::Deny);
        }
    }
    // A verdict that was overwritten may leave two equal neighbours.
    segments.dedup_by_key(|segment| segment.1);
    segments
}

/// Returns code that finds the segment of the number in the accumulator and runs its code.
fn search(segments: &[(u32, Vec<Instruction>)]) -> Vec<Instruction> {
    match segments {
        [] => vec![end(DENY)],
        [(_, code)] => code.clone(),
        _ => {
            let (low, high) = segments.split_at(segments.len() / 2);
            either(IF_AT_LEAST, high[0].0, search(high), search(low))
        }
    }
}

fn leaf(verdict: Verdict) -> Vec<Instruction> {
    match verdict {
        Verdict::Allow => vec![end(ALLOW)],
        Verdict::Deny => vec![end(DENY)],
        Verdict::Missing | Verdict::Ask(Conditional::Clone3) => vec![end(MISSING)],
        Verdict::Ask(Conditional::Clone) => vec![
            load(OFFSET_ARGUMENT_0),
            jump_if(IF_ANY_BIT, CLONE_NAMESPACES, 0, 1),
            end(DENY),
            end(ALLOW),
        ],
        Verdict::Ask(Conditional::Socket) => vec![
            load(OFFSET_ARGUMENT_0),
            jump_if(IF_EQUAL, AF_ALG, 1, 0),
            jump_if(IF_EQUAL, AF_VSOCK, 0, 1),
            end(DENY),
            end(ALLOW),
        ],
        Verdict::Ask(Conditional::Personality) => {
            let mut code = vec![load(OFFSET_ARGUMENT_0)];
            for (at, personality) in PERSONALITIES.into_iter().enumerate() {
                // Past the remaining comparisons and the refusal.
                let pass = u8::try_from(PERSONALITIES.len() - at).expect("five of them");
                code.push(jump_if(IF_EQUAL, personality, pass, 0));
            }
            code.extend([end(DENY), end(ALLOW)]);
            code
        }
        Verdict::Ask(Conditional::Mknod) => no_deletion_mark(1),
        Verdict::Ask(Conditional::Mknodat) => no_deletion_mark(2),
    }
}

/// Returns code that denies the character device 0:0, whose mode is argument `mode` and whose number is the next.
fn no_deletion_mark(mode: u8) -> Vec<Instruction> {
    /// The bit that character devices have, and those that other kinds of files have too.
    const CHARACTER_DEVICE: u32 = libc::S_IFCHR;
    const OTHER_KINDS: u32 = libc::S_IFMT & !libc::S_IFCHR;
    vec![
        load_argument(mode),
        jump_if(IF_ANY_BIT, OTHER_KINDS, 4, 0),
        jump_if(IF_ANY_BIT, CHARACTER_DEVICE, 0, 3),
        load_argument(mode + 1),
        jump_if(IF_EQUAL, 0, 0, 1),
        end(DENY),
        end(ALLOW),
    ]
}

/// Returns code that runs `yes` if the accumulator compares with `value`, else `no`; neither may fall off its end.
fn either(
    compare: u16,
    value: u32,
    yes: Vec<Instruction>,
    no: Vec<Instruction>,
) -> Vec<Instruction> {
    // A conditional jump reaches 255 instructions, an unconditional one anywhere.
    let mut code = match u8::try_from(no.len()) {
        Ok(near) => vec![jump_if(compare, value, near, 0)],
        Err(_) => vec![
            jump_if(compare, value, 0, 1),
            Instruction {
                code: JUMP,
                jt: 0,
                jf: 0,
                k: u32::try_from(no.len()).expect("programs are short"),
            },
        ],
    };
    code.extend(no);
    code.extend(yes);
    code
}

fn load(offset: u32) -> Instruction {
    Instruction {
        code: LOAD,
        jt: 0,
        jf: 0,
        k: offset,
    }
}

/// Returns code that loads the low 32 bits of an argument.
pub(super) fn load_argument(number: u8) -> Instruction {
    load(OFFSET_ARGUMENT_0 + 8 * u32::from(number))
}

/// Returns code that loads the high 32 bits of an argument, on little-endian machines.
pub(super) fn load_high_argument(number: u8) -> Instruction {
    load(OFFSET_ARGUMENT_0 + 8 * u32::from(number) + 4)
}

pub(super) fn jump_if(compare: u16, value: u32, jt: u8, jf: u8) -> Instruction {
    Instruction {
        code: compare,
        jt,
        jf,
        k: value,
    }
}

pub(super) fn end(verdict: u32) -> Instruction {
    Instruction {
        code: RETURN,
        jt: 0,
        jf: 0,
        k: verdict,
    }
}

/// Puts the filter on the calling thread and all that it becomes. Needs CAP_SYS_ADMIN, since it leaves set-user-ID programs
/// their power (no_new_privs stays 0).
pub(super) fn install(program: &[Instruction]) -> Result<(), Errno> {
    let header = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(|_| Errno::TOOBIG)?,
        filter: program.as_ptr().cast_mut(),
    };
    // Without this flag kernels before 5.16 switch off speculative store bypass for filtered processes, which is slow.
    match load_filter(libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW, &header) {
        Err(Errno::INVAL) => load_filter(0, &header),
        other => other,
    }
}

fn load_filter(flags: libc::c_ulong, header: &libc::sock_fprog) -> Result<(), Errno> {
    // SAFETY: the kernel copies `header.len` instructions from `header.filter` during the call; `install` made both from one
    // slice that is borrowed for as long, and the kernel does not write through the pointer.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::c_ulong::from(libc::SECCOMP_SET_MODE_FILTER),
            flags,
            std::ptr::from_ref(header),
        )
    };
    if result < 0 {
        return Err(last_errno());
    }
    Ok(())
}

fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn verdict(program: &[Instruction], arch: u32, number: u32, argument: u64) -> u32 {
        run(program, arch, number, [argument, 0, 0, 0, 0, 0])
    }

    /// Runs the program as the kernel would.
    pub(in crate::sandbox) fn run(
        program: &[Instruction],
        arch: u32,
        number: u32,
        arguments: [u64; 6],
    ) -> u32 {
        let mut at = 0;
        let mut accumulator = 0;
        loop {
            let instruction = program[at];
            let k = instruction.k;
            at += 1;
            let jump = |taken: bool| {
                usize::from(if taken {
                    instruction.jt
                } else {
                    instruction.jf
                })
            };
            match instruction.code {
                LOAD => {
                    accumulator = match k {
                        OFFSET_NUMBER => number,
                        OFFSET_ARCH => arch,
                        OFFSET_ARGUMENT_0.. if (k - OFFSET_ARGUMENT_0).is_multiple_of(4) => {
                            let word = k - OFFSET_ARGUMENT_0;
                            (arguments[(word / 8) as usize] >> (8 * (word % 8))) as u32
                        }
                        other => panic!("load from {other}"),
                    }
                }
                JUMP => at += k as usize,
                IF_EQUAL => at += jump(accumulator == k),
                IF_AT_LEAST => at += jump(accumulator >= k),
                IF_ANY_BIT => at += jump(accumulator & k != 0),
                RETURN => return k,
                other => panic!("instruction {other}"),
            }
        }
    }

    fn check(arch: u32, number: u32, argument: u64, expected: u32) {
        let program = match arch {
            ARCH_ARM64 | ARCH_ARM => arm_program(&confinement),
            _ => x86_program(&confinement),
        };
        assert_eq!(
            verdict(&program, arch, number, argument),
            expected,
            "{arch:#x} {number} {argument:#x}"
        );
    }

    #[test]
    fn every_number_has_the_verdict_of_the_tables() {
        let abis = [
            (Abi::X86_64, ARCH_X86_64, 0),
            (Abi::X32, ARCH_X86_64, X32_BIT),
            (Abi::I386, ARCH_I386, 0),
            (Abi::Arm64, ARCH_ARM64, 0),
            (Abi::Arm, ARCH_ARM, 0),
        ];
        let (x86, arm) = (x86_program(&confinement), arm_program(&confinement));
        for (abi, arch, marker) in abis {
            let program = if arch == ARCH_ARM64 || arch == ARCH_ARM {
                &arm
            } else {
                &x86
            };
            let column = abi as usize;
            let listed = |number: u32| ALLOWED.iter().any(|row| row[column] == number);
            let newest = (0..1000).filter(|number| listed(*number)).max().unwrap();
            for number in (0..1000).chain(ARM_PRIVATE..ARM_PRIVATE + 8) {
                if CONDITIONAL.iter().any(|(_, row)| row[column] == number) {
                    continue;
                }
                let expected = if listed(number) {
                    ALLOW
                } else if number <= newest || (abi == Abi::Arm && number >= ARM_PRIVATE) {
                    DENY
                } else {
                    MISSING
                };
                assert_eq!(
                    verdict(program, arch, number | marker, 0),
                    expected,
                    "{abi:?} {number}"
                );
            }
        }
    }

    #[test]
    fn calls_that_reach_the_host_are_denied() {
        // mount, umount2, unshare, setns, bpf, keyctl, add_key, userfaultfd, io_uring_setup, perf_event_open, open_tree,
        // pidfd_getfd, init_module, kexec_load, reboot, swapon, settimeofday, iopl, open_by_handle_at.
        for number in [
            165, 166, 272, 308, 321, 250, 248, 323, 425, 298, 428, 438, 175, 246, 169, 167, 164,
            172, 304,
        ] {
            check(ARCH_X86_64, number, 0, DENY);
            check(ARCH_X86_64, number | X32_BIT, 0, DENY);
        }
        // mount, unshare, setns, bpf, keyctl.
        for number in [21, 310, 346, 357, 288] {
            check(ARCH_I386, number, 0, DENY);
        }
        for number in [40, 97, 268, 280, 219] {
            check(ARCH_ARM64, number, 0, DENY);
        }
    }

    #[test]
    fn what_packages_need_is_allowed() {
        // chroot, mknod, ptrace, setuid, setgroups, execve, process_vm_readv, memfd_create.
        for number in [161, 133, 101, 105, 116, 59, 310, 319] {
            check(ARCH_X86_64, number, 0, ALLOW);
        }
    }

    #[test]
    fn clone_makes_no_namespaces() {
        let (thread, fork) = (0x003d_0f00, 17);
        for flags in [thread, fork] {
            check(ARCH_X86_64, 56, flags, ALLOW);
            check(ARCH_X86_64, 56 | X32_BIT, flags, ALLOW);
            check(ARCH_I386, 120, flags, ALLOW);
            check(ARCH_ARM64, 220, flags, ALLOW);
            check(ARCH_ARM, 120, flags, ALLOW);
        }
        for namespace in [
            0x0002_0000,
            0x0200_0000,
            0x0400_0000,
            0x0800_0000,
            0x1000_0000,
            0x2000_0000,
            0x4000_0000,
        ] {
            check(ARCH_X86_64, 56, namespace | 17, DENY);
            check(ARCH_I386, 120, namespace | 17, DENY);
            check(ARCH_ARM64, 220, namespace | 17, DENY);
        }
        check(ARCH_X86_64, 435, 0, MISSING);
        check(ARCH_ARM, 435, 0, MISSING);
    }

    #[test]
    fn sockets_of_the_kernel_crypto_and_of_hypervisors_are_denied() {
        for (family, expected) in [
            (1, ALLOW),
            (2, ALLOW),
            (10, ALLOW),
            (16, ALLOW),
            (37, ALLOW),
            (38, DENY),
            (39, ALLOW),
            (40, DENY),
            (41, ALLOW),
            // The kernel takes an int: what is above it must not hide the family.
            (0x1_0000_0026, DENY),
        ] {
            check(ARCH_X86_64, 41, family, expected);
            check(ARCH_ARM64, 198, family, expected);
        }
    }

    #[test]
    fn deletion_marks_of_overlayfs_cannot_be_made() {
        let (character, null) = (u64::from(libc::S_IFCHR) | 0o600, 0x103);
        for (mode, number, expected) in [
            (character, 0, DENY),
            (character, 1 << 32, DENY),
            (character, null, ALLOW),
            (u64::from(libc::S_IFBLK), 0, ALLOW),
            (u64::from(libc::S_IFIFO) | 0o644, 0, ALLOW),
            (u64::from(libc::S_IFREG), 0, ALLOW),
            (u64::from(libc::S_IFSOCK), 0, ALLOW),
            (0o644, 0, ALLOW),
        ] {
            let (x86, arm) = (x86_program(&confinement), arm_program(&confinement));
            for (program, arch, call, first) in [
                (&x86, ARCH_X86_64, 133, 1),
                (&x86, ARCH_X86_64, 259, 2),
                (&x86, ARCH_X86_64, X32_BIT | 133, 1),
                (&x86, ARCH_I386, 14, 1),
                (&x86, ARCH_I386, 297, 2),
                (&arm, ARCH_ARM64, 33, 2),
                (&arm, ARCH_ARM, 14, 1),
                (&arm, ARCH_ARM, 324, 2),
            ] {
                let mut arguments = [7; 6];
                (arguments[first], arguments[first + 1]) = (mode, number);
                let found = run(program, arch, call, arguments);
                assert_eq!(found, expected, "{arch:#x} {call} {mode:o} {number}");
            }
        }
    }

    #[test]
    fn personality_is_limited() {
        for (value, expected) in [
            (0, ALLOW),
            (8, ALLOW),
            (0x2_0000, ALLOW),
            (0x2_0008, ALLOW),
            (0xffff_ffff, ALLOW),
            (1, DENY),
            (0x4_0000, DENY),
        ] {
            check(ARCH_X86_64, 135, value, expected);
        }
    }

    #[test]
    fn a_foreign_architecture_is_killed() {
        check(0xc000_00f3, 0, 0, KILL);
        check(ARCH_ARM64 ^ 1, 0, 0, KILL);
    }

    #[test]
    fn the_tables_agree_with_the_c_library() {
        #[cfg(target_arch = "x86_64")]
        let column = Abi::X86_64 as usize;
        #[cfg(target_arch = "aarch64")]
        let column = Abi::Arm64 as usize;
        for number in [
            libc::SYS_openat,
            libc::SYS_execve,
            libc::SYS_statx,
            libc::SYS_chroot,
            libc::SYS_ptrace,
            libc::SYS_copy_file_range,
            libc::SYS_fchmodat2,
            libc::SYS_landlock_create_ruleset,
        ] {
            let number = u32::try_from(number).unwrap();
            assert!(ALLOWED.iter().any(|row| row[column] == number), "{number}");
        }
        assert!(program().len() < 4096);
    }
}
