//! `WhatsApp` content: its types, their rules, warnings and a preview.

mod documents;
mod preview;
mod warnings;

pub use documents::CONTENT;
pub use preview::preview;
pub use warnings::warnings;
