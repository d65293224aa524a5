//! Links the nucleus by the script beside this file and lists the programs to embed.
//!
//! NUCLEUS_PROGRAMS is the directory of the built programs; without it, where `cargo build
//! --release -p programs` in `guest/` puts them.

use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    println!("cargo:rustc-link-arg-bins=-T{}", here.join("link.ld").display());
    for watched in ["link.ld", "src/boot.s", "src/entry.s"] {
        println!("cargo:rerun-if-changed={}", here.join(watched).display());
    }
    println!("cargo:rerun-if-changed={}", here.join("../programs/src/bin").display());
    println!("cargo:rerun-if-env-changed=NUCLEUS_PROGRAMS");
    let built = env::var_os("NUCLEUS_PROGRAMS")
        .map_or_else(|| here.join("../target/x86_64-unknown-linux-gnu/release"), PathBuf::from);
    let mut names: Vec<String> = fs::read_dir(here.join("../programs/src/bin"))
        .expect("guest/programs/src/bin is there")
        .filter_map(|entry| entry.ok()?.path().file_stem()?.to_str().map(str::to_owned))
        .collect();
    names.sort();
    let mut table = String::from("pub static PROGRAMS: &[Program] = &[\n");
    for name in names {
        let file = built.join(&name);
        println!("cargo:rerun-if-changed={}", file.display());
        table += &format!("    Program {{ name: {name:?}, image: include_bytes!({file:?}) }},\n");
    }
    table += "];\n";
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    fs::write(out.join("programs.rs"), table).expect("OUT_DIR can be written");
}
