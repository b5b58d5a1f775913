//! Questions to `porinctl why --batch`, answered from the files alone.

use std::fmt::Write;
use std::fs::File;
use std::process::{Command, Stdio};
use std::time::Instant;

use super::files::Files;
use super::shape::{self, Shape};
use crate::report::Figure;
use crate::stats::Series;

const SHAPE: Shape = Shape { policies: 1000, identities: 100 };
const QUESTIONS: usize = 200_000;
const PORINCTL: &str = env!("CARGO_BIN_EXE_porinctl");

pub fn run(rounds: usize) -> Vec<Figure> {
    let files = Files::new(&SHAPE.files());
    files.write("questions", &questions());
    let once = || {
        let questions = File::open(files.root().join("questions")).expect("questions");
        let mut command = Command::new(PORINCTL);
        command.args(["why", "--batch", "--config"]).arg(files.root());
        let begin = Instant::now();
        let status = command.stdin(questions).stdout(Stdio::null()).status().expect("porinctl");
        assert!(status.success(), "porinctl why: {status}");
        QUESTIONS as f64 / begin.elapsed().as_secs_f64()
    };
    let samples: Vec<f64> = (0..rounds.div_ceil(4)).map(|_| once()).collect();
    vec![Figure::median("why.batch.per-second", &Series::new(samples), "1/s")]
}

/// Of endpoints, labels and addresses, about ports that rules allow and others.
fn questions() -> String {
    let mut text = String::new();
    for n in 0..QUESTIONS {
        let to = shape::endpoint_name(n % SHAPE.identities);
        let port = [8000 + n / 7 % 12, 9090, 443][n % 3];
        let from = (n + [1, 7, 13, 20, 50][n % 5]) % SHAPE.identities;
        let _ = match n % 4 {
            0 | 1 => writeln!(text, "{} {to} {port}/tcp", shape::endpoint_name(from)),
            2 => writeln!(text, "app=a{from},team=t{},env=bench {to} {port}/tcp", from % 20),
            _ => writeln!(text, "{to} 198.51.100.{} {port}/udp", n % 250),
        };
    }
    text
}
