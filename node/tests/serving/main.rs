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
mod default_namespace;
mod descriptors;
mod disk_shares;
mod durability;
mod inspect;
mod keyed;
mod large;
mod leases;
mod lifecycle;
mod limits;
mod local_socket;
mod looking;
mod many_cores;
mod measuring;
mod memcached_binary;
mod memcached_options;
mod multi;
mod namespaces;
mod native;
mod once;
mod pages;
mod process;
mod records;
mod starts;
mod tuning;
