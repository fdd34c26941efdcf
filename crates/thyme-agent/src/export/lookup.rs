//! Looks names up with the operating system, on threads of its own: where no name server answers, it takes
//! minutes and can't be called back, and nothing else that blocks may wait for that.

use std::{
    io,
    net::{IpAddr, ToSocketAddrs},
    sync::Arc,
    thread,
};

use tokio::sync::{Semaphore, oneshot};

use super::{
    connect::{Resolver, Resolving},
    limits::LOOKUPS_MAX,
};

/// The operating system's resolver, for one name.
#[derive(Clone, Debug)]
pub struct SystemResolver {
    /// Held until the operating system has answered, however long ago whoever asked gave up.
    turns: Arc<Semaphore>,
}

impl Default for SystemResolver {
    fn default() -> Self {
        Self { turns: Arc::new(Semaphore::new(LOOKUPS_MAX)) }
    }
}

impl Resolver for SystemResolver {
    fn resolve<'a>(&'a self, host: &'a str, port: u16) -> Resolving<'a> {
        Box::pin(async move {
            if let Ok(address) = host.parse::<IpAddr>() {
                return Ok(vec![(address, port).into()]);
            }
            let host = host.to_owned();
            self.elsewhere(move || (host, port).to_socket_addrs()).await.map(Iterator::collect)
        })
    }
}

impl SystemResolver {
    /// Looks up on a thread that is made for it.
    async fn elsewhere<T: Send + 'static>(
        &self,
        lookup: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let turn = Arc::clone(&self.turns).acquire_owned().await.map_err(io::Error::other)?;
        let (sender, result) = oneshot::channel();
        thread::Builder::new().name("name-lookup".to_owned()).spawn(move || {
            let _turn = turn;
            // Whoever asked may have given up.
            sender.send(lookup()).ok();
        })?;
        result.await.map_err(io::Error::other)?
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{Mutex, mpsc},
        time::Duration,
    };

    use tokio::{runtime::Builder, time::timeout};

    use super::*;
    use crate::{
        config::Compression,
        export::bisect::{
            Bisector,
            tests::{bodies_of_part, part_of},
        },
    };

    /// Scenario: rows 27 and 56. No name server answers: four lookups hang, one after the other, while a
    /// request has to be halved in a runtime with four threads for what blocks.
    /// Guarantees: it is halved. Of the lookups no more take a thread than may; once they are answered the
    /// name is looked up again.
    #[test]
    fn lookups_that_hang_keep_no_request_from_being_halved() {
        let mut runtime = Builder::new_current_thread();
        let runtime = runtime.enable_all().max_blocking_threads(4).build().unwrap();
        let resolver = SystemResolver::default();
        let (answer, answered) = mpsc::channel::<()>();
        let (begin, begun) = mpsc::channel();
        let answered = Arc::new(Mutex::new(answered));
        for _ in 0..4 {
            let (answered, begin) = (Arc::clone(&answered), begin.clone());
            let hanging = resolver.elsewhere(move || {
                begin.send(()).unwrap();
                answered.lock().unwrap().recv().ok();
                Ok(())
            });
            let given_up = runtime.block_on(async { timeout(Duration::ZERO, hanging).await });
            assert!(given_up.is_err());
        }
        let bodies = ["a".to_owned(), "b".to_owned()];
        let (bisector, part) = (Bisector::new(1), part_of(&bodies, Compression::Gzip));
        let halving = async { timeout(Duration::from_secs(30), bisector.halve(&part)).await };
        let (first, second) = runtime.block_on(halving).expect("it waits").unwrap();
        assert_eq!([bodies_of_part(&first), bodies_of_part(&second)].concat(), bodies);
        drop((answer, begin));
        let again = async { timeout(Duration::from_secs(30), resolver.elsewhere(|| Ok(7))).await };
        assert_eq!(runtime.block_on(again).expect("no turn is free").unwrap(), 7);
        assert_eq!(begun.iter().count(), LOOKUPS_MAX);
    }

    /// Scenario: addresses, a name of this machine, and what can be no name.
    /// Guarantees: the addresses come as they are, the name with its own, and the last is an error.
    #[tokio::test]
    async fn names_and_addresses_are_resolved() {
        let resolver = SystemResolver::default();
        for address in ["127.0.0.1", "::1"] {
            let expected = vec![(address.parse::<IpAddr>().unwrap(), 4317).into()];
            assert_eq!(resolver.resolve(address, 4317).await.unwrap(), expected);
        }
        let addresses = resolver.resolve("localhost", 4317).await.unwrap();
        assert!(addresses.iter().all(|address| address.ip().is_loopback()));
        assert!(!addresses.is_empty());
        assert!(resolver.resolve("a\0b", 4317).await.is_err());
    }
}
