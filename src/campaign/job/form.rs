//! The form of a job document: which fields it has and what each may be. A table and nothing else.

use serde_json::{Map, Value, json};

use super::super::character_set::CharacterSet;
use super::super::content::CONTENT;
use super::super::id::CampaignId;
use super::super::phone::InvalidPhone;
use super::super::phone_parser::PhoneParser;
use super::super::problem::step;
use super::super::rate::Rate;
use super::super::rules::{
    Authority, Field, Findings, Object, Rule, object, one_of, optional, required, text,
};
use super::super::schema::schema;

/// Reads a type from its text, with the type's own error.
fn reads<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<(), String> {
    text.parse::<T>().map(drop).map_err(|fault| fault.to_string())
}

fn not_empty(text: &str) -> Result<(), String> {
    if text.trim().is_empty() { Err("is empty".into()) } else { Ok(()) }
}

const ID: Rule = Rule::Parsed {
    check: reads::<CampaignId>,
    about: "[A-Za-z0-9][A-Za-z0-9._-]{0,63}; without one a UUIDv7 is given",
};
const SENDER: Rule = Rule::Parsed {
    check: |text| PhoneParser::listed(text).map(drop).map_err(|_| InvalidPhone.to_string()),
    about: "a number in international form, e.g. +912248931479",
};
const RATE: Rule = Rule::Parsed { check: reads::<Rate>, about: "a limit, as 80/s or 200/min,burst=20" };
const TIME: Rule = Rule::Parsed {
    check: |text| {
        reads::<jiff::Timestamp>(text)
            .map_err(|_| "must be a time with an offset, as 2026-11-01T09:00:00+05:30".into())
    },
    about: "a time with an offset (RFC 3339)",
};
const CLOCK: Rule = Rule::Parsed {
    check: |text| reads::<jiff::civil::Time>(text).map_err(|_| "must be a time of day, as 09:00".into()),
    about: "a time of day, as 09:00",
};
const ZONE: Rule = Rule::Parsed {
    check: |text| {
        jiff::tz::TimeZone::get(text)
            .map(drop)
            .map_err(|_| "must be a time zone of the IANA database, as Asia/Kolkata".into())
    },
    about: "a time zone of the IANA database",
};
const REGION: Rule = Rule::Parsed {
    check: |text| {
        if PhoneParser::knows_region(text) {
            Ok(())
        } else {
            Err("must be a two-letter region in capitals, as IN".into())
        }
    },
    about: "a two-letter region (ISO 3166), as IN",
};
const DELIMITER: Rule = Rule::Parsed {
    check: |text| match text.as_bytes() {
        [byte]
            if byte.is_ascii() && !byte.is_ascii_alphanumeric() && !matches!(byte, b'"' | b'\n' | b'\r') =>
        {
            Ok(())
        }
        _ => Err("must be one ASCII character, as \",\" or \";\" or \"\\t\"".into()),
    },
    about: "one ASCII character; found by itself when left out",
};
const ADDRESS: Rule = Rule::Parsed {
    check: |text| {
        if super::super::rules::is_link(text) {
            Ok(())
        } else {
            Err("must be an http:// or https:// address".into())
        }
    },
    about: "an http or https address",
};

/// What a provider gives back with each report.
const GIVEN_BACK: Rule = Rule::Text(text(4_096, Authority::Flowcast));

/// Document 002, `wa_source`: where a message comes from, for Kaleyra's reports.
const WA_SOURCES: &[&str] = &[
    "api",
    "clevertap",
    "zoho",
    "webengage",
    "shopify",
    "leadsquared",
    "responsys",
    "braze",
    "hubspot",
    "salesforce",
    "zapier",
    "eloqua",
    "moengage",
];

/// The whole job.
pub(super) const JOB: Object = Object {
    fields: &[
        required("version", Rule::Integer { range: (1, 1) }),
        optional("id", ID),
        optional("name", NAME),
        required("account", Rule::Parsed { check: |_| Ok(()), about: "an account of the configuration" }),
        required("from", SENDER),
        required("audience", Rule::Fixed(&AUDIENCE)),
        required("message", CONTENT),
        optional("custom_data", GIVEN_BACK),
        optional("status_callback", ADDRESS),
        optional(
            "extra_info",
            Rule::Object(object(&[
                optional("ref1", GIVEN_BACK),
                optional("ref2", GIVEN_BACK),
                optional("wa_source", one_of(WA_SOURCES)),
            ])),
        ),
        optional("limits", Rule::Fixed(&Rule::Object(object(&[optional("messages", RATE)])))),
        optional("schedule", Rule::Fixed(&SCHEDULE)),
        optional(
            "stop_when",
            Rule::Fixed(&Rule::Object(object(&[
                required("rejected_percent", Rule::Integer { range: (1, 100) }),
                optional("after", Rule::Integer { range: (1, u64::MAX) }),
            ]))),
        ),
        optional("on_in_doubt", one_of(&["hold", "resend"])),
        optional("whitespace", one_of(&["refuse", "join"])),
    ],
    elsewhere: &[],
    also: |_, _, _| {},
};

const NAME: Rule = Rule::Parsed {
    check: |text| {
        if text.chars().count() <= 200 { Ok(()) } else { Err("has more than 200 characters".into()) }
    },
    about: "what people call the campaign",
};

const AUDIENCE: Rule = Rule::Object(Object {
    fields: &[
        optional("csv", CSV),
        optional(
            "recipients",
            Rule::List { of: &Rule::AnyObject { may_be_empty: false }, min: 1, max: usize::MAX },
        ),
    ],
    elsewhere: &[],
    also: |audience, findings, pointer| one_source(audience, &["csv", "recipients"], findings, pointer),
});

const CSV_FIELDS: &[Field] = &[
    optional(
        "path",
        Rule::Parsed { check: not_empty, about: "a path below the audience root; .gz and .zst are unpacked" },
    ),
    optional("url", Rule::Parsed { check: not_empty, about: "an address that the configuration allows" }),
    optional("delimiter", DELIMITER),
    optional("phone", Rule::Parsed { check: not_empty, about: "the column of the numbers" }),
    optional("default_region", REGION),
    optional(
        "sheet",
        Rule::Parsed {
            check: not_empty,
            about: "a worksheet of a workbook; the first that is not hidden when left out",
        },
    ),
    optional("hidden_rows", one_of(&["send", "skip"])),
    optional("encoding", ENCODING),
];
const ENCODING: Rule = Rule::Parsed {
    check: |text| match CharacterSet::named(text) {
        Some(_) => Ok(()),
        None => Err("must be an encoding's WHATWG or IANA name, as macintosh, ibm850 or windows-1251".into()),
    },
    about: "how the file's characters are written, as macintosh, ibm850 or windows-1251; found by itself when left out",
};
const CSV: Rule = Rule::Object(Object {
    fields: CSV_FIELDS,
    elsewhere: &[],
    also: |csv, findings, pointer| one_source(csv, &["path", "url"], findings, pointer),
});

fn one_source(map: &Map<String, Value>, names: &[&str], findings: &mut Findings, pointer: &str) {
    if names.iter().filter(|name| map.contains_key(**name)).count() != 1 {
        findings.problem(pointer, format!("needs either {:?} or {:?}", names[0], names[1]));
    }
}

const SCHEDULE: Rule = Rule::Object(Object {
    fields: &[
        optional("start_at", TIME),
        optional("expires_at", TIME),
        optional(
            "window",
            Rule::Object(Object {
                fields: &[
                    required("from", CLOCK),
                    required("to", CLOCK),
                    required("timezone", ZONE),
                    optional("days", Rule::List { of: &DAY, min: 1, max: 7 }),
                ],
                elsewhere: &[],
                also: |window, findings, pointer| {
                    if window.get("from") == window.get("to") {
                        findings.problem(pointer, "never opens: \"from\" and \"to\" are the same");
                    }
                },
            }),
        ),
    ],
    elsewhere: &[],
    also: |schedule, findings, pointer| {
        let time = |name| schedule.get(name)?.as_str()?.parse::<jiff::Timestamp>().ok();
        if let (Some(start), Some(end)) = (time("start_at"), time("expires_at"))
            && end <= start
        {
            findings.problem(&step(pointer, "expires_at"), "is not after start_at: nothing could be sent");
        }
    },
});
const DAY: Rule = one_of(&["mon", "tue", "wed", "thu", "fri", "sat", "sun"]);

/// The JSON Schema of a job (2020-12).
pub fn job_schema() -> Value {
    let mut root = schema(&Rule::Object(JOB));
    root["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    root["title"] = json!("flowcast job");
    root["description"] = json!("Strings in message and custom_data may hold {{ column }} in Jinja syntax.");
    root
}
