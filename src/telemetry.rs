//! Logs: to stderr, as text on a terminal and as JSON elsewhere. `FLOWCAST_LOG` sets the level.

use std::io::{self, IsTerminal, Write};

use tracing_subscriber::EnvFilter;

use crate::campaign::visible;

/// Starts logging.
pub fn start() {
    let filter = EnvFilter::try_from_env("FLOWCAST_LOG").unwrap_or_else(|_| EnvFilter::new("flowcast=info"));
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
