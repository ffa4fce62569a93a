//! The numbers that must never be messaged.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::super::access::Who;
use super::super::problem::Problem;
use super::Api;
use super::extract::{Document, Params, finish, limit};
use super::refusals::{OnJob, OnList, OnOne};
use crate::campaign::problem::Problem as JobProblem;
use crate::campaign::{Phone, PhoneParser};
use crate::ledger::{Act, Audit, OptOutSource, Suppress, Suppression};

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ListParams {
    /// How many.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<usize>,
    /// Where the page before said that it goes on.
    cursor: Option<String>,
}

/// A part of the numbers.
#[derive(Serialize, ToSchema)]
pub(super) struct Numbers {
    /// In E.164, in the order of their digits.
    items: Vec<String>,
    /// The cursor of the next page; null at the end.
    #[schema(required = true)]
    next: Option<String>,
}

/// Lists numbers.
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

/// Numbers to be put on the list.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AddBody {
    /// In E.164, as `+919876543210`.
    #[schema(required = true, nullable = false)]
    numbers: Option<Vec<String>>,
}

/// How many numbers were not on the list before.
#[derive(Serialize, ToSchema)]
pub(super) struct Added {
    added: u64,
}

/// Puts numbers on the list.
///
/// They are never messaged again, by no campaign. Numbers that are on the list already change nothing.
#[utoipa::path(
    post, path = "/suppressed", tag = "suppressed", operation_id = "addSuppressed", request_body = AddBody,
    responses((status = 200, description = "How many are new", body = Added), OnJob)
)]
pub(super) async fn add(
    State(api): State<Api>,
    who: Who,
    Document(asked): Document<AddBody>,
) -> Result<Json<Added>, Problem> {
    let missing = || vec![JobProblem::new("/numbers", "is missing: a list of numbers")];
    let asked = asked.numbers.ok_or_else(missing)?;
    let (mut numbers, mut wrong) = (Vec::with_capacity(asked.len()), Vec::new());
    for (nth, text) in asked.iter().enumerate() {
        match PhoneParser::international(text) {
            Ok(number) => numbers.push(number),
            // The number itself is not said again: it is a person's.
            Err(error) => wrong.push(JobProblem::new(format!("/numbers/{nth}"), error.to_string())),
        }
    }
    if !wrong.is_empty() {
        return Err(wrong.into());
    }
    let added = change(&api, &who, numbers, Suppress::Add).await?;
    Ok(Json(Added { added }))
}

/// Takes a number off the list.
///
/// One that is not on the list changes nothing.
#[utoipa::path(
    delete, path = "/suppressed/{number}", tag = "suppressed", operation_id = "removeSuppressed",
    params(("number" = String, Path, description = "In E.164, as `+919876543210`")),
    responses((status = 204, description = "It is not on the list any more"), OnOne)
)]
pub(super) async fn remove(
    State(api): State<Api>,
    who: Who,
    Path(number): Path<String>,
) -> Result<StatusCode, Problem> {
    let number = PhoneParser::listed(&number)
        .map_err(|_| Problem::not_found("that is no number in international form, as +919876543210"))?;
    change(&api, &who, vec![number], Suppress::Remove).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(in crate::http) async fn change(
    api: &Api,
    who: &Who,
    numbers: Vec<Phone>,
    how: Suppress,
) -> Result<u64, Problem> {
    let (ledger, who) = (api.ledger()?.clone(), who.name.clone());
    let changing = finish(async move {
        // Whoever is taken off is so in every spelling.
        let numbers = match how {
            Suppress::Remove => numbers.into_iter().flat_map(Phone::spellings).collect(),
            Suppress::Add => numbers,
        };
        let changed = ledger.suppress(numbers, how, Some(OptOutSource::Operator(who.to_string()))).await?;
        ledger.log(Act::new(&who, "suppress", None, &how.summary(changed))).await?;
        Ok(changed)
    });
    changing.await
}
