//! All texts of the pages in one list, so that a person can read them in one sitting, and the words that none of them has.

use std::collections::BTreeSet;
use std::path::Path;

/// Words that the guide of the project's language keeps out of pages.
const AVOIDED: [&str; 15] = [
    "whoever",
    "somebody",
    "nobody",
    "by itself",
    "of late",
    "under way",
    "meanwhile",
    "at the most",
    "at the least",
    "all the same",
    "anew",
    "left out",
    "put back",
    "let go",
    "handed",
];

fn files(folder: &Path, ending: &str, found: &mut Vec<std::path::PathBuf>) {
    let mut entries: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            files(&path, ending, found);
        } else if path.extension().is_some_and(|known| known == ending) {
            found.push(path);
        }
    }
}

/// Takes out what stands between two marks.
fn without(text: &str, open: &str, close: &str, instead: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once(open) {
        out += before;
        out += instead;
        rest = behind.split_once(close).map_or("", |(_, after)| after);
    }
    out + rest
}

/// What a template says: its text, and the attributes that are read out or shown.
fn of_template(source: &str) -> BTreeSet<String> {
    let plain = without(&without(source, "{%", "%}", ""), "{{", "}}", "…");
    let mut texts = BTreeSet::new();
    for name in ["title=\"", "placeholder=\"", "aria-label=\""] {
        texts.extend(plain.split(name).skip(1).filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())));
    }
    let blocks = without(&plain, "<", ">", "\n");
    texts.extend(blocks.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")));
    texts.retain(|text| text.chars().filter(|c| c.is_alphabetic()).count() > 1);
    texts
}

/// The sentences of a module: its texts that have a space, without those of its tests.
fn of_module(source: &str) -> BTreeSet<String> {
    let source = source.split("#[cfg(test)]").next().unwrap();
    let code: String = source
        .lines()
        .filter(|line| !line.trim_start().starts_with("//") && !line.contains("tracing::"))
        .collect::<Vec<_>>()
        .join("\n")
        .replace("\\\"", "”")
        .replace("'\"'", "");
    let literals = code.split('"').skip(1).step_by(2);
    let texts = literals
        .map(|text| text.split_whitespace().filter(|word| *word != "\\").collect::<Vec<_>>().join(" "));
    let is_sentence = |text: &String| {
        text.contains(' ')
            && !text.contains("={")
            && !text.contains("src '")
            && text.chars().any(char::is_alphabetic)
    };
    texts.filter(is_sentence).collect()
}

#[test]
fn the_texts_of_the_pages() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http/dashboard");
    let mut all = String::new();
    for (ending, texts_of) in [("html", of_template as fn(&str) -> BTreeSet<String>), ("rs", of_module)] {
        let mut found = Vec::new();
        files(&folder, ending, &mut found);
        for path in found {
            let texts = texts_of(&std::fs::read_to_string(&path).unwrap());
            // The names of countries are CLDR's.
            if texts.is_empty() || path.ends_with("countries.rs") {
                continue;
            }
            let name = path.strip_prefix(&folder).unwrap().display().to_string();
            all += &format!("{name}\n");
            for text in texts {
                let lower = text.to_lowercase();
                for word in AVOIDED {
                    assert!(!lower.contains(word), "{name} says {word:?}: {text}");
                }
                all += &format!("  {text}\n");
            }
        }
    }
    insta::assert_snapshot!(all);
}
