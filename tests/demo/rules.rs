//! The rules of the house: asked, asserted, tried in shadow, enforced with an answer, and counted.

use std::time::{Duration, Instant};

use crate::lab::traffic::{self, ARRIVES};
use crate::lab::{Daemon, Host, eventually};
use crate::paper::Paper;
use crate::scene::Scene;

const HOUSE: &str = "policies.d/house.toml";

/// Who may not reach production, whatever anyone writes.
const ASSERT: &str = "[[assert]]\nnever = { from = \"env=dev\", to = \"env=prod\" }\n";

fn guard(mode: &str) -> String {
    format!(
        "[[policy]]\nname     = \"house\"\nsubject  = \"env=prod\"\ntier     = \"admin\"\npriority = 10\n\
         mode     = \"{mode}\"\n\n[[policy.ingress]]\nfrom   = \"env=dev\"\naction = \"reject\"\n"
    )
}

pub fn tell(scene: &Scene, daemon: &Daemon, paper: &mut Paper) {
    let host = &scene.host;
    let asked = host.porinctl(&["why", "intruder", "api", "8080/tcp"]);
    paper.check("porinctl why intruder api: not allowed", asked.status.code() == Some(1));
    paper.quote("porinctl why intruder api 8080/tcp", &asked.stdout);

    paper.say(
        "An edit that opens db to every app, beside an assertion that dev never reaches prod:",
    );
    let generation = daemon.generation();
    let open =
        "[[policy]]\nname = \"open\"\nsubject = \"app=db\"\n\n[[policy.ingress]]\nfrom = \"app\"\n";
    host.write(HOUSE, &format!("{open}\n{ASSERT}"));
    let refused = || host.porinctl(&["status"]).stdout.contains("the assertion `never` does not");
    paper.check("it is refused", eventually::some(ARRIVES, || refused().then_some(())).is_some());
    paper.check("what was in force stays", daemon.generation() == generation);
    paper.quote("porinctl check /etc/porin", &host.porinctl(&["check", "/etc/porin"]).stdout);

    paper.say("The house's own rule instead, in shadow first:");
    daemon.commit(|| host.write(HOUSE, &guard("shadow")));
    let to = scene.api_address();
    let intruder = scene.intruder.place();
    paper.check("intruder -> api is dropped as before", !quick(intruder, to));
    daemon.commit(|| host.write(HOUSE, &format!("{}\n{ASSERT}", guard("enforce"))));
    let begin = Instant::now();
    let at_once = eventually::some(ARRIVES, || quick(intruder, to).then(|| begin.elapsed()));
    paper.check("enforced: it is reset at once instead", at_once.is_some());
    paper.quote("porinctl policies --hits", &hits(host));
    daemon.commit(|| std::fs::remove_file(host.etc().join(HOUSE)).expect("the house's file"));
}

/// Whether a connection is refused, and not only unanswered.
fn quick(from: &crate::lab::Place, to: std::net::SocketAddr) -> bool {
    let error = traffic::connect(from, to, Duration::from_millis(400)).err();
    error.is_some_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
}

fn hits(host: &Host) -> String {
    host.porinctl(&["policies", "--hits"]).success()
}
