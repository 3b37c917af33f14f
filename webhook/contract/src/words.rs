//! Settings that are one of a few words, wherever they are written.

use thiserror::Error;

/// A word that does not belong to a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("expected {expected}")]
pub struct UnknownWord {
    /// The words that do.
    pub expected: &'static str,
}

/// Defines an enum of words: how each is spelled, in which order, and the one parser.
#[macro_export]
macro_rules! words {
    ($(#[$meta:meta])* $name:ident, $expected:literal { $($(#[$variant_meta:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$variant_meta])* $variant,)+ }

        impl $name {
            /// Every word's spelling, in order.
            pub const WORDS: &[&str] = &[$($word),+];

            /// As it is spelled in annotations and on the command line.
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }

        impl ::std::str::FromStr for $name {
            type Err = $crate::UnknownWord;

            fn from_str(word: &str) -> Result<Self, $crate::UnknownWord> {
                match word {
                    $($word => Ok(Self::$variant),)+
                    _ => Err($crate::UnknownWord { expected: $expected }),
                }
            }
        }
    };
}
