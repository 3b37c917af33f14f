//! `sidestep explain` as people run it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

fn fixture(name: &str) -> PathBuf {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures");
    fixtures.join(name).join("pod.yaml")
}

fn explain(fixture_name: &str, words: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sidestep"))
        .args(["explain", "-f"])
        .arg(fixture(fixture_name))
        .args(words.split_whitespace())
        .output()
        .expect("the program starts")
}

#[track_caller]
fn told(fixture_name: &str, words: &str) -> Value {
    let output = explain(fixture_name, &format!("{words} -o json"));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// Row, verdict, and where to.
#[track_caller]
fn assert_told(fixture_name: &str, words: &str, row: &str, verdict: &str, to: &str) {
    let told = told(fixture_name, words);
    let field = |name: &str| told[name].as_str().unwrap_or_default().to_owned();
    assert_eq!(
        [field("row"), field("verdict"), field("to")],
        [row, verdict, to],
        "{words}: {told}"
    );
    assert!(!field("because").is_empty(), "{told}");
}

#[test]
fn it_tells_what_the_programs_would_do() {
    let ip = "--pod-ip 10.77.0.10";
    for (fixture, words, row, verdict, to) in [
        (
            "client",
            "--to 10.0.0.7:5432",
            "out-12",
            "redirect",
            "127.0.0.1:15001",
        ),
        (
            "client",
            "--to 10.0.0.7:5432 --proto udp",
            "out-13",
            "pass",
            "10.0.0.7:5432",
        ),
        (
            "client",
            "--to 10.0.0.7:80 --uid 1337",
            "out-5",
            "pass",
            "10.0.0.7:80",
        ),
        (
            "client",
            "--to 10.77.0.10:80 --uid 1337",
            "out-3",
            "redirect",
            "127.0.0.1:15006",
        ),
        (
            "client",
            "--to 10.77.0.10:80 --uid 1337 --source 127.0.0.6",
            "out-2",
            "pass",
            "10.77.0.10:80",
        ),
        (
            "client",
            "--to 127.0.0.1:8080",
            "out-4",
            "pass",
            "127.0.0.1:8080",
        ),
        (
            "client",
            "--to [2001:db8::7]:80",
            "out-family",
            "pass",
            "[2001:db8::7]:80",
        ),
        (
            "native-nftables",
            "--to [2001:db8::7]:80",
            "out-12",
            "redirect",
            "[::1]:15001",
        ),
        (
            "client",
            "--from 10.0.0.9:4000 --port 8080",
            "in-all",
            "redirect",
            "127.0.0.1:15006",
        ),
        (
            "client",
            "--from 10.0.0.9:4000 --port 15020",
            "in-excluded",
            "pass",
            "10.77.0.10:15020",
        ),
        (
            "client",
            "--from 10.0.0.9:4000 --port 53 --proto udp",
            "in-udp",
            "pass",
            "10.77.0.10:53",
        ),
        (
            "dns-all",
            "--to 8.8.8.8:53 --proto udp",
            "out-8",
            "redirect",
            "127.0.0.1:15053",
        ),
        (
            "dns",
            "--to 10.77.0.53:53 --proto udp --name-server 10.77.0.53",
            "out-8",
            "redirect",
            "127.0.0.1:15053",
        ),
    ] {
        assert_told(fixture, &format!("{words} {ip}"), row, verdict, to);
    }
    let v6 = "--to [2001:db8::7]:80 --pod-ip 10.77.0.10 --pod-ip fd77::10";
    assert_told("dual-stack", v6, "out-12", "redirect", "[::1]:15001");
}

#[test]
fn it_names_the_setting_that_says_so() {
    let told = told("exclude", "--to 10.77.9.1:80");
    assert_eq!(told["flag"], "-x");
    assert_eq!(
        told["annotation"],
        "traffic.sidecar.istio.io/excludeOutboundIPRanges"
    );
    assert_eq!(told["installed"], "global.proxy.excludeIPRanges");
    let output = explain("exclude", "--to 10.77.9.1:80");
    let text = String::from_utf8(output.stdout).expect("text");
    for line in [
        "  to 10.77.9.1:80, as user 0 and group 0",
        "  pass: 10.77.9.1:80",
        "  flag: -x",
        "  the pod's addresses are not known: say --pod-ip",
    ] {
        assert!(text.lines().any(|told| told == line), "{line}: {text}");
    }
}

#[test]
fn it_prints_every_row_that_a_policy_has() {
    let told = told("exclude", "--all");
    let rows = told["rows"].as_array().expect("rows");
    let names: Vec<_> = rows.iter().filter_map(|row| row["row"].as_str()).collect();
    assert!(names.contains(&"out-10") && names.contains(&"in-all"));
    assert!(!names.contains(&"out-8"), "no DNS is captured");
    assert!(told["policy"].is_object());
}

#[test]
fn a_pod_that_would_be_left_is_said_to_be() {
    let told = told("multus", "--to 10.0.0.7:80");
    let notes = told["notes"].to_string();
    assert!(notes.contains("left to Istio: several-networks"), "{notes}");
}

#[test]
fn what_cannot_be_told_is_said_with_its_own_exit_code() {
    for (fixture, words, why) in [
        ("client", "--to 10.0.0.7:0", "port 0 is no port"),
        ("client", "--to 10.0.0.7", "invalid"),
        ("client", "--to web:80", "invalid"),
        ("client", "--from 10.0.0.9:4000 --port 0", "invalid"),
        ("client", "--from 10.0.0.9:4000", "--port"),
        ("client", "--to 10.0.0.7:80 --pod-ip 10.0.0", "invalid"),
        ("client", "", "--to"),
        ("not-injected", "--to 10.0.0.7:80", "is it injected?"),
        (
            "tproxy",
            "--to 10.0.0.7:80",
            "Sidestep leaves it to Istio: tproxy",
        ),
        ("nobody", "--to 10.0.0.7:80", "nobody"),
    ] {
        let output = explain(fixture, words);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{words}: {error}");
        assert!(error.contains(why), "{words}: {error}");
        assert!(output.stdout.is_empty());
    }
}
