//! The style sheet, the script and the icon. They are compiled in. Each address contains the digest of the content, so that
//! browsers cache it forever.

use std::sync::LazyLock;

use axum::extract::Path;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use super::super::problem::Problem;

const FILES: [(&str, &str, &str); 3] = [
    ("style.css", "text/css; charset=utf-8", include_str!("assets/style.css")),
    ("live.js", "text/javascript; charset=utf-8", include_str!("assets/live.js")),
    ("icon.svg", "image/svg+xml", include_str!("assets/icon.svg")),
];
/// Cache policy of one year: an address never changes its content.
const FOR_GOOD: &str = "public, max-age=31536000, immutable";

static NAMES: LazyLock<Vec<String>> = LazyLock::new(|| {
    let name = |(name, _, content): &(&str, &str, &str)| {
        let digest = blake3::hash(content.as_bytes()).to_hex();
        format!("{}-{name}", &digest[..12])
    };
    FILES.iter().map(name).collect()
});

/// Returns the address of a file.
pub(super) fn address(name: &str) -> String {
    let place = FILES.iter().position(|(known, ..)| *known == name);
    place.map_or_else(String::new, |place| format!("/assets/{}", NAMES[place]))
}

pub(super) async fn serve(Path(name): Path<String>) -> Response {
    let Some(place) = NAMES.iter().position(|known| *known == name) else {
        return Problem::not_found("there is no such file").into_response();
    };
    let (_, kind, content) = FILES[place];
    ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, FOR_GOOD)], content).into_response()
}
