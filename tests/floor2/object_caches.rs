//! Several machines (state directories of their own) that share what steps came to through an object store, or GitHub's cache service.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::support::lab::{Lab, Ran};
use crate::support::objects::{BUCKET, FakeObjects, KEY, REGION, SECRET, TOKEN, Trouble};
use crate::support::registry::FakeRegistry;

/// Two stages; one step makes something that no second execution makes, another one uses a cache mount.
const STEPS: &str = "FROM HOST/base:v1 AS compile\nWORKDIR /src\nCOPY src/ .\nRUN head -c 300000 /dev/urandom > /random\n\
                     RUN --mount=type=cache,target=/c,id=c cat main.c >> /c/seen; cp /c/seen /seen\n\
                     FROM HOST/base:v1\nRUN echo 1 > /1\nCOPY --from=compile /random /seen /\n";

/// Machines with equal contexts, a registry that has their base, and nothing else in common.
struct Machines<const N: usize> {
    labs: [Lab; N],
    registry: FakeRegistry,
}

impl<const N: usize> Machines<N> {
    fn new() -> Option<Machines<N>> {
        let lab = Lab::with_base()?;
        let registry = FakeRegistry::start();
        let base = format!("{}/base:v1", registry.host());
        lab.builder(&["push", "base", &base]).succeeds();
        let machines = Machines {
            labs: [(); N].map(|()| Lab::new()),
            registry,
        };
        for lab in &machines.labs {
            lab.file("src/main.c", "one\n");
            machines.dockerfile(lab, STEPS);
        }
        Some(machines)
    }

    fn dockerfile(&self, lab: &Lab, text: &str) {
        lab.dockerfile(&text.replace("HOST", &self.registry.host()));
    }
}

/// Builds `image`.
fn build(lab: &Lab, fake: &FakeObjects, args: &[&str]) -> Ran {
    let context = lab.context();
    let mut all = vec!["build", "--progress=plain", "-t", "image"];
    all.extend_from_slice(args);
    all.push(context.to_str().unwrap());
    run(lab, fake, &all)
}

/// Runs the program with what a job has in its environment; nothing of it may show.
fn run(lab: &Lab, fake: &FakeObjects, args: &[&str]) -> Ran {
    let mut command = lab.command();
    command
        .args(args)
        .env("AWS_ACCESS_KEY_ID", KEY)
        .env("AWS_SECRET_ACCESS_KEY", SECRET)
        .env("AWS_REGION", REGION)
        .env("AWS_ENDPOINT_URL", fake.url())
        .env("ACTIONS_RESULTS_URL", format!("{}/", fake.url()))
        .env("ACTIONS_RUNTIME_TOKEN", TOKEN);
    let ran = Ran::of(command.output().unwrap());
    let output = format!("{}{}", ran.stdout, ran.stderr);
    assert!(!output.contains("hunter2"), "{output}");
    ran
}

fn random(lab: &Lab) -> Vec<u8> {
    lab.saved("image").files().get("random").content.clone()
}

/// The same for every place: what one machine has made, another one takes.
fn travels(fake: &FakeObjects, labs: &[Lab; 3], cache: &str) {
    let [first, second, third] = labs;
    let built = build(first, fake, &["--cache", cache]);
    assert_eq!(built.succeeds().executed(), 6, "{}", built.stderr);
    fake.take_lines();
    let again = build(second, fake, &["--cache", cache]);
    assert_eq!(again.succeeds().executed(), 0, "{}", again.stderr);
    assert_eq!(random(first), random(second));
    let lines = fake.take_lines();
    let writes = lines.iter().filter(|line| line.starts_with("PUT"));
    assert_eq!(writes.count(), 0, "{lines:#?}");
    // A change executes what follows it, and finds what the mount held.
    third.file("src/main.c", "two\n");
    let changed = build(third, fake, &["--cache", cache]);
    assert_eq!(changed.succeeds().executed(), 4, "{}", changed.stderr);
    let files = third.saved("image").files();
    assert_eq!(files.text("seen"), "one\ntwo\n");
    third.is_sound();
    // And the next one finds that.
    second.file("src/main.c", "two\n");
    build(second, fake, &["--cache", cache]).succeeds();
    assert_eq!(second.saved("image").files().text("seen"), "one\ntwo\n");
}

#[test]
fn steps_and_mounts_travel_through_a_bucket() {
    let fake = FakeObjects::start();
    let Some(machines) = Machines::new() else {
        return;
    };
    travels(&fake, &machines.labs, &format!("s3://{BUCKET}/team/app"));
    let names: Vec<String> = fake.objects().into_keys().collect();
    for name in &names {
        let is_ours = ["team/app/manifests/cache-", "team/app/blobs/sha256:"];
        assert!(
            is_ours.iter().any(|begin| name.starts_with(begin)),
            "{names:?}"
        );
    }
}

#[test]
fn steps_and_mounts_travel_through_githubs_cache() {
    let fake = FakeObjects::start();
    let Some(machines) = Machines::new() else {
        return;
    };
    travels(&fake, &machines.labs, "gha");
    let entries = fake.entries();
    assert!(entries.iter().all(|entry| entry.is_final));
    let mounts = entries
        .iter()
        .filter(|entry| entry.key.starts_with("cache-mount-"));
    assert!(mounts.count() >= 2, "each time under another name");
}

#[test]
fn options_of_buildkit_say_where_and_who() {
    let fake = FakeObjects::start();
    let Some(machines) = Machines::new() else {
        return;
    };
    let [first, second] = &machines.labs;
    let fields = format!(
        "type=s3,bucket={BUCKET},region={REGION},endpoint_url={},use_path_style=true,prefix=p/,blobs_prefix=b-,manifests_prefix=m-,access_key_id={KEY},secret_access_key={SECRET}",
        fake.url()
    );
    let to = format!(
        "{fields},name=one;two,mode=max,mounts=false,compression=zstd,upload_parallelism=2"
    );
    build(first, &fake, &["--cache-to", &to]).succeeds();
    let names: Vec<String> = fake.objects().into_keys().collect();
    let count = |begin: &str| names.iter().filter(|name| name.starts_with(begin)).count();
    assert!(count("p/m-one-step-") >= 6, "{names:?}");
    assert_eq!(count("p/m-one-step-"), count("p/m-two-step-"), "{names:?}");
    assert_eq!(
        count("p/m-") + count("p/b-sha256:"),
        names.len(),
        "{names:?}"
    );
    let ran = build(
        second,
        &fake,
        &["--cache-from", &format!("{fields},name=two")],
    );
    assert_eq!(ran.succeeds().executed(), 0, "{}", ran.stderr);
    let ran = build(
        second,
        &fake,
        &["--cache-to", &format!("{fields},mode=all")],
    );
    ran.fails(2, &["secret_access_key=***", "no mode `all`"]);
}

#[test]
fn a_blob_that_is_damaged_or_gone_is_a_miss_and_is_mended() {
    let fake = FakeObjects::start();
    let Some(machines) = Machines::new() else {
        return;
    };
    let [first, second, third] = &machines.labs;
    let cache = format!("s3://{BUCKET}");
    build(first, &fake, &["--cache", &cache]).succeeds();
    for (name, mut bytes) in fake.objects() {
        if name.starts_with("blobs/") {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fake.put_object(&name, &bytes);
        }
    }
    let ran = build(second, &fake, &["--cache-from", &cache]);
    ran.succeeds();
    assert!(ran.stderr.contains("cannot be had"), "{}", ran.stderr);
    assert_ne!(random(first), random(second));
    second.is_sound();
    for name in fake.objects().keys() {
        if name.starts_with("blobs/") {
            fake.remove_object(name);
        }
    }
    build(second, &fake, &["--no-cache", "--cache", &cache]).succeeds();
    let ran = build(third, &fake, &["--cache", &cache]);
    assert_eq!(ran.succeeds().executed(), 0, "{}", ran.stderr);
    assert_eq!(random(second), random(third));
}

#[test]
fn packs_of_a_mount_that_a_lifecycle_rule_has_removed_are_sent_again() {
    for cache in [&format!("s3://{BUCKET}"), "gha"] {
        let fake = FakeObjects::start();
        let Some(machines) = Machines::new() else {
            return;
        };
        let [first, second] = &machines.labs;
        let adds = |lab: &Lab, name: &str| {
            machines.dockerfile(lab, &format!(
                "FROM HOST/base:v1\nRUN --mount=type=cache,target=/c,id=c head -c 100000 /dev/urandom > /c/{name}\n"
            ));
        };
        adds(first, "one");
        build(first, &fake, &["--cache", cache]).succeeds();
        // All but the documents and the smallest blobs: lists of chunks.
        let is_pack = |bytes: &[u8]| bytes.len() > 50_000;
        for (name, bytes) in fake.objects() {
            if is_pack(&bytes) {
                fake.remove_object(&name);
            }
        }
        fake.change_entries(|entries| {
            entries.retain(|entry| !is_pack(entry.bytes.as_deref().unwrap_or_default()));
        });
        adds(first, "two");
        build(first, &fake, &["--cache", cache]).succeeds();
        machines.dockerfile(
            second,
            "FROM HOST/base:v1\nRUN --mount=type=cache,target=/c,id=c ls /c > /list\n",
        );
        let ran = build(second, &fake, &["--cache", cache]);
        ran.succeeds();
        let list = second.saved("image").files().text("list");
        assert_eq!(list, "one\ntwo\n", "{cache}: {}", ran.stderr);
    }
}

#[test]
fn what_passes_is_not_noticed() {
    let fake = FakeObjects::start();
    let Some(machines) = Machines::new() else {
        return;
    };
    let [first, second] = &machines.labs;
    for cache in [&format!("s3://{BUCKET}"), "gha"] {
        for method in ["GET", "HEAD", "PUT", "POST"] {
            fake.trouble(method, "", Trouble::Status(503));
            fake.trouble(method, "", Trouble::RetryAfter(429, "0".to_owned()));
        }
        let ran = build(first, &fake, &["--no-cache", "--cache", cache]);
        assert!(!ran.succeeds().stderr.contains("warning"), "{}", ran.stderr);
    }
    let ran = build(second, &fake, &["--cache", "gha"]);
    assert_eq!(ran.succeeds().executed(), 0, "{}", ran.stderr);
}

#[test]
fn a_place_that_may_not_be_written_is_read_and_says_what_is_missing() {
    let fake = FakeObjects::start();
    let Some(machines) = Machines::new() else {
        return;
    };
    let [first, second, third] = &machines.labs;
    for cache in [&format!("s3://{BUCKET}"), "gha"] {
        build(first, &fake, &["--cache", cache]).succeeds();
    }
    fake.manners(|manners| {
        manners.read_only = true;
        manners.denies_writes = true;
    });
    let bucket = format!("type=s3,bucket={BUCKET}");
    for (lab, fields, hint) in [
        (second, bucket.as_str(), "s3:PutObject"),
        (third, "type=gha", "--cache-from type=gha"),
    ] {
        let ran = build(lab, &fake, &["--cache-from", fields]);
        assert_eq!(ran.succeeds().executed(), 0, "{}", ran.stderr);
        lab.file("src/main.c", "another\n");
        let ran = build(lab, &fake, &["--cache-to", fields]);
        ran.fails(6, &["cannot export the cache to", hint]);
        let tolerant = format!("{fields},ignore-error=true,mode=max");
        let ran = build(lab, &fake, &["--no-cache", "--cache-to", &tolerant]);
        assert!(
            ran.succeeds().stderr.contains("cannot export the cache to"),
            "{}",
            ran.stderr
        );
    }
}

#[test]
fn who_may_not_read_is_told_once() {
    let fake = FakeObjects::start();
    let Some(machines) = Machines::new() else {
        return;
    };
    let [lab] = &machines.labs;
    let fields = format!("type=s3,bucket={BUCKET},access_key_id={KEY},secret_access_key=hunter2-x");
    let ran = build(lab, &fake, &["--cache-from", &fields]);
    assert_eq!(ran.succeeds().executed(), 6, "{}", ran.stderr);
    let told = ran
        .stderr
        .matches("cannot be read, and is left out")
        .count();
    assert_eq!(told, 1, "{}", ran.stderr);
    assert!(ran.stderr.contains("check the key's ID"), "{}", ran.stderr);
    // Steps that are looked up at the same time may all have asked.
    assert!(fake.take_lines().len() < 6);
}

#[test]
fn what_lies_in_a_bucket_is_listed_and_pruned() {
    let fake = FakeObjects::start();
    let Some(machines) = Machines::new() else {
        return;
    };
    let [first, second] = &machines.labs;
    let cache = format!("s3://{BUCKET}/p");
    build(first, &fake, &["--cache", &cache]).succeeds();
    fake.put_object("p/manifests/deeper/x", b"another's");
    fake.put_object("p/blobs/README", b"another's");
    let before = fake.objects();
    let listed = run(first, &fake, &["cache", "ls", "--remote", &cache]);
    listed.succeeds();
    assert!(listed.stdout.contains("mount"), "{}", listed.stdout);
    let steps = listed.stdout.matches("RUN ").count();
    assert!(steps >= 3, "{}", listed.stdout);
    let prune = ["cache", "prune", "--remote", &cache, "--keep-last", "1"];
    let dry = [&prune[..], &["--dry-run"]].concat();
    run(first, &fake, &dry).succeeds();
    assert_eq!(fake.objects(), before);
    // What no entry names stays for some hours: somebody may be about to name it.
    let blobs = |objects: &BTreeMap<String, Vec<u8>>| {
        let names = objects.keys();
        names
            .filter(|name| name.starts_with("p/blobs/sha256:"))
            .count()
    };
    run(first, &fake, &prune).succeeds();
    let pruned = fake.objects();
    assert!(pruned.len() < before.len());
    assert_eq!(blobs(&pruned), blobs(&before));
    fake.manners(|manners| manners.age = Duration::from_secs(7 * 3600));
    run(first, &fake, &prune).succeeds();
    let pruned = fake.objects();
    assert!(blobs(&pruned) < blobs(&before), "{:?}", pruned.keys());
    for name in ["p/manifests/deeper/x", "p/blobs/README"] {
        assert!(pruned.contains_key(name), "{name}");
    }
    // What went is made and given again.
    let ran = build(second, &fake, &["--cache", &cache]);
    assert!(ran.succeeds().executed() > 0, "{}", ran.stderr);
    second.is_sound();
    let ran = run(first, &fake, &["cache", "ls", "--remote", "gha"]);
    ran.fails(2, &["gh cache list"]);
}

#[test]
fn without_what_github_gives_to_actions_the_build_does_not_begin() {
    let Some(machines) = Machines::new() else {
        return;
    };
    let [lab] = &machines.labs;
    let mut command = lab.command();
    command
        .args(["build", "--cache", "gha"])
        .arg(lab.context())
        .env_remove("ACTIONS_RESULTS_URL")
        .env("ACTIONS_CACHE_URL", "https://old.example.com/");
    Ran::of(command.output().unwrap()).fails(2, &["version 1 of the cache service"]);
    command.env_remove("ACTIONS_CACHE_URL");
    let ran = Ran::of(command.output().unwrap());
    ran.fails(
        2,
        &["ACTIONS_RESULTS_URL is not set", "ghaction-github-runtime"],
    );
}
