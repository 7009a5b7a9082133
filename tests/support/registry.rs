//! A registry inside the test: HTTP/1.1 on a loopback port, everything in memory, every fault on command.
//!
//! It speaks the distribution API as far as clients use it (manifests, blobs with ranges, uploads of all kinds, mounts, tags, a
//! token service), keeps a log of what was asked, and breaks exactly what a test tells it to break. It needs no crate but `sha2`,
//! `base64` and `serde_json`, so that it can be included by path in unit tests and in integration tests alike.
//!
//! What it is not: fast, complete, or lenient. Where a real registry forgives, it answers with an error.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test takes from it what it needs"
)]

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use base64::Engine as _;
use sha2::Digest as _;

/// Returns `sha256:` and the hex digits of some bytes.
pub fn digest_of(bytes: &[u8]) -> String {
    let mut text = "sha256:".to_owned();
    for byte in sha2::Sha256::digest(bytes) {
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

/// Who may do what.
#[derive(Clone, Default)]
pub enum Access {
    #[default]
    Open,
    /// One user, for everything.
    Basic {
        user: String,
        password: String,
    },
    Bearer(TokenRules),
}

/// How the token service behaves.
#[derive(Clone)]
pub struct TokenRules {
    /// Names, passwords, and whether they may push.
    pub users: Vec<(String, String, bool)>,
    /// Refresh tokens of the first user.
    pub identity_tokens: Vec<String>,
    /// Anybody may pull.
    pub public: bool,
    /// The ways in which tokens can be bought.
    pub takes_get: bool,
    pub takes_post: bool,
    /// A token for more than one repository is refused.
    pub one_scope_only: bool,
    /// Who may push may delete as well.
    pub grants_deletion: bool,
    /// What is said of a token's lifetime.
    pub expires_in: Option<u64>,
    /// Where challenges send clients; its own service if `None`.
    pub realm: Option<String>,
}

impl Default for TokenRules {
    fn default() -> TokenRules {
        TokenRules {
            users: Vec::new(),
            identity_tokens: Vec::new(),
            public: true,
            takes_get: true,
            takes_post: true,
            one_scope_only: false,
            grants_deletion: true,
            expires_in: Some(300),
            realm: None,
        }
    }
}

/// Habits in which registries differ.
#[derive(Clone, Debug, Default)]
pub struct Habits {
    /// Blobs lie elsewhere: a GET is redirected to this base URL, `/storage/DIGEST` below it.
    pub redirects_blobs_to: Option<String>,
    /// Ranges are ignored.
    pub ignores_ranges: bool,
    /// Uploads in pieces are refused with this status.
    pub refuses_patch: Option<u16>,
    /// A mount opens an upload instead.
    pub never_mounts: bool,
    /// The state of an upload cannot be asked for.
    pub hides_upload_state: bool,
    /// An upload that was cut is lost.
    pub forgets_cut_uploads: bool,
    /// Of one PATCH no more than this is kept.
    pub keeps_of_patch: Option<usize>,
    /// Locations begin with this (`http://host:port`) instead of being relative.
    pub locations_begin_with: Option<String>,
    /// Manifests come without `Docker-Content-Digest`.
    pub hides_digests: bool,
    /// All manifests have this media type.
    pub content_type: Option<String>,
    /// Tags on one page.
    pub tags_per_page: Option<usize>,
    /// Added to the challenge's scope.
    pub extra_scope: Option<String>,
    /// Bodies without a length: the connection's end is the body's.
    pub hides_lengths: bool,
    /// A tag that stands for something else is not moved: this status, these words.
    pub immutable_tags: Option<(u16, String)>,
    /// Tags are listed backwards, all of them.
    pub lists_tags_backwards: bool,
    /// Tags are not listed: this status.
    pub hides_tags: Option<u16>,
    /// What is attached to a manifest is listed, so many on a page.
    pub lists_referrers: Option<usize>,
    /// Requests with a larger body are refused with 413.
    pub largest_body: Option<usize>,
    /// What came of a PATCH that was cut is thrown away; what whole ones brought stays.
    pub drops_cut_pieces: bool,
    /// Nothing is deleted: this status.
    pub refuses_deletion: Option<u16>,
    /// Tags are not deleted one by one: this status.
    pub refuses_tag_deletion: Option<u16>,
    /// A manifest is not deleted as long as tags stand for it: this status.
    pub wants_tags_deleted_first: Option<u16>,
}

/// Something that requests wait at until a test opens it.
#[derive(Clone, Debug, Default)]
pub struct Gate(Arc<GateState>);

#[derive(Debug, Default)]
struct GateState {
    /// Who has come, and whether it is open.
    state: Mutex<(usize, bool)>,
    changed: Condvar,
}

impl Gate {
    /// Lets everybody through, now and later.
    pub fn open(&self) {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.1 = true;
        self.0.changed.notify_all();
    }

    /// Waits until so many have come.
    pub fn wait_for(&self, count: usize) {
        let state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        drop(
            self.0
                .changed
                .wait_while(state, |(come, _)| *come < count)
                .unwrap_or_else(PoisonError::into_inner),
        );
    }

    fn pass(&self) {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.0 += 1;
        self.0.changed.notify_all();
        drop(
            self.0
                .changed
                .wait_while(state, |(_, open)| !*open)
                .unwrap_or_else(PoisonError::into_inner),
        );
    }
}

/// What goes wrong with one request.
#[derive(Clone, Debug)]
pub enum Fault {
    /// An answer after the whole request was read.
    Status(u16),
    /// The same with `Retry-After`.
    RetryAfter(u16, String),
    /// The same with a body.
    Says(u16, String),
    /// An answer before the request's body is read; then the connection ends.
    Early(u16),
    /// The connection is reset at once.
    Reset,
    /// The connection is reset after this many bytes of the request's body.
    CutRequest(usize),
    /// The request's body loses a bit on its way.
    DamageRequest,
    /// The answer gets lost: everything is done, and the connection is reset.
    LoseAnswer,
    /// The connection is reset after this many bytes of the answer's body.
    CutBody(usize),
    /// The connection ends in good order after this many bytes of the answer's body.
    TruncateBody(usize),
    /// The answer's body is shorter, and says so.
    ShortenBody(usize),
    /// The answer's body has this added, and says so.
    LengthenBody(usize),
    /// One bit of the answer's body is wrong.
    DamageBody,
    /// The answer's body comes in pieces of this many bytes.
    Drip(usize),
    /// After this many bytes of the answer's body nothing more comes.
    StallBody(usize),
    /// Nothing comes.
    Stall,
    /// All tokens end before the request is looked at.
    ExpireTokens,
    /// The request's `Authorization` is said back in the error.
    Echo,
    /// A redirect to this URL.
    Redirect(u16, String),
    /// The request is done when the gate opens.
    Hold(Gate),
    /// The request is done, and its answer comes when the gate opens.
    HoldAnswer(Gate),
    /// No fault: takes its place in the queue.
    Pass,
}

/// One request as the log has it.
#[derive(Clone, Debug)]
pub struct Entry {
    /// `TLS` for a handshake that came to a plain port.
    pub method: String,
    /// Path and query.
    pub target: String,
    pub headers: Vec<(String, String)>,
    /// 0 if no answer was sent.
    pub status: u16,
    /// Bytes of the request's body that were read.
    pub received: u64,
    /// Bytes of the answer's body that were sent.
    pub sent: u64,
}

impl Entry {
    /// Returns a header by its lower-case name.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(found, _)| found == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Returns `METHOD target status`.
    pub fn line(&self) -> String {
        format!("{} {} {}", self.method, self.target, self.status)
    }
}

/// Both directions of a connection.
pub trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// Puts something around each connection, such as TLS.
pub type Wrap = Box<dyn Fn(TcpStream) -> io::Result<Box<dyn Stream>> + Send + Sync>;

/// Looks at each request (method, target) and may name a fault; asked where the queue has none.
pub type Chaos = Box<dyn FnMut(&str, &str) -> Option<Fault> + Send>;

/// A running registry; it ends when it is dropped.
pub struct FakeRegistry {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

struct Shared {
    base: String,
    access: Access,
    wrap: Option<Wrap>,
    stopped: AtomicBool,
    state: Mutex<State>,
}

/// Things of repositories, by repository and by a name in it.
type Named<T> = BTreeMap<(String, String), T>;

#[derive(Default)]
struct State {
    habits: Habits,
    blobs: Named<Arc<Vec<u8>>>,
    /// By tag and by digest: media type, bytes.
    manifests: Named<(String, Arc<Vec<u8>>)>,
    uploads: BTreeMap<String, Vec<u8>>,
    /// Token to the rights that it carries: repository, action.
    tokens: BTreeMap<String, Vec<(String, String)>>,
    last_number: u64,
    faults: VecDeque<(String, String, Fault)>,
    chaos: Option<Chaos>,
    log: Vec<Entry>,
    /// Open ones by number: a connection is reset only when no descriptor of it is left.
    connections: BTreeMap<u64, TcpStream>,
    threads: Vec<JoinHandle<()>>,
}

impl FakeRegistry {
    /// Starts a registry that lets everybody do everything.
    pub fn start() -> FakeRegistry {
        FakeRegistry::start_with(Access::Open)
    }

    /// Starts a registry.
    pub fn start_with(access: Access) -> FakeRegistry {
        FakeRegistry::start_wrapped(access, "http", None)
    }

    /// Starts a registry whose connections are wrapped.
    pub fn start_wrapped(access: Access, scheme: &str, wrap: Option<Wrap>) -> FakeRegistry {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port is free");
        let address = listener.local_addr().expect("the socket is bound");
        let shared = Arc::new(Shared {
            base: format!("{scheme}://{address}"),
            access,
            wrap,
            stopped: AtomicBool::new(false),
            state: Mutex::default(),
        });
        let acceptor = std::thread::spawn({
            let shared = shared.clone();
            move || accept(&listener, &shared)
        });
        FakeRegistry {
            address,
            shared,
            acceptor: Some(acceptor),
        }
    }

    /// Returns `127.0.0.1:PORT`.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Returns `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        self.shared.base.clone()
    }

    /// Changes habits.
    pub fn habits(&self, change: impl FnOnce(&mut Habits)) {
        change(&mut self.shared.state().habits);
    }

    /// Stores a blob and returns its digest.
    pub fn put_blob(&self, repository: &str, bytes: &[u8]) -> String {
        let digest = digest_of(bytes);
        self.put_blob_as(repository, &digest, bytes);
        digest
    }

    /// Stores a blob under any digest.
    pub fn put_blob_as(&self, repository: &str, digest: &str, bytes: &[u8]) {
        self.shared.state().blobs.insert(
            (repository.to_owned(), digest.to_owned()),
            Arc::new(bytes.to_vec()),
        );
    }

    /// Returns a blob.
    pub fn blob(&self, repository: &str, digest: &str) -> Option<Vec<u8>> {
        let key = (repository.to_owned(), digest.to_owned());
        self.shared
            .state()
            .blobs
            .get(&key)
            .map(|bytes| bytes.to_vec())
    }

    /// Stores a manifest under a reference and under its digest, which is returned.
    pub fn put_manifest(
        &self,
        repository: &str,
        reference: &str,
        media_type: &str,
        bytes: &[u8],
    ) -> String {
        let digest = digest_of(bytes);
        let manifest = (media_type.to_owned(), Arc::new(bytes.to_vec()));
        let mut state = self.shared.state();
        for reference in [reference, &digest] {
            state.manifests.insert(
                (repository.to_owned(), reference.to_owned()),
                manifest.clone(),
            );
        }
        digest
    }

    /// Returns a manifest and its media type.
    pub fn manifest(&self, repository: &str, reference: &str) -> Option<(String, Vec<u8>)> {
        let key = (repository.to_owned(), reference.to_owned());
        let state = self.shared.state();
        let (media_type, bytes) = state.manifests.get(&key)?;
        Some((media_type.clone(), bytes.to_vec()))
    }

    /// Returns a repository's tags.
    pub fn tags(&self, repository: &str) -> Vec<String> {
        let state = self.shared.state();
        let names = state.manifests.keys();
        names
            .filter(|(known, reference)| known == repository && !reference.starts_with("sha256:"))
            .map(|(_, tag)| tag.clone())
            .collect()
    }

    /// Makes the next request with this method (empty: any) and this part of a target go wrong.
    pub fn fault(&self, method: &str, part: &str, fault: Fault) {
        self.shared
            .state()
            .faults
            .push_back((method.to_owned(), part.to_owned(), fault));
    }

    /// The same, many times.
    pub fn faults(&self, method: &str, part: &str, fault: &Fault, times: usize) {
        for _ in 0..times {
            self.fault(method, part, fault.clone());
        }
    }

    /// Returns how many faults have not happened.
    pub fn faults_left(&self) -> usize {
        self.shared.state().faults.len()
    }

    /// Lets a function break requests.
    pub fn set_chaos(&self, chaos: Option<Chaos>) {
        self.shared.state().chaos = chaos;
    }

    /// Ends every token.
    pub fn expire_tokens(&self) {
        self.shared.state().tokens.clear();
    }

    /// Returns and forgets what was asked.
    pub fn take_log(&self) -> Vec<Entry> {
        std::mem::take(&mut self.shared.state().log)
    }

    /// Returns and forgets what was asked, as lines.
    pub fn take_lines(&self) -> Vec<String> {
        self.take_log().iter().map(Entry::line).collect()
    }

    /// Returns how many uploads are open.
    pub fn open_uploads(&self) -> usize {
        self.shared.state().uploads.len()
    }
}

impl Drop for FakeRegistry {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        // Wakes the acceptor; if that fails it is gone already.
        drop(TcpStream::connect(self.address));
        if let Some(acceptor) = self.acceptor.take() {
            drop(acceptor.join());
        }
        let (connections, threads) = {
            let mut state = self.shared.state();
            (
                std::mem::take(&mut state.connections),
                std::mem::take(&mut state.threads),
            )
        };
        for connection in connections.values() {
            drop(connection.shutdown(Shutdown::Both));
        }
        for thread in threads {
            drop(thread.join());
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for connection in listener.incoming() {
        if shared.stopped.load(Ordering::SeqCst) {
            return;
        }
        let Ok(connection) = connection else { continue };
        // Head and body are written apart; without this the second waits for the peer's delayed acknowledgement.
        drop(connection.set_nodelay(true));
        let mut state = shared.state();
        state.last_number += 1;
        let number = state.last_number;
        let copy = connection.try_clone().expect("a descriptor is free");
        state.connections.insert(number, copy);
        let shared = shared.clone();
        state.threads.push(std::thread::spawn(move || {
            // The peer may go at any moment: that is what many tests are about.
            drop(serve(&shared, connection, number));
        }));
    }
}

/// Ends a connection with a reset.
fn reset(control: &TcpStream) {
    rustix::net::sockopt::set_socket_linger(control, Some(Duration::ZERO))
        .expect("the socket is a TCP socket");
}

struct Request {
    method: String,
    target: String,
    path: String,
    query: BTreeMap<String, String>,
    headers: Vec<(String, String)>,
}

impl Request {
    fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(found, _)| found == name);
        found.map(|(_, value)| value.as_str())
    }

    fn argument(&self, name: &str) -> Option<&str> {
        self.query.get(name).map(String::as_str)
    }
}

struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Answer {
    fn new(status: u16) -> Answer {
        Answer {
            status,
            headers: Vec::new(),
            body: Vec::new(),
        }
    }

    fn with(mut self, name: &str, value: impl Into<String>) -> Answer {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    fn body(mut self, body: &[u8]) -> Answer {
        self.body = body.to_vec();
        self
    }

    fn error(status: u16, code: &str) -> Answer {
        let body = format!(r#"{{"errors":[{{"code":"{code}","message":"the fake says so"}}]}}"#);
        Answer::new(status)
            .with("Content-Type", "application/json")
            .body(body.as_bytes())
    }
}

/// What is left of a request's body.
struct Body {
    left: Option<u64>,
    chunked: bool,
}

fn serve(shared: &Arc<Shared>, connection: TcpStream, number: u64) -> io::Result<()> {
    let control = connection.try_clone()?;
    let served = serve_all(shared, connection, &control);
    shared.state().connections.remove(&number);
    served
}

fn serve_all(shared: &Arc<Shared>, connection: TcpStream, control: &TcpStream) -> io::Result<()> {
    let stream: Box<dyn Stream> = match &shared.wrap {
        Some(wrap) => wrap(connection)?,
        None => Box::new(connection),
    };
    let mut stream = BufReader::new(stream);
    loop {
        if stream.fill_buf()?.first() == Some(&0x16) {
            shared.state().log.push(Entry {
                method: "TLS".to_owned(),
                target: String::new(),
                headers: Vec::new(),
                status: 400,
                received: 0,
                sent: 0,
            });
            let text = "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n";
            stream.get_mut().write_all(text.as_bytes())?;
            return control.shutdown(Shutdown::Both);
        }
        let Some(request) = read_head(&mut stream)? else {
            return Ok(());
        };
        let mut exchange = Serving {
            shared,
            control,
            stream: &mut stream,
            entry: Entry {
                method: request.method.clone(),
                target: request.target.clone(),
                headers: request.headers.clone(),
                status: 0,
                received: 0,
                sent: 0,
            },
        };
        let stays = exchange.run(&request);
        let entry = exchange.entry;
        if entry.status == 0 {
            shared.state().log.push(entry);
        }
        if !stays? {
            // Lets the peer read what was sent before the socket goes.
            drop(control.shutdown(Shutdown::Write));
            return Ok(());
        }
    }
}

fn read_head(stream: &mut BufReader<Box<dyn Stream>>) -> io::Result<Option<Request>> {
    let mut line = String::new();
    if stream.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_ascii_whitespace();
    let (Some(method), Some(target)) = (words.next(), words.next()) else {
        return Ok(None);
    };
    let (method, target) = (method.to_owned(), target.to_owned());
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':') {
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    // A proxy's client sends whole URLs.
    let local = match target.split_once("://") {
        Some((_, rest)) => rest.split_once('/').map_or("/", |(_, path)| path),
        None => target.trim_start_matches('/'),
    };
    let (path, query) = local.split_once('?').unwrap_or((local, ""));
    Ok(Some(Request {
        path: format!("/{path}"),
        query: pairs(query),
        method,
        target,
        headers,
    }))
}

/// Decodes a query or a form; values of one name are joined with blanks.
fn pairs(text: &str) -> BTreeMap<String, String> {
    let mut pairs: BTreeMap<String, String> = BTreeMap::new();
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = decoded(value);
        pairs
            .entry(decoded(name))
            .and_modify(|all| {
                all.push(' ');
                all.push_str(&value);
            })
            .or_insert(value);
    }
    pairs
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let hex: String = rest.by_ref().take(2).map(char::from).collect();
                bytes.push(u8::from_str_radix(&hex, 16).unwrap_or(b'?'));
            }
            byte => bytes.push(byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// One request being served.
struct Serving<'a> {
    shared: &'a Arc<Shared>,
    control: &'a TcpStream,
    stream: &'a mut BufReader<Box<dyn Stream>>,
    entry: Entry,
}

impl Serving<'_> {
    /// Returns whether the connection stays.
    fn run(&mut self, request: &Request) -> io::Result<bool> {
        let fault = self.next_fault(request);
        let mut body = Body {
            left: request
                .header("content-length")
                .and_then(|text| text.parse().ok()),
            chunked: request
                .header("transfer-encoding")
                .is_some_and(|text| text.contains("chunked")),
        };
        match &fault {
            Fault::Reset => {
                reset(self.control);
                return Ok(false);
            }
            Fault::Stall => return self.stall(),
            Fault::Early(status) => {
                self.answer(request, Answer::error(*status, "EARLY"), &Fault::Pass)?;
                self.control.shutdown(Shutdown::Write)?;
                // What the peer still sends would turn the end into a reset, and the answer might be lost.
                return self.stall();
            }
            Fault::CutRequest(count) => {
                let mut kept = Vec::new();
                self.read_body(&mut body, Some(*count as u64), |piece| {
                    kept.extend_from_slice(piece);
                })?;
                self.keep_cut(request, &kept);
                reset(self.control);
                return Ok(false);
            }
            Fault::ExpireTokens => self.shared.state().tokens.clear(),
            Fault::Hold(gate) => gate.pass(),
            _ => {}
        }
        let mut sent = Vec::new();
        self.read_body(&mut body, None, |piece| sent.extend_from_slice(piece))?;
        if matches!(fault, Fault::DamageRequest) && !sent.is_empty() {
            let middle = sent.len() / 2;
            sent[middle] ^= 1;
        }
        let answer = match &fault {
            Fault::Status(status) => Answer::error(*status, "FAULT"),
            Fault::RetryAfter(status, after) => {
                Answer::error(*status, "TOOMANYREQUESTS").with("Retry-After", after)
            }
            Fault::Says(status, text) => Answer::new(*status).body(text.as_bytes()),
            Fault::Redirect(status, url) => Answer::new(*status).with("Location", url),
            Fault::Echo => {
                let header = request.header("authorization").unwrap_or_default();
                Answer::new(403).body(
                    format!(r#"{{"errors":[{{"code":"DENIED","message":"you sent {header}"}}]}}"#)
                        .as_bytes(),
                )
            }
            _ => self.shared.handle(request, &sent),
        };
        if let Fault::HoldAnswer(gate) = &fault {
            gate.pass();
        }
        if matches!(fault, Fault::LoseAnswer) {
            reset(self.control);
            return Ok(false);
        }
        self.answer(request, answer, &fault)
    }

    fn next_fault(&self, request: &Request) -> Fault {
        let mut state = self.shared.state();
        let found = state.faults.iter().position(|(method, part, _)| {
            (method.is_empty() || *method == request.method) && request.target.contains(part)
        });
        if let Some(at) = found {
            let (_, _, fault) = state.faults.remove(at).expect("the place was just found");
            return fault;
        }
        match &mut state.chaos {
            Some(chaos) => chaos(&request.method, &request.target).unwrap_or(Fault::Pass),
            None => Fault::Pass,
        }
    }

    /// Does nothing until the peer goes.
    fn stall(&mut self) -> io::Result<bool> {
        io::copy(self.stream, &mut io::sink())?;
        Ok(false)
    }

    fn read_body(
        &mut self,
        body: &mut Body,
        most: Option<u64>,
        mut take: impl FnMut(&[u8]),
    ) -> io::Result<()> {
        let mut most = most.unwrap_or(u64::MAX);
        let mut buffer = vec![0; 16 * 1024];
        loop {
            if body.chunked && body.left.is_none_or(|left| left == 0) {
                let mut line = String::new();
                self.stream.read_line(&mut line)?;
                let size = line.trim().split(';').next().unwrap_or_default();
                if size.is_empty() {
                    // The end of the piece before.
                    continue;
                }
                let size = u64::from_str_radix(size, 16).map_err(io::Error::other)?;
                if size == 0 {
                    self.stream.read_line(&mut String::new())?;
                    return Ok(());
                }
                body.left = Some(size);
            }
            let left = body.left.unwrap_or(0).min(most).min(buffer.len() as u64);
            if left == 0 {
                return Ok(());
            }
            let count = self.stream.read(&mut buffer[..left as usize])?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.entry.received += count as u64;
            most -= count as u64;
            body.left = body.left.map(|left| left - count as u64);
            take(&buffer[..count]);
        }
    }

    /// Keeps what came of an upload before the cut, as registries do.
    fn keep_cut(&self, request: &Request, kept: &[u8]) {
        let mut state = self.shared.state();
        let Some((_, id)) = request.path.rsplit_once("/blobs/uploads/") else {
            return;
        };
        if state.habits.drops_cut_pieces {
            return;
        }
        if state.habits.forgets_cut_uploads {
            state.uploads.remove(id);
        } else if request.method == "PATCH"
            && let Some(upload) = state.uploads.get_mut(id)
        {
            upload.extend_from_slice(kept);
        }
    }

    fn answer(&mut self, request: &Request, answer: Answer, fault: &Fault) -> io::Result<bool> {
        let mut body = answer.body;
        match fault {
            Fault::ShortenBody(count) => body.truncate(*count),
            Fault::LengthenBody(count) => body.extend(vec![b'!'; *count]),
            Fault::DamageBody if !body.is_empty() => {
                let middle = body.len() / 2;
                body[middle] ^= 1;
            }
            _ => {}
        }
        let hides_length = self.shared.state().habits.hides_lengths && request.method == "GET";
        let mut head = format!("HTTP/1.1 {} Fake\r\n", answer.status);
        for (name, value) in &answer.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if hides_length {
            head.push_str("Connection: close\r\n");
        } else if answer.status != 204 {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        if request.method == "HEAD" || answer.status == 204 {
            body.clear();
        }
        let (most, piece) = match fault {
            Fault::CutBody(count) | Fault::TruncateBody(count) | Fault::StallBody(count) => {
                ((*count).min(body.len()), usize::MAX)
            }
            Fault::Drip(piece) => (body.len(), (*piece).max(1)),
            _ => (body.len(), usize::MAX),
        };
        self.entry.status = answer.status;
        self.entry.sent = most as u64;
        // In the log before the peer can know: a test that has its answer finds the request.
        self.shared.state().log.push(self.entry.clone());
        self.stream.get_mut().write_all(head.as_bytes())?;
        for piece in body[..most].chunks(piece.min(most.max(1))) {
            self.stream.get_mut().write_all(piece)?;
            self.stream.get_mut().flush()?;
        }
        self.stream.get_mut().flush()?;
        match fault {
            Fault::CutBody(_) => {
                reset(self.control);
                Ok(false)
            }
            Fault::TruncateBody(_) => Ok(false),
            Fault::StallBody(_) => self.stall(),
            _ => Ok(!hides_length),
        }
    }
}

impl Shared {
    fn handle(&self, request: &Request, body: &[u8]) -> Answer {
        if request.path == "/token" {
            return self.token(request, body);
        }
        let method = request.method.as_str();
        if let Some(digest) = request.path.strip_prefix("/storage/") {
            let state = self.state();
            let found = state.blobs.iter().find(|((_, found), _)| found == digest);
            return match found {
                Some((_, bytes)) => ranged(request, &state.habits, bytes),
                None => Answer::error(404, "NO_SUCH_KEY"),
            };
        }
        let Some(rest) = request.path.strip_prefix("/v2/") else {
            return Answer::error(404, "NO_SUCH_PAGE");
        };
        if rest.is_empty() {
            return self.allow(request, None).unwrap_or(Answer::new(200));
        }
        let parts = |middle: &str| {
            rest.rsplit_once(middle)
                .map(|(name, last)| (name.to_owned(), last.to_owned()))
        };
        let is_write = !matches!(method, "GET" | "HEAD");
        let (kind, (name, last)) = if let Some(parts) = parts("/blobs/uploads/") {
            ("upload", parts)
        } else if let Some(parts) = parts("/blobs/") {
            ("blob", parts)
        } else if let Some(parts) = parts("/manifests/") {
            ("manifest", parts)
        } else if let Some(parts) = parts("/referrers/") {
            ("referrers", parts)
        } else if let Some(name) = rest.strip_suffix("/tags/list") {
            ("tags", (name.to_owned(), String::new()))
        } else {
            return Answer::error(404, "NO_SUCH_PAGE");
        };
        let action = match (kind, method) {
            ("manifest", "DELETE") => "delete",
            _ if is_write || kind == "upload" => "push",
            _ => "pull",
        };
        if let Some(refusal) = self.allow(request, Some((&name, action))) {
            return refusal;
        }
        match (kind, method) {
            ("blob", "GET" | "HEAD") => self.blob(request, &name, &last),
            ("manifest", "GET" | "HEAD") => self.read_manifest(&name, &last),
            ("manifest", "PUT") => self.write_manifest(request, &name, &last, body),
            ("manifest", "DELETE") => self.delete_manifest(&name, &last),
            ("tags", "GET") => self.tags(request, &name),
            ("referrers", "GET") => self.referrers(request, &name, &last),
            ("upload", "POST") => self.begin_upload(request, &name),
            ("upload", _) => self.go_on_with_upload(request, &name, &last, body),
            _ => Answer::error(405, "UNSUPPORTED"),
        }
    }

    /// Returns a refusal, or nothing.
    fn allow(&self, request: &Request, wanted: Option<(&str, &str)>) -> Option<Answer> {
        let shown = request.header("authorization").unwrap_or_default();
        match &self.access {
            Access::Open => None,
            Access::Basic { user, password } => {
                if shown == format!("Basic {}", basic(user, password)) {
                    return None;
                }
                Some(
                    Answer::error(401, "UNAUTHORIZED")
                        .with("WWW-Authenticate", r#"Basic realm="fake, inc""#),
                )
            }
            Access::Bearer(rules) => {
                let state = self.state();
                let rights = shown
                    .strip_prefix("Bearer ")
                    .and_then(|token| state.tokens.get(token));
                let is_enough = rights.is_some_and(|rights| {
                    let has = |name: &str, action: &str| {
                        rights.contains(&(name.to_owned(), action.to_owned()))
                    };
                    let mount_is_fine = request.argument("from").is_none_or(|from| {
                        has(from, "pull") || request.argument("mount").is_none()
                    });
                    wanted.is_none_or(|(name, action)| has(name, action)) && mount_is_fine
                });
                if is_enough {
                    return None;
                }
                let realm = match &rules.realm {
                    Some(realm) => realm.clone(),
                    None => format!("{}/token", self.base),
                };
                let mut scope = match wanted {
                    Some((name, "push")) => format!("repository:{name}:pull,push"),
                    Some((name, action)) => format!("repository:{name}:{action}"),
                    None => String::new(),
                };
                if let Some(extra) = &state.habits.extra_scope {
                    scope = format!("{scope} {extra}");
                }
                Some(Answer::error(401, "UNAUTHORIZED").with(
                    "WWW-Authenticate",
                    format!(
                        r#"Negotiate, Bearer realm="{realm}",service="fake, inc",scope="{scope}""#
                    ),
                ))
            }
        }
    }

    fn token(&self, request: &Request, body: &[u8]) -> Answer {
        let Access::Bearer(rules) = &self.access else {
            return Answer::error(404, "NO_SUCH_PAGE");
        };
        let form = pairs(&String::from_utf8_lossy(body));
        let is_post = request.method == "POST";
        let takes = if is_post {
            rules.takes_post
        } else {
            rules.takes_get
        };
        if !takes {
            return Answer::error(405, "UNSUPPORTED");
        }
        let arguments = if is_post { &form } else { &request.query };
        let argument = |name: &str| arguments.get(name).map_or("", String::as_str);
        if argument("service") != "fake, inc" {
            return Answer::error(400, "SERVICE");
        }
        let shown = request.header("authorization");
        let user = match (is_post, argument("grant_type")) {
            (true, "refresh_token") => rules
                .identity_tokens
                .iter()
                .any(|token| token == argument("refresh_token"))
                .then(|| rules.users.first())
                .flatten(),
            (true, "password") => rules.users.iter().find(|(user, password, _)| {
                user == argument("username") && password == argument("password")
            }),
            (true, _) => None,
            (false, _) => rules
                .users
                .iter()
                .find(|(user, password, _)| {
                    shown == Some(&format!("Basic {}", basic(user, password)))
                })
                .or_else(|| {
                    // Docker's way to show an identity token to a service without OAuth2.
                    rules
                        .identity_tokens
                        .iter()
                        .any(|token| {
                            rules.users.iter().any(|(user, _, _)| {
                                shown == Some(&format!("Basic {}", basic(user, token)))
                            })
                        })
                        .then(|| rules.users.first())
                        .flatten()
                }),
        };
        if user.is_none() && (is_post || shown.is_some()) {
            return Answer::new(401).body(br#"{"details":"incorrect username or password"}"#);
        }
        let may_push = user.is_some_and(|(_, _, may_push)| *may_push);
        let may_pull = user.is_some() || rules.public;
        let scopes: Vec<&str> = argument("scope").split_ascii_whitespace().collect();
        if rules.one_scope_only && scopes.len() > 1 {
            return Answer::error(403, "ONE_AT_A_TIME");
        }
        let mut rights = Vec::new();
        for scope in scopes {
            let mut parts = scope.splitn(3, ':');
            let (Some(_), Some(name), Some(actions)) = (parts.next(), parts.next(), parts.next())
            else {
                continue;
            };
            for action in actions.split(',') {
                let is_right = match action {
                    "pull" => may_pull,
                    "push" => may_push,
                    "delete" => may_push && rules.grants_deletion,
                    _ => false,
                };
                if is_right {
                    rights.push((name.to_owned(), action.to_owned()));
                }
            }
        }
        let mut state = self.state();
        state.last_number += 1;
        let token = format!("issued-token-{}", state.last_number);
        state.tokens.insert(token.clone(), rights);
        let lifetime = match rules.expires_in {
            Some(seconds) => format!(r#","expires_in":{seconds}"#),
            None => String::new(),
        };
        let field = if is_post { "access_token" } else { "token" };
        Answer::new(200)
            .with("Content-Type", "application/json")
            .body(format!(r#"{{"{field}":"{token}"{lifetime}}}"#).as_bytes())
    }

    fn blob(&self, request: &Request, name: &str, digest: &str) -> Answer {
        let state = self.state();
        let key = (name.to_owned(), digest.to_owned());
        let Some(bytes) = state.blobs.get(&key) else {
            return Answer::error(404, "BLOB_UNKNOWN");
        };
        if let Some(base) = &state.habits.redirects_blobs_to
            && request.method == "GET"
        {
            return Answer::new(307).with(
                "Location",
                format!("{base}/storage/{digest}?signature=s3cr3t"),
            );
        }
        ranged(request, &state.habits, bytes).with("Docker-Content-Digest", digest)
    }

    fn read_manifest(&self, name: &str, reference: &str) -> Answer {
        let state = self.state();
        let key = (name.to_owned(), reference.to_owned());
        let Some((media_type, bytes)) = state.manifests.get(&key) else {
            let is_known = state.manifests.keys().any(|(known, _)| known == name);
            return Answer::error(
                404,
                if is_known {
                    "MANIFEST_UNKNOWN"
                } else {
                    "NAME_UNKNOWN"
                },
            );
        };
        let media_type = state.habits.content_type.as_ref().unwrap_or(media_type);
        let answer = Answer::new(200)
            .with("Content-Type", media_type)
            .body(bytes);
        if state.habits.hides_digests {
            return answer;
        }
        answer.with("Docker-Content-Digest", digest_of(bytes))
    }

    fn write_manifest(
        &self,
        request: &Request,
        name: &str,
        reference: &str,
        body: &[u8],
    ) -> Answer {
        let digest = digest_of(body);
        if reference.starts_with("sha256:") && reference != digest {
            return Answer::error(400, "DIGEST_INVALID");
        }
        let media_type = request.header("content-type").unwrap_or_default();
        let manifest = (media_type.to_owned(), Arc::new(body.to_vec()));
        let mut state = self.state();
        if let Some((status, words)) = &state.habits.immutable_tags
            && !reference.starts_with("sha256:")
            && state
                .manifests
                .contains_key(&(name.to_owned(), reference.to_owned()))
        {
            return Answer::new(*status).body(words.as_bytes());
        }
        let document: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
        for child in document["manifests"].as_array().into_iter().flatten() {
            let child = child["digest"].as_str().unwrap_or_default();
            if !state
                .manifests
                .contains_key(&(name.to_owned(), child.to_owned()))
            {
                return Answer::error(400, "MANIFEST_BLOB_UNKNOWN");
            }
        }
        for reference in [reference, &digest] {
            state
                .manifests
                .insert((name.to_owned(), reference.to_owned()), manifest.clone());
        }
        let answer = Answer::new(201)
            .with("Location", format!("/v2/{name}/manifests/{digest}"))
            .with("Docker-Content-Digest", digest);
        match document["subject"]["digest"].as_str() {
            Some(subject) if state.habits.lists_referrers.is_some() => {
                answer.with("OCI-Subject", subject)
            }
            _ => answer,
        }
    }

    /// By digest a manifest goes with all its tags, by tag the tag alone.
    fn delete_manifest(&self, name: &str, reference: &str) -> Answer {
        let mut state = self.state();
        let is_digest = reference.starts_with("sha256:");
        if let Some(status) = state.habits.refuses_deletion {
            return Answer::error(status, "UNSUPPORTED");
        }
        if let Some(status) = state.habits.refuses_tag_deletion
            && !is_digest
        {
            return Answer::error(status, "UNSUPPORTED");
        }
        let key = (name.to_owned(), reference.to_owned());
        let Some((_, bytes)) = state.manifests.get(&key).cloned() else {
            return Answer::error(404, "MANIFEST_UNKNOWN");
        };
        if !is_digest {
            state.manifests.remove(&key);
            return Answer::new(202);
        }
        let stands = |known: &(String, String), other: &(String, Arc<Vec<u8>>)| {
            known.0 == name && digest_of(&other.1) == digest_of(&bytes)
        };
        if let Some(status) = state.habits.wants_tags_deleted_first
            && state
                .manifests
                .iter()
                .any(|(known, other)| *known != key && stands(known, other))
        {
            return Answer::error(status, "DANGLING_TAG");
        }
        state.manifests.retain(|known, other| !stands(known, other));
        Answer::new(202)
    }

    fn referrers(&self, request: &Request, name: &str, subject: &str) -> Answer {
        let state = self.state();
        let Some(page) = state.habits.lists_referrers else {
            return Answer::error(404, "NO_SUCH_PAGE");
        };
        let from: usize = request
            .argument("from")
            .and_then(|from| from.parse().ok())
            .unwrap_or(0);
        let all: Vec<serde_json::Value> = state
            .manifests
            .iter()
            .filter(|((known, reference), _)| known == name && reference.starts_with("sha256:"))
            .filter_map(|((_, digest), (media_type, bytes))| {
                let document: serde_json::Value = serde_json::from_slice(bytes).ok()?;
                (document["subject"]["digest"] == subject).then(|| {
                    serde_json::json!({
                        "mediaType": media_type, "digest": digest, "size": bytes.len(),
                        "artifactType": document["artifactType"], "annotations": document["annotations"],
                    })
                })
            })
            .collect();
        let shown: Vec<_> = all.iter().skip(from).take(page).collect();
        let document = serde_json::json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": shown,
        });
        let answer = Answer::new(200)
            .with("Content-Type", "application/vnd.oci.image.index.v1+json")
            .body(document.to_string().as_bytes());
        match from + page < all.len() {
            true => answer.with(
                "Link",
                format!(
                    r#"</v2/{name}/referrers/{subject}?from={}>; rel="next""#,
                    from + page
                ),
            ),
            false => answer,
        }
    }

    fn tags(&self, request: &Request, name: &str) -> Answer {
        let state = self.state();
        if let Some(status) = state.habits.hides_tags {
            return Answer::error(status, "UNSUPPORTED");
        }
        let last = match state.habits.lists_tags_backwards {
            true => "",
            false => request.argument("last").unwrap_or_default(),
        };
        let mut tags: Vec<&str> = state
            .manifests
            .keys()
            .filter(|(known, reference)| known == name && !reference.starts_with("sha256:"))
            .map(|(_, reference)| reference.as_str())
            .filter(|tag| *tag > last)
            .collect();
        if state.habits.lists_tags_backwards {
            tags.reverse();
        }
        let mut answer = Answer::new(200).with("Content-Type", "application/json");
        if let Some(most) = state.habits.tags_per_page
            && tags.len() > most
        {
            tags.truncate(most);
            let last = tags.last().copied().unwrap_or_default();
            answer = answer.with(
                "Link",
                format!(r#"</v2/{name}/tags/list?last={last}&n={most}>; rel="next""#),
            );
        }
        let tags: Vec<String> = tags.iter().map(|tag| format!("\"{tag}\"")).collect();
        let tags = if tags.is_empty() {
            "null".to_owned()
        } else {
            format!("[{}]", tags.join(","))
        };
        answer.body(format!(r#"{{"name":"{name}","tags":{tags}}}"#).as_bytes())
    }

    fn begin_upload(&self, request: &Request, name: &str) -> Answer {
        let mut state = self.state();
        if let (Some(digest), Some(from)) = (request.argument("mount"), request.argument("from")) {
            let found = state
                .blobs
                .get(&(from.to_owned(), digest.to_owned()))
                .cloned();
            if let Some(bytes) = found
                && !state.habits.never_mounts
            {
                let digest = digest.to_owned();
                state.blobs.insert((name.to_owned(), digest.clone()), bytes);
                return Answer::new(201).with("Location", format!("/v2/{name}/blobs/{digest}"));
            }
        }
        state.last_number += 1;
        let id = format!("upload-{}", state.last_number);
        state.uploads.insert(id.clone(), Vec::new());
        self.upload_state(&state, 202, name, &id)
    }

    fn upload_state(&self, state: &State, status: u16, name: &str, id: &str) -> Answer {
        let length = state.uploads.get(id).map_or(0, Vec::len);
        let base = state
            .habits
            .locations_begin_with
            .clone()
            .unwrap_or_default();
        Answer::new(status)
            .with(
                "Location",
                format!("{base}/v2/{name}/blobs/uploads/{id}?at={length}"),
            )
            .with("Range", format!("0-{}", length.saturating_sub(1)))
    }

    fn go_on_with_upload(&self, request: &Request, name: &str, id: &str, body: &[u8]) -> Answer {
        let mut state = self.state();
        let habits = state.habits.clone();
        if habits.largest_body.is_some_and(|most| body.len() > most) {
            return Answer::error(413, "TOO_LARGE");
        }
        let Some(upload) = state.uploads.get_mut(id) else {
            return Answer::error(404, "BLOB_UPLOAD_UNKNOWN");
        };
        // Registries sign their state into the location: an old one is not taken.
        let at = request.argument("at").and_then(|at| at.parse().ok());
        let is_current = at == Some(upload.len());
        match request.method.as_str() {
            "GET" if habits.hides_upload_state => Answer::error(405, "UNSUPPORTED"),
            "GET" => self.upload_state(&state, 204, name, id),
            "DELETE" => {
                state.uploads.remove(id);
                Answer::new(204)
            }
            "PATCH" => {
                if let Some(status) = habits.refuses_patch {
                    return Answer::error(status, "UNSUPPORTED");
                }
                let start = request
                    .header("content-range")
                    .and_then(|range| range.split('-').next()?.parse::<usize>().ok());
                let is_next = match start {
                    Some(start) => start == upload.len(),
                    None => upload.is_empty(),
                };
                if !is_next || !is_current {
                    return self.upload_state(&state, 416, name, id);
                }
                let kept = habits.keeps_of_patch.unwrap_or(usize::MAX).min(body.len());
                upload.extend_from_slice(&body[..kept]);
                self.upload_state(&state, 202, name, id)
            }
            "PUT" => {
                if !is_current {
                    return Answer::error(416, "RANGE_INVALID");
                }
                upload.extend_from_slice(body);
                let found = digest_of(upload);
                let bytes = state.uploads.remove(id).unwrap_or_default();
                if request.argument("digest") != Some(&found) {
                    return Answer::error(400, "DIGEST_INVALID");
                }
                state
                    .blobs
                    .insert((name.to_owned(), found.clone()), Arc::new(bytes));
                Answer::new(201)
                    .with("Location", format!("/v2/{name}/blobs/{found}"))
                    .with("Docker-Content-Digest", found)
            }
            _ => Answer::error(405, "UNSUPPORTED"),
        }
    }
}

fn basic(user: &str, password: &str) -> String {
    base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"))
}

/// Answers with bytes, or with the range of them that was asked for.
fn ranged(request: &Request, habits: &Habits, bytes: &[u8]) -> Answer {
    let answer = Answer::new(200).with("Content-Type", "application/octet-stream");
    let start = request
        .header("range")
        .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-'))
        .and_then(|start| start.parse::<usize>().ok());
    match start {
        None => answer.body(bytes),
        Some(_) if habits.ignores_ranges => answer.body(bytes),
        Some(start) if start >= bytes.len() => {
            Answer::new(416).with("Content-Range", format!("bytes */{}", bytes.len()))
        }
        Some(start) => {
            let end = bytes.len() - 1;
            Answer {
                status: 206,
                ..answer.body(&bytes[start..])
            }
            .with(
                "Content-Range",
                format!("bytes {start}-{end}/{}", bytes.len()),
            )
        }
    }
}
