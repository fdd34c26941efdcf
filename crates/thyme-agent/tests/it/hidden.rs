//! Directories that are out of sight for a while, while the agent runs: what is in them is not deleted.

use std::{
    fs,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use thyme_agent::limits::LINGER_TIME;

use crate::{
    node::{Node, append, cri, wait_until},
    program::{Program, Setup},
};

/// Far less than what finds late writers.
const SOON: Duration = Duration::from_secs(20);

/// Scenario: row 40. A pod's directory is moved away for longer than finished files are kept open, its live
/// file is written to there, and it comes back; then it happens again, and the agent is killed meanwhile.
/// Guarantees: each time reading goes on where it was, what is written there comes soon, and so does
/// what is written later; nothing comes twice, and nothing counts as lost.
#[test]
fn a_live_file_that_was_hidden_is_followed_again() {
    let node = Node::new();
    let live = node.container("a").join("0.log");
    let pod = live.ancestors().nth(2).unwrap().to_owned();
    let aside = node.path("aside");
    append(&live, cri("begun"));
    let config = Setup::default().write(&node);
    let mut agent = Program::start(&config);
    let text = |expected: &str| {
        let begun = Instant::now();
        let texts: Vec<_> = node.wait_records(1).iter().map(|one| one.text()).collect();
        assert_eq!(texts, [expected]);
        assert!(begun.elapsed() < SOON, "{expected}: after {:?}", begun.elapsed());
    };
    text("begun");
    let finished = || {
        let state = fs::read_dir(node.path("state")).unwrap();
        let files = state.filter_map(|file| fs::read_to_string(file.unwrap().path()).ok());
        files.map(|text| text.matches("\"finished\":true").count()).sum::<usize>()
    };
    for round in ["running", "killed"] {
        let before = finished();
        fs::rename(&pod, &aside).unwrap();
        wait_until("it counts as finished", || finished() > before);
        if round == "running" {
            let hidden_since = Instant::now();
            wait_until("others are closed", || hidden_since.elapsed() > LINGER_TIME * 3 / 2);
        }
        let hidden = aside.join(live.strip_prefix(&pod).unwrap());
        append(&hidden, cri(round));
        if round == "killed" {
            agent.signal(Signal::KILL);
            drop(agent);
            fs::rename(&aside, &pod).unwrap();
            agent = Program::start(&config);
        } else {
            fs::rename(&aside, &pod).unwrap();
        }
        text(round);
        append(&live, cri("more"));
        text("more");
    }
    assert_eq!(agent.metric("thyme_files_lost"), 0);
    agent.stop();
    assert!(node.take_records().is_empty());
}
