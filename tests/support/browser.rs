//! A headless Chromium, spoken to over its debugging pipe: no port, no driver.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use base64::Engine as _;
use serde_json::{Value, json};

use super::power;

/// One page in one browser, which ends with it.
pub struct Browser {
    child: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
    session: Option<String>,
    number: u64,
    /// What happened while answers were waited for.
    events: Vec<Value>,
    /// Of its profile.
    _directory: tempfile::TempDir,
}

/// What the page is looked at with.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    pub width: u32,
    pub height: u32,
    pub is_dark: bool,
}

/// A picture, as red, green and blue.
pub struct Picture {
    pub width: usize,
    pub pixels: Vec<[u8; 3]>,
    /// As it was taken.
    pub png: Vec<u8>,
}

impl Browser {
    /// Starts a browser; `None` where there is none.
    pub fn start() -> Option<Browser> {
        let Some(program) = power::program("chromium") else {
            power::not_run("needs chromium");
            return None;
        };
        let directory = tempfile::Builder::new()
            .prefix("chromium-")
            .tempdir_in(env!("CARGO_TARGET_TMPDIR"))
            .unwrap();
        // The pipe is the descriptors 3 and 4.
        let mut child = Command::new("/bin/sh")
            .args([
                "-c",
                "exec \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>&1",
                "sh",
            ])
            .arg(program)
            .args([
                "--headless=new",
                "--remote-debugging-pipe",
                // The tests run as root, too; the page is their own.
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--no-first-run",
                "--hide-scrollbars",
            ])
            .arg(format!("--user-data-dir={}", directory.path().display()))
            .env("HOME", directory.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut browser = Browser {
            commands: child.stdin.take().unwrap(),
            answers: BufReader::new(child.stdout.take().unwrap()),
            child,
            session: None,
            number: 0,
            events: Vec::new(),
            _directory: directory,
        };
        let target = browser.ask("Target.createTarget", json!({ "url": "about:blank" }));
        let attached = browser.ask(
            "Target.attachToTarget",
            json!({ "targetId": target["targetId"], "flatten": true }),
        );
        browser.session = Some(attached["sessionId"].as_str().unwrap().to_owned());
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.ask(&format!("{domain}.enable"), json!({}));
        }
        Some(browser)
    }

    /// Sends a command and returns its answer.
    pub fn ask(&mut self, method: &str, parameters: Value) -> Value {
        self.number += 1;
        let mut message = json!({ "id": self.number, "method": method, "params": parameters });
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        self.commands.write_all(&bytes).unwrap();
        loop {
            let mut answer = self.read();
            if answer["id"] == self.number {
                assert!(answer.get("error").is_none(), "{method}: {answer}");
                return answer["result"].take();
            }
            self.events.push(answer);
        }
    }

    fn read(&mut self) -> Value {
        let mut bytes = Vec::new();
        self.answers.read_until(0, &mut bytes).unwrap();
        assert_eq!(bytes.pop(), Some(0), "the browser has ended");
        serde_json::from_slice(&bytes).unwrap()
    }

    /// Opens a file in a window of this kind, and returns when all of it is there.
    pub fn open(&mut self, file: &Path, fragment: &str, window: Window) {
        let scheme = if window.is_dark { "dark" } else { "light" };
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            json!({ "width": window.width, "height": window.height, "deviceScaleFactor": 1, "mobile": window.width < 600 }),
        );
        self.ask(
            "Emulation.setEmulatedMedia",
            json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] }),
        );
        self.ask("Page.navigate", json!({ "url": "about:blank" }));
        self.wait("Page.loadEventFired");
        self.events.clear();
        let url = format!("file://{}{fragment}", file.display());
        self.ask("Page.navigate", json!({ "url": url }));
        self.wait("Page.loadEventFired");
        // What the page says of itself comes before this.
        self.evaluate("document.readyState");
    }

    fn wait(&mut self, event: &str) {
        while !self.events.iter().any(|known| known["method"] == event) {
            let next = self.read();
            self.events.push(next);
        }
        self.events.retain(|known| known["method"] != event);
    }

    /// Returns what has gone wrong in the page, and what it has asked the network for.
    pub fn complaints(&self) -> Vec<String> {
        let wrong = self.events.iter().filter(|event| {
            let method = event["method"].as_str().unwrap_or_default();
            let url = event["params"]["request"]["url"]
                .as_str()
                .unwrap_or_default();
            match method {
                "Runtime.exceptionThrown" | "Runtime.consoleAPICalled" | "Log.entryAdded" => true,
                "Network.requestWillBeSent" => !url.starts_with("file://"),
                _ => false,
            }
        });
        wrong.map(Value::to_string).collect()
    }

    /// Returns the URLs that the page has asked for.
    pub fn requests(&self) -> Vec<String> {
        let requests = self
            .events
            .iter()
            .filter(|event| event["method"] == "Network.requestWillBeSent");
        requests
            .map(|event| {
                event["params"]["request"]["url"]
                    .as_str()
                    .unwrap()
                    .to_owned()
            })
            .collect()
    }

    /// Returns the value of an expression in the page.
    pub fn evaluate(&mut self, expression: &str) -> Value {
        let mut answer = self.ask(
            "Runtime.evaluate",
            json!({ "expression": expression, "returnByValue": true, "awaitPromise": true }),
        );
        assert!(
            answer.get("exceptionDetails").is_none(),
            "{expression}: {answer}"
        );
        answer["result"]["value"].take()
    }

    /// Takes a picture of all of the page, or of what the window shows.
    pub fn picture(&mut self, is_whole: bool) -> Picture {
        let taken = self.ask(
            "Page.captureScreenshot",
            json!({ "format": "png", "captureBeyondViewport": is_whole }),
        );
        let png = base64::prelude::BASE64_STANDARD
            .decode(taken["data"].as_str().unwrap())
            .unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(&png))
            .read_info()
            .unwrap();
        let mut bytes = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut bytes).unwrap();
        let samples = info.color_type.samples();
        let pixels = bytes[..info.buffer_size()]
            .chunks_exact(samples)
            .map(|pixel| [pixel[0], pixel[1], pixel[2]])
            .collect();
        Picture {
            width: info.width as usize,
            pixels,
            png,
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Picture {
    /// Returns how many different colours there are.
    pub fn colours(&self) -> usize {
        let colours: std::collections::BTreeSet<_> = self.pixels.iter().collect();
        colours.len()
    }

    /// Returns how light it is on the whole, from 0 to 255.
    pub fn lightness(&self) -> f64 {
        let sum: f64 = self
            .pixels
            .iter()
            .map(|[red, green, blue]| {
                0.299 * f64::from(*red) + 0.587 * f64::from(*green) + 0.114 * f64::from(*blue)
            })
            .sum();
        sum / self.pixels.len() as f64
    }
}
