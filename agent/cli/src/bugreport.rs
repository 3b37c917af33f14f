//! `sidestep bugreport`.
//!
//! [`parts`] reads what goes into the archive, and [`clean`] takes out of it what nobody else may see. Secrets are never read.

mod clean;
mod parts;

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use flate2::Compression;
use flate2::write::GzEncoder;
use k8s_openapi::jiff::Timestamp;
use tar::{Builder, Header};

use self::parts::Part;
use crate::cluster;

/// The folder in the archive.
const FOLDER: &str = "sidestep-bugreport";

/// Writes one archive for who is to find a fault: what agents and webhook tell and log, nodes, Events, and how Sidestep is installed.
///
/// It holds no Secret, no value of an environment variable, no annotation, and of certificates only the fingerprints. It does hold
/// names: of nodes, namespaces and pods; and logs, as the programs wrote them. Look through it before you pass it on.
///
/// Exit codes: 0 written, whatever could not be read (errors.txt in the archive says what); 1 for everything else.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  sidestep bugreport
  sidestep bugreport -o fault.tar.gz --lines 20000
  tar tzf fault.tar.gz")]
pub(crate) struct Args {
    /// File to write; otherwise sidestep-bugreport-TIME.tar.gz in this folder
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Lines of each container's log, the last ones
    #[arg(long, value_name = "NUMBER", default_value = "5000")]
    lines: u32,

    /// The namespace that Sidestep is installed in
    #[arg(long, value_name = "NAME", default_value = cluster::NAMESPACE)]
    sidestep_namespace: String,
}

impl Args {
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let Self {
            output,
            lines,
            sidestep_namespace,
        } = self;
        let client = cluster::client_that_asks_once().await?;
        let now = Timestamp::now();
        let file = output.unwrap_or_else(|| {
            let time = now.strftime("%Y%m%dT%H%M%SZ");
            format!("sidestep-bugreport-{time}.tar.gz").into()
        });
        let parts = parts::read(&client, &sidestep_namespace, lines);
        let parts = cluster::awaited("reading", Box::pin(parts)).await?;
        write(&file, &parts, now).with_context(|| file.display().to_string())?;
        println!("{}", file.display());
        Ok(ExitCode::SUCCESS)
    }
}

fn write(file: &Path, parts: &[Part], now: Timestamp) -> anyhow::Result<()> {
    let file = File::create(file)?;
    let mut archive = Builder::new(GzEncoder::new(file, Compression::default()));
    for Part { name, content } in parts {
        let mut header = Header::new_gnu();
        header.set_size(content.len().try_into()?);
        header.set_mode(0o644);
        header.set_mtime(now.as_second().try_into()?);
        archive.append_data(&mut header, format!("{FOLDER}/{name}"), content.as_slice())?;
    }
    archive.into_inner()?.finish()?.flush()?;
    Ok(())
}
