//! The files of endpoints that were made on request: `<run>/endpoints.d/<id>.toml`, in the form that people write.

use std::fs;
use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::model::{AddressWish, Attachment, Endpoint};
use crate::config::{one, print};
use crate::control::attach::{self, Attach, AttachmentId, Place};
use crate::daemon::store;
use crate::types::Origin;

/// Bytes of one such file at most: what a request may have, and what is around it.
const LARGEST: u64 = 128 << 10;

/// Where they are.
#[derive(Debug)]
pub struct Files {
    run: PathBuf,
}

impl Files {
    pub fn new(run: &Path) -> Self {
        Files { run: run.to_owned() }
    }

    pub fn path(&self, id: &AttachmentId) -> PathBuf {
        attach::file(&self.run, id)
    }

    /// Which attachment's file this is, if it is one.
    pub fn id(&self, path: &Path) -> Option<AttachmentId> {
        let name = path.file_name()?.to_str()?.strip_suffix(".toml")?;
        name.parse().ok().filter(|id| path == self.path(id))
    }

    /// The text of the file that is asked for, and its endpoint. Read by the loader's own eyes: what is wrong with it
    /// is known before it is written.
    pub fn compose(
        &self,
        id: &AttachmentId,
        about: &str,
        asked: &Endpoint,
    ) -> Result<(String, Arc<Endpoint>), String> {
        let path = self.path(id);
        let text = text(about, asked);
        if text.len() as u64 > LARGEST {
            return Err(format!("its file would have {} bytes, of {LARGEST} at most", text.len()));
        }
        match one::endpoints(&path, text.clone()) {
            Ok(read) => match <[_; 1]>::try_from(read) {
                Ok([endpoint]) => Ok((text, endpoint)),
                Err(_) => Err("the endpoint does not read back".to_owned()),
            },
            Err(report) => Err(report.faults.first().map_or_else(String::new, |fault| {
                let hint = fault.hint.iter().map(|hint| format!(" ({hint})"));
                fault.what.clone() + &hint.collect::<String>()
            })),
        }
    }

    /// As it is asked for.
    pub fn asked(&self, attach: &Attach) -> Endpoint {
        let (attachment, otherwise) = match attach.place.clone() {
            Place::Inside { namespace, interface } => {
                (Attachment::Made { namespace, interface }, AddressWish::Auto)
            }
            Place::Behind { interface, .. } => {
                (Attachment::Adopted { interface }, AddressWish::None)
            }
            Place::HandOver(interface) => (Attachment::HandedOver { interface }, AddressWish::None),
        };
        let wish = |address: Option<IpAddr>| address.map_or(otherwise, AddressWish::Fixed);
        Endpoint {
            name: attach.name.clone(),
            labels: attach.labels.clone(),
            attachment,
            ipv6: wish(attach.ipv6.map(Into::into)),
            ipv4: wish(attach.ipv4.map(Into::into)),
            ports: Default::default(),
            publish: attach.publish.clone(),
            mac: attach.mac,
            shut: attach.shut,
            origin: Origin { file: self.path(&attach.id).as_path().into(), line: 1, column: 1 },
        }
    }

    pub fn write(&self, id: &AttachmentId, text: &str) -> io::Result<()> {
        store::replace(&self.path(id), text)
    }

    /// Writes what was there before a request.
    pub fn restore(&self, id: &AttachmentId, endpoint: &Endpoint) -> io::Result<()> {
        self.write(id, &text("as before a request that failed", endpoint))
    }

    pub fn exists(&self, id: &AttachmentId) -> bool {
        fs::symlink_metadata(self.path(id)).is_ok()
    }

    /// False: there was none.
    pub fn remove(&self, id: &AttachmentId) -> io::Result<bool> {
        match fs::remove_file(self.path(id)) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Removes what an earlier daemon was about to write when it was killed.
    pub fn sweep(&self) {
        let entries = fs::read_dir(self.run.join("endpoints.d")).into_iter().flatten().flatten();
        for beside in entries.map(|entry| entry.path()) {
            let ours = beside.extension().is_some_and(|extension| extension == "new")
                && self.id(&beside.with_extension("toml")).is_some();
            if ours && let Err(error) = fs::remove_file(&beside) {
                log::warn!("cannot remove {}: {error}", beside.display());
            }
        }
    }

    /// What an earlier daemon left. A file that cannot be read is the loader's to complain of.
    pub fn all(&self) -> Vec<(AttachmentId, Arc<Endpoint>)> {
        let entries = fs::read_dir(self.run.join("endpoints.d")).into_iter().flatten().flatten();
        let mut all = Vec::new();
        for entry in entries {
            let path = entry.path();
            let Some(id) = self.id(&path) else { continue };
            let small = entry.metadata().is_ok_and(|m| m.is_file() && m.size() <= LARGEST);
            let text = small.then(|| fs::read_to_string(&path).ok()).flatten();
            let read = text.and_then(|text| one::endpoints(&path, text).ok());
            all.extend(read.into_iter().flatten().next().map(|endpoint| (id, endpoint)));
        }
        all
    }
}

fn text(about: &str, endpoint: &Endpoint) -> String {
    let about = &about[..about.floor_char_boundary(Attach::ABOUT_MAX)];
    let about = about.replace(|c: char| c.is_control(), " ");
    format!(
        "# {}: {about}\n# porind removes this file when the container goes.\n\n{}",
        if endpoint.is_adopted() { "Adopted" } else { "Made on request" },
        print::endpoint(endpoint).trim_start()
    )
}
