//! Addresses that prove themselves: a message's callback address holds its reference and a keyed MAC, so
//! that a forged report finds no message.

use std::str::FromStr;

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};

use super::id::MessageRef;

/// What a key is for; another program's MACs under the same secret are none of ours.
const PURPOSE: &str = "flowcast 2026-11 callback capabilities";
/// What names of keys are derived for.
const NAMING: &str = "flowcast 2026 names of callback keys";
/// Stands for a whole account in the place of a message's reference; no reference is without dots.
const ACCOUNT: &str = "account";

/// Where an account's reports come to, and the keys that seal its addresses.
#[derive(Clone)]
pub struct Callbacks {
    /// The address of all its reports, with a slash at its end.
    base: String,
    account: String,
    /// The first seals, all open: a key can be replaced without losing reports.
    keys: Vec<[u8; 32]>,
}

/// What an address stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// One message.
    Message(MessageRef),
    /// Every message of the account: what its reports say of themselves is believed.
    Account,
}

impl Callbacks {
    /// The callbacks of an account below a public address. There must be a key.
    ///
    /// # Errors
    ///
    /// When there is none, or one is shorter than 16 characters.
    pub fn new(public_url: &url::Url, account: &str, keys: &[&str]) -> Result<Self, &'static str> {
        if keys.is_empty() || keys.iter().any(|key| key.len() < 16) {
            return Err("needs a key of at least 16 characters, as `openssl rand -hex 32` makes one");
        }
        let mut base = public_url.clone();
        base.path_segments_mut()
            .map_err(|()| "must be an http:// or https:// address")?
            .pop_if_empty()
            .extend(["callbacks", account, ""]);
        let keys = keys.iter().map(|key| blake3::derive_key(PURPOSE, key.as_bytes())).collect();
        Ok(Self { base: base.into(), account: account.into(), keys })
    }

    /// The address without its capability.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// The address of everything of the account, for providers that take but one.
    pub fn of_account(&self) -> String {
        format!("{}{}", self.base, self.seal(ACCOUNT))
    }

    /// The capability of a message's reference.
    pub fn seal(&self, subject: &str) -> String {
        let mac = self.keys.first().map(|key| self.mac(key, subject));
        let mac = mac.map(|mac| BASE64_URL_SAFE_NO_PAD.encode(mac.as_bytes())).unwrap_or_default();
        format!("{subject}.{mac}")
    }

    /// What its keys are called where others are told which a worker has: a name says nothing of its key.
    pub fn key_names(&self) -> Vec<String> {
        let name = |key: &[u8; 32]| {
            blake3::Hash::from_bytes(blake3::derive_key(NAMING, key)).to_hex()[..16].to_owned()
        };
        self.keys.iter().map(name).collect()
    }

    /// What a capability stands for, if one of the keys has sealed it.
    pub fn open(&self, capability: &str) -> Option<Subject> {
        let (subject, mac) = capability.rsplit_once('.')?;
        let mac: [u8; 32] = BASE64_URL_SAFE_NO_PAD.decode(mac).ok()?.try_into().ok()?;
        let mac = blake3::Hash::from_bytes(mac);
        // `Hash` is compared in constant time. All keys are tried, so that the time tells none of them.
        let known = self.keys.iter().fold(false, |known, key| known | (self.mac(key, subject) == mac));
        if !known {
            return None;
        }
        if subject == ACCOUNT {
            return Some(Subject::Account);
        }
        MessageRef::from_str(subject).ok().map(Subject::Message)
    }

    /// An account's name can't be made part of a reference: its length stands before it.
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
    fn a_capability_opens_for_its_account_alone_and_only_unchanged() {
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
        fn no_text_opens(text in "\\PC{0,80}|[a-z0-9.]{0,20}\\.[A-Za-z0-9_-]{43}") {
            proptest::prop_assert_eq!(callbacks("main", &[NEW]).open(&text), None);
        }
    }
}
