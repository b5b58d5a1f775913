//! The Container Network Interface, specification 1.1.0 and down to 0.3.1: what the program `porin-cni` does.
//!
//! [`plugin`] is the whole of it: what the runtime says (`environment`, `arguments`, `network`) becomes a request
//! (`request`, with labels that the runtime was `asked` for), the daemon is asked (`ask`), and its answer is printed in the form of the version that was asked
//! in (`version`, `result`), or as an error (`failure`). Behind another plugin (`chained`) its interface is adopted.
//!
//! Specification: <https://www.cni.dev/docs/spec/>; conventions: <https://www.cni.dev/docs/conventions/>.

pub mod arguments;
pub(in crate::adapter) mod ask;
pub(in crate::adapter) mod asked;
mod chained;
pub(in crate::adapter) mod environment;
pub(in crate::adapter) mod failure;
pub(in crate::adapter) mod labels;
mod network;
pub mod plugin;
pub mod published;
pub(in crate::adapter) mod request;
pub(in crate::adapter) mod result;
mod version;
