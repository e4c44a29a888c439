//! A DNS server on the loopback with configured answers, which records the names that it is asked for.

use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use tokio::net::UdpSocket;
use tokio::task::JoinSet;

/// The running server; dropping it stops it.
pub(crate) struct DnsServer {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    _task: JoinSet<()>,
}

impl DnsServer {
    /// Answers for these names with IPv4 addresses; every other name does not exist.
    pub(crate) async fn start(names: &[(&str, &[Ipv4Addr])]) -> Self {
        let answers = |ips: &[Ipv4Addr]| Answers { sets: VecDeque::from([ips.to_vec()]), ttl_s: 60 };
        Self::answering(names.iter().map(|(name, ips)| ((*name).to_owned(), answers(ips))).collect()).await
    }

    /// Answers for one name: each request gets the next set of `sets`, and after the last set always that
    /// one. The time to live is 0, so that each resolution asks again.
    pub(crate) async fn rebinding(name: &str, sets: &[&[Ipv4Addr]]) -> Self {
        let sets = sets.iter().map(|ips| ips.to_vec()).collect();
        Self::answering(BTreeMap::from([(name.to_owned(), Answers { sets, ttl_s: 0 })])).await
    }

    async fn answering(mut names: BTreeMap<String, Answers>) -> Self {
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
                let _ = socket.send_to(&answer(query, end, names.get_mut(&name)), from).await;
            }
        });
        Self { address, asked, _task: task }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The names asked for so far, once per request.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

/// The name in the only question, in lower case without the final dot, and the offset at which the question
/// ends.
fn question(query: &[u8]) -> (String, usize) {
    let (mut place, mut labels) = (12, Vec::new());
    while query[place] != 0 {
        let length = usize::from(query[place]);
        labels.push(String::from_utf8_lossy(&query[place + 1..=place + length]).to_lowercase());
        place += length + 1;
    }
    (labels.join("."), place + 5)
}

/// The answers for one name.
struct Answers {
    /// Sets of addresses, one per answer; the last one repeats.
    sets: VecDeque<Vec<Ipv4Addr>>,
    /// Time to live, seconds.
    ttl_s: u8,
}

impl Answers {
    fn next(&mut self) -> Vec<Ipv4Addr> {
        let kept = self.sets.len() > 1;
        if kept { self.sets.pop_front() } else { self.sets.front().cloned() }.unwrap_or_default()
    }
}

fn answer(query: &[u8], end: usize, known: Option<&mut Answers>) -> Vec<u8> {
    let is_a = query[end - 4..end - 2] == [0, 1];
    let no_such_name = if known.is_none() { 3 } else { 0 };
    let ttl_s = known.as_ref().map_or(0, |answers| answers.ttl_s);
    let addresses = known.filter(|_| is_a).map(Answers::next).unwrap_or_default();
    let mut reply = query[..2].to_vec();
    reply.extend([0x81, 0x80 | no_such_name, 0, 1, 0, u8::try_from(addresses.len()).unwrap(), 0, 0, 0, 0]);
    reply.extend(&query[12..end]);
    for address in addresses {
        // A pointer to the name in the question; type A, class IN, time to live, four bytes.
        reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, ttl_s, 0, 4]);
        reply.extend(address.octets());
    }
    reply
}
