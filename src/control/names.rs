//! Endpoints by the names that people call their containers.
//!
//! Adapters put something to a container's name that tells it from all others: a network before it (`front/web`) or twelve
//! hexadecimal digits after it (`web-0f3ac1d2e4b5`). Whoever asks about `web` means it if there is only one.

use crate::types::Invalid;

/// The endpoint that is meant by `text`; none: there is none.
///
/// # Errors
/// It could be any of several.
pub fn meant<'a>(
    text: &str,
    names: impl Iterator<Item = &'a str>,
) -> Result<Option<&'a str>, Invalid> {
    let mut found = Vec::new();
    for name in names {
        if name == text {
            return Ok(Some(name));
        }
        if bare(name).any(|bare| bare == text) {
            found.push(name);
        }
    }
    found.sort_unstable();
    match found.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some(one)),
        several => {
            let what = format!("`{text}` could be any of {} endpoints", several.len());
            let mut listed = several.iter().take(LISTED).copied().collect::<Vec<_>>().join(", ");
            if several.len() > LISTED {
                listed.push_str(", ...");
            }
            Err(Invalid::new(what).hint(format!("write which: {listed}")))
        }
    }
}

/// Of several, so many are named.
const LISTED: usize = 4;
const DIGITS: usize = 12;

/// What else it may be called.
fn bare(name: &str) -> impl Iterator<Item = &str> {
    fn last(name: &str) -> Option<&str> {
        name.rsplit_once('/').map(|(_, last)| last)
    }
    let is_digit = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
    let digits = |tail: &&str| tail.len() == DIGITS && tail.bytes().all(is_digit);
    let without = name.rsplit_once('-').filter(|(_, tail)| digits(tail)).map(|(head, _)| head);
    [without, last(name), without.and_then(last)].into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 6] = [
        "web",
        "api-0123456789ab",
        "front/db",
        "shop/pod-0123456789ab",
        "old/api",
        "job-0123456789a",
    ];

    #[test]
    fn a_containers_name_is_enough_if_there_is_one() {
        let meant = |text| meant(text, NAMES.into_iter());
        assert_eq!(meant("web"), Ok(Some("web")));
        assert_eq!(meant("db"), Ok(Some("front/db")));
        assert_eq!(meant("pod"), Ok(Some("shop/pod-0123456789ab")));
        assert_eq!(meant("shop/pod"), Ok(Some("shop/pod-0123456789ab")));
        for nobody in ["", "front", "job", "0123456789ab", "pod-", "x"] {
            assert_eq!(meant(nobody), Ok(None), "{nobody}");
        }
        let error = meant("api").unwrap_err();
        assert!(error.to_string().contains("any of 2"), "{error}");
        assert!(error.hint.unwrap().contains("api-0123456789ab, old/api"));
    }
}
