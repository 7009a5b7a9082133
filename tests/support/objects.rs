//! Object services inside the test, on a loopback port: a bucket of an S3 store that checks every signature by a computation of its own,
//! and GitHub's cache service with its storage. Everything is in memory, every fault on command.
//!
//! It needs no crate but `sha2`, `base64`, `serde_json` and `jiff`, so that it can be included by path in unit tests and in integration
//! tests alike. What it is not: complete or lenient. Where a real service forgives, it answers with an error.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test takes from it what it needs"
)]

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use serde_json::{Value, json};
use sha2::Digest as _;

/// The bucket that there is, and where it is.
pub const BUCKET: &str = "shared-cache";
pub const REGION: &str = "eu-test-1";
/// Who may do everything.
pub const KEY: &str = "AKIDFAKE";
pub const SECRET: &str = "hunter2-secret+/";
/// A job's token, and what the storage's URLs are signed with.
pub const TOKEN: &str = "hunter2-token";
pub const SIGNATURE: &str = "hunter2%2Fsignature%3D";

/// What goes wrong with one request.
#[derive(Clone, Debug)]
pub enum Trouble {
    /// An answer after the whole request was read.
    Status(u16),
    /// The same with `Retry-After`.
    RetryAfter(u16, String),
    /// The same with a body.
    Says(u16, String),
    /// A header of an answer without a body.
    Header(u16, String, String),
    /// The connection is reset at once.
    Reset,
    /// Everything is done, and the connection is reset.
    LoseAnswer,
    /// The connection is reset after so many bytes of the answer's body.
    CutBody(usize),
    /// The answer's body is shorter, and says so.
    ShortenBody(usize),
    /// One bit of the answer's body is wrong.
    DamageBody,
    /// The whole is given for a part.
    IgnoreRange,
    /// A success whose body is this.
    Succeeds(String),
    /// Nothing comes until the peer gives up.
    Stall,
    /// No trouble: takes its place in the queue.
    Pass,
}

/// How the services behave.
#[derive(Clone, Debug, Default)]
pub struct Manners {
    /// Keys are good with this session token alone.
    pub session: Option<String>,
    /// The token of a job may not write.
    pub read_only: bool,
    /// Names on one page of a list.
    pub names_per_page: Option<usize>,
    /// Nothing but what reads is allowed.
    pub denies_writes: bool,
    /// How long ago objects are said to have been written.
    pub age: Duration,
}

/// An entry of the cache service.
#[derive(Clone, Debug)]
pub struct CacheEntry {
    pub key: String,
    pub version: String,
    pub bytes: Option<Vec<u8>>,
    pub is_final: bool,
    blocks: BTreeMap<String, Vec<u8>>,
}

#[derive(Default)]
struct State {
    manners: Manners,
    /// Of the bucket, by name: when they were written, and what they hold.
    objects: BTreeMap<String, (SystemTime, Vec<u8>)>,
    uploads: BTreeMap<String, (String, BTreeMap<usize, Vec<u8>>)>,
    uploads_made: usize,
    entries: Vec<CacheEntry>,
    troubles: VecDeque<(String, String, Trouble)>,
    log: Vec<String>,
}

pub struct FakeObjects {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl FakeObjects {
    pub fn start() -> FakeObjects {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state: Arc<Mutex<State>> = Arc::default();
        let ends = Arc::new(AtomicBool::new(false));
        let (shared, told) = (state.clone(), ends.clone());
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if told.load(Ordering::SeqCst) {
                    return;
                }
                let shared = shared.clone();
                std::thread::spawn(move || {
                    // One that goes away is its own business.
                    drop(stream.and_then(|stream| serve(stream, address, &shared)));
                });
            }
        });
        FakeObjects {
            address,
            state,
            ends,
            thread: Some(thread),
        }
    }

    /// `http://127.0.0.1:PORT`
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// `127.0.0.1:PORT`
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    pub fn manners(&self, change: impl FnOnce(&mut Manners)) {
        change(&mut self.state().manners);
    }

    /// Makes the next request with this method (empty: any) and this part of a target go wrong.
    pub fn trouble(&self, method: &str, part: &str, trouble: Trouble) {
        let trouble = (method.to_owned(), part.to_owned(), trouble);
        self.state().troubles.push_back(trouble);
    }

    pub fn troubles(&self, method: &str, part: &str, trouble: &Trouble, times: usize) {
        for _ in 0..times {
            self.trouble(method, part, trouble.clone());
        }
    }

    /// Returns how many troubles have not happened.
    pub fn troubles_left(&self) -> usize {
        self.state().troubles.len()
    }

    /// Returns and forgets what was asked: `METHOD target status`, status 0 where no answer came.
    pub fn take_lines(&self) -> Vec<String> {
        std::mem::take(&mut self.state().log)
    }

    pub fn objects(&self) -> BTreeMap<String, Vec<u8>> {
        let state = self.state();
        let objects = state.objects.iter();
        objects
            .map(|(name, (_, bytes))| (name.clone(), bytes.clone()))
            .collect()
    }

    pub fn put_object(&self, name: &str, bytes: &[u8]) {
        let object = (SystemTime::now(), bytes.to_vec());
        self.state().objects.insert(name.to_owned(), object);
    }

    pub fn remove_object(&self, name: &str) {
        self.state().objects.remove(name);
    }

    pub fn open_uploads(&self) -> usize {
        self.state().uploads.len()
    }

    /// Returns the entries of the cache service, oldest first.
    pub fn entries(&self) -> Vec<CacheEntry> {
        self.state().entries.clone()
    }

    /// Changes the entries of the cache service.
    pub fn change_entries(&self, change: impl FnOnce(&mut Vec<CacheEntry>)) {
        change(&mut self.state().entries);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for FakeObjects {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::SeqCst);
        // Wakes the thread.
        drop(TcpStream::connect(self.address));
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

struct Request {
    method: String,
    /// As it was sent.
    path: String,
    /// As it was sent: names and values.
    raw_query: Vec<(String, String)>,
    query: BTreeMap<String, String>,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Request {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    fn argument(&self, name: &str) -> Option<&str> {
        self.query.get(name).map(String::as_str)
    }
}

struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
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

    fn with(mut self, name: &'static str, value: impl Into<String>) -> Answer {
        self.headers.push((name, value.into()));
        self
    }

    fn body(mut self, body: impl Into<Vec<u8>>) -> Answer {
        self.body = body.into();
        self
    }

    fn xml_error(status: u16, code: &str) -> Answer {
        let body = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>the fake says so</Message></Error>"
        );
        Answer::new(status).body(body)
    }

    fn json(status: u16, value: &Value) -> Answer {
        Answer::new(status)
            .with("content-type", "application/json")
            .body(value.to_string())
    }
}

fn serve(mut stream: TcpStream, address: SocketAddr, state: &Mutex<State>) -> io::Result<()> {
    let Some((target, request)) = read(&stream)? else {
        return Ok(());
    };
    let lock = || state.lock().unwrap_or_else(PoisonError::into_inner);
    let trouble = {
        let mut state = lock();
        let found = state.troubles.iter().position(|(method, part, _)| {
            (method.is_empty() || *method == request.method) && target.contains(part.as_str())
        });
        let found = found.and_then(|at| state.troubles.remove(at));
        found.map_or(Trouble::Pass, |(_, _, trouble)| trouble)
    };
    let note = |status: u16| {
        lock()
            .log
            .push(format!("{} {target} {status}", request.method))
    };
    let told = match &trouble {
        Trouble::Status(status) => Some(Answer::new(*status)),
        Trouble::RetryAfter(status, after) => {
            Some(Answer::new(*status).with("retry-after", after.clone()))
        }
        Trouble::Says(status, body) => Some(Answer::new(*status).body(body.clone())),
        Trouble::Succeeds(body) => Some(Answer::new(200).body(body.clone())),
        Trouble::Header(status, name, value) => Some(Answer::new(*status).with(
            match name.as_str() {
                "location" => "location",
                _ => "x-amz-bucket-region",
            },
            value.clone(),
        )),
        Trouble::Reset => {
            note(0);
            return reset(&stream);
        }
        Trouble::Stall => {
            note(0);
            return stream.read(&mut [0]).map(drop);
        }
        _ => None,
    };
    let mut answer = told.unwrap_or_else(|| {
        let ignores_range = matches!(trouble, Trouble::IgnoreRange);
        answer(&mut lock(), &request, address, ignores_range)
    });
    let mut cut = None;
    match trouble {
        Trouble::LoseAnswer => {
            note(0);
            return reset(&stream);
        }
        Trouble::CutBody(length) => cut = Some(length),
        Trouble::ShortenBody(length) => answer.body.truncate(length),
        Trouble::DamageBody => {
            let at = answer.body.len() / 2;
            if let Some(byte) = answer.body.get_mut(at) {
                *byte ^= 1;
            }
        }
        _ => {}
    }
    note(answer.status);
    let length = match answer
        .headers
        .iter()
        .find(|(name, _)| *name == "content-length")
    {
        Some(_) => String::new(),
        None => format!("content-length: {}\r\n", answer.body.len()),
    };
    let mut head = format!(
        "HTTP/1.1 {} -\r\nconnection: close\r\n{length}",
        answer.status
    );
    for (name, value) in &answer.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    stream.write_all(format!("{head}\r\n").as_bytes())?;
    if request.method != "HEAD" {
        let end = cut.unwrap_or(answer.body.len()).min(answer.body.len());
        stream.write_all(&answer.body[..end])?;
    }
    stream.flush()?;
    match cut {
        // What was sent has to arrive: the peer closes when it has seen the end.
        Some(_) => stream.shutdown(std::net::Shutdown::Both),
        None => Ok(()),
    }
}

/// Ends a connection without an answer.
fn reset(stream: &TcpStream) -> io::Result<()> {
    stream.shutdown(std::net::Shutdown::Both)
}

fn read(stream: &TcpStream) -> io::Result<Option<(String, Request)>> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_ascii_whitespace();
    let method = words.next().unwrap_or_default().to_owned();
    let target = words.next().unwrap_or_default().to_owned();
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':') {
            let before = headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
            assert!(before.is_none(), "{name} comes twice");
        }
    }
    assert!(!headers.contains_key("transfer-encoding"), "{target}");
    let length = headers
        .get("content-length")
        .map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let pairs = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (name.to_owned(), value.to_owned())
        });
    let raw_query: Vec<(String, String)> = pairs.collect();
    let request = Request {
        method,
        path: path.to_owned(),
        query: raw_query
            .iter()
            .map(|(name, value)| (decoded(name), decoded(value)))
            .collect(),
        raw_query,
        headers,
        body,
    };
    Ok(Some((target, request)))
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let digits = [rest.next().unwrap(), rest.next().unwrap()];
                let digits = std::str::from_utf8(&digits).unwrap();
                bytes.push(u8::from_str_radix(digits, 16).unwrap());
            }
            byte => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).unwrap()
}

fn answer(
    state: &mut State,
    request: &Request,
    address: SocketAddr,
    ignores_range: bool,
) -> Answer {
    if let Some(method) = request
        .path
        .strip_prefix("/twirp/github.actions.results.api.v1.CacheService/")
    {
        return service(state, request, method, address);
    }
    if let Some(number) = request.path.strip_prefix("/storage/") {
        return storage(state, request, number, ignores_range);
    }
    if request.path == "/keys" {
        // As a container's service gives them.
        let token = state.manners.session.clone().unwrap_or_default();
        return Answer::json(
            200,
            &json!({ "AccessKeyId": KEY, "SecretAccessKey": SECRET, "Token": token }),
        );
    }
    if let Some(refusal) = check_signature(request, &state.manners) {
        return refusal;
    }
    let mut parts = request.path[1..].splitn(2, '/');
    if parts.next() != Some(BUCKET) {
        return Answer::xml_error(404, "NoSuchBucket");
    }
    let key = decoded(parts.next().unwrap_or_default());
    if state.manners.denies_writes && !matches!(request.method.as_str(), "GET" | "HEAD") {
        return Answer::xml_error(403, "AccessDenied");
    }
    bucket(state, request, key, ignores_range)
}

fn bucket(state: &mut State, request: &Request, key: String, ignores_range: bool) -> Answer {
    let upload = request.argument("uploadId").map(str::to_owned);
    match (request.method.as_str(), upload) {
        ("GET", _) if key.is_empty() => list(state, request),
        ("GET" | "HEAD", _) => match state.objects.get(&key) {
            None => Answer::xml_error(404, "NoSuchKey"),
            Some((written, bytes)) => range(request, bytes, ignores_range)
                .with("etag", etag(bytes))
                .with(
                    "last-modified",
                    when(*written - state.manners.age, "%a, %d %b %Y %H:%M:%S GMT"),
                ),
        },
        ("PUT", None) => {
            let answer = Answer::new(200).with("etag", etag(&request.body));
            let object = (SystemTime::now(), request.body.clone());
            state.objects.insert(key, object);
            answer
        }
        ("POST", None) if request.query.contains_key("uploads") => {
            state.uploads_made += 1;
            let id = format!("upload/{}+", state.uploads_made);
            state.uploads.insert(id.clone(), (key, BTreeMap::new()));
            Answer::new(200).body(format!(
                "<?xml version=\"1.0\"?><InitiateMultipartUploadResult><Bucket>{BUCKET}</Bucket><UploadId>{id}</UploadId></InitiateMultipartUploadResult>"
            ))
        }
        ("PUT", Some(id)) => {
            let number = request.argument("partNumber").unwrap().parse().unwrap();
            match state.uploads.get_mut(&id) {
                Some((name, parts)) if *name == key => {
                    parts.insert(number, request.body.clone());
                    Answer::new(200).with("etag", etag(&request.body))
                }
                _ => Answer::xml_error(404, "NoSuchUpload"),
            }
        }
        ("POST", Some(id)) => {
            let Some((name, parts)) = state.uploads.remove(&id) else {
                return Answer::xml_error(404, "NoSuchUpload");
            };
            let text = String::from_utf8(request.body.clone()).unwrap();
            let named: Vec<&str> = text
                .split("<ETag>")
                .skip(1)
                .map(|rest| rest.split("</ETag>").next().unwrap())
                .collect();
            let there: Vec<String> = parts.values().map(|part| etag(part)).collect();
            let is_gapless = parts.keys().copied().eq(1..=parts.len());
            let named: Vec<String> = named
                .iter()
                .map(|tag| tag.replace("&quot;", "\""))
                .collect();
            if name != key || named != there || !is_gapless {
                return Answer::xml_error(400, "InvalidPart");
            }
            let bytes: Vec<u8> = parts.into_values().flatten().collect();
            let tag = etag(&bytes);
            state.objects.insert(key, (SystemTime::now(), bytes));
            Answer::new(200).body(format!(
                "<?xml version=\"1.0\"?><CompleteMultipartUploadResult><ETag>{tag}</ETag></CompleteMultipartUploadResult>"
            ))
        }
        ("DELETE", Some(id)) => {
            state.uploads.remove(&id);
            Answer::new(204)
        }
        ("DELETE", None) => {
            state.objects.remove(&key);
            Answer::new(204)
        }
        _ => Answer::xml_error(405, "MethodNotAllowed"),
    }
}

fn when(time: SystemTime, format: &str) -> String {
    let time = jiff::Timestamp::try_from(time).unwrap();
    time.strftime(format).to_string()
}

fn etag(bytes: &[u8]) -> String {
    format!("\"{}\"", &hex(&sha2::Sha256::digest(bytes))[..32])
}

fn range(request: &Request, bytes: &[u8], ignores_range: bool) -> Answer {
    let from = request.header("range").strip_prefix("bytes=");
    let from = from.map(|range| range.trim_end_matches('-').parse::<usize>().unwrap());
    match from {
        Some(from) if !ignores_range && from < bytes.len() => Answer::new(206)
            .with(
                "content-range",
                format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len()),
            )
            .body(&bytes[from..]),
        Some(from) if !ignores_range && from >= bytes.len() => {
            Answer::xml_error(416, "InvalidRange")
        }
        _ => Answer::new(200).body(bytes),
    }
}

fn list(state: &State, request: &Request) -> Answer {
    if request.argument("list-type") != Some("2") {
        return Answer::xml_error(400, "InvalidArgument");
    }
    let prefix = request.argument("prefix").unwrap_or_default();
    let after = request.argument("continuation-token").unwrap_or_default();
    let most = state.manners.names_per_page.unwrap_or(1000);
    let found = state.objects.iter();
    let found: Vec<_> = found
        .filter(|(name, _)| name.starts_with(prefix) && name.as_str() > after)
        .collect();
    let page = &found[..found.len().min(most)];
    let is_cut = page.len() < found.len();
    let mut body = format!(
        "<?xml version=\"1.0\"?><ListBucketResult><Name>{BUCKET}</Name><Prefix>{prefix}</Prefix><KeyCount>{}</KeyCount><IsTruncated>{is_cut}</IsTruncated>",
        page.len()
    );
    if let (true, Some((last, _))) = (is_cut, page.last()) {
        body.push_str(&format!(
            "<NextContinuationToken>{last}</NextContinuationToken>"
        ));
    }
    for (name, (written, bytes)) in page {
        let written = when(*written - state.manners.age, "%Y-%m-%dT%H:%M:%S.000Z");
        body.push_str(&format!(
            "<Contents><Key>{name}</Key><LastModified>{written}</LastModified><ETag>{}</ETag><Size>{}</Size></Contents>",
            etag(bytes).replace('"', "&quot;"),
            bytes.len()
        ));
    }
    Answer::new(200).body(format!("{body}</ListBucketResult>"))
}

/// Computes the signature of AWS's "Signature Version 4" anew; `None` if it is right.
fn check_signature(request: &Request, manners: &Manners) -> Option<Answer> {
    let refuse = |code: &str| Some(Answer::xml_error(403, code));
    let Some(rest) = request
        .header("authorization")
        .strip_prefix("AWS4-HMAC-SHA256 ")
    else {
        return refuse("AccessDenied");
    };
    let part = |name: &str| {
        let mut parts = rest.split(", ").filter_map(|part| part.split_once('='));
        parts
            .find(|(found, _)| *found == name)
            .map_or("", |(_, value)| value)
    };
    let scope: Vec<&str> = part("Credential").split('/').collect();
    let [key, date, region, "s3", "aws4_request"] = scope.as_slice() else {
        return refuse("AuthorizationHeaderMalformed");
    };
    if *key != KEY {
        return refuse("InvalidAccessKeyId");
    }
    if *region != REGION {
        let refusal = Answer::xml_error(400, "AuthorizationHeaderMalformed");
        return Some(refusal.with("x-amz-bucket-region", REGION));
    }
    if let Some(session) = &manners.session
        && request.header("x-amz-security-token") != session
    {
        return Some(Answer::xml_error(400, "ExpiredToken"));
    }
    let names: Vec<&str> = part("SignedHeaders").split(';').collect();
    let are_all = request
        .headers
        .keys()
        .filter(|name| name.starts_with("x-amz-") || *name == "host" || *name == "range")
        .all(|name| names.contains(&name.as_str()) || name == "range");
    let payload = request.header("x-amz-content-sha256");
    let own_payload = hex(&sha2::Sha256::digest(&request.body));
    if !are_all || payload != own_payload {
        return refuse("XAmzContentSHA256Mismatch");
    }
    let lines: String = names
        .iter()
        .map(|name| format!("{name}:{}\n", request.header(name)))
        .collect();
    let mut query = request.raw_query.clone();
    query.sort();
    let query: Vec<String> = query
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let canonical = format!(
        "{}\n{}\n{}\n{lines}\n{}\n{payload}",
        request.method,
        request.path,
        query.join("&"),
        names.join(";")
    );
    let time = request.header("x-amz-date");
    if !time.starts_with(date) {
        return refuse("RequestTimeTooSkewed");
    }
    let text = format!(
        "AWS4-HMAC-SHA256\n{time}\n{date}/{region}/s3/aws4_request\n{}",
        hex(&sha2::Sha256::digest(canonical.as_bytes()))
    );
    let mut secret = format!("AWS4{SECRET}").into_bytes();
    for part in [date, region, &"s3", &"aws4_request"] {
        secret = hmac(&secret, part.as_bytes());
    }
    match hex(&hmac(&secret, text.as_bytes())) == part("Signature") {
        true => None,
        false => refuse("SignatureDoesNotMatch"),
    }
}

/// RFC 2104 with SHA-256.
fn hmac(key: &[u8], text: &[u8]) -> Vec<u8> {
    let mut block = [0u8; 64];
    match key.len() > 64 {
        true => block[..32].copy_from_slice(&sha2::Sha256::digest(key)),
        false => block[..key.len()].copy_from_slice(key),
    }
    let inner: Vec<u8> = block.iter().map(|byte| byte ^ 0x36).collect();
    let outer: Vec<u8> = block.iter().map(|byte| byte ^ 0x5c).collect();
    let inner = sha2::Sha256::digest([&inner, text].concat());
    sha2::Sha256::digest([&outer[..], &inner[..]].concat()).to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn twirp_error(status: u16, code: &str, message: &str) -> Answer {
    Answer::json(status, &json!({ "code": code, "msg": message }))
}

/// GitHub's service: entries of one name and version are there once, and never change.
fn service(state: &mut State, request: &Request, method: &str, address: SocketAddr) -> Answer {
    if request.header("authorization") != format!("Bearer {TOKEN}") {
        let said = format!("bad token: {}", request.header("authorization"));
        return twirp_error(401, "unauthenticated", &said);
    }
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
    let (key, version) = (text("key"), text("version"));
    if key.is_empty() || key.len() > 512 || key.contains(',') || version.is_empty() {
        return twirp_error(400, "invalid_argument", "key or version");
    }
    let url = |number: usize| format!("http://{address}/storage/{number}?sv=2026&sig={SIGNATURE}");
    match method {
        "CreateCacheEntry" => {
            if state.manners.read_only {
                let message = "cache write denied: token has no writable scopes";
                return Answer::json(200, &json!({ "ok": false, "message": message }));
            }
            let mut entries = state.entries.iter();
            if entries.any(|entry| entry.key == key && entry.version == version) {
                return twirp_error(409, "already_exists", "cache entry exists");
            }
            state.entries.push(CacheEntry {
                key,
                version,
                bytes: None,
                is_final: false,
                blocks: BTreeMap::new(),
            });
            let url = url(state.entries.len() - 1);
            Answer::json(200, &json!({ "ok": true, "signed_upload_url": url }))
        }
        "FinalizeCacheEntryUpload" => {
            let mut entries = state.entries.iter_mut();
            let entry = entries.find(|entry| entry.key == key && entry.version == version);
            let Some(entry) = entry else {
                return twirp_error(404, "not_found", "no such entry");
            };
            let size = entry.bytes.as_ref().map(|bytes| bytes.len().to_string());
            if size != Some(text("size_bytes")) {
                return twirp_error(400, "invalid_argument", "another size was uploaded");
            }
            entry.is_final = true;
            Answer::json(200, &json!({ "ok": true, "entry_id": "1" }))
        }
        "GetCacheEntryDownloadURL" => {
            let is_there =
                |entry: &&(usize, &CacheEntry)| entry.1.is_final && entry.1.version == version;
            let entries: Vec<(usize, &CacheEntry)> = state.entries.iter().enumerate().collect();
            let exact = entries
                .iter()
                .filter(is_there)
                .find(|(_, entry)| entry.key == key);
            let prefixes = body["restore_keys"].as_array().cloned().unwrap_or_default();
            let mut prefixes = prefixes.iter().filter_map(Value::as_str);
            let found = exact.or_else(|| {
                prefixes.find_map(|prefix| {
                    let mut newest = entries.iter().rev().filter(is_there);
                    newest.find(|(_, entry)| entry.key.starts_with(prefix))
                })
            });
            match found {
                None => Answer::json(200, &json!({ "ok": false })),
                Some((number, entry)) => Answer::json(
                    200,
                    &json!({ "ok": true, "signed_download_url": url(*number), "matched_key": entry.key }),
                ),
            }
        }
        _ => twirp_error(404, "bad_route", "no such method"),
    }
}

/// The storage that the service points to.
fn storage(state: &mut State, request: &Request, number: &str, ignores_range: bool) -> Answer {
    let is_signed = request
        .raw_query
        .contains(&("sig".to_owned(), SIGNATURE.to_owned()));
    if !is_signed || !request.header("authorization").is_empty() {
        let body = format!(
            "\u{feff}<?xml version=\"1.0\"?><Error><Code>AuthenticationFailed</Code><Message>sig={SIGNATURE}</Message></Error>"
        );
        return Answer::new(403).body(body);
    }
    let number: usize = number.parse().unwrap();
    let Some(entry) = state.entries.get_mut(number) else {
        return Answer::xml_error(404, "BlobNotFound");
    };
    match (request.method.as_str(), request.argument("comp")) {
        ("GET", None) => match &entry.bytes {
            Some(bytes) => range(request, bytes, ignores_range),
            None => Answer::xml_error(404, "BlobNotFound"),
        },
        ("PUT", None) if request.header("x-ms-blob-type") == "BlockBlob" => {
            entry.bytes = Some(request.body.clone());
            Answer::new(201)
        }
        ("PUT", Some("block")) => {
            let id = request.argument("blockid").unwrap_or_default().to_owned();
            let decoded = base64::engine::general_purpose::STANDARD.decode(&id);
            let lengths = entry.blocks.keys().all(|other| other.len() == id.len());
            if decoded.is_err() || !lengths {
                return Answer::xml_error(400, "InvalidBlobOrBlock");
            }
            entry.blocks.insert(id, request.body.clone());
            Answer::new(201)
        }
        ("PUT", Some("blocklist")) => {
            let text = String::from_utf8(request.body.clone()).unwrap();
            let mut bytes = Vec::new();
            for id in text.split("<Latest>").skip(1) {
                let id = id.split("</Latest>").next().unwrap();
                match entry.blocks.get(id) {
                    Some(block) => bytes.extend_from_slice(block),
                    None => return Answer::xml_error(400, "InvalidBlockList"),
                }
            }
            entry.bytes = Some(bytes);
            Answer::new(201)
        }
        _ => Answer::xml_error(400, "InvalidHeaderValue"),
    }
}
