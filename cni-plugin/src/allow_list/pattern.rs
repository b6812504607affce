//! Regular expressions, as much of them as allow lists use.
//!
//! A crate for them would take about 100 KiB of the 2 MiB that the plugin may have. What is not known here is refused, so
//! that a pattern never allows more than its author meant. Matching follows all possibilities at once, as sets of places,
//! and so takes no longer for one pattern than for another of its length.

use std::collections::BTreeSet;
use std::iter::Peekable;
use std::str::Chars;

/// A regular expression: characters, `.`, `[a-z]`, `[^a-z]`, `\d`, `\w`, `\.`, `^`, `$`, groups, `|`, `*`, `+` and `?`.
#[derive(Debug)]
pub(super) struct Pattern(Node);

#[derive(Debug)]
enum Node {
    Start,
    End,
    Any,
    One(Class),
    Sequence(Vec<Node>),
    Either(Vec<Node>),
    Repeat { node: Box<Node>, optional: bool, unbounded: bool },
}

#[derive(Debug, Default)]
struct Class {
    negated: bool,
    ranges: Vec<(char, char)>,
}

/// Keeps groups from being nested deeper than the stack.
const LONGEST: usize = 1000;

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// What is not known, in words.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text.len() > LONGEST {
            return Err(format!("longer than {LONGEST} bytes"));
        }
        let mut parser = Parser { rest: text.chars().peekable() };
        let node = parser.either()?;
        match parser.rest.next() {
            None => Ok(Self(node)),
            Some(_) => Err("a group is closed that was not opened".to_owned()),
        }
    }

    /// Whether some part of `text` matches.
    pub(super) fn is_in(&self, text: &str) -> bool {
        let text: Vec<char> = text.chars().collect();
        !self.0.ends(&text, &(0..=text.len()).collect()).is_empty()
    }
}

impl Node {
    /// Where matches end that begin at one of `starts`.
    fn ends(&self, text: &[char], starts: &BTreeSet<usize>) -> BTreeSet<usize> {
        let step = |accepts: &dyn Fn(char) -> bool| {
            let accepted = |at: &&usize| text.get(**at).is_some_and(|c| accepts(*c));
            starts.iter().filter(accepted).map(|at| at + 1).collect()
        };
        let only = |place: usize| starts.get(&place).copied().into_iter().collect();
        match self {
            Self::Start => only(0),
            Self::End => only(text.len()),
            Self::Any => step(&|_| true),
            Self::One(class) => step(&|c| class.has(c)),
            Self::Sequence(nodes) => nodes.iter().fold(starts.clone(), |from, node| node.ends(text, &from)),
            Self::Either(nodes) => nodes.iter().flat_map(|node| node.ends(text, starts)).collect(),
            Self::Repeat { node, optional, unbounded } => {
                let mut found = node.ends(text, starts);
                let mut known = if *unbounded { 0 } else { found.len() };
                while found.len() > known {
                    known = found.len();
                    found.extend(node.ends(text, &found));
                }
                if *optional {
                    found.extend(starts);
                }
                found
            }
        }
    }
}

impl Class {
    fn of(ranges: &[(char, char)]) -> Self {
        Self { negated: false, ranges: ranges.to_vec() }
    }

    fn has(&self, c: char) -> bool {
        self.ranges.iter().any(|(from, to)| (*from..=*to).contains(&c)) != self.negated
    }
}

struct Parser<'a> {
    rest: Peekable<Chars<'a>>,
}

impl Parser<'_> {
    /// Alternatives, up to the end or the end of the group.
    fn either(&mut self) -> Result<Node, String> {
        let mut nodes = vec![self.sequence()?];
        while self.rest.next_if_eq(&'|').is_some() {
            nodes.push(self.sequence()?);
        }
        Ok(Node::Either(nodes))
    }

    fn sequence(&mut self) -> Result<Node, String> {
        let mut nodes = Vec::new();
        while let Some(c) = self.rest.next_if(|c| !matches!(c, '|' | ')')) {
            let node = self.atom(c)?;
            nodes.push(self.repeated(node));
        }
        Ok(Node::Sequence(nodes))
    }

    fn atom(&mut self, c: char) -> Result<Node, String> {
        match c {
            '^' => Ok(Node::Start),
            '$' => Ok(Node::End),
            '.' => Ok(Node::Any),
            '[' => self.class(),
            '(' => self.group(),
            '\\' => self.escaped().map(Node::One),
            '*' | '+' | '?' => Err(format!("nothing for {c:?} to repeat")),
            '{' => Err("counted repetition is not known".to_owned()),
            _ => Ok(Node::One(Class::of(&[(c, c)]))),
        }
    }

    fn repeated(&mut self, mut node: Node) -> Node {
        while let Some(c) = self.rest.next_if(|c| matches!(c, '*' | '+' | '?')) {
            node = Node::Repeat { node: Box::new(node), optional: c != '+', unbounded: c != '?' };
        }
        node
    }

    fn group(&mut self) -> Result<Node, String> {
        if self.rest.peek() == Some(&'?') {
            return Err("groups with flags are not known".to_owned());
        }
        let node = self.either()?;
        self.rest.next_if_eq(&')').map(|_| node).ok_or_else(|| "a group is not closed".to_owned())
    }

    fn escaped(&mut self) -> Result<Class, String> {
        match self.rest.next() {
            Some('d') => Ok(Class::of(&[('0', '9')])),
            Some('w') => Ok(Class::of(&[('0', '9'), ('A', 'Z'), ('a', 'z'), ('_', '_')])),
            Some(c) if c.is_ascii_punctuation() => Ok(Class::of(&[(c, c)])),
            Some(c) => Err(format!("\\{c} is not known")),
            None => Err("nothing follows the last \\".to_owned()),
        }
    }

    fn class(&mut self) -> Result<Node, String> {
        let mut class = Class { negated: self.rest.next_if_eq(&'^').is_some(), ranges: Vec::new() };
        loop {
            match self.rest.next() {
                None => return Err("a class is not closed".to_owned()),
                // At the very beginning it stands for itself.
                Some(']') if !class.ranges.is_empty() => return Ok(Node::One(class)),
                Some('[') => return Err("named classes are not known".to_owned()),
                Some('\\') => class.ranges.extend(self.escaped()?.ranges),
                Some(from) => class.ranges.push((from, self.range_end(from)?)),
            }
        }
    }

    /// The end of a range, or `from` again where a single character stands.
    fn range_end(&mut self, from: char) -> Result<char, String> {
        let mut ahead = self.rest.clone();
        match (ahead.next(), ahead.next()) {
            (Some('-'), Some(to)) if to != ']' => {
                self.rest = ahead;
                if from <= to && to != '\\' { Ok(to) } else { Err(format!("{from}-{to} is no range")) }
            }
            _ => Ok(from),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_what_it_says_and_nothing_else() {
        let cases: [(&str, &[&str], &[&str]); 14] = [
            ("net.core", &["net.core.a", "xnet/core"], &["net.cor", ""]),
            ("^net$", &["net"], &["xnet", "netx"]),
            (r"^a\.b$", &["a.b"], &["axb"]),
            ("^a*$", &["", "a", "aaa"], &["b"]),
            ("^ab+c$", &["abc", "abbc"], &["ac"]),
            ("^ab?c$", &["abc", "ac"], &["abbc"]),
            ("^(ab)*c$", &["c", "ababc"], &["abac"]),
            ("^(a|bc|)d$", &["ad", "bcd", "d"], &["abcd"]),
            ("^[a-c_]+$", &["abc_"], &["d", "a-"]),
            ("^[^a-c]$", &["d"], &["a", ""]),
            ("^[]a-]+$", &["a]-"], &["b"]),
            (r"^\w+\d[\d.]$", &["a_11", "a1."], &["a1x"]),
            ("^(a*)*$", &["", "aaaa"], &["b"]),
            ("", &["", "a"], &[]),
        ];
        for (pattern, matching, others) in cases {
            let parsed = Pattern::parse(pattern).unwrap();
            matching.iter().for_each(|text| assert!(parsed.is_in(text), "{pattern} in {text}"));
            others.iter().for_each(|text| assert!(!parsed.is_in(text), "{pattern} not in {text}"));
        }
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for pattern in [
            "(",
            ")",
            "a)",
            "[",
            "[]",
            "*",
            "a{2}",
            r"\",
            r"\b",
            r"\pL",
            "(?i)a",
            "[[:alpha:]]",
            "[b-a]",
            "(*)",
        ] {
            assert!(Pattern::parse(pattern).is_err(), "{pattern}");
        }
        assert!(Pattern::parse(&"(".repeat(LONGEST + 1)).is_err());
    }

    #[test]
    fn no_pattern_takes_long() {
        let pattern = Pattern::parse("^(((a*)*)*)*(a|aa)*b$").unwrap();
        assert!(!pattern.is_in(&"a".repeat(200)));
    }
}
