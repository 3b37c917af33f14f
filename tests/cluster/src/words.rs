//! What was said, without what differs from one run to the next: names of namespaces, addresses, ports that the kernel chose, random ids.

use std::{collections::BTreeMap, net::IpAddr};

/// From here on ports are the kernel's choice.
const EPHEMERAL: u32 = 32768;

/// What is replaced.
#[derive(Debug)]
pub struct Words {
    namespace: String,
    addresses: BTreeMap<IpAddr, String>,
}

impl Words {
    /// The namespace's name, and the names of addresses.
    pub fn new(namespace: &str, addresses: BTreeMap<IpAddr, String>) -> Self {
        Self {
            namespace: namespace.to_owned(),
            addresses,
        }
    }

    /// The text with all of them replaced.
    pub fn plain(&self, text: &str) -> String {
        let text = text.replace(&self.namespace, "NAMESPACE");
        let mut plain = String::new();
        let mut rest = text.as_str();
        while let Some(first) = rest.chars().next() {
            let is_of_token = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-';
            let end = rest.find(|c| !is_of_token(c)).unwrap_or(rest.len());
            let (token, behind) = rest.split_at(end.max(first.len_utf8()));
            plain.push_str(&self.token(token, plain.ends_with(':')));
            rest = behind;
        }
        plain
    }

    fn token(&self, token: &str, behind_colon: bool) -> String {
        if let Ok(address) = token.parse::<IpAddr>() {
            return self
                .addresses
                .get(&address)
                .cloned()
                .unwrap_or(token.to_owned());
        }
        if behind_colon
            && token
                .parse::<u32>()
                .is_ok_and(|port| (EPHEMERAL..=65535).contains(&port))
        {
            return "PORT".to_owned();
        }
        if is_random(token) {
            return "ID".to_owned();
        }
        token.to_owned()
    }
}

/// A hash or a UUID.
fn is_random(token: &str) -> bool {
    let hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_uuid = token.len() == 36 && token.matches('-').count() == 4;
    (token.len() == 64 && hex(token)) || (is_uuid && hex(&token.replace('-', "")))
}

#[cfg(test)]
mod tests {
    use super::Words;

    #[test]
    fn what_differs_from_run_to_run_is_replaced_and_nothing_else() {
        let addresses = [("10.94.0.1", "<a>"), ("10.94.0.12", "<b>")];
        let addresses = addresses
            .map(|(address, name)| (address.parse().expect("an address"), name.to_owned()));
        let words = Words::new("ss-7-room", addresses.into_iter().collect());
        assert_eq!(
            words.plain("10.94.0.12:8080 10.94.0.1:40001 outbound|80||x.ss-7-room.svc 10.94.0.123:32767 \"Hash=ÿ 40001\""),
            "<b>:8080 <a>:PORT outbound|80||x.NAMESPACE.svc 10.94.0.123:32767 \"Hash=ÿ 40001\""
        );
        let id = "dde1aae6-3874-4776-a15e-f90a3ae3a4f3";
        assert_eq!(words.plain(&format!("\"{id}\"")), "\"ID\"");
    }
}
