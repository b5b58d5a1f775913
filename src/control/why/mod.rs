//! `porinctl why`: questions in, answers with their reasons out. The judging is [`View::judge`]'s.

pub mod answer;
pub mod batch;
mod because;
pub(super) mod command;
pub mod daemon;
pub mod port;
pub mod query;
pub mod text;

use std::io;
use std::time::{Duration, Instant};

use crate::compile::view::{Party, Ranked, View};
use crate::compile::why::{Decision, Explanation, Source};
use crate::control::wire::Answers;
use crate::observe::flow::DefaultMark;
use crate::types::{Direction, Generation, Invalid};

use answer::{Almost, Answer, By, End, Policy, Rule, Shadow, Side, Why};
use query::{Guess, Meant, Query};

/// Of questions, those that are answered together at most.
const TOGETHER: usize = 256;
/// Bytes of JSON in answers that are given together; one answer may have more.
const BYTES: usize = 8 << 20;
/// After so long, what is there is the answer.
const TIME: Duration = Duration::from_secs(2);

/// `generation`: that `view` is of, if it is in force.
pub fn answer(view: &View, generation: Option<Generation>, query: &Query) -> Answer {
    answer_with(&mut Guess::default(), view, generation, query)
}

/// The answers to the first questions, in order: as many as are given together, and at least one if any is asked.
pub fn answers(view: &View, generation: Option<Generation>, queries: &[Query]) -> Answers {
    let (begin, mut guess, mut bytes) = (Instant::now(), Guess::default(), 0);
    let mut answers = Vec::new();
    for query in queries.iter().take(TOGETHER) {
        let answer = answer_with(&mut guess, view, generation, query);
        // What labels and sentences repeat is counted each time.
        bytes += size(&answer);
        if bytes > BYTES && !answers.is_empty() {
            break;
        }
        answers.push(answer);
        if begin.elapsed() > TIME {
            break;
        }
    }
    answers.into_iter().collect()
}

/// `guess`: of the questions that are asked together.
fn answer_with(
    guess: &mut Guess,
    view: &View,
    generation: Option<Generation>,
    query: &Query,
) -> Answer {
    match why(guess, view, generation, query) {
        Ok(why) => Answer::Why(Box::new(why)),
        Err(invalid) => Answer::Error(invalid.into()),
    }
}

/// Bytes of its JSON.
fn size(answer: &Answer) -> usize {
    struct Count(usize);
    impl io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    // Nothing in an answer fails to be JSON; if it did, writing it out would say so.
    serde_json::to_writer(&mut count, answer).map_or(0, |()| count.0)
}

fn why(
    guess: &mut Guess,
    view: &View,
    generation: Option<Generation>,
    query: &Query,
) -> Result<Why, Invalid> {
    let mut meant = query.meant(view, guess)?;
    let Meant { protocol, port, source_port, .. } = meant;
    let explanation = view.judge(&meant.from, &meant.to, protocol, port, source_port);
    if explanation.source == Some(Source::TooMany) {
        return Err(Invalid::new("rules tell too many source ports apart to try them all")
            .hint("say which with --source-port"));
    }
    let mut notes = std::mem::take(&mut meant.notes);
    notes.extend(because::notes(&explanation, &meant));
    let because = because::outcome(&explanation, &meant);
    let almost = match explanation.almost.as_slice() {
        [] => Vec::new(),
        all => {
            let other = because::Other::new(&meant);
            let almost = all.iter().map(|almost| Almost {
                rule: rule(&almost.rule, almost.rule.index.unwrap_or_default()),
                direction: almost.rule.direction,
                differs: almost.differs.as_str().to_owned(),
                because: because::almost(almost, &meant, &other),
            });
            almost.collect()
        }
    };
    let Explanation { verdict, family, egress, ingress, shadow, .. } = explanation;
    Ok(Why {
        verdict,
        generation,
        from: end(&meant.from, &query.from),
        to: end(&meant.to, &query.to),
        port: because::asked(&meant),
        source_port,
        family,
        egress: egress.map(|decision| side(&decision, Direction::Egress)),
        ingress: ingress.map(|decision| side(&decision, Direction::Ingress)),
        because,
        almost,
        shadow: shadow.map(|shadow| Shadow {
            verdict: shadow.verdict,
            egress: shadow.egress.map(|decision| side(&decision, Direction::Egress)),
            ingress: shadow.ingress.map(|decision| side(&decision, Direction::Ingress)),
        }),
        notes,
    })
}

fn end(party: &Party, written: &str) -> End {
    let nobody = End { endpoint: None, labels: None, address: None, class: None };
    match party {
        Party::Endpoint { member, family } => End {
            endpoint: member.name.as_ref().map(ToString::to_string),
            labels: Some(member.labels.clone()),
            address: family.and_then(|_| written.parse().ok()),
            class: None,
        },
        Party::Outside { address, kind } => {
            End { address: Some(*address), class: Some(kind.as_str().to_owned()), ..nobody }
        }
        Party::Unassigned(address) => {
            End { address: Some(*address), class: Some("pool".to_owned()), ..nobody }
        }
        Party::Entity(entity) => End { class: Some(entity.to_string()), ..nobody },
    }
}

fn side(decision: &Decision, direction: Direction) -> Side {
    let (by, default_of) = match &decision.by {
        Some(by) => match by.index {
            Some(index) => (By::Rule(rule(by, index)), None),
            None => (By::Default(DefaultMark::Default), Some(policy(by))),
        },
        None => (By::Default(DefaultMark::Default), None),
    };
    let passed = decision.passed.as_ref();
    let passed = passed.and_then(|passed| Some(rule(passed, passed.index?)));
    let because = because::decision(decision, direction);
    let requests = because::requests(decision);
    Side { verdict: decision.verdict, by, default_of, passed, requests, because }
}

fn rule(ranked: &Ranked, index: u32) -> Rule {
    Rule { policy: policy(ranked), rule: index.saturating_add(1) }
}

fn policy(ranked: &Ranked) -> Policy {
    let origin = ranked.origin();
    Policy {
        policy: ranked.policy.name.to_string(),
        file: origin.file.to_string_lossy().into_owned(),
        line: origin.line,
        tier: ranked.tier,
    }
}
