//! Host names to addresses, without the C library: `localhost` by definition, then `/etc/hosts`, then DNS.
//!
//! A static program that calls `getaddrinfo` loads the host's name-service libraries into itself; see the room's doc. No public
//! name server is ever asked because a file is missing: that would tell strangers the names of private registries.

use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::LookupIpStrategy;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::system_conf::parse_resolv_conf;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Resolves names for the HTTP client.
pub(super) struct Names {
    etc: PathBuf,
    /// Made with the first name that needs DNS.
    resolver: Mutex<Option<TokioResolver>>,
}

/// The name does not exist, according to those who know.
#[derive(Debug, thiserror::Error)]
#[error("there is no host named `{0}`")]
pub(super) struct UnknownName(String);

#[derive(Debug, thiserror::Error)]
enum NamesError {
    #[error("cannot read `{}`", .0.display())]
    Unreadable(PathBuf, #[source] std::io::Error),
    #[error("`{}` names no name server that can be asked", .0.display())]
    Useless(PathBuf, #[source] Box<dyn Error + Send + Sync>),
}

impl Names {
    /// Returns a resolver that reads `hosts` and `resolv.conf` in `etc`.
    pub(super) fn new(etc: &Path) -> Names {
        Names {
            etc: etc.to_owned(),
            resolver: Mutex::new(None),
        }
    }

    /// Answers from what is known without asking anybody.
    fn known(&self, name: &str) -> Vec<IpAddr> {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        // RFC 6761, section 6.3.
        if name == "localhost" || name.ends_with(".localhost") {
            return vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        }
        if let Ok(address) = name.trim_matches(['[', ']']).parse() {
            return vec![address];
        }
        match std::fs::read_to_string(self.etc.join("hosts")) {
            Ok(hosts) => in_hosts(&hosts, &name),
            // An empty root has none.
            Err(_) => Vec::new(),
        }
    }

    fn resolver(&self) -> Result<TokioResolver, Box<dyn Error + Send + Sync>> {
        let mut slot = self
            .resolver
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(resolver) = &*slot {
            return Ok(resolver.clone());
        }
        let path = self.etc.join("resolv.conf");
        let text =
            std::fs::read(&path).map_err(|error| NamesError::Unreadable(path.clone(), error))?;
        let (config, options) =
            parse_resolv_conf(text).map_err(|error| NamesError::Useless(path, error.into()))?;
        let mut builder =
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        *builder.options_mut() = options;
        builder.options_mut().ip_strategy = LookupIpStrategy::Ipv6AndIpv4;
        let resolver = builder.build()?;
        *slot = Some(resolver.clone());
        Ok(resolver)
    }
}

impl Resolve for Names {
    fn resolve(&self, name: Name) -> Resolving {
        let name = name.as_str().to_owned();
        let known = self.known(&name);
        if !known.is_empty() {
            return Box::pin(async move { Ok(addresses(known)) });
        }
        let resolver = self.resolver();
        Box::pin(async move {
            match resolver?.lookup_ip(name.as_str()).await {
                Ok(found) => Ok(addresses(found.iter().collect())),
                Err(error) if error.is_nx_domain() => Err(UnknownName(name).into()),
                Err(error) => Err(error.into()),
            }
        })
    }
}

/// The port 0 stands for the URL's.
fn addresses(found: Vec<IpAddr>) -> Addrs {
    Box::new(found.into_iter().map(|address| SocketAddr::new(address, 0)))
}

/// Finds a name in the text of `/etc/hosts`.
fn in_hosts(text: &str, name: &str) -> Vec<IpAddr> {
    let mut found = Vec::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_ascii_whitespace();
        let Some(Ok(address)) = words.next().map(str::parse) else {
            continue;
        };
        if words.any(|word| word.eq_ignore_ascii_case(name)) && !found.contains(&address) {
            found.push(address);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_before_anyone_is_asked() {
        let etc = tempfile::tempdir().unwrap();
        std::fs::write(
            etc.path().join("hosts"),
            "127.0.0.1 other\n# 1.1.1.1 reg\n10.0.0.7\tReg.Corp reg # mine\nfe80::1%lo0 reg\n::7 reg\n10.0.0.7 reg\nbad line\n",
        )
        .unwrap();
        let names = Names::new(etc.path());
        let check = |name: &str, addresses: &[&str]| {
            let found: Vec<String> = names.known(name).iter().map(IpAddr::to_string).collect();
            assert_eq!(found, addresses, "{name}");
        };
        check("localhost", &["127.0.0.1", "::1"]);
        check("LocalHost.", &["127.0.0.1", "::1"]);
        check("a.localhost", &["127.0.0.1", "::1"]);
        check("10.1.2.3", &["10.1.2.3"]);
        check("[::9]", &["::9"]);
        check("reg", &["10.0.0.7", "::7"]);
        check("REG.corp", &["10.0.0.7"]);
        check("localhost.evil", &[]);
        check("mine", &[]);
    }

    #[test]
    fn without_a_resolv_conf_nobody_is_asked() {
        let etc = tempfile::tempdir().unwrap();
        let error = Names::new(etc.path()).resolver().err().unwrap();
        assert!(error.to_string().contains("resolv.conf"), "{error}");
        std::fs::write(etc.path().join("resolv.conf"), "search corp\n").unwrap();
        let error = Names::new(etc.path()).resolver().err().unwrap();
        assert!(error.to_string().contains("no name server"), "{error}");
        std::fs::write(
            etc.path().join("resolv.conf"),
            "nonsense here\noptions ndots:2 weird-option\nnameserver 127.0.0.53\n",
        )
        .unwrap();
        assert!(Names::new(etc.path()).resolver().is_ok());
    }
}
