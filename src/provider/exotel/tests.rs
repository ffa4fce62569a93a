use super::response::{all_accepted, entries};
use super::*;
use crate::campaign::delivery::{Delivery, DeliveryUpdate, ReplyContent};
use crate::provider::answer::{Entry, Scope};
use crate::provider::{ProviderResponse, body_of, classify};

fn exotel() -> Exotel {
    let base = "http://127.0.0.1:8025".parse().unwrap();
    let credentials = Credentials {
        account_sid: "acme1".into(),
        api_key: "key".into(),
        api_token: "token".into(),
        ..Credentials::default()
    };
    Exotel::new(&base, &credentials).unwrap()
}

fn read(status: u16, body: &str, count: usize) -> ProviderResponse {
    let reply = HttpResponse { status, retry_after: None, body: body.to_string().into() };
    let said = exotel().parse(&reply, count);
    classify(&reply, said)
}

fn entry_of(entry: &str) -> Entry {
    match read(202, &format!(r#"{{"response":{{"whatsapp":{{"messages":[{entry}]}}}}}}"#), 1) {
        ProviderResponse::Entries(mut entries) => entries.remove(0),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_entry_about_the_account_rejects_no_message() {
    let failure = |code: u32| {
        format!(
            r#"{{"code":{code},"status":"failure","error_data":{{"code":{code},"message":"Why","description":""}},"data":null}}"#
        )
    };
    for (code, expected) in [(401, Scope::Account), (402, Scope::Account), (403, Scope::Flows)] {
        let Entry::Refused { scope, reason } = entry_of(&failure(code)) else { panic!("{code}") };
        assert_eq!(scope, expected);
        assert!(reason.starts_with(&format!("{code}: Why; ")), "{reason}");
    }
    // Next to a success, a 403 concerns only its message; 401 and 402 always concern the account.
    let success = r#"{"code":202,"error_data":null,"status":"success","data":{"sid":"s"}}"#;
    let both =
        |code| format!(r#"{{"response":{{"whatsapp":{{"messages":[{success},{}]}}}}}}"#, failure(code));
    let second = |code| match read(202, &both(code), 2) {
        ProviderResponse::Entries(mut entries) => entries.remove(1),
        other => panic!("{other:?}"),
    };
    assert!(matches!(second(403), Entry::Rejected { code, .. } if code == "403"));
    assert!(matches!(second(402), Entry::Refused { scope: Scope::Account, .. }));
}

#[test]
fn a_success_without_an_id_is_in_doubt() {
    for data in ["null", "{}", r#"{"sid":""}"#, r#"{"sid":" "}"#] {
        let entry =
            entry_of(&format!(r#"{{"code":202,"error_data":null,"status":"success","data":{data}}}"#));
        assert!(matches!(entry, Entry::Unknown(_)), "{data}: {entry:?}");
    }
}

#[test]
fn credentials_are_sent_only_in_a_header() {
    let endpoint = exotel().endpoint("+912248931479".parse().unwrap());
    let request = exotel().request(endpoint, body_of(&EXOTEL, &["{\"a\":1}", "{\"b\":2}"]));
    assert_eq!(request.url.as_str(), "http://127.0.0.1:8025/v2/accounts/acme1/messages");
    assert_eq!(request.authorization.1.expose_secret(), "Basic a2V5OnRva2Vu");
    assert_eq!(&*request.body, br#"{"whatsapp":{"messages":[{"a":1},{"b":2}]}}"#);
}

#[test]
fn success_is_accepted_with_its_sid() {
    let taken = Entry::Accepted { sid: "2Fdi".into() };
    assert_eq!(entry_of(r#"{"code":202,"error_data":null,"status":"success","data":{"sid":"2Fdi"}}"#), taken);
    // Document 003's shape.
    let other =
        r#"{"response":{"code":200,"status":"success","data":{"message_id":"2Fdi","status":"sent"}}}"#;
    assert_eq!(read(202, other, 1), ProviderResponse::Entries(vec![taken]));
}

#[test]
fn a_refused_entry_keeps_its_code_and_text() {
    let entry = entry_of(
        r#"{"code":400,"status":"failure","error_data":{"code":1005,"message":"Invalid","description":"bad number"}}"#,
    );
    assert_eq!(entry, Entry::Rejected { code: "1005".into(), detail: "Invalid: bad number".into() });
}

#[test]
fn an_entry_of_429_or_5xx_may_be_retried() {
    for code in [429, 500, 503] {
        let entry =
            entry_of(&format!(r#"{{"code":{code},"status":"failure","error_data":{{"message":"later"}}}}"#));
        let detail = "later".to_string();
        let expected = match code {
            429 => Entry::Limited { scope: Scope::Account, detail },
            _ => Entry::TryAgain { code: code.to_string(), detail },
        };
        assert_eq!(entry, expected);
    }
}

#[test]
fn a_code_of_meta_in_an_entry_has_its_own_effect() {
    let entry = |code| {
        entry_of(&format!(
            r#"{{"code":400,"status":"failure","error_data":{{"code":{code},"message":"why"}}}}"#
        ))
    };
    assert!(matches!(entry(130_429), Entry::Limited { scope: Scope::Account, .. }));
    assert!(matches!(entry(132_069), Entry::Limited { scope: Scope::Flow, .. }));
    assert!(matches!(entry(132_068), Entry::Refused { scope: Scope::Flow, .. }));
    assert!(matches!(entry(131_048), Entry::Refused { scope: Scope::Campaign, .. }));
    assert!(matches!(entry(131_056), Entry::TryAgain { .. }));
    for code in [131_026, 131_049, 400, 403, 1005, 4] {
        assert!(matches!(entry(code), Entry::Rejected { .. }), "{code}");
    }
}

#[test]
fn an_unreadable_response_is_in_doubt() {
    for body in
        ["", "<html>", "{}", "[]", r#"{"response":{}}"#, r#"{"response":{"whatsapp":{"messages":{}}}}"#]
    {
        assert!(matches!(read(202, body, 2), ProviderResponse::Unknown(_)), "{body}");
    }
    let more = r#"{"response":{"whatsapp":{"messages":[{"status":"success"},{"status":"success"}]}}}"#;
    let ProviderResponse::Entries(entries) = read(202, more, 1) else { panic!() };
    assert!(matches!(entries[..], [Entry::Unknown(_)]));
    for odd in [
        "{}",
        "null",
        "7",
        r#"{"status":"success","code":400}"#,
        r#"{"status":"success","error_data":{"code":5}}"#,
    ] {
        assert!(matches!(entry_of(odd), Entry::Unknown(_)), "{odd}");
    }
}

#[test]
fn a_wrong_number_of_entries_leaves_all_messages_in_doubt() {
    let taken = r#"{"code":202,"status":"success","data":{"sid":"s"}}"#;
    let refused = r#"{"code":400,"status":"failure","error_data":{"code":1005,"message":"opted out"}}"#;
    for (list, count) in
        [(vec![], 1), (vec![taken], 3), (vec![refused], 2), (vec![taken, refused], 3), (vec![taken; 3], 2)]
    {
        let body = format!(r#"{{"response":{{"whatsapp":{{"messages":[{}]}}}}}}"#, list.join(","));
        let ProviderResponse::Entries(entries) = read(202, &body, count) else { panic!("{body}") };
        assert_eq!(entries.len(), count);
        assert!(entries.iter().all(|entry| matches!(entry, Entry::Unknown(_))), "{entries:?}");
        // An error status and an accepted entry contradict each other.
        let answer = read(400, &body, count);
        assert_eq!(matches!(answer, ProviderResponse::Unknown(_)), list.contains(&taken), "{answer:?}");
    }
}

proptest::proptest! {
    /// A response that the fast parser reads as "all accepted" means the same to the full parser.
    #[test]
    fn both_readers_agree(
        parts in proptest::collection::vec((0_usize..7, 0_usize..6, 0_usize..3, 0_usize..7), 0..4),
        count in 0_usize..4,
    ) {
        let entry = |&(code, error, status, data): &(usize, usize, usize, usize)| {
            let codes = ["", r#""code":200,"#, r#""code":202,"#, r#""code":400,"#, r#""code":"202","#,
                r#""code":null,"#, r#""code":200,"code":500,"#];
            let errors = ["", r#""error_data":null,"#, r#""error_data":{},"#, r#""error_data":0,"#,
                r#""error_data":null,"error_data":1,"#, r#""more":[{"x":1}],"#];
            let statuses = ["success", "failure", "queued"];
            let bodies = [r#"{"sid":"s1"}"#, r#"{"sid":""}"#, r#"{"sid":7}"#, r#"{"message_id":"s1"}"#,
                r#"{"sid":"a\u0041"}"#, "null", r#"{"sid":"s1","sid":"s2"}"#];
            format!(r#"{{{}{}"status":"{}","data":{}}}"#, codes[code], errors[error], statuses[status],
                bodies[data])
        };
        let list = parts.iter().map(entry).collect::<Vec<_>>().join(",");
        let body = format!(r#"{{"request_id":"r","response":{{"whatsapp":{{"messages":[{list}]}}}}}}"#);
        let reply = HttpResponse { status: 202, retry_after: None, body: body.clone().into() };
        if let Some(quick) = all_accepted(&reply, count) {
            let json = serde_json::from_str(&body).unwrap();
            proptest::prop_assert_eq!(Some(quick), entries(&json));
        }
    }

    #[test]
    fn no_response_makes_the_reader_panic_or_accept_without_proof(
        status in 100..600_u16,
        body in "\\PC{0,40}|(\\{|\\}|\\[|\\]|:|,|\"response\"|\"whatsapp\"|\"messages\"|\"status\"|\"failure\"|\"code\"|202|400|null){0,20}",
    ) {
        let answer = read(status, &body, 3);
        let accepts = matches!(&answer, ProviderResponse::Entries(entries) if entries.iter().any(|e| matches!(e, Entry::Accepted { .. })));
        proptest::prop_assert!(!accepts, "{answer:?}");
    }
}

#[test]
fn a_refusal_is_quoted_in_either_shape() {
    for body in
        [r#"{"RestException":{"Message":"Slow down"}}"#, r#"{"response":{"error":{"message":"Slow down"}}}"#]
    {
        let ProviderResponse::Limited { detail, .. } = read(429, body, 5) else { panic!("{body}") };
        assert_eq!(detail, "HTTP 429: Slow down");
    }
    for status in [500, 503] {
        assert!(
            matches!(read(status, r#"{"http_code":500}"#, 5), ProviderResponse::TryAgain { .. }),
            "{status}"
        );
        assert!(matches!(read(status, "<html>Bad</html>", 5), ProviderResponse::Unknown(_)), "{status}");
    }
}

#[test]
fn the_documents_reports_are_read() {
    let one = |body: Value| exotel().reports(&body).remove(0);
    // Document 001's example lacks the outer brace; both forms are read.
    let dlr = json!({ "callback_type": "dlr", "sid": "1234", "to": "919876543210", "exo_status_code": 25001,
        "exo_detailed_status": "EX_MESSAGE_DELIVERED", "description": "Message delivered",
        "timestamp": "2022-12-07T17:00:00.000+05:30", "custom_data": "custom" });
    for body in [json!({ "whatsapp": { "messages": [dlr] } }), json!({ "messages": [dlr] }), dlr.clone()] {
        let report = one(body);
        assert_eq!((report.sid.as_deref(), report.at), (Some("1234"), Some(1_670_412_600_000)));
        assert_eq!((report.message, report.recipient), (None, "+919876543210".parse().ok()));
        assert!(matches!(
            report.update,
            DeliveryUpdate::Delivery { state: Delivery::Delivered, code: None, .. }
        ));
    }
    // The reply in document 004: JSON text inside JSON.
    let reply = json!({ "whatsapp": { "messages": [{ "callback_type": "incoming_message", "sid": "4743",
        "from": "+918871206831", "to": "+912248931479", "timestamp": "2023-10-21T12:35:00+05:30",
        "content": { "type": "interactive", "context": { "sid": "f317" }, "interactive": { "type": "nfm_reply",
            "nfm_reply": { "body": "Sent", "name": "galaxy_message",
                "response_json": "{\"terms\":true,\"name\":\"Javed\"}" } } } }] } });
    let report = one(reply);
    assert_eq!(report.sid.as_deref(), Some("f317"));
    let DeliveryUpdate::Reply(reply) = report.update else { panic!() };
    let expected = json!({ "terms": true, "name": "Javed" }).as_object().unwrap().clone();
    assert_eq!((reply.id.as_str(), reply.content), ("4743", ReplyContent::Flow(expected)));
    // Document 003's.
    let flow = json!({ "event": "flow_response", "message_id": "msg_flow_001", "from": "+919876543210",
        "flow_token": "t", "response_json": { "reason": "Product" }, "timestamp": "2024-06-15T10:40:00.000Z" });
    assert!(
        matches!(one(flow).update, DeliveryUpdate::Reply(reply) if matches!(reply.content, ReplyContent::Flow(_)))
    );
}

#[test]
fn a_failure_keeps_its_number_and_is_judged_by_its_name() {
    let failed = |number: u32, name: &str| {
        let body = json!({ "callback_type": "dlr", "sid": "1", "exo_status_code": number,
            "exo_detailed_status": name, "description": "why" });
        exotel().reports(&body).pop().map(|report| report.update)
    };
    let expected = |code: &str, text: &str| {
        Some(DeliveryUpdate::Delivery { state: Delivery::Failed, code: Some(code.into()), text: text.into() })
    };
    assert_eq!(failed(30_016, "EX_MEDIA_DOWNLOAD_ERROR"), expected("30016", "EX_MEDIA_DOWNLOAD_ERROR: why"));
    assert_eq!(failed(30_002, "EX_NUMBER_ERROR"), expected("30002", "EX_NUMBER_ERROR: why"));
    assert_eq!(failed(30_005, ""), expected("30005", "why"));
    assert_eq!(failed(99_999, ""), None);
}
