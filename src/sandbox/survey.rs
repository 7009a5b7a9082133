//! Which rung: each is tried out in a child, best first, and nothing is guessed from versions or remembered from earlier.

use crate::vocab::{Ownership, RequiredIsolation, Rung};

use super::enter::{self, Way};
use super::error::SandboxError;
use super::examine::examine;
use super::lack::Lack;
use super::trial::attempt;
use super::trouble::Trouble;

/// What the user wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// `None`: the first that works.
    pub rung: Option<Rung>,
    pub required: RequiredIsolation,
}

/// A rung that works here.
#[derive(Debug)]
pub struct Choice {
    pub rung: Rung,
    pub lacks: Vec<Lack>,
    /// Those that would have been better, with the reasons.
    pub refused: Vec<(Rung, SandboxError)>,
}

impl Choice {
    /// Returns where the truth about files is. Root of a user namespace may do everything but make devices, whatever its rung.
    pub fn ownership(&self) -> Ownership {
        match self.rung.ownership() {
            Ownership::OnDisk if self.lacks.contains(&Lack::DeviceFiles) => {
                Ownership::DevicesInLedger
            }
            ownership => ownership,
        }
    }
}

/// What came of trying one rung.
#[derive(Debug)]
pub struct Finding {
    pub rung: Rung,
    pub outcome: Result<Vec<Lack>, SandboxError>,
}

/// Finds the rung to enter. Takes some milliseconds; needs a process with a single thread.
///
/// Once a rung is entered, it is the answer.
pub fn choose(wanted: &Wanted) -> Result<Choice, SandboxError> {
    if let Some(rung) = enter::entered_rung() {
        return Ok(Choice {
            rung,
            lacks: Vec::new(),
            refused: Vec::new(),
        });
    }
    enter::single_thread()?;
    pick(wanted, &mut attempt_rung)
}

/// Tries every rung.
pub fn survey() -> Result<Vec<Finding>, SandboxError> {
    enter::single_thread()?;
    let find = |rung| Finding {
        rung,
        outcome: attempt_rung(rung),
    };
    Ok(Rung::ALL.into_iter().map(find).collect())
}

fn attempt_rung(rung: Rung) -> Result<Vec<Lack>, SandboxError> {
    let way = Way::find(rung)?;
    attempt(|| {
        way.go()?;
        examine(rung)
    })
    .map(super::lack::Lacks::list)
    .map_err(Trouble::explain)
}

/// Takes the first that works and is good enough.
fn pick(
    wanted: &Wanted,
    outcome: &mut dyn FnMut(Rung) -> Result<Vec<Lack>, SandboxError>,
) -> Result<Choice, SandboxError> {
    if let Some(rung) = wanted.rung {
        let lacks = outcome(rung).and_then(|lacks| good_enough(rung, lacks, wanted.required))?;
        return Ok(Choice {
            rung,
            lacks,
            refused: Vec::new(),
        });
    }
    let mut refused = Vec::new();
    for rung in Rung::ALL {
        match outcome(rung).and_then(|lacks| good_enough(rung, lacks, wanted.required)) {
            Ok(lacks) => {
                return Ok(Choice {
                    rung,
                    lacks,
                    refused,
                });
            }
            Err(error) => refused.push((rung, error)),
        }
    }
    Err(SandboxError::NoRung { refused })
}

fn good_enough(
    rung: Rung,
    lacks: Vec<Lack>,
    required: RequiredIsolation,
) -> Result<Vec<Lack>, SandboxError> {
    let lost: Vec<Lack> = lacks
        .iter()
        .copied()
        .filter(|lack| lack.is_refused_by(required))
        .collect();
    if required == RequiredIsolation::Strict && (!rung.has_namespaces() || !lost.is_empty()) {
        return Err(SandboxError::NotStrict { rung, lost });
    }
    Ok(lacks)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRICT: Wanted = Wanted {
        rung: None,
        required: RequiredIsolation::Strict,
    };

    fn asked(rung: Rung, required: RequiredIsolation) -> Wanted {
        Wanted {
            rung: Some(rung),
            required,
        }
    }

    /// Chooses where exactly `works` work, each with what it lacks.
    fn choose_among(
        wanted: Wanted,
        works: &[(Rung, &[Lack])],
    ) -> (Result<Choice, SandboxError>, Vec<Rung>) {
        let mut tried = Vec::new();
        let choice = pick(&wanted, &mut |rung| {
            tried.push(rung);
            works
                .iter()
                .find(|(works, _)| *works == rung)
                .map(|(_, lacks)| lacks.to_vec())
                .ok_or(SandboxError::NoEnd)
        });
        (choice, tried)
    }

    #[test]
    fn the_first_that_works_is_taken_and_no_other_tried() {
        for (works, expected) in [
            (&[Rung::Ns, Rung::NsFull, Rung::NsSub][..], Rung::Ns),
            (&[Rung::NsFull, Rung::NsOne], Rung::NsFull),
            (&[Rung::NsOne, Rung::NsSub], Rung::NsSub),
        ] {
            let works: Vec<(Rung, &[Lack])> = works.iter().map(|rung| (*rung, &[][..])).collect();
            let (choice, tried) = choose_among(Wanted::default(), &works);
            let choice = choice.unwrap();
            assert_eq!(choice.rung, expected);
            assert_eq!(tried.last(), Some(&expected));
            let refused: Vec<Rung> = choice.refused.iter().map(|(rung, _)| *rung).collect();
            assert_eq!(refused, tried[..tried.len() - 1]);
        }
    }

    #[test]
    fn every_refusal_is_told_if_nothing_works() {
        let (choice, tried) = choose_among(Wanted::default(), &[]);
        let Err(SandboxError::NoRung { refused }) = choice else {
            panic!("{choice:?}");
        };
        assert_eq!(tried, Rung::ALL);
        assert_eq!(refused.len(), Rung::ALL.len());
    }

    #[test]
    fn a_rung_that_was_asked_for_is_the_only_one_tried() {
        for rung in Rung::ALL {
            let (choice, tried) = choose_among(
                asked(rung, RequiredIsolation::Any),
                &[(rung, &[Lack::Proc])],
            );
            assert_eq!(choice.unwrap().lacks, [Lack::Proc]);
            assert_eq!(tried, [rung]);
        }
        let (choice, _) = choose_among(
            asked(Rung::NsOne, RequiredIsolation::Any),
            &[(Rung::Ns, &[])],
        );
        assert!(matches!(choice, Err(SandboxError::NoEnd)), "{choice:?}");
    }

    #[test]
    fn strict_takes_no_rung_with_a_hole() {
        for (rung, lacks, is_taken) in [
            (Rung::Ns, &[][..], true),
            (
                Rung::Ns,
                &[Lack::PivotRoot, Lack::Terminals, Lack::Proc],
                true,
            ),
            (Rung::Ns, &[Lack::SocketScope], false),
            (Rung::NsOne, &[], true),
            (Rung::NsOne, &[Lack::PidNamespace], false),
            (Rung::Chroot, &[], false),
            (Rung::Paths, &[Lack::PidNamespace], false),
        ] {
            let wanted = asked(rung, RequiredIsolation::Strict);
            let (choice, _) = choose_among(wanted, &[(rung, lacks)]);
            assert_eq!(choice.is_ok(), is_taken, "{rung} {lacks:?}: {choice:?}");
        }
        // A better one that has a hole gives way to one that has none.
        let (choice, _) = choose_among(
            STRICT,
            &[(Rung::Ns, &[Lack::SocketScope]), (Rung::NsFull, &[])],
        );
        assert_eq!(choice.unwrap().rung, Rung::NsFull);
    }
}
