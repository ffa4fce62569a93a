//! Points of charts, campaign drafts and ended sessions in Redis.

use std::collections::HashMap;

use super::{Redis, layout::Keys};
use crate::campaign::CampaignId;
use crate::ledger::{CampaignDrafts, LedgerError, Point, Series, Sessions};

/// Key of the drafts, by name.
const DRAFTS: &str = "flowcast:drafts";

impl Series for Redis {
    async fn points(&self, id: &CampaignId) -> Result<Vec<Point>, LedgerError> {
        let lines: Vec<String> =
            self.client.command(redis::cmd("LRANGE").arg((Keys(id).series(), 0, -1))).await?;
        Ok(lines.iter().filter_map(|line| read(line)).collect())
    }

    async fn write_points(&self, id: &CampaignId, points: Vec<Point>, all: bool) -> Result<(), LedgerError> {
        let key = Keys(id).series();
        let mut pipe = redis::pipe();
        pipe.atomic();
        if all {
            pipe.cmd("DEL").arg(&key).ignore();
        }
        let lines: Vec<String> = points.iter().map(line).collect();
        pipe.cmd("RPUSH").arg(&key).arg(lines).ignore();
        Ok(self.client.pipeline(&pipe).await?)
    }
}

/// Returns the line of a point: milliseconds since 1970, accepted, rejected, in doubt.
pub(super) fn line(point: &Point) -> String {
    let Point { at, accepted, rejected, in_doubt } = point;
    format!("{at} {accepted} {rejected} {in_doubt}")
}

fn read(line: &str) -> Option<Point> {
    let mut words = line.split(' ');
    let at = words.next()?.parse().ok()?;
    let mut count = || words.next()?.parse().ok();
    Some(Point { at, accepted: count()?, rejected: count()?, in_doubt: count()? })
}

impl CampaignDrafts for Redis {
    async fn drafts(&self) -> Result<Vec<(String, String)>, LedgerError> {
        let all: HashMap<String, String> = self.client.command(redis::cmd("HGETALL").arg(DRAFTS)).await?;
        Ok(all.into_iter().collect())
    }

    async fn draft_names(&self) -> Result<Vec<String>, LedgerError> {
        Ok(self.client.command(redis::cmd("HKEYS").arg(DRAFTS)).await?)
    }

    async fn draft(&self, name: &str) -> Result<Option<String>, LedgerError> {
        Ok(self.client.command(redis::cmd("HGET").arg(DRAFTS).arg(name)).await?)
    }

    async fn keep_draft(&self, name: &str, draft: String) -> Result<(), LedgerError> {
        Ok(self.client.command(redis::cmd("HSET").arg((DRAFTS, name, draft))).await?)
    }

    async fn remove_draft(&self, name: &str) -> Result<(), LedgerError> {
        Ok(self.client.command(redis::cmd("HDEL").arg((DRAFTS, name))).await?)
    }
}

impl Sessions for Redis {
    async fn end_session(&self, digest: &str, ends: i64) -> Result<(), LedgerError> {
        Ok(self.client.command(redis::cmd("SET").arg((session(digest), 1, "PXAT", ends))).await?)
    }

    async fn is_session_ended(&self, digest: &str) -> Result<bool, LedgerError> {
        Ok(self.client.command(redis::cmd("EXISTS").arg(session(digest))).await?)
    }
}

fn session(digest: &str) -> String {
    format!("flowcast:ended_session:{digest}")
}
