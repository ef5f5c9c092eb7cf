//! Programs that the agent keeps running, and their ports on this machine.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, ChildStdout, Stdio};

use serde_json::Value;

use crate::on_every_engine;
use crate::rig::{Engine, World, program};

on_every_engine!(services_are_kept_running, a_service_of_the_vault, a_runner_of_actions);

const PASSPHRASE: &[u8] = b"six words by chance are enough\n";

/// A pod of `base` with these services.
fn pod(engine: Engine, name: &str, services: &str) -> World {
    let world = World::new(engine);
    let catalog = format!("[[vertical]]\nname = '{name}'\nparent = 'base'\nsummary = ''\n{services}");
    world.write(".tazpod/catalog.toml", &catalog);
    engine.client_stdout(&[
        "tag",
        "ghcr.io/tazpod/tazpod-base:stable",
        &format!("localhost/tazpod-{name}:latest"),
    ]);
    world.run(&["up", name, "--detach", "--pull", "never"]).success();
    world
}

/// Takes away what [`pod`] made.
fn end(world: &World, name: &str) {
    world.run(&["down"]).success();
    world.assert_nothing_left();
    world.engine.client_stdout(&["rmi", &format!("localhost/tazpod-{name}:latest")]);
}

fn service(world: &World, name: &str) -> Value {
    let status = world.run(&["status", "--json"]).success().json();
    let services = status["services"].as_array().unwrap();
    services.iter().find(|service| service["name"] == name).unwrap().clone()
}

/// `tazpod forward`, ended when it is dropped.
pub struct Forward {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Forward {
    pub fn start(world: &World, arguments: &[&str]) -> Forward {
        let words: Vec<&str> = ["forward"].iter().chain(arguments).copied().collect();
        let mut command = world.command(&program().to_string_lossy(), &words);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Forward { child, output }
    }

    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line
    }

    pub fn json(&mut self) -> Value {
        let values = serde_json::Deserializer::from_reader(&mut self.output).into_iter();
        values.into_iter().next().unwrap().unwrap()
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The body that a server on this machine gives.
fn get(address: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

fn services_are_kept_running(engine: Engine) {
    // What the port gives is the token.
    let web = "mkdir -p /tmp/web; cp $TAZPOD_TOKEN_FILE /tmp/web/index.html; echo the web begins; \
               exec python3 -m http.server --bind 127.0.0.1 --directory /tmp/web $TAZPOD_PORT";
    let services = format!(
        "[[vertical.service]]\nname = 'web'\ncommand = ['sh', '-c', '{web}']\nport = 8765\n\
         url = 'http://127.0.0.1:{{port}}/?token={{token}}'\n\
         [[vertical.service]]\nname = 'flaky'\ncommand = ['sh', '-c', 'test -d /workspace/.tazpod && exit 3']\n\
         [[vertical.service]]\nname = 'absent'\ncommand = ['/opt/absent']\n\
         [[vertical.service]]\nname = 'later'\ncommand = ['true']\nvault = true\n"
    );
    let world = pod(engine, "services", &services);
    // It has the first port, so that another is taken.
    let taken = TcpListener::bind("127.0.0.1:8765");
    let mut forward = Forward::start(&world, &["--json"]);
    let report = forward.json();
    let web = &report["ports"][0];
    assert_eq!((web["service"].as_str(), web["port"].as_u64()), (Some("web"), Some(8765)), "{report}");
    let local = web["local"].as_str().unwrap();
    assert!(local != "127.0.0.1:8765" || taken.is_err(), "{report}");
    let token = get(local);
    assert_eq!(token.len(), 64);
    assert_eq!(web["url"].as_str().unwrap(), format!("http://{local}/?token={token}"));

    world.wait_for("the flaky service to be started again", || {
        service(&world, "flaky")["starts"].as_u64().unwrap() > 1
    });
    world.wait_for("the absent service to be given up", || service(&world, "absent")["state"] == "failed");
    let later = service(&world, "later");
    assert_eq!(
        (later["state"].as_str(), later["for"].as_str()),
        (Some("waiting"), Some("the vault to be opened"))
    );
    let log = world.run(&["logs"]).success();
    let log = log.stdout + &log.stderr;
    assert!(log.contains("the web begins\n"), "{log}");
    assert!(log.contains("the service flaky: it ended with status 3; it is started again in 1 s\n"), "{log}");
    assert!(log.contains("the service absent: it cannot be started: No such file or directory"), "{log}");
    let inspected = engine.client_stdout(&["inspect", &world.pod()]);
    assert!(!log.contains(&token) && !inspected.contains(&token));
    assert!(
        !world.sh("cat /proc/*/cmdline /proc/*/environ 2>/dev/null | tr '\\0' '\\n'").stdout.contains(&token)
    );

    // The same address for as long as the pod runs.
    world.sh(&format!("kill {}", service(&world, "web")["pid"])).success();
    world.wait_for("the web to be there again", || {
        let web = service(&world, "web");
        web["state"] == "running" && web["starts"] == 2
    });
    let mut again = Forward::start(&world, &[]);
    let line = again.line();
    assert!(
        line.starts_with("web: http://127.0.0.1:") && line.ends_with(&format!("/?token={token}\n")),
        "{line}"
    );
    assert_eq!(get(local), token);

    let busy = TcpListener::bind("127.0.0.1:0").unwrap();
    let wanted = format!("{}:8765", busy.local_addr().unwrap().port());
    world
        .run(&["forward", "--port", &wanted])
        .failure(1, "of this machine")
        .failure(1, "hint: another program has it");
    world.run(&["forward", "--port", "http"]).failure(2, "`http` is no port");
    let table = world.run(&["status"]).success().stdout;
    assert!(table.contains("service:   web (port 8765, pid ") && table.contains(", start 2)"), "{table}");

    world.run(&["stop"]).success();
    world.wait_for("forwarding to end with the pod", || forward.child.try_wait().unwrap().is_some());
    assert_eq!(forward.child.try_wait().unwrap().unwrap().code(), Some(1));
    world.run(&["start"]).success();
    world.wait_for("the web to be there", || service(&world, "web")["state"] == "running");
    let other = Forward::start(&world, &[]).line();
    assert!(other.contains("token=") && !other.contains(&token), "{other}");
    end(&world, "services");
}

fn a_service_of_the_vault(engine: Engine) {
    // It writes all the time, and is ended before the vault is locked.
    let line = "cat /run/vault/open/word; echo; env | grep ^WORD=; while date >>/run/vault/open/log; do sleep 0.01; done";
    let services =
        format!("[[vertical.service]]\nname = 'keyed'\ncommand = ['sh', '-c', '{line}']\nvault = true\n");
    let world = pod(engine, "keyed", &services);
    world.run_with(&["vault", "init", "--passphrase-fd", "0"], PASSPHRASE).success();
    let unlock = || world.run_with(&["vault", "unlock", "--passphrase-fd", "0"], PASSPHRASE).success();
    unlock();
    world.wait_for("the service to run", || service(&world, "keyed")["state"] == "running");
    world.sh("cd /run/vault/open; echo from the vault >word; echo WORD=of-the-vault >.env").success();
    world.run(&["vault", "lock"]).success();
    world.wait_for("the service to end with the vault", || service(&world, "keyed")["state"] == "waiting");
    assert_eq!(world.sh("pgrep -x sleep").code, 1);
    unlock();
    world.wait_for("the service to run again", || service(&world, "keyed")["state"] == "running");
    world.wait_for("it to have said what it read", || {
        let log = world.run(&["logs"]).success();
        (log.stdout + &log.stderr).contains("from the vault\n\nWORD=of-the-vault\n")
    });
    end(&world, "keyed");
}

/// What GitHub's API answers, by its documentation: `POST /repos/{owner}/{repo}/actions/runners/generate-jitconfig`.
const GITHUB: &str = r#"
import base64, http.server, json
class Answer(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        there = self.path == "/api/v3/repos/acme/app/actions/runners/generate-jitconfig"
        if not there:
            code, said = 404, {"message": "Not Found"}
        elif self.headers["Authorization"] != "Bearer right-token":
            code, said = 401, {"message": "Bad credentials"}
        else:
            files = {".runner": json.dumps(asked), ".credentials_rsaparams": "a key"}
            files = {name: base64.b64encode(text.encode()).decode() for name, text in files.items()}
            code, said = 201, {"encoded_jit_config": base64.b64encode(json.dumps(files).encode()).decode()}
        self.send_response(code)
        self.end_headers()
        self.wfile.write(json.dumps(said).encode())
http.server.HTTPServer(("127.0.0.1", 8901), Answer).serve_forever()
"#;

/// In the place of the runner, which is not in reach here: writes what it is given to the files beside it, as that does, and removes them
/// when its job is done; the first one is done at once.
const RUNNER: &str = r#"#!/bin/sh
cd /opt/actions-runner
printf %s "$ACTIONS_RUNNER_INPUT_JITCONFIG" | base64 -d | jq -r 'to_entries[] | "\(.key) \(.value)"' |
    while read -r name content; do printf %s "$content" | base64 -d >"$name"; done
[ -e done ] || { rm .runner .credentials_rsaparams; exec touch done; }
exec sleep 1000
"#;

fn a_runner_of_actions(engine: Engine) {
    let service =
        |name: &str, command: &str| format!("[[vertical.service]]\nname = '{name}'\ncommand = [{command}]\n");
    let services = service("github", "'python3', '/workspace/github.py'")
        + &service("actions-runner", "'sh', '/workspace/service.sh'")
        + "vault = true\n";
    let world = pod(engine, "runner", &services);
    world.write("github.py", GITHUB);
    world.write("run.sh", RUNNER);
    world.write("service.sh", include_str!("../../images/githubrunner/service.sh"));
    world.sh("sudo install -D -o tazpod -m 755 /workspace/run.sh /opt/actions-runner/run.sh").success();
    world.sh("sudo chown tazpod: /opt/actions-runner").success();

    world.run_with(&["vault", "init", "--passphrase-fd", "0"], PASSPHRASE).success();
    world.run_with(&["vault", "unlock", "--passphrase-fd", "0"], PASSPHRASE).success();
    let says = |words: &str| {
        world.wait_for(words, || {
            let log = world.run(&["logs"]).success();
            (log.stdout + &log.stderr).contains(words)
        });
    };
    says("actions-runner: the vault has no github-runner/url");
    let set = |name: &str, text: &str| {
        world
            .sh(&format!(
                "mkdir -p /run/vault/open/github-runner; echo '{text}' >/run/vault/open/github-runner/{name}"
            ))
            .success();
    };
    set("token", "wrong-token");
    set("url", "http://example.org/acme/app");
    says("actions-runner: http://example.org/acme/app is no address of a repository or an organisation");
    set("url", "http://127.0.0.1:8901/acme/app/");
    says("actions-runner: 127.0.0.1:8901 does not register it: Bad credentials");
    set("labels", "gpu,large");
    set("token", "right-token");
    let kept = "/run/vault/services/actions-runner";
    world.wait_for("the runner to be registered for a second job", || {
        let again = "cd /opt/actions-runner && test -e done && test -L .credentials_rsaparams";
        world.sh(&format!("{again} && cat {kept}/.credentials_rsaparams")).stdout == "a key"
    });
    let asked: Value =
        serde_json::from_str(&world.sh("cat /opt/actions-runner/.runner").success().stdout).unwrap();
    assert_eq!(asked["labels"], serde_json::json!(["gpu", "large"]));
    assert_eq!((&asked["runner_group_id"], &asked["work_folder"]), (&1.into(), &"_work".into()));
    world.run(&["vault", "lock"]).success();
    world.wait_for("what it was given to be gone", || world.sh(&format!("test -e {kept}")).code == 1);
    end(&world, "runner");
}
