//! One test for each row of the table of responses (docs/architecture.md), for each provider with one message per request,
//! over real sockets.

use serde_json::{Value, json};

use crate::support::{Reaction, Scripted, World, phone, refusing_address};

/// Response format of a provider.
trait ResponseFormat {
    const NAME: &'static str;
    /// Returns the status and body for an accepted message.
    fn accepted(to: &str) -> (u16, Value);
    /// Returns the status and body of an error.
    fn error(code: &str) -> (u16, Value);
    /// Code of an invalid message.
    const INVALID: &'static str;
    /// Code of an internal error of the provider.
    const INTERNAL: &'static str;
    /// Codes that hold the account.
    const ACCOUNT: &'static [&'static str];
}

struct Kaleyra;

impl ResponseFormat for Kaleyra {
    const NAME: &'static str = "kaleyra";
    const INVALID: &'static str = "WA400";
    const INTERNAL: &'static str = "WA500";
    const ACCOUNT: &'static [&'static str] = &["RBC001", "WA401", "WA-401", "E110"];

    fn accepted(to: &str) -> (u16, Value) {
        let data = json!({ "message_id": format!("sid-{to}") });
        (202, json!({ "code": "WA202", "message": "Request Accepted", "data": data, "error": {} }))
    }

    fn error(code: &str) -> (u16, Value) {
        let status = match code {
            "RBC001" | "WA401" | "WA-401" => 401,
            "WA500" => 500,
            _ => 400,
        };
        (status, json!({ "code": code, "message": "Why", "data": {}, "error": { "error": "Why" } }))
    }
}

struct Meta;

impl ResponseFormat for Meta {
    const NAME: &'static str = "meta";
    const INVALID: &'static str = "131026";
    const INTERNAL: &'static str = "131000";
    const ACCOUNT: &'static [&'static str] = &["190", "10", "368", "131042"];

    fn accepted(to: &str) -> (u16, Value) {
        (
            200,
            json!({ "messaging_product": "whatsapp", "contacts": [], "messages": [{ "id": format!("sid-{to}") }] }),
        )
    }

    fn error(code: &str) -> (u16, Value) {
        let number: u32 = code.parse().unwrap();
        let status = if code == Self::INTERNAL { 500 } else { 400 };
        (
            status,
            json!({ "error": { "message": "Why", "type": "OAuthException", "code": number, "fbtrace_id": "A" } }),
        )
    }
}

fn respond((status, body): (u16, Value)) -> Reaction {
    Reaction::Answer(status, "", body.to_string())
}

/// Runs a campaign of three messages with a scripted provider, one request at a time, so that their order is known.
async fn run<S: ResponseFormat>(
    react: impl Fn(usize, &str) -> Reaction + Send + Sync + 'static,
) -> (World, Scripted, Option<i32>, Value) {
    let world = World::new(3);
    let provider = Scripted::start(move |nth, to| react(nth, &to[0])).await;
    world.write_account(S::NAME, &provider.url, "concurrency = 1");
    let ended = world.run(&["run", "job.json", "--json"]).await;
    let status = serde_json::from_str(&ended.out).unwrap_or_else(|_| panic!("{ended:?}"));
    (world, provider, ended.status, status)
}

fn states(world: &World) -> Vec<String> {
    world.report("c1").iter().map(|line| line["state"].as_str().unwrap().into()).collect()
}

async fn an_accepted_message_has_its_sid<S: ResponseFormat>() {
    let (world, provider, code, _) = run::<S>(|_, to| respond(S::accepted(to))).await;
    assert_eq!((code, provider.requests().len()), (Some(0), 3));
    assert_eq!(world.report("c1")[1]["sid"], format!("sid-{}", phone(2)));
}

async fn an_unreadable_success_is_in_doubt<S: ResponseFormat>() {
    for body in ["", "<html>thanks</html>", "{}", "{\"code\":\"WA202\",\"data\":{}}"] {
        let (world, provider, code, _) = run::<S>(move |_, _| Reaction::Answer(202, "", body.into())).await;
        assert_eq!((code, provider.requests().len()), (Some(3), 3), "{body}");
        assert_eq!(states(&world), ["in_doubt"; 3], "{body}");
    }
}

async fn only_an_invalid_message_is_rejected_with_code_and_text<S: ResponseFormat>() {
    let bad = phone(2);
    let (world, provider, code, status) =
        run::<S>(
            move |_, to| if to == bad { respond(S::error(S::INVALID)) } else { respond(S::accepted(to)) },
        )
        .await;
    assert_eq!((code, &status["rejected"]), (Some(3), &json!({ S::INVALID: 1 })));
    assert_eq!(states(&world), ["accepted", "rejected", "accepted"]);
    assert_eq!(world.report("c1")[1]["code"], S::INVALID);
    assert!(world.report("c1")[1]["detail"].as_str().unwrap().contains("Why"));
    assert_eq!(provider.requests().len(), 3);
}

async fn an_account_code_holds_the_campaign_and_leaves_every_message_pending<S: ResponseFormat>() {
    for code in S::ACCOUNT {
        let (world, provider, ended, now) = run::<S>(|_, _| respond(S::error(code))).await;
        let expected = (Some(3), &json!("held"), &json!(3));
        assert_eq!((ended, &now["state"], &now["counts"]["pending"]), expected, "{code}: {now}");
        assert!(now["reason"].as_str().unwrap().contains("Why; "), "{now}");
        assert_eq!(
            (states(&world), provider.requests().len()),
            (vec!["pending".to_string(); 3], 1),
            "{code}"
        );
    }
}

async fn an_account_status_holds_the_campaign<S: ResponseFormat>() {
    for status in [401, 402, 403] {
        let (_, provider, ended, now) =
            run::<S>(move |_, _| Reaction::Answer(status, "", String::new())).await;
        let expected = (Some(3), &json!("held"), &json!(3), 1);
        assert_eq!((ended, &now["state"], &now["counts"]["pending"], provider.requests().len()), expected);
    }
}

async fn a_404_holds_the_campaign<S: ResponseFormat>() {
    let (_, provider, code, now) = run::<S>(|_, _| Reaction::Answer(404, "", String::new())).await;
    assert_eq!((code, &now["state"], &now["counts"]["pending"]), (Some(3), &json!("held"), &json!(3)));
    assert_eq!(provider.requests().len(), 1);
}

async fn a_429_delays_sending_by_its_retry_after_and_rejects_nothing<S: ResponseFormat>() {
    let start = std::time::Instant::now();
    let (_, provider, code, now) = run::<S>(|nth, to| {
        if nth == 0 {
            Reaction::Answer(429, "retry-after: 2\r\n", String::new())
        } else {
            respond(S::accepted(to))
        }
    })
    .await;
    assert_eq!((code, provider.requests().len(), provider.times(&phone(1))), (Some(0), 4, 2), "{now}");
    assert!(start.elapsed().as_millis() >= 1990);
}

async fn an_internal_error_is_retried<S: ResponseFormat>() {
    let (_, provider, code, _) =
        run::<S>(|nth, to| if nth < 2 { respond(S::error(S::INTERNAL)) } else { respond(S::accepted(to)) })
            .await;
    assert_eq!((code, provider.requests().len()), (Some(0), 5));
}

async fn a_repeated_internal_error_holds_the_campaign<S: ResponseFormat>() {
    let (_, _, code, now) = run::<S>(|_, _| respond(S::error(S::INTERNAL))).await;
    assert_eq!((code, &now["state"], &now["counts"]["pending"]), (Some(3), &json!("held"), &json!(3)));
    assert!(
        now["reason"].as_str().unwrap().starts_with("6 attempts in a row failed; the last: HTTP 5"),
        "{now}"
    );
}

async fn a_message_that_keeps_failing_delays_no_other<S: ResponseFormat>() {
    let bad = phone(2);
    let (world, provider, code, status) =
        run::<S>(
            move |_, to| if to == bad { respond(S::error(S::INTERNAL)) } else { respond(S::accepted(to)) },
        )
        .await;
    assert_eq!((code, &status["rejected"]), (Some(3), &json!({ S::INTERNAL: 1 })));
    assert_eq!(states(&world), ["accepted", "rejected", "accepted"]);
    assert_eq!((provider.times(&phone(1)), provider.times(&phone(3))), (1, 1));
}

async fn a_5xx_in_another_format_is_in_doubt<S: ResponseFormat>() {
    for (status, body) in
        [(502, "<html>Bad Gateway</html>"), (504, ""), (500, "<html>oops</html>"), (503, "")]
    {
        let (world, provider, code, _) =
            run::<S>(move |_, _| Reaction::Answer(status, "", body.into())).await;
        assert_eq!((code, provider.requests().len()), (Some(3), 3), "{status}");
        assert_eq!(states(&world), ["in_doubt"; 3]);
    }
}

async fn a_refused_connection_is_retried_and_then_holds_the_campaign<S: ResponseFormat>() {
    let world = World::new(3);
    let (_refuses, url) = refusing_address();
    world.write_account(S::NAME, &url, "");
    let ended = world.run(&["run", "job.json", "--json"]).await;
    let now: Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!(
        (ended.status, &now["state"], &now["counts"]["pending"]),
        (Some(3), &json!("held"), &json!(3))
    );
    assert!(now["reason"].as_str().unwrap().contains("refused"), "{now}");
}

async fn a_close_or_timeout_after_the_request_is_in_doubt_and_not_retried<S: ResponseFormat>() {
    for hang in [false, true] {
        let world = World::new(3);
        let provider = Scripted::start(move |_, _| if hang { Reaction::Hang } else { Reaction::Close }).await;
        world.write_account(S::NAME, &provider.url, "timeout = \"1s\"");
        let ended = world.run(&["run", "job.json", "--json"]).await;
        assert_eq!(ended.status, Some(3), "{ended:?}");
        assert_eq!(states(&world), ["in_doubt"; 3]);
        assert_eq!(world.run(&["run", "job.json"]).await.status, Some(3));
        assert_eq!(provider.requests().len(), 3);
    }
}

/// Generates a test of each row of the table for each provider.
macro_rules! rows_of_the_table {
    ($($module:ident: $provider:ty),+ $(,)?) => { $(
        mod $module {
            use super::*;
            rows_of_the_table!(@ $provider,
                an_accepted_message_has_its_sid,
                an_unreadable_success_is_in_doubt,
                only_an_invalid_message_is_rejected_with_code_and_text,
                an_account_code_holds_the_campaign_and_leaves_every_message_pending,
                an_account_status_holds_the_campaign,
                a_404_holds_the_campaign,
                a_429_delays_sending_by_its_retry_after_and_rejects_nothing,
                an_internal_error_is_retried,
                a_repeated_internal_error_holds_the_campaign,
                a_message_that_keeps_failing_delays_no_other,
                a_5xx_in_another_format_is_in_doubt,
                a_refused_connection_is_retried_and_then_holds_the_campaign,
                a_close_or_timeout_after_the_request_is_in_doubt_and_not_retried,
            );
        }
    )+ };
    (@ $provider:ty, $($row:ident),+ $(,)?) => { $(
        #[tokio::test(flavor = "multi_thread")]
        async fn $row() {
            super::$row::<$provider>().await;
        }
    )+ };
}

rows_of_the_table!(kaleyra: Kaleyra, meta: Meta);
