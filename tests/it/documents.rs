//! The providers' documents 000 to 004, item by item in their order: values at the limit of each field and just beyond it.
//! Both flowcast and the sandbox, which has its own rules, must judge each value right.

use flowcast::campaign::codes;
use flowcast::campaign::{BATCH_LIMIT, Batch, Columns, Job, Phone, Template};
use flowcast::provider::{
    Credentials, Entry, HttpResponse, PROVIDERS, Provider, ProviderResponse, RequestBody, Scope, Transport,
    classify, kind,
};
use flowcast::sandbox::Behaviour;
use serde_json::{Value, json};

use crate::support::{job_with, sandbox};

/// Stands for a field that is absent.
const ABSENT: Value = Value::Null;

/// An item of a document: its place, the document's wording, the kind of message, the pointer to the field, and valid and
/// invalid values.
struct Item {
    document: &'static str,
    name: &'static str,
    words: &'static str,
    kind: &'static str,
    at: &'static str,
    valid: Vec<Value>,
    invalid: Vec<Value>,
}

fn item(
    [document, name, words]: [&'static str; 3],
    [kind, at]: [&'static str; 2],
    valid: impl Into<Vec<Value>>,
    invalid: impl Into<Vec<Value>>,
) -> Item {
    Item { document, name, words, kind, at, valid: valid.into(), invalid: invalid.into() }
}

fn long(count: usize) -> Value {
    json!("é".repeat(count))
}

/// Returns the smallest message of a kind that the documents allow.
fn message(kind: &str) -> Value {
    let link = json!({ "link": "https://example.com/a" });
    let flow = json!({ "type": "flow", "body": { "text": "b" }, "action": { "name": "flow", "parameters": {
        "flow_message_version": "3", "flow_token": "t", "flow_id": "1323", "flow_cta": "Go",
        "flow_action": "navigate", "flow_action_payload": { "screen": "S" } } } });
    let list = json!({ "type": "list", "body": { "text": "b" }, "action": { "button": "b",
        "sections": [{ "rows": [{ "id": "1", "title": "t" }] }] } });
    let buttons = json!({ "type": "button", "body": { "text": "b" }, "action": {
        "buttons": [{ "type": "reply", "reply": { "id": "1", "title": "t" } }] } });
    match kind {
        "text" => json!({ "type": "text", "text": { "body": "b" } }),
        "image" | "audio" | "video" | "document" | "sticker" => json!({ "type": kind, kind: link }),
        "location" => json!({ "type": kind, kind: { "longitude": "72.8", "latitude": "19.0" } }),
        "contacts" => {
            json!({ "type": kind, kind: [{ "name": { "formatted_name": "A", "first_name": "A" } }] })
        }
        "flow" => json!({ "type": "interactive", "interactive": flow }),
        "list" => json!({ "type": "interactive", "interactive": list }),
        "button" => json!({ "type": "interactive", "interactive": buttons }),
        "template" => json!({ "type": "template", "template": { "name": "t", "language": { "code": "en" },
            "components": [{ "type": "button", "sub_type": "flow", "index": "0", "parameters": [
                { "type": "action", "action": { "flow_token": "t" } }] }] } }),
        other => panic!("unknown kind {other}"),
    }
}

fn rows(count: usize) -> Value {
    (0..count).map(|nth| json!({ "id": nth.to_string(), "title": "t" })).collect()
}

fn sections(count: usize) -> Value {
    (0..count)
        .map(|nth| json!({ "title": nth.to_string(), "rows": [{ "id": nth.to_string(), "title": "t" }] }))
        .collect()
}

fn replies(count: usize) -> Value {
    (0..count)
        .map(|nth| json!({ "type": "reply", "reply": { "id": nth.to_string(), "title": nth.to_string() } }))
        .collect()
}

/// Returns the items of documents 000 and 001 for the content's Message Object; items of both are listed under the first.
#[expect(clippy::too_many_lines, reason = "it is a table")]
fn content_items() -> Vec<Item> {
    let links = || vec![json!("http://example.com/a"), json!("https://example.com/a?b=c")];
    let invalid_links =
        || vec![ABSENT, json!(""), json!("example.com/a"), json!("ftp://example.com/a"), json!("https://")];
    let caption = || vec![ABSENT, json!("c"), long(1024)];
    let picture = json!({ "link": "https://example.com/a", "caption": "c" });
    let paper = json!({ "link": "https://example.com/a.pdf", "caption": "c", "filename": "a.pdf" });
    vec![
        item(
            ["000", "recepient_type", "Mandatory; set this as an individual"],
            ["text", "/recipient_type"],
            [ABSENT, json!("individual")],
            [json!("group"), json!("")],
        ),
        item(
            ["000", "type", "Text, Image, Audio, Video, Document, Sticker, Location, Contact, Interactive"],
            ["text", "/type"],
            [json!("text")],
            [ABSENT, json!("sms"), json!("image")],
        ),
        item(
            ["000", "text", "Mandatory when type is text"],
            ["text", "/text"],
            [json!({ "body": "b" })],
            [ABSENT],
        ),
        item(
            ["000", "image", "Mandatory when the type is an image"],
            ["image", "/image"],
            [json!({ "link": "https://example.com" })],
            [ABSENT],
        ),
        item(
            ["000", "audio", "Mandatory when the type is an audio"],
            ["audio", "/audio"],
            [json!({ "link": "https://example.com" })],
            [ABSENT],
        ),
        item(
            ["000", "video", "Mandatory when type is video"],
            ["video", "/video"],
            [json!({ "link": "https://example.com" })],
            [ABSENT],
        ),
        item(
            ["000", "document", "Mandatory when type is a document"],
            ["document", "/document"],
            [json!({ "link": "https://example.com" })],
            [ABSENT],
        ),
        item(
            ["000", "sticker", "Mandatory when the type is a sticker"],
            ["sticker", "/sticker"],
            [json!({ "link": "https://example.com/a.webp" })],
            [ABSENT],
        ),
        item(
            ["000", "location", "Mandatory when type is location"],
            ["location", "/location"],
            [json!({ "longitude": "1", "latitude": "1" })],
            [ABSENT],
        ),
        item(
            ["000", "contacts", "Mandatory when type is contacts"],
            ["contacts", "/contacts"],
            [message("contacts")["contacts"].clone()],
            [ABSENT, json!([])],
        ),
        item(
            ["000", "interactive", "Mandatory when type is interactive"],
            ["flow", "/interactive"],
            [message("list")["interactive"].clone()],
            [ABSENT],
        ),
        item(
            ["000", "text.body", "Mandatory. Maximum length: 4096 characters"],
            ["text", "/text/body"],
            [json!("b"), long(4096)],
            [ABSENT, json!(""), long(4097), json!(7)],
        ),
        item(
            ["000", "text.preview_url", "Boolean, Optional"],
            ["text", "/text/preview_url"],
            [ABSENT, json!(true), json!(false)],
            [json!("Yes"), json!(1)],
        ),
        item(
            ["000", "image.link", "Use only with HTTP/HTTPS URLs"],
            ["image", "/image/link"],
            links(),
            invalid_links(),
        ),
        item(["000", "image.caption", "Optional"], ["image", "/image/caption"], caption(), [long(1025)]),
        item(
            ["000", "audio.link", "Use only with HTTP/HTTPS URLs"],
            ["audio", "/audio/link"],
            links(),
            invalid_links(),
        ),
        item(["000", "audio", "no caption"], ["audio", "/audio/caption"], [ABSENT], [json!("c")]),
        item(
            ["000", "video.link", "Use only with HTTP/HTTPS URLs"],
            ["video", "/video/link"],
            links(),
            invalid_links(),
        ),
        item(["000", "video.caption", "Optional"], ["video", "/video/caption"], caption(), [long(1025)]),
        item(
            ["000", "document.link", "Use only with HTTP/HTTPS URLs"],
            ["document", "/document/link"],
            links(),
            invalid_links(),
        ),
        item(
            ["000", "document.caption", "Optional"],
            ["document", "/document/caption"],
            caption(),
            [long(1025)],
        ),
        item(
            ["000", "document.filename", "Optional; use only document media"],
            ["document", "/document/filename"],
            [ABSENT, json!("a.pdf")],
            [json!(1)],
        ),
        item(
            ["000", "filename", "use only document media"],
            ["image", "/image/filename"],
            [ABSENT],
            [json!("a.png")],
        ),
        item(
            ["000", "interactive.type", "flow"],
            ["flow", "/interactive/type"],
            [json!("flow")],
            [ABSENT, json!("product")],
        ),
        item(
            ["000", "interactive.header", "Optional"],
            ["flow", "/interactive/header"],
            [ABSENT, json!({ "type": "text", "text": "h" })],
            [json!("h"), json!({ "type": "sticker" })],
        ),
        item(
            ["000", "interactive.body", "Required for other message types"],
            ["flow", "/interactive/body"],
            [json!({ "text": "b" })],
            [ABSENT],
        ),
        item(
            ["000", "interactive.footer", "Optional"],
            ["flow", "/interactive/footer"],
            [ABSENT, json!({ "text": "f" })],
            [json!({})],
        ),
        item(
            ["000", "interactive.action", "what the user performs"],
            ["flow", "/interactive/action"],
            [message("flow")["interactive"]["action"].clone()],
            [ABSENT, json!({})],
        ),
        item(
            ["000", "header.type", "text: used for List Messages, Reply Buttons"],
            ["list", "/interactive/header"],
            [json!({ "type": "text", "text": "h" })],
            [json!({ "text": "h" })],
        ),
        item(
            ["000", "header.type", "video: used for Reply Buttons"],
            ["list", "/interactive/header"],
            [ABSENT],
            [json!({ "type": "video", "video": picture })],
        ),
        item(
            ["000", "header.type", "image: used for Reply Buttons"],
            ["list", "/interactive/header"],
            [ABSENT],
            [json!({ "type": "image", "image": picture })],
        ),
        item(
            ["000", "header.type", "document: used for Reply Buttons"],
            ["list", "/interactive/header"],
            [ABSENT],
            [json!({ "type": "document", "document": paper })],
        ),
        item(
            ["000", "header.text", "Maximum length: 60 characters"],
            ["button", "/interactive/header"],
            [json!({ "type": "text", "text": "é".repeat(60) })],
            [json!({ "type": "text", "text": "é".repeat(61) }), json!({ "type": "text" })],
        ),
        item(
            ["000", "header.image", "Required if header type is set to image"],
            ["button", "/interactive/header"],
            [json!({ "type": "image", "image": picture })],
            [json!({ "type": "image" })],
        ),
        item(
            ["000", "header.video", "Required if header type is set to video"],
            ["button", "/interactive/header"],
            [json!({ "type": "video", "video": picture })],
            [json!({ "type": "video", "image": picture })],
        ),
        item(
            ["000", "header.document", "Required if header type is set to document"],
            ["button", "/interactive/header"],
            [json!({ "type": "document", "document": paper })],
            [json!({ "type": "document" })],
        ),
        item(
            ["000", "body.text", "Maximum length: 1024 characters"],
            ["flow", "/interactive/body/text"],
            [json!("b"), long(1024)],
            [ABSENT, json!(""), long(1025)],
        ),
        item(
            ["000", "footer.text", "Maximum length: 60 characters"],
            ["flow", "/interactive/footer"],
            [json!({ "text": "é".repeat(60) })],
            [json!({ "text": "é".repeat(61) }), json!({ "text": "" })],
        ),
        item(
            ["000", "action.name", "Value must be \"flow\""],
            ["flow", "/interactive/action/name"],
            // On premises (document 004).
            [json!("flow"), json!("galaxy_message")],
            [ABSENT, json!("list")],
        ),
        item(
            ["000", "mode", "draft or published"],
            ["flow", "/interactive/action/parameters/mode"],
            [ABSENT, json!("published"), json!("draft")],
            [json!("deprecated")],
        ),
        item(
            ["000", "flow_message_version", "Value must be \"3\""],
            ["flow", "/interactive/action/parameters/flow_message_version"],
            [json!("3")],
            [ABSENT, json!("2"), json!(3)],
        ),
        item(
            ["000", "flow_token", "String, Mandatory"],
            ["flow", "/interactive/action/parameters/flow_token"],
            [json!("flows-builder-97XXXXX")],
            [ABSENT, json!("")],
        ),
        item(
            ["000", "flow_id", "String, Mandatory"],
            ["flow", "/interactive/action/parameters/flow_id"],
            [json!("1323XXXXXXXXX")],
            [ABSENT, json!("")],
        ),
        item(
            ["000", "flow_cta", "Character limit - 20 characters (no emoji)"],
            ["flow", "/interactive/action/parameters/flow_cta"],
            [json!("Click Here"), long(20), json!("★ ✓ ⌘ © 5#")],
            [
                ABSENT,
                json!(""),
                long(21),
                json!("Go 🌸"),
                json!("\u{25fd}"),
                json!("\u{25fe}"),
                json!("1\u{20e3}"),
                json!("🇮🇳"),
            ],
        ),
        item(
            ["000", "flow_action", "navigate or data_exchange"],
            ["flow", "/interactive/action/parameters/flow_action"],
            [json!("navigate")],
            [ABSENT, json!("open"), json!("data_exchange")],
        ),
        item(
            [
                "000",
                "flow_action_payload",
                "Required if flow_action is navigate. Should be omitted otherwise",
            ],
            ["flow", "/interactive/action/parameters/flow_action_payload"],
            [json!({ "screen": "S" })],
            [ABSENT, json!({})],
        ),
        item(
            ["000", "flow_action_payload.screen", "Mandatory"],
            ["flow", "/interactive/action/parameters/flow_action_payload/screen"],
            [json!("screen_name")],
            [ABSENT, json!("")],
        ),
        item(
            ["000", "flow_action_payload.data", "Optional; must be a non-empty object"],
            ["flow", "/interactive/action/parameters/flow_action_payload/data"],
            [ABSENT, json!({ "product_price": 1, "product_name": "test" })],
            [json!({}), json!("x"), json!([])],
        ),
        item(
            ["001", "sticker.link", "Use only with HTTP/HTTPS URLs"],
            ["sticker", "/sticker/link"],
            links(),
            invalid_links(),
        ),
        item(
            ["001", "location.longitude", "String, Mandatory"],
            ["location", "/location/longitude"],
            [json!("-180"), json!("180")],
            [ABSENT, json!("181"), json!("east")],
        ),
        item(
            ["001", "location.latitude", "String, Mandatory"],
            ["location", "/location/latitude"],
            [json!("-90"), json!("90")],
            [ABSENT, json!("91"), json!("")],
        ),
        item(
            ["001", "location.name", "Optional"],
            ["location", "/location/name"],
            [ABSENT, json!("n")],
            [json!(1)],
        ),
        item(
            ["001", "location.address", "Optional. Only displayed if name is present"],
            ["location", "/location/address"],
            [ABSENT, json!("a")],
            [json!(1)],
        ),
        item(
            ["001", "contact.addresses", "Optional"],
            ["contacts", "/contacts/0/addresses"],
            [
                ABSENT,
                json!([]),
                json!([{ "city": "c", "country": "India", "country_code": "IN", "state": "MH", "street": "s",
                "type": "HOME", "zip": "400001" }]),
            ],
            [json!({}), json!([{ "planet": "p" }])],
        ),
        item(
            ["001", "contact.birthday", "YYYY-MM-DD"],
            ["contacts", "/contacts/0/birthday"],
            [ABSENT, json!("1990-01-31")],
            [json!("31-01-1990"), json!("1990-1-31"), json!("")],
        ),
        item(
            ["001", "contact.emails", "Optional"],
            ["contacts", "/contacts/0/emails"],
            [ABSENT, json!([{ "email": "a@example.com", "type": "WORK" }])],
            [json!("a@example.com")],
        ),
        item(
            ["001", "contact.name", "Mandatory"],
            ["contacts", "/contacts/0/name"],
            [json!({ "formatted_name": "A B", "last_name": "B" })],
            [ABSENT, json!("A B")],
        ),
        item(
            ["001", "contact.org", "Optional"],
            ["contacts", "/contacts/0/org"],
            [ABSENT, json!({ "company": "c", "department": "d", "title": "t" })],
            [json!("c"), json!({ "boss": "b" })],
        ),
        item(
            ["001", "contact.phones", "Optional"],
            ["contacts", "/contacts/0/phones"],
            [ABSENT, json!([{ "phone": "+1 555 0100", "type": "CELL", "wa_id": "15550100" }])],
            [json!(["+1"])],
        ),
        item(
            ["001", "contact.urls", "Optional"],
            ["contacts", "/contacts/0/urls"],
            [ABSENT, json!([{ "url": "example.com", "type": "HOME" }])],
            [json!([{ "URL": "example.com" }])],
        ),
        item(
            ["001", "address.country_code", "Two-letter country abbreviation"],
            ["contacts", "/contacts/0/addresses"],
            [json!([{ "country_code": "IN" }])],
            [json!([{ "country_code": "IND" }])],
        ),
        item(
            ["001", "address.zip", "String"],
            ["contacts", "/contacts/0/addresses"],
            [json!([{ "zip": "1" }])],
            [json!([{ "zip": 1 }])],
        ),
        item(
            ["001", "address.state", "String"],
            ["contacts", "/contacts/0/addresses"],
            [json!([{ "state": "MH" }])],
            [json!([{ "state": 1 }])],
        ),
        item(
            ["001", "name.first_name", "at least one of the optional parameters along with formatted_name"],
            ["contacts", "/contacts/0/name"],
            [json!({ "formatted_name": "A", "first_name": "A" })],
            [json!({ "formatted_name": "A" })],
        ),
        item(
            ["001", "name.formatted_name", "Mandatory"],
            ["contacts", "/contacts/0/name/formatted_name"],
            [json!("A")],
            [ABSENT, json!("")],
        ),
        item(
            ["001", "name.middle_name", "Optional"],
            ["contacts", "/contacts/0/name"],
            [json!({ "formatted_name": "A", "middle_name": "M" })],
            [json!({ "formatted_name": "A", "middle_name": 1 })],
        ),
        item(
            ["001", "name.suffix", "Optional"],
            ["contacts", "/contacts/0/name"],
            [json!({ "formatted_name": "A", "suffix": "Jr" })],
            [json!({ "formatted_name": "A", "suffix": 1 })],
        ),
        item(
            ["001", "name.prefix", "Optional"],
            ["contacts", "/contacts/0/name"],
            [json!({ "formatted_name": "A", "prefix": "Dr" })],
            [json!({ "formatted_name": "A", "prefix": 1 })],
        ),
        item(
            ["001", "interactive.type", "List Messages"],
            ["list", "/interactive/type"],
            [json!("list")],
            [json!("button")],
        ),
        item(
            ["001", "interactive.type", "Reply Buttons"],
            ["button", "/interactive/type"],
            [json!("button")],
            [json!("list")],
        ),
        item(
            ["001", "action.button", "Maximum length: 20 characters; cannot be an empty string"],
            ["list", "/interactive/action/button"],
            [json!("🌸"), long(20)],
            [ABSENT, json!(""), long(21)],
        ),
        item(
            ["001", "action.sections", "Minimum of 1, maximum of 10"],
            ["list", "/interactive/action/sections"],
            [sections(1), sections(10)],
            [ABSENT, json!([]), sections(11)],
        ),
        item(
            ["001", "action.buttons", "up to 3 buttons"],
            ["button", "/interactive/action/buttons"],
            [replies(1), replies(3)],
            [ABSENT, json!([]), replies(4)],
        ),
        item(
            ["001", "section.title", "Required if more than one section. Maximum length: 24 characters"],
            ["list", "/interactive/action/sections"],
            [json!([{ "rows": rows(1) }]), json!([{ "title": "é".repeat(24), "rows": rows(1) }])],
            [
                json!([{ "title": "é".repeat(25), "rows": rows(1) }]),
                json!([{ "title": "a", "rows": rows(1) }, { "rows": [{ "id": "x", "title": "t" }] }]),
            ],
        ),
        item(
            ["001", "section.rows", "a total of 10 rows across your sections"],
            ["list", "/interactive/action/sections"],
            [json!([{ "rows": rows(10) }])],
            [
                json!([{ "rows": rows(11) }]),
                json!([{ "rows": [] }]),
                json!([{}]),
                json!([{ "title": "a", "rows": rows(6) }, { "title": "b", "rows": rows(5) }]),
            ],
        ),
        item(
            ["001", "row.id", "Maximum length: 200 characters"],
            ["list", "/interactive/action/sections/0/rows/0/id"],
            [long(200)],
            [ABSENT, json!(""), long(201)],
        ),
        item(
            ["001", "row.title", "Maximum length: 24 characters"],
            ["list", "/interactive/action/sections/0/rows/0/title"],
            [long(24)],
            [ABSENT, json!(""), long(25)],
        ),
        item(
            ["001", "row.description", "Maximum length: 72 characters, optional"],
            ["list", "/interactive/action/sections/0/rows/0/description"],
            [ABSENT, long(72)],
            [long(73)],
        ),
        item(
            ["001", "button.type", "Only supported type is reply"],
            ["button", "/interactive/action/buttons/0/type"],
            [json!("reply")],
            [ABSENT, json!("url")],
        ),
        item(
            ["001", "button.reply", "Mandatory"],
            ["button", "/interactive/action/buttons/0/reply"],
            [json!({ "id": "1", "title": "t" })],
            [ABSENT, json!({})],
        ),
        item(
            ["001", "reply.id", "Maximum length: 256 characters; no leading or trailing spaces"],
            ["button", "/interactive/action/buttons/0/reply/id"],
            [long(256)],
            [ABSENT, json!(""), long(257), json!(" 1"), json!("1 ")],
        ),
        item(
            ["001", "reply.title", "Maximum length: 20 characters; cannot be empty; unique"],
            ["button", "/interactive/action/buttons/0/reply/title"],
            [json!("🌸"), long(20)],
            [ABSENT, json!(""), long(21)],
        ),
        item(
            ["001", "reply.title", "must be unique within the message"],
            ["button", "/interactive/action/buttons"],
            [replies(2)],
            [json!([replies(1)[0], { "type": "reply", "reply": { "id": "x", "title": "0" } }])],
        ),
        item(
            ["003", "flow_action_payload", "initial data to pass to the flow"],
            ["flow", "/interactive/action/parameters/flow_action_payload/data"],
            [json!({ "available_slots": ["10:00 AM", "2:00 PM"] })],
            [json!("10:00 AM")],
        ),
        item(
            ["004", "buttons.flow_id", "id of a flow"],
            ["template", "/template/flow_id"],
            [ABSENT],
            [json!("1323")],
        ),
        item(
            ["004", "buttons.navigate_screen", "required if flow_action is navigate"],
            ["template", "/template/components/0/navigate_screen"],
            [ABSENT],
            [json!("S")],
        ),
        item(
            ["004", "buttons.flow_action", "navigate or data_exchange"],
            ["template", "/template/components/0/flow_action"],
            [ABSENT],
            [json!("navigate")],
        ),
        item(
            ["004", "Template Name", "to be passed"],
            ["template", "/template/name"],
            [json!("flow_template20"), json!("a".repeat(512))],
            [ABSENT, json!(""), json!("a".repeat(513))],
        ),
        item(
            ["004", "Language Code", "to be passed"],
            ["template", "/template/language/code"],
            [json!("en_US")],
            [ABSENT, json!("")],
        ),
        item(
            ["004", "Flow Token", "Optional"],
            ["template", "/template/components/0/parameters/0/action/flow_token"],
            [ABSENT, json!("0000")],
            [json!("")],
        ),
    ]
}

/// Returns the items of document 002: the attributes of `messaging_object` and `extra_info`.
fn kaleyra_items() -> Vec<Item> {
    vec![
        item(
            ["002", "recipient_type", "The only allowed value is 'individual'. No"],
            ["template", "/recipient_type"],
            [ABSENT, json!("individual")],
            [json!("group")],
        ),
        item(["002", "type", "'template'"], ["template", "/type"], [json!("template")], [json!("flow")]),
        item(
            ["002", "template", "Yes"],
            ["template", "/template"],
            [message("template")["template"].clone()],
            [ABSENT],
        ),
        item(
            ["002", "template.name", "Yes"],
            ["template", "/template/name"],
            [json!("flow_template20")],
            [ABSENT],
        ),
        item(
            ["002", "template.language", "Yes"],
            ["template", "/template/language"],
            [json!({ "code": "en_US" })],
            [ABSENT, json!("en_US")],
        ),
        item(
            ["002", "template.components", "Yes"],
            ["template", "/template/components"],
            [json!([])],
            [ABSENT],
        ),
        item(
            ["002", "components.type", "button, Yes"],
            ["template", "/template/components/0/type"],
            [json!("button")],
            [ABSENT, json!("footer")],
        ),
        item(
            ["002", "components.sub_type", "flow, Yes"],
            ["template", "/template/components/0/sub_type"],
            [json!("flow")],
            [ABSENT, json!("form")],
        ),
        item(
            ["002", "components.index", "Numeric, Yes"],
            ["template", "/template/components/0/index"],
            [json!(0), json!(9)],
            [ABSENT, json!(10)],
        ),
        item(
            ["002", "components.parameters", "Yes"],
            ["template", "/template/components/0/parameters"],
            [json!([{ "type": "action", "action": {} }])],
            [ABSENT, json!([])],
        ),
        item(
            ["002", "parameters.type", "action, Yes"],
            ["template", "/template/components/0/parameters/0/type"],
            [json!("action")],
            [ABSENT, json!("text")],
        ),
        item(
            ["002", "parameters.action", "Yes"],
            ["template", "/template/components/0/parameters/0/action"],
            [json!({ "flow_token": "t" })],
            [ABSENT],
        ),
        item(
            ["002", "action.flow_token", "No"],
            ["template", "/template/components/0/parameters/0/action/flow_token"],
            [ABSENT, json!("xxxxxAACS5FpgQ_cAAAAAD0xxxx")],
            [json!("")],
        ),
        item(
            ["002", "action.flow_action_data", "No"],
            ["template", "/template/components/0/parameters/0/action/flow_action_data"],
            // As in the sample; the table calls it an array.
            [ABSENT, json!({}), json!({ "a": 1 })],
            [json!([]), json!("navigate")],
        ),
    ]
}

fn open_provider(name: &str) -> Box<dyn Provider> {
    open_provider_at(name, kind(name).unwrap().regions[0].1)
}

fn open_provider_at(name: &str, base: &str) -> Box<dyn Provider> {
    let credentials = Credentials {
        account_sid: "acme1".into(),
        api_key: "key".into(),
        api_token: "token".into(),
        ..Credentials::default()
    };
    (kind(name).unwrap().open)(&base.parse().unwrap(), &credentials).unwrap()
}

/// Returns the request that flowcast builds from a job, or why it refuses the job.
fn request(provider: &str, job: &Value) -> Result<Value, String> {
    let refused = |problems: Vec<flowcast::campaign::Problem>| problems[0].to_string();
    let job = Job::read(job.to_string().as_bytes()).map_err(refused)?;
    let provider_ = open_provider(provider);
    let envelope = provider_.envelope(&job, false).map_err(refused)?;
    let columns = Columns::new(Vec::new());
    let template = Template::compile(&envelope, &job.limits_of_strings, job.check_rendered, &columns, None)
        .map_err(refused)?;
    let mut batch = Batch::new("c1".parse().unwrap(), 0, 0, false);
    batch.push(1, "+919876543210".parse().unwrap(), std::iter::empty::<&str>());
    let mut body = RequestBody::new(kind(provider).unwrap(), 0);
    let recipient = batch.recipient(0).unwrap();
    body.message(|out| template.render(&recipient, out)).map_err(|skip| skip.detail)?;
    let request = provider_.request(provider_.endpoint(job.from), body);
    Ok(serde_json::from_slice(&request.body).unwrap())
}

/// Replaces or removes the value at a pointer.
fn set_at(mut value: Value, at: &str, is: &Value) -> Value {
    let (parent, name) = at.rsplit_once('/').unwrap();
    let parent = value.pointer_mut(parent).unwrap_or_else(|| panic!("{at} does not exist"));
    match (parent, is) {
        (Value::Object(map), Value::Null) => drop(map.shift_remove(name)),
        (parent, is) => parent[name] = is.clone(),
    }
    value
}

/// Sends a request to the sandbox and returns the response's status and body.
async fn post_to_sandbox(url: &str, provider: &str, body: &Value) -> (u16, Value) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let request = match provider {
        "exotel" => client.post(format!("{url}/v2/accounts/acme1/messages")).basic_auth("key", Some("token")),
        _ => client.post(format!("{url}/v2/acme1/whatsapp/+912248931479/messages")).header("api-key", "key"),
    };
    let response =
        request.header("content-type", "application/json").body(body.to_string()).send().await.unwrap();
    (response.status().as_u16(), serde_json::from_slice(&response.bytes().await.unwrap()).unwrap())
}

/// Checks that flowcast and the sandbox agree about every item; `prefix` is the content's place in a request.
async fn check(items: Vec<Item>, provider: &str, prefix: &str) {
    let (_sandbox, url) = sandbox(Behaviour::default()).await;
    let mut errors = Vec::new();
    for Item { document, name, words, kind, at, valid, invalid } in &items {
        let describe = |value: &Value| {
            let shown: String = value.to_string().chars().take(60).collect();
            format!("{document} {name} ({words}): {shown}")
        };
        for value in valid {
            match request(provider, &job_with("/message", set_at(message(kind), at, value))) {
                Err(error) => errors.push(format!("{}: flowcast refuses it: {error}", describe(value))),
                Ok(body) => {
                    let (status, response) = post_to_sandbox(&url, provider, &body).await;
                    if status != 202 {
                        errors.push(format!("{}: the sandbox refuses it: {response}", describe(value)));
                    }
                }
            }
        }
        for value in invalid {
            if let Ok(body) = request(provider, &job_with("/message", set_at(message(kind), at, value))) {
                errors.push(format!("{}: flowcast accepts it: {body}", describe(value)));
            }
            // As a program without checks would send it.
            let body = request(provider, &job_with("/message", message(kind))).unwrap();
            let (status, _) =
                post_to_sandbox(&url, provider, &set_at(body, &format!("{prefix}{at}"), value)).await;
            if status != 400 {
                errors.push(format!("{}: the sandbox accepts it", describe(value)));
            }
        }
    }
    assert!(errors.is_empty(), "{} of {} items:\n{}", errors.len(), items.len(), errors.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_field_of_exotels_content_has_the_documented_limits() {
    check(content_items(), "exotel", "/whatsapp/messages/0/content").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_field_of_kaleyras_content_has_the_documented_limits() {
    check(kaleyra_items(), "kaleyra", "/messaging_object").await;
}

/// Documents 000 and 001, the POST parameters, the channel and the message: what is sent, and at which level.
#[tokio::test(flavor = "multi_thread")]
async fn the_parameters_around_exotels_content_are_as_documented() {
    let mut job = job_with("/message", message("text"));
    job["custom_data"] = json!("ORDXXXXXXX");
    job["status_callback"] = json!("https://webhook.example.com");
    let body = request("exotel", &job).unwrap();
    // custom_data and status_callback are allowed at three levels; the innermost wins, so flowcast uses it.
    let sent = &body["whatsapp"]["messages"][0];
    assert_eq!(sent["custom_data"], "ORDXXXXXXX");
    assert_eq!(sent["status_callback"], "https://webhook.example.com");
    assert_eq!(sent["from"], "+912248931479");
    assert_eq!(sent["to"], "+919876543210");
    // The tables misspell recipient_type, the examples do not.
    assert_eq!(
        (&sent["content"]["recipient_type"], &sent["content"]["recepient_type"]),
        (&json!("individual"), &ABSENT)
    );
    // Document 004 has a button's index as a string.
    let template = request("exotel", &job_with("/message", message("template"))).unwrap();
    let template = &template["whatsapp"]["messages"][0]["content"]["template"];
    assert_eq!(template["components"][0]["index"], "0");
    let (_sandbox, url) = sandbox(Behaviour::default()).await;
    for level in ["", "/whatsapp", "/whatsapp/messages/0"] {
        for name in ["custom_data", "status_callback"] {
            let body = set_at(body.clone(), &format!("{level}/{name}"), &json!("https://example.com"));
            assert_eq!(post_to_sandbox(&url, "exotel", &body).await.0, 202, "{level}/{name} must be allowed");
        }
    }
    let refused = [
        ("/whatsapp", ABSENT),
        ("/whatsapp/messages", ABSENT),
        ("/whatsapp/messages", json!([])),
        ("/whatsapp/messages/0/from", ABSENT),
        ("/whatsapp/messages/0/to", ABSENT),
        ("/whatsapp/messages/0/to", json!("++919999999999")),
        ("/whatsapp/messages/0/content", ABSENT),
        ("/whatsapp/messages/0/content/recepient_type", json!("individual")),
        // "Content", as a sample of document 001 has it.
        ("/whatsapp/messages/0/Content", json!({})),
    ];
    for (at, value) in refused {
        assert_eq!(post_to_sandbox(&url, "exotel", &set_at(body.clone(), at, &value)).await.0, 400, "{at}");
    }
    // "More than 100 messages specified in a request".
    let repeated =
        |count: usize| set_at(body.clone(), "/whatsapp/messages", &json!(vec![sent.clone(); count]));
    assert_eq!(post_to_sandbox(&url, "exotel", &repeated(BATCH_LIMIT)).await.0, 202);
    assert_eq!(post_to_sandbox(&url, "exotel", &repeated(BATCH_LIMIT + 1)).await.0, 400);
    assert_eq!((BATCH_LIMIT, kind("exotel").unwrap().per_request), (100, 100));
}

#[test]
fn phone_numbers_are_parsed_as_in_document_000() {
    for number in ["+10000000000", "+919888888888", "+919876543210"] {
        assert!(number.parse::<Phone>().is_ok(), "{number}");
    }
    for invalid in ["919876543210", "++919999000000", "+0", "+91 98765 43210", "2365564965"] {
        assert!(invalid.parse::<Phone>().is_err(), "{invalid}");
    }
}

/// The hosts, the paths, the credentials and the content type of documents 000, 001 and 002.
#[test]
fn requests_use_the_documented_hosts_and_paths() {
    let expected = [
        ("exotel", "singapore", "https://api.exotel.com/v2/accounts/acme1/messages"),
        ("exotel", "mumbai", "https://api.in.exotel.com/v2/accounts/acme1/messages"),
        ("kaleyra", "in", "https://api.in.kaleyra.io/v2/acme1/whatsapp/+912248931479/messages"),
        ("kaleyra", "ap", "https://api.ap.kaleyra.io/v2/acme1/whatsapp/+912248931479/messages"),
        ("kaleyra", "eu", "https://api.eu.kaleyra.io/v2/acme1/whatsapp/+912248931479/messages"),
    ];
    let from = "+912248931479".parse().unwrap();
    let mut regions = 0;
    for (name, region, url) in expected {
        let kind = kind(name).unwrap();
        let host = kind.regions.iter().find(|(known, _)| *known == region).unwrap().1;
        let provider = open_provider_at(name, host);
        assert_eq!(provider.endpoint(from).as_str(), url);
        let request = provider.request(provider.endpoint(from), RequestBody::new(kind, 0));
        let header = if name == "exotel" { "authorization" } else { "api-key" };
        assert_eq!(request.authorization.0, header);
        regions += 1;
    }
    let all: usize = PROVIDERS.iter().filter(|kind| kind.name != "meta").map(|kind| kind.regions.len()).sum();
    assert_eq!(regions, all);
}

/// Document 002: `extra_info`, each at most 255 characters; `wa_source` is one of thirteen values.
#[tokio::test(flavor = "multi_thread")]
async fn the_parameters_besides_kaleyras_content_are_as_documented() {
    let (_sandbox, url) = sandbox(Behaviour::default()).await;
    let job_with_extra_info = |name: &str, value: Value| {
        set_at(job_with("/message", message("template")), "/extra_info", &json!({ name: value }))
    };
    for name in ["ref1", "ref2"] {
        let body = request("kaleyra", &job_with_extra_info(name, json!("x".repeat(255)))).unwrap();
        assert_eq!(body["extra_info"][name].as_str().unwrap().len(), 255);
        assert_eq!(body["extra_info"]["ref"], "c1.0.0", "ref must be the message's reference");
        assert_eq!(post_to_sandbox(&url, "kaleyra", &body).await.0, 202);
        assert!(request("kaleyra", &job_with_extra_info(name, json!("x".repeat(256)))).is_err());
        let body = set_at(body, &format!("/extra_info/{name}"), &json!("x".repeat(256)));
        assert_eq!(post_to_sandbox(&url, "kaleyra", &body).await.0, 400);
    }
    let sources = [
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
    for source in sources {
        let body = request("kaleyra", &job_with_extra_info("wa_source", json!(source))).unwrap();
        assert_eq!(body["extra_info"]["wa_source"], source);
        assert_eq!(post_to_sandbox(&url, "kaleyra", &body).await.0, 202);
    }
    assert!(request("kaleyra", &job_with_extra_info("wa_source", json!("mailchimp"))).is_err());
    let default = request("kaleyra", &job_with("/message", message("template"))).unwrap();
    assert_eq!(default["extra_info"]["wa_source"], "api");
    let object = &default["messaging_object"];
    assert_eq!(object["messaging_product"], "whatsapp");
    assert_eq!(object["to"], "+919876543210");
    assert_eq!(object["template"]["components"][0]["index"], 0, "Kaleyra's index must be a number");
    for (at, value) in [
        ("/messaging_object", ABSENT),
        ("/messaging_object/messaging_product", json!("sms")),
        ("/messaging_object/to", json!("+91xxxxxxxxxx")),
        ("/messaging_object/template/components/0/index", json!("0")),
    ] {
        assert_eq!(
            post_to_sandbox(&url, "kaleyra", &set_at(default.clone(), at, &value)).await.0,
            400,
            "{at}"
        );
    }
}

/// Returns what a provider's response to `count` messages proves.
fn classify_response(provider: &str, status: u16, body: &Value, count: usize) -> ProviderResponse {
    let reply = HttpResponse { status, retry_after: None, body: body.to_string().into() };
    let parsed = open_provider(provider).parse(&reply, count);
    classify(&reply, parsed)
}

fn classify_entry(entry: &Value) -> Entry {
    let body = json!({ "request_id": "b434e927a5844175b23059cd96feea3d", "method": "POST", "http_code": 202,
        "metadata": { "failed": 0, "total": 1, "success": 1 }, "response": { "whatsapp": { "messages": [entry] } } });
    match classify_response("exotel", 202, &body, 1) {
        ProviderResponse::Entries(mut entries) => entries.remove(0),
        other => panic!("{other:?}"),
    }
}

/// Documents 000 and 001, the response parameters and the HTTP error codes.
#[test]
fn exotels_responses_are_parsed_as_documented() {
    let success = json!({ "code": 202, "error_data": null, "status": "success", "data": { "sid": "2FdiiEQUosckPhpZfuVwfjxiSlc16a4" } });
    assert_eq!(classify_entry(&success), Entry::Accepted { sid: "2FdiiEQUosckPhpZfuVwfjxiSlc16a4".into() });
    // data.sid: Mandatory.
    assert!(matches!(classify_entry(&set_at(success.clone(), "/data", &json!({}))), Entry::Unknown { .. }));
    assert!(matches!(classify_entry(&set_at(success.clone(), "/data", &ABSENT)), Entry::Unknown { .. }));
    // status: Mandatory.
    assert!(matches!(classify_entry(&set_at(success.clone(), "/status", &ABSENT)), Entry::Unknown { .. }));
    // code: "Response code for the individual message".
    let failed = |code: u32| {
        json!({ "code": code, "status": "failure", "data": null,
        "error_data": { "code": code, "message": "brief", "description": "detailed" } })
    };
    let Entry::Rejected { code, detail } = classify_entry(&failed(400)) else {
        panic!("400 must reject the message")
    };
    // error_data: code, message "Brief description", description "Detailed explanation".
    assert_eq!((code.as_str(), detail.as_str()), ("400", "brief: detailed"));
    for (code, scope) in [(401, Scope::Account), (402, Scope::Account), (403, Scope::Flows)] {
        let found = classify_entry(&failed(code));
        assert!(matches!(&found, Entry::Refused { scope: of, .. } if *of == scope), "{code}: {found:?}");
    }
    for code in [429, 500, 503] {
        let found = classify_entry(&failed(code));
        assert!(!matches!(found, Entry::Rejected { .. } | Entry::Accepted { .. }), "{code}: {found:?}");
    }
    // request_id: "useful for debugging and tracing purposes".
    let reply = |body: &Value| HttpResponse { status: 202, retry_after: None, body: body.to_string().into() };
    let id = |body: Value| open_provider("exotel").request_id(&reply(&body));
    assert_eq!(
        id(json!({ "request_id": "b434e927a5844175b23059cd96feea3d" })).as_deref(),
        Some("b434e927a5844175b23059cd96feea3d")
    );
    for invalid in [
        json!({}),
        json!({ "request_id": "" }),
        json!({ "request_id": "a\nb" }),
        json!({ "request_id": "x".repeat(65) }),
    ] {
        assert_eq!(id(invalid), None);
    }
    // metadata: the entries of a contradictory response count.
    let body = json!({ "request_id": "r", "metadata": { "failed": 1, "total": 1, "success": 0 },
        "response": { "whatsapp": { "messages": [success] } } });
    assert!(
        matches!(&classify_response("exotel", 202, &body, 1), ProviderResponse::Entries(entries) if matches!(entries[0], Entry::Accepted { .. }))
    );
    // Document 003's other shape.
    let other = json!({ "response": { "code": 200, "status": "success", "data": { "message_id": "msg_flow_001", "status": "sent" } } });
    assert_eq!(
        classify_response("exotel", 200, &other, 1),
        ProviderResponse::Entries(vec![Entry::Accepted { sid: "msg_flow_001".into() }])
    );
    let error = |status: u16| {
        classify_response("exotel", status, &json!({ "http_code": status, "request_id": "r" }), 2)
    };
    assert!(matches!(error(400), ProviderResponse::Malformed { .. }));
    for status in [401, 402, 403] {
        assert!(matches!(error(status), ProviderResponse::Refused { .. }), "{status}");
    }
    assert!(matches!(error(404), ProviderResponse::Refused { scope: Scope::Campaign, .. }));
    for status in [500, 503] {
        assert!(matches!(error(status), ProviderResponse::TryAgain { .. }), "{status}");
    }
}

/// Document 002, the sample responses, each with its text.
#[tokio::test(flavor = "multi_thread")]
async fn kaleyras_responses_are_parsed_as_documented() {
    let accepted = json!({ "code": "WA202", "message": "Request Accepted", "data": { "message_id": "AXXX" }, "error": {} });
    assert_eq!(
        classify_response("kaleyra", 202, &accepted, 1),
        ProviderResponse::Entries(vec![Entry::Accepted { sid: "AXXX".into() }])
    );
    let refused = |status: u16, code: &str, data: Value, field: &str, text: &str| {
        classify_response(
            "kaleyra",
            status,
            &json!({ "code": code, "message": text, "data": data, "error": { field: text } }),
            1,
        )
    };
    let scope = |response: ProviderResponse| match response {
        ProviderResponse::Refused { scope, reason } => (scope, reason),
        other => panic!("{other:?}"),
    };
    let (found, _) = scope(refused(401, "RBC001", json!([]), "error", "Incorrect SID or API key."));
    assert_eq!(found, Scope::Account);
    let text = "Phone number is not present or does not belong to the account.";
    let (found, reason) = scope(refused(401, "WA401", json!({}), "phone_number", text));
    assert_eq!(found, Scope::Sender);
    assert!(reason.contains("phone_number"), "the reason must name the field: {reason}");
    assert!(matches!(
        refused(400, "WA400", json!({}), "payload", "Refer to correct payload format"),
        ProviderResponse::Malformed { .. }
    ));
    assert!(matches!(
        refused(500, "WA500", json!({}), "error", "Please try again later"),
        ProviderResponse::TryAgain { .. }
    ));
    let (found, _) = scope(refused(
        400,
        "E110",
        json!({}),
        "balance",
        "Please check your balance, You have a low balance!",
    ));
    assert_eq!(found, Scope::Account);
    let version = "The phone number you're using is associated with different Version of our WA API.";
    let (found, _) = scope(refused(401, "WA-401", json!({}), "phone_number", version));
    assert_eq!(found, Scope::Sender);
    // The sandbox returns each of them as documented.
    for (code, status, field) in [
        ("RBC001", 401, "error"),
        ("WA401", 401, "phone_number"),
        ("WA400", 400, "payload"),
        ("WA500", 500, "error"),
        ("E110", 400, "balance"),
        ("WA-401", 401, "account"),
        ("WA-401:version", 401, "phone_number"),
    ] {
        let faults = [(code.to_owned(), 1.0)].into();
        let (_sandbox, url) = sandbox(Behaviour { faults, ..Behaviour::default() }).await;
        let body = request("kaleyra", &job_with("/message", message("template"))).unwrap();
        let (returned, error) = post_to_sandbox(&url, "kaleyra", &body).await;
        let expected = code.split(':').next().unwrap();
        assert_eq!((returned, &error["code"]), (status, &json!(expected)), "{code}");
        assert!(error["error"][field].is_string(), "{error}");
        assert_eq!(error["data"], if code == "RBC001" { json!([]) } else { json!({}) });
    }
}

/// Document 001, the status callback parameters; documents 003 and 004, replies.
#[test]
fn exotels_callbacks_are_parsed_field_by_field() {
    use flowcast::campaign::delivery::{Delivery, DeliveryUpdate, ReplyContent};
    let exotel = open_provider("exotel");
    let dlr = json!({ "callback_type": "dlr", "sid": "1234", "to": "+12365564965", "exo_status_code": 25001,
        "exo_detailed_status": "EX_MESSAGE_DELIVERED", "description": "Message delivered",
        "timestamp": "2022-12-07T17:00:00.000+05:30", "custom_data": "c1.7.3" });
    let one = |report: Value| exotel.reports(&json!({ "whatsapp": { "messages": [report] } })).pop().unwrap();
    let report = one(dlr);
    assert_eq!(report.sid.as_deref(), Some("1234"));
    assert_eq!(report.recipient, "+12365564965".parse().ok());
    assert_eq!(report.at, Some(1_670_412_600_000));
    assert_eq!(report.message.unwrap().to_string(), "c1.7.3");
    // The name counts: another table gives it the number 25001.
    assert!(matches!(report.update, DeliveryUpdate::Delivery { state: Delivery::Delivered, .. }));
    // "Possible values: dlr, icm", and document 004's incoming_message.
    for kind in ["icm", "incoming_message"] {
        let report = one(json!({ "callback_type": kind, "sid": "4743da54", "from": "+918871206831",
            "to": "+912248931479", "timestamp": "2023-10-21T12:35:00+05:30", "profile_name": "Javed",
            "content": { "type": "interactive", "context": { "sid": "f317c729" }, "interactive": {
                "type": "nfm_reply", "nfm_reply": { "body": "Sent", "name": "galaxy_message",
                    "response_json": "{\"flow_token\":\"flows-builder-97dca41f\",\"vehicle_number\":\"74785\"}" } } } }));
        assert_eq!(
            (report.sid.as_deref(), report.recipient),
            (Some("f317c729"), "+918871206831".parse().ok())
        );
        assert_eq!((report.sender, report.at), ("+912248931479".parse().ok(), Some(1_697_871_900_000)));
        let DeliveryUpdate::Reply(reply) = report.update else { panic!("{kind} must be a reply") };
        assert_eq!(reply.id, "4743da54");
        let details: Vec<(&str, &str)> =
            reply.details.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        assert_eq!(details, [("body", "Sent"), ("name", "galaxy_message"), ("profile_name", "Javed")]);
        let ReplyContent::Flow(fields) = reply.content else { panic!("the reply must be a form") };
        assert_eq!(fields["vehicle_number"], "74785");
    }
    // Document 003.
    let webhook = json!({ "event": "flow_response", "message_id": "msg_flow_001", "from": "+919876543210",
        "flow_id": "flow_abc123", "flow_token": "your_flow_token",
        "response_json": { "appointment_date": "2024-06-20" }, "timestamp": "2024-06-15T10:40:00.000Z" });
    let report = exotel.reports(&webhook).pop().unwrap();
    assert_eq!((report.sid.as_deref(), report.message), (Some("msg_flow_001"), None));
    let DeliveryUpdate::Reply(reply) = report.update else { panic!("flow_response must be a reply") };
    assert_eq!(reply.details["flow_id"], "flow_abc123");
}

/// Document 001, the detailed status codes: the number and the name of each.
#[test]
fn each_of_the_41_codes_has_the_number_and_the_name_of_document_001() {
    let names = [
        "EX_MESSAGE_SENT",
        "EX_MESSAGE_DELIVERED",
        "EX_MESSAGE_SEEN",
        "EX_SYSTEM_ERROR",
        "EX_NUMBER_ERROR",
        "EX_SETUP_ERROR",
        "EX_RATE_LIMIT_HIT",
        "EX_SPAM_RATE_LIMIT_HIT",
        "EX_TOO_MANY_REQUEST",
        "EX_INVALID_REQUEST",
        "EX_UNKNOWN_ERROR",
        "EX_INVALID_RECIPIENT",
        "EX_INCAPABLE_RECIPIENT",
        "EX_RECIPIENT_BLOCKED",
        "EX_UNSUPPORTED_MESSAGE",
        "EX_MEDIA_DOWNLOAD_ERROR",
        "EX_MEDIA_UPLOAD_ERROR",
        "EX_REENGAGEMENT_ERROR",
        "EX_INVALID_PARAM",
        "EX_MISSING_PARAM",
        "EX_INVALID_PARAM_VALUE",
        "EX_TEMPLATE_ERROR",
        "EX_TEMPLATE_PARAM_ERROR",
        "EX_TEMPLATE_NOT_FOUND",
        "EX_TEMPLATE_TEXT_TOO_LONG",
        "EX_INVALID_TEMPLATE_NAMESPACE",
        "EX_MESSAGE_PENDING_TOO_LONG",
        "EX_MESSAGE_EXPIRED",
        "EX_MESSAGE_TOO_LONG",
        "EX_WEBHOOK_ERROR",
        "EX_SECTION_COUNT_ERROR",
        "EX_ROWS_COUNT_ERROR",
        "EX_PRODUCT_COUNT_ERROR",
        "EX_CATALOGUE_NOT_FOUND",
        "EX_CATALOGUE_NOT_LINKED",
        "EX_MISSING_PRODUCT",
        "EX_PRODUCT_NOT_FOUND",
        "EX_PRODUCT_COMPLIANCE_ERROR",
        "EX_INVALID_HEADER",
        "EX_MISSING_COMPLIANCE",
        "EX_CHAR_POLICY_VIOLATION",
    ];
    assert_eq!(names.len(), 41);
    for (number, name) in (30001..).zip(names) {
        let known = codes::in_report(&number.to_string()).map(|code| code.code);
        assert_eq!(known, Some(name), "{number}");
    }
}

/// The fields of each document, in its order. Each is an item of a table above, or has its own test here.
const OUTLINE: [(&str, &[&str]); 5] = [
    (
        "000",
        &[
            "custom_data",
            "status_callback",
            "messages",
            "from",
            "to",
            "content",
            "recepient_type",
            "type",
            "text",
            "image",
            "audio",
            "video",
            "document",
            "sticker",
            "location",
            "contacts",
            "interactive",
            "text.body",
            "text.preview_url",
            "image.link",
            "image.caption",
            "audio.link",
            "video.link",
            "video.caption",
            "document.link",
            "document.caption",
            "document.filename",
            "interactive.type",
            "interactive.header",
            "interactive.body",
            "interactive.footer",
            "interactive.action",
            "header.type",
            "header.text",
            "header.image",
            "header.video",
            "header.document",
            "body.text",
            "footer.text",
            "action.name",
            "mode",
            "flow_message_version",
            "flow_token",
            "flow_id",
            "flow_cta",
            "flow_action",
            "flow_action_payload",
            "flow_action_payload.screen",
            "flow_action_payload.data",
            "response: request_id",
            "response: metadata",
            "response: code",
            "response: error_data",
            "response: status",
            "response: sid",
            "HTTP codes",
            "dlr",
        ],
    ),
    (
        "001",
        &[
            "custom_data",
            "status_callback",
            "messages",
            "from",
            "to",
            "content",
            "recepient_type",
            "type",
            "text.body",
            "text.preview_url",
            "image.link",
            "image.caption",
            "audio.link",
            "video.link",
            "video.caption",
            "document.link",
            "document.caption",
            "document.filename",
            "sticker.link",
            "location.longitude",
            "location.latitude",
            "location.name",
            "location.address",
            "contact.addresses",
            "contact.birthday",
            "contact.emails",
            "contact.name",
            "contact.org",
            "contact.phones",
            "contact.urls",
            "address.country_code",
            "address.state",
            "address.zip",
            "name.first_name",
            "name.formatted_name",
            "name.middle_name",
            "name.suffix",
            "name.prefix",
            "interactive.type",
            "interactive.header",
            "interactive.body",
            "interactive.footer",
            "interactive.action",
            "header.type",
            "header.text",
            "body.text",
            "footer.text",
            "action.button",
            "action.sections",
            "action.buttons",
            "section.title",
            "section.rows",
            "row.id",
            "row.title",
            "row.description",
            "button.type",
            "button.reply",
            "reply.id",
            "reply.title",
            "response: request_id",
            "response: metadata",
            "response: code",
            "response: error_data",
            "response: status",
            "response: sid",
            "HTTP codes",
            "dlr",
            "EX codes",
        ],
    ),
    (
        "002",
        &[
            "host",
            "sid",
            "phone_number",
            "Content-Type",
            "api-key",
            "messaging_product",
            "recipient_type",
            "to",
            "type",
            "template",
            "template.name",
            "template.language",
            "template.components",
            "components.type",
            "components.sub_type",
            "components.index",
            "components.parameters",
            "parameters.type",
            "parameters.action",
            "action.flow_token",
            "action.flow_action_data",
            "ref",
            "ref1",
            "ref2",
            "wa_source",
            "responses",
        ],
    ),
    (
        "003",
        &[
            "flow_id",
            "flow_cta",
            "flow_action",
            "flow_token",
            "flow_message_version",
            "flow_action_payload",
            "response: message_id",
            "flow_response",
            "HTTP codes",
        ],
    ),
    (
        "004",
        &[
            "incoming_message",
            "Template Name",
            "Language Code",
            "Flow Token",
            "buttons.flow_id",
            "buttons.navigate_screen",
            "buttons.flow_action",
            "interactive.type",
            "action.name",
            "mode",
            "flow_message_version",
            "flow_token",
            "flow_id",
            "flow_cta",
            "flow_action",
            "flow_action_payload",
            "flow_action_payload.screen",
            "flow_action_payload.data",
        ],
    ),
];

/// Fields outside the content; each has its own test here.
const OUTSIDE_CONTENT: [&str; 31] = [
    "custom_data",
    "status_callback",
    "messages",
    "from",
    "to",
    "content",
    "response: request_id",
    "response: metadata",
    "response: code",
    "response: error_data",
    "response: status",
    "response: sid",
    "HTTP codes",
    "dlr",
    "EX codes",
    "host",
    "sid",
    "phone_number",
    "Content-Type",
    "api-key",
    "messaging_product",
    "ref",
    "ref1",
    "ref2",
    "wa_source",
    "responses",
    "response: message_id",
    "flow_response",
    "incoming_message",
    "recipient_type",
    "type",
];

#[test]
fn every_item_of_the_documents_is_in_a_table() {
    let items: Vec<Item> = content_items().into_iter().chain(kaleyra_items()).collect();
    for (document, names) in OUTLINE {
        for name in names {
            let is_here = items.iter().any(|item| item.name == *name) || OUTSIDE_CONTENT.contains(name);
            assert!(is_here, "{name} of document {document} must be in a table");
        }
    }
    // The tables have no other items.
    for item in &items {
        let is_listed =
            |(document, names): &(&str, &[&str])| *document == item.document && names.contains(&item.name);
        let is_extra = ["audio", "filename"].contains(&item.name);
        assert!(
            is_extra || OUTLINE.iter().any(is_listed),
            "{} is not an item of document {}",
            item.name,
            item.document
        );
    }
}

/// "The only allowed value is application/json" (document 002); the samples of 000 say the same.
#[tokio::test]
async fn requests_have_their_content_type_and_credentials() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    for (name, header) in [("exotel", "authorization: basic a2v5onrva2vu"), ("kaleyra", "api-key: key")] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.windows(4).any(|end| end == b"\r\n\r\n") {
                let mut part = [0; 1024];
                let count = stream.read(&mut part).await.unwrap();
                head.extend_from_slice(&part[..count]);
            }
            stream.write_all(b"HTTP/1.1 202 Accepted\r\ncontent-length: 2\r\n\r\n{}").await.unwrap();
            String::from_utf8_lossy(&head).to_lowercase()
        });
        let kind = kind(name).unwrap();
        let provider = open_provider_at(name, &base);
        let transport = Transport::new(std::time::Duration::from_secs(10), false).unwrap();
        let endpoint = provider.endpoint("+912248931479".parse().unwrap());
        transport.post(provider.request(endpoint, RequestBody::new(kind, 0)), None).await.unwrap();
        let head = server.await.unwrap();
        assert!(head.starts_with("post /v2/"), "{head}");
        assert!(head.contains("content-type: application/json\r\n"), "{head}");
        assert!(head.contains(header), "{head}");
    }
}

/// Returns a WebP file of a size in bytes; only its header is valid.
fn webp(side: u32, is_animated: bool, bytes: usize) -> Vec<u8> {
    let size = (side - 1).to_le_bytes();
    let head = [
        &b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0"[..],
        &[if is_animated { 2 } else { 0 }, 0, 0, 0],
        &size[..3],
        &size[..3],
    ]
    .concat();
    let mut file = head;
    file.resize(bytes.max(30), 0);
    file
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_warns_of_content_that_is_not_shown_and_fetches_stickers_only_on_request() {
    use axum::response::IntoResponse;
    let serve = |kind: &'static str, bytes: Vec<u8>| {
        axum::routing::get(move || async move { ([("content-type", kind)], bytes).into_response() })
    };
    let router = axum::Router::new()
        .route("/fine.webp", serve("image/webp", webp(512, false, 100 << 10)))
        .route("/moves.webp", serve("image/webp", webp(512, true, 500 << 10)))
        .route("/heavy.webp", serve("image/webp", webp(512, false, (100 << 10) + 1)))
        .route("/small.webp", serve("image/webp", webp(96, false, 100)))
        .route("/page.webp", serve("text/html", b"<html>".to_vec()));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    let world = crate::support::World::new(3);
    let check = async |message: Value, look: bool| {
        world.write_job(&job_with("/message", message));
        let option: &[&str] = if look { &["--look"] } else { &[] };
        let ended = world.run(&[&["check", "job.json", "--json"], option].concat()).await;
        assert_eq!(ended.status, Some(0), "{ended:?}");
        let found: Value = serde_json::from_str(&ended.out).unwrap();
        let warnings = found["warnings"].as_array().unwrap().clone();
        warnings.iter().map(|found| format!("{} {}", found["pointer"], found["detail"])).collect::<Vec<_>>()
    };
    let sticker = |name: &str| json!({ "type": "sticker", "sticker": { "link": format!("{url}/{name}") } });
    for name in ["fine.webp", "moves.webp"] {
        assert_eq!(check(sticker(name), true).await, [""; 0], "{name}");
    }
    for (name, expected) in [
        ("heavy.webp", "more than 100 KB, the maximum for a still sticker"),
        ("small.webp", "serves 96 x 96 pixels"),
        ("page.webp", "serves \\\"text/html\\\""),
        ("gone.webp", "responds with 404"),
    ] {
        let warnings = check(sticker(name), true).await;
        assert!(warnings.len() == 1 && warnings[0].contains(expected), "{name}: {warnings:?}");
        assert_eq!(check(sticker(name), false).await, [""; 0], "nothing must be fetched without --look");
    }
    let text = json!({ "type": "text", "text": { "body": "see 192.0.2.7", "preview_url": true } });
    assert!(check(text, false).await[0].starts_with("\"/message/text/preview_url\" "));
    // The output as text has the same warning.
    let ended = world.run(&["check", "job.json"]).await;
    assert!(ended.out.contains("warning: message text preview url: shows no preview: "), "{}", ended.out);
}
