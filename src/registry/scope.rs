//! What a token is for: the scopes of the distribution specification's token flow.
//!
//! Values only: sets that merge, cover one another, and are read and written as challenges and services have them.

use std::collections::{BTreeMap, BTreeSet};

use super::error::Action;

/// Rights on several things: `repository:a/b:pull,push repository:c:pull`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Scopes(BTreeMap<(String, String), BTreeSet<String>>);

impl Scopes {
    /// Returns the rights to read a repository.
    pub(super) fn pull(repository: &str) -> Scopes {
        Scopes::default().and(repository, &["pull"])
    }

    /// Returns the rights to read and to write a repository.
    pub(super) fn push(repository: &str) -> Scopes {
        Scopes::default().and(repository, &["pull", "push"])
    }

    /// Returns the rights to remove from a repository.
    pub(super) fn delete(repository: &str) -> Scopes {
        Scopes::default().and(repository, &["pull", "delete"])
    }

    /// Adds rights on another repository.
    pub(super) fn and(mut self, repository: &str, actions: &[&str]) -> Scopes {
        self.0
            .entry(("repository".to_owned(), repository.to_owned()))
            .or_default()
            .extend(actions.iter().map(|action| (*action).to_owned()));
        self
    }

    /// Reads the `scope` of a challenge. A word without colons is a scope of its own: some registries have such.
    pub(super) fn parse(text: &str) -> Scopes {
        let mut scopes = Scopes::default();
        for word in text.split_ascii_whitespace() {
            let (key, actions) = match (word.split_once(':'), word.rsplit_once(':')) {
                (Some((kind, _)), Some((before, actions))) if before.len() > kind.len() => {
                    let name = &before[kind.len() + 1..];
                    ((kind.to_owned(), name.to_owned()), actions)
                }
                _ => ((word.to_owned(), String::new()), ""),
            };
            scopes.0.entry(key).or_default().extend(
                actions
                    .split(',')
                    .filter(|action| !action.is_empty())
                    .map(str::to_owned),
            );
        }
        scopes
    }

    pub(super) fn union(mut self, other: &Scopes) -> Scopes {
        for (key, actions) in &other.0 {
            self.0
                .entry(key.clone())
                .or_default()
                .extend(actions.iter().cloned());
        }
        self
    }

    pub(super) fn covers(&self, other: &Scopes) -> bool {
        other.0.iter().all(|(key, wanted)| {
            self.0
                .get(key)
                .is_some_and(|actions| wanted.is_subset(actions))
        })
    }

    /// Returns the scopes that are on no repository.
    pub(super) fn beside_repositories(&self) -> Scopes {
        let mut others = self.clone();
        others.0.retain(|(kind, _), _| kind != "repository");
        others
    }

    pub(super) fn words(&self) -> Vec<String> {
        self.0
            .iter()
            .map(|((kind, name), actions)| {
                if name.is_empty() && actions.is_empty() {
                    return kind.clone();
                }
                // Servers compare the text of the usual pair.
                let actions: Vec<&str> = actions.iter().map(String::as_str).collect();
                format!("{kind}:{name}:{}", actions.join(","))
            })
            .collect()
    }

    /// Tells whether this is to read repositories, and to do nothing else with them.
    pub(super) fn only_pull(&self) -> bool {
        let mut repositories = self
            .0
            .iter()
            .filter(|((kind, _), _)| kind == "repository")
            .map(|(_, actions)| actions)
            .peekable();
        repositories.peek().is_some()
            && repositories.all(|actions| actions.iter().all(|action| action == "pull"))
    }

    pub(super) fn action(&self) -> Action {
        if self.0.is_empty() {
            Action::Login
        } else if self.0.values().any(|actions| actions.contains("delete")) {
            Action::Delete
        } else if self.0.values().any(|actions| actions.contains("push")) {
            Action::Push
        } else {
            Action::Pull
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_merge_and_cover() {
        let push = Scopes::push("a/b");
        assert_eq!(push.words(), ["repository:a/b:pull,push"]);
        assert!(push.covers(&Scopes::pull("a/b")));
        assert!(!Scopes::pull("a/b").covers(&push));
        assert!(!push.covers(&Scopes::pull("a")));
        let both = Scopes::push("a").and("b", &["pull"]);
        assert_eq!(
            both.words(),
            ["repository:a:pull,push", "repository:b:pull"]
        );
        assert!(both.covers(&Scopes::push("a")));
        assert_eq!(
            Scopes::pull("a").union(&Scopes::parse("repository:a:push,pull")),
            Scopes::push("a")
        );
    }

    #[test]
    fn reading_is_told_from_writing() {
        let check = |text: &str, only: bool| {
            assert_eq!(Scopes::parse(text).only_pull(), only, "{text}");
        };
        check("repository:a:pull", true);
        check("repository:a:pull aws registry:catalog:*", true);
        check("repository:a:pull repository:b:pull,push", false);
        check("repository:a:delete", false);
        check("registry:catalog:*", false);
        check("", false);
    }

    #[test]
    fn scopes_of_challenges_are_read_as_they_come() {
        let check = |text: &str, words: &[&str]| {
            assert_eq!(Scopes::parse(text).words(), words, "{text}");
        };
        check("", &[]);
        check("repository:a/b:push,pull", &["repository:a/b:pull,push"]);
        check(
            "repository:host:5000/a:pull",
            &["repository:host:5000/a:pull"],
        );
        check("registry:catalog:* aws", &["aws", "registry:catalog:*"]);
        check("repository:a:", &["repository:a:"]);
        check("odd:", &["odd:"]);
        assert_eq!(
            Scopes::parse("aws repository:a:pull")
                .beside_repositories()
                .words(),
            ["aws"]
        );
    }
}
