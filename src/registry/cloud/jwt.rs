//! Signed claims (JSON Web Tokens): made with an RSA key (RS256), and read for the time of their end.
//!
//! No signature is checked here: a token that was given for use says when it ends, and a lie about that harms nobody else.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use serde_json::{Value, json};

use crate::vocab::Secret;

/// Signs claims with a private key in PEM (PKCS #8 or PKCS #1). The error fits after "its `private_key`".
pub(super) fn sign(
    key: &Secret<String>,
    key_id: Option<&str>,
    claims: &Value,
) -> Result<Secret<String>, &'static str> {
    let (label, der) = pem(key.reveal()).ok_or("is no PEM")?;
    let key = match label {
        "PRIVATE KEY" => RsaKeyPair::from_pkcs8(&der),
        "RSA PRIVATE KEY" => RsaKeyPair::from_der(&der),
        _ => return Err("is no private key"),
    };
    let key = key.map_err(|_| "is no RSA key")?;
    let mut header = json!({"alg": "RS256", "typ": "JWT"});
    if let Some(id) = key_id {
        header["kid"] = json!(id);
    }
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let text = format!("{}.{}", part(&header), part(claims));
    let mut signature = vec![0; key.public().modulus_len()];
    key.sign(
        &RSA_PKCS1_SHA256,
        &SystemRandom::new(),
        text.as_bytes(),
        &mut signature,
    )
    .map_err(|_| "cannot sign")?;
    let signature = URL_SAFE_NO_PAD.encode(signature);
    Ok(Secret::new(format!("{text}.{signature}")))
}

/// Returns the second at which a token ends, if it says so.
pub(super) fn end(token: &str) -> Option<i64> {
    let claims = token.split('.').nth(1)?;
    let claims = URL_SAFE_NO_PAD.decode(claims.trim_end_matches('=')).ok()?;
    let claims: Value = serde_json::from_slice(&claims).ok()?;
    claims.get("exp")?.as_i64()
}

/// Returns the label and the bytes of the first block of a PEM text.
fn pem(text: &str) -> Option<(&str, Vec<u8>)> {
    let (_, rest) = text.split_once("-----BEGIN ")?;
    let (label, rest) = rest.split_once("-----")?;
    let (body, _) = rest.split_once("-----END ")?;
    let body: String = body.split_ascii_whitespace().collect();
    Some((label, STANDARD.decode(body).ok()?))
}

#[cfg(test)]
pub(in super::super) mod tests {
    use ring::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};

    use super::*;

    /// A key that was made for these tests and opens nothing.
    pub(in super::super::super) const KEY: &str = include_str!("testdata/key.pem");

    #[test]
    fn claims_are_signed_with_the_key() {
        let claims = json!({"iss": "me", "exp": 1_700_000_000});
        let token = sign(&Secret::new(KEY.to_owned()), Some("k1"), &claims).unwrap();
        let parts: Vec<&str> = token.reveal().split('.').collect();
        let decoded = |part: &str| URL_SAFE_NO_PAD.decode(part).unwrap();
        let header: Value = serde_json::from_slice(&decoded(parts[0])).unwrap();
        assert_eq!(header, json!({"alg": "RS256", "kid": "k1", "typ": "JWT"}));
        let told: Value = serde_json::from_slice(&decoded(parts[1])).unwrap();
        assert_eq!(told, claims);
        let (_, der) = pem(KEY).unwrap();
        let public = RsaKeyPair::from_pkcs8(&der)
            .unwrap()
            .public()
            .as_ref()
            .to_vec();
        UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, public)
            .verify(
                format!("{}.{}", parts[0], parts[1]).as_bytes(),
                &decoded(parts[2]),
            )
            .unwrap();
        assert_eq!(end(token.reveal()), Some(1_700_000_000));
    }

    #[test]
    fn what_is_no_key_is_told_without_it() {
        for (text, word) in [
            ("hunter2", "PEM"),
            (
                "-----BEGIN PRIVATE KEY-----\nhunter2!\n-----END PRIVATE KEY-----",
                "PEM",
            ),
            (
                "-----BEGIN PRIVATE KEY-----\naHVudGVyMg==\n-----END PRIVATE KEY-----",
                "RSA",
            ),
            (
                "-----BEGIN CERTIFICATE-----\naHVudGVyMg==\n-----END CERTIFICATE-----",
                "private",
            ),
        ] {
            let what = sign(&Secret::new(text.to_owned()), None, &json!({})).unwrap_err();
            assert!(what.contains(word), "{text}: {what}");
        }
        for token in ["", "a.b.c", "x", "e30.e30.x", "a.!.c"] {
            assert_eq!(end(token), None, "{token}");
        }
    }
}
