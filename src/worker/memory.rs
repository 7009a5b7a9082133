//! Whether memory ran out while a command ran: told from other reasons to be killed by the kernel's own count.
//!
//! The command's group counts for itself. Without one, the group that the builder is in does, for everything in it.

use std::sync::Arc;

use crate::sandbox::{OutOfMemory, StepGroup, oom_kills};
use crate::solve::StepError;

/// The count before the command.
pub(super) struct Memory {
    group: Option<Arc<StepGroup>>,
    /// Of the surrounding group.
    before: Option<u64>,
}

impl Memory {
    pub(super) fn watch(group: Option<Arc<StepGroup>>) -> Memory {
        Memory {
            group,
            before: oom_kills(),
        }
    }

    /// Tells whether anybody counts.
    pub(super) fn is_watched(&self) -> bool {
        self.before.is_some()
    }

    /// Adds to a command's failure that memory ran out, if it did.
    pub(super) fn blame(&self, error: StepError) -> StepError {
        match self.out_of_memory() {
            None => error,
            Some(OutOfMemory::Own { limit }) => StepError {
                message: format!(
                    "{}: it needs more memory than its limit of {}",
                    error.message,
                    shown(limit)
                ),
                ..error
            }
            .hint("raise `--memory`"),
            Some(OutOfMemory::Around) => StepError {
                message: format!(
                    "{}: memory ran out, and the kernel ended a process",
                    error.message
                ),
                ..error
            }
            .hint(
                "give the machine, container or unit that the build runs in more memory, or run fewer steps at the same time \
                 (`--jobs`)",
            ),
        }
    }

    fn out_of_memory(&self) -> Option<OutOfMemory> {
        match &self.group {
            // It counts its own alone.
            Some(group) if group.limits_memory() => group.out_of_memory(),
            _ => {
                let (before, now) = self.before.zip(oom_kills())?;
                (now > before).then_some(OutOfMemory::Around)
            }
        }
    }
}

/// Shows bytes in the largest unit that needs no fraction.
fn shown(bytes: u64) -> String {
    [(30, "GiB"), (20, "MiB"), (10, "KiB")]
        .into_iter()
        .find(|(shift, _)| bytes > 0 && bytes.trailing_zeros() >= *shift)
        .map_or_else(
            || format!("{bytes} bytes"),
            |(shift, unit)| format!("{} {unit}", bytes >> shift),
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_shown_without_fractions() {
        for (bytes, text) in [
            (64 << 20, "64 MiB"),
            (2 << 30, "2 GiB"),
            (1536 << 20, "1536 MiB"),
            (4096, "4 KiB"),
            (1000, "1000 bytes"),
            (0, "0 bytes"),
        ] {
            assert_eq!(shown(bytes), text);
        }
    }
}
