//! The node as a library: wiring, configuration, connections.
