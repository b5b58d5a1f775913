//! The command line of `porinctl`: what can be written. What it does is in `command`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::observe::event::FlowType;
use crate::observe::hub::Filter;

/// Show what porin enforces, and what happened.
#[derive(Debug, Parser)]
#[command(name = "porinctl", version, max_term_width = 100, disable_help_subcommand = true)]
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
    Policies(Output),
    /// New flows, denials and drops: the last ones, and those to come
    Flows(Flows),
    /// Check configuration files, without the daemon and without root
    Check(Check),
}

#[derive(Debug, Clone, Copy, Args)]
pub struct Output {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
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
