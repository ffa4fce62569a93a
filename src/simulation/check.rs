//! The invariants at the end of a run.

use std::collections::BTreeMap;

use super::World;
use crate::campaign::{CampaignId, CampaignState, MessageState, Phone, Rate};
use crate::ledger::report_page;
use crate::ledger::{ABANDONED, Campaign, Campaigns, Cursor, Memory};

/// Compares a campaign's report with what the provider accepted.
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
        let phone: Phone =
            line.recipient.parse().map_err(|_| format!("{}: invalid number", line.recipient))?;
        if states.insert(phone, line).is_some() {
            return Err(format!("{id}: {} is in the report twice", phone.digits()));
        }
    }
    compare_counts(&campaign, &counted, to.len().saturating_sub(states.len()) as u64)?;
    let counts = &campaign.counts;
    if counts.open() > 0 {
        return Err(format!("{id} is over with {} open", counts.open()));
    }
    let seen = world.seen();
    // Recipients that were never planned got no message.
    let is_cancelled = campaign.state == CampaignState::Cancelled;
    for phone in to {
        let taken = seen.taken.get(phone).copied().unwrap_or_default();
        let allowed = 1 + seen.allowed.get(phone).copied().unwrap_or_default();
        let who = phone.digits() % 10_000;
        let Some(line) = states.get(phone) else {
            if is_cancelled && taken == 0 {
                continue;
            }
            return Err(format!("{id}: {who} is missing from the report; {taken} accepted"));
        };
        if taken > allowed {
            return Err(format!("{id}: {who} got {taken} messages: {line:?}"));
        }
        let is_right = match line.state {
            MessageState::Accepted => taken > 0,
            // A rejected message was not accepted, but an earlier attempt may have been, if an operator resent it.
            MessageState::Rejected => {
                taken == 0 || line.code.as_deref() == Some(ABANDONED) || taken < allowed
            }
            MessageState::InDoubt => true,
            MessageState::Skipped => taken == 0 || allowed > 1,
            MessageState::Pending | MessageState::Sending => false,
        };
        if !is_right {
            return Err(format!("{id}: {who}: {taken} accepted, which contradicts {line:?}"));
        }
        let faults = &world.faults;
        let may_die = faults.crashes || faults.freezes || faults.is_slow || faults.loses || faults.broker;
        if line.state == MessageState::InDoubt && !may_die && !seen.unknown.contains(phone) {
            return Err(format!("{id}: {who} is in doubt without a cause: {line:?}"));
        }
    }
    Ok(())
}

/// Compares a campaign's counts with those of its report.
fn compare_counts(campaign: &Campaign, counted: &BTreeMap<&str, u64>, unplanned: u64) -> Result<(), String> {
    let (id, counts) = (&campaign.id, &campaign.counts);
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
            // A report has no unplanned rows.
            found += unplanned;
        }
        if found != count {
            return Err(format!("{id}: the count of {state} is {count}, the report has {found}"));
        }
    }
    Ok(())
}

/// How long after a change of the limit a request may go out by the previous limit, in milliseconds.
const GRACE: i64 = 22;

/// Compares the requests at the provider with the changing limit.
///
/// A bucket never has more tokens than its burst, and a change of the limit adds none.
pub(super) fn limit(world: &World, rates: &[(i64, Rate)]) -> Result<(), String> {
    let seen = world.seen();
    // The simulated clock is exact to a millisecond, whose tokens by the previous rate stay in the bucket.
    let inexact = rates.iter().map(|(_, rate)| rate.per_second()).fold(0.0, f64::max) / 500.0;
    let (mut rates, Some((mut last, first))) =
        (rates.iter().copied().skip(1).peekable(), rates.first().copied())
    else {
        return Ok(());
    };
    let (mut rate, mut before, mut changed) = (first, first, last);
    let burst = |rate: Rate| f64::from(rate.burst().get());
    // An unused bucket is full.
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
            // Requests that were admitted just before the change used the previous bucket.
            most = tokens.max(burst(next)) + GRACE as f64 / 1000.0 * next.per_second();
            (before, changed, rate) = (rate, when, next);
        }
        if *at >= changed + GRACE {
            most = burst(rate);
        }
        tokens = come_back(*at, rate, tokens, most) - *messages as f64;
        // Requests that were admitted shortly after the change used the previous rate: the bucket owes the difference.
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
