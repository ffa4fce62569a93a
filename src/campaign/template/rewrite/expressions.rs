//! Writes the expressions of a template, with a filter in place of each operator.

use std::fmt::Write as _;

use minijinja::machinery::ast::{
    BinOp, BinOpKind, Call, CallArg, Compare, CompareOpKind, Expr, Filter, GetAttr, GetItem, IfExpr, Map,
    Slice, Test, UnaryOp, UnaryOpKind,
};

use super::{RESULT, TOO_LARGE, Writer, column, local};
use crate::campaign::problem::nearest;
use crate::campaign::template::syntax::{self, FILTERS, TESTS};

/// Maximum depth of an expression.
const DEPTH: usize = 100;
/// Functions of a template.
const FUNCTIONS: [&str; 2] = ["range", "dict"];

impl<'t> Writer<'t> {
    /// Writes an expression of which only the truth counts.
    pub(super) fn condition(&mut self, expression: &Expr<'t>) -> Result<String, String> {
        if let Expr::Var(name) = expression
            && !self.locals.contains(&name.id)
        {
            self.conditions.push(name.id);
        }
        self.expression(expression)
    }

    /// Writes an expression, to which a filter can be appended.
    pub(super) fn expression(&mut self, expression: &Expr<'t>) -> Result<String, String> {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err("is nested too deeply".into());
        }
        let written = match expression {
            Expr::Var(name) => Ok(self.variable(name.id)),
            Expr::Const(literal) => {
                self.uses += usize::from(literal.value.as_str().is_some());
                Ok(self.literal(literal.value.clone()))
            }
            Expr::Slice(slice) => self.slice(slice),
            Expr::UnaryOp(unary) => self.unary(unary),
            Expr::BinOp(binary) => self.binary(binary),
            Expr::Compare(compare) => self.comparisons(compare),
            Expr::IfExpr(choice) => self.choice(choice),
            Expr::Filter(filter) => self.filter(filter),
            Expr::Test(test) => self.test(test),
            Expr::GetAttr(attribute) => self.attribute(attribute),
            Expr::GetItem(item) => self.item(item),
            Expr::Call(call) => self.call(call),
            Expr::List(list) => self.list(&list.items).map(|items| format!("[{items}]")),
            Expr::Tuple(tuple) => self.tuple(&tuple.items),
            Expr::Map(map) => self.map(map),
        }?;
        self.depth -= 1;
        if written.len() > RESULT {
            return Err(TOO_LARGE.into());
        }
        Ok(written)
    }

    fn slice(&mut self, slice: &Slice<'t>) -> Result<String, String> {
        let mut bounds = Vec::new();
        for bound in [&slice.start, &slice.stop, &slice.step] {
            bounds.push(match bound {
                Some(bound) => self.expression(bound)?,
                None => "none".into(),
            });
        }
        Ok(format!("{}|__slice({})", self.expression(&slice.expr)?, bounds.join(", ")))
    }

    fn unary(&mut self, unary: &UnaryOp<'t>) -> Result<String, String> {
        Ok(match unary.op {
            UnaryOpKind::Not => format!("(not {})", self.condition(&unary.expr)?),
            UnaryOpKind::Neg => format!("{}|__neg", self.expression(&unary.expr)?),
        })
    }

    fn choice(&mut self, choice: &IfExpr<'t>) -> Result<String, String> {
        let test = self.condition(&choice.test_expr)?;
        let then = self.expression(&choice.true_expr)?;
        Ok(match &choice.false_expr {
            Some(other) => format!("({then} if {test} else {})", self.expression(other)?),
            None => format!("({then} if {test})"),
        })
    }

    /// Writes a chain of filters.
    fn filter(&mut self, last: &Filter<'t>) -> Result<String, String> {
        let mut chain = vec![last];
        let mut value = last.expr.as_ref();
        while let Some(Expr::Filter(inner)) = value {
            chain.push(inner);
            value = inner.expr.as_ref();
        }
        let value = value.ok_or_else(|| syntax::unsupported_statement("filter"))?;
        let mut written = self.expression(value)?;
        for filter in chain.into_iter().rev() {
            known("filter", filter.name, &FILTERS)?;
            let arguments = self.arguments(&filter.args)?;
            let _ = write!(written, "|{}({arguments})", filter.name);
        }
        Ok(written)
    }

    fn test(&mut self, test: &Test<'t>) -> Result<String, String> {
        known("test", test.name, &TESTS)?;
        if let ("in", [CallArg::Pos(container)]) = (test.name, &test.args[..]) {
            return self.membership("__in", &test.expr, container);
        }
        let value = self.expression(&test.expr)?;
        let arguments = self.arguments(&test.args)?;
        let is_text = matches!(&test.args[..], [CallArg::Pos(argument)] if is_literal_text(argument));
        Ok(match own_test(test.name) {
            Some(filter @ ("__eq" | "__ne")) if is_text => format!("{value}|{filter}_text({arguments})"),
            Some(filter) => format!("{value}|{filter}({arguments})"),
            // `__emit` counts the size of the value.
            None => format!("({value}|__emit() is {}({arguments}))", test.name),
        })
    }

    fn attribute(&mut self, attribute: &GetAttr<'t>) -> Result<String, String> {
        Ok(format!("({}).{}", self.expression(&attribute.expr)?, attribute.name))
    }

    fn item(&mut self, item: &GetItem<'t>) -> Result<String, String> {
        Ok(format!("{}|__item({})", self.expression(&item.expr)?, self.expression(&item.subscript_expr)?))
    }

    fn call(&mut self, call: &Call<'t>) -> Result<String, String> {
        let function = match &call.expr {
            Expr::Var(name) if FUNCTIONS.contains(&name.id) => name.id.to_owned(),
            Expr::Var(name) => {
                return Err(format!("has an unknown function {:?}{}", name.id, nearest(name.id, FUNCTIONS)));
            }
            Expr::GetAttr(method) if matches!(&method.expr, Expr::Var(name) if self.is_loop(name.id)) => {
                if call.args.is_empty() {
                    return Err(format!("calls loop.{} without a value", method.name));
                }
                format!("loop.{}", method.name)
            }
            _ => return Err("calls a method; write a filter, e.g. {{ name | upper }}".into()),
        };
        Ok(format!("{function}({})", self.arguments(&call.args)?))
    }

    fn tuple(&mut self, items: &[Expr<'t>]) -> Result<String, String> {
        let written = self.list(items)?;
        Ok(if items.is_empty() { "()".into() } else { format!("({written},)") })
    }

    fn map(&mut self, map: &Map<'t>) -> Result<String, String> {
        let mut pairs = Vec::new();
        for (key, value) in map.keys.iter().zip(&map.values) {
            if !matches!(key, Expr::Const(_)) {
                return Err("has a map with a key that is not a literal".into());
            }
            pairs.push(format!("{}: {}", self.expression(key)?, self.expression(value)?));
        }
        Ok(format!("{{{}}}", pairs.join(", ")))
    }

    fn variable(&mut self, name: &'t str) -> String {
        if self.locals.contains(&name) {
            return local(name);
        }
        if self.is_loop(name) {
            return name.into();
        }
        self.uses += 1;
        let index = self.names.iter().position(|known| *known == name).unwrap_or_else(|| {
            self.names.push(name);
            self.names.len() - 1
        });
        column(index)
    }

    fn is_loop(&self, name: &str) -> bool {
        name == "loop" && self.loops > 0
    }

    /// Writes a chain of operators that are computed from left to right.
    fn binary(&mut self, last: &BinOp<'t>) -> Result<String, String> {
        let comparison = match last.op {
            BinOpKind::ScAnd => return self.logical("and", |op| matches!(op, BinOpKind::ScAnd), last),
            BinOpKind::ScOr => return self.logical("or", |op| matches!(op, BinOpKind::ScOr), last),
            BinOpKind::Eq => Some(CompareOpKind::Eq),
            BinOpKind::Ne => Some(CompareOpKind::Ne),
            BinOpKind::Lt => Some(CompareOpKind::Lt),
            BinOpKind::Lte => Some(CompareOpKind::Lte),
            BinOpKind::Gt => Some(CompareOpKind::Gt),
            BinOpKind::Gte => Some(CompareOpKind::Gte),
            BinOpKind::In => Some(CompareOpKind::In),
            _ => None,
        };
        if let Some(operator) = comparison {
            return self.comparison(operator, &last.left, &last.right);
        }
        let (mut chain, mut first) = (vec![last], &last.left);
        while let Expr::BinOp(inner) = first
            && calculation(inner.op).is_some()
        {
            chain.push(inner);
            first = &inner.left;
        }
        let mut written = self.expression(first)?;
        // `+` after a literal text joins, also the values behind it.
        let mut joins = is_joined(first);
        for operation in chain.into_iter().rev() {
            let right = self.expression(&operation.right)?;
            joins |= is_joined(&operation.right);
            let filter = match operation.op {
                BinOpKind::Add if joins => "__concat",
                operator => calculation(operator).unwrap_or_default(),
            };
            let _ = write!(written, "|{filter}({right})");
        }
        Ok(written)
    }

    /// Writes a chain of `and`, or one of `or`, without nesting.
    fn logical(
        &mut self,
        word: &str,
        is_same: fn(BinOpKind) -> bool,
        last: &BinOp<'t>,
    ) -> Result<String, String> {
        let (mut operands, mut left) = (vec![&last.right], &last.left);
        while let Expr::BinOp(inner) = left
            && is_same(inner.op)
        {
            operands.push(&inner.right);
            left = &inner.left;
        }
        operands.push(left);
        let written = operands.into_iter().rev().map(|operand| self.condition(operand));
        let written: Vec<String> = written.collect::<Result<_, _>>()?;
        Ok(format!("({})", written.join(&format!(" {word} "))))
    }

    fn comparisons(&mut self, compare: &Compare<'t>) -> Result<String, String> {
        let mut left = &compare.expr;
        let mut parts = Vec::new();
        for part in &compare.ops {
            parts.push(self.comparison(part.op, left, &part.expr)?);
            left = &part.expr;
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { format!("({})", parts.join(" and ")) })
    }

    fn comparison(
        &mut self,
        operator: CompareOpKind,
        left: &Expr<'t>,
        right: &Expr<'t>,
    ) -> Result<String, String> {
        let filter = match operator {
            CompareOpKind::Eq => "__eq",
            CompareOpKind::Ne => "__ne",
            CompareOpKind::Lt => "__lt",
            CompareOpKind::Lte => "__le",
            CompareOpKind::Gt => "__gt",
            CompareOpKind::Gte => "__ge",
            CompareOpKind::In => "__in",
            CompareOpKind::NotIn => "__not_in",
        };
        let (left, right, text) = match operator {
            CompareOpKind::Eq | CompareOpKind::Ne if is_literal_text(right) => (left, right, "_text"),
            CompareOpKind::Eq | CompareOpKind::Ne if is_literal_text(left) => (right, left, "_text"),
            _ => (left, right, ""),
        };
        if matches!(operator, CompareOpKind::In | CompareOpKind::NotIn) {
            return self.membership(filter, left, right);
        }
        let left = self.expression(left)?;
        Ok(format!("{left}|{filter}{text}({})", self.expression(right)?))
    }

    /// Writes `in` or `not in`. Literal texts are compared as they are written: those of a list are separate arguments.
    fn membership(&mut self, filter: &str, value: &Expr<'t>, container: &Expr<'t>) -> Result<String, String> {
        let is_text = is_literal_text(value);
        let value = self.expression(value)?;
        let items = match container {
            Expr::List(list) if !is_text => &list.items,
            Expr::Tuple(tuple) if !is_text => &tuple.items,
            Expr::Map(map) if !is_text => &map.keys,
            other => {
                let container = self.expression(other)?;
                return Ok(match (is_text, filter) {
                    (false, _) => format!("{value}|{filter}({container})"),
                    (true, "__in") => format!("{container}|__has_text({value})"),
                    (true, _) => format!("(not {container}|__has_text({value}))"),
                });
            }
        };
        let (mut others, mut texts) = (Vec::new(), String::new());
        for item in items {
            let written = self.expression(item)?;
            if is_literal_text(item) {
                let _ = write!(texts, ", {written}");
            } else {
                others.push(written);
            }
        }
        Ok(format!("{value}|{filter}([{}]{texts})", others.join(", ")))
    }

    fn arguments(&mut self, arguments: &[CallArg<'t>]) -> Result<String, String> {
        let mut written = Vec::new();
        for argument in arguments {
            written.push(match argument {
                CallArg::Pos(value) => self.expression(value)?,
                CallArg::Kwarg(name, value) => format!("{name}={}", self.expression(value)?),
                CallArg::PosSplat(_) | CallArg::KwargSplat(_) => {
                    return Err("has an argument with \"*\", which is not supported in messages".into());
                }
            });
        }
        Ok(written.join(", "))
    }

    fn list(&mut self, items: &[Expr<'t>]) -> Result<String, String> {
        let mut written = String::new();
        for (nth, item) in items.iter().enumerate() {
            let comma = if nth == 0 { "" } else { ", " };
            let _ = write!(written, "{comma}{}", self.expression(item)?);
        }
        Ok(written)
    }
}

/// Returns whether a value is a text however its parts are written, so that `+` beside it joins.
fn is_joined(expression: &Expr<'_>) -> bool {
    match expression {
        Expr::BinOp(binary) => match binary.op {
            BinOpKind::Concat => true,
            BinOpKind::Add => is_joined(&binary.left) || is_joined(&binary.right),
            _ => false,
        },
        Expr::Filter(filter) => matches!(filter.name, "string" | "join"),
        other => is_literal_text(other),
    }
}

fn is_literal_text(expression: &Expr<'_>) -> bool {
    matches!(expression, Expr::Const(literal) if literal.value.as_str().is_some())
}

/// Returns the filter that replaces an operator of a calculation.
fn calculation(operator: BinOpKind) -> Option<&'static str> {
    Some(match operator {
        BinOpKind::Add => "__add",
        BinOpKind::Sub => "__sub",
        BinOpKind::Mul => "__mul",
        BinOpKind::Div => "__div",
        BinOpKind::FloorDiv => "__floordiv",
        BinOpKind::Rem => "__mod",
        BinOpKind::Pow => "__pow",
        BinOpKind::Concat => "__concat",
        _ => return None,
    })
}

/// Returns the filter that replaces a test.
fn own_test(name: &str) -> Option<&'static str> {
    Some(match name {
        "eq" | "equalto" => "__eq",
        "ne" => "__ne",
        "lt" | "lessthan" => "__lt",
        "le" => "__le",
        "gt" | "greaterthan" => "__gt",
        "ge" => "__ge",
        "true" => "__is_true",
        "false" => "__is_false",
        "number" => "__is_number",
        "integer" | "int" => "__is_integer",
        "float" => "__is_float",
        "odd" => "__odd",
        "even" => "__even",
        "divisibleby" => "__divisible",
        _ => return None,
    })
}

fn known(kind: &str, name: &str, all: &[&'static str]) -> Result<(), String> {
    if all.contains(&name) {
        return Ok(());
    }
    Err(format!("has an unknown {kind} {name:?}{}", nearest(name, all.iter().copied())))
}
