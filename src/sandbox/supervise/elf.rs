//! What a file is to `execve`: an ELF program of this machine, a script, or nothing that can be run here.
//!
//! In: the file's first bytes, and a way to read more. Out: a [`Program`]. Pure but for that way; the bytes are a stranger's.

use rustix::io::Errno;

/// How much of a file's beginning the kernel looks at for a script's first line.
pub(super) const SCRIPT_HEAD: usize = 256;
/// Longest name of an interpreter that the kernel takes.
const LONGEST_INTERPRETER: u64 = 4096;
/// Program headers that the kernel takes: 64 KiB of them.
const MOST_HEADERS_BYTES: u64 = 0x1_0000;

const HEADER_SIZE: usize = 64;
const PROGRAM_HEADER_SIZE: usize = 56;
const CLASS_64: u8 = 2;
const LITTLE_ENDIAN: u8 = 1;
const EXECUTABLE: u16 = 2;
const SHARED: u16 = 3;
const PT_INTERP: u32 = 3;
#[cfg(target_arch = "x86_64")]
const MACHINE: u16 = 62;
#[cfg(target_arch = "aarch64")]
const MACHINE: u16 = 183;

/// What a file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Program {
    /// Needs no loader.
    Static,
    Dynamic(Loader),
    Script {
        interpreter: Vec<u8>,
        argument: Option<Vec<u8>>,
    },
    /// A program of another architecture, 32-bit ones of this family among them.
    Foreign,
}

/// The loader that a program names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Loader {
    /// Without the NUL.
    pub(super) path: Vec<u8>,
    /// Where in the file the program header lies that names it.
    pub(super) header_at: u64,
}

/// Returns what a file is; `head` is its beginning ([`SCRIPT_HEAD`] bytes if it has so many), `read` reads at an offset and may
/// return less than was asked for. ENOEXEC for what the kernel would refuse so.
pub(super) fn recognise(
    head: &[u8],
    read: impl Fn(u64, usize) -> Result<Vec<u8>, Errno>,
) -> Result<Program, Errno> {
    if head.starts_with(b"#!") {
        return script(&head[..head.len().min(SCRIPT_HEAD)]);
    }
    if !head.starts_with(b"\x7fELF") {
        return Err(Errno::NOEXEC);
    }
    let header: &[u8; HEADER_SIZE] = head.first_chunk().ok_or(Errno::NOEXEC)?;
    let machine = u16_at(header, 18);
    if header[4] != CLASS_64 || header[5] != LITTLE_ENDIAN || machine != MACHINE {
        return Ok(Program::Foreign);
    }
    if !matches!(u16_at(header, 16), EXECUTABLE | SHARED) {
        return Err(Errno::NOEXEC);
    }
    let (at, size, count) = (
        u64_at(header, 32),
        usize::from(u16_at(header, 54)),
        u64::from(u16_at(header, 56)),
    );
    let length = count * PROGRAM_HEADER_SIZE as u64;
    if size != PROGRAM_HEADER_SIZE || count == 0 || length > MOST_HEADERS_BYTES {
        return Err(Errno::NOEXEC);
    }
    let headers = read(at, length as usize)?;
    if headers.len() as u64 != length {
        return Err(Errno::NOEXEC);
    }
    for (number, header) in headers.chunks_exact(PROGRAM_HEADER_SIZE).enumerate() {
        if u32_at(header, 0) != PT_INTERP {
            continue;
        }
        let (from, length) = (u64_at(header, 8), u64_at(header, 32));
        if !(2..=LONGEST_INTERPRETER).contains(&length) {
            return Err(Errno::NOEXEC);
        }
        let mut path = read(from, length as usize)?;
        if path.len() as u64 != length || path.pop() != Some(0) {
            return Err(Errno::NOEXEC);
        }
        // The kernel takes it for a C string.
        path.truncate(
            path.iter()
                .position(|byte| *byte == 0)
                .unwrap_or(path.len()),
        );
        return Ok(Program::Dynamic(Loader {
            path,
            header_at: at + (number * PROGRAM_HEADER_SIZE) as u64,
        }));
    }
    Ok(Program::Static)
}

/// Returns what has to be written where, so that a copy of a program, `length` bytes long, names another loader: its path goes
/// behind the end, and the program header points there. Only the kernel reads the name there; a loader that asks for its own
/// name reads the segment in memory, which stays.
pub(super) fn rename_loader(
    loader: &Loader,
    length: u64,
    header: &[u8],
    path: &[u8],
) -> Option<[(u64, Vec<u8>); 2]> {
    let mut header = header.get(..PROGRAM_HEADER_SIZE)?.to_vec();
    let mut text = path.to_vec();
    text.push(0);
    header[8..16].copy_from_slice(&length.to_le_bytes());
    header[32..40].copy_from_slice(&(text.len() as u64).to_le_bytes());
    Some([(length, text), (loader.header_at, header)])
}

/// Returns how much of a file [`rename_loader`] wants to see from `header_at`.
pub(super) const fn program_header_size() -> usize {
    PROGRAM_HEADER_SIZE
}

/// Reads the first line as the kernel does: one argument at most, which may have blanks inside.
fn script(head: &[u8]) -> Result<Program, Errno> {
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let line = match head.iter().position(|byte| *byte == b'\n') {
        Some(end) => &head[2..end],
        None => {
            let rest = &head[2..];
            // A line that goes on beyond what is looked at: its interpreter, at least, has to end before that.
            let name = rest.iter().position(|byte| !is_blank(byte));
            let has_end = name
                .is_some_and(|name| rest[name..].iter().any(|byte| is_blank(byte) || *byte == 0));
            if head.len() == SCRIPT_HEAD && !has_end {
                return Err(Errno::NOEXEC);
            }
            rest
        }
    };
    // What the kernel has is a C string.
    let line = &line[..line
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(line.len())];
    let line = trim(line);
    let end = line.iter().position(is_blank).unwrap_or(line.len());
    let (interpreter, rest) = line.split_at(end);
    if interpreter.is_empty() {
        return Err(Errno::NOEXEC);
    }
    let argument = trim(rest);
    Ok(Program::Script {
        interpreter: interpreter.to_vec(),
        argument: (!argument.is_empty()).then(|| argument.to_vec()),
    })
}

fn trim(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = text {
        text = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(bytes: &[u8]) -> Result<Program, Errno> {
        recognise(&bytes[..bytes.len().min(SCRIPT_HEAD)], |at, length| {
            let at = usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
            Ok(bytes[at..bytes.len().min(at.saturating_add(length))].to_vec())
        })
    }

    /// A program with the given headers: type, offset, size.
    fn elf(headers: &[(u32, u64, u64)], tail: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; HEADER_SIZE];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[16..18].copy_from_slice(&SHARED.to_le_bytes());
        bytes[18..20].copy_from_slice(&MACHINE.to_le_bytes());
        bytes[32..40].copy_from_slice(&(HEADER_SIZE as u64).to_le_bytes());
        bytes[54..56].copy_from_slice(&(PROGRAM_HEADER_SIZE as u16).to_le_bytes());
        bytes[56..58].copy_from_slice(&(headers.len() as u16).to_le_bytes());
        for (kind, at, size) in headers {
            let mut header = vec![0; PROGRAM_HEADER_SIZE];
            header[..4].copy_from_slice(&kind.to_le_bytes());
            header[8..16].copy_from_slice(&at.to_le_bytes());
            header[32..40].copy_from_slice(&size.to_le_bytes());
            bytes.extend(header);
        }
        bytes.extend(tail);
        bytes
    }

    #[test]
    fn first_lines_are_split_as_the_kernel_splits_them() {
        let script = |interpreter: &str, argument: Option<&str>| {
            Ok(Program::Script {
                interpreter: interpreter.into(),
                argument: argument.map(Into::into),
            })
        };
        let long = format!("#!/{}\n", "x".repeat(300));
        let long_argument = format!("#!/bin/sh {}\n", "x".repeat(300));
        for (text, expected) in [
            ("#!/bin/sh\n", script("/bin/sh", None)),
            ("#!/bin/sh", script("/bin/sh", None)),
            ("#! \t/bin/sh \t \nx", script("/bin/sh", None)),
            ("#!/bin/awk -f\n", script("/bin/awk", Some("-f"))),
            (
                "#!/usr/bin/env -S a  b \n",
                script("/usr/bin/env", Some("-S a  b")),
            ),
            ("#!python\n", script("python", None)),
            ("#!/bin/sh\r\n", script("/bin/sh\r", None)),
            ("#!/bin/sh\0 x\n", script("/bin/sh", None)),
            ("#!\n/bin/sh", Err(Errno::NOEXEC)),
            ("#! \t", Err(Errno::NOEXEC)),
            (&long, Err(Errno::NOEXEC)),
            (&long_argument, script("/bin/sh", Some(&"x".repeat(246)))),
            ("", Err(Errno::NOEXEC)),
            ("echo hello\n", Err(Errno::NOEXEC)),
        ] {
            assert_eq!(of(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn programs_name_their_loader_or_need_none() {
        let at = (HEADER_SIZE + 2 * PROGRAM_HEADER_SIZE) as u64;
        let dynamic = elf(&[(6, 0, 0), (PT_INTERP, at, 7)], b"/ld.so\0rest");
        assert_eq!(
            of(&dynamic),
            Ok(Program::Dynamic(Loader {
                path: b"/ld.so".to_vec(),
                header_at: (HEADER_SIZE + PROGRAM_HEADER_SIZE) as u64,
            }))
        );
        assert_eq!(of(&elf(&[(1, 0, 0)], b"")), Ok(Program::Static));
        for (wrong, what) in [
            (elf(&[(6, 0, 0), (PT_INTERP, at, 6)], b"/ld.so\0"), "no NUL"),
            (
                elf(&[(6, 0, 0), (PT_INTERP, at, 99)], b"/ld.so\0"),
                "beyond the end",
            ),
            (elf(&[(6, 0, 0), (PT_INTERP, at, 1 << 40)], b"/"), "huge"),
            (elf(&[(6, 0, 0), (PT_INTERP, u64::MAX, 7)], b"/"), "nowhere"),
            (elf(&[], b""), "no headers"),
            (dynamic[..100].to_vec(), "torn headers"),
            (dynamic[..40].to_vec(), "torn"),
        ] {
            assert_eq!(of(&wrong), Err(Errno::NOEXEC), "{what}");
        }
    }

    #[test]
    fn other_architectures_are_foreign() {
        let mut narrow = elf(&[(1, 0, 0)], b"");
        narrow[4] = 1;
        assert_eq!(of(&narrow), Ok(Program::Foreign));
        let mut other = elf(&[(1, 0, 0)], b"");
        other[18] = 8;
        assert_eq!(of(&other), Ok(Program::Foreign));
    }

    #[test]
    fn a_copy_names_the_other_loader() {
        let at = (HEADER_SIZE + PROGRAM_HEADER_SIZE) as u64;
        let mut bytes = elf(&[(PT_INTERP, at, 7)], b"/ld.so\0");
        let Ok(Program::Dynamic(loader)) = of(&bytes) else {
            panic!("dynamic");
        };
        let header = bytes[loader.header_at as usize..].to_vec();
        let writes =
            rename_loader(&loader, bytes.len() as u64, &header, b"/else/where/ld.so").unwrap();
        for (at, text) in writes {
            let end = at as usize + text.len();
            bytes.resize(bytes.len().max(end), 0);
            bytes[at as usize..end].copy_from_slice(&text);
        }
        let Ok(Program::Dynamic(renamed)) = of(&bytes) else {
            panic!("dynamic");
        };
        assert_eq!(renamed.path, b"/else/where/ld.so");
    }
}
