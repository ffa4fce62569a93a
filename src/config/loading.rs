//! Loading the configuration: the file, then the environment, with errors that name the source.

use std::path::{Path, PathBuf};

use figment::Figment;
use figment::error::{Actual, Kind};
use figment::providers::{Format, Toml};
use figment::value::{Dict, Value};

use super::environment::{Environment, misspelt};
use super::{Config, ConfigError, Settings};
use crate::campaign::problem::nearest;

/// Default path of the file.
const DEFAULT_FILE: &str = "flowcast.toml";

impl Config {
    /// Returns the path of the configuration file, if any.
    ///
    /// It is `file`, else `FLOWCAST_CONFIG`, else `./flowcast.toml` if that exists.
    pub fn file(file: Option<&Path>) -> Option<PathBuf> {
        let named = || std::env::var_os("FLOWCAST_CONFIG").map(PathBuf::from);
        let usual = || Some(PathBuf::from(DEFAULT_FILE)).filter(|path| path.is_file());
        file.map(Path::to_path_buf).or_else(named).or_else(usual)
    }

    /// Loads the configuration from [`Config::file`] and the environment.
    ///
    /// # Errors
    ///
    /// When the named file does not exist, or a key is invalid.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        let mut figment = Figment::new();
        if let Some(path) = Self::file(file) {
            if !path.is_file() {
                return Err(ConfigError(format!("no such configuration file: {}", path.display())));
            }
            check_syntax(&path)?;
            figment = figment.merge(Toml::file_exact(path));
        }
        let figment = figment.merge(Environment);
        let config: Self = figment.extract().map_err(|error| ConfigError(explain(error)))?;
        let tables: Dict = figment.extract().map_err(|error| ConfigError(explain(error)))?;
        let tables = Value::from(tables);
        if let Some(place) = list_for_table(&tables, &mut Vec::new()) {
            return Err(ConfigError(format!("{place}: must be a table or a value, not a list")));
        }
        Ok(Self { settings: Settings::from_tables(&tables), ..config })
    }

    /// Warns of variables that look like keys of the configuration, but are not read.
    pub fn warn_of_misspelt_variables(file: Option<&Path>) {
        let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
        let text = Self::file(file).and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
        for (name, meant) in names.filter_map(|name| Some((name.clone(), misspelt(&name)?))) {
            // The file may name the variable as the source of a secret.
            if !text.contains(&name) {
                tracing::warn!(
                    "the variable {name} is not read: put two underscores between a table and its key, e.g. {meant}"
                );
            }
        }
    }

    /// Returns what is set, to detect changes later.
    pub fn settings(&self) -> Settings {
        self.settings.clone()
    }
}

/// Keys of lists.
const LISTS: [&str; 6] = [
    "callbacks.keys",
    "callbacks.stop_words",
    "http.tokens",
    "audiences.allow",
    "events.webhooks",
    "events.webhooks.events",
];

/// Finds a list in place of a table.
///
/// Serde would read it as the values of the table, in order.
fn list_for_table(value: &Value, path: &mut Vec<String>) -> Option<String> {
    let items = match value {
        Value::Array(_, items) => items,
        Value::Dict(_, dict) => {
            return dict.iter().find_map(|(key, value)| {
                path.push(key.clone());
                let found = list_for_table(value, path);
                path.pop();
                found
            });
        }
        _ => return None,
    };
    let is_list = LISTS.contains(&path.join(".").as_str());
    if !is_list || items.iter().any(|item| matches!(item, Value::Array(..))) {
        return Some(path.join("."));
    }
    items.iter().find_map(|item| list_for_table(item, path))
}

/// Checks the syntax of a file. The error of the library would quote a line, which may have a secret.
fn check_syntax(path: &Path) -> Result<(), ConfigError> {
    let shown = path.display();
    let text = std::fs::read_to_string(path)
        .map_err(|error| ConfigError(format!("cannot read the configuration file {shown}: {error}")))?;
    Toml::from_str::<Dict>(&text).map(drop).map_err(|error| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
        let what = error.message().replace('\n', "; ");
        ConfigError(format!("{shown}: line {line}, column {column}: not valid TOML: {what}"))
    })
}

/// Returns the type that serde expected in the words of TOML.
fn expected_type(expected: &str) -> &str {
    match expected {
        "a sequence" => "a list",
        "a map" => "a table",
        "u8" | "u16" | "u32" | "u64" | "usize" | "i64" => "a whole number",
        "f64" => "a number",
        "path string" => "a string",
        table if table.starts_with("struct ") => "a table",
        other => other,
    }
}

/// Returns the type of a value, never the value, which may be a secret.
fn found_type(found: &Actual) -> &'static str {
    match found {
        Actual::Bool(_) => "a boolean",
        Actual::Unsigned(_) | Actual::Signed(_) => "a whole number",
        Actual::Float(_) => "a number",
        Actual::Char(_) | Actual::Str(_) => "a string",
        Actual::Seq => "a list",
        Actual::Map | Actual::StructVariant => "a table",
        _ => "a value of another type",
    }
}

/// Returns the text of an error, with the key, its source and the most similar name.
fn explain(error: figment::Error) -> String {
    let each = |error: figment::Error| {
        let from = error.metadata.as_ref().map(|metadata| match &metadata.source {
            Some(source) => format!("{source}: "),
            None => format!("{}: ", metadata.name),
        });
        let key = if error.path.is_empty() { String::new() } else { format!("{}: ", error.path.join(".")) };
        let what = match &error.kind {
            Kind::UnknownField(name, known) => {
                format!("unknown key {name:?}{}", nearest(name, known.iter().copied()))
            }
            Kind::UnknownVariant(name, known) => {
                format!("unknown value {name:?}{}", nearest(name, known.iter().copied()))
            }
            Kind::MissingField(name) => format!("{name:?} is required but missing"),
            Kind::InvalidType(found, expected) | Kind::InvalidValue(found, expected) => {
                format!("must be {}, not {}", expected_type(expected), found_type(found))
            }
            kind => kind.to_string(),
        };
        format!("{}{key}{what}", from.unwrap_or_default())
    };
    error.into_iter().map(each).collect::<Vec<_>>().join("\n")
}
