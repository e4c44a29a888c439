//! A DNS server on the loopback that knows what it is told, and counts what it is asked.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use tokio::net::UdpSocket;
use tokio::task::JoinSet;

/// The running server; dropping it ends it.
pub(crate) struct DnsServer {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    _task: JoinSet<()>,
}

impl DnsServer {
    /// Knows these IPv4 addresses; every other name does not exist.
    pub(crate) async fn start(names: &[(&str, &[Ipv4Addr])]) -> Self {
        let names: BTreeMap<String, Vec<Ipv4Addr>> =
            names.iter().map(|(name, ips)| ((*name).to_owned(), ips.to_vec())).collect();
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let mut task = JoinSet::new();
        let log = Arc::clone(&asked);
        task.spawn(async move {
            let mut buffer = [0; 1_500];
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                let query = &buffer[..length];
                let (name, end) = question(query);
                log.lock().unwrap().push(name.clone());
                let _ = socket.send_to(&answer(query, end, names.get(&name)), from).await;
            }
        });
        Self { address, asked, _task: task }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The names asked for so far, each as often as it was.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

/// The name of the only question, in lower case without the final dot, and where the question ends.
fn question(query: &[u8]) -> (String, usize) {
    let (mut place, mut labels) = (12, Vec::new());
    while query[place] != 0 {
        let length = usize::from(query[place]);
        labels.push(String::from_utf8_lossy(&query[place + 1..=place + length]).to_lowercase());
        place += length + 1;
    }
    (labels.join("."), place + 5)
}

fn answer(query: &[u8], end: usize, known: Option<&Vec<Ipv4Addr>>) -> Vec<u8> {
    let is_a = query[end - 4..end - 2] == [0, 1];
    let addresses: &[Ipv4Addr] = if is_a { known.map_or(&[], Vec::as_slice) } else { &[] };
    let mut reply = query[..2].to_vec();
    let no_such_name = if known.is_none() { 3 } else { 0 };
    reply.extend([0x81, 0x80 | no_such_name, 0, 1, 0, u8::try_from(addresses.len()).unwrap(), 0, 0, 0, 0]);
    reply.extend(&query[12..end]);
    for address in addresses {
        // The name is that of the question; A, IN, 60 s, four bytes.
        reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        reply.extend(address.octets());
    }
    reply
}
