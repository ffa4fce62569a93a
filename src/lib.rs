//! flowcast.
pub mod campaign;
