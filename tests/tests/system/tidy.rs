//! The rules of the tree, applied to the tree.

use std::fs;
use std::process::Command;

use larder_tests::tidy::source::Source;
use larder_tests::tidy::{
    Finding, crates, documents, layout, licences, names, root, safety, words,
};

fn assert_tidy(check: impl Fn(&Source) -> Vec<Finding>) {
    let findings: Vec<Finding> = Source::all(&root()).iter().flat_map(check).collect();
    let list: String = findings.iter().map(|finding| format!("\n  {finding}")).collect();
    assert!(findings.is_empty(), "{} places:{list}", findings.len());
}

#[test]
fn lines_are_short() {
    assert_tidy(layout::long_lines);
}

#[test]
fn files_are_short() {
    assert_tidy(layout::long_file);
}

#[test]
fn functions_are_short() {
    assert_tidy(layout::long_functions);
}

#[test]
fn nothing_is_left_over_and_the_text_is_about_the_project() {
    assert_tidy(words::check);
}

#[test]
fn unsafe_code_is_where_it_may_be_and_explained() {
    assert_tidy(safety::forbidden);
    assert_tidy(safety::unexplained);
}

#[test]
fn crates_use_only_those_below_them() {
    assert_tidy(crates::check);
}

#[test]
fn a_public_type_has_a_name_of_its_own() {
    let findings = names::shared(&Source::all(&root()));
    let list: String = findings.iter().map(|finding| format!("\n  {finding}")).collect();
    assert!(findings.is_empty(), "{} places:{list}", findings.len());
}

#[test]
fn documents_describe_the_code_as_it_is() {
    let root = root();
    let sources = Source::all(&root);
    let is_blessing = std::env::var_os("LARDER_TIDY_BLESS").is_some_and(|value| value == "1");
    let mut findings = Vec::new();
    for (document, must_describe) in documents::DOCUMENTS {
        let found = documents::check(&sources, document, must_describe);
        match documents::blessed(&sources, document) {
            Some(text) if is_blessing && !found.is_empty() => {
                fs::write(root.join(document), text).expect("the document can be written");
                println!("blessed {document}");
            }
            _ => findings.extend(found.iter().map(Finding::to_string)),
        }
    }
    assert!(findings.is_empty(), "{}", findings.join("\n"));
}

#[test]
fn packages_have_licences_and_versions_that_are_allowed() {
    let root = root();
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--locked"])
        .current_dir(&root)
        .output()
        .expect("cargo can be run");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo metadata: {errors}");
    let metadata = String::from_utf8(output.stdout).expect("cargo writes UTF-8");
    let packages = licences::packages(&metadata).expect("metadata");
    let deny = fs::read_to_string(root.join("deny.toml")).expect("deny.toml");
    let policy = licences::policy(&deny).expect("deny.toml is understood");
    let findings = licences::check(&packages, &policy);
    assert!(findings.is_empty(), "{}", findings.join("\n"));
}
