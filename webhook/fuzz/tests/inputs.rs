//! The checks hold for the seeds, and for every input that ever broke one.

use std::fs;
use std::path::Path;

use sidestep_fuzz::CHECKS;
use sidestep_fuzz::seeds::{all, dictionary};

#[test]
fn every_seed_passes() {
    let seeds = all();
    for (target, check) in CHECKS {
        let of_target: Vec<_> = seeds.iter().filter(|seed| seed.target == target).collect();
        assert!(of_target.len() > 40, "{target}: {}", of_target.len());
        for seed in of_target {
            println!("{target}/{}", seed.name);
            check(&seed.input);
        }
    }
}

#[test]
fn nothing_that_was_ever_found_comes_back() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("regressions");
    for (target, check) in CHECKS {
        let files = fs::read_dir(folder.join(target)).into_iter().flatten();
        for file in files {
            let path = file.expect("a file").path();
            println!("{}", path.display());
            check(&fs::read(path).expect("a readable file"));
        }
    }
}

#[test]
fn the_dictionary_knows_every_flag() {
    let dictionary = dictionary();
    for flag in [
        "\"\\x0a--dual-stack=\"",
        "\"\\x0a-u\"",
        "\"\\x0a$DUAL_STACK=\"",
    ] {
        assert!(dictionary.lines().any(|line| line == flag), "{flag}");
    }
}
