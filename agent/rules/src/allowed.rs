//! What a pod allows the shortcut.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use sidestep_contract::{Delivery, keys};
use sidestep_ebpf_common::shortcut::{
    FROM_APPLICATION, INTO_APPLICATION, REACH_NAMESPACE, REACH_NODE, REACH_POD,
};

pub use sidestep_contract::Reach;

/// What a pod allows. The least is the default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allowed {
    /// How far.
    pub reach: Reach,
    /// Whether the application's sockets may be ends at all.
    pub from_application: bool,
    /// Whether bytes may be put into the application's sockets too.
    pub into_application: bool,
}

impl Allowed {
    /// What a pod's annotations say. They can be changed by whoever may change the pod, so the agent never lets them
    /// widen what it has seen of the same pod first, nor go beyond its own setting. What is not understood is off, such as
    /// a word of a newer webhook. The webhook writes the reach into every pod that it gates, its default too; a pod without
    /// one was not asked, and its bytes go no farther than its own sidecar.
    pub fn of(pod: &Pod) -> Self {
        let none = BTreeMap::new();
        let annotations = pod.metadata.annotations.as_ref().unwrap_or(&none);
        Self {
            reach: annotations
                .get(keys::SHORTCUT)
                .map_or(Reach::Pod, |word| word.parse().unwrap_or(Reach::Off)),
            from_application: true,
            into_application: annotations
                .get(keys::SHORTCUT_INTO)
                .is_some_and(|word| word.parse() == Ok(Delivery::Application)),
        }
    }

    /// What both allow.
    #[must_use]
    pub fn narrowed(self, other: Self) -> Self {
        Self {
            reach: self.reach.min(other.reach),
            from_application: self.from_application && other.from_application,
            into_application: self.into_application && other.into_application,
        }
    }

    /// What it allows within this reach.
    #[must_use]
    pub fn within(self, most: Reach) -> Self {
        Self {
            reach: self.reach.min(most),
            ..self
        }
    }

    /// As the programs read it in a pod's switch.
    pub const fn flags(self) -> u32 {
        let reach = match self.reach {
            Reach::Off => return 0,
            Reach::Pod => REACH_POD,
            Reach::Namespace => REACH_POD | REACH_NAMESPACE,
            Reach::Node => REACH_POD | REACH_NAMESPACE | REACH_NODE,
        };
        let application = match (self.from_application, self.into_application) {
            (false, _) => 0,
            (true, false) => FROM_APPLICATION,
            (true, true) => FROM_APPLICATION | INTO_APPLICATION,
        };
        reach | application
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(annotations: &[(&str, &str)]) -> Pod {
        let mut pod = Pod::default();
        let pairs = annotations
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        pod.metadata.annotations = Some(pairs.collect());
        pod
    }

    #[test]
    fn annotations_say_how_far_and_into_whom() {
        let reach = |value| Allowed::of(&pod(&[(keys::SHORTCUT, value)])).reach;
        assert_eq!(Allowed::of(&Pod::default()).reach, Reach::Pod);
        assert_eq!(reach("node"), Reach::Node);
        assert_eq!(reach("namespace"), Reach::Namespace);
        assert_eq!(reach("pod"), Reach::Pod);
        for off in ["off", "", "NODE", "everywhere"] {
            assert_eq!(reach(off), Reach::Off, "{off}");
        }
        let into = |value| Allowed::of(&pod(&[(keys::SHORTCUT_INTO, value)])).into_application;
        assert!(into("application"));
        assert!(!into("proxy") && !into("Application"));
    }

    #[test]
    fn of_two_the_narrower_holds() {
        let wide = Allowed {
            reach: Reach::Node,
            from_application: true,
            into_application: true,
        };
        assert_eq!(wide.narrowed(Allowed::default()), Allowed::default());
        assert_eq!(Allowed::default().narrowed(wide), Allowed::default());
        for most in [Reach::Pod, Reach::Namespace] {
            assert_eq!(wide.within(most).reach, most);
            assert_eq!(wide.within(most).within(Reach::Node).reach, most);
        }
        assert_eq!(Allowed::default().within(Reach::Node).reach, Reach::Off);
    }

    #[test]
    fn who_allows_a_reach_allows_every_shorter_one() {
        let flags = |reach| {
            let allowed = Allowed {
                reach,
                ..Allowed::default()
            };
            allowed.flags()
        };
        assert_eq!(flags(Reach::Off), 0);
        assert_eq!(flags(Reach::Pod), REACH_POD);
        assert_eq!(flags(Reach::Namespace), REACH_POD | REACH_NAMESPACE);
        let all = REACH_POD | REACH_NAMESPACE | REACH_NODE;
        assert_eq!(flags(Reach::Node), all);
    }
}
