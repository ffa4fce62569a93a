//! "Which answers prove what" for the providers that take one message a request: a test a row of the
//! table for each, over real sockets, seen from outside.

use serde_json::{Value, json};

use crate::support::{Reaction, Scripted, World, phone, refusing};

/// How a provider says things.
trait Speaks {
    const NAME: &'static str;
    /// The status and body of a message that is taken.
    fn taken(to: &str) -> (u16, Value);
    /// The status and body of an error.
    fn error(code: &str) -> (u16, Value);
    /// The code of a message that is wrong, ...
    const WRONG: &'static str;
    /// ... and of an inner failure.
    const BROKEN: &'static str;
    /// The codes that hold the account.
    const ACCOUNT: &'static [&'static str];
}

struct Kaleyra;

impl Speaks for Kaleyra {
    const NAME: &'static str = "kaleyra";
    const WRONG: &'static str = "WA400";
    const BROKEN: &'static str = "WA500";
    const ACCOUNT: &'static [&'static str] = &["RBC001", "WA401", "WA-401", "E110"];

    fn taken(to: &str) -> (u16, Value) {
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

impl Speaks for Meta {
    const NAME: &'static str = "meta";
    const WRONG: &'static str = "131026";
    const BROKEN: &'static str = "131000";
    const ACCOUNT: &'static [&'static str] = &["190", "10", "368", "131042"];

    fn taken(to: &str) -> (u16, Value) {
        (
            200,
            json!({ "messaging_product": "whatsapp", "contacts": [], "messages": [{ "id": format!("sid-{to}") }] }),
        )
    }

    fn error(code: &str) -> (u16, Value) {
        let number: u32 = code.parse().unwrap();
        let status = if code == Self::BROKEN { 500 } else { 400 };
        (
            status,
            json!({ "error": { "message": "Why", "type": "OAuthException", "code": number, "fbtrace_id": "A" } }),
        )
    }
}

fn answer((status, body): (u16, Value)) -> Reaction {
    Reaction::Answer(status, "", body.to_string())
}

/// Runs three messages against a script, one at a time so that the script knows which comes first.
async fn run<S: Speaks>(
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

async fn a_message_that_is_taken_is_accepted_with_its_sid<S: Speaks>() {
    let (world, provider, code, _) = run::<S>(|_, to| answer(S::taken(to))).await;
    assert_eq!((code, provider.requests().len()), (Some(0), 3));
    assert_eq!(world.report("c1")[1]["sid"], format!("sid-{}", phone(2)));
}

async fn a_success_that_can_not_be_read_is_in_doubt<S: Speaks>() {
    for body in ["", "<html>thanks</html>", "{}", "{\"code\":\"WA202\",\"data\":{}}"] {
        let (world, provider, code, _) = run::<S>(move |_, _| Reaction::Answer(202, "", body.into())).await;
        assert_eq!((code, provider.requests().len()), (Some(3), 3), "{body}");
        assert_eq!(states(&world), ["in_doubt"; 3], "{body}");
    }
}

async fn a_message_that_is_wrong_is_rejected_alone_with_code_and_text<S: Speaks>() {
    let bad = phone(2);
    let (world, provider, code, status) =
        run::<S>(move |_, to| if to == bad { answer(S::error(S::WRONG)) } else { answer(S::taken(to)) })
            .await;
    assert_eq!((code, &status["rejected"]), (Some(3), &json!({ S::WRONG: 1 })));
    assert_eq!(states(&world), ["accepted", "rejected", "accepted"]);
    assert_eq!(world.report("c1")[1]["code"], S::WRONG);
    assert!(world.report("c1")[1]["detail"].as_str().unwrap().contains("Why"));
    assert_eq!(provider.requests().len(), 3);
}

async fn an_account_code_holds_and_leaves_every_message_pending<S: Speaks>() {
    for code in S::ACCOUNT {
        let (world, provider, ended, now) = run::<S>(|_, _| answer(S::error(code))).await;
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

async fn a_status_about_the_account_holds<S: Speaks>() {
    for status in [401, 402, 403] {
        let (_, provider, ended, now) =
            run::<S>(move |_, _| Reaction::Answer(status, "", String::new())).await;
        let expected = (Some(3), &json!("held"), &json!(3), 1);
        assert_eq!((ended, &now["state"], &now["counts"]["pending"], provider.requests().len()), expected);
    }
}

async fn a_404_holds_the_campaign<S: Speaks>() {
    let (_, provider, code, now) = run::<S>(|_, _| Reaction::Answer(404, "", String::new())).await;
    assert_eq!((code, &now["state"], &now["counts"]["pending"]), (Some(3), &json!("held"), &json!(3)));
    assert_eq!(provider.requests().len(), 1);
}

async fn a_429_waits_as_long_as_it_says_and_fails_nothing<S: Speaks>() {
    let start = std::time::Instant::now();
    let (_, provider, code, now) = run::<S>(|nth, to| {
        if nth == 0 {
            Reaction::Answer(429, "retry-after: 2\r\n", String::new())
        } else {
            answer(S::taken(to))
        }
    })
    .await;
    assert_eq!((code, provider.requests().len(), provider.times(&phone(1))), (Some(0), 4, 2), "{now}");
    assert!(start.elapsed().as_millis() >= 1990);
}

async fn an_inner_failure_is_tried_again<S: Speaks>() {
    let (_, provider, code, _) =
        run::<S>(|nth, to| if nth < 2 { answer(S::error(S::BROKEN)) } else { answer(S::taken(to)) }).await;
    assert_eq!((code, provider.requests().len()), (Some(0), 5));
}

async fn an_inner_failure_that_does_not_end_holds_the_campaign<S: Speaks>() {
    let (_, _, code, now) = run::<S>(|_, _| answer(S::error(S::BROKEN))).await;
    assert_eq!((code, &now["state"], &now["counts"]["pending"]), (Some(3), &json!("held"), &json!(3)));
    assert!(
        now["reason"].as_str().unwrap().starts_with("6 attempts in a row failed; the last: HTTP 5"),
        "{now}"
    );
}

async fn one_message_that_never_works_holds_up_nobody_else<S: Speaks>() {
    let bad = phone(2);
    let (world, provider, code, status) =
        run::<S>(move |_, to| if to == bad { answer(S::error(S::BROKEN)) } else { answer(S::taken(to)) })
            .await;
    assert_eq!((code, &status["rejected"]), (Some(3), &json!({ S::BROKEN: 1 })));
    assert_eq!(states(&world), ["accepted", "rejected", "accepted"]);
    assert_eq!((provider.times(&phone(1)), provider.times(&phone(3))), (1, 1));
}

async fn a_5xx_that_is_not_the_providers_is_in_doubt<S: Speaks>() {
    for (status, body) in
        [(502, "<html>Bad Gateway</html>"), (504, ""), (500, "<html>oops</html>"), (503, "")]
    {
        let (world, provider, code, _) =
            run::<S>(move |_, _| Reaction::Answer(status, "", body.into())).await;
        assert_eq!((code, provider.requests().len()), (Some(3), 3), "{status}");
        assert_eq!(states(&world), ["in_doubt"; 3]);
    }
}

async fn a_refused_connection_is_tried_again_and_then_holds<S: Speaks>() {
    let world = World::new(3);
    let (_refuses, url) = refusing();
    world.write_account(S::NAME, &url, "");
    let ended = world.run(&["run", "job.json", "--json"]).await;
    let now: Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!(
        (ended.status, &now["state"], &now["counts"]["pending"]),
        (Some(3), &json!("held"), &json!(3))
    );
    assert!(now["reason"].as_str().unwrap().contains("refused"), "{now}");
}

async fn closed_or_silent_after_the_request_went_out_is_in_doubt_and_never_repeated<S: Speaks>() {
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

macro_rules! rows_of_the_table {
    ($($module:ident: $provider:ty),+ $(,)?) => { $(
        mod $module {
            use super::*;
            rows_of_the_table!(@ $provider,
                a_message_that_is_taken_is_accepted_with_its_sid,
                a_success_that_can_not_be_read_is_in_doubt,
                a_message_that_is_wrong_is_rejected_alone_with_code_and_text,
                an_account_code_holds_and_leaves_every_message_pending,
                a_status_about_the_account_holds,
                a_404_holds_the_campaign,
                a_429_waits_as_long_as_it_says_and_fails_nothing,
                an_inner_failure_is_tried_again,
                an_inner_failure_that_does_not_end_holds_the_campaign,
                one_message_that_never_works_holds_up_nobody_else,
                a_5xx_that_is_not_the_providers_is_in_doubt,
                a_refused_connection_is_tried_again_and_then_holds,
                closed_or_silent_after_the_request_went_out_is_in_doubt_and_never_repeated,
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
