//! Archives for tests, byte by byte where an honest writer would refuse.

use std::io::Write as _;

/// A ustar archive in the making.
#[derive(Default)]
pub(super) struct Archive(Vec<u8>);

impl Archive {
    pub(super) fn new() -> Archive {
        Archive::default()
    }

    pub(super) fn file(self, path: &str, content: &str) -> Archive {
        self.add(path, b'0', "", 0o644, content.as_bytes())
    }

    pub(super) fn directory(self, path: &str) -> Archive {
        self.add(path, b'5', "", 0o755, b"")
    }

    pub(super) fn symlink(self, path: &str, target: &str) -> Archive {
        self.add(path, b'2', target, 0o777, b"")
    }

    pub(super) fn hard_link(self, path: &str, target: &str) -> Archive {
        self.add(path, b'1', target, 0o644, b"")
    }

    pub(super) fn device(mut self, path: &str, major: u32, minor: u32) -> Archive {
        let mut header = header(path, b'3', "", 0o644, 0, (0, 0));
        header[329..336].copy_from_slice(format!("{major:07o}").as_bytes());
        header[337..344].copy_from_slice(format!("{minor:07o}").as_bytes());
        self.push(header, b"");
        self
    }

    pub(super) fn add(
        mut self,
        path: &str,
        kind: u8,
        target: &str,
        mode: u32,
        content: &[u8],
    ) -> Archive {
        self.push(
            header(path, kind, target, mode, content.len(), (0, 0)),
            content,
        );
        self
    }

    pub(super) fn owned(mut self, path: &str, kind: u8, mode: u32, owner: (u32, u32)) -> Archive {
        self.push(header(path, kind, "", mode, 0, owner), b"");
        self
    }

    /// Gives the next entry an extended attribute.
    pub(super) fn xattr(self, name: &str, value: &[u8]) -> Archive {
        self.extended(&format!("SCHILY.xattr.{name}"), value)
    }

    /// Says something of the next entry in a header in front of it.
    pub(super) fn extended(mut self, key: &str, value: &[u8]) -> Archive {
        let mut body = format!("{key}=").into_bytes();
        body.extend_from_slice(value);
        body.push(b'\n');
        let mut length = body.len() + 2;
        while length != body.len() + 1 + length.to_string().len() {
            length += 1;
        }
        let mut record = format!("{length} ").into_bytes();
        record.extend(body);
        self.push(
            header("PaxHeaders/x", b'x', "", 0o644, record.len(), (0, 0)),
            &record,
        );
        self
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        self.0.extend([0; 1024]);
        self.0
    }

    fn push(&mut self, mut header: [u8; 512], content: &[u8]) {
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0.extend(header);
        self.0.extend(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
    }
}

fn header(
    path: &str,
    kind: u8,
    target: &str,
    mode: u32,
    size: usize,
    (uid, gid): (u32, u32),
) -> [u8; 512] {
    let mut header = [0; 512];
    header[..path.len()].copy_from_slice(path.as_bytes());
    let mut octal = |at: usize, width: usize, value: u64| {
        write!(
            &mut header[at..at + width],
            "{value:0digits$o}",
            digits = width - 1
        )
        .unwrap();
    };
    octal(100, 8, mode.into());
    octal(108, 8, uid.into());
    octal(116, 8, gid.into());
    octal(124, 12, size as u64);
    octal(136, 12, 1_000_000_000);
    header[156] = kind;
    header[157..157 + target.len()].copy_from_slice(target.as_bytes());
    header[257..265].copy_from_slice(b"ustar\x0000");
    header
}
