//! What `WhatsApp` content may hold, as the providers' documents say it. Tables and nothing else.
//!
//! Documents 000, 001, 003 and 004 are Exotel's, 002 is Kaleyra's. Where a table and an example
//! disagree, the example is followed, because providers test their examples.

use serde_json::{Map, Value};

use super::super::problem::{Problem, step};
use super::super::rules::{
    ANY_TEXT, Authority, Choice, Field, Findings, Form, Object, Rule, Spelled, Text, object, one_of,
    optional, required, text,
};

/// Documents 000 and 001.
const EXOTEL: Authority = Authority::Exotel;

const LINK: Rule = Rule::Text(text(0, EXOTEL).form(Form::Link));

/// The content of a message: its type, and the object of that name.
pub const CONTENT: Rule = Rule::Choice(Choice {
    tag: "type",
    common: &[optional(
        "recipient_type",
        one_of(&["individual"]),
        "Type of the recipient.",
        r#""individual""#,
    )
    .or(r#""individual""#)],
    arms: &[
        (
            "text",
            object(&[required("text", TEXT, "Text of the message.", r#"{ "body": "Dear {{ name }}" }"#)]),
        ),
        ("image", object(&[required("image", CAPTIONED, "Image.", PNG)])),
        ("audio", object(&[required("audio", LINKED, "Audio file.", MP3)])),
        ("video", object(&[required("video", CAPTIONED, "Video.", MP4)])),
        ("document", object(&[required("document", DOCUMENT, "Document.", PDF)])),
        ("sticker", object(&[required("sticker", LINKED, "Sticker.", WEBP)])),
        ("location", object(&[required("location", LOCATION, "Location.", PLACE)])),
        (
            "contacts",
            object(&[required(
                "contacts",
                CONTACTS,
                "Contacts that the recipient can add to the address book.",
                r#"[{ "name": { "formatted_name": "Front desk", "first_name": "Front" } }]"#,
            )]),
        ),
        (
            "interactive",
            object(&[required(
                "interactive",
                INTERACTIVE,
                "Flow, list, or up to three buttons.",
                r#"{ "type": "button", "body": { "text": "Will you come?" }, "action": { "buttons": [{ "type": "reply", "reply": { "id": "yes", "title": "Yes" } }] } }"#,
            )]),
        ),
        (
            "template",
            object(&[required(
                "template",
                TEMPLATE,
                "Template that WhatsApp has approved, with its values.",
                r#"{ "name": "diwali_offer", "language": { "code": "en" } }"#,
            )]),
        ),
    ],
});

const PNG: &str = r#"{ "link": "https://example.com/a.png" }"#;
const MP3: &str = r#"{ "link": "https://example.com/a.mp3" }"#;
const MP4: &str = r#"{ "link": "https://example.com/a.mp4" }"#;
const PDF: &str = r#"{ "link": "https://example.com/a.pdf", "filename": "a.pdf" }"#;
const WEBP: &str = r#"{ "link": "https://example.com/a.webp" }"#;
const PLACE: &str = r#"{ "longitude": 72.87, "latitude": 19.07, "name": "Our shop" }"#;

/// Document 001: at most 4096 characters.
const TEXT: Rule = Rule::Object(object(&[
    required(
        "body",
        Rule::Text(text(4096, EXOTEL)),
        "Text.",
        r#""Dear {{ name }}, we are open until nine.""#,
    ),
    optional("preview_url", Rule::Bool, "Whether a preview of the first link is shown.", "true").or("false"),
]));

const LINK_FIELD: Field =
    required("link", LINK, "URL of the file. WhatsApp fetches it.", r#""https://example.com/a.png""#);
const LINKED: Rule = Rule::Object(object(&[LINK_FIELD]));
/// Meta's reference: at most 1,024 characters.
const CAPTION: Field = optional(
    "caption",
    Rule::Text(text(1024, Authority::Meta)),
    "Caption below the media.",
    r#""This year's lights""#,
);
const CAPTIONED: Rule = Rule::Object(object(&[LINK_FIELD, CAPTION]));
const DOCUMENT: Rule = Rule::Object(object(&[
    LINK_FIELD,
    CAPTION,
    optional(
        "filename",
        ANY_TEXT,
        "Name of the file. The extension decides how WhatsApp shows it.",
        r#""invoice.pdf""#,
    ),
]));

const LOCATION: Rule = Rule::Object(object(&[
    required(
        "longitude",
        Rule::Number { range: (-180.0, 180.0) },
        "Longitude in degrees; positive values are east of Greenwich.",
        "72.87",
    ),
    required(
        "latitude",
        Rule::Number { range: (-90.0, 90.0) },
        "Latitude in degrees; positive values are north of the equator.",
        "19.07",
    ),
    optional("name", ANY_TEXT, "Name of the place.", r#""Our shop""#),
    optional(
        "address",
        ANY_TEXT,
        "Address of the place, which is shown only with a name.",
        r#""1 Marine Drive, Mumbai""#,
    ),
]));

const CONTACTS: Rule = Rule::List { of: &CONTACT, min: 1, max: usize::MAX };

const CONTACT: Rule = Rule::Object(object(&[
    required(
        "name",
        NAME,
        "Name of the contact.",
        r#"{ "formatted_name": "Front desk", "first_name": "Front" }"#,
    ),
    optional(
        "birthday",
        Rule::Text(text(0, EXOTEL).form(Form::Date)),
        "Date of birth (YYYY-MM-DD).",
        r#""1990-01-31""#,
    ),
    optional(
        "addresses",
        Rule::List { of: &ADDRESS, min: 0, max: usize::MAX },
        "Postal addresses.",
        r#"[{ "city": "Mumbai", "country_code": "in" }]"#,
    ),
    optional(
        "emails",
        Rule::List { of: &EMAIL, min: 0, max: usize::MAX },
        "Email addresses.",
        r#"[{ "email": "desk@example.com", "type": "WORK" }]"#,
    ),
    optional("org", ORG, "Employer of the contact.", r#"{ "company": "Example" }"#),
    optional(
        "phones",
        Rule::List { of: &PHONE, min: 0, max: usize::MAX },
        "Phone numbers.",
        r#"[{ "phone": "+912248931479", "type": "WORK" }]"#,
    ),
    optional(
        "urls",
        Rule::List { of: &URL, min: 0, max: usize::MAX },
        "Websites.",
        r#"[{ "url": "https://example.com", "type": "WORK" }]"#,
    ),
]));

const NAME: Rule = Rule::Object(Object {
    fields: &[
        required("formatted_name", ANY_TEXT, "Full name, as it is shown.", r#""Dr. Asha Rao""#),
        optional("first_name", ANY_TEXT, "First name.", r#""Asha""#),
        optional("last_name", ANY_TEXT, "Last name.", r#""Rao""#),
        optional("middle_name", ANY_TEXT, "Middle name.", r#""Devi""#),
        optional("suffix", ANY_TEXT, "Suffix after the name.", r#""PhD""#),
        optional("prefix", ANY_TEXT, "Prefix before the name.", r#""Dr.""#),
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
    also_as_schema: r#"{ "minProperties": 2 }"#,
});

const KIND: Field = optional("type", ANY_TEXT, "Type: `HOME` or `WORK`.", r#""WORK""#);
const ADDRESS: Rule = Rule::Object(object(&[
    optional("street", ANY_TEXT, "Street and number.", r#""1 Marine Drive""#),
    optional("city", ANY_TEXT, "City.", r#""Mumbai""#),
    optional("state", ANY_TEXT, "State.", r#""MH""#),
    optional("zip", ANY_TEXT, "Postal code.", r#""400002""#),
    optional("country", ANY_TEXT, "Name of the country.", r#""India""#),
    optional(
        "country_code",
        Rule::Text(text(0, EXOTEL).form(Form::CountryCode)),
        "Two-letter country code.",
        r#""in""#,
    ),
    KIND,
]));
const EMAIL: Rule =
    Rule::Object(object(&[optional("email", ANY_TEXT, "Email address.", r#""desk@example.com""#), KIND]));
const ORG: Rule = Rule::Object(object(&[
    optional("company", ANY_TEXT, "Name of the company.", r#""Example""#),
    optional("department", ANY_TEXT, "Department.", r#""Sales""#),
    optional("title", ANY_TEXT, "Job title.", r#""Manager""#),
]));
const PHONE: Rule = Rule::Object(object(&[
    optional("phone", ANY_TEXT, "Phone number, as it is shown.", r#""+91 22 4893 1479""#),
    KIND,
    optional("wa_id", ANY_TEXT, "WhatsApp number, if the contact has one.", r#""912248931479""#),
]));
/// Document 001 writes the field `URL`; Meta reads `url`, as its examples do. No document asks for `http` here.
const URL: Rule = Rule::Object(object(&[
    optional("url", ANY_TEXT, "URL of the website.", r#""https://example.com""#),
    KIND,
]));

/// Document 001, Interactive Object; document 000 adds `flow`.
const INTERACTIVE: Rule = Rule::Choice(Choice {
    tag: "type",
    common: &[
        required("body", BODY, "Text of the message.", r#"{ "text": "Book your visit, {{ name }}" }"#),
        optional("footer", FOOTER, "Small text below the message.", r#"{ "text": "Reply STOP to opt out" }"#),
    ],
    arms: &[
        (
            "flow",
            object(&[
                optional("header", ANY_HEADER, "Header above the text.", HEADER),
                required(
                    "action",
                    FLOW_ACTION,
                    "Flow that the button opens.",
                    r#"{ "name": "flow", "parameters": { "flow_message_version": "3", "flow_token": "{{ message_ref }}", "flow_id": "1323", "flow_cta": "Book", "flow_action": "data_exchange" } }"#,
                ),
            ]),
        ),
        (
            "list",
            object(&[
                optional("header", TEXT_HEADER, "Header above the text.", HEADER),
                required(
                    "action",
                    LIST_ACTION,
                    "List that the button opens.",
                    r#"{ "button": "Choose", "sections": [{ "rows": [{ "id": "10", "title": "Ten o'clock" }] }] }"#,
                ),
            ]),
        ),
        (
            "button",
            object(&[
                optional("header", ANY_HEADER, "Header above the text.", HEADER),
                required(
                    "action",
                    BUTTON_ACTION,
                    "Buttons.",
                    r#"{ "buttons": [{ "type": "reply", "reply": { "id": "yes", "title": "Yes" } }] }"#,
                ),
            ]),
        ),
    ],
});
const HEADER: &str = r#"{ "type": "text", "text": "Diwali 2026" }"#;

const BODY: Rule = Rule::Object(object(&[required(
    "text",
    Rule::Text(text(1024, EXOTEL)),
    "Text.",
    r#""Book your visit, {{ name }}""#,
)]));
const FOOTER: Rule = Rule::Object(object(&[required(
    "text",
    Rule::Text(text(60, EXOTEL)),
    "Text.",
    r#""Reply STOP to opt out""#,
)]));

const HEADER_TEXT: Object =
    object(&[required("text", Rule::Text(text(60, EXOTEL)), "Text.", r#""Diwali 2026""#)]);

/// Document 001: a list message has a text header, reply buttons have any. Images and videos are the objects that
/// messages have, with their captions.
const TEXT_HEADER: Rule = Rule::Choice(Choice { tag: "type", common: &[], arms: &[("text", HEADER_TEXT)] });
const ANY_HEADER: Rule = Rule::Choice(Choice {
    tag: "type",
    common: &[],
    arms: &[
        ("text", HEADER_TEXT),
        ("image", object(&[required("image", CAPTIONED, "Image.", PNG)])),
        ("video", object(&[required("video", CAPTIONED, "Video.", MP4)])),
        ("document", object(&[required("document", DOCUMENT, "Document.", PDF)])),
    ],
});

/// Document 000; `galaxy_message` is the name on premises (document 004).
const FLOW_ACTION: Rule = Rule::Object(object(&[
    required(
        "name",
        one_of(&["flow", "galaxy_message"]),
        "Name of the action; `galaxy_message` on premises.",
        r#""flow""#,
    ),
    required(
        "parameters",
        Rule::Object(Object {
            fields: &[
                required("flow_message_version", one_of(&["3"]), "Version of flow messages.", r#""3""#),
                required(
                    "flow_token",
                    ANY_TEXT,
                    "Token that is returned with the reply and identifies the message.",
                    r#""{{ message_ref }}""#,
                ),
                required("flow_id", ANY_TEXT, "Id of the flow at WhatsApp.", r#""1323""#),
                required(
                    "flow_cta",
                    Rule::Text(text(20, EXOTEL).form(Form::NoEmoji)),
                    "Text of the button, without emoji.",
                    r#""Book""#,
                ),
                required(
                    "flow_action",
                    one_of(&["navigate", "data_exchange"]),
                    "Start of the flow: `navigate` opens a screen that the job names; `data_exchange` asks the flow's endpoint.",
                    r#""navigate""#,
                ),
                optional(
                    "flow_action_payload",
                    FLOW_PAYLOAD,
                    "First screen: required with `navigate`, and not allowed with `data_exchange`.",
                    r#"{ "screen": "WELCOME", "data": { "name": "{{ name }}" } }"#,
                ),
                optional("mode", one_of(&["draft", "published"]), "Version of the flow.", r#""published""#)
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
        "Parameters of the flow.",
        r#"{ "flow_message_version": "3", "flow_token": "{{ message_ref }}", "flow_id": "1323", "flow_cta": "Book", "flow_action": "data_exchange" }"#,
    ),
]));

const FLOW_PAYLOAD: Rule = Rule::Object(object(&[
    required("screen", ANY_TEXT, "Name of the screen in the flow.", r#""WELCOME""#),
    optional(
        "data",
        Rule::AnyObject { may_be_empty: false },
        "Values for the screen.",
        r#"{ "name": "{{ name }}" }"#,
    ),
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
            "must be left out unless flow_action is \"navigate\" (Exotel's documentation)",
        ),
        _ => {}
    }
}

/// Document 001: a button of 20 characters, 1 to 10 sections, 10 rows in all.
const LIST_ACTION: Rule = Rule::Object(Object {
    fields: &[
        required("button", Rule::Text(text(20, EXOTEL)), "Text of the button.", r#""Choose""#),
        required(
            "sections",
            Rule::List { of: &SECTION, min: 1, max: 10 },
            "Sections with rows: at most 10 rows in all sections.",
            r#"[{ "rows": [{ "id": "10", "title": "Ten o'clock" }] }]"#,
        ),
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
    also_as_schema: r#"{
        "if": { "properties": { "sections": { "type": "array", "minItems": 2 } } },
        "then": { "properties": { "sections": { "items": { "required": ["title"] } } } }
    }"#,
});

const SECTION: Rule = Rule::Object(object(&[
    optional(
        "title",
        Rule::Text(text(24, EXOTEL)),
        "Title of the section: required if there are several sections.",
        r#""Morning""#,
    ),
    required(
        "rows",
        Rule::List { of: &ROW, min: 1, max: 10 },
        "Rows that the recipient can choose.",
        r#"[{ "id": "10", "title": "Ten o'clock" }]"#,
    ),
]));
const ROW: Rule = Rule::Object(object(&[
    required(
        "id",
        Rule::Text(text(200, EXOTEL)),
        "Id that is returned when the row is chosen. Each row has a different id.",
        r#""10""#,
    ),
    required("title", Rule::Text(text(24, EXOTEL)), "Title of the row.", r#""Ten o'clock""#),
    optional(
        "description",
        Rule::Text(text(72, EXOTEL)),
        "Small text below the title.",
        r#""Two places left""#,
    ),
]));

/// Document 001: up to 3 reply buttons with titles of their own.
const BUTTON_ACTION: Rule = Rule::Object(Object {
    fields: &[required(
        "buttons",
        BUTTONS,
        "Buttons, each with a different title and id.",
        r#"[{ "type": "reply", "reply": { "id": "yes", "title": "Yes" } }]"#,
    )],
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
                required(
                    "id",
                    Rule::Text(text(256, EXOTEL).form(Form::Trimmed)),
                    "Id that is returned when the button is tapped.",
                    r#""yes""#,
                ),
                required("title", Rule::Text(text(20, EXOTEL)), "Text of the button.", r#""Yes""#),
            ])),
            "Reply button.",
            r#"{ "id": "yes", "title": "Yes" }"#,
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
const TEMPLATE: Rule = Rule::Object(Object { elsewhere: OF_MAKING, ..object(TEMPLATE_FIELDS) });
const TEMPLATE_FIELDS: &[Field] = &[
    required(
        "name",
        Rule::Text(text(512, Authority::Meta).form(Form::Name)),
        "Name of the template.",
        r#""diwali_offer""#,
    ),
    required(
        "language",
        Rule::Object(object(&[
            required("code", ANY_TEXT, "Code of the language, with or without the country.", r#""en_US""#),
            optional(
                "policy",
                one_of(&["deterministic"]),
                "Language policy: the template is sent in this language only.",
                r#""deterministic""#,
            )
            .or(r#""deterministic""#),
        ])),
        "Language of the template.",
        r#"{ "code": "en_US" }"#,
    ),
    optional(
        "components",
        Rule::List { of: &COMPONENT, min: 0, max: usize::MAX },
        "Values of the template's header, body and buttons.",
        r#"[{ "type": "body", "parameters": [{ "type": "text", "text": "{{ name }}" }] }]"#,
    )
    .or("[]"),
];

/// Document 004 lists these beside the sending of a template; they are said when it is made.
const OF_MAKING: &[(&str, &str)] =
    &[("buttons", MAKING), ("flow_id", MAKING), ("navigate_screen", MAKING), ("flow_action", MAKING)];
const MAKING: &str = "is said when a template is made, in WhatsApp Manager, and not when it is sent: leave it out (Exotel's documentation); a message says its flow_token and flow_action_data in a parameter of type \"action\"";

const COMPONENT: Rule = Rule::Choice(Choice {
    tag: "type",
    common: &[],
    arms: &[
        ("header", object(&[required("parameters", PARAMETERS, VALUES, VALUE)])),
        ("body", object(&[required("parameters", PARAMETERS, VALUES, VALUE)])),
        (
            "button",
            Object {
                fields: &[
                    required(
                        "sub_type",
                        one_of(&["flow", "quick_reply", "url", "copy_code"]),
                        "Type of the button.",
                        r#""url""#,
                    ),
                    required("index", INDEX, "Position of the button, from 0.", r#""0""#),
                    optional("parameters", PARAMETERS, VALUES, VALUE),
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

/// Exotel writes a button's index as a string, Kaleyra as a number: both are read.
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
const NAMED: &[Field] = &[optional(
    "parameter_name",
    ANY_TEXT,
    "Name of the placeholder, if the template names its placeholders.",
    r#""customer""#,
)];
const PARAMETER: Rule = Rule::Choice(Choice {
    tag: "type",
    common: NAMED,
    arms: &[
        (
            "text",
            object(&[required(
                "text",
                Rule::Text(text(0, Authority::Meta).form(Form::Parameter)),
                "Value. It may not contain line breaks, tabs or five consecutive spaces (see `whitespace`).",
                r#""{{ name }}""#,
            )]),
        ),
        (
            "payload",
            object(&[required(
                "payload",
                ANY_TEXT,
                "Payload that is returned when the button is tapped.",
                r#""yes""#,
            )]),
        ),
        (
            "coupon_code",
            object(&[required("coupon_code", ANY_TEXT, "Code that the button copies.", r#""DIWALI25""#)]),
        ),
        (
            "currency",
            object(&[required(
                "currency",
                Rule::AnyObject { may_be_empty: false },
                "Amount, in thousandths.",
                r#"{ "fallback_value": "₹ 1,499", "code": "INR", "amount_1000": 1499000 }"#,
            )]),
        ),
        (
            "date_time",
            object(&[required(
                "date_time",
                Rule::AnyObject { may_be_empty: false },
                "Date and time.",
                r#"{ "fallback_value": "1 November, 9:00" }"#,
            )]),
        ),
        ("image", object(&[required("image", LINKED, "Image.", PNG)])),
        ("video", object(&[required("video", LINKED, "Video.", MP4)])),
        ("document", object(&[required("document", DOCUMENT, "Document.", PDF)])),
        ("location", object(&[required("location", LOCATION, "Location.", PLACE)])),
        (
            "action",
            object(&[required(
                "action",
                Rule::Object(object(&[
                    optional(
                        "flow_token",
                        TOKEN,
                        "Token that is returned with the reply and identifies the message.",
                        r#""{{ message_ref }}""#,
                    ),
                    optional(
                        "flow_action_data",
                        Rule::AnyObject { may_be_empty: true },
                        "Values for the first screen of the flow.",
                        r#"{ "name": "{{ name }}" }"#,
                    ),
                ])),
                "Parameters of the button's flow.",
                r#"{ "flow_token": "{{ message_ref }}" }"#,
            )]),
        ),
    ],
});

const TOKEN: Rule = Rule::Text(Text { may_be_empty: false, ..text(0, Authority::Kaleyra) });
