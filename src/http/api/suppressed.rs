//! The suppression list: numbers that must never be messaged.

use axum::extract::{Path, State};
use axum::{Json, http::StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::super::{access::Caller, problem::Problem};
use super::Api;
use super::extract::{Document, Params, finish, limit};
use super::refusals::{OnJob, OnList, OnOne};
use crate::campaign::{Phone, PhoneParser, problem::Problem as JobProblem};
use crate::ledger::{Audit, AuditEntry, Clock as _, OptOut, OptOutSource, Suppress, Suppression};

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ListParams {
    /// Maximum number of items.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<usize>,
    /// The `next` of the previous page.
    cursor: Option<String>,
}

/// A page of the suppression list.
#[derive(Serialize, ToSchema)]
pub(super) struct Numbers {
    /// Numbers in E.164, in ascending order.
    items: Vec<String>,
    /// The cursor of the next page; null at the end.
    #[schema(required = true)]
    next: Option<String>,
}

/// Lists the suppressed numbers.
///
/// In ascending order.
#[utoipa::path(
    get, path = "/suppressed", tag = "suppressed", operation_id = "listSuppressed", params(ListParams),
    responses((status = 200, description = "A page of the numbers", body = Numbers), OnList)
)]
pub(super) async fn list(
    State(api): State<Api>,
    Params(asked): Params<ListParams>,
) -> Result<Json<Numbers>, Problem> {
    let limit = limit(asked.limit, 100, 1000)?;
    let from: u64 = match asked.cursor {
        Some(cursor) => cursor.parse().map_err(|_| Problem::from(crate::ledger::LedgerError::NoPlace))?,
        None => 0,
    };
    let context = &api.backing()?.context;
    context.follow_suppressed(api.ledger()?).await?;
    let mut found = context.suppressed_from(from, limit + 1);
    let next = if found.len() > limit { found.pop().map(|digits| digits.to_string()) } else { None };
    Ok(Json(Numbers { items: found.iter().map(|digits| format!("+{digits}")).collect(), next }))
}

/// Numbers to add to the suppression list.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AddBody {
    /// Numbers in E.164, e.g. `+919876543210`.
    #[schema(required = true, nullable = false)]
    numbers: Option<Vec<String>>,
}

/// The number of numbers that were added.
#[derive(Serialize, ToSchema)]
pub(super) struct Added {
    /// Numbers that were not on the list before.
    added: u64,
}

/// Adds numbers to the suppression list.
///
/// No campaign messages them again. Numbers that are already on the list change nothing.
#[utoipa::path(
    post, path = "/suppressed", tag = "suppressed", operation_id = "addSuppressed", request_body = AddBody,
    responses((status = 200, description = "The number of added numbers", body = Added), OnJob)
)]
pub(super) async fn add(
    State(api): State<Api>,
    who: Caller,
    Document(asked): Document<AddBody>,
) -> Result<Json<Added>, Problem> {
    let missing = || vec![JobProblem::new("/numbers", "missing; expected a list of phone numbers")];
    let asked = asked.numbers.ok_or_else(missing)?;
    let (mut numbers, mut wrong) = (Vec::with_capacity(asked.len()), Vec::new());
    for (nth, text) in asked.iter().enumerate() {
        match PhoneParser::international(text) {
            Ok(number) => numbers.push(number),
            // The number is personal data and is not repeated.
            Err(error) => wrong.push(JobProblem::new(format!("/numbers/{nth}"), error.to_string())),
        }
    }
    if !wrong.is_empty() {
        return Err(wrong.into());
    }
    let added = change(&api, &who, numbers, Suppress::Add).await?;
    Ok(Json(Added { added }))
}

/// Removes a number from the suppression list.
///
/// A number that is not on the list changes nothing.
#[utoipa::path(
    delete, path = "/suppressed/{number}", tag = "suppressed", operation_id = "removeSuppressed",
    params(("number" = String, Path, description = "The number in E.164, e.g. `+919876543210`")),
    responses((status = 204, description = "The number is not on the list"), OnOne)
)]
pub(super) async fn remove(
    State(api): State<Api>,
    who: Caller,
    Path(number): Path<String>,
) -> Result<StatusCode, Problem> {
    let number = PhoneParser::listed(&number).map_err(|_| {
        Problem::not_found("invalid phone number; use the international form, e.g. +919876543210")
    })?;
    change(&api, &who, vec![number], Suppress::Remove).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Adds or removes numbers, writes an audit entry, and returns how many have changed.
pub(in crate::http) async fn change(
    api: &Api,
    who: &Caller,
    numbers: Vec<Phone>,
    how: Suppress,
) -> Result<u64, Problem> {
    let (ledger, who) = (api.ledger()?.clone(), who.name.clone());
    let changing = finish(async move {
        // A number may be on the list in more than one spelling.
        let numbers = match how {
            Suppress::Remove => numbers.into_iter().flat_map(Phone::spellings).collect(),
            Suppress::Add => numbers,
        };
        // The number and the entry have the same time, by which the history finds the numbers of an entry.
        let at = ledger.time();
        let added = OptOut { at: at.as_millisecond(), source: OptOutSource::Operator(who.to_string()) };
        let changed = ledger.suppress(numbers, how, Some(added)).await?;
        let entry = AuditEntry { at, ..AuditEntry::new(&who, "suppress", None, &how.summary(changed)) };
        ledger.log(entry).await?;
        Ok(changed)
    });
    changing.await
}
