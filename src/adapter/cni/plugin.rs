//! The program: one operation, by the environment and standard input, to standard output and an exit status.

use std::io::{self, Read, Write};
use std::process::ExitCode;

use serde_json::{Value, json};

use super::environment::{self, Command, Target};
use super::failure::{Code, Failure};
use super::network::{self, Basics};
use super::version::Version;
use super::{arguments, ask, asked, chained, request, result};
use crate::control::attach::{AttachmentId, Place};
use crate::control::wire::{Request, Response};

/// How an operation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// For the runtime: the result or the error as JSON; empty if the operation has no result.
    pub output: String,
    /// For people; none: it succeeded.
    pub error: Option<String>,
}

impl Said {
    fn of(failure: &Failure, version: Version) -> Said {
        Said { output: failure.to_json(version).to_string(), error: Some(failure.to_string()) }
    }
}

/// Everything `porin-cni` does.
pub fn main() -> ExitCode {
    let variable = |name: &str| std::env::var(name);
    let said = match environment::readable(variable) {
        Ok(()) => run(&|name| variable(name).ok(), &mut io::stdin().lock()),
        Err(failure) => Said::of(&failure, Version::NEWEST),
    };
    tell(said)
}

/// To the runtime, and to people.
pub fn tell(said: Said) -> ExitCode {
    let Said { output, error } = said;
    if let Some(error) = &error {
        eprintln!("porin-cni: {error}");
    }
    let written = if output.is_empty() { Ok(()) } else { writeln!(io::stdout(), "{output}") };
    if error.is_none() && written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// One operation. `variable`: the environment; `input`: the network configuration.
pub fn run(variable: &dyn Fn(&str) -> Option<String>, input: &mut dyn Read) -> Said {
    let mut version = Version::NEWEST;
    let done = read(input).and_then(|text| {
        version = network::version(&text).unwrap_or(Version::NEWEST);
        operate(variable, &text)
    });
    match done {
        Ok(result) => {
            Said { output: result.map_or_else(String::new, |r| r.to_string()), error: None }
        }
        Err(failure) => Said::of(&failure, version),
    }
}

pub fn read(input: &mut dyn Read) -> Result<Vec<u8>, Failure> {
    let mut text = Vec::new();
    let most = network::LONGEST as u64 + 1;
    let read = input.take(most).read_to_end(&mut text);
    read.map_err(|error| Failure::new(Code::Io, format!("cannot read standard input: {error}")))?;
    if text.len() > network::LONGEST {
        let what = format!("the network configuration has more than {} bytes", network::LONGEST);
        return Err(Failure::new(Code::Decode, what));
    }
    Ok(text)
}

fn operate(
    variable: &dyn Fn(&str) -> Option<String>,
    text: &[u8],
) -> Result<Option<Value>, Failure> {
    let command = environment::command(variable)?;
    if command == Command::Version {
        return versions(text).map(Some);
    }
    let basics = network::basics(text)?;
    match command {
        Command::Add => {
            let target = environment::target(command, variable)?;
            add(&basics, &target, &variable("CNI_ARGS").unwrap_or_default(), text).map(Some)
        }
        Command::Check => {
            let target = environment::target(command, variable)?;
            check(&basics, &target, text).map(|()| None)
        }
        Command::Del => {
            let target = environment::target(command, variable)?;
            let id = request::id(&basics.name, &target.container, &target.interface);
            ask::detach(&basics.run, &id).map(|()| None)
        }
        Command::Gc => collect(&basics, text).map(|()| None),
        Command::Status => status(&basics).map(|()| None),
        Command::Version => versions(text).map(Some),
    }
}

/// Answers in the version that was asked in, even if it is not one of those supported.
fn versions(text: &[u8]) -> Result<Value, Failure> {
    let asked = match text.trim_ascii() {
        b"" => Version::NEWEST,
        text => network::version(text).or_else(|failure| match failure.code {
            Code::IncompatibleVersion => Ok(Version::NEWEST),
            _ => Err(failure),
        })?,
    };
    let all = Version::ALL.map(Version::as_str);
    Ok(json!({ "cniVersion": asked.as_str(), "supportedVersions": all }))
}

fn add(basics: &Basics, target: &Target, arguments: &str, text: &[u8]) -> Result<Value, Failure> {
    let mut arguments = arguments::parse(arguments)?;
    let mut network = network::network(text)?;
    let previous = network.previous.take();
    let place = match &previous {
        Some(previous) => chained::place(target, previous, &mut arguments, &mut network)?,
        None => Place::Inside {
            namespace: target.namespace.clone().unwrap_or_default(),
            interface: target.interface.clone(),
        },
    };
    let dns = network.dns.clone();
    let found = asked::labels(&network, target, arguments.pod_name.is_some())?;
    let attach = request::attach(basics, target, place, arguments, network, found)?;
    let request = Request::Attach { attach: Box::new(attach) };
    let again = |request: &mut Request| {
        if let Request::Attach { attach } = request {
            attach.again = true;
        }
    };
    match (ask::persistently(&basics.run, request, again)?, previous) {
        (Response::Attached(attached), None) => Ok(result::added(basics.version, &attached, &dns)),
        (Response::Adopted(_), Some(previous)) => Ok(result::passed(basics.version, previous)),
        _ => Err(ask::unasked()),
    }
}

/// # Errors
/// Code 3 if there is no such attachment; porin's own if it is not in force, or not as it was told.
fn check(basics: &Basics, target: &Target, text: &[u8]) -> Result<(), Failure> {
    // CHECK came with 0.4.0.
    if basics.version < Version::V0_4_0 {
        let what = format!("CHECK does not exist in version {}", basics.version);
        return Err(Failure::new(Code::IncompatibleVersion, what));
    }
    let previous = network::network(text)?.previous.ok_or_else(|| {
        Failure::new(Code::InvalidNetwork, "`prevResult` is missing: CHECK needs it")
    })?;
    let id = request::id(&basics.name, &target.container, &target.interface);
    let request = Request::Attachment { id };
    match ask::persistently(&basics.run, request, |_| ())? {
        Response::Attached(attached) => result::compare(&previous, &attached),
        Response::Adopted(adopted) => chained::compare(target, &previous, &adopted),
        _ => Err(ask::unasked()),
    }
}

/// Detaches all of the network that the runtime does not know.
fn collect(basics: &Basics, text: &[u8]) -> Result<(), Failure> {
    since_1_1(basics, "GC")?;
    let valid: Vec<AttachmentId> = network::valid(text)?
        .iter()
        .map(|valid| request::id(&basics.name, &valid.container, &valid.interface))
        .collect();
    let prefix = AttachmentId::prefix(request::ADAPTER, &basics.name);
    let answer = ask::persistently(&basics.run, Request::Attachments { prefix }, |_| ())?;
    let Response::Attachments(all) = answer else { return Err(ask::unasked()) };
    let stale = all.iter().filter(|id| !valid.contains(id));
    // As much as can be done is done, whatever fails.
    let failures: Vec<Failure> =
        stale.filter_map(|id| ask::detach(&basics.run, id).err()).collect();
    failures.into_iter().next().map_or(Ok(()), Err)
}

/// # Errors
/// Code 50: an ADD would fail.
fn status(basics: &Basics) -> Result<(), Failure> {
    since_1_1(basics, "STATUS")?;
    let prefix = AttachmentId::prefix(request::ADAPTER, &basics.name);
    match ask::once(&basics.run, &Request::Attachments { prefix }) {
        Ok(Response::Attachments(_)) => Ok(()),
        Ok(_) => Err(ask::unasked()),
        Err(error) => Err(Failure { code: Code::Unavailable, ..ask::failure(error) }),
    }
}

fn since_1_1(basics: &Basics, operation: &str) -> Result<(), Failure> {
    if basics.version < Version::V1_1_0 {
        let what = format!("{operation} does not exist in version {}", basics.version);
        return Err(Failure::new(Code::IncompatibleVersion, what));
    }
    Ok(())
}
