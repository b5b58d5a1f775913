//! The program: one subcommand, by arguments and standard input, to standard output and an exit status.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::{Value, json};

use super::{container, network};
use crate::adapter::cni::ask;
use crate::adapter::cni::failure::{Code, Failure};
use crate::adapter::cni::plugin::{Said, read, tell};
use crate::control::wire::{Request, Response};

/// "The API version must be set to `1.0.0` at the moment."
const API: &str = "1.0.0";

/// Everything that is done by a subcommand.
pub fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    if let [word] = arguments.as_slice()
        && let Some(text) = for_people(word)
    {
        print!("{text}");
        return ExitCode::SUCCESS;
    }
    tell(run(&arguments, &mut io::stdin().lock()))
}

/// What somebody asks who has found the program and is no runtime.
fn for_people(word: &OsStr) -> Option<String> {
    let version = concat!("porin-cni ", env!("CARGO_PKG_VERSION"), "\n");
    match word.to_str()? {
        "-V" | "--version" => Some(version.to_owned()),
        "-h" | "--help" => Some(format!("{version}{HELP}")),
        _ => None,
    }
}

const HELP: &str = "\
Container runtimes run this program; porin-cni(8) tells how they are set up.

  as a CNI plugin       CNI_COMMAND=ADD|DEL|CHECK|GC|STATUS|VERSION and the other
                        variables of the specification, with a network
                        configuration on standard input
  as netavark's plugin  create | setup PATH | teardown PATH | info, with
                        netavark's JSON on standard input
";

/// `arguments`: the subcommand, and the namespace's path behind `setup` and `teardown`.
pub fn run(arguments: &[OsString], input: &mut dyn Read) -> Said {
    match operate(arguments, input) {
        Ok(result) => {
            Said { output: result.map_or_else(String::new, |r| r.to_string()), error: None }
        }
        Err(failure) => {
            let error = failure.to_string();
            // Podman knows this one key, and no other.
            Said { output: json!({ "error": error }).to_string(), error: Some(error) }
        }
    }
}

fn operate(arguments: &[OsString], input: &mut dyn Read) -> Result<Option<Value>, Failure> {
    let words: Vec<_> = arguments.iter().map(|word| word.to_str().unwrap_or_default()).collect();
    match words[..] {
        ["info"] => Ok(Some(json!({ "version": env!("CARGO_PKG_VERSION"), "api_version": API }))),
        ["create"] => network::create(&read(input)?).map(Some),
        ["setup", path] if !path.is_empty() => setup(path.into(), &read(input)?).map(Some),
        // The path may be that of a namespace that is gone, or none.
        ["teardown"] | ["teardown", _] => teardown(&read(input)?).map(|()| None),
        _ => Err(Failure::new(Code::InvalidEnvironment, "there is no such subcommand")
            .details("it is create, setup PATH, teardown PATH or info: see porin-cni(8)")),
    }
}

fn setup(namespace: PathBuf, text: &[u8]) -> Result<Value, Failure> {
    let container = container::read(text)?;
    let (run, dns) = (container.run.clone(), json!([]));
    let request = Request::Attach { attach: Box::new(container.attach(namespace)?) };
    let again = |request: &mut Request| {
        if let Request::Attach { attach } = request {
            attach.again = true;
        }
    };
    match ask::persistently(&run, request, again)? {
        Response::Attached(attached) => Ok(json!({
            "dns_search_domains": dns,
            "dns_server_ips": dns,
            "interfaces": { attached.interface.as_str(): container::interface(&attached) },
        })),
        _ => Err(ask::unasked()),
    }
}

fn teardown(text: &[u8]) -> Result<(), Failure> {
    let (run, id) = container::which(text)?;
    ask::detach(&run, &id)
}
