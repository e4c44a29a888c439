//! A SOCKS5 proxy on the loopback that records requests. It connects every request to one address, or
//! forwards it to another proxy.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// One request, as received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    /// Address type: 1 is IPv4, 3 is a name, 4 is IPv6.
    pub(crate) address_type: u8,
    /// The name, for address type 3.
    pub(crate) name: String,
    pub(crate) port: u16,
    pub(crate) user: String,
    pub(crate) password: String,
}

/// How requests are handled.
#[derive(Debug, Clone, Copy)]
enum Then {
    Lead(SocketAddr),
    Refuse(u8),
    /// Forward the request to the proxy at this address.
    PassOn(SocketAddr),
}

/// The running proxy; dropping it closes every connection.
pub(crate) struct SocksProxy {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    _tasks: JoinSet<()>,
}

impl SocksProxy {
    /// Connects every request to `target`, or refuses it with a code. A `target` with port 0 uses the
    /// requested port.
    pub(crate) async fn start(target: Result<SocketAddr, u8>) -> Self {
        Self::with(target.map_or_else(Then::Refuse, Then::Lead)).await
    }

    /// Forwards each request to the proxy at `next`, with the same name and password.
    pub(crate) async fn before(next: SocketAddr) -> Self {
        Self::with(Then::PassOn(next)).await
    }

    async fn with(then: Then) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = JoinSet::new();
        let log = Arc::clone(&asked);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let log = Arc::clone(&log);
                connections.spawn(async move { drop(serve(client, then, &log).await) });
            }
        });
        Self { address, asked, _tasks: tasks }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The requests so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

async fn text(client: &mut TcpStream) -> io::Result<String> {
    let mut bytes = vec![0; client.read_u8().await?.into()];
    client.read_exact(&mut bytes).await?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

async fn serve(mut client: TcpStream, then: Then, log: &Mutex<Vec<Asked>>) -> io::Result<()> {
    let mut head = [0; 2];
    client.read_exact(&mut head).await?;
    let mut methods = vec![0; head[1].into()];
    client.read_exact(&mut methods).await?;
    if !methods.contains(&2) {
        return client.write_all(&[5, 0xff]).await;
    }
    client.write_all(&[5, 2]).await?;
    client.read_u8().await?;
    let (user, password) = (text(&mut client).await?, text(&mut client).await?);
    client.write_all(&[1, 0]).await?;
    let mut request = [0; 4];
    client.read_exact(&mut request).await?;
    let address_type = request[3];
    let name = match address_type {
        3 => text(&mut client).await?,
        4 => format!("{:x}", client.read_u128().await?),
        _ => format!("{:x}", client.read_u32().await?),
    };
    let port = client.read_u16().await?;
    let asked = Asked { address_type, name, port, user, password };
    log.lock().unwrap().push(asked.clone());
    let reply = |code| [5, code, 0, 1, 0, 0, 0, 0, 0, 0];
    let mut server = match then {
        Then::Refuse(code) => return client.write_all(&reply(code)).await,
        Then::Lead(mut target) => {
            client.write_all(&reply(0)).await?;
            if target.port() == 0 {
                target.set_port(port);
            }
            TcpStream::connect(target).await?
        }
        // Pass the reply of the next proxy on.
        Then::PassOn(next) => ask(next, &asked).await?,
    };
    copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}

/// Sends the same request to the next proxy.
async fn ask(next: SocketAddr, asked: &Asked) -> io::Result<TcpStream> {
    let mut server = TcpStream::connect(next).await?;
    let field = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    // Message by message: Tor continues to read only when new data arrives.
    server.write_all(&[5, 1, 2]).await?;
    server.read_exact(&mut [0; 2]).await?;
    server.write_all(&[vec![1], field(&asked.user), field(&asked.password)].concat()).await?;
    server.read_exact(&mut [0; 2]).await?;
    let request = [vec![5, 1, 0, 3], field(&asked.name), asked.port.to_be_bytes().to_vec()].concat();
    server.write_all(&request).await?;
    Ok(server)
}
