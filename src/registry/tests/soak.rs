//! Everything at once: a third of all requests fails in some way, and no byte may be wrong.

use std::io::{self, Cursor, Read};

use super::super::fake::{Access, Fault, TokenRules};
use super::*;

/// Names a fault for every third request or so, the same ones in every run.
fn chaos() -> impl FnMut(&str, &str) -> Option<Fault> + Send {
    let mut state = 12345_u64;
    move |method, _| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let draw = (state >> 33) as usize;
        if draw % 10 >= 3 {
            return None;
        }
        let at = draw / 10 % 60_000;
        Some(match (draw / 1000 % 12, method) {
            (0, _) => Fault::Reset,
            (1, _) => Fault::Status(429),
            (2, _) => Fault::Status(500),
            (3, _) => Fault::Status(502),
            (4, _) => Fault::ExpireTokens,
            (5, _) => Fault::LoseAnswer,
            (6 | 7, "PATCH") => Fault::CutRequest(at),
            (6, _) => Fault::CutBody(at),
            (7, _) => Fault::TruncateBody(at),
            (8, _) => Fault::Drip(at.max(500)),
            (9, _) => Fault::Early(503),
            (10, "GET") => Fault::DamageBody,
            _ => Fault::ShortenBody(at),
        })
    }
}

#[test]
fn chaos_costs_requests_and_never_a_wrong_byte() {
    let fake = FakeRegistry::start_with(Access::Bearer(TokenRules {
        users: vec![("me".into(), "hunter2".into(), true)],
        ..TokenRules::default()
    }));
    let client = {
        let text = account(&fake.host(), "me", "hunter2");
        client_with(
            &[("DOCKER_AUTH_CONFIG", &text)],
            RegistryOptions::default(),
            Threads::Some,
            |tuning| tuning.tries = 8,
        )
    };
    fake.set_chaos(Some(Box::new(chaos())));
    let (mut pushed, mut pulled, mut failed, mut data, mut sent) = (0, 0, 0, 0, 0);
    for round in 0..60_usize {
        let bytes = noise(1000 + round * 4000)[round..].to_vec();
        let wanted = descriptor(&bytes);
        let to = image(&fake, &format!("a{}", round % 3));
        let open = |offset: u64| -> io::Result<Box<dyn Read + Send>> {
            Ok(Box::new(Cursor::new(bytes[offset as usize..].to_vec())))
        };
        fake.take_log();
        match client.push_blob(&to, &wanted, &open, &[], &|_| {}) {
            Ok(_) => {
                pushed += 1;
                let stored = fake.blob(&to.repository, &wanted.digest.to_string());
                assert!(stored.as_ref() == Some(&bytes), "{round}");
            }
            // Two tokens that end within one request are a refusal.
            Err(RegistryError::Denied { .. }) => failed += 1,
            Err(error) => panic!("{round}: {}", told(&error)),
        }
        data += bytes.len() as u64;
        sent += fake
            .take_log()
            .iter()
            .map(|entry| entry.received)
            .sum::<u64>();
        fake.put_blob(&to.repository, &bytes);
        match pull(&client, &to, &wanted) {
            Ok(found) => {
                pulled += 1;
                assert!(found == bytes, "{round}");
            }
            Err(error) => {
                failed += 1;
                assert!(error.contains("Mismatch"), "{round}: {error}");
            }
        }
        let document = manifest(&round.to_string());
        let tagged = to.with_tag(&round.to_string());
        if client.push_manifest(&tagged, MANIFEST, &document).is_ok() {
            assert!(
                client
                    .manifest(&tagged)
                    .is_ok_and(|fetched| fetched.bytes == document)
            );
        }
    }
    // A damaged blob cannot be mended, because its bytes are with the reader already; all else can.
    assert!(pushed >= 58 && pulled >= 50, "{pushed} {pulled} {failed}");
    assert!(sent * 10 <= data * 13, "{sent} of {data}");
}
