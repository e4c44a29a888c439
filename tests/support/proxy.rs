//! A TCP proxy with fault injection: it inspects the client's requests and applies a fault to a chosen one.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use quipu::base::Secret;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use url::Url;

/// The fault that a request gets.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// The request is forwarded and answered; the client is disconnected before it receives the answer.
    SwallowAnswer,
    /// The request is forwarded; the client is reset when the token is cancelled.
    ResetAfter(CancellationToken),
    /// The request is forwarded when the token is cancelled.
    DelayUntil(CancellationToken),
    /// The request is not forwarded, and the connection stays open without an answer.
    Silence,
    /// The request is not forwarded; the client reads the end of the stream, but may still write.
    HalfClose,
}

#[derive(Debug, Default)]
struct Plan {
    strikes: Mutex<VecDeque<(&'static [u8], Fault)>>,
    struck: AtomicUsize,
}

impl Plan {
    /// The fault for this request, if the next planned fault matches it.
    fn take(&self, request: &[u8]) -> Option<Fault> {
        let mut strikes = self.strikes.lock().unwrap_or_else(PoisonError::into_inner);
        let (pattern, _) = strikes.front()?;
        let hit = request.windows(pattern.len()).any(|window| window == *pattern);
        hit.then(|| strikes.pop_front().map(|(_, fault)| fault)).flatten()
    }

    fn strike(&self) {
        self.struck.fetch_add(1, Ordering::SeqCst);
    }
}

/// The proxy. Dropping it closes every connection.
#[derive(Debug)]
pub(crate) struct Proxy {
    address: SocketAddr,
    plan: Arc<Plan>,
    is_silent: watch::Sender<bool>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    /// A proxy in front of the server of this URL.
    pub(crate) async fn before(url: &Secret) -> Self {
        let url = Url::parse(url.expose()).unwrap();
        let upstream = (url.host_str().unwrap().to_owned(), url.port().unwrap());
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let plan = Arc::new(Plan::default());
        let mut tasks = JoinSet::new();
        let (is_silent, silence) = watch::channel(false);
        let watch = Arc::clone(&plan);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut client, _)) = listener.accept().await {
                let (upstream, plan, mut silence) = (upstream.clone(), Arc::clone(&watch), silence.clone());
                connections.spawn(async move {
                    if let Ok(mut server) = TcpStream::connect(upstream).await {
                        let fallen_silent = async { drop(silence.wait_for(|is_silent| *is_silent).await) };
                        tokio::select! {
                            // Broken connections are the purpose of this proxy.
                            _ = relay(&mut client, &mut server, &plan) => {}
                            // Half open: the client is not told that the connection is gone.
                            () = fallen_silent => std::future::pending().await,
                        }
                    }
                });
            }
        });
        Self { address, plan, is_silent, _tasks: tasks }
    }

    /// The URL that leads through the proxy.
    pub(crate) fn url(&self, direct: &Secret) -> Secret {
        let mut url = Url::parse(direct.expose()).unwrap();
        url.set_host(Some("127.0.0.1")).unwrap();
        url.set_port(Some(self.address.port())).unwrap();
        Secret::new(url.as_str())
    }

    /// Plans a fault for the next request that contains `text`. Faults happen in the order in which they were
    /// planned.
    pub(crate) fn strike(&self, text: &'static str, fault: Fault) {
        let mut strikes = self.plan.strikes.lock().unwrap_or_else(PoisonError::into_inner);
        strikes.push_back((text.as_bytes(), fault));
    }

    /// From now on no data passes, and all connections stay open.
    pub(crate) fn fall_silent(&self) {
        self.is_silent.send_replace(true);
    }

    /// New connections work again; the silent connections stay silent.
    pub(crate) fn let_through(&self) {
        self.is_silent.send_replace(false);
    }

    /// Number of faults that have happened.
    pub(crate) fn struck(&self) -> usize {
        self.plan.struck.load(Ordering::SeqCst)
    }
}

/// Copies bytes both ways until one side closes or a fault ends it.
async fn relay(client: &mut TcpStream, server: &mut TcpStream, plan: &Plan) -> std::io::Result<()> {
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (mut asked, mut told) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        let n = tokio::select! {
            n = client.read(&mut asked) => n?,
            n = server.read(&mut told) => {
                let n = n?;
                if n == 0 { return Ok(()); }
                client.write_all(&told[..n]).await?;
                continue;
            }
        };
        let Some(request) = asked.get(..n).filter(|request| !request.is_empty()) else { return Ok(()) };
        match plan.take(request) {
            None => server.write_all(request).await?,
            Some(Fault::DelayUntil(told_to)) => {
                plan.strike();
                told_to.cancelled().await;
                server.write_all(request).await?;
            }
            Some(Fault::SwallowAnswer) => {
                server.write_all(request).await?;
                answered(client, server).await?;
                plan.strike();
                return Ok(());
            }
            Some(Fault::ResetAfter(told_to)) => {
                server.write_all(request).await?;
                plan.strike();
                told_to.cancelled().await;
                // With or without unread bytes, a close gives the client a reset.
                client.set_zero_linger()?;
                return Ok(());
            }
            Some(Fault::Silence) => {
                plan.strike();
                std::future::pending::<()>().await;
            }
            Some(Fault::HalfClose) => {
                client.shutdown().await?;
                plan.strike();
                while client.read(&mut asked).await? > 0 {}
                return Ok(());
            }
        }
    }
}

/// Waits until the server is ready for the next query, and forwards the rest of a long request meanwhile.
async fn answered(client: &mut TcpStream, server: &mut TcpStream) -> std::io::Result<()> {
    let (mut asked, mut told) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let mut tail = Vec::new();
    loop {
        tokio::select! {
            n = client.read(&mut asked) => match n? {
                0 => return Ok(()),
                n => server.write_all(&asked[..n]).await?,
            },
            n = server.read(&mut told) => {
                let n = n?;
                tail.extend_from_slice(&told[..n]);
                tail.drain(..tail.len().saturating_sub(6));
                if n == 0 || tail.starts_with(b"Z\0\0\0\x05") {
                    return Ok(());
                }
            }
        }
    }
}

/// Polls until `holds` is true; fails after half a minute.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let look = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), look)
        .await
        .unwrap_or_else(|_| panic!("timed out waiting for: {what}"));
}
