//! What the pages tell a reader to type: run, and compared with what they say comes back.
//!
//! A `console` block is a dialogue, run against a server and a nearside of its page's own. A line of an `sh` block is run as
//! far as a test can: a configuration is checked, of a script its options, of an image its tag.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use super::pages::{Block, page, pages, root, rows};
use super::support::program::Program;
use super::support::{Redis, SOON, eventually, free_port, python};

/// A bound that no busy machine exceeds between two lines of a dialogue.
const PATIENT: [&str; 2] = ["--max-staleness", "30s"];

/// The servers that a page speaks of, under the ports that it gives them.
struct Scene {
    redis: Redis,
    near: Program,
    /// Where commands run, and where `nearside` is found.
    folder: tempfile::TempDir,
}

impl Scene {
    fn start() -> Self {
        let redis = Redis::start();
        let near = Program::start(redis.port, &PATIENT);
        let mut client = near.connect();
        eventually("reads are cached", || {
            client.cmd("GET none");
            client.text("NEARSIDE WHY none").contains("cached: yes")
        });
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_nearside"), folder.path().join("nearside")).unwrap();
        Self { redis, near, folder }
    }

    fn ports(&self) -> [(&'static str, String); 3] {
        let ports = [("6379", self.redis.port), ("6380", self.near.port), ("9380", self.near.admin)];
        ports.map(|(page, port)| (page, port.to_string()))
    }

    /// What a line of a dialogue says, with the page's ports.
    fn say(&self, line: &str) -> String {
        // No program is needed for this one.
        let (get, rest) = ("curl -s localhost:9380", line.strip_prefix("curl -s localhost:9380"));
        let line = rest.map_or(line.to_owned(), |rest| {
            let path = rest.split(' ').next().unwrap();
            fs::write(self.folder.path().join("page"), self.near.page(path)).unwrap();
            line.replace(&format!("{get}{path}"), "cat page")
        });
        let line = self.ports().iter().fold(line, |line, (page, port)| line.replace(page, port));
        let mut said = run(&line, self.folder.path(), self.folder.path());
        for (page, port) in self.ports() {
            said = said.replace(&port, page);
        }
        said
    }

    fn play(&mut self, block: &Block<'_>) -> usize {
        let mut lines = 0;
        for exchange in block.text.split("$ ").skip(1) {
            let (line, answer) = exchange.split_once('\n').unwrap();
            if line.ends_with("# with no server on port 6379") {
                self.redis.kill();
            }
            let deadline = Instant::now() + SOON;
            // What was changed past nearside is heard of a moment later.
            let mut said = self.say(line);
            while alike(&said) != alike(answer) && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(5));
                said = self.say(line);
            }
            assert_eq!(alike(&said), alike(answer), "{}: {line}: it says {said}", block.page);
            lines += 1;
        }
        lines
    }
}

/// Runs a line in a shell, in this folder, with `nearside` from there; gives all that it has written.
fn run(line: &str, folder: &Path, programs: &Path) -> String {
    let mut command = Command::new("sh");
    for (name, _) in std::env::vars_os().filter(|(n, _)| n.to_string_lossy().starts_with("NEARSIDE_")) {
        command.env_remove(name);
    }
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    // redis-cli writes as it does for a person.
    command
        .args(["-c", &format!("{{ {line}\n}} 2>&1")])
        .current_dir(folder)
        .env("PATH", path)
        .env("FAKETTY", "1");
    String::from_utf8(command.output().unwrap().stdout).unwrap()
}

/// What has to be alike: times are of the moment, and so are figures, the version aside.
fn alike(text: &str) -> String {
    let mut alike = String::new();
    for line in text.lines().map(str::trim_end) {
        let figure = line.starts_with("nearside_") && !line.starts_with("nearside_version");
        let line = if figure { line.split([':', ' ']).next().unwrap() } else { line };
        let words = line.split(' ').map(|word| if is_time(word) { "TIME" } else { word });
        let mut words: Vec<_> = words.filter(|word| !word.is_empty()).collect();
        words.dedup_by(|a, b| a == b && *a == "TIME");
        alike += &words.join(" ");
        alike += "\n";
    }
    alike
}

fn is_time(word: &str) -> bool {
    let word = word.trim_matches(['"', ',', ':']);
    let unit = word.trim_start_matches(|c: char| c.is_ascii_digit());
    unit.len() < word.len() && ["ms", "us", "s", "m"].contains(&unit)
}

#[test]
fn what_differs_from_run_to_run_is_left_out() {
    assert_eq!(alike("filled 16ms ago, ends in 59s 983ms\""), alike("filled 1m 2ms ago, ends in 3s"));
    assert_eq!(alike("nearside_hits:3\n"), alike("nearside_hits:4\n"));
    assert_ne!(alike("nearside_version:3\n"), alike("nearside_version:4\n"));
    assert_ne!(alike("\"ada\"\n"), alike("\"grace\"\n"));
}

#[test]
fn dialogues_are_as_they_are_shown() {
    let mut lines = 0;
    for page in pages() {
        let blocks = page.blocks();
        let blocks: Vec<_> = blocks.iter().filter(|block| block.kind == "console").collect();
        if !blocks.is_empty() {
            let mut scene = Scene::start();
            lines += blocks.into_iter().map(|block| scene.play(block)).sum::<usize>();
        }
    }
    assert!(lines > 15, "the pages were not understood: {lines} lines");
}

/// Folder in which `nearside …` only checks its configuration.
fn checking() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let script = format!("#!/bin/sh\nexec {} check \"$@\"\n", env!("CARGO_BIN_EXE_nearside"));
    let file = folder.path().join("nearside");
    fs::write(&file, script).unwrap();
    fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    folder
}

#[track_caller]
fn is_valid(line: &str, said: &str) {
    assert!(said.starts_with("# nearside: the configuration is valid"), "{line}: {said}");
}

/// A script's options stand in it, or in what it hands them to.
fn check_script(line: &str, words: &[&str]) {
    let text = fs::read_to_string(root().join(words[0])).unwrap_or_else(|_| panic!("{line}: no such script"));
    let options = words[1..].iter().filter(|word| word.starts_with("--"));
    options.for_each(|option| assert!(text.contains(*option), "{line}: {} knows no {option}", words[0]));
}

fn check_image(line: &str, words: &[&str], programs: &Path) {
    let image = format!("nearside:{}", env!("CARGO_PKG_VERSION"));
    let at = words.iter().position(|word| *word == image).unwrap_or_else(|| panic!("{line}: not {image}"));
    match words[1] {
        "build" => assert_eq!(words[at + 1..], ["."]),
        "run" => {
            is_valid(line, &run(&format!("nearside {}", words[at + 1..].join(" ")), root(), programs));
        }
        other => panic!("{line}: {other}?"),
    }
}

fn check_kubectl(line: &str, words: &[&str]) {
    let deployment = fs::read_to_string(root().join("config/kubernetes/deployment.yaml")).unwrap();
    match words[1..] {
        ["apply", "-f", path] => assert!(root().join(path).is_dir(), "{line}: no {path}"),
        ["apply", "-k", path] => {
            assert!(root().join(path).join("kustomization.yaml").is_file(), "{line}: no {path}")
        }
        ["create", "secret", "generic", name, literal] => {
            let key = literal.strip_prefix("--from-literal=").and_then(|l| l.split('=').next()).unwrap();
            let named =
                format!("secretKeyRef:\n                  name: {name}\n                  key: {key}\n");
            assert!(deployment.contains(&named), "{line}: the Deployment has another secret");
            assert!(deployment.contains(line), "{line}: the Deployment says another line");
        }
        _ => panic!("{line}: there is no check for that"),
    }
}

/// The chart is there, and knows the values that are set.
fn check_helm(line: &str, words: &[&str]) {
    let chart = words.iter().find(|word| word.contains('/')).unwrap_or_else(|| panic!("{line}: no chart"));
    assert!(root().join(chart).join("Chart.yaml").is_file(), "{line}: no {chart}");
    let values = fs::read_to_string(root().join("config/helm/nearside/values.yaml")).unwrap();
    let set = words.iter().skip_while(|word| **word != "--set").nth(1).copied().unwrap_or_default();
    for (path, _) in set.split(',').filter_map(|one| one.split_once('=')) {
        for key in path.trim_start_matches("nearside.").split('.') {
            assert!(values.contains(&format!("{key}:")), "{line}: there is no value {path}");
        }
    }
}

#[test]
fn commands_are_such_as_can_be_given() {
    let (programs, mut lines) = (checking(), 0);
    for page in pages() {
        let blocks = page.blocks();
        let of_shell = blocks.iter().filter(|block| block.kind == "sh");
        for line in of_shell.flat_map(|block| block.text.lines()).filter(|line| !line.is_empty()) {
            let line = line.split(" #").next().unwrap().trim_end();
            let words: Vec<_> = line.split(' ').collect();
            let first = words.iter().find(|word| !word.contains('=')).unwrap();
            match *first {
                "nearside" | "target/release/nearside" => {
                    let line = line.replace("target/release/nearside", "nearside");
                    is_valid(&line, &run(&line, root(), programs.path()));
                }
                "cargo" => assert!(["build", "bench", "test"].contains(&words[1]), "{line}"),
                "docker" => check_image(line, &words, programs.path()),
                "kubectl" => check_kubectl(line, &words),
                "helm" => check_helm(line, &words),
                "redis-cli" => assert_eq!(line, "redis-cli -p 6380"),
                script if script.starts_with("scripts/") => check_script(line, &words),
                other => panic!("{}: {line}: there is no check for {other}", page.path),
            }
            lines += 1;
        }
    }
    assert!(lines > 15, "the pages were not understood: {lines} lines");
}

#[test]
fn every_block_is_of_a_kind_that_is_checked() {
    for page in pages() {
        for block in page.blocks() {
            let kinds = ["sh", "console", "text", "toml", "yaml", "python", "promql"];
            assert!(kinds.contains(&block.kind), "{}: {:?} is checked by nothing", block.page, block.kind);
        }
        let indented = page.prose().find(|line| line.starts_with("    "));
        assert_eq!(indented, None, "{}: it would escape every check", page.path);
    }
}

#[test]
fn files_of_settings_are_valid() {
    let (programs, folder) = (checking(), tempfile::tempdir().unwrap());
    let deployed = fs::read_to_string(root().join("config/kubernetes/configmap.yaml")).unwrap();
    let (_, deployed) = deployed.split_once("nearside.toml: |\n").expect("the file in the ConfigMap");
    let mut texts = vec![deployed.lines().map(|line| line.trim_start().to_owned() + "\n").collect()];
    for path in ["component", "app/settings"] {
        let path = root().join("config/kustomize").join(path).join("nearside.toml");
        texts.push(fs::read_to_string(path).unwrap());
    }
    for page in pages() {
        texts.extend(page.blocks().into_iter().filter(|block| block.kind == "toml").map(|block| block.text));
    }
    assert!(texts.len() > 1, "the pages were not understood");
    for text in texts {
        fs::write(folder.path().join("n.toml"), &text).unwrap();
        is_valid(&text, &run("nearside --config n.toml", folder.path(), programs.path()));
    }
}

/// The five lines for a pod, and what the Deployment says of the same.
#[test]
fn the_lines_for_a_pod_are_valid() {
    let readme = page("README.md");
    let blocks = readme.blocks();
    let [pod] = &blocks.iter().filter(|block| block.kind == "yaml").collect::<Vec<_>>()[..] else {
        panic!("one block for a pod");
    };
    assert_eq!(pod.text.lines().count(), 5, "five lines: {}", pod.text);
    let image = format!("image: nearside:{}", env!("CARGO_PKG_VERSION"));
    let deployment = fs::read_to_string(root().join("config/kubernetes/deployment.yaml")).unwrap();
    assert!(pod.text.contains(&image) && deployment.contains(&image), "{image}");
    let programs = checking();
    for (text, more) in [(&*pod.text, ""), (&*deployment, "config/nearside.toml")] {
        let (_, args) = text.split_once(" args: [").expect("arguments");
        let args = args.split(']').next().unwrap().replace(['"', ','], " ").replace(" serve ", " ");
        let args = args.replace("/etc/nearside/nearside.toml", more);
        is_valid(&args, &run(&format!("nearside {args}"), root(), programs.path()));
    }
}

/// What is deployed is of this version, wherever a version is written down.
#[test]
fn what_is_deployed_is_of_this_version() {
    let version = env!("CARGO_PKG_VERSION");
    for (path, line) in [
        ("Dockerfile", format!("ARG VERSION={version}\n")),
        ("config/helm/nearside/Chart.yaml", format!("appVersion: \"{version}\"\n")),
        ("config/helm/nearside/Chart.yaml", format!("version: {version}\n")),
        ("config/helm/app/Chart.yaml", format!("    version: {version}\n")),
        ("config/kustomize/component/kustomization.yaml", format!("    newTag: {version}\n")),
    ] {
        let text = fs::read_to_string(root().join(path)).unwrap();
        assert!(text.contains(&line), "{path} does not say {}", line.trim());
    }
}

#[test]
fn the_python_example_runs() {
    let configuration = page("docs/configuration.md");
    let blocks = configuration.blocks();
    let example = blocks.iter().find(|block| block.kind == "python").expect("an example");
    let scene = Scene::start();
    let text = scene.ports().iter().fold(example.text.clone(), |text, (page, port)| text.replace(page, port));
    let ran = Command::new(python::python()).args(["-c", &text]).output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    // What its last line says.
    let mut client = scene.near.connect();
    eventually("it is dropped", || client.text("NEARSIDE WHY users/1").contains("cached: no"));
}

#[test]
fn subcommands_of_nearside_are_those_of_its_help() {
    let commands = page("docs/commands.md");
    let scene = Scene::start();
    let help = scene.near.connect().text("NEARSIDE HELP");
    let mut known: Vec<_> = help
        .lines()
        .filter_map(|line| line.strip_prefix('+'))
        .filter(|line| line.starts_with(|c: char| c.is_uppercase()) && !line.ends_with(':'))
        .map(|line| format!("`NEARSIDE {}`", line.replace(['<', '>'], "")))
        .collect();
    let mut listed: Vec<_> =
        rows(commands.section("## NEARSIDE")).iter().map(|row| row[0].to_owned()).collect();
    known.sort();
    listed.sort();
    assert_eq!(listed, known);
}

/// The user that the page on deployment makes for nearside lacks nothing that it asks for.
#[test]
fn the_user_for_nearside_lacks_nothing() {
    let deployment = page("docs/deployment.md");
    let blocks = deployment.blocks();
    let line = blocks.iter().flat_map(|block| block.text.lines()).find(|line| line.contains("ACL SETUSER"));
    let scene = Scene::start();
    assert_eq!(scene.say(line.expect("the user").trim_start_matches("$ ")), "OK\n");
    let upstream = format!("redis://nearside:secret@127.0.0.1:{}", scene.redis.port);
    let (port, admin) = (free_port(), free_port());
    let (listen, pages) = (port.to_string(), admin.to_string());
    let settings = ["--listen", &listen, "--admin", &pages, "--upstream", &upstream, "--namespace", "users"];
    let mut near = Program::run(&settings, port, admin);
    near.wait_for("the feed is subscribed");
    let mut client = near.connect();
    for line in
        ["SET users/1 ada", "HSET users/2 a b", "HDEL users/2 a", "EVAL return(1) 0", "HGETALL elsewhere"]
    {
        client.cmd(line);
    }
    eventually("what is read is cached", || {
        client.cmd("GET elsewhere");
        client.text("NEARSIDE WHY elsewhere").contains("cached: yes")
    });
    near.terminate();
    assert!(near.ended().success());
    assert!(!near.seen.contains(" WARN "), "{}", near.seen);
    let mut direct = scene.redis.connect();
    assert_eq!(direct.text("ACL LOG"), "*0\r\n", "the upstream has refused something");
}
