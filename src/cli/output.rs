//! `--output`, `--push` and `--load` as what they mean together.

use std::path::PathBuf;

use crate::pipeline::Failure;
use crate::vocab::{AppendTo, Epoch, ImageRef, ImageWriting, OutputSpec};

use super::args::Build;
use super::fields::Fields;
use super::request::image;
use super::{hinted, usage};

/// Returns every output of a build. With none asked for the state directory keeps the image, and with `-t` unless it is pushed:
/// what is pushed need not come here.
pub(super) fn outputs(args: &Build, tags: &[ImageRef]) -> Result<Vec<OutputSpec>, Failure> {
    let mut outputs = args
        .output
        .iter()
        .map(|text| output(text, tags))
        .collect::<Result<Vec<_>, _>>()?;
    if args.push {
        match outputs
            .iter_mut()
            .find(|output| matches!(output, OutputSpec::Image { .. }))
        {
            Some(OutputSpec::Image { push, .. }) => *push = true,
            _ => outputs.push(image_output(tags.to_vec(), false, true)),
        }
    }
    let is_pushed = outputs
        .iter()
        .any(|output| matches!(output, OutputSpec::Image { push: true, .. }));
    let names_nothing = |output: &OutputSpec| matches!(output, OutputSpec::Image { push: true, names, .. } if names.is_empty());
    if args.append_to.is_empty() && outputs.iter().any(names_nothing) {
        return Err(hinted(
            "nothing says where to push to",
            "name the image with `-t REGISTRY/NAME:TAG`",
        ));
    }
    let is_asked_nowhere = args.output.is_empty() && args.append_to.is_empty();
    let keep = args.load
        || !args.manifest.is_empty()
        || !is_pushed && (is_asked_nowhere || !tags.is_empty());
    if keep {
        match outputs
            .iter_mut()
            .find(|output| matches!(output, OutputSpec::Image { .. }))
        {
            Some(OutputSpec::Image { store, .. }) => *store = true,
            _ => outputs.push(image_output(tags.to_vec(), true, false)),
        }
    }
    let is_image = |output: &OutputSpec| matches!(output, OutputSpec::Image { .. });
    if !args.append_to.is_empty() && !outputs.iter().any(is_image) {
        outputs.push(image_output(Vec::new(), false, false));
    }
    if args.rewrite_timestamp {
        for output in &mut outputs {
            if let OutputSpec::Image { writing, .. }
            | OutputSpec::Oci { writing, .. }
            | OutputSpec::Docker { writing, .. } = output
            {
                writing.rewrite_timestamp = true;
            }
        }
    }
    if outputs.iter().filter(|output| to_stdout(output)).count() > 1 {
        return Err(usage("only one output can go to standard output"));
    }
    Ok(outputs)
}

/// Returns the stages that outputs are made of besides the target.
pub(super) fn stages(outputs: &[OutputSpec]) -> impl Iterator<Item = &String> {
    outputs.iter().filter_map(|output| match output {
        OutputSpec::Tar { stage, .. } | OutputSpec::Local { stage, .. } => stage.as_ref(),
        _ => None,
    })
}

/// Reads `REF[,run=ID][,expect=PLATFORM]…`.
pub(super) fn append_to(text: &str) -> Result<AppendTo, Failure> {
    let mut parts = text.split(',');
    let name = parts.next().unwrap_or_default();
    let mut to = AppendTo {
        image: image(name.strip_prefix("docker://").unwrap_or(name))?,
        run: None,
        expect: Vec::new(),
    };
    for part in parts {
        match part.split_once('=') {
            Some(("run", run)) if !run.is_empty() => to.run = Some(run.to_owned()),
            Some(("expect", platform)) => to.expect.push(
                platform
                    .parse()
                    .map_err(|error: crate::vocab::PlatformError| usage(error.to_string()))?,
            ),
            _ => {
                return Err(usage(format!(
                    "`{text}`: `{part}` is neither run=ID nor expect=PLATFORM"
                )));
            }
        }
    }
    tagged(&to.image)?;
    Ok(to)
}

/// Refuses a name that an index cannot be kept under.
pub(super) fn tagged(image: &ImageRef) -> Result<(), Failure> {
    if image.digest.is_none() {
        return Ok(());
    }
    let mut failure = usage(format!("`{}` names one manifest", image.familiar()));
    failure.diagnostics[0]
        .hints
        .push("an index of several jobs is kept under a tag".to_owned());
    Err(failure)
}

fn image_output(names: Vec<ImageRef>, store: bool, push: bool) -> OutputSpec {
    OutputSpec::Image {
        names,
        store,
        push,
        writing: ImageWriting::default(),
        oci_media_types: true,
    }
}

fn to_stdout(output: &OutputSpec) -> bool {
    match output {
        OutputSpec::Image { .. } | OutputSpec::Local { .. } => false,
        OutputSpec::Oci { dest, .. }
        | OutputSpec::Docker { dest, .. }
        | OutputSpec::Tar { dest, .. } => dest.as_os_str() == "-",
    }
}

/// What only outputs have.
impl Fields<'_> {
    fn dest(&mut self, needed_for: &str) -> Result<PathBuf, Failure> {
        let dest = self
            .take("dest")
            .or_else(|| self.take("destination"))
            .filter(|dest| !dest.is_empty());
        dest.map(PathBuf::from)
            .ok_or_else(|| self.refuse(&format!("{needed_for} needs dest=PATH")))
    }

    fn epoch(&mut self) -> Result<Epoch, Failure> {
        match self.take("source-date-epoch").as_deref() {
            None => Ok(Epoch::Build),
            Some("") => Ok(Epoch::Unset),
            Some(text) => text.parse().map(Epoch::At).map_err(|_| {
                self.refuse(&format!(
                    "source-date-epoch={text} is not a number of seconds"
                ))
            }),
        }
    }

    fn split(&mut self) -> Result<Option<bool>, Failure> {
        let given = self.has("platform-split");
        let split = self.flag("platform-split", false)?;
        Ok(given.then_some(split))
    }

    fn writing(&mut self) -> Result<ImageWriting, Failure> {
        Ok(ImageWriting {
            compression: self.compression()?,
            epoch: self.epoch()?,
            rewrite_timestamp: self.flag("rewrite-timestamp", false)?,
        })
    }
}

fn output(text: &str, tags: &[ImageRef]) -> Result<OutputSpec, Failure> {
    if text == "-" {
        return Ok(OutputSpec::Tar {
            dest: PathBuf::from("-"),
            stage: None,
            epoch: Epoch::Build,
            split: None,
        });
    }
    if !text.contains('=') {
        return Ok(OutputSpec::Local {
            dest: PathBuf::from(text),
            stage: None,
            epoch: Epoch::Build,
            split: None,
        });
    }
    let mut fields = Fields::parse("--output", text)?;
    let kind = fields.kind()?;
    let output = match kind.as_str() {
        "image" | "registry" => {
            let names = match fields.take("name") {
                Some(names) => names
                    .split(',')
                    .map(|name| image(name.trim()))
                    .collect::<Result<_, _>>()?,
                None => tags.to_vec(),
            };
            let push = fields.flag("push", kind == "registry")?;
            let store = fields.flag("store", kind == "image")?;
            let writing = fields.writing()?;
            let oci_media_types = fields.flag("oci-mediatypes", true)?;
            OutputSpec::Image {
                names,
                store,
                push,
                writing,
                oci_media_types,
            }
        }
        "oci" => {
            let tar = fields.flag("tar", true)?;
            let dest = fields.dest("type=oci")?;
            OutputSpec::Oci {
                tar: tar && !dest.is_dir(),
                dest,
                writing: fields.writing()?,
            }
        }
        "docker" => OutputSpec::Docker {
            dest: fields.dest("type=docker")?,
            writing: fields.writing()?,
        },
        "tar" => OutputSpec::Tar {
            dest: fields.dest("type=tar")?,
            stage: fields.take("target").filter(|name| !name.is_empty()),
            epoch: fields.epoch()?,
            split: fields.split()?,
        },
        "local" => OutputSpec::Local {
            dest: fields.dest("type=local")?,
            stage: fields.take("target").filter(|name| !name.is_empty()),
            epoch: fields.epoch()?,
            split: fields.split()?,
        },
        other => {
            let mut failure = fields.refuse(&format!("there is no type `{other}`"));
            failure.diagnostics[0]
                .hints
                .push("types are image, registry, oci, docker, tar, local".to_owned());
            return Err(failure);
        }
    };
    if fields.has("target") {
        let mut failure = fields.refuse("`target` goes with type=local and type=tar");
        failure.diagnostics[0]
            .hints
            .push("an image of another stage is a build with `--target` of its own".to_owned());
        return Err(failure);
    }
    fields.done()?;
    Ok(output)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vocab::Compression;

    #[test]
    fn short_and_long_forms() {
        let tags = ["a/b".parse().unwrap()];
        let check = |text: &str, expected: OutputSpec| {
            assert_eq!(output(text, &tags).unwrap(), expected, "{text}")
        };
        check(
            "out",
            OutputSpec::Local {
                dest: "out".into(),
                stage: None,
                epoch: Epoch::Build,
                split: None,
            },
        );
        check(
            "-",
            OutputSpec::Tar {
                dest: "-".into(),
                stage: None,
                epoch: Epoch::Build,
                split: None,
            },
        );
        check(
            "type=local,dest=x,target=y,source-date-epoch=5,platform-split=true",
            OutputSpec::Local {
                dest: "x".into(),
                stage: Some("y".to_owned()),
                epoch: Epoch::At(5),
                split: Some(true),
            },
        );
        check(
            "type=oci,dest=x.tar",
            OutputSpec::Oci {
                dest: "x.tar".into(),
                tar: true,
                writing: ImageWriting::default(),
            },
        );
        check(
            "type=oci,dest=x,tar=false,compression=zstd,compression-level=9,rewrite-timestamp=true,source-date-epoch=",
            OutputSpec::Oci {
                dest: "x".into(),
                tar: false,
                writing: ImageWriting {
                    compression: Compression::Zstd { level: 9 },
                    epoch: Epoch::Unset,
                    rewrite_timestamp: true,
                },
            },
        );
        check(
            "type=image,push=true",
            OutputSpec::Image {
                names: tags.to_vec(),
                store: true,
                push: true,
                writing: ImageWriting::default(),
                oci_media_types: true,
            },
        );
        check(
            "type=registry,\"name=x/y,x/z\"",
            OutputSpec::Image {
                names: vec!["x/y".parse().unwrap(), "x/z".parse().unwrap()],
                store: false,
                push: true,
                writing: ImageWriting::default(),
                oci_media_types: true,
            },
        );
    }

    #[test]
    fn indexes_to_append_to() {
        let to = append_to("h.io/a:1,run=7,expect=linux/amd64,expect=arm64").unwrap();
        assert_eq!(to.image.to_string(), "h.io/a:1");
        assert_eq!(to.run.as_deref(), Some("7"));
        assert_eq!(to.expect.len(), 2);
        assert_eq!(append_to("a").unwrap().image.tag.as_deref(), Some("latest"));
        let digest = format!("a@{}", crate::vocab::Digest::of(b"x"));
        for text in [
            "",
            "a:1,run=",
            "a:1,x=y",
            "a:1,run",
            "a:1,expect=a/b/c/d",
            &digest,
        ] {
            assert!(append_to(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for text in [
            "type=nope",
            "dest=x",
            "type=tar",
            "type=tar,dest=x,a=b",
            "type=image,compression=estargz",
            "type=oci,dest=x,tar=maybe",
            "type=oci,dest=x,target=y",
            "type=oci,dest=x,source-date-epoch=today",
            "type=tar,dest=x,rewrite-timestamp=true",
            "type=oci,dest=x,compression-level=10",
        ] {
            assert!(output(text, &[]).is_err(), "{text}");
        }
    }
}
