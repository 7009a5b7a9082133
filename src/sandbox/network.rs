//! The little that a command needs of the network: names, and a loopback interface where it has nothing else.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use rustix::process::{Pid, WaitOptions, waitpid};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

use super::control;

/// Returns the host's /etc/resolv.conf, as it is: a command has the builder's own network. Empty if there is none.
pub fn resolv_conf() -> Vec<u8> {
    // Without the file resolvers ask the local host, here as there.
    std::fs::read("/etc/resolv.conf").unwrap_or_default()
}

/// Returns an /etc/hosts with the local names, `hostname` and the lines asked for (name, address).
pub fn hosts_file(hostname: &str, add_hosts: &[(String, String)]) -> Vec<u8> {
    let mut text = format!(
        "127.0.0.1\tlocalhost {}\n::1\tlocalhost ip6-localhost ip6-loopback\n",
        word(hostname)
    );
    for (name, address) in add_hosts {
        text.push_str(&format!("{}\t{}\n", word(address), word(name)));
    }
    text.into_bytes()
}

/// What would begin another name or line is left out.
fn word(text: &str) -> String {
    text.chars()
        .filter(|character| {
            !character.is_whitespace() && !character.is_control() && *character != '#'
        })
        .collect()
}

/// Brings the loopback interface of this process up, which has just entered a network namespace; the kernel gives it 127.0.0.1
/// and ::1 then. Needs a process with a single thread and its /proc, and must come before the root is changed.
pub(super) fn loopback_up() -> Result<(), Errno> {
    match bring_up() {
        // Root of a container, without the power over networks: a user namespace has it, over one of its own.
        Err(Errno::PERM) => borrowed().map_err(|_| Errno::PERM),
        other => other,
    }
}

/// Enters the network of a user namespace that ends here and now: its network lives on in this process.
fn borrowed() -> io::Result<()> {
    let (here, there) = UnixStream::pair()?;
    // SAFETY: the process has one thread, as all that call this; so the child is whole and may run any code.
    let child = match unsafe { libc::fork() } {
        -1 => return Err(io::Error::last_os_error()),
        0 => {
            drop(here);
            let lend = || {
                // SAFETY: the flags do not contain FILES, the one that the function warns of.
                unsafe { unshare_unsafe(UnshareFlags::NEWUSER | UnshareFlags::NEWNET) }?;
                bring_up()?;
                let network = File::open("/proc/self/ns/net")?;
                control::pass(&there, &[0], &[network.as_fd()])
            };
            let status = i32::from(lend().is_err());
            // SAFETY: ends the child without running exit handlers, which are the parent's.
            unsafe { libc::_exit(status) }
        }
        pid => Pid::from_raw(pid).expect("a child's pid is positive"),
    };
    drop(there);
    let taken = control::take(&here, &mut [0]);
    while waitpid(Some(child), WaitOptions::empty()).err() == Some(Errno::INTR) {}
    let network = taken?.1.into_iter().next().ok_or(Errno::PERM)?;
    move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))?;
    Ok(())
}

fn bring_up() -> Result<(), Errno> {
    let socket = socket_with(
        AddressFamily::INET,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    // SAFETY: ifreq is plain C data, for which zeroes are a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads one ifreq, which `request` is: live, and with the two fields set that this call looks at.
    let result = unsafe {
        libc::ioctl(
            socket.as_raw_fd(),
            libc::SIOCSIFFLAGS as _,
            &raw const request,
        )
    };
    if result < 0 {
        return Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_has_the_local_names_and_those_asked_for() {
        let hosts = |name: &str, add: &[(&str, &str)]| {
            let add: Vec<_> = add
                .iter()
                .map(|(name, address)| ((*name).to_owned(), (*address).to_owned()))
                .collect();
            String::from_utf8(hosts_file(name, &add)).unwrap()
        };
        assert_eq!(
            hosts("box", &[("db", "10.0.0.1"), ("six", "fe80::1")]),
            "127.0.0.1\tlocalhost box\n::1\tlocalhost ip6-localhost ip6-loopback\n10.0.0.1\tdb\nfe80::1\tsix\n"
        );
        assert_eq!(
            hosts("a b\n1.1.1.1 x", &[]).lines().next().unwrap(),
            "127.0.0.1\tlocalhost ab1.1.1.1x"
        );
    }
}
