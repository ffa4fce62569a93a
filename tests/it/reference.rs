//! The pages of the reference that are generated from the code: the configuration, the job and the metrics.
//!
//! A test compares each page with what the code gives. `FLOWCAST_WRITE_DOCS=1` writes the pages.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use serde_json::Value;

use crate::schemas::schema;
use crate::support::sources;

/// Types of the configuration that have a description of their own, by definition and name.
const TYPES: [(&str, &str); 3] = [("Secret", "secret"), ("Span", "time"), ("Rate", "limit")];
/// Maximum number of values that a table lists for a type.
const MAX_VALUES: usize = 20;
/// Maximum length of an example in a table, in characters.
const MAX_EXAMPLE: usize = 60;
const TABLE: &str = "| name | type | default | meaning | example |\n|---|---|---|---|---|\n";

/// Writes the properties of a schema as tables.
struct Tables<'s> {
    root: &'s Value,
    /// What the document's language calls an object.
    object: &'static str,
    /// The schemas that tables link to, by title, in the order of the first link.
    sections: Vec<(&'s str, &'s Value)>,
}

impl<'s> Tables<'s> {
    fn new(root: &'s Value, object: &'static str) -> Self {
        Self { root, object, sections: Vec::new() }
    }

    /// Returns the schema behind references, without the alternative of a placeholder.
    fn inner(&self, schema: &'s Value) -> &'s Value {
        let arms = schema["anyOf"].as_array().map(Vec::as_slice);
        match (schema["$ref"].as_str(), arms) {
            (Some(name), _) => self.inner(self.root.pointer(name.trim_start_matches('#')).unwrap()),
            (None, Some([first, second])) if second["$ref"] == "#/$defs/Placeholder" => self.inner(first),
            _ => schema,
        }
    }

    /// Returns the object whose properties belong to the property at `path`, with their prefix.
    fn members(&self, property: &'s Value, path: &str) -> Option<(String, &'s Value)> {
        let schema = self.inner(property);
        [("", schema), ("[]", &schema["items"]), (".NAME", &schema["additionalProperties"])]
            .into_iter()
            .map(|(step, schema)| (format!("{path}{step}."), self.inner(schema)))
            .find(|(_, schema)| schema["properties"].is_object())
    }

    /// Writes a row for each property, and for the properties below it.
    fn rows(&mut self, prefix: &str, schema: &'s Value, text: &mut String) {
        for (name, property) in schema["properties"].as_object().unwrap() {
            let path = format!("{prefix}{name}");
            let is_required =
                schema["required"].as_array().is_some_and(|names| names.iter().any(|known| known == name));
            let default = match property.get("default") {
                _ if is_required => "required".to_owned(),
                Some(value) => code(value),
                None => String::new(),
            };
            let example =
                property["examples"].get(0).filter(|value| !value.is_object() && !holds_objects(value));
            let example = example.map(code).filter(|text| text.chars().count() <= MAX_EXAMPLE);
            let (kind, meaning) = (self.kind(property), cell(property["description"].as_str().unwrap()));
            let example = example.unwrap_or_default();
            writeln!(text, "| `{path}` | {kind} | {default} | {meaning} | {example} |").unwrap();
            if let Some((prefix, below)) = self.members(property, &path) {
                self.rows(&prefix, below, text);
            }
        }
    }

    /// Describes which values a schema accepts.
    fn kind(&mut self, schema: &'s Value) -> String {
        if let Some((_, name)) = TYPES.iter().find(|(name, _)| schema["$ref"] == format!("#/$defs/{name}")) {
            return format!("[{name}](#types)");
        }
        let schema = self.inner(schema);
        if let Some(value) = schema.get("const") {
            return code(value);
        }
        if let Some(arms) = schema["oneOf"].as_array().filter(|_| schema["type"].is_null()) {
            let kinds = arms.iter().map(|arm| self.arm(arm)).collect::<Vec<_>>();
            return any_of(&kinds);
        }
        if let Some(values) = schema["enum"].as_array().filter(|values| values.len() <= MAX_VALUES) {
            return any_of(&values.iter().map(code).collect::<Vec<_>>());
        }
        if let Some(arms) = schema["anyOf"].as_array() {
            // A number may also be written as a string.
            let is_number =
                |arm: &&Value| ["integer", "number"].contains(&arm["type"].as_str().unwrap_or_default());
            if let Some(number) = arms.iter().find(is_number) {
                return self.kind(number);
            }
            let kinds = arms.iter().map(|arm| self.kind(arm)).collect::<Vec<_>>();
            return any_of(&kinds);
        }
        match schema["type"].as_str().unwrap_or("any value") {
            "string" => self.string(schema),
            "array" => {
                let bounds = match (schema["minItems"].as_u64(), schema["maxItems"].as_u64()) {
                    (Some(least), Some(most)) => format!(" with {least} to {most} entries"),
                    _ => String::new(),
                };
                format!("list{bounds}: {}", self.kind(&schema["items"]))
            }
            number @ ("integer" | "number") => match (&schema["minimum"], &schema["maximum"]) {
                (least, Value::Null) => format!("{number} of at least {least}"),
                (least, most) if most.as_u64() == Some(u64::MAX) => format!("{number} of at least {least}"),
                (least, most) => format!("{number} from {least} to {most}"),
            },
            "object" => match &schema["additionalProperties"] {
                Value::Object(each) if !each.contains_key("$ref") => {
                    let each = self.kind(&schema["additionalProperties"]);
                    format!("{}: {each}", self.object)
                }
                _ => self.object.to_owned(),
            },
            other => other.to_owned(),
        }
    }

    /// Describes one of several alternatives: a constant, or an object that has its own section.
    fn arm(&mut self, arm: &'s Value) -> String {
        if let Some(value) = arm.get("const") {
            return code(value);
        }
        let title = arm["title"].as_str().unwrap();
        match self.sections.iter().find(|(known, _)| *known == title) {
            Some((_, known)) => assert_eq!(*known, arm, "two sections are called {title:?}"),
            None => self.sections.push((title, arm)),
        }
        let value = code(&arm["properties"]["type"]["const"]);
        format!("[{value}](#{})", title.to_lowercase().replace(' ', "-"))
    }

    fn string(&self, schema: &Value) -> String {
        let pattern = &schema["pattern"];
        let definition = |name: &str| &self.root["$defs"][name]["pattern"];
        let named = TYPES.iter().find(|(name, _)| pattern.is_string() && definition(name) == pattern);
        let is_link =
            |pattern: &Value| pattern.as_str().is_some_and(|text| text.starts_with("^[Hh][Tt][Tt][Pp]"));
        match (named, schema["then"]["maxLength"].as_u64()) {
            (Some((_, name)), _) => format!("[{name}](#types)"),
            _ if is_link(pattern) || is_link(&schema["then"]["pattern"]) || schema["format"] == "uri" => {
                "URL".into()
            }
            (None, Some(most)) => format!("string of at most {most} characters"),
            (None, None) => "string".into(),
        }
    }
}

/// Whether a list contains objects: too much for a cell of a table.
fn holds_objects(value: &Value) -> bool {
    value.as_array().is_some_and(|items| items.iter().any(|item| item.is_object() || item.is_array()))
}

/// Joins alternatives.
fn any_of(kinds: &[String]) -> String {
    match kinds {
        [all @ .., last] if !all.is_empty() => format!("{} or {last}", all.join(", ")),
        _ => kinds.concat(),
    }
}

/// Returns a value as code in a cell of a table: a string without its quotes.
fn code(value: &Value) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    format!("`{}`", cell(&text))
}

/// Returns a text as a cell of a table.
fn cell(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

fn configuration_page() -> String {
    let schema = schema("config");
    let mut text = "# Configuration\n\n\
        Every key of `flowcast.toml`. The page is generated from the schema that `flowcast schema config` prints.\n\n\
        flowcast reads the file that `--config` names, else the file that `FLOWCAST_CONFIG` names, else `./flowcast.toml` if it\n\
        exists. Environment variables override keys: `FLOWCAST_REDIS__URL` overrides `redis.url`. `NAME` stands for the name of\n\
        an entry, and `[]` for each entry of a list. [Changing the configuration](../operations/configuration.md) says when a\n\
        change takes effect.\n"
        .to_owned();
    let mut tables = Tables::new(&schema, "table");
    for (name, property) in schema["properties"].as_object().unwrap() {
        let (prefix, below) = tables.members(property, name).unwrap();
        write!(text, "\n## `{name}`\n\n{}\n\n{TABLE}", cell(property["description"].as_str().unwrap()))
            .unwrap();
        tables.rows(&prefix, below, &mut text);
    }
    text += "\n## Types\n\n| type | meaning |\n|---|---|\n";
    for (definition, name) in TYPES {
        let meaning = cell(schema["$defs"][definition]["description"].as_str().unwrap());
        writeln!(text, "| {name} | {meaning} |").unwrap();
    }
    assert!(tables.sections.is_empty());
    text
}

fn job_page() -> String {
    let schema = schema("job");
    let mut text = "# Job\n\n\
        Every field of a job. The page is generated from the schema that `flowcast schema job` prints. [The job](../guide/job.md)\n\
        is the guide, and [Schemas](schemas.md#limits-of-a-schema) lists the rules that a schema cannot express.\n\n\
        `[]` stands for each entry of a list. Strings in `message`, `custom_data` and `extra_info` may contain placeholders:\n\
        `{{ column }}`. A limit of characters applies to the rendered string. In `message`, an object, a list or a boolean may\n\
        also be a string with a placeholder.\n\n\
        ## Fields\n\n"
        .to_owned();
    let mut tables = Tables::new(&schema, "object");
    text += TABLE;
    tables.rows("", &schema, &mut text);
    let mut written = 0;
    while let Some((title, section)) = tables.sections.get(written).copied() {
        write!(text, "\n## {title}\n\n{TABLE}").unwrap();
        tables.rows("", section, &mut text);
        written += 1;
    }
    text
}

/// Returns the labels with which the code counts a metric.
fn labels(name: &str, code: &str) -> Vec<String> {
    let start = format!("\"{name}\"");
    let mut found = Vec::new();
    for call in code.split("metrics::").skip(1) {
        let Some((_, arguments)) = call.split_once("!(").filter(|(kind, _)| kind.len() < 10) else {
            continue;
        };
        let Some(rest) = arguments.trim_start().strip_prefix(&start) else { continue };
        let call = rest.split(';').next().unwrap();
        for label in
            call.split("=>").filter_map(|before| before.trim_end().strip_suffix('"')?.rsplit('"').next())
        {
            if !found.iter().any(|known| known == label) {
                found.push(label.to_owned());
            }
        }
    }
    found
}

fn metrics_page() -> String {
    let code: String = sources("src").into_iter().map(|(_, text)| text).collect();
    let mut rows = BTreeMap::new();
    for call in code.split("describe_").skip(1) {
        let Some((kind, arguments)) = call.split_once("!(") else { continue };
        let strings: Vec<&str> = arguments.split('"').skip(1).step_by(2).take(2).collect();
        let labels: Vec<String> =
            labels(strings[0], &code).iter().map(|label| format!("`{label}`")).collect();
        rows.insert(strings[0], format!("| {kind} | {} | {} |", labels.join(", "), cell(strings[1])));
    }
    assert!(rows.len() > 10, "no metrics found: {rows:?}");
    let mut text = "# Metrics\n\n\
        Every metric of a worker, which serves them at `/metrics` in the format of Prometheus. The page is generated from the\n\
        descriptions in the code. [Monitoring](../operations/monitoring.md) says what to watch. Histograms are in seconds, and\n\
        have the series `_bucket`, `_sum` and `_count`.\n\n\
        | metric | type | labels | meaning |\n|---|---|---|---|\n"
        .to_owned();
    for (name, row) in rows {
        writeln!(text, "| `{name}` {row}").unwrap();
    }
    text
}

/// Checks that a page is what the code gives; with `FLOWCAST_WRITE_DOCS=1` writes it.
fn assert_current(page: &str, generated: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference").join(page);
    if std::env::var_os("FLOWCAST_WRITE_DOCS").is_some() {
        std::fs::write(&path, generated).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == generated, "docs/reference/{page} is outdated; FLOWCAST_WRITE_DOCS=1 writes it");
}

#[test]
fn the_page_on_the_configuration_is_current() {
    assert_current("configuration.md", &configuration_page());
}

#[test]
fn the_page_on_the_job_is_current() {
    assert_current("job.md", &job_page());
}

#[test]
fn the_page_on_metrics_is_current() {
    assert_current("metrics.md", &metrics_page());
}
