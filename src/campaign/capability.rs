//! Capability URLs: a message's callback address has its reference and a keyed MAC, so that a forged report matches
//! no message.

use std::str::FromStr;

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};

use super::id::MessageRef;

/// Context of the keys, so that another program's MACs with the same secret are invalid here.
const PURPOSE: &str = "flowcast 2026-11 callback capabilities";
/// Context of the names of keys.
const NAMING: &str = "flowcast 2026 names of callback keys";
/// Used instead of a message reference for a whole account; every reference has dots.
const ACCOUNT: &str = "account";

/// The callback address of an account, and the keys that sign its capabilities.
#[derive(Clone)]
pub struct Callbacks {
    /// The base URL of its reports, with a trailing slash.
    base: String,
    account: String,
    /// The first key signs, all keys verify: a key can be replaced without losing reports.
    keys: Vec<[u8; 32]>,
}

/// The subject of an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// One message.
    Message(MessageRef),
    /// Every message of the account: the reports themselves name their message.
    Account,
}

impl Callbacks {
    /// Creates the callbacks of an account below a public URL. At least one key is required.
    ///
    /// # Errors
    ///
    /// If there is no key, or one is shorter than 16 characters.
    pub fn new(public_url: &url::Url, account: &str, keys: &[&str]) -> Result<Self, &'static str> {
        if keys.is_empty() || keys.iter().any(|key| key.len() < 16) {
            return Err("needs a key of at least 16 characters, e.g. from `openssl rand -hex 32`");
        }
        let mut base = public_url.clone();
        base.path_segments_mut()
            .map_err(|()| "must be an http:// or https:// address")?
            .pop_if_empty()
            .extend(["callbacks", account, ""]);
        let keys = keys.iter().map(|key| blake3::derive_key(PURPOSE, key.as_bytes())).collect();
        Ok(Self { base: base.into(), account: account.into(), keys })
    }

    /// Returns the URL without a capability.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Returns the URL of the whole account, for providers that accept only one.
    pub fn of_account(&self) -> String {
        format!("{}{}", self.base, self.seal(ACCOUNT))
    }

    /// Returns the capability of a message reference.
    pub fn seal(&self, subject: &str) -> String {
        let mac = self.keys.first().map(|key| self.mac(key, subject));
        let mac = mac.map(|mac| BASE64_URL_SAFE_NO_PAD.encode(mac.as_bytes())).unwrap_or_default();
        format!("{subject}.{mac}")
    }

    /// Returns the public names of its keys, which reveal nothing about the keys.
    pub fn key_names(&self) -> Vec<String> {
        let name = |key: &[u8; 32]| {
            blake3::Hash::from_bytes(blake3::derive_key(NAMING, key)).to_hex()[..16].to_owned()
        };
        self.keys.iter().map(name).collect()
    }

    /// Returns the subject of a capability, if one of the keys has signed it.
    pub fn open(&self, capability: &str) -> Option<Subject> {
        let (subject, mac) = capability.rsplit_once('.')?;
        let mac: [u8; 32] = BASE64_URL_SAFE_NO_PAD.decode(mac).ok()?.try_into().ok()?;
        let mac = blake3::Hash::from_bytes(mac);
        // `Hash` is compared in constant time. All keys are tried, so that the time does not reveal which one
        // matches.
        let known = self.keys.iter().fold(false, |known, key| known | (self.mac(key, subject) == mac));
        if !known {
            return None;
        }
        if subject == ACCOUNT {
            return Some(Subject::Account);
        }
        MessageRef::from_str(subject).ok().map(Subject::Message)
    }

    /// The length of the account's name precedes it, so that the name and a reference cannot overlap.
    fn mac(&self, key: &[u8; 32], subject: &str) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(key);
        hasher.update(&(self.account.len() as u64).to_le_bytes());
        hasher.update(self.account.as_bytes()).update(subject.as_bytes());
        hasher.finalize()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn callbacks(account: &str, keys: &[&str]) -> Callbacks {
        Callbacks::new(&"https://c.example/x".parse().unwrap(), account, keys).unwrap()
    }

    const OLD: &str = "an older key of ours";
    const NEW: &str = "a newer key of ours!";

    #[test]
    fn a_capability_is_valid_only_unchanged_and_for_its_account() {
        let main = callbacks("main", &[NEW]);
        let sealed = main.seal("diwali-2026.v1.7.42");
        let message = Subject::Message("diwali-2026.v1.7.42".parse().unwrap());
        assert_eq!(main.open(&sealed), Some(message));
        assert_eq!(callbacks("other", &[NEW]).open(&sealed), None);
        assert_eq!(main.open(&sealed.replace("7.42", "7.43")), None);
        for bad in ["", ".", "c1.0.0", "c1.0.0.", "c1.0.0.AAAA", &sealed[..sealed.len() - 1]] {
            assert_eq!(main.open(bad), None, "{bad}");
        }
        let whole = main.of_account();
        assert!(whole.starts_with("https://c.example/x/callbacks/main/account."), "{whole}");
        assert_eq!(main.open(whole.rsplit('/').next().unwrap()), Some(Subject::Account));
    }

    #[test]
    fn keys_are_replaced_without_losing_reports() {
        let sealed = callbacks("main", &[OLD]).seal("c1.0.0");
        assert!(callbacks("main", &[NEW, OLD]).open(&sealed).is_some());
        assert!(callbacks("main", &[NEW]).open(&sealed).is_none());
        assert_ne!(callbacks("main", &[NEW, OLD]).seal("c1.0.0"), sealed);
        assert!(Callbacks::new(&"https://c.example".parse().unwrap(), "main", &["short"]).is_err());
        assert!(Callbacks::new(&"https://c.example".parse().unwrap(), "main", &[]).is_err());
    }

    #[test]
    fn an_accounts_name_and_a_reference_can_not_be_shifted_into_each_other() {
        let sealed = callbacks("mainc", &[NEW]).seal("1.0.0");
        let mac = sealed.rsplit_once('.').unwrap().1;
        assert_eq!(callbacks("main", &[NEW]).open(&format!("c1.0.0.{mac}")), None);
    }

    proptest::proptest! {
        #[test]
        fn no_other_text_is_a_valid_capability(text in "\\PC{0,80}|[a-z0-9.]{0,20}\\.[A-Za-z0-9_-]{43}") {
            proptest::prop_assert_eq!(callbacks("main", &[NEW]).open(&text), None);
        }
    }
}
