//! Delivery: from the spool to each sink, by itself, until the other end has taken everything.
