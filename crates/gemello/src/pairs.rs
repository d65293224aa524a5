//! Options that do not go together: refused, rather than one of them ignored.

use crate::cli::{EngineOptions, Run, Tier};
use crate::trace::Topic;
use anyhow::{Result, bail};

/// Looks for an option that what is booted, or another option, would make void.
///
/// # Errors
/// There is one; which, and what to do.
pub(crate) fn check(arguments: &Run) -> Result<()> {
    let debian = arguments.what.as_ref().is_some_and(|what| what == "debian");
    if !debian && arguments.flavour.is_some() {
        bail!(
            "--flavour chooses among Debian's kernels; leave it out, or boot: gemello run debian"
        );
    }
    if let Some(word) = &arguments.nucleus {
        if !matches!(word.as_str(), "" | "demo" | "test") && !word.starts_with("test=") {
            bail!("the nucleus knows no word {word}; give --nucleus alone, or with demo or test");
        }
        if !arguments.command.is_empty() {
            bail!("a command after -- is for `run debian`; leave it out, or leave out --nucleus");
        }
    }
    if arguments.engine.tier == Tier::Interp && arguments.trace.contains(&Topic::Blocks) {
        bail!("--tier interp makes no translations; leave blocks out of --trace");
    }
    code_cache(arguments.engine)
}

/// Looks whether the tier has a use for a code cache, if one is asked for.
///
/// # Errors
/// It has none.
pub(crate) fn code_cache(options: EngineOptions) -> Result<()> {
    if options.tier == Tier::Interp && options.code_cache.is_some() {
        bail!("--tier interp makes no translated code; leave out --code-cache");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser as _;

    fn refusal(line: &str) -> Option<String> {
        let cli = Cli::try_parse_from(line.split(' ')).expect("understood");
        let Some(Command::Run(run)) = cli.command else { panic!("{line}") };
        check(&run).err().map(|error| error.to_string())
    }

    #[test]
    fn what_would_be_ignored_is_refused() {
        for (line, option) in [
            ("gemello run --kernel vmlinuz --flavour full", "--flavour"),
            ("gemello run vmlinuz --flavour cloud", "--flavour"),
            ("gemello run --nucleus --flavour full", "--flavour"),
            ("gemello run --nucleus foo", "foo"),
            ("gemello run --nucleus -- ls", "--nucleus"),
            ("gemello run debian --tier interp --code-cache 8M", "--code-cache"),
            ("gemello run debian --tier interp --trace irq,blocks", "blocks"),
        ] {
            let message = refusal(line).unwrap_or_default();
            assert!(message.contains(option), "{line}: {message}");
        }
        for line in [
            "gemello run debian --flavour full -- ls",
            "gemello run --nucleus test",
            "gemello run --nucleus test=tlb --tier interp --trace irq",
            "gemello run --nucleus --code-cache 8M --trace blocks",
        ] {
            assert_eq!(refusal(line), None, "{line}");
        }
    }
}
