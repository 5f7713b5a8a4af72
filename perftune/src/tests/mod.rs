#![allow(clippy::disallowed_methods, reason = "tests make trees of files")]

mod applying;
mod builder;
mod cards;
mod commands;
mod edits;
mod faults;
mod golden;
mod limits;
mod machines;
mod other_roots;
mod properties;
mod refusals;
mod unfinished;
