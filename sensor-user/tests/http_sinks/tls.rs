//! TLS with authorities of one's own, client certificates, and a proxy on the way.

use std::path::Path;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig, crypto};

use crate::process::run;
use crate::receiver::{Request, Script, ok, serve};
use crate::setup::{alerts, deliver, done, later, sink};

/// An authority, a server's certificate for localhost and 127.0.0.1, and a client's.
fn certificates(dir: &Path) {
    let key = ["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out"];
    for name in ["ca", "server", "client", "other"] {
        run(dir, "openssl", &[&key[..], &[&format!("{name}.key")]].concat());
    }
    for name in ["ca", "other"] {
        let (key, subject, out) = (format!("{name}.key"), format!("/CN={name}"), format!("{name}.pem"));
        let usage = "keyUsage=critical,keyCertSign,cRLSign";
        run(
            dir,
            "openssl",
            &[
                "req", "-x509", "-new", "-key", &key, "-subj", &subject, "-days", "2", "-addext", usage,
                "-out", &out,
            ],
        );
    }
    std::fs::write(
        dir.join("server.ext"),
        "subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth\n",
    )
    .unwrap();
    std::fs::write(dir.join("client.ext"), "extendedKeyUsage=clientAuth\n").unwrap();
    for name in ["server", "client"] {
        let file = |end: &str| format!("{name}.{end}");
        run(
            dir,
            "openssl",
            &["req", "-new", "-key", &file("key"), "-subj", &format!("/CN={name}"), "-out", &file("csr")],
        );
        run(
            dir,
            "openssl",
            &[
                "x509",
                "-req",
                "-in",
                &file("csr"),
                "-CA",
                "ca.pem",
                "-CAkey",
                "ca.key",
                "-set_serial",
                "7",
                "-days",
                "2",
                "-extfile",
                &file("ext"),
                "-out",
                &file("pem"),
            ],
        );
    }
}

/// A receiver that speaks TLS. With `ask`, only to clients with a certificate of the authority.
async fn receiver(dir: &Path, ask: bool) -> (u16, Arc<Mutex<Vec<Request>>>) {
    let provider = Arc::new(crypto::aws_lc_rs::default_provider());
    let certificate = CertificateDer::from_pem_file(dir.join("server.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(dir.join("server.key")).unwrap();
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = if ask {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(dir.join("ca.pem")).unwrap()).unwrap();
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        builder.with_client_cert_verifier(verifier)
    } else {
        builder.with_no_client_auth()
    };
    let acceptor = TlsAcceptor::from(Arc::new(builder.with_single_cert(vec![certificate], key).unwrap()));
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let requests = Arc::new(Mutex::new(Vec::new()));
    let all = Arc::clone(&requests);
    tokio::spawn(async move {
        let script: Script = Arc::new(|_, _| ok(""));
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, all, script) = (acceptor.clone(), Arc::clone(&all), Arc::clone(&script));
            tokio::spawn(async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    serve(stream, all, script).await;
                }
            });
        }
    });
    (port, requests)
}

#[tokio::test]
async fn only_a_server_of_a_trusted_authority_is_told() {
    let dir = tempfile::tempdir().unwrap();
    certificates(dir.path());
    let (port, requests) = receiver(dir.path(), false).await;
    let at = dir.path().display();
    let keys = |host: &str, tls: &str| format!("type: http, url: 'https://{host}:{port}/', tls: {{{tls}}}");
    for untrusted in
        [String::new(), format!("ca: {at}/other.pem"), format!("ca: {at}/other.pem, only_ca: true")]
    {
        let (reason, _) = later(&deliver(&mut *sink(&keys("localhost", &untrusted)), &alerts(1)).await);
        assert!(reason.contains("certificate"), "{reason}");
    }
    // Trusted, but it is another's name.
    let (reason, _) =
        later(&deliver(&mut *sink(&keys("127.0.0.2", &format!("ca: {at}/ca.pem"))), &alerts(1)).await);
    assert!(reason.contains("certificate"), "{reason}");
    assert!(requests.lock().unwrap().is_empty());
    for trusted in [format!("ca: {at}/ca.pem"), format!("ca: {at}/ca.pem, only_ca: true")] {
        done(&deliver(&mut *sink(&keys("localhost", &trusted)), &alerts(1)).await);
    }
    done(&deliver(&mut *sink(&keys("127.0.0.1", &format!("ca: {at}/ca.pem"))), &alerts(1)).await);
    assert_eq!(requests.lock().unwrap().len(), 3);
}

#[tokio::test]
async fn a_client_shows_its_certificate() {
    let dir = tempfile::tempdir().unwrap();
    certificates(dir.path());
    let (port, requests) = receiver(dir.path(), true).await;
    let at = dir.path().display();
    let keys =
        |tls: &str| format!("type: http, url: 'https://localhost:{port}/', tls: {{ca: {at}/ca.pem{tls}}}");
    later(&deliver(&mut *sink(&keys("")), &alerts(1)).await);
    assert!(requests.lock().unwrap().is_empty());
    let mut sink = sink(&keys(&format!(", cert: {at}/client.pem, key: {at}/client.key")));
    done(&deliver(&mut *sink, &alerts(1)).await);
    // A renewed certificate is taken at a signal; a broken one is not.
    std::fs::write(dir.path().join("client.pem"), "broken").unwrap();
    sink.reopen();
    done(&deliver(&mut *sink, &alerts(1)).await);
    assert_eq!(requests.lock().unwrap().len(), 2);
}

/// A proxy that opens tunnels for who has its password; what it was asked for.
async fn proxy() -> (u16, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let all = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let all = Arc::clone(&all);
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let Ok(byte) = stream.read_u8().await else { return };
                    head.push(byte);
                }
                let head = String::from_utf8(head).unwrap();
                all.lock().unwrap().push(head.clone());
                // me:pa:ss
                if !head.contains("Basic bWU6cGE6c3M=") {
                    let _ = stream
                        .write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n")
                        .await;
                    return;
                }
                let to = head.split(' ').nth(1).unwrap();
                let mut server = TcpStream::connect(to).await.unwrap();
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut stream, &mut server).await;
            });
        }
    });
    (port, asked)
}

#[tokio::test]
async fn a_proxy_is_asked_and_sees_nothing() {
    let dir = tempfile::tempdir().unwrap();
    certificates(dir.path());
    let (port, requests) = receiver(dir.path(), false).await;
    let (proxy, asked) = proxy().await;
    let at = dir.path().display();
    let keys = format!(
        "type: http, url: 'https://127.0.0.1:{port}/secret', tls: {{ca: {at}/ca.pem}}, proxy: 'http://127.0.0.1:{proxy}'"
    );
    let with = format!("{keys}, proxy_user: me, proxy_password: env:PASSWORD");
    done(&deliver(&mut *sink(&with), &alerts(1)).await);
    assert_eq!(requests.lock().unwrap().len(), 1);
    let heads = asked.lock().unwrap().clone();
    assert!(
        heads[0].starts_with(&format!("CONNECT 127.0.0.1:{port} ")) && !heads[0].contains("secret"),
        "{heads:?}"
    );
    later(&deliver(&mut *sink(&keys), &alerts(1)).await);
    assert_eq!(requests.lock().unwrap().len(), 1, "without the password nothing passes");
}
