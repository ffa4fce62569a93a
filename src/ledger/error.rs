//! Errors of a ledger, one variant for each that a caller decides on.

use crate::campaign::{CampaignId, CampaignState};

/// An error of a ledger.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LedgerError {
    /// The ledger (a store or Redis) cannot be read or written. Sending stops.
    #[error("the ledger {0}")]
    Storage(String),
    /// Redis is unreachable or rejects writes. Sending stops until it accepts them.
    #[error("Redis {0}")]
    Away(String),
    /// The store does not exist.
    #[error(
        "no such store: {0}; either no campaign was started in this folder yet, or --store or store.path is wrong"
    )]
    NoStore(String),
    /// Another process sends from this store.
    #[error("{0}")]
    InUse(String),
    /// The campaign does not exist.
    #[error("there is no campaign {0}")]
    NoCampaign(CampaignId),
    /// The id exists with a different job.
    #[error("campaign {0} already exists with different content; give the changed job a new id")]
    OtherContent(CampaignId),
    /// A rehearsal has the id of a real campaign.
    #[error("cannot rehearse campaign {0}: it exists as a real campaign; use another id, or --store FILE")]
    NotARehearsal(CampaignId),
    /// The campaign is in a store of this machine, not in the fleet's ledger.
    #[error(
        "campaign {id} is in the store {store} of this machine, and may have been sent from there; move the store to the fleet with \
         `flowcast migrate --store {store}`, finish it with `flowcast worker --embedded --store {store}`, or give the job another id"
    )]
    InStore {
        /// The campaign.
        id: CampaignId,
        /// The store's path.
        store: String,
    },
    /// Campaigns cannot be moved from a store: the fleet has other campaigns with the same ids.
    #[error(
        "cannot move the store: the fleet has other campaigns with these ids: {0}; leave them in the store with --except ID, or \
         cancel the fleet's campaign and wait until it is removed"
    )]
    InFleet(String),
    /// The campaign cannot send again.
    #[error(
        "campaign {id} is {state} and sends nothing more; to reach more recipients, submit them with a new id"
    )]
    Ended {
        /// The campaign.
        id: CampaignId,
        /// Its state.
        state: CampaignState,
    },
    /// An illegal transition.
    #[error("campaign {id} is {from} and cannot become {to}")]
    IllegalMove {
        /// The campaign.
        id: CampaignId,
        /// Its state.
        from: CampaignState,
        /// The requested state.
        to: CampaignState,
    },
    /// The batch is stored with different recipients.
    #[error("batch {1} of campaign {0} exists with different recipients")]
    OtherPlan(CampaignId, u32),
    /// An invalid cursor.
    #[error("invalid cursor")]
    NoPlace,
    /// Another worker continued the plan, or the campaign has ended.
    #[error("campaign {0} was taken over by another worker, or has ended")]
    StalePlan(CampaignId),
}
