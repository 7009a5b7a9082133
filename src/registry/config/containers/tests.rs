//! Texts of `registries.conf`, and what they mean.

use super::*;
use crate::vocab::Digest;

fn read(texts: &[&str]) -> Result<Containers, Mistake> {
    let mut containers = Containers::default();
    for text in texts {
        containers.add(Source {
            path: Path::new("/etc/containers/registries.conf"),
            text,
        })?;
    }
    Ok(containers)
}

/// Returns places as `[mirror ]HOST/REPOSITORY[ insecure][ blocked]`.
fn shown(containers: &Containers, name: &str, wanted: Wanted) -> Option<Vec<String>> {
    let image: ImageRef = name.parse().unwrap();
    let places = containers.places(&image, wanted).unwrap()?;
    let show = |place: Place| {
        assert_eq!(place.site.terms.plain, place.site.terms.unchecked);
        format!(
            "{}{}/{}{}{}",
            if place.is_mirror { "mirror " } else { "" },
            place.site.authority,
            place.repository,
            if place.site.terms.plain {
                " insecure"
            } else {
                ""
            },
            if place.bar.is_some() { " blocked" } else { "" },
        )
    };
    Some(
        places
            .into_iter()
            .filter(|place| place.serves(wanted))
            .map(show)
            .collect(),
    )
}

#[track_caller]
fn check(text: &str, name: &str, expected: &[&str]) {
    let containers = read(&[text]).unwrap();
    let image: ImageRef = name.parse().unwrap();
    let found = shown(&containers, name, Wanted::manifest_of(&image));
    assert_eq!(found.unwrap_or_default(), expected, "{name} in {text}");
}

#[test]
fn locations_and_mirrors_take_the_prefix_s_place() {
    let text = r#"
        [[registry]]
        prefix = "example.com/team"
        location = "Inside.corp:5000/t/"
        [[registry.mirror]]
        location = "m1.corp/cache"
        insecure = true
        [[registry.mirror]]
        location = "m2.corp"
        [[registry]]
        location = "example.com"
        insecure = true
    "#;
    check(
        text,
        "example.com/team/app:1",
        &[
            "mirror m1.corp/cache/app insecure",
            "mirror m2.corp/app",
            "inside.corp:5000/t/app",
        ],
    );
    check(
        text,
        "example.com/teams/app",
        &["example.com/teams/app insecure"],
    );
    check(text, "EXAMPLE.com/x", &["example.com/x insecure"]);
    check(text, "example.com.evil.org/team/app", &[]);
    check(text, "alpine", &[]);
    // The whole name may be the prefix.
    let one = "[[registry]]\nprefix = 'a.io/b/c'\nlocation = 'd.io/e'\n";
    check(one, "a.io/b/c:7", &["d.io/e"]);
    check(one, "a.io/b/cc", &[]);
}

#[test]
fn docker_s_images_go_by_their_full_name() {
    let text =
        "[[registry]]\nlocation = 'docker.io'\n[[registry.mirror]]\nlocation = 'm.corp:5000'\n";
    check(
        text,
        "alpine",
        &[
            "mirror m.corp:5000/library/alpine",
            "registry-1.docker.io/library/alpine",
        ],
    );
    let text = "[[registry]]\nprefix = 'docker.io/library'\nlocation = 'h.corp/hub'\n";
    check(text, "alpine", &["h.corp/hub/alpine"]);
    check(text, "me/app", &[]);
}

#[test]
fn stars_stand_for_hosts_below_a_domain() {
    let text = "[[registry]]\nprefix = '*.corp.io'\ninsecure = true\n[[registry.mirror]]\nlocation = 'm.io/x'\n";
    check(
        text,
        "a.corp.io/y",
        &["mirror m.io/x/y", "a.corp.io/y insecure"],
    );
    check(text, "corp.io/y", &[]);
    check(text, "a.corp.io.evil.org/y", &[]);
    check(text, "evil.org/a.corp.io/y", &[]);
    // A prefix without its port, as podman has it.
    let text = "[[registry]]\nprefix = '*.corp.io'\nblocked = true\n";
    check(text, "a.b.corp.io:5000/y", &["a.b.corp.io:5000/y blocked"]);
}

#[test]
fn the_longest_prefix_decides() {
    let text = r#"
        [[registry]]
        prefix = "a.io"
        location = "1.io"
        [[registry]]
        prefix = "a.io/b"
        location = "2.io"
        [[registry]]
        prefix = "a.io/b/c:1"
        blocked = true
    "#;
    check(text, "a.io/x", &["1.io/x"]);
    check(text, "a.io/b/c:2", &["2.io/c"]);
    check(text, "a.io/b/c:1", &["a.io/b/c blocked"]);
}

#[test]
fn what_is_blocked_is_not_asked_but_its_mirrors_are() {
    let text = r#"
        [[registry]]
        location = "bad.io"
        blocked = true
        [[registry]]
        location = "source.io"
        blocked = true
        [[registry.mirror]]
        location = "m.io/source"
        [[registry]]
        prefix = "sly.io"
        location = "bad.io/x"
    "#;
    check(text, "bad.io/x", &["bad.io/x blocked"]);
    check(text, "BAD.io/x", &["bad.io/x blocked"]);
    check(
        text,
        "source.io/x",
        &["mirror m.io/source/x", "source.io/x blocked"],
    );
    check(text, "sly.io/y", &["bad.io/x/y blocked"]);
    let containers = read(&[text]).unwrap();
    let push = |name| shown(&containers, name, Wanted::Push).unwrap();
    assert_eq!(push("source.io/x"), ["source.io/x blocked"]);
    assert_eq!(push("sly.io/y"), ["sly.io/y"]);
}

#[test]
fn mirrors_may_be_for_tags_or_for_digests() {
    let by = |key: &str| {
        format!("[[registry]]\nlocation = 'a.io'\n{key}\n[[registry.mirror]]\nlocation = 'm.io'\n")
    };
    let mirror = |value: &str| format!("{}pull-from-mirror = '{value}'\n", by(""));
    let digest = Digest::of(b"");
    for (text, tag, pinned, blob_of_tag, blob_of_digest) in [
        (by(""), true, true, true, true),
        (mirror("all"), true, true, true, true),
        (by("mirror-by-digest-only = true"), false, true, true, true),
        (mirror("digest-only"), false, true, true, true),
        (mirror("tag-only"), true, false, true, false),
    ] {
        let containers = read(&[&text]).unwrap();
        let asks =
            |name: &str, wanted| shown(&containers, name, wanted).unwrap()[0].starts_with("mirror");
        assert_eq!(asks("a.io/b:1", Wanted::Tag), tag, "{text}");
        let name = format!("a.io/b@{digest}");
        assert_eq!(asks(&name, Wanted::Digest), pinned, "{text}");
        let blob = |of_tag| asks("a.io/b", Wanted::Blob { of_tag });
        assert_eq!(blob(true), blob_of_tag, "{text}");
        assert_eq!(blob(false), blob_of_digest, "{text}");
    }
}

#[test]
fn later_files_say_the_last_word() {
    let first = r#"
        unqualified-search-registries = ["a.io"]
        short-name-mode = "enforcing"
        [[registry]]
        location = "x.io"
        insecure = true
        [[registry]]
        location = "y.io"
        [aliases]
        app = "a.io/app"
        old = "a.io/old"
    "#;
    let second = "[[registry]]\nlocation = 'x.io'\n[aliases]\nold = ''\nnew = 'b.io/new'\n";
    let containers = read(&[first, second]).unwrap();
    assert_eq!(containers.terms("x.io"), Some(Terms::default()));
    assert_eq!(containers.terms("y.io"), Some(Terms::default()));
    assert_eq!(containers.terms("z.io"), None);
    let name = |text: &str| {
        let names = containers.names(&text.parse().unwrap()).unwrap();
        names[0].name()
    };
    assert_eq!(name("app"), "a.io/app");
    assert_eq!(name("new:7"), "b.io/new");
    assert_eq!(name("old"), "a.io/old");
}

#[test]
fn short_names_are_docker_s_unless_a_file_says_otherwise() {
    let check = |text: &str, typed: &str, expected: &[&str]| {
        let containers = read(&[text]).unwrap();
        let names = containers.names(&typed.parse().unwrap()).unwrap();
        let names: Vec<String> = names.iter().map(ImageRef::to_string).collect();
        assert_eq!(names, expected, "{typed} in {text}");
    };
    let docker = &["docker.io/library/debian:latest"][..];
    check("", "debian", docker);
    check("unqualified-search-registries = []", "debian", docker);
    let fedora = "unqualified-search-registries = ['registry.fedoraproject.org', 'docker.io']";
    check(fedora, "debian", docker);
    check(fedora, "me/app:1", &["docker.io/me/app:1"]);
    let one = "unqualified-search-registries = ['r.corp:5000']";
    check(one, "debian:12", &["r.corp:5000/debian:12"]);
    check(one, "me/app", &["r.corp:5000/me/app:latest"]);
    // Whoever writes the host means it.
    check(one, "docker.io/library/debian", docker);
    let two = "unqualified-search-registries = ['a.io', 'b.io']";
    check(two, "x", &["a.io/x:latest", "b.io/x:latest"]);
    let alias = "unqualified-search-registries = ['a.io']\n[aliases]\n'debian' = 'q.io/d/debian'\n'me/app' = 'docker.io/you/app'\n";
    check(alias, "debian:1", &["q.io/d/debian:1"]);
    check(alias, "library/debian:1", &["q.io/d/debian:1"]);
    check(alias, "docker.io/library/debian", docker);
    check(alias, "me/app", &["docker.io/you/app:latest"]);
    check(alias, "other", &["a.io/other:latest"]);
    let digest = Digest::of(b"");
    check(
        alias,
        &format!("debian@{digest}"),
        &[&format!("q.io/d/debian@{digest}")],
    );
    let strict = read(&[
        "unqualified-search-registries = ['a.io', 'b.io']\nshort-name-mode = 'enforcing'\n",
    ])
    .unwrap();
    let mistake = strict.names(&"x".parse().unwrap()).unwrap_err();
    assert!(mistake.hint.contains("a.io/x"), "{mistake:?}");
}

#[test]
fn mistakes_have_their_line() {
    let check = |text: &str, line: usize, part: &str| {
        let mistake = read(&[text]).unwrap_err();
        assert_eq!(mistake.line, Some(line), "{mistake}");
        assert!(mistake.to_string().contains(part), "{mistake}");
    };
    check(
        "\n[registries.search]\nregistries = ['a.io']\n",
        2,
        "version 1",
    );
    check("short-name-mode = 'strict'", 1, "enforcing");
    check("\n\n[[registry]]\nblocked = true\n", 3, "neither");
    check("[[registry]]\nlocation = 'https://a.io'\n", 2, "scheme");
    check(
        "[[registry]]\nlocation = 'a.io'\ninsecure = 'yes'\n",
        3,
        "boolean",
    );
    check("[[registry]]\nprefix = 'a.*.io'\n", 1, "`*`");
    check("[[registry]]\nprefix = '*'\n", 1, "`*`");
    check(
        "[[registry]]\nprefix = 'a.io/b:1'\nlocation = 'c.io/d'\n",
        1,
        "tag",
    );
    check(
        "[[registry]]\nlocation = 'a.io'\npull-from-mirror = 'all'\n",
        3,
        "belongs",
    );
    check(
        "[[registry]]\nlocation = 'a.io'\n[[registry.mirror]]\ninsecure = true\n",
        3,
        "location",
    );
    check(
        "[[registry]]\nlocation = 'a.io'\n[[registry.mirror]]\nlocation = 'm.io'\npull-from-mirror = 'never'\n",
        5,
        "tag-only",
    );
    check(
        "[[registry]]\nlocation = 'a.io'\nmirror-by-digest-only = true\n[[registry.mirror]]\nlocation = 'm.io'\npull-from-mirror = 'all'\n",
        6,
        "exclude",
    );
    check("unqualified-search-registries = ['a.io/b']", 1, "HOST");
    check("unqualified-search-registries = ['nohost']", 1, "HOST");
    check("[aliases]\na = 'b/c'\n", 2, "alias");
    check("[aliases]\na = 'b.io/c:1'\n", 2, "alias");
    check("[[registry]\n", 1, "");
    // An empty table of version 1 says nothing.
    read(&["[registries.search]\nregistries = []\n"]).unwrap();
    // What nobody knows yet does not matter.
    read(&["credential-helpers = ['x']\nnew-key = 1\n"]).unwrap();
}

#[test]
fn a_location_that_leads_nowhere_is_a_mistake_when_it_is_used() {
    let containers = read(&["[[registry]]\nprefix = 'a.io'\nlocation = 'nohost'\n"]).unwrap();
    let image = "a.io/b".parse().unwrap();
    let mistake = containers.places(&image, Wanted::Tag).unwrap_err();
    assert!(mistake.to_string().contains("`nohost/b"), "{mistake}");
}
