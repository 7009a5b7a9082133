//! COPY and ADD.

use super::*;

/// Plans one instruction in a stage with WORKDIR /w, beside a stage `other`, and returns the last step and its entry.
fn one(line: &str) -> (String, String) {
    let text = format!("FROM a AS other\nFROM scratch\nENV V=v W='x y' N=\nWORKDIR /w\n{line}\n");
    let case = case(&text);
    let step = case.steps().lines().last().unwrap().to_owned();
    let history = case.history().lines().last().unwrap().to_owned();
    let cut = |text: String| text.split_once(' ').unwrap().1.to_owned();
    (cut(step), cut(history))
}

fn check(line: &str, step: &str, history: &str) {
    let step = step.replace("ON", "on 1,2");
    assert_eq!(one(line), (step, history.to_owned()), "{line}");
}

fn check_refused(line: &str, wanted: &str) {
    let text = format!("FROM a AS other\nFROM scratch\n{line}\n");
    let errors = case(&text).errors();
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(errors[0].starts_with("3: ("), "{errors:?}");
    assert!(errors[0].contains(wanted), "{errors:?}");
}

#[test]
fn sources_and_destinations_are_expanded() {
    check("COPY a b", "copy 1:a to /w/b ON", "COPY a b # buildkit");
    check("COPY a $V/", "copy 1:a to /w/v/ ON", "COPY a v/ # buildkit");
    check("COPY $W .", "copy 1:x y to /w/ ON", "COPY x y . # buildkit");
    check(
        "COPY [\"a b\", \"/x/../y\"]",
        "copy 1:a b to /y ON",
        "COPY a b /x/../y # buildkit",
    );
    check(
        "COPY a b* /d/",
        "copy 1:a 1:b* to /d/ ON",
        "COPY a b* /d/ # buildkit",
    );
    check(
        "COPY ../a /",
        "copy 1:../a to / ON",
        "COPY ../a / # buildkit",
    );
    check("COPY a ..", "copy 1:a to / ON", "COPY a .. # buildkit");
    check(
        "COPY [\"$N\", \"x\"]",
        "copy 1:/ to /w/x ON",
        "COPY  x # buildkit",
    );
}

#[test]
fn flags_are_in_the_step_and_some_in_the_history() {
    check(
        "COPY --chown=www:$V --chmod=u=rwX,go=rX --link --exclude=*.$V --exclude=!z a b",
        "copy 1:a to /w/b Name(\"www\"):Some(Name(\"v\")) chmod u=rwX,go=rX but *.v but !z link ON",
        "COPY --chown=www:v --chmod=u=rwX,go=rX a b # buildkit",
    );
    check(
        "COPY --parents a/./b c /d",
        "copy 1:a/./b 1:c to /d parents ON",
        "COPY --parents a/./b c /d # buildkit",
    );
    check(
        "COPY --chown=$N --chmod=$N a b",
        "copy 1:a to /w/b ON",
        "COPY a b # buildkit",
    );
    check(
        "COPY --chown=12 --chmod=0755 a b",
        "copy 1:a to /w/b Id(12):None chmod 0755 ON",
        "COPY --chown=12 --chmod=0755 a b # buildkit",
    );
}

#[test]
fn add_unpacks_unless_told_not_to() {
    check(
        "ADD a.tar b",
        "copy 1:a.tar to /w/b unpack ON",
        "ADD a.tar b # buildkit",
    );
    check(
        "ADD --unpack=false a.tar b",
        "copy 1:a.tar to /w/b ON",
        "ADD a.tar b # buildkit",
    );
    check(
        "ADD --unpack=true a.tar b",
        "copy 1:a.tar to /w/b unpack ON",
        "ADD a.tar b # buildkit",
    );
}

#[test]
fn heredocs_are_sources_behind_the_paths() {
    check(
        "COPY <<EOF a \"/d/\"\nx $V \\$V 'q'\nEOF",
        "copy 1:a <<EOF \"x v $V 'q'\\n\" to /d/ ON",
        "COPY a <<EOF /d/ # buildkit",
    );
    let (step, history) = one("ADD <<'EOF' /f\nx $V\nEOF");
    assert_eq!(step, "copy <<EOF \"x $V\\n\" to /f on 1");
    assert_eq!(history, "ADD <<EOF /f # buildkit");
}

#[test]
fn sources_are_stages_images_and_contexts() {
    let text = "FROM a AS one\nRUN x\nFROM scratch\nCOPY --from=One /x /1\nCOPY --from=0 /x /2\nCOPY --from=b:1 /x /3\n\
                COPY --from=files x /4\nCOPY --from=scratch / /5\nCOPY --from=pinned / /6\n";
    let image: ImageRef = "ghcr.io/p:9".parse().unwrap();
    let case = case(text)
        .directory("files")
        .context("pinned", NamedContext::Image(image));
    assert_eq!(
        case.steps(),
        "0 base a:latest linux/amd64\n1 run [\"/bin/sh\", \"-c\", \"x\"] in / on 0\n2 scratch\n3 copy 1:/x to /1 on 2,1\n\
         4 copy 1:/x to /2 on 3,1\n5 base b:1 linux/amd64\n6 copy 1:/x to /3 on 4,5\n7 context files\n8 copy 1:x to /4 on 6,7\n\
         9 copy 1:/ to /5 on 8,2\n10 base ghcr.io/p:9 linux/amd64\n11 copy 1:/ to /6 on 9,10\n"
    );
    assert_eq!(
        case.ready().rounds,
        [[
            "a:latest linux/amd64",
            "b:1 linux/amd64",
            "ghcr.io/p:9 linux/amd64"
        ]]
    );
}

#[test]
fn several_sources_need_a_directory() {
    check_refused("COPY a b /d", "`/d` does not end in `/`; write `/d/`");
    check_refused("ADD a <<E /d\nE", "several sources");
}

#[test]
fn wrong_flags_are_told() {
    check_refused("COPY --chmod=999 a b", "`999` is not an octal mode");
    check_refused("COPY --chmod=hello a b", "`hello` is not a mode");
    check_refused("COPY --chown=12: a b", "names no group");
}

#[test]
fn what_is_not_local_is_refused() {
    check_refused(
        "COPY https://x/y /d",
        "COPY cannot fetch a URL: `https://x/y`",
    );
    check_refused("COPY git@x:y.git /d", "COPY cannot fetch a git repository");
    check_refused("ADD --keep-git-dir a /d", "needs a git repository");
    check_refused(
        "ADD --checksum=sha256:24454f830cdb571e2c4ad15481119c43b3cafd48dd869a9b2945d1036d1dc68d a /d",
        "needs a URL",
    );
}
