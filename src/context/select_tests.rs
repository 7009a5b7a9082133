//! Tests of the module beside.

use std::fmt::Write as _;

use super::*;
use crate::context::testing::{deep_directory, plant, plant_bytes, plant_deep, remove_deep};

struct Case<'a> {
    tree: &'a str,
    ignore: &'a str,
    parents: bool,
    exclude: &'a [&'a str],
}

const PLAIN: Case<'_> = Case {
    tree: "",
    ignore: "",
    parents: false,
    exclude: &[],
};

impl Case<'_> {
    /// Shows each root as `PATH` or `PATH/`, with `as NAME` where the name is not the path's last component, and with
    /// `via TARGET<SOURCE…` for parents; then an indented line per entry of a directory.
    fn check(&self, pattern: &str, expected: &str) {
        let temp = tempfile::tempdir().unwrap();
        plant(temp.path(), self.tree);
        let found = self.run(temp.path(), pattern);
        assert_eq!(found.trim_end(), expected, "{pattern}");
    }

    fn run(&self, root: &std::path::Path, pattern: &str) -> String {
        let ignore = match self.ignore {
            "" => None,
            text => Some(IgnorePatterns::parse(text).unwrap()),
        };
        let source = Source::directory(root, ignore)
            .unwrap()
            .with_ignore_text(self.ignore.to_owned());
        let exclude: Vec<String> = self.exclude.iter().map(|text| text.to_string()).collect();
        let query = Query {
            pattern,
            parents: self.parents,
            exclude: &exclude,
        };
        let selection = match select(&source, &query) {
            Ok(selection) => selection,
            Err(SelectError::NotFound {
                path,
                excluded_by,
                similar,
            }) => return format!("not found: {path} {excluded_by:?} {similar:?}"),
            Err(SelectError::BadPattern(_)) => return "bad pattern".to_owned(),
            Err(error) => return format!("error: {error}"),
        };
        let mut text = String::new();
        for root in &selection.roots {
            write!(text, "{}", root.path.escape_ascii()).unwrap();
            if root.is_directory {
                text.push('/');
            }
            if root.path.rsplit(|&byte| byte == b'/').next().unwrap() != root.name {
                write!(text, " as {}", root.name.escape_ascii()).unwrap();
            }
            for parent in &root.parents {
                let target = String::from_utf8_lossy(&parent.target);
                let source = String::from_utf8_lossy(&parent.source);
                write!(text, " via {target}<{source}").unwrap();
            }
            text.push('\n');
            if root.is_directory {
                let mut walk = selection.walk(&source, root).unwrap();
                while let Some(visit) = walk.next().unwrap() {
                    let (node, end) = match visit {
                        Visit::Enter { node, directory } => (
                            node,
                            if directory.is_some() {
                                "/"
                            } else {
                                "/ implied"
                            },
                        ),
                        Visit::Leaf(node) => (node, ""),
                        Visit::Leave => continue,
                    };
                    writeln!(text, "  {}{end}", node.path.escape_ascii()).unwrap();
                }
            }
        }
        text
    }
}

const TREE: &str = "
    file a.txt
    file b.txt
    file .hidden
    file d/one
    file d/sub/two
    file e/one
    file a*b
";

#[test]
fn paths_are_relative_to_the_root_and_cannot_leave_it() {
    let case = Case {
        tree: TREE,
        ..PLAIN
    };
    for pattern in [
        "a.txt",
        "/a.txt",
        "./a.txt",
        "../a.txt",
        "../../../a.txt",
        "/../a.txt",
        "d/../a.txt",
        "d/../../a.txt",
        "//a.txt",
        "missing/../a.txt",
        "a.txt/",
    ] {
        case.check(pattern, "a.txt");
    }
    for pattern in ["", ".", "/", "..", "./", "d/.."] {
        let tree = Case {
            tree: "file x",
            ..PLAIN
        };
        tree.check(pattern.replace("d/..", "y/..").as_str(), "/\n  x");
    }
}

#[test]
fn a_directory_stands_for_its_contents() {
    let case = Case {
        tree: TREE,
        ..PLAIN
    };
    for pattern in ["d", "d/", "/d", "./d/."] {
        case.check(pattern, "d/\n  one\n  sub/\n  sub/two");
    }
    case.check("[d-e]", "d/\n  one\n  sub/\n  sub/two\ne/\n  one");
}

#[test]
fn wildcards_match_within_components_and_dotfiles_too() {
    let case = Case {
        tree: TREE,
        ..PLAIN
    };
    case.check("*.txt", "a.txt\nb.txt");
    case.check("?.txt", "a.txt\nb.txt");
    case.check("[b-z].txt", "b.txt");
    case.check("/*.txt", "a.txt\nb.txt");
    case.check("../*.txt", "a.txt\nb.txt");
    case.check("*hid*", ".hidden");
    case.check("*/one", "d/one\ne/one");
    case.check("*/*/two", "d/sub/two");
    case.check("d/*/two", "d/sub/two");
    case.check("d/s*", "d/sub/\n  two");
    // No `**` without --parents: it is `*`.
    case.check("**/two", "");
    case.check("**/one", "d/one\ne/one");
    let order = Case {
        tree: "file a-b/x\nfile a/x\nfile a.b/x",
        ..PLAIN
    };
    order.check("*/x", "a/x\na-b/x\na.b/x");
}

#[test]
fn a_backslash_escapes_a_wildcard() {
    let case = Case {
        tree: TREE,
        ..PLAIN
    };
    case.check("a\\*b", "a*b");
    case.check("a\\*?", "a*b");
    let case = Case {
        tree: "file a\\b\nfile c",
        ..PLAIN
    };
    case.check("a\\b", "a\\\\b");
    case.check("\\c", "c");
}

#[test]
fn a_wildcard_may_match_nothing_but_a_name_may_not() {
    let case = Case {
        tree: TREE,
        ..PLAIN
    };
    case.check("*.zip", "");
    case.check("missing/*", "");
    case.check("a.txt/*", "");
    case.check("*/missing", "");
    case.check("missing", "not found: missing None None");
    case.check("d/missing/x", "not found: d/missing/x None None");
    case.check("a.txt/x", "not found: a.txt/x None None");
    case.check("[", "bad pattern");
}

#[test]
fn a_close_name_is_suggested() {
    let case = Case {
        tree: "file README.md\nfile src/main.rs\nfile go.mod",
        ..PLAIN
    };
    case.check("readme.md", "not found: readme.md None Some(\"README.md\")");
    case.check(
        "src/mian.rs",
        "not found: src/mian.rs None Some(\"src/main.rs\")",
    );
    case.check("Src/main.rs", "not found: Src/main.rs None Some(\"src\")");
    case.check("go.sum", "not found: go.sum None None");
    case.check("zzz", "not found: zzz None None");
}

#[test]
fn links_on_the_way_and_at_the_end_are_followed_inside_the_root() {
    let case = Case {
        tree: "
            file d/f
            file d/sub/g
            link l -> d
            link lf -> d/f
            link d/abs -> /d/sub
            link up -> ../../../d/f
            link out -> /etc/passwd
            link chain -> l/abs/../f
            link dangling -> nowhere
            link loop -> loop2
            link loop2 -> loop
            link dots -> .
        ",
        ..PLAIN
    };
    case.check("lf", "d/f as lf");
    case.check("l/f", "d/f");
    case.check("l", "d/ as l\n  abs\n  f\n  sub/\n  sub/g");
    case.check("d/abs", "d/sub/ as abs\n  g");
    case.check("l/abs/g", "d/sub/g");
    case.check("up", "d/f as up");
    case.check("chain", "d/f as chain");
    case.check("dots/dots/d/f", "d/f");
    case.check("out", "not found: out None None");
    case.check("dangling", "not found: dangling None None");
    case.check("loop", "error: too many symbolic links in `loop`");
    case.check("lf/x", "not found: lf/x None None");
    // With a wildcard too, under the link's own name; one that dangles is an error there as well.
    case.check("lf*", "d/f as lf");
    case.check("l*f", "d/f as lf");
    case.check("dang*", "not found: dangling None None");
    case.check("loop?", "error: too many symbolic links in `loop2`");
    // Only the match itself: directories on a wildcard's way are real ones.
    case.check("*/f", "d/f");
    case.check("l/s*", "d/sub/\n  g");
}

#[test]
fn an_excluded_path_is_not_found_and_says_by_which_line() {
    let case = Case {
        tree: "file a\nfile d/x\nfile d/y\nlink l -> a\nlink k -> d/x\nfile keep/x\nfile node/z",
        ignore: "# first\nd/x\n!nothing\nl\nnode\n",
        ..PLAIN
    };
    case.check("a", "a");
    case.check("d/x", "not found: d/x Some((2, \"d/x\")) None");
    case.check("d", "d/\n  y");
    case.check("d/*", "d/y");
    // The link is taken out, not its target; and a target that is out is out for its link as well.
    case.check("l", "not found: l Some((4, \"l\")) None");
    case.check("k", "not found: k Some((2, \"d/x\")) None");
    case.check("node/z", "not found: node/z Some((5, \"node\")) None");
    case.check("node", "not found: node Some((5, \"node\")) None");
    case.check("nod*", "");
    case.check("nod*/z", "");
}

#[test]
fn ignored_directories_come_back_with_what_is_below() {
    let tree = "file c/f/g.txt\nfile c/f/h.txt\nfile c/k\nfile other/x\nfile empty/x";
    let case = Case {
        tree,
        ignore: "**\n!c/f/g.txt",
        ..PLAIN
    };
    case.check(".", "/\n  c/ implied\n  c/f/ implied\n  c/f/g.txt");
    case.check("c", "c/\n  f/ implied\n  f/g.txt");
    case.check("c/f/g.txt", "c/f/g.txt");
    case.check("*", "c/\n  f/ implied\n  f/g.txt");
    case.check("other", "not found: other Some((1, \"**\")) None");
    let case = Case {
        tree,
        ignore: "**\n!c/f/g.txt",
        parents: true,
        ..PLAIN
    };
    case.check("?", "c/ via c<c\n  f/ implied\n  f/g.txt");
    case.check("**/f", "c/f/ via c<c via c/f<c/f\n  g.txt");
    case.check("*/f/*", "c/f/g.txt via c<c via c/f<c/f");
    let case = Case {
        tree,
        ignore: "*\n!c\nc/f",
        ..PLAIN
    };
    case.check(".", "/\n  c/\n  c/k");
    // All children are excluded, the directory is not: it stays, empty.
    let case = Case {
        tree,
        ignore: "empty/*\nother/**\nc",
        ..PLAIN
    };
    case.check(".", "/\n  empty/\n  other/");
}

#[test]
fn the_ignore_file_and_the_dockerfile_are_ordinary_files() {
    let case = Case {
        tree: "file .dockerignore\nfile Dockerfile",
        ignore: "x",
        ..PLAIN
    };
    case.check(".", "/\n  .dockerignore\n  Dockerfile");
    let case = Case {
        tree: "file .dockerignore\nfile Dockerfile",
        ignore: ".dockerignore\nDockerfile",
        ..PLAIN
    };
    case.check(".", "/");
}

#[test]
fn exclude_is_relative_to_what_is_copied() {
    let tree =
        "file d/a.png\nfile d/b.txt\nfile d/s/c.png\nfile d/s/t/e.png\nfile x.png\nfile x.txt";
    let case = Case {
        tree,
        exclude: &["*.png"],
        ..PLAIN
    };
    case.check("d", "d/\n  b.txt\n  s/\n  s/c.png\n  s/t/\n  s/t/e.png");
    case.check("x*", "x.txt");
    case.check("x.png", "");
    case.check(
        "*",
        "d/\n  b.txt\n  s/\n  s/c.png\n  s/t/\n  s/t/e.png\nx.txt",
    );
    // A directory that matches no pattern stays, empty.
    let case = Case {
        tree,
        exclude: &["**/*.png"],
        ..PLAIN
    };
    case.check("d", "d/\n  b.txt\n  s/\n  s/t/");
    let case = Case {
        tree,
        exclude: &["*", "!s/c.png"],
        ..PLAIN
    };
    case.check("d", "d/\n  s/ implied\n  s/c.png");
    let case = Case {
        tree,
        exclude: &["d/a.png", "s", "b.txt"],
        ..PLAIN
    };
    case.check("d", "d/\n  a.png");
    let case = Case {
        tree,
        exclude: &["["],
        ..PLAIN
    };
    case.check("x.txt", "bad pattern");
}

#[test]
fn parents_keep_the_path_below_the_pivot() {
    let case = Case {
        tree: "
            file t/a/b/c/d/foo
            file t/a/b/c/d/e/bay
            file t/a/b2/c/d/e/bar
            file t/a/b/c2/d/e/baz
            file x.txt
            link l -> t/a/b
            link lx -> x.txt
        ",
        parents: true,
        ..PLAIN
    };
    case.check("x.txt", "x.txt");
    case.check("t/a/b/c/d/foo", "t/a/b/c/d/foo via t<t via t/a<t/a via t/a/b<t/a/b via t/a/b/c<t/a/b/c via t/a/b/c/d<t/a/b/c/d");
    let contents = "\n  e/\n  e/bay\n  foo";
    case.check(
        "/t/a/b/./c/d",
        &format!("t/a/b/c/d/ via c<t/a/b/c via c/d<t/a/b/c/d{contents}"),
    );
    // The first pivot counts; one at an end is none.
    case.check(
        "t/a/b/./c/./d",
        &format!("t/a/b/c/d/ via c<t/a/b/c via c/d<t/a/b/c/d{contents}"),
    );
    case.check(
        "./t/a/b/c/d/.",
        &format!("t/a/b/c/d/ via t<t via t/a<t/a via t/a/b<t/a/b via t/a/b/c<t/a/b/c via t/a/b/c/d<t/a/b/c/d{contents}"),
    );
    case.check(
        "t/a/b*/./c/**/e",
        "t/a/b/c/d/e/ via c<t/a/b/c via c/d<t/a/b/c/d via c/d/e<t/a/b/c/d/e\n  bay\nt/a/b2/c/d/e/ via c<t/a/b2/c via c/d<t/a/b2/c/d via c/d/e<t/a/b2/c/d/e\n  bar",
    );
    case.check("t/./**/ba?", "t/a/b/c/d/e/bay via a<t/a via a/b<t/a/b via a/b/c<t/a/b/c via a/b/c/d<t/a/b/c/d via a/b/c/d/e<t/a/b/c/d/e\nt/a/b/c2/d/e/baz via a<t/a via a/b<t/a/b via a/b/c2<t/a/b/c2 via a/b/c2/d<t/a/b/c2/d via a/b/c2/d/e<t/a/b/c2/d/e\nt/a/b2/c/d/e/bar via a<t/a via a/b2<t/a/b2 via a/b2/c<t/a/b2/c via a/b2/c/d<t/a/b2/c/d via a/b2/c/d/e<t/a/b2/c/d/e");
    case.check("**/x.txt", "x.txt");
    case.check(
        "t/a/./b2/**",
        "t/a/b2/ via b2<t/a/b2\n  c/\n  c/d/\n  c/d/e/\n  c/d/e/bar",
    );
    case.check(
        "t/a/b2/./.",
        "t/a/b2/ as \n  c/\n  c/d/\n  c/d/e/\n  c/d/e/bar",
    );
    // `*` stays in its component.
    case.check("t/a/./*/e", "");
    // Links are followed here as well, and keep their names below the destination.
    case.check("l/c2/d/e/baz", "t/a/b/c2/d/e/baz via l<t/a/b via l/c2<t/a/b/c2 via l/c2/d<t/a/b/c2/d via l/c2/d/e<t/a/b/c2/d/e");
    case.check("lx", "x.txt as lx");
    case.check("l*", "t/a/b/ as l via l<t/a/b\n  c/\n  c/d/\n  c/d/e/\n  c/d/e/bay\n  c/d/foo\n  c2/\n  c2/d/\n  c2/d/e/\n  c2/d/e/baz\nx.txt as lx");
    // A plain name must exist, a wildcard need not.
    case.check("missing", "not found: missing None None");
    case.check("t/./missing", "not found: t/./missing None None");
    case.check("gone/./x", "not found: gone/./x None None");
    case.check("x.txt/./y", "not found: x.txt/./y None None");
    case.check(
        "t/a/b*/./c2",
        "t/a/b/c2/ via c2<t/a/b/c2\n  d/\n  d/e/\n  d/e/baz",
    );
    case.check("t/miss*", "");
    case.check("gone/*", "");
    case.check("**/zip", "");
    case.check("a/[", "bad pattern");
}

#[test]
fn exclude_with_parents_is_relative_to_the_pivot() {
    let case = Case {
        tree: "file p/a/x.txt\nfile p/a/y.txt\nfile p/b/x.txt",
        parents: true,
        exclude: &["a/x.txt", "b"],
        ..PLAIN
    };
    case.check("p/./*", "p/a/ via a<p/a\n  y.txt");
    case.check("p/./a", "p/a/ via a<p/a\n  y.txt");
    case.check("p/./**/*.txt", "p/a/y.txt via a<p/a");
    case.check("p/./b", "");
    case.check("p/./a/x.txt", "");
}

#[test]
fn a_directory_that_matters_to_nobody_is_not_opened() {
    use std::os::unix::fs::PermissionsExt;

    // Root may open anything: only other users see a failure here.
    let temp = tempfile::tempdir().unwrap();
    plant(temp.path(), "dir closed\nfile open/a.txt\nfile b.txt");
    let mode = |mode| PermissionsExt::from_mode(mode);
    std::fs::set_permissions(temp.path().join("closed"), mode(0)).unwrap();
    assert_eq!(PLAIN.run(temp.path(), "*.txt"), "b.txt\n");
    assert_eq!(PLAIN.run(temp.path(), "o*/*.txt"), "open/a.txt\n");
    std::fs::set_permissions(temp.path().join("closed"), mode(0o700)).unwrap();
}

#[test]
fn names_that_are_no_text_or_hold_newlines_are_found() {
    let temp = tempfile::tempdir().unwrap();
    plant_bytes(temp.path(), b"new\nline", "1");
    plant_bytes(temp.path(), b"\xff\xfe", "2");
    plant_bytes(temp.path(), "größe".as_bytes(), "3");
    assert_eq!(
        PLAIN.run(temp.path(), "*"),
        "gr\\xc3\\xb6\\xc3\\x9fe\nnew\\nline\n\\xff\\xfe\n"
    );
    assert_eq!(
        PLAIN.run(temp.path(), "gr\u{f6}?e"),
        "gr\\xc3\\xb6\\xc3\\x9fe\n"
    );
    assert_eq!(PLAIN.run(temp.path(), "größe"), "gr\\xc3\\xb6\\xc3\\x9fe\n");
}

#[test]
fn a_tree_five_thousand_deep_is_walked() {
    let temp = deep_directory();
    plant_deep(temp.path(), 5000);
    let source = Source::directory(temp.path(), None).unwrap();
    let query = Query {
        pattern: ".",
        parents: false,
        exclude: &[],
    };
    let selection = select(&source, &query).unwrap();
    let mut walk = selection.walk(&source, &selection.roots[0]).unwrap();
    let (mut entered, mut left, mut leaves) = (0, 0, 0);
    while let Some(visit) = walk.next().unwrap() {
        match visit {
            Visit::Enter { .. } => entered += 1,
            Visit::Leave => left += 1,
            Visit::Leaf(_) => leaves += 1,
        }
    }
    assert_eq!((entered, left, leaves), (5000, 5000, 1));
    remove_deep(&temp.path().join("d"));
}

#[test]
fn a_fifo_or_socket_on_the_way_is_not_opened() {
    let case = Case {
        tree: "fifo p\nsocket s\nfile f",
        ..PLAIN
    };
    case.check("p", "p");
    case.check("s", "s");
    case.check("*", "f\np\ns");
    case.check("p/x", "not found: p/x None None");
}

#[test]
fn list_shows_everything_that_is_in() {
    let temp = tempfile::tempdir().unwrap();
    plant(temp.path(), "file a/b\nfile a/c\nfile d\nfile out/x");
    let ignore = IgnorePatterns::parse("a/b\nout").unwrap();
    let source = Source::directory(temp.path(), Some(ignore)).unwrap();
    let paths: Vec<String> = crate::context::list(&source)
        .map(|path| String::from_utf8(path.unwrap()).unwrap())
        .collect();
    assert_eq!(paths, ["a/", "a/c", "d"]);
}
