//! What may be asked of a server, and not only who may reach it.

use crate::lab::Daemon;
use crate::paper::Paper;
use crate::scene::{PUBLIC, Scene};

const FILE: &str = "policies.d/requests.toml";

fn policy(path: &str) -> String {
    format!(
        "[[policy]]\nname    = \"public\"\nsubject = \"app=api,env=prod\"\n\n[[policy.ingress]]\n\
         from  = \"app=sandbox,env=dev\"\nports = \"{PUBLIC}/tcp\"\nhttp  = [{{ method = \"GET\", path = \"{path}\" }}]\n"
    )
}

pub fn tell(scene: &Scene, daemon: &Daemon, paper: &mut Paper) {
    let host = &scene.host;
    paper.say("The sandbox may read the API's front page at its public port, and nothing else:");
    let text = policy("/");
    paper.quote(&format!("/etc/porin/{FILE}"), &text);
    daemon.commit(|| host.write(FILE, &text));
    let ask = |method: &str, path: &str| {
        let to = format!("http://[{}]:{PUBLIC}{path}", scene.api_address().ip());
        let argv = ["curl", "-sgm", "10", "-X", method, "-w", " (%{http_code})", &to];
        scene.intruder.place().run(&argv).stdout
    };
    let checks = [("GET", "/", "(200)"), ("DELETE", "/", "(403)"), ("GET", "/large", "(403)")];
    for (method, path, status) in checks {
        let said = ask(method, path);
        let line = said.split_whitespace().collect::<Vec<_>>().join(" ");
        paper.check(&format!("intruder: {method} {path} -> {line}"), said.ends_with(status));
    }
    let asked = host.porinctl(&["why", "intruder", "api", &format!("{PUBLIC}/tcp")]);
    paper.quote(&format!("porinctl why intruder api {PUBLIC}/tcp"), &asked.stdout);
    daemon.commit(|| host.write(FILE, &policy("/index.*")));
    paper.check("an edit: GET / is denied now", ask("GET", "/").ends_with("(403)"));
    paper.check("and GET /index.html is not", ask("GET", "/index.html").ends_with("(200)"));
    daemon.commit(|| std::fs::remove_file(host.etc().join(FILE)).expect("the chapter's file"));
}
