//! What people and systems are shown of campaigns: the same documents and lines, whether the command line or
//! the HTTP side shows them. Reads ledgers; changes nothing and asks nobody.

pub mod answers;
pub mod check;
pub mod codes;
pub mod lines;
pub mod report;
pub mod responses;
pub mod results;
mod sheet_numbers;
pub mod status;
mod values;
