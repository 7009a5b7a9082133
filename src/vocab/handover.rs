//! What the next job is told of a result, where, and under which names.
//!
//! A [`Template`] is text with fields in it, such as `{{.ref}}@{{.digest}}`: Go's notation without its functions. It is checked when it
//! is read, so that a slip does not show after an hour's build.

use std::path::PathBuf;

use thiserror::Error;

use super::nearest;

/// Places that are written when everything else has succeeded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Handover {
    /// Lines of `KEY=VALUE`.
    pub outputs: Option<OutputsFile>,
    /// What is written under names of the user's choice, instead of all fields under their own.
    pub chosen: Vec<Chosen>,
    /// Tekton's: a file for each result.
    pub results_directory: Option<PathBuf>,
    /// `GITHUB_OUTPUT`: outputs of a step of a GitHub workflow.
    pub github_output: Option<PathBuf>,
    /// `GITHUB_STEP_SUMMARY`: Markdown.
    pub github_summary: Option<PathBuf>,
}

/// `--outputs FILE`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputsFile {
    pub path: PathBuf,
    /// What is there stays.
    pub appends: bool,
}

/// `--outputs-line NAME=TEMPLATE`, or `--outputs-alias FIELD=NAME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    pub name: String,
    pub template: Template,
}

/// One thing that is known of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// The first name, with its tag.
    Image,
    /// The same without its tag.
    Name,
    /// Its tag.
    Tag,
    /// Of the manifest or index.
    Digest,
    ImageId,
    /// All names, separated by commas.
    Tags,
    /// Bytes of all layers as they are stored.
    Size,
    /// Whether every step came from the cache: `true` or `false`.
    CacheHit,
    /// Separated by commas.
    Platforms,
}

impl Field {
    /// In the order in which they are written.
    pub const ALL: [Field; 9] = [
        Field::Image,
        Field::Name,
        Field::Tag,
        Field::Digest,
        Field::ImageId,
        Field::Tags,
        Field::Size,
        Field::CacheHit,
        Field::Platforms,
    ];

    /// As templates and aliases have it. In files of lines it is in capital letters.
    pub fn name(self) -> &'static str {
        match self {
            Field::Image => "image",
            Field::Name => "name",
            Field::Tag => "tag",
            Field::Digest => "digest",
            Field::ImageId => "image_id",
            Field::Tags => "tags",
            Field::Size => "size",
            Field::CacheHit => "cache_hit",
            Field::Platforms => "platforms",
        }
    }

    /// Tells whether only a result with a name has it.
    pub fn needs_name(self) -> bool {
        matches!(self, Field::Image | Field::Name | Field::Tag | Field::Tags)
    }

    /// Finds a field by its name, in small or capital letters; `ref` is `image`.
    pub fn named(text: &str) -> Result<Field, TemplateError> {
        let lower = text.to_lowercase();
        let known = |field: &Field| field.name() == lower;
        match Field::ALL.into_iter().find(known) {
            Some(field) => Ok(field),
            None if lower == "ref" => Ok(Field::Image),
            None => Err(TemplateError::Unknown {
                nearest: nearest(&lower, Field::ALL.map(Field::name)).map(str::to_owned),
                name: text.to_owned(),
            }),
        }
    }
}

/// Why a template cannot be used.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum TemplateError {
    #[error("there is no field `{name}`")]
    Unknown {
        name: String,
        nearest: Option<String>,
    },
    #[error("`{{{{` has no `}}}}`")]
    Open,
    #[error("`{0}` is not a field such as `{{{{.digest}}}}`")]
    NotAField(String),
    #[error("it holds a line break or another control character")]
    Control,
}

/// One line of text with fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Field(Field),
}

impl Template {
    /// Reads `TEXT{{.FIELD}}…`.
    pub fn parse(text: &str) -> Result<Template, TemplateError> {
        if text.contains(char::is_control) {
            return Err(TemplateError::Control);
        }
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            let (inside, after) = after.split_once("}}").ok_or(TemplateError::Open)?;
            let name = inside
                .trim()
                .strip_prefix('.')
                .ok_or_else(|| TemplateError::NotAField(inside.trim().to_owned()))?;
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            parts.push(Part::Field(Field::named(name)?));
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        Ok(Template(parts))
    }

    /// Returns the fields that are asked for.
    pub fn fields(&self) -> impl Iterator<Item = Field> {
        self.0.iter().filter_map(|part| match part {
            Part::Field(field) => Some(*field),
            Part::Text(_) => None,
        })
    }

    /// Puts values in the places of fields; a field without a value is the error.
    pub fn fill(&self, value: &dyn Fn(Field) -> Option<String>) -> Result<String, Field> {
        let mut text = String::new();
        for part in &self.0 {
            match part {
                Part::Text(part) => text.push_str(part),
                Part::Field(field) => text.push_str(&value(*field).ok_or(*field)?),
            }
        }
        Ok(text)
    }
}

impl From<Field> for Template {
    fn from(field: Field) -> Template {
        Template(vec![Part::Field(field)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_filled() {
        let check = |text: &str, expected: &str| {
            let value = |field: Field| Some(format!("<{}>", field.name()));
            let template = Template::parse(text).unwrap();
            assert_eq!(template.fill(&value).unwrap(), expected, "{text}");
        };
        check("", "");
        check("plain } text", "plain } text");
        check("{{.ref}}@{{ .digest }}", "<image>@<digest>");
        check("a {{.CACHE_HIT}} b", "a <cache_hit> b");
        let template = Template::parse("x{{.size}}").unwrap();
        assert_eq!(template.fill(&|_| None), Err(Field::Size));
        assert_eq!(template.fields().collect::<Vec<_>>(), [Field::Size]);
    }

    #[test]
    fn what_is_no_template_is_refused() {
        let check = |text: &str, expected: TemplateError| {
            assert_eq!(Template::parse(text), Err(expected), "{text}");
        };
        check("{{.digest", TemplateError::Open);
        check("{{digest}}", TemplateError::NotAField("digest".into()));
        check("{{}}", TemplateError::NotAField(String::new()));
        check("a\nB=c", TemplateError::Control);
        check("a\rb", TemplateError::Control);
        check(
            "{{.digset}}",
            TemplateError::Unknown {
                name: "digset".into(),
                nearest: Some("digest".into()),
            },
        );
    }

    #[test]
    fn every_field_has_a_name_of_its_own() {
        for field in Field::ALL {
            assert_eq!(Field::named(field.name()), Ok(field));
        }
    }
}
