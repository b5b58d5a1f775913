//! What the demo prints, and whether all of it was as expected. Fits 80 columns.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Instant;

pub struct Paper {
    colour: bool,
    begin: Instant,
    checks: u32,
    wrong: u32,
}

/// One line of the table.
pub struct Row {
    pub who: String,
    pub how: &'static str,
    pub family: &'static str,
    pub expected: bool,
    pub passed: bool,
    /// The line that denied; empty if nothing is known.
    pub by: String,
    /// Whether `by` is what it should be.
    pub by_as_expected: bool,
}

impl Paper {
    pub fn new() -> Paper {
        let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Paper { colour, begin: Instant::now(), checks: 0, wrong: 0 }
    }

    pub fn chapter(&self, title: &str) {
        println!("\n{}", self.paint("1", title));
    }

    pub fn say(&self, text: &str) {
        println!("  {text}");
        let _ = std::io::stdout().flush();
    }

    pub fn quote(&self, what: &str, text: &str) {
        println!("  $ {what}");
        text.lines().for_each(|line| println!("  {line}"));
    }

    pub fn check(&mut self, what: &str, right: bool) {
        let mark = self.mark(right);
        println!("  {mark:4} {what}");
    }

    pub fn table(&mut self, rows: &[Row]) {
        let head =
            format!("  {:24} {:6} {:6} {:6} {:6} {}", "", "", "", "expect", "is", "denied by");
        println!("{}", self.paint("2", &head));
        for row in rows {
            let word = |pass: bool| if pass { "pass" } else { "deny" };
            let right = row.expected == row.passed && row.by_as_expected;
            let is = format!("{:6}", word(row.passed));
            let is = self.paint(if row.passed { "32" } else { "33" }, &is);
            let Row { who, how, family, by, .. } = row;
            let expected = word(row.expected);
            self.count(right);
            let wrong = if right { String::new() } else { self.paint("31", "  WRONG") };
            let line = format!("  {who:24} {how:6} {family:6} {expected:6} {is} {by}{wrong}");
            println!("{}", line.trim_end());
        }
    }

    /// The same tries again: only what differs from the expectation is worth a line.
    pub fn again(&mut self, rows: &[Row]) {
        let right = |row: &&Row| row.expected == row.passed && row.by_as_expected;
        let (same, wrong): (Vec<&Row>, Vec<&Row>) = rows.iter().partition(right);
        same.iter().for_each(|_| self.count(true));
        let what = format!("{} of {} tries end as before", same.len(), rows.len());
        println!("  {} {what}", self.paint(if wrong.is_empty() { "32" } else { "31" }, "ok  "));
        for row in wrong {
            self.check(&format!("{} {} {}", row.who, row.how, row.family), false);
        }
    }

    pub fn verdict(&self) -> ExitCode {
        let seconds = self.begin.elapsed().as_secs_f64();
        let Paper { checks, wrong, .. } = self;
        if *wrong == 0 {
            println!(
                "\n{} ({checks} checks, {seconds:.0} s)",
                self.paint("32", "All as expected.")
            );
            ExitCode::SUCCESS
        } else {
            println!(
                "\n{}",
                self.paint("31", &format!("{wrong} of {checks} were not as expected."))
            );
            ExitCode::FAILURE
        }
    }

    fn mark(&mut self, right: bool) -> String {
        self.count(right);
        if right { self.paint("32", "ok  ") } else { self.paint("31", "WRONG") }
    }

    fn count(&mut self, right: bool) {
        self.checks += 1;
        self.wrong += u32::from(!right);
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}
