//! What the calls that change a process's identity do to it: Linux' own rules, as functions of values.
//!
//! Each takes the credentials before and returns those after, or what the call fails with. `u32::MAX` is "leave it", and no
//! id of anybody.

use std::sync::Arc;

use rustix::io::Errno;

use super::credentials::{Capabilities, Capability, Credentials, Ids};

/// "Leave it as it is".
const NONE: u32 = u32::MAX;
/// Groups that a process may have.
pub(super) const MOST_GROUPS: usize = 65536;
/// What `setfsuid` takes from root: all that has to do with files.
const FILE_CAPABILITIES: u64 =
    1 << 0 | 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 9 | 1 << 27 | 1 << 32;
/// CAP_CHECKPOINT_RESTORE, the last one that is known.
const LAST_CAPABILITY: u64 = 40;
const ALL_CAPABILITIES: u64 = (1 << (LAST_CAPABILITY + 1)) - 1;

const NO_ROOT: u32 = 1 << 0;
const NO_SETUID_FIXUP: u32 = 1 << 2;
const KEEP_CAPABILITIES: u32 = 1 << 4;
const KEEP_CAPABILITIES_LOCKED: u32 = 1 << 5;
const NO_AMBIENT_RAISE: u32 = 1 << 6;
const SECURE_LOCKS: u32 = 0xaa;
const SECURE_BITS: u32 = 0x55;

/// What of a program's file matters for who the process is afterwards.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Executable {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mode: u32,
    /// `security.capability`.
    pub(super) capabilities: Option<FileCapabilities>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct FileCapabilities {
    pub(super) permitted: u64,
    pub(super) inheritable: u64,
    pub(super) is_effective: bool,
}

impl FileCapabilities {
    /// Reads the attribute's value; `None` for what the kernel would not take.
    pub(super) fn parse(value: &[u8]) -> Option<FileCapabilities> {
        const EFFECTIVE: u32 = 1;
        let word = |at: usize| {
            let bytes = value.get(4 * at..4 * at + 4)?;
            Some(u32::from_le_bytes(bytes.try_into().ok()?))
        };
        let magic = word(0)?;
        let words = match (magic >> 24, value.len()) {
            (1, 12) => 1,
            // The third version names the namespace it is for: only one whose root is user 0 counts.
            (2, 20) => 2,
            (3, 24) if word(5)? == 0 => 2,
            _ => return None,
        };
        let high = |at: usize| if words == 2 { word(at) } else { Some(0) };
        Some(FileCapabilities {
            permitted: u64::from(word(1)?) | u64::from(high(3)?) << 32,
            inheritable: u64::from(word(2)?) | u64::from(high(4)?) << 32,
            is_effective: magic & EFFECTIVE != 0,
        })
    }
}

impl Credentials {
    pub(super) fn set_user(&self, uid: u32) -> Result<Credentials, Errno> {
        if uid == NONE {
            return Err(Errno::INVAL);
        }
        let user = if self.may(Capability::Setuid) {
            Ids::all(uid)
        } else if uid == self.user.real || uid == self.user.saved {
            Ids {
                effective: uid,
                file: uid,
                ..self.user
            }
        } else {
            return Err(Errno::PERM);
        };
        Ok(self.with_user(user))
    }

    pub(super) fn set_group(&self, gid: u32) -> Result<Credentials, Errno> {
        if gid == NONE {
            return Err(Errno::INVAL);
        }
        let group = if self.may(Capability::Setgid) {
            Ids::all(gid)
        } else if gid == self.group.real || gid == self.group.saved {
            Ids {
                effective: gid,
                file: gid,
                ..self.group
            }
        } else {
            return Err(Errno::PERM);
        };
        Ok(self.with_group(group))
    }

    pub(super) fn set_real_and_effective_user(
        &self,
        real: u32,
        effective: u32,
    ) -> Result<Credentials, Errno> {
        let user = exchanged(self.user, real, effective, self.may(Capability::Setuid))?;
        Ok(self.with_user(user))
    }

    pub(super) fn set_real_and_effective_group(
        &self,
        real: u32,
        effective: u32,
    ) -> Result<Credentials, Errno> {
        let group = exchanged(self.group, real, effective, self.may(Capability::Setgid))?;
        Ok(self.with_group(group))
    }

    pub(super) fn set_all_users(&self, ids: [u32; 3]) -> Result<Credentials, Errno> {
        let user = replaced(self.user, ids, self.may(Capability::Setuid))?;
        Ok(self.with_user(user))
    }

    pub(super) fn set_all_groups(&self, ids: [u32; 3]) -> Result<Credentials, Errno> {
        let group = replaced(self.group, ids, self.may(Capability::Setgid))?;
        Ok(self.with_group(group))
    }

    /// Never fails: what may not be is not done.
    pub(super) fn set_file_user(&self, uid: u32) -> Credentials {
        let mut new = self.clone();
        if uid == NONE || !(is_one_of(self.user, uid) || self.may(Capability::Setuid)) {
            return new;
        }
        new.user.file = uid;
        if self.secure_bits & NO_SETUID_FIXUP == 0 {
            let sets = &mut new.capabilities;
            match (self.user.file, uid) {
                (0, 1..) => sets.effective &= !FILE_CAPABILITIES,
                (1.., 0) => sets.effective |= sets.permitted & FILE_CAPABILITIES,
                _ => {}
            }
        }
        new
    }

    /// Never fails: what may not be is not done.
    pub(super) fn set_file_group(&self, gid: u32) -> Credentials {
        let mut new = self.clone();
        if gid != NONE && (is_one_of(self.group, gid) || self.may(Capability::Setgid)) {
            new.group.file = gid;
        }
        new
    }

    pub(super) fn set_groups(&self, groups: Vec<u32>) -> Result<Credentials, Errno> {
        if !self.may(Capability::Setgid) {
            return Err(Errno::PERM);
        }
        if groups.len() > MOST_GROUPS || groups.contains(&NONE) {
            return Err(Errno::INVAL);
        }
        Ok(Credentials {
            groups: groups.into(),
            ..self.clone()
        })
    }

    /// `capset`.
    pub(super) fn set_capabilities(
        &self,
        permitted: u64,
        effective: u64,
        inheritable: u64,
    ) -> Result<Credentials, Errno> {
        let old = &self.capabilities;
        let (permitted, effective, inheritable) = (
            permitted & ALL_CAPABILITIES,
            effective & ALL_CAPABILITIES,
            inheritable & ALL_CAPABILITIES,
        );
        let is_within = |set: u64, of: u64| set & !of == 0;
        if !self.may(Capability::Setpcap)
            && !is_within(inheritable, old.inheritable | old.permitted)
            || !is_within(inheritable, old.inheritable | old.bounding)
            || !is_within(permitted, old.permitted)
            || !is_within(effective, permitted)
        {
            return Err(Errno::PERM);
        }
        Ok(Credentials {
            capabilities: Capabilities {
                permitted,
                effective,
                inheritable,
                ambient: old.ambient & permitted & inheritable,
                bounding: old.bounding,
            },
            ..self.clone()
        })
    }

    /// Performs those options of `prctl` that are about identity. Returns what the call returns, and the credentials if they
    /// change; `None` for other options.
    pub(super) fn control(
        &self,
        [option, first, second, third, fourth]: [u64; 5],
    ) -> Option<Result<(i64, Option<Credentials>), Errno>> {
        const AMBIENT: u64 = libc::PR_CAP_AMBIENT as u64;
        let changed = |change: &dyn Fn(&mut Credentials)| {
            let mut new = self.clone();
            change(&mut new);
            Ok((0, Some(new)))
        };
        let bit = |set: u64| Ok((i64::from(set & (1 << first) != 0), None));
        // The kernel looks at the low half of the option.
        Some(match i32::try_from(option & 0xffff_ffff).ok()? {
            libc::PR_GET_KEEPCAPS => {
                Ok((i64::from(self.secure_bits & KEEP_CAPABILITIES != 0), None))
            }
            libc::PR_SET_KEEPCAPS => match first {
                2.. => Err(Errno::INVAL),
                _ if self.secure_bits & KEEP_CAPABILITIES_LOCKED != 0 => Err(Errno::PERM),
                0 => changed(&|new| new.secure_bits &= !KEEP_CAPABILITIES),
                1 => changed(&|new| new.secure_bits |= KEEP_CAPABILITIES),
            },
            libc::PR_CAPBSET_READ if first > LAST_CAPABILITY => Err(Errno::INVAL),
            libc::PR_CAPBSET_READ => bit(self.capabilities.bounding),
            libc::PR_CAPBSET_DROP if !self.may(Capability::Setpcap) => Err(Errno::PERM),
            libc::PR_CAPBSET_DROP if first > LAST_CAPABILITY => Err(Errno::INVAL),
            libc::PR_CAPBSET_DROP => changed(&|new| new.capabilities.bounding &= !(1 << first)),
            libc::PR_GET_SECUREBITS => Ok((i64::from(self.secure_bits), None)),
            libc::PR_SET_SECUREBITS => match u32::try_from(first) {
                Ok(bits) if self.may_set_secure_bits(bits) => {
                    changed(&|new| new.secure_bits = bits)
                }
                _ => Err(Errno::PERM),
            },
            libc::PR_SET_NO_NEW_PRIVS if [first, second, third, fourth] != [1, 0, 0, 0] => {
                Err(Errno::INVAL)
            }
            libc::PR_SET_NO_NEW_PRIVS => changed(&|new| new.no_new_privileges = true),
            libc::PR_GET_NO_NEW_PRIVS if [first, second, third, fourth] != [0; 4] => {
                Err(Errno::INVAL)
            }
            libc::PR_GET_NO_NEW_PRIVS => Ok((i64::from(self.no_new_privileges), None)),
            _ if option & 0xffff_ffff == AMBIENT => {
                self.control_ambient(first, second, [third, fourth])
            }
            _ => return None,
        })
    }

    fn may_set_secure_bits(&self, bits: u32) -> bool {
        let locked = (self.secure_bits & SECURE_LOCKS) >> 1;
        locked & (self.secure_bits ^ bits) == 0
            && self.secure_bits & SECURE_LOCKS & !bits == 0
            && bits & !(SECURE_LOCKS | SECURE_BITS) == 0
            && self.may(Capability::Setpcap)
    }

    fn control_ambient(
        &self,
        what: u64,
        capability: u64,
        rest: [u64; 2],
    ) -> Result<(i64, Option<Credentials>), Errno> {
        const IS_SET: u64 = libc::PR_CAP_AMBIENT_IS_SET as u64;
        const RAISE: u64 = libc::PR_CAP_AMBIENT_RAISE as u64;
        const LOWER: u64 = libc::PR_CAP_AMBIENT_LOWER as u64;
        const CLEAR_ALL: u64 = libc::PR_CAP_AMBIENT_CLEAR_ALL as u64;
        if rest != [0; 2] {
            return Err(Errno::INVAL);
        }
        let mut new = self.clone();
        let sets = &mut new.capabilities;
        match (what, capability) {
            (CLEAR_ALL, 0) => sets.ambient = 0,
            (_, LAST_CAPABILITY..) if capability > LAST_CAPABILITY => return Err(Errno::INVAL),
            (IS_SET, _) => return Ok((i64::from(sets.ambient & (1 << capability) != 0), None)),
            (RAISE, _) => {
                let may = sets.permitted & sets.inheritable & (1 << capability) != 0
                    && self.secure_bits & NO_AMBIENT_RAISE == 0;
                if !may {
                    return Err(Errno::PERM);
                }
                sets.ambient |= 1 << capability;
            }
            (LOWER, _) => sets.ambient &= !(1 << capability),
            _ => return Err(Errno::INVAL),
        }
        Ok((0, Some(new)))
    }

    /// Returns who the process is once it has executed a file.
    pub(super) fn execute(&self, file: &Executable) -> Result<Credentials, Errno> {
        let mut new = self.clone();
        let gives_ids = !self.no_new_privileges;
        if gives_ids && file.mode & 0o4000 != 0 {
            new.user.effective = file.uid;
        }
        if gives_ids && file.mode & 0o2010 == 0o2010 {
            new.group.effective = file.gid;
        }
        let of_file = file.capabilities.filter(|_| gives_ids);
        let sets = &mut new.capabilities;
        let mut is_effective = false;
        sets.permitted = 0;
        if let Some(given) = of_file {
            sets.permitted = sets.bounding & given.permitted | sets.inheritable & given.inheritable;
            is_effective = given.is_effective;
            if is_effective && given.permitted & !sets.permitted != 0 {
                return Err(Errno::PERM);
            }
        }
        let is_set_user_id_root = new.user.real != 0 && new.user.effective == 0;
        if self.secure_bits & NO_ROOT == 0 && !(of_file.is_some() && is_set_user_id_root) {
            if new.user.real == 0 || new.user.effective == 0 {
                sets.permitted = sets.bounding | sets.inheritable;
            }
            is_effective |= new.user.effective == 0;
        }
        let changes_ids =
            new.user.effective != self.user.real || new.group.effective != self.group.real;
        if of_file.is_some() || changes_ids {
            sets.ambient = 0;
        }
        sets.permitted |= sets.ambient;
        sets.effective = if is_effective {
            sets.permitted
        } else {
            sets.ambient
        };
        for ids in [&mut new.user, &mut new.group] {
            ids.saved = ids.effective;
            ids.file = ids.effective;
        }
        new.secure_bits &= !KEEP_CAPABILITIES;
        Ok(new)
    }

    fn with_group(&self, group: Ids) -> Credentials {
        Credentials {
            group,
            ..self.clone()
        }
    }

    /// Whoever ceases to be root ceases to have its power.
    fn with_user(&self, user: Ids) -> Credentials {
        let mut new = Credentials {
            user,
            groups: Arc::clone(&self.groups),
            ..self.clone()
        };
        if self.secure_bits & NO_SETUID_FIXUP != 0 {
            return new;
        }
        let is_any_root = |ids: Ids| [ids.real, ids.effective, ids.saved].contains(&0);
        let sets = &mut new.capabilities;
        if is_any_root(self.user) && !is_any_root(user) {
            if self.secure_bits & KEEP_CAPABILITIES == 0 {
                sets.permitted = 0;
                sets.effective = 0;
            }
            sets.ambient = 0;
        }
        match (self.user.effective, user.effective) {
            (0, 1..) => sets.effective = 0,
            (1.., 0) => sets.effective = sets.permitted,
            _ => {}
        }
        new
    }
}

/// `setreuid`'s rules.
fn exchanged(old: Ids, real: u32, effective: u32, may_all: bool) -> Result<Ids, Errno> {
    let mut new = old;
    if real != NONE {
        new.real = real;
        if real != old.real && real != old.effective && !may_all {
            return Err(Errno::PERM);
        }
    }
    if effective != NONE {
        new.effective = effective;
        if effective != old.real && effective != old.effective && effective != old.saved && !may_all
        {
            return Err(Errno::PERM);
        }
    }
    if real != NONE || (effective != NONE && effective != old.real) {
        new.saved = new.effective;
    }
    new.file = new.effective;
    Ok(new)
}

/// `setresuid`'s rules.
fn replaced(old: Ids, ids: [u32; 3], may_all: bool) -> Result<Ids, Errno> {
    let known = [NONE, old.real, old.effective, old.saved];
    if !may_all && ids.iter().any(|id| !known.contains(id)) {
        return Err(Errno::PERM);
    }
    // What changes nothing leaves the file's id alone, too.
    let is_same = |id: u32, old: &[u32]| id == NONE || old.iter().all(|old| *old == id);
    if is_same(ids[0], &[old.real])
        && is_same(ids[1], &[old.effective, old.file])
        && is_same(ids[2], &[old.saved])
    {
        return Ok(old);
    }
    let or = |id: u32, old: u32| if id == NONE { old } else { id };
    let effective = or(ids[1], old.effective);
    Ok(Ids {
        real: or(ids[0], old.real),
        effective,
        saved: or(ids[2], old.saved),
        file: effective,
    })
}

fn is_one_of(ids: Ids, id: u32) -> bool {
    [ids.real, ids.effective, ids.saved, ids.file].contains(&id)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};

    use super::*;

    /// A call of the list that one thread makes, with small ids and sets so that calls meet one another.
    #[derive(Clone, Copy, Debug)]
    enum Step {
        SetUser(u32),
        SetGroup(u32),
        Exchange(u32, u32),
        ExchangeGroup(u32, u32),
        Replace([u32; 3]),
        ReplaceGroup([u32; 3]),
        FileUser(u32),
        FileGroup(u32),
        Capabilities([u64; 3]),
        Control([u64; 3]),
    }

    fn step() -> impl Strategy<Value = Step> {
        let id = prop_oneof![4 => Just(0), 4 => 1_u32..4, 1 => Just(NONE)];
        let set = prop_oneof![Just(0xa804_25fb_u64), Just(0), 0_u64..512];
        let three = [id.clone(), id.clone(), id.clone()];
        let option = prop_oneof![
            // KEEPCAPS, CAPBSET_READ, SECUREBITS and CAP_AMBIENT; what is dropped from the bounding set does not come back.
            (Just(7_u64), Just(0_u64), Just(0_u64)),
            (Just(8), 0_u64..3, Just(0)),
            (Just(23), 0_u64..45, Just(0)),
            (Just(27), Just(0), Just(0)),
            (
                Just(28),
                prop_oneof![
                    Just(0_u64),
                    Just(1 << 2),
                    Just(1 << 4),
                    Just(3),
                    Just(1 << 6)
                ],
                Just(0)
            ),
            (Just(47), 0_u64..6, 0_u64..45),
        ];
        prop_oneof![
            id.clone().prop_map(Step::SetUser),
            id.clone().prop_map(Step::SetGroup),
            (id.clone(), id.clone()).prop_map(|(r, e)| Step::Exchange(r, e)),
            (id.clone(), id.clone()).prop_map(|(r, e)| Step::ExchangeGroup(r, e)),
            three.clone().prop_map(Step::Replace),
            three.prop_map(Step::ReplaceGroup),
            id.clone().prop_map(Step::FileUser),
            id.prop_map(Step::FileGroup),
            [set.clone(), set.clone(), set].prop_map(Step::Capabilities),
            option.prop_map(|(option, first, second)| Step::Control([option, first, second])),
        ]
    }

    impl Step {
        /// Does it to this thread.
        fn perform(self) -> Result<i64, Errno> {
            if let Step::Capabilities([permitted, effective, inheritable]) = self {
                let set = CapabilitySet::from_bits_retain;
                let sets = CapabilitySets {
                    effective: set(effective),
                    permitted: set(permitted),
                    inheritable: set(inheritable),
                };
                return set_capabilities(None, sets).map(|()| 0);
            }
            let id = u64::from;
            let (number, arguments) = match self {
                Step::SetUser(uid) => (libc::SYS_setuid, [id(uid), 0, 0]),
                Step::SetGroup(gid) => (libc::SYS_setgid, [id(gid), 0, 0]),
                Step::Exchange(real, effective) => {
                    (libc::SYS_setreuid, [id(real), id(effective), 0])
                }
                Step::ExchangeGroup(real, effective) => {
                    (libc::SYS_setregid, [id(real), id(effective), 0])
                }
                Step::Replace(ids) => (libc::SYS_setresuid, ids.map(id)),
                Step::ReplaceGroup(ids) => (libc::SYS_setresgid, ids.map(id)),
                Step::FileUser(uid) => (libc::SYS_setfsuid, [id(uid), 0, 0]),
                Step::FileGroup(gid) => (libc::SYS_setfsgid, [id(gid), 0, 0]),
                Step::Control(arguments) => (libc::SYS_prctl, arguments),
                Step::Capabilities(_) => unreachable!("done above"),
            };
            let [first, second, third] = arguments;
            // SAFETY: takes numbers only; what changes is this thread, which the test made for it.
            let result = unsafe { libc::syscall(number, first, second, third, 0, 0) };
            match result {
                0.. => Ok(result),
                _ => Err(super::super::super::walk::errno(
                    std::io::Error::last_os_error(),
                )),
            }
        }

        /// Does it to a value.
        fn apply(self, who: &mut Credentials) -> Result<i64, Errno> {
            let mut told = 0;
            let new = match self {
                Step::SetUser(uid) => who.set_user(uid)?,
                Step::SetGroup(gid) => who.set_group(gid)?,
                Step::Exchange(real, effective) => {
                    who.set_real_and_effective_user(real, effective)?
                }
                Step::ExchangeGroup(real, effective) => {
                    who.set_real_and_effective_group(real, effective)?
                }
                Step::Replace(ids) => who.set_all_users(ids)?,
                Step::ReplaceGroup(ids) => who.set_all_groups(ids)?,
                Step::FileUser(uid) => {
                    told = i64::from(who.user.file);
                    who.set_file_user(uid)
                }
                Step::FileGroup(gid) => {
                    told = i64::from(who.group.file);
                    who.set_file_group(gid)
                }
                Step::Capabilities([permitted, effective, inheritable]) => {
                    who.set_capabilities(permitted, effective, inheritable)?
                }
                Step::Control([option, first, second]) => {
                    let (value, new) = who
                        .control([option, first, second, 0, 0])
                        .expect("an option of identity")?;
                    told = value;
                    new.unwrap_or_else(|| who.clone())
                }
            };
            *who = new;
            Ok(told)
        }
    }

    /// What the kernel says this thread is: ids, then capabilities.
    fn of_this_thread() -> (Ids, Ids, [u64; 3]) {
        let ids = |get: libc::c_long, file: libc::c_long| {
            let mut ids = [0_u32; 3];
            let [real, effective, saved] = &mut ids;
            // SAFETY: the kernel writes three numbers to three live locals; the other call changes nothing, since no id is all
            // ones.
            let file = unsafe {
                libc::syscall(get, &raw mut *real, &raw mut *effective, &raw mut *saved);
                libc::syscall(file, u64::from(NONE))
            };
            let [real, effective, saved] = ids;
            Ids {
                real,
                effective,
                saved,
                file: u32::try_from(file).unwrap(),
            }
        };
        let sets = capabilities(None).unwrap();
        (
            ids(libc::SYS_getresuid, libc::SYS_setfsuid),
            ids(libc::SYS_getresgid, libc::SYS_setfsgid),
            [
                sets.permitted.bits(),
                sets.effective.bits(),
                sets.inheritable.bits(),
            ],
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        /// The kernel is the model: threads of root do the same for real.
        #[test]
        fn the_rules_are_the_kernels(steps in prop::collection::vec(step(), 1..12)) {
            if !rustix::process::getuid().is_root() {
                return Ok(());
            }
            let compare = move || {
                let (user, group, [permitted, effective, inheritable]) = of_this_thread();
                if user != Ids::all(0) || group != Ids::all(0) || effective != permitted {
                    return Ok(());
                }
                let bounding = (0..=LAST_CAPABILITY)
                    .filter(|bit| Step::Control([23, *bit, 0]).perform() == Ok(1))
                    .fold(0, |set, bit| set | 1 << bit);
                let mut who = Credentials::new(0, 0, &[], bounding);
                who.capabilities.permitted = permitted;
                who.capabilities.effective = effective;
                who.capabilities.inheritable = inheritable;
                for (number, step) in steps.iter().enumerate() {
                    let said = (step.perform(), of_this_thread());
                    let told = step.apply(&mut who);
                    let sets = who.capabilities;
                    let is = (
                        told,
                        (who.user, who.group, [sets.permitted, sets.effective, sets.inheritable]),
                    );
                    if said != is {
                        return Err(format!("{number}: {steps:?}\nkernel {said:?}\nhere   {is:?}"));
                    }
                }
                Ok(())
            };
            let compared = std::thread::spawn(compare).join().expect("does not panic");
            prop_assert!(compared.is_ok(), "{}", compared.unwrap_err());
        }
    }

    #[test]
    fn execution_gives_what_the_file_gives() {
        let app = Credentials::new(1000, 1000, &[], 0xff);
        let root = Credentials::new(0, 0, &[], 0xff);
        let file = |uid, mode| Executable {
            uid,
            gid: 7,
            mode,
            capabilities: None,
        };
        let ids = |who: &Credentials| {
            let sets = who.capabilities;
            (
                who.user.effective,
                who.group.effective,
                sets.permitted,
                sets.effective,
            )
        };
        let check = |who: &Credentials, file: &Executable, expected| {
            let new = who.execute(file).unwrap();
            assert_eq!(ids(&new), expected, "{file:?}");
            assert_eq!(new.user.saved, new.user.effective);
        };
        check(&app, &file(0, 0o755), (1000, 1000, 0, 0));
        check(&app, &file(0, 0o4755), (0, 1000, 0xff, 0xff));
        check(&app, &file(0, 0o2755), (1000, 7, 0, 0));
        check(&app, &file(0, 0o2745), (1000, 1000, 0, 0));
        check(&root, &file(5, 0o4755), (5, 0, 0xff, 0));
        let mut bound = app.clone();
        bound.no_new_privileges = true;
        check(&bound, &file(0, 0o6755), (1000, 1000, 0, 0));
        let mut capable = file(0, 0o755);
        let given = FileCapabilities {
            permitted: 0x3,
            inheritable: 0,
            is_effective: true,
        };
        capable.capabilities = Some(given);
        check(&app, &capable, (1000, 1000, 3, 3));
        capable.capabilities = Some(FileCapabilities {
            permitted: 0x100,
            ..given
        });
        assert_eq!(app.execute(&capable), Err(Errno::PERM));
    }

    #[test]
    fn capabilities_of_files_are_read_in_every_version() {
        let words = |words: &[u32]| -> Vec<u8> {
            words.iter().flat_map(|word| word.to_le_bytes()).collect()
        };
        let expected = |permitted, is_effective| {
            Some(FileCapabilities {
                permitted,
                inheritable: 0,
                is_effective,
            })
        };
        for (bytes, expected) in [
            (words(&[0x0100_0001, 0x400, 0]), expected(0x400, true)),
            (
                words(&[0x0200_0000, 0x400, 0, 1, 0]),
                expected(0x1_0000_0400, false),
            ),
            (
                words(&[0x0300_0001, 0x400, 0, 0, 0, 0]),
                expected(0x400, true),
            ),
            (words(&[0x0300_0001, 0x400, 0, 0, 0, 1000]), None),
            (words(&[0x0200_0000, 0x400]), None),
            (Vec::new(), None),
        ] {
            assert_eq!(FileCapabilities::parse(&bytes), expected, "{bytes:?}");
        }
    }
}
