//! Where the characters of an edited text stood before it was edited.

use crate::sql::splice::Edit;
use crate::sql::token::slice;

/// Translates positions in an edited text to the text that was edited.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shifts {
    /// In order; what stands between them was not edited.
    edits: Vec<Shift>,
}

/// One edit, in characters from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shift {
    /// Where it begins in the edited text.
    start: u32,
    /// And ends there.
    end: u32,
    /// Where it begins in the original.
    old_start: u32,
    /// And ends there.
    old_end: u32,
}

impl Shifts {
    /// The shifts that `edits` of `text` make; their ranges must lie within it and not overlap.
    pub fn of(text: &str, edits: &[Edit]) -> Shifts {
        let mut edits: Vec<&Edit> = edits.iter().collect();
        edits.sort_by_key(|edit| (edit.range.start, edit.range.end));
        let mut shifts = Shifts::default();
        let (mut at, mut old, mut new) = (0, 0, 0);
        for edit in edits {
            let before = characters(slice(text, at..edit.range.start));
            let (start, old_start) = (new + before, old + before);
            new = start + characters(&edit.text);
            old = old_start + characters(slice(text, edit.range.clone()));
            at = edit.range.end;
            shifts.edits.push(Shift {
                start,
                end: new,
                old_start,
                old_end: old,
            });
        }
        shifts
    }

    /// The position in the original text, both counted in characters from 1. What an edit put in stands
    /// where the edit began.
    pub fn original(&self, position: u32) -> u32 {
        let place = position.saturating_sub(1);
        let behind = self.edits.partition_point(|edit| edit.start <= place);
        let Some(edit) = behind.checked_sub(1).and_then(|last| self.edits.get(last)) else {
            return position;
        };
        match place.checked_sub(edit.end) {
            Some(distance) => edit.old_end + distance + 1,
            None => edit.old_start + 1,
        }
    }
}

fn characters(text: &str) -> u32 {
    u32::try_from(text.chars().count()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::splice::splice;
    use crate::sql::token::LexOptions;

    #[test]
    fn positions_lead_back_to_the_same_token() {
        let text = "SELECT 'ä', f() AS a, b FROM t WHERE f() = x";
        let edits: Vec<Edit> = text
            .match_indices("f()")
            .map(|(at, _)| Edit {
                range: at as u32..at as u32 + 3,
                text: "(SELECT 'é' AS f)".to_owned(),
            })
            .collect();
        let edited = splice(text, LexOptions::default(), &edits).unwrap();
        let shifts = Shifts::of(text, &edits);
        let position =
            |text: &str, part: &str| text[..text.rfind(part).unwrap()].chars().count() as u32 + 1;
        for part in [
            "SELECT 'ä'",
            "'ä'",
            " AS a",
            "b FROM",
            "t WHERE",
            "= x",
            "x",
        ] {
            let (new, old) = (position(&edited, part), position(text, part));
            assert_eq!(shifts.original(new), old, "{part}");
        }
        assert_eq!(
            shifts.original(position(&edited, "'é'")),
            position(text, "f()")
        );
        assert_eq!(Shifts::default().original(7), 7);
    }
}
