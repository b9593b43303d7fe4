//! Names of groups and books, as people type them.

use std::cmp::Reverse;

use crate::limits::NEAR_NAMES_MAX;

/// A name in one form: case and blanks do not tell two apart.
pub(super) fn folded(name: &str) -> String {
    let words: Vec<String> = name.split_whitespace().map(str::to_lowercase).collect();
    words.join(" ")
}

/// Names that are compared with one that is not known; the rest is not.
const COMPARED_MAX: usize = 10_000;
/// Characters of a name that are compared.
const COMPARED_CHARS_MAX: usize = 64;
/// Thousandths of likeness from which on a name is offered.
const LIKENESS_MIN: i32 = 800;

/// The names most like one that is not known, the likest first.
pub(super) fn near<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Vec<String> {
    let start = |name: &str| folded(name).chars().take(COMPARED_CHARS_MAX).collect::<String>();
    let wanted = start(name);
    let mut near: Vec<(Reverse<i32>, &str)> = known
        .take(COMPARED_MAX)
        .map(|known| {
            let candidate = start(known);
            let likeness = strsim::jaro_winkler(&wanted, &candidate);
            // A word of it is enough: `blue` for `Team Blue`.
            let likeness = if candidate.split(' ').any(|word| word == wanted) { 0.99 } else { likeness };
            #[expect(clippy::cast_possible_truncation, reason = "between 0 and 1,000")]
            let thousandths = (likeness * 1_000.0) as i32;
            (Reverse(thousandths), known)
        })
        .filter(|(Reverse(likeness), _)| *likeness >= LIKENESS_MIN)
        .collect();
    near.sort_unstable();
    near.dedup();
    near.into_iter().take(NEAR_NAMES_MAX).map(|(_, name)| name.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_and_blanks_do_not_tell_names_apart() {
        assert_eq!(folded("  Team \t BLUE\n"), "team blue");
        assert_eq!(folded("GRÜN"), folded("grün"));
    }

    #[test]
    fn the_nearest_names_are_offered_and_no_others() {
        let known = ["Family", "Team Blue", "Team Red", "Tennis", "Choir"];
        assert_eq!(near("famly", known.into_iter()), ["Family"]);
        assert_eq!(near("blue", known.into_iter()), ["Team Blue"]);
        assert_eq!(near("xylophone", known.into_iter()), [""; 0]);
    }
}
