//! What tests do with a cluster: apply, wait, look, and run programs in pods. All of it panics with what was said when it fails.
