//! `flowcast pause`, `resume`, `cancel`, `retry` and `resolve`: what a person does to a campaign. It is
//! written to the ledger, and every worker sees it there.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::{Outcome, open, operator, print, write_line};
use crate::campaign::Span;
use crate::campaign::control::{Action, Control};
use crate::campaign::counted;
use crate::config::Config;
use crate::dispatch::control;
use crate::ledger::Access;

/// A campaign.
#[derive(Args)]
pub(super) struct CampaignArgs {
    /// The campaign's id
    id: String,
    #[command(flatten)]
    store: open::Store,
}

/// Send the rejected messages again.
#[derive(Args)]
pub(super) struct Retry {
    #[command(flatten)]
    which: CampaignArgs,
    /// Only those that were rejected with this code (132069: also those that a report failed with it); may be given
    /// more than once
    #[arg(long = "code", value_name = "C")]
    codes: Vec<String>,
}

/// Decide what becomes of the messages in doubt.
#[derive(Args)]
pub(super) struct Resolve {
    #[command(flatten)]
    which: CampaignArgs,
    #[command(flatten)]
    how: Age,
    /// Only those that have been in doubt for so long, as 30min or 2h
    #[arg(long, value_name = "TIME")]
    older_than: Option<Span>,
}

/// One of the two.
#[derive(Args)]
#[group(required = true, multiple = false)]
struct Age {
    /// Send them again: whoever got one may get a second
    #[arg(long)]
    resend: bool,
    /// Give them up: they count as rejected, with the code `abandoned`
    #[arg(long)]
    abandon: bool,
}

impl Retry {
    pub(super) fn parts(self) -> (CampaignArgs, Action) {
        (self.which, Action::Retry { codes: self.codes })
    }
}

impl Resolve {
    pub(super) fn parts(self) -> (CampaignArgs, Action) {
        (self.which, Action::Resolve { resend: self.how.resend, older_than: self.older_than })
    }
}

pub(super) async fn main((which, action): (CampaignArgs, Action), config: &Config, json: bool) -> Outcome {
    let ledger = which.store.open(config, Access::Change).await?;
    // A name that is not known is told with the nearest that is.
    let id = open::campaign(&ledger, &which.id).await?.id;
    let asked = Control { id: id.clone(), action: action.clone(), by: Some(operator()), asked_at: None };
    let done = control(&ledger, &asked).await?;
    if json {
        print(&format!("{}\n", json!({ "id": id, "state": done.state, "messages": done.messages })))?;
        return Ok(ExitCode::SUCCESS);
    }
    let messages = counted(done.messages, "message");
    let what = match action {
        Action::Pause | Action::Resume => String::new(),
        Action::Cancel => format!(", {messages} will not be sent"),
        Action::Retry { .. } | Action::Resolve { resend: true, .. } => {
            format!(", {messages} sent again")
        }
        Action::Resolve { resend: false, .. } => format!(", {messages} given up"),
    };
    print(&format!("campaign {id}: {}{what}\n", done.state))?;
    if !done.state.is_over() && done.messages > 0 && done.state != crate::campaign::CampaignState::Running {
        write_line(&format!("it does not run; to send: flowcast resume {id}{}", which.store.flag()));
    }
    Ok(ExitCode::SUCCESS)
}
