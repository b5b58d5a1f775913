//! The command line of `porinctl`: what can be written. What it does is in `command`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use super::why::query::Query;
use crate::observe::event::FlowType;
use crate::observe::hub::Filter;

/// Show what porin enforces, and what happened.
#[derive(Debug, Parser)]
#[command(name = "porinctl", version, max_term_width = 80, disable_help_subcommand = true)]
#[command(after_help = "See porinctl(1) for exit statuses and the JSON forms.")]
pub struct Cli {
    /// Run directory of the daemon, where its socket is
    #[arg(long, global = true, value_name = "DIR", default_value = "/run/porin")]
    pub run: PathBuf,

    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Whether the files are in force, what is wrong with them, and totals
    Status(Output),
    /// Endpoints with their addresses, identities and labels
    Endpoints(Output),
    /// Identities: the distinct sets of labels
    Identities(Output),
    /// Policies, whom they are about, and where they are written
    Policies(Policies),
    /// New flows, denials and drops: the last ones, and those to come
    Flows(Flows),
    /// Whether a flow would be allowed, and which rules say so
    Why(Why),
    /// Check configuration files, without the daemon and without root
    Check(Check),
    /// Print what makes a shell complete the words of a command line
    Completions(Completions),
}

#[derive(Debug, Clone, Copy, Args)]
pub struct Output {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Clone, Copy, Args)]
pub struct Policies {
    /// Show every rule, with how often it decided
    #[arg(long)]
    pub hits: bool,

    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, Args)]
pub struct Why {
    /// Endpoint, labels (app=web,env=prod), address or entity (host, world, ...)
    #[arg(value_name = "FROM", required_unless_present = "batch")]
    pub from: Option<String>,

    /// Likewise
    #[arg(value_name = "TO", required_unless_present = "batch")]
    pub to: Option<String>,

    /// 8080/tcp, http/tcp, icmp/echo-request, protocol/47
    #[arg(value_name = "PORT/PROTO", required_unless_present = "batch")]
    pub port: Option<String>,

    /// The sender's port
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub source_port: Option<u16>,

    /// Ask files in a directory like /etc/porin, not the daemon; highest precedence first if several
    #[arg(long, value_name = "DIR")]
    pub config: Vec<PathBuf>,

    /// Read questions from standard input, a line each, and answer each with a line of JSON
    #[arg(long, conflicts_with_all = ["from", "to", "port", "source_port"])]
    pub batch: bool,

    #[command(flatten)]
    pub output: Output,
}

impl Why {
    /// None: a batch.
    pub fn query(&self) -> Option<Query> {
        let Why { from: Some(from), to: Some(to), port: Some(port), .. } = self else {
            return None;
        };
        let (from, to, port) = (from.clone(), to.clone(), port.clone());
        Some(Query { from, to, port, source_port: self.source_port })
    }
}

#[derive(Debug, Args)]
pub struct Check {
    /// Directories like /etc/porin, highest precedence first [default: /etc/porin /run/porin
    /// /usr/lib/porin]
    #[arg(value_name = "DIR")]
    pub directories: Vec<PathBuf>,

    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, Clone, Copy, Args)]
pub struct Completions {
    /// The shell that is to read it
    #[arg(value_name = "SHELL", value_enum)]
    pub shell: Shell,
}

#[derive(Debug, Args)]
pub struct Flows {
    /// Go on with those to come
    #[arg(short, long)]
    pub follow: bool,

    /// Only these types
    #[arg(long = "type", value_name = "TYPE", value_enum, value_delimiter = ',')]
    pub types: Vec<TypeName>,

    /// Only from or to this endpoint
    #[arg(long, value_name = "NAME")]
    pub endpoint: Option<String>,

    /// At most so many past ones [default: all that are kept, 8192; with --follow: 10]
    #[arg(short = 'n', long, value_name = "N")]
    pub last: Option<usize>,

    #[command(flatten)]
    pub output: Output,
}

/// As on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TypeName {
    /// A flow was judged for the first time, and allowed
    Flow,
    /// Policy denied
    Deny,
    /// Dropped for another reason
    Drop,
}

impl Flows {
    const FOLLOW_LAST: usize = 10;

    pub fn filter(&self) -> Filter {
        let flow_type = |name: &TypeName| match name {
            TypeName::Flow => FlowType::Flow,
            TypeName::Deny => FlowType::Deny,
            TypeName::Drop => FlowType::Drop,
        };
        Filter {
            types: self.types.iter().map(flow_type).collect(),
            endpoint: self.endpoint.clone(),
            last: self.last.or(self.follow.then_some(Self::FOLLOW_LAST)),
        }
    }
}
