//! A small language of conditions on metadata.
//!
//! ```text
//! condition := conjunction { "or" conjunction }
//! conjunction := term { "and" term }
//! term := "not" term | "(" condition ")" | "exists" path
//!       | path ( "=" | "!=" | "<" | "<=" | ">" | ">=" ) literal
//!       | path "in" "[" literal { "," literal } "]"
//! path := name { "." name }          name := letters, digits, "_", "-", starting with a letter or "_"
//! literal := 'text' | "text" | number | true | false | null
//! ```
//! Text is quoted by either quote, doubled to stand for itself. A comparison with a field that is missing or of
//! another type is false, also `!=`; whole and real numbers compare by value. Words are case-sensitive.

use crate::error::{Error, Result};
use apcm_format::{Metadata, Value};
use std::cmp::Ordering;

/// Deepest nesting of parentheses and `not`.
const NESTING_MAX: usize = 64;

/// A parsed filter.
///
/// ```
/// use apcm::{Filter, Metadata};
/// # fn main() -> apcm::Result<()> {
/// let filter = Filter::parse("kind = 'note' and (year >= 2025 or pinned = true)")?;
/// let metadata = Metadata::from([("kind".into(), "note".into()), ("year".into(), 2026_i64.into())]);
/// assert!(filter.matches(&metadata));
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Filter(Node);

#[derive(Debug, Clone, PartialEq)]
enum Node {
    Any(Vec<Node>),
    All(Vec<Node>),
    Not(Box<Node>),
    Exists(Vec<String>),
    Compare(Vec<String>, Operator, Value),
    In(Vec<String>, Vec<Value>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Filter {
    /// Parses a filter.
    ///
    /// # Errors
    /// [`Filter`](Error::Filter) with the column of what was not expected.
    pub fn parse(text: &str) -> Result<Self> {
        let mut parser = Parser { tokens: tokens(text)?, at: 0, depth: 0 };
        let node = parser.condition()?;
        match parser.next() {
            Token::End => Ok(Self(node)),
            other => Err(parser.unexpected(&other, "and, or, or the end")),
        }
    }

    /// Whether metadata meet the condition.
    pub fn matches(&self, metadata: &Metadata) -> bool {
        self.0.holds(metadata)
    }
}

impl Node {
    fn holds(&self, metadata: &Metadata) -> bool {
        match self {
            Self::Any(nodes) => nodes.iter().any(|node| node.holds(metadata)),
            Self::All(nodes) => nodes.iter().all(|node| node.holds(metadata)),
            Self::Not(node) => !node.holds(metadata),
            Self::Exists(path) => field(metadata, path).is_some(),
            Self::Compare(path, operator, literal) => {
                let order = field(metadata, path).and_then(|value| compare(value, literal));
                order.is_some_and(|order| match operator {
                    Operator::Equal => order.is_eq(),
                    Operator::Unequal => order.is_ne(),
                    Operator::Less => order.is_lt(),
                    Operator::LessOrEqual => order.is_le(),
                    Operator::Greater => order.is_gt(),
                    Operator::GreaterOrEqual => order.is_ge(),
                })
            }
            Self::In(path, literals) => field(metadata, path).is_some_and(|value| {
                literals.iter().any(|literal| compare(value, literal) == Some(Ordering::Equal))
            }),
        }
    }
}

fn field<'a>(metadata: &'a Metadata, path: &[String]) -> Option<&'a Value> {
    let (first, rest) = path.split_first()?;
    rest.iter().try_fold(metadata.get(first)?, |value, name| match value {
        Value::Map(map) => map.get(name),
        _ => None,
    })
}

fn compare(value: &Value, literal: &Value) -> Option<Ordering> {
    match (value, literal) {
        (Value::Null, Value::Null) => Some(Ordering::Equal),
        (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
        (Value::Int(a), Value::Int(b)) => Some(a.cmp(b)),
        (Value::Float(a), Value::Float(b)) => a.partial_cmp(b),
        (Value::Int(a), Value::Float(b)) => compare_mixed(*a, *b),
        (Value::Float(a), Value::Int(b)) => compare_mixed(*b, *a).map(Ordering::reverse),
        (Value::Text(a), Value::Text(b)) => Some(a.cmp(b)),
        _ => None,
    }
}

/// Compares by value. Casting the integer would make 2^53 + 1 equal to 2^53.
fn compare_mixed(int: i64, float: f64) -> Option<Ordering> {
    if float.is_nan() {
        None
    } else if float >= 9_223_372_036_854_775_808.0 {
        Some(Ordering::Less)
    } else if float < -9_223_372_036_854_775_808.0 {
        Some(Ordering::Greater)
    } else {
        // The whole part is exact in i64 here; what is left of the float decides among equals.
        let fraction = float - float.trunc();
        Some(int.cmp(&(float.trunc() as i64)).then(0.0.partial_cmp(&fraction)?))
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Name(String),
    Literal(Value),
    Symbol(&'static str),
    End,
}

const SYMBOLS: [&str; 12] = ["!=", "<=", ">=", "=", "<", ">", "(", ")", "[", "]", ",", "."];

fn tokens(text: &str) -> Result<Vec<(usize, Token)>> {
    let chars: Vec<char> = text.chars().collect();
    let mut out = Vec::new();
    let mut at = 0;
    while let Some(&first) = chars.get(at) {
        let column = at + 1;
        let rest = &chars[at..];
        if first.is_whitespace() {
            at += 1;
            continue;
        }
        let run = |accept: fn(char) -> bool| rest.iter().take_while(|&&c| accept(c)).count();
        if first == '\'' || first == '"' {
            let mut literal = String::new();
            at += 1;
            loop {
                match (chars.get(at), chars.get(at + 1)) {
                    (Some(&c), Some(&next)) if c == first && next == first => {
                        literal.push(first);
                        at += 2;
                    }
                    (Some(&c), _) if c == first => {
                        at += 1;
                        break;
                    }
                    (Some(&c), _) => {
                        literal.push(c);
                        at += 1;
                    }
                    (None, _) => {
                        return Err(Error::Filter {
                            column,
                            message: format!("the text has no closing {first}"),
                        });
                    }
                }
            }
            out.push((column, Token::Literal(Value::Text(literal))));
        } else if first.is_ascii_digit() || ((first == '-' || first == '+') && rest.len() > 1) {
            let len = 1 + rest[1..]
                .iter()
                .take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '+' | '-'))
                .count();
            let word: String = rest[..len].iter().collect();
            let value =
                word.parse().map(Value::Int).or_else(|_| word.parse().map(Value::Float)).map_err(|_| {
                    Error::Filter {
                        column,
                        message: format!("{word:?} is not a number; text goes in quotes"),
                    }
                })?;
            at += len;
            out.push((column, Token::Literal(value)));
        } else if first.is_alphabetic() || first == '_' {
            let len = run(|c| c.is_alphanumeric() || c == '_' || c == '-');
            let word: String = rest[..len].iter().collect();
            at += len;
            out.push((
                column,
                match word.as_str() {
                    "true" => Token::Literal(Value::Bool(true)),
                    "false" => Token::Literal(Value::Bool(false)),
                    "null" => Token::Literal(Value::Null),
                    _ => Token::Name(word),
                },
            ));
        } else {
            let symbol =
                SYMBOLS.into_iter().find(|symbol| symbol.chars().eq(rest.iter().copied().take(symbol.len())));
            let symbol = symbol
                .ok_or_else(|| Error::Filter { column, message: format!("{first:?} means nothing here") })?;
            at += symbol.len();
            out.push((column, Token::Symbol(symbol)));
        }
    }
    out.push((chars.len() + 1, Token::End));
    Ok(out)
}

struct Parser {
    tokens: Vec<(usize, Token)>,
    at: usize,
    depth: usize,
}

impl Parser {
    fn peek(&self) -> &Token {
        // The last token is `End`, and `next` never goes past it.
        &self.tokens[self.at].1
    }

    fn next(&mut self) -> Token {
        let token = self.peek().clone();
        if token != Token::End {
            self.at += 1;
        }
        token
    }

    /// An error about the token just taken.
    fn unexpected(&self, found: &Token, expected: &str) -> Error {
        let at = if *found == Token::End { self.at } else { self.at - 1 };
        let found = match found {
            Token::Name(name) => format!("{name:?}"),
            Token::Literal(Value::Text(text)) => format!("the text {text:?}"),
            Token::Literal(value) => format!("{value:?}"),
            Token::Symbol(symbol) => format!("{symbol:?}"),
            Token::End => "the end".to_owned(),
        };
        Error::Filter { column: self.tokens[at].0, message: format!("expected {expected}, found {found}") }
    }

    fn is_word(&self, word: &str) -> bool {
        matches!(self.peek(), Token::Name(name) if name == word)
    }

    fn condition(&mut self) -> Result<Node> {
        self.list("or", Self::conjunction, Node::Any)
    }

    fn conjunction(&mut self) -> Result<Node> {
        self.list("and", Self::term, Node::All)
    }

    fn list(
        &mut self,
        word: &str,
        part: fn(&mut Self) -> Result<Node>,
        join: fn(Vec<Node>) -> Node,
    ) -> Result<Node> {
        let first = part(self)?;
        if !self.is_word(word) {
            return Ok(first);
        }
        let mut parts = vec![first];
        while self.is_word(word) {
            self.next();
            parts.push(part(self)?);
        }
        Ok(join(parts))
    }

    fn term(&mut self) -> Result<Node> {
        self.depth += 1;
        if self.depth > NESTING_MAX {
            let column = self.tokens[self.at].0;
            return Err(Error::Filter { column, message: format!("nested more than {NESTING_MAX} deep") });
        }
        let node = match self.next() {
            Token::Symbol("(") => {
                let inner = self.condition()?;
                match self.next() {
                    Token::Symbol(")") => inner,
                    other => return Err(self.unexpected(&other, "\")\"")),
                }
            }
            Token::Name(word) if word == "not" => Node::Not(Box::new(self.term()?)),
            Token::Name(word) if word == "exists" => {
                let first = self.name("the name of a field")?;
                Node::Exists(self.path(first)?)
            }
            Token::Name(word) if !matches!(word.as_str(), "and" | "or" | "in") => {
                let path = self.path(word)?;
                self.comparison(path)?
            }
            other => return Err(self.unexpected(&other, "a field, not, exists or \"(\"")),
        };
        self.depth -= 1;
        Ok(node)
    }

    fn name(&mut self, expected: &str) -> Result<String> {
        match self.next() {
            Token::Name(name) => Ok(name),
            other => Err(self.unexpected(&other, expected)),
        }
    }

    fn path(&mut self, first: String) -> Result<Vec<String>> {
        let mut path = vec![first];
        while *self.peek() == Token::Symbol(".") {
            self.next();
            path.push(self.name("a name after \".\"")?);
        }
        Ok(path)
    }

    fn comparison(&mut self, path: Vec<String>) -> Result<Node> {
        let operator = match self.next() {
            Token::Symbol("=") => Operator::Equal,
            Token::Symbol("!=") => Operator::Unequal,
            Token::Symbol("<") => Operator::Less,
            Token::Symbol("<=") => Operator::LessOrEqual,
            Token::Symbol(">") => Operator::Greater,
            Token::Symbol(">=") => Operator::GreaterOrEqual,
            Token::Name(word) if word == "in" => return Ok(Node::In(path, self.literals()?)),
            other => return Err(self.unexpected(&other, "=, !=, <, <=, >, >= or in")),
        };
        Ok(Node::Compare(path, operator, self.literal()?))
    }

    fn literal(&mut self) -> Result<Value> {
        match self.next() {
            Token::Literal(value) => Ok(value),
            other => Err(self.unexpected(&other, "text in quotes, a number, true, false or null")),
        }
    }

    fn literals(&mut self) -> Result<Vec<Value>> {
        match self.next() {
            Token::Symbol("[") => {}
            other => return Err(self.unexpected(&other, "\"[\"")),
        }
        let mut values = vec![self.literal()?];
        loop {
            match self.next() {
                Token::Symbol(",") => values.push(self.literal()?),
                Token::Symbol("]") => return Ok(values),
                other => return Err(self.unexpected(&other, "\",\" or \"]\"")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> Metadata {
        serde_json::from_str(
            r#"{"kind": "note", "year": 2025, "score": 0.5, "ok": true, "gone": null,
            "big": 9007199254740993, "who": {"name": "it's", "tags": [1]}}"#,
        )
        .unwrap()
    }

    #[test]
    fn conditions_hold_as_written() {
        for (text, expected) in [
            ("kind = 'note'", true),
            ("kind = \"note\" and year >= 2025", true),
            ("kind != 'note'", false),
            ("year > 2024.5 and year < 2025.5", true),
            ("year = 2025.0", true),
            ("score = 0.5", true),
            ("score <= 0", false),
            ("big = 9007199254740993", true),
            ("big = 9007199254740992.0", false),
            ("big > 9007199254740992.0", true),
            ("year > -1e300 and year < 1e300", true),
            ("who.name = 'it''s'", true),
            ("who.name.deeper = 'x'", false),
            ("exists who.name", true),
            ("exists who.age", false),
            ("missing != 1", false),
            ("not missing = 1", true),
            ("kind < 5", false),
            ("kind in ['memo', 'note']", true),
            ("year in [1, 2]", false),
            ("gone = null and ok = true", true),
            ("kind = 'x' or kind = 'note' and year = 1", false),
            ("(kind = 'x' or kind = 'note') and not year = 1", true),
        ] {
            assert_eq!(Filter::parse(text).unwrap().matches(&sample()), expected, "{text}");
        }
    }

    #[test]
    fn errors_name_the_column_and_what_was_expected() {
        for (text, column, part) in [
            ("", 1, "the end"),
            ("kind", 5, "the end"),
            ("kind = note", 8, "text in quotes"),
            ("kind = 'note", 8, "no closing"),
            ("kind == 'note'", 7, "text in quotes"),
            ("year >= 20x5", 9, "not a number"),
            ("(a = 1", 7, "\")\""),
            ("a = 1 b = 2", 7, "and, or"),
            ("a in []", 7, "text in quotes"),
            ("a in 1", 6, "\"[\""),
            ("and a = 1", 1, "a field"),
            ("a. = 1", 4, "a name"),
            ("a ~ 1", 3, "means nothing"),
        ] {
            match Filter::parse(text) {
                Err(Error::Filter { column: found, message }) => {
                    assert_eq!(found, column, "{text}: {message}");
                    assert!(message.contains(part), "{text}: {message}");
                }
                other => panic!("{text}: {other:?}"),
            }
        }
        let deep = "not ".repeat(100_000) + "a = 1";
        assert!(matches!(Filter::parse(&deep), Err(Error::Filter { .. })));
    }

    proptest! {
        #[test]
        fn any_text_is_a_filter_or_an_error(text in "[a-z0-9 '\"=<>!()\\[\\],.é-]{0,60}") {
            if let Ok(filter) = Filter::parse(&text) {
                filter.matches(&sample());
            }
        }

        #[test]
        fn mixed_numbers_compare_by_value(int: i64, offset in -3_i64..=3, half: bool) {
            let near = int.saturating_add(offset) as f64 + if half { 0.5 } else { 0.0 };
            let exact = i128::from(int) * 2;
            let other = (near * 2.0) as i128;
            prop_assert_eq!(compare_mixed(int, near), Some(exact.cmp(&other)));
        }
    }
}
