//! A TCP proxy in front of a Postgres server, for everything that a network does to a connection.
//!
//! It lives in tasks of the test's runtime and listens on loopback. What it does is said for all connections, or for those
//! of one `application_name`, such as `uptally doorbell`; it learns the name from the first message of a connection.

mod wire;

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_postgres::Config;
use tokio_postgres::config::Host;
use wire::{Messages, Notifications, is_commit};

/// What happens to bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Weather {
    /// They pass.
    #[default]
    Clear,
    /// Each piece passes after a delay, to which up to as much again is added at random.
    Slow(Duration),
    /// They pass one at a time.
    Crumbs,
    /// They pass, but for notifications: as behind a pooler that has lent the listening session to somebody else.
    Deaf,
    /// They vanish both ways, and so does the end of a connection: nobody is told anything. A connection that has lost
    /// bytes stays lost when the weather clears.
    BlackHole,
}

/// Where a connection is cut at its next COMMIT. The client sees the same both times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CutAt {
    /// The server never sees the COMMIT.
    BeforeCommit,
    /// The server has committed, the client never hears of it.
    AfterCommit,
}

/// The proxy. Its connections end with it.
pub struct Proxy {
    port: u16,
    server: Config,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared(Mutex<Rules>);

#[derive(Default)]
struct Rules {
    everywhere: Weather,
    by_name: HashMap<String, Weather>,
    cuts: HashMap<String, CutAt>,
    cuts_done: u64,
    /// One for each connection; told true, it ends.
    connections: Vec<(Connection, watch::Sender<bool>)>,
}

/// What is known of a connection.
type Connection = Arc<Mutex<String>>;

impl Proxy {
    /// Starts a proxy in front of the server of `server`, a unix socket or a TCP address.
    pub async fn start(server: &Config) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut proxy = Proxy {
            port,
            server: server.clone(),
            shared: Arc::default(),
            accepting: None,
        };
        proxy.accept(listener);
        proxy
    }

    /// The way to the server through the proxy.
    pub fn connection(&self) -> Config {
        let mut config = Config::new();
        config.host("127.0.0.1").port(self.port);
        config.user(self.server.get_user().unwrap());
        config.dbname(self.server.get_dbname().unwrap());
        config
    }

    /// The same for `--database-url`.
    pub fn url(&self) -> String {
        let (user, name) = (self.server.get_user().unwrap(), self.server.get_dbname().unwrap());
        format!("postgresql://{user}@127.0.0.1:{}/{name}", self.port)
    }

    /// What happens to all connections from now on, also to those of names with another word of their own.
    pub fn set(&self, weather: Weather) {
        let mut rules = self.shared.lock();
        rules.everywhere = weather;
        rules.by_name.clear();
    }

    /// What happens to the connections of one `application_name` from now on.
    pub fn set_for(&self, name: &str, weather: Weather) {
        self.shared.lock().by_name.insert(name.to_owned(), weather);
    }

    /// Cuts a connection of this `application_name` at its next COMMIT.
    pub fn cut_commit(&self, name: &str, at: CutAt) {
        self.shared.lock().cuts.insert(name.to_owned(), at);
    }

    /// No connection is cut at a COMMIT from now on.
    pub fn cut_no_commit(&self) {
        self.shared.lock().cuts.clear();
    }

    /// How many connections were cut at a COMMIT so far.
    pub fn commits_cut(&self) -> u64 {
        self.shared.lock().cuts_done
    }

    /// Ends all connections at once; returns how many.
    pub fn cut(&self) -> usize {
        self.cut_where(|_| true)
    }

    /// Ends the connections of one `application_name`; returns how many.
    pub fn cut_for(&self, name: &str) -> usize {
        self.cut_where(|found| found == name)
    }

    fn cut_where(&self, is_meant: impl Fn(&str) -> bool) -> usize {
        let rules = self.shared.lock();
        let meant = rules.connections.iter().filter(|(name, _)| is_meant(&lock(name)));
        // Sending fails for those that have ended already.
        meant.filter(|(_, end)| end.send(true).is_ok()).count()
    }

    /// Refuses new connections, as when nothing listens.
    pub async fn refuse(&mut self) {
        if let Some(accepting) = self.accepting.take() {
            accepting.abort();
            let _ = accepting.await;
        }
    }

    /// Accepts connections again.
    pub async fn admit(&mut self) {
        if self.accepting.is_none() {
            let listener = TcpListener::bind(("127.0.0.1", self.port)).await.unwrap();
            self.accept(listener);
        }
    }

    fn accept(&mut self, listener: TcpListener) {
        let (server, shared) = (self.server.clone(), Arc::clone(&self.shared));
        self.accepting = Some(tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let name = Connection::default();
                let (end, ends) = watch::channel(false);
                let mut rules = shared.lock();
                rules.connections.retain(|(_, end)| !end.is_closed());
                rules.connections.push((Arc::clone(&name), end));
                drop(rules);
                tokio::spawn(carry(client, server.clone(), Arc::clone(&shared), name, ends));
            }
        }));
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.cut();
        if let Some(accepting) = &self.accepting {
            accepting.abort();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Rules> {
        lock(&self.0)
    }

    fn weather(&self, name: &Connection) -> Weather {
        let rules = self.lock();
        rules.by_name.get(&*lock(name)).copied().unwrap_or(rules.everywhere)
    }

    /// The cut that is due for a connection that is about to commit.
    fn take_cut(&self, name: &Connection) -> Option<CutAt> {
        let mut rules = self.lock();
        let cut = rules.cuts.remove(&*lock(name))?;
        rules.cuts_done += 1;
        Some(cut)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One connection, until it ends or is ended. Dropped sockets are closed.
async fn carry(
    client: TcpStream,
    server: Config,
    shared: Arc<Shared>,
    name: Connection,
    mut ends: watch::Receiver<bool>,
) {
    // Small pieces are to travel as they are.
    let _ = client.set_nodelay(true);
    let port = server.get_ports().first().copied().unwrap_or(5432);
    let carried = async {
        match &server.get_hosts()[0] {
            Host::Unix(dir) => {
                let server = UnixStream::connect(dir.join(format!(".s.PGSQL.{port}"))).await?;
                pump_both(client.into_split(), server.into_split(), &shared, &name).await
            }
            Host::Tcp(host) => {
                let server = TcpStream::connect((host.as_str(), port)).await?;
                pump_both(client.into_split(), server.into_split(), &shared, &name).await
            }
        }
    };
    tokio::select! {
        // Whoever lost a connection sees that it ended.
        _ = carried => {}
        _ = ends.wait_for(|&end| end) => {}
    }
}

async fn pump_both(
    (mut from_client, mut to_client): (impl AsyncRead + Unpin, impl AsyncWrite + Unpin),
    (mut from_server, mut to_server): (impl AsyncRead + Unpin, impl AsyncWrite + Unpin),
    shared: &Shared,
    name: &Connection,
) -> io::Result<()> {
    // Once the reply to a COMMIT is to be lost, the next bytes of the server end the connection.
    let mute = Mutex::new(false);
    let up = async {
        let mut messages = Messages::default();
        loop {
            let piece = read_piece(&mut from_client, shared, name).await?;
            if let Some(told) = messages.take(&piece) {
                *lock(name) = told;
            }
            while let Some(message) = messages.next() {
                let cut = is_commit(&message).then(|| shared.take_cut(name)).flatten();
                match cut {
                    Some(CutAt::BeforeCommit) => return Ok(()),
                    Some(CutAt::AfterCommit) => *lock(&mute) = true,
                    None => {}
                }
                write_piece(&mut to_server, &message, shared, name).await?;
            }
        }
    };
    let down = async {
        let mut notifications = Notifications::default();
        loop {
            let mut piece = read_piece(&mut from_server, shared, name).await?;
            if *lock(&mute) {
                return Ok(());
            }
            let kept = notifications.without(&piece);
            if shared.weather(name) == Weather::Deaf {
                piece = kept;
            }
            write_piece(&mut to_client, &piece, shared, name).await?;
        }
    };
    tokio::select! {
        ended = up => ended,
        ended = down => ended,
    }
}

/// The next bytes. Never returns once bytes, or the end, came in a black hole.
async fn read_piece(from: &mut (impl AsyncRead + Unpin), shared: &Shared, name: &Connection) -> io::Result<Vec<u8>> {
    let mut piece = vec![0; 16 << 10];
    let read = from.read(&mut piece).await;
    if shared.weather(name) == Weather::BlackHole {
        // Taken from the sender and gone, so that it does not even see a full buffer.
        while from.read(&mut piece).await.is_ok_and(|bytes| bytes > 0) {}
        return std::future::pending().await;
    }
    match read? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        bytes => {
            piece.truncate(bytes);
            Ok(piece)
        }
    }
}

async fn write_piece(
    to: &mut (impl AsyncWrite + Unpin),
    piece: &[u8],
    shared: &Shared,
    name: &Connection,
) -> io::Result<()> {
    match shared.weather(name) {
        Weather::Clear | Weather::Deaf => to.write_all(piece).await,
        Weather::BlackHole => std::future::pending().await,
        Weather::Slow(delay) => {
            tokio::time::sleep(delay + delay.mul_f64(fastrand::f64())).await;
            to.write_all(piece).await
        }
        Weather::Crumbs => {
            for byte in piece {
                to.write_all(std::slice::from_ref(byte)).await?;
                to.flush().await?;
                tokio::task::yield_now().await;
            }
            Ok(())
        }
    }
}
