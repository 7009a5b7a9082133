//! The context of all golden cases. What a file is called, holds and is allowed depends neither on the machine nor on who makes it.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use builder::layer::{Entry, EntryKind, Mtime, TarWriter};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};

/// Of all files; the past of every epoch here.
const TIME: i64 = 1_000_000_000;

/// Makes the files. They are ready after [`settle`].
pub(super) fn plant(context: &Path) {
    let file = |name: &str, content: &[u8]| {
        let path = context.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    };
    file("tree/text", b"text\n");
    file("tree/empty", b"");
    file("tree/a", &vec![b'a'; 300_000]);
    file("tree/sub/deep/er/f", b"deep\n");
    file("tree/for-amd64", b"64\n");
    file("tree/for-arm64", b"arm 64\n");
    file("tree/for-arm", b"arm\n");
    fs::create_dir(context.join("tree/void")).unwrap();
    fs::hard_link(context.join("tree/text"), context.join("tree/twin")).unwrap();
    fs::hard_link(
        context.join("tree/sub/deep/er/f"),
        context.join("tree/sub/twin"),
    )
    .unwrap();
    symlink("text", context.join("tree/link")).unwrap();
    symlink("/nowhere", context.join("tree/sub/dangling")).unwrap();
    let sparse = fs::File::create(context.join("tree/sparse")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"middle", 1_000_000).unwrap();
    sparse.set_len(2_000_000).unwrap();
    for length in [99, 100, 101, 155, 255] {
        file(&format!("names/{}", "n".repeat(length)), b"name\n");
    }
    let deep = format!("names/{0}/{0}/{0}", "d".repeat(100));
    file(&format!("{deep}/file"), b"deep\n");
    symlink("t".repeat(300), context.join("names/long-link")).unwrap();
    for name in [&b"not \xff text"[..], "ü".as_bytes(), b"a b", b"new\nline"] {
        fs::write(context.join("names").join(OsStr::from_bytes(name)), "odd\n").unwrap();
    }
    file("large/noise", &noise(5 << 20));
    file("large/text", &words(6 << 20));
    file("archive.tar", &archive());
}

/// Bytes that no compressor makes smaller.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

fn words(length: usize) -> Vec<u8> {
    let mut text = String::with_capacity(length + 32);
    for at in 0_u64.. {
        if text.len() >= length {
            break;
        }
        writeln!(
            text,
            "line {at} {:x}",
            (at * at).wrapping_mul(0x2545_f491_4f6c_dd1d) >> 24
        )
        .unwrap();
    }
    text.truncate(length);
    text.into_bytes()
}

/// What only a tar can bring without any rights: owners, devices, capabilities.
fn archive() -> Vec<u8> {
    let mut writer = TarWriter::new(Vec::new());
    let mut add = |path: &str, kind: EntryKind, mode, owner, xattr: Option<(&[u8], &[u8])>| {
        let content = match kind {
            EntryKind::File { size } => vec![b'x'; usize::try_from(size).unwrap()],
            _ => Vec::new(),
        };
        let entry = Entry {
            path: path.as_bytes().to_vec(),
            kind,
            mode,
            uid: owner,
            gid: owner + 1,
            mtime: Mtime {
                seconds: TIME,
                nanoseconds: 987_654_321,
            },
            xattrs: xattr
                .map(|(name, value)| (name.to_vec(), value.to_vec()))
                .into_iter()
                .collect(),
        };
        writer.entry(&entry, &mut &content[..]).unwrap();
    };
    // As `setcap cap_net_bind_service=ep` writes it.
    let capability = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let file = |size| EntryKind::File { size };
    add("d", EntryKind::Directory, 0o2750, 10, None);
    add("d/file", file(1000), 0o4755, 1000, None);
    add(
        "d/capable",
        file(10),
        0o755,
        0,
        Some((b"security.capability", capability)),
    );
    add(
        "d/noted",
        file(0),
        0o400,
        65_000,
        Some((b"user.note", b"a\0b")),
    );
    let twin = EntryKind::HardLink {
        target: b"d/file".to_vec(),
    };
    add("twin", twin, 0o4755, 1000, None);
    let link = EntryKind::Symlink {
        target: b"../d/file".to_vec(),
    };
    add("link", link, 0o777, 7, None);
    add("fifo", EntryKind::Fifo, 0o640, 8, None);
    add(
        &format!("{}/{}", "l".repeat(150), "m".repeat(150)),
        file(3),
        0o644,
        9,
        None,
    );
    writer.finish().unwrap()
}

/// Gives everything beneath `context` to `owner` and sets modes and times, which all depend on the name alone.
pub(super) fn settle(context: &Path, owner: Option<(u32, u32)>) {
    let mut waiting = vec![context.to_owned()];
    let mut directories = Vec::new();
    while let Some(path) = waiting.pop() {
        let metadata = fs::symlink_metadata(&path).unwrap();
        if let Some((uid, gid)) = owner {
            std::os::unix::fs::lchown(&path, Some(uid), Some(gid)).unwrap();
        }
        let name = path.strip_prefix(context).unwrap();
        if !metadata.is_symlink() {
            let mode = match name.to_str() {
                Some("tree/text" | "tree/twin") => 0o4711,
                Some("tree/void") => 0o1777,
                Some("tree/sub") => 0o700,
                Some("tree/empty") => 0o600,
                _ if metadata.is_dir() => 0o755,
                _ => 0o644,
            };
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        }
        match metadata.is_dir() {
            true => {
                let entries = fs::read_dir(&path).unwrap();
                waiting.extend(entries.map(|entry| entry.unwrap().path()));
                directories.push(path);
            }
            false => set_time(&path, 0),
        }
    }
    for path in directories {
        set_time(&path, 123_456_789);
    }
}

fn set_time(path: &Path, nanoseconds: i64) {
    let time = Timespec {
        tv_sec: TIME,
        tv_nsec: nanoseconds,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}
