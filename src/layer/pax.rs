//! The records of extended (PAX) headers: `LENGTH KEY=VALUE\n`, where the length counts itself.
//!
//! Known keys: `path`, `linkpath`, `size`, `uid`, `gid`, `mtime`, `SCHILY.xattr.*` and `GNU.sparse.*`. Times of access and
//! change, names of users, ACLs in text form and comments have no place in a layer's entry and are passed over. In the names
//! of extended attributes `=` and `%` are written `%3D` and `%25`, as GNU tar does it; values are raw bytes.

use std::collections::BTreeMap;

use super::entry::Mtime;
use super::sparse::SparseRecords;

const XATTR: &[u8] = b"SCHILY.xattr.";

/// What extended headers say about the entry that follows them.
#[derive(Clone, Debug, Default)]
pub(super) struct Attributes {
    pub(super) path: Option<Vec<u8>>,
    pub(super) linkpath: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) mtime: Option<Mtime>,
    pub(super) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(super) sparse: SparseRecords,
}

impl Attributes {
    /// Takes in the records of one extended header; later records go before earlier ones, and an empty value takes an earlier
    /// one back.
    pub(super) fn apply(&mut self, mut records: &[u8]) -> Result<(), &'static str> {
        while !records.is_empty() {
            let (key, value, rest) = record(records)?;
            self.set(key, value)?;
            records = rest;
        }
        Ok(())
    }

    /// Says whether the attributes name one entry, which no header for a whole archive can do.
    pub(super) fn name_one_entry(&self) -> bool {
        self.path.is_some()
            || self.linkpath.is_some()
            || self.size.is_some()
            || !self.sparse.is_empty()
    }

    /// Bytes of names and values that are kept.
    pub(super) fn held(&self) -> usize {
        self.xattrs
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum()
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        if let Some(name) = key.strip_prefix(XATTR) {
            let name = decode_xattr_name(name);
            if name.is_empty() || name.contains(&0) {
                return Err("an extended attribute without a usable name");
            }
            self.xattrs.insert(name, value.to_vec());
            return Ok(());
        }
        if let Some(key) = key.strip_prefix(b"GNU.sparse.") {
            return self.sparse.set(key, value);
        }
        match key {
            b"path" => self.path = non_empty(value),
            b"linkpath" => self.linkpath = non_empty(value),
            b"size" => self.size = optional(value, decimal).ok_or("`size` is not a number")?,
            b"uid" => self.uid = optional(value, id).ok_or("`uid` is not a user id")?,
            b"gid" => self.gid = optional(value, id).ok_or("`gid` is not a group id")?,
            b"mtime" => self.mtime = optional(value, time).ok_or("`mtime` is not a time")?,
            _ => {}
        }
        Ok(())
    }
}

fn non_empty(value: &[u8]) -> Option<Vec<u8>> {
    (!value.is_empty()).then(|| value.to_vec())
}

/// An empty value is no value; a malformed one is `None`.
fn optional<T>(value: &[u8], parse: impl Fn(&[u8]) -> Option<T>) -> Option<Option<T>> {
    if value.is_empty() {
        return Some(None);
    }
    parse(value).map(Some)
}

/// A record's key and value, and what follows it.
type Split<'a> = (&'a [u8], &'a [u8], &'a [u8]);

/// Splits off the first record.
fn record(records: &[u8]) -> Result<Split<'_>, &'static str> {
    let space = records
        .iter()
        .take(20)
        .position(|&byte| byte == b' ')
        .ok_or("a record without a length")?;
    let length = decimal(&records[..space]).ok_or("a record's length is not a number")?;
    let length = usize::try_from(length).map_err(|_| "a record longer than its header")?;
    if length <= space + 1 || length > records.len() {
        return Err("a record's length is wrong");
    }
    let (record, rest) = records.split_at(length);
    let [body @ .., b'\n'] = &record[space + 1..] else {
        return Err("a record without its final newline");
    };
    let equals = body
        .iter()
        .position(|&byte| byte == b'=')
        .ok_or("a record without `=`")?;
    if equals == 0 {
        return Err("a record without a key");
    }
    Ok((&body[..equals], &body[equals + 1..], rest))
}

/// Reads an unsigned number below 2^63, as all sizes are.
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 19 || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value = text
        .iter()
        .fold(0_u64, |value, digit| value * 10 + u64::from(digit - b'0'));
    (value <= i64::MAX as u64).then_some(value)
}

fn id(text: &[u8]) -> Option<u32> {
    decimal(text).and_then(|value| u32::try_from(value).ok())
}

/// Reads `[-]SECONDS[.FRACTION]`; digits beyond nanoseconds are dropped.
fn time(text: &[u8]) -> Option<Mtime> {
    let (negative, text) = match text {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    let (whole, fraction) = match text.iter().position(|&byte| byte == b'.') {
        Some(dot) => (&text[..dot], &text[dot + 1..]),
        None => (text, &b""[..]),
    };
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let mut nanoseconds = 0;
    for at in 0..9 {
        let digit = fraction.get(at).map_or(0, |digit| u32::from(digit - b'0'));
        nanoseconds = nanoseconds * 10 + digit;
    }
    // The lowest number has no positive twin.
    if negative && whole == b"9223372036854775808" && nanoseconds == 0 {
        return Some(Mtime {
            seconds: i64::MIN,
            nanoseconds: 0,
        });
    }
    let seconds = i64::try_from(decimal(whole)?).ok()?;
    Some(match (negative, nanoseconds) {
        (false, _) => Mtime {
            seconds,
            nanoseconds,
        },
        (true, 0) => Mtime {
            seconds: -seconds,
            nanoseconds: 0,
        },
        (true, _) => Mtime {
            seconds: -seconds - 1,
            nanoseconds: 1_000_000_000 - nanoseconds,
        },
    })
}

/// Appends one record.
pub(super) fn put(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    // The length counts its own digits, which may add one more.
    let mut length = rest + digits(rest);
    if rest + digits(length) > length {
        length += 1;
    }
    records.extend_from_slice(length.to_string().as_bytes());
    records.push(b' ');
    records.extend_from_slice(key);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}

fn digits(number: usize) -> usize {
    number.checked_ilog10().unwrap_or(0) as usize + 1
}

pub(super) fn put_xattr(records: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    let mut key = Vec::with_capacity(XATTR.len() + name.len());
    key.extend_from_slice(XATTR);
    for &byte in name {
        match byte {
            b'%' => key.extend_from_slice(b"%25"),
            b'=' => key.extend_from_slice(b"%3D"),
            _ => key.push(byte),
        }
    }
    put(records, &key, value);
}

fn decode_xattr_name(name: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(name.len());
    let mut rest = name;
    while let [first, tail @ ..] = rest {
        (rest, _) = match (first, tail) {
            (b'%', [b'3', b'D', tail @ ..]) => (tail, decoded.push(b'=')),
            (b'%', [b'2', b'5', tail @ ..]) => (tail, decoded.push(b'%')),
            _ => (tail, decoded.push(*first)),
        };
    }
    decoded
}

pub(super) fn put_time(records: &mut Vec<u8>, time: Mtime) {
    let text = match (time.seconds, time.nanoseconds) {
        (seconds, 0) => seconds.to_string(),
        (seconds, nanoseconds) if seconds < 0 => {
            // -2 s and 0.75 s forward is written -1.25.
            let whole = (seconds + 1).unsigned_abs();
            format!("-{whole}.{:09}", 1_000_000_000 - nanoseconds)
        }
        (seconds, nanoseconds) => format!("{seconds}.{nanoseconds:09}"),
    };
    let text = match text.contains('.') {
        true => text.trim_end_matches('0'),
        false => &text,
    };
    put(records, b"mtime", text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mtime(seconds: i64, nanoseconds: u32) -> Mtime {
        Mtime {
            seconds,
            nanoseconds,
        }
    }

    #[test]
    fn a_records_length_counts_its_own_digits() {
        for length in [
            0, 1, 3, 4, 5, 88, 89, 90, 91, 985, 986, 987, 988, 9980, 9990,
        ] {
            let mut records = Vec::new();
            put(&mut records, b"path", &vec![b'x'; length]);
            let (key, value, rest) = record(&records).unwrap();
            assert_eq!((key, value.len(), rest), (&b"path"[..], length, &b""[..]));
        }
    }

    #[test]
    fn times_survive() {
        for (wanted, text) in [
            (mtime(0, 0), "0"),
            (mtime(1, 500_000_000), "1.5"),
            (mtime(100, 0), "100"),
            (mtime(1, 1), "1.000000001"),
            (mtime(-1, 0), "-1"),
            (mtime(-2, 750_000_000), "-1.25"),
            (mtime(-1, 999_999_999), "-0.000000001"),
            (
                mtime(i64::MAX, 999_999_999),
                "9223372036854775807.999999999",
            ),
            (mtime(i64::MIN, 0), "-9223372036854775808"),
            (mtime(i64::MIN, 1), "-9223372036854775807.999999999"),
        ] {
            let mut records = Vec::new();
            put_time(&mut records, wanted);
            let (_, value, _) = record(&records).unwrap();
            assert_eq!(value.escape_ascii().to_string(), text);
            assert_eq!(time(value), Some(wanted), "{text}");
        }
        assert_eq!(time(b"1.1234567899"), Some(mtime(1, 123_456_789)));
        assert_eq!(time(b"1."), Some(mtime(1, 0)));
        for text in ["", ".5", "1.x", "1e3", "--1", "9223372036854775808"] {
            assert_eq!(time(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn malformed_records_are_refused() {
        for records in [
            "5 a=b\n",
            "7 a=b\n",
            "6 a=b",
            "6 a=bx",
            "x a=b\n",
            "6",
            " a=b\n",
            "5 =b\n",
            "5 ab\n",
            "99999999999999999999 a=b\n",
            "0 a=b\n",
            "-6 a=b\n",
            "2 ",
            "12 size=abc\n",
            "12 uid=-100\n",
            "18 uid=4294967296\n",
            "17 SCHILY.xattr.=\n",
        ] {
            assert!(
                Attributes::default().apply(records.as_bytes()).is_err(),
                "{records:?}"
            );
        }
        assert!(Attributes::default().apply(b"6 a=b\n6 c=d\n").is_ok());
    }

    #[test]
    fn an_empty_value_takes_an_earlier_one_back_but_is_an_attributes_value() {
        let mut attributes = Attributes::default();
        attributes.apply(b"12 path=abc\n").unwrap();
        assert_eq!(attributes.path.as_deref(), Some(&b"abc"[..]));
        let mut records = Vec::new();
        put(&mut records, b"path", b"");
        put_xattr(&mut records, b"user.a=b%", b"");
        attributes.apply(&records).unwrap();
        assert_eq!(attributes.path, None);
        assert_eq!(attributes.xattrs[&b"user.a=b%"[..]], b"");
    }
}
