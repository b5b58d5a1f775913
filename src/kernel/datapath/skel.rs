//! The generated skeletons, one per object of `bpf/`.

/// One skeleton, with the lints off that generated code does not heed.
macro_rules! skeleton {
    ($name:ident) => {
        #[allow(unused_imports, clippy::all, clippy::pedantic)]
        pub mod $name {
            include!(concat!(env!("OUT_DIR"), "/", stringify!($name), ".skel.rs"));
        }
    };
}

skeleton!(maps);
skeleton!(gate);
skeleton!(endpoint);
skeleton!(uplink);
skeleton!(host);
