//! The shortcut's state and what its programs counted, as metrics.

use sidestep_agent_api::Proves;
use sidestep_ebpf_common::shortcut::Count;
use sidestep_runtime::metrics::show;

use super::{Metrics, whole};
use crate::shortcut::ShortcutStatus;

impl Metrics {
    pub(super) fn show_shortcut(&self, shortcut: &ShortcutStatus) {
        let on = |without: &Option<String>| shortcut.on && without.is_none();
        for (part, on) in [
            ("sidecars", shortcut.on),
            ("applications", on(&shortcut.not_from_applications)),
            ("into_applications", on(&shortcut.not_into_applications)),
        ] {
            self.shortcut.with([part]).set(on.into());
        }
        self.shortcut_ends.set(whole(shortcut.ends));
        for check in &shortcut.checks {
            let passed = check.failure.is_none();
            let gauge = self
                .shortcut_check
                .with([&check.name, proves(check.proves)]);
            gauge.set(passed.into());
        }
        // The kernel's counters go on where an agent starts anew.
        for count in Count::ALL {
            let value = shortcut.counts.get(count.name()).copied().unwrap_or(0);
            match kind(count) {
                Kind::Message => self.shortcut_messages.show([count.name()], value),
                Kind::Socket => self.shortcut_sockets.show([count.name()], value),
                Kind::Bytes => show(&self.shortcut_bytes, value),
                Kind::Hazard => show(&self.shortcut_hazards, value),
            }
        }
    }
}

/// What is counted.
enum Kind {
    Message,
    Bytes,
    Socket,
    Hazard,
}

const fn kind(count: Count) -> Kind {
    match count {
        Count::Redirected
        | Count::Unread
        | Count::Full
        | Count::Scarce
        | Count::Busy
        | Count::Marked
        | Count::Unseen
        | Count::Off
        | Count::Alone => Kind::Message,
        Count::Bytes => Kind::Bytes,
        Count::Ends
        | Count::Refused
        | Count::NoStorage
        | Count::Unreadable
        | Count::Elsewhere
        | Count::Unpaired
        | Count::Direct
        | Count::Unwanted
        | Count::Blocking
        | Count::Learning
        | Count::Foreign
        | Count::Closed => Kind::Socket,
        Count::Hazards => Kind::Hazard,
    }
}

/// What depends on a check, as a label's value.
const fn proves(what: Proves) -> &'static str {
    match what {
        Proves::Safety => "safety",
        Proves::Shortcut => "shortcut",
        Proves::Application => "application",
        Proves::IntoApplication => "into_application",
    }
}
