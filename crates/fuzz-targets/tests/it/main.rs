//! Replays every committed input through its target, and inputs made from them, so that a
//! regression fails here without any fuzzer.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use fuzz_targets::{TARGETS, Target};

/// Longest committed input, bytes.
const INPUT_BYTES_MAX: u64 = 4 << 10;

/// Most committed inputs of a target.
const INPUTS_MAX: usize = 150;

/// Inputs that are made from the committed ones, for each target.
const MUTANTS: u64 = 2_000;

fn fuzz_directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz")
}

/// The committed inputs of a target, in order of their names.
fn corpus(target: Target) -> Vec<(PathBuf, Vec<u8>)> {
    let directory = fuzz_directory().join("corpus").join(target.name);
    let entries = fs::read_dir(&directory).unwrap_or_else(|error| panic!("{directory:?}: {error}"));
    let paths: BTreeSet<PathBuf> = entries.map(|entry| entry.expect("readable").path()).collect();
    paths.into_iter().map(|path| (path.clone(), fs::read(path).expect("readable"))).collect()
}

/// Runs a check; a panic names the input first.
fn run(target: Target, input: &[u8], source: &dyn Fn() -> String) {
    let outcome = std::panic::catch_unwind(|| (target.check)(input));
    assert!(outcome.is_ok(), "{}: {}: {}", target.name, source(), input.escape_ascii());
}

/// Scenario: every input that fuzzing found worth keeping, crashes of the past included.
/// Guarantees: each target's promises hold for all of them.
#[test]
fn committed_inputs_pass() {
    for target in TARGETS {
        let corpus = corpus(target);
        assert!(!corpus.is_empty(), "{} has no inputs", target.name);
        for (path, input) in corpus {
            run(target, &input, &|| path.display().to_string());
        }
    }
}

/// Scenario: committed inputs are cut, spliced, and changed by a seeded generator.
/// Guarantees: each target's promises hold for them too.
#[test]
fn changed_inputs_pass() {
    for target in TARGETS {
        let corpus = corpus(target);
        for seed in 1..=MUTANTS {
            let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let input = mutant(&corpus, &mut random);
            run(target, &input, &|| format!("seed {seed}"));
        }
    }
}

/// Scenario: the directories and files of the committed inputs.
/// Guarantees: each belongs to a target, and they stay few and small.
#[test]
fn committed_inputs_are_few_and_small() {
    let names: BTreeSet<_> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    let directories: BTreeSet<_> = fs::read_dir(fuzz_directory().join("corpus"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(directories, names);
    for target in TARGETS {
        let corpus = corpus(target);
        assert!(corpus.len() <= INPUTS_MAX, "{} has {} inputs", target.name, corpus.len());
        for (path, input) in corpus {
            assert!(input.len() as u64 <= INPUT_BYTES_MAX, "{path:?} has {} bytes", input.len());
        }
    }
}

/// xorshift64.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end.max(1) as u64) as usize
    }
}

fn mutant(corpus: &[(PathBuf, Vec<u8>)], random: &mut Random) -> Vec<u8> {
    let mut input = corpus[random.below(corpus.len())].1.clone();
    for _ in 0..=random.below(4) {
        let at = random.below(input.len() + 1);
        match random.below(6) {
            0 if at < input.len() => input[at] ^= 1 << random.below(8),
            1 if at < input.len() => input[at] = random.below(256) as u8,
            2 => input.truncate(at),
            3 => input.insert(at, random.below(256) as u8),
            4 => {
                let end = (at + random.below(16)).min(input.len());
                input.drain(at..end);
            }
            _ => {
                let other = &corpus[random.below(corpus.len())].1;
                let start = random.below(other.len() + 1);
                let end = (start + random.below(64)).min(other.len());
                input.splice(at..at, other[start..end].iter().copied());
            }
        }
    }
    input
}
