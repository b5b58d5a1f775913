//! From a call's path and body to what is done, and its answer's status and body.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Failure;
use super::driver::Driver;
use super::wire::{
    Activated, AddressSpaces, Failed, IpamCapabilities, NetworkCapabilities, Nothing, OfNetwork,
};

pub const OK: u16 = 200;
const NOT_FOUND: u16 = 404;
const FAILED: u16 = 500;
/// Characters of an error at most.
const LONGEST: usize = 500;

/// Never panics, whatever comes. May take as long as a commit does.
pub fn call(driver: &Driver, path: &str, body: &[u8]) -> (u16, Vec<u8>) {
    let answer = match path {
        "/Plugin.Activate" => json(&Activated { implements: ["NetworkDriver", "IpamDriver"] }),
        "/NetworkDriver.GetCapabilities" => json(&NetworkCapabilities { scope: "local" }),
        "/NetworkDriver.CreateNetwork" => on(body, |asked| driver.create_network(&asked), nothing),
        "/NetworkDriver.DeleteNetwork" => {
            on(body, |asked: OfNetwork| driver.delete_network(&asked.network), nothing)
        }
        "/NetworkDriver.CreateEndpoint" => on(body, |asked| driver.create_endpoint(asked), same),
        "/NetworkDriver.EndpointOperInfo" => on(body, |of| driver.info(&of), same),
        "/NetworkDriver.Join" => on(body, |of| driver.join(&of), same),
        "/NetworkDriver.ProgramExternalConnectivity" => {
            on(body, |asked| driver.connect(&asked), nothing)
        }
        "/NetworkDriver.RevokeExternalConnectivity" => {
            on(body, |of| driver.disconnect(&of), nothing)
        }
        // Docker puts the interface back before it deletes the endpoint, so that stays.
        "/NetworkDriver.Leave" => on(body, |of| driver.leave(&of), nothing),
        "/NetworkDriver.DeleteEndpoint" => on(body, |of| driver.delete_endpoint(&of), nothing),
        "/NetworkDriver.DiscoverNew" | "/NetworkDriver.DiscoverDelete" => json(&Nothing {}),
        "/IpamDriver.GetCapabilities" => {
            json(&IpamCapabilities { requires_mac_address: false, requires_request_replay: false })
        }
        "/IpamDriver.GetDefaultAddressSpaces" => json(&AddressSpaces {
            local_default_address_space: "porin",
            global_default_address_space: "porin",
        }),
        "/IpamDriver.RequestPool" => on(body, |asked| driver.request_pool(asked), same),
        "/IpamDriver.ReleasePool" => on(body, |asked| driver.pools.release_pool(asked), nothing),
        "/IpamDriver.RequestAddress" => on(body, |asked| driver.pools.request_address(asked), same),
        "/IpamDriver.ReleaseAddress" => {
            on(body, |asked| driver.pools.release_address(asked), nothing)
        }
        // Docker takes these words for "it does not do that" (libnetwork, drivers/remote).
        _ => return (NOT_FOUND, b"404 page not found".to_vec()),
    };
    match answer {
        Ok(body) => (OK, body),
        Err(failure) => {
            // It may quote what was asked.
            let what: String = failure.to_string().chars().take(LONGEST).collect();
            log::warn!("Docker's call {path} is refused: {what}");
            let body = serde_json::to_vec(&Failed { what });
            (FAILED, body.unwrap_or_default())
        }
    }
}

fn on<Asked: DeserializeOwned, Done, Answer: Serialize>(
    body: &[u8],
    act: impl FnOnce(Asked) -> Result<Done, Failure>,
    answer: impl FnOnce(Done) -> Answer,
) -> Result<Vec<u8>, Failure> {
    let asked = serde_json::from_slice(body)
        .map_err(|error| Failure::from(format!("the call is not understood: {error}")))?;
    act(asked).and_then(|done| json(&answer(done)))
}

fn nothing((): ()) -> Nothing {
    Nothing {}
}

fn same<T>(answer: T) -> T {
    answer
}

fn json(answer: &impl Serialize) -> Result<Vec<u8>, Failure> {
    serde_json::to_vec(answer).map_err(|error| error.to_string().into())
}

#[cfg(test)]
#[path = "calls_tests.rs"]
mod tests;
