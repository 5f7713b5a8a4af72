//! Whole nodes on loopback, asked over TCP.

mod admin;
mod binary;
mod client;
mod commands;
mod lifecycle;
mod limits;
mod many_cores;
mod process;
