//! Built-in logins against clouds that are played: each identity reaches the service that it is for, and nothing else.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use super::super::environment::Detour;
use super::super::fake::{Access, Fault, TokenRules};
use super::*;

const ECR: &str = "123456789012.dkr.ecr.eu-central-1.amazonaws.com";
const GAR: &str = "europe-west3-docker.pkg.dev";
const ACR: &str = "mine.azurecr.io";
/// What clouds are given and give; no error may hold them.
const SECRETS: [&str; 4] = ["hunter2-a", "hunter2-b", "hunter2-c", "hunter2-pass"];

/// One request to a service of a cloud.
#[derive(Clone, Debug)]
struct Asked {
    method: String,
    /// Host, path and query.
    target: String,
    headers: Vec<(String, String)>,
    body: String,
}

impl Asked {
    fn line(&self) -> String {
        format!("{} {}", self.method, self.target)
    }

    fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(found, _)| found == name);
        found.map_or("", |(_, value)| value)
    }

    fn field(&self, name: &str) -> String {
        let url = reqwest::Url::parse(&format!("http://x/?{}", self.body)).unwrap();
        let found = url.query_pairs().find(|(found, _)| found == name);
        found.map_or(String::new(), |(_, value)| value.into_owned())
    }
}

/// Status, one header, body.
type Told = (u16, (&'static str, String), String);

fn ok(body: impl Into<String>) -> Told {
    (200, ("x-none", String::new()), body.into())
}

fn no(status: u16) -> Told {
    (status, ("x-none", String::new()), String::new())
}

/// All services of all clouds, on one loopback port.
struct Clouds {
    address: SocketAddr,
    log: Arc<Mutex<Vec<Asked>>>,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Clouds {
    fn start(script: impl Fn(&Asked) -> Told + Send + 'static) -> Clouds {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let log: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let ends = Arc::new(AtomicBool::new(false));
        let (shared, told) = (log.clone(), ends.clone());
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if told.load(Ordering::SeqCst) {
                    return;
                }
                // One that only looks whether somebody is there sends nothing.
                if let Ok(Some(asked)) = stream.as_ref().map_err(|_| ()).and_then(read) {
                    shared.lock().unwrap().push(asked.clone());
                    let (status, (name, value), body) = script(&asked);
                    let length = body.len();
                    let body = match asked.method.as_str() {
                        "HEAD" => "",
                        _ => &body,
                    };
                    drop(write!(
                        stream.unwrap(),
                        "HTTP/1.1 {status} -\r\nConnection: close\r\n{name}: {value}\r\nContent-Length: {length}\r\n\r\n{body}"
                    ));
                }
            }
        });
        Clouds {
            address,
            log,
            ends,
            thread: Some(thread),
        }
    }

    /// Services that have nothing for anybody.
    fn silent() -> Clouds {
        Clouds::start(|_| no(404))
    }

    fn site(&self) -> String {
        format!("http://{}/", self.address)
    }

    fn take(&self) -> Vec<Asked> {
        std::mem::take(&mut self.log.lock().unwrap())
    }

    fn take_lines(&self) -> Vec<String> {
        self.take().iter().map(Asked::line).collect()
    }
}

impl Drop for Clouds {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::SeqCst);
        // Wakes the thread.
        drop(TcpStream::connect(self.address));
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn read(stream: &TcpStream) -> Result<Option<Asked>, ()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    if reader.read_line(&mut line).map_err(|_| ())? == 0 {
        return Ok(None);
    }
    let mut words = line.split(' ');
    let method = words.next().unwrap_or_default().to_owned();
    let target = words.next().unwrap_or_default();
    let target = target.trim_start_matches('/').to_owned();
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).map_err(|_| ())? == 0 || line.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':') {
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    let mut asked = Asked {
        method,
        target,
        headers,
        body: String::new(),
    };
    let mut body = vec![0; asked.header("content-length").parse().unwrap_or(0)];
    reader.read_exact(&mut body).map_err(|_| ())?;
    asked.body = String::from_utf8(body).map_err(|_| ())?;
    Ok(Some(asked))
}

/// A place for files that variables name.
struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Files {
        Files(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path: PathBuf = self.0.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    fn path(&self) -> String {
        self.0.path().display().to_string()
    }
}

/// Returns a client for which `host` is the registry called `name`, and the clouds are these.
fn client_in(clouds: &Clouds, host: &str, name: &str, variables: &[(&str, &str)]) -> Client {
    let variables: Vec<(&str, &OsStr)> = variables
        .iter()
        .map(|(name, value)| (*name, OsStr::new(*value)))
        .collect();
    let environment = Environment::of(Path::new("/nonexistent"), &variables).with_detour(Detour {
        site: Some(clouds.site()),
        plays: vec![(host.to_owned(), name.to_owned())],
    });
    let options = RegistryOptions::default();
    Client::with(&options, Threads::Some, environment, Tuning::for_tests()).unwrap()
}

fn no_secrets(told: &str) {
    for secret in SECRETS {
        assert!(!told.contains(secret), "{told}");
    }
}

/// A registry of Amazon's kind: a user name and a password.
fn ecr() -> FakeRegistry {
    let fake = FakeRegistry::start_with(Access::Basic {
        user: "AWS".into(),
        password: "hunter2-pass".into(),
    });
    fake.put_manifest("a", "1", MANIFEST, &manifest("a"));
    fake
}

/// What the password's service says.
fn password(password: &str, lives: i64) -> String {
    let token = STANDARD.encode(format!("AWS:{password}"));
    let ends = jiff::Timestamp::now().as_second() + lives;
    format!(r#"{{"authorizationData":[{{"authorizationToken":"{token}","expiresAt":{ends}.5}}]}}"#)
}

/// Amazon's services. The session of the keys that buy a password says where they come from.
fn amazon(asked: &Asked) -> Told {
    let role = |session: &str| {
        let action = asked.field("Action");
        ok(format!(
            "<{action}Response><Credentials><AccessKeyId>ASIA</AccessKeyId><SecretAccessKey>hunter2-b</SecretAccessKey><SessionToken>hunter2-{session}</SessionToken></Credentials></{action}Response>"
        ))
    };
    let keys = |session: &str| {
        ok(format!(
            r#"{{"Code":"Success","AccessKeyId":"ASIA","SecretAccessKey":"hunter2-b","Token":"hunter2-{session}"}}"#
        ))
    };
    match asked.line().as_str() {
        "POST api.ecr.eu-central-1.amazonaws.com/" => ok(password("hunter2-pass", 43200)),
        "POST sts.eu-central-1.amazonaws.com/" | "POST sts.eu-west-1.amazonaws.com/" => {
            role(&asked.field("RoleArn"))
        }
        "GET 169.254.170.2/v2/credentials/id" => keys("container"),
        "GET 169.254.170.23/v1/credentials" => keys("pod"),
        "PUT 169.254.169.254/latest/api/token" => ok("hunter2-c\n"),
        "GET 169.254.169.254/latest/meta-data/iam/security-credentials/" => ok("my-role\n"),
        "GET 169.254.169.254/latest/meta-data/iam/security-credentials/my-role" => keys("machine"),
        _ => no(404),
    }
}

#[test]
fn each_aws_identity_buys_a_password() {
    let files = Files::new();
    let token = files.write("token", "hunter2-a\n");
    let profiles = files.write(
        "credentials",
        "[default]\naws_access_key_id = AKID\naws_secret_access_key = hunter2-a\n[web]\nrole_arn = arn-web\nweb_identity_token_file = TOKEN\n[chain]\nrole_arn = arn-2\nsource_profile = middle\n[middle]\nrole_arn = arn-1\nsource_profile = default\nexternal_id = x\n[machine]\nrole_arn = arn-3\ncredential_source = Ec2InstanceMetadata\n"
            .replace("TOKEN", &token)
            .as_str(),
    );
    let sts = "POST sts.eu-central-1.amazonaws.com/";
    let buy = "POST api.ecr.eu-central-1.amazonaws.com/";
    let imds = "169.254.169.254/latest";
    let machine = [
        format!("PUT {imds}/api/token"),
        format!("GET {imds}/meta-data/iam/security-credentials/"),
        format!("GET {imds}/meta-data/iam/security-credentials/my-role"),
    ];
    let machine = machine.each_ref().map(String::as_str);
    // Variables, what is asked, the session of the keys in the end.
    let check = |variables: &[(&str, &str)], asked: &[&str], session: &str| {
        let (fake, clouds) = (ecr(), Clouds::start(amazon));
        let client = client_in(&clouds, &fake.host(), ECR, variables);
        for _ in 0..2 {
            client
                .resolve(&image(&fake, "a:1"))
                .unwrap_or_else(|error| panic!("{variables:?}: {}", told(&error)));
        }
        let log = clouds.take();
        let lines: Vec<String> = log.iter().map(Asked::line).collect();
        assert_eq!(lines, [asked, &[buy]].concat(), "{variables:?}");
        let bought = log.last().unwrap();
        assert_eq!(bought.header("x-amz-security-token"), session);
        assert_eq!(
            bought.header("x-amz-target"),
            "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken"
        );
        let signed = bought.header("authorization");
        assert!(
            signed.starts_with("AWS4-HMAC-SHA256 Credential=A")
                && signed.contains(
                    "/eu-central-1/ecr/aws4_request, SignedHeaders=content-type;host;x-amz-date;"
                ),
            "{signed}"
        );
        log
    };
    let keys = [
        ("AWS_ACCESS_KEY_ID", "AKID"),
        ("AWS_SECRET_ACCESS_KEY", "hunter2-a"),
    ];
    check(&keys, &[], "");
    check(
        &[keys[0], keys[1], ("AWS_SESSION_TOKEN", "hunter2-c")],
        &[],
        "hunter2-c",
    );
    let web = [
        ("AWS_WEB_IDENTITY_TOKEN_FILE", token.as_str()),
        ("AWS_ROLE_ARN", "arn-irsa"),
    ];
    let log = check(&web, &[sts], "hunter2-arn-irsa");
    assert_eq!(log[0].field("Action"), "AssumeRoleWithWebIdentity");
    assert_eq!(log[0].field("WebIdentityToken"), "hunter2-a");
    assert_eq!(log[0].header("authorization"), "");
    check(
        &[web[0], web[1], ("AWS_REGION", "eu-west-1")],
        &["POST sts.eu-west-1.amazonaws.com/"],
        "hunter2-arn-irsa",
    );
    let shared = ("AWS_SHARED_CREDENTIALS_FILE", profiles.as_str());
    check(&[shared], &[], "");
    check(&[shared, ("AWS_PROFILE", "web")], &[sts], "hunter2-arn-web");
    let log = check(
        &[shared, ("AWS_PROFILE", "chain")],
        &[sts, sts],
        "hunter2-arn-2",
    );
    assert_eq!(log[0].field("RoleArn"), "arn-1");
    assert_eq!(log[0].field("ExternalId"), "x");
    assert!(log[0].header("authorization").contains("/sts/aws4_request"));
    assert_eq!(log[1].header("x-amz-security-token"), "hunter2-arn-1");
    check(
        &[shared, ("AWS_PROFILE", "machine")],
        &[&machine[..], &[sts]].concat(),
        "hunter2-arn-3",
    );
    let log = check(
        &[(
            "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
            "/v2/credentials/id",
        )],
        &["GET 169.254.170.2/v2/credentials/id"],
        "hunter2-container",
    );
    assert_eq!(log[0].header("authorization"), "");
    let pod = (
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        "http://169.254.170.23/v1/credentials",
    );
    let log = check(
        &[pod, ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", &token)],
        &["GET 169.254.170.23/v1/credentials"],
        "hunter2-pod",
    );
    assert_eq!(log[0].header("authorization"), "hunter2-a");
    let log = check(&[], &machine, "hunter2-machine");
    assert_eq!(log[1].header("x-aws-ec2-metadata-token"), "hunter2-c");
    // The home directory's files, and a profile that holds no more than a region.
    files.write("home/.aws/config", "[default]\nregion = eu-west-1\n");
    let home = format!("{}/home", files.path());
    check(&[("HOME", &home)], &machine, "hunter2-machine");
}

#[test]
fn the_public_gallery_has_a_service_of_its_own() {
    let token = STANDARD.encode("AWS:hunter2-pass");
    let clouds = Clouds::start(move |_| {
        ok(format!(
            r#"{{"authorizationData":{{"authorizationToken":"{token}","expiresAt":1.0E10}}}}"#
        ))
    });
    let fake = bearer(&[("AWS", "hunter2-pass")], false);
    let keys = [
        ("AWS_ACCESS_KEY_ID", "AKID"),
        ("AWS_SECRET_ACCESS_KEY", "hunter2-a"),
    ];
    let client = client_in(&clouds, &fake.host(), "public.ecr.aws", &keys);
    client.resolve(&image(&fake, "a:1")).unwrap();
    let log = clouds.take();
    assert_eq!(
        log[0].line(),
        "POST api.ecr-public.us-east-1.amazonaws.com/"
    );
    assert!(
        log[0]
            .header("authorization")
            .contains("/us-east-1/ecr-public/aws4_request")
    );
}

/// A registry with a token service.
fn bearer(users: &[(&str, &str)], public: bool) -> FakeRegistry {
    let fake = FakeRegistry::start_with(Access::Bearer(TokenRules {
        users: users
            .iter()
            .map(|(user, password)| ((*user).to_owned(), (*password).to_owned(), true))
            .collect(),
        identity_tokens: vec!["hunter2-c".into()],
        public,
        ..TokenRules::default()
    }));
    fake.put_manifest("a", "1", MANIFEST, &manifest("a"));
    fake
}

/// Google's services.
fn google(asked: &Asked) -> Told {
    let token = |value: &str| {
        ok(format!(
            r#"{{"access_token":"{value}","expires_in":3599,"token_type":"Bearer"}}"#
        ))
    };
    match asked.line().as_str() {
        "POST oauth2.googleapis.com/token" => token("hunter2-pass"),
        "POST sts.googleapis.com/v1/token" => match asked.field("audience").as_str() {
            "straight" => token("hunter2-pass"),
            _ => token("hunter2-b"),
        },
        "POST iamcredentials.googleapis.com/v1/x:generateAccessToken" => {
            ok(r#"{"accessToken":"hunter2-pass","expireTime":"2999-01-01T00:00:00Z"}"#)
        }
        "GET token.example.com/id" => ok(r#"{"value":"hunter2-a"}"#),
        "GET 169.254.169.254/computeMetadata/v1/instance/service-accounts/default/token" => {
            let (status, _, body) = token("hunter2-pass");
            (status, ("metadata-flavor", "Google".to_owned()), body)
        }
        _ => no(404),
    }
}

#[test]
fn each_google_identity_buys_a_token() {
    let files = Files::new();
    let check = |text: &str, asked: &[&str]| {
        let fake = bearer(&[("oauth2accesstoken", "hunter2-pass")], false);
        let clouds = Clouds::start(google);
        let path = files.write("key.json", text);
        let variables = [("GOOGLE_APPLICATION_CREDENTIALS", path.as_str())];
        let variables = if text.is_empty() { &[][..] } else { &variables };
        let client = client_in(&clouds, &fake.host(), GAR, variables);
        for _ in 0..2 {
            client
                .resolve(&image(&fake, "a:1"))
                .unwrap_or_else(|error| panic!("{text}: {}", told(&error)));
        }
        let log = clouds.take();
        let lines: Vec<String> = log.iter().map(Asked::line).collect();
        assert_eq!(lines, asked, "{text}");
        log
    };
    let key = serde_json::json!(super::super::cloud::TEST_KEY);
    let log = check(
        &format!(
            r#"{{"type":"service_account","client_email":"me@x","private_key_id":"k","private_key":{key},"token_uri":"https://oauth2.googleapis.com/token"}}"#
        ),
        &["POST oauth2.googleapis.com/token"],
    );
    assert_eq!(
        log[0].field("grant_type"),
        "urn:ietf:params:oauth:grant-type:jwt-bearer"
    );
    let assertion = log[0].field("assertion");
    let claims = assertion.split('.').nth(1).unwrap();
    let claims: serde_json::Value =
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
    assert_eq!(claims["iss"], "me@x");
    assert_eq!(claims["aud"], "https://oauth2.googleapis.com/token");
    let user = r#"{"type":"authorized_user","client_id":"id","client_secret":"hunter2-b","refresh_token":"hunter2-a"}"#;
    let log = check(user, &["POST oauth2.googleapis.com/token"]);
    assert_eq!(log[0].field("refresh_token"), "hunter2-a");
    let subject = files.write("subject", "hunter2-a\n");
    let log = check(
        &format!(
            r#"{{"type":"external_account","audience":"straight","subject_token_type":"jwt","token_url":"https://sts.googleapis.com/v1/token","credential_source":{{"file":"{subject}"}}}}"#
        ),
        &["POST sts.googleapis.com/v1/token"],
    );
    assert_eq!(log[0].field("subject_token"), "hunter2-a");
    let act = "https://iamcredentials.googleapis.com/v1/x:generateAccessToken";
    let log = check(
        &format!(
            r#"{{"type":"external_account","audience":"round","subject_token_type":"jwt","credential_source":{{"url":"https://token.example.com/id","headers":{{"Authorization":"Bearer hunter2-c"}},"format":{{"type":"json","subject_token_field_name":"value"}}}},"service_account_impersonation_url":"{act}"}}"#
        ),
        &[
            "GET token.example.com/id",
            "POST sts.googleapis.com/v1/token",
            "POST iamcredentials.googleapis.com/v1/x:generateAccessToken",
        ],
    );
    assert_eq!(log[0].header("authorization"), "Bearer hunter2-c");
    assert_eq!(log[1].field("subject_token"), "hunter2-a");
    assert_eq!(log[2].header("authorization"), "Bearer hunter2-b");
    let log = check(
        &format!(
            r#"{{"type":"impersonated_service_account","service_account_impersonation_url":"{act}","source_credentials":{user},"delegates":["d"]}}"#
        ),
        &[
            "POST oauth2.googleapis.com/token",
            "POST iamcredentials.googleapis.com/v1/x:generateAccessToken",
        ],
    );
    assert!(log[1].body.contains(r#""delegates":["d"]"#));
    let machine = "GET 169.254.169.254/computeMetadata/v1/instance/service-accounts/default/token";
    let log = check("", &[machine]);
    assert_eq!(log[0].header("metadata-flavor"), "Google");
}

/// Azure's services.
fn azure(asked: &Asked) -> Told {
    let token = || ok(r#"{"access_token":"hunter2-b","expires_in":"3599"}"#);
    let target = asked.target.split('?').next().unwrap();
    match (asked.method.as_str(), target) {
        ("POST", "login.microsoftonline.com/tenant/oauth2/v2.0/token") => token(),
        ("POST", "mine.azurecr.io/oauth2/exchange") => {
            assert_eq!(asked.field("access_token"), "hunter2-b");
            ok(r#"{"refresh_token":"hunter2-c"}"#)
        }
        ("GET", "169.254.169.254/metadata/identity/oauth2/token") => token(),
        ("GET", "localhost:42356/msi/token") => token(),
        _ => no(404),
    }
}

#[test]
fn each_azure_identity_buys_a_refresh_token() {
    let files = Files::new();
    let file = files.write("federated", "hunter2-a\n");
    let check = |variables: &[(&str, &str)], asked: &str| {
        let user = "00000000-0000-0000-0000-000000000000";
        let fake = bearer(&[(user, "none")], false);
        let clouds = Clouds::start(azure);
        let client = client_in(&clouds, &fake.host(), ACR, variables);
        for _ in 0..2 {
            client
                .resolve(&image(&fake, "a:1"))
                .unwrap_or_else(|error| panic!("{variables:?}: {}", told(&error)));
        }
        let log = clouds.take();
        let lines: Vec<String> = log.iter().map(Asked::line).collect();
        let exchange = "POST mine.azurecr.io/oauth2/exchange";
        assert_eq!(lines, [asked, exchange], "{variables:?}");
        assert_eq!(log[1].field("grant_type"), "access_token");
        assert_eq!(log[1].field("service"), "mine.azurecr.io");
        let bought: Vec<String> = lines_of(&fake, "/token");
        assert_eq!(bought.last().unwrap(), "POST 200");
        log
    };
    let client = ("AZURE_CLIENT_ID", "client");
    let tenant = ("AZURE_TENANT_ID", "tenant");
    let directory = "POST login.microsoftonline.com/tenant/oauth2/v2.0/token";
    let log = check(
        &[client, tenant, ("AZURE_CLIENT_SECRET", "hunter2-a")],
        directory,
    );
    assert_eq!(log[0].field("client_secret"), "hunter2-a");
    assert_eq!(log[1].field("tenant"), "tenant");
    assert_eq!(
        log[0].field("scope"),
        "https://containerregistry.azure.net/.default"
    );
    let host = ("AZURE_AUTHORITY_HOST", "https://login.microsoftonline.com/");
    let log = check(
        &[client, tenant, host, ("AZURE_FEDERATED_TOKEN_FILE", &file)],
        directory,
    );
    assert_eq!(log[0].field("client_assertion"), "hunter2-a");
    let query = "resource=https%3A%2F%2Fcontainerregistry.azure.net";
    let log = check(
        &[
            ("IDENTITY_ENDPOINT", "http://localhost:42356/msi/token"),
            ("IDENTITY_HEADER", "hunter2-a"),
        ],
        &format!("GET localhost:42356/msi/token?api-version=2019-08-01&{query}"),
    );
    assert_eq!(log[0].header("x-identity-header"), "hunter2-a");
    let imds = "GET 169.254.169.254/metadata/identity/oauth2/token?api-version=2018-02-01";
    let log = check(&[client], &format!("{imds}&{query}&client_id=client"));
    assert_eq!(log[0].header("metadata"), "true");
    check(&[], &format!("{imds}&{query}"));
}

/// Returns method and status of what was asked of a registry's path.
fn lines_of(fake: &FakeRegistry, part: &str) -> Vec<String> {
    let log = fake.take_log();
    log.iter()
        .filter(|entry| entry.target.starts_with(part))
        .map(|entry| format!("{} {}", entry.method, entry.status))
        .collect()
}

#[test]
fn public_images_ask_no_cloud() {
    for name in [GAR, ACR, "public.ecr.aws"] {
        let fake = bearer(&[], true);
        let clouds = Clouds::silent();
        let client = client_in(&clouds, &fake.host(), name, &[]);
        client.manifest(&image(&fake, "a:1")).unwrap();
        assert_eq!(clouds.take_lines(), [""; 0], "{name}");
        // To write needs somebody: here there is nobody, and that is asked once.
        for _ in 0..2 {
            let error = client
                .push_manifest(&image(&fake, "a:2"), MANIFEST, &manifest("x"))
                .unwrap_err();
            let had_none = matches!(
                error,
                RegistryError::Denied {
                    had_credentials: false,
                    ..
                }
            );
            assert!(had_none, "{error:?}");
        }
        assert_eq!(clouds.take_lines().len(), 1, "{name}");
    }
    let open = FakeRegistry::start();
    open.put_manifest("a", "1", MANIFEST, &manifest("a"));
    let clouds = Clouds::silent();
    let client = client_in(&clouds, &open.host(), ECR, &[("AWS_ACCESS_KEY_ID", "x")]);
    client.manifest(&image(&open, "a:1")).unwrap();
    assert_eq!(clouds.take_lines(), [""; 0]);
}

#[test]
fn the_machine_is_asked_after_strangers_were_refused() {
    // With 401 by the registry, with 401 by its token service, and with 403 by the registry.
    type Breaks = fn(&FakeRegistry);
    let ways: [(bool, Breaks); 3] = [
        (false, |_| {}),
        (true, |fake| {
            fake.fault("GET", "/token", Fault::Status(401));
        }),
        (true, |fake| {
            fake.fault("HEAD", "manifests", Fault::Pass);
            fake.fault("HEAD", "manifests", Fault::Status(403));
        }),
    ];
    for (public, breaks) in ways {
        let fake = bearer(&[("oauth2accesstoken", "hunter2-pass")], public);
        breaks(&fake);
        let clouds = Clouds::start(google);
        let client = client_in(&clouds, &fake.host(), GAR, &[]);
        client.resolve(&image(&fake, "a:1")).unwrap();
        assert_eq!(clouds.take_lines().len(), 1);
        assert_eq!(fake.faults_left(), 0);
        let shown: Vec<bool> = fake
            .take_log()
            .iter()
            .filter(|entry| entry.target.starts_with("/token"))
            .map(|entry| entry.header("authorization").is_some())
            .collect();
        assert_eq!(shown, [false, true]);
        // It is remembered that this repository is not for everybody.
        client.manifest(&image(&fake, "a:1")).unwrap();
        assert_eq!(lines_of(&fake, "/token"), [""; 0]);
    }
}

#[test]
fn a_login_that_fails_keeps_nobody_from_what_is_public() {
    let keys = [
        ("AWS_ACCESS_KEY_ID", "AKID"),
        ("AWS_SECRET_ACCESS_KEY", "hunter2-a"),
        ("AWS_SESSION_TOKEN", "hunter2-b"),
    ];
    let clouds = Clouds::start(|asked| {
        let shown = asked.header("x-amz-security-token");
        let body = format!(r#"{{"__type":"AccessDeniedException","message":"{shown} may not"}}"#);
        (400, ("x-none", String::new()), body)
    });
    let fake = bearer(&[], true);
    let client = client_in(&clouds, &fake.host(), "public.ecr.aws", &keys);
    client.resolve(&image(&fake, "a:1")).unwrap();
    let error = client
        .push_manifest(&image(&fake, "a:2"), MANIFEST, &manifest("x"))
        .unwrap_err();
    assert!(matches!(error, RegistryError::Login { .. }), "{error:?}");
    let told = told(&error);
    assert!(
        told.contains("AccessDeniedException: *** may not"),
        "{told}"
    );
    no_secrets(&told);
    // A registry without strangers says so too.
    let fake = ecr();
    let client = client_in(&clouds, &fake.host(), ECR, &keys);
    let error = client.resolve(&image(&fake, "a:1")).unwrap_err();
    assert!(matches!(error, RegistryError::Login { .. }), "{error:?}");
}

#[test]
fn files_go_before_the_cloud_and_missing_helpers_do_not_matter() {
    let fake = ecr();
    let host = fake.host();
    let keys = [
        ("AWS_ACCESS_KEY_ID", "AKID"),
        ("AWS_SECRET_ACCESS_KEY", "hunter2-a"),
    ];
    let check = |config: &str, asked: usize| {
        let clouds = Clouds::start(amazon);
        let variables = [keys[0], keys[1], ("DOCKER_AUTH_CONFIG", config)];
        let client = client_in(&clouds, &host, ECR, &variables);
        client
            .resolve(&image(&fake, "a:1"))
            .unwrap_or_else(|error| panic!("{config}: {}", told(&error)));
        assert_eq!(clouds.take_lines().len(), asked, "{config}");
    };
    check(&account(&host, "AWS", "hunter2-pass"), 0);
    check(&account("other.io", "AWS", "hunter2-pass"), 1);
    // No such programs are there.
    check(r#"{"credsStore": "ecr-login"}"#, 1);
    check(
        &format!(r#"{{"credHelpers": {{"{host}": "ecr-login"}}}}"#),
        1,
    );
    let clouds = Clouds::silent();
    let config = format!(r#"{{"credHelpers": {{"{host}": "ecr-login"}}}}"#);
    let variables = [("DOCKER_AUTH_CONFIG", config.as_str())];
    let client = client_in(&clouds, &host, "elsewhere.io", &variables);
    let error = client.resolve(&image(&fake, "a:1")).unwrap_err();
    assert!(
        error.to_string().contains("docker-credential-ecr-login"),
        "{error}"
    );
}

#[test]
fn passwords_that_end_are_bought_again() {
    let keys = [
        ("AWS_ACCESS_KEY_ID", "AKID"),
        ("AWS_SECRET_ACCESS_KEY", "hunter2-a"),
    ];
    // One that ends within the minute is not used twice.
    let clouds = Clouds::start(|_| ok(password("hunter2-pass", 30)));
    let fake = ecr();
    let client = client_in(&clouds, &fake.host(), ECR, &keys);
    client.resolve(&image(&fake, "a:1")).unwrap();
    client.resolve(&image(&fake, "a:1")).unwrap();
    assert_eq!(clouds.take_lines().len(), 2);
    // One that is refused before its time is bought again, and once only.
    let bought = AtomicUsize::new(0);
    let clouds = Clouds::start(move |asked| {
        if asked.target.starts_with("v2/") {
            let wanted = format!("Basic {}", STANDARD.encode("AWS:hunter2-pass-2"));
            return match asked.header("authorization") == wanted {
                true => (
                    200,
                    ("content-type", MANIFEST.to_owned()),
                    String::from_utf8(manifest("a")).unwrap(),
                ),
                false => (
                    401,
                    ("www-authenticate", "Basic realm=\"x\"".to_owned()),
                    String::new(),
                ),
            };
        }
        let number = bought.fetch_add(1, Ordering::SeqCst) + 1;
        ok(password(&format!("hunter2-pass-{number}"), 43200))
    });
    let host = clouds.address.to_string();
    let client = client_in(&clouds, &host, ECR, &keys);
    let name: ImageRef = format!("{host}/a:1").parse().unwrap();
    // Bought for the first 401; the second 401 ends the request.
    let error = client.resolve(&name).unwrap_err();
    assert!(
        matches!(error, RegistryError::Unauthorized { .. }),
        "{error:?}"
    );
    let lines = clouds.take_lines();
    let buys = |lines: &[String]| {
        let mut bought = 0;
        for line in lines {
            bought += usize::from(line.contains("api.ecr."));
        }
        bought
    };
    assert_eq!(buys(&lines), 1, "{lines:?}");
    client.resolve(&name).unwrap();
    client.resolve(&name).unwrap();
    assert_eq!(buys(&clouds.take_lines()), 1);
}

#[test]
fn registries_that_look_alike_get_nothing() {
    let files = Files::new();
    let token = files.write("token", "hunter2-a");
    let variables = [
        ("AWS_ACCESS_KEY_ID", "AKID"),
        ("AWS_SECRET_ACCESS_KEY", "hunter2-a"),
        ("AZURE_CLIENT_ID", "client"),
        ("AZURE_TENANT_ID", "tenant"),
        ("AZURE_CLIENT_SECRET", "hunter2-a"),
        ("GOOGLE_APPLICATION_CREDENTIALS", token.as_str()),
        ("GITHUB_TOKEN", "hunter2-a"),
        ("CI_REGISTRY", "registry.gitlab.com"),
        ("CI_JOB_TOKEN", "hunter2-a"),
    ];
    for name in [
        "123456789012.dkr.ecr.eu-central-1.amazonaws.com.evil.com",
        "gcr.io.evil.com",
        "evilpkg.dev",
        "mine.azurecr.io:8443",
        "ghcr.io.evil.com",
        "127.0.0.1:1",
    ] {
        let (fake, clouds) = (ecr(), Clouds::silent());
        let client = client_in(&clouds, &fake.host(), name, &variables);
        let error = client.resolve(&image(&fake, "a:1")).unwrap_err();
        assert!(matches!(error, RegistryError::Denied { .. }), "{error:?}");
        assert_eq!(clouds.take_lines(), [""; 0], "{name}");
        let log = fake.take_log();
        assert!(
            log.iter()
                .all(|entry| entry.header("authorization").is_none()),
            "{log:?}"
        );
    }
}

#[test]
fn secrets_follow_no_redirect_to_another_host() {
    let elsewhere = Arc::new(Clouds::start(|_| ok("{}")));
    let site = elsewhere.site();
    for status in [301, 302, 307, 308] {
        let to = site.clone();
        let clouds = Clouds::start(move |_| (status, ("location", to.clone()), String::new()));
        let files = Files::new();
        let token = files.write("token", "hunter2-a");
        for (name, variables) in [
            (
                ECR,
                &[
                    ("AWS_WEB_IDENTITY_TOKEN_FILE", token.as_str()),
                    ("AWS_ROLE_ARN", "arn"),
                ][..],
            ),
            (
                ECR,
                &[
                    (
                        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
                        "http://169.254.170.23/v1/credentials",
                    ),
                    ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "hunter2-a"),
                ][..],
            ),
        ] {
            let fake = ecr();
            let client = client_in(&clouds, &fake.host(), name, variables);
            let error = client.resolve(&image(&fake, "a:1")).unwrap_err();
            let told = told(&error);
            assert!(told.contains(&format!("status {status}")), "{told}");
            no_secrets(&told);
        }
    }
    assert_eq!(elsewhere.take_lines(), [""; 0]);
}

#[test]
fn settings_that_cannot_be_used_are_named() {
    let files = Files::new();
    let text = files.write("text", "hunter2-a");
    let service = files.write(
        "service.json",
        r#"{"type":"service_account","client_email":"x","private_key":"hunter2-a","token_uri":"https://evil.com/"}"#,
    );
    let bad_key = files.write(
        "key.json",
        r#"{"type":"service_account","client_email":"x","private_key":"hunter2-a"}"#,
    );
    let program = files.write(
        "program.json",
        r#"{"type":"external_account","audience":"a","subject_token_type":"t","credential_source":{"executable":{"command":"x"}}}"#,
    );
    let kind = files.write(
        "kind.json",
        r#"{"type":"external_account_authorized_user"}"#,
    );
    let profiles = files.write(
        "credentials",
        "[half]\naws_access_key_id=A\n[process]\ncredential_process = hunter2-a\n[circle]\nrole_arn=x\nsource_profile=circle2\n[circle2]\nrole_arn=x\nsource_profile=circle\n[mfa]\nrole_arn=x\nmfa_serial=y\nsource_profile=half\n",
    );
    let shared = ("AWS_SHARED_CREDENTIALS_FILE", profiles.as_str());
    let client = ("AZURE_CLIENT_ID", "c");
    let secret = ("AZURE_CLIENT_SECRET", "hunter2-a");
    fn google(path: &str) -> (&str, &str) {
        ("GOOGLE_APPLICATION_CREDENTIALS", path)
    }
    // Registry, variables, a word of the error.
    type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str);
    let cases: [Case<'_>; 17] = [
        (ECR, &[("AWS_ACCESS_KEY_ID", "A")], "AWS_SECRET_ACCESS_KEY"),
        (
            ECR,
            &[("AWS_WEB_IDENTITY_TOKEN_FILE", "/nonexistent/x")],
            "AWS_ROLE_ARN",
        ),
        (
            ECR,
            &[
                ("AWS_WEB_IDENTITY_TOKEN_FILE", "/nonexistent/x"),
                ("AWS_ROLE_ARN", "arn"),
            ],
            "cannot read `/nonexistent/x`",
        ),
        (
            ECR,
            &[("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://evil.com/x")],
            "plain HTTP",
        ),
        (ECR, &[shared, ("AWS_PROFILE", "none")], "no profile `none`"),
        (
            ECR,
            &[shared, ("AWS_PROFILE", "half")],
            "aws_secret_access_key",
        ),
        (
            ECR,
            &[shared, ("AWS_PROFILE", "process")],
            "credential_process",
        ),
        (ECR, &[shared, ("AWS_PROFILE", "circle")], "circle"),
        (ECR, &[shared, ("AWS_PROFILE", "mfa")], "MFA"),
        (
            ECR,
            &[
                ("AWS_ACCESS_KEY_ID", "A"),
                ("AWS_SECRET_ACCESS_KEY", "hunter2-a"),
                ("AWS_REGION", "evil.com/"),
            ],
            "AWS_REGION",
        ),
        (GAR, &[google(&text)], "no JSON of a known kind"),
        (GAR, &[google(&service)], "googleapis.com"),
        (GAR, &[google(&bad_key)], "`private_key` is no PEM"),
        (GAR, &[google(&program)], "neither a file nor a URL"),
        (GAR, &[google(&kind)], "`type` is not known"),
        (ACR, &[client, secret], "AZURE_TENANT_ID"),
        (
            ACR,
            &[
                client,
                secret,
                ("AZURE_TENANT_ID", "t"),
                ("AZURE_AUTHORITY_HOST", "https://login.evil.com/"),
            ],
            "AZURE_AUTHORITY_HOST",
        ),
    ];
    for (name, variables, word) in cases {
        let (fake, clouds) = (ecr(), Clouds::silent());
        let client = client_in(&clouds, &fake.host(), name, variables);
        let error = client.resolve(&image(&fake, "a:1")).unwrap_err();
        let told = told(&error);
        assert!(told.contains(word), "{variables:?}: {told}");
        no_secrets(&told);
        assert_eq!(clouds.take_lines(), [""; 0], "{variables:?}");
    }
}

#[test]
fn services_that_stumble_are_asked_again_and_nonsense_is_told() {
    let keys = [
        ("AWS_ACCESS_KEY_ID", "AKID"),
        ("AWS_SECRET_ACCESS_KEY", "hunter2-a"),
    ];
    let asked_before = AtomicUsize::new(0);
    let clouds = Clouds::start(move |_| match asked_before.fetch_add(1, Ordering::SeqCst) {
        0 => no(503),
        1 => no(429),
        _ => ok(password("hunter2-pass", 43200)),
    });
    let fake = ecr();
    let client = client_in(&clouds, &fake.host(), ECR, &keys);
    client.resolve(&image(&fake, "a:1")).unwrap();
    for body in [
        "",
        "hunter2-pass",
        r#"{"authorizationData":[]}"#,
        r#"{"authorizationData":[{"authorizationToken":"hunter2-pass!","expiresAt":1}]}"#,
        r#"{"authorizationData":[{"authorizationToken":"aHVudGVyMg==","expiresAt":1}]}"#,
    ] {
        let clouds = Clouds::start(move |_| ok(body));
        let fake = ecr();
        let client = client_in(&clouds, &fake.host(), ECR, &keys);
        let error = client.resolve(&image(&fake, "a:1")).unwrap_err();
        let told = told(&error);
        assert!(told.contains("with something else"), "{body}: {told}");
        no_secrets(&told);
        assert!(!format!("{client:?}").contains("hunter2"));
    }
}
