//! Programs of other architectures: how they are recognised, and whether this machine runs them.
//!
//! Every architecture is told by the first 20 bytes of its ELF files: class, byte order and machine. The names are Go's.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Command, Stdio};

use rustix::fs::{MemfdFlags, memfd_create};

const BINFMT: &str = "/proc/sys/fs/binfmt_misc";

/// Bytes of an ELF header up to and with `e_machine`.
const HEADER: usize = 20;

const TYPE_EXECUTABLE: u16 = 2;
/// Also what a position-independent program is.
const TYPE_SHARED: u16 = 3;

/// What the ELF files of one architecture have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    is_64_bit: bool,
    is_little_endian: bool,
    /// `e_machine`
    machine: u16,
}

/// Returns what is known of an architecture.
pub(super) fn header(architecture: &str) -> Option<Header> {
    let (is_64_bit, is_little_endian, machine) = match architecture {
        "386" => (false, true, 3),
        "amd64" => (true, true, 62),
        "arm" => (false, true, 40),
        "arm64" => (true, true, 183),
        "loong64" => (true, true, 258),
        "mips64le" => (true, true, 8),
        "ppc64le" => (true, true, 21),
        "riscv64" => (true, true, 243),
        "s390x" => (true, false, 22),
        _ => return None,
    };
    Some(Header {
        is_64_bit,
        is_little_endian,
        machine,
    })
}

impl Header {
    /// Returns the first bytes of a file of that type.
    fn bytes(self, elf_type: u16) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..4].copy_from_slice(b"\x7fELF");
        bytes[4] = if self.is_64_bit { 2 } else { 1 };
        bytes[5] = if self.is_little_endian { 1 } else { 2 };
        // The version of the format.
        bytes[6] = 1;
        for (at, number) in [(16, elf_type), (18, self.machine)] {
            let number = if self.is_little_endian {
                number.to_le_bytes()
            } else {
                number.to_be_bytes()
            };
            bytes[at..at + 2].copy_from_slice(&number);
        }
        bytes
    }

    /// Returns which bits of the bytes decide: not the operating system and the padding, and of the type all but the bit that
    /// tells programs at a fixed address from others.
    fn mask(self) -> [u8; HEADER] {
        let mut mask = [0xff; HEADER];
        mask[7..16].fill(0);
        mask[if self.is_little_endian { 16 } else { 17 }] = 0xfe;
        mask
    }
}

/// Returns a line for `register` of binfmt_misc. Flags: F, the program is opened when it is registered, so that no root needs
/// it; P, it is told the name under which a program was called; C (and O with it), set-user-ID programs have their rights.
/// The architecture must be one of [`header`]'s, the path without a colon.
pub(super) fn entry(architecture: &str, interpreter: &str) -> String {
    let header = header(architecture).expect("instructions are checked");
    let escaped = |bytes: [u8; HEADER]| -> String {
        bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect()
    };
    format!(
        ":builder-{architecture}:M:0:{}:{}:{interpreter}:POCF",
        escaped(header.bytes(TYPE_EXECUTABLE)),
        escaped(header.mask()),
    )
}

/// Tells whether a command can be of that architecture (as Go names it) without an emulator of the builder's: it is the
/// machine's own, or one that the processor and the kernel have besides, or the machine has an emulator registered that needs
/// no file in the root (flag `F`).
pub fn can_run(architecture: &str) -> bool {
    if architecture == native() {
        return true;
    }
    let Some(header) = header(architecture) else {
        return false;
    };
    // An entry comes before what the kernel does by itself.
    match machines_entry(header) {
        Some(needs_no_file) => needs_no_file,
        None => companion(architecture).is_some_and(|program| executes(&program).unwrap_or(false)),
    }
}

fn native() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "x86" => "386",
        "aarch64" => "arm64",
        "loongarch64" => "loong64",
        "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
        "mips64" if cfg!(target_endian = "little") => "mips64le",
        other => other,
    }
}

/// Returns whether the entry of the machine's binfmt_misc for such files has the flag `F`; `None` if there is none.
fn machines_entry(header: Header) -> Option<bool> {
    let status = fs::read_to_string(format!("{BINFMT}/status")).ok()?;
    if status.trim_end() != "enabled" {
        return None;
    }
    fs::read_dir(BINFMT)
        .ok()?
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let name = entry.file_name();
            let is_entry = name != "status" && name != "register";
            let text = is_entry.then(|| fs::read_to_string(entry.path()).ok())??;
            Entry::parse(&text)
        })
        .find(|entry| {
            [TYPE_EXECUTABLE, TYPE_SHARED]
                .iter()
                .all(|elf_type| entry.matches(&header.bytes(*elf_type)))
        })
        .map(|entry| entry.opens_at_once)
}

/// An enabled entry of binfmt_misc that goes by the first bytes of a file.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    opens_at_once: bool,
    offset: usize,
    magic: Vec<u8>,
    mask: Option<Vec<u8>>,
}

impl Entry {
    /// Reads what the kernel says of an entry; the name of its file is no proof of anything.
    fn parse(text: &str) -> Option<Entry> {
        let mut lines = text.lines();
        if lines.next() != Some("enabled") {
            return None;
        }
        let mut entry = Entry {
            opens_at_once: false,
            offset: 0,
            magic: Vec::new(),
            mask: None,
        };
        for line in lines {
            let (word, value) = line.split_once(' ')?;
            match word {
                "flags:" => entry.opens_at_once = value.contains('F'),
                "offset" => entry.offset = value.parse().ok()?,
                "magic" => entry.magic = from_hex(value)?,
                "mask" => entry.mask = Some(from_hex(value)?),
                _ => {}
            }
        }
        let fits = |mask: &Vec<u8>| mask.len() == entry.magic.len();
        (!entry.magic.is_empty() && entry.mask.as_ref().is_none_or(fits)).then_some(entry)
    }

    /// Tells whether a file that begins with `header` and has zeroes after it is meant.
    fn matches(&self, header: &[u8]) -> bool {
        self.magic.iter().enumerate().all(|(at, magic)| {
            let byte = header.get(self.offset + at).copied().unwrap_or(0);
            let mask = self.mask.as_ref().map_or(0xff, |mask| mask[at]);
            (byte ^ magic) & mask == 0
        })
    }
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    (0..text.len() / 2)
        .map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok())
        .collect()
}

/// Returns a program that does nothing, for an architecture that the machine's processor may have besides its own.
fn companion(architecture: &str) -> Option<Vec<u8>> {
    match (native(), architecture) {
        // mov eax, 1 (exit); xor ebx, ebx; int 0x80
        ("amd64", "386") => Some(program(
            architecture,
            &[0xb8, 1, 0, 0, 0, 0x31, 0xdb, 0xcd, 0x80],
        )?),
        // mov r0, #0; mov r7, #1 (exit); svc 0
        ("arm64", "arm") => Some(program(
            architecture,
            &[
                0x00, 0x00, 0xa0, 0xe3, 0x01, 0x70, 0xa0, 0xe3, 0x00, 0x00, 0x00, 0xef,
            ],
        )?),
        _ => None,
    }
}

/// Returns a whole 32-bit little-endian ELF file with one segment.
fn program(architecture: &str, code: &[u8]) -> Option<Vec<u8>> {
    /// Of the file header and of one program header.
    const SIZES: [u16; 2] = [52, 32];
    const ADDRESS: u32 = 0x10_0000;
    /// ARM: version 5 of its ABI; nobody else looks.
    const FLAGS: u32 = 0x0500_0000;
    let start: u32 = SIZES.iter().map(|size| u32::from(*size)).sum();
    let length = start + u32::try_from(code.len()).ok()?;
    let mut file = header(architecture)?.bytes(TYPE_EXECUTABLE).to_vec();
    let flags = if architecture == "arm" { FLAGS } else { 0 };
    // Version, entry, program headers, section headers, flags.
    for number in [1, ADDRESS + start, u32::from(SIZES[0]), 0, flags] {
        file.extend(number.to_le_bytes());
    }
    // Sizes of both headers, one of them; no section headers.
    for number in [SIZES[0], SIZES[1], 1, 0, 0, 0] {
        file.extend(number.to_le_bytes());
    }
    // To be loaded, from the file's beginning, twice the address, sizes in the file and in memory, read and execute, alignment.
    for number in [1, 0, ADDRESS, ADDRESS, length, length, 5, 0x1000] {
        file.extend(number.to_le_bytes());
    }
    file.extend_from_slice(code);
    Some(file)
}

fn executes(program: &[u8]) -> io::Result<bool> {
    let file = executable_memory()?;
    let mut writer = File::from(file);
    writer.write_all(program)?;
    // A file that is open for writing cannot be executed; this one is the same, and is not.
    let reader = File::open(format!("/proc/self/fd/{}", writer.as_raw_fd()))?;
    drop(writer);
    let mut command = Command::new(format!("/proc/self/fd/{}", reader.as_raw_fd()));
    command
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    loop {
        match command.status() {
            // Another thread has started a process in between, which has the writing descriptor until it executes something.
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => {
                std::thread::yield_now();
            }
            other => return Ok(other?.success()),
        }
    }
}

fn executable_memory() -> io::Result<OwnedFd> {
    // Kernels before 6.3 do not know EXEC; from then on a setting may make it necessary.
    let file = memfd_create("probe", MemfdFlags::CLOEXEC | MemfdFlags::EXEC)
        .or_else(|_| memfd_create("probe", MemfdFlags::CLOEXEC))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// First bytes of files as compilers make them: class, byte order, type, machine.
    const FILES: [(&str, &str); 9] = [
        ("386", "7f454c46010101000000000000000000 0200 0300"),
        ("amd64", "7f454c46020101000000000000000000 0300 3e00"),
        ("arm", "7f454c46010101000000000000000000 0200 2800"),
        ("arm64", "7f454c46020101000000000000000000 0300 b700"),
        ("loong64", "7f454c46020101000000000000000000 0200 0201"),
        ("mips64le", "7f454c46020101000000000000000000 0200 0800"),
        ("ppc64le", "7f454c46020101000000000000000000 0300 1500"),
        ("riscv64", "7f454c46020101030000000000000000 0300 f300"),
        ("s390x", "7f454c46020201000000000000000000 0002 0016"),
    ];

    fn bytes(text: &str) -> Vec<u8> {
        from_hex(&text.replace(' ', "")).unwrap()
    }

    /// What the kernel says of a line once it is registered.
    fn registered(line: &str) -> Entry {
        let fields: Vec<&str> = line.split(':').collect();
        let [_, _, "M", offset, magic, mask, interpreter, flags] = fields[..] else {
            panic!("{line}");
        };
        let (magic, mask) = (magic.replace("\\x", ""), mask.replace("\\x", ""));
        let text = format!(
            "enabled\ninterpreter {interpreter}\nflags: {flags}\noffset {offset}\nmagic {magic}\nmask {mask}\n"
        );
        Entry::parse(&text).unwrap()
    }

    #[test]
    fn a_file_is_of_its_own_architecture_alone() {
        for (architecture, file) in FILES {
            let file = bytes(file);
            for (other, _) in FILES {
                let entry = registered(&entry(other, "/proc/self/fd/7"));
                assert!(entry.opens_at_once);
                assert_eq!(
                    entry.matches(&file),
                    architecture == other,
                    "{other} for {architecture}"
                );
            }
        }
    }

    #[test]
    fn what_is_no_program_is_of_no_architecture() {
        let s390x = registered(&entry("s390x", "q"));
        let arm64 = registered(&entry("arm64", "q"));
        for file in [
            // An object file, a core dump.
            "7f454c46020101000000000000000000 0100 b700",
            "7f454c46020101000000000000000000 0400 b700",
            // 32 bits, the other byte order, another version.
            "7f454c46010101000000000000000000 0200 b700",
            "7f454c46020201000000000000000000 0002 00b7",
            "7f454c46020100000000000000000000 0200 b700",
            "23212f62696e2f7368",
            "",
        ] {
            assert!(!arm64.matches(&bytes(file)), "{file}");
            assert!(!s390x.matches(&bytes(file)), "{file}");
        }
    }

    #[test]
    fn an_entry_is_known_by_its_magic_not_by_its_name() {
        let arm64 = header("arm64").unwrap();
        let matches = |text: &str| {
            Entry::parse(text)
                .filter(|entry| entry.matches(&arm64.bytes(TYPE_SHARED)))
                .map(|entry| entry.opens_at_once)
        };
        // As Debian and Docker register qemu.
        let magic = "magic 7f454c460201010000000000000000000200b700\nmask ffffffffffffff00fffffffffffffffffeffffff\n";
        for (text, expected) in [
            (
                format!("enabled\ninterpreter /usr/bin/q\nflags: POCF\noffset 0\n{magic}"),
                Some(true),
            ),
            (
                format!("enabled\ninterpreter /usr/bin/q\nflags: \noffset 0\n{magic}"),
                Some(false),
            ),
            (
                format!("disabled\ninterpreter /usr/bin/q\nflags: F\noffset 0\n{magic}"),
                None,
            ),
            (
                format!("enabled\ninterpreter /usr/bin/q\nflags: F\noffset 4\n{magic}"),
                None,
            ),
            (
                "enabled\ninterpreter /usr/bin/q\nflags: F\nextension .exe\n".to_owned(),
                None,
            ),
            (
                "enabled\ninterpreter /usr/bin/q\nflags: F\noffset 0\nmagic 4d5a\n".to_owned(),
                None,
            ),
            (
                "enabled\ninterpreter /q\nflags: F\noffset 0\nmagic 7f45\nmask ff\n".to_owned(),
                None,
            ),
            ("enabled\n".to_owned(), None),
            (String::new(), None),
        ] {
            assert_eq!(matches(&text), expected, "{text}");
        }
    }

    #[test]
    fn the_machine_runs_its_own_programs() {
        assert!(can_run(native()));
        assert!(header(native()).is_some());
        assert!(!can_run("pdp11"));
        // The answer of the processor, whichever it is, is the same twice.
        assert_eq!(can_run("386"), can_run("386"));
    }

    #[test]
    fn a_companions_program_runs_on_a_machine_that_has_it() {
        // Kernels for x86-64 mostly have 32-bit programs; where /proc says how, the probe must agree.
        let Some(program) = companion("386") else {
            return;
        };
        let config = fs::read_to_string("/proc/sys/abi/vsyscall32");
        if config.is_ok() {
            assert!(executes(&program).unwrap());
        }
    }
}
