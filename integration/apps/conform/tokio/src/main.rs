//! What a Rust program does with sockets by tokio, one line of output for each thing: "ROW/CHECK: RESULT".
//! integration/matrix_test.go has the results that are wanted. Arguments: the port of a TCP and of a UDP server of the
//! laptop, and a port below 1024 of its own.

use std::future::Future;
use std::io::{Error, ErrorKind, Result};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{lookup_host, TcpListener, TcpStream, UdpSocket};

const POD: &str = "192.0.2.10";
const LEDGER: &str = "198.51.100.22";
const PATIENCE: Duration = Duration::from_secs(30);

/// Says what f returns, or the errno that it fails by.
async fn attempt(check: &str, f: impl Future<Output = Result<String>>) {
    let result = match tokio::time::timeout(PATIENCE, f).await {
        Ok(Ok(text)) => text,
        Ok(Err(e)) => match e.raw_os_error() {
            Some(111) => "ECONNREFUSED".into(),
            Some(113) => "EHOSTUNREACH".into(),
            Some(98) => "EADDRINUSE".into(),
            _ => e.to_string(),
        },
        Err(_) => "nothing happens".into(),
    };
    println!("{check}: {result}");
}

async fn hear(mut c: TcpStream) -> Result<String> {
    let mut said = String::new();
    c.read_to_string(&mut said).await?;
    Ok(said.trim().into())
}

async fn call(addr: String) -> Result<String> {
    hear(TcpStream::connect(addr).await?).await
}

async fn echo(i: usize) -> Result<bool> {
    let mut c = TcpStream::connect("ledger:7").await?;
    let text = format!("number {i}");
    c.write_all(text.as_bytes()).await?;
    c.shutdown().await?;
    Ok(hear(c).await? == text)
}

async fn parallel() -> Result<String> {
    let calls: Vec<_> = (0..50).map(|i| tokio::spawn(echo(i))).collect();
    let mut good = 0;
    for c in calls {
        good += c.await?? as usize;
    }
    Ok(format!("{good} of 50"))
}

async fn name() -> Result<String> {
    let mut found = lookup_host("orders:80").await?;
    found.next().map(|a| a.ip().to_string()).ok_or_else(|| Error::from(ErrorKind::NotFound))
}

async fn reply(s: &UdpSocket) -> Result<String> {
    let mut room = [0; 100];
    let n = s.recv(&mut room).await?;
    Ok(String::from_utf8_lossy(&room[..n]).into())
}

async fn connected() -> Result<String> {
    let s = UdpSocket::bind("0.0.0.0:0").await?;
    s.connect((LEDGER, 7)).await?;
    s.send(b"hi").await?;
    reply(&s).await
}

async fn both(port: u16) -> Result<String> {
    let s = UdpSocket::bind("0.0.0.0:0").await?;
    s.send_to(b"far", (LEDGER, 7)).await?;
    let far = reply(&s).await?;
    s.send_to(b"near", ("127.0.0.1", port)).await?;
    Ok(format!("{far}, {}", reply(&s).await?))
}

/// Tells the test where to connect to, and greets it.
async fn welcome(check: &str, addr: &str) -> Result<String> {
    let l = TcpListener::bind(addr).await?;
    println!("{check}: at {}", l.local_addr()?.port());
    l.accept().await?.0.write_all(b"hello").await?;
    Ok("greeted".into())
}

/// Listens, and connects to itself.
async fn own(port: u16) -> Result<String> {
    let l = TcpListener::bind((POD, port)).await?;
    let peer = TcpStream::connect(l.local_addr()?).await?;
    l.accept().await?.0.write_all(b"hello").await?;
    hear(peer).await
}

async fn in_use() -> Result<String> {
    let l = TcpListener::bind("127.0.0.1:0").await?;
    TcpListener::bind(l.local_addr()?).await?;
    Ok("ok".into())
}

async fn own_address() -> Result<String> {
    Ok(TcpStream::connect((LEDGER, 7)).await?.local_addr()?.ip().to_string())
}

async fn seen() -> Result<String> {
    Ok(call(format!("{LEDGER}:11")).await?.split(':').next().unwrap_or("").into())
}

fn main() -> Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(all());
    Ok(())
}

async fn all() {
    let ports: Vec<u16> = std::env::args().skip(1).map(|a| a.parse().expect("a port")).collect();
    let (tcp, udp, low) = (ports[0], ports[1], ports[2]);
    attempt("tcp/50", parallel()).await;
    attempt("names/libc", name()).await;
    attempt("udp/connected", connected()).await;
    attempt("udp/both", both(udp)).await;
    for (check, host) in [("127.0.0.1", "127.0.0.1"), ("localhost", "localhost"), ("::1", "[::1]"), ("mapped", "[::ffff:127.0.0.1]")] {
        attempt(&format!("local/{check}"), call(format!("{host}:{tcp}"))).await;
    }
    for (check, addr) in [("127.0.0.1", "127.0.0.1:0"), ("0.0.0.0", "0.0.0.0:0"), ("::", "[::]:0")] {
        let check = format!("listen/{check}");
        attempt(&check, welcome(&check, addr)).await;
    }
    attempt("listen/pod", own(0)).await;
    attempt("listen/low", own(low)).await;
    attempt("source/own", own_address()).await;
    attempt("source/seen", seen()).await;
    attempt("errors/in use", in_use()).await;
    attempt("errors/refused", call(format!("{LEDGER}:81"))).await;
    attempt("errors/refused here", call("127.0.0.1:1".into())).await;
    attempt("errors/unreachable", call("203.0.113.2:80".into())).await;
}
