//! Rewrites a template so that flowcast's own operators (`operations.rs`) compute it.
//!
//! Every value of a CSV file is a text. In Jinja a text is greater than any number and equal to none, so
//! `{% if amount > 1000 %}` would be true for each row. minijinja's parser reads the template, and this module writes it
//! with a filter in place of each operator. Names, texts and literals become identifiers of its own, so that no column and
//! no text can have a meaning in the result.

mod expressions;

use minijinja::machinery::ast::{Expr, ForLoop, IfCond, Stmt};
use minijinja::machinery::{Token, parse, tokenize};
use minijinja::syntax::SyntaxConfig;
use minijinja::{Error, Value};

use super::syntax;

/// Maximum number of tokens of a template: parser, compiler and this module recurse over them.
const TOKENS: usize = 1000;

/// Maximum size of a rewritten template, in bytes: a chain of comparisons repeats its operands.
pub(super) const RESULT: usize = 64 * 1024;
/// The error of a larger one.
pub(super) const TOO_LARGE: &str = "has too many comparisons in its placeholders";

/// A rewritten template.
pub(super) struct Rewritten {
    pub(super) source: String,
    /// The expression, if the template is nothing else.
    pub(super) alone: Option<String>,
    /// The names of columns and built-in values; the name at an index has the identifier [`column()`].
    pub(super) names: Vec<String>,
    /// Texts and literals; the value at an index has the identifier [`constant()`].
    pub(super) constants: Vec<Value>,
    /// How often it uses a name or a text literal.
    pub(super) uses: usize,
}

/// Returns the identifier of a name.
pub(super) fn column(index: usize) -> String {
    format!("c{index}")
}

/// Returns the identifier of a literal of a template.
pub(super) fn constant(template: usize, index: usize) -> String {
    format!("k{template}_{index}")
}

/// Returns the syntax of messages, where a line break at the end is kept.
pub(super) fn jinja_syntax() -> SyntaxConfig {
    SyntaxConfig::builder().keep_trailing_newline(true).build().unwrap_or_default()
}

/// Rewrites the template with a number.
///
/// # Errors
///
/// What is wrong with the template, or not supported.
pub(super) fn rewrite(text: &str, template: usize) -> Result<Rewritten, String> {
    let parsed = parsed(text)?;
    let mut writer = Writer { template, ..Writer::default() };
    writer.statement(&parsed)?;
    let Writer { out, names, constants, uses, .. } = writer;
    if out.len() > RESULT {
        return Err(TOO_LARGE.into());
    }
    let is_alone = matches!(&parsed, Stmt::Template(all) if matches!(&all.children[..], [Stmt::EmitExpr(_)]));
    let inner = out.strip_prefix("{{").and_then(|rest| rest.strip_suffix("}}"));
    let alone = inner.filter(|_| is_alone).map(str::to_owned);
    Ok(Rewritten {
        source: out,
        alone,
        names: names.into_iter().map(String::from).collect(),
        constants,
        uses,
    })
}

fn parsed(text: &str) -> Result<Stmt<'_>, String> {
    let mut count = 0;
    for token in tokenize(text, false, jinja_syntax()) {
        match token {
            Ok((Token::TemplateData(_), _)) => {}
            Ok(_) => count += 1,
            Err(error) => return Err(explained(text, &error)),
        }
        if count > TOKENS {
            return Err(format!("has more than {TOKENS} names, values and operators in its placeholders"));
        }
    }
    parse(text, "", jinja_syntax()).map_err(|error| explained(text, &error))
}

/// Returns what is wrong with a template that cannot be parsed.
fn explained(text: &str, error: &Error) -> String {
    let mistake = syntax::check(text).err();
    mistake
        .unwrap_or_else(|| format!("is not a valid template: {}", error.detail().unwrap_or("syntax error")))
}

/// Returns the names that a template uses as conditions, as in `{% if vip %}`, where any text is true.
pub fn conditions(template: &str) -> Vec<String> {
    let Ok(parsed) = parsed(template) else { return Vec::new() };
    let mut writer = Writer::default();
    // What was written before an unsupported expression is enough.
    let _ = writer.statement(&parsed);
    writer.conditions.into_iter().map(String::from).collect()
}

/// Returns the names in a template's placeholders and statements.
pub(super) fn names(template: &str) -> Vec<String> {
    let Ok(parsed) = parsed(template) else { return Vec::new() };
    let mut writer = Writer::default();
    let _ = writer.statement(&parsed);
    writer.names.into_iter().map(String::from).collect()
}

/// Writes a parsed template.
#[derive(Default)]
struct Writer<'t> {
    template: usize,
    out: String,
    names: Vec<&'t str>,
    constants: Vec<Value>,
    /// The variables of loops that are in scope.
    locals: Vec<&'t str>,
    loops: usize,
    depth: usize,
    uses: usize,
    conditions: Vec<&'t str>,
}

impl<'t> Writer<'t> {
    fn statements(&mut self, statements: &[Stmt<'t>]) -> Result<(), String> {
        statements.iter().try_for_each(|statement| self.statement(statement))
    }

    fn statement(&mut self, statement: &Stmt<'t>) -> Result<(), String> {
        match statement {
            Stmt::Template(template) => self.statements(&template.children),
            Stmt::EmitRaw(text) => {
                let text = self.literal(text.raw.into());
                self.write(&format!("{{{{ {text} }}}}"));
                Ok(())
            }
            Stmt::EmitExpr(emitted) => {
                let value = self.expression(&emitted.expr)?;
                self.write(&format!("{{{{ {value}|__emit() }}}}"));
                Ok(())
            }
            Stmt::IfCond(condition) => {
                self.branches("if", condition)?;
                self.write("{% endif %}");
                Ok(())
            }
            Stmt::ForLoop(repeated) => self.for_loop(repeated),
            other => Err(syntax::unsupported_statement(keyword(other))),
        }
    }

    fn branches(&mut self, keyword: &str, condition: &IfCond<'t>) -> Result<(), String> {
        let test = self.condition(&condition.expr)?;
        self.write(&format!("{{% {keyword} {test} %}}"));
        self.statements(&condition.true_body)?;
        match &condition.false_body[..] {
            [] => Ok(()),
            [Stmt::IfCond(next)] => self.branches("elif", next),
            body => {
                self.write("{% else %}");
                self.statements(body)
            }
        }
    }

    fn for_loop(&mut self, repeated: &ForLoop<'t>) -> Result<(), String> {
        if repeated.recursive {
            return Err("recursive loops are not supported in messages".into());
        }
        let items = self.expression(&repeated.iter)?;
        let targets: Vec<&'t str> = match &repeated.target {
            Expr::Var(name) => vec![name.id],
            Expr::List(list) => variables(&list.items)?,
            Expr::Tuple(tuple) => variables(&tuple.items)?,
            _ => return Err("has a loop whose variables are not names".into()),
        };
        let outer = self.locals.len();
        let written: Vec<String> = targets.iter().map(|name| local(name)).collect();
        let is_unpacked = !matches!(repeated.target, Expr::Var(_)) && written.len() == 1;
        let written = written.join(", ") + if is_unpacked { "," } else { "" };
        self.locals.extend(targets);
        self.write(&format!("{{% for {written} in {items}"));
        if let Some(filter) = &repeated.filter_expr {
            let filter = self.condition(filter)?;
            self.write(&format!(" if {filter}"));
        }
        self.write(" %}");
        self.loops += 1;
        self.statements(&repeated.body)?;
        self.loops -= 1;
        self.locals.truncate(outer);
        if !repeated.else_body.is_empty() {
            self.write("{% else %}");
            self.statements(&repeated.else_body)?;
        }
        self.write("{% endfor %}");
        Ok(())
    }

    fn write(&mut self, text: &str) {
        self.out.push_str(text);
    }

    fn literal(&mut self, value: Value) -> String {
        self.constants.push(value);
        constant(self.template, self.constants.len() - 1)
    }
}

/// Returns the keyword of a statement that is not supported.
fn keyword(statement: &Stmt<'_>) -> &'static str {
    match statement {
        Stmt::WithBlock(_) => "with",
        Stmt::Set(_) | Stmt::SetBlock(_) => "set",
        Stmt::AutoEscape(_) => "autoescape",
        Stmt::FilterBlock(_) => "filter",
        Stmt::Do(_) => "do",
        Stmt::Block(_) => "block",
        Stmt::Import(_) => "import",
        Stmt::FromImport(_) => "from",
        Stmt::Extends(_) => "extends",
        Stmt::Include(_) => "include",
        Stmt::Macro(_) => "macro",
        Stmt::CallBlock(_) => "call",
        _ => "statement",
    }
}

fn local(name: &str) -> String {
    format!("v_{name}")
}

fn variables<'t>(items: &[Expr<'t>]) -> Result<Vec<&'t str>, String> {
    let name = |item: &Expr<'t>| match item {
        Expr::Var(name) => Ok(name.id),
        _ => Err("has a loop whose variables are not names".to_owned()),
    };
    items.iter().map(name).collect()
}
