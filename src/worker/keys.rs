//! Private keys of SSH, for steps that get an agent made of key files.
//!
//! In: the text of a key file: OpenSSH's own format, or PEM (PKCS #1, PKCS #8, SEC 1), not encrypted. Out: the public key and
//! signatures as the agent protocol has them. Ed25519, ECDSA on P-256 and P-384, RSA from 2048 bits. Parsing is by hand: the
//! formats are a few fields each, and *ring*, which signs for TLS already, does the arithmetic.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ring::rand::SystemRandom;
use ring::rsa::{KeyPairComponents, PublicKeyComponents};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA512,
    RsaKeyPair,
};

use super::wire::{Fields, Message};

/// Flags of a request to sign: which hash an RSA key is to use.
const RSA_SHA2_256: u32 = 2;
const RSA_SHA2_512: u32 = 4;

/// Why a key cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("it is encrypted with a passphrase")]
    Encrypted,
    #[error("it holds no private key")]
    NotAKey,
    #[error("keys of type `{0}` are not supported")]
    Unsupported(String),
    #[error("it is damaged")]
    Damaged,
    #[error("it was refused: {0}")]
    Refused(String),
}

/// A key that signs. Its `Debug` shows the public half.
pub struct PrivateKey {
    pair: Pair,
    /// The public key in the form of the protocol.
    public: Vec<u8>,
    comment: Vec<u8>,
}

enum Pair {
    Ed25519(Ed25519KeyPair),
    Ecdsa(Curve, EcdsaKeyPair),
    Rsa(Box<RsaKeyPair>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Curve {
    P256,
    P384,
}

impl Curve {
    fn named(name: &[u8]) -> Result<Curve, KeyError> {
        match name {
            b"nistp256" => Ok(Curve::P256),
            b"nistp384" => Ok(Curve::P384),
            other => Err(KeyError::Unsupported(
                String::from_utf8_lossy(other).into_owned(),
            )),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Curve::P256 => "nistp256",
            Curve::P384 => "nistp384",
        }
    }

    fn algorithm(self) -> &'static EcdsaSigningAlgorithm {
        match self {
            Curve::P256 => &ECDSA_P256_SHA256_FIXED_SIGNING,
            Curve::P384 => &ECDSA_P384_SHA384_FIXED_SIGNING,
        }
    }

    /// Bytes of a number.
    fn length(self) -> usize {
        match self {
            Curve::P256 => 32,
            Curve::P384 => 48,
        }
    }

    /// What PKCS #8 puts in front of a SEC 1 key: its version, and the algorithm with the curve.
    fn header(self) -> &'static [u8] {
        match self {
            Curve::P256 => {
                b"\x02\x01\x00\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07"
            }
            Curve::P384 => {
                b"\x02\x01\x00\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x22"
            }
        }
    }
}

impl PrivateKey {
    /// Reads the first key of a file.
    pub fn parse(text: &[u8]) -> Result<PrivateKey, KeyError> {
        let text = std::str::from_utf8(text).map_err(|_| KeyError::NotAKey)?;
        let (label, body) = pem(text).ok_or(KeyError::NotAKey)?;
        if label == "ENCRYPTED PRIVATE KEY" || body.contains("ENCRYPTED") {
            return Err(KeyError::Encrypted);
        }
        let bytes: String = body.split_whitespace().collect();
        let bytes = BASE64_STANDARD
            .decode(bytes)
            .map_err(|_| KeyError::Damaged)?;
        match label {
            "OPENSSH PRIVATE KEY" => openssh(&bytes),
            "RSA PRIVATE KEY" => PrivateKey::rsa(RsaKeyPair::from_der(&bytes)),
            "EC PRIVATE KEY" => sec1(&bytes),
            "PRIVATE KEY" => pkcs8(&bytes),
            other => Err(KeyError::Unsupported(other.to_owned())),
        }
    }

    /// Returns the public key in the form of the protocol.
    pub(super) fn public(&self) -> &[u8] {
        &self.public
    }

    /// Returns what the file calls the key.
    pub(super) fn comment(&self) -> &[u8] {
        &self.comment
    }

    /// Returns a signature in the form of the protocol; `None` for what this key does not do (RSA with SHA-1).
    pub(super) fn sign(&self, data: &[u8], flags: u32) -> Option<Vec<u8>> {
        let random = SystemRandom::new();
        let message = match &self.pair {
            Pair::Ed25519(pair) => Message::new()
                .string(b"ssh-ed25519")
                .string(pair.sign(data).as_ref()),
            Pair::Ecdsa(curve, pair) => {
                let signature = pair.sign(&random, data).ok()?;
                let (r, s) = signature.as_ref().split_at(curve.length());
                let numbers = Message::new().number(r).number(s);
                Message::new()
                    .string(format!("ecdsa-sha2-{}", curve.name()).as_bytes())
                    .string(&numbers.finish())
            }
            Pair::Rsa(pair) => {
                let (name, encoding): (&str, &'static dyn ring::signature::RsaEncoding) =
                    if flags & RSA_SHA2_512 != 0 {
                        ("rsa-sha2-512", &RSA_PKCS1_SHA512)
                    } else if flags & RSA_SHA2_256 != 0 {
                        ("rsa-sha2-256", &RSA_PKCS1_SHA256)
                    } else {
                        return None;
                    };
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(encoding, &random, data, &mut signature).ok()?;
                Message::new().string(name.as_bytes()).string(&signature)
            }
        };
        Some(message.finish())
    }

    fn ed25519(
        pair: Result<Ed25519KeyPair, ring::error::KeyRejected>,
    ) -> Result<PrivateKey, KeyError> {
        let pair = pair.map_err(refused)?;
        let public = Message::new()
            .string(b"ssh-ed25519")
            .string(pair.public_key().as_ref())
            .finish();
        Ok(PrivateKey {
            pair: Pair::Ed25519(pair),
            public,
            comment: Vec::new(),
        })
    }

    fn ecdsa(
        curve: Curve,
        pair: Result<EcdsaKeyPair, ring::error::KeyRejected>,
    ) -> Result<PrivateKey, KeyError> {
        let pair = pair.map_err(refused)?;
        let public = Message::new()
            .string(format!("ecdsa-sha2-{}", curve.name()).as_bytes())
            .string(curve.name().as_bytes())
            .string(pair.public_key().as_ref())
            .finish();
        Ok(PrivateKey {
            pair: Pair::Ecdsa(curve, pair),
            public,
            comment: Vec::new(),
        })
    }

    fn rsa(pair: Result<RsaKeyPair, ring::error::KeyRejected>) -> Result<PrivateKey, KeyError> {
        let pair = pair.map_err(refused)?;
        let numbers: PublicKeyComponents<Vec<u8>> = pair.public().into();
        let public = Message::new()
            .string(b"ssh-rsa")
            .number(&numbers.e)
            .number(&numbers.n)
            .finish();
        Ok(PrivateKey {
            pair: Pair::Rsa(Box::new(pair)),
            public,
            comment: Vec::new(),
        })
    }
}

impl std::fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PrivateKey({})", BASE64_STANDARD.encode(&self.public))
    }
}

fn refused(error: ring::error::KeyRejected) -> KeyError {
    KeyError::Refused(error.to_string())
}

/// Returns the label and the text between the lines of the first block, with its headers.
fn pem(text: &str) -> Option<(&str, &str)> {
    let (_, rest) = text.split_once("-----BEGIN ")?;
    let (label, rest) = rest.split_once("-----")?;
    let (body, _) = rest.split_once("-----END ")?;
    Some((label, body))
}

/// OpenSSH's `PROTOCOL.key`.
fn openssh(bytes: &[u8]) -> Result<PrivateKey, KeyError> {
    let body = bytes
        .strip_prefix(b"openssh-key-v1\0")
        .ok_or(KeyError::Damaged)?;
    let private = (|| {
        let mut fields = Fields::new(body);
        let cipher = fields.string()?;
        fields.string()?;
        fields.string()?;
        let count = fields.u32()?;
        fields.string()?;
        Some((cipher, count, fields.string()?))
    })();
    let (cipher, count, private) = private.ok_or(KeyError::Damaged)?;
    if cipher != b"none" {
        return Err(KeyError::Encrypted);
    }
    if count != 1 {
        return Err(KeyError::Damaged);
    }
    let mut fields = Fields::new(private);
    let checks = fields.u32().zip(fields.u32());
    let kind = fields.string().ok_or(KeyError::Damaged)?;
    if checks.is_none_or(|(one, other)| one != other) {
        return Err(KeyError::Damaged);
    }
    let damaged = KeyError::Damaged;
    let mut key = match kind {
        b"ssh-ed25519" => {
            let pair = fields.string().zip(fields.string()).ok_or(damaged)?;
            let seed = pair.1.get(..32).ok_or(KeyError::Damaged)?;
            PrivateKey::ed25519(Ed25519KeyPair::from_seed_and_public_key(seed, pair.0))?
        }
        b"ssh-rsa" => openssh_rsa(&mut fields)?,
        kind if kind.starts_with(b"ecdsa-sha2-") => {
            let curve = Curve::named(fields.string().ok_or(damaged)?)?;
            let numbers = fields.string().zip(fields.string());
            let (point, number) = numbers.ok_or(KeyError::Damaged)?;
            let scalar = padded(number, curve.length()).ok_or(KeyError::Damaged)?;
            let pair = EcdsaKeyPair::from_private_key_and_public_key(
                curve.algorithm(),
                &scalar,
                point,
                &SystemRandom::new(),
            );
            PrivateKey::ecdsa(curve, pair)?
        }
        other => {
            return Err(KeyError::Unsupported(
                String::from_utf8_lossy(other).into_owned(),
            ));
        }
    };
    key.comment = fields.string().unwrap_or_default().to_vec();
    Ok(key)
}

fn openssh_rsa(fields: &mut Fields<'_>) -> Result<PrivateKey, KeyError> {
    let mut number = || {
        let bytes = fields.string().ok_or(KeyError::Damaged)?;
        Ok::<_, KeyError>(trimmed(bytes).to_vec())
    };
    let (n, e, d, inverse) = (number()?, number()?, number()?, number()?);
    let (p, q) = (number()?, number()?);
    if [&n, &e, &d, &inverse, &p, &q]
        .iter()
        .any(|number| number.is_empty() || number.len() > 2048)
    {
        return Err(KeyError::Damaged);
    }
    PrivateKey::rsa(RsaKeyPair::from_components(&KeyPairComponents {
        dP: remainder_less_one(&d, &p),
        dQ: remainder_less_one(&d, &q),
        public_key: PublicKeyComponents { n, e },
        d,
        p,
        q,
        qInv: inverse,
    }))
}

/// Wraps a SEC 1 key as PKCS #8, trying each curve: one that names its curve fits no other, and one that does not has the
/// length of its curve.
fn sec1(bytes: &[u8]) -> Result<PrivateKey, KeyError> {
    let mut failure = KeyError::Damaged;
    for curve in [Curve::P256, Curve::P384] {
        let mut content = curve.header().to_vec();
        der(0x04, bytes, &mut content);
        let mut wrapped = Vec::new();
        der(0x30, &content, &mut wrapped);
        let pair = EcdsaKeyPair::from_pkcs8(curve.algorithm(), &wrapped, &SystemRandom::new());
        match PrivateKey::ecdsa(curve, pair) {
            Ok(key) => return Ok(key),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

fn pkcs8(bytes: &[u8]) -> Result<PrivateKey, KeyError> {
    // ring says at once where the algorithm is another.
    if let Ok(key) = PrivateKey::ed25519(Ed25519KeyPair::from_pkcs8_maybe_unchecked(bytes)) {
        return Ok(key);
    }
    for curve in [Curve::P256, Curve::P384] {
        let pair = EcdsaKeyPair::from_pkcs8(curve.algorithm(), bytes, &SystemRandom::new());
        if let Ok(key) = PrivateKey::ecdsa(curve, pair) {
            return Ok(key);
        }
    }
    PrivateKey::rsa(RsaKeyPair::from_pkcs8(bytes))
}

/// Appends a value of DER.
fn der(tag: u8, content: &[u8], out: &mut Vec<u8>) {
    out.push(tag);
    let length = content.len();
    match length {
        0..0x80 => out.push(length as u8),
        0x80..0x100 => out.extend([0x81, length as u8]),
        _ => {
            out.push(0x82);
            out.extend((length.min(0xffff) as u16).to_be_bytes());
        }
    }
    out.extend_from_slice(content);
}

fn trimmed(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    &number[zeros..]
}

fn padded(number: &[u8], length: usize) -> Option<Vec<u8>> {
    let number = trimmed(number);
    let zeros = length.checked_sub(number.len())?;
    let mut padded = vec![0; zeros];
    padded.extend_from_slice(number);
    Some(padded)
}

/// Returns `number` modulo `prime - 1`, both with the highest byte first: bit by bit, which for one key takes a few milliseconds.
fn remainder_less_one(number: &[u8], prime: &[u8]) -> Vec<u8> {
    let mut modulus = prime.to_vec();
    // A prime of RSA is odd, so nothing is borrowed. One that is not is refused by ring.
    if let Some(last) = modulus.last_mut() {
        *last &= !1;
    }
    // One byte more, for the shift.
    let mut modulus_wide = vec![0];
    modulus_wide.extend(modulus);
    let mut rest = vec![0_u8; modulus_wide.len()];
    for bit in number
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1))
    {
        let mut carry = bit;
        for byte in rest.iter_mut().rev() {
            (*byte, carry) = (*byte << 1 | carry, *byte >> 7);
        }
        if rest >= modulus_wide {
            let mut borrow = false;
            for (byte, other) in rest.iter_mut().zip(&modulus_wide).rev() {
                let (less, first) = byte.overflowing_sub(*other);
                let (less, second) = less.overflowing_sub(u8::from(borrow));
                (*byte, borrow) = (less, first || second);
            }
        }
    }
    trimmed(&rest).to_vec()
}
