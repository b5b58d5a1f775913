//! Text from elsewhere, made safe for terminals and logs.
//!
//! Labels, paths and messages may come from anybody who can name a container. No byte of theirs may
//! move a cursor, change a colour or reverse the reading direction.

use std::borrow::Cow;
use std::fmt::Write;

/// `text` with every character that is not plain written as `\u{..}`.
pub fn plain(text: &str) -> Cow<'_, str> {
    if !text.contains(is_active) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if is_active(c) {
            escaped.extend(c.escape_unicode());
        } else {
            escaped.push(c);
        }
    }
    Cow::Owned(escaped)
}

/// JSON text with active characters escaped. JSON itself only asks for that below U+0020; the rest
/// of them can only stand inside strings, where the escape means the same.
pub fn plain_json(json: &str) -> Cow<'_, str> {
    if !json.contains(is_active) {
        return Cow::Borrowed(json);
    }
    let mut escaped = String::with_capacity(json.len() + 8);
    let mut units = [0; 2];
    for c in json.chars() {
        // Line feeds between values are the writer's own: inside strings they are escaped already.
        if !is_active(c) || c == '\n' {
            escaped.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut units) {
            // Writing to a String cannot fail.
            let _ = write!(escaped, "\\u{unit:04x}");
        }
    }
    Cow::Owned(escaped)
}

/// Control characters (C0, DEL, C1), and those that reorder or hide text (Unicode TR 36, 3.2).
fn is_active(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}' | '\u{61c}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn active_characters_are_written_out() {
        assert_eq!(plain("a\u{1b}[31mb"), "a\\u{1b}[31mb");
        assert_eq!(plain("\u{9b}2J\r\n"), "\\u{9b}2J\\u{d}\\u{a}");
        assert_eq!(plain("\u{202e}gnp"), "\\u{202e}gnp");
        assert_eq!(plain("naïve 容器"), "naïve 容器");
    }

    #[test]
    fn escaped_json_means_the_same() {
        let value = serde_json::json!({"a": "\u{1b}\u{9b}\u{7f}\u{202e}\u{e0001}\n\"é"});
        let json = serde_json::to_string_pretty(&value).unwrap();
        let escaped = plain_json(&json);
        assert!(!escaped.contains(|c| is_active(c) && c != '\n'));
        assert_eq!(serde_json::from_str::<serde_json::Value>(&escaped).unwrap(), value);
    }
}
