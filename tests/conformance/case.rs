//! Files of cases: the text becomes sections of cases.
//!
//! In: the text of one `testdata/dockerfile/*.txt`. Out: a [`Section`], or the line that cannot be read. What is not known is an
//! error, never skipped: a mistyped `want` would make a case that can not fail. The format is told in `docs/dockerfile.md`.

use std::ops::Range;

/// One file: a section of the language, and its cases.
#[derive(Debug)]
pub(crate) struct Section {
    pub(crate) title: String,
    pub(crate) cases: Vec<Case>,
}

/// One statement, and what shows that it holds.
#[derive(Debug, Default)]
pub(crate) struct Case {
    pub(crate) name: String,
    /// The statement in words.
    pub(crate) statement: String,
    /// The line of the case in its file.
    pub(crate) line: usize,
    /// Why the construct is refused.
    pub(crate) unsupported: Option<String>,
    /// What BuildKit does instead.
    pub(crate) differs: Option<String>,
    /// Powers and programs that the case needs.
    pub(crate) needs: Vec<String>,
    /// Images built first: name and Dockerfile.
    pub(crate) images: Vec<(String, String)>,
    pub(crate) dockerfile: Option<String>,
    pub(crate) files: Vec<GivenFile>,
    pub(crate) git: Vec<(String, String)>,
    pub(crate) setup: Option<String>,
    pub(crate) args: Vec<String>,
    /// Variables of the builder, `NAME=VALUE`.
    pub(crate) env: Vec<String>,
    /// The file that is its standard input.
    pub(crate) stdin: Option<String>,
    /// What is built instead of the folder `context`.
    pub(crate) built: Option<String>,
    /// Run after the build; its failure is the case's.
    pub(crate) check: Option<String>,
    pub(crate) change: Option<String>,
    pub(crate) change_args: Vec<String>,
    pub(crate) want: Want,
}

impl Case {
    /// Tells whether the case may use the small root of the machine's programs.
    pub(crate) fn names_the_machine(&self) -> bool {
        let images = self.images.iter().map(|(_, dockerfile)| dockerfile);
        let files = self.files.iter().map(|file| &file.content);
        let scripts = [&self.dockerfile, &self.setup, &self.change];
        let scripts = scripts.into_iter().flatten();
        let mut texts = images.chain(files).chain(scripts).chain(&self.args);
        texts.any(|text| text.contains("machine") || text.contains("bare"))
    }
}

/// A file that is there before the build, by its path below the case's folder.
#[derive(Debug)]
pub(crate) struct GivenFile {
    pub(crate) path: String,
    pub(crate) mode: Option<u32>,
    pub(crate) content: String,
}

/// What the build must come to. What is absent is not looked at.
#[derive(Debug, Default)]
pub(crate) struct Want {
    pub(crate) files: Option<Block>,
    pub(crate) layers: Option<usize>,
    pub(crate) config: Option<Vec<String>>,
    pub(crate) history: Option<Block>,
    pub(crate) times: Option<Vec<String>>,
    pub(crate) output: Option<Vec<String>>,
    pub(crate) warnings: Option<Vec<String>>,
    /// Exit code, and what the error says.
    pub(crate) error: Option<(i32, Vec<String>)>,
    pub(crate) again: Option<Vec<String>>,
    /// The platforms of an index.
    pub(crate) index: Option<Vec<String>>,
}

impl Want {
    fn is_empty(&self) -> bool {
        self.files.is_none()
            && self.layers.is_none()
            && self.config.is_none()
            && self.history.is_none()
            && self.times.is_none()
            && self.output.is_none()
            && self.warnings.is_none()
            && self.error.is_none()
            && self.again.is_none()
            && self.index.is_none()
    }
}

/// Lines that can be written anew in place.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    pub(crate) lines: Vec<String>,
    /// Where they stand in the file, counted from 0.
    pub(crate) at: Range<usize>,
}

/// Reads a file of cases; an error begins with its line.
pub(crate) fn parse(text: &str) -> Result<Section, String> {
    let lines: Vec<&str> = text.lines().collect();
    let title = lines
        .first()
        .and_then(|line| line.strip_prefix("# "))
        .ok_or("1: the first line is the title: `# 3.7 ...`")?;
    let mut section = Section {
        title: title.to_owned(),
        cases: Vec::new(),
    };
    let starts: Vec<usize> = (0..lines.len())
        .filter(|&at| lines[at].starts_with("=== "))
        .collect();
    if let Some(at) =
        (1..*starts.first().unwrap_or(&lines.len())).find(|&at| !lines[at].trim().is_empty())
    {
        return Err(format!("{}: text before the first case", at + 1));
    }
    for (index, &start) in starts.iter().enumerate() {
        let mut end = starts.get(index + 1).copied().unwrap_or(lines.len());
        // Blank lines between cases belong to nobody.
        while lines[end - 1].is_empty() {
            end -= 1;
        }
        section.cases.push(case(&lines[..end], start)?);
    }
    Ok(section)
}

/// Reads the case whose `===` line is `lines[start]`, up to the end of `lines`.
fn case(lines: &[&str], start: usize) -> Result<Case, String> {
    let mut case = Case {
        name: lines[start]["=== ".len()..].to_owned(),
        line: start + 1,
        ..Case::default()
    };
    let fail = |at: usize, why: String| Err(format!("{}: {why}", at + 1));
    if case.name.is_empty()
        || !case
            .name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
    {
        return fail(start, format!("a bad name of a case: `{}`", case.name));
    }
    let parts: Vec<usize> = (start + 1..lines.len())
        .filter(|&at| lines[at].starts_with("--- "))
        .collect();
    let first = parts.first().copied().unwrap_or(lines.len());
    case.statement = lines[start + 1..first].join(" ").trim().to_owned();
    if case.statement.is_empty() {
        return fail(start, "a case says first what it shows".to_owned());
    }
    for (index, &at) in parts.iter().enumerate() {
        let end = parts.get(index + 1).copied().unwrap_or(lines.len());
        let part = Part {
            header: lines[at]["--- ".len()..].trim_end(),
            body: &lines[at + 1..end],
            at: at + 1..end,
        };
        if let Err(why) = part.read(&mut case) {
            return fail(at, why);
        }
    }
    let wants_nothing = if case.unsupported.is_some() {
        case.want.error.is_none()
    } else {
        case.want.is_empty() && case.check.is_none()
    };
    if wants_nothing {
        return fail(start, format!("`{}` wants nothing", case.name));
    }
    if case.want.again.is_some() && case.change.is_none() && case.change_args.is_empty() {
        return fail(start, "`want again` goes with `change`".to_owned());
    }
    Ok(case)
}

/// One `---` line and what stands below it.
struct Part<'a> {
    header: &'a str,
    body: &'a [&'a str],
    at: Range<usize>,
}

impl Part<'_> {
    fn read(&self, case: &mut Case) -> Result<(), String> {
        let (word, rest) = self.header.split_once(' ').unwrap_or((self.header, ""));
        match (word, rest) {
            ("unsupported", why) => once(&mut case.unsupported, self.remark(why)?),
            ("differs", why) => once(&mut case.differs, self.remark(why)?),
            ("needs", names) => {
                self.remark(names)?;
                case.needs.extend(names.split(' ').map(str::to_owned));
                Ok(())
            }
            ("image", name) if !name.is_empty() => {
                case.images.push((name.to_owned(), self.text()));
                Ok(())
            }
            ("Dockerfile", "") => once(&mut case.dockerfile, self.text()),
            ("setup", "") => once(&mut case.setup, self.text()),
            ("args", "") => {
                case.args = self.lines();
                Ok(())
            }
            ("env", "") => {
                case.env = self.lines();
                Ok(())
            }
            ("stdin", path) => once(&mut case.stdin, self.remark(path)?),
            ("built", what) => once(&mut case.built, self.remark(what)?),
            ("check", "") => once(&mut case.check, self.text()),
            ("git", name) if !name.is_empty() => {
                case.git.push((name.to_owned(), self.text()));
                Ok(())
            }
            ("change", "") => once(&mut case.change, self.text()),
            ("change", "args") => {
                case.change_args = self.lines();
                Ok(())
            }
            ("want", rest) => self.want(rest, &mut case.want),
            _ if word.contains('/') => {
                let (path, mode) = path_and_mode(self.header);
                case.files.push(GivenFile {
                    path: path.to_owned(),
                    mode,
                    content: self.text(),
                });
                Ok(())
            }
            _ => Err(format!("no such section: `{}`", self.header)),
        }
    }

    fn want(&self, what: &str, want: &mut Want) -> Result<(), String> {
        let (what, number) = what.split_once(' ').unwrap_or((what, ""));
        let parsed = number.parse::<i32>().ok();
        match (what, parsed) {
            ("files", None) => once(&mut want.files, self.block()),
            ("history", None) => once(&mut want.history, self.block()),
            ("config", None) => once(&mut want.config, self.lines()),
            ("times", None) => once(&mut want.times, self.lines()),
            ("output", None) => once(&mut want.output, self.lines()),
            ("warning", None) => once(&mut want.warnings, self.lines()),
            ("index", None) => once(&mut want.index, self.lines()),
            ("again", None) => once(&mut want.again, self.lines()),
            ("error", Some(code)) => once(&mut want.error, (code, self.lines())),
            ("layers", Some(count)) => once(
                &mut want.layers,
                usize::try_from(count).map_err(|_| "fewer layers than none".to_owned())?,
            ),
            _ => Err(format!("no such section: `want {what} {number}`")),
        }
    }

    /// The body as it is: `\` before `---` and `===` is dropped, and at the very end with the line feed after it.
    fn text(&self) -> String {
        let mut text = String::new();
        for line in self.body {
            text.push_str(unescaped(line));
            text.push('\n');
        }
        match text.strip_suffix("\\\n") {
            Some(open) => open.to_owned(),
            None => text,
        }
    }

    /// The lines of the body, without blank ones.
    fn lines(&self) -> Vec<String> {
        let lines = self.body.iter().filter(|line| !line.is_empty());
        lines.map(|line| unescaped(line).to_owned()).collect()
    }

    fn block(&self) -> Block {
        Block {
            lines: self.lines(),
            at: self.at.clone(),
        }
    }

    /// A section that is one line.
    fn remark(&self, text: &str) -> Result<String, String> {
        if text.is_empty() || !self.lines().is_empty() {
            return Err("all of it stands on the line itself".to_owned());
        }
        Ok(text.to_owned())
    }
}

/// A path may hold blanks: only what is an octal number at the end is the mode.
fn path_and_mode(header: &str) -> (&str, Option<u32>) {
    if let Some((path, last)) = header.rsplit_once(' ')
        && (3..=4).contains(&last.len())
        && let Ok(mode) = u32::from_str_radix(last, 8)
    {
        return (path, Some(mode));
    }
    (header, None)
}

fn unescaped(line: &str) -> &str {
    match line.strip_prefix('\\') {
        Some(rest) if rest.starts_with("---") || rest.starts_with("===") => rest,
        _ => line,
    }
}

fn once<T>(place: &mut Option<T>, value: T) -> Result<(), String> {
    match place.replace(value) {
        Some(_) => Err("the section stands twice in the case".to_owned()),
        None => Ok(()),
    }
}

/// Shows that what cannot be read is refused.
pub(crate) fn refuses_what_it_does_not_know() {
    let head = "# 0 t\n\n=== a\nSays so.\n";
    let check = |text: &str, expected: &str| {
        let found = parse(text).err().unwrap_or_default();
        assert!(
            found.contains(expected),
            "{text:?}: `{found}` is not `{expected}`"
        );
    };
    check("=== a\n", "1: the first line is the title");
    check("# 0 t\ntext\n=== a\n", "2: text before");
    check("# 0 t\n=== A b\n", "2: a bad name");
    check("# 0 t\n=== a\n--- want files\n", "2: a case says first");
    check(head, "3: `a` wants nothing");
    check(
        &format!("{head}--- Dockerfile\nFROM scratch\n"),
        "3: `a` wants nothing",
    );
    check(
        &format!("{head}--- unsupported it is\n--- want files\n"),
        "3: `a` wants nothing",
    );
    check(&format!("{head}--- Dokcerfile\n"), "5: no such section");
    check(&format!("{head}--- want file\n"), "5: no such section");
    check(&format!("{head}--- want error\n"), "5: no such section");
    check(&format!("{head}--- want files 3\n"), "5: no such section");
    check(&format!("{head}--- context 0644\n"), "5: no such section");
    check(&format!("{head}--- differs\n"), "5: all of it stands");
    check(
        &format!("{head}--- setup\n--- setup\n"),
        "6: the section stands twice",
    );
    check(
        &format!("{head}--- want again\nhit x\n"),
        "3: `want again` goes with",
    );
    let case = format!(
        "{head}--- context/f 0600\nx\\\n--- Dockerfile\nRUN a\n\\---\n\n--- want layers 1\n\n"
    );
    let section = parse(&case).unwrap();
    let case = &section.cases[0];
    assert_eq!(
        (case.files[0].content.as_str(), case.files[0].mode),
        ("x", Some(0o600))
    );
    assert_eq!(case.dockerfile.as_deref(), Some("RUN a\n---\n\n"));
    assert_eq!(case.want.layers, Some(1));
}
