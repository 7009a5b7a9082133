//! Requests that go through proxies, and those that do not.

use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use super::certificates::{AUTHORITY, SERVER, SERVER_KEY};
use super::config::Machine;
use super::hosts::tls_registry;
use super::*;

/// A proxy that leads every connection to one port, whatever it is told, and keeps what it was told.
pub(super) struct Tunnel {
    port: u16,
    heads: Arc<Mutex<Vec<Vec<String>>>>,
}

impl Tunnel {
    /// Starts a proxy that speaks CONNECT; without `password` (in base64 with the user's name) it refuses.
    pub(super) fn to(target: u16, password: Option<&'static str>) -> Tunnel {
        Tunnel::listen("127.0.0.1:0", target, move |stream, heads| {
            let mut reader = BufReader::new(stream.try_clone().ok()?);
            let mut head = Vec::new();
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).ok()?;
                let line = line.trim_end().to_owned();
                if line.is_empty() {
                    break;
                }
                head.push(line);
            }
            let wanted = password.map(|password| format!("basic {password}"));
            let is_let_in = wanted.is_none_or(|wanted| {
                head.iter().any(|line| {
                    let header = line.split_once(": ");
                    header.is_some_and(|(name, value)| {
                        name.eq_ignore_ascii_case("proxy-authorization")
                            && value.to_lowercase() == wanted.to_lowercase()
                    })
                })
            });
            let is_connect = head[0].starts_with("CONNECT ");
            heads.lock().unwrap().push(head);
            let answer = match is_let_in && is_connect {
                true => "HTTP/1.1 200 Fine\r\n\r\n",
                false => "HTTP/1.1 407 Who\r\nContent-Length: 0\r\n\r\n",
            };
            let mut stream = stream;
            stream.write_all(answer.as_bytes()).ok()?;
            (is_let_in && is_connect).then_some(())
        })
        .unwrap()
    }

    /// Starts something that only passes bytes on, at another address.
    pub(super) fn pass(address: &str, target: u16) -> io::Result<Tunnel> {
        Tunnel::listen(address, target, |_, _| Some(()))
    }

    fn listen(
        address: &str,
        target: u16,
        greet: impl Fn(&TcpStream, &Mutex<Vec<Vec<String>>>) -> Option<()> + Send + Sync + 'static,
    ) -> io::Result<Tunnel> {
        let listener = TcpListener::bind(address)?;
        let port = listener.local_addr()?.port();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let greet = Arc::new(greet);
        // Ends with the process: the test holds nothing that would be missed.
        std::thread::spawn({
            let heads = heads.clone();
            move || {
                for stream in listener.incoming().flatten() {
                    let (heads, greet) = (heads.clone(), greet.clone());
                    std::thread::spawn(move || {
                        if greet(&stream, &heads).is_some() {
                            splice(&stream, target);
                        }
                    });
                }
            }
        });
        Ok(Tunnel { port, heads })
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Returns the first lines of what was asked.
    fn lines(&self) -> Vec<String> {
        let heads = self.heads.lock().unwrap();
        heads.iter().map(|head| head[0].clone()).collect()
    }
}

fn splice(near: &TcpStream, target: u16) {
    let far = TcpStream::connect(("127.0.0.1", target)).unwrap();
    let copy = |from: &TcpStream, to: &TcpStream| {
        let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
        std::thread::spawn(move || {
            // Either side may end at any moment.
            drop(io::copy(&mut from, &mut to));
            drop(to.shutdown(Shutdown::Write));
        })
    };
    drop((copy(near, &far), copy(&far, near)));
}

#[test]
fn plain_requests_are_asked_of_the_proxy_except_for_loopback() {
    let (registry, proxy) = (FakeRegistry::start(), FakeRegistry::start());
    for fake in [&registry, &proxy] {
        fake.put_manifest("a", "1", MANIFEST, &manifest("a"));
    }
    let url = proxy.url();
    let machine = Machine::new();
    let client = machine.client_with(
        &[
            ("http_proxy", &url),
            ("HTTPS_PROXY", &url),
            ("NO_PROXY", "skipped.test"),
        ],
        RegistryOptions {
            insecure: vec!["skipped.test".to_owned()],
            mirrors: vec![("mirrored.test".to_owned(), "http://far.test".to_owned())],
            ..RegistryOptions::default()
        },
    );
    client.resolve(&image(&registry, "a:1")).unwrap();
    // Only a proxy can find this host.
    client
        .resolve(&"mirrored.test/a:1".parse().unwrap())
        .unwrap();
    client
        .resolve(&"skipped.test/a:1".parse().unwrap())
        .unwrap_err();
    assert_eq!(lines(&registry).len(), 1);
    let lines = lines(&proxy);
    assert_eq!(lines, ["HEAD http://far.test/v2/a/manifests/1 200"]);
}

#[test]
fn secure_requests_go_through_a_tunnel_with_the_proxy_s_password() {
    let registry = tls_registry(SERVER, SERVER_KEY, false);
    // me:hunter2
    let tunnel = Tunnel::to(registry.port(), Some("bWU6aHVudGVyMg=="));
    let machine = Machine::new();
    let authority = machine.write("ca.pem", AUTHORITY);
    let client = |password: &str| {
        let proxy = format!("http://me:{password}@127.0.0.1:{}", tunnel.port());
        machine.client_with(
            &[("HTTPS_PROXY", &proxy), ("SSL_CERT_FILE", &authority)],
            RegistryOptions::default(),
        )
    };
    // Neither the name nor the port leads to the registry here.
    let image: ImageRef = "reg.test:1/a:1".parse().unwrap();
    client("hunter2").resolve(&image).unwrap();
    assert_eq!(tunnel.lines(), ["CONNECT reg.test:1 HTTP/1.1"]);
    // What is for the proxy does not reach the registry.
    let log = registry.take_log();
    let entry = log.last().unwrap();
    assert_eq!(entry.header("proxy-authorization"), None);
    let error = client("swordfish").resolve(&image).unwrap_err();
    let said = told(&error);
    assert!(!said.contains("swordfish"), "{said}");
    assert!(said.contains("HTTPS_PROXY"), "{said}");
}

#[test]
fn a_proxy_that_makes_no_sense_is_not_gone_past() {
    let registry = tls_registry(SERVER, SERVER_KEY, false);
    let machine = Machine::new();
    machine.hosts(&["reg.test"]);
    let authority = machine.write("ca.pem", AUTHORITY);
    let image: ImageRef = format!("reg.test:{}/a:1", registry.port()).parse().unwrap();
    let client = |no_proxy: &str| {
        machine.client_with(
            &[
                ("HTTPS_PROXY", "ftp://me:hunter2@proxy"),
                ("no_proxy", no_proxy),
                ("SSL_CERT_FILE", &authority),
            ],
            RegistryOptions::default(),
        )
    };
    let said = told(&client("").resolve(&image).unwrap_err());
    assert!(
        said.contains("HTTPS_PROXY") && !said.contains("hunter2"),
        "{said}"
    );
    assert_eq!(lines(&registry), [""; 0]);
    client(&format!("reg.test:{}", registry.port()))
        .resolve(&image)
        .unwrap();
}
