//! A TCP proxy in front of a real server that cuts connections, goes away and comes back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    target: String,
    is_up: AtomicBool,
    open: AtomicUsize,
    /// The most that were open at one time.
    most: AtomicUsize,
    /// Bytes of the server that a connection passes on; then it is cut.
    passed: AtomicUsize,
    /// Changes when all connections are to be cut.
    cut: watch::Sender<()>,
}

impl Proxy {
    /// In front of `target`, `host:port`.
    pub(crate) async fn start(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            target: target.to_owned(),
            is_up: AtomicBool::new(true),
            open: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
            passed: AtomicUsize::new(usize::MAX),
            cut: watch::channel(()).0,
        });
        let serving = shared.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if serving.is_up.load(Ordering::SeqCst) {
                    let serving = serving.clone();
                    let open = serving.open.fetch_add(1, Ordering::SeqCst) + 1;
                    serving.most.fetch_max(open, Ordering::SeqCst);
                    tokio::spawn(async move {
                        pass(client, &serving).await;
                        serving.open.fetch_sub(1, Ordering::SeqCst);
                    });
                }
            }
        });
        Self { address, shared }
    }

    /// From now on each connection is cut after so many bytes of the server.
    pub(crate) fn cut_after(&self, bytes: usize) {
        self.shared.passed.store(bytes, Ordering::SeqCst);
    }

    /// The most connections that were open at one time.
    pub(crate) fn most(&self) -> usize {
        self.shared.most.load(Ordering::SeqCst)
    }

    /// Cuts all connections and takes no more.
    pub(crate) fn go_away(&self) {
        self.shared.is_up.store(false, Ordering::SeqCst);
        self.shared.cut.send_replace(());
    }

    pub(crate) fn come_back(&self) {
        self.shared.is_up.store(true, Ordering::SeqCst);
    }
}

async fn pass(mut client: TcpStream, shared: &Shared) {
    let mut cut = shared.cut.subscribe();
    let Ok(mut server) = TcpStream::connect(&shared.target).await else { return };
    let (mut from_client, mut from_server) = ([0; 16 << 10], [0; 16 << 10]);
    let mut passed = 0;
    loop {
        tokio::select! {
            read = client.read(&mut from_client) => match read {
                Ok(1..) if server.write_all(&from_client[..read.unwrap()]).await.is_ok() => {}
                _ => return,
            },
            read = server.read(&mut from_server) => {
                let Ok(read @ 1..) = read else { return };
                let left = shared.passed.load(Ordering::SeqCst).saturating_sub(passed).min(read);
                if client.write_all(&from_server[..left]).await.is_err() || left < read {
                    return;
                }
                passed += read;
            },
            _ = cut.changed() => return,
        }
    }
}
