//! Which programs, and what their clients do.

use std::{fs, path::Path, process::Command};

use sidestep_kit::net::run;

use crate::{
    servers::postgresql_program,
    world::{SERVER, World, part},
};

/// A client that prints what it got: counts and sums.
pub struct Client {
    pub name: &'static str,
    pub run: fn(&World) -> String,
    /// Its sockets block, sooner or later, so they keep to TCP.
    pub blocks: bool,
    /// It asks for the kernel's TLS, and does without where that is refused.
    pub asks_for_tls: bool,
}

const fn client(name: &'static str, run: fn(&World) -> String) -> Client {
    Client {
        name,
        run,
        blocks: false,
        asks_for_tls: false,
    }
}

const fn tls_client(name: &'static str, run: fn(&World) -> String) -> Client {
    Client {
        asks_for_tls: true,
        ..client(name, run)
    }
}

const fn blocking_client(name: &'static str, run: fn(&World) -> String) -> Client {
    Client {
        blocks: true,
        ..client(name, run)
    }
}

pub const ALL: [Client; 18] = [
    client("a large file by sendfile, HTTP/1.1", |w| {
        download(w, "--http1.1", 8080)
    }),
    client("a large file by sendfile, HTTP/2", |w| {
        download(w, "--http2-prior-knowledge", 8084)
    }),
    client("a large file by sendfile, passed on as TCP", |w| {
        download(w, "--http1.1", 9080)
    }),
    client("a large file up, HTTP/1.1", |w| {
        upload(w, "--http1.1", 8080)
    }),
    client("a large file up, HTTP/2", |w| {
        upload(w, "--http2-prior-knowledge", 8084)
    }),
    client("many small files at once", small_files),
    client("gRPC streams both ways", |w| python(w, "grpc", 8081)),
    client("WebSocket", |w| python(w, "websocket", 8082)),
    client("Go, HTTP/1.1", |w| go(w, "http1", 8083)),
    client("Go, HTTP/2", |w| go(w, "http2", 8083)),
    client("Go, io.Copy at both ends", |w| go(w, "copy", 9100)),
    client("Java, HTTP/1.1", |w| java(w, "http1", 8083)),
    client("Java, HTTP/2", |w| java(w, "http2", 8083)),
    blocking_client("Java, a blocking socket", |w| java(w, "socket", 9100)),
    client("PostgreSQL", postgresql),
    // hiredis connects without blocking, and blocks afterwards.
    blocking_client("Redis", redis),
    tls_client("OpenSSL that asks for the kernel's TLS", openssl),
    tls_client("Go that asks for the kernel's TLS", |w| go(w, "tls", 9443)),
];

/// The sum of a file, and its size.
fn sum(path: &Path) -> String {
    let output = run(Command::new("sha256sum").arg(path));
    let text = String::from_utf8(output.stdout).expect("text");
    let size = path.metadata().expect("a file of ours").len();
    format!(
        "{size} bytes, {}\n",
        text.split(' ').next().unwrap_or_default()
    )
}

fn download(world: &World, version: &str, port: u16) -> String {
    let got = world.folder().join("got");
    let url = format!("http://{SERVER}:{port}/large");
    let arguments = [version, "-sSf", "-o", "got", &url];
    let said = world.run(Path::new("/usr/bin/curl"), &arguments, None);
    let sum = sum(&got);
    fs::remove_file(got).expect("a file of ours");
    sum + &said
}

fn upload(world: &World, version: &str, port: u16) -> String {
    let url = format!("http://{SERVER}:{port}/up/{version}");
    let large = world.folder().join("www/large");
    let large = large.to_str().expect("text");
    let write = "%{http_code} %{size_upload}";
    let arguments = [version, "-sSf", "-w", write, "-T", large, &url];
    let said = world.run(Path::new("/usr/bin/curl"), &arguments, None);
    let stored = world.folder().join("www/up").join(version);
    let sum = sum(&stored);
    fs::remove_file(stored).expect("a file of ours");
    sum + &said
}

fn small_files(world: &World) -> String {
    let url = format!("http://{SERVER}:8080/small/[1-200]");
    let arguments = ["-sSf", "-Z", "--parallel-max", "20", "-o", "small-#1", &url];
    let said = world.run(Path::new("/usr/bin/curl"), &arguments, None);
    let sums = (1..=200).map(|number| sum(&world.folder().join(format!("small-{number}"))));
    sums.collect::<String>() + &said
}

fn address(port: u16) -> String {
    format!("{SERVER}:{port}")
}

fn python(world: &World, what: &str, port: u16) -> String {
    let arguments = ["streams.py", what, &address(port)];
    world.run(Path::new("/usr/bin/python3"), &arguments, None)
}

fn openssl(world: &World) -> String {
    let said = python(world, "tls", 9443);
    let stored = world.folder().join("www/up/tls");
    let sum = sum(&stored);
    fs::remove_file(stored).expect("a file of ours");
    sum + &said
}

fn go(world: &World, what: &str, port: u16) -> String {
    world.run(
        &part(".parts/bin/sidestep-go"),
        &[what, &address(port)],
        None,
    )
}

fn java(world: &World, what: &str, port: u16) -> String {
    let class = world.folder().join("java");
    let class = class.to_str().expect("text");
    let arguments = ["-Xshare:auto", "-cp", class, "Client", what, &address(port)];
    world.run(Path::new("/usr/bin/java"), &arguments, None)
}

fn postgresql(world: &World) -> String {
    let program = postgresql_program("psql");
    let ask = |arguments: &[&str]| {
        let all = [
            "-h",
            SERVER,
            "-U",
            "postgres",
            "-X",
            "-q",
            "-A",
            "-t",
            "-v",
            "ON_ERROR_STOP=1",
        ];
        world.run(&program, &[&all[..], arguments].concat(), None)
    };
    let mut said = ask(&[
        "-c",
        "drop table if exists rows, back",
        "-c",
        "create table rows as select i, md5(i::text) as sum from generate_series(1, 200000) i",
        "-c",
        "\\copy rows to 'rows.tsv'",
    ]);
    said += &sum(&world.folder().join("rows.tsv"));
    said += &ask(&[
        "-c",
        "create table back (like rows)",
        "-c",
        "\\copy back from 'rows.tsv'",
        "-c",
        "create index on back (i)",
        "-c",
        "select count(*), md5(string_agg(sum, ',' order by i)) from back",
        "-c",
        "select repeat(md5('large'), 200000)",
    ]);
    // One after the other in one session.
    let questions: Vec<String> = (1..=1000)
        .map(|i| format!("select sum from back where i = {};\n", i * 199))
        .collect();
    let file = world.folder().join("questions.sql");
    fs::write(&file, questions.concat()).expect("a folder of ours");
    said + &ask(&["-f", file.to_str().expect("text")])
}

fn redis(world: &World) -> String {
    let ask = |arguments: &[&str], input: Option<&Path>| {
        let all = ["-h", SERVER];
        let program = Path::new("/usr/bin/redis-cli");
        world.run(program, &[&all[..], arguments].concat(), input)
    };
    let commands = world.folder().join("commands");
    fs::write(&commands, "INCR counter\r\n".repeat(50_000)).expect("a folder of ours");
    ask(&["DEL", "counter"], None);
    let piped = ask(&["--pipe"], Some(&commands));
    let counts = piped.lines().last().unwrap_or_default().to_owned();
    let blob = world.folder().join("blob");
    let large = fs::read(world.folder().join("www/large")).expect("a file of ours");
    fs::write(&blob, &large[..4 << 20]).expect("a folder of ours");
    let stored = ask(&["-x", "SET", "blob"], Some(&blob));
    let texts = ask(&["SET", "text", &"t".repeat(100_000)], None);
    let got = ask(&["GET", "text"], None);
    let length = ask(&["STRLEN", "blob"], None);
    let sum = ask(
        &[
            "EVAL",
            "return redis.sha1hex(redis.call('GET', 'blob'))",
            "0",
        ],
        None,
    );
    let counter = ask(&["GET", "counter"], None);
    [counts, stored, texts, got, length, sum, counter].join("\n")
}
