//! A receiver of webhooks that answers by script. Speaks HTTP/1.1 by hand, so that it can also hang, cut the
//! connection, and never stop talking.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Status(u16),
    /// Status, header lines and body.
    Full(u16, &'static str, &'static str),
    /// Takes the request and says nothing.
    Hang,
    /// Takes the request and closes.
    Cut,
    /// `400` with a body without end.
    Endless,
}

#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: serde_json::Value,
}

#[derive(Clone)]
pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    script: Mutex<VecDeque<Answer>>,
    otherwise: Mutex<Answer>,
    received: Mutex<Vec<Received>>,
}

impl Receiver {
    /// Answers `script` in order, and 200 after it.
    pub(crate) async fn start(script: impl IntoIterator<Item = Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            script: Mutex::new(script.into_iter().collect()),
            otherwise: Mutex::new(Answer::Status(200)),
            received: Mutex::default(),
        });
        let receiver = Self { address, shared };
        let accepting = receiver.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(accepting.clone().serve(stream));
            }
        });
        receiver
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/alerts", self.address)
    }

    /// What is answered when the script has ended.
    pub(crate) fn answer_from_now_on(&self, answer: Answer) {
        *self.shared.otherwise.lock().unwrap() = answer;
    }

    pub(crate) fn received(&self) -> Vec<Received> {
        self.shared.received.lock().unwrap().clone()
    }

    async fn serve(self, mut stream: TcpStream) -> Option<()> {
        let received = read(&mut stream).await?;
        self.shared.received.lock().unwrap().push(received);
        let next = self.shared.script.lock().unwrap().pop_front();
        let answer = next.unwrap_or_else(|| self.shared.otherwise.lock().unwrap().clone());
        match answer {
            Answer::Status(status) => respond(&mut stream, status, "", "").await,
            Answer::Full(status, headers, body) => respond(&mut stream, status, headers, body).await,
            Answer::Cut => Some(()),
            Answer::Hang => {
                // Until the other side gives up.
                stream.read_u8().await.ok().map(drop)
            }
            Answer::Endless => {
                stream.write_all(b"HTTP/1.1 400 No\r\nconnection: close\r\n\r\n").await.ok()?;
                loop {
                    stream.write_all(&[b'x'; 4096]).await.ok()?;
                }
            }
        }
    }
}

async fn read(stream: &mut TcpStream) -> Option<Received> {
    let mut bytes = Vec::new();
    let head_end = loop {
        if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        bytes.push(stream.read_u8().await.ok()?);
    };
    let head = String::from_utf8(bytes[..head_end].to_vec()).unwrap();
    let headers: HashMap<String, String> = head
        .lines()
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let mut body = vec![0; headers["content-length"].parse().unwrap()];
    stream.read_exact(&mut body).await.ok()?;
    Some(Received { headers, body: serde_json::from_slice(&body).unwrap() })
}

async fn respond(stream: &mut TcpStream, status: u16, headers: &str, body: &str) -> Option<()> {
    let length = body.len();
    let answer = format!(
        "HTTP/1.1 {status} X\r\n{headers}content-length: {length}\r\nconnection: close\r\n\r\n{body}"
    );
    stream.write_all(answer.as_bytes()).await.ok()
}
