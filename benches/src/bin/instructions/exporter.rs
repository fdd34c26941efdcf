//! Requests through production's exporter into a sink on the same thread, over loopback.

use bytes::Bytes;
use thyme_agent::{
    config::{Compression, Config},
    export,
    queue::{Request, Settlement, Token},
};
use tokio::{runtime::Runtime, sync::mpsc};

use super::sink;

/// Requests whose delivery is counted; one more is on its way when counting begins and ends.
const REQUESTS: u64 = 8;

/// Bytes of a request, as zstd leaves of some thousand lines.
const REQUEST_BYTES: usize = 64 * 1024;

const RECORDS: u64 = 3_000;

/// The exporter, connected.
pub(super) struct Exporter {
    runtime: Runtime,
    requests: mpsc::Sender<Request>,
    reply: crossbeam_channel::Sender<Settlement>,
    settlements: crossbeam_channel::Receiver<Settlement>,
    body: Bytes,
}

impl Exporter {
    /// By protocol.
    pub(super) fn new(protocol: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        let address = runtime.block_on(sink::start(protocol)).expect("a port of this machine");
        let (component, endpoint) = match protocol {
            "grpc" => ("otlp", address.to_string()),
            _ => ("otlphttp", format!("http://{address}")),
        };
        let config = Config::parse(&configuration(component, &endpoint), "deliver.yaml");
        let mut config = config.expect("a configuration").exporter;
        // Room for one: sending waits until the request before was taken, and so the one before
        // that was settled.
        config.queue.queue_size = 0;
        let requests = export::spawn(runtime.handle(), &config, std::sync::Arc::default());
        let requests = requests.expect("an exporter");
        let (reply, settlements) = crossbeam_channel::unbounded();
        let body = Bytes::from(vec![b'.'; REQUEST_BYTES]);
        let exporter = Self { runtime, requests, reply, settlements, body };
        // Connected, and with one request on its way.
        exporter.send(2);
        assert_eq!(exporter.settled(), 1);
        exporter
    }

    /// Delivers the requests.
    pub(super) fn deliver(&mut self) {
        self.send(REQUESTS);
        assert_eq!(self.settled(), REQUESTS);
    }

    fn send(&self, count: u64) {
        self.runtime.block_on(async {
            for number in 0..count {
                self.requests.send(self.request(number)).await.expect("the exporter is there");
                self.requests.reserve().await.expect("the exporter is there");
            }
        });
    }

    fn settled(&self) -> u64 {
        let settled = self.settlements.try_iter().inspect(|settlement| match settlement {
            Settlement::Ended(settled) => assert_eq!(settled.acknowledged_records, RECORDS),
            other => panic!("there is no spool: {other:?}"),
        });
        settled.count() as u64
    }

    fn request(&self, number: u64) -> Request {
        Request {
            body: vec![self.body.clone()],
            body_bytes: self.body.len(),
            uncompressed_bytes: self.body.len() * 8,
            records: RECORDS,
            source_bytes: self.body.len() as u64 * 8,
            compression: Compression::Zstd,
            reply: self.reply.clone(),
            settled: Default::default(),
            token: Token { number, ..Token::default() },
        }
    }
}

fn configuration(component: &str, endpoint: &str) -> String {
    format!(
        "receivers: {{filelog: {{include: [/var/log/pods/*/*/*.log]}}}}
exporters:
  {component}:
    endpoint: {endpoint}
    compression: zstd
    tls: {{insecure: true}}
    sending_queue: {{num_consumers: 1}}
service:
  pipelines:
    logs: {{receivers: [filelog], exporters: [{component}]}}
"
    )
}
