//! The cards of contacts (document 001).

use super::EXOTEL;
use crate::campaign::rules::{ANY_TEXT, Field, Form, Object, Rule, object, optional, required, text};

pub(super) const CONTACTS: Rule = Rule::List { of: &CONTACT, min: 1, max: usize::MAX };

const CONTACT: Rule = Rule::Object(object(&[
    required("name", NAME)
        .about("Name of the contact.")
        .example(r#"{ "formatted_name": "Front desk", "first_name": "Front" }"#),
    optional("birthday", Rule::Text(text(0, EXOTEL).form(Form::Date)))
        .about("Date of birth (YYYY-MM-DD).")
        .example(r#""1990-01-31""#),
    optional("addresses", Rule::List { of: &ADDRESS, min: 0, max: usize::MAX })
        .about("Postal addresses.")
        .example(r#"[{ "city": "Mumbai", "country_code": "in" }]"#),
    optional("emails", Rule::List { of: &EMAIL, min: 0, max: usize::MAX })
        .about("Email addresses.")
        .example(r#"[{ "email": "desk@example.com", "type": "WORK" }]"#),
    optional("org", ORG).about("Employer of the contact.").example(r#"{ "company": "Example" }"#),
    optional("phones", Rule::List { of: &PHONE, min: 0, max: usize::MAX })
        .about("Phone numbers.")
        .example(r#"[{ "phone": "+912248931479", "type": "WORK" }]"#),
    optional("urls", Rule::List { of: &URL, min: 0, max: usize::MAX })
        .about("Websites.")
        .example(r#"[{ "url": "https://example.com", "type": "WORK" }]"#),
]));

const NAME: Rule = Rule::Object(Object {
    fields: &[
        required("formatted_name", ANY_TEXT).about("Full name, as it is shown.").example(r#""Dr. Asha Rao""#),
        optional("first_name", ANY_TEXT).about("First name.").example(r#""Asha""#),
        optional("last_name", ANY_TEXT).about("Last name.").example(r#""Rao""#),
        optional("middle_name", ANY_TEXT).about("Middle name.").example(r#""Devi""#),
        optional("suffix", ANY_TEXT).about("Suffix after the name.").example(r#""PhD""#),
        optional("prefix", ANY_TEXT).about("Prefix before the name.").example(r#""Dr.""#),
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

const KIND: Field = optional("type", ANY_TEXT).about("Type: `HOME` or `WORK`.").example(r#""WORK""#);
const ADDRESS: Rule = Rule::Object(object(&[
    optional("street", ANY_TEXT).about("Street and number.").example(r#""1 Marine Drive""#),
    optional("city", ANY_TEXT).about("City.").example(r#""Mumbai""#),
    optional("state", ANY_TEXT).about("State.").example(r#""MH""#),
    optional("zip", ANY_TEXT).about("Postal code.").example(r#""400002""#),
    optional("country", ANY_TEXT).about("Name of the country.").example(r#""India""#),
    optional("country_code", Rule::Text(text(0, EXOTEL).form(Form::CountryCode)))
        .about("Two-letter country code.")
        .example(r#""in""#),
    KIND,
]));
const EMAIL: Rule = Rule::Object(object(&[
    optional("email", ANY_TEXT).about("Email address.").example(r#""desk@example.com""#),
    KIND,
]));
const ORG: Rule = Rule::Object(object(&[
    optional("company", ANY_TEXT).about("Name of the company.").example(r#""Example""#),
    optional("department", ANY_TEXT).about("Department.").example(r#""Sales""#),
    optional("title", ANY_TEXT).about("Job title.").example(r#""Manager""#),
]));
const PHONE: Rule = Rule::Object(object(&[
    optional("phone", ANY_TEXT).about("Phone number, as it is shown.").example(r#""+91 22 4893 1479""#),
    KIND,
    optional("wa_id", ANY_TEXT)
        .about("WhatsApp number, if the contact has one.")
        .example(r#""912248931479""#),
]));
/// Document 001 writes the field `URL`; Meta reads `url`, as its examples do. No document asks for `http` here.
const URL: Rule = Rule::Object(object(&[
    optional("url", ANY_TEXT).about("URL of the website.").example(r#""https://example.com""#),
    KIND,
]));
