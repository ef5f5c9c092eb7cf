//! Sessions: terminals in the pod that outlive those who look at them.

use std::fs;
use std::os::unix::fs::chown;
use std::process::Command;

use sha2::{Digest, Sha256};

use crate::on_every_engine;
use crate::rig::{Engine, World, wait_for};
use crate::terminal::Terminal;

on_every_engine!(
    a_killed_client_loses_nothing,
    two_clients_on_one_session,
    the_exit_status_is_the_shell_s,
    keys_reach_the_program,
    the_size_follows,
    exec_with_a_terminal,
    the_terminal_is_as_before_after_every_end,
);

/// What does not depend on the engine.
mod any {
    use crate::rig::Engine;

    macro_rules! tests {
        ($($name:ident),* $(,)?) => { $( #[test] fn $name() { super::$name(Engine::Docker) } )* };
    }

    tests!(
        job_control_and_history,
        a_paste_arrives_as_it_is,
        the_detach_keys_in_a_paste,
        colours_and_wide_characters_come_back,
        a_full_screen_program_comes_back,
        less_and_tmux_come_back,
        the_terminal_s_own_terminfo,
        other_detach_sequences,
        a_client_that_stops_reading,
        detaching_in_a_flood,
        a_terminal_of_one_cell,
        without_a_terminal,
        clients_come_and_go,
        named_sessions,
        a_session_over_exec,
    );
}

/// Attaches with a prompt that is easy to find.
fn attach(world: &World) -> Terminal {
    let mut terminal = Terminal::start(world, &["attach"]);
    ask_for_prompt(&mut terminal);
    terminal
}

fn ask_for_prompt(terminal: &mut Terminal) {
    terminal.send("PROMPT_COMMAND=; PS1='re''ady> '; clear; echo be''gun\r");
    terminal.wait("begun\nready> ");
}

/// Attaches to what is there already.
fn reattach(world: &World, shows: &str) -> Terminal {
    let terminal = Terminal::start(world, &["attach"]);
    terminal.wait(shows);
    terminal
}

/// Runs a line in the session's shell and waits for a text that the line itself does not hold.
#[track_caller]
fn type_line(terminal: &mut Terminal, line: &str, shows: &str) {
    assert!(!line.contains(shows), "`{shows}` would be seen in the line itself");
    terminal.send(format!("{line}\r"));
    terminal.wait(shows);
}

fn sessions(world: &World) -> Vec<(String, u64)> {
    let status = world.run(&["status", "--json"]).success().json();
    let sessions = status["sessions"].as_array().unwrap().iter();
    sessions.map(|one| (one["name"].as_str().unwrap().to_owned(), one["clients"].as_u64().unwrap())).collect()
}

#[track_caller]
fn wait_for_clients(world: &World, count: u64) {
    let mut last = Vec::new();
    world.wait_for(&format!("{count} clients"), || {
        last = sessions(world);
        last.iter().map(|(_, clients)| clients).sum::<u64>() == count
    });
}

/// The terminal is as a new one is: settings, screen, cursor, modes.
#[track_caller]
fn assert_restored(terminal: &Terminal) {
    let (found, fresh) = (terminal.settings(), Terminal::fresh_settings());
    assert_eq!(found.input_modes, fresh.input_modes);
    assert_eq!(found.output_modes, fresh.output_modes);
    assert_eq!(found.local_modes, fresh.local_modes);
    assert_eq!(found.control_modes, fresh.control_modes);
    let plain = |terminal: &Terminal| {
        terminal.with_screen(|screen| {
            !screen.alternate_screen()
                && !screen.hide_cursor()
                && !screen.bracketed_paste()
                && !screen.application_cursor()
                && !screen.application_keypad()
                && screen.mouse_protocol_mode() == vt100::MouseProtocolMode::None
                && screen.mouse_protocol_encoding() == vt100::MouseProtocolEncoding::Default
                && screen.fgcolor() == vt100::Color::Default
        })
    };
    // What was written last may still be on its way to the screen.
    wait_for(
        "a plain terminal",
        || eprintln!("{:?}", String::from_utf8_lossy(&terminal.raw())),
        || plain(terminal),
    );
}

fn a_killed_client_loses_nothing(engine: Engine) {
    let world = World::up(engine);
    let mut terminal = attach(&world);
    type_line(&mut terminal, "seq -f 'row %g.' 1 200", "row 200.");
    type_line(
        &mut terminal,
        "echo li''stening; while read -r line; do echo \"got $line\"; echo \"$line\" > ~/got; done",
        "listening",
    );
    type_line(&mut terminal, "first", "got first");
    terminal.kill();
    wait_for_clients(&world, 0);
    assert_eq!(world.sh("cat ~/got").success().stdout, "first\n");

    let mut terminal = reattach(&world, "got first");
    let history = terminal.history();
    let rows: Vec<_> =
        history.iter().map(|line| line.trim_end()).filter(|line| line.starts_with("row ")).collect();
    let expected: Vec<_> = (1..=200).map(|n| format!("row {n}.")).collect();
    assert_eq!(rows, expected, "every line once and in order");
    type_line(&mut terminal, "second", "got second");
    assert_eq!(sessions(&world), [("main".into(), 1)]);

    // The hangup of a terminal that is closed is like a kill.
    drop(terminal);
    wait_for_clients(&world, 0);
    let mut terminal = reattach(&world, "got second");
    type_line(&mut terminal, "third", "got third");
}

fn two_clients_on_one_session(engine: Engine) {
    let world = World::up(engine);
    let mut small = attach(&world);
    let mut large = Terminal::sized(&world, &["attach"], 30, 100);
    large.wait("ready>");
    wait_for_clients(&world, 2);
    type_line(&mut small, "stty size", "24 80");
    large.wait("24 80");
    type_line(&mut large, "stty size", "30 100");
    small.wait("30 100");
    type_line(&mut small, "echo to''gether", "together");
    large.wait("together");
    type_line(&mut small, "echo back to $(stty size)", "back to 24 80");
    small.detach();
    assert_eq!(small.end(), 0);
    wait_for_clients(&world, 1);
    type_line(&mut large, "echo then to $(stty size)", "then to 30 100");
    large.send("exit 3\r");
    assert_eq!(large.end(), 3);
}

fn the_exit_status_is_the_shell_s(engine: Engine) {
    let world = World::up(engine);
    let mut terminal = attach(&world);
    type_line(&mut terminal, "echo p''id=$$ | tee ~/pid", "pid=");
    let before = world.sh("cat ~/pid").success().stdout;
    let mut other = reattach(&world, "pid=");
    terminal.send("exit 7\r");
    assert_eq!(terminal.end(), 7);
    assert_eq!(other.end(), 7, "every client learns of it");
    assert_restored(&terminal);
    assert!(sessions(&world).is_empty());

    let mut terminal = attach(&world);
    assert!(!terminal.history().concat().contains("pid="), "a session of its own");
    type_line(&mut terminal, "echo p''id=$$ > ~/pid; echo do''ne", "done");
    assert_ne!(world.sh("cat ~/pid").success().stdout, before);
    terminal.send("kill -KILL $$\r");
    assert_eq!(terminal.end(), 128 + 9);
}

fn keys_reach_the_program(engine: Engine) {
    let world = World::up(engine);
    let mut terminal = attach(&world);
    terminal.send("stty raw -echo; echo li''stening; head -c 38 | cat -v; stty sane; echo he''ard\r");
    terminal.wait("listening");
    // Each as a key of its own; among them every key by which another program detaches.
    for key in (0..32).chain([127]) {
        terminal.send([key]);
    }
    // Not the sequence, though it begins like it.
    for key in ["\r", "~", "x", "~", "."] {
        terminal.send(key);
    }
    terminal.wait("heard");
    let expected = (0..32u8)
        .map(|key| match key {
            b'\t' => "       ".to_owned(),
            b'\n' => "\n".to_owned(),
            _ => format!("^{}", char::from(key + b'@')),
        })
        .collect::<String>();
    let shown = terminal.text();
    for part in expected.split(['\n', ' ']).filter(|part| !part.is_empty()) {
        assert!(shown.contains(part), "`{part}` is not in:\n{shown}");
    }
    assert!(shown.contains("^_^?^M~x~."), "{shown}");

    // Interrupts the program; neither session nor client.
    terminal.send("clear; sleep 1000; echo sta''tus $?\r");
    world.wait_for("the program", || world.sh("pgrep -x sleep").code == 0);
    terminal.send("\x03");
    terminal.wait("ready>");
    world.wait_for("the end of the program", || world.sh("pgrep -x sleep").code == 1);
    type_line(&mut terminal, "echo st''ill", "still");
}

fn job_control_and_history(engine: Engine) {
    let world = World::up(engine);
    let mut terminal = attach(&world);
    terminal.send("cat\r");
    world.wait_for("the program", || world.sh("pgrep -x cat").code == 0);
    type_line(&mut terminal, "before\x17afterwards", "afterwards\nafterwards");
    terminal.send("\x1a");
    terminal.wait("Stopped");
    terminal.send("fg\r");
    terminal.wait("fg\ncat");
    terminal.send("again\r");
    terminal.wait("again\nagain");
    terminal.send("\x04");
    type_line(&mut terminal, "clear; echo num''ber $((40 + 2))", "number 42");
    terminal.send("clear\r");
    terminal.wait_until("an empty screen", |shown| shown.trim() == "ready>");
    // Twice up: past `clear`.
    terminal.send("\x10");
    terminal.send("\x10");
    terminal.wait("num''ber");
    terminal.send("\r");
    terminal.wait("number 42");
}

fn the_size_follows(engine: Engine) {
    let world = World::up(engine);
    let mut terminal = Terminal::sized(&world, &["attach"], 20, 70);
    ask_for_prompt(&mut terminal);
    type_line(&mut terminal, "stty size", "20 70");
    terminal.resize_in(&world, 30, 100);
    type_line(&mut terminal, "clear; stty size", "30 100");
    terminal.send(
        "bash -c 'trap \"echo now \\$(stty size)\" WINCH; echo wait''ing; while :; do sleep 0.05; done'\r",
    );
    terminal.wait("waiting");
    for (rows, columns) in [(12, 40), (50, 132), (24, 80)] {
        terminal.resize(rows, columns);
        terminal.wait(&format!("now {rows} {columns}"));
    }
    terminal.send("\x03");
    terminal.wait("ready>");
    // A size that changed while nobody looked counts on return.
    terminal.detach();
    assert_eq!(terminal.end(), 0);
    let mut terminal = Terminal::sized(&world, &["attach"], 33, 90);
    terminal.wait("ready>");
    type_line(&mut terminal, "clear; stty size", "33 90");
}

fn a_paste_arrives_as_it_is(engine: Engine) {
    let world = World::up(engine);
    let mut terminal = attach(&world);
    let mut state = 1u64;
    let mut data: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    })
    .take(256 * 1024)
    .collect();
    for place in [100, 5_000, 70_000, 262_144 - 3] {
        data[place..place + 3].copy_from_slice(b"\r~.");
    }
    let sum: String = Sha256::digest(&data).iter().map(|byte| format!("{byte:02x}")).collect();
    terminal.send("stty raw -echo; echo li''stening; head -c 262144 | sha256sum; stty sane; echo do''ne\r");
    terminal.wait("listening");
    terminal.send(&data);
    terminal.wait("done");
    terminal.wait(&sum);
}

fn the_detach_keys_in_a_paste(engine: Engine) {
    let world = World::up(engine);
    let mut terminal = attach(&world);
    terminal.wait_until("bracketed paste", |_| terminal.with_screen(vt100::Screen::bracketed_paste));
    terminal.send("\x1b[200~echo on''e\r~.\recho tw''o\x1b[201~");
    terminal.wait("~.");
    terminal.wait("tw''o");
    assert!(!terminal.text().contains("one"), "pasted lines are not run before Enter: {}", terminal.text());
    terminal.send("\r");
    terminal.wait("two");
    // The marks may arrive in pieces, as may what lies between.
    for piece in ["\x1b[2", "00~: 'pas", "\r", "~", ".", "ted'\x1b", "[201", "~"] {
        terminal.send(piece);
        std::thread::sleep(std::time::Duration::from_millis(30));
    }
    terminal.wait(".ted'");
    terminal.send("\r");
    type_line(&mut terminal, "echo st''ill", "still");
    // And after all that the sequence works.
    terminal.detach();
    assert_eq!(terminal.end(), 0);
    assert_restored(&terminal);
}

fn colours_and_wide_characters_come_back(engine: Engine) {
    let world = World::up(engine);
    let mut terminal = attach(&world);
    let line = r"clear; printf '\e[38;2;10;20;30;48;2;200;100;50mco''lour\e[m \e[1;4mbo''ld\e[m\n日本''語|é👍|e\u0301|end''ing\n'";
    type_line(&mut terminal, line, "ending");
    let look = |terminal: &Terminal| {
        terminal.with_screen(|screen| {
            let row = screen.rows(0, 80).position(|row| row.starts_with("colour bold")).unwrap();
            let row = u16::try_from(row).unwrap();
            let cell = screen.cell(row, 0).unwrap();
            let bold = screen.cell(row, 7).unwrap();
            (
                cell.fgcolor(),
                cell.bgcolor(),
                bold.bold(),
                bold.underline(),
                screen.contents(),
                screen.cursor_position(),
            )
        })
    };
    let before = look(&terminal);
    assert_eq!(before.0, vt100::Color::Rgb(10, 20, 30));
    assert_eq!(before.1, vt100::Color::Rgb(200, 100, 50));
    assert!(before.2 && before.3);
    assert!(before.4.contains("日本語|é👍|e\u{301}|ending"), "{}", before.4);
    terminal.kill();
    let terminal = reattach(&world, "ending");
    terminal.wait("ready>");
    assert_eq!(look(&terminal), before);
}

fn a_full_screen_program_comes_back(engine: Engine) {
    let world = World::up(engine);
    let mut terminal = attach(&world);
    type_line(&mut terminal, "echo be''low", "below");
    let program = r"printf '\e[?1049h\e[2J\e[3;5Hfu''ll screen\e[?25l\e[?1003h\e[?1006h\e[?2004h\e[?1h\e=\e[31m'; read -rs -d q; printf '\e[m\e[?1049l\e[?25h\e[?1003l\e[?1006l\e[?1l\e>'";
    type_line(&mut terminal, program, "full screen");
    let modes = |terminal: &Terminal| {
        terminal.with_screen(|screen| {
            (
                screen.alternate_screen(),
                screen.hide_cursor(),
                screen.mouse_protocol_mode(),
                screen.mouse_protocol_encoding(),
                (screen.bracketed_paste(), screen.application_cursor(), screen.application_keypad()),
                screen.fgcolor(),
                screen.contents(),
            )
        })
    };
    let before = modes(&terminal);
    assert!(before.0 && before.1);
    terminal.detach();
    assert_eq!(terminal.end(), 0);
    assert_restored(&terminal);
    assert!(terminal.text().contains("below"), "{}", terminal.text());

    let mut terminal = reattach(&world, "full screen");
    wait_for("the same modes", || (), || modes(&terminal) == before);
    terminal.send("q");
    terminal.wait("below");
    terminal.wait_until("the cursor", |_| {
        !terminal.with_screen(|screen| screen.hide_cursor() || screen.alternate_screen())
    });
    type_line(&mut terminal, "echo af''ter", "after");
}

fn less_and_tmux_come_back(engine: Engine) {
    let world = World::up(engine);
    let mut terminal = attach(&world);
    type_line(&mut terminal, "echo be''low; seq -f 'row %g.' 1 500 > ~/rows", "below");
    terminal.send("less ~/rows\r");
    terminal.wait("row 23.");
    terminal.send(" ");
    terminal.wait("row 46.");
    // Its Enter reaches less, which goes on by a line.
    terminal.detach();
    assert_eq!(terminal.end(), 0);
    assert_restored(&terminal);
    let mut terminal = reattach(&world, "row 47.");
    terminal.wait_until("no other line", |shown| !shown.contains("row 24.") && shown.contains("row 25."));
    terminal.send("b");
    terminal.wait("row 2.");
    terminal.send("q");
    terminal.wait("below");

    terminal.send("tmux -f /dev/null new -s inner\r");
    terminal.wait("[inner]");
    type_line(&mut terminal, "clear; echo with''in", "within");
    terminal.kill();
    let mut terminal = Terminal::sized(&world, &["attach"], 30, 100);
    terminal.wait("[inner]");
    terminal.wait("within");
    type_line(&mut terminal, "stty size", "29 100");
    terminal.detach();
    assert_eq!(terminal.end(), 0);
    assert_restored(&terminal);
}

fn the_terminal_s_own_terminfo(engine: Engine) {
    let mut world = World::new(engine);
    let directory = world.directory.join("terminfo");
    let source = world.directory.join("source");
    fs::write(&source, "tazterm-x1|a terminal that nobody else has,\n\tcolors#200, use=xterm-256color,\n")
        .unwrap();
    let compiled = Command::new("timeout")
        .args(["10", "tic", "-x", "-o"])
        .arg(&directory)
        .arg(&source)
        .output()
        .unwrap();
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    world.environment.push(("TERM".into(), "tazterm-x1".into()));
    world.environment.push(("TERMINFO".into(), directory.to_string_lossy().into_owned()));
    world.environment.push(("COLORTERM".into(), "truecolor".into()));
    world.run(&["up", "--detach"]).success();
    let mut terminal = attach(&world);
    type_line(&mut terminal, "echo $TERM $(tput colors) $COLORTERM", "tazterm-x1 200 truecolor");
    type_line(&mut terminal, "infocmp $TERM >/dev/null && echo kn''own", "known");
    let mut exec = Terminal::start(&world, &["exec", "--tty", "--", "tput", "colors"]);
    exec.wait("200");
    assert_eq!(exec.end(), 0);
}

fn the_terminal_is_as_before_after_every_end(engine: Engine) {
    use rustix::process::{Pid, Signal, kill_process};
    let world = World::up(engine);
    let full_screen =
        r"printf '\e[?1049h\e[2J\e[3;5Hfu''ll screen\e[?25l\e[?1000h\e[?2004h\e[31m'; read -rs -d q";
    for signal in [Signal::TERM, Signal::HUP, Signal::INT] {
        let mut terminal = Terminal::start(&world, &["attach"]);
        if signal == Signal::TERM {
            ask_for_prompt(&mut terminal);
            terminal.send(format!("{full_screen}\r"));
        }
        terminal.wait("full screen");
        kill_process(Pid::from_raw(terminal.pid().cast_signed()).unwrap(), signal).unwrap();
        assert_ne!(terminal.end(), 0, "{signal:?}");
        assert_restored(&terminal);
        wait_for_clients(&world, 0);
    }
    let mut terminal = reattach(&world, "full screen");
    terminal.detach();
    assert_eq!(terminal.end(), 0);
    assert_restored(&terminal);

    let mut terminal = reattach(&world, "full screen");
    world.run(&["stop"]).success();
    assert_ne!(terminal.end(), 0);
    assert_restored(&terminal);
    let mut late = Terminal::start(&world, &["attach"]);
    assert_eq!(late.end(), 6);
    late.wait("does not run");
    assert_restored(&late);

    world.run(&["start"]).success();
    let mut terminal = attach(&world);
    let pod = world.pod();
    type_line(&mut terminal, full_screen, "full screen");
    engine.client_stdout(&["kill", &pod]);
    assert_eq!(terminal.end(), 1);
    terminal.wait("error: the connection to the pod is lost");
    assert_restored(&terminal);
}

fn other_detach_sequences(engine: Engine) {
    let world = World::up(engine);
    let configure = |sequence: &str| {
        let directory = world.directory.join("config");
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("config.toml"), format!("[attach]\ndetach = \"{sequence}\"\n")).unwrap();
        chown(&directory, Some(world.caller.uid), Some(world.caller.gid)).unwrap();
    };
    configure("ctrl-a d");
    let mut terminal = attach(&world);
    terminal.send("stty raw -echo; echo li''stening; head -c 6 | cat -v; stty sane; echo he''ard\r");
    terminal.wait("listening");
    for key in ["\r", "~", ".", "\x01", "x", "\x01"] {
        terminal.send(key);
        std::thread::sleep(std::time::Duration::from_millis(30));
    }
    // The last is held back until it is known not to begin the sequence.
    terminal.send("y");
    terminal.wait("^M~.^Ax^A");
    terminal.wait("heard");
    terminal.send("\x01");
    terminal.send("d");
    assert_eq!(terminal.end(), 0);
    terminal.wait("detached");
    assert_restored(&terminal);

    configure("none");
    let mut terminal = reattach(&world, "ready>");
    terminal.send("clear\r");
    terminal.detach();
    terminal.send("; echo st''ill\r");
    terminal.wait("still");
    terminal.kill();

    configure("enter tilde");
    let mut terminal = Terminal::start(&world, &["attach"]);
    assert_eq!(terminal.end(), 3);
    terminal.wait("`tilde` is not a key");
    assert_restored(&terminal);
}

fn a_client_that_stops_reading(engine: Engine) {
    use rustix::process::{Pid, Signal, kill_process};
    let world = World::up(engine);
    let mut stopped = attach(&world);
    let mut other = reattach(&world, "ready>");
    wait_for_clients(&world, 2);
    let pid = Pid::from_raw(stopped.pid().cast_signed()).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    // Far more than every buffer on the way together.
    other.send("yes flood | head -c 6000000; touch ~/flooded; clear; echo ov''er\r");
    world.wait_for("the end of the flood", || world.sh("ls ~/flooded").code == 0);
    other.wait("over");
    type_line(&mut other, "echo st''ill here", "still here");
    assert_eq!(sessions(&world), [("main".into(), 2)]);
    kill_process(pid, Signal::CONT).unwrap();
    stopped.wait("still here");
    stopped.wait_until("the present screen", |shown| shown == other.text());
    type_line(&mut stopped, "echo ag''ain", "again");
    other.wait("again");
}

fn detaching_in_a_flood(engine: Engine) {
    let world = World::up(engine);
    let mut terminal = attach(&world);
    terminal.send(r"printf '\e[?1049h\e[?25l\e[?2004h'; while :; do printf '\e[?1049l\e[?1049h\e[?25l\e[?1000hflood'; done");
    terminal.send("\r");
    terminal.wait_until("the flood", |_| terminal.raw().len() > 100_000);
    terminal.detach();
    assert_eq!(terminal.end(), 0);
    terminal.wait("detached");
    assert_restored(&terminal);
    let mut terminal = reattach(&world, "flood");
    terminal.send("\x03");
    terminal.send(r"printf '\e[?1049l\e[?25h\e[?1000l'; clear; echo ca''lm");
    terminal.send("\r");
    terminal.wait("calm");
}

fn a_terminal_of_one_cell(engine: Engine) {
    let world = World::up(engine);
    for round in ["one", "two"] {
        let mut terminal = Terminal::sized(&world, &["attach"], 1, 1);
        world.wait_for("the session", || !terminal.raw().is_empty());
        terminal.send(format!("stty size > ~/{round}; echo 日本; ls -la /\r"));
        world.wait_for("what was typed", || world.sh(&format!("cat ~/{round}")).stdout == "1 1\n");
        terminal.detach();
        assert_eq!(terminal.end(), 0);
        assert_restored(&terminal);
    }
    let mut terminal = Terminal::start(&world, &["attach"]);
    ask_for_prompt(&mut terminal);
    type_line(&mut terminal, "stty size", "24 80");
}

fn without_a_terminal(engine: Engine) {
    let world = World::up(engine);
    world.run(&["attach"]).failure(2, "tazpod exec -- COMMAND");
    world.run(&["exec", "--tty", "--", "true"]).failure(125, "needs a terminal");
    assert!(sessions(&world).is_empty());
}

fn clients_come_and_go(engine: Engine) {
    let world = World::up(engine);
    let mut terminal = attach(&world);
    type_line(&mut terminal, "echo the on''ly one", "the only one");
    terminal.kill();
    for round in 0..30 {
        let mut terminal = Terminal::start(&world, &["attach"]);
        if round % 3 == 0 {
            // At any moment of its start.
            std::thread::sleep(std::time::Duration::from_millis(round));
            terminal.kill();
            continue;
        }
        terminal.wait("the only one");
        terminal.detach();
        assert_eq!(terminal.end(), 0);
        assert_restored(&terminal);
    }
    wait_for_clients(&world, 0);
    assert_eq!(sessions(&world).len(), 1);
    let mut terminal = reattach(&world, "the only one");
    type_line(&mut terminal, "echo st''ill", "still");
}

fn named_sessions(engine: Engine) {
    let world = World::up(engine);
    let mut main = attach(&world);
    let mut other = Terminal::start(&world, &["attach", "-s", "other"]);
    ask_for_prompt(&mut other);
    type_line(&mut main, "echo $TAZPOD_SESSION; where=ma''in", "main");
    type_line(&mut other, "echo _$TAZPOD_SESSION''_$where", "_other_");
    assert_eq!(sessions(&world), [("main".into(), 1), ("other".into(), 1)]);
    // Programs of one do not hold up the other.
    main.send("sleep 1000\r");
    type_line(&mut other, "echo st''ill", "still");
    other.send("exit 4\r");
    assert_eq!(other.end(), 4);
    assert_eq!(sessions(&world), [("main".into(), 1)]);
}

fn exec_with_a_terminal(engine: Engine) {
    let world = World::up(engine);
    let script = "test -t 0 && test -t 1 && test -t 2 && stty size && echo $TERM; exit 5";
    let mut terminal = Terminal::sized(&world, &["exec", "--tty", "--", "sh", "-c", script], 31, 101);
    assert_eq!(terminal.end(), 5);
    terminal.wait("31 101\nxterm-256color");
    assert_restored(&terminal);

    // In place of the shell: dash forgets a signal that comes while it starts a child.
    let mut terminal =
        Terminal::start(&world, &["exec", "-t", "--", "sh", "-c", "echo re''ady; exec sleep 1000"]);
    terminal.wait("ready");
    terminal.send("\x03");
    assert_eq!(terminal.end(), 130);
    assert_restored(&terminal);

    // The detach sequence is the session's, not a command's; sizes follow.
    let mut terminal = Terminal::start(&world, &["exec", "-t", "--", "bash", "--norc", "-i"]);
    terminal.wait("$");
    terminal.send("stty -echo\r");
    terminal.send("\r~.\r");
    terminal.wait("~.");
    terminal.resize_in(&world, 40, 90);
    terminal.send("stty size\r");
    terminal.wait("40 90");
    terminal.send("exit 6\r");
    assert_eq!(terminal.end(), 6);

    // A client that is gone takes its command with it.
    let mut terminal = Terminal::start(&world, &["exec", "-t", "--", "sleep", "4322"]);
    world.wait_for("the command", || world.sh("pgrep -f '^sleep 4322'").code == 0);
    terminal.kill();
    world.wait_for("the end of the command", || world.sh("pgrep -f '^sleep 4322'").code == 1);
}

fn a_session_over_exec(engine: Engine) {
    let mut world = World::new(engine);
    world.environment.push(("TAZPOD_LINK".into(), "exec".into()));
    world.run(&["up", "--detach"]).success();
    let mut terminal = attach(&world);
    type_line(&mut terminal, "seq -f 'row %g.' 1 100", "row 100.");
    terminal.resize_in(&world, 30, 100);
    type_line(&mut terminal, "stty size", "30 100");
    terminal.detach();
    assert_eq!(terminal.end(), 0);
    assert_restored(&terminal);
    wait_for_clients(&world, 0);
    let mut terminal = reattach(&world, "row 100.");
    assert!(terminal.history().iter().any(|line| line.trim_end() == "row 1."));
    terminal.kill();
    wait_for_clients(&world, 0);
    let mut terminal = reattach(&world, "row 100.");
    terminal.send("exit 7\r");
    assert_eq!(terminal.end(), 7);
}
