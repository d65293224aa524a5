//! Settings that do not go together: refused, rather than one of them ignored.

use crate::settings::sched::SchedSettings;
use crate::settings::{BootSettings, EngineSettings, Settings};
use crate::trace::Topic;
use anyhow::{Result, bail};
use engine_soft::Tier;

/// Looks for a setting that what is booted, or another setting, would make void.
///
/// # Errors
/// There is one; which, and what to do.
pub(crate) fn check(settings: &Settings) -> Result<()> {
    boot(&settings.boot)?;
    let on_disk = settings.boot.system == Some(true) && settings.boot.debian.is_none();
    if on_disk && settings.disk.is_empty() {
        bail!("`system` boots what is on the first of `disks`; say which, or `debian`");
    }
    if settings.engine.tier == Some(Tier::Interpret) && settings.run.trace.contains(&Topic::Blocks)
    {
        bail!("`tier` interp makes no translations; leave blocks out of `trace`");
    }
    if settings.run.trace_file.is_some() && settings.run.trace.is_empty() {
        bail!("`trace_file` is for a trace; say with `trace` what to follow");
    }
    if settings.cloud_init.is_some() && settings.boot.nucleus.is_some() {
        bail!("the nucleus has no cloud-init; leave `cloud_init` out, or boot a --disk");
    }
    if settings.machine.swap.is_some() && settings.machine.resident.is_none() {
        bail!("`swap` is for what does not fit a budget; say with `resident` how large that is");
    }
    if settings.run.pcap.is_some() && settings.net().is_none() {
        bail!("`pcap` is for a network; say with `net` which, or leave it out");
    }
    let writes = settings.boot.image.is_some() || settings.boot.debian.is_some();
    if settings.run.cold == Some(true) && !settings.boot.is_made_here() {
        bail!("`cold` is for guests that gemello makes; others always boot: leave it out");
    }
    if settings.run.rm == Some(true) && !writes {
        bail!("`rm` is for what a machine of an image or of `debian` writes; leave it out");
    }
    if writes && settings.run.save.is_some() && settings.kept_as().is_none() {
        bail!(
            "a saved machine needs its disk, and this one's is thrown away; say with `name` what \
             it is kept as"
        );
    }
    turns(settings.machine.deterministic.unwrap_or_default(), &settings.sched)?;
    code_cache(&settings.engine)
}

/// Looks whether a `deterministic` machine is asked to take its turns otherwise.
///
/// # Errors
/// It is.
pub(crate) fn turns(deterministic: bool, sched: &SchedSettings) -> Result<()> {
    if deterministic && sched.pcpus.is_some_and(|threads| threads.get() > 1) {
        bail!("a deterministic machine's processors share one host thread; leave `pcpus` out");
    }
    if deterministic && sched.quantum.is_some() {
        bail!(
            "a deterministic machine's processors take turns by instructions; leave `quantum` out"
        );
    }
    Ok(())
}

fn boot(boot: &BootSettings) -> Result<()> {
    let BootSettings {
        debian,
        busybox,
        image,
        rootfs,
        rw,
        system,
        command,
        nucleus,
        kernel,
        initrd,
        cmdline: _,
        module,
    } = boot;
    if image.is_some()
        && (debian.is_some()
            || busybox.is_some()
            || rootfs.is_some()
            || nucleus.is_some()
            || kernel.is_some())
    {
        bail!("an image is booted by Debian's kernel alone; leave all other guests out");
    }
    let guests = [
        ("`debian`", debian.is_some()),
        ("`busybox`", busybox.is_some()),
        ("`nucleus`", nucleus.is_some()),
        ("`kernel`", kernel.is_some()),
    ];
    let said: Vec<_> = guests.into_iter().filter_map(|(name, said)| said.then_some(name)).collect();
    if let [first, second, ..] = said[..] {
        bail!("{first} and {second} both say what to boot; leave one out");
    }
    if debian.is_some() && rootfs.is_some() {
        bail!("`debian` and `rootfs` both say what to boot; leave one out");
    }
    let others = [image.is_some(), rootfs.is_some(), nucleus.is_some(), kernel.is_some()];
    if *system == Some(true) && others.contains(&true) {
        bail!("`system` is booted by Debian's kernel alone; leave all other guests out");
    }
    if rootfs.is_some() && nucleus.is_some() {
        bail!("the nucleus is a whole guest; leave `rootfs` out");
    }
    if rootfs.is_none() && !rw.is_empty() {
        bail!("`rw` is for folders of a root that the guest only reads; say with `rootfs` which");
    }
    if let Some(word) = nucleus {
        if !matches!(word.as_str(), "" | "demo" | "test") && !word.starts_with("test=") {
            bail!("the nucleus knows no word {word}; give `nucleus` alone, or with demo or test");
        }
        if !command.is_empty() {
            bail!("`command` is for `run debian`; leave it out, or leave out `nucleus`");
        }
        if initrd.is_some() || !module.is_empty() {
            bail!("the nucleus is a whole guest; leave `initrd` and `modules` out");
        }
    }
    if boot.is_made_here() && (initrd.is_some() || !module.is_empty()) {
        bail!(
            "gemello makes this guest's initial file system; leave `initrd` and `modules` out, or \
             give them with `kernel` alone"
        );
    }
    if kernel.is_some() && rootfs.is_none() && !command.is_empty() {
        bail!(
            "`command` is for `run debian` and `rootfs`; give this kernel `cmdline` and `initrd`"
        );
    }
    Ok(())
}

/// Looks whether the tier has a use for a code cache, if one is asked for.
///
/// # Errors
/// It has none.
pub(crate) fn code_cache(engine: &EngineSettings) -> Result<()> {
    if engine.tier == Some(Tier::Interpret) && engine.code_cache.is_some() {
        bail!("`tier` interp makes no translated code; leave out `code_cache`");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use crate::settings::names::Names;
    use crate::settings::options;
    use clap::Parser as _;

    fn refusal(line: &str) -> Option<String> {
        let cli = Cli::try_parse_from(line.split(' ')).expect("understood");
        let Some(Command::Run(run)) = cli.command else { panic!("{line}") };
        let given = options::gather(&run);
        let refused = |error: &anyhow::Error| Names::default().render(&error.to_string());
        given.and_then(|given| check(&given.settings)).err().as_ref().map(refused)
    }

    #[test]
    fn what_would_be_ignored_is_refused() {
        for (line, option) in [
            ("gemello run --kernel vmlinuz --flavour full", "--flavour"),
            ("gemello run ./vmlinuz --flavour cloud", "--flavour"),
            ("gemello run --nucleus --flavour full", "--flavour"),
            ("gemello run --nucleus foo", "foo"),
            ("gemello run --nucleus --cloud-init u", "leave --cloud-init out"),
            ("gemello run --nucleus -- ls", "--nucleus"),
            ("gemello run debian --initrd x", "leave --initrd and --module out"),
            ("gemello run ./vmlinuz --kernel x", "both say what to boot"),
            ("gemello run debian --nucleus", "both say what to boot"),
            ("gemello run debian --kernel x", "both say what to boot"),
            ("gemello run ./vmlinuz -- ls", "a command after -- is for `run debian`"),
            ("gemello run debian --rw /x", "--rootfs"),
            ("gemello run --rootfs / --initrd x", "leave --initrd and --module out"),
            ("gemello run --rootfs / --kernel x --flavour full", "--flavour"),
            ("gemello run oci:x --nucleus", "both say what to boot"),
            ("gemello run oci:x --rootfs /", "leave all other guests out"),
            ("gemello run oci:x --initrd x", "leave --initrd and --module out"),
            ("gemello run oci:x --flavour full", "--flavour"),
            ("gemello run oci:x --save s", "--name"),
            ("gemello run oci:x --save s --name n --rm", "--name"),
            ("gemello run busybox --rm", "leave it out"),
            ("gemello run --nucleus --cold", "leave it out"),
            ("gemello run debian --flavour full", "--flavour"),
            ("gemello run busybox --release sid", "--release"),
            ("gemello run debian --rootfs /", "both say what to boot"),
            ("gemello run debian --rm --save s", "--name"),
            ("gemello run --system", "--disk"),
            ("gemello run --system --disk d --rootfs /", "leave all other guests out"),
            ("gemello run --system --disk d --kernel x", "leave all other guests out"),
            ("gemello run debian --trace-file x", "--trace"),
            ("gemello run debian --tier interp --code-cache 8M", "--code-cache"),
            ("gemello run debian --tier interp --trace irq,blocks", "blocks"),
            ("gemello run debian --deterministic --pcpus 2", "leave --pcpus out"),
            ("gemello run debian --deterministic --quantum 2ms", "leave --quantum out"),
        ] {
            let message = refusal(line).unwrap_or_default();
            assert!(message.contains(option), "{line}: {message}");
        }
        for line in [
            "gemello run busybox --flavour full -- ls",
            "gemello run --rootfs / --rw /a --rw /b --flavour full -- ls",
            "gemello run --rootfs /a --kernel x -- ls",
            "gemello run --system --disk d --flavour full -- ls",
            "gemello run oci:x --save s --name n",
            "gemello run oci:x --rm -- ls",
            "gemello run debian --release sid --rm -- ls",
            "gemello run debian --system -- ls",
            "gemello run debian --system",
            "gemello run debian --save s",
            "gemello run --nucleus test",
            "gemello run --disk x --cloud-init u,m,n",
            "gemello run debian --cloud-init u",
            "gemello run --nucleus test=tlb --tier interp --trace irq",
            "gemello run --nucleus --code-cache 8M --trace blocks",
            "gemello run debian --deterministic --vcpus 4 --pcpus 1",
        ] {
            assert_eq!(refusal(line), None, "{line}");
        }
    }
}
