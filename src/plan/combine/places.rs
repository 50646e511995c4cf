//! Where things stand in a statement, by its tokens.

use std::ops::Range;

use crate::plan::query::Query;
use crate::sql::analysis::Source;
use crate::sql::analysis::SourceKind;
use crate::sql::token::Token;

impl Query<'_> {
    /// The index of the token that starts at an offset.
    pub(in crate::plan) fn token_at(&self, offset: u32) -> Option<usize> {
        self.tokens
            .binary_search_by_key(&offset, |token| token.start)
            .ok()
    }

    /// The tokens of a relation's name, and of the `*` behind it that means nothing.
    pub(in crate::plan) fn name_tokens(&self, source: &Source) -> Option<Range<usize>> {
        let text = self.request.text;
        let last = self.token_at(source.offset?)?;
        let has_schema = match &source.kind {
            SourceKind::Relation(name) => name.schema.is_some(),
            SourceKind::Query(_) | SourceKind::Opaque => return None,
        };
        let is_dot = |index: usize| {
            let token = self.tokens.get(index);
            token.is_some_and(|token| token.is_symbol(text, "."))
        };
        let mut first = last;
        while let Some(before) = first.checked_sub(2)
            && is_dot(before + 1)
        {
            first = before;
        }
        if has_schema != (first < last) || self.is_only_in_parentheses(first) {
            return None;
        }
        let is_star = |token: &Token| token.is_symbol(text, "*");
        let behind = self.tokens.get(last + 1).is_some_and(is_star);
        Some(first..last + 1 + usize::from(behind))
    }

    /// Whether a relation's name is a query: `TABLE t`.
    pub(in crate::plan) fn is_table_query(&self, name: &Range<usize>) -> bool {
        self.is_before(name.start, 1, |token, text| token.is_word(text, "table"))
            || (self.is_only(name)
                && self.is_before(name.start, 2, |token, text| token.is_word(text, "table")))
    }

    /// Whether `ONLY` stands before a relation's name.
    pub(in crate::plan) fn is_only(&self, name: &Range<usize>) -> bool {
        self.is_before(name.start, 1, |token, text| token.is_word(text, "only"))
    }

    /// `ONLY (t)`.
    fn is_only_in_parentheses(&self, name: usize) -> bool {
        self.is_before(name, 1, |token, text| token.is_symbol(text, "("))
            && self.is_before(name, 2, |token, text| token.is_word(text, "only"))
    }

    fn is_before(&self, index: usize, distance: usize, is: impl Fn(&Token, &str) -> bool) -> bool {
        let token = index
            .checked_sub(distance)
            .and_then(|index| self.tokens.get(index));
        token.is_some_and(|token| is(token, self.request.text))
    }
}
