//! `sidestep mutate`.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Error, bail};
use clap::{ArgAction, ValueEnum};
use sidestep_webhook::decide::Decision;
use sidestep_webhook::offline::{self, Document, Printed};
use sidestep_webhook::settings::{Enrolment, IstioCni, Reach, Settings};

/// The exit code with `--exit-code` where a pod is left to Istio.
const LEFT: u8 = 3;

/// Decides about the Pods and workloads in a file as the admission webhook does, with the same code.
///
/// The file must hold pods that Istio has injected already, for example by `istioctl kube-inject`. Comments, order and style of
/// everything that does not change stay, and other documents come out to the letter. YAML is read as kubectl reads it: `0755` is 493,
/// `yes` is true. A pod template is found in an object of any kind, at spec.template, template or spec.jobTemplate.spec.template.
///
/// The decision about each pod, with its reason, goes to standard error. The command assumes that every node runs an agent;
/// labels of a namespace count if the file holds the Namespace.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  istioctl kube-inject -f app.yaml | sidestep mutate -f - | kubectl apply -f -
  sidestep mutate -f injected.yaml --dry-run=diff | patch -p1
  sidestep mutate -R -f rendered/ --exit-code >accelerated.yaml   # 3: some pods stay Istio's")]
pub(crate) struct Args {
    /// YAML with any number of documents, or JSON; - is standard input, a folder its *.yaml, *.yml and *.json. May be repeated
    #[arg(long, short = 'f', value_name = "FILE", required = true)]
    filename: Vec<PathBuf>,

    /// Also read the folders in a folder
    #[arg(long, short = 'R')]
    recursive: bool,

    /// Exit with 3 if a pod with an istio-init is left to Istio
    #[arg(long)]
    exit_code: bool,

    /// File for the result; standard output if not given
    #[arg(long, short = 'o', value_name = "FILE")]
    output: Option<PathBuf>,

    /// Show the changes in place of the result
    #[arg(long, value_name = "FORM")]
    dry_run: Option<DryRun>,

    /// Namespace of objects that have none
    #[arg(long, short = 'n', value_name = "NAME", default_value = "default")]
    namespace: String,

    /// opt-out accelerates every injected pod that does not refuse; opt-in only those that ask
    #[arg(long, value_name = "WHICH", default_value = "opt-out")]
    enrolment: Enrolment,

    /// Pods of istio-cni to accelerate: all, those whose istio-validation is their first init container (gate-first), or none
    #[arg(long, value_name = "WHICH", default_value = "all")]
    istio_cni: IstioCni,

    /// Reach of the shortcut where neither pod nor namespace sets one: off, pod, namespace or node
    #[arg(long, value_name = "REACH", default_value = "namespace")]
    shortcut: Reach,

    /// Time that a gate waits for its node's agent
    #[arg(long, value_name = "SECONDS", default_value = "300", value_parser = parse_seconds)]
    probe_timeout: Duration,

    /// Keep accelerated pods off nodes that are labelled sidestep.dev/unsupported or sidestep.dev/without-agent, and on Linux on
    /// amd64 or arm64, as the chart does by default; =false leaves the affinity as it is
    #[arg(long, value_name = "BOOL", default_value_t = true, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    avoid_unsupported_nodes: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum DryRun {
    /// JSON Patch operations (RFC 6902), as YAML
    Patch,
    /// A unified diff of the files, which `patch -p1` applies
    Diff,
}

impl Args {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let Self {
            filename,
            recursive,
            exit_code,
            output,
            dry_run,
            namespace,
            enrolment,
            istio_cni,
            shortcut,
            probe_timeout,
            avoid_unsupported_nodes,
        } = self;
        let settings = Settings {
            enrolment,
            istio_cni,
            reach: shortcut,
            probe_timeout,
            avoid_unsupported: avoid_unsupported_nodes,
            ..Settings::default()
        };
        let files = read_all(&filename, recursive)?;
        let texts: Vec<_> = files.iter().map(|(_, text)| text.as_str()).collect();
        let mutated = offline::mutate_files(&texts, &namespace, &settings)
            .map_err(|(file, error)| Error::new(error).context(files[file].0.clone()))?;
        let documents = || mutated.iter().flatten();
        for document in documents() {
            tell(document);
        }
        let printed = || {
            let files = mutated.iter().zip(&files);
            let printed = files.map(|(documents, file)| printed(file, documents));
            printed.collect::<Vec<_>>()
        };
        let result = match dry_run {
            None => Printed::joined(&printed()),
            Some(DryRun::Patch) => Document::joined(documents(), patch),
            Some(DryRun::Diff) => {
                let printed = printed();
                let files = printed.iter().zip(&files);
                let diffs = files.map(|(printed, (name, text))| printed.diff(name, text));
                diffs.collect()
            }
        };
        write(output.as_deref(), &result)?;
        let mut decisions = documents().flat_map(|document| &document.outcomes);
        let code = decisions
            .any(|outcome| matches!(outcome.decision, Decision::Leave(_) | Decision::Refuse(_)));
        Ok(if exit_code && code {
            ExitCode::from(LEFT)
        } else {
            ExitCode::SUCCESS
        })
    }
}

/// What was decided about each pod of a document.
fn tell(document: &Document) {
    for (what, place) in &document.unknown {
        eprintln!(
            "{what}: warning: the istio-init at {place} stays as it is: no pod template is known there"
        );
    }
    for outcome in &document.outcomes {
        match &outcome.decision {
            Decision::Accelerate(made) => {
                eprintln!("{}: accelerated: {}", outcome.what, made.policy);
            }
            Decision::Leave(reason) => {
                eprintln!("{}: left alone: {}", outcome.what, reason.annotation());
            }
            Decision::Refuse(reason) => {
                eprintln!("{}: would be refused: {reason}", outcome.what);
            }
            Decision::Nothing(why) => {
                eprintln!("{}: nothing to do: {}: {why}", outcome.what, why.reason());
            }
        }
        for warning in &outcome.warnings {
            eprintln!("{}: warning: {warning}", outcome.what);
        }
    }
}

/// A file as it is printed; its warnings are told.
fn printed((name, text): &(String, String), documents: &[Document]) -> Printed {
    let printed = Printed::new(text, documents);
    for warning in &printed.warnings {
        eprintln!("{name}: {warning}");
    }
    printed
}

fn patch(document: &Document) -> String {
    let names = document.outcomes.iter().map(|outcome| &outcome.what);
    let names: Vec<_> = names.map(String::as_str).collect();
    match names.as_slice() {
        [] => "# no pod in this document\n[]\n".to_owned(),
        names => format!("# {}\n{}", names.join(", "), document.patch_text()),
    }
}

/// Every file's name and text, folders opened.
fn read_all(names: &[PathBuf], recursive: bool) -> anyhow::Result<Vec<(String, String)>> {
    let mut files = Vec::new();
    for name in names {
        if name.is_dir() {
            let before = files.len();
            open(name, recursive, &mut files)?;
            if files.len() == before {
                bail!(
                    "{}: no *.yaml, *.yml or *.json in this folder",
                    name.display()
                );
            }
        } else {
            files.push(name.clone());
        }
    }
    let files = files.into_iter().map(|file| {
        let name = file.display().to_string();
        let text = read(&file).with_context(|| name.clone())?;
        Ok((name, text))
    });
    files.collect()
}

/// The files of a folder, in the order of their names, as kubectl takes them.
fn open(folder: &Path, recursive: bool, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let context = || folder.display().to_string();
    let entries = fs::read_dir(folder).with_context(context)?;
    let paths = entries.map(|entry| Ok(entry?.path()));
    let mut paths = paths
        .collect::<io::Result<Vec<_>>>()
        .with_context(context)?;
    paths.sort();
    for path in paths {
        if path.is_dir() {
            if recursive {
                open(&path, recursive, files)?;
            }
        } else if path
            .extension()
            .is_some_and(|end| ["yaml", "yml", "json"].iter().any(|known| end == *known))
        {
            files.push(path);
        }
    }
    Ok(())
}

/// A file's text; `-` is standard input.
pub(crate) fn read(file: &Path) -> io::Result<String> {
    if file == Path::new("-") {
        io::read_to_string(io::stdin())
    } else {
        fs::read_to_string(file)
    }
}

fn write(file: Option<&Path>, text: &str) -> anyhow::Result<()> {
    let Some(file) = file else {
        return match io::stdout().write_all(text.as_bytes()) {
            // Who reads has seen enough, as `head` does.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            done => Ok(done?),
        };
    };
    fs::write(file, text).with_context(|| file.display().to_string())
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("want a number of seconds, at least 1".to_owned()),
        Ok(seconds) => Ok(Duration::from_secs(seconds)),
    }
}
