//! A server of the test's own, for what no sample service does: it says what it is told to, whatever it is asked.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use anyhow::Result;

/// What a connection's thread does with it.
pub type Script = fn(&mut TcpStream) -> std::io::Result<()>;

/// Listens on a free port of loopback and runs the script on each connection, in a thread of its own. The threads
/// end with their connections, the listener with the test's process.
///
/// # Errors
/// When loopback has no free port.
pub fn listen(script: Script) -> Result<SocketAddr> {
    listen_at(0, script)
}

/// The same on a port of the caller's choice.
///
/// # Errors
/// When the port is in use.
pub fn listen_at(port: u16, script: Script) -> Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || script(&mut stream));
        }
    });
    Ok(address)
}

/// Reads until a head ends; returns everything read, or nothing once the client has hung up.
///
/// # Errors
/// When the connection breaks.
pub fn head(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut read = Vec::new();
    let mut byte = [0; 1];
    while !read.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte)? == 0 {
            return Ok(Vec::new());
        }
        read.extend_from_slice(&byte);
    }
    Ok(read)
}

/// Refuses every request with 401 and a chunked body.
///
/// # Errors
/// When the connection breaks.
pub fn refuse_in_chunks(stream: &mut TcpStream) -> std::io::Result<()> {
    while !head(stream)?.is_empty() {
        stream.write_all(
            b"HTTP/1.1 401 Unauthorized\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nno\n\r\n0\r\n\r\n",
        )?;
    }
    Ok(())
}

/// Reads whatever comes and never answers.
///
/// # Errors
/// When the connection breaks.
pub fn swallow(stream: &mut TcpStream) -> std::io::Result<()> {
    let mut buffer = [0; 16 * 1024];
    while stream.read(&mut buffer)? > 0 {}
    Ok(())
}

/// Answers any request with a redirect to itself.
///
/// # Errors
/// When the connection breaks.
pub fn redirect(stream: &mut TcpStream) -> std::io::Result<()> {
    while !head(stream)?.is_empty() {
        stream.write_all(b"HTTP/1.1 302 Found\r\nLocation: /again\r\nContent-Length: 0\r\n\r\n")?;
    }
    Ok(())
}

/// Answers any request with 100 MB of blanks.
///
/// # Errors
/// When the connection breaks.
pub fn flood(stream: &mut TcpStream) -> std::io::Result<()> {
    head(stream)?;
    stream.write_all(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 104857600\r\n\r\n",
    )?;
    let blanks = vec![b' '; 1 << 20];
    for _ in 0..100 {
        stream.write_all(&blanks)?;
    }
    Ok(())
}

/// Answers any request with something that is no JWKS.
///
/// # Errors
/// When the connection breaks.
pub fn lie(stream: &mut TcpStream) -> std::io::Result<()> {
    while !head(stream)?.is_empty() {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 14\r\n\r\n{\"keys\":\"none\"")?;
    }
    Ok(())
}
