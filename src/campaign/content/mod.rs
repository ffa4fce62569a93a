//! `WhatsApp` content: which types there are, what each may hold, and how a person would see it.

mod documents;
mod preview;
mod warnings;

pub use documents::CONTENT;
pub use preview::preview;
pub use warnings::warnings;
