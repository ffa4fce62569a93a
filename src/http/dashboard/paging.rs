//! Paging of the lists. The address of the next page holds the filters and a cursor, so that no worker stores any of it.

use url::form_urlencoded::Serializer;

/// Returns the address of the next page of a list.
pub(super) fn next_page(path: &str, filters: &[(&str, Option<String>)], cursor: &str) -> String {
    let mut query = Serializer::new(String::new());
    for (name, value) in filters {
        value.as_deref().map(|value| query.append_pair(name, value));
    }
    format!("{path}?{}", query.append_pair("cursor", cursor).finish())
}

/// Cuts a list to one page.
///
/// Returns the first item of the next page, if there is one.
pub(super) fn cut<T>(items: &mut Vec<T>, size: usize) -> Option<T> {
    let is_more = items.len() > size;
    items.truncate(size + 1);
    if is_more { items.pop() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_keeps_the_filters() {
        let filters = [("state", None), ("q", Some("a&b".to_owned()))];
        assert_eq!(next_page("/", &filters, "30"), "/?q=a%26b&cursor=30");
    }

    #[test]
    fn a_page_is_cut_where_the_next_one_begins() {
        let mut items = vec![1, 2, 3];
        assert_eq!(cut(&mut items, 3), None);
        assert_eq!((cut(&mut items, 2), items), (Some(3), vec![1, 2]));
    }
}
