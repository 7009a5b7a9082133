//! Roots by overlayfs and roots as plain directories make the same images.

use crate::support::lab::Lab;

/// Makes something to change.
const FIRST: &str = r#"
mkdir -p /w/dir/sub/deep /w/links /w/empty /w/closed/in /w/s
for name in a b c d e f g h; do echo "$name" > /w/dir/$name; echo "$name" > /w/dir/sub/$name; done
echo deep > /w/dir/sub/deep/file
echo one > /w/links/one; ln /w/links/one /w/links/two; ln /w/links/one /w/dir/three
echo single > /w/links/single
ln -s dir /w/link; ln -s nowhere /w/dangling; ln -s /w/dir/sub /w/s/absolute; ln -s ../s /w/s/round
mkfifo /w/fifo
dd if=/dev/zero of=/w/sparse bs=1 count=1 seek=3000000 2>/dev/null
echo in > /w/closed/in/file; chmod 000 /w/closed/in /w/closed
chown -R 3:4 /w/dir/sub; chmod 4755 /w/dir/a; chmod 2775 /w/dir/sub; chmod 1777 /w/empty
touch -d '2001-02-03 04:05:06.789' /w/dir/b
"#;

/// One step each, on top of those above.
const STEPS: &[(&str, &str)] = &[
    ("nothing", "true"),
    (
        "a file read",
        "cat /w/dir/a /w/sparse > /dev/null; ls -laR /w > /dev/null",
    ),
    (
        "the mode that it has",
        "chmod 4755 /w/dir/a; chmod 1777 /w/empty; chown 0:0 /w/dir/a; chmod 4755 /w/dir/a",
    ),
    ("opened and not written", ": >> /w/dir/c"),
    (
        "the same content and time",
        "touch -r /w/dir/b /tmp/t; echo b > /w/dir/b; touch -r /tmp/t /w/dir/b; rm /tmp/t",
    ),
    (
        "the same size and time",
        "touch -r /w/dir/b /tmp/t; echo B > /w/dir/b; touch -r /tmp/t /w/dir/b; rm /tmp/t",
    ),
    (
        "a time alone",
        "touch -d 2002-01-01 /w/dir/c /w/fifo; touch -h -d 2002-01-01 /w/link",
    ),
    (
        "modes and owners",
        "chmod 600 /w/dir/d; chown 7:8 /w/dir/e; chown -h 9:9 /w/dangling; chgrp 5 /w/empty 2>/dev/null || chown :5 /w/empty",
    ),
    ("a file renamed", "mv /w/dir/f /w/dir/renamed"),
    (
        "a file there and back",
        "mv /w/dir/g /w/g; mv /w/g /w/dir/g",
    ),
    ("a file in another's place", "mv /w/dir/h /w/dir/g"),
    ("a directory renamed", "mv /w/dir/sub /w/moved"),
    (
        "a directory put back elsewhere",
        "mkdir /w/dir/sub; mv /w/moved/deep /w/dir/sub/deep",
    ),
    (
        "a directory removed and made again",
        "rm -r /w/moved; mkdir /w/moved; echo new > /w/moved/a",
    ),
    ("made again, empty", "rm -r /w/dir/sub; mkdir /w/dir/sub"),
    (
        "made and removed again",
        "mkdir /w/dir/x; echo > /w/dir/x/y; rm -r /w/dir/x",
    ),
    (
        "a file for a directory",
        "rm -r /w/moved; echo file > /w/moved",
    ),
    (
        "a directory for a file",
        "rm /w/moved; mkdir -p /w/moved/deep; echo > /w/moved/deep/file",
    ),
    (
        "a link for a directory",
        "rm -r /w/moved; ln -s dir /w/moved",
    ),
    ("a directory for a link", "rm /w/moved; mkdir /w/moved"),
    (
        "written through a link",
        "echo more >> /w/s/round/absolute 2>/dev/null; echo more > /w/link/through",
    ),
    (
        "one of several names written",
        "echo changed > /w/links/two",
    ),
    (
        "one of several names given a mode",
        "chmod 640 /w/links/one",
    ),
    ("one of several names removed", "rm /w/dir/three"),
    ("a name added", "ln /w/links/single /w/links/again"),
    (
        "a name added and removed",
        "ln /w/links/one /w/links/x; rm /w/links/x",
    ),
    (
        "names of a new file",
        "echo new > /w/n1; ln /w/n1 /w/n2; ln /w/n1 /w/links/n3",
    ),
    ("the new names, written through one", "echo other > /w/n2"),
    (
        "the fifo gone, a new one",
        "rm /w/fifo; mkfifo /w/fifo; mkfifo -m 600 /w/other",
    ),
    (
        "in a closed directory",
        "echo new > /w/closed/in/new; rm /w/closed/in/file",
    ),
    ("the closed directory gone", "rm -r /w/closed"),
    (
        "holes",
        "dd if=/dev/zero of=/w/sparse bs=1 count=1 seek=4000000 2>/dev/null",
    ),
    (
        "odd names",
        "cd /w; touch 'with space' \"$(printf 'line\\nbreak')\" \"$(printf '\\377')\" -- -dash .hidden",
    ),
    (
        "odd names gone",
        "cd /w; rm 'with space' \"$(printf 'line\\nbreak')\" \"$(printf '\\377')\" -- -dash",
    ),
    (
        "a socket",
        "perl -e 'socket(my $s, 1, 1, 0) or die; bind($s, pack(\"S a*\", 1, \"/w/socket\")) or die'",
    ),
    ("the socket gone", "rm -f /w/socket"),
    (
        "a deep tree",
        "p=/w/deep; for i in 1 2 3 4 5 6 7 8 9 10; do p=$p/directory$i; mkdir -p $p; echo $i > $p/file; done",
    ),
    (
        "the deep end changed",
        "echo x > /w/deep/directory1/directory2/directory3/directory4/directory5/directory6/directory7/file",
    ),
    ("everything gone", "rm -rf /w/dir /w/deep /w/links"),
    (
        "what the machine gives",
        "echo 1.2.3.4 >> /etc/hosts; mkdir /proc/x 2>/dev/null; touch /dev/x; echo > /etc/own",
    ),
    ("the root itself", "chmod 700 /; touch /top; mkdir /mnt"),
    ("the root as it was", "chmod 755 /; rm /top"),
    (
        "somebody still writing",
        "(while :; do echo x; done > /w/growing) & sleep 0.05; echo > /w/growing2; kill -9 $!; wait; : > /w/growing",
    ),
    (
        "attributes",
        "perl -e 'my ($p, $n, $v) = (\"/w/s\", \"user.note\", \"1\"); syscall(188, $p, $n, $v, 1, 0)' || true",
    ),
    (
        "an attribute gone",
        "perl -e 'my ($p, $n) = (\"/w/s\", \"user.note\"); syscall(197, $p, $n)' || true",
    ),
    (
        "a device",
        "mknod /w/device c 1 3 2>/dev/null || mkfifo /w/device",
    ),
    ("the device removed", "rm /w/device"),
];

fn dockerfile() -> String {
    let mut text = String::from("FROM base AS first\nARG SOURCE_DATE_EPOCH=1000000000\n");
    text.push_str(&format!("RUN <<EOF{FIRST}EOF\n"));
    for (_, script) in STEPS {
        text.push_str(&format!("RUN <<EOF\n{}\nEOF\n", script.replace('$', "\\$")));
    }
    text.replace("<<EOF", "<<'EOF'").replace("\\$", "$")
}

/// Returns the diff IDs of the layers above the base's.
fn layers(lab: &Lab, driver: &str, dockerfile: &str) -> Vec<String> {
    lab.dockerfile(dockerfile);
    let name = format!("by-{driver}");
    let output = format!("type=image,name={name},rewrite-timestamp=true");
    lab.build(&[
        "--no-cache",
        "--build-arg",
        "SOURCE_DATE_EPOCH=1000000000",
        &format!("--storage-driver={driver}"),
        "-o",
        &output,
    ])
    .succeeds();
    lab.is_sound();
    lab.saved(&name).list("/rootfs/diff_ids")
}

#[test]
fn both_drivers_make_the_same_layers() {
    let Some(lab) = Lab::with_base() else { return };
    let dockerfile = dockerfile();
    let [overlay, tree] = ["overlay", "tree"].map(|driver| layers(&lab, driver, &dockerfile));
    assert_eq!(overlay.len(), tree.len());
    let names = ["the base", "the first"].into_iter();
    let names = names.chain(STEPS.iter().map(|(name, _)| *name));
    let differing: Vec<&str> = names
        .zip(overlay.iter().zip(&tree))
        .filter_map(|(name, (overlay, tree))| (overlay != tree).then_some(name))
        .collect();
    assert!(differing.is_empty(), "{differing:?}");
}

#[test]
fn both_drivers_copy_from_stages_and_mount_them_alike() {
    let Some(lab) = Lab::with_base() else { return };
    lab.file("in/file", "context");
    let dockerfile = format!(
        "FROM base AS first\nARG SOURCE_DATE_EPOCH=1000000000\nRUN <<'EOF'{FIRST}EOF\n\
         FROM first AS left\nRUN echo left > /w/side; rm /w/links/one\n\
         FROM first AS right\nCOPY --from=left /w /from-left\nRUN echo right > /w/side\n\
         COPY --link in /linked\nADD in /w/dir/\nWORKDIR /new/directory\n\
         FROM scratch AS bare\nCOPY --from=right /w/links /w/dir /\n\
         FROM base\nARG SOURCE_DATE_EPOCH=1000000000\n\
         COPY --from=bare / /bare\nCOPY --from=left --chown=app:staff /w/side /left\n\
         COPY --from=right --parents /w/./links /w/side /right/\n\
         RUN --mount=from=left,target=/m,source=w,rw --mount=from=right,target=/n cp -a /m/links /copied; rm /m/side; cat /n/w/side > /side; ls /n > /names\n\
         RUN cat /bare/one /left /right/w/side > /all; test -e /names\n"
    );
    let [overlay, tree] = ["overlay", "tree"].map(|driver| layers(&lab, driver, &dockerfile));
    assert_eq!(overlay, tree);
}

#[test]
fn a_build_that_begins_with_one_driver_ends_with_the_other() {
    let Some(lab) = Lab::with_base() else { return };
    let lines = [
        "FROM base",
        "RUN echo 1 > /1; rm -r /home",
        "RUN mkdir /home; echo 2 > /home/2",
        "RUN rm /home/2; echo 3 > /3",
    ];
    for (last, driver) in [(2, "overlay"), (3, "tree"), (4, "overlay")] {
        lab.dockerfile(&(lines[..last].join("\n") + "\n"));
        let built = lab.build(&["-t", "image", &format!("--storage-driver={driver}")]);
        assert_eq!(built.succeeds().executed(), 1, "{driver}");
    }
    let files = lab.saved("image").files();
    assert!(files.has("1") && files.has("3") && files.has("home") && !files.has("home/2"));
    assert!(!files.has("home/app"));
}
