//! Checks which content a provider accepts, implemented from the documents only for the sandbox. It shares no rule
//! with the rest of flowcast, so that it can detect errors in it.

use std::collections::BTreeSet;

use serde_json::{Map, Value};
use unicode_properties::{EmojiStatus, UnicodeEmoji};

type Verdict<T = ()> = Result<T, String>;

/// Differences between the providers' formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// Documents 000, 001, 003 and 004.
    Exotel,
    /// Document 002.
    Kaleyra,
    /// The Cloud API's reference.
    Meta,
}

/// Checks content: its type and the object of that name. `at` is its place; the fields `beside` do not belong to it.
pub(super) fn content(value: &Value, at: &str, beside: &[&str], dialect: Dialect) -> Verdict {
    let kind = value["type"].as_str().ok_or_else(|| format!("{at}/type is missing"))?;
    let check: fn(&Value, &str, Dialect) -> Verdict = match kind {
        "text" => |v, at, _| {
            let map = fields(v, at, &["body"], &["preview_url"])?;
            text(map, at, "body", 1, 4096)?;
            match map.get("preview_url") {
                None | Some(Value::Bool(_)) => Ok(()),
                Some(_) => Err(format!("{at}/preview_url must be true or false")),
            }
        },
        "image" | "video" => |v, at, _| media(v, at, &["caption"]),
        "audio" | "sticker" => |v, at, _| media(v, at, &[]),
        "document" => |v, at, _| media(v, at, &["caption", "filename"]),
        "location" => location,
        "contacts" => |v, at, _| each(v, at, 1..=usize::MAX, contact),
        "interactive" => |v, at, _| interactive(v, at),
        "template" => template,
        other => return Err(format!("{at}/type {other:?} is not in the documents")),
    };
    fields(value, at, &["type", kind], &[&["recipient_type"], beside].concat())?;
    if value.get("recipient_type").is_some_and(|to| to != "individual") {
        return Err(format!("{at}/recipient_type must be \"individual\""));
    }
    check(&value[kind], &format!("{at}/{kind}"), dialect)
}

/// Checks that an object has the required fields, and no others than these and the optional ones.
fn fields<'v>(
    value: &'v Value,
    at: &str,
    needed: &[&str],
    allowed: &[&str],
) -> Verdict<&'v Map<String, Value>> {
    let map = value.as_object().ok_or_else(|| format!("{at} must be an object"))?;
    if let Some(missing) = needed.iter().find(|name| !map.contains_key(**name)) {
        return Err(format!("{at}/{missing} is missing"));
    }
    match map.keys().find(|key| !needed.contains(&key.as_str()) && !allowed.contains(&key.as_str())) {
        Some(unknown) => Err(format!("{at}/{unknown} is unknown")),
        None => Ok(map),
    }
}

/// Returns a text of the given length; an empty one if it is missing.
fn text<'v>(
    map: &'v Map<String, Value>,
    at: &str,
    name: &str,
    least: usize,
    most: usize,
) -> Verdict<&'v str> {
    let Some(value) = map.get(name) else { return Ok("") };
    let text = value.as_str().ok_or_else(|| format!("{at}/{name} must be a string"))?;
    match text.chars().count() {
        count if count < least => Err(format!("{at}/{name} must not be empty")),
        count if count > most => Err(format!("{at}/{name} has {count} characters, and {most} are allowed")),
        _ => Ok(text),
    }
}

/// Checks that each of these fields is a text, if present.
fn texts(map: &Map<String, Value>, at: &str, names: &[&str]) -> Verdict {
    names.iter().try_for_each(|name| text(map, at, name, 1, usize::MAX).map(drop))
}

fn one_of(map: &Map<String, Value>, at: &str, name: &str, words: &[&str]) -> Verdict {
    match map.get(name).and_then(Value::as_str) {
        Some(word) if words.contains(&word) => Ok(()),
        None if !map.contains_key(name) => Ok(()),
        _ => Err(format!("{at}/{name} must be one of {words:?}")),
    }
}

/// Checks the length of a list and each of its items.
fn each(
    value: &Value,
    at: &str,
    count: std::ops::RangeInclusive<usize>,
    check: impl Fn(&Value, &str) -> Verdict,
) -> Verdict {
    let list = value.as_array().ok_or_else(|| format!("{at} must be an array"))?;
    if !count.contains(&list.len()) {
        return Err(format!("{at} has {} items", list.len()));
    }
    list.iter().enumerate().try_for_each(|(nth, item)| check(item, &format!("{at}/{nth}")))
}

/// Documents 000, 001: "Use only with HTTP/HTTPS URLs"; the Cloud API's reference: captions of 1,024 characters.
fn media(value: &Value, at: &str, more: &[&str]) -> Verdict {
    let map = fields(value, at, &["link"], more)?;
    let link = text(map, at, "link", 1, usize::MAX)?;
    let rest = link.strip_prefix("https://").or_else(|| link.strip_prefix("http://"));
    if rest.is_none_or(|rest| rest.is_empty() || rest.starts_with('/') || rest.contains(' ')) {
        return Err(format!("{at}/link must be an http or https URL"));
    }
    text(map, at, "caption", 1, 1024)?;
    text(map, at, "filename", 1, usize::MAX).map(drop)
}

/// Document 001: longitude and latitude are strings; with Meta they are numbers, or strings that hold one.
fn location(value: &Value, at: &str, dialect: Dialect) -> Verdict {
    let map = fields(value, at, &["longitude", "latitude"], &["name", "address"])?;
    for (name, most) in [("longitude", 180.0), ("latitude", 90.0)] {
        let degrees = match &map[name] {
            Value::String(text) => text.parse::<f64>().ok(),
            Value::Number(number) if dialect != Dialect::Exotel => number.as_f64(),
            _ => None,
        };
        if !degrees.is_some_and(|degrees| degrees.abs() <= most) {
            return Err(format!("{at}/{name} must be a string of degrees"));
        }
    }
    texts(map, at, &["name", "address"])
}

/// Document 001, Contact Object and the objects in it.
fn contact(value: &Value, at: &str) -> Verdict {
    let map = fields(value, at, &["name"], &["addresses", "birthday", "emails", "org", "phones", "urls"])?;
    let name = fields(
        &map["name"],
        &format!("{at}/name"),
        &["formatted_name"],
        &["first_name", "last_name", "middle_name", "suffix", "prefix"],
    )?;
    if name.len() < 2 {
        return Err(format!("{at}/name needs one of the optional parameters along with formatted_name"));
    }
    let names = ["formatted_name", "first_name", "last_name", "middle_name", "suffix", "prefix"];
    texts(name, at, &names)?;
    let birthday = text(map, at, "birthday", 1, 10)?;
    let digits = |part: &str, count: usize| part.len() == count && part.bytes().all(|b| b.is_ascii_digit());
    let is_date = match birthday.split('-').collect::<Vec<_>>()[..] {
        [year, month, day] => digits(year, 4) && digits(month, 2) && digits(day, 2),
        _ => false,
    };
    if map.contains_key("birthday") && !is_date {
        return Err(format!("{at}/birthday must be YYYY-MM-DD"));
    }
    let lists: [(&str, &[&str]); 4] = [
        ("addresses", &["city", "country", "country_code", "state", "street", "type", "zip"]),
        ("emails", &["email", "type"]),
        ("phones", &["phone", "type", "wa_id"]),
        ("urls", &["url", "type"]),
    ];
    for (list, names) in lists {
        if let Some(value) = map.get(list) {
            each(value, &format!("{at}/{list}"), 0..=usize::MAX, |item, at| {
                let map = fields(item, at, &[], names)?;
                texts(map, at, names)?;
                match map.get("country_code").and_then(Value::as_str) {
                    Some(code) if code.len() != 2 => Err(format!("{at}/country_code must have two letters")),
                    _ => Ok(()),
                }
            })?;
        }
    }
    match map.get("org") {
        None => Ok(()),
        Some(org) => {
            let (at, names) = (format!("{at}/org"), ["company", "department", "title"]);
            texts(fields(org, &at, &[], &names)?, &at, &names)
        }
    }
}

/// Documents 000 and 001, Interactive Object.
fn interactive(value: &Value, at: &str) -> Verdict {
    let map = fields(value, at, &["type", "body", "action"], &["header", "footer"])?;
    one_of(map, at, "type", &["flow", "list", "button"])?;
    let body = format!("{at}/body");
    text(fields(&map["body"], &body, &["text"], &[])?, &body, "text", 1, 1024)?;
    if let Some(footer) = map.get("footer") {
        let at = format!("{at}/footer");
        text(fields(footer, &at, &["text"], &[])?, &at, "text", 1, 60)?;
    }
    let kind = map["type"].as_str().unwrap_or_default();
    if let Some(header) = map.get("header") {
        self::header(header, &format!("{at}/header"), kind)?;
    }
    let (action, at) = (&map["action"], format!("{at}/action"));
    match kind {
        "flow" => flow(action, &at),
        "list" => list(action, &at),
        _ => buttons(action, &at),
    }
}

/// Checks a header: a text of at most 60 characters, or, except in lists, an image, a video or a document.
fn header(value: &Value, at: &str, of: &str) -> Verdict {
    let kind = value["type"].as_str().ok_or_else(|| format!("{at}/type is missing"))?;
    let map = fields(value, at, &["type", kind], &[])?;
    let place = format!("{at}/{kind}");
    match kind {
        "text" => text(map, at, "text", 1, 60).map(drop),
        "image" | "video" if of != "list" => media(&map[kind], &place, &["caption"]),
        "document" if of != "list" => media(&map[kind], &place, &["caption", "filename"]),
        _ => Err(format!("{at}/type {kind:?} is not allowed in this message")),
    }
}

/// Documents 000 and 004, the flow's action.
fn flow(value: &Value, at: &str) -> Verdict {
    let map = fields(value, at, &["name", "parameters"], &[])?;
    one_of(map, at, "name", &["flow", "galaxy_message"])?;
    let at = format!("{at}/parameters");
    let needed = ["flow_message_version", "flow_token", "flow_id", "flow_cta", "flow_action"];
    let map = fields(&map["parameters"], &at, &needed, &["flow_action_payload", "mode"])?;
    one_of(map, &at, "flow_message_version", &["3"])?;
    one_of(map, &at, "mode", &["draft", "published"])?;
    one_of(map, &at, "flow_action", &["navigate", "data_exchange"])?;
    texts(map, &at, &["flow_token", "flow_id"])?;
    if text(map, &at, "flow_cta", 1, 20)?.chars().any(is_emoji) {
        return Err(format!("{at}/flow_cta must have no emoji"));
    }
    match (map["flow_action"] == "navigate", map.get("flow_action_payload")) {
        (true, Some(payload)) => {
            let at = format!("{at}/flow_action_payload");
            let payload = fields(payload, &at, &["screen"], &["data"])?;
            text(payload, &at, "screen", 1, usize::MAX)?;
            match payload.get("data") {
                Some(data) if data.as_object().is_none_or(Map::is_empty) => {
                    Err(format!("{at}/data must be a non-empty object"))
                }
                _ => Ok(()),
            }
        }
        (true, None) => Err(format!("{at}/flow_action_payload is required if flow_action is navigate")),
        (false, Some(_)) => Err(format!("{at}/flow_action_payload should be omitted")),
        (false, None) => Ok(()),
    }
}

/// Document 001, List Messages.
fn list(value: &Value, at: &str) -> Verdict {
    let map = fields(value, at, &["button", "sections"], &[])?;
    text(map, at, "button", 1, 20)?;
    let many = map["sections"].as_array().is_some_and(|sections| sections.len() > 1);
    let mut rows = 0;
    let sections = map["sections"].as_array().into_iter().flatten();
    sections.for_each(|section| rows += section["rows"].as_array().map_or(0, Vec::len));
    if rows > 10 {
        return Err(format!("{at}/sections have {rows} rows, and 10 are allowed"));
    }
    each(&map["sections"], &format!("{at}/sections"), 1..=10, |section, at| {
        let map = fields(section, at, if many { &["title", "rows"] } else { &["rows"] }, &["title"])?;
        text(map, at, "title", 1, 24)?;
        each(&map["rows"], &format!("{at}/rows"), 1..=10, |row, at| {
            let map = fields(row, at, &["id", "title"], &["description"])?;
            text(map, at, "id", 1, 200)?;
            text(map, at, "title", 1, 24)?;
            text(map, at, "description", 1, 72).map(drop)
        })
    })
}

/// Document 001, Reply Buttons.
fn buttons(value: &Value, at: &str) -> Verdict {
    let map = fields(value, at, &["buttons"], &[])?;
    let at = format!("{at}/buttons");
    each(&map["buttons"], &at, 1..=3, |button, at| {
        let map = fields(button, at, &["type", "reply"], &[])?;
        one_of(map, at, "type", &["reply"])?;
        let at = format!("{at}/reply");
        let map = fields(&map["reply"], &at, &["id", "title"], &[])?;
        text(map, &at, "title", 1, 20)?;
        let id = text(map, &at, "id", 1, 256)?;
        if id.trim() == id { Ok(()) } else { Err(format!("{at}/id has spaces at an end")) }
    })?;
    let titles: Vec<&Value> =
        map["buttons"].as_array().into_iter().flatten().map(|b| &b["reply"]["title"]).collect();
    let different: BTreeSet<&str> = titles.iter().filter_map(|title| title.as_str()).collect();
    if different.len() == titles.len() {
        Ok(())
    } else {
        Err(format!("{at} must have titles that are unique"))
    }
}

/// Documents 002 and 004, and each provider's own examples.
fn template(value: &Value, at: &str, dialect: Dialect) -> Verdict {
    let needed: &[&str] =
        if dialect == Dialect::Kaleyra { &["name", "language", "components"] } else { &["name", "language"] };
    let map = fields(value, at, needed, &["components"])?;
    text(map, at, "name", 1, 512)?;
    let place = format!("{at}/language");
    let policy: &[&str] = if dialect == Dialect::Exotel { &["policy"] } else { &[] };
    let language = fields(&map["language"], &place, &["code"], policy)?;
    one_of(language, &place, "policy", &["deterministic"])?;
    text(language, &place, "code", 1, usize::MAX)?;
    let Some(components) = map.get("components") else { return Ok(()) };
    each(components, &format!("{at}/components"), 0..=usize::MAX, |component, at| {
        let kind = component["type"].as_str().unwrap_or_default();
        let map = match kind {
            "header" | "body" => fields(component, at, &["type", "parameters"], &[])?,
            "button" => fields(component, at, &["type", "sub_type", "index", "parameters"], &[])?,
            _ => return Err(format!("{at}/type {kind:?} is no component")),
        };
        if kind == "button" {
            one_of(map, at, "sub_type", &["flow", "quick_reply", "url", "copy_code"])?;
            let index = match (&map["index"], dialect) {
                (Value::Number(index), Dialect::Kaleyra) => index.as_u64(),
                (Value::String(index), Dialect::Exotel | Dialect::Meta) => index.parse().ok(),
                _ => None,
            };
            if index.is_none_or(|index| index >= 10) {
                return Err(format!("{at}/index is not as the provider writes it"));
            }
        }
        each(&map["parameters"], &format!("{at}/parameters"), 1..=usize::MAX, |parameter, at| {
            let kind = parameter["type"].as_str().ok_or_else(|| format!("{at}/type is missing"))?;
            let map = fields(parameter, at, &["type", kind], &["parameter_name"])?;
            if component["sub_type"] == "flow" && kind != "action" {
                return Err(format!("{at}: a flow's button has an action"));
            }
            let place = format!("{at}/{kind}");
            match kind {
                // Meta's reference of templates: error 132018.
                "text"
                    if map["text"]
                        .as_str()
                        .is_some_and(|text| text.contains(['\n', '\t']) || text.contains("     ")) =>
                {
                    Err(format!(
                        "{at}/text must not have new-line/tab characters or more than 4 consecutive spaces"
                    ))
                }
                "text" | "payload" | "coupon_code" => texts(map, at, &[kind]),
                "currency" | "date_time" if map[kind].is_object() => Ok(()),
                "image" | "video" => media(&map[kind], &place, &[]),
                "document" => media(&map[kind], &place, &["caption", "filename"]),
                "location" => location(&map[kind], &place, dialect),
                "action" => {
                    let action = fields(&map[kind], &place, &[], &["flow_token", "flow_action_data"])?;
                    texts(action, &place, &["flow_token"])?;
                    match action.get("flow_action_data") {
                        Some(data) if !data.is_object() => {
                            Err(format!("{place}/flow_action_data must be an object"))
                        }
                        _ => Ok(()),
                    }
                }
                _ => Err(format!("{at}/type {kind:?} is no parameter")),
            }
        })
    })
}

/// Returns whether a character is an emoji, or turns the one before it into one.
fn is_emoji(c: char) -> bool {
    matches!(c, '\u{fe0f}' | '\u{20e3}')
        || matches!(
            c.emoji_status(),
            EmojiStatus::EmojiPresentation
                | EmojiStatus::EmojiPresentationAndModifierBase
                | EmojiStatus::EmojiPresentationAndModifierAndEmojiComponent
                | EmojiStatus::EmojiPresentationAndEmojiComponent
        )
}
