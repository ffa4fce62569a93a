//! One test for each row of the table of responses (docs/architecture.md), over real sockets: what the provider received, and
//! the status and the report.

use serde_json::{Value, json};

use crate::fleet::LONG;
use crate::support::{Reaction, Scripted, World, accept, entries, failure, phone, refusing_address, success};

/// Runs a campaign of three messages in one batch with a scripted provider.
async fn run(
    react: impl Fn(usize, &[String]) -> Reaction + Send + Sync + 'static,
) -> (World, Scripted, Option<i32>, Value) {
    let world = World::new(3);
    let provider = Scripted::start(react).await;
    world.write_config(&provider.url, "");
    let ended = world.run(&["run", "job.json", "--json"]).await;
    let status = serde_json::from_str(&ended.out).unwrap_or_else(|_| panic!("{ended:?}"));
    (world, provider, ended.status, status)
}

fn states(world: &World) -> Vec<String> {
    world.report("c1").iter().map(|line| line["state"].as_str().unwrap().into()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_202_entry_of_success_is_accepted_with_its_sid() {
    let (world, _, code, status) = run(|_, to| accept(to)).await;
    assert_eq!((code, &status["counts"]["accepted"]), (Some(0), &json!(3)));
    assert_eq!(world.report("c1")[0]["sid"], format!("sid-{}", phone(1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_202_entries_of_429_or_5xx_are_retried() {
    let (_, provider, code, _) = run(|nth, to| match nth {
        0 => Reaction::Answer(
            202,
            "",
            entries([success(&to[0]), failure(503, "busy"), success(&to[2])].into_iter()),
        ),
        1 => Reaction::Answer(202, "", entries(std::iter::once(failure(429, "slow")))),
        _ => accept(to),
    })
    .await;
    assert_eq!(code, Some(0));
    assert_eq!((provider.times(&phone(1)), provider.times(&phone(2)), provider.times(&phone(3))), (1, 3, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_202_entry_of_any_other_code_is_rejected_with_code_and_text() {
    let (world, provider, code, status) = run(|_, to| {
        Reaction::Answer(
            202,
            "",
            entries([success(&to[0]), failure(1005, "opted out"), success(&to[2])].into_iter()),
        )
    })
    .await;
    assert_eq!((code, &status["rejected"]), (Some(3), &json!({ "1005": 1 })));
    let line = &world.report("c1")[1];
    assert_eq!((&line["code"], &line["detail"]), (&json!("1005"), &json!("opted out")));
    assert_eq!(provider.requests().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_202_with_a_wrong_number_of_entries_leaves_all_messages_in_doubt() {
    // If the entry of the first message is missing, the first message would get the SID of the second by position.
    let entry = |to: &str| success(to);
    for missing in 0..3 {
        let (world, provider, code, _) = run(move |_, to| {
            let others = to.iter().enumerate().filter(|(nth, _)| *nth != missing);
            Reaction::Answer(202, "", entries(others.map(|(_, to)| entry(to))))
        })
        .await;
        assert_eq!(code, Some(3));
        assert_eq!(states(&world), ["in_doubt"; 3]);
        assert_eq!(world.flowcast(&["retry", "c1"]).status, Some(0));
        assert_eq!(
            provider.requests().len(),
            1,
            "a message that may have been accepted must not be sent again"
        );
    }
    let (world, ..) = run(|_, to| {
        let more = to.iter().chain(to).map(|to| success(to));
        Reaction::Answer(202, "", entries(more))
    })
    .await;
    assert_eq!(states(&world), ["in_doubt"; 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_202_is_in_doubt() {
    let (world, provider, code, _) =
        run(|_, _| Reaction::Answer(202, "", "<html>thanks</html>".into())).await;
    assert_eq!(code, Some(3));
    assert_eq!(states(&world), ["in_doubt"; 3]);
    assert_eq!(provider.requests().len(), 1, "a request in doubt must not be retried");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_400_is_split_in_halves_until_the_invalid_message_is_isolated() {
    let bad = phone(2);
    let (world, provider, code, status) = run(move |_, to| {
        if to.contains(&bad) {
            Reaction::Answer(
                400,
                "",
                json!({ "http_code": 400, "response": { "message": "malformed" } }).to_string(),
            )
        } else {
            accept(to)
        }
    })
    .await;
    assert_eq!((code, &status["rejected"]), (Some(3), &json!({ "400": 1 })));
    assert_eq!(states(&world), ["accepted", "rejected", "accepted"]);
    assert_eq!(
        world.report("c1")[1]["detail"],
        "HTTP 400: malformed — A field of the message is invalid or missing. Fix the template: read the text next to the code."
    );
    // 3, then 1 and 2, then 1 and 1: no accepted message is sent again.
    assert_eq!(provider.requests().iter().map(Vec::len).collect::<Vec<_>>(), [3, 1, 2, 1, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_error_holds_the_campaign_and_leaves_every_message_pending() {
    for (status, advice) in [
        (401, "check the credentials"),
        (402, "plan and balance"),
        (403, "may not send this kind of message"),
    ] {
        let (world, provider, code, now) = run(move |_, _| Reaction::Answer(status, "", String::new())).await;
        assert_eq!(
            (code, &now["state"], &now["counts"]["pending"]),
            (Some(3), &json!("held"), &json!(3)),
            "{now}"
        );
        assert!(now["reason"].as_str().unwrap().contains(advice), "{now}");
        assert_eq!((states(&world), provider.requests().len()), (vec!["pending".to_string(); 3], 1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_404_holds_the_campaign() {
    let (_, provider, code, now) = run(|_, _| Reaction::Answer(404, "", String::new())).await;
    assert_eq!((code, &now["state"], &now["counts"]["pending"]), (Some(3), &json!("held"), &json!(3)));
    assert!(now["reason"].as_str().unwrap().contains("account_sid"));
    assert_eq!(provider.requests().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_is_not_followed_and_holds_the_campaign() {
    let other = Scripted::start(|_, to| accept(to)).await;
    let location = format!("location: {}\r\n", other.url);
    let location: &'static str = location.leak();
    let (_, provider, code, now) = run(move |_, _| Reaction::Answer(307, location, String::new())).await;
    assert_eq!((code, &now["state"], &now["counts"]["pending"]), (Some(3), &json!("held"), &json!(3)));
    assert!(now["reason"].as_str().unwrap().contains("check region and base_url"), "{now}");
    assert_eq!((provider.requests().len(), other.requests().len()), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_429_delays_sending_by_its_retry_after_and_rejects_nothing() {
    let start = std::time::Instant::now();
    let (_, provider, code, _) =
        run(
            |nth, to| {
                if nth == 0 { Reaction::Answer(429, "retry-after: 2\r\n", String::new()) } else { accept(to) }
            },
        )
        .await;
    assert_eq!((code, provider.requests().len()), (Some(0), 2));
    assert!(start.elapsed().as_millis() >= 1990);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_excessive_retry_after_is_limited_to_an_hour() {
    let world = World::new(3);
    let provider =
        Scripted::start(|_, _| Reaction::Answer(429, "retry-after: 18446744073709551615\r\n", String::new()))
            .await;
    world.write_config(&provider.url, "");
    let mut child = world.command(&["run", "job.json"]).stderr(std::process::Stdio::null()).spawn().unwrap();
    let start = std::time::Instant::now();
    loop {
        assert!(start.elapsed() < LONG, "timed out waiting for the delay");
        let ended = world.run(&["status", "c1", "--json"]).await;
        if ended.out.contains("rate-limited by the provider; resumes in 3600 s") {
            break;
        }
        assert_eq!(child.try_wait().unwrap(), None, "the run must not end: {ended:?}");
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn many_429s_in_a_row_delay_the_campaign_and_never_hold_it() {
    // More than the number of attempts after an error.
    let (_, provider, code, status) =
        run(
            |nth, to| {
                if nth < 9 { Reaction::Answer(429, "retry-after: 0\r\n", String::new()) } else { accept(to) }
            },
        )
        .await;
    assert_eq!((code, provider.requests().len()), (Some(0), 10));
    assert_eq!(status["counts"]["accepted"], 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_500_in_the_providers_format_is_retried() {
    let (_, provider, code, _) = run(|nth, to| {
        if nth < 2 {
            Reaction::Answer(500 + 3 * (nth as u16), "", json!({ "http_code": 500 }).to_string())
        } else {
            accept(to)
        }
    })
    .await;
    assert_eq!((code, provider.requests().len()), (Some(0), 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_500_holds_the_campaign_with_the_reason() {
    let (_, provider, code, now) = run(|_, _| {
        Reaction::Answer(
            503,
            "",
            json!({ "http_code": 503, "response": { "message": "maintenance" } }).to_string(),
        )
    })
    .await;
    assert_eq!((code, &now["state"], &now["counts"]["pending"]), (Some(3), &json!("held"), &json!(3)));
    assert_eq!(now["reason"], "6 attempts in a row failed; the last: HTTP 503: maintenance");
    assert_eq!(provider.requests().len(), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_5xx_in_another_format_is_in_doubt() {
    for (status, body) in
        [(502, "<html>Bad Gateway</html>"), (504, ""), (500, "<html>oops</html>"), (503, "")]
    {
        let (world, provider, code, _) = run(move |_, _| Reaction::Answer(status, "", body.into())).await;
        assert_eq!((code, provider.requests().len()), (Some(3), 1), "{status}");
        assert_eq!(states(&world), ["in_doubt"; 3]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_connection_is_retried_and_then_holds_the_campaign() {
    let world = World::new(3);
    let (_refuses, url) = refusing_address();
    world.write_config(&url, "");
    let ended = world.run(&["run", "job.json", "--json"]).await;
    let now: Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!(
        (ended.status, &now["state"], &now["counts"]["pending"]),
        (Some(3), &json!("held"), &json!(3))
    );
    assert!(now["reason"].as_str().unwrap().contains("refused"), "{now}");
    // The campaign continues when the provider is reachable.
    let provider = Scripted::start(|_, to| accept(to)).await;
    world.write_config(&provider.url, "");
    assert_eq!(world.run(&["run", "job.json"]).await.status, Some(0));
    assert_eq!(provider.requests().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_closed_after_the_request_is_in_doubt_and_not_retried() {
    let (world, provider, code, now) = run(|_, _| Reaction::Close).await;
    assert_eq!((code, &now["state"], &now["counts"]["in_doubt"]), (Some(3), &json!("completed"), &json!(3)));
    assert_eq!(states(&world), ["in_doubt"; 3]);
    assert_eq!(world.run(&["run", "job.json"]).await.status, Some(3));
    assert_eq!(provider.requests().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_in_doubt_is_resent_only_if_the_job_says_so() {
    let world = World::new(3);
    world.write_job(&crate::support::job_with("/on_in_doubt", json!("resend")));
    let provider = Scripted::start(|nth, to| if nth == 0 { Reaction::Close } else { accept(to) }).await;
    world.write_config(&provider.url, "");
    assert_eq!(world.run(&["run", "job.json"]).await.status, Some(0));
    assert_eq!(provider.requests().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_keeps_failing_holds_the_campaign_before_all_is_in_doubt() {
    let world = World::new(2_000);
    let provider = Scripted::start(|_, _| Reaction::Close).await;
    world.write_config(
        &provider.url,
        "limits = { messages = \"100000/s\", requests = \"1000/s\" }\nconcurrency = 1",
    );
    let ended = world.run(&["run", "job.json", "--json"]).await;
    let now: Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!(
        (ended.status, &now["state"], &now["counts"]["in_doubt"]),
        (Some(3), &json!("held"), &json!(500))
    );
    assert!(
        now["reason"].as_str().unwrap().starts_with("the outcome of 5 requests in a row is unknown"),
        "{now}"
    );
}
