//! The audience step: the phone column, the default country, sample rows, and the rows that are skipped.

use axum::response::{Html, IntoResponse, Response};
use minijinja::context;
use serde_json::Value;

use super::super::super::problem::Problem;
use super::super::countries::{countries, country};
use super::super::extract::Fields;
use super::super::render::{serialized, unprocessable};
use super::super::skipped::skipped_rows;
use super::draft::CampaignDraft;
use super::inspection::{Wrong, inspect};
use super::page::{DraftPage, errors};
use crate::campaign::thousands;

/// Maximum length of a value of a sample row, in characters.
const MAX_VALUE_CHARS: usize = 60;

pub(super) async fn show(mut page: DraftPage) -> Result<Html<String>, Problem> {
    let wrong = if page.draft.is_read { None } else { inspect(&page.dashboard, &mut page.draft).await? };
    Ok(render(&page, wrong.as_ref()))
}

fn render(page: &DraftPage, wrong: Option<&Wrong>) -> Html<String> {
    let draft = &page.draft;
    let cut = |value: &str| -> String { value.chars().take(MAX_VALUE_CHARS).collect() };
    let rows = draft.sample.iter().map(|row| {
        let value = |name: &String| cut(row.get(name).and_then(Value::as_str).unwrap_or_default());
        let number = row.get("phone").and_then(Value::as_str).unwrap_or_default();
        context! { number, values => draft.columns.iter().map(value).collect::<Vec<_>>() }
    });
    let skipped = draft.skipped.iter();
    let skipped = skipped.map(|(reason, count)| skipped_rows(reason, *count, &draft.skipped_examples));
    let suggestion = draft.suggestion.as_ref().and_then(|suggestion| {
        let country = country(&suggestion.region)?;
        Some(context! { valid => suggestion.valid, tried => suggestion.tried, code => country.code, name => country.name })
    });
    let no_recipients = (draft.is_read && draft.people == 0).then(|| no_recipients(draft));
    let detail = wrong.map(Wrong::text).or(no_recipients.as_deref());
    let own = context! {
        path => draft.text("/audience/csv/path"),
        phone => draft.text("/audience/csv/phone"),
        region => draft.text("/audience/csv/default_region"),
        columns => draft.columns.clone(),
        row_count => draft.rows,
        people => draft.people,
        is_read => draft.is_read,
        countries => serialized(countries()),
        phone_column => draft.phone_column.clone(),
        suggestion,
        assumed => country(draft.text("/audience/csv/default_region")).filter(|_| draft.is_assumed).map(|country| country.name),
        rows => rows.collect::<Vec<_>>(),
        skipped => skipped.collect::<Vec<_>>(),
        notes => draft.notes.clone(),
        encoding => draft.text("/audience/csv/encoding"),
        sheet => draft.text("/audience/csv/sheet"),
        errors => errors(detail.map(|detail| ("phone", detail))),
    };
    page.render("audience", "new_audience.html", own)
}

/// Returns what the page says about an audience without valid numbers.
fn no_recipients(draft: &CampaignDraft) -> String {
    let rows = if draft.rows == 1 {
        "The row has no".into()
    } else {
        format!("None of the {} rows has a", thousands(draft.rows))
    };
    let what_to_do = if draft.text("/audience/csv/default_region").is_empty() {
        "If numbers lack the + and the country code, choose a default country."
    } else {
        "Choose the column with the phone numbers."
    };
    format!("{rows} valid number. {what_to_do}")
}

pub(super) async fn save(mut page: DraftPage, fields: Fields) -> Result<Response, Problem> {
    let before = page.draft.job["audience"].clone();
    // The button of a suggestion wins over the select.
    let offered = Some(fields.get("use")).filter(|code| !code.is_empty());
    let region = offered.unwrap_or_else(|| fields.get("region"));
    if !region.is_empty() && country(region).is_none() {
        let wrong = Wrong::Other("Choose a country from the list.".into());
        return Ok(unprocessable(render(&page, Some(&wrong))));
    }
    let fields_of =
        [("phone", "phone"), ("default_region", "region"), ("encoding", "encoding"), ("sheet", "sheet")];
    for (name, field) in fields_of {
        let value = if field == "region" { region } else { fields.get(field) };
        let Some(csv) = page.draft.job.pointer_mut("/audience/csv").and_then(Value::as_object_mut) else {
            continue;
        };
        if value.is_empty() {
            csv.shift_remove(name);
        } else {
            csv.insert(name.into(), value.into());
        }
    }
    page.draft.is_assumed = false;
    let has_changed = before != page.draft.job["audience"];
    let wrong = if has_changed || !page.draft.is_read {
        inspect(&page.dashboard, &mut page.draft).await?
    } else {
        None
    };
    page.keep().await?;
    if wrong.is_some() || page.draft.people == 0 {
        return Ok(unprocessable(render(&page, wrong.as_ref())));
    }
    if fields.get("do") == "next" {
        return Ok(page.redirect("message").into_response());
    }
    Ok(render(&page, None).into_response())
}
