//! The domain: jobs, content, batches, messages and their states.
//!
//! Pure code: no I/O, no async, no clock, and nothing of the crate outside this folder.

pub mod batch;
pub mod capability;
pub mod character_set;
pub mod codes;
pub mod columns;
pub mod content;
pub mod control;
pub mod delivery;
mod digest;
pub mod doubt;
pub mod event;
pub mod human_duration;
pub mod id;
pub mod job;
pub mod json;
pub mod notice;
pub mod phone;
mod phone_parser;
pub mod price;
pub mod problem;
pub mod reason;
pub mod rules;
pub mod schedule;
pub mod schema;
pub mod state;
pub mod template;
pub mod text;
pub mod time;

pub use batch::{BATCH_LIMIT, Batch, Field, NUMBER_MARK, Recipient, shown_and_number};
pub use capability::{Callbacks, Subject};
pub use character_set::CharacterSet;
pub use columns::Columns;
pub use doubt::{Doubt, DoubtCause};
pub use event::{Event, EventName, event_schema};
pub use human_duration::HumanDuration;
pub use id::{CampaignId, MessageRef};
pub use job::{Job, Rate};
pub use phone::Phone;
pub use phone_parser::{PhoneError, PhoneParser};
pub use price::{Price, PriceList};
pub use problem::Problem;
pub use reason::Reason;
pub use schedule::{Opening, Schedule};
pub use state::{CampaignState, MessageState, SkipReason};
pub use template::{Envelope, Skip, Template};
pub use text::{counted, thousands, visible, visible_lines};
