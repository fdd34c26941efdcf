//! What documents tell a reader to type: that the programs know it.

use std::process::Command;

use tidy::{documents::options_exist, workspace};

use crate::driver::rig;

/// The help of a program and of all its commands.
fn help_of(program: &str) -> String {
    let program = rig().with_file_name(program);
    let help = |arguments: &[&str]| {
        let output = Command::new(&program).args(arguments).arg("--help").output().unwrap();
        assert!(output.status.success(), "{} {arguments:?}", program.display());
        String::from_utf8(output.stdout).unwrap()
    };
    let whole = help(&[]);
    let commands = whole.split_once("\nCommands:\n").map_or("", |(_, after)| after);
    let commands = commands.lines().take_while(|line| !line.is_empty());
    let names = commands.filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    let names = names.filter(|name| !name.is_empty() && *name != "help");
    names.fold(whole.clone(), |all, name| all + &help(&[name]))
}

/// Scenario: every command in the documents that calls one of the programs.
/// Guarantees: the program, or one of its commands, has each option.
#[test]
fn options_in_documents_exist() {
    let documents = workspace::documents(&workspace::root());
    let mut mentions = 0;
    for program in ["thyme-agent", "log-generator", "nop-collector", "rig"] {
        let help = help_of(program);
        for (path, text) in &documents {
            mentions += options_exist(path, text, program, "").len();
            let found: Vec<String> =
                options_exist(path, text, program, &help).iter().map(ToString::to_string).collect();
            assert!(found.is_empty(), "{}", found.join("\n"));
        }
    }
    assert!(mentions > 10, "only {mentions} options were found at all");
}
