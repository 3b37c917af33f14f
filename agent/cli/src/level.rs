//! How good or bad something is, and how that is drawn.

use anstream::ColorChoice;
use anstyle::{AnsiColor, Style};
use serde::Serialize;

/// How good or bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Level {
    /// As it should be.
    Good,
    /// Something works less than it could, or is not known.
    Warning,
    /// Something does not work.
    Failure,
}

impl Level {
    /// Its colour.
    pub(crate) const fn style(self) -> Style {
        let color = match self {
            Self::Good => AnsiColor::Green,
            Self::Warning => AnsiColor::Yellow,
            Self::Failure => AnsiColor::Red,
        };
        color.on_default()
    }
}

/// How levels are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Symbols {
    /// ✓ ‼ ✗
    Unicode,
    /// In letters.
    Ascii,
}

impl Symbols {
    /// Letters where they are asked for, or where the terminal is to be kept simple (`NO_COLOR`).
    pub(crate) fn chosen(ascii: bool) -> Self {
        let is_plain = ColorChoice::global() == ColorChoice::Never
            || std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        if ascii || is_plain {
            Self::Ascii
        } else {
            Self::Unicode
        }
    }

    /// The symbol of a level; all of a kind are as wide.
    pub(crate) const fn of(self, level: Level) -> &'static str {
        match (self, level) {
            (Self::Unicode, Level::Good) => "✓",
            (Self::Unicode, Level::Warning) => "‼",
            (Self::Unicode, Level::Failure) => "✗",
            (Self::Ascii, Level::Good) => "[ok]  ",
            (Self::Ascii, Level::Warning) => "[warn]",
            (Self::Ascii, Level::Failure) => "[FAIL]",
        }
    }
}
