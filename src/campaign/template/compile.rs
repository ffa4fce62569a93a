//! Compiles a message: its constant JSON is serialised once and split at the placeholders.

use std::{collections::HashMap, sync::Arc};

use serde_json::Value;

use super::json_text::{write_quoted, write_value};
use super::{Envelope, MESSAGE, Op, RenderedCheck, Template, expression::Compiler, rewrite};
use crate::campaign::capability::Callbacks;
use crate::campaign::columns::{BUILT_IN, Columns};
use crate::campaign::problem::{Problem, Problems, step};
use crate::campaign::rules::{Limit, exceeds, is_template};

impl Template {
    /// Compiles a message. `limits` are those of the job's strings, by pointer into the job.
    ///
    /// # Errors
    ///
    /// Each string with an invalid placeholder or an unknown column, by pointer into the job.
    pub fn compile(
        envelope: &Envelope,
        limits: &[(String, Limit)],
        check_rendered: bool,
        columns: &Columns,
        callbacks: Option<Arc<Callbacks>>,
    ) -> Result<Self, Vec<Problem>> {
        // A map, because the number of strings in a message is not limited.
        let limits: HashMap<&str, Limit> =
            limits.iter().map(|(known, limit)| (known.as_str(), *limit)).collect();
        let mut compiler = Compiler::new(columns);
        let callback_at = envelope.callback_at.filter(|_| callbacks.is_some());
        let mut builder = Builder { callback_at, ..Builder::default() };
        builder.value(&envelope.value, "", &mut |text, place| {
            let pointer = envelope.place_in_job(place);
            let own = envelope.limits.iter().find(|(known, _)| *known == place).map(|(_, limit)| *limit);
            let limit = limits.get(pointer.as_str()).copied();
            let limit = own.or(limit).unwrap_or(Limit::FREE);
            match compiler.compile(text, limit.is_text) {
                // Too long even without values: no recipient could get it.
                Ok(text) if limit.max > 0 && text.least_length() > limit.max => {
                    let problem = exceeds(pointer, text.least_length(), limit.max, limit.source);
                    let message = format!("even without its values it {}", problem.message);
                    Err(Problem { message, ..problem })
                }
                Ok(text) => Ok(Op::Text { text, limit, pointer }),
                Err(error) => Err(Problem::new(pointer, error)),
            }
        });
        builder.flush();
        if builder.least_bytes > MESSAGE {
            let error = format!("exceeds {MESSAGE} bytes even without its values");
            builder.problems.add(Problem::new("/message", error));
        }
        builder.problems.or(())?;
        let too_long_already = envelope.limits.iter().filter_map(|(place, limit)| {
            let text = envelope.value.pointer(place)?.as_str().filter(|text| !is_template(text))?;
            let length = text.chars().count();
            let problem = || exceeds(envelope.place_in_job(place), length, limit.max, limit.source);
            (length > limit.max).then(problem)
        });
        let problems: Vec<Problem> = too_long_already.collect();
        if !problems.is_empty() {
            return Err(problems);
        }
        let check =
            check_rendered.then_some(RenderedCheck { pointer: envelope.content, beside: envelope.beside });
        Ok(Self { ops: builder.ops, jinja: compiler.jinja, columns: compiler.used, callbacks, check })
    }

    /// Returns a problem for each name in a job's texts that could be both a column and flowcast's own value: `row`,
    /// `recipient`.
    pub fn ambiguous(texts: &Value, pointer: &str, columns: &Columns) -> Vec<Problem> {
        match texts {
            Value::String(text) => {
                let is_both = |name: &String| BUILT_IN.contains(&name.as_str()) && columns.find(name).is_ok();
                let named = rewrite::names(text).into_iter().find(is_both);
                let problem = named.map(|name| {
                    let why = format!("{{{{ {name} }}}} is both a column of the audience and a built-in value; rename the column");
                    Problem::new(pointer, why)
                });
                problem.into_iter().collect()
            }
            Value::Array(items) => {
                let of = |(nth, item): (usize, &Value)| {
                    Self::ambiguous(item, &step(pointer, &nth.to_string()), columns)
                };
                items.iter().enumerate().flat_map(of).collect()
            }
            Value::Object(fields) => fields
                .iter()
                .flat_map(|(name, field)| Self::ambiguous(field, &step(pointer, name), columns))
                .collect(),
            _ => Vec::new(),
        }
    }
}

/// Splits a JSON value into constants and strings with placeholders.
#[derive(Default)]
struct Builder {
    /// The pointer of the callback address.
    callback_at: Option<&'static str>,
    ops: Vec<Op>,
    constant: Vec<u8>,
    /// Minimum size of the message, in bytes.
    least_bytes: usize,
    problems: Problems,
}

impl Builder {
    fn value(
        &mut self,
        value: &Value,
        pointer: &str,
        compile: &mut impl FnMut(&str, &str) -> Result<Op, Problem>,
    ) {
        if self.least_bytes + self.constant.len() > MESSAGE {
            return;
        }
        match value {
            Value::Object(map) => {
                self.constant.push(b'{');
                for (index, (key, value)) in map.iter().enumerate() {
                    if index > 0 {
                        self.constant.push(b',');
                    }
                    write_quoted(key, &mut self.constant);
                    self.constant.push(b':');
                    self.value(value, &step(pointer, key), compile);
                }
                self.constant.push(b'}');
            }
            Value::Array(items) => {
                self.constant.push(b'[');
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        self.constant.push(b',');
                    }
                    self.value(item, &step(pointer, &index.to_string()), compile);
                }
                self.constant.push(b']');
            }
            Value::String(_) if self.callback_at == Some(pointer) => {
                self.flush();
                self.ops.push(Op::Callback);
            }
            Value::String(text) if is_template(text) => match compile(text, pointer) {
                Ok(op) => {
                    self.flush();
                    self.least_bytes += op.least_bytes();
                    self.ops.push(op);
                }
                Err(problem) => self.problems.add(problem),
            },
            constant => {
                write_value(constant, &mut self.constant);
            }
        }
    }

    fn flush(&mut self) {
        if !self.constant.is_empty() {
            self.ops.push(Op::Constant(std::mem::take(&mut self.constant).into()));
        }
    }
}
