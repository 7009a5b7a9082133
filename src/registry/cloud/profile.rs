//! The two files of AWS's tools: `credentials` and `config`, in which keys and roles have names.
//!
//! In: their texts. Out: the settings of one profile, those of `credentials` before those of `config`. Lines that begin with a blank
//! belong to settings that mean nothing here.

use std::collections::BTreeMap;

/// The settings of one profile.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Profile(BTreeMap<String, String>);

impl Profile {
    /// Reads a profile; `None` if neither text has it.
    pub(super) fn find(credentials: &str, config: &str, name: &str) -> Option<Profile> {
        let in_config = match name {
            "default" => section(config, |header| {
                header == "default" || is_profile(header, name)
            }),
            _ => section(config, |header| is_profile(header, name)),
        };
        let in_credentials = section(credentials, |header| header == name);
        if in_config.is_none() && in_credentials.is_none() {
            return None;
        }
        let mut settings = in_config.unwrap_or_default();
        settings.extend(in_credentials.unwrap_or_default());
        Some(Profile(settings))
    }

    /// Returns a setting that says something.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let value = self.0.get(name)?.as_str();
        Some(value).filter(|value| !value.is_empty())
    }
}

fn is_profile(header: &str, name: &str) -> bool {
    header
        .strip_prefix("profile")
        .filter(|rest| rest.starts_with([' ', '\t']))
        .is_some_and(|rest| rest.trim().trim_matches(['"', '\'']) == name)
}

/// Collects the settings of all sections whose header is wanted.
fn section(text: &str, is_wanted: impl Fn(&str) -> bool) -> Option<BTreeMap<String, String>> {
    let mut found: Option<BTreeMap<String, String>> = None;
    let mut is_inside = false;
    for line in text.lines() {
        if line.starts_with(['#', ';', ' ', '\t']) || line.trim().is_empty() {
            continue;
        }
        if let Some(header) = line.strip_prefix('[') {
            let header = header.split(']').next().unwrap_or_default().trim();
            is_inside = is_wanted(header);
            if is_inside {
                found.get_or_insert_default();
            }
            continue;
        }
        if let (true, Some((name, value))) = (is_inside, line.split_once('=')) {
            let name = name.trim().to_ascii_lowercase();
            let settings = found.get_or_insert_default();
            settings.insert(name, value.trim().to_owned());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const CREDENTIALS: &str = "# keys\n[default]\naws_access_key_id = AKID\nAWS_Secret_Access_Key=s=/+\n\n[ci]\naws_access_key_id=\n";
    const CONFIG: &str = "[default]\nregion = eu-west-1\naws_access_key_id = other\ns3 =\n  max = 1\n[profile ci]\nrole_arn = arn\n; x\n[profile \"a b\"]\nsource_profile = ci\n[ci]\nrole_arn = no\n[profileci]\nrole_arn = no\n";

    #[test]
    fn profiles_are_found_in_both_files() {
        let get = |name: &str, setting: &str| {
            let profile = Profile::find(CREDENTIALS, CONFIG, name)?;
            profile.get(setting).map(str::to_owned)
        };
        let check = |name: &str, setting: &str, expected: Option<&str>| {
            assert_eq!(get(name, setting).as_deref(), expected, "{name} {setting}");
        };
        check("default", "aws_access_key_id", Some("AKID"));
        check("default", "aws_secret_access_key", Some("s=/+"));
        check("default", "region", Some("eu-west-1"));
        check("default", "max", None);
        check("default", "s3", None);
        check("ci", "role_arn", Some("arn"));
        check("ci", "aws_access_key_id", None);
        check("a b", "source_profile", Some("ci"));
        assert!(Profile::find(CREDENTIALS, CONFIG, "nobody").is_none());
        assert!(Profile::find("", "", "default").is_none());
        assert!(Profile::find("[", "=\n]\n[profile", "default").is_none());
    }
}
