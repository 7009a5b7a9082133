//! A state directory that is only read, under one of one's own.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::lab::{Lab, Ran, install_program};
use crate::support::power;

/// Two stages; a layer with a deletion and a file that somebody else owns.
const DOCKERFILE: &str = "FROM base AS made\nRUN mkdir /d && echo made > /d/made && echo x > /d/x\nRUN rm /d/x && chown 7:8 /d/made\n\
                          FROM base\nCOPY --from=made /d /d\nRUN cat /d/made > /got\n";

/// Returns a lab whose state directory holds all steps of the Dockerfile, and rests.
fn baked() -> Option<Lab> {
    let lab = Lab::with_base()?;
    lab.dockerfile(DOCKERFILE);
    lab.build(&["-t", "image"]).succeeds();
    lab.builder(&["prune"]).succeeds();
    Some(lab)
}

/// Runs a command with the state directory `top` over `lower`.
fn over(lab: &Lab, lower: &Path, command: &str, args: &[&str]) -> Command {
    let mut all = lab.command();
    all.arg(command)
        .arg("--root")
        .arg(lab.path("top"))
        .arg("--lower-root")
        .arg(lower)
        .args(args);
    if command == "build" {
        all.arg("--progress=plain").arg(lab.context());
    }
    all
}

fn ran(mut command: Command) -> Ran {
    Ran::of(command.output().unwrap())
}

fn build_over(lab: &Lab, lower: &Path, args: &[&str]) -> Ran {
    ran(over(lab, lower, "build", args))
}

/// Names, numbers, modes and times of everything in a directory.
fn everything(root: &Path) -> Vec<(PathBuf, u64, u32, i64, i64, u64)> {
    let mut found = Vec::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(path) = waiting.pop() {
        let metadata = fs::symlink_metadata(&path).unwrap();
        if metadata.is_dir() {
            let entries = fs::read_dir(&path).unwrap();
            waiting.extend(entries.map(|entry| entry.unwrap().path()));
        }
        let (time, nanoseconds) = (metadata.ctime(), metadata.ctime_nsec());
        let number = (metadata.ino(), metadata.mode());
        found.push((path, number.0, number.1, time, nanoseconds, metadata.len()));
    }
    found.sort();
    found
}

/// Returns the unpacked layers of a state directory.
fn trees(state: &Path) -> Vec<PathBuf> {
    let kinds = ["layers", "layers-devices", "layers-ledger"];
    let kinds = kinds.iter().map(|kind| state.join("v1").join(kind));
    kinds
        .filter_map(|kind| fs::read_dir(kind).ok())
        .flat_map(|layers| layers.map(|layer| layer.unwrap().path()))
        .collect()
}

fn exported(lab: &Lab, lower: &Path) -> PathBuf {
    let out = lab.path("out");
    fs::remove_dir_all(&out).ok();
    let spec = format!("type=local,dest={}", out.display());
    build_over(lab, lower, &["-o", &spec]).succeeds();
    out
}

#[test]
fn a_build_without_changes_is_answered_from_below() {
    let Some(lab) = baked() else { return };
    let before = everything(&lab.state());
    let image = lab.saved("image");
    let again = build_over(&lab, &lab.state(), &["-t", "image"]);
    assert_eq!(again.succeeds().steps(), (4, 4), "{}", again.stderr);
    let top = lab.path("top");
    assert_eq!(trees(&top), [""; 0].map(PathBuf::from));
    assert_eq!(
        fs::read_dir(top.join("v1/oci/blobs/sha256"))
            .unwrap()
            .count(),
        0
    );
    // The variable says the same; an empty part counts as none.
    let mut command = lab.command();
    command
        .args(["build", "--progress=plain", "--root"])
        .arg(lab.path("other"))
        .arg(lab.context())
        .env("BUILDER_LOWER_ROOT", format!(":{}", lab.state().display()));
    assert_eq!(ran(command).succeeds().steps(), (4, 4));
    let mut command = lab.command();
    command.arg("images").env("BUILDER_LOWER_ROOT", "");
    assert!(!ran(command).succeeds().stderr.contains("not used"));
    let listed = ran(over(&lab, &lab.state(), "images", &[]));
    let row = format!("  {}", lab.state().display());
    assert!(listed.stdout.contains("LOWER STORE") && listed.stdout.contains(&row));
    let shown = ran(over(&lab, &lab.state(), "inspect", &["image"]));
    assert!(
        shown.stdout.contains(&image.digest.to_string()),
        "{shown:?}"
    );
    ran(over(&lab, &lab.state(), "rmi", &["image"])).fails(2, &["is in the lower store"]);
    ran(over(&lab, &lab.state(), "prune", &["--all"])).succeeds();
    let usage = ran(over(&lab, &lab.state(), "du", &["--verify"]));
    assert!(usage.succeeds().stdout.contains("sound"));
    assert_eq!(everything(&lab.state()), before);
}

#[test]
fn a_changed_step_runs_on_layers_from_below() {
    for driver in ["auto", "tree"] {
        let Some(lab) = baked() else { return };
        let before = everything(&lab.state());
        lab.dockerfile(&DOCKERFILE.replace(
            "cat /d/made > /got",
            "stat -c %u:%g /d/made > /got; ls /d >> /got; rm /d/made",
        ));
        let changed = build_over(
            &lab,
            &lab.state(),
            &["-t", "new", "--storage-driver", driver],
        );
        assert_eq!(changed.succeeds().steps(), (4, 3), "{}", changed.stderr);
        assert!(!changed.stderr.contains("warning"), "{}", changed.stderr);
        // Nothing was unpacked or copied.
        assert_eq!(trees(&lab.path("top")).len(), 1);
        let out = exported(&lab, &lab.state());
        assert_eq!(fs::read_to_string(out.join("got")).unwrap(), "7:8\nmade\n");
        assert!(out.join("d").exists() && !out.join("d/made").exists());
        let doctor = ran(over(&lab, &lab.state(), "doctor", &[]));
        assert!(doctor.stdout.contains("used where it is"), "{doctor:?}");
        // The next build finds it above, on layers below.
        let again = build_over(&lab, &lab.state(), &["-t", "new"]);
        assert_eq!(again.succeeds().steps(), (4, 4));
        ran(over(&lab, &lab.state(), "prune", &[])).succeeds();
        let again = build_over(&lab, &lab.state(), &["-t", "new"]);
        assert_eq!(again.succeeds().steps(), (4, 4));
        assert_eq!(everything(&lab.state()), before);
    }
}

#[test]
fn a_read_only_mount_will_do() {
    let Some(lab) = baked() else { return };
    let (Some(unshare), true) = (power::program("unshare"), nix::unistd::geteuid().is_root())
    else {
        return power::not_run("needs root and unshare");
    };
    lab.dockerfile(&DOCKERFILE.replace("> /got", "> /other"));
    let build = over(&lab, &lab.state(), "build", &["-t", "new"]);
    let mut command = Command::new(unshare);
    command
        .args(["-m", "sh", "-c"])
        .arg("mount --bind \"$0\" \"$0\" && mount -o remount,bind,ro \"$0\" && exec \"$@\"")
        .arg(lab.state())
        .arg(build.get_program())
        .args(build.get_args());
    for (name, value) in build.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.current_dir(lab.path("")).stdin(Stdio::null());
    let built = ran(command);
    assert_eq!(built.succeeds().steps(), (4, 3), "{}", built.stderr);
    assert_eq!(trees(&lab.path("top")).len(), 1);
}

#[test]
fn a_copy_serves_with_its_blobs_and_never_with_its_trees() {
    let Some(lab) = baked() else { return };
    // All layers are packed, as a recipe for baking says; then trees are of no use.
    let cache = format!("type=local,dest={},mode=max", lab.path("cache").display());
    lab.build(&["-t", "image", "--cache-to", &cache]).succeeds();
    let copy = |name: &str| {
        let to = lab.path(name);
        let copied = Command::new("cp")
            .arg("-r")
            .args([&lab.state(), &to])
            .output();
        Ran::of(copied.unwrap()).succeeds();
        to
    };
    let whole = copy("whole");
    lab.builder(&["prune", "--trees"]).succeeds();
    assert_eq!(trees(&lab.state()), [""; 0].map(PathBuf::from));
    let compact = copy("compact");
    let changed = DOCKERFILE.replace(
        "cat /d/made > /got",
        "stat -c %u:%g /d/made > /got; ls /d >> /got",
    );
    // As in an image, by this program's own COPY.
    lab.dockerfile("FROM scratch\nCOPY --from=seed / /seed\n");
    let seed = format!("seed={}", compact.display());
    let spec = format!("type=local,dest={}", lab.path("baked").display());
    lab.build(&["--build-context", &seed, "-o", &spec])
        .succeeds();
    for lower in [whole, compact, lab.path("baked/seed")] {
        let doctor = ran(over(&lab, &lower, "doctor", &["--json"]));
        let doctor: serde_json::Value = serde_json::from_str(&doctor.stdout).unwrap();
        assert_eq!(doctor["store"]["lowers"][0]["state"], "blobs");
        lab.dockerfile(DOCKERFILE);
        let again = build_over(&lab, &lower, &["-t", "image"]);
        assert_eq!(again.succeeds().steps(), (4, 4), "{}", again.stderr);
        lab.dockerfile(&changed);
        let changed = build_over(&lab, &lower, &["-t", "new"]);
        assert_eq!(changed.succeeds().steps(), (4, 3), "{}", changed.stderr);
        let out = exported(&lab, &lower);
        assert_eq!(fs::read_to_string(out.join("got")).unwrap(), "7:8\nmade\n");
        fs::remove_dir_all(lab.path("top")).unwrap();
    }
}

/// Starts a build with a step that waits; returns it and the directory that the step waits for `go` in.
#[expect(clippy::zombie_processes, reason = "who asked for it waits for it")]
fn waiting(lab: &Lab) -> (std::process::Child, PathBuf) {
    let step = "RUN --mount=type=cache,target=/c echo > /c/here; while [ ! -e /c/go ]; do sleep 0.02; done; cat /d/made > /new\n";
    lab.dockerfile(&format!("{DOCKERFILE}{step}"));
    let mut command = over(lab, &lab.state(), "build", &["-t", "new"]);
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let caches = lab.path("top/v1/mounts");
    loop {
        let found = fs::read_dir(&caches)
            .ok()
            .and_then(|mut found| found.next());
        if let Some(Ok(cache)) = found {
            let cache = cache.path().join("0/fs");
            if cache.join("here").exists() {
                return (child, cache);
            }
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn layers_that_vanish_under_a_step_cost_time_and_nothing_else() {
    let Some(lab) = baked() else { return };
    let lock = lab.state().join("v1/locks/in-use");
    // Held by its readers where they can hold it.
    let (mut child, cache) = waiting(&lab);
    lab.builder(&["prune", "--all"]).fails(9, &["in use"]);
    child.kill().unwrap();
    child.wait().unwrap();
    // Half of a build is no obstacle; nobody keeps the layers from going now.
    fs::remove_file(&lock).unwrap();
    fs::remove_file(cache.join("here")).unwrap();
    let (child, cache) = waiting(&lab);
    assert!(!lock.exists());
    for tree in trees(&lab.state()) {
        let away = tree.with_extension("away");
        fs::rename(&tree, &away).unwrap();
        fs::remove_dir_all(&away).unwrap();
    }
    fs::write(cache.join("go"), "").unwrap();
    let built = Ran::of(child.wait_with_output().unwrap());
    built.succeeds();
    assert!(
        built.stderr.contains("is gone from the lower store"),
        "{}",
        built.stderr
    );
    let out = exported(&lab, &lab.state());
    assert_eq!(fs::read_to_string(out.join("new")).unwrap(), "made\n");
}

#[test]
fn a_torn_store_below_costs_what_is_torn() {
    let Some(lab) = baked() else { return };
    let image = lab.saved("image");
    for tree in trees(&lab.state()) {
        fs::write(tree.join("layer.json"), "").unwrap();
    }
    // The same length and other bytes: nobody notices before it is unpacked.
    for blob in fs::read_dir(lab.state().join("v1/oci/blobs/sha256")).unwrap() {
        let path = blob.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        if bytes.starts_with(&[0x1f, 0x8b]) && bytes.len() < 10_000 {
            fs::write(&path, vec![0x1f; bytes.len()]).unwrap();
        }
    }
    lab.dockerfile(&DOCKERFILE.replace("cat /d/made > /got", "cat /d/made > /other"));
    let built = build_over(&lab, &lab.state(), &["-t", "new"]);
    built.succeeds();
    let out = exported(&lab, &lab.state());
    assert_eq!(fs::read_to_string(out.join("other")).unwrap(), "made\n");
    assert!(image.files().has("got"));
    // One that is none at all is told and left out.
    fs::write(lab.state().join("v1/format"), "builder-store 9\n").unwrap();
    let built = build_over(&lab, &lab.state(), &["-t", "new"]);
    assert!(built.stderr.contains("is not used: it has another format"));
}

#[test]
fn another_users_store_serves_with_what_it_can() {
    let Some(lab) = baked() else { return };
    let Some(user) = std::env::var("BUILDER_TEST_USER")
        .ok()
        .filter(|_| nix::unistd::geteuid().is_root())
    else {
        return power::not_run(
            "needs root, and the name of an ordinary user with subordinate ids in BUILDER_TEST_USER",
        );
    };
    let cache = format!("type=local,dest={},mode=max", lab.path("cache").display());
    lab.build(&["-t", "image", "--cache-to", &cache]).succeeds();
    // What an administrator does to let others read: directories, and nothing inside of trees.
    let mut waiting = vec![lab.path("")];
    while let Some(path) = waiting.pop() {
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        for entry in fs::read_dir(&path).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.is_symlink() && !path.ends_with("fs") {
                waiting.push(path);
            }
        }
    }
    let home = tempfile::Builder::new()
        .prefix("builder-user-")
        .tempdir()
        .unwrap();
    install_program(&home.path().join("builder"));
    let changed = DOCKERFILE.replace("cat /d/made > /got", "stat -c %u:%g /d/made > /got");
    fs::write(home.path().join("Dockerfile"), changed).unwrap();
    let mut chown = Command::new("chown");
    chown.arg("-R").arg(&user).arg(home.path());
    ran(chown).succeeds();
    let path = home.path().to_str().unwrap();
    let mut command = Command::new(power::program("runuser").unwrap());
    command
        .args([
            "-u",
            &user,
            "--",
            "env",
            "-i",
            &format!("HOME={path}"),
            "PATH=/usr/bin:/bin",
        ])
        .arg(home.path().join("builder"))
        .args(["build", "--progress=plain", "-o", "type=local,dest=out"])
        .arg("--lower-root")
        .arg(lab.state())
        .arg(".")
        .current_dir(home.path())
        .stdin(Stdio::null());
    let built = ran(command);
    assert_eq!(built.succeeds().steps(), (4, 3), "{}", built.stderr);
    let got = fs::read_to_string(home.path().join("out/got")).unwrap();
    assert_eq!(got, "7:8\n");
}
