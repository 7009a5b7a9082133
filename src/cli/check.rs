//! `builder build --check` and `--call`: what is said of a Dockerfile without building. The JSON is that of `docker buildx`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::dockerfile::rule;
use crate::pipeline::{self, Checked, Failure, OutlinedTarget, Target};
use crate::ui::{self, Ci};
use crate::vocab::{Diagnostic, ExitCode, ProgressMode, SourceText};

use super::args::{Build, Format, Global};
use super::request::{Machine, request};
use super::{print, usage};

/// What `--call` asks for in the place of a build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Call {
    method: Method,
    format: Format,
    /// Succeed in spite of warnings.
    ignore_status: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    Check,
    Outline,
    Targets,
}

/// Returns what is asked for; `None` is a build.
pub(super) fn call(args: &Build) -> Result<Option<Call>, Failure> {
    match args.check {
        true => parse("check"),
        false => parse(&args.call),
    }
}

fn parse(text: &str) -> Result<Option<Call>, Failure> {
    let refuse = |problem: String| {
        let mut failure = usage(format!("`--call {text}`: {problem}"));
        failure.diagnostics[0].hints.push(
            "it is build, check, outline or targets, and format=json or format=text".to_owned(),
        );
        failure
    };
    let mut name = None;
    let mut format = Format::Text;
    let mut ignore_status = false;
    for field in text.split(',') {
        match field.split_once('=') {
            Some(("format", "json")) => format = Format::Json,
            Some(("format", "text")) => format = Format::Text,
            Some(("format", other)) => return Err(refuse(format!("there is no format `{other}`"))),
            Some(("ignorestatus", value)) => {
                ignore_status = match value {
                    "1" | "t" | "T" | "true" | "TRUE" | "True" => true,
                    "0" | "f" | "F" | "false" | "FALSE" | "False" => false,
                    _ => return Err(refuse("`ignorestatus` is true or false".to_owned())),
                }
            }
            Some((key, _)) => return Err(refuse(format!("there is no option `{key}`"))),
            None if name.is_none() => name = Some(field),
            None => return Err(refuse("it names two methods".to_owned())),
        }
    }
    let method = match name {
        None | Some("build" | "") => return Ok(None),
        Some("check" | "lint") => Method::Check,
        Some("outline") => Method::Outline,
        Some("targets") => Method::Targets,
        Some(other) => return Err(refuse(format!("there is no method `{other}`"))),
    };
    Ok(Some(Call {
        method,
        format,
        ignore_status,
    }))
}

pub(super) fn run(global: &Global, args: Build, call: Call) -> Result<(), Failure> {
    let (request, showing) = request(global, args, Machine::this())?;
    let is_json = call.format == Format::Json;
    let ci = showing.ci.clone();
    let display = ui::display(showing.or(ProgressMode::Plain));
    let told = |failure: Failure| {
        for diagnostic in &failure.diagnostics {
            display.emit(crate::vocab::Event::Diagnostic(diagnostic.clone()));
        }
        Failure {
            diagnostics: Vec::new(),
            ..failure
        }
    };
    match call.method {
        Method::Check => return check(&pipeline::check(&request)?, call, &ci),
        Method::Outline => {
            let outlined = pipeline::outline(&request, display.as_ref()).map_err(told)?;
            for note in &outlined.notes {
                ui::report_in(note, &outlined.source);
            }
            print(&match is_json {
                true => pretty(&outline_object(&outlined)),
                false => outline_text(&outlined),
            });
        }
        Method::Targets => {
            let (source, targets) = pipeline::targets(&request, display.as_ref()).map_err(told)?;
            print(&match is_json {
                true => pretty(&targets_object(&source, &targets)),
                false => targets_text(&targets),
            });
        }
    }
    Ok(())
}

/// Prints what was found. Fails with warnings as `docker buildx` does, and with mistakes as a build would.
fn check(checked: &Checked, call: Call, ci: &Ci) -> Result<(), Failure> {
    for note in &checked.notes {
        ui::report_in(note, &checked.source);
    }
    if call.format == Format::Json {
        print(&pretty(&checked_object(checked)));
    } else {
        let mut text = match checked.warnings.len() {
            0 if checked.errors.is_empty() => "check: no warnings\n".to_owned(),
            0 => String::new(),
            1 => "check: 1 warning\n".to_owned(),
            count => format!("check: {count} warnings\n"),
        };
        for warning in &checked.warnings {
            text.push('\n');
            text.push_str(&ui::shown(warning, &checked.source));
        }
        print(&text);
    }
    for error in &checked.errors {
        ui::report_in(error, &checked.source);
    }
    if call.format == Format::Text {
        let told = checked.warnings.iter().chain(&checked.errors);
        let marks = told.filter_map(|it| ci.annotation(it, Some(&checked.source)));
        print(&marks.collect::<String>());
    }
    let class = match (checked.errors.is_empty(), checked.warnings.is_empty()) {
        (false, _) => ExitCode::Dockerfile,
        (true, false) if !call.ignore_status => ExitCode::Internal,
        _ => return Ok(()),
    };
    Err(Failure {
        class,
        diagnostics: Vec::new(),
    })
}

fn checked_object(checked: &Checked) -> Value {
    let warnings: Vec<Value> = checked
        .warnings
        .iter()
        .filter_map(|warning| {
            let rule = rule(warning.code?)?;
            let mut object = json!({
                "ruleName": rule.name,
                "description": rule.summary,
                "detail": detail(warning),
                "location": location(checked.lines(warning)),
            });
            if let Some(link) = warning.link() {
                object["url"] = json!(link);
            }
            Some(object)
        })
        .collect();
    let errors: Vec<Value> = checked
        .errors
        .iter()
        .map(|error| {
            json!({
                "message": detail(error),
                "location": location(checked.lines(error)),
            })
        })
        .collect();
    let mut object = json!({
        "warnings": warnings,
        "sources": [{
            "filename": checked.source.name,
            "language": "Dockerfile",
            "data": encoded(&checked.source),
        }],
    });
    if let Some(first) = errors.first() {
        object["buildError"] = first.clone();
    }
    // One run tells all mistakes, and the field above has room for one.
    if errors.len() > 1 {
        object["buildErrors"] = json!(errors);
    }
    object
}

/// Returns a diagnostic as one sentence.
fn detail(diagnostic: &Diagnostic) -> String {
    let mut text = diagnostic.message.clone();
    for cause in &diagnostic.causes {
        text.push_str(": ");
        text.push_str(cause);
    }
    let questions = diagnostic
        .hints
        .iter()
        .filter(|hint| hint.starts_with("did you mean"));
    for hint in questions {
        text.push_str(&format!(" ({hint})"));
    }
    text
}

fn location(lines: Option<(usize, usize)>) -> Value {
    let ranges: Vec<Value> = lines
        .map(|(first, last)| json!({ "start": { "line": first }, "end": { "line": last } }))
        .into_iter()
        .collect();
    json!({ "ranges": ranges })
}

fn encoded(source: &SourceText) -> String {
    STANDARD.encode(source.text.as_bytes())
}

fn outline_object(outlined: &OutlinedTarget) -> Value {
    let outline = &outlined.outline;
    let args = outline.args.iter().map(|arg| {
        let mut object = Map::new();
        object.insert("name".to_owned(), json!(arg.name));
        insert(&mut object, "description", arg.description.as_deref());
        insert(&mut object, "value", arg.value.as_deref());
        object.insert(
            "location".to_owned(),
            location(Some(outlined.lines(arg.span))),
        );
        Value::Object(object)
    });
    let mounts = |mounts: &[pipeline::OutlineMount], key: &str| -> Vec<Value> {
        let objects = mounts.iter().map(|mount| {
            let mut object = Map::new();
            object.insert(key.to_owned(), json!(mount.name));
            if mount.required {
                object.insert("required".to_owned(), json!(true));
            }
            object.insert(
                "location".to_owned(),
                location(Some(outlined.lines(mount.span))),
            );
            Value::Object(object)
        });
        objects.collect()
    };
    let mut object = Map::new();
    insert(&mut object, "name", outline.name.as_deref());
    insert(&mut object, "description", outline.description.as_deref());
    let lists = [
        ("args", args.collect::<Vec<_>>()),
        ("secrets", mounts(&outline.secrets, "name")),
        ("ssh", mounts(&outline.ssh, "name")),
        ("cache", mounts(&outline.caches, "ID")),
    ];
    for (name, list) in lists {
        if !list.is_empty() {
            object.insert(name.to_owned(), json!(list));
        }
    }
    object.insert("sources".to_owned(), json!([encoded(&outlined.source)]));
    Value::Object(object)
}

fn outline_text(outlined: &OutlinedTarget) -> String {
    let outline = &outlined.outline;
    let mut tables = Vec::new();
    if outline.name.is_some() || outline.description.is_some() {
        let name = outline.name.as_deref().unwrap_or("(default)");
        let mut rows = vec![row(&["TARGET:", name])];
        if let Some(description) = &outline.description {
            rows.push(row(&["DESCRIPTION:", description]));
        }
        tables.push(ui::table(&rows));
    }
    if !outline.args.is_empty() {
        let mut rows = vec![row(&["BUILD ARG", "VALUE", "DESCRIPTION"])];
        for arg in &outline.args {
            let optional = |text: &Option<String>| text.clone().unwrap_or_default();
            rows.push(vec![
                arg.name.clone(),
                optional(&arg.value),
                optional(&arg.description),
            ]);
        }
        tables.push(ui::table(&rows));
    }
    for (title, mounts) in [("SECRET", &outline.secrets), ("SSH", &outline.ssh)] {
        if !mounts.is_empty() {
            let mut rows = vec![row(&[title, "REQUIRED"])];
            for mount in mounts {
                rows.push(row(&[
                    &mount.name,
                    if mount.required { "true" } else { "" },
                ]));
            }
            tables.push(ui::table(&rows));
        }
    }
    if !outline.caches.is_empty() {
        let mut rows = vec![row(&["CACHE"])];
        rows.extend(outline.caches.iter().map(|cache| row(&[&cache.name])));
        tables.push(ui::table(&rows));
    }
    tables.join("\n")
}

fn targets_object(source: &SourceText, targets: &[Target]) -> Value {
    let targets: Vec<Value> = targets
        .iter()
        .map(|target| {
            let mut object = Map::new();
            insert(&mut object, "name", target.name.as_deref());
            if target.is_default {
                object.insert("default".to_owned(), json!(true));
            }
            insert(&mut object, "description", target.description.as_deref());
            insert(&mut object, "base", Some(&target.base));
            insert(&mut object, "platform", target.platform.as_deref());
            object.insert("location".to_owned(), location(Some(target.lines)));
            Value::Object(object)
        })
        .collect();
    json!({ "targets": targets, "sources": [encoded(source)] })
}

fn targets_text(targets: &[Target]) -> String {
    let mut rows = vec![row(&["TARGET", "DESCRIPTION"])];
    for target in targets {
        let name = match (&target.name, target.is_default) {
            (Some(name), true) => format!("{name} (default)"),
            (Some(name), false) => name.clone(),
            (None, true) => "(default)".to_owned(),
            // It cannot be named, so it cannot be asked for.
            (None, false) => continue,
        };
        let description = target.description.clone().unwrap_or_default();
        rows.push(vec![name, description]);
    }
    ui::table(&rows)
}

fn row(cells: &[&str]) -> Vec<String> {
    cells.iter().map(|cell| (*cell).to_owned()).collect()
}

fn insert(object: &mut Map<String, Value>, key: &str, value: Option<&str>) {
    if let Some(value) = value.filter(|value| !value.is_empty()) {
        object.insert(key.to_owned(), json!(value));
    }
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls() {
        let call = |method, format, ignore_status| {
            Some(Call {
                method,
                format,
                ignore_status,
            })
        };
        for (text, expected) in [
            ("build", None),
            ("build,format=json", None),
            ("check", call(Method::Check, Format::Text, false)),
            ("lint,format=json", call(Method::Check, Format::Json, false)),
            (
                "format=text,outline",
                call(Method::Outline, Format::Text, false),
            ),
            (
                "targets,ignorestatus=1",
                call(Method::Targets, Format::Text, true),
            ),
        ] {
            assert_eq!(parse(text).unwrap(), expected, "{text}");
        }
        for text in [
            "chek",
            "check,outline",
            "check,format=yaml",
            "check,x=y",
            "check,ignorestatus=x",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
