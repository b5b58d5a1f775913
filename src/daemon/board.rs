//! What the operator may see: the main loop puts up a new board after each round, the control server reads it.
//!
//! A board is immutable; whoever reads one sees one round's whole truth. Only counters are read when they are asked for.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use jiff::Timestamp;

use crate::compile::view::View;
use crate::config::model::Config;
use crate::control::rows;
use crate::control::server::Handler;
use crate::control::view;
use crate::control::why;
use crate::control::wire::{ErrorCode, Request, Response};
use crate::desired::Fault;
use crate::desired::snapshot::Snapshot;
use crate::observe::counters::Counters;
use crate::observe::hub::{Filter, Hub, Subscription};
use crate::observe::names::NameBook;
use crate::types::{Cookie, Generation};

use super::attachments::Attachments;

/// One round's truth.
#[derive(Debug, Clone)]
pub struct Board {
    pub generation: Generation,
    pub state: view::State,
    pub since: Timestamp,
    /// What is in force is what the files say.
    pub in_force: bool,
    pub faults: Vec<view::FaultView>,
    pub faults_omitted: u64,
    /// Those of the faults that keep endpoints closed, among others.
    pub closed: Vec<Fault>,
    pub kernel: view::Kernel,
    /// What was committed by this daemon.
    pub committed: Option<Committed>,
}

/// What a generation was made of.
#[derive(Debug, Clone)]
pub struct Committed {
    pub config: Arc<Config>,
    pub snapshot: Snapshot,
    /// Made by the first who asks: a commit does not pay for it.
    view: Arc<OnceLock<View>>,
}

impl Committed {
    pub fn new(config: Arc<Config>, snapshot: Snapshot) -> Self {
        Committed { config, snapshot, view: Arc::default() }
    }

    /// Its policies, arranged for questions.
    pub fn view(&self) -> &View {
        self.view.get_or_init(|| View::of_snapshot(&self.snapshot))
    }
}

/// Counters as they are now. The kernel's, or a test's.
pub trait Meters: Send + Sync + 'static {
    fn counters(&self, names: &NameBook) -> Result<Counters, String>;
    /// How often each rule decided: once for each flow that was allowed, and for each packet that was denied or
    /// rejected. True: how often it would have if shadow policies were enforced.
    fn hits(&self) -> Result<BTreeMap<(Cookie, bool), u64>, String>;
    /// What the L7 worker has counted; none: there is none.
    fn requests(&self) -> Option<view::Requests> {
        None
    }
    /// Somebody wants to hear of flows from now on.
    fn followed(&self) {}
    /// Flows in the conntrack tables, and events that were counted but not told of.
    fn flows(&self) -> Result<(u64, u64), String>;
}

/// Answers the control server.
pub struct Answers {
    board: Mutex<Arc<Board>>,
    pub names: Arc<NameBook>,
    pub hub: Arc<Hub>,
    meters: Box<dyn Meters>,
    attachments: Arc<Attachments>,
}

impl Answers {
    pub fn new(board: Board, meters: Box<dyn Meters>, attachments: Arc<Attachments>) -> Self {
        Answers {
            board: Mutex::new(Arc::new(board)),
            names: Arc::default(),
            hub: Arc::default(),
            meters,
            attachments,
        }
    }

    pub fn put_up(&self, board: Board) {
        *self.lock() = Arc::new(board);
    }

    pub fn board(&self) -> Arc<Board> {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Arc<Board>> {
        // The board is replaced whole: a panic elsewhere leaves the one before.
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, request: Request) -> Result<Response, String> {
        let board = self.board();
        let committed = board.committed.as_ref();
        Ok(match request {
            Request::Status => Response::Status(Box::new(self.status(&board)?)),
            Request::Endpoints => Response::Endpoints(match committed {
                Some(Committed { config, snapshot, .. }) => {
                    let counters = self.meters.counters(&self.names)?;
                    rows::endpoints(config, snapshot, &board.closed, &counters)
                }
                None => Vec::new(),
            }),
            Request::Identities => Response::Identities(
                committed.map(|c| rows::identities(&c.snapshot)).unwrap_or_default(),
            ),
            Request::Policies => Response::Policies(
                committed.map(|c| rows::policies(&c.snapshot)).unwrap_or_default(),
            ),
            Request::Hits => Response::Hits(match committed {
                Some(Committed { snapshot, .. }) => {
                    rows::hits(snapshot, self.names.in_force().rules(), &self.meters.hits()?)
                }
                None => Vec::new(),
            }),
            Request::Why { queries } => {
                let Some(committed) = committed else {
                    return Err("nothing was committed since the daemon began".to_owned());
                };
                Response::Why(why::answers(committed.view(), Some(board.generation), &queries))
            }
            Request::Flows { .. } => {
                Response::error(ErrorCode::BadRequest, "flows are subscribed to")
            }
            Request::Attach { attach } => self.attachments.attach(&attach, || self.board()),
            Request::Detach { id } => self.attachments.detach(&id),
            Request::Attachment { id } => self.attachments.look(&id, &board),
            Request::Attachments { .. } if committed.is_none() => {
                Response::error(ErrorCode::Later, "the daemon has put nothing in force yet")
            }
            Request::Attachments { prefix } => {
                Response::Attachments(self.attachments.list(&prefix))
            }
        })
    }

    fn status(&self, board: &Board) -> Result<view::Status, String> {
        let (tracked, suppressed) = self.meters.flows()?;
        let counters = self.meters.counters(&self.names)?;
        let committed = board.committed.as_ref();
        let open = |c: &Committed| c.snapshot.endpoints.values().filter(|one| !one.shut).count();
        let attached = committed.map_or(0, open);
        let configured = committed.map_or(0, |c| c.config.endpoints.len());
        Ok(view::Status {
            porin: env!("CARGO_PKG_VERSION").to_owned(),
            generation: board.generation,
            state: board.state,
            since: board.since,
            in_force: board.in_force,
            faults: board.faults.clone(),
            faults_omitted: board.faults_omitted,
            endpoints: view::EndpointTotals {
                attached: attached as u64,
                closed: configured.saturating_sub(attached) as u64,
            },
            identities: committed.map_or(0, |c| c.snapshot.identities.len()) as u64,
            policies: committed.map_or(0, |c| c.snapshot.policies.len()) as u64,
            kernel: board.kernel.clone(),
            flows: view::FlowTotals { tracked, seen: self.hub.published(), suppressed },
            requests: self.meters.requests(),
            drops: counters.drops,
        })
    }
}

impl Handler for Answers {
    fn handle(&self, request: Request) -> Response {
        self.answer(request).unwrap_or_else(|what| Response::error(ErrorCode::Failed, what))
    }

    fn subscribe(&self, filter: Filter) -> Subscription {
        let subscription = self.hub.subscribe(filter);
        if self.hub.is_followed() {
            self.meters.followed();
        }
        subscription
    }
}
