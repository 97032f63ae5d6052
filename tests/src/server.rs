//! Unmodified servers as child processes: compiled or configured when first needed, stopped when dropped.

use std::fmt::Write as _;
use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use tempfile::TempDir;

use crate::clock::Deadline;
use crate::mint::Mint;
use crate::{service, workspace};

/// Java compiles its source file first, on a busy machine.
const START: Duration = Duration::from_mins(1);

/// The servers that the sensor is tested on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Python's `http.server`.
    Python,
    /// Node's `http`.
    Node,
    /// The JDK's `com.sun.net.httpserver`.
    Java,
    /// Go's `net/http`.
    Go,
    /// Gin.
    Gin,
    /// nginx that answers itself.
    Nginx,
    /// A server that uses nothing but `io_uring`.
    Uring,
    /// Python with holes to open.
    WeakPython,
    /// Gin with the same holes.
    WeakGin,
    /// Python that issues tokens.
    Issuer,
}

impl Kind {
    /// The name of its process, as the kernel shows it.
    #[must_use]
    pub const fn process(self) -> &'static str {
        match self {
            Self::Python | Self::WeakPython | Self::Issuer => "python3",
            Self::Node => "node",
            Self::Java => "java",
            Self::Go => "nethttp",
            Self::Gin => "gin",
            Self::Nginx => "nginx",
            Self::Uring => "uring",
            Self::WeakGin => "weak",
        }
    }

    /// The program that must be installed, and the Debian packages that bring it.
    #[must_use]
    pub const fn needs(self) -> (&'static str, &'static str) {
        match self {
            Self::Python | Self::WeakPython | Self::Issuer => ("python3", "python3"),
            Self::Node => ("node", "nodejs"),
            Self::Java => ("java", "openjdk-17-jdk-headless"),
            Self::Go => ("go", "golang-go"),
            Self::Gin | Self::WeakGin => ("go", "golang-go golang-github-gin-gonic-gin-dev"),
            Self::Nginx => ("nginx", "nginx-light"),
            Self::Uring => ("cc", "gcc libc6-dev liburing-dev"),
        }
    }

    /// What is missing to run it here, in words; none if it can run.
    #[must_use]
    pub fn missing(self) -> Option<String> {
        let (program, packages) = self.needs();
        let gin = Path::new("/usr/share/gocode/src/github.com/gin-gonic/gin");
        let uring = Path::new("/usr/include/liburing.h");
        let there = find_program(program).is_some()
            && (!matches!(self, Self::Gin | Self::WeakGin) || gin.exists())
            && (self != Self::Uring || uring.exists());
        (!there).then(|| format!("{self:?} is not installed (apt-get install {packages})"))
    }
}

/// What a server is started with.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Believe `alg: none`.
    pub accept_none: bool,
    /// Holes that the weak services open: `none`, `confusion`, `audience`, ...
    pub holes: Vec<&'static str>,
    /// Tokens that nginx and the `io_uring` service take: they cannot verify a signature.
    pub allow: Vec<String>,
    /// The address to listen on; `127.0.0.1` if none. nginx and `io_uring` know only that one.
    pub host: Option<String>,
    /// Where nginx's proxying half sends its requests.
    pub upstream: Option<SocketAddr>,
    /// Files that nginx serves under `/files/`.
    pub files: Vec<(String, Vec<u8>)>,
}

/// A running server. Dropping it kills it.
#[derive(Debug)]
pub struct Server {
    /// Where it listens.
    pub address: SocketAddr,
    /// nginx's proxying half.
    pub proxy: Option<SocketAddr>,
    child: Child,
    dir: TempDir,
}

impl Server {
    /// Starts one and waits until it accepts connections.
    ///
    /// # Errors
    /// When it does not start, with what it printed.
    pub fn start(kind: Kind, mint: &Mint, options: &Options) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("lab-").tempdir()?;
        let host = options.host.clone().unwrap_or_else(|| "127.0.0.1".to_owned());
        let (port, proxy_port) = (free_port()?, free_port()?);
        let jwks = dir.path().join("jwks.json");
        fs::write(&jwks, mint.jwks()?.to_string())?;
        let words = command(kind, dir.path(), port, proxy_port, &jwks, options)?;
        let (program, arguments) = words.split_first().context("a command")?;
        let log = fs::File::create(dir.path().join("log"))?;
        let child = Command::new(program)
            .args(arguments)
            .env("HOST", &host)
            .env("HOLES", options.holes.join(","))
            .env("ACCEPT_NONE", if options.accept_none { "1" } else { "0" })
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()
            .with_context(|| format!("start {program}"))?;
        let literal = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        let address = literal.parse().with_context(|| format!("an address of {literal}"))?;
        let proxy = options.upstream.map(|_| SocketAddr::from(([127, 0, 0, 1], proxy_port)));
        let mut server = Self { address, proxy, child, dir };
        server.wait()?;
        Ok(server)
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    fn wait(&mut self) -> Result<()> {
        let deadline = Deadline::after(START);
        let reach = match self.address {
            SocketAddr::V4(a) if a.ip().is_unspecified() => SocketAddr::from(([127, 0, 0, 1], a.port())),
            SocketAddr::V6(a) if a.ip().is_unspecified() => SocketAddr::from(([127, 0, 0, 1], a.port())),
            other => other,
        };
        while TcpStream::connect_timeout(&reach, Duration::from_secs(1)).is_err() {
            let log = || fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            if let Some(status) = self.child.try_wait()? {
                bail!("the server ended at once ({status}): {}", log());
            }
            ensure!(!deadline.is_over(), "the server does not listen on {reach}: {}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that was free a moment ago.
///
/// # Errors
/// When loopback has none.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// Where a program is, as a shell would find it; Debian's own before any other of the same name.
#[must_use]
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    let places = ["/usr/bin", "/usr/sbin"].into_iter().chain(path.split(':'));
    places.map(|dir| Path::new(dir).join(name)).find(|file| file.is_file())
}

fn program(name: &str) -> Result<String> {
    let found = find_program(name).with_context(|| format!("{name} is not installed"))?;
    Ok(found.to_string_lossy().into_owned())
}

fn command(
    kind: Kind,
    dir: &Path,
    port: u16,
    proxy: u16,
    jwks: &Path,
    options: &Options,
) -> Result<Vec<String>> {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let (port_text, jwks_text) = (port.to_string(), text(jwks));
    Ok(match kind {
        Kind::Python => vec![program("python3")?, text(&service("api.py")), port_text, jwks_text],
        Kind::Node => vec![program("node")?, text(&service("api.js")), port_text, jwks_text],
        Kind::Java => vec![program("java")?, text(&service("Api.java")), port_text, jwks_text],
        Kind::Go => vec![text(&compiled("nethttp")?), port_text, jwks_text],
        Kind::Gin => vec![text(&compiled("gin")?), port_text, jwks_text],
        Kind::WeakPython => vec![program("python3")?, text(&service("weak.py")), port_text, jwks_text],
        Kind::Issuer => vec![program("python3")?, text(&service("issuer.py")), port_text],
        Kind::WeakGin => vec![text(&compiled("weak")?), port_text, jwks_text],
        Kind::Nginx => {
            let config = nginx(dir, port, proxy, options)?;
            vec![program("nginx")?, "-e".into(), "stderr".into(), "-c".into(), text(&config)]
        }
        Kind::Uring => {
            let allow = dir.join("allow.txt");
            fs::write(&allow, options.allow.join("\n"))?;
            vec![text(&compiled("uring")?), port_text, text(&allow)]
        }
    })
}

/// Compiles a service into `target/services`, once a source. Two tests may do so at once: each renames its own in.
fn compiled(name: &str) -> Result<PathBuf> {
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from);
    let dir = target.join("services");
    fs::create_dir_all(&dir)?;
    let (ready, source) = match name {
        "uring" => (dir.join(name), service("uring.c")),
        _ => (dir.join(name), service("go/src/orders").join(name).join("main.go")),
    };
    let age = |path: &Path| fs::metadata(path).and_then(|m| m.modified()).ok();
    let shared = ["verify/verify.go", "weakjwt/weakjwt.go"].map(|f| age(&service("go/src/orders").join(f)));
    let newest = shared.into_iter().fold(age(&source), Option::max);
    if age(&ready).is_some_and(|built| Some(built) > newest) {
        return Ok(ready);
    }
    let fresh = dir.join(format!("{name}.{}", std::process::id()));
    let mut build = if name == "uring" {
        let mut cc = Command::new(program("cc")?);
        cc.args(["-O2", "-o"]).arg(&fresh).arg(&source).arg("-luring");
        cc
    } else {
        let mut go = Command::new(program("go")?);
        let gopath = format!("{}:/usr/share/gocode", service("go").display());
        go.args(["build", "-o"]).arg(&fresh).arg(format!("orders/{name}"));
        go.env("GO111MODULE", "off").env("GOPATH", gopath).env("GOCACHE", dir.join("go-cache"));
        go
    };
    let done = build.output().with_context(|| format!("compile {name}"))?;
    ensure!(done.status.success(), "compile {name}: {}", String::from_utf8_lossy(&done.stderr));
    fs::rename(&fresh, &ready)?;
    Ok(ready)
}

fn nginx(dir: &Path, port: u16, proxy: u16, options: &Options) -> Result<PathBuf> {
    let www = dir.join("www/files");
    fs::create_dir_all(&www)?;
    for (name, bytes) in &options.files {
        fs::write(www.join(name), bytes)?;
    }
    let mut allow = String::new();
    for token in &options.allow {
        writeln!(allow, "\"Bearer {token}\" 1;")?;
    }
    if options.accept_none {
        // {"alg":"none" in base64url.
        allow.push_str("~^Bearer\\ eyJhbGciOiJub25lI 1;\n");
    }
    fs::write(dir.join("allow.map"), allow)?;
    let upstream = options.upstream.map_or(port, |address| address.port());
    let config = fs::read_to_string(service("nginx.conf"))?
        .replace("@DIR@", &dir.to_string_lossy())
        .replace("@PROXY_PORT@", &proxy.to_string())
        .replace("@PORT@", &port.to_string())
        .replace("@UPSTREAM@", &upstream.to_string());
    let file = dir.join("nginx.conf");
    fs::write(&file, config)?;
    Ok(file)
}

/// A file of good size for downloads, always the same bytes.
#[must_use]
pub fn sample_file(bytes: usize) -> Vec<u8> {
    (0u32..)
        .map(|i| u8::try_from(i.wrapping_mul(2_654_435_761) >> 24).unwrap_or_default())
        .take(bytes)
        .collect()
}
