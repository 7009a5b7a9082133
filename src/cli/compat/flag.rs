//! What a tool's table is made of: a row for each flag, which says how it is written and what becomes of it here.

/// A tool, or one subcommand of it.
pub(super) struct Tool {
    /// As messages name it: `executor`, `docker build`.
    pub(super) name: &'static str,
    /// What the table in the docs is called.
    pub(super) title: &'static str,
    pub(super) flags: &'static [Flag],
    /// What begins the names of variables that stand for flags.
    pub(super) variables: Option<&'static str>,
}

/// A row.
pub(super) struct Flag {
    /// Without dashes.
    pub(super) name: &'static str,
    pub(super) short: Option<char>,
    /// Other long names, deprecated ones most of them.
    pub(super) aliases: &'static [&'static str],
    pub(super) takes: Takes,
    pub(super) does: Does,
}

/// How a flag is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Takes {
    /// `--flag`, `--flag=true`, `--flag=false`; off where it is not given. Turned off it asks for nothing.
    Switch,
    /// The same, on where it is not given. Turned on it asks for nothing.
    SwitchOn,
    /// A value, called this in the docs.
    Value(&'static str),
    /// Several values with commas between them.
    List(&'static str),
    /// A value that may be left out together with its `=`; then it is the second.
    Optional(&'static str, &'static str),
}

/// What becomes of a flag.
#[derive(Clone, Copy, Debug)]
pub(super) enum Does {
    /// It is the flag of `builder` with this name.
    As(&'static str),
    /// The translation of the tool sees to it; the text is for the docs.
    Honoured(&'static str),
    /// It means nothing here, for this reason.
    Noted(&'static str),
    /// It is an error, and this is what to do instead.
    Refused(&'static str),
    /// With one of these values it asks for what happens anyway.
    Unless(&'static [&'static str], &'static Does),
}

impl Does {
    /// Returns what becomes of the flag with a value; `None`: it asks for what happens anyway.
    pub(super) fn with(self, value: &str) -> Option<Does> {
        match self {
            Does::Unless(values, _) if values.contains(&value) => None,
            Does::Unless(_, does) => does.with(value),
            does => Some(does),
        }
    }

    /// Returns what becomes of it with a value that matters.
    pub(super) fn at_heart(self) -> Does {
        match self {
            Does::Unless(_, does) => does.at_heart(),
            does => does,
        }
    }
}

impl Flag {
    pub(super) const fn short(self, short: char) -> Flag {
        Flag {
            short: Some(short),
            ..self
        }
    }

    pub(super) const fn aliases(self, aliases: &'static [&'static str]) -> Flag {
        Flag { aliases, ..self }
    }

    /// Tells whether the flag can do without a value.
    pub(super) fn is_switch(&self) -> bool {
        matches!(self.takes, Takes::Switch | Takes::SwitchOn)
    }
}

/// Returns a row.
pub(super) const fn flag(name: &'static str, takes: Takes, does: Does) -> Flag {
    Flag {
        name,
        short: None,
        aliases: &[],
        takes,
        does,
    }
}

/// Returns a row for a flag that `builder` has under the same name.
pub(super) const fn same(name: &'static str, takes: Takes) -> Flag {
    flag(name, takes, Does::As(name))
}
