//! A database for each test, cloned from a migrated template on one private server and reached through a real
//! PgBouncer's wildcard database. The server runs as long as a test holds one of its databases.

use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak, mpsc};
use std::thread::JoinHandle;

use quipu::app::Ports;
use quipu::base::Secret;
use quipu::config::Implementation;
use quipu::store::embedded::{Embedded, EmbeddedConfig, SharedRole};
use quipu::store::owner::{self, Procedures};
use quipu::store::setup::create_database;
use quipu::store::{DatabaseUrls, PoolSizes, Pools};
use tempfile::TempDir;
use tokio_postgres::Client;

/// The database that is cloned. PostgreSQL refuses to clone it while a session is connected to it.
const TEMPLATE: &str = "quipu_template";

/// Tests need many databases at once, and their data need not be durable.
const POSTGRESQL_CONF: &str =
    "shared_buffers = '128MB'\nmax_connections = 300\nfsync = off\nfull_page_writes = off\njit = off\n";

/// The roles for people.
const PEOPLE: [SharedRole; 3] = [SharedRole::Reader, SharedRole::MessagesReader, SharedRole::Writer];

static SERVER: Mutex<Weak<Server>> = Mutex::new(Weak::new());
static NUMBER: AtomicU32 = AtomicU32::new(1);

/// The private server, on its own thread and runtime, because it outlives the test that started it.
struct Server {
    superuser: Secret,
    /// URLs of a database named `DATABASE`; the name is replaced per test.
    pools: DatabaseUrls,
    /// URLs of `PEOPLE`.
    people: [Secret; 3],
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// The running server, or a new one.
    fn get() -> Arc<Self> {
        let mut running = SERVER.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(server) = running.upgrade() {
            return server;
        }
        let server = Arc::new(Self::start());
        *running = Arc::downgrade(&server);
        server
    }

    fn start() -> Self {
        let (ready, answers) = mpsc::channel();
        let (stop, stopping) = mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
            let folder = enterable_folder();
            let embedded = runtime.block_on(serve(&folder));
            ready
                .send((
                    embedded.superuser_url(),
                    embedded.urls_for("DATABASE"),
                    PEOPLE.map(|p| embedded.shared_role_url(p)),
                ))
                .unwrap();
            // Ends when the last database is dropped.
            let _ = stopping.recv();
            runtime.block_on(embedded.stop());
        });
        let (superuser, pools, people) = answers.recv().expect("the test server starts");
        Self { superuser, pools, people, stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn serve(folder: &TempDir) -> Embedded {
    let (postgres_port, pgbouncer_port) = free_ports();
    let config = EmbeddedConfig {
        data: folder.path().join("data"),
        postgres_port,
        pgbouncer_port,
        postgresql_conf: POSTGRESQL_CONF.to_owned(),
        database: "quipu".to_owned(),
    };
    let embedded = Embedded::start_for_all_databases(config).await.unwrap();
    create_database(&embedded.superuser_url(), TEMPLATE).await.unwrap();
    // Roles belong to the server, and all concurrent tests share it.
    let superuser = owner::connect(&embedded.superuser_url()).await.unwrap();
    let roles = ["quipu_reader", "quipu_messages_reader", "quipu_writer"];
    superuser
        .batch_execute(&roles.map(|role| format!("ALTER ROLE {role} CONNECTION LIMIT 1000;")).concat())
        .await
        .unwrap();
    // Migrated without the pooler, which would keep a connection to the template.
    owner::migrate(embedded.urls_for(TEMPLATE).owner().unwrap(), &procedures("bigbrotr")).await.unwrap();
    embedded
}

/// The procedures of a built-in implementation.
pub(crate) fn procedures(implementation: &str) -> Procedures {
    let found = Implementation::find_built_in(implementation).unwrap();
    Procedures {
        implementation: implementation.to_owned(),
        sql: found.procedures_sql().unwrap().into_owned(),
    }
}

/// A folder that the servers' user can enter.
pub(crate) fn enterable_folder() -> TempDir {
    let folder = tempfile::Builder::new().prefix("quipu-it-").tempdir().unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    folder
}

/// Two free ports.
pub(crate) fn free_ports() -> (u16, u16) {
    let listeners = [0, 0].map(|port| TcpListener::bind(("127.0.0.1", port)).unwrap());
    let [one, two] = listeners.map(|listener| listener.local_addr().unwrap().port());
    (one, two)
}

/// The first port of a free run of ports for one instance, below the ports that the system assigns. Each process begins its
/// search elsewhere, so that two processes seldom try the same run at the same time.
pub(crate) fn free_port_block() -> u16 {
    const PORTS: u16 = Ports::COUNT;
    const BLOCKS: u32 = 12_000 / PORTS as u32;
    static TRIED: AtomicU32 = AtomicU32::new(0);
    let first = std::process::id().wrapping_mul(0x9E37_79B9) % BLOCKS;
    loop {
        let block = (first + TRIED.fetch_add(1, Ordering::Relaxed)) % BLOCKS;
        let base = 20_000 + u16::try_from(block).unwrap() * PORTS;
        if (base..base + PORTS).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok()) {
            return base;
        }
    }
}

/// The database of one test. Dropping it drops the database and ends its sessions.
pub(crate) struct TestDatabase {
    name: String,
    server: Arc<Server>,
}

impl TestDatabase {
    /// A migrated database of implementation `bigbrotr`, cloned from the template.
    pub(crate) async fn new() -> Self {
        let database = Self::named();
        database
            .superuser(&format!("CREATE DATABASE {} TEMPLATE {TEMPLATE} OWNER quipu_owner", database.name))
            .await;
        database.grant().await;
        database
    }

    /// A database without any table.
    pub(crate) async fn empty() -> Self {
        let database = Self::named();
        create_database(&database.server.superuser, &database.name).await.unwrap();
        database
    }

    fn named() -> Self {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("test_{}_{number}", std::process::id());
        // Starting the server blocks, and so does joining its thread.
        let server = std::thread::spawn(Server::get).join().expect("the test server is there");
        Self { name, server }
    }

    /// A clone does not inherit the grants on the database itself.
    async fn grant(&self) {
        let grants = format!(
            "REVOKE ALL ON DATABASE {0} FROM PUBLIC; GRANT CONNECT, TEMPORARY ON DATABASE {0} TO quipu; \
             GRANT CONNECT ON DATABASE {0} TO quipu_reader, quipu_messages_reader, quipu_writer",
            self.name
        );
        self.superuser(&grants).await;
    }

    async fn superuser(&self, sql: &str) {
        let client = owner::connect(&self.server.superuser).await.unwrap();
        client.batch_execute(sql).await.unwrap();
    }

    /// The URLs of this database.
    pub(crate) fn urls(&self) -> DatabaseUrls {
        let named = |url: &Secret| Secret::new(url.expose().replace("/DATABASE", &format!("/{}", self.name)));
        let pools = &self.server.pools;
        DatabaseUrls {
            write: named(&pools.write),
            session: named(&pools.session),
            read: named(&pools.read),
            owner: pools.owner.as_ref().map(named),
        }
    }

    /// The superuser's URL of this database.
    pub(crate) fn superuser_url(&self) -> Secret {
        let url = self.server.superuser.expose();
        let (server, _) = url.rsplit_once('/').unwrap();
        Secret::new(format!("{server}/{}", self.name))
    }

    /// The URL of the role for analysts.
    pub(crate) fn reader_url(&self) -> Secret {
        self.shared_role_url(SharedRole::Reader)
    }

    /// The URL of a role for people.
    pub(crate) fn shared_role_url(&self, person: SharedRole) -> Secret {
        let place = PEOPLE.iter().position(|known| *known == person).unwrap();
        let url = self.server.people[place].expose();
        let (server, _) = url.rsplit_once('/').unwrap();
        Secret::new(format!("{server}/{}", self.name))
    }

    /// Connection pools. Close them before the test ends; otherwise the database's drop waits until their
    /// connections are cut.
    pub(crate) fn pools(&self) -> Pools {
        Pools::open(&self.urls(), PoolSizes { write: 4, session: 3, read: 2 }).unwrap()
    }

    /// A connection as the owner.
    pub(crate) async fn owner(&self) -> Client {
        owner::connect(self.urls().owner().unwrap()).await.unwrap()
    }

    /// The service's role without the pooler.
    pub(crate) fn service_url(&self) -> Secret {
        let port = |url: &Secret| url::Url::parse(url.expose()).unwrap().port();
        let DatabaseUrls { write, owner, .. } = self.urls();
        let owner = owner.unwrap();
        let mut direct = url::Url::parse(write.expose()).unwrap();
        direct.set_port(port(&owner)).unwrap();
        Secret::new(direct.as_str())
    }

    /// A direct connection as the service.
    pub(crate) async fn service(&self) -> Client {
        owner::connect(&self.service_url()).await.unwrap()
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let (url, drop) =
            (self.server.superuser.clone(), format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name));
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let client = owner::connect(&url).await?;
                Ok::<(), quipu::store::Error>(client.batch_execute(&drop).await?)
            })
        });
        // A database that remains is removed with its server.
        let _ = dropping.join();
    }
}
