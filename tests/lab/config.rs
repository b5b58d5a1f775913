//! Configuration as text, for tests that need much of it.

use super::host::{Container, Host};

/// The pools that the tests use.
pub const POOL6: &str = "fd00:10::/64";
pub const POOL4: &str = "10.10.0.0/16";

/// `porin.toml` with one pool per family and the uplinks named.
pub fn host(uplinks: &[&str]) -> String {
    format!(
        "uplinks = {uplinks:?}\n\n[[pool]]\nname = \"v6\"\nnetwork = \"{POOL6}\"\n\n\
         [[pool]]\nname = \"v4\"\nnetwork = \"{POOL4}\"\n"
    )
}

/// One `[[endpoint]]` with fixed addresses: `fd00:10::1:N` and `10.10.1.N`, onwards.
pub fn endpoint(name: &str, labels: &str, number: u16) -> String {
    format!(
        "[[endpoint]]\nname = \"{name}\"\nnamespace = \"/run/netns/{name}\"\nlabels = {{ {labels} }}\n\
         ipv6 = \"{}\"\nipv4 = \"{}\"\n\n",
        ipv6(number),
        ipv4(number)
    )
}

/// The IPv6 address of the `number`th endpoint.
pub fn ipv6(number: u16) -> String {
    format!("fd00:10::1:{number:x}")
}

/// The IPv4 address of the `number`th endpoint.
pub fn ipv4(number: u16) -> String {
    let [high, low] = number.to_be_bytes();
    format!("10.10.{}.{low}", high + 1)
}

/// A container and its endpoint file, in one.
pub fn add(host: &Host, name: &str, labels: &str, number: u16) -> Container {
    let container = host.container(name);
    host.write(&format!("endpoints.d/{name}.toml"), &endpoint(name, labels, number));
    container
}
