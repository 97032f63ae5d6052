//! The port: who may ask, and who may not.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};

use sensor_user::control::server::Patience;
use sensor_user::control::{Listen, Settings, Tls};
use sensor_user::token::settings::Secret;

use crate::commands::tokenscope;
use crate::sensor::{DEADLINE, Sensor, answer};

const TOKEN: &str = "0123456789abcdef-the-token";

fn sensor(dir: tempfile::TempDir, token: bool, tls: Option<Tls>) -> Sensor {
    let token = token.then(|| Secret(TOKEN.as_bytes().to_vec().into()));
    let listen = Some(Listen { address: SocketAddr::from(([127, 0, 0, 1], 0)), token, tls });
    Sensor::with(dir, &Settings { socket: None, listen }, Patience::default())
}

#[test]
fn whoever_shows_the_token_is_answered_and_nobody_else() {
    let sensor = sensor(tempfile::tempdir().unwrap(), true, None);
    let address = sensor.address.unwrap();
    let ask = |header: &str| {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        write!(stream, "GET /v1/status HTTP/1.1\r\nHost: x\r\n{header}\r\n").unwrap();
        answer(stream)
    };
    assert_eq!(ask(&format!("Authorization: Bearer {TOKEN}\r\n")).0, 200);
    assert_eq!(ask(&format!("authorization: bearer  {TOKEN} \r\n")).0, 200);
    for header in [
        String::new(),
        "Authorization: Bearer \r\n".into(),
        format!("Authorization: Bearer {TOKEN}x\r\n"),
        format!("Authorization: Bearer {}\r\n", &TOKEN[1..]),
        format!("Authorization: Basic {TOKEN}\r\n"),
        format!("Authorization: {TOKEN}\r\n"),
        format!("X: Bearer {TOKEN}\r\n"),
    ] {
        let (status, body) = ask(&header);
        assert!(status == 401 && body.contains("remedy") && !body.contains(TOKEN), "{header}: {body}");
    }
}

#[test]
fn without_a_way_to_know_who_asks_there_is_no_port() {
    let sensor = sensor(tempfile::tempdir().unwrap(), false, None);
    assert_eq!(sensor.address, None);
    let _never_served = sensor.dir.path();
}

/// An authority, and certificates of a server and of a client; and a client of somebody else's.
fn certificates(dir: &Path) {
    let openssl = |arguments: &[&str]| {
        let output = Command::new("openssl").args(arguments).current_dir(dir).stdin(Stdio::null()).output();
        let output =
            output.unwrap_or_else(|error| panic!("openssl is missing: apt-get install openssl: {error}"));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    for name in ["ca", "other-ca", "server", "client", "other"] {
        openssl(&["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", &format!("{name}.key")]);
    }
    for name in ["ca", "other-ca"] {
        let (key, out, subject) = (format!("{name}.key"), format!("{name}.pem"), format!("/CN={name}"));
        openssl(&["req", "-x509", "-new", "-key", &key, "-subj", &subject, "-days", "2", "-out", &out]);
    }
    std::fs::write(dir.join("server.ext"), "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth\n")
        .unwrap();
    for name in ["client", "other"] {
        std::fs::write(dir.join(format!("{name}.ext")), "extendedKeyUsage=clientAuth\n").unwrap();
    }
    for (name, by) in [("server", "ca"), ("client", "ca"), ("other", "other-ca")] {
        let of = |name: &str, end: &str| format!("{name}.{end}");
        let (key, csr) = (of(name, "key"), of(name, "csr"));
        openssl(&["req", "-new", "-key", &key, "-subj", &format!("/CN={name}"), "-out", &csr]);
        openssl(&[
            "x509",
            "-req",
            "-in",
            &csr,
            "-CA",
            &of(by, "pem"),
            "-CAkey",
            &of(by, "key"),
            "-set_serial",
            "7",
            "-days",
            "2",
            "-extfile",
            &of(name, "ext"),
            "-out",
            &of(name, "pem"),
        ]);
    }
}

#[test]
fn a_certificate_of_the_right_authority_is_enough_and_any_other_is_not() {
    let dir = tempfile::tempdir().unwrap();
    certificates(dir.path());
    let file = |name: &str| dir.path().join(name);
    let tls = Tls { cert: file("server.pem"), key: file("server.key"), client_ca: Some(file("ca.pem")) };
    let sensor = sensor(dir, false, Some(tls));
    sensor.append(3);
    let url = format!("https://{}", sensor.address.unwrap());
    let tail = |more: &[&str]| {
        let mut all = vec!["tail", "-o", "ocsf", "--connect", url.as_str()];
        all.extend(more);
        let output = tokenscope(&all).current_dir(sensor.dir.path()).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap().lines().count())
    };
    assert_eq!(tail(&["--ca", "ca.pem", "--cert", "client.pem", "--key", "client.key"]), (Some(0), 3));
    assert_eq!(tail(&["--ca", "ca.pem"]), (Some(1), 0), "no certificate");
    assert_eq!(tail(&["--ca", "ca.pem", "--cert", "other.pem", "--key", "other.key"]), (Some(1), 0));
    assert_eq!(tail(&["--ca", "other-ca.pem", "--cert", "client.pem", "--key", "client.key"]), (Some(1), 0));
}

#[test]
fn the_commands_show_the_token() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("token"), format!("{TOKEN}\n")).unwrap();
    std::fs::write(dir.path().join("wrong"), "wrong").unwrap();
    let sensor = sensor(dir, true, None);
    sensor.append(2);
    let url = format!("http://{}", sensor.address.unwrap());
    let tail = |token: &str| {
        let path = sensor.dir.path().join(token);
        let token = format!("file:{}", path.display());
        tokenscope(&["tail", "-o", "ocsf", "--connect", &url, "--token", &token]).output().unwrap()
    };
    let output = tail("token");
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stdout).lines().count()), (Some(0), 2));
    let output = tail("wrong");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && said.contains("control.token"), "{said}");
}
