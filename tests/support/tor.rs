//! A private Tor network on the loopback: three authorities, three relays, a client with a SOCKS port, and
//! one onion address with several ports. It starts in about half a minute, once for all concurrent tests that
//! use it. It has no connection to the outside: its exits allow only 127.0.0.0/8, and it knows no other
//! authorities.

use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tempfile::TempDir;

use super::instance::{await_some, signal, wait_within};

/// Longest that a node may take to exit, and tor-gencert to make an authority's keys.
const EXIT_MAX: Duration = Duration::from_secs(10);
const KEYS_MAX: Duration = Duration::from_mins(1);

const AUTHORITIES: usize = 3;
const RELAYS: usize = 3;
/// Number of ports of the onion address that tests can take, from 81.
const SERVICES: usize = 4;
const FIRST_SERVICE: u16 = 81;
/// Port for the check that the address is reachable.
const PROOF: u16 = 80;

/// Settings of every node. Without `__OwningControllerProcess` the nodes would outlive a killed test.
const COMMON: &str = "TestingTorNetwork 1
UseDefaultFallbackDirs 0
AssumeReachable 1
PathsNeededToBuildCircuits 0.25
TestingDirAuthVoteExit *
TestingDirAuthVoteHSDir *
TestingDirAuthVoteGuard *
TestingMinExitFlagThreshold 0
V3AuthNIntervalsValid 2
ShutdownWaitLength 0
";

/// Settings of authorities and relays.
const NODE: &str = "Address 127.0.0.1
SocksPort 0
ExtendAllowPrivateAddresses 1
ExitRelay 1
ExitPolicyRejectPrivate 0
ExitPolicy accept 127.0.0.0/8:*
ExitPolicy reject *:*
ServerDNSDetectHijacking 0
ServerDNSTestAddresses
ServerDNSAllowBrokenConfig 1
";

/// Settings of authorities: a consensus every ten seconds.
const VOTE: &str = "AuthoritativeDirectory 1
V3AuthoritativeDirectory 1
ContactInfo test@127.0.0.1
AuthDirMaxServersPerAddr 0
TestingV3AuthInitialVotingInterval 10
TestingV3AuthInitialVoteDelay 2
TestingV3AuthInitialDistDelay 2
V3AuthVotingInterval 10
V3AuthVoteDelay 2
V3AuthDistDelay 2
";

static RUNNING: Mutex<Weak<Tor>> = Mutex::new(Weak::new());

/// The running network. It stops with the last test that holds it.
pub(crate) struct Tor {
    folder: TempDir,
    nodes: Vec<Child>,
    /// The client's SOCKS proxy.
    pub(crate) socks: SocketAddr,
    /// The onion address.
    pub(crate) onion: String,
    /// Targets of its ports, and which ports tests have taken.
    services: [u16; SERVICES],
    taken: Mutex<usize>,
}

impl Tor {
    /// The running network, or a new one.
    pub(crate) async fn get() -> Arc<Self> {
        let get = || {
            let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
            running.upgrade().unwrap_or_else(|| {
                let tor = Arc::new(Self::start());
                *running = Arc::downgrade(&tor);
                tor
            })
        };
        tokio::task::spawn_blocking(get).await.unwrap()
    }

    /// Takes a port of the onion address that no other test uses. Returns its URL, and the port of 127.0.0.1
    /// that it leads to.
    pub(crate) fn service(&self) -> (String, u16) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let place = *taken;
        *taken += 1;
        let port = FIRST_SERVICE + u16::try_from(place).unwrap();
        (format!("ws://{}:{port}", self.onion), self.services[place])
    }

    fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("quipu-tor-").tempdir().unwrap();
        fs::write(folder.path().join("resolv.conf"), "nameserver 127.0.0.1\n").unwrap();
        let ports = free_ports(2 * AUTHORITIES + RELAYS + 1 + SERVICES);
        let (nodes, rest) = ports.split_at(2 * AUTHORITIES + RELAYS);
        let socks = SocketAddr::from((Ipv4Addr::LOCALHOST, rest[0]));
        let services = rest[1..].try_into().unwrap();
        let proof = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut tor =
            Self { nodes: Vec::new(), socks, onion: String::new(), services, taken: Mutex::new(0), folder };
        let root = tor.folder.path().to_owned();
        let authorities: Vec<(String, String)> =
            (0..AUTHORITIES).map(|n| authority(&root, n, nodes[n], nodes[AUTHORITIES + n])).collect();
        let directory: String = authorities.iter().map(|(line, _)| line.as_str()).collect();
        let node = format!("{NODE}ServerDNSResolvConfFile {}/resolv.conf\n", root.display());
        for (n, (_, ports)) in authorities.iter().enumerate() {
            tor.run(&root, &format!("a{n}"), &format!("{directory}{ports}{node}{VOTE}"));
        }
        for (n, port) in nodes[2 * AUTHORITIES..].iter().enumerate() {
            tor.run(&root, &format!("r{n}"), &format!("{directory}ORPort 127.0.0.1:{port}\n{node}"));
        }
        let mut service = format!("{directory}SocksPort 0\nHiddenServiceDir {}/hs/onion\n", root.display());
        let leads = |onion: u16, port: u16| format!("HiddenServicePort {onion} 127.0.0.1:{port}\n");
        service += &leads(PROOF, proof.local_addr().unwrap().port());
        for (onion, port) in (FIRST_SERVICE..).zip(services) {
            service += &leads(onion, port);
        }
        tor.run(&root, "hs", &service);
        let client = "ClientOnly 1\nClientRejectInternalAddresses 0\nClientDNSRejectInternalAddresses 0\n";
        tor.run(&root, "client", &format!("{directory}{client}SocksPort {socks}\n"));

        let is_up = |name: &str| {
            let log = fs::read_to_string(root.join(name).join("log")).unwrap_or_default();
            log.contains("Bootstrapped 100%").then_some(())
        };
        await_some("Tor's client", || is_up("client"));
        await_some("Tor's onion service", || is_up("hs"));
        let hostname = fs::read_to_string(root.join("hs/onion/hostname")).unwrap();
        hostname.trim().clone_into(&mut tor.onion);
        // The first connections fail until the descriptor of the onion service is distributed.
        await_some("the onion address", || tor.dials(PROOF).then_some(()));
        tor
    }

    fn run(&mut self, root: &Path, name: &str, settings: &str) {
        let folder = root.join(name);
        fs::create_dir_all(&folder).unwrap();
        fs::set_permissions(&folder, Permissions::from_mode(0o700)).unwrap();
        let mut torrc = format!("{COMMON}__OwningControllerProcess {}\n", std::process::id());
        let at = folder.display();
        writeln!(torrc, "DataDirectory {at}\nNickname {name}\nLog notice file {at}/log\n{settings}").unwrap();
        fs::write(folder.join("torrc"), torrc).unwrap();
        let mut command = Command::new("tor");
        command.arg("--hush").arg("-f").arg(folder.join("torrc")).stdout(Stdio::null());
        self.nodes.push(command.spawn().expect("`scripts/deps test` installs Tor"));
    }

    /// Whether the onion address answers at this port.
    fn dials(&self, port: u16) -> bool {
        let asked = || -> std::io::Result<u8> {
            let mut proxy = TcpStream::connect(self.socks)?;
            proxy.set_read_timeout(Some(Duration::from_secs(20)))?;
            let name = self.onion.as_bytes();
            let mut hello = vec![5, 1, 0, 5, 1, 0, 3, u8::try_from(name.len()).unwrap()];
            hello.extend(name);
            hello.extend(port.to_be_bytes());
            proxy.write_all(&hello)?;
            let mut answer = [0; 4];
            proxy.read_exact(&mut answer)?;
            Ok(answer[3])
        };
        asked().is_ok_and(|code| code == 0)
    }
}

impl Drop for Tor {
    fn drop(&mut self) {
        for node in &self.nodes {
            signal(node.id(), nix::sys::signal::Signal::SIGTERM);
        }
        // A node may hang at its exit.
        for node in &mut self.nodes {
            if wait_within(node, EXIT_MAX).is_none() {
                let _ = node.kill();
                let _ = node.wait();
            }
        }
    }
}

/// Creates an authority's keys. Returns the line that describes the authority to other nodes, and its own
/// ports.
fn authority(root: &Path, number: usize, or_port: u16, dir_port: u16) -> (String, String) {
    let folder = root.join(format!("a{number}"));
    let keys = folder.join("keys");
    fs::create_dir_all(&keys).unwrap();
    fs::set_permissions(&folder, Permissions::from_mode(0o700)).unwrap();
    fs::set_permissions(&keys, Permissions::from_mode(0o700)).unwrap();
    let mut gencert = Command::new("tor-gencert");
    gencert.args(["--create-identity-key", "--passphrase-fd", "0", "-m", "12"]);
    gencert.arg("-a").arg(format!("127.0.0.1:{dir_port}"));
    for (option, file) in
        [("-i", "authority_identity_key"), ("-s", "authority_signing_key"), ("-c", "authority_certificate")]
    {
        gencert.arg(option).arg(keys.join(file));
    }
    let piped = gencert.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut making = piped.spawn().expect("`scripts/deps test` installs tor-gencert");
    making.stdin.take().unwrap().write_all(b"x\n").unwrap();
    let made = wait_within(&mut making, KEYS_MAX)
        .unwrap_or_else(|| panic!("tor-gencert did not end in {KEYS_MAX:?}"));
    assert!(made.success(), "tor-gencert");
    let certificate = fs::read_to_string(keys.join("authority_certificate")).unwrap();
    let identity = certificate.lines().find_map(|line| line.strip_prefix("fingerprint ")).unwrap();

    let (at, nobody) = (folder.display(), "0000000000000000000000000000000000000001");
    let first = folder.join("first");
    let torrc = format!(
        "DataDirectory {at}\nNickname a{number}\nORPort 127.0.0.1:{or_port}\nAddress 127.0.0.1\nTestingTorNetwork 1\n\
         DirAuthority x 127.0.0.1:1 {nobody}\n"
    );
    fs::write(&first, torrc).unwrap();
    let listed =
        Command::new("tor").args(["--list-fingerprint", "--hush", "-f"]).arg(&first).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let fingerprint = listed.lines().last().and_then(|line| line.split_once(' ')).unwrap().1.replace(' ', "");
    let line = format!(
        "DirAuthority a{number} orport={or_port} v3ident={identity} 127.0.0.1:{dir_port} {fingerprint}\n"
    );
    (line, format!("ORPort 127.0.0.1:{or_port}\nDirPort 127.0.0.1:{dir_port}\n"))
}

/// Free ports of the loopback.
fn free_ports(count: usize) -> Vec<u16> {
    let listeners: Vec<_> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    listeners.iter().map(|listener| listener.local_addr().unwrap().port()).collect()
}
