//! Passphrases that tazpod makes.

use crate::machine::{Machine, PASSPHRASE, answers};

/// The six words on a screen.
fn words(text: &str) -> Option<String> {
    let looks = |line: &&str| {
        line.matches('-').count() >= 5 && line.bytes().all(|c| c == b'-' || c.is_ascii_lowercase())
    };
    text.lines().map(|line| line.trim_end_matches('\r')).find(looks).map(str::to_owned)
}

#[test]
fn without_a_terminal_they_are_data() {
    let store = tempfile::tempdir().unwrap();
    let machine = Machine::new(&store.path().join("vault"));
    let made = machine.vault_with(&["init", "--generate"], "").success();
    let first = words(&made.stdout).unwrap();
    assert_eq!(made.stdout, format!("{first}\n"));
    assert!(!made.stderr.contains(&first), "{}", made.stderr);
    let open = |passphrase: &str| {
        machine.vault_with(&["recipients", "ls", "--passphrase-fd", "0"], &format!("{passphrase}\n"))
    };
    open(&first).success();
    let made = machine
        .vault_with(&["passphrase", "--generate", "--passphrases-fd", "0"], &format!("{first}\n"))
        .success();
    let second = words(&made.stdout).unwrap();
    assert_ne!(first, second);
    open(&second).success();
    open(&first).failure_plain(11, "this is not the vault's passphrase");
    // Nobody gets words who did not ask for them.
    let other = Machine::new(&store.path().join("other"));
    assert_eq!(other.vault_with(&["init"], "\n").failure(2, "there is no terminal to ask on").stdout, "");
    other.vault_with(&["init", "--passphrase-fd", "0"], "\n").failure_plain(11, "the passphrase is empty");
    other
        .vault_with(&["init", "--generate", "--passphrase-fd", "0"], PASSPHRASE)
        .failure_plain(2, "cannot be used with");
}

#[test]
fn on_a_terminal_they_are_typed_again() {
    let store = tempfile::tempdir().unwrap();
    let machine = Machine::new(&store.path().join("vault"));
    let (empty, again) = ("for six words by chance): ", "and type them: ");
    let mut asked = 0;
    let mut shown = String::new();
    let (code, screen) = machine.dialogue(&["init"], |screen| {
        let due = match asked {
            0 => screen.contains(empty).then(|| "\n".to_owned()),
            1 => (screen.matches(again).count() == 1).then(|| "other words\n".to_owned()),
            2 => (screen.matches(again).count() == 2).then(|| {
                shown = words(screen).unwrap();
                format!("{shown}\n")
            }),
            _ => None,
        };
        asked += u32::from(due.is_some());
        due
    });
    assert_eq!(code, 0, "{screen}");
    assert!(screen.contains("these are other words"), "{screen}");
    assert_eq!(screen.matches(&shown).count(), 1, "{screen}");
    let opened = machine.vault_with(&["recipients", "ls", "--passphrase-fd", "0"], &format!("{shown}\n"));
    opened.success();
    // Who does not type them has no vault.
    let other = Machine::new(&store.path().join("other"));
    let wrong = [(again, "1"), (again, "2"), (again, "3")];
    let (code, screen) = other.dialogue(&["init", "--generate"], answers(&wrong));
    assert_eq!(code, 11, "{screen}");
    assert!(!store.path().join("other/commits").exists());
}
