//! Rows that are whole programs, started and waited for: a shell script, a checksum, a compiler.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Fork and exec, counted by a shell; `$1` is busybox.
const SCRIPT: &str = "i=0; while [ $i -lt 200 ]; do \"$1\" true && i=$((i+1)); done; echo $i";
/// What `sha256sum64m` reads.
const BYTES: usize = 64 << 20;

/// The compiler's input: our own kernels, which include no header of the C library.
const SOURCES: [&str; 7] = [
    include_str!("../c/bench.h"),
    include_str!("../c/chase.c"),
    include_str!("../c/tables.c"),
    include_str!("../c/sha256.c"),
    include_str!("../c/text.c"),
    include_str!("../c/calls.c"),
    include_str!("../c/numbers.c"),
];

/// What rows need of others.
pub(crate) struct Tools {
    /// A static busybox.
    pub(crate) busybox: PathBuf,
    /// Debian's compiler: `cc1`, `ld.so`, `lib`.
    pub(crate) compiler: PathBuf,
    /// The address of the server that rows of the network talk with.
    pub(crate) server: String,
}

impl Tools {
    /// Where gemello's initial file system has them.
    pub(crate) fn in_a_guest() -> Self {
        let words = fs::read_to_string("/proc/cmdline").unwrap_or_default();
        let server = words.split_whitespace().find_map(|word| word.strip_prefix("server="));
        Self::at("/bin/busybox", "/gcc", server.unwrap_or_default())
    }

    pub(crate) fn at(busybox: &str, compiler: &str, server: &str) -> Self {
        Self { busybox: busybox.into(), compiler: compiler.into(), server: server.into() }
    }
}

/// A program to time, its input prepared in the working directory.
pub(crate) struct Program {
    command: Command,
    /// Makes the row's value of what was printed.
    value: fn(&[u8]) -> Result<u64, String>,
    files: Vec<&'static str>,
}

impl Program {
    /// Runs it once.
    pub(crate) fn pass(&mut self) -> Result<u64, String> {
        let output = self.command.output();
        let output =
            output.map_err(|error| format!("{:?}: {error}", self.command.get_program()))?;
        if output.status.success() {
            return (self.value)(&output.stdout);
        }
        let words = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
        Err(format!("{:?} ended with {}: {words}", self.command.get_program(), output.status))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        for file in &self.files {
            let _ = fs::remove_file(file);
        }
    }
}

/// The program of the row `name`, if there is one.
pub(crate) fn find(name: &str, tools: &Tools) -> io::Result<Option<Program>> {
    let mut program = match name {
        "script200" => script(&tools.busybox),
        "sha256sum64m" => sum(&tools.busybox)?,
        "gcc" => compiler(&tools.compiler)?,
        _ => return Ok(None),
    };
    program.command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Ok(Some(program))
}

fn script(busybox: &Path) -> Program {
    let mut command = Command::new(busybox);
    command.args(["sh", "-c", SCRIPT, "sh"]).arg(busybox);
    Program { command, value: |text| number(text, 10), files: vec![] }
}

fn sum(busybox: &Path) -> io::Result<Program> {
    let block: Vec<u8> =
        (0_u32..65536).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut file = File::create("input")?;
    for _ in 0..BYTES / block.len() {
        file.write_all(&block)?;
    }
    let mut command = Command::new(busybox);
    command.args(["sha256sum", "input"]);
    let value = |text: &[u8]| number(text.get(..16).unwrap_or_default(), 16);
    Ok(Program { command, value, files: vec!["input"] })
}

/// The compiler proper: what `gcc -O1 -S` starts, by its own dynamic linker, wherever it lies.
fn compiler(place: &Path) -> io::Result<Program> {
    fs::write("input.c", SOURCES.concat().replace("#include \"bench.h\"", ""))?;
    let mut command = Command::new(place.join("ld.so"));
    command.arg("--library-path").arg(place.join("lib")).arg(place.join("cc1"));
    // No file of the host's or the guest's is included.
    command.args(["-quiet", "-ffreestanding", "-nostdinc", "-O1", "input.c", "-o", "output.s"]);
    Ok(Program { command, value: |_| output(), files: vec!["input.c", "output.s"] })
}

/// FNV-1a of the compiler's output.
fn output() -> Result<u64, String> {
    let path = PathBuf::from("output.s");
    let text = fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let hash = text.iter().fold(0xCBF2_9CE4_8422_2325_u64, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3)
    });
    if text.is_empty() { Err("the compiler wrote nothing".into()) } else { Ok(hash) }
}

fn number(text: &[u8], radix: u32) -> Result<u64, String> {
    let text = String::from_utf8_lossy(text);
    u64::from_str_radix(text.trim(), radix).map_err(|_| format!("{:?} is no number", text.trim()))
}
