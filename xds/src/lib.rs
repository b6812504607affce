//! The xDS protocol as a pure state machine, and its gRPC transport
