//! How values and known words appear in messages.

/// Text from a file as part of a message: on one line, harmless to a terminal, and not longer than a reader needs.
pub(super) fn shown(text: &str) -> String {
    const LONGEST: usize = 80;
    let start: String = text.chars().take(LONGEST).collect();
    let more = if start.len() < text.len() { "…" } else { "" };
    format!("{}{more}", start.escape_debug())
}

/// The same as it would be written in TOML.
pub(crate) fn quoted(text: &str) -> String {
    format!("\"{}\"", shown(text))
}

/// Such as `` `a`, `b`, `c` ``.
pub(crate) fn list_of<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let words: Vec<_> = words
        .into_iter()
        .map(|word| format!("`{}`", shown(word)))
        .collect();
    words.join(", ")
}

/// The known word that a wrong one was probably meant to be.
pub(crate) fn nearest<'a>(
    wrong: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    // A third of the letters may be wrong: enough for a slip or a swap, too little to suggest something unrelated.
    // The bound on the length keeps the comparison of a pasted file out of the quadratic algorithm.
    let allowed = (wrong.chars().count() / 3).max(1);
    known
        .into_iter()
        .filter(|candidate| {
            candidate.len().abs_diff(wrong.len()) <= 4 * (allowed + 1) && wrong.len() <= 512
        })
        .map(|candidate| {
            (
                strsim::damerau_levenshtein(&wrong.to_lowercase(), &candidate.to_lowercase()),
                candidate,
            )
        })
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}
