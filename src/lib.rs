//! flowcast.
pub mod audience;
pub mod campaign;
