//! Rules of `WhatsApp` content from the providers' documents, as tables.
//!
//! Documents 000, 001, 003 and 004 are Exotel's, 002 is Kaleyra's. If a table and an example disagree, the example is
//! followed, because providers test their examples.

mod contacts;
mod interactive;
mod template;

use super::super::rules::{
    ANY_TEXT, Authority, Choice, Field, Form, Rule, object, one_of, optional, required, text,
};
use contacts::CONTACTS;
use interactive::INTERACTIVE;
use template::TEMPLATE;

/// Documents 000 and 001.
const EXOTEL: Authority = Authority::Exotel;

const LINK: Rule = Rule::Text(text(0, EXOTEL).form(Form::Link));

/// The content of a message: its type, and the object of that name.
pub const CONTENT: Rule = Rule::Choice(Choice {
    tag: "type",
    common: &[optional("recipient_type", one_of(&["individual"]))
        .about("Type of the recipient.")
        .example(r#""individual""#)
        .or(r#""individual""#)],
    arms: &[
        (
            "text",
            object(&[required("text", TEXT)
                .about("Text of the message.")
                .example(r#"{ "body": "Dear {{ name }}" }"#)]),
        ),
        ("image", object(&[required("image", CAPTIONED).about("Image.").example(PNG)])),
        ("audio", object(&[required("audio", LINKED).about("Audio file.").example(MP3)])),
        ("video", object(&[required("video", CAPTIONED).about("Video.").example(MP4)])),
        ("document", object(&[required("document", DOCUMENT).about("Document.").example(PDF)])),
        ("sticker", object(&[required("sticker", LINKED).about("Sticker.").example(WEBP)])),
        ("location", object(&[required("location", LOCATION).about("Location.").example(PLACE)])),
        (
            "contacts",
            object(&[required("contacts", CONTACTS)
                .about("Contacts that the recipient can add to the address book.")
                .example(r#"[{ "name": { "formatted_name": "Front desk", "first_name": "Front" } }]"#)]),
        ),
        (
            "interactive",
            object(&[required("interactive", INTERACTIVE)
                .about("Flow, list, or up to three buttons.")
                .example(r#"{ "type": "button", "body": { "text": "Will you come?" }, "action": { "buttons": [{ "type": "reply", "reply": { "id": "yes", "title": "Yes" } }] } }"#)]),
        ),
        (
            "template",
            object(&[required("template", TEMPLATE)
                .about("Template that WhatsApp has approved, with its values.")
                .example(r#"{ "name": "diwali_offer", "language": { "code": "en" } }"#)]),
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
    required("body", Rule::Text(text(4096, EXOTEL)))
        .about("Text.")
        .example(r#""Dear {{ name }}, we are open until nine.""#),
    optional("preview_url", Rule::Bool)
        .about("Whether a preview of the first link is shown.")
        .example("true")
        .or("false"),
]));

const LINK_FIELD: Field = required("link", LINK)
    .about("URL of the file. WhatsApp fetches it.")
    .example(r#""https://example.com/a.png""#);
const LINKED: Rule = Rule::Object(object(&[LINK_FIELD]));
/// Meta's reference: at most 1,024 characters.
const CAPTION: Field = optional("caption", Rule::Text(text(1024, Authority::Meta)))
    .about("Caption below the media.")
    .example(r#""This year's lights""#);
const CAPTIONED: Rule = Rule::Object(object(&[LINK_FIELD, CAPTION]));
const DOCUMENT: Rule = Rule::Object(object(&[
    LINK_FIELD,
    CAPTION,
    optional("filename", ANY_TEXT)
        .about("Name of the file. The extension decides how WhatsApp shows it.")
        .example(r#""invoice.pdf""#),
]));

const LOCATION: Rule = Rule::Object(object(&[
    required("longitude", Rule::Number { range: (-180.0, 180.0) })
        .about("Longitude in degrees; positive values are east of Greenwich.")
        .example("72.87"),
    required("latitude", Rule::Number { range: (-90.0, 90.0) })
        .about("Latitude in degrees; positive values are north of the equator.")
        .example("19.07"),
    optional("name", ANY_TEXT).about("Name of the place.").example(r#""Our shop""#),
    optional("address", ANY_TEXT)
        .about("Address of the place, which is shown only with a name.")
        .example(r#""1 Marine Drive, Mumbai""#),
]));
