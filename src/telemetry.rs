//! Logs: to stderr, as text on a terminal and as JSON elsewhere. `FLOWCAST_LOG` sets the level.

use std::io::{self, IsTerminal, Write};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::campaign::visible;

/// The variable that sets the level.
const VARIABLE: &str = "FLOWCAST_LOG";
/// What is logged unless it says otherwise.
const USUAL: &str = "flowcast=info";

/// Starts logging, with these levels where somebody asked for some on the command line; else as `FLOWCAST_LOG` says.
pub fn start(levels: Option<&str>) {
    let asked = levels.map_or_else(|| std::env::var(VARIABLE).unwrap_or_default(), str::to_owned);
    let is_senseless = !asked.is_empty() && !is_filter(&asked);
    let wanted = if asked.is_empty() || is_senseless { USUAL } else { &asked };
    let filter = EnvFilter::try_new(wanted).unwrap_or_else(|_| EnvFilter::new(USUAL));
    // lapin prints whole messages that are returned to it, and those hold numbers of people.
    let filter =
        "lapin::returned_messages=off".parse().map(|off| filter.clone().add_directive(off)).unwrap_or(filter);
    // A log that can't be written, as on a terminal that is gone, must not stop a campaign.
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| Visible)
        // Colours are control characters, and none of those is let through.
        .with_ansi(false)
        .log_internal_errors(false);
    // A second start, as in a test, changes nothing.
    let _ = if std::io::stderr().is_terminal() {
        logs.with_target(false).try_init()
    } else {
        logs.json().flatten_event(true).try_init()
    };
    if is_senseless {
        tracing::warn!(
            "{VARIABLE} is {asked:?}, and {USUAL} is used: it names a level (error, warn, info, debug, trace, off), or levels of \
             modules, as flowcast=debug,lapin=warn"
        );
    }
}

/// Whether a text names levels. A lone word that is none would be taken for a module, and everything else would be silent.
fn is_filter(text: &str) -> bool {
    let is_level = |part: &str| part.parse::<LevelFilter>().is_ok();
    let is_directive = |part: &str| is_level(part) || part.contains('=') && EnvFilter::try_new(part).is_ok();
    text.split(',').map(str::trim).all(is_directive)
}

/// Writes events to stderr, each on a line of its own whatever came from outside is in it.
struct Visible;

impl Write for Visible {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let line = text.strip_suffix('\n').unwrap_or(&text);
        writeln!(io::stderr().lock(), "{}", visible(line))?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_told_from_words_that_are_none() {
        for level in
            ["info", "DEBUG", "off", "flowcast=debug", "flowcast=debug,lapin=warn", "warn, flowcast=trace"]
        {
            assert!(is_filter(level), "{level}");
        }
        for other in ["banana", "verbose", "1x", "flowcast=banana", "info,banana", "flowcast"] {
            assert!(!is_filter(other), "{other}");
        }
    }
}
