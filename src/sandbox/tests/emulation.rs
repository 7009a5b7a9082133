//! Programs of other architectures. Needs a directory with static qemu-user programs, named by `BUILDER_TEST_QEMU`, or them
//! in `PATH`: Debian's `qemu-user-static` or what it unpacks to. A static busybox for arm64 beside them is `busybox-arm64`.

use super::*;

subjects![
    a_program_of_every_architecture_runs_with_its_emulator,
    emulation_ends_with_the_command,
    a_shell_of_another_architecture_is_a_shell,
    an_emulated_command_is_confined_like_any_other,
    an_emulator_that_cannot_be_executed_is_an_error,
    emulation_is_possible_or_says_why_not,
];

/// Go's name, qemu's name, ELF class and byte order, machine, flags, and instructions that end the program with code 42.
type Foreign = (
    &'static str,
    &'static str,
    bool,
    bool,
    u16,
    u32,
    &'static [u8],
);

const FOREIGN: [Foreign; 8] = [
    // mov x0, #42; mov x8, #93; svc #0
    (
        "arm64",
        "aarch64",
        true,
        true,
        183,
        0,
        &[
            0x40, 0x05, 0x80, 0xd2, 0xa8, 0x0b, 0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4,
        ],
    ),
    // mov r0, #42; mov r7, #1; svc #0
    (
        "arm",
        "arm",
        false,
        true,
        40,
        0x0500_0000,
        &[
            0x2a, 0x00, 0xa0, 0xe3, 0x01, 0x70, 0xa0, 0xe3, 0x00, 0x00, 0x00, 0xef,
        ],
    ),
    // li a0, 42; li a7, 93; ecall
    (
        "riscv64",
        "riscv64",
        true,
        true,
        243,
        0,
        &[
            0x13, 0x05, 0xa0, 0x02, 0x93, 0x08, 0xd0, 0x05, 0x73, 0x00, 0x00, 0x00,
        ],
    ),
    // li r0, 1; li r3, 42; sc
    (
        "ppc64le",
        "ppc64le",
        true,
        true,
        21,
        2,
        &[
            0x01, 0x00, 0x00, 0x38, 0x2a, 0x00, 0x60, 0x38, 0x02, 0x00, 0x00, 0x44,
        ],
    ),
    // lghi %r2, 42; svc 1
    (
        "s390x",
        "s390x",
        true,
        false,
        22,
        0,
        &[0xa7, 0x29, 0x00, 0x2a, 0x0a, 0x01],
    ),
    // mov eax, 1; mov ebx, 42; int 0x80
    (
        "386",
        "i386",
        false,
        true,
        3,
        0,
        &[0xb8, 1, 0, 0, 0, 0xbb, 42, 0, 0, 0, 0xcd, 0x80],
    ),
    // li v0, 5058; li a0, 42; syscall
    (
        "mips64le",
        "mips64el",
        true,
        true,
        8,
        0x8000_0007,
        &[
            0xc2, 0x13, 0x02, 0x24, 0x2a, 0x00, 0x04, 0x24, 0x0c, 0x00, 0x00, 0x00,
        ],
    ),
    // li.w a0, 42; li.w a7, 93; syscall 0
    (
        "loong64",
        "loongarch64",
        true,
        true,
        258,
        0x43,
        &[
            0x04, 0xa8, 0x80, 0x02, 0x0b, 0x74, 0x81, 0x02, 0x00, 0x00, 0x2b, 0x00,
        ],
    ),
];

/// Returns a whole ELF file with one segment that holds all of it.
fn elf(is_64_bit: bool, is_little_endian: bool, machine: u16, flags: u32, code: &[u8]) -> Vec<u8> {
    const ADDRESS: u64 = 0x1_0000;
    let mut file = b"\x7fELF".to_vec();
    file.extend([
        if is_64_bit { 2 } else { 1 },
        if is_little_endian { 1 } else { 2 },
        1,
    ]);
    file.resize(16, 0);
    let put = |file: &mut Vec<u8>, number: u64, size: usize| {
        if is_little_endian {
            file.extend_from_slice(&number.to_le_bytes()[..size]);
        } else {
            file.extend_from_slice(&number.to_be_bytes()[8 - size..]);
        }
    };
    let word = if is_64_bit { 8 } else { 4 };
    let (header, segment) = if is_64_bit { (64, 56) } else { (52, 32) };
    let start = header + segment;
    let length = start + code.len() as u64;
    put(&mut file, 2, 2);
    put(&mut file, machine.into(), 2);
    put(&mut file, 1, 4);
    for number in [ADDRESS + start, header, 0] {
        put(&mut file, number, word);
    }
    put(&mut file, flags.into(), 4);
    for number in [header, segment, 1, 0, 0, 0] {
        put(&mut file, number, 2);
    }
    // The flags, read and execute, are the second field of 64-bit segments and the last but one of others.
    put(&mut file, 1, 4);
    if is_64_bit {
        put(&mut file, 5, 4);
    }
    for number in [0, ADDRESS, ADDRESS, length, length] {
        put(&mut file, number, word);
    }
    if !is_64_bit {
        put(&mut file, 5, 4);
    }
    put(&mut file, 0x1000, word);
    file.extend_from_slice(code);
    file
}

/// Finds an emulator.
fn qemu(name: &str) -> Option<PathBuf> {
    let directories = std::env::var_os("BUILDER_TEST_QEMU").or_else(|| std::env::var_os("PATH"))?;
    std::env::split_paths(&directories)
        .map(|directory| directory.join(format!("qemu-{name}-static")))
        .find(|path| path.is_file())
}

fn emulator(architecture: &str, path: &Path) -> Emulator {
    Emulator {
        architecture: architecture.into(),
        program: File::open(path).unwrap().into(),
    }
}

/// A program in a root.
fn install(root: &Root, name: &str, content: &[u8]) {
    let path = root.path().join("yard").join(name);
    fs::write(&path, content).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Enters; skips where emulators cannot work.
fn emulation() -> PathBuf {
    // Found with the user's own rights.
    let arm64 = qemu("aarch64");
    sandbox();
    if let Err(error) = emulators_work() {
        skip(&error.to_string());
    }
    arm64.unwrap_or_else(|| skip("no qemu-aarch64-static in BUILDER_TEST_QEMU or PATH"))
}

fn install_arm64(root: &Root) {
    let (_, _, is_64_bit, is_little_endian, machine, flags, code) = FOREIGN[0];
    install(
        root,
        "arm64",
        &elf(is_64_bit, is_little_endian, machine, flags, code),
    );
}

#[test]
fn a_program_of_every_architecture_runs_with_its_emulator() {
    as_subject!(a_program_of_every_architecture_runs_with_its_emulator);
    emulation();
    let root = Root::new();
    let mut emulators = Vec::new();
    for (architecture, name, is_64_bit, is_little_endian, machine, flags, code) in FOREIGN {
        // Too new for some.
        let Some(path) = qemu(name) else {
            assert_eq!(architecture, "loong64", "no qemu-{name}-static");
            continue;
        };
        emulators.push(emulator(architecture, &path));
        install(
            &root,
            architecture,
            &elf(is_64_bit, is_little_endian, machine, flags, code),
        );
        let mut spec = root.spec(&[&format!("/yard/{architecture}")]);
        spec.emulators = vec![emulator(architecture, &path)];
        let (exit, out, err) = outcome(spec).unwrap();
        assert_eq!(exit, Exit::Code(42), "{architecture}: {out}{err}");
    }
    // All at once, from a program of the machine's own.
    let mut spec = root.shell("cd /yard; for p in *; do ./$p; echo $?; done");
    let count = emulators.len();
    spec.emulators = emulators;
    assert_eq!(output(spec), "42\n".repeat(count));
}

#[test]
fn emulation_ends_with_the_command() {
    as_subject!(emulation_ends_with_the_command);
    let qemu = emulation();
    let root = Root::new();
    install_arm64(&root);
    let before = can_run("arm64");
    let run = |emulators| {
        let mut spec = root.spec(&["/yard/arm64"]);
        spec.emulators = emulators;
        outcome(spec)
    };
    // At the same time as commands without.
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..5 {
                    let exit = run(vec![emulator("arm64", &qemu)]).unwrap().0;
                    assert_eq!(exit, Exit::Code(42));
                    if !before {
                        assert!(matches!(run(Vec::new()), Err(RunError::Exec { .. })));
                    }
                }
            });
        }
    });
    assert_eq!(can_run("arm64"), before);
}

#[test]
fn a_shell_of_another_architecture_is_a_shell() {
    as_subject!(a_shell_of_another_architecture_is_a_shell);
    let qemu = emulation();
    let busybox = qemu.with_file_name("busybox-arm64");
    if !busybox.exists() {
        skip("no busybox-arm64 beside the emulators");
    }
    let root = Root::new();
    install(&root, "busybox", &fs::read(busybox).unwrap());
    for program in ["sh", "uname", "cat", "tr", "readlink", "id", "mount"] {
        symlink("busybox", root.path().join("yard").join(program)).unwrap();
    }
    install(&root, "script", b"#!/yard/sh\necho script $0 $1\n");
    let run = |uid, script: &str| {
        let mut spec = root.spec(&["sh", "-c", script]);
        spec.env = vec![("PATH".into(), "/yard".into())];
        spec.uid = uid;
        spec.emulators = vec![emulator("arm64", &qemu)];
        output(spec)
    };
    for (script, expected) in [
        ("uname -m", "aarch64"),
        // The name that it was called by.
        ("echo $0; exec -a ash sh -c 'echo $0'", "sh\nash"),
        ("echo a | tr a b; (exit 7); echo $?", "b\n7"),
        ("/yard/script x", "script /yard/script x"),
        (
            "echo $$; id -u; readlink /proc/self/exe",
            "1\n0\n/yard/busybox",
        ),
        ("echo x > /dev/shm/x && cat /dev/shm/x /dev/null", "x"),
        ("mount -t tmpfs none /tmp 2>/dev/null || echo no", "no"),
    ] {
        assert_eq!(run(0, script).trim_end(), expected, "{script}");
    }
    assert_eq!(run(1000, "id -u; uname -m"), "1000\naarch64\n");
}

#[test]
fn an_emulated_command_is_confined_like_any_other() {
    as_subject!(an_emulated_command_is_confined_like_any_other);
    let qemu = emulation();
    let root = Root::new();
    let run = |script: &str, mounts: Vec<RunMount>| {
        let mut spec = root.shell(script);
        spec.emulators = vec![emulator("arm64", &qemu)];
        spec.mounts = mounts;
        output(spec)
    };
    let status = run(
        "grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status | { while read name value; do echo $name $value; done; }",
        Vec::new(),
    );
    let all = root_capabilities(&status);
    let none = "0000000000000000";
    assert_eq!(
        status,
        format!(
            "CapInh: {none}\nCapPrm: {all}\nCapEff: {all}\nCapBnd: {all}\nCapAmb: {none}\nNoNewPrivs: 0\nSeccomp: 2\n"
        )
    );
    // Nothing of the instance is in sight, no descriptor of it or of the emulator is open.
    assert_eq!(
        run(
            "grep -c binfmt /proc/self/mountinfo; ls /proc/1/fd; ls /proc/sys/fs/binfmt_misc 2>/dev/null; true",
            Vec::new()
        ),
        "0\n0\n1\n2\n"
    );
    // Owners, mounts and what is left of them are as ever; devices cannot be made.
    let before = root.listing();
    assert_eq!(
        run(
            "cat /m/f; touch /m/x; chown 33:34 /m/x; stat -c %u:%g /m/x; mknod /m/n c 1 3 2>/dev/null || echo no; \
             mount -t tmpfs none /yard 2>/dev/null || echo no; hostname",
            vec![
                RunMount {
                    target: "/m".into(),
                    source: MountSource::Tmpfs { size: None },
                },
                file("/m/f", 0o400, "f\n"),
            ],
        ),
        "f\n33:34\nno\nno\nbuildbox\n"
    );
    assert_eq!(root.listing(), before);
    output({
        let mut spec = root.shell("touch /yard/a; chown 33:34 /yard/a");
        spec.emulators = vec![emulator("arm64", &qemu)];
        spec
    });
    let owner = fs::metadata(root.path().join("yard/a")).unwrap();
    assert_eq!((owner.uid(), owner.gid()), (33, 34));
}

#[test]
fn an_emulator_that_cannot_be_executed_is_an_error() {
    as_subject!(an_emulator_that_cannot_be_executed_is_an_error);
    emulation();
    let root = Root::new();
    let scratch = TempDir::new().unwrap();
    let plain = scratch.path().join("plain");
    fs::write(&plain, "no program").unwrap();
    let mut spec = root.spec(&["true"]);
    spec.emulators = vec![emulator("arm64", &plain)];
    let error = outcome(spec).unwrap_err();
    assert_eq!(error.to_string(), "cannot register an emulator: `arm64`");
    assert!(error.hint().unwrap().contains("executable"));
    let mut spec = root.spec(&["true"]);
    spec.emulators = vec![emulator("pdp11", &plain)];
    assert_eq!(
        outcome(spec).unwrap_err().to_string(),
        "no emulation of architecture `pdp11`"
    );
}

#[test]
fn emulation_is_possible_or_says_why_not() {
    as_subject!(emulation_is_possible_or_says_why_not);
    assert!(matches!(emulators_work(), Err(RunError::NotEntered)));
    sandbox();
    if let Err(error) = emulators_work() {
        assert!(error.hint().is_some(), "{error}");
    }
    // Asking changes nothing.
    check("echo x", "x");
    assert_eq!(fs::read_dir("/proc/self/task").unwrap().count(), 1);
}
