//! Interactive messages: flows, lists and reply buttons (documents 000, 001, 004).

use serde_json::{Map, Value};

use super::{CAPTIONED, DOCUMENT, EXOTEL, MP4, PDF, PNG};
use crate::campaign::problem::{Problem, step};
use crate::campaign::rules::{
    ANY_TEXT, Choice, Findings, Form, Object, Rule, object, one_of, optional, required, text,
};

/// Document 001, Interactive Object; document 000 adds `flow`.
pub(super) const INTERACTIVE: Rule = Rule::Choice(Choice {
    tag: "type",
    common: &[
        required("body", BODY)
            .about("Text of the message.")
            .example(r#"{ "text": "Book your visit, {{ name }}" }"#),
        optional("footer", FOOTER)
            .about("Small text below the message.")
            .example(r#"{ "text": "Reply STOP to opt out" }"#),
    ],
    arms: &[
        (
            "flow",
            object(&[
                optional("header", ANY_HEADER).about("Header above the text.").example(HEADER),
                required("action", FLOW_ACTION)
                    .about("Flow that the button opens.")
                    .example(r#"{ "name": "flow", "parameters": { "flow_message_version": "3", "flow_token": "{{ message_ref }}", "flow_id": "1323", "flow_cta": "Book", "flow_action": "data_exchange" } }"#),
            ]),
        ),
        (
            "list",
            object(&[
                optional("header", TEXT_HEADER).about("Header above the text.").example(HEADER),
                required("action", LIST_ACTION)
                    .about("List that the button opens.")
                    .example(r#"{ "button": "Choose", "sections": [{ "rows": [{ "id": "10", "title": "Ten o'clock" }] }] }"#),
            ]),
        ),
        (
            "button",
            object(&[
                optional("header", ANY_HEADER).about("Header above the text.").example(HEADER),
                required("action", BUTTON_ACTION)
                    .about("Buttons.")
                    .example(r#"{ "buttons": [{ "type": "reply", "reply": { "id": "yes", "title": "Yes" } }] }"#),
            ]),
        ),
    ],
});
const HEADER: &str = r#"{ "type": "text", "text": "Diwali 2026" }"#;

const BODY: Rule = Rule::Object(object(&[required("text", Rule::Text(text(1024, EXOTEL)))
    .about("Text.")
    .example(r#""Book your visit, {{ name }}""#)]));
const FOOTER: Rule = Rule::Object(object(&[required("text", Rule::Text(text(60, EXOTEL)))
    .about("Text.")
    .example(r#""Reply STOP to opt out""#)]));

const HEADER_TEXT: Object =
    object(&[required("text", Rule::Text(text(60, EXOTEL))).about("Text.").example(r#""Diwali 2026""#)]);

/// Document 001: a list message has a text header, reply buttons have any header. Images and videos are the same
/// objects as in messages, with their captions.
const TEXT_HEADER: Rule = Rule::Choice(Choice { tag: "type", common: &[], arms: &[("text", HEADER_TEXT)] });
const ANY_HEADER: Rule = Rule::Choice(Choice {
    tag: "type",
    common: &[],
    arms: &[
        ("text", HEADER_TEXT),
        ("image", object(&[required("image", CAPTIONED).about("Image.").example(PNG)])),
        ("video", object(&[required("video", CAPTIONED).about("Video.").example(MP4)])),
        ("document", object(&[required("document", DOCUMENT).about("Document.").example(PDF)])),
    ],
});

/// Document 000; `galaxy_message` is the name of the on-premises API (document 004).
const FLOW_ACTION: Rule = Rule::Object(object(&[
    required("name", one_of(&["flow", "galaxy_message"]))
        .about("Name of the action; `galaxy_message` on premises.")
        .example(r#""flow""#),
    required(
        "parameters",
        Rule::Object(Object {
            fields: &[
                required("flow_message_version", one_of(&["3"]))
                    .about("Version of flow messages.")
                    .example(r#""3""#),
                required("flow_token", ANY_TEXT)
                    .about("Token that is returned with the reply and identifies the message.")
                    .example(r#""{{ message_ref }}""#),
                required("flow_id", ANY_TEXT).about("Id of the flow at WhatsApp.").example(r#""1323""#),
                required("flow_cta", Rule::Text(text(20, EXOTEL).form(Form::NoEmoji)))
                    .about("Text of the button, without emoji.")
                    .example(r#""Book""#),
                required("flow_action", one_of(&["navigate", "data_exchange"]))
                    .about("Start of the flow: `navigate` opens a screen that the job names; `data_exchange` asks \
                         the flow's endpoint.")
                    .example(r#""navigate""#),
                optional("flow_action_payload", FLOW_PAYLOAD)
                    .about("First screen: required with `navigate`, and not allowed with `data_exchange`.")
                    .example(r#"{ "screen": "WELCOME", "data": { "name": "{{ name }}" } }"#),
                optional("mode", one_of(&["draft", "published"]))
                    .about("Version of the flow.")
                    .example(r#""published""#)
                    .or(r#""published""#),
            ],
            elsewhere: &[],
            also: payload_with_navigate_only,
            also_as_schema: r#"{
                "if": { "properties": { "flow_action": { "const": "navigate" } } },
                "then": { "required": ["flow_action_payload"] },
                "else": { "properties": { "flow_action_payload": false } }
            }"#,
        }),
    )
    .about("Parameters of the flow.")
    .example(r#"{ "flow_message_version": "3", "flow_token": "{{ message_ref }}", "flow_id": "1323", "flow_cta": "Book", "flow_action": "data_exchange" }"#),
]));

const FLOW_PAYLOAD: Rule = Rule::Object(object(&[
    required("screen", ANY_TEXT).about("Name of the screen in the flow.").example(r#""WELCOME""#),
    optional("data", Rule::AnyObject { may_be_empty: false })
        .about("Values for the screen.")
        .example(r#"{ "name": "{{ name }}" }"#),
]));

/// Document 000: required if `flow_action` is navigate, omitted otherwise.
fn payload_with_navigate_only(parameters: &Map<String, Value>, findings: &mut Findings, pointer: &str) {
    let navigates = parameters.get("flow_action").is_some_and(|action| action == "navigate");
    match (navigates, parameters.contains_key("flow_action_payload")) {
        (true, false) => findings.problems.add(Problem {
            missing: Some("flow_action_payload"),
            ..Problem::new(
                pointer,
                "\"flow_action_payload\" is required with flow_action \"navigate\" (Exotel's documentation): name the flow's first screen",
            )
        }),
        (false, true) => findings.problem(
            &step(pointer, "flow_action_payload"),
            "must be omitted unless flow_action is \"navigate\" (Exotel's documentation)",
        ),
        _ => {}
    }
}

/// Document 001: a button of 20 characters, 1 to 10 sections, 10 rows in all.
const LIST_ACTION: Rule = Rule::Object(Object {
    fields: &[
        required("button", Rule::Text(text(20, EXOTEL))).about("Text of the button.").example(r#""Choose""#),
        required("sections", Rule::List { of: &SECTION, min: 1, max: 10 })
            .about("Sections with rows: at most 10 rows in all sections.")
            .example(r#"[{ "rows": [{ "id": "10", "title": "Ten o'clock" }] }]"#),
    ],
    elsewhere: &[],
    also: |action, findings, pointer| {
        let none = Vec::new();
        let sections = action.get("sections").and_then(Value::as_array).unwrap_or(&none);
        let rows = || sections.iter().filter_map(|s| s.get("rows")?.as_array()).flatten();
        if rows().count() > 10 {
            findings.problem(
                &step(pointer, "sections"),
                format!(
                    "has {} rows over all sections; WhatsApp allows 10 (Exotel's documentation)",
                    rows().count()
                ),
            );
        }
        for (index, section) in sections.iter().enumerate() {
            if sections.len() > 1 && section.get("title").is_none() {
                findings.problem(
                    &format!("{pointer}/sections/{index}"),
                    "\"title\" is required when there is more than one section (Exotel's documentation)",
                );
            }
        }
        // Meta's rule: the providers' documents do not have it.
        let ids = rows().filter_map(|row| row.get("id"));
        unique(ids, "row id", "Meta's reference", &step(pointer, "sections"), findings);
    },
    also_as_schema: r#"{
        "if": { "properties": { "sections": { "type": "array", "minItems": 2 } } },
        "then": { "properties": { "sections": { "items": { "required": ["title"] } } } }
    }"#,
});

const SECTION: Rule = Rule::Object(object(&[
    optional("title", Rule::Text(text(24, EXOTEL)))
        .about("Title of the section: required if there are several sections.")
        .example(r#""Morning""#),
    required("rows", Rule::List { of: &ROW, min: 1, max: 10 })
        .about("Rows that the recipient can choose.")
        .example(r#"[{ "id": "10", "title": "Ten o'clock" }]"#),
]));
const ROW: Rule = Rule::Object(object(&[
    required("id", Rule::Text(text(200, EXOTEL)))
        .about("Id that is returned when the row is chosen. Each row has a different id.")
        .example(r#""10""#),
    required("title", Rule::Text(text(24, EXOTEL))).about("Title of the row.").example(r#""Ten o'clock""#),
    optional("description", Rule::Text(text(72, EXOTEL)))
        .about("Small text below the title.")
        .example(r#""Two places left""#),
]));

/// Document 001: up to 3 reply buttons with different titles.
const BUTTON_ACTION: Rule = Rule::Object(Object {
    fields: &[required("buttons", BUTTONS)
        .about("Buttons, each with a different title and id.")
        .example(r#"[{ "type": "reply", "reply": { "id": "yes", "title": "Yes" } }]"#)],
    elsewhere: &[],
    also: |action, findings, pointer| {
        let none = Vec::new();
        let buttons = action.get("buttons").and_then(Value::as_array).unwrap_or(&none);
        for (path, what) in [("/reply/title", "button title"), ("/reply/id", "button id")] {
            let values = buttons.iter().filter_map(|button| button.pointer(path));
            unique(values, what, "Exotel's documentation", &step(pointer, "buttons"), findings);
        }
    },
    also_as_schema: "",
});
const BUTTONS: Rule = Rule::List { of: &BUTTON, min: 1, max: 3 };
const BUTTON: Rule = Rule::Choice(Choice {
    tag: "type",
    common: &[],
    arms: &[(
        "reply",
        object(&[required(
            "reply",
            Rule::Object(object(&[
                required("id", Rule::Text(text(256, EXOTEL).form(Form::Trimmed)))
                    .about("Id that is returned when the button is tapped.")
                    .example(r#""yes""#),
                required("title", Rule::Text(text(20, EXOTEL)))
                    .about("Text of the button.")
                    .example(r#""Yes""#),
            ])),
        )
        .about("Reply button.")
        .example(r#"{ "id": "yes", "title": "Yes" }"#)]),
    )],
});

/// Reports values that must differ, as `source` requires.
fn unique<'a>(
    values: impl Iterator<Item = &'a Value>,
    what: &str,
    source: &str,
    pointer: &str,
    findings: &mut Findings,
) {
    let values: Vec<&str> = values.filter_map(Value::as_str).collect();
    if values.iter().any(|value| findings.waits(value)) {
        findings.check_rendered = true;
    }
    let is_repeated =
        |(index, value): (usize, &&str)| !findings.waits(value) && values[..index].contains(value);
    if values.iter().enumerate().any(is_repeated) {
        findings.problem(pointer, format!("each {what} must be different, but two are the same ({source})"));
    }
}
