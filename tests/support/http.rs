//! A web server inside the test: files with their marks, folders, redirects, faults on command, and a log of what was asked.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// One request: method and path, and the headers in small letters.
#[derive(Clone, Debug)]
pub struct Asked {
    pub line: String,
    pub headers: Vec<(String, String)>,
}

impl Asked {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        let found = headers.find(|(found, _)| found == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// What is answered under one path.
#[derive(Clone, Debug, Default)]
pub struct Resource {
    pub status: u16,
    pub body: Vec<u8>,
    pub headers: Vec<(String, String)>,
    /// The connection ends after so many bytes of the body.
    pub cut: Option<usize>,
    /// No length is told.
    pub hides_length: bool,
}

impl Resource {
    pub fn new(body: impl Into<Vec<u8>>) -> Resource {
        Resource {
            status: 200,
            body: body.into(),
            ..Resource::default()
        }
    }

    pub fn header(mut self, name: &str, value: &str) -> Resource {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn redirect(to: &str) -> Resource {
        Resource {
            status: 302,
            ..Resource::default()
        }
        .header("Location", to)
    }

    pub fn status(status: u16) -> Resource {
        Resource {
            status,
            ..Resource::default()
        }
    }
}

#[derive(Default)]
struct State {
    resources: BTreeMap<String, Resource>,
    folders: Vec<(String, PathBuf)>,
    /// The value of `Authorization` without which nothing is given.
    authorization: Option<String>,
    log: Vec<Asked>,
}

pub struct FileServer {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl FileServer {
    pub fn start() -> FileServer {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let ends = Arc::new(AtomicBool::new(false));
        let (told, shared) = (ends.clone(), state.clone());
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if told.load(Ordering::SeqCst) {
                    return;
                }
                let shared = shared.clone();
                // One that goes away is its own business.
                std::thread::spawn(move || drop(stream.and_then(|one| answer(one, &shared))));
            }
        });
        FileServer {
            address,
            state,
            ends,
            thread: Some(thread),
        }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// `127.0.0.1:1234`
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    pub fn put(&self, path: &str, resource: Resource) {
        self.state().resources.insert(path.to_owned(), resource);
    }

    /// Serves the files of a folder under a prefix.
    pub fn folder(&self, prefix: &str, folder: PathBuf) {
        self.state().folders.push((prefix.to_owned(), folder));
    }

    pub fn demand(&self, authorization: &str) {
        self.state().authorization = Some(authorization.to_owned());
    }

    /// Returns what was asked since the last call.
    pub fn take_log(&self) -> Vec<Asked> {
        std::mem::take(&mut self.state().log)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for FileServer {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::SeqCst);
        // Wakes the thread.
        drop(TcpStream::connect(self.address));
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn answer(mut stream: TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut request = String::new();
    reader.read_line(&mut request)?;
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':') {
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    let mut words = request.split(' ');
    let (method, target) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    let asked = Asked {
        line: format!("{method} {target}"),
        headers,
    };
    let path = target.split('?').next().unwrap_or("").to_owned();
    let mut resource = {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        state.log.push(asked.clone());
        match (&state.authorization, asked.header("authorization")) {
            (Some(wanted), given) if given != Some(wanted) => {
                Resource::status(401).header("WWW-Authenticate", "Basic realm=\"test\"")
            }
            _ => find(&state, &path),
        }
    };
    let mark = |name: &str| {
        let mut headers = resource.headers.iter();
        let found = headers.find(|(found, _)| found.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.clone())
    };
    let is_known =
        |mark: Option<String>, asked: Option<&str>| mark.is_some() && mark.as_deref() == asked;
    if resource.status == 200
        && (is_known(mark("etag"), asked.header("if-none-match"))
            || is_known(mark("last-modified"), asked.header("if-modified-since")))
    {
        (resource.status, resource.cut) = (304, None);
        resource.body.clear();
        resource.hides_length = true;
    }
    let mut head = format!("HTTP/1.1 {} -\r\nConnection: close\r\n", resource.status);
    for (name, value) in &resource.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if !resource.hides_length {
        head.push_str(&format!("Content-Length: {}\r\n", resource.body.len()));
    }
    stream.write_all(format!("{head}\r\n").as_bytes())?;
    if method != "HEAD" {
        let end = resource.cut.unwrap_or(resource.body.len());
        stream.write_all(&resource.body[..end])?;
    }
    stream.flush()
}

fn find(state: &State, path: &str) -> Resource {
    if let Some(resource) = state.resources.get(path) {
        return resource.clone();
    }
    let is_plain = !path.split('/').any(|part| part == "..");
    for (prefix, folder) in &state.folders {
        if let Some(rest) = path.strip_prefix(prefix.as_str())
            && is_plain
            && let Ok(body) = std::fs::read(folder.join(rest.trim_start_matches('/')))
        {
            return Resource::new(body);
        }
    }
    Resource::status(404)
}
