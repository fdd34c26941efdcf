//! Watches by Linux's inotify: one instance, a thread that reads it, and for each watch what its
//! owner wants to be told. Adding and removing a watch is a system call and an entry in a table,
//! however many there are. It must not know what is watched.

use std::{
    collections::HashMap,
    io,
    mem::MaybeUninit,
    os::fd::OwnedFd,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
};

use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, eventfd, poll},
    fs::inotify::{CreateFlags, ReadFlags, Reader, WatchFlags, add_watch, init, remove_watch},
    io::Errno,
};

/// Events are read in pieces of this size.
const EVENTS_BYTES: usize = 16 << 10;

/// What a watch says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice<K> {
    /// Something happened to what was watched under this key, or it is gone.
    Changed(K),
    /// Events were lost: anything may have happened.
    Lost,
}

/// A watch, to be removed by. Numbers are not used again before all others were.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Watch(i32);

/// An instance of inotify and its watches, each with a key of its owner's.
#[derive(Debug)]
pub struct Watches<K> {
    shared: Arc<Shared<K>>,
    events: WatchFlags,
    /// Written to when the reader is to end.
    stop: Arc<OwnedFd>,
    reader: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared<K> {
    inotify: OwnedFd,
    /// Keys by watch; several where one file is watched under several paths.
    keys: Mutex<HashMap<i32, Vec<K>>>,
    is_one_shot: bool,
}

impl<K: Clone + PartialEq + Send + 'static> Watches<K> {
    /// An instance that tells `handler`, on a thread of that name, about these events. With
    /// [`WatchFlags::ONESHOT`] a watch ends with its first event.
    ///
    /// # Errors
    /// When the system has no instance left.
    pub fn new(
        thread_name: &str,
        events: WatchFlags,
        handler: impl FnMut(Notice<K>) + Send + 'static,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            inotify: init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?,
            keys: Mutex::new(HashMap::new()),
            is_one_shot: events.contains(WatchFlags::ONESHOT),
        });
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?);
        let (of_reader, until) = (Arc::clone(&shared), Arc::clone(&stop));
        let reader = thread::Builder::new()
            .name(thread_name.to_owned())
            .spawn(move || of_reader.read_until(&until, handler))?;
        Ok(Self { shared, events, stop, reader: Some(reader) })
    }

    /// Watches a path. What happens from now on is told under `key`.
    ///
    /// # Errors
    /// When there is nothing there, or the system allows no further watch.
    pub fn add(&self, path: &Path, key: K) -> io::Result<Watch> {
        // Locked before the watch exists: its first event must find its key.
        let mut keys = self.shared.keys();
        let number = add_watch(&self.shared.inotify, path, self.events)?;
        let of_watch = keys.entry(number).or_insert_with(|| Vec::with_capacity(1));
        if !of_watch.contains(&key) {
            of_watch.push(key);
        }
        Ok(Watch(number))
    }

    /// Watches it no longer, unless others do.
    pub fn remove(&self, watch: Watch, key: &K) {
        let mut keys = self.shared.keys();
        let Some(of_watch) = keys.get_mut(&watch.0) else { return };
        of_watch.retain(|other| other != key);
        if of_watch.is_empty() {
            keys.remove(&watch.0);
            // The kernel takes the watch of a deleted file away by itself.
            let _already_gone = remove_watch(&self.shared.inotify, watch.0);
        }
    }

    /// How many watches there are.
    #[cfg(test)]
    fn count(&self) -> usize {
        self.shared.keys().len()
    }
}

impl<K> Drop for Watches<K> {
    fn drop(&mut self) {
        // Its counter is far from full, so that the write succeeds.
        let _written = rustix::io::write(&*self.stop, &1_u64.to_ne_bytes());
        if let Some(reader) = self.reader.take() {
            // A panic there has been reported.
            let _joined = reader.join();
        }
    }
}

impl<K: Clone> Shared<K> {
    fn keys(&self) -> MutexGuard<'_, HashMap<i32, Vec<K>>> {
        // Tables stay sound whatever panics beside them.
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_until(&self, stop: &OwnedFd, mut handler: impl FnMut(Notice<K>)) {
        let mut buffer = vec![MaybeUninit::uninit(); EVENTS_BYTES];
        loop {
            let mut ready =
                [PollFd::new(&self.inotify, PollFlags::IN), PollFd::new(stop, PollFlags::IN)];
            match poll(&mut ready, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => {
                    tracing::error!(%error, "cannot wait for events of inotify");
                    return handler(Notice::Lost);
                }
            }
            if !ready[1].revents().is_empty() {
                return;
            }
            let mut events = Reader::new(&self.inotify, &mut buffer);
            while let Ok(event) = events.next() {
                let (watch, flags) = (event.wd(), event.events());
                self.tell(watch, flags, &mut handler);
            }
        }
    }

    fn tell(&self, watch: i32, flags: ReadFlags, handler: &mut impl FnMut(Notice<K>)) {
        if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
            return handler(Notice::Lost);
        }
        let ends = self.is_one_shot || flags.contains(ReadFlags::IGNORED);
        let told = {
            let mut keys = self.keys();
            if ends { keys.remove(&watch) } else { keys.get(&watch).cloned() }
        };
        for key in told.unwrap_or_default() {
            handler(Notice::Changed(key));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam_channel::{Receiver, unbounded};
    use std::{fs, time::Duration};

    /// Far longer than an event takes on a busy machine.
    const PATIENCE: Duration = Duration::from_secs(60);

    fn watches(events: WatchFlags) -> (Watches<u32>, Receiver<Notice<u32>>) {
        let (sender, receiver) = unbounded();
        let tell = move |notice| sender.send(notice).unwrap();
        (Watches::new("test-inotify", events, tell).unwrap(), receiver)
    }

    /// Scenario: a directory and one in it are watched; a file is made in the inner one, the watch of
    /// which is then removed and another file made; at last the inner directory goes.
    /// Guarantees: each event comes under the key of its directory and none after the removal; what is
    /// gone is told, and leaves no entry.
    #[test]
    fn events_come_under_their_key() {
        let directory = tempfile::tempdir().unwrap();
        let inner = directory.path().join("inner");
        fs::create_dir(&inner).unwrap();
        let flags = WatchFlags::CREATE | WatchFlags::DELETE | WatchFlags::ONLYDIR;
        let (watches, notices) = watches(flags);
        watches.add(directory.path(), 1).unwrap();
        let watch = watches.add(&inner, 2).unwrap();
        fs::write(inner.join("a"), "").unwrap();
        assert_eq!(notices.recv_timeout(PATIENCE), Ok(Notice::Changed(2)));
        watches.remove(watch, &2);
        fs::write(inner.join("b"), "").unwrap();
        fs::remove_dir_all(&inner).unwrap();
        assert_eq!(notices.recv_timeout(PATIENCE), Ok(Notice::Changed(1)));
        drop(directory);
        assert_eq!(notices.recv_timeout(PATIENCE), Ok(Notice::Changed(1)));
        assert_eq!(watches.count(), 0);
        assert!(watches.add(&inner, 3).is_err());
    }

    /// Scenario: a file is watched for its next write only, under two keys; it is written to twice,
    /// watched again, and written to.
    /// Guarantees: each key is told once for each time that it watched.
    #[test]
    fn one_shot_watches_end_with_their_event() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, "").unwrap();
        let (watches, notices) = watches(WatchFlags::MODIFY | WatchFlags::ONESHOT);
        watches.add(&path, 1).unwrap();
        watches.add(&path, 2).unwrap();
        for _ in 0..2 {
            fs::write(&path, "x").unwrap();
        }
        let told = [(); 2].map(|()| notices.recv_timeout(PATIENCE).unwrap());
        assert_eq!(told, [Notice::Changed(1), Notice::Changed(2)]);
        watches.add(&path, 3).unwrap();
        fs::write(&path, "y").unwrap();
        assert_eq!(notices.recv_timeout(PATIENCE), Ok(Notice::Changed(3)));
        drop(watches);
        assert!(notices.try_recv().is_err(), "nothing else was told");
    }
}
