//! Where a machine's first serial line ends, as the user says it.

use super::values::Text;
use std::path::PathBuf;

/// Where a machine's first serial line ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ConsolePlace {
    /// The program's own standard input and output.
    Terminal,
    /// A pseudo-terminal, for whoever opens it.
    Pty,
    /// A file takes the output; there is no input.
    Log(PathBuf),
}

impl ConsolePlace {
    /// The file that is written, if it is one.
    pub(super) fn path(&mut self) -> Option<&mut PathBuf> {
        match self {
            Self::Terminal | Self::Pty => None,
            Self::Log(path) => Some(path),
        }
    }
}

impl Text for ConsolePlace {
    const SUCH_AS: &'static str = "a console such as \"pty\" or \"log:FILE\"";

    fn parse(text: &str) -> Result<Self, String> {
        match (text, text.strip_prefix("log:")) {
            ("terminal", _) => Ok(Self::Terminal),
            ("pty", _) => Ok(Self::Pty),
            (_, Some(path)) if !path.is_empty() => Ok(Self::Log(path.into())),
            _ => Err("a console is terminal, pty or log:FILE".into()),
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Terminal => "terminal".into(),
            Self::Pty => "pty".into(),
            Self::Log(path) => format!("log:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_console_is_one_of_three_places() {
        for text in ["terminal", "pty", "log:a.log", "log:/x/log:y"] {
            assert_eq!(ConsolePlace::parse(text).expect(text).text(), text);
        }
        for wrong in ["", "log:", "log", "tty", "pty:"] {
            assert!(ConsolePlace::parse(wrong).is_err(), "{wrong}");
        }
    }
}
