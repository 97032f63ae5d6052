//! The demonstration: a sensor on this host, a sample service with a hole, honest users and an attacker.
//!
//! Everything is local and harmless: the service is ours, and so is the attacker.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::attack::{Attack, tampered_pair};
use crate::client::{Client, Setup, get, login};
use crate::clock::{self, Deadline};
use crate::mint::Mint;
use crate::sensor::{Config, Sensor, command};
use crate::server::{Kind, Options, Server};
use crate::{golden, svg};

/// How long the alerts of one scene are waited for. The sensor needs milliseconds; people read slower.
const SCENE: Duration = Duration::from_millis(900);

/// The stage: where lines go, and what was shown so far.
struct Stage {
    shown: Vec<String>,
    colour: bool,
}

impl Stage {
    fn say(&mut self, line: &str) {
        let line = if self.colour { line.to_owned() } else { svg::plain(line) };
        let mut out = std::io::stdout().lock();
        let _ = writeln!(out, "{line}");
        let _ = out.flush();
        self.shown.push(line);
    }

    /// What happens next, in a voice of its own.
    fn tell(&mut self, text: &str) {
        self.say(&format!("\x1b[2m\u{25b8} {text}\x1b[0m"));
    }
}

/// Plays it. `cast` names an SVG picture to be made of what was shown.
///
/// # Errors
/// When neither capture nor replay works here.
pub fn run(cast: Option<&Path>) -> Result<()> {
    use std::io::IsTerminal as _;
    let mut stage = Stage { shown: Vec::new(), colour: cast.is_some() || std::io::stdout().is_terminal() };
    if let Err(why) = live(&mut stage) {
        stage.say(&format!("\x1b[33mno live capture here:\x1b[0m {why:#}"));
        stage.tell("replaying a capture of the same attacks instead");
        replay(&mut stage)?;
    }
    if let Some(file) = cast {
        std::fs::write(file, svg::render(&stage.shown)).with_context(|| file.display().to_string())?;
    }
    Ok(())
}

fn live(stage: &mut Stage) -> Result<()> {
    ensure!(crate::is_root(), "loading kernel programs needs root");
    let mint = Mint::at(clock::now())?;
    let options = Options { accept_none: true, ..Options::default() };
    let server = Server::start(Kind::Python, &mint, &options)?;
    let colour = if stage.colour { "always" } else { "never" };
    let mut config = Config::new(&mint)?.ports(&[server.address.port()]);
    config.set("/lists/departed_accounts", serde_json::json!(["carol"]));
    let sensor = Sensor::start_with(&config, &["-o", "compact", "--color", colour])?;
    stage.tell("tokenscope runs on this host; a Python service that knows nothing of it listens beside it");
    for scene in SCENES {
        stage.tell(scene.title);
        (scene.play)(&mint, server.address)?;
        let deadline = Deadline::after(SCENE);
        while let Some(line) = sensor.line(deadline.left()) {
            stage.say(&line);
        }
    }
    let ended = sensor.stop()?;
    for line in &ended.lines {
        stage.say(line);
    }
    if let Some(summary) = ended.stderr.lines().last() {
        stage.say(&format!("\x1b[2m{summary}\x1b[0m"));
    }
    stage.tell("stopped; nothing is left behind");
    Ok(())
}

/// One part of the play.
struct Scene {
    title: &'static str,
    play: fn(&Mint, SocketAddr) -> Result<()>,
}

const SCENES: [Scene; 9] = [
    Scene { title: "alice and bob use the service: no alert", play: honest },
    Scene { title: "mallory strips the signature off a token; the service has that hole", play: strip },
    Scene { title: "mallory calls himself admin and signs with a key of his own", play: sign },
    Scene { title: "mallory signs with the public key as if it were a secret", play: confuse },
    Scene { title: "mallory makes himself ADMIN under alice's signature", play: tamper },
    Scene { title: "mallory uses alice's token beside her, in a script, from another network", play: steal },
    Scene { title: "mallory tries to inject SQL", play: inject },
    Scene { title: "somebody logs in as carol, who has left the company", play: haunt },
    Scene { title: "mallory guesses passwords", play: guess },
];

fn honest(mint: &Mint, at: SocketAddr) -> Result<()> {
    for user in ["alice", "bob"] {
        let token = mint.good(user)?;
        let mut client = Client::connect(at)?;
        client.ask(&login(user, "correct horse"))?;
        for id in 0..10 {
            ensure!(
                client.ask(&get(&format!("/orders/{id}"), Some(&token)))?.status == 200,
                "{user} was refused"
            );
            std::thread::sleep(Duration::from_millis(120));
        }
    }
    Client::connect(at)?.ask(&get("/orders/1", None))?;
    Ok(())
}

fn strip(mint: &Mint, at: SocketAddr) -> Result<()> {
    one(at, &Attack::AlgNone.token(mint, "alice")?)
}

fn sign(mint: &Mint, at: SocketAddr) -> Result<()> {
    one(at, &Attack::BadSignature.token(mint, "admin")?)
}

fn confuse(mint: &Mint, at: SocketAddr) -> Result<()> {
    one(at, &Attack::HmacUnderPublicKey.token(mint, "alice")?)
}

fn tamper(mint: &Mint, at: SocketAddr) -> Result<()> {
    one(at, &tampered_pair(mint, "alice")?.1)
}

fn steal(mint: &Mint, at: SocketAddr) -> Result<()> {
    let from = Some(IpAddr::V4(Ipv4Addr::new(127, 66, 6, 6)));
    let mut client = Client::connect_with(at, Setup { from, ..Setup::default() })?;
    let request = get("/orders/1", Some(&mint.good("alice")?));
    let script = String::from_utf8_lossy(&request).replace("lab/1.0", "python-requests/2.32");
    client.ask(script.as_bytes()).map(drop)
}

fn inject(_: &Mint, at: SocketAddr) -> Result<()> {
    Client::connect(at)?.ask(&get("/orders/7?sort=1%27%20OR%20%271%27%3D%271%27--", None)).map(drop)
}

fn haunt(_: &Mint, at: SocketAddr) -> Result<()> {
    Client::connect(at)?.ask(&login("carol", "correct horse")).map(drop)
}

fn guess(_: &Mint, at: SocketAddr) -> Result<()> {
    let mut client = Client::connect(at)?;
    for attempt in 0..60 {
        client.ask(&login("alice", &format!("guess{attempt}")))?;
    }
    Ok(())
}

fn one(at: SocketAddr, token: &str) -> Result<()> {
    Client::connect(at)?.ask(&get("/orders/7", Some(token))).map(drop)
}

/// What is replayed of the captures, and what it shows.
const REPLAYED: [(&str, &str); 7] = [
    ("benign", SCENES[0].title),
    ("accepted-alg-none", SCENES[1].title),
    ("attempt-bad-signature", SCENES[2].title),
    ("attempt-hmac-under-public-key", SCENES[3].title),
    ("claims-tampered", SCENES[4].title),
    ("token-many-sources", "mallory and alice use her token in turns, from two networks"),
    ("brute-force", SCENES[8].title),
];

/// The same rules on captures made by hand: what is possible without privileges.
fn replay(stage: &mut Stage) -> Result<()> {
    let mint = Mint::at(crate::mint::GOLDEN_NOW)?;
    let dir = tempfile::tempdir()?;
    let config = Config::new(&mint)?.write(dir.path())?;
    let captures = golden::cases()?;
    for (wanted, title) in REPLAYED {
        stage.tell(title);
        let (name, capture) = captures.iter().find(|(name, _)| name == wanted).context(wanted)?;
        let file = dir.path().join("capture.pcap");
        std::fs::write(&file, capture.bytes())?;
        let colour = if stage.colour { "always" } else { "never" };
        let done = command()?
            .args(["replay", "-o", "compact", "--color", colour, "-c"])
            .args([&config, &file])
            .output()
            .context("replay")?;
        ensure!(done.status.success(), "{name}: {}", String::from_utf8_lossy(&done.stderr));
        for line in String::from_utf8_lossy(&done.stdout).lines() {
            stage.say(line);
        }
    }
    Ok(())
}
