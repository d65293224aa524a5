//! What the parser of the command line refuses, in one line: the cause, the advice, where to read.

use crate::cli::Cli;
use clap::CommandFactory as _;
use std::ffi::OsString;

/// The parser's message as gemello's others are. `arguments` begin with the program.
pub(crate) fn one_line(error: &clap::Error, arguments: &[OsString]) -> String {
    let text = error.to_string();
    let mut paragraphs = text.split("\n\n");
    let cause = paragraphs.next().unwrap_or_default();
    let cause = cause.trim_start_matches("error: ").split('\n').map(str::trim);
    let mut line = cause.collect::<Vec<_>>().join(" ");
    for tip in paragraphs.flat_map(str::lines).filter_map(|l| l.trim().strip_prefix("tip: ")) {
        // After two dashes is the guest's command, and no value.
        if !tip.starts_with("to pass ") {
            line = format!("{line}; {tip}");
        }
    }
    shown(&format!("{line}; see gemello {}--help", verb(arguments)))
}

/// The command that was given, with a space; nothing if there is none.
fn verb(arguments: &[OsString]) -> String {
    let word = arguments.get(1).and_then(|word| word.to_str()).unwrap_or_default();
    let known = Cli::command().get_subcommands().any(|command| command.get_name() == word);
    if known { format!("{word} ") } else { String::new() }
}

/// `text` without what a terminal acts upon: names may hold anything.
pub(crate) fn shown(text: &str) -> String {
    text.chars().fold(String::new(), |mut shown, letter| {
        match letter {
            '\n' | '\r' => shown.push(' '),
            control if control.is_control() => shown.extend(control.escape_default()),
            plain => shown.push(plain),
        }
        shown
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    fn refused(line: &str) -> String {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        let error = Cli::try_parse_from(&words).expect_err("refused");
        one_line(&error, &words)
    }

    #[test]
    fn a_refusal_is_one_line() {
        let cases = [
            ("gemello nonsense", "unrecognized subcommand 'nonsense'; see gemello --help"),
            ("gemello run --frob", "unexpected argument '--frob' found; see gemello run --help"),
            (
                "gemello fetch",
                "the following required arguments were not provided: \
                 <debian|busybox|docker://NAME>; see gemello fetch --help",
            ),
            (
                "gemello run debian --tier x",
                "invalid value 'x' for '--tier <TIER>' \
                 [possible values: interp, translate, lockstep]; see gemello run --help",
            ),
            (
                "gemello run debian --memory 5T",
                "invalid value '5T' for '--memory <SIZE>': the unit is K, M or G: 512M, \
                 for instance; see gemello run --help",
            ),
        ];
        for (line, expected) in cases {
            assert_eq!(refused(line), expected);
        }
        let similar = refused("gemello run debian --stat");
        assert!(similar.contains("; a similar argument exists: '--stats';"), "{similar}");
    }

    #[test]
    fn a_name_cannot_act_upon_the_terminal() {
        let text = refused("gemello restore a \x1b[2J\x07");
        assert!(!text.chars().any(char::is_control), "{text:?}");
    }
}
