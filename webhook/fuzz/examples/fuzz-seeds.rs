//! `fuzz-seeds FOLDER` writes the seeds of each target to FOLDER/<target>, and the dictionary of the policy check.

use std::path::PathBuf;
use std::{env, fs, io};

use sidestep_fuzz::seeds::{Seed, all, dictionary};

fn main() -> io::Result<()> {
    let folder = env::args_os().nth(1).map(PathBuf::from);
    let folder = folder.ok_or_else(|| io::Error::other("usage: fuzz-seeds FOLDER"))?;
    for Seed {
        target,
        name,
        input,
    } in all()
    {
        let folder = folder.join(target);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join(name), input)?;
    }
    fs::write(folder.join("policy.dict"), dictionary())
}
