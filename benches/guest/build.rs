//! Compiles the kernels, for the x86-64 baseline, with Lua and against SQLite's header.

use std::path::Path;

fn main() {
    println!("cargo:rerun-if-changed=c");
    let lua = lua_src::Build::new().build(lua_src::Lua54);
    let sqlite = std::env::var_os("DEP_SQLITE3_INCLUDE").expect("libsqlite3-sys is bundled");
    let mut build = cc::Build::new();
    build.opt_level(2).pic(false).warnings(true).extra_warnings(true).std("gnu11");
    build.include("c").include(Path::new(&sqlite));
    for entry in std::fs::read_dir("c").expect("the sources are here") {
        let path = entry.expect("a directory entry").path();
        if path.extension().is_some_and(|extension| extension == "c") {
            build.file(path);
        }
    }
    build.compile("kernels");
    // After what needs it, as static archives are searched in order.
    lua.print_cargo_metadata();
}
