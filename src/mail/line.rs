//! The connection to a relay, as far as it is not SMTP's dialogue: TCP, TLS from the first byte, or TLS after the few
//! words that ask for it.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use lettre::transport::smtp::client::AsyncTokioStream;
use lettre::transport::smtp::extension::ClientId;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader, ReadBuf,
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::Security;

/// A connection on which the relay's greeting is the next that is read.
#[derive(Debug)]
pub(super) struct Line {
    stream: Stream,
    /// Read before the stream.
    ahead: &'static [u8],
}

#[derive(Debug)]
enum Stream {
    Clear(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

pub(super) enum Failed {
    Io(String),
    Refused(u16, String),
    NoStartTls,
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self::Io(error.to_string())
    }
}

impl Line {
    pub(super) async fn open(
        host: &str,
        port: u16,
        security: Security,
        name: &ServerName<'static>,
        tls: &Arc<ClientConfig>,
    ) -> Result<Self, Failed> {
        let tcp = TcpStream::connect((host, port)).await?;
        tcp.set_nodelay(true)?;
        let (stream, ahead): (_, &'static [u8]) = match security {
            Security::None => (Stream::Clear(tcp), b""),
            Security::Tls => (secure(tcp, name, tls).await?, b""),
            Security::StartTls => {
                let tcp = start_tls(tcp).await?;
                // After STARTTLS a relay does not greet again, which lettre waits for.
                (secure(tcp, name, tls).await?, b"220 go on\r\n")
            }
        };
        Ok(Self { stream, ahead })
    }

    /// What we call ourselves: our address, since a name would have to be one that the relay finds.
    pub(super) fn own_name(&self) -> ClientId {
        match self.tcp().local_addr() {
            Ok(SocketAddr::V4(address)) => ClientId::Ipv4(*address.ip()),
            Ok(SocketAddr::V6(address)) => ClientId::Ipv6(*address.ip()),
            Err(_) => ClientId::default(),
        }
    }

    fn tcp(&self) -> &TcpStream {
        match &self.stream {
            Stream::Clear(tcp) => tcp,
            Stream::Tls(tls) => tls.get_ref().0,
        }
    }
}

async fn secure(
    tcp: TcpStream,
    name: &ServerName<'static>,
    tls: &Arc<ClientConfig>,
) -> Result<Stream, Failed> {
    let stream = TlsConnector::from(Arc::clone(tls)).connect(name.clone(), tcp).await?;
    Ok(Stream::Tls(Box::new(stream)))
}

/// RFC 3207, up to the relay's word that TLS may begin.
async fn start_tls(tcp: TcpStream) -> Result<TcpStream, Failed> {
    let own = tcp.local_addr()?.ip();
    let own = if own.is_ipv4() { format!("[{own}]") } else { format!("[IPv6:{own}]") };
    let mut stream = BufReader::new(tcp);
    reply(&mut stream).await?;
    stream.write_all(format!("EHLO {own}\r\n").as_bytes()).await?;
    let offered = reply(&mut stream).await?;
    if !offered.iter().any(|line| line.eq_ignore_ascii_case("STARTTLS")) {
        return Err(Failed::NoStartTls);
    }
    stream.write_all(b"STARTTLS\r\n").await?;
    reply(&mut stream).await?;
    // Somebody on the way could put words here, which would be taken for the relay's own after TLS has begun.
    if !stream.buffer().is_empty() {
        return Err(Failed::Io("it said more than it should before TLS".into()));
    }
    Ok(stream.into_inner())
}

/// The texts of a reply of 2xx.
async fn reply(stream: &mut BufReader<TcpStream>) -> Result<Vec<String>, Failed> {
    let mut texts = Vec::new();
    loop {
        let mut line = Vec::new();
        let read = (&mut *stream).take(MAX_LINE_BYTES).read_until(b'\n', &mut line).await?;
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        let code = line.get(..3).and_then(|code| code.parse::<u16>().ok()).filter(|code| *code >= 200);
        let Some(code) = code.filter(|_| texts.len() < MAX_LINES) else {
            return Err(Failed::Io(match read {
                0 => "it closed the connection".into(),
                _ => "what answers there is no mail server".into(),
            }));
        };
        texts.push(line.get(4..).unwrap_or_default().to_owned());
        if line.as_bytes().get(3) == Some(&b'-') {
            continue;
        }
        return if code < 300 { Ok(texts) } else { Err(Failed::Refused(code, texts.join(" "))) };
    }
}

impl AsyncTokioStream for Line {
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.tcp().peer_addr()
    }
}

impl AsyncRead for Line {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.ahead.is_empty() {
            let (now, later) = self.ahead.split_at(self.ahead.len().min(buffer.remaining()));
            buffer.put_slice(now);
            self.ahead = later;
            return Poll::Ready(Ok(()));
        }
        match &mut self.stream {
            Stream::Clear(tcp) => Pin::new(tcp).poll_read(cx, buffer),
            Stream::Tls(tls) => Pin::new(tls.as_mut()).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Line {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Clear(tcp) => Pin::new(tcp).poll_write(cx, bytes),
            Stream::Tls(tls) => Pin::new(tls.as_mut()).poll_write(cx, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Clear(tcp) => Pin::new(tcp).poll_flush(cx),
            Stream::Tls(tls) => Pin::new(tls.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Clear(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Stream::Tls(tls) => Pin::new(tls.as_mut()).poll_shutdown(cx),
        }
    }
}

/// RFC 5321 allows 512.
const MAX_LINE_BYTES: u64 = 2_048;
const MAX_LINES: usize = 100;
