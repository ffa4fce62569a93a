//! A campaign's hash in Redis, read into a campaign and made from one. It sends no command.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;

use crate::campaign::{CampaignId, CampaignState, Reason};
use crate::ledger::deliveries::{self, TOOK, UNDELIVERED};
use crate::ledger::{Breaker, Campaign, Counts};

/// A campaign's hash.
pub(super) struct Fields(pub(super) HashMap<String, String>);

impl Fields {
    pub(super) fn text(&self, field: &str) -> Option<String> {
        self.0.get(field).filter(|text| !text.is_empty()).cloned()
    }

    pub(super) fn number(&self, field: &str) -> u64 {
        self.0.get(field).and_then(|text| text.parse().ok()).unwrap_or_default()
    }

    pub(super) fn time(&self, field: &str) -> Option<Timestamp> {
        Timestamp::from_millisecond(self.0.get(field)?.parse().ok()?).ok()
    }

    pub(super) fn state(&self, field: &str) -> Option<CampaignState> {
        self.0.get(field)?.parse().ok()
    }

    /// Returns the counters of a kind, by code.
    pub(super) fn tally(&self, of: &str) -> BTreeMap<String, u64> {
        let fields = self.0.iter().filter_map(|(field, count)| {
            let word = field.strip_prefix(of)?.strip_prefix(':')?;
            Some((word.to_owned(), count.parse().ok()?))
        });
        fields.filter(|(_, count)| *count > 0).collect()
    }
}

/// Returns a campaign from its hash, its texts and its rate.
pub(super) fn campaign_of(
    id: &CampaignId,
    fields: &Fields,
    texts: &HashMap<String, String>,
    rate: f64,
) -> Option<Campaign> {
    let state = fields.state("state")?;

    let rejected = fields.tally("rejected");
    let text = |code: &String| texts.get(&format!("rejected:{code}")).cloned().unwrap_or_default();
    Some(Campaign {
        id: id.clone(),
        name: fields.text("name"),
        account: fields.text("account").unwrap_or_default(),
        state,
        published: fields.state("published"),
        announced: fields.number("announced"),
        reason: Reason::read(fields.text("reason").as_deref(), fields.text("reason_data").as_deref()),
        suspended_by: fields
            .text("suspended_by")
            .and_then(|word| Breaker::read(&fields.text("account").unwrap_or_default(), &word)),
        forgiven: (fields.number("forgiven_rejected"), fields.number("forgiven_settled")),
        stop_asked_at: i64::try_from(fields.number("stop_asked_at")).unwrap_or_default(),
        planned: fields.number("planned") == 1,
        counts: Counts::from_states(|state| fields.number(state)),
        skipped: fields.tally("skipped"),
        texts: {
            let undelivered = fields.tally(UNDELIVERED);
            let why =
                |code: &String| texts.get(&format!("{UNDELIVERED}:{code}")).cloned().unwrap_or_default();
            let failed = undelivered.keys().map(|code| (code.clone(), why(code)));
            failed.chain(rejected.keys().map(|code| (code.clone(), text(code)))).collect()
        },
        rejected,
        rate,
        audience: fields.text("audience").unwrap_or_default(),
        rows: fields.number("rows"),
        batch_size: usize::try_from(fields.number("batch_size")).unwrap_or(1),
        doubt_below: u32::try_from(fields.number("doubt_below")).unwrap_or(u32::MAX),
        rehearsal: fields.number("rehearsal") == 1,
        created_by: fields.text("created_by"),
        delivery: deliveries::counts(|kind, word| fields.number(&format!("{kind}:{word}"))),
        undelivered: fields.tally(UNDELIVERED),
        took: deliveries::times(fields.tally(TOOK).iter().map(|(word, count)| (word.as_str(), *count))),
        submitted_at: fields.time("submitted_at").unwrap_or_default(),
        started_at: fields.time("started_at"),
        finished_at: fields.time("finished_at"),
    })
}

/// Returns the fields that change with a campaign's state.
pub(super) fn head(campaign: &Campaign) -> Vec<(&'static str, String)> {
    let time = |at: Option<Timestamp>| at.map(|at| at.as_millisecond().to_string()).unwrap_or_default();
    vec![
        ("state", campaign.state.as_str().into()),
        ("admits", campaign.admits().as_str().into()),
        ("reason", campaign.reason.as_ref().map(ToString::to_string).unwrap_or_default()),
        ("reason_data", campaign.reason.as_ref().and_then(Reason::data).unwrap_or_default()),
        ("suspended_by", campaign.suspended_by.as_ref().map(Breaker::code).unwrap_or_default()),
        ("forgiven_rejected", campaign.forgiven.0.to_string()),
        ("forgiven_settled", campaign.forgiven.1.to_string()),
        ("doubt_below", campaign.doubt_below.to_string()),
        ("stop_asked_at", campaign.stop_asked_at.to_string()),
        ("started_at", time(campaign.started_at)),
        ("finished_at", time(campaign.finished_at)),
    ]
}
