//! Many questions, a line each, and as many answers, in order.
//!
//! What is there to be read is answered together; before waiting for more, all answers are out. So a program may ask
//! through a pipe, one question at a time, and a file of them is answered as fast as they can be judged.

use std::io::{self, BufRead, BufReader, Read, Write};

use super::answer::{Answer, Error};
use super::query::{Guess, Query};
use crate::compile::view::View;
use crate::control::client::ClientError;
use crate::control::view::Versioned;
use crate::observe::text::plain_json;
use crate::types::Invalid;

/// Bytes in the longest line.
pub const LINE_MAX: usize = 16 << 10;
/// Lines that are answered together.
const TOGETHER: usize = 2048;
/// So few are answered without the help of other cores.
const ALONE: usize = 64;

/// Why there are no more answers.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("cannot read: {0}")]
    Input(io::Error),
    #[error("cannot write: {0}")]
    Output(#[from] io::Error),
    #[error(transparent)]
    Client(#[from] ClientError),
}

/// Where answers come from.
pub trait Oracle {
    /// Hands one line of JSON per question to `each`, in order; says how many could not be answered.
    fn ask(
        &mut self,
        queries: &[Query],
        each: &mut dyn FnMut(&str) -> io::Result<()>,
    ) -> Result<u64, Failure>;
}

/// The files' answers.
pub struct Files<'a>(pub &'a View);

impl Oracle for Files<'_> {
    fn ask(
        &mut self,
        queries: &[Query],
        each: &mut dyn FnMut(&str) -> io::Result<()>,
    ) -> Result<u64, Failure> {
        let view = self.0;
        let judge = |queries: &[Query]| -> io::Result<Judged> {
            let mut guess = Guess::default();
            let mut judged = Judged::default();
            for query in queries {
                judged.push(&super::answer_with(&mut guess, view, None, query))?;
            }
            Ok(judged)
        };
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = if queries.len() < ALONE { 1 } else { cores };
        let (own, others) = queries.split_at(queries.len().div_ceil(threads));
        let judged = std::thread::scope(|scope| {
            let begin =
                |queries| std::thread::Builder::new().spawn_scoped(scope, move || judge(queries));
            let workers: Vec<_> = others.chunks(own.len().max(1)).map(begin).collect();
            let mut judged = vec![judge(own)];
            for worker in workers {
                // A panic goes on here.
                judged.push(worker.and_then(|worker| {
                    worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
                }));
            }
            judged
        });
        let mut failed = 0;
        for judged in judged {
            let judged = judged?;
            judged.lines().try_for_each(|line| each(line.map_err(io::Error::other)?))?;
            failed += judged.failed;
        }
        Ok(failed)
    }
}

/// Answers in JSON, one after another in one piece of memory.
#[derive(Default)]
struct Judged {
    json: Vec<u8>,
    /// Where each ends.
    ends: Vec<usize>,
    failed: u64,
}

impl Judged {
    fn push(&mut self, answer: &Answer) -> io::Result<()> {
        serde_json::to_writer(&mut self.json, &Versioned::new(answer))?;
        self.ends.push(self.json.len());
        self.failed += u64::from(matches!(answer, Answer::Error(_)));
        Ok(())
    }

    fn lines(&self) -> impl Iterator<Item = Result<&str, std::str::Utf8Error>> {
        let begins = [0].into_iter().chain(self.ends.iter().copied());
        let ends = self.ends.iter().copied();
        begins.zip(ends).map(|(begin, end)| std::str::from_utf8(&self.json[begin..end]))
    }
}

/// Answers every line of `input` that is not blank. True if all could be.
pub fn run(
    input: impl Read,
    output: &mut impl Write,
    oracle: &mut dyn Oracle,
) -> Result<bool, Failure> {
    let mut input = BufReader::with_capacity(64 << 10, input);
    let mut failed = 0;
    loop {
        if !has_line(&input) {
            output.flush()?;
        }
        let mut lines = Vec::new();
        while lines.is_empty() || (has_line(&input) && lines.len() < TOGETHER) {
            match next_line(&mut input).map_err(Failure::Input)? {
                Some(line) => lines.push(line),
                None => break,
            }
        }
        if lines.is_empty() {
            output.flush()?;
            return Ok(failed == 0);
        }
        failed += answer_all(lines, output, oracle)?;
    }
}

type Asked = Result<Query, Invalid>;

fn answer_all(
    lines: Vec<Asked>,
    output: &mut impl Write,
    oracle: &mut dyn Oracle,
) -> Result<u64, Failure> {
    let mut wrong = Vec::new();
    let mut queries = Vec::with_capacity(lines.len());
    for line in lines {
        match line {
            Ok(query) => queries.push(query),
            Err(invalid) => wrong.push((queries.len(), invalid)),
        }
    }
    let bad = wrong.len() as u64;
    let mut wrong = wrong.into_iter().peekable();
    let mut answered = 0;
    let mut before = |output: &mut dyn Write, answered: usize| -> io::Result<()> {
        while let Some((_, invalid)) = wrong.next_if(|(place, _)| *place <= answered) {
            put(output, &json(&Answer::Error(invalid.into()))?)?;
        }
        Ok(())
    };
    let mut failed = 0;
    if !queries.is_empty() {
        failed = oracle.ask(&queries, &mut |answer| {
            before(output, answered)?;
            answered += 1;
            put(output, answer)
        })?;
    }
    before(output, usize::MAX)?;
    Ok(bad + failed)
}

/// One line, as the daemon would send it.
pub fn json(answer: &Answer) -> io::Result<String> {
    Ok(serde_json::to_string(&Versioned::new(answer))?)
}

/// Whatever labels and files hold.
fn put(output: &mut (impl Write + ?Sized), json: &str) -> io::Result<()> {
    // Nearly always; and looking at bytes is many times as fast as looking at characters.
    if json.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        output.write_all(json.as_bytes())?;
    } else {
        output.write_all(plain_json(json).as_bytes())?;
    }
    output.write_all(b"\n")
}

fn has_line(input: &BufReader<impl Read>) -> bool {
    input.buffer().contains(&b'\n')
}

/// The next line that is not blank; none at the end.
fn next_line(input: &mut impl BufRead) -> io::Result<Option<Asked>> {
    loop {
        let mut line = Vec::new();
        input.take(LINE_MAX as u64 + 1).read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Ok(None);
        }
        if line.len() > LINE_MAX && line.last() != Some(&b'\n') {
            skip_line(input)?;
            let what = format!("the line has more than {LINE_MAX} bytes");
            return Ok(Some(Err(Invalid::new(what))));
        }
        let Ok(text) = std::str::from_utf8(&line) else {
            return Ok(Some(Err(Invalid::new("the line is not UTF-8"))));
        };
        let text = text.trim();
        if !text.is_empty() {
            return Ok(Some(Query::of_line(text)));
        }
    }
}

fn skip_line(input: &mut impl BufRead) -> io::Result<()> {
    loop {
        let buffer = input.fill_buf()?;
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let used = end.map_or(buffer.len(), |at| at + 1);
        input.consume(used);
        if end.is_some() || used == 0 {
            return Ok(());
        }
    }
}

impl Error {
    /// For a question that is too long to be sent.
    pub fn too_long() -> Self {
        Error { error: "the question is too long".to_owned(), hint: None }
    }
}
