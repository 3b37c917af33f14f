//! The numbers by which the programs tell whether two pods are of one Kubernetes namespace. Pure.
//!
//! A number is of one name only, for as long as any pod that has it is there. The switches that an earlier agent left hold
//! numbers without names; a name comes with the first of those pods that is admitted again. If a new pod of the namespace is
//! admitted before that, it gets another number, which the others take over when they are admitted: until then, what they
//! connect to each other needs the reach `node`.

use std::collections::HashMap;

use sidestep_kernel::netns::Cookie;

/// The number of a pod that is of no known namespace.
const NONE: u32 = 0;

/// Which number each pod has, and each name.
#[derive(Debug, Default)]
pub(super) struct Namespaces {
    pods: HashMap<Cookie, u32>,
    names: HashMap<String, u32>,
}

impl Namespaces {
    /// What an earlier agent's pods have.
    pub(super) fn found(pods: impl IntoIterator<Item = (Cookie, u32)>) -> Self {
        Self {
            pods: pods.into_iter().collect(),
            names: HashMap::new(),
        }
    }

    /// The number of a pod.
    fn number(&self, pod: Cookie) -> u32 {
        self.pods.get(&pod).copied().unwrap_or(NONE)
    }

    /// A pod is of the namespace with this name; an empty one is none. The answer is its number.
    pub(super) fn enter(&mut self, pod: Cookie, name: &str) -> u32 {
        let number = match self.names.get(name) {
            _ if name.is_empty() => NONE,
            Some(known) => *known,
            None => self.first_number(pod),
        };
        self.leave(pod);
        self.pods.insert(pod, number);
        if number != NONE {
            self.names.insert(name.to_owned(), number);
        }
        number
    }

    /// A pod is there no more.
    pub(super) fn leave(&mut self, pod: Cookie) {
        self.pods.remove(&pod);
        let pods = &self.pods;
        self.names
            .retain(|_, number| pods.values().any(|used| used == number));
    }

    /// For a name that has none: what the earlier agent gave this pod, or one that nobody has.
    fn first_number(&self, pod: Cookie) -> u32 {
        let found = self.number(pod);
        let is_named = |number| self.names.values().any(|named| *named == number);
        if found != NONE && !is_named(found) {
            return found;
        }
        let is_used = |number| self.pods.values().any(|used| *used == number);
        // There are fewer pods than numbers.
        (NONE + 1..=u32::MAX).find(|n| !is_used(*n)).unwrap_or(NONE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_have_one_number_where_they_have_one_namespace() {
        let mut all = Namespaces::default();
        let shop = all.enter(1, "shop");
        let bank = all.enter(2, "bank");
        assert!(shop != NONE && bank != NONE && shop != bank);
        assert_eq!(all.enter(3, "shop"), shop);
        assert_eq!(all.enter(1, "shop"), shop, "again");
        assert_eq!(all.enter(4, ""), NONE);
        assert_eq!(all.enter(5, ""), NONE);
    }

    #[test]
    fn a_number_lives_as_long_as_any_pod_that_has_it() {
        let mut all = Namespaces::default();
        let shop = all.enter(1, "shop");
        all.enter(2, "shop");
        all.leave(1);
        assert_ne!(all.enter(3, "bank"), shop);
        assert_eq!(all.enter(4, "shop"), shop);
        for pod in [2, 4] {
            all.leave(pod);
        }
        assert_eq!(all.number(4), NONE);
        assert_eq!(all.names.len(), 1, "of those that have ended");
    }

    #[test]
    fn the_next_agent_keeps_the_numbers_of_pods_that_live() {
        let mut all = Namespaces::found([(1, 7), (2, 7), (3, 8)]);
        assert_eq!(all.enter(3, "bank"), 8);
        assert_eq!(all.enter(2, "shop"), 7);
        assert_eq!(all.enter(4, "shop"), 7);
        assert_eq!(all.enter(1, "shop"), 7);
    }

    #[test]
    fn a_new_pod_takes_no_number_that_is_still_without_a_name() {
        let mut all = Namespaces::found([(1, 1), (2, 1), (3, 2)]);
        let shop = all.enter(4, "shop");
        assert!(![1, 2].contains(&shop));
        // Of the same namespace as it turns out: now all have the new one.
        assert_eq!(all.enter(1, "shop"), shop);
        assert_eq!(all.enter(2, "shop"), shop);
        assert_eq!(all.enter(3, "bank"), 2);
    }

    #[test]
    fn what_an_agent_left_that_numbered_none_is_numbered() {
        let mut all = Namespaces::found([(1, NONE), (2, NONE), (3, NONE)]);
        let shop = all.enter(1, "shop");
        assert_ne!(shop, NONE);
        assert_ne!(all.enter(3, "bank"), shop);
        assert_eq!(all.enter(2, "shop"), shop);
    }

    /// A network namespace that one pod had and another has now, as only a file can say.
    #[test]
    fn a_namespace_of_another_pod_has_another_number() {
        let mut all = Namespaces::default();
        let shop = all.enter(1, "shop");
        all.enter(2, "shop");
        assert_ne!(all.enter(1, "bank"), shop);
        assert_eq!(all.number(2), shop);
    }
}
