//! The `OpenAPI` document: generated from the routes, with additions that their types cannot express.
//!
//! It also decides which query parameters are allowed: others are refused.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::response::{IntoResponse, Response};
use axum::{http::Method, middleware::Next};
use serde_json::{Map, Value, json};
use url::form_urlencoded;
use utoipa::openapi::OpenApi;

use super::super::problem::Problem;
use super::BASE;
use crate::campaign::{
    SkipReason, codes::Advice, job::job_schema, problem::nearest, text::shortened, visible,
};

/// Descriptions of the operations' tags.
const TAGS: [(&str, &str); 7] = [
    ("campaigns", "Submit, list and control campaigns"),
    ("reports", "The outcome of each message, and the replies"),
    ("audiences", "Files with recipients"),
    ("suppressed", "Numbers that are never messaged"),
    ("accounts", "Accounts at providers, with their limits and holds"),
    ("codes", "The meanings of codes in reports"),
    ("audit", "The actions of people"),
];
/// Example of a job.
const EXAMPLE: &str = r#"{
    "version": 1,
    "id": "diwali-2026",
    "account": "main",
    "from": "+912248931479",
    "audience": { "csv": { "path": "diwali.csv", "default_region": "IN" } },
    "message": { "type": "text", "text": { "body": "Dear {{ name }}, we are open until nine." } },
    "limits": { "messages": "50/s" }
}"#;
/// The actions of the audit log.
const ACTS: [&str; 11] = [
    "submit", "pause", "resume", "cancel", "retry", "resolve", "recover", "suppress", "upload", "requeue",
    "discard",
];
/// Maximum length of a parameter's name in an error, in bytes.
const LONGEST_NAME: usize = 100;

/// Returns the complete document.
pub(super) fn document(described: &OpenApi) -> Value {
    let mut document = serde_json::to_value(described).unwrap_or_default();
    let tags = TAGS.map(|(name, description)| json!({ "name": name, "description": description }));
    document["tags"] = json!(tags);
    let mut job = job_schema();
    if let Some(map) = job.as_object_mut() {
        map.shift_remove("$schema");
        // With its own id, its references would not be resolved in this document.
        map.shift_remove("$id");
        for (name, mut definition) in map.shift_remove("$defs").and_then(into_object).into_iter().flatten() {
            refer_to_components(&mut definition);
            document["components"]["schemas"][name] = definition;
        }
    }
    refer_to_components(&mut job);
    document["components"]["schemas"]["Job"] = job;
    let example: Value = serde_json::from_str(EXAMPLE).unwrap_or_default();
    let job = json!({ "schema": { "$ref": "#/components/schemas/Job" }, "example": example });
    document["paths"]["/campaigns"]["post"]["requestBody"]["content"]["application/json"] = job;
    let bytes = json!({ "schema": { "type": "string", "format": "binary" } });
    let form = json!({ "schema": {
        "type": "object",
        "properties": { "file": { "type": "string", "format": "binary" } },
        "required": ["file"],
    } });
    let reasons = json!(SkipReason::ALL.iter().map(|reason| reason.as_str()).collect::<Vec<_>>());
    let schemas = &mut document["components"]["schemas"];
    for (schema, property, rule, values) in [
        ("Status", "skipped", "propertyNames", json!({ "enum": reasons })),
        ("Checked", "skipped", "propertyNames", json!({ "enum": reasons })),
        ("RowProblem", "reason", "enum", reasons),
        ("CodeView", "action", "enum", json!(Advice::ALL.map(Advice::as_str))),
        ("ActView", "what", "enum", json!(ACTS)),
    ] {
        schemas[schema]["properties"][property][rule] = values;
    }
    let upload = &mut document["paths"]["/audiences"]["post"]["requestBody"]["content"];
    upload["application/octet-stream"] = bytes;
    upload["multipart/form-data"] = form;
    document
}

fn into_object(value: Value) -> Option<Map<String, Value>> {
    if let Value::Object(map) = value { Some(map) } else { None }
}

/// Rewrites references to a schema's definitions as references to the document's components.
fn refer_to_components(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            if let Some(Value::String(reference)) = map.get_mut("$ref") {
                *reference = reference.replace("#/$defs/", "#/components/schemas/");
            }
            map.values_mut().for_each(refer_to_components);
        }
        Value::Array(items) => items.iter_mut().for_each(refer_to_components),
        _ => {}
    }
}

/// The allowed query parameters by method and route.
pub(super) struct Queries(HashMap<(Method, String), BTreeSet<String>>);

impl Queries {
    /// Reads them from a document.
    pub(super) fn read(document: &Value) -> Self {
        // The document does not include its own route.
        let mut known = HashMap::from([((Method::GET, format!("{BASE}/openapi.json")), BTreeSet::new())]);
        let paths = document["paths"].as_object().into_iter().flatten();
        for (path, operations) in paths {
            for (method, operation) in operations.as_object().into_iter().flatten() {
                let parameters = operation["parameters"].as_array().into_iter().flatten();
                let in_query = parameters.filter(|parameter| parameter["in"] == "query");
                let names = in_query.filter_map(|parameter| parameter["name"].as_str()).map(str::to_owned);
                if let Ok(method) = method.to_uppercase().parse() {
                    known.insert((method, format!("{BASE}{path}")), names.collect());
                }
            }
        }
        Self(known)
    }

    /// Returns the error for the first parameter of a query that the route does not have.
    fn unknown(&self, method: &Method, route: &str, query: &str) -> Option<String> {
        let method = if *method == Method::HEAD { Method::GET } else { method.clone() };
        let known = self.0.get(&(method, route.to_owned()))?;
        let mut given = form_urlencoded::parse(query.as_bytes());
        let (name, _) = given.find(|(name, _)| !known.contains(&**name))?;
        let near = nearest(&name, known.iter().map(String::as_str));
        Some(format!("unknown parameter {:?}{near}", shortened(&visible(&name), LONGEST_NAME)))
    }
}

/// Refuses parameters that a route does not have, because a misspelt one would be silently ignored.
pub(super) async fn refuse_unknown(
    State(queries): State<Arc<Queries>>,
    route: Option<MatchedPath>,
    request: Request,
    next: Next,
) -> Response {
    let unknown = route
        .zip(request.uri().query())
        .and_then(|(route, query)| queries.unknown(request.method(), route.as_str(), query));
    match unknown {
        Some(detail) => Problem::bad_request(detail).into_response(),
        None => next.run(request).await,
    }
}
