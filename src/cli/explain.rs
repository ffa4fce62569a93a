//! `flowcast explain`: explains a code: its meaning, what flowcast does about it, and what the user can do.

use std::fmt::Write;

use clap::Args;

use super::{Failure, Outcome, line, print};
use crate::campaign::codes::{self, Advice, CODES, Code, Source};
use crate::views::codes::{CodeView, near};

/// Explain a code and what to do about it.
#[derive(Args)]
pub(super) struct Explain {
    /// Code from a status or report, e.g. 131026, `EX_NUMBER_ERROR`, 30005 or E110 [default: all]
    #[arg(help = "Code from a status or report, e.g. 131026, EX_NUMBER_ERROR, 30005 or E110 [default: all]")]
    code: Option<String>,
    /// Print all codes as a Markdown document
    #[arg(long, conflicts_with = "code")]
    markdown: bool,
}

pub(super) fn main(explain: &Explain, json: bool) -> Outcome {
    let found: Vec<&Code> = match &explain.code {
        Some(code) => codes::explain(code),
        None => CODES.iter().collect(),
    };
    if let (Some(code), true) = (&explain.code, found.is_empty()) {
        let near = Some(near(code)).filter(|near| !near.is_empty());
        let near = near.unwrap_or_else(|| "; flowcast explain lists all codes".into());
        let text = format!("unknown code {code:?}{near}");
        return Err(Failure::Usage(text));
    }
    let text = if json {
        line(&found.iter().map(|code| CodeView::from(*code)).collect::<Vec<_>>())?
    } else if explain.markdown {
        document()
    } else if explain.code.is_some() {
        found.iter().map(|code| in_full(code)).collect::<Vec<_>>().join("\n")
    } else {
        table()
    };
    print(&text)
}

fn in_full(code: &Code) -> String {
    let also = if code.also.is_empty() { String::new() } else { format!(" ({})", code.also) };
    let mut text = format!("{}{also}, {}\n  {}\n", code.code, code.source.as_str(), code.meaning);
    if code.advice != Advice::None {
        let _ = writeln!(text, "  action: {}\n  what to do: {}", code.advice.as_str(), code.remedy);
    }
    if acts(code) {
        let _ = writeln!(text, "  when a response has this code: flowcast {}", code.effect.as_str());
    }
    text
}

/// Returns whether flowcast acts on the code in a response. Exotel's own codes arrive later, in reports.
fn acts(code: &Code) -> bool {
    !matches!(code.source, Source::Exotel | Source::Flowcast) && code.advice != Advice::None
}

fn table() -> String {
    let width = CODES.iter().map(|code| code.code.len()).max().unwrap_or_default();
    let line = |code: &Code| format!("{:width$}  {:18} {}\n", code.code, code.advice.as_str(), code.meaning);
    CODES.iter().map(line).collect()
}

/// Returns the text of `docs/reference/codes.md`.
fn document() -> String {
    let mut text = String::from(
        "# Codes\n\n\
         Every code that a status or a report can show: its meaning, what to do, and what flowcast does when a provider's\n\
         response has the code. `flowcast explain CODE` prints the same. `flowcast explain --markdown` generates this page\n\
         from the table in `src/campaign/codes/table.rs`.\n",
    );
    let sources = [
        (Source::Meta, "WhatsApp's codes, in responses and delivery reports of every provider."),
        (
            Source::Exotel,
            "Codes in Exotel's delivery reports. The meanings of the numbers from 30004 on are from Exotel's documentation of messages; two other public tables differ. flowcast reads the name in a report, and the number only if the report has no name.",
        ),
        (Source::Kaleyra, "Codes in Kaleyra's responses."),
        (
            Source::Http,
            "The HTTP status of a response, or the code that Exotel's response has for one message. As the code for one message, every code except 429 and 5xx rejects that message.",
        ),
        (Source::Flowcast, "flowcast's own codes, and its reasons to skip a row."),
    ];
    for (source, about) in sources {
        let _ = write!(text, "\n## {}\n\n{about}\n\n", source.as_str());
        text += "| code | meaning | what to do | action of flowcast |\n|---|---|---|---|\n";
        for code in CODES.iter().filter(|code| code.source == source) {
            let also = if code.also.is_empty() { String::new() } else { format!("<br>{}", code.also) };
            let todo = match code.advice {
                Advice::None => String::new(),
                advice => format!("**{}**: {}", advice.as_str(), code.remedy),
            };
            let itself = if acts(code) { code.effect.as_str() } else { "" };
            let _ = writeln!(text, "| `{}`{also} | {} | {todo} | {itself} |", code.code, code.meaning);
        }
    }
    text
}
