#![allow(clippy::disallowed_methods, reason = "tests make trees of files")]

mod applying;
mod builder;
mod cards;
mod commands;
mod faults;
mod golden;
mod machines;
mod properties;
mod refusals;
