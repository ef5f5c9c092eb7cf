//! Keys besides the passphrase, with OpenSSH's keys and another implementation of age.

use std::fs;

use crate::machine::{Done, Machine, PASSPHRASE, answers};

/// An age identity; its recipient.
fn age_key(machine: &Machine, name: &str) -> String {
    machine.run("age-keygen", &["-o", &machine.word(name)], "").success();
    machine.run("age-keygen", &["-y", &machine.word(name)], "").success().stdout.trim().to_owned()
}

fn listed(machine: &Machine) -> Vec<(String, String)> {
    let report = machine.vault(&["recipients", "ls", "--json"]).success().json();
    assert_eq!(report["version"], 1);
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let recipients = report["recipients"].as_array().unwrap();
    recipients.iter().map(|found| (text(&found["kind"]), text(&found["comment"]))).collect()
}

/// What another implementation of age gets out of the keyring for recipients.
fn age_opens(machine: &Machine, identity: &str) -> Done {
    let keyring = machine.for_recipients();
    machine.run("age", &["-d", "-i", &machine.word(identity), &keyring.to_string_lossy()], "")
}

#[test]
fn each_recipient_opens_what_age_opens() {
    let store = tempfile::tempdir().unwrap();
    let machine = Machine::new(&store.path().join("vault"));
    let fingerprint = machine.init();
    assert!(machine.head("recipients").is_null());
    let age = age_key(&machine, "age.key");
    let ed25519 = machine.ssh_key("ed25519", &["-t", "ed25519"], "");
    let rsa = machine.ssh_key("rsa", &["-t", "rsa", "-b", "2048"], "");
    let done = machine.vault(&["recipients", "add", &format!("{age} laptop"), "--file", &ed25519]).success();
    assert!(done.stderr.contains("2 recipients open the vault"), "{}", done.stderr);
    assert!(!done.stderr.contains("fingerprint"), "the identity stays: {}", done.stderr);
    machine.vault(&["recipients", "add", "--file", &rsa]).success();
    let pair = |kind: &str, comment: &str| (kind.to_owned(), comment.to_owned());
    let all = [pair("age", "laptop"), pair("ssh-ed25519", "me@host"), pair("ssh-rsa", "me@host")];
    assert_eq!(listed(&machine), all);
    assert_eq!(machine.head("kind"), "rekey");
    for key in ["age.key", "ed25519", "rsa"] {
        let text = age_opens(&machine, key).success().stdout;
        assert!(
            text.starts_with("# tazpod vault keyring 1\n") && text.contains("\nAGE-SECRET-KEY-1"),
            "{text}"
        );
        assert!(text.contains(&format!("\n# recipient: {age} laptop\n")), "{text}");
        // It is a file of identities for age, and it opens the vault for tazpod.
        let identities = machine.at("identities");
        fs::write(&identities, text).unwrap();
        let generation =
            store.path().join(format!("vault/gen/{}.age", machine.head("gen").as_str().unwrap()));
        let arguments =
            ["-d", "-i", &machine.word("identities"), "-o", "/dev/null", &generation.to_string_lossy()];
        machine.run("age", &arguments, "").success();
        let opened =
            machine.vault_with(&["recipients", "ls", "--identity", &machine.word(key)], "").success();
        assert_eq!(opened.stdout.lines().count(), 4, "{}", opened.stdout);
    }
    // Nobody sees from the store who they are.
    for found in walk(store.path()) {
        assert!(!String::from_utf8_lossy(&fs::read(found).unwrap()).contains(&age));
    }
    assert!(machine.vault_with(&["card"], "").success().stdout.contains(&fingerprint));
    machine.vault_with(&["verify", "--read-data"], "").success();
}

fn walk(directory: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

#[test]
fn who_is_removed_opens_nothing_new() {
    let store = tempfile::tempdir().unwrap();
    let machine = Machine::new(&store.path().join("vault"));
    let fingerprint = machine.init();
    let (stays, goes) = (age_key(&machine, "stays"), age_key(&machine, "goes"));
    machine.vault(&["recipients", "add", &stays, &format!("{goes} old laptop")]).success();
    let before = age_opens(&machine, "goes").success().stdout;
    let done = machine.vault(&["recipients", "rm", "old laptop"]).success();
    assert!(done.stderr.contains("one recipient opens the vault"), "{}", done.stderr);
    assert!(done.stderr.contains("fingerprint: ") && !done.stderr.contains(&fingerprint), "{}", done.stderr);
    assert_ne!(age_opens(&machine, "goes").code, 0);
    let after = age_opens(&machine, "stays").success().stdout;
    let secrets = |text: &str| {
        text.lines().filter(|line| line.starts_with("AGE-SECRET")).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(secrets(&after)[1..], secrets(&before)[..], "the identity that was is retired");
    machine
        .vault_with(&["recipients", "ls", "--identity", &machine.word("goes")], "")
        .failure(11, "is the identity of none of the vault's recipients");
    // Another passphrase leaves the recipients what they are.
    let both = format!("{PASSPHRASE}another six words by chance now\n");
    machine.vault_with(&["passphrase", "--passphrases-fd", "0"], &both).success();
    machine.vault_with(&["recipients", "ls", "--identity", &machine.word("stays")], "").success();
    machine.vault(&["recipients", "ls"]).failure_plain(11, "this is not the vault's passphrase");
    let new = |arguments: &[&str]| {
        machine
            .vault_with(&[arguments, &["--passphrase-fd", "0"]].concat(), "another six words by chance now\n")
    };
    new(&["recipients", "rm", "--rewrap-only", &stays]).success();
    assert!(machine.head("recipients").is_null());
    machine
        .vault_with(&["recipients", "ls", "--identity", &machine.word("stays")], "")
        .failure(11, "nothing but its passphrase opens the vault");
    assert_eq!(new(&["recipients", "ls"]).success().stdout.lines().count(), 1);
    machine.vault_with(&["verify", "--read-data"], "").success();
}

#[test]
fn what_makes_no_sense_changes_nothing() {
    let store = tempfile::tempdir().unwrap();
    let machine = Machine::new(&store.path().join("vault"));
    machine.init();
    let age = age_key(&machine, "age.key");
    let ecdsa = machine.ssh_key("ecdsa", &["-t", "ecdsa"], "");
    let small = machine.ssh_key("small", &["-t", "rsa", "-b", "1024"], "");
    machine.vault(&["recipients", "add", &age]).success();
    let secret = fs::read_to_string(machine.at("age.key")).unwrap();
    let secret = secret.lines().last().unwrap();
    let n = machine.head("n");
    let private = machine.word("ecdsa");
    let cases: [(&[&str], i32, &str); 9] = [
        (&["add", &age], 2, "is a recipient already"),
        (&["add", "me@host"], 2, "`me@host` is no recipient"),
        (&["add", "--file", &ecdsa], 2, "`ecdsa-sha2-nistp256` are not supported"),
        (&["add", "--file", &small], 2, "fewer than 2048 bits"),
        (&["add", "--file", &private], 2, "private key"),
        (&["add", secret], 2, "private key"),
        (&["rm", secret], 2, "private key"),
        (&["rm", "nobody"], 2, "`nobody` is no recipient"),
        (&["add", "age1test1zzzzzzzz3qdwpw"], 1, "`age-plugin-test` is not there"),
    ];
    for (arguments, code, says) in cases {
        let done = machine.vault(&[&["recipients"][..], arguments].concat()).failure(code, says);
        assert!(!done.stderr.contains("AGE-SECRET-KEY-1"), "{}", done.stderr);
    }
    let ls =
        |identity: &str| machine.vault_with(&["recipients", "ls", "--identity", &machine.word(identity)], "");
    ls("missing").failure_plain(1, "cannot read");
    ls("config.toml").failure(2, "this is no identity");
    ls("small.pub").failure(2, "it is a public key");
    ls("ecdsa").failure(2, "`ecdsa-sha2-nistp256` are not supported");
    ls("small").failure(11, "the identity of none");
    machine.vault_with(&["recipients", "add"], "").failure_plain(2, "required");
    assert_eq!(machine.head("n"), n);
    assert_eq!(listed(&machine).len(), 1);
}

#[test]
fn an_encrypted_key_asks_for_its_own_passphrase() {
    let store = tempfile::tempdir().unwrap();
    let machine = Machine::new(&store.path().join("vault"));
    machine.init();
    let public = machine.ssh_key("key", &["-t", "ed25519"], "of the key");
    machine.vault(&["recipients", "add", "--file", &public]).success();
    let key = machine.word("key");
    let ls = ["recipients", "ls", "--identity", &key];
    machine.vault_with(&ls, "").failure(2, "there is no terminal to ask on");
    let question = "key`: ";
    let (code, screen) = machine.dialogue(&ls, answers(&[(question, "wrong"), (question, "of the key")]));
    assert_eq!(code, 0, "{screen}");
    assert!(
        screen.contains("not the key's passphrase") && screen.contains("ssh-ed25519  me@host"),
        "{screen}"
    );
    assert!(!screen.contains("of the key"), "{screen}");
    let (code, screen) = machine.dialogue(&ls, answers(&[(question, "1"), (question, "2"), (question, "3")]));
    assert_eq!(code, 11, "{screen}");
}

/// A store that somebody else made can be wrapped to a public key, too.
#[test]
fn a_recipient_alone_trusts_no_store() {
    let store = tempfile::tempdir().unwrap();
    let (here, there) =
        (Machine::new(&store.path().join("vault")), Machine::new(&store.path().join("vault")));
    let fingerprint = here.init();
    let age = age_key(&there, "age.key");
    here.vault(&["recipients", "add", &age]).success();
    let ls = |machine: &Machine| {
        machine.vault_with(&["recipients", "ls", "--identity", &there.word("age.key")], "")
    };
    ls(&there).failure(10, "this machine has no vault");
    there.vault_with(&["pull"], "").success();
    ls(&there).failure(13, "nothing shows yet that this is your vault");
    there.vault_with(&["pull", "--card", &"0".repeat(64)], "").failure(13, "is not the one on the card");
    ls(&there).failure(13, "nothing shows yet");
    there.vault_with(&["pull", "--card", &fingerprint], "").success();
    ls(&there).success();
    // What follows from it is trusted, too.
    let more = age_key(&here, "more");
    here.vault(&["recipients", "add", &more]).success();
    there.vault_with(&["pull"], "").success();
    ls(&there).success();
    // On a third one the passphrase shows it.
    let third = Machine::new(&store.path().join("vault"));
    third.vault_with(&["pull"], "").success();
    third
        .vault_with(&["recipients", "ls", "--passphrase-fd", "0"], "wrong\n")
        .failure_plain(11, "not the vault's");
    ls(&third).failure(13, "nothing shows yet");
    third.vault(&["recipients", "ls"]).success();
    ls(&third).success();
}

/// A plugin whose keys hide nothing: it gives the file key as it is, after asking for a PIN.
const PLUGIN: &str = r#"#!/usr/bin/env python3
import base64, sys

def read():
    words = sys.stdin.readline().split()[1:]
    body = b""
    while True:
        line = sys.stdin.readline().strip()
        body += base64.b64decode(line + "=" * (-len(line) % 4))
        if len(line) < 64:
            return words, body

def write(words, body=b""):
    text = base64.b64encode(body).decode().rstrip("=")
    lines = [text[n:n + 64] for n in range(0, len(text), 64)] + ([""] if len(text) % 64 == 0 else [])
    print("-> " + words, *lines, sep="\n", flush=True)

stanzas = []
while True:
    words, body = read()
    stanzas.append((words, body))
    if words[0] == "done":
        break
if sys.argv[1] == "--age-plugin=recipient-v1":
    for words, body in stanzas:
        if words[0] == "wrap-file-key":
            write("recipient-stanza 0 plain-test", body)
            read()
else:
    write("request-secret", b"PIN of the token")
    answer, pin = read()
    for words, body in stanzas:
        if words[0] == "recipient-stanza" and words[2] == "plain-test" and pin == b"1234":
            write("file-key 0", body)
            read()
write("done")
"#;

#[test]
fn a_plugin_wraps_and_opens() {
    let store = tempfile::tempdir().unwrap();
    let machine = Machine::new(&store.path().join("vault"));
    machine.init();
    machine.program("age-plugin-test", PLUGIN);
    machine.vault(&["recipients", "add", "age1test1zzzzzzzz3qdwpw the token"]).success();
    assert_eq!(listed(&machine), [("age-plugin-test".to_owned(), "the token".to_owned())]);
    let identity = "AGE-PLUGIN-TEST-1M7420Z";
    fs::write(machine.at("identity"), identity).unwrap();
    let file = machine.word("identity");
    let ls = ["recipients", "ls", "--identity", &file];
    let question = "PIN of the token: ";
    let (code, screen) = machine.dialogue(&ls, answers(&[(question, "1234")]));
    assert_eq!(code, 0, "{screen}");
    assert!(screen.contains("the token") && !screen.contains("1234"), "{screen}");
    let (code, screen) = machine.dialogue(&ls, answers(&[(question, "4321")]));
    assert_eq!(code, 11, "{screen}");
    machine.vault_with(&ls, "").failure(11, "the identity of none");
    machine.program("age-plugin-test", "#!/bin/sh\nexit 1\n");
    machine.vault_with(&ls, "").failure_plain(1, "a plugin of age's ended before");
    fs::remove_file(machine.at("bin/age-plugin-test")).unwrap();
    machine.vault_with(&ls, "").failure(1, "`age-plugin-test` is not there");
}
