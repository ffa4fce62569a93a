//! Compares the parsing of phone numbers in their usual spellings with Google's library for Python.

use std::path::Path;
use std::process::Command;

use flowcast::campaign::PhoneParser;

use crate::tools;

/// Release with the same numbering plans as the Rust library.
const PACKAGE: &str = "phonenumbers==9.0.42";
const COUNT: usize = 20_000;

#[test]
fn spellings_from_all_countries_are_parsed_as_by_googles_library() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/phone_numbers/spellings.py");
    // A different seed each time; a failure prints it.
    let seed = std::env::var("FLOWCAST_TEST_SEED")
        .unwrap_or_else(|_| jiff::Timestamp::now().as_second().to_string());
    let python = tools::python("phonenumbers", PACKAGE).join("bin/python");
    let lines = tools::run(Command::new(python).arg(script).args([&COUNT.to_string(), &seed]));
    let (mut read, mut wrong) = (0, Vec::new());
    for line in lines.lines() {
        let (spelling, region, expected): (String, Option<String>, String) =
            serde_json::from_str(line).unwrap();
        let found = PhoneParser::new(region.as_deref()).parse(&spelling).map(|phone| phone.to_string());
        read += 1;
        if found.as_ref() != Ok(&expected) {
            wrong.push(format!("{spelling} in {region:?} is {expected}, not {found:?}"));
        }
    }
    assert_eq!(read, COUNT);
    assert!(
        wrong.is_empty(),
        "seed {seed}: {} wrong, e.g.\n{}",
        wrong.len(),
        wrong[..wrong.len().min(20)].join("\n")
    );
}
