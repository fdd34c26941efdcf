//! Tests of the spool on a real disk, with a sink that the test plays.

mod damage;

use std::{
    io::Write,
    ops::Range,
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicI32, AtomicU64},
    },
};

use rustix::io::Errno;

use super::{segment::HEADER_BYTES, *};
use crate::{
    config::Compression,
    limits::SPOOL_UNREADABLE_ROUNDS_MAX,
    queue::{Rest, SetAside},
    tail::acknowledge::Acknowledged,
    world::{
        StateFile,
        real::{NodeDisk, SystemClock},
    },
};

/// A disk that can be made to fail.
struct Disk {
    inner: NodeDisk,
    /// Bytes that may still be appended; `None` is no limit.
    room: Arc<Mutex<Option<u64>>>,
    sync_fails: Arc<AtomicBool>,
    /// So many succeed before they fail.
    syncs_first: Arc<AtomicU64>,
    truncate_fails: Arc<AtomicBool>,
    read_fails: Arc<AtomicBool>,
    /// Error number that each opening fails with; zero is none.
    open_error: AtomicI32,
    /// Bytes of files that can't be read, and why.
    bad: Bad,
    /// Names that were made, and directories that were synced, in order.
    names: Mutex<Vec<String>>,
}

struct DiskFile {
    inner: Box<dyn StateFile>,
    room: Arc<Mutex<Option<u64>>>,
    sync_fails: Arc<AtomicBool>,
    /// So many succeed before they fail.
    syncs_first: Arc<AtomicU64>,
    truncate_fails: Arc<AtomicBool>,
    read_fails: Arc<AtomicBool>,
    name: String,
    bad: Bad,
}

type Bad = Arc<Mutex<Vec<(String, Range<u64>, Errno)>>>;

impl Disk {
    fn new(directory: &Path) -> Arc<Self> {
        Arc::new(Self {
            inner: NodeDisk::new(directory),
            room: Arc::default(),
            sync_fails: Arc::default(),
            syncs_first: Arc::default(),
            truncate_fails: Arc::default(),
            read_fails: Arc::default(),
            open_error: AtomicI32::default(),
            bad: Arc::default(),
            names: Mutex::default(),
        })
    }

    fn note(&self, what: &str, name: &str) {
        self.names.lock().unwrap().push(format!("{what} {name}"));
    }

    fn wrap(&self, inner: Box<dyn StateFile>, name: &str) -> Box<dyn StateFile> {
        Box::new(DiskFile {
            inner,
            room: Arc::clone(&self.room),
            sync_fails: Arc::clone(&self.sync_fails),
            syncs_first: Arc::clone(&self.syncs_first),
            truncate_fails: Arc::clone(&self.truncate_fails),
            read_fails: Arc::clone(&self.read_fails),
            name: name.to_owned(),
            bad: Arc::clone(&self.bad),
        })
    }
}

impl StateDisk for Disk {
    fn make_directory(&self, name: &str) -> io::Result<()> {
        self.note("make", name);
        self.inner.make_directory(name)
    }
    fn names(&self, directory: &str) -> io::Result<Vec<String>> {
        self.inner.names(directory)
    }
    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        if self.read_fails.load(Ordering::Relaxed) {
            return Err(io::Error::other("read fails"));
        }
        self.inner.read(name)
    }
    fn create(&self, name: &str) -> io::Result<Box<dyn StateFile>> {
        self.note("create", name);
        Ok(self.wrap(self.inner.create(name)?, name))
    }
    fn open(&self, name: &str) -> io::Result<Box<dyn StateFile>> {
        match self.open_error.load(Ordering::Relaxed) {
            0 => Ok(self.wrap(self.inner.open(name)?, name)),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }
    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        self.inner.link(from, to)
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.inner.rename(from, to)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.inner.remove(name)
    }
    fn sync_directory(&self, directory: &str) -> io::Result<()> {
        self.note("sync", directory);
        self.inner.sync_directory(directory)
    }
}

impl StateFile for DiskFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut room = self.room.lock().unwrap();
        if let Some(left) = &mut *room {
            let fits = (*left).min(bytes.len() as u64);
            *left -= fits;
            self.inner.append(&bytes[..fits as usize])?;
            if fits < bytes.len() as u64 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            return Ok(());
        }
        self.inner.append(bytes)
    }
    fn sync(&mut self) -> io::Result<()> {
        let first = self.syncs_first.load(Ordering::Relaxed);
        self.syncs_first.store(first.saturating_sub(1), Ordering::Relaxed);
        if first == 0 && self.sync_fails.load(Ordering::Relaxed) {
            return Err(io::Error::other("sync fails"));
        }
        self.inner.sync()
    }
    fn truncate(&mut self, bytes: u64) -> io::Result<()> {
        if self.truncate_fails.load(Ordering::Relaxed) {
            return Err(io::Error::other("truncate fails"));
        }
        self.inner.truncate(bytes)
    }
    fn reserve(&mut self, bytes: u64) -> io::Result<()> {
        self.inner.reserve(bytes)
    }
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let end = offset + buffer.len() as u64;
        let bad = self.bad.lock().unwrap();
        let mut bad = bad.iter().filter(|(name, bytes, _)| {
            self.name.starts_with(name) && bytes.start < end && offset < bytes.end
        });
        if let Some((_, _, error)) = bad.next() {
            return Err((*error).into());
        }
        if self.read_fails.load(Ordering::Relaxed) {
            return Err(Errno::IO.into());
        }
        self.inner.read_at(buffer, offset)
    }
    fn length(&self) -> io::Result<u64> {
        self.inner.length()
    }
}

/// A spool with one worker and a sink that the test plays.
struct Rig {
    spool: Spool,
    link: SpoolLink,
    sink: mpsc::Receiver<Request>,
    reply: Sender<Settlement>,
    told: Receiver<Settlement>,
    metrics: Arc<Metrics>,
}

const BYTES_MAX: u64 = 1 << 30;

impl Rig {
    fn open(disk: &Arc<Disk>, bytes_max: u64) -> Self {
        let (requests, sink) = mpsc::channel(1000);
        let metrics = Arc::new(Metrics::default());
        let start = SpoolStart {
            disk: Arc::clone(disk) as Arc<dyn StateDisk>,
            bytes_max,
            life: 1,
            requests,
            clock: SystemClock::shared(),
            metrics: Arc::clone(&metrics),
        };
        let (spool, mut links) = Spool::open(start, 1).unwrap();
        let (reply, told) = unbounded();
        Self { spool, link: links.remove(0), sink, reply, told, metrics }
    }

    fn request(&self, number: u64, body: &[u8]) -> Request {
        Request {
            body: vec![Bytes::copy_from_slice(body)],
            body_bytes: body.len(),
            uncompressed_bytes: body.len(),
            records: 10,
            source_bytes: 100,
            compression: Compression::Zstd,
            reply: self.reply.clone(),
            settled: Default::default(),
            token: Token { number, to_spool: true, ..Token::default() },
        }
    }

    fn keep(&mut self, number: u64, body: &[u8]) {
        let request = self.request(number, body);
        self.link.messages.send(SpoolMessage::Keep { request, worker: 0 }).unwrap();
        self.step();
    }

    /// Hands over a request that covers the first ten bytes of a file with its number.
    fn hand_over_covering(&self, number: u64) {
        let mut request = self.request(number, &[number as u8; 100]);
        request.token.covers = vec![(number, 0, 10)];
        self.link.messages.send(SpoolMessage::Keep { request, worker: 0 }).unwrap();
    }

    fn secure(&mut self, number: u64, body: &[u8]) {
        let request = self.request(number, body);
        self.link.messages.send(SpoolMessage::Secure { request, worker: 0 }).unwrap();
        self.step();
    }

    fn step(&mut self) {
        assert!(matches!(self.spool.step(), Step::Wait(_)));
    }

    /// Numbers of the requests that were said to be kept, and of those secured.
    fn told(&self) -> (Vec<u64>, Vec<u64>) {
        let (mut kept, mut secured) = (Vec::new(), Vec::new());
        for settlement in self.told.try_iter() {
            match settlement {
                Settlement::Kept(request) => {
                    kept.push(request.token.number);
                    // As a worker does.
                    let _together = self.metrics.together();
                    self.metrics.queued_spool.add(10, 100);
                }
                Settlement::Secured(number) => secured.push(number),
                Settlement::CopyLost(number) => panic!("the copy of {number} is lost"),
                _ => panic!("nothing has ended"),
            }
        }
        (kept, secured)
    }

    /// What the sink got since the last call; it accepts all of it.
    fn accept_all(&mut self) -> Vec<Vec<u8>> {
        let mut bodies = Vec::new();
        while let Ok(request) = self.sink.try_recv() {
            bodies.push(request.body.concat());
            let (reply, acknowledged_records) = (request.reply.clone(), request.records);
            let settled = Settled {
                request,
                acknowledged_records,
                dead_lettered_records: 0,
                dropped: vec![],
            };
            reply.send(Settlement::Ended(settled)).unwrap();
            self.step();
        }
        bodies
    }

    /// Reads what there is until nothing is left that can be read now; what was put off before, too.
    fn read_on(&mut self) {
        self.spool.put_off_at = self.spool.put_off_at.map(|_| Instant::now());
        for _ in 0..SPOOL_READ_FAILURES_MAX {
            self.spool.read_at = None;
            self.step();
        }
        assert!(!self.link.status.has_backlog(), "the workers go on");
    }

    /// Ends as a process does that had time to, but whose requests under way are not answered.
    fn end(mut self) {
        self.link.messages.send(SpoolMessage::Stop(Instant::now())).unwrap();
        drop(self.link);
        while self.spool.step() != Step::End {}
    }
}

fn body(number: u8) -> Vec<u8> {
    vec![number; 100]
}

/// Appends a record with this number in its body.
fn append(store: &mut Store, number: u8) -> Result<u64, AppendError> {
    let header = Header {
        id: 0,
        records: 10,
        source_bytes: 100,
        uncompressed_bytes: 100,
        kept_unix_ms: 0,
        body_bytes: 0,
        body_crc32: 0,
        compression: Compression::Zstd,
        note_bytes: 0,
    };
    store.append(&Fresh { body: &[body(number).into()], note: &[], header, is_copy: false })
}

/// Bodies that the next start reads.
fn bodies_at_a_start(disk: Arc<dyn StateDisk>) -> Vec<Vec<u8>> {
    let (mut store, _) = Store::open(disk, BYTES_MAX).unwrap();
    let mut bodies = Vec::new();
    while let Some(entry) = store.read_next(&|_| false).unwrap() {
        if let Entry::Whole(_, body) = entry {
            bodies.push(body);
        }
    }
    bodies
}

/// Files that hold anything.
fn files(directory: &Path, suffix: &str) -> Vec<std::path::PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(directory.join("spool"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().ends_with(suffix))
        .filter(|path| path.metadata().unwrap().len() > 0)
        .collect();
    files.sort();
    files
}

/// Scenario: rows 17 and 19. Two requests come at once, and the disk has room for the first only.
/// Guarantees: neither is said to be kept, since the failure takes back what was not synced; both go on
/// to the sink, each once and in order.
#[test]
fn a_record_before_one_that_failed_is_written_again() {
    let directory = tempfile::tempdir().unwrap();
    let disk = Disk::new(directory.path());
    let mut rig = Rig::open(&disk, BYTES_MAX);
    *disk.room.lock().unwrap() = Some(200);
    let first = rig.request(1, &[1; 100]);
    rig.link.messages.send(SpoolMessage::Keep { request: first, worker: 0 }).unwrap();
    rig.keep(2, &[2; 100]);
    assert_eq!(rig.told(), (vec![], vec![]));
    assert_eq!(rig.accept_all(), [vec![1; 100], vec![2; 100]]);
}

/// Scenario: requests for two segments come at once; the first is sealed and synced, the sync of the
/// second fails, and later ones don't.
/// Guarantees: what is in the first is kept at once, and each goes to the sink once and in order.
#[test]
fn a_failed_sync_takes_back_nothing_of_a_sealed_segment() {
    let directory = tempfile::tempdir().unwrap();
    let disk = Disk::new(directory.path());
    let mut rig = Rig::open(&disk, BYTES_MAX);
    disk.sync_fails.store(true, Ordering::Relaxed);
    disk.syncs_first.store(1, Ordering::Relaxed);
    let body = |number: u8| vec![number; 4 << 20];
    for number in 0..4 {
        let request = rig.request(number.into(), &body(number));
        rig.link.messages.send(SpoolMessage::Keep { request, worker: 0 }).unwrap();
    }
    rig.keep(4, &body(4));
    assert_eq!(rig.told().0, [0, 1, 2]);
    disk.sync_fails.store(false, Ordering::Relaxed);
    rig.spool.retry_at = None;
    rig.step();
    assert_eq!(rig.told().0, [3, 4]);
    assert_eq!(rig.accept_all(), (0..5).map(body).collect::<Vec<_>>());
    rig.step();
    assert_eq!(rig.metrics.spool_requests.get(), 0);
}

/// Appends 0 and keeps it, then 1, of which only so many bytes get to the disk, and can't be cut off.
fn append_in_part(store: &mut Store, disk: &Disk, written: u64) {
    append(store, 0).unwrap();
    store.sync().unwrap();
    *disk.room.lock().unwrap() = Some(written);
    disk.truncate_fails.store(true, Ordering::Relaxed);
    assert!(matches!(append(store, 1), Err(AppendError::Disk(_))));
    *disk.room.lock().unwrap() = None;
}

/// Scenario: a record is written half, and can't be cut off; it is written again elsewhere, and the
/// agent is killed.
/// Guarantees: the next start finds it: the half one does not count as it.
#[test]
fn a_half_written_record_has_its_number_for_itself() {
    let directory = tempfile::tempdir().unwrap();
    let disk = Disk::new(directory.path());
    let shared = || Arc::clone(&disk) as Arc<dyn StateDisk>;
    let (mut store, _) = Store::open(shared(), BYTES_MAX).unwrap();
    append_in_part(&mut store, &disk, HEADER_BYTES as u64 + 50);
    append(&mut store, 1).unwrap();
    store.sync().unwrap();
    drop(store);
    assert_eq!(bodies_at_a_start(shared()), [0, 1].map(body));
}

/// Scenario: rows 17 and 19. The disk says that it could not write a record, nor can cut it off, and yet has all
/// of it; another one is kept behind it, and the agent is killed.
/// Guarantees: the next start finds both. With the number of the one that failed, the other would be taken for a
/// copy of it, and never be sent.
#[test]
fn a_record_that_failed_and_is_there_has_its_number_for_itself() {
    let directory = tempfile::tempdir().unwrap();
    let disk = Disk::new(directory.path());
    let shared = || Arc::clone(&disk) as Arc<dyn StateDisk>;
    let (mut store, _) = Store::open(shared(), BYTES_MAX).unwrap();
    append_in_part(&mut store, &disk, HEADER_BYTES as u64 + 50);
    let segments = files(directory.path(), "segment");
    let mut segment = std::fs::OpenOptions::new().append(true).open(&segments[0]).unwrap();
    segment.write_all(&[1; 50]).unwrap();
    append(&mut store, 2).unwrap();
    store.sync().unwrap();
    drop(store);
    assert_eq!(bodies_at_a_start(shared()), [0, 1, 2].map(body));
}

/// Scenario: requests are kept while the sink takes nothing; the agent is killed; the next start
/// finds them, and the sink takes all.
/// Guarantees: each comes once and in order; what was settled before the end does not come again;
/// nothing is left on disk; the books balance throughout.
#[test]
fn what_is_kept_survives_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    let disk = Disk::new(directory.path());
    let mut rig = Rig::open(&disk, BYTES_MAX);
    for number in 0..5_u8 {
        rig.keep(number.into(), &[number; 100]);
    }
    assert_eq!(rig.told().0, [0, 1, 2, 3, 4]);
    drop(rig);
    let mut rig = Rig::open(&disk, BYTES_MAX);
    assert_eq!(rig.metrics.recovered.get(), (50, 500));
    assert!(rig.link.status.has_backlog());
    rig.step();
    assert!(!rig.link.status.has_backlog());
    let request = rig.sink.try_recv().unwrap();
    let reply = request.reply.clone();
    let settled =
        Settled { request, acknowledged_records: 8, dead_lettered_records: 2, dropped: vec![] };
    reply.send(Settlement::Ended(settled)).unwrap();
    rig.step();
    rig.end();
    let mut rig = Rig::open(&disk, BYTES_MAX);
    rig.step();
    let bodies = rig.accept_all();
    assert_eq!(bodies, [1, 2, 3, 4].map(|number: u8| vec![number; 100]));
    assert_eq!(rig.metrics.queued_spool.get(), (0, 0));
    assert_eq!(rig.metrics.acknowledged.get(), (40, 400));
    assert_eq!(files(directory.path(), ".segment").len(), 0);
    assert_eq!(rig.metrics.spool_bytes.get(), 0);
    rig.end();
    let rig = Rig::open(&disk, BYTES_MAX);
    assert_eq!(rig.metrics.recovered.get(), (0, 0));
}

/// The first six of ten records of a request, and the ninth.
fn a_part(request: &Request) -> SettledPart {
    SettledPart {
        number: request.token.number,
        spans: Arc::default(),
        places: 0..6,
        settled: Acknowledged::new(6, &[(8, 9)]),
        records: 7,
        source_bytes: 70,
        acknowledged_records: 6,
        dead_lettered_records: 1,
        dropped: vec![],
    }
}

/// Scenario: row 65: a part of a request from the spool is settled, and of one whose copy it holds;
/// the agent is killed.
/// Guarantees: the part is booked at once; the next start knows which records are settled, and counts
/// only the others as queued; the books balance when those end.
#[test]
fn the_cursor_knows_the_settled_parts_of_a_request() {
    let directory = tempfile::tempdir().unwrap();
    let disk = Disk::new(directory.path());
    let mut rig = Rig::open(&disk, BYTES_MAX);
    rig.keep(1, &[1; 100]);
    rig.told();
    let copy = rig.request(2, &[2; 100]);
    rig.link.messages.send(SpoolMessage::Secure { request: copy, worker: 0 }).unwrap();
    rig.step();
    let handed = rig.sink.try_recv().unwrap();
    handed.reply.send(Settlement::Part(a_part(&handed))).unwrap();
    let settled = Acknowledged::new(4, &[]);
    rig.link.messages.send(SpoolMessage::Advance { worker: 0, number: 2, settled }).unwrap();
    std::thread::sleep(SPOOL_CURSOR_INTERVAL);
    rig.step();
    assert_eq!(rig.metrics.queued_spool.get(), (3, 30));
    assert_eq!(rig.metrics.acknowledged.get().0, 6);
    assert_eq!(rig.metrics.dead_lettered.get().0, 1);
    drop(rig);

    let mut rig = Rig::open(&disk, BYTES_MAX);
    assert_eq!(rig.metrics.recovered.get(), (3 + 6, 30 + 60));
    rig.step();
    let requests: Vec<Request> = std::iter::from_fn(|| rig.sink.try_recv().ok()).collect();
    let settled: Vec<_> = requests.iter().map(|request| request.settled.clone()).collect();
    assert_eq!(settled, [Acknowledged::new(6, &[(8, 9)]), Acknowledged::new(4, &[])]);
    for request in requests {
        let (reply, acknowledged_records) = (request.reply.clone(), request.unsettled().0);
        let settled =
            Settled { request, acknowledged_records, dead_lettered_records: 0, dropped: vec![] };
        reply.send(Settlement::Ended(settled)).unwrap();
    }
    rig.step();
    assert_eq!(rig.metrics.queued_spool.get(), (0, 0));
    assert_eq!(rig.metrics.acknowledged.get(), (9, 90));
    rig.end();
    assert_eq!(Rig::open(&disk, BYTES_MAX).metrics.recovered.get(), (0, 0));
}

/// Tells that all of a request's ten records but the last are taken, and that this one waits aside; returns
/// what is settled.
fn set_the_last_aside(request: &mut Request) -> Acknowledged {
    let settled = Acknowledged::new(9, &[]);
    let part = SettledPart {
        places: 0..9,
        settled: settled.clone(),
        records: 9,
        source_bytes: 90,
        acknowledged_records: 9,
        dead_lettered_records: 0,
        ..a_part(request)
    };
    request.reply.send(Settlement::Part(part)).unwrap();
    let rest = Rest {
        body: vec![Bytes::from_static(&[1])],
        body_bytes: 1,
        uncompressed_bytes: 1,
        records: 1,
        source_bytes: 10,
        spans: Arc::default(),
        left_out: settled.clone(),
    };
    let aside = SetAside {
        number: request.token.number,
        to_spool: false,
        charged_bytes: 0,
        body_bytes: std::mem::take(&mut request.body_bytes),
        rest,
    };
    (request.body, request.settled) = (Vec::new(), settled.clone());
    request.token.is_aside = true;
    request.reply.send(Settlement::Aside(aside)).unwrap();
    settled
}

/// Scenario: rows 56 and 65: of a request from the spool that takes all that may be handed out at once, all but
/// one record is settled, and that one is set aside; another request waits. Then the agent is killed, or the sink
/// takes the record.
/// Guarantees: what is set aside is in nobody's way, so the other is handed over; the record stays queued until
/// its end, comes after a start again, and alone, and is counted once.
#[test]
fn a_record_of_the_spool_that_is_set_aside_stays_in_it() {
    for is_killed in [true, false] {
        let directory = tempfile::tempdir().unwrap();
        let disk = Disk::new(directory.path());
        let mut rig = Rig::open(&disk, BYTES_MAX);
        rig.keep(1, &vec![1; SPOOL_HANDED_BYTES_MAX]);
        rig.keep(2, &[2; 100]);
        rig.told();
        let mut handed = rig.sink.try_recv().unwrap();
        assert!(rig.sink.try_recv().is_err(), "more is handed over than may be");
        let settled = set_the_last_aside(&mut handed);
        rig.step();
        assert_eq!(rig.accept_all(), [vec![2; 100]]);
        assert_eq!(rig.metrics.queued_spool.get(), (1, 10));
        assert_eq!(rig.metrics.spool_requests.get(), 1);
        assert_eq!(rig.metrics.acknowledged.get(), (19, 190));
        if is_killed {
            rig.spool.cursor_at -= SPOOL_CURSOR_INTERVAL;
            rig.step();
            drop(rig);
            rig = Rig::open(&disk, BYTES_MAX);
            assert_eq!(rig.metrics.recovered.get(), (1, 10));
            rig.step();
            handed = rig.sink.try_recv().unwrap();
            assert_eq!((&handed.settled, handed.unsettled()), (&settled, (1, 10)));
        }
        let acknowledged = rig.metrics.acknowledged.get();
        let reply = handed.reply.clone();
        let settled = Settled {
            request: handed,
            acknowledged_records: 1,
            dead_lettered_records: 0,
            dropped: vec![],
        };
        reply.send(Settlement::Ended(settled)).unwrap();
        rig.step();
        assert_eq!(rig.metrics.acknowledged.get(), (acknowledged.0 + 1, acknowledged.1 + 10));
        assert_eq!(rig.metrics.queued_spool.get(), (0, 0));
        assert_eq!(rig.metrics.spool_requests.get(), 0);
        rig.end();
        assert_eq!(Rig::open(&disk, BYTES_MAX).metrics.recovered.get(), (0, 0));
    }
}

/// Scenario: a part of the only request is settled, and the cursor says so; then the rest is, the segment
/// goes, and the agent is killed before the cursor is written again.
/// Guarantees: of the next request all is sent: what was settled of one that is gone holds for no other.
#[test]
fn settled_parts_of_a_request_that_is_gone_hold_for_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let disk = Disk::new(directory.path());
    let mut rig = Rig::open(&disk, BYTES_MAX);
    rig.keep(1, &[1; 100]);
    rig.step();
    let handed = rig.sink.try_recv().unwrap();
    handed.reply.send(Settlement::Part(a_part(&handed))).unwrap();
    std::thread::sleep(SPOOL_CURSOR_INTERVAL);
    rig.step();
    let (reply, acknowledged_records) = (handed.reply.clone(), 3);
    let settled = Settled {
        request: handed,
        acknowledged_records,
        dead_lettered_records: 0,
        dropped: vec![],
    };
    reply.send(Settlement::Ended(settled)).unwrap();
    rig.step();
    drop(rig);

    let mut rig = Rig::open(&disk, BYTES_MAX);
    assert_eq!(rig.metrics.recovered.get(), (0, 0));
    rig.keep(2, &[2; 100]);
    rig.step();
    let handed = rig.sink.try_recv().unwrap();
    assert_eq!(handed.settled, Acknowledged::default());
    drop(rig);
    assert_eq!(Rig::open(&disk, BYTES_MAX).metrics.recovered.get(), (10, 100));
}

/// Scenario: copies of requests that the exporter has; one of them ends, the agent is killed.
/// Guarantees: no copy is sent while its request is under way; the next start sends those whose
/// requests had not ended, and no other.
#[test]
fn copies_are_for_the_next_start() {
    let directory = tempfile::tempdir().unwrap();
    let disk = Disk::new(directory.path());
    let mut rig = Rig::open(&disk, BYTES_MAX);
    rig.secure(1, b"one");
    rig.secure(2, b"two");
    rig.keep(3, b"three");
    assert_eq!(rig.told(), (vec![3], vec![1, 2]));
    assert_eq!(rig.accept_all(), [b"three".to_vec()]);
    rig.link.messages.send(SpoolMessage::Forget { worker: 0, number: 1 }).unwrap();
    rig.step();
    rig.end();
    let mut rig = Rig::open(&disk, BYTES_MAX);
    rig.step();
    assert_eq!(rig.accept_all(), [b"two".to_vec()]);
}

/// Scenario: row 15. The spool has a copy of a request, and reading has passed over it; then its worker
/// gives the spool the request itself, while there is no room. The agent is killed at once, or goes on.
/// Guarantees: the copy becomes the request, without being written again: it is kept at once, and sent
/// once, by this life or by the next.
#[test]
fn a_copy_becomes_the_request_itself() {
    for is_killed in [true, false] {
        let directory = tempfile::tempdir().unwrap();
        let disk = Disk::new(directory.path());
        let mut rig = Rig::open(&disk, BYTES_MAX);
        rig.secure(1, b"one");
        rig.keep(2, b"two");
        assert_eq!(rig.told(), (vec![2], vec![1]));
        let unanswered = rig.sink.try_recv().unwrap();
        *disk.room.lock().unwrap() = Some(0);
        rig.keep(1, b"one");
        assert_eq!(rig.told(), (vec![1], vec![]));
        assert!(!rig.link.status.is_full());
        let mut expected = vec![b"one".to_vec()];
        if is_killed {
            drop(rig);
            rig = Rig::open(&disk, BYTES_MAX);
            expected.push(unanswered.body.concat());
            rig.step();
        }
        assert_eq!(rig.accept_all(), expected);
        assert!(!rig.link.status.has_backlog());
        let left = 2 - expected.len() as u64;
        assert_eq!(rig.metrics.spool_requests.get(), left);
        *disk.room.lock().unwrap() = None;
        rig.end();
        let recovered = Rig::open(&disk, BYTES_MAX).metrics.recovered.get();
        assert_eq!(recovered, (10 * left as i64, 100 * left as i64));
    }
}

/// Scenario: row 17. The agent was killed in the middle of a write: the last record is cut short, at
/// each of its bytes.
/// Guarantees: the records before it are sent, the rest is cut off and counted, nothing is damaged.
#[test]
fn a_torn_tail_is_cut() {
    for cut in 1..80 {
        let directory = tempfile::tempdir().unwrap();
        let disk = Disk::new(directory.path());
        let mut rig = Rig::open(&disk, BYTES_MAX);
        rig.keep(1, b"one");
        rig.keep(2, &[7; 16]);
        drop(rig);
        let segment = &files(directory.path(), ".segment")[0];
        let file = std::fs::OpenOptions::new().write(true).open(segment).unwrap();
        file.set_len(file.metadata().unwrap().len() - cut).unwrap();
        let mut rig = Rig::open(&disk, BYTES_MAX);
        rig.step();
        assert_eq!(rig.accept_all(), [b"one".to_vec()]);
        assert_eq!(rig.metrics.spool_unreadable_bytes.get(), 80 - cut);
        assert!(files(directory.path(), ".damaged").is_empty());
    }
}

/// Scenario: row 18. The body of one request of several is damaged on disk.
/// Guarantees: the others are sent; the damaged one is counted as a dead letter, and its segment is
/// kept for a human.
#[test]
fn a_damaged_request_is_set_aside() {
    let directory = tempfile::tempdir().unwrap();
    let disk = Disk::new(directory.path());
    let mut rig = Rig::open(&disk, BYTES_MAX);
    for number in 0..3_u8 {
        rig.keep(number.into(), &[number; 100]);
    }
    drop(rig);
    let segment = &files(directory.path(), ".segment")[0];
    let mut bytes = std::fs::read(segment).unwrap();
    bytes[164 + 80] ^= 1;
    std::fs::write(segment, &bytes).unwrap();
    let mut rig = Rig::open(&disk, BYTES_MAX);
    rig.step();
    assert_eq!(rig.accept_all(), [vec![0; 100], vec![2; 100]]);
    assert_eq!(rig.metrics.dead_lettered.get(), (10, 100));
    assert_eq!(rig.metrics.spool_damaged_requests.get(), 1);
    assert_eq!(rig.metrics.queued_spool.get(), (0, 0));
    assert_eq!(std::fs::read(&files(directory.path(), ".damaged")[0]).unwrap(), bytes);
    assert!(files(directory.path(), ".segment").is_empty());
}

/// Scenario: the cursor is missing, empty, or damaged at each byte.
/// Guarantees: what the spool holds is sent again rather than lost.
#[test]
fn a_damaged_cursor_sends_again() {
    let directory = tempfile::tempdir().unwrap();
    let disk = Disk::new(directory.path());
    let mut rig = Rig::open(&disk, BYTES_MAX);
    rig.keep(1, b"one");
    rig.keep(2, b"two");
    let first = rig.sink.try_recv().unwrap();
    let reply = first.reply.clone();
    let settled = Settled {
        request: first,
        acknowledged_records: 10,
        dead_lettered_records: 0,
        dropped: vec![],
    };
    reply.send(Settlement::Ended(settled)).unwrap();
    rig.step();
    rig.end();
    let cursor = directory.path().join("spool/cursor");
    let good = std::fs::read(&cursor).unwrap();
    let found = |bytes: &[u8]| {
        std::fs::write(&cursor, bytes).unwrap();
        Rig::open(&disk, BYTES_MAX).metrics.recovered.get().0
    };
    assert_eq!(found(&good), 10);
    for at in 0..good.len() {
        let mut flipped = good.clone();
        flipped[at] ^= 1;
        assert_eq!(found(&flipped), 20, "byte {at}");
        assert_eq!(found(&good[..at]), 20, "byte {at}");
    }
}

/// Scenario: the spool is empty, and its cursor can't be read at one start; then a request is kept, the
/// agent is killed, and the next start reads what cursor there is.
/// Guarantees: the request is there: the cursor of before does not take it for one of its own.
#[test]
fn a_cursor_that_could_not_be_read_says_nothing_later() {
    let directory = tempfile::tempdir().unwrap();
    let disk = Disk::new(directory.path());
    let mut rig = Rig::open(&disk, BYTES_MAX);
    rig.keep(1, b"one");
    assert_eq!(rig.accept_all(), [b"one".to_vec()]);
    rig.end();
    disk.read_fails.store(true, Ordering::Relaxed);
    let mut rig = Rig::open(&disk, BYTES_MAX);
    disk.read_fails.store(false, Ordering::Relaxed);
    rig.keep(2, b"two");
    drop(rig);
    let mut rig = Rig::open(&disk, BYTES_MAX);
    rig.step();
    assert_eq!(rig.accept_all(), [b"two".to_vec()]);
}

/// Scenario: row 19. The disk is full in the middle of a record, then a sync fails, then the budget
/// is used up; each time there is room again later, and the sink works meanwhile.
/// Guarantees: nothing is kept that was not synced; what finds no room goes to the sink as it is;
/// what is on disk is sent; nothing comes twice or never. A sync that fails is no want of room, for which
/// records that are never taken would give way.
#[test]
fn a_full_disk_wedges_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let disk = Disk::new(directory.path());
    let mut rig = Rig::open(&disk, 3 << 20);
    rig.keep(1, b"one");
    *disk.room.lock().unwrap() = Some(70);
    rig.keep(2, &[2; 100]);
    assert_eq!(rig.told().0, [1]);
    assert!(rig.link.status.is_full());
    let lacks_room = |rig: &Rig| rig.metrics.spool_lacks_room.get() == 1;
    assert!(lacks_room(&rig));
    let passed_on = |rig: &mut Rig| {
        let request = std::iter::from_fn(|| rig.sink.try_recv().ok())
            .find(|request| request.token.to_spool)
            .expect("the request is passed on as it is");
        assert!(rig.told().0.is_empty());
        request.body.concat()
    };
    assert_eq!(passed_on(&mut rig), vec![2; 100]);
    rig.spool.retry_at = None;
    rig.step();
    assert!(!rig.link.status.is_full(), "nobody would ever find out that there is room");

    *disk.room.lock().unwrap() = None;
    disk.sync_fails.store(true, Ordering::Relaxed);
    rig.spool.retry_at = None;
    rig.keep(3, b"three");
    assert_eq!(rig.metrics.spool_full.get(), 1);
    assert!(!lacks_room(&rig));
    assert_eq!(passed_on(&mut rig), b"three");

    disk.sync_fails.store(false, Ordering::Relaxed);
    rig.spool.retry_at = None;
    rig.keep(4, &[4; 2 << 20]);
    assert_eq!(rig.told().0, [4]);
    assert!(!rig.link.status.is_full());
    rig.keep(5, &[5; 2 << 20]);
    assert!(rig.link.status.is_full() && lacks_room(&rig));
    assert!(rig.metrics.spool_bytes.get() <= 3 << 20);
    assert!(rig.metrics.spool_errors.get() >= 3);
    drop(rig);
    // Only what was said to be kept is there.
    let mut rig = Rig::open(&disk, 3 << 20);
    rig.step();
    let bodies = rig.accept_all();
    assert_eq!(bodies, [b"one".to_vec(), vec![4; 2 << 20]]);
}

/// Scenario: row 15. The first request of a new state directory is kept.
/// Guarantees: by then each directory on the way to its segment is synced, so that a loss of power takes
/// no name away with which all that is synced behind it would go.
#[test]
fn a_kept_request_is_in_directories_that_are_synced() {
    let directory = tempfile::tempdir().unwrap();
    let disk = Disk::new(directory.path());
    let mut rig = Rig::open(&disk, BYTES_MAX);
    rig.keep(1, b"one");
    assert_eq!(rig.told().0, [1]);
    let names = disk.names.lock().unwrap().clone();
    let segment = "create spool/000000000001.segment";
    assert_eq!(names, ["make spool", "sync ", segment, "sync spool"]);
}

/// Scenario: row 48. Requests and a copy are kept whose worker has said which bytes of which files they
/// cover; one is settled, the body of another is damaged, and the agent is killed.
/// Guarantees: the next start is told what the others cover, and nothing of what another life wrote, whose
/// files had other numbers; bodies are read only where something is news.
#[test]
fn a_start_knows_what_kept_requests_cover() {
    let directory = tempfile::tempdir().unwrap();
    let disk = Disk::new(directory.path());
    let mut rig = Rig::open(&disk, BYTES_MAX);
    for number in 1..=4 {
        let mut request = rig.request(number, &[number as u8; 100]);
        request.token.covers = vec![(number, 0, 10), (9, 100 * number, 100 * number + 50)];
        rig.link.messages.send(SpoolMessage::Keep { request, worker: 0 }).unwrap();
    }
    let mut request = rig.request(5, b"copy");
    request.token.covers = vec![(5, 7, 8)];
    rig.link.messages.send(SpoolMessage::Secure { request, worker: 0 }).unwrap();
    rig.step();
    let request = rig.sink.try_recv().unwrap();
    let reply = request.reply.clone();
    let settled =
        Settled { request, acknowledged_records: 10, dead_lettered_records: 0, dropped: vec![] };
    reply.send(Settlement::Ended(settled)).unwrap();
    rig.step();
    rig.end();
    let told = |life, is_news: &dyn Fn(&Covered) -> bool| covered(&*disk, life, is_news).unwrap();
    let third = [(3, 0, 10), (9, 300, 350)];
    let others =
        [(2, 0, 10), (9, 200, 250), third[0], third[1], (4, 0, 10), (9, 400, 450), (5, 7, 8)];
    assert_eq!(told(1, &|_| true), others);
    assert_eq!(told(1, &|one| one.0 == 3), third);
    assert_eq!(told(2, &|_| true), []);

    let segment = &files(directory.path(), ".segment")[0];
    let mut bytes = std::fs::read(segment).unwrap();
    let body = bytes.windows(100).position(|window| window == [3; 100]).unwrap();
    bytes[body + 50] ^= 1;
    std::fs::write(segment, &bytes).unwrap();
    assert_eq!(told(1, &|_| true), [others[0], others[1], others[4], others[5], others[6]]);
    // A damaged note is of no use, and costs no request.
    let note = body + 104;
    bytes[body + 50] ^= 1;
    bytes[note] ^= 1;
    std::fs::write(segment, &bytes).unwrap();
    assert_eq!(told(1, &|_| true).len(), 5);
    let mut rig = Rig::open(&disk, BYTES_MAX);
    rig.step();
    assert_eq!(rig.accept_all().len(), 4);
    assert_eq!(rig.metrics.spool_damaged_requests.get(), 0);
}

/// Scenario: row 48. One request is kept. Of two that are written together behind it the second fails, so that
/// neither counts as kept, and the segment can't be cut; the cursor says so, and is damaged at the next start.
/// Guarantees: no bytes are taken for settled, as those of the one that stands there whole would be.
#[test]
fn without_a_cursor_no_request_covers_anything() {
    let directory = tempfile::tempdir().unwrap();
    let disk = Disk::new(directory.path());
    let mut rig = Rig::open(&disk, BYTES_MAX);
    rig.hand_over_covering(1);
    rig.step();
    assert_eq!(rig.told().0, [1]);
    rig.hand_over_covering(2);
    rig.hand_over_covering(3);
    *disk.room.lock().unwrap() = Some(300);
    disk.truncate_fails.store(true, Ordering::Relaxed);
    rig.step();
    assert_eq!(rig.told(), (vec![], vec![]));
    *disk.room.lock().unwrap() = None;
    rig.spool.store.write_cursor().unwrap();
    let covers = || covered(&*disk, 1, &|_| true).unwrap();
    assert_eq!(covers(), [(1, 0, 10)]);
    let cursor = directory.path().join("spool/cursor");
    std::fs::write(&cursor, "damaged").unwrap();
    assert_eq!(covers(), []);
    std::fs::remove_file(cursor).unwrap();
    assert_eq!(covers(), [(1, 0, 10), (2, 0, 10)], "it stands there");
}

/// Scenario: rows 8 and 48. A request was written whole, and the agent killed before it was synced. At the
/// next start that fails too.
/// Guarantees: what it covers is taken for settled only once it is synced: a loss of power could take it, and
/// not the checkpoint that says so.
#[test]
fn what_a_start_takes_for_settled_is_synced() {
    let directory = tempfile::tempdir().unwrap();
    let disk = Disk::new(directory.path());
    let mut rig = Rig::open(&disk, BYTES_MAX);
    rig.hand_over_covering(1);
    rig.step();
    disk.sync_fails.store(true, Ordering::Relaxed);
    disk.truncate_fails.store(true, Ordering::Relaxed);
    rig.hand_over_covering(2);
    rig.step();
    assert_eq!(rig.told().0, [1]);
    drop(rig);
    assert!(covered(&*disk, 1, &|_| true).is_err());
    disk.sync_fails.store(false, Ordering::Relaxed);
    assert_eq!(covered(&*disk, 1, &|_| true).unwrap(), [(1, 0, 10), (2, 0, 10)]);
}

/// Scenario: row 19. Requests fill a budget that is no multiple of a segment; the agent is killed again and
/// again meanwhile, each time with a segment that it writes to.
/// Guarantees: what the spool's files take on disk, reserved room included, is within the budget.
#[test]
fn reserved_room_is_within_the_budget() {
    use std::os::unix::fs::MetadataExt;
    const MAX: u64 = 40 << 20;
    /// File systems give room in blocks.
    const BLOCK: u64 = 64 << 10;
    let directory = tempfile::tempdir().unwrap();
    let disk = Disk::new(directory.path());
    let taken = || -> u64 {
        let files = std::fs::read_dir(directory.path().join("spool")).unwrap();
        files.map(|file| file.unwrap().metadata().unwrap().blocks() * 512 + BLOCK).sum()
    };
    let mut kept = 0;
    for _ in 0..5 {
        let mut rig = Rig::open(&disk, MAX);
        for number in 0..9 {
            rig.keep(number, &vec![1; 1 << 20]);
            assert!(taken() <= MAX + 10 * BLOCK, "{} bytes", taken());
        }
        kept += rig.told().0.len();
    }
    assert_eq!(kept, 39);
}

/// Scenario: the disk can't be read, each time a request is tried.
/// Guarantees: reading is tried again; then no backlog is left that would hold the workers up, and what is
/// kept from then on is sent once it can be read. What could not be read is kept, and comes later.
#[test]
fn an_unreadable_segment_does_not_wedge() {
    let directory = tempfile::tempdir().unwrap();
    let disk = Disk::new(directory.path());
    let mut rig = Rig::open(&disk, BYTES_MAX);
    rig.keep(1, b"one");
    drop(rig);
    let mut rig = Rig::open(&disk, BYTES_MAX);
    disk.read_fails.store(true, Ordering::Relaxed);
    for _ in 1..SPOOL_READ_FAILURES_MAX {
        rig.step();
        assert!(rig.spool.read_at.take().is_some());
        assert!(rig.link.status.has_backlog());
    }
    rig.step();
    assert!(!rig.link.status.has_backlog());
    assert_eq!(rig.accept_all(), Vec::<Vec<u8>>::new());
    disk.read_fails.store(false, Ordering::Relaxed);
    rig.keep(2, b"two");
    assert_eq!(rig.accept_all(), [b"two".to_vec()]);
    assert!(rig.spool.put_off_at.is_some());
    rig.read_on();
    assert_eq!(rig.accept_all(), [b"one".to_vec()]);
    assert_eq!(rig.spool.put_off_at, None);
    assert_eq!(rig.metrics.dead_lettered.get(), (0, 0));
}

/// Scenario: for hours no segment can be opened, for want of descriptors or of rights, or because the disk
/// is away; then none can be read. Meanwhile new requests are kept.
/// Guarantees: it is the disk and not the data: nothing is given up or renamed, the workers are not held up,
/// and all comes when the disk works again.
#[test]
fn a_disk_that_is_away_costs_no_request() {
    let directory = tempfile::tempdir().unwrap();
    let disk = Disk::new(directory.path());
    for number in 0..3 {
        Rig::open(&disk, BYTES_MAX).keep(number, &[number as u8; 10]);
    }
    let mut rig = Rig::open(&disk, BYTES_MAX);
    for error in [Errno::MFILE, Errno::NOMEM, Errno::ACCESS, Errno::STALE, Errno::IO] {
        disk.open_error.store(error.raw_os_error(), Ordering::Relaxed);
        (0..2 * SPOOL_UNREADABLE_ROUNDS_MAX).for_each(|_| rig.read_on());
    }
    disk.open_error.store(0, Ordering::Relaxed);
    disk.read_fails.store(true, Ordering::Relaxed);
    (0..2 * SPOOL_UNREADABLE_ROUNDS_MAX).for_each(|_| rig.read_on());
    rig.keep(3, &[3; 10]);
    rig.read_on();
    assert!(rig.metrics.spool_errors.get() > 0);
    assert_eq!(rig.accept_all(), Vec::<Vec<u8>>::new());
    disk.read_fails.store(false, Ordering::Relaxed);
    rig.read_on();
    assert_eq!(rig.accept_all(), [0, 1, 2, 3].map(|number: u8| vec![number; 10]));
    assert_eq!(rig.metrics.dead_lettered.get(), (0, 0));
    assert!(files(directory.path(), ".damaged").is_empty());
}

/// Scenario: one place of the disk can't be read, the body or the header of the second of four requests in
/// a segment, first for want of memory, then because of the disk; requests of other segments are read
/// meanwhile, or none are. Later the segment is the oldest of more damaged ones than are kept.
/// Guarantees: the others of its segment come at once; it is given up only after minutes in which others
/// were read, and it alone. Its file is never removed while it can't be read.
#[test]
fn a_place_that_cannot_be_read_costs_what_stands_there() {
    const LENGTH: u64 = 8 << 10;
    for place in [LENGTH + 2 * HEADER_BYTES as u64 + 100, LENGTH + HEADER_BYTES as u64 + 10] {
        let directory = tempfile::tempdir().unwrap();
        let disk = Disk::new(directory.path());
        let body = |number: u8| vec![number; LENGTH as usize];
        let mut rig = Rig::open(&disk, BYTES_MAX);
        (0..4).for_each(|number| rig.keep(number.into(), &body(number)));
        drop(rig);
        let mut rig = Rig::open(&disk, 4 * LENGTH * 8);
        let bad_place = |error| vec![("spool/000000000001".to_owned(), place..place + 1, error)];
        *disk.bad.lock().unwrap() = bad_place(Errno::NOMEM);
        rig.read_on();
        assert_eq!(rig.accept_all(), [0, 2, 3].map(body));
        for _ in 0..2 * SPOOL_UNREADABLE_ROUNDS_MAX {
            rig.keep(9, b"another");
            rig.told();
            rig.read_on();
            assert_eq!(rig.accept_all(), [b"another".to_vec()]);
        }
        *disk.bad.lock().unwrap() = bad_place(Errno::IO);
        rig.read_on();
        for round in 1..=10 * SPOOL_UNREADABLE_ROUNDS_MAX {
            rig.read_on();
            assert_eq!(rig.metrics.dead_lettered.get(), (0, 0), "round {round}");
        }
        // Others were read before the first of these rounds.
        for round in 2..=SPOOL_UNREADABLE_ROUNDS_MAX {
            assert_eq!(rig.metrics.dead_lettered.get(), (0, 0), "round {round}");
            rig.keep(round.into(), b"another");
            rig.told();
            assert_eq!(rig.accept_all(), [b"another".to_vec()]);
            rig.read_on();
        }
        assert_eq!(rig.metrics.dead_lettered.get(), (10, 100), "{place}");
        assert_eq!(rig.metrics.spool_damaged_requests.get(), 1);
        assert_eq!(rig.metrics.queued_spool.get(), (0, 0));
        rig.end();
        let kept = files(directory.path(), ".damaged");
        assert_eq!(kept.len(), 1);
        for number in 2..9 {
            let path = directory.path().join(format!("spool/{number:012}.damaged"));
            std::fs::copy(&kept[0], path).unwrap();
        }
        drop(Rig::open(&disk, 4 * LENGTH * 8));
        let kept: Vec<_> = files(directory.path(), ".damaged");
        assert!(kept[0].ends_with("000000000001.damaged"), "{kept:?}");
        disk.bad.lock().unwrap().clear();
        drop(Rig::open(&disk, LENGTH));
        assert!(files(directory.path(), ".damaged").is_empty());
    }
}

/// Scenario: segments are damaged, and set aside within the bound; the next start has a spool that is far
/// smaller, in the budget of which they alone don't fit.
/// Guarantees: the oldest of them go, so that there is room for requests.
#[test]
fn damaged_segments_make_room_in_a_smaller_spool() {
    let directory = tempfile::tempdir().unwrap();
    let disk = Disk::new(directory.path());
    drop(Rig::open(&disk, BYTES_MAX));
    for number in 1..9 {
        let path = directory.path().join(format!("spool/{number:012}.damaged"));
        std::fs::write(path, vec![1; 1 << 20]).unwrap();
    }
    let mut rig = Rig::open(&disk, 8 << 20);
    rig.keep(1, b"one");
    assert_eq!(rig.told().0, [1]);
    let kept = files(directory.path(), ".damaged");
    assert_eq!(kept.len(), 2);
    assert!(kept[1].ends_with("000000000008.damaged"));
}

/// Scenario: the segment that is written to holds a request that the exporter has, a copy of one that its
/// worker has, and one whose header is damaged under way, so that the rest of the segment is given up.
/// Guarantees: the worker is told that the copy went with it, and another one is kept; what is kept from
/// then on is read, and not waited for without end.
#[test]
fn a_copy_that_is_given_up_is_made_again() {
    let directory = tempfile::tempdir().unwrap();
    let disk = Disk::new(directory.path());
    let mut rig = Rig::open(&disk, BYTES_MAX);
    rig.keep(1, b"one");
    disk.read_fails.store(true, Ordering::Relaxed);
    rig.secure(7, b"seven");
    rig.keep(2, b"two");
    assert_eq!(rig.told(), (vec![1, 2], vec![7]));
    let path = &files(directory.path(), ".segment")[0];
    let mut bytes = std::fs::read(path).unwrap();
    let body = bytes.windows(3).position(|window| window == b"two").unwrap();
    bytes[body - HEADER_BYTES] ^= 1;
    std::fs::write(path, bytes).unwrap();
    disk.read_fails.store(false, Ordering::Relaxed);
    rig.spool.read_at = None;
    rig.step();
    assert!(matches!(rig.told.try_iter().last(), Some(Settlement::CopyLost(7))));
    rig.secure(7, b"seven");
    rig.keep(3, b"three");
    assert_eq!(rig.accept_all(), [b"one".to_vec(), b"three".to_vec()]);
    assert!(!rig.link.status.has_backlog());
    rig.end();
    let mut rig = Rig::open(&disk, BYTES_MAX);
    rig.step();
    assert_eq!(rig.accept_all(), [b"seven".to_vec()]);
}

/// Scenario: copies of requests are made and forgotten, between requests that the exporter gets.
/// Guarantees: what is passed over while reading is one range, however long that goes on.
#[test]
fn forgotten_copies_take_no_memory() {
    let directory = tempfile::tempdir().unwrap();
    let disk = Disk::new(directory.path());
    let mut rig = Rig::open(&disk, BYTES_MAX);
    for number in 0..50 {
        rig.secure(number, b"copy");
        rig.keep(100 + number, b"request");
        rig.link.messages.send(SpoolMessage::Forget { worker: 0, number }).unwrap();
        rig.step();
        assert_eq!(rig.accept_all().len(), 1);
    }
    assert_eq!(rig.spool.store.passed_ranges(), 0);
}

/// Scenario: the disk fails to be read now and then, as often as makes a segment unreadable in all,
/// and works in between, while there is nothing to be read.
/// Guarantees: failures count in a row only: nothing becomes a dead letter.
#[test]
fn failures_that_pass_cost_no_segment() {
    let directory = tempfile::tempdir().unwrap();
    let disk = Disk::new(directory.path());
    let mut rig = Rig::open(&disk, BYTES_MAX);
    rig.keep(1, b"one");
    assert_eq!(rig.accept_all(), [b"one".to_vec()]);
    rig.secure(2, b"copy");
    for fails in [true, false].repeat(SPOOL_READ_FAILURES_MAX as usize) {
        disk.read_fails.store(fails, Ordering::Relaxed);
        rig.spool.read_at = None;
        rig.step();
    }
    rig.keep(3, b"three");
    assert_eq!(rig.accept_all(), [b"three".to_vec()]);
    assert_eq!(rig.metrics.spool_damaged_requests.get(), 0);
}

/// Scenario: many requests, more than a segment holds, settled in another order than kept.
/// Guarantees: segments go as soon as all of theirs are settled; the budget counts what is there.
#[test]
fn segments_go_when_all_of_theirs_is_settled() {
    let directory = tempfile::tempdir().unwrap();
    let disk = Disk::new(directory.path());
    let mut rig = Rig::open(&disk, BYTES_MAX);
    for number in 0..12_u8 {
        rig.keep(number.into(), &vec![number; 4 << 20]);
    }
    assert_eq!(files(directory.path(), ".segment").len(), 4);
    let mut bodies = Vec::new();
    let mut held: Vec<Request> = Vec::new();
    loop {
        while let Ok(request) = rig.sink.try_recv() {
            bodies.push(request.body[0][0]);
            held.push(request);
        }
        let Some(request) = held.pop() else { break };
        let reply = request.reply.clone();
        let settled = Settled {
            request,
            acknowledged_records: 10,
            dead_lettered_records: 0,
            dropped: vec![],
        };
        reply.send(Settlement::Ended(settled)).unwrap();
        rig.step();
    }
    assert_eq!(bodies, (0..12).collect::<Vec<u8>>());
    assert_eq!(files(directory.path(), ".segment").len(), 0);
    assert_eq!(rig.metrics.spool_bytes.get(), 0);
    assert_eq!(rig.metrics.spool_requests.get(), 0);
}
