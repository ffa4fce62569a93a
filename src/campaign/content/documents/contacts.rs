//! The cards of contacts (document 001).

use super::EXOTEL;
use crate::campaign::rules::{ANY_TEXT, Field, Form, Object, Rule, object, optional, required, text};

pub(super) const CONTACTS: Rule = Rule::List { of: &CONTACT, min: 1, max: usize::MAX };

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
                "needs formatted_name and at least one of first_name, last_name, middle_name, suffix, prefix (Exotel's documentation)",
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
