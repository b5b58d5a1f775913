//! What Podman knows of a container that it is just starting: its labels.
//!
//! It holds the container's lock while it sets the network up, so to inspect or list it would wait for itself. But it
//! told of the container's making, labels and all, before: that event can be asked for (libpod API, `GET /libpod/events`).
//! With `events_logger = "none"`, or once the log has forgotten (the file in /run does at a reboot), there is nothing to
//! ask.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::http;

const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of all its events at most.
const LONGEST: usize = 8 << 20;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("Podman cannot be asked: {0}")]
    Http(#[from] http::Error),
    #[error("Podman answered something else than events: {0}")]
    Json(#[from] serde_json::Error),
    #[error("Podman's log of events does not have the container's making")]
    Forgotten,
}

/// Attributes of the event that Podman adds to the labels.
const NOT_LABELS: [&str; 4] = ["containerExitCode", "image", "name", "podId"];

/// The labels of the container with this id. `socket`: of the API service.
pub fn labels(socket: &Path, container: &str) -> Result<Vec<(String, String)>, Error> {
    // Identifiers need no escapes, in JSON or in the target.
    let filters = format!(
        "%7B%22type%22%3A%5B%22container%22%5D%2C%22event%22%3A%5B%22create%22%5D%2C\
         %22container%22%3A%5B%22{container}%22%5D%7D"
    );
    let target = format!("/v4.0.0/libpod/events?stream=false&filters={filters}");
    of_events(&http::get_blocking(socket, &target, LONGEST, PATIENCE)?, container)
}

/// Of the last event, if there are several. Tolerant: other fields, and other events, are none of our business.
fn of_events(text: &[u8], container: &str) -> Result<Vec<(String, String)>, Error> {
    #[derive(Deserialize)]
    struct Event {
        #[serde(alias = "status", default)]
        action: Option<String>,
        #[serde(rename = "Actor", alias = "actor", default)]
        actor: Actor,
    }
    #[derive(Default, Deserialize)]
    struct Actor {
        #[serde(rename = "ID", alias = "Id", alias = "id", default)]
        id: String,
        #[serde(rename = "Attributes", alias = "attributes", default)]
        attributes: Option<BTreeMap<String, Value>>,
    }
    let mut found = None;
    for event in serde_json::Deserializer::from_slice(text).into_iter::<Event>() {
        let Event { action, actor } = event?;
        if actor.id == container && action.is_none_or(|action| action == "create") {
            found = Some(actor.attributes.unwrap_or_default());
        }
    }
    let attributes = found.ok_or(Error::Forgotten)?;
    let label = |(key, value): (String, Value)| Some((key, value.as_str()?.to_owned()));
    let labels = attributes.into_iter().filter(|(key, _)| !NOT_LABELS.contains(&key.as_str()));
    Ok(labels.filter_map(label).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_told_from_what_podman_adds() {
        let events = br#"{"status":"create","id":"c1","from":"busybox","Type":"container","Action":"create",
            "Actor":{"ID":"c1","Attributes":{"app":"web","containerExitCode":"0","image":"busybox","name":"w"}},"time":1}
            {"status":"create","Actor":{"ID":"c2","Attributes":{"app":"other"}}}"#;
        assert_eq!(of_events(events, "c1").unwrap(), [("app".to_owned(), "web".to_owned())]);
        assert!(matches!(of_events(events, "c3"), Err(Error::Forgotten)));
        assert!(matches!(of_events(b"", "c1"), Err(Error::Forgotten)));
        assert!(matches!(of_events(b"<html>", "c1"), Err(Error::Json(_))));
    }
}
