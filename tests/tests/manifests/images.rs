//! The archives that images and the chart are packed into, by the OCI image specification.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::{Value, json};
use sidestep_kit::{needs, parts};
use tempfile::TempDir;

const NAME: &str = "sidestep.invalid/test:1";

/// Packs folders that hold a file with the architecture's name, and unpacks the archive.
fn pack(architectures: &[&str]) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    let mut python = Command::new("python3");
    python
        .arg(parts::workspace().join("manifests/images/oci.py"))
        .args(["--name", NAME, "--config", r#"{"User": "0:0"}"#])
        .arg("--output")
        .arg(at("image.tar"));
    for architecture in architectures {
        fs::create_dir(at(architecture)).expect("a new folder");
        fs::write(at(architecture).join("name"), architecture).expect("a new file");
        python.arg(format!(
            "--root={architecture}={}",
            at(architecture).display()
        ));
    }
    parts::finish(&mut python).expect("it is packed");
    let mut tar = Command::new("tar");
    tar.arg("-xf").arg(at("image.tar")).arg("-C");
    parts::finish(tar.arg(folder.path())).expect("it is a tar archive");
    folder
}

/// What a descriptor names; its digest and size are right.
fn blob(archive: &Path, descriptor: &Value, kind: &str) -> Vec<u8> {
    let media = format!("application/vnd.oci.image.{kind}");
    assert_eq!(descriptor["mediaType"], media);
    let digest = descriptor["digest"].as_str().expect("a digest");
    let (_, name) = digest.split_once("sha256:").expect("by SHA-256");
    let path = archive.join("blobs/sha256").join(name);
    let sum = parts::finish(Command::new("sha256sum").arg(&path)).expect("it is there");
    assert!(sum.starts_with(name), "{sum}");
    let content = fs::read(path).expect("it is there");
    assert_eq!(descriptor["size"], content.len());
    content
}

fn parsed(content: &[u8]) -> Value {
    serde_json::from_slice(content).expect("JSON")
}

/// The image of one architecture.
fn assert_image(archive: &Path, descriptor: &Value, architecture: &str) {
    assert_eq!(
        descriptor["platform"],
        json!({"architecture": architecture, "os": "linux"})
    );
    let manifest = parsed(&blob(archive, descriptor, "manifest.v1+json"));
    assert_eq!(manifest["schemaVersion"], 2);
    let config = parsed(&blob(archive, &manifest["config"], "config.v1+json"));
    assert_eq!(config["architecture"], architecture);
    assert_eq!(config["os"], "linux");
    assert_eq!(config["config"]["User"], "0:0");
    let layers = manifest["layers"].as_array().expect("layers");
    assert_eq!(layers.len(), 1);
    assert_eq!(config["rootfs"]["diff_ids"], json!([layers[0]["digest"]]));
    fs::write(
        archive.join("layer"),
        blob(archive, &layers[0], "layer.v1.tar"),
    )
    .expect("a file");
    let mut tar = Command::new("tar");
    tar.arg("-xOf").arg(archive.join("layer")).arg("name");
    assert_eq!(parts::finish(&mut tar).expect("its file"), architecture);
}

fn index(archive: &Path) -> Value {
    let layout = parsed(&fs::read(archive.join("oci-layout")).expect("a layout"));
    assert_eq!(layout["imageLayoutVersion"], "1.0.0");
    let index = parsed(&fs::read(archive.join("index.json")).expect("an index"));
    let named = &index["manifests"].as_array().expect("a list")[..];
    assert_eq!(named.len(), 1, "{index}");
    let annotations = &named[0]["annotations"];
    assert_eq!(annotations["io.containerd.image.name"], NAME);
    assert_eq!(annotations["org.opencontainers.image.ref.name"], "1");
    named[0].clone()
}

#[needs("python3")]
fn an_image_for_two_architectures_is_an_index_of_two() {
    let archive = pack(&["amd64", "arm64"]);
    let named = index(archive.path());
    let images = parsed(&blob(archive.path(), &named, "index.v1+json"));
    let manifests = images["manifests"].as_array().expect("a list");
    assert_eq!(manifests.len(), 2);
    for (descriptor, architecture) in manifests.iter().zip(["amd64", "arm64"]) {
        assert_image(archive.path(), descriptor, architecture);
    }
}

#[needs("python3")]
fn an_image_for_one_architecture_is_named_itself() {
    let archive = pack(&["arm64"]);
    assert_image(archive.path(), &index(archive.path()), "arm64");
}

/// containerd as `make cluster` runs it, with nothing but a store of images.
#[needs(root, "python3", part("containerd"), part("ctr"))]
fn containerd_takes_the_image_for_its_own_architecture_and_for_another() {
    let archive = pack(&["amd64", "arm64"]);
    let at = |name: &str| archive.path().join(name);
    let config = format!(
        "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.internal.v1.opt\"]\n\
         [grpc]\naddress = {:?}\n",
        at("root"),
        at("state"),
        at("socket")
    );
    fs::write(at("containerd.toml"), config).expect("a file");
    let mut containerd = Command::new(parts::program("containerd"))
        .arg("--config")
        .arg(at("containerd.toml"))
        .stderr(Stdio::null())
        .spawn()
        .expect("containerd starts");
    let ctr = |words: &[&str]| {
        let mut ctr = Command::new(parts::program("ctr"));
        // It waits for the socket.
        ctr.arg("--address").arg(at("socket"));
        ctr.args(["--connect-timeout", "60s", "images"]).args(words);
        parts::finish(&mut ctr)
    };
    let path = at("image.tar");
    let path = path.to_str().expect("text");
    let outcome = [
        &["import", path][..],
        &["import", "--platform", "linux/arm64", path],
        &["import", "--all-platforms", path],
        &["list"],
    ]
    .map(ctr);
    containerd.kill().expect("it is our child");
    containerd.wait().expect("it was killed");
    let [.., list] = outcome.map(|outcome| outcome.expect("ctr succeeds"));
    let line = list.lines().find(|line| line.starts_with(NAME));
    let line = line.unwrap_or_else(|| panic!("{list}"));
    assert!(line.contains("linux/amd64,linux/arm64"), "{line}");
}

/// The module that reads Chart.yaml.
fn python_reads_yaml() -> Result<(), String> {
    needs::program("python3")?;
    let mut python = Command::new("python3");
    parts::finish(python.args(["-c", "import yaml"]))
        .map_err(|_| "it needs python3-yaml".to_owned())?;
    Ok(())
}

#[needs(part("helm"), self::python_reads_yaml)]
fn the_chart_is_packed_as_helm_takes_it_and_always_the_same() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    // Another folder, with other times and other rights.
    let chart = parts::workspace().join("manifests/chart");
    let mut copy = Command::new("cp");
    parts::finish(copy.arg("-r").args([&chart, &at("copy")])).expect("it is copied");
    fs::write(at("copy/.left"), "by an editor").expect("a file");
    let [one, two] = [(&chart, "one"), (&at("copy"), "two")].map(|(chart, name)| {
        let mut python = Command::new("python3");
        python.arg(parts::workspace().join("manifests/images/chart.py"));
        python.arg("--chart").arg(chart);
        python.arg("--archive").arg(at(&format!("{name}.tgz")));
        python.arg("--oci").arg(at(&format!("{name}.tar")));
        parts::finish(&mut python).expect("it is packed");
        ["tgz", "tar"].map(|kind| fs::read(at(&format!("{name}.{kind}"))).expect("a file"))
    });
    assert!(one == two, "the archives differ");

    let rendered = |chart: &Path| {
        let mut helm = Command::new(parts::program("helm"));
        helm.args(["template", "sidestep", "--namespace=sidestep-system"]);
        parts::finish(helm.arg(chart)).expect("it is a chart")
    };
    assert_eq!(rendered(&at("one.tgz")), rendered(&chart));

    let mut tar = Command::new("tar");
    tar.arg("-xf")
        .arg(at("one.tar"))
        .arg("-C")
        .arg(folder.path());
    parts::finish(&mut tar).expect("it is a tar archive");
    let index = parsed(&fs::read(at("index.json")).expect("an index"));
    let named = &index["manifests"][0];
    let version = &named["annotations"]["org.opencontainers.image.ref.name"];
    assert_eq!(version, env!("CARGO_PKG_VERSION"));
    let manifest = parsed(&blob(folder.path(), named, "manifest.v1+json"));
    let media = |part: &Value| part["mediaType"].as_str().expect("a type").to_owned();
    // As Helm names them.
    let [config, layer] = [&manifest["config"], &manifest["layers"][0]];
    assert_eq!(media(config), "application/vnd.cncf.helm.config.v1+json");
    assert_eq!(
        media(layer),
        "application/vnd.cncf.helm.chart.content.v1.tar+gzip"
    );
    let size = usize::try_from(layer["size"].as_u64().expect("a size")).expect("a size");
    assert_eq!(size, one[0].len());
}

#[needs("python3")]
fn a_list_of_parts_has_nothing_of_this_machine_and_of_this_run() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    let here = parts::workspace().display();
    let list = json!({
        "bomFormat": "CycloneDX", "serialNumber": "urn:uuid:1",
        "components": [{"bom-ref": format!("path+file://{here}/agent#sidestep-agent@1"), "name": "sidestep-agent"}],
    });
    fs::write(at("from.json"), list.to_string()).expect("a file");
    let mut python = Command::new("python3");
    python
        .current_dir(parts::workspace())
        .args(["manifests/images/parts.py", "list"]);
    parts::finish(python.args([at("from.json"), at("to.json")])).expect("it is a list");
    let plain = json!({
        "bomFormat": "CycloneDX",
        "components": [{"bom-ref": "path+file:///sidestep/agent#sidestep-agent@1", "name": "sidestep-agent"}],
    });
    assert_eq!(parsed(&fs::read(at("to.json")).expect("a file")), plain);
}
