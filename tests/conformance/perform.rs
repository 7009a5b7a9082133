//! One case from its folder to what is wrong with it.
//!
//! In: a case, and the laboratory of its section. Out: nothing, or a panic with everything that differs; with blessing, the lines
//! to write in place of those that differ. A case has a folder of its own. It shares its section's state directory, unless it is
//! about what is in the cache already or brings images of its own.

use std::fs;
use std::ops::Range;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::case::{Block, Case};
use crate::listing::Built;
use crate::serve::{Server, repository, shell};
use crate::support::image::Image;
use crate::support::lab::{Lab, Ran, base_tar};
use crate::support::power;

/// A state directory, and the small root in it once a case names it.
#[derive(Default)]
pub(crate) struct Shared {
    lab: OnceLock<Lab>,
    machine: OnceLock<Image>,
}

/// What blessing found: lines of the file and what belongs there.
pub(crate) type Blessed = Vec<(Range<usize>, Vec<String>)>;

impl Shared {
    fn lab(&self) -> &Lab {
        self.lab.get_or_init(Lab::new)
    }

    fn machine(&self) -> &Image {
        self.machine.get_or_init(|| {
            for (tar, name) in [(base_tar(), "bare"), (machine_tar(), "machine")] {
                let ran = self.lab().builder(&["import", tar.to_str().unwrap(), name]);
                ran.succeeds();
            }
            self.lab().saved("machine")
        })
    }
}

/// A tar of the small root with the directories that the first RUN on it would leave: they would be in every listing.
fn machine_tar() -> &'static Path {
    static TAR: OnceLock<PathBuf> = OnceLock::new();
    TAR.get_or_init(|| {
        let name = base_tar().file_name().expect("a file").to_string_lossy();
        let kept = base_tar().with_file_name(format!("conformance-{name}"));
        if !kept.exists() {
            let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
            let made = folder.path().join("made");
            fs::copy(base_tar(), &made).unwrap();
            let script = "mkdir -m 755 dev proc sys && tar --numeric-owner --owner=0 --group=0 -rf made ./dev ./proc ./sys";
            shell(folder.path(), script);
            fs::rename(made, &kept).unwrap();
        }
        kept
    })
}

/// Performs a case. With `bless` the listings of a case do not fail but come back.
pub(crate) fn perform(case: &Case, shared: &Shared, bless: bool) -> Blessed {
    for need in &case.needs {
        let is_there = match need.as_str() {
            "root" => nix::unistd::geteuid().is_root(),
            program => power::program(program).is_some(),
        };
        if !is_there {
            power::not_run(&format!("needs {need}"));
            return Vec::new();
        }
    }
    let is_about_the_cache = case.want.again.is_some() || case.want.output.is_some();
    let own = Shared::default();
    let shared = if is_about_the_cache || !case.images.is_empty() {
        &own
    } else {
        shared
    };
    let lab = shared.lab();
    let mut bases = Vec::new();
    if case.names_the_machine() {
        bases.push(shared.machine().clone());
    }
    let bench = Bench::new(case, lab);
    for (name, dockerfile) in &case.images {
        let path = lab.path(&format!("{name}.Dockerfile"));
        fs::write(&path, bench.filled(dockerfile)).unwrap();
        let ran = bench.build(&["-t", name, "-f", path.to_str().unwrap()]);
        if ran.code == Some(8) {
            power::not_run(&format!("steps cannot run on this machine: {}", ran.stderr));
            return Vec::new();
        }
        ran.succeeds();
        bases.push(lab.saved(name));
    }

    let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let args = bench.all_filled(&case.args);
    let ran = bench.build_as(&case.name, &args);
    if ran.code == Some(8) && case.want.error.as_ref().is_none_or(|(code, _)| *code != 8) {
        power::not_run(&format!("steps cannot run on this machine: {}", ran.stderr));
        return Vec::new();
    }
    let mut wrong = Vec::new();
    let mut blessed = Vec::new();
    let want = &case.want;
    let code = want.error.as_ref().map_or(0, |(code, _)| *code);
    if ran.code != Some(code) {
        panic!("exit code {:?}, wanted {code}\n{}", ran.code, ran.stderr);
    }
    if let Some((_, texts)) = &want.error {
        let error = error_text(&ran.stderr);
        let missing = texts
            .iter()
            .filter(|text| !error.contains(&bench.filled(text)));
        wrong.extend(missing.map(|text| format!("the error does not say `{text}`:\n{error}")));
    }
    if let Some(rules) = &want.warnings {
        wrong.extend(warnings_differ(rules, &ran.stderr));
    }
    if let Some(lines) = &want.output {
        wrong.extend(output_differs(&bench.all_filled(lines), &ran.stderr));
    }
    if code == 0 {
        let mut images = lab.saved_all(&case.name);
        if let Some(platforms) = &want.index {
            let found: Vec<String> = images.iter().map(Image::platform).collect();
            if !lab.is_index(&case.name) {
                wrong.push("it is no index".to_owned());
            } else if found != *platforms {
                wrong.push(format!("the index has {found:?}, wanted {platforms:?}"));
            }
        }
        let image = images.pop().expect("an image was made");
        let built = Built::new(&image, &bases.iter().collect::<Vec<_>>());
        let mut compare = |block: &Option<Block>, found: Vec<String>, what: &str| {
            let Some(block) = block else { return };
            let found: Vec<String> = found.iter().map(|line| bench.emptied(line)).collect();
            let differs = lines_differ(&block.lines, &found);
            if let Some(differs) = differs {
                if bless {
                    blessed.push((block.at.clone(), found));
                } else {
                    wrong.push(format!("{what} differ (- wanted, + found):\n{differs}"));
                }
            }
        };
        compare(&want.files, built.files(), "files");
        compare(&want.history, built.history(), "lines of the history");
        if let Some(layers) = want.layers
            && layers != built.layers()
        {
            wrong.push(format!("{} layers, wanted {layers}", built.layers()));
        }
        let config = want.config.iter().flatten();
        wrong.extend(
            config
                .filter_map(|line| built.config_differs(&bench.filled(line)))
                .map(|line| format!("config: wanted {line}")),
        );
        for line in want.times.iter().flatten() {
            wrong.extend(time_differs(line, &built, started.as_secs() as i64));
        }
    }
    if let Some(script) = &case.check {
        shell(&bench.folder, &bench.filled(script));
    }
    if let Some(steps) = &want.again {
        if let Some(script) = &case.change {
            shell(&bench.folder, &bench.filled(script));
        }
        let mut args = args;
        args.extend(bench.all_filled(&case.change_args));
        let again = bench.build_as(&case.name, &args);
        again.succeeds();
        for step in steps {
            wrong.extend(step_differs(&bench.filled(step), &again.stderr));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    blessed
}

/// The folder of a case, filled, and what serves it.
struct Bench<'a> {
    lab: &'a Lab,
    folder: PathBuf,
    server: Option<Server>,
    env: Vec<String>,
    stdin: Option<PathBuf>,
    built: Option<String>,
}

impl Bench<'_> {
    fn new<'a>(case: &Case, lab: &'a Lab) -> Bench<'a> {
        let folder = lab.path(&format!("cases/{}", case.name));
        fs::create_dir_all(folder.join("context")).unwrap();
        let is_served =
            !case.git.is_empty() || case.files.iter().any(|file| file.path.starts_with("http/"));
        let server = is_served.then(|| Server::start(folder.join("http")));
        let mut bench = Bench {
            lab,
            folder,
            server,
            env: Vec::new(),
            stdin: None,
            built: None,
        };
        for file in &case.files {
            let path = bench.folder.join(&file.path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, &file.content).unwrap();
            let mode = file.mode.unwrap_or(0o644);
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        }
        for (name, script) in &case.git {
            repository(&bench.folder, name, &bench.filled(script));
        }
        if let Some(dockerfile) = &case.dockerfile {
            fs::write(
                bench.folder.join("context/Dockerfile"),
                bench.filled(dockerfile),
            )
            .unwrap();
        }
        if let Some(script) = &case.setup {
            shell(&bench.folder, &bench.filled(script));
        }
        bench.env = case.env.iter().map(|pair| bench.filled(pair)).collect();
        bench.stdin = case.stdin.as_ref().map(|path| bench.folder.join(path));
        bench.built = case.built.as_ref().map(|what| bench.filled(what));
        bench
    }

    fn build_as(&self, name: &str, args: &[String]) -> Ran {
        let mut all = vec!["-t", name];
        all.extend(args.iter().map(String::as_str));
        self.build(&all)
    }

    fn build(&self, args: &[&str]) -> Ran {
        let mut command = self.lab.command();
        // Far beyond what a case takes: it only ends what hangs.
        command.args(["build", "--progress=plain", "--timeout=5m"]);
        let context = || self.folder.join("context").display().to_string();
        command
            .args(args)
            .arg(self.built.clone().unwrap_or_else(context));
        command.current_dir(&self.folder);
        for pair in &self.env {
            let (name, value) = pair.split_once('=').expect("`NAME=VALUE`");
            command.env(name, value);
        }
        if let Some(path) = &self.stdin {
            command.stdin(fs::File::open(path).unwrap());
        }
        Ran::of(command.output().unwrap())
    }

    /// What the marks of a text stand for.
    fn marks(&self) -> Vec<(&'static str, String)> {
        let mut marks = Vec::new();
        if let Some(server) = &self.server {
            marks.push(("@HTTP@", server.url()));
        }
        let git = self.folder.join("http/git");
        marks.push(("@GIT@", format!("file://{}", git.display())));
        marks.push(("@DIR@", self.folder.display().to_string()));
        let state = self.lab.state().display().to_string();
        let builder = format!("BUILDER_ROOT={state} {}", env!("CARGO_BIN_EXE_builder"));
        marks.push(("@BUILDER@", builder));
        marks
    }

    fn filled(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (mark, value) in self.marks() {
            text = text.replace(mark, &value);
        }
        // `@CAT:path@` is what a script has put into a file.
        while let Some((before, rest)) = text.split_once("@CAT:") {
            let (path, after) = rest.split_once('@').expect("`@CAT:path@` is closed");
            let content = read(&self.folder.join(path));
            text = format!("{before}{}{after}", content.trim_end());
        }
        text
    }

    fn all_filled(&self, lines: &[String]) -> Vec<String> {
        lines.iter().map(|line| self.filled(line)).collect()
    }

    /// Puts marks in place of what they stand for.
    fn emptied(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (mark, value) in self.marks() {
            text = text.replace(&value, mark);
        }
        text
    }
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What standard error says from the first error on.
fn error_text(stderr: &str) -> &str {
    let at = stderr
        .match_indices("error")
        .map(|(at, _)| at)
        .find(|&at| at == 0 || stderr.as_bytes()[at - 1] == b'\n');
    &stderr[at.unwrap_or(0)..]
}

/// Compares with all that was reported: rule names, or a part of the text of a warning that no rule makes; each with its line if
/// the case names one.
fn warnings_differ(wanted: &[String], stderr: &str) -> Option<String> {
    let mut left = Vec::new();
    let mut lines = stderr.lines().peekable();
    while let Some(line) = lines.next() {
        let coded = ["warning[", "error["]
            .iter()
            .find_map(|start| line.strip_prefix(start)?.split_once("]: "));
        let name = match (coded, line.strip_prefix("warning: ")) {
            (Some((rule, _)), _) => rule,
            (None, Some(message)) => message,
            (None, None) => continue,
        };
        let place = lines.peek().and_then(|next| next.split_once("--> "));
        let number = place.and_then(|(_, place)| place.rsplit(':').nth(1));
        left.push((name, number.unwrap_or("0")));
    }
    for want in wanted {
        let numbered = want
            .rsplit_once(' ')
            .filter(|(_, number)| number.parse::<u32>().is_ok());
        let (name, number) = numbered.unwrap_or((want, ""));
        let is_wanted = |found: &str| found == name || found.contains(' ') && found.contains(name);
        let at = left
            .iter()
            .position(|(found, line)| is_wanted(found) && (number.is_empty() || number == *line));
        match at {
            Some(at) => drop(left.remove(at)),
            None => return Some(format!("no warning `{want}` among those left: {left:?}")),
        }
    }
    (!left.is_empty()).then(|| format!("unwanted warnings: {left:?}"))
}

/// Compares with the lines that commands printed: each in its order, and none of those after `! `.
fn output_differs(wanted: &[String], stderr: &str) -> Option<String> {
    let printed: Vec<&str> = stderr.lines().filter_map(printed_line).collect();
    let mut rest = printed.iter();
    for line in wanted {
        if let Some(unwanted) = line.strip_prefix("! ") {
            if printed.contains(&unwanted) {
                return Some(format!(
                    "`{unwanted}` is printed in:\n{}",
                    printed.join("\n")
                ));
            }
        } else if !rest.any(|found| found == line) {
            return Some(format!(
                "`{line}` is not printed in:\n{}",
                printed.join("\n")
            ));
        }
    }
    None
}

/// Takes `#3 0.012 ` off.
fn printed_line(line: &str) -> Option<&str> {
    let (number, rest) = line.strip_prefix('#')?.split_once(' ')?;
    let (seconds, text) = rest.split_once(' ')?;
    number.parse::<u32>().ok()?;
    seconds.contains('.').then_some(())?;
    seconds.parse::<f64>().ok()?;
    Some(text)
}

fn lines_differ(wanted: &[String], found: &[String]) -> Option<String> {
    let shape = |line: &String| one_space(line);
    let wanted: Vec<String> = wanted.iter().map(shape).collect();
    let found: Vec<String> = found.iter().map(shape).collect();
    if wanted == found {
        return None;
    }
    let missing = wanted.iter().filter(|line| !found.contains(line));
    let added = found.iter().filter(|line| !wanted.contains(line));
    let mut text: Vec<String> = missing.map(|line| format!("- {line}")).collect();
    text.extend(added.map(|line| format!("+ {line}")));
    if text.is_empty() {
        text.push(format!("the order is {found:#?}"));
    }
    Some(text.join("\n"))
}

/// Blanks between columns count once; those in quotes as they are.
fn one_space(line: &str) -> String {
    let mut text = String::new();
    let (mut is_quoted, mut is_escaped) = (false, false);
    for character in line.trim_end().chars() {
        if character == ' ' && !is_quoted && text.ends_with(' ') {
            continue;
        }
        if character == '"' && !is_escaped {
            is_quoted = !is_quoted;
        }
        is_escaped = character == '\\' && !is_escaped;
        text.push(character);
    }
    text
}

/// Compares with `path 2001-02-03T04:05:06Z`, or `path fresh`: not before the build.
fn time_differs(line: &str, built: &Built<'_>, started: i64) -> Option<String> {
    let (path, wanted) = line.rsplit_once(' ').expect("a path and its time");
    let path = path.trim_end();
    let Some((seconds, nanoseconds)) = built.time(path) else {
        return Some(format!("times: no `{path}`"));
    };
    let holds = match wanted {
        "fresh" => seconds >= started,
        time => {
            let time: jiff::Timestamp = time.parse().expect("a time as RFC 3339 has it");
            (time.as_second(), time.subsec_nanosecond()) == (seconds, nanoseconds as i32)
        }
    };
    let found = jiff::Timestamp::new(seconds, nanoseconds as i32).unwrap();
    (!holds).then(|| format!("times: {path} is of {found}, wanted {wanted}"))
}

/// Compares with `hit TEXT` or `miss TEXT`.
fn step_differs(line: &str, stderr: &str) -> Option<String> {
    let (wanted, text) = line.split_once(' ').expect("`hit` or `miss`, and a step");
    assert!(matches!(wanted, "hit" | "miss"), "`{line}`");
    let named = stderr.lines().find_map(|line| {
        let (number, name) = line.split_once(' ')?;
        let (_, name) = name.strip_prefix('[')?.split_once("] ")?;
        (name == text).then_some(number)
    });
    let Some(number) = named else {
        return Some(format!("no step `{text}`:\n{stderr}"));
    };
    let is_hit = stderr
        .lines()
        .any(|line| line == format!("{number} CACHED"));
    (is_hit != (wanted == "hit")).then(|| format!("wanted a {wanted}: {text}\n{stderr}"))
}
