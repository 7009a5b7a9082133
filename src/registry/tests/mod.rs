//! The room against a registry with faults, on loopback. What needs no connection is tested beside the code.

mod actions;
mod append;
mod auth;
mod buckets;
mod certificates;
mod cloud;
mod config;
mod daemons;
mod hosts;
mod proxies;
mod pull;
mod push;
mod referrers;
mod remove;
mod soak;
mod trust;

use std::ffi::OsStr;
use std::io::{self, Read};
use std::path::Path;

use super::client::Client;
use super::environment::Environment;
use super::error::RegistryError;
use super::fake::FakeRegistry;
use super::reactor::Threads;
use super::retry::Tuning;
use crate::vocab::{Descriptor, Digest, ImageRef, RegistryOptions};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Returns a client that has no files, no variables, and no patience.
fn client() -> Client {
    client_with(&[], RegistryOptions::default(), Threads::Some, |_| {})
}

/// Returns a client with these variables, options and limits.
fn client_with(
    variables: &[(&'static str, &str)],
    options: RegistryOptions,
    threads: Threads,
    tune: impl FnOnce(&mut Tuning),
) -> Client {
    let variables: Vec<(&'static str, &OsStr)> = variables
        .iter()
        .map(|(name, value)| (*name, OsStr::new(*value)))
        .collect();
    let environment = Environment::of(Path::new("/nonexistent"), &variables);
    let mut tuning = Tuning::for_tests();
    tune(&mut tuning);
    Client::with(&options, threads, environment, tuning).unwrap()
}

/// Returns a client that knows one user at a registry.
fn client_of(fake: &FakeRegistry, user: &str, password: &str) -> Client {
    let text = account(&fake.host(), user, password);
    client_with(
        &[("DOCKER_AUTH_CONFIG", &text)],
        RegistryOptions::default(),
        Threads::Some,
        |_| {},
    )
}

fn account(key: &str, user: &str, password: &str) -> String {
    format!(r#"{{"auths": {{"{key}": {{"username": "{user}", "password": "{password}"}}}}}}"#)
}

fn image(fake: &FakeRegistry, rest: &str) -> ImageRef {
    format!("{}/{rest}", fake.host()).parse().unwrap()
}

/// Returns a manifest that says nothing, in a text of its own.
fn manifest(note: &str) -> Vec<u8> {
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","config":{{}},"layers":[],"annotations":{{"note":"{note}"}}}}"#
    )
    .into_bytes()
}

/// Returns bytes that do not repeat.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

fn descriptor(bytes: &[u8]) -> Descriptor {
    Descriptor {
        media_type: "application/octet-stream".to_owned(),
        digest: Digest::of(bytes),
        size: bytes.len() as u64,
    }
}

/// Reads a blob to its end.
fn pull(client: &Client, image: &ImageRef, descriptor: &Descriptor) -> Result<Vec<u8>, String> {
    let mut reader = client
        .blob(image, descriptor)
        .map_err(|error| told(&error))?;
    drain(&mut reader)
}

fn drain(reader: &mut dyn Read) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    match reader.read_to_end(&mut bytes) {
        Ok(_) => Ok(bytes),
        Err(error) => {
            // Never a good end after a bad one.
            assert!(reader.read(&mut [0; 16]).is_err());
            let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
            Err(inner.map_or(error.to_string(), told::<RegistryError>))
        }
    }
}

/// Returns everything that a user could get to see of an error.
fn told<E: std::error::Error + 'static>(error: &E) -> String {
    let mut text = format!("{error} | {error:?}");
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        text = format!("{text} | {cause}");
        next = cause.source();
    }
    if let Some(error) = (error as &dyn std::any::Any).downcast_ref::<RegistryError>() {
        text = format!("{text} | {}", error.hint().unwrap_or_default());
    }
    text
}

/// Returns what a user could get to see of an error, which holds no secret of the tests.
fn clean_told<E: std::error::Error + 'static>(error: &E) -> String {
    clean(told(error))
}

fn clean(text: String) -> String {
    assert!(!text.contains("hunter2"), "{text}");
    text
}

fn open_of(bytes: &[u8]) -> impl Fn(u64) -> io::Result<Box<dyn Read + Send>> + Sync + use<> {
    let bytes = bytes.to_vec();
    move |offset| Ok(Box::new(io::Cursor::new(bytes[offset as usize..].to_vec())) as _)
}

/// Counts the lines that have this part.
fn count_of(lines: &[String], part: &str) -> usize {
    lines.iter().filter(|line| line.contains(part)).count()
}

/// Returns the lines of the log without handshakes.
fn lines(fake: &FakeRegistry) -> Vec<String> {
    let mut lines = fake.take_lines();
    lines.retain(|line| !line.starts_with("TLS"));
    lines
}
