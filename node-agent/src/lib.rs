//! The Weft node agent
