//! The language as cases: `testdata/dockerfile/*.txt`, one file per section, one test per case.
//!
//! A harness of its own, so that each case is a test by its name: `cargo test --test conformance NAME` performs those whose name
//! contains the word. With `BUILDER_TEST_BLESS=1` listings that differ are written into the files instead, and `docs/dockerfile.md`
//! is written anew.

#[path = "../support/mod.rs"]
#[allow(dead_code, reason = "each test program uses its part")]
mod support;

mod case;
mod listing;
mod perform;
mod serve;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use case::{Case, Section};
use perform::{Blessed, Shared};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn main() -> ExitCode {
    let asked = Asked::read();
    let files = read_files();
    let suite = Suite {
        files: &files,
        is_blessed: std::env::var_os("BUILDER_TEST_BLESS").is_some_and(|value| value == "1"),
        blessed: Mutex::default(),
    };
    let tests = suite.tests();
    let tests: Vec<&Test> = tests
        .iter()
        .filter(|test| asked.wants(&test.name()))
        .collect();
    if asked.list {
        for test in &tests {
            say(&format!("{}: test", test.name()));
        }
        return ExitCode::SUCCESS;
    }
    say(&format!("\nrunning {} tests", tests.len()));
    let failures = run(&suite, &tests);
    suite.write_blessed();
    for (name, why) in &failures {
        say(&format!("\n---- {name} ----\n{why}"));
    }
    let (failed, passed) = (failures.len(), tests.len() - failures.len());
    let result = if failed == 0 { "ok" } else { "FAILED" };
    say(&format!(
        "\ntest result: {result}. {passed} passed; {failed} failed; 0 ignored; 0 measured; 0 filtered out\n"
    ));
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(101)
    }
}

/// What the command line asks for, in the words of the usual harness.
#[derive(Default)]
struct Asked {
    list: bool,
    exact: bool,
    ignored: bool,
    skip: Vec<String>,
    filters: Vec<String>,
}

impl Asked {
    fn read() -> Asked {
        let mut asked = Asked::default();
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--list" => asked.list = true,
                "--exact" => asked.exact = true,
                "--ignored" => asked.ignored = true,
                "--skip" => asked.skip.extend(args.next()),
                "--test-threads" | "--format" | "--color" | "--logfile" => drop(args.next()),
                flag if flag.starts_with('-') => {}
                _ => asked.filters.push(arg),
            }
        }
        asked
    }

    fn wants(&self, name: &str) -> bool {
        let is_named = |filter: &String| match self.exact {
            true => name == filter,
            false => name.contains(filter.as_str()),
        };
        let is_chosen = self.filters.is_empty() || self.filters.iter().any(is_named);
        is_chosen && !self.ignored && !self.skip.iter().any(is_named)
    }
}

/// A file of cases.
struct CaseFile {
    path: PathBuf,
    text: String,
    section: Result<Section, String>,
    shared: Shared,
}

fn read_files() -> Vec<CaseFile> {
    let folder = Path::new(ROOT).join("testdata/dockerfile");
    let mut paths: Vec<PathBuf> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    // By number: 3.10 comes after 3.9.
    paths.sort_by_key(|path| numbers(path));
    paths
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            CaseFile {
                section: case::parse(&text),
                shared: Shared::default(),
                path,
                text,
            }
        })
        .collect()
}

fn numbers(path: &Path) -> Vec<u32> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let number = name.split('-').next().unwrap_or_default();
    number
        .split('.')
        .filter_map(|part| part.parse().ok())
        .collect()
}

struct Suite<'a> {
    files: &'a [CaseFile],
    is_blessed: bool,
    blessed: Mutex<BTreeMap<PathBuf, Blessed>>,
}

enum Test<'a> {
    Case(&'a CaseFile, &'a Case),
    /// A check of the suite itself.
    Check(&'static str, fn(&Suite<'_>)),
}

impl Test<'_> {
    fn name(&self) -> String {
        match self {
            Test::Case(file, case) => {
                let section = file.path.file_stem().unwrap_or_default().to_string_lossy();
                format!("{section}::{}", case.name)
            }
            Test::Check(name, _) => format!("suite::{name}"),
        }
    }
}

impl Suite<'_> {
    fn tests(&self) -> Vec<Test<'_>> {
        let mut tests = vec![
            Test::Check("every_file_can_be_read", |suite| suite.is_readable()),
            Test::Check("what_is_not_known_is_refused", |_| {
                case::refuses_what_it_does_not_know();
            }),
            Test::Check("what_is_given_is_served", |_| {
                serve::serves_what_it_is_given()
            }),
            Test::Check("the_page_says_what_the_cases_say", |suite| {
                suite.page_is_fresh()
            }),
        ];
        for file in self.files {
            let cases = file.section.iter().flat_map(|section| &section.cases);
            tests.extend(cases.map(|case| Test::Case(file, case)));
        }
        tests
    }

    fn is_readable(&self) {
        let mut names = BTreeSet::new();
        let mut wrong = Vec::new();
        for file in self.files {
            match &file.section {
                Err(why) => wrong.push(format!("{}:{why}", file.path.display())),
                Ok(section) => {
                    let twice = section
                        .cases
                        .iter()
                        .filter(|case| !names.insert(&case.name));
                    wrong.extend(twice.map(|case| {
                        format!(
                            "{}:{}: `{}` is taken",
                            file.path.display(),
                            case.line,
                            case.name
                        )
                    }));
                }
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    fn page_is_fresh(&self) {
        let (page, path) = self.page();
        let is_fresh = fs::read_to_string(&path).is_ok_and(|now| now == page);
        assert!(
            self.is_blessed || is_fresh,
            "docs/dockerfile.md is not what the cases say: BUILDER_TEST_BLESS=1 cargo test --test conformance page"
        );
    }

    fn page(&self) -> (String, PathBuf) {
        let sections: Vec<&Section> = self.files.iter().flat_map(|file| &file.section).collect();
        let path = Path::new(ROOT).join("docs/dockerfile.md");
        (table::page(&sections), path)
    }

    fn perform(&self, test: &Test<'_>) {
        match test {
            Test::Check(_, check) => check(self),
            Test::Case(file, case) => {
                let blessed = perform::perform(case, &file.shared, self.is_blessed);
                if !blessed.is_empty() {
                    let mut all = self.blessed.lock().unwrap();
                    all.entry(file.path.clone()).or_default().extend(blessed);
                }
            }
        }
    }

    /// Writes what was asked for with `BUILDER_TEST_BLESS=1`: the page, and the listings that differ.
    fn write_blessed(&self) {
        if !self.is_blessed {
            return;
        }
        let (page, path) = self.page();
        fs::write(path, page).unwrap();
        let blessed = std::mem::take(&mut *self.blessed.lock().unwrap());
        for (path, blocks) in blessed {
            let file = self.files.iter().find(|file| file.path == path);
            let file = file.expect("the file that the case is from");
            fs::write(&path, table::rewritten(&file.text, blocks)).unwrap();
        }
    }
}

/// Runs the tests on as many threads as there are processors; returns those that failed, in their order.
fn run(suite: &Suite<'_>, tests: &[&Test<'_>]) -> Vec<(String, String)> {
    // What a test says when it panics is told at the end.
    let said = Mutex::new(BTreeMap::<String, String>::new());
    let next = AtomicUsize::new(0);
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let usual = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(test) = tests.get(next.fetch_add(1, Ordering::SeqCst)) {
                    let name = test.name();
                    // A thread of its own, for its name.
                    let result = std::thread::scope(|scope| {
                        std::thread::Builder::new()
                            .name(name.clone())
                            .spawn_scoped(scope, || {
                                panic::catch_unwind(AssertUnwindSafe(|| suite.perform(test)))
                            })
                            .expect("a thread")
                            .join()
                            .expect("panics are caught")
                    });
                    match result {
                        Ok(()) => say(&format!("test {name} ... ok")),
                        Err(panic) => {
                            say(&format!("test {name} ... FAILED"));
                            said.lock().unwrap().insert(name, text_of(panic.as_ref()));
                        }
                    }
                }
            });
        }
    });
    panic::set_hook(usual);
    let mut said = said.into_inner().unwrap();
    tests
        .iter()
        .filter_map(|test| said.remove_entry(&test.name()))
        .collect()
}

fn text_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    text.unwrap_or_else(|| "a panic without words".to_owned())
}

#[expect(clippy::print_stdout, reason = "a test harness reports there")]
fn say(line: &str) {
    println!("{line}");
}
