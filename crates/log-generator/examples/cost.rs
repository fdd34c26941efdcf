//! Measures what making lines costs beside writing them: CPU of the generator's own writer thread
//! against plain 256 KiB writes of the same bytes to the same place.
//!
//! `cargo run --release -p log-generator --example cost -- DIR [LINES]` prints, for each kind, the
//! median of five interleaved pairs.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use log_generator::container::{Container, ContainerOptions, Framing};
use log_generator::generate::{Generator, Output, Shared};
use log_generator::line::vocabulary::Vocabulary;
use log_generator::line::{Kind, LineMaker};
use log_generator::manifest::Manifest;
use log_generator::rate::{Pace, share};
use log_generator::sink::{LiveFile, Sink};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const PODS: u64 = 20;
const PAIRS: usize = 5;
const PLAIN_WRITE_BYTES: usize = 256 * 1024;

/// CPU time of one pair, in nanoseconds, and what was written.
struct Pair {
    made: u64,
    plain: u64,
    bytes: u64,
}

fn main() -> Result<ExitCode> {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().ok_or("usage: cost DIR [LINES]")?;
    let lines = arguments.next().map_or(Ok(1_000_000), |lines| lines.parse())?;
    let mut out = std::io::stdout().lock();
    let mut good = true;
    for kind in [Kind::Mixed, Kind::Json, Kind::Access, Kind::Random] {
        let directory = Path::new(&directory).join(format!("{kind:?}"));
        let mut pairs = Vec::new();
        for _ in 0..PAIRS {
            pairs.push(measure(&directory, kind, lines)?);
        }
        pairs.sort_by(|one, other| one.ratio().total_cmp(&other.ratio()));
        let Pair { made, plain, bytes } = pairs[PAIRS / 2];
        let ratio = pairs[PAIRS / 2].ratio();
        let nanos = |cpu: u64| cpu as f64 / lines as f64;
        writeln!(
            out,
            "{kind:?}: {:.0} B a line; making and writing {:.0} ns, plain {:.0} ns: {ratio:.2} x",
            bytes as f64 / lines as f64,
            nanos(made),
            nanos(plain),
        )?;
        good &= kind != Kind::Mixed || ratio <= 3.0;
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Pair {
    fn ratio(&self) -> f64 {
        self.made as f64 / self.plain as f64
    }
}

fn measure(directory: &Path, kind: Kind, lines: u64) -> Result<Pair> {
    let files = directory.join("made");
    let generator = generator(&files, kind, lines)?;
    let before = thread_cpu_nanos()?;
    let shared = generator.1;
    let outcome = generator.0.run();
    let made = thread_cpu_nanos()? - before;
    if let Some(error) = outcome.error {
        return Err(error.into());
    }
    assert_eq!(shared.manifest.lines().iter().map(|line| line.lines).sum::<u64>(), lines);

    let mut content = Vec::new();
    let mut sizes = Vec::new();
    for pod in fs::read_dir(&files)? {
        let size = File::open(pod?.path().join("app/0.log"))?.read_to_end(&mut content)?;
        sizes.push(size);
    }
    let plain_directory = directory.join("plain");
    fs::create_dir_all(&plain_directory)?;
    let before = thread_cpu_nanos()?;
    let mut rest = &content[..];
    for (index, size) in sizes.into_iter().enumerate() {
        let mut file = File::create(plain_directory.join(index.to_string()))?;
        let (bytes, after) = rest.split_at(size);
        bytes.chunks(PLAIN_WRITE_BYTES).try_for_each(|chunk| file.write_all(chunk))?;
        rest = after;
    }
    let plain = thread_cpu_nanos()? - before;
    fs::remove_dir_all(directory)?;
    Ok(Pair { made, plain, bytes: content.len() as u64 })
}

fn generator(root: &Path, kind: Kind, lines: u64) -> Result<(Generator, Arc<Shared>)> {
    let writers = (0..PODS as u32).map(|pod| [2 * pod, 2 * pod + 1]).collect();
    let shared = Arc::new(Shared::new(Manifest::new(1, writers)));
    let vocabulary = Arc::new(Vocabulary::new(1));
    let mut outputs = Vec::new();
    for pod in 0..PODS {
        let options = ContainerOptions {
            run: 1,
            writers: [2 * pod as u32, 2 * pod as u32 + 1],
            stderr_share: 0.0,
            lines: Some(share(lines, PODS, 0, pod)),
            framing: Framing::Cri { partial_bytes_max: 16_384 },
        };
        let bodies = LineMaker::new(kind, None, 1, pod, Arc::clone(&vocabulary));
        let file = LiveFile::create(&root.join(pod.to_string()).join("app/0.log"), false)?;
        let container = Container::new(&options, bodies);
        outputs.push(Output { container, sink: Sink::Pod(file) });
    }
    let pace = Pace::new(0, Some(lines), None);
    Ok((Generator::new(outputs, pace, Arc::clone(&shared)), shared))
}

/// CPU time of this thread, by the scheduler's own account.
fn thread_cpu_nanos() -> Result<u64> {
    let text = fs::read_to_string("/proc/thread-self/schedstat")?;
    Ok(text.split(' ').next().ok_or("an empty schedstat")?.parse()?)
}
