//! Registry servers of others on a loopback port, for as long as the value lives: Debian's `docker-registry` (the `distribution`
//! daemon), and `ferro-oci-server`, which shares no code with it and lists referrers.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::support::power;

pub(crate) struct Server {
    child: Child,
    /// `127.0.0.1:PORT`
    pub(crate) address: String,
    directory: TempDir,
}

impl Server {
    /// Starts a registry that lets everybody in, or only this user.
    pub(crate) fn start(login: Option<(&str, &str)>) -> Server {
        Server::distribution(login, false)
    }

    /// Starts a registry with HTTPS, whose certificate is signed by the authority in `certificates/ca.crt`, and with a user.
    pub(crate) fn start_secure(login: (&str, &str)) -> Server {
        Server::distribution(Some(login), true)
    }

    /// Starts the other implementation.
    pub(crate) fn start_other(program: &Path) -> Server {
        let (directory, address) = place();
        let mut command = Command::new(program);
        command.env("FERRO_OCI_LISTEN", &address);
        Server::run(command, address, directory)
    }

    /// Returns the directory with the authority's certificate, as `--cert-dir` of other tools wants it.
    pub(crate) fn certificates(&self) -> PathBuf {
        self.directory.path().join("certificates")
    }

    fn distribution(login: Option<(&str, &str)>, is_secure: bool) -> Server {
        let (directory, address) = place();
        let storage = directory.path().join("storage");
        let mut config = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\n  delete:\n    enabled: true\nhttp:\n  addr: {address}\n",
            storage.display()
        );
        if let Some((user, password)) = login {
            let made = Command::new(power::program("htpasswd").unwrap())
                .args(["-Bbn", user, password])
                .output()
                .unwrap();
            let file = directory.path().join("htpasswd");
            fs::write(&file, made.stdout).unwrap();
            config.push_str(&format!(
                "auth:\n  htpasswd:\n    realm: test\n    path: {}\n",
                file.display()
            ));
        }
        if is_secure {
            let made = certificates(&directory.path().join("certificates"));
            // Right after the address of the same section.
            let tls = format!(
                "  addr: {address}\n  tls:\n    certificate: {0}/server.pem\n    key: {0}/server-key.pem\n",
                made.display()
            );
            config = config.replace(&format!("  addr: {address}\n"), &tls);
        }
        let file = directory.path().join("config.yml");
        fs::write(&file, config).unwrap();
        let mut command = Command::new(power::program("docker-registry").unwrap());
        command.arg("serve").arg(&file);
        Server::run(command, address, directory)
    }

    fn run(mut command: Command, address: String, directory: TempDir) -> Server {
        let mut child = command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        while TcpStream::connect(&address).is_err() {
            assert!(
                child.try_wait().unwrap().is_none(),
                "the registry ended at once"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        Server {
            child,
            address,
            directory,
        }
    }
}

/// Returns a directory and a free address.
fn place() -> (TempDir, String) {
    let directory = tempfile::Builder::new()
        .prefix("builder-registry-")
        .tempdir()
        .unwrap();
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    (directory, free.local_addr().unwrap().to_string())
}

/// Makes an authority and a server's certificate of it.
fn certificates(directory: &Path) -> PathBuf {
    // What other tools look at holds the authority alone: a certificate beside it would be a client's.
    let private = directory.with_file_name("private");
    fs::create_dir(directory).unwrap();
    fs::create_dir(&private).unwrap();
    let file = |name: &str| private.join(name).to_str().unwrap().to_owned();
    let authority = directory.join("ca.crt").to_str().unwrap().to_owned();
    let openssl = |args: &[&str]| drop(crate::tool("openssl", args));
    let key = [
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
    ];
    let mut make = vec!["req", "-x509", "-subj", "/CN=test authority", "-days", "9"];
    make.extend(key);
    openssl(
        &[
            &make[..],
            &["-keyout", &file("ca-key.pem"), "-out", &authority],
        ]
        .concat(),
    );
    let mut ask = vec!["req", "-subj", "/CN=registry"];
    ask.extend(key);
    openssl(
        &[
            &ask[..],
            &[
                "-keyout",
                &file("server-key.pem"),
                "-out",
                &file("server.csr"),
            ],
        ]
        .concat(),
    );
    fs::write(private.join("names"), "subjectAltName=IP:127.0.0.1\n").unwrap();
    openssl(&[
        "x509",
        "-req",
        "-days",
        "9",
        "-CAcreateserial",
        "-in",
        &file("server.csr"),
        "-CA",
        &authority,
        "-CAkey",
        &file("ca-key.pem"),
        "-CAserial",
        &file("serial"),
        "-extfile",
        &file("names"),
        "-out",
        &file("server.pem"),
    ]);
    private
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}
