//! The page of a build: what is in it, and what a browser makes of it.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::support::browser::{Browser, Window};
use crate::support::lab::{Lab, Ran};

const DESKTOP: Window = Window {
    width: 1280,
    height: 900,
    is_dark: false,
};
const PHONE: Window = Window {
    width: 390,
    height: 844,
    is_dark: false,
};

/// What nobody should be able to do to a reader of the page.
const ATTACK: &str = "</script><script>document.title='taken'</script><img src=http://127.0.0.1:9/x onerror=alert(1)>";

/// A build with stages side by side, copies, a mount, something in the cache, and files that ship for nothing.
const DOCKERFILE: &str = "\
FROM base AS tools
RUN echo tools; head -c 3000000 /dev/zero | tr '\\0' t > /tool

FROM base AS assets
COPY src /src
RUN for n in 1 2 3 4 5; do echo bundle $n; done; mkdir -p /out/js /out/css; head -c 4000000 /dev/zero > /out/js/app.js; head -c 900000 /dev/zero > /out/css/app.css

FROM base AS compile
COPY --from=tools /tool /usr/local/bin/tool
RUN --mount=type=bind,from=assets,source=/out,target=/assets ls -R /assets; head -c 8000000 /dev/zero > /program

FROM base AS final
RUN head -c 6000000 /dev/zero > /var/unused; mkdir -p /opt/data; head -c 2500000 /dev/zero > /opt/data/table
RUN rm /var/unused
COPY --from=compile /program /usr/bin/program
COPY --from=assets /out /srv
WORKDIR /srv
";

struct Built {
    lab: Lab,
    page: PathBuf,
    ran: Ran,
}

impl Built {
    fn text(&self) -> String {
        fs::read_to_string(&self.page).unwrap()
    }

    fn data(&self) -> Value {
        let text = self.text();
        let (_, rest) = text.split_once("id=\"build\">").unwrap();
        serde_json::from_str(rest.split_once("</script>").unwrap().0).unwrap()
    }
}

fn build(lab: Lab, dockerfile: &str) -> Built {
    lab.dockerfile(dockerfile);
    lab.file("src/main.js", "// the program\n");
    lab.file("src/style.css", "body {}\n");
    let context = lab.context();
    let context = context.to_str().unwrap();
    // Relative to where the builder was begun.
    let words = [
        "build",
        "--progress=plain",
        "--report",
        "pages/build.html",
        "-t",
        "shop:1",
        "--jobs=4",
        context,
    ];
    let ran = lab.builder(&words);
    let page = lab.path("pages/build.html");
    Built { lab, page, ran }
}

fn several_stages() -> Option<Built> {
    let lab = Lab::with_base()?;
    // What is in the cache at the second time.
    let first = build(lab, &DOCKERFILE.replace("bundle", "pack"));
    first.ran.succeeds();
    let built = build(first.lab, DOCKERFILE);
    built.ran.succeeds();
    Some(built)
}

#[test]
fn the_page_tells_steps_sizes_and_why() {
    let Some(built) = several_stages() else {
        return;
    };
    let data = built.data();
    assert_eq!(data["succeeded"], true);
    let state = |text: &str| {
        let steps = data["steps"].as_array().unwrap();
        let name = |step: &&Value| step["name"].as_str().unwrap().contains(text);
        steps.iter().find(name).unwrap()["state"].clone()
    };
    assert_eq!(state("[tools 2/2] RUN"), "cached");
    assert_eq!(state("[assets 3/3] RUN"), "done");
    let text = built.text();
    for wanted in [
        "the command changed",
        "bundle 5",
        "found under key",
        "Ships for nothing",
        "/var/unused",
        "✓ Built",
        "shop:1",
    ] {
        assert!(text.contains(wanted), "{wanted}");
    }
    let covered = &data["images"][0]["covered"][0];
    assert_eq!(covered["path"], "/var/unused");
    assert_eq!(covered["size"], 6_000_000);
    assert_eq!(covered["deleted"], true);
    built.ran.succeeds();
    assert!(
        built.ran.stderr.contains("ship all the same"),
        "{}",
        built.ran.stderr
    );
    // Only what was asked for is shown.
    assert!(!built.ran.stderr.contains("found under key"));
    built.lab.is_sound();
}

#[test]
fn a_summary_in_full_tells_directories_and_a_short_one_does_not_read_them() {
    let Some(lab) = Lab::with_base() else { return };
    lab.dockerfile(
        "FROM base\nRUN mkdir -p /opt/big; head -c 90000000 /dev/zero > /opt/big/file\n",
    );
    let short = lab.build(&[]);
    let full = lab.build(&["--summary=full"]);
    assert!(!short.succeeds().stderr.contains(" in /opt/big"));
    let stderr = &full.succeeds().stderr;
    assert!(stderr.contains("90.0MB in /opt/big"), "{stderr}");
}

#[test]
fn a_build_that_fails_has_its_page() {
    let Some(lab) = Lab::with_base() else { return };
    let dockerfile = format!(
        "FROM base\nRUN echo fine\nRUN echo \"{ATTACK}\"; echo last words; exit 3\nRUN echo never\n"
    );
    let built = build(lab, &dockerfile);
    built.ran.fails(5, &["exit code 3"]);
    let text = built.text();
    for wanted in [
        "✕ Failed",
        "last words",
        "not reached",
        "exit code 3",
        "Dockerfile:3",
    ] {
        assert!(text.contains(wanted), "{wanted}");
    }
    assert_eq!(built.data()["exitCode"], 5);

    let built = build(built.lab, "FROM base\nRUNN x\n");
    built.ran.fails(3, &["RUNN"]);
    assert!(built.text().contains("RUNN"));
    // The page is whole, or not there: nothing is left beside it.
    let left = fs::read_dir(built.page.parent().unwrap()).unwrap().count();
    assert_eq!(left, 1);
}

#[test]
fn a_page_that_cannot_be_written_fails_the_build_and_hides_no_other_failure() {
    let Some(lab) = Lab::with_base() else { return };
    let nowhere = lab.file("file", "").join("page.html");
    let nowhere = nowhere.to_str().unwrap();
    lab.dockerfile("FROM base\nRUN exit 1\n");
    // Known before anything is executed.
    let refused = lab.build(&["--report", nowhere]);
    refused.fails(6, &["cannot write", "Not a directory"]);
    assert!(!refused.stderr.contains("exit code 1"), "{refused:?}");
    lab.build(&["--iidfile", nowhere])
        .fails(6, &["cannot write"]);
    // Known when it is written.
    let full = "/dev/full";
    lab.build(&["--report", full])
        .fails(5, &["cannot write", "exit code 1"]);
    lab.dockerfile("FROM base\n");
    lab.build(&["--report", full]).fails(6, &["cannot write"]);
}

#[test]
fn a_secret_is_not_in_the_page() {
    let Some(lab) = Lab::with_base() else { return };
    lab.dockerfile(
        "FROM base\nRUN --mount=type=secret,id=key cat /run/secrets/key; echo seen; exit 1\n",
    );
    lab.file("../key", "very-much-hidden\n");
    let key = format!("id=key,src={}", lab.path("key").display());
    lab.build(&["--report", "page.html", "--secret", &key])
        .fails(5, &["seen"]);
    let text = fs::read_to_string(lab.path("page.html")).unwrap();
    assert!(text.contains("seen") && !text.contains("very-much-hidden"));
}

/// How many elements there are.
fn count(browser: &mut Browser, selector: &str) -> u64 {
    let expression = format!("document.querySelectorAll({selector:?}).length");
    browser.evaluate(&expression).as_u64().unwrap()
}

/// What is wider than the window, outside of what scrolls by itself.
fn overflow(browser: &mut Browser) -> i64 {
    let wider = "document.scrollingElement.scrollWidth - innerWidth";
    browser.evaluate(wider).as_i64().unwrap()
}

/// Keeps a picture for people who want to see it: `BUILDER_TEST_PICTURES` is a directory.
fn keep(name: &str, png: &[u8]) {
    if let Some(directory) = std::env::var_os("BUILDER_TEST_PICTURES") {
        fs::write(PathBuf::from(directory).join(name), png).unwrap();
    }
}

#[test]
fn a_browser_draws_the_page_on_a_desktop_on_a_phone_and_in_the_dark() {
    let Some(mut browser) = Browser::start() else {
        return;
    };
    let Some(built) = several_stages() else {
        return;
    };
    let mut lightness = Vec::new();
    for (name, window) in [
        ("desktop", DESKTOP),
        (
            "desktop-dark",
            Window {
                is_dark: true,
                ..DESKTOP
            },
        ),
        ("phone", PHONE),
        (
            "phone-dark",
            Window {
                is_dark: true,
                ..PHONE
            },
        ),
    ] {
        browser.open(&built.page, "", window);
        assert_eq!(browser.complaints(), Vec::<String>::new(), "{name}");
        assert_eq!(browser.requests().len(), 1, "the page and nothing else");
        assert!(overflow(&mut browser) <= 0, "{name}");
        let picture = browser.picture(true);
        keep(&format!("{name}.png"), &picture.png);
        assert_eq!(picture.width, window.width as usize);
        assert!(picture.colours() > 100, "{name} is blank");
        lightness.push(picture.lightness());
    }
    // The picture of docs/report.md: everything anew.
    let context = built.lab.context();
    let words = [
        "build",
        "--no-cache",
        "--jobs=4",
        "--report",
        "anew.html",
        "-t",
        "shop:1",
    ];
    let mut words = words.to_vec();
    words.push(context.to_str().unwrap());
    built.lab.builder(&words).succeeds();
    let window = Window {
        width: 1000,
        height: 1258,
        is_dark: false,
    };
    browser.open(&built.lab.path("anew.html"), "", window);
    keep("report.png", &browser.picture(false).png);
    assert!(
        lightness[0] > 200.0 && lightness[2] > 200.0,
        "{lightness:?}"
    );
    assert!(lightness[1] < 60.0 && lightness[3] < 60.0, "{lightness:?}");

    browser.open(&built.page, "", DESKTOP);
    let executed = built.ran.executed() as u64;
    let bars = count(&mut browser, "#timeline li .bar");
    assert!(bars >= executed, "{bars} bars of {executed} steps");
    // The base, and four stages.
    assert_eq!(count(&mut browser, "#stages .node"), 5);
    assert_eq!(count(&mut browser, "#stages .node.final"), 2);
    assert_eq!(count(&mut browser, "#stages path.edge.root"), 4);
    assert_eq!(count(&mut browser, "#stages path.edge.copy"), 3);
    assert_eq!(count(&mut browser, "#stages path.edge.mount"), 1);
    assert!(count(&mut browser, ".map.wide .cell") > 10);
    let shown = "[...document.querySelectorAll('.map')].map(map => map.getBoundingClientRect().width > 0).join()";
    assert_eq!(browser.evaluate(shown), "true,false");

    // Every chart has a place on the page, every heading an order, every link an end.
    let loose = "[...document.querySelectorAll('a[href^=\"#\"]')].filter(a => !document.getElementById(a.hash.slice(1))).map(a => a.hash).join()";
    assert_eq!(browser.evaluate(loose), "");
    let unnamed = "[...document.querySelectorAll('svg[role=img]')].filter(svg => !svg.querySelector('title') && !svg.getAttribute('aria-label')).length";
    assert_eq!(browser.evaluate(unnamed), 0);
}

#[test]
fn a_link_opens_its_step_and_the_filter_finds_outputs() {
    let Some(mut browser) = Browser::start() else {
        return;
    };
    let Some(built) = several_stages() else {
        return;
    };
    let data = built.data();
    let steps = data["steps"].as_array().unwrap();
    let bundle = steps
        .iter()
        .find(|step| step["name"].as_str().unwrap().contains("bundle"));
    let vertex = bundle.unwrap()["vertex"].as_u64().unwrap();
    browser.open(&built.page, &format!("#s{vertex}"), DESKTOP);
    let open = format!("document.getElementById('s{vertex}').open");
    assert_eq!(browser.evaluate(&open), true);
    let filter = "filter.value = 'bundle 4'; filter.dispatchEvent(new Event('input')); document.querySelectorAll('details.step:not([hidden])').length";
    assert_eq!(browser.evaluate(filter), 1);
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn what_a_step_prints_does_nothing_in_a_browser() {
    let Some(mut browser) = Browser::start() else {
        return;
    };
    let Some(lab) = Lab::with_base() else { return };
    let dockerfile = format!(
        "FROM base AS a\nRUN touch \"/a{}\"; echo \"{ATTACK}\"\nFROM base\nRUN echo \"{ATTACK}\"; echo \"$(yes long | head -c 3000 | tr -d '\\n')\"; exit 3\n",
        "<img src=x>"
    );
    let built = build(lab, &dockerfile);
    built.ran.fails(5, &[]);
    for window in [DESKTOP, PHONE] {
        browser.open(&built.page, "", window);
        assert_eq!(browser.complaints(), Vec::<String>::new());
        assert_eq!(browser.requests().len(), 1);
        assert_eq!(browser.evaluate("document.title"), "✕ shop:1");
        assert_eq!(count(&mut browser, "img, script:not([type]) ~ script"), 0);
        assert!(overflow(&mut browser) <= 0, "{window:?}");
        keep("failed.png", &browser.picture(true).png);
    }
}
