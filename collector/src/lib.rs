//! The collector: turns what agents saw into availability, breaches, alerts and pages.

pub mod contract;
pub mod evaluate;
