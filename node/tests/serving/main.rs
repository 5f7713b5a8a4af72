//! Whole nodes on loopback, asked over TCP.
#![forbid(unsafe_code)]

mod admin;
mod ask;
mod auth;
mod binary;
mod client;
mod client_handle;
mod clock;
mod commands;
mod descriptors;
mod inspect;
mod lifecycle;
mod limits;
mod local_socket;
mod many_cores;
mod memcached_binary;
mod memcached_options;
mod native;
mod pages;
mod process;
mod records;
mod starts;
