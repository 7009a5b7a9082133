//! RUN with mounts, devices, more powers, and programs of other machines.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Stdio};

use crate::support::lab::{Lab, Ran};
use crate::support::power;

/// Starts a build of its own Dockerfile on the lab's context.
fn start(lab: &Lab, name: &str, dockerfile: &str, args: &[&str]) -> Child {
    let file = lab.path(name);
    fs::write(&file, dockerfile).unwrap();
    lab.command()
        .args(["build", "--progress=plain", "-f"])
        .arg(file)
        .args(args)
        .arg(lab.context())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn end(child: Child) -> Ran {
    Ran::of(child.wait_with_output().unwrap())
}

#[test]
fn the_context_is_shown_without_what_is_ignored_and_stays_as_it_is() {
    let Some(lab) = Lab::with_base() else { return };
    lab.file("d/f", "content\n");
    lab.file("d/secret.key", "no\n");
    lab.file("with space", "x\n");
    lab.file(".dockerignore", "**/*.key\n");
    let files = lab.files(
        "FROM base\nWORKDIR /w\n\
         RUN --mount=target=/c ls -A /c > /ls && ls -A /c/d > /ls-d && cat /c/d/f > /f && ! touch /c/new 2>/dev/null && ! rm /c/d/f 2>/dev/null\n\
         RUN --mount=target=sub,source=d cat /w/sub/f > /relative\n\
         RUN --mount=source=d/f,target=/deep/er/file cat /deep/er/file > /single && stat -c %u:%g /deep/er/file > /owner\n\
         RUN --mount=target=/c,rw echo changed > /c/d/f && rm -r '/c/with space' && cat /c/d/f > /changed\n\
         RUN --mount=target=/c cat /c/d/f > /again && test -e '/c/with space'\n\
         RUN ls -A / > /root-ls; ls -A /w > /w-ls\n",
    );
    let listed = files.text("ls");
    assert_eq!(listed, ".dockerignore\nDockerfile\nd\nwith space\n");
    assert_eq!(files.text("ls-d"), "f\n");
    for name in ["f", "relative", "single", "again"] {
        assert_eq!(files.text(name), "content\n", "{name}");
    }
    assert_eq!(files.text("owner"), "0:0\n");
    assert_eq!(files.text("changed"), "changed\n");
    assert_eq!(fs::read(lab.context().join("d/f")).unwrap(), b"content\n");
    for name in ["c", "deep", "mount"] {
        assert!(
            !files.text("root-ls").lines().any(|line| line == name),
            "{name}"
        );
    }
    assert_eq!(files.text("w-ls"), "");
    lab.is_sound();
}

#[test]
fn layers_have_no_trace_of_mounts() {
    let Some(lab) = Lab::with_base() else { return };
    lab.file("d/f", "content\n");
    let image = lab.image(
        "FROM base\nRUN mkdir -p /kept && chmod 711 /kept\n\
         RUN --mount=target=/kept/m --mount=source=d/f,target=/kept/f --mount=type=cache,target=/new/cache --mount=type=tmpfs,target=/new/tmp \
         --mount=type=ssh --mount=source=d/f,target=/etc/passwd \
         echo x > /new/cache/x && echo y > /new/tmp/y && echo z > /z\n",
    );
    let top = image.layers.last().unwrap();
    let names: Vec<String> = top
        .iter()
        .map(|file| String::from_utf8_lossy(&file.entry.path).into_owned())
        .collect();
    assert_eq!(names, ["z"], "only what the command wrote");
    let history = image.config["history"].to_string();
    assert!(!history.contains("--mount"), "{history}");
}

#[test]
fn stages_images_contexts_and_nothing_can_be_shown() {
    let Some(lab) = Lab::with_base() else { return };
    fs::create_dir(lab.path("other")).unwrap();
    fs::write(lab.path("other/o"), "other\n").unwrap();
    fs::write(lab.path("other/hidden"), "").unwrap();
    fs::write(lab.path("other/.dockerignore"), "hidden\n").unwrap();
    let other = lab.path("other");
    lab.dockerfile(
        "FROM base AS made\nRUN mkdir -p /real/d && echo made > /real/d/f && ln -s /real /link && chown -R 7:8 /real\n\
         FROM base\n\
         RUN --mount=from=made,source=/link/d,target=/m cat /m/f > /stage && stat -c %u:%g /m/f > /owner && ! touch /m/x 2>/dev/null\n\
         RUN --mount=from=base,target=/m,rw test -x /m/bin/sh && rm /m/bin/sh && ! test -e /m/bin/sh && test -x /bin/sh\n\
         RUN --mount=from=base,target=/m test -x /m/bin/sh\n\
         RUN --mount=from=ctx,target=/m ls /m > /context\n\
         RUN --mount=from=scratch,target=/m ls -A /m > /nothing\n\
         RUN --mount=from=0,source=real/d/f,target=/m cat /m > /number\n",
    );
    let named = format!("ctx={}", other.display());
    lab.build(&["-t", "image", "--build-context", &named])
        .succeeds();
    let files = lab.saved("image").files();
    assert_eq!(files.text("stage"), "made\n");
    assert_eq!(files.text("number"), "made\n");
    assert_eq!(files.text("owner"), "7:8\n");
    assert_eq!(files.text("context"), "o\n");
    assert_eq!(files.text("nothing"), "");
}

#[test]
fn mounts_lie_inside_each_other_whatever_their_order() {
    let Some(lab) = Lab::with_base() else { return };
    lab.file("d/f", "context\n");
    let files = lab.files(
        "FROM base AS made\nRUN echo made > /made\nFROM base\n\
         RUN --mount=from=made,source=/made,target=/m/d/made --mount=target=/m,rw --mount=type=tmpfs,target=/m/d/t \
         cat /m/d/made /m/d/f > /seen && echo x > /m/d/t/x\n\
         RUN --mount=type=tmpfs,target=/m --mount=source=d,target=/m cat /m/f > /last\n\
         RUN --mount=type=cache,target=/job cd /job && pwd > /pwd\nWORKDIR /job/dir\n\
         RUN --mount=type=cache,target=/job pwd > /pwd2\n",
    );
    assert_eq!(files.text("seen"), "made\ncontext\n");
    assert_eq!(files.text("last"), "context\n", "the later one covers");
    assert_eq!(files.text("pwd2"), "/job/dir\n");
}

#[test]
fn mistakes_name_the_source_and_the_line() {
    let Some(lab) = Lab::with_base() else { return };
    lab.file("d/f", "");
    lab.file("ignored", "");
    lab.file(".dockerignore", "ignored\n");
    for (flags, code, texts) in [
        (
            "--mount=source=none,target=/m",
            5,
            &["none", "Dockerfile:2"][..],
        ),
        (
            "--mount=source=ignored,target=/m",
            5,
            &["ignored", "Dockerfile:2"],
        ),
        (
            "--mount=from=base,source=/no/ne,target=/m",
            5,
            &["/no/ne", "Dockerfile:2"],
        ),
        (
            "--mount=type=cache,from=base,source=/bin/sh,target=/m",
            5,
            &["`/bin/sh` is no directory", "Dockerfile:2"],
        ),
        (
            "--mount=target=/",
            3,
            &["a mount cannot cover `/`", "Dockerfile:2"],
        ),
        ("--mount=from=late,target=/m", 3, &["late"]),
        (
            "--security=insecure",
            3,
            &["--allow security.insecure", "Dockerfile:2"],
        ),
        (
            "--network=host",
            3,
            &["--allow network.host", "Dockerfile:2"],
        ),
        (
            "--device=/dev/fuse",
            3,
            &["--allow device=/dev/fuse", "Dockerfile:2"],
        ),
    ] {
        lab.dockerfile(&format!(
            "FROM base AS tested\nRUN {flags} true\nFROM base AS late\n"
        ));
        lab.build(&["--target", "tested"]).fails(code, texts);
    }
    lab.is_sound();
}

#[test]
fn what_is_shown_decides_and_nothing_else() {
    let Some(lab) = Lab::with_base() else { return };
    lab.file("src/a", "1\n");
    lab.file("unrelated", "1\n");
    lab.dockerfile(
        "FROM base AS made\nCOPY src /x\nRUN cat /x/a | tr 1 1 > /out; date +%N > /noise\nFROM base\n\
         RUN --mount=source=src,target=/s cat /s/a > /a\n\
         RUN --mount=from=made,source=/out,target=/o cat /o > /b\n",
    );
    lab.build(&["-t", "image"]).succeeds();
    lab.file("unrelated", "2\n");
    assert_eq!(lab.build(&["-t", "image"]).succeeds().executed(), 0);
    lab.file("src/new", "1\n");
    let again = lab.build(&["-t", "image"]);
    // The stage, its copy for the mount, the first RUN, which makes another root for the second.
    assert_eq!(again.succeeds().executed(), 5, "{}", again.stderr);
    lab.dockerfile(
        "FROM base AS made\nCOPY src /x\nRUN cat /x/a | tr 1 1 > /out; date +%N > /noise; true\nFROM base\n\
         RUN --mount=from=made,source=/out,target=/o cat /o > /b\n",
    );
    lab.build(&["-t", "image"]).succeeds();
    lab.file("src/more", "1\n");
    let again = lab.build(&["-t", "image"]);
    assert_eq!(
        again.succeeds().executed(),
        2,
        "the stage is made again, and shows the same: {}",
        again.stderr
    );
}

#[test]
fn a_cache_keeps_what_steps_and_builds_put_into_it() {
    let Some(lab) = Lab::with_base() else { return };
    let files = lab.files(
        "FROM base AS made\nRUN mkdir -m 750 /seed && echo seeded > /seed/s && ln -s s /seed/l && chown -R 3:4 /seed\nFROM base\n\
         RUN --mount=type=cache,target=/c stat -c '%a %u:%g' /c > /fresh && ls -A /c > /empty && echo one > /c/f\n\
         RUN --mount=type=cache,target=/c/ cat /c/f > /kept\n\
         RUN --mount=type=cache,id=/c,target=/other,ro cat /other/f > /by-id && ! touch /other/x 2>/dev/null\n\
         RUN --mount=type=cache,target=/c,id=else ls -A /c > /else\n\
         RUN --mount=type=cache,target=/c,uid=1000,gid=50,mode=0700 stat -c '%a %u:%g' /c > /owned && ls -A /c > /another\n\
         RUN --mount=type=cache,target=/c,from=made,source=/seed ls /c > /seeded && cat /c/l >> /seeded && stat -c '%a %u:%g' /c /c/s >> /seeded && rm /c/s\n\
         RUN --mount=type=cache,target=/c,from=made,source=/seed ls /c > /seeded-once\n\
         RUN --mount=type=cache,target=/c,from=made,source=/seed,mode=0777 stat -c '%a %u:%g' /c > /seeded-mode\n\
         RUN --mount=type=cache,target=/c,sharing=locked cat /c/f > /locked\n\
         RUN --mount=type=cache,target=/c,sharing=private --mount=type=cache,target=/d,id=/c cat /c/f /d/f > /twice\n\
         USER app\nRUN --mount=type=cache,target=/home/app/.cache,uid=1000 touch /home/app/.cache/x\n",
    );
    for (name, wanted) in [
        ("fresh", "755 0:0\n"),
        ("empty", ""),
        ("kept", "one\n"),
        ("by-id", "one\n"),
        ("else", ""),
        ("owned", "700 1000:50\n"),
        ("another", ""),
        ("seeded", "l\ns\nseeded\n750 3:4\n644 3:4\n"),
        ("seeded-once", "l\n"),
        ("seeded-mode", "777 3:4\n"),
        ("locked", "one\n"),
        ("twice", "one\none\n"),
    ] {
        assert_eq!(files.text(name), wanted, "{name}");
    }
    assert!(!files.has("c") && !files.has("other") && !files.has("home/app/.cache"));
    // Another build, another namespace.
    lab.dockerfile("FROM base\nRUN --mount=type=cache,target=/c ls /c > /second\n");
    lab.build(&["-t", "image"]).succeeds();
    assert_eq!(lab.saved("image").files().text("second"), "f\n");
    lab.build(&[
        "-t",
        "image",
        "--no-cache",
        "--build-arg",
        "BUILDKIT_CACHE_MOUNT_NS=n",
    ])
    .succeeds();
    assert_eq!(lab.saved("image").files().text("second"), "");
    lab.is_sound();
}

#[test]
fn a_locked_cache_is_one_steps_at_a_time() {
    let Some(lab) = Lab::with_base() else { return };
    let dockerfile = |name: &str| {
        format!(
            "FROM base\nRUN --mount=type=cache,target=/c,sharing=locked echo begin {name} >> /c/log; sleep 0.3; echo end {name} >> /c/log\n"
        )
    };
    let children: Vec<Child> = ["a", "b", "c"]
        .map(|name| start(&lab, name, &dockerfile(name), &[]))
        .into();
    let ran: Vec<Ran> = children.into_iter().map(end).collect();
    for one in &ran {
        one.succeeds();
    }
    lab.dockerfile("FROM base\nRUN --mount=type=cache,target=/c cp /c/log /log\n");
    lab.build(&["-t", "image"]).succeeds();
    let log = lab.saved("image").files().text("log");
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(lines.len(), 6, "{log}");
    for pair in lines.chunks(2) {
        let name = pair[0].strip_prefix("begin ").expect(&log);
        assert_eq!(pair[1], format!("end {name}"), "{log}");
    }
    assert!(
        ran.iter().any(|one| one.stderr.contains("waiting")),
        "whoever waits says so: {ran:?}"
    );
}

/// Two builds meet in a shared cache: each leaves a file and waits for the other's. Meanwhile the private one is nobody else's.
#[test]
fn a_shared_cache_is_seen_by_both_and_a_private_one_by_none() {
    let Some(lab) = Lab::with_base() else { return };
    let dockerfile = |own: &str, other: &str| {
        format!(
            "FROM base\nRUN --mount=type=cache,target=/s --mount=type=cache,target=/p,sharing=private \
             touch /s/{own} /p/{own}; while ! test -e /s/{other}; do sleep 0.01; done; ls /p > /private; touch /s/{own}-seen; \
             while ! test -e /s/{other}-seen; do sleep 0.01; done\n"
        )
    };
    let one = start(&lab, "one", &dockerfile("1", "2"), &["-t", "one"]);
    let two = start(&lab, "two", &dockerfile("2", "1"), &["-t", "two"]);
    end(one).succeeds();
    end(two).succeeds();
    assert_eq!(lab.saved("one").files().text("private"), "1\n");
    assert_eq!(lab.saved("two").files().text("private"), "2\n");
}

#[test]
fn waiting_for_a_cache_ends_with_the_build() {
    let Some(lab) = Lab::with_base() else { return };
    let holder = start(
        &lab,
        "holder",
        "FROM base\nRUN --mount=type=cache,target=/c,sharing=locked --mount=type=cache,target=/s \
         touch /s/holding; while ! test -e /s/go; do sleep 0.01; done\n",
        &[],
    );
    lab.dockerfile("FROM base\nRUN --mount=type=cache,target=/s while ! test -e /s/holding; do sleep 0.01; done\n");
    lab.build(&[]).succeeds();
    lab.dockerfile("FROM base\nRUN --mount=type=cache,target=/c,sharing=locked true\n");
    let waited = lab.build(&["--timeout", "1s"]);
    waited.fails(7, &["waiting"]);
    lab.dockerfile("FROM base\nRUN --mount=type=cache,target=/s touch /s/go\n");
    lab.build(&[]).succeeds();
    end(holder).succeeds();
    lab.dockerfile("FROM base\nRUN --mount=type=cache,target=/c,sharing=locked true\n");
    lab.build(&[]).succeeds();
    lab.is_sound();
}

#[test]
fn caches_are_counted_and_pruned() {
    let Some(lab) = Lab::with_base() else { return };
    lab.dockerfile(
        "FROM base\nRUN --mount=type=cache,target=/c mkdir -m 0 /c/closed && dd if=/dev/zero of=/c/big bs=1k count=3000 2>/dev/null\n",
    );
    lab.build(&["-t", "image"]).succeeds();
    let usage = lab.builder(&["du"]);
    let line = usage
        .succeeds()
        .stdout
        .lines()
        .find(|line| line.starts_with("cache mounts"));
    let line = line
        .unwrap_or_else(|| panic!("{}", usage.stdout))
        .to_owned();
    assert!(line.contains("3.07MB"), "{line}");
    lab.builder(&["prune"]).succeeds();
    lab.dockerfile("FROM base\nRUN --mount=type=cache,target=/c test -e /c/big\n");
    lab.build(&[]).succeeds();
    let pruned = lab.builder(&["prune", "--older-than", "7d"]);
    assert!(
        pruned.succeeds().stdout.contains(" 0 cache mounts"),
        "{}",
        pruned.stdout
    );
    let pruned = lab.builder(&["prune", "--all"]);
    assert!(
        pruned.succeeds().stdout.contains(" 1 cache mounts"),
        "{}",
        pruned.stdout
    );
    lab.dockerfile("FROM base\nRUN --mount=type=cache,target=/c ! test -e /c/big\n");
    lab.build(&[]).succeeds();
    lab.is_sound();
}

#[test]
fn a_tmpfs_is_empty_bounded_and_gone_after() {
    let Some(lab) = Lab::with_base() else { return };
    let files = lab.files(
        "FROM base\nRUN mkdir /t && echo below > /t/below\n\
         RUN --mount=type=tmpfs,target=/t,size=64k ls -A /t > /empty; echo x > /t/x; dd if=/dev/zero of=/t/big bs=1k count=100 2>/dev/null || echo full > /full\n\
         RUN --mount=type=tmpfs,target=/t,ro ! touch /t/x 2>/dev/null && ls -A /t > /ro\n\
         RUN --mount=type=tmpfs,target=/dev/shm/x touch /dev/shm/x/y\n",
    );
    assert_eq!(files.text("empty"), "");
    assert_eq!(files.text("full"), "full\n");
    assert_eq!(files.text("ro"), "");
    assert!(files.has("t/below") && !files.has("t/x") && !files.has("t/big"));
}

#[test]
fn more_powers_are_had_with_leave_only() {
    let Some(lab) = Lab::with_base() else { return };
    lab.dockerfile(
        "FROM base\nRUN --security=insecure grep -E 'CapBnd|Seccomp:' /proc/self/status > /insecure\n\
         RUN --security=sandbox grep -E 'CapBnd|Seccomp:' /proc/self/status > /sandbox\nRUN --network=host ls /sys/class/net > /net\n",
    );
    lab.build(&["--allow", "security.insecure"])
        .fails(3, &["--allow network.host"]);
    lab.build(&["-t", "image", "--allow", "security.insecure,network.host"])
        .succeeds();
    let files = lab.saved("image").files();
    assert!(
        files.text("insecure").contains("Seccomp:\t0"),
        "{}",
        files.text("insecure")
    );
    assert!(files.text("sandbox").contains("Seccomp:\t2"));
    assert!(files.text("sandbox").contains("00000000a80425fb"));
}

#[test]
fn a_device_is_there_with_leave_only() {
    let Some(lab) = Lab::with_base() else { return };
    // One that steps do not have by themselves, and that an ordinary user may see.
    let found = [
        "/dev/fuse",
        "/dev/kmsg",
        "/dev/loop-control",
        "/dev/rtc0",
        "/dev/vda",
    ];
    let Some(device) = found.iter().find(|path| fs::metadata(path).is_ok()) else {
        power::not_run("the machine has no device to give");
        return;
    };
    lab.dockerfile(&format!(
        "FROM base\nRUN ! test -e {device}\nRUN --device={device} --device=/dev/no-such --device=v.example/no=such test -e {device}\nRUN ! test -e {device}\n"
    ));
    lab.build(&["--allow", "device=/dev/other"])
        .fails(3, &["--allow device="]);
    lab.build(&["-t", "image", "--allow", "device"]).succeeds();
    assert!(
        !lab.saved("image")
            .files()
            .has(device.trim_start_matches('/'))
    );
    lab.dockerfile("FROM base\nRUN --device=/dev/no-such,required true\n");
    lab.build(&["--allow", "device"]).fails(
        5,
        &["the device `/dev/no-such` is not there", "Dockerfile:2"],
    );
    lab.dockerfile("FROM base\nRUN --device=v.example/no=such,required true\n");
    lab.build(&["--allow", "device"])
        .fails(5, &["`/etc/cdi`", "`/var/run/cdi`", "Dockerfile:2"]);
}

/// The smallest program of linux/arm64: it exits with 0.
fn arm64_program() -> Vec<u8> {
    let code: [u32; 3] = [0xd280_0ba8, 0xd280_0000, 0xd400_0001];
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    file.extend(2_u16.to_le_bytes());
    file.extend(183_u16.to_le_bytes());
    file.extend(1_u32.to_le_bytes());
    for number in [0x1_0078_u64, 64, 0] {
        file.extend(number.to_le_bytes());
    }
    file.extend(0_u32.to_le_bytes());
    for number in [64_u16, 56, 1, 64, 0, 0] {
        file.extend(number.to_le_bytes());
    }
    file.extend(1_u32.to_le_bytes());
    file.extend(5_u32.to_le_bytes());
    let length = 120 + 12;
    for number in [0_u64, 0x1_0000, 0x1_0000, length, length, 0x1_0000] {
        file.extend(number.to_le_bytes());
    }
    for instruction in code {
        file.extend(instruction.to_le_bytes());
    }
    file
}

#[test]
fn programs_of_another_machine_are_refused_before_anything_runs() {
    let Some(lab) = Lab::with_base() else { return };
    lab.file("program", arm64_program());
    // No machine of ours runs this one, with or without an emulator of its own.
    lab.dockerfile(
        "FROM --platform=$BUILDPLATFORM base AS native\nRUN echo executed > /x\nFROM scratch\nCOPY --from=native /x /x\nCOPY --chmod=755 program /p\nRUN [\"/p\"]\n",
    );
    let ran = lab.build(&["--platform", "linux/s390x"]);
    if ran.code == Some(5) {
        power::not_run("the machine emulates linux/s390x");
        return;
    }
    ran.fails(
        8,
        &[
            "Dockerfile:6",
            "programs of linux/s390x",
            "--emulator s390x=/usr/bin/qemu-s390x-static",
            "qemu-user-static",
            "$BUILDPLATFORM",
        ],
    );
    assert!(
        !ran.stderr.contains("RUN echo executed DONE"),
        "{}",
        ran.stderr
    );
    lab.file("no-elf", "text");
    let text = format!("s390x={}", lab.context().join("no-elf").display());
    lab.build(&["--emulator", &text])
        .fails(2, &["it is no program"]);
    lab.build(&["--emulator", "s390x=/bin/sh"])
        .fails(2, &["it needs libraries"]);
    lab.is_sound();
}

#[test]
fn an_emulator_runs_what_the_machine_cannot() {
    let Some(lab) = Lab::with_base() else { return };
    let Some(qemu) = qemu() else {
        power::not_run("no qemu-aarch64-static in BUILDER_TEST_QEMU or PATH");
        return;
    };
    fs::create_dir_all(lab.context()).unwrap();
    let program = lab.file("program", arm64_program());
    fs::set_permissions(program, fs::Permissions::from_mode(0o755)).unwrap();
    lab.dockerfile("FROM scratch\nCOPY program /p\nRUN [\"/p\"]\n");
    let emulator = format!("arm64={}", qemu.display());
    let ran = lab.build(&[
        "-t",
        "image",
        "--platform",
        "linux/arm64",
        "--emulator",
        &emulator,
    ]);
    if ran.code == Some(8) {
        power::not_run(&format!("emulators do not work here: {}", ran.stderr));
        return;
    }
    ran.succeeds();
    let image = lab.saved("image");
    assert_eq!(image.config["architecture"], "arm64");
    let files = image.files();
    assert!(
        !files.0.keys().any(|name| name.contains("qemu")),
        "{files:?}"
    );
}

fn qemu() -> Option<PathBuf> {
    let directories = std::env::var_os("BUILDER_TEST_QEMU").or_else(|| std::env::var_os("PATH"))?;
    std::env::split_paths(&directories)
        .map(|directory| directory.join("qemu-aarch64-static"))
        .find(|path| path.is_file())
}
