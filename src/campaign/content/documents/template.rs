//! Templates: name, language and the values of their components (documents 002, 004).

use serde_json::{Map, Value};

use super::{DOCUMENT, LINKED, LOCATION, MP4, PDF, PLACE, PNG};
use crate::campaign::problem::step;
use crate::campaign::rules::{
    ANY_TEXT, Authority, Choice, Field, Findings, Form, Object, Rule, Spelled, Text, object, one_of,
    optional, required, text,
};

/// Documents 002 and 004: a template's name, language and components. Meta's reference says what a name
/// may be.
pub(super) const TEMPLATE: Rule = Rule::Object(Object { elsewhere: OF_MAKING, ..object(TEMPLATE_FIELDS) });
const TEMPLATE_FIELDS: &[Field] = &[
    required("name", Rule::Text(text(512, Authority::Meta).form(Form::Name)))
        .about("Name of the template.")
        .example(r#""diwali_offer""#),
    required(
        "language",
        Rule::Object(object(&[
            required("code", ANY_TEXT)
                .about("Code of the language, with or without the country.")
                .example(r#""en_US""#),
            optional("policy", one_of(&["deterministic"]))
                .about("Language policy: the template is sent in this language only.")
                .example(r#""deterministic""#)
                .or(r#""deterministic""#),
        ])),
    )
    .about("Language of the template.")
    .example(r#"{ "code": "en_US" }"#),
    optional("components", Rule::List { of: &COMPONENT, min: 0, max: usize::MAX })
        .about("Values of the template's header, body and buttons.")
        .example(r#"[{ "type": "body", "parameters": [{ "type": "text", "text": "{{ name }}" }] }]"#)
        .or("[]"),
];

/// Document 004 lists these fields of sending a template, but they belong to its creation.
const OF_MAKING: &[(&str, &str)] =
    &[("buttons", MAKING), ("flow_id", MAKING), ("navigate_screen", MAKING), ("flow_action", MAKING)];
const MAKING: &str = "is only for creating a template in WhatsApp Manager; remove it (Exotel's documentation), and set flow_token and flow_action_data in a parameter of type \"action\"";

const COMPONENT: Rule = Rule::Choice(Choice {
    tag: "type",
    common: &[],
    arms: &[
        ("header", object(&[required("parameters", PARAMETERS).about(VALUES).example(VALUE)])),
        ("body", object(&[required("parameters", PARAMETERS).about(VALUES).example(VALUE)])),
        (
            "button",
            Object {
                fields: &[
                    required("sub_type", one_of(&["flow", "quick_reply", "url", "copy_code"]))
                        .about("Type of the button.")
                        .example(r#""url""#),
                    required("index", INDEX).about("Position of the button, from 0.").example(r#""0""#),
                    optional("parameters", PARAMETERS).about(VALUES).example(VALUE),
                ],
                elsewhere: OF_MAKING,
                also: flow_button,
                also_as_schema: r#"{
                    "if": { "properties": { "sub_type": { "const": "flow" } } },
                    "then": { "properties": { "parameters": {
                        "maxItems": 1, "items": { "properties": { "type": { "const": "action" } } }
                    } } }
                }"#,
            },
        ),
    ],
});

const VALUES: &str = "Values, in the order of the template's placeholders.";
const VALUE: &str = r#"[{ "type": "text", "text": "{{ name }}" }]"#;

/// Exotel writes a button's index as a string, Kaleyra as a number: both are accepted.
const INDEX: Rule = Rule::Either(
    &Rule::Parsed {
        check: |text| match text.parse::<u8>() {
            Ok(0..=9) => Ok(()),
            _ => Err("must be a button's place, \"0\" to \"9\"".into()),
        },
        about: "a button's place, 0 to 9",
        spelled: Spelled::As(r"^\+?0*[0-9]$"),
    },
    &Rule::Integer { range: (0, 9) },
);

/// Document 002: a flow button's only parameter is its action.
fn flow_button(button: &Map<String, Value>, findings: &mut Findings, pointer: &str) {
    if button.get("sub_type").is_none_or(|sub_type| sub_type != "flow") {
        return;
    }
    let kinds: Option<Vec<&str>> = button
        .get("parameters")
        .and_then(Value::as_array)
        .map(|list| list.iter().filter_map(|parameter| parameter.get("type")?.as_str()).collect());
    if kinds.is_some_and(|kinds| kinds != ["action"]) {
        findings.problem(
            &step(pointer, "parameters"),
            "a flow button takes one parameter, of type \"action\" (Kaleyra's documentation)",
        );
    }
}

const PARAMETERS: Rule = Rule::List { of: &PARAMETER, min: 1, max: usize::MAX };
const NAMED: &[Field] = &[optional("parameter_name", ANY_TEXT)
    .about("Name of the placeholder, if the template names its placeholders.")
    .example(r#""customer""#)];
const PARAMETER: Rule = Rule::Choice(Choice {
    tag: "type",
    common: NAMED,
    arms: &[
        (
            "text",
            object(&[required("text", Rule::Text(text(0, Authority::Meta).form(Form::Parameter)))
                .about("Value. It may not contain line breaks, tabs or five consecutive spaces (see `whitespace`).")
                .example(r#""{{ name }}""#)]),
        ),
        (
            "payload",
            object(&[required("payload", ANY_TEXT)
                .about("Payload that is returned when the button is tapped.")
                .example(r#""yes""#)]),
        ),
        (
            "coupon_code",
            object(&[required("coupon_code", ANY_TEXT)
                .about("Code that the button copies.")
                .example(r#""DIWALI25""#)]),
        ),
        (
            "currency",
            object(&[required("currency", Rule::AnyObject { may_be_empty: false })
                .about("Amount, in thousandths.")
                .example(r#"{ "fallback_value": "₹ 1,499", "code": "INR", "amount_1000": 1499000 }"#)]),
        ),
        (
            "date_time",
            object(&[required("date_time", Rule::AnyObject { may_be_empty: false })
                .about("Date and time.")
                .example(r#"{ "fallback_value": "1 November, 9:00" }"#)]),
        ),
        ("image", object(&[required("image", LINKED).about("Image.").example(PNG)])),
        ("video", object(&[required("video", LINKED).about("Video.").example(MP4)])),
        ("document", object(&[required("document", DOCUMENT).about("Document.").example(PDF)])),
        ("location", object(&[required("location", LOCATION).about("Location.").example(PLACE)])),
        (
            "action",
            object(&[required(
                "action",
                Rule::Object(object(&[
                    optional("flow_token", TOKEN)
                        .about("Token that is returned with the reply and identifies the message.")
                        .example(r#""{{ message_ref }}""#),
                    optional("flow_action_data", Rule::AnyObject { may_be_empty: true })
                        .about("Values for the first screen of the flow.")
                        .example(r#"{ "name": "{{ name }}" }"#),
                ])),
            )
            .about("Parameters of the button's flow.")
            .example(r#"{ "flow_token": "{{ message_ref }}" }"#)]),
        ),
    ],
});

const TOKEN: Rule = Rule::Text(Text { may_be_empty: false, ..text(0, Authority::Kaleyra) });
