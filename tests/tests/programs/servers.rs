//! The servers, all in one pod.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::Command,
};

use sidestep_kit::{
    certs::Authority,
    net::run,
    process::{Program, Running},
    redirect::Pod,
};

use crate::world::{APP, part, serve};

/// Starts them, with what they need in a folder.
pub fn start(pod: &Pod, folder: &Path) -> Vec<Running> {
    // Applications have no way to the repository's own folder.
    for (file, at) in [
        (python_source(), "streams.py"),
        (part(".parts/java/Client.class"), "java/Client.class"),
    ] {
        own_folder(&folder.join("java"));
        fs::copy(file, folder.join(at)).expect("a folder of ours");
    }
    vec![
        nginx(pod, folder),
        app(
            pod,
            folder,
            Path::new("/usr/bin/python3"),
            &["streams.py", "serve"],
            &[8081, 8082],
        ),
        app(
            pod,
            folder,
            &part(".parts/bin/sidestep-go"),
            &["serve"],
            &[8083, 9100],
        ),
        postgresql(pod, folder),
        redis(pod, folder),
    ]
}

fn python_source() -> PathBuf {
    part("tests/programs/streams.py")
}

/// MiB of the large file: `SIDESTEP_TEST_MIB`, else 48.
fn mebibytes() -> usize {
    std::env::var("SIDESTEP_TEST_MIB").map_or(48, |text| {
        let number = text.parse();
        number.unwrap_or_else(|_| panic!("SIDESTEP_TEST_MIB={text} is no number"))
    })
}

/// Bytes in which no part is like another.
fn noise(bytes: usize) -> Vec<u8> {
    let mut word = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        word.to_ne_bytes()
    };
    std::iter::repeat_with(&mut next)
        .take(bytes.div_ceil(8))
        .flatten()
        .take(bytes)
        .collect()
}

fn own_folder(path: &Path) {
    fs::create_dir_all(path).expect("a folder of ours");
    chown(path, Some(APP.0), Some(APP.1)).expect("a folder of ours");
}

fn app(pod: &Pod, folder: &Path, program: &Path, arguments: &[&str], ports: &[u16]) -> Running {
    let name = program
        .file_name()
        .and_then(|name| name.to_str())
        .expect("a name");
    let mut started = Program::new(program, pod.namespace(), pod.cgroup(), APP).args(arguments);
    started.command().current_dir(folder);
    serve(pod, started, &folder.join(format!("{name}.log")), ports)
}

fn nginx(pod: &Pod, folder: &Path) -> Running {
    let root = folder.join("www");
    for path in ["", "small", "up", "temporary"] {
        own_folder(&root.join(path));
    }
    fs::write(root.join("large"), noise(mebibytes() << 20)).expect("there is room on the disk");
    for number in 1..=200 {
        let file = root.join("small").join(number.to_string());
        fs::write(file, noise(number * number * 7)).expect("a folder of ours");
    }
    let identity = Authority::new().certify("demo", "nginx");
    for (name, text) in [("tls.crt", identity.certificate), ("tls.key", identity.key)] {
        fs::write(folder.join(name), text).expect("a folder of ours");
    }
    let (folder_name, root) = (folder.display(), root.display());
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|what| format!("{what}_temp_path {root}/temporary/{what};\n"))
        .concat();
    let config = format!(
        "daemon off; worker_processes 2; pid {folder_name}/nginx.pid; error_log stderr warn;
        events {{ worker_connections 1024; }}
        http {{
            access_log off; sendfile on; tcp_nopush on; client_max_body_size 0;
            {temporary}
            server {{
                listen 8080; listen 9080; listen 8084 http2; listen 9443 ssl;
                ssl_certificate {folder_name}/tls.crt; ssl_certificate_key {folder_name}/tls.key;
                ssl_conf_command Options KTLS;
                root {root};
                location /up/ {{ dav_methods PUT; }}
            }}
        }}"
    );
    let file = folder.join("nginx.conf");
    fs::write(&file, config).expect("a folder of ours");
    let file = file.to_str().expect("text");
    let arguments = ["-e", "stderr", "-c", file];
    app(
        pod,
        folder,
        Path::new("/usr/sbin/nginx"),
        &arguments,
        &[8080, 8084, 9080, 9443],
    )
}

/// A program of PostgreSQL: Debian keeps each major version's in a folder of its own.
pub fn postgresql_program(name: &str) -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten();
    let mut paths: Vec<_> = versions
        .map(|version| version.path().join("bin").join(name))
        .collect();
    paths.sort();
    paths
        .pop()
        .expect("PostgreSQL is there: run `tests/setup.sh programs` first")
}

/// It refuses to be root's, and wants a user with a name.
fn postgresql(pod: &Pod, folder: &Path) -> Running {
    let id = |flag| {
        let output = run(Command::new("id").args([flag, "postgres"]));
        let text = String::from_utf8(output.stdout).expect("text");
        text.trim().parse::<u32>().expect("a number")
    };
    let ids = (id("-u"), id("-g"));
    let data = folder.join("postgresql");
    fs::create_dir(&data).expect("a folder of ours");
    chown(&data, Some(ids.0), Some(ids.1)).expect("a folder of ours");
    fs::set_permissions(&data, fs::Permissions::from_mode(0o700)).expect("a folder of ours");
    let program = |name, arguments: &[&str]| {
        let path = postgresql_program(name);
        let mut program = Program::new(&path, pod.namespace(), pod.cgroup(), ids).args(arguments);
        program.command().current_dir("/");
        program
    };
    let place = data.to_str().expect("text");
    let log = folder.join("postgresql.log");
    let arguments = [
        "-D",
        place,
        "-U",
        "postgres",
        "--auth=trust",
        "--no-sync",
        "--locale=C",
    ];
    let mut made = program("initdb", &arguments);
    let said = fs::File::create(&log).expect("a folder of ours");
    made.command()
        .stderr(said.try_clone().expect("a file of ours"))
        .stdout(said);
    let made = made.start().wait(|| false);
    assert!(
        made.is_some_and(|status| status.success()),
        "initdb: see {}",
        log.display()
    );
    fs::write(data.join("pg_hba.conf"), "host all all 0.0.0.0/0 trust\n")
        .expect("a folder of ours");
    let settings = ["-c", "listen_addresses=0.0.0.0", "-c", "fsync=off"];
    let socket = format!("unix_socket_directories={place}");
    let arguments = [&["-D", place, "-c", &socket][..], &settings].concat();
    serve(pod, program("postgres", &arguments), &log, &[5432])
}

fn redis(pod: &Pod, folder: &Path) -> Running {
    let arguments = [
        "--port",
        "6379",
        "--bind",
        "0.0.0.0",
        "--protected-mode",
        "no",
        "--save",
        "",
        "--appendonly",
        "no",
    ];
    app(
        pod,
        folder,
        Path::new("/usr/bin/redis-server"),
        &arguments,
        &[6379],
    )
}
