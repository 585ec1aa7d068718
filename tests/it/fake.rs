//! A server for tests that is strict about what it is sent: a closure answers each request, and where an assertion in
//! it fails, the test fails. It can also hang, cut a reply, and speak TLS.

use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// HTTP/1.1 on loopback, on threads of its own, until it is dropped.
pub(crate) struct Fake {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    answer: Box<dyn Fn(&Asked) -> Reply + Send + Sync>,
    tls: Option<Arc<rustls::ServerConfig>>,
    asked: Mutex<Vec<Asked>>,
    complaint: Mutex<Option<String>>,
    left: AtomicUsize,
    is_over: AtomicBool,
}

/// What a client asked.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: String,
    /// Without the query; escapes as they came.
    pub(crate) path: String,
    /// Decoded, in their order.
    pub(crate) query: Vec<(String, String)>,
    /// Names in lower case.
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Asked {
    pub(crate) fn line(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The one value of an argument; none where it was not given or came twice.
    pub(crate) fn argument(&self, name: &str) -> Option<&str> {
        let mut values = self.query.iter().filter(|(known, _)| known == name).map(|(_, value)| value);
        values.next().filter(|_| values.next().is_none()).map(String::as_str)
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{}: the body is no JSON: {error}", self.line()))
    }
}

/// What is answered.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// How much of the body is sent, and what then happens.
    until: Option<(usize, End)>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Cut,
    Hang,
}

impl Reply {
    pub(crate) fn new(status: u16, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        let headers = vec![("content-type".to_owned(), content_type.to_owned())];
        Self { status, headers, body: body.into(), until: None }
    }

    pub(crate) fn json(status: u16, body: &serde_json::Value) -> Self {
        Self::new(status, "application/json", body.to_string())
    }

    pub(crate) fn text(status: u16, body: &str) -> Self {
        Self::new(status, "text/plain; charset=utf-8", body)
    }

    /// A reply of a real server as `curl -i` recorded it: a line `# curl ...`, status, headers, an empty line, body.
    pub(crate) fn recorded(file: &str) -> Self {
        let file = data(file);
        let text =
            std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let text = text.replace('\r', "");
        let (_, text) = text.split_once("HTTP/1.1 ").unwrap();
        let (head, body) = text.split_once("\n\n").unwrap();
        let content_type = head.lines().find_map(|line| line.strip_prefix("Content-Type: "));
        let status = head.split(' ').next().unwrap().parse().unwrap();
        Self::new(status, content_type.unwrap_or("text/plain").trim(), body)
    }

    /// Bytes of the body.
    pub(crate) fn len(&self) -> usize {
        self.body.len()
    }

    /// Says nothing at all until the client leaves.
    pub(crate) fn hang() -> Self {
        Self { until: Some((0, End::Hang)), ..Self::text(0, "") }
    }

    /// Closes the connection without a word.
    pub(crate) fn cut() -> Self {
        Self { until: Some((0, End::Cut)), ..Self::text(0, "") }
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Promises the whole body, sends `bytes` of it and closes the connection.
    pub(crate) fn cut_after(self, bytes: usize) -> Self {
        Self { until: Some((bytes, End::Cut)), ..self }
    }

    /// Promises the whole body, sends `bytes` of it and then nothing until the client leaves.
    pub(crate) fn hang_after(self, bytes: usize) -> Self {
        Self { until: Some((bytes, End::Hang)), ..self }
    }
}

/// A file of `tests/data`.
pub(crate) fn data(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(file)
}

impl Fake {
    pub(crate) fn start(answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        Self::listen(None, Box::new(answer))
    }

    /// Over TLS, as `tests/data/tls/NAME.pem`: `self-signed`, or `signed` by `authority.pem`.
    pub(crate) fn start_tls(name: &str, answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        let chain = vec![CertificateDer::from_pem_file(data(&format!("tls/{name}.pem"))).unwrap()];
        let key = PrivateKeyDer::from_pem_file(data(&format!("tls/{name}.key"))).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        Self::listen(Some(Arc::new(config)), Box::new(answer))
    }

    fn listen(
        tls: Option<Arc<rustls::ServerConfig>>,
        answer: Box<dyn Fn(&Asked) -> Reply + Send + Sync>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            answer,
            tls,
            asked: Mutex::default(),
            complaint: Mutex::default(),
            left: AtomicUsize::new(0),
            is_over: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if accepting.is_over.load(Ordering::SeqCst) {
                    return;
                }
                let shared = Arc::clone(&accepting);
                std::thread::spawn(move || shared.serve(stream));
            }
        });
        Self { address, shared }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:PORT`, or `https://...`.
    pub(crate) fn url(&self) -> String {
        let scheme = if self.shared.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.shared.asked.lock().unwrap().clone()
    }

    /// How many clients left while they waited for (the rest of) an answer that hangs.
    pub(crate) fn left(&self) -> usize {
        self.shared.left.load(Ordering::SeqCst)
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.address)); // Wakes the thread that accepts.
        let complaint = self.shared.complaint.lock().unwrap().take();
        if let Some(complaint) = complaint.filter(|_| !std::thread::panicking()) {
            panic!("the fake server was asked what it does not expect: {complaint}");
        }
    }
}

trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

impl Shared {
    fn serve(&self, stream: TcpStream) {
        let mut stream: BufReader<Box<dyn Stream>> = match &self.tls {
            None => BufReader::new(Box::new(stream)),
            Some(config) => {
                let session = rustls::ServerConnection::new(Arc::clone(config)).unwrap();
                BufReader::new(Box::new(rustls::StreamOwned::new(session, stream)))
            }
        };
        // Until the client closes, also because it does not trust the certificate.
        while let Some(asked) = read(&mut stream) {
            self.asked.lock().unwrap().push(asked.clone());
            let answer = catch_unwind(AssertUnwindSafe(|| (self.answer)(&asked)));
            let reply = answer.unwrap_or_else(|panic| {
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                let text = format!("{}: {}", asked.line(), text.unwrap_or_default());
                self.complaint.lock().unwrap().get_or_insert(text);
                Reply::text(500, "the fake server was asked what it does not expect")
            });
            if write(stream.get_mut(), &reply).is_none() {
                return;
            }
            match reply.until {
                Some((_, End::Cut)) => return,
                Some((_, End::Hang)) => {
                    // A client that waits says nothing more.
                    if stream.read(&mut [0]).map_or(true, |bytes| bytes == 0) {
                        self.left.fetch_add(1, Ordering::SeqCst);
                    }
                    return;
                }
                None => {}
            }
        }
    }
}

fn read(stream: &mut impl std::io::BufRead) -> Option<Asked> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let mut lines = head.lines();
    let mut first = lines.next()?.split(' ');
    let (method, target) = (first.next()?.to_owned(), first.next()?);
    let url = reqwest::Url::parse("http://fake").ok()?.join(target).ok()?;
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let mut asked = Asked {
        method,
        path: url.path().to_owned(),
        query: url.query_pairs().into_owned().collect(),
        headers,
        body: Vec::new(),
    };
    let length = asked.header("content-length").map_or(0, |length| length.parse().unwrap());
    asked.body.resize(length, 0);
    stream.read_exact(&mut asked.body).ok()?;
    Some(asked)
}

fn write(stream: &mut dyn Stream, reply: &Reply) -> Option<()> {
    if reply.status > 0 {
        let mut head = format!("HTTP/1.1 {} X\r\ncontent-length: {}\r\n", reply.status, reply.body.len());
        for (name, value) in &reply.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        stream.write_all(format!("{head}\r\n").as_bytes()).ok()?;
        let end = reply.until.map_or(reply.body.len(), |(bytes, _)| bytes.min(reply.body.len()));
        stream.write_all(&reply.body[..end]).ok()?;
    }
    stream.flush().ok()
}

#[test]
fn a_client_that_does_not_wait_any_longer_is_counted() {
    let fake = Fake::start(|_| Reply::text(200, "12345").hang_after(2));
    let mut client = TcpStream::connect(fake.address()).unwrap();
    client.write_all(b"GET /a?b=%26c HTTP/1.1\r\nx: y\r\n\r\n").unwrap();
    let mut said = Vec::new();
    while !said.ends_with(b"\r\n\r\n12") {
        said.push(0);
        let end = said.len() - 1;
        client.read_exact(&mut said[end..]).unwrap();
    }
    assert_eq!(fake.left(), 0);
    drop(client);
    while fake.left() == 0 {
        std::thread::yield_now();
    }
    let asked = fake.asked();
    assert_eq!((asked[0].line().as_str(), asked[0].argument("b")), ("GET /a", Some("&c")));
    assert_eq!(asked[0].header("x"), Some("y"));
}

#[test]
#[should_panic(expected = "only /a is here")]
fn a_request_that_is_not_expected_fails_the_test() {
    let fake = Fake::start(|asked| {
        assert_eq!(asked.path, "/a", "only /a is here");
        Reply::text(200, "")
    });
    let mut client = TcpStream::connect(fake.address()).unwrap();
    client.write_all(b"GET /b HTTP/1.1\r\n\r\n").unwrap();
    let mut said = [0; 12];
    client.read_exact(&mut said).unwrap();
    assert_eq!(&said, b"HTTP/1.1 500");
}
