//! Splits arguments into flags and values as spf13/pflag does.

use super::flags::{Flag, Kind};
use super::values;
use crate::Leave;

/// The value of a boolean flag that is given without one.
const NO_OPT: &str = "true";

/// Arguments, split.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Arguments {
    /// The flags in the order in which they were given, repetitions included.
    pub(crate) given: Vec<Given>,
    /// Where the flags end: the index of `--`, or the number of arguments. What follows is ignored, as Istio does.
    pub(crate) end: usize,
}

/// One flag with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Given {
    pub(crate) flag: Flag,
    pub(crate) value: String,
    /// The index of the argument that the flag stands in.
    pub(crate) at: usize,
}

impl Arguments {
    /// The value of a flag, the last one if it is repeated.
    pub(crate) fn last(&self, flag: Flag) -> Option<&str> {
        let given = self.given.iter().rev().find(|given| given.flag == flag)?;
        Some(&given.value)
    }
}

/// Splits `args` (those behind the subcommand) and checks what pflag checks: that every flag is known and has a
/// value of its kind. Words that belong to no flag are skipped.
pub(crate) fn parse(args: &[String]) -> Result<Arguments, Leave> {
    let mut parser = Parser {
        args,
        next: 0,
        given: Vec::new(),
    };
    let mut end = args.len();
    while let Some(arg) = parser.take() {
        let at = parser.next - 1;
        if arg == "--" {
            end = at;
            break;
        }
        if let Some(long) = arg.strip_prefix("--") {
            parser.long(long, arg, at)?;
        } else if let Some(shorts) = arg.strip_prefix('-').filter(|shorts| !shorts.is_empty()) {
            parser.shorts(shorts, arg, at)?;
        }
    }
    Ok(Arguments {
        given: parser.given,
        end,
    })
}

struct Parser<'a> {
    args: &'a [String],
    next: usize,
    given: Vec<Given>,
}

impl<'a> Parser<'a> {
    fn take(&mut self) -> Option<&'a str> {
        let arg = self.args.get(self.next)?;
        self.next += 1;
        Some(arg)
    }

    /// `--flag=value`, `--flag value`, `--bool`.
    fn long(&mut self, text: &str, argument: &str, at: usize) -> Result<(), Leave> {
        if text.starts_with(['-', '=']) {
            return Err(Leave::BadSyntax {
                argument: argument.to_owned(),
            });
        }
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (text, None),
        };
        let flag = Flag::by_long(name).ok_or_else(|| Leave::UnknownFlag {
            flag: format!("--{name}"),
            argument: argument.to_owned(),
        })?;
        match value {
            Some(value) => self.push(flag, value, at),
            None if flag.spec().kind == Kind::Bool => self.push(flag, NO_OPT, at),
            None => self.push_next(flag, at),
        }
    }

    /// `-p15001`, `-p=15001`, `-p 15001`, `-n`, and several booleans before one of these.
    fn shorts(&mut self, text: &str, argument: &str, at: usize) -> Result<(), Leave> {
        let mut rest = text;
        while let Some(name) = rest.chars().next() {
            let flag = Flag::by_short(name).ok_or_else(|| Leave::UnknownFlag {
                flag: format!("-{name}"),
                argument: argument.to_owned(),
            })?;
            rest = &rest[name.len_utf8()..];
            // `-p=` alone is the value `=`, as in pflag.
            let after_equals = rest.strip_prefix('=').filter(|value| !value.is_empty());
            if let Some(value) = after_equals {
                return self.push(flag, value, at);
            }
            if flag.spec().kind == Kind::Bool {
                self.push(flag, NO_OPT, at)?;
            } else if rest.is_empty() {
                return self.push_next(flag, at);
            } else {
                return self.push(flag, rest, at);
            }
        }
        Ok(())
    }

    fn push_next(&mut self, flag: Flag, at: usize) -> Result<(), Leave> {
        let value = self.take().ok_or_else(|| Leave::MissingValue {
            origin: flag.given(),
        })?;
        self.push(flag, value, at)
    }

    fn push(&mut self, flag: Flag, value: &str, at: usize) -> Result<(), Leave> {
        let value = match values::normal(flag.spec().kind, value) {
            Ok(value) => value,
            Err(expected) => {
                return Err(Leave::BadValue {
                    origin: flag.given(),
                    value: value.to_owned(),
                    expected,
                });
            }
        };
        self.given.push(Given { flag, value, at });
        Ok(())
    }
}
