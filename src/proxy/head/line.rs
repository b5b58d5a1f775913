//! Lines of a head: each ends with CR and LF, and neither stands anywhere else.

/// The next line, without its end, and what comes after it. None: the line does not end, or not so.
pub fn cut(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = memchr::memchr2(b'\r', b'\n', text)?;
    let rest = text.get(at..)?.strip_prefix(b"\r\n")?;
    Some((&text[..at], rest))
}

/// Two parts with one blank between, the first without any.
pub fn split(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = memchr::memchr(b' ', line)?;
    Some((&line[..at], &line[at + 1..]))
}
