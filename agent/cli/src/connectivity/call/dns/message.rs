//! A question for a name's addresses, and the answer, as RFC 1035 writes both.

use std::net::IpAddr;
use std::time::SystemTime;

/// Which addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Of IPv4.
    A,
    /// Of IPv6.
    Aaaa,
}

impl Kind {
    const fn number(self) -> u16 {
        match self {
            Self::A => 1,
            Self::Aaaa => 28,
        }
    }
}

/// The class of the Internet.
const INTERNET: u16 = 1;

/// Of the flags: this is an answer.
const IS_ANSWER: u16 = 0x8000;

/// Of the flags: ask others if need be.
const RECURSE: u16 = 0x0100;

/// Of the flags: what kept the server from answering.
const CODE: u16 = 0x000f;

/// A question.
#[derive(Clone, Debug)]
pub(super) struct Query {
    id: u16,
    kind: Kind,
    bytes: Vec<u8>,
}

impl Query {
    /// Asks for the addresses of a name.
    pub(super) fn new(name: &str, kind: Kind) -> Self {
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        let [.., one, other] = now.subsec_micros().to_be_bytes();
        let id = u16::from_be_bytes([one, other]);
        let mut bytes = Vec::new();
        let header = [id, RECURSE, 1, 0, 0, 0];
        bytes.extend(header.iter().flat_map(|field| field.to_be_bytes()));
        for label in name.split('.').filter(|label| !label.is_empty()) {
            // Kubernetes allows no label of more than 63 letters.
            bytes.push(u8::try_from(label.len()).unwrap_or(u8::MAX));
            bytes.extend(label.as_bytes());
        }
        bytes.push(0);
        bytes.extend(kind.number().to_be_bytes());
        bytes.extend(INTERNET.to_be_bytes());
        Self { id, kind, bytes }
    }

    /// What is sent.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The addresses in an answer. A name that is not there has none.
    pub(super) fn addresses(&self, answer: &[u8]) -> Result<Vec<IpAddr>, String> {
        const NO_SUCH_NAME: u16 = 3;
        let mut reader = Reader { rest: answer };
        let [id, flags, questions, answers, _, _] =
            reader.header().ok_or("the answer is too short")?;
        if id != self.id || flags & IS_ANSWER == 0 {
            return Err("the answer is another question's".to_owned());
        }
        match flags & CODE {
            0 => {}
            NO_SUCH_NAME => return Ok(Vec::new()),
            code => return Err(format!("it cannot answer (code {code})")),
        }
        let read = reader.records(questions, answers, self.kind);
        read.ok_or_else(|| "the answer ends too early".to_owned())
    }
}

/// What is left of a message.
struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u16> {
        let bytes = self.take(2)?.try_into().ok()?;
        Some(u16::from_be_bytes(bytes))
    }

    fn header(&mut self) -> Option<[u16; 6]> {
        let mut fields = [0; 6];
        for field in &mut fields {
            *field = self.number()?;
        }
        Some(fields)
    }

    /// Passes over a name. It ends with an empty label, or with a pointer to where it goes on.
    fn skip_name(&mut self) -> Option<()> {
        const POINTER: u8 = 0xc0;
        loop {
            match self.take(1)? {
                [0] => return Some(()),
                [length] if length & POINTER == POINTER => {
                    self.take(1)?;
                    return Some(());
                }
                [length] => self.take(usize::from(*length))?,
                _ => return None,
            };
        }
    }

    fn records(&mut self, questions: u16, answers: u16, kind: Kind) -> Option<Vec<IpAddr>> {
        for _ in 0..questions {
            self.skip_name()?;
            self.take(4)?;
        }
        let mut addresses = Vec::new();
        for _ in 0..answers {
            self.skip_name()?;
            let (number, class) = (self.number()?, self.number()?);
            let _seconds_to_live = self.take(4)?;
            let length = self.number()?;
            let data = self.take(usize::from(length))?;
            // Others say what the name is called elsewhere.
            if (number, class) == (kind.number(), INTERNET) {
                addresses.push(address(data)?);
            }
        }
        Some(addresses)
    }
}

fn address(data: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(data).map(IpAddr::from);
    four.or_else(|_| <[u8; 16]>::try_from(data).map(IpAddr::from))
        .ok()
}

/// The answer to a question: one address if it asks for one of IPv4, otherwise none.
#[cfg(test)]
pub(super) fn answered(question: &[u8], address: Option<[u8; 4]>) -> Vec<u8> {
    let is_for_ipv4 = question.ends_with(&[0, 1, 0, 1]);
    let address = address.filter(|_| is_for_ipv4);
    let mut answer = question.to_vec();
    answer[2] |= 0x80;
    answer[7] = u8::from(address.is_some());
    if let Some(address) = address {
        // The name is that of the question.
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4]);
        answer.extend(address);
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_what_is_between_is_passed_over() {
        let query = Query::new("near.shop", Kind::A);
        let mut answer = answered(query.bytes(), Some([10, 0, 0, 7]));
        // Before it, what the name is called elsewhere.
        let alias = [
            &[0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 5, 0, 4][..],
            b"\x01a\xc0\x0c",
        ]
        .concat();
        let end = query.bytes().len();
        answer.splice(end..end, alias);
        answer[7] = 2;
        assert_eq!(
            query.addresses(&answer),
            Ok(vec![IpAddr::from([10, 0, 0, 7])])
        );
        for length in 12..answer.len() {
            let cut = query.addresses(&answer[..length]);
            assert!(cut.is_err(), "{length} bytes: {cut:?}");
        }
    }

    #[test]
    fn an_answer_to_another_question_is_none() {
        let query = Query::new("near.shop", Kind::A);
        let mut answer = answered(query.bytes(), None);
        assert_eq!(query.addresses(&answer), Ok(Vec::new()));
        answer[0] ^= 1;
        assert!(query.addresses(&answer).is_err());
        assert!(query.addresses(query.bytes()).is_err(), "it is a question");
        assert!(query.addresses(&[]).is_err());
    }

    #[test]
    fn a_name_that_is_not_there_has_no_address_and_a_refusal_is_told() {
        let query = Query::new("nowhere.shop", Kind::A);
        let mut answer = answered(query.bytes(), None);
        answer[3] = 3;
        assert_eq!(query.addresses(&answer), Ok(Vec::new()));
        answer[3] = 5;
        let refused = query.addresses(&answer).expect_err("it is refused");
        assert!(refused.contains("code 5"), "{refused}");
    }
}
