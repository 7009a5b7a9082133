//! The tmpfs that holds whatever is made for one command.
//!
//! ```text
//! dev/      -> /dev        links, mount points for devices, pts, shm, mqueue
//! nodes/N   -> /dev/X      devices, where they can be made
//! files/N   -> the files   0 is resolv.conf, 1 is hosts, then those among the mounts, each under its number
//! empty/    -> over directories that are to be hidden
//! ```
//!
//! Its parts are bound where they belong; it is itself nowhere in sight, and ends with the command.

use std::fs::File;
use std::io::Write;

use rustix::fs::{
    FileType, Gid, Mode, OFlags, Uid, fchmod, fchown, mkdirat, mknodat, openat, symlinkat,
};
use rustix::io::Errno;

use super::instructions::{Instructions, PlannedSource};
use super::mount::{Attributes, Mount};
use super::report::{At, Failure, Stage};

const LINKS: [(&str, &str); 5] = [
    ("/proc/self/fd", "dev/fd"),
    ("/proc/self/fd/0", "dev/stdin"),
    ("/proc/self/fd/1", "dev/stdout"),
    ("/proc/self/fd/2", "dev/stderr"),
    ("pts/ptmx", "dev/ptmx"),
];

/// Bytes that a command may write to /dev, /etc/hosts and /etc/resolv.conf together, as much as Docker's /dev holds.
const PRIVATE_SIZE: u64 = 64 << 20;

/// Names in `files` of the private tmpfs; those of mounts follow.
pub(super) const RESOLV_CONF: usize = 0;
pub(super) const HOSTS: usize = 1;
pub(super) const FIRST_MOUNT: usize = 2;

/// Makes and fills the private tmpfs. Kernels before 6.15 copy only from attached mounts, so it is attached to a place that
/// always exists and goes away with the host's tree: not over the root, where it would stand between the old root and the new.
pub(super) fn make(instructions: &Instructions) -> Result<Mount, Failure> {
    let stage = Stage::Private;
    let content = [&instructions.resolv_conf, &instructions.hosts]
        .into_iter()
        .chain(
            instructions
                .mounts
                .iter()
                .filter_map(|mount| match &mount.source {
                    PlannedSource::File { content, .. } => Some(content.reveal()),
                    _ => None,
                }),
        )
        // Whole pages.
        .map(|content| content.len() as u64 + 4096)
        .sum::<u64>();
    let size = (PRIVATE_SIZE + content).to_string();
    let private = Mount::create(
        "tmpfs",
        &[("mode", "0755"), ("size", &size)],
        Attributes::MOUNT_ATTR_NOSUID | Attributes::MOUNT_ATTR_NODEV,
    )
    .at(stage, "")?;
    private.attach_over("/proc").at(stage, "/proc")?;

    for name in [
        "dev",
        "dev/pts",
        "dev/shm",
        "dev/mqueue",
        "nodes",
        "files",
        "empty",
    ] {
        let mode = Mode::from_raw_mode(if name == "empty" { 0o555 } else { 0o755 });
        mkdirat(&private, name, mode).at(stage, name)?;
    }
    for (target, name) in LINKS {
        symlinkat(target, &private, name).at(stage, name)?;
    }
    write(
        &private,
        RESOLV_CONF,
        &instructions.resolv_conf,
        0o644,
        None,
    )?;
    write(&private, HOSTS, &instructions.hosts, 0o644, None)?;
    for (number, mount) in instructions.mounts.iter().enumerate() {
        if let PlannedSource::File {
            content,
            mode,
            uid,
            gid,
        } = &mount.source
        {
            // Under supervision there is nobody to give it to but by word.
            let owner = (!instructions.emulates_ids()).then_some((*uid, *gid));
            write(
                &private,
                FIRST_MOUNT + number,
                content.reveal(),
                *mode,
                owner,
            )?;
        }
    }
    Ok(private)
}

fn write(
    private: &Mount,
    number: usize,
    content: &[u8],
    mode: u32,
    owner: Option<(u32, u32)>,
) -> Result<(), Failure> {
    let name = name(number);
    let create = || {
        let file = openat(
            private,
            &name,
            OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC,
            Mode::from_raw_mode(0o600),
        )?;
        let mut file = File::from(file);
        file.write_all(content)?;
        if let Some((uid, gid)) = owner {
            fchown(&file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        }
        // After the owner, whose change may take bits away.
        fchmod(&file, Mode::from_raw_mode(mode & 0o7777))?;
        std::io::Result::Ok(())
    };
    create().at(Stage::Private, &name)
}

pub(super) fn name(number: usize) -> String {
    format!("files/{number}")
}

/// Nothing but this program has put anything there, so paths are safe.
pub(super) fn mount_point_in_dev(private: &Mount, path: &str) -> Result<(), Errno> {
    let path = format!("dev/{path}");
    for (slash, _) in path.match_indices('/').skip(1) {
        match mkdirat(private, &path[..slash], Mode::from_raw_mode(0o755)) {
            Err(Errno::EXIST) => {}
            other => other?,
        }
    }
    match mknodat(
        private,
        &path,
        FileType::RegularFile,
        Mode::from_raw_mode(0o444),
        0,
    ) {
        Err(Errno::EXIST) => Ok(()),
        other => other,
    }
}
