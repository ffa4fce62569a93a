//! How a ledger fails.

use crate::campaign::{CampaignId, CampaignState};

/// A ledger's own failure.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LedgerError {
    /// The store can't be read or written. Sending stops.
    #[error("the store {0}")]
    Storage(String),
    /// Redis can't be reached or does not take writes. Sending stops until it does.
    #[error("Redis {0}")]
    Away(String),
    /// There is no store to look into.
    #[error(
        "no such store: {0}; nothing was sent from here yet (--store FILE, or store.path in the configuration)"
    )]
    NoStore(String),
    /// Another process sends from this store.
    #[error("{0}")]
    InUse(String),
    /// There is no such campaign.
    #[error("there is no campaign {0}")]
    NoCampaign(CampaignId),
    /// The same id stands for another job.
    #[error(
        "campaign {0} is known with other content; a job that has changed is another campaign: give it another id"
    )]
    OtherContent(CampaignId),
    /// A rehearsal would overwrite what was really sent.
    #[error("campaign {0} has really been sent; rehearse it under another id, or with --store FILE")]
    NotARehearsal(CampaignId),
    /// The campaign is in a store of this machine, and not in the fleet's ledger.
    #[error(
        "campaign {id} is in the store {store} of this machine, and may have been sent from there: move it to the fleet with \
         `flowcast migrate --store {store}`, let it end with `flowcast worker --embedded --store {store}`, or give the job another id"
    )]
    InStore {
        /// The campaign.
        id: CampaignId,
        /// The store's path.
        store: String,
    },
    /// A campaign can't be moved from a store: the fleet has others of the same ids.
    #[error(
        "the fleet has campaigns with the same ids that did not come from this store: {0}; nothing was moved. Leave them in the store \
         with --except ID, or cancel the fleet's and wait until it is forgotten"
    )]
    InFleet(String),
    /// A move that no campaign makes.
    #[error("campaign {id} is {from} and can't become {to}")]
    IllegalMove {
        /// The campaign.
        id: CampaignId,
        /// Its state.
        from: CampaignState,
        /// The state asked for.
        to: CampaignState,
    },
    /// A batch was planned with other recipients before.
    #[error("batch {1} of campaign {0} was planned with other recipients before")]
    OtherPlan(CampaignId, u32),
    /// A list does not go on there.
    #[error("the cursor is none that a page of this list gave")]
    NoPlace,
    /// Another planner has gone on with the plan meanwhile, or the campaign is over.
    #[error("campaign {0} is planned by another worker by now, or is over")]
    StalePlan(CampaignId),
}
