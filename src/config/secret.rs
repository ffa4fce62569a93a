//! Secrets: texts in the configuration, or references to files and variables.

use std::path::PathBuf;

use schemars::JsonSchema;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::json;

use super::ConfigError;

/// A secret: the text itself, `{ file = "…" }` for the content of a file, or `{ env = "…" }` for an environment
/// variable. Logs never show it.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(
    untagged,
    deny_unknown_fields,
    expecting = "must be the text itself, { file = \"…\" } or { env = \"…\" }"
)]
pub enum Secret {
    /// The secret itself.
    Plain(#[schemars(with = "String")] SecretString),
    /// A file that contains the secret.
    File {
        /// Path of the file.
        #[schemars(example = json!("/run/secrets/token"))]
        file: PathBuf,
    },
    /// An environment variable that contains the secret.
    Env {
        /// Name of the variable.
        #[schemars(example = json!("EXOTEL_TOKEN"))]
        env: String,
    },
}

impl Secret {
    /// Reads the secret; `key` is its key in the configuration, for errors.
    ///
    /// # Errors
    ///
    /// When its file or variable does not exist, or it is empty.
    pub fn read(&self, key: &str) -> Result<SecretString, ConfigError> {
        let secret = match self {
            Self::Plain(secret) => secret.clone(),
            Self::File { file } => {
                let text = std::fs::read_to_string(file).map_err(|error| {
                    ConfigError(format!("{key}: cannot read {}: {error}", file.display()))
                })?;
                text.trim_end_matches(['\r', '\n']).to_string().into()
            }
            Self::Env { env } => std::env::var(env)
                .map(SecretString::from)
                .map_err(|_| ConfigError(format!("{key}: the variable {env} is not set")))?,
        };
        if secret.expose_secret().is_empty() {
            return Err(ConfigError(format!("{key} is empty")));
        }
        Ok(secret)
    }
}
