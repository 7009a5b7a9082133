//! The flags of a subcommand, as far as settings have to know them.

use clap::{Arg, ArgAction, Command, Id};

use super::super::booleans;

/// These say which settings there are, or are read where they are needed.
const NOT_SETTINGS: [&str; 7] = [
    "help",
    "version",
    "config",
    "no-config",
    "print-config",
    "directory",
    // BUILDER_CREDS is left alone by commands that ask no registry.
    "creds",
];

/// What can be given to a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Switch,
    Value,
    /// Any number of values.
    List,
}

#[derive(Clone, Debug)]
pub(super) struct Flag {
    pub(super) id: Id,
    /// Without its dashes.
    pub(super) name: String,
    pub(super) kind: Kind,
    /// What cannot be given as well.
    pub(super) conflicts: Vec<Id>,
    /// The variable that stands for it.
    pub(super) variable: String,
}

impl Flag {
    /// Tells whether one of both can be given only.
    pub(super) fn excludes(&self, other: &Flag) -> bool {
        self.conflicts.contains(&other.id) || other.conflicts.contains(&self.id)
    }
}

/// Returns all flags that a subcommand takes and that can be set otherwise: those of every subcommand first.
pub(super) fn flags(command: &Command, path: &[String]) -> Vec<Flag> {
    let mut found: Vec<Flag> = command
        .get_arguments()
        .filter(|arg| arg.is_global_set())
        .filter_map(|arg| flag(command, arg, ""))
        .collect();
    let mut at = command;
    for name in path {
        match at.find_subcommand(name) {
            Some(inner) => at = inner,
            None => return found,
        }
    }
    let own = at.get_arguments().filter(|arg| !arg.is_global_set());
    found.extend(own.filter_map(|arg| flag(at, arg, &path.join(" "))));
    found
}

/// Returns the variable of a flag of a subcommand (`manifest add`), or of every one (an empty name), for whoever describes it.
#[cfg(test)]
pub(in super::super) fn variable_of(subcommand: &str, arg: &Arg) -> Option<String> {
    let takes_any = !matches!(
        arg.get_action(),
        ArgAction::Help | ArgAction::HelpLong | ArgAction::HelpShort | ArgAction::Version
    );
    match arg.get_long().filter(|_| takes_any)? {
        // A question, and what is known before any variable is read.
        "print-config" | "directory" => None,
        // The same for every subcommand.
        name @ ("creds" | "config" | "no-config") => Some(super::twin::twin("", name)),
        name => Some(super::twin::twin(subcommand, name)),
    }
}

fn flag(command: &Command, arg: &Arg, path: &str) -> Option<Flag> {
    let name = arg.get_long()?;
    let kind = match arg.get_action() {
        _ if booleans::is_switch(arg) => Kind::Switch,
        ArgAction::Set => Kind::Value,
        ArgAction::Append => Kind::List,
        _ => return None,
    };
    if NOT_SETTINGS.contains(&name) {
        return None;
    }
    let conflicts = match arg.is_global_set() {
        true => Vec::new(),
        false => command.get_arg_conflicts_with(arg),
    };
    let variable = super::twin::twin(path, name);
    Some(Flag {
        id: arg.get_id().clone(),
        name: name.to_owned(),
        kind,
        conflicts: conflicts.iter().map(|arg| arg.get_id().clone()).collect(),
        variable,
    })
}
