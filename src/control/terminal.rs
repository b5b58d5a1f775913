//! Where `porinctl` prints.

use std::io::{self, IsTerminal, Write};

use anstream::AutoStream;
use clap::builder::styling::{AnsiColor, Style};
use jiff::tz::TimeZone;
use rustix::termios::tcgetwinsize;
use serde::Serialize;

use super::cli::Output;
use super::command::Failure;
use crate::observe::event::FlowType;
use crate::observe::flow::Flow;
use crate::observe::line::Line;
use crate::observe::text::plain_json;

/// Standard output: coloured and as wide as the terminal, if it is one.
pub(super) struct Terminal {
    pub(super) out: io::BufWriter<AutoStream<io::Stdout>>,
    pub(super) width: Option<usize>,
}

impl Terminal {
    pub(super) fn new() -> Self {
        let stdout = io::stdout();
        let width = stdout.is_terminal().then(|| tcgetwinsize(&stdout).ok()).flatten();
        let width = width.map(|size| usize::from(size.ws_col)).filter(|columns| *columns > 0);
        Terminal { out: io::BufWriter::new(AutoStream::auto(stdout)), width }
    }

    pub(super) fn print<T: Serialize>(
        &mut self,
        output: Output,
        value: &T,
        text: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        if output.json {
            let json = serde_json::to_string_pretty(value)?;
            self.text(&plain_json(&json))?;
            self.text("\n")?;
        } else {
            self.text(&text())?;
        }
        Ok(self.out.flush()?)
    }

    pub(super) fn json_line<T: Serialize>(&mut self, value: &T) -> Result<(), Failure> {
        let json = serde_json::to_string(value)?;
        Ok(writeln!(self.out, "{}", plain_json(&json))?)
    }

    pub(super) fn flow(&mut self, flow: &Flow, zone: &TimeZone) -> Result<(), Failure> {
        let line = Line::new(flow, zone, self.width);
        let style = match flow.kind {
            FlowType::Flow => AnsiColor::Green.on_default(),
            FlowType::Deny => AnsiColor::Red.on_default(),
            FlowType::Drop => AnsiColor::Yellow.on_default(),
        };
        let dim = Style::new().dimmed();
        let Line { time, word, rest, .. } = line;
        Ok(writeln!(self.out, "{dim}{time}{dim:#} {style}{word}{style:#}{rest}")?)
    }

    pub(super) fn text(&mut self, text: &str) -> Result<(), Failure> {
        Ok(self.out.write_all(text.as_bytes())?)
    }
}
