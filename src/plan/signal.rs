//! The grammar of STOPSIGNAL.

const NAMES: [&str; 36] = [
    "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL",
    "PIPE", "POLL", "PROF", "PWR", "QUIT", "RTMAX", "RTMIN", "SEGV", "STKFLT", "STOP", "SYS",
    "TERM", "TRAP", "TSTP", "TTIN", "TTOU", "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU",
    "XFSZ",
];

/// Tells whether `text` is a signal: a positive number, or a name in any letter case, with or without `SIG`.
pub(super) fn is_signal(text: &str) -> bool {
    if let Ok(number) = text.parse::<i32>() {
        return number > 0;
    }
    let name = text.to_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    NAMES.contains(&name) || is_real_time(name)
}

/// `RTMIN+1` to `RTMIN+15`, `RTMAX-14` to `RTMAX-1`.
fn is_real_time(name: &str) -> bool {
    let within = |number: &str, last: u8| {
        !number.starts_with(['+', '0']) && number.parse().is_ok_and(|number: u8| number <= last)
    };
    match (name.strip_prefix("RTMIN+"), name.strip_prefix("RTMAX-")) {
        (Some(number), _) => within(number, 15),
        (_, Some(number)) => within(number, 14),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::is_signal;

    #[test]
    fn names_and_numbers() {
        for text in [
            "SIGTERM",
            "term",
            "SigKill",
            "9",
            "RTMIN+15",
            "SIGRTMAX-14",
            "SIGXFSZ",
        ] {
            assert!(is_signal(text), "{text}");
        }
        for text in [
            "",
            "0",
            "-9",
            "SIG",
            "SIGSIGTERM",
            "RTMIN+16",
            "RTMIN+0",
            "RTMAX-15",
            "kill -9",
            "9x",
        ] {
            assert!(!is_signal(text), "{text}");
        }
    }
}
