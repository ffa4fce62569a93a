//! The providers' documents 000 to 004, item by item in their own order: what a field may hold at its limit, and what is
//! one beyond it. Each is asked of flowcast, and of the sandbox, which has rules of its own.

use flowcast::campaign::codes;
use flowcast::campaign::{BATCH_LIMIT, Batch, Columns, Job, Phone, Template};
use flowcast::provider::{
    Credentials, Entry, PROVIDERS, Provider, ProviderResponse, Reply, RequestBody, Scope, Transport,
    classify, kind,
};
use flowcast::sandbox::Behaviour;
use serde_json::{Value, json};

use crate::support::{job_with, sandbox};

/// Stands for a field that is left out.
const GONE: Value = Value::Null;

/// An item of a document: where it stands, the document's words, a message of its kind, the field, what it may hold and
/// what not.
struct Item {
    document: &'static str,
    name: &'static str,
    words: &'static str,
    kind: &'static str,
    at: &'static str,
    fine: Vec<Value>,
    beyond: Vec<Value>,
}

fn item(
    [document, name, words]: [&'static str; 3],
    [kind, at]: [&'static str; 2],
    fine: impl Into<Vec<Value>>,
    beyond: impl Into<Vec<Value>>,
) -> Item {
    Item { document, name, words, kind, at, fine: fine.into(), beyond: beyond.into() }
}

fn long(count: usize) -> Value {
    json!("é".repeat(count))
}

/// A message of each kind, as small as the documents allow.
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
        other => panic!("{other} is no kind"),
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

/// Documents 000 and 001, Message Object of the content. What both have stands where the first has it.
#[expect(clippy::too_many_lines, reason = "it is a table")]
fn content() -> Vec<Item> {
    let link = || vec![json!("http://example.com/a"), json!("https://example.com/a?b=c")];
    let no_link =
        || vec![GONE, json!(""), json!("example.com/a"), json!("ftp://example.com/a"), json!("https://")];
    let caption = || vec![GONE, json!("c"), long(1024)];
    let picture = json!({ "link": "https://example.com/a", "caption": "c" });
    let paper = json!({ "link": "https://example.com/a.pdf", "caption": "c", "filename": "a.pdf" });
    vec![
        item(
            ["000", "recepient_type", "Mandatory; set this as an individual"],
            ["text", "/recipient_type"],
            [GONE, json!("individual")],
            [json!("group"), json!("")],
        ),
        item(
            ["000", "type", "Text, Image, Audio, Video, Document, Sticker, Location, Contact, Interactive"],
            ["text", "/type"],
            [json!("text")],
            [GONE, json!("sms"), json!("image")],
        ),
        item(
            ["000", "text", "Mandatory when type is text"],
            ["text", "/text"],
            [json!({ "body": "b" })],
            [GONE],
        ),
        item(
            ["000", "image", "Mandatory when the type is an image"],
            ["image", "/image"],
            [json!({ "link": "https://example.com" })],
            [GONE],
        ),
        item(
            ["000", "audio", "Mandatory when the type is an audio"],
            ["audio", "/audio"],
            [json!({ "link": "https://example.com" })],
            [GONE],
        ),
        item(
            ["000", "video", "Mandatory when type is video"],
            ["video", "/video"],
            [json!({ "link": "https://example.com" })],
            [GONE],
        ),
        item(
            ["000", "document", "Mandatory when type is a document"],
            ["document", "/document"],
            [json!({ "link": "https://example.com" })],
            [GONE],
        ),
        item(
            ["000", "sticker", "Mandatory when the type is a sticker"],
            ["sticker", "/sticker"],
            [json!({ "link": "https://example.com/a.webp" })],
            [GONE],
        ),
        item(
            ["000", "location", "Mandatory when type is location"],
            ["location", "/location"],
            [json!({ "longitude": "1", "latitude": "1" })],
            [GONE],
        ),
        item(
            ["000", "contacts", "Mandatory when type is contacts"],
            ["contacts", "/contacts"],
            [message("contacts")["contacts"].clone()],
            [GONE, json!([])],
        ),
        item(
            ["000", "interactive", "Mandatory when type is interactive"],
            ["flow", "/interactive"],
            [message("list")["interactive"].clone()],
            [GONE],
        ),
        item(
            ["000", "text.body", "Mandatory. Maximum length: 4096 characters"],
            ["text", "/text/body"],
            [json!("b"), long(4096)],
            [GONE, json!(""), long(4097), json!(7)],
        ),
        item(
            ["000", "text.preview_url", "Boolean, Optional"],
            ["text", "/text/preview_url"],
            [GONE, json!(true), json!(false)],
            [json!("Yes"), json!(1)],
        ),
        item(
            ["000", "image.link", "Use only with HTTP/HTTPS URLs"],
            ["image", "/image/link"],
            link(),
            no_link(),
        ),
        item(["000", "image.caption", "Optional"], ["image", "/image/caption"], caption(), [long(1025)]),
        item(
            ["000", "audio.link", "Use only with HTTP/HTTPS URLs"],
            ["audio", "/audio/link"],
            link(),
            no_link(),
        ),
        item(["000", "audio", "no caption"], ["audio", "/audio/caption"], [GONE], [json!("c")]),
        item(
            ["000", "video.link", "Use only with HTTP/HTTPS URLs"],
            ["video", "/video/link"],
            link(),
            no_link(),
        ),
        item(["000", "video.caption", "Optional"], ["video", "/video/caption"], caption(), [long(1025)]),
        item(
            ["000", "document.link", "Use only with HTTP/HTTPS URLs"],
            ["document", "/document/link"],
            link(),
            no_link(),
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
            [GONE, json!("a.pdf")],
            [json!(1)],
        ),
        item(
            ["000", "filename", "use only document media"],
            ["image", "/image/filename"],
            [GONE],
            [json!("a.png")],
        ),
        item(
            ["000", "interactive.type", "flow"],
            ["flow", "/interactive/type"],
            [json!("flow")],
            [GONE, json!("product")],
        ),
        item(
            ["000", "interactive.header", "Optional"],
            ["flow", "/interactive/header"],
            [GONE, json!({ "type": "text", "text": "h" })],
            [json!("h"), json!({ "type": "sticker" })],
        ),
        item(
            ["000", "interactive.body", "Required for other message types"],
            ["flow", "/interactive/body"],
            [json!({ "text": "b" })],
            [GONE],
        ),
        item(
            ["000", "interactive.footer", "Optional"],
            ["flow", "/interactive/footer"],
            [GONE, json!({ "text": "f" })],
            [json!({})],
        ),
        item(
            ["000", "interactive.action", "what the user performs"],
            ["flow", "/interactive/action"],
            [message("flow")["interactive"]["action"].clone()],
            [GONE, json!({})],
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
            [GONE],
            [json!({ "type": "video", "video": picture })],
        ),
        item(
            ["000", "header.type", "image: used for Reply Buttons"],
            ["list", "/interactive/header"],
            [GONE],
            [json!({ "type": "image", "image": picture })],
        ),
        item(
            ["000", "header.type", "document: used for Reply Buttons"],
            ["list", "/interactive/header"],
            [GONE],
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
            [GONE, json!(""), long(1025)],
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
            [GONE, json!("list")],
        ),
        item(
            ["000", "mode", "draft or published"],
            ["flow", "/interactive/action/parameters/mode"],
            [GONE, json!("published"), json!("draft")],
            [json!("deprecated")],
        ),
        item(
            ["000", "flow_message_version", "Value must be \"3\""],
            ["flow", "/interactive/action/parameters/flow_message_version"],
            [json!("3")],
            [GONE, json!("2"), json!(3)],
        ),
        item(
            ["000", "flow_token", "String, Mandatory"],
            ["flow", "/interactive/action/parameters/flow_token"],
            [json!("flows-builder-97XXXXX")],
            [GONE, json!("")],
        ),
        item(
            ["000", "flow_id", "String, Mandatory"],
            ["flow", "/interactive/action/parameters/flow_id"],
            [json!("1323XXXXXXXXX")],
            [GONE, json!("")],
        ),
        item(
            ["000", "flow_cta", "Character limit - 20 characters (no emoji)"],
            ["flow", "/interactive/action/parameters/flow_cta"],
            [json!("Click Here"), long(20), json!("★ ✓ ⌘ © 5#")],
            [
                GONE,
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
            [GONE, json!("open"), json!("data_exchange")],
        ),
        item(
            [
                "000",
                "flow_action_payload",
                "Required if flow_action is navigate. Should be omitted otherwise",
            ],
            ["flow", "/interactive/action/parameters/flow_action_payload"],
            [json!({ "screen": "S" })],
            [GONE, json!({})],
        ),
        item(
            ["000", "flow_action_payload.screen", "Mandatory"],
            ["flow", "/interactive/action/parameters/flow_action_payload/screen"],
            [json!("screen_name")],
            [GONE, json!("")],
        ),
        item(
            ["000", "flow_action_payload.data", "Optional; must be a non-empty object"],
            ["flow", "/interactive/action/parameters/flow_action_payload/data"],
            [GONE, json!({ "product_price": 1, "product_name": "test" })],
            [json!({}), json!("x"), json!([])],
        ),
        item(
            ["001", "sticker.link", "Use only with HTTP/HTTPS URLs"],
            ["sticker", "/sticker/link"],
            link(),
            no_link(),
        ),
        item(
            ["001", "location.longitude", "String, Mandatory"],
            ["location", "/location/longitude"],
            [json!("-180"), json!("180")],
            [GONE, json!("181"), json!("east")],
        ),
        item(
            ["001", "location.latitude", "String, Mandatory"],
            ["location", "/location/latitude"],
            [json!("-90"), json!("90")],
            [GONE, json!("91"), json!("")],
        ),
        item(
            ["001", "location.name", "Optional"],
            ["location", "/location/name"],
            [GONE, json!("n")],
            [json!(1)],
        ),
        item(
            ["001", "location.address", "Optional. Only displayed if name is present"],
            ["location", "/location/address"],
            [GONE, json!("a")],
            [json!(1)],
        ),
        item(
            ["001", "contact.addresses", "Optional"],
            ["contacts", "/contacts/0/addresses"],
            [
                GONE,
                json!([]),
                json!([{ "city": "c", "country": "India", "country_code": "IN", "state": "MH", "street": "s",
                "type": "HOME", "zip": "400001" }]),
            ],
            [json!({}), json!([{ "planet": "p" }])],
        ),
        item(
            ["001", "contact.birthday", "YYYY-MM-DD"],
            ["contacts", "/contacts/0/birthday"],
            [GONE, json!("1990-01-31")],
            [json!("31-01-1990"), json!("1990-1-31"), json!("")],
        ),
        item(
            ["001", "contact.emails", "Optional"],
            ["contacts", "/contacts/0/emails"],
            [GONE, json!([{ "email": "a@example.com", "type": "WORK" }])],
            [json!("a@example.com")],
        ),
        item(
            ["001", "contact.name", "Mandatory"],
            ["contacts", "/contacts/0/name"],
            [json!({ "formatted_name": "A B", "last_name": "B" })],
            [GONE, json!("A B")],
        ),
        item(
            ["001", "contact.org", "Optional"],
            ["contacts", "/contacts/0/org"],
            [GONE, json!({ "company": "c", "department": "d", "title": "t" })],
            [json!("c"), json!({ "boss": "b" })],
        ),
        item(
            ["001", "contact.phones", "Optional"],
            ["contacts", "/contacts/0/phones"],
            [GONE, json!([{ "phone": "+1 555 0100", "type": "CELL", "wa_id": "15550100" }])],
            [json!(["+1"])],
        ),
        item(
            ["001", "contact.urls", "Optional"],
            ["contacts", "/contacts/0/urls"],
            [GONE, json!([{ "url": "example.com", "type": "HOME" }])],
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
            [GONE, json!("")],
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
            [GONE, json!(""), long(21)],
        ),
        item(
            ["001", "action.sections", "Minimum of 1, maximum of 10"],
            ["list", "/interactive/action/sections"],
            [sections(1), sections(10)],
            [GONE, json!([]), sections(11)],
        ),
        item(
            ["001", "action.buttons", "up to 3 buttons"],
            ["button", "/interactive/action/buttons"],
            [replies(1), replies(3)],
            [GONE, json!([]), replies(4)],
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
            [GONE, json!(""), long(201)],
        ),
        item(
            ["001", "row.title", "Maximum length: 24 characters"],
            ["list", "/interactive/action/sections/0/rows/0/title"],
            [long(24)],
            [GONE, json!(""), long(25)],
        ),
        item(
            ["001", "row.description", "Maximum length: 72 characters, optional"],
            ["list", "/interactive/action/sections/0/rows/0/description"],
            [GONE, long(72)],
            [long(73)],
        ),
        item(
            ["001", "button.type", "Only supported type is reply"],
            ["button", "/interactive/action/buttons/0/type"],
            [json!("reply")],
            [GONE, json!("url")],
        ),
        item(
            ["001", "button.reply", "Mandatory"],
            ["button", "/interactive/action/buttons/0/reply"],
            [json!({ "id": "1", "title": "t" })],
            [GONE, json!({})],
        ),
        item(
            ["001", "reply.id", "Maximum length: 256 characters; no leading or trailing spaces"],
            ["button", "/interactive/action/buttons/0/reply/id"],
            [long(256)],
            [GONE, json!(""), long(257), json!(" 1"), json!("1 ")],
        ),
        item(
            ["001", "reply.title", "Maximum length: 20 characters; cannot be empty; unique"],
            ["button", "/interactive/action/buttons/0/reply/title"],
            [json!("🌸"), long(20)],
            [GONE, json!(""), long(21)],
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
            [GONE],
            [json!("1323")],
        ),
        item(
            ["004", "buttons.navigate_screen", "required if flow_action is navigate"],
            ["template", "/template/components/0/navigate_screen"],
            [GONE],
            [json!("S")],
        ),
        item(
            ["004", "buttons.flow_action", "navigate or data_exchange"],
            ["template", "/template/components/0/flow_action"],
            [GONE],
            [json!("navigate")],
        ),
        item(
            ["004", "Template Name", "to be passed"],
            ["template", "/template/name"],
            [json!("flow_template20"), json!("a".repeat(512))],
            [GONE, json!(""), json!("a".repeat(513))],
        ),
        item(
            ["004", "Language Code", "to be passed"],
            ["template", "/template/language/code"],
            [json!("en_US")],
            [GONE, json!("")],
        ),
        item(
            ["004", "Flow Token", "Optional"],
            ["template", "/template/components/0/parameters/0/action/flow_token"],
            [GONE, json!("0000")],
            [json!("")],
        ),
    ]
}

/// Document 002, the attributes of `messaging_object` and `extra_info`.
fn kaleyra() -> Vec<Item> {
    vec![
        item(
            ["002", "recipient_type", "The only allowed value is 'individual'. No"],
            ["template", "/recipient_type"],
            [GONE, json!("individual")],
            [json!("group")],
        ),
        item(["002", "type", "'template'"], ["template", "/type"], [json!("template")], [json!("flow")]),
        item(
            ["002", "template", "Yes"],
            ["template", "/template"],
            [message("template")["template"].clone()],
            [GONE],
        ),
        item(
            ["002", "template.name", "Yes"],
            ["template", "/template/name"],
            [json!("flow_template20")],
            [GONE],
        ),
        item(
            ["002", "template.language", "Yes"],
            ["template", "/template/language"],
            [json!({ "code": "en_US" })],
            [GONE, json!("en_US")],
        ),
        item(
            ["002", "template.components", "Yes"],
            ["template", "/template/components"],
            [json!([])],
            [GONE],
        ),
        item(
            ["002", "components.type", "button, Yes"],
            ["template", "/template/components/0/type"],
            [json!("button")],
            [GONE, json!("footer")],
        ),
        item(
            ["002", "components.sub_type", "flow, Yes"],
            ["template", "/template/components/0/sub_type"],
            [json!("flow")],
            [GONE, json!("form")],
        ),
        item(
            ["002", "components.index", "Numeric, Yes"],
            ["template", "/template/components/0/index"],
            [json!(0), json!(9)],
            [GONE, json!(10)],
        ),
        item(
            ["002", "components.parameters", "Yes"],
            ["template", "/template/components/0/parameters"],
            [json!([{ "type": "action", "action": {} }])],
            [GONE, json!([])],
        ),
        item(
            ["002", "parameters.type", "action, Yes"],
            ["template", "/template/components/0/parameters/0/type"],
            [json!("action")],
            [GONE, json!("text")],
        ),
        item(
            ["002", "parameters.action", "Yes"],
            ["template", "/template/components/0/parameters/0/action"],
            [json!({ "flow_token": "t" })],
            [GONE],
        ),
        item(
            ["002", "action.flow_token", "No"],
            ["template", "/template/components/0/parameters/0/action/flow_token"],
            [GONE, json!("xxxxxAACS5FpgQ_cAAAAAD0xxxx")],
            [json!("")],
        ),
        item(
            ["002", "action.flow_action_data", "No"],
            ["template", "/template/components/0/parameters/0/action/flow_action_data"],
            // The sample over the table, which calls it an array.
            [GONE, json!({}), json!({ "a": 1 })],
            [json!([]), json!("navigate")],
        ),
    ]
}

fn open(name: &str) -> Box<dyn Provider> {
    open_at(name, kind(name).unwrap().regions[0].1)
}

fn open_at(name: &str, base: &str) -> Box<dyn Provider> {
    let credentials = Credentials {
        account_sid: "acme1".into(),
        api_key: "key".into(),
        api_token: "token".into(),
        ..Credentials::default()
    };
    (kind(name).unwrap().open)(&base.parse().unwrap(), &credentials).unwrap()
}

/// The request that flowcast makes of a job, or that it refuses the job.
fn request(provider: &str, job: &Value) -> Result<Value, String> {
    let refused = |problems: Vec<flowcast::campaign::Problem>| problems[0].to_string();
    let job = Job::read(job.to_string().as_bytes()).map_err(refused)?;
    let provider_ = open(provider);
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

/// A value with something else in one place.
fn with(mut value: Value, at: &str, is: &Value) -> Value {
    let (parent, name) = at.rsplit_once('/').unwrap();
    let parent = value.pointer_mut(parent).unwrap_or_else(|| panic!("{at} stands nowhere"));
    match (parent, is) {
        (Value::Object(map), Value::Null) => drop(map.shift_remove(name)),
        (parent, is) => parent[name] = is.clone(),
    }
    value
}

/// What the sandbox answers to a request.
async fn ask(url: &str, provider: &str, body: &Value) -> (u16, Value) {
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

/// Both agree about every item.
async fn check(items: Vec<Item>, provider: &str, place: &str) {
    let (_sandbox, url) = sandbox(Behaviour::default()).await;
    let mut wrong = Vec::new();
    for Item { document, name, words, kind, at, fine, beyond } in &items {
        let of = |value: &Value| {
            let shown: String = value.to_string().chars().take(60).collect();
            format!("{document} {name} ({words}): {shown}")
        };
        for value in fine {
            match request(provider, &job_with("/message", with(message(kind), at, value))) {
                Err(why) => wrong.push(format!("{}: flowcast refuses it: {why}", of(value))),
                Ok(body) => {
                    let (status, said) = ask(&url, provider, &body).await;
                    if status != 202 {
                        wrong.push(format!("{}: the sandbox refuses it: {said}", of(value)));
                    }
                }
            }
        }
        for value in beyond {
            if let Ok(body) = request(provider, &job_with("/message", with(message(kind), at, value))) {
                wrong.push(format!("{}: flowcast takes it: {body}", of(value)));
            }
            // As a program would send it that checks nothing.
            let body = request(provider, &job_with("/message", message(kind))).unwrap();
            let (status, _) = ask(&url, provider, &with(body, &format!("{place}{at}"), value)).await;
            if status != 400 {
                wrong.push(format!("{}: the sandbox takes it", of(value)));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {} items:\n{}", wrong.len(), items.len(), wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_field_of_exotels_content_ends_where_its_documents_say() {
    check(content(), "exotel", "/whatsapp/messages/0/content").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_field_of_kaleyras_content_ends_where_its_document_says() {
    check(kaleyra(), "kaleyra", "/messaging_object").await;
}

/// Documents 000 and 001, the POST parameters, the channel and the message: what goes out, in which of the places.
#[tokio::test(flavor = "multi_thread")]
async fn what_stands_around_the_content_of_a_request_to_exotel_is_as_the_documents_have_it() {
    let mut job = job_with("/message", message("text"));
    job["custom_data"] = json!("ORDXXXXXXX");
    job["status_callback"] = json!("https://webhook.example.com");
    let body = request("exotel", &job).unwrap();
    // custom_data and status_callback may stand in three places; the innermost wins, so they stand there.
    let message_ = &body["whatsapp"]["messages"][0];
    assert_eq!(message_["custom_data"], "ORDXXXXXXX");
    assert_eq!(message_["status_callback"], "https://webhook.example.com");
    assert_eq!(message_["from"], "+912248931479");
    assert_eq!(message_["to"], "+919876543210");
    // The tables misspell it, the examples do not.
    assert_eq!(
        (&message_["content"]["recipient_type"], &message_["content"]["recepient_type"]),
        (&json!("individual"), &GONE)
    );
    // The template that document 004 asks for, with a button's index as a string.
    let template = request("exotel", &job_with("/message", message("template"))).unwrap();
    let template = &template["whatsapp"]["messages"][0]["content"]["template"];
    assert_eq!(template["components"][0]["index"], "0");
    let (_sandbox, url) = sandbox(Behaviour::default()).await;
    for place in ["", "/whatsapp", "/whatsapp/messages/0"] {
        for name in ["custom_data", "status_callback"] {
            let body = with(body.clone(), &format!("{place}/{name}"), &json!("https://example.com"));
            assert_eq!(ask(&url, "exotel", &body).await.0, 202, "{place}/{name} is allowed");
        }
    }
    let refused = [
        ("/whatsapp", GONE),
        ("/whatsapp/messages", GONE),
        ("/whatsapp/messages", json!([])),
        ("/whatsapp/messages/0/from", GONE),
        ("/whatsapp/messages/0/to", GONE),
        ("/whatsapp/messages/0/to", json!("++919999999999")),
        ("/whatsapp/messages/0/content", GONE),
        ("/whatsapp/messages/0/content/recepient_type", json!("individual")),
        // "Content", as a sample of document 001 has it.
        ("/whatsapp/messages/0/Content", json!({})),
    ];
    for (at, value) in refused {
        assert_eq!(ask(&url, "exotel", &with(body.clone(), at, &value)).await.0, 400, "{at}");
    }
    // "More than 100 messages specified in a request".
    let many = |count: usize| with(body.clone(), "/whatsapp/messages", &json!(vec![message_.clone(); count]));
    assert_eq!(ask(&url, "exotel", &many(BATCH_LIMIT)).await.0, 202);
    assert_eq!(ask(&url, "exotel", &many(BATCH_LIMIT + 1)).await.0, 400);
    assert_eq!((BATCH_LIMIT, kind("exotel").unwrap().per_request), (100, 100));
}

#[test]
fn the_numbers_of_document_000_are_numbers() {
    for number in ["+10000000000", "+919888888888", "+919876543210"] {
        assert!(number.parse::<Phone>().is_ok(), "{number}");
    }
    for none in ["919876543210", "++919999000000", "+0", "+91 98765 43210", "2365564965"] {
        assert!(none.parse::<Phone>().is_err(), "{none}");
    }
}

/// The hosts, the paths, the credentials and the content type of documents 000, 001 and 002.
#[test]
fn requests_go_where_the_documents_say() {
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
        let provider = open_at(name, host);
        assert_eq!(provider.endpoint(from).as_str(), url);
        let request = provider.request(provider.endpoint(from), RequestBody::new(kind, 0));
        let header = if name == "exotel" { "authorization" } else { "api-key" };
        assert_eq!(request.authorization.0, header);
        regions += 1;
    }
    let all: usize = PROVIDERS.iter().filter(|kind| kind.name != "meta").map(|kind| kind.regions.len()).sum();
    assert_eq!(regions, all);
}

/// Document 002: `extra_info`, each at most 255 characters; `wa_source` is one of thirteen words.
#[tokio::test(flavor = "multi_thread")]
async fn what_stands_beside_kaleyras_content_is_as_its_document_has_it() {
    let (_sandbox, url) = sandbox(Behaviour::default()).await;
    let of = |name: &str, value: Value| {
        with(job_with("/message", message("template")), "/extra_info", &json!({ name: value }))
    };
    for name in ["ref1", "ref2"] {
        let body = request("kaleyra", &of(name, json!("x".repeat(255)))).unwrap();
        assert_eq!(body["extra_info"][name].as_str().unwrap().len(), 255);
        assert_eq!(body["extra_info"]["ref"], "c1.0.0", "ref is the message's reference");
        assert_eq!(ask(&url, "kaleyra", &body).await.0, 202);
        assert!(request("kaleyra", &of(name, json!("x".repeat(256)))).is_err());
        let body = with(body, &format!("/extra_info/{name}"), &json!("x".repeat(256)));
        assert_eq!(ask(&url, "kaleyra", &body).await.0, 400);
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
        let body = request("kaleyra", &of("wa_source", json!(source))).unwrap();
        assert_eq!(body["extra_info"]["wa_source"], source);
        assert_eq!(ask(&url, "kaleyra", &body).await.0, 202);
    }
    assert!(request("kaleyra", &of("wa_source", json!("mailchimp"))).is_err());
    let usual = request("kaleyra", &job_with("/message", message("template"))).unwrap();
    assert_eq!(usual["extra_info"]["wa_source"], "api");
    let object = &usual["messaging_object"];
    assert_eq!(object["messaging_product"], "whatsapp");
    assert_eq!(object["to"], "+919876543210");
    assert_eq!(object["template"]["components"][0]["index"], 0, "a number here");
    for (at, value) in [
        ("/messaging_object", GONE),
        ("/messaging_object/messaging_product", json!("sms")),
        ("/messaging_object/to", json!("+91xxxxxxxxxx")),
        ("/messaging_object/template/components/0/index", json!("0")),
    ] {
        assert_eq!(ask(&url, "kaleyra", &with(usual.clone(), at, &value)).await.0, 400, "{at}");
    }
}

/// What an answer of a provider to `count` messages proves.
fn read(provider: &str, status: u16, body: &Value, count: usize) -> ProviderResponse {
    let reply = Reply { status, retry_after: None, body: body.to_string().into() };
    let said = open(provider).parse(&reply, count);
    classify(&reply, said)
}

fn entry(entry: &Value) -> Entry {
    let body = json!({ "request_id": "b434e927a5844175b23059cd96feea3d", "method": "POST", "http_code": 202,
        "metadata": { "failed": 0, "total": 1, "success": 1 }, "response": { "whatsapp": { "messages": [entry] } } });
    match read("exotel", 202, &body, 1) {
        ProviderResponse::Entries(mut entries) => entries.remove(0),
        other => panic!("{other:?}"),
    }
}

/// Documents 000 and 001, the response parameters and the HTTP error codes.
#[test]
fn exotels_answers_are_read_as_the_documents_describe_them() {
    let success = json!({ "code": 202, "error_data": null, "status": "success", "data": { "sid": "2FdiiEQUosckPhpZfuVwfjxiSlc16a4" } });
    assert_eq!(entry(&success), Entry::Accepted { sid: "2FdiiEQUosckPhpZfuVwfjxiSlc16a4".into() });
    // data.sid: Mandatory.
    assert!(matches!(entry(&with(success.clone(), "/data", &json!({}))), Entry::Unknown { .. }));
    assert!(matches!(entry(&with(success.clone(), "/data", &GONE)), Entry::Unknown { .. }));
    // status: Mandatory.
    assert!(matches!(entry(&with(success.clone(), "/status", &GONE)), Entry::Unknown { .. }));
    // code: "Response code for the individual message".
    let failed = |code: u32| {
        json!({ "code": code, "status": "failure", "data": null,
        "error_data": { "code": code, "message": "brief", "description": "detailed" } })
    };
    let Entry::Rejected { code, detail } = entry(&failed(400)) else { panic!("400 is the message's") };
    // error_data: code, message "Brief description", description "Detailed explanation".
    assert_eq!((code.as_str(), detail.as_str()), ("400", "brief: detailed"));
    for (code, scope) in [(401, Scope::Account), (402, Scope::Account), (403, Scope::Flows)] {
        let found = entry(&failed(code));
        assert!(matches!(&found, Entry::Refused { scope: of, .. } if *of == scope), "{code}: {found:?}");
    }
    for code in [429, 500, 503] {
        let found = entry(&failed(code));
        assert!(!matches!(found, Entry::Rejected { .. } | Entry::Accepted { .. }), "{code}: {found:?}");
    }
    // request_id: "useful for debugging and tracing purposes".
    let reply = |body: &Value| Reply { status: 202, retry_after: None, body: body.to_string().into() };
    let id = |body: Value| open("exotel").request_id(&reply(&body));
    assert_eq!(
        id(json!({ "request_id": "b434e927a5844175b23059cd96feea3d" })).as_deref(),
        Some("b434e927a5844175b23059cd96feea3d")
    );
    for none in [
        json!({}),
        json!({ "request_id": "" }),
        json!({ "request_id": "a\nb" }),
        json!({ "request_id": "x".repeat(65) }),
    ] {
        assert_eq!(id(none), None);
    }
    // metadata: an answer that contradicts itself is read by its entries.
    let body = json!({ "request_id": "r", "metadata": { "failed": 1, "total": 1, "success": 0 },
        "response": { "whatsapp": { "messages": [success] } } });
    assert!(
        matches!(&read("exotel", 202, &body, 1), ProviderResponse::Entries(entries) if matches!(entries[0], Entry::Accepted { .. }))
    );
    // Document 003's other shape.
    let other = json!({ "response": { "code": 200, "status": "success", "data": { "message_id": "msg_flow_001", "status": "sent" } } });
    assert_eq!(
        read("exotel", 200, &other, 1),
        ProviderResponse::Entries(vec![Entry::Accepted { sid: "msg_flow_001".into() }])
    );
    let error = |status: u16| read("exotel", status, &json!({ "http_code": status, "request_id": "r" }), 2);
    assert!(matches!(error(400), ProviderResponse::Malformed { .. }));
    for status in [401, 402, 403] {
        assert!(matches!(error(status), ProviderResponse::Refused { .. }), "{status}");
    }
    assert!(matches!(error(404), ProviderResponse::Refused { scope: Scope::Campaign, .. }));
    for status in [500, 503] {
        assert!(matches!(error(status), ProviderResponse::TryAgain { .. }), "{status}");
    }
}

/// Document 002, the sample answers, each with its text.
#[tokio::test(flavor = "multi_thread")]
async fn kaleyras_answers_are_read_as_its_document_shows_them() {
    let taken = json!({ "code": "WA202", "message": "Request Accepted", "data": { "message_id": "AXXX" }, "error": {} });
    assert_eq!(
        read("kaleyra", 202, &taken, 1),
        ProviderResponse::Entries(vec![Entry::Accepted { sid: "AXXX".into() }])
    );
    let refused = |status: u16, code: &str, data: Value, field: &str, text: &str| {
        read(
            "kaleyra",
            status,
            &json!({ "code": code, "message": text, "data": data, "error": { field: text } }),
            1,
        )
    };
    let scope = |answer: ProviderResponse| match answer {
        ProviderResponse::Refused { scope, reason } => (scope, reason),
        other => panic!("{other:?}"),
    };
    let (whose, _) = scope(refused(401, "RBC001", json!([]), "error", "Incorrect SID or API key."));
    assert_eq!(whose, Scope::Account);
    let text = "Phone number is not present or does not belong to the account.";
    let (whose, reason) = scope(refused(401, "WA401", json!({}), "phone_number", text));
    assert_eq!(whose, Scope::Sender);
    assert!(reason.contains("phone_number"), "the field is named: {reason}");
    assert!(matches!(
        refused(400, "WA400", json!({}), "payload", "Refer to correct payload format"),
        ProviderResponse::Malformed { .. }
    ));
    assert!(matches!(
        refused(500, "WA500", json!({}), "error", "Please try again later"),
        ProviderResponse::TryAgain { .. }
    ));
    let (whose, _) = scope(refused(
        400,
        "E110",
        json!({}),
        "balance",
        "Please check your balance, You have a low balance!",
    ));
    assert_eq!(whose, Scope::Account);
    let version = "The phone number you're using is associated with different Version of our WA API.";
    let (whose, _) = scope(refused(401, "WA-401", json!({}), "phone_number", version));
    assert_eq!(whose, Scope::Sender);
    // The sandbox says each of them as the document does.
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
        let (answered, said) = ask(&url, "kaleyra", &body).await;
        let shown = code.split(':').next().unwrap();
        assert_eq!((answered, &said["code"]), (status, &json!(shown)), "{code}");
        assert!(said["error"][field].is_string(), "{said}");
        assert_eq!(said["data"], if code == "RBC001" { json!([]) } else { json!({}) });
    }
}

/// Document 001, the status callback parameters; documents 003 and 004, people's answers.
#[test]
fn exotels_callbacks_are_read_field_by_field() {
    use flowcast::campaign::delivery::{Delivery, DeliveryUpdate, ReplyContent};
    let exotel = open("exotel");
    let dlr = json!({ "callback_type": "dlr", "sid": "1234", "to": "+12365564965", "exo_status_code": 25001,
        "exo_detailed_status": "EX_MESSAGE_DELIVERED", "description": "Message delivered",
        "timestamp": "2022-12-07T17:00:00.000+05:30", "custom_data": "c1.7.3" });
    let one = |report: Value| exotel.reports(&json!({ "whatsapp": { "messages": [report] } })).pop().unwrap();
    let report = one(dlr);
    assert_eq!(report.sid.as_deref(), Some("1234"));
    assert_eq!(report.recipient, "+12365564965".parse().ok());
    assert_eq!(report.at, Some(1_670_412_600_000));
    assert_eq!(report.message.unwrap().to_string(), "c1.7.3");
    // By its name: another table gives it the number 25001.
    assert!(matches!(report.news, DeliveryUpdate::Delivery { state: Delivery::Delivered, .. }));
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
        let DeliveryUpdate::Reply(reply) = report.news else { panic!("{kind} is an answer") };
        assert_eq!(reply.id, "4743da54");
        let said: Vec<(&str, &str)> =
            reply.details.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        assert_eq!(said, [("body", "Sent"), ("name", "galaxy_message"), ("profile_name", "Javed")]);
        let ReplyContent::Flow(fields) = reply.content else { panic!("it is a form") };
        assert_eq!(fields["vehicle_number"], "74785");
    }
    // Document 003.
    let webhook = json!({ "event": "flow_response", "message_id": "msg_flow_001", "from": "+919876543210",
        "flow_id": "flow_abc123", "flow_token": "your_flow_token",
        "response_json": { "appointment_date": "2024-06-20" }, "timestamp": "2024-06-15T10:40:00.000Z" });
    let report = exotel.reports(&webhook).pop().unwrap();
    assert_eq!((report.sid.as_deref(), report.message), (Some("msg_flow_001"), None));
    let DeliveryUpdate::Reply(reply) = report.news else { panic!("it is an answer") };
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

/// What each document lists, in its order. Each is an item above, or of a test of its own here.
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
            "answer: request_id",
            "answer: metadata",
            "answer: code",
            "answer: error_data",
            "answer: status",
            "answer: sid",
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
            "answer: request_id",
            "answer: metadata",
            "answer: code",
            "answer: error_data",
            "answer: status",
            "answer: sid",
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
            "answers",
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
            "answer: message_id",
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

/// What is no field of content, and has a test of its own here.
const ELSEWHERE: [&str; 31] = [
    "custom_data",
    "status_callback",
    "messages",
    "from",
    "to",
    "content",
    "answer: request_id",
    "answer: metadata",
    "answer: code",
    "answer: error_data",
    "answer: status",
    "answer: sid",
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
    "answers",
    "answer: message_id",
    "flow_response",
    "incoming_message",
    "recipient_type",
    "type",
];

#[test]
fn every_item_of_the_documents_stands_in_a_table() {
    let items: Vec<Item> = content().into_iter().chain(kaleyra()).collect();
    for (document, names) in OUTLINE {
        for name in names {
            let is_here = items.iter().any(|item| item.name == *name) || ELSEWHERE.contains(name);
            assert!(is_here, "{name} of document {document} is in no table");
        }
    }
    // And none is of another place.
    for item in &items {
        let is_listed =
            |(document, names): &(&str, &[&str])| *document == item.document && names.contains(&item.name);
        let is_extra = ["audio", "filename"].contains(&item.name);
        assert!(
            is_extra || OUTLINE.iter().any(is_listed),
            "{} is no item of document {}",
            item.name,
            item.document
        );
    }
}

/// "The only allowed value is application/json" (document 002); the samples of 000 say the same.
#[tokio::test]
async fn requests_say_what_they_hold_and_carry_their_credentials() {
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
        let provider = open_at(name, &base);
        let transport = Transport::new(std::time::Duration::from_secs(10), false).unwrap();
        let endpoint = provider.endpoint("+912248931479".parse().unwrap());
        transport.post(provider.request(endpoint, RequestBody::new(kind, 0)), None).await.unwrap();
        let head = server.await.unwrap();
        assert!(head.starts_with("post /v2/"), "{head}");
        assert!(head.contains("content-type: application/json\r\n"), "{head}");
        assert!(head.contains(header), "{head}");
    }
}

/// The head of a WebP file, with so many bytes behind it.
fn webp(side: u32, moves: bool, bytes: usize) -> Vec<u8> {
    let measure = (side - 1).to_le_bytes();
    let head = [
        &b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0"[..],
        &[if moves { 2 } else { 0 }, 0, 0, 0],
        &measure[..3],
        &measure[..3],
    ]
    .concat();
    let mut file = head;
    file.resize(bytes.max(30), 0);
    file
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_warns_of_what_is_hardly_shown_and_looks_at_stickers_when_it_is_asked_to() {
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
        let asked: &[&str] = if look { &["--look"] } else { &[] };
        let ended = world.run(&[&["check", "job.json", "--json"], asked].concat()).await;
        assert_eq!(ended.status, Some(0), "{ended:?}");
        let found: Value = serde_json::from_str(&ended.out).unwrap();
        let warnings = found["warnings"].as_array().unwrap().clone();
        warnings.iter().map(|found| format!("{} {}", found["pointer"], found["detail"])).collect::<Vec<_>>()
    };
    let sticker = |name: &str| json!({ "type": "sticker", "sticker": { "link": format!("{url}/{name}") } });
    for fine in ["fine.webp", "moves.webp"] {
        assert_eq!(check(sticker(fine), true).await, [""; 0], "{fine}");
    }
    for (name, says) in [
        ("heavy.webp", "more than the 100 KB"),
        ("small.webp", "serves 96 x 96 pixels"),
        ("page.webp", "serves \\\"text/html\\\""),
        ("gone.webp", "responds with 404"),
    ] {
        let warnings = check(sticker(name), true).await;
        assert!(warnings.len() == 1 && warnings[0].contains(says), "{name}: {warnings:?}");
        assert_eq!(check(sticker(name), false).await, [""; 0], "nothing is fetched unasked");
    }
    let text = json!({ "type": "text", "text": { "body": "see 192.0.2.7", "preview_url": true } });
    assert!(check(text, false).await[0].starts_with("\"/message/text/preview_url\" "));
    // And so it stands for a person.
    let ended = world.run(&["check", "job.json"]).await;
    assert!(ended.out.contains("warning: message text preview url: shows no preview: "), "{}", ended.out);
}
