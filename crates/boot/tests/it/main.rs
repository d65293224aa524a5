//! Boot plans from synthetic images (and real ones where they are found), checked against each
//! protocol's promises.

mod any_files;
mod bzimage;
mod elf;
mod errors;
mod hostile;
mod images;
mod multiboot;
mod real;

use boot::Run;
use boot::{AcpiConfig, BootError, BootPlan, Module, Piece, Request, Source, plan};
use x86::addr::Gpa;

/// 256 MiB below 4 GiB, 64 MiB above.
pub(crate) const RAM: &[Run] = &[(Gpa(0), 256 << 20), (Gpa(1 << 32), 64 << 20)];

/// A request that tests adapt.
pub(crate) struct Boot<'a> {
    pub(crate) image: &'a [u8],
    pub(crate) initrd: Option<&'a [u8]>,
    pub(crate) cmdline: &'a str,
    pub(crate) modules: Vec<(&'a [u8], &'a str)>,
    pub(crate) ram: &'a [Run],
    pub(crate) acpi: AcpiConfig,
}

impl<'a> Boot<'a> {
    pub(crate) fn new(image: &'a [u8]) -> Self {
        Self {
            image,
            initrd: None,
            cmdline: "console=ttyS0",
            modules: Vec::new(),
            ram: RAM,
            acpi: AcpiConfig::example(),
        }
    }

    pub(crate) fn plan(&self) -> Result<BootPlan, BootError> {
        let bytes = |name, bytes| Source::Bytes { name, bytes };
        let modules: Vec<_> =
            self.modules.iter().map(|m| Module { source: bytes("mod", m.0), args: m.1 }).collect();
        plan(&Request {
            image: bytes("kernel.img", self.image),
            initrd: self.initrd.map(|b| bytes("initrd.img", b)),
            cmdline: self.cmdline,
            modules: &modules,
            ram: self.ram,
            acpi: &self.acpi,
        })
    }

    pub(crate) fn ok(&self) -> Guest {
        let plan = self.plan().unwrap_or_else(|e| panic!("{e}"));
        let mut end = 0;
        for piece in &plan.pieces {
            assert!(piece.gpa >= Gpa(end), "{} overlaps its neighbour", piece.what);
            end = piece.gpa.0 + piece.bytes.len() as u64;
            assert!(
                self.ram.iter().any(|r| piece.gpa >= Gpa(r.0.0) && end <= r.0.0 + r.1),
                "{}",
                piece.what
            );
        }
        Guest(plan)
    }

    pub(crate) fn error(&self) -> String {
        match self.plan() {
            Ok(plan) => panic!("a plan by {:?} where an error was due", plan.protocol),
            Err(error) => error.to_string(),
        }
    }
}

/// A plan with a view of the memory it makes.
pub(crate) struct Guest(pub(crate) BootPlan);

impl Guest {
    pub(crate) fn piece(&self, what: &str) -> &Piece {
        self.0.pieces.iter().find(|p| p.what == what).unwrap_or_else(|| panic!("no piece {what}"))
    }

    /// `N` bytes of memory, zero where nothing was placed.
    pub(crate) fn bytes<const N: usize>(&self, gpa: u64) -> [u8; N] {
        std::array::from_fn(|n| {
            let at = gpa + n as u64;
            let inside = |p: &&Piece| at >= p.gpa.0 && at < p.gpa.0 + p.bytes.len() as u64;
            self.0.pieces.iter().find(inside).map_or(0, |p| p.bytes[(at - p.gpa.0) as usize])
        })
    }

    pub(crate) fn u8(&self, gpa: u64) -> u8 {
        self.bytes::<1>(gpa)[0]
    }

    pub(crate) fn u32(&self, gpa: u64) -> u32 {
        u32::from_le_bytes(self.bytes(gpa))
    }

    pub(crate) fn u64(&self, gpa: u64) -> u64 {
        u64::from_le_bytes(self.bytes(gpa))
    }

    /// The zero-terminated string at `gpa`.
    pub(crate) fn string(&self, gpa: u64) -> String {
        (gpa..).map(|a| self.u8(a)).take_while(|b| *b != 0).map(char::from).collect()
    }
}
