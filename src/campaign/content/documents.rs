//! What `WhatsApp` content may hold, as the providers' documents say it. Tables and nothing else.
//!
//! Documents 000, 001, 003 and 004 are Exotel's, 002 is Kaleyra's. Where a table and an example
//! disagree, the example is followed, because providers test their examples.

use serde_json::{Map, Value};

use super::super::problem::step;
use super::super::rules::{
    ANY_TEXT, Authority, Choice, Field, Findings, Form, Object, Rule, Text, object, one_of, optional,
    required, text,
};

/// Documents 000 and 001.
const EXOTEL: Authority = Authority::Exotel;

const LINK: Rule = Rule::Text(text(0, EXOTEL).form(Form::Link));

/// The content of a message: its type, and the object of that name.
pub const CONTENT: Rule = Rule::Choice(Choice {
    tag: "type",
    common: &[optional("recipient_type", one_of(&["individual"]))],
    arms: &[
        ("text", object(&[required("text", TEXT)])),
        ("image", object(&[required("image", CAPTIONED)])),
        ("audio", object(&[required("audio", LINKED)])),
        ("video", object(&[required("video", CAPTIONED)])),
        ("document", object(&[required("document", DOCUMENT)])),
        ("sticker", object(&[required("sticker", LINKED)])),
        ("location", object(&[required("location", LOCATION)])),
        ("contacts", object(&[required("contacts", CONTACTS)])),
        ("interactive", object(&[required("interactive", INTERACTIVE)])),
        ("template", object(&[required("template", TEMPLATE)])),
    ],
});

/// Document 001: at most 4096 characters.
const TEXT: Rule = Rule::Object(object(&[
    required("body", Rule::Text(text(4096, EXOTEL))),
    optional("preview_url", Rule::Bool),
]));

const LINKED: Rule = Rule::Object(object(&[required("link", LINK)]));
/// Meta's reference: at most 1,024 characters.
const CAPTION: Rule = Rule::Text(text(1024, Authority::Meta));
const CAPTIONED: Rule = Rule::Object(object(&[required("link", LINK), optional("caption", CAPTION)]));
const DOCUMENT: Rule = Rule::Object(object(&[
    required("link", LINK),
    optional("caption", CAPTION),
    optional("filename", ANY_TEXT),
]));

const LOCATION: Rule = Rule::Object(object(&[
    required("longitude", Rule::Number { range: (-180.0, 180.0) }),
    required("latitude", Rule::Number { range: (-90.0, 90.0) }),
    optional("name", ANY_TEXT),
    optional("address", ANY_TEXT),
]));

const CONTACTS: Rule = Rule::List { of: &CONTACT, min: 1, max: usize::MAX };

const CONTACT: Rule = Rule::Object(object(&[
    required("name", NAME),
    optional("birthday", Rule::Text(text(0, EXOTEL).form(Form::Date))),
    optional("addresses", Rule::List { of: &ADDRESS, min: 0, max: usize::MAX }),
    optional("emails", Rule::List { of: &EMAIL, min: 0, max: usize::MAX }),
    optional("org", ORG),
    optional("phones", Rule::List { of: &PHONE, min: 0, max: usize::MAX }),
    optional("urls", Rule::List { of: &URL, min: 0, max: usize::MAX }),
]));

const NAME: Rule = Rule::Object(Object {
    fields: &[
        required("formatted_name", ANY_TEXT),
        optional("first_name", ANY_TEXT),
        optional("last_name", ANY_TEXT),
        optional("middle_name", ANY_TEXT),
        optional("suffix", ANY_TEXT),
        optional("prefix", ANY_TEXT),
    ],
    elsewhere: &[],
    also: |name, findings, pointer| {
        if name.len() < 2 {
            findings.problem(
                pointer,
                "needs one more of first_name, last_name, middle_name, suffix, prefix beside formatted_name (Exotel's documentation)",
            );
        }
    },
});

const ADDRESS: Rule = Rule::Object(object(&[
    optional("street", ANY_TEXT),
    optional("city", ANY_TEXT),
    optional("state", ANY_TEXT),
    optional("zip", ANY_TEXT),
    optional("country", ANY_TEXT),
    optional("country_code", Rule::Text(text(0, EXOTEL).form(Form::CountryCode))),
    optional("type", ANY_TEXT),
]));
const EMAIL: Rule = Rule::Object(object(&[optional("email", ANY_TEXT), optional("type", ANY_TEXT)]));
const ORG: Rule = Rule::Object(object(&[
    optional("company", ANY_TEXT),
    optional("department", ANY_TEXT),
    optional("title", ANY_TEXT),
]));
const PHONE: Rule = Rule::Object(object(&[
    optional("phone", ANY_TEXT),
    optional("type", ANY_TEXT),
    optional("wa_id", ANY_TEXT),
]));
/// Document 001 writes the field `URL`; Meta reads `url`, as its examples do. No document asks for `http` here.
const URL: Rule = Rule::Object(object(&[optional("url", ANY_TEXT), optional("type", ANY_TEXT)]));

/// Document 001, Interactive Object; document 000 adds `flow`.
const INTERACTIVE: Rule = Rule::Choice(Choice {
    tag: "type",
    common: &[required("body", BODY), optional("footer", FOOTER)],
    arms: &[
        ("flow", object(&[optional("header", ANY_HEADER), required("action", FLOW_ACTION)])),
        ("list", object(&[optional("header", TEXT_HEADER), required("action", LIST_ACTION)])),
        ("button", object(&[optional("header", ANY_HEADER), required("action", BUTTON_ACTION)])),
    ],
});

const BODY: Rule = Rule::Object(object(&[required("text", Rule::Text(text(1024, EXOTEL)))]));
const FOOTER: Rule = Rule::Object(object(&[required("text", Rule::Text(text(60, EXOTEL)))]));

const HEADER_TEXT: Object = object(&[required("text", Rule::Text(text(60, EXOTEL)))]);

/// Document 001: a list message has a text header, reply buttons have any. Images and videos are the objects that
/// messages have, with their captions.
const TEXT_HEADER: Rule = Rule::Choice(Choice { tag: "type", common: &[], arms: &[("text", HEADER_TEXT)] });
const ANY_HEADER: Rule = Rule::Choice(Choice {
    tag: "type",
    common: &[],
    arms: &[
        ("text", HEADER_TEXT),
        ("image", object(&[required("image", CAPTIONED)])),
        ("video", object(&[required("video", CAPTIONED)])),
        ("document", object(&[required("document", DOCUMENT)])),
    ],
});

/// Document 000; `galaxy_message` is the name on premises (document 004).
const FLOW_ACTION: Rule = Rule::Object(object(&[
    required("name", one_of(&["flow", "galaxy_message"])),
    required(
        "parameters",
        Rule::Object(Object {
            fields: &[
                required("flow_message_version", one_of(&["3"])),
                required("flow_token", ANY_TEXT),
                required("flow_id", ANY_TEXT),
                required("flow_cta", Rule::Text(text(20, EXOTEL).form(Form::NoEmoji))),
                required("flow_action", one_of(&["navigate", "data_exchange"])),
                optional("flow_action_payload", FLOW_PAYLOAD),
                optional("mode", one_of(&["draft", "published"])),
            ],
            elsewhere: &[],
            also: payload_with_navigate_only,
        }),
    ),
]));

const FLOW_PAYLOAD: Rule = Rule::Object(object(&[
    required("screen", ANY_TEXT),
    optional("data", Rule::AnyObject { may_be_empty: false }),
]));

/// Document 000: required if `flow_action` is navigate, omitted otherwise.
fn payload_with_navigate_only(parameters: &Map<String, Value>, findings: &mut Findings, pointer: &str) {
    let navigates = parameters.get("flow_action").is_some_and(|action| action == "navigate");
    match (navigates, parameters.contains_key("flow_action_payload")) {
        (true, false) => findings.problem(
            pointer,
            "\"flow_action_payload\" is required with flow_action \"navigate\" (Exotel's documentation): name the flow's first screen",
        ),
        (false, true) => findings.problem(
            &step(pointer, "flow_action_payload"),
            "must be left out unless flow_action is \"navigate\" (Exotel's documentation)",
        ),
        _ => {}
    }
}

/// Document 001: a button of 20 characters, 1 to 10 sections, 10 rows in all.
const LIST_ACTION: Rule = Rule::Object(Object {
    fields: &[
        required("button", Rule::Text(text(20, EXOTEL))),
        required("sections", Rule::List { of: &SECTION, min: 1, max: 10 }),
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
        // Meta's own rule: no document of the providers has it.
        let ids = rows().filter_map(|row| row.get("id"));
        unique(ids, "row id", "Meta's reference", &step(pointer, "sections"), findings);
    },
});

const SECTION: Rule = Rule::Object(object(&[
    optional("title", Rule::Text(text(24, EXOTEL))),
    required("rows", Rule::List { of: &ROW, min: 1, max: 10 }),
]));
const ROW: Rule = Rule::Object(object(&[
    required("id", Rule::Text(text(200, EXOTEL))),
    required("title", Rule::Text(text(24, EXOTEL))),
    optional("description", Rule::Text(text(72, EXOTEL))),
]));

/// Document 001: up to 3 reply buttons with titles of their own.
const BUTTON_ACTION: Rule = Rule::Object(Object {
    fields: &[required("buttons", BUTTONS)],
    elsewhere: &[],
    also: |action, findings, pointer| {
        let none = Vec::new();
        let buttons = action.get("buttons").and_then(Value::as_array).unwrap_or(&none);
        for (path, what) in [("/reply/title", "button title"), ("/reply/id", "button id")] {
            let values = buttons.iter().filter_map(|button| button.pointer(path));
            unique(values, what, "Exotel's documentation", &step(pointer, "buttons"), findings);
        }
    },
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
                required("id", Rule::Text(text(256, EXOTEL).form(Form::Trimmed))),
                required("title", Rule::Text(text(20, EXOTEL))),
            ])),
        )]),
    )],
});

/// Values that must differ, as `source` says.
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
        findings.problem(pointer, format!("each {what} must be different, and two are the same ({source})"));
    }
}

/// Documents 002 and 004: a template's name, language and components. Meta's reference says what a name
/// may be.
const TEMPLATE: Rule =
    Rule::Object(Object { fields: TEMPLATE_FIELDS, elsewhere: OF_MAKING, also: |_, _, _| {} });
const TEMPLATE_FIELDS: &[Field] = &[
    required("name", Rule::Text(text(512, Authority::Meta).form(Form::Name))),
    required(
        "language",
        Rule::Object(object(&[required("code", ANY_TEXT), optional("policy", one_of(&["deterministic"]))])),
    ),
    optional("components", Rule::List { of: &COMPONENT, min: 0, max: usize::MAX }),
];

/// Document 004 lists these beside the sending of a template; they are said when it is made.
const OF_MAKING: &[(&str, &str)] =
    &[("buttons", MAKING), ("flow_id", MAKING), ("navigate_screen", MAKING), ("flow_action", MAKING)];
const MAKING: &str = "is said when a template is made, in WhatsApp Manager, and not when it is sent: leave it out (Exotel's documentation); a message says its flow_token and flow_action_data in a parameter of type \"action\"";

const COMPONENT: Rule = Rule::Choice(Choice {
    tag: "type",
    common: &[],
    arms: &[
        ("header", object(&[required("parameters", PARAMETERS)])),
        ("body", object(&[required("parameters", PARAMETERS)])),
        (
            "button",
            Object {
                fields: &[
                    required("sub_type", one_of(&["flow", "quick_reply", "url", "copy_code"])),
                    required("index", INDEX),
                    optional("parameters", PARAMETERS),
                ],
                elsewhere: OF_MAKING,
                also: flow_button,
            },
        ),
    ],
});

/// Exotel writes a button's index as a string, Kaleyra as a number: both are read.
const INDEX: Rule = Rule::Either(
    &Rule::Parsed {
        check: |text| match text.parse::<u8>() {
            Ok(0..=9) => Ok(()),
            _ => Err("must be a button's place, \"0\" to \"9\"".into()),
        },
        about: "a button's place, 0 to 9",
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
const NAMED: &[Field] = &[optional("parameter_name", ANY_TEXT)];
const PARAMETER: Rule = Rule::Choice(Choice {
    tag: "type",
    common: NAMED,
    arms: &[
        ("text", object(&[required("text", Rule::Text(text(0, Authority::Meta).form(Form::Parameter)))])),
        ("payload", object(&[required("payload", ANY_TEXT)])),
        ("coupon_code", object(&[required("coupon_code", ANY_TEXT)])),
        ("currency", object(&[required("currency", Rule::AnyObject { may_be_empty: false })])),
        ("date_time", object(&[required("date_time", Rule::AnyObject { may_be_empty: false })])),
        ("image", object(&[required("image", LINKED)])),
        ("video", object(&[required("video", LINKED)])),
        ("document", object(&[required("document", DOCUMENT)])),
        ("location", object(&[required("location", LOCATION)])),
        (
            "action",
            object(&[required(
                "action",
                Rule::Object(object(&[
                    optional("flow_token", TOKEN),
                    optional("flow_action_data", Rule::AnyObject { may_be_empty: true }),
                ])),
            )]),
        ),
    ],
});

const TOKEN: Rule = Rule::Text(Text { may_be_empty: false, ..text(0, Authority::Kaleyra) });
