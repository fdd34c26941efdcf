//! What the lines talk about: the events, requests and clients of a small shop. Tables only; how
//! they become lines is `line.rs`'s part. No text holds a quote, a backslash or a newline that its
//! kind would have to escape.

use super::buffer::Piece;
use super::prng::Prng;

/// One kind of event of a JSON log: all of a line but time, numbers, request and stamp.
#[derive(Debug)]
pub(crate) struct JsonEvent {
    /// From the `Z` of the time to the colon before the first number.
    pub(crate) head: Piece<128>,
    /// From the comma after the first number to the colon before the second.
    pub(crate) middle: Piece<48>,
    /// The first number lies below this.
    pub(crate) first_end: u32,
    /// The second number lies below this.
    pub(crate) second_end: u32,
}

macro_rules! json {
    ($level:literal $service:literal $message:literal $first:literal < $first_end:literal,
     $second:literal < $second_end:literal) => {
        JsonEvent {
            head: Piece::new(
                concat!(
                    "Z\",\"level\":\"",
                    $level,
                    "\",\"service\":\"",
                    $service,
                    "\",\"msg\":\"",
                    $message,
                    "\",\"",
                    $first,
                    "\":"
                )
                .as_bytes(),
            ),
            middle: Piece::new(concat!(",\"", $second, "\":").as_bytes()),
            first_end: $first_end,
            second_end: $second_end,
        }
    };
}

/// The more frequent first: a line takes the smaller of two draws.
#[rustfmt::skip]
pub(crate) static JSON_EVENTS: [JsonEvent; 28] = [
    json!("info" "checkout" "order accepted" "order_id" < 900_000, "items" < 12),
    json!("info" "gateway" "request completed" "user_id" < 80_000, "duration_us" < 90_000),
    json!("debug" "catalog" "cache hit" "product_id" < 40_000, "age_s" < 300),
    json!("info" "payments" "payment authorized" "order_id" < 900_000, "amount_cents" < 60_000),
    json!("info" "catalog" "product served" "product_id" < 40_000, "variants" < 30),
    json!("info" "inventory" "stock reserved" "sku" < 70_000, "quantity" < 8),
    json!("debug" "catalog" "cache miss" "product_id" < 40_000, "lookup_us" < 9_000),
    json!("info" "shipping" "label printed" "parcel_id" < 700_000, "weight_g" < 9_000),
    json!("info" "search" "query answered" "hits" < 5_000, "took_us" < 80_000),
    json!("debug" "gateway" "connection reused" "connection" < 4_000, "requests" < 1_000),
    json!("info" "accounts" "session started" "user_id" < 80_000, "ttl_s" < 3_600),
    json!("info" "notifier" "mail queued" "user_id" < 80_000, "template" < 40),
    json!("info" "inventory" "stock released" "sku" < 70_000, "quantity" < 8),
    json!("debug" "payments" "idempotency key accepted" "order_id" < 900_000, "attempt" < 3),
    json!("info" "recommender" "model scored" "user_id" < 80_000, "candidates" < 400),
    json!("warn" "gateway" "slow upstream" "upstream_id" < 60, "duration_us" < 4_000_000),
    json!("info" "shipping" "route planned" "parcel_id" < 700_000, "stops" < 90),
    json!("info" "accounts" "session ended" "user_id" < 80_000, "lifetime_s" < 7_200),
    json!("warn" "payments" "retrying authorization" "order_id" < 900_000, "attempt" < 5),
    json!("info" "billing" "invoice rendered" "invoice_id" < 500_000, "pages" < 9),
    json!("warn" "inventory" "stock below threshold" "sku" < 70_000, "left" < 5),
    json!("debug" "search" "index segment merged" "segment" < 9_000, "documents" < 200_000),
    json!("warn" "accounts" "login refused, wrong password" "user_id" < 80_000, "failures" < 9),
    json!("error" "payments" "card declined by issuer" "order_id" < 900_000, "reason_code" < 99),
    json!("info" "billing" "ledger closed" "entries" < 400_000, "duration_ms" < 60_000),
    json!("error" "shipping" "carrier did not answer in time" "parcel_id" < 700_000, "timeout_ms" < 9_000),
    json!("warn" "notifier" "mail bounced" "user_id" < 80_000, "smtp_status" < 600),
    json!("error" "gateway" "upstream closed the connection" "upstream_id" < 60, "bytes_read" < 70_000),
];

/// One request line of an access log, without its id, its token and the protocol.
#[derive(Debug)]
pub(crate) struct Request {
    /// Method and path, up to the id.
    pub(crate) head: Piece<48>,
    /// From the end of the id to the token.
    pub(crate) tail: Piece<32>,
    /// The id lies below this.
    pub(crate) id_end: u32,
}

macro_rules! request {
    ($head:literal $id_end:literal $tail:literal) => {
        Request {
            head: Piece::new($head.as_bytes()),
            tail: Piece::new($tail.as_bytes()),
            id_end: $id_end,
        }
    };
}

/// The more frequent first.
pub(crate) static REQUESTS: [Request; 20] = [
    request!("GET /api/v1/products/" 40_000 "?sid="),
    request!("GET /static/img/products/" 40_000 "-320.webp?v="),
    request!("GET /api/v1/cart/" 80_000 "/items?sid="),
    request!("GET /api/v1/search?q=lamp&page=" 60 "&sort=price&sid="),
    request!("POST /api/v1/cart/" 80_000 "/items?sid="),
    request!("GET /category/" 400 "?order=newest&sid="),
    request!("GET /api/v1/recommendations/" 80_000 "?sid="),
    request!("GET /healthz?probe=" 10 "&nonce="),
    request!("POST /api/v1/orders/" 900_000 "/confirm?sid="),
    request!("GET /api/v1/orders/" 900_000 "?sid="),
    request!("PUT /api/v1/cart/" 80_000 "/address?sid="),
    request!("GET /static/js/app." 99_999 ".js?v="),
    request!("GET /product/" 40_000 "/reviews?limit=20&sid="),
    request!("DELETE /api/v1/cart/" 80_000 "/items/1?sid="),
    request!("POST /api/v1/sessions?v=" 4 "&device="),
    request!("GET /api/v1/users/" 80_000 "/wishlist?sid="),
    request!("GET /api/v2/prices?batch=" 900 "&currency=EUR&sid="),
    request!("POST /graphql?op=" 300 "&sid="),
    request!("GET /sitemap-" 40 ".xml?v="),
    request!("PATCH /api/v1/users/" 80_000 "?sid="),
];

/// Status codes of an access log, as often as they occur.
pub(crate) static STATUSES: [Piece<4>; 32] = {
    let codes = b"200 200 200 200 200 200 200 200 200 200 200 200 200 200 200 200 200 200 200 200 \
        201 201 204 301 304 304 400 401 404 404 499 503 ";
    let mut table = [Piece::new(b""); 32];
    let mut at = 0;
    while at < table.len() {
        let start = at * 4;
        table[at] =
            Piece::new(&[codes[start], codes[start + 1], codes[start + 2], codes[start + 3]]);
        at += 1;
    }
    table
};

/// From the blank after the size to the quote that opens the user agent.
pub(crate) static REFERERS: [Piece<64>; 8] = [
    Piece::new(b" \"-\" \""),
    Piece::new(b" \"https://shop.example/\" \""),
    Piece::new(b" \"-\" \""),
    Piece::new(b" \"https://shop.example/category/lighting\" \""),
    Piece::new(b" \"-\" \""),
    Piece::new(b" \"https://shop.example/cart\" \""),
    Piece::new(b" \"-\" \""),
    Piece::new(b" \"https://search.example/?q=desk+lamp\" \""),
];

/// User agents with their closing quote; the more frequent first.
#[rustfmt::skip]
pub(crate) static USER_AGENTS: [Piece<128>; 14] = [
    Piece::new(b"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36\""),
    Piece::new(b"ShopApp/7.31.2 (Android 15; Pixel 8) okhttp/4.12.0\""),
    Piece::new(b"ShopApp/7.31.0 (iPhone; iOS 18.5; Scale/3.00)\""),
    Piece::new(b"Mozilla/5.0 (iPad; CPU OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Safari/604.1\""),
    Piece::new(b"kube-probe/1.34\""),
    Piece::new(b"Go-http-client/1.1\""),
    Piece::new(b"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36\""),
    Piece::new(b"okhttp/4.12.0\""),
    Piece::new(b"Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0\""),
    Piece::new(b"python-requests/2.32.3\""),
    Piece::new(b"Mozilla/5.0 (compatible; ExampleBot/2.1; +https://bot.example/about)\""),
    Piece::new(b"Mozilla/5.0 (Linux; Android 15; SM-S921B) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Mobile Safari/537.36\""),
    Piece::new(b"curl/8.14.1\""),
    Piece::new(b"PriceWatch/3.2 (partner; contact=ops@partner.example)\""),
];

/// One kind of event of a plain text log.
#[derive(Debug)]
pub(crate) struct TextEvent {
    /// From the blank after the time to the first number.
    pub(crate) head: Piece<96>,
    /// Between the numbers.
    pub(crate) middle: Piece<48>,
    /// After the second number.
    pub(crate) tail: Piece<32>,
    /// The first number lies below this.
    pub(crate) first_end: u32,
    /// The second number lies below this.
    pub(crate) second_end: u32,
}

macro_rules! text {
    ($head:literal $first_end:literal $middle:literal $second_end:literal $tail:literal) => {
        TextEvent {
            head: Piece::new($head.as_bytes()),
            middle: Piece::new($middle.as_bytes()),
            tail: Piece::new($tail.as_bytes()),
            first_end: $first_end,
            second_end: $second_end,
        }
    };
}

/// The more frequent first.
#[rustfmt::skip]
pub(crate) static TEXT_EVENTS: [TextEvent; 22] = [
    text!(" INFO  [worker-3] shop.orders.Pipeline - order " 900_000 " moved to PACKED by station " 60 ""),
    text!(" INFO  [worker-1] shop.orders.Pipeline - order " 900_000 " moved to PAID after " 90_000 " ms"),
    text!(" DEBUG [worker-2] shop.db.Pool - connection " 64 " borrowed, waited " 9_000 " us"),
    text!(" INFO  [scheduler] shop.jobs.Runner - job reprice finished, rows=" 90_000 " elapsed=" 60_000 "ms"),
    text!(" INFO  [kafka-0] shop.events.Consumer - partition 4 offset " 90_000_000 " committed, lag " 300 ""),
    text!(" INFO  [kafka-1] shop.events.Consumer - partition 7 offset " 90_000_000 " committed, lag " 300 ""),
    text!(" DEBUG [worker-0] shop.cache.Tiered - evicted " 900 " entries, resident " 700_000 " KiB"),
    text!(" INFO  [worker-2] shop.prices.Engine - repriced sku " 70_000 " to " 60_000 " cents"),
    text!(" INFO  [http-8] shop.web.Access - slow client drained after " 90_000 " bytes, user " 80_000 ""),
    text!(" DEBUG [worker-1] shop.db.Query - select by primary key, id " 900_000 ", took " 9_000 " us"),
    text!(" INFO  [worker-3] shop.mail.Outbox - delivered message " 900_000 " to relay in " 900 " ms"),
    text!(" WARN  [worker-2] shop.db.Query - full scan of table order_lines, rows " 900_000 ", took " 9_000 " ms"),
    text!(" INFO  [gc] runtime.Memory - minor collection, freed " 900_000 " KiB in " 90_000 " us"),
    text!(" INFO  [worker-0] shop.stock.Sync - warehouse " 12 " confirmed " 900 " positions"),
    text!(" WARN  [http-3] shop.web.Limits - client throttled, user " 80_000 ", tokens left " 4 ""),
    text!(" DEBUG [worker-3] shop.geo.Lookup - resolved block " 65_000 " from cache, age " 3_600 " s"),
    text!(" INFO  [scheduler] shop.jobs.Runner - job reindex started, shards=" 32 " batch=" 9_000 ""),
    text!(" WARN  [kafka-0] shop.events.Consumer - rebalance, generation " 900 ", assigned " 24 " partitions"),
    text!(" INFO  [main] shop.config.Watcher - reloaded, revision " 90_000 ", keys " 400 ""),
    text!(" ERROR [worker-1] shop.orders.Pipeline - order " 900_000 " rejected by fraud check, score " 100 ""),
    text!(" WARN  [worker-0] shop.cache.Tiered - remote tier slow, p99 " 90_000 " us over " 5_000 " calls"),
    text!(" ERROR [http-1] shop.web.Handler - request aborted, user " 80_000 ", after " 30_000 " ms"),
];

/// Ordinary words that fill a line up to a size; longer than any piece that is cut from it.
pub(crate) static PROSE: &[u8; 519] = b"the order was taken from the queue and checked against the \
stock of the nearest warehouse before the parcel could be planned; nothing was missing this time, so \
the label went to the printer and the customer got a message with the number of the parcel, the name \
of the carrier and the day on which it should arrive; meanwhile the next order had to wait for a lock \
that an earlier job still held while it wrote its totals, which took longer than usual because the \
disk was busy with a backup of last night and its checks ";

/// How many clients the access log knows.
pub(crate) const CLIENTS: usize = 4_096;

/// The tables that depend on the seed.
#[derive(Debug)]
pub struct Vocabulary {
    /// Addresses of clients, with what follows them up to the time.
    pub(crate) clients: Box<[Piece<24>]>,
}

impl Vocabulary {
    /// The tables of that seed.
    pub fn new(seed: u64) -> Self {
        let mut random = Prng::new(seed, u64::from_be_bytes(*b"clients."));
        let client = |_| {
            let networks = ["10.42", "10.43", "172.16", "203.0", "198.51", "192.0"];
            let network = networks[random.below(networks.len() as u32) as usize];
            let (third, fourth) = (random.below(256), 1 + random.below(254));
            Piece::new(format!("{network}.{third}.{fourth} - - [").as_bytes())
        };
        Self { clients: (0..CLIENTS).map(client).collect() }
    }
}
