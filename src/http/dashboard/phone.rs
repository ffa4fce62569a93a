//! A message as a phone shows it: header, body with bold and italic words, footer, buttons. All of its text is escaped.

use minijinja::{HtmlEscape, Value as Shown, context};
use serde_json::Value;

use super::render::part;

/// Number of characters after which a phone folds a text.
const FOLD_CHARS: usize = 700;
/// The formatting marks of a chat, and their HTML elements.
const MARKS: [(char, &str); 3] = [('*', "strong"), ('_', "em"), ('~', "s")];

/// Renders a phone with a message.
pub(super) fn phone(content: &Value) -> String {
    part("phone.html", bubble(content))
}

fn text<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn bubble(content: &Value) -> Shown {
    let kind = text(content, "/type");
    let object = &content[kind];
    match kind {
        "text" => context! { body => chat(text(object, "/body")) },
        "interactive" => interactive(object),
        "template" => template(object),
        "location" => context! {
            media => "location", body => chat(text(object, "/name")), footer => text(object, "/address"),
        },
        "contacts" => context! { media => "contact", body => chat(text(object, "/0/name/formatted_name")) },
        "" => context! {},
        _ => context! {
            media => kind, link => text(object, "/link"), body => chat(text(object, "/caption")),
            footer => text(object, "/filename"),
        },
    }
}

fn interactive(object: &Value) -> Shown {
    let header = match text(object, "/header/type") {
        "" => context! {},
        "text" => context! { header => text(object, "/header/text") },
        kind => context! { media => kind, link => text(&object["header"][kind], "/link") },
    };
    let action = &object["action"];
    let rows = action["sections"].as_array().into_iter().flatten().flat_map(|section| {
        let title = section["title"].as_str().map(|title| context! { section => title });
        let rows = section["rows"].as_array().into_iter().flatten();
        let rows =
            rows.map(|row| context! { title => text(row, "/title"), about => text(row, "/description") });
        title.into_iter().chain(rows.collect::<Vec<_>>())
    });
    let buttons: Vec<String> = match text(object, "/type") {
        "flow" => vec![text(action, "/parameters/flow_cta").to_owned()],
        "list" => vec![text(action, "/button").to_owned()],
        _ => action["buttons"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|button| text(button, "/reply/title").to_owned())
            .collect(),
    };
    context! {
        body => chat(text(object, "/body/text")),
        footer => text(object, "/footer/text"),
        buttons,
        list => rows.collect::<Vec<_>>(),
        ..header
    }
}

/// Returns a template's name and variables. Its text is only known to the provider.
fn template(object: &Value) -> Shown {
    let mut values = Vec::new();
    let mut buttons = Vec::new();
    for component in object["components"].as_array().into_iter().flatten() {
        if component["type"] == "button" {
            buttons.push(format!("{} button", text(component, "/sub_type").replace('_', " ")));
            continue;
        }
        for (nth, parameter) in component["parameters"].as_array().into_iter().flatten().enumerate() {
            let value = &parameter[text(parameter, "/type")];
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            values.push(context! { place => format!("{} {}", text(component, "/type"), nth + 1), value });
        }
    }
    context! { template => text(object, "/name"), language => text(object, "/language/code"), values, buttons }
}

/// Renders a text with its formatting marks, folded where a phone folds it.
fn chat(body: &str) -> Shown {
    let is_long = body.chars().count() > FOLD_CHARS;
    let shown: String = body.chars().take(FOLD_CHARS).collect();
    let mut html = String::new();
    for (nth, line) in shown.split('\n').enumerate() {
        if nth > 0 {
            html += "<br>";
        }
        marked(line, &mut html);
    }
    if is_long {
        html += "… <span class=\"fold\">Read more</span>";
    }
    Shown::from_safe_string(html)
}

/// Renders a line.
///
/// A pair of marks counts if a word begins after the first and ends before the second.
fn marked(line: &str, html: &mut String) {
    let found = line.char_indices().find_map(|(at, c)| {
        let (_, tag) = MARKS.iter().find(|(mark, _)| *mark == c)?;
        let inner = &line[at + 1..];
        let end = inner.match_indices(c).map(|(end, _)| end).find(|end| {
            let word = &inner[..*end];
            !word.is_empty() && !word.starts_with(' ') && !word.ends_with(' ')
        })?;
        let before = line[..at].chars().next_back();
        before.is_none_or(|c| !c.is_alphanumeric()).then_some((at, *tag, at + 1, at + 1 + end))
    });
    let Some((at, tag, from, to)) = found else {
        *html += &HtmlEscape(line).to_string();
        return;
    };
    *html += &HtmlEscape(&line[..at]).to_string();
    *html += &format!("<{tag}>");
    marked(&line[from..to], html);
    *html += &format!("</{tag}>");
    marked(&line[to + 1..], html);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn line(text: &str) -> String {
        let mut html = String::new();
        marked(text, &mut html);
        html
    }

    #[test]
    fn formatting_marks_are_rendered_as_on_a_phone() {
        assert_eq!(line("a *bold _and_* word"), "a <strong>bold <em>and</em></strong> word");
        assert_eq!(line("2*3*4 and snake_case_name"), "2*3*4 and snake_case_name");
        assert_eq!(line("* not bold * ~gone~"), "* not bold * <s>gone</s>");
        assert_eq!(line("*<b>*"), "<strong>&lt;b&gt;</strong>");
        assert_eq!(line("*"), "*");
    }

    #[test]
    fn a_flow_message_shows_header_body_footer_and_button() {
        let content = json!({ "type": "interactive", "interactive": { "type": "flow",
            "header": { "type": "text", "text": "Book <now>" }, "body": { "text": "Dear *Asha*,\ncome in" },
            "footer": { "text": "Reply STOP" }, "action": { "parameters": { "flow_cta": "Book" } } } });
        let shown = phone(&content);
        for part in ["Book &lt;now&gt;", "Dear <strong>Asha</strong>,<br>come in", "Reply STOP", "Book"] {
            assert!(shown.contains(part), "{shown}");
        }
        let long = phone(&json!({ "type": "text", "text": { "body": "x".repeat(2000) } }));
        assert!(long.contains("Read more") && !long.contains(&"x".repeat(FOLD_CHARS + 1)));
    }

    proptest::proptest! {
        #[test]
        fn a_message_cannot_inject_html(body in "[*_~<>&\"' a-zé]{0,60}") {
            let html = line(&body);
            let plain = ["strong", "em", "s"].iter().fold(html, |html, tag| {
                html.replace(&format!("<{tag}>"), "").replace(&format!("</{tag}>"), "")
            });
            proptest::prop_assert!(!plain.contains(['<', '>', '"']));
        }
    }
}
