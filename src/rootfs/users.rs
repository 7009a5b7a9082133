//! Names of users and groups, looked up in an image's own `/etc/passwd` and `/etc/group`. The host's are never asked.

use super::error::UserError;
use super::tree::Tree;

/// No honest passwd or group file is larger.
const FILE_LIMIT: usize = 16 << 20;
/// -1 means "leave as it is" to the kernel.
const LARGEST_ID: u32 = u32::MAX - 1;

/// Who a process runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups; none where the group was given explicitly.
    pub groups: Vec<u32>,
    pub home: String,
}

/// A user or group as `--chown` names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    Id(u32),
    Name(String),
}

/// Looks up the text of `USER`: `name|uid[:group|gid]`; empty is root. A number need not be in passwd: its group is then 0 and
/// its home `/`. An unknown name is an error, but for `root`, which is 0 also in an image without a passwd.
pub fn lookup_user(root: &Tree, spec: &str) -> Result<User, UserError> {
    let (user_text, group_text) = match spec.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (spec, None),
    };
    let wanted = match user_text {
        "" => Owner::Id(0),
        text => parse(text)?,
    };
    let passwd = read(root, "/etc/passwd", spec)?;
    let found = find_passwd(&passwd, &wanted);
    let mut user = match (&found, &wanted) {
        (Some(line), _) => User {
            uid: line.uid,
            gid: line.gid,
            groups: Vec::new(),
            home: String::from_utf8_lossy(line.home).into_owned(),
        },
        (None, Owner::Id(uid)) => nobody_listed(*uid),
        (None, Owner::Name(name)) if name == "root" => nobody_listed(0),
        (None, Owner::Name(name)) => return Err(UserError::NoUser(name.clone())),
    };
    if user.home.is_empty() {
        user.home = String::from("/");
    }
    match (group_text, found) {
        (Some(group), _) => user.gid = lookup_group(root, &parse(group)?, spec)?,
        (None, Some(line)) => {
            let groups = read(root, "/etc/group", spec)?;
            let of_user = group_lines(&groups).filter(|group| group.has_member(line.name));
            for group in of_user {
                if !user.groups.contains(&group.gid) {
                    user.groups.push(group.gid);
                }
            }
        }
        (None, None) => {}
    }
    Ok(user)
}

/// Looks up the owner that `--chown` names. Without a group a named user brings its primary one, and a number stands for both.
pub fn lookup_owner(
    root: &Tree,
    user: &Owner,
    group: Option<&Owner>,
) -> Result<(u32, u32), UserError> {
    let shown = match user {
        Owner::Id(uid) => uid.to_string(),
        Owner::Name(name) => name.clone(),
    };
    let (uid, primary) = match user {
        Owner::Id(uid) => (*uid, *uid),
        Owner::Name(name) => {
            let passwd = read(root, "/etc/passwd", &shown)?;
            match find_passwd(&passwd, user) {
                Some(line) => (line.uid, line.gid),
                None if name == "root" => (0, 0),
                None => return Err(UserError::NoUser(name.clone())),
            }
        }
    };
    if uid > LARGEST_ID {
        return Err(UserError::TooLarge(shown));
    }
    match group {
        None => Ok((uid, primary)),
        Some(group) => Ok((uid, lookup_group(root, group, &shown)?)),
    }
}

fn lookup_group(root: &Tree, group: &Owner, asked: &str) -> Result<u32, UserError> {
    let name = match group {
        Owner::Id(gid) if *gid > LARGEST_ID => return Err(UserError::TooLarge(gid.to_string())),
        Owner::Id(gid) => return Ok(*gid),
        Owner::Name(name) => name,
    };
    let groups = read(root, "/etc/group", asked)?;
    match group_lines(&groups).find(|line| line.name == name.as_bytes()) {
        Some(line) => Ok(line.gid),
        None if name == "root" => Ok(0),
        None => Err(UserError::NoGroup(name.clone())),
    }
}

/// Digits alone are always a number, also where somebody has such a name.
fn parse(text: &str) -> Result<Owner, UserError> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(Owner::Name(text.to_owned()));
    }
    match text.parse() {
        Ok(id) if id <= LARGEST_ID => Ok(Owner::Id(id)),
        _ => Err(UserError::TooLarge(text.to_owned())),
    }
}

fn nobody_listed(uid: u32) -> User {
    User {
        uid,
        gid: 0,
        groups: Vec::new(),
        home: String::from("/"),
    }
}

fn read(root: &Tree, path: &str, asked: &str) -> Result<Vec<u8>, UserError> {
    match root.read_small(path.as_bytes(), FILE_LIMIT) {
        Ok(content) => Ok(content.unwrap_or_default()),
        Err(error) => Err(UserError::Read {
            name: asked.to_owned(),
            source: Box::new(error),
        }),
    }
}

struct PasswdLine<'a> {
    name: &'a [u8],
    uid: u32,
    gid: u32,
    home: &'a [u8],
}

fn find_passwd<'a>(passwd: &'a [u8], wanted: &Owner) -> Option<PasswdLine<'a>> {
    lines(passwd)
        .filter_map(passwd_line)
        .find(|line| match wanted {
            Owner::Id(uid) => line.uid == *uid,
            Owner::Name(name) => line.name == name.as_bytes(),
        })
}

/// `name:password:uid:gid:comment:home:shell`; a line that lacks a name or a number is passed over.
fn passwd_line(line: &[u8]) -> Option<PasswdLine<'_>> {
    let mut fields = line.split(|&byte| byte == b':');
    let name = fields.next().filter(|name| !name.is_empty())?;
    let uid = number(fields.nth(1)?)?;
    let gid = number(fields.next()?)?;
    let home = fields.nth(1).unwrap_or_default();
    Some(PasswdLine {
        name,
        uid,
        gid,
        home,
    })
}

struct GroupLine<'a> {
    name: &'a [u8],
    gid: u32,
    members: &'a [u8],
}

impl GroupLine<'_> {
    fn has_member(&self, user: &[u8]) -> bool {
        self.members
            .split(|&byte| byte == b',')
            .any(|member| member == user)
    }
}

/// `name:password:gid:member,member`
fn group_lines(groups: &[u8]) -> impl Iterator<Item = GroupLine<'_>> {
    lines(groups).filter_map(|line| {
        let mut fields = line.split(|&byte| byte == b':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let gid = number(fields.nth(1)?)?;
        Some(GroupLine {
            name,
            gid,
            members: fields.next().unwrap_or_default(),
        })
    })
}

fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|&byte| byte == b'\n')
        .map(<[u8]>::trim_ascii)
        .filter(|line| !line.starts_with(b"#"))
}

fn number(field: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(field).ok()?;
    text.parse().ok().filter(|&id| id <= LARGEST_ID)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "\
# a comment:x:5:5::/comment:
root:x:0:0:root:/root:/bin/sh
broken
:x:9:9::/noname:
bad:x:nine:9::/bad:
www-data:x:33:33:www-data:/var/www:/usr/sbin/nologin
app:x:1000:1001::/home/app:/bin/sh
1000:x:7:7::/digits:
nohome:x:44:44
";
    const GROUP: &str = "\
root:x:0:
users:x:100:app,www-data
staff:x:50:app
staff2:x:50:app
app:x:1001:
";

    fn tree(passwd: Option<&str>) -> (tempfile::TempDir, Tree) {
        let host = tempfile::tempdir().unwrap();
        if let Some(passwd) = passwd {
            std::fs::create_dir_all(host.path().join("usr/etc")).unwrap();
            // A link as some images have it: absolute inside the image.
            std::os::unix::fs::symlink("/usr/etc", host.path().join("etc")).unwrap();
            std::fs::write(host.path().join("usr/etc/passwd"), passwd).unwrap();
            std::fs::write(host.path().join("usr/etc/group"), GROUP).unwrap();
        }
        let tree = Tree::open(host.path()).unwrap();
        (host, tree)
    }

    fn shown(result: Result<User, UserError>) -> String {
        match result {
            Ok(user) => format!("{}:{} {:?} {}", user.uid, user.gid, user.groups, user.home),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn user_is_looked_up_in_the_image() {
        let (_host, tree) = tree(Some(PASSWD));
        let check = |spec: &str, expected: &str| {
            assert_eq!(shown(lookup_user(&tree, spec)), expected, "{spec}")
        };
        check("", "0:0 [] /root");
        check("root", "0:0 [] /root");
        check("app", "1000:1001 [100, 50] /home/app");
        check("1000", "1000:1001 [100, 50] /home/app");
        check("app:staff", "1000:50 [] /home/app");
        check("app:77", "1000:77 [] /home/app");
        check("app:", "1000:1001 [100, 50] /home/app");
        check(":users", "0:100 [] /root");
        check("4242", "4242:0 [] /");
        check("4242:users", "4242:100 [] /");
        check("nohome", "44:44 [] /");
        check("nobody", "no user `nobody` in the image's /etc/passwd");
        check("bad", "no user `bad` in the image's /etc/passwd");
        check("broken", "no user `broken` in the image's /etc/passwd");
        check(
            "app:nogroup",
            "no group `nogroup` in the image's /etc/group",
        );
        check("4294967294", "4294967294:0 [] /");
        check(
            "4294967295",
            "`4294967295` is no user or group id: the largest is 4294967294",
        );
        check(
            "99999999999",
            "`99999999999` is no user or group id: the largest is 4294967294",
        );
        check("-1", "no user `-1` in the image's /etc/passwd");
    }

    #[test]
    fn an_image_without_passwd_knows_root_and_numbers() {
        let (_host, tree) = tree(None);
        let check = |spec: &str, expected: &str| {
            assert_eq!(shown(lookup_user(&tree, spec)), expected, "{spec}")
        };
        check("", "0:0 [] /");
        check("root", "0:0 [] /");
        check("root:root", "0:0 [] /");
        check("5:6", "5:6 [] /");
        check("app", "no user `app` in the image's /etc/passwd");
    }

    #[test]
    fn chown_takes_a_names_primary_group_and_a_number_for_both() {
        let (_host, tree) = tree(Some(PASSWD));
        let name = |text: &str| Owner::Name(text.to_owned());
        let check = |user: Owner, group: Option<Owner>, expected: Result<(u32, u32), &str>| {
            let found =
                lookup_owner(&tree, &user, group.as_ref()).map_err(|error| error.to_string());
            assert_eq!(found, expected.map_err(str::to_owned), "{user:?} {group:?}");
        };
        check(name("www-data"), None, Ok((33, 33)));
        check(name("app"), None, Ok((1000, 1001)));
        check(Owner::Id(12), None, Ok((12, 12)));
        check(Owner::Id(0), Some(Owner::Id(8)), Ok((0, 8)));
        check(Owner::Id(7), Some(name("users")), Ok((7, 100)));
        check(
            name("app"),
            Some(name("nogroup")),
            Err("no group `nogroup` in the image's /etc/group"),
        );
        check(
            name("nobody"),
            None,
            Err("no user `nobody` in the image's /etc/passwd"),
        );
        check(
            Owner::Id(u32::MAX),
            None,
            Err("`4294967295` is no user or group id: the largest is 4294967294"),
        );
    }

    #[test]
    fn a_passwd_that_is_no_file_is_an_error() {
        let (host, tree) = tree(Some(PASSWD));
        std::fs::remove_file(host.path().join("usr/etc/passwd")).unwrap();
        std::fs::create_dir(host.path().join("usr/etc/passwd")).unwrap();
        let error = lookup_user(&tree, "app").unwrap_err();
        assert_eq!(error.to_string(), "cannot look up `app`");
    }
}
