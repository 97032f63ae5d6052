//! More slow connections than one process may have descriptors: pairs of processes, a server and its clients each.
//!
//! A partner is the lab's own program. It obeys lines on its standard input, answers each with a line, and ends with
//! its input, so that none outlives whoever started it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::hall::Hall;
use super::loris::{Loris, half_head};

/// Descriptors that a partner needs for something else.
const OTHERS: u64 = 64;

/// Connections of one pair at most, however many descriptors it may have: few enough to open in seconds.
const MOST: u64 = 25_000;

/// The pairs. Dropping it ends them.
#[derive(Debug)]
pub struct Crowd {
    pairs: Vec<Pair>,
}

#[derive(Debug)]
struct Pair {
    hall: Partner,
    address: SocketAddr,
    clients: usize,
    loris: Option<Partner>,
}

impl Crowd {
    /// Starts servers for this many connections, in the network namespace of the calling thread. `lab` is the lab's
    /// program.
    ///
    /// # Errors
    /// When one cannot be started.
    pub fn assemble(lab: &Path, connections: usize) -> Result<Self> {
        let each = usize::try_from(descriptors()?.saturating_sub(OTHERS).clamp(1, MOST))?;
        let mut pairs = Vec::new();
        let mut left = connections;
        while left > 0 {
            let clients = left.min(each);
            let mut hall = Partner::start(lab, &["hall", "127.0.0.1"])?;
            let address = hall.line()?.parse().context("a server's address")?;
            pairs.push(Pair { hall, address, clients, loris: None });
            left -= clients;
        }
        Ok(Self { pairs })
    }

    /// The ports of the servers.
    pub fn ports(&self) -> impl Iterator<Item = u16> {
        self.pairs.iter().map(|pair| pair.address.port())
    }

    /// Opens all connections and begins a head with one of the tokens on each; comes back once all are open. To be
    /// called where the servers were started from.
    ///
    /// # Errors
    /// When some cannot be opened.
    pub fn open(&mut self, lab: &Path, tokens: &[String]) -> Result<()> {
        for (number, pair) in self.pairs.iter_mut().enumerate() {
            let words = [pair.address.to_string(), pair.clients.to_string(), (number + 1).to_string()];
            let mut loris = Partner::start(lab, &["loris", &words[0], &words[1], &words[2]])?;
            loris.tell(&tokens.join(" "))?;
            pair.loris = Some(loris);
        }
        for pair in &mut self.pairs {
            let loris = pair.loris.as_mut().context("its clients")?;
            ensure!(loris.line()? == "open", "the connections to {} are not open", pair.address);
        }
        Ok(())
    }

    /// Says one byte more on every `step`-th connection.
    ///
    /// # Errors
    /// When a connection is gone.
    pub fn trickle(&mut self, step: usize) -> Result<u64> {
        self.say(&format!("trickle {step}"))
    }

    /// Ends all heads. Gives how many that are.
    ///
    /// # Errors
    /// When a connection is gone.
    pub fn end_heads(&mut self) -> Result<u64> {
        self.say("end")
    }

    fn say(&mut self, what: &str) -> Result<u64> {
        let mut said = 0;
        for pair in &mut self.pairs {
            let loris = pair.loris.as_mut().context("its clients")?;
            loris.tell(what)?;
            said += loris.line()?.parse::<u64>().with_context(|| what.to_owned())?;
        }
        Ok(said)
    }

    /// Connections that the servers have open now.
    ///
    /// # Errors
    /// When a server has ended.
    pub fn now_open(&mut self) -> Result<u64> {
        let mut open = 0;
        for pair in &mut self.pairs {
            pair.hall.tell("open")?;
            open += pair.hall.line()?.parse::<u64>()?;
        }
        Ok(open)
    }

    /// Hangs up on all of them; the servers stay.
    pub fn disperse(&mut self) {
        for pair in &mut self.pairs {
            pair.loris = None;
        }
    }
}

/// A process that obeys lines.
#[derive(Debug)]
struct Partner {
    child: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Partner {
    fn start(lab: &Path, arguments: &[&str]) -> Result<Self> {
        let mut child = Command::new(lab)
            .arg("pressure")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {}", lab.display()))?;
        let orders = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().context("its output")?);
        Ok(Self { child, orders, answers })
    }

    fn tell(&mut self, line: &str) -> Result<()> {
        let orders = self.orders.as_mut().context("its input")?;
        Ok(writeln!(orders, "{line}")?)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        ensure!(self.answers.read_line(&mut line)? > 0, "a partner has ended");
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Partner {
    fn drop(&mut self) {
        // The end of its orders ends it, and with it its connections.
        self.orders = None;
        let _ = self.child.wait();
    }
}

/// A partner's life: `hall ADDRESS`, or `loris TO COUNT HOST` and then a line of tokens.
///
/// # Errors
/// When it cannot do what it is told.
pub fn partner(arguments: &[&str]) -> Result<()> {
    descriptors()?;
    let mut orders = std::io::stdin().lines();
    match arguments {
        ["hall", at] => {
            let hall = Hall::open(at.parse()?)?;
            crate::print(&hall.address.to_string());
            for _order in orders {
                crate::print(&hall.now_open().to_string());
            }
            hall.close()
        }
        ["loris", to, count, host] => {
            let tokens = orders.next().context("tokens")??;
            let heads: Vec<Vec<u8>> = tokens.split(' ').map(half_head).collect();
            let head = |one: usize| heads.get(one % heads.len().max(1)).cloned().unwrap_or_default();
            let loris = Loris::open(to.parse()?, count.parse()?, host.parse()?, head)?;
            crate::print("open");
            for order in orders {
                let said = match order?.split_once(' ') {
                    Some(("trickle", step)) => loris.say(step.parse()?, b"a")?,
                    None => loris.say(1, b"a\r\n\r\n")?,
                    Some((other, _)) => bail!("{other} is no order"),
                };
                crate::print(&said.to_string());
            }
            Ok(())
        }
        _ => bail!("usage: lab pressure hall ADDRESS | loris TO COUNT HOST"),
    }
}

/// Asks for as many descriptors as this process may have, and says how many.
fn descriptors() -> Result<u64> {
    let now = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: now.maximum, maximum: now.maximum })?;
    Ok(now.maximum.unwrap_or(u64::MAX))
}
