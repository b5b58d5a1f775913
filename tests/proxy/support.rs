//! A worker between a client and a server, both of which are the test itself.

use std::fmt::Debug;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use porin::proxy::{
    Counts, Limits, Matcher, NoRules, Record, Rulebook, Rules, Service, Side, SideRule, Sink,
    Upstream,
};
use porin::types::http::L7;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

pub const PATIENCE: Duration = Duration::from_secs(20);

/// Runs a test that may take its time, but not for ever.
pub fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(soon("the whole test", test));
}

#[track_caller]
pub fn soon<T>(what: &str, future: impl Future<Output = T>) -> impl Future<Output = T> {
    let place = std::panic::Location::caller();
    async move {
        match tokio::time::timeout(PATIENCE, future).await {
            Ok(value) => value,
            Err(_) => panic!("{place}: not in time: {what}"),
        }
    }
}

#[derive(Default)]
pub struct Records(pub Mutex<Vec<Record>>);

impl Sink for Records {
    fn wants_allowed(&self) -> bool {
        true
    }

    fn take(&self, record: Record) {
        self.0.lock().unwrap().push(record);
    }
}

/// Always to the same server.
pub struct To(pub SocketAddr);

impl Upstream for To {
    async fn connect(&self, _: SocketAddr, _: SocketAddr) -> std::io::Result<TcpStream> {
        TcpStream::connect(self.0).await
    }
}

/// What both ends say.
#[derive(Debug, Clone, Default)]
pub struct Ruleset {
    pub egress: Option<Side>,
    pub ingress: Option<Side>,
}

/// The same rules for every connection, until others are put.
pub struct Book(Mutex<Result<Matcher, NoRules>>);

impl Book {
    pub fn of(ruleset: &Ruleset) -> Self {
        Book(Mutex::new(Ok(matcher(ruleset))))
    }

    /// From now on.
    pub fn put(&self, matcher: Result<Matcher, NoRules>) {
        *self.0.lock().unwrap() = matcher;
    }
}

impl Rulebook for Book {
    fn rules(&self, _: SocketAddr, _: SocketAddr) -> Result<Matcher, NoRules> {
        self.0.lock().unwrap().clone()
    }
}

pub struct Scene {
    pub server: TcpListener,
    pub worker: SocketAddr,
    pub book: Arc<Book>,
    pub service: Arc<Service<To>>,
    pub records: Arc<Records>,
}

/// One rule of the receiver's for each, with cookies from 1: as `[{"path": "/a"}]`.
pub fn ruleset(http: &str) -> Ruleset {
    let rules: Vec<porin::types::http::HttpRule> = serde_json::from_str(http).unwrap();
    let rule = |(cookie, rule)| SideRule { cookie, l7: L7 { http: vec![rule], tls: None } };
    Ruleset { egress: None, ingress: Some(Side { rules: (1..).zip(rules).map(rule).collect() }) }
}

pub fn matcher(ruleset: &Ruleset) -> Matcher {
    let side = |side: &Option<Side>| side.as_ref().map(|side| Arc::new(Rules::new(side).unwrap()));
    Matcher { egress: side(&ruleset.egress), ingress: side(&ruleset.ingress) }
}

pub const ANY: &str = r#"[{}, {"method": "CONNECT"}]"#;

pub async fn scene(rules: &str) -> Scene {
    scene_of(&ruleset(rules), Limits::default()).await
}

pub async fn scene_of(ruleset: &Ruleset, limits: Limits) -> Scene {
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let records = Arc::new(Records::default());
    let upstream = To(server.local_addr().unwrap());
    let book = Arc::new(Book::of(ruleset));
    let (rules, sink) = (Arc::clone(&book) as Arc<dyn Rulebook>, Arc::clone(&records) as _);
    let service = Arc::new(Service::new(upstream, rules, limits, sink));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let worker = listener.local_addr().unwrap();
    let serving = Arc::clone(&service);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = Arc::clone(&serving);
            tokio::spawn(async move { service.serve(stream).await });
        }
    });
    Scene { server, worker, book, service, records }
}

impl Scene {
    pub async fn client(&self) -> Peer {
        Peer(TcpStream::connect(self.worker).await.unwrap())
    }

    #[track_caller]
    pub fn accept(&self) -> impl Future<Output = Peer> {
        let accept = soon("a connection to the server", self.server.accept());
        async { Peer(accept.await.unwrap().0) }
    }

    pub fn counts(&self) -> Counts {
        self.service.counters.now()
    }

    /// Once there are so many.
    pub async fn records(&self, wanted: usize) -> Vec<Record> {
        until("records", || {
            let records = self.records.0.lock().unwrap();
            (records.len() >= wanted).then(|| records.clone())
        })
        .await
    }

    /// No connection of a client's is left.
    pub async fn is_idle(&self) {
        until("all connections have ended", || (self.service.open() == 0).then_some(())).await;
    }
}

/// Looks again and again.
pub async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = look() {
            return value;
        }
        assert!(Instant::now() < end, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// One end of a connection.
pub struct Peer(pub TcpStream);

impl Peer {
    pub async fn says(&mut self, bytes: impl AsRef<[u8]>) {
        soon("what it says", self.0.write_all(bytes.as_ref())).await.unwrap();
    }

    /// No more from here.
    pub async fn falls_silent(&mut self) {
        self.0.shutdown().await.unwrap();
    }

    /// Just these bytes next.
    #[track_caller]
    pub fn hears(&mut self, bytes: impl AsRef<[u8]> + Debug) -> impl Future<Output = ()> {
        let place = std::panic::Location::caller();
        async move {
            let bytes = bytes.as_ref();
            let mut heard = vec![0; bytes.len()];
            let mut have = 0;
            while have < heard.len() && heard[..have] == bytes[..have] {
                let read = self.0.read(&mut heard[have..]);
                match tokio::time::timeout(PATIENCE, read).await {
                    Ok(Ok(read @ 1..)) => have += read,
                    other => panic!(
                        "{place}: {other:?} after {:?} instead of {:?}",
                        String::from_utf8_lossy(&heard[..have]),
                        String::from_utf8_lossy(bytes)
                    ),
                }
            }
            assert_eq!(
                String::from_utf8_lossy(&heard[..have]),
                String::from_utf8_lossy(bytes),
                "{place}"
            );
        }
    }

    /// The end, be it a reset.
    #[track_caller]
    pub fn hears_the_end(&mut self) -> impl Future<Output = ()> {
        let place = std::panic::Location::caller();
        async move {
            let rest = self.rest().await;
            assert!(rest.is_empty(), "{place}: {:?}", String::from_utf8_lossy(&rest));
        }
    }

    /// All until the end.
    #[track_caller]
    pub fn rest(&mut self) -> impl Future<Output = Vec<u8>> {
        let place = std::panic::Location::caller();
        async move {
            let mut rest = Vec::new();
            let read = self.0.read_to_end(&mut rest);
            if tokio::time::timeout(PATIENCE, read).await.is_err() {
                panic!("{place}: no end after {:?}", String::from_utf8_lossy(&rest));
            }
            rest
        }
    }

    /// An answer of porin's own, whose connection stays or not.
    #[track_caller]
    pub fn is_told(&mut self, status: &str, close: bool) -> impl Future<Output = ()> {
        let place = std::panic::Location::caller();
        async move {
            let mut text = Vec::new();
            let whole = async {
                while !text.ends_with(b"\r\n\r\n") {
                    let byte = self.0.read_u8().await;
                    text.push(byte.unwrap_or_else(|error| {
                        panic!("{place}: {error} after {:?}", String::from_utf8_lossy(&text))
                    }));
                }
                let text = String::from_utf8(text.clone()).unwrap();
                assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{place}: {text}");
                assert_eq!(text.contains("Connection: close"), close, "{place}: {text}");
                let length = text.split("Content-Length: ").nth(1).unwrap().split('\r').next();
                let mut body = vec![0; length.unwrap().parse().unwrap()];
                self.0.read_exact(&mut body).await.unwrap();
            };
            soon("an answer", whole).await;
        }
    }
}
