//! What the two ends of a connection do, from its number alone: so that each end knows what the other sends, and a
//! connection that failed can be run again.

/// A generator of numbers that look random (splitmix64).
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// The same seed gives the same numbers.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.number() % end
    }

    /// Comes true so many times of a hundred.
    pub fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }

    /// A size between 1 and `2^bits`, small ones as likely as large ones.
    pub fn size(&mut self, bits: u64) -> usize {
        let top = 1 << self.below(bits + 1);
        let size = 1 + top / 2 + self.below(top / 2 + 1);
        usize::try_from(size.min(1 << bits)).expect("bits of a usize")
    }
}

/// Which end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Who connected.
    Client,
    /// Who accepted.
    Server,
}

/// How an end stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Shuts down its writing half when it has sent everything, reads to the end, and closes.
    HalfClose,
    /// Closes when it has sent everything and got everything.
    CloseWhenDone,
    /// Closes as soon as it has sent everything; the other sends nothing.
    CloseAfterWrite,
    /// Closes with a reset when it has sent everything.
    Reset,
    /// Closes when it has got this many bytes, with more to come.
    Leave(u64),
}

/// What one end does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Sizes of its messages, each one call of send.
    pub messages: Vec<usize>,
    /// Before each message it waits until it has got so many bytes.
    pub after: Vec<u64>,
    /// How long it rests before each message, in microseconds.
    pub rests: Vec<u64>,
    /// Most bytes of one read.
    pub read: usize,
    /// How long it rests after each of its first reads, in microseconds.
    pub slow: u64,
    /// Looks at what there is (`MSG_PEEK`) before it reads it.
    pub peeks: bool,
    /// How it stops.
    pub ending: Ending,
    /// With blocking calls and two threads, or with poll.
    pub blocking: bool,
}

impl Plan {
    /// How much it sends.
    pub fn total(&self) -> u64 {
        self.messages.iter().map(|size| *size as u64).sum()
    }

    /// Whether the other end must get everything.
    pub fn delivers(&self, other: &Self) -> bool {
        let orderly = |plan: &Self| {
            matches!(
                plan.ending,
                Ending::HalfClose | Ending::CloseWhenDone | Ending::CloseAfterWrite
            )
        };
        orderly(self) && orderly(other)
    }
}

/// Both plans of a connection: the client's and the server's.
pub fn plans(connection: u64) -> (Plan, Plan) {
    let mut dice = Dice::new(connection.wrapping_mul(0x1234_5678_9abc_def1));
    let kind = dice.below(100);
    let count = dice.below(9);
    let mut client = end(&mut dice, count);
    let count = dice.below(9);
    let mut server = end(&mut dice, count);
    match kind {
        0..25 => alternate(&mut client, &mut server),
        25..35 => {
            let (writer, other) = if dice.percent(50) {
                (&mut client, &mut server)
            } else {
                (&mut server, &mut client)
            };
            silence(other);
            writer.ending = Ending::CloseAfterWrite;
        }
        35..40 => {
            client.ending = Ending::Reset;
        }
        40..45 => {
            let all = client.total();
            server.ending = Ending::Leave(dice.below(all + 1));
        }
        45..65 => {
            client.ending = Ending::CloseWhenDone;
        }
        _ => {}
    }
    (client, server)
}

fn end(dice: &mut Dice, count: u64) -> Plan {
    let messages: Vec<usize> = (0..count)
        .map(|_| {
            // Nearly all small, or the large ones would take all the time.
            let bits = if dice.percent(4) { 20 } else { 15 };
            dice.size(bits)
        })
        .collect();
    let read = dice.size(18);
    let rests = messages
        .iter()
        .map(|_| if dice.percent(8) { dice.below(1500) } else { 0 })
        .collect();
    Plan {
        after: vec![0; messages.len()],
        rests,
        messages,
        read,
        slow: if dice.percent(6) { dice.below(300) } else { 0 },
        peeks: dice.percent(15),
        ending: Ending::HalfClose,
        blocking: dice.percent(35),
    }
}

/// A request, an answer, a request: each end sends when it has got what the other has sent.
fn alternate(client: &mut Plan, server: &mut Plan) {
    let turns = client.messages.len().min(server.messages.len());
    for plan in [&mut *client, &mut *server] {
        plan.messages.truncate(turns);
        plan.rests.truncate(turns);
        plan.blocking = false;
    }
    let sums = |messages: &[usize]| {
        let mut sum = 0;
        let mut sums = vec![0];
        sums.extend(messages.iter().map(|size| {
            sum += *size as u64;
            sum
        }));
        sums
    };
    client.after = sums(&server.messages)[..turns].to_vec();
    server.after = sums(&client.messages)[1..=turns].to_vec();
}

fn silence(plan: &mut Plan) {
    plan.messages.clear();
    plan.after.clear();
    plan.rests.clear();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_number_gives_the_same_plans() {
        assert_eq!(plans(17), plans(17));
    }

    #[test]
    fn every_kind_of_ending_is_among_the_first_thousand() {
        let endings: Vec<Ending> = (0..1000)
            .flat_map(|n| {
                let (client, server) = plans(n);
                [client.ending, server.ending]
            })
            .collect();
        for wanted in [
            Ending::HalfClose,
            Ending::CloseWhenDone,
            Ending::CloseAfterWrite,
            Ending::Reset,
        ] {
            assert!(endings.contains(&wanted), "{wanted:?}");
        }
        assert!(endings.iter().any(|e| matches!(e, Ending::Leave(_))));
    }

    #[test]
    fn sizes_reach_from_one_byte_to_a_mebibyte() {
        let sizes: Vec<usize> = (0..5000).flat_map(|n| plans(n).0.messages).collect();
        assert!(sizes.contains(&1));
        assert!(sizes.iter().any(|size| *size > 900_000));
        assert!(sizes.iter().all(|size| (1..=1 << 20).contains(size)));
    }
}
