//! What right files mean.

use super::*;

/// Reads instructions in a stage; nothing in them is an error.
fn check(instructions: &str, expected: &str) {
    let text = format!("FROM x\n{instructions}");
    let (dockerfile, diagnostics) = parse(&text);
    let errors: Vec<_> = diagnostics.into_iter().filter(|d| d.is_error()).collect();
    assert_eq!(tell(&text, &errors), "", "{instructions}");
    let found = describe(&dockerfile);
    assert_eq!(
        found.strip_prefix("FROM <x>\n"),
        Some(format!("{expected}\n").as_str()),
        "{instructions}"
    );
}

fn check_file(text: &str, expected: &str) {
    let (dockerfile, diagnostics) = parse(text);
    let errors: Vec<_> = diagnostics.into_iter().filter(|d| d.is_error()).collect();
    assert_eq!(tell(text, &errors), "", "{text}");
    assert_eq!(describe(&dockerfile), expected, "{text}");
}

#[test]
fn lines_and_keywords() {
    check("  run\techo  a  b  ", "RUN <echo  a  b>");
    check("RUN echo a \\\n    b", "RUN <echo a     b>");
    check(
        "RUN a && \\\n# comment\n  # indented\n  b",
        "RUN <a &&   b>",
    );
    check("RUN a # not a comment", "RUN <a # not a comment>");
    check("RUN a \\", "RUN <a>");
    check("RUN a \\\\", "RUN <a \\\\>");
    check("RUN a\\\r\nb\r\n", "RUN <ab>");
    check("R\\\nUN a", "RUN <a>");
    check("RUN", "RUN <>");
    check("CMD", "CMD <>");
    check("RUN -- --x", "RUN <--x>");
    check("RUN --network=none -- --x", "RUN <--x> network=<none>");
}

#[test]
fn from_and_stages() {
    check_file(
        "\u{feff}# comment\nARG V=1 W\nARG X\nfrom --platform=$BUILDPLATFORM a:$V As Build\nFROM build\nFROM scratch as x.y-z_1",
        "ARG V=<1> W\nARG X\nFROM <a:$V> platform=<$BUILDPLATFORM> as=<build>\nFROM <build>\nFROM <scratch> as=<x.y-z_1>\n",
    );
    check_file("FROM ${A:-b} AS b", "FROM <${A:-b}> as=<b>\n");
    check_file("FROM --platform= a", "FROM <a>\n");
}

#[test]
fn json_and_shell_forms() {
    check(
        r#"RUN ["a", "b c", "\u00e9\t"]"#,
        "RUN [\"a\", \"b c\", \"é\\t\"]",
    );
    check("RUN ['a', 'b']", "RUN <['a', 'b']>");
    check("RUN [ -f x ] && y", "RUN <[ -f x ] && y>");
    check("CMD [\"a\", \\\n  \"b\"]", "CMD [\"a\", \"b\"]");
    check("CMD []", "CMD []");
    check("ENTRYPOINT []", "ENTRYPOINT []");
    check(r#"ENTRYPOINT ["a"] b"#, "ENTRYPOINT <[\"a\"] b>");
    check(
        r#"SHELL ["/bin/bash", "-c"]"#,
        "SHELL [\"/bin/bash\", \"-c\"]",
    );
    check(r#"VOLUME ["/a b", "/c"]"#, "VOLUME </a b> </c>");
    check("VOLUME /a /b", "VOLUME </a> </b>");
    check(r#"COPY ["a b", "c", "/d e/"]"#, "COPY <a b> <c> to </d e/>");
}

#[test]
fn copy_and_add() {
    check("COPY a b /c/", "COPY <a> <b> to </c/>");
    check("COPY \"a b\" /c", "COPY <\"a> <b\"> to </c>");
    check(
        "COPY --from=build --chown=a:b --chmod=u+x --link --parents --exclude=*.o --exclude=!x.o a b",
        "COPY <a> to <b> from=<build> chown=<a:b> chmod=<u+x> link parents exclude=<*.o> exclude=<!x.o>",
    );
    check(
        "COPY --link=false --parents=TRUE a b",
        "COPY <a> to <b> parents",
    );
    check(
        "COPY --chown=\"a b\":c --chmod=\\7 a b",
        "COPY <a> to <b> chown=<a b:c> chmod=<7>",
    );
    check("COPY --chown= a b", "COPY <a> to <b>");
    check(
        "ADD --checksum=sha256:ab --unpack --keep-git-dir=false --link --chown=1 https://x/y /z",
        "ADD <https://x/y> to </z> chown=<1> link checksum=<sha256:ab> unpack=true keep-git-dir=false",
    );
    check("COPY a\\\n   b /c", "COPY <a> <b> to </c>");
}

#[test]
fn env_label_and_arg_words() {
    check(
        "ENV A=b C=\"d e\" F='g h' I=j\\ k",
        "ENV <A>=<b> <C>=<\"d e\"> <F>=<'g h'> <I>=<j\\ k>",
    );
    check("ENV A=", "ENV <A>=<>");
    check("ENV A=b=c", "ENV <A>=<b=c>");
    check("ENV A b  c=d", "ENV <A>=<b  c=d> legacy");
    check("ENV A=\"x \\\n  y\"", "ENV <A>=<\"x   y\">");
    check("ENV A=\"x\\\" y\" B=1", "ENV <A>=<\"x\\\" y\"> <B>=<1>");
    check("ENV A='x\\' B=1", "ENV <A>=<'x\\'> <B>=<1>");
    check("LABEL e f g", "LABEL <e>=<f g> legacy");
    check("LABEL \"a b\"=\"c d\"", "LABEL <\"a b\">=<\"c d\">");
    check("ARG A B=\"x y\" C=", "ARG A B=<\"x y\"> C=<>");
}

#[test]
fn whole_line_arguments() {
    check("WORKDIR /a b", "WORKDIR </a b>");
    check("USER a:b", "USER <a:b>");
    check("STOPSIGNAL SIGTERM", "STOPSIGNAL <SIGTERM>");
    check("MAINTAINER  Some One <a@b>", "MAINTAINER <Some One <a@b>>");
    check("EXPOSE 80/tcp  443 \t$P", "EXPOSE <80/tcp> <443> <$P>");
}

#[test]
fn healthchecks() {
    check("HEALTHCHECK none", "HEALTHCHECK NONE");
    check(
        "HEALTHCHECK --interval=1m30s --timeout=500ms --start-period=0s --start-interval=1s --retries=3 cmd curl  x",
        "HEALTHCHECK <curl  x> interval=90s timeout=500ms start-interval=1s retries=3",
    );
    check("HEALTHCHECK CMD [\"a\"]", "HEALTHCHECK [\"a\"]");
    check("HEALTHCHECK --retries=0 CMD a", "HEALTHCHECK <a> retries=0");
}

#[test]
fn run_flags() {
    check(
        "RUN --mount=type=cache,dst=/c,sharing=locked,mode=0700,uid=1 --mount=type=secret,id=s,required --network=host --security=insecure --device=vendor.com/class=name,required x",
        "RUN <x> mount:type=<cache>target=</c>sharing=<locked>mode=<0700>uid=<1> mount:type=<secret>id=<s>required; network=<host> security=<insecure> device=<vendor.com/class=name,required>",
    );
    check(
        "RUN --mount=TYPE=Bind,Source=a,target=$T,ro=false --mount=from=b,src=/,destination=m,rw x",
        "RUN <x> mount:type=<Bind>source=<a>target=<$T>readonly=<false> mount:from=<b>source=</>target=<m>readwrite;",
    );
    check(
        "RUN --mount=type=$T,size=$S,mode=$M x",
        "RUN <x> mount:type=<$T>size=<$S>mode=<$M>",
    );
    check("RUN --mount=type=ssh x", "RUN <x> mount:type=<ssh>");
    check(
        "RUN --mount=type=tmpfs,target=/t,size=64MiB x",
        "RUN <x> mount:type=<tmpfs>target=</t>size=<64MiB>",
    );
    check(
        "RUN --mount=type=secret,id=s,env=TOKEN x",
        "RUN <x> mount:type=<secret>id=<s>env=<TOKEN>",
    );
}

#[test]
fn heredocs() {
    check(
        "RUN <<EOF\na\n  b $X\nEOF\nUSER u",
        "RUN <<<EOF> <<EOF\"a\\n  b $X\\n\"\nUSER <u>",
    );
    check(
        "RUN <<-'EOF' sh\n\ta\n\tEOF",
        "RUN <<<-'EOF' sh> <<-'EOF'\"a\\n\"",
    );
    check(
        "RUN cat <<A && cat <<B\n1\nA\n2\nB\n",
        "RUN <cat <<A && cat <<B> <<A\"1\\n\" <<B\"2\\n\"",
    );
    check(
        "RUN <<EOF\n# kept\n\\\n\nEOF",
        "RUN <<<EOF> <<EOF\"# kept\\n\\\\\\n\\n\"",
    );
    check("RUN [\"<<EOF\"]", "RUN [\"<<EOF\"]");
    check("RUN echo $((1<<2))", "RUN <echo $((1<<2))>");
    check("USER <<EOF", "USER <<<EOF>");
    check(
        "COPY <<A x <<'B c' /d/\n1\nA\n2\nB c\n",
        "COPY <<A\"1\\n\" <x> <<'B c'\"2\\n\" to </d/>",
    );
    check("COPY <<  A /d\n1\nA", "COPY <<A\"1\\n\" to </d>");
    check("COPY <<A /d\r\nx\r\nA\r\n", "COPY <<A\"x\\r\\n\" to </d>");
    check(
        "ADD --chmod=755 <<A /d\nA",
        "ADD <<A\"\" to </d> chmod=<755>",
    );
    check(
        "RUN a \\\n <<EOF \\\n b\nx\nEOF",
        "RUN <a  <<EOF  b> <<EOF\"x\\n\"",
    );
}

#[test]
fn triggers_are_kept_as_written() {
    check(
        "ONBUILD  run --mount=type=cache,target=/x  a  b",
        "ONBUILD \"run --mount=type=cache,target=/x  a  b\"",
    );
    check("OnBuild COPY a \\\n  b", "ONBUILD \"COPY a   b\"");
    check(
        "ONBUILD RUN <<-A && <<'B'\n\t1\nA\n2\nB",
        "ONBUILD \"RUN <<-A && <<'B'\\n\\t1\\nA\\n2\\nB\"",
    );
    // Blanks at the end are in the image's config too.
    check("ONBUILD RUN a  ", "ONBUILD \"RUN a  \"");
}

#[test]
fn triggers_are_read_again() {
    for (text, expected) in [
        ("RUN a", "RUN <a>"),
        ("copy --from=x a b", "COPY <a> to <b> from=<x>"),
        ("RUN <<A\n1\nA", "RUN <<<A> <<A\"1\\n\""),
        ("ARG A=1", "ARG A=<1>"),
        ("ENV A=b\\\n C=d", "ENV <A>=<b> <C>=<d>"),
    ] {
        assert_eq!(describe_kind(&parse_trigger(text).unwrap().kind), expected);
    }
    for text in [
        "",
        "FROM x",
        "ONBUILD RUN a",
        "MAINTAINER a",
        "RUN a\nRUN b",
        "NOPE",
        "RUN <<A",
        "ENV",
    ] {
        let diagnostics = parse_trigger(text).expect_err(text);
        assert!(diagnostics.iter().any(|d| d.is_error()), "{text}");
    }
}

#[test]
fn directives() {
    let read = |text: &str| {
        let (dockerfile, _) = parse(text);
        let value = |word: Option<Word>| word.map_or("-".to_owned(), |word| word.value);
        let directives = dockerfile.directives;
        format!(
            "{} {} {} {}",
            dockerfile.escape,
            value(directives.syntax),
            value(directives.escape),
            value(directives.check)
        )
    };
    for (text, expected) in [
        (
            "# syntax=docker/dockerfile:1\nFROM a",
            "\\ docker/dockerfile:1 - -",
        ),
        (
            "#  Syntax = x y \r\n# ESCAPE=`\n# check=skip=all\nFROM a",
            "` x y ` skip=all",
        ),
        ("\u{feff}  # escape=`\nFROM a", "` - ` -"),
        ("# other=x\n# escape=`\nFROM a", "\\ - - -"),
        ("\n# escape=`\nFROM a", "\\ - - -"),
        ("# text\n# escape=`\nFROM a", "\\ - - -"),
        ("FROM a\n# escape=`\n", "\\ - - -"),
        (
            "#!/usr/bin/env x\n# syntax=a\n# escape=`\nFROM a",
            "\\ a - -",
        ),
        ("//syntax=a\nFROM a", "\\ a - -"),
        ("{\"x\": 1, \"syntax\": \"a\"}", "\\ a - -"),
        ("# syntax=\nFROM a", "\\ - - -"),
    ] {
        assert_eq!(read(text), expected, "{text}");
    }
    check_file(
        "# escape=`\nFROM a\nRUN b `\n c\\\nUSER d`e",
        "FROM <a>\nRUN <b  c\\>\nUSER <d`e>\n",
    );
    check_file(
        "# escape=`\nFROM a\nENV A=b` c D=\"e`\" f\"",
        "FROM <a>\nENV <A>=<b` c> <D>=<\"e`\" f\">\n",
    );
}

#[test]
fn spans_point_at_what_was_written() {
    let text = "\u{feff}# c\nFROM --platform=p a AS Bé\n\n  RUN <<E \\\n  x\nbody\nE\nENV A=b \\\n  C=\"d e\"\n";
    // `Bé` is no name: the file is wrong, and read all the same.
    let (dockerfile, _) = parse(text);
    let at = |span: crate::vocab::Span| &text[span.start..span.end];
    let stage = &dockerfile.stages[0];
    assert_eq!(at(stage.from.span), "FROM --platform=p a AS Bé");
    assert_eq!(at(stage.from.value.image.span), "a");
    assert_eq!(at(stage.from.value.platform.as_ref().unwrap().span), "p");
    assert_eq!(at(stage.instructions[0].span), "RUN <<E \\\n  x\nbody\nE");
    assert_eq!(stage.instructions[0].text, "RUN <<E   x");
    let InstructionKind::Env(pairs) = &stage.instructions[1].kind else {
        panic!("is ENV");
    };
    assert_eq!(at(pairs[1].key.span), "C");
    assert_eq!(at(pairs[1].value.span), "\"d e\"");
}
