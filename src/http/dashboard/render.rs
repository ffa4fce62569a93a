//! Renders pages from the templates, which are compiled in. Templates escape every value; only HTML that was rendered here is
//! inserted unescaped.

use std::sync::LazyLock;

use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Response};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use minijinja::{Environment, HtmlEscape, Value, context};

use super::super::access::Caller;
use super::super::problem::Problem;
use super::assets;
use super::captions::{self, about};
use crate::campaign::problem::location;
use crate::campaign::thousands;

/// Lists templates by name with their source.
macro_rules! templates {
    ($($name:literal),+ $(,)?) => {
        [$(($name, include_str!(concat!("templates/", $name)))),+]
    };
}

const TEMPLATES: [(&str, &str); 29] = templates![
    "layout.html",
    "macros.html",
    "error.html",
    "sign_in.html",
    "campaigns.html",
    "campaign_row.html",
    "new_campaigns.html",
    "drafts.html",
    "campaign.html",
    "campaign_head.html",
    "campaign_plot.html",
    "campaign_funnel.html",
    "campaign_failures.html",
    "campaign_doubts.html",
    "campaign_log.html",
    "campaign_answers.html",
    "confirm.html",
    "new.html",
    "new_audience.html",
    "new_message.html",
    "new_when.html",
    "new_check.html",
    "new_send.html",
    "phone.html",
    "phones.html",
    "lists.html",
    "audiences.html",
    "refused.html",
    "codes.html",
];

static ENVIRONMENT: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(minijinja::UndefinedBehavior::SemiStrict);
    environment.add_filter("number", |number: u64| thousands(number));
    environment.add_filter("percent", captions::percent);
    environment.add_filter("about", |seconds: u64| about(seconds));
    environment.add_filter("bytes", captions::bytes);
    environment.add_filter("capitalized", captions::capitalized);
    environment.add_filter("place", |pointer: &str| location(pointer));
    environment.add_filter("time", |at: &str| Value::from_safe_string(time(at)));
    environment.add_filter("with_times", |text: &str| Value::from_safe_string(with_times(text)));
    environment.add_function("asset", |name: &str| assets::address(name));
    for (name, source) in TEMPLATES {
        // A test loads every template.
        if let Err(error) = environment.add_template(name, source) {
            tracing::error!(template = name, error = format!("{error:#}"), "template not loaded");
        }
    }
    environment
});

/// Renders a time in UTC. The page's script changes it to the reader's zone.
fn time(at: &str) -> String {
    let Ok(at) = at.parse::<Timestamp>() else { return String::new() };
    let plain = at.strftime("%-d %B %Y, %H:%M UTC");
    format!("<time datetime=\"{at:.0}\">{plain}</time>")
}

/// Renders a time in a campaign's zone.
///
/// The page's script adds the reader's time if it differs.
pub(super) fn clock(at: Timestamp, zone: &TimeZone) -> Value {
    let shown = at.to_zoned(zone.clone());
    let year = if shown.year() == Timestamp::now().to_zoned(zone.clone()).year() { "" } else { " %Y" };
    let text = shown.strftime(&format!("%A %-d %B{year}, %H:%M %Z")).to_string();
    let name = zone.iana_name().unwrap_or("UTC");
    let (name, text) = (HtmlEscape(name), HtmlEscape(&text));
    Value::from_safe_string(format!("<time datetime=\"{at:.0}\" data-zone=\"{name}\">{text}</time>"))
}

/// Renders a text with its times, so that the script can change their zone.
fn with_times(text: &str) -> String {
    let mut html = String::new();
    for (nth, word) in text.split(' ').enumerate() {
        if nth > 0 {
            html.push(' ');
        }
        let bare = word.trim_end_matches(['.', ',', ';', ':']);
        match time(bare) {
            shown if shown.is_empty() => html += &HtmlEscape(word).to_string(),
            shown => html += &format!("{shown}{}", HtmlEscape(&word[bare.len()..])),
        }
    }
    html
}

/// How a browser views a page.
#[derive(Clone, Debug, Default)]
pub(super) struct Viewer {
    /// `light`, `dark`, or empty for the system's theme.
    pub(super) theme: &'static str,
    /// Whether the person has a session to sign out of.
    pub(super) is_signed_in: bool,
    /// Path and query of the page.
    pub(super) address: String,
    /// Whether there is a job queue, and with it a page of refused jobs.
    pub(super) has_queue: bool,
}

/// Converts a document to a template's value.
pub(super) fn serialized(document: impl serde::Serialize) -> Value {
    Value::from(minijinja::value::Serde(document))
}

/// Renders a template without the frame of a page.
pub(super) fn part(template: &str, context: Value) -> String {
    let rendered = ENVIRONMENT.get_template(template).and_then(|template| template.render(context));
    rendered.unwrap_or_else(|error| {
        tracing::error!(template, error = %error, "template not rendered");
        "This part of the page could not be made; the worker's log says why.".into()
    })
}

/// Renders a whole page.
pub(super) fn page_of(
    look: &Viewer,
    who: Option<&Caller>,
    template: &str,
    title: &str,
    own: Value,
) -> Html<String> {
    let frame = context! {
        title,
        theme => look.theme,
        is_signed_in => look.is_signed_in,
        has_queue => look.has_queue,
        page => context! {
            address => look.address.clone(),
            path => look.address.split('?').next().unwrap_or_default(),
        },
        who => who.map(|who| who.name.to_string()),
        may_act => who.is_some_and(Caller::may_act),
    };
    Html(part(template, context! { ..own, ..frame }))
}

/// Returns a page with status 422, for refused input.
pub(super) fn unprocessable(page: Html<String>) -> Response {
    (StatusCode::UNPROCESSABLE_ENTITY, page).into_response()
}

/// Renders a problem as a page.
pub(super) fn error_page(problem: &Problem, look: &Viewer) -> Response {
    let status = problem.status();
    let title = match status {
        StatusCode::NOT_FOUND => "Page not found",
        StatusCode::FORBIDDEN => "You can’t do this",
        StatusCode::CONFLICT => "This isn’t possible right now",
        StatusCode::SERVICE_UNAVAILABLE => "Temporarily unavailable",
        StatusCode::PAYLOAD_TOO_LARGE => "Too large",
        _ => "That didn’t work",
    };
    let own = context! {
        status => status.as_u16(),
        detail => captions::as_sentence(&problem.to_text()),
        is_away => status == StatusCode::SERVICE_UNAVAILABLE,
        is_error => true,
    };
    (status, page_of(look, None, "error.html", title, own)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_template_is_read_and_what_comes_from_outside_is_escaped() {
        assert_eq!(ENVIRONMENT.templates().count(), TEMPLATES.len());
        let problem = Problem::not_found("there is no campaign \"<script>alert(1)</script>\"");
        let look = Viewer { theme: "dark", address: "/\"><img>".into(), ..Viewer::default() };
        let own = context! { status => 404, detail => problem.to_text(), is_away => false, is_error => true };
        let Html(page) = page_of(&look, None, "error.html", "a < b", own);
        assert!(page.contains("&lt;script&gt;alert(1)") && page.contains("a &lt; b"), "{page}");
        assert!(!page.contains("<script>alert") && !page.contains("\"><img>"), "{page}");
    }

    #[test]
    fn a_time_is_readable_for_scripts_and_people() {
        let shown = time("2026-11-01T09:05:00.123Z");
        assert_eq!(shown, "<time datetime=\"2026-11-01T09:05:00Z\">1 November 2026, 09:05 UTC</time>");
        assert_eq!(time("<b>"), "");
        let text = with_times("opens <at> 2026-11-01T09:05:00Z. Then");
        assert!(
            text.starts_with("opens &lt;at&gt; <time datetime=\"2026") && text.ends_with("UTC</time>. Then"),
            "{text}"
        );
    }
}
