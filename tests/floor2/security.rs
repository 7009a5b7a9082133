//! Attacks: by a command, by an image, by a registry, by a context and a Dockerfile; and what stays when the builder is killed or
//! the disk is full. Each ends in a refusal or stays inside, with an exit code that says so, and the next build works.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::support::lab::{Lab, Ran};
use crate::support::power;
use crate::support::registry::{Access, FakeRegistry, Fault, TokenRules, digest_of};

pub(super) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(super) const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(super) const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// Asserts that whatever was done to a lab, it still builds.
#[track_caller]
pub(super) fn still_works(lab: &Lab) {
    lab.dockerfile("FROM base\nRUN echo it still works\n");
    lab.build(&["--no-cache"]).succeeds();
    lab.is_sound();
}

/// Runs a script as root of a step and returns what it printed.
#[track_caller]
fn printed(lab: &Lab, script: &str) -> String {
    lab.file("script", script);
    lab.files("FROM base\nCOPY script /\nRUN . /script > /printed 2>&1; true\n")
        .text("printed")
        .to_owned()
}

/// The same in Perl, which can make any system call.
#[track_caller]
fn perl(lab: &Lab, script: &str) -> Option<String> {
    if power::program("perl").is_none() {
        power::not_run("there is no perl to make system calls with");
        return None;
    }
    lab.file("script", script);
    let files = lab.files("FROM base\nCOPY script /\nRUN perl /script > /printed 2>&1; true\n");
    Some(files.text("printed").to_owned())
}

fn spawn(lab: &Lab, args: &[&str]) -> Child {
    lab.command()
        .args(args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id() as i32), signal).unwrap();
}

/// Waits for something that must happen; a test that hangs is a test that failed.
fn wait_until(happened: impl Fn() -> bool) {
    while !happened() {
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Counts the processes that have `argument` among their arguments, apart from builders.
fn running(argument: &str) -> usize {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter(|process| {
            let command = fs::read(process.path().join("cmdline")).unwrap_or_default();
            let mut words = command.split(|&byte| byte == 0);
            !words.next().unwrap_or_default().ends_with(b"builder")
                && words.any(|word| word == argument.as_bytes())
        })
        .count()
}

// What a command does.

#[test]
fn a_command_finds_nothing_of_the_builder() {
    let Some(lab) = Lab::with_base() else { return };
    let secret = "c0rrect-h0rse-battery";
    let config = lab.path("docker-config");
    fs::create_dir(&config).unwrap();
    fs::write(
        config.join("config.json"),
        format!(r#"{{"auths":{{"r.test":{{"auth":"{secret}"}}}}}}"#),
    )
    .unwrap();
    let host = lab.path("").display().to_string();
    let host = host.trim_end_matches('/');
    lab.file(
        "script",
        format!(
            "for p in /proc/[0-9]*; do tr '\\0' '\\n' < $p/environ; tr '\\0' ' ' < $p/cmdline; ls -l $p/fd $p/map_files; \
             for top in $p/root $p/cwd $p/root/.. $p/cwd/../../../..; do ls -d $top{host} && echo REACHED; cat $top{host}/docker-config/config.json; done; done\n\
             ls -d {host} /../..{host} && echo REACHED; cat /proc/1/mem /proc/kcore /proc/kmsg | head -c 100000; echo end\n"
        ),
    );
    lab.dockerfile("FROM base\nCOPY script /\nRUN . /script > /printed 2>/dev/null; true\n");
    let context = lab.context();
    let mut command = lab.command();
    command
        .args(["build", "-t", "image", context.to_str().unwrap()])
        .env("REGISTRY_TOKEN", secret);
    Ran::of(command.output().unwrap()).succeeds();
    let files = lab.saved("image").files();
    let found = files.text("printed");
    assert!(
        found.contains("end\n") && found.contains("PATH="),
        "{found}"
    );
    for never in [
        secret,
        "REACHED",
        "REGISTRY_TOKEN",
        "DOCKER_CONFIG",
        "socket:",
    ] {
        assert!(!found.contains(never), "{never} in {found}");
    }
    still_works(&lab);
}

#[test]
fn the_kernels_switches_cannot_be_turned() {
    let Some(lab) = Lab::with_base() else { return };
    let text = printed(
        &lab,
        "for f in /proc/sys/kernel/core_pattern /proc/sys/kernel/modprobe /proc/sys/vm/drop_caches /proc/sysrq-trigger /proc/irq/default_smp_affinity \
         /sys/kernel/uevent_helper /sys/kernel/profiling /sys/power/state /sys/fs/cgroup/release_agent /sys/fs/cgroup/*/release_agent /sys/fs/cgroup/cgroup.procs \
         /sys/fs/cgroup/*/cgroup.procs /sys/class/net/*/mtu; do [ -e $f ] && (echo 1 > $f) 2>/dev/null && echo REACHED $f; done\n\
         mkdir /sys/fs/cgroup/x /sys/fs/cgroup/memory/x 2>/dev/null && echo REACHED cgroup\n\
         (echo -1000 > /proc/self/oom_score_adj) 2>/dev/null && echo REACHED oom\n\
         (echo '0 0 4294967295' > /proc/self/uid_map) 2>/dev/null && echo REACHED uid_map\n\
         mount -t tmpfs x /tmp 2>/dev/null && echo REACHED mount; unshare -m true 2>/dev/null && echo REACHED unshare; unshare -r true 2>/dev/null && echo REACHED userns\n\
         (echo x > /dev/tty) 2>/dev/null && echo REACHED tty; ls /dev/mem /dev/kmsg /dev/console /dev/fuse /dev/kvm 2>/dev/null; echo end\n",
    );
    assert_eq!(text, "end\n");
    still_works(&lab);
}

#[test]
#[cfg(target_arch = "x86_64")]
fn dangerous_system_calls_fail() {
    let Some(lab) = Lab::with_base() else { return };
    let calls = [
        ("mount", 165),
        ("umount2", 166),
        ("pivot_root", 155),
        ("setns", 308),
        ("open_tree", 428),
        ("move_mount", 429),
        ("fsopen", 430),
        ("fspick", 433),
        ("mount_setattr", 442),
        ("open_by_handle_at", 304),
        ("bpf", 321),
        ("keyctl", 250),
        ("add_key", 248),
        ("request_key", 249),
        ("userfaultfd", 323),
        ("io_uring_setup", 425),
        ("perf_event_open", 298),
        ("init_module", 175),
        ("finit_module", 313),
        ("kexec_load", 246),
        ("reboot", 169),
        ("swapon", 167),
        ("acct", 163),
        ("pidfd_getfd", 438),
        ("kcmp", 312),
        ("quotactl", 179),
        ("syslog", 103),
        ("settimeofday", 164),
        ("iopl", 172),
        ("ioperm", 173),
        ("sethostname", 170),
        ("fanotify_init", 300),
        ("vhangup", 153),
        ("clone3", 435),
    ];
    let list: String = calls
        .iter()
        .map(|(name, number)| format!("c('{name}',{number});"))
        .collect();
    let script = format!(
        "$z=\"\\0\" x 4096; sub c {{ my($n,$k)=@_; my $r=syscall($k,$z,0,$z,0,0,0); my $e=$!+0; print \"$n $e\\n\" unless $r<0 && ($e==1||$e==38) }}\n{list}\n\
         for (0x10000000,0x20000,0x40000000,0x20000000) {{ my $r=syscall(272,$_+0); print \"unshare $_\\n\" unless $r<0 }}\n\
         for ([38,5,0],[40,1,0]) {{ my $r=syscall(41,$$_[0]+0,$$_[1]+0,$$_[2]+0); print \"socket @$_\\n\" unless $r<0 }}\nprint \"end\\n\";\n"
    );
    let Some(text) = perl(&lab, &script) else {
        return;
    };
    assert_eq!(text, "end\n", "each of these went through");
    still_works(&lab);
}

#[test]
fn abstract_sockets_of_the_machine_are_out_of_reach() {
    let Some(lab) = Lab::with_base() else { return };
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|n| n.parse::<u32>().unwrap_or_default());
    let version = (
        numbers.next().unwrap_or_default(),
        numbers.next().unwrap_or_default(),
    );
    if version < (6, 12) {
        return power::not_run("kernels before 6.12 cannot separate abstract sockets");
    }
    let name = format!("builder-test-{}", std::process::id());
    let _listener =
        UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    let script = format!(
        "socket(S,1,1,0) or die; print connect(S, pack('S a*', 1, \"\\0{name}\")) ? 'REACHED' : 'refused '.($!+0), \"\\n\";\n\
         socket(L,1,1,0) or die; bind(L, pack('S a*', 1, \"\\0own\")) or die; listen(L,1); socket(C,1,1,0); print connect(C, pack('S a*', 1, \"\\0own\")) ? 'own' : 'lost', \"\\n\";\n"
    );
    let Some(text) = perl(&lab, &script) else {
        return;
    };
    assert_eq!(text, "refused 1\nown\n");
}

#[test]
fn a_second_chroot_is_no_way_out() {
    let Some(lab) = Lab::with_base() else { return };
    let host = lab.path("state").display().to_string();
    let script = format!(
        "mkdir '/x'; opendir($d,'/'); chroot('/x') or die; chdir $d; chdir '..' for 1..100; chroot('.'); print -e '{host}' ? 'REACHED' : 'inside', ' ', (-e '/script' ? 'own' : 'lost'), \"\\n\";\n"
    );
    let Some(text) = perl(&lab, &script) else {
        return;
    };
    assert_eq!(text, "inside own\n");
}

#[test]
fn device_nodes_open_nothing() {
    let Some(lab) = Lab::with_base() else { return };
    let text = printed(
        &lab,
        "while read major minor blocks name; do case $major in [0-9]*) echo $major $minor;; esac; done < /proc/partitions > /list; echo 7 0 >> /list\n\
         for at in / /dev /dev/shm /tmp; do while read major minor; do mknod $at/disk b $major $minor 2>/dev/null && head -c 1 $at/disk >/dev/null 2>&1 && echo REACHED $at; rm -f $at/disk; done < /list\n\
         for c in '1 1' '1 2' '1 4' '1 11' '4 0' '5 1' '10 200' '10 229' '10 232'; do mknod $at/c c $c 2>/dev/null && (: < $at/c) 2>/dev/null && echo REACHED $at $c; rm -f $at/c; done; done; rm /list\n\
         mknod /whiteout c 0 0 2>/dev/null && echo REACHED whiteout; echo end\n",
    );
    assert_eq!(text, "end\n");
    still_works(&lab);
}

#[test]
fn deletions_cannot_be_forged() {
    let Some(lab) = Lab::with_base() else { return };
    for name in ["/.wh.x", "/etc/.wh.passwd", "/etc/.wh..wh..opq"] {
        lab.dockerfile(&format!("FROM base\nRUN echo > {name}\n"));
        lab.build(&["-t", "forged"])
            .fails(5, &[".wh.", "Dockerfile:2:1"]);
    }
    let script = "for $d ('/etc','/home') { for $n ('user.overlay.opaque','user.overlay.redirect','user.overlay.whiteout','user.overlay.metacopy','trusted.overlay.opaque') { my ($p,$m,$v)=($d,$n,'y'); syscall(188,$p,$m,$v,1,0) } } print \"end\\n\";\n";
    if cfg!(target_arch = "x86_64") && power::program("perl").is_some() {
        lab.file("script", script);
        let files = lab.files(
            "FROM base\nCOPY script /\nRUN perl /script\nRUN ls /etc/passwd /home/app -d > /seen\n",
        );
        assert_eq!(files.text("seen"), "/etc/passwd\n/home/app\n");
        assert!(files.has("etc/passwd") && files.has("home/app"));
    }
    still_works(&lab);
}

#[test]
fn links_in_place_of_mount_points_stay_inside() {
    let Some(lab) = Lab::with_base() else { return };
    let victim = lab.path("victim");
    fs::create_dir(&victim).unwrap();
    let out = format!("../../../../../../../..{}", victim.display());
    let directly = victim.display().to_string();
    let through = format!("/proc/1/root{directly}");
    for target in [out.as_str(), &through, "/"] {
        for name in ["proc", "dev", "etc", "etc/hosts"] {
            fs::remove_dir_all(lab.context()).unwrap();
            lab.link(&format!("links/{name}"), target);
            lab.dockerfile(
                "FROM base AS base\nFROM scratch\nCOPY --link --from=base /bin /bin\nCOPY --link --from=base /lib* /usr/lib* /lib/\nCOPY --link --from=base /lib64 /lib64\nCOPY --link links/ /\nRUN [\"/bin/sh\", \"-c\", \"echo x > /etc/hosts; echo x > /etc/resolv.conf; true\"]\n",
            );
            let ran = lab.build(&[]);
            assert!(
                matches!(ran.code, Some(0 | 5 | 8)),
                "{name} -> {target}: {ran:?}"
            );
            assert_eq!(
                fs::read_dir(&victim).unwrap().count(),
                0,
                "{name} -> {target}"
            );
        }
    }
    still_works(&lab);
}

#[test]
fn a_working_directory_leads_nowhere_else() {
    let Some(lab) = Lab::with_base() else { return };
    for at in [
        "/proc/self/fd/3",
        "/proc/self/fd/5/..",
        "/proc/1/cwd/../../../..",
        "/link",
        "/link/x",
    ] {
        lab.dockerfile(&format!(
            "FROM base\nRUN ln -s /proc/self/fd/4 /link\nWORKDIR {at}\nRUN test ! -e {}\n",
            lab.path("state").display()
        ));
        let ran = lab.build(&[]);
        assert!(matches!(ran.code, Some(0 | 5)), "{at}: {ran:?}");
    }
    still_works(&lab);
}

#[test]
fn nothing_that_was_left_behind_goes_on() {
    let Some(lab) = Lab::with_base() else { return };
    let script = "cp /bin/sleep /bin/own; chown app /bin/own; chmod 6755 /bin/own\n(setsid sh -c 'setsid /bin/own 81811 & (/bin/own 81811 &)' &)\nnohup_ignored() { trap '' HUP TERM INT; /bin/own 81811 & }; nohup_ignored; sleep 0.2\n";
    lab.file("script", script);
    lab.dockerfile("FROM base\nCOPY script /\nRUN . /script\n");
    lab.build(&[]).succeeds();
    assert_eq!(running("81811"), 0);
    // A set-user-ID program as process 1, which the kernel spares the parent's death signal.
    lab.dockerfile("FROM base\nCOPY script /\nRUN . /script\nUSER 1234\nRUN exec /bin/own 81812\n");
    let context = lab.context();
    let mut child = spawn(&lab, &["build", context.to_str().unwrap()]);
    wait_until(|| running("81812") > 0);
    child.kill().unwrap();
    child.wait().unwrap();
    wait_until(|| running("81812") == 0);
    still_works(&lab);
}

#[test]
fn a_multitude_of_processes_ends_with_the_time() {
    let Some(lab) = Lab::with_base() else { return };
    lab.dockerfile("FROM base\nRUN i=0; while [ $i -lt 300 ]; do setsid sleep 81813 & i=$((i+1)); done; kill -STOP $$; wait\n");
    lab.build(&["--timeout", "3s"]).fails(7, &["timeout"]);
    assert_eq!(running("81813"), 0);
    still_works(&lab);
}

#[test]
fn endless_output_takes_no_memory() {
    let Some(lab) = Lab::with_base() else { return };
    for (progress, script) in [("plain", "tr '\\\\0' x < /dev/zero"), ("rawjson", "yes")] {
        lab.dockerfile(&format!("FROM base\nRUN {script}\n"));
        let context = lab.context();
        let mut command = lab.command();
        command
            .args([
                "build",
                "--timeout=2s",
                &format!("--progress={progress}"),
                context.to_str().unwrap(),
            ])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut most = 0;
        let ended = loop {
            if let Some(ended) = child.try_wait().unwrap() {
                break ended;
            }
            let status =
                fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
            let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            let kilobytes =
                peak.and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok());
            most = most.max(kilobytes.unwrap_or_default());
            std::thread::sleep(Duration::from_millis(50));
        };
        assert_eq!(ended.code(), Some(7), "{progress}");
        assert!(most < 200 << 10, "{progress}: {most} kB");
    }
    still_works(&lab);
}

#[test]
fn messages_carry_no_control_sequences() {
    let Some(lab) = Lab::with_base() else { return };
    lab.dockerfile("FROM base\nRUN printf '\\033]0;title\\007\\033[2J\\rspoof\\n'; exit 3\n");
    let ran = lab.builder(&["build", "--progress=quiet", lab.context().to_str().unwrap()]);
    ran.fails(5, &["spoof"]);
    assert!(
        !ran.stderr.contains(['\u{1b}', '\u{7}', '\r']),
        "{:?}",
        ran.stderr
    );
    fs::write(lab.context().join("odd\u{1b}[31m\nname"), "x").unwrap();
    lab.dockerfile("FROM base\nCOPY odd* /etc/passwd/x/\n");
    let ran = lab.build(&[]);
    assert_ne!(ran.code, Some(0));
    assert!(!ran.stderr.contains('\u{1b}'), "{:?}", ran.stderr);
}

// What an image or a registry does.

/// Returns one entry of an archive, whatever it says.
pub(super) fn entry(name: &str, kind: u8, link: &str, content: &[u8]) -> Vec<u8> {
    let mut block = [0_u8; 512];
    block[..name.len()].copy_from_slice(name.as_bytes());
    block[100..108].copy_from_slice(b"0000644\0");
    block[108..116].copy_from_slice(b"0000000\0");
    block[116..124].copy_from_slice(b"0000000\0");
    block[124..136].copy_from_slice(format!("{:011o}\0", content.len()).as_bytes());
    block[136..148].copy_from_slice(b"00000000000\0");
    block[148..156].fill(b' ');
    block[156] = kind;
    block[157..157 + link.len()].copy_from_slice(link.as_bytes());
    block[257..265].copy_from_slice(b"ustar\x0000");
    if kind == b'3' || kind == b'4' {
        block[329..337].copy_from_slice(b"0000376\0");
        block[337..345].copy_from_slice(b"0000000\0");
    }
    let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut bytes = block.to_vec();
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

pub(super) fn archive(entries: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = entries.concat();
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

pub(super) fn config(diff_ids: &[String]) -> Value {
    json!({ "architecture": host_architecture(), "os": "linux", "config": {}, "rootfs": { "type": "layers", "diff_ids": diff_ids } })
}

pub(super) fn host_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        _ => "arm64",
    }
}

/// Publishes an image as `evil:latest`.
fn publish(registry: &FakeRegistry, config: &[u8], layers: &[&[u8]]) -> String {
    let descriptor = |media_type: &str, bytes: &[u8]| json!({ "mediaType": media_type, "digest": registry.put_blob("evil", bytes), "size": bytes.len() });
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor(CONFIG, config),
        "layers": layers.iter().map(|layer| descriptor(LAYER, layer)).collect::<Vec<_>>(),
    });
    registry.put_manifest("evil", "latest", MANIFEST, manifest.to_string().as_bytes())
}

pub(super) fn publish_layers(registry: &FakeRegistry, layers: &[&[u8]]) {
    let diff_ids: Vec<String> = layers.iter().map(|layer| digest_of(layer)).collect();
    publish(registry, config(&diff_ids).to_string().as_bytes(), layers);
}

#[test]
fn layers_that_reach_outside_are_refused_or_stay_inside() {
    let Some(lab) = Lab::with_base() else { return };
    let registry = FakeRegistry::start();
    let victim = lab.path("victim");
    fs::create_dir(&victim).unwrap();
    fs::write(victim.join("file"), "intact").unwrap();
    let at = victim.display().to_string();
    let up = format!("../../../../../../../../..{at}");
    let file = |name: &str| entry(name, b'0', "", b"evil");
    let link = |name: &str, target: &str| entry(name, b'2', target, b"");
    let hard = |name: &str, target: &str| entry(name, b'1', target, b"");
    let deep: String = "d/".repeat(49);
    let attacks: Vec<Vec<Vec<u8>>> = vec![
        vec![file(&format!("{up}/new"))],
        vec![file(&format!("{at}/new"))],
        vec![link("l", &at), file("l/new"), file("l/file")],
        vec![
            link("l", &up),
            link("m", "l"),
            file("m/new"),
            file("m/.wh.file"),
        ],
        vec![hard("h", &format!("{at}/file")), file("h")],
        vec![hard("h", &format!("{up}/file"))],
        vec![
            link("l", &at),
            hard("h", "l/file"),
            entry("h", b'0', "", b"evil"),
        ],
        vec![
            entry("disk", b'4', "", b""),
            entry("zero", b'3', "", b""),
            hard("disk2", "disk"),
        ],
        vec![link("a", "b"), link("b", "a"), file("a/x")],
        vec![
            file("x"),
            file("x"),
            link("x", "/"),
            entry("x", b'5', "", b""),
            file("x/y"),
        ],
        vec![file(".wh.."), file(".wh..."), file(".wh.")],
        vec![entry(&deep, b'5', "", b""), file(&format!("{deep}x"))],
        vec![link(".", &at), file("new")],
        vec![
            link("proc", &at),
            link("etc", &at),
            link("dev", &up),
            file("etc/hosts"),
        ],
    ];
    for (number, attack) in attacks.iter().enumerate() {
        publish_layers(&registry, &[&archive(attack)]);
        lab.dockerfile(&format!(
            "FROM {}/evil AS evil\nFROM scratch\nCOPY --from=evil / /copied\n",
            registry.host()
        ));
        let ran = lab.build(&["--pull"]);
        assert!(matches!(ran.code, Some(0 | 4 | 5)), "{number}: {ran:?}");
        if ran.code != Some(0) {
            assert!(ran.stderr.contains("cause: "), "{number}: {ran:?}");
        }
        assert_eq!(
            fs::read(victim.join("file")).unwrap(),
            b"intact",
            "{number}"
        );
        assert_eq!(fs::read_dir(&victim).unwrap().count(), 1, "{number}");
        lab.is_sound();
    }
    still_works(&lab);
}

#[test]
fn lying_registries_are_caught() {
    let Some(lab) = Lab::with_base() else { return };
    let registry = FakeRegistry::start();
    let good = archive(&[entry("f", b'0', "", b"good")]);
    let evil = archive(&[entry("f", b'0', "", b"evil")]);
    let check = |texts: &[&str]| {
        lab.dockerfile(&format!(
            "FROM {}/evil AS evil\nFROM scratch\nCOPY --from=evil /f /\n",
            registry.host()
        ));
        lab.build(&["--pull"]).fails(4, texts);
        lab.is_sound();
    };
    publish_layers(&registry, &[&good]);
    registry.put_blob_as("evil", &digest_of(&good), &evil);
    check(&["digest"]);
    registry.put_blob_as("evil", &digest_of(&good), &good[..good.len() - 512]);
    check(&["size"]);
    publish(
        &registry,
        config(&[digest_of(&evil)]).to_string().as_bytes(),
        &[&good],
    );
    check(&["digest", "config"]);
    // One diff ID too few, and too many.
    publish(&registry, config(&[]).to_string().as_bytes(), &[&good]);
    check(&["layer"]);
    publish(
        &registry,
        config(&[digest_of(&good), digest_of(&good)])
            .to_string()
            .as_bytes(),
        &[&good],
    );
    check(&["layer"]);
    // Documents of wrong types.
    for text in [
        "[]",
        "null",
        "1",
        "\"x\"",
        "{",
        "",
        "{\"rootfs\":[]}",
        "{\"rootfs\":{\"diff_ids\":{}}}",
        "{\"config\":{\"Env\":{}},\"rootfs\":{\"diff_ids\":[]}}",
        "{\"config\":{\"Env\":[1]}}",
        "{\"os\":[],\"architecture\":{}}",
        "\u{0}\u{1}",
        &"[".repeat(100_000),
    ] {
        publish(&registry, text.as_bytes(), &[&good]);
        check(&[]);
        registry.put_manifest("evil", "latest", MANIFEST, text.as_bytes());
        check(&[]);
        registry.put_manifest("evil", "latest", INDEX, text.as_bytes());
        check(&[]);
    }
    // A million variables fit no honest config.
    let variables: Vec<String> = (0..1_000_000).map(|n| format!("V{n}=x")).collect();
    let mut huge = config(&[digest_of(&good)]);
    huge["config"]["Env"] = json!(variables);
    publish(&registry, huge.to_string().as_bytes(), &[&good]);
    check(&[]);
    // A list that names itself (under the digest that it would like to have), and lists of lists.
    let wish = format!("sha256:{}", "1".repeat(64));
    let platform = json!({ "os": "linux", "architecture": host_architecture() });
    let list = |digest: &str, size: usize| {
        json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [{ "mediaType": INDEX, "digest": digest, "size": size, "platform": platform }] }).to_string()
    };
    let text = list(&wish, 100);
    registry.put_manifest("evil", "latest", INDEX, text.as_bytes());
    registry.put_manifest("evil", &wish, INDEX, text.as_bytes());
    check(&[]);
    let mut inner = registry.put_manifest("evil", "inner", INDEX, list(&wish, 100).as_bytes());
    for _ in 0..50 {
        let text = list(&inner, text.len());
        inner = registry.put_manifest("evil", "latest", INDEX, text.as_bytes());
    }
    check(&[]);
    registry.fault(
        "GET",
        "/manifests/",
        Fault::Redirect(307, format!("{}/v2/evil/manifests/latest", registry.url())),
    );
    registry.faults(
        "GET",
        "/manifests/",
        &Fault::Redirect(307, format!("{}/v2/evil/manifests/latest", registry.url())),
        50,
    );
    check(&[]);
    registry.faults("GET", "", &Fault::Pass, 0);
    still_works(&lab);
}

// What a context and a Dockerfile do.

#[test]
fn a_hostile_context_is_copied_as_it_is_or_refused() {
    let Some(lab) = Lab::with_base() else { return };
    let victim = lab.path("victim");
    fs::create_dir(&victim).unwrap();
    fs::write(victim.join("secret"), "s3cret").unwrap();
    let at = victim.display().to_string();
    lab.link("out/direct", &format!("{at}/secret"));
    lab.link("out/up", "../../victim/secret");
    lab.link("out/directory", &at);
    lab.link("out/loop", "loop");
    lab.link("out/root", "/");
    lab.link("outdir", &at);
    let context = lab.context();
    fs::write(
        context.join(std::ffi::OsStr::from_bytes(b"out/\xff\xfe\n\x1b[31m")),
        "x",
    )
    .unwrap();
    lab.file("sparse/f", "");
    fs::File::options()
        .write(true)
        .open(context.join("sparse/f"))
        .unwrap()
        .set_len(1 << 40)
        .unwrap();
    assert!(
        Command::new("mkfifo")
            .arg(context.join("fifo"))
            .status()
            .unwrap()
            .success()
    );
    let _socket = UnixListener::bind(context.join("socket")).unwrap();

    let files = lab.files("FROM base\nCOPY out/ /out/\nRUN cat /out/* > /read 2>/dev/null; true\n");
    assert!(
        !files
            .0
            .values()
            .any(|file| file.content.windows(6).any(|bytes| bytes == b"s3cret")),
        "what links name was copied"
    );
    for source in [
        "out/direct",
        "out/up",
        "out/directory/secret",
        "outdir/secret",
        "outdir/*",
        "out/root/etc/passwd",
        "../victim/secret",
        "out/loop/x",
        "out/../../victim/secret",
    ] {
        lab.dockerfile(&format!(
            "FROM base\nCOPY {source} /got\nRUN grep -r s3cret /got && exit 9; true\n"
        ));
        let ran = lab.build(&[]);
        assert!(matches!(ran.code, Some(0 | 3 | 4 | 5)), "{source}: {ran:?}");
        assert!(!ran.stderr.contains("exit code 9"), "{source}: {ran:?}");
    }
    for source in ["fifo", "socket", "sparse/f"] {
        let started = Instant::now();
        lab.dockerfile(&format!("FROM base\nCOPY {source} /got\n"));
        let ran = lab.build(&["--timeout=2s"]);
        assert!(matches!(ran.code, Some(0 | 4 | 5 | 7)), "{source}: {ran:?}");
        assert!(
            started.elapsed() < Duration::from_secs(20),
            "{source} took {:?}",
            started.elapsed()
        );
        lab.is_sound();
    }
    fs::remove_file(context.join("sparse/f")).unwrap();
    for special in ["/dev/zero", "/proc/self/mem", "/"] {
        fs::remove_file(context.join("Dockerfile")).unwrap();
        lab.link("Dockerfile", special);
        let ran = lab.build(&[]);
        assert!(matches!(ran.code, Some(3 | 4)), "{special}: {ran:?}");
    }
    fs::remove_file(context.join("Dockerfile")).unwrap();
    still_works(&lab);
}

#[test]
fn a_dockerfile_is_no_link_to_files_of_the_machine() {
    let lab = Lab::new();
    fs::write(lab.path("private"), "c0rrect-h0rse\n").unwrap();
    let private = lab.path("private").display().to_string();
    let context = lab.context().display().to_string();
    for target in ["../private", &private, "/proc/self/environ"] {
        lab.link("Dockerfile", target);
        lab.link("d/Dockerfile", target);
        let inner = format!("{context}/d/Dockerfile");
        for args in [
            &["build", &context][..],
            &["build", "--check", &context],
            &["build", "-f", "context/Dockerfile", &context],
            &["build", "-f", &inner, &context],
        ] {
            let ran = lab.builder(args);
            ran.fails(3, &["Dockerfile", "inside the build context"]);
            let told = format!("{}{}", ran.stdout, ran.stderr);
            assert!(
                !told.contains("c0rrect") && !told.contains("PATH="),
                "{told}"
            );
        }
        fs::remove_file(lab.context().join("Dockerfile")).unwrap();
        fs::remove_file(lab.context().join("d/Dockerfile")).unwrap();
    }
    // Inside, and where the user says so, links are followed.
    lab.file("real", "FROM scratch\nLABEL a=b\n");
    lab.link("Dockerfile", "/d/../real");
    lab.file("d/x", "");
    lab.build(&[]).succeeds();
    fs::write(lab.path("elsewhere"), "FROM scratch\n").unwrap();
    std::os::unix::fs::symlink("elsewhere", lab.path("link")).unwrap();
    lab.build(&["-f", "link"]).succeeds();
    fs::remove_file(lab.context().join("Dockerfile")).unwrap();
    nix::unistd::mkfifo(
        &lab.context().join("Dockerfile"),
        nix::sys::stat::Mode::S_IRWXU,
    )
    .unwrap();
    lab.build(&[]).fails(3, &["not a regular file"]);
}

#[test]
fn hostile_dockerfiles_end_soon() {
    let Some(lab) = Lab::with_base() else { return };
    let doubling: String = (0..64).map(|_| "ENV A=$A$A$A$A\n").collect();
    let cases = [
        (
            "a long line",
            format!("FROM base\nENV A={}\n", "x".repeat(50 << 20)),
        ),
        (
            "deep nesting",
            format!(
                "FROM base\nENV A={}x{}\n",
                "${a:-".repeat(100_000),
                "}".repeat(100_000)
            ),
        ),
        (
            "doubling",
            format!("FROM base\nENV A=xxxxxxxxxxxxxxxx\n{doubling}"),
        ),
        (
            "many instructions",
            format!("FROM base\n{}", "LABEL a=b\n".repeat(10_000)),
        ),
        (
            "many steps",
            format!("FROM base\n{}", "RUN true\n".repeat(10_000)),
        ),
        (
            "many stages",
            (0..5_000)
                .map(|n| format!("FROM scratch AS s{n}\n"))
                .collect(),
        ),
        (
            "a stage of itself",
            "FROM a AS a\nFROM b AS a\nFROM a AS b\n".to_owned(),
        ),
        (
            "continuation",
            format!("FROM base\nRUN {}", "\\\n".repeat(1_000_000)),
        ),
        (
            "heredocs",
            format!("FROM base\nRUN {}\n", "<<A ".repeat(10_000)),
        ),
        (
            "json",
            format!("FROM base\nRUN {}\n", "[".repeat(1_000_000)),
        ),
        ("NUL", "FROM base\nRUN echo \0\nENV A=\0\n".to_owned()),
        (
            "ONBUILD",
            format!("FROM base\n{} RUN true\n", "ONBUILD ".repeat(10_000)),
        ),
    ];
    for (name, text) in cases {
        lab.dockerfile(&text);
        let started = Instant::now();
        let ran = lab.builder(&[
            "build",
            "--timeout=3s",
            "--progress=quiet",
            lab.context().to_str().unwrap(),
        ]);
        let took = started.elapsed();
        assert!(
            matches!(ran.code, Some(0 | 3 | 4 | 5 | 7)),
            "{name}: {:?} {}",
            ran.code,
            &ran.stderr[..ran.stderr.len().min(2000)]
        );
        assert!(took < Duration::from_secs(15), "{name} took {took:?}");
        assert!(
            ran.stderr.len() < 1 << 20,
            "{name}: {} bytes of messages",
            ran.stderr.len()
        );
    }
    still_works(&lab);
}

// Secrets.

/// Asserts that no file below `directory` holds any of `secrets`.
pub(super) fn nowhere(directory: &Path, secrets: &[&str]) {
    for item in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = item.path();
        let kind = item.file_type().unwrap();
        for secret in secrets {
            assert!(
                !path.to_string_lossy().contains(secret),
                "{}",
                path.display()
            );
        }
        if kind.is_dir() {
            nowhere(&path, secrets);
        } else if kind.is_file() {
            let mut bytes = Vec::new();
            fs::File::open(&path)
                .unwrap()
                .read_to_end(&mut bytes)
                .unwrap();
            for secret in secrets {
                let found = bytes
                    .windows(secret.len())
                    .any(|window| window == secret.as_bytes());
                assert!(!found, "`{secret}` is in {}", path.display());
            }
        }
    }
}

#[test]
fn credentials_are_written_nowhere() {
    use base64::Engine as _;
    let Some(lab) = Lab::with_base() else { return };
    let (user, password, refresh) = (
        "writer",
        "pa55-w0rd-unmistakable",
        "r3fresh-t0ken-unmistakable",
    );
    let encoded = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
    let layer = archive(&[entry("f", b'0', "", b"content")]);
    let bearer = |identity: bool| {
        Access::Bearer(TokenRules {
            users: vec![(user.into(), password.into(), true)],
            identity_tokens: if identity {
                vec![refresh.into()]
            } else {
                Vec::new()
            },
            public: false,
            ..TokenRules::default()
        })
    };
    let basic = Access::Basic {
        user: user.into(),
        password: password.into(),
    };
    fs::create_dir(lab.path("docker-config")).unwrap();
    let secrets = [password, refresh, encoded.as_str()];
    let inside = lab.context();
    for (access, auth) in [
        (basic, json!({ "auth": encoded })),
        (bearer(false), json!({ "auth": encoded })),
        (
            bearer(true),
            json!({ "username": user, "identitytoken": refresh }),
        ),
    ] {
        let registry = FakeRegistry::start_with(access);
        publish_layers(&registry, &[&layer]);
        let auths = json!({ "auths": { (registry.host()): auth } });
        fs::write(lab.path("docker-config/config.json"), auths.to_string()).unwrap();
        let host = registry.host();
        let pulled = lab.builder(&["pull", &format!("{host}/evil:latest")]);
        lab.dockerfile(&format!("FROM {host}/evil AS evil\nFROM base\nCOPY --from=evil /f /\nRUN env > /env; cat /proc/*/environ > /environ; cat /proc/*/cmdline > /cmdline; true\n"));
        let tag = format!("{host}/out:1");
        let metadata = lab.path("metadata.json");
        let oci = format!("type=oci,dest={}", lab.path("out.tar").display());
        let built = lab.builder(&[
            "build",
            "--no-cache",
            "--progress=rawjson",
            "-t",
            &tag,
            "--push",
            "-o",
            &oci,
            "--metadata-file",
            metadata.to_str().unwrap(),
            inside.to_str().unwrap(),
        ]);
        // What registries say back when they refuse.
        registry.faults("", "/blobs/", &Fault::Echo, 20);
        let refused = lab.builder(&[
            "build",
            "--no-cache",
            "--progress=rawjson",
            "-t",
            &format!("{host}/other:1"),
            "--push",
            inside.to_str().unwrap(),
        ]);
        for (ran, must) in [(&built, Some(0)), (&pulled, Some(0)), (&refused, None)] {
            for secret in secrets {
                assert!(
                    !ran.stdout.contains(secret) && !ran.stderr.contains(secret),
                    "{ran:?}"
                );
            }
            if must.is_some() {
                assert_eq!(ran.code, must, "{ran:?}");
            }
            assert!(
                !ran.stderr.contains("Bearer ") && !ran.stderr.contains("Basic "),
                "{ran:?}"
            );
        }
        fs::remove_file(lab.path("docker-config/config.json")).unwrap();
        nowhere(&lab.path(""), &secrets);
    }
    lab.is_sound();
}

// Violent ends.

#[test]
fn killing_the_builder_at_any_moment_leaves_a_sound_store() {
    let Some(lab) = Lab::with_base() else { return };
    let context = lab.context();
    for n in 0..200 {
        lab.file(&format!("many/{n}"), format!("{n}").repeat(500));
    }
    let mut moment: u64 = 0x9e37_79b9;
    for round in 0..30 {
        lab.dockerfile(&format!("FROM base\nCOPY many /many{round}\nRUN echo {round} > /x; cp -r /many{round} /again\nWORKDIR /w{round}\nRUN rm -r /again\n"));
        let mut child = lab
            .command()
            .args([
                "build",
                "--progress=quiet",
                "-t",
                "killed",
                context.to_str().unwrap(),
            ])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        moment = moment
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        std::thread::sleep(Duration::from_millis((moment >> 33) % 300));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    lab.builder(&["du", "--verify"]).succeeds();
    lab.dockerfile("FROM base\nRUN echo after\n");
    lab.build(&["-t", "after"]).succeeds();
    lab.is_sound();
    still_works(&lab);
}

#[test]
fn killing_either_half_of_init_ends_the_step() {
    let Some(lab) = Lab::with_base() else { return };
    for victim in ["outer", "inner"] {
        let mark = if victim == "outer" { "81821" } else { "81822" };
        lab.dockerfile(&format!("FROM base\nRUN sleep {mark} & wait\n"));
        let context = lab.context();
        let child = spawn(
            &lab,
            &["build", "--progress=plain", context.to_str().unwrap()],
        );
        wait_until(|| running(mark) > 0);
        let outer = children(child.id())[0];
        let inner = children(outer)[0];
        let target = if victim == "outer" { outer } else { inner };
        kill(Pid::from_raw(target as i32), Signal::SIGKILL).unwrap();
        let ran = Ran::of(child.wait_with_output().unwrap());
        assert!(matches!(ran.code, Some(5 | 8)), "{victim}: {ran:?}");
        wait_until(|| running(mark) == 0);
    }
    still_works(&lab);
}

fn children(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    tasks
        .flat_map(|task| {
            let text = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            text.split_whitespace()
                .map(|pid| pid.parse().unwrap())
                .collect::<Vec<u32>>()
        })
        .collect()
}

/// Runs a build and ends it by `how`; returns what came of it and how long the end took.
fn ended(lab: &Lab, args: &[&str], reached: impl Fn() -> bool, how: Signal) -> (Ran, Duration) {
    let child = spawn(lab, args);
    wait_until(reached);
    std::thread::sleep(Duration::from_millis(200));
    let asked = Instant::now();
    signal(&child, how);
    let ran = Ran::of(child.wait_with_output().unwrap());
    (ran, asked.elapsed())
}

#[test]
fn one_signal_or_the_timeout_ends_every_transfer() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    let Some(lab) = Lab::with_base() else { return };
    let context = lab.context();
    let context = context.to_str().unwrap();
    let registry = FakeRegistry::start();
    let tag = format!("{}/out:1", registry.host());
    lab.file("f", vec![7_u8; 3 << 20]);
    let layer = archive(&[entry("f", b'0', "", &vec![1; 1 << 20])]);
    publish_layers(&registry, &[&layer]);
    let push = ["build", "--progress=plain", "-t", &tag, "--push", context];
    let pull = ["build", "--progress=plain", "--pull", context];
    let is_reached = Arc::new(AtomicBool::new(false));
    let stall = |method: &'static str, part: &'static str, fault: Fault| {
        is_reached.store(false, Ordering::SeqCst);
        let flag = is_reached.clone();
        registry.set_chaos(Some(Box::new(move |asked: &str, target: &str| {
            let hit = asked == method && target.contains(part);
            hit.then(|| {
                flag.store(true, Ordering::SeqCst);
                fault.clone()
            })
        })));
    };
    let reached = || is_reached.load(Ordering::SeqCst);
    let quick = Duration::from_secs(8);
    let (int, term) = ((Signal::SIGINT, 130), (Signal::SIGTERM, 143));
    for (method, part, signals) in [
        ("HEAD", "/blobs/", vec![int]),
        ("POST", "/uploads/", vec![term]),
        ("PATCH", "/uploads/", vec![int, term]),
        ("PUT", "/manifests/", vec![int]),
    ] {
        for (how, code) in signals {
            lab.dockerfile(&format!(
                "FROM base\nCOPY f /\nRUN echo {method} {code}; head -c 300000 /dev/urandom > /r\n"
            ));
            stall(method, part, Fault::Stall);
            let (ran, took) = ended(&lab, &push, reached, how);
            ran.fails(code, &[]);
            assert!(took < quick, "{method} {part}: {took:?}");
        }
        if method != "PATCH" {
            continue;
        }
        lab.dockerfile(&format!("FROM base\nRUN echo timeout {method}\n"));
        stall(method, part, Fault::Stall);
        lab.builder(&[
            "build",
            "--progress=plain",
            "--timeout=2s",
            "-t",
            &tag,
            "--push",
            context,
        ])
        .fails(7, &[]);
    }
    lab.dockerfile(&format!("FROM {}/evil\nCOPY f /g\n", registry.host()));
    stall("GET", "/blobs/", Fault::StallBody(100_000));
    let blob = format!("/blobs/{}", digest_of(&layer));
    let blob: &'static str = blob.leak();
    stall("GET", blob, Fault::StallBody(100_000));
    for (how, code) in [int, term] {
        is_reached.store(false, Ordering::SeqCst);
        let (ran, took) = ended(&lab, &pull, reached, how);
        ran.fails(code, &[]);
        assert!(took < quick, "pull: {took:?}");
    }
    lab.builder(&[
        "build",
        "--progress=plain",
        "--timeout=2s",
        "--pull",
        context,
    ])
    .fails(7, &[]);
    registry.set_chaos(None);
    lab.build(&["--pull"]).succeeds();

    // A file that takes for ever to read, and a reader that never takes anything.
    lab.file("endless", "");
    fs::File::options()
        .write(true)
        .open(lab.context().join("endless"))
        .unwrap()
        .set_len(1 << 42)
        .unwrap();
    lab.dockerfile("FROM base\nRUN echo before\nCOPY endless /\n");
    lab.builder(&["build", "--progress=plain", "--timeout=2s", context])
        .fails(7, &[]);
    fs::remove_file(lab.context().join("endless")).unwrap();
    let fifo = lab.path("fifo");
    assert!(
        Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .unwrap()
            .success()
    );
    let _stuck = fs::File::options()
        .read(true)
        .write(true)
        .open(&fifo)
        .unwrap();
    lab.dockerfile("FROM base\nCOPY f /\n");
    let dest = format!("type=tar,dest={}", fifo.display());
    lab.builder(&[
        "build",
        "--progress=plain",
        "--timeout=2s",
        "-o",
        &dest,
        context,
    ])
    .fails(7, &[]);
    still_works(&lab);
}

#[test]
fn git_ends_with_the_builder_however_it_ends() {
    let lab = Lab::new();
    // Takes connections, and never says a word.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    // The helper of git for http is a program of its own, and gives up by itself.
    let url = format!("git://{address}/a.git");
    for how in [Signal::SIGKILL, Signal::SIGTERM, Signal::SIGINT] {
        let mut build = spawn(&lab, &["build", &url]);
        let _kept = silent.accept().unwrap();
        assert!(running(&url) > 0);
        signal(&build, how);
        assert!(!build.wait().unwrap().success());
        wait_until(|| running(&url) == 0);
    }
    let mut build = spawn(&lab, &["build", "--timeout", "2s", &url]);
    let _kept = silent.accept().unwrap();
    assert!(!build.wait().unwrap().success());
    wait_until(|| running(&url) == 0);
}

#[test]
fn builds_and_prunes_at_the_same_time_do_not_harm_each_other() {
    let Some(lab) = Lab::with_base() else { return };
    for round in 0..3 {
        lab.dockerfile(&format!(
            "FROM base\nRUN echo {round} > /x && sleep 0.3\nRUN cat /x > /y\n"
        ));
        let context = lab.context();
        let build = [
            "build",
            "--progress=plain",
            "-t",
            "both",
            context.to_str().unwrap(),
        ];
        let builds = [spawn(&lab, &build), spawn(&lab, &build)];
        let prunes: Vec<Child> = (0..3)
            .map(|_| {
                std::thread::sleep(Duration::from_millis(100));
                spawn(&lab, &["prune", "--all", "--force"])
            })
            .collect();
        for build in builds {
            let ran = Ran::of(build.wait_with_output().unwrap());
            // The second may lose to a prune in between, and says so.
            assert!(matches!(ran.code, Some(0 | 9)), "{ran:?}");
        }
        for prune in prunes {
            let ran = Ran::of(prune.wait_with_output().unwrap());
            assert!(matches!(ran.code, Some(0 | 2 | 9)), "{ran:?}");
        }
    }
    still_works(&lab);
}

// A full disk.

/// A file system of a certain size; unmounted at the end.
struct Disk(PathBuf);

impl Disk {
    fn new(at: PathBuf, size: &str) -> Option<Disk> {
        fs::create_dir_all(&at).unwrap();
        let made = Command::new("mount")
            .args([
                "-t",
                "tmpfs",
                "-o",
                &format!("size={size},mode=0755"),
                "tmpfs",
            ])
            .arg(&at)
            .stderr(Stdio::null())
            .status();
        if made.is_ok_and(|status| status.success()) {
            return Some(Disk(at));
        }
        power::not_run("only root can make a small disk");
        None
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(&self.0).status();
        assert!(unmounted.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

#[test]
fn a_full_disk_is_told_at_every_stage() {
    let lab = Lab::new();
    let Some(disk) = Disk::new(lab.state(), "60M") else {
        return;
    };
    let tar = crate::support::lab::base_tar();
    let imported = lab.builder(&["import", tar.to_str().unwrap(), "base"]);
    imported.succeeds();
    lab.dockerfile("FROM base\nRUN true\n");
    let tried = lab.build(&[]);
    if tried.code == Some(8) {
        return power::not_run(&tried.stderr);
    }
    tried.succeeds();
    let registry = FakeRegistry::start();
    let mut noise = vec![0_u8; 40 << 20];
    let mut state: u32 = 1;
    for byte in &mut noise {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        *byte = state as u8;
    }
    let layer = archive(&[entry("f", b'0', "", &noise)]);
    publish_layers(&registry, &[&layer]);
    let full = |what: &str, dockerfile: &str, args: &[&str]| {
        lab.dockerfile(dockerfile);
        let ran = lab.build(args);
        assert_eq!(ran.code, Some(9), "{what}: {}", ran.stderr);
        assert!(ran.stderr.contains("prune"), "{what}: {}", ran.stderr);
        lab.is_sound();
        lab.dockerfile("FROM base\nRUN true\n");
        lab.build(&[]).succeeds();
    };
    full(
        "a pull and its unpacking",
        &format!("FROM {}/evil\nCOPY Dockerfile /x\n", registry.host()),
        &["--pull"],
    );
    full(
        "a command",
        "FROM base\nRUN head -c 60000000 /dev/zero > /f\n",
        &[],
    );
    full(
        "a command that hides it",
        "FROM base\nRUN head -c 60000000 /dev/zero > /f; head -c 1000000 /dev/zero > /g\n",
        &[],
    );
    lab.file("big", &noise);
    lab.file("big2", &noise);
    full("a copy", "FROM base\nCOPY big big2 /\n", &[]);
    full("an archive", "FROM base\nCOPY big /1\nCOPY big /2\n", &[]);
    full(
        "packing",
        "FROM base\nRUN head -c 22000000 /dev/urandom > /f\n",
        &[],
    );
    let bomb = lab.path("bomb.tar");
    let zeros = vec![0x5a_u8; 30 << 20];
    fs::write(
        &bomb,
        archive(&[
            entry("1", b'0', "", &zeros),
            entry("2", b'0', "", &zeros),
            entry("3", b'0', "", &zeros),
        ]),
    )
    .unwrap();
    assert!(Command::new("gzip").arg(&bomb).status().unwrap().success());
    fs::rename(lab.path("bomb.tar.gz"), lab.context().join("bomb.tar.gz")).unwrap();
    full("a bomb", "FROM base\nADD bomb.tar.gz /b/\n", &[]);
    lab.builder(&["pull", &format!("{}/evil:latest", registry.host())]);
    // Not a byte left: not even a name can be written.
    let filler = lab.state().join("filler");
    let mut file = fs::File::create(&filler).unwrap();
    while file.write_all(&[1; 4096]).is_ok() {}
    drop(file);
    lab.dockerfile("FROM base\nRUN true\nRUN echo new\n");
    lab.build(&["-t", "name"]).fails(9, &["prune"]);
    fs::remove_file(&filler).unwrap();
    lab.build(&["-t", "name"]).succeeds();
    lab.is_sound();
    drop(disk);
}
