//! What went wrong, in one line: the error, each of its causes once, and last the command that
//! helps, if one does.

use crate::settings::names::Names;
use crate::{disk, limits, refusal};
use machine::{BootError, BuildError};
use std::path::Path;

/// The whole message, with each field called as in `names`.
pub(crate) fn message(error: &anyhow::Error, names: &Names) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        // Some errors tell their cause themselves, amid the sentence.
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text = names.render(&text);
    if let Some(command) = error.downcast_ref().and_then(command) {
        text = format!("{text}: {command}");
    }
    let host = error.chain().find_map(|cause| cause.downcast_ref::<std::io::Error>());
    if let Some(advice) = host.and_then(limits::advice).filter(|_| !text.contains("ulimit")) {
        text = format!("{text}; {advice}");
    }
    refusal::shown(text.trim_end())
}

fn command(error: &BuildError) -> Option<String> {
    match error {
        BuildError::Disk(error) => disk::remedy(error),
        BuildError::Boot(BootError::Compressed { name, tool, .. }) => {
            let path = Path::new(name);
            let new = disk::fresh(path, "bin");
            // A name that is no text is not known exactly.
            let known = path.exists();
            known.then(|| format!("{tool} <{} >{}", disk::argument(path), disk::argument(&new)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context as _;

    #[test]
    fn a_cause_is_told_once() {
        let cause = || std::io::Error::other("the disk is full");
        let text = message(&BuildError::Host(cause()).into(), &Names::default());
        assert_eq!(text.matches("the disk is full").count(), 1, "{text}");
        let wrapped = Err::<(), _>(cause()).context("cannot write a.img").expect_err("an error");
        assert_eq!(message(&wrapped, &Names::default()), "cannot write a.img: the disk is full");
    }
}
