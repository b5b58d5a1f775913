//! Configuration on disk, for whoever reads it.

use std::path::{Path, PathBuf};

use porin::config::Loader;

/// A directory of configuration that goes when it is dropped.
pub struct Files {
    root: PathBuf,
}

impl Files {
    pub fn new(files: &[(String, String)]) -> Files {
        let root = std::env::temp_dir().join(format!("porin-bench-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&root);
        let made = Files { root };
        files.iter().for_each(|(file, text)| made.write(file, text));
        made
    }

    pub fn write(&self, file: &str, text: &str) {
        let path = self.root.join(file);
        let parent = path.parent().unwrap_or(Path::new("/"));
        std::fs::create_dir_all(parent).expect("directory");
        let beside = parent.join(".new");
        std::fs::write(&beside, text).expect("write");
        std::fs::rename(&beside, &path).expect("rename");
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn loader(&self) -> Loader {
        Loader::new(vec![self.root.clone()])
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.root);
    }
}
