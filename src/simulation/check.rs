//! What holds at the end of every run.

use std::collections::BTreeMap;

use super::World;
use crate::campaign::{CampaignId, CampaignState, MessageState, Phone, Rate};
use crate::ledger::report_page;
use crate::ledger::{ABANDONED, Campaigns, Cursor, Memory};

/// Holds a campaign against what the provider knows.
pub(super) async fn campaign(
    world: &World,
    ledger: &Memory,
    id: &CampaignId,
    to: &[Phone],
) -> Result<(), String> {
    let campaign = ledger.campaign(id).await.unwrap().ok_or("the campaign is gone")?;
    if !campaign.state.is_over() {
        return Err(format!(
            "{id} does not end: {} {:?} {:?}",
            campaign.state, campaign.reason, campaign.counts
        ));
    }
    let (mut lines, mut at) = (Vec::new(), Some(Cursor::default()));
    while let Some(from) = at {
        let page = report_page(ledger, id, from).await.unwrap();
        lines.extend(page.lines);
        at = page.next;
    }
    let (mut states, mut counted) = (BTreeMap::new(), BTreeMap::<&str, u64>::new());
    for line in lines {
        *counted.entry(line.state.as_str()).or_default() += 1;
        let phone: Phone = line.recipient.parse().map_err(|_| format!("{}: no number", line.recipient))?;
        if states.insert(phone, line).is_some() {
            return Err(format!("{id}: {} is there twice", phone.digits()));
        }
    }
    let counts = &campaign.counts;
    for (state, count) in [
        ("pending", counts.pending),
        ("sending", counts.sending),
        ("accepted", counts.accepted),
        ("rejected", counts.rejected),
        ("in_doubt", counts.in_doubt),
        ("skipped", counts.skipped),
    ] {
        let mut found = counted.get(state).copied().unwrap_or_default();
        if state == "skipped" && campaign.state == CampaignState::Cancelled {
            // Rows that were never planned are in no report.
            found += to.len() as u64 - states.len() as u64;
        }
        if found != count {
            return Err(format!("{id}: {count} are counted {state}, and {found} are"));
        }
    }
    if counts.open() > 0 {
        return Err(format!("{id} is over with {} open", counts.open()));
    }
    let seen = world.seen();
    // Whoever was never planned was never sent to.
    let is_cancelled = campaign.state == CampaignState::Cancelled;
    for phone in to {
        let taken = seen.taken.get(phone).copied().unwrap_or_default();
        let allowed = 1 + seen.allowed.get(phone).copied().unwrap_or_default();
        let who = phone.digits() % 10_000;
        let Some(line) = states.get(phone) else {
            if is_cancelled && taken == 0 {
                continue;
            }
            return Err(format!("{id}: {who} is lost, and was taken {taken} times"));
        };
        if taken > allowed {
            return Err(format!("{id}: {who} was sent to {taken} times: {line:?}"));
        }
        let is_right = match line.state {
            MessageState::Accepted => taken > 0,
            // What was refused was not taken; an earlier try may have been, where a person had it sent again.
            MessageState::Rejected => {
                taken == 0 || line.code.as_deref() == Some(ABANDONED) || taken < allowed
            }
            MessageState::InDoubt => true,
            MessageState::Skipped => taken == 0 || allowed > 1,
            MessageState::Pending | MessageState::Sending => false,
        };
        if !is_right {
            return Err(format!("{id}: {who} was taken {taken} times: {line:?}"));
        }
        let faults = &world.faults;
        let may_die = faults.crashes || faults.freezes || faults.is_slow || faults.loses || faults.broker;
        if line.state == MessageState::InDoubt && !may_die && !seen.unknown.contains(phone) {
            return Err(format!("{id}: {who} is in doubt for no reason: {line:?}"));
        }
    }
    Ok(())
}

/// A send that was admitted may go out so many milliseconds after its limit has changed.
const GRACE: i64 = 22;

/// Holds what reached the provider against a limit as it changed: a bucket never has more than its burst, and a change
/// gives it no token.
pub(super) fn limit(world: &World, rates: &[(i64, Rate)]) -> Result<(), String> {
    let seen = world.seen();
    // A millisecond is as exact as the simulation's clock is: what it was worth before a change stays in the bucket.
    let inexact = rates.iter().map(|(_, rate)| rate.per_second()).fold(0.0, f64::max) / 500.0;
    let (mut rates, Some((mut last, first))) =
        (rates.iter().copied().skip(1).peekable(), rates.first().copied())
    else {
        return Ok(());
    };
    let (mut rate, mut before, mut changed) = (first, first, last);
    let burst = |rate: Rate| f64::from(rate.burst().get());
    // A bucket that nobody has used is full.
    let (mut tokens, mut most) = (burst(rate), burst(rate));
    for (nth, (at, messages)) in seen.sent.iter().enumerate() {
        let mut come_back = |until: i64, rate: Rate, tokens: f64, most: f64| {
            let more = (until - last) as f64 / 1000.0 * rate.per_second();
            last = until;
            (tokens + more).min(most)
        };
        while let Some((when, next)) = rates.next_if(|(when, _)| when <= at) {
            let held = come_back(when, rate, tokens, most);
            tokens = if nth == 0 { burst(next) } else { held };
            // What was admitted just before the change was taken out of the bucket as it was.
            most = tokens.max(burst(next)) + GRACE as f64 / 1000.0 * next.per_second();
            (before, changed, rate) = (rate, when, next);
        }
        if *at >= changed + GRACE {
            most = burst(rate);
        }
        tokens = come_back(*at, rate, tokens, most) - *messages as f64;
        // What was admitted for a moment behind the change was so by the rate before it, and is owed to the bucket.
        let owed = match at - changed {
            since if since < GRACE => {
                since as f64 / 1000.0 * (before.per_second() - rate.per_second()).max(0.0)
            }
            _ => 0.0,
        };
        if tokens < -(inexact + owed + 1e-6) {
            return Err(format!("the limit {rate} was exceeded at {at}: {:.2} too many", -tokens));
        }
    }
    Ok(())
}
