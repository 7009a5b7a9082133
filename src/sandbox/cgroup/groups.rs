//! Groups for the commands of one build: places and limits are settled once, each command gets its own.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::vocab::StepLimits;

use super::error::GroupError;
use super::group::{self, StepGroup};
use super::hierarchy::{Controller, Hierarchies, Hierarchy, Version};
use super::place::{self, Place, Site};
use super::register::Register;
use super::setting::{Setting, What, setting};

/// Makes the groups of commands. Dropping it leaves everything as it was.
#[derive(Debug)]
pub struct StepGroups {
    /// Before `register`, which removes what they leave.
    sites: Vec<(Site, Vec<Setting>)>,
    memory: Option<u64>,
    register: Register,
    next: AtomicU64,
}

/// Limits that cannot be had.
#[derive(Debug)]
pub struct Ineffective {
    /// What was asked for, in words.
    pub limits: Vec<&'static str>,
    pub error: GroupError,
}

impl StepGroups {
    /// Finds out what can be limited, and how. Keeps a register of what it makes in `directory`.
    ///
    /// `None` if nothing can be limited or nothing was asked for. The builder may move into a group below its own. An error is
    /// about a value that the kernel refuses, or the directory.
    pub fn prepare(
        limits: &StepLimits,
        directory: &Path,
    ) -> Result<(Option<StepGroups>, Vec<Ineffective>), GroupError> {
        let hierarchies = Hierarchies::of_this_process();
        let mut ineffective = Vec::new();
        let wanted = wanted(&hierarchies, limits, &mut ineffective);
        if wanted.is_empty() {
            return Ok((None, ineffective));
        }
        let kept = |source| GroupError::Write {
            path: directory.to_owned(),
            source,
        };
        let register = Register::open(directory).map_err(kept)?;
        let mut groups = StepGroups {
            sites: Vec::new(),
            memory: None,
            register,
            next: AtomicU64::new(0),
        };
        let mut hierarchies_in_use = Vec::new();
        for Wanted {
            hierarchy,
            settings,
        } in wanted
        {
            hierarchies_in_use.push(hierarchy);
            let names = settings.iter().map(|setting| setting.what.name()).collect();
            let place = place::find(hierarchy, &controllers(&settings), limits.parent.as_deref());
            match place.and_then(|place| groups.settle(place, settings)) {
                Ok(missing) => ineffective.extend(missing),
                Err(error @ (GroupError::Refused { .. } | GroupError::Name { .. })) => {
                    return Err(error);
                }
                Err(error) => ineffective.push(Ineffective {
                    limits: names,
                    error,
                }),
            }
        }
        if groups.sites.is_empty() {
            return Ok((None, ineffective));
        }
        if let Some(unified) = hierarchies.unified()
            && !hierarchies_in_use.contains(&unified)
            && let Ok(place) = place::find(unified, &[], None)
        {
            // Limits nothing, and ends everything that is in it in one stroke. The limits do without.
            groups.settle(place, Vec::new()).ok();
        }
        Ok((Some(groups), ineffective))
    }

    /// Makes the groups of one command, which must end before `self` does.
    pub fn step(&self) -> Result<StepGroup, GroupError> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}-{number}", self.register.name());
        let mut step = StepGroup::new();
        for (site, settings) in &self.sites {
            let directory = site.parent.join(&name);
            step.make(site.version, directory.clone())?;
            for setting in settings {
                group::set(&directory, setting)?;
                if setting.what == What::Memory {
                    let limit = self.memory.unwrap_or_default();
                    step.memory = Some((site.version, directory.clone(), limit));
                }
            }
        }
        Ok(step)
    }

    /// Readies a place and tries the limits out. Returns those that the kernel does not have.
    fn settle(
        &mut self,
        place: Place,
        settings: Vec<Setting>,
    ) -> Result<Vec<Ineffective>, GroupError> {
        let site = place.prepare(&self.register)?;
        let directory = site.parent.join(format!("{}-try", self.register.name()));
        let mut trial = StepGroup::new();
        trial.make(site.version, directory.clone())?;
        let (mut possible, mut missing) = (Vec::new(), Vec::new());
        for setting in settings {
            match group::set(&directory, &setting) {
                Ok(()) => possible.push(setting),
                Err(error @ GroupError::Refused { .. }) => return Err(error),
                Err(_) if setting.is_implied => {}
                Err(error) => missing.push(Ineffective {
                    limits: vec![setting.what.name()],
                    error,
                }),
            }
        }
        if let Some(setting) = possible.iter().find(|setting| setting.what == What::Memory) {
            self.memory = setting.files[0].1.parse().ok();
        }
        self.sites.push((site, possible));
        Ok(missing)
    }
}

/// What is to be set in one tree.
struct Wanted<'a> {
    hierarchy: &'a Hierarchy,
    settings: Vec<Setting>,
}

/// Sorts the limits by the trees that have their controllers.
fn wanted<'a>(
    hierarchies: &'a Hierarchies,
    limits: &StepLimits,
    ineffective: &mut Vec<Ineffective>,
) -> Vec<Wanted<'a>> {
    let mut wanted: Vec<Wanted<'a>> = Vec::new();
    for what in What::ALL {
        let controller = what.controller();
        let found = match limits.parent {
            // Whether that one has it is seen when it is there.
            Some(_) => hierarchies.of(controller).ok_or(GroupError::NotMounted {
                controller: controller.name(),
            }),
            None => place::look(hierarchies, controller),
        };
        let version = found.as_ref().map_or(Version::Two, |found| found.version);
        let Some(setting) = setting(limits, what, version) else {
            continue;
        };
        match found {
            Ok(hierarchy) => match wanted.iter_mut().find(|other| other.hierarchy == hierarchy) {
                Some(same) => same.settings.push(setting),
                None => wanted.push(Wanted {
                    hierarchy,
                    settings: vec![setting],
                }),
            },
            Err(_) if setting.is_implied => {}
            Err(error) => ineffective.push(Ineffective {
                limits: vec![what.name()],
                error,
            }),
        }
    }
    wanted
}

fn controllers(settings: &[Setting]) -> Vec<Controller> {
    let mut found = Vec::new();
    for setting in settings {
        let controller = setting.what.controller();
        if !found.contains(&controller) {
            found.push(controller);
        }
    }
    found
}
