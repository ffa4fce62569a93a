//! The exact request body for each content type and provider.

use flowcast::campaign::{Batch, Columns, Job, Recipient, Template};
use flowcast::provider::{Credentials, PROVIDERS, Provider, RequestBody, kind};
use serde_json::{Value, json};

use crate::support::job_with;

fn open(name: &str) -> Box<dyn Provider> {
    let kind = kind(name).unwrap();
    let credentials = Credentials {
        account_sid: "acme1".into(),
        api_key: "key".into(),
        api_token: "token".into(),
        ..Credentials::default()
    };
    (kind.open)(&kind.regions[0].1.parse().unwrap(), &credentials).unwrap()
}

/// Returns the bodies of the requests to two recipients with the values of `columns`.
fn requests(name: &str, job: &Job, columns: &[&str], rows: [&[&str]; 2]) -> Vec<String> {
    let provider = open(name);
    let columns = Columns::new(columns.iter().map(ToString::to_string).collect());
    let envelope = provider.envelope(job, false).unwrap();
    let template =
        Template::compile(&envelope, &job.limits_of_strings, job.check_rendered, &columns, None).unwrap();
    let mut batch = Batch::new("c1".parse().unwrap(), 7, template.columns().len(), false);
    for (row, values) in (1..).zip(rows) {
        let phone = format!("+9198765432{row}0").parse().unwrap();
        batch.push(row, phone, template.columns().iter().map(|column| values[*column]));
    }
    let kind = kind(name).unwrap();
    let recipients: Vec<_> = batch.recipients().collect();
    let body = |chunk: &[Recipient<'_>]| {
        let mut body = RequestBody::new(kind, 0);
        for recipient in chunk {
            body.message(|out| template.render(recipient, out)).unwrap();
        }
        String::from_utf8(provider.request(provider.endpoint(job.from), body).body.to_vec()).unwrap()
    };
    recipients.chunks(kind.per_request).map(body).collect()
}

fn job(value: &Value) -> Job {
    Job::read(value.to_string().as_bytes()).unwrap_or_else(|problems| panic!("{problems:?}"))
}

/// Returns the bodies with indentation; the requests themselves have no white space.
fn pretty(provider: &str, message: Value) -> String {
    let job = job(&job_with("/message", message));
    let bodies = requests(provider, &job, &["name"], [&["Asha"], &["Bo \"B\" \\ आशा"]]);
    let indent = |body: &String| {
        let value: Value = serde_json::from_str(body).unwrap();
        assert_eq!(&value.to_string(), body, "the body must be compact and its fields in order");
        serde_json::to_string_pretty(&value).unwrap()
    };
    bodies.iter().map(indent).collect::<Vec<_>>().join("\n")
}

macro_rules! exact_request {
    ($($test:ident: $message:tt),+ $(,)?) => {
        $(
            #[test]
            fn $test() {
                insta::assert_snapshot!(stringify!($test), pretty("exotel", json!($message)));
                for provider in PROVIDERS.iter().skip(1).map(|kind| kind.name) {
                    let name = format!("{}_{provider}", stringify!($test));
                    insta::assert_snapshot!(name, pretty(provider, json!($message)));
                }
            }
        )+
    };
}

exact_request! {
    text: { "type": "text", "text": { "body": "Hello {{ name }}", "preview_url": false } },
    image: { "type": "image", "image": { "link": "https://x.example/a.png", "caption": "For {{ name }}" } },
    audio: { "type": "audio", "audio": { "link": "https://x.example/a.mp3" } },
    video: { "type": "video", "video": { "link": "https://x.example/a.mp4", "caption": "Hi" } },
    document: { "type": "document", "document": {
        "link": "https://x.example/a.pdf", "caption": "Your bill", "filename": "{{ name }}.pdf" } },
    sticker: { "type": "sticker", "sticker": { "link": "https://x.example/a.webp" } },
    location: { "type": "location", "location": {
        "longitude": "72.8777", "latitude": 19.076, "name": "Clinic", "address": "Lake Road" } },
    contacts: { "type": "contacts", "contacts": [{
        "name": { "formatted_name": "The clinic", "first_name": "Clinic" },
        "birthday": "1990-01-31",
        "addresses": [{ "street": "1 Lake Road", "city": "Mumbai", "country_code": "IN", "type": "WORK" }],
        "emails": [{ "email": "clinic@x.example", "type": "WORK" }],
        "org": { "company": "Clinics", "department": "Desk", "title": "Front" },
        "phones": [{ "phone": "+912248931479", "wa_id": "912248931479", "type": "MAIN" }],
        "urls": [{ "url": "https://x.example", "type": "WORK" }] }] },
    flow: { "type": "interactive", "interactive": {
        "type": "flow",
        "header": { "type": "text", "text": "Flow message header" },
        "body": { "text": "Dear {{ name | default('there') | upper }}" },
        "footer": { "text": "Flow message footer" },
        "action": { "name": "flow", "parameters": {
            "flow_message_version": "3", "flow_id": "1323", "flow_token": "{{ message_ref }}",
            "flow_cta": "Click Here", "mode": "published", "flow_action": "navigate",
            "flow_action_payload": { "screen": "FIRST", "data": { "row": "{{ row }}", "to": "{{ recipient }}" } } } } } },
    flow_with_data_exchange: { "type": "interactive", "interactive": {
        "type": "flow", "body": { "text": "b" },
        "action": { "name": "galaxy_message", "parameters": {
            "flow_message_version": "3", "flow_id": "1323", "flow_token": "t", "flow_cta": "Go",
            "flow_action": "data_exchange" } } } },
    list: { "type": "interactive", "interactive": {
        "type": "list",
        "header": { "type": "text", "text": "Choose" }, "body": { "text": "A day, {{ name }}" }, "footer": { "text": "f" },
        "action": { "button": "Days", "sections": [
            { "title": "This week", "rows": [{ "id": "mon", "title": "Monday", "description": "All day" }] },
            { "title": "Next week", "rows": [{ "id": "tue", "title": "Tuesday" }] }] } } },
    buttons: { "type": "interactive", "interactive": {
        "type": "button",
        "header": { "type": "image", "image": { "link": "https://x.example/a.png" } }, "body": { "text": "Will you come?" },
        "action": { "buttons": [
            { "type": "reply", "reply": { "id": "yes-{{ row }}", "title": "Yes" } },
            { "type": "reply", "reply": { "id": "no-{{ row }}", "title": "No" } }] } } },
    // The index has the format of Exotel's example, also if the job has another one.
    template_with_a_flow_button: { "type": "template", "template": {
        "name": "offer", "language": { "code": "en" },
        "components": [
            { "type": "body", "parameters": [{ "type": "text", "text": "{{ name }}" }] },
            { "type": "button", "sub_type": "flow", "index": 0, "parameters": [
                { "type": "action", "action": { "flow_token": "0000", "flow_action_data": {} } }] }] } },
}

#[test]
fn every_message_has_custom_data_and_callback() {
    let mut job = job_with("/custom_data", json!("order-{{ order }}"));
    job["status_callback"] = json!("https://x.example/dlr");
    let bodies = requests("exotel", &self::job(&job), &["name", "order"], [&["Asha", "7"], &["Bo", "8"]]);
    insta::assert_snapshot!(bodies.join("\n"));
}

#[test]
fn a_kaleyra_request_has_the_reference_and_two_texts_of_the_job() {
    let mut job = job_with("/custom_data", json!("order-{{ order }}"));
    job["extra_info"] = json!({ "ref2": "to {{ name }}" });
    let bodies = requests("kaleyra", &self::job(&job), &["name", "order"], [&["Asha", "7"], &["Bo", "8"]]);
    insta::assert_snapshot!(bodies.join("\n"));
}

#[test]
fn fields_that_kaleyra_does_not_support_are_refused_before_sending() {
    let problem = |pointer: &str, value: Value| {
        let mut job = job_with("/custom_data", json!("x"));
        job[pointer] = value;
        let problems = open("kaleyra").envelope(&self::job(&job), false).err().unwrap_or_default();
        problems.iter().map(ToString::to_string).collect::<String>()
    };
    assert!(
        problem("status_callback", json!("https://x.example"))
            .starts_with("status callback: Kaleyra accepts no")
    );
    assert!(
        problem("extra_info", json!({ "ref1": "y" }))
            .starts_with("extra info ref1: Kaleyra sends custom_data as ref1")
    );
    let mut others = job_with("/extra_info", json!({ "ref2": "y" }));
    others["custom_data"] = json!("x");
    for provider in ["exotel", "meta"] {
        let problems = open(provider).envelope(&job(&others), false).err().unwrap();
        assert!(problems[0].to_string().starts_with("extra info: is supported by Kaleyra only"));
    }
    // 255 characters (document 002): a text that is too long for all recipients refuses the job, ...
    let long = job(&job_with("/custom_data", json!("x".repeat(256))));
    let compile = |job: &Job| {
        let columns = Columns::new(vec!["name".into()]);
        let envelope = open("kaleyra").envelope(job, false).unwrap();
        Template::compile(&envelope, &job.limits_of_strings, job.check_rendered, &columns, None)
    };
    assert_eq!(
        compile(&long).err().unwrap()[0].to_string(),
        "custom data: is 256 characters long; Kaleyra allows 255 (Kaleyra's documentation) (/custom_data)"
    );
    // ... and a text that is too long for one recipient skips that recipient.
    let template = compile(&job(&job_with("/custom_data", json!("{{ name }}")))).unwrap();
    let mut batch = Batch::new("c1".parse().unwrap(), 0, 1, false);
    batch.push(1, "+919876543210".parse().unwrap(), ["x".repeat(256).as_str()].into_iter());
    let skip = template.render(&batch.recipient(0).unwrap(), &mut Vec::new()).unwrap_err();
    assert_eq!(
        skip.detail,
        "the text is 256 characters long; Kaleyra allows 255 (Kaleyra's documentation) (/custom_data)"
    );
}

/// Returns the part at `pointer` of the request for a message and other fields of the job.
fn request_part(provider: &str, message: &Value, fields: Value, pointer: &str) -> Value {
    let mut job = job_with("/message", message.clone());
    if let Value::Object(fields) = fields {
        job.as_object_mut().unwrap().extend(fields);
    }
    let bodies = requests(provider, &self::job(&job), &["name"], [&["Asha"], &["Bo"]]);
    let body: Value = serde_json::from_str(&bodies[0]).unwrap();
    body.pointer(pointer).unwrap().clone()
}

#[test]
fn requests_equal_the_examples_of_the_documents() {
    // Document 000: a flow; `recipient_type` is as in document 001's examples.
    let flow = json!({
        "type": "interactive",
        "interactive": {
            "type": "flow",
            "header": { "type": "text", "text": "Flow message header" },
            "body": { "text": "Flow message body" },
            "footer": { "text": "Flow message footer" },
            "action": { "name": "flow", "parameters": {
                "flow_message_version": "3", "flow_id": "1323XXXXXXXXX", "flow_token": "flows-builder-97XXXXX",
                "flow_cta": "Click Here", "flow_action": "navigate",
                "flow_action_payload": { "screen": "screen_name", "data": {
                    "product_name": "test", "product_description": "test", "product_price": 1 } } } },
        },
    });
    let mut expected = json!({ "recipient_type": "individual" });
    expected.as_object_mut().unwrap().extend(flow.as_object().unwrap().clone());
    assert_eq!(request_part("exotel", &flow, Value::Null, "/whatsapp/messages/0/content"), expected);

    // Document 001: a text, with the fields of each message.
    let text = json!({ "type": "text", "text": { "preview_url": false, "body": "MESSAGE_CONTENT" } });
    let fields = json!({ "custom_data": "Order12", "status_callback": "https://webhook.site" });
    assert_eq!(
        request_part("exotel", &text, fields, "/whatsapp/messages/0"),
        json!({
            "custom_data": "Order12", "status_callback": "https://webhook.site",
            "from": "+912248931479", "to": "+919876543210",
            "content": { "recipient_type": "individual", "type": "text", "text": { "preview_url": false, "body": "MESSAGE_CONTENT" } },
        })
    );

    // Document 002: a template with a flow button; flowcast sets `ref`.
    let template = json!({ "type": "template", "template": {
        "name": "flow_template20", "language": { "code": "en_US" },
        "components": [{ "type": "button", "sub_type": "flow", "index": 0, "parameters": [
            { "type": "action", "action": { "flow_token": "flow_token", "flow_action_data": {} } }] }] } });
    let fields = json!({ "extra_info": { "ref1": "marketing", "ref2": "dictionary" } });
    let mut expected = json!({
        "messaging_object": { "messaging_product": "whatsapp", "recipient_type": "individual", "to": "+919876543210" },
        "extra_info": { "ref": "c1.7.0", "ref1": "marketing", "ref2": "dictionary", "wa_source": "api" },
    });
    expected["messaging_object"].as_object_mut().unwrap().extend(template.as_object().unwrap().clone());
    let sent = request_part("kaleyra", &template, fields, "");
    assert_eq!(sent, expected);
    assert_eq!(sent.to_string(), expected.to_string(), "the fields must have the order of the sample");
}

/// Each content is refused with its place and the document that forbids it.
#[test]
#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn content_that_the_documents_forbid_is_refused() {
    let flow = |parameters: Value| {
        json!({ "type": "interactive", "interactive": { "type": "flow", "body": { "text": "b" },
            "action": { "name": "flow", "parameters": parameters } } })
    };
    let fine = json!({ "flow_message_version": "3", "flow_id": "1", "flow_token": "t", "flow_cta": "Go",
        "flow_action": "navigate", "flow_action_payload": { "screen": "S", "data": { "a": 1 } } });
    let flow_with = |key: &str, value: Value| {
        let mut parameters = fine.clone();
        if value.is_null() {
            parameters.as_object_mut().unwrap().remove(key);
        } else {
            parameters[key] = value;
        }
        flow(parameters)
    };
    let button = |id: &str, title: &str| json!({ "type": "reply", "reply": { "id": id, "title": title } });
    let buttons = |buttons: Value| {
        json!({ "type": "interactive", "interactive": { "type": "button", "body": { "text": "b" },
            "action": { "buttons": buttons } } })
    };
    let row = |id: &str| json!({ "id": id, "title": "t" });
    let list = |sections: Value| {
        json!({ "type": "interactive", "interactive": { "type": "list", "body": { "text": "b" },
            "action": { "button": "b", "sections": sections } } })
    };
    let rows = |count: usize| (0..count).map(|n| row(&n.to_string())).collect::<Vec<_>>();
    let interactive = |key: &str, value: Value| {
        let mut message = flow(fine.clone());
        message["interactive"][key] = value;
        message
    };
    let cases = [
        ("text over its limit", json!({ "type": "text", "text": { "body": "é".repeat(4097) } })),
        ("text empty", json!({ "type": "text", "text": { "body": "" } })),
        ("text missing", json!({ "type": "text", "text": {} })),
        ("another type's object", json!({ "type": "text", "text": { "body": "b" }, "image": {} })),
        ("preview not bool", json!({ "type": "text", "text": { "body": "b", "preview_url": 1 } })),
        ("link not http", json!({ "type": "image", "image": { "link": "ftp://x.example/a" } })),
        ("link without host", json!({ "type": "video", "video": { "link": "https://" } })),
        (
            "audio has no caption",
            json!({ "type": "audio", "audio": { "link": "https://x.example", "caption": "c" } }),
        ),
        (
            "latitude out of range",
            json!({ "type": "location", "location": { "longitude": "1", "latitude": "91" } }),
        ),
        (
            "contact with one name",
            json!({ "type": "contacts", "contacts": [{ "name": { "formatted_name": "A" } }] }),
        ),
        (
            "birthday",
            json!({ "type": "contacts", "contacts": [{ "name": { "formatted_name": "A", "first_name": "A" }, "birthday": "31.1.1990" }] }),
        ),
        ("no contact", json!({ "type": "contacts", "contacts": [] })),
        ("body over its limit", interactive("body", json!({ "text": "x".repeat(1025) }))),
        ("footer over its limit", interactive("footer", json!({ "text": "x".repeat(61) }))),
        ("header over its limit", interactive("header", json!({ "type": "text", "text": "x".repeat(61) }))),
        ("header without its object", interactive("header", json!({ "type": "image", "text": "x" }))),
        ("cta over its limit", flow_with("flow_cta", json!("x".repeat(21)))),
        ("cta with an emoji", flow_with("flow_cta", json!("Book 🌸"))),
        ("flow version", flow_with("flow_message_version", json!("2"))),
        ("flow action unknown", flow_with("flow_action", json!("open"))),
        ("flow action for each", flow_with("flow_action", json!("{{ name }}"))),
        ("no flow id", flow_with("flow_id", Value::Null)),
        ("navigate without payload", flow_with("flow_action_payload", Value::Null)),
        ("payload with data_exchange", flow_with("flow_action", json!("data_exchange"))),
        ("payload without screen", flow_with("flow_action_payload", json!({ "data": { "a": 1 } }))),
        ("empty data", flow_with("flow_action_payload", json!({ "screen": "S", "data": {} }))),
        (
            "four buttons",
            buttons(json!([button("1", "a"), button("2", "b"), button("3", "c"), button("4", "d")])),
        ),
        ("same titles", buttons(json!([button("1", "a"), button("2", "a")]))),
        ("same ids", buttons(json!([button("1", "a"), button("1", "b")]))),
        ("button title over its limit", buttons(json!([button("1", &"x".repeat(21))]))),
        ("button id with a space", buttons(json!([button(" 1", "a")]))),
        ("button id over its limit", buttons(json!([button(&"x".repeat(257), "a")]))),
        ("no section", list(json!([]))),
        (
            "eleven sections",
            list(json!(
                (0..11).map(|n| json!({ "title": "t", "rows": [row(&n.to_string())] })).collect::<Vec<_>>()
            )),
        ),
        ("eleven rows", list(json!([{ "title": "a", "rows": rows(6) }, { "title": "b", "rows": rows(5) }]))),
        (
            "two sections, one title",
            list(json!([{ "title": "a", "rows": [row("1")] }, { "rows": [row("2")] }])),
        ),
        ("row title over its limit", list(json!([{ "rows": [{ "id": "1", "title": "x".repeat(25) }] }]))),
        (
            "row description over its limit",
            list(json!([{ "rows": [{ "id": "1", "title": "t", "description": "x".repeat(73) }] }])),
        ),
        (
            "list with an image header",
            json!({ "type": "interactive", "interactive": { "type": "list",
            "header": { "type": "image", "image": { "link": "https://x.example" } }, "body": { "text": "b" },
            "action": { "button": "b", "sections": [{ "rows": [row("1")] }] } } }),
        ),
        ("template without language", json!({ "type": "template", "template": { "name": "t" } })),
        (
            "flow button with text",
            json!({ "type": "template", "template": { "name": "t", "language": { "code": "en" },
            "components": [{ "type": "button", "sub_type": "flow", "index": "0", "parameters": [{ "type": "text", "text": "x" }] }] } }),
        ),
        (
            "button index",
            json!({ "type": "template", "template": { "name": "t", "language": { "code": "en" },
            "components": [{ "type": "button", "sub_type": "flow", "index": "x" }] } }),
        ),
    ];
    let mut errors = String::new();
    for (name, message) in cases {
        let job = job_with("/message", message);
        match Job::read(job.to_string().as_bytes()) {
            Ok(_) => panic!("{name} was accepted"),
            Err(problems) => {
                for problem in problems {
                    errors += &format!("{name}\n  {problem}\n");
                }
            }
        }
    }
    insta::assert_snapshot!(errors);
}
