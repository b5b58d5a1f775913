//! What libbpf prints: forwarded to `log`, or kept while a program is loaded, so
//! that an error can quote the end of the verifier's log.

use std::cell::RefCell;
use std::sync::Once;

use libbpf_rs::{PrintLevel, set_print};

/// How many lines of the log an error quotes.
const TAIL: usize = 40;

thread_local! {
    static KEPT: RefCell<Option<String>> = const { RefCell::new(None) };
}

fn print(level: PrintLevel, text: String) {
    let kept = KEPT.with_borrow_mut(|kept| match kept {
        Some(kept) if level != PrintLevel::Debug => {
            kept.push_str(&text);
            true
        }
        _ => false,
    });
    if !kept {
        let level = match level {
            PrintLevel::Warn => log::Level::Warn,
            PrintLevel::Info => log::Level::Info,
            PrintLevel::Debug => log::Level::Debug,
        };
        log::log!(target: "libbpf", level, "{}", text.trim_end());
    }
}

/// Has libbpf print through here from now on. Its debug messages are many, and made
/// whether or not anyone reads them: half the time that loading a gate took.
pub fn forward() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let debug = log::log_enabled!(target: "libbpf", log::Level::Debug);
        let level = if debug { PrintLevel::Debug } else { PrintLevel::Info };
        set_print(Some((level, print)));
    });
}

/// Runs `f` and returns with its result the end of what libbpf printed meanwhile.
pub fn keep<T>(f: impl FnOnce() -> T) -> (T, String) {
    forward();
    KEPT.set(Some(String::new()));
    let result = f();
    let text = KEPT.take().unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    (result, lines[lines.len().saturating_sub(TAIL)..].join("\n"))
}
