use super::*;
use crate::campaign::delivery::{DeliveryUpdate, ReplyContent};
use crate::provider::answer::{Entry, Scope};
use crate::provider::{ProviderResponse, body_of, classify};

fn kaleyra() -> Kaleyra {
    let base = "https://api.in.kaleyra.io".parse().unwrap();
    let credentials = Credentials {
        account_sid: "HXAP1600000097IN".into(),
        api_key: "key".into(),
        api_token: String::new().into(),
        ..Credentials::default()
    };
    Kaleyra::new(&base, &credentials).unwrap()
}

fn read(status: u16, body: &str) -> ProviderResponse {
    let reply = HttpResponse { status, retry_after: None, body: body.to_string().into() };
    classify(&reply, kaleyra().parse(&reply, 1))
}

fn taken(sid: &str) -> ProviderResponse {
    ProviderResponse::Entries(vec![Entry::Accepted { sid: sid.into() }])
}

#[test]
fn a_request_goes_to_the_business_numbers_address() {
    let endpoint = kaleyra().endpoint("+912248931479".parse().unwrap());
    let request = kaleyra().request(endpoint, body_of(&KALEYRA, &["{\"a\":1}"]));
    assert_eq!(
        request.url.as_str(),
        "https://api.in.kaleyra.io/v2/HXAP1600000097IN/whatsapp/+912248931479/messages"
    );
    assert_eq!((request.authorization.0, &*request.body), ("api-key", &b"{\"a\":1}"[..]));
}

#[test]
fn wa202_is_accepted_with_its_message_id() {
    let body = r#"{"code":"WA202","message":"Request Accepted","data":{"message_id":"A1"},"error":{}}"#;
    assert_eq!(read(202, body), taken("A1"));
}

#[test]
fn the_sample_of_the_document_without_its_commas_is_read() {
    let sample = "{\n\"code\":\"WA202\"\n\"message\":\"Request Accepted\",\n\"data\":{\n  \"message_id\":\"AXX\"\n}\n\"error\":{}\n}";
    assert!(serde_json::from_str::<Value>(sample).is_err());
    assert_eq!(read(202, sample), taken("AXX"));
}

#[test]
fn an_unreadable_response_is_in_doubt() {
    let cut = r#"{"code":"WA202","message":"Request Accepted","data":{"message_id":"A"#;
    let deep = "[".repeat(1 << 20);
    let deep_data = format!(r#"{{"code":"WA202","data":{}"#, "{\"data\":".repeat(100_000));
    for body in ["", "<html>", "{}", "[]", "null", r#"{"code":"WA299"}"#, cut, &deep, &deep_data] {
        assert!(matches!(read(202, body), ProviderResponse::Unknown(_)), "{}", &body[..body.len().min(80)]);
    }
    let nameless = r#"{"code":"WA202","data":{}}"#;
    assert!(
        matches!(read(202, nameless), ProviderResponse::Entries(entries) if matches!(entries[..], [Entry::Unknown(_)]))
    );
}

#[test]
fn each_documented_error_does_what_the_table_says() {
    let error =
        |code: &str| format!(r#"{{"code":"{code}","message":"Why","data":{{}},"error":{{"x":"Why"}}}}"#);
    for (status, code, expected) in [
        (401, "RBC001", Scope::Account),
        (401, "WA401", Scope::Sender),
        (401, "WA-401", Scope::Sender),
        (400, "E110", Scope::Account),
    ] {
        let ProviderResponse::Refused { scope, reason } = read(status, &error(code)) else {
            panic!("{code}")
        };
        assert_eq!(scope, expected, "{code}");
        // The invalid field is named.
        assert!(reason.starts_with(&format!("HTTP {status}: {code}: Why (x: Why); ")), "{reason}");
    }
    // Document 002: RBC001 has a list for its data.
    let listed =
        r#"{"code":"RBC001","message":"Incorrect SID or API key.","data":[],"error":{"error":"Why"}}"#;
    assert!(matches!(read(401, listed), ProviderResponse::Refused { scope: Scope::Account, .. }));
    let wrong =
        ProviderResponse::Malformed { code: "WA400".into(), detail: "HTTP 400: WA400: Why (x: Why)".into() };
    assert_eq!(read(400, &error("WA400")), wrong);
    assert!(matches!(read(500, &error("WA500")), ProviderResponse::TryAgain { .. }));
    assert!(matches!(read(500, "<html>"), ProviderResponse::Unknown(_)));
}

#[test]
fn the_fields_of_a_callback_have_configurable_names() {
    let usual = json!({ "ref": "c1.0.3", "message_id": "A1", "status": "Delivered",
        "recipient": "919876543210", "timestamp": "1670412600" });
    let report = kaleyra().reports(&usual).remove(0);
    assert_eq!((report.sid.as_deref(), report.at), (Some("A1"), Some(1_670_412_600_000)));
    assert_eq!(report.message.unwrap().to_string(), "c1.0.3");
    let base = "https://api.in.kaleyra.io".parse().unwrap();
    let fields = [("ref", "/extra/ref"), ("status", "state"), ("code", "error")];
    let mut credentials = Credentials {
        account_sid: "HX".into(),
        api_key: "key".into(),
        api_token: String::new().into(),
        callback_fields: fields.map(|(what, name)| (what.into(), name.into())).into(),
        ..Credentials::default()
    };
    let own = Kaleyra::new(&base, &credentials).unwrap();
    let body = json!([{ "extra": { "ref": "c1.0.3" }, "state": "failed", "error": 131_026 }]);
    let report = own.reports(&body).remove(0);
    assert!(matches!(report.update, DeliveryUpdate::Delivery { code: Some(code), .. } if code == "131026"));
    credentials.callback_fields.insert("reff".into(), "x".into());
    let error = Kaleyra::new(&base, &credentials).err().unwrap();
    assert_eq!(error, "callback_fields.reff is unknown; did you mean \"ref\"?");
}

proptest::proptest! {
    #[test]
    fn no_response_makes_the_reader_panic_or_accept_without_proof(
        status in 100..600_u16,
        body in "\\PC{0,40}|(\\{|\\}|\\[|\\]|:|,|\"code\"|\"data\"|\"message_id\"|\"WA202\"|\"WA400\"|400|null){0,20}",
    ) {
        let accepts = matches!(read(status, &body), ProviderResponse::Entries(entries) if matches!(entries[..], [Entry::Accepted { .. }]));
        let is_said = body.contains("WA202") && body.contains("message_id") && (200..300).contains(&status);
        proptest::prop_assert!(!accepts || is_said, "{body}");
    }
}

#[test]
fn replies_are_read_by_the_placeholders_of_their_profile() {
    let read = |body: Value| kaleyra().reports(&body).remove(0);
    let words = read(json!({ "from": "919876543210", "wanumber": "912248931479", "type": "text",
        "body": "Monday, please", "reply_to": "A1", "created_at": "1670412600", "name": "Asha" }));
    assert_eq!((words.sid.as_deref(), words.at), (Some("A1"), Some(1_670_412_600_000)));
    assert_eq!(words.recipient.unwrap().to_string(), "+919876543210");
    assert!(
        matches!(&words.update, DeliveryUpdate::Reply(reply) if reply.content == ReplyContent::Text("Monday, please".into()))
    );
    let form = read(json!({ "from": "919876543210", "type": "interactive", "body": "",
        "custom_response": "{\"flow_token\":\"c1.0.3\",\"day\":\"monday\"}" }));
    assert_eq!(form.message.unwrap().to_string(), "c1.0.3");
    let image =
        read(json!({ "from": "919876543210", "type": "image", "body": "", "media_url": "https://x" }));
    assert!(
        matches!(&image.update, DeliveryUpdate::Reply(reply) if reply.content == ReplyContent::Other("image".into()))
    );
    let sent = json!({ "status": "queued", "from": "912248931479", "body": "STOP" });
    for nothing in [json!({}), json!({ "from": "x", "body": "y" }), json!({ "from": "919876543210" }), sent] {
        assert!(kaleyra().reports(&nothing).is_empty(), "{nothing}");
    }
}

#[test]
fn a_header_that_the_account_names_proves_a_callback() {
    let base = "https://api.in.kaleyra.io".parse().unwrap();
    let mut credentials = Credentials {
        account_sid: "HX".into(),
        callback_header: Some(("X-Callback-Key".into(), "secret".into())),
        ..Credentials::default()
    };
    let account = Kaleyra::new(&base, &credentials).unwrap();
    let with = |value: &str| {
        HeaderMap::from_iter([(HeaderName::from_static("x-callback-key"), value.parse().unwrap())])
    };
    assert!(account.proves(&with("secret"), b"") && !account.proves(&with("secre"), b""));
    assert!(!account.proves(&HeaderMap::new(), b""));
    credentials.callback_header = Some(("a b".into(), "secret".into()));
    assert!(Kaleyra::new(&base, &credentials).err().unwrap().contains("is not a valid header name"));
}
