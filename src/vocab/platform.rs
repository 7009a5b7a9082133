//! Platforms, written and normalised as containerd does.

use std::fmt;
use std::str::FromStr;

/// What an image runs on. Always normalised: `x86_64` is `amd64`, `arm64/v8` is `arm64`, `arm` is `arm/v7`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Platform {
    pub os: String,
    pub architecture: String,
    pub variant: Option<String>,
    /// Windows only in practice.
    pub os_version: Option<String>,
}

/// The text names no platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a platform: wanted `os/arch[/variant]`, such as `linux/amd64` or `linux/arm/v7`"
)]
pub struct PlatformError(pub String);

impl Platform {
    /// Normalises the three parts.
    pub fn new(os: &str, architecture: &str, variant: Option<&str>) -> Platform {
        let os = match os.to_lowercase().as_str() {
            "macos" => "darwin".to_owned(),
            other => other.to_owned(),
        };
        let variant = variant.map(str::to_lowercase).unwrap_or_default();
        let (architecture, variant) = match (architecture.to_lowercase().as_str(), variant.as_str())
        {
            ("i386", _) => ("386", String::new()),
            ("x86_64" | "x86-64" | "amd64", "" | "v1") => ("amd64", String::new()),
            ("x86_64" | "x86-64" | "amd64", other) => ("amd64", other.to_owned()),
            ("aarch64" | "arm64", "" | "8" | "v8" | "v8.0") => ("arm64", String::new()),
            ("aarch64" | "arm64", other) => ("arm64", other.to_owned()),
            ("armhf", _) => ("arm", "v7".to_owned()),
            ("armel", _) => ("arm", "v6".to_owned()),
            ("arm", "" | "7") => ("arm", "v7".to_owned()),
            ("arm", "5") => ("arm", "v5".to_owned()),
            ("arm", "6") => ("arm", "v6".to_owned()),
            ("arm", "8") => ("arm", "v8".to_owned()),
            (other, variant) => {
                let other = other.to_owned();
                return Platform {
                    os,
                    architecture: other,
                    variant: Some(variant.to_owned()).filter(|variant| !variant.is_empty()),
                    os_version: None,
                };
            }
        };
        Platform {
            os,
            architecture: architecture.to_owned(),
            variant: Some(variant).filter(|variant| !variant.is_empty()),
            os_version: None,
        }
    }

    /// Returns the platform that this program was compiled for.
    pub fn host() -> Platform {
        Platform::new("linux", std::env::consts::ARCH, None)
    }

    /// Tells whether an image of platform `offered` can stand where `self` is wanted. Equal platforms always can; an `arm`
    /// image of a lower variant, and a plain `amd64` image for `amd64/vN`, can too.
    pub fn accepts(&self, offered: &Platform) -> bool {
        if self.os != offered.os || self.architecture != offered.architecture {
            return false;
        }
        match (self.architecture.as_str(), &self.variant, &offered.variant) {
            (_, wanted, had) if wanted == had => true,
            ("arm", Some(wanted), Some(had)) => had <= wanted,
            ("amd64", Some(_), None) => true,
            ("amd64", Some(wanted), Some(had)) => had <= wanted,
            (_, None, _) => self.architecture != "amd64" && self.architecture != "arm64",
            _ => false,
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Platform {
    type Err = PlatformError;

    /// Reads `os/arch[/variant]`; a lone word is an operating system or an architecture.
    fn from_str(text: &str) -> Result<Platform, PlatformError> {
        let refuse = || PlatformError(text.to_owned());
        let plain = |part: &str| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
        };
        let parts: Vec<&str> = text.trim().split('/').collect();
        if !parts.iter().all(|part| plain(part)) {
            return Err(refuse());
        }
        let host = Platform::host();
        match parts[..] {
            [os @ ("linux" | "windows" | "darwin" | "freebsd")] => Ok(Platform {
                os: os.to_owned(),
                ..host
            }),
            ["local"] => Ok(host),
            [architecture] => Ok(Platform::new("linux", architecture, None)),
            [os, architecture] => Ok(Platform::new(os, architecture, None)),
            [os, architecture, variant] => Ok(Platform::new(os, architecture, Some(variant))),
            _ => Err(refuse()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normalisation() {
        for (typed, meant) in [
            ("linux/x86_64", "linux/amd64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/arm", "linux/arm/v7"),
            ("Linux/ARMHF", "linux/arm/v7"),
            ("arm64", "linux/arm64"),
            ("linux/amd64/v3", "linux/amd64/v3"),
            ("linux/riscv64", "linux/riscv64"),
        ] {
            assert_eq!(
                typed.parse::<Platform>().unwrap().to_string(),
                meant,
                "{typed}"
            );
        }
        assert!("linux//v8".parse::<Platform>().is_err());
        assert!("a/b/c/d".parse::<Platform>().is_err());
        assert!("".parse::<Platform>().is_err());
    }
}
