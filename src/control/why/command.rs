//! The command: whom to ask, and how to print what is said.

use std::io;
use std::path::Path;

use super::answer::Answer;
use super::batch::{self, Files};
use super::daemon::Daemon;
use super::text;
use crate::compile::view::View;
use crate::control::check;
use crate::control::cli;
use crate::control::client::Client;
use crate::control::command::Failure;
use crate::control::exit::Exit;
use crate::control::terminal::Terminal;
use crate::control::view::Versioned;
use crate::control::wire::{Request, Response};
use crate::types::Verdict;

pub fn run(run: &Path, args: &cli::Why, terminal: &mut Terminal) -> Result<Exit, Failure> {
    let files = match args.config.as_slice() {
        [] => None,
        directories => Some(view(directories, terminal.width)?),
    };
    let Some(query) = args.query() else {
        let input = io::stdin().lock();
        let all = match files {
            Some(view) => batch::run(input, &mut terminal.out, &mut Files(&view))?,
            None => batch::run(input, &mut terminal.out, &mut Daemon::connect(run)?)?,
        };
        return Ok(if all { Exit::Ok } else { Exit::Usage });
    };
    let answer = match files {
        Some(view) => super::answer(&view, None, &query),
        None => {
            let request = Request::Why { queries: vec![query] };
            let Response::Why(answers) = Client::connect(run)?.ask(&request)? else {
                return Err(Failure::Unasked);
            };
            answers.answers.into_iter().next().ok_or(Failure::Unasked)?.body
        }
    };
    match answer {
        Answer::Why(why) => {
            let width = terminal.width;
            terminal.print(args.output, &Versioned::new(&*why), || text::why(&why, width))?;
            Ok(if why.verdict == Verdict::Allow { Exit::Ok } else { Exit::Faults })
        }
        Answer::Error(error) => Err(Failure::Question(error)),
    }
}

/// What the files say, without the daemon.
fn view(directories: &[std::path::PathBuf], width: Option<usize>) -> Result<View, Failure> {
    let loaded = check::check(directories)?;
    match &loaded.config {
        Some(config) => Ok(View::of_config(config)),
        None => Err(Failure::Files(check::text(&loaded, width))),
    }
}

impl From<batch::Failure> for Failure {
    fn from(failure: batch::Failure) -> Self {
        match failure {
            batch::Failure::Input(error) => Failure::Input(error),
            batch::Failure::Output(error) => Failure::Output(error),
            batch::Failure::Client(error) => Failure::Client(error),
        }
    }
}
