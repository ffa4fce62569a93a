//! Fetches the media that a job refers to, as `WhatsApp` would, for `check --look` only. No request over the network makes
//! flowcast fetch media.

use std::{collections::BTreeSet, time::Duration};

use serde_json::Value;

use crate::views::check::{Rendered, Warning};

/// Maximum number of media that are fetched.
const MAX_ADDRESSES: usize = 10;
/// Timeout for one download.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Documents 000 and 001: a sticker is an image/webp of 512 x 512 pixels and at most 100 KB, an animated one at most
/// 500 KB.
const STICKER: (usize, usize, usize) = (512, 100 << 10, 500 << 10);

/// Fetches the media of the messages that are shown, and returns warnings about those unlikely to be delivered.
pub(super) async fn fetch_media(messages: &[Rendered]) -> Result<Vec<Warning>, String> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().timeout(TIMEOUT).build();
    let client = client.map_err(|error| format!("cannot set up HTTP: {error}"))?;
    let all: BTreeSet<(String, &str, String)> =
        messages.iter().flat_map(|message| media(&message.content)).collect();
    let mut found = Vec::new();
    for (pointer, kind, link) in all.into_iter().take(MAX_ADDRESSES) {
        let detail = match client.get(&link).send().await {
            Ok(response) => wrong(kind, response).await,
            Err(error) => Some(format!("cannot be fetched: {}", error.without_url())),
        };
        found.extend(detail.map(|detail| Warning { pointer, detail }));
    }
    Ok(found)
}

/// Returns the media in content: JSON pointer, kind and URL of each.
fn media(content: &Value) -> Vec<(String, &'static str, String)> {
    let kinds = ["image", "audio", "video", "document", "sticker"];
    let places = kinds.iter().flat_map(|kind| ["", "/interactive/header"].map(|place| (place, *kind)));
    let media = |(place, kind): (&str, &'static str)| {
        let pointer = format!("{place}/{kind}/link");
        let link = content.pointer(&pointer)?.as_str()?.to_owned();
        Some((format!("/message{pointer}"), kind, link))
    };
    places.filter_map(media).collect()
}

/// Returns what is wrong with a response, if anything.
async fn wrong(kind: &str, mut response: reqwest::Response) -> Option<String> {
    if !response.status().is_success() {
        return Some(format!("responds with {}", response.status()));
    }
    let of = response.headers().get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let of = of.split(';').next().unwrap_or_default().trim().to_lowercase();
    let fits = match kind {
        "sticker" => of == "image/webp",
        "document" => true,
        kind => of.starts_with(&format!("{kind}/")),
    };
    if !fits {
        let wanted = if kind == "sticker" { "image/webp (Exotel's documentation)" } else { kind };
        return Some(format!("serves {of:?} instead of {wanted}"));
    }
    if kind != "sticker" {
        return None;
    }
    let (side, still, animated) = STICKER;
    let mut bytes = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > animated {
            break;
        }
    }
    // The second bit of the flags of an extended WebP marks an animation.
    let moves = bytes.get(12..16) == Some(b"VP8X") && bytes.get(20).is_some_and(|flags| flags & 2 != 0);
    let most = if moves { animated } else { still };
    match imagesize::blob_size(&bytes) {
        Err(_) => Some("does not serve a readable image".into()),
        Ok(size) if (size.width, size.height) != (side, side) => Some(format!(
            "serves {} x {} pixels; a sticker has {side} x {side} (Exotel's documentation)",
            size.width, size.height
        )),
        Ok(_) if bytes.len() > most => {
            let (most, kind) = (most >> 10, if moves { "an animated" } else { "a still" });
            Some(format!(
                "serves more than {most} KB, the maximum for {kind} sticker (Exotel's documentation)"
            ))
        }
        Ok(_) => None,
    }
}
