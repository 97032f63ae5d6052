//! A response body that is made while it is read: a writer that waits for its reader, and nobody else does.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::body::{Body, Bytes, Frame};
use tokio::sync::mpsc;

/// Pieces that wait for the reader, besides the one that is being sent: with some 200 KiB a piece, half a megabyte.
const PIECES: usize = 1;

/// The reader's end, as the body of a response.
pub struct Flow(mpsc::Receiver<Bytes>);

/// The writer's end.
#[derive(Clone)]
pub struct Writer(mpsc::Sender<Bytes>);

/// The reader has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

/// Both ends.
#[must_use]
pub fn flow() -> (Writer, Flow) {
    let (send, receive) = mpsc::channel(PIECES);
    (Writer(send), Flow(receive))
}

impl Writer {
    /// Hands over a piece when the reader has taken those before it; nothing of an empty one.
    ///
    /// # Errors
    /// When the reader has gone.
    pub async fn send(&self, piece: String) -> Result<(), Gone> {
        if piece.is_empty() {
            return if self.0.is_closed() { Err(Gone) } else { Ok(()) };
        }
        self.0.send(Bytes::from(piece)).await.map_err(|_closed| Gone)
    }

    /// Until the reader has gone.
    pub async fn gone(&self) {
        self.0.closed().await;
    }
}

impl Body for Flow {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
    }
}
