//! `WhatsApp` content: which types there are, what each may hold, and how a person would see it.

mod documents;
mod preview;

pub use documents::CONTENT;
pub use preview::preview;
