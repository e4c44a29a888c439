//! A SOCKS5 proxy that writes down who asked it for what, and passes everything on to the next one.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// One connection that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    /// Name and password, which isolate circuits; empty when none were given.
    pub(crate) user: String,
    pub(crate) password: String,
    /// How the target was written: 1 and 4 are addresses, 3 is a name.
    pub(crate) address_type: u8,
    /// The name, or the address in hex.
    pub(crate) host: String,
    pub(crate) port: u16,
}

/// The proxy. Dropping it cuts everybody off.
pub(crate) struct RecordingProxy {
    pub(crate) address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    _tasks: JoinSet<()>,
}

impl RecordingProxy {
    /// A proxy in front of the SOCKS proxy at this port of the loopback.
    pub(crate) async fn before(next: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = JoinSet::new();
        let written = Arc::clone(&asked);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let written = Arc::clone(&written);
                // A client that goes away is no error.
                connections.spawn(async move { drop(pass(client, next, &written).await) });
            }
        });
        Self { address, asked, _tasks: tasks }
    }

    /// Everything that was asked for so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn pass(mut client: TcpStream, next: u16, written: &Mutex<Vec<Asked>>) -> std::io::Result<()> {
    let (mut greeting, mut methods) = ([0; 2], [0; 255]);
    client.read_exact(&mut greeting).await?;
    let methods = &mut methods[..usize::from(greeting[1])];
    client.read_exact(methods).await?;
    let mut credentials = (String::new(), String::new());
    if methods.contains(&2) {
        client.write_all(&[5, 2]).await?;
        client.read_u8().await?;
        credentials = (text(&mut client).await?, text(&mut client).await?);
        client.write_all(&[1, 0]).await?;
    } else {
        client.write_all(&[5, 0]).await?;
    }
    let mut request = [0; 4];
    client.read_exact(&mut request).await?;
    let (host, target) = match request[3] {
        3 => {
            let name = text(&mut client).await?;
            let mut target = vec![u8::try_from(name.len()).unwrap()];
            target.extend(name.as_bytes());
            (name, target)
        }
        kind => {
            let mut target = vec![0; if kind == 1 { 4 } else { 16 }];
            client.read_exact(&mut target).await?;
            (hex::encode(&target), target)
        }
    };
    let port = client.read_u16().await?;
    let (user, password) = credentials;
    let asked = Asked { user, password, address_type: request[3], host, port };
    written.lock().unwrap_or_else(PoisonError::into_inner).push(asked.clone());

    let mut server = TcpStream::connect(("127.0.0.1", next)).await?;
    // The same credentials, so that the next proxy isolates as it was asked to.
    let mut hello = vec![5, 1, 2, 1, u8::try_from(asked.user.len()).unwrap()];
    hello.extend(asked.user.as_bytes());
    hello.push(u8::try_from(asked.password.len()).unwrap());
    hello.extend(asked.password.as_bytes());
    server.write_all(&hello).await?;
    server.read_exact(&mut [0; 4]).await?;
    server.write_all(&request).await?;
    server.write_all(&target).await?;
    server.write_u16(port).await?;
    copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}

async fn text(client: &mut TcpStream) -> std::io::Result<String> {
    let mut text = vec![0; usize::from(client.read_u8().await?)];
    client.read_exact(&mut text).await?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}
