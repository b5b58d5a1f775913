//! `porinctl`: runs one command, prints, and says how it ended.

use std::io::{self, IsTerminal, Write};

use anstream::AutoStream;
use clap::Parser;
use clap::builder::styling::{AnsiColor, Style};
use jiff::tz::TimeZone;
use rustix::termios::tcgetwinsize;
use serde::Serialize;

use super::check::{self, CheckError};
use super::cli::{Cli, Command, Flows, Output};
use super::client::{Client, ClientError};
use super::exit::Exit;
use super::view::{State, Versioned};
use super::wire::{Request, Response};
use super::{show, tables};
use crate::observe::event::FlowType;
use crate::observe::flow::Flow;
use crate::observe::line::Line;
use crate::observe::text::{plain, plain_json};

/// The whole program.
pub fn main() -> Exit {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(exit) => exit,
        // The reader has seen enough: `porinctl flows | head`.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Ok,
        Err(failure) => {
            failure.print();
            failure.exit()
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Check(#[from] CheckError),
    #[error("cannot write: {0}")]
    Output(#[from] io::Error),
    #[error("cannot print as JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("porind answered something else than was asked for")]
    Unasked,
}

impl Failure {
    fn exit(&self) -> Exit {
        match self {
            Failure::Client(error) => error.exit(),
            Failure::Check(_) => Exit::Usage,
            Failure::Output(_) | Failure::Json(_) | Failure::Unasked => Exit::Failed,
        }
    }

    fn print(&self) {
        let mut err = anstream::stderr();
        let red = AnsiColor::Red.on_default().bold();
        let text = self.to_string();
        // Nobody to tell if this fails.
        let _ = writeln!(err, "{red}error:{red:#} {}", plain(&text));
        if let Failure::Client(error) = self
            && let Some(hint) = error.hint()
        {
            let _ = writeln!(err, "  hint: {}", plain(&hint));
        }
    }
}

fn run(cli: &Cli) -> Result<Exit, Failure> {
    let mut terminal = Terminal::new();
    let width = terminal.width;
    let ask = |request| Client::connect(&cli.run)?.ask(&request);
    match &cli.command {
        Command::Status(output) => {
            let Response::Status(status) = ask(Request::Status)? else {
                return Err(Failure::Unasked);
            };
            let text = || show::status(&status, &TimeZone::system());
            terminal.print(*output, &Versioned::new(&*status), text)?;
            let well = status.state == State::Enforcing && status.in_force;
            return Ok(if well { Exit::Ok } else { Exit::Faults });
        }
        Command::Endpoints(output) => {
            let answer = ask(Request::Endpoints)?;
            let Response::Endpoints(endpoints) = &answer else { return Err(Failure::Unasked) };
            let table = || tables::endpoints(endpoints, width);
            terminal.print(*output, &Versioned::new(&answer), table)?;
        }
        Command::Identities(output) => {
            let answer = ask(Request::Identities)?;
            let Response::Identities(identities) = &answer else { return Err(Failure::Unasked) };
            let table = || tables::identities(identities, width);
            terminal.print(*output, &Versioned::new(&answer), table)?;
        }
        Command::Policies(output) => {
            let answer = ask(Request::Policies)?;
            let Response::Policies(policies) = &answer else { return Err(Failure::Unasked) };
            let table = || tables::policies(policies, width);
            terminal.print(*output, &Versioned::new(&answer), table)?;
        }
        Command::Flows(flows) => {
            return follow(&mut Client::connect(&cli.run)?, &mut terminal, flows);
        }
        Command::Check(args) => {
            let loaded = check::check(&args.directories)?;
            let text = || check::text(&loaded, width);
            terminal.print(args.output, &Versioned::new(check::view(&loaded)), text)?;
            return Ok(if loaded.config.is_some() { Exit::Ok } else { Exit::Faults });
        }
    }
    Ok(Exit::Ok)
}

/// Flows, until there are no more.
fn follow(client: &mut Client, terminal: &mut Terminal, flows: &Flows) -> Result<Exit, Failure> {
    let request = Request::Flows { follow: flows.follow, filter: flows.filter() };
    let zone = TimeZone::system();
    let mut answer = client.ask(&request)?;
    loop {
        match answer {
            Response::Flow(flow) if flows.output.json => {
                terminal.json_line(&Versioned::new(&*flow))?;
            }
            Response::Flow(flow) => terminal.flow(&flow, &zone)?,
            Response::Lost(count) if flows.output.json => {
                let lost = serde_json::json!({"type": "lost", "count": count});
                terminal.json_line(&Versioned::new(lost))?;
            }
            Response::Lost(count) => terminal.text(&format!("... {count} more, not shown\n"))?,
            Response::End {} => return Ok(Exit::Ok),
            _ => return Err(Failure::Unasked),
        }
        if flows.follow {
            terminal.out.flush()?;
        }
        answer = client.answer()?;
    }
}

/// Standard output: coloured and as wide as the terminal, if it is one.
struct Terminal {
    out: io::BufWriter<AutoStream<io::Stdout>>,
    width: Option<usize>,
}

impl Terminal {
    fn new() -> Self {
        let stdout = io::stdout();
        let width = stdout.is_terminal().then(|| tcgetwinsize(&stdout).ok()).flatten();
        let width = width.map(|size| usize::from(size.ws_col)).filter(|columns| *columns > 0);
        Terminal { out: io::BufWriter::new(AutoStream::auto(stdout)), width }
    }

    fn print<T: Serialize>(
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

    fn json_line<T: Serialize>(&mut self, value: &T) -> Result<(), Failure> {
        let json = serde_json::to_string(value)?;
        Ok(writeln!(self.out, "{}", plain_json(&json))?)
    }

    fn flow(&mut self, flow: &Flow, zone: &TimeZone) -> Result<(), Failure> {
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

    fn text(&mut self, text: &str) -> Result<(), Failure> {
        Ok(self.out.write_all(text.as_bytes())?)
    }
}
