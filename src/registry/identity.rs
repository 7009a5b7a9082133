//! Which of our certificates a server is shown.
//!
//! In: certificates with their keys, and the authorities that the server names in its request. Out: one of them. TLS libraries leave
//! that choice to the program where there is more than one.

use std::sync::Arc;

use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

/// Who we are, to each authority that may ask.
#[derive(Debug)]
pub(super) struct Identities(Vec<Arc<CertifiedKey>>);

impl Identities {
    pub(super) fn new(
        identities: Vec<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
        provider: &CryptoProvider,
    ) -> Result<Identities, rustls::Error> {
        identities
            .into_iter()
            .map(|(chain, key)| CertifiedKey::from_der(chain, key, provider).map(Arc::new))
            .collect::<Result<_, _>>()
            .map(Identities)
    }
}

impl ResolvesClientCert for Identities {
    /// Chooses the first certificate whose issuer, or an issuer in its chain, is one that the server names; else the first.
    fn resolve(
        &self,
        root_hint_subjects: &[&[u8]],
        schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        let is_fit = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(schemes).is_some();
        let is_wanted = |key: &&Arc<CertifiedKey>| {
            key.cert.iter().any(|certificate| {
                issuer(certificate).is_some_and(|issuer| root_hint_subjects.contains(&issuer))
            })
        };
        let fit = || self.0.iter().filter(is_fit);
        fit().find(is_wanted).or_else(|| fit().next()).cloned()
    }

    fn has_certs(&self) -> bool {
        !self.0.is_empty()
    }
}

/// Returns the name of a certificate's issuer as it is written in it (RFC 5280, section 4.1).
fn issuer(certificate: &[u8]) -> Option<&[u8]> {
    const SEQUENCE: u8 = 0x30;
    const INTEGER: u8 = 0x02;
    const VERSION: u8 = 0xa0;
    let expect = |bytes, tag| Element::first(bytes).filter(|element| element.tag == tag);
    let certificate = expect(certificate, SEQUENCE)?;
    let fields = expect(certificate.content, SEQUENCE)?.content;
    let rest = expect(fields, VERSION).map_or(fields, |version| version.rest);
    let serial = expect(rest, INTEGER)?;
    let algorithm = expect(serial.rest, SEQUENCE)?;
    let issuer = expect(algorithm.rest, SEQUENCE)?;
    Some(issuer.whole)
}

/// A piece of DER.
struct Element<'a> {
    tag: u8,
    whole: &'a [u8],
    content: &'a [u8],
    /// What follows.
    rest: &'a [u8],
}

impl Element<'_> {
    /// Reads the first element of some bytes.
    fn first(bytes: &[u8]) -> Option<Element<'_>> {
        let (&tag, rest) = bytes.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            0x81..=0x84 => {
                let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                let add = |sum: usize, digit: &u8| sum << 8 | usize::from(*digit);
                (digits.iter().fold(0, add), rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        Some(Element {
            tag,
            whole: &bytes[..bytes.len() - rest.len()],
            content,
            rest,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_issuer_is_found_in_sound_certificates_alone() {
        // version 3, serial 5, algorithm {}, issuer { 1 }, and what follows.
        let sound = [
            0x30, 0x10, 0x30, 0x0e, 0xa0, 3, 2, 1, 2, 2, 1, 5, 0x30, 0, 0x30, 1, 1, 0xff,
        ];
        assert_eq!(issuer(&sound), Some(&[0x30, 1, 1][..]));
        let without_version = [0x30, 0x0b, 0x30, 9, 2, 1, 5, 0x30, 0, 0x30, 1, 1, 0xff];
        assert_eq!(issuer(&without_version), Some(&[0x30, 1, 1][..]));
        for end in 0..sound.len() {
            assert_eq!(issuer(&sound[..end]), None, "{end}");
        }
        for odd in [
            &[0x30, 0x80, 0, 0][..],
            &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff],
            &[0x30, 2, 0x31, 0],
        ] {
            assert_eq!(issuer(odd), None);
        }
    }
}
