//! Logging to stderr: text on a terminal, JSON otherwise. `FLOWCAST_LOG` sets the levels.

use std::io::{self, IsTerminal, Write};

use tracing_subscriber::{EnvFilter, filter::LevelFilter};

use crate::campaign::visible;

/// Environment variable with the levels.
const VARIABLE: &str = "FLOWCAST_LOG";
/// Default levels.
const USUAL: &str = "flowcast=info";

/// Starts logging, with levels from the command line or from `FLOWCAST_LOG`.
pub fn start(levels: Option<&str>) {
    let asked = levels.map_or_else(|| std::env::var(VARIABLE).unwrap_or_default(), str::to_owned);
    let is_senseless = !asked.is_empty() && !is_filter(&asked);
    let wanted = if asked.is_empty() || is_senseless { USUAL } else { &asked };
    let filter = EnvFilter::try_new(wanted).unwrap_or_else(|_| EnvFilter::new(USUAL));
    // lapin logs complete returned messages, which contain phone numbers.
    let filter =
        "lapin::returned_messages=off".parse().map(|off| filter.clone().add_directive(off)).unwrap_or(filter);
    // A log that cannot be written, e.g. to a closed terminal, must not stop a campaign.
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| Visible)
        // Colours are control characters, which are escaped.
        .with_ansi(false)
        .log_internal_errors(false);
    // Starting again, e.g. in a test, has no effect.
    let _ = if std::io::stderr().is_terminal() {
        logs.with_target(false).try_init()
    } else {
        logs.json().flatten_event(true).try_init()
    };
    if is_senseless {
        tracing::warn!(
            "invalid {VARIABLE} {asked:?}, using {USUAL}: set a level (error, warn, info, debug, trace, off), or levels of \
             modules, e.g. flowcast=debug,lapin=warn"
        );
    }
}

/// Whether a text is a list of levels.
///
/// A single unknown word would count as a module, and silence all others.
fn is_filter(text: &str) -> bool {
    let is_level = |part: &str| part.parse::<LevelFilter>().is_ok();
    let is_directive = |part: &str| is_level(part) || part.contains('=') && EnvFilter::try_new(part).is_ok();
    text.split(',').map(str::trim).all(is_directive)
}

/// Writer that escapes control characters, so that each event stays on its own line.
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
    fn levels_are_recognised_and_other_words_are_not() {
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
