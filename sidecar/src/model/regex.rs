//! Regular expressions as Envoy takes them: RE2's.
//!
//! What Envoy does not take costs the whole route configuration, so it is found here, with its place. The parser's
//! syntax is nearly RE2's: neither has backreferences or look-around. A second pass refuses what the parser knows and RE2
//! does not, or reads as something else; each case was tried on Envoy 1.40.

use regex_syntax::ast::{
    self, Ast, ClassSetBinaryOp, ClassSetItem, Flag, FlagsItemKind, GroupKind, HexLiteralKind, Literal,
    LiteralKind, RepetitionKind, RepetitionRange, Visitor,
};

/// RE2's `kMaxRepeat`: of a repetition, and of nested ones multiplied.
const MAX_REPEAT: u32 = 1_000;

/// Why Envoy would not take `expression`, if so.
pub fn check(expression: &str) -> Result<(), String> {
    if expression.is_empty() {
        return Err("it is empty".into());
    }
    regex_syntax::ParserBuilder::new()
        .unicode(false)
        .utf8(false)
        .build()
        .parse(expression)
        .map_err(|error| reason(&error))?;
    let parsed = ast::parse::Parser::new().parse(expression).map_err(|error| error.kind().to_string())?;
    ast::visit(&parsed, Strict { budgets: vec![MAX_REPEAT] }).map_err(Into::into)
}

fn reason(error: &regex_syntax::Error) -> String {
    match error {
        regex_syntax::Error::Parse(error) => error.kind().to_string(),
        regex_syntax::Error::Translate(error) => error.kind().to_string(),
        other => other.to_string(),
    }
}

/// Walks through an expression and ends at the first thing that RE2 lacks.
struct Strict {
    /// How often what is inside may still be repeated, by depth of counted repetitions.
    budgets: Vec<u32>,
}

impl Visitor for Strict {
    type Output = ();
    type Err = &'static str;

    fn finish(self) -> Result<(), Self::Err> {
        Ok(())
    }

    fn visit_pre(&mut self, ast: &Ast) -> Result<(), Self::Err> {
        match ast {
            Ast::Flags(set) => check_flags(&set.flags),
            Ast::Group(group) => check_group(&group.kind),
            Ast::Literal(literal) => check_literal(literal),
            Ast::Assertion(assertion) => check_assertion(&assertion.kind),
            Ast::Repetition(repetition) => {
                if matches!(*repetition.ast, Ast::Repetition(_)) {
                    return Err("RE2 repeats no repetition; put the inner one into a group");
                }
                self.enter(&repetition.op.kind)
            }
            _ => Ok(()),
        }
    }

    fn visit_post(&mut self, ast: &Ast) -> Result<(), Self::Err> {
        if matches!(ast, Ast::Repetition(_)) {
            self.budgets.pop();
        }
        Ok(())
    }

    fn visit_class_set_item_pre(&mut self, item: &ClassSetItem) -> Result<(), Self::Err> {
        match item {
            ClassSetItem::Literal(literal) => check_literal(literal),
            ClassSetItem::Range(range) => {
                check_literal(&range.start).and_then(|()| check_literal(&range.end))
            }
            ClassSetItem::Bracketed(_) => Err("RE2 has no class within a class; write \\[ for the bracket"),
            _ => Ok(()),
        }
    }

    fn visit_class_set_binary_op_pre(&mut self, _: &ClassSetBinaryOp) -> Result<(), Self::Err> {
        Err("RE2 has no operations on classes (&&, --, ~~)")
    }
}

impl Strict {
    fn enter(&mut self, kind: &RepetitionKind) -> Result<(), &'static str> {
        let times = match kind {
            RepetitionKind::Range(RepetitionRange::Exactly(most) | RepetitionRange::Bounded(_, most)) => {
                *most
            }
            RepetitionKind::Range(RepetitionRange::AtLeast(least)) => *least,
            RepetitionKind::ZeroOrOne | RepetitionKind::ZeroOrMore | RepetitionKind::OneOrMore => 1,
        };
        let budget = self.budgets.last().copied().unwrap_or(MAX_REPEAT) / times.max(1);
        self.budgets.push(budget);
        if budget == 0 {
            Err("RE2 repeats 1000 times at most, nested repetitions multiplied")
        } else {
            Ok(())
        }
    }
}

fn check_flags(flags: &ast::Flags) -> Result<(), &'static str> {
    let known = |kind: &FlagsItemKind| {
        use Flag::{CaseInsensitive, DotMatchesNewLine, MultiLine, SwapGreed};
        matches!(
            kind,
            FlagsItemKind::Negation
                | FlagsItemKind::Flag(CaseInsensitive | DotMatchesNewLine | MultiLine | SwapGreed)
        )
    };
    let all = flags.items.iter().all(|item| known(&item.kind));
    if all { Ok(()) } else { Err("RE2 has no flags but i, m, s and U") }
}

fn check_group(kind: &GroupKind) -> Result<(), &'static str> {
    match kind {
        GroupKind::NonCapturing(flags) => check_flags(flags),
        GroupKind::CaptureName { name, .. } => {
            let in_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
            let fits = name.name.bytes().all(in_word);
            if fits { Ok(()) } else { Err("in RE2 a group's name has letters, digits and underscores") }
        }
        GroupKind::CaptureIndex(_) => Ok(()),
    }
}

fn check_literal(literal: &Literal) -> Result<(), &'static str> {
    use HexLiteralKind::{UnicodeLong, UnicodeShort};
    match literal.kind {
        LiteralKind::HexFixed(UnicodeShort | UnicodeLong)
        | LiteralKind::HexBrace(UnicodeShort | UnicodeLong) => Err("RE2 has no \\u and \\U; write \\x{...}"),
        _ => Ok(()),
    }
}

/// RE2 takes the braces for text.
fn check_assertion(kind: &ast::AssertionKind) -> Result<(), &'static str> {
    use ast::AssertionKind::{
        WordBoundaryEnd, WordBoundaryEndHalf, WordBoundaryStart, WordBoundaryStartHalf,
    };
    match kind {
        WordBoundaryStart | WordBoundaryEnd | WordBoundaryStartHalf | WordBoundaryEndHalf => {
            Err("RE2 has no \\b{...}, only \\b")
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn what_envoy_takes_is_taken() {
        for expression in [
            "/users/[0-9]+",
            "(?i)a|b",
            "(?P<name>a)(?<other>b)",
            "(?i-s:a)(?U)a+?",
            r"\x{41}\xff[\x41-\x5a]",
            r"\bword\B\d\w[[:alpha:]]",
            "(?:a{10}){100}",
            "(a*)*",
            "^*é+",
            "[]a]",
        ] {
            assert_eq!(check(expression), Ok(()), "{expression}");
        }
    }

    #[test]
    fn what_envoy_rejects_or_reads_as_something_else_is_refused() {
        for expression in [
            "",
            "(a",
            "(?x)a",
            "(?u:a)",
            "(?R)a",
            "a**",
            "a++",
            "a{2}{3}",
            "a{1001}",
            "(a{100}){100}",
            "(?:a{2}b{501}){2}",
            r"\u0041",
            r"[\u{41}-z]",
            r"\U00000041",
            "[a&&b]",
            "[a--b]",
            "[a[b]]",
            r"\b{start}a",
            "(?P<é>c)",
            "(?P<n.x>c)",
        ] {
            assert!(check(expression).is_err(), "{expression}");
        }
    }
}
