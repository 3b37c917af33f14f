//! What became of links and pins that somebody took away.

use crate::link::LinkError;

/// What was lost, by the name of the hook or the map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// A link: for a while its program did not run.
    Link(&'static str),
    /// The pin of a link that is attached.
    LinkPin(&'static str),
    /// The pin of a map.
    MapPin(&'static str),
}

/// What was lost and is back, and what is not. One thing that fails holds up no other.
#[derive(Debug, Default)]
#[must_use]
pub struct Repaired {
    /// What was restored.
    pub restored: Vec<Lost>,
    /// Why links could not be looked at: they may be there.
    pub unseen: Vec<LinkError>,
    /// Why something that was lost could not be restored.
    pub failed: Vec<LinkError>,
}
