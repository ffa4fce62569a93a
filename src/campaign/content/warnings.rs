//! Warnings about valid content that is unlikely to be shown as intended. They do not refuse a job.

use serde_json::Value;

use super::super::problem::Problem;
use super::super::rules::{is_template, plain_markdown};

/// Returns the warnings about a message, each with its pointer below `/message`.
pub fn warnings(message: &Value) -> Vec<Problem> {
    let mut found = Vec::new();
    let text = |pointer: &str| message.pointer(pointer).and_then(Value::as_str);
    let mut warn = |pointer: &str, why: &str| found.push(Problem::new(format!("/message{pointer}"), why));
    if message.pointer("/text/preview_url") == Some(&Value::Bool(true))
        && text("/text/body").is_some_and(|body| !is_template(body) && !has_previewed_link(body))
    {
        warn(
            "/text/preview_url",
            "shows no preview: the body needs an http:// or https:// address with a host name instead of an IP address \
             (Exotel's documentation)",
        );
    }
    if let Some(link) = text("/sticker/link")
        && !is_template(link)
        && !path(link).to_lowercase().ends_with(".webp")
    {
        warn(
            "/sticker/link",
            "does not end in .webp: a sticker is an image/webp of 512 x 512 pixels and at most 100 KB, an animated one at \
             most 500 KB (Exotel's documentation)",
        );
    }
    if let Some(name) = text("/document/filename")
        && !is_template(name)
        && !name.contains('.')
    {
        warn(
            "/document/filename",
            "has no extension, which decides how WhatsApp shows the document (Exotel's documentation)",
        );
    }
    if text("/location/address").is_some() && text("/location/name").is_none() {
        warn("/location/address", "is shown only with a name (Exotel's documentation)");
    }
    let markdown = "is shown with its formatting signs: formatting works only in a body and a footer (Exotel's documentation)";
    for (pointer, text) in plain_places(message) {
        if !is_template(text) && plain_markdown(text) {
            warn(&pointer, markdown);
        }
    }
    found
}

/// Returns the texts that are shown without formatting: a header, a list's button, a reply's title.
fn plain_places(message: &Value) -> Vec<(String, &str)> {
    let replies = (0..3).map(|nth| format!("/interactive/action/buttons/{nth}/reply/title"));
    let places = ["/interactive/header/text", "/interactive/action/button"].map(str::to_owned).into_iter();
    let text = |pointer: String| {
        let text = message.pointer(&pointer)?.as_str()?;
        Some((pointer, text))
    };
    places.chain(replies).filter_map(text).collect()
}

/// Documents 000 and 001: "You must include a hostname since IP addresses will not be matched."
fn has_previewed_link(body: &str) -> bool {
    let host_is_named = |word: &str| {
        let begins = word.find("http://").or_else(|| word.find("https://"));
        let url = begins.and_then(|at| url::Url::parse(&word[at..]).ok());
        url.is_some_and(|url| matches!(url.host(), Some(url::Host::Domain(_))))
    };
    body.split_whitespace().any(host_is_named)
}

/// Returns the path of a URL, without query and fragment.
fn path(link: &str) -> String {
    url::Url::parse(link).map(|url| url.path().to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn places(message: &Value) -> Vec<String> {
        warnings(message).into_iter().map(|problem| problem.pointer).collect()
    }

    #[test]
    fn a_preview_needs_an_address_with_a_host_name() {
        let text = |body: &str| json!({ "type": "text", "text": { "body": body, "preview_url": true } });
        for fine in
            ["see https://example.com/a", "http://example.com.", "{{ link }}", "(https://example.com)"]
        {
            assert!(places(&text(fine)).is_empty(), "{fine}");
        }
        for none in
            ["see example.com", "http://192.0.2.7/x", "https://[2001:db8::1]/", "ftp://example.com", ""]
        {
            assert_eq!(places(&text(none)), ["/message/text/preview_url"], "{none}");
        }
        assert!(places(&json!({ "text": { "body": "none", "preview_url": false } })).is_empty());
    }

    #[test]
    fn content_that_may_not_be_shown_as_intended_gives_a_warning() {
        let sticker = |link: &str| json!({ "type": "sticker", "sticker": { "link": link } });
        assert_eq!(places(&sticker("https://example.com/a.png")), ["/message/sticker/link"]);
        assert!(places(&sticker("https://example.com/a.WEBP?x=1")).is_empty());
        let location = |name: Option<&str>| json!({ "location": { "address": "1 Main St", "name": name } });
        assert_eq!(places(&location(None)), ["/message/location/address"]);
        assert!(places(&location(Some("Shop"))).is_empty());
        let document =
            |name: &str| json!({ "document": { "link": "https://example.com/a", "filename": name } });
        assert_eq!(places(&document("invoice")), ["/message/document/filename"]);
        assert!(places(&document("invoice.pdf")).is_empty());
    }

    #[test]
    fn formatting_signs_outside_a_body_give_a_warning() {
        let list =
            |button: &str| json!({ "interactive": { "type": "list", "action": { "button": button } } });
        assert_eq!(places(&list("*Choose*")), ["/message/interactive/action/button"]);
        assert!(places(&list("Choose 2*3 or 4")).is_empty());
        let reply = json!({ "interactive": { "header": { "type": "text", "text": "~old~ new" },
            "action": { "buttons": [{ "reply": { "title": "Yes" } }, { "reply": { "title": "_No_" } }] } } });
        let both = ["/message/interactive/header/text", "/message/interactive/action/buttons/1/reply/title"];
        assert_eq!(places(&reply), both);
    }
}
