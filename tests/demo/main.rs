//! `make demo`: a shop of containers on one host, the world on another, real servers and clients.
//!
//! Shows what passes, what is denied and by which line, an edit that takes effect while traffic
//! runs, what an assertion refuses, which requests pass, and a daemon that is killed without anything changing. Exit status 0: all was as expected.
//! `--keep` leaves everything open until Enter.

#[path = "../lab/mod.rs"]
mod lab;
mod paper;
mod requests;
mod rules;
mod scene;
mod tries;

use std::io::BufRead;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use lab::traffic::{self, DROPPED};
use lab::{Daemon, World};
use paper::Paper;
use scene::{Download, Scene};

const POLICY: &str = "policies.d/shop.toml";
const BEFORE: &str = "from  = [\"app=frontend,env=prod\"]";
const AFTER: &str = "from  = [\"app=frontend,env=prod\", \"app=sandbox,env=dev\"]";

fn main() -> ExitCode {
    let keep = std::env::args().any(|word| word == "--keep");
    let paper = World::run(|world| {
        let mut paper = Paper::new();
        story(world, &mut paper, keep);
        paper
    });
    paper.verdict()
}

fn story(world: &World, paper: &mut Paper, keep: bool) {
    paper.chapter("Two hosts, four containers, and the files in /etc/porin");
    let scene = Scene::open(world);
    let mut daemon = scene.host.porind();
    paper.say(&format!("porind is ready after {} ms", daemon.ready_after.as_millis()));
    for container in scene.containers() {
        let (v6, v4) = container.addresses();
        let text = |address: Option<String>| address.unwrap_or_else(|| "none".into());
        let (v6, v4) = (text(v6.map(|a| a.to_string())), text(v4.map(|a| a.to_string())));
        paper.say(&format!("{:9} {v6:28} {v4}", container.name()));
    }
    let flows = daemon.flows();
    let download = scene.download();
    paper.check("a large download from api to frontend has begun", download.goes_on());

    paper.chapter("What passes, what is denied, and by which line of /etc/porin");
    paper.table(&tries::run(&scene, Some(&flows)));
    drop(flows);

    paper.chapter("An edit, while the download runs");
    edit(&scene, &download, paper);

    paper.chapter("Rules of the house: asked, asserted, tried, enforced, counted");
    rules::tell(&scene, &daemon, paper);

    paper.chapter("Requests: what may be asked");
    requests::tell(&scene, &daemon, paper);

    paper.chapter("The daemon is killed (SIGKILL)");
    kill(&scene, &mut daemon, &download, paper);

    paper.chapter("And started again");
    let before = lab::generation::GenerationWatch::open(&scene.host).now();
    daemon.start_again();
    paper.say(&format!("ready after {} ms", daemon.ready_after.as_millis()));
    paper.check("it took over what was in force", daemon.generation() >= u64::from(before));
    paper.check("the download never broke", download.goes_on());
    let flows = daemon.flows();
    paper.again(&tries::run(&scene, Some(&flows)));
    paper.quote("porinctl status", &scene.host.porinctl(&["status"]).success());

    if keep {
        wait(&scene);
    }
}

/// The intruder is let in to the API, and out again.
fn edit(scene: &Scene, download: &Download, paper: &mut Paper) {
    let text = scene.read(POLICY);
    let to = scene.api_address();
    let intruder = scene.intruder.place();
    paper.check("intruder -> api is denied", !traffic::tcp_open(intruder, to, DROPPED));
    paper.say(&format!("- {BEFORE}"));
    paper.say(&format!("+ {AFTER}"));
    for (text, open, what) in [
        (text.replacen(BEFORE, AFTER, 1), true, "intruder -> api passes"),
        (text.clone(), false, "taken back: intruder -> api is denied"),
    ] {
        let begin = Instant::now();
        // As `sed -i` or an editor would: in place.
        std::fs::write(scene.host.etc().join(POLICY), text).expect("edit");
        let patience = Duration::from_millis(20);
        let changed = lab::eventually::some(Duration::from_secs(10), || {
            (traffic::tcp_open(intruder, to, patience) == open).then(|| begin.elapsed())
        });
        let took = changed.map_or(String::new(), |took| format!(", {} ms after", took.as_millis()));
        paper.check(&format!("{what}{took}"), changed.is_some());
    }
    paper.check("the download goes on", download.goes_on());
}

fn kill(scene: &Scene, daemon: &mut Daemon, download: &Download, paper: &mut Paper) {
    daemon.kill();
    paper.check("porind is gone", !scene.host.porinctl(&["status"]).ok());
    paper.check("the download goes on", download.goes_on());
    paper.again(&tries::run(scene, None));
    paper.check("the download still goes on", download.goes_on());
}

fn wait(scene: &Scene) {
    println!("\nThe lab stays open. In another terminal (as root):\n");
    let holders: Vec<_> = scene.holders();
    for (name, process) in &holders {
        println!("  {name:9} nsenter -t {} -n -m --wd=/ bash", process.pid());
    }
    println!("\non `host`, for example:\n");
    println!("  {} flows --follow", env!("CARGO_BIN_EXE_porinctl"));
    println!("  sed -i s/8080/8081/ /etc/porin/{POLICY}");
    println!("\nEnter ends it.");
    let _ = std::io::stdin().lock().read_line(&mut String::new());
}
