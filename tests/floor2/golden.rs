//! Whole builds whose images are known to the last byte: `testdata/golden` holds what each came to.
//!
//! A change of speed changes none of these files. Where a change means to change images, `BUILDER_TEST_BLESS=1` writes them again, and
//! their diff is reviewed: below the digests stands what the layers hold. Another version of a compressor changes digests of layers and no
//! diff ID.
//!
//! Inputs are made here, to the last byte, mode and time. Nothing of the machine is in what is recorded: of images on a base, which has
//! the machine's own shell, the layers above it alone, after a first step that makes the directories which something is mounted on.

mod context;

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use builder::layer::EntryKind;
use serde_json::Value;

use crate::support::image::{FileInfo, Image};
use crate::support::lab::{Lab, Ran, base_tar, install_program};
use crate::support::power;

use context::{plant, settle};

const EPOCH: &str = "1234567890";

struct Case {
    /// Of the file in `testdata/golden`.
    name: &'static str,
    dockerfile: &'static str,
    /// Keys of the output, each after a comma.
    output: &'static str,
    args: &'static [&'static str],
    recorded: Recorded,
}

enum Recorded {
    /// Index, manifest, config and layers.
    Image,
    /// So many layers, the topmost ones.
    Layers(usize),
}

const fn image(name: &'static str, dockerfile: &'static str) -> Case {
    Case {
        name,
        dockerfile,
        output: "",
        args: &["--platform=linux/amd64"],
        recorded: Recorded::Image,
    }
}

const fn layers(name: &'static str, count: usize, dockerfile: &'static str) -> Case {
    Case {
        name,
        dockerfile,
        output: "",
        args: &[],
        recorded: Recorded::Layers(count),
    }
}

/// A layer of several blocks, for each thread some.
const fn large(name: &'static str, output: &'static str) -> Case {
    Case {
        output,
        ..image(name, "FROM scratch\nCOPY large /large\n")
    }
}

const CASES: &[Case] = &[
    image("copy-straight", "FROM scratch\nCOPY tree /tree\n"),
    image(
        "copy-owners",
        "FROM scratch\nCOPY --chown=5:6 tree /a\nCOPY --chown=7 --chmod=0750 tree /b\nCOPY --chmod=u+x,g-w,o= tree /c\nADD --chown=65534:8 tree/text /d/\n",
    ),
    image(
        "copy-forms",
        "FROM scratch\nCOPY --link tree/text /linked/deep/\nCOPY --parents tree/sub/deep /parents/\nCOPY --exclude=**/text tree /less\nCOPY tree/text tree/link /several/\n\
         COPY <<one <<-two /here/\n1\none\n\t2\ntwo\nWORKDIR /made/here\nCOPY tree/t* .\n",
    ),
    image("names", "FROM scratch\nCOPY names /names\n"),
    image("add-tar", "FROM scratch\nADD archive.tar /unpacked/\n"),
    Case {
        args: &[
            "--platform=linux/amd64",
            "--label=given=label",
            "--annotation=given=annotation",
        ],
        ..image(
            "config",
            "FROM scratch AS base\nARG VERSION=1\nENV A=a B=\"b c\"\nLABEL z=1 a=\"$VERSION\"\nONBUILD ENV C=c\n\
             FROM base\nMAINTAINER somebody\nSHELL [\"/bin/x\", \"-c\"]\nEXPOSE 80 53/udp\nVOLUME /data /more\nUSER 5:6\nSTOPSIGNAL SIGINT\n\
             HEALTHCHECK --interval=5m --retries=2 CMD [\"/healthy\"]\nCOPY tree/text /\nWORKDIR rel\nENTRYPOINT [\"/a\", \"<&>\"]\nCMD run it\nONBUILD RUN true\n",
        )
    },
    image(
        "stages",
        "FROM --platform=$BUILDPLATFORM base AS made\nCOPY tree /in\n\
         RUN mkdir -p /out/d && cat /in/text /in/sub/deep/er/f > /out/f && ln /out/f /out/twin && ln -s f /out/link && chown 3:4 /out/f && chmod 4751 /out/f && \
         dd if=/in/sparse of=/out/sparse conv=sparse bs=4096 2>/dev/null && touch -h -d @1000000001.25 /out/f /out/link /out/sparse /out/d /out\n\
         FROM scratch AS more\nCOPY --from=made /out /out\n\
         FROM more\nCOPY --from=made /out/f /out/link /again/\nCOPY --from=more /out/d /d\n",
    ),
    Case {
        args: &["--platform=linux/amd64,linux/arm64,linux/arm/v7"],
        ..image(
            "platforms",
            "FROM scratch\nARG TARGETARCH\nCOPY tree/text /all\nCOPY tree/for-$TARGETARCH /one\n",
        )
    },
    Case {
        output: ",rewrite-timestamp=true",
        ..image(
            "times-rewritten",
            "FROM --platform=$BUILDPLATFORM base AS made\nRUN mkdir /out && echo now > /out/now && echo then > /out/then && touch -d @1000000000.75 /out/then\n\
             FROM scratch\nCOPY --from=made /out /out\nCOPY tree/text /\n",
        )
    },
    layers(
        "copy-then-run",
        2,
        "FROM base\nRUN true\nCOPY tree /tree\nRUN cd /tree && cat text sub/deep/er/f > sub/out && touch -d @1000000002 sub/out sub\n",
    ),
    layers(
        "run-files",
        1,
        "FROM base\nRUN true\nCOPY tree/empty /w/\n\
         RUN cd /w && mkdir -p a/b && chmod 2775 a && chmod 1777 a/b && echo file > a/f && ln a/f a/twin && ln a/f a/b/far && ln -s ../a a/b/link && ln -s /nowhere dangling && \
         mkfifo -m 604 fifo && chown 33:44 a/f a/b && chown -h 5:6 dangling && chmod 6711 a/f && dd if=/dev/zero of=sparse bs=1 count=1 seek=300000 2>/dev/null && \
         perl -e 'for my $n (\"n\" x 99, \"n\" x 100, \"n\" x 101, \"n\" x 255, \"\\xff odd\\n\", \"\\xc3\\xbc\") { open my $f, q(>), \"a/$n\" or die; print $f 1; close $f; } \
                  symlink \"t\" x 300, q(a/long-link); my $d = q(a); for (1 .. 6) { $d .= q(/) . (q(d) x 50); mkdir $d or die; } open my $f, q(>), \"$d/deep\"; print $f 2' && \
         find() ( for p in \"$1\"/*; do if [ -d \"$p\" ] && ! [ -L \"$p\" ]; then find \"$p\"; fi; touch -h -d @1000000000.123456789 \"$p\"; done ) && find /w && touch -d @1000000003 /w\n",
    ),
    layers(
        "run-deletes",
        1,
        "FROM base\nRUN true\nCOPY tree /w\nCOPY names /w/names\n\
         RUN cd /w && rm text && rm -r sub && mkdir sub && echo new > sub/new && rm -r void && echo file > void && rm a && mkdir a && echo in > a/in && mv names moved && \
         chmod 600 empty && echo more >> sparse && touch -d @1000000004 sub/new sub void a/in a moved sparse . twin\n",
    ),
    layers(
        "run-touches",
        1,
        "FROM base\nRUN true\nCOPY tree /w\nRUN cat /w/text && chmod 4711 /w/text && touch -d @1000000000 /w/void\n",
    ),
    large("gzip", ""),
    large("gzip-1", ",compression=gzip,compression-level=1"),
    large("gzip-9", ",compression=gzip,compression-level=9"),
    large("zstd", ",compression=zstd"),
    large("zstd-12", ",compression=zstd,compression-level=12"),
    large("uncompressed", ",compression=uncompressed"),
    layers(
        "large-by-files",
        2,
        "FROM base\nRUN true\nCOPY large /w/\nRUN cat /w/noise /w/text > /w/both && touch -d @1000000005 /w/both /w\n",
    ),
];

/// Where and as whom the cases are built.
struct Way {
    name: &'static str,
    /// Goes before the program.
    before: Vec<String>,
    args: &'static [&'static str],
    user: Option<String>,
}

impl Way {
    fn new(name: &'static str, before: &[&str], args: &'static [&'static str]) -> Way {
        Way {
            name,
            before: before.iter().map(|word| (*word).to_owned()).collect(),
            args,
            user: None,
        }
    }
}

/// A directory with all that one way needs.
struct Ground {
    lab: Lab,
    way: Way,
}

impl Ground {
    /// Returns a place where steps can run in this way, with the image `base`; `None` if they cannot.
    fn new(way: Way) -> Option<Ground> {
        let lab = Lab::new();
        plant(&lab.context());
        let owner = way.user.as_deref().map(numbers);
        // The program and its base may lie where the user does not get to.
        install_program(&lab.path("builder"));
        let base = lab.path("base.tar");
        fs::copy(base_tar(), &base).unwrap();
        fs::set_permissions(&base, fs::Permissions::from_mode(0o644)).unwrap();
        if let Some((uid, gid)) = owner {
            chown(lab.path(""), Some(uid), Some(gid)).unwrap();
        }
        settle(&lab.context(), owner);
        let ground = Ground { lab, way };
        ground
            .run(&["import", base.to_str().unwrap(), "base"])
            .succeeds();
        ground.dockerfile("FROM base\nRUN true\n");
        let tried = ground.build(&[]);
        if tried.code == Some(8) {
            power::not_run(&format!("{}: {}", ground.way.name, tried.stderr));
            return None;
        }
        tried.succeeds();
        Some(ground)
    }

    /// Not in the context, whose directory has a time.
    fn dockerfile(&self, text: &str) {
        let path = self.lab.path("Dockerfile");
        fs::write(&path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    }

    fn build(&self, args: &[&str]) -> Ran {
        let (file, context) = (self.lab.path("Dockerfile"), self.lab.context());
        let mut all = vec!["build", "--progress=plain", "--file"];
        all.push(file.to_str().unwrap());
        all.extend_from_slice(self.way.args);
        all.extend_from_slice(args);
        all.push(context.to_str().unwrap());
        self.run(&all)
    }

    fn run(&self, args: &[&str]) -> Ran {
        let own = self.lab.command();
        let program = self.lab.path("builder");
        let mut words: Vec<&OsStr> = self.way.before.iter().map(OsStr::new).collect();
        words.push(program.as_os_str());
        words.extend(args.iter().map(OsStr::new));
        let mut command = Command::new(words[0]);
        for (name, value) in own.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command
            .args(&words[1..])
            .env("SOURCE_DATE_EPOCH", EPOCH)
            .env("HOME", self.lab.path(""))
            .stdin(Stdio::null())
            .current_dir(self.lab.path(""));
        Ran::of(command.output().unwrap())
    }

    /// Builds a case and writes down what it came to.
    fn record(&self, case: &Case) -> String {
        let (layout, metadata) = (self.lab.path("layout"), self.lab.path("metadata.json"));
        let output = format!(
            "type=oci,tar=false,dest={}{}",
            layout.display(),
            case.output
        );
        self.dockerfile(case.dockerfile);
        let mut args = vec!["--output", &output, "--metadata-file"];
        args.push(metadata.to_str().unwrap());
        args.extend_from_slice(case.args);
        let built = self.build(&args);
        assert_eq!(
            built.code,
            Some(0),
            "{}, {}: {}",
            case.name,
            self.way.name,
            built.stderr
        );
        let images = Image::read_all(&layout);
        let metadata: Value = serde_json::from_slice(&fs::read(metadata).unwrap()).unwrap();
        let digest = metadata["containerimage.digest"].as_str().unwrap();
        fs::remove_dir_all(layout).unwrap();
        let mut text = String::new();
        if let (Recorded::Image, true) = (&case.recorded, images.len() > 1) {
            writeln!(text, "index {digest}").unwrap();
        }
        for image in &images {
            describe(&mut text, image, &case.recorded);
        }
        text
    }
}

/// Returns the user's and its group's number.
fn numbers(user: &str) -> (u32, u32) {
    let user = nix::unistd::User::from_name(user)
        .unwrap()
        .expect("BUILDER_TEST_USER is a user of this machine");
    (user.uid.as_raw(), user.gid.as_raw())
}

fn describe(text: &mut String, image: &Image, recorded: &Recorded) {
    let first = match recorded {
        Recorded::Image => {
            let config = image.manifest["config"]["digest"].as_str().unwrap();
            writeln!(text, "manifest {} {}", image.digest, image.platform()).unwrap();
            writeln!(text, "config {config}").unwrap();
            0
        }
        Recorded::Layers(count) => image.layers.len() - count,
    };
    let descriptors = image.manifest["layers"].as_array().unwrap();
    let diff_ids = image.list("/rootfs/diff_ids");
    let layers = image.layers.iter().zip(descriptors).zip(&diff_ids);
    for ((files, descriptor), diff_id) in layers.skip(first) {
        let of = |key: &str| descriptor[key].as_str().unwrap().to_owned();
        let (digest, kind) = (of("digest"), of("mediaType"));
        writeln!(text, "layer {digest} {} {kind}", descriptor["size"]).unwrap();
        writeln!(text, "  diff ID {diff_id}").unwrap();
        for file in files {
            writeln!(text, "  {}", line(file)).unwrap();
        }
    }
}

/// Says what an entry is, so that a diff of the recorded file tells what has changed.
fn line(file: &FileInfo) -> String {
    let entry = &file.entry;
    let shown = |bytes: &[u8]| bytes.escape_ascii().to_string();
    let kind = match &entry.kind {
        EntryKind::File { size } => format!("file of {size}"),
        EntryKind::Directory => "directory".to_owned(),
        EntryKind::Symlink { target } => format!("link to {}", shown(target)),
        EntryKind::HardLink { target } => format!("twin of {}", shown(target)),
        other => format!("{other:?}"),
    };
    let mut line = format!(
        "{:04o} {}:{} {}.{:09} {} {kind}",
        entry.mode,
        entry.uid,
        entry.gid,
        entry.mtime.seconds,
        entry.mtime.nanoseconds,
        shown(&entry.path)
    );
    for (name, value) in &entry.xattrs {
        write!(line, " {}={}", shown(name), shown(value)).unwrap();
    }
    line
}

fn recorded(case: &Case) -> PathBuf {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/golden");
    directory.join(format!("{}.txt", case.name))
}

fn is_blessing() -> bool {
    std::env::var_os("BUILDER_TEST_BLESS").is_some_and(|value| value == "1")
}

fn check(way: Way) {
    if is_blessing() {
        // Whoever writes the files is the one that this is compared with.
        return;
    }
    let Some(ground) = Ground::new(way) else {
        return;
    };
    let mut wrong = Vec::new();
    for case in CASES {
        let found = ground.record(case);
        let expected = fs::read_to_string(recorded(case)).unwrap_or_default();
        if found != expected {
            wrong.push(format!("{}:\n{}", case.name, differing(&expected, &found)));
        }
    }
    assert!(
        wrong.is_empty(),
        "{}: other images than in testdata/golden. If that is what the change is for: \
         BUILDER_TEST_BLESS=1 cargo test --test floor2 golden\n{}",
        ground.way.name,
        wrong.join("\n")
    );
    ground.run(&["du", "--verify"]).succeeds();
}

fn differing(expected: &str, found: &str) -> String {
    let only = |sign: char, these: &str, those: &str| -> Vec<String> {
        let those: Vec<&str> = those.lines().collect();
        let only = these.lines().filter(|line| !those.contains(line));
        only.map(|line| format!("{sign} {line}")).collect()
    };
    let mut lines = only('-', expected, found);
    lines.extend(only('+', found, expected));
    match lines.is_empty() {
        true => "the same lines in another order".to_owned(),
        false => lines.join("\n"),
    }
}

#[test]
fn images_are_the_recorded_ones() {
    let way = || Way::new("as it comes", &[], &[]);
    if !is_blessing() {
        return check(way());
    }
    let Some(ground) = Ground::new(way()) else {
        return;
    };
    for case in CASES {
        fs::create_dir_all(recorded(case).parent().unwrap()).unwrap();
        fs::write(recorded(case), ground.record(case)).unwrap();
    }
}

#[test]
fn nothing_else_is_recorded() {
    let mut names: Vec<PathBuf> = CASES.iter().map(recorded).collect();
    names.sort();
    let files = fs::read_dir(names[0].parent().unwrap()).unwrap();
    let mut found: Vec<PathBuf> = files.map(|entry| entry.unwrap().path()).collect();
    found.sort();
    assert_eq!(found, names);
}

/// One processor and one step at a time: compression, digests and steps have one thread each.
#[test]
fn one_processor_makes_the_same_images() {
    let mask = rustix::thread::sched_getaffinity(None).unwrap();
    let first = (0..rustix::thread::CpuSet::MAX_CPU)
        .find(|cpu| mask.is_set(*cpu))
        .expect("this runs on one");
    let first = first.to_string();
    check(Way::new(
        "one processor",
        &["taskset", "--cpu-list", &first],
        &["--jobs=1"],
    ));
}

/// Roots that are plain directories instead of overlays.
#[test]
fn composed_roots_make_the_same_images() {
    check(Way::new(
        "composed roots",
        &[],
        &["--storage-driver=tree", "--jobs=8"],
    ));
}

/// Owners and devices are written beside the files.
#[test]
fn owners_in_a_ledger_make_the_same_images() {
    check(Way::new("paths", &[], &["--isolation=paths"]));
}

#[test]
fn an_ordinary_user_makes_the_same_images() {
    let user = std::env::var("BUILDER_TEST_USER").ok();
    let Some(user) = user.filter(|_| nix::unistd::geteuid().is_root()) else {
        return power::not_run(
            "needs root, and the name of an ordinary user with subordinate ids in BUILDER_TEST_USER",
        );
    };
    check(Way {
        user: Some(user.clone()),
        ..Way::new("an ordinary user", &["runuser", "-u", &user, "--"], &[])
    });
}

/// Compressed parts of a layer are kept, and taken where the same bytes come again.
#[test]
fn what_was_packed_before_does_not_show() {
    let Some(ground) = Ground::new(Way::new("edited", &[], &[])) else {
        return;
    };
    let text = ground.lab.context().join("large/text");
    let content = fs::read(&text).unwrap();
    for name in ["gzip", "zstd"] {
        let case = CASES.iter().find(|case| case.name == name).unwrap();
        let expected = fs::read_to_string(recorded(case)).unwrap();
        let mut edited = content.clone();
        edited.splice(1_000_000..1_000_100, *b"edited");
        fs::write(&text, edited).unwrap();
        settle(&ground.lab.context(), None);
        assert_ne!(ground.record(case), expected, "{name}");
        fs::write(&text, &content).unwrap();
        settle(&ground.lab.context(), None);
        assert_eq!(ground.record(case), expected, "{name}");
    }
}
