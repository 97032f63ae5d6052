//! What the rules cost: every one of them, and none.

use divan::Bencher;
use divan::counter::ItemsCount;
use sensor_user::detect::{DetectSettings, Detector, Finding, RuleSettings, rules};
use sensor_user::http::{BodyFacts, Exchange};
use sensor_user::token::TokenUse;

use crate::traffic::{PEOPLE, address, curl, exchange, time, token};
use crate::{MADE, QUICK};

/// Which rules are asked.
const ASKED: [&str; 2] = ["all", "none"];

/// Addresses that the requests come from.
const ADDRESSES: u64 = 64;

/// A detector in the middle of ordinary traffic.
struct Busy {
    detector: Detector,
    people: Vec<[TokenUse; 1]>,
    found: Vec<Finding>,
    n: u64,
}

impl Busy {
    fn new(asked: &str) -> Self {
        let off = RuleSettings { enabled: false, ..RuleSettings::default() };
        let mut settings = DetectSettings::default();
        if asked == "none" {
            settings.rules = rules::catalogue().iter().map(|about| (about.id.into(), off.clone())).collect();
        }
        let people = (0..PEOPLE).map(|n| [token(n, &format!("user{n}"))]).collect();
        let mut busy = Self { detector: Detector::new(settings), people, found: Vec::new(), n: 0 };
        // Ten requests each: whatever is said once or learnt at first is over.
        let mut requests = Busy::repeats();
        for _ in 0..10 * PEOPLE {
            busy.repeat(&mut requests);
        }
        assert!(busy.found.is_empty(), "{:?}", busy.found.first());
        busy
    }

    /// What each of the people asks for again and again.
    fn repeats() -> Vec<Exchange> {
        let head = |n| curl(&format!("/orders/{n}"), "t");
        (0..PEOPLE).map(|n| exchange(n, address(n % ADDRESSES), &head(n), 200)).collect()
    }

    /// The next of them asks for the same again.
    fn repeat(&mut self, requests: &mut [Exchange]) {
        let who = self.who();
        let request = &mut requests[who];
        (request.at, request.ended_at) = (time(self.n), time(self.n));
        self.detector.judge(request, &self.people[who], time(self.n), &mut self.found);
    }

    /// Whose turn it is.
    fn who(&mut self) -> usize {
        self.n += 1;
        (self.n % PEOPLE) as usize
    }

    /// The next of them asks for this.
    fn next(&mut self, path: &str, status: u16) -> (usize, Exchange) {
        let who = self.who();
        (who, exchange(self.n, address(who as u64 % ADDRESSES), &curl(path, "t"), status))
    }
}

/// A request that merely repeats itself.
#[divan::bench(args = ASKED, sample_size = QUICK)]
fn repeat(bencher: Bencher<'_, '_>, asked: &str) {
    let mut busy = Busy::new(asked);
    let mut requests = Busy::repeats();
    bencher.counter(ItemsCount::new(1_u32)).bench_local(|| busy.repeat(&mut requests));
    assert!(busy.found.is_empty(), "{:?}", busy.found.first());
}

/// A request for an object that nobody has asked for before.
#[divan::bench(args = ASKED, sample_size = MADE)]
fn new_object(bencher: Bencher<'_, '_>, asked: &str) {
    let busy = std::cell::RefCell::new(Busy::new(asked));
    bencher
        .counter(ItemsCount::new(1_u32))
        .with_inputs(|| {
            let mut busy = busy.borrow_mut();
            let path = format!("/orders/{}", PEOPLE + busy.n);
            busy.next(&path, 200)
        })
        .bench_local_refs(|(who, exchange)| {
            let Busy { detector, people, found, .. } = &mut *busy.borrow_mut();
            detector.judge(exchange, &people[*who], exchange.at, found);
        });
    let busy = busy.into_inner();
    assert!(busy.found.is_empty(), "{:?}", busy.found.first());
}

/// Somebody known comes with another token.
#[divan::bench(args = ASKED, sample_size = MADE)]
fn new_token(bencher: Bencher<'_, '_>, asked: &str) {
    let busy = std::cell::RefCell::new(Busy::new(asked));
    bencher
        .counter(ItemsCount::new(1_u32))
        .with_inputs(|| {
            let mut busy = busy.borrow_mut();
            let who = busy.n % PEOPLE;
            let (_, exchange) = busy.next(&format!("/orders/{who}"), 200);
            (exchange, [token(PEOPLE + busy.n, &format!("user{who}"))])
        })
        .bench_local_refs(|(exchange, tokens)| {
            let Busy { detector, found, .. } = &mut *busy.borrow_mut();
            detector.judge(exchange, tokens, exchange.at, found);
            found.clear();
        });
}

/// A password that is refused, one a second, each time of another account from another address.
#[divan::bench(args = ASKED, sample_size = MADE)]
fn failed_login(bencher: Bencher<'_, '_>, asked: &str) {
    let busy = std::cell::RefCell::new(Busy::new(asked));
    let head =
        "POST /login HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 31\r\nUser-Agent: curl/8.14.1\r\n\r\n";
    bencher
        .counter(ItemsCount::new(1_u32))
        .with_inputs(|| {
            let mut busy = busy.borrow_mut();
            busy.n += 10_000;
            let who = busy.n / 10_000 % 5_000;
            let mut exchange = exchange(busy.n, address(10_000 + who), head, 401);
            let account = Some(format!("user{who}").into());
            exchange.body = Some(Box::new(BodyFacts { account, ..BodyFacts::default() }));
            exchange
        })
        .bench_local_refs(|exchange| {
            let Busy { detector, found, .. } = &mut *busy.borrow_mut();
            detector.judge(exchange, &[], exchange.at, found);
            found.clear();
        });
}
