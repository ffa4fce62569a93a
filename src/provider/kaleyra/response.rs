//! Parses the response to a request (document 002).

use jsonc_parser::{CollectOptions, ParseOptions, ast::Object, parse_to_ast};
use serde::Deserialize;
use serde_json::Value;

use super::HttpResponse;
use crate::campaign::DoubtCause;
use crate::campaign::codes::{self, Source};
use crate::provider::answer::{Entry, ParsedBody, short, to_text};

/// The code of an accepted message.
const TAKEN: &str = "WA202";

/// Parses the response to a request of one message.
pub(super) fn parse(reply: &HttpResponse) -> ParsedBody {
    if let Some(sid) = taken(&reply.body) {
        return ParsedBody::Entries(vec![Entry::Accepted { sid: sid.to_owned() }]);
    }
    let Some(Words { code: Some(code), message, message_id, error }) = words(&reply.body) else {
        return ParsedBody::Foreign { text: String::new() };
    };
    if code != TAKEN {
        let known = codes::lookup(Source::Kaleyra, &code).or_else(|| codes::of_meta_handed_on(&code));
        let text = match error {
            Some((field, why)) => format!("{code}: {message} ({field}: {why})"),
            None => format!("{code}: {message}"),
        };
        return ParsedBody::Error { text: short(&text), code: Some(code), known };
    }
    ParsedBody::Entries(vec![match message_id {
        Some(sid) if !sid.is_empty() => Entry::Accepted { sid },
        _ => Entry::Unknown(DoubtCause::NoMessageId.into()),
    }])
}

/// The documented fields of a response.
struct Words {
    code: Option<String>,
    message: String,
    message_id: Option<String>,
    /// The invalid field and the reason: `"error": {"phone_number": …}`.
    error: Option<(String, String)>,
}

/// Parses the usual response without building a JSON tree. Any other response is left to [`words`].
fn taken(body: &[u8]) -> Option<&str> {
    #[derive(Deserialize)]
    struct Body<'b> {
        code: &'b str,
        #[serde(borrow)]
        data: Data<'b>,
    }
    #[derive(Deserialize)]
    struct Data<'b> {
        message_id: &'b str,
    }
    let body: Body<'_> = serde_json::from_slice(body).ok()?;
    Some(body.data.message_id).filter(|sid| body.code == TAKEN && !sid.is_empty())
}

/// Parses a response as JSON, or leniently: the document's own sample lacks commas.
fn words(body: &[u8]) -> Option<Words> {
    if let Ok(json) = serde_json::from_slice::<Value>(body) {
        return Some(Words {
            code: to_text(json.get("code")),
            message: to_text(json.get("message")).unwrap_or_default(),
            message_id: to_text(json.pointer("/data/message_id")),
            error: json
                .get("error")
                .and_then(Value::as_object)
                .and_then(|error| {
                    error.iter().find_map(|(field, why)| Some((field.clone(), to_text(Some(why))?)))
                })
                .filter(|(field, _)| field != "error"),
        });
    }
    let lenient = ParseOptions {
        allow_missing_commas: true,
        allow_trailing_commas: true,
        allow_comments: false,
        allow_loose_object_property_names: false,
        allow_single_quoted_strings: false,
        allow_hexadecimal_numbers: false,
        allow_unary_plus_numbers: false,
        allow_bare_decimal_point_numbers: false,
        allow_non_finite_numbers: false,
        allow_extended_string_escapes: false,
    };
    let text = std::str::from_utf8(body).ok()?;
    // Use the tree parser, because only it limits the nesting depth of a hostile response.
    let tree = parse_to_ast(text, &CollectOptions::default(), &lenient).ok()?;
    let root = tree.value?;
    let object = root.as_object()?;
    let text = |object: &Object<'_>, name| object.get_string(name).map(|text| text.value.to_string());
    Some(Words {
        code: text(object, "code"),
        message: text(object, "message").unwrap_or_default(),
        message_id: object.get_object("data").and_then(|data| text(data, "message_id")),
        error: None,
    })
}
