//! `porinctl why`: from files and from the daemon, one question and many.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use porin::compile::view::View;
use porin::config::Loader;
use porin::control::view::Versioned;
use porin::control::why::answer::{Answer, By, Why};
use porin::control::why::batch::{self, Files, LINE_MAX};
use porin::control::why::query::Query;
use porin::control::why::{self, text};
use porin::types::Verdict;

use super::fixture::{WHY, why_view};
use super::golden::{compare, fits};
use super::server::Running;

/// Every kind of answer.
const QUESTIONS: [(&str, &str, &str); 18] = [
    ("frontend", "api", "http/tcp"),
    ("frontend", "api", "9090/tcp"),
    ("db", "api", "8080/tcp"),
    ("api", "db", "5432/tcp"),
    ("api", "world", "443/tcp"),
    ("10.7.0.10", "203.0.113.9", "443/tcp"),
    ("198.51.100.9", "api", "8080/tcp"),
    ("198.51.100.7", "fd00:1::77", "8080/tcp"),
    ("198.51.100.7", "10.7.0.77", "8080/tcp"),
    ("app=scanner", "app=new,env=prod", "53/udp"),
    ("host", "api", "icmp/echo-request"),
    ("172.17.0.3", "frontend", "icmpv6/1/4"),
    ("api", "frontend", "icmp/echo-reply"),
    ("host", "api", "icmp/8/5"),
    ("192.0.2.3", "frontend", "protocol/47"),
    ("entity:cluster", "10.7.0.10", "22/tcp"),
    ("203.0.113.9", "api", "22/tcp"),
    ("host", "remote-host", "1/sctp"),
];

fn query((from, to, port): (&str, &str, &str)) -> Query {
    Query { from: from.into(), to: to.into(), port: port.into(), source_port: None }
}

fn ask(question: (&str, &str, &str), source_port: Option<u16>) -> Why {
    match why::answer(&why_view(), None, &Query { source_port, ..query(question) }) {
        Answer::Why(why) => *why,
        Answer::Error(error) => panic!("{question:?}: {error:?}"),
    }
}

/// Exit status, standard output, standard error.
fn porinctl(args: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_porinctl"));
    command.args(args).current_dir(env!("CARGO_MANIFEST_DIR"));
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn answers_are_readable() {
    let view = why_view();
    let mut all = String::new();
    let source = Query { source_port: Some(40_000), ..query(("203.0.113.9", "api", "22/tcp")) };
    for query in QUESTIONS.map(query).iter().chain([&source]) {
        let text = match why::answer(&view, None, query) {
            Answer::Why(why) => text::why(&why, Some(80)),
            Answer::Error(error) => format!("error: {}\n", error.error),
        };
        all.push_str(fits(&text));
        all.push('\n');
    }
    compare("why.txt", &all);
}

#[test]
fn the_exit_status_is_the_verdict() {
    let run = |args: &[&str]| porinctl(&[&["why", "--config", WHY], args].concat());
    for (args, status) in [
        (["frontend", "api", "http/tcp"], 0),
        (["frontend", "api", "9090/tcp"], 1),
        (["10.7.0.77", "api", "80/tcp"], 1),
        (["frotend", "api", "80/tcp"], 2),
        (["frontend", "api", "tcp"], 2),
        (["frontend", "api", "53/tcp+udp"], 2),
        (["frontend", "api", "8000-8001/tcp"], 2),
        (["frontend", "api", "icmp"], 2),
        (["frontend", "api", "icmp/8"], 2),
        (["frontend", "db", "http/tcp"], 2),
        (["frontend", "api", "http/udp"], 2),
        (["frontend", "world", "http/tcp"], 2),
        (["198.51.100.7", "fd00:1::77", "80/tcp"], 2),
        (["app=x,app=y", "api", "80/tcp"], 2),
        (["app=x,y", "api", "80/tcp"], 2),
        (["entity:hots", "api", "80/tcp"], 2),
    ] {
        let (code, out, err) = run(&args);
        assert_eq!((code, out.is_empty()), (status, status == 2), "{args:?}: {out}{err}");
        assert_eq!(
            err.contains("error: ") && err.contains("hint: "),
            status == 2,
            "{args:?}: {err}"
        );
    }
    let (code, _, _) = run(&["203.0.113.9", "api", "22/tcp", "--source-port", "40000"]);
    assert_eq!(code, 1);
    for wrong in [
        &["frontend", "api"][..],
        &["--batch", "a", "b", "1/tcp"],
        &["a", "b", "c", "--source-port", "0"],
    ] {
        assert_eq!(run(wrong).0, 2, "{wrong:?}");
    }
    let (code, out, err) = porinctl(&["why", "a", "b", "1/tcp", "--config", "/nonexistent"]);
    assert_eq!((code, out.as_str()), (2, ""), "{err}");
    let bad = "tests/golden/control/check-bad";
    let (code, out, err) = porinctl(&["why", "a", "b", "1/tcp", "--config", bad]);
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(err.contains("nothing to ask"), "{err}");
}

#[test]
fn json_says_it_all() {
    let (code, out, _) =
        porinctl(&["why", "frontend", "api", "9090/tcp", "--json", "--config", WHY]);
    assert_eq!(code, 1);
    compare("why.json", &out);
    let reject = ask(("203.0.113.9", "api", "22/tcp"), Some(40_000));
    assert_eq!(reject.verdict, Verdict::Reject);
    let side = reject.ingress.unwrap();
    assert!(matches!(side.by, By::Rule(rule) if rule.policy.line == 9 && rule.rule == 2));
    let passed = ask(("api", "db", "5432/tcp"), None).egress.unwrap();
    assert_eq!(passed.passed.unwrap().policy.policy, "guard");
    let denied = ask(("db", "api", "8080/tcp"), None);
    assert_eq!(denied.almost[0].differs, "peer");
    assert_eq!(denied.ingress.unwrap().default_of.unwrap().policy, "shop-api");
}

#[test]
fn an_endpoint_wins_over_an_entity_of_its_name() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("endpoints.d")).unwrap();
    let endpoint = "[[endpoint]]\nname = \"host\"\nlabels = { a = \"b\" }\nnamespace = \"/x\"\n";
    std::fs::write(dir.path().join("endpoints.d/a.toml"), endpoint).unwrap();
    let config = dir.path().to_str().unwrap();
    let ask = |from| {
        let (_, out, _) = porinctl(&["why", from, "host", "1/tcp", "--json", "--config", config]);
        serde_json::from_str::<Versioned<Why>>(&out).unwrap().body
    };
    assert_eq!(ask("host").from.endpoint.as_deref(), Some("host"));
    assert_eq!(ask("entity:host").from.class.as_deref(), Some("host"));
    // Without pools it has no address; what policy says is said all the same.
    assert_eq!(ask("a=b").verdict, Verdict::Allow);
}

/// What `input` is answered with, and whether all could be.
fn batch(input: &[u8]) -> (Vec<Answer>, bool) {
    let mut output = Vec::new();
    let all = batch::run(input, &mut output, &mut Files(&why_view())).unwrap();
    let answer = |line: &str| serde_json::from_str::<Versioned<Answer>>(line).unwrap().body;
    (String::from_utf8(output).unwrap().lines().map(answer).collect(), all)
}

#[test]
fn a_batch_answers_line_by_line_in_order() {
    let (answers, all) = batch(
        b"frontend\t api  http/tcp\r\n\n{\"from\":\"db\",\"to\":\"api\",\
        \"port\":\"1/tcp\",\"source_port\":9}\nfrontend db 1/tcp",
    );
    assert!(all);
    let whys: Vec<_> = answers
        .iter()
        .map(|answer| match answer {
            Answer::Why(why) => (why.verdict, why.from.endpoint.as_deref(), why.source_port),
            Answer::Error(error) => panic!("{error:?}"),
        })
        .collect();
    let expected = [
        (Verdict::Allow, Some("frontend"), None),
        (Verdict::Deny, Some("db"), Some(9)),
        (Verdict::Allow, Some("frontend"), None),
    ];
    assert_eq!(whys, expected);
}

#[test]
fn a_bad_line_costs_only_itself() {
    let long = "x".repeat(LINE_MAX * 3);
    let mut input = b"frontend api 1/tcp\nbad\n\xff\xfe a b\n{\"from\":1}\n".to_vec();
    input.extend(
        format!("{long}\n{{\"from\":\"a\",\"to\":\"b\",\"port\":\"1/tcp\",\"x\":1}}\n").bytes(),
    );
    input.extend(b"nobody api 1/tcp\nfrontend api 1/tcp\na b c d\n");
    input.extend(long.bytes());
    let (answers, all) = batch(&input);
    assert!(!all);
    let good: Vec<_> = answers.iter().map(|answer| matches!(answer, Answer::Why(_))).collect();
    assert_eq!(good, [true, false, false, false, false, false, false, true, false, false]);
    let (code, out, _) = porinctl(&["why", "--batch", "--config", WHY]);
    assert_eq!((code, out.as_str()), (0, ""), "nothing was asked");
}

/// A program that waits for each answer before it asks on.
#[test]
fn a_batch_may_be_a_conversation() {
    let running = Running::start();
    let run = running.dir.path().to_str().unwrap();
    for source in [&["--config", WHY][..], &["--run", run]] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_porinctl"))
            .args(["why", "--batch"])
            .args(source)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = child.stdin.take().unwrap();
        let mut answers = BufReader::new(child.stdout.take().unwrap()).lines();
        for (question, verdict) in
            [("frontend api 8080/tcp", Verdict::Allow), ("db api 8080/tcp", Verdict::Deny)]
        {
            writeln!(input, "{question}").unwrap();
            let answer = answers.next().unwrap().unwrap();
            let answer: Versioned<Why> = serde_json::from_str(&answer).unwrap();
            assert_eq!(answer.body.verdict, verdict);
        }
        drop(input);
        assert_eq!(child.wait().unwrap().code(), Some(0));
    }
}

#[test]
fn the_daemon_answers_as_the_files_do() {
    let running = Running::start();
    let run = running.dir.path().to_str().unwrap();
    for (from, to, port) in [("db", "api", "8080/tcp"), ("frontend", "api", "http/tcp")] {
        let (code, online, _) = porinctl(&["--run", run, "why", from, to, port, "--json"]);
        let (same, offline, _) = porinctl(&["why", from, to, port, "--json", "--config", WHY]);
        assert_eq!(code, same);
        assert!(online.contains("\"generation\": 41"));
        assert_eq!(online.replace("\"generation\": 41", "\"generation\": null"), offline);
    }
    let (code, out, err) = porinctl(&["--run", run, "why", "nobody", "api", "1/tcp"]);
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(err.contains("there is no endpoint `nobody`"), "{err}");
}

/// More than one request can hold, with questions that none can.
#[test]
fn a_batch_to_the_daemon_is_as_long_as_it_likes() {
    let running = Running::start();
    let mut oracle = why::daemon::Daemon::connect(running.dir.path()).unwrap();
    let mut input = String::new();
    let controls = "\u{1}".repeat(LINE_MAX / 2);
    for number in 1..=2000 {
        match number % 500 {
            0 => input.push_str(&format!("{controls} api 1/tcp\n")),
            _ => input.push_str(&format!("frontend api {number}/tcp\n")),
        }
    }
    let mut output = Vec::new();
    let all = batch::run(input.as_bytes(), &mut output, &mut oracle).unwrap();
    assert!(!all);
    let lines: Vec<_> = String::from_utf8(output).unwrap().lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), 2000);
    for (number, line) in (1..).zip(&lines) {
        match number % 500 {
            0 => assert!(line.contains("\"error\""), "{line}"),
            _ => assert!(line.contains(&format!("\"port\":\"{number}/tcp\"")), "{line}"),
        }
    }
}

/// Long enough for every core to have a part of it.
#[test]
fn a_long_batch_stays_in_order() {
    let input: String = (1..=3000).map(|port| format!("frontend api {port}/tcp\n")).collect();
    let (answers, all) = batch(input.as_bytes());
    assert!(all);
    let port = |answer: &Answer| match answer {
        Answer::Why(why) => why.port.clone(),
        Answer::Error(error) => panic!("{error:?}"),
    };
    let ports: Vec<_> = answers.iter().map(port).collect();
    assert_eq!(ports, (1..=3000).map(|port| format!("{port}/tcp")).collect::<Vec<_>>());
}

/// Labels are repeated in every answer: a request must not become gigabytes.
#[test]
fn answers_are_given_as_many_as_fit() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("endpoints.d")).unwrap();
    let long: String = (0..40).map(|n| format!("l{n} = \"{}\"\n", "x".repeat(4000))).collect();
    let endpoint =
        format!("[[endpoint]]\nname = \"a\"\nnamespace = \"/x\"\n[endpoint.labels]\n{long}");
    std::fs::write(dir.path().join("endpoints.d/a.toml"), endpoint).unwrap();
    let loaded = Loader::new(vec![dir.path().into()]).load();
    let view = View::of_config(&loaded.config.unwrap_or_else(|| panic!("{}", loaded.report)));
    let queries = vec![query(("a", "a", "1/tcp")); 200];
    let answers = why::answers(&view, None, &queries).answers;
    let size = serde_json::to_string(&answers).unwrap().len();
    assert!((1..200).contains(&answers.len()) && size < 9 << 20, "{} in {size}", answers.len());
    assert_eq!(why::answers(&view, None, &queries[..1]).answers.len(), 1);
    let many = vec![query(("host", "a", "1/tcp")); 1000];
    let answers = why::answers(&why_view(), None, &many).answers;
    assert!((1..=256).contains(&answers.len()));
    assert!(why::answers(&view, None, &[]).answers.is_empty());
}

/// Comparing a text with every name takes long: that is done once, and not for texts that are no names.
#[test]
fn the_first_wrong_name_is_guessed_at() {
    let hints = |names: &[&str]| -> Vec<bool> {
        let queries: Vec<_> = names.iter().map(|name| query((name, "api", "1/tcp"))).collect();
        let answers = why::answers(&why_view(), None, &queries).answers;
        let answers = answers.into_iter().map(|answer| match answer.body {
            Answer::Error(error) => error.hint.unwrap().contains("did you mean"),
            Answer::Why(_) => panic!("there is no such endpoint"),
        });
        answers.collect()
    };
    assert_eq!(hints(&["frotend", "frontnd"]), [true, false]);
    let long = format!("frontend{}", "d".repeat(300));
    assert_eq!(hints(&[&long, "frotend"]), [false, true]);
}

#[test]
fn of_very_many_names_those_that_begin_alike_are_guessed_at() {
    let endpoint = |name: String| {
        format!("[[endpoint]]\nname = \"{name}\"\nnamespace = \"/run/netns/{name}\"\n")
    };
    let others = (0..3000).map(|n| endpoint(format!("e{n:05}")));
    let text: String = others.chain([endpoint("gateway".to_owned())]).collect();
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("endpoints.d")).unwrap();
    std::fs::write(dir.path().join("endpoints.d/a.toml"), text).unwrap();
    let loaded = Loader::new(vec![dir.path().into()]).load();
    let view = View::of_config(&loaded.config.unwrap_or_else(|| panic!("{}", loaded.report)));
    match why::answer(&view, None, &query(("gatway", "host", "1/tcp"))) {
        Answer::Error(error) => assert_eq!(error.hint.unwrap(), "did you mean `gateway`?"),
        Answer::Why(_) => panic!("there is no such endpoint"),
    }
}

/// A rule about some source ports only is not passed over when none is asked for.
#[test]
fn without_a_source_port_the_least_permissive_decides() {
    let why = ask(("203.0.113.9", "api", "22/tcp"), None);
    assert_eq!((why.verdict, why.source_port), (Verdict::Reject, None));
    let note =
        "this is for source port 1024; from others it is denied: say which with --source-port";
    assert_eq!(why.notes, [note]);
}

/// By the port that the sender knows, of the endpoint that it leads to; whoever is not led there asks the host.
#[test]
fn published_ports_are_the_endpoint_s() {
    let directory = tempfile::tempdir().unwrap();
    let write = |file: &str, text: &str| {
        let path = directory.path().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("porin.toml", "[[pool]]\nname = \"v4\"\nnetwork = \"10.9.0.0/24\"\n");
    write(
        "endpoints.d/all.toml",
        "[[endpoint]]\nname = \"web\"\nnamespace = \"/run/netns/web\"\nlabels = { app = \"web\" }\n\
         publish = [\"8080:80/tcp\", \"127.0.0.1:8443:443/tcp\", \"192.0.2.1:53-54:1053-1054/udp\"]\n\
         [[endpoint]]\nname = \"old\"\ninterface = \"veth0\"\nipv4 = \"172.17.0.9\"\nlabels = { app = \"old\" }\n\
         [[endpoint]]\nname = \"other\"\nnamespace = \"/run/netns/other\"\n",
    );
    let policy = "[[policy]]\nname = \"web\"\nsubject = \"app=web\"\n[[policy.ingress]]\nfrom = [\"entity:host\"]\nports = [\"80/tcp\"]\n";
    write("policies.d/web.toml", policy);
    let loaded = Loader::new(vec![directory.path().to_owned()]).load();
    let view = View::of_config(&loaded.config.unwrap_or_else(|| panic!("{:?}", loaded.report)));
    let ask = |from, to, port| match why::answer(&view, None, &query((from, to, port))) {
        Answer::Why(why) => {
            let led = why.notes.iter().find(|note| note.contains("is published"));
            (why.verdict, led.cloned().unwrap_or_default())
        }
        Answer::Error(error) => panic!("{error:?}"),
    };
    let (verdict, note) = ask("host", "127.0.0.1", "8080/tcp");
    assert_eq!(verdict, Verdict::Allow);
    assert_eq!(note, "127.0.0.1:8080/tcp is published: it is `web`'s port 80/tcp");
    assert_eq!(ask("127.0.0.1", "127.0.0.1", "8080/tcp").0, Verdict::Allow);
    // The pool's first address is the host's.
    let (verdict, note) = ask("other", "10.9.0.1", "8080/tcp");
    assert_eq!((verdict, note.contains("`web`'s port 80")), (Verdict::Deny, true));
    let (verdict, note) = ask("127.0.0.1", "127.0.0.1", "8443/tcp");
    assert_eq!((verdict, note.contains("`web`'s port 443")), (Verdict::Deny, true));
    let (verdict, note) = ask("203.0.113.9", "192.0.2.1", "54/udp");
    assert_eq!((verdict, note.contains("`web`'s port 1054")), (Verdict::Deny, true));
    for (from, to, port) in [
        ("other", "127.0.0.1", "8080/tcp"), // its own
        ("old", "10.9.0.1", "8080/tcp"),    // its network is another's
        ("host", "127.0.0.2", "8080/tcp"),
        ("host", "::1", "8080/tcp"), // web has no such address
        ("other", "10.9.0.1", "8443/tcp"),
        ("host", "127.0.0.1", "8080/udp"),
        ("host", "192.0.2.1", "55/udp"),
        ("203.0.113.9", "127.0.0.1", "8080/tcp"),
    ] {
        assert_eq!(ask(from, to, port).1, "", "{from} {to} {port}");
    }
}
