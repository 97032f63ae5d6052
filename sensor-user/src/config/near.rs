//! "Did you mean": the known word nearest to a mistyped one.

/// Longest word that is compared, in characters: no key of ours is longer, and the comparison is quadratic.
const MAX_WORD: usize = 64;

/// The nearest of `known` to `word`, if it is near enough to be what was meant.
#[must_use]
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word: Vec<char> = fold(word);
    if word.len() > MAX_WORD {
        return None;
    }
    // One slip in three characters, and always one: "protz" for "ports" is two.
    let most = (word.len() / 3).max(1);
    let distances = known.into_iter().map(|candidate| (distance(&word, &fold(candidate)), candidate));
    distances.filter(|(d, _)| *d <= most).min_by_key(|(d, _)| *d).map(|(_, candidate)| candidate)
}

/// Lower case, and `-` for `_`: the two most common slips cost nothing.
fn fold(word: &str) -> Vec<char> {
    word.chars().take(MAX_WORD + 1).map(|c| if c == '_' { '-' } else { c.to_ascii_lowercase() }).collect()
}

/// Edits between two words: insert, delete, replace, swap neighbours (optimal string alignment).
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, &x) in a.iter().enumerate() {
        let mut row = Vec::with_capacity(b.len() + 1);
        row.push(i + 1);
        let mut above = last.iter();
        let mut diagonal = above.next().copied().unwrap_or_default();
        for (j, (&y, &up)) in b.iter().zip(above).enumerate() {
            let left = row.last().copied().unwrap_or_default();
            let mut best = (left + 1).min(up + 1).min(diagonal + usize::from(x != y));
            let swapped = j > 0 && i > 0 && b.get(j - 1) == Some(&x) && a.get(i - 1) == Some(&y);
            if let (true, Some(far)) = (swapped, before.get(j.wrapping_sub(1))) {
                best = best.min(far + 1);
            }
            row.push(best);
            diagonal = up;
        }
        before = std::mem::replace(&mut last, row);
    }
    last.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: [&str; 4] = ["cgroup", "ports", "max_head_bytes", "ring_bytes"];

    #[test]
    fn finds_slips() {
        assert_eq!(nearest("port", KEYS), Some("ports"));
        assert_eq!(nearest("prots", KEYS), Some("ports"));
        assert_eq!(nearest("maxHeadBytes", KEYS), Some("max_head_bytes"));
        assert_eq!(nearest("MAX-HEAD-BYTES", KEYS), Some("max_head_bytes"));
        assert_eq!(nearest("cgruop", KEYS), Some("cgroup"));
    }

    #[test]
    fn keeps_silent_when_nothing_is_near() {
        assert_eq!(nearest("banana", KEYS), None);
        assert_eq!(nearest("", KEYS), None);
        assert_eq!(nearest(&"p".repeat(100_000), KEYS), None);
    }

    #[test]
    fn measures_edits() {
        let d = |a: &str, b: &str| distance(&fold(a), &fold(b));
        assert_eq!((d("", "abc"), d("abc", ""), d("abc", "abc")), (3, 3, 0));
        assert_eq!((d("abc", "acb"), d("kitten", "sitting"), d("ab", "ba")), (1, 3, 1));
    }
}
