//! What the runtime says by environment variables: specification, section 2, "Parameters".

use std::env::VarError;
use std::path::PathBuf;

use super::failure::{Code, Failure};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    Add,
    Del,
    Check,
    Gc,
    Status,
    Version,
}

/// One interface of one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub container: String,
    pub interface: String,
    /// DEL may have none: the namespace is gone.
    pub namespace: Option<PathBuf>,
}

/// Bytes of a container's id at most. Runtimes use 64.
const CONTAINER_MAX: usize = 512;

/// # Errors
/// A variable that is not UTF-8: to take it for one that is not set would drop what it says.
pub fn readable(variable: impl Fn(&str) -> Result<String, VarError>) -> Result<(), Failure> {
    for name in ["CNI_COMMAND", "CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS"] {
        if let Err(VarError::NotUnicode(_)) = variable(name) {
            let what = format!("{name} is not UTF-8");
            return Err(Failure::new(Code::InvalidEnvironment, what));
        }
    }
    Ok(())
}

/// `variable`: its value, none if it is not set.
pub fn command(variable: &dyn Fn(&str) -> Option<String>) -> Result<Command, Failure> {
    let command = variable("CNI_COMMAND").unwrap_or_default();
    Ok(match command.as_str() {
        "ADD" => Command::Add,
        "DEL" => Command::Del,
        "CHECK" => Command::Check,
        "GC" => Command::Gc,
        "STATUS" => Command::Status,
        "VERSION" => Command::Version,
        "" => {
            return Err(Failure::new(Code::InvalidEnvironment, "CNI_COMMAND is not set")
                .details("porin-cni is run by container runtimes: see porin-cni(8)"));
        }
        other => {
            let what = format!("CNI_COMMAND is {other:?}");
            return Err(Failure::new(Code::InvalidEnvironment, what)
                .details("it is ADD, DEL, CHECK, GC, STATUS or VERSION"));
        }
    })
}

/// What ADD, CHECK and DEL are about. All that is missing is told at once.
pub fn target(
    command: Command,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<Target, Failure> {
    let value = |name: &str| variable(name).filter(|value| !value.is_empty());
    let container = value("CNI_CONTAINERID");
    let interface = value("CNI_IFNAME");
    let namespace = value("CNI_NETNS").map(PathBuf::from);
    let needs_namespace = command != Command::Del;
    let missing: Vec<&str> = [
        ("CNI_CONTAINERID", container.is_none()),
        ("CNI_IFNAME", interface.is_none()),
        ("CNI_NETNS", needs_namespace && namespace.is_none()),
    ]
    .into_iter()
    .filter_map(|(name, missing)| missing.then_some(name))
    .collect();
    let (Some(container), Some(interface), true) = (container, interface, missing.is_empty())
    else {
        let what = format!("{} must be set", missing.join(", "));
        return Err(Failure::new(Code::InvalidEnvironment, what));
    };
    if !is_identifier(&container) || container.len() > CONTAINER_MAX {
        let what = format!("CNI_CONTAINERID {} is not one", shortened(&container));
        return Err(Failure::new(Code::InvalidEnvironment, what).details(IDENTIFIER));
    }
    Ok(Target { container, interface, namespace })
}

/// What containers' ids and networks' names may be.
pub const IDENTIFIER: &str =
    "it begins with a letter or digit, and has letters, digits, `_`, `.` and `-`";

pub fn is_identifier(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric()) && text.bytes().all(inner)
}

/// Quoted, and cut if it is long.
pub fn shortened(text: &str) -> String {
    match text.char_indices().nth(64) {
        Some((at, _)) => format!("{:?}...", &text[..at]),
        None => format!("{text:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(pairs: &'static [(&str, &str)]) -> impl Fn(&str) -> Option<String> {
        |name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
    }

    #[test]
    fn all_that_is_missing_is_told_at_once() {
        let failure = target(Command::Add, &given(&[("CNI_IFNAME", "")])).unwrap_err();
        assert_eq!(failure.code, Code::InvalidEnvironment);
        assert_eq!(failure.what, "CNI_CONTAINERID, CNI_IFNAME, CNI_NETNS must be set");
    }

    #[test]
    fn only_del_may_come_without_a_namespace() {
        let set = given(&[("CNI_CONTAINERID", "c1"), ("CNI_IFNAME", "eth0"), ("CNI_NETNS", "")]);
        assert_eq!(target(Command::Del, &set).unwrap().namespace, None);
        assert!(target(Command::Check, &set).is_err());
    }

    #[test]
    fn ids_are_as_the_specification_says() {
        for good in ["a", "0f-_.", "A.b_c-"] {
            assert!(is_identifier(good), "{good}");
        }
        for bad in ["", "-a", "a/b", "../a", "a b", "ä", "a\n"] {
            assert!(!is_identifier(bad), "{bad}");
        }
    }
}
