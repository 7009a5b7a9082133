//! The same Dockerfile in every environment that CI offers: the same image, byte for byte, on every rung and wherever the state
//! directory lies. `docs/environments.md` has the table that this holds.
//!
//! Needs the machine's root, runc, podman and mmdebstrap; each test says loudly that it did not run where they are missing.

#[path = "../support/mod.rs"]
#[allow(dead_code, reason = "each floor uses its part")]
mod support;

mod attack;
mod environment;
mod kill;
mod profile;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use environment::{Bench, Environment, Place, Site, run};
use serde_json::Value;
use support::lab::install_program;
use support::power;

/// Stages whose images are compared.
const TARGETS: [&str; 3] = ["basics", "packages", "languages"];

/// What the image of the tools has, so that it need not be installed in each environment.
const TOOLS: &str = "busybox-static gcc git libc6-dev locales musl-tools nodejs npm passwd python3-pip python3-pip-whl python3-setuptools python3-setuptools-whl rustc";

/// The rung that each environment allows.
const RUNGS: [(&str, &str); 17] = [
    ("E1", "ns"),
    ("E2", "ns-sub"),
    ("E3", "ns-one"),
    ("E4", "chroot"),
    ("E5", "paths"),
    ("E5b", "paths"),
    ("E5c", "paths"),
    ("E6a", "ns"),
    ("E6b", "ns-full"),
    ("E6c", "ns"),
    ("E6d", "ns-one"),
    ("E6e", "ns-one"),
    ("E7a", "chroot"),
    ("E7b", "ns"),
    ("E7c", "ns"),
    ("E7d", "ns-full"),
    ("E8", "ns-full"),
];

fn site() -> Option<&'static Site> {
    static SITE: OnceLock<Option<Site>> = OnceLock::new();
    SITE.get_or_init(|| {
        let mut missing: Vec<&str> = ["runc", "podman", "mmdebstrap", "setpriv"]
            .into_iter()
            .filter(|name| power::program(name).is_none())
            .collect();
        if !rustix::process::getuid().is_root() {
            missing.push("root");
        }
        let user = std::env::var("BUILDER_TEST_USER").ok();
        if user.is_none() {
            missing.push("BUILDER_TEST_USER");
        }
        if !missing.is_empty() {
            power::not_run(&format!("missing: {missing:?}"));
            return None;
        }
        Some(make_site(user))
    })
    .as_ref()
}

/// Everything that is kept between runs is under names that say what it is made of.
fn make_site(user: Option<String>) -> Site {
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR"));
    // Ordinary users must get here.
    let home = PathBuf::from("/var/tmp/builder-matrix");
    fs::create_dir_all(&home).unwrap();
    // Held until the process ends; a second run waits for the first.
    let lock = fs::File::create(home.join("lock")).unwrap();
    lock.lock().unwrap();
    std::mem::forget(lock);
    let inputs = home.join("inputs");
    fs::create_dir_all(&inputs).unwrap();
    fs::remove_dir_all(home.join("work")).ok();
    fs::create_dir_all(home.join("work")).unwrap();

    let tar = kept.join("debian-bookworm.tar");
    if !tar.exists() {
        let directory = tempfile::tempdir_in(kept).unwrap();
        let beside = directory.path().join("debian.tar");
        run(Command::new("mmdebstrap")
            .args(["--quiet", "--variant=minbase", "bookworm"])
            .arg(&beside));
        fs::rename(beside, &tar).unwrap();
    }
    fs::copy(&tar, inputs.join("root.tar")).unwrap();
    let builder = home.join("builder");
    // A process that was left behind may still run the old one.
    fs::remove_file(&builder).ok();
    install_program(&builder);

    // Roots stay as they were made: containers see them as the lower layer of their own.
    let [root, shifted_root] = ["root", "shifted-root"].map(|name| home.join(name));
    let made_of = home.join("roots-made-of");
    let tar_now = {
        let metadata = fs::metadata(&tar).unwrap();
        format!("{} {:?}", metadata.len(), metadata.modified().unwrap())
    };
    if fs::read_to_string(&made_of).ok().as_deref() != Some(&tar_now) {
        fs::remove_file(&made_of).ok();
        for path in [&root, &shifted_root] {
            Command::new("rm").arg("-rf").arg(path).output().unwrap();
            fs::create_dir(path).unwrap();
            run(Command::new("tar")
                .args(["-xpf"])
                .arg(&tar)
                .arg("-C")
                .arg(path));
        }
        environment::shift_owners(&shifted_root);
        fs::write(&made_of, tar_now).unwrap();
    }

    let context = inputs.join("context");
    Command::new("rm")
        .arg("-rf")
        .arg(&context)
        .output()
        .unwrap();
    run(Command::new("cp")
        .args(["-r", "--no-preserve=ownership"])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/matrix"))
        .arg(&context));

    let site = Site {
        root,
        shifted_root,
        builder,
        inputs,
        work: home.join("work"),
        user,
    };
    make_bases(&site, kept);
    site
}

/// Makes the images that are built on, as OCI layouts.
fn make_bases(site: &Site, kept: &Path) {
    let tools = kept.join("matrix-tools.oci");
    let state = tempfile::tempdir_in(kept).unwrap();
    let builder = |args: &[&str]| {
        run(Command::new(&site.builder)
            .args(args)
            .env("BUILDER_ROOT", state.path())
            .env("NO_COLOR", "1"));
    };
    let debian = site.inputs.join("debian");
    fs::remove_dir_all(&debian).ok();
    builder(&[
        "import",
        site.inputs.join("root.tar").to_str().unwrap(),
        "debian",
    ]);
    let context = tempfile::tempdir().unwrap();
    let file = context.path().join("Dockerfile");
    fs::write(&file, "FROM debian\n").unwrap();
    let layout = format!("type=oci,tar=false,dest={}", debian.display());
    builder(&[
        "build",
        "-q",
        "-o",
        &layout,
        context.path().to_str().unwrap(),
    ]);
    if !tools.exists() {
        let text = format!(
            "FROM debian\nRUN apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends {TOOLS}\n\
             COPY clean /usr/local/sbin/clean\nRUN clean\n"
        );
        fs::write(&file, text).unwrap();
        fs::copy(
            site.inputs.join("context/clean"),
            context.path().join("clean"),
        )
        .unwrap();
        let beside = kept.join("matrix-tools.part");
        fs::remove_dir_all(&beside).ok();
        let layout = format!("type=oci,tar=false,dest={}", beside.display());
        builder(&[
            "build",
            "-q",
            "-o",
            &layout,
            context.path().to_str().unwrap(),
        ]);
        fs::rename(beside, &tools).unwrap();
    }
    let seen = site.inputs.join("tools");
    fs::remove_dir_all(&seen).ok();
    run(Command::new("cp").args(["-r"]).arg(&tools).arg(&seen));
}

/// Builds a stage; returns the image's digest.
fn build(bench: &Bench<'_>, target: &str, more: &[&str]) -> String {
    let inputs = bench_inputs();
    let out = bench.out().join(format!("{target}.json"));
    let debian = format!(
        "--build-context=debian=oci-layout://{}",
        inputs.join("debian").display()
    );
    let tools = format!(
        "--build-context=tools=oci-layout://{}",
        inputs.join("tools").display()
    );
    let metadata = format!("--metadata-file={}", out.display());
    let archive = format!(
        "--output=type=oci,dest={},rewrite-timestamp=true",
        bench.out().join(format!("{target}.tar")).display()
    );
    let context = inputs.join("context");
    let mut args = vec![
        "build",
        "--progress=plain",
        "--target",
        target,
        &debian,
        &tools,
        &metadata,
        &archive,
    ];
    args.extend(more);
    args.push(context.to_str().unwrap());
    let ran = bench.builder(&args, &[("SOURCE_DATE_EPOCH", "1700000000")]);
    assert_eq!(
        ran.code,
        Some(0),
        "{} {:?} {target}\n{}",
        bench.environment.name,
        bench.place,
        ran.stderr
    );
    let metadata: Value = serde_json::from_slice(&fs::read(out).unwrap()).unwrap();
    metadata["containerimage.digest"]
        .as_str()
        .unwrap()
        .to_owned()
}

fn bench_inputs() -> PathBuf {
    site().expect("looked at before").inputs.clone()
}

/// What root on the host builds.
fn expected() -> &'static BTreeMap<&'static str, String> {
    static EXPECTED: OnceLock<BTreeMap<&'static str, String>> = OnceLock::new();
    EXPECTED.get_or_init(|| {
        let bench = Bench::new(
            site().expect("looked at before"),
            Environment::named("E1"),
            Place::Volume,
        );
        TARGETS
            .iter()
            .map(|target| (*target, build(&bench, target, &[])))
            .collect()
    })
}

/// Builds everything in one environment, with the state directory in each kind of place.
fn check(name: &str) {
    let Some(site) = site() else { return };
    let environment = Environment::named(name);
    let (_, rung) = RUNGS.iter().find(|(other, _)| *other == name).unwrap();
    for place in [Place::Volume, Place::Overlay, Place::Tmpfs] {
        if !environment.has(place) {
            continue;
        }
        let bench = Bench::new(site, environment, place);
        let ran = bench.builder(&["doctor", "--json"], &[]);
        let doctor: Value = serde_json::from_str(&ran.stdout)
            .unwrap_or_else(|_| panic!("{name}: {}{}", ran.stdout, ran.stderr));
        assert_eq!(
            doctor["taken"], **rung,
            "{name} ({}) {place:?}: {doctor:#}",
            environment.what
        );
        let targets: &[&str] = match place {
            Place::Volume => &TARGETS,
            _ => &TARGETS[..1],
        };
        for target in targets {
            let digest = build(&bench, target, &[]);
            assert_eq!(digest, expected()[target], "{name} {place:?} {target}");
        }
    }
}

macro_rules! environments {
    ($($test:ident $name:literal)*) => {
        $(
            #[test]
            #[ignore = "takes minutes: `cargo test --test matrix -- --ignored`"]
            fn $test() {
                check($name);
            }
        )*
    };
}

environments! {
    e1_root_on_the_host "E1"
    e2_user_with_subordinate_ids "E2"
    e3_user_without_subordinate_ids "E3"
    e4_default_docker_container "E4"
    e5_kubernetes_restricted "E5"
    e5b_user_with_escalation_permitted "E5b"
    e5c_root_without_capabilities "E5c"
    e6a_docker_with_sys_admin "E6a"
    e6b_docker_without_seccomp "E6b"
    e6c_privileged "E6c"
    e6d_user_without_seccomp "E6d"
    e6e_user_without_seccomp_proc_whole "E6e"
    e7a_host_users_false "E7a"
    e7b_host_users_false_with_sys_admin "E7b"
    e7c_host_users_false_with_sys_admin_proc_whole "E7c"
    e7d_host_users_false_unconfined "E7d"
    e8_root_in_rootless_podman "E8"
}
