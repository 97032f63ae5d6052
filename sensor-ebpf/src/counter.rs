//! What is counted of the kernel half: one slot a reason, in one per-CPU record.
//!
//! Nothing is dropped in silence: whatever a program decides not to forward has a slot here. The labels
//! are metric labels and therefore stable.

/// A reason, and its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Counter {
    /// Request-side segments with payload seen at server sockets.
    RequestSegments,
    /// Their payload bytes.
    RequestBytes,
    /// Response-side segments with payload seen at server sockets.
    ResponseSegments,
    /// Their payload bytes.
    ResponseBytes,
    /// Records taken from the ring. The agent counts these two: in the kernel half they would be two locked additions a record.
    Records,
    /// Payload bytes taken from the ring.
    CapturedBytes,
    /// Times that the agent was woken.
    Wakeups,
    /// Request heads lost because the ring was full.
    RingFullRequest,
    /// Responses lost because the ring was full.
    RingFullResponse,
    /// Opens and closes lost because the ring was full.
    RingFullEvent,
    /// Data on a handshake shed because the ring was filling: the cheapest thing to flood with.
    RingFullListener,
    /// Responses shed because the ring was filling: none that began a failure or answered a POST.
    ShedResponse,
    /// Request bodies shed because the ring was filling.
    ShedBody,
    /// Segments whose payload the kernel would not hand out.
    Unreadable,
    /// Segments whose headers could not be followed.
    Headers,
    /// Sockets for which the kernel had no memory to keep state.
    NoStorage,
    /// Request bytes beyond the credit of a turn, before the agent said anything about them.
    CreditBytes,
    /// Request bytes that the agent did not want.
    GrantedBytes,
    /// Request segments of bytes that TCP had accepted before.
    Retransmitted,
    /// Request segments further ahead than any window reaches.
    OutOfWindow,
    /// Request segments with urgent data, which TCP takes out of the stream.
    Urgent,
    /// Connections muted: TLS.
    MutedTls,
    /// Connections muted: HTTP/2 with prior knowledge.
    MutedHttp2,
    /// Connections muted: neither HTTP nor TLS.
    MutedOpaque,
    /// Connections muted: their port is not watched.
    MutedPort,
    /// Connections known to be the client's end.
    ClientSockets,
    /// Connections known to be the server's end.
    ServerSockets,
}

/// Slots.
pub const COUNTERS: usize = Counter::ALL.len();

/// What a counter means to the coverage of the sensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// Nothing was lost.
    Fact,
    /// Something was lost, but no request.
    Loss,
    /// A request may be among what was lost.
    RequestLoss,
    /// Something was left out on purpose, so that more important things are not lost.
    Shed,
}

impl Counter {
    /// Every counter, in the order of the slots.
    pub const ALL: [Self; 27] = [
        Self::RequestSegments,
        Self::RequestBytes,
        Self::ResponseSegments,
        Self::ResponseBytes,
        Self::Records,
        Self::CapturedBytes,
        Self::Wakeups,
        Self::RingFullRequest,
        Self::RingFullResponse,
        Self::RingFullEvent,
        Self::RingFullListener,
        Self::ShedResponse,
        Self::ShedBody,
        Self::Unreadable,
        Self::Headers,
        Self::NoStorage,
        Self::CreditBytes,
        Self::GrantedBytes,
        Self::Retransmitted,
        Self::OutOfWindow,
        Self::Urgent,
        Self::MutedTls,
        Self::MutedHttp2,
        Self::MutedOpaque,
        Self::MutedPort,
        Self::ClientSockets,
        Self::ServerSockets,
    ];

    /// The metric label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::RequestSegments => "request_segments",
            Self::RequestBytes => "request_bytes",
            Self::ResponseSegments => "response_segments",
            Self::ResponseBytes => "response_bytes",
            Self::Records => "records",
            Self::CapturedBytes => "captured_bytes",
            Self::Wakeups => "wakeups",
            Self::RingFullRequest => "ring_full_request",
            Self::RingFullResponse => "ring_full_response",
            Self::RingFullEvent => "ring_full_event",
            Self::RingFullListener => "ring_full_listener",
            Self::ShedResponse => "shed_response",
            Self::ShedBody => "shed_body",
            Self::Unreadable => "unreadable",
            Self::Headers => "headers",
            Self::NoStorage => "no_storage",
            Self::CreditBytes => "credit_bytes",
            Self::GrantedBytes => "granted_bytes",
            Self::Retransmitted => "retransmitted",
            Self::OutOfWindow => "out_of_window",
            Self::Urgent => "urgent",
            Self::MutedTls => "muted_tls",
            Self::MutedHttp2 => "muted_h2",
            Self::MutedOpaque => "muted_opaque",
            Self::MutedPort => "muted_port",
            Self::ClientSockets => "client_sockets",
            Self::ServerSockets => "server_sockets",
        }
    }

    /// What a rise of it means.
    ///
    /// Bytes beyond the credit are no loss here: they show as a gap in their own stream, and only the parser
    /// knows whether the gap lies inside a body.
    #[must_use]
    pub const fn meaning(self) -> Meaning {
        match self {
            Self::RingFullRequest
            | Self::RingFullListener
            | Self::Unreadable
            | Self::Headers
            | Self::NoStorage => Meaning::RequestLoss,
            Self::RingFullResponse | Self::RingFullEvent => Meaning::Loss,
            Self::ShedResponse | Self::ShedBody => Meaning::Shed,
            _ => Meaning::Fact,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_follow_the_order_of_declaration() {
        for (slot, counter) in Counter::ALL.iter().enumerate() {
            assert_eq!(*counter as usize, slot, "{}", counter.label());
        }
    }
}
