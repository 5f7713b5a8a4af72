//! Whole nodes on loopback, asked over TCP.
#![forbid(unsafe_code)]

mod admin;
mod ask;
mod binary;
mod client;
mod clock;
mod commands;
mod descriptors;
mod inspect;
mod lifecycle;
mod limits;
mod many_cores;
mod native;
mod pages;
mod process;
mod starts;
