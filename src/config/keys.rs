//! Every key that may be written, with type, unit, default and example: what the readers accept, what
//! hints suggest, and what the man pages and the commented `porin.toml` are held against by a test.

/// The keys of one kind of table.
#[derive(Debug)]
pub struct Keys {
    /// As it is written: `[masquerade]`, `[[pool]]`; `file` names for top levels.
    pub title: &'static str,
    pub keys: &'static [Key],
    /// Keys of the full language that this version does not have. They are refused by name, so that
    /// nothing is ever enforced more weakly than it was written.
    pub later: &'static [&'static str],
}

#[derive(Debug)]
pub struct Key {
    pub name: &'static str,
    /// `integer`, `text`, ..., as documented.
    pub kind: &'static str,
    /// Empty: none.
    pub unit: &'static str,
    /// As TOML; empty: must be given, or absence has a meaning of its own.
    pub default: &'static str,
    /// A whole line of TOML.
    pub example: &'static str,
}

const fn key(
    name: &'static str,
    kind: &'static str,
    unit: &'static str,
    default: &'static str,
    example: &'static str,
) -> Key {
    Key { name, kind, unit, default, example }
}

pub const HOST: Keys = Keys {
    title: "porin.toml",
    keys: &[
        key("boot", "open or closed", "", "\"open\"", "boot = \"closed\""),
        key("mtu", "integer", "bytes", "", "mtu = 1400"),
        key("uplinks", "list of text", "", "[]", "uplinks = [\"eth0\"]"),
        key("remote-hosts", "list of networks", "", "[]", "remote-hosts = [\"192.0.2.7\"]"),
        key("unmanaged", "list of networks", "", "[]", "unmanaged = [\"172.17.0.0/16\"]"),
        key("pool", "list of tables", "", "", "[[pool]]"),
        key("labels", "table", "", "", "[labels]"),
        key("masquerade", "table", "", "", "[masquerade]"),
        key("conntrack", "table", "", "", "[conntrack]"),
        key("flows", "table", "", "", "[flows]"),
        key("reload", "table", "", "", "[reload]"),
        key("docker", "table", "", "", "[docker]"),
    ],
    later: &["log", "logging", "metrics", "l7", "http", "kubernetes", "cluster", "cni"],
};

pub const POOL: Keys = Keys {
    title: "[[pool]]",
    keys: &[
        key("name", "text", "", "", "name = \"containers\""),
        key("network", "network", "", "", "network = \"fd00:10::/64\""),
        key("reserved", "list of networks", "", "[]", "reserved = [\"10.10.0.0/28\"]"),
    ],
    later: &[],
};

pub const LABELS: Keys = Keys {
    title: "[labels]",
    keys: &[
        key("include", "list of text", "", "[]", "include = [\"app\", \"env\"]"),
        key("exclude", "list of text", "", "[]", "exclude = [\"pod-template-*\", \"uid\"]"),
    ],
    later: &[],
};

pub const MASQUERADE: Keys = Keys {
    title: "[masquerade]",
    keys: &[
        key("enabled", "boolean", "", "true", "enabled = false"),
        key("ports", "range of ports", "ports", "\"61000-65535\"", "ports = \"61000-65535\""),
    ],
    later: &[],
};

pub const CONNTRACK: Keys = Keys {
    title: "[conntrack]",
    keys: &[
        key("entries", "integer", "flows", "131072", "entries = 262144"),
        key("accounting", "boolean", "", "true", "accounting = false"),
    ],
    later: &[],
};

pub const FLOWS: Keys = Keys {
    title: "[flows]",
    keys: &[
        key("enabled", "boolean", "", "true", "enabled = false"),
        key("rate", "integer", "events per second and CPU", "1000", "rate = 100"),
    ],
    later: &[],
};

pub const RELOAD: Keys = Keys {
    title: "[reload]",
    keys: &[
        key("quiet", "duration", "ms or s", "\"50ms\"", "quiet = \"200ms\""),
        key("at-most", "duration", "ms or s", "\"500ms\"", "at-most = \"2s\""),
    ],
    later: &[],
};

pub const DOCKER: Keys = Keys {
    title: "[docker]",
    keys: &[
        key("driver", "boolean", "", "false", "driver = true"),
        key("networks", "list of networks", "", "[]", "networks = [\"10.10.128.0/17\"]"),
        key("socket", "path", "", "\"/run/docker.sock\"", "socket = \"/run/podman/podman.sock\""),
        key("adopt", "list of text", "", "[]", "adopt = [\"bridge\", \"shop\"]"),
    ],
    later: &[],
};

pub const ENDPOINTS: Keys = Keys {
    title: "endpoints.d/*.toml",
    keys: &[key("endpoint", "list of tables", "", "", "[[endpoint]]")],
    later: &[],
};

pub const ENDPOINT: Keys = Keys {
    title: "[[endpoint]]",
    keys: &[
        key("name", "text", "", "", "name = \"web-1\""),
        key("labels", "table of text", "", "{}", "labels = { app = \"web\", env = \"prod\" }"),
        key("namespace", "path", "", "", "namespace = \"/run/netns/web-1\""),
        key("machine", "text", "", "", "machine = \"web-1\""),
        key("interface", "text", "", "\"eth0\"", "interface = \"eth0\""),
        key("hand-over", "text", "", "", "hand-over = \"web-1\""),
        key("mac", "MAC address", "", "", "mac = \"02:42:0a:4d:80:02\""),
        key("shut", "boolean", "", "false", "shut = true"),
        key("ipv6", "auto, none or address", "", "\"auto\"", "ipv6 = \"fd00:10::80\""),
        key("ipv4", "auto, none or address", "", "\"auto\"", "ipv4 = \"none\""),
        key("ports", "table of ports", "", "{}", "ports = { http = \"8080/tcp\" }"),
        key("publish", "list of ports", "", "[]", "publish = [\"8080:80/tcp\"]"),
    ],
    later: &["mode", "services"],
};

pub const POLICIES: Keys = Keys {
    title: "policies.d/*.toml",
    keys: &[
        key("policy", "list of tables", "", "", "[[policy]]"),
        key("group", "list of tables", "", "", "[[group]]"),
        key("assert", "list of tables", "", "", "[[assert]]"),
    ],
    later: &["service", "services"],
};

pub const POLICY: Keys = Keys {
    title: "[[policy]]",
    keys: &[
        key("name", "text", "", "", "name = \"shop-api\""),
        key("subject", "selector", "", "", "subject = \"app=api,env=prod\""),
        key("tier", "admin, normal or baseline", "", "\"normal\"", "tier = \"admin\""),
        key("priority", "integer", "", "", "priority = 100"),
        key("default", "allow or deny", "", "", "default = \"allow\""),
        key("mode", "enforce or shadow", "", "\"enforce\"", "mode = \"shadow\""),
        key("ingress", "list of tables", "", "", "[[policy.ingress]]"),
        key("egress", "list of tables", "", "", "[[policy.egress]]"),
    ],
    later: &[],
};

pub const INGRESS: Keys = Keys {
    title: "[[policy.ingress]]",
    keys: &[
        key("from", "list of peers", "", "", "from = [\"app=frontend\"]"),
        EXCEPT,
        key("ports", "list of ports", "", "", "ports = [\"8080/tcp\"]"),
        SOURCE_PORTS,
        MATCH_ENDPOINTS,
        HTTP,
        TLS,
        ACTION,
    ],
    later: &["host", "log", "services"],
};

pub const EGRESS: Keys = Keys {
    title: "[[policy.egress]]",
    keys: &[
        key("to", "list of peers", "", "", "to = [\"app=db\"]"),
        EXCEPT,
        key("ports", "list of ports", "", "", "ports = [\"5432/tcp\"]"),
        SOURCE_PORTS,
        MATCH_ENDPOINTS,
        HTTP,
        TLS,
        ACTION,
    ],
    later: &["host", "log", "services"],
};

const EXCEPT: Key = key("except", "list of networks", "", "[]", "except = [\"cidr:10.1.0.0/16\"]");
const SOURCE_PORTS: Key =
    key("source-ports", "list of ports", "", "", "source-ports = [\"1024-65535\"]");
const MATCH_ENDPOINTS: Key =
    key("match-endpoints", "boolean", "", "false", "match-endpoints = true");
const ACTION: Key =
    key("action", "allow, deny, reject or pass", "", "\"allow\"", "action = \"deny\"");
const HTTP: Key =
    key("http", "list of tables", "", "", "http = [{ method = \"GET\", path = \"/v1/items/**\" }]");
const TLS: Key = key("tls", "table", "", "", "tls = { server-names = [\"*.example.org\"] }");

const REQUEST: &[Key] = &[
    key("method", "text", "", "", "method = \"GET\""),
    key("path", "text", "", "", "path = \"/v1/items/**\""),
    key("host", "text", "", "", "host = \"api.example.org\""),
    key("header", "table", "", "{}", "header = { \"content-type\" = \"application/json\" }"),
];
pub const INGRESS_HTTP: Keys =
    Keys { title: "[[policy.ingress.http]]", keys: REQUEST, later: REQUEST_LATER };
pub const EGRESS_HTTP: Keys =
    Keys { title: "[[policy.egress.http]]", keys: REQUEST, later: REQUEST_LATER };
const REQUEST_LATER: &[&str] = &["query"];

const SERVER: &[Key] =
    &[key("server-names", "list of text", "", "", "server-names = [\"*.example.org\"]")];
pub const INGRESS_TLS: Keys = Keys { title: "[policy.ingress.tls]", keys: SERVER, later: &[] };
pub const EGRESS_TLS: Keys = Keys { title: "[policy.egress.tls]", keys: SERVER, later: &[] };

const RULE_LATER: &[&str] = &["http", "tls", "host", "log", "services"];

pub const GROUP: Keys = Keys {
    title: "[[group]]",
    keys: &[
        key("name", "text", "", "", "name = \"office\""),
        key("members", "list of peers", "", "", "members = [\"cidr:192.0.2.0/24\"]"),
        key("except", "list of networks", "", "[]", "except = [\"cidr:192.0.2.128/25\"]"),
    ],
    later: &[],
};

pub const ASSERT: Keys = Keys {
    title: "[[assert]]",
    keys: &[
        key("never", "table", "", "", "never = { from = \"env=dev\", to = \"env=prod\" }"),
        key("always", "table", "", "", "always = { from = \"app=probe\", ports = \"80/tcp\" }"),
    ],
    later: &[],
};

const CLAIM: &[Key] = &[
    key("from", "list of peers", "", "", "from = \"env=dev\""),
    key("to", "list of peers", "", "", "to = [\"env=prod\"]"),
    key("ports", "list of ports", "", "", "ports = [\"5432/tcp\"]"),
];

pub const NEVER: Keys = Keys { title: "[assert.never]", keys: CLAIM, later: RULE_LATER };
pub const ALWAYS: Keys = Keys { title: "[assert.always]", keys: CLAIM, later: RULE_LATER };

/// Per man page: its name and the tables that it documents.
pub const PAGES: [(&str, &[&Keys]); 3] = [
    ("porin.toml", &[&HOST, &POOL, &LABELS, &MASQUERADE, &CONNTRACK, &FLOWS, &RELOAD, &DOCKER]),
    ("porin.endpoint", &[&ENDPOINTS, &ENDPOINT]),
    (
        "porin.policy",
        &[
            &POLICIES,
            &POLICY,
            &INGRESS,
            &EGRESS,
            &INGRESS_HTTP,
            &EGRESS_HTTP,
            &INGRESS_TLS,
            &EGRESS_TLS,
            &GROUP,
            &ASSERT,
            &NEVER,
            &ALWAYS,
        ],
    ),
];

impl Keys {
    pub fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }
}
