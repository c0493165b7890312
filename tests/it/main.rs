//! Promises kept end to end. One file per promise; its name is the promise.

mod agent_and_collector_trust_each_other;
