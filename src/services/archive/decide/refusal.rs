//! Decides which relays are never dialled.

use crate::base::RelayUrl;

/// The reason why a relay is never dialled, for journal and metrics; `None` if it may be dialled. A private
/// address or a local name is dialled only if the operator of this archive named the relay: taken from a seed
/// file, an event or a list it would lead into the operator's own network.
#[must_use]
pub fn refusal(url: &RelayUrl, is_named: bool) -> Option<&'static str> {
    (!is_named && url.is_local_address()).then_some("private_address")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_private_address_or_a_local_name_is_refused_unless_the_operator_named_the_relay() {
        for (text, expected) in [
            ("ws://127.0.0.1:7777", Some("private_address")),
            ("ws://192.168.1.5", Some("private_address")),
            ("ws://100.64.0.1", Some("private_address")),
            ("ws://169.254.169.254", Some("private_address")),
            ("ws://[::1]", Some("private_address")),
            ("ws://[::ffff:10.0.0.1]", Some("private_address")),
            ("ws://[64:ff9b::7f00:1]", Some("private_address")),
            ("ws://umbrel.local:4848", Some("private_address")),
            ("ws://relay", Some("private_address")),
            ("wss://relay.home.arpa", Some("private_address")),
            ("wss://relay.example.com", None),
            ("ws://1.1.1.1", None),
            ("ws://[2606:4700::1111]", None),
        ] {
            let url = RelayUrl::parse(text).unwrap();
            assert_eq!(refusal(&url, false), expected, "{text}");
            assert_eq!(refusal(&url, true), None, "{text}");
        }
    }
}
