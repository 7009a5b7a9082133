//! What the user lends to steps: values, agents, emulators. Read once, before the first step is executed; in no key, record or
//! event.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;

use super::AgentAccess;
use crate::vocab::Secret;

/// Everything that was given on the command line for steps to ask for.
#[derive(Debug, Default)]
pub struct Credentials {
    /// By id.
    pub secrets: BTreeMap<String, Secret<Vec<u8>>>,
    /// By id.
    pub agents: BTreeMap<String, Arc<AgentAccess>>,
    /// By architecture.
    pub emulators: BTreeMap<String, File>,
}
