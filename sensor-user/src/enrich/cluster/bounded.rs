//! Bounds on what the API server may send: a list has so many bytes, and so has each line of a watch, which has no end.
//!
//! The client library reads a list whole, and a watch line by line, and has no bound for either. Its bodies are wrapped
//! here, where it also shows that the server takes a watch: the library says nothing while no pod changes.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::body::{Body, Bytes, Frame, SizeHint};
use hyper::header::DATE;
use hyper::{Request, Response};
use tower::{BoxError, Service};

use super::Cluster;

/// Bytes of one page of pods: 500 of some 10 KiB each, and three times that.
const MAX_PAGE: usize = 16 << 20;
/// Bytes of one line of a watch: etcd refuses objects above 1.5 MiB, and JSON is twice as large as what it keeps.
const MAX_LINE: usize = 4 << 20;

/// The service below the client.
#[derive(Clone)]
pub struct Bounded<S> {
    inner: S,
    cluster: Arc<Cluster>,
}

impl<S> Bounded<S> {
    /// Bounds what a service answers.
    pub const fn new(inner: S, cluster: Arc<Cluster>) -> Self {
        Self { inner, cluster }
    }
}

/// What an answer will be.
type Answering<B, E> = Pin<Box<dyn Future<Output = Result<Response<BoundedBody<B>>, E>> + Send>>;

impl<S, R, B> Service<Request<R>> for Bounded<S>
where
    S: Service<Request<R>, Response = Response<B>>,
    S::Future: Send + 'static,
{
    type Response = Response<BoundedBody<B>>;
    type Error = S::Error;
    type Future = Answering<B, S::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<R>) -> Self::Future {
        let is_watch =
            request.uri().query().is_some_and(|query| query.split('&').any(|one| one == "watch=true"));
        let (answer, cluster) = (self.inner.call(request), Arc::clone(&self.cluster));
        Box::pin(async move {
            let answer = answer.await?;
            if let Some(date) = answer.headers().get(DATE).and_then(|date| read_date(date.to_str().ok()?)) {
                cluster.dated(date);
            }
            // What is no success is one short object, whatever was asked for.
            let is_stream = is_watch && answer.status().is_success();
            if is_stream {
                cluster.caught_up();
            }
            Ok(answer.map(|inner| BoundedBody { inner, meter: Meter::new(is_stream) }))
        })
    }
}

/// The seconds of a date as servers write it (RFC 9110 section 5.6.7), since 1970.
fn read_date(date: &str) -> Option<i64> {
    Some(jiff::fmt::rfc2822::parse(date).ok()?.timestamp().as_second())
}

/// Counts the bytes of a body.
#[derive(Debug)]
struct Meter {
    lines: bool,
    /// Of the whole, or of a line.
    most: usize,
    left: usize,
}

impl Meter {
    const fn new(lines: bool) -> Self {
        Self::of(lines, if lines { MAX_LINE } else { MAX_PAGE })
    }

    const fn of(lines: bool, most: usize) -> Self {
        Self { lines, most, left: most }
    }

    /// Whether these may follow.
    fn takes(&mut self, bytes: &[u8]) -> bool {
        if !self.lines {
            return self.spend(bytes.len());
        }
        let mut lines = bytes.split(|byte| *byte == b'\n');
        if !lines.next().is_none_or(|rest| self.spend(rest.len())) {
            return false;
        }
        for line in lines {
            self.left = self.most;
            if !self.spend(line.len()) {
                return false;
            }
        }
        true
    }

    const fn spend(&mut self, bytes: usize) -> bool {
        match self.left.checked_sub(bytes) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }
}

/// A body that ends in an error rather than go on without bound.
#[derive(Debug)]
pub struct BoundedBody<B> {
    inner: B,
    meter: Meter,
}

/// The server sent more than any answer should have.
#[derive(Debug, thiserror::Error)]
#[error("the answer is larger than {MAX_PAGE} bytes, or a line of it than {MAX_LINE}")]
pub struct TooLarge;

impl<B> Body for BoundedBody<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        Poll::Ready(match std::task::ready!(Pin::new(&mut this.inner).poll_frame(context)) {
            Some(Ok(frame)) if frame.data_ref().is_some_and(|bytes| !this.meter.takes(bytes)) => {
                Some(Err(Box::new(TooLarge)))
            }
            Some(Ok(frame)) => Some(Ok(frame)),
            Some(Err(error)) => Some(Err(error.into())),
            None => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_page_has_an_end() {
        let mut meter = Meter::of(false, 100);
        assert!(meter.takes(&[b'\n'; 100]) && meter.takes(b""));
        assert!(!meter.takes(b"x"));
        assert_eq!((Meter::new(false).left, Meter::new(true).left), (MAX_PAGE, MAX_LINE));
    }

    #[test]
    fn a_watch_goes_on_for_ever_but_its_lines_do_not() {
        let mut meter = Meter::of(true, 100);
        let line = [[b'x'; 100].as_slice(), b"\n"].concat();
        for _ in 0..8 {
            assert!(meter.takes(&line));
        }
        assert!(meter.takes(&line[..100]));
        assert!(!meter.takes(b"x"));
        assert!(!Meter::of(true, 100).takes(&[b"a\nb\n".as_slice(), &line[..100], b"x\n"].concat()));
    }

    #[test]
    fn a_servers_date_is_read() {
        assert_eq!(read_date("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        assert_eq!(read_date("yesterday"), None);
    }

    proptest! {
        #[test]
        fn pieces_count_like_the_whole(
            mut cuts in prop::collection::vec(0_usize..60, 0..4),
            ends in prop::collection::vec(0_usize..60, 0..5),
        ) {
            let mut bytes = vec![b'x'; 60];
            for end in ends {
                bytes[end] = b'\n';
            }
            let whole = Meter::of(true, 20).takes(&bytes);
            prop_assert_eq!(whole, bytes.split(|byte| *byte == b'\n').all(|line| line.len() <= 20));
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let mut meter = Meter::of(true, 20);
            let pieces = cuts.windows(2).all(|cut| meter.takes(&bytes[cut[0]..cut[1]]));
            prop_assert_eq!(pieces, whole);
        }
    }
}
