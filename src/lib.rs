//! flowcast.
pub mod audience;
pub mod campaign;
pub mod limiter;
pub mod provider;
