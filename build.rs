//! Compiles the datapath and generates a skeleton for each object of `bpf/`.
//! Which clang: `$CLANG`, else clang-19, else clang.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use libbpf_cargo::SkeletonBuilder;

const OBJECTS: [&str; 5] = ["maps", "gate", "endpoint", "uplink", "host"];

fn main() {
    println!("cargo::rerun-if-changed=bpf");
    println!("cargo::rerun-if-env-changed=CLANG");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let clang = clang();
    for object in OBJECTS {
        let source = format!("bpf/{object}.bpf.c");
        SkeletonBuilder::new()
            .source(&source)
            .clang(&clang)
            .clang_args(clang_args())
            .build_and_generate(out.join(format!("{object}.skel.rs")))
            .unwrap_or_else(|error| panic!("{source}: {error:#}"));
    }
}

fn clang() -> OsString {
    if let Some(clang) = env::var_os("CLANG") {
        return clang;
    }
    let found = ["clang-19", "clang"].into_iter().find(|name| {
        Command::new(name).arg("--version").output().is_ok_and(|o| o.status.success())
    });
    found.expect("clang is needed to compile bpf/: install clang-19 or set CLANG").into()
}

fn clang_args() -> Vec<OsString> {
    let mut args =
        ["-mcpu=v3", "-Wall", "-Werror", "-Ibpf/include", "-Ibpf"].map(OsString::from).to_vec();
    // Debian keeps asm/types.h in a directory of the architecture.
    let arch = env::var("CARGO_CFG_TARGET_ARCH").expect("cargo sets the target's architecture");
    let multiarch = format!("/usr/include/{arch}-linux-gnu");
    if Path::new(&multiarch).is_dir() {
        args.push(format!("-I{multiarch}").into());
    }
    args
}
