//! A Postgres server for tests, on a unix socket. It is the program's own private Postgres, in a thread with a runtime of
//! its own: the runtime of the test that needed it first may end before the others are done.

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;

use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio_postgres::Config;
use uptally::cluster::{ClusterOptions, PrivateCluster};

use super::state_dir;

/// A server and its files; both go with the value.
pub struct Server {
    options: ClusterOptions,
    running: Option<Running>,
    connection: Config,
    url: String,
    /// Where its files are.
    state: PathBuf,
    /// The same, if they are to go with it.
    _temporary: Option<TempDir>,
}

struct Running {
    /// Dropped, it ends the server.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// The server that the tests of this process share. It lives as long as one of them uses it.
    pub fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<Server>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let server = Arc::new(Server::start(&[]));
            *shared = Arc::downgrade(&server);
            server
        })
    }

    /// A new server with settings of Postgres, name and value.
    pub fn start(settings: &[(&str, &str)]) -> Self {
        let state = state_dir();
        let server = Self::start_in(state.path(), settings);
        Server {
            _temporary: Some(state),
            ..server
        }
    }

    /// The same with its files in a directory that is there and stays.
    pub fn start_in(state_dir: &Path, settings: &[(&str, &str)]) -> Self {
        let own = settings
            .iter()
            .map(|&(name, value)| (name.to_owned(), value.to_owned()));
        let options = ClusterOptions {
            durable: false,
            guard_program: Some(PathBuf::from(env!("CARGO_BIN_EXE_uptally"))),
            settings: own.collect(),
            ..ClusterOptions::new(state_dir)
        };
        let (running, connection, url) = run(options.clone());
        Server {
            options,
            running: Some(running),
            connection,
            url,
            state: state_dir.to_owned(),
            _temporary: None,
        }
    }

    /// Its directory goes with it.
    pub fn keeping(self, state: TempDir) -> Self {
        Server {
            _temporary: Some(state),
            ..self
        }
    }

    /// Ends it in order.
    pub fn down(&mut self) {
        self.running = None;
    }

    /// Starts it again, with the same data in the same place.
    pub fn up(&mut self) {
        self.running = Some(run(self.options.clone()).0);
    }

    /// To its first database.
    pub fn connection(&self) -> &Config {
        &self.connection
    }

    /// To one of its databases.
    pub fn url(&self, database: &str) -> String {
        let (server, _) = self.url.rsplit_once('/').unwrap();
        format!("{server}/{database}")
    }

    pub fn state_dir(&self) -> &Path {
        &self.state
    }
}

fn run(options: ClusterOptions) -> (Running, Config, String) {
    let (stop, stopped) = oneshot::channel();
    let (ready, is_ready) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let cluster = PrivateCluster::start(options).await.unwrap();
            ready.send((cluster.connection().clone(), cluster.url())).unwrap();
            // An error is the order to end.
            let _ = stopped.await;
            cluster.stop().await.unwrap();
        });
    });
    let (connection, url) = is_ready.recv().expect("Postgres starts");
    let running = Running {
        stop: Some(stop),
        thread: Some(thread),
    };
    (running, connection, url)
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
