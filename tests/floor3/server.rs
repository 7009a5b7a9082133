//! Debian's `docker-registry` on a loopback port, for as long as the value lives.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::support::power;

pub(crate) struct Server {
    child: Child,
    /// `127.0.0.1:PORT`
    pub(crate) address: String,
    _directory: TempDir,
}

impl Server {
    /// Starts a registry that lets everybody in, or only this user.
    pub(crate) fn start(login: Option<(&str, &str)>) -> Server {
        let directory = tempfile::Builder::new()
            .prefix("builder-registry-")
            .tempdir()
            .unwrap();
        let free = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let address = free.to_string();
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
        let file = directory.path().join("config.yml");
        fs::write(&file, config).unwrap();
        let mut child = Command::new(power::program("docker-registry").unwrap())
            .arg("serve")
            .arg(&file)
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
            _directory: directory,
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}
