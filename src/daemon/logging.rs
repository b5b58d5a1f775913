//! Logs go to standard error: with journald's priorities (sd-daemon(3)) where journald listens, plainly elsewhere.

use std::io::Write;

use env_logger::fmt::Formatter;
use log::{Level, Record};

/// Level `info` unless RUST_LOG says otherwise.
pub fn start() {
    let mut builder = env_logger::Builder::from_env(env_logger::Env::default().default_filter_or(
        // rtnetlink and notify speak of things that porin reports itself.
        "info,netlink_proto=error,netlink_packet_route=error,netlink_packet_utils=error,notify=error",
    ));
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        builder.format(journal);
    } else {
        builder.format(plain);
    }
    builder.init();
}

fn plain(out: &mut Formatter, record: &Record) -> std::io::Result<()> {
    let time = out.timestamp_millis();
    for line in record.args().to_string().lines() {
        writeln!(out, "{time} {:5} {}", word(record.level()), printable(line))?;
    }
    Ok(())
}

fn journal(out: &mut Formatter, record: &Record) -> std::io::Result<()> {
    for line in record.args().to_string().lines() {
        writeln!(out, "<{}>{}", priority(record.level()), printable(line))?;
    }
    Ok(())
}

fn word(level: Level) -> &'static str {
    match level {
        Level::Error => "error",
        Level::Warn => "warn",
        Level::Info => "info",
        Level::Debug => "debug",
        Level::Trace => "trace",
    }
}

/// syslog(3) severities.
fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

/// Names and labels come from files and containers: no control character of theirs reaches a terminal.
fn printable(line: &str) -> String {
    line.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(printable("a\x1b[2Jb\tc"), "a\u{fffd}[2Jb\tc");
    }
}
