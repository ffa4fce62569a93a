//! Ids of campaigns and references of messages.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

/// Maximum length of an id, in characters.
const ID_LENGTH: usize = 64;
/// The part of a test's id after its campaign's id.
const TEST: &str = "-test-";

/// A campaign's id: `[A-Za-z0-9][A-Za-z0-9._-]{0,63}`.
///
/// The alphabet prevents an id from escaping the key, path or queue name that contains it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CampaignId(Arc<str>);

/// An invalid campaign id.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("an id has 1 to 64 characters of A-Z a-z 0-9 . _ - and begins with a letter or a digit")]
pub struct InvalidId;

impl CampaignId {
    /// The form of an id, as a regular expression.
    pub const PATTERN: &str = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$";

    /// Returns the id of the `nth` test of a campaign: one message to one's own number before sending. `apart`
    /// distinguishes it from tests of a draft with the same id.
    ///
    /// # Errors
    ///
    /// If it would be too long.
    pub fn of_test(id: &str, nth: usize, apart: u32) -> Result<Self, InvalidId> {
        format!("{id}{TEST}{nth}-{apart}").parse()
    }

    /// Returns whether it is the id of a test ([`CampaignId::of_test`]).
    pub fn is_test(&self) -> bool {
        self.tested().is_some()
    }

    /// The id of the campaign that it is a test of.
    pub fn tested(&self) -> Option<&str> {
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let (id, numbers) = self.0.rsplit_once(TEST)?;
        let (nth, apart) = numbers.split_once('-')?;
        (is_number(nth) && is_number(apart)).then_some(id)
    }

    /// Returns the id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for CampaignId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        let starts_well = text.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric);
        if starts_well && text.len() <= ID_LENGTH && text.bytes().all(plain) {
            Ok(Self(text.into()))
        } else {
            Err(InvalidId)
        }
    }
}

impl TryFrom<String> for CampaignId {
    type Error = InvalidId;

    fn try_from(text: String) -> Result<Self, InvalidId> {
        text.parse()
    }
}

impl From<CampaignId> for String {
    fn from(id: CampaignId) -> Self {
        id.0.as_ref().into()
    }
}

impl fmt::Display for CampaignId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for CampaignId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

/// A permanent name of a message, across retries and restarts: `campaign.batch.index`.
///
/// It is sent with the message, so that a delivery report can be matched without an index of SIDs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MessageRef {
    /// The campaign.
    pub campaign: CampaignId,
    /// The batch's number, from 0.
    pub batch: u32,
    /// The message's index in its batch, 0 to 99.
    pub index: u8,
}

impl fmt::Display for MessageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.campaign.0)?;
        write!(f, ".{}.{}", self.batch, self.index)
    }
}

/// An invalid message reference.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a message reference has the form campaign.batch.index")]
pub struct InvalidRef;

impl FromStr for MessageRef {
    type Err = InvalidRef;

    fn from_str(text: &str) -> Result<Self, InvalidRef> {
        // Split from the right: an id may contain dots.
        let mut parts = text.rsplitn(3, '.');
        let mut part = || parts.next().ok_or(InvalidRef);
        let index = part()?.parse().map_err(|_| InvalidRef)?;
        let batch = part()?.parse().map_err(|_| InvalidRef)?;
        let campaign = part()?.parse().map_err(|_| InvalidRef)?;
        Ok(Self { campaign, batch, index })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_is_recognised_by_its_id() {
        let id = CampaignId::of_test("navratri-test-offer", 2, 12_345).unwrap();
        assert_eq!((id.as_str(), id.is_test()), ("navratri-test-offer-test-2-12345", true));
        assert_eq!(id.tested(), Some("navratri-test-offer"));
        for other in ["navratri", "a-test-1", "a-test-1-x", "a-test--1", "test-1-2", "a-test-1-2-b"] {
            assert!(!other.parse::<CampaignId>().unwrap().is_test(), "{other}");
        }
        assert_eq!(CampaignId::of_test(&"a".repeat(60), 1, 1), Err(InvalidId));
    }

    #[test]
    fn an_id_can_not_escape_its_key() {
        for bad in ["", ".x", "-x", "a b", "a/b", "a{b}", "a:b", "..", "é", &"x".repeat(65)] {
            assert!(bad.parse::<CampaignId>().is_err(), "{bad:?}");
        }
        for good in ["a", "diwali-2026", "A.b_c-9", &"x".repeat(64)] {
            assert_eq!(good.parse::<CampaignId>().unwrap().as_str(), good);
        }
    }

    #[test]
    fn a_reference_survives_an_id_with_dots_and_numbers() {
        let reference = MessageRef { campaign: "v1.2.3".parse().unwrap(), batch: 7, index: 99 };
        assert_eq!(reference.to_string(), "v1.2.3.7.99");
        assert_eq!("v1.2.3.7.99".parse(), Ok(reference));
        for bad in ["", "a", "a.1", "a.1.x", "a.-1.2", "a.1.300", ".1.2"] {
            assert_eq!(bad.parse::<MessageRef>(), Err(InvalidRef), "{bad:?}");
        }
    }
}
