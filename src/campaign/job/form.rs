//! The form of a job document: which fields it has and what each may be. A table and nothing else.

use serde_json::{Map, Value, json};

use super::super::rules::{
    Authority, Field, Findings, LINK_PATTERN, Object, Rule, Spelled, is_link, object, one_of, optional,
    parses, required, text,
};
use super::super::schema::{definitions, parsed, schema};
use super::super::{
    character_set::CharacterSet, content::CONTENT, id::CampaignId, phone::InvalidPhone,
    phone_parser::PhoneParser, problem::step,
};
use super::limits::LIMITS;

fn valid_if(is_valid: bool, error: &str) -> Result<(), String> {
    is_valid.then_some(()).ok_or_else(|| error.into())
}

const fn not_empty(about: &'static str) -> Rule {
    Rule::Parsed { check: |text| valid_if(!text.trim().is_empty(), "is empty"), about, spelled: NOT_EMPTY }
}

const ID: Rule = Rule::Parsed {
    check: parses::<CampaignId>,
    about: "[A-Za-z0-9][A-Za-z0-9._-]{0,63}; by default a UUIDv7",
    spelled: Spelled::As(CampaignId::PATTERN),
};
const SENDER: Rule = Rule::Parsed {
    check: |text| PhoneParser::listed(text).map(drop).map_err(|_| InvalidPhone.to_string()),
    about: "a number in international form, e.g. +912248931479",
    spelled: Spelled::As(
        // A `+`, two zeros or a link to a chat before the number; digits may be of any script.
        r"^[^0-9]*\+|^[^1-9]*0[^1-9]*0|[Ww][Aa]\.[Mm][Ee]/|[Ww][Hh][Aa][Tt][Ss][Aa][Pp][Pp]\.|[^\u0000-\u007f]",
    ),
};
const TIME: Rule = Rule::Parsed {
    check: |text| {
        let is_time = text.parse::<jiff::Timestamp>().is_ok();
        valid_if(is_time, "must be a time with an offset, e.g. 2026-11-01T09:00:00+05:30")
    },
    about: "a time with an offset (RFC 3339)",
    spelled: Spelled::As(
        r"^([0-9]{4}|[+-][0-9]{6})-?[0-9]{2}-?[0-9]{2}[Tt _][0-9]{2}(:?[0-9]{2}){0,2}([.,][0-9]{1,9})?([Zz]|[+-][0-9]{2}(:?[0-9]{2}){0,2}([.,][0-9]{1,9})?)(\[.*\])*$",
    ),
};
const CLOCK: Rule = Rule::Parsed {
    check: |text| valid_if(text.parse::<jiff::civil::Time>().is_ok(), "must be a time of day, e.g. 09:00"),
    about: "a time of day, e.g. 09:00",
    spelled: Spelled::As(r"^(.*[Tt _])?[0-9]{2}(:?[0-9]{2}){0,2}([.,][0-9]{1,9})?([+-].*)?(\[.*\])*$"),
};
const ZONE: Rule = Rule::Parsed {
    check: |text| {
        let is_zone = jiff::tz::TimeZone::get(text).is_ok();
        valid_if(is_zone, "must be a time zone of the IANA database, e.g. Asia/Kolkata")
    },
    about: "a time zone of the IANA database",
    spelled: Spelled::As("^[A-Za-z0-9._+/-]+$"),
};
const REGION: Rule = Rule::Parsed {
    check: |text| {
        valid_if(PhoneParser::knows_region(text), "must be the two letters of a country, e.g. IN (ISO 3166)")
    },
    about: "a two-letter region (ISO 3166), e.g. IN",
    spelled: Spelled::InAnyCase(PhoneParser::regions),
};
const DELIMITER: Rule = Rule::Parsed {
    check: |text| {
        let is_refused = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'"' | b'\n' | b'\r');
        let is_one = matches!(text.as_bytes(), [byte] if byte.is_ascii() && !is_refused(*byte));
        valid_if(is_one, "must be one ASCII character, e.g. \",\" or \";\" or \"\\t\"")
    },
    about: "one ASCII character; detected by default",
    spelled: Spelled::As(r"^[\u0000-\u0009\u000b\u000c\u000e-!#-/:-@\[-`{-\u007f]$"),
};
const ADDRESS: Rule = Rule::Parsed {
    check: |text| valid_if(is_link(text), "must be an http:// or https:// address"),
    about: "an http or https address",
    spelled: Spelled::As(LINK_PATTERN),
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
        required("version", Rule::Integer { range: (1, 1) }).about("Version of the job format.").example("1"),
        optional("$schema", ANY)
            .about("Schema by which an editor checks the job. flowcast does not read it.")
            .example(SCHEMA_ID),
        optional("id", ID)
            .about("Id of the campaign. The same job with the same id is sent once. Without an id, flowcast \
                 assigns a UUIDv7.")
            .example(r#""diwali-2026""#),
        optional("name", NAME).about("Name of the campaign, as it is shown.").example(r#""Diwali 2026""#),
        required("account", ANY)
            .about("Account of the configuration that sends the campaign.")
            .example(r#""main""#),
        required("from", SENDER).about("Sender number, in international form.").example(r#""+912248931479""#),
        required("audience", Rule::Fixed(&AUDIENCE))
            .about("Source of the recipients: either `csv` or `recipients`.")
            .example(r#"{ "csv": { "path": "diwali.csv", "default_region": "IN" } }"#),
        required("message", CONTENT)
            .about("Content of the message, with placeholders.")
            .example(r#"{ "type": "text", "text": { "body": "Dear {{ name }}" } }"#),
        optional("custom_data", GIVEN_BACK)
            .about("Text that reports and events return, with placeholders.")
            .example(r#""order {{ order }}""#),
        optional("status_callback", ADDRESS)
            .about("URL to which delivery reports are sent. With `http.public_url`, flowcast receives the reports \
                 and forwards them to the URL. Without it, the provider sends them there (Exotel only).")
            .example(r#""https://example.com/reports""#),
        optional(
            "extra_info",
            Rule::Object(object(&[
                optional("ref1", GIVEN_BACK).about("First text.").example(r#""{{ order }}""#),
                optional("ref2", GIVEN_BACK).about("Second text.").example(r#""autumn""#),
                optional("wa_source", one_of(WA_SOURCES)).about("Source of the message.").example(r#""api""#),
            ])),
        )
        .about("Texts that Kaleyra returns with each report, in addition to the message's reference.")
        .example(r#"{ "ref1": "{{ order }}" }"#)
        .or("{}"),
        optional("limits", Rule::Fixed(&LIMITS))
            .about("Limits of the campaign, in addition to those of its account.")
            .example(r#"{ "messages": "50/s" }"#)
            .or("{}"),
        optional("schedule", Rule::Fixed(&SCHEDULE))
            .about("Times at which the campaign may be sent. Without them, sending starts immediately.")
            .example(r#"{ "start_at": "2026-11-01T09:00:00+05:30" }"#)
            .or("{}"),
        optional(
            "stop_when",
            Rule::Fixed(&Rule::Object(object(&[
                required("rejected_percent", Rule::Integer { range: (1, 100) })
                    .about("Share of rejected messages at which the campaign is held, in per cent.")
                    .example("20"),
                optional("after", Rule::Integer { range: (1, u64::MAX) })
                    .about("Number of messages that must have an outcome before the share counts.")
                    .example("500")
                    .or("100"),
            ]))),
        )
        .about("Condition on which rejections hold the campaign. Without it, rejections do not hold the campaign.")
        .example(r#"{ "rejected_percent": 20, "after": 500 }"#),
        optional("on_in_doubt", one_of(&["hold", "resend"]))
            .about("Handling of messages that the provider may or may not have accepted: `hold` waits for \
                 evidence; `resend` sends them again, which can duplicate a message.")
            .example(r#""hold""#)
            .or(r#""hold""#),
        optional("whitespace", one_of(&["refuse", "join"]))
            .about("Handling of a template's text parameter that contains a line break, a tab or five consecutive \
                 spaces: `refuse` skips the row; `join` replaces them with one space.")
            .example(r#""join""#)
            .or(r#""refuse""#),
    ],
    elsewhere: &[],
    also: |_, _, _| {},
    // Parameters that are the same for everybody are looked at when the job is read.
    also_as_schema: r#"{
        "if": { "properties": { "whitespace": { "const": "join" } }, "required": ["whitespace"] },
        "else": { "properties": { "message": { "properties": { "template": { "properties": { "components": {
            "items": { "properties": { "parameters": { "items": {
                "if": { "properties": { "type": { "const": "text" } }, "required": ["type"] },
                "then": { "properties": { "text": { "anyOf": [
                    { "not": { "pattern": "[\\n\\r\\t]| {5}" } },
                    { "pattern": "\\{\\{|\\{%" }
                ] } } }
            } } } }
        } } } } } } }
    }"#,
};
const ANY: Rule =
    Rule::Parsed { check: |_| Ok(()), about: "an account of the configuration", spelled: Spelled::Any };
/// It has no URL, so that no check waits for a server.
const SCHEMA_ID: &str = r#""urn:flowcast:schema:job:1""#;

const NAME: Rule = Rule::Parsed {
    check: |text| valid_if(text.chars().count() <= 200, "has more than 200 characters"),
    about: "what people call the campaign",
    spelled: Spelled::As(r"^[\s\S]{0,200}$"),
};

const AUDIENCE: Rule = Rule::Object(Object {
    fields: &[
        optional("csv", CSV)
            .about("File, by `path` or `url`: CSV, or an `.xlsx` workbook.")
            .example(r#"{ "path": "diwali.csv", "default_region": "IN" }"#),
        optional(
            "recipients",
            Rule::List { of: &Rule::AnyObject { may_be_empty: false }, min: 1, max: usize::MAX },
        )
        .about("List of recipients: each has a `phone` and any variables.")
        .example(r#"[{ "phone": "+919876543210", "name": "Asha" }]"#),
    ],
    elsewhere: &[],
    also: |audience, findings, pointer| one_source(audience, &["csv", "recipients"], findings, pointer),
    also_as_schema: r#"{ "oneOf": [{ "required": ["csv"] }, { "required": ["recipients"] }] }"#,
});

const CSV_FIELDS: &[Field] = &[
    optional("path", not_empty("a path below the audience root; .gz and .zst are unpacked"))
        .about("Path of the file below the audience root. Files that end with `.gz` or `.zst` are decompressed.")
        .example(r#""diwali.csv""#),
    optional("url", not_empty("an address that the configuration allows"))
        .about("URL of the file: `https`, `s3`, `gs` or `az`. `audiences.allow` of the configuration must contain \
             a prefix of it.")
        .example(r#""https://example.com/diwali.csv""#),
    optional("delimiter", DELIMITER)
        .about("Delimiter of the columns: one ASCII character. Without it, flowcast detects the delimiter.")
        .example(r#"";""#),
    optional("phone", not_empty("the column of the numbers"))
        .about("Column with the phone numbers. Without it, flowcast detects the column by its name.")
        .example(r#""Mobile Number""#),
    optional("default_region", REGION)
        .about("Region of numbers without a country code (ISO 3166).")
        .example(r#""IN""#),
    optional("sheet", not_empty("a worksheet of a workbook; the first that is not hidden when left out"))
        .about("Worksheet of a workbook. The default is the first visible worksheet.")
        .example(r#""Customers""#),
    optional("hidden_rows", one_of(&["send", "skip"]))
        .about("Handling of a worksheet's hidden rows.")
        .example(r#""skip""#)
        .or(r#""send""#),
    optional("encoding", ENCODING)
        .about("Character encoding of the file: a WHATWG or IANA name. Without it, flowcast detects the encoding.")
        .example(r#""windows-1251""#),
];
const NOT_EMPTY: Spelled =
    Spelled::As(r"[^\t-\r \u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]");
const ENCODING: Rule = Rule::Parsed {
    check: |text| {
        let error = "must be an encoding's WHATWG or IANA name, e.g. macintosh, ibm850 or windows-1251";
        valid_if(CharacterSet::named(text).is_some(), error)
    },
    about: "character encoding, e.g. macintosh, ibm850 or windows-1251; detected by default",
    spelled: Spelled::As("^[\t-\r -~\u{a0}]+$"),
};
const CSV: Rule = Rule::Object(Object {
    fields: CSV_FIELDS,
    elsewhere: &[],
    also: |csv, findings, pointer| one_source(csv, &["path", "url"], findings, pointer),
    also_as_schema: r#"{ "oneOf": [{ "required": ["path"] }, { "required": ["url"] }] }"#,
});

fn one_source(map: &Map<String, Value>, names: &[&str], findings: &mut Findings, pointer: &str) {
    match names.iter().filter(|name| map.contains_key(**name)).count() {
        1 => {}
        0 => findings.problem(pointer, format!("needs either {:?} or {:?}", names[0], names[1])),
        _ => findings.problem(pointer, format!("has both {:?} and {:?}; keep one", names[0], names[1])),
    }
}

const SCHEDULE: Rule = Rule::Object(Object {
    fields: &[
        optional("start_at", TIME)
            .about("Time at which sending starts (RFC 3339, with an offset).")
            .example(r#""2026-11-01T09:00:00+05:30""#),
        optional("expires_at", TIME)
            .about("Time at which sending ends (RFC 3339, with an offset); the remaining messages are skipped as \
                 `expired`.")
            .example(r#""2026-11-05T00:00:00+05:30""#),
        optional(
            "window",
            Rule::Object(Object {
                fields: &[
                    required("from", CLOCK)
                        .about("Time of day at which the window opens.")
                        .example(r#""09:00""#),
                    required("to", CLOCK)
                        .about("Time of day at which the window closes. A time before `from` is on the next day.")
                        .example(r#""21:00""#),
                    required("timezone", ZONE)
                        .about("Time zone of `from` and `to`: an IANA name.")
                        .example(r#""Asia/Kolkata""#),
                    optional("days", Rule::List { of: &DAY, min: 1, max: 7 })
                        .about("Days on which the window opens. The default is every day.")
                        .example(r#"["mon", "tue", "wed", "thu", "fri"]"#)
                        .or(r#"["mon", "tue", "wed", "thu", "fri", "sat", "sun"]"#),
                ],
                elsewhere: &[],
                also: |window, findings, pointer| {
                    if window.get("from") == window.get("to") {
                        findings.problem(pointer, "never opens: \"from\" and \"to\" are the same");
                    }
                },
                also_as_schema: "",
            }),
        )
        .about("Hours of the day in which messages are sent. Without it, they are sent at any hour.")
        .example(r#"{ "from": "09:00", "to": "21:00", "timezone": "Asia/Kolkata" }"#),
    ],
    elsewhere: &[],
    also: |schedule, findings, pointer| {
        let time = |name| schedule.get(name)?.as_str()?.parse::<jiff::Timestamp>().ok();
        if let (Some(start), Some(end)) = (time("start_at"), time("expires_at"))
            && end <= start
        {
            findings.problem(&step(pointer, "expires_at"), "must be after start_at");
        }
    },
    also_as_schema: "",
});
const DAY: Rule = one_of(&["mon", "tue", "wed", "thu", "fri", "sat", "sun"]);

/// The JSON Schema of a job (2020-12).
///
/// It refuses nothing that [`Job::read`](super::Job::read) takes, but for a whole number beyond 64 bits in place of a
/// text, which is read as its digits. What it takes and `Job::read` refuses: see `docs/reference/schemas.md`, which lists it.
pub fn job_schema() -> Value {
    let mut root = schema(&JOB, "job");
    root["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    root["$id"] = json!(parsed(SCHEMA_ID));
    root["title"] = json!("Job");
    root["description"] = json!(
        "Requests a campaign. Strings in message, custom_data and extra_info may contain {{ column }} in Jinja syntax."
    );
    root["$defs"] = definitions();
    // Its texts may hold placeholders, but it is an object before anybody is looked at.
    let extra_info = &mut root["properties"]["extra_info"];
    let object = extra_info["anyOf"][0].take();
    if let (Some(extra_info), Value::Object(object)) = (extra_info.as_object_mut(), object) {
        extra_info.shift_remove("anyOf");
        extra_info.extend(object.into_iter().filter(|(name, _)| name != "title"));
    }
    root
}
