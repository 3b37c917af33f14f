//! Which pod has which address. An address that two pods claim tells nothing of who is there, so nobody has it. Pure.

use std::collections::{HashMap, HashSet};

use sidestep_ebpf_common::Addr;
use sidestep_kernel::netns::Cookie;

/// An address, and who has it now.
pub(super) type Owned = (Addr, Option<Cookie>);

/// What each pod says is its own.
#[derive(Debug, Default)]
pub(super) struct Claims(HashMap<Cookie, HashSet<Addr>>);

impl Claims {
    /// What an earlier agent published. Its pods keep their addresses until they say what they have.
    pub(super) fn found(published: impl IntoIterator<Item = (Addr, Cookie)>) -> Self {
        let mut claims = Self::default();
        for (address, pod) in published {
            claims.0.entry(pod).or_default().insert(address);
        }
        claims
    }

    /// A pod has these addresses and no others. The answer tells of every address it had or has who has it now.
    pub(super) fn replace(
        &mut self,
        pod: Cookie,
        addresses: impl IntoIterator<Item = Addr>,
    ) -> Vec<Owned> {
        let now: HashSet<Addr> = addresses.into_iter().collect();
        let before = if now.is_empty() {
            self.0.remove(&pod)
        } else {
            self.0.insert(pod, now.clone())
        };
        let all = before.unwrap_or_default().into_iter().chain(now);
        all.map(|address| (address, self.owner(address))).collect()
    }

    /// The pod that alone says so.
    fn owner(&self, address: Addr) -> Option<Cookie> {
        let mut claimants = self.0.iter().filter(|(_, own)| own.contains(&address));
        let (first, _) = claimants.next()?;
        claimants.next().is_none().then_some(*first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Addr = Addr([0, 0, 0, 1]);
    const THERE: Addr = Addr([0, 0, 0, 2]);

    /// What the programs see after these answers.
    fn seen(answers: &[Vec<Owned>]) -> HashMap<Addr, Cookie> {
        let mut map = HashMap::new();
        for (address, owner) in answers.iter().flatten() {
            match owner {
                Some(owner) => map.insert(*address, *owner),
                None => map.remove(address),
            };
        }
        map
    }

    #[test]
    fn an_address_that_two_pods_claim_is_nobodys() {
        let mut claims = Claims::default();
        let answers = [claims.replace(1, [HERE]), claims.replace(2, [HERE, THERE])];
        assert_eq!(seen(&answers), HashMap::from([(THERE, 2)]));
    }

    #[test]
    fn it_comes_back_to_the_survivor() {
        for give_up in [vec![], vec![THERE]] {
            let mut claims = Claims::default();
            let answers = [
                claims.replace(1, [HERE]),
                claims.replace(2, [HERE]),
                claims.replace(2, give_up.clone()),
            ];
            assert_eq!(seen(&answers).get(&HERE), Some(&1), "{give_up:?}");
        }
    }

    #[test]
    fn of_three_it_comes_back_to_the_last() {
        let mut claims = Claims::default();
        let mut answers = [1, 2, 3].map(|pod| claims.replace(pod, [HERE])).to_vec();
        answers.push(claims.replace(3, []));
        assert_eq!(seen(&answers), HashMap::new());
        answers.push(claims.replace(1, []));
        assert_eq!(seen(&answers), HashMap::from([(HERE, 2)]));
    }

    #[test]
    fn what_an_earlier_agent_published_is_not_taken_over_by_another_pod() {
        let mut claims = Claims::found([(HERE, 1)]);
        let mut answers = vec![claims.replace(2, [HERE])];
        assert_eq!(seen(&answers), HashMap::new());
        answers.push(claims.replace(1, [HERE]));
        assert_eq!(seen(&answers), HashMap::new());
        answers.push(claims.replace(2, []));
        assert_eq!(seen(&answers), HashMap::from([(HERE, 1)]));
    }
}
