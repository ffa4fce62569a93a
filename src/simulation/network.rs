//! The network to a provider, and the provider. It gives every response of the table, also late, truncated or not at all, and
//! knows what it has accepted.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::node::Node;
use super::{Broken, World};
use crate::campaign::{DoubtCause, Phone};
use crate::ledger::Memory;
use crate::provider::Request;
use crate::provider::transport::{Failure, HttpResponse, SimulatedNetwork};
use crate::runtime::{chance, one_of, simulated};

/// A worker's network to the provider.
pub(super) struct Network {
    pub(super) node: Arc<Node>,
    pub(super) ledger: Memory,
}

/// The result of a request that arrives.
enum ScriptedResponse {
    /// Each message is accepted or rejected, and the response says which.
    Entries,
    /// No message is accepted, and the response says so.
    Refused(u16, Value),
    /// The response proves nothing; only the provider knows what it accepted.
    Unclear(u16, &'static str),
}

impl SimulatedNetwork for Network {
    fn post(
        &self,
        request: Request,
        start_by: Option<Instant>,
        timeout: Duration,
    ) -> Pin<Box<dyn Future<Output = Result<HttpResponse, Failure>> + Send>> {
        let (node, ledger) = (self.node.clone(), self.ledger.clone());
        Box::pin(async move {
            let (world, begun) = (node.world.clone(), Instant::now());
            let answered = post(&node, &ledger, &request, start_by, timeout, begun).await;
            node.proceed().await;
            match answered {
                Err(Failure::MayBeSent(_)) if world.faults.broken == Some(Broken::UnknownIsInDoubt) => {
                    Err(Failure::NotSent("reset".into()))
                }
                answered => answered,
            }
        })
    }
}

async fn post(
    node: &Arc<Node>,
    ledger: &Memory,
    request: &Request,
    start_by: Option<Instant>,
    timeout: Duration,
    begun: Instant,
) -> Result<HttpResponse, Failure> {
    let world = &node.world;
    let cuts = |share| world.goes_wrong(world.faults.cuts, share);
    node.hop().await;
    if cuts(0.02) {
        return Err(Failure::NotSent("refused".into()));
    }
    if world.faults.is_slow && world.goes_wrong(true, 0.02) {
        // A slow connection.
        sleep(Duration::from_secs_f64(chance() * 9.0)).await;
    }
    node.proceed().await;
    if start_by.is_some_and(|latest| Instant::now() >= latest) && world.faults.broken != Some(Broken::Gate) {
        return Err(Failure::NotSent("the request was abandoned before it began".into()));
    }
    let left = timeout.saturating_sub(begun.elapsed());
    let to = recipients(&request.body);
    // The request is now in flight.
    if !ledger.are_being_sent(&to) {
        let wrong = format!("worker {} sends without a claim: {}", node.number, shown(&to));
        world.log(|| wrong.clone());
        world.seen().wrong.get_or_insert(wrong);
    }
    let unknown = |cause: DoubtCause, why: &str| {
        world.seen().unknown.extend(&to);
        world.log(|| format!("worker {}: {why}: {}", node.number, shown(&to)));
        Err(Failure::MayBeSent(cause.into()))
    };
    if left.is_zero() || cuts(0.02) {
        return unknown(DoubtCause::ConnectionLost, "the request is cut off");
    }
    world.seen().sent.push((simulated::true_time().unwrap_or_default(), to.len()));
    let (status, body) = match answer(world, &to) {
        ScriptedResponse::Entries => {
            let refused: Vec<bool> =
                to.iter().map(|_| world.goes_wrong(world.faults.provider, 0.03)).collect();
            accept(world, to.iter().zip(&refused).filter(|(_, refused)| !**refused).map(|(to, _)| *to));
            world.log(|| format!("worker {}: accepted: {}, rejected {refused:?}", node.number, shown(&to)));
            entries(&request.body, &refused)
        }
        ScriptedResponse::Refused(status, body) => {
            world.log(|| format!("worker {}: {status}: {}", node.number, shown(&to)));
            (status, body.to_string())
        }
        ScriptedResponse::Unclear(status, body) => {
            if chance() < 0.5 {
                accept(world, to.iter().copied());
            }
            world.seen().unknown.extend(&to);
            world.log(|| format!("worker {}: {status} {body:?}: {}", node.number, shown(&to)));
            (status, body.to_owned())
        }
    };
    let latency = Duration::from_millis(if chance() < 0.5 { 0 } else { (chance() * 200.0) as u64 });
    if cuts(0.02) {
        return unknown(DoubtCause::ConnectionLost, "the response is cut off");
    }
    if cuts(0.01) || latency >= left {
        sleep(left).await;
        return unknown(DoubtCause::NoResponse, "no response in time");
    }
    sleep(latency).await;
    let retry_after = (status == 429).then(|| Duration::from_secs(1 + one_of(3) as u64));
    Ok(HttpResponse { status, retry_after, body: body.into() })
}

fn accept(world: &World, to: impl Iterator<Item = Phone>) {
    let mut seen = world.seen();
    for phone in to {
        *seen.taken.entry(phone).or_default() += 1;
    }
}

fn answer(world: &World, to: &[Phone]) -> ScriptedResponse {
    // Some messages always fail their whole request, which must be split until they are alone.
    if world.faults.provider && to.iter().any(|phone| phone.digits() % 19 == 3) {
        let error = json!({ "code": 400, "message": "bad", "description": "bad" });
        return ScriptedResponse::Refused(
            400,
            json!({ "code": "WA400", "message": "bad", "response": { "error_data": error } }),
        );
    }
    if !world.goes_wrong(world.faults.provider, 0.12) {
        return ScriptedResponse::Entries;
    }
    let whole = |status: u16, code: &str| {
        let error = json!({ "code": status, "message": "no", "description": "no" });
        ScriptedResponse::Refused(
            status,
            json!({ "code": code, "message": "no", "response": { "error_data": error } }),
        )
    };
    match one_of(9) {
        0 => whole(401, "RBC001"),
        1 => whole(500, "WA500"),
        2 => whole(503, "WA500"),
        3 => whole(404, "WA404"),
        4 | 5 => whole(429, "WA429"),
        6 => ScriptedResponse::Unclear(502, "<html>nothing behind this</html>"),
        7 => ScriptedResponse::Unclear(202, "{\"request_id\":"),
        _ => ScriptedResponse::Unclear(202, "{\"response\":{\"whatsapp\":{\"messages\":[]}}}"),
    }
}

/// Returns the recipients of a request.
fn recipients(body: &[u8]) -> Vec<Phone> {
    let body: Value = serde_json::from_slice(body).unwrap();
    let to = |message: &Value| message["to"].as_str().unwrap().parse().unwrap();
    match body["whatsapp"]["messages"].as_array() {
        Some(messages) => messages.iter().map(to).collect(),
        None => vec![to(&body["messaging_object"])],
    }
}

/// Returns the response with a result for each message, in the request's API.
fn entries(request: &[u8], refused: &[bool]) -> (u16, String) {
    let request: Value = serde_json::from_slice(request).unwrap();
    let sid = || format!("sid-{:.9}", chance());
    if request["whatsapp"].is_null() {
        return if refused[0] {
            (400, json!({ "code": "WA400", "message": "no", "data": {}, "error": {} }).to_string())
        } else {
            let data = json!({ "message_id": sid() });
            (202, json!({ "code": "WA202", "message": "ok", "data": data, "error": {} }).to_string())
        };
    }
    let entry = |refused: &bool| {
        if *refused {
            let error = json!({ "code": 400, "message": "no", "description": "no" });
            json!({ "code": 400, "status": "failure", "data": null, "error_data": error })
        } else {
            json!({ "code": 202, "status": "success", "error_data": null, "data": { "sid": sid() } })
        }
    };
    let entries: Vec<Value> = refused.iter().map(entry).collect();
    (202, json!({ "http_code": 202, "response": { "whatsapp": { "messages": entries } } }).to_string())
}

fn shown(to: &[Phone]) -> String {
    to.iter().map(|phone| (phone.digits() % 10_000).to_string()).collect::<Vec<_>>().join(" ")
}
