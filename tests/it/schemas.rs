//! Compares flowcast's validation of documents with a Python validator that uses the published schemas.

use std::path::Path;
use std::process::Command;

use flowcast::campaign::Job;
use flowcast::config::Config;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use serde_json::{Map, Value, json};

use crate::support::first_seed_of_commit;
use crate::tools::{interface_tools, node, run};

/// Returns for each document whether it is valid by the schema.
pub fn validate(schema: &Value, documents: &[Value]) -> Vec<bool> {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: String| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let validator = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/schemas/judge.py");
    let mut python = Command::new(interface_tools().join("bin/python"));
    python.arg(validator).arg(write("schema.json", schema.to_string()));
    python.arg(write("documents", documents.iter().map(|document| format!("{document}\n")).collect()));
    let output = python.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(|line| line == "true").collect()
}

pub fn schema(document: &str) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_flowcast")).args(["schema", document]).output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Texts that are often wrong, or valid in an unusual form.
const TEXTS: [&str; 48] = [
    "",
    " ",
    "x",
    "{{ name }}",
    "{% if x %}",
    "{{",
    "}}",
    "-a",
    "a b",
    "ünï",
    "😀",
    "a\u{feff}",
    "\u{a0}x",
    "IN",
    "in",
    "XX",
    ";",
    "\t",
    ";;",
    "\"",
    "80/s",
    "0/s",
    "007/min , burst = 5",
    "80/min,burst=0",
    "80/week",
    "99999999999/s",
    "09:00",
    "9:00",
    "24:00",
    "2026-13-01T09:00:00Z",
    "2026-02-30",
    "T09:00:30",
    "2026-11-01T09:00:00+05:30",
    "2026-11-01 09:00Z",
    "2026-11-01",
    "2026-11-01T09:00:00",
    "yesterday",
    "Asia/Kolkata",
    "Asia/Kolkatta",
    "https://example.com/x",
    "HTTP:example.com",
    "ftp://example.com",
    "+912248931479",
    "0091 22 4893 1479",
    "022 4893 1479",
    "tel:+91-22-4893-1479",
    "wa.me/912248931479",
    "+९१२२४८९३१४७९",
];

/// Returns a value of any type.
fn any_value(random: &mut SmallRng) -> Value {
    match random.random_range(0..10) {
        0 => Value::Null,
        1 => json!(random.random_bool(0.5)),
        2 => json!([0, 1, 2, 9, 10, 100, 101, -1].choose(random)),
        3 => json!([0.5, -180.0, 180.5, 1.0, 1e30].choose(random)),
        4 => json!([]),
        5 => json!({}),
        6 => json!({ "x": TEXTS.choose(random), "y": ["{{ y }}", 1, null] }),
        7 => json!("x".repeat(
            *[20, 21, 60, 61, 72, 73, 200, 201, 1_024, 1_025, 4_097, 65_537].choose(random).unwrap()
        )),
        _ => json!(TEXTS.choose(random)),
    }
}

/// Returns a value that is mostly valid by a schema.
fn generate(schema: &Value, root: &Value, random: &mut SmallRng) -> Value {
    let pick =
        |list: &Value, random: &mut SmallRng| list.as_array().and_then(|list| list.choose(random).cloned());
    if let Some(example) = pick(&schema["examples"], random)
        && random.random_bool(0.3)
    {
        return example;
    }
    if let Some(name) = schema["$ref"].as_str() {
        return generate(root.pointer(name.trim_start_matches('#')).unwrap(), root, random);
    }
    for kind in ["oneOf", "anyOf"] {
        if schema["type"].is_null()
            && let Some(arm) = pick(&schema[kind], random)
        {
            return generate(&arm, root, random);
        }
    }
    if let Some(value) = schema.get("const").cloned().or_else(|| pick(&schema["enum"], random)) {
        return value;
    }
    match schema["type"].as_str() {
        Some("object") => {
            let mut map = Map::new();
            let needed = schema["required"].as_array().cloned().unwrap_or_default();
            // The property of the alternatives of which exactly one is required.
            let one = pick(&schema["oneOf"], random).map(|arm| arm["required"][0].clone());
            for (name, rule) in schema["properties"].as_object().into_iter().flatten() {
                let is_required = needed.contains(&json!(name)) || one == Some(json!(name));
                if is_required || one.is_none() && random.random_bool(0.3) {
                    map.insert(name.clone(), generate(rule, root, random));
                }
            }
            if schema["properties"].is_null() {
                map.insert("name".into(), json!(TEXTS.choose(random)));
            }
            map.into()
        }
        Some("array") => {
            let count = random.random_range(0..4);
            (0..count).map(|_| generate(&schema["items"], root, random)).collect()
        }
        Some("integer" | "number") => {
            let number = schema["minimum"].as_f64().unwrap() + f64::from(random.random_range(0..4_u8));
            if schema["type"] == "integer" { json!(number as u64) } else { json!(number) }
        }
        Some("boolean") => json!(random.random_bool(0.5)),
        _ => pick(&schema["examples"], random)
            .filter(|_| random.random_bool(0.8))
            .unwrap_or_else(|| json!(TEXTS.choose(random))),
    }
}

/// Collects the pointers of all values in a document.
fn collect_pointers(value: &Value, at: &str, found: &mut Vec<String>) {
    let below: Vec<(String, &Value)> = match value {
        Value::Object(map) => map.iter().map(|(name, value)| (name.clone(), value)).collect(),
        Value::Array(items) => {
            items.iter().enumerate().map(|(nth, value)| (nth.to_string(), value)).collect()
        }
        _ => Vec::new(),
    };
    for (name, value) in below {
        let pointer = format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"));
        collect_pointers(value, &pointer, found);
        found.push(pointer);
    }
}

/// Changes, adds or removes one value of a document.
fn mutate(document: &mut Value, random: &mut SmallRng) {
    let mut found = Vec::new();
    collect_pointers(document, "", &mut found);
    let Some(pointer) = found.choose(random) else { return };
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    let other = any_value(random);
    match (random.random_range(0..4), document.pointer_mut(parent).unwrap()) {
        (0, Value::Object(map)) => drop(map.shift_remove(name)),
        (1, Value::Object(map)) => drop(map.insert("unknown".into(), other)),
        (1, Value::Array(items)) => items.push(items[0].clone()),
        (_, _) => *document.pointer_mut(pointer).unwrap() = other,
    }
}

/// Rules that the schema of a job cannot express, each with a part of flowcast's error.
///
/// `docs/reference/schemas.md` lists them.
const BEYOND_JOBS: [(&str, &str); 14] = [
    ("A whole number that is written as 1.0", "must be a whole number"),
    ("Whether the number of `from` can exist", "write the number with + and the country code"),
    ("Invalid dates and times", "must be a time with an offset"),
    ("Invalid dates and times", "must be a time of day"),
    ("Invalid dates and times", "must be a date in the form YYYY-MM-DD"),
    ("Time zones", "must be a time zone of the IANA database"),
    ("An end before the start", "must be after start_at"),
    ("A window that never opens", "never opens"),
    ("Encodings", "must be an encoding's WHATWG or IANA name"),
    ("Emoji on a button", "must not contain an emoji"),
    ("Addresses without a host", "must be an http:// or https:// address"),
    ("Rows of all sections together, and duplicate ids or titles", "over all sections"),
    ("Rows of all sections together, and duplicate ids or titles", "must be different, but two are the same"),
    ("The range of a number that is written as a string", "must be a number from"),
];

/// Rules that the schema of the configuration cannot express, each with a part of flowcast's error.
const BEYOND_CONFIGURATIONS: [(&str, &str); 4] = [
    ("A whole number that is written as 1.0", "must be a whole number"),
    ("A whole number that is written as 1.0", "invalid type: found float"),
    ("Addresses without a host", "must be an http:// or https:// address"),
    ("Invalid URLs", "relative URL without a base"),
];

/// Compares the results of both validations on generated documents.
fn compare(
    document: &str,
    count: u64,
    beyond: &[(&str, &str)],
    check: impl Fn(&Value) -> Option<Result<(), Vec<String>>>,
) {
    let schema = schema(document);
    let first = first_seed_of_commit();
    let count = std::env::var("FLOWCAST_SCHEMA_SEEDS").ok().map_or(count, |count| count.parse().unwrap());
    let documents: Vec<Value> = (first..first + count)
        .map(|seed| {
            let mut random = SmallRng::seed_from_u64(seed);
            let mut document = generate(&schema, &schema, &mut random);
            for _ in 0..random.random_range(0..3) {
                mutate(&mut document, &mut random);
            }
            document
        })
        .collect();
    let (mut accepted, mut refused, mut wrong) = (0, 0, Vec::new());
    for (nth, (document, passes)) in documents.iter().zip(validate(&schema, &documents)).enumerate() {
        let seed = first + nth as u64;
        match (check(document), passes) {
            (None, _) => {}
            (Some(Ok(())), true) => accepted += 1,
            (Some(Err(_)), false) => refused += 1,
            (Some(Ok(())), false) => {
                wrong.push(format!("seed {seed}: the schema refuses what flowcast accepts: {document}"));
            }
            (Some(Err(problems)), true) => {
                let is_beyond = |problem: &String| beyond.iter().any(|(_, error)| problem.contains(error));
                let other = problems.iter().find(|problem| !is_beyond(problem));
                let message = |other| {
                    format!("seed {seed}: the schema accepts what flowcast refuses: {other}: {document}")
                };
                wrong.extend(other.map(message));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {count}, e.g.:\n{}",
        wrong.len(),
        wrong[..wrong.len().min(10)].join("\n")
    );
    // Both results must occur.
    assert!(
        accepted > count / 20 && refused > count / 20,
        "{accepted} accepted, {refused} refused of {count}"
    );
}

#[test]
fn the_schema_of_a_job_and_flowcast_agree() {
    let check = |document: &Value| match Job::read(document.to_string().as_bytes()) {
        Ok(_) => Ok(()),
        Err(problems) => Err(problems.into_iter().map(|problem| problem.message).collect()),
    };
    compare("job", 3_000, &BEYOND_JOBS, |document| Some(check(document)));
}

/// Returns a document in TOML, or `None` if it contains null, which TOML does not have.
fn toml(document: &Map<String, Value>) -> Option<String> {
    fn value(of: &Value) -> Option<String> {
        match of {
            Value::Null => None,
            Value::Array(items) => {
                Some(format!("[{}]", items.iter().map(value).collect::<Option<Vec<_>>>()?.join(", ")))
            }
            Value::Object(map) => Some(format!("{{ {} }}", pairs(map)?.join(", "))),
            // Strings and numbers have the syntax of JSON.
            other => Some(other.to_string()),
        }
    }
    fn pairs(map: &Map<String, Value>) -> Option<Vec<String>> {
        map.iter().map(|(key, of)| Some(format!("{} = {}", json!(key), value(of)?))).collect()
    }
    Some(pairs(document)?.join("\n"))
}

#[test]
fn the_schema_of_the_configuration_and_flowcast_agree() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("flowcast.toml");
    compare("config", 1_000, &BEYOND_CONFIGURATIONS, |document| {
        std::fs::write(&file, toml(document.as_object()?)?).unwrap();
        Some(Config::load(Some(&file)).map(drop).map_err(|error| vec![error.to_string()]))
    });
}

/// Moves the definitions of a schema to the components of a document, and returns the rest of the schema.
fn as_component(mut schema: Value, components: &mut Map<String, Value>) -> Value {
    let map = schema.as_object_mut().unwrap();
    map.shift_remove("$schema");
    map.shift_remove("$id");
    for (name, definition) in
        map.shift_remove("$defs").as_ref().and_then(Value::as_object).into_iter().flatten()
    {
        components.insert(name.clone(), definition.clone());
    }
    schema
}

/// Returns the `AsyncAPI` document of the queue and the exchange.
fn asyncapi() -> Value {
    let mut schemas = Map::new();
    let job = as_component(schema("job"), &mut schemas);
    let event = as_component(schema("event"), &mut schemas);
    schemas.insert("Job".into(), job);
    schemas.insert("Control".into(), flowcast::campaign::control::control_schema());
    schemas.insert("Event".into(), event);
    let text = Value::Object(schemas).to_string().replace("#/$defs/", "#/components/schemas/");
    let schemas: Value = serde_json::from_str(&text).unwrap();
    let queue = json!({ "name": "flowcast.jobs", "durable": true, "exclusive": false, "autoDelete": false });
    let exchange =
        json!({ "name": "flowcast.events", "type": "topic", "durable": true, "autoDelete": false });
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "flowcast", "version": env!("CARGO_PKG_VERSION"),
            "description": "Jobs and control documents that flowcast takes from RabbitMQ, and events that it publishes there.",
            "license": { "name": "MIT OR Apache-2.0" },
        },
        "defaultContentType": "application/json",
        "channels": {
            "jobs": {
                "address": "flowcast.jobs",
                "description": "Jobs and control documents: the queue itself, or the exchange flowcast.jobs with the routing key `job`. Publish them persistent.",
                "messages": {
                    "job": { "$ref": "#/components/messages/job" },
                    "control": { "$ref": "#/components/messages/control" },
                },
                "bindings": { "amqp": { "is": "queue", "queue": queue, "bindingVersion": "0.3.0" } },
            },
            "events": {
                "address": "{event}",
                "description": "What happened. The routing key is the event's name.",
                "parameters": { "event": { "description": "The event's name, as `campaign.completed`." } },
                "messages": { "event": { "$ref": "#/components/messages/event" } },
                "bindings": { "amqp": { "is": "routingKey", "exchange": exchange, "bindingVersion": "0.3.0" } },
            },
        },
        "operations": {
            "takeDocument": {
                "action": "receive", "channel": { "$ref": "#/channels/jobs" },
                "summary": "Takes a job or a control document. One that is refused goes to the queue flowcast.dead.",
            },
            "publishEvent": {
                "action": "send", "channel": { "$ref": "#/channels/events" },
                "summary": "Tells what happened, after it was recorded.",
            },
        },
        "components": {
            "messages": {
                "job": { "title": "Job", "contentType": "application/json", "payload": { "$ref": "#/components/schemas/Job" } },
                "control": { "title": "Control document", "contentType": "application/json", "payload": { "$ref": "#/components/schemas/Control" } },
                "event": {
                    "title": "Event", "contentType": "application/json", "payload": { "$ref": "#/components/schemas/Event" },
                    "description": "The property `message_id` is the event's id, and `type` its name.",
                },
            },
            "schemas": schemas,
        },
    })
}

/// Compares the `AsyncAPI` document in `docs` with the one from the schemas. `FLOWCAST_WRITE_DOCS=1` writes it.
#[test]
fn the_asyncapi_document_is_valid_and_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference/asyncapi.json");
    let generated = format!("{:#}\n", asyncapi());
    if std::env::var_os("FLOWCAST_WRITE_DOCS").is_some() {
        std::fs::write(&path, &generated).unwrap();
    }
    assert!(
        std::fs::read_to_string(&path).unwrap_or_default() == generated,
        "docs/reference/asyncapi.json is outdated; FLOWCAST_WRITE_DOCS=1 writes it"
    );
    let folder = tempfile::tempdir().unwrap();
    let script = "
        const { Parser } = require('@asyncapi/parser');
        const { readFileSync } = require('node:fs');
        new Parser().parse(readFileSync(process.argv[1], 'utf8')).then(({ document, diagnostics }) => {
            const serious = diagnostics.filter((found) => found.severity <= 1);
            console.log(JSON.stringify(serious, null, 1));
            process.exit(document && serious.length === 0 ? 0 : 1);
        });";
    run(node(folder.path()).args(["-e", script]).arg(path));
}

#[test]
fn the_schemas_of_events_and_reports_are_valid() {
    for document in ["event", "report"] {
        assert_eq!(validate(&schema(document), &[]), [] as [bool; 0]);
    }
}

/// Returns the code blocks of a page in a language.
pub fn blocks(page: &str, language: &str) -> Vec<String> {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(page)).unwrap();
    let start = format!("```{language}\n");
    page.split(&start).skip(1).map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

/// Asserts that the programs in the documentation and the libraries of Standard Webhooks accept the signature of a request,
/// and refuse it with another body or timestamp.
pub fn assert_genuine(head: &str, body: &str, key: &str) {
    let headers: Map<String, Value> = head
        .lines()
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), json!(value)))
        .collect();
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("request.json", &json!({ "headers": headers, "body": body, "key": key }).to_string());
    write("sample.py", &blocks("docs/reference/events.md", "python")[1]);
    write("sample.mjs", &blocks("docs/reference/events.md", "js")[0]);
    write(
        "check.py",
        "import json\n\
         from sample import is_genuine\n\
         from standardwebhooks import Webhook, WebhookVerificationError\n\
         request = json.load(open('request.json'))\n\
         headers, body, key = request['headers'], request['body'].encode(), request['key']\n\
         assert is_genuine(headers, body, key) and not is_genuine(headers, body + b' ', key)\n\
         assert not is_genuine({**headers, 'webhook-timestamp': '1614265330'}, body, key)\n\
         Webhook(key).verify(body, headers)\n\
         try:\n\
         \tWebhook(key).verify(body + b' ', headers)\n\
         \traise SystemExit('a forged body is accepted')\n\
         except WebhookVerificationError:\n\
         \tpass\n",
    );
    write(
        "check.mjs",
        "import { readFileSync } from 'node:fs';\n\
         import assert from 'node:assert';\n\
         import { Webhook } from 'standardwebhooks';\n\
         import { isGenuine } from './sample.mjs';\n\
         const { headers, body, key } = JSON.parse(readFileSync('request.json', 'utf8'));\n\
         assert(isGenuine(headers, Buffer.from(body), key) && !isGenuine(headers, Buffer.from(body + ' '), key));\n\
         new Webhook(key).verify(body, headers);\n\
         assert.throws(() => new Webhook(key).verify(body + ' ', headers));\n",
    );
    run(Command::new(interface_tools().join("bin/python")).arg("check.py").current_dir(folder.path()));
    run(node(folder.path()).arg("check.mjs"));
}
