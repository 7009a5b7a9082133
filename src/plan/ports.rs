//! The grammar of EXPOSE: `[[IP:]HOST:]PORT[-PORT][/PROTOCOL]`.

use std::net::IpAddr;

/// Returns the keys of `ExposedPorts` that one word of EXPOSE stands for, such as `80/tcp`.
pub(super) fn parse(word: &str) -> Result<Vec<String>, String> {
    let mut parts = word.rsplitn(3, ':');
    let container = parts.next().unwrap_or_default();
    let host = parts.next().unwrap_or_default();
    let address = parts.next().unwrap_or_default();
    let (ports, protocol) = container.split_once('/').unwrap_or((container, ""));
    if ports.is_empty() {
        return Err(format!("`{word}` names no port"));
    }
    let protocol = match protocol.to_lowercase().as_str() {
        "" => "tcp".to_owned(),
        known @ ("tcp" | "udp" | "sctp") => known.to_owned(),
        other => {
            return Err(format!(
                "`{other}` is not a protocol: wanted `tcp`, `udp` or `sctp`"
            ));
        }
    };
    let bare = address
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(address);
    if !bare.is_empty() && bare.parse::<IpAddr>().is_err() {
        return Err(format!("`{address}` is not an IP address"));
    }
    let (first, last) = range(ports)?;
    if !host.is_empty() {
        let (host_first, host_last) = range(host)?;
        if last - first != host_last - host_first && last != first {
            return Err(format!(
                "the ranges `{host}` and `{ports}` are of different length"
            ));
        }
    }
    Ok((first..=last)
        .map(|port| format!("{port}/{protocol}"))
        .collect())
}

fn range(text: &str) -> Result<(u16, u16), String> {
    let refuse = || format!("`{text}` is not a port or a range of ports: wanted 0 to 65535");
    let port = |text: &str| match text.bytes().all(|byte| byte.is_ascii_digit()) {
        true => text.parse::<u16>().map_err(|_| refuse()),
        false => Err(refuse()),
    };
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (port(first)?, port(last)?),
        None => (port(text)?, port(text)?),
    };
    if last < first {
        return Err(format!("the range `{text}` ends before it begins"));
    }
    Ok((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(word: &str, wanted: &[&str]) {
        assert_eq!(parse(word).unwrap(), wanted, "{word}");
    }

    #[test]
    fn ports_and_ranges() {
        check("80", &["80/tcp"]);
        check("80/UDP", &["80/udp"]);
        check("80/", &["80/tcp"]);
        check("132/sctp", &["132/sctp"]);
        check("8000-8002/tcp", &["8000/tcp", "8001/tcp", "8002/tcp"]);
        check("8080:80", &["80/tcp"]);
        check("127.0.0.1:8080:80/udp", &["80/udp"]);
        check("[::1]:8080:80", &["80/tcp"]);
        check("::1:8080:80", &["80/tcp"]);
        check("8000-9000:80", &["80/tcp"]);
        assert_eq!(parse("0-65535").unwrap().len(), 65_536);
    }

    #[test]
    fn other_words_are_refused() {
        for word in [
            "",
            "/tcp",
            "x",
            "80/icmp",
            "65536",
            "-1",
            "+80",
            "80-",
            "90-80",
            "80-81-82",
            "8080:",
            "x:80",
            "1.2.3:80:80",
            "80-82:90-91",
            "1-3:80-81",
        ] {
            assert!(parse(word).is_err(), "{word}");
        }
    }
}
