//! The last lines of a build: what was made, how large, how much came from the cache, what took long, what could be better.

use std::time::Duration;

use super::SummaryLength;
use super::text::{elapsed, one_line, size};
use crate::vocab::{Summary, SummaryImage};

/// Lines of a list in the short form.
const SHORT: usize = 3;
/// Directories of the short form, where they are known.
const DIRECTORIES: usize = 5;
/// What took less is no slow step.
const SLOW: Duration = Duration::from_millis(100);

/// Returns the summary as lines.
pub(super) fn summary_text(summary: &Summary, length: SummaryLength) -> String {
    let most = match length {
        SummaryLength::None => return String::new(),
        SummaryLength::Short => SHORT,
        SummaryLength::Full => usize::MAX,
    };
    let mut text = String::new();
    for image in &summary.images {
        text.push_str(&image_text(image, summary.images.len() > 1, most));
    }
    text.push_str(&format!(
        "{} steps, {} cached, {}\n",
        summary.steps,
        summary.cached,
        elapsed(summary.elapsed)
    ));
    if length == SummaryLength::Full || summary.slowest.len() > 1 {
        let is_worth_a_line = |took: Duration| length == SummaryLength::Full || took >= SLOW;
        let slowest = summary.slowest.iter();
        for (step, took) in slowest
            .filter(|(_, took)| is_worth_a_line(*took))
            .take(most)
        {
            text.push_str(&format!("  {:>6} {}\n", elapsed(*took), one_line(step)));
        }
    }
    for hint in &summary.hints {
        text.push_str(&format!("hint: {}\n", one_line(hint)));
    }
    text
}

fn image_text(image: &SummaryImage, is_one_of_many: bool, most: usize) -> String {
    let mut line = String::from("image");
    if is_one_of_many {
        line.push_str(&format!(" {}", image.platform));
    }
    if let Some(manifest) = &image.manifest {
        line.push_str(&format!(" {}", manifest.digest));
    }
    if !image.names.is_empty() {
        line.push_str(&format!(" {}", image.names.join(" ")));
    }
    let mut text = format!("{line}\n");
    let mut sizes = Vec::new();
    if let Some(unpacked) = image.unpacked_size {
        sizes.push(format!("{} of files", size(unpacked)));
    }
    if let Some(blobs) = image.blob_size {
        sizes.push(format!("{} as layers", size(blobs)));
    }
    if !sizes.is_empty() {
        text.push_str(&format!("  size: {}\n", sizes.join(", ")));
    }
    // A base alone says nothing new.
    if image.layers.len() > 1 || most == usize::MAX {
        let mut layers: Vec<_> = image.layers.iter().collect();
        layers.sort_by_key(|layer| std::cmp::Reverse(layer.size));
        for layer in layers.iter().take(most) {
            let made_by = one_line(&layer.made_by);
            text.push_str(&format!("  {:>8} {made_by}\n", size(layer.size)));
        }
        match layers.len().saturating_sub(most) {
            0 => {}
            more => text.push_str(&format!("           and {more} smaller layers\n")),
        }
    }
    if let Some(contents) = &image.contents {
        for (path, bytes) in contents.directories.iter().take(most.max(DIRECTORIES)) {
            text.push_str(&format!("  {:>8} in {}\n", size(*bytes), one_line(path)));
        }
        match contents.unread {
            0 => {}
            unread => text.push_str(&format!(
                "           without {unread} layers whose files are not on this machine\n"
            )),
        }
    }
    for (stage, bytes) in &image.stages {
        let share = match image.unpacked_size {
            Some(own) if *bytes > own => format!(
                ": the image is {:.1} % of it",
                100.0 * own as f64 / *bytes as f64
            ),
            _ => String::new(),
        };
        text.push_str(&format!(
            "  stage `{stage}`: {} of files{share}\n",
            size(*bytes)
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::vocab::{Platform, SummaryLayer};

    #[test]
    fn the_short_form_has_the_largest_layers_and_the_full_one_all() {
        let layer = |made_by: &str, size| SummaryLayer {
            made_by: made_by.to_owned(),
            size,
        };
        let summary = Summary {
            images: vec![SummaryImage {
                platform: "linux/amd64".parse::<Platform>().unwrap(),
                manifest: None,
                id: None,
                names: vec!["app:1".to_owned()],
                unpacked_size: Some(130_000_000),
                blob_size: Some(50_000_000),
                stages: vec![("build".to_owned(), 1_300_000_000)],
                layers: vec![
                    layer("FROM debian", 100_000_000),
                    layer("RUN apt-get install curl", 20_000_000),
                    layer("COPY a /", 100),
                    layer("COPY b /", 10_000_000),
                ],
                contents: Some(crate::vocab::Contents {
                    directories: vec![
                        ("/usr/lib".to_owned(), 90_000_000),
                        ("/app".to_owned(), 20_000_000),
                    ],
                    unread: 1,
                    ..crate::vocab::Contents::default()
                }),
            }],
            steps: 4,
            cached: 2,
            elapsed: Duration::from_millis(2500),
            slowest: vec![
                (
                    "[2/4] RUN apt-get\ninstall".to_owned(),
                    Duration::from_secs(2),
                ),
                ("[3/4] COPY a /".to_owned(), Duration::from_millis(300)),
                ("[4/4] WORKDIR /".to_owned(), Duration::from_millis(3)),
            ],
            hints: vec!["do this".to_owned()],
            ..Summary::default()
        };
        expect![[r#"
            image app:1
              size: 130MB of files, 50.0MB as layers
                 100MB FROM debian
                20.0MB RUN apt-get install curl
                10.0MB COPY b /
                       and 1 smaller layers
                90.0MB in /usr/lib
                20.0MB in /app
                       without 1 layers whose files are not on this machine
              stage `build`: 1.30GB of files: the image is 10.0 % of it
            4 steps, 2 cached, 2.5s
                2.0s [2/4] RUN apt-get install
                0.3s [3/4] COPY a /
            hint: do this
        "#]]
        .assert_eq(&summary_text(&summary, SummaryLength::Short));
        let full = summary_text(&summary, SummaryLength::Full);
        assert!(full.contains("100B COPY a /"), "{full}");
        assert_eq!(summary_text(&summary, SummaryLength::None), "");
    }
}
