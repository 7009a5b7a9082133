//! The encoding of SSH messages (RFC 4251, section 5): strings with their length, numbers, the highest byte first.

/// A message that is being written.
#[derive(Default)]
pub(super) struct Message(Vec<u8>);

impl Message {
    pub(super) fn new() -> Message {
        Message::default()
    }

    pub(super) fn byte(mut self, byte: u8) -> Message {
        self.0.push(byte);
        self
    }

    pub(super) fn u32(mut self, number: u32) -> Message {
        self.0.extend(number.to_be_bytes());
        self
    }

    pub(super) fn string(self, bytes: &[u8]) -> Message {
        let length = u32::try_from(bytes.len()).expect("no message is that long");
        let mut message = self.u32(length);
        message.0.extend_from_slice(bytes);
        message
    }

    /// A number that is not negative (`mpint`).
    pub(super) fn number(self, bytes: &[u8]) -> Message {
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        let bytes = &bytes[zeros..];
        match bytes.first() {
            // A sign bit would make it negative.
            Some(first) if first & 0x80 != 0 => self.string(&[&[0], bytes].concat()),
            _ => self.string(bytes),
        }
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.0
    }
}

/// A message that is being read.
pub(super) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Fields<'a> {
        Fields(bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        let (number, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_be_bytes(*number))
    }

    pub(super) fn string(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.u32()?).ok()?;
        let (string, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(string)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_never_negative_and_have_no_needless_zeros() {
        for (number, wanted) in [
            (&[0_u8, 0][..], &[0_u8, 0, 0, 0][..]),
            (&[0, 0x7f], &[0, 0, 0, 1, 0x7f]),
            (&[0x80], &[0, 0, 0, 2, 0, 0x80]),
            (&[0, 0xff, 1], &[0, 0, 0, 3, 0, 0xff, 1]),
        ] {
            assert_eq!(Message::new().number(number).finish(), wanted);
        }
    }

    #[test]
    fn fields_come_back_and_torn_ones_do_not() {
        let bytes = Message::new().u32(7).string(b"ab").finish();
        let mut fields = Fields::new(&bytes);
        assert_eq!((fields.u32(), fields.string()), (Some(7), Some(&b"ab"[..])));
        assert_eq!(fields.u32(), None);
        let mut fields = Fields::new(&bytes[..bytes.len() - 1]);
        assert_eq!((fields.u32(), fields.string()), (Some(7), None));
    }
}
