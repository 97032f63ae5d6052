//! What the fuzz targets assert. The bodies are ordinary functions, so that the agent's own tests run them too.

pub mod wire;
