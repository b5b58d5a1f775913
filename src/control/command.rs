//! `porinctl`: runs one command, prints, and says how it ended.

use std::io::{self, Write};

use clap::builder::styling::AnsiColor;
use clap::{CommandFactory, Parser};
use jiff::tz::TimeZone;

use super::check::{self, CheckError};
use super::cli::{Cli, Command, Flows};
use super::client::{Client, ClientError};
use super::exit::Exit;
use super::terminal::Terminal;
use super::view::{State, Versioned};
use super::why;
use super::wire::{Request, Response};
use super::{names, show, tables};
use crate::observe::text::plain;

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
pub(super) enum Failure {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Check(#[from] CheckError),
    /// The question cannot be answered.
    #[error("{}", .0.error)]
    Question(why::answer::Error),
    /// The report of what is wrong with the files that are to be asked.
    #[error("the files have errors, so there is nothing to ask")]
    Files(String),
    #[error("cannot read: {0}")]
    Input(io::Error),
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
            Failure::Check(_) | Failure::Question(_) | Failure::Files(_) => Exit::Usage,
            Failure::Input(_) => Exit::Usage,
            Failure::Output(_) | Failure::Json(_) | Failure::Unasked => Exit::Failed,
        }
    }

    fn print(&self) {
        let mut err = anstream::stderr();
        let red = AnsiColor::Red.on_default().bold();
        let text = self.to_string();
        // Nobody to tell if any of this fails.
        if let Failure::Files(report) = self {
            let _ = writeln!(err, "{}", report.trim_end());
        }
        let _ = writeln!(err, "{red}error:{red:#} {}", plain(&text));
        let hint = match self {
            Failure::Client(error) => error.hint(),
            Failure::Question(error) => error.hint.clone(),
            _ => None,
        };
        if let Some(hint) = hint {
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
        Command::Policies(args) if args.hits => {
            let answer = ask(Request::Hits)?;
            let Response::Hits(hits) = &answer else { return Err(Failure::Unasked) };
            let table = || tables::hits(hits, width);
            terminal.print(args.output, &Versioned::new(&answer), table)?;
        }
        Command::Policies(args) => {
            let answer = ask(Request::Policies)?;
            let Response::Policies(policies) = &answer else { return Err(Failure::Unasked) };
            let table = || tables::policies(policies, width);
            terminal.print(args.output, &Versioned::new(&answer), table)?;
        }
        Command::Flows(flows) => {
            return follow(&mut Client::connect(&cli.run)?, &mut terminal, flows);
        }
        Command::Why(args) => return why::command::run(&cli.run, args, &mut terminal),
        Command::Check(args) => {
            let loaded = check::check(&args.directories)?;
            let text = || check::text(&loaded, width);
            terminal.print(args.output, &Versioned::new(check::view(&loaded)), text)?;
            return Ok(if loaded.config.is_some() { Exit::Ok } else { Exit::Faults });
        }
        Command::Completions(args) => {
            let mut script = Vec::new();
            clap_complete::generate(args.shell, &mut Cli::command(), "porinctl", &mut script);
            terminal.out.write_all(&script)?;
        }
    }
    Ok(Exit::Ok)
}

/// The endpoint that is meant by a container's name. One that is not there may have been, and have left flows.
fn whose(client: &mut Client, endpoint: &mut String) -> Result<(), Failure> {
    let Response::Endpoints(all) = client.ask(&Request::Endpoints)? else {
        return Err(Failure::Unasked);
    };
    let meant = names::meant(endpoint, all.iter().map(|one| one.name.as_str()));
    match meant.map_err(|invalid| Failure::Question(invalid.into()))? {
        Some(name) => name.clone_into(endpoint),
        None => {
            let name = plain(endpoint);
            // Nobody to tell if this fails.
            let _ = writeln!(anstream::stderr(), "there is no endpoint `{name}` now");
        }
    }
    Ok(())
}

/// Flows, until there are no more.
fn follow(client: &mut Client, terminal: &mut Terminal, flows: &Flows) -> Result<Exit, Failure> {
    let mut filter = flows.filter();
    if let Some(endpoint) = &mut filter.endpoint {
        whose(client, endpoint)?;
    }
    let request = Request::Flows { follow: flows.follow, filter };
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
