//! ADD of URLs and repositories, and contexts that come from elsewhere.

use super::*;

const SUM: &str = "sha256:24454f830cdb571e2c4ad15481119c43b3cafd48dd869a9b2945d1036d1dc68d";
const COMMIT: &str = "0123456789012345678901234567890123456789";

fn git(url: &str) -> NamedContext {
    NamedContext::Git(GitRef::parse(url, GitPlace::CommandLine).unwrap().unwrap())
}

/// Plans one instruction on an empty root; returns the steps after it, and the history.
fn check(line: &str, steps: &str, history: &str) {
    let text = format!("FROM scratch\nARG V=v1\n{line}\n");
    let case = case(&text);
    let planned = case.steps();
    let planned = planned.strip_prefix("0 scratch\n").unwrap();
    assert_eq!(planned.trim_end(), steps, "{line}");
    let last = case.history().lines().last().unwrap().to_owned();
    assert_eq!(last.split_once(' ').unwrap().1, history, "{line}");
}

fn check_refused(line: &str, wanted: &str) {
    let text = format!("FROM scratch\n{line}\n");
    let errors = case(&text).errors();
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(errors[0].starts_with("2: ("), "{errors:?}");
    assert!(errors[0].contains(wanted), "{errors:?}");
}

#[test]
fn what_add_fetches_is_a_source_of_its_own() {
    check(
        "ADD https://x/a.tar?v=$V /d/",
        "1 http https://x/a.tar?v=v1 as a.tar\n2 copy 1:/a.tar to /d/ on 0,1",
        "ADD https://x/a.tar?v=v1 /d/ # buildkit",
    );
    check(
        "ADD --unpack=true https://x/ /d/",
        "1 http https://x/ as __unnamed__ unpack\n2 copy 1:/__unnamed__ to /d/ on 0,1",
        "ADD https://x/ /d/ # buildkit",
    );
    check(
        "ADD https://x/%5Ba%5D* /d/",
        "1 http https://x/%5Ba%5D* as [a]*\n2 copy 1:/\\[a]\\* to /d/ on 0,1",
        "ADD https://x/%5Ba%5D* /d/ # buildkit",
    );
    check(
        "ADD --chown=1:2 --chmod=600 --exclude=*.md https://x/y.git#$V:sub /d",
        "1 git https://x/y.git dir sub\n2 copy 1:/ to /d Id(1):Some(Id(2)) chmod 600 but *.md on 0,1",
        "ADD --chown=1:2 --chmod=600 https://x/y.git#v1:sub /d # buildkit",
    );
    check(
        "ADD --keep-git-dir=true git@x:y?tag=t&submodules=false /d",
        "1 git git@x:y refs/tags/t keep alone\n2 copy 1:/ to /d on 0,1",
        "ADD git@x:y?tag=t&submodules=false /d # buildkit",
    );
    // Of a part of the files there is no history.
    check(
        "ADD https://x/y.git?keep-git-dir=true&subdir=d /d",
        "1 git https://x/y.git dir d\n2 copy 1:/ to /d on 0,1",
        "ADD https://x/y.git?keep-git-dir=true&subdir=d /d # buildkit",
    );
}

#[test]
fn sources_of_every_kind_mix_in_the_order_written() {
    check(
        "ADD a https://x/b <<E git@x:y c /d/\nhello\nE",
        "1 context\n2 http https://x/b as b\n3 git git@x:y\n4 copy 1:a 2:/b 3:/ 1:c <<E \"hello\\n\" to /d/ unpack on 0,1,2,3",
        "ADD a https://x/b git@x:y c <<E /d/ # buildkit",
    );
    check_refused("ADD https://x/a https://x/b /d", "does not end in `/`");
}

#[test]
fn only_needed_stages_fetch_and_variables_of_bases_count() {
    let text = "FROM a AS unused\nADD https://x/unused /\nFROM b\nADD https://x/$V git@x:y#main /d/\nADD https://x/$V /e";
    let plan = case(text)
        .image("b", |config| config.env = vec!["V=v2".to_owned()])
        .ready();
    assert_eq!(
        plan.rounds,
        [
            vec!["b:latest linux/amd64"],
            vec!["http https://x/v2", "git git@x:y main"]
        ]
        .map(|round| round.into_iter().map(str::to_owned).collect::<Vec<_>>())
    );
}

#[test]
fn checksums_are_of_one_source_and_of_its_kind() {
    let http = |checksum: &str| format!("ADD --checksum={checksum} https://x/a /d");
    assert!(
        case(&format!("FROM scratch\nARG S={SUM}\n{}", http("$S")))
            .plan()
            .is_ok()
    );
    // As if it were not given.
    assert!(
        case(&format!("FROM scratch\n{}", http("$NONE")))
            .plan()
            .is_ok()
    );
    check_refused(&http("sha512:00"), "`sha512` is not supported");
    check_refused(&http("abc"), "the value of `--checksum` is wrong");
    check_refused(
        &format!("ADD --checksum={SUM} https://x/a https://x/b /d/"),
        "takes one source",
    );
    check_refused(
        &format!("ADD --checksum={SUM} a /d"),
        "needs a URL or a git repository",
    );
    check_refused(
        &format!("ADD --checksum={SUM} https://x/y.git /d"),
        "no commit ID",
    );
    check_refused(
        &format!("ADD --checksum={COMMIT} https://x/y.git?commit=abcdef0 /d"),
        "say different things",
    );
    let git = format!("FROM scratch\nADD --checksum=0123456 https://x/y.git?commit={COMMIT} /d");
    assert_eq!(case(&git).errors().len(), 1);
}

#[test]
fn mistakes_in_names_of_repositories_are_told_in_place() {
    check_refused(
        "ADD https://x/y.git?ref=a&tag=b /d",
        "two references are named",
    );
    check_refused(
        "ADD https://u:hunter2@x/y.git?odd=1 /d",
        "`https://x/y.git`; the part `odd`",
    );
    check_refused(
        "ADD git@x:y#--upload-pack=z /d",
        "cannot be the name of a branch",
    );
    check_refused(
        "ADD --keep-git-dir=true git@x:y?keep-git-dir=0 /d",
        "say different things",
    );
    check_refused(
        "ADD --keep-git-dir https://x/y /d",
        "needs a git repository",
    );
    check_refused("COPY git@x:y /d", "COPY cannot fetch a git repository");
    // Repositories of this machine are none of a Dockerfile's.
    check(
        "ADD file:///x/y.git /d",
        "1 context\n2 copy 1:file:///x/y.git to /d unpack on 0,1",
        "ADD file:///x/y.git /d # buildkit",
    );
}

#[test]
fn the_main_context_may_be_a_commit_or_a_file() {
    let text = "FROM scratch\nCOPY a /b\nADD c /d";
    assert_eq!(
        case(text).main("https://x/y.git#v1:s").steps(),
        "0 scratch\n1 git https://x/y.git dir s\n2 copy 1:a to /b on 0,1\n3 copy 1:c to /d unpack on 2,1\n"
    );
    assert_eq!(
        case("FROM scratch\nCOPY context /b")
            .main("https://x/y")
            .steps(),
        "0 scratch\n1 http https://x/y as context\n2 copy 1:context to /b on 0,1\n"
    );
    let keep = |case: Case<'_>| case.arg("BUILDKIT_CONTEXT_KEEP_GIT_DIR", "1").warnings();
    assert_eq!(keep(case(text)).len(), 1);
    assert!(keep(case(text).main("https://x/y.git")).is_empty());
}

#[test]
fn named_contexts_of_every_kind_take_their_name() {
    let text = "FROM a AS a1\nFROM scratch\nCOPY --from=a x /y\n";
    assert_eq!(
        case(text).context("a", git("https://x/y.git")).steps(),
        "0 scratch\n1 git https://x/y.git\n2 copy 1:x to /y on 0,1\n"
    );
    assert_eq!(
        case(text)
            .context("a", NamedContext::Http("https://x/y.tar".to_owned()))
            .steps(),
        "0 scratch\n1 http https://x/y.tar as context\n2 copy 1:x to /y on 0,1\n"
    );
    assert_eq!(
        case(text)
            .context("a", NamedContext::Image("scratch".parse().unwrap()))
            .steps(),
        "0 scratch\n1 copy 1:x to /y on 0,0\n"
    );
    let platforms = case(text)
        .context("a", git("https://x/any.git"))
        .context("a::linux/arm64", git("https://x/arm.git"));
    assert!(platforms.steps().contains("any.git"));
    assert!(
        platforms
            .platforms(&["linux/arm64"])
            .steps()
            .contains("arm.git")
    );
    // As the base of a stage its files are the root.
    assert_eq!(
        case("FROM a").context("a", git("https://x/y.git")).steps(),
        "0 scratch\n1 git https://x/y.git\n2 copy 1:/ to / on 0,1\n"
    );
}

#[test]
fn a_stage_may_take_a_name() {
    let text = "FROM one AS lib\nRUN make\nFROM alpine\nRUN use\nFROM scratch AS other\nCOPY --from=alpine /x /";
    let with =
        |name: &str, stage: &str| case(text).context(name, NamedContext::Stage(stage.to_owned()));
    assert_eq!(
        with("alpine", "lib")
            .steps()
            .lines()
            .map(|line| &line[..5])
            .collect::<Vec<_>>(),
        ["0 bas", "1 run", "2 scr", "3 cop"]
    );
    // In the place of a stage: its instructions are not carried out.
    let replaced = "FROM one AS lib\nRUN make\nFROM two AS mid\nRUN never\nFROM mid\nRUN last";
    let steps = case(replaced)
        .context("mid", NamedContext::Stage("LIB".to_owned()))
        .steps();
    assert!(
        !steps.contains("never") && steps.contains("make") && steps.contains("last"),
        "{steps}"
    );
    let errors = with("alpine", "other").errors();
    assert!(
        errors[0].contains("`target:other`, and no stage before"),
        "{errors:?}"
    );
    let errors = with("alpine", "libb").errors();
    assert!(
        errors[0].contains("did you mean `target:lib`?"),
        "{errors:?}"
    );
}

#[test]
fn the_epoch_can_be_that_of_a_context_or_of_a_stage_that_only_fetches() {
    let epoch = |case: &Case| case.ready().graph.epoch;
    let named = |context: NamedContext| {
        let mut case = case("ARG SOURCE_DATE_EPOCH=src\nFROM scratch\n");
        case.contexts = vec![("src".to_owned(), context)];
        case
    };
    let repository = named(git("https://x/y.git"));
    assert_eq!(epoch(&repository), Some(11));
    assert_eq!(
        repository.ready().rounds,
        [["git https://x/y.git -"], ["time of https://x/y.git"]]
    );
    let url = named(NamedContext::Http("https://x/a".to_owned()));
    assert_eq!(epoch(&url), Some(7));
    let directory = named(NamedContext::Directory("/".into()));
    assert_eq!(epoch(&directory), None);

    let stage = |stage: &str| {
        format!("ARG SOURCE_DATE_EPOCH=Src\nFROM scratch AS src\n{stage}\nFROM scratch\nCOPY f /\n")
    };
    for (lines, expected) in [
        ("ADD https://x/a /", Some(7)),
        ("ARG V=1\nADD https://x/y.git#v$V /", Some(11)),
    ] {
        let text = stage(lines);
        let planned = case(&text).ready();
        assert_eq!(planned.graph.epoch, expected, "{lines}");
        // What is fetched for its time alone is no step.
        assert_eq!(planned.graph.steps.len(), 3, "{:?}", planned.graph.steps);
    }
    for lines in [
        "",
        "ADD f /",
        "ADD https://x/a /\nADD https://x/b /",
        "COPY f /",
        "ADD https://x/a /\nRUN x",
    ] {
        let text = stage(lines);
        let errors = case(&text).errors();
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(
            errors[0].contains("stage `src` cannot give `SOURCE_DATE_EPOCH`"),
            "{errors:?}"
        );
    }
    let text = stage("ADD https://x/a /").replace("FROM scratch AS src", "FROM a AS src");
    let errors = case(&text).errors();
    assert!(errors[0].contains("to scratch"), "{errors:?}");
}
