//! `--creds`: an account for the registry of one command.
//!
//! In: `USER:PASSWORD` from the flag or from BUILDER_CREDS, and the names that the command pulls or pushes. Out: the account of their
//! registry. A password is for one registry: where the names are of several, it goes to none.

use std::collections::BTreeSet;

use crate::pipeline::Failure;
use crate::vocab::{ImageRef, RegistryAccount, Secret};

use super::args::Account;
use super::usage;

const VARIABLE: &str = "BUILDER_CREDS";

impl Account {
    /// Returns the account for the registry of `names`.
    pub(super) fn of(&self, names: &[ImageRef]) -> Result<Vec<RegistryAccount>, Failure> {
        let variable = std::env::var(VARIABLE)
            .ok()
            .filter(|text| !text.is_empty())
            .map(Secret::new);
        account(self.creds.as_ref(), variable.as_ref(), names)
    }
}

fn account(
    flag: Option<&Secret<String>>,
    variable: Option<&Secret<String>>,
    names: &[ImageRef],
) -> Result<Vec<RegistryAccount>, Failure> {
    let (place, text) = match (flag, variable) {
        (Some(text), _) => ("--creds", text),
        (None, Some(text)) => (VARIABLE, text),
        (None, None) => return Ok(Vec::new()),
    };
    let registries: BTreeSet<&str> = names.iter().map(|name| name.registry.as_str()).collect();
    let mut registries = registries.into_iter();
    let registry = match (registries.next(), registries.next()) {
        (Some(registry), None) => registry,
        // A variable may be there for other commands of the same job.
        (None, _) if flag.is_none() => return Ok(Vec::new()),
        (None, _) => {
            return Err(hinted(
                "`--creds` is for the registry that the command asks, and this one asks none"
                    .to_owned(),
            ));
        }
        (Some(one), Some(other)) => {
            return Err(hinted(format!(
                "`{place}` is for one registry, and the names are of several: {one}, {other}"
            )));
        }
    };
    let (user, password) = text
        .reveal()
        .split_once(':')
        .filter(|(user, password)| !user.is_empty() && !password.is_empty())
        .ok_or_else(|| usage(format!("`{place}` is not USER:PASSWORD")))?;
    Ok(vec![RegistryAccount {
        registry: registry.to_owned(),
        user: user.to_owned(),
        password: Secret::new(password.to_owned()),
    }])
}

fn hinted(message: String) -> Failure {
    let mut failure = usage(message);
    failure.diagnostics[0].hints.push(
        "BUILDER_REGISTRY_AUTH takes lines of HOST=USER:PASSWORD; so do `builder login` and its files"
            .to_owned(),
    );
    failure
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(flag: Option<&str>, variable: Option<&str>, names: &[&str], expected: &str) {
        let secret = |text: &str| Secret::new(text.to_owned());
        let names: Vec<ImageRef> = names.iter().map(|name| name.parse().unwrap()).collect();
        let (flag, variable) = (flag.map(secret), variable.map(secret));
        let told = match account(flag.as_ref(), variable.as_ref(), &names) {
            Ok(accounts) => accounts
                .iter()
                .map(|one| format!("{} {}:{}", one.registry, one.user, one.password.reveal()))
                .collect(),
            Err(failure) => {
                let told = format!("{:?}", failure.diagnostics);
                assert!(!told.contains("hunter2"), "{told}");
                failure.diagnostics[0].message.clone()
            }
        };
        assert_eq!(told, expected);
    }

    #[test]
    fn an_account_is_for_the_one_registry_of_the_command() {
        let names = &["reg.io/a:1", "reg.io/b:2"][..];
        check(None, None, names, "");
        check(Some("me:p:w"), None, names, "reg.io me:p:w");
        check(Some("me:1"), Some("you:2"), names, "reg.io me:1");
        check(None, Some("you:2"), &["alpine"], "docker.io you:2");
        let several = &["reg.io/a", "reg.io:5000/a"][..];
        let told = "is for one registry, and the names are of several: reg.io, reg.io:5000";
        check(
            Some("me:hunter2"),
            None,
            several,
            &format!("`--creds` {told}"),
        );
        check(
            None,
            Some("me:hunter2"),
            several,
            &format!("`BUILDER_CREDS` {told}"),
        );
        check(None, Some("me:hunter2"), &[], "");
        check(
            Some("me:hunter2"),
            None,
            &[],
            "`--creds` is for the registry that the command asks, and this one asks none",
        );
        for text in ["hunter2", ":hunter2", "hunter2:"] {
            check(Some(text), None, names, "`--creds` is not USER:PASSWORD");
        }
    }
}
