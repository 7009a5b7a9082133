//! What a target can be given.

use super::*;

/// Writes an outline, one thing a line, with the line of the text that it is from.
fn shown(case: &Case) -> String {
    let (dockerfile, _) = parse(case.text);
    let mut bases = BTreeMap::new();
    let outline = loop {
        match outline(&dockerfile, &case.inputs(), &bases).unwrap() {
            Outlined::Ready(outline) => break outline,
            Outlined::Wanted(wanted) => {
                for base in wanted {
                    bases.insert(base.key.clone(), case.base(&base.key));
                }
            }
        }
    };
    let line = |span: crate::vocab::Span| case.text[..span.start].matches('\n').count() + 1;
    let mut out = format!("{:?} {:?}\n", outline.name, outline.description);
    for arg in &outline.args {
        let (value, description) = (arg.value.as_deref(), arg.description.as_deref());
        out.push_str(&format!(
            "{} arg {}={} {}\n",
            line(arg.span),
            arg.name,
            value.unwrap_or("?"),
            description.unwrap_or_default()
        ));
    }
    for (kind, mounts) in [
        ("secret", &outline.secrets),
        ("ssh", &outline.ssh),
        ("cache", &outline.caches),
    ] {
        for mount in mounts {
            let mark = if mount.required { "!" } else { "" };
            out.push_str(&format!(
                "{} {kind} {}{mark}\n",
                line(mount.span),
                mount.name
            ));
        }
    }
    out
}

#[test]
fn arguments_come_from_where_they_get_their_value() {
    let text = "# BASE the image\nARG BASE=a UNUSED=x\nARG NAME=n\nFROM $BASE AS first\nARG OWN=${NAME}o\nFROM scratch AS other\nARG ELSE=1\n# last it is\nFROM first AS last\n\
        # NAME who\nARG NAME TARGETARCH\nARG BARE\nARG OWN=mine\n";
    expect_test::expect![[r#"
        Some("last") Some("it is")
        2 arg BASE=a the image
        3 arg NAME=n 
        12 arg BARE=? 
        13 arg OWN=mine 
    "#]]
    .assert_eq(&shown(&case(text)));
    let text = "ARG TAG=1\nARG BASE=a:$TAG\nFROM $BASE\nARG NAME\n";
    expect_test::expect![[r#"
        None None
        1 arg TAG=2 
        2 arg BASE=a:2 
        4 arg NAME=given 
    "#]]
    .assert_eq(&shown(&case(text).arg("TAG", "2").arg("NAME", "given")));
}

#[test]
fn mounts_are_told_with_their_variables_replaced() {
    let text = "FROM a\nARG ID=s\nRUN --mount=type=secret,id=$ID,required --mount=type=ssh --mount=type=cache,target=/c x\nRUN --mount=type=secret,target=/run/x/key --mount=type=ssh,id=git,required=true --mount=type=cache,id=i,target=/d --mount=target=/b x\n";
    expect_test::expect![[r#"
        None None
        2 arg ID=s 
        3 secret s!
        4 secret key
        3 ssh default
        4 ssh git!
        3 cache /c
        4 cache i
    "#]]
    .assert_eq(&shown(&case(text)));
}
