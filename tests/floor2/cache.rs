//! What runs again, and what does not.

use std::fs;
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use crate::support::lab::{Lab, Ran};

const TWO_STAGES: &str = "FROM base AS compile\nWORKDIR /src\nCOPY src/ .\nRUN cat main.c | tr a-z A-Z > /out\nFROM scratch\nCOPY --from=compile /out /out\n";

fn two_stages(lab: &Lab) {
    lab.file("src/main.c", "int main;\n");
    lab.file("src/unused.c", "\n");
    lab.file("README", "\n");
    lab.dockerfile(TWO_STAGES);
}

#[test]
fn the_second_run_executes_nothing_and_makes_the_same_image() {
    let Some(lab) = Lab::with_base() else { return };
    two_stages(&lab);
    let first = lab.build(&["-t", "image"]);
    assert_eq!(first.succeeds().steps(), (4, 0));
    let before = lab.saved("image").digest;
    let again = lab.build(&["-t", "image"]);
    assert_eq!(again.succeeds().executed(), 0, "{}", again.stderr);
    assert_eq!(lab.saved("image").digest, before);
    lab.is_sound();
}

#[test]
fn a_changed_mtime_alone_keeps_the_cache() {
    let Some(lab) = Lab::with_base() else { return };
    two_stages(&lab);
    lab.build(&["-t", "image"]).succeeds();
    let file = fs::File::options()
        .write(true)
        .open(lab.context().join("src/main.c"))
        .unwrap();
    file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000))
        .unwrap();
    assert_eq!(lab.build(&["-t", "image"]).succeeds().executed(), 0);
}

#[test]
fn a_changed_source_reruns_only_what_follows_it() {
    let Some(lab) = Lab::with_base() else { return };
    two_stages(&lab);
    lab.build(&["-t", "image"]).succeeds();
    lab.file("src/main.c", "int other;\n");
    let again = lab.build(&["-t", "image"]);
    assert_eq!(
        again.succeeds().executed(),
        3,
        "COPY, RUN, COPY --from: {}",
        again.stderr
    );
    assert_eq!(lab.saved("image").files().text("out"), "INT OTHER;\n");
    lab.file("README", "changed\n");
    assert_eq!(
        lab.build(&["-t", "image"]).succeeds().executed(),
        0,
        "no instruction reads it"
    );
}

#[test]
fn a_changed_compile_stage_with_equal_output_does_not_rerun_what_copies_from_it() {
    let Some(lab) = Lab::with_base() else { return };
    two_stages(&lab);
    lab.build(&["-t", "image"]).succeeds();
    let before = lab.saved("image").digest;
    lab.file("src/unused.c", "/* changed */\n");
    let again = lab.build(&["-t", "image"]);
    assert_eq!(
        again.succeeds().executed(),
        2,
        "COPY and RUN of the compile stage: {}",
        again.stderr
    );
    assert_eq!(lab.saved("image").digest, before);
}

#[test]
fn a_mode_that_changed_is_a_change() {
    use std::os::unix::fs::PermissionsExt as _;
    let Some(lab) = Lab::with_base() else { return };
    two_stages(&lab);
    lab.build(&["-t", "image"]).succeeds();
    fs::set_permissions(
        lab.context().join("src/main.c"),
        fs::Permissions::from_mode(0o755),
    )
    .unwrap();
    assert_ne!(lab.build(&["-t", "image"]).succeeds().executed(), 0);
}

#[test]
fn metadata_instructions_do_not_break_the_cache_of_later_runs() {
    let Some(lab) = Lab::with_base() else { return };
    lab.dockerfile("FROM base\nLABEL a=1\nCMD [\"x\"]\nEXPOSE 1\nRUN echo one > /one\n");
    lab.build(&["-t", "image"]).succeeds();
    lab.dockerfile("FROM base\nLABEL a=2\nCMD [\"y\"]\nEXPOSE 2\nRUN echo one > /one\n");
    assert_eq!(lab.build(&["-t", "image"]).succeeds().executed(), 0);
    lab.dockerfile("FROM base\nENV a=2\nRUN echo one > /one\n");
    assert_eq!(lab.build(&["-t", "image"]).succeeds().executed(), 1);
}

#[test]
fn an_argument_counts_from_where_it_is_declared() {
    let Some(lab) = Lab::with_base() else { return };
    lab.dockerfile("FROM base\nRUN echo before\nARG V\nRUN echo $V > /v\n");
    lab.build(&["-t", "image", "--build-arg", "V=1"]).succeeds();
    assert_eq!(
        lab.build(&["-t", "image", "--build-arg", "V=1"])
            .succeeds()
            .executed(),
        0
    );
    assert_eq!(
        lab.build(&["-t", "image", "--build-arg", "V=2"])
            .succeeds()
            .executed(),
        1
    );
    assert_eq!(lab.saved("image").files().text("v"), "2\n");
}

/// Which steps are kept on a root that changed elsewhere is told by cases of the conformance suite; this is about their bytes.
#[test]
fn a_copy_kept_on_another_root_is_the_layer_that_executing_makes() {
    let (Some(lab), Some(fresh)) = (Lab::with_base(), Lab::with_base()) else {
        return;
    };
    lab.file("d/in", "in\n");
    lab.file("f", "f\n");
    lab.dockerfile(
        "FROM base\nARG V\nRUN mkdir /way && chmod 711 /way && chown 5:6 /way && touch -d @5 /way && echo $V > /other\n\
         COPY d /way/made\nCOPY f /usr/lib/made/f\nCOPY f /usr\nWORKDIR /usr/job/dir\nCOPY --parents d/in .\nCOPY --chown=app f /owned/f\n",
    );
    let context = lab.context();
    let build = |lab: &Lab, value: &str| {
        let value = format!("V={value}");
        let ran = lab.builder(&[
            "build",
            "--progress=plain",
            "-t",
            "image",
            "--build-arg=SOURCE_DATE_EPOCH=1000000000",
            "--build-arg",
            &value,
            context.to_str().unwrap(),
        ]);
        ran.succeeds();
        let mut layers = lab.saved("image").list("/rootfs/diff_ids");
        // The base, and what RUN made: its files have the time of the day.
        layers.drain(..2);
        (ran.executed(), layers)
    };
    let (executed, first) = build(&lab, "1");
    assert_eq!((executed, first.len()), (7, 6));
    let (executed, kept) = build(&lab, "2");
    assert_eq!(executed, 1, "the RUN alone");
    let (executed, made) = build(&fresh, "2");
    assert_eq!(executed, 7);
    assert_eq!(kept, made);
    assert_eq!(kept, first);
    assert_eq!(lab.saved("image").files().text("other"), "2\n");
    lab.is_sound();
}

#[test]
fn a_layer_may_stand_twice_in_a_root() {
    let Some(lab) = Lab::with_base() else { return };
    lab.file("f", "f\n");
    let files = lab.files(
        "FROM base\nCOPY --link f /x\nCOPY f /y\nCOPY none* /\nRUN rm /x /y\nCOPY --link f /x\nCOPY f /y\nCOPY none* /\nRUN cat /x /y > /z\n",
    );
    assert_eq!(files.text("z"), "f\nf\n");
    // As a base, too, with empty layers that are one and the same.
    lab.builder(&["tag", "image", "twice"]).succeeds();
    let files = lab.files("FROM twice\nRUN rm /x\nCOPY f /x\nRUN cat /x /z > /all\n");
    assert_eq!(files.text("all"), "f\nf\nf\n");
}

#[test]
fn no_cache_executes_everything_and_its_filter_a_stage() {
    let Some(lab) = Lab::with_base() else { return };
    two_stages(&lab);
    lab.build(&["-t", "image"]).succeeds();
    assert_eq!(
        lab.build(&["-t", "image", "--no-cache"])
            .succeeds()
            .executed(),
        4
    );
    assert_eq!(
        lab.build(&["-t", "image", "--no-cache-filter", "compile"])
            .succeeds()
            .executed(),
        3,
        "equal output cuts off"
    );
    assert_eq!(lab.build(&["-t", "image"]).succeeds().executed(), 0);
}

#[test]
fn unneeded_stages_are_not_built_and_their_bases_not_fetched() {
    let Some(lab) = Lab::with_base() else { return };
    lab.dockerfile(
        "FROM no-such-registry.invalid/x AS unneeded\nRUN false\nFROM base AS also\nRUN false\nFROM base AS target\nRUN true\nFROM also\n",
    );
    lab.build(&["--target", "target"]).succeeds();
}

#[test]
fn two_processes_execute_each_step_once() {
    let Some(lab) = Lab::with_base() else { return };
    let dockerfile = "FROM base AS one\nRUN sleep 1; date +%s%N > /one\nFROM base AS two\nRUN sleep 1; date +%s%N > /two\nFROM scratch\nCOPY --from=one /one /\nCOPY --from=two /two /\n";
    lab.dockerfile(dockerfile);
    let start = |name: &str| {
        let context = lab.context();
        lab.command()
            .args([
                "build",
                "--progress=plain",
                "-t",
                name,
                context.to_str().unwrap(),
            ])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let children: Vec<_> = ["a", "b", "c"].map(start).into();
    let ran: Vec<Ran> = children
        .into_iter()
        .map(|child| Ran::of(child.wait_with_output().unwrap()))
        .collect();
    let executed: usize = ran.iter().map(|ran| ran.succeeds().executed()).sum();
    assert_eq!(executed, 4, "{ran:?}");
    let digest = lab.saved("a").digest;
    assert_eq!(lab.saved("b").digest, digest);
    assert_eq!(lab.saved("c").digest, digest);
    lab.is_sound();
}

#[test]
fn a_pruned_step_is_made_again_with_what_follows() {
    let Some(lab) = Lab::with_base() else { return };
    two_stages(&lab);
    lab.build(&["-t", "image"]).succeeds();
    lab.builder(&["rmi", "image"]).succeeds();
    lab.builder(&["prune", "--all"]).succeeds();
    assert_eq!(lab.build(&["-t", "image"]).succeeds().steps(), (4, 0));
    lab.is_sound();
}
