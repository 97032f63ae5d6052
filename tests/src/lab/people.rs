//! People: they log in, mistype, look around, think, buy, let their tokens expire, walk out of the house, log out.

use std::net::IpAddr;

use anyhow::Result;

use super::label::Label;
use super::rng::Rng;
use super::script::{Answer, Call, Caller, Script, Trick};
use super::world::{Job, World};
use super::{DAY, MS, S, Service, places};

/// What support looks at, and customers have no business with.
pub const SUPPORT: [&str; 8] =
    ["orders", "notes", "refunds", "returns", "calls", "vouchers", "claims", "parcels"];
/// What administrators look at.
pub const ADMIN: [&str; 8] = ["audit", "roles", "keys", "flags", "limits", "exports", "regions", "jobs"];

/// A session as it goes on.
struct Visit<'a> {
    world: &'a mut World,
    script: &'a mut Script,
    person: usize,
    caller: Caller,
    /// What the browser sends besides.
    cookie: Option<String>,
    token: String,
    refresh: String,
    issued: u64,
    at: u64,
}

/// Plays one session of one person. `at` is when he opens the page.
///
/// # Errors
/// When signing fails.
pub fn session(world: &mut World, script: &mut Script, person: usize, at: u64) -> Result<()> {
    let Some(who) = world.people.get(person) else { return Ok(()) };
    let second = who.devices[0] != who.devices[1] && who.sessions > 0;
    let device = usize::from(second && world.rng.chance(0.3));
    let job = who.job;
    let caller = world.caller(person, device, at);
    note_new_device(world, script, person, device, at);
    let mut visit = Visit {
        world,
        script,
        person,
        caller,
        cookie: cookie(person, device, at),
        token: String::new(),
        refresh: String::new(),
        issued: 0,
        at,
    };
    if !visit.travel() || !visit.log_in()? {
        return Ok(());
    }
    // Some read, and leave the page open for minutes: their tokens are refreshed.
    let pause = if visit.world.rng.chance(0.25) { 80.0 } else { 7.0 };
    let pages = (visit.world.rng.log_normal(6.0, 0.7) as u64).clamp(1, 40);
    for page in 0..pages {
        let think = visit.world.rng.log_normal(pause, 1.0).clamp(0.5, 900.0);
        visit.at += (think * S as f64) as u64;
        visit.keep_token()?;
        if page > 0 {
            visit.walk_out();
        }
        match job {
            Job::Customer => visit.shop(),
            Job::Support => visit.support(),
            Job::Admin => visit.administer(),
        }
    }
    if visit.world.rng.chance(0.2) {
        visit.ask(Service::Idp, Call::new("POST", "/logout"), 204);
    }
    let done = visit.at;
    if let Some(who) = world.people.get_mut(person) {
        who.busy_until = done + 20 * S;
        who.sessions += 1;
        if let Some(used) = who.used.get_mut(device) {
            *used += 1;
        }
    }
    Ok(())
}

/// The first use of a second device on a sensitive route is what `new-device-sensitive` is about; here it is benign.
fn note_new_device(world: &World, script: &mut Script, person: usize, device: usize, at: u64) {
    let Some(who) = world.people.get(person) else { return };
    // Not every visit comes to a sensitive page.
    if who.sessions > 0 && who.used.get(device).is_some_and(|used| *used < 6) {
        script.labels.push(Label {
            id: "benign/new-device".into(),
            also: vec!["new-device-sensitive"],
            first: at,
            last: at + 3 * 3600 * S,
            principals: vec![who.name.clone()],
            is_fact: true,
            ..Label::default()
        });
    }
}

/// The session cookie of a browser: two people of five have one, for a week.
fn cookie(person: usize, device: usize, at: u64) -> Option<String> {
    let week = at / (7 * 86_400 * S);
    let mut rng = Rng::new((person as u64) << 20 | (device as u64) << 16 | week);
    (person % 5 < 2).then(|| format!("theme=dark; JSESSIONID={}", rng.hex(32)))
}

impl Visit<'_> {
    fn name(&self) -> String {
        self.world.name(self.person)
    }

    /// Whether it succeeded: some give up.
    fn log_in(&mut self) -> Result<bool> {
        let name = self.name();
        let mut tries = 0;
        while self.world.rng.chance(0.06) && tries < 3 {
            tries += 1;
            let wrong =
                format!(r#"{{"username":"{name}","password":"Wrong-{tries}-{}"}}"#, self.world.rng.hex(4));
            self.script.call(
                self.at,
                &self.caller,
                Service::Idp,
                Call::post("/login", wrong),
                &Answer::of(401, 90),
            );
            self.at += (self.world.rng.log_normal(8.0, 0.6) * S as f64) as u64;
        }
        if tries == 3 {
            return Ok(false);
        }
        self.new_tokens()?;
        let body = format!(r#"{{"username":"{name}","password":"Right-{}"}}"#, self.world.rng.hex(6));
        let answer = self.token_answer();
        self.at = self.script.call(self.at, &self.caller, Service::Idp, Call::post("/login", body), &answer);
        Ok(true)
    }

    fn new_tokens(&mut self) -> Result<()> {
        self.token = self.world.token_of(self.person, self.at)?;
        self.refresh = format!("rt_{}{}", self.world.rng.hex(16), self.world.rng.hex(16));
        self.issued = self.at;
        Ok(())
    }

    fn token_answer(&self) -> Answer {
        Answer::of(200, 60).with(format!(
            r#"{{"access_token":"{}","token_type":"Bearer","expires_in":900,"refresh_token":"{}"}}"#,
            self.token, self.refresh
        ))
    }

    /// Refreshes when the token is nearly over; some notice only when it is refused.
    fn keep_token(&mut self) -> Result<()> {
        let age = self.at.saturating_sub(self.issued);
        if age < 800 * S {
            return Ok(());
        }
        if age > 900 * S && self.world.rng.chance(0.3) {
            self.expired();
        }
        let form = format!("grant_type=refresh_token&client_id=shop-web&refresh_token={}", self.refresh);
        self.new_tokens()?;
        let answer = self.token_answer();
        if self.world.rng.chance(0.005) {
            // The answer was lost, and the client asks again at once.
            let call = Call::form("/oauth/token", form.clone());
            self.script.call(self.at, &self.caller, Service::Idp, call, &answer);
            self.at += S;
        }
        self.at =
            self.script.call(self.at, &self.caller, Service::Idp, Call::form("/oauth/token", form), &answer);
        self.at += 5 * MS;
        Ok(())
    }

    /// A page that sends an expired token with each of its requests before it understands. True, and benign.
    fn expired(&mut self) {
        for _ in 0..self.world.rng.between(1, 3) {
            let path = format!("/orders?page={}", self.world.rng.between(1, 3));
            self.ask(Service::Orders, Call::get(path), 401);
        }
        let principals = vec![self.name()];
        self.script.labels.push(Label {
            id: "benign/expired".into(),
            also: vec!["expired-token"],
            first: self.at.saturating_sub(10 * S),
            last: self.at + S,
            addresses: vec![self.caller.address],
            principals,
            is_fact: true,
            ..Label::default()
        });
    }

    /// A telephone leaves the house, or comes home, with the same token.
    fn walk_out(&mut self) {
        let Some(who) = self.world.people.get(self.person) else { return };
        let (home, cell, mobiles) = (who.home, who.cell, who.city.mobiles);
        if self.caller.agent.starts_with("Shop") && self.world.rng.chance(0.01) {
            let (out, back) =
                (self.caller.address == home, self.caller.address == places::address(mobiles, cell));
            if !out && !back {
                return;
            }
            self.caller.address = if out { places::address(mobiles, cell) } else { home };
            self.at += self.world.rng.between(1, 25) * S;
        }
    }

    /// Where he is today: some travel from Tuesday to Friday, now and then. True, and benign. Whoever sits in the train
    /// or plane, half a day before and after, does not come.
    fn travel(&mut self) -> bool {
        let Some(who) = self.world.people.get(self.person) else { return false };
        let day = self.world.day(self.at);
        let person = self.person as u64;
        let abroad = |day: u64| {
            let week = (day / 7).wrapping_mul(31).wrapping_add(person) % 9;
            person.wrapping_mul(7919).is_multiple_of(40) && week == 0 && (1..5).contains(&(day % 7))
        };
        if who.job != Job::Customer {
            return true;
        }
        let is_morning = self.at % DAY < DAY / 2;
        if is_morning && day > 0 && abroad(day) != abroad(day - 1) {
            return false;
        }
        if abroad(day) {
            let city =
                places::HOMES.get((self.person + 3) % places::HOMES.len()).copied().unwrap_or_default();
            self.caller.address = places::address(city.homes, who.cell);
            let label = Label {
                id: "benign/travel".into(),
                also: vec!["new-country"],
                first: self.at,
                last: self.at + DAY / 4,
                principals: vec![who.name.clone()],
                is_fact: true,
                ..Label::default()
            };
            self.script.labels.push(label);
        }
        true
    }

    /// Asks with the token, on the page's own time.
    fn ask(&mut self, service: Service, call: Call, status: u16) {
        let answer = self.world.answer(service, self.at, status);
        let call = if self.token.is_empty() { call } else { call.token(&self.token) };
        let call = match &self.cookie {
            Some(cookie) => call.header("Cookie", cookie.clone()),
            None => call,
        };
        self.script.call(self.at, &self.caller, service, call, &answer);
        if self.world.rng.chance(0.000_1) {
            self.script.trick(Trick::NoAnswer);
            self.at += 10 * S;
        }
        self.at += self.world.rng.between(20, 180) * MS;
    }

    fn own(&mut self) -> u64 {
        let base = self.world.people.get(self.person).map_or(0, |p| p.base);
        // New orders are looked at more often than old ones.
        base * 40 + self.world.rng.below(12).min(self.world.rng.below(12))
    }

    /// What customers do.
    fn shop(&mut self) {
        let name = self.name();
        match self.world.rng.below(20) {
            0..5 => {
                let category = self.world.rng.pick(&["books", "bikes", "garden", "toys", "o'neill"]);
                self.ask(Service::Orders, Call::get(format!("/products?category={category}&page=1")), 200);
                let product = self.world.rng.below(900);
                self.ask(Service::Orders, Call::get(format!("/products/{product}")), 200);
            }
            5..8 => {
                let words = self.world.rng.pick(&[
                    "rock+%26+roll",
                    "o%27reilly+select+poems",
                    "union+jack+flag",
                    "drop+table+lamp",
                    "5%25+off+or+more",
                    "%22exact+phrase%22",
                    "%3C3+gift",
                    "c%2B%2B+from+scratch",
                    "table+where+to+buy",
                    "script+font",
                    "..+and+more",
                ]);
                self.ask(Service::Orders, Call::get(format!("/search?q={words}&limit=20")), 200);
            }
            8..12 => {
                self.ask(Service::Orders, Call::get("/orders?page=1&size=20"), 200);
                let id = self.own();
                self.ask(Service::Orders, Call::get(format!("/orders/{id}")), 200);
                self.ask(Service::Orders, Call::get(format!("/orders/{id}/items")), 200);
            }
            12..14 => {
                let id = self.own();
                self.ask(Service::Billing, Call::get("/invoices"), 200);
                self.ask(Service::Billing, Call::get(format!("/invoices/{id}")), 200);
            }
            14 => {
                self.ask(Service::Accounts, Call::get(format!("/users/{name}")), 200);
                self.ask(Service::Accounts, Call::get(format!("/users/{name}/addresses")), 200);
            }
            15 => self.ask(Service::Orders, Call::post("/orders", r#"{"product":17,"count":1}"#), 201),
            16 => self.ask(Service::Billing, Call::post("/payments", r#"{"amount":1999}"#), 201),
            17 => {
                let body = r#"{"operationName":"Basket","query":"query Basket { basket { id } }"}"#;
                self.ask(Service::Orders, Call::post("/graphql", body), 200);
            }
            18 => self.stray(),
            _ => {
                // The session of the page has ended: it asks without a token first.
                let answer = Answer::of(401, 4);
                let page = self.world.rng.pick(&["/orders?page=1", "/products?category=books&page=1"]);
                self.script.call(self.at, &self.caller, Service::Orders, Call::get(page), &answer);
                self.at += 40 * MS;
                self.ask(Service::Orders, Call::get(page), 200);
            }
        }
    }

    /// Things that are not there, or not for everybody.
    fn stray(&mut self) {
        match self.world.rng.below(6) {
            0 => self.ask(Service::Orders, Call::get("/favicon.ico"), 404),
            1 => self.ask(Service::Orders, Call::get("/apple-touch-icon.png"), 404),
            2 => {
                let id = self.own() + 39;
                self.ask(Service::Orders, Call::get(format!("/orders/{id}")), 404);
            }
            3 => {
                // An old bookmark of somebody else's order, sent by a friend.
                let id = 100_000 + self.world.rng.below(50_000);
                self.ask(Service::Orders, Call::get(format!("/orders/{id}")), 403);
            }
            4 => self.ask(Service::Orders, Call::new("PATCH", "/orders/1"), 405),
            _ => self.ask(Service::Billing, Call::get("/invoices?year=2019"), 400),
        }
    }

    /// What support does: one customer after the other.
    fn support(&mut self) {
        let customer = 2_500 + self.world.rng.below(self.world.people.len() as u64);
        self.ask(Service::Accounts, Call::get(format!("/customers?phone=06{:08}", customer * 7)), 200);
        self.ask(Service::Accounts, Call::get(format!("/customers/{customer}")), 200);
        self.ask(Service::Orders, Call::get(format!("/orders?customer={customer}")), 200);
        let order = customer * 40 + self.world.rng.below(3);
        let what = self.world.rng.pick(&SUPPORT);
        self.ask(Service::Orders, Call::get(format!("/support/{what}/{order}")), 200);
    }

    /// What administrators do.
    fn administer(&mut self) {
        match self.world.rng.below(4) {
            0 => self.ask(Service::Accounts, Call::get("/admin/users?page=1"), 200),
            1 => {
                let user = 2_500 + self.world.rng.below(self.world.people.len() as u64);
                self.ask(Service::Accounts, Call::get(format!("/admin/users/{user}")), 200);
            }
            2 => {
                let what = self.world.rng.pick(&ADMIN);
                self.ask(Service::Accounts, Call::get(format!("/admin/{what}")), 200);
            }
            _ => {
                // A report takes seconds.
                let latency = (self.world.rng.log_normal(1_500.0, 0.3) as u64).min(4_000);
                let call = Call::get("/reports/daily").token(&self.token);
                let answer = Answer::of(200, latency);
                self.at = self.script.call(self.at, &self.caller, Service::Billing, call, &answer);
            }
        }
    }
}

/// When a person opens the page on a day, in nanoseconds after midnight: evenings mostly; office hours at work.
pub fn hour(job: Job, world: &mut World) -> u64 {
    let hours = match job {
        Job::Support | Job::Admin => 8.7 + world.rng.unit() * 8.0,
        Job::Customer => loop {
            let hour = 15.0 + 4.5 * (world.rng.unit() + world.rng.unit() + world.rng.unit() - 1.5) * 1.9;
            if world.rng.chance(0.06) {
                break world.rng.unit() * 24.0;
            }
            if (0.0..24.0).contains(&hour) {
                break hour;
            }
        },
    };
    (hours * 3600.0) as u64 * S + world.rng.below(S)
}

/// A browser or tool that is nobody in particular.
#[must_use]
pub fn stranger(address: IpAddr, agent: &str) -> Caller {
    Caller { address, ingress: Some(1), agent: agent.to_owned(), lane: 0 }
}
