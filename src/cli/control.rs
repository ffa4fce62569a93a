//! `flowcast pause`, `resume`, `cancel`, `retry` and `resolve`: an operator's actions on a campaign. They are written to
//! the ledger, where every worker sees them.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::{Outcome, open, operator, print, write_line};
use crate::campaign::control::{Action, Control};
use crate::campaign::{CampaignState, HumanDuration, counted};
use crate::config::Config;
use crate::dispatch::control;
use crate::ledger::Access;

/// The campaign that an action is for.
#[derive(Args)]
pub(super) struct CampaignArgs {
    /// Campaign id
    id: String,
    #[command(flatten)]
    store: open::StoreArgs,
}

/// Send the rejected messages of a campaign again.
#[derive(Args)]
pub(super) struct Retry {
    #[command(flatten)]
    which: CampaignArgs,
    /// Only messages rejected with this code; repeatable. 132069 also includes accepted messages that were not delivered
    #[arg(long = "code", value_name = "C")]
    codes: Vec<String>,
}

/// Resolve the messages in doubt of a campaign: resend or abandon them.
#[derive(Args)]
pub(super) struct Resolve {
    #[command(flatten)]
    which: CampaignArgs,
    #[command(flatten)]
    how: Age,
    /// Only messages in doubt for at least this long, e.g. 30min or 2h
    #[arg(long, value_name = "TIME")]
    older_than: Option<HumanDuration>,
}

/// The decision: exactly one of the two.
#[derive(Args)]
#[group(required = true, multiple = false)]
struct Age {
    /// Send them again; some recipients may get the message twice
    #[arg(long)]
    resend: bool,
    /// Abandon them: they are not sent again, and count as rejected with the code abandoned
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
    // An unknown id is reported with the nearest known one.
    let id = open::campaign(&ledger, &which.id).await?.id;
    let asked = Control { id: id.clone(), action: action.clone(), by: Some(operator()), asked_at: None };
    let done = control(&ledger, &asked).await?;
    if json {
        return print(&format!("{}\n", json!({ "id": id, "state": done.state, "messages": done.messages })));
    }
    let messages = counted(done.messages, "message");
    let what = match action {
        Action::Pause | Action::Resume => String::new(),
        Action::Cancel if done.messages == 0 => String::new(),
        Action::Cancel => format!(", {messages} will not be sent"),
        Action::Retry { .. } | Action::Resolve { resend: true, .. } => {
            format!(", {messages} will be sent again")
        }
        Action::Resolve { resend: false, .. } => format!(", {messages} abandoned"),
    };
    print(&format!("campaign {id}: {}{what}\n", done.state))?;
    if done.messages > 0 && waits_for_resume(&action, done.state) {
        write_line(&format!(
            "the campaign is not running; to send these messages: flowcast resume {id}{}",
            which.store.flag()
        ));
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns whether messages that an action made pending are sent only after a resume.
fn waits_for_resume(action: &Action, state: CampaignState) -> bool {
    let sends = matches!(action, Action::Retry { .. } | Action::Resolve { resend: true, .. });
    sends && state != CampaignState::Running && !state.is_over()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_messages_that_will_be_sent_wait_for_a_resume() {
        let resolve = |resend| Action::Resolve { resend, older_than: None };
        for state in [CampaignState::Paused, CampaignState::Held] {
            assert!(waits_for_resume(&resolve(true), state), "{state:?}");
            assert!(!waits_for_resume(&resolve(false), state), "{state:?}");
        }
        assert!(!waits_for_resume(&resolve(true), CampaignState::Running));
    }
}
