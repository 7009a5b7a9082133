//! Compressed streams, told by their first bytes and read as one stream however many members they have.
//!
//! Damage is an `io::Error`: of kind `UnexpectedEof` where the stream is cut short, `InvalidData` or `InvalidInput` otherwise.
//! Memory is bounded whatever a stream asks for; its output is not, which is for the caller to limit.

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::GzDecoder;

/// Bytes of compressed input that are read at once.
const BUFFER: usize = 128 << 10;
/// The largest zstd window that is taken, as a power of two: twice what `zstd --ultra -22` makes.
const ZSTD_WINDOW_LOG: u32 = 28;
/// KiB that xz may use: its largest preset needs 65 MiB.
const XZ_MEMORY: u32 = 512 << 10;

/// How a stream is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    Uncompressed,
    Gzip,
    Bzip2,
    Xz,
    Zstd,
}

/// Tells a stream's format by its first bytes; six are enough.
pub fn detect(first_bytes: &[u8]) -> Format {
    match first_bytes {
        [0x1f, 0x8b, 8, ..] => Format::Gzip,
        [b'B', b'Z', b'h', b'1'..=b'9', ..] => Format::Bzip2,
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Format::Xz,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Format::Zstd,
        // A frame to be skipped may come before the first of data.
        [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Format::Zstd,
        _ => Format::Uncompressed,
    }
}

/// Returns the uncompressed bytes of a stream in whichever format it is.
pub fn decompress<R: Read + Send + 'static>(reader: R) -> io::Result<Box<dyn Read + Send>> {
    decompress_within(reader, u64::MAX)
}

/// Does the same with at most `window` bytes for what the stream wants to be remembered of it: one that wants more is refused.
pub fn decompress_within<R: Read + Send + 'static>(
    reader: R,
    window: u64,
) -> io::Result<Box<dyn Read + Send>> {
    let mut reader = reader;
    let mut first = Vec::with_capacity(6);
    (&mut reader).take(6).read_to_end(&mut first)?;
    let format = detect(&first);
    let reader = BufReader::with_capacity(BUFFER, io::Cursor::new(first).chain(reader));
    Ok(match format {
        Format::Uncompressed => Box::new(reader),
        Format::Gzip => Box::new(Gunzip::new(reader)),
        Format::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(reader)),
        Format::Xz => Box::new(lzma_rust2::XzReader::new_mem_limit(
            reader,
            true,
            u32::try_from(window >> 10).map_or(XZ_MEMORY, |window| window.min(XZ_MEMORY)),
        )),
        Format::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(reader)?;
            // Rounded down. The library takes no less than 10.
            let log = window.max(1 << 10).ilog2();
            decoder.window_log_max(log.min(ZSTD_WINDOW_LOG))?;
            Box::new(decoder)
        }
    })
}

/// A row of gzip members, perhaps padded with zeros at its end, as tapes and some programs leave it.
struct Gunzip<R> {
    /// `None` at the end, and after an error.
    member: Option<GzDecoder<R>>,
}

impl<R: BufRead> Gunzip<R> {
    fn new(reader: R) -> Gunzip<R> {
        Gunzip {
            member: Some(GzDecoder::new(reader)),
        }
    }
}

impl<R: BufRead> Read for Gunzip<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if into.is_empty() {
            return Ok(0);
        }
        while let Some(mut member) = self.member.take() {
            match member.read(into) {
                Ok(0) => {
                    let mut reader = member.into_inner();
                    if more_members(&mut reader)? {
                        self.member = Some(GzDecoder::new(reader));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                    self.member = Some(member);
                    return Err(error);
                }
                result => {
                    let count = result?;
                    self.member = Some(member);
                    return Ok(count);
                }
            }
        }
        Ok(0)
    }
}

/// Says whether another member follows; zeros up to the end are no member.
fn more_members(reader: &mut impl BufRead) -> io::Result<bool> {
    let mut zeros = false;
    loop {
        let bytes = match reader.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            bytes => bytes?,
        };
        let Some(&first) = bytes.first() else {
            return Ok(false);
        };
        if first != 0 {
            return match zeros {
                false => Ok(true),
                true => Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "something follows the zeros behind the gzip data",
                )),
            };
        }
        zeros = true;
        let count = bytes.iter().take_while(|byte| **byte == 0).count();
        reader.consume(count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn formats_are_told_by_their_first_bytes() {
        let check = |bytes: &[u8], expected| {
            assert_eq!(detect(bytes), expected, "{}", bytes.escape_ascii());
        };
        check(b"", Format::Uncompressed);
        check(b"\x1f\x8b", Format::Uncompressed);
        check(b"\x1f\x8b\x08\x00", Format::Gzip);
        check(b"BZh9", Format::Bzip2);
        check(b"BZhello", Format::Uncompressed);
        check(b"\xfd7zXZ\0", Format::Xz);
        check(b"\x28\xb5\x2f\xfd\x04", Format::Zstd);
        check(b"\x51\x2a\x4d\x18", Format::Zstd);
        check(b"PaxHeader", Format::Uncompressed);
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn unpack(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        decompress(io::Cursor::new(bytes.to_vec()))?.read_to_end(&mut out)?;
        Ok(out)
    }

    fn packed(format: Format, bytes: &[u8]) -> Vec<u8> {
        match format {
            Format::Uncompressed => bytes.to_vec(),
            Format::Gzip => gzip(bytes),
            Format::Zstd => zstd::stream::encode_all(bytes, 1).unwrap(),
            Format::Bzip2 => {
                let mut encoder =
                    bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
                encoder.write_all(bytes).unwrap();
                encoder.finish().unwrap()
            }
            // Made by the `xz` program: the crate is built without its encoder.
            Format::Xz => match bytes {
                b"" => include_bytes!("../../testdata/layer/empty.xz").to_vec(),
                b"one, " => include_bytes!("../../testdata/layer/one.xz").to_vec(),
                b"two" => include_bytes!("../../testdata/layer/two.xz").to_vec(),
                _ => include_bytes!("../../testdata/layer/numbers.xz").to_vec(),
            },
        }
    }

    fn numbers() -> Vec<u8> {
        (0..5000_u32).flat_map(u32::to_le_bytes).collect()
    }

    const ALL: [Format; 5] = [
        Format::Uncompressed,
        Format::Gzip,
        Format::Bzip2,
        Format::Xz,
        Format::Zstd,
    ];

    #[test]
    fn several_members_are_one_stream() {
        for format in ALL {
            let mut stream = packed(format, b"one, ");
            stream.extend(packed(format, b""));
            stream.extend(packed(format, b"two"));
            assert_eq!(unpack(&stream).unwrap(), b"one, two", "{format:?}");
        }
    }

    #[test]
    fn streams_shorter_than_a_magic_are_plain() {
        assert_eq!(unpack(b"").unwrap(), b"");
        assert_eq!(unpack(b"BZ").unwrap(), b"BZ");
    }

    #[test]
    fn zeros_behind_gzip_are_padding_and_anything_else_is_an_error() {
        let mut stream = gzip(b"text");
        stream.extend([0; 300_000]);
        assert_eq!(unpack(&stream).unwrap(), b"text");
        stream.push(1);
        assert!(unpack(&stream).is_err());
        let mut stream = gzip(b"text");
        stream.extend(b"garbage");
        assert!(unpack(&stream).is_err());
    }

    #[test]
    fn a_stream_cut_anywhere_is_an_error() {
        let text = numbers();
        for format in ALL.into_iter().skip(1) {
            let whole = packed(format, &text);
            assert_eq!(unpack(&whole).unwrap(), text);
            for cut in (6..whole.len()).step_by(whole.len() / 40 + 1) {
                assert!(unpack(&whole[..cut]).is_err(), "{format:?} cut at {cut}");
            }
        }
    }

    #[test]
    fn a_changed_byte_in_a_checked_stream_is_an_error() {
        let text = numbers();
        for format in [Format::Gzip, Format::Bzip2, Format::Xz] {
            let whole = packed(format, &text);
            for at in (16..whole.len()).step_by(whole.len() / 40 + 1) {
                let mut changed = whole.clone();
                changed[at] ^= 0x10;
                let result = unpack(&changed);
                assert!(
                    result.is_err() || result.unwrap() == text,
                    "{format:?} at {at}"
                );
            }
        }
    }

    #[test]
    fn a_window_beyond_the_limit_is_refused() {
        // A frame header that asks for a window of 2 GiB.
        let stream = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa8, 0x01, 0x00, 0x00];
        assert!(unpack(&stream).is_err());
    }

    #[test]
    fn a_window_that_is_too_large_is_refused() {
        let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(21).unwrap();
        // Without a known size, as layers are written.
        encoder.write_all(&vec![7; 3 << 20]).unwrap();
        let packed = encoder.finish().unwrap();
        for (window, is_taken) in [
            (u64::MAX, true),
            (2 << 20, true),
            (1 << 20, false),
            (0, false),
        ] {
            let mut reader = decompress_within(io::Cursor::new(packed.clone()), window).unwrap();
            let read = io::copy(&mut reader, &mut io::sink());
            assert_eq!(read.is_ok(), is_taken, "{window}: {read:?}");
        }
    }
}
