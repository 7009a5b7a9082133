//! The SSH agent that a step sees: a socket of its own, behind which a thread answers for as long as the step runs.
//!
//! In: the socket of the user's agent, or keys. Out: a socket to mount. Of the agent protocol (draft-ietf-sshm-ssh-agent) two
//! requests pass: listing keys and signing. All others get a failure and never reach the user's agent: a step cannot add or
//! remove keys, lock the agent, or use its extensions. Messages that pass are not changed.
//!
//! Dropping an [`Agent`] ends its connections and removes its socket; nothing waits for the other sides.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};

use super::keys::PrivateKey;
use super::wire::{Fields, Message};
use crate::rootfs::Owners;

const FAILURE: u8 = 5;
const REQUEST_IDENTITIES: u8 = 11;
const IDENTITIES_ANSWER: u8 = 12;
const SIGN_REQUEST: u8 = 13;
const SIGN_RESPONSE: u8 = 14;

/// Longer messages are no messages. The limit is OpenSSH's.
const MESSAGE: usize = 256 << 10;
/// Connections at the same time, for each step.
const CONNECTIONS: usize = 64;

/// Who answers.
#[derive(Debug)]
pub enum AgentAccess {
    /// The user's agent, by its socket.
    Socket(PathBuf),
    /// An agent of our own.
    Keys(Vec<PrivateKey>),
}

/// A socket on which somebody answers.
pub(super) struct Agent {
    socket: OwnedFd,
    path: PathBuf,
    /// Closing it ends all threads.
    stop: Option<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

/// Who may use a socket.
#[derive(Clone, Copy, Debug)]
pub(super) struct SocketOwner {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mode: u32,
}

impl Agent {
    /// Listens on a new socket at `path`, which only the step is to see.
    pub(super) fn start(
        access: Arc<AgentAccess>,
        path: &Path,
        owner: SocketOwner,
        owners: &Owners,
    ) -> io::Result<Agent> {
        let (listener, socket) = listen(path, owner, owners)?;
        let (stopped, stop) = pipe_with(PipeFlags::CLOEXEC)?;
        listener.set_nonblocking(true)?;
        let thread = std::thread::Builder::new()
            .name("ssh agent".to_owned())
            .spawn(move || serve(&listener, &access, &Arc::new(stopped)))?;
        Ok(Agent {
            socket,
            path: path.to_owned(),
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Returns the socket's inode (`O_PATH`).
    pub(super) fn socket(&self) -> io::Result<OwnedFd> {
        self.socket.try_clone()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It has nothing to say; a panic in it was told by its own thread.
            drop(thread.join());
        }
        // What cannot be removed goes with the session.
        drop(fs::remove_file(&self.path));
    }
}

/// Makes a socket that nobody can connect to before it has its owner.
fn listen(path: &Path, owner: SocketOwner, owners: &Owners) -> io::Result<(UnixListener, OwnedFd)> {
    let wrong = || io::Error::from(io::ErrorKind::InvalidInput);
    let (parent, name) = path.parent().zip(path.file_name()).ok_or_else(wrong)?;
    let parent = File::open(parent)?;
    // A socket's address has room for 108 bytes; a descriptor's path is short.
    let address = Path::new("/proc/self/fd")
        .join(parent.as_raw_fd().to_string())
        .join(name);
    let listener = UnixListener::bind(address)?;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let socket = rustix::fs::openat(&parent, name, flags, Mode::empty())?;
    let ids = (owner.uid, owner.gid);
    owners.describe_at(parent.as_fd(), name.as_bytes(), ids, Some(owner.mode))?;
    Ok((listener, socket))
}

/// Takes connections until it is told to stop.
fn serve(listener: &UnixListener, access: &Arc<AgentAccess>, stopped: &Arc<OwnedFd>) {
    let open = Arc::new(AtomicUsize::new(0));
    let mut threads: Vec<JoinHandle<()>> = Vec::new();
    while wait(listener.as_fd(), PollFlags::IN, stopped).is_ok() {
        let Ok((client, _)) = listener.accept() else {
            continue;
        };
        threads.retain(|thread| !thread.is_finished());
        if open.load(Ordering::Relaxed) >= CONNECTIONS {
            continue;
        }
        open.fetch_add(1, Ordering::Relaxed);
        let (access, stopped, counted) = (access.clone(), stopped.clone(), open.clone());
        let answering = std::thread::Builder::new().spawn(move || {
            // The client sees the end of the connection, whatever the reason.
            drop(answer(client, &access, &stopped));
            counted.fetch_sub(1, Ordering::Relaxed);
        });
        match answering {
            Ok(thread) => threads.push(thread),
            Err(_) => drop(open.fetch_sub(1, Ordering::Relaxed)),
        }
    }
    for thread in threads {
        drop(thread.join());
    }
}

/// Answers one connection to its end.
fn answer(client: UnixStream, access: &AgentAccess, stopped: &OwnedFd) -> io::Result<()> {
    client.set_nonblocking(true)?;
    let agent = match access {
        AgentAccess::Socket(path) => {
            let agent = UnixStream::connect(path)?;
            agent.set_nonblocking(true)?;
            Some(agent)
        }
        AgentAccess::Keys(_) => None,
    };
    loop {
        let request = receive(&client, stopped)?;
        let response = match (access, &agent, request.first()) {
            (_, Some(agent), Some(&(REQUEST_IDENTITIES | SIGN_REQUEST))) => {
                send(agent, &request, stopped)?;
                receive(agent, stopped)?
            }
            (AgentAccess::Keys(keys), ..) => own_answer(keys, &request),
            _ => vec![FAILURE],
        };
        send(&client, &response, stopped)?;
    }
}

/// Answers for keys that are ours.
fn own_answer(keys: &[PrivateKey], request: &[u8]) -> Vec<u8> {
    let signed = |fields: &mut Fields<'_>| {
        let (public, data, flags) = (fields.string()?, fields.string()?, fields.u32()?);
        let key = keys.iter().find(|key| key.public() == public)?;
        key.sign(data, flags)
    };
    match request.split_first() {
        Some((&REQUEST_IDENTITIES, [])) => {
            let count = u32::try_from(keys.len()).expect("keys came by the command line");
            let answer = Message::new().byte(IDENTITIES_ANSWER).u32(count);
            let all = keys.iter().fold(answer, |answer, key| {
                answer.string(key.public()).string(key.comment())
            });
            all.finish()
        }
        Some((&SIGN_REQUEST, body)) => match signed(&mut Fields::new(body)) {
            Some(signature) => Message::new()
                .byte(SIGN_RESPONSE)
                .string(&signature)
                .finish(),
            None => vec![FAILURE],
        },
        _ => vec![FAILURE],
    }
}

/// Reads one message; the end of the connection is an error.
fn receive(stream: &UnixStream, stopped: &OwnedFd) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    fill(stream, &mut length, stopped)?;
    let length = u32::from_be_bytes(length) as usize;
    if length == 0 || length > MESSAGE {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut message = vec![0; length];
    fill(stream, &mut message, stopped)?;
    Ok(message)
}

fn fill(mut stream: &UnixStream, mut buffer: &mut [u8], stopped: &OwnedFd) -> io::Result<()> {
    while !buffer.is_empty() {
        match stream.read(buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => buffer = &mut buffer[count..],
            Err(error) if is_passing(&error) => wait(stream.as_fd(), PollFlags::IN, stopped)?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn send(mut stream: &UnixStream, message: &[u8], stopped: &OwnedFd) -> io::Result<()> {
    let whole = Message::new().string(message).finish();
    let mut rest = &whole[..];
    while !rest.is_empty() {
        match stream.write(rest) {
            Ok(count) => rest = &rest[count..],
            Err(error) if is_passing(&error) => wait(stream.as_fd(), PollFlags::OUT, stopped)?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

/// Waits until something can be done with `fd`; an error once all is to end.
fn wait(fd: BorrowedFd<'_>, events: PollFlags, stopped: &OwnedFd) -> io::Result<()> {
    loop {
        let mut fds = [
            PollFd::from_borrowed_fd(fd, events),
            PollFd::new(stopped, PollFlags::IN),
        ];
        match poll(&mut fds, None) {
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
            Ok(_) if !fds[1].revents().is_empty() => {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            Ok(_) => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn me() -> SocketOwner {
        SocketOwner {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            mode: 0o600,
        }
    }

    fn start(access: AgentAccess) -> (tempfile::TempDir, Agent) {
        let directory = tempfile::tempdir().unwrap();
        // Longer than a socket's address can be.
        let deep = directory.path().join("d".repeat(150));
        fs::create_dir(&deep).unwrap();
        let agent = Agent::start(Arc::new(access), &deep.join("s"), me(), &Owners::OnDisk).unwrap();
        (directory, agent)
    }

    fn connect(agent: &Agent) -> UnixStream {
        let path = format!("/proc/self/fd/{}", agent.socket.as_raw_fd());
        UnixStream::connect(path).unwrap()
    }

    fn ask(stream: &mut UnixStream, request: &[u8]) -> Vec<u8> {
        stream
            .write_all(&Message::new().string(request).finish())
            .unwrap();
        let mut length = [0; 4];
        stream.read_exact(&mut length).unwrap();
        let mut answer = vec![0; u32::from_be_bytes(length) as usize];
        stream.read_exact(&mut answer).unwrap();
        answer
    }

    #[test]
    fn only_listing_and_signing_reach_the_users_agent() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("real");
        let real = UnixListener::bind(&path).unwrap();
        let (_kept, agent) = start(AgentAccess::Socket(path));
        let mut client = connect(&agent);
        let answering = std::thread::spawn(move || {
            let (mut stream, _) = real.accept().unwrap();
            let mut asked = Vec::new();
            for _ in 0..2 {
                let mut length = [0; 4];
                stream.read_exact(&mut length).unwrap();
                let mut request = vec![0; u32::from_be_bytes(length) as usize];
                stream.read_exact(&mut request).unwrap();
                let answer = Message::new().string(&[99, request[0]]).finish();
                stream.write_all(&answer).unwrap();
                asked.push(request);
            }
            // The end of the connection: nothing else has come.
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).unwrap();
            (asked, rest)
        });
        assert_eq!(
            ask(&mut client, &[REQUEST_IDENTITIES]),
            [99, REQUEST_IDENTITIES]
        );
        // Add, remove, remove all, lock, unlock, add with constraints, extension, and what nobody knows.
        for kind in [17, 18, 19, 20, 21, 22, 23, 25, 27, 200] {
            assert_eq!(ask(&mut client, &[kind, 1, 2]), [FAILURE], "{kind}");
        }
        assert_eq!(ask(&mut client, &[SIGN_REQUEST, 7]), [99, SIGN_REQUEST]);
        drop(client);
        let (asked, rest) = answering.join().unwrap();
        assert_eq!(asked, [vec![REQUEST_IDENTITIES], vec![SIGN_REQUEST, 7]]);
        assert!(rest.is_empty());
    }

    #[test]
    fn messages_that_lie_about_their_length_end_the_connection() {
        let (_kept, agent) = start(AgentAccess::Keys(Vec::new()));
        for length in [0, MESSAGE as u32 + 1, u32::MAX] {
            let mut client = connect(&agent);
            client.write_all(&length.to_be_bytes()).unwrap();
            assert_eq!(client.read(&mut [0]).unwrap(), 0, "{length}");
        }
        let mut client = connect(&agent);
        assert_eq!(ask(&mut client, &[REQUEST_IDENTITIES]), [12, 0, 0, 0, 0]);
    }

    #[test]
    fn the_end_of_the_agent_waits_for_nobody() {
        let (_kept, agent) = start(AgentAccess::Keys(Vec::new()));
        let mut idle = connect(&agent);
        let mut half = connect(&agent);
        half.write_all(&[0, 0]).unwrap();
        let path = agent.path.clone();
        drop(agent);
        assert!(!path.exists());
        // The end, or a reset where the connection was never taken.
        assert!(!matches!(idle.read(&mut [0]), Ok(1)));
    }

    /// Makes a key with OpenSSH; `None` where there is none.
    fn generated(directory: &Path, arguments: &[&str]) -> Option<Vec<u8>> {
        let path = directory.join("key");
        drop(fs::remove_file(&path));
        let made = Command::new("ssh-keygen")
            .args(["-q", "-C", "the comment", "-f"])
            .arg(&path)
            .args(arguments)
            .output()
            .ok()?;
        assert!(made.status.success(), "{made:?}");
        Some(fs::read(path).unwrap())
    }

    #[test]
    fn openssh_believes_what_our_keys_sign() {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path();
        for (kind, more, flags) in [
            ("ed25519", &[][..], 0),
            ("ecdsa", &["-b", "256"], 0),
            ("ecdsa", &["-b", "384"], 0),
            ("rsa", &["-b", "2048"], 2),
            ("rsa", &["-b", "3072"], 4),
            ("rsa", &["-b", "2048", "-m", "PEM"], 4),
            ("rsa", &["-b", "2048", "-m", "PKCS8"], 2),
            ("ecdsa", &["-b", "256", "-m", "PEM"], 0),
            ("ecdsa", &["-b", "384", "-m", "PKCS8"], 0),
        ] {
            let mut arguments = vec!["-N", "", "-t", kind];
            arguments.extend_from_slice(more);
            let Some(text) = generated(at, &arguments) else {
                assert!(
                    std::env::var_os("BUILDER_TEST_REQUIRE_ALL").is_none_or(|value| value != "1")
                );
                drop(writeln!(io::stderr(), "NOT RUN: there is no ssh-keygen"));
                return;
            };
            let key =
                PrivateKey::parse(&text).unwrap_or_else(|error| panic!("{kind} {more:?}: {error}"));
            let public = key.public().to_vec();
            let told = fs::read_to_string(at.join("key.pub")).unwrap();
            use base64::Engine as _;
            let encoded = base64::prelude::BASE64_STANDARD.encode(&public);
            assert!(told.contains(&encoded), "{kind} {more:?}: {told}");
            if text.starts_with(b"-----BEGIN OPENSSH") {
                assert_eq!(key.comment(), b"the comment");
            }
            let (_kept, agent) = start(AgentAccess::Keys(vec![key]));
            let mut client = connect(&agent);
            // What OpenSSH signs for a file: see its PROTOCOL.sshsig.
            let hash = ring::digest::digest(&ring::digest::SHA512, b"content");
            let to_sign = Message::new().string(b"file").string(b"").string(b"sha512");
            let mut data = b"SSHSIG".to_vec();
            data.extend(to_sign.string(hash.as_ref()).finish());
            let request = Message::new()
                .byte(SIGN_REQUEST)
                .string(&public)
                .string(&data);
            let answer = ask(&mut client, &request.u32(flags).finish());
            assert_eq!(answer[0], SIGN_RESPONSE, "{kind} {more:?}");
            let signature = Fields::new(&answer[1..]).string().unwrap().to_vec();
            let mut blob = b"SSHSIG".to_vec();
            let fields = Message::new()
                .u32(1)
                .string(&public)
                .string(b"file")
                .string(b"");
            blob.extend(fields.string(b"sha512").string(&signature).finish());
            let armored = format!(
                "-----BEGIN SSH SIGNATURE-----\n{}\n-----END SSH SIGNATURE-----\n",
                base64::prelude::BASE64_STANDARD.encode(blob)
            );
            fs::write(at.join("sig"), armored).unwrap();
            fs::write(at.join("content"), "content").unwrap();
            let check = Command::new("ssh-keygen")
                .args(["-Y", "check-novalidate", "-n", "file", "-s"])
                .arg(at.join("sig"))
                .stdin(File::open(at.join("content")).unwrap())
                .output()
                .unwrap();
            assert!(check.status.success(), "{kind} {more:?}: {check:?}");
        }
        for (arguments, wanted) in [
            (
                &["-N", "secret", "-t", "ed25519"][..],
                "it is encrypted with a passphrase",
            ),
            (
                &["-N", "secret", "-t", "rsa", "-b", "2048", "-m", "PEM"],
                "it is encrypted with a passphrase",
            ),
            (
                &["-N", "secret", "-t", "rsa", "-b", "2048", "-m", "PKCS8"],
                "it is encrypted with a passphrase",
            ),
            (
                &["-N", "", "-t", "ecdsa", "-b", "521"],
                "keys of type `nistp521` are not supported",
            ),
        ] {
            let text = generated(at, arguments).unwrap();
            let error = PrivateKey::parse(&text).unwrap_err();
            assert_eq!(error.to_string(), wanted, "{arguments:?}");
        }
    }

    #[test]
    fn what_is_no_key_is_refused_and_nothing_torn_panics() {
        for text in [
            "",
            "ssh-ed25519 AAAA",
            "-----BEGIN OPENSSH PRIVATE KEY-----\n!!\n-----END ",
        ] {
            assert!(PrivateKey::parse(text.as_bytes()).is_err(), "{text}");
        }
        let directory = tempfile::tempdir().unwrap();
        let Some(text) = generated(directory.path(), &["-N", "", "-t", "ed25519"]) else {
            return;
        };
        use base64::Engine as _;
        let engine = base64::prelude::BASE64_STANDARD;
        let text = String::from_utf8(text).unwrap();
        let body: String = text.lines().filter(|line| !line.starts_with('-')).collect();
        let bytes = engine.decode(body).unwrap();
        for length in 0..bytes.len() - 40 {
            let torn = format!(
                "-----BEGIN OPENSSH PRIVATE KEY-----\n{}\n-----END ",
                engine.encode(&bytes[..length])
            );
            assert!(PrivateKey::parse(torn.as_bytes()).is_err(), "{length}");
        }
    }
}
