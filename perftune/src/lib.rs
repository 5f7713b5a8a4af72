//! Tuning a machine for the node, and measuring its disks.
//!
//! ```text
//!   tree            machine            plan               print  a table, a script
//!   files of   -->  a plain value -->  pure: masks,  -->  apply  with the old values kept first
//!   a system        of what it is      settings           (undo) from those old values
//! ```
//!
//! [`disk`] has what a disk can do, as figures in a file, and [`measure`] finds them out over
//! whatever carries a load out; [`iotune`] is the command that does so on the node's own ring.
//!
//! Reading decides nothing, deciding touches nothing, and what is printed is what would be applied.
//! Start at [`plan::decide`]; [`command`] is `larder tune`.
#![forbid(unsafe_code)]

pub mod apply;
pub mod command;
pub mod cpu_mask;
pub mod cpu_plan;
pub mod disk;
pub mod error;
pub mod iotune;
pub mod machine;
pub mod measure;
pub mod options;
pub mod plan;
pub mod print;
mod state;
pub mod tree;

#[cfg(test)]
mod tests;
