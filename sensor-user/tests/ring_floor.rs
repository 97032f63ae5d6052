//! The benchmark's reader of the ring (`examples/ring_floor.rs`) sees every request of a real connection, however much it
//! does with it. Without the privileges the test says so and passes.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test may fail where it stands, and says what it left out"
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};

use sensor_user::capture::ebpf::{Status, probe};

const REQUESTS: usize = 5;
const ASK: &[u8] = b"GET /orders/7 HTTP/1.1\r\nHost: shop\r\nAuthorization: Bearer abc.def.ghi\r\n\r\n";
const ANSWER: &[u8] = b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno";

fn send(from: &mut TcpStream, bytes: &[u8], to: &mut TcpStream) {
    from.write_all(bytes).unwrap();
    to.read_exact(&mut vec![0; bytes.len()]).unwrap();
}

/// What it says of five requests.
fn read(work: &str) -> Vec<String> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_tokenscope")).with_file_name("examples/ring_floor");
    let mut reader = Command::new(program)
        .args([work, &address.port().to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut says = BufReader::new(reader.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(says.next().as_deref(), Some("watching"), "{work}");
    let mut client = TcpStream::connect(address).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    for _ in 0..REQUESTS {
        send(&mut client, ASK, &mut server);
        send(&mut server, ANSWER, &mut client);
    }
    drop(reader.stdin.take());
    let said = says.collect();
    assert!(reader.wait().unwrap().success());
    said
}

#[test]
fn each_way_of_reading_sees_every_request() {
    if let Some(check) = probe(None).into_iter().find(|check| check.status == Status::Fail) {
        eprintln!("SKIPPED the reader of the ring: {}: {} ({})", check.name, check.found, check.remedy);
        return;
    }
    assert_eq!(read("plain"), ["5"]);
    assert_eq!(read("drain"), ["5"]);
    assert_eq!(read("copy"), ["5"]);
    assert_eq!(read("read"), ["5", "1 tokens, 5 uses, 5 answers, 5 failures"]);
}
