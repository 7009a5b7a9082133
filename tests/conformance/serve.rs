//! A loopback HTTP server over a folder, and git repositories in it.
//!
//! In: a folder. Out: its files at a URL. A file may begin with `!status 404` and `!header Name: value` lines, which are no part of
//! the body. It is read at each request, so that a script may change it. Answers 304 where the file's ETag or Last-Modified header
//! is the one that was asked with. What stands after `?` in a URL does not choose the file.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// A running server; dropping it ends it.
pub(crate) struct Server {
    address: SocketAddr,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(crate) fn start(folder: PathBuf) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let ends = Arc::new(AtomicBool::new(false));
        let told = ends.clone();
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if told.load(Ordering::SeqCst) {
                    return;
                }
                let folder = folder.clone();
                // One thread each: a client may hold a connection that it does not use. One that goes away is its own business.
                std::thread::spawn(move || {
                    drop(stream.and_then(|stream| answer(stream, &folder)));
                });
            }
        });
        Server {
            address,
            ends,
            thread: Some(thread),
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::SeqCst);
        // Wakes the thread.
        drop(TcpStream::connect(self.address));
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn answer(mut stream: TcpStream, folder: &Path) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut request = String::new();
    reader.read_line(&mut request)?;
    let mut asked = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':') {
            asked.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    let mut words = request.split(' ');
    let (method, target) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    let path = target
        .split('?')
        .next()
        .unwrap_or("")
        .trim_start_matches('/');
    let file = folder.join(path);
    let content = match fs::read(&file) {
        Ok(content) if !path.split('/').any(|part| part == "..") => content,
        _ => b"!status 404\nnot found\n".to_vec(),
    };
    let (status, headers, body) = split(&content);
    let is_known = |name: &str, condition: &str| {
        let value = |list: &[(String, String)], name: &str| {
            list.iter()
                .find(|(found, _)| found == name)
                .map(|(_, value)| value.clone())
        };
        value(&headers, name).is_some_and(|value_now| value(&asked, condition) == Some(value_now))
    };
    let unchanged =
        is_known("etag", "if-none-match") || is_known("last-modified", "if-modified-since");
    let (status, body) = if status == 200 && unchanged {
        (304, &[][..])
    } else {
        (status, body)
    };
    let mut head = format!("HTTP/1.1 {status} -\r\nConnection: close\r\n");
    for (name, value) in &headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if status != 304 {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes())?;
    if method != "HEAD" {
        stream.write_all(body)?;
    }
    stream.flush()
}

/// Takes the `!` lines off: status, headers with names in lower case, body.
fn split(content: &[u8]) -> (u16, Vec<(String, String)>, &[u8]) {
    let (mut status, mut headers, mut rest) = (200, Vec::new(), content);
    while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
        let line = String::from_utf8_lossy(&rest[..end]).into_owned();
        if let Some(number) = line.strip_prefix("!status ") {
            status = number.parse().expect("a status is a number");
        } else if let Some((name, value)) = line
            .strip_prefix("!header ")
            .and_then(|header| header.split_once(": "))
        {
            headers.push((name.to_ascii_lowercase(), value.to_owned()));
        } else {
            break;
        }
        rest = &rest[end + 1..];
    }
    (status, headers, rest)
}

/// Runs the script in a repository of its own, and puts a bare copy of it to where it is served from.
pub(crate) fn repository(folder: &Path, name: &str, script: &str) {
    let work = folder.join("git").join(name);
    fs::create_dir_all(&work).unwrap();
    let bare = folder.join("http/git").join(format!("{name}.git"));
    let script = format!(
        "git init -q -b main .\n{script}\ngit clone -q --mirror . '{bare}'\ngit -C '{bare}' update-server-info\n",
        bare = bare.display()
    );
    shell(&work, &script);
}

/// Runs a script, which must succeed, with a git that knows nobody's settings.
pub(crate) fn shell(directory: &Path, script: &str) {
    let mut command = Command::new("sh");
    command.args(["-ec", script]).current_dir(directory);
    command
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("LC_ALL", "C");
    for who in ["AUTHOR", "COMMITTER"] {
        command
            .env(format!("GIT_{who}_NAME"), "name")
            .env(format!("GIT_{who}_EMAIL"), "name@example.com")
            .env(format!("GIT_{who}_DATE"), "2001-02-03T04:05:06Z");
    }
    let ran = command.output().unwrap();
    assert!(
        ran.status.success(),
        "the script failed: {script}\n{}",
        String::from_utf8_lossy(&ran.stderr)
    );
}

/// Shows that what is put into the folder comes back as told.
pub(crate) fn serves_what_it_is_given() {
    let folder = tempfile::tempdir().unwrap();
    let http = folder.path().join("http");
    fs::create_dir_all(http.join("d")).unwrap();
    fs::write(
        http.join("d/f"),
        "!header ETag: \"1\"\n!header X-Y: a: b\nbody\n",
    )
    .unwrap();
    fs::write(http.join("gone"), "!status 410\n").unwrap();
    let server = Server::start(http);
    let check = |request: &str, expected: &str| {
        let mut stream = TcpStream::connect(server.address).unwrap();
        write!(stream, "{request}\r\n\r\n").unwrap();
        let mut found = String::new();
        std::io::Read::read_to_string(&mut stream, &mut found).unwrap();
        assert_eq!(found.replace("\r\n", "|"), expected, "{request}");
    };
    let close = "Connection: close|";
    check(
        "GET /d/f?query HTTP/1.1",
        &format!("HTTP/1.1 200 -|{close}etag: \"1\"|x-y: a: b|Content-Length: 5||body\n"),
    );
    check(
        "GET /d/f HTTP/1.1\r\nIf-None-Match: \"1\"",
        &format!("HTTP/1.1 304 -|{close}etag: \"1\"|x-y: a: b||"),
    );
    check(
        "HEAD /d/f HTTP/1.1\r\nIf-None-Match: \"2\"",
        &format!("HTTP/1.1 200 -|{close}etag: \"1\"|x-y: a: b|Content-Length: 5||"),
    );
    check(
        "GET /gone HTTP/1.1",
        &format!("HTTP/1.1 410 -|{close}Content-Length: 0||"),
    );
    check(
        "GET /../secret HTTP/1.1",
        &format!("HTTP/1.1 404 -|{close}Content-Length: 10||not found\n"),
    );
    if crate::support::power::program("git").is_none() {
        return crate::support::power::not_run("needs git");
    }
    let script = "echo f > f && git add f && git commit -q -m one && git tag v1";
    repository(folder.path(), "r", script);
    for url in [
        format!("{}/git/r.git", server.url()),
        format!("file://{}/http/git/r.git", folder.path().display()),
    ] {
        shell(
            folder.path(),
            &format!(
                "rm -rf clone && git clone -q -b v1 {url} clone && test \"$(cat clone/f)\" = f"
            ),
        );
    }
}
