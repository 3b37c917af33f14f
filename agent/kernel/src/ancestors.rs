//! The processes that brought this one about: a container's runtime, and what started that. They are the machine's own,
//! which process 1 need not be: a machine may itself be a container.

use std::{fs, iter, process};

/// Their ids, the nearest first, as far as they can be seen.
pub fn ancestors() -> impl Iterator<Item = u32> {
    iter::successors(parent(process::id()), |pid| parent(*pid)).take_while(|pid| *pid > 0)
}

fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything.
    let behind_name = stat.rsplit_once(')')?.1;
    behind_name.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::parent_id;

    use super::ancestors;

    #[test]
    fn the_first_is_the_parent_and_the_last_has_none() {
        let all: Vec<u32> = ancestors().collect();
        assert_eq!(all.first(), Some(&parent_id()));
        assert!(all.iter().all(|pid| *pid > 0), "{all:?}");
    }
}
