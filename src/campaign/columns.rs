//! The columns of an audience, and how placeholders name them.

use unicode_ident::{is_xid_continue, is_xid_start};

use super::problem::nearest;

/// The names that a placeholder may use besides columns.
pub const BUILT_IN: [&str; 4] = ["recipient", "campaign_id", "message_ref", "row"];

/// An audience's columns, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Columns(Vec<String>);

/// A name that matches no column, or several.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoColumn {
    /// No column matches.
    #[error("the audience has no column {name:?}{near}")]
    Unknown {
        /// The name.
        name: String,
        /// A hint with the nearest column.
        near: String,
    },
    /// Several columns differ only in case or spaces.
    #[error(
        "{0:?} could mean more than one column of the audience; write it exactly as in the header, or rename one of them"
    )]
    Ambiguous(String),
}

impl Columns {
    /// Default maximum number of columns of an audience.
    pub const USUAL_LIMIT: usize = 1_000;

    /// Creates the columns of a header.
    pub fn new(names: Vec<String>) -> Self {
        Self(names)
    }

    /// Returns the names.
    pub fn names(&self) -> &[String] {
        &self.0
    }

    /// Returns the name of a column in placeholders: letters and digits of any script stay, other characters become
    /// `_`.
    ///
    /// ```
    /// use flowcast::campaign::Columns;
    ///
    /// assert_eq!(Columns::identifier("First Name"), "First_Name");
    /// assert_eq!(Columns::identifier("Price (INR)"), "Price_INR");
    /// ```
    pub fn identifier(name: &str) -> String {
        let parts = name.split(|c: char| !is_xid_continue(c)).filter(|part| !part.is_empty());
        let joined = parts.collect::<Vec<_>>().join("_");
        match joined.chars().next() {
            Some(first) if is_xid_start(first) || first == '_' => joined,
            _ => format!("_{joined}"),
        }
    }

    /// Returns the column that a placeholder names. The hint of an error is an identifier, so that it can be copied.
    ///
    /// # Errors
    ///
    /// If no column matches, or several do.
    pub fn find_for_placeholder(&self, name: &str) -> Result<usize, NoColumn> {
        self.find(name).map_err(|error| match error {
            NoColumn::Unknown { name, .. } => {
                let known: Vec<String> = self.0.iter().map(|column| Self::identifier(column)).collect();
                let near = nearest(&name, known.iter().map(String::as_str).chain(BUILT_IN));
                NoColumn::Unknown { name, near }
            }
            ambiguous @ NoColumn::Ambiguous(_) => ambiguous,
        })
    }

    /// Returns the column that `name` matches: exactly, or ignoring case, spaces and signs.
    ///
    /// # Errors
    ///
    /// If no column matches, or several do.
    pub fn find(&self, name: &str) -> Result<usize, NoColumn> {
        if let Some(index) = self.0.iter().position(|column| column == name) {
            return Ok(index);
        }
        let wanted = normalize(name);
        let mut alike = (0..self.0.len()).filter(|index| normalize(&self.0[*index]) == wanted);
        match (alike.next(), alike.next()) {
            (Some(index), None) => Ok(index),
            (Some(_), Some(_)) => Err(NoColumn::Ambiguous(name.into())),
            (None, _) => {
                let near = nearest(name, self.0.iter().map(String::as_str));
                Err(NoColumn::Unknown { name: name.into(), near })
            }
        }
    }
}

fn normalize(name: &str) -> String {
    Columns::identifier(name.trim()).to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_is_found_in_any_case_and_with_its_spaces() {
        let columns = Columns::new(["Phone", "First Name", "order-id"].map(String::from).into());
        assert_eq!(columns.find("phone"), Ok(0));
        assert_eq!(columns.find("first_name"), Ok(1));
        assert_eq!(columns.find("Order_ID"), Ok(2));
        let error = columns.find_for_placeholder("firstname").unwrap_err().to_string();
        assert_eq!(error, r#"the audience has no column "firstname"; did you mean "First_Name"?"#);
    }

    #[test]
    fn only_placeholders_may_name_built_in_values() {
        let columns = Columns::new(["Mobile Number", "name"].map(String::from).into());
        let error = columns.find("row").unwrap_err().to_string();
        assert_eq!(error, r#"the audience has no column "row"; expected one of: Mobile Number, name"#);
        let error = columns.find_for_placeholder("rows").unwrap_err().to_string();
        assert_eq!(error, r#"the audience has no column "rows"; did you mean "row"?"#);
    }

    #[test]
    fn a_name_that_could_be_two_columns_is_refused() {
        let columns = Columns::new(["Name", "NAME"].map(String::from).into());
        assert_eq!(columns.find("Name"), Ok(0));
        assert_eq!(columns.find("name"), Err(NoColumn::Ambiguous("name".into())));
    }
}
