//! How each field is called on the command line and in a file.
//!
//! The libraries' messages name the fields of what they are given, in backquotes: `memory`. The
//! user has said them with an option or in a file, and reads how he said them.

use super::Settings;
use std::path::PathBuf;

/// One field, in each spelling.
#[derive(Clone, Copy)]
pub(crate) struct Field {
    /// In the libraries' messages, and in this program's own.
    word: &'static str,
    /// In a file.
    pub(crate) key: &'static str,
    /// On the command line.
    option: &'static str,
    is_said: fn(&Settings) -> bool,
}

const fn field(
    word: &'static str,
    key: &'static str,
    option: &'static str,
    is_said: fn(&Settings) -> bool,
) -> Field {
    Field { word, key, option, is_said }
}

/// Every field.
pub(crate) const FIELDS: [Field; 47] = [
    field("name", "machine.name", "--name", |s| s.machine.name.is_some()),
    field("memory", "machine.memory", "--memory", |s| s.machine.memory.is_some()),
    field("resident", "machine.resident", "--resident", |s| s.machine.resident.is_some()),
    field("swap", "machine.swap", "--swap", |s| s.machine.swap.is_some()),
    field("cpu", "machine.cpu", "--cpu", |s| s.machine.cpu.is_some()),
    field("vcpus", "machine.vcpus", "--vcpus", |s| s.machine.vcpus.is_some()),
    field("transport", "machine.transport", "--transport", |s| s.machine.transport.is_some()),
    field("net", "machine.net", "--net", |s| s.machine.net.is_some()),
    field("rng", "machine.rng", "--rng", |s| s.machine.rng.is_some()),
    field("balloon", "machine.balloon", "--balloon", |s| s.machine.balloon.is_some()),
    field("hvc", "machine.hvc", "--hvc", |s| s.machine.hvc.is_some()),
    field("debug_exit", "machine.debug_exit", "--debug-exit", |s| s.machine.debug_exit.is_some()),
    field("deterministic", "machine.deterministic", "--deterministic", |s| {
        s.machine.deterministic.is_some()
    }),
    field("debian", "boot.debian", "debian", |s| s.boot.debian.is_some()),
    field("busybox", "boot.busybox", "busybox", |s| s.boot.busybox.is_some()),
    field("rootfs", "boot.rootfs", "--rootfs", |s| s.boot.rootfs.is_some()),
    field("rw", "boot.rw", "--rw", |s| !s.boot.rw.is_empty()),
    field("system", "boot.system", "--system", |s| s.boot.system.is_some()),
    field("image", "boot.image", "an image", |s| s.boot.image.is_some()),
    field("command", "boot.command", "a command after --", |s| !s.boot.command.is_empty()),
    field("nucleus", "boot.nucleus", "--nucleus", |s| s.boot.nucleus.is_some()),
    field("kernel", "boot.kernel", "--kernel", |s| s.boot.kernel.is_some()),
    field("initrd", "boot.initrd", "--initrd", |s| s.boot.initrd.is_some()),
    field("cmdline", "boot.cmdline", "--cmdline", |s| s.boot.cmdline.is_some()),
    field("modules", "boot.module", "--module", |s| !s.boot.module.is_empty()),
    field("disks", "disk", "--disk", |s| !s.disk.is_empty()),
    field("cloud_init", "cloud_init", "--cloud-init", |s| s.cloud_init.is_some()),
    field("vsock", "vsock", "--vsock", |s| s.vsock.is_some()),
    field("shares", "share", "--share", |s| !s.share.is_empty()),
    field("engine", "engine.name", "--engine", |s| s.engine.name.is_some()),
    field("tier", "engine.tier", "--tier", |s| s.engine.tier.is_some()),
    field("code_cache", "engine.code_cache", "--code-cache", |s| s.engine.code_cache.is_some()),
    field("pcpus", "sched.pcpus", "--pcpus", |s| s.sched.pcpus.is_some()),
    field("quantum", "sched.quantum", "--quantum", |s| s.sched.quantum.is_some()),
    field("cpu_weight", "sched.cpu_weight", "--cpu-weight", |s| s.sched.cpu_weight.is_some()),
    field("cpu_limit", "sched.cpu_limit", "--cpu-limit", |s| s.sched.cpu_limit.is_some()),
    field("timeout", "run.timeout", "--timeout", |s| s.run.timeout.is_some()),
    field("console", "run.console", "--console", |s| s.run.console.is_some()),
    field("log", "run.log", "--log", |s| s.run.log.is_some()),
    field("pcap", "run.pcap", "--pcap", |s| s.run.pcap.is_some()),
    field("trace", "run.trace", "--trace", |s| !s.run.trace.is_empty()),
    field("trace_file", "run.trace_file", "--trace-file", |s| s.run.trace_file.is_some()),
    field("stats", "run.stats", "--stats", |s| s.run.stats.is_some()),
    field("digest", "run.digest", "--digest", |s| s.run.digest.is_some()),
    field("save", "run.save", "--save", |s| s.run.save.is_some()),
    field("rm", "run.rm", "--rm", |s| s.run.rm.is_some()),
    field("cold", "run.cold", "--cold", |s| s.run.cold.is_some()),
];

/// Where settings come from. By default: all from the command line.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    /// What the command line says.
    pub(crate) options: Settings,
    /// What a file says, and which.
    pub(crate) file: Option<(PathBuf, Settings)>,
}

impl Names {
    /// `message` with each field's name as the user knows it. A field that nobody has set is one of
    /// the command line's: that always works.
    pub(crate) fn render(&self, message: &str) -> String {
        let field = |field: &Field| (format!("`{}`", field.word), self.name(field));
        let names = FIELDS.iter().map(field);
        names.fold(message.to_owned(), |text, (word, name)| text.replace(&word, &name))
    }

    fn name(&self, field: &Field) -> String {
        match &self.file {
            Some((path, file)) if (field.is_said)(file) && !(field.is_said)(&self.options) => {
                format!("{} in {}", field.key, path.display())
            }
            _ => field.option.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::values::Size;
    use super::*;

    fn memory(bytes: u64) -> Settings {
        let mut settings = Settings::default();
        settings.machine.memory = Some(Size(bytes));
        settings
    }

    #[test]
    fn a_field_is_called_as_it_was_said() {
        let message = "too little; give `memory` 2M or more, or `initrd` less";
        let names = Names { options: memory(1), file: None };
        assert_eq!(names.render(message), "too little; give --memory 2M or more, or --initrd less");
        let file = Some(("vm.toml".into(), memory(1)));
        let names = Names { options: Settings::default(), file: file.clone() };
        let in_file = "too little; give machine.memory in vm.toml 2M or more, or --initrd less";
        assert_eq!(names.render(message), in_file);
        let names = Names { options: memory(2), file };
        assert_eq!(names.render(message), "too little; give --memory 2M or more, or --initrd less");
    }

    #[test]
    fn other_words_stay() {
        let message = "run `gemello fetch debian`, whatever the memory or `unknown`";
        assert_eq!(Names::default().render(message), message);
    }
}
