//! YAML as an inventory uses it: one list of mappings.
//!
//! Plain scalars stay texts, because a group id may look like a number. Only inside a policy are numbers
//! and booleans read as such. Anchors and aliases are refused: a small file could expand to a huge one.

use saphyr_parser::{Event, Parser, ScalarStyle};
use serde_json::{Map, Value};

/// The deepest nesting of lists and mappings.
const DEEPEST: usize = 16;

/// Why a text is not an inventory in YAML.
#[derive(Debug, thiserror::Error)]
pub(super) enum YamlError {
    #[error("this is not YAML: {0}")]
    NotYaml(#[from] saphyr_parser::ScanError),
    #[error("line {line}: a second document begins; put all projects into one list")]
    SecondDocument { line: usize },
    #[error("line {line}: a list of projects is wanted; begin each with \"- groupId:\"")]
    NoList { line: usize },
    #[error("line {line}: the value is nested too deeply")]
    TooDeep { line: usize },
    #[error("line {line}: the name of a field is a word")]
    NoName { line: usize },
    #[error("line {line}: {name} is there twice")]
    Twice { line: usize, name: String },
    #[error("line {line}: aliases (*name) are not taken; write the value out")]
    Alias { line: usize },
    #[error("line {line}: anchors (&name) are not taken; write the value out")]
    Anchor { line: usize },
    #[error("line {line}: a value is missing")]
    NoValue { line: usize },
}

/// One value of a file.
#[derive(Debug)]
enum Node {
    Text { text: String, plain: bool },
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

/// The entries of the list, each with the line on which it begins.
pub(super) fn read(text: &str) -> Result<Vec<(usize, Value)>, YamlError> {
    let mut file = File { parser: Parser::new_from_str(text) };
    let mut rows = Vec::new();
    let mut documents = 0;
    loop {
        let (event, line) = file.next()?;
        match event {
            Event::StreamStart | Event::DocumentEnd => {}
            Event::StreamEnd => return Ok(rows),
            Event::DocumentStart(_) => {
                documents += 1;
                if documents > 1 {
                    return Err(YamlError::SecondDocument { line });
                }
            }
            Event::SequenceStart(..) => rows = file.rows()?,
            Event::Scalar(text, ..) if text.is_empty() || &*text == "~" || &*text == "null" => {}
            _ => {
                return Err(YamlError::NoList { line });
            }
        }
    }
}

struct File<'a> {
    parser: Parser<'a, saphyr_parser::StrInput<'a>>,
}

impl<'a> File<'a> {
    fn next(&mut self) -> Result<(Event<'a>, usize), YamlError> {
        match self.parser.next_event() {
            Some(Ok((event, span))) => Ok((event, span.start.line())),
            Some(Err(error)) => Err(error.into()),
            None => Ok((Event::StreamEnd, 0)),
        }
    }

    fn rows(&mut self) -> Result<Vec<(usize, Value)>, YamlError> {
        let mut rows = Vec::new();
        loop {
            let (event, line) = self.next()?;
            if matches!(event, Event::SequenceEnd) {
                return Ok(rows);
            }
            rows.push((line, row(self.node(event, line, 1)?)));
        }
    }

    fn node(&mut self, event: Event<'a>, line: usize, depth: usize) -> Result<Node, YamlError> {
        if depth > DEEPEST {
            return Err(YamlError::TooDeep { line });
        }
        match event {
            Event::Scalar(text, style, anchor, _) => {
                no_anchor(anchor, line)?;
                Ok(Node::Text { text: text.into_owned(), plain: style == ScalarStyle::Plain })
            }
            Event::SequenceStart(anchor, _) => {
                no_anchor(anchor, line)?;
                let mut items = Vec::new();
                loop {
                    let (event, line) = self.next()?;
                    if matches!(event, Event::SequenceEnd) {
                        return Ok(Node::List(items));
                    }
                    items.push(self.node(event, line, depth + 1)?);
                }
            }
            Event::MappingStart(anchor, _) => {
                no_anchor(anchor, line)?;
                let mut fields: Vec<(String, Node)> = Vec::new();
                loop {
                    let (event, line) = self.next()?;
                    if matches!(event, Event::MappingEnd) {
                        return Ok(Node::Map(fields));
                    }
                    let Node::Text { text: name, .. } = self.node(event, line, depth + 1)? else {
                        return Err(YamlError::NoName { line });
                    };
                    if fields.iter().any(|(known, _)| *known == name) {
                        return Err(YamlError::Twice { line, name });
                    }
                    let (event, line) = self.next()?;
                    fields.push((name, self.node(event, line, depth + 1)?));
                }
            }
            Event::Alias(_) => Err(YamlError::Alias { line }),
            _ => Err(YamlError::NoValue { line }),
        }
    }
}

fn no_anchor(anchor: usize, line: usize) -> Result<(), YamlError> {
    if anchor == 0 {
        return Ok(());
    }
    Err(YamlError::Anchor { line })
}

fn row(node: Node) -> Value {
    let Node::Map(fields) = node else { return value(node, false) };
    fields
        .into_iter()
        .map(|(name, node)| {
            let typed = name == "policy";
            (name, value(node, typed))
        })
        .collect()
}

fn value(node: Node, typed: bool) -> Value {
    match node {
        Node::Text { text, plain: true } if matches!(text.as_str(), "" | "~" | "null") => Value::Null,
        Node::Text { text, plain: true } if typed => match text.as_str() {
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            word => word.parse::<i64>().map_or_else(|_| Value::from(word), Value::from),
        },
        Node::Text { text, .. } => Value::String(text),
        Node::List(items) => items.into_iter().map(|item| value(item, typed)).collect(),
        Node::Map(fields) => {
            fields.into_iter().map(|(name, node)| (name, value(node, typed))).collect::<Map<_, _>>().into()
        }
    }
}
