//! A supervised command: one real id, and owners, modes, devices and other users as for real root.
//!
//! Each case is a script with what it prints. The same cases run without a supervisor where the test is real root: the
//! expectations are the kernel's own answers.

use std::collections::BTreeMap;

use crate::vocab::{Attributes as FileAttributes, FileId, Ledger};

use super::super::supervise::Status;
use super::*;

subjects![
    a_supervised_command_is_told_what_root_is_told,
    root_is_told_the_same_without_a_supervisor,
    the_ledger_comes_back_with_what_was_done,
    a_command_of_another_user_starts_as_that_user,
    files_of_lower_layers_stay_known_when_they_are_copied_up,
    files_that_are_mounted_belong_to_whom_they_are_for,
    what_a_caller_changes_meanwhile_leads_nowhere_else,
    attacker,
    a_new_file_is_not_taken_for_one_that_is_gone,
    recycler,
    root_without_the_power_makes_devices_by_word,
    a_limit_that_carries_credentials_is_not_the_commands,
    killing_the_supervisor_ends_the_command,
    supervised_victim,
    programs_of_32_bits_are_told_the_same,
    time_of_supervision,
    a_script_in_a_given_root,
];

/// An ordinary user: nobody's.
const USER: u32 = 54321;

/// What scripts use beyond what every root has.
const MORE_PROGRAMS: [&str; 9] = [
    "setpriv", "setcap", "getcap", "tar", "cp", "mkfifo", "chgrp", "test", "unlink",
];

/// Enters the sandbox with one id.
fn single_id() {
    if rustix::process::getuid().is_root() {
        let own = rustix::process::Uid::from_raw(USER);
        let group = rustix::process::Gid::from_raw(USER);
        rustix::thread::set_thread_groups(&[]).unwrap();
        rustix::thread::set_thread_res_gid(group, group, group).unwrap();
        rustix::thread::set_thread_res_uid(own, own, own).unwrap();
        // A change of ids shuts a process out of its own /proc.
        rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::Dumpable)
            .unwrap();
    }
    let wanted = Wanted {
        rung: Some(Rung::NsOne),
        ..Wanted::default()
    };
    if let Err(error) = choose(&wanted).and_then(|choice| enter(&choice)) {
        skip(&error.to_string());
    }
}

/// A root with users, groups, and programs that change them.
fn peopled() -> Root {
    // The machine's own: an all-in-one program would rather be itself than execute what is to be tried.
    let root = Root::empty();
    let at = root.path();
    copy_programs(at, &PROGRAMS);
    copy_programs(at, &MORE_PROGRAMS);
    for program in MORE_PROGRAMS {
        if !at.join("bin").join(program).exists() {
            skip(&format!("no `{program}` on this machine"));
        }
    }
    fs::write(
        at.join("etc/passwd"),
        "root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n",
    )
    .unwrap();
    fs::write(
        at.join("etc/group"),
        "root:x:0:\nextra:x:27:app\nstaff:x:50:\napp:x:1000:\n",
    )
    .unwrap();
    for (name, mode) in [("root", 0o700), ("home", 0o755)] {
        fs::create_dir(at.join(name)).unwrap();
        fs::set_permissions(at.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    root
}

/// `app` in the scripts is a prefix that runs the rest as that user.
fn script(text: &str) -> String {
    format!(
        "app() {{ setpriv --reuid 1000 --regid 1000 --groups 27 \"$@\"; }}\n\
         what() {{ stat -c '%u:%g %a %n' \"$@\"; }}\n\
         cd /yard\n{text}"
    )
}

/// Scripts, and what they print on both streams.
const CASES: &[(&str, &str)] = &[
    // Files are given away, links too.
    (
        "touch f; ln -s f l; chown 1000:50 f; chown -h 7:8 l; what f l",
        "1000:50 644 f\n7:8 777 l",
    ),
    (
        "touch f; chown 1000 f; chown :50 f; chown 7 f; what f",
        "7:50 644 f",
    ),
    (
        "mkdir -p d/e; touch d/e/f; chown -R 1000:1000 d; what d d/e d/e/f",
        "1000:1000 755 d\n1000:1000 755 d/e\n1000:1000 644 d/e/f",
    ),
    // By any name.
    (
        "touch f; ln f g; chown 5 f; mv f h; what g h",
        "5:0 644 g\n5:0 644 h",
    ),
    ("touch f; chown 5 f; rm f; touch f; what f", "0:0 644 f"),
    (
        "mkdir d; cd d; touch f; chown 5 ../d/f; chown 6 ../../yard/d; what f .",
        "5:0 644 f\n6:0 755 .",
    ),
    (
        "mkdir d; ln -s /yard/d a; ln -s ../yard/d r; touch d/f; chown 5 a/f; chown :6 r/f; what d/f",
        "5:6 644 d/f",
    ),
    (
        "chown 5 /nothing 2>&1 | grep -o 'No such file'",
        "No such file",
    ),
    // Modes that one's own file may not have on disk.
    (
        "touch f; chmod 0 f; what f; echo x > f; cat f",
        "0:0 0 f\nx",
    ),
    (
        "touch f; chmod 6755 f; what f; chown 7 f; what f",
        "0:0 6755 f\n7:0 755 f",
    ),
    ("touch f; chmod 2644 f; chown 7 f; what f", "7:0 2644 f"),
    ("mkdir d; chmod 6755 d; chown 7 d; what d", "7:0 6755 d"),
    (
        "mkdir d; chmod 1777 d; what d; chmod 555 d; touch d/f; what d",
        "0:0 1777 d\n0:0 555 d",
    ),
    // Directories that give their group to what is in them.
    (
        "mkdir d; chown :50 d; chmod 2775 d; touch d/f; mkdir d/e; ln -s x d/l; what d/f d/e d/l",
        "0:50 644 d/f\n0:50 2755 d/e\n0:50 777 d/l",
    ),
    (
        "mkdir d; chown :50 d; chmod 2777 d; app sh -c 'echo x > d/f; mkdir d/e'; what d/f d/e",
        "1000:50 644 d/f\n1000:50 2755 d/e",
    ),
    // Another user.
    (
        "app id",
        "uid=1000(app) gid=1000(app) groups=1000(app),27(extra)",
    ),
    ("app sh -c 'sh -c \"id -u\" & wait; id -g'", "1000\n1000"),
    (
        "mkdir -m 777 d; app sh -c 'umask 27; cd d; echo x > f; mkdir e; ln -s f l; mkfifo p; ln f g'; what d/*",
        "1000:1000 750 d/e\n1000:1000 640 d/f\n1000:1000 640 d/g\n1000:1000 777 d/l\n1000:1000 640 d/p",
    ),
    (
        "mkdir -m 777 d; ln -s d/new l; app sh -c 'echo x > l; echo y >> l; cat l'; what d/new",
        "x\ny\n1000:1000 644 d/new",
    ),
    (
        "app touch f 2>&1 | grep -o 'Permission denied'; ls",
        "Permission denied",
    ),
    (
        "touch f; app sh -c 'echo x > f' 2>&1 | grep -o 'ermission denied'; wc -c < f",
        "ermission denied\n0",
    ),
    (
        "touch f; chown :27 f; chmod 664 f; app sh -c 'echo x > f'; cat f",
        "x",
    ),
    (
        "touch f; app chown 1000 f 2>&1 | grep -o 'Operation not permitted'; what f",
        "Operation not permitted\n0:0 644 f",
    ),
    (
        "touch f; app chmod 777 f 2>&1 | grep -o 'Operation not permitted'; what f",
        "Operation not permitted\n0:0 644 f",
    ),
    (
        "touch f; chown 1000:1000 f; app chmod 600 f; app chgrp 27 f; app chgrp 50 f 2>/dev/null || echo no; what f",
        "no\n1000:27 600 f",
    ),
    (
        "app setpriv --reuid 0 true 2>&1 | grep -o 'Operation not permitted'",
        "Operation not permitted",
    ),
    (
        "touch f; chmod 600 f; app test -r f || echo no; chown 1000 f; app test -w f && echo yes",
        "no\nyes",
    ),
    // Programs that make somebody else of whoever executes them.
    (
        "cp /bin/id i; chown 7:8 i; chmod 4755 i; app ./i -u; app ./i -ru; app ./i -g",
        "7\n1000\n1000",
    ),
    (
        "cp /bin/id i; chown 7:8 i; chmod 2755 i; app ./i -g; app ./i -u; ./i -g; ./i -u",
        "8\n1000\n8\n0",
    ),
    (
        "cp /bin/id i; chmod 4755 i; app ./i -u; app setpriv --no-new-privs ./i -u",
        "0\n1000",
    ),
    (
        "cp /bin/setpriv s; chmod 4755 s; app ./s --reuid 0 --regid 0 --clear-groups id",
        "uid=0(root) gid=0(root) groups=0(root)",
    ),
    (
        "printf '#!/bin/sh\\nid -u\\n' > s; chmod 4755 s; app ./s",
        "1000",
    ),
    (
        "cp /bin/id i; chmod 744 i; app sh -c ./i 2>&1 | grep -o 'ermission denied'",
        "ermission denied",
    ),
    // Devices.
    (
        "mknod n c 1 3; mknod b b 7 200; stat -c '%F %t:%T %a' n b",
        "character special file 1:3 644\nblock special file 7:c8 644",
    ),
    (
        "mknod n c 1 3; chown 5:6 n; chmod 666 n; mv n m; stat -c '%F %t:%T %a %u:%g' m",
        "character special file 1:3 666 5:6",
    ),
    (
        "app mknod n c 1 3 2>&1 | grep -o 'ermission denied'; chmod 777 .; app mknod n c 1 3 2>&1 | grep -o 'Operation not permitted'",
        "ermission denied\nOperation not permitted",
    ),
    (
        "mknod n c 1 3; sh -c 'echo x > n' 2>&1 | grep -o 'ermission denied'",
        "ermission denied",
    ),
    ("mkfifo p; chown 5 p; stat -c '%F %u' p", "fifo 5"),
    // Capabilities of files.
    (
        "touch f; setcap cap_net_bind_service+ep f; getcap f; mv f g; getcap g",
        "f cap_net_bind_service=ep\ng cap_net_bind_service=ep",
    ),
    (
        "touch f; setcap cap_net_raw+p f; setcap -r f; getcap f; setcap cap_chown+ep f; chown 5 f; getcap f",
        "",
    ),
    ("touch f; setcap cap_net_raw+p f; echo x > f; getcap f", ""),
    (
        "touch f; app setcap cap_net_raw+p f 2>/dev/null || echo no",
        "no",
    ),
    (
        "cp /bin/setpriv s; setcap cap_setuid,cap_setgid+ep s; app ./s --reuid 7 id -u",
        "7",
    ),
    // Round trips.
    (
        "mkdir a b; touch a/f a/s; ln -s f a/l; chown 5:6 a/f; chown -h 7:8 a/l; chmod 4711 a/s; tar -C a -cf - . | tar -C b -xpf -; what b/f b/l b/s",
        "5:6 644 b/f\n7:8 777 b/l\n0:0 4711 b/s",
    ),
    (
        "mkdir a; touch a/f; chown 5:6 a/f a; chmod 2750 a; cp -a a b; what b b/f",
        "5:6 2750 b\n5:6 644 b/f",
    ),
    // What a descriptor leads to.
    (
        "touch f; exec 3<f; chown 5 /dev/fd/3; what f; chown 6 /proc/self/fd/3; what f; stat -L -c %u /proc/self/fd/3",
        "5:0 644 f\n6:0 644 f\n6",
    ),
    // Another root.
    (
        "mkdir -p r/d; cp -r /bin /lib* r/; chroot r /bin/sh -c 'cd d; touch /d/f; chown 5 /d/f ../../d; ln -s /d/f l; chown 6 l'; what r/d r/d/f",
        "5:0 755 r/d\n6:0 644 r/d/f",
    ),
];

/// Runs the cases and collects what is not as expected.
fn check_cases(ledger: &dyn Fn() -> Option<Ledger>) {
    let mut wrong = Vec::new();
    let root = peopled();
    for (text, expected) in CASES {
        fs::remove_dir_all(root.path().join("yard")).unwrap();
        fs::create_dir(root.path().join("yard")).unwrap();
        let mut spec = root.shell(&script(text));
        spec.ledger = ledger();
        let (_, out, err) = outcome(spec).unwrap();
        let printed = format!("{out}{err}");
        if printed.trim_end() != *expected {
            wrong.push(format!(
                "{text}\n--- expected\n{expected}\n--- found\n{printed}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n======\n"));
}

#[test]
fn a_supervised_command_is_told_what_root_is_told() {
    as_subject!(a_supervised_command_is_told_what_root_is_told);
    single_id();
    check_cases(&|| Some(Ledger::default()));
}

#[test]
fn root_is_told_the_same_without_a_supervisor() {
    as_subject!(root_is_told_the_same_without_a_supervisor);
    if sandbox() != Rung::Ns {
        skip("this is not real root");
    }
    check_cases(&|| None);
}

/// Runs a script under supervision; returns what it printed, and the ledger by path below the root.
fn supervised(
    root: &Root,
    text: &str,
    ledger: Ledger,
) -> (String, BTreeMap<String, FileAttributes>) {
    let mut spec = root.shell(&script(text));
    spec.ledger = Some(ledger);
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let ended = run(
        spec,
        &mut |stream, bytes| match stream {
            Stream::Stdout => out.extend_from_slice(bytes),
            Stream::Stderr => err.extend_from_slice(bytes),
        },
        &Cancel::new(),
    )
    .unwrap();
    let text = String::from_utf8([out, err].concat()).unwrap();
    (text, by_path(root.path(), &ended.ledger.unwrap()))
}

fn id(path: &Path) -> FileId {
    let file = rustix::fs::open(
        path,
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    );
    Status::of(file.unwrap()).unwrap().id()
}

fn by_path(root: &Path, ledger: &Ledger) -> BTreeMap<String, FileAttributes> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(path) = waiting.pop() {
        if let Some(file) = ledger.get(&id(&path)) {
            let name = path.strip_prefix(root).unwrap().display().to_string();
            found.insert(name, file.clone());
        }
        if path.symlink_metadata().unwrap().is_dir() {
            waiting.extend(
                fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        }
    }
    found
}

#[test]
fn the_ledger_comes_back_with_what_was_done() {
    as_subject!(the_ledger_comes_back_with_what_was_done);
    single_id();
    let root = peopled();
    let at = root.path();
    for name in ["kept", "changed", "removed"] {
        fs::write(at.join("yard").join(name), "").unwrap();
    }
    let owned = |uid| FileAttributes {
        uid,
        gid: uid,
        mode: 0o600,
        ..FileAttributes::default()
    };
    let given: Ledger = ["kept", "changed", "removed"]
        .into_iter()
        .map(|name| (id(&at.join("yard").join(name)), owned(9)))
        .collect();
    let (printed, ledger) = supervised(
        &root,
        "what *; chown 0:0 changed; chmod 644 changed; rm removed; touch removed new; chmod 4755 new; mkdir d; chown 3 d; chown 0 d",
        given,
    );
    assert_eq!(printed, "9:9 600 changed\n9:9 600 kept\n9:9 600 removed\n");
    let set_id = FileAttributes {
        mode: 0o4755,
        ..FileAttributes::default()
    };
    assert_eq!(
        ledger,
        BTreeMap::from([("yard/kept".into(), owned(9)), ("yard/new".into(), set_id)])
    );
    // On disk they are this user's, without bits that would give anything away.
    for (name, mode) in [("new", 0o755), ("changed", 0o644), ("kept", 0o644)] {
        let file = fs::metadata(at.join("yard").join(name)).unwrap();
        assert_eq!((file.uid(), file.mode() & 0o7777), (0, mode), "{name}");
    }
}

#[test]
fn a_command_of_another_user_starts_as_that_user() {
    as_subject!(a_command_of_another_user_starts_as_that_user);
    single_id();
    let root = peopled();
    let mut spec = root.shell(
        "id; echo x > /tmp/f; stat -c '%u:%g' /tmp/f; echo x > /f || echo no; grep Cap /bin/../proc/self/status | grep -v 0000000000000000 | wc -l > /dev/null; chown 0 /tmp/f || echo no",
    );
    (spec.uid, spec.gid, spec.groups) = (1000, 50, vec![27]);
    spec.ledger = Some(Ledger::default());
    let (_, out, _) = outcome(spec).unwrap();
    assert_eq!(
        out,
        "uid=1000(app) gid=50(staff) groups=50(staff),27(extra)\n1000:50\nno\nno\n"
    );
}

#[test]
fn files_of_lower_layers_stay_known_when_they_are_copied_up() {
    as_subject!(files_of_lower_layers_stay_known_when_they_are_copied_up);
    single_id();
    let lower = peopled();
    let at = lower.path().join("yard");
    for name in ["a", "b", "c", "d", "h"] {
        fs::write(at.join(name), "x").unwrap();
    }
    fs::hard_link(at.join("h"), at.join("i")).unwrap();
    symlink("a", at.join("l")).unwrap();
    let over = TempDir::new().unwrap();
    for name in ["upper", "work", "root"] {
        fs::create_dir(over.path().join(name)).unwrap();
    }
    let option = |name: &str| over.path().join(name).display().to_string();
    let mount = || {
        use rustix::mount::*;
        let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_set_flag(&context, "userxattr")?;
        fsconfig_set_string(&context, "lowerdir", lower.path())?;
        fsconfig_set_string(&context, "upperdir", option("upper"))?;
        fsconfig_set_string(&context, "workdir", option("work"))?;
        fsconfig_create(&context)?;
        let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, Attributes::empty())?;
        rustix::io::Result::Ok(Mount::from_fd(mount))
    };
    let mount = mount();
    let mount = match mount {
        Ok(mount) => mount,
        Err(error) => skip(&format!("no overlay here: {error}")),
    };
    let merged = over.path().join("root");
    mount.attach_over(merged.to_str().unwrap()).unwrap();
    let owned = FileAttributes {
        uid: 9,
        gid: 9,
        mode: 0o640,
        ..FileAttributes::default()
    };
    let ledger: Ledger = ["a", "b", "c", "d", "h", "i", "l"]
        .into_iter()
        .map(|name| {
            (
                id(&merged.join("yard").join(name)).without_birth(),
                owned.clone(),
            )
        })
        .collect();
    let text = "echo y >> a; mv b B; ln c C; touch d; echo y >> h; mv l L; chmod 600 i; what *";
    let mut spec = lower.shell(&script(text));
    spec.root = rustix::fs::open(
        &merged,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .unwrap();
    spec.ledger = Some(ledger);
    let (_, out, err) = outcome(spec).unwrap();
    assert_eq!(
        format!("{out}{err}"),
        "9:9 640 B\n9:9 640 C\n9:9 640 L\n9:9 640 a\n9:9 640 c\n9:9 640 d\n9:9 640 h\n9:9 600 i\n"
    );
}

#[test]
fn files_that_are_mounted_belong_to_whom_they_are_for() {
    as_subject!(files_that_are_mounted_belong_to_whom_they_are_for);
    single_id();
    let root = peopled();
    let mut spec = root.shell(&script("what /run/s /run/t; app cat /run/s"));
    spec.ledger = Some(Ledger::default());
    spec.mounts = vec![file("/run/s", 0o400, "told"), file("/run/t", 0o440, "")];
    for (mount, (to_uid, to_gid)) in spec.mounts.iter_mut().zip([(1000, 50), (0, 0)]) {
        if let MountSource::File { uid, gid, .. } = &mut mount.source {
            (*uid, *gid) = (to_uid, to_gid);
        }
    }
    assert_eq!(output(spec), "1000:50 400 /run/s\n0:0 440 /run/t\ntold");
}

#[test]
fn a_limit_that_carries_credentials_is_not_the_commands() {
    as_subject!(a_limit_that_carries_credentials_is_not_the_commands);
    single_id();
    let root = peopled();
    if !Path::new("/usr/bin/prlimit").exists() {
        skip("no `prlimit` on this machine");
    }
    copy_program(root.path(), Path::new("/usr/bin/prlimit"), "prlimit");
    let mut spec = root.shell(&script(
        "app sh -c 'prlimit --locks=0 id -u; prlimit --pid $$ --locks=0; id -u; prlimit --locks --noheadings --raw -o SOFT,HARD'",
    ));
    spec.ledger = Some(Ledger::default());
    spec.ulimits = vec![Ulimit {
        name: "locks".into(),
        soft: 7,
        hard: 9,
    }];
    assert_eq!(output(spec), "1000\n1000\n7 9\n");
}

/// A program of 32 bits: `chown("f", 5, 6)`, and ends with its user's number, of which a status has eight bits.
#[cfg(target_arch = "x86_64")]
fn program_of_32_bits() -> Vec<u8> {
    const BASE: u32 = 0x0804_8000;
    const HEADERS: u32 = 84;
    let word = |number: u32| number.to_le_bytes();
    let mut code = Vec::new();
    // mov eax, chown32; mov ebx, path; mov ecx, 5; mov edx, 6; int 0x80.
    for (register, value) in [(0xb8, 212), (0xbb, 0), (0xb9, 5), (0xba, 6)] {
        code.push(register);
        code.extend(word(value));
    }
    code.extend([0xcd, 0x80]);
    // mov eax, getuid32; int 0x80; mov ebx, eax; mov eax, exit; int 0x80.
    code.push(0xb8);
    code.extend(word(199));
    code.extend([0xcd, 0x80, 0x89, 0xc3, 0xb8]);
    code.extend(word(1));
    code.extend([0xcd, 0x80]);
    let path = BASE + HEADERS + u32::try_from(code.len()).unwrap();
    code[6..10].copy_from_slice(&word(path));
    code.extend(b"f\0");

    let mut program = b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    // An executable for i386, version 1: entry, program headers, no sections, no flags.
    program.extend([2, 0, 3, 0]);
    for number in [1, BASE + HEADERS, 52, 0, 0] {
        program.extend(word(number));
    }
    for number in [52_u16, 32, 1, 40, 0, 0] {
        program.extend(number.to_le_bytes());
    }
    let length = HEADERS + u32::try_from(code.len()).unwrap();
    // Load all of it, readable and executable.
    for number in [1, 0, BASE, BASE, length, length, 5, 0x1000] {
        program.extend(word(number));
    }
    program.extend(code);
    program
}

#[cfg(not(target_arch = "x86_64"))]
fn program_of_32_bits() -> Vec<u8> {
    skip("no program of 32 bits for this machine")
}

#[test]
fn programs_of_32_bits_are_told_the_same() {
    as_subject!(programs_of_32_bits_are_told_the_same);
    single_id();
    let root = peopled();
    let at = root.path().join("yard/p");
    fs::write(&at, program_of_32_bits()).unwrap();
    fs::set_permissions(&at, fs::Permissions::from_mode(0o755)).unwrap();
    match Command::new(&at).status() {
        Ok(_) => {}
        Err(error) => skip(&format!("no programs of 32 bits here: {error}")),
    }
    let mut spec = root.shell(&script("touch f; ./p; echo $?; what f; app ./p; echo $?"));
    spec.ledger = Some(Ledger::default());
    assert_eq!(output(spec), "0\n5:6 644 f\n232\n");
}

/// Runs inside the sandbox: makes calls whose path another thread keeps changing.
fn attacker() {
    let outside = std::env::var("BUILDER_SANDBOX_OUTSIDE").unwrap();
    fs::create_dir("/yard/d").unwrap();
    fs::write("/yard/safe", "").unwrap();
    symlink(&outside, "/yard/link").unwrap();
    symlink(format!("../../../../../../..{outside}"), "/yard/d/up").unwrap();
    let targets = [
        "/yard/safe".to_owned(),
        "/yard/link/victim".to_owned(),
        format!("../../../../../../../../../..{outside}/victim"),
        format!("/proc/self/cwd/../../../../..{outside}/victim"),
        format!("/proc/self/root/../..{outside}/victim"),
        "/yard/d/up/new".to_owned(),
        format!("/dev/fd/../../../..{outside}/new"),
    ];
    let mut paths: Vec<[u8; 256]> = Vec::new();
    for target in &targets {
        let mut path = [0; 256];
        path[..target.len()].copy_from_slice(target.as_bytes());
        paths.push(path);
    }
    let mut shared = Box::new([0_u8; 256]);
    let address = shared.as_mut_ptr() as usize;
    let stop = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&stop);
    let flipper = std::thread::spawn(move || {
        let mut turn = 0_usize;
        while !seen.load(Ordering::Relaxed) {
            turn = (turn + 1) % (2 * paths.len());
            let path = &paths[if turn.is_multiple_of(2) { 0 } else { turn / 2 }];
            // SAFETY: the buffer lives until this thread has ended; that it changes under the other's calls is what is tried.
            unsafe {
                std::ptr::copy_nonoverlapping(path.as_ptr(), address as *mut u8, path.len());
            }
            // A directory that is sometimes a link out.
            if turn == 0 {
                fs::rename("/yard/d", "/yard/e").ok();
                symlink("/yard/link", "/yard/d").ok();
                fs::remove_file("/yard/d").ok();
                fs::rename("/yard/e", "/yard/d").ok();
            }
        }
    });
    for turn in 0..4000_u32 {
        // SAFETY: the buffer lives until the end and always has a NUL in it.
        unsafe {
            let path = address as *const libc::c_char;
            match turn % 6 {
                0 => libc::chown(path, turn, turn),
                1 => libc::chmod(path, 0o6777),
                2 => libc::close(libc::open(path, libc::O_CREAT | libc::O_WRONLY, 0o666)),
                3 => libc::mknod(path, libc::S_IFCHR | 0o666, 259),
                4 => libc::mkdir(path, 0o777),
                _ => libc::lchown(path, 1, 1),
            };
        }
    }
    stop.store(true, Ordering::Relaxed);
    flipper.join().unwrap();
}

#[test]
fn what_a_caller_changes_meanwhile_leads_nowhere_else() {
    as_subject!(what_a_caller_changes_meanwhile_leads_nowhere_else);
    single_id();
    let outside = TempDir::new().unwrap();
    fs::write(outside.path().join("victim"), "").unwrap();
    let state = || {
        let victim = fs::metadata(outside.path().join("victim")).unwrap();
        let directory = fs::metadata(outside.path()).unwrap();
        (
            (victim.mode(), victim.ctime(), victim.ctime_nsec()),
            (directory.mode(), directory.ctime(), directory.ctime_nsec()),
        )
    };
    let before = state();
    let root = peopled();
    let own = std::env::current_exe().unwrap();
    copy_program(root.path(), &own, "attacker");
    for uid in [0, 1000] {
        fs::remove_dir_all(root.path().join("yard")).unwrap();
        fs::create_dir(root.path().join("yard")).unwrap();
        let mut ledger = Ledger::default();
        let yard = FileAttributes {
            uid,
            mode: 0o755,
            ..FileAttributes::default()
        };
        ledger.insert(id(&root.path().join("yard")), yard);
        let mut spec = root.spec(&["attacker"]);
        spec.env.extend([
            (SUBJECT.into(), "attacker".into()),
            (
                "BUILDER_SANDBOX_OUTSIDE".into(),
                outside.path().display().to_string(),
            ),
        ]);
        spec.uid = uid;
        spec.cwd = "/yard".into();
        spec.ledger = Some(ledger);
        output(spec);
        assert_eq!(state(), before, "{uid}");
    }
}

/// Runs inside the sandbox: removes files that it gave away, in every way, and makes others at once, which are often given the
/// same number and time of birth. Prints those that are anybody's.
fn recycler() {
    let mut wrong = Vec::new();
    for turn in 0..1500_u32 {
        fs::write("given", "").unwrap();
        std::os::unix::fs::chown("given", Some(5), Some(6)).unwrap();
        match turn % 5 {
            0 => fs::remove_file("given").unwrap(),
            1 => {
                fs::write("other", "").unwrap();
                fs::rename("other", "given").unwrap();
            }
            2 => {
                fs::remove_file("given").unwrap();
                fs::create_dir("given").unwrap();
                std::os::unix::fs::chown("given", Some(7), None).unwrap();
                fs::remove_dir("given").unwrap();
            }
            3 => {
                fs::create_dir("directory").unwrap();
                std::os::unix::fs::chown("directory", Some(8), None).unwrap();
                fs::create_dir("another").unwrap();
                fs::rename("another", "directory").unwrap();
                fs::remove_dir("directory").unwrap();
                fs::remove_file("given").unwrap();
            }
            _ => {
                // Whoever has it open still sees whose it was.
                let open = File::open("given").unwrap();
                fs::remove_file("given").unwrap();
                let uid = open.metadata().unwrap().uid();
                if uid != 5 {
                    wrong.push(format!("turn {turn}: the open file is {uid}'s"));
                }
                std::os::unix::fs::fchown(&open, Some(9), None).unwrap();
            }
        }
        fs::write("new", "").unwrap();
        fs::create_dir("new-directory").unwrap();
        symlink("x", "new-link").unwrap();
        for name in ["new", "new-directory", "new-link"] {
            let uid = fs::symlink_metadata(name).unwrap().uid();
            if uid != 0 {
                wrong.push(format!("turn {turn}: {name} is {uid}'s"));
            }
        }
        fs::remove_file("new").unwrap();
        fs::remove_dir("new-directory").unwrap();
        fs::remove_file("new-link").unwrap();
        fs::remove_file("given").ok();
    }
    assert!(wrong.is_empty(), "{} times: {}", wrong.len(), wrong[0]);
}

#[test]
fn a_new_file_is_not_taken_for_one_that_is_gone() {
    as_subject!(a_new_file_is_not_taken_for_one_that_is_gone);
    single_id();
    let root = peopled();
    let own = std::env::current_exe().unwrap();
    copy_program(root.path(), &own, "recycler");
    let mut spec = root.spec(&["recycler"]);
    spec.env.push((SUBJECT.into(), "recycler".into()));
    spec.cwd = "/yard".into();
    spec.ledger = Some(Ledger::default());
    let mut told = Vec::new();
    let ended = run(
        spec,
        &mut |_, bytes| told.extend_from_slice(bytes),
        &Cancel::new(),
    )
    .unwrap();
    assert_eq!(
        ended.exit,
        Exit::Code(0),
        "{}",
        String::from_utf8_lossy(&told)
    );
    // Whether a number and a birth come again is the kernel's and the file system's to say; that nothing is left to be taken for
    // is not.
    assert_eq!(ended.ledger, Some(Ledger::default()));
}

#[test]
fn root_without_the_power_makes_devices_by_word() {
    as_subject!(root_without_the_power_makes_devices_by_word);
    let wanted = Wanted {
        rung: Some(Rung::NsFull),
        ..Wanted::default()
    };
    if let Err(error) = choose(&wanted).and_then(|choice| enter(&choice)) {
        skip(&error.to_string());
    }
    let root = peopled();
    let shown = "stat -c '%F %t:%T %a %u:%g'";
    let run_in = |text: &str, ledger| {
        let mut spec = root.shell(&script(text));
        spec.ledger = Some(ledger);
        let mut told = Vec::new();
        let ended = run(
            spec,
            &mut |_, bytes| told.extend_from_slice(bytes),
            &Cancel::new(),
        );
        (
            String::from_utf8(told).unwrap(),
            ended.unwrap().ledger.unwrap(),
        )
    };
    let text = format!(
        "umask 22; mknod n c 1 3; mknod -m 620 b b 7 200; chown 5:6 b; mv n m; ln m o; {shown} m b o\n\
         mkdir -m 777 d; app mknod d/x c 1 3 2>&1 | grep -o 'Operation not permitted'\n\
         mkdir g; chown :50 g; chmod 2775 g; mknod g/n c 1 3; {shown} g/n\n\
         mknod r c 1 3; rm r; touch r; touch over; mknod s c 1 3; mv over s; stat -c %F r s; mkfifo p; stat -c %F p\n\
         setpriv --bounding-set -mknod --inh-caps -mknod mknod no c 1 3 2>&1 | grep -o 'Operation not permitted'"
    );
    let (told, ledger) = run_in(&text, Ledger::of_devices());
    assert_eq!(
        told,
        "character special file 1:3 644 0:0\n\
         block special file 7:c8 620 5:6\n\
         character special file 1:3 644 0:0\n\
         Operation not permitted\n\
         character special file 1:3 644 0:50\n\
         regular empty file\n\
         regular empty file\n\
         fifo\n\
         Operation not permitted\n"
    );
    let found = by_path(root.path(), &ledger);
    let devices: Vec<_> = found
        .iter()
        .map(|(path, file)| (path.as_str(), file.device.unwrap().minor))
        .collect();
    let expected = [
        ("yard/b", 200),
        ("yard/g/n", 3),
        ("yard/m", 3),
        ("yard/o", 3),
    ];
    assert_eq!(devices, expected);
    // A command that does not speak of it makes devices too; seen they are where there are some.
    let (told, ledger) = run_in("/bin/mk?od q c 1 5; stat -c %F q", Ledger::of_devices());
    assert_eq!(told, "regular empty file\n");
    let (told, ledger) = run_in("stat -c '%F %t:%T' q", ledger);
    assert_eq!(told, "character special file 1:5\n");
    assert_eq!(ledger.len(), 1);
    // Those of /dev nobody sees.
    fs::write(root.path().join("dev/null"), "").unwrap();
    let mut covered = Ledger::of_devices();
    let null = FileAttributes {
        device: Some(crate::vocab::DeviceNumber {
            is_block: false,
            major: 1,
            minor: 3,
        }),
        ..FileAttributes::default()
    };
    covered.insert(id(&root.path().join("dev/null")), null);
    let (told, ledger) = run_in("/bin/mk?od z c 1 5; stat -c %F z", covered);
    assert_eq!(told, "regular empty file\n");
    assert_eq!(ledger.len(), 2);
}

#[test]
fn killing_the_supervisor_ends_the_command() {
    as_subject!(killing_the_supervisor_ends_the_command);
    // The builder's child is the supervisor; its moment of death is any one of a busy command's.
    for _ in 0..10 {
        lifetime::kill_and_count("supervised_victim", "4716", lifetime::children);
    }
}

/// A builder with a command that never lets its supervisor rest.
fn supervised_victim() {
    single_id();
    let root = peopled();
    let mut spec = root.shell(&script(
        "sleep 4716 & (while :; do touch f; chown 5 f; stat f; app id; done) >/dev/null 2>&1 & echo started; sleep 4716",
    ));
    spec.ledger = Some(Ledger::default());
    let result = run(
        spec,
        &mut |_, bytes| std::io::stdout().write_all(bytes).unwrap(),
        &Cancel::new(),
    );
    assert!(matches!(result, Err(RunError::Lost { .. })), "{result:?}");
    println!("Lost");
}

#[test]
#[ignore = "a measurement: BUILDER_SANDBOX_SUBJECT=time_of_supervision and the test program"]
fn time_of_supervision() {
    as_subject!(time_of_supervision);
    // Once as an ordinary user, once as root, with BUILDER_SANDBOX_ALONE.
    let is_alone = std::env::var_os("BUILDER_SANDBOX_ALONE").is_some();
    match is_alone {
        true => assert_eq!(sandbox(), Rung::Ns),
        false => single_id(),
    }
    let root = peopled();
    for program in ["find", "bash", "seq"] {
        copy_program(root.path(), &Path::new("/usr/bin").join(program), program);
    }
    let make = "mkdir t; for d in $(seq 100); do mkdir t/$d; for f in {1..100}; do : > t/$d/$f; done; done; tar -cf t.tar t";
    for (name, before, text) in [
        (
            "find over 10 000 files",
            make,
            "find t -size +1000 > /dev/null",
        ),
        ("tar -x of 10 000 files", make, "tar -xf t.tar -C /tmp"),
        ("chown of 10 000 files", make, "chown -R 1000 t"),
        ("300 x true", ":", "for i in {1..300}; do /bin/true; done"),
        (
            "20 000 x getuid",
            ":",
            "i=0; while [ $i -lt 20000 ]; do test -O /; i=$((i+1)); done",
        ),
    ] {
        let mut times = Vec::new();
        for _ in 0..7 {
            for name in ["yard", "tmp"] {
                fs::remove_dir_all(root.path().join(name)).unwrap();
                fs::create_dir(root.path().join(name)).unwrap();
            }
            // As after any base image: some files are not plain.
            let mut ledger = Ledger::default();
            let other = FileAttributes {
                uid: 1,
                ..FileAttributes::default()
            };
            ledger.insert(id(&root.path().join("etc/passwd")), other);
            let ledger = Some(ledger).filter(|_| !is_alone);
            let spec = |text: &str| RunSpec {
                ledger: ledger.clone(),
                ..root.spec(&["bash", "-c", &format!("cd /yard; {text}")])
            };
            output(spec(before));
            let spec = spec(text);
            let start = Instant::now();
            output(spec);
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
        times.sort_by(f64::total_cmp);
        eprintln!("{name}: {:.1} ms (fastest {:.1})", times[3], times[0]);
    }
}

/// A long script in a root that is there: `BUILDER_SANDBOX_ROOT`, with `BUILDER_SANDBOX_OWNERS`, a file of lines
/// "octal mode, user, group, path", and `BUILDER_SANDBOX_SCRIPT`.
#[test]
#[ignore = "for trying things out: BUILDER_SANDBOX_SUBJECT=a_script_in_a_given_root and the test program"]
fn a_script_in_a_given_root() {
    as_subject!(a_script_in_a_given_root);
    single_id();
    let variable = |name: &str| std::env::var(format!("BUILDER_SANDBOX_{name}"));
    let at = PathBuf::from(variable("ROOT").unwrap());
    let mut spec = Root::empty().spec(&["/bin/sh", "-c", &variable("SCRIPT").unwrap()]);
    spec.root = rustix::fs::open(
        &at,
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .unwrap();
    spec.env = vec![
        (
            "PATH".into(),
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into(),
        ),
        ("DEBIAN_FRONTEND".into(), "noninteractive".into()),
        ("LC_ALL".into(), "C.UTF-8".into()),
    ];
    spec.resolv_conf = resolv_conf();
    if let Ok(owners) = variable("OWNERS") {
        let mut ledger = Ledger::default();
        for line in fs::read_to_string(owners).unwrap().lines() {
            let words: Vec<_> = line.splitn(4, ' ').collect();
            let path = at.join(words[3]);
            if path.symlink_metadata().is_err() {
                continue;
            }
            let file = FileAttributes {
                mode: u32::from_str_radix(words[0], 8).unwrap(),
                uid: words[1].parse().unwrap(),
                gid: words[2].parse().unwrap(),
                ..FileAttributes::default()
            };
            ledger.insert(id(&path), file);
        }
        spec.ledger = Some(ledger);
    }
    let start = Instant::now();
    let ended = run(
        spec,
        &mut |_, bytes| std::io::stdout().write_all(bytes).unwrap(),
        &Cancel::new(),
    );
    let seconds = start.elapsed().as_secs_f64();
    match ended {
        Ok(ended) => {
            let entries = ended.ledger.as_ref().map(Ledger::len);
            println!("{:?} after {seconds:.2} s, {entries:?} entries", ended.exit);
            if let (Ok(into), Some(ledger)) = (variable("RESULT"), ended.ledger) {
                let mut text = String::new();
                for (path, file) in by_path(&at, &ledger) {
                    text += &format!("{:o} {} {} {path}", file.mode, file.uid, file.gid);
                    text += &format!(" {:?} {:?}\n", file.device, file.xattrs.keys());
                }
                fs::write(into, text).unwrap();
            }
        }
        Err(error) => println!("{error:?}"),
    }
}
