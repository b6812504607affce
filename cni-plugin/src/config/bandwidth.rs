//! What the reference plugin `bandwidth` takes: rates and bursts, in bits.

use serde_json::{Map, Value};
use weft_ipam::config::Mistake;

use crate::error::mistake;

/// The rates that a pod's traffic is held to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bandwidth {
    /// What goes to the pod.
    pub ingress: Option<Limit>,
    /// What comes from the pod.
    pub egress: Option<Limit>,
}

/// A rate and what may exceed it for a moment. Both are whole bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Bytes a second, at least 1.
    pub rate: u64,
    /// Bytes.
    pub burst: u64,
}

/// The keys that hold numbers.
pub(super) const KEYS: [&str; 4] = ["ingressRate", "ingressBurst", "egressRate", "egressBurst"];

impl Bandwidth {
    /// Keys at the top level are the operator's, and where there is any of them, what the runtime asks for a pod is not looked
    /// at: so the reference has it (`getBandwidth`), and no annotation lifts a node's limit.
    pub(super) fn read(document: &Map<String, Value>, mistakes: &mut Vec<Mistake>) -> Self {
        let asked = document.get("runtimeConfig").and_then(|given| given.get("bandwidth"));
        match asked {
            _ if Self::is_outruled(document) => Self::from_fields(document, "", mistakes),
            None | Some(Value::Null) => Self::default(),
            Some(Value::Object(fields)) => Self::from_fields(fields, PREFIX, mistakes),
            Some(other) => {
                mistakes
                    .push(mistake("runtimeConfig.bandwidth", format!("expected an object, found {other}")));
                Self::default()
            }
        }
    }

    /// Whether what the runtime asks for is not looked at.
    pub(crate) fn is_outruled(document: &Map<String, Value>) -> bool {
        KEYS.iter().any(|key| document.contains_key(*key))
    }

    /// The same of a document that has been found good.
    pub(crate) fn of(document: &Map<String, Value>) -> Self {
        Self::read(document, &mut Vec::new())
    }

    /// What the runtime asks for and is not read: the subnets that the reference can leave out.
    pub(super) fn not_honoured(document: &Map<String, Value>) -> Vec<Mistake> {
        let asked = document.get("runtimeConfig").and_then(|given| given.get("bandwidth"));
        let fields = asked.and_then(Value::as_object).into_iter().flatten();
        fields
            .filter(|(key, value)| !KEYS.contains(&key.as_str()) && super::asks_for_something(value))
            .map(|(key, value)| mistake(format!("{PREFIX}{key}"), format!("{value} is not supported")))
            .collect()
    }

    fn from_fields(fields: &Map<String, Value>, at: &str, mistakes: &mut Vec<Mistake>) -> Self {
        let mut limit = |direction: &str| {
            let (rate, burst) = (format!("{direction}Rate"), format!("{direction}Burst"));
            let numbers = number(fields, &rate, at, mistakes).zip(number(fields, &burst, at, mistakes));
            numbers.and_then(|(bits, burst_bits)| {
                Limit::new(bits, burst_bits).unwrap_or_else(|what| {
                    mistakes.push(mistake(
                        format!("{at}{rate}"),
                        format!("{bits} with {burst} {burst_bits}: {what}"),
                    ));
                    None
                })
            })
        };
        Self { ingress: limit("ingress"), egress: limit("egress") }
    }
}

const PREFIX: &str = "runtimeConfig.bandwidth.";

impl Limit {
    /// The rules of the reference's `validateRateAndBurst`; and a rate below one byte a second would be none.
    fn new(rate_bits: u64, burst_bits: u64) -> Result<Option<Self>, &'static str> {
        const BITS: u64 = 8;
        let (rate, burst) = (rate_bits / BITS, burst_bits / BITS);
        match (rate_bits, burst_bits) {
            (0, 0) => Ok(None),
            (0, _) | (_, 0) => Err("rate and burst go together"),
            _ if burst >= u64::from(u32::MAX) => Err("a burst is below 4 GiB"),
            _ if rate == 0 => Err("a rate is at least 8 bits a second"),
            _ => Ok(Some(Self { rate, burst })),
        }
    }
}

/// Nothing said is as good as 0, which is no limit. `None` after a mistake.
fn number(fields: &Map<String, Value>, key: &str, at: &str, mistakes: &mut Vec<Mistake>) -> Option<u64> {
    match fields.get(key) {
        None | Some(Value::Null) => Some(0),
        Some(value) => value.as_u64().or_else(|| {
            mistakes.push(mistake(format!("{at}{key}"), format!("{value} is not a number of bits")));
            None
        }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(document: &Value) -> (Bandwidth, Vec<String>) {
        let mut mistakes = Vec::new();
        let bandwidth = Bandwidth::read(document.as_object().unwrap(), &mut mistakes);
        (bandwidth, mistakes.into_iter().map(|mistake| format!("{}: {}", mistake.at, mistake.what)).collect())
    }

    #[test]
    fn bits_become_bytes_in_either_direction() {
        let asked = json!({"ingressRate": 8000, "ingressBurst": 1_600, "egressRate": 16, "egressBurst": 8});
        let expected = Bandwidth {
            ingress: Some(Limit { rate: 1000, burst: 200 }),
            egress: Some(Limit { rate: 2, burst: 1 }),
        };
        assert_eq!(read(&asked), (expected, Vec::new()));
        assert_eq!(read(&json!({"runtimeConfig": {"bandwidth": asked}})), (expected, Vec::new()));
    }

    #[test]
    fn what_the_operator_says_no_annotation_lifts() {
        let asked = json!({"ingressRate": 8_000_000, "ingressBurst": 8, "egressRate": 8, "egressBurst": 8});
        let (bandwidth, _) =
            read(&json!({"ingressRate": 8, "ingressBurst": 8, "runtimeConfig": {"bandwidth": asked}}));
        assert_eq!(bandwidth, Bandwidth { ingress: Some(Limit { rate: 1, burst: 1 }), egress: None });
    }

    #[test]
    fn nothing_and_zero_are_no_limit() {
        for nothing in [
            json!({}),
            json!({"ingressRate": 0}),
            json!({"ingressRate": null, "egressBurst": 0}),
            json!({"runtimeConfig": {"bandwidth": null}}),
            json!({"runtimeConfig": {"bandwidth": {}}}),
        ] {
            assert_eq!(read(&nothing), (Bandwidth::default(), Vec::new()), "{nothing}");
        }
    }

    #[test]
    fn what_no_limit_can_be_made_of_is_a_mistake_at_its_place() {
        for (document, expected) in [
            (json!({"ingressRate": 8}), "ingressRate: 8 with ingressBurst 0: rate and burst go together"),
            (json!({"egressBurst": 8}), "egressRate: 0 with egressBurst 8: rate and burst go together"),
            (
                json!({"egressRate": 7, "egressBurst": 8}),
                "egressRate: 7 with egressBurst 8: a rate is at least 8 bits a second",
            ),
            (
                json!({"egressRate": 8, "egressBurst": 34_359_738_360u64}),
                "egressRate: 8 with egressBurst 34359738360: a burst is below 4 GiB",
            ),
            (json!({"egressRate": -8, "egressBurst": 8}), "egressRate: -8 is not a number of bits"),
            (json!({"egressRate": "8M", "egressBurst": 8}), "egressRate: \"8M\" is not a number of bits"),
            (json!({"egressRate": 1e30, "egressBurst": 8}), "egressRate: 1e+30 is not a number of bits"),
            (
                json!({"runtimeConfig": {"bandwidth": {"ingressRate": 1.5, "ingressBurst": 8}}}),
                "runtimeConfig.bandwidth.ingressRate: 1.5 is not a number of bits",
            ),
            (
                json!({"runtimeConfig": {"bandwidth": 7}}),
                "runtimeConfig.bandwidth: expected an object, found 7",
            ),
        ] {
            assert_eq!(read(&document), (Bandwidth::default(), vec![expected.to_owned()]), "{document}");
        }
    }
}
