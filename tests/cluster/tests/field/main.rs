//! The field lab: nodes as people have them, beside the cluster's own, and traffic between them. One lab for all tests, which take turns.
//!
//! `SIDESTEP_FIELD` names the machines, parted by commas; without it there is one, `debian-13`. What they were found to be is printed as a
//! table at the end.

mod lab;
mod load;
mod nodes;
mod table;
mod traffic;
mod upgrade;
mod upset;
