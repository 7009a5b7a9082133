//! Several machines (state directories of their own) that share what steps came to.

use std::fs;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::support::lab::{Lab, Ran};
use crate::support::registry::{FakeRegistry, Fault, Gate};

/// Two stages, ten steps; the run makes something that no second execution makes.
const TEN_STEPS: &str = "FROM HOST/base:v1 AS compile\nWORKDIR /src\nCOPY src/ .\nRUN head -c 64 /dev/urandom > /random\nRUN tr a-z A-Z < main.c > /out\n\
                         FROM HOST/base:v1\nRUN echo 1 > /1\nRUN echo 2 > /2\nRUN echo 3 > /3\nCOPY --from=compile /out /out\nCOPY --from=compile /random /random\nRUN cat /out /1 /2 /3 > /all\n";

/// Pushes a base to a registry, and returns the machines that build on it: equal contexts, nothing else in common.
fn machines<const N: usize>(registry: &FakeRegistry, dockerfile: &str) -> Option<[Lab; N]> {
    let lab = Lab::with_base()?;
    let base = format!("{}/base:v1", registry.host());
    lab.builder(&["push", "base", &base]).succeeds();
    registry.take_log();
    Some([(); N].map(|()| {
        let lab = Lab::new();
        lab.file("src/main.c", "int main;\n");
        lab.dockerfile(&dockerfile.replace("HOST", &registry.host()));
        lab
    }))
}

fn count(lines: &[String], method: &str, part: &str) -> usize {
    lines
        .iter()
        .filter(|line| line.starts_with(method) && line.contains(part))
        .count()
}

#[test]
fn an_empty_machine_with_a_warm_cache_asks_for_manifests_and_moves_no_layer() {
    let registry = FakeRegistry::start();
    let Some([first, second]) = machines(&registry, TEN_STEPS) else {
        return;
    };
    let cache = format!("{}/app/cache", registry.host());
    let name = format!("{}/app:v1", registry.host());
    let built = first.build(&["--cache", &cache, "-t", &name, "--output", "type=registry"]);
    assert_eq!(built.succeeds().executed(), 10, "{}", built.stderr);
    let pushed = registry.manifest("app", "v1").unwrap();
    registry.take_log();

    let output = format!("type=registry,name={name}");
    let again = second.build(&["--cache-from", &cache, "--output", &output]);
    assert_eq!(again.succeeds().executed(), 0, "{}", again.stderr);
    assert_eq!(registry.manifest("app", "v1").unwrap(), pushed);
    let log = registry.take_log();
    let (received, sent) = log.iter().fold((0, 0), |(received, sent), entry| {
        (received + entry.received, sent + entry.sent)
    });
    // Ten entries and their trail, the base's manifest and config; config and manifest of the image.
    assert!(sent < 42_000 && received < 10_000, "{sent} {received}");
    let lines: Vec<String> = log.iter().map(|entry| entry.line()).collect();
    assert_eq!(
        count(&lines, "GET", "/app/cache/manifests/"),
        11,
        "{lines:#?}"
    );
    assert_eq!(
        count(&lines, "GET", "/blobs/"),
        1,
        "the base's config alone: {lines:#?}"
    );
    assert_eq!(count(&lines, "PATCH", ""), 0, "{lines:#?}");
    assert_eq!(count(&lines, "PUT", "/manifests/"), 1, "{lines:#?}");
    assert_eq!(registry.open_uploads(), 0);
}

/// Returns the name of the one trail in a repository, and the keys on it.
fn trail(registry: &FakeRegistry, repository: &str) -> (String, Vec<String>) {
    let tags = registry.tags(repository);
    let mut trails = tags.into_iter().filter(|tag| tag.contains("-trail-"));
    let (name, None) = (trails.next().unwrap(), trails.next()) else {
        panic!("more than one trail");
    };
    let (_, bytes) = registry.manifest(repository, &name).unwrap();
    let document: Value = serde_json::from_slice(&bytes).unwrap();
    let text = document["annotations"]["builder.cache.trail.v1"].as_str();
    let trail: Value = serde_json::from_str(text.unwrap()).unwrap();
    let keys = trail["keys"].as_array().unwrap().iter();
    (
        name,
        keys.map(|key| key.as_str().unwrap().to_owned()).collect(),
    )
}

#[test]
fn questions_about_steps_travel_together() {
    let registry = FakeRegistry::start();
    let Some([first, second, branch, third, both]) = machines(&registry, TEN_STEPS) else {
        return;
    };
    let cache = format!("{}/cache", registry.host());
    first.build(&["--cache", &cache]).succeeds();
    let (_, keys) = trail(&registry, "cache");
    assert_eq!(keys.len(), 10);

    // Nine are held until all nine have come.
    let together = |lab: &Lab, scope: &str, flags: &[&str]| {
        let gate = Gate::default();
        for key in &keys[1..] {
            let part = format!("/cache/manifests/{scope}-step-{key}");
            registry.fault("GET", &part, Fault::Hold(gate.clone()));
        }
        let (have_come, is_late) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicBool::new(false)),
        );
        let (seen, told, late) = (have_come.clone(), is_late.clone(), gate.clone());
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_secs(20));
            told.store(!seen.load(Ordering::SeqCst), Ordering::SeqCst);
            late.open();
        });
        let seen = have_come.clone();
        std::thread::spawn(move || {
            gate.wait_for(9);
            seen.store(true, Ordering::SeqCst);
            gate.open();
        });
        registry.take_log();
        let ran = lab.build(flags);
        assert_eq!(ran.succeeds().executed(), 0, "{}", ran.stderr);
        let came_together = have_come.load(Ordering::SeqCst) && !is_late.load(Ordering::SeqCst);
        assert!(came_together, "one after the other");
        let lines = registry.take_lines();
        for scope in ["cache", scope] {
            let part = format!("/cache/manifests/{scope}-step-");
            assert_eq!(count(&lines, "GET", &part), 10, "{lines:#?}");
            let part = format!("/cache/manifests/{scope}-trail-");
            assert_eq!(count(&lines, "GET", &part), 1, "{lines:#?}");
        }
    };
    together(&second, "cache", &["--cache-from", &cache]);
    // A scope that has nothing yet is asked along the trail of the next one.
    let new = format!("{cache}:new");
    together(
        &branch,
        "new",
        &["--cache-from", &new, "--cache-from", &cache],
    );

    // What has changed leaves the trail, which leads to both from then on.
    third.file("src/main.c", "int other;\n");
    let ran = third.build(&["--cache", &cache]);
    assert_eq!(ran.succeeds().executed(), 6, "{}", ran.stderr);
    let (_, now) = trail(&registry, "cache");
    assert!(now.len() == 16 && keys.iter().all(|key| now.contains(key)));
    let ran = both.build(&["--cache-from", &cache]);
    assert_eq!(ran.succeeds().executed(), 0, "{}", ran.stderr);
    // A machine that has all of it asks nobody for steps or trails, and looks whether the cache still has them.
    registry.take_log();
    third.build(&["--cache-from", &cache]).succeeds();
    assert_eq!(count(&registry.take_lines(), "GET", "/cache/"), 0);
    third.build(&["--cache", &cache]).succeeds();
    let lines = registry.take_lines();
    assert_eq!(count(&lines, "GET", "/cache/manifests/cache-trail-"), 1);
    assert_eq!(count(&lines, "PUT", ""), 0, "{lines:#?}");
}

#[test]
fn a_trail_is_a_hint_and_nothing_else() {
    let registry = FakeRegistry::start();
    let Some([first, second, third, fourth, fifth]) = machines(&registry, TEN_STEPS) else {
        return;
    };
    let cache = format!("{}/cache", registry.host());
    first.build(&["--cache", &cache]).succeeds();
    let (name, keys) = trail(&registry, "cache");
    let (kind, bytes) = registry.manifest("cache", &name).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let with = |to: &str| text.replace(&keys[1], to);
    let nowhere = "7".repeat(64);
    for (lab, written) in [
        (&second, with("no key")),
        (&third, with(&nowhere)),
        (&fourth, text[..text.len() / 2].to_owned()),
    ] {
        registry.put_manifest("cache", &name, &kind, written.as_bytes());
        let ran = lab.build(&["--cache-from", &cache]);
        assert_eq!(ran.succeeds().executed(), 0, "{}", ran.stderr);
        assert!(!ran.stderr.contains("warning"), "{}", ran.stderr);
    }
    // Nobody misses one that cannot be written.
    fifth.file("src/main.c", "int other;\n");
    registry.fault("PUT", "-trail-", Fault::Status(403));
    let ran = fifth.build(&["--cache", &cache]);
    assert_eq!(ran.succeeds().executed(), 6, "{}", ran.stderr);
    assert!(!ran.stderr.contains("warning"), "{}", ran.stderr);
    assert_eq!(registry.faults_left(), 0);
}

#[test]
fn layers_of_a_cache_in_another_repository_are_mounted() {
    let registry = FakeRegistry::start();
    let Some([first, second]) = machines(&registry, TEN_STEPS) else {
        return;
    };
    let cache = format!("{}/app/cache", registry.host());
    first.build(&["--cache", &cache]).succeeds();
    registry.take_log();
    let output = format!("type=registry,name={}/other:v1", registry.host());
    let ran = second.build(&["--cache-from", &cache, "--output", &output]);
    assert_eq!(ran.succeeds().executed(), 0, "{}", ran.stderr);
    let lines = registry.take_lines();
    assert_eq!(count(&lines, "GET", "/app/cache/blobs/"), 0, "{lines:#?}");
    // Six steps' and the base's.
    assert_eq!(count(&lines, "POST", "mount="), 7, "{lines:#?}");
}

#[test]
fn a_change_executes_what_follows_it_and_fetches_what_it_needs() {
    let registry = FakeRegistry::start();
    let Some([first, second]) = machines(&registry, TEN_STEPS) else {
        return;
    };
    let cache = format!("{}/cache", registry.host());
    first.build(&["--cache", &cache, "-t", "image"]).succeeds();
    second.file("src/main.c", "int other;\n");
    let ran = second.build(&["--cache", &cache, "-t", "image"]);
    // COPY, the runs after it, and what copies of them: the three runs of the last stage do not depend on them.
    assert_eq!(ran.succeeds().executed(), 6, "{}", ran.stderr);
    let files = second.saved("image").files();
    assert_eq!(files.text("all"), "INT OTHER;\n1\n2\n3\n");
    second.is_sound();
    // What was fetched is this machine's own now.
    registry.take_log();
    assert_eq!(second.build(&["-t", "image"]).succeeds().executed(), 0);
    assert_eq!(count(&registry.take_lines(), "GET", "/cache/"), 0);
}

#[test]
fn a_directory_is_a_cache_as_well() {
    let registry = FakeRegistry::start();
    let Some([first, second, third]) = machines(&registry, TEN_STEPS) else {
        return;
    };
    let directory = first.path("shared");
    let shared = directory.to_str().unwrap();
    first.build(&["--cache", shared, "-t", "image"]).succeeds();
    let ran = second.build(&["--cache", shared, "-t", "image"]);
    assert_eq!(ran.succeeds().executed(), 0, "{}", ran.stderr);
    assert_eq!(
        first.saved("image").digest,
        second.saved("image").digest,
        "the random file too"
    );
    assert_eq!(fs::read_dir(directory.join("tmp")).unwrap().count(), 0);
    // Other scopes see nothing of it.
    let from = format!("type=local,src={shared},scope=feature/x");
    let ran = third.build(&["--cache-from", &from]);
    assert_eq!(ran.succeeds().executed(), 10, "{}", ran.stderr);
}

#[test]
fn with_mode_min_the_layers_of_the_result_travel_and_records_of_all_steps() {
    let registry = FakeRegistry::start();
    let Some([first, second, third]) = machines(&registry, TEN_STEPS) else {
        return;
    };
    let shared = first.path("shared");
    let to = format!("type=local,dest={}", shared.display());
    let from = format!("type=local,src={}", shared.display());
    first.build(&["--cache-to", &to, "-t", "image"]).succeeds();
    let ran = second.build(&["--cache-from", &from, "-t", "image"]);
    assert_eq!(ran.succeeds().executed(), 0, "{}", ran.stderr);
    // Files of the compile stage are nowhere: it is executed where they are needed.
    third.dockerfile(&format!(
        "{}COPY --from=compile /src/main.c /\n",
        TEN_STEPS.replace("HOST", &registry.host())
    ));
    let ran = third.build(&["--cache-from", &from, "-t", "image"]);
    ran.succeeds();
    assert_eq!(third.saved("image").files().text("main.c"), "int main;\n");
    // That was clear from the start.
    assert!(!ran.stderr.contains("cannot be had"), "{}", ran.stderr);
    third.is_sound();
}

#[test]
fn each_place_is_given_what_was_said_of_it() {
    let registry = FakeRegistry::start();
    let Some([lab]) = machines(&registry, TEN_STEPS) else {
        return;
    };
    let to = |name: &str, rest: &str| {
        let directory = lab.path(name);
        format!("type=local,dest={}{rest}", directory.display())
    };
    // Its times are cut, so that no cache can do with it.
    let output = format!(
        "type=oci,dest={},rewrite-timestamp=true",
        lab.path("out.tar").display()
    );
    let ran = lab.build(&[
        "--build-arg",
        "SOURCE_DATE_EPOCH=1000000000",
        "--output",
        &output,
        "--cache-to",
        &to("least", ""),
        "--cache-to",
        &to("most", ",mode=max,compression=zstd"),
    ]);
    ran.succeeds();
    let kinds = |name: &str| {
        let mut kinds = (0, 0);
        for entry in fs::read_dir(lab.path(name).join("entries")).unwrap() {
            let text = fs::read_to_string(entry.unwrap().path()).unwrap();
            let manifest: Value = serde_json::from_str(&text).unwrap();
            let layers = manifest["layers"].to_string();
            // Beside what outputs wanted.
            kinds.1 += usize::from(layers.contains("tar+zstd"));
            kinds.0 += usize::from(manifest["layers"].as_array().unwrap().len() > 1);
        }
        kinds
    };
    // Some records have two keys: those of copies.
    let (two, zstd) = kinds("least");
    assert!(two >= 6 && zstd == 0, "{two} {zstd}");
    let (two_at_most, zstd) = kinds("most");
    assert!(two_at_most == two && zstd > two, "{two_at_most} {zstd}");
}

#[test]
fn files_of_the_context_that_a_run_is_shown_stay_at_home() {
    let registry = FakeRegistry::start();
    let text = "FROM HOST/base:v1\nRUN --mount=type=bind,target=/src wc -c < /src/large > /size\nRUN echo 2 > /2\n";
    let Some([first, second, third]) = machines(&registry, text) else {
        return;
    };
    let mut large = Vec::new();
    while large.len() < 3_000_000 {
        large.extend_from_slice(builder::vocab::Digest::of(&large.len().to_le_bytes()).as_bytes());
    }
    for lab in [&first, &second, &third] {
        lab.file("large", &large);
    }
    let cache = format!("{}/cache", registry.host());
    first.build(&["--cache", &cache, "-t", "image"]).succeeds();
    let sent: u64 = registry.take_log().iter().map(|entry| entry.received).sum();
    assert!(sent < 100_000, "{sent}");
    let ran = second.build(&["--cache-from", &cache, "-t", "image"]);
    assert_eq!(ran.succeeds().executed(), 0, "{}", ran.stderr);
    // Who has another command for them takes its own.
    let text = text.replace("HOST", &registry.host());
    third.dockerfile(&text.replace("> /size", "> /length"));
    let ran = third.build(&["--cache", &cache, "-t", "image"]);
    ran.succeeds();
    assert!(!ran.stderr.contains("cannot be had"), "{}", ran.stderr);
    let files = third.saved("image").files();
    assert_eq!(files.text("length").trim(), large.len().to_string());
}

#[test]
fn an_image_holds_the_records_of_its_steps() {
    let registry = FakeRegistry::start();
    let Some([first, second, third]) = machines(&registry, TEN_STEPS) else {
        return;
    };
    let name = format!("{}/app:v1", registry.host());
    let output = format!("type=registry,name={name}");
    first
        .build(&["--cache-to", "type=inline", "--output", &output])
        .succeeds();
    let ran = second.build(&["--cache-from", &name, "-t", "image"]);
    assert_eq!(ran.succeeds().executed(), 0, "{}", ran.stderr);
    assert_eq!(
        second.saved("image").files().text("all"),
        "INT MAIN;\n1\n2\n3\n"
    );
    // As BuildKit's users ask for it; an image without records is no cache.
    let ran = third.build(&["--build-arg", "BUILDKIT_INLINE_CACHE=1", "-t", "image"]);
    assert!(
        !ran.succeeds().stderr.contains("BUILDKIT_INLINE_CACHE"),
        "{}",
        ran.stderr
    );
    let config = &third.inspect("image")[0];
    assert!(
        config.to_string().contains("builder.cache.records"),
        "{config}"
    );
}

#[test]
fn a_layer_that_is_gone_is_a_miss_and_what_was_spoilt_is_mended() {
    let registry = FakeRegistry::start();
    let Some([first, second, third]) = machines(&registry, TEN_STEPS) else {
        return;
    };
    let directory = first.path("shared");
    let shared = directory.to_str().unwrap();
    first.build(&["--cache", shared]).succeeds();
    for blob in fs::read_dir(directory.join("blobs/sha256")).unwrap() {
        let path = blob.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        let last = bytes.len() - 1;
        bytes[last / 2] ^= 1;
        fs::write(&path, bytes).unwrap();
    }
    let ran = second.build(&["--cache", shared, "-t", "image"]);
    ran.succeeds();
    assert!(ran.stderr.contains("cannot be had"), "{}", ran.stderr);
    assert_eq!(
        second.saved("image").files().text("all"),
        "INT MAIN;\n1\n2\n3\n"
    );
    second.is_sound();
    fs::remove_dir_all(directory.join("blobs")).unwrap();
    let ran = third.build(&["--cache-from", shared, "-t", "image"]);
    ran.succeeds();
    assert_eq!(
        third.saved("image").files().text("all"),
        "INT MAIN;\n1\n2\n3\n"
    );
    third.is_sound();
}

#[test]
fn an_entry_that_is_torn_or_anothers_is_a_miss_with_a_warning() {
    let registry = FakeRegistry::start();
    let Some([first, second]) = machines(
        &registry,
        "FROM HOST/base:v1\nRUN echo 1 > /1\nRUN echo 2 > /2\n",
    ) else {
        return;
    };
    let directory = first.path("shared");
    let shared = directory.to_str().unwrap();
    first.build(&["--cache", shared]).succeeds();
    let entries: Vec<_> = fs::read_dir(directory.join("entries"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    let [one, other] = entries.as_slice() else {
        panic!("{entries:?}");
    };
    fs::copy(one, other).unwrap();
    let ran = second.build(&["--cache-from", shared, "-t", "image"]);
    ran.succeeds();
    assert!(ran.executed() >= 1, "{}", ran.stderr);
    assert!(ran.stderr.contains("is another step's"), "{}", ran.stderr);
    let text = fs::read_to_string(one).unwrap();
    for path in &entries {
        fs::write(path, &text[..text.len() / 2]).unwrap();
    }
    let third = Lab::new();
    third.dockerfile(&fs::read_to_string(first.context().join("Dockerfile")).unwrap());
    let ran = third.build(&["--cache-from", shared, "-t", "image"]);
    assert_eq!(ran.succeeds().executed(), 2, "{}", ran.stderr);
    assert!(ran.stderr.contains("is torn"), "{}", ran.stderr);
}

#[test]
fn of_two_machines_at_the_same_step_the_second_takes_over_what_the_first_has_published() {
    let registry = FakeRegistry::start();
    // Steps meet at a gate: they connect, and end when they are told to.
    let gate = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = gate.local_addr().unwrap().port();
    let dockerfile = format!(
        "FROM HOST/base:v1\nRUN head -c 64 /dev/urandom > /random; \\\n perl -e 'socket(S, 2, 1, 6) or die; connect(S, pack(\"S n a4 x8\", 2, {port}, \"\\x7f\\0\\0\\1\")) or die $!; sysread(S, $x, 1)'\nRUN cat /random /random > /twice\n"
    );
    let Some([first, second]) = machines(&registry, &dockerfile) else {
        return;
    };
    let cache = format!("{}/cache", registry.host());
    std::thread::scope(|scope| {
        let build = |lab: &'_ Lab| {
            let mut command = lab.command();
            command
                .args([
                    "build",
                    "--progress=plain",
                    "-t",
                    "image",
                    "--cache",
                    &cache,
                ])
                .arg(lab.context());
            Ran::of(command.output().unwrap())
        };
        let (first, second) = (&first, &second);
        let one = scope.spawn(move || build(first));
        let (at_the_gate, _) = gate.accept().unwrap();
        let other = scope.spawn(move || build(second));
        let (also_there, _) = gate.accept().unwrap();
        drop(at_the_gate);
        assert_eq!(one.join().unwrap().succeeds().executed(), 2);
        drop(also_there);
        let other = other.join().unwrap();
        assert_eq!(other.succeeds().executed(), 1, "{}", other.stderr);
    });
    let [one, other] = [&first, &second].map(|lab| lab.saved("image"));
    assert_eq!(one.digest, other.digest);
    let files = other.files();
    let random = &files.get("random").content;
    assert_eq!(
        files.get("twice").content,
        [random.clone(), random.clone()].concat()
    );
}

#[test]
fn a_cache_that_cannot_be_reached_is_left_out_of_reading_and_fails_writing() {
    let registry = FakeRegistry::start();
    let Some([lab]) = machines(&registry, "FROM HOST/base:v1\nRUN echo 1 > /1\n") else {
        return;
    };
    let cache = format!("{}/cache", registry.host());
    registry.faults("GET", "/cache/", &Fault::Status(403), 50);
    let ran = lab.build(&["--cache-from", &cache]);
    assert_eq!(ran.succeeds().executed(), 1, "{}", ran.stderr);
    assert_eq!(
        ran.stderr
            .matches("cannot be read, and is left out")
            .count(),
        1,
        "{}",
        ran.stderr
    );
    let ran = lab.build(&["--cache-to", &cache]);
    ran.fails(6, &["cannot export the cache to"]);
    let ran = lab.build(&[
        "--cache-to",
        &format!("type=registry,ref={cache},ignore-error=true"),
    ]);
    assert!(
        ran.succeeds().stderr.contains("cannot export the cache to"),
        "{}",
        ran.stderr
    );
}

#[test]
fn no_cache_replaces_what_is_published() {
    let registry = FakeRegistry::start();
    let Some([first, second, third]) = machines(
        &registry,
        "FROM HOST/base:v1\nRUN head -c 64 /dev/urandom > /random\n",
    ) else {
        return;
    };
    let cache = format!("{}/cache", registry.host());
    first.build(&["--cache", &cache, "-t", "image"]).succeeds();
    let ran = second.build(&["--no-cache", "--cache", &cache, "-t", "image"]);
    assert_eq!(ran.succeeds().executed(), 1);
    let ran = third.build(&["--cache", &cache, "-t", "image"]);
    assert_eq!(ran.succeeds().executed(), 0);
    let random = |lab: &Lab| lab.saved("image").files().get("random").content.clone();
    assert_ne!(random(&first), random(&second));
    assert_eq!(random(&second), random(&third));
}
