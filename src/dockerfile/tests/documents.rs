//! The documents that show tables of the code.

use super::super::RULES;

const HEAD: &str = "| rule | asks that | warns when | example |\n|---|---|---|---|\n";

#[test]
fn the_table_of_rules_is_that_of_the_code() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/lint.md");
    let document = std::fs::read_to_string(path).unwrap();
    let rows: String = RULES
        .iter()
        .map(|rule| {
            let mark = if rule.experimental {
                " (experimental)"
            } else {
                ""
            };
            format!(
                "| `{}`{mark} | {} | {} | `{}` |\n",
                rule.name, rule.summary, rule.when, rule.example
            )
        })
        .collect();
    let (before, rest) = document.split_once(HEAD).expect("the table is there");
    let end = rest.find("\n\n").map_or(rest.len(), |at| at + 1);
    if rest[..end] != rows && std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(path, format!("{before}{HEAD}{rows}{}", &rest[end..])).unwrap();
        return;
    }
    assert_eq!(&rest[..end], rows, "UPDATE_EXPECT=1 writes it");
}
