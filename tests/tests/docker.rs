//! The sensor and Docker: containers are known by Docker's ids, by a sensor on the host and by one that is a container of
//! Docker's itself, started as docs/install.md says.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use tests::attack::Attack;
use tests::client::{Client, get};
use tests::clock::{self, Deadline};
use tests::engine::{BRIDGE, Container, Engine};
use tests::mint::Mint;
use tests::node::Program;
use tests::sensor::{self, Alert, Config, Sensor};
use tests::{image, skip};

/// Where the services listen in their containers; each test has one of its own, for every sensor sees the whole host.
const PORT: u16 = 18_181;
const INSIDE: u16 = 18_182;

/// What the sensor's process has left of privileges: three, or in place of two of them the older one that holds both, for
/// Debian 12's engine (20.10) does not know their names.
const NEW: [&str; 3] = ["BPF", "PERFMON", "NET_ADMIN"];
const OLD: [&str; 2] = ["SYS_ADMIN", "NET_ADMIN"];

fn missing(test: &str) -> bool {
    let why = sensor::missing().or_else(Engine::missing);
    if let Some(why) = &why {
        skip(&format!("docker::{test}"), why);
    }
    why.is_some()
}

/// The order service on Python, in a container.
fn orders(engine: &Engine, mint: &Mint, port: u16) -> Result<Container> {
    let words = ["/usr/bin/python3", "/srv/api.py", &port.to_string(), "/data/jwks.json"].map(str::to_owned);
    let files = vec![("jwks.json".to_owned(), mint.jwks()?.to_string())];
    let environment = vec!["HOST=0.0.0.0".to_owned()];
    let container = engine.run("orders", &Program { words: words.into(), environment, files })?;
    let (to, deadline) = (SocketAddr::new(container.address, port), Deadline::after(Duration::from_mins(1)));
    // The attempts carry no request.
    while engine.here(|| Ok(std::net::TcpStream::connect(to)?)).is_err() {
        let said = || engine.docker(&["logs", &container.id]).unwrap_or_default();
        ensure!(!deadline.is_over(), "{to} does not listen: {}", said());
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(container)
}

/// Sends a forged token from the engine's side of the bridge; gives the alert.
fn forge(
    engine: &Engine,
    mint: &Mint,
    container: &Container,
    port: u16,
    sensor: &mut Sensor,
) -> Result<Alert> {
    let to = SocketAddr::new(container.address, port);
    let token = Attack::AlgNone.token(mint, "mallory")?;
    let status = engine.here(|| Ok(Client::connect(to)?.ask(&get("/orders/7", Some(&token)))?.status))?;
    ensure!(status == 401, "{to} answered {status}");
    sensor.next_alert()
}

fn is_of(alert: &Alert, container: &Container, port: u16) -> Result<()> {
    let of = |pointer: &str| alert.0.pointer(pointer).and_then(|value| value.as_str()).unwrap_or_default();
    ensure!(alert.rule() == "alg-none", "{alert:?}");
    ensure!(of("/evidences/0/container/uid") == container.id, "not {}: {alert:?}", container.id);
    ensure!(alert.client() == BRIDGE && alert.server_port() == Some(port.into()), "{alert:?}");
    Ok(())
}

#[test]
fn the_hosts_sensor_names_a_container_of_docker() -> Result<()> {
    if missing("the_hosts_sensor_names_a_container_of_docker") {
        return Ok(());
    }
    let mint = Mint::at(clock::now())?;
    let engine = Engine::start()?;
    let mut sensor = Sensor::start(&Config::new(&mint)?.ports(&[PORT]))?;
    // One that comes after the sensor, and the same after it was started anew.
    let container = orders(&engine, &mint, PORT)?;
    is_of(&forge(&engine, &mint, &container, PORT, &mut sensor)?, &container, PORT)?;
    sensor.stop()?;
    // One that was there before the sensor.
    let mut sensor = Sensor::start(&Config::new(&mint)?.ports(&[PORT]))?;
    is_of(&forge(&engine, &mint, &container, PORT, &mut sensor)?, &container, PORT)?;
    sensor.stop()?;
    Ok(())
}

/// The image of the program under test.
fn load(engine: &Engine, dir: &Path) -> Result<String> {
    let archive = image::make(dir)?;
    let said = engine.docker(&["load", "--input", &archive.to_string_lossy()])?;
    let name = said.strip_prefix("Loaded image: ").with_context(|| format!("docker load: {said}"))?;
    ensure!(name.starts_with("tokenscope:"), "it is called {name}");
    Ok(name.to_owned())
}

/// The flags of docs/install.md, with the directories of a test in place of the host's.
fn flags(etc: &Path, state: &Path, capabilities: &[&str]) -> Vec<String> {
    let mut flags: Vec<String> =
        ["--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges"].map(str::to_owned).into();
    flags.extend(capabilities.iter().map(|name| format!("--cap-add={name}")));
    flags.push("--volume=/sys/fs/cgroup:/sys/fs/cgroup:ro".to_owned());
    flags.push(format!("--volume={}:/etc/tokenscope:ro", etc.display()));
    flags.push(format!("--volume={}:/var/lib/tokenscope", state.display()));
    flags.push("--tmpfs=/run/tokenscope".to_owned());
    flags
}

#[test]
fn the_image_runs_under_docker_and_names_its_neighbours() -> Result<()> {
    if missing("the_image_runs_under_docker_and_names_its_neighbours") {
        return Ok(());
    }
    let mint = Mint::at(clock::now())?;
    let engine = Engine::start()?;
    let (image, state) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let image = load(&engine, image.path())?;
    let dir = tempfile::Builder::new().prefix("sensor-").tempdir()?;
    let doctor = |capabilities: &[&str]| {
        let flags = flags(dir.path(), state.path(), capabilities);
        let words =
            [vec!["run".to_owned(), "--rm".to_owned()], flags, vec![image.clone(), "doctor".to_owned()]];
        engine.docker(&words.concat().iter().map(String::as_str).collect::<Vec<_>>())
    };
    let (capabilities, said) = match doctor(&NEW) {
        Err(error) if error.to_string().contains("unknown capability") => (&OLD[..], doctor(&OLD)?),
        other => (&NEW[..], other?),
    };
    ensure!(said.contains("loaded and attached"), "{said}");

    let container = orders(&engine, &mint, INSIDE)?;
    let mut config = Config::new(&mint)?.ports(&[INSIDE]);
    config.set("/state/dir", json!("/var/lib/tokenscope"));
    config.set("/control/socket", json!("/run/tokenscope/control.sock"));
    config.set("/metrics/listen", json!("0.0.0.0:9464"));
    let file = config.write(dir.path())?;
    let text = std::fs::read_to_string(&file)?;
    std::fs::write(&file, text.replace(&dir.path().to_string_lossy().into_owned(), "/etc/tokenscope"))?;
    let mut words = vec!["run".to_owned(), "--name=tokenscope".to_owned()];
    words.extend(flags(dir.path(), state.path(), capabilities));
    words.push("--env=LAB_FINGERPRINT_KEY=a key that is fixed for tests only".to_owned());
    words.extend([image, "run".to_owned(), "-o".to_owned(), "json".to_owned()]);
    let mut command = engine.client(&words.iter().map(String::as_str).collect::<Vec<_>>())?;
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut sensor = Sensor::adopt("watching", child, dir, SocketAddr::from(([127, 0, 0, 1], 9464)))?;
    is_of(&forge(&engine, &mint, &container, INSIDE, &mut sensor)?, &container, INSIDE)?;
    // The client passes the signal on.
    let ended = sensor.stop()?;
    ensure!(ended.stderr.contains("watched: 1 exchange, 1 token, 1 alert"), "{}", ended.stderr);
    Ok(())
}
