//! Named points at which a test has the process die, hang or panic. A build without debug assertions
//! knows nothing of them: there [`hit`] is empty, and the environment is not looked at.
//!
//! A new point is a line `failpoint::hit("name")` where it is passed, and its name in [`POINTS`]. A
//! test below compares the two; the crash tests go through the list.

/// Variable that arms a point: `NAME:COUNT`, and the process is killed as by `kill -9` at the
/// COUNT-th time that NAME is passed. `NAME:COUNT:hang` stops that thread for good instead, and
/// `NAME:COUNT:panic` panics there.
pub const VARIABLE: &str = "THYME_FAILPOINT";

/// Every point, in the order of the flow of data.
pub const POINTS: &[&str] = &[
    "file_opened",
    "snapshot_taken",
    "file_resumed",
    "file_recognised",
    "worker_turn",
    "file_read",
    "lines_parsed",
    "file_finished",
    "batch_encoded",
    "batch_handed_over",
    "batch_sent_to_spool",
    "request_copied",
    "request_before_send",
    "request_sent",
    "request_answered",
    "request_ended",
    "settlement_sent",
    "settlement_booked",
    "settlement_published",
    "file_forgotten",
    "spool_recovered",
    "spool_segment_created",
    "spool_segment_reserved",
    "spool_header_written",
    "spool_record_written",
    "spool_synced",
    "spool_kept",
    "spool_told",
    "spool_handed_over",
    "spool_settled",
    "spool_cursor_created",
    "spool_cursor_written",
    "spool_cursor_renamed",
    "spool_segment_emptied",
    "spool_segment_removed",
    "checkpoint_begun",
    "journal_appended",
    "journal_synced",
    "journal_removed",
    "checkpoint_synced",
    "journal_created",
    "link_removed",
    "link_made",
    "link_renamed",
    "checkpoint_linked",
    "checkpoint_renamed",
    "checkpoint_directory_synced",
    "drain_begun",
    "drain_sent",
    "drain_settled",
    "workers_ended",
    "spool_ended",
];

/// Passes a point.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub const fn hit(_name: &'static str) {}

/// Passes a point: does nothing, unless the environment arms it.
///
/// # Panics
/// When the environment says so, or says what can't be understood.
#[cfg(debug_assertions)]
pub fn hit(name: &'static str) {
    armed::hit(name);
}

#[cfg(debug_assertions)]
mod armed {
    use std::sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    };

    use rustix::process::{Signal, getpid, kill_process};

    use super::{POINTS, VARIABLE};

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) enum Action {
        Kill,
        Hang,
        Panic,
    }

    #[derive(Debug)]
    pub(super) struct Armed {
        pub(super) name: &'static str,
        /// How often it is still to be passed.
        pub(super) left: AtomicU64,
        pub(super) action: Action,
    }

    pub(super) fn hit(name: &'static str) {
        static ARMED: OnceLock<Option<Armed>> = OnceLock::new();
        let armed = ARMED.get_or_init(|| {
            let text = std::env::var(VARIABLE).ok().filter(|text| !text.is_empty())?;
            Some(parse(&text).unwrap_or_else(|| panic!("{VARIABLE}={text}: no such point")))
        });
        let Some(armed) = armed.as_ref().filter(|armed| armed.name == name) else { return };
        // Below zero it wraps, and isn't one again within a process's life.
        if armed.left.fetch_sub(1, Ordering::Relaxed) == 1 {
            act(armed.action);
        }
    }

    pub(super) fn parse(text: &str) -> Option<Armed> {
        let mut parts = text.split(':');
        let name = parts.next()?;
        let name = POINTS.iter().find(|point| **point == name)?;
        let left: u64 = parts.next()?.parse().ok().filter(|count| *count > 0)?;
        let action = match parts.next() {
            None | Some("kill") => Action::Kill,
            Some("hang") => Action::Hang,
            Some("panic") => Action::Panic,
            Some(_) => return None,
        };
        Some(Armed { name, left: AtomicU64::new(left), action })
    }

    #[cold]
    fn act(action: Action) {
        match action {
            Action::Kill => {
                kill_process(getpid(), Signal::KILL).expect("a process may kill itself")
            }
            Action::Hang => {}
            Action::Panic => panic!("{VARIABLE} asks for it"),
        }
        // Also after the kill: nothing may happen between the call and the end.
        loop {
            std::thread::park();
        }
    }
}

#[cfg(test)]
#[cfg(debug_assertions)]
mod tests {
    use super::armed::{Action, parse};
    use super::*;
    use std::{collections::BTreeMap, fs, path::Path};

    fn count_points(directory: &Path, found: &mut BTreeMap<String, usize>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                count_points(&path, found);
            } else if !path.ends_with("failpoint.rs") {
                let text = fs::read_to_string(&path).unwrap();
                for rest in text.split("failpoint::hit(\"").skip(1) {
                    let name = rest.split('"').next().unwrap();
                    *found.entry(name.to_owned()).or_default() += 1;
                }
            }
        }
    }

    /// Scenario: the crate's own source.
    /// Guarantees: each listed point is passed at one place, and each point that is passed is
    /// listed, so that the crash tests forget none.
    #[test]
    fn the_list_is_what_is_passed() {
        let mut found = BTreeMap::new();
        count_points(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
        let listed: BTreeMap<String, usize> =
            POINTS.iter().map(|&name| (name.to_owned(), 1)).collect();
        assert_eq!(found, listed);
    }

    /// Scenario: the variable as it is to be, and with each part wrong.
    /// Guarantees: each action is understood, and nothing wrong is taken for something else.
    #[test]
    fn the_variable_is_understood() {
        for (text, action) in [
            ("file_read:2", Action::Kill),
            ("file_read:2:kill", Action::Kill),
            ("file_read:2:hang", Action::Hang),
            ("file_read:2:panic", Action::Panic),
        ] {
            let armed = parse(text).unwrap();
            assert_eq!((armed.name, armed.left.into_inner()), ("file_read", 2));
            assert_eq!(armed.action, action);
        }
        for text in ["file_read", "file_read:", "file_read:0", "file_read:1:stop", "nothing:1"] {
            assert!(parse(text).is_none(), "{text}");
        }
    }
}
