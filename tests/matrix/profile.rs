//! Docker's default system call profile, as runc wants it.
//!
//! The names are those of the sandbox's own table, which holds the same facts for a container with the default capabilities;
//! what more capabilities add is here.

use serde_json::{Value, json};

/// The names stand in the comments of the rows.
const TABLE: &str = include_str!("../../src/sandbox/syscalls.rs");

/// Calls that CAP_SYS_ADMIN adds.
const WITH_ADMIN: [&str; 23] = [
    "bpf",
    "clone",
    "clone3",
    "fanotify_init",
    "fsconfig",
    "fsmount",
    "fsopen",
    "fspick",
    "lookup_dcookie",
    "mount",
    "mount_setattr",
    "move_mount",
    "open_tree",
    "perf_event_open",
    "quotactl",
    "quotactl_fd",
    "setdomainname",
    "sethostname",
    "setns",
    "syslog",
    "umount",
    "umount2",
    "unshare",
];

/// `CLONE_NEWNS` and all the other flags that make a namespace.
const NEW_NAMESPACES: u64 = 0x7e02_0000;
const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

/// Returns the `seccomp` section for a container with these capabilities.
pub(crate) fn docker(capabilities: &[String]) -> Value {
    let has = |name: &str| capabilities.iter().any(|capability| capability == name);
    let mut names: Vec<&str> = table();
    if !has("CAP_SYS_CHROOT") {
        names.retain(|name| *name != "chroot");
    }
    // The sandbox's table asks for their arguments; the profile does not.
    names.extend(["mknod", "mknodat"]);
    let mut rules = vec![
        json!({"names": names, "action": "SCMP_ACT_ALLOW"}),
        json!({"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 40, "op": "SCMP_CMP_NE"}]}),
    ];
    for personality in [0x0_u64, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff] {
        rules.push(json!({"names": ["personality"], "action": "SCMP_ACT_ALLOW",
            "args": [{"index": 0, "value": personality, "op": "SCMP_CMP_EQ"}]}));
    }
    if has("CAP_SYS_ADMIN") {
        rules.push(json!({"names": WITH_ADMIN, "action": "SCMP_ACT_ALLOW"}));
    } else {
        rules.push(json!({"names": ["clone"], "action": "SCMP_ACT_ALLOW",
            "args": [{"index": 0, "value": NEW_NAMESPACES, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]}));
        rules.push(json!({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS}));
    }
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": EPERM,
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": rules,
    })
}

fn table() -> Vec<&'static str> {
    let start = TABLE.find("ALLOWED: &[").expect("the table has this name");
    let names: Vec<&str> = TABLE[start..]
        .lines()
        .filter_map(|line| line.split_once("], // "))
        .map(|(_, name)| name.trim())
        .collect();
    assert!(
        names.len() > 300,
        "the table has rows with names in comments"
    );
    names
}

/// Returns the number of a capability.
pub(crate) fn capability_number(name: &str) -> Option<u32> {
    const NAMES: [&str; 41] = [
        "CHOWN",
        "DAC_OVERRIDE",
        "DAC_READ_SEARCH",
        "FOWNER",
        "FSETID",
        "KILL",
        "SETGID",
        "SETUID",
        "SETPCAP",
        "LINUX_IMMUTABLE",
        "NET_BIND_SERVICE",
        "NET_BROADCAST",
        "NET_ADMIN",
        "NET_RAW",
        "IPC_LOCK",
        "IPC_OWNER",
        "SYS_MODULE",
        "SYS_RAWIO",
        "SYS_CHROOT",
        "SYS_PTRACE",
        "SYS_PACCT",
        "SYS_ADMIN",
        "SYS_BOOT",
        "SYS_NICE",
        "SYS_RESOURCE",
        "SYS_TIME",
        "SYS_TTY_CONFIG",
        "MKNOD",
        "LEASE",
        "AUDIT_WRITE",
        "AUDIT_CONTROL",
        "SETFCAP",
        "MAC_OVERRIDE",
        "MAC_ADMIN",
        "SYSLOG",
        "WAKE_ALARM",
        "BLOCK_SUSPEND",
        "AUDIT_READ",
        "PERFMON",
        "BPF",
        "CHECKPOINT_RESTORE",
    ];
    NAMES
        .iter()
        .position(|known| *known == name)
        .map(|number| number as u32)
}
