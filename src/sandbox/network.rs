//! The little that a command needs of the network: names, and a loopback interface where it has nothing else.

use std::os::fd::AsRawFd;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

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

/// Brings the loopback interface of this network namespace up; the kernel gives it 127.0.0.1 and ::1 then.
pub(super) fn loopback_up() -> Result<(), Errno> {
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
        return Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO));
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
