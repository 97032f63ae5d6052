//! A server that takes in everybody and holds them: one thread, one epoll, a few bytes a connection.
//!
//! It answers 200 to every head that ends, and knows nothing else of HTTP. Real servers give up slow clients after a
//! minute or so; this one never does.

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use anyhow::{Context as _, Result, anyhow};
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};

/// Connections that may wait to be accepted; the namespace's `net.core.somaxconn` must allow it.
pub const BACKLOG: i32 = 65_535;

/// Events of one look.
const EVENTS: usize = 1024;

/// Connections accepted before others are looked at.
const ACCEPTED_AT_ONCE: usize = 256;

/// How often the thread sees whether it should end.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
const END: &[u8] = b"\r\n\r\n";

/// What the server has done so far.
#[derive(Debug, Default)]
struct Counts {
    accepted: AtomicU64,
    open: AtomicU64,
    answered: AtomicU64,
    stop: AtomicBool,
}

/// The running server. Dropping it closes all its connections.
#[derive(Debug)]
pub struct Hall {
    /// Where it listens.
    pub address: SocketAddr,
    counts: Arc<Counts>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Hall {
    /// Listens on a free port of an address, in the network namespace of the calling thread.
    ///
    /// # Errors
    /// When the address is not ours, or the kernel refuses a socket.
    pub fn open(at: IpAddr) -> Result<Self> {
        let family = if at.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let listener = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
        rustix::net::bind(&listener, &SocketAddr::new(at, 0))?;
        rustix::net::listen(&listener, BACKLOG)?;
        let address = SocketAddr::try_from(rustix::net::getsockname(&listener)?)?;
        let counts = Arc::new(Counts::default());
        let room = Room::new(listener, Arc::clone(&counts))?;
        let thread = std::thread::spawn(move || {
            let ended = room.serve();
            if let Err(error) = &ended {
                let _ = writeln!(std::io::stderr(), "the server ended: {error:#}");
            }
            ended
        });
        let thread = Some(thread);
        Ok(Self { address, counts, thread })
    }

    /// Connections accepted so far.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.counts.accepted.load(Ordering::Relaxed)
    }

    /// Connections open now.
    #[must_use]
    pub fn now_open(&self) -> u64 {
        self.counts.open.load(Ordering::Relaxed)
    }

    /// Heads answered so far.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.counts.answered.load(Ordering::Relaxed)
    }

    /// Ends it.
    ///
    /// # Errors
    /// When it could not go on at some time.
    pub fn close(mut self) -> Result<()> {
        self.counts.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("it runs")?;
        thread.join().map_err(|_panic| anyhow!("the server panicked"))?
    }
}

impl Drop for Hall {
    fn drop(&mut self) {
        self.counts.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// One connection.
struct Guest {
    socket: OwnedFd,
    /// Bytes of [`END`] that the client has sent last.
    matched: usize,
}

/// What the thread has.
struct Room {
    epoll: OwnedFd,
    listener: OwnedFd,
    /// By descriptor.
    guests: Vec<Option<Guest>>,
    counts: Arc<Counts>,
}

impl Room {
    fn new(listener: OwnedFd, counts: Arc<Counts>) -> Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &listener, place(&listener)?, epoll::EventFlags::IN)?;
        Ok(Self { epoll, listener, guests: Vec::new(), counts })
    }

    fn serve(mut self) -> Result<()> {
        let mut events = Vec::with_capacity(EVENTS);
        let listener = place(&self.listener)?.u64();
        while !self.counts.stop.load(Ordering::Relaxed) {
            events.clear();
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), Some(&LOOK)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for event in &events {
                let data = event.data;
                if data.u64() == listener {
                    self.accept()?;
                } else {
                    self.hear(usize::try_from(data.u64())?);
                }
            }
        }
        Ok(())
    }

    fn accept(&mut self) -> Result<()> {
        for _ in 0..ACCEPTED_AT_ONCE {
            let socket = match rustix::net::accept_with(
                &self.listener,
                SocketFlags::NONBLOCK | SocketFlags::CLOEXEC,
            ) {
                Ok(socket) => socket,
                Err(Errno::AGAIN) => return Ok(()),
                // It hung up before its turn came.
                Err(Errno::CONNABORTED) => continue,
                Err(error) => return Err(error).context("accept"),
            };
            let _ = sockopt::set_tcp_nodelay(&socket, true);
            let place = place(&socket)?;
            epoll::add(&self.epoll, &socket, place, epoll::EventFlags::IN)?;
            let at = usize::try_from(place.u64())?;
            if self.guests.len() <= at {
                self.guests.resize_with(at + 1, || None);
            }
            if let Some(free) = self.guests.get_mut(at) {
                *free = Some(Guest { socket, matched: 0 });
            }
            self.counts.accepted.fetch_add(1, Ordering::Relaxed);
            self.counts.open.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Reads what a guest says, and answers the heads that it ends.
    fn hear(&mut self, at: usize) {
        let Some(slot) = self.guests.get_mut(at) else { return };
        let Some(guest) = slot else { return };
        let mut bytes = [0; 16 * 1024];
        match rustix::net::recv(&guest.socket, &mut bytes[..], RecvFlags::empty()) {
            Ok((1.., read)) => {
                let heads = guest.read(bytes.get(..read).unwrap_or_default());
                for _ in 0..heads {
                    // A client that reads nothing gets no more than the buffer holds.
                    let _ = rustix::net::send(&guest.socket, ANSWER, SendFlags::NOSIGNAL);
                }
                self.counts.answered.fetch_add(heads, Ordering::Relaxed);
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            Ok(_) | Err(_) => {
                *slot = None;
                self.counts.open.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }
}

impl Guest {
    /// Heads that end in these bytes.
    fn read(&mut self, bytes: &[u8]) -> u64 {
        let mut heads = 0;
        for byte in bytes {
            self.matched = match END.get(self.matched) {
                Some(next) if next == byte => self.matched + 1,
                _ => usize::from(*byte == b'\r'),
            };
            if self.matched == END.len() {
                self.matched = 0;
                heads += 1;
            }
        }
        heads
    }
}

/// A descriptor as the mark of its events.
fn place(socket: &OwnedFd) -> Result<epoll::EventData> {
    Ok(epoll::EventData::new_u64(u64::try_from(socket.as_raw_fd())?))
}
