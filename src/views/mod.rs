//! The documents and lines that the command line and the HTTP server show about campaigns. Reads ledgers; never changes anything and
//! never contacts a provider.

pub mod check;
pub mod codes;
pub mod funnel;
pub mod lines;
pub mod replies;
pub mod reply_counts;
pub mod report;
pub mod results;
mod sheet_numbers;
pub mod status;
mod values;
