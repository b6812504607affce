//! `loadBalancing`: which endpoint a request goes to.

use std::time::Duration;

use super::locality::{self, Locality};
use super::session::{Cookie, cookie, name};
use super::value::{Percent, percent, positive, some_time, switch};
use crate::diagnostic::Diagnostic;
use crate::model::matching::header_name;
use crate::read::Node;
use crate::read::decode::{Report, boolean, integer, one_of};

/// How endpoints are chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadBalancing {
    /// Among those that are equally near.
    pub algorithm: Algorithm,
    /// New endpoints get their share little by little.
    pub slow_start: Option<SlowStart>,
    /// Near endpoints first.
    pub locality: Option<Locality>,
    /// With fewer healthy endpoints than this all are used, healthy or not. Envoy's default is 50 %.
    pub panic_threshold: Option<Percent>,
}

/// How one of several equal endpoints is chosen.
#[derive(Debug, Clone, PartialEq)]
pub enum Algorithm {
    /// In turn.
    RoundRobin,
    /// Of `choices` endpoints taken at random the one with the fewest requests; `bias` says how much they count where
    /// weights differ.
    LeastRequest {
        /// How many are compared; 2 if not given.
        choices: Option<u32>,
        /// See Envoy's `active_request_bias`; 1 if not given.
        bias: Option<f64>,
    },
    /// At random.
    Random,
    /// By a hash of the request, on a ring.
    RingHash {
        /// Entries of the ring, at least; 1 024 if not given.
        minimum: Option<u64>,
        /// At most; 8 388 608 if not given.
        maximum: Option<u64>,
        /// What is hashed.
        on: HashOn,
    },
    /// By a hash of the request, in a table.
    Maglev {
        /// Entries of the table, a prime number; 65 537 if not given.
        table_size: Option<u64>,
        /// What is hashed.
        on: HashOn,
    },
}

/// What is hashed of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HashOn {
    /// All of it that a request has, in this order; with none of it, the endpoint is chosen at random. Never empty.
    pub keys: Vec<HashKey>,
    /// An endpoint gets at most so many percent of the average load, at least 100.
    pub balance_factor: Option<u32>,
}

/// One thing to hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HashKey {
    /// Where it is.
    pub of: HashKeyOf,
    /// Whether the keys after it are left out if the request has this one.
    pub terminal: bool,
}

/// Where a thing to hash is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashKeyOf {
    /// A header.
    Header(String),
    /// A cookie; with a lifetime it is made if the request has none.
    Cookie(Cookie),
    /// The address the connection comes from.
    SourceIp,
    /// A query parameter.
    Query(String),
}

/// New endpoints get their share little by little.
#[derive(Debug, Clone, PartialEq)]
pub struct SlowStart {
    /// Until they have all of it.
    pub window: Duration,
    /// 1 is linear; more is faster in the beginning.
    pub aggression: Option<f64>,
    /// What they begin with; 10 % if not given.
    pub minimum: Option<Percent>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Name {
    RoundRobin,
    LeastRequest,
    Random,
    RingHash,
    Maglev,
}

const ALGORITHMS: &[(&str, Name)] = &[
    ("RoundRobin", Name::RoundRobin),
    ("LeastRequest", Name::LeastRequest),
    ("Random", Name::Random),
    ("RingHash", Name::RingHash),
    ("Maglev", Name::Maglev),
];

/// The fields that belong to one algorithm, or to both that hash.
const OF_ONE: &[(&str, &[Name])] = &[
    ("leastRequest", &[Name::LeastRequest]),
    ("ringHash", &[Name::RingHash]),
    ("maglev", &[Name::Maglev]),
    ("hashOn", &[Name::RingHash, Name::Maglev]),
    ("hashBalanceFactor", &[Name::RingHash, Name::Maglev]),
    ("slowStart", &[Name::RoundRobin, Name::LeastRequest]),
];

/// What Envoy takes for a ring.
const MAX_RING: u64 = 8_388_608;

impl Default for LoadBalancing {
    /// Fewest requests of two: nearly as even as comparing all of them, and it avoids who is slow.
    fn default() -> Self {
        let algorithm = Algorithm::LeastRequest { choices: None, bias: None };
        Self { algorithm, slow_start: None, locality: None, panic_threshold: None }
    }
}

/// Reads `loadBalancing`.
pub(super) fn decode(node: &Node, report: &mut Report) -> Option<LoadBalancing> {
    let mut fields = report.fields(node, "loadBalancing")?;
    let name = fields.optional("algorithm", one_of(ALGORITHMS)).unwrap_or(Name::LeastRequest);
    let least = fields.optional("leastRequest", least_request).unwrap_or_default();
    let ring = fields.optional("ringHash", ring).unwrap_or_default();
    let table_size = fields.optional("maglev", table_size);
    let keys = fields.list("hashOn", hash_key);
    let balance_factor = fields.optional("hashBalanceFactor", integer(100, u32::MAX));
    let slow_start = fields.optional("slowStart", slow_start);
    let locality = fields.optional("locality", locality::decode);
    let panic_threshold = fields.optional("panicThreshold", percent);
    for (field, algorithms) in OF_ONE {
        if node.get(field).is_some() && !algorithms.contains(&name) {
            let span = fields.key_span(field);
            fields.report().add::<()>(span, not_of_this(field, algorithms));
        }
    }
    if matches!(name, Name::RingHash | Name::Maglev) && node.get("hashOn").is_none_or(Node::is_empty) {
        let missing = Diagnostic::error("nothing says what is hashed")
            .help("add hashOn, as hashOn: [{ header: x-user }]");
        let span = fields.key_span("algorithm");
        fields.report().add::<()>(span, missing);
    }
    fields.finish();
    let on = HashOn { keys, balance_factor };
    let algorithm = match name {
        Name::RoundRobin => Algorithm::RoundRobin,
        Name::LeastRequest => Algorithm::LeastRequest { choices: least.0, bias: least.1 },
        Name::Random => Algorithm::Random,
        Name::RingHash => Algorithm::RingHash { minimum: ring.0, maximum: ring.1, on },
        Name::Maglev => Algorithm::Maglev { table_size: table_size.flatten(), on },
    };
    Some(LoadBalancing { algorithm, slow_start, locality, panic_threshold })
}

fn not_of_this(field: &str, algorithms: &[Name]) -> Diagnostic {
    let names = ALGORITHMS.iter().filter(|(_, name)| algorithms.contains(name)).map(|(text, _)| *text);
    let names: Vec<&str> = names.collect();
    Diagnostic::error(format!("{field:?} has no effect on this algorithm"))
        .help(format!("it belongs to {}", names.join(" and ")))
}

fn least_request(node: &Node, report: &mut Report) -> Option<(Option<u32>, Option<f64>)> {
    let mut fields = report.fields(node, "leastRequest")?;
    let choices = fields.optional("choices", integer(2, 1_000));
    let bias = fields.optional("activeRequestBias", positive);
    fields.finish();
    Some((choices, bias))
}

fn ring(node: &Node, report: &mut Report) -> Option<(Option<u64>, Option<u64>)> {
    let mut fields = report.fields(node, "ringHash")?;
    let minimum = fields.optional("minimumSize", integer(1, MAX_RING));
    let maximum = fields.optional("maximumSize", integer(1, MAX_RING));
    let span = fields.key_span("minimumSize");
    fields.finish();
    if minimum.unwrap_or(1_024) > maximum.unwrap_or(MAX_RING) {
        return report.error(span, "the smallest ring (1024 unless given) is larger than the largest");
    }
    Some((minimum, maximum))
}

fn table_size(node: &Node, report: &mut Report) -> Option<Option<u64>> {
    let mut fields = report.fields(node, "maglev")?;
    let size = fields.optional("tableSize", |node, report| {
        let size = integer(2_u64, 5_000_011)(node, report)?;
        if is_prime(size) {
            return Some(size);
        }
        report.error(node.span, format!("the size of the table must be a prime number, {size} is none"))
    });
    fields.finish();
    Some(size)
}

fn is_prime(number: u64) -> bool {
    (2..).take_while(|divisor| divisor * divisor <= number).all(|divisor| !number.is_multiple_of(divisor))
}

fn hash_key(node: &Node, report: &mut Report) -> Option<HashKey> {
    let mut fields = report.fields(node, "hashOn")?;
    let header = fields.optional("header", header_name).map(HashKeyOf::Header);
    let cookie = fields.optional("cookie", cookie).map(HashKeyOf::Cookie);
    let source = fields.optional("sourceIP", switch).map(|()| HashKeyOf::SourceIp);
    let query = fields.optional("query", name).map(HashKeyOf::Query);
    let terminal = fields.optional("terminal", boolean).unwrap_or(false);
    let given = ["header", "cookie", "sourceIP", "query"].iter().filter(|key| node.get(key).is_some());
    if given.count() != 1 {
        fields.error::<()>("each of hashOn has one of header, cookie, sourceIP and query");
    }
    fields.finish();
    Some(HashKey { of: header.or(cookie).or(source).or(query)?, terminal })
}

fn slow_start(node: &Node, report: &mut Report) -> Option<SlowStart> {
    let mut fields = report.fields(node, "slowStart")?;
    let window = fields.required("window", some_time);
    let aggression = fields.optional("aggression", positive);
    let minimum = fields.optional("minimumPercent", percent);
    fields.finish();
    Some(SlowStart { window: window?, aggression, minimum })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{good, mistakes};
    use super::*;

    #[test]
    fn an_empty_group_is_the_default() {
        assert_eq!(good("{}", decode), LoadBalancing::default());
    }

    #[test]
    fn keys_are_hashed_in_their_order() {
        let balancing = good(
            "{algorithm: RingHash, hashOn: [{header: X-User, terminal: true}, {cookie: {name: s, ttl: 0s}}, {sourceIP: true}, {query: q}]}",
            decode,
        );
        let Algorithm::RingHash { on, .. } = balancing.algorithm else { panic!("{balancing:?}") };
        let cookie = Cookie { name: "s".into(), ttl: Some(Duration::ZERO), path: None };
        let of: Vec<HashKeyOf> = on.keys.iter().map(|key| key.of.clone()).collect();
        assert_eq!(
            of,
            [
                HashKeyOf::Header("x-user".into()),
                HashKeyOf::Cookie(cookie),
                HashKeyOf::SourceIp,
                HashKeyOf::Query("q".into())
            ]
        );
        assert!(on.keys[0].terminal && !on.keys[1].terminal);
    }

    #[test]
    fn what_has_no_effect_is_a_mistake() {
        assert_eq!(
            mistakes("{algorithm: Maglev}", decode),
            ["1:5 nothing says what is hashed (add hashOn, as hashOn: [{ header: x-user }])"]
        );
        assert_eq!(
            mistakes("{algorithm: RoundRobin, hashOn: [{sourceIP: true}]}", decode),
            ["1:28 \"hashOn\" has no effect on this algorithm (it belongs to RingHash and Maglev)"]
        );
        assert_eq!(
            mistakes(
                "{algorithm: Maglev, maglev: {tableSize: 100}, hashOn: [{header: a, query: b}]}",
                decode
            ),
            [
                "1:44 the size of the table must be a prime number, 100 is none",
                "1:59 each of hashOn has one of header, cookie, sourceIP and query"
            ]
        );
        assert_eq!(
            mistakes("{slowStart: {aggression: 0}}", decode),
            ["1:16 slowStart has no \"window\"", "1:29 a number above 0 is expected, this is the number 0",]
        );
    }
}
